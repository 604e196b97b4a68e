/* SPDX-License-Identifier: Apache-2.0 */
/* Links to the other processes of the host: made on first use, one ring each way, and a queue in
 * private memory for what does not fit into the ring. Invariant: while a link's queue is not empty,
 * nothing newer enters its ring, so order per process is kept. */
#include "node/runtime_parts.h"
#include "node/watch_hot.h"

#include "base/assert.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Bigger rings for few processes: 16 KiB each is 1 GiB when 256 talk to each other. */
static uint32_t ring_capacity(const pulsing *p)
{
    uint32_t attached = p->info->attached_count;
    return attached <= 16 ? 256 * 1024 : attached <= 64 ? 64 * 1024 : 16 * 1024;
}

/* The node names a dead peer until everybody has acknowledged its end, for the sake of the leases
 * in its last messages. Only a link that stands when this process handles that end is taken down
 * again, so none is made afterwards; nor one to send on, as this process may have been told
 * already, or, when it is younger than the end, never is. */
static pls_err link_attach(pulsing *p, pls_link *link, uint32_t slot, uint32_t epoch, bool to_send)
{
    pls_attach_peer fds = {-1, -1};
    if (p->ends[slot].epoch == epoch) {
        return PLS_EDEAD;
    }
    pls_err err = pls_attach_peer_get(p->attach, slot, epoch, &fds);
    if (err != PLS_OK) {
        return err;
    }
    pls_slot_state state = pls_directory_state(p->info->directory, slot, epoch);
    if (state == PLS_SLOT_FREE || (state == PLS_SLOT_DEAD && to_send)) {
        close(fds.inbox_fd);
        close(fds.bell_fd);
        return PLS_EDEAD;
    }
    err = pls_peer_attach(fds.inbox_fd, fds.bell_fd, slot, epoch, &link->peer);
    if (err != PLS_OK) {
        close(fds.inbox_fd);
        close(fds.bell_fd);
        return err;
    }
    link->epoch = epoch;
    bool ending = state == PLS_SLOT_DYING || state == PLS_SLOT_DEAD;
    link->state = ending ? PLS_LINK_DYING : PLS_LINK_UP;
    pls_watch_peer(p, PLS_OBS_RARE_CONNECT, slot, epoch);
    return PLS_OK;
}

pls_err pls_link_get(pulsing *p, uint32_t slot, uint32_t epoch, bool to_send, pls_link **link_out)
{
    pls_link *link = &p->links[slot];
    if (link->state == PLS_LINK_NONE) {
        pls_err err = link_attach(p, link, slot, epoch, to_send);
        if (err != PLS_OK) {
            return err;
        }
    }
    if (link->epoch != epoch) {
        return PLS_EDEAD;
    }
    if (to_send && link->outbox == NULL) {
        if (link->state == PLS_LINK_DYING) {
            return PLS_EDEAD;
        }
        pls_err err = pls_outbox_attach(link->peer, pulsing_slot(p), pulsing_epoch(p),
                                        ring_capacity(p), &link->outbox);
        if (err != PLS_OK) {
            return err;
        }
    }
    if (to_send && link->state == PLS_LINK_DYING) {
        return PLS_EDEAD;
    }
    *link_out = link;
    return PLS_OK;
}

void pls_link_publish(pulsing *p, uint32_t slot, uint32_t len, uint16_t type, uint16_t flags,
                      uint64_t actor_id)
{
    pls_outbox *outbox = p->links[slot].outbox;
    pls_watch_departure departure = {.tick = pls_clock_tick(&p->clock),
                                     .actor = actor_id,
                                     .slot = slot,
                                     .bytes = len,
                                     .reply = type == PLS_WIRE_REPLY};
    departure.seq =
        pls_outbox_commit(outbox, len, type, flags, pls_clock_stamp(&p->clock, departure.tick));
    departure.woke = pls_outbox_wake(outbox);
    pls_watch_sent(p, &departure);
}

/* Copies a parcel into the ring. PLS_EFULL: nothing changed. */
static pls_err ring_put(pulsing *p, pls_link *link, pls_parcel *parcel)
{
    uint32_t extra = parcel->block != NULL ? (uint32_t)sizeof(pls_descriptor) : 0;
    uint8_t *room = NULL;
    pls_err err = pls_outbox_reserve(link->outbox, parcel->len + extra, &room);
    if (err != PLS_OK) {
        return err;
    }
    memcpy(room, parcel->bytes, parcel->len);
    if (parcel->block != NULL) {
        pls_descriptor descriptor;
        pls_arena_loan loan = {
            .len = parcel->block_bytes, .slot = parcel->slot, .epoch = parcel->epoch};
        err = pls_arena_lend(p->arena, parcel->block, &loan, &descriptor);
        if (err != PLS_OK) {
            return err;
        }
        memcpy(room + parcel->len, &descriptor, sizeof descriptor);
    }
    if (parcel->type == PLS_WIRE_REPLY) {
        pls_watch_answers(p, parcel->slot, parcel->bytes);
    }
    pls_link_publish(p, parcel->slot, parcel->len + extra, parcel->type, parcel->flags,
                     parcel->target != NULL ? parcel->target->id : 0);
    if (parcel->target != NULL && parcel->call_id == 0) {
        pls_letters_told(p, parcel->target);
    }
    return PLS_OK;
}

static void parcel_left(pulsing *p, pls_parcel *parcel)
{
    if (parcel->notify && p->on.sent != NULL) {
        p->on.sent(p->on.context, parcel->user, PLS_OK);
    }
    pls_parcel_free(p, parcel);
}

static void queue_push(pulsing *p, pls_link *link, pls_parcel *parcel)
{
    pls_parcels_push(&link->queue, parcel);
    pls_waiting_add(p, parcel);
    p->last_queued = parcel;
}

pls_err pls_link_send(pulsing *p, pls_link *link, pls_parcel *parcel)
{
    pls_assert(link->outbox != NULL);
    if (p->ring_taken) {
        queue_push(p, link, parcel);
        p->ring_nested = true;
        return PLS_EFULL;
    }
    if (link->queue.count == 0 && ring_put(p, link, parcel) == PLS_OK) {
        pls_parcel_free(p, parcel);
        return PLS_OK;
    }
    uint32_t slot = parcel->slot;
    queue_push(p, link, parcel);
    pls_link_flush(p, slot);
    return link->queue.count > 0 ? PLS_EFULL : PLS_OK;
}

void pls_link_flush(pulsing *p, uint32_t slot)
{
    pls_link *link = &p->links[slot];
    while (link->queue.count > 0 && link->outbox != NULL && !p->ring_taken) {
        pls_parcel *parcel = link->queue.first;
        uint32_t need = parcel->len + (uint32_t)sizeof(pls_descriptor);
        pls_err err = ring_put(p, link, parcel);
        if (err == PLS_OK) {
            pls_waiting_sub(p, parcel);
            parcel_left(p, pls_parcels_pop(&link->queue));
        } else if (err != PLS_EFULL) {
            pls_parcels_pop(&link->queue);
            pls_waiting_sub(p, parcel);
            pls_send_failed(p, parcel, PULSING_CLOSED, pls_err_text(err));
        } else if (pls_outbox_want_space(link->outbox, need)) {
            pls_watch_full(p, slot);
            return;
        }
    }
}

void pls_link_signal(pulsing *p, uint32_t slot, uint32_t epoch, pls_wire_type type, uint64_t id,
                     uint64_t value)
{
    pls_wire_signal signal = {id, value};
    pls_parcel *parcel = pls_parcel_new((const uint8_t *)&signal, sizeof signal, (uint16_t)type, 0);
    if (parcel == NULL) {
        return;
    }
    parcel->slot = (uint16_t)slot;
    parcel->epoch = epoch;
    if (slot == pulsing_slot(p)) {
        pls_send_self(p, parcel);
        return;
    }
    pls_link *link = NULL;
    if (pls_link_get(p, slot, epoch, true, &link) != PLS_OK) {
        pls_parcel_free(p, parcel);
        return;
    }
    (void)pls_link_send(p, link, parcel);
}

void pls_link_owed(pulsing *p, uint32_t slot)
{
    uint32_t epoch = 0;
    pls_link *link = NULL;
    if (pls_directory_peek(p->info->directory, slot, &epoch) == PLS_SLOT_ALIVE &&
        pls_link_get(p, slot, epoch, false, &link) == PLS_OK) {
        pls_peer_ring_space(link->peer, pulsing_slot(p));
    }
}

void pls_links_close(pulsing *p)
{
    for (uint32_t slot = 0; slot < PLS_SLOTS_MAX; slot++) {
        pls_link *link = &p->links[slot];
        pls_parcel *parcel = NULL;
        while ((parcel = pls_parcels_pop(&link->queue)) != NULL) {
            pls_parcel_free(p, parcel);
        }
        pls_outbox_detach(link->outbox);
        pls_peer_release(link->peer);
        free(link->retain);
        memset(link, 0, sizeof *link);
    }
}
