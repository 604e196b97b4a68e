/* SPDX-License-Identifier: Apache-2.0 */
/* Eight producers, one consumer, and a kill every few milliseconds. STRESS_KILLS and STRESS_SOAK_S
 * say how many kills, and after how many seconds to have done them. */
#include "tests/check_run.h"
#include "tests/stress/crowd.h"

#include <check.h>
#include <stdlib.h>

#define DEFAULT_KILLS 10000
#define DEFAULT_S 300
#define TIMEOUT_S 7200

static const crowd_manner busy = {
    .ring_bytes = 4096, .len_max = 900, .enclose_percent = 5, .burst_max = 20};

static uint64_t number(const char *name, uint64_t otherwise)
{
    const char *given = getenv(name);
    return given != NULL ? strtoull(given, NULL, 0) : otherwise;
}

START_TEST(test_kills_of_busy_producers_break_and_lose_nothing)
{
    static crowd c;
    pls_rng rng;
    uint64_t kills = number("STRESS_KILLS", DEFAULT_KILLS);
    double end_ms = crowd_now_ms() + 1e3 * (double)number("STRESS_SOAK_S", DEFAULT_S);
    crowd_open(&c, &busy, CROWD_PRODUCERS_MAX, number("STRESS_SEED", 1));
    pls_rng_init(&rng, c.seed);
    while (c.kills < kills && crowd_now_ms() < end_ms && atomic_load(&c.score->broken) == 0) {
        uint32_t lane = pls_rng_below(&rng, c.producers);
        crowd_pause_us(pls_rng_below(&rng, 1500));
        if (pls_rng_below(&rng, 16) == 0) {
            crowd_freeze(&c, c.pids[lane], pls_rng_below(&rng, 1000));
        }
        crowd_kill(&c, lane);
    }
    crowd_close(&c);
    ck_assert(crowd_is_sound(&c, "soak"));
    ck_assert_uint_eq(c.kills, kills);
    ck_assert_uint_gt(atomic_load(&c.score->enclosed), c.kills / 4);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("stress.soak");
    TCase *tests = tcase_create("kills");
    tcase_set_timeout(tests, TIMEOUT_S);
    tcase_add_test(tests, test_kills_of_busy_producers_break_and_lose_nothing);
    suite_add_tcase(suite, tests);
    return check_run(suite);
}
