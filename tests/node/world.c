/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/node/world.h"

#include <check.h>
#include <ctype.h>
#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define MARKER "PULSING_TEST_MARK"
#define LEFTOVER_MS 2000

double world_now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec * 1e3 + (double)now.tv_nsec / 1e6;
}

void world_pause_ms(int ms)
{
    struct timespec pause = {.tv_sec = ms / 1000, .tv_nsec = (long)(ms % 1000) * 1000000};
    nanosleep(&pause, NULL);
}

static const char *marker(void)
{
    static char text[64];
    /* A child that a test forks keeps its parent's. */
    if (text[0] == 0) {
        snprintf(text, sizeof text, "%d", (int)getpid());
    }
    return text;
}

pls_node_options world_options(uint32_t workers)
{
    static const char *argv[] = {PLS_TEST_PYTHON, "-S", PLS_TEST_TEMPLATE, NULL};
    static const char *path[16];
    static char inherited[4096];
    int count = 0;
    setenv(MARKER, marker(), 1);
    setenv("PULSING_STUB_WORKER", PLS_TEST_STUB_WORKER, 1);
    path[count++] = PLS_TEST_STUB_PACKAGE;
    snprintf(inherited, sizeof inherited, "%s", PLS_TEST_PYTHON_PATH);
    char *rest = inherited;
    for (char *at = strsep(&rest, ":"); at != NULL && count < 15; at = strsep(&rest, ":")) {
        path[count++] = at;
    }
    path[count] = NULL;
    return (pls_node_options){.program = PLS_TEST_NODE,
                              .name = "world",
                              .workers_max = workers,
                              .template_argv = argv,
                              .python_path = path,
                              .worker_info = "blob",
                              .worker_info_bytes = 4};
}

void world_attach(world *w, int control_fd, pls_role role)
{
    char trouble[PLS_TROUBLE_BYTES_MAX] = "";
    pls_err err = pls_attach_open(control_fd, role, &w->attach, trouble);
    ck_assert_msg(err == PLS_OK, "%s: %s", pls_err_name(err), trouble);
    const pls_attach_info *info = pls_attach_info_of(w->attach);
    ck_assert_int_eq(pls_inbox_create(info->slot, info->epoch, &w->inbox), PLS_OK);
    err = pls_attach_join(w->attach, pls_inbox_memfd(w->inbox), pls_inbox_eventfd(w->inbox), -1,
                          pls_inbox_header_of(w->inbox)->life);
    ck_assert_msg(err == PLS_OK, "%s: %s", pls_err_name(err), pls_attach_trouble(w->attach));
}

void world_begin(world *w, const pls_node_options *options)
{
    char trouble[PLS_TROUBLE_BYTES_MAX] = "";
    pls_err err = pls_node_launch(options, &w->node, trouble);
    ck_assert_msg(err == PLS_OK, "%s: %s", pls_err_name(err), trouble);
    world_attach(w, w->node.control_fd, PLS_ROLE_HOST);
}

bool world_event(world *w, pls_attach_event *event, int ms)
{
    double until = world_now_ms() + ms;
    for (;;) {
        pls_err err = pls_attach_poll(w->attach, event);
        if (err == PLS_OK) {
            return true;
        }
        if (err != PLS_EEMPTY || world_now_ms() > until) {
            return false;
        }
        struct pollfd wait = {.fd = pls_attach_fd(w->attach), .events = POLLIN};
        poll(&wait, 1, 20);
    }
}

void world_reply(world *w, uint32_t request, pls_attach_event *event, int ms)
{
    double until = world_now_ms() + ms;
    while (world_now_ms() < until) {
        if (!world_event(w, event, (int)(until - world_now_ms()) + 1)) {
            break;
        }
        if (event->type == PLS_EVENT_REPLY && event->request == request) {
            return;
        }
    }
    ck_abort_msg("no reply to request %u within %d ms", request, ms);
}

pls_err world_place(world *w, pls_place_kind kind, uint32_t index, pls_attach_event *event)
{
    uint32_t request;
    pls_place_options options = {.kind = kind, .index = index};
    ck_assert_int_eq(pls_attach_place(w->attach, &options, &request), PLS_OK);
    world_reply(w, request, event, 20000);
    return event->status;
}

bool world_state_wait(world *w, uint32_t slot, uint32_t epoch, pls_slot_state state, int ms)
{
    const pls_directory *directory = pls_attach_info_of(w->attach)->directory;
    double until = world_now_ms() + ms;
    while (pls_directory_state(directory, slot, epoch) != state) {
        if (world_now_ms() > until) {
            return false;
        }
        struct timespec pause = {.tv_nsec = 50000};
        nanosleep(&pause, NULL);
    }
    return true;
}

bool world_dead_wait(world *w, uint32_t slot, int ms)
{
    double until = world_now_ms() + ms;
    for (;;) {
        pls_bitmap dead = {{0}};
        if (pls_inbox_take_dead(w->inbox, &dead) &&
            (dead.word[slot / 64] >> (slot % 64) & 1) != 0) {
            return true;
        }
        if (world_now_ms() > until) {
            return false;
        }
        if (pls_inbox_arm(w->inbox)) {
            struct pollfd wait = {.fd = pls_inbox_eventfd(w->inbox), .events = POLLIN};
            int ready = poll(&wait, 1, (int)(until - world_now_ms()) + 1);
            pls_inbox_disarm(w->inbox, ready > 0);
        }
    }
}

uint32_t world_pid_of(world *w, uint32_t slot)
{
    return atomic_load(&pls_attach_info_of(w->attach)->directory->lines[slot].pid);
}

static bool file_has(pid_t pid, const char *file, const char *what, size_t what_bytes)
{
    static char text[1 << 18];
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/%s", (int)pid, file);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof text);
    if (fd >= 0) {
        close(fd);
    }
    return n > 0 && memmem(text, (size_t)n, what, what_bytes) != NULL;
}

int world_leftovers(pid_t *pids, int pids_max)
{
    char mark[96];
    int count = 0;
    int mark_bytes = snprintf(mark, sizeof mark, MARKER "=%s", marker()) + 1;
    DIR *proc = opendir("/proc");
    ck_assert_ptr_nonnull(proc);
    for (struct dirent *entry = readdir(proc); entry != NULL; entry = readdir(proc)) {
        if (!isdigit((unsigned char)entry->d_name[0])) {
            continue;
        }
        pid_t pid = (pid_t)strtol(entry->d_name, NULL, 10);
        if (pid != getpid() && file_has(pid, "environ", mark, (size_t)mark_bytes)) {
            if (count < pids_max) {
                pids[count] = pid;
            }
            count++;
        }
    }
    closedir(proc);
    return count;
}

bool world_is_clean(void)
{
    pid_t pids[64];
    double until = world_now_ms() + LEFTOVER_MS;
    int count;
    while ((count = world_leftovers(pids, 64)) > 0) {
        if (world_now_ms() > until) {
            for (int i = 0; i < count && i < 64; i++) {
                fprintf(stderr, "left: pid %d\n", (int)pids[i]);
            }
            return false;
        }
        world_pause_ms(5);
    }
    return true;
}

pid_t world_template(world *w)
{
    pid_t pids[64];
    int count = world_leftovers(pids, 64);
    for (int i = 0; i < count && i < 64; i++) {
        if (file_has(pids[i], "cmdline", "_template.py", strlen("_template.py")) &&
            (uint32_t)pids[i] != w->node.pid) {
            bool is_worker = false;
            for (uint32_t slot = 1; slot < PLS_SLOTS_MAX; slot++) {
                is_worker = is_worker || world_pid_of(w, slot) == (uint32_t)pids[i];
            }
            if (!is_worker) {
                return pids[i];
            }
        }
    }
    return 0;
}

void world_end(world *w)
{
    uint32_t request;
    pls_attach_event event;
    ck_assert_int_eq(pls_attach_shutdown(w->attach, 3000, &request), PLS_OK);
    world_reply(w, request, &event, 6000);
    ck_assert_int_eq(event.status, PLS_OK);
    pls_attach_close(w->attach, false);
    pls_inbox_destroy(w->inbox);
    ck_assert_int_eq(pls_node_wait(&w->node, 3000), PLS_OK);
    ck_assert(world_is_clean());
}

uint64_t world_actor(uint32_t slot, uint32_t epoch, uint32_t number)
{
    return (uint64_t)slot << 56 | (uint64_t)epoch << 32 | number;
}
