/* SPDX-License-Identifier: Apache-2.0 */
/* The runtime between two attachments and killed processes: order, windows, overflow, deadlines,
 * cancellation, deaths, messages to oneself, large payloads, streams. */
#include "tests/check_run.h"
#include "tests/node/crew.h"

#include "base/limits.h"
#include "node/pulsing_obituary.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static crew c;
static crew_member *const a = &c.m[0];
static crew_member *const b = &c.m[1];
static const pulsing_call ask = {0};
static const pulsing_call tell = {.tell = true};

static pulsing_target *target_of(crew_member *from, uint64_t actor, uint32_t window,
                                 bool restartable)
{
    pulsing_target *target = NULL;
    ck_assert_int_eq(pulsing_target_get(from->p, actor, window, restartable, &target), PLS_OK);
    return target;
}

static void asked(pls_err err)
{
    ck_assert_msg(err == PLS_OK || err == PLS_EFULL, "%s", pls_err_name(err));
}

START_TEST(test_messages_of_one_sender_start_in_order)
{
    crew_begin(&c);
    crew_host(b, 4000, PULSING_WAIT, 0);
    pulsing_target *to_b = target_of(a, b->actor_id, 0, false);
    for (uint32_t n = 0; n < 3000; n++) {
        asked(crew_send(a, to_b, n, n % 500, n % 3 == 0 ? tell : ask, NULL));
    }
    crew_until(&c, &b->request_count, 3000);
    crew_until(&c, &a->reply_count, 2000);
    for (uint32_t n = 0; n < 3000; n++) {
        ck_assert_uint_eq(b->requests[n].number, n);
        ck_assert_uint_eq(b->requests[n].payload_bytes, 4 + n % 500);
    }
    ck_assert_uint_eq(pulsing_call_count(a->p), 0);
    pulsing_target_release(to_b);
    crew_end(&c);
}
END_TEST

START_TEST(test_a_window_bounds_what_is_under_way_and_credit_reopens_it)
{
    crew_begin(&c);
    crew_host(b, 3, PULSING_WAIT, 0);
    b->keep_running = true;
    pulsing_target *to_b = target_of(a, b->actor_id, 3, false);
    for (uint32_t n = 0; n < 10; n++) {
        pls_err err = crew_send(a, to_b, n, 0, n % 2 == 0 ? ask : tell, NULL);
        ck_assert_int_eq(err, n < 3 ? PLS_OK : PLS_EFULL);
        pulsing_sent_notify(a->p, a);
    }
    crew_until(&c, &b->request_count, 1);
    crew_rest(&c, 30);
    ck_assert_uint_eq(pulsing_actor_queued(b->actor), 2);
    for (uint32_t n = 0; n < 10; n++) {
        crew_until(&c, &b->request_count, n + 1);
        ck_assert_uint_eq(b->requests[n].number, n);
        ck_assert_uint_le(pulsing_actor_queued(b->actor), 2);
        pulsing_origin origin = b->requests[n].origin;
        if (origin.call_id != 0) {
            crew_answer(b, &origin, n);
        }
        pulsing_actor_finished(b->p, b->actor, &origin);
    }
    crew_until(&c, &a->reply_count, 5);
    crew_until(&c, &a->sent_count, 7);
    ck_assert_uint_eq(a->sent_count, 7);
    pulsing_target_release(to_b);
    crew_end(&c);
}
END_TEST

START_TEST(test_a_full_mailbox_rejects_or_drops_its_oldest)
{
    static const pulsing_overflow policies[] = {PULSING_REJECT, PULSING_DROP_OLDEST};
    pulsing_overflow policy = policies[_i];
    crew_begin(&c);
    crew_host(b, 2, policy, 0);
    b->keep_running = true;
    pulsing_target *to_b = target_of(a, b->actor_id, 0, false);
    for (uint32_t n = 0; n < 5; n++) {
        asked(crew_send(a, to_b, n, 0, ask, NULL));
    }
    crew_until(&c, &a->reply_count, 2);
    ck_assert_uint_eq(a->replies[0].status, PULSING_MAILBOX_FULL);
    ck_assert_uint_eq(a->replies[1].status, PULSING_MAILBOX_FULL);
    ck_assert_uint_eq(pulsing_actor_queued(b->actor), 2);
    pulsing_actor_finished(b->p, b->actor, &b->requests[0].origin);
    crew_until(&c, &b->request_count, 2);
    ck_assert_uint_eq(b->requests[1].number, policy == PULSING_REJECT ? 1 : 3);
    pulsing_target_release(to_b);
    crew_end(&c);
}
END_TEST

START_TEST(test_an_expired_request_is_not_started)
{
    crew_begin(&c);
    crew_host(b, 8, PULSING_WAIT, 0);
    pulsing_target *to_b = target_of(a, b->actor_id, 0, false);
    pulsing_call late = {.deadline_ns = pulsing_now_ns() - 1};
    asked(crew_send(a, to_b, 1, 0, late, NULL));
    crew_until(&c, &a->reply_count, 1);
    ck_assert_uint_eq(a->replies[0].status, PULSING_EXPIRED);
    ck_assert_uint_eq(b->request_count, 0);
    pulsing_target_release(to_b);
    crew_end(&c);
}
END_TEST

START_TEST(test_cancelling_reaches_waiting_queued_and_running_requests)
{
    uint64_t calls[4];
    crew_begin(&c);
    crew_host(b, 8, PULSING_WAIT, 0);
    b->keep_running = true;
    pulsing_target *to_b = target_of(a, b->actor_id, 3, false);
    for (uint32_t n = 0; n < 4; n++) {
        asked(crew_send(a, to_b, n, 0, ask, &calls[n]));
    }
    crew_until(&c, &b->request_count, 1);
    crew_rest(&c, 20);
    pulsing_call_cancel(a->p, calls[3]); /* waits here for credit */
    ck_assert_uint_eq(pulsing_call_count(a->p), 3);
    pulsing_call_cancel(a->p, calls[1]); /* waits in the mailbox */
    crew_until(&c, &b->cancel_count, 1);
    ck_assert_uint_eq(pulsing_actor_queued(b->actor), 1);
    pulsing_call_cancel(a->p, calls[0]); /* runs */
    crew_until(&c, &b->cancel_count, 2);
    crew_answer(b, &b->requests[0].origin, 0);
    pulsing_actor_finished(b->p, b->actor, &b->requests[0].origin);
    crew_until(&c, &b->request_count, 2);
    ck_assert_uint_eq(b->requests[1].number, 2);
    crew_answer(b, &b->requests[1].origin, 2);
    crew_until(&c, &a->reply_count, 1);
    ck_assert_uint_eq(a->replies[0].number, 2);
    ck_assert_uint_eq(pulsing_call_count(a->p), 0);
    pulsing_target_release(to_b);
    crew_end(&c);
}
END_TEST

/* A block is larger than what is written, and its end may hold what was written before. */
START_TEST(test_nobody_is_lent_more_of_a_block_than_what_was_written)
{
    crew_begin(&c);
    crew_host(b, 100, PULSING_WAIT, 0);
    pulsing_target *to_b = target_of(a, b->actor_id, 4, _i == 1);
    for (uint32_t n = 0; n < 20; n++) { /* most of them wait for credit */
        asked(crew_send(a, to_b, n, 100001 + n, ask, NULL));
    }
    crew_until(&c, &a->reply_count, 20);
    for (uint32_t n = 0; n < 20; n++) {
        ck_assert_uint_eq(b->requests[n].block_bytes, sizeof n + 100001 + n);
    }
    pulsing_target_release(to_b);
    crew_end(&c);
}
END_TEST

START_TEST(test_messages_to_oneself_come_in_order_with_their_blocks)
{
    crew_begin(&c);
    crew_host(a, 100, PULSING_WAIT, 0);
    pulsing_target *self = target_of(a, a->actor_id, 4, false);
    for (uint32_t n = 0; n < 20; n++) {
        asked(crew_send(a, self, n, n % 4 == 0 ? 100000 : 0, ask, NULL));
    }
    crew_until(&c, &a->reply_count, 20);
    for (uint32_t n = 0; n < 20; n++) {
        ck_assert_uint_eq(a->requests[n].number, n);
        ck_assert_uint_eq(a->replies[n].number, n);
        ck_assert_uint_eq(a->requests[n].block_bytes > 0, n % 4 == 0);
    }
    pulsing_target_release(self);
    crew_end(&c);
}
END_TEST

START_TEST(test_blocks_come_back_so_that_more_than_the_budget_passes)
{
    crew_begin(&c);
    crew_host(b, 100, PULSING_WAIT, 0);
    pulsing_target *to_b = target_of(a, b->actor_id, 0, false);
    for (uint32_t n = 0; n < 100; n++) {
        pls_err err = crew_send(a, to_b, n, 4u << 20, ask, NULL);
        asked(err);
        crew_until(&c, &a->reply_count, n + 1);
        ck_assert_uint_eq(b->requests[n].payload_bytes, 4 + (4u << 20));
    }
    pulsing_target_release(to_b);
    crew_end(&c);
}
END_TEST

START_TEST(test_the_death_of_a_process_ends_the_calls_to_it)
{
    crew_begin(&c);
    crew_peer peer = crew_peer_start(&c, 1, 8, PULSING_WAIT);
    pulsing_target *target = target_of(a, peer.actor_id, 4, false);
    for (uint32_t n = 0; n < 8; n++) {
        asked(crew_send(a, target, n, 0, ask, NULL));
    }
    crew_until(&c, &a->reply_count, 1);
    ck_assert_uint_eq(a->replies[0].status, PULSING_OK);
    crew_peer_kill(&peer);
    crew_until(&c, &a->reply_count, 8);
    for (uint32_t n = 1; n < 8; n++) {
        char pid[16];
        snprintf(pid, sizeof pid, "%d", (int)peer.pid);
        ck_assert_uint_eq(a->replies[n].status, PULSING_DIED);
        ck_assert_ptr_nonnull(strstr(a->replies[n].text, pid));
    }
    ck_assert_int_eq(crew_send(a, target, 9, 0, ask, NULL), PLS_EDEAD);
    ck_assert_ptr_nonnull(pulsing_target_death(target));
    ck_assert_uint_eq(pulsing_call_count(a->p), 0);
    pulsing_target_release(target);
    crew_end(&c);
}
END_TEST

static void dead_in_directory_wait(crew_member *m, uint32_t slot, uint32_t epoch)
{
    pls_death death = {0};
    double until = world_now_ms() + 5000;
    while (pulsing_death_get(m->p, slot, epoch, &death) != PLS_OK || death.state != PLS_SLOT_DEAD) {
        ck_assert_double_lt(world_now_ms(), until);
        world_pause_ms(1);
    }
}

/* The node keeps the slot of the dead until `b`, too, has acknowledged; `a` has been told (1) or
 * will be (0). */
START_TEST(test_no_message_goes_to_a_process_whose_end_is_over)
{
    crew_begin(&c);
    crew_peer dead = crew_peer_start(&c, 1, 8, PULSING_WAIT);
    uint32_t slot = (uint32_t)(dead.actor_id >> 56);
    crew_peer_kill(&dead);
    dead_in_directory_wait(a, slot, (uint32_t)(dead.actor_id >> 32) & 0xffffff);
    for (int i = 0; i < 50 && _i == 1; i++) {
        world_pause_ms(1);
        (void)pulsing_poll(a->p, 64, false);
    }
    pulsing_target *target = target_of(a, dead.actor_id, 4, false);
    ck_assert_int_eq(crew_send(a, target, 0, 0, ask, NULL), PLS_EDEAD);
    pulsing_target_release(target);
    crew_rest(&c, 50);
    crew_peer next = crew_peer_start(&c, 1, 8, PULSING_WAIT);
    ck_assert_uint_eq(next.actor_id >> 56, slot);
    target = target_of(a, next.actor_id, 4, false);
    asked(crew_send(a, target, 0, 0, ask, NULL));
    crew_until(&c, &a->reply_count, 1);
    ck_assert_uint_eq(a->replies[0].status, PULSING_OK);
    pulsing_target_release(target);
    crew_peer_kill(&next);
    crew_end(&c);
}
END_TEST

START_TEST(test_a_message_to_one_that_had_this_slot_before_is_refused)
{
    crew_begin(&c);
    crew_host(a, 8, PULSING_WAIT, 0);
    uint64_t other_epoch = (uint64_t)1 << 32;
    pulsing_target *target = target_of(a, a->actor_id ^ other_epoch, 4, false);
    ck_assert_int_eq(crew_send(a, target, 1, 0, ask, NULL), PLS_EDEAD);
    pulsing_target_release(target);
    pulsing_target *lasting = target_of(a, a->actor_id ^ other_epoch ^ 1, 4, true);
    ck_assert_int_eq(crew_send(a, lasting, 2, 0, ask, NULL), PLS_EDEAD);
    pulsing_target_release(lasting);
    ck_assert_uint_eq(pulsing_call_count(a->p), 0);
    crew_end(&c);
}
END_TEST

START_TEST(test_what_a_dead_restartable_actor_had_not_started_goes_again_in_order)
{
    uint64_t calls[12];
    crew_begin(&c);
    crew_peer peer = crew_peer_start(&c, 3, 8, PULSING_WAIT);
    pulsing_target *target = target_of(a, peer.actor_id, 8, true);
    for (uint32_t n = 0; n < 12; n++) {
        asked(crew_send(a, target, n, n == 6 ? 100000 : 0, ask, &calls[n]));
    }
    crew_until(&c, &a->reply_count, 3); /* 0, 1 and 2; 3 is being handled */
    crew_rest(&c, 50);
    pulsing_call_cancel(a->p, calls[5]);
    crew_rest(&c, 50);
    crew_peer_kill(&peer);
    crew_until(&c, &a->reply_count, 4);
    ck_assert_uint_eq(a->replies[3].status, PULSING_DIED);
    crew_rest(&c, 50);
    ck_assert_uint_eq(a->reply_count, 4);
    crew_host(b, 100, PULSING_WAIT, peer.actor_id);
    pulsing_target_move(a->p, peer.actor_id, pulsing_slot(b->p), pulsing_epoch(b->p));
    crew_until(&c, &a->reply_count, 11);
    crew_rest(&c, 20);
    static const uint32_t again[] = {4, 6, 7, 8, 9, 10, 11};
    ck_assert_uint_eq(b->request_count, 7);
    for (uint32_t i = 0; i < 7; i++) {
        ck_assert_uint_eq(b->requests[i].number, again[i]);
        ck_assert_uint_eq(a->replies[4 + i].status, PULSING_OK);
    }
    ck_assert_uint_eq(pulsing_call_count(a->p), 0);
    pulsing_target_release(target);
    crew_end(&c);
}
END_TEST

START_TEST(test_a_rejected_message_does_not_pass_for_the_start_of_those_that_wait)
{
    crew_begin(&c);
    crew_peer peer = crew_peer_start(&c, 1, 2, PULSING_REJECT);
    pulsing_target *target = target_of(a, peer.actor_id, 0, true);
    for (uint32_t n = 0; n < 6; n++) {
        asked(crew_send(a, target, n, 0, ask, NULL));
        crew_until(&c, &a->reply_count, n == 0 ? 1 : 0);
    }
    crew_until(&c, &a->reply_count, 3); /* 0; and 4 and 5, rejected */
    ck_assert_uint_eq(a->replies[2].status, PULSING_MAILBOX_FULL);
    crew_peer_kill(&peer);
    crew_until(&c, &a->reply_count, 4);
    ck_assert_uint_eq(a->replies[3].status, PULSING_DIED);
    crew_host(b, 8, PULSING_REJECT, peer.actor_id);
    pulsing_target_move(a->p, peer.actor_id, pulsing_slot(b->p), pulsing_epoch(b->p));
    crew_until(&c, &a->reply_count, 6);
    crew_rest(&c, 20);
    ck_assert_uint_eq(b->request_count, 2);
    ck_assert_uint_eq(b->requests[0].number, 2);
    ck_assert_uint_eq(b->requests[1].number, 3);
    pulsing_target_release(target);
    crew_end(&c);
}
END_TEST

static void item_send(crew_member *m, const pulsing_origin *reader, uint32_t number, bool end)
{
    pulsing_send send;
    ck_assert_int_eq(pulsing_stream_begin(m->p, reader, end, PULSING_OK, &send), PLS_OK);
    memcpy(send.at, &number, sizeof number);
    asked(pulsing_commit(m->p, &send, sizeof number, NULL, false));
}

START_TEST(test_a_stream_opens_flows_gives_room_and_ends)
{
    uint64_t call = 0;
    crew_begin(&c);
    uint64_t writer = pulsing_writer_add(b->p, b, NULL);
    ck_assert_uint_ne(writer, 0);
    ck_assert_int_eq(
        pulsing_stream_subscribe(a->p, pulsing_slot(b->p), pulsing_epoch(b->p), writer, a, &call),
        PLS_OK);
    crew_until(&c, &b->open_count, 1);
    ck_assert_uint_eq(b->reader.call_id, call);
    for (uint32_t n = 0; n < 50; n++) {
        item_send(b, &b->reader, n, false);
    }
    crew_until(&c, &a->item_count, 50);
    for (uint32_t n = 0; n < 50; n++) {
        ck_assert_uint_eq(a->items[n].number, n);
    }
    ck_assert_int_eq(
        pulsing_stream_signal(a->p, pulsing_slot(b->p), pulsing_epoch(b->p), writer, 50, false),
        PLS_OK);
    crew_until(&c, &b->room_count, 1);
    ck_assert_uint_eq(b->room_items, 50);
    item_send(b, &b->reader, 99, true);
    crew_until(&c, &a->reply_count, 1);
    ck_assert_uint_eq(a->replies[0].number, 99);
    ck_assert_uint_eq(pulsing_call_count(a->p), 0);
    pulsing_writer_remove(b->p, writer);
    crew_end(&c);
}
END_TEST

START_TEST(test_a_reader_that_stops_is_told_to_the_writer_and_a_late_one_that_it_is_gone)
{
    uint64_t call = 0;
    uint32_t slot = 0;
    crew_begin(&c);
    slot = pulsing_slot(b->p);
    uint64_t writer = pulsing_writer_add(b->p, b, NULL);
    ck_assert_int_eq(pulsing_stream_subscribe(a->p, slot, pulsing_epoch(b->p), writer, a, &call),
                     PLS_OK);
    crew_until(&c, &b->open_count, 1);
    pulsing_call_cancel(a->p, call);
    crew_until(&c, &b->room_count, 1);
    ck_assert_uint_eq(b->room_items, 0);
    pulsing_writer_remove(b->p, writer);
    ck_assert_int_eq(pulsing_stream_subscribe(a->p, slot, pulsing_epoch(b->p), writer, a, &call),
                     PLS_OK);
    crew_until(&c, &a->reply_count, 1);
    ck_assert_uint_eq(a->replies[0].status, PULSING_DIED);
    crew_end(&c);
}
END_TEST

START_TEST(test_stopping_drains_and_stopping_now_refuses)
{
    bool now = _i == 1;
    crew_begin(&c);
    crew_host(b, 8, PULSING_WAIT, 0);
    b->keep_running = true;
    pulsing_target *to_b = target_of(a, b->actor_id, 0, false);
    for (uint32_t n = 0; n < 3; n++) {
        asked(crew_send(a, to_b, n, 0, ask, NULL));
    }
    crew_until(&c, &b->request_count, 1);
    crew_rest(&c, 20);
    b->keep_running = false;
    pulsing_actor_stop(b->p, b->actor, now);
    ck_assert_uint_eq(b->drained_count, 0);
    crew_answer(b, &b->requests[0].origin, 0);
    pulsing_actor_finished(b->p, b->actor, &b->requests[0].origin);
    crew_until(&c, &a->reply_count, 3);
    crew_until(&c, &b->drained_count, 1);
    ck_assert_uint_eq(b->request_count, now ? 1 : 3);
    uint32_t died = 0;
    for (uint32_t n = 0; n < 3; n++) {
        died += a->replies[n].status == PULSING_DIED;
    }
    ck_assert_uint_eq(died, now ? 2 : 0);
    asked(crew_send(a, to_b, 7, 0, ask, NULL));
    crew_until(&c, &a->reply_count, 4);
    ck_assert_uint_eq(a->replies[3].status, PULSING_NO_ACTOR);
    pulsing_target_release(to_b);
    crew_end(&c);
}
END_TEST

int main(int argc, char **argv)
{
    crew_peer_main(argc, argv);
    Suite *suite = suite_create("node.runtime");
    TCase *tcase = tcase_create("runtime");
    tcase_set_timeout(tcase, 60);
    tcase_add_test(tcase, test_messages_of_one_sender_start_in_order);
    tcase_add_test(tcase, test_a_window_bounds_what_is_under_way_and_credit_reopens_it);
    tcase_add_loop_test(tcase, test_a_full_mailbox_rejects_or_drops_its_oldest, 0, 2);
    tcase_add_test(tcase, test_an_expired_request_is_not_started);
    tcase_add_test(tcase, test_cancelling_reaches_waiting_queued_and_running_requests);
    tcase_add_loop_test(tcase, test_nobody_is_lent_more_of_a_block_than_what_was_written, 0, 2);
    tcase_add_test(tcase, test_messages_to_oneself_come_in_order_with_their_blocks);
    tcase_add_test(tcase, test_blocks_come_back_so_that_more_than_the_budget_passes);
    tcase_add_test(tcase, test_the_death_of_a_process_ends_the_calls_to_it);
    tcase_add_loop_test(tcase, test_no_message_goes_to_a_process_whose_end_is_over, 0, 2);
    tcase_add_test(tcase, test_a_message_to_one_that_had_this_slot_before_is_refused);
    tcase_add_test(tcase, test_what_a_dead_restartable_actor_had_not_started_goes_again_in_order);
    tcase_add_test(tcase, test_a_rejected_message_does_not_pass_for_the_start_of_those_that_wait);
    tcase_add_test(tcase, test_a_stream_opens_flows_gives_room_and_ends);
    tcase_add_test(tcase,
                   test_a_reader_that_stops_is_told_to_the_writer_and_a_late_one_that_it_is_gone);
    tcase_add_loop_test(tcase, test_stopping_drains_and_stopping_now_refuses, 0, 2);
    suite_add_tcase(suite, tcase);
    return check_run(suite);
}
