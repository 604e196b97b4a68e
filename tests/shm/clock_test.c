/* SPDX-License-Identifier: Apache-2.0 */
#include "shm/clock.h"
#include "tests/check_run.h"

#include <check.h>
#include <stdlib.h>
#include <unistd.h>

START_TEST(test_ticks_become_the_kernel_s_nanoseconds)
{
    pls_clock clock;
    pls_clock_init(&clock);
    ck_assert(pls_clock_check(&clock));
    for (int i = 0; i < 20; i++) {
        uint64_t before = pls_clock_kernel_ns();
        uint64_t ns = pls_clock_ns(&clock, pls_clock_tick(&clock));
        uint64_t after = pls_clock_kernel_ns();
        /* Within the measured rate's error over 20 ms, far below what a stamp resolves. */
        ck_assert_uint_ge(ns + 20000, before);
        ck_assert_uint_le(ns, after + 20000);
        usleep(1000);
    }
    pls_clock_anchor(&clock);
    ck_assert_uint_eq(clock.version, 2);
    ck_assert(pls_clock_check(&clock));
}
END_TEST

START_TEST(test_conversions_are_each_other_s_inverse)
{
    pls_clock clock;
    pls_clock_init(&clock);
    for (uint64_t ns = 1000; ns < UINT64_C(1000000000000); ns *= 10) {
        uint64_t ticks = pls_clock_ticks(&clock, ns);
        uint64_t back = pls_clock_ns(&clock, clock.anchor_tick + ticks) - clock.anchor_monotonic_ns;
        ck_assert_uint_le(back, ns);
        ck_assert_uint_ge(back + 200, ns);
    }
    uint64_t before = pls_clock_ns(&clock, clock.anchor_tick - pls_clock_ticks(&clock, 1000000));
    ck_assert_uint_le(before, clock.anchor_monotonic_ns - 999000);
}
END_TEST

START_TEST(test_stamps_count_over_their_wrap)
{
    pls_clock clock;
    pls_clock_init(&clock);
    uint64_t unit = pls_clock_stamp_ns(&clock, 1000, 0);
    ck_assert_uint_eq(pls_clock_stamp_ns(&clock, 500, UINT32_MAX - 499), unit);
    uint32_t earlier = pls_clock_stamp(&clock, pls_clock_tick(&clock));
    usleep(2000);
    uint32_t later = pls_clock_stamp(&clock, pls_clock_tick(&clock));
    ck_assert_uint_ge(pls_clock_stamp_ns(&clock, later, earlier), 1900000);
}
END_TEST

START_TEST(test_machine_without_a_counter_uses_the_kernel_s_clock)
{
    pls_clock clock = {.source = PLS_CLOCK_KERNEL, .stamp_shift = 6, .shift = 24, .mult = 1 << 24};
    pls_clock_anchor(&clock);
    ck_assert(pls_clock_check(&clock));
    uint64_t before = pls_clock_kernel_ns();
    uint64_t tick = pls_clock_tick(&clock);
    ck_assert_uint_ge(tick, before);
    ck_assert_uint_eq(pls_clock_ns(&clock, tick), tick);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("shm.clock");
    TCase *tcase = tcase_create("clock");
    tcase_set_timeout(tcase, 60);
    tcase_add_test(tcase, test_ticks_become_the_kernel_s_nanoseconds);
    tcase_add_test(tcase, test_conversions_are_each_other_s_inverse);
    tcase_add_test(tcase, test_stamps_count_over_their_wrap);
    tcase_add_test(tcase, test_machine_without_a_counter_uses_the_kernel_s_clock);
    suite_add_tcase(suite, tcase);
    return check_run(suite);
}
