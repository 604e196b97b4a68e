/* SPDX-License-Identifier: Apache-2.0 */
/* Pings that I send because another asked me to. Each has the same patience, so the ring's order is
 * the order of deadlines: a nack after most of the probe timeout, so that the asker learns in time
 * that I am well and the target is not; the answer itself is still passed on much later. */
#include "gossip/relay.h"

#include "base/assert.h"
#include "gossip/mutant.h"
#include "gossip/probe.h"
#include "gossip/state.h"

/* A nack is due at this share of the probe timeout, so that it comes before the asker's deadline.
 */
#define NACK_SHARE_PERCENT 80

#define RELAYS_MIN 4

void pls_relays_fini(pls_gossip *gossip)
{
    pls_relays *relays = &gossip->relays;
    pls_heap_resize(&gossip->heap, relays->items, relays->capacity * sizeof(pls_relay), 0);
}

static pls_relay *relay_at(pls_relays *relays, uint32_t position)
{
    pls_assert(position < relays->count);
    return &relays->items[(relays->first + position) % relays->capacity];
}

uint64_t pls_relays_next_ns(const pls_relays *relays)
{
    if (relays->nacked == relays->count) {
        return UINT64_MAX;
    }
    return relays->items[(relays->first + relays->nacked) % relays->capacity].nack_ns;
}

void pls_relays_advance(pls_gossip *gossip)
{
    pls_relays *relays = &gossip->relays;
    while (relays->nacked < relays->count) {
        pls_relay *relay = relay_at(relays, relays->nacked);
        if (gossip->now_ns < relay->nack_ns) {
            break;
        }
        relays->nacked++;
        if (!relay->answered && gossip->config.lha_probe && !pls_mutant(PLS_MUTANT_NO_NACK)) {
            pls_message nack = {.kind = PLS_WIRE_NACK, .sequence = relay->origin_sequence};
            gossip->counters.nacks_sent++;
            pls_outbox_send(gossip, pls_target_member(relay->origin), &nack, true);
        }
    }
    while (relays->nacked > 0 && gossip->now_ns >= relay_at(relays, 0)->expiry_ns) {
        relays->first = (relays->first + 1) % relays->capacity;
        relays->count--;
        relays->nacked--;
    }
}

static bool relays_reserve(pls_gossip *gossip)
{
    pls_relays *relays = &gossip->relays;
    if (relays->count < relays->capacity) {
        return true;
    }
    if (relays->capacity >= PLS_RELAYS_MAX) {
        relays->first = (relays->first + 1) % relays->capacity;
        relays->count--;
        relays->nacked -= relays->nacked > 0;
        return true;
    }
    uint32_t capacity = relays->capacity > 0 ? relays->capacity * 2 : RELAYS_MIN;
    pls_relay *items = pls_heap_resize(&gossip->heap, NULL, 0, capacity * sizeof(pls_relay));
    if (items == NULL) {
        gossip->counters.dropped_memory++;
        gossip->err = PLS_ENOMEM;
        return false;
    }
    for (uint32_t i = 0; i < relays->count; i++) {
        items[i] = *relay_at(relays, i);
    }
    pls_heap_resize(&gossip->heap, relays->items, relays->capacity * sizeof(pls_relay), 0);
    relays->items = items;
    relays->capacity = capacity;
    relays->first = 0;
    return true;
}

void pls_relays_ask(pls_gossip *gossip, pls_target from, const pls_message *message)
{
    pls_relays *relays = &gossip->relays;
    pls_member target = pls_identities_find(gossip->pool, message->key);
    if (from.member == PLS_MEMBER_NONE || target == PLS_MEMBER_NONE || target == gossip->self ||
        pls_members_state(&gossip->members, target) == PLS_MEMBER_UNKNOWN) {
        gossip->counters.dropped_unknown++;
        return;
    }
    if (!relays_reserve(gossip)) {
        return;
    }
    const pls_gossip_config *config = &gossip->config;
    uint32_t at = (relays->first + relays->count++) % relays->capacity;
    relays->items[at] = (pls_relay){
        .nack_ns = gossip->now_ns + config->probe_timeout_ns / 100 * NACK_SHARE_PERCENT,
        .expiry_ns = gossip->now_ns + config->probe_interval_ns * config->awareness_max,
        .origin = from.member,
        .origin_sequence = message->sequence,
    };
    pls_probe probe = pls_probes_make(gossip, target);
    relays->items[at].sequence = probe.sequence;
    pls_probes_send(gossip, &probe);
}

void pls_relays_ack(pls_gossip *gossip, uint32_t sequence)
{
    pls_relays *relays = &gossip->relays;
    for (uint32_t i = relays->count; i-- > 0;) {
        pls_relay *relay = relay_at(relays, i);
        if (relay->sequence != sequence) {
            continue;
        }
        if (!relay->answered) {
            pls_message ack = {.kind = PLS_WIRE_ACK, .sequence = relay->origin_sequence};
            relay->answered = true;
            pls_outbox_send(gossip, pls_target_member(relay->origin), &ack, true);
        }
        return;
    }
}

void pls_relays_forget(pls_gossip *gossip, pls_member member)
{
    pls_relays *relays = &gossip->relays;
    for (uint32_t i = 0; i < relays->count; i++) {
        pls_relay *relay = relay_at(relays, i);
        if (relay->origin == member) {
            relay->answered = true;
            relay->origin = PLS_MEMBER_NONE;
        }
    }
}
