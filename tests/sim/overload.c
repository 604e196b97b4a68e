/* SPDX-License-Identifier: Apache-2.0 */
/* Some nodes of a cluster are overloaded: one by slow handling of every input, others by stalls
 * that come and go. Nobody else may suffer (Lifeguard, figure 1), and plain SWIM on the same seed
 * shows that it would. */
#include "tests/sim/scenario.h"

#include "tests/sim/stage.h"

#include <stdio.h>

enum { OVERLOAD_NODES = 100, STALL_MS_MAX = 6000, RUN_MS_MAX = 1200, SERVICE_MS = 300 };

/* Turns a node's stall on or off and sets the moment of the next turn. */
static void stall_turn(pls_sim_world *world, uint32_t node, void *context)
{
    uint32_t ms_max = RUN_MS_MAX;
    if (world->nodes[node].pause_count > 0) {
        pls_sim_world_resume(world, node);
    } else {
        pls_sim_world_pause(world, node);
        ms_max = STALL_MS_MAX;
    }
    uint64_t after_ns = (1 + pls_rng_below(&world->rng, ms_max)) * PLS_SIM_MS;
    pls_sim_world_call(world, world->now_ns + after_ns, node);
}

/* False deaths of one run. */
typedef struct overload_harm {
    uint64_t all;
    uint64_t healthy;
} overload_harm;

static overload_harm overload_run(pls_sim_report *report, const pls_sim_setup *setup,
                                  uint32_t odd_count, bool stalls, uint64_t time_ns)
{
    pls_sim_stage stage;
    pls_sim_stage_open(&stage, setup, true);
    stage.world->callback = stall_turn;
    pls_sim_stage_run(&stage, 5 * PLS_SIM_S);
    for (uint32_t i = 0; i < odd_count; i++) {
        stage.world->nodes[i].odd = true;
        if (stalls) {
            uint64_t at_ns = stage.world->now_ns + pls_rng_below(&stage.world->rng, 1000000000);
            pls_sim_world_call(stage.world, at_ns, i);
        } else {
            pls_sim_world_slow(stage.world, i, SERVICE_MS * PLS_SIM_MS);
        }
    }
    pls_sim_stage_run(&stage, time_ns);
    overload_harm harm = {stage.tally.false_dead_count, stage.tally.false_dead_healthy_count};
    pls_sim_stage_close(&stage, report);
    return harm;
}

static void overload_compare(pls_sim_report *report, uint32_t odd_count, bool stalls,
                             uint64_t time_ns)
{
    const char *how = stalls ? "stalls" : "slow";
    pls_sim_setup setup = pls_sim_setup_of(report->seed + odd_count, OVERLOAD_NODES);
    overload_harm ours = overload_run(report, &setup, odd_count, stalls, time_ns);
    setup.gossip.suspicion_alpha = 5;
    setup.gossip.suspicion_beta = 1;
    setup.gossip.lha_probe = false;
    setup.gossip.lha_suspicion = false;
    setup.gossip.buddy = false;
    setup.gossip.idle_rule = false;
    overload_harm plain = overload_run(report, &setup, odd_count, stalls, time_ns);
    pls_sim_report_value(report, "", (double)ours.all, "overload.%s.%u_of_100.false_deaths", how,
                         odd_count);
    pls_sim_report_value(report, "", (double)ours.healthy, "overload.%s.%u_of_100.at_healthy", how,
                         odd_count);
    pls_sim_report_value(report, "", (double)plain.all, "overload.%s.%u_of_100.plain_swim", how,
                         odd_count);
    pls_sim_report_value(report, "", (double)plain.healthy,
                         "overload.%s.%u_of_100.plain_swim_at_healthy", how, odd_count);
    if (odd_count == 1) {
        pls_sim_report_expect(report, ours.all == 0, "1 of 100 %s: no false death", how);
    }
    if (odd_count <= 16) {
        pls_sim_report_expect(report, ours.healthy == 0, "%u of 100 %s: none at healthy nodes",
                              odd_count, how);
    }
}

/* One slow node on many seeds: its own table is what suffers first. */
static void overload_seeds(pls_sim_report *report, uint32_t seed_count, uint64_t time_ns)
{
    overload_harm sum = {0, 0};
    for (uint32_t i = 1; i <= seed_count; i++) {
        pls_sim_setup setup = pls_sim_setup_of(report->seed + i, OVERLOAD_NODES);
        overload_harm harm = overload_run(report, &setup, 1, false, time_ns);
        sum.all += harm.all;
        sum.healthy += harm.healthy;
    }
    pls_sim_report_value(report, "", (double)sum.all, "overload.slow.%u_seeds.false_deaths",
                         seed_count);
    pls_sim_report_expect(report, sum.all == 0, "one slow node on %u seeds: no false death",
                          seed_count);
}

void pls_sim_scenario_overload(pls_sim_report *report)
{
    static const uint32_t counts[] = {1, 4, 16, 32};
    uint64_t time_ns = (report->whole ? 600 : 120) * PLS_SIM_S;
    for (int i = 0; i < 4; i++) {
        overload_compare(report, counts[i], true, time_ns);
        overload_compare(report, counts[i], false, time_ns);
    }
    overload_seeds(report, report->whole ? 64 : 16, 120 * PLS_SIM_S);
}
