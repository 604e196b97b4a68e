/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PLS_NODE_RUNTIME_H
#define PLS_NODE_RUNTIME_H

#include "node/attach.h"
#include "node/call.h"
#include "node/message.h"
#include "node/pulsing.h"
#include "node/watch.h"
#include "shm/arena.h"
#include "shm/clock.h"
#include "shm/inbox.h"
#include "shm/lease.h"
#include "shm/outbox.h"
#include "shm/peer.h"

#include <stdatomic.h>
#include <sys/types.h>

/* The structs of the runtime, for its own files alone: they include it by runtime_parts.h. */

/* Messages that wait in this process for credit, for room in a ring, or for a restart. */
#define PLS_WAITING_MESSAGES_MAX (1u << 20)
#define PLS_WAITING_BYTES_MAX (128u << 20)
#define PLS_SELF_BURST_MAX 256
#define PLS_CHAIN_BYTES_MAX 2048
#define PLS_TEXT_BYTES_MAX 512
/* A stream's item counts once, and once more for each of these: back-pressure by bytes. */
#define PLS_STREAM_UNIT_BYTES 65536
/* How long calls wait for the cause of a death that has begun: not as long as a large one. */
#define PLS_DYING_GRACE_NS 8000000
#define PLS_DYING_GRACE_LARGE_NS 1000000
#define PLS_DYING_LARGE_MIB 192
#define PLS_RESIDENT_EVERY_NS 1000000000
#define PLS_LOOK_YIELD_NS 8000

/* A message outside of any ring: it waits for room, for credit, for its turn in a mailbox, or for
 * the proof that it was started. `bytes` is the record without its descriptor. */
typedef struct pls_parcel {
    struct pls_parcel *next;
    pls_block *block;          /* ours, held once: lent when it leaves; NULL: none */
    uint64_t block_bytes;      /* of it, those of this message: what is behind goes to nobody */
    pls_descriptor descriptor; /* from elsewhere, in a mailbox: opened when it starts */
    pulsing_block *opened;     /* instead, once its owner is dead; counted */
    void *user;                /* for `sent` */
    uint64_t call_id;
    uint64_t retain_seq;    /* kept: its own; mailbox: of what was refused after it */
    pulsing_target *target; /* counted; NULL for answers */
    uint32_t len;
    uint32_t epoch; /* whom it is for, or (mailbox) from */
    uint32_t sent;  /* mailbox, self: when it left */
    uint32_t seq;   /* mailbox: of its record */
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
    pls_peer *peer;            /* NULL: no message has gone there or come from there yet */
    pls_outbox *outbox;        /* NULL: nothing was sent yet */
    pls_parcels queue;         /* in order, before anything newer */
    uint64_t told;             /* tells that entered the ring and of which nobody has a copy */
    struct pls_retain *retain; /* who has which started word; NULL: nobody yet */
    bool space_wanted;
} pls_link;

typedef struct pls_retain pls_retain;

/* How the last process in a slot ended, for those who ask when the slot is used again. */
typedef struct pls_end {
    uint32_t epoch;
    pls_death death;
} pls_end;

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
    pulsing_target *next_starved;
    uint16_t retain_index;
    bool has_retain_index;
    bool starved;        /* waits for a started word */
    bool unsettled;      /* MOVING, and what its last host has started is not yet looked up */
    struct pls_far *far; /* an actor of another node; NULL: of this one */
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
    const char *name;         /* lent by the host */
    pulsing_origin suspended; /* of the message that was last left PULSING_RUNNING */
    uint32_t running;
    uint32_t concurrency_max;
    uint32_t mailbox_max;
    pulsing_overflow overflow;
    uint8_t name_bytes;
    bool runnable;
    bool stopping;
    bool held;
    bool drained;
    bool removed;
    uint32_t entered; /* callbacks inside; a removed actor is freed by the last */
    pls_parcels mailbox;
    pls_watch_actor watch;
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
    uint32_t seq;
    uint32_t sent;
    uint16_t slot;
    uint16_t type;
    uint16_t flags;
    bool foreign; /* `descriptor` counts */
    pls_descriptor descriptor;
    uint64_t refused_seq;  /* its start is recorded together with that of this refused message */
    pls_block *own;        /* the block of a message to ourselves; borrowed */
    pulsing_block *opened; /* its block, which was opened before its owner died; borrowed */
} pls_arrival;

/* A request that leaves for a restartable actor, as far as keeping it goes. */
typedef struct pls_leaving {
    uint64_t call_id;
    uint8_t *bytes;
    pls_block *block;
    uint64_t block_bytes;
    uint32_t len;
    uint16_t flags;
} pls_leaving;

#define PLS_BUCKETS 4096

struct pulsing {
    pls_attach *attach;
    const pls_attach_info *info;
    pls_inbox *inbox;
    bool inbox_stays; /* the main thread still holds its life word */
    pls_arena *arena;
    pls_views *views;
    pls_clock clock;
    pls_watch watch;
    pulsing_callbacks on;
    pls_link links[PLS_SLOTS_MAX];
    pls_end ends[PLS_SLOTS_MAX];
    pls_call *calls;
    uint32_t calls_capacity;
    uint32_t calls_free; /* index + 1 */
    uint32_t calls_count;
    uint32_t patrol_from; /* where the last one ran out of probes */
    pulsing_target *targets[PLS_BUCKETS];
    pulsing_target *starved_first; /* counted */
    pulsing_target *starved_last;
    struct pls_far *fars[PLS_BUCKETS];
    uint32_t far_counter;
    pulsing_actor *actors[PLS_BUCKETS];
    uint32_t actor_counter;
    uint32_t actor_count;
    bool serves; /* it has had an actor number 0, which acts for the process */
    uint64_t handled_count;
    pulsing_actor *runnable_first;
    pulsing_actor *runnable_last;
    pls_parcels self; /* messages to this very process */
    uint32_t waiting_count;
    uint64_t waiting_bytes;
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
    int statm_fd; /* of this process, -1: none */
    int64_t resident_read_ns;
    int64_t dying_until_ns[PLS_SLOTS_MAX]; /* 0: not dying */
    uint32_t awake_processes;
    int64_t awake_counted_ns;
    _Atomic(pulsing_block *) garbage;
    _Atomic uint32_t own_blocks; /* blocks of ours that are held here, and one for the runtime */
    uint64_t dead_letters[16];
};

#endif
