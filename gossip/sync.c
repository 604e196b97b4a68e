/* SPDX-License-Identifier: Apache-2.0 */
/* Anti-entropy and healing. Each ping carries a digest of everything that its sender holds. A
 * receiver whose own differs answers with its bucket hashes (TREE), the other lists what it holds
 * in the buckets that differ (LIST), and the first one serves what is missing there, asks for what
 * is missing here (WANT) and lists back where it knows of a death.
 *
 * An accusation is never adopted from a listing: it is forwarded to the accused, who refutes it or
 * fails to answer my own probe. So two sides of a healed partition cannot talk each other dead. */
#include "gossip/sync.h"

#include "base/assert.h"
#include "gossip/delta.h"
#include "gossip/mutant.h"
#include "gossip/rules.h"
#include "gossip/state.h"

#include <string.h>

/* While I know nobody, seeds are asked again after this. */
#define JOIN_RETRY_NS UINT64_C(1000000000)

/* Accused members that are remembered so that each hears of it once in a probe interval. */
#define FORWARDS_MAX 256

typedef struct pls_sync_seed {
    pls_member member; /* the live member that had this address last */
    uint32_t address_bytes;
    char address[PLS_ADDRESS_BYTES_MAX];
} pls_sync_seed;

typedef struct pls_sync_told {
    pls_member member;
    uint64_t at_ns;
} pls_sync_told;

void pls_sync_start(pls_gossip *gossip)
{
    pls_sync *sync = &gossip->sync;
    const pls_gossip_config *config = &gossip->config;
    uint64_t now_ns = gossip->now_ns;
    sync->digest_ns = now_ns + config->digest_interval_ns;
    uint32_t announce_us = (uint32_t)(config->announce_interval_ns / 1000);
    sync->announce_ns =
        now_ns + (announce_us > 0 ? pls_rng_below(&gossip->rng, announce_us) * 1000ull : 0);
    sync->seeds_ns = UINT64_MAX;
}

void pls_sync_fini(pls_gossip *gossip)
{
    pls_sync *sync = &gossip->sync;
    pls_heap_resize(&gossip->heap, sync->seeds, sync->seeds_capacity * sizeof(pls_sync_seed), 0);
    if (sync->forwards != NULL) {
        pls_heap_resize(&gossip->heap, sync->forwards, FORWARDS_MAX * sizeof(pls_sync_told), 0);
    }
}

uint64_t pls_sync_digest(const pls_gossip *gossip)
{
    uint64_t digest = gossip->members.digest;
    return digest != 0 ? digest : 1;
}

void pls_sync_digest_sent(pls_gossip *gossip)
{
    /* A quarter late, so that the next ping comes first. */
    uint64_t interval_ns = gossip->config.digest_interval_ns;
    gossip->sync.digest_ns = gossip->now_ns + interval_ns + interval_ns / 4;
}

static void greet(pls_gossip *gossip, pls_target to, uint32_t kind)
{
    pls_message greeting = pls_rules_record(gossip, gossip->self);
    greeting.kind = kind;
    greeting.digest = pls_sync_digest(gossip);
    pls_outbox_connect(gossip, to);
    pls_outbox_send(gossip, to, &greeting, true);
}

static void greet_seed(pls_gossip *gossip, const pls_sync_seed *seed)
{
    pls_target to = {PLS_MEMBER_NONE, seed->address, seed->address_bytes};
    greet(gossip, to, PLS_WIRE_JOIN);
}

static bool address_is(const pls_gossip *gossip, pls_member member, const char *address,
                       uint32_t address_bytes)
{
    pls_identity identity = pls_identities_get(gossip->pool, member);
    return identity.address_bytes == address_bytes &&
           memcmp(identity.address, address, address_bytes) == 0;
}

pls_err pls_sync_add_seeds(pls_gossip *gossip, const pls_seed *seeds, uint32_t seed_count)
{
    pls_sync *sync = &gossip->sync;
    for (uint32_t i = 0; i < seed_count; i++) {
        if (seeds[i].address_bytes == 0 || seeds[i].address_bytes > PLS_ADDRESS_BYTES_MAX) {
            return PLS_EINVAL;
        }
    }
    if (seed_count > PLS_SEEDS_MAX - sync->seeds_count) {
        return PLS_EFULL;
    }
    void *array = sync->seeds;
    pls_err err = seed_count == 0
                      ? PLS_OK
                      : pls_heap_reserve(&gossip->heap, &array, &sync->seeds_capacity,
                                         sync->seeds_count + seed_count, sizeof(pls_sync_seed));
    sync->seeds = array;
    if (err != PLS_OK) {
        return err;
    }
    for (uint32_t i = 0; i < seed_count; i++) {
        if (address_is(gossip, gossip->self, seeds[i].address, seeds[i].address_bytes)) {
            continue;
        }
        pls_sync_seed *seed = &sync->seeds[sync->seeds_count++];
        *seed = (pls_sync_seed){.member = PLS_MEMBER_NONE, .address_bytes = seeds[i].address_bytes};
        memcpy(seed->address, seeds[i].address, seeds[i].address_bytes);
        greet_seed(gossip, seed);
    }
    sync->seeds_ns = sync->seeds_count > 0 ? gossip->now_ns + JOIN_RETRY_NS : UINT64_MAX;
    return PLS_OK;
}

static bool seed_is_live(pls_gossip *gossip, pls_sync_seed *seed)
{
    const pls_members *members = &gossip->members;
    if (pls_state_is_live(pls_members_state(members, seed->member))) {
        return true;
    }
    for (pls_member m = 0; m < members->capacity; m++) {
        if (pls_state_is_live(pls_members_state(members, m)) &&
            address_is(gossip, m, seed->address, seed->address_bytes)) {
            seed->member = m;
            return true;
        }
    }
    seed->member = PLS_MEMBER_NONE;
    return false;
}

static void advance_seeds(pls_gossip *gossip)
{
    pls_sync *sync = &gossip->sync;
    bool alone = pls_members_live_count(&gossip->members) == 1;
    sync->seeds_ns = gossip->now_ns + (alone ? JOIN_RETRY_NS : gossip->config.seeds_interval_ns);
    for (uint32_t i = 0; i < sync->seeds_count; i++) {
        if (alone || !seed_is_live(gossip, &sync->seeds[i])) {
            gossip->counters.seed_retries++;
            greet_seed(gossip, &sync->seeds[i]);
        }
    }
}

static void advance_announce(pls_gossip *gossip)
{
    pls_sync *sync = &gossip->sync;
    uint64_t interval_ns = gossip->config.announce_interval_ns;
    sync->announce_ns += ((gossip->now_ns - sync->announce_ns) / interval_ns + 1) * interval_ns;
    uint32_t live = pls_members_live_count(&gossip->members);
    pls_member target = PLS_MEMBER_NONE;
    /* All live members of this side together make about one announce in each interval. */
    if (pls_mutant(PLS_MUTANT_NO_HEAL) || pls_rng_below(&gossip->rng, live) != 0 ||
        pls_members_pick(gossip, PLS_PICK_DEAD, PLS_MEMBER_NONE, 1, &target) == 0) {
        return;
    }
    gossip->counters.announces++;
    greet(gossip, pls_target_member(target), PLS_WIRE_ANNOUNCE);
}

static void advance_digest(pls_gossip *gossip)
{
    pls_member target = PLS_MEMBER_NONE;
    gossip->sync.digest_ns = gossip->now_ns + gossip->config.digest_interval_ns;
    if (pls_members_pick(gossip, PLS_PICK_ALIVE, PLS_MEMBER_NONE, 1, &target) == 1) {
        pls_message message = {.kind = PLS_WIRE_DIGEST, .digest = pls_sync_digest(gossip)};
        pls_outbox_send(gossip, pls_target_member(target), &message, true);
    }
}

static uint64_t announce_next_ns(const pls_gossip *gossip)
{
    bool wanted =
        gossip->config.announce_interval_ns > 0 && gossip->members.counts[PLS_MEMBER_DEAD] > 0;
    return wanted ? gossip->sync.announce_ns : UINT64_MAX;
}

static uint64_t digest_next_ns(const pls_gossip *gossip)
{
    bool wanted =
        gossip->config.digest_interval_ns > 0 && pls_members_live_count(&gossip->members) > 1;
    return wanted ? gossip->sync.digest_ns : UINT64_MAX;
}

uint64_t pls_sync_next_ns(const pls_gossip *gossip)
{
    if (gossip->leaving) {
        return UINT64_MAX;
    }
    uint64_t next_ns = gossip->sync.seeds_ns;
    uint64_t announce_ns = announce_next_ns(gossip);
    uint64_t digest_ns = digest_next_ns(gossip);
    next_ns = announce_ns < next_ns ? announce_ns : next_ns;
    return digest_ns < next_ns ? digest_ns : next_ns;
}

void pls_sync_advance(pls_gossip *gossip)
{
    if (gossip->leaving) {
        return;
    }
    if (gossip->now_ns >= gossip->sync.seeds_ns) {
        advance_seeds(gossip);
    }
    if (gossip->now_ns >= announce_next_ns(gossip)) {
        advance_announce(gossip);
    }
    if (gossip->now_ns >= digest_next_ns(gossip)) {
        advance_digest(gossip);
    }
}

/* Whether `member` has heard of an accusation lately; if not, it is remembered. */
static bool forwarded_lately(pls_gossip *gossip, pls_member member)
{
    pls_sync *sync = &gossip->sync;
    if (sync->forwards == NULL) {
        sync->forwards =
            pls_heap_resize(&gossip->heap, NULL, 0, FORWARDS_MAX * sizeof(pls_sync_told));
        if (sync->forwards == NULL) {
            gossip->counters.dropped_memory++;
            return true;
        }
        for (uint32_t i = 0; i < FORWARDS_MAX; i++) {
            sync->forwards[i] = (pls_sync_told){PLS_MEMBER_NONE, 0};
        }
    }
    pls_sync_told *slot = &sync->forwards[member % FORWARDS_MAX];
    if (slot->member == member && gossip->now_ns - slot->at_ns < gossip->config.probe_interval_ns) {
        return true;
    }
    *slot = (pls_sync_told){member, gossip->now_ns};
    return false;
}

void pls_sync_forward(pls_gossip *gossip, pls_member member, uint64_t incarnation, uint64_t accuser)
{
    if (forwarded_lately(gossip, member) || pls_rules_jump(gossip, member, incarnation)) {
        return;
    }
    gossip->counters.accusations_forwarded++;
    pls_probes_extra(gossip, member, incarnation, accuser);
}

void pls_sync_serve(pls_gossip *gossip, pls_target to, pls_member member)
{
    pls_message record = pls_rules_record(gossip, member);
    record.kind = PLS_WIRE_RECORD;
    gossip->counters.records_served++;
    pls_outbox_send(gossip, to, &record, false);
}

void pls_sync_greeted(pls_gossip *gossip, pls_target from, const pls_message *message)
{
    pls_member member = PLS_MEMBER_NONE;
    if (message->identity.key != gossip->sender ||
        pls_rules_alive(gossip, message, PLS_RULES_GOSSIP, &member) != PLS_OK ||
        member == PLS_MEMBER_NONE || member == gossip->self) {
        pls_member old =
            pls_gossip_member_named(gossip, message->identity.name, message->identity.name_bytes);
        if (old != PLS_MEMBER_NONE && message->identity.key == gossip->sender &&
            pls_state_is_live(pls_members_state(&gossip->members, old))) {
            /* Refused: it should know who has its name. */
            pls_sync_serve(gossip, from, old);
        }
        return;
    }
    from = pls_target_member(member);
    pls_member_state state = pls_members_state(&gossip->members, member);
    if (state == PLS_MEMBER_DEAD || state == PLS_MEMBER_LEFT) {
        pls_message accusation = {.kind = PLS_WIRE_ACCUSE,
                                  .key = message->identity.key,
                                  .incarnation = pls_members_incarnation(&gossip->members, member),
                                  .accuser = gossip->self_key};
        gossip->counters.accusations_forwarded++;
        pls_outbox_send(gossip, from, &accusation, false);
    }
    pls_sync_compare(gossip, from, message->digest);
}
