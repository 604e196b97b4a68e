/* SPDX-License-Identifier: Apache-2.0 */
/* One table says which fields each kind has; the one decoder and the one encoder walk it. So a kind
 * is added in one line, and every field of every kind passes the same bounds. */
#include "gossip/packet.h"

#include "base/assert.h"
#include "base/limits.h"
#include "gossip/pack.h"

#include <string.h>

typedef enum field {
    FIELD_END = 0,
    FIELD_SEQUENCE,
    FIELD_KEY,
    FIELD_ACCUSER,
    FIELD_INCARNATION,
    FIELD_DIGEST,
    FIELD_FLOOR,
    FIELD_FROM,
    FIELD_TO,
    FIELD_MEMBER,
    FIELD_BUCKET_COUNT,
    FIELD_BUCKET_SET,
    FIELD_COMPLETE,
    FIELD_TREE,
    FIELD_KEYS,
    FIELD_BODY
} field;

#define FIELDS_MAX 6

static const uint8_t fields_of[PLS_WIRE_KIND_COUNT][FIELDS_MAX] = {
    [PLS_WIRE_PING] = {FIELD_SEQUENCE, FIELD_KEY, FIELD_DIGEST},
    [PLS_WIRE_PING_INDIRECT] = {FIELD_SEQUENCE, FIELD_KEY},
    [PLS_WIRE_ACK] = {FIELD_SEQUENCE},
    [PLS_WIRE_SUSPECT] = {FIELD_KEY, FIELD_INCARNATION, FIELD_ACCUSER},
    [PLS_WIRE_ALIVE] = {FIELD_MEMBER},
    [PLS_WIRE_DEAD] = {FIELD_KEY, FIELD_INCARNATION, FIELD_ACCUSER},
    [PLS_WIRE_LEFT] = {FIELD_KEY, FIELD_INCARNATION},
    [PLS_WIRE_NACK] = {FIELD_SEQUENCE},
    [PLS_WIRE_JOIN] = {FIELD_MEMBER, FIELD_DIGEST},
    [PLS_WIRE_ANNOUNCE] = {FIELD_MEMBER, FIELD_DIGEST},
    [PLS_WIRE_DIGEST] = {FIELD_DIGEST},
    [PLS_WIRE_TREE] = {FIELD_BUCKET_COUNT, FIELD_TREE},
    [PLS_WIRE_LIST] = {FIELD_BUCKET_COUNT, FIELD_BUCKET_SET, FIELD_COMPLETE, FIELD_BODY},
    [PLS_WIRE_WANT] = {FIELD_KEYS},
    [PLS_WIRE_NAMES] = {FIELD_KEY, FIELD_FLOOR, FIELD_FROM, FIELD_TO, FIELD_BODY},
    [PLS_WIRE_NAMES_PULL] = {FIELD_KEY, FIELD_FLOOR, FIELD_FROM},
    [PLS_WIRE_ACCUSE] = {FIELD_KEY, FIELD_INCARNATION, FIELD_ACCUSER},
    [PLS_WIRE_RECORD] = {FIELD_MEMBER},
    [PLS_WIRE_SUFFIX] = {FIELD_KEY, FIELD_FLOOR, FIELD_FROM, FIELD_TO, FIELD_COMPLETE, FIELD_BODY},
};

pls_err pls_packet_open(const void *bytes, size_t len, pls_packet *packet_out)
{
    pls_packet packet = {.messages = pls_reader_over(bytes, len)};
    pls_reader *r = &packet.messages;
    packet.version = pls_unpack_uint(r);
    packet.lowest = pls_unpack_uint(r);
    packet.cluster = pls_unpack_uint(r);
    packet.sender = pls_unpack_uint(r);
    if (r->bad || packet.sender == 0 || packet.lowest > packet.version) {
        return PLS_EPROTO;
    }
    *packet_out = packet;
    return PLS_OK;
}

static void member_read(pls_reader *r, pls_message *m)
{
    pls_identity *id = &m->identity;
    id->name = pls_unpack_str(r, PLS_NAME_BYTES_MAX, &id->name_bytes);
    id->address = pls_unpack_str(r, PLS_ADDRESS_BYTES_MAX, &id->address_bytes);
    id->generation = pls_unpack_uint(r);
    m->incarnation = pls_unpack_uint(r);
    m->meta = pls_unpack_bin(r, PLS_META_BYTES_MAX, &m->meta_bytes);
    if (r->bad || id->name_bytes == 0 || id->address_bytes == 0 || id->generation == 0) {
        r->bad = true;
        return;
    }
    id->key = pls_identity_key(id);
}

static void bucket_count_read(pls_reader *r, pls_message *m)
{
    uint64_t count = pls_unpack_uint(r);
    if (count < PLS_BUCKETS_MIN || count > PLS_BUCKETS_MAX || (count & (count - 1)) != 0) {
        r->bad = true;
        return;
    }
    m->bucket_count = (uint32_t)count;
}

static void body_read(pls_reader *r, pls_message *m, uint32_t unit, uint32_t exact)
{
    m->body = pls_unpack_bin(r, PLS_PACKET_BYTES_MAX, &m->body_bytes);
    if (m->body_bytes % unit != 0 || (exact > 0 && m->body_bytes != exact)) {
        r->bad = true;
    }
}

/* Bodies are read through once here, so that a packet is dropped as a whole or not at all. */
static void entries_read(pls_reader *r, pls_message *m)
{
    body_read(r, m, 1, 0);
    if (r->bad) {
        return;
    }
    pls_reader body = pls_reader_over(m->body, m->body_bytes);
    pls_list_entry listed;
    pls_name_item named;
    pls_err err = PLS_OK;
    while (err == PLS_OK) {
        err = m->kind == PLS_WIRE_LIST ? pls_list_entry_next(&body, &listed)
                                       : pls_name_item_next(&body, &named);
    }
    r->bad |= err != PLS_EEMPTY;
}

static void field_read(pls_reader *r, field f, pls_message *m)
{
    uint32_t len = 0;
    switch (f) {
    case FIELD_SEQUENCE:
        m->sequence = (uint32_t)pls_unpack_uint(r);
        break;
    case FIELD_KEY:
        m->key = pls_unpack_uint(r);
        r->bad |= m->key == 0;
        break;
    case FIELD_ACCUSER:
        m->accuser = pls_unpack_uint(r);
        break;
    case FIELD_INCARNATION:
        m->incarnation = pls_unpack_uint(r);
        break;
    case FIELD_DIGEST:
        m->digest = pls_unpack_uint(r);
        break;
    case FIELD_FLOOR:
        m->floor = pls_unpack_uint(r);
        break;
    case FIELD_FROM:
        m->from = pls_unpack_uint(r);
        break;
    case FIELD_TO:
        m->to = pls_unpack_uint(r);
        break;
    case FIELD_MEMBER:
        member_read(r, m);
        break;
    case FIELD_BUCKET_COUNT:
        bucket_count_read(r, m);
        break;
    case FIELD_BUCKET_SET:
        m->buckets = pls_unpack_bin(r, PLS_BUCKETS_MAX / 8, &len);
        r->bad |= len * 8 != m->bucket_count;
        break;
    case FIELD_COMPLETE:
        m->complete = pls_unpack_uint(r) != 0;
        break;
    case FIELD_TREE:
        body_read(r, m, sizeof(uint32_t), m->bucket_count * (uint32_t)sizeof(uint32_t));
        break;
    case FIELD_KEYS:
        body_read(r, m, sizeof(uint64_t), 0);
        break;
    case FIELD_BODY:
        entries_read(r, m);
        break;
    case FIELD_END:
        break;
    }
}

pls_err pls_packet_next(pls_packet *packet, pls_message *message_out)
{
    if (pls_reader_left(&packet->messages) == 0) {
        return PLS_EEMPTY;
    }
    uint32_t len = 0;
    const void *bytes = pls_unpack_bin(&packet->messages, PLS_PACKET_BYTES_MAX, &len);
    if (bytes == NULL || len == 0) {
        return PLS_EPROTO;
    }
    pls_reader r = pls_reader_over(bytes, len);
    pls_message m = {.kind = pls_read_u8(&r)};
    if (m.kind >= PLS_WIRE_KIND_COUNT) {
        return PLS_EUNSUPPORTED;
    }
    for (uint32_t i = 0; i < FIELDS_MAX && !r.bad; i++) {
        field_read(&r, (field)fields_of[m.kind][i], &m);
    }
    if (r.bad) {
        return PLS_EPROTO;
    }
    *message_out = m;
    return PLS_OK;
}

static void member_write(pls_writer *w, const pls_message *m)
{
    pls_pack_str(w, m->identity.name, m->identity.name_bytes);
    pls_pack_str(w, m->identity.address, m->identity.address_bytes);
    pls_pack_uint(w, m->identity.generation);
    pls_pack_uint(w, m->incarnation);
    pls_pack_bin(w, m->meta, m->meta_bytes);
}

static void field_write(pls_writer *w, field f, const pls_message *m)
{
    switch (f) {
    case FIELD_SEQUENCE:
        pls_pack_uint(w, m->sequence);
        break;
    case FIELD_KEY:
        pls_pack_uint(w, m->key);
        break;
    case FIELD_ACCUSER:
        pls_pack_uint(w, m->accuser);
        break;
    case FIELD_INCARNATION:
        pls_pack_uint(w, m->incarnation);
        break;
    case FIELD_DIGEST:
        pls_pack_uint(w, m->digest);
        break;
    case FIELD_FLOOR:
        pls_pack_uint(w, m->floor);
        break;
    case FIELD_FROM:
        pls_pack_uint(w, m->from);
        break;
    case FIELD_TO:
        pls_pack_uint(w, m->to);
        break;
    case FIELD_MEMBER:
        member_write(w, m);
        break;
    case FIELD_BUCKET_COUNT:
        pls_pack_uint(w, m->bucket_count);
        break;
    case FIELD_BUCKET_SET:
        pls_pack_bin(w, m->buckets, m->bucket_count / 8);
        break;
    case FIELD_COMPLETE:
        pls_pack_uint(w, m->complete);
        break;
    case FIELD_TREE:
    case FIELD_KEYS:
    case FIELD_BODY:
        pls_pack_bin(w, m->body, m->body_bytes);
        break;
    case FIELD_END:
        break;
    }
}

void pls_packet_head_write(pls_writer *w, uint32_t cluster, uint64_t sender)
{
    pls_pack_uint(w, PLS_WIRE_VERSION);
    pls_pack_uint(w, PLS_WIRE_VERSION_LOWEST);
    pls_pack_uint(w, cluster);
    pls_pack_uint(w, sender);
}

void pls_message_write(pls_writer *w, const pls_message *message)
{
    pls_assert(message->kind < PLS_WIRE_KIND_COUNT);
    uint8_t *begin = w->at;
    uint8_t *opened = pls_pack_open(w);
    pls_write_u8(w, (uint8_t)message->kind);
    for (uint32_t i = 0; i < FIELDS_MAX && !w->bad; i++) {
        field_write(w, (field)fields_of[message->kind][i], message);
    }
    pls_pack_close(w, opened);
    if (w->bad) {
        w->at = begin;
    }
}

pls_err pls_list_entry_next(pls_reader *body, pls_list_entry *entry_out)
{
    if (pls_reader_left(body) == 0) {
        return PLS_EEMPTY;
    }
    pls_list_entry e = {.key = pls_read_u64(body)};
    e.incarnation = pls_unpack_uint(body);
    uint64_t state = pls_unpack_uint(body);
    e.names_version = pls_unpack_uint(body);
    e.names_floor = pls_unpack_uint(body);
    bool known = state == PLS_WIRE_STATE_LIVE || state == PLS_WIRE_STATE_DEAD ||
                 state == PLS_WIRE_STATE_LEFT;
    if (body->bad || e.key == 0 || !known) {
        return PLS_EPROTO;
    }
    e.state = (uint32_t)state;
    *entry_out = e;
    return PLS_OK;
}

void pls_list_entry_write(pls_writer *w, const pls_list_entry *entry)
{
    pls_write_u64(w, entry->key);
    pls_pack_uint(w, entry->incarnation);
    pls_pack_uint(w, entry->state);
    pls_pack_uint(w, entry->names_version);
    pls_pack_uint(w, entry->names_floor);
}

pls_err pls_name_item_next(pls_reader *body, pls_name_item *entry_out)
{
    if (pls_reader_left(body) == 0) {
        return PLS_EEMPTY;
    }
    pls_name_item e = {.version = pls_unpack_uint(body)};
    uint64_t flags = pls_unpack_uint(body);
    e.name = pls_unpack_str(body, PLS_NAME_BYTES_MAX, &e.name_bytes);
    if ((flags & PLS_WIRE_NAME_REMOVED) == 0) {
        e.value = pls_unpack_uint(body);
    }
    if ((flags & PLS_WIRE_NAME_UNIQUE) != 0) {
        e.stamp = pls_unpack_uint(body);
    }
    if (body->bad || e.name_bytes == 0 || e.version == 0 ||
        flags > (PLS_WIRE_NAME_UNIQUE | PLS_WIRE_NAME_REMOVED)) {
        return PLS_EPROTO;
    }
    e.flags = (uint32_t)flags;
    *entry_out = e;
    return PLS_OK;
}

void pls_name_item_write(pls_writer *w, const pls_name_item *entry)
{
    pls_pack_uint(w, entry->version);
    pls_pack_uint(w, entry->flags);
    pls_pack_str(w, entry->name, entry->name_bytes);
    if ((entry->flags & PLS_WIRE_NAME_REMOVED) == 0) {
        pls_pack_uint(w, entry->value);
    }
    if ((entry->flags & PLS_WIRE_NAME_UNIQUE) != 0) {
        pls_pack_uint(w, entry->stamp);
    }
}

uint64_t pls_want_key(const uint8_t *body, uint32_t position)
{
    uint64_t key = 0;
    memcpy(&key, body + (size_t)position * sizeof key, sizeof key);
    return key;
}
