/* SPDX-License-Identifier: Apache-2.0 */
/* The single-producer single-consumer byte ring. Each side keeps its own position and a copy of the
 * other's in private memory, so that the shared lines move only when a copy is used up, and so that
 * what the other side may have forged is checked once, where it is read. */
#include "shm/ring.h"

#include "base/assert.h"
#include "base/mutant.h"
#include "shm/fence.h"

#include <string.h>

bool pls_ring_capacity_valid(uint32_t capacity_bytes)
{
    return capacity_bytes >= PLS_RING_CAPACITY_MIN && capacity_bytes <= PLS_RING_CAPACITY_MAX &&
           (capacity_bytes & (capacity_bytes - 1)) == 0;
}

void pls_ring_producer_init(pls_ring_producer *ring, pls_ring_control *control, uint8_t *data,
                            uint32_t capacity_bytes)
{
    pls_assert(pls_ring_capacity_valid(capacity_bytes));
    *ring = (pls_ring_producer){.control = control, .data = data, .capacity_bytes = capacity_bytes};
}

void pls_ring_consumer_init(pls_ring_consumer *ring, pls_ring_control *control, const uint8_t *data,
                            uint32_t capacity_bytes)
{
    pls_assert(pls_ring_capacity_valid(capacity_bytes));
    *ring = (pls_ring_consumer){.control = control, .data = data, .capacity_bytes = capacity_bytes};
}

/* Whether `bytes` are free; looks at the consumer's head only if the copy does not suffice. */
static pls_err room_find(pls_ring_producer *ring, uint32_t bytes)
{
    if (ring->capacity_bytes - (ring->tail - ring->head_seen) >= bytes) {
        return PLS_OK;
    }
    /* Acquire pairs with the release in pls_ring_release(): the consumer has finished reading what
     * will now be overwritten. */
    uint64_t head = atomic_load_explicit(&ring->control->head, memory_order_acquire);
    if (ring->tail - head > ring->tail - ring->head_seen || head % PLS_RECORD_ALIGN != 0) {
        ring->corrupt = true;
        return PLS_ECORRUPT;
    }
    ring->head_seen = head;
    return ring->capacity_bytes - (ring->tail - head) >= bytes ? PLS_OK : PLS_EFULL;
}

/* The bytes to skip so that a record of `bytes` does not wrap. */
static uint32_t pad_bytes(const pls_ring_producer *ring, uint32_t bytes)
{
    uint32_t to_end = ring->capacity_bytes - (uint32_t)(ring->tail & (ring->capacity_bytes - 1));
    return bytes > to_end ? to_end : 0;
}

pls_err pls_ring_reserve(pls_ring_producer *ring, uint32_t bytes_max, uint8_t **room_out)
{
    pls_assert(bytes_max <= pls_ring_payload_max(ring->capacity_bytes));
    if (ring->corrupt) {
        return PLS_ECORRUPT;
    }
    uint32_t need = pls_ring_record_bytes(bytes_max);
    uint32_t pad = pad_bytes(ring, need);
    pls_err err = room_find(ring, pad + need);
    if (err != PLS_OK) {
        return err;
    }
    uint32_t mask = ring->capacity_bytes - 1;
    if (pad != 0) {
        /* Not visible before the record that follows it. */
        pls_record header = {.len = pad - PLS_RECORD_BYTES, .type = PLS_RECORD_PAD};
        memcpy(ring->data + (ring->tail & mask), &header, sizeof header);
    }
    ring->reserved_at = ring->tail + pad;
    ring->reserved_bytes = bytes_max;
    ring->reserved = true;
    if (pls_mutant(PLS_MUTANT_EARLY_PUBLISH)) {
        atomic_store_explicit(&ring->control->tail, ring->reserved_at + need, memory_order_release);
    }
    *room_out = ring->data + (ring->reserved_at & mask) + PLS_RECORD_BYTES;
    return PLS_OK;
}

uint32_t pls_ring_commit(pls_ring_producer *ring, pls_record *header)
{
    pls_assert(ring->reserved);
    pls_assert(header->len <= ring->reserved_bytes);
    header->seq = ring->seq++;
    ring->tail = ring->reserved_at + pls_ring_record_bytes(header->len);
    ring->reserved = false;
    memcpy(ring->data + (ring->reserved_at & (ring->capacity_bytes - 1)), header, sizeof *header);
    /* The commit point. Release pairs with the acquire load in pls_ring_next(). */
    atomic_store_explicit(&ring->control->tail, ring->tail, memory_order_release);
    return header->seq;
}

bool pls_ring_want_space(pls_ring_producer *ring, uint32_t bytes_max)
{
    pls_assert(bytes_max <= pls_ring_payload_max(ring->capacity_bytes));
    uint32_t need = pls_ring_record_bytes(bytes_max);
    atomic_store_explicit(&ring->control->producer_waiting, 1, memory_order_relaxed);
    /* Between registering and the last look; pairs with the one in pls_ring_take_waiting(). */
    pls_fence_full();
    if (room_find(ring, pad_bytes(ring, need) + need) == PLS_EFULL) {
        return true;
    }
    atomic_store_explicit(&ring->control->producer_waiting, 0, memory_order_relaxed);
    return false;
}

uint32_t pls_ring_backlog_bytes(const pls_ring_producer *ring)
{
    uint64_t backlog =
        ring->tail - atomic_load_explicit(&ring->control->head, memory_order_relaxed);
    return backlog <= ring->capacity_bytes ? (uint32_t)backlog : ring->capacity_bytes;
}

/* Copy a header out of memory that its producer could still change: each half is read once. */
static pls_record header_read(const uint8_t *at)
{
    const volatile uint64_t *halves = (const volatile uint64_t *)(const void *)at;
    uint64_t copy[2] = {halves[0], halves[1]};
    pls_record header;
    memcpy(&header, copy, sizeof header);
    return header;
}

/* Whether a record can be what a correct producer wrote at this place. */
static bool header_valid(const pls_ring_consumer *ring, const pls_record *header,
                         uint64_t available)
{
    if (header->len > ring->capacity_bytes) {
        return false;
    }
    uint32_t at = (uint32_t)(ring->head & (ring->capacity_bytes - 1));
    uint32_t bytes = pls_ring_record_bytes(header->len);
    if (!pls_mutant(PLS_MUTANT_NO_BOUNDS) &&
        (bytes > available || bytes > ring->capacity_bytes - at)) {
        return false;
    }
    if (header->type == PLS_RECORD_PAD) {
        return bytes == ring->capacity_bytes - at && bytes < available && header->flags == 0;
    }
    uint32_t prefix = ((header->flags & PLS_FLAG_TRACE) != 0 ? PLS_TRACE_BYTES : 0) +
                      ((header->flags & PLS_FLAG_DESCRIPTOR) != 0 ? sizeof(pls_descriptor) : 0);
    return header->type != 0 && header->seq == ring->seq && header->len >= prefix &&
           (header->flags & PLS_FLAGS_SHM_MASK & ~PLS_FLAGS_SHM_KNOWN) == 0;
}

static pls_err tail_look(pls_ring_consumer *ring)
{
    /* Acquire pairs with the release store of tail in pls_ring_commit(). */
    uint64_t tail = atomic_load_explicit(&ring->control->tail, memory_order_acquire);
    if (tail == ring->head) {
        return PLS_EEMPTY;
    }
    if (tail - ring->head > ring->capacity_bytes || tail % PLS_RECORD_ALIGN != 0) {
        ring->corrupt = true;
        return PLS_ECORRUPT;
    }
    ring->tail_seen = tail;
    return PLS_OK;
}

pls_err pls_ring_next(pls_ring_consumer *ring, pls_record *header_out, const uint8_t **payload_out)
{
    pls_assert(ring->lent_bytes == 0);
    if (ring->corrupt) {
        return PLS_ECORRUPT;
    }
    if (ring->head == ring->tail_seen) {
        pls_err err = tail_look(ring);
        if (err != PLS_OK) {
            return err;
        }
    }
    /* A pad is followed by a record in the same publication, so this ends after two rounds. */
    for (int round = 0; round < 2; round++) {
        const uint8_t *at = ring->data + (ring->head & (ring->capacity_bytes - 1));
        pls_record header = header_read(at);
        if (!header_valid(ring, &header, ring->tail_seen - ring->head)) {
            break;
        }
        if (header.type == PLS_RECORD_PAD) {
            ring->head += pls_ring_record_bytes(header.len);
            continue;
        }
        ring->seq++;
        ring->lent_bytes = pls_ring_record_bytes(header.len);
        *header_out = header;
        *payload_out = at + PLS_RECORD_BYTES;
        return PLS_OK;
    }
    ring->corrupt = true;
    return PLS_ECORRUPT;
}

static bool waiting_take(pls_ring_consumer *ring)
{
    if (atomic_load_explicit(&ring->control->producer_waiting, memory_order_relaxed) == 0) {
        return false;
    }
    /* Every clearing is followed by a notice, so a wish registered just before this store is not
     * lost: the producer looks again when the notice comes. */
    atomic_store_explicit(&ring->control->producer_waiting, 0, memory_order_relaxed);
    return true;
}

bool pls_ring_release(pls_ring_consumer *ring)
{
    pls_assert(ring->lent_bytes != 0);
    ring->head += ring->lent_bytes;
    ring->lent_bytes = 0;
    /* Release pairs with the acquire load in room_find(): our reading is over. */
    atomic_store_explicit(&ring->control->head, ring->head, memory_order_release);
    /* Waking a producer for every few bytes would make both sides take turns sleeping. */
    return ring->tail_seen - ring->head <= ring->capacity_bytes / 2 && waiting_take(ring);
}

bool pls_ring_take_waiting(pls_ring_consumer *ring)
{
    /* Between the last store of head and the look; pairs with the one in pls_ring_want_space(). */
    pls_fence_full();
    return waiting_take(ring);
}

bool pls_ring_producer_check(const pls_ring_producer *ring)
{
    uint64_t used = ring->tail - ring->head_seen;
    return pls_ring_capacity_valid(ring->capacity_bytes) && used <= ring->capacity_bytes &&
           ring->tail % PLS_RECORD_ALIGN == 0 &&
           ring->tail == atomic_load_explicit(&ring->control->tail, memory_order_relaxed) &&
           (!ring->reserved || ring->reserved_at - ring->tail < ring->capacity_bytes);
}

bool pls_ring_consumer_check(const pls_ring_consumer *ring)
{
    uint64_t head = atomic_load_explicit(&ring->control->head, memory_order_relaxed);
    return pls_ring_capacity_valid(ring->capacity_bytes) && ring->head % PLS_RECORD_ALIGN == 0 &&
           ring->head - head < ring->capacity_bytes &&
           (ring->corrupt || (ring->tail_seen - ring->head <= ring->capacity_bytes &&
                              ring->lent_bytes <= ring->tail_seen - ring->head));
}
