/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PLS_NODE_WATCH_HOT_H
#define PLS_NODE_WATCH_HOT_H

#include "node/runtime.h"
#include "node/watch.h"
#include "shm/obs_hot.h"

#include <stddef.h>
#include <string.h>

/* The part of node/watch.h that runs with every message, and the rest of it at the full level only.
 * Threads: owner thread; never blocks; the same for every function of this header. */

/* What else there is to tell of a message that left: it woke its receiver, or there is a ring. */
void pls_watch_sent_tell(pulsing *p, const pls_watch_departure *departure);
void pls_watch_received_tell(pulsing *p, const pls_message *record);
/* The handler is kept until it is resumed, or its end is recorded. */
void pls_watch_left_tell(pulsing *p, pulsing_actor *actor, pls_watch_run *run, bool done);

/* A reply leaves next. Whoever has it must not see its handler hold this process up: the release of
 * the commit publishes this, too. */
static inline void pls_watch_answers(pulsing *p, uint32_t slot, const uint8_t *reply)
{
    const pls_watch_run *run = p->watch.current;
    uint64_t call_id = 0;
    memcpy(&call_id, reply + offsetof(pls_wire_reply, call_id), sizeof call_id);
    if (run != NULL && run->call_id == call_id && run->caller >> 56 == slot) {
        atomic_store_explicit(p->watch.held, 0, memory_order_relaxed);
    }
}

/* A message was committed into a ring. */
static inline void pls_watch_sent(pulsing *p, const pls_watch_departure *departure)
{
    pls_watch *watch = &p->watch;
    if (watch->obs == NULL) {
        return;
    }
    watch->last_tick = departure->tick;
    watch->unread = 0;
    pls_obs_sent(watch->obs, departure->slot, departure->bytes, departure->tick);
    if (departure->woke || watch->writer.ring != NULL) {
        pls_watch_sent_tell(p, departure);
    }
}

/* A message was taken out of the inbox; a request is recorded by its start. */
static inline void pls_watch_received(pulsing *p, const pls_message *record)
{
    if (p->watch.writer.ring != NULL && record->type != PLS_WIRE_REQUEST) {
        pls_watch_received_tell(p, record);
    }
}

/* It was dealt with; counted only now, since until it is answered somebody waits. */
static inline void pls_watch_counted(pulsing *p, uint32_t slot, uint32_t bytes)
{
    if (p->watch.obs != NULL) {
        pls_obs_received(p->watch.obs, slot, bytes);
    }
}

/* The inbox was looked at before a sleep. */
static inline void pls_watch_looked(const pulsing *p, uint64_t ticks, bool won)
{
    if (p->watch.obs != NULL) {
        pls_obs_looked(p->watch.obs, ticks, won);
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

/* The handler has returned: it is done, or goes on later. */
static inline void pls_watch_left(pulsing *p, pulsing_actor *actor, pls_watch_run *run, bool done)
{
    if (p->watch.obs == NULL) {
        return;
    }
    p->watch.current = NULL;
    atomic_store_explicit(p->watch.held, run->held_before, memory_order_relaxed);
    pls_obs_call_end(&p->watch.writer);
    if (!done || p->watch.obs->level == PLS_OBS_FULL) {
        pls_watch_left_tell(p, actor, run, done);
    }
}

#endif
