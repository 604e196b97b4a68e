/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PLS_NODE_PROCESS_NET_H
#define PLS_NODE_PROCESS_NET_H

#include "base/err.h"
#include "zmq_transport/transport.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The node in its cluster: the transport and the membership, driven by the node's loop. A node that
 * was given no address has none: `node->net` is NULL, and no socket, thread or alarm exists. The
 * program pulsing-node is built without ZeroMQ (net_none.c) and hands over to pulsing-node-net when
 * an address was given, so that a node of one host does not even load the library.
 * Threads: the same for every function of this header: owner thread; never blocks, unless said. */

typedef struct pls_node pls_node;
typedef struct pls_net pls_net;

/* Whether this program can make one. */
bool pls_net_is_linked(void);

/* Listens, finds out under which address others reach this node, and begins to join.
 * Errors:  PLS_EINVAL, PLS_EEXIST, PLS_ENOENT, PLS_EPERM  an address, the key or its file is wrong;
 *          PLS_ETIMEDOUT  a name was not resolved; as pls_zmq_create(). On each, `trouble`
 *          (PLS_TROUBLE_BYTES_MAX bytes) says what and what to do.
 * Owns:    gives the net; NULL without an address.
 * Threads: may block 3 s, while names are looked up. */
PLS_MUST_USE pls_err pls_net_create(pls_node *node, pls_net **net_out, char *trouble);

/* Closes everything at once. NULL is accepted. Threads: may block while ZeroMQ's threads end. */
void pls_net_destroy(pls_net *net);

/* Says goodbye to the cluster; true when that is done, or there is nobody to say it to. When it is
 * done later, pls_leave_check() is called. NULL is accepted. */
bool pls_net_leave(pls_net *net);

/* Where this node listens, "10.0.0.7:7100", and what peers are told. Lent until destroy. */
const char *pls_net_address(const pls_net *net);

/* Registers a public name of this node for an actor, or removes it.
 * Errors:  PLS_EEXIST  another node has it, and either registration is unique; PLS_EFULL the
 *          cluster holds as many names as it may; PLS_ECLOSED  leaving; PLS_ENOMEM.
 * Owns:    borrows the name for the call; the same for the next ones. */
PLS_MUST_USE pls_err pls_net_name_put(pls_net *net, const char *name, size_t name_bytes,
                                      uint64_t actor, bool unique);
void pls_net_name_remove(pls_net *net, const char *name, size_t name_bytes);

/* An actor of another node that has a name. */
typedef struct pls_net_hit {
    uint64_t actor;
    uint8_t node_id[PLS_ZMQ_NODE_ID_BYTES];
} pls_net_hit;

/* The actors of other nodes that have a name; if there are more than `hits_max`, some of them.
 * Units:   returns how many are stored. */
uint32_t pls_net_name_find(pls_net *net, const char *name, size_t name_bytes, pls_net_hit *hits,
                           uint32_t hits_max);

/* From now on pls_registry_heard() is called when an actor of another node gets this name; as many
 * unwatch calls end it.
 * Errors:  PLS_EFULL, PLS_ENOMEM. */
PLS_MUST_USE pls_err pls_net_name_watch(pls_net *net, const char *name, size_t name_bytes);
void pls_net_name_unwatch(pls_net *net, const char *name, size_t name_bytes);

/* Another node that is alive, from `peer_up` until `peer_gone` has returned. */
typedef struct pls_net_peer pls_net_peer;

typedef struct pls_net_peer_info {
    uint8_t node_id[PLS_ZMQ_NODE_ID_BYTES];
    uint64_t generation;
    const char *name;    /* zero-terminated, as the next; lent as long as the peer */
    const char *address; /* "10.0.0.7:7100" */
} pls_net_peer_info;

/* What the gateway is told. Every member may be NULL but `message`. The calls come from inside the
 * net's turn and may call everything here but create and destroy. */
typedef struct pls_net_gate {
    void (*peer_up)(void *owner, pls_net_peer *peer);
    /* It has died, left or been replaced, as `why` says; pls_net_settle() tells what became of
     * most of what was queued to it, the rest follows. */
    void (*peer_gone)(void *owner, pls_net_peer *peer, const char *why);
    /* As `message`, `reserve` and `abandon` of pls_zmq_handlers. */
    pls_err (*message)(void *owner, pls_net_peer *from, const pls_zmq_arrival *arrival);
    pls_err (*reserve)(void *owner, pls_net_peer *from, pls_zmq_arrival *arrival);
    void (*abandon)(void *owner, const pls_zmq_arrival *arrival);
    /* pls_net_send() to it answered PLS_EFULL, and may succeed again. */
    void (*room)(void *owner, pls_net_peer *peer);
} pls_net_gate;

/* Sets the gateway; who is alive already is told at once. Owns: borrows both until destroy. */
void pls_net_gate_set(pls_net *net, const pls_net_gate *gate, void *owner);

/* The peer with this node id, or NULL: it is none, or not alive. */
pls_net_peer *pls_net_peer_find(pls_net *net, const uint8_t node_id[PLS_ZMQ_NODE_ID_BYTES]);

/* What is known of it. Lent as long as the peer. */
const pls_net_peer_info *pls_net_peer_info_of(const pls_net_peer *peer);

/* What the gateway keeps with a peer; NULL at first. */
void pls_net_peer_keep(pls_net_peer *peer, void *context);
void *pls_net_peer_kept(const pls_net_peer *peer);

/* Queues a message on the bulk lane; `settled` gets the net as its first argument.
 * Errors:  as pls_zmq_send().
 * Owns:    as pls_zmq_send(). */
PLS_MUST_USE pls_err pls_net_send(pls_net *net, pls_net_peer *peer, const pls_zmq_message *message);

/* Calls `settled` at once for what is over by now. Not from inside of `settled`. */
void pls_net_settle(pls_net *net);

/* `message` or `reserve` answered PLS_EFULL for this peer, and would take it now. */
void pls_net_resume(pls_net *net, pls_net_peer *peer);

#endif
