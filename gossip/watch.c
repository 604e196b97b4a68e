/* SPDX-License-Identifier: Apache-2.0 */
/* Waiting on a name without asking again and again: watches are records in the registry's own
 * table, so that a delta finds them with the look-up that it makes anyway; what happens to a whole
 * owner is one pass over the watches, never over the owner's names. */
#include "gossip/watch.h"

#include "base/assert.h"
#include "base/limits.h"
#include "gossip/state.h"

void pls_watch_changed(pls_gossip *gossip, uint32_t log, const pls_name_content *content, bool was)
{
    pls_registry *r = &gossip->registry;
    if (r->logs[PLS_LOG_WATCHES].live_count == 0 ||
        pls_registry_lookup(r, PLS_LOG_WATCHES, content->name, content->name_bytes) == NULL) {
        return;
    }
    bool removed = (content->flags & PLS_WIRE_NAME_REMOVED) != 0;
    pls_action event = {.event = removed ? PLS_EVENT_NAME_REMOVED
                                 : was   ? PLS_EVENT_NAME_CHANGED
                                         : PLS_EVENT_NAME_ADDED,
                        .member = r->logs[log].owner,
                        .other = PLS_MEMBER_NONE,
                        .bytes = content->name,
                        .len = content->name_bytes,
                        .value = content->value,
                        .unique = (content->flags & PLS_WIRE_NAME_UNIQUE) != 0};
    pls_outbox_name(gossip, &event);
}

void pls_watch_owner(pls_gossip *gossip, uint32_t log, bool visible)
{
    pls_registry *r = &gossip->registry;
    const pls_log *watches = &r->logs[PLS_LOG_WATCHES];
    for (uint32_t i = 0; i < watches->slots_count; i++) {
        const char *name = NULL;
        const pls_record *watch = pls_registry_at(r, PLS_LOG_WATCHES, i, &name);
        if (watch == NULL) {
            continue;
        }
        const pls_record *record = pls_registry_lookup(r, log, name, watch->name_bytes);
        if (record == NULL || (record->flags & PLS_WIRE_NAME_REMOVED) != 0) {
            continue;
        }
        pls_action event = {.event = visible ? PLS_EVENT_NAME_ADDED : PLS_EVENT_NAME_REMOVED,
                            .member = r->logs[log].owner,
                            .other = PLS_MEMBER_NONE,
                            .bytes = name,
                            .len = record->name_bytes,
                            .value = record->value,
                            .unique = (record->flags & PLS_WIRE_NAME_UNIQUE) != 0};
        pls_outbox_name(gossip, &event);
    }
}

static bool name_is_valid(const char *name, uint32_t name_bytes)
{
    return name != NULL && name_bytes >= 1 && name_bytes <= PLS_NAME_BYTES_MAX;
}

pls_err pls_gossip_name_watch(pls_gossip *gossip, const char *name, uint32_t name_bytes)
{
    pls_registry *r = &gossip->registry;
    uint32_t log = PLS_LOG_WATCHES;
    if (!name_is_valid(name, name_bytes)) {
        return PLS_EINVAL;
    }
    pls_record *watch = pls_registry_lookup(r, log, name, name_bytes);
    if (watch != NULL) {
        watch->value++;
        return PLS_OK;
    }
    pls_err err = pls_registry_log_make(gossip, PLS_MEMBER_NONE, &log);
    if (err != PLS_OK) {
        return err;
    }
    if (r->logs[log].live_count >= gossip->config.watches_max) {
        return PLS_EFULL;
    }
    pls_name_content content = {
        .name = name, .name_bytes = name_bytes, .version = r->logs[log].version + 1, .value = 1};
    err = pls_registry_set(gossip, log, &content);
    r->logs[log].version += err == PLS_OK;
    return err;
}

void pls_gossip_name_unwatch(pls_gossip *gossip, const char *name, uint32_t name_bytes)
{
    pls_registry *r = &gossip->registry;
    pls_record *watch = pls_registry_lookup(r, PLS_LOG_WATCHES, name, name_bytes);
    if (watch != NULL && --watch->value == 0) {
        pls_registry_erase(gossip, PLS_LOG_WATCHES, name, name_bytes);
    }
}
