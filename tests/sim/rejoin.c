/* SPDX-License-Identifier: Apache-2.0 */
/* Scenarios 21 to 23: nodes that come back: under the same name and address, at another address,
 * and all at once. A restarted node is a new member of a new generation; its old self dies. */
#include "tests/sim/scenario.h"

#include "tests/sim/ledger.h"
#include "tests/sim/stage.h"

#include <stdio.h>

enum { RESTART_NODES = 32 };

/* Everybody holds `now` alive and does not hold `before` alive. */
static bool replaced_everywhere(const pls_sim_world *world, pls_member before, pls_member now)
{
    for (uint32_t i = 0; i < world->node_count; i++) {
        const pls_gossip *gossip = world->nodes[i].gossip;
        pls_member_state old_state = pls_gossip_member_state(gossip, before);
        if (pls_gossip_member_state(gossip, now) != PLS_MEMBER_ALIVE ||
            old_state == PLS_MEMBER_ALIVE || old_state == PLS_MEMBER_SUSPECT) {
            return false;
        }
    }
    return true;
}

/* Nobody finds a name of the old generation. */
static bool names_gone(const pls_sim_ledger *ledger, pls_sim_report *report)
{
    char text[160];
    bool agrees = pls_sim_ledger_agrees(ledger, text);
    return pls_sim_report_expect(report, agrees, "the old generation's names are gone: %s", text);
}

static void restart_run(pls_sim_report *report, uint64_t down_ns, bool moved)
{
    pls_sim_stage stage;
    pls_sim_ledger ledger;
    const uint32_t node = 5;
    const char *name = moved ? "restart_moved" : "restart";
    pls_sim_setup setup = pls_sim_setup_of(report->seed + down_ns, RESTART_NODES);
    setup.seed_count = 3;
    pls_sim_stage_open(&stage, &setup, true);
    pls_sim_ledger_init(&ledger, stage.world);
    pls_sim_stage_run(&stage, 3 * PLS_SIM_S);
    for (uint32_t i = 0; i < PLS_SIM_PLAIN_NAMES; i++) {
        pls_sim_ledger_put(&ledger, node, i);
    }
    pls_sim_stage_run(&stage, 5 * PLS_SIM_S);
    names_gone(&ledger, report);
    pls_member before = stage.world->nodes[node].self;
    pls_sim_world_crash(stage.world, node, true);
    pls_sim_ledger_stopped(&ledger, node);
    pls_sim_stage_run(&stage, down_ns);
    if (moved) {
        pls_sim_world_move(stage.world, node);
    }
    pls_sim_world_start(stage.world, node);
    pls_member now = stage.world->nodes[node].self;
    uint64_t from_ns = stage.world->now_ns;
    pls_sim_report_expect(report, now != before, "%s: it is another member", name);
    while (!replaced_everywhere(stage.world, before, now) &&
           stage.world->now_ns - from_ns < 30 * PLS_SIM_S) {
        pls_sim_stage_run(&stage, 20 * PLS_SIM_MS);
    }
    double seconds = pls_sim_seconds(stage.world->now_ns - from_ns);
    pls_sim_report_value(report, "s", seconds, "%s.after_%.1f_s", name, pls_sim_seconds(down_ns));
    pls_sim_report_expect(report, seconds <= 2, "%s after %.1f s: known in %.2f s, limit 2 s", name,
                          pls_sim_seconds(down_ns), seconds);
    names_gone(&ledger, report);
    pls_sim_stage_run(&stage, 60 * PLS_SIM_S);
    pls_sim_report_expect(report, pls_sim_world_converged(stage.world, NULL), "it stays so");
    pls_sim_report_expect(report, stage.tally.false_dead_count == 0, "nobody dies falsely");
    pls_sim_ledger_fini(&ledger);
    pls_sim_stage_close(&stage, report);
}

void pls_sim_scenario_restart(pls_sim_report *report)
{
    restart_run(report, 100 * PLS_SIM_MS, false);
    restart_run(report, 5 * PLS_SIM_S, false);
    restart_run(report, 60 * PLS_SIM_S, false);
}

void pls_sim_scenario_restart_moved(pls_sim_report *report)
{
    restart_run(report, 100 * PLS_SIM_MS, true);
    restart_run(report, 5 * PLS_SIM_S, true);
    restart_run(report, 60 * PLS_SIM_S, true);
}

static void restart_all_run(pls_sim_report *report, uint32_t node_count)
{
    pls_sim_stage stage;
    char curve[32];
    snprintf(curve, sizeof curve, "N=%u", node_count);
    pls_sim_setup setup = pls_sim_setup_of(report->seed, node_count);
    setup.seed_count = 3;
    pls_sim_stage_open(&stage, &setup, true);
    pls_sim_stage_run(&stage, 10 * PLS_SIM_S);
    for (uint32_t i = 0; i < node_count; i++) {
        pls_sim_world_crash(stage.world, i, true);
    }
    pls_sim_stage_run(&stage, PLS_SIM_S);
    for (uint32_t i = 0; i < node_count; i++) {
        pls_sim_world_start(stage.world, i);
    }
    uint64_t took_ns = pls_sim_stage_converge_drawn(
        &stage, 60 * PLS_SIM_S, report, "restart_all",
        "All nodes restart at once | seconds after the restart | share of pairs alive", curve);
    pls_sim_report_value(report, "s", pls_sim_seconds(took_ns), "restart_all.%u", node_count);
    pls_sim_report_expect(report, took_ns <= 10 * PLS_SIM_S, "restart of all %u: %.2f s, limit 10",
                          node_count, pls_sim_seconds(took_ns));
    pls_sim_report_expect(report, stage.tally.false_dead_count == 0, "nobody dies falsely");
    pls_sim_stage_close(&stage, report);
}

void pls_sim_scenario_restart_all(pls_sim_report *report)
{
    restart_all_run(report, 16);
    restart_all_run(report, 128);
    if (report->whole) {
        restart_all_run(report, 1000);
    }
}
