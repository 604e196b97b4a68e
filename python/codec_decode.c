/* SPDX-License-Identifier: Apache-2.0 */
/* The stream to Python objects. Every byte is input: a length is compared with what is left before
 * anything is made for it, each enclosing container's outstanding values are counted as a byte each
 * (`owed`), so the memory of all containers together stays within eight times the bytes present,
 * and each byte is fetched once before it is judged, since the sender may still write to the
 * memory. */

#include "python/codec_internal.h"

pls_source pls_source_over(const void *stream, size_t len, unsigned flags, void *context)
{
    const uint8_t *begin = stream;
    return (pls_source){
        .at = begin, .end = len > 0 ? begin + len : begin, .flags = flags, .context = context};
}

void pls_source_attach_region(pls_source *source, const uint8_t *region, size_t region_len,
                              PyObject *block, size_t block_offset)
{
    source->region = region;
    source->region_len = region_len;
    source->block = block;
    source->block_offset = block_offset;
}

static bool truncated(pls_codec *codec)
{
    pls_codec_fail(codec, "the bytes end in the middle of a value");
    return false;
}

/* `len` bytes of the current value, or NULL with an exception. */
static inline const uint8_t *take(pls_codec *codec, pls_source *source, size_t len)
{
    if (__builtin_expect(pls_source_left(source) < len, 0)) {
        truncated(codec);
        return NULL;
    }
    const uint8_t *bytes = source->at;
    source->at += len;
    return bytes;
}

const uint8_t *pls_source_take(pls_source *source, size_t len)
{
    return take(source->codec, source, len);
}

const uint8_t *pls_take_bytes(pls_codec *codec, pls_source *source, size_t len)
{
    if ((size_t)(source->end - source->at) != len) {
        pls_codec_fail(codec, "an extension value has the wrong length");
        return NULL;
    }
    return take(codec, source, len);
}

/* A big-endian number of 1, 2, 4 or 8 bytes. */
static inline bool take_number(pls_codec *codec, pls_source *source, size_t len,
                               uint64_t *value_out)
{
    const uint8_t *bytes = take(codec, source, len);
    if (bytes == NULL) {
        return false;
    }
    *value_out = len == 1   ? pls_load_u8(bytes)
                 : len == 2 ? pls_load_be16(bytes)
                 : len == 4 ? pls_load_be32(bytes)
                            : pls_load_be64(bytes);
    return true;
}

bool pls_take_uint(pls_codec *codec, pls_source *source, uint64_t *value_out)
{
    const uint8_t *head = take(codec, source, 1);
    if (head == NULL) {
        return false;
    }
    uint8_t first = pls_load_u8(head);
    if (first < 0x80) {
        *value_out = first;
        return true;
    }
    if (first < PLS_PACK_UINT8 || first > PLS_PACK_UINT64) {
        pls_codec_fail(codec, "a count is not an unsigned integer");
        return false;
    }
    return take_number(codec, source, (size_t)1 << (first - PLS_PACK_UINT8), value_out);
}

bool pls_source_owe(pls_codec *codec, pls_source *source, uint64_t count)
{
    if (count > pls_source_left(source)) {
        pls_codec_fail(codec, "a container claims %llu values where %zu bytes are left",
                       (unsigned long long)count, pls_source_left(source));
        return false;
    }
    source->owed += (size_t)count;
    return true;
}

bool pls_take_array_count(pls_codec *codec, pls_source *source, size_t *count_out)
{
    const uint8_t *head = take(codec, source, 1);
    if (head == NULL) {
        return false;
    }
    uint8_t first = pls_load_u8(head);
    uint64_t count;
    if ((first & 0xf0) == PLS_PACK_FIXARRAY) {
        count = first & 0x0f;
    } else if (first == PLS_PACK_ARRAY16 || first == PLS_PACK_ARRAY32) {
        if (!take_number(codec, source, first == PLS_PACK_ARRAY16 ? 2 : 4, &count)) {
            return false;
        }
    } else {
        pls_codec_fail(codec, "an array is missing in an extension value");
        return false;
    }
    *count_out = (size_t)count;
    return pls_source_owe(codec, source, count);
}

static PyObject *take_str(pls_codec *codec, pls_source *source, uint64_t len, const char *errors)
{
    const uint8_t *bytes = take(codec, source, (size_t)len);
    if (bytes == NULL) {
        return NULL;
    }
    PyObject *text = PyUnicode_DecodeUTF8((const char *)bytes, (Py_ssize_t)len, errors);
    if (text == NULL && PyErr_ExceptionMatches(PyExc_UnicodeDecodeError)) {
        PyErr_Clear();
        pls_codec_fail(codec, "a string is not UTF-8");
    }
    return text;
}

static PyObject *take_bin(pls_codec *codec, pls_source *source, uint64_t len)
{
    const uint8_t *bytes = take(codec, source, (size_t)len);
    return bytes == NULL ? NULL : PyBytes_FromStringAndSize((const char *)bytes, (Py_ssize_t)len);
}

static bool depth_enter(pls_codec *codec, pls_source *source)
{
    if (source->depth >= PLS_CODEC_DEPTH_MAX) {
        pls_codec_fail(codec, "values are nested deeper than %d", PLS_CODEC_DEPTH_MAX);
        return false;
    }
    source->depth++;
    return true;
}

static PyObject *take_list(pls_codec *codec, pls_source *source, uint64_t count)
{
    if (!depth_enter(codec, source) || !pls_source_owe(codec, source, count)) {
        return NULL;
    }
    PyObject *list = PyList_New((Py_ssize_t)count);
    if (list == NULL) {
        return NULL;
    }
    for (size_t index = 0; index < count; index++) {
        source->owed--;
        PyObject *item = pls_take_value(codec, source);
        if (item == NULL) {
            Py_DECREF(list);
            return NULL;
        }
        PyList_SET_ITEM(list, (Py_ssize_t)index, item);
    }
    source->depth--;
    return list;
}

static PyObject *take_tuple(pls_codec *codec, pls_source *source)
{
    size_t count;
    if (!pls_take_array_count(codec, source, &count)) {
        return NULL;
    }
    PyObject *tuple = PyTuple_New((Py_ssize_t)count);
    if (tuple == NULL) {
        return NULL;
    }
    for (size_t index = 0; index < count; index++) {
        source->owed--;
        PyObject *item = pls_take_value(codec, source);
        if (item == NULL) {
            Py_DECREF(tuple);
            return NULL;
        }
        PyTuple_SET_ITEM(tuple, (Py_ssize_t)index, item);
    }
    return tuple;
}

static PyObject *take_key(pls_codec *codec, pls_source *source)
{
    if (pls_source_left(source) > 0) {
        uint8_t first = pls_load_u8(source->at);
        if ((first & 0xe0) == PLS_PACK_FIXSTR) {
            size_t len = first & 0x1f;
            const uint8_t *bytes = take(codec, source, 1 + len);
            PyObject *key = bytes != NULL ? pls_name_key(codec, bytes + 1, len) : NULL;
            if (key == NULL && PyErr_ExceptionMatches(PyExc_UnicodeDecodeError)) {
                PyErr_Clear();
                pls_codec_fail(codec, "a string is not UTF-8");
            }
            return key;
        }
    }
    return pls_take_value(codec, source);
}

static int take_item(pls_codec *codec, pls_source *source, PyObject *dict)
{
    source->owed--;
    PyObject *key = take_key(codec, source);
    if (key == NULL) {
        return -1;
    }
    source->owed--;
    PyObject *value = pls_take_value(codec, source);
    if (value == NULL) {
        Py_DECREF(key);
        return -1;
    }
    int rc = PyDict_SetItem(dict, key, value);
    Py_DECREF(key);
    Py_DECREF(value);
    if (rc != 0 && PyErr_ExceptionMatches(PyExc_TypeError)) {
        PyErr_Clear();
        return pls_codec_fail(codec, "a dict key is not hashable");
    }
    return rc;
}

static PyObject *take_dict(pls_codec *codec, pls_source *source, uint64_t count)
{
    if (!depth_enter(codec, source) || !pls_source_owe(codec, source, count * 2)) {
        return NULL;
    }
    PyObject *dict = PyDict_New();
    if (dict == NULL) {
        return NULL;
    }
    for (size_t index = 0; index < count; index++) {
        if (take_item(codec, source, dict) != 0) {
            Py_DECREF(dict);
            return NULL;
        }
    }
    source->depth--;
    return dict;
}

bool pls_take_reference(pls_codec *codec, pls_source *source, int *kind_out,
                        pls_found_buffer *found_out)
{
    const uint8_t *body = take(codec, source, PLS_REFERENCE_BODY_BYTES);
    if (body == NULL) {
        return false;
    }
    uint32_t index = pls_load_le32(body + 1);
    uint64_t len = pls_load_le64(body + 5);
    size_t begin = (source->buffer_offset + PLS_CODEC_BUFFER_ALIGN - 1) &
                   ~(size_t)(PLS_CODEC_BUFFER_ALIGN - 1);
    if (index != source->buffer_index) {
        pls_codec_fail(codec, "out-of-band buffer %u is named where %u is next", (unsigned)index,
                       (unsigned)source->buffer_index);
        return false;
    }
    if (begin > source->region_len || len > source->region_len - begin) {
        pls_codec_fail(codec, "out-of-band buffer %u lies outside of the message's block",
                       (unsigned)index);
        return false;
    }
    source->buffer_index++;
    source->buffer_offset = begin + (size_t)len;
    *kind_out = pls_load_u8(body);
    found_out->bytes = source->region + begin;
    found_out->len = (size_t)len;
    found_out->object = source->block;
    found_out->offset = source->block_offset + begin;
    return true;
}

bool pls_take_buffer(pls_codec *codec, pls_source *source, pls_found_buffer *found_out)
{
    const uint8_t *head = take(codec, source, 1);
    if (head == NULL) {
        return false;
    }
    uint8_t first = pls_load_u8(head);
    if (first >= PLS_PACK_BIN8 && first <= PLS_PACK_BIN32) {
        uint64_t len;
        if (!take_number(codec, source, (size_t)1 << (first - PLS_PACK_BIN8), &len)) {
            return false;
        }
        found_out->bytes = take(codec, source, (size_t)len);
        found_out->len = (size_t)len;
        found_out->object = NULL;
        found_out->offset = 0;
        return found_out->bytes != NULL;
    }
    int kind = -1;
    const uint8_t *ext = first == PLS_PACK_EXT8 ? take(codec, source, 2) : NULL;
    if (ext != NULL && pls_load_u8(ext) == PLS_REFERENCE_BODY_BYTES &&
        pls_load_u8(ext + 1) == PLS_EXT_REFERENCE &&
        !pls_take_reference(codec, source, &kind, found_out)) {
        return false;
    }
    if (kind != PLS_REFERENCE_BYTES && !PyErr_Occurred()) {
        pls_codec_fail(codec, "a buffer is missing in an extension value");
    }
    return kind == PLS_REFERENCE_BYTES;
}

PyObject *pls_found_buffer_view(const pls_found_buffer *found)
{
    if (found->object == NULL) {
        return PyBytes_FromStringAndSize((const char *)found->bytes, (Py_ssize_t)found->len);
    }
    PyObject *whole = PyMemoryView_FromObject(found->object);
    PyObject *part = NULL;
    if (whole != NULL) {
        part = PySequence_GetSlice(whole, (Py_ssize_t)found->offset,
                                   (Py_ssize_t)(found->offset + found->len));
        Py_DECREF(whole);
    }
    return part;
}

static PyObject *take_referenced(pls_codec *codec, pls_source *source)
{
    int kind;
    pls_found_buffer found;
    if (!pls_take_reference(codec, source, &kind, &found)) {
        return NULL;
    }
    const char *bytes = (const char *)found.bytes;
    Py_ssize_t len = (Py_ssize_t)found.len;
    switch (kind) {
    case PLS_REFERENCE_BYTES:
        return PyBytes_FromStringAndSize(bytes, len);
    case PLS_REFERENCE_BYTEARRAY:
        return PyByteArray_FromStringAndSize(bytes, len);
    case PLS_REFERENCE_STR:
    case PLS_REFERENCE_SURROGATES: {
        PyObject *text =
            PyUnicode_DecodeUTF8(bytes, len, kind == PLS_REFERENCE_STR ? NULL : "surrogatepass");
        if (text == NULL && PyErr_ExceptionMatches(PyExc_UnicodeDecodeError)) {
            PyErr_Clear();
            pls_codec_fail(codec, "a string is not UTF-8");
        }
        return text;
    }
    default:
        pls_codec_fail(codec, "an out-of-band buffer of unknown kind %d", kind);
        return NULL;
    }
}

static PyObject *take_bigint(pls_codec *codec, pls_source *source, size_t len)
{
    PyObject *bytes = take_bin(codec, source, len);
    PyObject *kwnames = PyTuple_Pack(1, codec->strings[PLS_STRING_SIGNED]);
    PyObject *value = NULL;
    if (bytes != NULL && kwnames != NULL) {
        PyObject *args[] = {(PyObject *)&PyLong_Type, bytes, codec->strings[PLS_STRING_LITTLE],
                            Py_True};
        value = PyObject_VectorcallMethod(codec->strings[PLS_STRING_FROM_BYTES], args, 3, kwnames);
    }
    Py_XDECREF(bytes);
    Py_XDECREF(kwnames);
    return value;
}

static PyObject *take_ext_body(pls_codec *codec, pls_source *source, int code)
{
    size_t len = (size_t)(source->end - source->at);
    switch (code) {
    case PLS_EXT_TUPLE:
        return take_tuple(codec, source);
    case PLS_EXT_REFERENCE:
        return take_referenced(codec, source);
    case PLS_EXT_BIGINT:
        return take_bigint(codec, source, len);
    case PLS_EXT_SURROGATES:
        return take_str(codec, source, len, "surrogatepass");
    case PLS_EXT_NDARRAY:
    case PLS_EXT_NUMPY_VALUE:
        return pls_take_numpy(codec, source, code);
    case PLS_EXT_DATETIME:
    case PLS_EXT_DATE:
    case PLS_EXT_TIME:
    case PLS_EXT_TIMEDELTA:
    case PLS_EXT_TIMEZONE:
        return pls_take_time(codec, source, code);
    case PLS_EXT_PICKLE:
        return pls_take_pickle(codec, source);
    default:
        if (code >= PLS_CODEC_SPECIAL_FIRST && code <= PLS_CODEC_SPECIAL_LAST) {
            return pls_take_special(codec, source, code);
        }
        return pls_take_uncommon(codec, source, code);
    }
}

/* The body is read by a source that ends where the body ends, and has to be used up. */
static PyObject *take_ext(pls_codec *codec, pls_source *source, uint64_t len)
{
    const uint8_t *code = take(codec, source, 1);
    if (code == NULL || !depth_enter(codec, source)) {
        return NULL;
    }
    int8_t number = (int8_t)pls_load_u8(code);
    if (len > pls_source_left(source)) {
        truncated(codec);
        return NULL;
    }
    const uint8_t *end = source->end;
    size_t owed = source->owed;
    source->end = source->at + len;
    source->owed = 0;
    PyObject *value = take_ext_body(codec, source, number);
    if (value != NULL && source->at != source->end) {
        pls_codec_fail(codec, "extension value %d is longer than its content", number);
        Py_CLEAR(value);
    }
    source->end = end;
    source->owed = owed;
    source->depth--;
    return value;
}

static PyObject *take_float(pls_codec *codec, pls_source *source, size_t len)
{
    uint64_t bits;
    if (!take_number(codec, source, len, &bits)) {
        return NULL;
    }
    if (len == sizeof(float)) {
        uint32_t narrow = (uint32_t)bits;
        float value;
        memcpy(&value, &narrow, sizeof value);
        return PyFloat_FromDouble(value);
    }
    double value;
    memcpy(&value, &bits, sizeof value);
    return PyFloat_FromDouble(value);
}

static PyObject *take_int(pls_codec *codec, pls_source *source, uint8_t first)
{
    uint64_t value;
    bool is_signed = first >= PLS_PACK_INT8;
    size_t len = (size_t)1 << (first - (is_signed ? PLS_PACK_INT8 : PLS_PACK_UINT8));
    if (!take_number(codec, source, len, &value)) {
        return NULL;
    }
    if (!is_signed) {
        return PyLong_FromUnsignedLongLong(value);
    }
    int64_t number = len == 1   ? (int8_t)value
                     : len == 2 ? (int16_t)value
                     : len == 4 ? (int32_t)value
                                : (int64_t)value;
    return PyLong_FromLongLong(number);
}

/* Values whose first byte is followed by a length or count of 1, 2 or 4 bytes. */
static PyObject *take_sized(pls_codec *codec, pls_source *source, uint8_t first)
{
    uint8_t base = first >= PLS_PACK_MAP16     ? PLS_PACK_MAP16 - 1
                   : first >= PLS_PACK_ARRAY16 ? PLS_PACK_ARRAY16 - 1
                   : first >= PLS_PACK_STR8    ? PLS_PACK_STR8
                   : first >= PLS_PACK_EXT8    ? PLS_PACK_EXT8
                                               : PLS_PACK_BIN8;
    uint64_t len;
    if (!take_number(codec, source, (size_t)1 << (first - base), &len)) {
        return NULL;
    }
    if (first >= PLS_PACK_MAP16) {
        return take_dict(codec, source, len);
    }
    if (first >= PLS_PACK_ARRAY16) {
        return take_list(codec, source, len);
    }
    if (first >= PLS_PACK_STR8) {
        return take_str(codec, source, len, NULL);
    }
    if (first >= PLS_PACK_EXT8) {
        return take_ext(codec, source, len);
    }
    return take_bin(codec, source, len);
}

static PyObject *take_new_reference(PyObject *singleton)
{
    Py_INCREF(singleton);
    return singleton;
}

PyObject *pls_take_value(pls_codec *codec, pls_source *source)
{
    const uint8_t *head = take(codec, source, 1);
    if (head == NULL) {
        return NULL;
    }
    uint8_t first = pls_load_u8(head);
    if (first < PLS_PACK_FIXMAP || first >= PLS_PACK_NEGATIVE) {
        return PyLong_FromLong((int8_t)first);
    }
    if (first < PLS_PACK_FIXARRAY) {
        return take_dict(codec, source, first & 0x0f);
    }
    if (first < PLS_PACK_FIXSTR) {
        return take_list(codec, source, first & 0x0f);
    }
    if (first < PLS_PACK_NIL) {
        return take_str(codec, source, first & 0x1f, NULL);
    }
    switch (first) {
    case PLS_PACK_NIL:
        return take_new_reference(Py_None);
    case PLS_PACK_UNUSED:
        pls_codec_fail(codec, "byte 0xc1 begins no value");
        return NULL;
    case PLS_PACK_FALSE:
        return take_new_reference(Py_False);
    case PLS_PACK_TRUE:
        return take_new_reference(Py_True);
    case PLS_PACK_FLOAT32:
    case PLS_PACK_FLOAT64:
        return take_float(codec, source, first == PLS_PACK_FLOAT32 ? 4 : 8);
    default:
        if (first >= PLS_PACK_FIXEXT1 && first <= PLS_PACK_FIXEXT16) {
            return take_ext(codec, source, (uint64_t)1 << (first - PLS_PACK_FIXEXT1));
        }
        if (first >= PLS_PACK_UINT8 && first <= PLS_PACK_INT64) {
            return take_int(codec, source, first);
        }
        return take_sized(codec, source, first);
    }
}
