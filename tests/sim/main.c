/* SPDX-License-Identifier: Apache-2.0 */
/* pulsing-sim: runs scenarios, campaigns, single plans and free experiments in virtual time. */
#include "tests/sim/options.h"
#include "tests/sim/scenario.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifdef PLS_MUTANTS
int pls_mutant_active;
#endif

typedef struct scenario {
    const char *name;
    const char *text;
    void (*run)(pls_sim_report *report);
} scenario;

static const scenario scenarios[] = {
#define SCENARIO(name, text) {#name, text, pls_sim_scenario_##name},
    PLS_SIM_SCENARIOS(SCENARIO)
#undef SCENARIO
};

enum { SCENARIO_COUNT = sizeof scenarios / sizeof scenarios[0] };

static int command_list(void)
{
    for (int i = 0; i < SCENARIO_COUNT; i++) {
        printf("%-22s %s\n", scenarios[i].name, scenarios[i].text);
    }
    return EXIT_SUCCESS;
}

static int command_scenario(const pls_sim_options *options)
{
    uint32_t run_count = 0;
    uint32_t failed_count = 0;
    for (int i = 0; i < SCENARIO_COUNT; i++) {
        if (options->name == NULL ||
            (strcmp(options->name, "all") != 0 && strcmp(options->name, scenarios[i].name) != 0)) {
            continue;
        }
        pls_sim_report report = {options->seed, options->whole, options->curve_folder, 0};
        printf("scenario %s: %s\n", scenarios[i].name, scenarios[i].text);
        scenarios[i].run(&report);
        printf("scenario %s: %s\n", scenarios[i].name, report.failed_count == 0 ? "ok" : "FAILED");
        run_count++;
        failed_count += report.failed_count;
    }
    if (run_count == 0) {
        fprintf(stderr, "pulsing-sim: no such scenario; see pulsing-sim list\n");
    }
    return run_count > 0 && failed_count == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

static int dispatch(const pls_sim_options *options)
{
    static const struct {
        const char *word;
        int (*run)(const pls_sim_options *options);
    } commands[] = {
        {"scenario", command_scenario},     {"campaign", pls_sim_command_campaign},
        {"replay", pls_sim_command_replay}, {"hash", pls_sim_command_hash},
        {"run", pls_sim_command_run},       {"mutants", pls_sim_command_mutants},
    };
    if (strcmp(options->command, "list") == 0) {
        return command_list();
    }
    for (size_t i = 0; i < sizeof commands / sizeof commands[0]; i++) {
        if (strcmp(options->command, commands[i].word) == 0) {
            return commands[i].run(options);
        }
    }
    pls_sim_options_usage();
    return EXIT_FAILURE;
}

int main(int argc, char **argv)
{
    pls_sim_options options;
    if (!pls_sim_options_read(argc, argv, &options)) {
        pls_sim_options_usage();
        return EXIT_FAILURE;
    }
#ifdef PLS_MUTANTS
    pls_mutant_active = (int)options.mutant;
#else
    if (options.mutant != 0) {
        fprintf(stderr, "pulsing-sim: this build has no mutants\n");
        return EXIT_FAILURE;
    }
#endif
    return dispatch(&options);
}
