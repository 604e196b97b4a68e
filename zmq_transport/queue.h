/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PLS_ZMQ_TRANSPORT_QUEUE_H
#define PLS_ZMQ_TRANSPORT_QUEUE_H

#include "zmq_transport/letter.h"
#include "zmq_transport/socket.h"

/* The outgoing messages of one peer, until the peer has them: a line per stream, and a ring of the
 * streams that have something to send, which take turns by the frame.
 * Threads: owner thread; never blocks; the same for every function of this header. */
typedef struct pls_queue pls_queue;

/* Errors:  PLS_ENOMEM. Owns: borrows the rest until destroy; gives the queue. */
PLS_MUST_USE pls_err pls_queue_create(pls_tray *tray, pls_zmq_counters *counters,
                                      pls_queue **queue_out);

/* Every letter is settled. Owns: takes `queue`; NULL is allowed. */
void pls_queue_destroy(pls_queue *queue);

/* Errors:  PLS_ENOMEM. Owns: as pls_zmq_send(). */
PLS_MUST_USE pls_err pls_queue_append(pls_queue *queue, const pls_zmq_message *message);

/* Letters that are not settled, and the bytes of their bodies. */
uint64_t pls_queue_count(const pls_queue *queue);
uint64_t pls_queue_bytes(const pls_queue *queue);

/* Whether something waits to be sent. */
bool pls_queue_ready(const pls_queue *queue);

/* A DATA frame to send. */
typedef struct pls_queue_frame {
    size_t records_bytes;
    pls_letter *letter; /* whose chunk is the second part, held for it; NULL: there is none */
    const uint8_t *chunk;
    size_t chunk_bytes;
    uint8_t records[PLS_FRAME_RECORDS_BYTES_MAX];
} pls_queue_frame;

/* Compose the next frame from what has its turn: many small messages, or one chunk of a large one.
 * The queue counts it as sent.
 * Errors:  PLS_EEMPTY. */
PLS_MUST_USE pls_err pls_queue_compose(pls_queue *queue, pls_queue_frame *frame);

/* The peer has all of a stream up to `sequence`.
 * Errors:  PLS_EPROTO  it cannot have that. */
PLS_MUST_USE pls_err pls_queue_complete(pls_queue *queue, unsigned stream, uint64_t sequence);

/* A new connection: whatever is not complete will be sent again.
 * Units:   `completed`: how far each stream has come for the peer. `remembered`: that is about what
 *          this queue sent; else what was begun is settled as unknown, and sequences go on there.
 * Errors:  PLS_EPROTO  it cannot have completed that. */
PLS_MUST_USE pls_err pls_queue_rewind(pls_queue *queue, bool remembered,
                                      const uint64_t completed[PLS_FRAME_STREAMS]);

/* Settle everything. */
void pls_queue_abandon(pls_queue *queue);

/* The whole invariant, for tests. */
bool pls_queue_check(const pls_queue *queue);

#endif
