/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PLS_NODE_WATCH_HOT_H
#define PLS_NODE_WATCH_HOT_H

#include "node/runtime.h"
#include "node/watch.h"
#include "shm/obs_hot.h"

/* The part of node/watch.h that runs with every message, and the rest of it at the full level only.
 * Threads: owner thread; never blocks; the same for every function of this header. */

/* What else there is to tell of a message that left: it woke its receiver, or there is a ring. */
void pls_watch_sent_tell(pulsing *p, const pls_watch_departure *departure);
void pls_watch_received_tell(pulsing *p, const pls_message *record);
/* The handler is kept until it is resumed, or its end is recorded. */
void pls_watch_left_tell(pulsing *p, pulsing_actor *actor, pls_watch_run *run, bool done);

/* A message was committed into a ring. */
static inline void pls_watch_sent(pulsing *p, const pls_watch_departure *departure)
{
    pls_watch *watch = &p->watch;
    if (watch->obs == NULL) {
        return;
    }
    watch->last_tick = departure->tick;
    watch->unread = 0;
    if (watch->wait != 0) {
        pls_obs_word_set(&watch->obs->waits[(uint32_t)watch->wait].start_tick, departure->tick);
        watch->wait = 0;
    }
    pls_obs_sent(watch->obs, departure->slot, departure->bytes, departure->tick);
    if (departure->woke || watch->writer.ring != NULL) {
        pls_watch_sent_tell(p, departure);
    }
}

/* A message was taken out of the inbox; a request is recorded by its start. */
static inline void pls_watch_received(pulsing *p, const pls_message *record)
{
    if (p->watch.obs == NULL) {
        return;
    }
    pls_obs_received(p->watch.obs, record->from_slot, record->len);
    if (p->watch.writer.ring != NULL && record->type != PLS_WIRE_REQUEST) {
        pls_watch_received_tell(p, record);
    }
}

/* A poll that found something. */
static inline void pls_watch_turn(pulsing *p)
{
    if (p->watch.obs != NULL) {
        p->watch.tick_fresh = false;
        pls_obs_turn(p->watch.obs, p->watch.last_tick, true);
    }
}

/* Where the node reads since when a handler keeps this process. */
static inline _Atomic uint64_t *pls_watch_held(const pulsing *p)
{
    return &p->info->directory->lines[p->info->slot].held_since_ns;
}

/* The handler has returned: it is done, or goes on later. */
static inline void pls_watch_left(pulsing *p, pulsing_actor *actor, pls_watch_run *run, bool done)
{
    if (p->watch.obs == NULL) {
        return;
    }
    p->watch.current = NULL;
    atomic_store_explicit(pls_watch_held(p), run->held_before, memory_order_relaxed);
    pls_obs_call_end(&p->watch.writer);
    if (!done || p->watch.obs->level == PLS_OBS_FULL) {
        pls_watch_left_tell(p, actor, run, done);
    }
}

#endif
