/* SPDX-License-Identifier: Apache-2.0 */
/* Scenario 32: one percent of the members leave or die, and as many start, each second. Tables,
 * queues and dead lists stay bounded; when it stops, all that run hold each other alive within
 * seconds, and the last of the dead are found out in the usual time. */
#include "tests/sim/scenario.h"

#include "tests/sim/stage.h"

/* The largest of what any node holds now. */
typedef struct churn_peak {
    uint64_t known;
    uint64_t queue;
    uint64_t memory;
} churn_peak;

static void peak_take(churn_peak *peak, const pls_sim_world *world)
{
    for (uint32_t i = 0; i < world->node_count; i++) {
        if (world->nodes[i].gossip == NULL) {
            continue;
        }
        pls_gossip_view view = pls_gossip_look(world->nodes[i].gossip);
        uint64_t known =
            (uint64_t)view.alive_count + view.suspect_count + view.dead_count + view.left_count;
        peak->known = known > peak->known ? known : peak->known;
        peak->queue = view.queue_count > peak->queue ? view.queue_count : peak->queue;
        peak->memory = view.memory_bytes > peak->memory ? view.memory_bytes : peak->memory;
    }
}

/* One node goes, by leave or by crash, or comes again. */
static void churn_one(pls_sim_world *world)
{
    uint32_t node = 3 + pls_rng_below(&world->rng, world->node_count - 3);
    if (world->nodes[node].gossip == NULL) {
        pls_sim_world_start(world, node);
    } else if (!pls_rng_chance(&world->rng, 1, 2) &&
               !pls_gossip_look(world->nodes[node].gossip).leaving) {
        pls_sim_world_leave(world, node);
    } else {
        pls_sim_world_crash(world, node, true);
    }
}

/* Nodes that are leaving stop, so that all that run are members. */
static void leavers_stop(pls_sim_world *world)
{
    for (uint32_t i = 0; i < world->node_count; i++) {
        if (world->nodes[i].gossip != NULL && pls_gossip_look(world->nodes[i].gossip).leaving) {
            pls_sim_world_crash(world, i, true);
        }
    }
}

static void churn_run(pls_sim_report *report, uint32_t node_count, uint64_t time_s)
{
    pls_sim_stage stage;
    churn_peak first = {0};
    churn_peak last = {0};
    uint64_t steps = time_s * node_count / 100;
    pls_sim_setup setup = pls_sim_setup_of(report->seed, node_count);
    setup.seed_count = 3;
    pls_sim_stage_open(&stage, &setup, true);
    pls_sim_stage_run(&stage, 3 * PLS_SIM_S);
    for (uint64_t i = 0; i < steps; i++) {
        churn_one(stage.world);
        pls_sim_stage_run(&stage, 100 * PLS_SIM_S / node_count);
        if (i % 10 == 0) {
            peak_take(i < steps / 2 ? &first : &last, stage.world);
        }
    }
    leavers_stop(stage.world);
    uint64_t acquainted_ns = stage.world->now_ns;
    while (!pls_sim_world_acquainted(stage.world) &&
           stage.world->now_ns - acquainted_ns < 60 * PLS_SIM_S) {
        pls_sim_stage_run(&stage, 20 * PLS_SIM_MS);
    }
    acquainted_ns = stage.world->now_ns - acquainted_ns;
    pls_sim_report_value(report, "s", pls_sim_seconds(acquainted_ns), "churn.%u.acquainted",
                         node_count);
    pls_sim_report_expect(report, acquainted_ns <= 5 * PLS_SIM_S,
                          "all that run hold each other alive in %.2f s, limit 5 s",
                          pls_sim_seconds(acquainted_ns));
    uint64_t settled_ns = pls_sim_stage_converge(&stage, 120 * PLS_SIM_S);
    pls_sim_report_value(report, "s", pls_sim_seconds(settled_ns), "churn.%u.settled", node_count);
    pls_sim_report_value(report, "", (double)last.known, "churn.%u.known_max", node_count);
    pls_sim_report_value(report, "", (double)last.queue, "churn.%u.queue_max", node_count);
    pls_sim_report_value(report, "kB", (double)last.memory / 1000, "churn.%u.memory_max",
                         node_count);
    pls_sim_report_value(report, "", (double)stage.tally.false_dead_count, "churn.%u.false_deaths",
                         node_count);
    pls_sim_report_expect(report, stage.tally.false_dead_count == 0, "nobody dies falsely");
    pls_sim_report_expect(report, last.known <= 2 * node_count && last.queue <= 2 * node_count,
                          "tables and queues are bounded by the number of nodes");
    pls_sim_report_expect(report, last.memory <= first.memory * 3 / 2,
                          "memory does not grow: %lu B after %lu B", (unsigned long)last.memory,
                          (unsigned long)first.memory);
    pls_sim_report_expect(report, settled_ns != PLS_SIM_NEVER, "all agree after it");
    pls_sim_stage_close(&stage, report);
}

void pls_sim_scenario_churn(pls_sim_report *report)
{
    churn_run(report, 50, 300);
    if (report->whole) {
        churn_run(report, 500, 600);
    }
}
