/* SPDX-License-Identifier: Apache-2.0 */
/* Scenarios 14 and 16, and how fast the simulator is: clusters to which nothing happens but lost
 * packets. */
#include "tests/sim/scenario.h"

#include "tests/sim/stage.h"

#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

#define WARM_NS (10 * PLS_SIM_S)

/* What a node of a cluster at rest sends in a second. */
typedef struct idle_rate {
    double packets;
    double bytes;
} idle_rate;

static idle_rate idle_measure(pls_sim_report *report, uint32_t node_count, bool digests)
{
    pls_sim_stage stage;
    idle_rate rate;
    pls_sim_setup setup = pls_sim_setup_of(report->seed, node_count);
    uint64_t time_ns = (node_count > 1000 ? 20 : 60) * PLS_SIM_S;
    const char *variant = digests ? "digests" : "plain";
    if (!digests) {
        setup.gossip.digest_interval_ns = 0;
    }
    pls_sim_stage_open(&stage, &setup, true);
    pls_sim_stage_run(&stage, WARM_NS);
    pls_sim_traffic before = stage.world->traffic;
    pls_sim_stage_run(&stage, time_ns);
    double node_seconds = pls_sim_seconds(time_ns) * node_count;
    rate.packets = (double)(stage.world->traffic.packets_sent - before.packets_sent) / node_seconds;
    rate.bytes = (double)(stage.world->traffic.bytes_sent - before.bytes_sent) / node_seconds;
    pls_sim_report_value(report, "packets/s", rate.packets, "idle.%s.%u.packets", variant,
                         node_count);
    pls_sim_report_value(report, "B/s", rate.bytes, "idle.%s.%u.bytes", variant, node_count);
    pls_sim_report_expect(report, stage.tally.suspect_count == 0, "idle N=%u: no suspicion",
                          node_count);
    pls_sim_report_expect(report, rate.packets > 1.94 && rate.packets < 2.06,
                          "idle N=%u: %.3f packets/s are 2.00", node_count, rate.packets);
    pls_sim_report_expect(report, rate.bytes <= (digests ? 600 : 150), "idle N=%u: %.0f B/s",
                          node_count, rate.bytes);
    pls_sim_stage_close(&stage, report);
    return rate;
}

void pls_sim_scenario_idle(pls_sim_report *report)
{
    static const uint32_t sizes[] = {10, 32, 128, 1000, 10000};
    int count = report->whole ? 5 : 4;
    for (int digests = 0; digests < 2; digests++) {
        double low = 1e9;
        double high = 0;
        for (int i = 0; i < count; i++) {
            idle_rate rate = idle_measure(report, sizes[i], digests == 1);
            low = rate.bytes < low ? rate.bytes : low;
            high = rate.bytes > high ? rate.bytes : high;
        }
        pls_sim_report_value(report, "percent", 100 * (high - low) / low, "idle.%s.spread",
                             digests ? "digests" : "plain");
        pls_sim_report_expect(report, high <= low * 1.05, "bytes/s are flat within 5 percent");
    }
}

static void loss_run(pls_sim_report *report, uint32_t node_count, uint32_t percent,
                     uint64_t time_ns)
{
    pls_sim_stage stage;
    pls_sim_setup setup = pls_sim_setup_of(report->seed + percent, node_count);
    pls_sim_stage_open(&stage, &setup, true);
    pls_sim_stage_run(&stage, WARM_NS);
    stage.world->net.loss_ppm = percent * 10000;
    pls_sim_traffic before = stage.world->traffic;
    pls_sim_stage_run(&stage, time_ns);
    double node_seconds = pls_sim_seconds(time_ns) * node_count;
    pls_sim_report_value(report, "", (double)stage.tally.false_dead_count,
                         "loss.%u.%u_percent.false_deaths", node_count, percent);
    pls_sim_report_value(report, "", (double)stage.tally.suspect_count,
                         "loss.%u.%u_percent.suspicions", node_count, percent);
    pls_sim_report_value(
        report, "B/s", (double)(stage.world->traffic.bytes_sent - before.bytes_sent) / node_seconds,
        "loss.%u.%u_percent.bytes", node_count, percent);
    if (percent <= 5) {
        pls_sim_report_expect(report, stage.tally.false_dead_count == 0,
                              "loss of %u percent, N=%u: nobody dies falsely", percent, node_count);
    }
    stage.world->net.loss_ppm = 0;
    uint64_t settled_ns = pls_sim_stage_converge(&stage, 60 * PLS_SIM_S);
    pls_sim_report_expect(report, settled_ns != PLS_SIM_NEVER,
                          "loss of %u percent, N=%u: all agree after it", percent, node_count);
    pls_sim_stage_close(&stage, report);
}

void pls_sim_scenario_loss(pls_sim_report *report)
{
    uint64_t time_ns = (report->whole ? 600 : 120) * PLS_SIM_S;
    static const uint32_t percents[] = {1, 2, 5, 10, 20};
    int count = report->whole ? 5 : 3;
    for (int i = 0; i < count; i++) {
        loss_run(report, 100, percents[i], time_ns);
    }
    if (report->whole) {
        loss_run(report, 1000, 1, time_ns);
        loss_run(report, 1000, 5, time_ns);
    }
}

/* Seconds of one core; other processes of a shared machine do not count. */
static double core_seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

static double peak_mebibytes(void)
{
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return (double)usage.ru_maxrss / 1024;
}

static void speed_run(pls_sim_report *report, uint32_t node_count, uint64_t time_ns, double limit)
{
    pls_sim_stage stage;
    pls_sim_setup setup = pls_sim_setup_of(report->seed, node_count);
    double start = core_seconds();
    pls_sim_stage_open(&stage, &setup, true);
    double opened = core_seconds();
    uint64_t events_before = stage.world->event_count;
    pls_sim_stage_run(&stage, time_ns);
    double run = core_seconds() - opened;
    double times = pls_sim_seconds(time_ns) / run;
    pls_sim_report_value(report, "x", times, "speed.%u.times_real_time", node_count);
    pls_sim_report_value(report, "M/s",
                         (double)(stage.world->event_count - events_before) / run / 1e6,
                         "speed.%u.events", node_count);
    pls_sim_report_value(report, "s", opened - start, "speed.%u.open", node_count);
    pls_sim_report_value(report, "MiB", peak_mebibytes(), "speed.%u.memory", node_count);
    if (report->whole) {
        pls_sim_report_expect(report, times >= limit, "N=%u runs at %.0f x real time", node_count,
                              times);
        pls_sim_report_expect(report, peak_mebibytes() < 1024, "less than 1 GiB");
    }
    pls_sim_stage_close(&stage, report);
}

void pls_sim_scenario_speed(pls_sim_report *report)
{
    speed_run(report, 1000, (report->whole ? 120 : 10) * PLS_SIM_S, 100);
    if (report->whole) {
        speed_run(report, 10000, 30 * PLS_SIM_S, 5);
    }
}
