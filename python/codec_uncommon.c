/* SPDX-License-Identifier: Apache-2.0 */
/* The builtin types that msgpack does not know and that are not in every message: bytearray,
 * memoryview, set, frozenset, complex, range, slice, Ellipsis; both directions. */

#include "python/codec_internal.h"

/* The formats that memoryview.cast() can give back, so what arrives has the format that was sent.
 */
#define VIEW_FORMATS "cbB?hHiIlLqQnNfdP"
#define VIEW_DIMENSIONS_MAX 64

static int put_complex(PyObject *object, pls_sink *sink)
{
    double parts[2] = {PyComplex_RealAsDouble(object), PyComplex_ImagAsDouble(object)};
    int rc = pls_put_ext(sink, PLS_EXT_COMPLEX, sizeof parts);
    return rc != 0 ? rc : pls_sink_put(sink, parts, sizeof parts);
}

static int put_bytearray(PyObject *object, pls_sink *sink)
{
    size_t len = (size_t)PyByteArray_GET_SIZE(object);
    if (len > PLS_CODEC_INLINE_BYTES_MAX && (sink->flags & PLS_CODEC_NO_BUFFERS) == 0) {
        Py_buffer view;
        if (PyObject_GetBuffer(object, &view, PyBUF_SIMPLE) != 0) {
            return -1;
        }
        return pls_sink_hold_view(sink, PLS_REFERENCE_BYTEARRAY, &view);
    }
    int rc = pls_put_ext(sink, PLS_EXT_BYTEARRAY, len);
    return rc != 0 ? rc : pls_sink_put(sink, PyByteArray_AS_STRING(object), len);
}

/* The one character of a view's format, or 0 with an exception when the other side could not make
 * it. */
static char view_format(pls_codec *codec, const Py_buffer *view)
{
    const char *format = view->format != NULL ? view->format : "B";
    if (*format == '@') {
        format++;
    }
    bool castable = *format != 0 && format[1] == 0 && strchr(VIEW_FORMATS, *format) != NULL;
    for (int dimension = 0; castable && view->ndim > 1 && dimension < view->ndim; dimension++) {
        castable = view->shape[dimension] > 0;
    }
    if (!castable) {
        pls_codec_fail(codec,
                       "a memoryview of format '%.20s' and this shape cannot be sent; "
                       "send the array itself, or its bytes",
                       view->format != NULL ? view->format : "B");
        return 0;
    }
    return *format;
}

static int put_view_body(pls_codec *codec, PyObject *object, Py_buffer *view, pls_sink *sink)
{
    char format = view_format(codec, view);
    if (format == 0 || pls_sink_room(sink, 2 + 8 * (size_t)view->ndim) != 0) {
        PyBuffer_Release(view);
        return -1;
    }
    pls_store_u8(sink, (uint8_t)format);
    pls_store_u8(sink, (uint8_t)view->ndim);
    for (int dimension = 0; dimension < view->ndim; dimension++) {
        pls_store_le64(sink, (uint64_t)view->shape[dimension]);
    }
    if (PyBuffer_IsContiguous(view, 'C')) {
        return pls_put_buffer_view(sink, view);
    }
    PyObject *bytes = PyBytes_FromStringAndSize(NULL, view->len);
    int rc =
        bytes == NULL ? -1 : PyBuffer_ToContiguous(PyBytes_AS_STRING(bytes), view, view->len, 'C');
    PyBuffer_Release(view);
    if (rc == 0) {
        rc = pls_put_buffer(sink, bytes, PyBytes_AS_STRING(bytes), (size_t)PyBytes_GET_SIZE(bytes));
    }
    Py_XDECREF(bytes);
    return rc;
}

static int put_memoryview(pls_codec *codec, PyObject *object, pls_sink *sink)
{
    size_t mark;
    int rc = pls_ext_begin(sink, PLS_EXT_MEMORYVIEW, &mark);
    if (rc != 0) {
        return rc;
    }
    Py_buffer view;
    if (PyObject_GetBuffer(object, &view, PyBUF_FULL_RO) != 0) {
        return -1;
    }
    rc = put_view_body(codec, object, &view, sink);
    return rc != 0 ? rc : pls_ext_end(sink, mark);
}

static int put_set(pls_codec *codec, PyObject *set, int code, pls_sink *sink)
{
    size_t mark;
    int rc = pls_ext_begin(sink, code, &mark);
    if (rc != 0) {
        return rc;
    }
    Py_ssize_t count = PySet_GET_SIZE(set);
    PyObject *iterator = PyObject_GetIter(set);
    if (iterator == NULL || pls_put_array_header(sink, (size_t)count) != 0) {
        Py_XDECREF(iterator);
        return -1;
    }
    PyObject *item;
    Py_ssize_t seen = 0;
    while (rc == 0 && (item = PyIter_Next(iterator)) != NULL) {
        rc = pls_put_value(codec, item, sink);
        Py_DECREF(item);
        seen++;
    }
    Py_DECREF(iterator);
    if (rc == 0 && PyErr_Occurred()) {
        return -1;
    }
    if (rc == 0 && seen != count) {
        PyErr_SetString(PyExc_RuntimeError, "a set changed its size while it was sent");
        return -1;
    }
    if (rc == -1) {
        pls_sink_path_text(sink, "{...}");
    }
    return rc != 0 ? rc : pls_ext_end(sink, mark);
}

/* range and slice: start, stop, step. */
static int put_steps(pls_codec *codec, PyObject *object, int code, pls_sink *sink)
{
    size_t mark;
    int rc = pls_ext_begin(sink, code, &mark);
    for (int part = PLS_STRING_START; rc == 0 && part <= PLS_STRING_STEP; part++) {
        PyObject *value = PyObject_GetAttr(object, codec->strings[part]);
        rc = value == NULL ? -1 : pls_put_value(codec, value, sink);
        Py_XDECREF(value);
    }
    return rc != 0 ? rc : pls_ext_end(sink, mark);
}

int pls_put_uncommon(pls_codec *codec, PyObject *object, pls_sink *sink)
{
    PyTypeObject *type = Py_TYPE(object);
    if (type == &PySet_Type) {
        return put_set(codec, object, PLS_EXT_SET, sink);
    }
    if (type == &PyFrozenSet_Type) {
        return put_set(codec, object, PLS_EXT_FROZENSET, sink);
    }
    if (type == &PyByteArray_Type) {
        return put_bytearray(object, sink);
    }
    if (type == &PyMemoryView_Type) {
        return put_memoryview(codec, object, sink);
    }
    if (type == &PyComplex_Type) {
        return put_complex(object, sink);
    }
    if (type == &PyRange_Type) {
        return put_steps(codec, object, PLS_EXT_RANGE, sink);
    }
    if (type == &PySlice_Type) {
        return put_steps(codec, object, PLS_EXT_SLICE, sink);
    }
    if (object == Py_Ellipsis) {
        return pls_put_ext(sink, PLS_EXT_ELLIPSIS, 0);
    }
    return PLS_PUT_FOREIGN;
}

static PyObject *take_set(pls_codec *codec, pls_source *source, int code)
{
    size_t count;
    if (!pls_take_array_count(codec, source, &count)) {
        return NULL;
    }
    PyObject *set = code == PLS_EXT_SET ? PySet_New(NULL) : PyFrozenSet_New(NULL);
    if (set == NULL) {
        return NULL;
    }
    for (size_t index = 0; index < count; index++) {
        source->owed--;
        PyObject *item = pls_take_value(codec, source);
        int rc = item == NULL ? -1 : PySet_Add(set, item);
        Py_XDECREF(item);
        if (rc != 0) {
            if (item != NULL && PyErr_ExceptionMatches(PyExc_TypeError)) {
                PyErr_Clear();
                pls_codec_fail(codec, "an element of a set is not hashable");
            }
            Py_DECREF(set);
            return NULL;
        }
    }
    return set;
}

static PyObject *take_complex(pls_codec *codec, pls_source *source)
{
    double parts[2];
    const uint8_t *bytes = pls_take_bytes(codec, source, sizeof parts);
    if (bytes == NULL) {
        return NULL;
    }
    memcpy(parts, bytes, sizeof parts);
    return PyComplex_FromDoubles(parts[0], parts[1]);
}

static PyObject *take_steps(pls_codec *codec, pls_source *source, int code)
{
    PyObject *parts[3] = {NULL, NULL, NULL};
    PyObject *result = NULL;
    if (!pls_source_owe(codec, source, 3)) {
        return NULL;
    }
    for (int part = 0; part < 3; part++) {
        source->owed--;
        parts[part] = pls_take_value(codec, source);
        if (parts[part] == NULL) {
            goto done;
        }
        if (code == PLS_EXT_RANGE && !PyLong_CheckExact(parts[part])) {
            pls_codec_fail(codec, "a range is not made of integers");
            goto done;
        }
    }
    if (code == PLS_EXT_SLICE) {
        result = PySlice_New(parts[0], parts[1], parts[2]);
    } else {
        result = PyObject_Vectorcall((PyObject *)&PyRange_Type, parts, 3, NULL);
        if (result == NULL && PyErr_ExceptionMatches(PyExc_ValueError)) {
            PyErr_Clear();
            pls_codec_fail(codec, "a range has step zero");
        }
    }
done:
    for (int part = 0; part < 3; part++) {
        Py_XDECREF(parts[part]);
    }
    return result;
}

/* view.cast(format) or view.cast(format, shape); takes the view. */
static PyObject *view_cast(pls_codec *codec, PyObject *view, char format, int dimensions,
                           const uint8_t *shape)
{
    PyObject *sizes = PyTuple_New(dimensions);
    for (int dimension = 0; sizes != NULL && dimension < dimensions; dimension++) {
        PyObject *size = PyLong_FromUnsignedLongLong(pls_load_le64(shape + 8 * dimension));
        if (size == NULL) {
            Py_DECREF(sizes);
            Py_DECREF(view);
            return NULL;
        }
        PyTuple_SET_ITEM(sizes, dimension, size);
    }
    PyObject *format_text = sizes != NULL ? PyUnicode_FromStringAndSize(&format, 1) : NULL;
    PyObject *cast = NULL;
    if (format_text != NULL) {
        PyObject *args[] = {view, format_text, sizes};
        cast = PyObject_VectorcallMethod(codec->strings[PLS_STRING_CAST], args,
                                         dimensions == 1 ? 2 : 3, NULL);
        if (cast == NULL && !PyErr_ExceptionMatches(PyExc_MemoryError)) {
            PyErr_Clear();
            pls_codec_fail(codec, "a memoryview's format and shape do not fit its bytes");
        }
    }
    Py_XDECREF(format_text);
    Py_XDECREF(sizes);
    Py_DECREF(view);
    return cast;
}

static PyObject *take_memoryview(pls_codec *codec, pls_source *source)
{
    const uint8_t *head = pls_source_take(source, 2);
    char format = '\0';
    if (head == NULL) {
        return NULL;
    }
    memcpy(&format, head, 1);
    int dimensions = pls_load_u8(head + 1);
    if (format == 0 || strchr(VIEW_FORMATS, format) == NULL || dimensions > VIEW_DIMENSIONS_MAX) {
        pls_codec_fail(codec, "a memoryview of an unknown format");
        return NULL;
    }
    const uint8_t *shape = pls_source_take(source, 8 * (size_t)dimensions);
    pls_found_buffer found;
    if (shape == NULL || !pls_take_buffer(codec, source, &found)) {
        return NULL;
    }
    PyObject *base = pls_found_buffer_view(&found);
    if (base == NULL) {
        return NULL;
    }
    PyObject *view = PyMemoryView_FromObject(base);
    Py_DECREF(base);
    if (view == NULL || (format == 'B' && dimensions == 1)) {
        return view;
    }
    return view_cast(codec, view, format, dimensions, shape);
}

PyObject *pls_take_uncommon(pls_codec *codec, pls_source *source, int code)
{
    size_t len = (size_t)(source->end - source->at);
    switch (code) {
    case PLS_EXT_SET:
    case PLS_EXT_FROZENSET:
        return take_set(codec, source, code);
    case PLS_EXT_COMPLEX:
        return take_complex(codec, source);
    case PLS_EXT_BYTEARRAY: {
        const char *bytes = (const char *)pls_take_bytes(codec, source, len);
        return PyByteArray_FromStringAndSize(bytes, (Py_ssize_t)len);
    }
    case PLS_EXT_MEMORYVIEW:
        return take_memoryview(codec, source);
    case PLS_EXT_RANGE:
    case PLS_EXT_SLICE:
        return take_steps(codec, source, code);
    case PLS_EXT_ELLIPSIS:
        Py_INCREF(Py_Ellipsis);
        return Py_Ellipsis;
    default:
        pls_codec_fail(codec, "extension code %d is unknown", code);
        return NULL;
    }
}
