/* SPDX-License-Identifier: Apache-2.0 */
/* The face of the state machine: inputs come in here, are given to the part that they belong to,
 * and leave actions in the outbox. Each input first forgets the actions that were handed out and
 * sets the clock, and ends by computing when it wants to be called again. */
#include "gossip/gossip.h"

#include "base/assert.h"
#include "base/limits.h"
#include "gossip/delta.h"
#include "gossip/mutant.h"
#include "gossip/rules.h"
#include "gossip/state.h"
#include "gossip/validate.h"

#include <string.h>

/* Members that hear of my leave at once. */
#define LEAVE_FANOUT 8

static uint32_t cluster_tag(const char *cluster)
{
    uint32_t hash = 2166136261u;
    for (const char *c = cluster; *c != '\0'; c++) {
        hash = (hash ^ (uint8_t)*c) * 16777619u;
    }
    return hash;
}

static pls_err self_store(pls_gossip *gossip, const pls_gossip_config *config)
{
    pls_member self = PLS_MEMBER_NONE;
    pls_err err = pls_identities_acquire(gossip->pool, &config->self, &self);
    if (err != PLS_OK) {
        return err;
    }
    err = pls_members_reserve(gossip, self);
    if (err == PLS_OK) {
        err = pls_identities_set_meta(gossip->pool, self, 1, config->meta, config->meta_bytes);
    }
    if (err != PLS_OK) {
        pls_identities_release(gossip->pool, self);
        return err == PLS_EEXIST ? PLS_EINVAL : err;
    }
    gossip->self = self;
    gossip->self_key = pls_gossip_key_of(gossip, self);
    pls_members_set(gossip, self, PLS_MEMBER_ALIVE, 1);
    return PLS_OK;
}

static void deadline_update(pls_gossip *gossip)
{
    uint64_t next_ns = gossip->gossip_ns;
    if (!gossip->joined) {
        gossip->deadline_ns = UINT64_MAX;
        return;
    }
    uint64_t others[] = {pls_probes_next_ns(gossip),
                         pls_relays_next_ns(&gossip->relays),
                         pls_suspicions_next_ns(&gossip->suspicions),
                         pls_sync_next_ns(gossip),
                         pls_members_expiry_ns(gossip),
                         pls_delta_next_ns(gossip)};
    for (uint32_t i = 0; i < sizeof others / sizeof others[0]; i++) {
        next_ns = others[i] < next_ns ? others[i] : next_ns;
    }
    gossip->deadline_ns = next_ns;
}

pls_err pls_gossip_create(const pls_gossip_config *config, pls_identities *pool, uint64_t now_ns,
                          pls_gossip **gossip_out)
{
    if (!pls_gossip_config_is_valid(config)) {
        return PLS_EINVAL;
    }
    pls_heap heap = pls_heap_over(config->allocator);
    pls_gossip *gossip = pls_heap_resize(&heap, NULL, 0, sizeof *gossip);
    if (gossip == NULL) {
        return PLS_ENOMEM;
    }
    memset(gossip, 0, sizeof *gossip);
    gossip->heap = heap;
    gossip->pool = pool;
    gossip->config = *config;
    gossip->now_ns = now_ns;
    gossip->self = PLS_MEMBER_NONE;
    gossip->cluster = cluster_tag(config->cluster);
    gossip->gossip_ns = UINT64_MAX;
    gossip->deadline_ns = UINT64_MAX;
    pls_rng_init(&gossip->rng, config->seed);
    pls_members_init(&gossip->members);
    pls_queue_init(&gossip->queue, 0);
    pls_registry_init(&gossip->registry);
    pls_err err = PLS_OK;
    if (pool == NULL) {
        err = pls_identities_create(config->allocator, &gossip->pool);
        gossip->pool_is_mine = err == PLS_OK;
    }
    if (err == PLS_OK) {
        err = self_store(gossip, config);
    }
    if (err != PLS_OK) {
        pls_gossip_destroy(gossip);
        return err;
    }
    gossip->config.cluster = NULL;
    gossip->config.meta = NULL;
    gossip->config.allocator = NULL;
    gossip->config.self = (pls_identity){0};
    *gossip_out = gossip;
    return PLS_OK;
}

void pls_gossip_destroy(pls_gossip *gossip)
{
    if (gossip == NULL) {
        return;
    }
    pls_outbox_fini(gossip);
    pls_registry_destroy(gossip);
    pls_sync_fini(gossip);
    pls_relays_fini(gossip);
    pls_queue_fini(&gossip->queue, &gossip->heap);
    pls_suspicions_fini(gossip);
    pls_members_fini(gossip);
    if (gossip->pool_is_mine) {
        pls_identities_destroy(gossip->pool);
    }
    pls_heap heap = gossip->heap;
    pls_heap_resize(&heap, gossip, sizeof *gossip, 0);
    pls_assert(heap.bytes == 0);
}

/* I was stalled for this long: whoever seemed late in that time may have answered. */
static void stall(pls_gossip *gossip, uint64_t by_ns)
{
    gossip->counters.stalls++;
    pls_suspicions_shift(&gossip->suspicions, by_ns);
    pls_probes_shift(&gossip->probes, by_ns);
}

/* What passes between a deadline and the advance that it waits for is a stall, also when inputs
 * come in between: whoever works off a long line of packets has not read the answers at its end. */
static void watch_lateness(pls_gossip *gossip, uint64_t now_ns)
{
    bool watched = gossip->config.idle_rule && !pls_mutant(PLS_MUTANT_NO_STALL);
    if (!watched || now_ns <= gossip->deadline_ns) {
        return;
    }
    uint64_t from_ns = gossip->deadline_ns > gossip->now_ns ? gossip->deadline_ns : gossip->now_ns;
    gossip->late_ns += now_ns - from_ns;
    if (gossip->late_ns > gossip->config.probe_timeout_ns / 2) {
        stall(gossip, gossip->late_ns);
        gossip->late_ns = 0;
    }
}

void pls_gossip_input_begin(pls_gossip *gossip, uint64_t now_ns)
{
    pls_outbox_recycle(gossip);
    gossip->err = PLS_OK;
    gossip->sender = 0;
    gossip->accused_before = false;
    if (now_ns < gossip->now_ns) {
        gossip->counters.clock_backwards++;
        return;
    }
    watch_lateness(gossip, now_ns);
    gossip->now_ns = now_ns;
}

pls_err pls_gossip_input_end(pls_gossip *gossip, pls_err err)
{
    gossip->sender = 0;
    deadline_update(gossip);
    return err != PLS_OK ? err : gossip->err;
}

void pls_gossip_wake(pls_gossip *gossip)
{
    if (gossip->gossip_ns != UINT64_MAX || !gossip->joined) {
        return;
    }
    uint64_t interval_ns = gossip->config.gossip_interval_ns;
    uint64_t into_ns = (gossip->now_ns + gossip->gossip_phase) % interval_ns;
    gossip->gossip_ns = gossip->now_ns + interval_ns - into_ns;
}

static void tell_left(pls_gossip *gossip)
{
    if (gossip->leaving && !gossip->left_told &&
        (!pls_queue_has(&gossip->queue, gossip->self) ||
         pls_members_live_count(&gossip->members) == 1)) {
        gossip->left_told = true;
        pls_outbox_member(gossip, PLS_EVENT_LEFT, gossip->self, PLS_MEMBER_NONE);
    }
}

static void gossip_round(pls_gossip *gossip, uint32_t fanout)
{
    /* In the order of a walk, so that a small cluster hears everything before anything twice. */
    pls_member first = PLS_MEMBER_NONE;
    for (uint32_t i = 0; i < fanout; i++) {
        pls_member target = pls_walk_next(gossip, &gossip->gossip_walk,
                                          PLS_PICK_ALIVE | PLS_PICK_SUSPECT | PLS_PICK_DYING);
        if (target == PLS_MEMBER_NONE || target == first) {
            break;
        }
        first = first == PLS_MEMBER_NONE ? target : first;
        if (pls_outbox_open(gossip, gossip->config.packet_bytes)) {
            pls_outbox_close(gossip, pls_target_member(target), true);
        }
    }
    tell_left(gossip);
    gossip->gossip_ns = UINT64_MAX;
    if (gossip->queue.count > 0 || gossip->registry.queue.count > 0) {
        pls_gossip_wake(gossip);
    }
}

pls_err pls_gossip_advance(pls_gossip *gossip, uint64_t now_ns)
{
    pls_gossip_input_begin(gossip, now_ns);
    gossip->late_ns = 0;
    if (!gossip->joined) {
        return pls_gossip_input_end(gossip, PLS_OK);
    }
    if (gossip->now_ns >= pls_probes_next_ns(gossip)) {
        pls_probes_advance(gossip);
    }
    if (gossip->now_ns >= pls_relays_next_ns(&gossip->relays)) {
        pls_relays_advance(gossip);
    }
    while (gossip->now_ns >= pls_suspicions_next_ns(&gossip->suspicions)) {
        pls_rules_expire_suspicion(gossip);
    }
    if (gossip->now_ns >= pls_members_expiry_ns(gossip)) {
        for (pls_member m = pls_members_expired(gossip); m != PLS_MEMBER_NONE;
             m = pls_members_expired(gossip)) {
            gossip->counters.forgotten++;
            pls_rules_forget(gossip, m);
        }
    }
    if (gossip->now_ns >= pls_sync_next_ns(gossip)) {
        pls_sync_advance(gossip);
    }
    if (gossip->now_ns >= pls_delta_next_ns(gossip)) {
        pls_delta_tidy(gossip);
    }
    if (gossip->now_ns >= gossip->gossip_ns) {
        gossip_round(gossip, gossip->config.gossip_fanout);
    }
    return pls_gossip_input_end(gossip, PLS_OK);
}

uint64_t pls_gossip_deadline(const pls_gossip *gossip)
{
    return gossip->deadline_ns;
}

/* Somebody tells me that another accuses me. Whoever asks gets my answer at once. */
static void accused(pls_gossip *gossip, pls_target from, const pls_message *message)
{
    if (message->key != gossip->self_key) {
        gossip->counters.dropped_target++;
        return;
    }
    pls_rules_accused(gossip, message->incarnation);
    if (!gossip->leaving) {
        pls_sync_serve(gossip, from, gossip->self);
    }
}

static void record(pls_gossip *gossip, const pls_message *message, pls_rules_source source)
{
    pls_member member = PLS_MEMBER_NONE;
    pls_err err = pls_rules_alive(gossip, message, source, &member);
    if (err == PLS_ENOMEM) {
        gossip->err = err;
    }
}

static void dispatch(pls_gossip *gossip, pls_target from, const pls_message *m)
{
    switch ((pls_wire_kind)m->kind) {
    case PLS_WIRE_PING:
        pls_probes_ping(gossip, from, m);
        break;
    case PLS_WIRE_PING_INDIRECT:
        pls_relays_ask(gossip, from, m);
        break;
    case PLS_WIRE_ACK:
        pls_probes_ack(gossip, m);
        break;
    case PLS_WIRE_NACK:
        pls_probes_nack(gossip, m);
        break;
    case PLS_WIRE_SUSPECT:
        pls_rules_suspect(gossip, m->key, m->incarnation, m->accuser);
        break;
    case PLS_WIRE_ALIVE:
        record(gossip, m, PLS_RULES_GOSSIP);
        break;
    case PLS_WIRE_RECORD:
        record(gossip, m, PLS_RULES_SYNC);
        break;
    case PLS_WIRE_DEAD:
        pls_rules_dead(gossip, m->key, m->incarnation, m->accuser);
        break;
    case PLS_WIRE_LEFT:
        pls_rules_left(gossip, m->key, m->incarnation);
        break;
    case PLS_WIRE_ACCUSE:
        accused(gossip, from, m);
        break;
    case PLS_WIRE_JOIN:
    case PLS_WIRE_ANNOUNCE:
        pls_sync_greeted(gossip, from, m);
        break;
    case PLS_WIRE_DIGEST:
        pls_sync_compare(gossip, from, m->digest);
        break;
    case PLS_WIRE_TREE:
        pls_sync_tree(gossip, from, m);
        break;
    case PLS_WIRE_LIST:
        pls_sync_list(gossip, from, m);
        break;
    case PLS_WIRE_WANT:
        pls_sync_want(gossip, from, m);
        break;
    case PLS_WIRE_NAMES:
    case PLS_WIRE_SUFFIX:
        pls_delta_apply(gossip, from, m);
        break;
    case PLS_WIRE_NAMES_PULL:
        pls_delta_serve(gossip, from, m);
        break;
    case PLS_WIRE_KIND_COUNT:
        break;
    }
}

/* Whether the whole packet can be read and is for me. */
static pls_err judge(pls_gossip *gossip, pls_packet packet)
{
    pls_message message;
    if (packet.lowest > PLS_WIRE_VERSION || packet.version < PLS_WIRE_VERSION_LOWEST) {
        gossip->counters.dropped_version++;
        return PLS_EVERSION;
    }
    if (packet.cluster != gossip->cluster) {
        gossip->counters.dropped_cluster++;
        return PLS_EPERM;
    }
    if (packet.sender == gossip->self_key) {
        gossip->counters.dropped_self++;
        return PLS_EPROTO;
    }
    for (;;) {
        pls_err err = pls_packet_next(&packet, &message);
        if (err == PLS_EEMPTY) {
            return PLS_OK;
        }
        if (err == PLS_EPROTO) {
            gossip->counters.dropped_malformed++;
            return err;
        }
    }
}

/* Where an answer to a packet goes: to its sender's own address when I know the sender. */
static pls_target answer_to(const pls_gossip *gossip, const char *from, uint32_t from_bytes)
{
    pls_member member = pls_identities_find(gossip->pool, gossip->sender);
    if (member != PLS_MEMBER_NONE &&
        pls_members_state(&gossip->members, member) != PLS_MEMBER_UNKNOWN) {
        return pls_target_member(member);
    }
    return (pls_target){PLS_MEMBER_NONE, from,
                        from_bytes <= PLS_ADDRESS_BYTES_MAX ? from_bytes : 0};
}

/* A member that I hold dead or suspect is talking: it should hear of it and refute. */
static void accused_talks(pls_gossip *gossip, pls_target from)
{
    pls_member_state state = pls_members_state(&gossip->members, from.member);
    bool suspect = state == PLS_MEMBER_SUSPECT && gossip->config.buddy;
    if (gossip->leaving || (state != PLS_MEMBER_DEAD && !suspect)) {
        return;
    }
    pls_suspicion *suspicion = pls_suspicions_find(&gossip->suspicions, from.member);
    if (suspicion != NULL) {
        if (gossip->now_ns - suspicion->asked_ns < gossip->config.probe_interval_ns) {
            return;
        }
        suspicion->asked_ns = gossip->now_ns;
    }
    uint64_t incarnation = pls_members_incarnation(&gossip->members, from.member);
    pls_sync_forward(gossip, from.member, incarnation, gossip->self_key);
}

pls_err pls_gossip_receive(pls_gossip *gossip, const void *bytes, size_t len, const char *from,
                           uint32_t from_bytes, uint64_t now_ns)
{
    pls_packet packet;
    pls_message message;
    pls_gossip_input_begin(gossip, now_ns);
    gossip->counters.packets_received++;
    gossip->counters.bytes_received += len;
    if (len > PLS_PACKET_BYTES_MAX) {
        gossip->counters.dropped_oversized++;
        return pls_gossip_input_end(gossip, PLS_ETOOBIG);
    }
    if (!gossip->joined) {
        gossip->counters.dropped_early++;
        return pls_gossip_input_end(gossip, PLS_OK);
    }
    pls_err err = pls_packet_open(bytes, len, &packet);
    if (err != PLS_OK) {
        gossip->counters.dropped_malformed++;
        return pls_gossip_input_end(gossip, err);
    }
    err = judge(gossip, packet);
    if (err != PLS_OK) {
        return pls_gossip_input_end(gossip, err);
    }
    gossip->sender = packet.sender;
    pls_target to = answer_to(gossip, from, from_bytes);
    accused_talks(gossip, to);
    for (err = pls_packet_next(&packet, &message); err != PLS_EEMPTY;
         err = pls_packet_next(&packet, &message)) {
        if (err == PLS_EUNSUPPORTED) {
            gossip->counters.dropped_kind++;
            continue;
        }
        dispatch(gossip, to, &message);
        to = answer_to(gossip, from, from_bytes);
    }
    return pls_gossip_input_end(gossip, PLS_OK);
}

pls_err pls_gossip_packet_sender(const void *bytes, size_t len, uint64_t *key_out)
{
    pls_packet packet;
    pls_err err = pls_packet_open(bytes, len, &packet);
    if (err == PLS_OK) {
        *key_out = packet.sender;
    }
    return err;
}

pls_err pls_gossip_join(pls_gossip *gossip, const pls_seed *seeds, uint32_t seed_count,
                        uint64_t now_ns)
{
    pls_gossip_input_begin(gossip, now_ns);
    if (gossip->leaving) {
        return pls_gossip_input_end(gossip, PLS_ECLOSED);
    }
    if (!gossip->joined) {
        gossip->joined = true;
        gossip->gossip_phase = pls_rng_next(&gossip->rng) % gossip->config.gossip_interval_ns;
        pls_probes_start(gossip);
        pls_sync_start(gossip);
    }
    return pls_gossip_input_end(gossip, pls_sync_add_seeds(gossip, seeds, seed_count));
}

pls_err pls_gossip_learn(pls_gossip *gossip, const pls_identity *identity, uint64_t incarnation,
                         uint64_t now_ns)
{
    pls_gossip_input_begin(gossip, now_ns);
    if (incarnation == 0 || incarnation > PLS_INCARNATION_MAX || identity->name_bytes == 0 ||
        identity->name_bytes > PLS_NAME_BYTES_MAX) {
        return pls_gossip_input_end(gossip, PLS_EINVAL);
    }
    pls_member member = PLS_MEMBER_NONE;
    pls_message message = {.identity = *identity, .incarnation = incarnation};
    message.identity.key = pls_identity_key(identity);
    return pls_gossip_input_end(gossip,
                                pls_rules_alive(gossip, &message, PLS_RULES_VOUCHED, &member));
}

pls_err pls_gossip_leave(pls_gossip *gossip, uint64_t now_ns)
{
    pls_gossip_input_begin(gossip, now_ns);
    if (gossip->leaving) {
        return pls_gossip_input_end(gossip, PLS_OK);
    }
    /* Above my own incarnation, so that it also ends a suspicion that is on its way. */
    uint64_t incarnation = pls_members_incarnation(&gossip->members, gossip->self);
    incarnation += incarnation < PLS_INCARNATION_MAX;
    pls_members_set(gossip, gossip->self, PLS_MEMBER_ALIVE, incarnation);
    gossip->leaving = true;
    pls_update update = {incarnation, gossip->self_key, gossip->self, PLS_WIRE_LEFT};
    if (gossip->joined && pls_members_live_count(&gossip->members) > 1) {
        pls_queue_put(gossip, &gossip->queue, &update, 0);
        gossip_round(gossip, LEAVE_FANOUT);
    }
    tell_left(gossip);
    return pls_gossip_input_end(gossip, PLS_OK);
}

static bool is_live_other(const pls_gossip *gossip, pls_member member)
{
    return gossip->joined && !gossip->leaving && member != gossip->self &&
           pls_state_is_live(pls_members_state(&gossip->members, member));
}

pls_err pls_gossip_disconnected(pls_gossip *gossip, pls_member member, uint64_t now_ns)
{
    pls_gossip_input_begin(gossip, now_ns);
    gossip->counters.disconnected_hints++;
    if (is_live_other(gossip, member)) {
        uint64_t incarnation = pls_members_incarnation(&gossip->members, member);
        pls_probes_extra(gossip, member, incarnation, 0);
    }
    return pls_gossip_input_end(gossip, PLS_OK);
}

pls_err pls_gossip_refused(pls_gossip *gossip, pls_member member, uint64_t now_ns)
{
    pls_gossip_input_begin(gossip, now_ns);
    gossip->counters.refused_hints++;
    if (is_live_other(gossip, member)) {
        pls_probes_refused(gossip, member);
    }
    return pls_gossip_input_end(gossip, PLS_OK);
}

pls_err pls_gossip_evict(pls_gossip *gossip, pls_member member, uint64_t now_ns)
{
    pls_gossip_input_begin(gossip, now_ns);
    if (is_live_other(gossip, member)) {
        uint64_t incarnation = pls_members_incarnation(&gossip->members, member);
        pls_rules_dead(gossip, pls_gossip_key_of(gossip, member), incarnation, gossip->self_key);
    }
    return pls_gossip_input_end(gossip, PLS_OK);
}

pls_err pls_gossip_set_meta(pls_gossip *gossip, const void *meta, uint32_t len, uint64_t now_ns)
{
    pls_gossip_input_begin(gossip, now_ns);
    if (len > PLS_META_BYTES_MAX) {
        return pls_gossip_input_end(gossip, PLS_ETOOBIG);
    }
    if (gossip->leaving) {
        return pls_gossip_input_end(gossip, PLS_ECLOSED);
    }
    uint64_t mine = pls_members_incarnation(&gossip->members, gossip->self);
    uint64_t next = mine + !pls_mutant(PLS_MUTANT_META_FORKS);
    pls_err err = pls_identities_set_meta(gossip->pool, gossip->self, next, meta, len);
    if (err == PLS_OK && next > mine) {
        pls_rules_assert_self(gossip, mine);
    }
    return pls_gossip_input_end(gossip, err == PLS_EEXIST ? PLS_EINVAL : err);
}
