/* SPDX-License-Identifier: Apache-2.0 */
/* What every scenario stands on: open a world, let time pass, wait until all agree, close it with
 * the checks that hold at any end. Small worlds are checked after every event, large ones by
 * looking at some nodes as a whole when the stage closes. */
#include "tests/sim/stage.h"

#include "base/assert.h"

#define POLL_NS (20 * PLS_SIM_MS)

/* Nodes of a large world whose instance asserts its own invariant at the end. */
enum { SAMPLED_NODES = 16 };

void pls_sim_stage_open(pls_sim_stage *stage, const pls_sim_setup *setup, bool acquainted)
{
    stage->world = pls_sim_world_create(setup);
    stage->checker = NULL;
    if (setup->node_count <= PLS_SIM_CHECKED_MAX) {
        stage->checker = pls_sim_checker_create(stage->world);
    }
    pls_sim_tally_init(&stage->tally, stage->world);
    if (acquainted) {
        pls_sim_world_start_acquainted(stage->world);
    }
}

/* Mutants are left to the invariants. */
static void instance_check(const pls_gossip *gossip)
{
#ifndef PLS_MUTANTS
    pls_gossip_check(gossip);
#endif
}

void pls_sim_stage_close(pls_sim_stage *stage, pls_sim_report *report)
{
    pls_sim_world *world = stage->world;
    pls_sim_report_expect(report, pls_sim_world_conserved(world),
                          "bytes sent are delivered, lost or under way");
    for (uint32_t i = 0; i < SAMPLED_NODES; i++) {
        const pls_gossip *gossip = world->nodes[i * world->node_count / SAMPLED_NODES].gossip;
        if (gossip != NULL) {
            instance_check(gossip);
        }
    }
    if (stage->checker != NULL) {
        const pls_sim_violation *violation = pls_sim_checker_violation(stage->checker);
        pls_sim_report_expect(report, violation->invariant == PLS_SIM_HOLDS, "%s at %.3f s: %s",
                              pls_sim_invariant_word(violation->invariant),
                              pls_sim_seconds(violation->at_ns), violation->text);
    }
    pls_sim_tally_fini(&stage->tally);
    pls_sim_checker_destroy(stage->checker);
    pls_sim_world_destroy(world);
}

void pls_sim_stage_run(pls_sim_stage *stage, uint64_t time_ns)
{
    pls_sim_world_run_until(stage->world, stage->world->now_ns + time_ns);
}

double pls_sim_stage_share(const pls_sim_stage *stage)
{
    const pls_sim_world *world = stage->world;
    double alive = 0;
    for (uint32_t i = 0; i < world->node_count; i++) {
        if (world->nodes[i].gossip != NULL) {
            alive += pls_gossip_look(world->nodes[i].gossip).alive_count;
        }
    }
    double running = world->running_count;
    return running == 0 ? 0 : alive / (running * running);
}

uint64_t pls_sim_stage_converge_drawn(pls_sim_stage *stage, uint64_t limit_ns,
                                      const pls_sim_report *report, const char *file,
                                      const char *title, const char *curve)
{
    uint64_t from_ns = stage->world->now_ns;
    for (;;) {
        uint64_t passed_ns = stage->world->now_ns - from_ns;
        bool converged = pls_sim_world_converged(stage->world, NULL);
        if (report != NULL) {
            pls_sim_report_point(report, file, title, curve, pls_sim_seconds(passed_ns),
                                 pls_sim_stage_share(stage));
        }
        if (converged) {
            return passed_ns;
        }
        if (passed_ns >= limit_ns) {
            return PLS_SIM_NEVER;
        }
        pls_sim_stage_run(stage, POLL_NS);
    }
}

uint64_t pls_sim_stage_converge(pls_sim_stage *stage, uint64_t limit_ns)
{
    return pls_sim_stage_converge_drawn(stage, limit_ns, NULL, NULL, NULL, NULL);
}

void pls_sim_stage_sides(pls_sim_stage *stage, uint32_t count)
{
    pls_assert(count <= stage->world->node_count);
    for (uint32_t i = 0; i < stage->world->node_count; i++) {
        stage->world->nodes[i].side = i < count;
    }
}

double pls_sim_seconds(uint64_t time_ns)
{
    return time_ns == PLS_SIM_NEVER ? -1 : (double)time_ns / (double)PLS_SIM_S;
}
