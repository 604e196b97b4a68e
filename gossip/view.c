/* SPDX-License-Identifier: Apache-2.0 */
/* Looking at an instance without changing it: for the driver's listings, the simulator's invariants
 * and the tests; and the check of the whole invariant. */
#include "gossip/gossip.h"

#include "base/assert.h"
#include "gossip/state.h"

pls_err pls_gossip_member(const pls_gossip *gossip, pls_member member, pls_member_view *view_out)
{
    pls_entry entry = pls_members_entry(&gossip->members, member);
    if (pls_entry_state(entry) == PLS_MEMBER_UNKNOWN) {
        return PLS_ENOENT;
    }
    pls_member_view view = {.member = member,
                            .state = pls_entry_state(entry),
                            .incarnation = pls_entry_incarnation(entry),
                            .identity = pls_identities_get(gossip->pool, member)};
    view.meta = pls_identities_meta(gossip->pool, member, view.incarnation, &view.meta_bytes);
    const pls_suspicion *suspicion = pls_suspicions_find(&gossip->suspicions, member);
    if (suspicion != NULL) {
        view.confirmations = suspicion->count;
        view.suspicion_deadline_ns = suspicion->deadline_ns;
    }
    uint32_t log = pls_registry_log(&gossip->registry, member);
    if (log != PLS_INDEX_NONE) {
        view.names_version = gossip->registry.logs[log].version;
        view.names_floor = gossip->registry.logs[log].floor;
        view.names_count = gossip->registry.logs[log].live_count;
    }
    *view_out = view;
    return PLS_OK;
}

pls_member pls_gossip_member_next(const pls_gossip *gossip, pls_member from)
{
    const pls_members *members = &gossip->members;
    for (pls_member m = from; m < members->capacity; m++) {
        if (pls_entry_state(members->entries[m]) != PLS_MEMBER_UNKNOWN) {
            return m;
        }
    }
    return PLS_MEMBER_NONE;
}

pls_member_state pls_gossip_member_state(const pls_gossip *gossip, pls_member member)
{
    return pls_members_state(&gossip->members, member);
}

pls_member pls_gossip_member_named(const pls_gossip *gossip, const char *name, uint32_t name_bytes)
{
    pls_member member = PLS_MEMBER_NONE;
    do {
        member = pls_identities_named(gossip->pool, name, name_bytes, member);
    } while (member != PLS_MEMBER_NONE &&
             pls_members_state(&gossip->members, member) == PLS_MEMBER_UNKNOWN);
    return member;
}

pls_gossip_view pls_gossip_look(const pls_gossip *gossip)
{
    const pls_members *members = &gossip->members;
    return (pls_gossip_view){
        .self = gossip->self,
        .alive_count = members->counts[PLS_MEMBER_ALIVE],
        .suspect_count = members->counts[PLS_MEMBER_SUSPECT],
        .dead_count = members->counts[PLS_MEMBER_DEAD],
        .left_count = members->counts[PLS_MEMBER_LEFT],
        .queue_count = gossip->queue.count,
        .action_count = gossip->outbox.count - gossip->outbox.taken,
        .probe_count = gossip->probes.count,
        .relay_count = gossip->relays.count,
        .names_count = gossip->registry.records_count,
        .awareness = gossip->probes.awareness,
        .joined = gossip->joined,
        .leaving = gossip->leaving,
        .isolated = gossip->isolated,
        .incarnation = pls_members_incarnation(members, gossip->self),
        .digest = pls_sync_digest(gossip),
        .memory_bytes = gossip->heap.bytes,
    };
}

const pls_gossip_counters *pls_gossip_count(const pls_gossip *gossip)
{
    return &gossip->counters;
}

static void check_names(const pls_gossip *gossip)
{
    /* One member, the newest generation, for each name. */
    for (pls_member m = pls_gossip_member_next(gossip, 0); m != PLS_MEMBER_NONE;
         m = pls_gossip_member_next(gossip, m + 1)) {
        pls_identity identity = pls_identities_get(gossip->pool, m);
        pls_assert(pls_gossip_member_named(gossip, identity.name, identity.name_bytes) == m);
    }
}

void pls_gossip_check(const pls_gossip *gossip)
{
    pls_assert(pls_members_state(&gossip->members, gossip->self) == PLS_MEMBER_ALIVE);
    pls_assert(pls_members_live_count(&gossip->members) >= 1);
    pls_assert(gossip->outbox.taken <= gossip->outbox.count);
    bool waits = gossip->queue.count > 0 || gossip->registry.queue.count > 0;
    pls_assert(!gossip->joined || !waits || gossip->gossip_ns != UINT64_MAX);
    pls_assert(gossip->deadline_ns <= gossip->gossip_ns || !gossip->joined);
    pls_members_check(gossip);
    pls_suspicions_check(gossip);
    pls_queue_check(&gossip->queue);
    pls_queue_check(&gossip->registry.queue);
    pls_probes_check(gossip);
    pls_registry_check(gossip);
    check_names(gossip);
}
