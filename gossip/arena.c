/* SPDX-License-Identifier: Apache-2.0 */
/* Pieces are cut from the last chunk one after another; freed ones wait in a list for each size,
 * linked through their first bytes, and are taken first. Chunks are never given back before the
 * end: what a cluster needed once it will need again. */
#include "gossip/arena.h"

#include "base/assert.h"

#include <string.h>

#define CHUNK_BYTES ((size_t)PLS_ARENA_CHUNK_UNITS * PLS_ARENA_UNIT_BYTES)

_Static_assert(PLS_ARENA_UNITS_MAX < PLS_ARENA_CHUNK_UNITS, "a chunk holds every piece");
_Static_assert(sizeof(pls_place) <= PLS_ARENA_UNIT_BYTES, "every piece holds a link");

void *pls_arena_at(const pls_arena *arena, pls_place place)
{
    pls_assert(place != 0);
    pls_assert(place / PLS_ARENA_CHUNK_UNITS < arena->chunks_count);
    uint8_t *chunk = arena->chunks[place / PLS_ARENA_CHUNK_UNITS];
    return chunk + (size_t)(place % PLS_ARENA_CHUNK_UNITS) * PLS_ARENA_UNIT_BYTES;
}

void pls_arena_free(pls_arena *arena, pls_place place, uint32_t units)
{
    pls_assert(units >= 1 && units <= PLS_ARENA_UNITS_MAX);
    memcpy(pls_arena_at(arena, place), &arena->free_first[units], sizeof(pls_place));
    arena->free_first[units] = place;
}

static pls_err chunk_add(pls_arena *arena, pls_heap *heap)
{
    if (arena->chunks_count == PLS_ARENA_CHUNKS_MAX) {
        return PLS_ENOMEM;
    }
    void *chunks = arena->chunks;
    pls_err err = pls_heap_reserve(heap, &chunks, &arena->chunks_capacity, arena->chunks_count + 1,
                                   sizeof *arena->chunks);
    arena->chunks = chunks;
    if (err != PLS_OK) {
        return err;
    }
    uint8_t *chunk = pls_heap_resize(heap, NULL, 0, CHUNK_BYTES);
    if (chunk == NULL) {
        return PLS_ENOMEM;
    }
    /* What is left of the last chunk, less than the piece that did not fit, serves a smaller one.
     */
    if (arena->chunks_count > 0 && arena->chunk_used < PLS_ARENA_CHUNK_UNITS) {
        pls_arena_free(arena, (arena->chunks_count - 1) * PLS_ARENA_CHUNK_UNITS + arena->chunk_used,
                       PLS_ARENA_CHUNK_UNITS - arena->chunk_used);
    }
    arena->chunks[arena->chunks_count++] = chunk;
    arena->chunk_used = arena->chunks_count == 1 ? 1 : 0;
    return PLS_OK;
}

pls_err pls_arena_make(pls_arena *arena, pls_heap *heap, uint32_t units, pls_place *place_out)
{
    pls_assert(units >= 1 && units <= PLS_ARENA_UNITS_MAX);
    pls_place place = arena->free_first[units];
    if (place != 0) {
        memcpy(&arena->free_first[units], pls_arena_at(arena, place), sizeof place);
        *place_out = place;
        return PLS_OK;
    }
    if (arena->chunks_count == 0 || arena->chunk_used + units > PLS_ARENA_CHUNK_UNITS) {
        pls_err err = chunk_add(arena, heap);
        if (err != PLS_OK) {
            return err;
        }
    }
    *place_out = (arena->chunks_count - 1) * PLS_ARENA_CHUNK_UNITS + arena->chunk_used;
    arena->chunk_used += units;
    return PLS_OK;
}

void pls_arena_fini(pls_arena *arena, pls_heap *heap)
{
    for (uint32_t i = 0; i < arena->chunks_count; i++) {
        pls_heap_resize(heap, arena->chunks[i], CHUNK_BYTES, 0);
    }
    pls_heap_resize(heap, arena->chunks, arena->chunks_capacity * sizeof *arena->chunks, 0);
    *arena = (pls_arena){0};
}
