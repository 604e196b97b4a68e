/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PLS_SHM_OBS_TABLES_H
#define PLS_SHM_OBS_TABLES_H

#include "base/limits.h"

#include <stdatomic.h>
#include <stdint.h>

/* Bytes of the obs sections that hold what exists now: actors, methods, and who waits for whom. The
 * rules of obs_layout.h hold. */

/* First half rarely written, second half with every message. */
typedef struct pls_obs_actor {
    _Alignas(PLS_LINE_BYTES) _Atomic uint64_t id; /* 0: free */
    _Atomic uint32_t class_name;                  /* offsets into strings; 0: none */
    _Atomic uint32_t name;
    _Atomic uint32_t state;
    _Atomic uint32_t generation;
    _Atomic uint32_t mailbox_capacity;
    _Atomic uint32_t policy;
    _Atomic uint32_t restarts;
    _Atomic uint32_t owner_slot;
    _Atomic uint64_t current_method; /* record of the method of current_call */
    _Atomic uint64_t spare;
    _Atomic uint64_t enqueued;
    _Atomic uint64_t taken;
    _Atomic uint64_t errors;
    _Atomic uint64_t dropped;
    _Atomic uint64_t busy_ns;
    _Atomic uint64_t oldest_tick;
    _Atomic uint64_t current_call; /* suspended last; a thread's record has what is on its stack */
    _Atomic uint64_t waiting_on;
} pls_obs_actor;

/* 8 linear parts to an octave from 64 ns to 68 s, then one under and one over. */
#define PLS_OBS_BUCKETS 240
#define PLS_OBS_BUCKET_UNDER 240
#define PLS_OBS_BUCKET_OVER 241
#define PLS_OBS_BUCKETS_ALL 242
#define PLS_OBS_BUCKET_MIN_LOG2 6

typedef struct pls_obs_method {
    _Atomic uint32_t class_name;
    _Atomic uint32_t method_name; /* 0: free */
    _Atomic uint64_t calls;
    _Atomic uint64_t errors;
    _Atomic uint64_t expired;
    _Atomic uint64_t busy_ns;
    _Atomic uint64_t wait_ns;
    uint64_t spare[22];
    _Atomic uint64_t wait[PLS_OBS_BUCKETS_ALL];
    _Atomic uint64_t handling[PLS_OBS_BUCKETS_ALL];
} pls_obs_method;

enum pls_obs_wait_kind {
    PLS_OBS_WAIT_ASK = 1,
    PLS_OBS_WAIT_STREAM_READ = 2,
    PLS_OBS_WAIT_STREAM_CREDIT = 3,
    PLS_OBS_WAIT_MAILBOX = 4,
    PLS_OBS_WAIT_RING = 5,
    PLS_OBS_WAIT_FIND = 6,
    PLS_OBS_WAIT_SPAWN = 7,
    PLS_OBS_WAIT_NAME = 8,
};

typedef struct pls_obs_wait {
    _Atomic uint32_t generation; /* odd: in use; counts up with every use and every end */
    _Atomic uint16_t kind;
    _Atomic uint16_t method;
    _Atomic uint64_t waiter;
    _Atomic uint64_t target_node; /* first 8 bytes of the node id; 0: this host */
    _Atomic uint64_t target;
    _Atomic uint64_t start_tick;
    _Atomic uint64_t deadline_tick;
    _Atomic uint32_t target_slot;
    _Atomic uint32_t state;
    _Atomic uint64_t spare;
} pls_obs_wait;

_Static_assert(sizeof(pls_obs_actor) == 128, "stride of actors");
_Static_assert(sizeof(pls_obs_method) == 4096, "stride of methods");
_Static_assert(sizeof(pls_obs_wait) == 64, "stride of waits");

#endif
