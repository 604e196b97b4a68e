/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PLS_SIM_CAMPAIGN_H
#define PLS_SIM_CAMPAIGN_H

#include "tests/sim/check.h"
#include "tests/sim/plan.h"

/* What one run of a plan came to. */
typedef struct pls_sim_outcome {
    pls_sim_violation violation;
    uint64_t trace_hash;
    uint64_t event_count;
    uint64_t settle_ns;                         /* from the last fault's end until all agreed */
    uint64_t settle_max_ns;                     /* how long they were allowed */
    uint32_t fault_counts[PLS_SIM_FAULT_KINDS]; /* that really did something */
    pls_sim_traffic traffic;
    pls_gossip_counters counters;
} pls_sim_outcome;

/* Runs a plan: its ticks with its faults, then a time without faults in which all must come to
 * agree, then half a minute in which they must stay so. Every invariant is checked on the way.
 * Threads: owner thread; may block as long as the run lasts. */
void pls_sim_plan_run(const pls_sim_plan *plan, pls_sim_outcome *outcome);

/* Adds one outcome's counts to a sum. Threads: owner thread. */
void pls_sim_outcome_add(pls_sim_outcome *sum, const pls_sim_outcome *more);

/* How many things that a campaign must have exercised are still at zero in the sum; each is
 * written to `file`, which may be NULL. Threads: owner thread. */
uint32_t pls_sim_outcome_uncovered(const pls_sim_outcome *sum, FILE *file);

#endif
