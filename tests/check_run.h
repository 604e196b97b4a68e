/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PLS_TESTS_CHECK_RUN_H
#define PLS_TESTS_CHECK_RUN_H

#include <check.h>
#include <stdlib.h>

/* Runs a suite as CK_VERBOSITY and CK_RUN_CASE ask, and ends it; what main() returns. */
static inline int check_run(Suite *suite)
{
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

#endif
