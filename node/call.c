/* SPDX-License-Identifier: Apache-2.0 */
/* The table of what this process waits for: asks, streams that it reads, and streams that it
 * writes. An id is generation and index, so that a late answer to a call that is over finds
 * nothing. Every ask ends here exactly once. */
#include "node/runtime_parts.h"

#include "base/assert.h"

#include <stdlib.h>
#include <string.h>

static bool calls_grow(pulsing *p)
{
    uint32_t capacity = p->calls_capacity == 0 ? 256 : p->calls_capacity * 2;
    if (capacity > PLS_CALLS_MAX) {
        return false;
    }
    pls_call *calls = realloc(p->calls, capacity * sizeof *calls);
    if (calls == NULL) {
        return false;
    }
    memset(calls + p->calls_capacity, 0, (capacity - p->calls_capacity) * sizeof *calls);
    for (uint32_t i = capacity; i > p->calls_capacity; i--) {
        calls[i - 1].next_free = p->calls_free;
        p->calls_free = i;
    }
    p->calls = calls;
    p->calls_capacity = capacity;
    return true;
}

uint64_t pls_call_open(pulsing *p, pulsing_target *target, void *user, uint32_t slot,
                       uint32_t epoch, pls_call_state state)
{
    if (p->calls_free == 0 && !calls_grow(p)) {
        return 0;
    }
    uint32_t index = p->calls_free - 1;
    pls_call *call = &p->calls[index];
    pls_assert(call->state == PLS_CALL_FREE);
    p->calls_free = call->next_free;
    p->calls_count++;
    call->gen++;
    if (call->gen == 0) {
        call->gen = 1;
    }
    call->state = (uint8_t)state;
    call->awaited = false;
    call->kept = false;
    call->slot = (uint16_t)slot;
    call->epoch = epoch;
    call->user = user;
    call->target = target;
    call->peer_id = 0;
    call->wait = 0;
    call->told = false;
    call->sender_id = 0;
    call->seen_ns = 0;
    if (target != NULL) {
        target->references++;
    }
    return (uint64_t)call->gen << 32 | index;
}

pls_call *pls_call_find(pulsing *p, uint64_t call_id)
{
    uint32_t index = (uint32_t)call_id;
    if (index >= p->calls_capacity || p->calls[index].gen != (uint32_t)(call_id >> 32) ||
        p->calls[index].state == PLS_CALL_FREE) {
        return NULL;
    }
    return &p->calls[index];
}

void pls_call_close(pulsing *p, uint64_t call_id)
{
    pls_call *call = pls_call_find(p, call_id);
    pls_assert(call != NULL);
    pulsing_target *target = call->target;
    pls_watch_wait_close(p, call);
    call->state = PLS_CALL_FREE;
    call->user = NULL;
    call->target = NULL;
    call->next_free = p->calls_free;
    p->calls_free = (uint32_t)call_id + 1;
    p->calls_count--;
    if (target != NULL) {
        pulsing_target_release(target);
    }
}

static uint64_t id_at(const pulsing *p, uint32_t index)
{
    return (uint64_t)p->calls[index].gen << 32 | index;
}

void pls_call_end(pulsing *p, uint64_t call_id, pulsing_status status, const char *text)
{
    pls_call *call = pls_call_find(p, call_id);
    if (call == NULL) {
        return;
    }
    void *user = call->user;
    uint16_t slot = call->slot;
    uint32_t epoch = call->epoch;
    pls_call_state state = (pls_call_state)call->state;
    if (state == PLS_CALL_WRITER) {
        p->on.stream_room(p->on.context, user, 0);
        return;
    }
    pls_call_close(p, call_id);
    if (state == PLS_CALL_PENDING || state == PLS_CALL_STREAM) {
        pulsing_message message = {0};
        message.status = (uint8_t)status;
        message.payload = (const uint8_t *)text;
        message.payload_bytes = (uint32_t)strlen(text);
        message.origin.slot = slot;
        message.origin.epoch = epoch;
        p->on.reply(p->on.context, user, &message);
    }
}

void pls_call_give_up(pulsing *p, uint64_t call_id, pulsing_status status, const char *text)
{
    pls_call *call = pls_call_find(p, call_id);
    if (call == NULL || call->state != PLS_CALL_PENDING) {
        return;
    }
    void *user = call->user;
    pulsing_call_cancel(p, call_id);
    pulsing_message message = {.status = (uint8_t)status,
                               .payload = (const uint8_t *)text,
                               .payload_bytes = (uint32_t)strlen(text)};
    p->on.reply(p->on.context, user, &message);
}

void pls_calls_end_all(pulsing *p, pulsing_status status, const char *text)
{
    for (uint32_t i = 0; i < p->calls_capacity; i++) {
        if (p->calls[i].state != PLS_CALL_FREE) {
            pls_call_end(p, id_at(p, i), status, text);
        }
    }
}

void pls_calls_slot_died(pulsing *p, uint32_t slot, uint32_t epoch, const char *text)
{
    for (uint32_t i = 0; i < p->calls_capacity; i++) {
        pls_call *call = &p->calls[i];
        bool there = call->state != PLS_CALL_FREE && call->slot == slot && call->epoch == epoch;
        if (there && !call->kept) {
            pls_call_end(p, id_at(p, i), PULSING_DIED, text);
        }
    }
}

pls_err pls_message_payload(pulsing *p, const pls_arrival *arrival, uint32_t fixed_bytes,
                            uint32_t payload_bytes, pulsing_message *message)
{
    pls_err err = pls_block_open(p, arrival, &message->block);
    if (err != PLS_OK) {
        return err;
    }
    if (message->context_bytes > payload_bytes) {
        return PLS_EPROTO;
    }
    message->payload_bytes = payload_bytes - message->context_bytes;
    if ((arrival->flags & PLS_WIRE_PAYLOAD_IN_BLOCK) == 0) {
        message->payload = arrival->bytes + fixed_bytes;
        return arrival->len - fixed_bytes == payload_bytes ? PLS_OK : PLS_EPROTO;
    }
    if (message->block == NULL || message->block->len < payload_bytes) {
        return PLS_EPROTO;
    }
    message->payload = message->block->bytes;
    return PLS_OK;
}

/* Gives a reply to whoever asked; PULSING_STREAM keeps the entry as the stream's. */
static void reply_deliver(pulsing *p, uint64_t call_id, const pls_arrival *arrival,
                          pulsing_message *message)
{
    pls_call *call = pls_call_find(p, call_id);
    void *user = call->user;
    bool abandoned = call->state == PLS_CALL_ABANDONED;
    bool stream = message->status == PULSING_STREAM && message->payload_bytes >= 8;
    if (stream) {
        uint64_t writer = 0;
        memcpy(&writer, message->payload, sizeof writer);
        call->peer_id = writer;
        call->slot = arrival->slot;
        call->epoch = arrival->epoch;
        call->state = PLS_CALL_STREAM;
        pls_watch_wait_kind(p, call, PLS_OBS_WAIT_STREAM_READ);
        message->origin.call_id = call_id;
        if (abandoned) {
            pls_link_signal(p, arrival->slot, arrival->epoch, PLS_WIRE_STREAM_CLOSE, writer, 0);
        }
    }
    if (!stream || abandoned) {
        pls_call_close(p, call_id);
    }
    if (!abandoned) {
        p->on.reply(p->on.context, user, message);
    }
}

static void reply_handle(pulsing *p, const pls_arrival *arrival, const pls_wire_reply *head,
                         pulsing_message *message)
{
    pls_call *call = pls_call_find(p, head->call_id);
    bool answers = call != NULL && call->slot == arrival->slot && call->epoch == arrival->epoch;
    if (!answers) {
        return; /* late: the call is over */
    }
    if (head->credit > 0 && call->target != NULL && arrival->type == PLS_WIRE_REPLY) {
        pls_target_credit(p, call->target, head->credit);
        call = pls_call_find(p, head->call_id);
    }
    message->origin.credit = head->credit;
    message->origin.slot = arrival->slot;
    message->origin.epoch = arrival->epoch;
    if (arrival->type == PLS_WIRE_STREAM_ITEM && call->state == PLS_CALL_STREAM) {
        p->on.stream_item(p->on.context, call->user, message);
    } else if (arrival->type == PLS_WIRE_STREAM_END && call->state == PLS_CALL_STREAM) {
        void *user = call->user;
        pls_call_close(p, head->call_id);
        p->on.reply(p->on.context, user, message);
    } else if (arrival->type == PLS_WIRE_REPLY && call->state != PLS_CALL_STREAM) {
        reply_deliver(p, head->call_id, arrival, message);
    }
}

void pls_call_reply(pulsing *p, const pls_arrival *arrival)
{
    pls_wire_reply head;
    pulsing_message message = {0};
    if (arrival->len < sizeof head) {
        return;
    }
    memcpy(&head, arrival->bytes, sizeof head);
    message.status = head.status;
    pls_err err = pls_message_payload(p, arrival, sizeof head, head.payload_bytes, &message);
    if (err != PLS_OK) {
        message.status = PULSING_BAD_MESSAGE;
        message.payload = (const uint8_t *)pls_err_text(err);
        message.payload_bytes = (uint32_t)strlen(pls_err_text(err));
    }
    reply_handle(p, arrival, &head, &message);
    pulsing_block_release(message.block);
}

void pls_call_stream_signal(pulsing *p, const pls_arrival *arrival, const pls_wire_signal *signal)
{
    pls_call *call = pls_call_find(p, signal->id);
    if (call == NULL || call->state != PLS_CALL_WRITER) {
        if (arrival->type == PLS_WIRE_STREAM_OPEN) {
            pulsing_origin reader = {signal->value, 0, arrival->epoch, arrival->slot, 0};
            pulsing_send send;
            static const char gone[] = "the stream's writer is gone";
            if (pulsing_stream_begin(p, &reader, true, PULSING_DIED, &send) == PLS_OK) {
                memcpy(send.at, gone, sizeof gone - 1);
                (void)pulsing_commit(p, &send, sizeof gone - 1, NULL, false);
            }
        }
        return;
    }
    if (arrival->type == PLS_WIRE_STREAM_OPEN) {
        pulsing_origin reader = {signal->value, 0, arrival->epoch, arrival->slot, 0};
        call->slot = arrival->slot;
        call->epoch = arrival->epoch;
        p->on.stream_open(p->on.context, call->user, &reader);
    } else if (call->slot == arrival->slot && call->epoch == arrival->epoch) {
        uint64_t items = arrival->type == PLS_WIRE_STREAM_CLOSE ? 0 : signal->value;
        p->on.stream_room(p->on.context, call->user, items);
    }
}

void pulsing_call_cancel(pulsing *p, uint64_t call_id)
{
    pls_call *call = pls_call_find(p, call_id);
    if (call == NULL) {
        return;
    }
    if (call->state == PLS_CALL_STREAM) {
        uint32_t slot = call->slot;
        uint32_t epoch = call->epoch;
        uint64_t writer = call->peer_id;
        pls_call_close(p, call_id);
        pls_link_signal(p, slot, epoch, PLS_WIRE_STREAM_CLOSE, writer, 0);
    } else if (call->state == PLS_CALL_PENDING) {
        call->user = NULL;
        if (pls_target_unqueue(p, call->target, call_id)) {
            pls_call_close(p, call_id);
            return;
        }
        call->state = PLS_CALL_ABANDONED;
        pls_link_signal(p, call->slot, call->epoch, PLS_WIRE_CANCEL, call_id, call->target->id);
    }
}

bool pulsing_call_expire(pulsing *p, uint64_t call_id)
{
    pls_call *call = pls_call_find(p, call_id);
    if (call == NULL || call->state != PLS_CALL_PENDING) {
        return true;
    }
    if (pls_target_unqueue(p, call->target, call_id)) {
        pls_call_close(p, call_id);
        return false;
    }
    pls_link_signal(p, call->slot, call->epoch, PLS_WIRE_CANCEL, call_id, call->target->id);
    return true;
}

void pulsing_call_awaited(pulsing *p, uint64_t call_id, bool awaited)
{
    pls_call *call = pls_call_find(p, call_id);
    if (call != NULL) {
        call->awaited = awaited;
    }
}

void pulsing_call_user_set(pulsing *p, uint64_t call_id, void *user)
{
    pls_call *call = pls_call_find(p, call_id);
    pls_assert(call != NULL);
    call->user = user;
}

uint32_t pulsing_call_count(const pulsing *p)
{
    return p->calls_count;
}

uint32_t pulsing_unfinished_count(pulsing *p)
{
    uint32_t count = p->waiting_count + p->self.count + pls_retain_count(p);
    for (uint32_t i = 0; i < p->calls_capacity; i++) {
        count += p->calls[i].state == PLS_CALL_WRITER;
    }
    return count;
}

uint64_t pulsing_writer_add(pulsing *p, void *user, const pulsing_origin *reader)
{
    uint32_t slot = reader != NULL ? reader->slot : pulsing_slot(p);
    uint32_t epoch = reader != NULL ? reader->epoch : pulsing_epoch(p);
    return pls_call_open(p, NULL, user, slot, epoch, PLS_CALL_WRITER);
}

void pulsing_writer_bind(pulsing *p, uint64_t writer_id, const pulsing_origin *reader)
{
    pls_call *call = pls_call_find(p, writer_id);
    if (call != NULL && call->state == PLS_CALL_WRITER) {
        call->slot = reader->slot;
        call->epoch = reader->epoch;
    }
}

void pulsing_writer_remove(pulsing *p, uint64_t writer_id)
{
    pls_call *call = pls_call_find(p, writer_id);
    if (call != NULL && call->state == PLS_CALL_WRITER) {
        pls_call_close(p, writer_id);
    }
}

pls_err pulsing_stream_subscribe(pulsing *p, uint32_t slot, uint32_t epoch, uint64_t writer_id,
                                 void *user, uint64_t *call_out)
{
    uint64_t call_id = pls_call_open(p, NULL, user, slot, epoch, PLS_CALL_STREAM);
    if (call_id == 0) {
        return PLS_ENOMEM;
    }
    pls_call *call = pls_call_find(p, call_id);
    call->peer_id = writer_id;
    pls_watch_wait_open(p, call, NULL);
    if (slot != pulsing_slot(p)) {
        pls_link *link = NULL;
        pls_err err = pls_link_get(p, slot, epoch, true, &link);
        if (err != PLS_OK) {
            pls_call_close(p, call_id);
            return err;
        }
    }
    pls_link_signal(p, slot, epoch, PLS_WIRE_STREAM_OPEN, writer_id, call_id);
    *call_out = call_id;
    return PLS_OK;
}

pls_err pulsing_stream_signal(pulsing *p, uint32_t slot, uint32_t epoch, uint64_t writer_id,
                              uint64_t items, bool close)
{
    pls_link_signal(p, slot, epoch, close ? PLS_WIRE_STREAM_CLOSE : PLS_WIRE_STREAM_ROOM, writer_id,
                    items);
    return PLS_OK;
}
