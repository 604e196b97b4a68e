/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PLS_SIM_OPTIONS_H
#define PLS_SIM_OPTIONS_H

#include <stdbool.h>
#include <stdint.h>

/* What the command line of pulsing-sim says. */
typedef struct pls_sim_options {
    const char *command;
    const char *name; /* of a scenario, or a file */
    const char *curve_folder;
    const char *trace_folder;
    uint64_t seed;
    uint32_t seed_count;
    uint32_t tick_count;
    uint32_t job_count;
    uint32_t mutant;
    bool whole;
    bool join;
    uint32_t node_count;
    uint32_t seconds;
    uint32_t alpha;
    uint32_t beta;
    uint32_t loss_percent;
    uint32_t kill_count;
    uint32_t kill_at_s;
    uint32_t cut_count; /* nodes on the one side of a cut */
    uint32_t cut_at_s;
    uint32_t heal_at_s;
    uint32_t pause_count;
    uint32_t pause_at_s;
    uint32_t resume_at_s;
} pls_sim_options;

/* Reads the command line. False, after a word on standard error, when it is not understood.
 * Owns:    `options_out` borrows the arguments.
 * Threads: owner thread. */
bool pls_sim_options_read(int argc, char **argv, pls_sim_options *options_out);

/* Prints how to call the command. Threads: owner thread; may block on the output. */
void pls_sim_options_usage(void);

/* The commands beyond the scenarios; each returns the exit status. */
int pls_sim_command_campaign(const pls_sim_options *options);
int pls_sim_command_replay(const pls_sim_options *options);
int pls_sim_command_hash(const pls_sim_options *options);
int pls_sim_command_run(const pls_sim_options *options);
int pls_sim_command_mutants(const pls_sim_options *options);

#endif
