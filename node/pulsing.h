/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PULSING_H
#define PULSING_H

#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The C face of Pulsing: a process attaches to the node of its host, hosts actors, asks and tells.
 * One thread at a time uses an attachment (the owner thread); calls never block unless they say so.
 * Payloads are bytes to this library; Python actors read and write its codec (msgpack). */

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
    uint16_t chain_bytes;
    uint8_t method_bytes;
    uint8_t status;       /* replies: pulsing_status */
    pulsing_block *block; /* NULL, or the buffers; pulsing_block_keep() to hold it longer */
} pulsing_message;

typedef enum pulsing_taken {
    PULSING_DONE,    /* handled; the next message may start */
    PULSING_RUNNING, /* started; pulsing_actor_finished() will say that it ended */
} pulsing_taken;

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
    /* The stopping actor `user` has handled its last message. */
    void (*drained)(void *context, void *user);
    /* Something was queued for this process itself: call pulsing_poll() soon. */
    void (*wake)(void *context);
    /* The same, in `ns` nanoseconds, whatever comes meanwhile. */
    void (*wake_after)(void *context, int64_t ns);
} pulsing_callbacks;

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

/* ---- attachment (runtime.c) ---- */

typedef struct pulsing_options {
    int control_fd; /* of pls_node_launch(), pls_attach_connect(), or inherited by a worker */
    bool worker;    /* this process was forked by the node's template */
    uint64_t memory_bytes; /* budget for large payloads; 0: the node's, else a quarter of memory */
    pulsing_callbacks callbacks;
} pulsing_options;

/* Attaches this process.
 * Errors:  as pls_attach_open() and pls_attach_join(); `trouble` (1024 bytes) gets a text.
 * Owns:    takes `control_fd` on success; gives the attachment.
 * Threads: the caller becomes the owner thread; may block 5 s. */
PLS_MUST_USE pls_err pulsing_open(const pulsing_options *options, pulsing **pulsing_out,
                                  char *trouble);

/* Fails every call with PULSING_CLOSED and leaves. Blocks still held stay readable until released.
 * NULL is accepted. Threads: owner thread; may block in the kernel. */
void pulsing_close(pulsing *p);

/* Ends every call with PULSING_CLOSED and this text, and refuses later ones; the attachment stays
 * until pulsing_close(). Threads: owner thread; never blocks. */
void pulsing_fail(pulsing *p, const char *text);

/* The eventfd of the inbox, readable when armed and something came. Lent until close. */
int pulsing_event_fd(const pulsing *p);

/* The control socket's client, for node/requests.h. Lent until close. */
struct pls_attach *pulsing_attach_of(pulsing *p);

/* Whether this is a forked child of the process that attached; a load, no system call. */
bool pulsing_forked(const pulsing *p);

uint32_t pulsing_slot(const pulsing *p);
uint32_t pulsing_epoch(const pulsing *p);

/* Handles what has come, at most `messages_max` messages; returns how many, 0 for nothing.
 * `defer`: requests are queued, not started (for use inside a task); pulsing_poll() without it
 * starts them. Not reentrant: a nested call returns 0.
 * Threads: owner thread; never blocks. */
uint32_t pulsing_poll(pulsing *p, uint32_t messages_max, bool defer);

/* Whether a poll might find something: a few loads. Threads: owner thread; never blocks. */
bool pulsing_ready(const pulsing *p);

/* Looks at the inbox until something comes or `ns` have passed; true if something came. Enters no
 * callback, so a Python caller may drop the GIL around it.
 * Threads: owner thread; busy for at most `ns`. */
bool pulsing_look(const pulsing *p, int64_t ns);

/* Before and after sleeping on the eventfd, see pls_inbox_arm(). Threads: owner thread. */
PLS_MUST_USE bool pulsing_arm(pulsing *p);
void pulsing_disarm(pulsing *p, bool readable);

/* Whether looking is fair now: processes awake do not outnumber the usable cores. */
bool pulsing_may_look(pulsing *p);

int64_t pulsing_now_ns(void);

/* ---- targets (target.c) ---- */

/* The target for an actor id; the same object for the same id, with one more reference.
 * Units:   `window`: messages that may be under way to it at a time; 0: no limit (the receiver
 *          rejects). `restartable`: messages are kept until they are started.
 * Errors:  PLS_ENOMEM. Owns: gives a reference. Threads: owner thread; never blocks. */
PLS_MUST_USE pls_err pulsing_target_get(pulsing *p, uint64_t actor_id, uint32_t window,
                                        bool restartable, pulsing_target **target_out);
void pulsing_target_release(pulsing_target *target);
uint64_t pulsing_target_id(const pulsing_target *target);
uint32_t pulsing_target_slot(const pulsing_target *target);
uint32_t pulsing_target_epoch(const pulsing_target *target);
uint32_t pulsing_target_window(const pulsing_target *target);
bool pulsing_target_restartable(const pulsing_target *target);

/* Why the target is dead, or NULL while it is not. Lent until released. */
const char *pulsing_target_death(const pulsing_target *target);

/* The actor stopped or was lost: calls under way end with `status` and `text`, later ones fail.
 * Threads: owner thread; never blocks. */
void pulsing_target_kill(pulsing *p, uint64_t actor_id, pulsing_status status, const char *text);

/* The actor now lives in (slot, epoch): kept messages go there, in order.
 * Threads: owner thread; may block in the kernel. */
void pulsing_target_move(pulsing *p, uint64_t actor_id, uint32_t slot, uint32_t epoch);

/* ---- sending (send.c) ---- */

/* Begins an ask or a tell; write the payload at send->at, then commit or abort. If more than
 * `capacity` is needed, put it into a pulsing_room.
 * Errors:  PLS_EDEAD  see pulsing_target_death(); PLS_EFULL  too many messages wait in this
 *          process; PLS_ECLOSED; PLS_EFORKED; PLS_ENOMEM; PLS_EFDLIMIT, PLS_ESYS.
 * Threads: owner thread; may block 5 s on the first message to a process. */
PLS_MUST_USE pls_err pulsing_call_begin(pulsing *p, pulsing_target *target,
                                        const pulsing_call *call, pulsing_send *send);

/* Begins an answer to a request, or an item or the end of a stream (`type` of pls_wire_type).
 * Errors:  PLS_EDEAD  nobody is there to read it; PLS_EINVAL for a tell; else as above. */
PLS_MUST_USE pls_err pulsing_reply_begin(pulsing *p, const pulsing_origin *origin,
                                         pulsing_status status, pulsing_send *send);
PLS_MUST_USE pls_err pulsing_stream_begin(pulsing *p, const pulsing_origin *reader, bool end,
                                          pulsing_status status, pulsing_send *send);

/* Sends what was begun. `room` NULL: the payload is the first `payload_bytes` at send->at.
 * Otherwise the room's last `payload_bytes` are it if `payload_in_room`, and its rest the buffers.
 * Takes `room`. Returns PLS_EFULL when the message waits for its turn (`sent` follows if asked
 * for), PLS_OK when it has left; other errors: it is lost, the call is forgotten.
 * Threads: owner thread; never blocks. */
pls_err pulsing_commit(pulsing *p, pulsing_send *send, uint32_t payload_bytes, pulsing_room *room,
                       bool payload_in_room);
void pulsing_abort(pulsing *p, pulsing_send *send);
/* Right after a commit that gave PLS_EFULL: `sent` is to be called with `user`. */
void pulsing_sent_notify(pulsing *p, void *user);

/* Shared memory for a large payload.
 * Errors:  PLS_EBUDGET, PLS_ETOOBIG, PLS_ENOMEM, PLS_EFDLIMIT.
 * Owns:    gives the room; `*base_out` is written by the caller. */
PLS_MUST_USE pls_err pulsing_room_alloc(pulsing *p, uint64_t bytes, pulsing_room **room_out,
                                        uint8_t **base_out);
void pulsing_room_free(pulsing *p, pulsing_room *room);

/* A one-word message: what a reader tells the writer of its stream. Errors as above. */
PLS_MUST_USE pls_err pulsing_stream_signal(pulsing *p, uint32_t slot, uint32_t epoch,
                                           uint64_t writer_id, uint64_t items, bool close);
/* Asks the writer (slot, epoch, id) to send its stream here as `user`; gives the reader's call. */
PLS_MUST_USE pls_err pulsing_stream_subscribe(pulsing *p, uint32_t slot, uint32_t epoch,
                                              uint64_t writer_id, void *user, uint64_t *call_out);

/* ---- calls (call.c) ---- */

/* Nobody waits for this call any more: no callback follows, and the handler is told. */
void pulsing_call_cancel(pulsing *p, uint64_t call_id);
/* The handler that asked is suspended on this call (or no more): what makes a cycle a deadlock. */
void pulsing_call_awaited(pulsing *p, uint64_t call_id, bool awaited);
uint32_t pulsing_call_count(const pulsing *p);
/* Further callbacks about this call are for `user`. */
void pulsing_call_user_set(pulsing *p, uint64_t call_id, void *user);
/* The writer id under which `user` gets stream_room and stream_open; 0: no memory. */
uint64_t pulsing_writer_add(pulsing *p, void *user, const pulsing_origin *reader);
void pulsing_writer_bind(pulsing *p, uint64_t writer_id, const pulsing_origin *reader);
void pulsing_writer_remove(pulsing *p, uint64_t writer_id);

/* ---- actors (actor.c) ---- */

typedef struct pulsing_actor_options {
    uint64_t id; /* 0: a fresh one */
    uint32_t mailbox_max;
    uint32_t concurrency_max;
    pulsing_overflow overflow;
    void *user;
} pulsing_actor_options;

/* Hosts an actor; messages for it start from the next poll on.
 * Errors:  PLS_ENOMEM; PLS_EEXIST  that id is hosted here.
 * Owns:    lends the actor until pulsing_actor_remove(). */
PLS_MUST_USE pls_err pulsing_actor_add(pulsing *p, const pulsing_actor_options *options,
                                       pulsing_actor **actor_out);
uint64_t pulsing_actor_id_of(const pulsing_actor *actor);
/* Messages that wait in its mailbox, and that are being handled. */
uint32_t pulsing_actor_queued(const pulsing_actor *actor);
uint32_t pulsing_actor_running(const pulsing_actor *actor);
/* A message that was PULSING_RUNNING has ended; `origin` is its. */
void pulsing_actor_finished(pulsing *p, pulsing_actor *actor, const pulsing_origin *origin);
/* Holds new messages back (true) or lets them start: while an actor is rebuilt in place. */
void pulsing_actor_hold(pulsing *p, pulsing_actor *actor, bool hold);
/* No more messages are accepted; `drained` follows when those accepted are handled. With `now`
 * those that wait are answered with PULSING_DIED. */
void pulsing_actor_stop(pulsing *p, pulsing_actor *actor, bool now);
/* Forgets the actor; messages that wait are answered with PULSING_DIED and `text`. */
void pulsing_actor_remove(pulsing *p, pulsing_actor *actor, const char *text);
uint32_t pulsing_actor_count(const pulsing *p);

/* ---- messages and blocks ---- */

/* The payload was read: gives the ring's room back before the callback returns. */
void pulsing_message_release(pulsing *p);
/* Keeps a block beyond the callback. Threads: owner thread; never blocks. */
pulsing_block *pulsing_block_keep(pulsing_block *block);
/* Lets go of a kept block. Threads: any thread, also after pulsing_close(); never blocks. */
void pulsing_block_release(pulsing_block *block);
const uint8_t *pulsing_block_bytes(const pulsing_block *block, uint64_t *len_out);

/* Messages that reached nobody, by reason (index of pulsing_status). */
uint64_t pulsing_dead_letters(const pulsing *p, pulsing_status reason);

#endif
