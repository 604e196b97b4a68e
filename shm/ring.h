/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PLS_SHM_RING_H
#define PLS_SHM_RING_H

#include "base/err.h"
#include "shm/layout.h"

#include <stdbool.h>
#include <stdint.h>

/* A byte ring from one producer to one consumer over given memory: a control page and
 * `capacity_bytes` of data. Inner to this room.
 * Invariant: 0 <= tail - head <= capacity; [head, tail) holds whole records, each 16-aligned and in
 * one piece. The release store of tail is the only thing that makes a record exist, so a producer
 * that is killed anywhere leaves nothing half done. */

typedef struct pls_ring_producer {
    pls_ring_control *control;
    uint8_t *data;
    uint32_t capacity_bytes;
    uint32_t seq; /* of the next message */
    uint64_t tail;
    uint64_t head_seen;
    uint64_t reserved_at; /* where the record of the open reservation begins */
    uint32_t reserved_bytes;
    bool reserved;
    bool corrupt;
} pls_ring_producer;

typedef struct pls_ring_consumer {
    pls_ring_control *control;
    const uint8_t *data;
    uint32_t capacity_bytes;
    uint32_t seq; /* expected */
    uint64_t head;
    uint64_t tail_seen;
    uint32_t lent_bytes; /* size of the record lent by next, 0: none */
    bool corrupt;
} pls_ring_consumer;

/* Bytes of a record with `len` bytes of payload. */
static inline uint32_t pls_ring_record_bytes(uint32_t len)
{
    return (PLS_RECORD_BYTES + len + PLS_RECORD_ALIGN - 1) & ~(uint32_t)(PLS_RECORD_ALIGN - 1);
}

/* The longest payload that fits whatever the position: a record of half the capacity and the rest
 * of the ring before it. */
static inline uint32_t pls_ring_payload_max(uint32_t capacity_bytes)
{
    return capacity_bytes / 2 - PLS_RECORD_BYTES;
}

/* Whether a capacity is one that rings can have. Threads: any thread; never blocks. */
bool pls_ring_capacity_valid(uint32_t capacity_bytes);

/* Begin on an all-zero ring. Owns: borrows the memory while used. Threads: owner thread. */
void pls_ring_producer_init(pls_ring_producer *ring, pls_ring_control *control, uint8_t *data,
                            uint32_t capacity_bytes);
void pls_ring_consumer_init(pls_ring_consumer *ring, pls_ring_control *control, const uint8_t *data,
                            uint32_t capacity_bytes);

/* Find contiguous room for a payload of at most `bytes_max`.
 * Errors:  PLS_EFULL; PLS_ECORRUPT, for ever.
 * Owns:    lends `*room_out` until commit or the next reserve.
 * Threads: one producer; never blocks. */
PLS_MUST_USE pls_err pls_ring_reserve(pls_ring_producer *ring, uint32_t bytes_max,
                                      uint8_t **room_out);

/* Publish the reserved payload. `header->len` at most what was reserved; `header->seq` is filled in
 * here and returned. Threads: one producer; never blocks. */
uint32_t pls_ring_commit(pls_ring_producer *ring, pls_record *header);

/* Register for a notice of room; false if there is room by now.
 * Threads: one producer; never blocks. */
PLS_MUST_USE bool pls_ring_want_space(pls_ring_producer *ring, uint32_t bytes_max);

/* Bytes between the consumer's head, as it is now, and tail. Threads: one producer; never blocks.
 */
uint32_t pls_ring_backlog_bytes(const pls_ring_producer *ring);

/* The next record, its header copied and checked. Nothing may be lent.
 * Errors:  PLS_EEMPTY; PLS_ECORRUPT, for ever.
 * Owns:    lends `*payload_out` until release. Threads: one consumer; never blocks. */
PLS_MUST_USE pls_err pls_ring_next(pls_ring_consumer *ring, pls_record *header_out,
                                   const uint8_t **payload_out);

/* Give the lent record's room back; returns whether a producer waits for room and the ring is half
 * empty, in which case the caller has taken over the duty to tell it.
 * Threads: one consumer; never blocks. */
PLS_MUST_USE bool pls_ring_release(pls_ring_consumer *ring);

/* The same question for an empty ring, with the fence that makes the answer final.
 * Threads: one consumer; never blocks. */
PLS_MUST_USE bool pls_ring_take_waiting(pls_ring_consumer *ring);

/* Whether the producer has published something that was not yet taken; a load.
 * Threads: one consumer; never blocks. */
static inline bool pls_ring_has_more(const pls_ring_consumer *ring)
{
    return ring->head + ring->lent_bytes != ring->tail_seen ||
           ring->tail_seen != atomic_load_explicit(&ring->control->tail, memory_order_relaxed);
}

/* Whether the private and the shared half agree. Threads: the side's own; never blocks. */
bool pls_ring_producer_check(const pls_ring_producer *ring);
bool pls_ring_consumer_check(const pls_ring_consumer *ring);

#endif
