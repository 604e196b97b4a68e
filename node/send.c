/* SPDX-License-Identifier: Apache-2.0 */
/* Writing messages. The common case is one reservation in the receiver's ring, filled in place by
 * the caller and published by one store. Everything else (no room, no credit, a restart under way,
 * a message to ourselves, a second message begun while the first is being written) goes through
 * private memory and a queue. Invariant: at most one reservation is open at a time. */
#include "node/runtime_parts.h"
#include "node/watch_hot.h"

#include "base/assert.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SCRATCH_BYTES 8192
_Static_assert(sizeof(pls_wire_request) + PLS_CHAIN_BYTES_MAX + PLS_NAME_BYTES_MAX +
                       PULSING_INLINE_BYTES_MAX <=
                   SCRATCH_BYTES,
               "one message fits");

static pls_err check_open(const pulsing *p)
{
    if (p->closed_text != NULL) {
        return PLS_ECLOSED;
    }
    return PLS_OK;
}

static uint8_t *scratch_take(pulsing *p)
{
    if (!p->scratch_taken) {
        p->scratch_taken = true;
        return p->scratch;
    }
    return malloc(SCRATCH_BYTES);
}

static void scratch_give(pulsing *p, uint8_t *base)
{
    if (base == p->scratch) {
        p->scratch_taken = false;
    } else {
        free(base);
    }
}

/* Whether a place is that of a process that was in this one's slot before. */
static bool is_predecessor(const pulsing *p, uint32_t slot, uint32_t epoch)
{
    return slot == pulsing_slot(p) && epoch != pulsing_epoch(p);
}

/* Finds memory for a message of `fixed_bytes` and a payload: in the ring if it may go there now. */
static pls_err room_find(pulsing *p, pulsing_send *send, bool direct)
{
    send->in_ring = false;
    if (direct && is_predecessor(p, send->slot, send->epoch)) {
        return PLS_EDEAD;
    }
    if (direct && !p->ring_taken && send->slot != pulsing_slot(p)) {
        pls_link *link = NULL;
        pls_err err = pls_link_get(p, send->slot, send->epoch, true, &link);
        if (err != PLS_OK) {
            return err;
        }
        uint32_t need = send->fixed_bytes + PULSING_INLINE_BYTES_MAX + sizeof(pls_descriptor);
        send->in_ring =
            link->queue.count == 0 && pls_outbox_reserve(link->outbox, need, &send->base) == PLS_OK;
    }
    if (send->in_ring) {
        p->ring_taken = true;
    } else {
        send->base = scratch_take(p);
        if (send->base == NULL) {
            return PLS_ENOMEM;
        }
    }
    send->at = send->base + send->fixed_bytes;
    send->capacity = PULSING_INLINE_BYTES_MAX;
    return PLS_OK;
}

static uint16_t chain_length(const pulsing_call *call)
{
    if (call->sender_name == NULL || call->tell) {
        return 0;
    }
    uint32_t own = (uint32_t)sizeof(pls_wire_link) + call->sender_name_bytes;
    uint32_t all = own + call->chain_bytes;
    return (uint16_t)(all <= PLS_CHAIN_BYTES_MAX ? all : own);
}

/* Writes head, chain (what led here, then the sender itself) and method. */
static void request_write(const pulsing_send *send, const pulsing_call *call,
                          const pls_wire_request *head)
{
    uint8_t *at = send->base;
    memcpy(at, head, sizeof *head);
    at += sizeof *head;
    if (head->chain_bytes > 0) {
        uint32_t own = (uint32_t)sizeof(pls_wire_link) + call->sender_name_bytes;
        uint32_t before = head->chain_bytes - own;
        if (before > 0) {
            memcpy(at, call->chain, before);
            at += before;
        }
        pls_wire_link link = {call->sender_id, head->call_id, call->sender_name_bytes};
        memcpy(at, &link, sizeof link);
        memcpy(at + sizeof link, call->sender_name, call->sender_name_bytes);
        at += own;
    }
    if (call->method_bytes > 0) {
        memcpy(at, call->method, call->method_bytes);
    }
}

pls_err pulsing_call_begin(pulsing *p, pulsing_target *target, const pulsing_call *call,
                           pulsing_send *send)
{
    pls_err err = check_open(p);
    if (err != PLS_OK) {
        return err;
    }
    if (target->state == PLS_TARGET_DEAD) {
        return PLS_EDEAD;
    }
    if (p->waiting_count >= PLS_WAITING_MESSAGES_MAX || p->waiting_bytes >= PLS_WAITING_BYTES_MAX) {
        return PLS_EFULL;
    }
    pls_wire_request head = {0};
    head.actor_id = target->id;
    head.deadline_ns = call->deadline_ns;
    head.sender_id = call->sender_id;
    head.chain_bytes = chain_length(call);
    head.method_bytes = call->method_bytes;
    head.flags = target->window > 0 ? PLS_REQUEST_WINDOWED : 0;
    send->slot = target->slot;
    send->epoch = target->epoch;
    send->type = PLS_WIRE_REQUEST;
    send->fixed_bytes = (uint32_t)sizeof head + head.chain_bytes + head.method_bytes;
    send->target = target;
    send->call_id = 0;
    send->context_bytes = 0;
    err = room_find(p, send, target->waiting.count == 0 && pls_target_may_leave(p, target));
    if (err == PLS_EDEAD && pls_target_lost_sight(p, target)) {
        err = room_find(p, send, false);
    }
    if (err != PLS_OK) {
        return err;
    }
    target->references++;
    if (!call->tell) {
        send->call_id =
            pls_call_open(p, target, call->user, target->slot, target->epoch, PLS_CALL_PENDING);
        if (send->call_id == 0) {
            pulsing_abort(p, send);
            return PLS_EFULL;
        }
        head.call_id = send->call_id;
        pls_call *opened = pls_call_find(p, send->call_id);
        opened->sender_id = call->sender_id;
    }
    request_write(send, call, &head);
    return PLS_OK;
}

static pls_err answer_begin(pulsing *p, const pulsing_origin *origin, pls_wire_type type,
                            pulsing_status status, pulsing_send *send)
{
    if (origin->call_id == 0 && type == PLS_WIRE_REPLY) {
        return PLS_EINVAL;
    }
    pls_err err = check_open(p);
    if (err != PLS_OK) {
        return err;
    }
    pls_wire_reply head = {0};
    head.call_id = origin->call_id;
    head.status = (uint8_t)status;
    head.credit = type == PLS_WIRE_REPLY ? origin->credit : 0;
    memset(send, 0, sizeof *send);
    send->slot = origin->slot;
    send->epoch = origin->epoch;
    send->type = (uint16_t)type;
    send->fixed_bytes = sizeof head;
    err = room_find(p, send, true);
    if (err == PLS_OK) {
        memcpy(send->base, &head, sizeof head);
    }
    return err;
}

pls_err pulsing_reply_begin(pulsing *p, const pulsing_origin *origin, pulsing_status status,
                            pulsing_send *send)
{
    if (status == PULSING_RAISED) {
        pls_actor_raised(p, origin);
    }
    return answer_begin(p, origin, PLS_WIRE_REPLY, status, send);
}

pls_err pulsing_stream_begin(pulsing *p, const pulsing_origin *reader, bool end,
                             pulsing_status status, pulsing_send *send)
{
    return answer_begin(p, reader, end ? PLS_WIRE_STREAM_END : PLS_WIRE_STREAM_ITEM, status, send);
}

static void ring_given(pulsing *p)
{
    p->ring_taken = false;
    if (p->ring_nested) {
        p->ring_nested = false;
        for (uint32_t slot = 0; slot < PLS_SLOTS_MAX; slot++) {
            pls_link_flush(p, slot);
        }
    }
}

void pulsing_abort(pulsing *p, pulsing_send *send)
{
    if (send->in_ring) {
        ring_given(p);
    } else {
        scratch_give(p, send->base);
    }
    if (send->call_id != 0) {
        pls_call_close(p, send->call_id);
    }
    if (send->target != NULL) {
        pulsing_target_release(send->target);
    }
}

/* The call in `send` will not happen: forget it, as after an abort. */
static pls_err commit_fail(pulsing *p, pulsing_send *send, pulsing_room *room, pls_err err)
{
    pulsing_room_free(p, room);
    if (send->call_id != 0 && pls_call_find(p, send->call_id) != NULL) {
        pls_call_close(p, send->call_id);
    }
    if (send->target != NULL) {
        pulsing_target_release(send->target);
    }
    return err;
}

static pls_err commit_ring(pulsing *p, pulsing_send *send, uint32_t len, uint16_t flags,
                           pulsing_room *room)
{
    pls_block *block = room != NULL ? room->block : NULL;
    uint64_t block_bytes = room != NULL ? room->bytes : 0;
    pulsing_target *target = send->target;
    pls_err err = PLS_OK;
    if (target != NULL && target->restartable) {
        pls_leaving leaving = {send->call_id, send->base, block, block_bytes, len, flags};
        err = pls_retain_add(p, target, &leaving);
    }
    if (err == PLS_OK && block != NULL) {
        pls_descriptor descriptor;
        pls_arena_collect(p->arena);
        pls_arena_loan loan = {.len = block_bytes, .slot = send->slot, .epoch = send->epoch};
        err = pls_arena_lend(p->arena, block, &loan, &descriptor);
        memcpy(send->base + len, &descriptor, sizeof descriptor);
        len += (uint32_t)sizeof descriptor;
    }
    if (err != PLS_OK) {
        ring_given(p);
        return commit_fail(p, send, room, err);
    }
    if (send->type == PLS_WIRE_REPLY) {
        pls_watch_answers(p, send->slot, send->base);
    }
    pls_link_publish(p, send->slot, len, send->type, flags, target != NULL ? target->id : 0);
    if (target != NULL && send->call_id == 0) {
        pls_letters_told(p, target);
    }
    ring_given(p);
    pulsing_room_free(p, room);
    if (target != NULL) {
        target->in_flight += target->window > 0 ? 1 : 0;
        pulsing_target_release(target);
    }
    return PLS_OK;
}

static pls_err answer_send(pulsing *p, pls_parcel *parcel)
{
    pls_link *link = NULL;
    if (parcel->slot == pulsing_slot(p)) {
        pls_send_self(p, parcel);
        return PLS_OK;
    }
    pls_err err = pls_link_get(p, parcel->slot, parcel->epoch, true, &link);
    if (err != PLS_OK) {
        pls_parcel_free(p, parcel);
        return err;
    }
    return pls_link_send(p, link, parcel);
}

static pls_err commit_parcel(pulsing *p, pulsing_send *send, uint32_t len, uint16_t flags,
                             pulsing_room *room)
{
    pls_parcel *parcel = pls_parcel_new(send->base, len, send->type, flags);
    scratch_give(p, send->base);
    if (parcel == NULL) {
        return commit_fail(p, send, room, PLS_ENOMEM);
    }
    if (room != NULL) {
        parcel->block = room->block;
        parcel->block_bytes = room->bytes;
        free(room);
    }
    parcel->slot = send->slot;
    parcel->epoch = send->epoch;
    parcel->call_id = send->call_id;
    parcel->target = send->target;
    pulsing_target *target = send->target;
    if (target == NULL) {
        return answer_send(p, parcel);
    }
    pls_call *call = send->call_id != 0 ? pls_call_find(p, send->call_id) : NULL;
    if (call != NULL) {
        pls_watch_wait_open(p, call, parcel->bytes);
    }
    if (target->state == PLS_TARGET_DEAD) {
        pls_send_failed(p, parcel, target->dead_status, target->dead_text);
        return PLS_EFULL;
    }
    if (target->waiting.count > 0 || !pls_target_may_leave(p, target)) {
        pls_parcels_push(&target->waiting, parcel);
        pls_waiting_add(p, parcel);
        p->last_queued = parcel;
        return PLS_EFULL;
    }
    return pls_send_request(p, parcel);
}

void pulsing_sent_notify(pulsing *p, void *user)
{
    if (p->last_queued != NULL) {
        p->last_queued->notify = true;
        p->last_queued->user = user;
    }
}

pls_err pulsing_commit(pulsing *p, pulsing_send *send, uint32_t payload_bytes, pulsing_room *room,
                       bool payload_in_room)
{
    pls_assert(payload_in_room || payload_bytes <= send->capacity);
    uint32_t len = send->fixed_bytes + (payload_in_room ? 0 : payload_bytes);
    uint16_t flags = (uint16_t)((room != NULL ? PLS_WIRE_BLOCK : 0) |
                                (payload_in_room ? PLS_WIRE_PAYLOAD_IN_BLOCK : 0));
    size_t at = send->type == PLS_WIRE_REQUEST ? offsetof(pls_wire_request, payload_bytes)
                                               : offsetof(pls_wire_reply, payload_bytes);
    memcpy(send->base + at, &payload_bytes, sizeof payload_bytes);
    if (send->type == PLS_WIRE_REQUEST) {
        memcpy(send->base + offsetof(pls_wire_request, context_bytes), &send->context_bytes,
               sizeof send->context_bytes);
    }
    if (send->type == PLS_WIRE_STREAM_ITEM) {
        uint64_t bytes = room != NULL ? room->bytes + payload_bytes : payload_bytes;
        uint64_t cost = 1 + bytes / PLS_STREAM_UNIT_BYTES;
        send->cost = (uint16_t)(cost < UINT16_MAX ? cost : UINT16_MAX);
        memcpy(send->base + offsetof(pls_wire_reply, credit), &send->cost, sizeof send->cost);
    }
    p->last_queued = NULL;
    if (!send->in_ring) {
        return commit_parcel(p, send, len, flags, room);
    }
    pls_err err = commit_ring(p, send, len, flags, room);
    pls_call *call = err == PLS_OK && send->call_id != 0 ? pls_call_find(p, send->call_id) : NULL;
    if (call != NULL) {
        /* Nobody else writes there, and this process not before its next message. */
        pls_watch_wait_open(p, call, send->base);
    }
    return err;
}

pls_err pls_send_request(pulsing *p, pls_parcel *parcel)
{
    pulsing_target *target = parcel->target;
    parcel->slot = target->slot;
    parcel->epoch = target->epoch;
    pls_call *call = parcel->call_id != 0 ? pls_call_find(p, parcel->call_id) : NULL;
    if (call != NULL) {
        call->slot = target->slot;
        call->epoch = target->epoch;
        call->kept = false;
    }
    target->in_flight += target->window > 0 ? 1 : 0;
    if (target->slot == pulsing_slot(p) && target->epoch == pulsing_epoch(p)) {
        pls_send_self(p, parcel);
        return PLS_OK;
    }
    pls_link *link = NULL;
    pls_err err = is_predecessor(p, target->slot, target->epoch)
                      ? PLS_EDEAD
                      : pls_link_get(p, target->slot, target->epoch, true, &link);
    if (err == PLS_OK && target->restartable) {
        pls_leaving leaving = {parcel->call_id,     parcel->bytes, parcel->block,
                               parcel->block_bytes, parcel->len,   parcel->flags};
        err = pls_retain_add(p, target, &leaving);
    }
    if (err == PLS_EDEAD && pls_target_lost_sight(p, target)) {
        pls_parcels_push_front(&target->waiting, parcel);
        pls_waiting_add(p, parcel);
        return PLS_EFULL;
    }
    if (err != PLS_OK) {
        pls_send_failed(p, parcel, PULSING_DIED, pls_err_text(err));
        return PLS_EFULL;
    }
    return pls_link_send(p, link, parcel);
}

void pls_send_self(pulsing *p, pls_parcel *parcel)
{
    parcel->sent = pls_clock_stamp(&p->clock, pls_clock_tick(&p->clock));
    pls_parcels_push(&p->self, parcel);
    if (!p->self_woken && p->on.wake != NULL) {
        p->self_woken = true;
        p->on.wake(p->on.context);
    }
}

void pls_send_failed(pulsing *p, pls_parcel *parcel, pulsing_status status, const char *text)
{
    uint64_t call_id = parcel->call_id;
    bool notify = parcel->notify;
    void *user = parcel->user;
    bool request = parcel->type == PLS_WIRE_REQUEST;
    pls_parcel_free(p, parcel);
    if (call_id != 0) {
        pls_call_end(p, call_id, status, text);
    } else if (request) {
        pls_dead_letter(p, status);
        if (notify) {
            p->on.sent(p->on.context, user, PLS_EDEAD);
        }
    }
}

void pls_send_text(pulsing *p, const pulsing_origin *origin, pulsing_status status,
                   const char *text)
{
    pulsing_send send;
    if (pulsing_reply_begin(p, origin, status, &send) != PLS_OK) {
        return;
    }
    size_t len = strnlen(text, PULSING_INLINE_BYTES_MAX);
    memcpy(send.at, text, len);
    (void)pulsing_commit(p, &send, (uint32_t)len, NULL, false);
}

pls_err pulsing_room_alloc(pulsing *p, uint64_t bytes, pulsing_room **room_out, uint8_t **base_out)
{
    pulsing_room *room = calloc(1, sizeof *room);
    if (room == NULL) {
        return PLS_ENOMEM;
    }
    pls_blocks_sweep(p);
    pls_arena_collect(p->arena);
    pls_err err = pls_arena_alloc(p->arena, bytes, &room->block);
    if (err != PLS_OK) {
        free(room);
        return err;
    }
    room->bytes = bytes;
    *base_out = room->block->base;
    *room_out = room;
    return PLS_OK;
}

pls_err pulsing_room_share(pulsing *p, const pulsing_room *room, pulsing_room **room_out)
{
    pulsing_room *shared = malloc(sizeof *shared);
    if (shared == NULL) {
        return PLS_ENOMEM;
    }
    *shared = *room;
    pls_arena_hold(p->arena, room->block);
    *room_out = shared;
    return PLS_OK;
}

void pulsing_room_free(pulsing *p, pulsing_room *room)
{
    if (room != NULL) {
        pls_arena_unhold(p->arena, room->block);
        free(room);
    }
}
