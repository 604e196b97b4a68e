/* SPDX-License-Identifier: Apache-2.0 */
/* What an arriving statement does to what is stored: the table of swim.md a5 with generations. The
 * stored incarnation never falls, also where the state stays as it is; only its owner raises one;
 * dead and left end by a higher incarnation of the same identity or by a newer generation of the
 * same name alone. */
#include "gossip/rules.h"

#include "base/assert.h"
#include "gossip/delta.h"
#include "gossip/isolation.h"
#include "gossip/mutant.h"
#include "gossip/scale.h"
#include "gossip/state.h"

#include <string.h>

/* How often a record that came by exchange is gossiped on. */
#define SYNC_TRANSMITS 1

static pls_member known(pls_gossip *gossip, uint64_t key)
{
    pls_member member = pls_identities_find(gossip->pool, key);
    if (member == PLS_MEMBER_NONE ||
        pls_members_state(&gossip->members, member) == PLS_MEMBER_UNKNOWN) {
        return PLS_MEMBER_NONE;
    }
    return member;
}

static void no_memory(pls_gossip *gossip)
{
    gossip->counters.dropped_memory++;
    gossip->err = PLS_ENOMEM;
}

static void spread(pls_gossip *gossip, uint32_t kind, pls_member subject, uint64_t incarnation,
                   uint64_t accuser)
{
    pls_update update = {incarnation, accuser, subject, kind};
    pls_queue_put(gossip, &gossip->queue, &update, 0);
}

/* What closed a difference between two tables is no news to most: it is told once. */
static void spread_alive(pls_gossip *gossip, pls_member member, pls_rules_source source)
{
    if (source == PLS_RULES_VOUCHED) {
        return;
    }
    uint32_t limit = pls_scale_retransmits(gossip->config.retransmit_mult,
                                           pls_members_live_count(&gossip->members));
    uint32_t sent = source == PLS_RULES_SYNC && limit > SYNC_TRANSMITS ? limit - SYNC_TRANSMITS : 0;
    sent = sent < PLS_TRANSMITS_MAX ? sent : PLS_TRANSMITS_MAX - 1;
    pls_update update = {pls_members_incarnation(&gossip->members, member), 0, member,
                         PLS_WIRE_ALIVE};
    pls_queue_put(gossip, &gossip->queue, &update, sent);
}

bool pls_rules_jump(pls_gossip *gossip, pls_member member, uint64_t incarnation)
{
    uint64_t stored = pls_members_incarnation(&gossip->members, member);
    if (incarnation >= 1 && incarnation <= PLS_INCARNATION_MAX &&
        incarnation <= stored + PLS_INCARNATION_JUMP_MAX) {
        return false;
    }
    gossip->counters.dropped_jump++;
    return true;
}

pls_message pls_rules_record(const pls_gossip *gossip, pls_member member)
{
    pls_message record = {.kind = PLS_WIRE_ALIVE};
    record.identity = pls_identities_get(gossip->pool, member);
    record.incarnation = pls_members_incarnation(&gossip->members, member);
    record.meta = pls_identities_meta(gossip->pool, member, record.incarnation, &record.meta_bytes);
    return record;
}

void pls_rules_assert_self(pls_gossip *gossip, uint64_t above)
{
    uint64_t mine = pls_members_incarnation(&gossip->members, gossip->self);
    uint64_t next = (above > mine ? above : mine) + 1;
    if (next > PLS_INCARNATION_MAX) {
        return;
    }
    pls_members_set(gossip, gossip->self, PLS_MEMBER_ALIVE, next);
    spread(gossip, PLS_WIRE_ALIVE, gossip->self, next, 0);
}

bool pls_rules_accused(pls_gossip *gossip, uint64_t incarnation)
{
    if (gossip->leaving || incarnation < pls_members_incarnation(&gossip->members, gossip->self) ||
        pls_rules_jump(gossip, gossip->self, incarnation)) {
        return false;
    }
    gossip->counters.refutes++;
    pls_rules_assert_self(gossip, incarnation);
    pls_probes_aware(gossip, 1);
    return true;
}

/* A record about myself: it was not me who said it when it is ahead of me or differs from me. */
static void alive_self(pls_gossip *gossip, const pls_message *record)
{
    pls_message mine = pls_rules_record(gossip, gossip->self);
    bool differs = record->meta_bytes != mine.meta_bytes ||
                   (mine.meta_bytes > 0 && memcmp(record->meta, mine.meta, mine.meta_bytes) != 0);
    if (record->incarnation > mine.incarnation ||
        (record->incarnation == mine.incarnation && differs)) {
        pls_rules_accused(gossip, record->incarnation);
    }
}

/* Remember the meta of a record; whether it is another than before. */
static pls_err take_meta(pls_gossip *gossip, pls_member member, const pls_message *record,
                         bool *changed_out)
{
    pls_message before = pls_rules_record(gossip, member);
    *changed_out =
        before.meta_bytes != record->meta_bytes ||
        (record->meta_bytes > 0 && memcmp(before.meta, record->meta, record->meta_bytes) != 0);
    pls_err err = pls_identities_set_meta(gossip->pool, member, record->incarnation, record->meta,
                                          record->meta_bytes);
    if (err == PLS_EEXIST) {
        gossip->counters.dropped_meta++;
        return PLS_OK;
    }
    return err;
}

static bool alive_is_news(const pls_gossip *gossip, pls_member member, uint64_t incarnation)
{
    uint64_t stored = pls_members_incarnation(&gossip->members, member);
    if (pls_mutant(PLS_MUTANT_INCARNATION_FALLS) && incarnation < stored) {
        return true;
    }
    if (pls_mutant(PLS_MUTANT_RESURRECTS) && incarnation == stored &&
        pls_members_state(&gossip->members, member) == PLS_MEMBER_DEAD) {
        return true;
    }
    return incarnation > stored;
}

static bool same_identity(const pls_gossip *gossip, pls_member member, const pls_identity *identity)
{
    pls_identity mine = pls_identities_get(gossip->pool, member);
    return mine.name_bytes == identity->name_bytes &&
           mine.address_bytes == identity->address_bytes &&
           mine.generation == identity->generation &&
           memcmp(mine.name, identity->name, mine.name_bytes) == 0 &&
           memcmp(mine.address, identity->address, mine.address_bytes) == 0;
}

static void tell_alive(pls_gossip *gossip, pls_member member, pls_member_state was, bool changed)
{
    if (was == PLS_MEMBER_ALIVE) {
        if (changed) {
            pls_outbox_member(gossip, PLS_EVENT_UPDATED, member, PLS_MEMBER_NONE);
        }
        return;
    }
    pls_outbox_member(gossip, PLS_EVENT_ALIVE, member, PLS_MEMBER_NONE);
    pls_probes_verify(gossip);
    if (was == PLS_MEMBER_SUSPECT) {
        gossip->counters.suspicions_refuted++;
        return;
    }
    gossip->counters.revivals++;
    pls_delta_owner_state(gossip, member, true);
    pls_isolation_look(gossip);
}

static pls_err alive_known(pls_gossip *gossip, pls_member member, const pls_message *record,
                           pls_rules_source source)
{
    if (member == gossip->self) {
        alive_self(gossip, record);
        return PLS_OK;
    }
    if (source == PLS_RULES_GOSSIP &&
        record->incarnation == pls_members_incarnation(&gossip->members, member)) {
        gossip->counters.updates_heard +=
            pls_queue_heard(&gossip->queue, member, record->incarnation);
    }
    if (!alive_is_news(gossip, member, record->incarnation) || source == PLS_RULES_VOUCHED ||
        pls_rules_jump(gossip, member, record->incarnation)) {
        return PLS_OK;
    }
    if (!same_identity(gossip, member, &record->identity)) {
        gossip->counters.dropped_key++;
        return PLS_EEXIST;
    }
    bool changed = false;
    pls_err err = take_meta(gossip, member, record, &changed);
    if (err != PLS_OK) {
        return err;
    }
    pls_member_state was = pls_members_state(&gossip->members, member);
    pls_suspicions_cancel(gossip, member);
    pls_members_set(gossip, member, PLS_MEMBER_ALIVE, record->incarnation);
    spread_alive(gossip, member, source);
    tell_alive(gossip, member, was, changed);
    return PLS_OK;
}

/* Whether a record takes the place of the known member of its name: the newer generation does, and
 * between equal ones the higher key, so that everybody decides alike. */
static bool supersedes(const pls_gossip *gossip, const pls_message *record, pls_member old)
{
    pls_identity stored = pls_identities_get(gossip->pool, old);
    if (record->identity.generation != stored.generation) {
        return record->identity.generation > stored.generation;
    }
    return pls_members_state(&gossip->members, old) == PLS_MEMBER_LEFT ||
           record->identity.key > stored.key;
}

static void tell_conflict(pls_gossip *gossip, const pls_identity *loser, pls_member winner)
{
    pls_member member = PLS_MEMBER_NONE;
    gossip->counters.conflicts++;
    if (pls_identities_acquire(gossip->pool, loser, &member) == PLS_OK) {
        pls_outbox_member(gossip, PLS_EVENT_CONFLICT, member, winner);
        pls_identities_release(gossip->pool, member);
    }
}

/* Another node runs under my name and wins. I go on until my driver decides. */
static void superseded(pls_gossip *gossip, const pls_message *record)
{
    pls_member winner = PLS_MEMBER_NONE;
    gossip->counters.conflicts++;
    if (gossip->conflict_told ||
        pls_identities_acquire(gossip->pool, &record->identity, &winner) != PLS_OK) {
        return;
    }
    gossip->conflict_told = true;
    pls_outbox_member(gossip, PLS_EVENT_CONFLICT, gossip->self, winner);
    pls_identities_release(gossip->pool, winner);
}

/* True when the record of an unknown identity may enter beside or in place of `old`. */
static bool admit(pls_gossip *gossip, const pls_message *record, pls_member old,
                  pls_rules_source source)
{
    if (old == PLS_MEMBER_NONE) {
        return true;
    }
    bool wins = supersedes(gossip, record, old) && source != PLS_RULES_VOUCHED;
    if (old == gossip->self && wins) {
        superseded(gossip, record);
        return false;
    }
    if (wins) {
        return true;
    }
    gossip->counters.dropped_generation++;
    bool live = pls_state_is_live(pls_members_state(&gossip->members, old));
    if (live && record->identity.key == gossip->sender) {
        tell_conflict(gossip, &record->identity, old);
    }
    return false;
}

static void replace(pls_gossip *gossip, pls_member old, pls_member by)
{
    gossip->counters.replaced++;
    pls_identity stored = pls_identities_get(gossip->pool, old);
    if (pls_state_is_live(pls_members_state(&gossip->members, old))) {
        if (stored.generation == pls_identities_get(gossip->pool, by).generation) {
            gossip->counters.conflicts++;
            pls_outbox_member(gossip, PLS_EVENT_CONFLICT, old, by);
        }
        pls_outbox_member(gossip, PLS_EVENT_DEAD, old, by);
        pls_outbox_drop(gossip, old);
    }
    pls_rules_forget(gossip, old);
}

static pls_err alive_new(pls_gossip *gossip, const pls_message *record, pls_rules_source source,
                         pls_member *member_out)
{
    pls_member old =
        pls_gossip_member_named(gossip, record->identity.name, record->identity.name_bytes);
    if (!admit(gossip, record, old, source)) {
        return PLS_OK;
    }
    if (old == PLS_MEMBER_NONE &&
        pls_members_live_count(&gossip->members) >= gossip->config.members_max) {
        gossip->counters.dropped_full++;
        return PLS_EFULL;
    }
    pls_member member = PLS_MEMBER_NONE;
    pls_err err = pls_identities_acquire(gossip->pool, &record->identity, &member);
    if (err != PLS_OK) {
        gossip->counters.dropped_key += err == PLS_EEXIST;
        return err;
    }
    bool changed = false;
    err = pls_members_reserve(gossip, member);
    if (err == PLS_OK) {
        err = take_meta(gossip, member, record, &changed);
    }
    if (err != PLS_OK) {
        pls_identities_release(gossip->pool, member);
        return err;
    }
    if (old != PLS_MEMBER_NONE) {
        replace(gossip, old, member);
    }
    pls_members_set(gossip, member, PLS_MEMBER_ALIVE, record->incarnation);
    gossip->counters.joins++;
    spread_alive(gossip, member, source);
    pls_outbox_member(gossip, PLS_EVENT_JOINED, member, PLS_MEMBER_NONE);
    pls_isolation_look(gossip);
    *member_out = member;
    return PLS_OK;
}

pls_err pls_rules_alive(pls_gossip *gossip, const pls_message *record, pls_rules_source source,
                        pls_member *member_out)
{
    *member_out = PLS_MEMBER_NONE;
    if (record->incarnation == 0 || record->incarnation > PLS_INCARNATION_MAX) {
        gossip->counters.dropped_jump++;
        return PLS_OK;
    }
    pls_member member = known(gossip, record->identity.key);
    pls_err err = PLS_OK;
    if (member != PLS_MEMBER_NONE) {
        *member_out = member;
        err = alive_known(gossip, member, record, source);
    } else {
        err = alive_new(gossip, record, source, member_out);
    }
    if (err == PLS_ENOMEM) {
        no_memory(gossip);
    }
    return err;
}

static void start_suspicion(pls_gossip *gossip, pls_member member, uint64_t incarnation,
                            uint64_t accuser)
{
    if (pls_mutant(PLS_MUTANT_RAISES_OTHERS)) {
        pls_members_set(gossip, member, PLS_MEMBER_ALIVE, incarnation + 1);
        spread(gossip, PLS_WIRE_ALIVE, member, incarnation + 1, 0);
        return;
    }
    if (pls_suspicions_reserve(gossip) != PLS_OK) {
        no_memory(gossip);
        return;
    }
    pls_suspicions_start(gossip, member, accuser);
    pls_members_set(gossip, member, PLS_MEMBER_SUSPECT, incarnation);
    gossip->counters.suspicions++;
    spread(gossip, PLS_WIRE_SUSPECT, member, incarnation, accuser);
    pls_outbox_member(gossip, PLS_EVENT_SUSPECT, member, PLS_MEMBER_NONE);
    pls_outbox_drop(gossip, member);
}

void pls_rules_suspect(pls_gossip *gossip, uint64_t key, uint64_t incarnation, uint64_t accuser)
{
    pls_member member = known(gossip, key);
    if (member == PLS_MEMBER_NONE) {
        gossip->counters.dropped_unknown++;
        return;
    }
    if (member == gossip->self) {
        pls_rules_accused(gossip, incarnation);
        return;
    }
    if (incarnation < pls_members_incarnation(&gossip->members, member) ||
        pls_rules_jump(gossip, member, incarnation)) {
        return;
    }
    pls_member_state state = pls_members_state(&gossip->members, member);
    if (state == PLS_MEMBER_ALIVE) {
        start_suspicion(gossip, member, incarnation, accuser);
        return;
    }
    pls_members_set(gossip, member, state, incarnation);
    if (state == PLS_MEMBER_SUSPECT &&
        pls_suspicions_confirm(gossip, pls_suspicions_find(&gossip->suspicions, member), accuser)) {
        gossip->counters.confirmations++;
        spread(gossip, PLS_WIRE_SUSPECT, member, incarnation, accuser);
    }
}

/* The end of a member in my table, as dead or as left. */
static void finish(pls_gossip *gossip, pls_member member, pls_member_state state,
                   uint64_t incarnation, uint64_t accuser)
{
    if (pls_members_reserve(gossip, member) != PLS_OK) {
        no_memory(gossip);
        return;
    }
    bool dead = state == PLS_MEMBER_DEAD;
    pls_suspicions_cancel(gossip, member);
    pls_members_set(gossip, member, state, incarnation);
    pls_probes_forget(gossip, member);
    gossip->counters.deaths += dead;
    gossip->counters.leaves += !dead;
    spread(gossip, dead ? PLS_WIRE_DEAD : PLS_WIRE_LEFT, member, incarnation, accuser);
    pls_outbox_member(gossip, dead ? PLS_EVENT_DEAD : PLS_EVENT_LEFT, member, PLS_MEMBER_NONE);
    pls_outbox_drop(gossip, member);
    pls_delta_owner_state(gossip, member, false);
    pls_isolation_look(gossip);
}

static void end(pls_gossip *gossip, uint64_t key, uint64_t incarnation, uint64_t accuser,
                pls_member_state to)
{
    pls_member member = known(gossip, key);
    if (member == PLS_MEMBER_NONE) {
        gossip->counters.dropped_unknown++;
        return;
    }
    if (member == gossip->self && !pls_mutant(PLS_MUTANT_SELF_DEATH)) {
        pls_rules_accused(gossip, incarnation);
        return;
    }
    if (incarnation < pls_members_incarnation(&gossip->members, member) ||
        pls_rules_jump(gossip, member, incarnation)) {
        return;
    }
    pls_member_state state = pls_members_state(&gossip->members, member);
    bool forbidden = pls_mutant(PLS_MUTANT_FORBIDDEN) && state == PLS_MEMBER_LEFT;
    if (pls_state_is_live(state) || forbidden) {
        finish(gossip, member, to, incarnation, accuser);
        return;
    }
    pls_members_set(gossip, member, state, incarnation);
}

void pls_rules_dead(pls_gossip *gossip, uint64_t key, uint64_t incarnation, uint64_t accuser)
{
    end(gossip, key, incarnation, accuser, PLS_MEMBER_DEAD);
}

void pls_rules_left(pls_gossip *gossip, uint64_t key, uint64_t incarnation)
{
    end(gossip, key, incarnation, key, PLS_MEMBER_LEFT);
}

void pls_rules_expire_suspicion(pls_gossip *gossip)
{
    pls_member member = pls_suspicions_next(&gossip->suspicions);
    uint64_t incarnation = pls_members_incarnation(&gossip->members, member);
    gossip->counters.suspicions_expired++;
    pls_rules_dead(gossip, pls_gossip_key_of(gossip, member), incarnation, gossip->self_key);
    pls_suspicion *left = pls_suspicions_find(&gossip->suspicions, member);
    if (left != NULL) {
        /* There was no memory for the death: try again later. */
        pls_suspicions_move(gossip, left, gossip->now_ns + gossip->config.probe_interval_ns);
    }
}

void pls_rules_forget(pls_gossip *gossip, pls_member member)
{
    pls_assert(member != gossip->self);
    pls_suspicions_cancel(gossip, member);
    pls_queue_remove(&gossip->queue, member);
    pls_probes_forget(gossip, member);
    uint32_t log = pls_registry_log(&gossip->registry, member);
    if (log != PLS_INDEX_NONE) {
        pls_delta_owner_state(gossip, member, false);
        pls_registry_log_free(gossip, log);
    }
    pls_members_set(gossip, member, PLS_MEMBER_UNKNOWN, 0);
}
