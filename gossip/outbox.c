/* SPDX-License-Identifier: Apache-2.0 */
/* Actions that wait to be drained. Packets are written in place at the end of one buffer, and the
 * buffer is used again from its begin when everything has been handed out: no memory is taken in
 * the steady state. A waiting action holds a reference on its member, since the table may forget
 * the member before the caller reads about it. */
#include "gossip/outbox.h"

#include "base/assert.h"
#include "gossip/mutant.h"
#include "gossip/state.h"

/* A buffer that a storm has grown beyond this is given back when it is empty. */
#define OUTBOX_KEEP_BYTES (32u * 1024)

static void outbox_drop(pls_gossip *gossip, pls_err err)
{
    if (err == PLS_ENOMEM) {
        gossip->counters.dropped_memory++;
        gossip->err = PLS_ENOMEM;
        return;
    }
    gossip->counters.dropped_actions++;
}

static pls_err bytes_reserve(pls_gossip *gossip, uint32_t more)
{
    pls_outbox *outbox = &gossip->outbox;
    void *bytes = outbox->bytes;
    pls_err err = pls_heap_reserve(&gossip->heap, &bytes, &outbox->bytes_capacity,
                                   outbox->bytes_used + more, 1);
    outbox->bytes = bytes;
    return err;
}

static pls_err item_reserve(pls_gossip *gossip)
{
    pls_outbox *outbox = &gossip->outbox;
    if (outbox->count - outbox->taken >= gossip->config.actions_max) {
        return PLS_EFULL;
    }
    void *items = outbox->items;
    pls_err err = pls_heap_reserve(&gossip->heap, &items, &outbox->items_capacity,
                                   outbox->count + 1, sizeof(pls_outbox_item));
    outbox->items = items;
    return err;
}

/* Needs an item_reserve before it. */
static void item_push(pls_gossip *gossip, const pls_outbox_item *item)
{
    pls_outbox *outbox = &gossip->outbox;
    pls_assert(outbox->count < outbox->items_capacity);
    if (item->member != PLS_MEMBER_NONE) {
        pls_identities_hold(gossip->pool, item->member);
    }
    if (item->other != PLS_MEMBER_NONE) {
        pls_identities_hold(gossip->pool, item->other);
    }
    outbox->items[outbox->count++] = *item;
}

bool pls_outbox_open(pls_gossip *gossip, uint32_t packet_bytes)
{
    pls_outbox *outbox = &gossip->outbox;
    pls_err err = item_reserve(gossip);
    if (err == PLS_OK) {
        err = bytes_reserve(gossip, packet_bytes + PLS_ADDRESS_BYTES_MAX);
    }
    if (err != PLS_OK) {
        outbox_drop(gossip, err);
        return false;
    }
    outbox->packet = pls_writer_into(outbox->bytes + outbox->bytes_used, packet_bytes);
    pls_packet_head_write(&outbox->packet, gossip->cluster, gossip->self_key);
    outbox->head_bytes = (uint32_t)pls_writer_len(&outbox->packet);
    return true;
}

static void count_packet(pls_gossip *gossip, uint32_t len)
{
    if (pls_mutant(PLS_MUTANT_UNCOUNTED) && pls_rng_below(&gossip->rng, 100) == 0) {
        return;
    }
    gossip->counters.packets_sent++;
    gossip->counters.bytes_sent += len;
}

static uint32_t address_copy(pls_gossip *gossip, pls_target to)
{
    pls_outbox *outbox = &gossip->outbox;
    uint32_t at = outbox->bytes_used;
    if (to.member == PLS_MEMBER_NONE) {
        pls_assert(to.address_bytes <= PLS_ADDRESS_BYTES_MAX);
        memcpy(outbox->bytes + at, to.address, to.address_bytes);
        outbox->bytes_used += to.address_bytes;
    }
    return at;
}

bool pls_outbox_close(pls_gossip *gossip, pls_target to, bool gossip_too)
{
    pls_outbox *outbox = &gossip->outbox;
    pls_writer *packet = &outbox->packet;
    pls_assert(!packet->bad);
    if (gossip_too) {
        pls_queue_fill(gossip, &gossip->queue, packet);
        pls_queue_fill(gossip, &gossip->registry.queue, packet);
    }
    if (pls_writer_len(packet) == outbox->head_bytes ||
        (to.member == PLS_MEMBER_NONE && to.address_bytes == 0)) {
        return false;
    }
    pls_outbox_item item = {.member = to.member,
                            .other = PLS_MEMBER_NONE,
                            .bytes_at = outbox->bytes_used,
                            .len = (uint32_t)pls_writer_len(packet),
                            .kind = PLS_ACTION_SEND};
    outbox->bytes_used += item.len;
    item.address_at = address_copy(gossip, to);
    item.address_bytes = to.member == PLS_MEMBER_NONE ? to.address_bytes : 0;
    count_packet(gossip, item.len);
    item_push(gossip, &item);
    return true;
}

void pls_outbox_send(pls_gossip *gossip, pls_target to, const pls_message *message, bool gossip_too)
{
    if (pls_outbox_open(gossip, gossip->config.packet_bytes)) {
        pls_message_write(&gossip->outbox.packet, message);
        pls_outbox_close(gossip, to, gossip_too);
    }
}

static void push_plain(pls_gossip *gossip, const pls_outbox_item *item)
{
    pls_err err = item_reserve(gossip);
    if (err != PLS_OK) {
        outbox_drop(gossip, err);
        return;
    }
    item_push(gossip, item);
}

void pls_outbox_connect(pls_gossip *gossip, pls_target to)
{
    pls_err err = bytes_reserve(gossip, PLS_ADDRESS_BYTES_MAX);
    if (err != PLS_OK) {
        outbox_drop(gossip, err);
        return;
    }
    pls_outbox_item item = {
        .member = to.member, .other = PLS_MEMBER_NONE, .kind = PLS_ACTION_CONNECT};
    item.address_at = address_copy(gossip, to);
    item.address_bytes = to.member == PLS_MEMBER_NONE ? to.address_bytes : 0;
    push_plain(gossip, &item);
}

void pls_outbox_drop(pls_gossip *gossip, pls_member member)
{
    pls_outbox_item item = {.member = member, .other = PLS_MEMBER_NONE, .kind = PLS_ACTION_DROP};
    push_plain(gossip, &item);
}

void pls_outbox_member(pls_gossip *gossip, pls_gossip_event event, pls_member member,
                       pls_member other)
{
    pls_outbox_item item = {.member = member,
                            .other = other,
                            .incarnation = pls_members_incarnation(&gossip->members, member),
                            .kind = PLS_ACTION_MEMBER,
                            .event = (uint8_t)event};
    push_plain(gossip, &item);
}

void pls_outbox_name(pls_gossip *gossip, const pls_action *event)
{
    pls_outbox *outbox = &gossip->outbox;
    pls_err err = item_reserve(gossip);
    if (err == PLS_OK) {
        err = bytes_reserve(gossip, event->len);
    }
    if (err != PLS_OK) {
        outbox_drop(gossip, err);
        return;
    }
    pls_outbox_item item = {.member = event->member,
                            .other = event->other,
                            .bytes_at = outbox->bytes_used,
                            .len = event->len,
                            .value = event->value,
                            .kind = PLS_ACTION_NAME,
                            .event = (uint8_t)event->event,
                            .unique = event->unique};
    memcpy(outbox->bytes + outbox->bytes_used, event->bytes, event->len);
    outbox->bytes_used += event->len;
    item_push(gossip, &item);
}

static void release_refs(pls_gossip *gossip, const pls_outbox_item *item)
{
    if (item->member != PLS_MEMBER_NONE) {
        pls_identities_release(gossip->pool, item->member);
    }
    if (item->other != PLS_MEMBER_NONE) {
        pls_identities_release(gossip->pool, item->other);
    }
}

void pls_outbox_recycle(pls_gossip *gossip)
{
    pls_outbox *outbox = &gossip->outbox;
    if (outbox->taken == 0 || outbox->taken < outbox->count) {
        return;
    }
    for (uint32_t i = 0; i < outbox->count; i++) {
        release_refs(gossip, &outbox->items[i]);
    }
    outbox->count = 0;
    outbox->taken = 0;
    outbox->bytes_used = 0;
    if (outbox->bytes_capacity > OUTBOX_KEEP_BYTES) {
        outbox->bytes = pls_heap_resize(&gossip->heap, outbox->bytes, outbox->bytes_capacity, 0);
        outbox->bytes_capacity = 0;
    }
    if (outbox->items_capacity * sizeof(pls_outbox_item) > OUTBOX_KEEP_BYTES) {
        outbox->items = pls_heap_resize(&gossip->heap, outbox->items,
                                        outbox->items_capacity * sizeof(pls_outbox_item), 0);
        outbox->items_capacity = 0;
    }
}

pls_err pls_gossip_next_action(pls_gossip *gossip, pls_action *action_out)
{
    pls_outbox *outbox = &gossip->outbox;
    if (outbox->taken == outbox->count) {
        return PLS_EEMPTY;
    }
    const pls_outbox_item *item = &outbox->items[outbox->taken++];
    pls_action action = {.kind = (pls_action_kind)item->kind,
                         .event = (pls_gossip_event)item->event,
                         .member = item->member,
                         .other = item->other,
                         .bytes = item->len > 0 ? outbox->bytes + item->bytes_at : NULL,
                         .len = item->len,
                         .incarnation = item->incarnation,
                         .value = item->value,
                         .unique = item->unique};
    if (item->member != PLS_MEMBER_NONE) {
        action.identity = pls_identities_get(gossip->pool, item->member);
        action.address = action.identity.address;
        action.address_bytes = action.identity.address_bytes;
    } else {
        action.address = (const char *)outbox->bytes + item->address_at;
        action.address_bytes = item->address_bytes;
    }
    *action_out = action;
    return PLS_OK;
}

void pls_outbox_fini(pls_gossip *gossip)
{
    pls_outbox *outbox = &gossip->outbox;
    for (uint32_t i = 0; i < outbox->count; i++) {
        release_refs(gossip, &outbox->items[i]);
    }
    pls_heap_resize(&gossip->heap, outbox->items, outbox->items_capacity * sizeof(pls_outbox_item),
                    0);
    pls_heap_resize(&gossip->heap, outbox->bytes, outbox->bytes_capacity, 0);
}
