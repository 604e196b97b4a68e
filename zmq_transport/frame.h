/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PLS_ZMQ_TRANSPORT_FRAME_H
#define PLS_ZMQ_TRANSPORT_FRAME_H

#include "base/bytes.h"
#include "base/err.h"
#include "base/limits.h"
#include "zmq_transport/key.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The bytes of the wire between two nodes. Numbers are append-only. A frame is one ZeroMQ message:
 * its first byte is the kind. All of it comes from the network: decoders answer PLS_EPROTO.
 *
 * A connection carries one lane and opens with GREETING, answered by WELCOME or REFUSE; before
 * WELCOME nothing else is sent. Data goes from the connecting side to the listening side, ACK back;
 * CONTROL goes both ways.
 *
 * DATA is a run of records and, when the last one says so, a second part with that record's bytes:
 *   flags u8, stream u8, chunk length u32, [BEGIN: sequence u64, body length u64, head length u16,
 *   head], [not OUTSIDE: chunk].
 * Each stream sends its messages one after another; different streams interleave.
 * Threads: any thread; never blocks; the same for every function of this header. */

#define PLS_FRAME_MAGIC UINT32_C(0x5a534c50) /* "PLSZ" */
#define PLS_FRAME_VERSION 1
#define PLS_FRAME_VERSION_LOWEST 1

typedef enum pls_frame_kind {
    PLS_FRAME_GREETING = 1,
    PLS_FRAME_WELCOME = 2,
    PLS_FRAME_REFUSE = 3,
    PLS_FRAME_CONTROL = 4,
    PLS_FRAME_DATA = 5,
    PLS_FRAME_ACK = 6,
    PLS_FRAME_BYE = 7
} pls_frame_kind;

typedef enum pls_frame_lane { PLS_LANE_CONTROL = 0, PLS_LANE_BULK = 1 } pls_frame_lane;
#define PLS_LANE_COUNT 2

/* Why a greeting was refused; X(name, number, text). */
#define PLS_REFUSE_TABLE(X)                                                                        \
    X(PLS_REFUSE_VERSION, 1, "no common protocol version")                                         \
    X(PLS_REFUSE_CLUSTER, 2, "another cluster's name")                                             \
    X(PLS_REFUSE_KEY, 3, "the greeting does not prove the cluster key")                            \
    X(PLS_REFUSE_TARGET, 4, "the node at this address is another one than was meant")              \
    X(PLS_REFUSE_IDENTITY, 5, "this node id is in use with another key")                           \
    X(PLS_REFUSE_BUSY, 6, "too many connections")                                                  \
    X(PLS_REFUSE_SELF, 7, "this is the same node")                                                 \
    X(PLS_REFUSE_LEAVING, 8, "the node is leaving")

typedef enum pls_refuse_reason {
#define PLS_REFUSE_ENUM(name, number, text) name = number,
    PLS_REFUSE_TABLE(PLS_REFUSE_ENUM)
#undef PLS_REFUSE_ENUM
} pls_refuse_reason;

#define PLS_ZMQ_NODE_ID_BYTES 16
#define PLS_FRAME_STREAMS 64
#define PLS_FRAME_HEAD_BYTES_MAX 4608   /* what the owner says beside a payload */
#define PLS_FRAME_INLINE_BYTES_MAX 8192 /* bodies up to this are copied, many to a frame */
#define PLS_FRAME_RECORDS_BYTES_MAX 16384
#define PLS_FRAME_CHUNK_BYTES_MAX 262144 /* 0.2 ms at 10 Gbit/s: what another stream waits for */
#define PLS_FRAME_CONTROL_BYTES_MAX 65536
#define PLS_FRAME_GREETING_BYTES_MAX 1024
#define PLS_FRAME_ADDRESS_BYTES_MAX 128
#define PLS_FRAME_BODY_BYTES_MAX (UINT64_C(1) << 40)
/* What a socket accepts as one part: CURVE puts 33 bytes around it. */
#define PLS_FRAME_PART_BYTES_MAX (PLS_FRAME_CHUNK_BYTES_MAX + 64)

#define PLS_FRAME_RECORD_BEGIN 1u
#define PLS_FRAME_RECORD_OUTSIDE 2u
#define PLS_FRAME_RECORD_OVERHEAD_BYTES 24 /* of a record with BEGIN, beside head and chunk */

_Static_assert(1 + PLS_FRAME_RECORD_OVERHEAD_BYTES + PLS_FRAME_HEAD_BYTES_MAX +
                       PLS_FRAME_INLINE_BYTES_MAX <=
                   PLS_FRAME_RECORDS_BYTES_MAX,
               "the largest inline message fits into an empty frame");
_Static_assert(PLS_FRAME_CONTROL_BYTES_MAX < PLS_FRAME_PART_BYTES_MAX, "control frames fit");

/* Who greets, and on what terms. Pointers are lent as long as the frame's bytes. */
typedef struct pls_greeting {
    uint16_t version; /* highest that the sender speaks; when decoded, the highest common one */
    pls_frame_lane lane;
    uint8_t node_id[PLS_ZMQ_NODE_ID_BYTES];
    uint64_t generation;
    uint64_t target_generation; /* 0: whoever is there */
    const char *cluster;
    const char *name;
    const char *address; /* where the sender listens */
    uint8_t cluster_bytes;
    uint8_t name_bytes;
    uint8_t address_bytes;
    size_t proven_bytes; /* decoded: how many bytes at the front the proof covers */
    uint8_t mac[PLS_ZMQ_MAC_BYTES];
} pls_greeting;

typedef struct pls_welcome {
    uint8_t node_id[PLS_ZMQ_NODE_ID_BYTES];
    uint64_t generation;
    uint64_t session; /* the listening side's memory of this sender; 0 on the control lane */
    uint32_t window_bytes;
    uint32_t window_frames;
    uint64_t completed[PLS_FRAME_STREAMS]; /* last sequence that has arrived whole, per stream */
} pls_welcome;

typedef struct pls_frame_record {
    const uint8_t *head;
    const uint8_t *chunk; /* NULL: in the second part */
    uint64_t sequence;    /* BEGIN */
    uint64_t body_bytes;  /* BEGIN */
    uint32_t chunk_bytes;
    uint16_t head_bytes; /* BEGIN */
    uint8_t flags;
    uint8_t stream;
} pls_frame_record;

typedef struct pls_ack {
    uint64_t bytes;   /* consumed on this connection */
    uint64_t frames;  /* likewise */
    uint64_t changed; /* a bit per stream whose `completed` is told */
    uint64_t completed[PLS_FRAME_STREAMS];
} pls_ack;

/* Write a greeting without its proof, which covers what is written so far, then the proof. */
void pls_greeting_write(pls_writer *w, const pls_greeting *greeting);
void pls_greeting_prove(pls_writer *w, const uint8_t mac[PLS_ZMQ_MAC_BYTES]);

/* Read a whole GREETING frame.
 * Errors:  PLS_EPROTO    no greeting.
 *          PLS_EVERSION  no common version; the rest was not looked at. */
PLS_MUST_USE pls_err pls_greeting_read(const void *bytes, size_t len, pls_greeting *greeting_out);

/* Write a WELCOME frame. */
void pls_welcome_write(pls_writer *w, const pls_welcome *welcome);
/* Errors:  PLS_EPROTO. */
PLS_MUST_USE pls_err pls_welcome_read(const void *bytes, size_t len, pls_welcome *welcome_out);

/* Write a REFUSE frame. */
void pls_refuse_write(pls_writer *w, pls_refuse_reason reason);
/* Errors:  PLS_EPROTO. A reason that this version does not know is given as its number. */
PLS_MUST_USE pls_err pls_refuse_read(const void *bytes, size_t len, unsigned *reason_out);
/* For people; "another reason" for a number that is not in the table. */
const char *pls_refuse_text(unsigned reason);

/* Write an ACK frame. */
void pls_ack_write(pls_writer *w, const pls_ack *ack);
/* Errors:  PLS_EPROTO. */
PLS_MUST_USE pls_err pls_ack_read(const void *bytes, size_t len, pls_ack *ack_out);

/* Write a record; its chunk too, unless OUTSIDE. */
void pls_frame_record_write(pls_writer *w, const pls_frame_record *record);

/* Read the next record of a DATA frame, whose kind byte has been stepped over.
 * Errors:  PLS_EEMPTY  the frame ends here.
 *          PLS_EPROTO. */
PLS_MUST_USE pls_err pls_frame_record_next(pls_reader *r, pls_frame_record *record_out);

#endif
