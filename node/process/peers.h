/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PLS_NODE_PROCESS_PEERS_H
#define PLS_NODE_PROCESS_PEERS_H

#include "gossip/gossip.h"
#include "node/process/net.h"
#include "node/process/reach.h"

/* The other nodes that are alive, by node id and by their number in the membership.
 * Threads: the same for every function of this header: owner thread; never blocks. */

struct pls_net_peer {
    pls_net_peer_info info;
    pls_member member;
    uint64_t key;       /* of its identity, as packets name their sender */
    pls_zmq_peer *link; /* NULL: nothing has been sent to it */
    void *kept;         /* the gateway's */
    pls_net_peer *next; /* of the same bucket */
    char name[PLS_NAME_BYTES_MAX + 1];
    char endpoint[PLS_ENDPOINT_CAPACITY];
};

#define PLS_PEERS_BUCKETS 256

typedef struct pls_peers {
    pls_net_peer *buckets[PLS_PEERS_BUCKETS]; /* by the first byte of the random node id */
    uint32_t count;
} pls_peers;

#define PLS_PEER_META_BYTES 17

/* What a node says of itself to the others: its node id.
 * Units:   `meta` holds PLS_PEER_META_BYTES. */
void pls_peer_meta_write(const uint8_t node_id[PLS_ZMQ_NODE_ID_BYTES], uint8_t *meta);
/* Errors:  PLS_EPROTO  another form. */
PLS_MUST_USE pls_err pls_peer_meta_read(const void *meta, size_t len,
                                        uint8_t node_id_out[PLS_ZMQ_NODE_ID_BYTES]);

/* Adds a member that is alive, and tells the gateway; one that is there already is accepted.
 * Units:   `node_id` NULL: what its meta says.
 * Errors:  PLS_EPROTO  its node id is not known yet; PLS_ENOMEM. */
pls_err pls_peers_add(pls_net *net, pls_member member, const uint8_t *node_id);

/* It is not alive any more. An unknown one is accepted. */
void pls_peers_remove(pls_net *net, pls_member member, const char *why);

/* By the number in the membership, or by the transport's handle; NULL: it is none. */
pls_net_peer *pls_peers_of_member(const pls_peers *peers, pls_member member);
pls_net_peer *pls_peers_of_link(const pls_peers *peers, const pls_zmq_peer *link);

/* Calls for every one; `call` may not remove. */
void pls_peers_each(pls_net *net, void (*call)(void *context, pls_net_peer *peer), void *context);

/* Frees all without telling anybody; their links are the transport's to close. */
void pls_peers_free(pls_peers *peers);

#endif
