/* SPDX-License-Identifier: Apache-2.0 */
/* What a process sent before its end, and is read only after it. */
#include "node/pulsing_obituary.h"
#include "node/runtime_parts.h"
#include "tests/check_run.h"
#include "tests/node/crew.h"

#include <check.h>

#define LARGE_BYTES 100000

static crew c;
static crew_member *const a = &c.m[0];
static crew_member *const b = &c.m[1];

static pulsing_target *target_of(crew_member *m, uint64_t actor_id, bool restartable)
{
    pulsing_target *target = NULL;
    ck_assert_int_eq(pulsing_target_get(m->p, actor_id, 4, restartable, &target), PLS_OK);
    return target;
}

static void message_send(crew_member *m, pulsing_target *target, uint32_t number, uint32_t extra,
                         bool tell)
{
    pulsing_call call = {.method = "m", .method_bytes = 1, .tell = tell};
    pls_err err = crew_send(m, target, number, extra, call, NULL);
    ck_assert_msg(err == PLS_OK || err == PLS_EFULL, "message %u: %s", number, pls_err_name(err));
}

static void dead_in_directory_wait(uint32_t slot, uint32_t epoch)
{
    double until = world_now_ms() + 5000;
    while (pls_directory_state(a->p->info->directory, slot, epoch) != PLS_SLOT_DEAD) {
        ck_assert_double_lt(world_now_ms(), until);
        world_pause_ms(1);
    }
}

/* `a` alone: `b` is gone. */
static void a_until(const uint32_t *count, uint32_t least, int ms)
{
    pls_attach_event event;
    double until = world_now_ms() + ms;
    while (*count < least && world_now_ms() < until) {
        (void)pulsing_poll(a->p, 64, false);
        while (pulsing_notice(a->p, &event) == PLS_OK) {
        }
    }
}

/* Large payloads, one begun and two that wait behind it; `a` has dealt with the end of `b` before
 * it goes on. The last one is refused: nothing of it may be left. */
START_TEST(test_a_payload_that_waits_in_a_mailbox_outlives_its_sender)
{
    crew_begin(&c);
    crew_host(a, 8, PULSING_WAIT, 0);
    a->keep_running = true;
    uint32_t slot = pulsing_slot(b->p);
    uint32_t epoch = pulsing_epoch(b->p);
    pulsing_target *target = target_of(b, a->actor_id, _i == 1);
    for (uint32_t i = 0; i < 3; i++) {
        message_send(b, target, i, LARGE_BYTES, true);
    }
    crew_until(&c, &a->request_count, 1);
    pulsing_target_release(target);
    pulsing_close(b->p);
    b->p = NULL;
    uint32_t never = 0;
    dead_in_directory_wait(slot, epoch);
    a_until(&never, 1, 50);
    ck_assert_uint_eq(a->p->ends[slot].epoch, epoch);
    ck_assert_int_eq(a->p->links[slot].state, PLS_LINK_NONE);
    pulsing_actor_finished(a->p, a->actor, &a->requests[0].origin);
    a_until(&a->request_count, 2, 5000);
    ck_assert_uint_eq(a->request_count, 2);
    ck_assert_uint_eq(a->requests[1].number, 1);
    ck_assert_uint_eq(a->requests[1].payload_bytes, LARGE_BYTES + sizeof(uint32_t));
    pulsing_actor_remove(a->p, a->actor, "stopped");
    ck_assert_uint_eq(pls_views_open_count(a->p->views), 0);
    crew_end(&c);
}
END_TEST

/* The node has written the end, and its bell is still to be heard when the grace is over. */
START_TEST(test_an_unread_answer_comes_before_the_end)
{
    crew_begin(&c);
    crew_peer peer = crew_peer_start(&c, 1, 8, PULSING_WAIT);
    uint32_t slot = (uint32_t)(peer.actor_id >> 56);
    pulsing_target *target = target_of(a, peer.actor_id, false);
    message_send(a, target, 0, 0, false);
    double until = world_now_ms() + 5000;
    while (!pulsing_ready(a->p)) {
        ck_assert_double_lt(world_now_ms(), until);
        world_pause_ms(1);
    }
    crew_peer_kill(&peer);
    dead_in_directory_wait(slot, (uint32_t)(peer.actor_id >> 32) & 0xffffff);
    a->p->dying_until_ns[slot] = 1;
    a->p->dying_count++;
    pls_dying_check(a->p);
    crew_until(&c, &a->reply_count, 1);
    ck_assert_msg(a->replies[0].status == PULSING_OK, "%s", a->replies[0].text);
    pulsing_target_release(target);
    crew_end(&c);
}
END_TEST

int main(int argc, char **argv)
{
    crew_peer_main(argc, argv);
    Suite *suite = suite_create("node.last");
    TCase *tests = tcase_create("last");
    tcase_set_timeout(tests, 30);
    tcase_add_loop_test(tests, test_a_payload_that_waits_in_a_mailbox_outlives_its_sender, 0, 2);
    tcase_add_test(tests, test_an_unread_answer_comes_before_the_end);
    suite_add_tcase(suite, tests);
    return check_run(suite);
}
