/* SPDX-License-Identifier: Apache-2.0 */
/* The table of other nodes. A peer is made when the membership says that a node is alive and told
 * its node id, and freed when it says the opposite: in between the gateway may keep what it likes
 * with it. The connection is made by the first message. */
#include "node/process/peers.h"

#include "base/assert.h"
#include "node/process/net_parts.h"

#include <stdlib.h>
#include <string.h>

#define META_VERSION 1

void pls_peer_meta_write(const uint8_t node_id[PLS_ZMQ_NODE_ID_BYTES], uint8_t *meta)
{
    meta[0] = META_VERSION;
    memcpy(meta + 1, node_id, PLS_ZMQ_NODE_ID_BYTES);
}

pls_err pls_peer_meta_read(const void *meta, size_t len, uint8_t node_id_out[PLS_ZMQ_NODE_ID_BYTES])
{
    const uint8_t *bytes = meta;
    /* Later versions may say more behind it. */
    if (len < PLS_PEER_META_BYTES || bytes[0] < META_VERSION) {
        return PLS_EPROTO;
    }
    memcpy(node_id_out, bytes + 1, PLS_ZMQ_NODE_ID_BYTES);
    return PLS_OK;
}

pls_net_peer *pls_net_peer_find(pls_net *net, const uint8_t node_id[PLS_ZMQ_NODE_ID_BYTES])
{
    pls_net_peer *peer = net->peers.buckets[node_id[0]];
    while (peer != NULL && memcmp(peer->info.node_id, node_id, PLS_ZMQ_NODE_ID_BYTES) != 0) {
        peer = peer->next;
    }
    return peer;
}

void pls_peers_each(pls_net *net, void (*call)(void *context, pls_net_peer *peer), void *context)
{
    for (uint32_t i = 0; i < PLS_PEERS_BUCKETS; i++) {
        pls_net_peer *next;
        for (pls_net_peer *peer = net->peers.buckets[i]; peer != NULL; peer = next) {
            next = peer->next;
            call(context, peer);
        }
    }
}

pls_net_peer *pls_peers_of_member(const pls_peers *peers, pls_member member)
{
    for (uint32_t i = 0; i < PLS_PEERS_BUCKETS; i++) {
        for (pls_net_peer *peer = peers->buckets[i]; peer != NULL; peer = peer->next) {
            if (peer->member == member) {
                return peer;
            }
        }
    }
    return NULL;
}

pls_net_peer *pls_peers_of_link(const pls_peers *peers, const pls_zmq_peer *link)
{
    for (uint32_t i = 0; i < PLS_PEERS_BUCKETS; i++) {
        for (pls_net_peer *peer = peers->buckets[i]; peer != NULL; peer = peer->next) {
            if (peer->link == link) {
                return peer;
            }
        }
    }
    return NULL;
}

static pls_net_peer *peer_make(const pls_member_view *view, const uint8_t *node_id)
{
    pls_net_peer *peer = calloc(1, sizeof *peer);
    if (peer == NULL) {
        return NULL;
    }
    pls_assert(view->identity.name_bytes < sizeof peer->name);
    pls_assert(view->identity.address_bytes <= sizeof peer->endpoint);
    memcpy(peer->name, view->identity.name, view->identity.name_bytes);
    memcpy(peer->endpoint, view->identity.address, view->identity.address_bytes);
    peer->endpoint[sizeof peer->endpoint - 1] = 0;
    memcpy(peer->info.node_id, node_id, PLS_ZMQ_NODE_ID_BYTES);
    peer->info.generation = view->identity.generation;
    peer->info.name = peer->name;
    peer->info.address = pls_endpoint_plain(peer->endpoint);
    peer->member = view->member;
    peer->key = view->identity.key;
    return peer;
}

pls_err pls_peers_add(pls_net *net, pls_member member, const uint8_t *node_id)
{
    uint8_t said[PLS_ZMQ_NODE_ID_BYTES];
    pls_member_view view;
    pls_err err = pls_gossip_member(net->gossip, member, &view);
    if (err != PLS_OK || pls_peers_of_member(&net->peers, member) != NULL) {
        return err;
    }
    if (node_id == NULL) {
        err = pls_peer_meta_read(view.meta, view.meta_bytes, said);
        node_id = said;
    }
    if (err != PLS_OK) {
        return err;
    }
    if (pls_net_peer_find(net, node_id) != NULL) {
        /* Somebody claims a living node's id. */
        return PLS_EEXIST;
    }
    pls_net_peer *peer = peer_make(&view, node_id);
    if (peer == NULL) {
        return PLS_ENOMEM;
    }
    pls_net_peer **bucket = &net->peers.buckets[node_id[0]];
    peer->next = *bucket;
    *bucket = peer;
    net->peers.count++;
    /* What it sent before it was known has been held up. */
    pls_zmq_resume(net->zmq, peer->info.node_id);
    if (net->gate != NULL && net->gate->peer_up != NULL) {
        net->gate->peer_up(net->gate_owner, peer);
    }
    return PLS_OK;
}

void pls_peers_remove(pls_net *net, pls_member member, const char *why)
{
    pls_net_peer *peer = pls_peers_of_member(&net->peers, member);
    if (peer == NULL) {
        return;
    }
    if (peer->link != NULL) {
        pls_zmq_forget(net->zmq, peer->link);
        peer->link = NULL;
    }
    pls_net_peer **link = &net->peers.buckets[peer->info.node_id[0]];
    while (*link != peer) {
        link = &(*link)->next;
    }
    *link = peer->next;
    net->peers.count--;
    if (net->gate != NULL && net->gate->peer_gone != NULL) {
        net->gate->peer_gone(net->gate_owner, peer, why);
    }
    free(peer);
}

void pls_peers_free(pls_peers *peers)
{
    for (uint32_t i = 0; i < PLS_PEERS_BUCKETS; i++) {
        while (peers->buckets[i] != NULL) {
            pls_net_peer *peer = peers->buckets[i];
            peers->buckets[i] = peer->next;
            free(peer);
        }
    }
}

const pls_net_peer_info *pls_net_peer_info_of(const pls_net_peer *peer)
{
    return &peer->info;
}

void pls_net_peer_keep(pls_net_peer *peer, void *context)
{
    peer->kept = context;
}

void *pls_net_peer_kept(const pls_net_peer *peer)
{
    return peer->kept;
}
