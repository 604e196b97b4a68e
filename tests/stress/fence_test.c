/* SPDX-License-Identifier: Apache-2.0 */
/* The two sides of the doorbell at the same moment: one CPU commits a letter and rings while the
 * bit of its bell is still set, the other takes that bit, arms and looks once more. A processor may
 * let loads overtake an earlier store, so without the fence between commit and bell the first one
 * can see the bit and no sleeper, and the other one no letter. The store is made slow, as it is
 * after a payload that was not in the cache, and the two begin together, again and again. */
#include "base/rng.h"
#include "shm/fence.h"
#include "tests/check_run.h"
#include "tests/shm/pair.h"
#include "tests/stress/step.h"

#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#define MEETINGS_DEFAULT 20000
#define LIMIT_S 100 /* for that many */
#define TIMEOUT_S 3600
#define RING_BYTES 65536
#define LETTER_LINES 8
#define LETTER_LEN (LETTER_LINES * PLS_LINE_BYTES)
#define SPIN_MAX 300
#define LOOKS_BEFORE_YIELD 4000

enum sides { PRODUCER, CONSUMER, SIDES };

/* Where a side is, alone on its line. */
typedef struct place {
    _Alignas(PLS_LINE_BYTES) _Atomic uint64_t reached;
} place;

/* When a side was at it, in its latest round. */
typedef struct span {
    _Alignas(PLS_LINE_BYTES) int64_t begin_ns;
    int64_t end_ns;
} span;

typedef struct meeting {
    pair pair;
    int cpus[SIDES];
    place places[SIDES];
    span spans[SIDES];
    uint64_t rounds;   /* gone through */
    uint64_t met;      /* in which the two were at it at the same time */
    uint64_t armed;    /* of them, those at whose end the consumer slept and was signalled */
    uint64_t awake;    /* ... and those in which it saw the letter in time */
    uint64_t lost;     /* sleepers with a letter of which nobody told them */
    _Atomic bool over; /* set by the consumer between two rounds */
} meeting;

static int64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static void spin(uint32_t turns)
{
    for (volatile uint32_t i = 0; i < turns; i++) {
    }
}

/* Both sides come here before either goes on. Another program may have the other side's CPU: the
 * wait is long then, and worth a yield. */
static void meet(meeting *m, int side)
{
    uint64_t here = atomic_load_explicit(&m->places[side].reached, memory_order_relaxed) + 1;
    /* Release and acquire: what a side did before is done for the other one afterwards. */
    atomic_store_explicit(&m->places[side].reached, here, memory_order_release);
    uint32_t looks = 0;
    const place *other = &m->places[1 - side];
    while (atomic_load_explicit(&other->reached, memory_order_acquire) < here) {
        if (++looks % LOOKS_BEFORE_YIELD == 0) {
            sched_yield();
        }
    }
}

static void line_flush(const uint8_t *line)
{
#ifdef __x86_64__
    __builtin_ia32_clflush(line);
#endif
}

static void pin(int cpu)
{
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(cpu, &one);
    (void)sched_setaffinity(0, sizeof one, &one);
}

static void letter_send(meeting *m)
{
    pls_outbox *outbox = m->pair.outbox;
    if (pair_send(outbox, 1, 'a') == PLS_OK) {
        (void)pls_outbox_wake(outbox);
    }
}

/* Writes, commits and rings; the lines it writes have to come from memory first. */
static void letter_send_slowly(meeting *m, pls_rng *rng)
{
    uint8_t *room = NULL;
    span *at = &m->spans[PRODUCER];
    pls_outbox *outbox = m->pair.outbox;
    bool reserved = pls_outbox_reserve(outbox, LETTER_LEN, &room) == PLS_OK;
    uint32_t lines = pls_rng_below(rng, LETTER_LINES);
    for (uint32_t i = 0; i <= lines; i++) {
        line_flush(room - PLS_RECORD_BYTES + i * PLS_LINE_BYTES);
    }
    uint32_t turns = pls_rng_below(rng, SPIN_MAX);
    pls_fence_full();
    meet(m, PRODUCER);
    at->begin_ns = now_ns();
    spin(turns);
    if (reserved) {
        for (uint32_t i = 0; i < lines; i++) {
            room[i * PLS_LINE_BYTES] = 'b';
        }
        (void)pls_outbox_commit(outbox, LETTER_LEN, 1, 0, 0);
        (void)pls_outbox_wake(outbox);
    }
    at->end_ns = now_ns();
}

static void *produce(void *context)
{
    meeting *m = context;
    pls_rng rng;
    pls_rng_init(&rng, 1);
    pin(m->cpus[PRODUCER]);
    for (;;) {
        meet(m, PRODUCER);
        if (atomic_load_explicit(&m->over, memory_order_relaxed)) {
            return NULL;
        }
        letter_send(m);
        meet(m, PRODUCER);
        letter_send_slowly(m, &rng);
        meet(m, PRODUCER);
    }
}

static uint32_t letters_take(pls_inbox *inbox)
{
    pls_message message;
    uint32_t taken = 0;
    while (pls_inbox_pop(inbox, &message) == PLS_OK) {
        pls_inbox_release(inbox);
        taken++;
    }
    return taken;
}

/* Both are done: the letter is there, so a consumer that sleeps must have been signalled. */
static void round_judge(meeting *m, bool armed)
{
    const span *one = &m->spans[PRODUCER];
    const span *two = &m->spans[CONSUMER];
    pls_inbox *inbox = m->pair.inbox;
    bool met = one->begin_ns < two->end_ns && two->begin_ns < one->end_ns;
    m->rounds++;
    m->met += met;
    m->armed += met && armed;
    m->awake += met && !armed;
    if (armed) {
        pls_inbox_disarm_timeout(inbox);
        m->lost = pls_inbox_recheck_found_work(inbox);
    }
}

/* False if letters are missing. */
static bool round_consume(meeting *m, pls_rng *rng)
{
    pls_inbox *inbox = m->pair.inbox;
    span *at = &m->spans[CONSUMER];
    meet(m, CONSUMER);
    meet(m, CONSUMER);
    /* Read while the ring has its turn, so that the bit stays set. */
    uint32_t taken = letters_take(inbox);
    uint32_t turns = pls_rng_below(rng, SPIN_MAX);
    meet(m, CONSUMER);
    at->begin_ns = now_ns();
    spin(turns);
    bool armed = pls_inbox_arm(inbox);
    at->end_ns = now_ns();
    meet(m, CONSUMER);
    round_judge(m, armed);
    return taken + letters_take(inbox) == 2;
}

/* The first CPUs that this process may use; false if it may use only one. */
static bool cpus_find(int cpus_out[SIDES])
{
    cpu_set_t usable;
    int found = 0;
    CPU_ZERO(&usable);
    if (sched_getaffinity(0, sizeof usable, &usable) != 0) {
        return false;
    }
    for (int cpu = 0; cpu < CPU_SETSIZE && found < SIDES; cpu++) {
        if (CPU_ISSET(cpu, &usable)) {
            cpus_out[found++] = cpu;
        }
    }
    return found == SIDES;
}

/* The stepped tests may be left out where they cannot be run; so may this one. */
static bool one_cpu_waived(void)
{
    const char *value = getenv("PULSING_ALLOW_ONE_CPU");
    fprintf(stderr, "only one CPU may be used, and two are needed to see a late store; "
                    "PULSING_ALLOW_ONE_CPU=1 leaves this test out\n");
    return value != NULL && strcmp(value, "1") == 0;
}

static uint64_t meetings_wanted(void)
{
    const char *given = getenv("STRESS_MEETINGS");
    return given != NULL ? strtoull(given, NULL, 0) : MEETINGS_DEFAULT;
}

START_TEST(test_a_sleeper_and_a_sender_at_the_same_moment_never_miss_each_other)
{
    static meeting m;
    pls_rng rng;
    pthread_t thread;
    uint64_t wanted = meetings_wanted();
    bool sound = true;
    if (!cpus_find(m.cpus)) {
        ck_assert_msg(one_cpu_waived(), "not tested");
        return;
    }
    pls_rng_init(&rng, 2);
    pair_open(&m.pair, RING_BYTES);
    pin(m.cpus[CONSUMER]);
    ck_assert_int_eq(pthread_create(&thread, NULL, produce, &m), 0);
    int64_t limit_s =
        LIMIT_S * (int64_t)(wanted > MEETINGS_DEFAULT ? wanted / MEETINGS_DEFAULT : 1);
    int64_t end_ns = now_ns() + limit_s * 1000000000;
    while (m.met < wanted && m.lost == 0 && sound && now_ns() < end_ns) {
        sound = round_consume(&m, &rng);
    }
    atomic_store(&m.over, true);
    meet(&m, CONSUMER);
    pthread_join(thread, NULL);
    printf("%llu rounds, %llu met: %llu slept, %llu saw it in time, %llu lost\n",
           (unsigned long long)m.rounds, (unsigned long long)m.met, (unsigned long long)m.armed,
           (unsigned long long)m.awake, (unsigned long long)m.lost);
    fflush(stdout);
    ck_assert_msg(m.lost == 0, "a sleeper was not told of a letter after %llu rounds",
                  (unsigned long long)m.rounds);
    ck_assert_msg(sound, "a letter is missing");
    ck_assert_msg(m.met >= wanted, "the two sides met %llu times in %lld s",
                  (unsigned long long)m.met, (long long)limit_s);
    /* Each side came first often enough. */
    ck_assert_uint_gt(m.armed, wanted / 100);
    ck_assert_uint_gt(m.awake, wanted / 100);
    pair_close(&m.pair);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("stress.fence");
    TCase *tests = tcase_create("meeting");
    tcase_set_timeout(tests, TIMEOUT_S);
    tcase_add_test(tests, test_a_sleeper_and_a_sender_at_the_same_moment_never_miss_each_other);
    suite_add_tcase(suite, tests);
    return check_run(suite);
}
