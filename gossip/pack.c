/* SPDX-License-Identifier: Apache-2.0 */
/* msgpack's numbers are big-endian and its types are told by the first byte. Everything here works
 * on the bounded reader and writer of base, so nothing can pass the end of a packet. */
#include "gossip/pack.h"

#include "base/assert.h"

enum {
    TAG_FIXSTR = 0xa0,
    TAG_BIN8 = 0xc4,
    TAG_BIN16 = 0xc5,
    TAG_UINT8 = 0xcc,
    TAG_UINT16 = 0xcd,
    TAG_UINT32 = 0xce,
    TAG_UINT64 = 0xcf,
    TAG_STR8 = 0xd9,
    TAG_STR16 = 0xda
};

/* Bytes before the content of an open bin: the tag and 16 bits of length. */
#define OPEN_BYTES 3

static void write_number(pls_writer *w, uint8_t tag, uint64_t value, uint32_t bytes)
{
    uint8_t out[1 + sizeof value];
    out[0] = tag;
    for (uint32_t i = 0; i < bytes; i++) {
        out[1 + i] = (uint8_t)(value >> (8 * (bytes - 1 - i)));
    }
    pls_write_bytes(w, out, 1 + bytes);
}

static uint64_t read_number(pls_reader *r, uint32_t bytes)
{
    const uint8_t *in = pls_read_bytes(r, bytes);
    uint64_t value = 0;
    for (uint32_t i = 0; in != NULL && i < bytes; i++) {
        value = value << 8 | in[i];
    }
    return value;
}

uint32_t pls_pack_uint_bytes(uint64_t value)
{
    if (value < 0x80) {
        return 1;
    }
    return value <= UINT8_MAX ? 2 : value <= UINT16_MAX ? 3 : value <= UINT32_MAX ? 5 : 9;
}

void pls_pack_uint(pls_writer *w, uint64_t value)
{
    switch (pls_pack_uint_bytes(value)) {
    case 1:
        pls_write_u8(w, (uint8_t)value);
        break;
    case 2:
        write_number(w, TAG_UINT8, value, 1);
        break;
    case 3:
        write_number(w, TAG_UINT16, value, 2);
        break;
    case 5:
        write_number(w, TAG_UINT32, value, 4);
        break;
    default:
        write_number(w, TAG_UINT64, value, 8);
        break;
    }
}

void pls_pack_str(pls_writer *w, const void *bytes, uint32_t len)
{
    pls_assert(len <= UINT16_MAX);
    if (len < 32) {
        pls_write_u8(w, (uint8_t)(TAG_FIXSTR | len));
    } else if (len <= UINT8_MAX) {
        write_number(w, TAG_STR8, len, 1);
    } else {
        write_number(w, TAG_STR16, len, 2);
    }
    pls_write_bytes(w, bytes, len);
}

void pls_pack_bin(pls_writer *w, const void *bytes, uint32_t len)
{
    pls_assert(len <= UINT16_MAX);
    if (len <= UINT8_MAX) {
        write_number(w, TAG_BIN8, len, 1);
    } else {
        write_number(w, TAG_BIN16, len, 2);
    }
    pls_write_bytes(w, bytes, len);
}

uint8_t *pls_pack_open(pls_writer *w)
{
    static const uint8_t room[OPEN_BYTES];
    uint8_t *opened = w->at;
    pls_write_bytes(w, room, sizeof room);
    return opened;
}

void pls_pack_close(pls_writer *w, uint8_t *opened)
{
    if (w->bad) {
        return;
    }
    size_t len = (size_t)(w->at - opened) - OPEN_BYTES;
    pls_assert(len <= UINT16_MAX);
    if (len <= UINT8_MAX) {
        memmove(opened + OPEN_BYTES - 1, opened + OPEN_BYTES, len);
        w->at--;
        opened[0] = TAG_BIN8;
        opened[1] = (uint8_t)len;
        return;
    }
    opened[0] = TAG_BIN16;
    opened[1] = (uint8_t)(len >> 8);
    opened[2] = (uint8_t)len;
}

uint64_t pls_unpack_uint(pls_reader *r)
{
    uint8_t tag = pls_read_u8(r);
    if (tag < 0x80) {
        return tag;
    }
    switch (tag) {
    case TAG_UINT8:
        return read_number(r, 1);
    case TAG_UINT16:
        return read_number(r, 2);
    case TAG_UINT32:
        return read_number(r, 4);
    case TAG_UINT64:
        return read_number(r, 8);
    default:
        r->bad = true;
        return 0;
    }
}

static const void *read_body(pls_reader *r, uint64_t len, uint32_t len_max, uint32_t *len_out)
{
    if (r->bad || len > len_max) {
        r->bad = true;
        *len_out = 0;
        return NULL;
    }
    const void *bytes = pls_read_bytes(r, len);
    *len_out = bytes != NULL ? (uint32_t)len : 0;
    return bytes;
}

const void *pls_unpack_str(pls_reader *r, uint32_t len_max, uint32_t *len_out)
{
    uint8_t tag = pls_read_u8(r);
    uint64_t len = tag & 0x1f;
    if (tag == TAG_STR8) {
        len = read_number(r, 1);
    } else if (tag == TAG_STR16) {
        len = read_number(r, 2);
    } else if ((tag & 0xe0) != TAG_FIXSTR) {
        r->bad = true;
    }
    return read_body(r, len, len_max, len_out);
}

const void *pls_unpack_bin(pls_reader *r, uint32_t len_max, uint32_t *len_out)
{
    uint8_t tag = pls_read_u8(r);
    uint64_t len = 0;
    if (tag == TAG_BIN8) {
        len = read_number(r, 1);
    } else if (tag == TAG_BIN16) {
        len = read_number(r, 2);
    } else {
        r->bad = true;
    }
    return read_body(r, len, len_max, len_out);
}
