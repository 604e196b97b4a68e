/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PLS_TESTS_FORK_CHECK_H
#define PLS_TESTS_FORK_CHECK_H

#include <check.h>
#include <sys/types.h>

/* fork() went well, said in the parent only: in the child the same assertion would fail. */
static inline void fork_check(pid_t pid)
{
    if (pid != 0) {
        ck_assert_int_gt(pid, 0);
    }
}

#endif
