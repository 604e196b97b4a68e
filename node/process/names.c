/* SPDX-License-Identifier: Apache-2.0 */
/* Two chained hash tables that grow together, and one list per slot. */
#include "node/process/names.h"

#include "base/assert.h"
#include "node/control_data.h"

#include <stdlib.h>
#include <string.h>

#define BUCKETS_FIRST 256

struct pls_names {
    uint64_t seed;
    uint32_t count;
    uint32_t bucket_mask;
    pls_name **by_name;
    pls_name **by_actor;
    pls_name *slots[PLS_SLOTS_MAX];
    void (*gone)(void *owner, const pls_name *name);
    void *gone_owner;
};

static uint64_t mix(uint64_t value)
{
    value = (value ^ value >> 30) * 0xbf58476d1ce4e5b9ull;
    value = (value ^ value >> 27) * 0x94d049bb133111ebull;
    return value ^ value >> 31;
}

static uint32_t name_hash(const pls_names *names, const char *bytes, size_t len)
{
    uint64_t hash = names->seed;
    for (size_t i = 0; i < len; i++) {
        hash = (hash ^ (uint8_t)bytes[i]) * 0x100000001b3ull;
    }
    return (uint32_t)mix(hash ^ len);
}

static uint32_t actor_hash(const pls_names *names, uint64_t actor)
{
    return (uint32_t)mix(actor ^ names->seed);
}

pls_err pls_names_create(uint64_t seed, pls_names **names_out)
{
    pls_names *names = calloc(1, sizeof *names);
    if (names == NULL) {
        return PLS_ENOMEM;
    }
    names->seed = seed;
    names->bucket_mask = BUCKETS_FIRST - 1;
    names->by_name = calloc(BUCKETS_FIRST, sizeof(pls_name *));
    names->by_actor = calloc(BUCKETS_FIRST, sizeof(pls_name *));
    if (names->by_name == NULL || names->by_actor == NULL) {
        pls_names_destroy(names);
        return PLS_ENOMEM;
    }
    *names_out = names;
    return PLS_OK;
}

void pls_names_on_gone(pls_names *names, void (*gone)(void *owner, const pls_name *name),
                       void *owner)
{
    names->gone = gone;
    names->gone_owner = owner;
}

void pls_names_destroy(pls_names *names)
{
    if (names == NULL) {
        return;
    }
    names->gone = NULL;
    for (uint32_t slot = 0; slot < PLS_SLOTS_MAX; slot++) {
        while (names->slots[slot] != NULL) {
            pls_names_remove(names, names->slots[slot]);
        }
    }
    free(names->by_name);
    free(names->by_actor);
    free(names);
}

static void tables_link(pls_names *names, pls_name *name)
{
    pls_name **bucket = &names->by_name[name->hash & names->bucket_mask];
    name->same_hash = *bucket;
    *bucket = name;
    bucket = &names->by_actor[actor_hash(names, name->entry.actor) & names->bucket_mask];
    name->same_actor_hash = *bucket;
    *bucket = name;
}

/* Doubles both tables; when memory is short the chains just become longer. */
static void tables_grow(pls_names *names)
{
    uint32_t buckets = (names->bucket_mask + 1) * 2;
    pls_name **by_name = calloc(buckets, sizeof(pls_name *));
    pls_name **by_actor = calloc(buckets, sizeof(pls_name *));
    if (by_name == NULL || by_actor == NULL) {
        free(by_name);
        free(by_actor);
        return;
    }
    free(names->by_name);
    free(names->by_actor);
    names->by_name = by_name;
    names->by_actor = by_actor;
    names->bucket_mask = buckets - 1;
    for (uint32_t slot = 0; slot < PLS_SLOTS_MAX; slot++) {
        for (pls_name *name = names->slots[slot]; name != NULL; name = name->slot_next) {
            tables_link(names, name);
        }
    }
}

static void slot_link(pls_names *names, pls_name *name)
{
    pls_assert(name->entry.slot < PLS_SLOTS_MAX);
    pls_name **first = &names->slots[name->entry.slot];
    name->slot_previous = NULL;
    name->slot_next = *first;
    if (*first != NULL) {
        (*first)->slot_previous = name;
    }
    *first = name;
}

static void slot_unlink(pls_names *names, pls_name *name)
{
    if (name->slot_previous != NULL) {
        name->slot_previous->slot_next = name->slot_next;
    } else {
        names->slots[name->entry.slot] = name->slot_next;
    }
    if (name->slot_next != NULL) {
        name->slot_next->slot_previous = name->slot_previous;
    }
}

static pls_name *name_create(const pls_name_entry *entry)
{
    pls_name *name =
        malloc(sizeof *name + entry->name_bytes + entry->class_name_bytes + entry->metadata_bytes);
    if (name == NULL) {
        return NULL;
    }
    *name = (pls_name){.entry = *entry};
    char *at = name->bytes;
    memcpy(at, entry->name, entry->name_bytes);
    name->entry.name = at;
    at += entry->name_bytes;
    if (entry->class_name_bytes > 0) {
        memcpy(at, entry->class_name, entry->class_name_bytes);
    }
    name->entry.class_name = at;
    at += entry->class_name_bytes;
    if (entry->metadata_bytes > 0) {
        memcpy(at, entry->metadata, entry->metadata_bytes);
    }
    name->entry.metadata = (const uint8_t *)at;
    return name;
}

pls_err pls_names_add(pls_names *names, const pls_name_entry *entry, pls_name **name_out)
{
    pls_name *holder = pls_names_find(names, entry->name, entry->name_bytes);
    if (holder != NULL) {
        *name_out = holder;
        return PLS_EEXIST;
    }
    if (names->count == PLS_NAMES_MAX) {
        return PLS_EFULL;
    }
    pls_name *name = name_create(entry);
    if (name == NULL) {
        return PLS_ENOMEM;
    }
    name->hash = name_hash(names, name->entry.name, name->entry.name_bytes);
    if (names->count > names->bucket_mask) {
        tables_grow(names);
    }
    tables_link(names, name);
    slot_link(names, name);
    names->count++;
    *name_out = name;
    return PLS_OK;
}

pls_name *pls_names_find(pls_names *names, const char *name, size_t name_bytes)
{
    uint32_t hash = name_hash(names, name, name_bytes);
    pls_name *found = names->by_name[hash & names->bucket_mask];
    while (found != NULL && (found->hash != hash || found->entry.name_bytes != name_bytes ||
                             memcmp(found->entry.name, name, name_bytes) != 0)) {
        found = found->same_hash;
    }
    return found;
}

pls_name *pls_names_of_actor(pls_names *names, uint64_t actor)
{
    pls_name *found = names->by_actor[actor_hash(names, actor) & names->bucket_mask];
    while (found != NULL && found->entry.actor != actor) {
        found = found->same_actor_hash;
    }
    return found;
}

pls_name *pls_names_at_slot(pls_names *names, uint32_t slot)
{
    pls_assert(slot < PLS_SLOTS_MAX);
    return names->slots[slot];
}

void pls_names_remove(pls_names *names, pls_name *name)
{
    if (names->gone != NULL) {
        names->gone(names->gone_owner, name);
    }
    pls_name **link = &names->by_name[name->hash & names->bucket_mask];
    while (*link != name) {
        link = &(*link)->same_hash;
    }
    *link = name->same_hash;
    link = &names->by_actor[actor_hash(names, name->entry.actor) & names->bucket_mask];
    while (*link != name) {
        link = &(*link)->same_actor_hash;
    }
    *link = name->same_actor_hash;
    slot_unlink(names, name);
    names->count--;
    free(name);
}

void pls_names_remove_actor(pls_names *names, uint64_t actor)
{
    for (;;) {
        pls_name *name = pls_names_of_actor(names, actor);
        if (name == NULL) {
            return;
        }
        pls_names_remove(names, name);
    }
}

void pls_names_move_actor(pls_names *names, uint64_t actor, uint32_t slot, uint32_t epoch)
{
    pls_name *name = names->by_actor[actor_hash(names, actor) & names->bucket_mask];
    for (; name != NULL; name = name->same_actor_hash) {
        if (name->entry.actor == actor) {
            slot_unlink(names, name);
            name->entry.slot = slot;
            name->entry.epoch = epoch;
            slot_link(names, name);
        }
    }
}

uint32_t pls_names_count(const pls_names *names)
{
    return names->count;
}

size_t pls_names_encoded_bytes(const pls_names *names)
{
    size_t bytes = 0;
    for (uint32_t slot = 0; slot < PLS_SLOTS_MAX; slot++) {
        for (pls_name *name = names->slots[slot]; name != NULL; name = name->slot_next) {
            bytes += pls_name_entry_bytes(&name->entry);
        }
    }
    return bytes;
}

void pls_names_encode(const pls_names *names, uint8_t *bytes)
{
    pls_writer w = pls_writer_into(bytes, pls_names_encoded_bytes(names));
    for (uint32_t slot = 0; slot < PLS_SLOTS_MAX; slot++) {
        for (pls_name *name = names->slots[slot]; name != NULL; name = name->slot_next) {
            pls_name_entry_encode(&name->entry, &w);
        }
    }
    pls_assert(!w.bad);
}

bool pls_names_check(const pls_names *names)
{
    uint32_t in_slots = 0;
    uint32_t in_names = 0;
    uint32_t in_actors = 0;
    for (uint32_t slot = 0; slot < PLS_SLOTS_MAX; slot++) {
        const pls_name *previous = NULL;
        for (pls_name *name = names->slots[slot]; name != NULL; name = name->slot_next) {
            if (name->slot_previous != previous || name->entry.slot != slot) {
                return false;
            }
            previous = name;
            in_slots++;
        }
    }
    for (uint32_t bucket = 0; bucket <= names->bucket_mask; bucket++) {
        for (pls_name *name = names->by_name[bucket]; name != NULL; name = name->same_hash) {
            in_names += (name->hash & names->bucket_mask) == bucket;
        }
        for (pls_name *n = names->by_actor[bucket]; n != NULL; n = n->same_actor_hash) {
            in_actors += (actor_hash(names, n->entry.actor) & names->bucket_mask) == bucket;
        }
    }
    return in_slots == names->count && in_names == names->count && in_actors == names->count;
}
