/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PLS_SHM_LEASE_H
#define PLS_SHM_LEASE_H

#include "base/err.h"
#include "shm/layout.h"
#include "shm/peer.h"

#include <stdbool.h>
#include <stdint.h>

/* Payloads of other processes as this one reads them: a table of mapped foreign segments and the
 * leases in them.
 * Invariant: the bytes of an open lease are mapped and unchanged until it is returned, also when
 * their owner has died. */
typedef struct pls_views pls_views;

typedef struct pls_view pls_view;

/* One lease, in the caller's memory; moved only as a whole. Not open if `bytes` is NULL. */
typedef struct pls_lease {
    const uint8_t *bytes;
    uint64_t len;
    bool copy_soon; /* this process holds more than its share: copy and return at once */
    uint32_t cell;
    uint32_t gen;
    pls_view *view;
} pls_lease;

/* Finds the read-only descriptor of a segment, for instance by asking the node. Gives `*fd_out`.
 * Any error is handed on by pls_lease_open(), which may be called again later. */
typedef pls_err (*pls_views_resolve)(void *context, uint32_t slot, uint32_t epoch, uint32_t segment,
                                     int *fd_out);

/* Make the table of this process.
 * Errors:  PLS_ENOMEM, PLS_EUNSUPPORTED, PLS_ESYS.
 * Owns:    borrows `context` until destroy; gives `views_out`.
 * Threads: owner thread; never blocks. */
PLS_MUST_USE pls_err pls_views_create(pls_views_resolve resolve, void *context,
                                      pls_views **views_out);

/* Unmap everything without an open lease. Leases that are open stay so and may still be returned;
 * the last return frees the table and all that it kept. NULL is allowed; nothing else may be done
 * with the table afterwards. Threads: owner thread; may block in the kernel. */
void pls_views_destroy(pls_views *views);

/* Open the lease that `descriptor` of a message from `owner` announces; maps the segment on first
 * use. The descriptor is input: everything in it is checked against the memory it names.
 * Errors:  PLS_ECORRUPT  it points outside of its segment, names no lease of ours, or is stale.
 *          PLS_EPROTO    the segment is not sealed memory. PLS_ENOMEM, PLS_ESYS, PLS_EFDLIMIT, and
 *          what `resolve` returned. Nothing was opened; the lease is still lent to this process.
 * Units:   `my_slot` of this process.
 * Owns:    borrows `descriptor`; takes its own reference on `owner`; gives `*lease_out`.
 * Threads: owner thread; may block in the kernel. */
PLS_MUST_USE pls_err pls_lease_open(pls_views *views, pls_peer *owner, uint32_t my_slot,
                                    const pls_descriptor *descriptor, pls_lease *lease_out);

/* Give the lease back to its owner: one CAS, no allocation, no system call unless the owner waits
 * for memory. The bytes must not be read any more. In a forked child nothing happens. A lease that
 * is not open is left alone.
 * Threads: any thread, also at the end of the process; never blocks, but for the last return after
 * pls_views_destroy(), which unmaps. */
void pls_lease_return(pls_lease *lease);

/* Return the lease of a descriptor without mapping its segment (message dropped, expired, or
 * refused by the receiver). Nothing happens if it is stale or impossible. Threads: owner thread;
 * never blocks. */
void pls_lease_decline(pls_views *views, pls_peer *owner, uint32_t my_slot,
                       const pls_descriptor *descriptor);

/* The owner (slot, epoch) is dead: its segments are unmapped as soon as their last lease is gone.
 * Threads: owner thread; may block in the kernel. */
void pls_views_owner_dead(pls_views *views, uint32_t slot, uint32_t epoch);

/* Unmap what is no longer needed; cheap when there is nothing. Call it now and then.
 * Threads: owner thread; may block in the kernel. */
void pls_views_sweep(pls_views *views);

/* Leases that are open. Threads: owner thread; never blocks. */
uint64_t pls_views_open_count(const pls_views *views);

/* Segments that are mapped. Threads: owner thread; never blocks. */
uint64_t pls_views_mapped_count(const pls_views *views);

/* Whether the table's whole invariant holds. Threads: owner thread; never blocks. */
bool pls_views_check(const pls_views *views);

#endif
