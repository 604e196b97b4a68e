/* SPDX-License-Identifier: Apache-2.0 */
/* A container whose seccomp profile refuses what is needed: nothing hangs, nothing is left, and the
 * text says what was refused and what to do. The filters are the kernel's own, put on this process,
 * and its children inherit them. */
#include "node/pulsing.h"
#include "tests/check_run.h"
#include "tests/node/world.h"

#include <check.h>
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#define WAIT_MS 5000

typedef struct denial {
    uint32_t call;
    int answer; /* Docker's profile says EPERM; gVisor and old kernels say ENOSYS */
    pls_err err;
    const char *text;
} denial;

static const denial denials[] = {
    {SYS_memfd_create, EPERM, PLS_EPERM, "memfd"},
    {SYS_memfd_create, ENOSYS, PLS_EUNSUPPORTED, "memfd"},
    {SYS_pidfd_open, EPERM, PLS_EPERM, "pidfd"},
    {SYS_pidfd_open, ENOSYS, PLS_EUNSUPPORTED, "pidfd"},
};

#define DENIALS ((int)(sizeof denials / sizeof *denials))

/* The node itself needs no eventfd, whoever attaches does. */
static const denial bell_denials[] = {
    {SYS_eventfd2, EPERM, PLS_EPERM, "eventfd2"},
    {SYS_eventfd2, ENOSYS, PLS_EUNSUPPORTED, "eventfd2"},
};

#define BELL_DENIALS ((int)(sizeof bell_denials / sizeof *bell_denials))

/* From now on that system call fails, here and in what this process starts. */
static void deny(const denial *d)
{
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, d->call, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | (uint32_t)d->answer),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {.len = sizeof code / sizeof *code, .filter = code};
    ck_assert_int_eq(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
    ck_assert_int_eq(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program), 0);
}

static void refusal_check(const denial *d, pls_err err, const char *trouble)
{
    ck_assert_msg(err == d->err, "%s: %s", pls_err_name(err), trouble);
    ck_assert_msg(strstr(trouble, d->text) != NULL, "%s", trouble);
    ck_assert_msg(strstr(trouble, "seccomp") != NULL, "%s", trouble);
}

static pls_err launch_denied(const denial *d, pls_node_launched *node, char *trouble)
{
    pls_node_options options = world_options(0);
    *trouble = 0;
    node->control_fd = -1;
    deny(d);
    return pls_node_launch(&options, node, trouble);
}

START_TEST(test_a_node_is_not_started_and_the_text_says_why)
{
    char trouble[PLS_TROUBLE_BYTES_MAX];
    pls_node_launched node;
    pls_err err = launch_denied(&denials[_i], &node, trouble);
    refusal_check(&denials[_i], err, trouble);
    ck_assert(world_is_clean());
}
END_TEST

/* The node is outside of the container, or was there before the profile. */
static void attach_denied(const denial *d)
{
    char trouble[PLS_TROUBLE_BYTES_MAX] = "";
    pls_node_launched node = {.control_fd = -1};
    pulsing *p = NULL;
    pls_node_options options = world_options(0);
    pls_err err = pls_node_launch(&options, &node, trouble);
    ck_assert_msg(err == PLS_OK, "%s", trouble);
    pulsing_options attach = {.control_fd = node.control_fd};
    deny(d);
    err = pulsing_open(&attach, &p, trouble);
    refusal_check(d, err, trouble);
    /* Its socket is closed by now, and whoever launched a node and is gone takes it along. */
    ck_assert_int_eq(pls_node_wait(&node, WAIT_MS), PLS_OK);
    ck_assert(world_is_clean());
}

START_TEST(test_a_process_is_not_attached_and_the_text_says_why)
{
    attach_denied(&denials[_i]);
}
END_TEST

START_TEST(test_a_process_is_not_attached_without_an_eventfd)
{
    attach_denied(&bell_denials[_i]);
}
END_TEST

/* It could be used by those whose container allows more than the node's. */
START_TEST(test_a_node_starts_without_an_eventfd)
{
    char trouble[PLS_TROUBLE_BYTES_MAX];
    pls_node_launched node;
    pls_err err = launch_denied(&bell_denials[_i], &node, trouble);
    ck_assert_msg(err == PLS_OK, "%s", trouble);
    close(node.control_fd);
    ck_assert_int_eq(pls_node_wait(&node, WAIT_MS), PLS_OK);
    ck_assert(world_is_clean());
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("node.denied");
    TCase *tests = tcase_create("denied");
    tcase_set_timeout(tests, 30);
    tcase_add_loop_test(tests, test_a_node_is_not_started_and_the_text_says_why, 0, DENIALS);
    tcase_add_loop_test(tests, test_a_process_is_not_attached_and_the_text_says_why, 0, DENIALS);
    tcase_add_loop_test(tests, test_a_process_is_not_attached_without_an_eventfd, 0, BELL_DENIALS);
    tcase_add_loop_test(tests, test_a_node_starts_without_an_eventfd, 0, BELL_DENIALS);
    suite_add_tcase(suite, tests);
    return check_run(suite);
}
