/* SPDX-License-Identifier: Apache-2.0 */
/* The order of a pass is a keyed permutation of all member numbers, computed and not stored: a list
 * of a few bytes for each member would be most of an instance's memory in a simulation. Numbers
 * that are nobody, or not wanted, are stepped over. */
#include "gossip/walk.h"

#include "base/assert.h"
#include "gossip/mutant.h"
#include "gossip/state.h"

/* Rounds of the permutation: each multiplies, adds and folds, which are bijections. */
#define PERMUTE_ROUNDS 3

/* A pass may end at once and the next one holds everybody. */
#define PASSES_MAX 2

static uint32_t permute(uint64_t key, uint32_t bits, uint32_t x)
{
    uint32_t mask = (UINT32_C(1) << bits) - 1;
    uint32_t fold = bits / 2 + 1;
    for (uint32_t round = 0; round < PERMUTE_ROUNDS; round++) {
        x = (x * ((uint32_t)key | 1) + (uint32_t)(key >> 32)) & mask;
        x ^= fold < bits ? x >> fold : 0;
        key = key * UINT64_C(0xd1342543de82ef95) + UINT64_C(0x632be59bd9b4e019);
    }
    return x;
}

static void pass_begin(pls_gossip *gossip, pls_walk *walk)
{
    uint32_t capacity = gossip->members.capacity;
    walk->bits = 1;
    while (walk->bits < 31 && (UINT32_C(1) << walk->bits) < capacity) {
        walk->bits++;
    }
    walk->at = 0;
    walk->key = pls_rng_next(&gossip->rng);
    if (pls_mutant(PLS_MUTANT_UNSEEDED)) {
        walk->key ^= (uint64_t)(uintptr_t)gossip >> 4;
    }
}

pls_member pls_walk_next(pls_gossip *gossip, pls_walk *walk, uint32_t who)
{
    const pls_members *members = &gossip->members;
    if (pls_members_live_count(members) + members->counts[PLS_MEMBER_DEAD] < 2) {
        return PLS_MEMBER_NONE;
    }
    for (uint32_t passes = 0; passes <= PASSES_MAX;) {
        if (walk->bits == 0 || walk->at >> walk->bits != 0) {
            pass_begin(gossip, walk);
            passes++;
        }
        pls_member member = permute(walk->key, walk->bits, walk->at++);
        if (pls_members_may_pick(gossip, member, who)) {
            return member;
        }
    }
    return PLS_MEMBER_NONE;
}
