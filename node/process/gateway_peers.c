/* SPDX-License-Identifier: Apache-2.0 */
/* The nodes that are alive, what the gateway itself says to them, and the ends of nodes and of
 * processes: everything that had to do with the one that is gone ends. Invariant: no ask or serve
 * names a peer that is not in the list. */
#include "node/process/gateway_parts.h"

#include "base/assert.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

uint8_t pls_gate_stream(uint64_t first, uint64_t second)
{
    uint64_t word = (first * UINT64_C(0x9e3779b97f4a7c15)) ^ second;
    word *= UINT64_C(0xd6e8feb86659fd93);
    return (uint8_t)((word >> 32) % PLS_FRAME_STREAMS);
}

/* Whether this node was lost before, and all between it and this one ended; it is asked once. */
static bool was_lost(pls_gateway *gateway, const uint8_t *node_id)
{
    static const uint8_t nobody[PLS_NODE_ID_BYTES];
    bool found = false;
    for (uint32_t i = 0; i < PLS_GATE_LOST_MAX; i++) {
        if (memcmp(gateway->lost_nodes[i], node_id, sizeof nobody) == 0) {
            memcpy(gateway->lost_nodes[i], nobody, sizeof nobody);
            found = true;
        }
    }
    return found;
}

void pls_gate_peer_up(void *owner, pls_net_peer *net)
{
    pls_gateway *gateway = owner;
    const pls_net_peer_info *info = pls_net_peer_info_of(net);
    pls_gate_peer *peer = calloc(1, sizeof *peer);
    if (peer == NULL) {
        return; /* as if it were not there; the next call says so */
    }
    peer->gateway = gateway;
    peer->net = net;
    snprintf(peer->label, sizeof peer->label, "node %02x%02x%02x%02x (%s)", info->node_id[0],
             info->node_id[1], info->node_id[2], info->node_id[3], info->address);
    memcpy(peer->node_id, info->node_id, sizeof peer->node_id);
    peer->next = gateway->peers;
    gateway->peers = peer;
    pls_net_peer_keep(net, peer);
    if (was_lost(gateway, peer->node_id)) {
        /* It may not have noticed. This comes first in the first stream, before all else. */
        pls_gate_head head = {.kind = PLS_GATE_FORGOT};
        pls_gate_say(peer, &head, 0, "");
    }
}

static bool parcel_try(pls_gate_peer *peer, const pls_gate_parcel *parcel)
{
    uint32_t head_bytes = parcel->type;
    pls_zmq_message message = {.head = parcel->bytes,
                               .head_bytes = (uint16_t)head_bytes,
                               .body = parcel->bytes + head_bytes,
                               .body_bytes = parcel->len - head_bytes,
                               .copy = true,
                               .stream = (uint8_t)parcel->flags};
    return pls_net_send(peer->gateway->node->net, peer->net, &message) != PLS_EFULL;
}

static void pending_flush(pls_gate_peer *peer)
{
    while (peer->pending.count > 0 && parcel_try(peer, peer->pending.first)) {
        free(pls_gate_queue_pop(&peer->pending));
    }
}

bool pls_gate_peer_full(pls_gate_peer *peer)
{
    bool full = peer->pending.count >= PLS_GATE_PENDING_COUNT_MAX ||
                peer->pending.bytes >= PLS_GATE_PENDING_BYTES_MAX;
    peer->held = peer->held || full;
    return full;
}

void pls_gate_say(pls_gate_peer *peer, const pls_gate_head *head, uint8_t stream, const char *text)
{
    uint8_t bytes[64];
    pls_gate_head full = *head;
    full.payload_bytes = (uint32_t)strlen(text);
    pls_writer w = pls_writer_into(bytes, sizeof bytes);
    pls_gate_head_write(&w, &full);
    pls_assert(!w.bad);
    uint32_t head_bytes = (uint32_t)pls_writer_len(&w);
    pls_gate_parcel *parcel = peer->going ? NULL
                                          : pls_gate_parcel_new(head_bytes + full.payload_bytes,
                                                                (uint16_t)head_bytes, stream);
    if (parcel == NULL) {
        peer->gateway->lost++;
        return;
    }
    memcpy(parcel->bytes, bytes, head_bytes);
    memcpy(parcel->bytes + head_bytes, text, full.payload_bytes);
    pls_gate_queue_push(&peer->pending, parcel);
    pending_flush(peer);
}

void pls_gate_refuse(pls_gate_peer *peer, const pls_gate_head *request, pulsing_status status,
                     const char *text)
{
    if (request->id == 0) {
        peer->gateway->lost++;
        if (request->kind == PLS_GATE_REQUEST && (request->flags & PLS_GATE_WINDOWED) != 0) {
            pls_gate_credit_give(peer, request->value, 1);
        }
        return;
    }
    pls_gate_head head = {.kind = request->kind == PLS_GATE_ITEM || request->kind == PLS_GATE_END
                                      ? PLS_GATE_END
                                      : PLS_GATE_REPLY,
                          .status = (uint8_t)status,
                          .credit = 1,
                          .id = request->id};
    pls_gate_say(peer, &head, pls_gate_stream(head.id, 0), text);
}

void pls_gate_peer_room(void *owner, pls_net_peer *net)
{
    pls_gateway *gateway = owner;
    pls_gate_peer *peer = pls_net_peer_kept(net);
    if (peer == NULL) {
        return;
    }
    pending_flush(peer);
    if (peer->held && peer->pending.count <= PLS_GATE_PENDING_COUNT_MAX / 2 &&
        peer->pending.bytes <= PLS_GATE_PENDING_BYTES_MAX / 2) {
        peer->held = false;
        pls_net_resume(gateway->node->net, peer->net);
    }
    for (uint32_t slot = 0; slot < PLS_SLOTS_MAX; slot++) {
        if (gateway->links[slot].stalled && gateway->links[slot].stalled_for == peer) {
            pls_gate_stalled_retry(gateway, slot);
        }
    }
}

/* Ends what a process here does for a caller who is lost. */
static void serve_end(pls_gateway *gateway, pls_gate_entry *serve)
{
    pls_client_key to = {serve->slot, serve->epoch};
    uint64_t id = pls_gate_id(&gateway->serves, serve);
    bool stream = serve->state == PLS_GATE_STREAM;
    pls_gate_signal(gateway, to, stream ? PLS_WIRE_STREAM_CLOSE : PLS_WIRE_CANCEL,
                    stream ? serve->writer_id : id, stream ? 0 : serve->actor_id);
    pls_gate_close(&gateway->serves, serve);
}

static void asks_end(pls_gateway *gateway, const pls_gate_peer *peer, const char *why)
{
    char text[PLS_GATE_TEXT_BYTES_MAX];
    snprintf(text, sizeof text, "%s is lost: %s; the message was sent and is unanswered",
             peer->label, why);
    for (uint32_t i = 0; i < gateway->asks.capacity; i++) {
        pls_gate_entry *ask = &gateway->asks.entries[i];
        if (ask->state != PLS_GATE_FREE && ask->peer == peer) {
            pls_gate_ask_fail(gateway, ask, PULSING_UNREACHABLE, text);
        }
    }
}

/* What was told to a node, and has not given its credit back, never will. */
static void routes_credit(pls_gateway *gateway, const pls_gate_peer *peer)
{
    for (uint32_t i = 0; i < gateway->routes.capacity; i++) {
        pls_gate_entry *route = &gateway->routes.entries[i];
        if (route->state != PLS_GATE_FREE &&
            memcmp(route->node_id, peer->node_id, sizeof route->node_id) == 0) {
            pls_gate_route_credit(gateway, route, route->owed);
        }
    }
}

/* Ends what it had started here. */
static void serves_end(pls_gateway *gateway, const pls_gate_peer *peer)
{
    for (uint32_t i = 0; i < gateway->serves.capacity; i++) {
        pls_gate_entry *serve = &gateway->serves.entries[i];
        if (serve->state != PLS_GATE_FREE && serve->peer == peer) {
            serve_end(gateway, serve);
        }
    }
    pls_gate_debts_forget_peer(gateway, peer);
}

void pls_gate_peer_forgot(pls_gate_peer *peer, const char *why)
{
    asks_end(peer->gateway, peer, why);
    routes_credit(peer->gateway, peer);
    serves_end(peer->gateway, peer);
}

void pls_gate_peer_settled(pls_gate_peer *peer)
{
    pls_assert(peer->unsettled > 0);
    peer->unsettled--;
    if (peer->going && peer->unsettled == 0) {
        free(peer);
    }
}

void pls_gate_peer_gone(void *owner, pls_net_peer *net, const char *why)
{
    pls_gateway *gateway = owner;
    pls_gate_peer *peer = pls_net_peer_kept(net);
    if (peer == NULL) {
        return;
    }
    peer->going = true;
    pls_net_peer_keep(net, NULL);
    /* First what is known of each message, then what is true of the rest. */
    peer->unsettled++;
    pls_net_settle(gateway->node->net);
    pls_gate_peer_forgot(peer, why);
    memcpy(gateway->lost_nodes[gateway->lost_count++ % PLS_GATE_LOST_MAX], peer->node_id,
           sizeof peer->node_id);
    for (pls_gate_peer **at = &gateway->peers; *at != NULL; at = &(*at)->next) {
        if (*at == peer) {
            *at = peer->next;
            break;
        }
    }
    for (uint32_t slot = 0; slot < PLS_SLOTS_MAX; slot++) {
        if (gateway->links[slot].stalled && gateway->links[slot].stalled_for == peer) {
            pls_gate_stalled_retry(gateway, slot);
        }
    }
    while (peer->pending.count > 0) {
        free(pls_gate_queue_pop(&peer->pending));
    }
    pls_gate_peer_settled(peer);
}

void pls_gate_death_words(const pls_gateway *gateway, pls_client_key key, char *text,
                          size_t capacity)
{
    pls_death death;
    bool known = key.slot < PLS_SLOTS_MAX && pls_directory_death(gateway->node->directory, key.slot,
                                                                 key.epoch, &death) == PLS_OK;
    pls_death_words(known ? &death : NULL, text, capacity);
}

/* A process here is dead that had asked: nobody wants the answer. */
static void ask_forget(pls_gateway *gateway, pls_gate_entry *ask)
{
    bool stream = ask->state == PLS_GATE_STREAM;
    pls_gate_head head = {.kind = stream ? PLS_GATE_CLOSE : PLS_GATE_CANCEL,
                          .id = pls_gate_id(&gateway->asks, ask)};
    uint8_t lane = stream ? pls_gate_stream(head.id, 0) : pls_gate_stream(ask->slot, ask->actor_id);
    pls_gate_peer *peer = ask->peer;
    pls_gate_close(&gateway->asks, ask);
    pls_gate_say(peer, &head, lane, "");
}

/* One that had to answer: its caller is told. */
static void serve_fail(pls_gateway *gateway, pls_gate_entry *serve, const char *text)
{
    pls_gate_head head = {.kind = serve->state == PLS_GATE_STREAM ? PLS_GATE_END : PLS_GATE_REPLY,
                          .id = serve->key[1]};
    pls_gate_peer *peer = serve->peer;
    pls_gate_close(&gateway->serves, serve);
    pls_gate_refuse(peer, &head, PULSING_DIED, text);
}

void pls_gate_slot_died(pls_gateway *gateway, pls_client_key key, const char *text)
{
    for (uint32_t i = 0; i < gateway->asks.capacity; i++) {
        pls_gate_entry *ask = &gateway->asks.entries[i];
        if (ask->state != PLS_GATE_FREE && ask->slot == key.slot && ask->epoch == key.epoch) {
            ask_forget(gateway, ask);
        }
    }
    for (uint32_t i = 0; i < gateway->serves.capacity; i++) {
        pls_gate_entry *serve = &gateway->serves.entries[i];
        if (serve->state != PLS_GATE_FREE && serve->slot == key.slot && serve->epoch == key.epoch) {
            serve_fail(gateway, serve, text);
        }
    }
    for (uint32_t i = 0; i < gateway->routes.capacity; i++) {
        pls_gate_entry *route = &gateway->routes.entries[i];
        if (route->state != PLS_GATE_FREE && route->slot == key.slot && route->epoch == key.epoch) {
            pls_gate_close(&gateway->routes, route);
        }
    }
    pls_gate_debts_forget_slot(gateway, key.slot);
}
