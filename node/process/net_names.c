/* SPDX-License-Identifier: Apache-2.0 */
/* Public names between the node's registry and the cluster's: what is registered here goes into
 * this node's log, and what others' logs bring is looked up there, not copied. */
#include "node/process/net_parts.h"

#include "gossip/names.h"
#include "node/process/node.h"
#include "node/process/registry.h"
#include "node/process/roster.h"

#include <string.h>

/* Owners of one name that are looked at. */
#define OWNERS_MAX 1024

pls_err pls_net_name_put(pls_net *net, const char *name, size_t name_bytes, uint64_t actor,
                         bool unique)
{
    pls_err err = pls_gossip_name_put(net->gossip, name, (uint32_t)name_bytes, actor, unique,
                                      pls_loop_now_ns());
    pls_net_stir(net);
    return err;
}

void pls_net_name_remove(pls_net *net, const char *name, size_t name_bytes)
{
    /* One that was lost to another node, or whose registration failed, is not there. */
    (void)!pls_gossip_name_remove(net->gossip, name, (uint32_t)name_bytes, pls_loop_now_ns());
    pls_net_stir(net);
}

uint32_t pls_net_name_find(pls_net *net, const char *name, size_t name_bytes, pls_net_hit *hits,
                           uint32_t hits_max)
{
    pls_name_hit owners[OWNERS_MAX];
    uint32_t count = 0;
    uint32_t found =
        pls_gossip_name_find(net->gossip, name, (uint32_t)name_bytes, owners, OWNERS_MAX);
    found = found < OWNERS_MAX ? found : OWNERS_MAX;
    /* Not always the same one first, so that who takes the first spreads over all. */
    uint32_t first = found > 1 ? net->finds++ % found : 0;
    for (uint32_t i = 0; i < found && count < hits_max; i++) {
        const pls_name_hit *owner = &owners[(first + i) % found];
        const pls_net_peer *peer = pls_peers_of_member(&net->peers, owner->owner);
        if (peer != NULL) {
            hits[count].actor = owner->value;
            memcpy(hits[count].node_id, peer->info.node_id, sizeof hits[count].node_id);
            count++;
        }
    }
    return count;
}

pls_err pls_net_name_watch(pls_net *net, const char *name, size_t name_bytes)
{
    return pls_gossip_name_watch(net->gossip, name, (uint32_t)name_bytes);
}

void pls_net_name_unwatch(pls_net *net, const char *name, size_t name_bytes)
{
    pls_gossip_name_unwatch(net->gossip, name, (uint32_t)name_bytes);
}

void pls_net_name_happened(pls_net *net, const pls_action *action)
{
    char name[PLS_NAME_BYTES_MAX];
    size_t name_bytes = action->len < sizeof name ? action->len : sizeof name;
    /* The action's own bytes go with the next call on the membership. */
    memcpy(name, action->bytes, name_bytes);
    switch (action->event) {
    case PLS_EVENT_NAME_ADDED:
    case PLS_EVENT_NAME_CHANGED:
        pls_registry_heard(net->node, name, name_bytes);
        break;
    case PLS_EVENT_NAME_LOST:
        pls_roster_name_lost(net, name, name_bytes, action->other);
        pls_registry_lost(net->node, name, name_bytes);
        break;
    default:
        break;
    }
}
