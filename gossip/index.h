/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PLS_GOSSIP_INDEX_H
#define PLS_GOSSIP_INDEX_H

#include "gossip/heap.h"

/* Threads: any thread, on memory of its own, for every function of this header; none blocks. */

#define PLS_INDEX_NONE UINT32_MAX

typedef struct pls_index_slot {
    uint32_t key; /* PLS_INDEX_NONE: empty */
    uint32_t value;
} pls_index_slot;

/* A map from a small number to another, for side tables of members. All zero is an empty map. */
typedef struct pls_index {
    pls_index_slot *slots;
    uint32_t capacity; /* a power of two, or 0 */
    uint32_t count;
} pls_index;

/* The value of `key`, PLS_INDEX_NONE without one. */
uint32_t pls_index_get(const pls_index *index, uint32_t key);

/* Make sure that one more pls_index_set of a new key succeeds. Errors:  PLS_ENOMEM. */
PLS_MUST_USE pls_err pls_index_reserve(pls_index *index, pls_heap *heap);

/* Set or replace. A new key needs a pls_index_reserve before it. */
void pls_index_set(pls_index *index, uint32_t key, uint32_t value);

/* Forget `key`; nothing happens when it is absent. */
void pls_index_remove(pls_index *index, uint32_t key);

/* Free the memory; the map is empty again. */
void pls_index_fini(pls_index *index, pls_heap *heap);

#endif
