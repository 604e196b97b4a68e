/* SPDX-License-Identifier: Apache-2.0 */
/* Records that no runtime writes: one attachment writes them into the ring of another, which must
 * refuse them and go on. */
#include "tests/check_run.h"
#include "tests/node/crew.h"

#include "base/rng.h"
#include "node/runtime_parts.h"

#include <check.h>
#include <stdlib.h>
#include <string.h>

#define FORGED_BYTES_MAX 200
#define FORGED_ROUNDS 20000
#define WAIT_MS 10000

static crew c;
static crew_member *const liar = &c.m[0];
static crew_member *const victim = &c.m[1];

static void begin(void)
{
    crew_begin(&c);
    crew_host(victim, 8, PULSING_WAIT, 0);
}

/* Writes a record as it stands. */
static void forge(uint16_t type, uint16_t flags, const void *bytes, uint32_t len)
{
    pls_link *link = NULL;
    uint8_t *room = NULL;
    pulsing *p = liar->p;
    ck_assert_int_eq(
        pls_link_get(p, pulsing_slot(victim->p), pulsing_epoch(victim->p), true, &link), PLS_OK);
    while (pls_outbox_reserve(link->outbox, len, &room) != PLS_OK) {
        crew_turn(&c);
    }
    memcpy(room, bytes, len);
    pls_outbox_commit(link->outbox, len, type, flags, 0);
    pls_outbox_wake(link->outbox);
}

static pls_wire_request request_for(uint64_t actor, uint64_t call)
{
    return (pls_wire_request){.actor_id = actor, .call_id = call, .payload_bytes = 4};
}

/* The victim still answers, and what it answers is right. */
static void victim_is_well(void)
{
    pulsing_target *target = NULL;
    uint32_t before = liar->reply_count;
    uint32_t requests = victim->request_count;
    ck_assert_int_eq(pulsing_target_get(liar->p, victim->actor_id, 0, false, &target), PLS_OK);
    ck_assert_int_eq(crew_send(liar, target, 4711, 0, (pulsing_call){0}, NULL), PLS_OK);
    crew_until(&c, &liar->reply_count, before + 1);
    ck_assert_uint_eq(victim->request_count, requests + 1);
    ck_assert_uint_eq(liar->replies[before].number, 4711);
    pulsing_target_release(target);
}

static void dead_letters_are(uint64_t count)
{
    double until = world_now_ms() + WAIT_MS;
    while (pulsing_dead_letters(victim->p, PULSING_BAD_MESSAGE) < count) {
        ck_assert(world_now_ms() < until);
        crew_turn(&c);
    }
    crew_rest(&c, 5);
    ck_assert_uint_eq(pulsing_dead_letters(victim->p, PULSING_BAD_MESSAGE), count);
}

START_TEST(test_truncated_heads_and_unknown_types_are_dead_letters)
{
    uint8_t bytes[64] = {0};
    begin();
    for (uint32_t len = 1; len < sizeof(pls_wire_request); len++) {
        forge(PLS_WIRE_REQUEST, 0, bytes, len);
    }
    uint64_t count = sizeof(pls_wire_request) - 1;
    dead_letters_are(count);
    for (int type = PLS_WIRE_CANCEL; type <= PLS_WIRE_CREDIT; type++) {
        forge((uint16_t)type, 0, bytes, sizeof(pls_wire_signal) - 1);
        forge((uint16_t)type, 0, bytes, sizeof(pls_wire_signal) + 1);
        count += 2;
    }
    forge(PLS_WIRE_STREAM_OPEN + 1, 0, bytes, sizeof(pls_wire_signal));
    forge(200, 0, bytes, sizeof(pls_wire_signal));
    dead_letters_are(count + 2);
    victim_is_well();
    crew_end(&c);
}
END_TEST

START_TEST(test_lengths_that_do_not_fit_are_refused)
{
    uint8_t bytes[128] = {0};
    begin();
    pls_wire_request head = request_for(victim->actor_id, 1);
    head.method_bytes = 200;
    memcpy(bytes, &head, sizeof head);
    forge(PLS_WIRE_REQUEST, 0, bytes, sizeof head + 4);
    dead_letters_are(1);
    head.method_bytes = 0;
    head.chain_bytes = UINT16_MAX;
    memcpy(bytes, &head, sizeof head);
    forge(PLS_WIRE_REQUEST, 0, bytes, sizeof head + 4);
    dead_letters_are(2);
    head.chain_bytes = 0;
    head.payload_bytes = 4000;
    memcpy(bytes, &head, sizeof head);
    forge(PLS_WIRE_REQUEST, 0, bytes, sizeof head + 4);
    head.payload_bytes = 3;
    memcpy(bytes, &head, sizeof head);
    forge(PLS_WIRE_REQUEST, 0, bytes, sizeof head + 4);
    head.payload_bytes = 4;
    head.context_bytes = 5;
    memcpy(bytes, &head, sizeof head);
    forge(PLS_WIRE_REQUEST, 0, bytes, sizeof head + 4);
    crew_rest(&c, 5);
    ck_assert_uint_eq(victim->request_count, 0);
    victim_is_well();
    crew_end(&c);
}
END_TEST

/* An answer to a pending call, as its receiver sees a bad one. */
START_TEST(test_a_descriptor_that_lies_is_a_bad_message)
{
    uint8_t bytes[128] = {0};
    begin();
    pls_wire_request head = request_for(victim->actor_id, 0);
    memcpy(bytes, &head, sizeof head);
    pls_rng rng;
    pls_rng_init(&rng, 7);
    for (uint32_t round = 0; round < 2000; round++) {
        uint32_t len = (uint32_t)(sizeof head + sizeof(pls_descriptor));
        for (uint32_t i = (uint32_t)sizeof head; i < len; i++) {
            bytes[i] = round % 2 == 0 ? (uint8_t)pls_rng_below(&rng, 256)
                                      : (uint8_t)pls_rng_below(&rng, 3);
        }
        forge(PLS_WIRE_REQUEST, PLS_WIRE_BLOCK | PLS_WIRE_PAYLOAD_IN_BLOCK, bytes, len);
    }
    forge(PLS_WIRE_REQUEST, PLS_WIRE_PAYLOAD_IN_BLOCK, bytes, sizeof head);
    dead_letters_are(2001);
    ck_assert_uint_eq(victim->request_count, 0);
    victim_is_well();
    crew_end(&c);
}
END_TEST

START_TEST(test_answers_to_calls_that_are_not_theirs_are_ignored)
{
    uint64_t call = 0;
    pulsing_target *target = NULL;
    crew_begin(&c);
    crew_host(victim, 8, PULSING_WAIT, 0);
    victim->keep_running = true;
    ck_assert_int_eq(pulsing_target_get(victim->p, victim->actor_id, 0, false, &target), PLS_OK);
    ck_assert_int_eq(crew_send(victim, target, 1, 0, (pulsing_call){0}, &call), PLS_OK);
    crew_until(&c, &victim->request_count, 1);
    /* The victim waits for itself; the liar answers in its stead, by guessing. */
    pls_wire_reply reply = {.call_id = call, .status = PULSING_OK};
    forge(PLS_WIRE_REPLY, 0, &reply, sizeof reply);
    forge(PLS_WIRE_STREAM_ITEM, 0, &reply, sizeof reply);
    forge(PLS_WIRE_STREAM_END, 0, &reply, sizeof reply);
    pls_wire_signal credit = {victim->actor_id, 1u << 30};
    forge(PLS_WIRE_CREDIT, 0, &credit, sizeof credit);
    crew_rest(&c, 10);
    ck_assert_uint_eq(victim->reply_count, 0);
    ck_assert_uint_eq(pulsing_call_count(victim->p), 1);
    crew_answer(victim, &victim->requests[0].origin, 5);
    pulsing_actor_finished(victim->p, victim->actor, &victim->requests[0].origin);
    crew_until(&c, &victim->reply_count, 1);
    ck_assert_uint_eq(victim->replies[0].number, 5);
    pulsing_target_release(target);
    crew_end(&c);
}
END_TEST

/* Arbitrary bytes of every type, with every flag. */
START_TEST(test_arbitrary_records_harm_nobody)
{
    uint8_t bytes[FORGED_BYTES_MAX];
    pls_rng rng;
    begin();
    pls_rng_init(&rng, (uint64_t)_i + 1);
    for (uint32_t round = 0; round < FORGED_ROUNDS; round++) {
        uint32_t len = 1 + pls_rng_below(&rng, FORGED_BYTES_MAX);
        for (uint32_t i = 0; i < len; i++) {
            bytes[i] = (uint8_t)(pls_rng_below(&rng, 4) == 0 ? pls_rng_below(&rng, 256) : 0);
        }
        if (len >= 8 && pls_rng_below(&rng, 2) == 0) {
            memcpy(bytes, &victim->actor_id, sizeof victim->actor_id);
        }
        uint16_t type = (uint16_t)(1 + pls_rng_below(&rng, 12));
        uint16_t flags = (uint16_t)(pls_rng_below(&rng, 4) << 8);
        forge(type, flags, bytes, len);
        victim->request_count = 0;
        liar->reply_count = 0;
    }
    crew_rest(&c, 20);
    victim->request_count = 0;
    liar->reply_count = 0;
    liar->item_count = 0;
    victim_is_well();
    crew_end(&c);
}
END_TEST

int main(int argc, char **argv)
{
    crew_peer_main(argc, argv);
    Suite *suite = suite_create("node.forged");
    TCase *tcase = tcase_create("forged");
    tcase_set_timeout(tcase, 60);
    tcase_add_test(tcase, test_truncated_heads_and_unknown_types_are_dead_letters);
    tcase_add_test(tcase, test_lengths_that_do_not_fit_are_refused);
    tcase_add_test(tcase, test_a_descriptor_that_lies_is_a_bad_message);
    tcase_add_test(tcase, test_answers_to_calls_that_are_not_theirs_are_ignored);
    tcase_add_loop_test(tcase, test_arbitrary_records_harm_nobody, 0, 4);
    suite_add_tcase(suite, tcase);
    return check_run(suite);
}
