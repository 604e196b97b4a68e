/* SPDX-License-Identifier: Apache-2.0 */
/* What I hold of each member: one 64-bit entry at the member's number, so that a look-up is one
 * load. pls_members_set is the only writer; it keeps the counts, the digest's buckets (sums of
 * hashes of the live members, so that any order of changes gives the same digest) and the lists of
 * the dead and the left, oldest first, for their expiry. */
#include "gossip/members.h"

#include "base/assert.h"
#include "gossip/state.h"

#include <string.h>

/* Random tries for each member to pick before the table is searched from a random place. */
#define PICK_TRIES 8

void pls_members_init(pls_members *members)
{
    members->graves_free = PLS_INDEX_NONE;
    members->dead = (pls_dead_list){PLS_INDEX_NONE, PLS_INDEX_NONE};
    members->left = (pls_dead_list){PLS_INDEX_NONE, PLS_INDEX_NONE};
}

void pls_members_fini(pls_gossip *gossip)
{
    pls_members *members = &gossip->members;
    for (pls_member m = 0; m < members->capacity; m++) {
        if (pls_members_state(members, m) != PLS_MEMBER_UNKNOWN) {
            pls_identities_release(gossip->pool, m);
        }
    }
    pls_heap_resize(&gossip->heap, members->entries, members->capacity * sizeof(pls_entry), 0);
    pls_heap_resize(&gossip->heap, members->graves, members->graves_capacity * sizeof(pls_dead), 0);
    pls_index_fini(&members->grave_of, &gossip->heap);
}

uint64_t pls_members_hash(uint64_t key, uint64_t incarnation, uint64_t names_version)
{
    uint64_t x = key + incarnation * UINT64_C(0x9e3779b97f4a7c15) +
                 names_version * UINT64_C(0xc2b2ae3d27d4eb4f);
    x ^= x >> 32;
    x *= UINT64_C(0xd6e8feb86659fd93);
    x ^= x >> 29;
    x *= UINT64_C(0xd6e8feb86659fd93);
    return x ^ (x >> 32);
}

static pls_dead_list *list_of(pls_members *members, pls_member_state state)
{
    return state == PLS_MEMBER_DEAD ? &members->dead : &members->left;
}

static void grave_open(pls_gossip *gossip, pls_member member, pls_member_state state)
{
    pls_members *members = &gossip->members;
    pls_dead_list *list = list_of(members, state);
    uint32_t at = members->graves_free;
    if (at != PLS_INDEX_NONE) {
        members->graves_free = members->graves[at].newer;
    } else {
        pls_assert(members->graves_limit < members->graves_capacity);
        at = members->graves_limit++;
    }
    members->graves[at] = (pls_dead){gossip->now_ns, member, list->newest, PLS_INDEX_NONE};
    if (list->newest != PLS_INDEX_NONE) {
        members->graves[list->newest].newer = at;
    } else {
        list->oldest = at;
    }
    list->newest = at;
    pls_index_set(&members->grave_of, member, at);
}

static void grave_close(pls_members *members, pls_member member, pls_member_state state)
{
    pls_dead_list *list = list_of(members, state);
    uint32_t at = pls_index_get(&members->grave_of, member);
    pls_assert(at != PLS_INDEX_NONE);
    pls_dead *grave = &members->graves[at];
    if (grave->older != PLS_INDEX_NONE) {
        members->graves[grave->older].newer = grave->newer;
    } else {
        list->oldest = grave->newer;
    }
    if (grave->newer != PLS_INDEX_NONE) {
        members->graves[grave->newer].older = grave->older;
    } else {
        list->newest = grave->older;
    }
    grave->newer = members->graves_free;
    members->graves_free = at;
    pls_index_remove(&members->grave_of, member);
}

static pls_err entries_reserve(pls_gossip *gossip, pls_member member)
{
    pls_members *members = &gossip->members;
    if (member < members->capacity) {
        return PLS_OK;
    }
    /* As many as the pool has, so that instances that share a filled pool grow once; or an eighth
     * more than is needed. */
    uint32_t capacity = pls_identities_limit(gossip->pool);
    if (capacity < members->capacity + members->capacity / 8) {
        capacity = members->capacity + members->capacity / 8;
    }
    if (capacity <= member) {
        capacity = member + 1;
    }
    pls_entry *entries =
        pls_heap_resize(&gossip->heap, members->entries, members->capacity * sizeof *entries,
                        capacity * sizeof *entries);
    if (entries == NULL) {
        return PLS_ENOMEM;
    }
    memset(entries + members->capacity, 0, (capacity - members->capacity) * sizeof *entries);
    members->entries = entries;
    members->capacity = capacity;
    return PLS_OK;
}

pls_err pls_members_reserve(pls_gossip *gossip, pls_member member)
{
    pls_members *members = &gossip->members;
    pls_err err = entries_reserve(gossip, member);
    if (err != PLS_OK || pls_index_get(&members->grave_of, member) != PLS_INDEX_NONE ||
        members->graves_free != PLS_INDEX_NONE) {
        return err != PLS_OK ? err : pls_index_reserve(&members->grave_of, &gossip->heap);
    }
    void *graves = members->graves;
    err = pls_heap_reserve(&gossip->heap, &graves, &members->graves_capacity,
                           members->graves_limit + 1, sizeof(pls_dead));
    members->graves = graves;
    return err != PLS_OK ? err : pls_index_reserve(&members->grave_of, &gossip->heap);
}

static uint64_t names_version(const pls_gossip *gossip, pls_member member, pls_entry entry)
{
    if ((entry & PLS_ENTRY_NAMED) == 0) {
        return 0;
    }
    uint32_t log = pls_registry_log(&gossip->registry, member);
    return log == PLS_INDEX_NONE ? 0 : gossip->registry.logs[log].version;
}

static void digest_add(pls_members *members, uint64_t key, uint64_t hash)
{
    members->buckets[pls_members_bucket(key, PLS_BUCKETS_MAX)] += hash;
    members->digest += hash;
}

void pls_members_set(pls_gossip *gossip, pls_member member, pls_member_state state,
                     uint64_t incarnation)
{
    pls_members *members = &gossip->members;
    pls_assert(member < members->capacity);
    pls_assert(incarnation <= PLS_INCARNATION_MAX);
    pls_entry old = members->entries[member];
    pls_member_state was = pls_entry_state(old);
    uint64_t key = pls_gossip_key_of(gossip, member);
    uint64_t version = names_version(gossip, member, old);
    if (pls_state_is_live(was)) {
        digest_add(members, key, 0 - pls_members_hash(key, pls_entry_incarnation(old), version));
    }
    if (pls_state_is_live(state)) {
        digest_add(members, key, pls_members_hash(key, incarnation, version));
    }
    if (was != state) {
        members->counts[was] -= was != PLS_MEMBER_UNKNOWN;
        members->counts[state] += state != PLS_MEMBER_UNKNOWN;
        if (was == PLS_MEMBER_DEAD || was == PLS_MEMBER_LEFT) {
            grave_close(members, member, was);
        }
        if (state == PLS_MEMBER_DEAD || state == PLS_MEMBER_LEFT) {
            grave_open(gossip, member, state);
        }
    }
    pls_entry flags = state == PLS_MEMBER_UNKNOWN ? 0 : old & (PLS_ENTRY_NAMED | PLS_ENTRY_LISTED);
    members->entries[member] = incarnation << PLS_ENTRY_INCARNATION_SHIFT | flags | state;
    if (state == PLS_MEMBER_UNKNOWN) {
        members->entries[member] = 0;
        pls_identities_release(gossip->pool, member);
    }
}

void pls_members_renamed(pls_gossip *gossip, pls_member member, uint64_t old_version,
                         uint64_t new_version)
{
    pls_members *members = &gossip->members;
    pls_entry entry = pls_members_entry(members, member);
    if (!pls_state_is_live(pls_entry_state(entry))) {
        return;
    }
    uint64_t key = pls_gossip_key_of(gossip, member);
    uint64_t incarnation = pls_entry_incarnation(entry);
    digest_add(members, key,
               pls_members_hash(key, incarnation, new_version) -
                   pls_members_hash(key, incarnation, old_version));
}

uint64_t pls_members_since(const pls_members *members, pls_member member)
{
    uint32_t at = pls_index_get(&members->grave_of, member);
    pls_assert(at != PLS_INDEX_NONE);
    return members->graves[at].since_ns;
}

bool pls_members_may_pick(const pls_gossip *gossip, pls_member member, uint32_t who)
{
    if (member == gossip->self) {
        return false;
    }
    switch (pls_members_state(&gossip->members, member)) {
    case PLS_MEMBER_ALIVE:
        return (who & PLS_PICK_ALIVE) != 0;
    case PLS_MEMBER_SUSPECT:
        return (who & PLS_PICK_SUSPECT) != 0;
    case PLS_MEMBER_DEAD:
        return (who & PLS_PICK_DEAD) != 0 ||
               ((who & PLS_PICK_DYING) != 0 &&
                gossip->now_ns - pls_members_since(&gossip->members, member) <
                    gossip->config.gossip_to_dead_ns);
    default:
        return false;
    }
}

static bool pick_one(const pls_gossip *gossip, pls_member member, uint32_t who, pls_member except,
                     const pls_member *picked, uint32_t picked_count)
{
    if (member == except || !pls_members_may_pick(gossip, member, who)) {
        return false;
    }
    for (uint32_t i = 0; i < picked_count; i++) {
        if (picked[i] == member) {
            return false;
        }
    }
    return true;
}

uint32_t pls_members_pick(pls_gossip *gossip, uint32_t who, pls_member except, uint32_t count,
                          pls_member *picked)
{
    uint32_t limit = gossip->members.capacity;
    uint32_t found = 0;
    for (uint32_t i = 0; i < count * PICK_TRIES && found < count; i++) {
        pls_member member = pls_rng_below(&gossip->rng, limit);
        if (pick_one(gossip, member, who, except, picked, found)) {
            picked[found++] = member;
        }
    }
    if (found == count) {
        return found;
    }
    pls_member start = pls_rng_below(&gossip->rng, limit);
    for (uint32_t i = 0; i < limit && found < count; i++) {
        pls_member member = start + i < limit ? start + i : start + i - limit;
        if (pick_one(gossip, member, who, except, picked, found)) {
            picked[found++] = member;
        }
    }
    return found;
}

pls_member pls_members_expired(const pls_gossip *gossip)
{
    const pls_members *members = &gossip->members;
    uint32_t left = members->left.oldest;
    uint32_t dead = members->dead.oldest;
    if (members->counts[PLS_MEMBER_DEAD] + members->counts[PLS_MEMBER_LEFT] >
        gossip->config.dead_max) {
        return members->graves[left != PLS_INDEX_NONE ? left : dead].member;
    }
    if (left != PLS_INDEX_NONE &&
        gossip->now_ns - members->graves[left].since_ns >= gossip->config.left_keep_ns) {
        return members->graves[left].member;
    }
    if (dead != PLS_INDEX_NONE &&
        gossip->now_ns - members->graves[dead].since_ns >= gossip->config.dead_keep_ns) {
        return members->graves[dead].member;
    }
    return PLS_MEMBER_NONE;
}

uint64_t pls_members_expiry_ns(const pls_gossip *gossip)
{
    const pls_members *members = &gossip->members;
    if (members->counts[PLS_MEMBER_DEAD] + members->counts[PLS_MEMBER_LEFT] >
        gossip->config.dead_max) {
        return gossip->now_ns;
    }
    uint64_t next_ns = UINT64_MAX;
    if (members->left.oldest != PLS_INDEX_NONE) {
        next_ns = members->graves[members->left.oldest].since_ns + gossip->config.left_keep_ns;
    }
    if (members->dead.oldest != PLS_INDEX_NONE) {
        uint64_t dead_ns =
            members->graves[members->dead.oldest].since_ns + gossip->config.dead_keep_ns;
        next_ns = dead_ns < next_ns ? dead_ns : next_ns;
    }
    return next_ns;
}

static void check_list(const pls_members *members, pls_member_state state)
{
    const pls_dead_list *list = state == PLS_MEMBER_DEAD ? &members->dead : &members->left;
    uint32_t count = 0;
    uint32_t older = PLS_INDEX_NONE;
    for (uint32_t at = list->oldest; at != PLS_INDEX_NONE; at = members->graves[at].newer) {
        const pls_dead *grave = &members->graves[at];
        pls_assert(grave->older == older);
        pls_assert(pls_members_state(members, grave->member) == state);
        pls_assert(pls_index_get(&members->grave_of, grave->member) == at);
        pls_assert(older == PLS_INDEX_NONE || members->graves[older].since_ns <= grave->since_ns);
        older = at;
        count++;
    }
    pls_assert(list->newest == older);
    pls_assert(count == members->counts[state]);
}

void pls_members_check(const pls_gossip *gossip)
{
    const pls_members *members = &gossip->members;
    uint32_t counts[PLS_MEMBER_LEFT + 1] = {0};
    uint64_t buckets[PLS_BUCKETS_MAX] = {0};
    uint64_t digest = 0;
    for (pls_member m = 0; m < members->capacity; m++) {
        pls_entry entry = members->entries[m];
        pls_member_state state = pls_entry_state(entry);
        pls_assert(state <= PLS_MEMBER_LEFT);
        pls_assert((entry & PLS_ENTRY_LISTED) == 0);
        pls_assert(state != PLS_MEMBER_UNKNOWN || entry == 0);
        if (state == PLS_MEMBER_UNKNOWN) {
            continue;
        }
        counts[state]++;
        pls_assert(pls_entry_incarnation(entry) >= 1);
        if (pls_state_is_live(state)) {
            uint64_t key = pls_gossip_key_of(gossip, m);
            uint64_t hash = pls_members_hash(key, pls_entry_incarnation(entry),
                                             names_version(gossip, m, entry));
            buckets[pls_members_bucket(key, PLS_BUCKETS_MAX)] += hash;
            digest += hash;
        }
    }
    pls_assert(memcmp(counts, members->counts, sizeof counts) == 0);
    pls_assert(memcmp(buckets, members->buckets, sizeof buckets) == 0);
    pls_assert(digest == members->digest);
    check_list(members, PLS_MEMBER_DEAD);
    check_list(members, PLS_MEMBER_LEFT);
}
