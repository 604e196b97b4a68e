/* SPDX-License-Identifier: Apache-2.0 */
/* The rig keeps packets in one array ordered by time (an insertion sort: there are few) and always
 * does the earliest thing next, so a test reads like a list of steps. */
#include "tests/gossip/rig.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

rig *rig_create(void)
{
    rig *r = calloc(1, sizeof *r);
    ck_assert_ptr_nonnull(r);
    r->packets = calloc(RIG_PACKETS_MAX, sizeof *r->packets);
    r->events = calloc(RIG_EVENTS_MAX, sizeof *r->events);
    ck_assert_ptr_nonnull(r->packets);
    ck_assert_ptr_nonnull(r->events);
    ck_assert_int_eq(pls_identities_create(NULL, &r->pool), PLS_OK);
    pls_gossip_config_defaults(&r->config);
    r->config.cluster = "test";
    r->latency_ns = RIG_MS;
    r->now_ns = RIG_SECOND;
    for (uint32_t i = 0; i < RIG_NODES_MAX; i++) {
        r->members[i] = PLS_MEMBER_NONE;
    }
    return r;
}

void rig_destroy(rig *r)
{
    for (uint32_t i = 0; i < RIG_NODES_MAX; i++) {
        rig_stop(r, i);
    }
    for (uint32_t i = 0; i < RIG_NODES_MAX; i++) {
        if (r->members[i] != PLS_MEMBER_NONE) {
            pls_identities_release(r->pool, r->members[i]);
        }
    }
    pls_identities_destroy(r->pool);
    free(r->packets);
    free(r->events);
    free(r);
}

void rig_start(rig *r, uint32_t node, uint64_t generation)
{
    char name[16];
    char address[16];
    ck_assert_uint_lt(node, RIG_NODES_MAX);
    ck_assert_ptr_null(r->nodes[node]);
    pls_gossip_config config = r->config;
    config.self.name = name;
    config.self.name_bytes = (uint32_t)snprintf(name, sizeof name, "n%u", node);
    config.self.address = address;
    config.self.address_bytes = (uint32_t)snprintf(address, sizeof address, "a%u", node);
    config.self.generation = generation;
    config.seed = node * 1000 + generation + 1;
    if (r->members[node] != PLS_MEMBER_NONE) {
        pls_identities_release(r->pool, r->members[node]);
    }
    ck_assert_int_eq(pls_identities_acquire(r->pool, &config.self, &r->members[node]), PLS_OK);
    ck_assert_int_eq(pls_gossip_create(&config, r->pool, r->now_ns, &r->nodes[node]), PLS_OK);
    r->node_count = node >= r->node_count ? node + 1 : r->node_count;
}

void rig_stop(rig *r, uint32_t node)
{
    pls_gossip_destroy(r->nodes[node]);
    r->nodes[node] = NULL;
}

static void learn(rig *r, uint32_t node, uint32_t other)
{
    pls_identity identity = pls_identities_get(r->pool, r->members[other]);
    ck_assert_int_eq(pls_gossip_learn(r->nodes[node], &identity, 1, r->now_ns), PLS_OK);
}

void rig_warm(rig *r, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        rig_start(r, i, 1);
        ck_assert_int_eq(pls_gossip_join(r->nodes[i], NULL, 0, r->now_ns), PLS_OK);
    }
    for (uint32_t i = 0; i < count; i++) {
        for (uint32_t j = 0; j < count; j++) {
            if (i != j) {
                learn(r, i, j);
            }
        }
        rig_drain(r, i);
    }
    rig_forget_events(r);
}

void rig_join(rig *r, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        pls_seed seed = {"a0", 2};
        rig_start(r, i, 1);
        ck_assert_int_eq(pls_gossip_join(r->nodes[i], &seed, 1, r->now_ns), PLS_OK);
        rig_drain(r, i);
    }
}

static uint32_t node_at(const rig *r, const pls_action *action)
{
    unsigned node = 0;
    char address[16] = {0};
    ck_assert_uint_lt(action->address_bytes, sizeof address);
    memcpy(address, action->address, action->address_bytes);
    if (sscanf(address, "a%u", &node) != 1) {
        return RIG_NODES_MAX;
    }
    return node;
}

static void packet_push(rig *r, uint32_t from, uint32_t to, const pls_action *action)
{
    r->packets_sent++;
    ck_assert_uint_le(action->len, PLS_PACKET_BYTES_MIN);
    if (to >= RIG_NODES_MAX || (r->lets != NULL && !r->lets(r, from, to))) {
        return;
    }
    ck_assert_uint_lt(r->packet_count, RIG_PACKETS_MAX);
    uint32_t at = r->packet_count++;
    r->packets[at].at_ns = r->now_ns + r->latency_ns;
    r->packets[at].from = from;
    r->packets[at].to = to;
    r->packets[at].len = action->len;
    memcpy(r->packets[at].bytes, action->bytes, action->len);
}

static void event_push(rig *r, uint32_t node, const pls_action *action)
{
    ck_assert_uint_lt(r->event_count, RIG_EVENTS_MAX);
    rig_event *event = &r->events[r->event_count++];
    *event = (rig_event){.at_ns = r->now_ns,
                         .node = node,
                         .kind = action->kind,
                         .event = action->event,
                         .member = action->member,
                         .other = action->other,
                         .incarnation = action->incarnation,
                         .value = action->value};
    if (action->kind == PLS_ACTION_NAME) {
        ck_assert_uint_lt(action->len, sizeof event->name);
        memcpy(event->name, action->bytes, action->len);
    }
}

void rig_drain(rig *r, uint32_t node)
{
    pls_action action;
    pls_gossip_check(r->nodes[node]);
    while (pls_gossip_next_action(r->nodes[node], &action) == PLS_OK) {
        if (action.kind == PLS_ACTION_SEND) {
            packet_push(r, node, node_at(r, &action), &action);
        } else if (action.kind == PLS_ACTION_MEMBER || action.kind == PLS_ACTION_NAME) {
            event_push(r, node, &action);
        }
    }
}

pls_err rig_give(rig *r, uint32_t to, uint32_t from, const void *bytes, size_t len)
{
    char address[16];
    int address_bytes = snprintf(address, sizeof address, "a%u", from);
    pls_err err =
        pls_gossip_receive(r->nodes[to], bytes, len, address, (uint32_t)address_bytes, r->now_ns);
    rig_drain(r, to);
    return err;
}

static void deliver_first(rig *r)
{
    rig_packet packet = r->packets[0];
    memmove(&r->packets[0], &r->packets[1], --r->packet_count * sizeof r->packets[0]);
    r->now_ns = packet.at_ns;
    if (r->nodes[packet.to] != NULL) {
        rig_give(r, packet.to, packet.from, packet.bytes, packet.len);
    }
}

void rig_run(rig *r, uint64_t for_ns)
{
    uint64_t end_ns = r->now_ns + for_ns;
    for (;;) {
        uint64_t next_ns = r->packet_count > 0 ? r->packets[0].at_ns : UINT64_MAX;
        uint32_t who = RIG_NODES_MAX;
        for (uint32_t i = 0; i < r->node_count; i++) {
            if (r->nodes[i] != NULL && pls_gossip_deadline(r->nodes[i]) < next_ns) {
                next_ns = pls_gossip_deadline(r->nodes[i]);
                who = i;
            }
        }
        if (next_ns > end_ns) {
            break;
        }
        if (who == RIG_NODES_MAX) {
            deliver_first(r);
            continue;
        }
        r->now_ns = next_ns > r->now_ns ? next_ns : r->now_ns;
        ck_assert_int_eq(pls_gossip_advance(r->nodes[who], r->now_ns), PLS_OK);
        rig_drain(r, who);
    }
    r->now_ns = end_ns;
}

uint64_t rig_key(const rig *r, uint32_t node)
{
    return pls_identities_get(r->pool, r->members[node]).key;
}

static uint32_t cluster_of_test(void)
{
    uint32_t hash = 2166136261u;
    for (const char *c = "test"; *c != '\0'; c++) {
        hash = (hash ^ (uint8_t)*c) * 16777619u;
    }
    return hash;
}

size_t rig_pack(const rig *r, uint32_t from, const pls_message *message, uint8_t *bytes)
{
    pls_writer w = pls_writer_into(bytes, PLS_PACKET_BYTES_MIN);
    pls_packet_head_write(&w, cluster_of_test(), rig_key(r, from));
    pls_message_write(&w, message);
    ck_assert(!w.bad);
    return pls_writer_len(&w);
}

void rig_say(rig *r, uint32_t from, uint32_t to, const pls_message *message)
{
    uint8_t bytes[PLS_PACKET_BYTES_MIN];
    size_t len = rig_pack(r, from, message, bytes);
    ck_assert_int_eq(rig_give(r, to, from, bytes, len), PLS_OK);
}

pls_message rig_record(const rig *r, uint32_t node, uint64_t incarnation)
{
    pls_message record = {.kind = PLS_WIRE_ALIVE, .incarnation = incarnation};
    record.identity = pls_identities_get(r->pool, r->members[node]);
    return record;
}

pls_member_state rig_state(const rig *r, uint32_t node, uint32_t of)
{
    return pls_gossip_member_state(r->nodes[node], r->members[of]);
}

uint64_t rig_incarnation(const rig *r, uint32_t node, uint32_t of)
{
    pls_member_view view;
    if (pls_gossip_member(r->nodes[node], r->members[of], &view) != PLS_OK) {
        return 0;
    }
    return view.incarnation;
}

uint32_t rig_events(const rig *r, uint32_t node, pls_gossip_event event, uint32_t of)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < r->event_count; i++) {
        count += r->events[i].node == node && r->events[i].event == event &&
                 r->events[i].member == r->members[of];
    }
    return count;
}

uint32_t rig_events_all(const rig *r, pls_gossip_event event)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < r->event_count; i++) {
        count += r->events[i].event == event;
    }
    return count;
}

void rig_forget_events(rig *r)
{
    r->event_count = 0;
}

bool rig_agrees(const rig *r)
{
    uint64_t digest = 0;
    for (uint32_t i = 0; i < r->node_count; i++) {
        if (r->nodes[i] == NULL) {
            continue;
        }
        pls_gossip_view view = pls_gossip_look(r->nodes[i]);
        if (digest != 0 && digest != view.digest) {
            return false;
        }
        digest = view.digest;
        for (uint32_t j = 0; j < r->node_count; j++) {
            if (r->nodes[j] != NULL && rig_state(r, i, j) != PLS_MEMBER_ALIVE) {
                return false;
            }
        }
    }
    return true;
}

uint32_t rig_under_way(const rig *r, uint32_t to, uint32_t kind)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < r->packet_count; i++) {
        pls_packet packet;
        pls_message message;
        if (r->packets[i].to != to ||
            pls_packet_open(r->packets[i].bytes, r->packets[i].len, &packet) != PLS_OK) {
            continue;
        }
        bool found = false;
        while (pls_packet_next(&packet, &message) == PLS_OK) {
            found |= message.kind == kind;
        }
        count += found;
    }
    return count;
}

pls_gossip_counters rig_counters(const rig *r, uint32_t node)
{
    return *pls_gossip_count(r->nodes[node]);
}

pls_err rig_put(rig *r, uint32_t node, const char *name, uint64_t value, bool unique)
{
    pls_err err =
        pls_gossip_name_put(r->nodes[node], name, (uint32_t)strlen(name), value, unique, r->now_ns);
    rig_drain(r, node);
    return err;
}

pls_err rig_remove(rig *r, uint32_t node, const char *name)
{
    pls_err err = pls_gossip_name_remove(r->nodes[node], name, (uint32_t)strlen(name), r->now_ns);
    rig_drain(r, node);
    return err;
}

uint32_t rig_find(const rig *r, uint32_t node, const char *name, pls_name_hit *hit)
{
    return pls_gossip_name_find(r->nodes[node], name, (uint32_t)strlen(name), hit, 1);
}

uint32_t rig_told(const rig *r, uint32_t node, pls_gossip_event event, const char *name)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < r->event_count; i++) {
        count += r->events[i].node == node && r->events[i].event == event &&
                 strcmp(r->events[i].name, name) == 0;
    }
    return count;
}

bool rig_lets_all_but_one(const rig *r, uint32_t from, uint32_t to)
{
    return from != r->cut && to != r->cut;
}
