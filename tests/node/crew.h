/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PLS_TESTS_NODE_CREW_H
#define PLS_TESTS_NODE_CREW_H

#include "node/pulsing.h"
#include "tests/node/world.h"

/* Two runtimes of this process, and processes of their own, attached to one real node. Messages
 * carry a number; each member notes what its callbacks were told. */

#define CREW_MEMBERS 2
#define CREW_NOTES_MAX 4096

typedef struct crew_note {
    uint32_t number; /* the payload, or the first four bytes of it */
    uint32_t payload_bytes;
    uint32_t block_bytes;
    uint8_t status;
    pulsing_origin origin;
    void *user;
    char text[200];
} crew_note;

typedef struct crew_member {
    pulsing *p;
    pulsing_actor *actor;
    uint64_t actor_id;
    bool keep_running; /* requests stay unanswered until the test answers */
    crew_note requests[CREW_NOTES_MAX];
    crew_note replies[CREW_NOTES_MAX];
    crew_note items[CREW_NOTES_MAX];
    uint32_t request_count, reply_count, item_count;
    uint32_t cancel_count, room_count, open_count, drained_count, sent_count, notice_count;
    uint64_t room_items;
    pls_err sent_err;
    pulsing_origin reader;
} crew_member;

typedef struct crew {
    pls_node_launched node;
    char name[64];
    crew_member m[CREW_MEMBERS];
} crew;

/* A process that hosts an actor: answers numbers below `answers`, and keeps the first other one
 * running. */
typedef struct crew_peer {
    pid_t pid;
    uint64_t actor_id;
} crew_peer;

void crew_begin(crew *c);
/* Shuts down and checks that nothing is left. */
void crew_end(crew *c);

/* Hosts the member's actor; `id` 0: a fresh one. */
void crew_host(crew_member *m, uint32_t mailbox_max, pulsing_overflow overflow, uint64_t id);

/* Starts a process; the caller kills it by crew_peer_kill(). */
crew_peer crew_peer_start(crew *c, uint32_t answers, uint32_t mailbox_max,
                          pulsing_overflow overflow);
void crew_peer_kill(const crew_peer *peer);
/* Called first by main(): does not return in such a process. */
void crew_peer_main(int argc, char **argv);

/* One ask or tell of a number, with `extra` bytes after it (more than fits goes by a room). */
pls_err crew_send(crew_member *m, pulsing_target *target, uint32_t number, uint32_t extra,
                  pulsing_call call, uint64_t *call_out);
void crew_answer(crew_member *m, const pulsing_origin *origin, uint32_t number);

/* Polls everybody once. */
void crew_turn(crew *c);
/* Polls until `*count` has reached `least`; fails the test after 10 s. */
void crew_until(crew *c, const uint32_t *count, uint32_t least);
/* Polls for `ms`, to see that nothing more comes. */
void crew_rest(crew *c, int ms);

#endif
