/* SPDX-License-Identifier: Apache-2.0 */
/* Scenario 9: the gossip queue. */
#include "gossip/queue.h"

#include "base/limits.h"
#include "gossip/rules.h"
#include "gossip/scale.h"
#include "gossip/state.h"
#include "tests/check_run.h"
#include "tests/gossip/rig.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static rig *with_members(uint32_t count)
{
    rig *r = rig_create();
    rig_warm(r, count);
    return r;
}

static void put(rig *r, uint32_t subject, uint32_t kind, uint64_t incarnation)
{
    pls_update update = {incarnation, 42, r->members[subject], kind};
    pls_queue_put(r->nodes[0], &r->nodes[0]->queue, &update, 0);
    pls_queue_check(&r->nodes[0]->queue);
}

/* One packet's worth of gossip; the messages' keys in order. */
static uint32_t fill(rig *r, uint32_t bytes_max, uint64_t *keys, uint64_t *incarnations)
{
    static uint8_t bytes[PLS_PACKET_BYTES_MAX];
    pls_packet packet;
    pls_message message;
    uint32_t count = 0;
    pls_writer w = pls_writer_into(bytes, bytes_max);
    pls_packet_head_write(&w, 1, 2);
    pls_queue_fill(r->nodes[0], &r->nodes[0]->queue, &w);
    pls_queue_check(&r->nodes[0]->queue);
    ck_assert(!w.bad);
    ck_assert_uint_le(pls_writer_len(&w), bytes_max);
    ck_assert_int_eq(pls_packet_open(bytes, pls_writer_len(&w), &packet), PLS_OK);
    while (pls_packet_next(&packet, &message) == PLS_OK) {
        keys[count] = message.kind == PLS_WIRE_ALIVE ? message.identity.key : message.key;
        if (incarnations != NULL) {
            incarnations[count] = message.incarnation;
        }
        count++;
    }
    return count;
}

START_TEST(test_09_newer_update_replaces_the_older_of_its_subject)
{
    rig *r = with_members(10);
    uint64_t keys[8];
    uint64_t incarnations[8];
    put(r, 1, PLS_WIRE_SUSPECT, 1);
    put(r, 1, PLS_WIRE_SUSPECT, 2);
    put(r, 1, PLS_WIRE_DEAD, 3);
    ck_assert_uint_eq(r->nodes[0]->queue.count, 1);
    ck_assert_uint_eq(fill(r, 1400, keys, incarnations), 1);
    ck_assert_uint_eq(incarnations[0], 3);
    ck_assert_uint_eq(rig_counters(r, 0).updates_replaced, 2);
    rig_destroy(r);
}
END_TEST

START_TEST(test_09_replaced_update_starts_again)
{
    rig *r = with_members(10);
    uint64_t keys[8];
    put(r, 1, PLS_WIRE_SUSPECT, 1);
    for (int i = 0; i < 5; i++) {
        ck_assert_uint_eq(fill(r, 1400, keys, NULL), 1);
    }
    put(r, 1, PLS_WIRE_DEAD, 1);
    for (int i = 0; i < 8; i++) {
        ck_assert_uint_eq(fill(r, 1400, keys, NULL), 1);
    }
    ck_assert_uint_eq(fill(r, 1400, keys, NULL), 0);
    rig_destroy(r);
}
END_TEST

START_TEST(test_09_update_is_sent_as_often_as_the_formula_says)
{
    static const uint32_t members[] = {2, 9, 10, 40};
    for (size_t i = 0; i < 4; i++) {
        rig *r = with_members(members[i]);
        uint64_t keys[8];
        put(r, 1, PLS_WIRE_SUSPECT, 1);
        uint32_t sent = 0;
        while (fill(r, 1400, keys, NULL) > 0) {
            sent++;
        }
        ck_assert_uint_eq(sent, pls_scale_retransmits(4, members[i]));
        ck_assert_uint_eq(r->nodes[0]->queue.count, 0);
        rig_destroy(r);
    }
}
END_TEST

START_TEST(test_09_least_sent_goes_first_and_the_newest_among_the_new)
{
    rig *r = with_members(20);
    uint64_t keys[32];
    put(r, 1, PLS_WIRE_SUSPECT, 1);
    ck_assert_uint_eq(fill(r, 1400, keys, NULL), 1);
    put(r, 2, PLS_WIRE_SUSPECT, 1);
    put(r, 3, PLS_WIRE_SUSPECT, 1);
    ck_assert_uint_eq(fill(r, 1400, keys, NULL), 3);
    ck_assert_uint_eq(keys[0], rig_key(r, 3));
    ck_assert_uint_eq(keys[1], rig_key(r, 2));
    ck_assert_uint_eq(keys[2], rig_key(r, 1));
    /* With room for one, each is sent once before any is sent twice more. */
    uint32_t seen[4] = {0};
    for (int i = 0; i < 3; i++) {
        ck_assert_uint_eq(fill(r, 24, keys, NULL), 1);
        for (uint32_t k = 1; k < 4; k++) {
            seen[k] += keys[0] == rig_key(r, k);
        }
    }
    ck_assert_uint_eq(seen[2], 1);
    ck_assert_uint_eq(seen[3], 1);
    ck_assert_uint_eq(seen[1], 1);
    rig_destroy(r);
}
END_TEST

START_TEST(test_09_packet_is_filled_to_its_last_byte)
{
    rig *r = with_members(40);
    uint64_t keys[64];
    put(r, 1, PLS_WIRE_SUSPECT, 1);
    static uint8_t bytes[256];
    pls_writer w = pls_writer_into(bytes, sizeof bytes);
    pls_packet_head_write(&w, 1, 2);
    size_t head = pls_writer_len(&w);
    pls_queue_fill(r->nodes[0], &r->nodes[0]->queue, &w);
    size_t one = pls_writer_len(&w) - head;
    for (uint32_t i = 1; i < 10; i++) {
        put(r, i, PLS_WIRE_SUSPECT, 1);
    }
    /* The message is first written with the longer of two heads. */
    ck_assert_uint_eq(fill(r, (uint32_t)(head + 5 * one + 1), keys, NULL), 5);
    ck_assert_uint_eq(fill(r, (uint32_t)(head + 5 * one), keys, NULL), 4);
    rig_destroy(r);
}
END_TEST

START_TEST(test_09_large_update_does_not_starve)
{
    rig *r = with_members(40);
    static uint8_t meta[PLS_META_BYTES_MAX];
    pls_message big = rig_record(r, 1, 2);
    uint64_t keys[128];
    big.meta = meta;
    big.meta_bytes = sizeof meta;
    rig_say(r, 2, 0, &big);
    uint32_t sent = 0;
    /* A stream of small news that alone would fill every packet. */
    for (uint32_t round = 0; round < 60 && sent < 8; round++) {
        for (uint32_t i = 3; i < 40; i++) {
            put(r, i, PLS_WIRE_SUSPECT, round + 1);
        }
        uint32_t count = fill(r, 1100, keys, NULL);
        for (uint32_t i = 0; i < count; i++) {
            sent += keys[i] == rig_key(r, 1);
        }
        if (round % 3 != 0) {
            continue;
        }
        /* Between the bursts the least sent gets its turn. */
        count = fill(r, 1100, keys, NULL);
        for (uint32_t i = 0; i < count; i++) {
            sent += keys[i] == rig_key(r, 1);
        }
    }
    ck_assert_uint_eq(sent, 8);
    rig_destroy(r);
}
END_TEST

START_TEST(test_09_update_that_fits_nowhere_here_lets_others_pass)
{
    rig *r = with_members(10);
    static uint8_t meta[PLS_META_BYTES_MAX];
    pls_message big = rig_record(r, 1, 2);
    uint64_t keys[16];
    put(r, 2, PLS_WIRE_SUSPECT, 1);
    big.meta = meta;
    big.meta_bytes = sizeof meta;
    rig_say(r, 2, 0, &big);
    ck_assert_uint_eq(fill(r, 100, keys, NULL), 1);
    ck_assert_uint_eq(keys[0], rig_key(r, 2));
    ck_assert_uint_eq(fill(r, 1400, keys, NULL), 2);
    ck_assert_uint_eq(keys[0], rig_key(r, 1));
    rig_destroy(r);
}
END_TEST

START_TEST(test_09_forgotten_subject_leaves_the_queue)
{
    rig *r = with_members(10);
    uint64_t keys[8];
    put(r, 1, PLS_WIRE_DEAD, 1);
    put(r, 2, PLS_WIRE_DEAD, 1);
    pls_rules_forget(r->nodes[0], r->members[1]);
    pls_queue_check(&r->nodes[0]->queue);
    ck_assert_uint_eq(fill(r, 1400, keys, NULL), 1);
    ck_assert_uint_eq(keys[0], rig_key(r, 2));
    rig_destroy(r);
}
END_TEST

START_TEST(test_queue_of_ranges_is_bounded_and_joins_what_touches)
{
    rig *r = with_members(3);
    pls_queue *queue = &r->nodes[0]->registry.queue;
    pls_update update = {0, 1, r->members[1], PLS_WIRE_NAMES};
    for (uint64_t v = 0; v < 10; v++) {
        update.incarnation = v;
        update.accuser = v + 1;
        pls_queue_put(r->nodes[0], queue, &update, 0);
    }
    ck_assert_uint_eq(queue->count, 1);
    for (uint64_t v = 0; v < 3 * PLS_RANGES_MAX; v++) {
        update.incarnation = 100 + 2 * v;
        update.accuser = update.incarnation + 1;
        pls_queue_put(r->nodes[0], queue, &update, 0);
    }
    ck_assert_uint_eq(queue->count, PLS_RANGES_MAX);
    pls_queue_check(queue);
    pls_queue_remove(queue, r->members[1]);
    ck_assert_uint_eq(queue->count, 0);
    rig_destroy(r);
}
END_TEST

/* Members that nobody holds in a table, alive in the queue of node 0. */
static void strangers_put(rig *r, uint32_t count, pls_member *members)
{
    char name[16];
    for (uint32_t i = 0; i < count; i++) {
        uint32_t bytes = (uint32_t)snprintf(name, sizeof name, "stranger-%u", i);
        pls_identity identity = {.generation = 1,
                                 .name = name,
                                 .name_bytes = bytes,
                                 .address = name,
                                 .address_bytes = bytes};
        ck_assert_int_eq(pls_identities_acquire(r->pool, &identity, &members[i]), PLS_OK);
        pls_update update = {7, 0, members[i], PLS_WIRE_ALIVE};
        pls_queue_put(r->nodes[0], &r->nodes[0]->queue, &update, 0);
    }
}

START_TEST(test_what_others_tell_too_leaves_the_queue_in_a_storm)
{
    rig *r = with_members(2);
    pls_queue *queue = &r->nodes[0]->queue;
    pls_member members[PLS_QUEUE_STORM];
    strangers_put(r, PLS_QUEUE_STORM - 1, members);
    ck_assert(!pls_queue_heard(queue, members[3], 7));
    ck_assert_uint_eq(queue->count, PLS_QUEUE_STORM - 1);
    put(r, 1, PLS_WIRE_SUSPECT, 7);
    ck_assert(!pls_queue_heard(queue, members[3], 6));
    ck_assert(!pls_queue_heard(queue, r->members[1], 7));
    ck_assert(pls_queue_heard(queue, members[3], 7));
    pls_queue_check(queue);
    ck_assert_uint_eq(queue->count, PLS_QUEUE_STORM - 1);
    ck_assert(!pls_queue_has(queue, members[3]));
    ck_assert(!pls_queue_heard(queue, members[4], 7));
    for (uint32_t i = 0; i < PLS_QUEUE_STORM - 1; i++) {
        pls_queue_remove(queue, members[i]);
        pls_identities_release(r->pool, members[i]);
    }
    rig_destroy(r);
}
END_TEST

START_TEST(test_record_that_comes_again_in_a_storm_is_told_no_more)
{
    rig *r = with_members(3);
    pls_queue *queue = &r->nodes[0]->queue;
    pls_member members[PLS_QUEUE_STORM];
    strangers_put(r, PLS_QUEUE_STORM, members);
    pls_message record = rig_record(r, 2, rig_incarnation(r, 0, 2) + 1);
    rig_say(r, 1, 0, &record);
    ck_assert(pls_queue_has(queue, r->members[2]));
    rig_say(r, 1, 0, &record);
    ck_assert(!pls_queue_has(queue, r->members[2]));
    ck_assert_uint_eq(rig_counters(r, 0).updates_heard, 1);
    for (uint32_t i = 0; i < PLS_QUEUE_STORM; i++) {
        pls_queue_remove(queue, members[i]);
        pls_identities_release(r->pool, members[i]);
    }
    rig_destroy(r);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("gossip.queue");
    TCase *tc = tcase_create("queue");
    suite_add_tcase(suite, tc);
    tcase_add_test(tc, test_09_newer_update_replaces_the_older_of_its_subject);
    tcase_add_test(tc, test_09_replaced_update_starts_again);
    tcase_add_test(tc, test_09_update_is_sent_as_often_as_the_formula_says);
    tcase_add_test(tc, test_09_least_sent_goes_first_and_the_newest_among_the_new);
    tcase_add_test(tc, test_09_packet_is_filled_to_its_last_byte);
    tcase_add_test(tc, test_09_large_update_does_not_starve);
    tcase_add_test(tc, test_09_update_that_fits_nowhere_here_lets_others_pass);
    tcase_add_test(tc, test_09_forgotten_subject_leaves_the_queue);
    tcase_add_test(tc, test_queue_of_ranges_is_bounded_and_joins_what_touches);
    tcase_add_test(tc, test_what_others_tell_too_leaves_the_queue_in_a_storm);
    tcase_add_test(tc, test_record_that_comes_again_in_a_storm_is_told_no_more);
    return check_run(suite);
}
