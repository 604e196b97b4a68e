/* SPDX-License-Identifier: Apache-2.0 */
#include "shm/inbox.h"

#include "tests/check_run.h"
#include "tests/shm/pair.h"

#include <poll.h>
#include <signal.h>
#include <stdlib.h>

static pair p;

static void setup(void)
{
    pair_open(&p, 4096);
}

static void teardown(void)
{
    ck_assert(pls_inbox_check(p.inbox));
    pair_close(&p);
}

static bool readable(void)
{
    struct pollfd descriptor = {.fd = pls_inbox_eventfd(p.inbox), .events = POLLIN};
    return poll(&descriptor, 1, 0) == 1;
}

static pls_ring_control *control_of_producer(void)
{
    uint8_t *base = (uint8_t *)pls_inbox_header_of(p.inbox);
    return (pls_ring_control *)(void *)(base + PLS_INBOX_RINGS_OFFSET +
                                        (size_t)PAIR_PRODUCER * PLS_RING_SPAN_BYTES);
}

static uint32_t pop_all(void)
{
    pls_message message;
    uint32_t count = 0;
    while (pls_inbox_pop(p.inbox, &message) == PLS_OK) {
        count++;
        pls_inbox_release(p.inbox);
    }
    return count;
}

START_TEST(test_a_message_arrives_with_all_its_fields)
{
    uint8_t *room = NULL;
    pls_message message;
    ck_assert_int_eq(pls_outbox_reserve(p.outbox, 48, &room), PLS_OK);
    memset(room, 7, 40);
    ck_assert_uint_eq(pls_outbox_commit(p.outbox, 40, 9, PLS_FLAG_TRACE | 0x0300, 1234), 0);
    ck_assert(!pls_outbox_wake(p.outbox));
    ck_assert_uint_eq(pls_inbox_ready(p.inbox), PLS_READY_MESSAGES);
    ck_assert_int_eq(pls_inbox_pop(p.inbox, &message), PLS_OK);
    ck_assert_uint_eq(message.len, 40);
    ck_assert_uint_eq(message.bytes[39], 7);
    ck_assert_uint_eq(message.type, 9);
    ck_assert_uint_eq(message.flags, PLS_FLAG_TRACE | 0x0300);
    ck_assert_uint_eq(message.sent, 1234);
    ck_assert_uint_eq(message.from_slot, PAIR_PRODUCER);
    ck_assert_uint_eq(message.from_epoch, 1);
    ck_assert(pls_inbox_check(p.inbox));
    pls_inbox_release(p.inbox);
    ck_assert_int_eq(pls_inbox_pop(p.inbox, &message), PLS_EEMPTY);
    ck_assert_uint_eq(pls_inbox_ready(p.inbox), 0);
}
END_TEST

START_TEST(test_committed_messages_are_found_after_a_death_without_a_bell)
{
    pls_bitmap dead;
    ck_assert_int_eq(pair_send(p.outbox, 10, 1), PLS_OK);
    ck_assert_uint_eq(pop_all(), 0);
    pls_peer_ring_dead(p.peer, PAIR_PRODUCER);
    ck_assert_uint_eq(pls_inbox_ready(p.inbox), PLS_READY_DEAD);
    ck_assert(pls_inbox_take_dead(p.inbox, &dead));
    ck_assert_uint_eq(dead.word[PAIR_PRODUCER / 64], UINT64_C(1) << (PAIR_PRODUCER % 64));
    ck_assert(!pls_inbox_drained(p.inbox, PAIR_PRODUCER));
    ck_assert_uint_eq(pop_all(), 1);
    ck_assert(pls_inbox_drained(p.inbox, PAIR_PRODUCER));
    ck_assert(!pls_inbox_take_dead(p.inbox, &dead));
}
END_TEST

START_TEST(test_arm_refuses_while_there_is_work_of_any_kind)
{
    pls_bitmap taken;
    ck_assert_int_eq(pair_send(p.outbox, 1, 1), PLS_OK);
    pls_outbox_wake(p.outbox);
    ck_assert(!pls_inbox_arm(p.inbox));
    ck_assert_uint_eq(pop_all(), 1);
    pls_peer_ring_space(p.peer, 3);
    ck_assert(!pls_inbox_arm(p.inbox));
    ck_assert(pls_inbox_take_space(p.inbox, &taken));
    ck_assert_uint_eq(taken.word[0], 8);
    pls_peer_ring_dead(p.peer, 200);
    ck_assert(!pls_inbox_arm(p.inbox));
    ck_assert(pls_inbox_take_dead(p.inbox, &taken));
    ck_assert_uint_eq(pop_all(), 0);
    ck_assert(pls_inbox_arm(p.inbox));
    ck_assert(!readable());
    pls_inbox_disarm(p.inbox, false);
}
END_TEST

START_TEST(test_the_armed_are_signalled_once_and_the_awake_never)
{
    ck_assert_int_eq(pair_send(p.outbox, 1, 1), PLS_OK);
    ck_assert(!pls_outbox_wake(p.outbox));
    ck_assert(!readable());
    ck_assert_uint_eq(pop_all(), 1);
    ck_assert(pls_inbox_arm(p.inbox));
    ck_assert_int_eq(pair_send(p.outbox, 1, 1), PLS_OK);
    ck_assert(pls_outbox_wake(p.outbox));
    ck_assert(readable());
    ck_assert_int_eq(pair_send(p.outbox, 1, 1), PLS_OK);
    ck_assert(!pls_outbox_wake(p.outbox));
    pls_inbox_disarm(p.inbox, true);
    ck_assert(!readable());
    ck_assert_uint_eq(pop_all(), 2);
    ck_assert_uint_eq(pls_inbox_arm_count(p.inbox), 1);
}
END_TEST

START_TEST(test_signal_is_emptied_even_if_the_loop_woke_for_another_reason)
{
    ck_assert(pls_inbox_arm(p.inbox));
    pls_peer_wake(p.peer);
    ck_assert(readable());
    pls_inbox_disarm(p.inbox, false);
    ck_assert(!readable());
}
END_TEST

START_TEST(test_late_disarm_of_an_old_epoch_does_not_touch_a_new_arming)
{
    pls_inbox_header *header = pls_inbox_header_of(p.inbox);
    ck_assert(pls_inbox_arm(p.inbox));
    uint64_t old = atomic_load(&header->wake.word);
    pls_inbox_disarm(p.inbox, false);
    ck_assert(pls_inbox_arm(p.inbox));
    ck_assert(!atomic_compare_exchange_strong(&header->wake.word, &old, old + 1));
    ck_assert(pls_outbox_wake(p.outbox));
    pls_inbox_disarm(p.inbox, true);
}
END_TEST

START_TEST(test_rings_take_turns)
{
    pair other = {.inbox = p.inbox};
    pair_attach(&other, 1, 1, 65536);
    for (int i = 0; i < 60; i++) {
        ck_assert_int_eq(pair_send(p.outbox, 1, 1), PLS_OK);
    }
    for (int i = 0; i < 10; i++) {
        ck_assert_int_eq(pair_send(other.outbox, 8000 / 2, 2), PLS_OK);
    }
    pls_outbox_wake(p.outbox);
    uint32_t run = 0;
    uint32_t count = 0;
    uint32_t last = PLS_SLOTS_MAX;
    pls_message message;
    while (pls_inbox_pop(p.inbox, &message) == PLS_OK) {
        run = message.from_slot == last ? run + 1 : 1;
        last = message.from_slot;
        if (count == 0) {
            pls_outbox_wake(other.outbox);
        }
        count++;
        ck_assert(run <= 32 || count > 32 + 10);
        pls_inbox_release(p.inbox);
    }
    ck_assert_uint_eq(count, 70);
    pair_detach(&other);
}
END_TEST

START_TEST(test_a_ring_alone_is_read_without_a_limit)
{
    uint32_t sent = 0;
    while (pair_send(p.outbox, 0, 0) == PLS_OK) {
        sent++;
    }
    pls_outbox_wake(p.outbox);
    ck_assert_uint_eq(sent, 256);
    ck_assert_uint_eq(pop_all(), 256);
}
END_TEST

START_TEST(test_waiting_producer_is_owed_a_space_wake)
{
    pls_bitmap owed;
    while (pair_send(p.outbox, 240, 1) == PLS_OK) {
    }
    pls_outbox_wake(p.outbox);
    ck_assert(pls_outbox_want_space(p.outbox, 240));
    pls_message message;
    for (int i = 0; i < 7; i++) {
        ck_assert_int_eq(pls_inbox_pop(p.inbox, &message), PLS_OK);
        pls_inbox_release(p.inbox);
        ck_assert(!pls_inbox_take_owed(p.inbox, &owed));
    }
    ck_assert_int_eq(pls_inbox_pop(p.inbox, &message), PLS_OK);
    pls_inbox_release(p.inbox);
    ck_assert_uint_ne(pls_inbox_ready(p.inbox) & PLS_READY_OWED, 0);
    ck_assert_uint_eq(pop_all(), 8);
    ck_assert(!pls_inbox_arm(p.inbox));
    ck_assert(pls_inbox_take_owed(p.inbox, &owed));
    ck_assert_uint_eq(owed.word[PAIR_PRODUCER / 64], UINT64_C(1) << (PAIR_PRODUCER % 64));
    ck_assert(pls_inbox_arm(p.inbox));
    pls_inbox_disarm(p.inbox, false);
    ck_assert(!pls_outbox_want_space(p.outbox, 240));
}
END_TEST

START_TEST(test_wish_for_space_made_after_the_last_release_is_found_by_arm)
{
    pls_bitmap owed;
    pls_message message;
    ck_assert_int_eq(pair_send(p.outbox, 1, 1), PLS_OK);
    pls_outbox_wake(p.outbox);
    ck_assert_int_eq(pls_inbox_pop(p.inbox, &message), PLS_OK);
    pls_inbox_release(p.inbox);
    pls_ring_control *control = control_of_producer();
    atomic_store(&control->producer_waiting, 1);
    ck_assert(!pls_inbox_arm(p.inbox));
    ck_assert(pls_inbox_take_owed(p.inbox, &owed));
}
END_TEST

START_TEST(test_corrupt_ring_is_named_and_does_not_stop_others)
{
    pair other = {.inbox = p.inbox};
    pair_attach(&other, 1, 1, 4096);
    pls_ring_control *control = control_of_producer();
    atomic_store(&control->tail, 4096 * 4);
    pls_outbox_wake(p.outbox);
    ck_assert_int_eq(pair_send(other.outbox, 1, 1), PLS_OK);
    pls_outbox_wake(other.outbox);
    pls_message message;
    uint32_t got = 0;
    uint32_t corrupt = 0;
    pls_err err;
    while ((err = pls_inbox_pop(p.inbox, &message)) != PLS_EEMPTY) {
        if (err == PLS_OK) {
            got++;
            ck_assert_uint_eq(message.from_slot, 1);
            pls_inbox_release(p.inbox);
        } else {
            ck_assert_int_eq(err, PLS_ECORRUPT);
            ck_assert_uint_eq(pls_inbox_corrupt_slot(p.inbox), PAIR_PRODUCER);
            corrupt++;
        }
    }
    ck_assert_uint_eq(got, 1);
    ck_assert_uint_eq(corrupt, 1);
    pls_outbox_wake(p.outbox);
    ck_assert_uint_eq(pop_all(), 0);
    ck_assert(pls_inbox_arm(p.inbox));
    pls_inbox_disarm(p.inbox, false);
    ck_assert(pls_inbox_drained(p.inbox, PAIR_PRODUCER));
    pair_detach(&other);
}
END_TEST

START_TEST(test_forged_ring_geometry_is_ecorrupt)
{
    static const uint32_t capacities[] = {0, 16, 4097, 2 * PLS_RING_CAPACITY_MAX, 0xffffffff};
    pls_ring_control *control = control_of_producer();
    atomic_store(&control->capacity_bytes, capacities[_i]);
    pls_outbox_wake(p.outbox);
    pls_message message;
    ck_assert_int_eq(pls_inbox_pop(p.inbox, &message), PLS_ECORRUPT);
    ck_assert_int_eq(pls_inbox_pop(p.inbox, &message), PLS_EEMPTY);
    atomic_store(&control->capacity_bytes, 4096);
}
END_TEST

START_TEST(test_bells_for_rings_that_do_not_exist_are_nothing)
{
    pls_inbox_header *header = pls_inbox_header_of(p.inbox);
    for (unsigned i = 0; i < PLS_SLOT_WORDS; i++) {
        atomic_store(&header->bell[i].word, ~UINT64_C(0));
    }
    ck_assert_uint_eq(pop_all(), 0);
    ck_assert_uint_eq(pls_inbox_ready(p.inbox), 0);
    ck_assert(pls_inbox_arm(p.inbox));
    pls_inbox_disarm(p.inbox, false);
}
END_TEST

START_TEST(test_closed_ring_serves_the_next_epoch_from_zero)
{
    ck_assert_int_eq(pair_send(p.outbox, 100, 1), PLS_OK);
    pls_outbox_wake(p.outbox);
    pls_message message;
    ck_assert_int_eq(pls_inbox_pop(p.inbox, &message), PLS_OK);
    pls_inbox_started_store(p.inbox, PAIR_PRODUCER, 447, 12);
    ck_assert_uint_eq(pls_outbox_started_load(p.outbox, 447), 12);
    pls_inbox_release(p.inbox);
    pair_detach(&p);
    pls_peer *peer = pair_peer(p.inbox, PAIR_CONSUMER, PAIR_EPOCH);
    pls_outbox *outbox = NULL;
    ck_assert_int_eq(pls_outbox_attach(peer, PAIR_PRODUCER, 2, 4096, &outbox), PLS_EEXIST);
    pls_peer_release(peer);
    ck_assert_int_eq(pls_inbox_close_ring(p.inbox, PAIR_PRODUCER), PLS_OK);
    ck_assert(pls_inbox_check(p.inbox));
    pair_attach(&p, PAIR_PRODUCER, 2, 16384);
    ck_assert_uint_eq(pls_outbox_started_load(p.outbox, 447), 0);
    ck_assert_int_eq(pair_send(p.outbox, 100, 1), PLS_OK);
    pls_outbox_wake(p.outbox);
    ck_assert_int_eq(pls_inbox_pop(p.inbox, &message), PLS_OK);
    ck_assert_uint_eq(message.seq, 0);
    ck_assert_uint_eq(message.from_epoch, 2);
    pls_inbox_release(p.inbox);
}
END_TEST

START_TEST(test_timeout_without_work_counts_nothing_and_with_lost_wake_counts_one)
{
    ck_assert(pls_inbox_arm(p.inbox));
    pls_inbox_disarm_timeout(p.inbox);
    ck_assert_uint_eq(pls_inbox_recheck_found_work(p.inbox), 0);
    /* A bell without a signal is what a lost wake looks like. */
    ck_assert(pls_inbox_arm(p.inbox));
    atomic_fetch_or(&pls_inbox_header_of(p.inbox)->bell[1].word, 4);
    pls_inbox_disarm_timeout(p.inbox);
    ck_assert_uint_eq(pls_inbox_recheck_found_work(p.inbox), 1);
    ck_assert_uint_eq(pop_all(), 0);
    ck_assert(pls_inbox_arm(p.inbox));
    ck_assert(pls_outbox_wake(p.outbox));
    pls_inbox_disarm_timeout(p.inbox);
    ck_assert_uint_eq(pls_inbox_recheck_found_work(p.inbox), 1);
    ck_assert(!readable());
}
END_TEST

/* Whoever returns a lease tells of it only if the owner waits for memory. */
START_TEST(test_timeout_counts_a_returned_lease_only_if_it_was_waited_for)
{
    pls_inbox_header *header = pls_inbox_watch_returns(p.inbox);
    ck_assert(pls_inbox_arm(p.inbox));
    atomic_store(&header->returns, 1);
    pls_inbox_disarm_timeout(p.inbox);
    ck_assert_uint_eq(pls_inbox_recheck_found_work(p.inbox), 0);
    atomic_store(&header->returns, 0);
    atomic_store(&header->returns_wanted, 1);
    ck_assert(pls_inbox_arm(p.inbox));
    atomic_store(&header->returns, 1);
    pls_inbox_disarm_timeout(p.inbox);
    ck_assert_uint_eq(pls_inbox_recheck_found_work(p.inbox), 1);
}
END_TEST

START_TEST(test_pop_before_release_aborts)
{
    pls_message message;
    (void)!pair_send(p.outbox, 1, 1);
    pls_outbox_wake(p.outbox);
    (void)!pls_inbox_pop(p.inbox, &message);
    (void)!pls_inbox_pop(p.inbox, &message);
}
END_TEST

START_TEST(test_release_without_pop_aborts)
{
    pls_inbox_release(p.inbox);
}
END_TEST

START_TEST(test_closing_a_ring_that_holds_messages_aborts)
{
    (void)!pair_send(p.outbox, 1, 1);
    pls_outbox_wake(p.outbox);
    (void)!pls_inbox_close_ring(p.inbox, PAIR_PRODUCER);
}
END_TEST

START_TEST(test_started_word_beyond_the_table_aborts)
{
    (void)!pair_send(p.outbox, 1, 1);
    pls_outbox_wake(p.outbox);
    pls_message message;
    (void)!pls_inbox_pop(p.inbox, &message);
    pls_inbox_started_store(p.inbox, PAIR_PRODUCER, PLS_STARTED_MAX, 1);
}
END_TEST

START_TEST(test_a_started_word_only_rises)
{
    ck_assert_int_eq(pair_send(p.outbox, 1, 1), PLS_OK);
    pls_outbox_wake(p.outbox);
    pls_message message;
    ck_assert_int_eq(pls_inbox_pop(p.inbox, &message), PLS_OK);
    pls_inbox_started_store(p.inbox, PAIR_PRODUCER, 3, 12);
    pls_inbox_started_store(p.inbox, PAIR_PRODUCER, 3, 7);
    ck_assert_uint_eq(pls_outbox_started_load(p.outbox, 3), 12);
    pls_inbox_started_store(p.inbox, PAIR_PRODUCER, 3, 13);
    ck_assert_uint_eq(pls_outbox_started_load(p.outbox, 3), 13);
    pls_inbox_release(p.inbox);
}
END_TEST

START_TEST(test_taken_messages_are_counted_in_the_ring_of_their_epoch)
{
    ck_assert(!pls_inbox_is_open(p.inbox, PAIR_PRODUCER, PAIR_EPOCH));
    ck_assert_int_eq(pair_send(p.outbox, 1, 1), PLS_OK);
    pls_outbox_wake(p.outbox);
    pls_message message;
    ck_assert_int_eq(pls_inbox_pop(p.inbox, &message), PLS_OK);
    ck_assert(pls_inbox_is_open(p.inbox, PAIR_PRODUCER, message.from_epoch));
    ck_assert(!pls_inbox_is_open(p.inbox, PAIR_PRODUCER, message.from_epoch + 1));
    ck_assert(!pls_inbox_is_open(p.inbox, PAIR_PRODUCER + 1, message.from_epoch));
    ck_assert_uint_eq(pls_outbox_taken_load(p.outbox), 0);
    pls_inbox_taken_add(p.inbox, PAIR_PRODUCER);
    pls_inbox_taken_add(p.inbox, PAIR_PRODUCER);
    ck_assert_uint_eq(pls_outbox_taken_load(p.outbox), 2);
    pls_inbox_release(p.inbox);
    ck_assert_int_eq(pls_inbox_close_ring(p.inbox, PAIR_PRODUCER), PLS_OK);
    ck_assert(!pls_inbox_is_open(p.inbox, PAIR_PRODUCER, message.from_epoch));
    ck_assert_uint_eq(pls_outbox_taken_load(p.outbox), 0);
}
END_TEST

START_TEST(test_arming_twice_aborts)
{
    (void)!pls_inbox_arm(p.inbox);
    (void)!pls_inbox_arm(p.inbox);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("shm.inbox");
    TCase *tcase = tcase_create("inbox");
    tcase_set_timeout(tcase, 20);
    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_add_test(tcase, test_a_message_arrives_with_all_its_fields);
    tcase_add_test(tcase, test_committed_messages_are_found_after_a_death_without_a_bell);
    tcase_add_test(tcase, test_arm_refuses_while_there_is_work_of_any_kind);
    tcase_add_test(tcase, test_the_armed_are_signalled_once_and_the_awake_never);
    tcase_add_test(tcase, test_signal_is_emptied_even_if_the_loop_woke_for_another_reason);
    tcase_add_test(tcase, test_late_disarm_of_an_old_epoch_does_not_touch_a_new_arming);
    tcase_add_test(tcase, test_rings_take_turns);
    tcase_add_test(tcase, test_a_ring_alone_is_read_without_a_limit);
    tcase_add_test(tcase, test_waiting_producer_is_owed_a_space_wake);
    tcase_add_test(tcase, test_wish_for_space_made_after_the_last_release_is_found_by_arm);
    tcase_add_test(tcase, test_corrupt_ring_is_named_and_does_not_stop_others);
    tcase_add_loop_test(tcase, test_forged_ring_geometry_is_ecorrupt, 0, 5);
    tcase_add_test(tcase, test_bells_for_rings_that_do_not_exist_are_nothing);
    tcase_add_test(tcase, test_closed_ring_serves_the_next_epoch_from_zero);
    tcase_add_test(tcase, test_timeout_without_work_counts_nothing_and_with_lost_wake_counts_one);
    tcase_add_test(tcase, test_timeout_counts_a_returned_lease_only_if_it_was_waited_for);
    tcase_add_test_raise_signal(tcase, test_pop_before_release_aborts, SIGABRT);
    tcase_add_test_raise_signal(tcase, test_release_without_pop_aborts, SIGABRT);
    tcase_add_test_raise_signal(tcase, test_closing_a_ring_that_holds_messages_aborts, SIGABRT);
    tcase_add_test(tcase, test_a_started_word_only_rises);
    tcase_add_test(tcase, test_taken_messages_are_counted_in_the_ring_of_their_epoch);
    tcase_add_test_raise_signal(tcase, test_started_word_beyond_the_table_aborts, SIGABRT);
    tcase_add_test_raise_signal(tcase, test_arming_twice_aborts, SIGABRT);
    suite_add_tcase(suite, tcase);
    return check_run(suite);
}
