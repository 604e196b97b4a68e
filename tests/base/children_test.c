/* SPDX-License-Identifier: Apache-2.0 */
/* The helper that keeps assertions of a test's children out of the file that Check reads. */
#include "tests/check_run.h"
#include "tests/fork_check.h"

#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

START_TEST(test_an_assertion_that_fails_in_a_child_ends_it_and_says_so)
{
    char text[512] = "";
    int ends[2];
    int status = 0;
    ck_assert_int_eq(pipe(ends), 0);
    pid_t pid = fork();
    fork_check(pid);
    if (pid == 0) {
        dup2(ends[1], STDERR_FILENO);
        ck_assert_msg(pid != 0, "number %d", 17);
        _exit(0);
    }
    close(ends[1]);
    ck_assert_int_gt(read(ends[0], text, sizeof text - 1), 0);
    close(ends[0]);
    ck_assert_int_eq(waitpid(pid, &status, 0), pid);
    ck_assert(WIFEXITED(status));
    ck_assert_int_eq(WEXITSTATUS(status), EXIT_FAILURE);
    ck_assert_ptr_ne(strstr(text, "children_test.c"), NULL);
    ck_assert_ptr_ne(strstr(text, "pid != 0"), NULL);
    ck_assert_ptr_ne(strstr(text, "number 17"), NULL);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("base.children");
    TCase *tests = tcase_create("children");
    tcase_set_timeout(tests, 60);
    tcase_add_test(tests, test_an_assertion_that_fails_in_a_child_ends_it_and_says_so);
    suite_add_tcase(suite, tests);
    return check_run(suite);
}
