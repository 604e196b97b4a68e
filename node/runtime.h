/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PLS_NODE_RUNTIME_H
#define PLS_NODE_RUNTIME_H

#include "node/attach.h"
#include "node/message.h"
#include "node/pulsing.h"
#include "shm/arena.h"
#include "shm/clock.h"
#include "shm/inbox.h"
#include "shm/lease.h"
#include "shm/outbox.h"
#include "shm/peer.h"

#include <stdatomic.h>
#include <sys/types.h>

/* What the files of the runtime share: one struct per attachment, and the structs behind the
 * opaque names of pulsing.h. Only the runtime's own files include this. */

/* Messages that wait in this process for credit, for room in a ring, or for a restart. */
#define PLS_WAITING_MESSAGES_MAX (1u << 20)
#define PLS_CALLS_MAX (1u << 20)
#define PLS_SELF_BURST_MAX 256
#define PLS_CHAIN_BYTES_MAX 2048
#define PLS_TEXT_BYTES_MAX 512
#define PLS_DYING_GRACE_NS 8000000

/* A message outside of any ring: it waits for room, for credit, for its turn in a mailbox, or for
 * the proof that it was started. `bytes` is the record without its descriptor. */
typedef struct pls_parcel {
    struct pls_parcel *next;
    pls_block *block;          /* ours, held once: lent when it leaves; NULL: none */
    pls_descriptor descriptor; /* from elsewhere, in a mailbox: opened when it starts */
    void *user;                /* for `sent` */
    uint64_t call_id;
    uint64_t retain_seq;
    pulsing_target *target; /* counted; NULL for answers */
    uint32_t len;
    uint32_t epoch; /* whom it is for, or (mailbox) from */
    uint16_t slot;
    uint16_t type;
    uint16_t flags;
    bool notify;
    bool foreign; /* `descriptor` counts */
    uint8_t bytes[];
} pls_parcel;

typedef struct pls_parcels {
    pls_parcel *first;
    pls_parcel *last;
    uint32_t count;
} pls_parcels;

typedef enum pls_link_state { PLS_LINK_NONE, PLS_LINK_UP, PLS_LINK_DYING } pls_link_state;

/* What this process knows of the process in one slot. */
typedef struct pls_link {
    pls_link_state state;
    uint32_t epoch;
    pls_peer *peer;     /* NULL: no message has gone there or come from there yet */
    pls_outbox *outbox; /* NULL: nothing was sent yet */
    pls_parcels queue;  /* in order, before anything newer */
    uint32_t retain_count;
    bool space_wanted;
} pls_link;

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
    uint16_t slot;
    uint32_t epoch;
    uint32_t next_free;
    void *user;
    pulsing_target *target; /* counted; NULL for subscriptions and writers */
    uint64_t peer_id;       /* stream: the other end's id */
} pls_call;

typedef enum pls_target_state {
    PLS_TARGET_UP,
    PLS_TARGET_MOVING,
    PLS_TARGET_DEAD
} pls_target_state;

struct pulsing_target {
    pulsing *p;
    struct pulsing_target *next; /* in its hash bucket */
    uint64_t id;
    uint32_t references;
    pls_target_state state;
    uint16_t slot;
    uint32_t epoch;
    uint32_t window;
    uint32_t in_flight;
    bool restartable;
    pulsing_status dead_status;
    char *dead_text;
    pls_parcels waiting;  /* for credit or for a restart */
    pls_parcels retained; /* sent, not known to be started */
    uint64_t retain_seq;
    uint16_t retain_index;
    bool has_retain_index;
};

typedef struct pls_owed {
    uint16_t slot;
    uint32_t epoch;
    uint32_t count;
} pls_owed;

struct pulsing_actor {
    struct pulsing_actor *next; /* in its hash bucket */
    struct pulsing_actor *next_runnable;
    uint64_t id;
    void *user;
    uint32_t running;
    uint32_t concurrency_max;
    uint32_t mailbox_max;
    pulsing_overflow overflow;
    bool runnable;
    bool stopping;
    bool held;
    bool drained;
    bool removed;
    uint32_t entered; /* callbacks inside; a removed actor is freed by the last */
    pls_parcels mailbox;
    pls_owed *owed; /* tells taken and not yet credited, by sender */
    uint32_t owed_count;
};

struct pulsing_block {
    _Atomic uint32_t references;
    pulsing *p;
    pls_lease lease; /* open: memory of another process */
    pls_block *own;  /* else: this process's own */
    const uint8_t *bytes;
    uint64_t len;
    pulsing_block *next_garbage;
};

struct pulsing_room {
    pls_block *block;
    uint64_t bytes;
};

/* A message as it arrived, out of a ring, a mailbox or this process itself. `bytes` has no
 * descriptor any more. */
typedef struct pls_arrival {
    const uint8_t *bytes;
    uint32_t len;
    uint32_t epoch;
    uint16_t slot;
    uint16_t type;
    uint16_t flags;
    bool foreign; /* `descriptor` counts */
    pls_descriptor descriptor;
    pls_block *own; /* the block of a message to ourselves; borrowed */
} pls_arrival;

#define PLS_BUCKETS 4096

struct pulsing {
    pls_attach *attach;
    const pls_attach_info *info;
    pls_inbox *inbox;
    pls_arena *arena;
    pls_views *views;
    pls_clock clock;
    pulsing_callbacks on;
    pls_link links[PLS_SLOTS_MAX];
    pls_call *calls;
    uint32_t calls_capacity;
    uint32_t calls_free; /* index + 1 */
    uint32_t calls_count;
    pulsing_target *targets[PLS_BUCKETS];
    pulsing_actor *actors[PLS_BUCKETS];
    uint32_t actor_counter;
    uint32_t actor_count;
    pulsing_actor *runnable_first;
    pulsing_actor *runnable_last;
    pls_parcels self; /* messages to this very process */
    uint32_t waiting_count;
    pls_parcel *last_queued; /* by the commit that just ended */
    uint8_t *scratch;        /* for a message that cannot be written into a ring */
    uint32_t scratch_bytes;
    bool scratch_taken;
    bool ring_taken; /* a reservation is open: others go by scratch and queue */
    bool ring_nested;
    bool polling;
    bool popped; /* the inbox lends a message */
    bool self_woken;
    char *closed_text;
    volatile char *unforked; /* a page that reads zero in a forked child */
    uint32_t cores;
    uint32_t dying_count;
    int64_t dying_until_ns[PLS_SLOTS_MAX]; /* 0: not dying */
    uint32_t awake_processes;
    int64_t awake_counted_ns;
    _Atomic(pulsing_block *) garbage;
    _Atomic uint32_t own_blocks;
    uint64_t dead_letters[16];
};

/* parcel.c */
pls_parcel *pls_parcel_new(const uint8_t *bytes, uint32_t len, uint16_t type, uint16_t flags);
void pls_parcel_free(pulsing *p, pls_parcel *parcel);
void pls_parcels_push(pls_parcels *list, pls_parcel *parcel);
void pls_parcels_push_front(pls_parcels *list, pls_parcel *parcel);
pls_parcel *pls_parcels_pop(pls_parcels *list);

/* link.c: the link to (slot, epoch), made if need be; may block 5 s the first time. */
PLS_MUST_USE pls_err pls_link_get(pulsing *p, uint32_t slot, uint32_t epoch, bool to_send,
                                  pls_link **link_out);
/* Puts a parcel into the ring, or at the end of the link's queue. Takes it. PLS_EFULL: queued. */
pls_err pls_link_send(pulsing *p, pls_link *link, pls_parcel *parcel);
void pls_link_flush(pulsing *p, uint32_t slot);
void pls_link_signal(pulsing *p, uint32_t slot, uint32_t epoch, pls_wire_type type, uint64_t id,
                     uint64_t value);
void pls_link_owed(pulsing *p, uint32_t slot);
void pls_links_close(pulsing *p);
/* death.c */
void pls_death_seen(pulsing *p, uint32_t slot);
/* Ends what waits for processes that have been dying for longer than the grace. */
void pls_dying_check(pulsing *p);

/* call.c */
uint64_t pls_call_open(pulsing *p, pulsing_target *target, void *user, uint32_t slot,
                       uint32_t epoch, pls_call_state state);
pls_call *pls_call_find(pulsing *p, uint64_t call_id);
void pls_call_close(pulsing *p, uint64_t call_id);
/* Ends a call of ours with a status and a text; nothing if it is unknown. */
void pls_call_end(pulsing *p, uint64_t call_id, pulsing_status status, const char *text);
void pls_calls_end_all(pulsing *p, pulsing_status status, const char *text);
void pls_calls_slot_died(pulsing *p, uint32_t slot, uint32_t epoch, const char *text);
void pls_call_reply(pulsing *p, const pls_arrival *arrival);
void pls_call_stream_signal(pulsing *p, const pls_arrival *arrival, const pls_wire_signal *signal);
/* Payload and block of an arrival whose fixed part is `fixed_bytes` long.
 * Errors: PLS_EPROTO, and what pls_block_open() gives. */
PLS_MUST_USE pls_err pls_message_payload(pulsing *p, const pls_arrival *arrival,
                                         uint32_t fixed_bytes, uint32_t payload_bytes,
                                         pulsing_message *message);

/* target.c */
void pls_target_credit(pulsing *p, pulsing_target *target, uint32_t count);
/* Keeps a copy of a request that leaves for a restartable actor, and numbers it in its head. */
PLS_MUST_USE pls_err pls_target_retain(pulsing *p, pulsing_target *target, uint64_t call_id,
                                       uint8_t *bytes, uint32_t len, uint16_t flags,
                                       pls_block *block);
/* Takes a request that waits out of its queue; false if it has left. */
bool pls_target_unqueue(pulsing *p, pulsing_target *target, uint64_t call_id);
void pls_targets_slot_died(pulsing *p, uint32_t slot, uint32_t epoch, const char *text, bool dying);
void pls_targets_free(pulsing *p);
pulsing_target *pls_target_find(pulsing *p, uint64_t actor_id);

/* send.c */
void pls_send_text(pulsing *p, const pulsing_origin *origin, pulsing_status status,
                   const char *text);
/* Puts a request on its way to its target's process. Takes it. */
pls_err pls_send_request(pulsing *p, pls_parcel *parcel);
void pls_send_self(pulsing *p, pls_parcel *parcel);
/* A parcel that will never arrive: its call ends, its sender is told. Takes it. */
void pls_send_failed(pulsing *p, pls_parcel *parcel, pulsing_status status, const char *text);

/* actor.c */
void pls_actor_request(pulsing *p, const pls_arrival *arrival, bool defer);
void pls_actors_run(pulsing *p);
void pls_actor_cancel(pulsing *p, const pls_arrival *arrival, const pls_wire_signal *signal);
void pls_actors_free(pulsing *p);
void pls_dead_letter(pulsing *p, pulsing_status reason);

/* block.c: the block that an arrival announces; NULL and PLS_OK if none. */
PLS_MUST_USE pls_err pls_block_open(pulsing *p, const pls_arrival *arrival,
                                    pulsing_block **block_out);
void pls_block_decline(pulsing *p, uint32_t slot, uint32_t epoch, const pls_descriptor *descriptor);
void pls_blocks_sweep(pulsing *p);

#endif
