/* SPDX-License-Identifier: Apache-2.0 */
/* Scenarios 12 and 24 to 27: joins, leaves, and a living node that is declared dead by force. */
#include "tests/sim/scenario.h"

#include "gossip/queue.h"
#include "tests/sim/stage.h"

#include <stdio.h>

enum { MEET_NODES = 16 };

void pls_sim_scenario_join_leave(pls_sim_report *report)
{
    pls_sim_stage stage;
    pls_sim_setup setup = pls_sim_setup_of(report->seed, 2);
    pls_sim_stage_open(&stage, &setup, false);
    pls_sim_world_start(stage.world, 0);
    pls_sim_stage_run(&stage, 700 * PLS_SIM_MS);
    pls_sim_world_start(stage.world, 1);
    uint64_t met_ns = pls_sim_stage_converge(&stage, 10 * PLS_SIM_S);
    pls_sim_report_value(report, "s", pls_sim_seconds(met_ns), "join_leave.met");
    pls_sim_report_expect(report, met_ns <= PLS_SIM_S, "two nodes meet within a second");
    pls_member leaver = stage.world->nodes[1].self;
    pls_sim_stage_run(&stage, 5 * PLS_SIM_S);
    pls_sim_world_leave(stage.world, 1);
    pls_sim_stage_run(&stage, PLS_SIM_S);
    pls_member_state state = pls_gossip_member_state(stage.world->nodes[0].gossip, leaver);
    pls_sim_report_expect(report, state == PLS_MEMBER_LEFT, "the leaver has left within a period");
    pls_sim_world_crash(stage.world, 1, true);
    pls_sim_stage_run(&stage, 60 * PLS_SIM_S);
    state = pls_gossip_member_state(stage.world->nodes[0].gossip, leaver);
    pls_sim_report_expect(report, state == PLS_MEMBER_LEFT, "it stays left");
    pls_sim_report_expect(report, stage.tally.dead_count == 0, "nobody was declared dead");
    pls_sim_stage_close(&stage, report);
}

static void mass_join_run(pls_sim_report *report, uint32_t node_count, double limit)
{
    pls_sim_stage stage;
    char curve[32];
    pls_sim_setup setup = pls_sim_setup_of(report->seed, node_count);
    pls_sim_stage_open(&stage, &setup, false);
    pls_sim_world_start(stage.world, 0);
    pls_sim_stage_run(&stage, PLS_SIM_S);
    uint64_t from_ns = stage.world->now_ns;
    for (uint32_t i = 1; i < node_count; i++) {
        pls_sim_world_run_until(stage.world, from_ns + i * 100 * PLS_SIM_MS / node_count);
        pls_sim_world_start(stage.world, i);
    }
    snprintf(curve, sizeof curve, "N=%u", node_count);
    uint64_t took_ns = pls_sim_stage_converge_drawn(
        &stage, 200 * PLS_SIM_S, report, "join",
        "Mass join through one seed | seconds after the last start | share of pairs alive", curve);
    double seconds = pls_sim_seconds(stage.world->now_ns - from_ns);
    double bytes = (double)stage.world->traffic.bytes_sent / node_count;
    pls_sim_report_value(report, "s", seconds, "join.%u.all_see_all", node_count);
    pls_sim_report_value(report, "kB", bytes / 1000, "join.%u.sent_per_node", node_count);
    pls_sim_report_expect(report, took_ns != PLS_SIM_NEVER && seconds <= limit,
                          "join of %u: all see all in %.2f s, limit %.0f s", node_count, seconds,
                          limit);
    pls_sim_report_expect(report, bytes <= 100000, "join of %u: %.0f B a node", node_count, bytes);
    pls_sim_report_expect(report, stage.tally.dead_count == 0, "nobody dies in a join");
    pls_sim_report_expect(report,
                          node_count <= PLS_QUEUE_STORM ||
                              pls_sim_world_counters(stage.world).updates_heard > 0,
                          "what others tell, too, is told no more in a storm");
    pls_sim_stage_close(&stage, report);
}

void pls_sim_scenario_mass_join(pls_sim_report *report)
{
    mass_join_run(report, 16, 3);
    mass_join_run(report, 128, 3);
    if (report->whole) {
        mass_join_run(report, 1000, 5);
    }
}

void pls_sim_scenario_dead_seeds(pls_sim_report *report)
{
    pls_sim_stage stage;
    pls_sim_setup setup = pls_sim_setup_of(report->seed, MEET_NODES);
    setup.seed_count = 3;
    pls_sim_stage_open(&stage, &setup, false);
    pls_sim_world_start(stage.world, 2);
    for (uint32_t i = 3; i < 8; i++) {
        pls_sim_world_start(stage.world, i);
    }
    uint64_t took_ns = pls_sim_stage_converge(&stage, 20 * PLS_SIM_S);
    pls_sim_report_value(report, "s", pls_sim_seconds(took_ns), "dead_seeds.one_lives");
    pls_sim_report_expect(report, took_ns <= 3 * PLS_SIM_S, "one living seed is enough");
    pls_sim_stage_close(&stage, report);

    pls_sim_stage_open(&stage, &setup, false);
    for (uint32_t i = 3; i < MEET_NODES; i++) {
        pls_sim_world_start(stage.world, i);
    }
    pls_sim_stage_run(&stage, 30 * PLS_SIM_S);
    pls_sim_report_expect(report, stage.tally.joined_count == 0,
                          "dead seeds bring nobody together");
    pls_sim_world_start(stage.world, 1);
    took_ns = pls_sim_stage_converge(&stage, 20 * PLS_SIM_S);
    pls_sim_report_value(report, "s", pls_sim_seconds(took_ns), "dead_seeds.one_appears");
    pls_sim_report_expect(report, took_ns <= 4 * PLS_SIM_S, "all join when a seed appears");
    pls_sim_stage_close(&stage, report);
}

/* How the others hold a member that has stopped. */
static uint32_t count_state(const pls_sim_world *world, pls_member member, pls_member_state state)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < world->node_count; i++) {
        count += world->nodes[i].gossip != NULL &&
                 pls_gossip_member_state(world->nodes[i].gossip, member) == state;
    }
    return count;
}

static void leave_after_join(pls_sim_report *report)
{
    pls_sim_stage stage;
    pls_sim_setup setup = pls_sim_setup_of(report->seed, MEET_NODES);
    pls_sim_stage_open(&stage, &setup, false);
    for (uint32_t i = 0; i < MEET_NODES - 1; i++) {
        pls_sim_world_start(stage.world, i);
    }
    pls_sim_stage_converge(&stage, 10 * PLS_SIM_S);
    pls_sim_world_start(stage.world, MEET_NODES - 1);
    pls_sim_stage_run(&stage, 50 * PLS_SIM_MS);
    pls_member leaver = stage.world->nodes[MEET_NODES - 1].self;
    pls_sim_world_leave(stage.world, MEET_NODES - 1);
    pls_sim_stage_run(&stage, 3 * PLS_SIM_S);
    pls_sim_world_crash(stage.world, MEET_NODES - 1, true);
    pls_sim_stage_run(&stage, 60 * PLS_SIM_S);
    pls_sim_report_expect(report,
                          count_state(stage.world, leaver, PLS_MEMBER_ALIVE) == 0 &&
                              stage.tally.dead_count == 0,
                          "who leaves right after the join is left, not dead");
    pls_sim_stage_close(&stage, report);
}

/* A node leaves while others suspect it (`suspected`), or while some cannot hear it. */
static void leave_disturbed(pls_sim_report *report, bool suspected)
{
    pls_sim_stage stage;
    pls_sim_setup setup = pls_sim_setup_of(report->seed + suspected, MEET_NODES);
    pls_sim_stage_open(&stage, &setup, true);
    pls_sim_stage_run(&stage, 3 * PLS_SIM_S);
    pls_member leaver = stage.world->nodes[0].self;
    stage.world->nodes[0].side = 1;
    if (suspected) {
        pls_sim_net_cut(&stage.world->net, 1, 0);
        pls_sim_net_cut(&stage.world->net, 0, 1);
        uint64_t until_ns = stage.world->now_ns + 20 * PLS_SIM_S;
        while (stage.tally.suspect_count - stage.tally.suspects_by[0] == 0 &&
               stage.world->now_ns < until_ns) {
            pls_sim_stage_run(&stage, 20 * PLS_SIM_MS);
        }
        pls_sim_report_expect(report, stage.tally.suspect_count > 0, "it was suspected");
        pls_sim_net_heal(&stage.world->net);
    } else {
        for (uint32_t i = 1; i <= 4; i++) {
            stage.world->nodes[i].side = 2;
        }
        pls_sim_net_cut(&stage.world->net, 1, 2);
    }
    pls_sim_world_leave(stage.world, 0);
    pls_sim_stage_run(&stage, 3 * PLS_SIM_S);
    pls_sim_world_crash(stage.world, 0, true);
    pls_sim_stage_run(&stage, 60 * PLS_SIM_S);
    uint32_t left = count_state(stage.world, leaver, PLS_MEMBER_LEFT);
    pls_sim_report_expect(report, left == MEET_NODES - 1, "leave %s: %u of 15 hold it left",
                          suspected ? "suspected" : "half heard", left);
    pls_sim_stage_close(&stage, report);
}

void pls_sim_scenario_leave_early(pls_sim_report *report)
{
    leave_after_join(report);
    leave_disturbed(report, true);
    leave_disturbed(report, false);
}

void pls_sim_scenario_evict(pls_sim_report *report)
{
    pls_sim_stage stage;
    pls_sim_setup setup = pls_sim_setup_of(report->seed, MEET_NODES);
    pls_sim_stage_open(&stage, &setup, true);
    pls_sim_stage_run(&stage, 3 * PLS_SIM_S);
    pls_member evicted = stage.world->nodes[7].self;
    uint64_t before = pls_gossip_look(stage.world->nodes[7].gossip).incarnation;
    pls_err err = pls_gossip_evict(stage.world->nodes[2].gossip, evicted,
                                   pls_sim_world_clock(stage.world, 2));
    pls_sim_world_settle(stage.world, 2);
    pls_sim_report_expect(report, err == PLS_OK, "evict takes a living member");
    pls_sim_report_expect(report, count_state(stage.world, evicted, PLS_MEMBER_DEAD) == 1,
                          "it is dead at the evicting node at once");
    uint64_t back_ns = pls_sim_stage_converge(&stage, 30 * PLS_SIM_S);
    pls_sim_report_value(report, "s", pls_sim_seconds(back_ns), "evict.back");
    uint64_t after = pls_gossip_look(stage.world->nodes[7].gossip).incarnation;
    pls_sim_report_expect(report, back_ns <= 5 * PLS_SIM_S, "it is alive again in 5 s");
    pls_sim_report_expect(report, after > before && after <= before + 4,
                          "by a higher incarnation: %lu after %lu", (unsigned long)after,
                          (unsigned long)before);
    uint64_t deaths = stage.tally.dead_count;
    pls_sim_stage_run(&stage, 120 * PLS_SIM_S);
    pls_sim_report_expect(report, stage.tally.dead_count == deaths, "it does not oscillate");
    pls_sim_report_expect(report, pls_sim_world_converged(stage.world, NULL), "it stays alive");
    pls_sim_stage_close(&stage, report);
}
