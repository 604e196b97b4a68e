/* SPDX-License-Identifier: Apache-2.0 */
/* The names' public face: my own registrations become the next version of my log, look-ups read the
 * copies of all live owners. */
#include "gossip/names.h"

#include "base/assert.h"
#include "base/limits.h"
#include "gossip/delta.h"
#include "gossip/mutant.h"
#include "gossip/state.h"

static bool is_found(const pls_registry *r, const pls_record *record)
{
    bool visible = r->logs[record->log].visible ||
                   (pls_mutant(PLS_MUTANT_DEAD_NAMES) && record->log != PLS_LOG_WATCHES);
    return visible && (record->flags & PLS_WIRE_NAME_REMOVED) == 0;
}

/* Whether a registration of mine would meet another live owner's, one of them being unique. */
static bool is_taken(const pls_gossip *gossip, const char *name, uint32_t name_bytes, bool unique)
{
    const pls_registry *r = &gossip->registry;
    uint32_t mine = pls_registry_log(r, gossip->self);
    for (const pls_record *record = pls_registry_first(r, name, name_bytes); record != NULL;
         record = pls_registry_peer(r, record)) {
        if (record->log != mine && is_found(r, record) &&
            (unique || (record->flags & PLS_WIRE_NAME_UNIQUE) != 0)) {
            return true;
        }
    }
    return false;
}

static pls_err put(pls_gossip *gossip, pls_name_content *content)
{
    pls_registry *r = &gossip->registry;
    uint32_t log = PLS_INDEX_NONE;
    pls_err err = pls_registry_log_make(gossip, gossip->self, &log);
    if (err != PLS_OK) {
        return err;
    }
    const pls_record *old = pls_registry_lookup(r, log, content->name, content->name_bytes);
    bool unique = (content->flags & PLS_WIRE_NAME_UNIQUE) != 0;
    if (old != NULL && old->flags == content->flags && old->value == content->value) {
        return PLS_OK;
    }
    if (unique) {
        /* A change of value does not make the registration younger. */
        content->stamp = old != NULL && old->flags == content->flags ? old->stamp : r->clock + 1;
    }
    content->version = r->logs[log].version + 1;
    err = pls_delta_commit(gossip, log, content);
    gossip->counters.names_put += err == PLS_OK;
    return err;
}

pls_err pls_gossip_name_put(pls_gossip *gossip, const char *name, uint32_t name_bytes,
                            uint64_t value, bool unique, uint64_t now_ns)
{
    pls_gossip_input_begin(gossip, now_ns);
    pls_err err = PLS_OK;
    if (name == NULL || name_bytes == 0 || name_bytes > PLS_NAME_BYTES_MAX) {
        err = PLS_EINVAL;
    } else if (gossip->leaving) {
        err = PLS_ECLOSED;
    } else if (is_taken(gossip, name, name_bytes, unique)) {
        err = PLS_EEXIST;
    } else {
        pls_name_content content = {.name = name,
                                    .name_bytes = name_bytes,
                                    .flags = unique ? PLS_WIRE_NAME_UNIQUE : 0,
                                    .value = value};
        err = put(gossip, &content);
    }
    return pls_gossip_input_end(gossip, err);
}

pls_err pls_gossip_name_remove(pls_gossip *gossip, const char *name, uint32_t name_bytes,
                               uint64_t now_ns)
{
    pls_gossip_input_begin(gossip, now_ns);
    pls_registry *r = &gossip->registry;
    uint32_t log = pls_registry_log(r, gossip->self);
    const pls_record *record =
        log == PLS_INDEX_NONE ? NULL : pls_registry_lookup(r, log, name, name_bytes);
    if (record == NULL || (record->flags & PLS_WIRE_NAME_REMOVED) != 0) {
        return pls_gossip_input_end(gossip, PLS_ENOENT);
    }
    pls_name_content gone = {.name = name,
                             .name_bytes = name_bytes,
                             .flags = PLS_WIRE_NAME_REMOVED,
                             .version = r->logs[log].version + 1};
    pls_err err = pls_delta_commit(gossip, log, &gone);
    gossip->counters.names_removed += err == PLS_OK;
    if (pls_mutant(PLS_MUTANT_NAMES_REVIVE) && err == PLS_OK) {
        pls_registry_erase(gossip, log, name, name_bytes);
    }
    return pls_gossip_input_end(gossip, err);
}

static void hit_write(const pls_registry *r, const pls_record *record, pls_name_hit *hit)
{
    hit->owner = r->logs[record->log].owner;
    hit->unique = (record->flags & PLS_WIRE_NAME_UNIQUE) != 0;
    hit->value = record->value;
    hit->version = record->version;
}

/* The owners of a name that several have registered. */
static uint32_t find_among(const pls_gossip *gossip, const pls_record *record, pls_name_hit *hits,
                           uint32_t hits_max)
{
    const pls_registry *r = &gossip->registry;
    const pls_record *winner = NULL;
    uint32_t count = 0;
    for (; record != NULL; record = pls_registry_peer(r, record)) {
        if (!is_found(r, record)) {
            continue;
        }
        if ((record->flags & PLS_WIRE_NAME_UNIQUE) != 0 &&
            (winner == NULL || pls_delta_wins(gossip, record, winner))) {
            winner = record;
        }
        if (count < hits_max) {
            hit_write(r, record, &hits[count]);
        }
        count++;
    }
    if (winner == NULL) {
        return count;
    }
    if (hits_max > 0) {
        hit_write(r, winner, &hits[0]);
    }
    return 1;
}

uint32_t pls_gossip_name_find(const pls_gossip *gossip, const char *name, uint32_t name_bytes,
                              pls_name_hit *hits, uint32_t hits_max)
{
    const pls_record *first = pls_registry_first(&gossip->registry, name, name_bytes);
    if (first == NULL || first->peers != 0) {
        return find_among(gossip, first, hits, hits_max);
    }
    if (!is_found(&gossip->registry, first)) {
        return 0;
    }
    if (hits_max > 0) {
        hit_write(&gossip->registry, first, &hits[0]);
    }
    return 1;
}

pls_err pls_gossip_name_next(const pls_gossip *gossip, pls_member owner, uint64_t after,
                             pls_name_view *view_out)
{
    const pls_registry *r = &gossip->registry;
    uint32_t at = pls_registry_log(r, owner);
    if (at == PLS_INDEX_NONE) {
        return PLS_ENOENT;
    }
    const pls_log *log = &r->logs[at];
    for (uint32_t i = pls_log_seek(log, after); i < log->slots_count; i++) {
        const char *name = NULL;
        const pls_record *record = pls_registry_at(r, at, i, &name);
        if (record == NULL) {
            continue;
        }
        *view_out = (pls_name_view){.name = name,
                                    .name_bytes = record->name_bytes,
                                    .unique = (record->flags & PLS_WIRE_NAME_UNIQUE) != 0,
                                    .removed = (record->flags & PLS_WIRE_NAME_REMOVED) != 0,
                                    .value = record->value,
                                    .version = record->version,
                                    .stamp = record->stamp};
        return PLS_OK;
    }
    return PLS_ENOENT;
}
