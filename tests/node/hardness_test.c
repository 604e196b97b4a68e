/* SPDX-License-Identifier: Apache-2.0 */
/* What a node bears: threads that end, forks, other pid namespaces, clients that do not read, a
 * node that does not answer, signals, what workers leave behind, and doing nothing at all. */
#include "tests/check_run.h"
#include "tests/node/world.h"

#include <check.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static volatile sig_atomic_t child_signals;

static void on_child(int number)
{
    child_signals++;
}

START_TEST(test_node_is_no_child_of_the_user)
{
    world w;
    struct sigaction action = {.sa_handler = on_child};
    pls_node_options options = world_options(1);
    sigaction(SIGCHLD, &action, NULL);
    world_begin(&w, &options);
    ck_assert_int_eq(waitpid(-1, NULL, WNOHANG), -1);
    ck_assert_int_eq(errno, ECHILD);
    world_end(&w);
    ck_assert_int_eq(child_signals, 0);
}
END_TEST

START_TEST(test_launch_of_a_program_that_is_not_there_says_which)
{
    pls_node_launched node;
    char trouble[PLS_TROUBLE_BYTES_MAX];
    pls_node_options options = world_options(0);
    options.program = "/nonexistent/pulsing-node";
    ck_assert_int_eq(pls_node_launch(&options, &node, trouble), PLS_ENOENT);
    ck_assert_ptr_nonnull(strstr(trouble, "/nonexistent/pulsing-node"));
    options.program = "/etc/passwd";
    ck_assert_int_eq(pls_node_launch(&options, &node, trouble), PLS_EPERM);
    options = world_options(255);
    ck_assert_int_eq(pls_node_launch(&options, &node, trouble), PLS_EINVAL);
    ck_assert_ptr_nonnull(strstr(trouble, "254 workers"));
}
END_TEST

static void *begin_in_thread(void *argument)
{
    static pls_node_options options;
    options = world_options(1);
    world_begin(argument, &options);
    return NULL;
}

START_TEST(test_system_outlives_the_thread_that_started_it)
{
    world w;
    pthread_t thread;
    pls_attach_event event;
    ck_assert_int_eq(pthread_create(&thread, NULL, begin_in_thread, &w), 0);
    pthread_join(thread, NULL);
    world_pause_ms(100);
    const pls_attach_info *info = pls_attach_info_of(w.attach);
    ck_assert_int_eq(pls_directory_state(info->directory, info->slot, info->epoch), PLS_SLOT_ALIVE);
    ck_assert_int_eq(world_place(&w, PLS_PLACE_INDEX, 0, &event), PLS_OK);
    world_end(&w);
}
END_TEST

START_TEST(test_forked_child_is_told_so_and_harms_nothing)
{
    world w;
    pls_attach_event event;
    int status;
    pls_node_options options = world_options(1);
    world_begin(&w, &options);
    pid_t child = fork();
    if (child == 0) {
        uint32_t request;
        pls_attach_peer peer;
        bool refused = pls_attach_poll(w.attach, &event) == PLS_EFORKED &&
                       pls_attach_names_list(w.attach, &request) == PLS_EFORKED &&
                       pls_attach_peer_get(w.attach, 1, 1, &peer) == PLS_EFORKED;
        pls_attach_close(w.attach, true);
        _exit(refused ? 0 : 1);
    }
    waitpid(child, &status, 0);
    ck_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    world_pause_ms(50);
    ck_assert_int_eq(world_place(&w, PLS_PLACE_INDEX, 0, &event), PLS_OK);
    world_end(&w);
}
END_TEST

START_TEST(test_child_that_keeps_the_socket_does_not_keep_the_system)
{
    int channel[2];
    pid_t pids[2];
    ck_assert_int_eq(pipe(channel), 0);
    (void)world_options(0);
    pid_t user = fork();
    if (user == 0) {
        world w;
        char trouble[PLS_TROUBLE_BYTES_MAX];
        pls_node_options options = world_options(2);
        if (_i == 0) {
            world_begin(&w, &options);
        } else {
            /* Killed before its greeting: the node has nothing but the launch to know it by. */
            ck_assert_int_eq(pls_node_launch(&options, &w.node, trouble), PLS_OK);
        }
        pids[0] = fork();
        if (pids[0] == 0) {
            pause();
            _exit(0);
        }
        pids[1] = (pid_t)w.node.pid;
        ck_assert_int_eq(write(channel[1], pids, sizeof pids), (ssize_t)sizeof pids);
        pause();
    }
    ck_assert_int_eq(read(channel[0], pids, sizeof pids), (ssize_t)sizeof pids);
    kill(user, SIGKILL);
    waitpid(user, NULL, 0);
    /* The forked child holds copies of everything, and is alive; the system is gone all the same.
     */
    ck_assert_int_eq(kill(pids[0], 0), 0);
    ck_assert(world_is_clean());
    kill(pids[0], SIGKILL);
}
END_TEST

/* In a pid namespace of its own, `child` attaches and is killed; this process must learn of it. */
START_TEST(test_process_in_another_pid_namespace_attaches_and_its_death_is_told)
{
    world w;
    char name[64];
    int channel[2];
    uint32_t key[2];
    pls_node_options options = world_options(0);
    snprintf(name, sizeof name, "namespace-%d", (int)getpid());
    options.listen = name;
    world_begin(&w, &options);
    ck_assert_int_eq(pipe(channel), 0);
    pid_t outer = fork();
    if (outer == 0) {
        if (unshare(CLONE_NEWPID) != 0) {
            key[0] = 0;
            (void)!write(channel[1], key, sizeof key);
            _exit(0);
        }
        pid_t inner = fork();
        if (inner == 0) {
            world other = {0};
            char trouble[PLS_TROUBLE_BYTES_MAX];
            int fd;
            ck_assert_int_eq(getpid(), 1);
            ck_assert_int_eq(pls_attach_connect(name, &fd, trouble), PLS_OK);
            world_attach(&other, fd, PLS_ROLE_HOST);
            key[0] = pls_attach_info_of(other.attach)->slot;
            key[1] = pls_attach_info_of(other.attach)->epoch;
            (void)!write(channel[1], key, sizeof key);
            pause();
        }
        waitpid(inner, NULL, 0);
        _exit(0);
    }
    ck_assert_int_eq(read(channel[0], key, sizeof key), (ssize_t)sizeof key);
    if (key[0] != 0) {
        pid_t pid = (pid_t)world_pid_of(&w, key[0]);
        /* The node's own view of it, not the 1 that it calls itself. */
        ck_assert_int_gt(pid, 1);
        kill(pid, SIGKILL);
        ck_assert(world_dead_wait(&w, key[0], 1000));
        ck_assert(world_state_wait(&w, key[0], key[1], PLS_SLOT_DEAD, 1000));
    } else {
        printf("no right to make a pid namespace: the other half of this test was not run\n");
    }
    waitpid(outer, NULL, 0);
    world_end(&w);
}
END_TEST

#define FLOOD 200000

START_TEST(test_client_that_does_not_read_is_cut_off_and_alone)
{
    world w;
    world other = {0};
    char name[64];
    char trouble[PLS_TROUBLE_BYTES_MAX];
    int fd;
    uint32_t request;
    pls_attach_event event;
    pls_node_options options = world_options(0);
    snprintf(name, sizeof name, "flood-%d", (int)getpid());
    options.listen = name;
    world_begin(&w, &options);
    ck_assert_int_eq(pls_attach_connect(name, &fd, trouble), PLS_OK);
    world_attach(&other, fd, PLS_ROLE_HOST);
    uint32_t slot = pls_attach_info_of(other.attach)->slot;
    uint32_t epoch = pls_attach_info_of(other.attach)->epoch;
    pls_err err = PLS_OK;
    for (int i = 0; i < FLOOD && err != PLS_ECLOSED; i++) {
        err = pls_attach_names_list(other.attach, &request);
        if (err == PLS_EFULL) {
            world_pause_ms(1);
        }
    }
    ck_assert_int_eq(err, PLS_ECLOSED);
    ck_assert(world_state_wait(&w, slot, epoch, PLS_SLOT_DYING, 1000));
    ck_assert_int_eq(pls_attach_names_list(w.attach, &request), PLS_OK);
    world_reply(&w, request, &event, 1000);
    pls_attach_close(other.attach, true);
    pls_inbox_destroy(other.inbox);
    world_end(&w);
}
END_TEST

START_TEST(test_requests_to_a_stopped_node_are_queued_up_to_a_bound_and_calls_time_out)
{
    world w;
    uint32_t request;
    uint32_t first = 0;
    uint32_t sent = 0;
    pls_attach_event event;
    pls_attach_peer peer;
    pls_node_options options = world_options(0);
    world_begin(&w, &options);
    kill((pid_t)w.node.pid, SIGSTOP);
    pls_err err = PLS_OK;
    while (sent < 100000 && err == PLS_OK) {
        err = pls_attach_names_list(w.attach, &request);
        first = first == 0 ? request : first;
        sent += err == PLS_OK;
    }
    ck_assert_int_eq(err, PLS_EFULL);
    ck_assert(pls_attach_wants_write(w.attach));
    double before = world_now_ms();
    ck_assert_int_eq(pls_attach_peer_get(w.attach, 1, 1, &peer), PLS_ETIMEDOUT);
    ck_assert_double_gt(world_now_ms() - before, PLS_ATTACH_TIMEOUT_MS - 100);
    ck_assert_double_lt(world_now_ms() - before, PLS_ATTACH_TIMEOUT_MS + 1000);
    kill((pid_t)w.node.pid, SIGCONT);
    /* Every request that was taken is answered, in order. */
    for (uint32_t i = 0; i < sent; i++) {
        ck_assert(world_event(&w, &event, 2000));
        ck_assert_uint_eq(event.request, first + i);
    }
    world_end(&w);
}
END_TEST

static pid_t foreground_begin(const char *name)
{
    (void)world_options(0);
    pid_t pid = fork();
    if (pid == 0) {
        char trouble[PLS_TROUBLE_BYTES_MAX];
        pls_node_options options = world_options(1);
        options.listen = name;
        (void)!pls_node_become(&options, trouble);
        fprintf(stderr, "%s\n", trouble);
        _exit(9);
    }
    return pid;
}

static int connect_soon(const char *name)
{
    char trouble[PLS_TROUBLE_BYTES_MAX];
    int fd = -1;
    for (int i = 0; i < 500; i++) {
        if (pls_attach_connect(name, &fd, trouble) == PLS_OK) {
            return fd;
        }
        world_pause_ms(10);
    }
    ck_abort_msg("%s", trouble);
    return -1;
}

static const int foreground_signals[] = {SIGTERM, SIGINT};

START_TEST(test_foreground_node_drains_and_leaves_at_a_signal)
{
    world w = {0};
    char path[64];
    pls_attach_event event;
    struct stat stat;
    int status;
    snprintf(path, sizeof path, "/tmp/pulsing-fg-%d.sock", (int)getpid());
    pid_t pid = foreground_begin(path);
    world_attach(&w, connect_soon(path), PLS_ROLE_HOST);
    ck_assert_uint_eq(pls_attach_info_of(w.attach)->node_pid, (uint32_t)pid);
    ck_assert_int_eq(world_place(&w, PLS_PLACE_INDEX, 0, &event), PLS_OK);
    kill(pid, foreground_signals[_i]);
    do {
        ck_assert(world_event(&w, &event, 2000));
    } while (event.type != PLS_EVENT_SHUTDOWN);
    waitpid(pid, &status, 0);
    ck_assert(WIFEXITED(status));
    ck_assert_int_eq(WEXITSTATUS(status), 0);
    ck_assert_int_ne(lstat(path, &stat), 0);
    while (pls_attach_poll(w.attach, &event) == PLS_OK) {
    }
    ck_assert_int_eq(pls_attach_poll(w.attach, &event), PLS_ECLOSED);
    pls_attach_close(w.attach, false);
    pls_inbox_destroy(w.inbox);
    ck_assert(world_is_clean());
}
END_TEST

START_TEST(test_what_a_worker_leaves_behind_ends_with_the_system)
{
    world w;
    pls_attach_event event;
    uint32_t request;
    static const char *env[] = {"PULSING_STUB=leaves-a-child", NULL};
    pls_node_options options = world_options(1);
    world_begin(&w, &options);
    pls_place_options place = {.kind = PLS_PLACE_INDEX, .index = 0, .env = env};
    ck_assert_int_eq(pls_attach_place(w.attach, &place, &request), PLS_OK);
    world_reply(&w, request, &event, 10000);
    ck_assert_int_eq(event.status, PLS_OK);
    /* Node, template, worker, and the worker's child. */
    for (int i = 0; i < 200 && world_leftovers(NULL, 0) < 4; i++) {
        world_pause_ms(10);
    }
    int before = world_leftovers(NULL, 0);
    ck_assert_int_eq(before, 4);
    kill((pid_t)world_pid_of(&w, event.slot), SIGKILL);
    ck_assert(world_state_wait(&w, event.slot, event.epoch, PLS_SLOT_DEAD, 1000));
    world_pause_ms(20);
    /* Only the worker is gone; its child is somebody's own business while the system runs. */
    ck_assert_int_eq(world_leftovers(NULL, 0), before - 1);
    world_end(&w);
}
END_TEST

static long switches_of(uint32_t pid)
{
    char path[64];
    char line[256];
    long sum = 0;
    long value;
    snprintf(path, sizeof path, "/proc/%u/status", pid);
    FILE *file = fopen(path, "r");
    ck_assert_ptr_nonnull(file);
    while (fgets(line, sizeof line, file) != NULL) {
        if (sscanf(line, "voluntary_ctxt_switches: %ld", &value) == 1 ||
            sscanf(line, "nonvoluntary_ctxt_switches: %ld", &value) == 1) {
            sum += value;
        }
    }
    fclose(file);
    return sum;
}

START_TEST(test_idle_node_never_wakes)
{
    world w;
    pls_attach_event event;
    pls_node_options options = world_options(2);
    world_begin(&w, &options);
    ck_assert_int_eq(world_place(&w, PLS_PLACE_INDEX, 0, &event), PLS_OK);
    ck_assert_int_eq(world_place(&w, PLS_PLACE_INDEX, 1, &event), PLS_OK);
    uint32_t worker = world_pid_of(&w, event.slot);
    pid_t template = world_template(&w);
    world_pause_ms(300);
    long node_before = switches_of(w.node.pid);
    long worker_before = switches_of(worker);
    long template_before = switches_of((uint32_t) template);
    world_pause_ms(2000);
    ck_assert_int_eq(switches_of(w.node.pid) - node_before, 0);
    ck_assert_int_eq(switches_of(worker) - worker_before, 0);
    ck_assert_int_eq(switches_of((uint32_t) template) - template_before, 0);
    world_end(&w);
}
END_TEST

START_TEST(test_descriptor_limit_is_told_and_survived)
{
    world w;
    char name[64];
    char trouble[PLS_TROUBLE_BYTES_MAX];
    uint32_t request;
    pls_attach_event event;
    int fds[64];
    int opened = 0;
    struct rlimit limit = {.rlim_cur = 40, .rlim_max = 40};
    pls_node_options options = world_options(1);
    snprintf(name, sizeof name, "fds-%d", (int)getpid());
    options.listen = name;
    struct rlimit before;
    getrlimit(RLIMIT_NOFILE, &before);
    int held[64];
    /* The node inherits the limit; this process keeps room by what it has open already. */
    for (int i = 0; i < 64; i++) {
        held[i] = dup(STDIN_FILENO);
    }
    world_begin(&w, &options);
    ck_assert_int_eq(prlimit((pid_t)w.node.pid, RLIMIT_NOFILE, &limit, NULL), 0);
    for (int i = 0; i < 60; i++) {
        if (pls_attach_connect(name, &fds[opened], trouble) == PLS_OK) {
            opened++;
        }
    }
    world_pause_ms(100);
    ck_assert_int_eq(pls_attach_names_list(w.attach, &request), PLS_OK);
    world_reply(&w, request, &event, 2000);
    ck_assert_int_eq(world_place(&w, PLS_PLACE_INDEX, 0, &event), PLS_EFDLIMIT);
    ck_assert_ptr_nonnull(memmem(event.text, event.text_bytes, "ulimit -n", 9));
    for (int i = 0; i < opened; i++) {
        close(fds[i]);
    }
    for (int i = 0; i < 64; i++) {
        close(held[i]);
    }
    world_pause_ms(50);
    ck_assert_int_eq(world_place(&w, PLS_PLACE_INDEX, 0, &event), PLS_OK);
    world_end(&w);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("node.hardness");
    TCase *tcase = tcase_create("hardness");
    tcase_set_timeout(tcase, 60);
    tcase_add_test(tcase, test_node_is_no_child_of_the_user);
    tcase_add_test(tcase, test_launch_of_a_program_that_is_not_there_says_which);
    tcase_add_test(tcase, test_system_outlives_the_thread_that_started_it);
    tcase_add_test(tcase, test_forked_child_is_told_so_and_harms_nothing);
    tcase_add_loop_test(tcase, test_child_that_keeps_the_socket_does_not_keep_the_system, 0, 2);
    tcase_add_test(tcase, test_process_in_another_pid_namespace_attaches_and_its_death_is_told);
    tcase_add_test(tcase, test_client_that_does_not_read_is_cut_off_and_alone);
    tcase_add_test(tcase,
                   test_requests_to_a_stopped_node_are_queued_up_to_a_bound_and_calls_time_out);
    tcase_add_loop_test(tcase, test_foreground_node_drains_and_leaves_at_a_signal, 0, 2);
    tcase_add_test(tcase, test_what_a_worker_leaves_behind_ends_with_the_system);
    tcase_add_test(tcase, test_idle_node_never_wakes);
    tcase_add_test(tcase, test_descriptor_limit_is_told_and_survived);
    suite_add_tcase(suite, tcase);
    return check_run(suite);
}
