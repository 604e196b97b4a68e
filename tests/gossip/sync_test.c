/* SPDX-License-Identifier: Apache-2.0 */
/* Joining, leaving, anti-entropy and healing among a few nodes. */
#include "gossip/state.h"
#include "tests/check_run.h"
#include "tests/gossip/rig.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

START_TEST(test_nodes_that_join_through_one_seed_see_each_other)
{
    rig *r = rig_create();
    rig_join(r, 20);
    rig_run(r, 2 * RIG_SECOND);
    ck_assert(rig_agrees(r));
    for (uint32_t i = 0; i < 20; i++) {
        for (uint32_t j = 0; j < 20; j++) {
            ck_assert_uint_eq(rig_events(r, i, PLS_EVENT_JOINED, j), i != j);
        }
    }
    rig_destroy(r);
}
END_TEST

START_TEST(test_nothing_is_sent_before_join)
{
    rig *r = rig_create();
    rig_start(r, 0, 1);
    ck_assert_uint_eq(pls_gossip_deadline(r->nodes[0]), UINT64_MAX);
    ck_assert_int_eq(pls_gossip_advance(r->nodes[0], r->now_ns + 100 * RIG_SECOND), PLS_OK);
    pls_action action;
    ck_assert_int_eq(pls_gossip_next_action(r->nodes[0], &action), PLS_EEMPTY);
    rig_destroy(r);
}
END_TEST

START_TEST(test_seed_arguments_are_checked)
{
    rig *r = rig_create();
    static char big[PLS_ADDRESS_BYTES_MAX + 1];
    pls_seed many[PLS_SEEDS_MAX + 1];
    rig_start(r, 0, 1);
    for (uint32_t i = 0; i <= PLS_SEEDS_MAX; i++) {
        many[i] = (pls_seed){"a9", 2};
    }
    pls_gossip *g = r->nodes[0];
    ck_assert_int_eq(pls_gossip_join(g, &(pls_seed){"", 0}, 1, r->now_ns), PLS_EINVAL);
    ck_assert_int_eq(pls_gossip_join(g, &(pls_seed){big, sizeof big}, 1, r->now_ns), PLS_EINVAL);
    ck_assert_int_eq(pls_gossip_join(g, many, PLS_SEEDS_MAX + 1, r->now_ns), PLS_EFULL);
    ck_assert_int_eq(pls_gossip_join(g, many, PLS_SEEDS_MAX, r->now_ns), PLS_OK);
    ck_assert_int_eq(pls_gossip_join(g, many, 1, r->now_ns), PLS_EFULL);
    ck_assert_int_eq(pls_gossip_leave(g, r->now_ns), PLS_OK);
    ck_assert_int_eq(pls_gossip_join(g, many, 0, r->now_ns), PLS_ECLOSED);
    rig_destroy(r);
}
END_TEST

START_TEST(test_dead_seed_is_tried_each_second_until_it_lives)
{
    rig *r = rig_create();
    pls_seed seed = {"a0", 2};
    rig_start(r, 1, 1);
    ck_assert_int_eq(pls_gossip_join(r->nodes[1], &seed, 1, r->now_ns), PLS_OK);
    rig_drain(r, 1);
    rig_run(r, 10 * RIG_SECOND);
    ck_assert_uint_eq(rig_counters(r, 1).seed_retries, 10);
    rig_start(r, 0, 1);
    ck_assert_int_eq(pls_gossip_join(r->nodes[0], NULL, 0, r->now_ns), PLS_OK);
    rig_run(r, 2 * RIG_SECOND);
    ck_assert(rig_agrees(r));
    rig_run(r, 300 * RIG_SECOND);
    ck_assert_uint_le(rig_counters(r, 1).seed_retries, 11);
    rig_destroy(r);
}
END_TEST

START_TEST(test_joiner_asks_for_connections)
{
    rig *r = rig_create();
    pls_seed seeds[] = {{"a7", 2}, {"a0", 2}, {"a8", 2}};
    pls_action action;
    rig_start(r, 0, 1);
    ck_assert_int_eq(pls_gossip_join(r->nodes[0], seeds, 3, r->now_ns), PLS_OK);
    uint32_t connects = 0;
    uint32_t sends = 0;
    while (pls_gossip_next_action(r->nodes[0], &action) == PLS_OK) {
        connects += action.kind == PLS_ACTION_CONNECT;
        sends += action.kind == PLS_ACTION_SEND;
        ck_assert_uint_eq(action.member, PLS_MEMBER_NONE);
        ck_assert_mem_ne(action.address, "a0", 2);
    }
    /* My own address is no seed. */
    ck_assert_uint_eq(connects, 2);
    ck_assert_uint_eq(sends, 2);
    rig_destroy(r);
}
END_TEST

START_TEST(test_leave_is_seen_by_all_as_left_within_a_period)
{
    rig *r = rig_create();
    rig_warm(r, 12);
    ck_assert_int_eq(pls_gossip_leave(r->nodes[3], r->now_ns), PLS_OK);
    ck_assert_int_eq(pls_gossip_leave(r->nodes[3], r->now_ns), PLS_OK);
    rig_drain(r, 3);
    rig_run(r, RIG_SECOND);
    for (uint32_t i = 0; i < 12; i++) {
        ck_assert(i == 3 || rig_events(r, i, PLS_EVENT_LEFT, 3) == 1);
    }
    rig_run(r, 3 * RIG_SECOND);
    ck_assert_uint_eq(rig_events(r, 3, PLS_EVENT_LEFT, 3), 1);
    rig_stop(r, 3);
    rig_run(r, 40 * RIG_SECOND);
    ck_assert_uint_eq(rig_events_all(r, PLS_EVENT_DEAD), 0);
    ck_assert_uint_eq(rig_events_all(r, PLS_EVENT_SUSPECT), 0);
    rig_destroy(r);
}
END_TEST

START_TEST(test_leave_of_a_node_alone_is_over_at_once)
{
    rig *r = rig_create();
    rig_warm(r, 1);
    ck_assert_int_eq(pls_gossip_leave(r->nodes[0], r->now_ns), PLS_OK);
    rig_drain(r, 0);
    ck_assert_uint_eq(rig_events(r, 0, PLS_EVENT_LEFT, 0), 1);
    rig_destroy(r);
}
END_TEST

START_TEST(test_leave_ends_a_suspicion_as_left)
{
    rig *r = rig_create();
    rig_warm(r, 5);
    pls_message m = {
        .kind = PLS_WIRE_SUSPECT, .key = rig_key(r, 3), .incarnation = 1, .accuser = 9};
    rig_say(r, 1, 0, &m);
    ck_assert_int_eq(pls_gossip_leave(r->nodes[3], r->now_ns), PLS_OK);
    rig_drain(r, 3);
    rig_run(r, 2 * RIG_SECOND);
    for (uint32_t i = 0; i < 5; i++) {
        ck_assert(i == 3 || rig_state(r, i, 3) == PLS_MEMBER_LEFT);
    }
    rig_destroy(r);
}
END_TEST

START_TEST(test_digest_closes_a_difference_that_gossip_missed)
{
    rig *r = rig_create();
    rig_warm(r, 6);
    /* Node 5 alone learns of two members, and nobody gossips it. */
    rig_start(r, 6, 1);
    ck_assert_int_eq(pls_gossip_join(r->nodes[6], NULL, 0, r->now_ns), PLS_OK);
    pls_identity identity = pls_identities_get(r->pool, r->members[6]);
    ck_assert_int_eq(pls_gossip_learn(r->nodes[5], &identity, 4, r->now_ns), PLS_OK);
    rig_drain(r, 5);
    ck_assert_uint_eq(pls_gossip_look(r->nodes[5]).queue_count, 0);
    rig_run(r, 4 * RIG_SECOND);
    ck_assert_int_eq(rig_state(r, 0, 6), PLS_MEMBER_ALIVE);
    ck_assert(rig_agrees(r));
    ck_assert_uint_gt(pls_gossip_look(r->nodes[6]).incarnation, 4);
    rig_destroy(r);
}
END_TEST

START_TEST(test_equal_tables_exchange_nothing)
{
    rig *r = rig_create();
    rig_warm(r, 10);
    rig_run(r, 60 * RIG_SECOND);
    for (uint32_t i = 0; i < 10; i++) {
        pls_gossip_counters c = rig_counters(r, i);
        ck_assert_uint_eq(c.digests_different, 0);
        ck_assert_uint_eq(c.trees_sent + c.lists_sent, 0);
        ck_assert_uint_ge(c.digests_equal, 30);
    }
    /* A ping and an ack a second for each node. */
    ck_assert_uint_ge(r->packets_sent, 1190);
    ck_assert_uint_le(r->packets_sent, 1210);
    rig_destroy(r);
}
END_TEST

START_TEST(test_accusation_in_a_listing_is_forwarded_and_not_adopted)
{
    rig *r = rig_create();
    uint8_t body[64];
    uint8_t buckets[1] = {0};
    rig_warm(r, 3);
    pls_list_entry entry = {rig_key(r, 1), 1, 0, 0, PLS_WIRE_STATE_DEAD};
    pls_writer w = pls_writer_into(body, sizeof body);
    pls_list_entry_write(&w, &entry);
    pls_message list = {.kind = PLS_WIRE_LIST,
                        .bucket_count = PLS_BUCKETS_MIN,
                        .buckets = buckets,
                        .body = body,
                        .body_bytes = (uint32_t)pls_writer_len(&w)};
    rig_say(r, 2, 0, &list);
    ck_assert_int_eq(rig_state(r, 0, 1), PLS_MEMBER_ALIVE);
    ck_assert_uint_eq(rig_counters(r, 0).accusations_forwarded, 1);
    ck_assert_uint_eq(rig_under_way(r, 1, PLS_WIRE_ACCUSE), 1);
    /* The same again within the interval says nothing new to the accused. */
    rig_say(r, 2, 0, &list);
    ck_assert_uint_eq(rig_under_way(r, 1, PLS_WIRE_ACCUSE), 1);
    rig_run(r, RIG_SECOND);
    ck_assert_uint_eq(rig_incarnation(r, 0, 1), 2);
    ck_assert_uint_eq(rig_events_all(r, PLS_EVENT_SUSPECT), 0);
    rig_destroy(r);
}
END_TEST

START_TEST(test_accused_that_does_not_answer_is_suspected_by_my_own_probe)
{
    rig *r = rig_create();
    rig_warm(r, 4);
    rig_stop(r, 1);
    pls_sync_forward(r->nodes[0], r->members[1], 1, rig_key(r, 2));
    ck_assert_int_eq(pls_gossip_advance(r->nodes[0], r->now_ns), PLS_OK);
    rig_drain(r, 0);
    rig_run(r, 900 * RIG_MS);
    ck_assert_int_eq(rig_state(r, 0, 1), PLS_MEMBER_ALIVE);
    rig_run(r, 200 * RIG_MS);
    ck_assert_int_eq(rig_state(r, 0, 1), PLS_MEMBER_SUSPECT);
    rig_destroy(r);
}
END_TEST

static bool lets_side(const rig *r, uint32_t from, uint32_t to)
{
    return (from < r->cut) == (to < r->cut);
}

START_TEST(test_healed_partition_becomes_one_cluster_without_help)
{
    static const uint32_t cuts[] = {1, 4, 7};
    for (size_t i = 0; i < 3; i++) {
        rig *r = rig_create();
        rig_warm(r, 8);
        r->cut = cuts[i];
        r->lets = lets_side;
        rig_run(r, 120 * RIG_SECOND);
        ck_assert_int_eq(rig_state(r, 0, 7), PLS_MEMBER_DEAD);
        r->lets = NULL;
        rig_run(r, 3 * RIG_SECOND);
        ck_assert(rig_agrees(r));
        rig_destroy(r);
    }
}
END_TEST

START_TEST(test_dead_member_that_talks_is_told_and_refutes)
{
    rig *r = rig_create();
    rig_warm(r, 4);
    pls_message dead = {
        .kind = PLS_WIRE_DEAD, .key = rig_key(r, 1), .incarnation = 1, .accuser = 9};
    rig_say(r, 2, 0, &dead);
    pls_queue_remove(&r->nodes[0]->queue, r->members[1]);
    pls_message ping = {.kind = PLS_WIRE_PING, .sequence = 1, .key = rig_key(r, 0)};
    rig_say(r, 1, 0, &ping);
    rig_run(r, 10 * RIG_MS);
    ck_assert_int_eq(rig_state(r, 0, 1), PLS_MEMBER_ALIVE);
    rig_destroy(r);
}
END_TEST

START_TEST(test_restarted_node_is_found_by_a_ping_to_its_old_self)
{
    rig *r = rig_create();
    rig_warm(r, 5);
    rig_stop(r, 2);
    /* It comes back without any seed. */
    rig_start(r, 2, 2);
    ck_assert_int_eq(pls_gossip_join(r->nodes[2], NULL, 0, r->now_ns), PLS_OK);
    rig_run(r, 3 * RIG_SECOND);
    ck_assert(rig_agrees(r));
    ck_assert_uint_eq(rig_counters(r, 0).replaced, 1);
    rig_destroy(r);
}
END_TEST

START_TEST(test_drop_asks_to_close_the_connection_of_a_suspect)
{
    rig *r = rig_create();
    rig_warm(r, 4);
    pls_message m = {
        .kind = PLS_WIRE_SUSPECT, .key = rig_key(r, 1), .incarnation = 1, .accuser = 9};
    uint8_t bytes[PLS_PACKET_BYTES_MIN];
    size_t len = rig_pack(r, 2, &m, bytes);
    ck_assert_int_eq(pls_gossip_receive(r->nodes[0], bytes, len, "a2", 2, r->now_ns), PLS_OK);
    pls_action action;
    uint32_t drops = 0;
    while (pls_gossip_next_action(r->nodes[0], &action) == PLS_OK) {
        drops += action.kind == PLS_ACTION_DROP && action.member == r->members[1];
    }
    ck_assert_uint_eq(drops, 1);
    rig_destroy(r);
}
END_TEST

/* Everything that a cluster does, as one number. */
static uint64_t trace(uint64_t seed)
{
    rig *r = rig_create();
    uint64_t hash = seed;
    r->latency_ns = (1 + seed % 5) * RIG_MS;
    rig_join(r, 8);
    rig_run(r, 5 * RIG_SECOND);
    rig_stop(r, 3);
    rig_run(r, 20 * RIG_SECOND);
    for (uint32_t i = 0; i < r->event_count; i++) {
        const rig_event *e = &r->events[i];
        hash = (hash ^ e->at_ns ^ ((uint64_t)e->node << 40) ^ e->event) * 1099511628211u;
    }
    hash ^= r->packets_sent;
    rig_destroy(r);
    return hash;
}

START_TEST(test_same_seed_gives_the_same_trace)
{
    ck_assert_uint_eq(trace(1), trace(1));
    ck_assert_uint_ne(trace(1), trace(2));
}
END_TEST

START_TEST(test_undrained_actions_are_bounded)
{
    rig *r = rig_create();
    r->config.actions_max = 16;
    rig_start(r, 0, 1);
    ck_assert_int_eq(pls_gossip_join(r->nodes[0], NULL, 0, r->now_ns), PLS_OK);
    for (uint32_t i = 1; i < 30; i++) {
        rig_start(r, i, 1);
        pls_message record = rig_record(r, i, 1);
        uint8_t bytes[PLS_PACKET_BYTES_MIN];
        size_t len = rig_pack(r, 1, &record, bytes);
        ck_assert_int_eq(pls_gossip_receive(r->nodes[0], bytes, len, "a1", 2, r->now_ns), PLS_OK);
    }
    ck_assert_uint_eq(pls_gossip_look(r->nodes[0]).action_count, 16);
    ck_assert_uint_eq(rig_counters(r, 0).dropped_actions, 13);
    ck_assert_uint_eq(pls_gossip_look(r->nodes[0]).alive_count, 30);
    rig_destroy(r);
}
END_TEST

START_TEST(test_configuration_is_checked)
{
    pls_gossip_config config;
    pls_gossip *g = NULL;
    for (int i = 0; i < 12; i++) {
        pls_gossip_config_defaults(&config);
        config.self = (pls_identity){
            .generation = 1, .name = "n", .address = "a", .name_bytes = 1, .address_bytes = 1};
        config.cluster = i == 0 ? NULL : "c";
        config.probe_interval_ns = i == 1 ? 0 : RIG_SECOND;
        config.probe_timeout_ns = i == 2 ? 2 * RIG_SECOND : RIG_SECOND / 2;
        config.indirect_count = i == 3 ? PLS_INDIRECT_MAX + 1 : 3;
        config.suspicion_alpha = i == 4 ? 0 : 4;
        config.packet_bytes = i == 5 ? PLS_PACKET_BYTES_MIN - 1 : PLS_PACKET_BYTES_MIN;
        config.meta_bytes = i == 6 ? PLS_META_BYTES_MAX + 1 : 0;
        config.self.generation = i == 7 ? 0 : 1;
        config.gossip_fanout = i == 8 ? 0 : 3;
        config.members_max = i == 9 ? 0 : 100;
        config.retransmit_mult = i == 10 ? 9 : 4;
        pls_err err = pls_gossip_create(&config, NULL, 0, &g);
        ck_assert_msg(err == (i < 11 ? PLS_EINVAL : PLS_OK), "case %d", i);
    }
    pls_gossip_destroy(g);
    pls_gossip_destroy(NULL);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("gossip.sync");
    TCase *tc = tcase_create("sync");
    suite_add_tcase(suite, tc);
    tcase_add_test(tc, test_nodes_that_join_through_one_seed_see_each_other);
    tcase_add_test(tc, test_nothing_is_sent_before_join);
    tcase_add_test(tc, test_seed_arguments_are_checked);
    tcase_add_test(tc, test_dead_seed_is_tried_each_second_until_it_lives);
    tcase_add_test(tc, test_joiner_asks_for_connections);
    tcase_add_test(tc, test_leave_is_seen_by_all_as_left_within_a_period);
    tcase_add_test(tc, test_leave_of_a_node_alone_is_over_at_once);
    tcase_add_test(tc, test_leave_ends_a_suspicion_as_left);
    tcase_add_test(tc, test_digest_closes_a_difference_that_gossip_missed);
    tcase_add_test(tc, test_equal_tables_exchange_nothing);
    tcase_add_test(tc, test_accusation_in_a_listing_is_forwarded_and_not_adopted);
    tcase_add_test(tc, test_accused_that_does_not_answer_is_suspected_by_my_own_probe);
    tcase_add_test(tc, test_healed_partition_becomes_one_cluster_without_help);
    tcase_add_test(tc, test_dead_member_that_talks_is_told_and_refutes);
    tcase_add_test(tc, test_restarted_node_is_found_by_a_ping_to_its_old_self);
    tcase_add_test(tc, test_drop_asks_to_close_the_connection_of_a_suspect);
    tcase_add_test(tc, test_same_seed_gives_the_same_trace);
    tcase_add_test(tc, test_undrained_actions_are_bounded);
    tcase_add_test(tc, test_configuration_is_checked);
    return check_run(suite);
}
