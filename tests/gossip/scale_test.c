/* SPDX-License-Identifier: Apache-2.0 */
/* Scenario 1: the formulae's check values, exact to the microsecond that the arithmetic keeps. */
#include "gossip/scale.h"
#include "tests/check_run.h"

#include <check.h>
#include <stdlib.h>

#define MS UINT64_C(1000000)
#define SECOND (1000 * MS)

/* Fixed point loses less than this. */
#define LOSS_NS (30 * UINT64_C(1000))

static void assert_near(uint64_t value, uint64_t expected)
{
    uint64_t off = value > expected ? value - expected : expected - value;
    ck_assert_msg(off <= LOSS_NS, "%lu instead of %lu", (unsigned long)value,
                  (unsigned long)expected);
}

START_TEST(test_01_formulae_suspicion_min_grows_with_the_logarithm)
{
    static const struct {
        uint32_t members;
        uint64_t min_ns;
    } rows[] = {{0, 4 * SECOND},         {1, 4 * SECOND},          {10, 4 * SECOND},
                {32, 6020600 * 1000ull}, {128, 8428840 * 1000ull}, {1000, 12 * SECOND},
                {10000, 16 * SECOND},    {100000, 20 * SECOND}};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        assert_near(pls_scale_suspicion_min(4, rows[i].members, SECOND), rows[i].min_ns);
    }
    assert_near(pls_scale_suspicion_min(4, 10000, SECOND) * 6, 96 * SECOND);
}
END_TEST

START_TEST(test_01_formulae_suspicion_shrinks_with_confirmations)
{
    assert_near(pls_scale_suspicion(2 * SECOND, 30 * SECOND, 0, 3), 30 * SECOND);
    /* One confirmation at 2 s leaves 14 s, two at 3 s leave 4.81 s. */
    assert_near(pls_scale_suspicion(2 * SECOND, 30 * SECOND, 1, 3), 16 * SECOND);
    assert_near(pls_scale_suspicion(2 * SECOND, 30 * SECOND, 2, 3), 7810525 * 1000ull);
    ck_assert_uint_eq(pls_scale_suspicion(2 * SECOND, 30 * SECOND, 3, 3), 2 * SECOND);
    ck_assert_uint_eq(pls_scale_suspicion(2 * SECOND, 30 * SECOND, 0, 0), 2 * SECOND);
}
END_TEST

START_TEST(test_01_formulae_suspicion_never_leaves_its_bounds)
{
    for (uint32_t expected = 0; expected <= 8; expected++) {
        uint64_t before = UINT64_MAX;
        for (uint32_t count = 0; count <= expected; count++) {
            uint64_t total = pls_scale_suspicion(SECOND, 6 * SECOND, count, expected);
            ck_assert_uint_ge(total, SECOND);
            ck_assert_uint_le(total, 6 * SECOND);
            ck_assert_uint_lt(total, before);
            before = total;
        }
    }
}
END_TEST

START_TEST(test_01_formulae_retransmits)
{
    static const struct {
        uint32_t mult;
        uint32_t members;
        uint32_t limit;
    } rows[] = {{3, 0, 0},     {3, 1, 3},      {3, 9, 3},       {3, 10, 6},
                {3, 99, 6},    {3, 100, 9},    {4, 128, 12},    {4, 999, 12},
                {4, 1000, 16}, {4, 10000, 20}, {8, 9999999, 56}};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        ck_assert_uint_eq(pls_scale_retransmits(rows[i].mult, rows[i].members), rows[i].limit);
    }
}
END_TEST

START_TEST(test_01_formulae_logarithm_is_exact_at_powers_of_two)
{
    for (uint32_t bit = 0; bit < 32; bit++) {
        ck_assert_uint_eq(pls_scale_log2(UINT32_C(1) << bit), (uint64_t)bit << PLS_SCALE_BITS);
    }
    for (uint32_t n = 1; n < 100000; n++) {
        ck_assert_uint_le(pls_scale_log2(n), pls_scale_log2(n + 1));
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("gossip.scale");
    TCase *tc = tcase_create("formulae");
    suite_add_tcase(suite, tc);
    tcase_add_test(tc, test_01_formulae_suspicion_min_grows_with_the_logarithm);
    tcase_add_test(tc, test_01_formulae_suspicion_shrinks_with_confirmations);
    tcase_add_test(tc, test_01_formulae_suspicion_never_leaves_its_bounds);
    tcase_add_test(tc, test_01_formulae_retransmits);
    tcase_add_test(tc, test_01_formulae_logarithm_is_exact_at_powers_of_two);
    return check_run(suite);
}
