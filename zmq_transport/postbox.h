/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PLS_ZMQ_TRANSPORT_POSTBOX_H
#define PLS_ZMQ_TRANSPORT_POSTBOX_H

#include "zmq_transport/letter.h"
#include "zmq_transport/socket.h"

/* The outgoing messages of one peer, until the peer has them: a line per stream, and a ring of the
 * streams that have something to send, which take turns by the frame.
 * Threads: owner thread; never blocks; the same for every function of this header. */
typedef struct pls_postbox pls_postbox;

/* Errors:  PLS_ENOMEM. Owns: borrows the rest until destroy; gives the box. */
PLS_MUST_USE pls_err pls_postbox_create(pls_tray *tray, pls_zmq_counters *counters,
                                        pls_postbox **box_out);

/* Every letter is settled. Owns: takes `box`; NULL is allowed. */
void pls_postbox_destroy(pls_postbox *box);

/* Errors:  PLS_ENOMEM. Owns: as pls_zmq_send(). */
PLS_MUST_USE pls_err pls_postbox_append(pls_postbox *box, const pls_zmq_message *message);

/* Letters that are not settled, and the bytes of their bodies. */
uint64_t pls_postbox_count(const pls_postbox *box);
uint64_t pls_postbox_bytes(const pls_postbox *box);

/* Whether something waits to be sent. */
bool pls_postbox_ready(const pls_postbox *box);

/* A DATA frame to send. */
typedef struct pls_postbox_frame {
    size_t records_bytes;
    pls_letter *letter; /* whose chunk is the second part, held for it; NULL: there is none */
    const uint8_t *chunk;
    size_t chunk_bytes;
    uint8_t records[PLS_FRAME_RECORDS_BYTES_MAX];
} pls_postbox_frame;

/* Compose the next frame from what has its turn: many small messages, or one chunk of a large one.
 * The box counts it as sent.
 * Errors:  PLS_EEMPTY. */
PLS_MUST_USE pls_err pls_postbox_compose(pls_postbox *box, pls_postbox_frame *frame);

/* The peer has all of a stream up to `sequence`.
 * Errors:  PLS_EPROTO  it cannot have that. */
PLS_MUST_USE pls_err pls_postbox_complete(pls_postbox *box, unsigned stream, uint64_t sequence);

/* A new connection: whatever is not complete will be sent again.
 * Units:   `completed`: how far each stream has come for the peer. `remembered`: that is about what
 *          this box sent; else what was begun is settled as unknown, and sequences go on there.
 * Errors:  PLS_EPROTO  it cannot have completed that. */
PLS_MUST_USE pls_err pls_postbox_rewind(pls_postbox *box, bool remembered,
                                        const uint64_t completed[PLS_FRAME_STREAMS]);

/* Settle everything. */
void pls_postbox_abandon(pls_postbox *box);

/* The whole invariant, for tests. */
bool pls_postbox_check(const pls_postbox *box);

#endif
