/* SPDX-License-Identifier: Apache-2.0 */
/* The gossip queue. Items live in one array and hang in one list for each number of transmits; the
 * lowest lists are told first. An item that was written moves to the end of the next list, one that
 * was written often enough goes. What is written into one packet is moved only when that packet is
 * full, so that no packet says anything twice. */
#include "gossip/queue.h"

#include "base/assert.h"
#include "gossip/delta.h"
#include "gossip/mutant.h"
#include "gossip/rules.h"
#include "gossip/scale.h"
#include "gossip/state.h"

/* No message is shorter than this: bin head, kind, sequence. */
#define MESSAGE_BYTES_MIN 4

void pls_queue_init(pls_queue *queue, uint32_t count_max)
{
    queue->free_first = PLS_INDEX_NONE;
    queue->count_max = count_max;
    for (uint32_t i = 0; i < PLS_TRANSMITS_MAX; i++) {
        queue->lists[i] = (pls_queue_list){PLS_INDEX_NONE, PLS_INDEX_NONE};
    }
}

void pls_queue_fini(pls_queue *queue, pls_heap *heap)
{
    pls_heap_resize(heap, queue->items, queue->capacity * sizeof(pls_queue_item), 0);
    pls_index_fini(&queue->by_subject, heap);
}

static void list_link(pls_queue *queue, uint32_t at, bool first)
{
    pls_queue_item *item = &queue->items[at];
    pls_queue_list *list = &queue->lists[item->transmits];
    item->previous = first ? PLS_INDEX_NONE : list->last;
    item->next = first ? list->first : PLS_INDEX_NONE;
    if (item->previous != PLS_INDEX_NONE) {
        queue->items[item->previous].next = at;
    } else {
        list->first = at;
    }
    if (item->next != PLS_INDEX_NONE) {
        queue->items[item->next].previous = at;
    } else {
        list->last = at;
    }
}

static void list_unlink(pls_queue *queue, uint32_t at)
{
    pls_queue_item *item = &queue->items[at];
    pls_queue_list *list = &queue->lists[item->transmits];
    if (item->previous != PLS_INDEX_NONE) {
        queue->items[item->previous].next = item->next;
    } else {
        list->first = item->next;
    }
    if (item->next != PLS_INDEX_NONE) {
        queue->items[item->next].previous = item->previous;
    } else {
        list->last = item->previous;
    }
}

static void item_remove(pls_queue *queue, uint32_t at)
{
    pls_queue_item *item = &queue->items[at];
    list_unlink(queue, at);
    if (pls_index_get(&queue->by_subject, item->update.subject) == at) {
        pls_index_remove(&queue->by_subject, item->update.subject);
    }
    item->next = queue->free_first;
    queue->free_first = at;
    queue->count--;
}

static void make_room(pls_queue *queue)
{
    if (queue->count_max == 0 || queue->count < queue->count_max) {
        return;
    }
    for (uint32_t i = PLS_TRANSMITS_MAX; i-- > 0;) {
        if (queue->lists[i].last != PLS_INDEX_NONE) {
            item_remove(queue, queue->lists[i].last);
            return;
        }
    }
}

/* A place for one more item, PLS_INDEX_NONE without memory. */
static uint32_t item_make(pls_gossip *gossip, pls_queue *queue)
{
    make_room(queue);
    uint32_t at = queue->free_first;
    if (pls_index_reserve(&queue->by_subject, &gossip->heap) != PLS_OK) {
        return PLS_INDEX_NONE;
    }
    if (at != PLS_INDEX_NONE) {
        queue->free_first = queue->items[at].next;
    } else {
        void *items = queue->items;
        pls_err err = pls_heap_reserve(&gossip->heap, &items, &queue->capacity, queue->limit + 1,
                                       sizeof(pls_queue_item));
        queue->items = items;
        if (err != PLS_OK) {
            return PLS_INDEX_NONE;
        }
        at = queue->limit++;
    }
    queue->count++;
    return at;
}

static void put_new(pls_gossip *gossip, pls_queue *queue, const pls_update *update,
                    uint32_t transmits)
{
    uint32_t at = item_make(gossip, queue);
    if (at == PLS_INDEX_NONE) {
        gossip->counters.dropped_memory++;
        gossip->err = PLS_ENOMEM;
        return;
    }
    queue->items[at].update = *update;
    queue->items[at].transmits = transmits;
    pls_index_set(&queue->by_subject, update->subject, at);
    list_link(queue, at, transmits == 0);
}

/* A range of names joins the range of the same owner that was never sent, if they touch. */
static bool put_range(pls_queue *queue, uint32_t at, const pls_update *update)
{
    pls_queue_item *item = &queue->items[at];
    if (item->transmits > 0 || update->incarnation > item->update.accuser ||
        update->accuser < item->update.incarnation) {
        return false;
    }
    if (update->incarnation < item->update.incarnation) {
        item->update.incarnation = update->incarnation;
    }
    if (update->accuser > item->update.accuser) {
        item->update.accuser = update->accuser;
    }
    return true;
}

void pls_queue_put(pls_gossip *gossip, pls_queue *queue, const pls_update *update,
                   uint32_t transmits)
{
    gossip->counters.updates_queued++;
    uint32_t at = pls_index_get(&queue->by_subject, update->subject);
    if (at == PLS_INDEX_NONE || pls_mutant(PLS_MUTANT_QUEUE_GROWS)) {
        put_new(gossip, queue, update, transmits);
    } else if (update->kind == PLS_WIRE_NAMES) {
        if (!put_range(queue, at, update)) {
            put_new(gossip, queue, update, transmits);
        }
    } else {
        gossip->counters.updates_replaced++;
        list_unlink(queue, at);
        queue->items[at].update = *update;
        queue->items[at].transmits = transmits;
        list_link(queue, at, transmits == 0);
    }
    pls_gossip_wake(gossip);
}

void pls_queue_remove(pls_queue *queue, pls_member subject)
{
    uint32_t at = pls_index_get(&queue->by_subject, subject);
    if (at != PLS_INDEX_NONE) {
        item_remove(queue, at);
    }
    if (queue->count_max == 0) {
        return;
    }
    for (uint32_t i = 0; i < PLS_TRANSMITS_MAX; i++) {
        for (at = queue->lists[i].first; at != PLS_INDEX_NONE;) {
            uint32_t next = queue->items[at].next;
            if (queue->items[at].update.subject == subject) {
                item_remove(queue, at);
            }
            at = next;
        }
    }
}

bool pls_queue_heard(pls_queue *queue, pls_member subject, uint64_t incarnation)
{
    uint32_t at = pls_index_get(&queue->by_subject, subject);
    if (queue->count < PLS_QUEUE_STORM || at == PLS_INDEX_NONE ||
        queue->items[at].update.kind != PLS_WIRE_ALIVE ||
        queue->items[at].update.incarnation != incarnation) {
        return false;
    }
    item_remove(queue, at);
    return true;
}

bool pls_queue_has(const pls_queue *queue, pls_member subject)
{
    return pls_index_get(&queue->by_subject, subject) != PLS_INDEX_NONE;
}

static bool write_names(pls_gossip *gossip, pls_queue *queue, uint32_t at, pls_writer *packet)
{
    pls_queue_item *item = &queue->items[at];
    uint64_t end = item->update.accuser;
    uint64_t reached = end;
    if (!pls_delta_write(gossip, packet, item->update.subject, item->update.incarnation,
                         &reached)) {
        return false;
    }
    if (reached >= end) {
        return true;
    }
    /* What was cut off waits as a range of its own, before the others of its list. */
    pls_update rest = item->update;
    rest.incarnation = reached;
    item->update.accuser = reached;
    uint32_t rest_at = item_make(gossip, queue);
    item = &queue->items[at];
    if (rest_at == PLS_INDEX_NONE) {
        gossip->counters.dropped_memory++;
        return true;
    }
    queue->items[rest_at].update = rest;
    queue->items[rest_at].transmits = item->transmits;
    if (pls_index_get(&queue->by_subject, rest.subject) == at) {
        pls_index_set(&queue->by_subject, rest.subject, rest_at);
    }
    list_link(queue, rest_at, true);
    return true;
}

static bool write_update(pls_gossip *gossip, pls_queue *queue, uint32_t at, pls_writer *packet)
{
    const pls_update *update = &queue->items[at].update;
    if (update->kind == PLS_WIRE_NAMES) {
        return write_names(gossip, queue, at, packet);
    }
    pls_message message = {.kind = update->kind,
                           .key = pls_gossip_key_of(gossip, update->subject),
                           .incarnation = update->incarnation,
                           .accuser = update->accuser};
    if (update->kind == PLS_WIRE_ALIVE) {
        message = pls_rules_record(gossip, update->subject);
    }
    pls_message_write(packet, &message);
    bool written = !packet->bad;
    packet->bad = false;
    return written;
}

static void count_sent(pls_queue *queue, uint32_t at, uint32_t limit)
{
    pls_queue_item *item = &queue->items[at];
    if (item->transmits + 1 >= limit) {
        item_remove(queue, at);
        return;
    }
    list_unlink(queue, at);
    if (item->update.kind == PLS_WIRE_NAMES && item->transmits == 0 &&
        pls_index_get(&queue->by_subject, item->update.subject) == at) {
        pls_index_remove(&queue->by_subject, item->update.subject);
    }
    item->transmits++;
    list_link(queue, at, false);
}

void pls_queue_fill(pls_gossip *gossip, pls_queue *queue, pls_writer *packet)
{
    if (queue->count == 0) {
        return;
    }
    uint32_t sent[PLS_UPDATES_PER_PACKET_MAX];
    uint32_t sent_count = 0;
    uint32_t skipped = 0;
    uint32_t limit = pls_scale_retransmits(gossip->config.retransmit_mult,
                                           pls_members_live_count(&gossip->members));
    limit = limit < PLS_TRANSMITS_MAX ? limit : PLS_TRANSMITS_MAX - 1;
    for (uint32_t i = 0; i < PLS_TRANSMITS_MAX; i++) {
        uint32_t at = queue->lists[i].first;
        while (at != PLS_INDEX_NONE && sent_count < PLS_UPDATES_PER_PACKET_MAX &&
               skipped < PLS_UPDATES_SKIPPED_MAX &&
               (size_t)(packet->end - packet->at) >= MESSAGE_BYTES_MIN) {
            uint32_t next = queue->items[at].next;
            if (write_update(gossip, queue, at, packet)) {
                sent[sent_count++] = at;
            } else {
                skipped++;
            }
            at = next;
        }
    }
    for (uint32_t i = 0; i < sent_count; i++) {
        count_sent(queue, sent[i], limit);
    }
    gossip->counters.updates_sent += sent_count;
}

void pls_queue_check(const pls_queue *queue)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < PLS_TRANSMITS_MAX; i++) {
        uint32_t previous = PLS_INDEX_NONE;
        for (uint32_t at = queue->lists[i].first; at != PLS_INDEX_NONE;
             at = queue->items[at].next) {
            const pls_queue_item *item = &queue->items[at];
            pls_assert(item->previous == previous);
            pls_assert(item->transmits == i);
            uint32_t found = pls_index_get(&queue->by_subject, item->update.subject);
            if (item->update.kind == PLS_WIRE_NAMES) {
                pls_assert(item->update.incarnation < item->update.accuser);
            } else {
                pls_assert(found == at);
            }
            previous = at;
            count++;
        }
        pls_assert(queue->lists[i].last == previous);
    }
    pls_assert(count == queue->count);
    pls_assert(queue->count_max == 0 || queue->count <= queue->count_max + 1);
}
