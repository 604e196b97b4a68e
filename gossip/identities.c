/* SPDX-License-Identifier: Apache-2.0 */
/* The pool of identities: a dense array of items whose position is the member's number, a free list
 * through the unused ones, and two open-addressed tables of positions, one by key and one by name.
 * All generations of one name hang on one chain under one slot of the name table. The tables are
 * grown before an item is stored, so that storing itself cannot fail half-way. */
#include "gossip/identities.h"

#include "base/assert.h"
#include "base/limits.h"
#include "gossip/hash.h"
#include "gossip/heap.h"
#include "gossip/mutant.h"
#include "gossip/wire.h"

#include <stdbool.h>
#include <string.h>

/* Metas remembered of one member; the oldest goes. Holders of the last few incarnations exist only
 * while a change spreads. */
#define METAS_MAX 4

#define TABLE_CAPACITY_MIN 16

typedef struct meta {
    struct meta *newer;
    uint64_t incarnation;
    uint32_t len;
    uint8_t bytes[];
} meta;

typedef struct item {
    uint64_t key;
    uint64_t generation;
    char *text;   /* name, then address */
    meta *oldest; /* NULL: it never said anything */
    uint32_t refs;
    uint32_t next; /* free list, or the next identity of the same name */
    uint16_t name_bytes;
    uint16_t address_bytes;
} item;

struct pls_identities {
    pls_heap heap;
    item *items;
    uint32_t *by_key;  /* positions, PLS_MEMBER_NONE when empty */
    uint32_t *by_name; /* the first of each name's chain */
    uint32_t items_capacity;
    uint32_t items_limit;
    uint32_t free_first;
    uint32_t held_count;
    uint32_t table_capacity; /* of both tables, a power of two */
};

uint64_t pls_identity_key(const pls_identity *identity)
{
    uint64_t hash = pls_hash_bytes(identity->generation, identity->name, identity->name_bytes);
    hash = pls_hash_bytes(hash, identity->address, identity->address_bytes);
    return hash != 0 ? hash : 1;
}

static uint32_t name_home(const pls_identities *pool, const char *name, uint32_t name_bytes)
{
    return (uint32_t)pls_hash_bytes(0, name, name_bytes) & (pool->table_capacity - 1);
}

static bool item_is_named(const item *it, const char *name, uint32_t name_bytes)
{
    return it->name_bytes == name_bytes && memcmp(it->text, name, name_bytes) == 0;
}

/* The slot that holds the key or the first empty one. */
static uint32_t key_slot(const pls_identities *pool, uint64_t key)
{
    uint32_t at = (uint32_t)key & (pool->table_capacity - 1);
    while (pool->by_key[at] != PLS_MEMBER_NONE && pool->items[pool->by_key[at]].key != key) {
        at = (at + 1) & (pool->table_capacity - 1);
    }
    return at;
}

static uint32_t name_slot(const pls_identities *pool, const char *name, uint32_t name_bytes)
{
    uint32_t at = name_home(pool, name, name_bytes);
    while (pool->by_name[at] != PLS_MEMBER_NONE &&
           !item_is_named(&pool->items[pool->by_name[at]], name, name_bytes)) {
        at = (at + 1) & (pool->table_capacity - 1);
    }
    return at;
}

static uint32_t home_of(const pls_identities *pool, const uint32_t *table, uint32_t member)
{
    const item *it = &pool->items[member];
    return table == pool->by_key ? (uint32_t)it->key & (pool->table_capacity - 1)
                                 : name_home(pool, it->text, it->name_bytes);
}

static void table_remove(const pls_identities *pool, uint32_t *table, uint32_t hole)
{
    uint32_t mask = pool->table_capacity - 1;
    for (uint32_t at = (hole + 1) & mask; table[at] != PLS_MEMBER_NONE; at = (at + 1) & mask) {
        uint32_t home = home_of(pool, table, table[at]);
        if (((at - home) & mask) >= ((at - hole) & mask)) {
            table[hole] = table[at];
            hole = at;
        }
    }
    table[hole] = PLS_MEMBER_NONE;
}

static void chain_insert(pls_identities *pool, uint32_t member)
{
    item *it = &pool->items[member];
    uint32_t slot = name_slot(pool, it->text, it->name_bytes);
    it->next = pool->by_name[slot];
    pool->by_name[slot] = member;
}

static void chain_remove(pls_identities *pool, uint32_t member)
{
    item *it = &pool->items[member];
    uint32_t slot = name_slot(pool, it->text, it->name_bytes);
    uint32_t *link = &pool->by_name[slot];
    while (*link != member) {
        link = &pool->items[*link].next;
    }
    *link = it->next;
    if (pool->by_name[slot] == PLS_MEMBER_NONE) {
        table_remove(pool, pool->by_name, slot);
    }
}

static pls_err tables_grow(pls_identities *pool)
{
    if (pool->held_count + 1 <= pool->table_capacity / 2) {
        return PLS_OK;
    }
    size_t old_bytes = pool->table_capacity * sizeof(uint32_t);
    uint32_t capacity = pool->table_capacity > 0 ? pool->table_capacity * 2 : TABLE_CAPACITY_MIN;
    uint32_t *by_key = pls_heap_resize(&pool->heap, NULL, 0, capacity * sizeof(uint32_t));
    uint32_t *by_name = pls_heap_resize(&pool->heap, NULL, 0, capacity * sizeof(uint32_t));
    if (by_key == NULL || by_name == NULL) {
        pls_heap_resize(&pool->heap, by_key, by_key ? capacity * sizeof(uint32_t) : 0, 0);
        pls_heap_resize(&pool->heap, by_name, by_name ? capacity * sizeof(uint32_t) : 0, 0);
        return PLS_ENOMEM;
    }
    pls_heap_resize(&pool->heap, pool->by_key, old_bytes, 0);
    pls_heap_resize(&pool->heap, pool->by_name, old_bytes, 0);
    memset(by_key, 0xff, capacity * sizeof(uint32_t));
    memset(by_name, 0xff, capacity * sizeof(uint32_t));
    pool->by_key = by_key;
    pool->by_name = by_name;
    pool->table_capacity = capacity;
    for (uint32_t i = 0; i < pool->items_limit; i++) {
        if (pool->items[i].refs > 0) {
            by_key[key_slot(pool, pool->items[i].key)] = i;
            chain_insert(pool, i);
        }
    }
    return PLS_OK;
}

static pls_err item_reserve(pls_identities *pool)
{
    pls_err err = tables_grow(pool);
    if (err != PLS_OK || pool->free_first != PLS_MEMBER_NONE) {
        return err;
    }
    void *items = pool->items;
    err = pls_heap_reserve(&pool->heap, &items, &pool->items_capacity, pool->items_limit + 1,
                           sizeof(item));
    pool->items = items;
    return err;
}

pls_err pls_identities_create(const pls_allocator *allocator, pls_identities **pool_out)
{
    pls_heap heap = pls_heap_over(allocator);
    pls_identities *pool = pls_heap_resize(&heap, NULL, 0, sizeof *pool);
    if (pool == NULL) {
        return PLS_ENOMEM;
    }
    memset(pool, 0, sizeof *pool);
    pool->heap = heap;
    pool->free_first = PLS_MEMBER_NONE;
    *pool_out = pool;
    return PLS_OK;
}

void pls_identities_destroy(pls_identities *pool)
{
    if (pool == NULL) {
        return;
    }
    pls_assert(pool->held_count == 0);
    size_t table_bytes = pool->table_capacity * sizeof(uint32_t);
    pls_heap_resize(&pool->heap, pool->by_key, table_bytes, 0);
    pls_heap_resize(&pool->heap, pool->by_name, table_bytes, 0);
    pls_heap_resize(&pool->heap, pool->items, pool->items_capacity * sizeof(item), 0);
    pls_heap heap = pool->heap;
    pls_heap_resize(&heap, pool, sizeof *pool, 0);
    pls_assert(heap.bytes == 0);
}

static bool identity_is_valid(const pls_identity *identity)
{
    return identity->name_bytes >= 1 && identity->name_bytes <= PLS_NAME_BYTES_MAX &&
           identity->address_bytes >= 1 && identity->address_bytes <= PLS_ADDRESS_BYTES_MAX &&
           identity->generation >= 1;
}

static bool item_is(const item *it, const pls_identity *identity)
{
    return item_is_named(it, identity->name, identity->name_bytes) &&
           it->generation == identity->generation && it->address_bytes == identity->address_bytes &&
           memcmp(it->text + it->name_bytes, identity->address, it->address_bytes) == 0;
}

pls_err pls_identities_acquire(pls_identities *pool, const pls_identity *identity,
                               pls_member *member_out)
{
    if (!identity_is_valid(identity)) {
        return PLS_EINVAL;
    }
    uint64_t key = pls_identity_key(identity);
    pls_member member = pls_identities_find(pool, key);
    if (member != PLS_MEMBER_NONE) {
        if (!item_is(&pool->items[member], identity)) {
            return PLS_EEXIST;
        }
        pool->items[member].refs++;
        *member_out = member;
        return PLS_OK;
    }
    pls_err err = item_reserve(pool);
    if (err != PLS_OK) {
        return err;
    }
    uint32_t text_bytes = identity->name_bytes + identity->address_bytes;
    char *text = pls_heap_resize(&pool->heap, NULL, 0, text_bytes);
    if (text == NULL) {
        return PLS_ENOMEM;
    }
    memcpy(text, identity->name, identity->name_bytes);
    memcpy(text + identity->name_bytes, identity->address, identity->address_bytes);
    member = pool->free_first;
    if (member != PLS_MEMBER_NONE) {
        pool->free_first = pool->items[member].next;
    } else {
        member = pool->items_limit++;
    }
    pool->items[member] = (item){.key = key,
                                 .generation = identity->generation,
                                 .text = text,
                                 .refs = 1,
                                 .name_bytes = (uint16_t)identity->name_bytes,
                                 .address_bytes = (uint16_t)identity->address_bytes};
    pool->by_key[key_slot(pool, key)] = member;
    chain_insert(pool, member);
    pool->held_count++;
    *member_out = member;
    return PLS_OK;
}

void pls_identities_hold(pls_identities *pool, pls_member member)
{
    pls_assert(member < pool->items_limit);
    pls_assert(pool->items[member].refs > 0);
    pool->items[member].refs++;
}

static void meta_free(pls_identities *pool, meta *m)
{
    pls_heap_resize(&pool->heap, m, sizeof *m + m->len, 0);
}

void pls_identities_release(pls_identities *pool, pls_member member)
{
    pls_assert(member < pool->items_limit);
    item *it = &pool->items[member];
    pls_assert(it->refs > 0);
    if (--it->refs > 0) {
        return;
    }
    table_remove(pool, pool->by_key, key_slot(pool, it->key));
    chain_remove(pool, member);
    while (it->oldest != NULL) {
        meta *m = it->oldest;
        it->oldest = m->newer;
        meta_free(pool, m);
    }
    pls_heap_resize(&pool->heap, it->text, (size_t)it->name_bytes + it->address_bytes, 0);
    it->text = NULL;
    it->next = pool->free_first;
    pool->free_first = member;
    pool->held_count--;
}

pls_member pls_identities_find(const pls_identities *pool, uint64_t key)
{
    return pool->held_count == 0 ? PLS_MEMBER_NONE : pool->by_key[key_slot(pool, key)];
}

pls_identity pls_identities_get(const pls_identities *pool, pls_member member)
{
    pls_assert(member < pool->items_limit);
    const item *it = &pool->items[member];
    pls_assert(it->refs > 0);
    return (pls_identity){it->key,        it->generation,   it->text, it->text + it->name_bytes,
                          it->name_bytes, it->address_bytes};
}

uint64_t pls_identities_key(const pls_identities *pool, pls_member member)
{
    pls_assert(member < pool->items_limit);
    return pool->items[member].key;
}

pls_member pls_identities_named(const pls_identities *pool, const char *name, uint32_t name_bytes,
                                pls_member after)
{
    if (after != PLS_MEMBER_NONE) {
        return pool->items[after].next;
    }
    return pool->held_count == 0 ? PLS_MEMBER_NONE
                                 : pool->by_name[name_slot(pool, name, name_bytes)];
}

pls_err pls_identities_set_meta(pls_identities *pool, pls_member member, uint64_t incarnation,
                                const void *bytes, uint32_t len)
{
    pls_assert(len <= PLS_META_BYTES_MAX);
    item *it = &pool->items[member];
    uint32_t now_len = 0;
    const void *now = pls_identities_meta(pool, member, incarnation, &now_len);
    if (now_len == len && (len == 0 || memcmp(now, bytes, len) == 0)) {
        return PLS_OK;
    }
    meta **link = &it->oldest;
    uint32_t count = 0;
    for (meta *m = it->oldest; m != NULL; m = m->newer) {
        if (m->incarnation == incarnation && !pls_mutant(PLS_MUTANT_META_FORKS)) {
            return PLS_EEXIST;
        }
        link = m->incarnation <= incarnation ? &m->newer : link;
        count++;
    }
    meta *made = pls_heap_resize(&pool->heap, NULL, 0, sizeof *made + len);
    if (made == NULL) {
        return PLS_ENOMEM;
    }
    *made = (meta){*link, incarnation, len};
    if (len > 0) {
        memcpy(made->bytes, bytes, len);
    }
    *link = made;
    if (count == METAS_MAX) {
        meta *oldest = it->oldest;
        it->oldest = oldest->newer;
        meta_free(pool, oldest);
    }
    return PLS_OK;
}

const void *pls_identities_meta(const pls_identities *pool, pls_member member, uint64_t incarnation,
                                uint32_t *len_out)
{
    const meta *found = NULL;
    for (const meta *m = pool->items[member].oldest; m != NULL; m = m->newer) {
        if (m->incarnation > incarnation) {
            break;
        }
        found = m;
    }
    *len_out = found != NULL ? found->len : 0;
    return found != NULL ? found->bytes : NULL;
}

uint32_t pls_identities_limit(const pls_identities *pool)
{
    return pool->items_limit;
}
