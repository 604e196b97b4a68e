/* SPDX-License-Identifier: Apache-2.0 */
/* kill -9 of the user's process, the node, the template or a worker at a random moment, start-up
 * included; afterwards nothing may be left within two seconds. */
#include "tests/check_run.h"
#include "tests/node/world.h"

#include "base/rng.h"

#include <check.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

/* Start-up with two workers takes about 80 ms here; half of the kills fall into it. */
#define KILL_DELAY_US_MAX 160000

static uint32_t rounds(void)
{
    const char *given = getenv("PULSING_KILL_ROUNDS");
    return given == NULL ? 25 : (uint32_t)strtoul(given, NULL, 10);
}

static uint64_t seed(void)
{
    const char *given = getenv("PULSING_KILL_SEED");
    uint64_t value = given == NULL ? (uint64_t)world_now_ms() : strtoull(given, NULL, 10);
    printf("PULSING_KILL_SEED=%llu\n", (unsigned long long)value);
    fflush(stdout);
    return value;
}

/* The user's program: starts a system, places two workers, then waits for its end; leaves as soon
 * as the node does. Tells what it has so far through `channel`. */
static void user_run(int channel, bool in_cluster)
{
    /* A name, so that a thread looks it up, and nobody there, so that the node goes on joining. */
    static const char *const seeds[] = {"localhost:9", NULL};
    world w;
    pls_attach_event event;
    pls_node_options options = world_options(2);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    options.output_plain = true;
    if (in_cluster) {
        options.addr = "127.0.0.1:0";
        options.seeds = seeds;
    }
    char trouble[PLS_TROUBLE_BYTES_MAX];
    if (pls_node_launch(&options, &w.node, trouble) != PLS_OK) {
        _exit(9);
    }
    (void)!write(channel, &w.node.pid, sizeof w.node.pid);
    if (pls_attach_open(w.node.control_fd, PLS_ROLE_HOST, &w.attach, trouble) != PLS_OK) {
        _exit(0);
    }
    const pls_attach_info *info = pls_attach_info_of(w.attach);
    if (pls_inbox_create(info->slot, info->epoch, &w.inbox) != PLS_OK ||
        pls_attach_join(w.attach, pls_inbox_memfd(w.inbox), pls_inbox_eventfd(w.inbox), -1,
                        pls_inbox_header_of(w.inbox)->life) != PLS_OK) {
        _exit(0);
    }
    for (uint32_t i = 0; i < 2; i++) {
        uint32_t request;
        pls_place_options place = {.kind = PLS_PLACE_INDEX, .index = i};
        if (pls_attach_place(w.attach, &place, &request) != PLS_OK) {
            _exit(0);
        }
    }
    for (int placed = 0;;) {
        if (!world_event(&w, &event, 1000)) {
            uint32_t request;
            if (pls_attach_names_list(w.attach, &request) != PLS_OK) {
                _exit(0);
            }
        } else if (event.type == PLS_EVENT_REPLY && event.status == PLS_OK && event.slot != 0) {
            uint32_t pid = world_pid_of(&w, event.slot);
            (void)!write(channel, &pid, sizeof pid);
            placed++;
        }
    }
}

typedef enum victim {
    VICTIM_USER,
    VICTIM_NODE,
    VICTIM_WORKER,
} victim;

static void round_run(victim who, bool in_cluster, pls_rng *rng, uint32_t number)
{
    int channel[2];
    uint32_t pids[3] = {0};
    uint32_t delay_us = pls_rng_below(rng, KILL_DELAY_US_MAX);
    /* So that both share one marker. */
    (void)world_options(0);
    ck_assert_int_eq(pipe(channel), 0);
    pid_t user = fork();
    if (user == 0) {
        close(channel[0]);
        user_run(channel[1], in_cluster);
        _exit(0);
    }
    close(channel[1]);
    if (who == VICTIM_USER) {
        usleep(delay_us);
        kill(user, SIGKILL);
    } else {
        int wanted = who == VICTIM_NODE ? 1 : 2;
        ck_assert_int_gt(read(channel[0], pids, (size_t)wanted * sizeof pids[0]), 0);
        if (who == VICTIM_WORKER && pids[1] == 0) {
            ck_assert_int_gt(read(channel[0], &pids[1], sizeof pids[1]), 0);
        }
        usleep(delay_us);
        kill((pid_t)pids[wanted - 1], SIGKILL);
        if (who == VICTIM_WORKER) {
            usleep(delay_us / 4);
            kill(user, SIGKILL);
        }
    }
    double before = world_now_ms();
    while (waitpid(user, NULL, WNOHANG) == 0) {
        ck_assert_msg(world_now_ms() - before < 2000, "round %u: the user's process hangs", number);
        world_pause_ms(2);
    }
    ck_assert_msg(world_is_clean(), "round %u, delay %u us: processes are left", number, delay_us);
    close(channel[0]);
}

static void rounds_run(victim who, bool in_cluster)
{
    pls_rng rng;
    pls_rng_init(&rng, seed());
    for (uint32_t i = 0; i < rounds(); i++) {
        round_run(who, in_cluster, &rng, i);
    }
}

/* The node of one host (0), and the one that joins a cluster (1). */
START_TEST(test_kill_of_the_user_at_any_moment_leaves_nothing)
{
    rounds_run(VICTIM_USER, _i == 1);
}
END_TEST

START_TEST(test_kill_of_the_node_at_any_moment_leaves_nothing)
{
    rounds_run(VICTIM_NODE, _i == 1);
}
END_TEST

START_TEST(test_kill_of_a_worker_then_of_the_user_leaves_nothing)
{
    rounds_run(VICTIM_WORKER, false);
}
END_TEST

START_TEST(test_worker_that_hangs_dies_with_a_killed_node)
{
    world w;
    uint32_t request;
    pls_place_options place = {.kind = PLS_PLACE_INDEX};
    setenv("PULSING_STUB", "hangs", 1);
    pls_node_options options = world_options(1);
    world_begin(&w, &options);
    ck_assert_int_eq(pls_attach_place(w.attach, &place, &request), PLS_OK);
    /* Node, template and a worker that reads no socket. */
    double until = world_now_ms() + 5000;
    while (world_leftovers(NULL, 0) < 3) {
        ck_assert_double_lt(world_now_ms(), until);
        world_pause_ms(5);
    }
    world_pause_ms(100);
    kill((pid_t)w.node.pid, SIGKILL);
    ck_assert(world_is_clean());
    pls_attach_close(w.attach, true);
    pls_inbox_destroy(w.inbox);
    ck_assert_int_eq(pls_node_wait(&w.node, 1000), PLS_OK);
}
END_TEST

START_TEST(test_kill_of_the_template_kills_no_worker_and_it_comes_back)
{
    world w;
    pls_attach_event first;
    pls_attach_event second;
    pls_node_options options = world_options(2);
    world_begin(&w, &options);
    ck_assert_int_eq(world_place(&w, PLS_PLACE_INDEX, 0, &first), PLS_OK);
    pid_t template = world_template(&w);
    ck_assert_int_gt(template, 0);
    kill(template, SIGKILL);
    world_pause_ms(50);
    ck_assert_int_eq(
        pls_directory_state(pls_attach_info_of(w.attach)->directory, first.slot, first.epoch),
        PLS_SLOT_ALIVE);
    ck_assert_int_eq(world_place(&w, PLS_PLACE_INDEX, 1, &second), PLS_OK);
    ck_assert_int_eq(kill((pid_t)world_pid_of(&w, first.slot), 0), 0);
    ck_assert_int_ne(world_template(&w), template);
    world_end(&w);
}
END_TEST

START_TEST(test_kill_of_the_template_at_any_moment_never_loses_a_place)
{
    pls_rng rng;
    pls_rng_init(&rng, seed());
    for (uint32_t i = 0; i < rounds() / 4 + 1; i++) {
        world w;
        pls_attach_event event;
        pls_node_options options = world_options(4);
        world_begin(&w, &options);
        usleep(pls_rng_below(&rng, KILL_DELAY_US_MAX / 2));
        pid_t template = world_template(&w);
        uint32_t requests[4];
        for (uint32_t k = 0; k < 4; k++) {
            pls_place_options place = {.kind = PLS_PLACE_INDEX, .index = k};
            ck_assert_int_eq(pls_attach_place(w.attach, &place, &requests[k]), PLS_OK);
            if (k == i % 4 && template > 0) {
                kill(template, SIGKILL);
            }
        }
        for (uint32_t answered = 0; answered < 4; answered++) {
            ck_assert(world_event(&w, &event, 10000));
            ck_assert_int_eq(event.type, PLS_EVENT_REPLY);
            ck_assert_int_eq(event.status, PLS_OK);
        }
        world_end(&w);
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("node.kills");
    TCase *tcase = tcase_create("kills");
    tcase_set_timeout(tcase, 280);
    tcase_add_loop_test(tcase, test_kill_of_the_user_at_any_moment_leaves_nothing, 0, 2);
    tcase_add_loop_test(tcase, test_kill_of_the_node_at_any_moment_leaves_nothing, 0, 2);
    tcase_add_test(tcase, test_kill_of_a_worker_then_of_the_user_leaves_nothing);
    tcase_add_test(tcase, test_worker_that_hangs_dies_with_a_killed_node);
    tcase_add_test(tcase, test_kill_of_the_template_kills_no_worker_and_it_comes_back);
    tcase_add_test(tcase, test_kill_of_the_template_at_any_moment_never_loses_a_place);
    suite_add_tcase(suite, tcase);
    return check_run(suite);
}
