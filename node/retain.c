/* SPDX-License-Identifier: Apache-2.0 */
/* Copies of what was sent to actors with a restart policy, until the receiver has recorded that it
 * starts: in one of the started words of the pair's ring, whose numbers are lent to targets. All
 * messages that are kept for a link are numbered in one sequence, and a word only ever rises. So a
 * number may go to another target as soon as its holder has nothing that is kept: what the word
 * holds, and what a late start may still store there, is lower than all that comes. Who finds no
 * number waits until one is free. Invariants: a copy is dropped only when the word has passed it,
 * and goes again only after the death of whoever had it; a number has one holder. */
#include "node/runtime_parts.h"

#include "base/assert.h"

#include <stdlib.h>
#include <string.h>

/* Words rise without a bell: whoever waits for one looks again after this. */
#define AGAIN_NS 1000000

struct pls_retain {
    uint64_t seq;  /* of the message that was kept last */
    uint32_t used; /* numbers that were ever lent */
    uint32_t next; /* where the search for an idle one begins */
    bool spent;    /* the last search was in vain: no other before the starved look again */
    pulsing_target *holders[PLS_STARTED_MAX]; /* NULL: given back */
};

static uint64_t started_word(const pulsing *p, const pulsing_target *target)
{
    const pls_link *link = &p->links[target->slot];
    bool known = target->has_retain_index && link->outbox != NULL && link->epoch == target->epoch;
    return known ? pls_outbox_started_load(link->outbox, target->retain_index) : 0;
}

bool pls_retain_idle(pulsing *p, pulsing_target *target)
{
    uint64_t started = target->retained.count > 0 ? started_word(p, target) : 0;
    while (target->retained.first != NULL && target->retained.first->retain_seq <= started) {
        pls_parcel_free(p, pls_parcels_pop(&target->retained));
    }
    return target->retained.count == 0;
}

uint32_t pls_retain_count(pulsing *p)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < PLS_BUCKETS; i++) {
        for (pulsing_target *target = p->targets[i]; target != NULL; target = target->next) {
            if (target->state == PLS_TARGET_UP) {
                (void)pls_retain_idle(p, target);
            }
            count += target->retained.count;
        }
    }
    return count;
}

void pls_retain_leave(pulsing *p, pulsing_target *target)
{
    pls_retain *retain = p->links[target->slot].retain;
    if (target->has_retain_index && retain != NULL &&
        retain->holders[target->retain_index] == target) {
        retain->holders[target->retain_index] = NULL;
        retain->spent = false;
    }
    target->has_retain_index = false;
}

void pls_retain_forget(pulsing *p, pulsing_target *target)
{
    pls_parcel *parcel = NULL;
    while ((parcel = pls_parcels_pop(&target->retained)) != NULL) {
        pls_parcel_free(p, parcel);
    }
    pls_retain_leave(p, target);
}

/* A number that nobody needs: never lent, given back, or of a target with nothing kept. While a
 * message is being written into a ring no number is taken away: it may be for that one. */
static bool number_find(pulsing *p, pls_retain *retain, uint32_t *index_out)
{
    if (retain->spent) {
        return false;
    }
    if (retain->used < PLS_STARTED_MAX) {
        *index_out = retain->used++;
        return true;
    }
    for (uint32_t i = 0; i < PLS_STARTED_MAX; i++) {
        uint32_t index = retain->next;
        retain->next = (index + 1) % PLS_STARTED_MAX;
        pulsing_target *holder = retain->holders[index];
        if (holder == NULL || (!p->ring_taken && pls_retain_idle(p, holder))) {
            *index_out = index;
            return true;
        }
    }
    retain->spent = !p->ring_taken;
    return false;
}

static void starved_add(pulsing *p, pulsing_target *target)
{
    if (target->starved) {
        return;
    }
    target->starved = true;
    target->references++;
    target->next_starved = NULL;
    if (p->starved_last != NULL) {
        p->starved_last->next_starved = target;
    } else {
        p->starved_first = target;
        if (p->on.wake_after != NULL) {
            p->on.wake_after(p->on.context, AGAIN_NS);
        }
    }
    p->starved_last = target;
}

bool pls_retain_ready(pulsing *p, pulsing_target *target)
{
    pls_link *link = &p->links[target->slot];
    bool elsewhere = link->state != PLS_LINK_NONE && link->epoch != target->epoch;
    if (target->has_retain_index || target->slot == pulsing_slot(p) || elsewhere) {
        return true; /* from elsewhere it does not leave: pls_link_get() says so */
    }
    uint32_t index = 0;
    if (link->retain == NULL) {
        link->retain = calloc(1, sizeof *link->retain);
    }
    if (link->retain == NULL || !number_find(p, link->retain, &index)) {
        starved_add(p, target);
        return false;
    }
    pulsing_target *before = link->retain->holders[index];
    link->retain->holders[index] = target;
    target->retain_index = (uint16_t)index;
    target->has_retain_index = true;
    if (before != NULL) {
        before->has_retain_index = false;
        before->references++;
        pulsing_target_release(before); /* nobody may refer to it any more */
    }
    return true;
}

void pls_retain_starved(pulsing *p)
{
    pulsing_target *target = p->starved_first;
    p->starved_first = NULL;
    p->starved_last = NULL;
    for (const pulsing_target *at = target; at != NULL; at = at->next_starved) {
        pls_retain *retain = p->links[at->slot].retain;
        if (retain != NULL) {
            retain->spent = false;
        }
    }
    while (target != NULL) {
        pulsing_target *next = target->next_starved;
        target->starved = false;
        pls_target_flush(p, target);
        pulsing_target_release(target);
        target = next;
    }
    /* The wake for these has taken the place of one for a death that has begun. */
    if (p->starved_first == NULL && p->dying_count > 0 && p->on.wake_after != NULL) {
        p->on.wake_after(p->on.context, PLS_DYING_GRACE_NS);
    }
}

pls_err pls_retain_add(pulsing *p, pulsing_target *target, const pls_leaving *leaving)
{
    if (!target->has_retain_index) {
        return PLS_EDEAD; /* it moved while the message was being written */
    }
    pls_retain *retain = p->links[target->slot].retain;
    pls_assert(retain != NULL && retain->holders[target->retain_index] == target);
    (void)pls_retain_idle(p, target);
    pls_wire_request head;
    memcpy(&head, leaving->bytes, sizeof head);
    head.flags |= PLS_REQUEST_RETAINED;
    head.retain_index = target->retain_index;
    head.retain_seq = ++retain->seq;
    memcpy(leaving->bytes, &head, sizeof head);
    pls_parcel *copy =
        pls_parcel_new(leaving->bytes, leaving->len, PLS_WIRE_REQUEST, leaving->flags);
    if (copy == NULL) {
        return PLS_ENOMEM;
    }
    copy->retain_seq = head.retain_seq;
    copy->call_id = leaving->call_id;
    if (leaving->block != NULL) {
        pls_arena_hold(p->arena, leaving->block);
        copy->block = leaving->block;
        copy->block_bytes = leaving->block_bytes;
    }
    pls_parcels_push(&target->retained, copy);
    return PLS_OK;
}
