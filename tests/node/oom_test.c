/* SPDX-License-Identifier: Apache-2.0 */
/* When a death counts as one for want of memory. A file stands for the kernel's count. */
#include "node/process/oom.h"
#include "tests/check_run.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static pls_oom oom;
static char *path;

static void count_write(unsigned count)
{
    FILE *file = fopen(path, "we");
    ck_assert_ptr_nonnull(file);
    ck_assert_int_gt(fprintf(file, "low 9\noom_kill %u\n", count), 0);
    ck_assert_int_eq(fclose(file), 0);
}

static bool killed_at(uint64_t second)
{
    return pls_oom_killed(&oom, 1, second * 1000000000u);
}

static void begin(void)
{
    pls_oom_init(&oom);
    oom.group_count = 2;
    path = oom.groups[1].path;
    snprintf(path, PLS_OOM_PATH_BYTES, "/tmp/pulsing-oom-%d", (int)getpid());
}

static void end(void)
{
    (void)unlink(path);
}

START_TEST(test_each_kill_explains_one_death_and_not_for_ever)
{
    count_write(3);
    ck_assert(!killed_at(10));
    count_write(5);
    ck_assert(killed_at(11));
    ck_assert(killed_at(12));
    ck_assert(!killed_at(12));
    count_write(6);
    ck_assert(killed_at(13));
    count_write(8);
    ck_assert(killed_at(20));
    ck_assert(!killed_at(23));
}
END_TEST

START_TEST(test_a_count_that_could_not_be_read_has_not_grown)
{
    ck_assert(!killed_at(10));
    count_write(5);
    ck_assert(!killed_at(11));
    ck_assert_int_eq(unlink(path), 0);
    ck_assert(!killed_at(12));
    count_write(5);
    ck_assert(!killed_at(13));
    count_write(6);
    ck_assert(killed_at(14));
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("node.oom");
    TCase *tests = tcase_create("oom");
    tcase_add_checked_fixture(tests, begin, end);
    tcase_add_test(tests, test_each_kill_explains_one_death_and_not_for_ever);
    tcase_add_test(tests, test_a_count_that_could_not_be_read_has_not_grown);
    suite_add_tcase(suite, tests);
    return check_run(suite);
}
