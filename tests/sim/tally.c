/* SPDX-License-Identifier: Apache-2.0 */
/* Counts of what nodes report, against what is true. The scenarios and measurements judge by it. */
#include "tests/sim/tally.h"

#include "base/assert.h"

#include <stdlib.h>
#include <string.h>

static void dead_counted(pls_sim_tally *tally, uint32_t observer, const pls_action *action)
{
    const pls_sim_world *world = tally->world;
    uint32_t subject = pls_sim_world_node_of(world, action->member);
    tally->dead_count++;
    if (subject != PLS_SIM_NOBODY) {
        bool odd = world->nodes[subject].odd;
        tally->false_dead_count += !odd;
        tally->false_dead_healthy_count += !odd && !world->nodes[observer].odd;
        return;
    }
    subject = pls_sim_world_owner(world, &action->identity);
    pls_assert(subject != PLS_SIM_NOBODY);
    pls_sim_victim *victim = &tally->victims[subject];
    if (victim->killed_ns > 0) {
        victim->first_ns = victim->known_count == 0 ? world->now_ns : victim->first_ns;
        victim->last_ns = world->now_ns;
        victim->known_count++;
    }
}

static void watch(pls_sim_world *world, uint32_t node, const pls_action *action, void *context)
{
    pls_sim_tally *tally = context;
    switch (action->event) {
    case PLS_EVENT_JOINED:
        tally->joined_count++;
        break;
    case PLS_EVENT_SUSPECT:
        tally->suspect_count++;
        tally->suspects_by[node]++;
        break;
    case PLS_EVENT_DEAD:
        dead_counted(tally, node, action);
        break;
    case PLS_EVENT_LEFT:
        tally->left_count += action->member != world->nodes[node].self;
        break;
    case PLS_EVENT_ISOLATED:
        tally->isolated_count++;
        tally->isolated_by[node]++;
        break;
    case PLS_EVENT_CONFLICT:
        tally->conflict_count++;
        break;
    case PLS_EVENT_NAME_LOST:
        tally->name_lost_count++;
        break;
    default:
        break;
    }
}

static void *zeroed(size_t count, size_t size)
{
    void *memory = calloc(count, size);
    pls_assert(memory != NULL);
    return memory;
}

void pls_sim_tally_init(pls_sim_tally *tally, pls_sim_world *world)
{
    memset(tally, 0, sizeof *tally);
    tally->world = world;
    tally->victims = zeroed(world->node_count, sizeof *tally->victims);
    tally->suspects_by = zeroed(world->node_count, sizeof *tally->suspects_by);
    tally->isolated_by = zeroed(world->node_count, sizeof *tally->isolated_by);
    world->watcher = watch;
    world->watcher_context = tally;
}

void pls_sim_tally_fini(pls_sim_tally *tally)
{
    tally->world->watcher = NULL;
    free(tally->victims);
    free(tally->suspects_by);
    free(tally->isolated_by);
}

void pls_sim_tally_reset(pls_sim_tally *tally)
{
    pls_sim_tally kept = *tally;
    memset(tally, 0, sizeof *tally);
    tally->world = kept.world;
    tally->victims = kept.victims;
    tally->suspects_by = kept.suspects_by;
    tally->isolated_by = kept.isolated_by;
    memset(tally->suspects_by, 0, kept.world->node_count * sizeof *tally->suspects_by);
    memset(tally->isolated_by, 0, kept.world->node_count * sizeof *tally->isolated_by);
}

void pls_sim_tally_kill(pls_sim_tally *tally, uint32_t node)
{
    pls_assert(tally->world->nodes[node].gossip != NULL);
    pls_assert(tally->world->now_ns > 0);
    tally->victims[node] = (pls_sim_victim){.killed_ns = tally->world->now_ns};
    pls_sim_world_crash(tally->world, node, true);
}

bool pls_sim_tally_all_known(const pls_sim_tally *tally)
{
    for (uint32_t i = 0; i < tally->world->node_count; i++) {
        if (tally->victims[i].killed_ns > 0 &&
            tally->victims[i].known_count < tally->world->running_count) {
            return false;
        }
    }
    return true;
}
