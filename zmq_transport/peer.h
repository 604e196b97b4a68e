/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PLS_ZMQ_TRANSPORT_PEER_H
#define PLS_ZMQ_TRANSPORT_PEER_H

#include "zmq_transport/address.h"
#include "zmq_transport/lane.h"
#include "zmq_transport/postbox.h"

/* The nodes that this one sends to, by address.
 * Threads: owner thread; never blocks; the same for every function of this header. */

#define PLS_PACKETS_MAX 32 /* control packets that wait for a connection */

typedef struct pls_packet_waiting {
    struct pls_packet_waiting *next;
    size_t len;
    uint8_t bytes[]; /* with the kind in front */
} pls_packet_waiting;

struct pls_zmq_peer {
    pls_zmq *zmq;
    pls_zmq_place place;
    uint64_t generation;                    /* that is meant; 0: any */
    uint64_t answering;                     /* generation of who answered last */
    uint64_t session;                       /* the peer's memory of this sender; 0: unknown */
    uint8_t node_id[PLS_ZMQ_NODE_ID_BYTES]; /* who answered last; zero: nobody yet */
    bool known;
    bool reset; /* its connections are to be closed in the next tick */
    bool full;  /* a send was turned down */
    uint32_t holds;
    uint32_t packet_count;
    pls_packet_waiting *packet_first;
    pls_packet_waiting *packet_last;
    pls_postbox *queue; /* NULL until the first send */
    pls_lane lanes[PLS_LANE_COUNT];
    char address[PLS_ZMQ_ADDRESS_CAPACITY];
};

/* Errors:  PLS_ENOMEM. Owns: gives the peers. */
PLS_MUST_USE pls_err pls_peers_create(pls_peers **peers_out);

/* Close all connections, with a goodbye, and settle what waits. */
void pls_peers_close(pls_zmq *zmq);
/* After close. Owns: takes `peers`; NULL is allowed. */
void pls_peers_destroy(pls_peers *peers);

/* NULL: unknown. */
pls_zmq_peer *pls_peers_find(const pls_peers *peers, const char *address, size_t address_bytes);

/* Connect where something waits, give up what takes too long, close what is idle, free what nobody
 * needs. */
void pls_peers_tick(pls_zmq *zmq);

/* Whether one more peer may have connections; an idle one gives its own up if need be. */
bool pls_peers_admit(pls_zmq *zmq, const pls_zmq_peer *peer);

/* Free the first waiting packet, or all of them as dropped. */
void pls_peer_packet_take(pls_zmq_peer *peer);
void pls_peer_packets_drop(pls_zmq_peer *peer);

/* Messages queued to all. */
uint64_t pls_peers_waiting(const pls_peers *peers);

/* For tests. */
uint32_t pls_peers_count(const pls_peers *peers);
bool pls_peers_check(const pls_peers *peers);

#endif
