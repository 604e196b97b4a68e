/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PLS_SHM_OBS_HOT_H
#define PLS_SHM_OBS_HOT_H

#include "shm/fence.h"
#include "shm/obs.h"

/* What every message pays: a few plain stores into lines that only this process writes. Words are
 * relaxed atomics, so that a reader never sees half of one; adding needs no lock, because each word
 * has one writing thread. */

static inline void pls_obs_word_add(_Atomic uint64_t *word, uint64_t delta)
{
    atomic_store_explicit(word, atomic_load_explicit(word, memory_order_relaxed) + delta,
                          memory_order_relaxed);
}

static inline void pls_obs_word_set(_Atomic uint64_t *word, uint64_t value)
{
    atomic_store_explicit(word, value, memory_order_relaxed);
}

/* Add to a process total. Threads: owner thread; never blocks. */
static inline void pls_obs_count(pls_obs *obs, enum pls_obs_counter counter, uint64_t delta)
{
    if (obs->level != PLS_OBS_OFF) {
        pls_obs_word_add(&obs->counters[counter], delta);
    }
}

/* Set a process total that is kept elsewhere. Threads: owner thread; never blocks. */
static inline void pls_obs_count_set(pls_obs *obs, enum pls_obs_counter counter, uint64_t value)
{
    if (obs->level != PLS_OBS_OFF) {
        pls_obs_word_set(&obs->counters[counter], value);
    }
}

/* The event loop came round. Threads: owner thread; never blocks. */
static inline void pls_obs_turn(pls_obs *obs, uint64_t tick, bool bell_seen)
{
    if (obs->level != PLS_OBS_OFF) {
        pls_obs_word_add(&obs->process->loop_turns, 1);
        pls_obs_word_set(&obs->process->loop_tick, tick);
        if (bell_seen) {
            pls_obs_word_set(&obs->process->bell_tick, tick);
        }
    }
}

/* What a record of the hot ring says beside kind and time. */
typedef struct pls_obs_hot_entry {
    uint32_t peer;
    uint32_t seq;
    uint32_t actor;
    uint32_t parent; /* parent call, or duration in stamps */
    uint32_t method;
    uint32_t bytes;
} pls_obs_hot_entry;

/* One record of the hot ring. Threads: the writer's thread; blocks only in the kernel while the
 * ring gets its pages. */
static inline void pls_obs_record(pls_obs_writer *writer, enum pls_obs_hot_kind kind, uint64_t tick,
                                  pls_obs_hot_entry entry)
{
    if (writer->ring == NULL) {
        return;
    }
    if (writer->head == writer->head_limit && !pls_obs_writer_extend(writer)) {
        return;
    }
    pls_obs_hot *hot = &writer->ring->records[writer->head % PLS_OBS_HOT_MAX];
    pls_obs_word_set(&hot->tick, tick);
    pls_obs_word_set(&hot->message, entry.seq | (uint64_t)entry.peer << 32 | (uint64_t)kind << 48);
    pls_obs_word_set(&hot->actor, entry.actor | (uint64_t)entry.parent << 32);
    pls_obs_word_set(&hot->method, entry.method | (uint64_t)entry.bytes << 32);
    writer->head++;
    /* Release: a reader that sees the head sees the record. */
    atomic_store_explicit(&writer->ring->head, writer->head, memory_order_release);
}

/* Make the tally one of `peer` with room for one more message. */
static inline pls_obs_tally *pls_obs_tally_of(pls_obs *obs, uint32_t peer)
{
    pls_obs_tally *tally = &obs->tally;
    if (tally->peer != peer || tally->count == PLS_OBS_BEHIND_MAX) {
        pls_obs_publish(obs);
        tally->peer = peer;
    }
    tally->count++;
    return tally;
}

/* A message went to `peer`. Threads: owner thread; never blocks. */
static inline void pls_obs_sent(pls_obs *obs, uint32_t peer, uint32_t bytes, uint64_t tick)
{
    if (obs->level != PLS_OBS_OFF) {
        pls_obs_tally *tally = pls_obs_tally_of(obs, peer);
        tally->sent++;
        tally->sent_bytes += bytes;
        tally->last_send_tick = tick;
    }
}

/* A message came from `peer`. Threads: owner thread; never blocks. */
static inline void pls_obs_received(pls_obs *obs, uint32_t peer, uint32_t bytes)
{
    if (obs->level != PLS_OBS_OFF) {
        pls_obs_tally *tally = pls_obs_tally_of(obs, peer);
        tally->received++;
        tally->received_bytes += bytes;
    }
}

/* The owner looked at its inbox for `ticks`. Threads: owner thread; never blocks. */
static inline void pls_obs_looked(pls_obs *obs, uint64_t ticks, bool won)
{
    obs->tally.spins_won += won;
    obs->tally.spins_lost += !won;
    obs->tally.spin_ticks += ticks;
}

/* The thread begins a call. `caller` = slot << 56 | epoch << 32 | seq.
 * Threads: the writer's thread; never blocks. */
static inline void pls_obs_call_begin(pls_obs_writer *writer, uint64_t actor, uint64_t method,
                                      uint64_t caller, uint64_t start_tick, uint64_t deadline_tick)
{
    pls_obs_thread *thread = writer->thread;
    if (thread == NULL) {
        return;
    }
    uint64_t version = atomic_load_explicit(&thread->version, memory_order_relaxed);
    pls_obs_word_set(&thread->version, version + 1);
    /* Release fence: the fields are not seen before the odd version. */
    pls_fence_release();
    pls_obs_word_set(&thread->actor, actor);
    pls_obs_word_set(&thread->method, method);
    pls_obs_word_set(&thread->caller, caller);
    pls_obs_word_set(&thread->start_tick, start_tick);
    pls_obs_word_set(&thread->deadline_tick, deadline_tick);
    pls_obs_word_add(&thread->calls, 1);
    /* Release: the even version is seen after the fields. */
    atomic_store_explicit(&thread->version, version + 2, memory_order_release);
}

/* The thread's call is over. Threads: the writer's thread; never blocks. */
static inline void pls_obs_call_end(pls_obs_writer *writer)
{
    if (writer->thread != NULL) {
        pls_obs_word_set(&writer->thread->actor, 0);
    }
}

/* The bucket of a duration. Units: nanoseconds. */
static inline unsigned pls_obs_bucket(uint64_t ns)
{
    if (ns < (UINT64_C(1) << PLS_OBS_BUCKET_MIN_LOG2)) {
        return PLS_OBS_BUCKET_UNDER;
    }
    unsigned log2 = 63 - (unsigned)__builtin_clzll(ns);
    unsigned bucket = (log2 - PLS_OBS_BUCKET_MIN_LOG2) * 8 + (unsigned)((ns >> (log2 - 3)) & 7);
    return bucket < PLS_OBS_BUCKETS ? bucket : PLS_OBS_BUCKET_OVER;
}

/* A call of a method was handled. `index` may be PLS_OBS_NONE.
 * Units:   nanoseconds. Threads: owner thread; never blocks. */
static inline void pls_obs_handled(pls_obs *obs, uint32_t index, uint64_t wait_ns,
                                   uint64_t handling_ns, bool failed)
{
    if (obs->level != PLS_OBS_FULL || index == PLS_OBS_NONE) {
        return;
    }
    pls_obs_method *method = &obs->methods[index];
    pls_obs_word_add(&method->calls, 1);
    pls_obs_word_add(&method->errors, failed);
    pls_obs_word_add(&method->busy_ns, handling_ns);
    pls_obs_word_add(&method->wait_ns, wait_ns);
    pls_obs_word_add(&method->wait[pls_obs_bucket(wait_ns)], 1);
    pls_obs_word_add(&method->handling[pls_obs_bucket(handling_ns)], 1);
}

#endif
