/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PLS_NODE_MESSAGE_H
#define PLS_NODE_MESSAGE_H

#include <stdint.h>

/* What the runtime of one process writes into the ring of another: the one place that speaks this
 * wire. Numbers are append-only. Every field that arrives is input and checked before use.
 *
 * A record is: head, then (requests) the ask chain and the method's name, then the payload, then,
 * with PLS_WIRE_BLOCK, a pls_descriptor as its last bytes. With PLS_WIRE_PAYLOAD_IN_BLOCK the
 * payload is not in the record but the last `payload_bytes` of the block. */

typedef enum pls_wire_type {
    PLS_WIRE_REQUEST = 1,      /* pls_wire_request */
    PLS_WIRE_REPLY = 2,        /* pls_wire_reply */
    PLS_WIRE_CANCEL = 3,       /* pls_wire_signal: id = the sender's call, value = actor id */
    PLS_WIRE_CREDIT = 4,       /* pls_wire_signal: id = actor id, value = messages taken */
    PLS_WIRE_STREAM_ITEM = 5,  /* pls_wire_reply with the reader's call id */
    PLS_WIRE_STREAM_END = 6,   /* pls_wire_reply; `status` says how, the payload is the error */
    PLS_WIRE_STREAM_ROOM = 7,  /* pls_wire_signal: id = writer id, value = items read */
    PLS_WIRE_STREAM_CLOSE = 8, /* pls_wire_signal: id = writer id; the reader is gone */
    PLS_WIRE_STREAM_OPEN = 9,  /* pls_wire_signal: id = writer id, value = the reader's call id */
    PLS_WIRE_PROBE = 10,       /* pls_wire_probe, then a pls_wire_link for each ask followed */
    PLS_WIRE_ROUTE = 11,       /* pls_wire_route; this and what follows is for the gateway */
    PLS_WIRE_UNROUTE = 12,     /* pls_wire_signal: id = what a route was given for */
    PLS_WIRE_FAR_OPEN = 13,    /* pls_wire_far_open */
} pls_wire_type;

/* The runtime's byte of the record flags. */
#define PLS_WIRE_BLOCK 0x0100
#define PLS_WIRE_PAYLOAD_IN_BLOCK 0x0200
#define PLS_WIRE_FLAGS_KNOWN (PLS_WIRE_BLOCK | PLS_WIRE_PAYLOAD_IN_BLOCK)

/* Flags of a request. */
#define PLS_REQUEST_RETAINED 1u /* retain_seq and retain_index count */
#define PLS_REQUEST_WINDOWED 2u /* the sender counts this message against its window */

typedef struct pls_wire_request {
    uint64_t actor_id;
    uint64_t call_id;    /* 0: tell, nobody waits */
    int64_t deadline_ns; /* CLOCK_MONOTONIC; 0: none */
    uint64_t sender_id;  /* the actor that sends; counter 0: no actor */
    uint64_t retain_seq;
    uint32_t payload_bytes;
    uint16_t retain_index;
    uint16_t chain_bytes;
    uint8_t method_bytes;
    uint8_t flags;
    uint16_t unused;
    uint32_t context_bytes; /* the last ones of the payload: what the sender's code carries along */
} pls_wire_request;

typedef struct pls_wire_reply {
    uint64_t call_id;
    uint32_t payload_bytes;
    uint8_t status; /* pulsing_status */
    uint8_t unused;
    /* Replies: messages of the actor's window given back. Stream items: the reader's room taken. */
    uint16_t credit;
} pls_wire_reply;

typedef struct pls_wire_signal {
    uint64_t id;
    uint64_t value;
} pls_wire_signal;

/* One ask that is waited for on the way to this request: the actor that asked, and its call. */
typedef struct pls_wire_link {
    uint64_t actor_id;
    uint64_t call_id;
    uint8_t name_bytes; /* the name follows */
} __attribute__((packed)) pls_wire_link;

#define PLS_PROBE_UNSENT 1u /* the last ask of the path has not left its sender yet */

/* Looks for asks that wait for each other: it visits the actor that the last ask is for. */
typedef struct pls_wire_probe {
    uint64_t actor_id;
    uint64_t call_id; /* the ask that it was sent for, in (slot, epoch) */
    int64_t since_ns; /* CLOCK_MONOTONIC: since when that ask is known to wait */
    uint32_t epoch;
    uint16_t slot;
    uint8_t flags;
    uint8_t unused;
} pls_wire_probe;

#define PLS_WIRE_NODE_ID_BYTES 16

/* What the sender means by target `id` from now on: an actor of another node. */
typedef struct pls_wire_route {
    uint64_t id;
    uint64_t actor_id;
    uint8_t node_id[PLS_WIRE_NODE_ID_BYTES];
} pls_wire_route;

/* The sender reads, as `call_id`, the stream that a process of another node writes. */
typedef struct pls_wire_far_open {
    uint64_t call_id;
    uint64_t writer_id;
    uint8_t node_id[PLS_WIRE_NODE_ID_BYTES];
    uint32_t epoch; /* of that process, as the next */
    uint32_t slot;
} pls_wire_far_open;

_Static_assert(sizeof(pls_wire_route) == 32, "no padding on the wire");
_Static_assert(sizeof(pls_wire_far_open) == 40, "no padding on the wire");
_Static_assert(sizeof(pls_wire_probe) == 32, "no padding on the wire");
_Static_assert(sizeof(pls_wire_request) == 56, "no padding on the wire");
_Static_assert(sizeof(pls_wire_reply) == 16, "no padding on the wire");
_Static_assert(sizeof(pls_wire_link) == 17, "no padding on the wire");

/* Actor ids: birthplace slot, its epoch, and a counter of which 0 is the process itself. */
static inline uint64_t pls_actor_id(uint32_t slot, uint32_t epoch, uint32_t counter)
{
    return (uint64_t)slot << 56 | (uint64_t)(epoch & 0xffffffu) << 32 | counter;
}

static inline uint32_t pls_actor_id_slot(uint64_t id)
{
    return (uint32_t)(id >> 56);
}

static inline uint32_t pls_actor_id_epoch(uint64_t id)
{
    return (uint32_t)(id >> 32) & 0xffffffu;
}

#endif
