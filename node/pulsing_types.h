/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PULSING_TYPES_H
#define PULSING_TYPES_H

#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The nouns of pulsing.h: statuses, messages, callbacks, and a message that is being written. */

typedef struct pulsing pulsing;               /* one attached process */
typedef struct pulsing_target pulsing_target; /* an actor, as those see it who send to it */
typedef struct pulsing_actor pulsing_actor;   /* an actor hosted here */
typedef struct pulsing_block pulsing_block;   /* a received large payload, read-only */
typedef struct pulsing_room pulsing_room;     /* a large payload that is being written */

/* How a request ended. Numbers travel in replies: append only. */
typedef enum pulsing_status {
    PULSING_OK = 0,
    PULSING_RAISED = 1,       /* the handler's exception; payload: its encoding */
    PULSING_STREAM = 2,       /* a stream follows; payload: u64 writer id, then its type */
    PULSING_NO_ACTOR = 3,     /* no such actor there (any more); payload: text */
    PULSING_NO_METHOD = 4,    /* payload: text with the methods that there are */
    PULSING_MAILBOX_FULL = 5, /* rejected by the overflow policy; payload: text */
    PULSING_EXPIRED = 6,      /* the deadline passed before it was started */
    PULSING_CANCELLED = 7,    /* ended by a cancellation */
    PULSING_DIED = 8,         /* process or actor died; payload: text */
    PULSING_DEADLOCK = 9,     /* the ask would wait for itself; payload: the cycle in words */
    PULSING_CLOSED = 10,      /* the system is closed; payload: text */
    PULSING_BAD_MESSAGE = 11, /* the receiver could not read it; payload: text */
    PULSING_UNABLE = 12,      /* asked of a process that does no such thing; payload: text */
    PULSING_UNREACHABLE = 13, /* the actor's node is lost; payload: text */
} pulsing_status;

typedef enum pulsing_overflow {
    PULSING_WAIT = 0,
    PULSING_REJECT = 1,
    PULSING_DROP_OLDEST = 2,
} pulsing_overflow;

/* Who waits for the answer to a request. Copy it to answer later. */
typedef struct pulsing_origin {
    uint64_t call_id; /* 0: a tell, no answer is wanted */
    uint64_t actor_id;
    uint32_t epoch;
    uint16_t slot;
    uint16_t credit;
} pulsing_origin;

/* One message as a handler or a caller sees it. Lent until the callback returns or
 * pulsing_message_release() is called, whichever is first. */
typedef struct pulsing_message {
    pulsing_origin origin; /* requests */
    uint64_t sender_id;    /* requests: the actor that sent it */
    int64_t deadline_ns;   /* requests: CLOCK_MONOTONIC; 0: none */
    const char *method;    /* requests: not zero-terminated */
    const uint8_t *chain;  /* requests: the ask chain that led here */
    const uint8_t *payload;
    uint32_t payload_bytes;
    uint32_t context_bytes; /* requests: what the sender's code carries along, behind the payload */
    uint16_t chain_bytes;
    uint8_t method_bytes;
    uint8_t status;       /* replies: pulsing_status */
    pulsing_block *block; /* NULL, or the buffers; pulsing_block_keep() to hold it longer */
} pulsing_message;

typedef enum pulsing_taken {
    PULSING_DONE,    /* handled; the next message may start */
    PULSING_RUNNING, /* started; pulsing_actor_finished() will say that it ended */
} pulsing_taken;

/* Those that are NULL do nothing; `request` is needed by whoever hosts actors. */
typedef struct pulsing_callbacks {
    void *context;
    /* A message for the actor hosted here as `user` starts. Answer its origin now or later. */
    pulsing_taken (*request)(void *context, void *user, const pulsing_message *message);
    /* The call of `user` has ended; nothing more comes, except after PULSING_STREAM. */
    void (*reply)(void *context, void *user, const pulsing_message *message);
    /* The next item of a stream that `user` reads. */
    void (*stream_item)(void *context, void *user, const pulsing_message *message);
    /* A message that had to wait has left (PLS_OK) or never will; for pulsing_sent_notify(). */
    void (*sent)(void *context, void *user, pls_err err);
    /* Whoever waited for this call of the actor `user` does so no more. */
    void (*cancel)(void *context, void *user, const pulsing_origin *origin);
    /* The stream written as `user`: its reader took `items` more; 0: the reader is gone. */
    void (*stream_room)(void *context, void *user, uint64_t items);
    /* The stream written as `user` has got a reader: (slot, epoch, call). */
    void (*stream_open)(void *context, void *user, const pulsing_origin *reader);
    /* Whether the handler of the actor `actor` that made the call `user` is suspended on it. NULL:
     * pulsing_call_awaited() says so. */
    bool (*waits)(void *context, void *actor, void *user);
    /* The call of `user` has waited for this long; told once. */
    void (*slow)(void *context, void *user, int64_t ns);
    /* A message has reached nobody; pulsing_dead_letters() has counted it. */
    void (*dead_letter)(void *context, uint8_t reason);
    /* Another process with which messages were exchanged has ended, and calls that wait for it end
     * next. From now on pulsing_obituary_get() knows all that it ever will. */
    void (*death)(void *context, uint32_t slot, uint32_t epoch);
    /* The stopping actor `user` has handled its last message. */
    void (*drained)(void *context, void *user);
    /* Find out where this restartable actor lives, whose birthplace is dead: end with
     * pulsing_target_move() or pulsing_target_kill(). */
    void (*locate)(void *context, uint64_t actor_id);
    /* Something was queued for this process itself: call pulsing_poll() soon. */
    void (*wake)(void *context);
    /* The same, in `ns` nanoseconds, whatever comes meanwhile. */
    void (*wake_after)(void *context, int64_t ns);
    /* Call pulsing_notice() until it has nothing, soon: a notice was taken out of the socket, which
     * no longer shows it, or a packet waits for room in the socket. */
    void (*notice)(void *context);
} pulsing_callbacks;

/* An actor of another node lives there: in the slot of the node process, which passes messages on.
 */
#define PULSING_FAR_SLOT 0
#define PULSING_NODE_ID_BYTES 16
/* The window of a target in another node, unless a ref said more: _host.py's MAILBOX_DEFAULT. */
#define PULSING_FAR_WINDOW 1024

/* The writer of a stream in another node. */
typedef struct pulsing_far_writer {
    uint8_t node_id[PULSING_NODE_ID_BYTES];
    uint64_t writer_id;
    uint32_t slot;
    uint32_t epoch;
} pulsing_far_writer;

/* What an ask or a tell is made of, besides its payload. */
typedef struct pulsing_call {
    const char *method;
    uint8_t method_bytes;
    bool tell;
    int64_t deadline_ns;  /* 0: none */
    uint64_t sender_id;   /* 0: no actor */
    const uint8_t *chain; /* of the message that the sender handles */
    uint16_t chain_bytes;
    const char *sender_name; /* joins the chain; NULL: no actor asks */
    uint8_t sender_name_bytes;
    void *user;
} pulsing_call;

/* A message being written: `at` has room for `capacity` bytes of payload. */
typedef struct pulsing_send {
    uint8_t *at;
    uint32_t capacity;
    uint64_t call_id; /* 0 for tells */
    uint16_t cost;    /* stream items, after the commit: how much of the reader's room it takes */
    uint32_t context_bytes; /* requests, before the commit: the last ones of the payload */
    /* private from here on */
    uint8_t *base;
    uint32_t fixed_bytes;
    uint16_t type;
    bool in_ring;
    bool windowed;
    uint16_t slot;
    uint32_t epoch;
    pulsing_target *target;
} pulsing_send;

/* Payload bytes that travel inside a ring record; larger ones go in a block. */
#define PULSING_INLINE_BYTES_MAX 4096

#endif
