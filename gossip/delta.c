/* SPDX-License-Identifier: Apache-2.0 */
/* How names travel. A delta is a range of an owner's log: all changes above `from` up to `to`, so
 * that whoever stands at or above `from` stands at `to` afterwards; a range that does not fit is
 * cut and says how far it reaches. Who stands below `from` has a gap and pulls a suffix. Tombstones
 * up to the log's floor are gone everywhere: whoever stands below a floor that it has not started
 * from must clear its copy and take the log from its begin. */
#include "gossip/delta.h"

#include "base/assert.h"
#include "base/limits.h"
#include "gossip/mutant.h"
#include "gossip/pack.h"
#include "gossip/rules.h"
#include "gossip/state.h"
#include "gossip/watch.h"

#include <string.h>

/* Packets that one pull is answered with. */
#define SUFFIX_PACKETS_MAX 16

/* Records of dead owners that are freed in one call, and the pause until the next. */
#define DROP_RECORDS 1024
#define DROP_PAUSE_NS UINT64_C(10000000)

/* Parts of tombstone_keep_ns that removals are remembered in. */
#define CHECKPOINT_SHARE 16

/* Bytes of a NAMES message beside its entries: frame, kind, key, floor, from, to, flag, bin head.
 */
#define DELTA_FRAME_BYTES (3 + 1 + 4 * 9 + 1 + 3)

static uint32_t entry_bytes(const pls_record *record, uint64_t from)
{
    uint32_t bytes = pls_pack_uint_bytes(record->version - from) + 1 +
                     (record->name_bytes < 32 ? 1u : 2u) + record->name_bytes;
    if ((record->flags & PLS_WIRE_NAME_REMOVED) == 0) {
        bytes += pls_pack_uint_bytes(record->value);
    }
    if ((record->flags & PLS_WIRE_NAME_UNIQUE) != 0) {
        bytes += pls_pack_uint_bytes(record->stamp);
    }
    return bytes;
}

/* The entries of a log from one slot to another, holes left out, to `w`. */
static void write_entries(const pls_registry *r, uint32_t log, uint32_t begin, uint32_t end,
                          uint64_t from, pls_writer *w)
{
    for (uint32_t i = begin; i < end; i++) {
        const char *name = NULL;
        const pls_record *record = pls_registry_at(r, log, i, &name);
        if (record == NULL) {
            continue;
        }
        pls_name_item entry = {.version = record->version - from,
                               .value = record->value,
                               .stamp = record->stamp,
                               .name = name,
                               .name_bytes = record->name_bytes,
                               .flags = record->flags};
        pls_name_item_write(w, &entry);
    }
}

/* How many slots from `begin` with versions up to `to` fit into `room` bytes. */
static uint32_t slots_that_fit(const pls_registry *r, uint32_t at, uint32_t begin, uint64_t from,
                               uint64_t to, size_t room)
{
    const pls_log *log = &r->logs[at];
    uint32_t end = begin;
    while (end < log->slots_count && log->base + log->slots[end].version <= to) {
        const char *name = NULL;
        const pls_record *record = pls_registry_at(r, at, end, &name);
        if (record != NULL) {
            uint32_t bytes = entry_bytes(record, from);
            if (bytes > room) {
                break;
            }
            room -= bytes;
        }
        end++;
    }
    return end;
}

static bool write_range(pls_gossip *gossip, pls_writer *packet, pls_message *message, uint32_t at)
{
    const pls_registry *r = &gossip->registry;
    const pls_log *log = &r->logs[at];
    size_t left = (size_t)(packet->end - packet->at);
    if (left < DELTA_FRAME_BYTES) {
        return false;
    }
    uint32_t begin = pls_log_seek(log, message->from);
    uint32_t end =
        slots_that_fit(r, at, begin, message->from, message->to, left - DELTA_FRAME_BYTES);
    uint64_t claimed = message->to;
    if (end < log->slots_count && log->base + log->slots[end].version <= message->to) {
        if (end == begin) {
            return false;
        }
        message->to = log->base + log->slots[end - 1].version;
    }
    if (pls_mutant(PLS_MUTANT_NAMES_CUT)) {
        message->to = claimed;
    }
    message->floor = log->floor;
    message->key = pls_gossip_key_of(gossip, log->owner);
    uint8_t body[PLS_PACKET_BYTES_MAX];
    pls_writer w = pls_writer_into(body, left - DELTA_FRAME_BYTES);
    write_entries(r, at, begin, end, message->from, &w);
    pls_assert(!w.bad);
    message->body = body;
    message->body_bytes = (uint32_t)pls_writer_len(&w);
    pls_message_write(packet, message);
    pls_assert(!packet->bad);
    return true;
}

bool pls_delta_write(pls_gossip *gossip, pls_writer *packet, pls_member owner, uint64_t from,
                     uint64_t *to)
{
    uint32_t at = pls_registry_log(&gossip->registry, owner);
    if (at == PLS_INDEX_NONE) {
        return false;
    }
    /* The copy may have begun anew since the range was queued: what it does not hold yet is left to
     * those that do, and the range is done with. */
    uint64_t version = gossip->registry.logs[at].version;
    if (from >= version) {
        return true;
    }
    pls_message message = {
        .kind = PLS_WIRE_NAMES, .from = from, .to = *to < version ? *to : version};
    uint64_t held = message.to;
    if (!write_range(gossip, packet, &message, at)) {
        return false;
    }
    *to = message.to == held ? *to : message.to;
    return true;
}

/* The log stands at another version now. */
static void version_set(pls_gossip *gossip, uint32_t at, uint64_t version)
{
    pls_log *log = &gossip->registry.logs[at];
    pls_members_renamed(gossip, log->owner, log->version, version);
    log->version = version;
    log->heard = log->heard > version ? log->heard : version;
}

static void pull(pls_gossip *gossip, pls_target from, uint32_t at)
{
    pls_log *log = &gossip->registry.logs[at];
    if (log->pulled_ns != 0 &&
        gossip->now_ns - log->pulled_ns < gossip->config.gossip_interval_ns) {
        return;
    }
    log->pulled_ns = gossip->now_ns;
    gossip->counters.names_pulled++;
    pls_message message = {.kind = PLS_WIRE_NAMES_PULL,
                           .key = pls_gossip_key_of(gossip, log->owner),
                           .floor = log->floor,
                           .from = log->version};
    pls_outbox_send(gossip, from, &message, false);
}

static void serve(pls_gossip *gossip, pls_target to, uint32_t at, uint64_t floor, uint64_t from)
{
    const pls_log *log = &gossip->registry.logs[at];
    if (from < log->floor && floor != log->floor) {
        from = 0;
    }
    for (uint32_t i = 0; i < SUFFIX_PACKETS_MAX && from < log->version; i++) {
        /* The last packet asks the other to go on, when there is more. */
        pls_message message = {.kind = PLS_WIRE_SUFFIX,
                               .from = from,
                               .to = log->version,
                               .complete = i + 1 == SUFFIX_PACKETS_MAX};
        if (!pls_outbox_open(gossip, gossip->config.packet_bytes)) {
            return;
        }
        if (!write_range(gossip, &gossip->outbox.packet, &message, at)) {
            return;
        }
        gossip->counters.names_served++;
        pls_outbox_close(gossip, to, false);
        from = message.to;
    }
}

void pls_delta_serve(pls_gossip *gossip, pls_target from, const pls_message *message)
{
    pls_member owner = pls_identities_find(gossip->pool, message->key);
    uint32_t at =
        owner == PLS_MEMBER_NONE ? PLS_INDEX_NONE : pls_registry_log(&gossip->registry, owner);
    if (at != PLS_INDEX_NONE && !gossip->registry.logs[at].dropping) {
        serve(gossip, from, at, message->floor, message->from);
    }
}

void pls_delta_compare(pls_gossip *gossip, pls_target from, pls_member owner, uint64_t version,
                       uint64_t floor)
{
    uint32_t at = pls_registry_log(&gossip->registry, owner);
    uint64_t mine = at == PLS_INDEX_NONE ? 0 : gossip->registry.logs[at].version;
    if (version < mine) {
        serve(gossip, from, at, floor, version);
        return;
    }
    if (version == mine || owner == gossip->self) {
        return;
    }
    if (pls_registry_log_make(gossip, owner, &at) != PLS_OK) {
        gossip->counters.dropped_memory++;
        gossip->err = PLS_ENOMEM;
        return;
    }
    pls_log *log = &gossip->registry.logs[at];
    log->heard = version > log->heard ? version : log->heard;
    pull(gossip, from, at);
}

bool pls_delta_wins(const pls_gossip *gossip, const pls_record *a, const pls_record *b)
{
    bool a_unique = (a->flags & PLS_WIRE_NAME_UNIQUE) != 0;
    bool b_unique = (b->flags & PLS_WIRE_NAME_UNIQUE) != 0;
    if (a_unique != b_unique) {
        return a_unique;
    }
    if (a->stamp != b->stamp) {
        return a->stamp < b->stamp;
    }
    const pls_registry *r = &gossip->registry;
    return pls_gossip_key_of(gossip, r->logs[a->log].owner) <
           pls_gossip_key_of(gossip, r->logs[b->log].owner);
}

/* Another live owner has a name that may be mine too. */
static void settle(pls_gossip *gossip, uint32_t other, const char *name, uint32_t name_bytes)
{
    pls_registry *r = &gossip->registry;
    uint32_t mine = pls_registry_log(r, gossip->self);
    if (mine == PLS_INDEX_NONE || !r->logs[other].visible || pls_mutant(PLS_MUTANT_NO_WINNER)) {
        return;
    }
    const pls_record *my = pls_registry_lookup(r, mine, name, name_bytes);
    const pls_record *their = pls_registry_lookup(r, other, name, name_bytes);
    if (my == NULL || their == NULL) {
        return;
    }
    if (((my->flags | their->flags) & PLS_WIRE_NAME_REMOVED) != 0 ||
        ((my->flags | their->flags) & PLS_WIRE_NAME_UNIQUE) == 0 ||
        pls_delta_wins(gossip, my, their)) {
        return;
    }
    pls_action lost = {.event = PLS_EVENT_NAME_LOST,
                       .member = gossip->self,
                       .other = r->logs[other].owner,
                       .bytes = name,
                       .len = name_bytes,
                       .value = my->value,
                       .unique = (my->flags & PLS_WIRE_NAME_UNIQUE) != 0};
    gossip->counters.names_conflicts++;
    pls_outbox_name(gossip, &lost);
    pls_name_content gone = {.name = name,
                             .name_bytes = name_bytes,
                             .flags = PLS_WIRE_NAME_REMOVED,
                             .version = r->logs[mine].version + 1};
    if (pls_delta_commit(gossip, mine, &gone) != PLS_OK) {
        gossip->counters.dropped_memory++;
    }
}

void pls_delta_conflicts(pls_gossip *gossip, pls_member other)
{
    pls_registry *r = &gossip->registry;
    uint32_t mine = pls_registry_log(r, gossip->self);
    uint32_t theirs = pls_registry_log(r, other);
    if (mine == PLS_INDEX_NONE || theirs == PLS_INDEX_NONE ||
        r->logs[mine].unique_count + r->logs[theirs].unique_count == 0) {
        return;
    }
    uint64_t end = r->logs[mine].version;
    for (uint64_t after = 0;;) {
        const pls_log *log = &r->logs[mine];
        uint32_t at = pls_log_seek(log, after);
        while (at < log->slots_count && log->slots[at].hash == 0) {
            at++;
        }
        if (at >= log->slots_count || log->base + log->slots[at].version > end) {
            return;
        }
        after = log->base + log->slots[at].version;
        const char *held = NULL;
        char name[PLS_NAME_BYTES_MAX];
        uint32_t name_bytes = pls_registry_at(r, mine, at, &held)->name_bytes;
        memcpy(name, held, name_bytes);
        settle(gossip, theirs, name, name_bytes);
    }
}

pls_err pls_delta_commit(pls_gossip *gossip, uint32_t at, const pls_name_content *content)
{
    pls_registry *r = &gossip->registry;
    const pls_record *old = pls_registry_lookup(r, at, content->name, content->name_bytes);
    bool was = old != NULL && (old->flags & PLS_WIRE_NAME_REMOVED) == 0;
    pls_err err = pls_registry_set(gossip, at, content);
    if (err != PLS_OK) {
        return err;
    }
    uint64_t before = r->logs[at].version;
    version_set(gossip, at, content->version);
    r->clock = content->stamp > r->clock ? content->stamp : r->clock;
    bool removed = (content->flags & PLS_WIRE_NAME_REMOVED) != 0;
    if (r->logs[at].visible && (was || !removed)) {
        pls_watch_changed(gossip, at, content, was);
    }
    if (r->logs[at].owner != gossip->self) {
        if (!removed) {
            settle(gossip, at, content->name, content->name_bytes);
        }
        return PLS_OK;
    }
    if (removed) {
        pls_delta_removed(gossip);
    }
    pls_update update = {before, content->version, gossip->self, PLS_WIRE_NAMES};
    pls_queue_put(gossip, &r->queue, &update, 0);
    return PLS_OK;
}

/* Remember when versions became old, so that their tombstones can go. */
void pls_delta_removed(pls_gossip *gossip)
{
    pls_registry *r = &gossip->registry;
    uint32_t at = pls_registry_log(r, gossip->self);
    pls_checkpoint *last =
        r->checkpoints_count > 0 ? &r->checkpoints[r->checkpoints_count - 1] : NULL;
    uint64_t share_ns = gossip->config.tombstone_keep_ns / CHECKPOINT_SHARE;
    if (last != NULL &&
        (gossip->now_ns - last->at_ns < share_ns || r->checkpoints_count == PLS_CHECKPOINTS_MAX)) {
        last->version = r->logs[at].version;
        return;
    }
    r->checkpoints[r->checkpoints_count++] = (pls_checkpoint){r->logs[at].version, gossip->now_ns};
}

/* Apply entries above what I have, up to the first that cannot be stored; how far that was. */
static uint64_t apply_entries(pls_gossip *gossip, uint32_t at, const pls_message *message)
{
    pls_registry *r = &gossip->registry;
    pls_reader body = pls_reader_over(message->body, message->body_bytes);
    pls_name_item entry;
    uint64_t last = message->from;
    while (pls_name_item_next(&body, &entry) == PLS_OK) {
        uint64_t version = message->from + entry.version;
        if (version <= last || version > message->to) {
            gossip->counters.dropped_malformed++;
            return last;
        }
        if (version > r->logs[at].version) {
            pls_name_content content = {.name = entry.name,
                                        .name_bytes = entry.name_bytes,
                                        .flags = entry.flags,
                                        .version = version,
                                        .value = entry.value,
                                        .stamp = entry.stamp};
            pls_err err = pls_delta_commit(gossip, at, &content);
            if (err != PLS_OK) {
                gossip->counters.dropped_full += err == PLS_EFULL;
                gossip->counters.dropped_memory += err == PLS_ENOMEM;
                gossip->err = err == PLS_ENOMEM ? err : gossip->err;
                return last;
            }
            gossip->counters.names_applied++;
        }
        last = version;
    }
    return message->to;
}

/* Bring my floor to the delta's. False: I have a gap that this delta cannot close. */
static bool accept_floor(pls_gossip *gossip, uint32_t at, const pls_message *message)
{
    pls_log *log = &gossip->registry.logs[at];
    if (message->floor <= log->floor) {
        return message->from <= log->version;
    }
    if (log->version >= message->floor) {
        log->floor = message->floor;
        pls_registry_sweep(gossip, at);
        return message->from <= log->version;
    }
    if (message->from > 0) {
        return false;
    }
    gossip->counters.names_resets += log->slots_count > 0;
    pls_watch_owner(gossip, at, false);
    /* Even an empty log counts its versions from where it was compacted. */
    pls_registry_clear(gossip, at);
    log = &gossip->registry.logs[at];
    pls_members_renamed(gossip, log->owner, log->version, 0);
    log->version = 0;
    log->floor = message->floor;
    return true;
}

void pls_delta_apply(pls_gossip *gossip, pls_target from, const pls_message *message)
{
    pls_member owner = pls_identities_find(gossip->pool, message->key);
    uint32_t at = PLS_INDEX_NONE;
    if (owner == PLS_MEMBER_NONE || owner == gossip->self || message->from > message->to ||
        !pls_state_is_live(pls_members_state(&gossip->members, owner))) {
        gossip->counters.dropped_unknown++;
        return;
    }
    if (pls_registry_log_make(gossip, owner, &at) != PLS_OK) {
        gossip->counters.dropped_memory++;
        gossip->err = PLS_ENOMEM;
        return;
    }
    pls_log *log = &gossip->registry.logs[at];
    if (log->version < log->floor && message->floor < log->floor) {
        /* A copy in the making takes nothing from one with an older floor: that may hold names
         * whose tombstones are swept everywhere else, and nobody would ever remove them again. */
        gossip->counters.names_stale++;
        return;
    }
    log->heard = message->to > log->heard ? message->to : log->heard;
    if (!accept_floor(gossip, at, message)) {
        gossip->counters.names_gaps++;
        pull(gossip, from, at);
        return;
    }
    uint64_t before = gossip->registry.logs[at].version;
    if (message->to <= before) {
        gossip->counters.names_stale++;
        return;
    }
    uint64_t reached = apply_entries(gossip, at, message);
    if (reached > gossip->registry.logs[at].version) {
        version_set(gossip, at, reached);
    }
    log = &gossip->registry.logs[at];
    if (log->version > before && message->kind == PLS_WIRE_NAMES) {
        pls_update update = {before, log->version, owner, PLS_WIRE_NAMES};
        pls_queue_put(gossip, &gossip->registry.queue, &update, 0);
    }
    /* A cut answer is over: ask for the rest at once. */
    if (log->version < log->heard && reached == message->to && message->complete) {
        log->pulled_ns = 0;
        pull(gossip, from, at);
    }
}

void pls_delta_owner_state(pls_gossip *gossip, pls_member owner, bool live)
{
    pls_registry *r = &gossip->registry;
    uint32_t at = pls_registry_log(r, owner);
    if (at == PLS_INDEX_NONE || r->logs[at].visible == live) {
        return;
    }
    if (!live) {
        pls_watch_owner(gossip, at, false);
        r->logs[at].visible = false;
        uint64_t due_ns = gossip->now_ns + gossip->config.dead_names_keep_ns;
        r->tidy_ns = due_ns < r->tidy_ns ? due_ns : r->tidy_ns;
        return;
    }
    if (r->logs[at].dropping) {
        r->logs[at].dropping = false;
        r->dropping_count--;
        pls_registry_clear(gossip, at);
    }
    r->logs[at].visible = true;
    pls_watch_owner(gossip, at, true);
    pls_delta_conflicts(gossip, owner);
}

static void free_tombstones(pls_gossip *gossip)
{
    pls_registry *r = &gossip->registry;
    uint32_t at = pls_registry_log(r, gossip->self);
    if (at == PLS_INDEX_NONE) {
        return;
    }
    uint64_t floor = r->checkpoints[0].version;
    memmove(&r->checkpoints[0], &r->checkpoints[1],
            --r->checkpoints_count * sizeof r->checkpoints[0]);
    r->logs[at].floor = floor;
    pls_registry_sweep(gossip, at);
    /* The floor travels with the next version, which has no entry. */
    uint64_t before = r->logs[at].version;
    version_set(gossip, at, before + 1);
    pls_update update = {before, before + 1, gossip->self, PLS_WIRE_NAMES};
    pls_queue_put(gossip, &r->queue, &update, 0);
}

static uint64_t tombstones_ns(const pls_gossip *gossip)
{
    const pls_registry *r = &gossip->registry;
    uint64_t keep_ns = gossip->config.tombstone_keep_ns;
    return r->checkpoints_count == 0
               ? UINT64_MAX
               : r->checkpoints[0].at_ns + keep_ns + keep_ns / CHECKPOINT_SHARE;
}

uint64_t pls_delta_next_ns(const pls_gossip *gossip)
{
    uint64_t tombs_ns = tombstones_ns(gossip);
    uint64_t tidy_ns = gossip->registry.tidy_ns;
    return tombs_ns < tidy_ns ? tombs_ns : tidy_ns;
}

/* Free some of what dead owners left, and say when to go on. */
static void drop_dead(pls_gossip *gossip)
{
    pls_registry *r = &gossip->registry;
    uint32_t room = DROP_RECORDS;
    r->tidy_ns = UINT64_MAX;
    for (uint32_t i = 1; i < r->logs_count; i++) {
        pls_log *log = &r->logs[i];
        if (log->owner == PLS_MEMBER_NONE || log->visible || log->slots_count == 0) {
            continue;
        }
        uint64_t due_ns =
            pls_members_since(&gossip->members, log->owner) + gossip->config.dead_names_keep_ns;
        if (gossip->now_ns >= due_ns && room > 0) {
            r->dropping_count += !log->dropping;
            log->dropping = true;
            log->version = 0;
            log->floor = 0;
            log->heard = 0;
            uint32_t before = r->records_count;
            pls_registry_shrink(gossip, i, room);
            gossip->counters.names_dropped += before - r->records_count;
            room -= before - r->records_count;
            due_ns = gossip->now_ns + DROP_PAUSE_NS;
        }
        if (log->slots_count == 0) {
            continue;
        }
        due_ns = due_ns > gossip->now_ns ? due_ns : gossip->now_ns + DROP_PAUSE_NS;
        r->tidy_ns = due_ns < r->tidy_ns ? due_ns : r->tidy_ns;
    }
}

void pls_delta_tidy(pls_gossip *gossip)
{
    if (gossip->now_ns >= tombstones_ns(gossip)) {
        free_tombstones(gossip);
    }
    if (gossip->now_ns >= gossip->registry.tidy_ns) {
        drop_dead(gossip);
    }
}
