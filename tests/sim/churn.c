/* SPDX-License-Identifier: Apache-2.0 */
/* Scenario 32: one percent of the members go and as many start, each second. Tables, queues and
 * dead lists stay bounded. When members leave, all agree within seconds after it stops. When half
 * of them crash instead, all that run hold each other alive as soon, and the last of the dead are
 * found out in the time that a detection takes. */
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

typedef struct churn_case {
    const char *name;
    uint32_t node_count;
    uint64_t time_s;
    bool crashes;
} churn_case;

/* A node that leaves goes on for so long, which is enough to say so to all. */
enum { LEAVE_MS = 3000, AGREE_S_MAX = 5, FOUND_OUT_S_MAX = 20 };

/* The time of a node that leaves is over. */
static void leaver_stop(pls_sim_world *world, uint32_t node, void *context)
{
    (void)context;
    if (world->nodes[node].gossip != NULL && pls_gossip_look(world->nodes[node].gossip).leaving) {
        pls_sim_world_crash(world, node, true);
    }
}

/* One node goes, or comes again. */
static void churn_one(pls_sim_world *world, bool crashes)
{
    uint32_t node = 3 + pls_rng_below(&world->rng, world->node_count - 3);
    if (world->nodes[node].gossip == NULL) {
        pls_sim_world_start(world, node);
    } else if (pls_gossip_look(world->nodes[node].gossip).leaving) {
        return;
    } else if (crashes && pls_rng_chance(&world->rng, 1, 2)) {
        pls_sim_world_crash(world, node, true);
    } else {
        pls_sim_world_leave(world, node);
        pls_sim_world_call(world, world->now_ns + LEAVE_MS * PLS_SIM_MS, node);
    }
}

static void churn_peaks_report(pls_sim_report *report, const churn_case *c, const churn_peak *first,
                               const churn_peak *last)
{
    pls_sim_report_value(report, "", (double)last->known, "churn.%s.%u.known_max", c->name,
                         c->node_count);
    pls_sim_report_value(report, "", (double)last->queue, "churn.%s.%u.queue_max", c->name,
                         c->node_count);
    pls_sim_report_value(report, "kB", (double)last->memory / 1000, "churn.%s.%u.memory_max",
                         c->name, c->node_count);
    pls_sim_report_expect(report,
                          last->known <= 2 * c->node_count && last->queue <= 2 * c->node_count,
                          "tables and queues are bounded by the number of nodes");
    pls_sim_report_expect(report, last->memory <= first->memory * 3 / 2,
                          "memory does not grow: %lu B after %lu B", (unsigned long)last->memory,
                          (unsigned long)first->memory);
}

/* How long after the last change all that run hold each other alive, and all tables agree. */
static void churn_settle(pls_sim_report *report, pls_sim_stage *stage, const churn_case *c)
{
    uint64_t from_ns = stage->world->now_ns;
    while (!pls_sim_world_acquainted(stage->world) &&
           stage->world->now_ns - from_ns < 60 * PLS_SIM_S) {
        pls_sim_stage_run(stage, 20 * PLS_SIM_MS);
    }
    double acquainted = pls_sim_seconds(stage->world->now_ns - from_ns);
    uint64_t agreed_ns = pls_sim_stage_converge(stage, 120 * PLS_SIM_S);
    double agreed = pls_sim_seconds(stage->world->now_ns - from_ns);
    double limit = c->crashes ? FOUND_OUT_S_MAX : AGREE_S_MAX;
    pls_sim_report_value(report, "s", acquainted, "churn.%s.%u.acquainted", c->name, c->node_count);
    pls_sim_report_value(report, "s", agreed, "churn.%s.%u.agreed", c->name, c->node_count);
    pls_sim_report_value(report, "", (double)stage->tally.false_dead_count,
                         "churn.%s.%u.false_deaths", c->name, c->node_count);
    pls_sim_report_expect(report, acquainted <= AGREE_S_MAX,
                          "all that run hold each other alive in %.2f s", acquainted);
    pls_sim_report_expect(report, agreed_ns != PLS_SIM_NEVER && agreed <= limit,
                          "all agree in %.2f s, limit %.0f s", agreed, limit);
    pls_sim_report_expect(report, stage->tally.false_dead_count == 0, "nobody dies falsely");
}

static void churn_run(pls_sim_report *report, const churn_case *c)
{
    pls_sim_stage stage;
    churn_peak first = {0};
    churn_peak last = {0};
    uint64_t steps = c->time_s * c->node_count / 100;
    pls_sim_setup setup = pls_sim_setup_of(report->seed, c->node_count);
    setup.seed_count = 3;
    pls_sim_stage_open(&stage, &setup, true);
    stage.world->callback = leaver_stop;
    pls_sim_stage_run(&stage, 3 * PLS_SIM_S);
    for (uint64_t i = 0; i < steps; i++) {
        churn_one(stage.world, c->crashes);
        pls_sim_stage_run(&stage, 100 * PLS_SIM_S / c->node_count);
        if (i % 10 == 0) {
            peak_take(i < steps / 2 ? &first : &last, stage.world);
        }
    }
    churn_settle(report, &stage, c);
    churn_peaks_report(report, c, &first, &last);
    pls_sim_stage_close(&stage, report);
}

void pls_sim_scenario_churn(pls_sim_report *report)
{
    static const churn_case cases[] = {
        {"leaves", 50, 300, false},
        {"crashes", 50, 300, true},
        {"leaves", 500, 600, false},
        {"crashes", 500, 600, true},
    };
    uint32_t count = report->whole ? 4 : 2;
    for (uint32_t i = 0; i < count; i++) {
        churn_run(report, &cases[i]);
    }
}
