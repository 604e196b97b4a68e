/* SPDX-License-Identifier: Apache-2.0 */
/* The replicated names: registering, deltas and their gaps, tombstones and floors, and death.
 * Watches and unique names are in watch_test.c. */
#include "gossip/names.h"

#include "base/limits.h"
#include "gossip/delta.h"
#include "gossip/state.h"
#include "tests/check_run.h"
#include "tests/gossip/rig.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static uint32_t holders(const rig *r, const char *name)
{
    pls_name_hit hit;
    uint32_t count = 0;
    for (uint32_t i = 0; i < r->node_count; i++) {
        count += r->nodes[i] != NULL && rig_find(r, i, name, &hit) > 0;
    }
    return count;
}

static uint64_t version(const rig *r, uint32_t node, uint32_t owner)
{
    pls_member_view view;
    ck_assert_int_eq(pls_gossip_member(r->nodes[node], r->members[owner], &view), PLS_OK);
    return view.names_version;
}

START_TEST(test_name_reaches_everybody_and_goes_everywhere)
{
    rig *r = rig_create();
    pls_name_hit hit;
    rig_warm(r, 8);
    ck_assert_int_eq(rig_put(r, 0, "service", 7, false), PLS_OK);
    ck_assert_uint_eq(holders(r, "service"), 1);
    rig_run(r, 2 * RIG_SECOND);
    ck_assert_uint_eq(holders(r, "service"), 8);
    ck_assert_uint_eq(rig_find(r, 5, "service", &hit), 1);
    ck_assert_uint_eq(hit.owner, r->members[0]);
    ck_assert_uint_eq(hit.value, 7);
    ck_assert_int_eq(rig_put(r, 0, "service", 8, false), PLS_OK);
    rig_run(r, 2 * RIG_SECOND);
    rig_find(r, 5, "service", &hit);
    ck_assert_uint_eq(hit.value, 8);
    ck_assert_int_eq(rig_remove(r, 0, "service"), PLS_OK);
    rig_run(r, 2 * RIG_SECOND);
    ck_assert_uint_eq(holders(r, "service"), 0);
    ck_assert(rig_agrees(r));
    rig_destroy(r);
}
END_TEST

START_TEST(test_name_arguments_are_checked)
{
    rig *r = rig_create();
    static char big[PLS_NAME_BYTES_MAX + 1];
    rig_warm(r, 2);
    pls_gossip *g = r->nodes[0];
    memset(big, 'x', sizeof big);
    ck_assert_int_eq(pls_gossip_name_put(g, "", 0, 1, false, r->now_ns), PLS_EINVAL);
    ck_assert_int_eq(pls_gossip_name_put(g, big, sizeof big, 1, false, r->now_ns), PLS_EINVAL);
    ck_assert_int_eq(pls_gossip_name_put(g, big, sizeof big - 1, 1, false, r->now_ns), PLS_OK);
    ck_assert_int_eq(rig_remove(r, 0, "absent"), PLS_ENOENT);
    ck_assert_int_eq(rig_put(r, 0, "a", 1, false), PLS_OK);
    ck_assert_int_eq(rig_remove(r, 1, "a"), PLS_ENOENT);
    ck_assert_int_eq(rig_remove(r, 0, "a"), PLS_OK);
    ck_assert_int_eq(rig_remove(r, 0, "a"), PLS_ENOENT);
    ck_assert_int_eq(pls_gossip_leave(g, r->now_ns), PLS_OK);
    ck_assert_int_eq(rig_put(r, 0, "b", 1, false), PLS_ECLOSED);
    rig_destroy(r);
}
END_TEST

START_TEST(test_same_registration_again_is_no_new_version)
{
    rig *r = rig_create();
    rig_warm(r, 2);
    ck_assert_int_eq(rig_put(r, 0, "a", 1, false), PLS_OK);
    ck_assert_int_eq(rig_put(r, 0, "a", 1, false), PLS_OK);
    ck_assert_uint_eq(version(r, 0, 0), 1);
    rig_destroy(r);
}
END_TEST

START_TEST(test_several_owners_are_replicas_in_the_order_of_keys)
{
    rig *r = rig_create();
    pls_name_hit hits[4];
    rig_warm(r, 4);
    for (uint32_t i = 0; i < 4; i++) {
        ck_assert_int_eq(rig_put(r, i, "pool", i, false), PLS_OK);
    }
    rig_run(r, 3 * RIG_SECOND);
    for (uint32_t i = 0; i < 4; i++) {
        ck_assert_uint_eq(pls_gossip_name_find(r->nodes[i], "pool", 4, hits, 4), 4);
        for (uint32_t k = 1; k < 4; k++) {
            ck_assert_uint_lt(pls_identities_get(r->pool, hits[k - 1].owner).key,
                              pls_identities_get(r->pool, hits[k].owner).key);
        }
        ck_assert_uint_eq(pls_gossip_name_find(r->nodes[i], "pool", 4, hits, 2), 4);
    }
    rig_destroy(r);
}
END_TEST

START_TEST(test_names_max_is_a_bound)
{
    rig *r = rig_create();
    r->config.names_max = 3;
    rig_warm(r, 2);
    ck_assert_int_eq(rig_put(r, 0, "a", 1, false), PLS_OK);
    ck_assert_int_eq(rig_put(r, 0, "b", 1, false), PLS_OK);
    ck_assert_int_eq(rig_put(r, 0, "c", 1, false), PLS_OK);
    ck_assert_int_eq(rig_put(r, 0, "d", 1, false), PLS_EFULL);
    ck_assert_uint_eq(version(r, 0, 0), 3);
    ck_assert_int_eq(rig_put(r, 0, "a", 2, false), PLS_OK);
    rig_destroy(r);
}
END_TEST

/* A delta of node 1's log, as node 0 hears it from node 2. */
static void tell(rig *r, uint64_t floor, uint64_t from, uint64_t to, const pls_name_item *entries,
                 uint32_t count)
{
    uint8_t body[512];
    pls_writer w = pls_writer_into(body, sizeof body);
    for (uint32_t i = 0; i < count; i++) {
        pls_name_item_write(&w, &entries[i]);
    }
    pls_message m = {.kind = PLS_WIRE_NAMES,
                     .key = rig_key(r, 1),
                     .floor = floor,
                     .from = from,
                     .to = to,
                     .body = body,
                     .body_bytes = (uint32_t)pls_writer_len(&w)};
    rig_say(r, 2, 0, &m);
}

static pls_name_item entry_of(const char *name, uint64_t step, uint64_t value, uint32_t flags)
{
    return (pls_name_item){.version = step,
                           .value = value,
                           .stamp = 1,
                           .name = name,
                           .name_bytes = (uint32_t)strlen(name),
                           .flags = flags};
}

START_TEST(test_delta_with_a_gap_is_not_applied_but_pulled)
{
    rig *r = rig_create();
    rig_warm(r, 3);
    pls_name_item e = entry_of("a", 1, 5, 0);
    tell(r, 0, 4, 5, &e, 1);
    ck_assert_uint_eq(version(r, 0, 1), 0);
    ck_assert_uint_eq(rig_counters(r, 0).names_gaps, 1);
    ck_assert_uint_eq(rig_under_way(r, 2, PLS_WIRE_NAMES_PULL), 1);
    tell(r, 0, 0, 5, &e, 1);
    ck_assert_uint_eq(version(r, 0, 1), 5);
    tell(r, 0, 0, 5, &e, 1);
    ck_assert_uint_eq(rig_counters(r, 0).names_stale, 1);
    rig_destroy(r);
}
END_TEST

START_TEST(test_delta_that_overlaps_applies_what_is_new)
{
    rig *r = rig_create();
    pls_name_hit hit;
    rig_warm(r, 3);
    pls_name_item first[] = {entry_of("a", 1, 1, 0), entry_of("b", 2, 2, 0)};
    pls_name_item second[] = {entry_of("b", 1, 99, 0), entry_of("c", 2, 3, 0)};
    tell(r, 0, 0, 2, first, 2);
    tell(r, 0, 1, 3, second, 2);
    ck_assert_uint_eq(version(r, 0, 1), 3);
    ck_assert_uint_eq(rig_find(r, 0, "b", &hit), 1);
    ck_assert_uint_eq(hit.value, 2);
    ck_assert_uint_eq(rig_find(r, 0, "c", &hit), 1);
    rig_destroy(r);
}
END_TEST

START_TEST(test_delta_whose_entries_do_not_rise_is_cut_there)
{
    rig *r = rig_create();
    pls_name_hit hit;
    rig_warm(r, 3);
    pls_name_item bad[] = {entry_of("a", 2, 1, 0), entry_of("b", 2, 2, 0)};
    tell(r, 0, 0, 4, bad, 2);
    ck_assert_uint_eq(version(r, 0, 1), 2);
    ck_assert_uint_eq(rig_find(r, 0, "b", &hit), 0);
    pls_name_item beyond = entry_of("c", 9, 1, 0);
    tell(r, 0, 2, 4, &beyond, 1);
    ck_assert_uint_eq(rig_find(r, 0, "c", &hit), 0);
    rig_destroy(r);
}
END_TEST

START_TEST(test_delta_about_me_or_a_stranger_changes_nothing)
{
    rig *r = rig_create();
    rig_warm(r, 3);
    pls_message m = {.kind = PLS_WIRE_NAMES,
                     .key = rig_key(r, 0),
                     .to = 9,
                     .body = (const uint8_t *)"",
                     .body_bytes = 0};
    rig_say(r, 2, 0, &m);
    m.key = 4711;
    rig_say(r, 2, 0, &m);
    ck_assert_uint_eq(version(r, 0, 0), 0);
    ck_assert_uint_eq(rig_counters(r, 0).dropped_unknown, 2);
    rig_destroy(r);
}
END_TEST

START_TEST(test_cut_delta_carries_what_it_reaches)
{
    rig *r = rig_create();
    char name[32];
    rig_warm(r, 2);
    for (uint32_t i = 0; i < 200; i++) {
        snprintf(name, sizeof name, "a-rather-long-name-%u", i);
        ck_assert_int_eq(rig_put(r, 0, name, i, false), PLS_OK);
    }
    static uint8_t bytes[PLS_PACKET_BYTES_MIN];
    uint64_t from = 0;
    uint32_t packets = 0;
    while (from < 200) {
        pls_writer w = pls_writer_into(bytes, sizeof bytes);
        uint64_t to = 200;
        pls_message message;
        pls_packet packet;
        pls_name_item entry;
        pls_packet_head_write(&w, 1, 2);
        ck_assert(pls_delta_write(r->nodes[0], &w, r->members[0], from, &to));
        ck_assert_int_eq(pls_packet_open(bytes, pls_writer_len(&w), &packet), PLS_OK);
        ck_assert_int_eq(pls_packet_next(&packet, &message), PLS_OK);
        ck_assert_uint_eq(message.from, from);
        ck_assert_uint_eq(message.to, to);
        pls_reader body = pls_reader_over(message.body, message.body_bytes);
        uint64_t last = from;
        while (pls_name_item_next(&body, &entry) == PLS_OK) {
            ck_assert_uint_eq(from + entry.version, ++last);
        }
        ck_assert_uint_eq(last, to);
        from = to;
        packets++;
    }
    ck_assert_uint_gt(packets, 3);
    rig_destroy(r);
}
END_TEST

/* What node 0 would gossip of a range of node 1's log; false when it writes no message. */
static bool range_of(rig *r, uint64_t from, uint64_t *to, pls_message *message)
{
    static uint8_t bytes[PLS_PACKET_BYTES_MIN];
    pls_packet packet;
    pls_writer w = pls_writer_into(bytes, sizeof bytes);
    pls_packet_head_write(&w, 1, 2);
    ck_assert(pls_delta_write(r->nodes[0], &w, r->members[1], from, to));
    ck_assert_int_eq(pls_packet_open(bytes, pls_writer_len(&w), &packet), PLS_OK);
    return pls_packet_next(&packet, message) == PLS_OK;
}

START_TEST(test_range_of_a_copy_begun_anew_claims_no_more_than_it_holds)
{
    rig *r = rig_create();
    pls_message message;
    rig_warm(r, 3);
    pls_name_item old[] = {entry_of("a", 1, 1, 0), entry_of("b", 2, 2, 0)};
    tell(r, 0, 0, 3, old, 2);
    ck_assert_uint_eq(version(r, 0, 1), 3);
    /* The range (0, 3] waits to be gossiped when a later floor makes the copy begin anew. */
    pls_name_item first = entry_of("kept", 1, 1, 0);
    tell(r, 6, 0, 2, &first, 1);
    ck_assert_uint_eq(version(r, 0, 1), 2);
    uint64_t to = 3;
    ck_assert(range_of(r, 0, &to, &message));
    ck_assert_uint_eq(message.from, 0);
    ck_assert_uint_eq(message.to, 2);
    ck_assert_uint_eq(to, 3);
    /* Of what it does not hold at all it says nothing, and is done with it. */
    ck_assert(!range_of(r, 2, &to, &message));
    ck_assert_uint_eq(to, 3);
    rig_destroy(r);
}
END_TEST

START_TEST(test_holes_are_filled_by_digest_and_suffix)
{
    rig *r = rig_create();
    char name[32];
    rig_warm(r, 4);
    r->cut = 3;
    r->lets = rig_lets_all_but_one;
    for (uint32_t i = 0; i < 300; i++) {
        snprintf(name, sizeof name, "name-%u", i);
        ck_assert_int_eq(rig_put(r, 0, name, i, false), PLS_OK);
    }
    /* Long enough for the gossip to be over, too short for a death. */
    rig_run(r, 3 * RIG_SECOND);
    ck_assert_uint_eq(version(r, 1, 0), 300);
    ck_assert_uint_eq(version(r, 3, 0), 0);
    r->lets = NULL;
    rig_run(r, 4 * RIG_SECOND);
    ck_assert_uint_eq(version(r, 3, 0), 300);
    uint64_t served = 0;
    for (uint32_t i = 0; i < 3; i++) {
        served += rig_counters(r, i).names_served;
    }
    ck_assert_uint_ge(served, 1);
    ck_assert(rig_agrees(r));
    rig_destroy(r);
}
END_TEST

START_TEST(test_suffix_of_many_packets_goes_on_by_itself)
{
    rig *r = rig_create();
    char name[64];
    rig_warm(r, 2);
    r->cut = 1;
    r->lets = rig_lets_all_but_one;
    for (uint32_t i = 0; i < 6000; i++) {
        snprintf(name, sizeof name, "quite-a-long-name-for-an-actor-%u", i);
        ck_assert_int_eq(
            pls_gossip_name_put(r->nodes[0], name, (uint32_t)strlen(name), i, false, r->now_ns),
            PLS_OK);
    }
    rig_drain(r, 0);
    rig_run(r, 2 * RIG_SECOND);
    r->lets = NULL;
    rig_run(r, 3 * RIG_SECOND);
    ck_assert_uint_eq(version(r, 1, 0), 6000);
    /* Each answer has at most 16 packets, so it took several pulls. */
    ck_assert_uint_ge(rig_counters(r, 1).names_pulled, 5);
    rig_destroy(r);
}
END_TEST

START_TEST(test_tombstones_go_with_their_floor_everywhere)
{
    rig *r = rig_create();
    r->config.tombstone_keep_ns = 60 * RIG_SECOND;
    rig_warm(r, 3);
    for (int i = 0; i < 6; i++) {
        char name[2] = {(char)('a' + i), 0};
        ck_assert_int_eq(rig_put(r, 0, name, 1, false), PLS_OK);
    }
    ck_assert_int_eq(rig_remove(r, 0, "a"), PLS_OK);
    ck_assert_int_eq(rig_remove(r, 0, "b"), PLS_OK);
    rig_run(r, 30 * RIG_SECOND);
    for (uint32_t i = 0; i < 3; i++) {
        ck_assert_uint_eq(pls_gossip_look(r->nodes[i]).names_count, 6);
        ck_assert_uint_eq(rig_counters(r, i).tombstones_freed, 0);
    }
    rig_run(r, 40 * RIG_SECOND);
    for (uint32_t i = 0; i < 3; i++) {
        pls_member_view view;
        ck_assert_int_eq(pls_gossip_member(r->nodes[i], r->members[0], &view), PLS_OK);
        ck_assert_uint_eq(view.names_floor, 8);
        ck_assert_uint_eq(view.names_count, 4);
        ck_assert_uint_eq(pls_gossip_look(r->nodes[i]).names_count, 4);
        ck_assert_uint_eq(rig_counters(r, i).tombstones_freed, 2);
    }
    rig_destroy(r);
}
END_TEST

START_TEST(test_copy_older_than_the_floor_is_cleared_and_filled_again)
{
    rig *r = rig_create();
    pls_name_hit hit;
    rig_warm(r, 3);
    pls_name_item old[] = {entry_of("gone", 1, 1, 0), entry_of("kept", 2, 2, 0)};
    tell(r, 0, 0, 2, old, 2);
    ck_assert_uint_eq(rig_find(r, 0, "gone", &hit), 1);
    /* Removed at 3, and that tombstone went at floor 4: only a whole copy tells. */
    pls_name_item later = entry_of("new", 2, 3, 0);
    tell(r, 4, 3, 5, &later, 1);
    ck_assert_uint_eq(version(r, 0, 1), 2);
    ck_assert_uint_eq(rig_counters(r, 0).names_gaps, 1);
    pls_name_item whole[] = {entry_of("kept", 2, 2, 0), entry_of("new", 5, 3, 0)};
    tell(r, 4, 0, 5, whole, 2);
    ck_assert_uint_eq(version(r, 0, 1), 5);
    ck_assert_uint_eq(rig_counters(r, 0).names_resets, 1);
    ck_assert_uint_eq(rig_find(r, 0, "gone", &hit), 0);
    ck_assert_uint_eq(rig_find(r, 0, "kept", &hit), 1);
    ck_assert_uint_eq(rig_find(r, 0, "new", &hit), 1);
    rig_destroy(r);
}
END_TEST

START_TEST(test_empty_copy_that_begins_anew_takes_any_version)
{
    enum { NAMES = 40 };
    rig *r = rig_create();
    pls_name_hit hit;
    char texts[NAMES][4];
    pls_name_item entries[NAMES];
    rig_warm(r, 3);
    /* Each name is written twice, so that the log is compacted, and removed. */
    for (uint32_t i = 0; i < 3 * NAMES; i++) {
        char *text = texts[i % NAMES];
        (void)snprintf(text, sizeof texts[0], "a%u", i % NAMES);
        entries[i % NAMES] =
            entry_of(text, i % NAMES + 1, i, i < 2 * NAMES ? 0 : PLS_WIRE_NAME_REMOVED);
        if (i % NAMES == NAMES - 1) {
            tell(r, 0, i + 1 - NAMES, i + 1, entries, NAMES);
        }
    }
    ck_assert_uint_eq(version(r, 0, 1), 3 * NAMES);
    tell(r, 3 * NAMES, 3 * NAMES, 3 * NAMES + 1, NULL, 0);
    ck_assert_uint_eq(pls_gossip_look(r->nodes[0]).names_count, 0);
    /* No honest owner goes back to a version that it has left; a packet may say anything. */
    pls_name_item early = entry_of("b", 5, 7, 0);
    tell(r, 1000, 0, 1000, &early, 1);
    ck_assert_uint_eq(version(r, 0, 1), 1000);
    ck_assert_uint_eq(rig_find(r, 0, "b", &hit), 1);
    ck_assert_uint_eq(hit.version, 5);
    rig_destroy(r);
}
END_TEST

START_TEST(test_copy_in_the_making_takes_nothing_from_an_older_floor)
{
    rig *r = rig_create();
    pls_name_hit hit;
    rig_warm(r, 3);
    /* "gone" was written at 2 and removed at 4; floor 6 has swept that. The copy stands at 1. */
    pls_name_item first = entry_of("kept", 1, 1, 0);
    tell(r, 6, 0, 1, &first, 1);
    ck_assert_uint_eq(version(r, 0, 1), 1);
    pls_name_item old[] = {entry_of("gone", 1, 2, 0), entry_of("other", 2, 3, 0)};
    tell(r, 0, 1, 3, old, 2);
    ck_assert_uint_eq(version(r, 0, 1), 1);
    ck_assert_uint_eq(rig_find(r, 0, "gone", &hit), 0);
    pls_name_item rest = entry_of("new", 6, 4, 0);
    tell(r, 6, 1, 7, &rest, 1);
    ck_assert_uint_eq(version(r, 0, 1), 7);
    ck_assert_uint_eq(rig_find(r, 0, "gone", &hit), 0);
    ck_assert_uint_eq(rig_find(r, 0, "new", &hit), 1);
    /* A whole copy does not mind what others have swept. */
    pls_name_item later = entry_of("later", 1, 5, 0);
    tell(r, 0, 7, 8, &later, 1);
    ck_assert_uint_eq(version(r, 0, 1), 8);
    rig_destroy(r);
}
END_TEST

START_TEST(test_names_of_the_dead_are_hidden_and_come_back_with_their_owner)
{
    rig *r = rig_create();
    rig_warm(r, 4);
    ck_assert_int_eq(rig_put(r, 1, "a", 1, false), PLS_OK);
    rig_run(r, 2 * RIG_SECOND);
    ck_assert_uint_eq(holders(r, "a"), 4);
    ck_assert_int_eq(pls_gossip_evict(r->nodes[0], r->members[1], r->now_ns), PLS_OK);
    rig_drain(r, 0);
    pls_name_hit hit;
    ck_assert_uint_eq(rig_find(r, 0, "a", &hit), 0);
    rig_run(r, 5 * RIG_SECOND);
    ck_assert_uint_eq(holders(r, "a"), 4);
    rig_destroy(r);
}
END_TEST

START_TEST(test_names_of_the_dead_are_freed_later_and_of_the_replaced_at_once)
{
    rig *r = rig_create();
    char name[32];
    rig_warm(r, 3);
    for (uint32_t i = 0; i < 3000; i++) {
        snprintf(name, sizeof name, "name-%u", i);
        ck_assert_int_eq(
            pls_gossip_name_put(r->nodes[1], name, (uint32_t)strlen(name), i, false, r->now_ns),
            PLS_OK);
    }
    rig_drain(r, 1);
    rig_run(r, 5 * RIG_SECOND);
    ck_assert_uint_eq(pls_gossip_look(r->nodes[0]).names_count, 3000);
    rig_stop(r, 1);
    rig_run(r, 20 * RIG_SECOND);
    ck_assert_int_eq(rig_state(r, 0, 1), PLS_MEMBER_DEAD);
    ck_assert_uint_eq(holders(r, "name-7"), 0);
    ck_assert_uint_eq(pls_gossip_look(r->nodes[0]).names_count, 3000);
    rig_run(r, 70 * RIG_SECOND);
    ck_assert_uint_eq(pls_gossip_look(r->nodes[0]).names_count, 0);
    ck_assert_uint_eq(rig_counters(r, 0).names_dropped, 3000);
    /* A new self of the owner starts from nothing. */
    pls_seed seed = {"a0", 2};
    rig_start(r, 1, 2);
    ck_assert_int_eq(pls_gossip_join(r->nodes[1], &seed, 1, r->now_ns), PLS_OK);
    rig_drain(r, 1);
    ck_assert_int_eq(rig_put(r, 1, "name-7", 9, false), PLS_OK);
    rig_run(r, 3 * RIG_SECOND);
    ck_assert_uint_eq(holders(r, "name-7"), 3);
    ck_assert_uint_eq(pls_gossip_look(r->nodes[0]).names_count, 1);
    rig_destroy(r);
}
END_TEST

START_TEST(test_log_survives_a_long_life)
{
    rig *r = rig_create();
    char name[32];
    pls_rng rng;
    pls_rng_init(&rng, 3);
    rig_warm(r, 2);
    /* Few names, many versions: the log must not grow with its history. */
    for (uint32_t i = 0; i < 20000; i++) {
        snprintf(name, sizeof name, "name-%u", pls_rng_below(&rng, 50));
        if (pls_rng_below(&rng, 3) == 0) {
            pls_err err =
                pls_gossip_name_remove(r->nodes[0], name, (uint32_t)strlen(name), r->now_ns);
            ck_assert(err == PLS_OK || err == PLS_ENOENT);
        } else {
            ck_assert_int_eq(
                pls_gossip_name_put(r->nodes[0], name, (uint32_t)strlen(name), i, false, r->now_ns),
                PLS_OK);
        }
        if (i % 500 == 0) {
            rig_drain(r, 0);
            rig_run(r, 100 * RIG_MS);
        }
    }
    rig_drain(r, 0);
    rig_run(r, 3 * RIG_SECOND);
    ck_assert(rig_agrees(r));
    const pls_registry *registry = &r->nodes[0]->registry;
    ck_assert_uint_le(registry->logs[pls_registry_log(registry, r->members[0])].slots_count, 200);
    pls_name_view mine;
    pls_name_view theirs;
    uint64_t after = 0;
    while (pls_gossip_name_next(r->nodes[0], r->members[0], after, &mine) == PLS_OK) {
        ck_assert_int_eq(pls_gossip_name_next(r->nodes[1], r->members[0], after, &theirs), PLS_OK);
        ck_assert_uint_eq(mine.version, theirs.version);
        ck_assert_uint_eq(mine.value, theirs.value);
        ck_assert_int_eq(mine.removed, theirs.removed);
        ck_assert_mem_eq(mine.name, theirs.name, mine.name_bytes);
        after = mine.version;
    }
    rig_destroy(r);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("gossip.names");
    TCase *tc = tcase_create("names");
    suite_add_tcase(suite, tc);
    tcase_add_test(tc, test_name_reaches_everybody_and_goes_everywhere);
    tcase_add_test(tc, test_name_arguments_are_checked);
    tcase_add_test(tc, test_same_registration_again_is_no_new_version);
    tcase_add_test(tc, test_several_owners_are_replicas_in_the_order_of_keys);
    tcase_add_test(tc, test_names_max_is_a_bound);
    tcase_add_test(tc, test_delta_with_a_gap_is_not_applied_but_pulled);
    tcase_add_test(tc, test_delta_that_overlaps_applies_what_is_new);
    tcase_add_test(tc, test_delta_whose_entries_do_not_rise_is_cut_there);
    tcase_add_test(tc, test_delta_about_me_or_a_stranger_changes_nothing);
    tcase_add_test(tc, test_cut_delta_carries_what_it_reaches);
    tcase_add_test(tc, test_range_of_a_copy_begun_anew_claims_no_more_than_it_holds);
    tcase_add_test(tc, test_holes_are_filled_by_digest_and_suffix);
    tcase_add_test(tc, test_suffix_of_many_packets_goes_on_by_itself);
    tcase_add_test(tc, test_tombstones_go_with_their_floor_everywhere);
    tcase_add_test(tc, test_copy_older_than_the_floor_is_cleared_and_filled_again);
    tcase_add_test(tc, test_empty_copy_that_begins_anew_takes_any_version);
    tcase_add_test(tc, test_copy_in_the_making_takes_nothing_from_an_older_floor);
    tcase_add_test(tc, test_names_of_the_dead_are_hidden_and_come_back_with_their_owner);
    tcase_add_test(tc, test_names_of_the_dead_are_freed_later_and_of_the_replaced_at_once);
    tcase_add_test(tc, test_log_survives_a_long_life);
    return check_run(suite);
}
