/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PLS_ZMQ_TRANSPORT_ASSEMBLY_H
#define PLS_ZMQ_TRANSPORT_ASSEMBLY_H

#include "zmq_transport/origin.h"
#include "zmq_transport/socket.h"

/* DATA frames become messages again, in memory that the owner chose, and are handed over.
 * Threads: owner thread; never blocks; the same for every function of this header. */

/* A DATA frame that has arrived, and how far it has been worked through. */
typedef struct pls_arrived {
    struct pls_arrived *next;
    pls_zmq_part records;
    pls_zmq_part chunk;
    bool has_chunk;
    bool copied;       /* the chunk is where it belongs; only the hand-over is left */
    size_t done_bytes; /* of records */
} pls_arrived;

/* What was done with a frame. */
typedef struct pls_assembly_result {
    uint64_t changed; /* streams in which a message was completed */
    bool large;       /* one of them was of more than one frame */
} pls_assembly_result;

/* Work through a frame from where it stopped.
 * Errors:  PLS_EFULL   the owner takes no more now; call again with the same frame.
 *          PLS_EPROTO  the sender broke the rules: its connection is to be ended.
 *          PLS_ENOMEM  as PLS_EFULL.
 * Owns:    borrows `frame`; adds to `result`. */
PLS_MUST_USE pls_err pls_assembly_work(pls_zmq *zmq, pls_origin *origin, pls_arrived *frame,
                                       pls_assembly_result *result);

/* Messages that have begun will not be completed on this connection. */
void pls_assembly_discard(pls_zmq *zmq, pls_origin *origin);

/* Owns: takes the frame and its parts. */
void pls_arrived_free(pls_arrived *frame);

#endif
