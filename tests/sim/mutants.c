/* SPDX-License-Identifier: Apache-2.0 */
/* Proves that the checks can fail: runs each deliberate mistake of gossip/mutant.h in a process of
 * its own until something notices it. Every invariant must kill at least one mutant, and none may
 * live. Only the build with PLS_MUTANTS has mutants. */
#include "tests/sim/options.h"

#include "gossip/mutant.h"
#include "tests/sim/campaign.h"
#include "tests/sim/scenario.h"

#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#ifdef PLS_MUTANTS

enum { SEEDS_MAX = 40, MUTANT_TICKS = 2500 };

/* What is expected to kill a mutant: an invariant in the campaign, a scenario that stands for one,
 * or the counter of the campaign's coverage that stays at zero. */
typedef struct mutant {
    int number;
    const char *text;
    pls_sim_invariant invariant;
    void (*scenario)(pls_sim_report *report);
    size_t counter; /* its offset, with neither of the two */
} mutant;

#define COUNTER(name) offsetof(pls_gossip_counters, name)

static const mutant mutants[] = {
    {PLS_MUTANT_INCARNATION_FALLS, "incarnation falls", PLS_SIM_MONOTONE, NULL, 0},
    {PLS_MUTANT_RESURRECTS, "resurrects", PLS_SIM_RESURRECTED, NULL, 0},
    {PLS_MUTANT_META_FORKS, "meta forks", PLS_SIM_META, NULL, 0},
    {PLS_MUTANT_RAISES_OTHERS, "raises others", PLS_SIM_RAISED, NULL, 0},
    {PLS_MUTANT_SELF_DEATH, "self death", PLS_SIM_SELF_DEAD, NULL, 0},
    {PLS_MUTANT_FORBIDDEN, "forbidden transition", PLS_SIM_TRANSITION, NULL, 0},
    {PLS_MUTANT_QUEUE_GROWS, "queue grows", PLS_SIM_SIZE, NULL, 0},
    {PLS_MUTANT_NO_HEAL, "no heal", PLS_SIM_CONVERGENCE, pls_sim_scenario_split_repeated, 0},
    {PLS_MUTANT_UNSEEDED, "unseeded", PLS_SIM_HASH, NULL, 0},
    {PLS_MUTANT_UNCOUNTED, "uncounted", PLS_SIM_CONSERVED, NULL, 0},
    {PLS_MUTANT_NAMES_CUT, "names cut", PLS_SIM_NAMES_EQUAL, pls_sim_scenario_names, 0},
    {PLS_MUTANT_NAMES_REVIVE, "names revive", PLS_SIM_NAMES_EQUAL, NULL, 0},
    {PLS_MUTANT_NO_STALL, "no idle rule", PLS_SIM_HOLDS, pls_sim_scenario_pause, 0},
    {PLS_MUTANT_NO_BUDDY, "no buddy", PLS_SIM_HOLDS, NULL, COUNTER(buddies)},
    {PLS_MUTANT_NO_WINNER, "no winner", PLS_SIM_NAMES_EQUAL, NULL, 0},
    {PLS_MUTANT_DEAD_NAMES, "dead names", PLS_SIM_NAMES_EQUAL, NULL, 0},
    {PLS_MUTANT_NO_NACK, "no nack", PLS_SIM_HOLDS, NULL, COUNTER(nacks_sent)},
};

enum { MUTANT_COUNT = sizeof mutants / sizeof mutants[0] };

/* The child's exit status: the invariant that failed, or one of these. */
enum { STATUS_SURVIVED = 100, STATUS_SCENARIO, STATUS_UNCOVERED };

static uint64_t counter_at(const pls_sim_outcome *sum, size_t offset)
{
    uint64_t count = 0;
    memcpy(&count, (const char *)&sum->counters + offset, sizeof count);
    return count;
}

static int campaign_status(const pls_sim_options *options, size_t counter)
{
    static pls_sim_outcome outcome;
    static pls_sim_outcome again;
    static pls_sim_outcome sum;
    static pls_sim_plan plan;
    for (uint32_t i = 0; i < SEEDS_MAX; i++) {
        pls_sim_plan_draw(&plan, options->seed + i, MUTANT_TICKS);
        pls_sim_plan_run(&plan, &outcome);
        pls_sim_outcome_add(&sum, &outcome);
        if (outcome.violation.invariant != PLS_SIM_HOLDS) {
            printf("  seed %" PRIu64 ": %s\n", plan.seed, outcome.violation.text);
            return (int)outcome.violation.invariant;
        }
        void *shift = malloc(5000 + 777 * i);
        pls_sim_plan_run(&plan, &again);
        free(shift);
        if (again.trace_hash != outcome.trace_hash) {
            return PLS_SIM_HASH;
        }
    }
    return counter_at(&sum, counter) == 0 ? STATUS_UNCOVERED : STATUS_SURVIVED;
}

static int mutant_status(const pls_sim_options *options, const mutant *m)
{
    pls_mutant_active = m->number;
    if (m->scenario == NULL) {
        return campaign_status(options, m->counter);
    }
    pls_sim_report report = {options->seed, false, NULL, 0};
    m->scenario(&report);
    return report.failed_count > 0 ? STATUS_SCENARIO : STATUS_SURVIVED;
}

static bool status_wanted(const mutant *m, int status)
{
    if (m->scenario != NULL) {
        return status == STATUS_SCENARIO;
    }
    return status == (m->invariant == PLS_SIM_HOLDS ? STATUS_UNCOVERED : (int)m->invariant);
}

static const char *status_word(int status)
{
    switch (status) {
    case STATUS_SURVIVED:
        return "NOTHING";
    case STATUS_SCENARIO:
        return "its scenario";
    case STATUS_UNCOVERED:
        return "coverage";
    default:
        return pls_sim_invariant_word((pls_sim_invariant)status);
    }
}

/* Runs one mutant in a child; its status, or -1 when it did not come to one. */
static int child_status(const pls_sim_options *options, const mutant *m)
{
    int status = 0;
    printf("mutant %d, %s:\n", m->number, m->text);
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        int code = mutant_status(options, m);
        fflush(stdout);
        _exit(code);
    }
    if (child < 0 || waitpid(child, &status, 0) != child || !WIFEXITED(status)) {
        printf("  it died of an assertion of its own\n");
        return -1;
    }
    printf("  killed by %s\n", status_word(WEXITSTATUS(status)));
    return WEXITSTATUS(status);
}

/* True when what was expected killed the mutant. */
static bool mutant_run(const pls_sim_options *options, const mutant *m)
{
    bool wanted = status_wanted(m, child_status(options, m));
    if (!wanted) {
        printf("  not expected\n");
    }
    return wanted;
}

int pls_sim_command_mutants(const pls_sim_options *options)
{
    uint32_t failed_count = 0;
    for (int i = 0; i < MUTANT_COUNT; i++) {
        if (options->mutant == 0 || (int)options->mutant == mutants[i].number) {
            failed_count += !mutant_run(options, &mutants[i]);
        }
    }
    /* The same seeds without a mutant survive everything: none of the kills above is vacuous. */
    static const mutant none[] = {
        {0, "none", PLS_SIM_HOLDS, NULL, COUNTER(buddies)},
        {0, "none", PLS_SIM_HOLDS, NULL, COUNTER(nacks_sent)},
        {0, "none", PLS_SIM_HOLDS, pls_sim_scenario_split_repeated, 0},
        {0, "none", PLS_SIM_HOLDS, pls_sim_scenario_names, 0},
        {0, "none", PLS_SIM_HOLDS, pls_sim_scenario_pause, 0},
    };
    for (size_t i = 0; i < sizeof none / sizeof none[0]; i++) {
        failed_count += child_status(options, &none[i]) != STATUS_SURVIVED;
    }
    printf("%u of %d mutants were not killed as expected\n", failed_count, MUTANT_COUNT);
    return failed_count == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

#else

int pls_sim_command_mutants(const pls_sim_options *options)
{
    fprintf(stderr, "pulsing-sim: this build has no mutants\n");
    return EXIT_FAILURE;
}

#endif
