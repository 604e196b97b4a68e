/* SPDX-License-Identifier: Apache-2.0 */
/* The steps of one exchange between two tables that differ (see sync.c): TREE, LIST, WANT and the
 * records that answer them. Each step is one pass over the table and takes memory for its own
 * duration only; nothing is kept between the steps, so a lost packet costs the exchange alone. */
#include "gossip/sync.h"

#include "base/assert.h"
#include "gossip/delta.h"
#include "gossip/rules.h"
#include "gossip/state.h"

#include <string.h>

/* Members in one bucket that the bucket count aims at. */
#define BUCKET_MEMBERS 4

/* Bytes of a packet that the head and the frame of a LIST or WANT may take. */
#define FRAME_BYTES 96

/* Members or keys noted down while a listing is read. */
typedef struct notes {
    uint64_t *items;
    uint32_t capacity;
    uint32_t count;
} notes;

static void note(pls_gossip *gossip, notes *list, uint64_t what)
{
    void *items = list->items;
    pls_err err = pls_heap_reserve(&gossip->heap, &items, &list->capacity, list->count + 1,
                                   sizeof *list->items);
    list->items = items;
    if (err != PLS_OK) {
        gossip->counters.dropped_memory++;
        gossip->err = PLS_ENOMEM;
        return;
    }
    list->items[list->count++] = what;
}

static void notes_free(pls_gossip *gossip, notes *list)
{
    pls_heap_resize(&gossip->heap, list->items, list->capacity * sizeof *list->items, 0);
}

static uint32_t bucket_count_for(uint32_t live)
{
    uint32_t count = PLS_BUCKETS_MIN;
    while (count < PLS_BUCKETS_MAX && count * BUCKET_MEMBERS < live) {
        count *= 2;
    }
    return count;
}

static uint32_t bucket_sum(const pls_members *members, uint32_t bucket, uint32_t count)
{
    uint64_t sum = 0;
    for (uint32_t i = bucket; i < PLS_BUCKETS_MAX; i += count) {
        sum += members->buckets[i];
    }
    return (uint32_t)(sum >> 32);
}

void pls_sync_compare(pls_gossip *gossip, pls_target from, uint64_t digest)
{
    if (gossip->config.digest_interval_ns == 0 || gossip->leaving) {
        return;
    }
    if (digest == pls_sync_digest(gossip)) {
        gossip->counters.digests_equal++;
        return;
    }
    gossip->counters.digests_different++;
    uint32_t count = bucket_count_for(pls_members_live_count(&gossip->members));
    uint8_t body[PLS_BUCKETS_MAX * sizeof(uint32_t)];
    pls_writer w = pls_writer_into(body, sizeof body);
    for (uint32_t i = 0; i < count; i++) {
        pls_write_u32(&w, bucket_sum(&gossip->members, i, count));
    }
    pls_message tree = {.kind = PLS_WIRE_TREE,
                        .bucket_count = count,
                        .body = body,
                        .body_bytes = (uint32_t)pls_writer_len(&w)};
    gossip->counters.trees_sent++;
    pls_outbox_send(gossip, from, &tree, false);
}

static bool bit_get(const uint8_t *set, uint32_t bit)
{
    return (set[bit / 8] >> (bit % 8) & 1) != 0;
}

static void bit_set(uint8_t *set, uint32_t bit)
{
    set[bit / 8] |= (uint8_t)(1u << (bit % 8));
}

static pls_list_entry entry_of(const pls_gossip *gossip, pls_member member)
{
    pls_entry entry = pls_members_entry(&gossip->members, member);
    pls_member_state state = pls_entry_state(entry);
    pls_list_entry made = {.key = pls_gossip_key_of(gossip, member),
                           .incarnation = pls_entry_incarnation(entry),
                           .state = PLS_WIRE_STATE_LIVE};
    if (!pls_state_is_live(state)) {
        made.state = state == PLS_MEMBER_DEAD ? PLS_WIRE_STATE_DEAD : PLS_WIRE_STATE_LEFT;
    } else if ((entry & PLS_ENTRY_NAMED) != 0) {
        const pls_log *log = &gossip->registry.logs[pls_registry_log(&gossip->registry, member)];
        made.names_version = log->version;
        made.names_floor = log->floor;
    }
    return made;
}

/* A LIST in the making: entries of whole buckets until the packet is full. */
typedef struct listing {
    pls_gossip *gossip;
    pls_target to;
    uint32_t bucket_count;
    uint8_t set[PLS_BUCKETS_MAX / 8];
    pls_writer body;
} listing;

static void listing_flush(listing *list, bool complete)
{
    uint32_t len = (uint32_t)pls_writer_len(&list->body);
    bool empty = len == 0 && !complete;
    pls_message message = {.kind = PLS_WIRE_LIST,
                           .bucket_count = list->bucket_count,
                           .buckets = list->set,
                           .complete = complete,
                           .body = list->body.begin,
                           .body_bytes = len};
    if (!empty) {
        list->gossip->counters.lists_sent++;
        pls_outbox_send(list->gossip, list->to, &message, false);
    }
    memset(list->set, 0, sizeof list->set);
    list->body.at = list->body.begin;
    list->body.bad = false;
}

/* Write one entry; when the packet is full, what is there goes out as incomplete first. */
static void listing_add(listing *list, pls_member member)
{
    pls_list_entry entry = entry_of(list->gossip, member);
    uint8_t *begin = list->body.at;
    pls_list_entry_write(&list->body, &entry);
    if (list->body.bad) {
        list->body.at = begin;
        listing_flush(list, false);
        pls_list_entry_write(&list->body, &entry);
    }
}

static bool listing_try_bucket(listing *list, const pls_member *members, uint32_t count)
{
    uint8_t *begin = list->body.at;
    for (uint32_t i = 0; i < count && !list->body.bad; i++) {
        pls_list_entry entry = entry_of(list->gossip, members[i]);
        pls_list_entry_write(&list->body, &entry);
    }
    if (!list->body.bad) {
        return true;
    }
    list->body.at = begin;
    list->body.bad = false;
    return false;
}

static void listing_bucket(listing *list, uint32_t bucket, const pls_member *members,
                           uint32_t count)
{
    bool fits = listing_try_bucket(list, members, count);
    if (!fits && list->body.at != list->body.begin) {
        listing_flush(list, true);
        fits = listing_try_bucket(list, members, count);
    }
    if (fits) {
        bit_set(list->set, bucket);
        return;
    }
    /* More than one packet for this bucket alone: the receiver cannot tell what is missing. */
    for (uint32_t i = 0; i < count; i++) {
        listing_add(list, members[i]);
    }
    listing_flush(list, false);
}

/* The members of each bucket of `set`, one bucket after another: bucket b has the members from
 * starts[b] to starts[b + 1]. */
static void sort_by_bucket(const pls_gossip *gossip, const uint8_t *set, uint32_t bucket_count,
                           uint32_t *starts, pls_member *sorted)
{
    const pls_members *members = &gossip->members;
    uint32_t fill[PLS_BUCKETS_MAX] = {0};
    for (int pass = 0; pass < 2; pass++) {
        for (pls_member m = 0; m < members->capacity; m++) {
            if (members->entries[m] == 0) {
                continue;
            }
            uint32_t bucket = pls_members_bucket(pls_gossip_key_of(gossip, m), bucket_count);
            if (!bit_get(set, bucket)) {
                continue;
            }
            if (pass == 1) {
                sorted[starts[bucket] + fill[bucket]] = m;
            }
            fill[bucket]++;
        }
        if (pass == 0) {
            starts[0] = 0;
            for (uint32_t b = 0; b < bucket_count; b++) {
                starts[b + 1] = starts[b] + fill[b];
                fill[b] = 0;
            }
        }
    }
}

static uint32_t known_count(const pls_members *members)
{
    return pls_members_live_count(members) + members->counts[PLS_MEMBER_DEAD] +
           members->counts[PLS_MEMBER_LEFT];
}

void pls_sync_tree(pls_gossip *gossip, pls_target from, const pls_message *message)
{
    listing list = {.gossip = gossip, .to = from, .bucket_count = message->bucket_count};
    uint8_t differ[PLS_BUCKETS_MAX / 8] = {0};
    uint32_t starts[PLS_BUCKETS_MAX + 1];
    bool any = false;
    pls_reader r = pls_reader_over(message->body, message->body_bytes);
    for (uint32_t b = 0; b < list.bucket_count; b++) {
        if (pls_read_u32(&r) != bucket_sum(&gossip->members, b, list.bucket_count)) {
            bit_set(differ, b);
            any = true;
        }
    }
    if (!any || gossip->leaving) {
        return;
    }
    size_t sorted_bytes = known_count(&gossip->members) * sizeof(pls_member);
    size_t body_bytes = gossip->config.packet_bytes - FRAME_BYTES;
    uint8_t *memory = pls_heap_resize(&gossip->heap, NULL, 0, sorted_bytes + body_bytes);
    if (memory == NULL) {
        gossip->counters.dropped_memory++;
        gossip->err = PLS_ENOMEM;
        return;
    }
    pls_member *sorted = (pls_member *)(void *)memory;
    list.body = pls_writer_into(memory + sorted_bytes, body_bytes);
    sort_by_bucket(gossip, differ, list.bucket_count, starts, sorted);
    for (uint32_t b = 0; b < list.bucket_count; b++) {
        if (bit_get(differ, b)) {
            listing_bucket(&list, b, sorted + starts[b], starts[b + 1] - starts[b]);
        }
    }
    listing_flush(&list, true);
    pls_heap_resize(&gossip->heap, memory, sorted_bytes + body_bytes, 0);
}

/* What one listing makes me do. */
typedef struct comparison {
    pls_gossip *gossip;
    pls_target from;
    notes wanted; /* keys that I want the record of */
    notes serve;  /* members whose record the other lacks */
    notes back;   /* members whose end the other has not heard of */
} comparison;

static void compare_self(comparison *c, const pls_list_entry *theirs)
{
    pls_gossip *gossip = c->gossip;
    uint64_t mine = pls_members_incarnation(&gossip->members, gossip->self);
    if (theirs->state != PLS_WIRE_STATE_LIVE || theirs->incarnation > mine) {
        pls_rules_accused(gossip, theirs->incarnation);
    }
    if (theirs->state != PLS_WIRE_STATE_LIVE || theirs->incarnation != mine) {
        note(gossip, &c->serve, gossip->self);
        return;
    }
    pls_delta_compare(gossip, c->from, gossip->self, theirs->names_version, theirs->names_floor);
}

static void compare_live(comparison *c, pls_member member, const pls_list_entry *theirs)
{
    pls_gossip *gossip = c->gossip;
    pls_member_state state = pls_members_state(&gossip->members, member);
    uint64_t mine = pls_members_incarnation(&gossip->members, member);
    if (theirs->incarnation > mine) {
        note(gossip, &c->wanted, theirs->key);
    } else if (!pls_state_is_live(state)) {
        note(gossip, &c->back, member);
    } else if (theirs->incarnation < mine) {
        note(gossip, &c->serve, member);
    } else {
        pls_delta_compare(gossip, c->from, member, theirs->names_version, theirs->names_floor);
    }
}

static void compare_ended(comparison *c, pls_member member, const pls_list_entry *theirs)
{
    pls_gossip *gossip = c->gossip;
    uint64_t mine = pls_members_incarnation(&gossip->members, member);
    if (!pls_state_is_live(pls_members_state(&gossip->members, member))) {
        return;
    }
    if (theirs->incarnation < mine) {
        note(gossip, &c->serve, member);
    } else if (theirs->state == PLS_WIRE_STATE_LEFT) {
        pls_rules_left(gossip, theirs->key, theirs->incarnation);
    } else {
        pls_sync_forward(gossip, member, theirs->incarnation, gossip->sender);
    }
}

static void compare_entry(comparison *c, const pls_list_entry *theirs)
{
    pls_gossip *gossip = c->gossip;
    pls_member member = pls_identities_find(gossip->pool, theirs->key);
    if (member == PLS_MEMBER_NONE ||
        pls_members_state(&gossip->members, member) == PLS_MEMBER_UNKNOWN) {
        if (theirs->state == PLS_WIRE_STATE_LIVE) {
            note(gossip, &c->wanted, theirs->key);
        }
        return;
    }
    gossip->members.entries[member] |= PLS_ENTRY_LISTED;
    if (member == gossip->self) {
        compare_self(c, theirs);
    } else if (theirs->state == PLS_WIRE_STATE_LIVE) {
        compare_live(c, member, theirs);
    } else {
        compare_ended(c, member, theirs);
    }
}

/* Take the marks off again; of the buckets that were listed whole, what was not marked is missing
 * there. */
static void compare_missing(comparison *c, const pls_message *message)
{
    pls_members *members = &c->gossip->members;
    for (pls_member m = 0; m < members->capacity; m++) {
        pls_entry entry = members->entries[m];
        if ((entry & PLS_ENTRY_LISTED) != 0) {
            members->entries[m] = entry & ~PLS_ENTRY_LISTED;
        } else if (message->complete && pls_state_is_live(pls_entry_state(entry))) {
            uint64_t key = pls_gossip_key_of(c->gossip, m);
            if (bit_get(message->buckets, pls_members_bucket(key, message->bucket_count))) {
                note(c->gossip, &c->serve, m);
            }
        }
    }
}

static void serve_all(pls_gossip *gossip, pls_target to, const notes *list)
{
    bool open = false;
    for (uint32_t i = 0; i < list->count; i++) {
        pls_message record = pls_rules_record(gossip, (pls_member)list->items[i]);
        record.kind = PLS_WIRE_RECORD;
        if (!open && !pls_outbox_open(gossip, gossip->config.packet_bytes)) {
            return;
        }
        open = true;
        pls_message_write(&gossip->outbox.packet, &record);
        if (gossip->outbox.packet.bad) {
            gossip->outbox.packet.bad = false;
            pls_outbox_close(gossip, to, false);
            open = false;
            i--;
            continue;
        }
        gossip->counters.records_served++;
    }
    if (open) {
        pls_outbox_close(gossip, to, true);
    }
}

static void want_all(pls_gossip *gossip, pls_target to, const notes *list)
{
    uint32_t per_packet = (gossip->config.packet_bytes - FRAME_BYTES) / (uint32_t)sizeof(uint64_t);
    for (uint32_t i = 0; i < list->count; i += per_packet) {
        uint32_t count = list->count - i < per_packet ? list->count - i : per_packet;
        pls_message want = {.kind = PLS_WIRE_WANT,
                            .body = (const uint8_t *)(list->items + i),
                            .body_bytes = count * (uint32_t)sizeof(uint64_t)};
        gossip->counters.records_pulled += count;
        pls_outbox_send(gossip, to, &want, false);
    }
}

static void list_back(pls_gossip *gossip, pls_target to, const notes *back)
{
    if (back->count == 0) {
        return;
    }
    size_t bytes = gossip->config.packet_bytes - FRAME_BYTES;
    uint8_t *memory = pls_heap_resize(&gossip->heap, NULL, 0, bytes);
    if (memory == NULL) {
        gossip->counters.dropped_memory++;
        gossip->err = PLS_ENOMEM;
        return;
    }
    listing list = {.gossip = gossip,
                    .to = to,
                    .bucket_count = PLS_BUCKETS_MIN,
                    .body = pls_writer_into(memory, bytes)};
    for (uint32_t i = 0; i < back->count; i++) {
        listing_add(&list, (pls_member)back->items[i]);
    }
    listing_flush(&list, false);
    pls_heap_resize(&gossip->heap, memory, bytes, 0);
}

void pls_sync_list(pls_gossip *gossip, pls_target from, const pls_message *message)
{
    comparison c = {.gossip = gossip, .from = from};
    pls_reader r = pls_reader_over(message->body, message->body_bytes);
    pls_list_entry entry;
    pls_err err = pls_list_entry_next(&r, &entry);
    if (gossip->leaving) {
        return;
    }
    while (err == PLS_OK) {
        compare_entry(&c, &entry);
        err = pls_list_entry_next(&r, &entry);
    }
    pls_assert(err == PLS_EEMPTY);
    compare_missing(&c, message);
    serve_all(gossip, from, &c.serve);
    want_all(gossip, from, &c.wanted);
    list_back(gossip, from, &c.back);
    notes_free(gossip, &c.serve);
    notes_free(gossip, &c.wanted);
    notes_free(gossip, &c.back);
}

void pls_sync_want(pls_gossip *gossip, pls_target from, const pls_message *message)
{
    notes serve = {NULL, 0, 0};
    for (uint32_t i = 0; i < message->body_bytes / sizeof(uint64_t); i++) {
        pls_member member = pls_identities_find(gossip->pool, pls_want_key(message->body, i));
        if (pls_state_is_live(pls_members_state(&gossip->members, member))) {
            note(gossip, &serve, member);
        }
    }
    serve_all(gossip, from, &serve);
    notes_free(gossip, &serve);
}
