/* SPDX-License-Identifier: Apache-2.0 */
/* Whether I am cut off. A small side would learn it late from its own table, since each death takes
 * it a probe and a suspicion; several failed probes in a row, or more lately dead than live
 * members, say so at once. It ends when probes succeed and most of those that I knew are live
 * again. */
#include "gossip/isolation.h"

#include "gossip/probe.h"
#include "gossip/state.h"

/* Members that died lately, counted up to `limit`. */
static uint32_t dying_count(const pls_gossip *gossip, uint32_t limit)
{
    const pls_members *members = &gossip->members;
    uint32_t count = 0;
    for (uint32_t at = members->dead.newest; at != PLS_INDEX_NONE && count < limit;
         at = members->graves[at].older) {
        if (gossip->now_ns - members->graves[at].since_ns >= gossip->config.gossip_to_dead_ns) {
            break;
        }
        count++;
    }
    return count;
}

void pls_isolation_look(pls_gossip *gossip)
{
    uint32_t failed = gossip->probes.failed_in_a_row;
    uint32_t live = pls_members_live_count(&gossip->members);
    if (gossip->leaving) {
        return;
    }
    if (gossip->isolated) {
        if (failed == 0 && live * 2 > gossip->isolation_live) {
            gossip->isolated = false;
            /* The failures were the network's and not mine. */
            pls_probes_aware(gossip, -(int32_t)gossip->probes.awareness);
            pls_outbox_member(gossip, PLS_EVENT_REGAINED, gossip->self, PLS_MEMBER_NONE);
            pls_probes_verify(gossip);
        }
        return;
    }
    uint32_t dying = dying_count(gossip, live + 1);
    if (failed >= gossip->config.isolated_probes || dying > live) {
        gossip->isolated = true;
        gossip->counters.isolations++;
        gossip->isolation_live = live + dying;
        pls_outbox_member(gossip, PLS_EVENT_ISOLATED, gossip->self, PLS_MEMBER_NONE);
    }
}
