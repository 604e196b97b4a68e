/* SPDX-License-Identifier: Apache-2.0 */
/* The command line of pulsing-sim. */
#include "tests/sim/options.h"

#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* An option with a number: its word, where the number goes, what it means. */
typedef struct number_option {
    const char *word;
    size_t offset;
    const char *text;
} number_option;

#define NUMBER(word, field, text)                                                                  \
    {                                                                                              \
        word, offsetof(pls_sim_options, field), text                                               \
    }

static const number_option numbers[] = {
    NUMBER("--seeds", seed_count, "campaign, hash: how many seeds (200)"),
    NUMBER("--ticks", tick_count, "campaign, hash: ticks of 100 ms a seed (5000)"),
    NUMBER("--jobs", job_count, "campaign: processes (1)"),
    NUMBER("--mutant", mutant, "which mutant runs, in the build that has mutants"),
    NUMBER("--nodes", node_count, "run: nodes (128)"),
    NUMBER("--seconds", seconds, "run: virtual seconds (60)"),
    NUMBER("--alpha", alpha, "run: suspicion alpha (4)"),
    NUMBER("--beta", beta, "run: suspicion beta (6)"),
    NUMBER("--loss", loss_percent, "run: percent of packets lost (0)"),
    NUMBER("--kill", kill_count, "run: nodes that die (0)"),
    NUMBER("--kill-at", kill_at_s, "run: when they die (10)"),
    NUMBER("--cut", cut_count, "run: nodes on the one side of a cut (0)"),
    NUMBER("--cut-at", cut_at_s, "run: when the cut begins (10)"),
    NUMBER("--heal-at", heal_at_s, "run: when it ends (40)"),
    NUMBER("--pause", pause_count, "run: nodes that stand still (0)"),
    NUMBER("--pause-at", pause_at_s, "run: when they stop (10)"),
    NUMBER("--resume-at", resume_at_s, "run: when they go on (20)"),
};

enum { NUMBER_COUNT = sizeof numbers / sizeof numbers[0] };

void pls_sim_options_usage(void)
{
    printf("usage: pulsing-sim list\n"
           "       pulsing-sim scenario NAME|all [--whole] [--seed S] [--curves FOLDER]\n"
           "       pulsing-sim campaign [--seed FIRST] [--seeds N] [--ticks T] [--traces FOLDER]\n"
           "       pulsing-sim replay FILE\n"
           "       pulsing-sim hash [--seed FIRST] [--seeds N] [--ticks T]\n"
           "       pulsing-sim run [--join] [...] [--curves FOLDER]\n"
           "       pulsing-sim mutants\n\n");
    for (int i = 0; i < NUMBER_COUNT; i++) {
        printf("  %-12s %s\n", numbers[i].word, numbers[i].text);
    }
}

static bool number_read(const char *text, uint64_t max, uint64_t *number_out)
{
    char *end = NULL;
    errno = 0;
    unsigned long long number = text == NULL ? 0 : strtoull(text, &end, 10);
    if (text == NULL || errno != 0 || end == text || *end != '\0' || number > max) {
        return false;
    }
    *number_out = number;
    return true;
}

static bool number_taken(const char *word, const char *text, pls_sim_options *options)
{
    uint64_t number = 0;
    if (strcmp(word, "--seed") == 0) {
        return number_read(text, UINT64_MAX, &options->seed);
    }
    for (int i = 0; i < NUMBER_COUNT; i++) {
        if (strcmp(word, numbers[i].word) == 0 && number_read(text, UINT32_MAX, &number)) {
            uint32_t small = (uint32_t)number;
            memcpy((char *)options + numbers[i].offset, &small, sizeof small);
            return true;
        }
    }
    return false;
}

static pls_sim_options options_default(void)
{
    pls_sim_options options = {.seed = 1,
                               .seed_count = 200,
                               .tick_count = 5000,
                               .job_count = 1,
                               .node_count = 128,
                               .seconds = 60,
                               .alpha = 4,
                               .beta = 6,
                               .kill_at_s = 10,
                               .cut_at_s = 10,
                               .heal_at_s = 40,
                               .pause_at_s = 10,
                               .resume_at_s = 20};
    return options;
}

bool pls_sim_options_read(int argc, char **argv, pls_sim_options *options_out)
{
    pls_sim_options options = options_default();
    for (int i = 1; i < argc; i++) {
        const char *next = i + 1 < argc ? argv[i + 1] : NULL;
        if (strcmp(argv[i], "--whole") == 0) {
            options.whole = true;
        } else if (strcmp(argv[i], "--join") == 0) {
            options.join = true;
        } else if (strcmp(argv[i], "--curves") == 0 && next != NULL) {
            options.curve_folder = argv[++i];
        } else if (strcmp(argv[i], "--traces") == 0 && next != NULL) {
            options.trace_folder = argv[++i];
        } else if (strncmp(argv[i], "--", 2) == 0) {
            if (!number_taken(argv[i], next, &options)) {
                fprintf(stderr, "pulsing-sim: %s is not understood\n", argv[i]);
                return false;
            }
            i++;
        } else if (options.command == NULL) {
            options.command = argv[i];
        } else {
            options.name = argv[i];
        }
    }
    *options_out = options;
    return options.command != NULL;
}
