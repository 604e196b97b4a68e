/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PLS_GOSSIP_MEMBERS_H
#define PLS_GOSSIP_MEMBERS_H

#include "gossip/gossip.h"
#include "gossip/heap.h"
#include "gossip/index.h"
#include "gossip/wire.h"

/* Threads: owner thread for every function of this header; none blocks. */

/* One member as one number: 3 bits of state, 5 of flags, 56 of incarnation. At ten thousand nodes
 * in one process there are a hundred million of these. */
typedef uint64_t pls_entry;

#define PLS_ENTRY_NAMED (UINT64_C(1) << 3)  /* it has a log of names */
#define PLS_ENTRY_LISTED (UINT64_C(1) << 4) /* seen in the listing that is being compared */
#define PLS_ENTRY_INCARNATION_SHIFT 8

_Static_assert(PLS_INCARNATION_MAX == UINT64_MAX >> PLS_ENTRY_INCARNATION_SHIFT,
               "an entry holds every incarnation");

/* A dead or left member's place in its list, oldest first. */
typedef struct pls_dead {
    uint64_t since_ns;
    pls_member member;
    uint32_t older;
    uint32_t newer;
} pls_dead;

typedef struct pls_dead_list {
    uint32_t oldest; /* PLS_INDEX_NONE: empty */
    uint32_t newest;
} pls_dead_list;

typedef struct pls_members {
    pls_entry *entries; /* by member number */
    uint32_t capacity;
    uint32_t counts[PLS_MEMBER_LEFT + 1];
    pls_dead *graves;
    uint32_t graves_capacity;
    uint32_t graves_limit;
    uint32_t graves_free; /* linked by `newer` */
    pls_dead_list dead;
    pls_dead_list left;
    pls_index grave_of;
    uint64_t digest;                   /* sum of all buckets */
    uint64_t buckets[PLS_BUCKETS_MAX]; /* sums of the live members' hashes, by key */
} pls_members;

static inline pls_member_state pls_entry_state(pls_entry entry)
{
    return (pls_member_state)(entry & 7);
}

static inline uint64_t pls_entry_incarnation(pls_entry entry)
{
    return entry >> PLS_ENTRY_INCARNATION_SHIFT;
}

static inline bool pls_state_is_live(pls_member_state state)
{
    return state == PLS_MEMBER_ALIVE || state == PLS_MEMBER_SUSPECT;
}

static inline pls_entry pls_members_entry(const pls_members *members, pls_member member)
{
    return member < members->capacity ? members->entries[member] : 0;
}

static inline pls_member_state pls_members_state(const pls_members *members, pls_member member)
{
    return pls_entry_state(pls_members_entry(members, member));
}

static inline uint64_t pls_members_incarnation(const pls_members *members, pls_member member)
{
    return pls_entry_incarnation(pls_members_entry(members, member));
}

static inline uint32_t pls_members_live_count(const pls_members *members)
{
    return members->counts[PLS_MEMBER_ALIVE] + members->counts[PLS_MEMBER_SUSPECT];
}

/* An empty table, and the end of one: every identity is released. */
void pls_members_init(pls_members *members);
void pls_members_fini(pls_gossip *gossip);

/* Make room for an entry, and for its grave when it comes to that; after this,
 * pls_members_set on `member` cannot fail. Errors:  PLS_ENOMEM. */
PLS_MUST_USE pls_err pls_members_reserve(pls_gossip *gossip, pls_member member);

/* The one place where a state or an incarnation changes; keeps counts, lists and digest.
 * From UNKNOWN it takes one reference on the identity, to UNKNOWN it gives it back. */
void pls_members_set(pls_gossip *gossip, pls_member member, pls_member_state state,
                     uint64_t incarnation);

/* The names of a live member have another version now. */
void pls_members_renamed(pls_gossip *gossip, pls_member member, uint64_t old_version,
                         uint64_t new_version);

/* What a live member adds to its bucket. */
uint64_t pls_members_hash(uint64_t key, uint64_t incarnation, uint64_t names_version);

/* The bucket of a key among `bucket_count`. */
static inline uint32_t pls_members_bucket(uint64_t key, uint32_t bucket_count)
{
    return (uint32_t)(key >> 56) & (bucket_count - 1);
}

/* Who may be picked. */
#define PLS_PICK_ALIVE 1u
#define PLS_PICK_SUSPECT 2u
#define PLS_PICK_DYING 4u /* dead for less than gossip_to_dead_ns */
#define PLS_PICK_DEAD 8u

/* Whether `member` is one of them and not myself. */
bool pls_members_may_pick(const pls_gossip *gossip, pls_member member, uint32_t who);

/* Pick up to `count` different members at random, never myself nor `except`.
 * Units:   returns how many were picked. */
uint32_t pls_members_pick(pls_gossip *gossip, uint32_t who, pls_member except, uint32_t count,
                          pls_member *picked);

/* When a dead or left member became so. Units: ns; the member must be dead or left. */
uint64_t pls_members_since(const pls_members *members, pls_member member);

/* The dead or left member to forget next: the oldest that is due, or the oldest at all when there
 * are more than dead_max; PLS_MEMBER_NONE when there is nothing to forget. */
pls_member pls_members_expired(const pls_gossip *gossip);

/* When pls_members_expired should be asked again; UINT64_MAX never. */
uint64_t pls_members_expiry_ns(const pls_gossip *gossip);

/* Assert the table, its counts, lists and digest against one another. */
void pls_members_check(const pls_gossip *gossip);

#endif
