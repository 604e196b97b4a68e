/* SPDX-License-Identifier: Apache-2.0 */
/* Checks over the world as a whole: do all nodes agree, and is every byte accounted for? They walk
 * everything, so they run at the end of a run and now and then within it. */
#include "tests/sim/check.h"

#include "tests/sim/drive.h"

#include <inttypes.h>
#include <stdio.h>

static void list_add(const pls_sim_world *world, uint32_t index, uint32_t count, uint64_t *bytes)
{
    for (uint32_t i = 0; i < count; i++) {
        const pls_sim_packet *packet = pls_sim_packet_at(world->packets, index);
        *bytes += packet->len;
        index = packet->next;
    }
}

static void flying_add(const pls_sim_world *world, uint64_t *packets, uint64_t *bytes)
{
    for (size_t i = 0; i < world->heap.event_count; i++) {
        const pls_sim_event *event = &world->heap.events[i];
        if (pls_sim_event_kind(event) == PLS_SIM_EVENT_ARRIVE) {
            ++*packets;
            *bytes += pls_sim_packet_at(world->packets, event->value)->len;
        }
    }
    for (uint32_t i = 0; i < world->node_count; i++) {
        const pls_sim_node *n = &world->nodes[i];
        list_add(world, n->input_head, n->input_count, bytes);
        list_add(world, n->held_head, n->held_count, bytes);
        *packets += (uint64_t)n->input_count + n->held_count;
    }
}

bool pls_sim_world_conserved(const pls_sim_world *world)
{
    const pls_sim_traffic *t = &world->traffic;
    uint64_t flying_packets = 0;
    uint64_t flying_bytes = 0;
    flying_add(world, &flying_packets, &flying_bytes);
    pls_gossip_counters counters = pls_sim_world_counters(world);
    return t->packets_sent + t->packets_duplicated + t->packets_forged ==
               t->packets_delivered + t->packets_lost + t->packets_unheard + flying_packets &&
           t->bytes_sent + t->bytes_duplicated + t->bytes_forged ==
               t->bytes_delivered + t->bytes_lost + t->bytes_unheard + flying_bytes &&
           flying_packets == pls_sim_packets_live(world->packets) &&
           counters.packets_sent == t->packets_sent && counters.bytes_sent == t->bytes_sent &&
           counters.packets_received == t->packets_delivered &&
           counters.bytes_received == t->bytes_delivered;
}

static void text_say(char *text_out, const char *what, uint32_t node, uint64_t is, uint64_t ought)
{
    if (text_out != NULL) {
        snprintf(text_out, 160, "node %" PRIu32 ": %s %" PRIu64 ", ought to be %" PRIu64, node,
                 what, is, ought);
    }
}

/* Whom node `a` holds alive is exactly who runs. */
static bool table_agrees(const pls_sim_world *world, uint32_t a, char *text_out)
{
    const pls_gossip *gossip = world->nodes[a].gossip;
    for (uint32_t b = 0; b < world->node_count; b++) {
        if (world->nodes[b].gossip == NULL) {
            continue;
        }
        pls_member_state state = pls_gossip_member_state(gossip, world->nodes[b].self);
        if (state != PLS_MEMBER_ALIVE) {
            text_say(text_out, "the state of a running member is", a, state, PLS_MEMBER_ALIVE);
            return false;
        }
    }
    return true;
}

bool pls_sim_world_acquainted(const pls_sim_world *world)
{
    for (uint32_t i = 0; i < world->node_count; i++) {
        if (world->nodes[i].gossip != NULL && !table_agrees(world, i, NULL)) {
            return false;
        }
    }
    return true;
}

bool pls_sim_world_members_agree(const pls_sim_world *world, char *text_out)
{
    for (uint32_t i = 0; i < world->node_count; i++) {
        if (world->nodes[i].gossip == NULL) {
            continue;
        }
        pls_gossip_view view = pls_gossip_look(world->nodes[i].gossip);
        if (view.alive_count != world->running_count || view.suspect_count != 0) {
            text_say(text_out, "the number of alive members is", i, view.alive_count,
                     world->running_count);
            return false;
        }
    }
    for (uint32_t i = 0; i < world->node_count; i++) {
        if (world->nodes[i].gossip != NULL && !table_agrees(world, i, text_out)) {
            return false;
        }
    }
    return true;
}

bool pls_sim_world_converged(const pls_sim_world *world, char *text_out)
{
    bool first = true;
    uint64_t digest = 0;
    if (!pls_sim_world_members_agree(world, text_out)) {
        return false;
    }
    for (uint32_t i = 0; i < world->node_count; i++) {
        if (world->nodes[i].gossip == NULL) {
            continue;
        }
        pls_gossip_view view = pls_gossip_look(world->nodes[i].gossip);
        if (!first && view.digest != digest) {
            text_say(text_out, "the digest is", i, view.digest, digest);
            return false;
        }
        digest = view.digest;
        first = false;
    }
    return true;
}
