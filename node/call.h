/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PLS_NODE_CALL_H
#define PLS_NODE_CALL_H

#include "node/pulsing_types.h"

/* One entry of the table of what a process waits for. Only the runtime's own files include this,
 * through runtime.h. */

#define PLS_CALLS_MAX (1u << 20)

typedef enum pls_call_state {
    PLS_CALL_FREE,
    PLS_CALL_PENDING,
    PLS_CALL_STREAM,    /* answered by a stream, or subscribed to one */
    PLS_CALL_ABANDONED, /* cancelled; the answer is awaited for the window's sake */
    PLS_CALL_WRITER,    /* not a call: the writing end of a stream */
} pls_call_state;

typedef struct pls_call {
    uint32_t gen;
    uint8_t state;
    bool awaited;
    bool kept; /* its message goes again to the rebuilt actor */
    bool told; /* that it waits for long */
    uint16_t slot;
    uint32_t epoch;
    uint32_t next_free;
    void *user;
    pulsing_target *target; /* counted; NULL for subscriptions and writers */
    uint64_t peer_id;       /* stream: the other end's id */
    uint64_t wait;          /* its entry in the obs memory */
    uint64_t sender_id;     /* the actor that asks; counter 0: none */
    int64_t seen_ns;        /* when a patrol first saw it waiting; 0: not yet */
} pls_call;

#endif
