/* SPDX-License-Identifier: Apache-2.0 */
/* The failure detector: one scheduled probe in each interval, further ones that hints and
 * accusations ask for, others' indirect pings that I relay, and Lifeguard's local health score.
 *
 * The order of the schedule is a keyed permutation of all member numbers, computed and not stored:
 * each pass visits every number once and steps over those that are nobody or not live. A new member
 * is met in this pass or in the next. */
#include "gossip/probe.h"

#include "base/assert.h"
#include "gossip/mutant.h"
#include "gossip/rules.h"
#include "gossip/state.h"

/* A nack is due at this share of the probe timeout, so that it comes before the asker's deadline.
 */
#define NACK_SHARE_PERCENT 80

/* Rounds of the permutation: each multiplies, adds and folds, which are bijections. */
#define PERMUTE_ROUNDS 3

void pls_probes_start(pls_gossip *gossip)
{
    pls_probes *probes = &gossip->probes;
    const pls_gossip_config *config = &gossip->config;
    uint64_t interval_us = config->probe_interval_ns / 1000;
    probes->sequence = (uint32_t)pls_rng_next(&gossip->rng);
    probes->tick_ns =
        gossip->now_ns + (uint64_t)pls_rng_below(&gossip->rng, (uint32_t)interval_us) * 1000;
}

void pls_probes_fini(pls_gossip *gossip)
{
    pls_heap_resize(&gossip->heap, gossip->probes.relays,
                    gossip->probes.relays_capacity * sizeof(pls_relay), 0);
}

void pls_probes_aware(pls_gossip *gossip, int32_t delta)
{
    if (!gossip->config.lha_probe) {
        return;
    }
    int32_t score = (int32_t)gossip->probes.awareness + delta;
    int32_t score_max = (int32_t)gossip->config.awareness_max - 1;
    gossip->probes.awareness = (uint32_t)(score < 0 ? 0 : score > score_max ? score_max : score);
}

static uint32_t permute(uint64_t key, uint32_t bits, uint32_t x)
{
    uint32_t mask = bits == 32 ? UINT32_MAX : (UINT32_C(1) << bits) - 1;
    uint32_t fold = bits / 2 + 1;
    for (uint32_t round = 0; round < PERMUTE_ROUNDS; round++) {
        x = (x * ((uint32_t)key | 1) + (uint32_t)(key >> 32)) & mask;
        x ^= fold < bits ? x >> fold : 0;
        key = key * UINT64_C(0xd1342543de82ef95) + UINT64_C(0x632be59bd9b4e019);
    }
    return x;
}

static void pass_begin(pls_gossip *gossip)
{
    pls_probes *probes = &gossip->probes;
    uint32_t capacity = gossip->members.capacity;
    probes->pass_bits = 1;
    while (probes->pass_bits < 31 && (UINT32_C(1) << probes->pass_bits) < capacity) {
        probes->pass_bits++;
    }
    probes->pass_at = 0;
    probes->pass_key = pls_rng_next(&gossip->rng);
    if (pls_mutant(PLS_MUTANT_UNSEEDED)) {
        probes->pass_key ^= (uint64_t)(uintptr_t)gossip >> 4;
    }
}

static pls_member target_next(pls_gossip *gossip)
{
    pls_probes *probes = &gossip->probes;
    if (pls_members_live_count(&gossip->members) < 2) {
        return PLS_MEMBER_NONE;
    }
    for (uint32_t passes = 0; passes < 3;) {
        if (probes->pass_bits == 0 || probes->pass_at >> probes->pass_bits != 0) {
            pass_begin(gossip);
            passes++;
        }
        pls_member member = permute(probes->pass_key, probes->pass_bits, probes->pass_at++);
        if (member != gossip->self &&
            pls_state_is_live(pls_members_state(&gossip->members, member))) {
            return member;
        }
    }
    return PLS_MEMBER_NONE;
}

/* Write what the target should hear before the ping, so that the ack can carry its refutation. */
static void write_accusation(pls_gossip *gossip, pls_member target, uint64_t incarnation,
                             uint64_t accuser)
{
    pls_suspicion *suspicion = pls_suspicions_find(&gossip->suspicions, target);
    pls_message message = {.kind = PLS_WIRE_ACCUSE,
                           .key = pls_gossip_key_of(gossip, target),
                           .incarnation = incarnation,
                           .accuser = accuser};
    bool buddy = gossip->config.buddy && !pls_mutant(PLS_MUTANT_NO_BUDDY);
    if (suspicion != NULL && buddy) {
        message.kind = PLS_WIRE_SUSPECT;
        message.incarnation = pls_members_incarnation(&gossip->members, target);
        message.accuser = suspicion->accusers[0];
        gossip->counters.buddies++;
    } else if (accuser == 0) {
        return;
    }
    pls_message_write(&gossip->outbox.packet, &message);
}

static void send_ping(pls_gossip *gossip, const pls_probe *probe)
{
    pls_message ping = {.kind = PLS_WIRE_PING,
                        .key = pls_gossip_key_of(gossip, probe->target),
                        .sequence = probe->sequence};
    if (probe->scheduled && gossip->config.digest_interval_ns > 0) {
        ping.digest = pls_sync_digest(gossip);
        pls_sync_digest_sent(gossip);
    }
    if (pls_outbox_open(gossip, gossip->config.packet_bytes)) {
        write_accusation(gossip, probe->target, probe->incarnation, probe->accuser);
        pls_message_write(&gossip->outbox.packet, &ping);
        pls_outbox_close(gossip, pls_target_member(probe->target), true);
    }
}

/* A probe of `target` that starts now; `scheduled` is the caller's to set. */
static pls_probe probe_of(pls_gossip *gossip, pls_member target)
{
    const pls_gossip_config *config = &gossip->config;
    uint64_t scale = config->lha_probe ? gossip->probes.awareness + 1 : 1;
    return (pls_probe){
        .timeout_ns = gossip->now_ns + config->probe_timeout_ns * scale,
        .deadline_ns = gossip->now_ns + config->probe_interval_ns * scale,
        .incarnation = pls_members_incarnation(&gossip->members, target),
        .target = target,
        .sequence = ++gossip->probes.sequence,
    };
}

static void begin(pls_gossip *gossip, const pls_probe *probe)
{
    pls_probes *probes = &gossip->probes;
    pls_assert(probes->count < PLS_PROBES_MAX);
    probes->items[probes->count++] = *probe;
    gossip->counters.probes++;
    gossip->counters.probes_extra += !probe->scheduled;
    send_ping(gossip, probe);
}

static bool scheduled_under_way(const pls_probes *probes)
{
    for (uint32_t i = 0; i < probes->count; i++) {
        if (probes->items[i].scheduled) {
            return true;
        }
    }
    return false;
}

static void begin_scheduled(pls_gossip *gossip)
{
    gossip->probes.tick_missed = false;
    pls_member target = gossip->leaving ? PLS_MEMBER_NONE : target_next(gossip);
    if (target != PLS_MEMBER_NONE) {
        pls_probe probe = probe_of(gossip, target);
        probe.scheduled = true;
        begin(gossip, &probe);
    }
}

bool pls_probes_has(const pls_probes *probes, pls_member member)
{
    for (uint32_t i = 0; i < probes->count; i++) {
        if (probes->items[i].target == member) {
            return true;
        }
    }
    return false;
}

void pls_probes_extra(pls_gossip *gossip, pls_member member, uint64_t incarnation, uint64_t accuser)
{
    pls_probes *probes = &gossip->probes;
    if (gossip->leaving || pls_probes_has(probes, member)) {
        return;
    }
    pls_probe probe = probe_of(gossip, member);
    probe.incarnation = incarnation;
    probe.accuser = accuser;
    /* One place is always left for the schedule; without one the accused hears of it at least. */
    if (probes->count + 1 < PLS_PROBES_MAX) {
        begin(gossip, &probe);
    } else {
        send_ping(gossip, &probe);
    }
}

void pls_probes_refused(pls_gossip *gossip, pls_member member)
{
    const pls_gossip_config *config = &gossip->config;
    uint64_t incarnation = pls_members_incarnation(&gossip->members, member);
    pls_rules_suspect(gossip, pls_gossip_key_of(gossip, member), incarnation, gossip->self_key);
    pls_suspicion *suspicion = pls_suspicions_find(&gossip->suspicions, member);
    if (suspicion == NULL) {
        return;
    }
    uint64_t deadline_ns = gossip->now_ns + config->refused_suspicion_ns;
    if (deadline_ns < suspicion->deadline_ns) {
        pls_suspicions_move(gossip, suspicion, deadline_ns);
    }
    /* If it lives after all, this tells it to refute. */
    pls_probes_extra(gossip, member, incarnation, gossip->self_key);
}

static void remove_at(pls_probes *probes, uint32_t at)
{
    probes->items[at] = probes->items[--probes->count];
}

void pls_probes_forget(pls_gossip *gossip, pls_member member)
{
    pls_probes *probes = &gossip->probes;
    for (uint32_t i = probes->count; i-- > 0;) {
        if (probes->items[i].target == member) {
            remove_at(probes, i);
        }
    }
    for (uint32_t i = 0; i < probes->relays_count; i++) {
        pls_relay *relay = &probes->relays[(probes->relays_first + i) % probes->relays_capacity];
        if (relay->origin == member) {
            relay->answered = true;
            relay->origin = PLS_MEMBER_NONE;
        }
    }
}

static void ask_others(pls_gossip *gossip, pls_probe *probe)
{
    pls_member helpers[PLS_INDIRECT_MAX];
    probe->timeout_ns = UINT64_MAX;
    uint32_t count = pls_members_pick(gossip, PLS_PICK_ALIVE, probe->target,
                                      gossip->config.indirect_count, helpers);
    pls_message message = {.kind = PLS_WIRE_PING_INDIRECT,
                           .sequence = probe->sequence,
                           .key = pls_gossip_key_of(gossip, probe->target)};
    for (uint32_t i = 0; i < count; i++) {
        gossip->counters.indirects_sent++;
        pls_outbox_send(gossip, pls_target_member(helpers[i]), &message, true);
    }
    probe->nacks_expected = (uint8_t)count;
}

/* The target did not answer, neither to me nor to others. */
static void fail(pls_gossip *gossip, uint32_t at)
{
    pls_probes *probes = &gossip->probes;
    pls_probe probe = probes->items[at];
    remove_at(probes, at);
    gossip->counters.probes_failed++;
    if (probe.scheduled) {
        int32_t missed = probe.nacks_expected - probe.nacks_received;
        pls_probes_aware(gossip, probe.nacks_expected > 0 ? missed : 1);
        probes->failed_in_a_row++;
        pls_probes_isolation(gossip);
    }
    if (pls_state_is_live(pls_members_state(&gossip->members, probe.target))) {
        uint64_t key = pls_gossip_key_of(gossip, probe.target);
        pls_rules_suspect(gossip, key, probe.incarnation, gossip->self_key);
        pls_suspicion *suspicion = pls_suspicions_find(&gossip->suspicions, probe.target);
        if (probe.accuser != 0 && suspicion != NULL) {
            /* Another has waited a whole suspicion already, and I could not reach it either. */
            uint64_t soon_ns = suspicion->start_ns + suspicion->min_ns;
            if (soon_ns < suspicion->deadline_ns) {
                pls_suspicions_move(gossip, suspicion, soon_ns);
            }
        }
    }
    if (probe.scheduled && probes->tick_missed) {
        begin_scheduled(gossip);
    }
}

static void advance_probes(pls_gossip *gossip)
{
    pls_probes *probes = &gossip->probes;
    for (uint32_t i = probes->count; i-- > 0;) {
        if (i >= probes->count) {
            continue;
        }
        pls_probe *probe = &probes->items[i];
        if (gossip->now_ns >= probe->deadline_ns) {
            fail(gossip, i);
        } else if (gossip->now_ns >= probe->timeout_ns) {
            ask_others(gossip, probe);
        }
    }
}

static pls_relay *relay_at(pls_probes *probes, uint32_t position)
{
    pls_assert(position < probes->relays_count);
    return &probes->relays[(probes->relays_first + position) % probes->relays_capacity];
}

static void advance_relays(pls_gossip *gossip)
{
    pls_probes *probes = &gossip->probes;
    while (probes->relays_nacked < probes->relays_count) {
        pls_relay *relay = relay_at(probes, probes->relays_nacked);
        if (gossip->now_ns < relay->nack_ns) {
            break;
        }
        probes->relays_nacked++;
        if (!relay->answered && gossip->config.lha_probe && !pls_mutant(PLS_MUTANT_NO_NACK)) {
            pls_message nack = {.kind = PLS_WIRE_NACK, .sequence = relay->origin_sequence};
            gossip->counters.nacks_sent++;
            pls_outbox_send(gossip, pls_target_member(relay->origin), &nack, true);
        }
    }
    while (probes->relays_nacked > 0 && gossip->now_ns >= relay_at(probes, 0)->expiry_ns) {
        probes->relays_first = (probes->relays_first + 1) % probes->relays_capacity;
        probes->relays_count--;
        probes->relays_nacked--;
    }
}

uint64_t pls_probes_next_ns(const pls_gossip *gossip)
{
    const pls_probes *probes = &gossip->probes;
    uint64_t next_ns = gossip->leaving ? UINT64_MAX : probes->tick_ns;
    for (uint32_t i = 0; i < probes->count; i++) {
        const pls_probe *probe = &probes->items[i];
        next_ns = probe->deadline_ns < next_ns ? probe->deadline_ns : next_ns;
        next_ns = probe->timeout_ns < next_ns ? probe->timeout_ns : next_ns;
    }
    if (probes->relays_nacked < probes->relays_count) {
        uint32_t at = (probes->relays_first + probes->relays_nacked) % probes->relays_capacity;
        uint64_t nack_ns = probes->relays[at].nack_ns;
        next_ns = nack_ns < next_ns ? nack_ns : next_ns;
    }
    return next_ns;
}

void pls_probes_advance(pls_gossip *gossip)
{
    pls_probes *probes = &gossip->probes;
    advance_probes(gossip);
    advance_relays(gossip);
    if (gossip->leaving || gossip->now_ns < probes->tick_ns) {
        return;
    }
    uint64_t interval_ns = gossip->config.probe_interval_ns;
    probes->tick_ns += ((gossip->now_ns - probes->tick_ns) / interval_ns + 1) * interval_ns;
    if (scheduled_under_way(probes)) {
        probes->tick_missed = true;
        return;
    }
    begin_scheduled(gossip);
}

void pls_probes_ping(pls_gossip *gossip, pls_target from, const pls_message *message)
{
    if (message->key != gossip->self_key) {
        /* Meant for another who had this address; tell the sender who has it now. */
        gossip->counters.dropped_target++;
        pls_sync_serve(gossip, from, gossip->self);
        return;
    }
    pls_message ack = {.kind = PLS_WIRE_ACK, .sequence = message->sequence};
    pls_outbox_send(gossip, from, &ack, true);
    if (message->digest != 0) {
        pls_sync_compare(gossip, from, message->digest);
    }
}

static bool relays_reserve(pls_gossip *gossip)
{
    pls_probes *probes = &gossip->probes;
    if (probes->relays_count < probes->relays_capacity) {
        return true;
    }
    if (probes->relays_capacity >= PLS_RELAYS_MAX) {
        probes->relays_first = (probes->relays_first + 1) % probes->relays_capacity;
        probes->relays_count--;
        probes->relays_nacked -= probes->relays_nacked > 0;
        return true;
    }
    uint32_t capacity = probes->relays_capacity > 0 ? probes->relays_capacity * 2 : 4;
    pls_relay *relays = pls_heap_resize(&gossip->heap, NULL, 0, capacity * sizeof(pls_relay));
    if (relays == NULL) {
        gossip->counters.dropped_memory++;
        gossip->err = PLS_ENOMEM;
        return false;
    }
    for (uint32_t i = 0; i < probes->relays_count; i++) {
        relays[i] = *relay_at(probes, i);
    }
    pls_heap_resize(&gossip->heap, probes->relays, probes->relays_capacity * sizeof(pls_relay), 0);
    probes->relays = relays;
    probes->relays_capacity = capacity;
    probes->relays_first = 0;
    return true;
}

void pls_probes_ping_indirect(pls_gossip *gossip, pls_target from, const pls_message *message)
{
    pls_probes *probes = &gossip->probes;
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
    uint32_t at = (probes->relays_first + probes->relays_count++) % probes->relays_capacity;
    probes->relays[at] = (pls_relay){
        .nack_ns = gossip->now_ns + config->probe_timeout_ns / 100 * NACK_SHARE_PERCENT,
        .expiry_ns = gossip->now_ns + config->probe_interval_ns * config->awareness_max,
        .origin = from.member,
        .origin_sequence = message->sequence,
    };
    pls_probe probe = probe_of(gossip, target);
    probes->relays[at].sequence = probe.sequence;
    send_ping(gossip, &probe);
}

static bool ack_probe(pls_gossip *gossip, uint32_t sequence)
{
    pls_probes *probes = &gossip->probes;
    for (uint32_t i = 0; i < probes->count; i++) {
        if (probes->items[i].sequence != sequence) {
            continue;
        }
        bool scheduled = probes->items[i].scheduled;
        remove_at(probes, i);
        gossip->counters.probes_acked++;
        if (scheduled) {
            pls_probes_aware(gossip, -1);
            probes->failed_in_a_row = 0;
            pls_probes_isolation(gossip);
        }
        if (scheduled && probes->tick_missed) {
            begin_scheduled(gossip);
        }
        return true;
    }
    return false;
}

void pls_probes_ack(pls_gossip *gossip, const pls_message *message)
{
    pls_probes *probes = &gossip->probes;
    if (ack_probe(gossip, message->sequence)) {
        return;
    }
    for (uint32_t i = probes->relays_count; i-- > 0;) {
        pls_relay *relay = relay_at(probes, i);
        if (relay->sequence == message->sequence) {
            if (!relay->answered) {
                pls_message ack = {.kind = PLS_WIRE_ACK, .sequence = relay->origin_sequence};
                relay->answered = true;
                pls_outbox_send(gossip, pls_target_member(relay->origin), &ack, true);
            }
            return;
        }
    }
}

void pls_probes_nack(pls_gossip *gossip, const pls_message *message)
{
    pls_probes *probes = &gossip->probes;
    for (uint32_t i = 0; i < probes->count; i++) {
        pls_probe *probe = &probes->items[i];
        if (probe->sequence == message->sequence && probe->nacks_received < probe->nacks_expected) {
            probe->nacks_received++;
            gossip->counters.nacks_received++;
        }
    }
}

void pls_probes_shift(pls_probes *probes, uint64_t by_ns)
{
    for (uint32_t i = 0; i < probes->count; i++) {
        pls_probe *probe = &probes->items[i];
        probe->deadline_ns += by_ns;
        probe->timeout_ns =
            probe->timeout_ns == UINT64_MAX ? UINT64_MAX : probe->timeout_ns + by_ns;
    }
}

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

void pls_probes_isolation(pls_gossip *gossip)
{
    pls_probes *probes = &gossip->probes;
    uint32_t live = pls_members_live_count(&gossip->members);
    if (gossip->leaving) {
        return;
    }
    if (gossip->isolated) {
        if (probes->failed_in_a_row == 0 && live * 2 > probes->isolation_live) {
            gossip->isolated = false;
            pls_outbox_member(gossip, PLS_EVENT_REGAINED, gossip->self, PLS_MEMBER_NONE);
        }
        return;
    }
    uint32_t dying = dying_count(gossip, live + 1);
    if (probes->failed_in_a_row >= gossip->config.isolated_probes || dying > live) {
        gossip->isolated = true;
        gossip->counters.isolations++;
        probes->isolation_live = live + dying;
        pls_outbox_member(gossip, PLS_EVENT_ISOLATED, gossip->self, PLS_MEMBER_NONE);
    }
}

void pls_probes_check(const pls_gossip *gossip)
{
    const pls_probes *probes = &gossip->probes;
    uint32_t scheduled = 0;
    for (uint32_t i = 0; i < probes->count; i++) {
        const pls_probe *probe = &probes->items[i];
        scheduled += probe->scheduled;
        pls_assert(probe->target != gossip->self);
        pls_assert(pls_members_state(&gossip->members, probe->target) != PLS_MEMBER_UNKNOWN);
        pls_assert(probe->nacks_received <= probe->nacks_expected);
    }
    pls_assert(scheduled <= 1);
    pls_assert(probes->count <= PLS_PROBES_MAX);
    pls_assert(probes->relays_nacked <= probes->relays_count);
    pls_assert(probes->relays_count <= probes->relays_capacity);
    pls_assert(probes->awareness < gossip->config.awareness_max);
}
