/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PLS_SIM_SHRINK_H
#define PLS_SIM_SHRINK_H

#include "tests/sim/plan.h"

#include <stdbool.h>

/* Runs a plan from the start; true when it fails in the way that is looked for. */
typedef bool (*pls_sim_fails)(const pls_sim_plan *plan, void *context);

/* Cuts a failing plan down: first the faults, then the nodes, the run's length and the length of
 * each fault, again and again until nothing more can go. The result still fails, and taking out any
 * one fault of it does not.
 * Units:   `runs_max` bounds how often `fails` is called; the best plan so far is kept then.
 * Threads: owner thread; may block as long as the runs last.
 * Returns how often `fails` was called. */
uint32_t pls_sim_plan_shrink(pls_sim_plan *plan, pls_sim_fails fails, void *context,
                             uint32_t runs_max);

#endif
