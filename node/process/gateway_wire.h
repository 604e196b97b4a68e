/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PLS_NODE_PROCESS_GATEWAY_WIRE_H
#define PLS_NODE_PROCESS_GATEWAY_WIRE_H

#include "base/bytes.h"
#include "base/err.h"

#include <stdbool.h>
#include <stdint.h>

/* What one gateway says to another: the head of a message on the bulk lane. Numbers are
 * append-only. Behind the fixed part come the method's name and, where the payload is not the body,
 * the payload. The body is the payload or, with PLS_GATE_BLOCK, a block: the payload and its
 * buffers with PLS_GATE_PAYLOAD_IN_BLOCK, else the buffers alone. Threads: any thread; never
 * blocks; the same for every function of this header. */

#define PLS_GATE_VERSION 1
#define PLS_GATE_PAYLOAD_BYTES_MAX 4096 /* that is no block */

typedef enum pls_gate_kind {
    PLS_GATE_REQUEST = 1, /* id: the ask, 0 for a tell; value: the route, for credit; actor */
    PLS_GATE_REPLY = 2,   /* id: the ask; status, credit */
    PLS_GATE_ITEM = 3,    /* id: the ask whose answer is the stream; credit: the room it takes */
    PLS_GATE_END = 4,     /* likewise; status */
    PLS_GATE_CANCEL = 5,  /* id: the ask, whose answer nobody waits for */
    PLS_GATE_CREDIT = 6,  /* id: the route; value: tells taken */
    PLS_GATE_ROOM = 7,    /* id: the ask; value: room that its reader has made */
    PLS_GATE_CLOSE = 8,   /* id: the ask; its reader is gone */
    PLS_GATE_READ = 9,    /* id: the ask; value: the writer; actor: slot and epoch of its process */
    PLS_GATE_FORGOT = 10, /* the receiver was taken for dead: all between both nodes is over */
    PLS_GATE_KINDS_END
} pls_gate_kind;

/* The actor of a request for whichever process of the node is there. */
#define PLS_GATE_ANYBODY 0

#define PLS_GATE_WINDOWED 1u
#define PLS_GATE_BLOCK 2u
#define PLS_GATE_PAYLOAD_IN_BLOCK 4u
#define PLS_GATE_FLAGS_KNOWN 7u

typedef struct pls_gate_head {
    uint8_t kind;
    uint8_t flags;
    uint8_t status; /* pulsing_status */
    uint8_t method_bytes;
    uint16_t credit;
    uint32_t payload_bytes;
    uint64_t id;
    uint64_t value;
    uint64_t actor;
    int64_t left_ns; /* of its time; 0: no deadline */
    const char *method;
    const uint8_t *payload; /* behind the head; NULL: in the body */
} pls_gate_head;

/* Write it all. Errors: `w->bad`. */
void pls_gate_head_write(pls_writer *w, const pls_gate_head *head);

/* Read a head whose message has a body of `body_bytes`; the pointers lend from `bytes`, the payload
 * of a message without a block is in the body.
 * Errors:  PLS_EPROTO. */
PLS_MUST_USE pls_err pls_gate_head_read(const void *bytes, size_t len, uint64_t body_bytes,
                                        pls_gate_head *head_out);

#endif
