/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PLS_GOSSIP_ARENA_H
#define PLS_GOSSIP_ARENA_H

#include "gossip/heap.h"

/* Threads: any thread, on memory of its own, for every function of this header; none blocks. */

/* Where a piece is: 0 is none. It stays there until it is freed. */
typedef uint32_t pls_place;

#define PLS_ARENA_UNIT_BYTES 8u
#define PLS_ARENA_UNITS_MAX 32u
#define PLS_ARENA_CHUNK_UNITS 8192u
/* So many that places number all their units: 32 GiB. */
#define PLS_ARENA_CHUNKS_MAX (UINT32_MAX / PLS_ARENA_CHUNK_UNITS + 1)

/* Small pieces of memory cut from chunks of one size, named by 32 bits. All zero is empty. */
typedef struct pls_arena {
    uint8_t **chunks;
    uint32_t chunks_capacity;
    uint32_t chunks_count;
    uint32_t chunk_used; /* units of the last chunk */
    pls_place free_first[PLS_ARENA_UNITS_MAX + 1];
} pls_arena;

/* Units that hold so many bytes. */
static inline uint32_t pls_arena_units(size_t bytes)
{
    return (uint32_t)((bytes + PLS_ARENA_UNIT_BYTES - 1) / PLS_ARENA_UNIT_BYTES);
}

/* A piece of 1..PLS_ARENA_UNITS_MAX units. Errors:  PLS_ENOMEM  no memory, or
 * PLS_ARENA_CHUNKS_MAX are in use; nothing changed. */
PLS_MUST_USE pls_err pls_arena_make(pls_arena *arena, pls_heap *heap, uint32_t units,
                                    pls_place *place_out);

/* Give a piece of so many units back. */
void pls_arena_free(pls_arena *arena, pls_place place, uint32_t units);

/* The bytes of a piece, aligned to a unit. Lends until it is freed. */
void *pls_arena_at(const pls_arena *arena, pls_place place);

/* Free all chunks; the arena is empty again. */
void pls_arena_fini(pls_arena *arena, pls_heap *heap);

#endif
