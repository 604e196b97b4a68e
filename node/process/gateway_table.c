/* SPDX-License-Identifier: Apache-2.0 */
/* A pool of entries with a hash over their keys; both grow together by doubling. Invariant: a used
 * entry is in the chain of its keys, a free one in the free list, and nothing is in two. */
#include "node/process/gateway_table.h"

#include "base/assert.h"

#include <stdlib.h>
#include <string.h>

#define CAPACITY_FIRST 64

void pls_gate_table_init(pls_gate_table *table, uint32_t max)
{
    memset(table, 0, sizeof *table);
    table->max = max;
}

void pls_gate_table_fini(pls_gate_table *table)
{
    free(table->entries);
    free(table->heads);
    pls_gate_table_init(table, table->max);
}

static uint32_t bucket(const pls_gate_table *table, uint64_t first, uint64_t second)
{
    uint64_t word = (first * UINT64_C(0x9e3779b97f4a7c15)) ^ second;
    word *= UINT64_C(0xd6e8feb86659fd93);
    return (uint32_t)(word >> 32) & (table->capacity - 1);
}

static void chain_push(pls_gate_table *table, uint32_t index)
{
    pls_gate_entry *entry = &table->entries[index];
    uint32_t at = bucket(table, entry->key[0], entry->key[1]);
    entry->next = table->heads[at];
    table->heads[at] = index + 1;
}

static bool grow(pls_gate_table *table)
{
    uint32_t before = table->capacity;
    uint32_t capacity = before == 0 ? CAPACITY_FIRST : before * 2;
    if (capacity > table->max) {
        return false;
    }
    uint32_t *heads = calloc(capacity, sizeof *heads);
    pls_gate_entry *entries = realloc(table->entries, capacity * sizeof *entries);
    if (entries != NULL) {
        table->entries = entries;
    }
    if (heads == NULL || entries == NULL) {
        free(heads);
        return false;
    }
    memset(entries + before, 0, (capacity - before) * sizeof *entries);
    free(table->heads);
    table->heads = heads;
    table->capacity = capacity;
    for (uint32_t i = 0; i < before; i++) {
        chain_push(table, i);
    }
    for (uint32_t i = capacity; i > before; i--) {
        entries[i - 1].next = table->free;
        table->free = i;
    }
    return true;
}

pls_gate_entry *pls_gate_open(pls_gate_table *table, uint64_t first, uint64_t second)
{
    /* It grows only when every entry is used, so that all of them are in chains. */
    if (table->free == 0 && !grow(table)) {
        return NULL;
    }
    uint32_t index = table->free - 1;
    pls_gate_entry *entry = &table->entries[index];
    pls_assert(entry->state == PLS_GATE_FREE);
    uint32_t gen = entry->gen + 1;
    table->free = entry->next;
    memset(entry, 0, sizeof *entry);
    entry->gen = gen == 0 ? 1 : gen;
    entry->state = PLS_GATE_OPEN;
    entry->key[0] = first;
    entry->key[1] = second;
    chain_push(table, index);
    table->count++;
    return entry;
}

pls_gate_entry *pls_gate_find(const pls_gate_table *table, uint64_t first, uint64_t second)
{
    if (table->capacity == 0) {
        return NULL;
    }
    for (uint32_t at = table->heads[bucket(table, first, second)]; at != 0;) {
        pls_gate_entry *entry = &table->entries[at - 1];
        if (entry->key[0] == first && entry->key[1] == second) {
            return entry;
        }
        at = entry->next;
    }
    return NULL;
}

uint64_t pls_gate_id(const pls_gate_table *table, const pls_gate_entry *entry)
{
    return (uint64_t)entry->gen << 32 | (uint32_t)(entry - table->entries);
}

pls_gate_entry *pls_gate_at(const pls_gate_table *table, uint64_t id)
{
    uint32_t index = (uint32_t)id;
    if (index >= table->capacity) {
        return NULL;
    }
    pls_gate_entry *entry = &table->entries[index];
    return entry->state != PLS_GATE_FREE && entry->gen == (uint32_t)(id >> 32) ? entry : NULL;
}

void pls_gate_close(pls_gate_table *table, pls_gate_entry *entry)
{
    uint32_t index = (uint32_t)(entry - table->entries);
    pls_assert(entry->state != PLS_GATE_FREE);
    uint32_t *at = &table->heads[bucket(table, entry->key[0], entry->key[1])];
    while (*at != index + 1) {
        pls_assert(*at != 0);
        at = &table->entries[*at - 1].next;
    }
    *at = entry->next;
    entry->state = PLS_GATE_FREE;
    entry->next = table->free;
    table->free = index + 1;
    table->count--;
}

bool pls_gate_table_check(const pls_gate_table *table)
{
    uint32_t used = 0;
    uint32_t unused = 0;
    for (uint32_t i = 0; i < table->capacity; i++) {
        const pls_gate_entry *entry = &table->entries[i];
        if (entry->state != PLS_GATE_FREE) {
            used++;
            if (pls_gate_find(table, entry->key[0], entry->key[1]) == NULL) {
                return false;
            }
        }
    }
    for (uint32_t at = table->free; at != 0 && unused <= table->capacity; unused++) {
        at = table->entries[at - 1].next;
    }
    return used == table->count && used + unused == table->capacity;
}
