/* SPDX-License-Identifier: Apache-2.0 */
#include "base/rng.h"
#include "tests/check_run.h"

#include <check.h>
#include <signal.h>
#include <stdlib.h>

START_TEST(test_same_seed_gives_same_numbers)
{
    pls_rng a;
    pls_rng b;
    pls_rng_init(&a, 42);
    pls_rng_init(&b, 42);
    for (int i = 0; i < 1000; i++) {
        ck_assert_uint_eq(pls_rng_next(&a), pls_rng_next(&b));
    }
}
END_TEST

START_TEST(test_below_stays_below_and_reaches_every_value)
{
    pls_rng rng;
    unsigned seen[7] = {0};
    pls_rng_init(&rng, 7);
    for (int i = 0; i < 70000; i++) {
        uint32_t value = pls_rng_below(&rng, 7);
        ck_assert_uint_lt(value, 7);
        seen[value]++;
    }
    for (int i = 0; i < 7; i++) {
        ck_assert_uint_gt(seen[i], 9000);
        ck_assert_uint_lt(seen[i], 11000);
    }
}
END_TEST

START_TEST(test_below_zero_aborts)
{
    pls_rng rng;
    pls_rng_init(&rng, 7);
    pls_rng_below(&rng, 0);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("base.rng");
    TCase *tcase = tcase_create("rng");
    tcase_add_test(tcase, test_same_seed_gives_same_numbers);
    tcase_add_test(tcase, test_below_stays_below_and_reaches_every_value);
    tcase_add_test_raise_signal(tcase, test_below_zero_aborts, SIGABRT);
    suite_add_tcase(suite, tcase);
    return check_run(suite);
}
