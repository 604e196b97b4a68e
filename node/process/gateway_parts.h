/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PLS_NODE_PROCESS_GATEWAY_PARTS_H
#define PLS_NODE_PROCESS_GATEWAY_PARTS_H

#include "node/message.h"
#include "node/process/gateway.h"
#include "node/process/gateway_table.h"
#include "node/process/gateway_wire.h"
#include "node/process/net.h"
#include "node/process/node.h"
#include "node/pulsing_types.h"
#include "shm/arena.h"
#include "shm/clock.h"
#include "shm/inbox.h"
#include "shm/lease.h"
#include "shm/outbox.h"

/* The structs of the gateway, and what its files call of each other.
 * Threads: owner thread; never blocks; the same for every function of this header. */

#define PLS_GATE_ROUTES_MAX (1u << 20)
#define PLS_GATE_CALLS_MAX (1u << 18) /* asks and streams of each direction */
#define PLS_GATE_DEBTS_MAX (1u << 18) /* runs of tells whose credit is still out */
/* What waits for room in the ring of one process, beyond which nodes are held up. */
#define PLS_GATE_QUEUE_COUNT_MAX 65536
#define PLS_GATE_QUEUE_BYTES_MAX (64u << 20)
/* What the gateway itself has to say to one node, beyond which nothing that it would have to answer
 * is taken from that node. */
#define PLS_GATE_PENDING_COUNT_MAX (1u << 19)
#define PLS_GATE_PENDING_BYTES_MAX (64u << 20)
#define PLS_GATE_TEXT_BYTES_MAX 512
#define PLS_GATE_EPOCH 1 /* of slot 0, which is never used again */

/* A message that waits for room in the ring of a process, or in the queue to a node. */
typedef struct pls_gate_parcel {
    struct pls_gate_parcel *next;
    pls_block *block; /* of ours, held once; NULL: none */
    uint32_t len;
    uint16_t type;
    uint16_t flags;
    uint8_t bytes[];
} pls_gate_parcel;

typedef struct pls_gate_queue {
    pls_gate_parcel *first;
    pls_gate_parcel *last;
    uint32_t count;
    uint64_t bytes;
} pls_gate_queue;

/* A record out of a ring, or one that was, and waits. */
typedef struct pls_gate_record {
    const uint8_t *bytes; /* without its descriptor */
    uint32_t len;
    uint32_t epoch;
    uint16_t slot;
    uint16_t type;
    uint16_t flags;
    bool foreign; /* `descriptor` counts, and is not declined yet */
    bool opened;  /* as `lease`, which then has to be returned */
    pls_descriptor descriptor;
    pls_lease lease;
} pls_gate_record;

/* What the gateway knows of the process in one slot. */
typedef struct pls_gate_link {
    uint32_t epoch; /* 0: nothing was sent to it yet */
    pls_outbox *outbox;
    pls_gate_queue queue;
    bool full;              /* nodes are held up for it */
    bool stalled;           /* its ring is not read, because `record` waits for `stalled_for` */
    pls_gate_record record; /* whose bytes are its own memory */
    pls_gate_peer *stalled_for;
} pls_gate_link;

/* A node that is alive. */
struct pls_gate_peer {
    pls_gateway *gateway;
    pls_gate_peer *next;
    pls_net_peer *net;
    uint8_t node_id[PLS_NODE_ID_BYTES];
    pls_gate_queue pending; /* what the gateway itself has to say, and the queue did not take */
    uint32_t unsettled;     /* messages to it that the transport still has */
    bool held;              /* its messages are not taken for now */
    bool going;             /* it is no peer any more, but its last messages are not settled yet */
    char label[160];        /* "node 3f2a11c0 (10.0.0.7:7100)" */
};

/* Tells to one actor that have not given their credit back, in order. */
typedef struct pls_gate_debt {
    struct pls_gate_debt *next;
    pls_gate_peer *peer; /* NULL: lost */
    uint64_t route;      /* the peer's own number */
    uint32_t count;
} pls_gate_debt;

typedef struct pls_gate_debtor {
    struct pls_gate_debtor *next; /* in its hash bucket */
    uint64_t actor_id;
    uint16_t slot;
    pls_gate_debt *first;
    pls_gate_debt *last;
} pls_gate_debtor;

#define PLS_GATE_DEBTORS 1024
#define PLS_GATE_LOST_MAX 1024 /* lost nodes that are known again when they come back */

struct pls_gateway {
    pls_node *node;
    pls_inbox *inbox;
    pls_arena *arena;
    pls_views *views;
    pls_clock clock;
    pls_segments segments;
    pls_watch bell;
    pls_alarm again;
    pls_gate_peer *peers;
    uint8_t lost_nodes[PLS_GATE_LOST_MAX][PLS_NODE_ID_BYTES];
    uint32_t lost_count; /* of nodes, ever; the youngest are kept */
    pls_gate_link links[PLS_SLOTS_MAX];
    pls_gate_table routes; /* keys: slot, number there */
    pls_gate_table asks;   /* keys: slot, call there */
    pls_gate_table serves; /* keys: peer, its ask */
    pls_gate_debtor *debtors[PLS_GATE_DEBTORS];
    uint32_t debt_count;
    pls_bitmap deaths; /* to be seen to */
    bool popped;       /* the inbox lends a record */
    bool trusted;      /* with a cluster key */
    uint64_t lost;     /* tells that reached nobody */
};

/* gateway_links.c: a record to a process of this host. */
typedef struct pls_gate_note {
    pls_client_key to;
    uint16_t type;
    uint16_t flags;
    const void *piece[4];
    uint32_t bytes[4];
    pls_block *block; /* lent to the receiver; NULL: none */
} pls_gate_note;

/* Errors:  PLS_EDEAD  no such process, or not any more; PLS_ENOMEM.
 * Owns:    borrows the note. */
PLS_MUST_USE pls_err pls_gate_note_send(pls_gateway *gateway, const pls_gate_note *note);
void pls_gate_signal(pls_gateway *gateway, pls_client_key to, pls_wire_type type, uint64_t id,
                     uint64_t value);
/* Credit of a route goes back to its process: `count` tells, as far as so many are out. */
void pls_gate_route_credit(pls_gateway *gateway, pls_gate_entry *route, uint64_t count);
/* The end of a call of a process here. */
void pls_gate_answer(pls_gateway *gateway, pls_client_key to, uint64_t call_id,
                     pulsing_status status, const char *text);
/* Whether so much waits for this process that nothing more is taken for it. */
bool pls_gate_link_full(pls_gateway *gateway, uint32_t slot);
void pls_gate_link_flush(pls_gateway *gateway, uint32_t slot);
/* It made room in the ring that a process waits for. */
void pls_gate_link_owed(pls_gateway *gateway, uint32_t slot);
void pls_gate_link_close(pls_gateway *gateway, uint32_t slot);

/* gateway_queue.c */
pls_gate_parcel *pls_gate_parcel_new(uint32_t len, uint16_t type, uint16_t flags);
void pls_gate_queue_push(pls_gate_queue *queue, pls_gate_parcel *parcel);
pls_gate_parcel *pls_gate_queue_pop(pls_gate_queue *queue);

/* gateway.c: the record for which the ring of this slot is not read goes, if it can. */
void pls_gate_stalled_retry(pls_gateway *gateway, uint32_t slot);

/* gateway_out.c: from a process to another node. PLS_EFULL: the queue to *peer_out is full, nothing
 * has happened. Otherwise the record is dealt with, its lease included. */
PLS_MUST_USE pls_err pls_gate_out(pls_gateway *gateway, pls_gate_record *record,
                                  pls_gate_peer **peer_out);
void pls_gate_record_drop(pls_gateway *gateway, pls_gate_record *record);
/* An ask of a process here ends without an answer. */
void pls_gate_ask_fail(pls_gateway *gateway, pls_gate_entry *ask, pulsing_status status,
                       const char *text);

/* gateway_in.c: what the net hands over. */
pls_err pls_gate_in_message(void *owner, pls_net_peer *from, const pls_zmq_arrival *arrival);
pls_err pls_gate_in_reserve(void *owner, pls_net_peer *from, pls_zmq_arrival *arrival);
void pls_gate_in_abandon(void *owner, const pls_zmq_arrival *arrival);

/* gateway_peers.c */
void pls_gate_peer_up(void *owner, pls_net_peer *net);
void pls_gate_peer_gone(void *owner, pls_net_peer *net, const char *why);
void pls_gate_peer_room(void *owner, pls_net_peer *net);
/* The transport has done with one more message to it; the last one of a lost node frees it. */
void pls_gate_peer_settled(pls_gate_peer *peer);
/* Whether so much waits to be said to it that nothing more is taken from it; it is held then. */
bool pls_gate_peer_full(pls_gate_peer *peer);
/* All between it and this node is over: it does not know it any more, or is lost itself. */
void pls_gate_peer_forgot(pls_gate_peer *peer, const char *why);
/* Says something by itself, on a stream of the transport; it waits where the queue is full.
 * Owns:    borrows head and text. */
void pls_gate_say(pls_gate_peer *peer, const pls_gate_head *head, uint8_t stream, const char *text);
/* The same for the end of an ask there. */
void pls_gate_refuse(pls_gate_peer *peer, const pls_gate_head *request, pulsing_status status,
                     const char *text);
/* Which stream of the transport keeps the order of what belongs to both numbers. */
uint8_t pls_gate_stream(uint64_t first, uint64_t second);
/* A slot's words of death: "worker 2 died (pid 4711, SIGKILL)". */
void pls_gate_death_words(const pls_gateway *gateway, pls_client_key key, char *text,
                          size_t capacity);
/* Everything that a dead process had to do with other nodes ends. */
void pls_gate_slot_died(pls_gateway *gateway, pls_client_key key, const char *text);

/* gateway_debts.c: PLS_EFULL: PLS_GATE_DEBTS_MAX are out. */
PLS_MUST_USE pls_err pls_gate_debt_add(pls_gateway *gateway, uint64_t actor_id, uint16_t slot,
                                       pls_gate_peer *peer, uint64_t route);
/* The next creditor of an actor in that slot; false: nobody is known. */
bool pls_gate_debt_next(pls_gateway *gateway, uint64_t actor_id, uint16_t slot,
                        pls_gate_debt *debt_out);
/* `count` of the first one's have been given back. */
void pls_gate_debt_paid(pls_gateway *gateway, uint64_t actor_id, uint32_t count);
void pls_gate_debts_forget_peer(pls_gateway *gateway, const pls_gate_peer *peer);
/* The process is dead: what it had taken, or never will, is given back. */
void pls_gate_debts_forget_slot(pls_gateway *gateway, uint32_t slot);
/* A tell to that node's `route` was taken, or will never be. */
void pls_gate_credit_give(pls_gate_peer *peer, uint64_t route, uint64_t count);

#endif
