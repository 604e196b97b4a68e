/* SPDX-License-Identifier: Apache-2.0 */
/* Choosing and starting workers, what they find around them, how their failures and their output
 * reach the user, and the limits. */
#include "tests/check_run.h"
#include "tests/node/world.h"

#include <check.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

static char captured[65536];

/* Sends this process's standard output, and so the node's, into a file. */
static int capture_begin(void)
{
    int fd = memfd_create("captured", MFD_CLOEXEC);
    ck_assert_int_ge(fd, 0);
    fflush(stdout);
    ck_assert_int_ge(dup2(fd, STDOUT_FILENO), 0);
    return fd;
}

static const char *capture_read(int fd)
{
    ssize_t n = pread(fd, captured, sizeof captured - 1, 0);
    captured[n > 0 ? n : 0] = 0;
    return captured;
}

static const char *capture_wait(int fd, const char *what)
{
    double until = world_now_ms() + 3000;
    const char *found;
    while ((found = strstr(capture_read(fd), what)) == NULL && world_now_ms() < until) {
        world_pause_ms(5);
    }
    return found;
}

static bool text_has(const pls_attach_event *event, const char *what)
{
    return memmem(event->text, event->text_bytes, what, strlen(what)) != NULL;
}

START_TEST(test_least_loaded_prefers_workers_not_yet_started_then_fewest_actors)
{
    world w;
    pls_attach_event event;
    pls_node_options options = world_options(3);
    world_begin(&w, &options);
    const pls_directory *directory = pls_attach_info_of(w.attach)->directory;
    uint32_t slots[3];
    for (uint32_t i = 0; i < 3; i++) {
        ck_assert_int_eq(world_place(&w, PLS_PLACE_LEAST_LOADED, 0, &event), PLS_OK);
        ck_assert_uint_eq(event.number, i);
        slots[i] = event.slot;
    }
    /* All have one placed; now the directory says how many they really have. */
    pls_directory_line *lines = (pls_directory_line *)(uintptr_t)directory->lines;
    atomic_store(&lines[slots[0]].actor_count, 5);
    atomic_store(&lines[slots[1]].actor_count, 3);
    atomic_store(&lines[slots[2]].actor_count, 4);
    /* Two more make the second equal to its neighbour; the count of placed ones is not yet visible
     * in the directory and must count all the same. */
    ck_assert_int_eq(world_place(&w, PLS_PLACE_LEAST_LOADED, 0, &event), PLS_OK);
    ck_assert_uint_eq(event.number, 1);
    ck_assert_int_eq(world_place(&w, PLS_PLACE_LEAST_LOADED, 0, &event), PLS_OK);
    ck_assert_uint_eq(event.number, 1);
    ck_assert_int_eq(world_place(&w, PLS_PLACE_LEAST_LOADED, 0, &event), PLS_OK);
    ck_assert_uint_eq(event.number, 2);
    world_end(&w);
}
END_TEST

START_TEST(test_dedicated_workers_are_extra_and_index_is_checked)
{
    world w;
    pls_attach_event event;
    pls_node_options options = world_options(1);
    world_begin(&w, &options);
    ck_assert_int_eq(world_place(&w, PLS_PLACE_INDEX, 0, &event), PLS_OK);
    uint32_t numbered = event.slot;
    ck_assert_int_eq(world_place(&w, PLS_PLACE_DEDICATED, 0, &event), PLS_OK);
    ck_assert_uint_eq(event.number, PLS_WORKER_INDEX_NONE);
    ck_assert_uint_ne(event.slot, numbered);
    ck_assert_int_eq(world_place(&w, PLS_PLACE_INDEX, 1, &event), PLS_EINVAL);
    world_end(&w);
}
END_TEST

START_TEST(test_place_without_workers_says_so)
{
    world w;
    pls_attach_event event;
    pls_node_options options = world_options(0);
    options.template_argv = NULL;
    world_begin(&w, &options);
    ck_assert_int_eq(world_place(&w, PLS_PLACE_LEAST_LOADED, 0, &event), PLS_EUNSUPPORTED);
    ck_assert_int_eq(world_place(&w, PLS_PLACE_DEDICATED, 0, &event), PLS_EUNSUPPORTED);
    ck_assert(text_has(&event, "no worker processes"));
    world_end(&w);
}
END_TEST

START_TEST(test_worker_has_its_surroundings)
{
    world w;
    pls_attach_event event;
    char expected[64];
    uint32_t request;
    int fd = capture_begin();
    static const char *env[] = {"PULSING_STUB_ENV=mine", NULL};
    static const uint16_t cpus[] = {0};
    pls_node_options options = world_options(2);
    world_begin(&w, &options);
    pls_place_options place = {
        .kind = PLS_PLACE_INDEX, .index = 1, .env = env, .cpus = cpus, .cpu_count = 1};
    ck_assert_int_eq(pls_attach_place(w.attach, &place, &request), PLS_OK);
    world_reply(&w, request, &event, 10000);
    ck_assert_int_eq(event.status, PLS_OK);
    cpu_set_t set;
    ck_assert_int_eq(sched_getaffinity((pid_t)world_pid_of(&w, event.slot), sizeof set, &set), 0);
    ck_assert_int_eq(CPU_COUNT(&set), 1);
    ck_assert(CPU_ISSET(0, &set));
    snprintf(expected, sizeof expected, "[worker 1] parent=%u ", w.node.pid);
    ck_assert_ptr_nonnull(capture_wait(fd, expected));
    ck_assert_ptr_nonnull(
        capture_wait(fd, "pdeath=9 sigint_ignored=1 index=1 name=world setup=blob"));
    ck_assert_ptr_nonnull(capture_wait(fd, "env=mine"));
    const char *highest = capture_wait(fd, "highest_fd=");
    ck_assert_ptr_nonnull(highest);
    /* 0, 1, 2, the control socket, its own inbox and bell: nothing inherited beside them. */
    ck_assert_int_le((int)strtol(highest + strlen("highest_fd="), NULL, 10), 6);
    world_end(&w);
}
END_TEST

START_TEST(test_workers_differ_where_copies_must)
{
    world w;
    pls_attach_event event;
    char lines[2][256] = {"", ""};
    int fd = capture_begin();
    setenv("PULSING_STUB", "prints", 1);
    pls_node_options options = world_options(2);
    world_begin(&w, &options);
    for (uint32_t i = 0; i < 2; i++) {
        char expected[64];
        ck_assert_int_eq(world_place(&w, PLS_PLACE_INDEX, i, &event), PLS_OK);
        snprintf(expected, sizeof expected, "[worker %u] from python ", i);
        const char *line = capture_wait(fd, expected);
        ck_assert_ptr_nonnull(line);
        snprintf(lines[i], sizeof lines[i], "%.*s", (int)strcspn(line, "\n"), line);
        ck_assert_ptr_nonnull(strstr(lines[i], "exit=True gc=True"));
        ck_assert_ptr_nonnull(strstr(lines[i], "tests/node/stub argv=['']"));
    }
    /* The same random numbers in every worker would be nobody's wish. */
    ck_assert_str_ne(strstr(lines[0], "random="), strstr(lines[1], "random="));
    world_end(&w);
}
END_TEST

START_TEST(test_output_tail_is_kept_for_the_living_and_the_dead)
{
    world w;
    pls_attach_event event;
    uint32_t request;
    pls_node_options options = world_options(1);
    world_begin(&w, &options);
    ck_assert_int_eq(world_place(&w, PLS_PLACE_INDEX, 0, &event), PLS_OK);
    uint32_t slot = event.slot;
    uint32_t epoch = event.epoch;
    world_pause_ms(50);
    ck_assert_int_eq(pls_attach_output_tail(w.attach, slot, epoch, &request), PLS_OK);
    world_reply(&w, request, &event, 1000);
    ck_assert_int_eq(event.status, PLS_OK);
    ck_assert(text_has(&event, "setup=blob"));
    kill((pid_t)world_pid_of(&w, slot), SIGKILL);
    ck_assert(world_state_wait(&w, slot, epoch, PLS_SLOT_DEAD, 1000));
    ck_assert_int_eq(pls_attach_death_ack(w.attach, slot, epoch), PLS_OK);
    ck_assert_int_eq(pls_attach_output_tail(w.attach, slot, epoch, &request), PLS_OK);
    world_reply(&w, request, &event, 1000);
    ck_assert_int_eq(event.status, PLS_OK);
    ck_assert(text_has(&event, "setup=blob"));
    ck_assert_int_eq(pls_attach_output_tail(w.attach, slot, epoch + 1, &request), PLS_OK);
    world_reply(&w, request, &event, 1000);
    ck_assert_int_eq(event.status, PLS_ENOENT);
    world_end(&w);
}
END_TEST

static const struct {
    const char *mode;
    const char *text;
} failures[] = {
    {"import-fails", "ImportError: the stub's import fails"},
    {"main-raises", "RuntimeError: the stub worker raises"},
    {"main-exits", ""},
    {"crash-before-hello", "the stub crashes before its greeting"},
    {"crash-after-hello", ""},
};

START_TEST(test_failed_start_brings_the_traceback_to_the_caller)
{
    world w;
    pls_attach_event event;
    pls_node_options options = world_options(2);
    int fd = capture_begin();
    ck_assert_int_ge(dup2(fd, STDERR_FILENO), 0);
    setenv("PULSING_STUB", failures[_i].mode, 1);
    world_begin(&w, &options);
    for (int i = 0; i < 3; i++) {
        ck_assert_int_eq(world_place(&w, PLS_PLACE_LEAST_LOADED, 0, &event), PLS_EDEAD);
        ck_assert_msg(text_has(&event, failures[_i].text), "%s: %.*s", failures[_i].mode,
                      (int)event.text_bytes, event.text);
    }
    world_end(&w);
}
END_TEST

START_TEST(test_worker_that_hangs_at_its_start_is_killed_in_time)
{
    world w;
    pls_attach_event event;
    pls_node_options options = world_options(1);
    options.start_timeout_ms = 300;
    setenv("PULSING_STUB", "hangs", 1);
    world_begin(&w, &options);
    double before = world_now_ms();
    ck_assert_int_eq(world_place(&w, PLS_PLACE_INDEX, 0, &event), PLS_EDEAD);
    ck_assert_double_lt(world_now_ms() - before, 2000);
    world_end(&w);
}
END_TEST

START_TEST(test_interpreter_that_is_not_there_is_told)
{
    world w;
    pls_attach_event event;
    static const char *argv[] = {"/nonexistent/python", NULL};
    pls_node_options options = world_options(1);
    options.template_argv = argv;
    world_begin(&w, &options);
    ck_assert_int_eq(world_place(&w, PLS_PLACE_INDEX, 0, &event), PLS_ENOENT);
    ck_assert(text_has(&event, "interpreter"));
    world_end(&w);
}
END_TEST

START_TEST(test_stop_drains_one_worker_and_kills_one_that_stays)
{
    world w;
    pls_attach_event event;
    pls_death death;
    uint32_t request;
    pls_node_options options = world_options(2);
    world_begin(&w, &options);
    const pls_directory *directory = pls_attach_info_of(w.attach)->directory;
    ck_assert_int_eq(world_place(&w, PLS_PLACE_INDEX, 0, &event), PLS_OK);
    uint32_t slot = event.slot;
    uint32_t epoch = event.epoch;
    ck_assert_int_eq(pls_attach_worker_stop(w.attach, slot, epoch, 2000, &request), PLS_OK);
    world_reply(&w, request, &event, 3000);
    ck_assert_int_eq(event.status, PLS_OK);
    ck_assert_int_eq(pls_directory_death(directory, slot, epoch, &death), PLS_OK);
    ck_assert_int_eq(death.how, PLS_ENDED_EXIT);
    ck_assert_uint_eq(death.code, 0);
    static const char *env[] = {"PULSING_STUB=stays", NULL};
    pls_place_options place = {.kind = PLS_PLACE_INDEX, .index = 1, .env = env};
    ck_assert_int_eq(pls_attach_place(w.attach, &place, &request), PLS_OK);
    world_reply(&w, request, &event, 10000);
    slot = event.slot;
    epoch = event.epoch;
    ck_assert_int_eq(pls_attach_worker_stop(w.attach, slot, epoch, 200, &request), PLS_OK);
    world_reply(&w, request, &event, 3000);
    ck_assert_int_eq(pls_directory_death(directory, slot, epoch, &death), PLS_OK);
    ck_assert_int_eq(death.how, PLS_ENDED_SIGNAL);
    ck_assert_uint_eq(death.hints & PLS_ENDED_HINT_STOP, PLS_ENDED_HINT_STOP);
    ck_assert_int_eq(pls_attach_worker_stop(w.attach, 1, 1, 200, &request), PLS_OK);
    world_reply(&w, request, &event, 3000);
    ck_assert_int_eq(event.status, PLS_EPERM);
    world_end(&w);
}
END_TEST

START_TEST(test_output_that_nobody_reads_does_not_hold_up_the_node)
{
    world w;
    pls_attach_event event;
    int channel[2];
    uint32_t request;
    pls_node_options options = world_options(2);
    ck_assert_int_eq(pipe(channel), 0);
    fflush(stdout);
    ck_assert_int_ge(dup2(channel[1], STDOUT_FILENO), 0);
    /* The pipe is full before the node starts. */
    fcntl(channel[1], F_SETFL, O_NONBLOCK);
    char bytes[4096] = {0};
    while (write(channel[1], bytes, sizeof bytes) > 0) {
    }
    fcntl(channel[1], F_SETFL, 0);
    world_begin(&w, &options);
    ck_assert_int_eq(world_place(&w, PLS_PLACE_INDEX, 0, &event), PLS_OK);
    ck_assert_int_eq(world_place(&w, PLS_PLACE_INDEX, 1, &event), PLS_OK);
    double before = world_now_ms();
    ck_assert_int_eq(pls_attach_names_list(w.attach, &request), PLS_OK);
    world_reply(&w, request, &event, 1000);
    ck_assert_double_lt(world_now_ms() - before, 200);
    world_end(&w);
}
END_TEST

START_TEST(test_256_processes_fit_and_one_more_is_told)
{
    world w;
    pls_attach_event event;
    char name[64];
    char trouble[PLS_TROUBLE_BYTES_MAX];
    static pls_attach *others[PLS_SLOTS_MAX];
    pls_node_options options = world_options(1);
    snprintf(name, sizeof name, "limit-%d", (int)getpid());
    options.listen = name;
    world_begin(&w, &options);
    for (int i = 0; i < PLS_SLOTS_MAX - 2; i++) {
        int fd;
        ck_assert_int_eq(pls_attach_connect(name, &fd, trouble), PLS_OK);
        ck_assert_int_eq(pls_attach_open(fd, PLS_ROLE_HOST, &others[i], trouble), PLS_OK);
    }
    int fd;
    pls_attach *more;
    ck_assert_int_eq(pls_attach_connect(name, &fd, trouble), PLS_OK);
    ck_assert_int_eq(pls_attach_open(fd, PLS_ROLE_HOST, &more, trouble), PLS_EFULL);
    ck_assert_ptr_nonnull(strstr(trouble, "256 processes"));
    close(fd);
    ck_assert_int_eq(world_place(&w, PLS_PLACE_INDEX, 0, &event), PLS_EFULL);
    ck_assert(text_has(&event, "256 processes"));
    /* One leaves, and there is room again. */
    uint32_t slot = pls_attach_info_of(others[0])->slot;
    pls_attach_close(others[0], false);
    ck_assert(world_state_wait(&w, slot, 1, PLS_SLOT_FREE, 1000));
    pls_err err = world_place(&w, PLS_PLACE_INDEX, 0, &event);
    ck_assert_msg(err == PLS_OK, "%.*s", (int)event.text_bytes, event.text);
    for (int i = 1; i < PLS_SLOTS_MAX - 2; i++) {
        pls_attach_close(others[i], false);
    }
    world_end(&w);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("node.workers");
    TCase *tcase = tcase_create("workers");
    tcase_set_timeout(tcase, 60);
    tcase_add_test(tcase, test_least_loaded_prefers_workers_not_yet_started_then_fewest_actors);
    tcase_add_test(tcase, test_dedicated_workers_are_extra_and_index_is_checked);
    tcase_add_test(tcase, test_place_without_workers_says_so);
    tcase_add_test(tcase, test_worker_has_its_surroundings);
    tcase_add_test(tcase, test_workers_differ_where_copies_must);
    tcase_add_test(tcase, test_output_tail_is_kept_for_the_living_and_the_dead);
    tcase_add_loop_test(tcase, test_failed_start_brings_the_traceback_to_the_caller, 0,
                        (int)(sizeof failures / sizeof failures[0]));
    tcase_add_test(tcase, test_worker_that_hangs_at_its_start_is_killed_in_time);
    tcase_add_test(tcase, test_interpreter_that_is_not_there_is_told);
    tcase_add_test(tcase, test_stop_drains_one_worker_and_kills_one_that_stays);
    tcase_add_test(tcase, test_output_that_nobody_reads_does_not_hold_up_the_node);
    tcase_add_test(tcase, test_256_processes_fit_and_one_more_is_told);
    suite_add_tcase(suite, tcase);
    return check_run(suite);
}
