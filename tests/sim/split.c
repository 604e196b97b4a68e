/* SPDX-License-Identifier: Apache-2.0 */
/* Scenarios 18 to 20: partitions of one and both ways, of all shapes and lengths. After each the
 * cluster becomes one again by itself. */
#include "tests/sim/scenario.h"

#include "tests/sim/sample.h"
#include "tests/sim/stage.h"

#include <stdio.h>

enum { ONE_WAY_NODES = 16, REPEATED_NODES = 16, REPEATED_TIMES = 20 };

/* Everybody but node 0 and node 1 stands on side 0. */
static void sides_of_two(pls_sim_world *world)
{
    world->nodes[0].side = 1;
    world->nodes[1].side = 2;
}

static void pair_broken(pls_sim_report *report)
{
    pls_sim_stage stage;
    pls_sim_setup setup = pls_sim_setup_of(report->seed, ONE_WAY_NODES);
    pls_sim_stage_open(&stage, &setup, true);
    sides_of_two(stage.world);
    pls_sim_net_cut(&stage.world->net, 1, 2);
    pls_sim_net_cut(&stage.world->net, 2, 1);
    pls_sim_stage_run(&stage, 300 * PLS_SIM_S);
    pls_gossip_counters counters = pls_sim_world_counters(stage.world);
    pls_sim_report_value(report, "", (double)counters.indirects_sent, "one_way.pair.indirects");
    pls_sim_report_expect(report, stage.tally.dead_count == 0, "one broken pair kills nobody");
    pls_sim_report_expect(report, counters.indirects_sent > 0, "indirect probes were needed");
    pls_sim_stage_close(&stage, report);
}

/* Node 0 cannot send (`mute`) or cannot receive. */
static void one_direction(pls_sim_report *report, bool mute)
{
    const char *name = mute ? "mute" : "deaf";
    pls_sim_stage stage;
    pls_sim_setup setup = pls_sim_setup_of(report->seed + mute, ONE_WAY_NODES);
    pls_sim_stage_open(&stage, &setup, true);
    pls_sim_stage_run(&stage, 5 * PLS_SIM_S);
    pls_member cut_off = stage.world->nodes[0].self;
    stage.world->nodes[0].side = 1;
    pls_sim_net_cut(&stage.world->net, mute ? 1 : 0, mute ? 0 : 1);
    pls_sim_stage_run(&stage, 60 * PLS_SIM_S);
    uint32_t known = 0;
    for (uint32_t i = 1; i < ONE_WAY_NODES; i++) {
        known += pls_gossip_member_state(stage.world->nodes[i].gossip, cut_off) == PLS_MEMBER_DEAD;
    }
    pls_sim_report_expect(report, known == ONE_WAY_NODES - 1, "%s: %u of 15 know of the death",
                          name, known);
    pls_sim_report_expect(report, stage.tally.isolated_by[0] > 0, "%s: it knows that it is cut off",
                          name);
    pls_sim_report_expect(report, stage.tally.isolated_count == stage.tally.isolated_by[0],
                          "%s: nobody else feels cut off", name);
    for (uint32_t i = 1; i < ONE_WAY_NODES; i++) {
        pls_gossip_view view = pls_gossip_look(stage.world->nodes[i].gossip);
        pls_sim_report_expect(report, view.alive_count == ONE_WAY_NODES - 1,
                              "%s: node %u still holds the others alive", name, i);
    }
    pls_sim_net_heal(&stage.world->net);
    uint64_t healed_ns = pls_sim_stage_converge(&stage, 30 * PLS_SIM_S);
    pls_sim_report_value(report, "s", pls_sim_seconds(healed_ns), "one_way.%s.heal", name);
    pls_sim_report_expect(report, healed_ns <= 5 * PLS_SIM_S, "%s: one cluster again in 5 s", name);
    pls_sim_stage_close(&stage, report);
}

void pls_sim_scenario_one_way(pls_sim_report *report)
{
    pair_broken(report);
    one_direction(report, true);
    one_direction(report, false);
}

/* One shape of split. */
typedef struct split_case {
    uint32_t node_count;
    uint32_t side_count; /* nodes on the smaller side */
    uint64_t time_s;
    uint32_t world_count;
    double limit_s;
} split_case;

/* Both sides of a long cut have declared each other dead. */
static bool sides_apart(const pls_sim_stage *stage, uint32_t side_count)
{
    const pls_sim_world *world = stage->world;
    for (uint32_t i = 0; i < world->node_count; i++) {
        uint32_t own = i < side_count ? side_count : world->node_count - side_count;
        if (pls_gossip_look(world->nodes[i].gossip).alive_count != own) {
            return false;
        }
    }
    return true;
}

static void split_run(pls_sim_report *report, const split_case *split)
{
    pls_sim_sample heals = {0};
    char curve[64];
    char name[64];
    bool healed = true;
    snprintf(name, sizeof name, "split.%u.%u_%u.%lu_s", split->node_count, split->side_count,
             split->node_count - split->side_count, (unsigned long)split->time_s);
    for (uint32_t i = 0; i < split->world_count; i++) {
        pls_sim_stage stage;
        pls_sim_setup setup = pls_sim_setup_of(report->seed + i, split->node_count);
        /* What was dead for a day is forgotten: only seeds bring the sides together then. */
        setup.seed_count = 2;
        setup.acquainted_seeds = pls_sim_seconds(setup.gossip.dead_keep_ns) < (double)split->time_s;
        pls_sim_stage_open(&stage, &setup, true);
        pls_sim_stage_sides(&stage, split->side_count);
        pls_sim_stage_run(&stage, 3 * PLS_SIM_S);
        pls_sim_net_cut(&stage.world->net, 0, 1);
        pls_sim_net_cut(&stage.world->net, 1, 0);
        pls_sim_stage_run(&stage, split->time_s * PLS_SIM_S);
        if (split->time_s >= 600) {
            pls_sim_report_expect(report, sides_apart(&stage, split->side_count),
                                  "%s: each side holds the other dead", name);
        }
        pls_sim_net_heal(&stage.world->net);
        snprintf(curve, sizeof curve, "N=%u, %u/%u, %lu s", split->node_count, split->side_count,
                 split->node_count - split->side_count, (unsigned long)split->time_s);
        uint64_t healed_ns = pls_sim_stage_converge_drawn(
            &stage, 120 * PLS_SIM_S, i == 0 ? report : NULL, "heal",
            "After a partition | seconds after the network healed | share of pairs alive", curve);
        healed &= healed_ns != PLS_SIM_NEVER;
        pls_sim_sample_add(&heals, healed_ns == PLS_SIM_NEVER ? 120 : pls_sim_seconds(healed_ns));
        pls_sim_stage_close(&stage, report);
    }
    pls_sim_report_value(report, "s", pls_sim_sample_at(&heals, 0.5), "%s.median", name);
    pls_sim_report_value(report, "s", pls_sim_sample_at(&heals, 1), "%s.max", name);
    pls_sim_report_expect(report, healed && pls_sim_sample_at(&heals, 1) <= split->limit_s,
                          "%s: one cluster again in %.1f s, limit %.0f s", name,
                          pls_sim_sample_at(&heals, 1), split->limit_s);
    pls_sim_sample_fini(&heals);
}

void pls_sim_scenario_split(pls_sim_report *report)
{
    static const split_case quick[] = {
        {8, 4, 10, 20, 3},   {8, 4, 60, 20, 3},    {8, 1, 60, 20, 3},
        {8, 4, 3600, 2, 3},  {8, 1, 90000, 1, 65}, {128, 64, 10, 3, 5},
        {128, 64, 60, 5, 5}, {128, 12, 60, 5, 5},  {128, 1, 60, 3, 5},
    };
    static const split_case whole[] = {
        {128, 64, 60, 30, 5},   {128, 12, 60, 30, 5},  {128, 64, 3600, 3, 5},
        {128, 64, 86400, 1, 5}, {1000, 500, 10, 3, 6}, {1000, 500, 60, 5, 6},
        {1000, 100, 60, 5, 6},  {1000, 1, 60, 3, 6},   {1000, 500, 3600, 1, 6},
    };
    for (size_t i = 0; i < sizeof quick / sizeof quick[0]; i++) {
        split_run(report, &quick[i]);
    }
    if (report->whole) {
        for (size_t i = 0; i < sizeof whole / sizeof whole[0]; i++) {
            split_run(report, &whole[i]);
        }
    }
}

void pls_sim_scenario_split_repeated(pls_sim_report *report)
{
    pls_sim_stage stage;
    uint64_t memory_first = 0;
    pls_sim_setup setup = pls_sim_setup_of(report->seed, REPEATED_NODES);
    pls_sim_stage_open(&stage, &setup, true);
    pls_sim_stage_sides(&stage, REPEATED_NODES / 2);
    for (uint32_t i = 0; i < REPEATED_TIMES; i++) {
        pls_sim_net_cut(&stage.world->net, 0, 1);
        pls_sim_net_cut(&stage.world->net, 1, 0);
        pls_sim_stage_run(&stage, 30 * PLS_SIM_S);
        pls_sim_net_heal(&stage.world->net);
        uint64_t healed_ns = pls_sim_stage_converge(&stage, 30 * PLS_SIM_S);
        pls_sim_report_expect(report, healed_ns <= 5 * PLS_SIM_S, "heal %u in %.2f s", i,
                              pls_sim_seconds(healed_ns));
        pls_sim_stage_run(&stage, 30 * PLS_SIM_S);
        uint64_t memory = 0;
        for (uint32_t k = 0; k < REPEATED_NODES; k++) {
            pls_gossip_view view = pls_gossip_look(stage.world->nodes[k].gossip);
            memory += view.memory_bytes;
            pls_sim_report_expect(report, view.queue_count == 0, "the queue is empty at rest");
            pls_sim_report_expect(report, view.incarnation <= 2 + 20 * (i + 1),
                                  "incarnation %lu after %u partitions",
                                  (unsigned long)view.incarnation, i + 1);
        }
        memory_first = i == 1 ? memory : memory_first;
        pls_sim_report_expect(report, i < 2 || memory <= memory_first * 11 / 10,
                              "memory %lu B after %u partitions, %lu B after two",
                              (unsigned long)memory, i + 1, (unsigned long)memory_first);
    }
    pls_sim_stage_close(&stage, report);
}

void pls_sim_scenario_split_day(pls_sim_report *report)
{
    static const split_case quick = {32, 16, 86400, 1, 5};
    static const split_case whole = {1000, 500, 86400, 1, 6};
    split_run(report, report->whole ? &whole : &quick);
}
