/* SPDX-License-Identifier: Apache-2.0 */
/* Scenarios 28 to 31: nodes that stood still, clocks that jump or stand, packets that come twice,
 * late and in disorder, and nonsense. */
#include "tests/sim/scenario.h"

#include "tests/sim/stage.h"

#include <string.h>

enum { STALL_NODES = 32, DISORDER_NODES = 24, GARBAGE_NODES = 50, GARBAGE_BYTES_MAX = 1500 };

/* `in_send`: the stall strikes in the middle of a send, and timers come before input after it. */
static void pause_run(pls_sim_report *report, uint64_t time_ns, bool in_send)
{
    pls_sim_stage stage;
    pls_sim_setup setup = pls_sim_setup_of(report->seed + time_ns, STALL_NODES);
    setup.stall = in_send ? PLS_SIM_STALL_IN_SEND : PLS_SIM_STALL_WHOLE;
    pls_sim_stage_open(&stage, &setup, true);
    pls_sim_stage_run(&stage, 5 * PLS_SIM_S);
    stage.world->nodes[3].odd = true;
    pls_sim_world_pause(stage.world, 3);
    pls_sim_stage_run(&stage, time_ns);
    uint64_t accused_before = stage.tally.suspects_by[3];
    pls_sim_world_resume(stage.world, 3);
    uint64_t back_ns = pls_sim_stage_converge(&stage, 60 * PLS_SIM_S);
    pls_sim_stage_run(&stage, 30 * PLS_SIM_S);
    double seconds = pls_sim_seconds(time_ns);
    pls_sim_report_value(report, "s", pls_sim_seconds(back_ns), "pause.%s%.0f_s.back",
                         in_send ? "in_send." : "", seconds);
    pls_sim_report_expect(report, stage.tally.suspects_by[3] == accused_before,
                          "after %.0f s it accuses nobody", seconds);
    pls_sim_report_expect(report, stage.tally.false_dead_count == 0,
                          "after %.0f s nobody else has died", seconds);
    pls_sim_report_expect(report, back_ns <= 5 * PLS_SIM_S,
                          "after %.0f s it is alive everywhere in %.2f s", seconds,
                          pls_sim_seconds(back_ns));
    pls_sim_stage_close(&stage, report);
}

void pls_sim_scenario_pause(pls_sim_report *report)
{
    static const uint64_t times_ms[] = {1000, 2000, 5000, 10000, 20000, 40000, 60000};
    for (size_t i = 0; i < sizeof times_ms / sizeof times_ms[0]; i++) {
        pause_run(report, times_ms[i] * PLS_SIM_MS, false);
        pause_run(report, times_ms[i] * PLS_SIM_MS, true);
    }
}

static void clock_run(pls_sim_report *report, bool jump)
{
    const char *name = jump ? "jump" : "stop";
    pls_sim_stage stage;
    pls_sim_setup setup = pls_sim_setup_of(report->seed + jump, STALL_NODES);
    pls_sim_stage_open(&stage, &setup, true);
    pls_sim_stage_run(&stage, 5 * PLS_SIM_S);
    stage.world->nodes[3].odd = true;
    if (jump) {
        pls_sim_world_clock_jump(stage.world, 3, 3600 * PLS_SIM_S);
    } else {
        pls_sim_world_clock_stop(stage.world, 3);
        pls_sim_stage_run(&stage, 60 * PLS_SIM_S);
        pls_sim_world_clock_go(stage.world, 3);
    }
    pls_sim_stage_run(&stage, 60 * PLS_SIM_S);
    pls_sim_report_value(report, "", (double)stage.tally.suspect_count, "clock.%s.suspicions",
                         name);
    pls_sim_report_expect(report, stage.tally.suspects_by[3] == 0, "clock %s: it accuses nobody",
                          name);
    pls_sim_report_expect(report, stage.tally.dead_count == 0, "clock %s: nobody dies", name);
    pls_sim_report_expect(report, pls_sim_world_converged(stage.world, NULL), "clock %s: all agree",
                          name);
    pls_sim_stage_close(&stage, report);
}

void pls_sim_scenario_clock(pls_sim_report *report)
{
    clock_run(report, true);
    clock_run(report, false);
}

void pls_sim_scenario_disorder(pls_sim_report *report)
{
    uint32_t world_count = report->whole ? 20 : 4;
    for (uint32_t i = 0; i < world_count; i++) {
        pls_sim_stage stage;
        pls_sim_setup setup = pls_sim_setup_of(report->seed + i, DISORDER_NODES);
        pls_sim_stage_open(&stage, &setup, true);
        stage.world->net.duplicate_ppm = 150000;
        stage.world->net.late_ppm = 100000;
        stage.world->net.late_ns_max = 30 * PLS_SIM_S;
        pls_sim_stage_run(&stage, 30 * PLS_SIM_S);
        pls_sim_world_crash(stage.world, 4, true);
        pls_sim_stage_run(&stage, 60 * PLS_SIM_S);
        pls_sim_world_start(stage.world, 4);
        pls_sim_stage_run(&stage, 60 * PLS_SIM_S);
        pls_sim_report_expect(report, stage.world->traffic.packets_duplicated > 1000,
                              "packets were doubled");
        pls_sim_net_heal(&stage.world->net);
        pls_sim_stage_run(&stage, 31 * PLS_SIM_S);
        uint64_t settled_ns = pls_sim_stage_converge(&stage, 60 * PLS_SIM_S);
        pls_sim_report_expect(report, settled_ns != PLS_SIM_NEVER, "all agree after the disorder");
        pls_sim_stage_close(&stage, report);
    }
}

/* A packet of another cluster with the same content: nodes of that name send the real thing. */
static void stranger_packet(pls_sim_report *report, pls_sim_stage *stage)
{
    pls_gossip_config config = stage->world->setup.gossip;
    pls_gossip *stranger = NULL;
    pls_identities *pool = NULL;
    pls_action action;
    config.cluster = "another";
    config.self = (pls_identity){.name = "n1", .address = "sim://1", .generation = 999};
    config.self.name_bytes = 2;
    config.self.address_bytes = 7;
    pls_seed seed = {"sim://2", 7};
    bool made = pls_identities_create(NULL, &pool) == PLS_OK &&
                pls_gossip_create(&config, pool, 1, &stranger) == PLS_OK &&
                pls_gossip_join(stranger, &seed, 1, 1) == PLS_OK;
    pls_sim_report_expect(report, made, "a stranger starts");
    uint32_t sent = 0;
    while (made && pls_gossip_next_action(stranger, &action) == PLS_OK) {
        if (action.kind == PLS_ACTION_SEND) {
            pls_sim_world_forge(stage->world, 2, action.bytes, action.len);
            sent++;
        }
    }
    pls_sim_report_expect(report, sent > 0, "the stranger sent its join");
    pls_gossip_destroy(stranger);
    pls_identities_destroy(pool);
}

void pls_sim_scenario_garbage(pls_sim_report *report)
{
    static uint8_t bytes[GARBAGE_BYTES_MAX];
    pls_sim_stage stage;
    pls_sim_setup setup = pls_sim_setup_of(report->seed, GARBAGE_NODES);
    pls_sim_stage_open(&stage, &setup, true);
    pls_rng *rng = &stage.world->rng;
    for (uint32_t i = 0; i < 3000; i++) {
        pls_sim_stage_run(&stage, 20 * PLS_SIM_MS);
        uint32_t len = pls_rng_below(rng, GARBAGE_BYTES_MAX);
        for (uint32_t k = 0; k < len; k++) {
            bytes[k] = (uint8_t)pls_rng_next(rng);
        }
        pls_sim_world_forge(stage.world, 1 + pls_rng_below(rng, GARBAGE_NODES - 1), bytes, len);
        if (i % 100 == 0) {
            stranger_packet(report, &stage);
        }
    }
    pls_gossip_counters counters = pls_sim_world_counters(stage.world);
    pls_sim_report_value(report, "", (double)counters.dropped_malformed, "garbage.malformed");
    pls_sim_report_value(report, "", (double)counters.dropped_cluster, "garbage.other_cluster");
    pls_sim_report_expect(report, counters.dropped_malformed > 0, "nonsense is counted");
    pls_sim_report_expect(report, counters.dropped_cluster >= 30, "strangers are counted");
    pls_sim_report_expect(report,
                          stage.tally.suspect_count == 0 &&
                              stage.tally.joined_count ==
                                  (uint64_t)GARBAGE_NODES * (GARBAGE_NODES - 1),
                          "nothing else happened");
    pls_sim_report_expect(report, pls_sim_world_converged(stage.world, NULL), "all agree");
    pls_sim_stage_close(&stage, report);
}
