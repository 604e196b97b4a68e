/* SPDX-License-Identifier: Apache-2.0 */
/* SIGKILL after every instruction of clearing up after somebody else's death, and of leaving. */
#include "tests/stress/stage.h"

#include "base/assert.h"
#include "tests/stress/kill_main.h"

#include <unistd.h>

static void somebody_died(stage *s)
{
    stage_dead_commits(s);
}

/* The victim is a node that tells of a death and dies of it; the survivor's stage rings again, as
 * the next reaper would. */
static void ring_dead_act(victim *v)
{
    pls_peer_ring_dead(v->survivor, STAGE_DEAD);
}

static const stage_op ring_dead = {
    .name = "ring a death",
    .points_min = 30,
    .set = somebody_died,
    .act = ring_dead_act,
    .notifies = true,
};

static void letter_commit(pls_outbox *outbox, uint32_t id)
{
    uint8_t *room = NULL;
    ck_assert_int_eq(pls_outbox_reserve(outbox, LETTER_BYTES + 40, &room), PLS_OK);
    letter_write(room, STAGE_EPOCH, id, 40);
    (void)pls_outbox_commit(outbox, LETTER_BYTES + 40, LETTER_TYPE, 0, 0);
}

/* Somebody has written to the victim without ringing and died; the node tells the victim. The
 * survivor's block and letter are there too. */
static void victim_hears_of_a_death(stage *s)
{
    pls_peer *peer = NULL;
    pls_outbox *dead = NULL;
    stage_check(s, pls_peer_attach(dup(s->victim_memfd), dup(s->victim_eventfd), STAGE_VICTIM,
                                   s->epoch, &peer) == PLS_OK);
    stage_check(s, pls_outbox_attach(peer, STAGE_DEAD, STAGE_EPOCH, STAGE_RING_BYTES, &dead) ==
                       PLS_OK);
    letter_commit(dead, 1);
    letter_commit(dead, 2);
    pls_peer_ring_dead(peer, STAGE_DEAD);
    pls_outbox_detach(dead);
    pls_peer_release(peer);
    stage_send_open(s);
    stage_check(s, stage_send(s, 20000, true) == PLS_OK);
}

/* It has lent something to the dead one and something to the survivor. */
static void lend_to_both(victim *v)
{
    pls_block *block = NULL;
    pls_descriptor descriptor;
    pls_arena_loan loan = {.len = 100, .slot = STAGE_DEAD, .epoch = STAGE_EPOCH};
    victim_attach(v);
    victim_send_enclosed(v, 20000);
    (void)pls_outbox_wake(v->outbox);
    pls_assert(pls_arena_alloc(v->arena, 9000, &block) == PLS_OK);
    pls_assert(pls_arena_lend(v->arena, block, &loan, &descriptor) == PLS_OK);
    pls_arena_unhold(v->arena, block);
}

static void reap_act(victim *v)
{
    pls_bitmap dead;
    (void)pls_inbox_take_dead(v->inbox, &dead);
    while (victim_pop(v, true)) {
        pls_inbox_release(v->inbox);
    }
    (void)pls_arena_reap(v->arena, STAGE_DEAD, STAGE_EPOCH);
    pls_views_owner_dead(v->views, STAGE_DEAD, STAGE_EPOCH);
    pls_assert(pls_inbox_drained(v->inbox, STAGE_DEAD));
    pls_assert(pls_inbox_close_ring(v->inbox, STAGE_DEAD) == PLS_OK);
}

static const stage_op reap = {
    .name = "reap",
    .points_min = 500,
    .set = victim_hears_of_a_death,
    .prepare = lend_to_both,
    .act = reap_act,
    .letters_before = 1,
};

/* The node's part at the end of a process that let go in good order, and that process's own. */
static void leave_act(victim *v)
{
    pls_outbox_detach(v->outbox);
    pls_peer_release(v->survivor);
    pls_views_destroy(v->views);
    pls_arena_destroy(v->arena);
    pls_inbox_destroy(v->inbox);
}

static const stage_op leave = {
    .name = "leave",
    .points_min = 150,
    .prepare = lend_to_both,
    .act = leave_act,
    .letters_before = 1,
};

static const stage_op *const operations[] = {&ring_dead, &reap, &leave};

START_TEST(test_a_reaper_killed_after_any_instruction_harms_nobody)
{
    kill_test(operations[_i]);
}
END_TEST

int main(void)
{
    return kill_main("stress.reap", test_a_reaper_killed_after_any_instruction_harms_nobody,
                     (int)(sizeof operations / sizeof(void *)));
}
