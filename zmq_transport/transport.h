/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PLS_ZMQ_TRANSPORT_TRANSPORT_H
#define PLS_ZMQ_TRANSPORT_TRANSPORT_H

#include "base/err.h"
#include "zmq_transport/counters.h"
#include "zmq_transport/frame.h"
#include "zmq_transport/key.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Frames between nodes: packets that may be lost on the control lane, messages of any size, in
 * order within a stream, on the bulk lane.
 *
 * The owner's loop: watch pls_zmq_fd() for reading; call pls_zmq_poll() when it is readable, when
 * pls_zmq_deadline() has passed, and before it sleeps after any other call here, which only queue.
 * All handlers are called inside pls_zmq_poll(), pls_zmq_forget() and pls_zmq_destroy(), and may
 * call everything but these three.
 *
 * A message is handed over at most once, in the order of its stream, also when the connection broke
 * and came again: the receiver remembers how far each stream of a sender's process has come, tells
 * it in its welcome, and the sender goes on from there. Addresses are numeric:
 * "tcp://10.0.0.7:7100", "tcp://[fd00::7]:7100"; names would be looked up by a thread that all
 * connections need. Threads: owner thread; never blocks unless said; the same for every function of
 * this header. */
typedef struct pls_zmq pls_zmq;

/* Another node, by its address. */
typedef struct pls_zmq_peer pls_zmq_peer;

#define PLS_ZMQ_KEYS_MAX 4 /* accepted at one time */

/* Who has sent something: what its greeting said and, with a key, proved. Lent for the call. */
typedef struct pls_zmq_identity {
    uint8_t node_id[PLS_ZMQ_NODE_ID_BYTES];
    uint64_t generation;
    const char *name;    /* not zero-terminated */
    const char *address; /* where it listens; likewise */
    uint8_t name_bytes;
    uint8_t address_bytes;
} pls_zmq_identity;

/* A message that has arrived. */
typedef struct pls_zmq_arrival {
    const void *head;
    const void *body; /* `memory` when that is set; else lent for the call */
    void *memory;     /* what `reserve` gave, filled */
    void *token;      /* likewise */
    uint64_t body_bytes;
    uint16_t head_bytes;
    uint8_t stream;
} pls_zmq_arrival;

typedef enum pls_zmq_fate {
    PLS_ZMQ_DELIVERED = 1, /* the peer's owner has it */
    PLS_ZMQ_UNSENT,        /* no byte of it has left */
    PLS_ZMQ_UNKNOWN        /* it was sent, at least in part, and nobody will ever say */
} pls_zmq_fate;

typedef enum pls_zmq_news_kind {
    PLS_ZMQ_UP = 1,       /* a connection of ours has been welcomed */
    PLS_ZMQ_DISCONNECTED, /* one that was up broke, without a goodbye */
    PLS_ZMQ_REFUSED,      /* the host is there and nobody listens: the process has gone */
    PLS_ZMQ_UNREACHABLE,  /* no answer, or none in time */
    PLS_ZMQ_REJECTED,     /* the peer refused our greeting, or our keys; `text` says why */
    PLS_ZMQ_REPLACED      /* another process answers at this address than before */
} pls_zmq_news_kind;

/* Hints about a peer, not verdicts: of each kind at most one per attempt to connect. */
typedef struct pls_zmq_news {
    pls_zmq_news_kind kind;
    pls_frame_lane lane;
    const char *address; /* of the peer, zero-terminated; lent for the call */
    uint64_t generation; /* UP, REPLACED: of who answers */
    const char *text;    /* for people; static */
    const char *local;   /* UP: our address on this connection without the port, else "" */
} pls_zmq_news;

/* Every member may be NULL but `control` and `message`. */
typedef struct pls_zmq_handlers {
    /* A packet of the control lane. */
    void (*control)(void *owner, const pls_zmq_identity *from, const void *bytes, size_t len);
    /* A message, whole. PLS_OK: taken, `memory` with it. PLS_EFULL: keep it, and all that comes
     * after it from this sender, until pls_zmq_resume(); the sender is held up. */
    pls_err (*message)(void *owner, const pls_zmq_identity *from, const pls_zmq_arrival *arrival);
    /* A message of more than PLS_FRAME_INLINE_BYTES_MAX begins, its head is here: set `memory`, of
     * body_bytes, and `token`. PLS_EFULL: as above. Another error: the body is passed over, and
     * `message` is not called. NULL: every body gets heap memory, which `message` has to free(). */
    pls_err (*reserve)(void *owner, const pls_zmq_identity *from, pls_zmq_arrival *arrival);
    /* A message for which memory was reserved will not be completed, or not in this memory. */
    void (*abandon)(void *owner, const pls_zmq_arrival *arrival);
    void (*news)(void *owner, const pls_zmq_news *news);
    /* The queue to `peer`, that was full, has room again. */
    void (*room)(void *owner, pls_zmq_peer *peer);
    /* Somebody was turned away. Called once per interval and reason, with how many since. */
    void (*turned_away)(void *owner, const char *reason, const char *from, uint64_t count);
} pls_zmq_handlers;

/* Zero or NULL: the default. */
typedef struct pls_zmq_config {
    const char *cluster;                    /* nodes of different clusters refuse each other */
    const char *name;                       /* of this node */
    const char *bind;                       /* "tcp://0.0.0.0:7100"; port 0: any */
    const char *advertise;                  /* where peers reach this node; the bound endpoint */
    const pls_zmq_key *key;                 /* no security */
    uint8_t node_id[PLS_ZMQ_NODE_ID_BYTES]; /* of this start; random */
    uint64_t generation;                    /* of this start; at least 1 */
    uint32_t peers_max;                     /* with connections to them at one time: 256 */
    uint32_t window_bytes;   /* under way to one peer, and kept for one sender: 4 MiB */
    uint32_t queue_messages; /* queued for one peer and not delivered: 4096 */
    uint64_t queue_bytes;    /* likewise, of bodies; one message may be larger: 64 MiB */
    uint32_t connect_ms;     /* 500 */
    uint32_t handshake_ms;   /* until a connection has greeted, or been welcomed: 2000 */
    uint32_t silence_ms;     /* unacknowledged data ends a connection: 3000 */
    uint32_t retry_ms;       /* between attempts, doubled up to eight times it: 100 */
    uint32_t idle_ms;        /* a connection with no traffic is closed: 300,000 */
    uint32_t report_ms;      /* interval of `turned_away`: 10,000 */
} pls_zmq_config;

/* Listen, and be ready to connect.
 * Errors:  PLS_EINVAL  something in `config` is missing or outside its limits.
 *          PLS_EEXIST, PLS_ENOENT, PLS_ESYS  as pls_zmq_socket_bind().
 *          PLS_ENOMEM, PLS_EFDLIMIT, PLS_EUNSUPPORTED.
 * Owns:    borrows `config`; `handlers` and `owner` until destroy; gives the transport. */
PLS_MUST_USE pls_err pls_zmq_create(const pls_zmq_config *config, const pls_zmq_handlers *handlers,
                                    void *owner, uint64_t now_ns, pls_zmq **zmq_out);

/* Close everything at once. Every message is settled and its memory given back before it returns.
 * Owns:    takes `zmq`; NULL is allowed. Threads: may block while ZeroMQ's threads end. */
void pls_zmq_destroy(pls_zmq *zmq);

/* Readable when pls_zmq_poll() has work. Lent until destroy. */
int pls_zmq_fd(const pls_zmq *zmq);

/* Do what there is to do, a bounded share of it.
 * Units:   `now_ns` of any monotonic clock, not before that of an earlier call. */
void pls_zmq_poll(pls_zmq *zmq, uint64_t now_ns);

/* When pls_zmq_poll() wants to be called though its descriptor is silent; 0: at once. */
uint64_t pls_zmq_deadline(const pls_zmq *zmq);

/* The bound endpoint, with its port, and what greetings say. Lent until the next set. */
const char *pls_zmq_endpoint(const pls_zmq *zmq);
/* Errors:  PLS_EINVAL  no numeric tcp address, or a wildcard. */
PLS_MUST_USE pls_err pls_zmq_set_advertise(pls_zmq *zmq, const char *address);

/* Listen at one more endpoint under another key, or the same one; what is bound stays.
 * Errors:  PLS_EINVAL, PLS_EFULL PLS_ZMQ_KEYS_MAX are there; as pls_zmq_socket_bind().
 * Units:   `endpoint_out` as pls_zmq_endpoint(), lent until unlisten. */
PLS_MUST_USE pls_err pls_zmq_listen(pls_zmq *zmq, const pls_zmq_key *key, const char *bind,
                                    const char **endpoint_out);
/* Listen there no more. Connections that came by it end; who sends goes on by another endpoint, see
 * pls_zmq_redirect().
 * Errors:  PLS_ENOENT. */
PLS_MUST_USE pls_err pls_zmq_unlisten(pls_zmq *zmq, const char *endpoint);
/* Connect with this key from now on. Errors:  PLS_EINVAL  the node has no key. */
PLS_MUST_USE pls_err pls_zmq_dial_with(pls_zmq *zmq, const pls_zmq_key *key);

/* The peer at an address, held until pls_zmq_forget(); the same one for the same address.
 * Units:   `generation` of the process that is meant; 0: whichever is there.
 * Errors:  PLS_EINVAL  no numeric tcp address. PLS_ENOMEM. PLS_ECLOSED  leaving.
 * Owns:    lends the peer until pls_zmq_forget() has been called as often as this. */
PLS_MUST_USE pls_err pls_zmq_reach(pls_zmq *zmq, const char *address, size_t address_bytes,
                                   uint64_t generation, pls_zmq_peer **peer_out);

/* The same node is reached at another address from now on; what waits for it goes there.
 * Errors:  PLS_EINVAL  no numeric tcp address. PLS_EEXIST  another peer has it. */
PLS_MUST_USE pls_err pls_zmq_redirect(pls_zmq *zmq, pls_zmq_peer *peer, const char *address,
                                      size_t address_bytes);

/* The node behind it is dead, or of no interest: its connections close, what waits is settled.
 * Owns:    takes one hold of `peer`. */
void pls_zmq_forget(pls_zmq *zmq, pls_zmq_peer *peer);

/* What is to be sent on the bulk lane. */
typedef struct pls_zmq_message {
    const void *head; /* up to PLS_FRAME_HEAD_BYTES_MAX; copied */
    const void *body;
    uint64_t body_bytes;
    uint16_t head_bytes;
    uint8_t stream; /* below PLS_FRAME_STREAMS: order holds within it, and only there */
    bool copy;      /* the body, too, which is PLS_FRAME_INLINE_BYTES_MAX at most then */
    /* Called once: what became of it; the body is not read any more. May be NULL. */
    void (*settled)(void *owner, void *context, pls_zmq_fate fate);
    void *context;
} pls_zmq_message;

/* Queue a message; a connection is made when there is none.
 * Errors:  PLS_EFULL   nothing changed; the handler `room` tells when to try again.
 *          PLS_ETOOBIG, PLS_EINVAL, PLS_ENOMEM  nothing changed.
 *          PLS_ECLOSED  leaving.
 * Owns:    borrows the body until `settled` is called, unless `copy`. */
PLS_MUST_USE pls_err pls_zmq_send(pls_zmq *zmq, pls_zmq_peer *peer, const pls_zmq_message *message);

/* Send a packet on the control lane, over a connection that stands in either direction, else over a
 * new one. It may be lost, and comes after nothing else.
 * Errors:  PLS_EFULL  too many wait already. PLS_ETOOBIG, PLS_EINVAL, PLS_ENOMEM, PLS_ECLOSED.
 * Owns:    borrows `address` and `bytes` for the call. */
PLS_MUST_USE pls_err pls_zmq_control(pls_zmq *zmq, const char *address, size_t address_bytes,
                                     const void *bytes, size_t len);

/* Calls `settled` at once for every message that is over by now, such as those to a peer that was
 * just forgotten, but for what ZeroMQ still reads. Not from inside of a handler. */
void pls_zmq_settle(pls_zmq *zmq);

/* Close the connections from and to an address: they may be stuck in a back-off. Nothing that waits
 * is lost; a new connection is made at once if something does. Unknown addresses are accepted. */
void pls_zmq_reset(pls_zmq *zmq, const char *address, size_t address_bytes);

/* A handler that answered PLS_EFULL can take messages of this sender again. */
void pls_zmq_resume(pls_zmq *zmq, const uint8_t node_id[PLS_ZMQ_NODE_ID_BYTES]);

/* Messages that are queued and not settled, to all peers. */
uint64_t pls_zmq_waiting(const pls_zmq *zmq);

/* Take no more messages, refuse new greetings; what waits is still delivered: poll until
 * pls_zmq_waiting() is 0, or patience ends, then destroy. Peers are told goodbye then. */
void pls_zmq_leave(pls_zmq *zmq);

/* Lent until destroy. */
const pls_zmq_counters *pls_zmq_counted(const pls_zmq *zmq);

/* The node id in use. Lent until destroy. */
const uint8_t *pls_zmq_node_id(const pls_zmq *zmq);

/* The whole invariant, for tests. */
bool pls_zmq_check(const pls_zmq *zmq);

#endif
