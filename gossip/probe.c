/* SPDX-License-Identifier: Apache-2.0 */
/* The failure detector: one scheduled probe in each interval, in the order of a walk over all
 * members, further ones that hints and accusations ask for, and Lifeguard's local health score. */
#include "gossip/probe.h"

#include "base/assert.h"
#include "gossip/isolation.h"
#include "gossip/mutant.h"
#include "gossip/rules.h"
#include "gossip/state.h"

/* The same member is not pinged again within this part of a probe interval. */
#define REPEAT_SHARE 4

/* After a suspect has answered, all suspects are asked again for so many probe intervals. */
#define VERIFY_INTERVALS 3

/* A suspect is reminded after so many intervals, and so many of them in each. */
#define REMIND_INTERVALS 3
#define REMINDERS_MAX 16

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
    for (uint32_t i = 0; i < PLS_PROBES_FAILED_MAX; i++) {
        probes->failed[i] = (pls_probe_failed){PLS_MEMBER_NONE, 0};
    }
    probes->tick_ns =
        gossip->now_ns + (uint64_t)pls_rng_below(&gossip->rng, (uint32_t)interval_us) * 1000;
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

static void send_ping(pls_gossip *gossip, const pls_probe *probe, bool gossip_too)
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
        pls_outbox_close(gossip, pls_target_member(probe->target), gossip_too);
    }
}

void pls_probes_send(pls_gossip *gossip, const pls_probe *probe)
{
    send_ping(gossip, probe, true);
}

pls_probe pls_probes_make(pls_gossip *gossip, pls_member target)
{
    const pls_gossip_config *config = &gossip->config;
    uint64_t scale = config->lha_probe ? gossip->probes.awareness + 1 : 1;
    return (pls_probe){
        .sent_ns = gossip->now_ns,
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
    pls_probes_send(gossip, probe);
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

static pls_probe *under_way(pls_probes *probes, pls_member member)
{
    for (uint32_t i = 0; i < probes->count; i++) {
        if (probes->items[i].target == member) {
            return &probes->items[i];
        }
    }
    return NULL;
}

/* A probe of the same member runs already, perhaps with the patience of a node that was cut off:
 * its ping is repeated, since the reason for the new one may be that the network is back. */
static void repeat(pls_gossip *gossip, pls_probe *probe, uint64_t incarnation, uint64_t accuser)
{
    if (gossip->now_ns - probe->sent_ns < gossip->config.probe_interval_ns / REPEAT_SHARE) {
        return;
    }
    pls_probe again = *probe;
    again.incarnation = incarnation;
    again.accuser = accuser;
    probe->sent_ns = gossip->now_ns;
    pls_probes_send(gossip, &again);
}

void pls_probes_extra(pls_gossip *gossip, pls_member member, uint64_t incarnation, uint64_t accuser)
{
    pls_probes *probes = &gossip->probes;
    pls_probe *running = under_way(probes, member);
    if (gossip->leaving) {
        return;
    }
    if (running != NULL) {
        repeat(gossip, running, incarnation, accuser);
        return;
    }
    pls_probe probe = pls_probes_make(gossip, member);
    probe.incarnation = incarnation;
    probe.accuser = accuser;
    /* One place is always left for the schedule; without one the accused hears of it at least. */
    if (probes->count + 1 < PLS_PROBES_MAX) {
        begin(gossip, &probe);
    } else {
        pls_probes_send(gossip, &probe);
    }
}

static void ask_suspects(pls_gossip *gossip)
{
    pls_probes *probes = &gossip->probes;
    const pls_suspicions *suspicions = &gossip->suspicions;
    if (gossip->now_ns >= probes->verify_ns || suspicions->count == 0) {
        return;
    }
    uint32_t start = pls_rng_below(&gossip->rng, suspicions->count);
    for (uint32_t i = 0; i < suspicions->count && probes->count + 1 < PLS_PROBES_MAX; i++) {
        pls_suspicion *suspicion = &suspicions->items[(start + i) % suspicions->count];
        if (gossip->now_ns - suspicion->asked_ns < gossip->config.probe_interval_ns ||
            !pls_suspicions_accused_by(suspicion, gossip->self_key)) {
            continue;
        }
        suspicion->asked_ns = gossip->now_ns;
        uint64_t incarnation = pls_members_incarnation(&gossip->members, suspicion->member);
        pls_probes_extra(gossip, suspicion->member, incarnation, 0);
    }
}

static void begin_scheduled(pls_gossip *gossip)
{
    gossip->probes.tick_missed = false;
    pls_member target = gossip->leaving ? PLS_MEMBER_NONE
                                        : pls_walk_next(gossip, &gossip->probes.walk,
                                                        PLS_PICK_ALIVE | PLS_PICK_SUSPECT);
    if (target != PLS_MEMBER_NONE) {
        pls_probe probe = pls_probes_make(gossip, target);
        probe.scheduled = true;
        begin(gossip, &probe);
    }
    ask_suspects(gossip);
}

void pls_probes_verify(pls_gossip *gossip)
{
    if (gossip->config.buddy && !pls_mutant(PLS_MUTANT_NO_BUDDY)) {
        gossip->probes.verify_ns =
            gossip->now_ns + gossip->config.probe_interval_ns * VERIFY_INTERVALS;
        ask_suspects(gossip);
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
    for (uint32_t i = 0; i < PLS_PROBES_FAILED_MAX; i++) {
        if (probes->failed[i].target == member) {
            probes->failed[i].target = PLS_MEMBER_NONE;
        }
    }
    pls_relays_forget(gossip, member);
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
    probes->failed[probes->failed_at++ % PLS_PROBES_FAILED_MAX] =
        (pls_probe_failed){probe.target, probe.sequence};
    if (probe.scheduled) {
        int32_t missed = probe.nacks_expected - probe.nacks_received;
        pls_probes_aware(gossip, probe.nacks_expected > 0 ? missed : 1);
        probes->failed_in_a_row++;
        pls_isolation_look(gossip);
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

uint64_t pls_probes_next_ns(const pls_gossip *gossip)
{
    const pls_probes *probes = &gossip->probes;
    uint64_t next_ns = gossip->leaving ? UINT64_MAX : probes->tick_ns;
    for (uint32_t i = 0; i < probes->count; i++) {
        const pls_probe *probe = &probes->items[i];
        next_ns = probe->deadline_ns < next_ns ? probe->deadline_ns : next_ns;
        next_ns = probe->timeout_ns < next_ns ? probe->timeout_ns : next_ns;
    }
    return next_ns;
}

/* Remind suspects that I accuse myself and that have not heard from me for long. Nobody waits for
 * these pings: a suspect that does not answer is not confirmed by them, one that lives can refute.
 */
static void remind_suspects(pls_gossip *gossip)
{
    const pls_suspicions *suspicions = &gossip->suspicions;
    uint64_t pause_ns = gossip->config.probe_interval_ns * REMIND_INTERVALS;
    uint32_t reminded = 0;
    if (!gossip->config.buddy || pls_mutant(PLS_MUTANT_NO_BUDDY)) {
        return;
    }
    for (uint32_t i = 0; i < suspicions->count && reminded < REMINDERS_MAX; i++) {
        pls_suspicion *suspicion = &suspicions->items[i];
        if (gossip->now_ns - suspicion->asked_ns < pause_ns ||
            !pls_suspicions_accused_by(suspicion, gossip->self_key)) {
            continue;
        }
        pls_probe probe = pls_probes_make(gossip, suspicion->member);
        suspicion->asked_ns = gossip->now_ns;
        send_ping(gossip, &probe, false);
        reminded++;
    }
}

void pls_probes_advance(pls_gossip *gossip)
{
    pls_probes *probes = &gossip->probes;
    advance_probes(gossip);
    if (gossip->leaving || gossip->now_ns < probes->tick_ns) {
        return;
    }
    uint64_t interval_ns = gossip->config.probe_interval_ns;
    probes->tick_ns += ((gossip->now_ns - probes->tick_ns) / interval_ns + 1) * interval_ns;
    remind_suspects(gossip);
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
    if (gossip->accused_before && pls_outbox_open(gossip, gossip->config.packet_bytes)) {
        /* The accusation that came with the ping is older than my refutation: repeat that. */
        pls_message record = pls_rules_record(gossip, gossip->self);
        record.kind = PLS_WIRE_RECORD;
        gossip->counters.records_served++;
        pls_message_write(&gossip->outbox.packet, &ack);
        pls_message_write(&gossip->outbox.packet, &record);
        pls_outbox_close(gossip, from, true);
    } else {
        pls_outbox_send(gossip, from, &ack, true);
    }
    if (message->digest != 0) {
        pls_sync_compare(gossip, from, message->digest);
    }
}

static bool ack_probe(pls_gossip *gossip, uint32_t sequence)
{
    pls_probes *probes = &gossip->probes;
    for (uint32_t i = 0; i < probes->count; i++) {
        if (probes->items[i].sequence != sequence) {
            continue;
        }
        bool scheduled = probes->items[i].scheduled;
        pls_member target = probes->items[i].target;
        remove_at(probes, i);
        gossip->counters.probes_acked++;
        if (scheduled) {
            pls_probes_aware(gossip, -1);
            probes->failed_in_a_row = 0;
            pls_isolation_look(gossip);
        }
        if (pls_members_state(&gossip->members, target) == PLS_MEMBER_SUSPECT) {
            pls_probes_verify(gossip);
        }
        ask_suspects(gossip);
        if (scheduled && probes->tick_missed) {
            begin_scheduled(gossip);
        }
        return true;
    }
    return false;
}

/* The answer to a probe that has failed: I was slow, or the way was. The target lived while I
 * waited, so what I hold against it begins anew. */
static bool ack_late(pls_gossip *gossip, uint32_t sequence)
{
    pls_probes *probes = &gossip->probes;
    for (uint32_t i = 0; i < PLS_PROBES_FAILED_MAX; i++) {
        pls_probe_failed *failed = &probes->failed[i];
        if (failed->target == PLS_MEMBER_NONE || failed->sequence != sequence) {
            continue;
        }
        pls_suspicion *suspicion = pls_suspicions_find(&gossip->suspicions, failed->target);
        failed->target = PLS_MEMBER_NONE;
        gossip->counters.acks_late++;
        if (suspicion != NULL && gossip->config.lha_probe) {
            pls_probes_aware(gossip, 1);
            pls_suspicions_restart(gossip, suspicion);
        }
        return true;
    }
    return false;
}

void pls_probes_ack(pls_gossip *gossip, const pls_message *message)
{
    if (!ack_probe(gossip, message->sequence) && !ack_late(gossip, message->sequence)) {
        pls_relays_ack(gossip, message->sequence);
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
    pls_assert(probes->awareness < gossip->config.awareness_max);
}
