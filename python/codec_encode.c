/* SPDX-License-Identifier: Apache-2.0 */
/* Python objects to the stream: the types of which nearly every message consists, chosen by
 * comparing exact types, so that a subclass is never mistaken for its base and arrives as what it
 * was. Encoding can run Python code (pickling), so containers are read with references held and
 * their size is checked again. */

#include "python/codec_internal.h"

#include "base/assert.h"

/* Longest head of a value: a first byte and eight more. */
#define HEAD_BYTES_MAX 9
/* Bytes of the head of an extension value with a 32-bit length. */
#define EXT32_HEAD_BYTES 6

int pls_put_uint(pls_sink *sink, uint64_t value)
{
    if (pls_sink_room(sink, HEAD_BYTES_MAX) != 0) {
        return -1;
    }
    if (value < 0x80) {
        pls_store_u8(sink, (uint8_t)value);
    } else if (value <= UINT8_MAX) {
        pls_store_u8(sink, PLS_PACK_UINT8);
        pls_store_u8(sink, (uint8_t)value);
    } else if (value <= UINT16_MAX) {
        pls_store_u8(sink, PLS_PACK_UINT16);
        pls_store_be16(sink, (uint16_t)value);
    } else if (value <= UINT32_MAX) {
        pls_store_u8(sink, PLS_PACK_UINT32);
        pls_store_be32(sink, (uint32_t)value);
    } else {
        pls_store_u8(sink, PLS_PACK_UINT64);
        pls_store_be64(sink, value);
    }
    return 0;
}

static int put_negative(pls_sink *sink, int64_t value)
{
    if (pls_sink_room(sink, HEAD_BYTES_MAX) != 0) {
        return -1;
    }
    if (value >= -32) {
        pls_store_u8(sink, (uint8_t)value);
    } else if (value >= INT8_MIN) {
        pls_store_u8(sink, PLS_PACK_INT8);
        pls_store_u8(sink, (uint8_t)value);
    } else if (value >= INT16_MIN) {
        pls_store_u8(sink, PLS_PACK_INT16);
        pls_store_be16(sink, (uint16_t)value);
    } else if (value >= INT32_MIN) {
        pls_store_u8(sink, PLS_PACK_INT32);
        pls_store_be32(sink, (uint32_t)value);
    } else {
        pls_store_u8(sink, PLS_PACK_INT64);
        pls_store_be64(sink, (uint64_t)value);
    }
    return 0;
}

/* The value's bytes come from int.to_bytes(): no public C function gives them before Python 3.13.
 */
static int put_bigint(pls_codec *codec, PyObject *object, pls_sink *sink)
{
    PyObject *bits = PyObject_CallMethodNoArgs(object, codec->strings[PLS_STRING_BIT_LENGTH]);
    if (bits == NULL) {
        return -1;
    }
    size_t len = PyLong_AsSize_t(bits) / 8 + 1;
    Py_DECREF(bits);
    if (PyErr_Occurred()) {
        return -1;
    }
    PyObject *kwnames = PyTuple_Pack(1, codec->strings[PLS_STRING_SIGNED]);
    PyObject *len_object = PyLong_FromSize_t(len);
    PyObject *bytes = NULL;
    if (kwnames != NULL && len_object != NULL) {
        PyObject *args[] = {object, len_object, codec->strings[PLS_STRING_LITTLE], Py_True};
        bytes = PyObject_VectorcallMethod(codec->strings[PLS_STRING_TO_BYTES], args, 3, kwnames);
    }
    Py_XDECREF(kwnames);
    Py_XDECREF(len_object);
    if (bytes == NULL) {
        return -1;
    }
    int rc = pls_put_ext(sink, PLS_EXT_BIGINT, len);
    if (rc == 0) {
        rc = pls_sink_put(sink, PyBytes_AS_STRING(bytes), len);
    }
    Py_DECREF(bytes);
    return rc;
}

static int put_int(pls_codec *codec, PyObject *object, pls_sink *sink)
{
    int overflow = 0;
    long long value = PyLong_AsLongLongAndOverflow(object, &overflow);
    if (overflow == 0) {
        return value >= 0 ? pls_put_uint(sink, (uint64_t)value) : put_negative(sink, value);
    }
    if (overflow > 0) {
        unsigned long long large = PyLong_AsUnsignedLongLong(object);
        if (!PyErr_Occurred()) {
            return pls_put_uint(sink, large);
        }
        PyErr_Clear();
    }
    return put_bigint(codec, object, sink);
}

static int put_float(PyObject *object, pls_sink *sink)
{
    if (pls_sink_room(sink, HEAD_BYTES_MAX) != 0) {
        return -1;
    }
    double value = PyFloat_AS_DOUBLE(object);
    uint64_t bits;
    memcpy(&bits, &value, sizeof bits);
    pls_store_u8(sink, PLS_PACK_FLOAT64);
    pls_store_be64(sink, bits);
    return 0;
}

int pls_put_str(pls_sink *sink, const char *utf8, size_t len)
{
    if (pls_sink_room(sink, HEAD_BYTES_MAX + len) != 0) {
        return -1;
    }
    if (len < 32) {
        pls_store_u8(sink, (uint8_t)(PLS_PACK_FIXSTR | len));
    } else if (len <= UINT8_MAX) {
        pls_store_u8(sink, PLS_PACK_STR8);
        pls_store_u8(sink, (uint8_t)len);
    } else if (len <= UINT16_MAX) {
        pls_store_u8(sink, PLS_PACK_STR16);
        pls_store_be16(sink, (uint16_t)len);
    } else {
        pls_store_u8(sink, PLS_PACK_STR32);
        pls_store_be32(sink, (uint32_t)len);
    }
    memcpy(sink->at, utf8, len);
    sink->at += len;
    return 0;
}

static bool bytes_stay_inline(const pls_sink *sink, size_t len)
{
    return len <= PLS_CODEC_INLINE_BYTES_MAX || (sink->flags & PLS_CODEC_NO_BUFFERS) != 0;
}

/* A str that is not plain ASCII and large, or that holds lone surrogates: through a bytes object,
 * since PyUnicode_AsUTF8AndSize() would leave a second copy of the text inside of the user's
 * object. */
static int put_str_encoded(PyObject *object, pls_sink *sink)
{
    int kind = PLS_REFERENCE_STR;
    PyObject *bytes = PyUnicode_AsUTF8String(object);
    if (bytes == NULL && PyErr_ExceptionMatches(PyExc_UnicodeEncodeError)) {
        PyErr_Clear();
        kind = PLS_REFERENCE_SURROGATES;
        bytes = PyUnicode_AsEncodedString(object, "utf-8", "surrogatepass");
    }
    if (bytes == NULL) {
        return -1;
    }
    size_t len = (size_t)PyBytes_GET_SIZE(bytes);
    const char *utf8 = PyBytes_AS_STRING(bytes);
    int rc;
    if (!bytes_stay_inline(sink, len)) {
        rc = pls_sink_hold(sink, kind, bytes, utf8, len);
    } else if (kind == PLS_REFERENCE_STR) {
        rc = pls_put_str(sink, utf8, len);
    } else {
        rc = pls_put_ext(sink, PLS_EXT_SURROGATES, len);
        if (rc == 0) {
            rc = pls_sink_put(sink, utf8, len);
        }
    }
    Py_DECREF(bytes);
    return rc;
}

static int put_str(PyObject *object, pls_sink *sink)
{
    if (PyUnicode_IS_COMPACT_ASCII(object)) {
        size_t len = (size_t)PyUnicode_GET_LENGTH(object);
        const char *utf8 = (const char *)PyUnicode_1BYTE_DATA(object);
        if (bytes_stay_inline(sink, len)) {
            return pls_put_str(sink, utf8, len);
        }
        return pls_sink_hold(sink, PLS_REFERENCE_STR, object, utf8, len);
    }
    if (PyUnicode_GetLength(object) > PLS_CODEC_INLINE_BYTES_MAX / 4) {
        return put_str_encoded(object, sink);
    }
    Py_ssize_t len = 0;
    const char *utf8 = PyUnicode_AsUTF8AndSize(object, &len);
    if (utf8 == NULL) {
        if (!PyErr_ExceptionMatches(PyExc_UnicodeEncodeError)) {
            return -1;
        }
        PyErr_Clear();
        return put_str_encoded(object, sink);
    }
    return pls_put_str(sink, utf8, (size_t)len);
}

static int put_bin(pls_sink *sink, const void *bytes, size_t len)
{
    if (pls_sink_room(sink, HEAD_BYTES_MAX + len) != 0) {
        return -1;
    }
    if (len <= UINT8_MAX) {
        pls_store_u8(sink, PLS_PACK_BIN8);
        pls_store_u8(sink, (uint8_t)len);
    } else if (len <= UINT16_MAX) {
        pls_store_u8(sink, PLS_PACK_BIN16);
        pls_store_be16(sink, (uint16_t)len);
    } else {
        pls_store_u8(sink, PLS_PACK_BIN32);
        pls_store_be32(sink, (uint32_t)len);
    }
    if (len > 0) {
        memcpy(sink->at, bytes, len);
        sink->at += len;
    }
    return 0;
}

int pls_put_buffer(pls_sink *sink, PyObject *owner, const void *bytes, size_t len)
{
    if (bytes_stay_inline(sink, len)) {
        return put_bin(sink, bytes, len);
    }
    return pls_sink_hold(sink, PLS_REFERENCE_BYTES, owner, bytes, len);
}

int pls_put_buffer_view(pls_sink *sink, Py_buffer *view)
{
    if (!bytes_stay_inline(sink, (size_t)view->len)) {
        return pls_sink_hold_view(sink, PLS_REFERENCE_BYTES, view);
    }
    int rc = put_bin(sink, view->buf, (size_t)view->len);
    PyBuffer_Release(view);
    return rc;
}

int pls_put_ext(pls_sink *sink, int code, size_t len)
{
    if (sink->depth >= PLS_CODEC_DEPTH_MAX) {
        return PLS_PUT_FALLBACK;
    }
    if (pls_sink_room(sink, EXT32_HEAD_BYTES) != 0) {
        return -1;
    }
    if (len <= UINT8_MAX) {
        pls_store_u8(sink, PLS_PACK_EXT8);
        pls_store_u8(sink, (uint8_t)len);
    } else {
        pls_store_u8(sink, PLS_PACK_EXT32);
        pls_store_be32(sink, (uint32_t)len);
    }
    pls_store_u8(sink, (uint8_t)code);
    return 0;
}

static int depth_enter(pls_sink *sink)
{
    if (sink->depth >= PLS_CODEC_DEPTH_MAX) {
        return PLS_PUT_FALLBACK;
    }
    if (sink->container_count++ >= PLS_CONTAINERS_MAX &&
        (sink->flags & PLS_CODEC_ALLOW_PICKLE) != 0) {
        return PLS_PUT_FALLBACK;
    }
    sink->depth++;
    return 0;
}

/* The length always gets 32 bits: most bodies are small, but moving a large one to widen its head
 * costs more than three bytes do. */
int pls_ext_begin(pls_sink *sink, int code, size_t *mark_out)
{
    int rc = depth_enter(sink);
    if (rc != 0) {
        return rc;
    }
    if (pls_sink_room(sink, EXT32_HEAD_BYTES) != 0) {
        return -1;
    }
    pls_store_u8(sink, PLS_PACK_EXT32);
    pls_store_be32(sink, 0);
    pls_store_u8(sink, (uint8_t)code);
    *mark_out = pls_sink_len(sink);
    return 0;
}

int pls_ext_end(pls_sink *sink, size_t mark)
{
    pls_assert(sink->depth > 0);
    sink->depth--;
    uint32_t swapped = __builtin_bswap32((uint32_t)(pls_sink_len(sink) - mark));
    memcpy(sink->begin + mark - 1 - sizeof swapped, &swapped, sizeof swapped);
    return 0;
}

int pls_put_array_header(pls_sink *sink, size_t count)
{
    if (pls_sink_room(sink, HEAD_BYTES_MAX) != 0) {
        return -1;
    }
    if (count < 16) {
        pls_store_u8(sink, (uint8_t)(PLS_PACK_FIXARRAY | count));
    } else if (count <= UINT16_MAX) {
        pls_store_u8(sink, PLS_PACK_ARRAY16);
        pls_store_be16(sink, (uint16_t)count);
    } else if (count <= UINT32_MAX) {
        pls_store_u8(sink, PLS_PACK_ARRAY32);
        pls_store_be32(sink, (uint32_t)count);
    } else {
        return pls_codec_fail(sink->codec, "a sequence of more than 2**32 values cannot be sent");
    }
    return 0;
}

static int put_map_header(pls_sink *sink, size_t count)
{
    if (pls_sink_room(sink, HEAD_BYTES_MAX) != 0) {
        return -1;
    }
    if (count < 16) {
        pls_store_u8(sink, (uint8_t)(PLS_PACK_FIXMAP | count));
    } else if (count <= UINT16_MAX) {
        pls_store_u8(sink, PLS_PACK_MAP16);
        pls_store_be16(sink, (uint16_t)count);
    } else if (count <= UINT32_MAX) {
        pls_store_u8(sink, PLS_PACK_MAP32);
        pls_store_be32(sink, (uint32_t)count);
    } else {
        return pls_codec_fail(sink->codec, "a dict of more than 2**32 values cannot be sent");
    }
    return 0;
}

static int put_list(pls_codec *codec, PyObject *list, pls_sink *sink)
{
    int rc = depth_enter(sink);
    if (rc != 0) {
        return rc;
    }
    Py_ssize_t count = PyList_GET_SIZE(list);
    rc = pls_put_array_header(sink, (size_t)count);
    for (Py_ssize_t index = 0; rc == 0 && index < count; index++) {
        if (PyList_GET_SIZE(list) != count) {
            PyErr_SetString(PyExc_RuntimeError, "a list changed its size while it was sent");
            return -1;
        }
        PyObject *item = PyList_GET_ITEM(list, index);
        Py_INCREF(item);
        rc = pls_put_value(codec, item, sink);
        Py_DECREF(item);
        if (rc == -1) {
            pls_sink_path_index(sink, (size_t)index);
        }
    }
    sink->depth--;
    return rc;
}

static int put_tuple(pls_codec *codec, PyObject *tuple, pls_sink *sink)
{
    size_t mark;
    int rc = pls_ext_begin(sink, PLS_EXT_TUPLE, &mark);
    if (rc != 0) {
        return rc;
    }
    Py_ssize_t count = PyTuple_GET_SIZE(tuple);
    rc = pls_put_array_header(sink, (size_t)count);
    for (Py_ssize_t index = 0; rc == 0 && index < count; index++) {
        rc = pls_put_value(codec, PyTuple_GET_ITEM(tuple, index), sink);
        if (rc == -1) {
            pls_sink_path_index(sink, (size_t)index);
        }
    }
    return rc != 0 ? rc : pls_ext_end(sink, mark);
}

static int put_item(pls_codec *codec, PyObject *key, PyObject *value, pls_sink *sink)
{
    int rc = pls_put_value(codec, key, sink);
    if (rc == 0) {
        rc = pls_put_value(codec, value, sink);
    }
    if (rc == -1) {
        pls_sink_path_key(sink, key);
    }
    return rc;
}

static int put_dict(pls_codec *codec, PyObject *dict, pls_sink *sink)
{
    int rc = depth_enter(sink);
    if (rc != 0) {
        return rc;
    }
    Py_ssize_t count = PyDict_GET_SIZE(dict);
    rc = put_map_header(sink, (size_t)count);
    Py_ssize_t at = 0;
    Py_ssize_t seen = 0;
    PyObject *key, *value;
    while (rc == 0 && seen <= count && PyDict_Next(dict, &at, &key, &value)) {
        Py_INCREF(key);
        Py_INCREF(value);
        rc = put_item(codec, key, value, sink);
        Py_DECREF(key);
        Py_DECREF(value);
        seen++;
    }
    if (rc == 0 && (seen != count || PyDict_GET_SIZE(dict) != count)) {
        PyErr_SetString(PyExc_RuntimeError, "a dict changed its size while it was sent");
        return -1;
    }
    sink->depth--;
    return rc;
}

static int put_special(pls_codec *codec, const pls_special *special, PyObject *object,
                       pls_sink *sink)
{
    size_t mark;
    int rc = pls_ext_begin(sink, special->code, &mark);
    if (rc == 0) {
        rc = special->encode(codec, object, sink);
    }
    return rc != 0 ? rc : pls_ext_end(sink, mark);
}

static int put_other(pls_codec *codec, PyObject *object, pls_sink *sink)
{
    PyTypeObject *type = Py_TYPE(object);
    for (unsigned index = 0; index < codec->special_count; index++) {
        if (codec->specials[index].type == type) {
            return put_special(codec, &codec->specials[index], object, sink);
        }
    }
    int rc = pls_put_uncommon(codec, object, sink);
    if (rc == PLS_PUT_FOREIGN) {
        rc = pls_put_numpy(codec, object, sink);
    }
    if (rc == PLS_PUT_FOREIGN) {
        rc = pls_put_time(codec, object, sink);
    }
    if (rc == PLS_PUT_FOREIGN) {
        rc = pls_put_pickle(codec, object, sink);
    }
    return rc;
}

int pls_put_value(pls_codec *codec, PyObject *object, pls_sink *sink)
{
    PyTypeObject *type = Py_TYPE(object);
    if (type == &PyUnicode_Type) {
        return put_str(object, sink);
    }
    if (type == &PyLong_Type) {
        return put_int(codec, object, sink);
    }
    if (type == &PyBytes_Type) {
        return pls_put_buffer(sink, object, PyBytes_AS_STRING(object),
                              (size_t)PyBytes_GET_SIZE(object));
    }
    if (type == &PyFloat_Type) {
        return put_float(object, sink);
    }
    if (object == Py_None || type == &PyBool_Type) {
        if (pls_sink_room(sink, 1) != 0) {
            return -1;
        }
        pls_store_u8(sink, object == Py_None   ? PLS_PACK_NIL
                           : object == Py_True ? PLS_PACK_TRUE
                                               : PLS_PACK_FALSE);
        return 0;
    }
    if (type == &PyList_Type) {
        return put_list(codec, object, sink);
    }
    if (type == &PyDict_Type) {
        return put_dict(codec, object, sink);
    }
    if (type == &PyTuple_Type) {
        return put_tuple(codec, object, sink);
    }
    return put_other(codec, object, sink);
}
