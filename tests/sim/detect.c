/* SPDX-License-Identifier: Apache-2.0 */
/* Scenarios 13 and 15: how soon is a death known to the first and to the last node, for one death
 * and for many at once, and for a process that dies on a living host. */
#include "tests/sim/scenario.h"

#include "tests/sim/stage.h"

#include <stdio.h>

/* One measurement of detection. */
typedef struct detection {
    uint32_t node_count;
    uint32_t alpha;
    uint32_t beta;
    uint32_t world_count;
    uint32_t kill_count; /* in each world */
    uint64_t between_ns; /* from kill to kill; 0: wait until all know */
    bool hints;
    pls_sim_sample first;
    pls_sim_sample full;
    pls_sim_sample spread; /* full - first */
    uint64_t false_dead_count;
} detection;

#define DETECTION_MAX_NS (200 * PLS_SIM_S)

static uint32_t pick_running(pls_sim_world *world)
{
    for (;;) {
        uint32_t node = pls_rng_below(&world->rng, world->node_count);
        if (world->nodes[node].gossip != NULL) {
            return node;
        }
    }
}

static void wait_until_known(pls_sim_stage *stage)
{
    uint64_t until_ns = stage->world->now_ns + DETECTION_MAX_NS;
    while (!pls_sim_tally_all_known(&stage->tally) && stage->world->now_ns < until_ns) {
        pls_sim_stage_run(stage, 100 * PLS_SIM_MS);
    }
}

static void detection_collect(detection *d, const pls_sim_stage *stage)
{
    for (uint32_t i = 0; i < d->node_count; i++) {
        const pls_sim_victim *victim = &stage->tally.victims[i];
        if (victim->killed_ns == 0) {
            continue;
        }
        bool all = victim->known_count >= stage->world->running_count;
        uint64_t last_ns = all ? victim->last_ns : victim->killed_ns + DETECTION_MAX_NS;
        uint64_t first_ns = victim->known_count > 0 ? victim->first_ns : last_ns;
        pls_sim_sample_add(&d->first, pls_sim_seconds(first_ns - victim->killed_ns));
        pls_sim_sample_add(&d->full, pls_sim_seconds(last_ns - victim->killed_ns));
        pls_sim_sample_add(&d->spread, pls_sim_seconds(last_ns - first_ns));
    }
    d->false_dead_count += stage->tally.false_dead_count;
}

static void detection_run(detection *d, pls_sim_report *report)
{
    for (uint32_t i = 0; i < d->world_count; i++) {
        pls_sim_stage stage;
        pls_sim_setup setup = pls_sim_setup_of(report->seed + i, d->node_count);
        setup.hints = d->hints;
        setup.gossip.suspicion_alpha = d->alpha;
        setup.gossip.suspicion_beta = d->beta;
        pls_sim_stage_open(&stage, &setup, true);
        pls_sim_stage_run(&stage, 5 * PLS_SIM_S);
        for (uint32_t k = 0; k < d->kill_count; k++) {
            pls_sim_stage_run(&stage, pls_rng_below(&stage.world->rng, (uint32_t)PLS_SIM_S));
            pls_sim_tally_kill(&stage.tally, pick_running(stage.world));
            if (d->between_ns == 0) {
                wait_until_known(&stage);
            } else {
                pls_sim_stage_run(&stage, d->between_ns);
            }
        }
        wait_until_known(&stage);
        detection_collect(d, &stage);
        pls_sim_stage_close(&stage, report);
    }
}

static void detection_print(detection *d, pls_sim_report *report, const char *name)
{
    static const double shares[] = {0.5, 0.99, 1};
    static const char *const share_names[] = {"median", "p99", "max"};
    for (int i = 0; i < 3; i++) {
        pls_sim_report_value(report, "s", pls_sim_sample_at(&d->first, shares[i]), "%s.first.%s",
                             name, share_names[i]);
        pls_sim_report_value(report, "s", pls_sim_sample_at(&d->full, shares[i]), "%s.full.%s",
                             name, share_names[i]);
    }
    pls_sim_report_value(report, "s", pls_sim_sample_at(&d->spread, 0.5), "%s.spread.median", name);
    pls_sim_report_value(report, "deaths", (double)d->first.value_count, "%s.deaths", name);
    pls_sim_report_value(report, "", (double)d->false_dead_count, "%s.false_deaths", name);
    pls_sim_report_expect(report, d->false_dead_count == 0, "%s: nobody dies falsely", name);
    for (size_t i = 0; i < d->first.value_count; i++) {
        const char *title = "Detection of one death | seconds after the death | share of deaths";
        double share = (double)(i + 1) / (double)d->first.value_count;
        char curve[64];
        snprintf(curve, sizeof curve, "%s first", name);
        pls_sim_report_point(report, "detection", title, curve, d->first.values[i], share);
        snprintf(curve, sizeof curve, "%s full", name);
        pls_sim_report_point(report, "detection", title, curve, d->full.values[i], share);
    }
}

static void detection_fini(detection *d)
{
    pls_sim_sample_fini(&d->first);
    pls_sim_sample_fini(&d->full);
    pls_sim_sample_fini(&d->spread);
}

void pls_sim_scenario_detection_published(pls_sim_report *report)
{
    detection d = {.node_count = 128, .alpha = 5, .beta = 6, .kill_count = 1};
    d.world_count = 200;
    detection_run(&d, report);
    detection_print(&d, report, "detection.published.128");
    double median = pls_sim_sample_at(&d.first, 0.5);
    pls_sim_report_expect(report, median > 12.4 * 0.95 && median < 12.4 * 1.05,
                          "first median %.2f s is 12.4 s within 5 percent", median);
    pls_sim_report_expect(report, pls_sim_sample_at(&d.first, 0.99) <= 17.9, "p99 <= 17.9 s");
    pls_sim_report_expect(report, pls_sim_sample_at(&d.spread, 0.5) <= 0.6,
                          "full - first <= 0.6 s");
    detection_fini(&d);
}

static void detection_limits(detection *d, pls_sim_report *report, double median, double p99)
{
    char name[64];
    snprintf(name, sizeof name, "detection.%u", d->node_count);
    detection_run(d, report);
    detection_print(d, report, name);
    pls_sim_report_expect(report, pls_sim_sample_at(&d->first, 0.5) <= median,
                          "%s: first median <= %.1f s", name, median);
    pls_sim_report_expect(report, pls_sim_sample_at(&d->first, 0.99) <= p99,
                          "%s: first p99 <= %.1f s", name, p99);
    pls_sim_report_expect(report, pls_sim_sample_at(&d->full, 0.5) <= median + 1,
                          "%s: full median within 1 s more", name);
    pls_sim_report_expect(report, pls_sim_sample_at(&d->full, 0.99) <= p99 + 1,
                          "%s: full p99 within 1 s more", name);
    detection_fini(d);
}

void pls_sim_scenario_detection(pls_sim_report *report)
{
    detection small = {.node_count = 128, .alpha = 4, .beta = 6, .kill_count = 1};
    small.world_count = report->whole ? 400 : 150;
    detection_limits(&small, report, 10.5, 14);
    if (report->whole) {
        detection middle = {.node_count = 1000, .alpha = 4, .beta = 6, .kill_count = 20};
        middle.world_count = 10;
        detection_limits(&middle, report, 14.5, 19);
        detection large = {.node_count = 10000, .alpha = 4, .beta = 6, .kill_count = 100};
        large.world_count = 1;
        large.between_ns = PLS_SIM_S;
        detection_limits(&large, report, 18.5, 21);
    }
}

void pls_sim_scenario_detection_refused(pls_sim_report *report)
{
    static const uint32_t sizes[] = {2, 4, 8, 16};
    for (int i = 0; i < 4; i++) {
        char name[64];
        detection d = {.node_count = sizes[i], .alpha = 4, .beta = 6, .kill_count = 1};
        d.world_count = report->whole ? 400 : 60;
        d.hints = true;
        snprintf(name, sizeof name, "refused.%u", sizes[i]);
        detection_run(&d, report);
        detection_print(&d, report, name);
        pls_sim_report_expect(report, pls_sim_sample_at(&d.full, 1) <= 2, "%s: all know in 2 s",
                              name);
        detection_fini(&d);
    }
}

/* The share of (survivor, victim) pairs in which the victim is known to be dead. */
static double known_share(const pls_sim_stage *stage, uint32_t kill_count)
{
    double known = 0;
    for (uint32_t i = 0; i < stage->world->node_count; i++) {
        known += stage->tally.victims[i].known_count;
    }
    return known / ((double)kill_count * stage->world->running_count);
}

static void mass_kill(pls_sim_report *report, uint32_t node_count, uint32_t percent, double limit)
{
    pls_sim_stage stage;
    pls_sim_setup setup = pls_sim_setup_of(report->seed + percent, node_count);
    uint32_t kill_count = percent == 0 ? 1 : node_count * percent / 100;
    char curve[32];
    snprintf(curve, sizeof curve, "%u of %u", kill_count, node_count);
    pls_sim_stage_open(&stage, &setup, true);
    pls_sim_stage_run(&stage, 5 * PLS_SIM_S);
    uint64_t from_ns = stage.world->now_ns;
    for (uint32_t k = 0; k < kill_count; k++) {
        pls_sim_tally_kill(&stage.tally, pick_running(stage.world));
    }
    uint64_t passed_ns = 0;
    while (!pls_sim_tally_all_known(&stage.tally) && passed_ns < DETECTION_MAX_NS) {
        pls_sim_stage_run(&stage, 100 * PLS_SIM_MS);
        passed_ns = stage.world->now_ns - from_ns;
        pls_sim_report_point(report, "mass_kill",
                             "Many deaths at once, N=1000 | seconds after the deaths | share of "
                             "(survivor, dead) pairs known",
                             curve, pls_sim_seconds(passed_ns), known_share(&stage, kill_count));
    }
    double seconds = pls_sim_seconds(passed_ns);
    pls_sim_report_value(report, "s", seconds, "mass_kill.%u.%u_percent", node_count, percent);
    pls_sim_report_value(report, "", (double)stage.tally.false_dead_count,
                         "mass_kill.%u.%u_percent.false_deaths", node_count, percent);
    pls_sim_report_expect(report, seconds <= limit, "%s: all removed in %.1f s, limit %.0f s",
                          curve, seconds, limit);
    pls_sim_report_expect(report, stage.tally.false_dead_count == 0, "%s: nobody dies falsely",
                          curve);
    pls_sim_stage_close(&stage, report);
}

void pls_sim_scenario_mass_kill(pls_sim_report *report)
{
    uint32_t node_count = report->whole ? 1000 : 200;
    mass_kill(report, node_count, 0, 19);
    mass_kill(report, node_count, 10, 25);
    mass_kill(report, node_count, 30, 30);
    mass_kill(report, node_count, 50, 40);
}
