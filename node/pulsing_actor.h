/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PULSING_ACTOR_H
#define PULSING_ACTOR_H

#include "node/pulsing_types.h"

/* Hosting actors: a mailbox each, messages one at a time unless the actor allows more.
 * Threads: owner thread; never blocks; the same for every function of this header. */

typedef struct pulsing_actor_options {
    uint64_t id; /* 0: a fresh one */
    /* Credit for tells goes back in bundles of half of it: a sender's window must not be smaller.
     */
    uint32_t mailbox_max;
    uint32_t concurrency_max;
    pulsing_overflow overflow;
    void *user;
} pulsing_actor_options;

typedef struct pulsing_actor_names {
    const char *name;
    const char *class_name;
    size_t name_bytes;
    size_t class_bytes;
} pulsing_actor_names;

/* Hosts an actor; messages for it start from the next poll on.
 * Errors:  PLS_ENOMEM; PLS_EEXIST  that id is hosted here.
 * Owns:    lends the actor until pulsing_actor_remove(). */
PLS_MUST_USE pls_err pulsing_actor_add(pulsing *p, const pulsing_actor_options *options,
                                       pulsing_actor **actor_out);
uint64_t pulsing_actor_id_of(const pulsing_actor *actor);
/* What texts of errors call the actor; at most 255 bytes. Lent until the actor is removed. */
void pulsing_actor_name(pulsing_actor *actor, const char *name, uint8_t name_bytes);
/* What inspectorscall the actor. Borrows the texts. */
void pulsing_actor_describe(pulsing *p, pulsing_actor *actor, const pulsing_actor_names *names);
/* Messages that wait in its mailbox, and that are being handled. */
uint32_t pulsing_actor_queued(const pulsing_actor *actor);
uint32_t pulsing_actor_running(const pulsing_actor *actor);
/* A message that was PULSING_RUNNING has ended; `origin` is its. */
void pulsing_actor_finished(pulsing *p, pulsing_actor *actor, const pulsing_origin *origin);
/* What a handler raised, for inspectors; for a tell, whose error no reply tells, also that it did.
 * Units:   `len` in bytes.
 * Owns:    borrows `text`. Threads: owner thread; may block in the kernel. */
void pulsing_handler_raised(pulsing *p, const pulsing_origin *origin, const char *text, size_t len);
/* Holds new messages back (true) or lets them start: while an actor is rebuilt in place. */
void pulsing_actor_hold(pulsing *p, pulsing_actor *actor, bool hold);
/* No more messages are accepted; `drained` follows when those accepted are handled. With `now`
 * those that wait are answered with PULSING_DIED. */
void pulsing_actor_stop(pulsing *p, pulsing_actor *actor, bool now);
/* Forgets the actor; messages that wait are answered with PULSING_DIED and `text`. */
void pulsing_actor_remove(pulsing *p, pulsing_actor *actor, const char *text);
uint32_t pulsing_actor_count(const pulsing *p);
/* Messages that actors of this process have started since it attached, the system's own aside. */
uint64_t pulsing_handled_count(const pulsing *p);

#endif
