/* SPDX-License-Identifier: Apache-2.0 */
/* Scenario 17: the two experiments of the Lifeguard paper, in virtual time. C of 128 nodes stand
 * still, once for D (Threshold: how soon is that noticed?) or again and again for D with pauses of
 * I between (Interval: who else is declared dead meanwhile?). False positives are counted as shares
 * of our own plain SWIM on the same seeds, which is how the paper's tables give them. As in the
 * paper's agents, a stall strikes in the middle of a send: the probe's time runs, its ping waits,
 * and when the node goes on its timers come before the packets that had come meanwhile. */
#include "tests/sim/scenario.h"

#include "tests/sim/stage.h"

#include <stdio.h>
#include <string.h>

enum { GRID_NODES = 128, QUIET_S = 15, RUN_S = 120, PACKETS_PERCENT_MAX = 150 };

static const uint32_t grid_slow[] = {1, 4, 8, 12, 16, 20, 24, 28, 32};
static const uint32_t grid_stall_ms[] = {128, 512, 2048, 8192, 16384, 32768};
static const uint32_t grid_between_ms[] = {1, 4, 16, 64, 256, 1024, 4096, 16384};

enum {
    SLOW_COUNT = sizeof grid_slow / sizeof grid_slow[0],
    STALL_COUNT = sizeof grid_stall_ms / sizeof grid_stall_ms[0],
    BETWEEN_COUNT = sizeof grid_between_ms / sizeof grid_between_ms[0]
};

/* One row of the tables. */
typedef struct variant {
    const char *name;
    uint32_t alpha;
    uint32_t beta;
    bool lha_probe;
    bool lha_suspicion;
    bool buddy;
    bool idle_rule;
    pls_sim_stall stall;
} variant;

/* What a row came to. */
typedef struct grid_result {
    uint64_t false_dead;
    uint64_t false_dead_healthy;
    uint64_t packets;
    uint64_t bytes;
    pls_sim_sample first;
    pls_sim_sample full;
} grid_result;

/* One cell while it runs. */
typedef struct grid_cell {
    pls_sim_stage stage;
    uint64_t stall_ns;
    uint64_t between_ns; /* 0: one stall alone */
    uint64_t until_ns;
} grid_cell;

static pls_sim_setup variant_setup(const variant *v, uint64_t seed)
{
    pls_sim_setup setup = pls_sim_setup_of(seed, GRID_NODES);
    setup.gossip.suspicion_alpha = v->alpha;
    setup.gossip.suspicion_beta = v->beta;
    setup.gossip.lha_probe = v->lha_probe;
    setup.gossip.lha_suspicion = v->lha_suspicion;
    setup.gossip.buddy = v->buddy;
    setup.gossip.idle_rule = v->idle_rule;
    setup.stall = v->stall;
    return setup;
}

/* A stall begins or ends at a node. */
static void stall_turn(pls_sim_world *world, uint32_t node, void *context)
{
    const grid_cell *cell = context;
    if (world->nodes[node].pause_count > 0) {
        pls_sim_world_resume(world, node);
        if (cell->between_ns > 0 && world->now_ns + cell->between_ns < cell->until_ns) {
            pls_sim_world_call(world, world->now_ns + cell->between_ns, node);
        }
    } else {
        pls_sim_world_pause(world, node);
        pls_sim_world_call(world, world->now_ns + cell->stall_ns, node);
    }
}

static void cell_open(grid_cell *cell, const pls_sim_setup *setup, uint32_t slow_count)
{
    pls_sim_stage_open(&cell->stage, setup, true);
    cell->stage.world->callback = stall_turn;
    cell->stage.world->callback_context = cell;
    pls_sim_stage_run(&cell->stage, QUIET_S * PLS_SIM_S);
    for (uint32_t chosen = 0; chosen < slow_count;) {
        uint32_t node = pls_rng_below(&cell->stage.world->rng, GRID_NODES);
        if (!cell->stage.world->nodes[node].odd) {
            cell->stage.world->nodes[node].odd = true;
            stall_turn(cell->stage.world, node, cell);
            chosen++;
        }
    }
}

static void interval_cell(grid_result *result, const pls_sim_setup *setup, uint32_t slow,
                          uint32_t stall, uint32_t between, pls_sim_report *report)
{
    grid_cell cell = {.stall_ns = grid_stall_ms[stall] * PLS_SIM_MS,
                      .between_ns = grid_between_ms[between] * PLS_SIM_MS,
                      .until_ns = RUN_S * PLS_SIM_S};
    cell_open(&cell, setup, grid_slow[slow]);
    pls_sim_world_run_until(cell.stage.world, cell.until_ns + cell.stall_ns);
    result->false_dead += cell.stage.tally.false_dead_count;
    result->false_dead_healthy += cell.stage.tally.false_dead_healthy_count;
    result->packets += cell.stage.world->traffic.packets_sent;
    result->bytes += cell.stage.world->traffic.bytes_sent;
    pls_sim_stage_close(&cell.stage, report);
}

/* Every `stride`-th cell of the Interval grid. */
static void interval_run(grid_result *result, const variant *v, uint32_t stride,
                         pls_sim_report *report)
{
    for (uint32_t cell = 0; cell < SLOW_COUNT * STALL_COUNT * BETWEEN_COUNT; cell += stride) {
        pls_sim_setup setup = variant_setup(v, report->seed + cell);
        uint32_t slow = cell % SLOW_COUNT;
        uint32_t stall = cell / SLOW_COUNT % STALL_COUNT;
        uint32_t between = cell / SLOW_COUNT / STALL_COUNT;
        interval_cell(result, &setup, slow, stall, between, report);
    }
}

/* When healthy nodes declared each of the stalled ones dead. */
typedef struct threshold_watch {
    uint64_t first_ns[GRID_NODES];
    uint64_t last_ns[GRID_NODES];
    uint32_t count[GRID_NODES];
} threshold_watch;

static void threshold_event(pls_sim_world *world, uint32_t node, const pls_action *action,
                            void *context)
{
    threshold_watch *watch = context;
    uint32_t subject = pls_sim_world_node_of(world, action->member);
    if (action->kind != PLS_ACTION_MEMBER || action->event != PLS_EVENT_DEAD ||
        subject == PLS_SIM_NOBODY || !world->nodes[subject].odd || world->nodes[node].odd) {
        return;
    }
    watch->first_ns[subject] =
        watch->count[subject] == 0 ? world->now_ns : watch->first_ns[subject];
    watch->last_ns[subject] = world->now_ns;
    watch->count[subject]++;
}

static void threshold_cell(grid_result *result, const pls_sim_setup *setup, uint32_t slow_count,
                           uint64_t stall_ns, pls_sim_report *report)
{
    static threshold_watch watch;
    grid_cell cell = {.stall_ns = stall_ns};
    memset(&watch, 0, sizeof watch);
    cell_open(&cell, setup, slow_count);
    uint64_t from_ns = cell.stage.world->now_ns;
    cell.stage.world->watcher = threshold_event;
    cell.stage.world->watcher_context = &watch;
    pls_sim_stage_run(&cell.stage, stall_ns - 1);
    for (uint32_t i = 0; i < GRID_NODES; i++) {
        if (watch.count[i] == 0) {
            continue;
        }
        pls_sim_sample_add(&result->first, pls_sim_seconds(watch.first_ns[i] - from_ns));
        if (watch.count[i] == GRID_NODES - slow_count) {
            pls_sim_sample_add(&result->full, pls_sim_seconds(watch.last_ns[i] - from_ns));
        }
    }
    pls_sim_stage_close(&cell.stage, report);
}

/* The cells of the Threshold grid whose stall is long enough to be noticed at all. */
static void threshold_run(grid_result *result, const variant *v, uint32_t repetitions,
                          pls_sim_report *report)
{
    for (uint32_t i = 0; i < repetitions * SLOW_COUNT; i++) {
        pls_sim_setup setup = variant_setup(v, report->seed + 1000 + i);
        threshold_cell(result, &setup, grid_slow[i % SLOW_COUNT],
                       grid_stall_ms[STALL_COUNT - 1] * PLS_SIM_MS, report);
    }
}

static double share_percent(uint64_t part, uint64_t whole)
{
    return whole == 0 ? 0 : 100.0 * (double)part / (double)whole;
}

static void row_print(pls_sim_report *report, const variant *v, grid_result *row,
                      grid_result *plain)
{
    double first = pls_sim_sample_at(&row->first, 0.5);
    double late = pls_sim_sample_at(&row->first, 0.99);
    pls_sim_report_value(report, "", (double)row->false_dead, "grid.%s.fp", v->name);
    pls_sim_report_value(report, "", (double)row->false_dead_healthy, "grid.%s.fp_healthy",
                         v->name);
    pls_sim_report_value(report, "percent", share_percent(row->false_dead, plain->false_dead),
                         "grid.%s.fp_share", v->name);
    pls_sim_report_value(report, "percent",
                         share_percent(row->false_dead_healthy, plain->false_dead_healthy),
                         "grid.%s.fp_healthy_share", v->name);
    pls_sim_report_value(report, "s", first, "grid.%s.first_median", v->name);
    pls_sim_report_value(report, "s", late, "grid.%s.first_p99", v->name);
    pls_sim_report_value(report, "s", pls_sim_sample_at(&row->full, 0.5), "grid.%s.full_median",
                         v->name);
    pls_sim_report_value(report, "percent", 100 * first / pls_sim_sample_at(&plain->first, 0.5),
                         "grid.%s.first_median_share", v->name);
    pls_sim_report_value(report, "percent", 100 * late / pls_sim_sample_at(&plain->first, 0.99),
                         "grid.%s.first_p99_share", v->name);
    pls_sim_report_value(report, "percent", share_percent(row->packets, plain->packets),
                         "grid.%s.packets_share", v->name);
}

static void result_fini(grid_result *result)
{
    pls_sim_sample_fini(&result->first);
    pls_sim_sample_fini(&result->full);
}

/* The rows with a bound, and what they are shares of, take every cell; the others every fifth, on
 * the same seeds as a plain SWIM of their own. */
enum { SPARSE = 5, SPARSE_QUICK = 31, REPETITIONS = 4 };

static void row_expect(pls_sim_report *report, const variant *v, const grid_result *row,
                       const grid_result *plain)
{
    double packets = share_percent(row->packets, plain->packets);
    pls_sim_report_expect(report, packets <= PACKETS_PERCENT_MAX,
                          "%s: %.0f percent of plain SWIM's packets, 111 published", v->name,
                          packets);
    if (v->alpha != 4 || v->beta != 6) {
        return;
    }
    double fp = share_percent(row->false_dead, plain->false_dead);
    double healthy = share_percent(row->false_dead_healthy, plain->false_dead_healthy);
    pls_sim_report_expect(report, fp <= 3.18, "%s: FP %.2f percent, 3.18 published", v->name, fp);
    pls_sim_report_expect(report, healthy <= 4.83, "%s: FP- %.2f percent, 4.83 published", v->name,
                          healthy);
    pls_sim_report_expect(report, row->false_dead_healthy <= plain->false_dead_healthy,
                          "%s: no more FP- than plain SWIM", v->name);
}

/* The first row is what the others are shares of. Without repetitions no latency is measured. */
static void rows_run(pls_sim_report *report, const variant *rows, uint32_t row_count,
                     uint32_t stride, uint32_t repetitions)
{
    grid_result plain = {0};
    for (uint32_t i = 0; i < row_count; i++) {
        grid_result row = {0};
        interval_run(&row, &rows[i], stride, report);
        threshold_run(&row, &rows[i], repetitions, report);
        if (i == 0) {
            plain = row;
            pls_sim_report_expect(report, plain.false_dead > 0, "%s has false positives",
                                  rows[0].name);
        }
        row_print(report, &rows[i], &row, &plain);
        row_expect(report, &rows[i], &row, &plain);
        if (i > 0) {
            result_fini(&row);
        }
    }
    result_fini(&plain);
}

static const pls_sim_stall send = PLS_SIM_STALL_IN_SEND;
static const pls_sim_stall network = PLS_SIM_STALL_NETWORK;

void pls_sim_scenario_grids(pls_sim_report *report)
{
    const variant rows[] = {
        {"swim", 5, 1, false, false, false, false, send},
        {"ours_4_6", 4, 6, true, true, true, true, send},
        {"lifeguard_4_6", 4, 6, true, true, true, false, send},
        {"lifeguard_5_6", 5, 6, true, true, true, false, send},
    };
    if (report->whole) {
        rows_run(report, rows, 4, 1, REPETITIONS);
    } else {
        rows_run(report, rows, 2, SPARSE_QUICK, 1);
    }
}

void pls_sim_scenario_grids_network(pls_sim_report *report)
{
    const variant rows[] = {
        {"network_swim", 5, 1, false, false, false, false, network},
        {"network_4_6", 4, 6, true, true, true, true, network},
        {"network_5_6", 5, 6, true, true, true, true, network},
    };
    if (report->whole) {
        rows_run(report, rows, 3, SPARSE, 0);
    } else {
        rows_run(report, rows, 2, SPARSE_QUICK, 0);
    }
}

void pls_sim_scenario_grids_parts(pls_sim_report *report)
{
    const variant rows[] = {
        {"swim_sparse", 5, 1, false, false, false, false, send},
        {"lha_probe", 5, 1, true, false, false, false, send},
        {"lha_suspicion", 5, 6, false, true, false, false, send},
        {"buddy", 5, 1, false, false, true, false, send},
        {"lifeguard_2_2", 2, 2, true, true, true, false, send},
        {"lifeguard_2_4", 2, 4, true, true, true, false, send},
        {"lifeguard_2_6", 2, 6, true, true, true, false, send},
        {"lifeguard_4_2", 4, 2, true, true, true, false, send},
        {"lifeguard_4_4", 4, 4, true, true, true, false, send},
        {"lifeguard_5_2", 5, 2, true, true, true, false, send},
        {"lifeguard_5_4", 5, 4, true, true, true, false, send},
    };
    if (report->whole) {
        rows_run(report, rows, sizeof rows / sizeof rows[0], SPARSE, REPETITIONS);
    } else {
        rows_run(report, rows, 3, SPARSE_QUICK, 1);
    }
}
