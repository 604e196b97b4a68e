/* SPDX-License-Identifier: Apache-2.0 */
/* Two small direct-mapped caches for strings that come again and again: dict keys, and the tuple of
 * keyword names of a call. An entry is replaced when another name falls on its place, so a peer
 * that sends ever new names costs time, never memory. */

#include "python/codec_internal.h"

#define KEY_SLOTS 512
#define KEY_BYTES_MAX 32
#define TUPLE_SLOTS 64
#define TUPLE_BYTES_MAX 120
/* Interned strings may live as long as the process, so what peers can add to them has an end. */
#define INTERNED_MAX 4096

typedef struct name_tuple {
    PyObject *tuple;
    uint32_t count;
    uint32_t len;
    uint8_t bytes[TUPLE_BYTES_MAX];
} name_tuple;

struct pls_codec_names {
    PyObject *keys[KEY_SLOTS];
    name_tuple tuples[TUPLE_SLOTS];
    uint32_t interned_count;
};

static struct pls_codec_names *names_of(pls_codec *codec)
{
    if (codec->names == NULL) {
        codec->names = PyMem_Calloc(1, sizeof *codec->names);
        if (codec->names == NULL) {
            PyErr_NoMemory();
        }
    }
    return codec->names;
}

void pls_codec_names_clear(pls_codec *codec)
{
    struct pls_codec_names *names = codec->names;
    codec->names = NULL;
    if (names == NULL) {
        return;
    }
    for (int index = 0; index < KEY_SLOTS; index++) {
        Py_XDECREF(names->keys[index]);
    }
    for (int index = 0; index < TUPLE_SLOTS; index++) {
        Py_XDECREF(names->tuples[index].tuple);
    }
    PyMem_Free(names);
}

/* Mixes eight bytes at a time; the last group may overlap the one before it. */
static uint32_t bytes_hash(const uint8_t *bytes, size_t len)
{
    const uint64_t odd = UINT64_C(0x9e3779b97f4a7c15);
    uint64_t hash = len * odd;
    uint64_t word = 0;
    size_t at = 0;
    for (; at + sizeof word <= len; at += sizeof word) {
        memcpy(&word, bytes + at, sizeof word);
        hash = (hash ^ word) * odd;
        hash ^= hash >> 32;
    }
    word = 0;
    memcpy(&word, bytes + at, len - at);
    hash = (hash ^ word) * odd;
    return (uint32_t)(hash >> 32);
}

PyObject *pls_name_key(pls_codec *codec, const uint8_t *bytes, size_t len)
{
    if (len > KEY_BYTES_MAX) {
        return PyUnicode_DecodeUTF8((const char *)bytes, (Py_ssize_t)len, NULL);
    }
    struct pls_codec_names *names = names_of(codec);
    if (names == NULL) {
        return NULL;
    }
    /* The bytes may be in memory that somebody still writes to: judge and use one copy. */
    uint8_t copy[KEY_BYTES_MAX];
    memcpy(copy, bytes, len);
    PyObject **slot = &names->keys[bytes_hash(copy, len) % KEY_SLOTS];
    PyObject *key = *slot;
    if (key != NULL && (size_t)PyUnicode_GET_LENGTH(key) == len &&
        memcmp(PyUnicode_1BYTE_DATA(key), copy, len) == 0) {
        Py_INCREF(key);
        return key;
    }
    key = PyUnicode_DecodeUTF8((const char *)copy, (Py_ssize_t)len, NULL);
    if (key != NULL && PyUnicode_IS_COMPACT_ASCII(key)) {
        Py_INCREF(key);
        Py_XSETREF(*slot, key);
    }
    return key;
}

/* Nothing else may be decoded here: hooks of special types would lack their context. */
static bool byte_begins_str(uint8_t byte)
{
    return (byte & 0xe0) == PLS_PACK_FIXSTR || (byte >= PLS_PACK_STR8 && byte <= PLS_PACK_STR32);
}

/* Reads `count` str values that fill the source; no name may come twice. */
static PyObject *tuple_read(pls_codec *codec, struct pls_codec_names *names, pls_source *source,
                            size_t count)
{
    PyObject *tuple = PyTuple_New((Py_ssize_t)count);
    PyObject *seen = tuple != NULL ? PySet_New(NULL) : NULL;
    if (seen == NULL) {
        Py_XDECREF(tuple);
        return NULL;
    }
    for (size_t index = 0; index < count; index++) {
        if (source->at == source->end || !byte_begins_str(*source->at)) {
            pls_codec_fail(codec, "a keyword name is not a string");
            goto fail;
        }
        PyObject *name = pls_take_value(codec, source);
        if (name == NULL) {
            goto fail;
        }
        if (names->interned_count < INTERNED_MAX) {
            names->interned_count++;
            PyUnicode_InternInPlace(&name);
        }
        PyTuple_SET_ITEM(tuple, (Py_ssize_t)index, name);
        if (PySet_Add(seen, name) != 0) {
            goto fail;
        }
    }
    if (source->at != source->end || (size_t)PySet_GET_SIZE(seen) != count) {
        pls_codec_fail(codec, "the keyword names of a call are damaged");
        goto fail;
    }
    Py_DECREF(seen);
    return tuple;
fail:
    Py_DECREF(seen);
    Py_DECREF(tuple);
    return NULL;
}

PyObject *pls_name_tuple(pls_codec *codec, const uint8_t *bytes, size_t len, size_t count)
{
    struct pls_codec_names *names = names_of(codec);
    if (names == NULL) {
        return NULL;
    }
    if (len > TUPLE_BYTES_MAX) {
        pls_source source = pls_source_over(bytes, len, 0, NULL);
        return tuple_read(codec, names, &source, count);
    }
    uint8_t copy[TUPLE_BYTES_MAX];
    memcpy(copy, bytes, len);
    name_tuple *slot = &names->tuples[bytes_hash(copy, len) % TUPLE_SLOTS];
    if (slot->tuple != NULL && slot->len == len && slot->count == count &&
        memcmp(slot->bytes, copy, len) == 0) {
        Py_INCREF(slot->tuple);
        return slot->tuple;
    }
    pls_source source = pls_source_over(copy, len, 0, NULL);
    PyObject *tuple = tuple_read(codec, names, &source, count);
    if (tuple != NULL) {
        Py_INCREF(tuple);
        Py_XSETREF(slot->tuple, tuple);
        slot->count = (uint32_t)count;
        slot->len = (uint32_t)len;
        memcpy(slot->bytes, copy, len);
    }
    return tuple;
}
