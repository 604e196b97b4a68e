/* SPDX-License-Identifier: Apache-2.0 */
/* Memory: every allocation may fail, at every place, and the instance stays valid, leaks nothing
 * and goes on when memory is back; and the steady state takes none at all. */
#include "gossip/gossip.h"
#include "gossip/names.h"
#include "gossip/packet.h"
#include "tests/check_run.h"
#include "tests/gossip/meter.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SECOND UINT64_C(1000000000)
#define NODES 5
#define PACKETS_MAX 256

typedef struct packet {
    uint32_t to;
    uint32_t from;
    uint32_t len;
    uint8_t bytes[PLS_PACKET_BYTES_MIN];
} packet;

/* Some nodes whose packets arrive in the next millisecond. */
typedef struct world {
    pls_gossip *nodes[NODES];
    packet *packets;
    uint32_t packet_count;
    uint64_t now_ns;
} world;

static pls_err node_start(world *w, uint32_t node, const pls_allocator *allocator)
{
    char name[8];
    char address[8];
    pls_gossip_config config;
    pls_gossip_config_defaults(&config);
    config.cluster = "memory";
    config.allocator = allocator;
    config.seed = node;
    config.tombstone_keep_ns = 4 * SECOND;
    config.dead_names_keep_ns = SECOND;
    config.self = (pls_identity){.generation = 1, .name = name, .address = address};
    config.self.name_bytes = (uint32_t)snprintf(name, sizeof name, "n%u", node);
    config.self.address_bytes = (uint32_t)snprintf(address, sizeof address, "a%u", node);
    config.meta = "meta";
    config.meta_bytes = 4;
    return pls_gossip_create(&config, NULL, w->now_ns, &w->nodes[node]);
}

static void drain(world *w, uint32_t node)
{
    pls_action action;
    pls_gossip_check(w->nodes[node]);
    while (pls_gossip_next_action(w->nodes[node], &action) == PLS_OK) {
        if (action.kind != PLS_ACTION_SEND || w->packet_count == PACKETS_MAX) {
            continue;
        }
        packet *p = &w->packets[w->packet_count++];
        p->to = (uint32_t)(action.address[1] - '0');
        p->from = node;
        p->len = action.len;
        memcpy(p->bytes, action.bytes, action.len);
    }
}

static void step(world *w)
{
    static packet arriving[PACKETS_MAX];
    uint32_t count = w->packet_count;
    memcpy(arriving, w->packets, count * sizeof *arriving);
    w->packet_count = 0;
    w->now_ns += SECOND / 1000;
    for (uint32_t i = 0; i < count; i++) {
        packet *p = &arriving[i];
        if (p->to < NODES && w->nodes[p->to] != NULL) {
            char from[3] = {'a', (char)('0' + p->from), 0};
            (void)pls_gossip_receive(w->nodes[p->to], p->bytes, p->len, from, 2, w->now_ns);
            drain(w, p->to);
        }
    }
    for (uint32_t i = 0; i < NODES; i++) {
        if (w->nodes[i] != NULL && w->now_ns >= pls_gossip_deadline(w->nodes[i])) {
            (void)pls_gossip_advance(w->nodes[i], w->now_ns);
            drain(w, i);
        }
    }
}

static void run(world *w, uint64_t for_ns)
{
    for (uint64_t end_ns = w->now_ns + for_ns; w->now_ns < end_ns;) {
        step(w);
    }
}

static void names(world *w, uint32_t node)
{
    char name[32];
    for (uint32_t i = 0; i < 40; i++) {
        uint32_t len = (uint32_t)snprintf(name, sizeof name, "node-%u-name-%u", node, i);
        (void)!pls_gossip_name_put(w->nodes[node], name, len, i, i == 0, w->now_ns);
        if (i % 3 == 0) {
            (void)!pls_gossip_name_remove(w->nodes[node], name, len, w->now_ns);
        }
        (void)!pls_gossip_name_watch(w->nodes[node], name, len);
    }
    drain(w, node);
}

/* A life of node 0 whose memory fails: join, names, a death, a leave. Nobody else is harmed. */
static void life(meter *m, bool *whole_out)
{
    pls_allocator allocator = {meter_resize, m};
    pls_seed seed = {"a1", 2};
    world w = {.now_ns = SECOND};
    w.packets = calloc(PACKETS_MAX, sizeof *w.packets);
    ck_assert_ptr_nonnull(w.packets);
    for (uint32_t i = 1; i < NODES; i++) {
        ck_assert_int_eq(node_start(&w, i, NULL), PLS_OK);
        ck_assert_int_eq(pls_gossip_join(w.nodes[i], &seed, 1, w.now_ns), PLS_OK);
        drain(&w, i);
    }
    run(&w, SECOND);
    names(&w, 2);
    *whole_out = false;
    if (node_start(&w, 0, &allocator) == PLS_OK) {
        (void)!pls_gossip_join(w.nodes[0], &seed, 1, w.now_ns);
        drain(&w, 0);
        run(&w, SECOND);
        names(&w, 0);
        (void)!pls_gossip_set_meta(w.nodes[0], "other", 5, w.now_ns);
        drain(&w, 0);
        run(&w, SECOND);
        pls_gossip_destroy(w.nodes[4]);
        w.nodes[4] = NULL;
        run(&w, 9 * SECOND);
        /* Memory is back; within a few exchanges the node knows what the others know. */
        m->fail_from = UINT64_MAX;
        (void)!pls_gossip_join(w.nodes[0], &seed, 1, w.now_ns);
        drain(&w, 0);
        run(&w, 4 * SECOND);
        *whole_out = pls_gossip_look(w.nodes[0]).digest == pls_gossip_look(w.nodes[1]).digest &&
                     pls_gossip_look(w.nodes[0]).alive_count == NODES - 1;
        (void)pls_gossip_leave(w.nodes[0], w.now_ns);
        drain(&w, 0);
        run(&w, SECOND);
        ck_assert_uint_eq(pls_gossip_look(w.nodes[0]).memory_bytes <= m->held_bytes, 1);
    } else {
        ck_assert_uint_gt(m->failed, 0);
    }
    for (uint32_t i = 0; i < NODES; i++) {
        pls_gossip_destroy(w.nodes[i]);
    }
    ck_assert_uint_eq(m->held_bytes, 0);
    free(w.packets);
}

START_TEST(test_every_allocation_may_fail_once)
{
    bool whole = false;
    meter m = {.fail_from = UINT64_MAX};
    life(&m, &whole);
    ck_assert(whole);
    uint64_t calls = m.calls;
    ck_assert_uint_gt(calls, 50);
    for (uint64_t n = 0; n < calls; n++) {
        m = (meter){.fail_from = n, .fail_count = 1};
        life(&m, &whole);
        ck_assert_msg(m.failed == 1, "call %lu was not made", (unsigned long)n);
        /* Before the instance exists nothing can be made good. */
        ck_assert_msg(whole || n < 10, "not whole after failure %lu", (unsigned long)n);
    }
}
END_TEST

START_TEST(test_memory_may_be_gone_for_long)
{
    bool whole = false;
    for (uint64_t n = 10; n < 60; n += 7) {
        meter m = {.fail_from = n, .fail_count = UINT64_MAX};
        life(&m, &whole);
        ck_assert_uint_gt(m.failed, 0);
        ck_assert_msg(whole, "not whole after failures from %lu on", (unsigned long)n);
    }
}
END_TEST

START_TEST(test_steady_state_takes_no_memory)
{
    meter m = {.fail_from = UINT64_MAX};
    pls_allocator allocator = {meter_resize, &m};
    pls_seed seed = {"a0", 2};
    world w = {.now_ns = SECOND};
    w.packets = calloc(PACKETS_MAX, sizeof *w.packets);
    ck_assert_ptr_nonnull(w.packets);
    for (uint32_t i = 0; i < NODES; i++) {
        ck_assert_int_eq(node_start(&w, i, &allocator), PLS_OK);
        ck_assert_int_eq(pls_gossip_join(w.nodes[i], &seed, 1, w.now_ns), PLS_OK);
        drain(&w, i);
    }
    run(&w, 10 * SECOND);
    uint64_t calls = m.calls;
    run(&w, 60 * SECOND);
    ck_assert_uint_eq(m.calls, calls);
    for (uint32_t i = 0; i < NODES; i++) {
        pls_gossip_destroy(w.nodes[i]);
    }
    ck_assert_uint_eq(m.held_bytes, 0);
    free(w.packets);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("gossip.memory");
    TCase *tc = tcase_create("memory");
    suite_add_tcase(suite, tc);
    tcase_set_timeout(tc, 110);
    tcase_add_test(tc, test_every_allocation_may_fail_once);
    tcase_add_test(tc, test_memory_may_be_gone_for_long);
    tcase_add_test(tc, test_steady_state_takes_no_memory);
    return check_run(suite);
}
