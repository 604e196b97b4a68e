/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PLS_SHM_OBS_TRAIL_H
#define PLS_SHM_OBS_TRAIL_H

#include "shm/obs_layout.h"

#include <stdatomic.h>
#include <stdint.h>

/* Bytes of the obs sections that hold what happened: a hot ring per thread, the rare ring of the
 * process, its distinct errors and the user's metrics. The rules of obs_layout.h hold. */

enum pls_obs_hot_kind {
    PLS_OBS_HOT_SEND = 1,
    PLS_OBS_HOT_RECEIVE = 2,
    PLS_OBS_HOT_START = 3,
    PLS_OBS_HOT_END = 4,
    PLS_OBS_HOT_REPLY = 5,
};

typedef struct pls_obs_hot {
    _Atomic uint64_t tick;
    _Atomic uint64_t message; /* seq | peer << 32 | kind << 48 | flags << 56 */
    _Atomic uint64_t actor;   /* actor number | parent call or duration << 32 */
    _Atomic uint64_t method;  /* method | bytes << 32 */
} pls_obs_hot;

/* A hot ring is a head on its own line, then the records. */
typedef struct pls_obs_hot_ring {
    _Alignas(PLS_LINE_BYTES) _Atomic uint64_t head;
    _Atomic uint64_t tid;
    _Alignas(PLS_LINE_BYTES) pls_obs_hot records[PLS_OBS_HOT_MAX];
} pls_obs_hot_ring;

enum pls_obs_rare_kind {
    PLS_OBS_RARE_LIFECYCLE = 1,
    PLS_OBS_RARE_DEATH = 2,
    PLS_OBS_RARE_SLOW = 3,
    PLS_OBS_RARE_ERROR = 4,
    PLS_OBS_RARE_DROP = 5,
    PLS_OBS_RARE_STALL = 6,
    PLS_OBS_RARE_CONNECT = 7,
    PLS_OBS_RARE_OVERFLOW = 8,
};

typedef struct pls_obs_rare {
    _Atomic uint64_t tick;
    _Atomic uint32_t kind;
    _Atomic uint32_t text; /* offset into strings; 0: none */
    _Atomic uint64_t actor;
    _Atomic uint64_t a; /* meaning by kind */
    _Atomic uint64_t b;
    _Atomic uint64_t c;
    _Atomic uint64_t spare[2];
} pls_obs_rare;

#define PLS_OBS_ERROR_TEXT_BYTES 472

typedef struct pls_obs_error {
    _Atomic uint64_t hash; /* of the text; 0: free */
    _Atomic uint64_t count;
    _Atomic uint64_t first_tick;
    _Atomic uint64_t last_tick;
    _Atomic uint64_t text_bytes; /* stored last, with release */
    uint8_t text[PLS_OBS_ERROR_TEXT_BYTES];
} pls_obs_error;

typedef struct pls_obs_metric {
    _Atomic uint32_t name; /* offset into strings; 0: free */
    _Atomic uint32_t labels;
    _Atomic uint32_t kind;
    _Atomic uint32_t page;
    _Atomic uint64_t value;
    _Atomic uint64_t spare[5];
} pls_obs_metric;

_Static_assert(sizeof(pls_obs_hot) == 32, "stride of hot records");
_Static_assert(sizeof(pls_obs_rare) == 64, "stride of rare records");
_Static_assert(sizeof(pls_obs_error) == 512, "stride of errors");
_Static_assert(sizeof(pls_obs_metric) == 64, "stride of metrics");

#endif
