/* SPDX-License-Identifier: Apache-2.0 */
/* Plans: which faults happen when, as data, so that a failing run can be cut down fault by fault
 * and replayed. Drawing uses a generator of its own: taking a fault out of a plan changes nothing
 * else in it. The campaign draws and runs plans, the shrinker edits them. */
#include "tests/sim/plan.h"

#include "base/assert.h"
#include "base/rng.h"

#include <inttypes.h>
#include <string.h>

static const char *const fault_words[] = {
#define FAULT_WORD(code, word, lasts) word,
    PLS_SIM_FAULT_TABLE(FAULT_WORD)
#undef FAULT_WORD
};

static const uint8_t fault_lasts[] = {
#define FAULT_LASTS(code, word, lasts) lasts,
    PLS_SIM_FAULT_TABLE(FAULT_LASTS)
#undef FAULT_LASTS
};

/* Draws of one kind: how long at most, and the bounds of its value. */
typedef struct fault_range {
    uint32_t ticks_max;
    uint32_t value_min;
    uint32_t value_max;
} fault_range;

static const fault_range fault_ranges[PLS_SIM_FAULT_KINDS] = {
    [PLS_SIM_PAUSE] = {600, 0, 0},
    [PLS_SIM_SLOW] = {300, 20, 2000},
    [PLS_SIM_CLOCK_JUMP] = {0, 100, 3600000},
    [PLS_SIM_CLOCK_STOP] = {300, 0, 0},
    [PLS_SIM_CUT] = {900, 0, 0},
    [PLS_SIM_CUT_ONE_WAY] = {600, 0, 0},
    [PLS_SIM_LOSS] = {600, 10000, 600000},
    [PLS_SIM_DUPLICATE] = {600, 10000, 150000},
    [PLS_SIM_LATE] = {600, 100, 30000},
    [PLS_SIM_DELAY] = {300, 10, 700},
    [PLS_SIM_GARBAGE] = {0, 1, 40},
    [PLS_SIM_HINT] = {0, 0, PLS_SIM_PLAN_NODES_MAX - 1},
    [PLS_SIM_NAMES] = {0, 1, 24},
    [PLS_SIM_UNIQUE] = {0, 0, 1},
};

/* Kinds that are drawn more often than others: names change more often than machines fail, and two
 * owners of a unique name meet only when both claim it within one cut. */
static const uint8_t extra_draws[] = {PLS_SIM_NAMES, PLS_SIM_UNIQUE, PLS_SIM_UNIQUE, PLS_SIM_CUT};

enum { EXTRA_DRAWS = sizeof extra_draws };

/* The share of the run in which faults may begin; the rest and the settling time after it are for
 * the cluster to come together again. */
enum { FAULT_SHARE_PERCENT = 85, FAULTS_MIN = 4 };

/* Network-wide faults stand together in the table. */
_Static_assert(PLS_SIM_DELAY - PLS_SIM_CUT == 5, "cut, cut_one_way, loss, duplicate, late, delay");

const char *pls_sim_fault_word(uint8_t kind)
{
    return kind < PLS_SIM_FAULT_KINDS ? fault_words[kind] : "?";
}

int pls_sim_fault_lasts(uint8_t kind)
{
    return kind < PLS_SIM_FAULT_KINDS && fault_lasts[kind];
}

static uint32_t draw_between(pls_rng *rng, uint32_t low, uint32_t high)
{
    return low + pls_rng_below(rng, high - low + 1);
}

int pls_sim_fault_has_node(uint8_t kind)
{
    return kind < PLS_SIM_CUT || kind > PLS_SIM_DELAY;
}

/* Most cuts separate few from many or half from half; a cut between two single nodes is drawn as
 * often, since only indirect probes tell it from a death. */
static void draw_sides(pls_rng *rng, uint32_t node_count, pls_sim_fault *fault)
{
    uint64_t all = (UINT64_C(1) << node_count) - 1;
    if (pls_rng_chance(rng, 1, 3)) {
        fault->from = UINT64_C(1) << pls_rng_below(rng, node_count);
        fault->to = UINT64_C(1) << pls_rng_below(rng, node_count);
        return;
    }
    uint32_t share = draw_between(rng, 1, 3);
    for (uint32_t i = 0; i < node_count; i++) {
        if (pls_rng_chance(rng, share, 6)) {
            fault->from |= UINT64_C(1) << i;
        }
    }
    fault->to = all & ~fault->from;
}

static void draw_fault(pls_rng *rng, const pls_sim_plan *plan, pls_sim_fault *fault)
{
    *fault = (pls_sim_fault){0};
    fault->kind = (uint8_t)pls_rng_below(rng, PLS_SIM_FAULT_KINDS + EXTRA_DRAWS);
    if (fault->kind >= PLS_SIM_FAULT_KINDS) {
        fault->kind = extra_draws[fault->kind - PLS_SIM_FAULT_KINDS];
    }
    if (pls_sim_fault_has_node(fault->kind)) {
        fault->node = (uint8_t)pls_rng_below(rng, plan->node_count);
    }
    fault->at_tick = pls_rng_below(rng, plan->tick_count * FAULT_SHARE_PERCENT / 100);
    const fault_range *range = &fault_ranges[fault->kind];
    if (fault_lasts[fault->kind]) {
        uint32_t ticks_left = plan->tick_count - fault->at_tick;
        uint32_t ticks_max = range->ticks_max < ticks_left ? range->ticks_max : ticks_left;
        fault->tick_count = draw_between(rng, 1, ticks_max);
    }
    fault->value = draw_between(rng, range->value_min, range->value_max);
    if (fault->kind == PLS_SIM_CUT || fault->kind == PLS_SIM_CUT_ONE_WAY) {
        draw_sides(rng, plan->node_count, fault);
    }
}

static void faults_sort(pls_sim_plan *plan)
{
    for (uint32_t i = 1; i < plan->fault_count; i++) {
        pls_sim_fault fault = plan->faults[i];
        uint32_t at = i;
        while (at > 0 && plan->faults[at - 1].at_tick > fault.at_tick) {
            plan->faults[at] = plan->faults[at - 1];
            at--;
        }
        plan->faults[at] = fault;
    }
}

void pls_sim_plan_draw(pls_sim_plan *plan, uint64_t seed, uint32_t tick_count)
{
    pls_assert(tick_count >= 100);
    pls_rng rng;
    pls_rng_init(&rng, seed ^ UINT64_C(0x706c616e));
    memset(plan, 0, sizeof *plan);
    plan->seed = seed;
    plan->tick_count = tick_count;
    plan->node_count = draw_between(&rng, 2, PLS_SIM_PLAN_NODES_MAX);
    plan->fault_count = draw_between(&rng, FAULTS_MIN, PLS_SIM_PLAN_FAULTS_MAX);
    for (uint32_t i = 0; i < plan->fault_count; i++) {
        draw_fault(&rng, plan, &plan->faults[i]);
    }
    faults_sort(plan);
}

void pls_sim_plan_write(const pls_sim_plan *plan, FILE *file)
{
    fprintf(file, "plan seed=%" PRIu64 " nodes=%" PRIu32 " ticks=%" PRIu32 "\n", plan->seed,
            plan->node_count, plan->tick_count);
    for (uint32_t i = 0; i < plan->fault_count; i++) {
        const pls_sim_fault *fault = &plan->faults[i];
        fprintf(file,
                "at %" PRIu32 " %s node=%u ticks=%" PRIu32 " value=%" PRIu32 " from=%" PRIx64
                " to=%" PRIx64 "\n",
                fault->at_tick, pls_sim_fault_word(fault->kind), fault->node, fault->tick_count,
                fault->value, fault->from, fault->to);
    }
    fprintf(file, "end\n");
}

static pls_err fault_read(const char *line, const pls_sim_plan *plan, pls_sim_fault *fault_out)
{
    char word[32];
    unsigned node = 0;
    pls_sim_fault fault = {0};
    int count = sscanf(line,
                       "at %" SCNu32 " %31s node=%u ticks=%" SCNu32 " value=%" SCNu32
                       " from=%" SCNx64 " to=%" SCNx64,
                       &fault.at_tick, word, &node, &fault.tick_count, &fault.value, &fault.from,
                       &fault.to);
    if (count != 7 || node >= plan->node_count) {
        return PLS_EPROTO;
    }
    for (int kind = 0; kind < PLS_SIM_FAULT_KINDS; kind++) {
        if (strcmp(word, fault_words[kind]) == 0) {
            fault.kind = (uint8_t)kind;
            fault.node = (uint8_t)node;
            *fault_out = fault;
            return PLS_OK;
        }
    }
    return PLS_EPROTO;
}

pls_err pls_sim_plan_read(FILE *file, pls_sim_plan *plan_out)
{
    char line[256];
    pls_sim_plan plan = {0};
    if (fgets(line, sizeof line, file) == NULL ||
        sscanf(line, "plan seed=%" SCNu64 " nodes=%" SCNu32 " ticks=%" SCNu32, &plan.seed,
               &plan.node_count, &plan.tick_count) != 3 ||
        plan.node_count < 1) {
        return PLS_EPROTO;
    }
    if (plan.node_count > PLS_SIM_PLAN_NODES_MAX) {
        return PLS_ETOOBIG;
    }
    while (fgets(line, sizeof line, file) != NULL) {
        if (strcmp(line, "end\n") == 0) {
            *plan_out = plan;
            return PLS_OK;
        }
        if (plan.fault_count == PLS_SIM_PLAN_FAULTS_MAX) {
            return PLS_ETOOBIG;
        }
        pls_err err = fault_read(line, &plan, &plan.faults[plan.fault_count]);
        if (err != PLS_OK) {
            return err;
        }
        plan.fault_count++;
    }
    return PLS_EPROTO;
}
