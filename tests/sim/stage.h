/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PLS_SIM_STAGE_H
#define PLS_SIM_STAGE_H

#include "tests/sim/check.h"
#include "tests/sim/report.h"
#include "tests/sim/tally.h"

/* A world with its tally and, up to PLS_SIM_CHECKED_MAX nodes, its checker: what every scenario
 * stands on. */
typedef struct pls_sim_stage {
    pls_sim_world *world;
    pls_sim_checker *checker; /* NULL in large worlds */
    pls_sim_tally tally;
} pls_sim_stage;

#define PLS_SIM_CHECKED_MAX 128

/* Opens a stage. `acquainted`: all nodes run and know each other; else none runs.
 * Owns:    the caller ends it with pls_sim_stage_close().
 * Threads: owner thread for this and all functions below. */
void pls_sim_stage_open(pls_sim_stage *stage, const pls_sim_setup *setup, bool acquainted);

/* Closes the stage after the last checks, which count as expectations of the report. */
void pls_sim_stage_close(pls_sim_stage *stage, pls_sim_report *report);

/* Lets time pass. */
void pls_sim_stage_run(pls_sim_stage *stage, uint64_t time_ns);

/* Lets time pass until all running nodes agree, for `limit_ns` at most; returns how long it took
 * in steps of 20 ms, PLS_SIM_NEVER when it did not come to that. */
uint64_t pls_sim_stage_converge(pls_sim_stage *stage, uint64_t limit_ns);

/* The same, writing the share of pairs that are alive to a curve (report.h). */
uint64_t pls_sim_stage_converge_drawn(pls_sim_stage *stage, uint64_t limit_ns,
                                      const pls_sim_report *report, const char *file,
                                      const char *title, const char *curve);

/* The share of pairs of running nodes in which the one holds the other alive. */
double pls_sim_stage_share(const pls_sim_stage *stage);

/* Puts the first `count` nodes on side 1, the others on side 0. */
void pls_sim_stage_sides(pls_sim_stage *stage, uint32_t count);

/* Nanoseconds as seconds; -1 for PLS_SIM_NEVER. */
double pls_sim_seconds(uint64_t time_ns);

#endif
