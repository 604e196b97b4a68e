/* SPDX-License-Identifier: Apache-2.0 */
/* Actors hosted in this process: a table, and a mailbox each. A request that finds its actor free
 * is handled where it lies, in the ring; else it is copied into the mailbox. Invariants: messages
 * of one sender start in order; no more than `concurrency_max` are being handled; for restartable
 * actors the start is recorded before the handler runs; every request is answered or counted. */
#include "node/runtime_parts.h"
#include "node/watch_hot.h"

#include "base/assert.h"
#include "base/mutant.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Actors are stopped and watched through the actor number 0 of their process. */
#define UNABLE_TEXT                                                                                \
    "the actor lives in a C program, which stops and watches none for others: "                    \
    "give it a method that stops it"

static uint32_t bucket(uint64_t id)
{
    return (uint32_t)id % PLS_BUCKETS;
}

pulsing_actor *pls_actor_find(const pulsing *p, uint64_t id)
{
    pulsing_actor *actor = p->actors[bucket(id)];
    while (actor != NULL && actor->id != id) {
        actor = actor->next;
    }
    return actor;
}

static void counts_publish(pulsing *p)
{
    atomic_store_explicit(&p->info->directory->lines[pulsing_slot(p)].actor_count, p->actor_count,
                          memory_order_relaxed);
}

pls_err pulsing_actor_add(pulsing *p, const pulsing_actor_options *options,
                          pulsing_actor **actor_out)
{
    uint64_t id = options->id;
    if (id == 0) {
        id = pls_actor_id(pulsing_slot(p), pulsing_epoch(p), ++p->actor_counter);
    } else if (pls_actor_find(p, id) != NULL) {
        return PLS_EEXIST;
    }
    pulsing_actor *actor = calloc(1, sizeof *actor);
    if (actor == NULL) {
        return PLS_ENOMEM;
    }
    actor->id = id;
    actor->user = options->user;
    actor->mailbox_max = options->mailbox_max > 0 ? options->mailbox_max : 1;
    actor->concurrency_max = options->concurrency_max > 0 ? options->concurrency_max : 1;
    actor->overflow = options->overflow;
    actor->next = p->actors[bucket(id)];
    p->actors[bucket(id)] = actor;
    if ((uint32_t)id != 0) {
        p->actor_count++;
        counts_publish(p);
    } else {
        p->serves = true;
    }
    pls_watch_actor_open(p, actor);
    *actor_out = actor;
    return PLS_OK;
}

uint64_t pulsing_actor_id_of(const pulsing_actor *actor)
{
    return actor->id;
}

void pulsing_actor_name(pulsing_actor *actor, const char *name, uint8_t name_bytes)
{
    actor->name = name;
    actor->name_bytes = name_bytes;
}

uint32_t pulsing_actor_queued(const pulsing_actor *actor)
{
    return actor->mailbox.count;
}

uint32_t pulsing_actor_running(const pulsing_actor *actor)
{
    return actor->running;
}

uint32_t pulsing_actor_count(const pulsing *p)
{
    return p->actor_count;
}

void pls_actor_raised(pulsing *p, const pulsing_origin *origin)
{
    pls_watch_raised(p, pls_actor_find(p, origin->actor_id), origin);
}

void pulsing_handler_raised(pulsing *p, const pulsing_origin *origin, const char *text, size_t len)
{
    pls_watch_error(p, text, len);
    if (origin->call_id == 0) {
        pls_actor_raised(p, origin);
    }
}

/* Ends a request without a handler: an answer if somebody waits, else a counted dead letter. */
static void refuse(pulsing *p, pulsing_actor *actor, const pls_arrival *arrival,
                   const pulsing_origin *origin, pulsing_status status, const char *text)
{
    if (actor != NULL) {
        pls_watch_refused(p, actor);
    }
    if (arrival->foreign) {
        pls_block_decline(p, arrival->slot, arrival->epoch, &arrival->descriptor);
    }
    if (origin->call_id != 0) {
        pls_send_text(p, origin, status, text);
        return;
    }
    pls_dead_letter(p, status);
    pls_started_taken(p, arrival);
    if (actor != NULL && origin->credit > 0) {
        pls_owe(p, actor, arrival);
    } else if (origin->credit > 0) {
        pls_link_signal(p, arrival->slot, arrival->epoch, PLS_WIRE_CREDIT, origin->actor_id, 1);
    }
}

static void actor_free(pulsing *p, pulsing_actor *actor)
{
    pls_parcel *parcel = NULL;
    while ((parcel = pls_parcels_pop(&actor->mailbox)) != NULL) {
        pls_parcel_free(p, parcel);
    }
    free(actor->watch.runs);
    free(actor->owed);
    free(actor);
}

static void actor_leave(pulsing *p, pulsing_actor *actor)
{
    actor->entered--;
    if (actor->entered == 0 && actor->running == 0 && actor->removed && !actor->runnable) {
        actor_free(p, actor);
    }
}

static void drained_check(pulsing *p, pulsing_actor *actor)
{
    if (actor->stopping && !actor->drained && actor->running == 0 && actor->mailbox.count == 0) {
        actor->drained = true;
        p->on.drained(p->on.context, actor->user);
    }
}

/* Reads the fixed part of a request. PLS_EPROTO: the lengths do not fit. */
static pls_err request_read(const pls_arrival *arrival, pls_wire_request *head,
                            pulsing_message *message)
{
    if (arrival->len < sizeof *head) {
        return PLS_EPROTO;
    }
    memcpy(head, arrival->bytes, sizeof *head);
    uint32_t fixed = (uint32_t)sizeof *head + head->chain_bytes + head->method_bytes;
    if (arrival->len < fixed || head->chain_bytes > PLS_CHAIN_BYTES_MAX) {
        return PLS_EPROTO;
    }
    message->origin.call_id = head->call_id;
    message->origin.actor_id = head->actor_id;
    message->origin.slot = arrival->slot;
    message->origin.epoch = arrival->epoch;
    message->origin.credit = (head->flags & PLS_REQUEST_WINDOWED) != 0 ? 1 : 0;
    message->sender_id = head->sender_id;
    message->deadline_ns = head->deadline_ns;
    message->chain = arrival->bytes + sizeof *head;
    message->chain_bytes = head->chain_bytes;
    message->method = (const char *)message->chain + head->chain_bytes;
    message->method_bytes = head->method_bytes;
    message->context_bytes = head->context_bytes;
    message->status = PULSING_OK;
    return PLS_OK;
}

static void runnable_add(pulsing *p, pulsing_actor *actor)
{
    if (actor->runnable) {
        return;
    }
    actor->runnable = true;
    actor->next_runnable = NULL;
    if (p->runnable_last == NULL) {
        p->runnable_first = actor;
    } else {
        p->runnable_last->next_runnable = actor;
    }
    p->runnable_last = actor;
    if (!p->self_woken && p->on.wake != NULL && !p->polling) {
        p->self_woken = true;
        p->on.wake(p->on.context);
    }
}

static bool can_start(const pulsing_actor *actor)
{
    return !actor->held && !actor->removed && actor->running < actor->concurrency_max;
}

/* Starts one message. Records the start first: from here on it will not be sent again. */
static void start(pulsing *p, pulsing_actor *actor, const pls_arrival *arrival)
{
    pls_wire_request head;
    pulsing_message message = {0};
    if (request_read(arrival, &head, &message) != PLS_OK) {
        return;
    }
    if (head.deadline_ns != 0 && head.deadline_ns <= pulsing_now_ns()) {
        refuse(p, actor, arrival, &message.origin, PULSING_EXPIRED,
               "its deadline passed while it waited; it was not started");
        return;
    }
    uint32_t fixed = (uint32_t)sizeof head + head.chain_bytes + head.method_bytes;
    pls_err err = pls_message_payload(p, arrival, fixed, head.payload_bytes, &message);
    if (err != PLS_OK) {
        pulsing_block_release(message.block);
        refuse(p, actor, arrival, &message.origin, PULSING_BAD_MESSAGE, pls_err_text(err));
        return;
    }
    if (message.origin.call_id == 0) {
        pls_started_taken(p, arrival);
    }
    actor->running++;
    actor->entered++;
    p->handled_count += (uint32_t)actor->id != 0;
    pls_watch_run run;
    pls_watch_begin(p, actor, arrival, &message, &run);
    pulsing_taken taken = p->on.request(p->on.context, actor->user, &message);
    pulsing_block_release(message.block);
    if (taken == PULSING_DONE) {
        actor->running--;
        if (actor->mailbox.count > 0 && can_start(actor)) {
            runnable_add(p,
                         actor); /* it came while the handler looked, see pulsing_poll_inside() */
        }
    } else {
        actor->suspended = message.origin;
    }
    pls_watch_left(p, actor, &run, taken == PULSING_DONE);
    if (message.origin.call_id == 0 && message.origin.credit > 0) {
        pls_owe(p, actor, arrival);
    }
    actor_leave(p, actor);
}

static void start_recorded(pulsing *p, pulsing_actor *actor, const pls_arrival *arrival)
{
    if (pls_mutant(PLS_MUTANT_START_LATE)) {
        start(p, actor, arrival);
        pls_started_record(p, arrival);
        return;
    }
    pls_started_record(p, arrival);
    start(p, actor, arrival);
}

static pls_arrival arrival_of(const pls_parcel *parcel)
{
    pls_arrival arrival = {.bytes = parcel->bytes,
                           .len = parcel->len,
                           .epoch = parcel->epoch,
                           .seq = parcel->seq,
                           .sent = parcel->sent,
                           .slot = parcel->slot,
                           .type = parcel->type,
                           .flags = parcel->flags,
                           .foreign = parcel->foreign,
                           .descriptor = parcel->descriptor,
                           .refused_seq = parcel->retain_seq,
                           .own = parcel->block,
                           .opened = parcel->opened};
    return arrival;
}

static void mailbox_start(pulsing *p, pulsing_actor *actor)
{
    pls_parcel *parcel = pls_parcels_pop(&actor->mailbox);
    pls_arrival arrival = arrival_of(parcel);
    /* The lease goes with the arrival: it is opened, or declined, by start(). */
    parcel->foreign = false;
    pls_watch_queued(p, actor);
    start_recorded(p, actor, &arrival);
    pls_parcel_free(p, parcel);
}

static void actor_run(pulsing *p, pulsing_actor *actor)
{
    actor->entered++;
    for (uint32_t n = 0; n < PLS_SELF_BURST_MAX; n++) {
        if (actor->mailbox.count == 0 || !can_start(actor)) {
            break;
        }
        mailbox_start(p, actor);
    }
    if (actor->mailbox.count > 0 && can_start(actor)) {
        runnable_add(p, actor);
    }
    if (!actor->removed) {
        drained_check(p, actor);
    }
    actor_leave(p, actor);
}

void pls_actors_run(pulsing *p)
{
    pulsing_actor *actor = p->runnable_first;
    p->runnable_first = NULL;
    p->runnable_last = NULL;
    while (actor != NULL) {
        pulsing_actor *next = actor->next_runnable;
        actor->runnable = false;
        actor_run(p, actor);
        actor = next;
    }
}

static void enqueue(pulsing *p, pulsing_actor *actor, const pls_arrival *arrival,
                    const pulsing_origin *origin)
{
    pls_parcel *parcel =
        pls_parcel_new(arrival->bytes, arrival->len, arrival->type, arrival->flags);
    if (parcel == NULL) {
        pls_started_refused(p, &actor->mailbox, arrival);
        refuse(p, actor, arrival, origin, PULSING_MAILBOX_FULL, "out of memory");
        return;
    }
    parcel->slot = arrival->slot;
    parcel->epoch = arrival->epoch;
    parcel->seq = arrival->seq;
    parcel->sent = arrival->sent;
    parcel->foreign = arrival->foreign;
    parcel->descriptor = arrival->descriptor;
    if (arrival->own != NULL) {
        pls_arena_hold(p->arena, arrival->own);
        parcel->block = arrival->own;
    }
    pls_parcels_push(&actor->mailbox, parcel);
    pls_watch_queued(p, actor);
    if (can_start(actor)) {
        runnable_add(p, actor);
    }
}

bool pls_actor_has(const pulsing *p, const pulsing_actor *actor, uint32_t slot, uint32_t epoch,
                   uint64_t call_id)
{
    const pulsing_origin *now = &actor->suspended;
    if (now->call_id == call_id && now->slot == slot && now->epoch == epoch) {
        return true;
    }
    for (const pls_parcel *at = actor->mailbox.first; at != NULL; at = at->next) {
        pls_arrival waiting = arrival_of(at);
        pls_wire_request head;
        pulsing_message message = {0};
        if (at->slot == slot && at->epoch == epoch &&
            request_read(&waiting, &head, &message) == PLS_OK && head.call_id == call_id) {
            return true;
        }
    }
    return false;
}

static void oldest_drop(pulsing *p, pulsing_actor *actor)
{
    pls_parcel *parcel = pls_parcels_pop(&actor->mailbox);
    pls_arrival arrival = arrival_of(parcel);
    pls_wire_request head;
    pulsing_message message = {0};
    parcel->foreign = false;
    pls_started_record(p, &arrival);
    if (request_read(&arrival, &head, &message) == PLS_OK) {
        refuse(p, actor, &arrival, &message.origin, PULSING_MAILBOX_FULL,
               "dropped as the oldest: the mailbox was full");
    }
    pls_parcel_free(p, parcel);
}

/* False if the request was refused. */
static bool admit(pulsing *p, pulsing_actor *actor, const pls_arrival *arrival,
                  const pulsing_message *message)
{
    char text[PLS_TEXT_BYTES_MAX];
    if (message->chain_bytes > 0 && actor->running >= actor->concurrency_max &&
        pls_cycle_of_chain(p, actor->id, message, text, sizeof text)) {
        pls_started_refused(p, &actor->mailbox, arrival);
        refuse(p, actor, arrival, &message->origin, PULSING_DEADLOCK, text);
        return false;
    }
    if (actor->mailbox.count < actor->mailbox_max || actor->overflow == PULSING_WAIT) {
        return true;
    }
    if (actor->overflow == PULSING_DROP_OLDEST) {
        oldest_drop(p, actor);
        return true;
    }
    snprintf(text, sizeof text, "its mailbox of %u messages is full", actor->mailbox_max);
    pls_started_refused(p, &actor->mailbox, arrival);
    refuse(p, actor, arrival, &message->origin, PULSING_MAILBOX_FULL, text);
    return false;
}

void pls_actor_request(pulsing *p, const pls_arrival *arrival, bool defer)
{
    pls_wire_request head;
    pulsing_message message = {0};
    if (request_read(arrival, &head, &message) != PLS_OK) {
        pls_dead_letter(p, PULSING_BAD_MESSAGE);
        return;
    }
    pulsing_actor *actor = pls_actor_find(p, head.actor_id);
    if (actor == NULL && (uint32_t)head.actor_id == 0 && !p->serves &&
        message.origin.call_id != 0) {
        refuse(p, actor, arrival, &message.origin, PULSING_UNABLE, UNABLE_TEXT);
        return;
    }
    if (actor == NULL || actor->stopping) {
        pls_started_record(p, arrival);
        refuse(p, actor, arrival, &message.origin, PULSING_NO_ACTOR, "it has been stopped");
        return;
    }
    if (!defer && actor->mailbox.count == 0 && can_start(actor)) {
        start_recorded(p, actor, arrival);
        return;
    }
    if (pls_mutant(PLS_MUTANT_START_EARLY)) {
        pls_started_record(p, arrival);
    }
    if (admit(p, actor, arrival, &message)) {
        enqueue(p, actor, arrival, &message.origin);
    }
}

void pls_actor_cancel(pulsing *p, const pls_arrival *arrival, const pls_wire_signal *signal)
{
    pulsing_actor *actor = pls_actor_find(p, signal->value);
    if (actor == NULL) {
        return;
    }
    pulsing_origin origin = {signal->id, actor->id, arrival->epoch, arrival->slot, 0};
    pls_parcels rest = {0};
    pls_parcel *parcel = NULL;
    while ((parcel = pls_parcels_pop(&actor->mailbox)) != NULL) {
        pls_arrival waiting = arrival_of(parcel);
        pls_wire_request head;
        pulsing_message message = {0};
        bool his = parcel->slot == arrival->slot && parcel->epoch == arrival->epoch &&
                   request_read(&waiting, &head, &message) == PLS_OK && head.call_id == signal->id;
        if (!his) {
            pls_parcels_push(&rest, parcel);
            continue;
        }
        parcel->foreign = false;
        pls_started_refused(p, &rest, &waiting);
        refuse(p, actor, &waiting, &message.origin, PULSING_CANCELLED, "cancelled, not started");
        pls_parcel_free(p, parcel);
    }
    actor->mailbox = rest;
    p->on.cancel(p->on.context, actor->user, &origin);
}

void pulsing_actor_finished(pulsing *p, pulsing_actor *actor, const pulsing_origin *origin)
{
    pls_assert(actor->running > 0);
    actor->running--;
    pls_watch_finished(p, actor, origin);
    if (actor->removed) {
        actor->entered++;
        actor_leave(p, actor);
        return;
    }
    if (actor->mailbox.count > 0 && can_start(actor)) {
        runnable_add(p, actor);
        if (!p->polling) {
            p->polling = true;
            pls_actors_run(p);
            p->polling = false;
        }
    } else {
        drained_check(p, actor);
    }
}

void pulsing_actor_hold(pulsing *p, pulsing_actor *actor, bool hold)
{
    actor->held = hold;
    if (!hold && actor->mailbox.count > 0) {
        runnable_add(p, actor);
    }
}

static void mailbox_refuse(pulsing *p, pulsing_actor *actor, const char *text)
{
    pls_parcel *parcel = NULL;
    while ((parcel = pls_parcels_pop(&actor->mailbox)) != NULL) {
        pls_arrival arrival = arrival_of(parcel);
        pls_wire_request head;
        pulsing_message message = {0};
        parcel->foreign = false;
        pls_started_record(p, &arrival);
        if (request_read(&arrival, &head, &message) == PLS_OK) {
            refuse(p, actor, &arrival, &message.origin, PULSING_DIED, text);
        }
        pls_parcel_free(p, parcel);
    }
}

void pulsing_actor_stop(pulsing *p, pulsing_actor *actor, bool now)
{
    actor->stopping = true;
    if (now) {
        mailbox_refuse(p, actor, "it was stopped before this message was started");
    }
    drained_check(p, actor);
}

void pulsing_actor_remove(pulsing *p, pulsing_actor *actor, const char *text)
{
    pulsing_actor **at = &p->actors[bucket(actor->id)];
    while (*at != actor) {
        pls_assert(*at != NULL);
        at = &(*at)->next;
    }
    *at = actor->next;
    actor->removed = true;
    actor->stopping = true;
    actor->entered++;
    mailbox_refuse(p, actor, text);
    pls_owed_settle(p, actor);
    pls_watch_actor_close(p, actor);
    if ((uint32_t)actor->id != 0) {
        p->actor_count--;
        counts_publish(p);
    }
    actor_leave(p, actor);
}

void pls_actors_free(pulsing *p)
{
    for (pulsing_actor *actor = p->runnable_first; actor != NULL;) {
        pulsing_actor *next = actor->next_runnable;
        actor->runnable = false;
        if (actor->removed) {
            actor_free(p, actor);
        }
        actor = next;
    }
    for (uint32_t i = 0; i < PLS_BUCKETS; i++) {
        while (p->actors[i] != NULL) {
            pulsing_actor *actor = p->actors[i];
            p->actors[i] = actor->next;
            actor_free(p, actor);
        }
    }
}
