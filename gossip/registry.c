/* SPDX-License-Identifier: Apache-2.0 */
/* The names in memory: a table finds a name's records (table.h), and each owner has a log that
 * lists its own by version. A log knows a record by its version and the hash of its name, which
 * stay when records move. When a name gets a later version its old slot becomes a hole, and a log
 * of holes is compacted. */
#include "gossip/registry.h"

#include "base/assert.h"
#include "gossip/state.h"

#include <string.h>

#define HOLES_MIN 32u

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
    pls_heap_resize(&gossip->heap, r->logs, r->logs_capacity * sizeof(pls_log), 0);
    pls_table_fini(&r->table, &gossip->heap);
    pls_index_fini(&r->log_of, &gossip->heap);
    pls_queue_fini(&r->queue, &gossip->heap);
}

static pls_spot spot_at(const pls_registry *r, uint32_t log, uint32_t slot)
{
    const pls_log_slot *at = &r->logs[log].slots[slot];
    pls_spot spot = pls_table_at(&r->table, log, at->hash, r->logs[log].base + at->version);
    pls_assert(spot.record != NULL);
    return spot;
}

pls_record *pls_registry_at(const pls_registry *registry, uint32_t log, uint32_t slot,
                            const char **name_out)
{
    pls_assert(slot < registry->logs[log].slots_count);
    if (registry->logs[log].slots[slot].hash == 0) {
        return NULL;
    }
    pls_spot spot = spot_at(registry, log, slot);
    *name_out = pls_table_name(&registry->table, spot.cell);
    return spot.record;
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
        if (log->slots[i].hash != 0) {
            base = kept == 0 ? log->base + log->slots[i].version - 1 : base;
            log->slots[kept].hash = log->slots[i].hash;
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
    log->slots[at].hash = 0;
    log->holes++;
    bool removed = (record->flags & PLS_WIRE_NAME_REMOVED) != 0;
    log->live_count -= !removed;
    log->unique_count -= !removed && (record->flags & PLS_WIRE_NAME_UNIQUE) != 0;
    while (log->slots_count > 0 && log->slots[log->slots_count - 1].hash == 0) {
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

static void slot_append(pls_registry *r, const pls_record *record)
{
    pls_log *log = &r->logs[record->log];
    pls_assert(log->slots_count < log->slots_capacity);
    log->slots[log->slots_count++] =
        (pls_log_slot){(uint32_t)(record->version - log->base), record->hash};
    bool removed = (record->flags & PLS_WIRE_NAME_REMOVED) != 0;
    log->live_count += !removed;
    log->unique_count += !removed && (record->flags & PLS_WIRE_NAME_UNIQUE) != 0;
}

pls_err pls_registry_set(pls_gossip *gossip, uint32_t log_at, const pls_name_content *content)
{
    pls_registry *r = &gossip->registry;
    pls_assert(content->version > r->logs[log_at].base);
    pls_spot spot = pls_table_lookup(&r->table, log_at, content->name, content->name_bytes);
    bool fresh = spot.record == NULL;
    if (fresh && r->records_count >= gossip->config.names_max) {
        return PLS_EFULL;
    }
    pls_err err = slot_reserve(gossip, &r->logs[log_at], content->version);
    if (err == PLS_OK && fresh) {
        err = pls_table_add(gossip, log_at, content->name, content->name_bytes, &spot);
    }
    if (err != PLS_OK) {
        return err;
    }
    if (fresh) {
        r->records_count++;
    } else {
        slot_clear(r, spot.record);
    }
    spot.record->version = content->version;
    spot.record->value = content->value;
    spot.record->stamp = content->stamp;
    spot.record->flags = (uint8_t)content->flags;
    slot_append(r, spot.record);
    return PLS_OK;
}

static void erase(pls_registry *r, pls_spot spot)
{
    slot_clear(r, spot.record);
    pls_table_remove(&r->table, spot);
    r->records_count--;
}

void pls_registry_erase(pls_gossip *gossip, uint32_t log, const char *name, uint32_t name_bytes)
{
    pls_spot spot = pls_table_lookup(&gossip->registry.table, log, name, name_bytes);
    pls_assert(spot.record != NULL);
    erase(&gossip->registry, spot);
}

void pls_registry_shrink(pls_gossip *gossip, uint32_t log_at, uint32_t count_max)
{
    pls_registry *r = &gossip->registry;
    pls_log *log = &r->logs[log_at];
    while (count_max-- > 0 && log->slots_count > 0) {
        erase(r, spot_at(r, log_at, log->slots_count - 1));
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
            const char *name = NULL;
            after = log->base + log->slots[at].version;
            if (after > log->floor) {
                return;
            }
            const pls_record *record = pls_registry_at(r, log_at, at, &name);
            if (record != NULL && (record->flags & PLS_WIRE_NAME_REMOVED) != 0) {
                break;
            }
            at++;
        }
        if (at >= log->slots_count) {
            return;
        }
        gossip->counters.tombstones_freed++;
        erase(r, spot_at(r, log_at, at));
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
        const char *name = NULL;
        const pls_record *record = pls_registry_at(r, log_at, i, &name);
        if (record == NULL) {
            holes++;
            continue;
        }
        pls_assert(pls_registry_lookup(r, log_at, name, record->name_bytes) == record);
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
    pls_table_check(gossip, r->records_count);
}
