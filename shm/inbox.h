/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PLS_SHM_INBOX_H
#define PLS_SHM_INBOX_H

#include "base/err.h"
#include "shm/layout.h"

#include <stdbool.h>
#include <stdint.h>

/* The receiving end of one process: its inbox memfd with a ring per producer, its doorbell and its
 * eventfd. One consumer: the owner thread.
 *
 * The loop of an owner:
 *     while (pls_inbox_pop(inbox, &msg) == PLS_OK) { handle msg; pls_inbox_release(inbox); }
 *     take space, dead and owed bits; collect returned leases
 *     if (pls_inbox_arm(inbox)) { wait for the eventfd, at most a second; pls_inbox_disarm(); }
 * Invariant: a message published by a producer that then rings, or whose death is rung by the node,
 * is seen by pop before the owner sleeps, or makes the eventfd readable. */
typedef struct pls_inbox pls_inbox;

/* A message in ring memory. `bytes` is aligned to PLS_RECORD_ALIGN and includes the trace context
 * and the descriptor that `flags` announces; their presence is checked, their content is not. */
typedef struct pls_message {
    const uint8_t *bytes;
    uint32_t len;
    uint16_t type;
    uint16_t flags;
    uint32_t seq;
    uint32_t sent;
    uint32_t from_slot;
    uint32_t from_epoch;
} pls_message;

/* What pls_inbox_ready() has seen. */
enum pls_ready {
    PLS_READY_MESSAGES = 1,
    PLS_READY_SPACE = 2,
    PLS_READY_DEAD = 4,
    PLS_READY_RETURNS = 8,
    PLS_READY_OWED = 16,
};

/* Make the inbox of this process.
 * Units:   `slot` below PLS_SLOTS_MAX; `epoch` 1..PLS_EPOCH_MAX.
 * Errors:  PLS_ENOMEM, PLS_EFDLIMIT, PLS_EUNSUPPORTED, PLS_ESYS.
 * Owns:    gives `inbox_out`.
 * Threads: owner thread; may block in the kernel. */
PLS_MUST_USE pls_err pls_inbox_create(uint32_t slot, uint32_t epoch, pls_inbox **inbox_out);

/* Unmap and close. Nothing lent by it may be in use; an arena over it goes first. NULL is allowed.
 * Threads: owner thread; may block in the kernel. */
void pls_inbox_destroy(pls_inbox *inbox);

/* The memory that peers map.
 * Owns:    lends until destroy. Threads: owner thread; never blocks. */
int pls_inbox_memfd(const pls_inbox *inbox);

/* What peers write to wake this process, and its loop waits for: non-blocking, level-triggered,
 * read only by the disarming functions. Owns:    lends until destroy. Threads: owner thread; never
 * blocks. */
int pls_inbox_eventfd(const pls_inbox *inbox);

/* What there is to do, as an OR of pls_ready; a few loads and no system call, to be called while
 * looking before sleep. A set bit may turn out to be nothing. Threads: owner thread; never blocks.
 */
unsigned pls_inbox_ready(const pls_inbox *inbox);

/* The next message. Rings take turns: at most 32 messages or 64 KiB from one while another has
 * some. Between this and pls_inbox_release() no other message can be popped.
 * Errors:  PLS_EEMPTY    nothing there.
 *          PLS_ECORRUPT  a ring holds what no correct producer writes: it is never read again until
 *                        closed; pls_inbox_corrupt_slot() names it; all others go on.
 * Owns:    lends `message_out->bytes` until pls_inbox_release().
 * Threads: one consumer; never blocks. */
PLS_MUST_USE pls_err pls_inbox_pop(pls_inbox *inbox, pls_message *message_out);

/* Give the popped message's room back to its producer; notes the slot as owed a space wake if it
 * waits for room. Threads: one consumer; never blocks. */
void pls_inbox_release(pls_inbox *inbox);

/* The slot of the last PLS_ECORRUPT. Threads: owner thread; never blocks. */
uint32_t pls_inbox_corrupt_slot(const pls_inbox *inbox);

/* Before sleeping on the eventfd. True: whatever comes from now on makes it readable; sleep at most
 * a second, then call pls_inbox_disarm(). False: there is work, nothing is armed.
 * Threads: owner thread; never blocks. */
PLS_MUST_USE bool pls_inbox_arm(pls_inbox *inbox);

/* After waking, or when an event loop comes back for any reason. `readable`: the loop said that the
 * eventfd is readable; it is then emptied. Harmless when not armed.
 * Threads: owner thread; never blocks. */
void pls_inbox_disarm(pls_inbox *inbox, bool readable);

/* Instead of pls_inbox_disarm() when a bounded sleep ended by time: also counts the case that work
 * is there which nobody signals, which is a bug of the protocol. Waits up to 50 ms for a producer
 * that is between its two steps, only if there is unsignalled work.
 * Threads: owner thread; may block 50 ms. */
void pls_inbox_disarm_timeout(pls_inbox *inbox);

/* How often pls_inbox_disarm_timeout() found unsignalled work; 0 in a correct system.
 * Threads: owner thread; never blocks. */
uint64_t pls_inbox_recheck_found_work(const pls_inbox *inbox);

/* How often a bounded sleep was armed, and how often work was found by the look after arming.
 * Threads: owner thread; never blocks. */
uint64_t pls_inbox_arm_count(const pls_inbox *inbox);

/* Move the slots whose process has made room in the ring that this one writes: send again what
 * waits for it, and register again if it is still full. True if there is any.
 * Threads: owner thread; never blocks. */
bool pls_inbox_take_space(pls_inbox *inbox, pls_bitmap *taken_out);

/* Move the slots whose directory line the node has changed to dying or dead. Their rings are looked
 * at once more, since the dead may have published without ringing: before acting on a death, pop
 * until pls_inbox_drained(). True if there is any.
 * Threads: owner thread; never blocks. */
bool pls_inbox_take_dead(pls_inbox *inbox, pls_bitmap *taken_out);

/* Move the slots that waited for room in this inbox and now have it: the caller must call
 * pls_peer_ring_space() on each one's peer. True if there is any.
 * Threads: owner thread; never blocks. */
bool pls_inbox_take_owed(pls_inbox *inbox, pls_bitmap *taken_out);

/* Look at a slot's ring at the next pop as if its bell had been rung.
 * Threads: owner thread; never blocks. */
void pls_inbox_look(pls_inbox *inbox, uint32_t slot);

/* Leave a slot's ring unread (true) until told otherwise; what is in it stays, and its producer
 * waits once it is full. Threads: owner thread; never blocks. */
void pls_inbox_hold(pls_inbox *inbox, uint32_t slot, bool hold);

/* Record, before the handler is called, which message of restartable actor number `index` of that
 * producer is about to start. A value lower than an earlier one changes nothing.
 * Units:   `index` below PLS_STARTED_MAX; `value` the runtime's own sequence, from 1.
 * Threads: one consumer; never blocks. */
void pls_inbox_started_store(pls_inbox *inbox, uint32_t from_slot, uint32_t index, uint64_t value);

/* Count one more message of that producer as dealt with, for pls_outbox_taken_load().
 * Threads: one consumer; never blocks. */
void pls_inbox_taken_add(pls_inbox *inbox, uint32_t from_slot);

/* Whether the open ring of a slot is that of `epoch`: the two above need one, and must not write
 * into the ring of a successor. Threads: owner thread; never blocks. */
bool pls_inbox_is_open(const pls_inbox *inbox, uint32_t slot, uint32_t epoch);

/* Whether nothing more can be popped from that slot's ring now: empty, none, or corrupt.
 * Threads: owner thread; never blocks. */
bool pls_inbox_drained(const pls_inbox *inbox, uint32_t slot);

/* Make a slot's ring free for the slot's next epoch and give its memory back. The kernel must have
 * confirmed the producer's death, and the ring must be drained; no message of it may be popped.
 * Errors:  PLS_ESYS  the memory could not be given back; the ring is free all the same.
 * Threads: owner thread; may block in the kernel. */
PLS_MUST_USE pls_err pls_inbox_close_ring(pls_inbox *inbox, uint32_t slot);

/* Whether the whole invariant of the owner's side holds. Threads: owner thread; never blocks. */
bool pls_inbox_check(const pls_inbox *inbox);

/* For the arena over this inbox: from now on returned leases count as work.
 * Owns:    lends the header until destroy. Threads: owner thread; never blocks. */
pls_inbox_header *pls_inbox_watch_returns(pls_inbox *inbox);

/* The header. Owns: lends until destroy. Threads: owner thread; never blocks. */
pls_inbox_header *pls_inbox_header_of(pls_inbox *inbox);

/* The lease cells. Owns: lends until destroy. Threads: owner thread; never blocks. */
pls_lease_cell *pls_inbox_leases_of(pls_inbox *inbox);

#endif
