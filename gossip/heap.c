/* SPDX-License-Identifier: Apache-2.0 */
/* Where the memory of the gossip room comes from. This is the only file that names the C library's
 * heap, so that a caller who passes an allocator of his own sees every byte. */
#include "gossip/heap.h"

#include "base/assert.h"

#include <stdlib.h>

#define ARRAY_ITEMS_MIN 8

static void *libc_resize(void *context, void *memory, size_t old_bytes, size_t new_bytes)
{
    if (new_bytes == 0) {
        free(memory);
        return NULL;
    }
    return realloc(memory, new_bytes);
}

pls_allocator pls_allocator_libc(void)
{
    return (pls_allocator){libc_resize, NULL};
}

pls_heap pls_heap_over(const pls_allocator *allocator)
{
    return (pls_heap){allocator != NULL ? *allocator : pls_allocator_libc(), 0};
}

void *pls_heap_resize(pls_heap *heap, void *memory, size_t old_bytes, size_t new_bytes)
{
    if (memory == NULL && new_bytes == 0) {
        return NULL;
    }
    void *moved = heap->allocator.resize(heap->allocator.context, memory, old_bytes, new_bytes);
    if (moved != NULL || new_bytes == 0) {
        pls_assert(heap->bytes >= old_bytes);
        heap->bytes = heap->bytes - old_bytes + new_bytes;
    }
    return moved;
}

pls_err pls_heap_reserve(pls_heap *heap, void **array, uint32_t *capacity, uint32_t needed,
                         uint32_t item_bytes)
{
    if (needed <= *capacity) {
        return PLS_OK;
    }
    uint64_t grown = (uint64_t)*capacity + *capacity / 2;
    if (grown < needed) {
        grown = needed;
    }
    if (grown < ARRAY_ITEMS_MIN) {
        grown = ARRAY_ITEMS_MIN;
    }
    pls_assert(grown <= UINT32_MAX);
    void *moved =
        pls_heap_resize(heap, *array, (size_t)*capacity * item_bytes, (size_t)grown * item_bytes);
    if (moved == NULL) {
        return PLS_ENOMEM;
    }
    *array = moved;
    *capacity = (uint32_t)grown;
    return PLS_OK;
}
