/* SPDX-License-Identifier: Apache-2.0 */
/* The gateway as a producer: a ring in the inbox of each process it writes to, and a queue for what
 * does not fit. Invariant: while the queue is not empty, nothing newer enters the ring; nodes are
 * held up from when a queue is at its limit until half of it is gone. */
#include "node/process/gateway_parts.h"

#include "base/assert.h"

#include <stdlib.h>
#include <string.h>

#define RING_BYTES (256u << 10)

static pls_client *client_at(pls_gateway *gateway, pls_client_key key)
{
    pls_client *client = pls_client_find(gateway->node, key);
    return client != NULL && client->stage == PLS_CLIENT_JOINED ? client : NULL;
}

static pls_err link_open(pls_gateway *gateway, pls_client_key key, pls_gate_link **link_out)
{
    pls_gate_link *link = &gateway->links[key.slot];
    pls_client *client = client_at(gateway, key);
    if (client == NULL || key.slot == PLS_NODE_SLOT) {
        return PLS_EDEAD;
    }
    if (link->outbox == NULL) {
        pls_err err = pls_outbox_attach(client->peer, PLS_NODE_SLOT, PLS_GATE_EPOCH, RING_BYTES,
                                        &link->outbox);
        if (err != PLS_OK) {
            return err;
        }
        link->epoch = key.epoch;
    }
    pls_assert(link->epoch == key.epoch);
    *link_out = link;
    return PLS_OK;
}

/* Publishes what was written into the ring: `len` bytes, and a descriptor if there is a block. */
static pls_err publish(pls_gateway *gateway, uint32_t slot, uint8_t *room,
                       const pls_gate_parcel *parcel)
{
    pls_gate_link *link = &gateway->links[slot];
    uint32_t len = parcel->len;
    if (parcel->block != NULL) {
        pls_descriptor descriptor;
        pls_arena_loan loan = {.len = parcel->block->bytes, .slot = slot, .epoch = link->epoch};
        pls_err err = pls_arena_lend(gateway->arena, parcel->block, &loan, &descriptor);
        if (err != PLS_OK) {
            return err;
        }
        memcpy(room + len, &descriptor, sizeof descriptor);
        len += (uint32_t)sizeof descriptor;
    }
    uint64_t tick = pls_clock_tick(&gateway->clock);
    (void)pls_outbox_commit(link->outbox, len, parcel->type, parcel->flags,
                            pls_clock_stamp(&gateway->clock, tick));
    (void)pls_outbox_wake(link->outbox);
    return PLS_OK;
}

static uint32_t need_of(const pls_gate_parcel *parcel)
{
    return parcel->len + (parcel->block != NULL ? (uint32_t)sizeof(pls_descriptor) : 0);
}

static void pieces_copy(uint8_t *at, const pls_gate_note *note)
{
    for (int i = 0; i < 4; i++) {
        if (note->bytes[i] > 0) {
            memcpy(at, note->piece[i], note->bytes[i]);
            at += note->bytes[i];
        }
    }
}

pls_err pls_gate_note_send(pls_gateway *gateway, const pls_gate_note *note)
{
    pls_gate_link *link = NULL;
    pls_err err = link_open(gateway, note->to, &link);
    if (err != PLS_OK) {
        return err;
    }
    pls_gate_parcel shape = {.block = note->block,
                             .len =
                                 note->bytes[0] + note->bytes[1] + note->bytes[2] + note->bytes[3],
                             .type = note->type,
                             .flags = note->flags};
    uint8_t *room = NULL;
    if (link->queue.count == 0 &&
        pls_outbox_reserve(link->outbox, need_of(&shape), &room) == PLS_OK) {
        pieces_copy(room, note);
        if (publish(gateway, note->to.slot, room, &shape) == PLS_OK) {
            return PLS_OK;
        }
    }
    pls_gate_parcel *parcel = pls_gate_parcel_new(shape.len, note->type, note->flags);
    if (parcel == NULL) {
        return PLS_ENOMEM;
    }
    pieces_copy(parcel->bytes, note);
    if (note->block != NULL) {
        pls_arena_hold(gateway->arena, note->block);
        parcel->block = note->block;
    }
    pls_gate_queue_push(&link->queue, parcel);
    pls_gate_link_flush(gateway, note->to.slot);
    return PLS_OK;
}

static void parcel_done(pls_gateway *gateway, pls_gate_parcel *parcel)
{
    if (parcel->block != NULL) {
        pls_arena_unhold(gateway->arena, parcel->block);
    }
    free(parcel);
}

/* Nodes that were held up may go on when half of what waits has gone. */
static void held_resume(pls_gateway *gateway, pls_gate_link *link)
{
    if (!link->full || link->queue.count > PLS_GATE_QUEUE_COUNT_MAX / 2 ||
        link->queue.bytes > PLS_GATE_QUEUE_BYTES_MAX / 2) {
        return;
    }
    link->full = false;
    for (pls_gate_peer *peer = gateway->peers; peer != NULL; peer = peer->next) {
        if (peer->held) {
            peer->held = false;
            pls_net_resume(gateway->node->net, peer->net);
        }
    }
}

void pls_gate_link_flush(pls_gateway *gateway, uint32_t slot)
{
    pls_gate_link *link = &gateway->links[slot];
    while (link->outbox != NULL && link->queue.count > 0) {
        pls_gate_parcel *parcel = link->queue.first;
        uint8_t *room = NULL;
        pls_err err = pls_outbox_reserve(link->outbox, need_of(parcel), &room);
        if (err == PLS_EFULL) {
            if (pls_outbox_want_space(link->outbox, need_of(parcel))) {
                return;
            }
            continue;
        }
        if (err == PLS_OK) {
            memcpy(room, parcel->bytes, parcel->len);
            err = publish(gateway, slot, room, parcel);
        }
        if (err == PLS_EFULL && !pls_arena_want_returns(gateway->arena)) {
            return; /* every lease is out: the next return wakes the gateway */
        }
        if (err == PLS_EFULL) {
            (void)pls_arena_collect(gateway->arena);
            continue;
        }
        gateway->lost += err != PLS_OK;
        parcel_done(gateway, pls_gate_queue_pop(&link->queue));
        held_resume(gateway, link);
    }
}

bool pls_gate_link_full(pls_gateway *gateway, uint32_t slot)
{
    pls_gate_link *link = &gateway->links[slot];
    if (link->queue.count >= PLS_GATE_QUEUE_COUNT_MAX ||
        link->queue.bytes >= PLS_GATE_QUEUE_BYTES_MAX) {
        link->full = true;
    }
    return link->full;
}

void pls_gate_link_owed(pls_gateway *gateway, uint32_t slot)
{
    pls_client *client = gateway->node->slots[slot].client;
    if (client != NULL && client->peer != NULL) {
        pls_peer_ring_space(client->peer, PLS_NODE_SLOT);
    }
}

void pls_gate_link_close(pls_gateway *gateway, uint32_t slot)
{
    pls_gate_link *link = &gateway->links[slot];
    pls_gate_parcel *parcel = NULL;
    while ((parcel = pls_gate_queue_pop(&link->queue)) != NULL) {
        parcel_done(gateway, parcel);
    }
    held_resume(gateway, link);
    pls_outbox_detach(link->outbox);
    memset(link, 0, sizeof *link);
}

void pls_gate_signal(pls_gateway *gateway, pls_client_key to, pls_wire_type type, uint64_t id,
                     uint64_t value)
{
    pls_wire_signal signal = {id, value};
    pls_gate_note note = {
        .to = to, .type = (uint16_t)type, .piece = {&signal}, .bytes = {sizeof signal}};
    (void)!pls_gate_note_send(gateway, &note);
}

void pls_gate_route_credit(pls_gateway *gateway, pls_gate_entry *route, uint64_t count)
{
    uint32_t given = count < route->owed ? (uint32_t)count : route->owed;
    route->owed -= given;
    if (given > 0) {
        pls_gate_signal(gateway, (pls_client_key){route->slot, route->epoch}, PLS_WIRE_CREDIT,
                        route->key[1], given);
    }
}

void pls_gate_answer(pls_gateway *gateway, pls_client_key to, uint64_t call_id,
                     pulsing_status status, const char *text)
{
    pls_wire_reply head = {.call_id = call_id,
                           .payload_bytes = (uint32_t)strlen(text),
                           .status = (uint8_t)status,
                           .credit = 1};
    pls_gate_note note = {.to = to,
                          .type = PLS_WIRE_REPLY,
                          .piece = {&head, text},
                          .bytes = {sizeof head, head.payload_bytes}};
    (void)!pls_gate_note_send(gateway, &note);
}
