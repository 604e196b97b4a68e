/* SPDX-License-Identifier: Apache-2.0 */
/* Open addressing with linear probing, at most three quarters full. Removal shifts the followers
 * back, so there are no tombstones and a lookup never slows down with age. Callers iterate their
 * own arrays, never this table, so that its order can have no effect on any trace. */
#include "gossip/index.h"

#include "base/assert.h"

#define INDEX_CAPACITY_MIN 8

static uint32_t slot_home(const pls_index *index, uint32_t key)
{
    uint32_t mixed = key * 0x9e3779b1u;
    return (mixed ^ (mixed >> 15)) & (index->capacity - 1);
}

static uint32_t slot_of(const pls_index *index, uint32_t key)
{
    uint32_t at = slot_home(index, key);
    while (index->slots[at].key != key && index->slots[at].key != PLS_INDEX_NONE) {
        at = (at + 1) & (index->capacity - 1);
    }
    return at;
}

uint32_t pls_index_get(const pls_index *index, uint32_t key)
{
    if (index->count == 0) {
        return PLS_INDEX_NONE;
    }
    const pls_index_slot *slot = &index->slots[slot_of(index, key)];
    return slot->key == key ? slot->value : PLS_INDEX_NONE;
}

pls_err pls_index_reserve(pls_index *index, pls_heap *heap)
{
    if (index->capacity > 0 && index->count + 1 <= index->capacity / 4 * 3) {
        return PLS_OK;
    }
    pls_index grown = {NULL, index->capacity > 0 ? index->capacity * 2 : INDEX_CAPACITY_MIN, 0};
    grown.slots = pls_heap_resize(heap, NULL, 0, grown.capacity * sizeof *grown.slots);
    if (grown.slots == NULL) {
        return PLS_ENOMEM;
    }
    for (uint32_t i = 0; i < grown.capacity; i++) {
        grown.slots[i] = (pls_index_slot){PLS_INDEX_NONE, 0};
    }
    for (uint32_t i = 0; i < index->capacity; i++) {
        if (index->slots[i].key != PLS_INDEX_NONE) {
            pls_index_set(&grown, index->slots[i].key, index->slots[i].value);
        }
    }
    pls_index_fini(index, heap);
    *index = grown;
    return PLS_OK;
}

void pls_index_set(pls_index *index, uint32_t key, uint32_t value)
{
    pls_assert(key != PLS_INDEX_NONE);
    pls_assert(index->count < index->capacity);
    pls_index_slot *slot = &index->slots[slot_of(index, key)];
    if (slot->key != key) {
        slot->key = key;
        index->count++;
    }
    slot->value = value;
}

void pls_index_remove(pls_index *index, uint32_t key)
{
    if (index->count == 0) {
        return;
    }
    uint32_t hole = slot_of(index, key);
    if (index->slots[hole].key != key) {
        return;
    }
    uint32_t mask = index->capacity - 1;
    for (uint32_t at = (hole + 1) & mask; index->slots[at].key != PLS_INDEX_NONE;
         at = (at + 1) & mask) {
        uint32_t home = slot_home(index, index->slots[at].key);
        if (((at - home) & mask) >= ((at - hole) & mask)) {
            index->slots[hole] = index->slots[at];
            hole = at;
        }
    }
    index->slots[hole].key = PLS_INDEX_NONE;
    index->count--;
}

void pls_index_fini(pls_index *index, pls_heap *heap)
{
    pls_heap_resize(heap, index->slots, index->capacity * sizeof *index->slots, 0);
    *index = (pls_index){NULL, 0, 0};
}
