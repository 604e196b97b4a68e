/* SPDX-License-Identifier: Apache-2.0 */
/* The sending end towards one peer: this process's ring span in the peer's inbox. The ring comes to
 * be in two steps, so that a lack of memory is an error and a death in between leaves a state that
 * the peer can reset: FREE -> CREATING, allocate, READY. */
#include "shm/outbox.h"

#include "base/assert.h"
#include "shm/ring.h"
#include "shm/segment.h"

#include <stdlib.h>

struct pls_outbox {
    pls_ring_producer ring;
    pls_segment span;
    pls_peer *peer;
    uint32_t my_slot;
};

static uint64_t span_offset(uint32_t slot)
{
    return PLS_INBOX_RINGS_OFFSET + (uint64_t)slot * PLS_RING_SPAN_BYTES;
}

/* The control page is allocated already; it says whether the ring may be made at all. */
static pls_err ring_create(pls_ring_control *control, int memfd, uint64_t offset, uint32_t my_epoch,
                           uint32_t capacity_bytes)
{
    uint32_t state = PLS_RING_FREE;
    /* Acquire pairs with the consumer's release when it freed the ring for a new epoch. */
    if (!atomic_compare_exchange_strong_explicit(&control->state, &state,
                                                 PLS_RING_CREATING | my_epoch << 8,
                                                 memory_order_acquire, memory_order_relaxed)) {
        return PLS_EEXIST;
    }
    pls_err err = pls_segment_commit(memfd, offset + PLS_PAGE_BYTES, capacity_bytes);
    if (err != PLS_OK) {
        atomic_store_explicit(&control->state, PLS_RING_FREE, memory_order_release);
        return err;
    }
    atomic_store_explicit(&control->capacity_bytes, capacity_bytes, memory_order_relaxed);
    /* Release pairs with the acquire load of the consumer that opens the ring. */
    atomic_store_explicit(&control->state, PLS_RING_READY | my_epoch << 8, memory_order_release);
    return PLS_OK;
}

pls_err pls_outbox_attach(pls_peer *peer, uint32_t my_slot, uint32_t my_epoch,
                          uint32_t capacity_bytes, pls_outbox **outbox_out)
{
    pls_assert(my_slot < PLS_SLOTS_MAX);
    pls_assert(my_epoch >= 1 && my_epoch <= PLS_EPOCH_MAX);
    pls_assert(pls_ring_capacity_valid(capacity_bytes));
    int memfd = pls_peer_memfd(peer);
    if (memfd < 0) {
        return PLS_EEXIST;
    }
    pls_outbox *outbox = calloc(1, sizeof *outbox);
    if (outbox == NULL) {
        return PLS_ENOMEM;
    }
    uint64_t offset = span_offset(my_slot);
    outbox->span = PLS_SEGMENT_EMPTY;
    outbox->my_slot = my_slot;
    pls_err err = pls_segment_commit(memfd, offset, PLS_PAGE_BYTES);
    if (err != PLS_OK) {
        goto fail;
    }
    err = pls_segment_map(&outbox->span, memfd, offset, PLS_PAGE_BYTES + capacity_bytes,
                          PLS_SEGMENT_WRITE);
    if (err != PLS_OK) {
        goto fail;
    }
    pls_ring_control *control = (pls_ring_control *)(void *)outbox->span.base;
    err = ring_create(control, memfd, offset, my_epoch, capacity_bytes);
    if (err != PLS_OK) {
        goto fail;
    }
    pls_ring_producer_init(&outbox->ring, control, outbox->span.base + PLS_PAGE_BYTES,
                           capacity_bytes);
    pls_peer_memfd_close(peer);
    outbox->peer = pls_peer_acquire(peer);
    *outbox_out = outbox;
    return PLS_OK;
fail:
    pls_outbox_detach(outbox);
    return err;
}

void pls_outbox_detach(pls_outbox *outbox)
{
    if (outbox == NULL) {
        return;
    }
    pls_segment_detach(&outbox->span);
    pls_peer_release(outbox->peer);
    free(outbox);
}

pls_peer *pls_outbox_peer(const pls_outbox *outbox)
{
    return outbox->peer;
}

uint32_t pls_outbox_payload_max(const pls_outbox *outbox)
{
    return pls_ring_payload_max(outbox->ring.capacity_bytes);
}

pls_err pls_outbox_reserve(pls_outbox *outbox, uint32_t bytes_max, uint8_t **room_out)
{
    return pls_ring_reserve(&outbox->ring, bytes_max, room_out);
}

uint32_t pls_outbox_commit(pls_outbox *outbox, uint32_t len, uint16_t type, uint16_t flags,
                           uint32_t sent)
{
    pls_assert(type != 0 && type != PLS_RECORD_PAD);
    pls_assert((flags & PLS_FLAGS_SHM_MASK & ~PLS_FLAGS_SHM_KNOWN) == 0);
    pls_record header = {.len = len, .type = type, .flags = flags, .sent = sent};
    return pls_ring_commit(&outbox->ring, &header);
}

bool pls_outbox_wake(pls_outbox *outbox)
{
    return pls_peer_ring_bell(outbox->peer, outbox->my_slot);
}

bool pls_outbox_want_space(pls_outbox *outbox, uint32_t bytes_max)
{
    return pls_ring_want_space(&outbox->ring, bytes_max);
}

uint32_t pls_outbox_backlog_bytes(const pls_outbox *outbox)
{
    return pls_ring_backlog_bytes(&outbox->ring);
}

uint64_t pls_outbox_started_load(const pls_outbox *outbox, uint32_t index)
{
    pls_assert(index < PLS_STARTED_MAX);
    /* Acquire pairs with the release in pls_inbox_started_store(). */
    return atomic_load_explicit(&outbox->ring.control->started[index], memory_order_acquire);
}

uint64_t pls_outbox_taken_load(const pls_outbox *outbox)
{
    /* Acquire pairs with the release in pls_inbox_taken_add(). */
    return atomic_load_explicit(&outbox->ring.control->taken, memory_order_acquire);
}

bool pls_outbox_check(const pls_outbox *outbox)
{
    return pls_ring_producer_check(&outbox->ring) && pls_segment_check(&outbox->span) &&
           pls_peer_check(outbox->peer) && outbox->my_slot < PLS_SLOTS_MAX;
}
