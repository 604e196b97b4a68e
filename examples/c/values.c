/* SPDX-License-Identifier: Apache-2.0 */
/* The bridge between msgpack-c and Python's calls: a call is the counts of its positional and
 * keyword values, then the values; a result is one value; large buffers lie in a block. */
#include "values.h"

#include <string.h>

#define EXT_REFERENCE 20
#define REFERENCE_BYTES 0
#define REFERENCE_BODY_BYTES 13
#define BUFFER_ALIGN 64
#define ARGUMENTS_MAX 64

bool values_read_one(const pulsing_message *message, msgpack_zone *zone, msgpack_object *out)
{
    size_t at = 0;
    msgpack_unpack_return end =
        msgpack_unpack((const char *)message->payload, message->payload_bytes, &at, zone, out);
    return end == MSGPACK_UNPACK_SUCCESS && at == message->payload_bytes;
}

/* The next value of several; msgpack_unpack() is content with more bytes after it. */
static bool next(const pulsing_message *message, size_t *at, msgpack_zone *zone,
                 msgpack_object *out)
{
    msgpack_unpack_return end =
        msgpack_unpack((const char *)message->payload, message->payload_bytes, at, zone, out);
    return end == MSGPACK_UNPACK_SUCCESS || end == MSGPACK_UNPACK_EXTRA_BYTES;
}

bool values_read_call(const pulsing_message *message, msgpack_zone *zone, msgpack_object_array *out)
{
    size_t at = 0;
    msgpack_object count;
    msgpack_object keywords;
    if (!next(message, &at, zone, &count) || !next(message, &at, zone, &keywords) ||
        count.type != MSGPACK_OBJECT_POSITIVE_INTEGER || count.via.u64 > ARGUMENTS_MAX ||
        keywords.type != MSGPACK_OBJECT_POSITIVE_INTEGER || keywords.via.u64 != 0) {
        return false;
    }
    out->size = (uint32_t)count.via.u64;
    out->ptr = msgpack_zone_malloc(zone, (ARGUMENTS_MAX + 1) * sizeof *out->ptr);
    for (uint32_t i = 0; out->ptr != NULL && i < out->size; i++) {
        if (!next(message, &at, zone, &out->ptr[i])) {
            return false;
        }
    }
    return out->ptr != NULL && at == message->payload_bytes;
}

const uint8_t *values_bytes(const pulsing_message *message, const msgpack_object *value,
                            uint64_t *len_out)
{
    if (value->type == MSGPACK_OBJECT_BIN) {
        *len_out = value->via.bin.size;
        return (const uint8_t *)value->via.bin.ptr;
    }
    if (value->type != MSGPACK_OBJECT_EXT || value->via.ext.type != EXT_REFERENCE ||
        value->via.ext.size != REFERENCE_BODY_BYTES || value->via.ext.ptr[0] != REFERENCE_BYTES ||
        message->block == NULL) {
        return NULL;
    }
    uint32_t index = 0;
    uint64_t len = 0;
    uint64_t block_bytes = 0;
    memcpy(&index, value->via.ext.ptr + 1, sizeof index);
    memcpy(&len, value->via.ext.ptr + 5, sizeof len);
    const uint8_t *block = pulsing_block_bytes(message->block, &block_bytes);
    /* A payload that lies in the block itself comes before the buffers. */
    uint64_t begin = 0;
    if (message->payload == block) {
        begin = ((uint64_t)message->payload_bytes + BUFFER_ALIGN - 1) / BUFFER_ALIGN * BUFFER_ALIGN;
    }
    if (index != 0 || begin > block_bytes || len > block_bytes - begin) {
        return NULL;
    }
    *len_out = len;
    return block + begin;
}

void values_call_begin(msgpack_packer *packer, uint32_t count)
{
    msgpack_pack_uint32(packer, count);
    msgpack_pack_uint32(packer, 0);
}

pls_err values_send(pulsing *p, pulsing_send *send, const msgpack_sbuffer *packed)
{
    pulsing_room *room = NULL;
    uint8_t *at = send->at;
    if (packed->size > send->capacity) {
        pls_err err = pulsing_room_alloc(p, packed->size, &room, &at);
        if (err != PLS_OK) {
            pulsing_abort(p, send);
            return err;
        }
    }
    if (packed->size > 0) {
        memcpy(at, packed->data, packed->size);
    }
    return pulsing_commit(p, send, (uint32_t)packed->size, room, room != NULL);
}
