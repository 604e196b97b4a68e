/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PLS_TESTS_STRESS_STAGE_H
#define PLS_TESTS_STRESS_STAGE_H

#include "shm/arena.h"
#include "shm/inbox.h"
#include "shm/lease.h"
#include "shm/outbox.h"
#include "shm/peer.h"
#include "tests/stress/letter.h"
#include "tests/stress/step.h"

#include <check.h>
#include <stdbool.h>
#include <stdint.h>

/* Where an operation is killed. The parent is the survivor: it has an inbox, an arena and views
 * that live through all rounds, so that whatever one death leaves behind adds up; it also plays the
 * node, which confirms deaths and rings, and a bystander, another process that goes on sending. The
 * child is the victim: a whole party of its own, made anew for every round. */

enum stage_slots {
    STAGE_SURVIVOR = 5,
    STAGE_VICTIM = 66, /* in another word of the bitmaps */
    STAGE_BYSTANDER = 130,
    STAGE_DEAD = 200, /* somebody else who is dead already */
};

#define STAGE_EPOCH 3 /* of everybody but the victim */
#define STAGE_RING_BYTES 4096
#define STAGE_SEGMENTS_MAX 64
#define STAGE_HANDLED_MAX 16
#define STAGE_LEASES_MAX 8

/* What the kill is followed by. */
typedef enum stage_mode {
    STAGE_NEXT_SEND, /* the bystander's next message must wake the survivor, before any reaping */
    STAGE_DEAD_BELL, /* the node's bell alone must wake it */
    STAGE_PAUSED,    /* not killed there but stopped; the others go on; then it runs to its end */
} stage_mode;

#define STAGE_MODES 3

/* Memory that victim and survivor share beside what is tested. */
typedef struct stage_score {
    uint32_t wants_space; /* what pls_outbox_want_space() said */
    uint32_t armed;       /* the victim ended its act armed */
    uint32_t handled[STAGE_HANDLED_MAX];
    int segment_fds[STAGE_SEGMENTS_MAX]; /* of the survivor's segments, numbers in its process */
} stage_score;

typedef struct victim {
    pls_inbox *inbox;
    pls_arena *arena;
    pls_views *views;
    pls_peer *survivor;
    pls_outbox *outbox;
    stage_score *score;
    int socket;
    pid_t parent;
    uint32_t epoch;
    uint32_t last_id;
    pls_message message;
    pls_descriptor descriptor; /* of a letter that was popped and not opened */
    uint32_t lease_count;
    pls_lease leases[STAGE_LEASES_MAX];
} victim;

typedef struct stage stage;

typedef struct stage_op {
    const char *name;
    uint32_t points_min;   /* fewer kill points mean that the test tests nothing */
    void (*set)(stage *s); /* survivor, before `prepare`; may be NULL, as the next two */
    void (*prepare)(victim *v);
    void (*settle)(stage *s);    /* survivor, after `prepare` */
    void (*act)(victim *v);      /* what is stepped */
    void (*meanwhile)(stage *s); /* survivor, in STAGE_PAUSED while the victim is stopped */
    void (*judge)(stage *s);     /* survivor, after the death and before the reaping */
    uint32_t letters_before;     /* that the victim has sent when `act` begins */
    uint32_t letters_act;        /* that it sends in `act` */
    bool notifies;               /* whoever completes it has woken the survivor */
    bool busy;                   /* the survivor does not sleep, but has letters unread */
} stage_op;

struct stage {
    const stage_op *op;
    stage_mode mode;
    uint64_t point;
    bool complete; /* the victim reached the end of its act */
    pls_inbox *inbox;
    pls_arena *arena;
    pls_views *views;
    pls_peer *self;        /* the survivor as the node and the victim see it */
    pls_outbox *bystander; /* to the survivor */
    uint32_t bystander_sent;
    uint32_t bystander_received;
    pls_peer *victim;
    int victim_memfd;
    int victim_eventfd;    /* the peer's */
    pls_outbox *to_victim; /* or NULL */
    uint32_t to_victim_sent;
    uint32_t epoch; /* the victim's */
    uint32_t victim_received;
    pls_outbox *dead; /* the dead one's to the survivor, or NULL */
    uint32_t dead_received;
    pls_bitmap space;
    pls_bitmap gone;
    uint32_t collected;
    uint32_t lease_count; /* leases of the victim's blocks that the survivor holds */
    pls_lease leases[STAGE_LEASES_MAX];
    letter enclosed[STAGE_LEASES_MAX];
    pls_block *held; /* a block of the survivor's that it still holds itself */
    int sockets[2];
    int segments[STAGE_SEGMENTS_MAX]; /* the victim's, as the node keeps them */
    step_child child;
    step_trace trace;
    stage_score *score;
};

/* Fails the test with the place of the kill. */
#define stage_check(s, condition)                                                                  \
    ck_assert_msg(condition, "%s killed after %llu units (mode %d, complete %d): %s",              \
                  (s)->op->name, (unsigned long long)(s)->point, (int)(s)->mode,                   \
                  (int)(s)->complete, #condition)

/* Runs an operation in every mode, killing after 0, 1, 2 ... units until it is complete, and prints
 * how many kill points that were. An instruction in a loop is a kill point in the first
 * STAGE_VISITS_MAX rounds of the loop; how many points that leaves out is printed too. */
#define STAGE_VISITS_MAX 6

void stage_exhaust(const stage_op *op);

/* For the operations, on the survivor's side. */

void stage_open(stage *s);
void stage_close(stage *s);

/* Attach to the victim's inbox as a sender. */
void stage_send_open(stage *s);
/* A letter to the victim, `enclosed`: in a block of the survivor's arena that is kept in `held`. */
pls_err stage_send(stage *s, uint32_t len, bool enclosed);
/* The dead one's outbox to the survivor, with one letter committed and not rung for. */
void stage_dead_commits(stage *s);
/* Reads everything there is, checks it and answers what is owed. */
void stage_drain(stage *s);
/* Whether a sleeping survivor would wake now. */
bool stage_signalled(const stage *s);
bool stage_victim_signalled(const stage *s);

/* The victim's side. */

void victim_main(void *context);
void victim_attach(victim *v);
pls_err victim_send(victim *v, uint32_t len);
void victim_send_enclosed(victim *v, uint32_t len);
/* Pops a letter and checks it; its enclosure is opened if `open`. False: nothing there. */
bool victim_pop(victim *v, bool open);

#endif
