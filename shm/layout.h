/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PLS_SHM_LAYOUT_H
#define PLS_SHM_LAYOUT_H

#include "base/limits.h"

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

/* The bytes that processes of one host share for messages and payloads. The bytes of the `obs`
 * memory, which only its owner writes, are in obs_layout.h.
 *
 * inbox memfd of process C (sparse, fixed size, sealed SHRINK|GROW|SEAL):
 *   header page | lease cells of C as an owner of payloads | one ring span per producer slot
 * Counters run free and are compared by unsigned difference. Everything is an offset or an index,
 * and whoever reads what another process wrote checks it before use. */

#define PLS_LAYOUT_MAGIC UINT64_C(0x31786f626e69736c) /* "lsinbox1" */
#define PLS_LAYOUT_VERSION 1
#define PLS_PAGE_BYTES 4096
#define PLS_SLOT_WORDS (PLS_SLOTS_MAX / 64)

/* One bit per slot. */
typedef struct pls_bitmap {
    uint64_t word[PLS_SLOT_WORDS];
} pls_bitmap;

/* A word alone on its line, so that writers of different words do not disturb each other. */
typedef struct pls_line {
    _Alignas(PLS_LINE_BYTES) _Atomic uint64_t word;
} pls_line;

/* First page of an inbox; every peer maps it for writing.
 * wake: bit 0 = armed (about to sleep or asleep), the bits above = epoch of this arming; changed by
 *   the owner, and by a producer only as CAS(armed epoch -> the even number after it).
 * bell: a set bit = that slot's ring may hold something. space: a set bit = the peer of that slot
 *   made room in the ring that this process writes. dead: a set bit = the directory line of that
 * slot says dying or dead by now; set by the node process only. returns: top of the stack of
 * returned lease cells, cell index + 1, 0 = empty. returns_wanted: nonzero = the owner waits for
 * memory, so whoever returns also wakes it. */
typedef struct pls_inbox_header {
    pls_line wake;
    pls_line bell[PLS_SLOT_WORDS];
    pls_line space[PLS_SLOT_WORDS];
    pls_line dead[PLS_SLOT_WORDS];
    _Alignas(PLS_LINE_BYTES) _Atomic uint64_t returns;
    _Atomic uint64_t returns_wanted;
    _Alignas(PLS_LINE_BYTES) uint64_t magic;
    uint32_t version;
    uint32_t layout_hash;
    uint32_t slot;
    uint32_t epoch;
    uint32_t pid;
    uint32_t spare;
    uint64_t start_time; /* of the process, in clock ticks after boot, as in its stat file */
    _Alignas(PLS_LINE_BYTES) uint8_t life[PLS_LINE_BYTES]; /* life.c's robust futex word */
} pls_inbox_header;

/* One lent block to one receiver. The receiver writes `next` only, and only while it returns. */
typedef struct pls_lease_cell {
    _Atomic uint32_t next; /* cell index + 1 of the one below it on the stack, 0 = none */
    _Atomic uint32_t gen;  /* of this lending; changes with every lending and every return */
    uint16_t receiver;
    uint16_t flags;
    uint32_t spare;
} pls_lease_cell;

#define PLS_LEASES_MAX 65536

enum pls_ring_state { PLS_RING_FREE = 0, PLS_RING_CREATING = 1, PLS_RING_READY = 2 };

/* Words in a ring's control page where the consumer records which message it starts. */
#define PLS_STARTED_MAX 448

/* First page of a ring span. An all-zero page is a free ring.
 * tail, state, capacity_bytes: the producer's. head, taken, started: the consumer's.
 * producer_waiting: set by the producer that wants room, cleared by the consumer that promises to
 * tell of it. */
typedef struct pls_ring_control {
    _Alignas(PLS_LINE_BYTES) _Atomic uint64_t tail;
    _Alignas(PLS_LINE_BYTES) _Atomic uint64_t head;
    _Atomic uint64_t taken; /* of the messages that the runtime counts, those dealt with */
    _Alignas(PLS_LINE_BYTES) _Atomic uint32_t state; /* pls_ring_state | producer epoch << 8 */
    _Atomic uint32_t capacity_bytes;
    _Alignas(PLS_LINE_BYTES) _Atomic uint64_t producer_waiting;
    uint8_t spare[PLS_LINE_BYTES - sizeof(uint64_t)];
    _Atomic uint64_t started[PLS_STARTED_MAX];
} pls_ring_control;

#define PLS_RING_CAPACITY_MIN 4096
#define PLS_RING_CAPACITY_MAX (256 * 1024)
#define PLS_RING_SPAN_BYTES (PLS_PAGE_BYTES + PLS_RING_CAPACITY_MAX)

/* Before every message in a ring. A record starts on a multiple of 16 and never wraps: the rest of
 * the ring is filled by a record of type PLS_RECORD_PAD, which has no sequence number. */
typedef struct pls_record {
    uint32_t len; /* bytes of payload, PLS_TRACE_BYTES among them if the flag is set */
    uint16_t type;
    uint16_t flags;
    uint32_t seq;  /* counts this ring's messages from 0, modulo 2^32 */
    uint32_t sent; /* pls_clock_stamp() of the sender */
} pls_record;

#define PLS_RECORD_BYTES 16
#define PLS_RECORD_ALIGN 16
#define PLS_RECORD_PAD 0xffff /* types 1 .. 0xfffe are the runtime's; 0 is never valid */

/* Low byte of `flags` belongs to this room, high byte to the runtime. */
#define PLS_FLAG_TRACE 0x0001      /* payload starts with a trace context of PLS_TRACE_BYTES */
#define PLS_FLAG_DESCRIPTOR 0x0002 /* payload starts (after a trace) with a pls_descriptor */
#define PLS_FLAGS_SHM_MASK 0x00ff
#define PLS_FLAGS_SHM_KNOWN (PLS_FLAG_TRACE | PLS_FLAG_DESCRIPTOR)
#define PLS_TRACE_BYTES 32

/* A payload outside of the ring: a part of a segment of the sender, lent by one lease cell. */
typedef struct pls_descriptor {
    uint32_t segment;
    uint32_t lease;
    uint32_t gen;
    uint32_t flags; /* PLS_DESCRIPTOR_* */
    uint64_t offset;
    uint64_t len;
} pls_descriptor;

/* The receiver holds more than its share: copy and return at once. */
#define PLS_DESCRIPTOR_COPY 0x0001
#define PLS_DESCRIPTOR_FLAGS_KNOWN PLS_DESCRIPTOR_COPY

/* Epochs count a slot's uses in 24 bits and are never 0. */
#define PLS_EPOCH_MAX 0xffffff

#define PLS_INBOX_LEASES_OFFSET PLS_PAGE_BYTES
#define PLS_INBOX_LEASES_BYTES (PLS_LEASES_MAX * (uint64_t)sizeof(pls_lease_cell))
#define PLS_INBOX_RINGS_OFFSET (PLS_INBOX_LEASES_OFFSET + PLS_INBOX_LEASES_BYTES)
#define PLS_INBOX_BYTES (PLS_INBOX_RINGS_OFFSET + PLS_SLOTS_MAX * (uint64_t)PLS_RING_SPAN_BYTES)

/* Changes whenever a size or a place changes, so that builds that disagree refuse each other. */
#define PLS_LAYOUT_HASH                                                                            \
    ((uint32_t)(sizeof(pls_inbox_header) * UINT32_C(2654435761) ^                                  \
                sizeof(pls_ring_control) * UINT32_C(40503) ^ sizeof(pls_lease_cell) << 20 ^        \
                offsetof(pls_inbox_header, returns) << 4 ^ PLS_LINE_BYTES ^ PLS_LEASES_MAX ^       \
                PLS_RING_SPAN_BYTES))

_Static_assert(ATOMIC_LLONG_LOCK_FREE == 2 && ATOMIC_INT_LOCK_FREE == 2,
               "a lock inside an atomic would stay taken after a kill");
_Static_assert(sizeof(_Atomic uint64_t) == 8 && sizeof(_Atomic uint32_t) == 4, "plain words");
_Static_assert(offsetof(pls_inbox_header, bell) == 128, "place of bell");
_Static_assert(offsetof(pls_inbox_header, space) == 640, "place of space");
_Static_assert(offsetof(pls_inbox_header, dead) == 1152, "place of dead");
_Static_assert(offsetof(pls_inbox_header, returns) == 1664, "place of returns");
_Static_assert(offsetof(pls_inbox_header, magic) == 1792, "place of the constants");
_Static_assert(offsetof(pls_inbox_header, life) == 1920, "place of the life word");
_Static_assert(sizeof(pls_inbox_header) <= PLS_PAGE_BYTES, "the header is one page");
_Static_assert(sizeof(pls_lease_cell) == 16, "size of a lease cell");
_Static_assert(offsetof(pls_ring_control, started) == 512, "place of the started words");
_Static_assert(sizeof(pls_ring_control) == PLS_PAGE_BYTES, "ring control is one page");
_Static_assert(sizeof(pls_record) == PLS_RECORD_BYTES, "size of a record header");
_Static_assert(PLS_RECORD_BYTES % PLS_RECORD_ALIGN == 0, "a pad header always fits");
_Static_assert(sizeof(pls_descriptor) == 32, "size of a descriptor");
_Static_assert(PLS_INBOX_RINGS_OFFSET % PLS_PAGE_BYTES == 0, "spans begin on a page");
_Static_assert(PLS_RING_SPAN_BYTES % PLS_PAGE_BYTES == 0, "spans are whole pages");
_Static_assert((PLS_RING_CAPACITY_MAX & (PLS_RING_CAPACITY_MAX - 1)) == 0, "masked positions");

#endif
