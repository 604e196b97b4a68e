/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/check_run.h"
#include "tests/sim/shrink.h"

#include <check.h>
#include <stdlib.h>

/* Fails when a crash of node 1 comes before some cut that lasts at least 40 ticks. */
static bool crash_then_long_cut(const pls_sim_plan *plan, void *context)
{
    bool crashed = false;
    ++*(uint32_t *)context;
    for (uint32_t i = 0; i < plan->fault_count; i++) {
        const pls_sim_fault *fault = &plan->faults[i];
        if (fault->at_tick >= plan->tick_count) {
            break;
        }
        crashed |= fault->kind == PLS_SIM_CRASH && fault->node == 1;
        if (crashed && fault->kind == PLS_SIM_CUT && fault->tick_count >= 40) {
            return true;
        }
    }
    return false;
}

static bool failing_plan(pls_sim_plan *plan)
{
    uint32_t calls = 0;
    for (uint64_t seed = 0; seed < 1000; seed++) {
        pls_sim_plan_draw(plan, seed, 5000);
        if (plan->fault_count > 50 && crash_then_long_cut(plan, &calls)) {
            return true;
        }
    }
    return false;
}

START_TEST(test_a_failing_plan_shrinks_to_the_two_faults_that_matter)
{
    pls_sim_plan plan;
    uint32_t calls = 0;
    ck_assert(failing_plan(&plan));
    uint32_t runs = pls_sim_plan_shrink(&plan, crash_then_long_cut, &calls, 5000);
    ck_assert_uint_eq(runs, calls);
    ck_assert(crash_then_long_cut(&plan, &calls));
    ck_assert_uint_eq(plan.fault_count, 2);
    ck_assert_uint_eq(plan.node_count, 2);
    ck_assert_uint_eq(plan.faults[0].kind, PLS_SIM_CRASH);
    ck_assert_uint_eq(plan.faults[1].kind, PLS_SIM_CUT);
    ck_assert_uint_lt(plan.faults[1].tick_count, 80);
    ck_assert_uint_eq(plan.tick_count, plan.faults[1].at_tick + 1);
}
END_TEST

START_TEST(test_the_bound_on_runs_holds_and_the_plan_still_fails)
{
    pls_sim_plan plan;
    uint32_t calls = 0;
    ck_assert(failing_plan(&plan));
    ck_assert_uint_le(pls_sim_plan_shrink(&plan, crash_then_long_cut, &calls, 7), 7);
    ck_assert_uint_le(calls, 7);
    ck_assert(crash_then_long_cut(&plan, &calls));
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("sim.shrink");
    TCase *tcase = tcase_create("shrink");
    tcase_add_test(tcase, test_a_failing_plan_shrinks_to_the_two_faults_that_matter);
    tcase_add_test(tcase, test_the_bound_on_runs_holds_and_the_plan_still_fails);
    suite_add_tcase(suite, tcase);
    return check_run(suite);
}
