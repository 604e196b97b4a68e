/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PLS_SHM_OBS_LAYOUT_H
#define PLS_SHM_OBS_LAYOUT_H

#include "base/limits.h"

#include <stdatomic.h>
#include <stdint.h>

/* The bytes of the `obs` memory of a process, which only that process writes and anybody of the
 * same user may read. A reader finds every section through the directory and believes none of it
 * unchecked. Append only: new fields go into spare room, a changed meaning gets a new section id.
 * One writer per word, relaxed 64-bit stores; a ring's record exists by the release store of the
 * ring's head; a record with a version word is being changed while that is odd. */

#define PLS_OBS_MAGIC UINT64_C(0x736267736c7570) /* "pulsgbs" */
#define PLS_OBS_MAJOR 1
#define PLS_OBS_MINOR 0
#define PLS_OBS_SECTIONS_MAX 40
#define PLS_OBS_BYTES (UINT64_C(256) << 20)

/* While a process is awake, its totals of messages, bytes and looking, and the lines of its peers,
 * may be behind by this many messages, and a killed process loses no more than that; they are exact
 * while its state is idle. Current calls, waits, actors and rings are never behind. */
#define PLS_OBS_BEHIND_MAX 64

enum pls_obs_section {
    PLS_OBS_SECTION_PROCESS = 1,
    PLS_OBS_SECTION_THREADS = 2,
    PLS_OBS_SECTION_COUNTERS = 3,
    PLS_OBS_SECTION_COUNTER_NAMES = 4,
    PLS_OBS_SECTION_PEERS = 5,
    PLS_OBS_SECTION_ACTORS = 6,
    PLS_OBS_SECTION_METHODS = 7,
    PLS_OBS_SECTION_WAITS = 8,
    PLS_OBS_SECTION_HOT = 9,
    PLS_OBS_SECTION_RARE = 10,
    PLS_OBS_SECTION_ERRORS = 11,
    PLS_OBS_SECTION_METRICS = 12,
    PLS_OBS_SECTION_STRINGS = 13,
};

#define PLS_OBS_THREADS_MAX 32
#define PLS_OBS_COUNTERS_MAX 128
#define PLS_OBS_ACTORS_MAX (1u << 20)
#define PLS_OBS_METHODS_MAX 1024
#define PLS_OBS_WAITS_MAX 65536
#define PLS_OBS_HOT_MAX 32768     /* records per thread */
#define PLS_OBS_HOT_THREADS_MAX 8 /* threads that have a hot ring */
#define PLS_OBS_RARE_MAX 4096
#define PLS_OBS_ERRORS_MAX 256
#define PLS_OBS_METRICS_MAX 1024
#define PLS_OBS_STRINGS_BYTES (4u << 20)

typedef struct pls_obs_directory_entry {
    uint32_t id;
    uint32_t version;
    uint64_t offset;
    uint32_t stride;
    uint32_t capacity;
    _Atomic uint64_t used; /* entries used so far; for rings, the head; for strings, bytes */
} pls_obs_directory_entry;

typedef struct pls_obs_page {
    uint64_t magic;
    uint16_t major;
    uint16_t minor;
    uint32_t page_bytes;
    uint64_t total_bytes;
    uint32_t sections_count;
    uint32_t spare;
    pls_obs_directory_entry directory[PLS_OBS_SECTIONS_MAX];
} pls_obs_page;

enum pls_obs_state {
    PLS_OBS_STARTING = 0,
    PLS_OBS_IDLE = 1,
    PLS_OBS_SPINNING = 2,
    PLS_OBS_WORKING = 3,
    PLS_OBS_DRAINING = 4,
    PLS_OBS_CRASHING = 5,
};

typedef struct pls_obs_process {
    uint32_t pid;
    uint32_t slot;
    uint32_t epoch;
    uint32_t role;
    uint64_t start_time;
    uint32_t level;
    _Atomic uint32_t state;
    uint8_t version[32];            /* of pulsing, zero-filled text */
    _Atomic uint32_t clock_version; /* odd while the clock below changes */
    uint32_t clock_source;
    _Atomic uint32_t clock_mult;
    _Atomic uint32_t clock_shift;
    _Atomic uint64_t clock_anchor_tick;
    _Atomic uint64_t clock_anchor_monotonic_ns;
    _Atomic uint64_t clock_anchor_realtime_ns;
    uint32_t clock_stamp_shift;
    uint32_t spare;
    _Alignas(PLS_LINE_BYTES) _Atomic uint64_t loop_turns;
    _Atomic uint64_t loop_tick;
    _Atomic uint64_t bell_tick;
} pls_obs_process;

typedef struct pls_obs_thread {
    _Alignas(PLS_LINE_BYTES) _Atomic uint32_t tid; /* 0: free */
    _Atomic uint32_t phase;
    _Atomic uint64_t version; /* odd while the current call changes */
    _Atomic uint64_t actor;   /* 0: no call */
    _Atomic uint64_t method;
    _Atomic uint64_t caller; /* slot << 56 | epoch << 32 | seq */
    _Atomic uint64_t start_tick;
    _Atomic uint64_t deadline_tick;
    _Atomic uint64_t calls;
    _Atomic uint64_t hot_ring; /* index of its hot ring + 1; 0: none */
} pls_obs_thread;

/* Process totals; their names travel in the counter name section. */
#define PLS_OBS_COUNTER_TABLE(X)                                                                   \
    X(SENT, "sent")                                                                                \
    X(SENT_BYTES, "sent_bytes")                                                                    \
    X(RECEIVED, "received")                                                                        \
    X(RECEIVED_BYTES, "received_bytes")                                                            \
    X(WAKES_SENT, "wakes_sent")                                                                    \
    X(WAKES_TAKEN, "wakes_taken")                                                                  \
    X(RECHECK_FOUND_WORK, "recheck_found_work")                                                    \
    X(SPINS_WON, "spins_won")                                                                      \
    X(SPINS_LOST, "spins_lost")                                                                    \
    X(SPIN_NS, "spin_ns")                                                                          \
    X(RING_FULL_WAITS, "ring_full_waits")                                                          \
    X(ARENA_LENT, "arena_lent")                                                                    \
    X(ARENA_RETURNED, "arena_returned")                                                            \
    X(ARENA_LENT_BYTES, "arena_lent_bytes")                                                        \
    X(ARENA_COMMITTED_BYTES, "arena_committed_bytes")                                              \
    X(DEAD_LETTERS_DEAD, "dead_letters.peer_dead")                                                 \
    X(DEAD_LETTERS_STOPPED, "dead_letters.actor_stopped")                                          \
    X(DEAD_LETTERS_EXPIRED, "dead_letters.expired")                                                \
    X(DEAD_LETTERS_UNKNOWN, "dead_letters.unknown_actor")                                          \
    X(DEAD_LETTERS_CORRUPT, "dead_letters.corrupt")                                                \
    X(DEAD_LETTERS_FULL, "dead_letters.full")                                                      \
    X(ACTORS_STARTED, "actors_started")                                                            \
    X(ACTORS_STOPPED, "actors_stopped")                                                            \
    X(ERRORS, "errors")                                                                            \
    X(STALLS, "stalls")                                                                            \
    X(OVERFLOWS, "table_overflows")

enum pls_obs_counter {
#define PLS_OBS_COUNTER_ENUM(name, text) PLS_OBS_##name,
    PLS_OBS_COUNTER_TABLE(PLS_OBS_COUNTER_ENUM)
#undef PLS_OBS_COUNTER_ENUM
        PLS_OBS_COUNTERS_KNOWN
};

typedef struct pls_obs_peer {
    _Atomic uint64_t messages;
    _Atomic uint64_t bytes;
    _Atomic uint64_t full_waits;
    _Atomic uint64_t ring_bytes;
    _Atomic uint64_t last_send_tick;
    _Atomic uint64_t received;
    _Atomic uint64_t spare[2];
} pls_obs_peer;

_Static_assert(sizeof(pls_obs_page) <= 4096, "the directory is one page");
_Static_assert(sizeof(pls_obs_process) % PLS_LINE_BYTES == 0, "whole lines");
_Static_assert(sizeof(pls_obs_thread) == 128, "stride of threads");
_Static_assert(sizeof(pls_obs_peer) == 64, "stride of peers");
_Static_assert(PLS_OBS_COUNTERS_KNOWN <= PLS_OBS_COUNTERS_MAX, "counters fit");

#endif
