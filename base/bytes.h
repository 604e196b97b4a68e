/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PLS_BASE_BYTES_H
#define PLS_BASE_BYTES_H

#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* A bounded reader over bytes that somebody else wrote. After the first read past the end `bad` is
 * set, every later read gives zero, and the caller checks once at the end. */
typedef struct pls_reader {
    const uint8_t *at;
    const uint8_t *end;
    bool bad;
} pls_reader;

/* A bounded writer into the caller's memory. After the first write past the end `bad` is set and
 * nothing more is written. */
typedef struct pls_writer {
    uint8_t *begin;
    uint8_t *at;
    uint8_t *end;
    bool bad;
} pls_writer;

static inline pls_reader pls_reader_over(const void *bytes, size_t len)
{
    const uint8_t *begin = bytes;
    return (pls_reader){begin, begin + len, false};
}

static inline size_t pls_reader_left(const pls_reader *r)
{
    return (size_t)(r->end - r->at);
}

/* Lends `len` bytes inside the reader's memory, or NULL and `bad`. */
static inline const uint8_t *pls_read_bytes(pls_reader *r, size_t len)
{
    if (r->bad || pls_reader_left(r) < len) {
        r->bad = true;
        return NULL;
    }
    const uint8_t *bytes = r->at;
    r->at += len;
    return bytes;
}

static inline pls_writer pls_writer_into(void *bytes, size_t capacity)
{
    uint8_t *begin = bytes;
    return (pls_writer){begin, begin, begin + capacity, false};
}

static inline size_t pls_writer_len(const pls_writer *w)
{
    return (size_t)(w->at - w->begin);
}

static inline void pls_write_bytes(pls_writer *w, const void *bytes, size_t len)
{
    if (w->bad || (size_t)(w->end - w->at) < len) {
        w->bad = true;
        return;
    }
    if (len > 0) {
        memcpy(w->at, bytes, len);
    }
    w->at += len;
}

/* Fixed-width numbers travel in the machine's own little-endian order. */
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the wire is little-endian");

#define PLS_BYTES_NUMBER(name, type)                                                               \
    static inline type pls_read_##name(pls_reader *r)                                              \
    {                                                                                              \
        type value = 0;                                                                            \
        const uint8_t *bytes = pls_read_bytes(r, sizeof value);                                    \
        if (bytes != NULL) {                                                                       \
            memcpy(&value, bytes, sizeof value);                                                   \
        }                                                                                          \
        return value;                                                                              \
    }                                                                                              \
    static inline void pls_write_##name(pls_writer *w, type value)                                 \
    {                                                                                              \
        pls_write_bytes(w, &value, sizeof value);                                                  \
    }

PLS_BYTES_NUMBER(u8, uint8_t)
PLS_BYTES_NUMBER(u16, uint16_t)
PLS_BYTES_NUMBER(u32, uint32_t)
PLS_BYTES_NUMBER(u64, uint64_t)
PLS_BYTES_NUMBER(i64, int64_t)

#undef PLS_BYTES_NUMBER

#endif
