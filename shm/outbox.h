/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PLS_SHM_OUTBOX_H
#define PLS_SHM_OUTBOX_H

#include "base/err.h"
#include "shm/peer.h"

#include <stdbool.h>
#include <stdint.h>

/* The sending end towards one peer: this process's ring in the peer's inbox. One producer.
 *
 *     err = pls_outbox_reserve(outbox, bytes_max, &room);
 *     PLS_OK:    write the payload into room; pls_outbox_commit(); after the batch
 * pls_outbox_wake() PLS_EFULL: keep the message; if (pls_outbox_want_space(outbox, bytes_max)) wait
 * for the space bit of this peer in the own inbox, then try again, and so on Invariant: what is
 * committed is whole, in order, and seen by the peer even if this process is killed at the next
 * instruction; what is not committed is never seen. */
typedef struct pls_outbox pls_outbox;

/* Map this process's ring in the peer's inbox and create it there. One outbox per peer object.
 * Units:   `capacity_bytes` a power of two, PLS_RING_CAPACITY_MIN..PLS_RING_CAPACITY_MAX.
 * Errors:  PLS_ENOMEM  no memory; the ring stays free and the call may be repeated.
 *          PLS_EEXIST  the ring is in use by another epoch of this slot, or this peer object has
 *                      had its outbox. PLS_ESYS.
 * Owns:    takes a reference of its own on `peer`; gives `outbox_out`.
 * Threads: owner thread; may block in the kernel. */
PLS_MUST_USE pls_err pls_outbox_attach(pls_peer *peer, uint32_t my_slot, uint32_t my_epoch,
                                       uint32_t capacity_bytes, pls_outbox **outbox_out);

/* Unmap. What was committed stays for the peer; the ring itself is freed by the peer after this
 * process's death. NULL is allowed. Threads: owner thread; may block in the kernel. */
void pls_outbox_detach(pls_outbox *outbox);

/* The peer this outbox leads to. Owns: lends until detach. Threads: any thread; never blocks. */
pls_peer *pls_outbox_peer(const pls_outbox *outbox);

/* The longest payload that can ever be reserved: capacity / 2 - PLS_RECORD_BYTES.
 * Units:   bytes. Threads: any thread; never blocks. */
uint32_t pls_outbox_payload_max(const pls_outbox *outbox);

/* Find contiguous room for one payload. Nothing is visible to the peer. Reserving again without a
 * commit is allowed and forgets the first.
 * Units:   `bytes_max` 0..pls_outbox_payload_max().
 * Errors:  PLS_EFULL     nothing changed; see pls_outbox_want_space().
 *          PLS_ECORRUPT  the peer's head is impossible; the outbox accepts nothing any more.
 * Owns:    lends `*room_out`, aligned to PLS_RECORD_ALIGN, until commit, reserve or detach.
 * Threads: one producer; never blocks, no allocation. */
PLS_MUST_USE pls_err pls_outbox_reserve(pls_outbox *outbox, uint32_t bytes_max, uint8_t **room_out);

/* Publish the reserved payload as one message: one release store. Returns its sequence number.
 * Units:   `len` at most what was reserved; `type` 1..0xfffe; `flags` PLS_FLAG_* in the low byte,
 *          the runtime's own in the high byte; `sent` of pls_clock_stamp().
 * Threads: one producer; never blocks, no allocation. */
uint32_t pls_outbox_commit(pls_outbox *outbox, uint32_t len, uint16_t type, uint16_t flags,
                           uint32_t sent);

/* Let the peer know of everything committed so far; a system call only if it sleeps. Once per batch
 * is enough. Returns true if the peer had to be signalled.
 * Threads: one producer; never blocks. */
bool pls_outbox_wake(pls_outbox *outbox);

/* After PLS_EFULL: true if the peer will set the space bit when it makes room; false if there is
 * room for `bytes_max` by now, so try again at once. Call it again after each space bit that did
 * not help. Threads: one producer; never blocks. */
PLS_MUST_USE bool pls_outbox_want_space(pls_outbox *outbox, uint32_t bytes_max);

/* Bytes committed and not yet released by the peer, headers and padding included.
 * Threads: one producer; never blocks. */
uint32_t pls_outbox_backlog_bytes(const pls_outbox *outbox);

/* What the peer last recorded by pls_inbox_started_store() for restartable actor `index`; 0 if
 * nothing. Final once the kernel has confirmed the peer's death.
 * Threads: one producer; never blocks. */
uint64_t pls_outbox_started_load(const pls_outbox *outbox, uint32_t index);

/* How many messages of this ring the peer has counted by pls_inbox_taken_add(): input, as all that
 * the peer writes. Final once the kernel has confirmed the peer's death.
 * Threads: one producer; never blocks. */
uint64_t pls_outbox_taken_load(const pls_outbox *outbox);

/* Whether the whole invariant of the producer's side holds. Threads: one producer; never blocks. */
bool pls_outbox_check(const pls_outbox *outbox);

#endif
