/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PLS_TESTS_STRESS_KILL_MAIN_H
#define PLS_TESTS_STRESS_KILL_MAIN_H

#include "tests/check_run.h"
#include "tests/stress/stage.h"

#include <stdlib.h>

#define KILL_TIMEOUT_S 200

/* One operation, unless STRESS_ONLY names another. */
static inline void kill_test(const stage_op *op)
{
    const char *only = getenv("STRESS_ONLY");
    if (only != NULL && strcmp(only, op->name) != 0) {
        return;
    }
    if (!step_possible()) {
        ck_assert_msg(step_waived(), "not tested");
        return;
    }
    stage_exhaust(op);
}

/* Runs a suite of one loop test over `count` operations. */
static inline int kill_main(const char *name, const TTest *test, int count)
{
    Suite *suite = suite_create(name);
    TCase *tests = tcase_create("kills");
    tcase_set_timeout(tests, KILL_TIMEOUT_S);
    tcase_add_loop_test(tests, test, 0, count);
    suite_add_tcase(suite, tests);
    return check_run(suite);
}

#endif
