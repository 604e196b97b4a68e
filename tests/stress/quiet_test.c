/* SPDX-License-Identifier: Apache-2.0 */
/* One quiet producer. A busy crowd hides every lost wake-up, because the next message rings again;
 * here the consumer really goes to sleep, and the next letter comes just then. STRESS_QUIET_S
 * says for how many seconds each test goes on. */
#include "tests/check_run.h"
#include "tests/stress/crowd.h"

#include <check.h>
#include <stdlib.h>

#define DEFAULT_S 6
/* A test goes on until it has seen so many, for ten times its time at the most: a busy machine
 * makes it longer and not weaker. */
#define SLEEPS_MIN 1000
#define DOZES_MIN 100000
#define ENDS_MIN 120
#define TIMEOUT_S 600

static const crowd_manner small = {
    .ring_bytes = 4096, .len_max = 40, .burst_max = 3, .quiet = true};
/* Not quiet at all, but a consumer that dozes off some hundred thousand times a second. */
static const crowd_manner hasty = {.ring_bytes = 65536, .len_max = 600, .hasty = true};

static double duration_ms(void)
{
    const char *given = getenv("STRESS_QUIET_S");
    return (given != NULL ? strtod(given, NULL) : DEFAULT_S) * 1e3;
}

static uint64_t seed_choose(void)
{
    const char *given = getenv("STRESS_SEED");
    return given != NULL ? strtoull(given, NULL, 0) : 1;
}

/* Until the time is over and there were enough, or a lost wake-up has been seen. */
static bool goes_on(const crowd *c, double begin_ms, bool enough)
{
    double ms = crowd_now_ms() - begin_ms;
    double limit_ms = duration_ms() * (enough ? 1 : 10);
    return ms < limit_ms && atomic_load(&c->score->found_work) == 0;
}

static uint64_t sleeps(const crowd *c)
{
    return atomic_load(&c->score->sleeps);
}

START_TEST(test_a_quiet_pair_never_loses_a_wake_up)
{
    static crowd c;
    double begin_ms = crowd_now_ms();
    crowd_open(&c, &small, 1, seed_choose());
    while (goes_on(&c, begin_ms, sleeps(&c) > SLEEPS_MIN)) {
        crowd_pause_us(20000);
    }
    crowd_close(&c);
    ck_assert(crowd_is_sound(&c, "quiet"));
    ck_assert_uint_gt(sleeps(&c), SLEEPS_MIN);
}
END_TEST

START_TEST(test_a_consumer_that_dozes_all_the_time_is_always_woken)
{
    static crowd c;
    double begin_ms = crowd_now_ms();
    crowd_open(&c, &hasty, 1, seed_choose() + 3);
    while (goes_on(&c, begin_ms, sleeps(&c) > DOZES_MIN)) {
        crowd_pause_us(20000);
    }
    crowd_close(&c);
    ck_assert(crowd_is_sound(&c, "dozing"));
    ck_assert_uint_gt(sleeps(&c), DOZES_MIN);
}
END_TEST

START_TEST(test_a_quiet_producer_killed_anywhere_leaves_no_letter_behind)
{
    static crowd c;
    pls_rng rng;
    double begin_ms = crowd_now_ms();
    crowd_open(&c, &small, 1, seed_choose() + 1);
    pls_rng_init(&rng, c.seed);
    while (goes_on(&c, begin_ms, c.kills > ENDS_MIN)) {
        crowd_pause_us(pls_rng_below(&rng, 2000));
        crowd_kill(&c, 0);
    }
    crowd_close(&c);
    ck_assert_uint_gt(c.kills, ENDS_MIN);
    ck_assert(crowd_is_sound(&c, "quiet, killed"));
}
END_TEST

START_TEST(test_processes_that_stand_still_lose_and_break_nothing)
{
    static crowd c;
    pls_rng rng;
    double begin_ms = crowd_now_ms();
    uint64_t freezes = 0;
    crowd_open(&c, &small, 1, seed_choose() + 2);
    pls_rng_init(&rng, c.seed);
    for (; goes_on(&c, begin_ms, freezes > ENDS_MIN); freezes++) {
        crowd_pause_us(pls_rng_below(&rng, 2000));
        pid_t pid = pls_rng_below(&rng, 4) == 0 ? c.consumer : c.pids[0];
        crowd_freeze(&c, pid, pls_rng_below(&rng, 4000));
    }
    crowd_close(&c);
    ck_assert_uint_gt(freezes, ENDS_MIN);
    ck_assert(crowd_is_sound(&c, "quiet, stopped and continued"));
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("stress.quiet");
    TCase *awake = tcase_create("dozing");
    tcase_set_timeout(awake, TIMEOUT_S);
    tcase_add_test(awake, test_a_consumer_that_dozes_all_the_time_is_always_woken);
    suite_add_tcase(suite, awake);
    TCase *tests = tcase_create("quiet");
    tcase_set_timeout(tests, TIMEOUT_S);
    tcase_add_test(tests, test_a_quiet_pair_never_loses_a_wake_up);
    tcase_add_test(tests, test_a_quiet_producer_killed_anywhere_leaves_no_letter_behind);
    tcase_add_test(tests, test_processes_that_stand_still_lose_and_break_nothing);
    suite_add_tcase(suite, tests);
    return check_run(suite);
}
