/* SPDX-License-Identifier: Apache-2.0 */
/* What was told to a process and dies with it is counted, once, by who told it. */
#include "node/runtime_parts.h"
#include "tests/check_run.h"
#include "tests/node/crew.h"

#include <check.h>
#include <signal.h>

#define ANSWERS 10
#define LOST 20
#define LARGE_BYTES 4000
#define LARGE_TELLS 200

static crew c;
static crew_member *const a = &c.m[0];
static crew_member *const b = &c.m[1];

static pulsing_target *target_of(uint64_t actor_id, uint32_t window, bool restartable)
{
    pulsing_target *target = NULL;
    ck_assert_int_eq(pulsing_target_get(a->p, actor_id, window, restartable, &target), PLS_OK);
    return target;
}

static void message_send(pulsing_target *target, uint32_t number, uint32_t extra, bool tell)
{
    pulsing_call call = {.method = "m", .method_bytes = 1, .tell = tell};
    pls_err err = crew_send(a, target, number, extra, call, NULL);
    ck_assert_msg(err == PLS_OK || err == PLS_EFULL, "message %u: %s", number, pls_err_name(err));
}

static void tells_send(pulsing_target *target, uint32_t first, uint32_t count)
{
    for (uint32_t i = first; i < first + count; i++) {
        message_send(target, i, 0, true);
    }
}

static uint64_t letters(void)
{
    return pulsing_dead_letters(a->p, PULSING_DIED);
}

static void letters_are(uint64_t count)
{
    double until = world_now_ms() + 10000;
    while (letters() < count) {
        ck_assert_msg(world_now_ms() < until, "%u of %u were counted", (unsigned)letters(),
                      (unsigned)count);
        crew_turn(&c);
    }
    crew_rest(&c, 30);
    ck_assert_uint_eq(letters(), count);
}

static void link_is_gone(uint32_t slot)
{
    double until = world_now_ms() + 10000;
    while (a->p->links[slot].state != PLS_LINK_NONE) {
        ck_assert_double_lt(world_now_ms(), until);
        (void)pulsing_poll(a->p, 64, false);
    }
}

static void b_leaves(uint32_t slot)
{
    pulsing_close(b->p);
    b->p = NULL;
    link_is_gone(slot);
}

static void taken_are(const crew_peer *peer, uint64_t count)
{
    const pls_outbox *outbox = a->p->links[pls_actor_id_slot(peer->actor_id)].outbox;
    double until = world_now_ms() + 10000;
    while (pls_outbox_taken_load(outbox) < count) {
        ck_assert_double_lt(world_now_ms(), until);
        crew_turn(&c);
    }
    ck_assert_uint_eq(pls_outbox_taken_load(outbox), count);
}

/* The first ones are handled, one more is begun; of all these the peer has credited a part, or
 * (first round) none. What follows waits: in its mailbox, in the ring, and here for credit. */
START_TEST(test_what_waits_when_its_process_is_killed_is_counted_and_nothing_else)
{
    uint32_t window = _i == 0 ? 64 : 4;
    crew_begin(&c);
    crew_peer peer = crew_peer_start(&c, ANSWERS, window, PULSING_WAIT);
    pulsing_target *target = target_of(peer.actor_id, window, false);
    tells_send(target, 0, ANSWERS);
    message_send(target, 0, 0, false);
    tells_send(target, ANSWERS, 1);
    taken_are(&peer, ANSWERS + 1);
    crew_until(&c, &a->reply_count, 1);
    tells_send(target, ANSWERS + 1, LOST / 2);
    message_send(target, 0, 0, false);
    crew_rest(&c, 20);
    kill(peer.pid, SIGSTOP);
    tells_send(target, ANSWERS + 1, LOST / 2);
    message_send(target, 0, 0, false);
    ck_assert_uint_eq(letters(), 0);
    crew_peer_kill(&peer);
    letters_are(LOST);
    crew_until(&c, &a->reply_count, 3);
    ck_assert_uint_eq(a->replies[1].status, PULSING_DIED);
    ck_assert_uint_eq(a->replies[2].status, PULSING_DIED);
    pulsing_target_release(target);
    crew_end(&c);
}
END_TEST

/* They fill the ring, and the queue behind it: some were never in the ring. */
START_TEST(test_what_did_not_fit_into_the_ring_is_counted_once)
{
    crew_begin(&c);
    crew_peer peer = crew_peer_start(&c, ANSWERS, LARGE_TELLS, PULSING_WAIT);
    pulsing_target *target = target_of(peer.actor_id, 0, false);
    message_send(target, 0, 0, false);
    crew_until(&c, &a->reply_count, 1);
    kill(peer.pid, SIGSTOP);
    for (uint32_t i = 0; i < LARGE_TELLS; i++) {
        message_send(target, ANSWERS, LARGE_BYTES, true);
    }
    ck_assert_uint_gt(a->p->links[pls_actor_id_slot(peer.actor_id)].queue.count, 0);
    crew_peer_kill(&peer);
    letters_are(LARGE_TELLS);
    pulsing_target_release(target);
    crew_end(&c);
}
END_TEST

/* Kept messages go again to the rebuilt actor, or are lost when it is given up (1). */
START_TEST(test_what_is_kept_for_a_restart_is_counted_only_when_it_never_comes)
{
    crew_begin(&c);
    crew_peer peer = crew_peer_start(&c, ANSWERS, 64, PULSING_WAIT);
    pulsing_target *target = target_of(peer.actor_id, 64, true);
    tells_send(target, 0, ANSWERS);
    message_send(target, 0, 0, false);
    crew_until(&c, &a->reply_count, 1);
    kill(peer.pid, SIGSTOP);
    tells_send(target, ANSWERS, LOST);
    message_send(target, 0, 0, false);
    crew_peer_kill(&peer);
    link_is_gone(pls_actor_id_slot(peer.actor_id));
    ck_assert_uint_eq(letters(), 0);
    if (_i == 0) {
        crew_host(b, 64, PULSING_WAIT, peer.actor_id);
        pulsing_target_move(a->p, peer.actor_id, pulsing_slot(b->p), pulsing_epoch(b->p));
        crew_until(&c, &b->request_count, LOST + 1);
        letters_are(0);
    } else {
        pulsing_target_kill(a->p, peer.actor_id, PULSING_DIED, "given up");
        letters_are(LOST);
    }
    crew_until(&c, &a->reply_count, 2);
    ck_assert_uint_eq(a->replies[1].status, _i == 0 ? PULSING_OK : PULSING_DIED);
    pulsing_target_release(target);
    crew_end(&c);
}
END_TEST

/* The actor is given up while its process lives, which refuses what is kept and counts it. */
START_TEST(test_who_refuses_counts_and_no_other)
{
    crew_begin(&c);
    crew_host(b, 64, PULSING_WAIT, 0);
    uint32_t slot = pulsing_slot(b->p);
    pulsing_target *target = target_of(b->actor_id, 64, _i == 1);
    tells_send(target, 0, 1);
    crew_until(&c, &b->request_count, 1);
    pulsing_actor_remove(b->p, b->actor, "removed");
    tells_send(target, 1, 3);
    if (_i == 1) {
        pulsing_target_kill(a->p, b->actor_id, PULSING_DIED, "it has been stopped");
    }
    crew_rest(&c, 30);
    ck_assert_uint_eq(pulsing_dead_letters(b->p, PULSING_NO_ACTOR), 3);
    b_leaves(slot);
    ck_assert_uint_eq(letters(), 0);
    pulsing_target_release(target);
    crew_end(&c);
}
END_TEST

/* A process that writes nonsense into its memory before it dies does not raise the figure beyond
 * what was told, nor wrap it around. */
START_TEST(test_more_taken_than_told_is_nothing_lost)
{
    crew_begin(&c);
    crew_host(b, 64, PULSING_WAIT, 0);
    uint32_t slot = pulsing_slot(b->p);
    pulsing_target *target = target_of(b->actor_id, 64, false);
    tells_send(target, 0, 1);
    crew_until(&c, &b->request_count, 1);
    pls_inbox_taken_add(b->p->inbox, pulsing_slot(a->p));
    b_leaves(slot);
    ck_assert_uint_eq(letters(), 0);
    pulsing_target_release(target);
    crew_end(&c);
}
END_TEST

int main(int argc, char **argv)
{
    crew_peer_main(argc, argv);
    Suite *suite = suite_create("node.letters");
    TCase *tests = tcase_create("letters");
    tcase_set_timeout(tests, 30);
    tcase_add_loop_test(
        tests, test_what_waits_when_its_process_is_killed_is_counted_and_nothing_else, 0, 2);
    tcase_add_test(tests, test_what_did_not_fit_into_the_ring_is_counted_once);
    tcase_add_loop_test(tests, test_what_is_kept_for_a_restart_is_counted_only_when_it_never_comes,
                        0, 2);
    tcase_add_loop_test(tests, test_who_refuses_counts_and_no_other, 0, 2);
    tcase_add_test(tests, test_more_taken_than_told_is_nothing_lost);
    suite_add_tcase(suite, tests);
    return check_run(suite);
}
