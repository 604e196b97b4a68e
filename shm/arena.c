/* SPDX-License-Identifier: Apache-2.0 */
/* Leases over the pool's blocks. Who holds what is private to this process; a receiver can only
 * push a cell's number on the stack of returns, and what it pushes is checked against the books. A
 * return that has not been pushed when its receiver dies is found in the receiver's list by the
 * reaper, so no kill can lose a block. */
#include "shm/arena.h"

#include "base/assert.h"
#include "base/mutant.h"
#include "shm/fence.h"
#include "shm/pool.h"
#include "shm/segment.h"

#include <stdlib.h>

/* Cells and their private records come by the chunk; 16 KiB of shared memory each. */
#define CHUNK_LEASES 1024
#define CHUNKS (PLS_LEASES_MAX / CHUNK_LEASES)
#define NO_LEASE UINT32_MAX

typedef struct lease_record {
    pls_pool_block *block; /* NULL: free */
    uint64_t len;
    uint32_t gen;
    uint32_t epoch;
    uint32_t slot;
    uint32_t next; /* of the receiver's list, or of the free list */
    uint32_t previous;
} lease_record;

struct pls_arena {
    pls_pool *pool;
    pls_inbox *inbox;
    pls_inbox_header *header;
    pls_lease_cell *cells;
    uint64_t share_bytes;
    uint32_t leases_made;
    uint32_t free_first;
    lease_record *chunks[CHUNKS];
    uint32_t lent_first[PLS_SLOTS_MAX];
    uint64_t lent_bytes[PLS_SLOTS_MAX];
    pls_arena_stats stats;
};

_Static_assert(PLS_LEASES_MAX % CHUNK_LEASES == 0, "whole chunks");
_Static_assert(CHUNK_LEASES * sizeof(pls_lease_cell) % PLS_PAGE_BYTES == 0, "whole pages");

static lease_record *record_at(const pls_arena *arena, uint32_t index)
{
    return &arena->chunks[index / CHUNK_LEASES][index % CHUNK_LEASES];
}

pls_err pls_arena_create(pls_inbox *inbox, const pls_arena_config *config, pls_arena **arena_out)
{
    pls_arena *arena = calloc(1, sizeof *arena);
    if (arena == NULL) {
        return PLS_ENOMEM;
    }
    pls_err err = pls_pool_create(config, &arena->pool);
    if (err != PLS_OK) {
        free(arena);
        return err;
    }
    arena->inbox = inbox;
    arena->header = pls_inbox_watch_returns(inbox);
    arena->cells = pls_inbox_leases_of(inbox);
    arena->share_bytes = config->share_bytes != 0 ? config->share_bytes : config->budget_bytes / 2;
    arena->free_first = NO_LEASE;
    for (uint32_t slot = 0; slot < PLS_SLOTS_MAX; slot++) {
        arena->lent_first[slot] = NO_LEASE;
    }
    *arena_out = arena;
    return PLS_OK;
}

void pls_arena_destroy(pls_arena *arena)
{
    if (arena == NULL) {
        return;
    }
    for (unsigned i = 0; i < CHUNKS; i++) {
        free(arena->chunks[i]);
    }
    pls_pool_destroy(arena->pool);
    free(arena);
}

pls_err pls_arena_alloc(pls_arena *arena, uint64_t bytes, pls_block **block_out)
{
    pls_pool_block *block = NULL;
    pls_err err = pls_pool_alloc(arena->pool, bytes, &block);
    if (err == PLS_EBUDGET && pls_arena_collect(arena) > 0) {
        err = pls_pool_alloc(arena->pool, bytes, &block);
    }
    if (err != PLS_OK) {
        arena->stats.refused_total += err == PLS_EBUDGET;
        return err;
    }
    block->holds = 1;
    *block_out = &block->face;
    return PLS_OK;
}

void pls_arena_hold(pls_arena *arena, pls_block *block)
{
    pls_pool_block *inner = (pls_pool_block *)block;
    pls_assert(inner->holds > 0);
    inner->holds++;
}

void pls_arena_unhold(pls_arena *arena, pls_block *block)
{
    pls_pool_block *inner = (pls_pool_block *)block;
    pls_assert(inner->holds > 0);
    inner->holds--;
    if (inner->holds == 0 && (inner->leases == 0 || pls_mutant(PLS_MUTANT_EARLY_REUSE))) {
        pls_pool_free(arena->pool, inner);
    }
}

/* Put another chunk of cells into the free list. */
static pls_err leases_grow(pls_arena *arena)
{
    if (arena->leases_made == PLS_LEASES_MAX) {
        return PLS_EFULL;
    }
    uint32_t chunk = arena->leases_made / CHUNK_LEASES;
    if (arena->chunks[chunk] == NULL) {
        arena->chunks[chunk] = calloc(CHUNK_LEASES, sizeof(lease_record));
        if (arena->chunks[chunk] == NULL) {
            return PLS_ENOMEM;
        }
    }
    uint64_t chunk_bytes = CHUNK_LEASES * sizeof(pls_lease_cell);
    pls_err err = pls_segment_commit(pls_inbox_memfd(arena->inbox),
                                     PLS_INBOX_LEASES_OFFSET + chunk * chunk_bytes, chunk_bytes);
    if (err != PLS_OK) {
        return err;
    }
    for (uint32_t i = CHUNK_LEASES; i > 0; i--) {
        uint32_t index = arena->leases_made + i - 1;
        record_at(arena, index)->next = arena->free_first;
        arena->free_first = index;
    }
    arena->leases_made += CHUNK_LEASES;
    return PLS_OK;
}

static void lent_link(pls_arena *arena, uint32_t index)
{
    lease_record *record = record_at(arena, index);
    record->previous = NO_LEASE;
    record->next = arena->lent_first[record->slot];
    if (record->next != NO_LEASE) {
        record_at(arena, record->next)->previous = index;
    }
    arena->lent_first[record->slot] = index;
    arena->lent_bytes[record->slot] += record->len;
    arena->stats.lent_bytes += record->len;
    arena->stats.lent_count++;
}

static void lent_unlink(pls_arena *arena, uint32_t index)
{
    lease_record *record = record_at(arena, index);
    if (record->previous != NO_LEASE) {
        record_at(arena, record->previous)->next = record->next;
    } else {
        arena->lent_first[record->slot] = record->next;
    }
    if (record->next != NO_LEASE) {
        record_at(arena, record->next)->previous = record->previous;
    }
    arena->lent_bytes[record->slot] -= record->len;
    arena->stats.lent_bytes -= record->len;
    arena->stats.lent_count--;
}

/* A new generation, in the books and where receivers see it: old descriptors mean nothing now. */
static void gen_advance(pls_arena *arena, uint32_t index)
{
    lease_record *record = record_at(arena, index);
    record->gen++;
    /* Relaxed: a receiver sees it through the commit of the message that carries the descriptor. */
    atomic_store_explicit(&arena->cells[index].gen, record->gen, memory_order_relaxed);
}

/* The lease is over; its block goes too if it was the last claim on it. */
static void lease_end(pls_arena *arena, uint32_t index)
{
    lease_record *record = record_at(arena, index);
    pls_pool_block *block = record->block;
    pls_assert(block->leases > 0 || pls_mutant(PLS_MUTANT_EARLY_REUSE));
    lent_unlink(arena, index);
    gen_advance(arena, index);
    record->block = NULL;
    record->next = arena->free_first;
    arena->free_first = index;
    if (pls_mutant(PLS_MUTANT_EARLY_REUSE)) {
        return;
    }
    block->leases--;
    if (block->leases == 0 && block->holds == 0) {
        pls_pool_free(arena->pool, block);
    }
}

pls_err pls_arena_lend(pls_arena *arena, pls_block *block, const pls_arena_loan *loan,
                       pls_descriptor *descriptor_out)
{
    pls_pool_block *inner = (pls_pool_block *)block;
    pls_assert(inner->holds > 0);
    pls_assert(loan->slot < PLS_SLOTS_MAX);
    pls_assert(loan->len >= 1);
    pls_assert(loan->offset <= block->bytes && loan->len <= block->bytes - loan->offset);
    if (arena->free_first == NO_LEASE) {
        (void)pls_arena_collect(arena);
    }
    if (arena->free_first == NO_LEASE) {
        pls_err err = leases_grow(arena);
        if (err != PLS_OK) {
            return err;
        }
    }
    uint32_t index = arena->free_first;
    lease_record *record = record_at(arena, index);
    arena->free_first = record->next;
    record->block = inner;
    record->len = loan->len;
    record->slot = loan->slot;
    record->epoch = loan->epoch;
    inner->leases++;
    gen_advance(arena, index);
    arena->cells[index].receiver = (uint16_t)loan->slot;
    lent_link(arena, index);
    arena->stats.lent_total++;
    *descriptor_out = (pls_descriptor){
        .segment = pls_pool_segment_id(inner),
        .lease = index,
        .gen = record->gen,
        .flags = arena->lent_bytes[loan->slot] > arena->share_bytes ? PLS_DESCRIPTOR_COPY : 0u,
        .offset = inner->offset + loan->offset,
        .len = loan->len,
    };
    return PLS_OK;
}

void pls_arena_revoke(pls_arena *arena, const pls_descriptor *descriptor)
{
    pls_assert(descriptor->lease < arena->leases_made);
    pls_assert(record_at(arena, descriptor->lease)->block != NULL);
    pls_assert(record_at(arena, descriptor->lease)->gen == descriptor->gen);
    lease_end(arena, descriptor->lease);
}

uint32_t pls_arena_collect(pls_arena *arena)
{
    if (atomic_load_explicit(&arena->header->returns, memory_order_relaxed) == 0) {
        return 0;
    }
    /* Acquire pairs with the CAS in pls_lease_return(): the receivers have finished reading. */
    uint64_t top = atomic_exchange_explicit(&arena->header->returns, 0, memory_order_acquire);
    uint32_t count = 0;
    /* Every round ends a lease that is lent, so a chain that was damaged cannot go on for ever. */
    while (top != 0) {
        uint64_t index = top - 1;
        if (index >= arena->leases_made || record_at(arena, (uint32_t)index)->block == NULL) {
            arena->stats.corrupt_total++;
            break;
        }
        top = atomic_load_explicit(&arena->cells[index].next, memory_order_relaxed);
        lease_end(arena, (uint32_t)index);
        count++;
    }
    arena->stats.returned_total += count;
    atomic_store_explicit(&arena->header->returns_wanted, 0, memory_order_relaxed);
    return count;
}

bool pls_arena_want_returns(pls_arena *arena)
{
    atomic_store_explicit(&arena->header->returns_wanted, 1, memory_order_relaxed);
    /* Between the wish and the last look; pairs with the seq_cst accesses in return_push(). */
    pls_fence_full();
    if (atomic_load_explicit(&arena->header->returns, memory_order_relaxed) == 0) {
        return false;
    }
    atomic_store_explicit(&arena->header->returns_wanted, 0, memory_order_relaxed);
    return true;
}

uint32_t pls_arena_reap(pls_arena *arena, uint32_t slot, uint32_t epoch)
{
    pls_assert(slot < PLS_SLOTS_MAX);
    /* First what the dead has returned, by its own doing, then the rest: it cannot push any more.
     */
    (void)pls_arena_collect(arena);
    uint32_t count = 0;
    uint32_t index = arena->lent_first[slot];
    while (index != NO_LEASE) {
        lease_record *record = record_at(arena, index);
        uint32_t next = record->next;
        if (record->epoch == epoch) {
            lease_end(arena, index);
            count++;
        }
        index = next;
    }
    arena->stats.reaped_total += count;
    return count;
}

void pls_arena_trim(pls_arena *arena)
{
    pls_pool_trim(arena->pool, 0);
}

void pls_arena_stats_get(const pls_arena *arena, pls_arena_stats *stats_out)
{
    pls_pool_figures figures;
    pls_pool_figures_get(arena->pool, &figures);
    *stats_out = arena->stats;
    stats_out->committed_bytes = figures.committed_bytes;
    stats_out->used_bytes = figures.used_bytes;
    stats_out->warm_bytes = figures.warm_bytes;
    stats_out->blocks_count = figures.blocks_count;
    stats_out->segments_count = figures.segments_count;
}

bool pls_arena_check(const pls_arena *arena)
{
    uint64_t lent = 0;
    uint64_t lent_bytes = 0;
    uint64_t free_count = 0;
    for (uint32_t slot = 0; slot < PLS_SLOTS_MAX; slot++) {
        uint64_t slot_bytes = 0;
        uint32_t previous = NO_LEASE;
        for (uint32_t i = arena->lent_first[slot]; i != NO_LEASE; i = record_at(arena, i)->next) {
            const lease_record *record = record_at(arena, i);
            if (record->block == NULL || record->slot != slot || record->previous != previous ||
                record->block->leases == 0 || lent > arena->leases_made) {
                return false;
            }
            previous = i;
            slot_bytes += record->len;
            lent++;
        }
        if (slot_bytes != arena->lent_bytes[slot]) {
            return false;
        }
        lent_bytes += slot_bytes;
    }
    for (uint32_t i = arena->free_first; i != NO_LEASE; i = record_at(arena, i)->next) {
        if (record_at(arena, i)->block != NULL || ++free_count > arena->leases_made) {
            return false;
        }
    }
    return lent + free_count == arena->leases_made && lent == arena->stats.lent_count &&
           lent_bytes == arena->stats.lent_bytes && pls_pool_check(arena->pool);
}
