/* SPDX-License-Identifier: Apache-2.0 */
/* The store-load fence between publishing and the bell. A published message waits in its CPU's
 * store buffer while the loads behind it are done already: seldom seen by luck, so here it happens
 * every time. The producer is stepped; its store of the tail is taken back and done again only when
 * an instruction comes that empties a store buffer (or at the end), and in between, after every
 * single instruction, the consumer reads all there is and goes to sleep. */
#include "shm/layout.h"
#include "tests/check_run.h"
#include "tests/shm/pair.h"
#include "tests/stress/step.h"

#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

#define TIMEOUT_S 120
#define UNITS_MAX 5000 /* the operation takes some 200 */
#define HELD_MIN 3     /* points at which the message is out and not to be seen */

typedef struct scene {
    pair p;
    pls_ring_control *control;
    _Atomic bool *signalled; /* what the producer's ringing said */
    step_child child;
    uint64_t shown; /* the tail that the consumer sees while another is held */
    uint64_t held;
    bool holding;
} scene;

typedef struct outcome {
    bool over; /* the producer had no instruction with that number */
    bool held; /* the consumer came while the tail was held */
    bool slept;
    bool signalled;
    uint32_t read; /* messages, before it slept */
} outcome;

static void produce(void *context)
{
    scene *s = context;
    pair_attach(&s->p, PAIR_PRODUCER, 1, 4096);
    /* Its bit is still set when the next is published, so that it need not be set again. */
    if (pair_send(s->p.outbox, 8, 1) != PLS_OK || pls_outbox_wake(s->p.outbox)) {
        abort();
    }
    step_pause();
    if (pair_send(s->p.outbox, 8, 2) != PLS_OK) {
        abort();
    }
    atomic_store_explicit(s->signalled, pls_outbox_wake(s->p.outbox), memory_order_relaxed);
}

/* Whether the child's next instruction empties the store buffer first: a fence, one with a lock
 * prefix, or an exchange with memory, which locks by itself. */
static bool empties_the_buffer(uint64_t place)
{
    const uint8_t *code = (const uint8_t *)(uintptr_t)place;
    if (code[0] == 0x0f && code[1] == 0xae) {
        return code[2] == 0xf0;
    }
    while (code[0] == 0x66 || code[0] == 0xf2 || code[0] == 0xf3 || (code[0] & 0xf0) == 0x40) {
        code++;
    }
    bool exchange = (code[0] == 0x86 || code[0] == 0x87) && (code[1] & 0xc0) != 0xc0;
    return code[0] == 0xf0 || exchange;
}

static void tail_release(scene *s)
{
    if (s->holding) {
        atomic_store(&s->control->tail, s->held);
        s->holding = false;
    }
}

/* One instruction of the producer, with what a store buffer makes of it. */
static void producer_step(scene *s)
{
    uint64_t calls = s->child.foreign;
    if (empties_the_buffer(step_place(&s->child))) {
        tail_release(s);
    }
    step_take(&s->child, 1);
    ck_assert_msg(s->child.trouble == 0, "the producer ended with %d", s->child.trouble);
    uint64_t tail = atomic_load(&s->control->tail);
    if (!s->holding && tail != s->shown) {
        s->held = tail;
        s->holding = true;
        atomic_store(&s->control->tail, s->shown);
        s->shown = tail;
    }
    if (s->child.foreign != calls || s->child.over) {
        tail_release(s);
    }
}

static uint32_t read_all(pls_inbox *inbox)
{
    pls_message message;
    uint32_t count = 0;
    while (pls_inbox_pop(inbox, &message) == PLS_OK) {
        pls_inbox_release(inbox);
        count++;
    }
    return count;
}

static bool eventfd_readable(const pls_inbox *inbox)
{
    struct pollfd descriptor = {.fd = pls_inbox_eventfd(inbox), .events = POLLIN};
    return poll(&descriptor, 1, 0) > 0;
}

/* The consumer comes after that many instructions of the producer. */
static outcome consumer_after(uint64_t units)
{
    outcome o = {0};
    scene s = {0};
    ck_assert_int_eq(pls_inbox_create(PAIR_CONSUMER, PAIR_EPOCH, &s.p.inbox), PLS_OK);
    s.control = mmap(NULL, sizeof *s.control, PROT_READ | PROT_WRITE, MAP_SHARED,
                     pls_inbox_memfd(s.p.inbox),
                     PLS_INBOX_RINGS_OFFSET + (off_t)PAIR_PRODUCER * PLS_RING_SPAN_BYTES);
    ck_assert_ptr_ne(s.control, MAP_FAILED);
    s.signalled =
        mmap(NULL, sizeof *s.signalled, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    ck_assert_ptr_ne(s.signalled, MAP_FAILED);
    step_start(&s.child, produce, &s);
    ck_assert_int_eq(s.child.trouble, 0);
    s.shown = atomic_load(&s.control->tail);
    for (uint64_t at = 0; !s.child.over; at++) {
        ck_assert_uint_lt(at, UNITS_MAX);
        if (at == units) {
            o.held = s.holding;
            o.read = read_all(s.p.inbox);
            o.slept = pls_inbox_arm(s.p.inbox);
        }
        producer_step(&s);
        o.over = at < units;
    }
    step_kill(&s.child);
    o.signalled = atomic_load(s.signalled) && eventfd_readable(s.p.inbox);
    munmap((void *)s.signalled, sizeof *s.signalled);
    munmap(s.control, sizeof *s.control);
    if (o.slept) {
        pls_inbox_disarm(s.p.inbox, o.signalled);
    }
    pls_inbox_destroy(s.p.inbox);
    return o;
}

START_TEST(test_a_message_in_the_store_buffer_wakes_its_consumer)
{
    uint64_t held = 0;
    uint64_t woken = 0;
    uint64_t awake = 0;
    uint64_t lost = 0;
    uint64_t units = 0;
    if (!step_possible()) {
        ck_assert_msg(step_waived(), "not tested");
        return;
    }
    step_pin();
    for (;; units++) {
        outcome o = consumer_after(units);
        if (o.over) {
            break;
        }
        held += o.held;
        woken += o.slept && o.signalled;
        awake += !o.slept || (!o.signalled && o.read == 2);
        lost += o.slept && !o.signalled && o.read == 1;
    }
    printf("%llu points, the message held back at %llu: %llu woken, %llu read awake, %llu lost\n",
           (unsigned long long)units, (unsigned long long)held, (unsigned long long)woken,
           (unsigned long long)awake, (unsigned long long)lost);
    fflush(stdout);
    ck_assert_msg(lost == 0, "wake-ups lost at %llu points", (unsigned long long)lost);
    ck_assert_uint_eq(woken + awake, units);
    ck_assert_uint_ge(held, HELD_MIN);
    ck_assert_uint_gt(woken, HELD_MIN);
    ck_assert_uint_gt(awake, 0);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("stress.buffer");
    TCase *tests = tcase_create("store buffer");
    tcase_set_timeout(tests, TIMEOUT_S);
    tcase_add_test(tests, test_a_message_in_the_store_buffer_wakes_its_consumer);
    suite_add_tcase(suite, tests);
    return check_run(suite);
}
