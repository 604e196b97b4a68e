/* SPDX-License-Identifier: Apache-2.0 */
/* Messages to restartable actors: `a` keeps them, `b` hosts, and the started words of their one
 * ring are fewer than the actors. */
#include "shm/layout.h"
#include "tests/check_run.h"
#include "tests/node/crew.h"

#include <check.h>
#include <stdlib.h>

#define COMERS 2000
#define CROWD (PLS_STARTED_MAX + 150)

_Static_assert(COMERS > 4 * PLS_STARTED_MAX, "each word is needed several times");
_Static_assert(COMERS * 2 <= CREW_NOTES_MAX, "every message is noted");

static crew c;
static crew_member *const a = &c.m[0];
static crew_member *const b = &c.m[1];

static pulsing_target *target_of(uint64_t actor_id, uint32_t window)
{
    pulsing_target *target = NULL;
    ck_assert_int_eq(pulsing_target_get(a->p, actor_id, window, true, &target), PLS_OK);
    return target;
}

static void message_send(pulsing_target *target, uint32_t number, bool tell)
{
    pulsing_call call = {.method = "m", .method_bytes = 1, .tell = tell};
    pls_err err = crew_send(a, target, number, 0, call, NULL);
    ck_assert_msg(err == PLS_OK || err == PLS_EFULL, "message %u: %s", number, pls_err_name(err));
}

/* Until `a` keeps nothing that might have to go again. */
static void nothing_is_kept(void)
{
    double until = world_now_ms() + 5000;
    while (pulsing_unfinished_count(a->p) > 0) {
        ck_assert_msg(world_now_ms() < until, "%u messages are kept",
                      pulsing_unfinished_count(a->p));
        crew_turn(&c);
    }
}

START_TEST(test_more_restartable_actors_come_and_go_than_there_are_words)
{
    crew_begin(&c);
    for (uint32_t i = 0; i < COMERS; i++) {
        crew_host(b, 8, PULSING_WAIT, 0);
        pulsing_target *target = target_of(b->actor_id, 8);
        message_send(target, i, true);
        message_send(target, i, false);
        crew_until(&c, &a->reply_count, i + 1);
        ck_assert_uint_eq(a->replies[i].status, PULSING_OK);
        ck_assert_uint_eq(a->replies[i].number, i);
        pulsing_actor_remove(b->p, b->actor, "stopped");
        pulsing_target_release(target);
    }
    ck_assert_uint_eq(b->request_count, 2 * COMERS);
    nothing_is_kept();
    crew_end(&c);
}
END_TEST

/* `b` takes nothing in until all was sent. */
START_TEST(test_messages_under_way_to_more_actors_than_there_are_words_wait)
{
    static pulsing_target *targets[CROWD];
    static uint8_t seen[2 * CROWD];
    crew_begin(&c);
    for (uint32_t i = 0; i < CROWD; i++) {
        crew_host(b, 8, PULSING_WAIT, 0);
        targets[i] = target_of(b->actor_id, 0);
    }
    for (uint32_t i = 0; i < CROWD; i++) {
        message_send(targets[i], 2 * i, true);
        message_send(targets[i], 2 * i + 1, false);
    }
    crew_until(&c, &a->reply_count, CROWD);
    ck_assert_uint_eq(b->request_count, 2 * CROWD);
    for (uint32_t i = 0; i < 2 * CROWD; i++) {
        uint32_t number = b->requests[i].number;
        ck_assert_uint_lt(number, 2 * CROWD);
        ck_assert_msg(seen[number]++ == 0, "message %u came twice", number);
        ck_assert_msg(number % 2 == 0 || seen[number - 1] == 1, "%u overtook the tell before it",
                      number);
    }
    nothing_is_kept();
    for (uint32_t i = 0; i < CROWD; i++) {
        pulsing_target_release(targets[i]);
    }
    crew_end(&c);
}
END_TEST

/* The same, with `a` asleep between its turns, as a program without an event loop is. */
START_TEST(test_a_sleeper_looks_again_for_a_word)
{
    static pulsing_target *targets[CROWD];
    crew_begin(&c);
    for (uint32_t i = 0; i < CROWD; i++) {
        crew_host(b, 8, PULSING_WAIT, 0);
        targets[i] = target_of(b->actor_id, 0);
        message_send(targets[i], i, true);
    }
    double before = world_now_ms();
    ck_assert_int_eq(pulsing_wait(a->p, 5000), PLS_OK);
    ck_assert_msg(world_now_ms() - before < 2500, "it slept for %.0f ms", world_now_ms() - before);
    (void)pulsing_poll(b->p, CROWD, false);
    ck_assert_uint_eq(b->request_count, PLS_STARTED_MAX);
    (void)pulsing_poll(a->p, CROWD, false);
    (void)pulsing_poll(b->p, CROWD, false);
    ck_assert_uint_eq(b->request_count, CROWD);
    crew_end(&c);
}
END_TEST

/* One is handled, one waits, and those after it find the mailbox full or are cancelled. */
START_TEST(test_what_was_refused_is_not_kept_and_passes_nothing_that_waits)
{
    uint64_t cancelled = 0;
    pulsing_call call = {.method = "m", .method_bytes = 1};
    crew_begin(&c);
    crew_host(b, 2, PULSING_REJECT, 0);
    b->keep_running = true;
    pulsing_target *target = target_of(b->actor_id, 0);
    message_send(target, 0, true);
    crew_until(&c, &b->request_count, 1);
    message_send(target, 1, true);
    ck_assert_int_eq(crew_send(a, target, 2, 0, call, &cancelled), PLS_OK);
    message_send(target, 3, true);
    message_send(target, 4, false);
    crew_until(&c, &a->reply_count, 1);
    ck_assert_uint_eq(a->replies[0].status, PULSING_MAILBOX_FULL);
    pulsing_call_cancel(a->p, cancelled);
    crew_rest(&c, 20);
    ck_assert_msg(pulsing_unfinished_count(a->p) == 4, "%u messages are kept, 1 to 4 must be",
                  pulsing_unfinished_count(a->p));
    pulsing_actor_finished(b->p, b->actor, &b->requests[0].origin);
    crew_until(&c, &b->request_count, 2);
    ck_assert_uint_eq(b->requests[1].number, 1);
    nothing_is_kept();
    pulsing_target_release(target);
    crew_end(&c);
}
END_TEST

int main(int argc, char **argv)
{
    crew_peer_main(argc, argv);
    Suite *suite = suite_create("node.retain");
    TCase *tests = tcase_create("retain");
    tcase_set_timeout(tests, 60);
    tcase_add_test(tests, test_more_restartable_actors_come_and_go_than_there_are_words);
    tcase_add_test(tests, test_messages_under_way_to_more_actors_than_there_are_words_wait);
    tcase_add_test(tests, test_a_sleeper_looks_again_for_a_word);
    tcase_add_test(tests, test_what_was_refused_is_not_kept_and_passes_nothing_that_waits);
    suite_add_tcase(suite, tests);
    return check_run(suite);
}
