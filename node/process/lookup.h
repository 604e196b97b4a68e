/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PLS_NODE_PROCESS_LOOKUP_H
#define PLS_NODE_PROCESS_LOOKUP_H

#include "base/err.h"
#include "node/process/reach.h"

#include <stdbool.h>
#include <stdint.h>

/* Host names to addresses, beside the loop: a name server may take many seconds. Each question has
 * a thread of its own, so that a dead name holds up no other.
 * Threads: owner thread for every function of this header; never blocks, unless said. */

typedef struct pls_lookup pls_lookup;

#define PLS_LOOKUPS_MAX 80
#define PLS_LOOKUP_ENDPOINTS_MAX 8

typedef struct pls_lookup_answer {
    uint32_t tag;
    uint32_t count; /* 0: not found, `why` says why */
    const char *why;
    char endpoints[PLS_LOOKUP_ENDPOINTS_MAX][PLS_ENDPOINT_CAPACITY];
} pls_lookup_answer;

/* Errors:  PLS_ENOMEM, PLS_EFDLIMIT, PLS_ESYS.
 * Owns:    gives the lookup; lends the descriptor, readable when an answer is there, until destroy.
 */
PLS_MUST_USE pls_err pls_lookup_create(pls_lookup **lookup_out, int *notice_fd_out);

/* Questions under way are given up; their threads end when the name server lets them. NULL is
 * accepted. */
void pls_lookup_destroy(pls_lookup *lookup);

/* Asks.
 * Units:   `tag` comes back with the answer.
 * Errors:  PLS_EFULL  PLS_LOOKUPS_MAX are under way; PLS_ENOMEM. */
PLS_MUST_USE pls_err pls_lookup_ask(pls_lookup *lookup, const pls_reach *reach, uint32_t tag);

/* Takes the next answer, waiting up to `timeout_ms` for it.
 * Errors:  PLS_EEMPTY  none is there and none is under way; PLS_ETIMEDOUT.
 * Threads: owner thread; may block `timeout_ms`. */
PLS_MUST_USE pls_err pls_lookup_answered(pls_lookup *lookup, int timeout_ms,
                                         pls_lookup_answer *answer_out);

#endif
