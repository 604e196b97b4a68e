/* SPDX-License-Identifier: Apache-2.0 */
/* SIGKILL after every instruction of receiving: the survivor is the sender. */
#include "tests/stress/stage.h"

#include "base/assert.h"
#include "tests/stress/kill_main.h"

#include <poll.h>

#define BLOCK_BYTES 20000

static void three_letters_come(stage *s)
{
    stage_send_open(s);
    stage_check(s, stage_send(s, 24, false) == PLS_OK);
    stage_check(s, stage_send(s, BLOCK_BYTES, true) == PLS_OK);
    stage_check(s, stage_send(s, 16, false) == PLS_OK);
}

static void read_act(victim *v)
{
    while (victim_pop(v, true)) {
        pls_inbox_release(v->inbox);
        if (v->lease_count > 0) {
            pls_lease_return(&v->leases[--v->lease_count]);
        }
    }
}

/* What the victim has returned and what it has not makes what it was lent, whatever it has read. */
static void lent_is_known(stage *s)
{
    pls_arena_stats stats;
    pls_arena_stats_get(s->arena, &stats);
    stage_check(s, stats.lent_count <= 1);
    stage_check(s, !s->complete || stats.lent_count == 0);
    stage_check(s, pls_outbox_backlog_bytes(s->to_victim) <= STAGE_RING_BYTES);
    stage_check(s, !s->complete || pls_outbox_backlog_bytes(s->to_victim) == 0);
}

static const stage_op receive = {
    .name = "receive",
    .points_min = 600,
    .set = three_letters_come,
    .act = read_act,
    .judge = lent_is_known,
};

#define RECORDS 4

static void letters_to_record_come(stage *s)
{
    stage_send_open(s);
    for (int i = 0; i < RECORDS; i++) {
        stage_check(s, stage_send(s, 24, false) == PLS_OK);
    }
}

static void record_act(victim *v)
{
    while (victim_pop(v, false)) {
        uint32_t id = v->message.seq + 1;
        pls_inbox_started_store(v->inbox, v->message.from_slot, 3, id);
        v->score->handled[id]++;
        pls_inbox_release(v->inbox);
    }
}

/* What the sender would do: send again all that is not recorded as started. None of that may have
 * been handled, and at most one message may have been started and not handled: the one during
 * which the victim died. */
static void nothing_is_handled_twice(stage *s)
{
    uint64_t started = pls_outbox_started_load(s->to_victim, 3);
    uint32_t lost = 0;
    stage_check(s, started <= RECORDS);
    for (uint32_t id = 1; id <= RECORDS; id++) {
        uint32_t handled = s->score->handled[id];
        stage_check(s, handled <= (id <= started ? 1u : 0u));
        lost += id <= started && handled == 0;
    }
    stage_check(s, lost <= 1);
    stage_check(s, !s->complete || (started == RECORDS && lost == 0));
}

static const stage_op record_start = {
    .name = "record a start",
    .points_min = 400,
    .set = letters_to_record_come,
    .act = record_act,
    .judge = nothing_is_handled_twice,
};

/* The survivor fills the victim's ring and wants to be told of room. */
static void ring_is_full(stage *s)
{
    stage_send_open(s);
    while (stage_send(s, 700, false) == PLS_OK) {
    }
    stage_check(s, pls_outbox_want_space(s->to_victim, LETTER_BYTES + 700));
}

static void make_room_act(victim *v)
{
    pls_bitmap owed;
    while (victim_pop(v, false)) {
        pls_inbox_release(v->inbox);
        if (pls_inbox_take_owed(v->inbox, &owed)) {
            pls_peer_ring_space(v->survivor, STAGE_VICTIM);
        }
    }
    if (pls_inbox_take_owed(v->inbox, &owed)) {
        pls_peer_ring_space(v->survivor, STAGE_VICTIM);
    }
}

static void room_was_announced(stage *s)
{
    bool told = (s->space.word[STAGE_VICTIM / 64] >> (STAGE_VICTIM % 64) & 1) != 0;
    stage_check(s, !s->complete || told);
    stage_check(s, !s->complete || stage_send(s, 700, false) == PLS_OK);
}

static const stage_op make_room = {
    .name = "make room",
    .points_min = 400,
    .set = ring_is_full,
    .act = make_room_act,
    .judge = room_was_announced,
    .notifies = true,
};

static void sleeper_is_known(stage *s)
{
    stage_send_open(s);
    stage_check(s, stage_send(s, 8, false) == PLS_OK);
}

static void read_all(victim *v)
{
    while (victim_pop(v, false)) {
        pls_inbox_release(v->inbox);
    }
}

static void sleep_act(victim *v)
{
    struct pollfd wait = {.fd = pls_inbox_eventfd(v->inbox), .events = POLLIN};
    if (pls_inbox_arm(v->inbox)) {
        pls_inbox_disarm(v->inbox, poll(&wait, 1, 0) > 0);
        read_all(v);
        v->score->armed = pls_inbox_arm(v->inbox);
    }
}

static void letter_comes_meanwhile(stage *s)
{
    stage_check(s, stage_send(s, 8, false) == PLS_OK);
}

/* Whether the victim sleeps over a letter that came while it stood at this instruction. */
static void nobody_sleeps_over_a_letter(stage *s)
{
    if (s->mode == STAGE_PAUSED && s->score->armed != 0 &&
        pls_outbox_backlog_bytes(s->to_victim) != 0) {
        stage_check(s, stage_victim_signalled(s));
    }
}

static const stage_op go_to_sleep = {
    .name = "arm and wake",
    .points_min = 400,
    .set = sleeper_is_known,
    .prepare = read_all,
    .act = sleep_act,
    .meanwhile = letter_comes_meanwhile,
    .judge = nobody_sleeps_over_a_letter,
};

/* Two blocks are lent; the survivor lets go of one, wants memory, and gets other memory. */
static void two_blocks_come(stage *s)
{
    stage_send_open(s);
    stage_check(s, stage_send(s, BLOCK_BYTES, true) == PLS_OK);
    pls_block *first = s->held;
    s->held = NULL;
    stage_check(s, stage_send(s, BLOCK_BYTES, true) == PLS_OK);
    const uint8_t *lent = first->base;
    pls_arena_unhold(s->arena, first);
    pls_block *other = NULL;
    stage_check(s, pls_arena_alloc(s->arena, BLOCK_BYTES, &other) == PLS_OK);
    stage_check(s, other->base != lent);
    memset(other->base, 0xee, BLOCK_BYTES);
    pls_arena_unhold(s->arena, other);
}

static void block_is_read(victim *v)
{
    pls_assert(victim_pop(v, true));
    pls_inbox_release(v->inbox);
    const pls_lease *lease = &v->leases[0];
    pls_assert(memcmp(lease->bytes, lease->bytes + 1, lease->len - 1) == 0);
    pls_assert(victim_pop(v, false));
}

static void memory_is_wanted(stage *s)
{
    stage_drain(s);
    stage_check(s, !pls_arena_want_returns(s->arena));
}

static void return_act(victim *v)
{
    pls_lease_return(&v->leases[0]);
    pls_lease_decline(v->views, v->survivor, STAGE_VICTIM, &v->descriptor);
    pls_inbox_release(v->inbox);
}

static void both_came_back(stage *s)
{
    pls_arena_stats stats;
    pls_arena_stats_get(s->arena, &stats);
    stage_check(s, s->collected <= 2 && stats.lent_count == 2 - s->collected);
    stage_check(s, !s->complete || s->collected == 2);
}

static const stage_op return_leases = {
    .name = "return leases",
    .points_min = 90,
    .set = two_blocks_come,
    .prepare = block_is_read,
    .settle = memory_is_wanted,
    .act = return_act,
    .judge = both_came_back,
    .notifies = true,
};

static const stage_op *const operations[] = {&receive, &record_start, &make_room, &go_to_sleep,
                                             &return_leases};

START_TEST(test_a_receiver_killed_after_any_instruction_harms_nobody)
{
    kill_test(operations[_i]);
}
END_TEST

int main(void)
{
    return kill_main("stress.receive", test_a_receiver_killed_after_any_instruction_harms_nobody,
                     (int)(sizeof operations / sizeof(void *)));
}
