/* SPDX-License-Identifier: Apache-2.0 */
/* The names in memory. Records are cut from an arena of equal chunks and are named by 32-bit places
 * of 8 bytes each, so that a name costs its bytes, 38 more, one table slot and one log slot. The
 * table finds the first record of a name by a hash that is kept in the slot; records of the same
 * name hang together in the order of their owners' keys. Each log lists its records by version;
 * when a name gets a later version its old slot becomes a hole, and a log of holes is compacted. */
#include "gossip/registry.h"

#include "base/assert.h"
#include "base/limits.h"
#include "gossip/hash.h"
#include "gossip/state.h"

#include <string.h>

#define UNIT_BYTES 8u
#define CHUNK_UNITS 8192u
#define TABLE_CAPACITY_MIN 64u
#define HOLES_MIN 32u
#define NAME_AT offsetof(pls_record, name)

_Static_assert((NAME_AT + PLS_NAME_BYTES_MAX) / UNIT_BYTES + 1 < PLS_RECORD_CLASSES,
               "every record has a class");

void pls_registry_init(pls_registry *registry)
{
    registry->logs_free = PLS_INDEX_NONE;
    registry->tidy_ns = UINT64_MAX;
    pls_queue_init(&registry->queue, PLS_RANGES_MAX);
}

void pls_registry_destroy(pls_gossip *gossip)
{
    pls_registry *r = &gossip->registry;
    for (uint32_t i = 0; i < r->logs_count; i++) {
        pls_heap_resize(&gossip->heap, r->logs[i].slots,
                        r->logs[i].slots_capacity * sizeof(pls_log_slot), 0);
    }
    for (uint32_t i = 0; i < r->chunks_count; i++) {
        pls_heap_resize(&gossip->heap, r->chunks[i], CHUNK_UNITS * UNIT_BYTES, 0);
    }
    pls_heap_resize(&gossip->heap, r->logs, r->logs_capacity * sizeof(pls_log), 0);
    pls_heap_resize(&gossip->heap, r->chunks, r->chunks_capacity * sizeof *r->chunks, 0);
    pls_heap_resize(&gossip->heap, r->table, r->table_capacity * sizeof(pls_name_slot), 0);
    pls_index_fini(&r->log_of, &gossip->heap);
    pls_queue_fini(&r->queue, &gossip->heap);
}

pls_record *pls_registry_record(const pls_registry *registry, pls_record_at at)
{
    pls_assert(at != 0);
    pls_assert(at / CHUNK_UNITS < registry->chunks_count);
    uint8_t *chunk = registry->chunks[at / CHUNK_UNITS];
    return (pls_record *)(void *)(chunk + (size_t)(at % CHUNK_UNITS) * UNIT_BYTES);
}

static uint32_t units_of(uint32_t name_bytes)
{
    return (uint32_t)(NAME_AT + name_bytes + UNIT_BYTES - 1) / UNIT_BYTES;
}

static void record_free(pls_registry *r, pls_record_at at, uint32_t units)
{
    pls_registry_record(r, at)->peers = r->free_first[units];
    r->free_first[units] = at;
}

static pls_err chunk_add(pls_gossip *gossip)
{
    pls_registry *r = &gossip->registry;
    void *chunks = r->chunks;
    pls_err err = pls_heap_reserve(&gossip->heap, &chunks, &r->chunks_capacity, r->chunks_count + 1,
                                   sizeof *r->chunks);
    r->chunks = chunks;
    if (err != PLS_OK) {
        return err;
    }
    uint8_t *chunk = pls_heap_resize(&gossip->heap, NULL, 0, CHUNK_UNITS * UNIT_BYTES);
    if (chunk == NULL) {
        return PLS_ENOMEM;
    }
    /* What is left of the last chunk serves a shorter name, when it is long enough for a record. */
    if (r->chunks_count > 0) {
        uint32_t left = CHUNK_UNITS - r->chunk_used;
        if (left >= units_of(1)) {
            record_free(r, (r->chunks_count - 1) * CHUNK_UNITS + r->chunk_used, left);
        }
    }
    r->chunks[r->chunks_count++] = chunk;
    r->chunk_used = r->chunks_count == 1 ? 1 : 0;
    return PLS_OK;
}

static pls_err record_make(pls_gossip *gossip, uint32_t units, pls_record_at *at_out)
{
    pls_registry *r = &gossip->registry;
    pls_record_at at = r->free_first[units];
    if (at != 0) {
        r->free_first[units] = pls_registry_record(r, at)->peers;
        *at_out = at;
        return PLS_OK;
    }
    if (r->chunks_count == 0 || r->chunk_used + units > CHUNK_UNITS) {
        pls_err err = chunk_add(gossip);
        if (err != PLS_OK) {
            return err;
        }
    }
    *at_out = (r->chunks_count - 1) * CHUNK_UNITS + r->chunk_used;
    r->chunk_used += units;
    return PLS_OK;
}

static uint32_t hash_name(const char *name, uint32_t name_bytes)
{
    return (uint32_t)pls_hash_bytes(1, name, name_bytes);
}

/* The slot of a name or the empty one where it would be. */
static uint32_t table_slot(const pls_registry *r, uint32_t hash, const char *name,
                           uint32_t name_bytes)
{
    uint32_t mask = r->table_capacity - 1;
    for (uint32_t at = hash & mask;; at = (at + 1) & mask) {
        const pls_name_slot *slot = &r->table[at];
        if (slot->record == 0) {
            return at;
        }
        if (slot->hash == hash) {
            const pls_record *record = pls_registry_record(r, slot->record);
            if (record->name_bytes == name_bytes && memcmp(record->name, name, name_bytes) == 0) {
                return at;
            }
        }
    }
}

static pls_err table_reserve(pls_gossip *gossip)
{
    pls_registry *r = &gossip->registry;
    if (r->table_capacity > 0 && r->table_count + 1 <= r->table_capacity / 4 * 3) {
        return PLS_OK;
    }
    uint32_t capacity = r->table_capacity > 0 ? r->table_capacity * 2 : TABLE_CAPACITY_MIN;
    pls_name_slot *table =
        pls_heap_resize(&gossip->heap, NULL, 0, capacity * sizeof(pls_name_slot));
    if (table == NULL) {
        return PLS_ENOMEM;
    }
    memset(table, 0, capacity * sizeof *table);
    for (uint32_t i = 0; i < r->table_capacity; i++) {
        if (r->table[i].record != 0) {
            uint32_t at = r->table[i].hash & (capacity - 1);
            while (table[at].record != 0) {
                at = (at + 1) & (capacity - 1);
            }
            table[at] = r->table[i];
        }
    }
    pls_heap_resize(&gossip->heap, r->table, r->table_capacity * sizeof(pls_name_slot), 0);
    r->table = table;
    r->table_capacity = capacity;
    return PLS_OK;
}

static void table_remove(pls_registry *r, uint32_t hole)
{
    uint32_t mask = r->table_capacity - 1;
    for (uint32_t at = (hole + 1) & mask; r->table[at].record != 0; at = (at + 1) & mask) {
        uint32_t home = r->table[at].hash & mask;
        if (((at - home) & mask) >= ((at - hole) & mask)) {
            r->table[hole] = r->table[at];
            hole = at;
        }
    }
    r->table[hole] = (pls_name_slot){0, 0};
    r->table_count--;
}

pls_record_at pls_registry_first(const pls_registry *registry, const char *name,
                                 uint32_t name_bytes)
{
    if (registry->table_count == 0) {
        return 0;
    }
    uint32_t hash = hash_name(name, name_bytes);
    return registry->table[table_slot(registry, hash, name, name_bytes)].record;
}

pls_record_at pls_registry_lookup(const pls_registry *registry, uint32_t log, const char *name,
                                  uint32_t name_bytes)
{
    pls_record_at at = pls_registry_first(registry, name, name_bytes);
    while (at != 0 && pls_registry_record(registry, at)->log != log) {
        at = pls_registry_record(registry, at)->peers;
    }
    return at;
}

static uint64_t order_of(const pls_gossip *gossip, uint32_t log)
{
    return log == PLS_LOG_WATCHES ? 0 : pls_gossip_key_of(gossip, gossip->registry.logs[log].owner);
}

/* Needs a table_reserve before it. */
static void chain_insert(pls_gossip *gossip, pls_record_at at)
{
    pls_registry *r = &gossip->registry;
    pls_record *record = pls_registry_record(r, at);
    uint32_t slot = table_slot(r, record->hash, record->name, record->name_bytes);
    pls_record_at *link = &r->table[slot].record;
    r->table_count += *link == 0;
    r->table[slot].hash = record->hash;
    uint64_t order = order_of(gossip, record->log);
    while (*link != 0 && order_of(gossip, pls_registry_record(r, *link)->log) < order) {
        link = &pls_registry_record(r, *link)->peers;
    }
    record->peers = *link;
    *link = at;
}

static void chain_remove(pls_registry *r, pls_record_at at)
{
    const pls_record *record = pls_registry_record(r, at);
    uint32_t slot = table_slot(r, record->hash, record->name, record->name_bytes);
    pls_record_at *link = &r->table[slot].record;
    while (*link != at) {
        link = &pls_registry_record(r, *link)->peers;
    }
    *link = record->peers;
    if (r->table[slot].record == 0) {
        table_remove(r, slot);
    }
}

uint32_t pls_registry_log(const pls_registry *registry, pls_member owner)
{
    return pls_index_get(&registry->log_of, owner);
}

static pls_err logs_reserve(pls_gossip *gossip)
{
    pls_registry *r = &gossip->registry;
    void *logs = r->logs;
    /* Two at first: the watches have the one at 0. */
    pls_err err = pls_heap_reserve(&gossip->heap, &logs, &r->logs_capacity, r->logs_count + 2,
                                   sizeof(pls_log));
    r->logs = logs;
    if (err == PLS_OK && r->logs_count == 0) {
        r->logs[r->logs_count++] = (pls_log){.owner = PLS_MEMBER_NONE};
    }
    return err;
}

pls_err pls_registry_log_make(pls_gossip *gossip, pls_member owner, uint32_t *log_out)
{
    pls_registry *r = &gossip->registry;
    uint32_t log = PLS_LOG_WATCHES;
    pls_err err = logs_reserve(gossip);
    if (err == PLS_OK && owner != PLS_MEMBER_NONE) {
        err = pls_index_reserve(&r->log_of, &gossip->heap);
        log = pls_registry_log(r, owner);
    }
    if (err != PLS_OK || log != PLS_INDEX_NONE) {
        *log_out = log;
        return err;
    }
    log = r->logs_free;
    if (log != PLS_INDEX_NONE) {
        r->logs_free = r->logs[log].live_count;
    } else {
        log = r->logs_count++;
    }
    bool live = pls_state_is_live(pls_members_state(&gossip->members, owner));
    r->logs[log] = (pls_log){.owner = owner, .visible = live};
    pls_index_set(&r->log_of, owner, log);
    gossip->members.entries[owner] |= PLS_ENTRY_NAMED;
    *log_out = log;
    return PLS_OK;
}

uint32_t pls_log_seek(const pls_log *log, uint64_t after)
{
    uint64_t relative = after < log->base ? 0 : after - log->base;
    uint32_t low = 0;
    uint32_t high = log->slots_count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (log->slots[middle].version > relative) {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    return low;
}

static void log_compact(pls_log *log)
{
    uint32_t kept = 0;
    uint64_t base = log->version;
    for (uint32_t i = 0; i < log->slots_count; i++) {
        if (log->slots[i].record != 0) {
            base = kept == 0 ? log->base + log->slots[i].version - 1 : base;
            log->slots[kept].record = log->slots[i].record;
            log->slots[kept++].version = (uint32_t)(log->base + log->slots[i].version - base);
        }
    }
    log->base = base;
    log->slots_count = kept;
    log->holes = 0;
}

static void slot_clear(pls_registry *r, const pls_record *record)
{
    pls_log *log = &r->logs[record->log];
    uint32_t at = pls_log_seek(log, record->version - 1);
    pls_assert(at < log->slots_count);
    pls_assert(log->base + log->slots[at].version == record->version);
    log->slots[at].record = 0;
    log->holes++;
    bool removed = (record->flags & PLS_WIRE_NAME_REMOVED) != 0;
    log->live_count -= !removed;
    log->unique_count -= !removed && (record->flags & PLS_WIRE_NAME_UNIQUE) != 0;
    while (log->slots_count > 0 && log->slots[log->slots_count - 1].record == 0) {
        log->slots_count--;
        log->holes--;
    }
    if (log->holes > HOLES_MIN && log->holes > log->slots_count / 2) {
        log_compact(log);
    }
}

static pls_err slot_reserve(pls_gossip *gossip, pls_log *log, uint64_t version)
{
    if (version - log->base > UINT32_MAX) {
        log_compact(log);
    }
    if (version - log->base > UINT32_MAX) {
        return PLS_EFULL;
    }
    void *slots = log->slots;
    pls_err err = pls_heap_reserve(&gossip->heap, &slots, &log->slots_capacity,
                                   log->slots_count + 1, sizeof(pls_log_slot));
    log->slots = slots;
    return err;
}

static void slot_append(pls_registry *r, uint32_t log_at, pls_record_at at)
{
    pls_log *log = &r->logs[log_at];
    const pls_record *record = pls_registry_record(r, at);
    pls_assert(log->slots_count < log->slots_capacity);
    log->slots[log->slots_count++] = (pls_log_slot){(uint32_t)(record->version - log->base), at};
    bool removed = (record->flags & PLS_WIRE_NAME_REMOVED) != 0;
    log->live_count += !removed;
    log->unique_count += !removed && (record->flags & PLS_WIRE_NAME_UNIQUE) != 0;
}

pls_err pls_registry_set(pls_gossip *gossip, uint32_t log_at, const pls_name_content *content)
{
    pls_registry *r = &gossip->registry;
    pls_assert(content->version > r->logs[log_at].base);
    pls_record_at at = pls_registry_lookup(r, log_at, content->name, content->name_bytes);
    bool fresh = at == 0;
    if (fresh && r->records_count >= gossip->config.names_max) {
        return PLS_EFULL;
    }
    pls_err err = slot_reserve(gossip, &r->logs[log_at], content->version);
    if (err == PLS_OK && fresh) {
        err = table_reserve(gossip);
    }
    if (err == PLS_OK && fresh) {
        err = record_make(gossip, units_of(content->name_bytes), &at);
    }
    if (err != PLS_OK) {
        return err;
    }
    pls_record *record = pls_registry_record(r, at);
    if (!fresh) {
        slot_clear(r, record);
    }
    record->version = content->version;
    record->value = content->value;
    record->stamp = content->stamp;
    record->flags = (uint8_t)content->flags;
    if (fresh) {
        record->log = log_at;
        record->hash = hash_name(content->name, content->name_bytes);
        record->name_bytes = (uint8_t)content->name_bytes;
        memcpy(record->name, content->name, content->name_bytes);
        chain_insert(gossip, at);
        r->records_count++;
    }
    slot_append(r, log_at, at);
    return PLS_OK;
}

void pls_registry_erase(pls_gossip *gossip, pls_record_at at)
{
    pls_registry *r = &gossip->registry;
    pls_record *record = pls_registry_record(r, at);
    slot_clear(r, record);
    chain_remove(r, at);
    record_free(r, at, units_of(record->name_bytes));
    r->records_count--;
}

void pls_registry_shrink(pls_gossip *gossip, uint32_t log_at, uint32_t count_max)
{
    pls_log *log = &gossip->registry.logs[log_at];
    while (count_max-- > 0 && log->slots_count > 0) {
        pls_registry_erase(gossip, log->slots[log->slots_count - 1].record);
    }
    if (log->slots_count == 0) {
        pls_heap_resize(&gossip->heap, log->slots, log->slots_capacity * sizeof(pls_log_slot), 0);
        log->slots = NULL;
        log->slots_capacity = 0;
        log->base = 0;
    }
}

void pls_registry_clear(pls_gossip *gossip, uint32_t log)
{
    pls_registry_shrink(gossip, log, UINT32_MAX);
}

void pls_registry_sweep(pls_gossip *gossip, uint32_t log_at)
{
    pls_registry *r = &gossip->registry;
    uint64_t after = 0;
    for (;;) {
        const pls_log *log = &r->logs[log_at];
        uint32_t at = pls_log_seek(log, after);
        while (at < log->slots_count) {
            pls_record_at found = log->slots[at].record;
            after = log->base + log->slots[at].version;
            if (after > log->floor ||
                (found != 0 && (pls_registry_record(r, found)->flags & PLS_WIRE_NAME_REMOVED))) {
                break;
            }
            at++;
        }
        if (at >= log->slots_count || after > log->floor) {
            return;
        }
        gossip->counters.tombstones_freed++;
        pls_registry_erase(gossip, log->slots[at].record);
    }
}

void pls_registry_log_free(pls_gossip *gossip, uint32_t log_at)
{
    pls_registry *r = &gossip->registry;
    pls_assert(log_at != PLS_LOG_WATCHES);
    pls_registry_clear(gossip, log_at);
    pls_log *log = &r->logs[log_at];
    pls_member owner = log->owner;
    r->dropping_count -= log->dropping;
    pls_queue_remove(&r->queue, owner);
    pls_members_renamed(gossip, owner, log->version, 0);
    gossip->members.entries[owner] &= ~PLS_ENTRY_NAMED;
    pls_index_remove(&r->log_of, owner);
    *log = (pls_log){.owner = PLS_MEMBER_NONE, .live_count = r->logs_free};
    r->logs_free = log_at;
}

static uint32_t check_log(const pls_gossip *gossip, uint32_t log_at)
{
    const pls_registry *r = &gossip->registry;
    const pls_log *log = &r->logs[log_at];
    uint32_t holes = 0;
    uint32_t live = 0;
    for (uint32_t i = 0; i < log->slots_count; i++) {
        const pls_log_slot *slot = &log->slots[i];
        pls_assert(i == 0 || log->slots[i - 1].version < slot->version);
        if (slot->record == 0) {
            holes++;
            continue;
        }
        const pls_record *record = pls_registry_record(r, slot->record);
        pls_assert(record->log == log_at);
        pls_assert(record->version == log->base + slot->version);
        pls_assert(pls_registry_lookup(r, log_at, record->name, record->name_bytes) ==
                   slot->record);
        pls_assert(record->version <= log->version || log->dropping);
        live += (record->flags & PLS_WIRE_NAME_REMOVED) == 0;
    }
    pls_assert(holes == log->holes);
    pls_assert(live == log->live_count);
    return log->slots_count - holes;
}

void pls_registry_check(const pls_gossip *gossip)
{
    const pls_registry *r = &gossip->registry;
    uint32_t records = 0;
    for (uint32_t i = 0; i < r->logs_count; i++) {
        const pls_log *log = &r->logs[i];
        if (i != PLS_LOG_WATCHES && log->owner == PLS_MEMBER_NONE) {
            continue;
        }
        records += check_log(gossip, i);
        if (i != PLS_LOG_WATCHES) {
            pls_member_state state = pls_members_state(&gossip->members, log->owner);
            pls_assert(pls_registry_log(r, log->owner) == i);
            pls_assert(log->visible == pls_state_is_live(state));
            pls_assert(pls_members_entry(&gossip->members, log->owner) & PLS_ENTRY_NAMED);
        }
    }
    pls_assert(records == r->records_count);
    pls_assert(r->table_count <= r->records_count);
}
