/* SPDX-License-Identifier: Apache-2.0 */
/* `pulsing-sim run`: a free experiment from the command line. Prints a line a second, and with
 * --curves writes the share of pairs that are alive, for draw.py. */
#include "tests/sim/options.h"

#include "tests/sim/stage.h"

#include <stdio.h>
#include <stdlib.h>

#define STEP_NS (100 * PLS_SIM_MS)

static void pauses_set(pls_sim_world *world, const pls_sim_options *options, bool on)
{
    for (uint32_t i = 0; i < options->pause_count && i < world->node_count; i++) {
        world->nodes[i].odd = true;
        if (on) {
            pls_sim_world_pause(world, i);
        } else if (world->nodes[i].pause_count > 0) {
            pls_sim_world_resume(world, i);
        }
    }
}

/* What the options ask for at the start of a second. */
static void second_begins(pls_sim_stage *stage, const pls_sim_options *options, uint32_t second)
{
    pls_sim_world *world = stage->world;
    if (options->kill_count > 0 && second == options->kill_at_s) {
        for (uint32_t i = 0; i < options->kill_count && i < world->node_count; i++) {
            if (world->nodes[world->node_count - 1 - i].gossip != NULL && world->now_ns > 0) {
                pls_sim_tally_kill(&stage->tally, world->node_count - 1 - i);
            }
        }
    }
    if (options->cut_count > 0 && second == options->cut_at_s) {
        pls_sim_net_cut(&world->net, 0, 1);
        pls_sim_net_cut(&world->net, 1, 0);
    }
    if (options->cut_count > 0 && second == options->heal_at_s) {
        pls_sim_net_heal(&world->net);
        world->net.loss_ppm = options->loss_percent * 10000;
    }
    if (options->pause_count > 0 && second == options->pause_at_s) {
        pauses_set(world, options, true);
    }
    if (options->pause_count > 0 && second == options->resume_at_s) {
        pauses_set(world, options, false);
    }
}

static void second_print(const pls_sim_stage *stage, const pls_sim_traffic *before, uint32_t second)
{
    const pls_sim_world *world = stage->world;
    double running = world->running_count == 0 ? 1 : world->running_count;
    printf("%6u %8u %9.5f %9.2f %9.1f %9lu %9lu %9lu\n", second, world->running_count,
           pls_sim_stage_share(stage),
           (double)(world->traffic.packets_sent - before->packets_sent) / running,
           (double)(world->traffic.bytes_sent - before->bytes_sent) / running,
           (unsigned long)stage->tally.suspect_count, (unsigned long)stage->tally.dead_count,
           (unsigned long)stage->tally.false_dead_count);
}

int pls_sim_command_run(const pls_sim_options *options)
{
    pls_sim_stage stage;
    pls_sim_report report = {options->seed, false, options->curve_folder, 0};
    if (options->node_count == 0 || options->cut_count > options->node_count) {
        pls_sim_options_usage();
        return EXIT_FAILURE;
    }
    pls_sim_setup setup = pls_sim_setup_of(options->seed, options->node_count);
    setup.gossip.suspicion_alpha = options->alpha;
    setup.gossip.suspicion_beta = options->beta;
    pls_sim_stage_open(&stage, &setup, !options->join);
    pls_sim_stage_sides(&stage, options->cut_count);
    stage.world->net.loss_ppm = options->loss_percent * 10000;
    for (uint32_t i = 0; options->join && i < options->node_count; i++) {
        pls_sim_world_start(stage.world, i);
    }
    printf("second  running     alive packets/s       B/s  suspects    deaths     false\n");
    for (uint32_t second = 0; second < options->seconds; second++) {
        pls_sim_traffic before = stage.world->traffic;
        second_begins(&stage, options, second);
        for (uint64_t at_ns = STEP_NS; at_ns <= PLS_SIM_S; at_ns += STEP_NS) {
            pls_sim_stage_run(&stage, STEP_NS);
            pls_sim_report_point(&report, "run", "pulsing-sim run | seconds | share of pairs alive",
                                 "alive", pls_sim_seconds(stage.world->now_ns),
                                 pls_sim_stage_share(&stage));
        }
        second_print(&stage, &before, second);
    }
    printf("hash %016lx, %lu events\n", (unsigned long)stage.world->trace_hash,
           (unsigned long)stage.world->event_count);
    pls_sim_stage_close(&stage, &report);
    return report.failed_count == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
