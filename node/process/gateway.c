/* SPDX-License-Identifier: Apache-2.0 */
/* The gateway's life and its turn: like any process it reads its inbox until nothing is there, then
 * arms its bell. Invariants: a record that the queue to a node did not take is kept, and the ring
 * that it came from is not read until it has gone; the death of a process is acknowledged only when
 * its ring is drained and nothing names it any more. */
#include "node/process/gateway_parts.h"

#include "base/assert.h"

#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

/* Records in a turn, before the loop serves others. */
#define TURN_RECORDS_MAX 256
#define MEMORY_BYTES_MIN (UINT64_C(64) << 20)

static pls_err segment_publish(void *context, uint32_t segment, int readonly_fd)
{
    pls_gateway *gateway = context;
    int fd = dup(readonly_fd);
    if (fd < 0) {
        return PLS_EFDLIMIT;
    }
    pls_err err = pls_segments_put(&gateway->segments, segment, fd);
    if (err != PLS_OK) {
        close(fd);
    }
    return err;
}

static void segment_retire(void *context, uint32_t segment)
{
    pls_gateway *gateway = context;
    pls_segments_remove(&gateway->segments, segment);
}

static pls_err segment_resolve(void *context, uint32_t slot, uint32_t epoch, uint32_t segment,
                               int *fd_out)
{
    pls_gateway *gateway = context;
    pls_client *owner = pls_client_find(gateway->node, (pls_client_key){slot, epoch});
    if (owner == NULL) {
        return PLS_EDEAD;
    }
    int fd = pls_segments_get(&owner->segments, segment);
    if (fd < 0) {
        /* Its registration stands unread in its socket: it was sent before the message. */
        pls_client_drain(owner);
        owner = pls_client_find(gateway->node, (pls_client_key){slot, epoch});
        fd = owner != NULL ? pls_segments_get(&owner->segments, segment) : -1;
    }
    if (fd < 0) {
        return PLS_ENOENT;
    }
    *fd_out = dup(fd);
    return *fd_out < 0 ? PLS_EFDLIMIT : PLS_OK;
}

static void stalled_keep(pls_gateway *gateway, const pls_gate_record *record, pls_gate_peer *peer)
{
    pls_gate_link *link = &gateway->links[record->slot];
    pls_assert(!link->stalled);
    uint8_t *bytes = malloc(record->len + 1);
    if (bytes == NULL) {
        pls_gate_record dropped = *record;
        gateway->lost++;
        pls_gate_record_drop(gateway, &dropped);
        return;
    }
    memcpy(bytes, record->bytes, record->len);
    link->record = *record;
    link->record.bytes = bytes;
    link->stalled = true;
    link->stalled_for = peer;
}

static void stalled_end(pls_gateway *gateway, uint32_t slot)
{
    pls_gate_link *link = &gateway->links[slot];
    free((void *)(uintptr_t)link->record.bytes);
    memset(&link->record, 0, sizeof link->record);
    link->stalled = false;
    link->stalled_for = NULL;
    pls_inbox_hold(gateway->inbox, slot, false);
}

static void again_soon(pls_gateway *gateway)
{
    (void)!pls_loop_alarm(gateway->node->loop, &gateway->again, pls_loop_now_ns());
}

void pls_gate_stalled_retry(pls_gateway *gateway, uint32_t slot)
{
    pls_gate_link *link = &gateway->links[slot];
    pls_gate_peer *peer = NULL;
    if (pls_gate_out(gateway, &link->record, &peer) == PLS_EFULL) {
        link->stalled_for = peer;
        return;
    }
    stalled_end(gateway, slot);
    again_soon(gateway);
}

static void record_take(pls_gateway *gateway, const pls_message *message)
{
    pls_gate_peer *peer = NULL;
    pls_gate_record record = {.bytes = message->bytes,
                              .len = message->len,
                              .epoch = message->from_epoch,
                              .slot = (uint16_t)message->from_slot,
                              .type = message->type,
                              .flags = message->flags};
    if ((message->flags & PLS_WIRE_BLOCK) != 0 && message->len >= sizeof record.descriptor) {
        record.len -= (uint32_t)sizeof record.descriptor;
        memcpy(&record.descriptor, message->bytes + record.len, sizeof record.descriptor);
        record.foreign = true;
    }
    bool stalled = pls_gate_out(gateway, &record, &peer) == PLS_EFULL;
    if (stalled) {
        stalled_keep(gateway, &record, peer);
    }
    gateway->popped = false;
    pls_inbox_release(gateway->inbox);
    if (stalled && gateway->links[record.slot].stalled) {
        pls_inbox_hold(gateway->inbox, record.slot, true);
    }
}

static uint32_t records_take(pls_gateway *gateway, uint32_t max)
{
    uint32_t count = 0;
    while (count < max) {
        pls_message message;
        pls_err err = pls_inbox_pop(gateway->inbox, &message);
        if (err == PLS_EEMPTY) {
            break;
        }
        if (err == PLS_OK) {
            gateway->popped = true;
            record_take(gateway, &message);
        } else {
            gateway->lost++;
        }
        count++;
    }
    return count;
}

/* What the dead one wrote last is taken in; what a node has no room for is lost with it. */
static void ring_drain(pls_gateway *gateway, uint32_t slot)
{
    pls_inbox_look(gateway->inbox, slot);
    do {
        if (gateway->links[slot].stalled) {
            pls_gate_record_drop(gateway, &gateway->links[slot].record);
            gateway->lost++;
            stalled_end(gateway, slot);
        }
        /* Others write meanwhile, and are not waited for. */
    } while (
        (!pls_inbox_drained(gateway->inbox, slot) && records_take(gateway, TURN_RECORDS_MAX) > 0) ||
        gateway->links[slot].stalled);
}

static void death_serve(pls_gateway *gateway, uint32_t slot)
{
    char text[PLS_GATE_TEXT_BYTES_MAX];
    pls_client *dead = gateway->node->slots[slot].client;
    if (dead == NULL || dead->stage != PLS_CLIENT_DEAD) {
        return;
    }
    pls_client_key key = pls_client_key_of(dead);
    ring_drain(gateway, slot);
    pls_gate_death_words(gateway, key, text, sizeof text);
    pls_gate_slot_died(gateway, key, text);
    pls_gate_link_close(gateway, slot);
    if (pls_inbox_drained(gateway->inbox, slot)) {
        (void)!pls_inbox_close_ring(gateway->inbox, slot);
    }
    (void)pls_arena_reap(gateway->arena, slot, key.epoch);
    pls_views_owner_dead(gateway->views, slot, key.epoch);
    pls_client_acknowledge(dead, PLS_NODE_SLOT);
}

static void bits_each(pls_gateway *gateway, const pls_bitmap *bits,
                      void (*act)(pls_gateway *gateway, uint32_t slot))
{
    for (uint32_t i = 0; i < PLS_SLOT_WORDS; i++) {
        for (uint64_t word = bits->word[i]; word != 0; word &= word - 1) {
            act(gateway, i * 64 + (uint32_t)__builtin_ctzll(word));
        }
    }
}

static void bells_serve(pls_gateway *gateway)
{
    pls_bitmap bits;
    if (pls_inbox_take_owed(gateway->inbox, &bits)) {
        bits_each(gateway, &bits, pls_gate_link_owed);
    }
    if (pls_inbox_take_space(gateway->inbox, &bits)) {
        bits_each(gateway, &bits, pls_gate_link_flush);
    }
    /* Deaths come from the node itself; a bit here is somebody's mistake. */
    (void)pls_inbox_take_dead(gateway->inbox, &bits);
    if (pls_arena_collect(gateway->arena) > 0) {
        for (uint32_t slot = 0; slot < PLS_SLOTS_MAX; slot++) {
            pls_gate_link_flush(gateway, slot);
        }
    }
    bits = gateway->deaths;
    memset(&gateway->deaths, 0, sizeof gateway->deaths);
    bits_each(gateway, &bits, death_serve);
    if (pls_inbox_take_owed(gateway->inbox, &bits)) {
        bits_each(gateway, &bits, pls_gate_link_owed);
    }
    pls_views_sweep(gateway->views);
}

static void turn(pls_gateway *gateway)
{
    uint32_t count = records_take(gateway, TURN_RECORDS_MAX);
    bells_serve(gateway);
    if (count == TURN_RECORDS_MAX || !pls_inbox_arm(gateway->inbox)) {
        again_soon(gateway);
    }
}

static void bell_rang(pls_watch *watch, uint32_t events)
{
    pls_gateway *gateway = watch->owner;
    pls_inbox_disarm(gateway->inbox, true);
    turn(gateway);
}

static void again_rang(pls_alarm *alarm)
{
    pls_gateway *gateway = alarm->owner;
    pls_inbox_disarm(gateway->inbox, false);
    turn(gateway);
}

static pls_err memory_create(pls_gateway *gateway)
{
    pls_err err = pls_inbox_create(PLS_NODE_SLOT, PLS_GATE_EPOCH, &gateway->inbox);
    if (err != PLS_OK) {
        return err;
    }
    uint64_t budget = gateway->node->settings.options.memory_budget_bytes;
    if (budget == 0) {
        budget = (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE) / 4;
    }
    pls_arena_config config = {.budget_bytes =
                                   budget < MEMORY_BYTES_MIN ? MEMORY_BYTES_MIN : budget,
                               .publish = segment_publish,
                               .retire = segment_retire,
                               .context = gateway};
    err = pls_arena_create(gateway->inbox, &config, &gateway->arena);
    return err == PLS_OK ? pls_views_create(segment_resolve, gateway, &gateway->views) : err;
}

pls_err pls_gateway_create(pls_node *node, pls_gateway **gateway_out)
{
    static const pls_net_gate gate = {.peer_up = pls_gate_peer_up,
                                      .peer_gone = pls_gate_peer_gone,
                                      .message = pls_gate_in_message,
                                      .reserve = pls_gate_in_reserve,
                                      .abandon = pls_gate_in_abandon,
                                      .room = pls_gate_peer_room};
    pls_gateway *gateway = calloc(1, sizeof *gateway);
    if (gateway == NULL) {
        return PLS_ENOMEM;
    }
    gateway->node = node;
    gateway->bell = (pls_watch){.fd = -1, .ready = bell_rang, .owner = gateway};
    gateway->again = (pls_alarm){.ring = again_rang, .owner = gateway};
    gateway->trusted = node->settings.options.cluster_key != NULL ||
                       node->settings.options.cluster_key_file != NULL;
    node->directory->header.has_key = gateway->trusted;
    pls_gate_table_init(&gateway->routes, PLS_GATE_ROUTES_MAX);
    pls_gate_table_init(&gateway->asks, PLS_GATE_CALLS_MAX);
    pls_gate_table_init(&gateway->serves, PLS_GATE_CALLS_MAX);
    pls_clock_init(&gateway->clock);
    pls_err err = memory_create(gateway);
    if (err == PLS_OK) {
        err =
            pls_loop_watch(node->loop, &gateway->bell, pls_inbox_eventfd(gateway->inbox), EPOLLIN);
    }
    if (err != PLS_OK) {
        pls_gateway_destroy(gateway);
        return err;
    }
    pls_net_gate_set(node->net, &gate, gateway);
    again_soon(gateway);
    *gateway_out = gateway;
    return PLS_OK;
}

static void peers_free(pls_gateway *gateway)
{
    while (gateway->peers != NULL) {
        pls_gate_peer *peer = gateway->peers;
        gateway->peers = peer->next;
        while (peer->pending.count > 0) {
            free(pls_gate_queue_pop(&peer->pending));
        }
        free(peer);
    }
}

void pls_gateway_destroy(pls_gateway *gateway)
{
    if (gateway == NULL) {
        return;
    }
    peers_free(gateway);
    pls_loop_alarm_clear(gateway->node->loop, &gateway->again);
    (void)pls_loop_unwatch(gateway->node->loop, &gateway->bell);
    for (uint32_t slot = 0; gateway->inbox != NULL && slot < PLS_SLOTS_MAX; slot++) {
        if (gateway->links[slot].stalled) {
            pls_gate_record_drop(gateway, &gateway->links[slot].record);
            free((void *)(uintptr_t)gateway->links[slot].record.bytes);
        }
        pls_gate_link_close(gateway, slot);
    }
    pls_gate_debts_forget_slot(gateway, PLS_SLOTS_MAX);
    pls_gate_table_fini(&gateway->routes);
    pls_gate_table_fini(&gateway->asks);
    pls_gate_table_fini(&gateway->serves);
    pls_views_destroy(gateway->views);
    pls_arena_destroy(gateway->arena);
    pls_segments_fini(&gateway->segments);
    pls_inbox_destroy(gateway->inbox);
    free(gateway);
}

int pls_gateway_inbox_fd(const pls_gateway *gateway)
{
    return pls_inbox_memfd(gateway->inbox);
}

int pls_gateway_bell_fd(const pls_gateway *gateway)
{
    return pls_inbox_eventfd(gateway->inbox);
}

int pls_gateway_segment(const pls_gateway *gateway, uint32_t segment)
{
    return pls_segments_get(&gateway->segments, segment);
}

void pls_gateway_client_dead(pls_gateway *gateway, const pls_client *client)
{
    gateway->deaths.word[client->slot / 64] |= UINT64_C(1) << (client->slot % 64);
    again_soon(gateway);
}
