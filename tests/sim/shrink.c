/* SPDX-License-Identifier: Apache-2.0 */
/* Delta debugging (Zeller and Hildebrandt 2002) over the faults of a plan, then over its numbers.
 * Every candidate is a whole new run from the seed, so the result is a plan like any other and can
 * be replayed. The command and the test of the campaign call it. */
#include "tests/sim/shrink.h"

#include "base/assert.h"

#include <string.h>

typedef struct shrinker {
    pls_sim_plan *best;
    pls_sim_fails fails;
    void *context;
    uint32_t run_count;
    uint32_t runs_max;
} shrinker;

/* Keeps the candidate when it fails too. */
static bool candidate_kept(shrinker *s, const pls_sim_plan *candidate)
{
    if (s->run_count >= s->runs_max) {
        return false;
    }
    s->run_count++;
    if (!s->fails(candidate, s->context)) {
        return false;
    }
    *s->best = *candidate;
    return true;
}

static void plan_without(const pls_sim_plan *plan, uint32_t first, uint32_t count,
                         pls_sim_plan *plan_out)
{
    *plan_out = *plan;
    memmove(&plan_out->faults[first], &plan->faults[first + count],
            (plan->fault_count - first - count) * sizeof plan->faults[0]);
    plan_out->fault_count = plan->fault_count - count;
}

static bool faults_shrink(shrinker *s)
{
    bool shrunk = false;
    uint32_t size = s->best->fault_count / 2;
    while (size >= 1 && s->best->fault_count > 0) {
        bool removed = false;
        uint32_t first = 0;
        while (first < s->best->fault_count) {
            uint32_t left = s->best->fault_count - first;
            pls_sim_plan candidate;
            plan_without(s->best, first, size < left ? size : left, &candidate);
            if (candidate_kept(s, &candidate)) {
                removed = true;
                shrunk = true;
            } else {
                first += size;
            }
        }
        if (!removed || size > s->best->fault_count) {
            size /= 2;
        }
    }
    return shrunk;
}

/* A set of nodes without node `gone`; those above it move down by one. */
static uint64_t mask_without(uint64_t mask, uint32_t gone)
{
    uint64_t below = (UINT64_C(1) << gone) - 1;
    return (mask & below) | (mask >> 1 & ~below);
}

/* The plan without node `gone` and what happens to it; the nodes above it move down by one. */
static void plan_without_node(const pls_sim_plan *plan, uint32_t gone, pls_sim_plan *plan_out)
{
    *plan_out = *plan;
    plan_out->node_count--;
    plan_out->fault_count = 0;
    for (uint32_t i = 0; i < plan->fault_count; i++) {
        pls_sim_fault fault = plan->faults[i];
        if (fault.node == gone && pls_sim_fault_has_node(fault.kind)) {
            continue;
        }
        fault.node = (uint8_t)(fault.node > gone ? fault.node - 1 : fault.node);
        fault.from = mask_without(fault.from, gone);
        fault.to = mask_without(fault.to, gone);
        plan_out->faults[plan_out->fault_count++] = fault;
    }
}

static bool nodes_shrink(shrinker *s)
{
    bool shrunk = false;
    for (uint32_t gone = s->best->node_count; gone-- > 0;) {
        pls_sim_plan candidate;
        if (s->best->node_count <= 2) {
            break;
        }
        plan_without_node(s->best, gone, &candidate);
        shrunk |= candidate_kept(s, &candidate);
    }
    return shrunk;
}

static bool ticks_shrink(shrinker *s)
{
    bool shrunk = false;
    uint32_t cut = s->best->tick_count / 2;
    while (cut > 0) {
        pls_sim_plan candidate = *s->best;
        candidate.tick_count -= cut;
        if (candidate.tick_count > 0 && candidate_kept(s, &candidate)) {
            shrunk = true;
        } else {
            cut /= 2;
        }
    }
    return shrunk;
}

static bool lengths_shrink(shrinker *s)
{
    bool shrunk = false;
    for (uint32_t i = 0; i < s->best->fault_count; i++) {
        while (s->best->faults[i].tick_count > 1) {
            pls_sim_plan candidate = *s->best;
            candidate.faults[i].tick_count /= 2;
            if (!candidate_kept(s, &candidate)) {
                break;
            }
            shrunk = true;
        }
    }
    return shrunk;
}

uint32_t pls_sim_plan_shrink(pls_sim_plan *plan, pls_sim_fails fails, void *context,
                             uint32_t runs_max)
{
    pls_assert(plan != NULL);
    pls_assert(fails != NULL);
    shrinker s = {plan, fails, context, 0, runs_max};
    bool shrunk = true;
    while (shrunk && s.run_count < runs_max) {
        shrunk = faults_shrink(&s);
        shrunk |= nodes_shrink(&s);
        shrunk |= ticks_shrink(&s);
        shrunk |= lengths_shrink(&s);
    }
    return s.run_count;
}
