/* SPDX-License-Identifier: Apache-2.0 */
/* Asks that wait for each other, between two runtimes and inside of one. A patrol is what a timer
 * starts in a program; here the test does, so that nothing has to wait. */
#include "tests/check_run.h"
#include "tests/node/crew.h"

#include "node/runtime_parts.h"

#include <check.h>
#include <stdlib.h>
#include <string.h>

static crew c;
static crew_member *const left = &c.m[0];
static crew_member *const right = &c.m[1];

static void host(crew_member *m, const char *name)
{
    crew_host(m, 8, PULSING_WAIT, 0);
    pulsing_actor_name(m->actor, name, (uint8_t)strlen(name));
    m->keep_running = true;
}

/* The member's actor handles a message, and has not answered it. */
static void occupy(crew_member *m, crew_member *by)
{
    pulsing_target *target = NULL;
    uint32_t requests = m->request_count;
    ck_assert_int_eq(pulsing_target_get(by->p, m->actor_id, 8, false, &target), PLS_OK);
    ck_assert_int_eq(crew_send(by, target, 1, 0, (pulsing_call){0}, NULL), PLS_OK);
    crew_until(&c, &m->request_count, requests + 1);
    pulsing_target_release(target);
}

static uint64_t ask(crew_member *from, const crew_member *to)
{
    uint64_t call = 0;
    pulsing_target *target = NULL;
    ck_assert_int_eq(pulsing_target_get(from->p, to->actor_id, 8, false, &target), PLS_OK);
    pls_err err = crew_send(from, target, 2, 0, (pulsing_call){.sender_id = from->actor_id}, &call);
    ck_assert(err == PLS_OK || err == PLS_EFULL);
    pulsing_target_release(target);
    crew_rest(&c, 2);
    return call;
}

static void patrols(int count)
{
    for (int i = 0; i < count; i++) {
        (void)pulsing_patrol(left->p, 0);
        (void)pulsing_patrol(right->p, 0);
        crew_rest(&c, 3);
    }
}

static void begin(void)
{
    crew_begin(&c);
    host(left, "left");
    host(right, "right");
    occupy(left, right);
    occupy(right, left);
}

START_TEST(test_the_younger_of_two_asks_that_cross_fails_with_the_names)
{
    begin();
    pulsing_call_awaited(left->p, ask(left, right), true);
    ck_assert_int_gt(pulsing_patrol(left->p, 0), 0); /* seen first */
    pulsing_call_awaited(right->p, ask(right, left), true);
    uint32_t left_replies = left->reply_count;
    uint32_t right_replies = right->reply_count;
    patrols(3);
    ck_assert_uint_eq(left->reply_count, left_replies);
    ck_assert_uint_eq(right->reply_count, right_replies + 1);
    ck_assert_uint_eq(right->replies[right_replies].status, PULSING_DEADLOCK);
    ck_assert_str_eq(right->replies[right_replies].text,
                     "asks wait for each other: right -> left -> right");
    crew_end(&c);
}
END_TEST

START_TEST(test_an_ask_that_nobody_is_suspended_on_is_no_circle)
{
    begin();
    pulsing_call_awaited(left->p, ask(left, right), true);
    uint64_t other = ask(right, left);
    uint32_t replies = left->reply_count + right->reply_count;
    patrols(4);
    ck_assert_uint_eq(left->reply_count + right->reply_count, replies);
    pulsing_call_awaited(right->p, other, true); /* suspended on it after all */
    patrols(1);
    ck_assert_uint_eq(left->reply_count + right->reply_count, replies + 1);
    crew_end(&c);
}
END_TEST

/* What the edge rests on was answered meanwhile: the asked actor does something else now. */
START_TEST(test_an_ask_that_was_answered_is_no_edge)
{
    begin();
    uint64_t call = ask(left, right);
    pulsing_call_awaited(left->p, call, true);
    patrols(2);
    crew_answer(right, &right->requests[0].origin, 1);
    pulsing_actor_finished(right->p, right->actor, &right->requests[0].origin);
    crew_until(&c, &right->request_count, 2); /* the ask of left runs now, and asks back */
    pulsing_call_awaited(right->p, ask(right, left), true);
    uint32_t replies = left->reply_count + right->reply_count;
    patrols(3);
    ck_assert_uint_eq(left->reply_count + right->reply_count, replies + 1);
    crew_end(&c);
}
END_TEST

/* A probe of the ask that left waits on, as if right's actor waited for left by `call`. */
static void probe_forge(uint64_t left_call, uint64_t right_call)
{
    pls_wire_probe head = {.actor_id = left->actor_id,
                           .call_id = left_call,
                           .since_ns = pulsing_now_ns(),
                           .epoch = pulsing_epoch(left->p),
                           .slot = (uint16_t)pulsing_slot(left->p)};
    pls_wire_link links[2] = {{.actor_id = left->actor_id, .call_id = left_call},
                              {.actor_id = right->actor_id, .call_id = right_call}};
    uint8_t bytes[sizeof head + sizeof links];
    pls_link *link = NULL;
    uint8_t *room = NULL;
    memcpy(bytes, &head, sizeof head);
    memcpy(bytes + sizeof head, links, sizeof links);
    pulsing *p = right->p;
    ck_assert_int_eq(pls_link_get(p, pulsing_slot(left->p), pulsing_epoch(left->p), true, &link),
                     PLS_OK);
    ck_assert_int_eq(pls_outbox_reserve(link->outbox, sizeof bytes, &room), PLS_OK);
    memcpy(room, bytes, sizeof bytes);
    pls_outbox_commit(link->outbox, sizeof bytes, PLS_WIRE_PROBE, 0, 0);
    pls_outbox_wake(link->outbox);
    crew_rest(&c, 3);
}

/* It was answered while the probe was on its way: no edge, so no circle. */
START_TEST(test_a_probe_along_an_ask_that_is_not_here_is_dropped)
{
    begin();
    uint64_t call = ask(left, right);
    pulsing_call_awaited(left->p, call, true);
    uint64_t back = ask(right, left);
    pulsing_call_awaited(right->p, back, true);
    probe_forge(call, back + 1);
    ck_assert_uint_eq(left->reply_count, 0);
    probe_forge(call, back);
    ck_assert_uint_eq(left->reply_count, 1);
    ck_assert_uint_eq(left->replies[0].status, PULSING_DEADLOCK);
    crew_end(&c);
}
END_TEST

START_TEST(test_an_actor_that_asks_itself_is_found)
{
    crew_begin(&c);
    host(left, "left");
    occupy(left, right);
    pulsing_call_awaited(left->p, ask(left, left), true);
    uint32_t replies = left->reply_count;
    ck_assert_int_gt(pulsing_patrol(left->p, 0), 0);
    ck_assert_int_gt(pulsing_patrol(left->p, 0), 0);
    ck_assert_uint_eq(left->reply_count, replies + 1);
    ck_assert_str_eq(left->replies[replies].text, "asks wait for each other: left -> left");
    crew_end(&c);
}
END_TEST

START_TEST(test_a_patrol_without_calls_wants_no_other)
{
    crew_begin(&c);
    ck_assert_int_eq(pulsing_patrol(left->p, 1), 0);
    crew_end(&c);
}
END_TEST

int main(int argc, char **argv)
{
    crew_peer_main(argc, argv);
    Suite *suite = suite_create("node.cycle");
    TCase *tcase = tcase_create("cycle");
    tcase_set_timeout(tcase, 60);
    tcase_add_test(tcase, test_the_younger_of_two_asks_that_cross_fails_with_the_names);
    tcase_add_test(tcase, test_an_ask_that_nobody_is_suspended_on_is_no_circle);
    tcase_add_test(tcase, test_an_ask_that_was_answered_is_no_edge);
    tcase_add_test(tcase, test_a_probe_along_an_ask_that_is_not_here_is_dropped);
    tcase_add_test(tcase, test_an_actor_that_asks_itself_is_found);
    tcase_add_test(tcase, test_a_patrol_without_calls_wants_no_other);
    suite_add_tcase(suite, tcase);
    return check_run(suite);
}
