/* SPDX-License-Identifier: Apache-2.0 */
/* The campaign's commands: many seeds over a few processes, the replay of one plan, and the hash
 * that all builds must share. A failing seed is cut down and its plan printed, to be replayed. */
#include "tests/sim/options.h"

#include "base/assert.h"
#include "tests/sim/campaign.h"
#include "tests/sim/sample.h"
#include "tests/sim/shrink.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* Every so many seeds one is run twice and its traces compared; a block of memory held meanwhile
 * makes sure that the second run does not see the same addresses. */
enum { TWICE_EVERY = 32, SHIFT_BYTES = 50000, SHRINK_RUNS_MAX = 400, JOBS_MAX = 64 };

/* What one process of a campaign found; small enough for one write to a pipe. */
typedef struct share {
    pls_sim_outcome sum;
    uint32_t failed_count;
    uint64_t settle_max_ns;
    uint64_t slowest_seed;
} share;

static bool fails_alike(const pls_sim_plan *plan, void *context)
{
    static pls_sim_outcome outcome;
    pls_sim_plan_run(plan, &outcome);
    return outcome.violation.invariant == *(const pls_sim_invariant *)context;
}

static void violation_print(const pls_sim_plan *plan, const pls_sim_outcome *outcome)
{
    const pls_sim_violation *violation = &outcome->violation;
    printf("seed %" PRIu64 ": %s at %.3f s: %s\n", plan->seed,
           pls_sim_invariant_word(violation->invariant), (double)violation->at_ns / 1e9,
           violation->text);
}

static void trace_keep(const pls_sim_options *options, const pls_sim_plan *plan)
{
    char path[1024];
    pls_sim_plan_write(plan, stdout);
    if (options->trace_folder == NULL) {
        return;
    }
    snprintf(path, sizeof path, "%s/seed-%" PRIu64 ".plan", options->trace_folder, plan->seed);
    FILE *file = fopen(path, "w");
    if (file == NULL) {
        printf("cannot write %s\n", path);
        return;
    }
    pls_sim_plan_write(plan, file);
    fclose(file);
}

static void failure_show(const pls_sim_options *options, pls_sim_plan *plan,
                         const pls_sim_outcome *outcome)
{
    pls_sim_invariant wanted = outcome->violation.invariant;
    uint32_t fault_count = plan->fault_count;
    violation_print(plan, outcome);
    if (wanted != PLS_SIM_HASH) {
        uint32_t runs = pls_sim_plan_shrink(plan, fails_alike, &wanted, SHRINK_RUNS_MAX);
        printf("cut down from %" PRIu32 " to %" PRIu32 " faults in %" PRIu32 " runs:\n",
               fault_count, plan->fault_count, runs);
    }
    trace_keep(options, plan);
    fflush(stdout);
}

/* Runs one seed, now and then twice. */
static void seed_run(uint64_t seed, uint32_t tick_count, pls_sim_plan *plan,
                     pls_sim_outcome *outcome)
{
    static pls_sim_outcome again;
    pls_sim_plan_draw(plan, seed, tick_count);
    pls_sim_plan_run(plan, outcome);
    if (seed % TWICE_EVERY == 0 && outcome->violation.invariant == PLS_SIM_HOLDS) {
        void *shift = malloc(SHIFT_BYTES);
        pls_sim_plan_run(plan, &again);
        free(shift);
        if (again.trace_hash != outcome->trace_hash) {
            outcome->violation.invariant = PLS_SIM_HASH;
            snprintf(outcome->violation.text, sizeof outcome->violation.text,
                     "hash %016" PRIx64 ", then %016" PRIx64, outcome->trace_hash,
                     again.trace_hash);
        }
    }
}

static void share_run(const pls_sim_options *options, uint32_t job, share *found)
{
    static pls_sim_outcome outcome;
    static pls_sim_plan plan;
    memset(found, 0, sizeof *found);
    for (uint32_t i = job; i < options->seed_count; i += options->job_count) {
        seed_run(options->seed + i, options->tick_count, &plan, &outcome);
        pls_sim_outcome_add(&found->sum, &outcome);
        if (outcome.settle_ns > found->settle_max_ns) {
            found->settle_max_ns = outcome.settle_ns;
            found->slowest_seed = plan.seed;
        }
        if (outcome.violation.invariant != PLS_SIM_HOLDS) {
            found->failed_count++;
            failure_show(options, &plan, &outcome);
        }
    }
}

static void share_add(share *sum, const share *more)
{
    pls_sim_outcome_add(&sum->sum, &more->sum);
    sum->failed_count += more->failed_count;
    if (more->settle_max_ns > sum->settle_max_ns) {
        sum->settle_max_ns = more->settle_max_ns;
        sum->slowest_seed = more->slowest_seed;
    }
}

/* Starts a child for one share; returns the end of the pipe from which its result is read. */
static int child_start(const pls_sim_options *options, uint32_t job)
{
    static share found;
    int ends[2];
    int made = pipe(ends);
    pls_assert(made == 0);
    fflush(stdout);
    pid_t child = fork();
    pls_assert(child >= 0);
    if (child == 0) {
        close(ends[0]);
        share_run(options, job, &found);
        ssize_t written = write(ends[1], &found, sizeof found);
        _exit(written == (ssize_t)sizeof found ? 0 : 1);
    }
    close(ends[1]);
    return ends[0];
}

/* False when a process ended without its result, as after an assertion that did not hold. */
static bool shares_run(const pls_sim_options *options, share *sum)
{
    static share found;
    int pipes[JOBS_MAX];
    bool all = true;
    if (options->job_count <= 1) {
        share_run(options, 0, sum);
        return true;
    }
    for (uint32_t job = 0; job < options->job_count; job++) {
        pipes[job] = child_start(options, job);
    }
    for (uint32_t job = 0; job < options->job_count; job++) {
        size_t got = 0;
        ssize_t len = 1;
        while (len > 0 && got < sizeof found) {
            len = read(pipes[job], (char *)&found + got, sizeof found - got);
            got += len > 0 ? (size_t)len : 0;
        }
        close(pipes[job]);
        all &= got == sizeof found;
        if (got == sizeof found) {
            share_add(sum, &found);
        }
    }
    while (wait(NULL) > 0) {
    }
    return all;
}

static double wall_seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

int pls_sim_command_campaign(const pls_sim_options *options)
{
    static share sum;
    if (options->job_count == 0 || options->job_count > JOBS_MAX || options->tick_count < 100) {
        pls_sim_options_usage();
        return EXIT_FAILURE;
    }
    double start = wall_seconds();
    bool all = shares_run(options, &sum);
    uint32_t uncovered = pls_sim_outcome_uncovered(&sum.sum, stdout);
    double taken = wall_seconds() - start;
    printf("value campaign.seeds %u\nvalue campaign.ticks %u\n", options->seed_count,
           options->tick_count);
    printf("value campaign.violations %u\nvalue campaign.uncovered %u\n", sum.failed_count,
           uncovered);
    printf("value campaign.events %.1f M\nvalue campaign.wall %.1f s\n",
           (double)sum.sum.event_count / 1e6, taken);
    printf("value campaign.settle_max %.1f s\nvalue campaign.slowest_seed %" PRIu64 "\n",
           (double)sum.settle_max_ns / 1e9, sum.slowest_seed);
#define PRINT_COUNTER(name, text) printf("count %-24s %" PRIu64 "\n", #name, sum.sum.counters.name);
    PLS_GOSSIP_COUNTERS(PRINT_COUNTER)
#undef PRINT_COUNTER
    if (!all) {
        printf("FAILED: a process of the campaign died\n");
    }
    return all && sum.failed_count == 0 && uncovered == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

int pls_sim_command_replay(const pls_sim_options *options)
{
    static pls_sim_outcome outcome;
    static pls_sim_plan plan;
    FILE *file = options->name == NULL ? NULL : fopen(options->name, "r");
    if (file == NULL) {
        fprintf(stderr, "pulsing-sim: cannot read the plan\n");
        return EXIT_FAILURE;
    }
    pls_err err = pls_sim_plan_read(file, &plan);
    fclose(file);
    if (err != PLS_OK) {
        fprintf(stderr, "pulsing-sim: not a plan: %s\n", pls_err_text(err));
        return EXIT_FAILURE;
    }
    pls_sim_plan_run(&plan, &outcome);
    printf("hash %016" PRIx64 ", %" PRIu64 " events\n", outcome.trace_hash, outcome.event_count);
    if (outcome.violation.invariant != PLS_SIM_HOLDS) {
        violation_print(&plan, &outcome);
        return EXIT_FAILURE;
    }
    return EXIT_SUCCESS;
}

int pls_sim_command_hash(const pls_sim_options *options)
{
    static pls_sim_outcome outcome;
    static pls_sim_plan plan;
    uint64_t all = 0;
    for (uint32_t i = 0; i < options->seed_count; i++) {
        pls_sim_plan_draw(&plan, options->seed + i, options->tick_count);
        pls_sim_plan_run(&plan, &outcome);
        all = (all ^ outcome.trace_hash) * UINT64_C(0x100000001b3);
        printf("seed %" PRIu64 " hash %016" PRIx64 " events %" PRIu64 "\n", plan.seed,
               outcome.trace_hash, outcome.event_count);
    }
    printf("all %016" PRIx64 "\n", all);
    return EXIT_SUCCESS;
}
