/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PLS_SHM_PEER_H
#define PLS_SHM_PEER_H

#include "base/err.h"
#include "shm/layout.h"

#include <stdbool.h>
#include <stdint.h>

/* Another process as this one sees it: its inbox header and lease table mapped for writing, and
 * its eventfd. One object per (slot, epoch), shared by the outbox to it, the views of its payloads
 * and everything that wakes it. Counted: the memory stays mapped until the last release, also after
 * the peer's death, because a lease may still be returned to it.
 * Invariant: what is mapped carries the magic, layout, slot and epoch that were asked for. */
typedef struct pls_peer pls_peer;

/* Map a peer's inbox header.
 * Units:   `slot` below PLS_SLOTS_MAX; `epoch` 1..PLS_EPOCH_MAX.
 * Errors:  PLS_EVERSION  another layout; PLS_EPROTO  not an inbox, not sealed, or not that slot and
 *          epoch; PLS_ENOMEM, PLS_ESYS. The descriptors are then still the caller's.
 * Owns:    takes `memfd` and `eventfd`; gives `peer_out` with one reference.
 * Threads: owner thread; may block in the kernel. */
PLS_MUST_USE pls_err pls_peer_attach(int memfd, int eventfd, uint32_t slot, uint32_t epoch,
                                     pls_peer **peer_out);

/* One more reference. Owns: gives a reference. Threads: any thread; never blocks. */
pls_peer *pls_peer_acquire(pls_peer *peer);

/* Give a reference back; the last one unmaps and closes. NULL is allowed.
 * Threads: any thread; may block in the kernel. */
void pls_peer_release(pls_peer *peer);

/* Which use of which slot this is. Threads: any thread; never blocks. */
uint32_t pls_peer_slot(const pls_peer *peer);

/* The epoch of that slot. Threads: any thread; never blocks. */
uint32_t pls_peer_epoch(const pls_peer *peer);

/* The peer's life word, for life.h.
 * Owns:    lends until the last release. Threads: any thread; never blocks. */
const uint8_t *pls_peer_life(const pls_peer *peer);

/* Tell the peer that this process made room in the ring which the peer writes, and wake it.
 * Units:   `my_slot` of this process.
 * Threads: any thread; never blocks. */
void pls_peer_ring_space(pls_peer *peer, uint32_t my_slot);

/* Tell the peer to read the directory line of `dead_slot` again, and wake it: that process is
 * dying, or the kernel has confirmed its death. Only the node process may, after it has written the
 * line. Threads: any thread; never blocks. */
void pls_peer_ring_dead(pls_peer *peer, uint32_t dead_slot);

/* Wake the peer if it sleeps or is about to, with no bit set.
 * Threads: any thread; never blocks. */
void pls_peer_wake(const pls_peer *peer);

/* For the outbox: the descriptor of the inbox, -1 after pls_peer_memfd_close().
 * Owns:    lends until then. Threads: owner thread; never blocks. */
int pls_peer_memfd(const pls_peer *peer);

/* Close the descriptor of the inbox, which nobody needs after the outbox is attached.
 * Threads: owner thread; may block in the kernel. */
void pls_peer_memfd_close(pls_peer *peer);

/* Ring this process's bell at the peer: something is in the ring of `my_slot`. Returns true if the
 * peer had to be signalled. Threads: any thread; never blocks. */
bool pls_peer_ring_bell(pls_peer *peer, uint32_t my_slot);

/* For leases: the peer's header and lease cells.
 * Owns:    lends until the last release. Threads: any thread; never blocks. */
pls_inbox_header *pls_peer_header(const pls_peer *peer);

/* The lease cells. Owns: lends until the last release. Threads: any thread; never blocks. */
pls_lease_cell *pls_peer_leases(const pls_peer *peer);

/* Whether the peer's constants still hold. Threads: owner thread; never blocks. */
bool pls_peer_check(const pls_peer *peer);

#endif
