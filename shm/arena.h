/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PLS_SHM_ARENA_H
#define PLS_SHM_ARENA_H

#include "base/err.h"
#include "shm/inbox.h"

#include <stdbool.h>
#include <stdint.h>

/* Large payloads of this process: blocks in segments that receivers map read-only. All books are in
 * private memory, so that no kill can damage them; shared are the payload, one cell per lease, and
 * the stack on which receivers return cells.
 * Invariant: a block is handed out again only when its owner holds none of it and every lease of it
 * has been returned, or its receiver's death has been confirmed by the kernel and reaped. */
typedef struct pls_arena pls_arena;

/* One allocation. `base` .. `bytes` may be written until the first lend; afterwards it is read by
 * others and must stay as it is. Neither field may be changed. */
typedef struct pls_block {
    uint8_t *base;
    uint64_t bytes; /* usable, at least what was asked for */
} pls_block;

typedef struct pls_arena_config {
    uint64_t budget_bytes; /* all pages this arena may have at a time */
    uint64_t keep_bytes;   /* free large blocks kept warm; 0: PLS_ARENA_KEEP_BYTES */
    uint64_t share_bytes;  /* lent to one receiver before it is told to copy; 0: budget / 2 */
    /* Called before the first use of a segment: register `readonly_fd` with the node, which serves
     * receivers. An error makes the allocation fail with it. Borrows the descriptor. */
    pls_err (*publish)(void *context, uint32_t segment, int readonly_fd);
    /* Called when a segment is gone for good: the node may close its descriptor. */
    void (*retire)(void *context, uint32_t segment);
    void *context;
} pls_arena_config;

/* A fifth of a gigabyte and a bit: a handful of 64 MiB arrays stay warm. More: fewer page faults
 * after bursts. Less: memory goes back to the system earlier. */
#define PLS_ARENA_KEEP_BYTES (UINT64_C(256) << 20)

typedef struct pls_arena_stats {
    uint64_t committed_bytes; /* pages held, in use or not */
    uint64_t used_bytes;      /* in blocks that are held or lent */
    uint64_t lent_bytes;      /* counted once per lease */
    uint64_t warm_bytes;      /* free large blocks */
    uint64_t lent_count;      /* leases out */
    uint64_t blocks_count;    /* blocks held or lent */
    uint64_t segments_count;
    uint64_t lent_total;
    uint64_t returned_total; /* by receivers */
    uint64_t reaped_total;   /* after a receiver's death */
    uint64_t refused_total;  /* PLS_EBUDGET */
    uint64_t corrupt_total;  /* returns that no correct receiver makes; ignored */
} pls_arena_stats;

/* Which bytes of a block, and who gets to read them. */
typedef struct pls_arena_loan {
    uint64_t offset;
    uint64_t len;
    uint32_t slot;
    uint32_t epoch;
} pls_arena_loan;

/* Make the arena of the process that owns `inbox`. One per inbox.
 * Errors:  PLS_ENOMEM.
 * Owns:    borrows `inbox` until destroy, `config` for the call; gives `arena_out`.
 * Threads: owner thread; never blocks. */
PLS_MUST_USE pls_err pls_arena_create(pls_inbox *inbox, const pls_arena_config *config,
                                      pls_arena **arena_out);

/* Forget everything; receivers keep what they have mapped. NULL is allowed.
 * Threads: owner thread; may block in the kernel. */
void pls_arena_destroy(pls_arena *arena);

/* Get a block, held once by its owner. Small ones come from size classes, four to a power of two;
 * above 4 MiB each has a segment of its own, and a warm one is used again without a page fault.
 * Units:   `bytes` >= 1.
 * Errors:  PLS_EBUDGET  the budget is spent: collect, wait for returns, or fail the send.
 *          PLS_ETOOBIG  more than the whole budget. PLS_ENOMEM, PLS_EFDLIMIT, PLS_ESYS, and what
 *          `publish` returned.
 * Owns:    lends `*block_out` until its last release.
 * Threads: owner thread; may block in the kernel. */
PLS_MUST_USE pls_err pls_arena_alloc(pls_arena *arena, uint64_t bytes, pls_block **block_out);

/* One more hold of the owner's own, for instance while a message may have to go again.
 * Threads: owner thread; never blocks. */
void pls_arena_hold(pls_arena *arena, pls_block *block);

/* Let go of one hold. The block is gone for the owner after its last one; its memory is used again
 * once no lease is left. Threads: owner thread; may block in the kernel. */
void pls_arena_unhold(pls_arena *arena, pls_block *block);

/* Lend bytes of a held block to one receiver. Lend, reserve and commit in one go: a lease of a
 * message that was never committed must be taken back with pls_arena_revoke().
 * Units:   `loan` inside the block, its `len` >= 1.
 * Errors:  PLS_EFULL    no lease cell is free; collect and try again. PLS_ENOMEM.
 * Owns:    borrows `loan`; gives the receiver a lease, described by `*descriptor_out`.
 * Threads: owner thread; may block in the kernel. */
PLS_MUST_USE pls_err pls_arena_lend(pls_arena *arena, pls_block *block, const pls_arena_loan *loan,
                                    pls_descriptor *descriptor_out);

/* Take back a lease whose descriptor no receiver has ever seen.
 * Threads: owner thread; may block in the kernel. */
void pls_arena_revoke(pls_arena *arena, const pls_descriptor *descriptor);

/* Take in what receivers have returned; one load when there is nothing. Returns how many leases.
 * Threads: owner thread; may block in the kernel. */
uint32_t pls_arena_collect(pls_arena *arena);

/* After PLS_EBUDGET or PLS_EFULL: make the next return wake this process (PLS_READY_RETURNS). True
 * if something was returned meanwhile, so collect and try again at once; the wish is then off.
 * pls_arena_collect() that finds something also ends it. Threads: owner thread; never blocks. */
PLS_MUST_USE bool pls_arena_want_returns(pls_arena *arena);

/* Take back everything lent to a process whose death the kernel has confirmed. Returns how many
 * leases. Threads: owner thread; may block in the kernel. */
uint32_t pls_arena_reap(pls_arena *arena, uint32_t slot, uint32_t epoch);

/* Give all warm memory back to the system. Threads: owner thread; may block in the kernel. */
void pls_arena_trim(pls_arena *arena);

/* The figures now. Threads: owner thread; never blocks. */
void pls_arena_stats_get(const pls_arena *arena, pls_arena_stats *stats_out);

/* Whether the whole invariant of the books holds; walks all of it.
 * Threads: owner thread; never blocks. */
bool pls_arena_check(const pls_arena *arena);

#endif
