/* SPDX-License-Identifier: Apache-2.0 */
/* Scenarios 6, 10, 11 and the hints: the failure detector step by step. */
#include "gossip/state.h"
#include "tests/check_run.h"
#include "tests/gossip/rig.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static pls_message suspect(const rig *r, uint32_t subject, uint64_t accuser)
{
    return (pls_message){
        .kind = PLS_WIRE_SUSPECT, .key = rig_key(r, subject), .incarnation = 1, .accuser = accuser};
}

static pls_member_view view_of(const rig *r, uint32_t node, uint32_t of)
{
    pls_member_view view;
    ck_assert_int_eq(pls_gossip_member(r->nodes[node], r->members[of], &view), PLS_OK);
    return view;
}

START_TEST(test_06_independent_confirmations_shrink_the_suspicion)
{
    rig *r = rig_create();
    rig_warm(r, 10);
    uint64_t start_ns = r->now_ns;
    pls_message m = suspect(r, 1, 100);
    rig_say(r, 2, 0, &m);
    ck_assert_uint_eq(view_of(r, 0, 1).suspicion_deadline_ns, start_ns + 24 * RIG_SECOND);
    /* The first accuser again, or a repeated one, is no news. */
    rig_say(r, 2, 0, &m);
    ck_assert_uint_eq(view_of(r, 0, 1).confirmations, 0);
    m = suspect(r, 1, 101);
    rig_say(r, 2, 0, &m);
    rig_say(r, 2, 0, &m);
    ck_assert_uint_eq(view_of(r, 0, 1).confirmations, 1);
    /* 24 - 20 * ln 2 / ln 3 = 11.38 s */
    uint64_t one_ns = view_of(r, 0, 1).suspicion_deadline_ns - start_ns;
    ck_assert_uint_ge(one_ns, 11381 * RIG_MS);
    ck_assert_uint_le(one_ns, 11382 * RIG_MS);
    m = suspect(r, 1, 102);
    rig_say(r, 2, 0, &m);
    ck_assert_uint_eq(view_of(r, 0, 1).confirmations, 2);
    ck_assert_uint_eq(view_of(r, 0, 1).suspicion_deadline_ns, start_ns + 4 * RIG_SECOND);
    /* k = alpha - 2 are enough. */
    m = suspect(r, 1, 103);
    rig_say(r, 2, 0, &m);
    ck_assert_uint_eq(view_of(r, 0, 1).confirmations, 2);
    ck_assert_uint_eq(rig_counters(r, 0).confirmations, 2);
    rig_destroy(r);
}
END_TEST

START_TEST(test_06_late_confirmation_fires_at_once)
{
    rig *r = rig_create();
    r->config.idle_rule = false;
    rig_warm(r, 10);
    pls_message m = suspect(r, 1, 100);
    rig_say(r, 2, 0, &m);
    m = suspect(r, 1, 101);
    rig_say(r, 2, 0, &m);
    r->now_ns += 6 * RIG_SECOND;
    m = suspect(r, 1, 102);
    rig_say(r, 2, 0, &m);
    ck_assert_int_eq(rig_state(r, 0, 1), PLS_MEMBER_SUSPECT);
    ck_assert_uint_le(view_of(r, 0, 1).suspicion_deadline_ns, r->now_ns);
    ck_assert_uint_le(pls_gossip_deadline(r->nodes[0]), r->now_ns);
    ck_assert_int_eq(pls_gossip_advance(r->nodes[0], r->now_ns), PLS_OK);
    ck_assert_int_eq(rig_state(r, 0, 1), PLS_MEMBER_DEAD);
    ck_assert_uint_eq(rig_counters(r, 0).suspicions_expired, 1);
    rig_destroy(r);
}
END_TEST

START_TEST(test_06_plain_suspicion_lasts_the_minimum)
{
    rig *r = rig_create();
    r->config.lha_suspicion = false;
    rig_warm(r, 10);
    pls_message m = suspect(r, 1, 100);
    rig_say(r, 2, 0, &m);
    ck_assert_uint_eq(view_of(r, 0, 1).suspicion_deadline_ns, r->now_ns + 4 * RIG_SECOND);
    m = suspect(r, 1, 101);
    rig_say(r, 2, 0, &m);
    ck_assert_uint_eq(view_of(r, 0, 1).confirmations, 0);
    rig_destroy(r);
}
END_TEST

START_TEST(test_06_few_members_cannot_confirm)
{
    rig *r = rig_create();
    rig_warm(r, 3);
    pls_message m = suspect(r, 1, 100);
    rig_say(r, 2, 0, &m);
    ck_assert_uint_eq(view_of(r, 0, 1).suspicion_deadline_ns, r->now_ns + 4 * RIG_SECOND);
    rig_destroy(r);
}
END_TEST

/* Whom node 0 pinged in its scheduled probes, in order. */
static uint32_t scheduled_targets(rig *r, uint32_t passes, uint32_t *targets, uint32_t max)
{
    uint32_t count = 0;
    pls_walk walk = r->nodes[0]->probes.walk;
    while (passes > 0 && count < max) {
        pls_member member = pls_walk_next(r->nodes[0], &walk, PLS_PICK_ALIVE | PLS_PICK_SUSPECT);
        ck_assert_uint_ne(member, PLS_MEMBER_NONE);
        for (uint32_t i = 0; i < r->node_count; i++) {
            if (r->members[i] == member) {
                targets[count++] = i;
            }
        }
        passes--;
    }
    return count;
}

START_TEST(test_10_every_member_is_probed_once_in_a_pass)
{
    rig *r = rig_create();
    rig_warm(r, 20);
    for (uint32_t pass = 0; pass < 50; pass++) {
        uint32_t targets[19];
        uint32_t seen[20] = {0};
        ck_assert_uint_eq(scheduled_targets(r, 19, targets, 19), 19);
        for (uint32_t i = 0; i < 19; i++) {
            seen[targets[i]]++;
            pls_walk_next(r->nodes[0], &r->nodes[0]->probes.walk, PLS_PICK_ALIVE);
        }
        ck_assert_uint_eq(seen[0], 0);
        for (uint32_t i = 1; i < 20; i++) {
            ck_assert_uint_eq(seen[i], 1);
        }
    }
    rig_destroy(r);
}
END_TEST

START_TEST(test_10_passes_differ)
{
    rig *r = rig_create();
    rig_warm(r, 20);
    uint32_t first[19];
    uint32_t second[19];
    scheduled_targets(r, 19, first, 19);
    for (uint32_t i = 0; i < 19; i++) {
        pls_walk_next(r->nodes[0], &r->nodes[0]->probes.walk, PLS_PICK_ALIVE);
    }
    scheduled_targets(r, 19, second, 19);
    ck_assert_mem_ne(first, second, sizeof first);
    rig_destroy(r);
}
END_TEST

START_TEST(test_10_new_member_is_probed_by_the_end_of_the_next_pass)
{
    rig *r = rig_create();
    rig_warm(r, 20);
    pls_walk *walk = &r->nodes[0]->probes.walk;
    for (uint32_t i = 0; i < 7; i++) {
        pls_walk_next(r->nodes[0], walk, PLS_PICK_ALIVE);
    }
    rig_start(r, 20, 1);
    pls_message record = rig_record(r, 20, 1);
    rig_say(r, 1, 0, &record);
    uint32_t met = 0;
    for (uint32_t i = 0; i < 12 + 20; i++) {
        met += pls_walk_next(r->nodes[0], walk, PLS_PICK_ALIVE) == r->members[20];
    }
    ck_assert_uint_ge(met, 1);
    ck_assert_uint_le(met, 2);
    rig_destroy(r);
}
END_TEST

START_TEST(test_10_dead_member_is_never_probed)
{
    rig *r = rig_create();
    rig_warm(r, 8);
    pls_message dead = suspect(r, 3, 100);
    dead.kind = PLS_WIRE_DEAD;
    rig_say(r, 1, 0, &dead);
    for (uint32_t i = 0; i < 100; i++) {
        pls_member member = pls_walk_next(r->nodes[0], &r->nodes[0]->probes.walk,
                                          PLS_PICK_ALIVE | PLS_PICK_SUSPECT);
        ck_assert_uint_ne(member, r->members[3]);
        ck_assert_uint_ne(member, r->members[0]);
    }
    rig_destroy(r);
}
END_TEST

START_TEST(test_10_alone_nobody_is_probed)
{
    rig *r = rig_create();
    rig_warm(r, 1);
    rig_run(r, 10 * RIG_SECOND);
    ck_assert_uint_eq(rig_counters(r, 0).packets_sent, 0);
    rig_destroy(r);
}
END_TEST

START_TEST(test_11_ping_to_a_suspect_carries_the_suspicion)
{
    rig *r = rig_create();
    rig_warm(r, 2);
    pls_message m = suspect(r, 1, 100);
    uint8_t bytes[PLS_PACKET_BYTES_MIN];
    size_t len = rig_pack(r, 1, &m, bytes);
    ck_assert_int_eq(pls_gossip_receive(r->nodes[0], bytes, len, "a1", 2, r->now_ns), PLS_OK);
    pls_action action;
    while (pls_gossip_next_action(r->nodes[0], &action) == PLS_OK) {
    }
    /* The gossip of it is taken away: only the ping is left to say it. */
    pls_queue_remove(&r->nodes[0]->queue, r->members[1]);
    rig_run(r, RIG_SECOND + 10 * RIG_MS);
    ck_assert_uint_ge(rig_counters(r, 0).buddies, 1);
    ck_assert_uint_eq(pls_gossip_look(r->nodes[1]).incarnation, 2);
    ck_assert_int_eq(rig_state(r, 0, 1), PLS_MEMBER_ALIVE);
    rig_destroy(r);
}
END_TEST

START_TEST(test_11_without_buddy_the_ping_does_not_carry_it)
{
    rig *r = rig_create();
    r->config.buddy = false;
    rig_warm(r, 2);
    pls_message m = suspect(r, 1, 100);
    rig_say(r, 1, 0, &m);
    pls_queue_remove(&r->nodes[0]->queue, r->members[1]);
    rig_run(r, RIG_SECOND + 10 * RIG_MS);
    ck_assert_uint_eq(rig_counters(r, 0).buddies, 0);
    ck_assert_uint_eq(pls_gossip_look(r->nodes[1]).incarnation, 1);
    rig_destroy(r);
}
END_TEST

/* Node 0 probes node 1, which is stopped; nodes 2 to 4 help, or are stopped too. */
static uint32_t awareness_after_failed_probe(uint32_t helpers, bool lha_probe)
{
    rig *r = rig_create();
    r->config.lha_probe = lha_probe;
    rig_warm(r, 5);
    for (uint32_t i = 1; i < 5; i++) {
        if (i == 1 || i > 1 + helpers) {
            rig_stop(r, i);
        }
    }
    /* An extra probe does not count; the schedule's does. Run until it has met node 1. */
    while (rig_counters(r, 0).probes_failed == 0) {
        r->nodes[0]->probes.walk.at = 0;
        while (true) {
            pls_walk ahead = r->nodes[0]->probes.walk;
            pls_member next = pls_walk_next(r->nodes[0], &ahead, PLS_PICK_ALIVE | PLS_PICK_SUSPECT);
            if (next == r->members[1]) {
                break;
            }
            r->nodes[0]->probes.walk = ahead;
        }
        rig_run(r, 2 * RIG_SECOND);
    }
    uint32_t nacks = (uint32_t)rig_counters(r, 0).nacks_received;
    ck_assert_uint_eq(nacks, lha_probe ? helpers : 0);
    uint32_t awareness = r->nodes[0]->probes.awareness;
    rig_destroy(r);
    return awareness;
}

START_TEST(test_11_missed_nacks_raise_the_score_by_their_number)
{
    ck_assert_uint_eq(awareness_after_failed_probe(3, true), 0);
    ck_assert_uint_eq(awareness_after_failed_probe(2, true), 1);
    ck_assert_uint_eq(awareness_after_failed_probe(1, true), 2);
    ck_assert_uint_eq(awareness_after_failed_probe(0, true), 3);
    ck_assert_uint_eq(awareness_after_failed_probe(0, false), 0);
}
END_TEST

START_TEST(test_11_nack_comes_before_the_deadline)
{
    rig *r = rig_create();
    rig_warm(r, 3);
    rig_stop(r, 1);
    pls_message ask = {.kind = PLS_WIRE_PING_INDIRECT, .sequence = 7, .key = rig_key(r, 1)};
    rig_say(r, 0, 2, &ask);
    rig_run(r, 399 * RIG_MS);
    ck_assert_uint_eq(rig_counters(r, 2).nacks_sent, 0);
    rig_run(r, RIG_MS);
    ck_assert_uint_eq(rig_counters(r, 2).nacks_sent, 1);
    rig_destroy(r);
}
END_TEST

START_TEST(test_11_indirect_ack_saves_a_probe)
{
    rig *r = rig_create();
    rig_warm(r, 4);
    ck_assert_int_eq(pls_gossip_disconnected(r->nodes[0], r->members[1], r->now_ns), PLS_OK);
    pls_action action;
    while (pls_gossip_next_action(r->nodes[0], &action) == PLS_OK) {
        /* The direct ping is lost. */
    }
    rig_run(r, 999 * RIG_MS);
    ck_assert_uint_ge(rig_counters(r, 0).indirects_sent, 2);
    ck_assert_uint_eq(rig_counters(r, 0).probes_failed, 0);
    ck_assert_int_eq(rig_state(r, 0, 1), PLS_MEMBER_ALIVE);
    rig_destroy(r);
}
END_TEST

START_TEST(test_late_answer_begins_the_suspicion_anew_and_raises_the_score)
{
    rig *r = rig_create();
    rig_warm(r, 10);
    ck_assert_int_eq(pls_gossip_disconnected(r->nodes[0], r->members[1], r->now_ns), PLS_OK);
    uint32_t sequence = r->nodes[0]->probes.items[0].sequence;
    rig_drain(r, 0);
    rig_stop(r, 1);
    rig_run(r, 3 * RIG_SECOND);
    ck_assert_int_eq(rig_state(r, 0, 1), PLS_MEMBER_SUSPECT);
    uint64_t before_ns = view_of(r, 0, 1).suspicion_deadline_ns;
    uint32_t score = r->nodes[0]->probes.awareness;
    pls_message ack = {.kind = PLS_WIRE_ACK, .sequence = sequence};
    rig_say(r, 1, 0, &ack);
    ck_assert_uint_eq(rig_counters(r, 0).acks_late, 1);
    ck_assert_uint_gt(view_of(r, 0, 1).suspicion_deadline_ns, before_ns);
    ck_assert_uint_eq(r->nodes[0]->probes.awareness, score + 1);
    /* The same answer twice is one. */
    before_ns = view_of(r, 0, 1).suspicion_deadline_ns;
    rig_run(r, 10 * RIG_MS);
    rig_say(r, 1, 0, &ack);
    ck_assert_uint_eq(rig_counters(r, 0).acks_late, 1);
    ck_assert_uint_eq(view_of(r, 0, 1).suspicion_deadline_ns, before_ns);
    rig_destroy(r);
}
END_TEST

START_TEST(test_score_scales_interval_and_timeout)
{
    rig *r = rig_create();
    rig_warm(r, 4);
    r->nodes[0]->probes.awareness = 3;
    ck_assert_int_eq(pls_gossip_disconnected(r->nodes[0], r->members[1], r->now_ns), PLS_OK);
    const pls_probe *probe = &r->nodes[0]->probes.items[0];
    ck_assert_uint_eq(probe->timeout_ns, r->now_ns + 2 * RIG_SECOND);
    ck_assert_uint_eq(probe->deadline_ns, r->now_ns + 4 * RIG_SECOND);
    rig_destroy(r);
}
END_TEST

START_TEST(test_score_stays_within_its_bounds)
{
    rig *r = rig_create();
    rig_warm(r, 2);
    pls_probes_aware(r->nodes[0], -5);
    ck_assert_uint_eq(r->nodes[0]->probes.awareness, 0);
    pls_probes_aware(r->nodes[0], 100);
    ck_assert_uint_eq(r->nodes[0]->probes.awareness, 7);
    rig_destroy(r);
}
END_TEST

START_TEST(test_hint_disconnected_probes_now_and_kills_nobody)
{
    rig *r = rig_create();
    rig_warm(r, 4);
    ck_assert_int_eq(pls_gossip_disconnected(r->nodes[0], r->members[1], r->now_ns), PLS_OK);
    rig_drain(r, 0);
    ck_assert_uint_eq(rig_under_way(r, 1, PLS_WIRE_PING), 1);
    rig_run(r, 2 * RIG_SECOND);
    ck_assert_int_eq(rig_state(r, 0, 1), PLS_MEMBER_ALIVE);
    ck_assert_uint_eq(rig_events_all(r, PLS_EVENT_SUSPECT), 0);
    /* Nobody, myself and the unknown do no harm. */
    ck_assert_int_eq(pls_gossip_disconnected(r->nodes[0], PLS_MEMBER_NONE, r->now_ns), PLS_OK);
    ck_assert_int_eq(pls_gossip_disconnected(r->nodes[0], r->members[0], r->now_ns), PLS_OK);
    ck_assert_int_eq(pls_gossip_refused(r->nodes[0], 12345, r->now_ns), PLS_OK);
    rig_destroy(r);
}
END_TEST

START_TEST(test_hint_refused_ends_in_death_after_one_interval)
{
    rig *r = rig_create();
    rig_warm(r, 8);
    rig_stop(r, 1);
    ck_assert_int_eq(pls_gossip_refused(r->nodes[0], r->members[1], r->now_ns), PLS_OK);
    rig_drain(r, 0);
    ck_assert_int_eq(rig_state(r, 0, 1), PLS_MEMBER_SUSPECT);
    rig_run(r, 999 * RIG_MS);
    ck_assert_int_eq(rig_state(r, 0, 1), PLS_MEMBER_SUSPECT);
    rig_run(r, 2 * RIG_MS);
    ck_assert_int_eq(rig_state(r, 0, 1), PLS_MEMBER_DEAD);
    rig_destroy(r);
}
END_TEST

START_TEST(test_hint_refused_is_refuted_by_one_that_lives)
{
    rig *r = rig_create();
    rig_warm(r, 8);
    ck_assert_int_eq(pls_gossip_refused(r->nodes[0], r->members[1], r->now_ns), PLS_OK);
    rig_drain(r, 0);
    rig_run(r, 3 * RIG_SECOND);
    ck_assert_uint_eq(rig_events_all(r, PLS_EVENT_DEAD), 0);
    ck_assert_int_eq(rig_state(r, 0, 1), PLS_MEMBER_ALIVE);
    ck_assert_uint_eq(pls_gossip_look(r->nodes[1]).incarnation, 2);
    rig_destroy(r);
}
END_TEST

START_TEST(test_stall_of_my_own_accuses_nobody)
{
    rig *r = rig_create();
    rig_warm(r, 4);
    pls_message m = suspect(r, 1, 100);
    rig_say(r, 2, 0, &m);
    uint64_t deadline_ns = view_of(r, 0, 1).suspicion_deadline_ns;
    ck_assert_int_eq(pls_gossip_disconnected(r->nodes[0], r->members[2], r->now_ns), PLS_OK);
    /* An hour passes in which nobody asks node 0 anything. */
    uint64_t due_ns = pls_gossip_deadline(r->nodes[0]);
    r->now_ns += 3600 * RIG_SECOND;
    ck_assert_int_eq(pls_gossip_advance(r->nodes[0], r->now_ns), PLS_OK);
    rig_drain(r, 0);
    ck_assert_uint_eq(rig_counters(r, 0).stalls, 1);
    ck_assert_uint_eq(rig_events_all(r, PLS_EVENT_DEAD), 0);
    ck_assert_int_eq(rig_state(r, 0, 2), PLS_MEMBER_ALIVE);
    ck_assert_uint_eq(view_of(r, 0, 1).suspicion_deadline_ns, deadline_ns + (r->now_ns - due_ns));
    rig_destroy(r);
}
END_TEST

/* A node that is so slow that a line of packets holds its timers up: each packet comes sooner after
 * the last than a stall is long. */
static void hold_up(rig *r, uint32_t packet_count)
{
    pls_message nack = {.kind = PLS_WIRE_NACK, .sequence = 1};
    for (uint32_t i = 0; i < packet_count; i++) {
        r->now_ns += 200 * RIG_MS;
        rig_say(r, 2, 0, &nack);
    }
    ck_assert_int_eq(pls_gossip_advance(r->nodes[0], r->now_ns), PLS_OK);
}

START_TEST(test_stall_behind_a_line_of_packets_accuses_nobody)
{
    rig *r = rig_create();
    rig_warm(r, 4);
    rig_run(r, 3 * RIG_SECOND);
    pls_message m = suspect(r, 1, 100);
    rig_say(r, 2, 0, &m);
    ck_assert_int_eq(pls_gossip_disconnected(r->nodes[0], r->members[2], r->now_ns), PLS_OK);
    hold_up(r, 300);
    rig_drain(r, 0);
    ck_assert_uint_gt(rig_counters(r, 0).stalls, 100);
    ck_assert_int_eq(rig_state(r, 0, 1), PLS_MEMBER_SUSPECT);
    ck_assert_int_eq(rig_state(r, 0, 2), PLS_MEMBER_ALIVE);
    ck_assert_uint_eq(rig_events_all(r, PLS_EVENT_DEAD), 0);
    rig_destroy(r);
}
END_TEST

START_TEST(test_short_waits_are_no_stall)
{
    rig *r = rig_create();
    rig_warm(r, 4);
    rig_run(r, 3 * RIG_SECOND);
    for (uint32_t i = 0; i < 50; i++) {
        hold_up(r, 1);
        rig_drain(r, 0);
    }
    ck_assert_uint_eq(rig_counters(r, 0).stalls, 0);
    rig_destroy(r);
}
END_TEST

START_TEST(test_without_the_idle_rule_a_stall_expires_suspicions)
{
    rig *r = rig_create();
    r->config.idle_rule = false;
    rig_warm(r, 4);
    pls_message m = suspect(r, 1, 100);
    rig_say(r, 2, 0, &m);
    r->now_ns += 3600 * RIG_SECOND;
    ck_assert_int_eq(pls_gossip_advance(r->nodes[0], r->now_ns), PLS_OK);
    ck_assert_int_eq(rig_state(r, 0, 1), PLS_MEMBER_DEAD);
    rig_destroy(r);
}
END_TEST

START_TEST(test_clock_that_falls_back_counts_as_the_later_time)
{
    rig *r = rig_create();
    rig_warm(r, 2);
    rig_run(r, 5 * RIG_SECOND);
    uint64_t before_ns = pls_gossip_deadline(r->nodes[0]);
    ck_assert_int_eq(pls_gossip_advance(r->nodes[0], RIG_SECOND), PLS_OK);
    ck_assert_uint_eq(rig_counters(r, 0).clock_backwards, 1);
    ck_assert_uint_eq(pls_gossip_deadline(r->nodes[0]), before_ns);
    rig_destroy(r);
}
END_TEST

START_TEST(test_isolated_node_learns_it_and_regains_the_many)
{
    rig *r = rig_create();
    rig_warm(r, 6);
    for (uint32_t i = 1; i < 6; i++) {
        rig_stop(r, i);
    }
    rig_run(r, 20 * RIG_SECOND);
    ck_assert_uint_eq(rig_events(r, 0, PLS_EVENT_ISOLATED, 0), 1);
    ck_assert(pls_gossip_look(r->nodes[0]).isolated);
    for (uint32_t i = 1; i < 6; i++) {
        pls_seed seed = {"a0", 2};
        rig_start(r, i, 2);
        ck_assert_int_eq(pls_gossip_join(r->nodes[i], &seed, 1, r->now_ns), PLS_OK);
        rig_drain(r, i);
    }
    rig_run(r, 20 * RIG_SECOND);
    ck_assert_uint_eq(rig_events(r, 0, PLS_EVENT_REGAINED, 0), 1);
    ck_assert(!pls_gossip_look(r->nodes[0]).isolated);
    rig_destroy(r);
}
END_TEST

START_TEST(test_evicted_member_comes_back_with_a_higher_incarnation)
{
    rig *r = rig_create();
    rig_warm(r, 6);
    ck_assert_int_eq(pls_gossip_evict(r->nodes[0], r->members[1], r->now_ns), PLS_OK);
    rig_drain(r, 0);
    ck_assert_int_eq(rig_state(r, 0, 1), PLS_MEMBER_DEAD);
    rig_run(r, 10 * RIG_SECOND);
    ck_assert(rig_agrees(r));
    ck_assert_uint_eq(rig_incarnation(r, 0, 1), 2);
    ck_assert_uint_eq(rig_events(r, 0, PLS_EVENT_ALIVE, 1), 1);
    rig_destroy(r);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("gossip.probe");
    TCase *tc = tcase_create("probe");
    suite_add_tcase(suite, tc);
    tcase_add_test(tc, test_06_independent_confirmations_shrink_the_suspicion);
    tcase_add_test(tc, test_06_late_confirmation_fires_at_once);
    tcase_add_test(tc, test_06_plain_suspicion_lasts_the_minimum);
    tcase_add_test(tc, test_06_few_members_cannot_confirm);
    tcase_add_test(tc, test_10_every_member_is_probed_once_in_a_pass);
    tcase_add_test(tc, test_10_passes_differ);
    tcase_add_test(tc, test_10_new_member_is_probed_by_the_end_of_the_next_pass);
    tcase_add_test(tc, test_10_dead_member_is_never_probed);
    tcase_add_test(tc, test_10_alone_nobody_is_probed);
    tcase_add_test(tc, test_11_ping_to_a_suspect_carries_the_suspicion);
    tcase_add_test(tc, test_11_without_buddy_the_ping_does_not_carry_it);
    tcase_add_test(tc, test_11_missed_nacks_raise_the_score_by_their_number);
    tcase_add_test(tc, test_11_nack_comes_before_the_deadline);
    tcase_add_test(tc, test_11_indirect_ack_saves_a_probe);
    tcase_add_test(tc, test_late_answer_begins_the_suspicion_anew_and_raises_the_score);
    tcase_add_test(tc, test_score_scales_interval_and_timeout);
    tcase_add_test(tc, test_score_stays_within_its_bounds);
    tcase_add_test(tc, test_hint_disconnected_probes_now_and_kills_nobody);
    tcase_add_test(tc, test_hint_refused_ends_in_death_after_one_interval);
    tcase_add_test(tc, test_hint_refused_is_refuted_by_one_that_lives);
    tcase_add_test(tc, test_stall_of_my_own_accuses_nobody);
    tcase_add_test(tc, test_stall_behind_a_line_of_packets_accuses_nobody);
    tcase_add_test(tc, test_short_waits_are_no_stall);
    tcase_add_test(tc, test_without_the_idle_rule_a_stall_expires_suspicions);
    tcase_add_test(tc, test_clock_that_falls_back_counts_as_the_later_time);
    tcase_add_test(tc, test_isolated_node_learns_it_and_regains_the_many);
    tcase_add_test(tc, test_evicted_member_comes_back_with_a_higher_incarnation);
    return check_run(suite);
}
