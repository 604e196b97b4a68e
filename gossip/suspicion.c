/* SPDX-License-Identifier: Apache-2.0 */
/* The suspects and how long each may still refute: a dense array of records, an index by member and
 * a binary heap by deadline. The heap holds positions of records, and each record knows its place
 * in the heap, so that a confirmation moves one record only. */
#include "gossip/suspicion.h"

#include "base/assert.h"
#include "gossip/scale.h"
#include "gossip/state.h"

static void heap_place(pls_suspicions *s, uint32_t at, uint32_t item)
{
    s->heap[at] = item;
    s->items[item].heap_at = at;
}

static bool heap_before(const pls_suspicions *s, uint32_t a, uint32_t b)
{
    const pls_suspicion *x = &s->items[a];
    const pls_suspicion *y = &s->items[b];
    return x->deadline_ns < y->deadline_ns ||
           (x->deadline_ns == y->deadline_ns && x->member < y->member);
}

static void heap_sift(pls_suspicions *s, uint32_t at)
{
    uint32_t item = s->heap[at];
    while (at > 0 && heap_before(s, item, s->heap[(at - 1) / 2])) {
        heap_place(s, at, s->heap[(at - 1) / 2]);
        at = (at - 1) / 2;
    }
    for (;;) {
        uint32_t child = 2 * at + 1;
        if (child >= s->count) {
            break;
        }
        if (child + 1 < s->count && heap_before(s, s->heap[child + 1], s->heap[child])) {
            child++;
        }
        if (!heap_before(s, s->heap[child], item)) {
            break;
        }
        heap_place(s, at, s->heap[child]);
        at = child;
    }
    heap_place(s, at, item);
}

pls_suspicion *pls_suspicions_find(const pls_suspicions *suspicions, pls_member member)
{
    uint32_t at = pls_index_get(&suspicions->by_member, member);
    return at != PLS_INDEX_NONE ? &suspicions->items[at] : NULL;
}

pls_err pls_suspicions_reserve(pls_gossip *gossip)
{
    pls_suspicions *s = &gossip->suspicions;
    void *items = s->items;
    pls_err err = pls_heap_reserve(&gossip->heap, &items, &s->items_capacity, s->count + 1,
                                   sizeof(pls_suspicion));
    s->items = items;
    if (err != PLS_OK) {
        return err;
    }
    void *heap = s->heap;
    err = pls_heap_reserve(&gossip->heap, &heap, &s->heap_capacity, s->count + 1, sizeof(uint32_t));
    s->heap = heap;
    return err != PLS_OK ? err : pls_index_reserve(&s->by_member, &gossip->heap);
}

static uint64_t deadline_of(const pls_suspicion *suspicion)
{
    return suspicion->start_ns + pls_scale_suspicion(suspicion->min_ns, suspicion->max_ns,
                                                     suspicion->count, suspicion->expected);
}

void pls_suspicions_start(pls_gossip *gossip, pls_member member, uint64_t accuser)
{
    pls_suspicions *s = &gossip->suspicions;
    const pls_gossip_config *config = &gossip->config;
    pls_assert(s->count < s->items_capacity);
    pls_assert(pls_suspicions_find(s, member) == NULL);
    uint32_t live = pls_members_live_count(&gossip->members);
    uint32_t expected = 0;
    if (config->lha_suspicion && config->suspicion_alpha > 2) {
        expected = config->suspicion_alpha - 2;
        /* Who could confirm: everybody but me and the suspect. */
        if (live < expected + 2) {
            expected = 0;
        }
    }
    pls_suspicion made = {.start_ns = gossip->now_ns,
                          .asked_ns = gossip->now_ns,
                          .accusers = {accuser},
                          .member = member,
                          .expected = (uint8_t)expected};
    made.min_ns = pls_scale_suspicion_min(config->suspicion_alpha, live, config->probe_interval_ns);
    made.max_ns = config->lha_suspicion ? made.min_ns * config->suspicion_beta : made.min_ns;
    made.deadline_ns = deadline_of(&made);
    uint32_t at = s->count++;
    s->items[at] = made;
    s->heap[at] = at;
    pls_index_set(&s->by_member, member, at);
    heap_sift(s, at);
}

bool pls_suspicions_accused_by(const pls_suspicion *suspicion, uint64_t accuser)
{
    for (uint32_t i = 0; i <= suspicion->count; i++) {
        if (suspicion->accusers[i] == accuser) {
            return true;
        }
    }
    return false;
}

bool pls_suspicions_confirm(pls_gossip *gossip, pls_suspicion *suspicion, uint64_t accuser)
{
    if (suspicion->count >= suspicion->expected) {
        return false;
    }
    if (pls_suspicions_accused_by(suspicion, accuser)) {
        return false;
    }
    suspicion->accusers[++suspicion->count] = accuser;
    uint64_t deadline_ns = deadline_of(suspicion);
    if (deadline_ns < suspicion->deadline_ns) {
        suspicion->deadline_ns = deadline_ns;
        heap_sift(&gossip->suspicions, suspicion->heap_at);
    }
    return true;
}

void pls_suspicions_move(pls_gossip *gossip, pls_suspicion *suspicion, uint64_t deadline_ns)
{
    suspicion->deadline_ns = deadline_ns;
    heap_sift(&gossip->suspicions, suspicion->heap_at);
}

void pls_suspicions_restart(pls_gossip *gossip, pls_suspicion *suspicion)
{
    suspicion->start_ns = gossip->now_ns;
    pls_suspicions_move(gossip, suspicion, deadline_of(suspicion));
}

void pls_suspicions_cancel(pls_gossip *gossip, pls_member member)
{
    pls_suspicions *s = &gossip->suspicions;
    uint32_t at = pls_index_get(&s->by_member, member);
    if (at == PLS_INDEX_NONE) {
        return;
    }
    pls_index_remove(&s->by_member, member);
    uint32_t last = --s->count;
    uint32_t hole = s->items[at].heap_at;
    if (hole != last) {
        heap_place(s, hole, s->heap[last]);
        heap_sift(s, hole);
    }
    if (at != last) {
        s->items[at] = s->items[last];
        s->heap[s->items[at].heap_at] = at;
        pls_index_set(&s->by_member, s->items[at].member, at);
    }
}

void pls_suspicions_shift(pls_suspicions *suspicions, uint64_t by_ns)
{
    for (uint32_t i = 0; i < suspicions->count; i++) {
        suspicions->items[i].start_ns += by_ns;
        suspicions->items[i].deadline_ns += by_ns;
    }
}

uint64_t pls_suspicions_next_ns(const pls_suspicions *suspicions)
{
    return suspicions->count > 0 ? suspicions->items[suspicions->heap[0]].deadline_ns : UINT64_MAX;
}

pls_member pls_suspicions_next(const pls_suspicions *suspicions)
{
    pls_assert(suspicions->count > 0);
    return suspicions->items[suspicions->heap[0]].member;
}

void pls_suspicions_fini(pls_gossip *gossip)
{
    pls_suspicions *s = &gossip->suspicions;
    pls_heap_resize(&gossip->heap, s->items, s->items_capacity * sizeof(pls_suspicion), 0);
    pls_heap_resize(&gossip->heap, s->heap, s->heap_capacity * sizeof(uint32_t), 0);
    pls_index_fini(&s->by_member, &gossip->heap);
}

void pls_suspicions_check(const pls_gossip *gossip)
{
    const pls_suspicions *s = &gossip->suspicions;
    pls_assert(s->count == gossip->members.counts[PLS_MEMBER_SUSPECT]);
    for (uint32_t i = 0; i < s->count; i++) {
        const pls_suspicion *x = &s->items[i];
        pls_assert(pls_suspicions_find(s, x->member) == x);
        pls_assert(s->heap[x->heap_at] == i);
        pls_assert(pls_members_state(&gossip->members, x->member) == PLS_MEMBER_SUSPECT);
        pls_assert(x->member != gossip->self);
        pls_assert(x->count <= x->expected);
        if (x->heap_at > 0) {
            pls_assert(!heap_before(s, i, s->heap[(x->heap_at - 1) / 2]));
        }
    }
}
