/* SPDX-License-Identifier: Apache-2.0 */
/* Actors as their senders see them: where they live, and how many messages may be under way (the
 * window, which bounds the receiver's mailbox); retain.c has the copies for those with a restart
 * policy. Invariant: messages to a target leave in the order in which they were begun. */
#include "node/runtime_parts.h"

#include "base/assert.h"

#include <stdlib.h>
#include <string.h>

static uint32_t bucket(uint64_t id)
{
    return (uint32_t)((id ^ id >> 32) * 2654435761u) % PLS_BUCKETS;
}

pulsing_target *pls_target_find(pulsing *p, uint64_t actor_id)
{
    pulsing_target *target = p->targets[bucket(actor_id)];
    while (target != NULL && target->id != actor_id) {
        target = target->next;
    }
    return target;
}

pls_err pulsing_target_get(pulsing *p, uint64_t actor_id, uint32_t window, bool restartable,
                           pulsing_target **target_out)
{
    pulsing_target *target = pls_target_find(p, actor_id);
    if (target == NULL) {
        target = calloc(1, sizeof *target);
        if (target == NULL) {
            return PLS_ENOMEM;
        }
        target->p = p;
        target->id = actor_id;
        target->slot = (uint16_t)pls_actor_id_slot(actor_id);
        target->epoch = pls_actor_id_epoch(actor_id);
        target->window = window;
        target->restartable = restartable;
        target->next = p->targets[bucket(actor_id)];
        p->targets[bucket(actor_id)] = target;
    }
    target->references++;
    *target_out = target;
    return PLS_OK;
}

static void target_free(pulsing *p, pulsing_target *target)
{
    pls_retain_forget(p, target);
    if (target->far != NULL) {
        pls_far_forget(p, target->far);
    }
    free(target->dead_text);
    free(target);
}

void pulsing_target_release(pulsing_target *target)
{
    pls_assert(target->references > 0);
    target->references--;
    if (target->references > 0) {
        return;
    }
    (void)pls_retain_idle(target->p, target);
    /* One that moved or has messages under way is remembered: a later ref must know it. */
    bool moved = pls_actor_id_slot(target->id) != target->slot ||
                 pls_actor_id_epoch(target->id) != target->epoch ||
                 target->state == PLS_TARGET_MOVING;
    bool busy = target->in_flight > 0 || target->retained.count > 0;
    if (target->state != PLS_TARGET_DEAD && (moved || busy)) {
        return;
    }
    pulsing *p = target->p;
    pulsing_target **at = &p->targets[bucket(target->id)];
    while (*at != target) {
        at = &(*at)->next;
    }
    *at = target->next;
    target_free(p, target);
}

void pls_targets_free(pulsing *p)
{
    for (uint32_t i = 0; i < PLS_BUCKETS; i++) {
        for (pulsing_target *target = p->targets[i]; target != NULL; target = target->next) {
            pls_parcel *parcel = NULL;
            target->references++;
            while ((parcel = pls_parcels_pop(&target->waiting)) != NULL) {
                pls_parcel_free(p, parcel);
            }
        }
        while (p->targets[i] != NULL) {
            pulsing_target *target = p->targets[i];
            p->targets[i] = target->next;
            target_free(p, target);
        }
    }
}

uint64_t pulsing_target_id(const pulsing_target *target)
{
    return target->id;
}

uint32_t pulsing_target_slot(const pulsing_target *target)
{
    return target->slot;
}

uint32_t pulsing_target_epoch(const pulsing_target *target)
{
    return target->epoch;
}

uint32_t pulsing_target_window(const pulsing_target *target)
{
    return target->window;
}

bool pulsing_target_restartable(const pulsing_target *target)
{
    return target->restartable;
}

const char *pulsing_target_death(const pulsing_target *target)
{
    return target->state == PLS_TARGET_DEAD ? target->dead_text : NULL;
}

bool pls_target_may_leave(pulsing *p, pulsing_target *target)
{
    return target->state == PLS_TARGET_UP &&
           (target->window == 0 || target->in_flight < target->window) &&
           (!target->restartable || pls_retain_ready(p, target));
}

void pls_target_flush(pulsing *p, pulsing_target *target)
{
    target->references++;
    while (target->waiting.count > 0 && pls_target_may_leave(p, target)) {
        pls_parcel *parcel = pls_parcels_pop(&target->waiting);
        pls_waiting_sub(p, parcel);
        bool notify = parcel->notify;
        void *user = parcel->user;
        parcel->notify = false;
        pls_err err = pls_send_request(p, parcel);
        if (notify && (err == PLS_OK || err == PLS_EFULL)) {
            p->on.sent(p->on.context, user, PLS_OK);
        }
    }
    pulsing_target_release(target);
}

void pls_target_credit(pulsing *p, pulsing_target *target, uint32_t count)
{
    target->in_flight -= count < target->in_flight ? count : target->in_flight;
    if (target->waiting.count > 0 || target->references == 0) {
        pls_target_flush(p, target); /* which also lets go of one that nobody refers to */
    }
}

bool pls_target_unqueue(pulsing *p, pulsing_target *target, uint64_t call_id)
{
    pls_parcels rest = {0};
    pls_parcel *found = NULL;
    pls_parcel *parcel = NULL;
    while ((parcel = pls_parcels_pop(&target->waiting)) != NULL) {
        if (parcel->call_id == call_id && found == NULL) {
            found = parcel;
        } else {
            pls_parcels_push(&rest, parcel);
        }
    }
    target->waiting = rest;
    if (found == NULL) {
        return false;
    }
    pls_waiting_sub(p, found);
    pls_parcel_free(p, found);
    return true;
}

bool pls_target_holds(const pulsing_target *target, uint64_t call_id)
{
    const pls_parcel *parcel = target->waiting.first;
    while (parcel != NULL && parcel->call_id != call_id) {
        parcel = parcel->next;
    }
    return parcel != NULL;
}

/* Copies that will never go again. Of a process that lives they are in its ring or its mailbox, and
 * it refuses them, and counts, itself. */
static uint64_t retained_tells(pulsing *p, pulsing_target *target)
{
    pls_slot_state host = pls_directory_state(p->info->directory, target->slot, target->epoch);
    if (target->state == PLS_TARGET_UP && host != PLS_SLOT_DEAD && host != PLS_SLOT_FREE) {
        return 0;
    }
    uint64_t count = 0;
    (void)pls_retain_idle(p, target);
    for (const pls_parcel *copy = target->retained.first; copy != NULL; copy = copy->next) {
        count += copy->call_id == 0;
    }
    return count;
}

static void target_fail(pulsing *p, pulsing_target *target, pulsing_status status, const char *text)
{
    pls_parcel *parcel = NULL;
    target->references++;
    pls_dead_letters(p, status, retained_tells(p, target));
    target->state = PLS_TARGET_DEAD;
    target->unsettled = false;
    target->dead_status = status;
    if (target->dead_text == NULL) {
        target->dead_text = strdup(text);
    }
    while ((parcel = pls_parcels_pop(&target->waiting)) != NULL) {
        pls_waiting_sub(p, parcel);
        pls_send_failed(p, parcel, status, text);
    }
    for (uint32_t i = 0; i < p->calls_capacity; i++) {
        pls_call *call = &p->calls[i];
        bool ours = call->target == target && call->state != PLS_CALL_FREE;
        if (ours && call->state != PLS_CALL_STREAM) {
            pls_call_end(p, (uint64_t)call->gen << 32 | i, status, text);
        }
    }
    pls_retain_forget(p, target);
    pulsing_target_release(target);
}

static void mark_kept(pulsing *p, const pls_parcels *list)
{
    for (const pls_parcel *parcel = list->first; parcel != NULL; parcel = parcel->next) {
        pls_call *call = parcel->call_id != 0 ? pls_call_find(p, parcel->call_id) : NULL;
        if (call != NULL) {
            call->kept = true;
        }
    }
}

/* What was recorded as started is lost with its handler; the rest stays for the rebuilt actor. */
static void target_wait_for_rebuild(pulsing *p, pulsing_target *target)
{
    (void)pls_retain_idle(p, target);
    mark_kept(p, &target->retained);
    mark_kept(p, &target->waiting);
    target->state = PLS_TARGET_MOVING;
    target->in_flight = 0;
    pls_retain_leave(p, target);
    target->unsettled = false;
}

bool pls_target_lost_sight(pulsing *p, pulsing_target *target)
{
    if (!target->restartable || p->on.locate == NULL || target->state != PLS_TARGET_UP) {
        return false;
    }
    target->state = PLS_TARGET_MOVING;
    target->in_flight = 0;
    target->unsettled = true;
    p->on.locate(p->on.context, target->id);
    return true;
}

/* The end of a process is known better after it than while it was dying. */
static void death_retell(pulsing_target *target, const char *text)
{
    char *better = target->state == PLS_TARGET_DEAD && target->dead_status == PULSING_DIED
                       ? strdup(text)
                       : NULL;
    if (better != NULL) {
        free(target->dead_text);
        target->dead_text = better;
    }
}

/* The next target in a bucket that a death concerns. Ending one may free others, so the bucket is
 * searched anew each time; what was dealt with is no more UP, and settled. */
static pulsing_target *bereaved(pulsing_target *first, uint32_t slot, uint32_t epoch, bool dying)
{
    for (pulsing_target *target = first; target != NULL; target = target->next) {
        bool concerned = target->state == PLS_TARGET_UP || target->unsettled;
        if (target->slot == slot && target->epoch == epoch && concerned &&
            !(target->restartable && dying)) {
            return target;
        }
    }
    return NULL;
}

void pls_targets_slot_died(pulsing *p, uint32_t slot, uint32_t epoch, const char *text, bool dying)
{
    for (uint32_t i = 0; i < PLS_BUCKETS; i++) {
        pulsing_target *target = p->targets[i];
        for (; target != NULL; target = target->next) {
            if (target->slot == slot && target->epoch == epoch) {
                death_retell(target, text);
            }
        }
        while ((target = bereaved(p->targets[i], slot, epoch, dying)) != NULL) {
            if (target->restartable) {
                target_wait_for_rebuild(p, target);
            } else {
                target_fail(p, target, PULSING_DIED, text);
            }
        }
    }
}

void pulsing_target_kill(pulsing *p, uint64_t actor_id, pulsing_status status, const char *text)
{
    pulsing_target *target = pls_target_find(p, actor_id);
    if (target != NULL && target->state != PLS_TARGET_DEAD) {
        target_fail(p, target, status, text);
    }
}

/* A call that was cancelled or answered before its actor died is not made again. */
static bool still_wanted(pulsing *p, const pls_parcel *copy)
{
    const pls_call *call = copy->call_id != 0 ? pls_call_find(p, copy->call_id) : NULL;
    if (call != NULL && call->state == PLS_CALL_ABANDONED) {
        pls_call_close(p, copy->call_id);
        return false;
    }
    return call != NULL || copy->call_id == 0;
}

void pulsing_target_move(pulsing *p, uint64_t actor_id, uint32_t slot, uint32_t epoch)
{
    pulsing_target *target = pls_target_find(p, actor_id);
    if (target == NULL) {
        if (pulsing_target_get(p, actor_id, 0, true, &target) != PLS_OK) {
            return;
        }
        target->references--;
    }
    if (target->state == PLS_TARGET_DEAD ||
        (target->state == PLS_TARGET_UP && target->slot == slot && target->epoch == epoch)) {
        return;
    }
    if (target->state == PLS_TARGET_UP || target->unsettled) {
        /* The notice of the new place has overtaken the bell of the death. */
        target_wait_for_rebuild(p, target);
    }
    target->references++;
    pls_retain_leave(p, target);
    target->slot = (uint16_t)slot;
    target->epoch = epoch;
    target->state = PLS_TARGET_UP;
    target->in_flight = 0;
    /* Everything kept goes again through the front of the waiting queue, so that order holds. */
    pls_parcels again = target->retained;
    target->retained = (pls_parcels){0};
    pls_parcel *parcel = NULL;
    pls_parcels later = target->waiting;
    target->waiting = (pls_parcels){0};
    while ((parcel = pls_parcels_pop(&again)) != NULL) {
        if (!still_wanted(p, parcel)) {
            pls_parcel_free(p, parcel);
            continue;
        }
        target->references++;
        parcel->target = target;
        pls_parcels_push(&target->waiting, parcel);
        pls_waiting_add(p, parcel);
    }
    while ((parcel = pls_parcels_pop(&later)) != NULL) {
        pls_parcels_push(&target->waiting, parcel);
    }
    pls_target_flush(p, target);
    pulsing_target_release(target);
}
