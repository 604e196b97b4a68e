/* SPDX-License-Identifier: Apache-2.0 */
/* SIGKILL after every instruction of sending. */
#include "tests/stress/stage.h"

#include "base/assert.h"
#include "tests/stress/kill_main.h"

static void one_sent(victim *v)
{
    victim_attach(v);
    pls_assert(victim_send(v, 48) == PLS_OK);
    (void)pls_outbox_wake(v->outbox);
}

static void send_act(victim *v)
{
    (void)victim_send(v, 48);
    (void)pls_outbox_wake(v->outbox);
}

static const stage_op send_inline = {
    .name = "send",
    .points_min = 90,
    .prepare = one_sent,
    .act = send_act,
    .letters_before = 1,
    .letters_act = 1,
    .notifies = true,
};

/* The third one leaves less than the next record before the end of the ring. */
static void ring_nearly_ends(victim *v)
{
    one_sent(v);
    pls_assert(victim_send(v, 1900) == PLS_OK);
    pls_assert(victim_send(v, 1900) == PLS_OK);
    (void)pls_outbox_wake(v->outbox);
}

static void send_wrapped_act(victim *v)
{
    (void)victim_send(v, 300);
    (void)pls_outbox_wake(v->outbox);
}

static const stage_op send_wrapped = {
    .name = "send wrapped",
    .points_min = 100,
    .prepare = ring_nearly_ends,
    .act = send_wrapped_act,
    .letters_before = 3,
    .letters_act = 1,
    .notifies = true,
};

static void send_batch_act(victim *v)
{
    (void)victim_send(v, 16);
    (void)victim_send(v, 0);
    (void)victim_send(v, 32);
    (void)pls_outbox_wake(v->outbox);
}

static const stage_op send_batch = {
    .name = "send a batch",
    .points_min = 200,
    .prepare = one_sent,
    .act = send_batch_act,
    .letters_before = 1,
    .letters_act = 3,
    .notifies = true,
};

/* The tables of leases exist already. */
static void block_sent(victim *v)
{
    victim_attach(v);
    victim_send_enclosed(v, 20000);
    (void)pls_outbox_wake(v->outbox);
}

static void send_enclosed_act(victim *v)
{
    victim_send_enclosed(v, 20000);
    (void)pls_outbox_wake(v->outbox);
}

static const stage_op send_enclosed = {
    .name = "send a block",
    .points_min = 300,
    .prepare = block_sent,
    .act = send_enclosed_act,
    .letters_before = 1,
    .letters_act = 1,
    .notifies = true,
};

/* Makes the arena's first segment, which is published, and the first table of leases. */
static const stage_op send_enclosed_first = {
    .name = "first block",
    .points_min = 600,
    .prepare = one_sent,
    .act = send_enclosed_act,
    .letters_before = 1,
    .letters_act = 1,
    .notifies = true,
};

static void send_first_act(victim *v)
{
    victim_attach(v);
    (void)victim_send(v, 48);
    (void)pls_outbox_wake(v->outbox);
}

static const stage_op send_first = {
    .name = "first send",
    .points_min = 200,
    .act = send_first_act,
    .letters_act = 1,
    .notifies = true,
};

/* The ring holds 4096 bytes; this many letters of 1008 fit. */
#define FULL_LETTERS 4

static void ring_full(victim *v)
{
    victim_attach(v);
    for (int i = 0; i < FULL_LETTERS; i++) {
        pls_assert(victim_send(v, 1024 - PLS_RECORD_BYTES - LETTER_BYTES) == PLS_OK);
    }
    (void)pls_outbox_wake(v->outbox);
}

static void want_space_act(victim *v)
{
    uint8_t *room = NULL;
    if (pls_outbox_reserve(v->outbox, LETTER_BYTES + 48, &room) == PLS_EFULL) {
        v->score->wants_space =
            pls_outbox_want_space(v->outbox, LETTER_BYTES + 48) && pls_inbox_arm(v->inbox);
    }
}

/* Whoever was promised a notice of room has got it. */
static void want_space_judge(stage *s)
{
    if (s->mode == STAGE_PAUSED && s->score->wants_space != 0) {
        stage_check(s, stage_victim_signalled(s));
    }
}

static void survivor_reads(stage *s)
{
    stage_drain(s);
}

static const stage_op want_space = {
    .name = "want space",
    .points_min = 80,
    .prepare = ring_full,
    .act = want_space_act,
    .meanwhile = survivor_reads,
    .judge = want_space_judge,
    .letters_before = FULL_LETTERS,
    .busy = true,
};

static void collect_prepare(victim *v)
{
    victim_attach(v);
    for (int i = 0; i < 3; i++) {
        victim_send_enclosed(v, 20000);
    }
    (void)pls_outbox_wake(v->outbox);
}

/* Two of three leases come back. */
static void two_return(stage *s)
{
    stage_drain(s);
    stage_check(s, s->lease_count == 3);
    for (int i = 0; i < 2; i++) {
        s->lease_count--;
        pls_lease_return(&s->leases[s->lease_count]);
    }
}

static void collect_act(victim *v)
{
    pls_block *block = NULL;
    (void)pls_arena_collect(v->arena);
    pls_assert(pls_arena_alloc(v->arena, 3000, &block) == PLS_OK);
    pls_arena_unhold(v->arena, block);
    pls_arena_trim(v->arena);
}

static const stage_op collect = {
    .name = "take returns",
    .points_min = 200,
    .prepare = collect_prepare,
    .settle = two_return,
    .act = collect_act,
    .letters_before = 3,
};

static const stage_op *const operations[] = {&send_inline, &send_wrapped,  &send_batch,
                                             &send_first,  &send_enclosed, &send_enclosed_first,
                                             &want_space,  &collect};

START_TEST(test_a_sender_killed_after_any_instruction_harms_nobody)
{
    kill_test(operations[_i]);
}
END_TEST

int main(void)
{
    return kill_main("stress.send", test_a_sender_killed_after_any_instruction_harms_nobody,
                     (int)(sizeof operations / sizeof(void *)));
}
