/* SPDX-License-Identifier: Apache-2.0 */
/* A peer is an address with a lane of each kind and what waits for them. It exists while somebody
 * holds it, something waits, or a lane is not closed. Public calls only queue and note: connections
 * are made and ended in the tick, never under the feet of a handler.
 * Called by the owner through the public functions, and by the transport's poll. */
#include "zmq_transport/peer.h"

#include "base/assert.h"
#include "zmq_transport/inlet.h"

#include <stdlib.h>

#define PEERS_MAX 65536 /* addresses known at one time */
#define CAPACITY_FIRST 16

struct pls_peers {
    pls_zmq_peer **list;
    uint32_t count;
    uint32_t capacity;
};

pls_err pls_peers_create(pls_peers **peers_out)
{
    pls_peers *peers = calloc(1, sizeof *peers);
    if (peers == NULL) {
        return PLS_ENOMEM;
    }
    *peers_out = peers;
    return PLS_OK;
}

void pls_peer_packet_take(pls_zmq_peer *peer)
{
    pls_packet_waiting *packet = peer->packet_first;
    peer->packet_first = packet->next;
    peer->packet_count--;
    free(packet);
}

void pls_peer_packets_drop(pls_zmq_peer *peer)
{
    while (peer->packet_first != NULL) {
        peer->zmq->counters.dropped_packets++;
        pls_peer_packet_take(peer);
    }
}

static void peer_free(pls_zmq_peer *peer)
{
    pls_peer_packets_drop(peer);
    pls_postbox_destroy(peer->queue);
    free(peer);
}

void pls_peers_close(pls_zmq *zmq)
{
    for (uint32_t i = 0; i < zmq->peers->count; i++) {
        pls_zmq_peer *peer = zmq->peers->list[i];
        for (unsigned lane = 0; lane < PLS_LANE_COUNT; lane++) {
            pls_lane_close(&peer->lanes[lane], true);
        }
        peer_free(peer);
    }
    zmq->peers->count = 0;
}

void pls_peers_destroy(pls_peers *peers)
{
    if (peers != NULL) {
        free(peers->list);
        free(peers);
    }
}

pls_zmq_peer *pls_peers_find(const pls_peers *peers, const char *address, size_t address_bytes)
{
    for (uint32_t i = 0; i < peers->count; i++) {
        pls_zmq_peer *peer = peers->list[i];
        if (strlen(peer->address) == address_bytes &&
            memcmp(peer->address, address, address_bytes) == 0) {
            return peer;
        }
    }
    return NULL;
}

static pls_err list_grow(pls_peers *peers)
{
    if (peers->count < peers->capacity) {
        return PLS_OK;
    }
    uint32_t capacity = peers->capacity == 0 ? CAPACITY_FIRST : peers->capacity * 2;
    pls_zmq_peer **list =
        capacity > PEERS_MAX ? NULL : realloc(peers->list, capacity * sizeof(void *));
    if (list == NULL) {
        return PLS_ENOMEM;
    }
    peers->list = list;
    peers->capacity = capacity;
    return PLS_OK;
}

static pls_err place_get(const char *address, size_t address_bytes, pls_zmq_place *place_out)
{
    pls_zmq_place place;
    if (address_bytes > PLS_FRAME_ADDRESS_BYTES_MAX ||
        pls_zmq_place_parse(address, address_bytes, &place) != PLS_OK || place.port == 0) {
        return PLS_EINVAL;
    }
    *place_out = place;
    return PLS_OK;
}

static pls_err peer_get(pls_zmq *zmq, const char *address, size_t address_bytes,
                        pls_zmq_peer **peer_out)
{
    pls_zmq_place place;
    *peer_out = pls_peers_find(zmq->peers, address, address_bytes);
    if (*peer_out != NULL) {
        return PLS_OK;
    }
    pls_err err = place_get(address, address_bytes, &place);
    if (err == PLS_OK) {
        err = list_grow(zmq->peers);
    }
    if (err != PLS_OK) {
        return err;
    }
    pls_zmq_peer *peer = calloc(1, sizeof *peer);
    if (peer == NULL) {
        return PLS_ENOMEM;
    }
    peer->zmq = zmq;
    peer->place = place;
    memcpy(peer->address, address, address_bytes);
    for (unsigned lane = 0; lane < PLS_LANE_COUNT; lane++) {
        pls_lane_init(&peer->lanes[lane], peer, (pls_frame_lane)lane);
    }
    zmq->peers->list[zmq->peers->count++] = peer;
    *peer_out = peer;
    return PLS_OK;
}

static void peer_reset(pls_zmq_peer *peer)
{
    peer->reset = true;
    peer->zmq->due_ns = 0;
}

pls_err pls_zmq_reach(pls_zmq *zmq, const char *address, size_t address_bytes, uint64_t generation,
                      pls_zmq_peer **peer_out)
{
    pls_zmq_peer *peer = NULL;
    if (zmq->leaving) {
        return PLS_ECLOSED;
    }
    pls_err err = peer_get(zmq, address, address_bytes, &peer);
    if (err != PLS_OK) {
        return err;
    }
    if (generation != 0 && generation != peer->generation) {
        if (peer->known && peer->answering != generation) {
            peer_reset(peer); /* somebody else may be there than the one who answered */
        }
        peer->generation = generation;
    }
    peer->holds++;
    *peer_out = peer;
    return PLS_OK;
}

pls_err pls_zmq_redirect(pls_zmq *zmq, pls_zmq_peer *peer, const char *address,
                         size_t address_bytes)
{
    const pls_zmq_peer *other = pls_peers_find(zmq->peers, address, address_bytes);
    if (other != NULL) {
        return other == peer ? PLS_OK : PLS_EEXIST;
    }
    pls_err err = place_get(address, address_bytes, &peer->place);
    if (err == PLS_OK) {
        memcpy(peer->address, address, address_bytes);
        peer->address[address_bytes] = 0;
        peer_reset(peer);
    }
    return err;
}

static void queue_abandon(pls_zmq_peer *peer)
{
    if (peer->queue != NULL) {
        pls_postbox_abandon(peer->queue);
    }
    peer->session = 0;
    peer->full = false;
}

void pls_zmq_forget(pls_zmq *zmq, pls_zmq_peer *peer)
{
    pls_assert(peer->holds > 0);
    peer->holds--;
    if (peer->holds == 0) {
        queue_abandon(peer);
        pls_peer_packets_drop(peer);
        peer->generation = 0;
        peer_reset(peer);
    }
}

static pls_err message_check(const pls_zmq_message *message)
{
    if (message->stream >= PLS_FRAME_STREAMS ||
        (message->head == NULL && message->head_bytes > 0) ||
        (message->body == NULL && message->body_bytes > 0)) {
        return PLS_EINVAL;
    }
    if (message->head_bytes > PLS_FRAME_HEAD_BYTES_MAX ||
        message->body_bytes > PLS_FRAME_BODY_BYTES_MAX ||
        (message->copy && message->body_bytes > PLS_FRAME_INLINE_BYTES_MAX)) {
        return PLS_ETOOBIG;
    }
    return PLS_OK;
}

pls_err pls_zmq_send(pls_zmq *zmq, pls_zmq_peer *peer, const pls_zmq_message *message)
{
    pls_err err = zmq->leaving ? PLS_ECLOSED : message_check(message);
    if (err != PLS_OK) {
        return err;
    }
    if (peer->queue == NULL) {
        err = pls_postbox_create(&zmq->tray, &zmq->counters, &peer->queue);
        if (err != PLS_OK) {
            return err;
        }
    }
    uint64_t count = pls_postbox_count(peer->queue);
    uint64_t bytes = pls_postbox_bytes(peer->queue);
    if (count > 0 && (count >= zmq->settings.queue_messages ||
                      bytes + message->body_bytes > zmq->settings.queue_bytes)) {
        peer->full = true;
        return PLS_EFULL;
    }
    err = pls_postbox_append(peer->queue, message);
    if (err != PLS_OK) {
        return err;
    }
    pls_lane *lane = &peer->lanes[PLS_LANE_BULK];
    if (lane->state == PLS_LANE_CLOSED) {
        pls_zmq_due(zmq, lane->due_ns);
    } else {
        pls_lane_nudge(lane);
    }
    return PLS_OK;
}

/* Keeps a packet until the connection is there. */
static pls_err packet_wait(pls_zmq_peer *peer, const void *bytes, size_t len)
{
    pls_zmq *zmq = peer->zmq;
    if (peer->packet_count >= PLS_PACKETS_MAX) {
        zmq->counters.dropped_packets++;
        return PLS_EFULL;
    }
    pls_packet_waiting *packet = malloc(sizeof *packet + len);
    if (packet == NULL) {
        return PLS_ENOMEM;
    }
    packet->next = NULL;
    packet->len = len;
    memcpy(packet->bytes, bytes, len);
    if (peer->packet_first == NULL) {
        peer->packet_first = packet;
    } else {
        peer->packet_last->next = packet;
    }
    peer->packet_last = packet;
    peer->packet_count++;
    pls_zmq_due(zmq, peer->lanes[PLS_LANE_CONTROL].due_ns);
    return PLS_OK;
}

pls_err pls_zmq_control(pls_zmq *zmq, const char *address, size_t address_bytes, const void *bytes,
                        size_t len)
{
    uint8_t frame[1 + PLS_FRAME_CONTROL_BYTES_MAX];
    if (len > PLS_FRAME_CONTROL_BYTES_MAX) {
        return PLS_ETOOBIG;
    }
    frame[0] = PLS_FRAME_CONTROL;
    memcpy(frame + 1, bytes, len);
    pls_zmq_peer *peer = pls_peers_find(zmq->peers, address, address_bytes);
    if (peer != NULL && peer->lanes[PLS_LANE_CONTROL].state == PLS_LANE_OPEN && !peer->reset) {
        pls_err err = pls_lane_send(&peer->lanes[PLS_LANE_CONTROL], frame, 1 + len);
        zmq->counters.dropped_packets += err != PLS_OK;
        return err;
    }
    pls_err err = pls_inlets_control(zmq, address, address_bytes, frame, 1 + len);
    if (err == PLS_OK || err == PLS_EFULL) {
        zmq->counters.sent_packets += err == PLS_OK;
        zmq->counters.dropped_packets += err != PLS_OK;
        return err;
    }
    if (zmq->leaving) {
        return PLS_ECLOSED;
    }
    err = peer_get(zmq, address, address_bytes, &peer);
    return err == PLS_OK ? packet_wait(peer, frame, 1 + len) : err;
}

void pls_zmq_reset(pls_zmq *zmq, const char *address, size_t address_bytes)
{
    pls_zmq_peer *peer = pls_peers_find(zmq->peers, address, address_bytes);
    if (peer != NULL) {
        peer_reset(peer);
    }
    pls_inlets_reset(zmq, address, address_bytes);
}

static bool is_wanted(const pls_zmq_peer *peer, pls_frame_lane kind)
{
    if (kind == PLS_LANE_CONTROL) {
        return peer->packet_first != NULL;
    }
    return peer->queue != NULL && pls_postbox_count(peer->queue) > 0;
}

static bool is_connected(const pls_zmq_peer *peer)
{
    return peer->lanes[PLS_LANE_CONTROL].state != PLS_LANE_CLOSED ||
           peer->lanes[PLS_LANE_BULK].state != PLS_LANE_CLOSED;
}

static uint64_t used_ns(const pls_zmq_peer *peer)
{
    uint64_t control_ns = peer->lanes[PLS_LANE_CONTROL].used_ns;
    uint64_t bulk_ns = peer->lanes[PLS_LANE_BULK].used_ns;
    return control_ns > bulk_ns ? control_ns : bulk_ns;
}

bool pls_peers_admit(pls_zmq *zmq, const pls_zmq_peer *peer)
{
    uint32_t connected = 0;
    pls_zmq_peer *idlest = NULL;
    if (is_connected(peer)) {
        return true;
    }
    for (uint32_t i = 0; i < zmq->peers->count; i++) {
        pls_zmq_peer *other = zmq->peers->list[i];
        if (!is_connected(other)) {
            continue;
        }
        connected++;
        if (!is_wanted(other, PLS_LANE_CONTROL) && !is_wanted(other, PLS_LANE_BULK) &&
            (idlest == NULL || used_ns(other) < used_ns(idlest))) {
            idlest = other;
        }
    }
    if (connected < zmq->settings.peers_max) {
        return true;
    }
    if (idlest == NULL) {
        return false;
    }
    zmq->counters.idle_closes++;
    pls_lane_close(&idlest->lanes[PLS_LANE_CONTROL], true);
    pls_lane_close(&idlest->lanes[PLS_LANE_BULK], true);
    return true;
}

static void lane_tick(pls_zmq *zmq, pls_zmq_peer *peer, pls_lane *lane)
{
    bool wanted = is_wanted(peer, lane->kind);
    pls_lane_tick(lane);
    if (lane->state == PLS_LANE_CLOSED && wanted) {
        if (zmq->now_ns < lane->due_ns) {
            pls_zmq_due(zmq, lane->due_ns);
        } else if (pls_peers_admit(zmq, peer)) {
            pls_lane_open(lane);
        } else {
            lane->due_ns = zmq->now_ns + zmq->settings.retry_ns;
            pls_zmq_due(zmq, lane->due_ns);
        }
    } else if (lane->state == PLS_LANE_OPEN && !wanted) {
        uint64_t idle_at_ns = lane->used_ns + zmq->settings.idle_ns;
        if (zmq->now_ns >= idle_at_ns) {
            zmq->counters.idle_closes++;
            pls_lane_close(lane, true);
        } else {
            pls_zmq_due(zmq, idle_at_ns);
        }
    } else if (lane->state == PLS_LANE_OPEN && wanted) {
        pls_zmq_due(zmq, zmq->now_ns + zmq->settings.idle_ns);
    }
}

void pls_peers_tick(pls_zmq *zmq)
{
    pls_peers *peers = zmq->peers;
    for (uint32_t i = 0; i < peers->count; i++) {
        pls_zmq_peer *peer = peers->list[i];
        for (unsigned lane = 0; lane < PLS_LANE_COUNT; lane++) {
            if (peer->reset) {
                pls_lane_close(&peer->lanes[lane], peer->holds == 0);
                peer->lanes[lane].retry_ns = zmq->settings.retry_ns;
            }
        }
        peer->reset = false;
        for (unsigned lane = 0; lane < PLS_LANE_COUNT; lane++) {
            lane_tick(zmq, peer, &peer->lanes[lane]);
        }
        if (peer->holds == 0 && !is_connected(peer) && !is_wanted(peer, PLS_LANE_CONTROL) &&
            !is_wanted(peer, PLS_LANE_BULK)) {
            peer_free(peer);
            peers->list[i--] = peers->list[--peers->count];
        }
    }
}

uint64_t pls_peers_waiting(const pls_peers *peers)
{
    uint64_t count = 0;
    for (uint32_t i = 0; i < peers->count; i++) {
        count += peers->list[i]->queue == NULL ? 0 : pls_postbox_count(peers->list[i]->queue);
    }
    return count;
}

uint32_t pls_peers_count(const pls_peers *peers)
{
    return peers->count;
}

bool pls_peers_check(const pls_peers *peers)
{
    for (uint32_t i = 0; i < peers->count; i++) {
        const pls_zmq_peer *peer = peers->list[i];
        uint32_t packets = 0;
        for (const pls_packet_waiting *p = peer->packet_first; p != NULL; p = p->next) {
            packets++;
        }
        if (packets != peer->packet_count ||
            (peer->queue != NULL && !pls_postbox_check(peer->queue))) {
            return false;
        }
        for (unsigned lane = 0; lane < PLS_LANE_COUNT; lane++) {
            bool closed = peer->lanes[lane].state == PLS_LANE_CLOSED;
            if (closed != (peer->lanes[lane].socket == NULL)) {
                return false;
            }
        }
    }
    return true;
}
