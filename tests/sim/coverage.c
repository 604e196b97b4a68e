/* SPDX-License-Identifier: Apache-2.0 */
/* Adds up what the runs of a campaign did, and tells what none of them did: a campaign in which no
 * node ever refuted or no cut ever healed has proved nothing and must not pass. */
#include "tests/sim/campaign.h"

#include <string.h>

/* Counters that a campaign need not move, each for a reason: there is memory and room enough, all
 * nodes speak one version and are of one cluster, a node joins in the moment in which it is made,
 * no two nodes have one name, and
 * so few nodes make no storm (scenario mass_join sees to that). */
static const char *const never_needed[] = {
    "dropped_memory",  "dropped_actions",   "dropped_full", "dropped_key",     "dropped_jump",
    "dropped_meta",    "dropped_oversized", "dropped_self", "dropped_version", "dropped_cluster",
    "clock_backwards", "dropped_early",     "conflicts",    "updates_heard",
};

void pls_sim_outcome_add(pls_sim_outcome *sum, const pls_sim_outcome *more)
{
    sum->event_count += more->event_count;
    for (int i = 0; i < PLS_SIM_FAULT_KINDS; i++) {
        sum->fault_counts[i] += more->fault_counts[i];
    }
    const uint64_t *from = (const uint64_t *)&more->traffic;
    uint64_t *to = (uint64_t *)&sum->traffic;
    for (size_t i = 0; i < sizeof sum->traffic / sizeof *to; i++) {
        to[i] += from[i];
    }
#define COUNTER_ADD(name, text) sum->counters.name += more->counters.name;
    PLS_GOSSIP_COUNTERS(COUNTER_ADD)
#undef COUNTER_ADD
}

static uint32_t count_missing(const char *name, uint64_t count, FILE *file)
{
    for (size_t i = 0; i < sizeof never_needed / sizeof never_needed[0]; i++) {
        if (strcmp(name, never_needed[i]) == 0) {
            return 0;
        }
    }
    if (count > 0) {
        return 0;
    }
    if (file != NULL) {
        fprintf(file, "never happened: %s\n", name);
    }
    return 1;
}

uint32_t pls_sim_outcome_uncovered(const pls_sim_outcome *sum, FILE *file)
{
    uint32_t missing = 0;
    for (int i = 0; i < PLS_SIM_FAULT_KINDS; i++) {
        missing += count_missing(pls_sim_fault_word((uint8_t)i), sum->fault_counts[i], file);
    }
    missing += count_missing("loss of packets", sum->traffic.packets_lost, file);
    missing += count_missing("doubled packets", sum->traffic.packets_duplicated, file);
    missing += count_missing("unheard packets", sum->traffic.packets_unheard, file);
#define COUNTER_MISSING(name, text) missing += count_missing(#name, sum->counters.name, file);
    PLS_GOSSIP_COUNTERS(COUNTER_MISSING)
#undef COUNTER_MISSING
    return missing;
}
