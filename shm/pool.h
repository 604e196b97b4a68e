/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PLS_SHM_POOL_H
#define PLS_SHM_POOL_H

#include "base/err.h"
#include "shm/arena.h"

#include <stdbool.h>
#include <stdint.h>

/* Blocks of memory in published segments, without any idea of who holds or borrows them. Inner to
 * this room; the arena is its only caller.
 * Invariant: committed bytes never exceed the budget; a block is in use, or in its segment's free
 * list, or not yet made; a segment with nothing in use is in the warm list, oldest first. */
typedef struct pls_pool pls_pool;

/* A block and what the arena keeps with it. */
typedef struct pls_pool_block {
    pls_block face; /* first, so that one is the other */
    struct pls_pool_segment *segment;
    struct pls_pool_block *next_free;
    uint64_t offset; /* in the segment */
    uint32_t holds;
    uint32_t leases;
} pls_pool_block;

typedef struct pls_pool_figures {
    uint64_t committed_bytes;
    uint64_t used_bytes;
    uint64_t warm_bytes;
    uint64_t blocks_count;
    uint64_t segments_count;
} pls_pool_figures;

/* Largest block that shares a segment with others. */
#define PLS_POOL_SMALL_BYTES_MAX (UINT64_C(4) << 20)

/* The size class of a small block, and the bytes of a class: four to a power of two from 4 KiB.
 * Threads: any thread; never blocks. */
unsigned pls_pool_class(uint64_t bytes);

/* The inverse. Threads: any thread; never blocks. */
uint64_t pls_pool_class_bytes(unsigned class_index);

/* Make an empty pool. Errors: PLS_ENOMEM. Owns: borrows `config` for the call; gives `pool_out`.
 * Threads: owner thread; never blocks. */
PLS_MUST_USE pls_err pls_pool_create(const pls_arena_config *config, pls_pool **pool_out);

/* Unmap everything. NULL is allowed. Threads: owner thread; may block in the kernel. */
void pls_pool_destroy(pls_pool *pool);

/* Errors:  as pls_arena_alloc(). Owns: gives `block_out`, whose counts are 0.
 * Threads: owner thread; may block in the kernel. */
PLS_MUST_USE pls_err pls_pool_alloc(pls_pool *pool, uint64_t bytes, pls_pool_block **block_out);

/* Owns: takes `block`. Threads: owner thread; may block in the kernel. */
void pls_pool_free(pls_pool *pool, pls_pool_block *block);

/* Give back warm memory until at most `keep_bytes` are left of it.
 * Threads: owner thread; may block in the kernel. */
void pls_pool_trim(pls_pool *pool, uint64_t keep_bytes);

/* The number under which a block's segment was published. Threads: owner thread; never blocks. */
uint32_t pls_pool_segment_id(const pls_pool_block *block);

/* The figures now. Threads: owner thread; never blocks. */
void pls_pool_figures_get(const pls_pool *pool, pls_pool_figures *figures_out);

/* Whether the whole invariant holds. Threads: owner thread; never blocks. */
bool pls_pool_check(const pls_pool *pool);

#endif
