/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PLS_GOSSIP_HEAP_H
#define PLS_GOSSIP_HEAP_H

#include "gossip/identities.h"

/* Threads: any thread, on memory of its own, for every function of this header; none blocks. */

/* An allocator together with the sum of what is held through it. */
typedef struct pls_heap {
    pls_allocator allocator;
    uint64_t bytes;
} pls_heap;

/* A heap over `allocator`, or over the C library's when that is NULL. */
pls_heap pls_heap_over(const pls_allocator *allocator);

/* As pls_allocator.resize, counted. */
void *pls_heap_resize(pls_heap *heap, void *memory, size_t old_bytes, size_t new_bytes);

/* Make room for `needed` items in an array that grows by half.
 * Units:   `*capacity` and `needed` in items of `item_bytes`.
 * Errors:  PLS_ENOMEM  nothing changed.
 * Owns:    `*array` stays the caller's; freed with pls_heap_resize. */
PLS_MUST_USE pls_err pls_heap_reserve(pls_heap *heap, void **array, uint32_t *capacity,
                                      uint32_t needed, uint32_t item_bytes);

#endif
