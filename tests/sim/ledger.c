/* SPDX-License-Identifier: Apache-2.0 */
/* The true owners of all names. The campaign and the scenarios on names register through it, so
 * that at the end each node's answers can be compared with what the owners really did. Values are
 * never used twice: an old entry that comes back is told from the new one. */
#include "tests/sim/ledger.h"

#include "base/assert.h"
#include "gossip/names.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { HITS_MAX = 64 };

void pls_sim_ledger_init(pls_sim_ledger *ledger, pls_sim_world *world)
{
    ledger->world = world;
    ledger->last_value = 0;
    ledger->values = calloc(world->node_count, sizeof *ledger->values);
    pls_assert(ledger->values != NULL);
}

void pls_sim_ledger_fini(pls_sim_ledger *ledger)
{
    free(ledger->values);
    ledger->values = NULL;
}

static bool is_unique(uint32_t name)
{
    return name >= PLS_SIM_PLAIN_NAMES;
}

static uint32_t name_text(uint32_t name, char text[32])
{
    return (uint32_t)snprintf(text, 32, "%s%" PRIu32, is_unique(name) ? "only" : "name", name);
}

bool pls_sim_ledger_put(pls_sim_ledger *ledger, uint32_t node, uint32_t name)
{
    pls_assert(name < PLS_SIM_NAMES);
    pls_gossip *gossip = ledger->world->nodes[node].gossip;
    if (gossip == NULL) {
        return false;
    }
    char text[32];
    uint32_t text_bytes = name_text(name, text);
    uint64_t value = ++ledger->last_value;
    uint64_t clock_ns = pls_sim_world_clock(ledger->world, node);
    pls_err err = pls_gossip_name_put(gossip, text, text_bytes, value, is_unique(name), clock_ns);
    if (err == PLS_OK) {
        ledger->values[node][name] = value;
    }
    pls_sim_world_settle(ledger->world, node);
    return err == PLS_OK;
}

void pls_sim_ledger_remove(pls_sim_ledger *ledger, uint32_t node, uint32_t name)
{
    pls_assert(name < PLS_SIM_NAMES);
    pls_gossip *gossip = ledger->world->nodes[node].gossip;
    if (gossip == NULL) {
        return;
    }
    char text[32];
    uint32_t text_bytes = name_text(name, text);
    uint64_t clock_ns = pls_sim_world_clock(ledger->world, node);
    if (pls_gossip_name_remove(gossip, text, text_bytes, clock_ns) == PLS_OK) {
        ledger->values[node][name] = 0;
    }
    pls_sim_world_settle(ledger->world, node);
}

void pls_sim_ledger_action(pls_sim_ledger *ledger, uint32_t node, const pls_action *action)
{
    if (action->kind != PLS_ACTION_NAME || action->event != PLS_EVENT_NAME_LOST) {
        return;
    }
    for (uint32_t name = PLS_SIM_PLAIN_NAMES; name < PLS_SIM_NAMES; name++) {
        char text[32];
        uint32_t text_bytes = name_text(name, text);
        if (text_bytes == action->len && memcmp(text, action->bytes, text_bytes) == 0) {
            ledger->values[node][name] = 0;
        }
    }
}

void pls_sim_ledger_stopped(pls_sim_ledger *ledger, uint32_t node)
{
    memset(ledger->values[node], 0, sizeof ledger->values[node]);
}

static uint32_t owners_count(const pls_sim_ledger *ledger, uint32_t name)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < ledger->world->node_count; i++) {
        count += ledger->world->nodes[i].gossip != NULL && ledger->values[i][name] != 0;
    }
    return count;
}

static bool name_agrees(const pls_sim_ledger *ledger, uint32_t observer, uint32_t name,
                        char *text_out)
{
    pls_name_hit hits[HITS_MAX];
    char text[32];
    uint32_t text_bytes = name_text(name, text);
    uint32_t hit_count = pls_gossip_name_find(ledger->world->nodes[observer].gossip, text,
                                              text_bytes, hits, HITS_MAX);
    uint32_t owner_count = owners_count(ledger, name);
    if (hit_count != owner_count || (is_unique(name) && owner_count > 1)) {
        snprintf(text_out, 160,
                 "node %" PRIu32 " finds %" PRIu32 " owners of %s, %" PRIu32 " registered it",
                 observer, hit_count, text, owner_count);
        return false;
    }
    for (uint32_t i = 0; i < hit_count; i++) {
        uint32_t owner = pls_sim_world_node_of(ledger->world, hits[i].owner);
        if (owner == PLS_SIM_NOBODY || ledger->values[owner][name] != hits[i].value) {
            snprintf(text_out, 160,
                     "node %" PRIu32 " finds %s with value %" PRIu64 " at node %" PRIu32, observer,
                     text, hits[i].value, owner);
            return false;
        }
    }
    return true;
}

bool pls_sim_ledger_agrees(const pls_sim_ledger *ledger, char *text_out)
{
    for (uint32_t node = 0; node < ledger->world->node_count; node++) {
        if (ledger->world->nodes[node].gossip == NULL) {
            continue;
        }
        for (uint32_t name = 0; name < PLS_SIM_NAMES; name++) {
            if (!name_agrees(ledger, node, name, text_out)) {
                return false;
            }
        }
    }
    return true;
}
