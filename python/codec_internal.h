/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PLS_PYTHON_CODEC_INTERNAL_H
#define PLS_PYTHON_CODEC_INTERNAL_H

#include "python/codec.h"
#include "python/codec_wire.h"

#include <string.h>

/* What the codec's own files share. The numbers below are the format's: see codec_wire.h. */

/* A put that answers this has set no exception: the message is nested too deeply, or refers to
 * itself, for msgpack, and travels as one pickle instead. */
#define PLS_PUT_FALLBACK (-2)

/* Objects that appear in a message many times are written many times, so a small graph can unfold
 * without end. A message with more containers than this is pickled, which keeps the sharing; lists
 * of a million lists lose little by it. */
#define PLS_CONTAINERS_MAX (1u << 20)

/* Extension lengths are 32 bits wide. */
#define PLS_STREAM_BYTES_MAX ((size_t)UINT32_MAX)

/* Indexes of pls_codec.strings. */
enum {
    PLS_STRING_TO_BYTES,
    PLS_STRING_FROM_BYTES,
    PLS_STRING_BIT_LENGTH,
    PLS_STRING_TOBYTES,
    PLS_STRING_CAST,
    PLS_STRING_DTYPE,
    PLS_STRING_STR,
    PLS_STRING_ITEMSIZE,
    PLS_STRING_KIND,
    PLS_STRING_LITTLE,
    PLS_STRING_SIGNED,
    PLS_STRING_START,
    PLS_STRING_STOP,
    PLS_STRING_STEP,
    PLS_STRING_APPEND,
    PLS_STRING_RAW,
    PLS_STRING_COUNT,
};

/* Sets CodecError with a text in PyUnicode_FromFormat()'s language; chains nothing.
 * Errors: returns -1 always, so that callers can return it. */
int pls_codec_fail(pls_codec *codec, const char *format, ...);

/* The module if the program has imported it to its end, without importing it: a new reference, or
 * NULL without an exception. */
PyObject *pls_module_loaded(const char *name, const char *attribute);

/* The slow half of pls_sink_room(). */
int pls_sink_grow(pls_sink *sink, size_t need);

/* Room for `need` more bytes, which may then be stored at sink->at. Errors: exception. */
static inline int pls_sink_room(pls_sink *sink, size_t need)
{
    if (__builtin_expect((size_t)(sink->end - sink->at) < need, 0)) {
        return pls_sink_grow(sink, need);
    }
    return 0;
}

static inline void pls_store_u8(pls_sink *sink, uint8_t value)
{
    *sink->at++ = value;
}

#define PLS_STORE(name, type, swap)                                                                \
    static inline void pls_store_##name(pls_sink *sink, type value)                                \
    {                                                                                              \
        type swapped = swap(value);                                                                \
        memcpy(sink->at, &swapped, sizeof swapped);                                                \
        sink->at += sizeof swapped;                                                                \
    }
#define PLS_SAME(value) (value)
PLS_STORE(be16, uint16_t, __builtin_bswap16)
PLS_STORE(be32, uint32_t, __builtin_bswap32)
PLS_STORE(be64, uint64_t, __builtin_bswap64)
PLS_STORE(le16, uint16_t, PLS_SAME)
PLS_STORE(le32, uint32_t, PLS_SAME)
PLS_STORE(le64, uint64_t, PLS_SAME)
#undef PLS_STORE
#undef PLS_SAME

/* Keeps `owner` (a new reference is made) and writes the REFERENCE to its bytes. Errors: as a put.
 */
int pls_sink_hold(pls_sink *sink, int kind, PyObject *owner, const void *bytes, size_t len);

/* The same for a buffer; takes the view, also when it fails. */
int pls_sink_hold_view(pls_sink *sink, int kind, Py_buffer *view);

/* Lets go of the buffers from the `keep`-th on. */
void pls_sink_drop_buffers(pls_sink *sink, uint32_t keep, size_t buffers_bytes);

/* Puts a piece of text in front of the path to the value that failed; keeps the set exception. */
void pls_sink_path_index(pls_sink *sink, size_t index);
void pls_sink_path_key(pls_sink *sink, PyObject *key);
void pls_sink_path_text(pls_sink *sink, const char *text);

/* Puts; 0, -1 with an exception, or PLS_PUT_FALLBACK. */

/* Any object. */
int pls_put_value(pls_codec *codec, PyObject *object, pls_sink *sink);
/* Heads and small values. */
int pls_put_uint(pls_sink *sink, uint64_t value);
/* Small UTF-8 text. */
int pls_put_str(pls_sink *sink, const char *utf8, size_t len);
int pls_put_array_header(pls_sink *sink, size_t count);
/* A bin value when small, else a REFERENCE that keeps `owner`. */
int pls_put_buffer(pls_sink *sink, PyObject *owner, const void *bytes, size_t len);
/* The same; takes the view. */
int pls_put_buffer_view(pls_sink *sink, Py_buffer *view);
/* The head of an extension value whose body length is known. Counts a level of depth for the check
 * only. */
int pls_put_ext(pls_sink *sink, int code, size_t len);
/* An extension value whose length is filled in by end. `*mark_out` is its place. */
int pls_ext_begin(pls_sink *sink, int code, size_t *mark_out);
int pls_ext_end(pls_sink *sink, size_t mark);

/* Values of a module that may not even be imported: PLS_PUT_FOREIGN when the object is not theirs.
 */
#define PLS_PUT_FOREIGN 1
/* Of numpy, of datetime; pickle takes all. */
int pls_put_numpy(pls_codec *codec, PyObject *object, pls_sink *sink);
int pls_put_time(pls_codec *codec, PyObject *object, pls_sink *sink);
int pls_put_pickle(pls_codec *codec, PyObject *object, pls_sink *sink);
/* bytearray, memoryview, set, frozenset, complex, range, slice, Ellipsis, or foreign. */
int pls_put_uncommon(pls_codec *codec, PyObject *object, pls_sink *sink);

/* Of a source. Takes give NULL (or false) with an exception set. */

/* Bytes that the current value and what is inside of it may use. */
static inline size_t pls_source_left(const pls_source *source)
{
    return (size_t)(source->end - source->at) - source->owed;
}

/* One fetch: the compiler may not read the memory, which the sender can still write to, a second
 * time. */
#define PLS_LOAD(name, type, swap)                                                                 \
    static inline type pls_load_##name(const uint8_t *at)                                          \
    {                                                                                              \
        type value;                                                                                \
        memcpy(&value, at, sizeof value);                                                          \
        __asm__ volatile("" : "+r"(value));                                                        \
        return swap(value);                                                                        \
    }
#define PLS_SAME(value) (value)
PLS_LOAD(u8, uint8_t, PLS_SAME)
PLS_LOAD(be16, uint16_t, __builtin_bswap16)
PLS_LOAD(be32, uint32_t, __builtin_bswap32)
PLS_LOAD(be64, uint64_t, __builtin_bswap64)
PLS_LOAD(le16, uint16_t, PLS_SAME)
PLS_LOAD(le32, uint32_t, PLS_SAME)
PLS_LOAD(le64, uint64_t, PLS_SAME)
#undef PLS_LOAD
#undef PLS_SAME

/* A buffer as it was found: `bytes` and `len` always; `object` + `offset` say where a view of it
 * can be made. `object` is NULL for memory that only lasts for the decode. */
typedef struct pls_found_buffer {
    const uint8_t *bytes;
    size_t len;
    PyObject *object; /* borrowed: the block */
    size_t offset;
} pls_found_buffer;

/* Reads a buffer value: bin or REFERENCE of kind bytes. */
bool pls_take_buffer(pls_codec *codec, pls_source *source, pls_found_buffer *found_out);

/* Reads the body of a REFERENCE and advances over its buffer. */
bool pls_take_reference(pls_codec *codec, pls_source *source, int *kind_out,
                        pls_found_buffer *found_out);

/* A read-only object that exports exactly the buffer's bytes: a slice of the block, or a copy. */
PyObject *pls_found_buffer_view(const pls_found_buffer *found);

/* Any value; a count. */
PyObject *pls_take_value(pls_codec *codec, pls_source *source);
bool pls_take_uint(pls_codec *codec, pls_source *source, uint64_t *value_out);

/* Counts `count` values, of a byte each at least, as outstanding; the reader of each counts it off
 * before it begins. False when fewer bytes are left, so nothing is made for a count that cannot be
 * true. */
bool pls_source_owe(pls_codec *codec, pls_source *source, uint64_t count);
/* The count of an array, which is owed then. */
bool pls_take_array_count(pls_codec *codec, pls_source *source, size_t *count_out);
/* The rest of the source as `len` bytes, exactly: for extension bodies of fixed form. */
const uint8_t *pls_take_bytes(pls_codec *codec, pls_source *source, size_t len);

/* Extension bodies; `source` is narrowed to the body. */
PyObject *pls_take_uncommon(pls_codec *codec, pls_source *source, int code);
PyObject *pls_take_numpy(pls_codec *codec, pls_source *source, int code);
PyObject *pls_take_time(pls_codec *codec, pls_source *source, int code);
PyObject *pls_take_pickle(pls_codec *codec, pls_source *source);
PyObject *pls_take_special(pls_codec *codec, pls_source *source, int code);

/* Names (codec_names.c): strings that come again and again. */

/* A dict key: the str for UTF-8 bytes, from the cache where it is short. */
PyObject *pls_name_key(pls_codec *codec, const uint8_t *bytes, size_t len);

/* The tuple of keyword names for their bytes in the stream (str values, one after the other). */
PyObject *pls_name_tuple(pls_codec *codec, const uint8_t *bytes, size_t len, size_t count);

/* Parts of the codec's fini, clear and traverse. */
void pls_codec_names_clear(pls_codec *codec);
void pls_codec_numpy_clear(pls_codec *codec);
int pls_codec_numpy_traverse(pls_codec *codec, visitproc visit, void *arg);

#endif
