/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PLS_NODE_PROCESS_NET_PARTS_H
#define PLS_NODE_PROCESS_NET_PARTS_H

#include "gossip/gossip.h"
#include "node/process/loop.h"
#include "node/process/net.h"
#include "node/process/peers.h"
#include "node/process/seeds.h"

/* The net as its own files see it.
 * Threads: the same for every function of this header: owner thread; never blocks. */

/* Nodes of other clusters refuse each other by this. */
#define PLS_NET_CLUSTER "pulsing"

struct pls_net {
    pls_node *node;
    pls_zmq *zmq;
    pls_gossip *gossip;
    pls_watch sockets;
    pls_alarm alarm;
    bool in_turn;        /* what is changed now is looked at before the turn ends */
    uint64_t generation; /* of this start: the time of it */
    bool has_key;
    pls_seeds seeds;
    pls_peers peers;
    const pls_net_gate *gate;
    void *gate_owner;
    bool leaving;
    bool left;
    pls_alarm leave_limit;
    uint32_t finds;           /* of names that several nodes have */
    uint64_t forged_count;    /* packets whose sender was not who the connection had proved to be */
    uint64_t forged_noted_ns; /* when that was last said */
    uint64_t noted_ns;        /* when somebody who rejects us was last told of */
    char endpoint[PLS_ENDPOINT_CAPACITY]; /* what peers are told */
};

/* A name that is watched, or one of this node's, has changed. */
void pls_net_name_happened(pls_net *net, const pls_action *action);

/* What the transport, the loop and its alarm call. */
extern const pls_zmq_handlers pls_net_handlers;
/* The transport's descriptor is readable, or its deadline has come: `owner` is the net. */
void pls_net_ready(pls_watch *watch, uint32_t events);
/* Likewise, for an alarm. */
void pls_net_rang(pls_alarm *alarm);

/* Something was put into the transport or the membership: looks at them in this turn of the loop.
 */
void pls_net_stir(pls_net *net);

#endif
