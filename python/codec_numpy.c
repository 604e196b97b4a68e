/* SPDX-License-Identifier: Apache-2.0 */
/* numpy arrays and scalars, without numpy's headers: the memory comes through the buffer protocol,
 * types are named by a number for the common ones and by numpy's own text for other plain ones. A
 * program that never imports numpy never pays for it. Arrays that numpy alone understands (objects,
 * records, subclasses) go through pickle, whose buffers stay out of band as well. */

#include "python/codec_internal.h"

/* The order is the format: append only. */
static const char *const DTYPE_NAMES[] = {"bool",    "int8",    "uint8",     "int16",     "uint16",
                                          "int32",   "uint32",  "int64",     "uint64",    "float16",
                                          "float32", "float64", "complex64", "complex128"};
static const uint8_t DTYPE_BYTES[] = {1, 1, 1, 2, 2, 4, 4, 8, 8, 2, 4, 8, 8, 16};
#define DTYPE_COUNT ((int)(sizeof DTYPE_BYTES))
_Static_assert(sizeof DTYPE_NAMES / sizeof *DTYPE_NAMES == sizeof DTYPE_BYTES, "one size each");
_Static_assert(DTYPE_COUNT < PLS_DTYPE_TEXT, "the escape is no index");

/* Kinds of dtype whose items are plain bytes. */
#define DTYPE_KINDS "biufcmMSU"
#define DTYPE_LETTERS_BYTE_ORDER "<>|="
#define ARRAY_DIMENSIONS_MAX 64

struct pls_codec_numpy {
    PyObject *ndarray;
    PyObject *generic;
    PyObject *dtype;
    PyObject *contiguous;
    PyObject *dtypes[DTYPE_COUNT];
    PyObject *scalars[DTYPE_COUNT];
};

void pls_codec_numpy_clear(pls_codec *codec)
{
    struct pls_codec_numpy *numpy = codec->numpy;
    codec->numpy = NULL;
    if (numpy == NULL) {
        return;
    }
    Py_XDECREF(numpy->ndarray);
    Py_XDECREF(numpy->generic);
    Py_XDECREF(numpy->dtype);
    Py_XDECREF(numpy->contiguous);
    for (int index = 0; index < DTYPE_COUNT; index++) {
        Py_XDECREF(numpy->dtypes[index]);
        Py_XDECREF(numpy->scalars[index]);
    }
    PyMem_Free(numpy);
}

int pls_codec_numpy_traverse(pls_codec *codec, visitproc visit, void *arg)
{
    struct pls_codec_numpy *numpy = codec->numpy;
    if (numpy == NULL) {
        return 0;
    }
    Py_VISIT(numpy->ndarray);
    Py_VISIT(numpy->generic);
    Py_VISIT(numpy->dtype);
    Py_VISIT(numpy->contiguous);
    for (int index = 0; index < DTYPE_COUNT; index++) {
        Py_VISIT(numpy->dtypes[index]);
        Py_VISIT(numpy->scalars[index]);
    }
    return 0;
}

static int numpy_fill(struct pls_codec_numpy *numpy, PyObject *module)
{
    numpy->ndarray = PyObject_GetAttrString(module, "ndarray");
    numpy->generic = numpy->ndarray ? PyObject_GetAttrString(module, "generic") : NULL;
    numpy->dtype = numpy->generic ? PyObject_GetAttrString(module, "dtype") : NULL;
    numpy->contiguous = numpy->dtype ? PyObject_GetAttrString(module, "ascontiguousarray") : NULL;
    if (numpy->contiguous == NULL) {
        return -1;
    }
    for (int index = 0; index < DTYPE_COUNT; index++) {
        numpy->dtypes[index] = PyObject_CallFunction(numpy->dtype, "s", DTYPE_NAMES[index]);
        if (numpy->dtypes[index] == NULL) {
            return -1;
        }
        numpy->scalars[index] = PyObject_GetAttrString(numpy->dtypes[index], "type");
        if (numpy->scalars[index] == NULL) {
            return -1;
        }
    }
    return 0;
}

static int numpy_attach(pls_codec *codec, PyObject *module)
{
    struct pls_codec_numpy *numpy = PyMem_Calloc(1, sizeof *numpy);
    if (numpy == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    int rc = numpy_fill(numpy, module);
    /* Filling runs Python code, which may have come here first. */
    struct pls_codec_numpy *loser = rc == 0 && codec->numpy == NULL ? NULL : numpy;
    if (loser == NULL) {
        codec->numpy = numpy;
        return 0;
    }
    struct pls_codec_numpy *winner = codec->numpy;
    codec->numpy = loser;
    pls_codec_numpy_clear(codec);
    codec->numpy = winner;
    return rc;
}

/* For an encode: an object of numpy's can only exist once numpy is there. */
static bool numpy_present(pls_codec *codec)
{
    if (codec->numpy != NULL) {
        return true;
    }
    PyObject *array_type = pls_module_loaded("numpy", "ndarray");
    if (array_type == NULL) {
        return false;
    }
    Py_DECREF(array_type);
    PyObject *module = PyImport_ImportModule("numpy");
    int rc = module == NULL ? -1 : numpy_attach(codec, module);
    Py_XDECREF(module);
    PyErr_Clear();
    return rc == 0;
}

static int numpy_import(pls_codec *codec)
{
    if (codec->numpy != NULL) {
        return 0;
    }
    PyObject *module = PyImport_ImportModule("numpy");
    if (module == NULL) {
        PyErr_Clear();
        return pls_codec_fail(codec, "a numpy array arrived, and numpy cannot be imported here; "
                                     "install it in this environment");
    }
    int rc = numpy_attach(codec, module);
    Py_DECREF(module);
    return rc;
}

static int dtype_index(const struct pls_codec_numpy *numpy, PyObject *dtype)
{
    for (int index = 0; index < DTYPE_COUNT; index++) {
        if (numpy->dtypes[index] == dtype) {
            return index;
        }
    }
    return -1;
}

static int item_size(pls_codec *codec, PyObject *dtype, size_t *bytes_out)
{
    PyObject *size = PyObject_GetAttr(dtype, codec->strings[PLS_STRING_ITEMSIZE]);
    if (size == NULL) {
        return -1;
    }
    *bytes_out = PyLong_AsSize_t(size);
    Py_DECREF(size);
    return *bytes_out == (size_t)-1 ? -1 : 0;
}

/* What np.dtype() is asked to read when the text comes from a peer: byte order, kind, size, and for
 * dates a unit: "<f8", ">U12", "<M8[25us]". Nothing else, since np.dtype() accepts a language of
 * its own. */
static bool dtype_text_plain(const char *text, size_t len)
{
    size_t at = len > 0 && strchr(DTYPE_LETTERS_BYTE_ORDER, text[0]) != NULL ? 1 : 0;
    if (at >= len || strchr(DTYPE_KINDS, text[at]) == NULL || text[at] == 0) {
        return false;
    }
    bool has_unit = text[at] == 'm' || text[at] == 'M';
    size_t digits = ++at;
    while (at < len && text[at] >= '0' && text[at] <= '9') {
        at++;
    }
    if (at == digits || at - digits > 9) {
        return false;
    }
    if (at == len) {
        return true;
    }
    if (!has_unit || text[at] != '[' || text[len - 1] != ']' || len - at < 3) {
        return false;
    }
    for (size_t index = at + 1; index < len - 1; index++) {
        char c = text[index];
        if (!((c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || c == 'Y' || c == 'M' ||
              c == 'W' || c == 'D')) {
            return false;
        }
    }
    return true;
}

/* Writes the dtype; PLS_PUT_FOREIGN for one that only pickle can carry. */
static int put_dtype(pls_codec *codec, PyObject *dtype, pls_sink *sink)
{
    int index = dtype_index(codec->numpy, dtype);
    if (pls_sink_room(sink, 2 + PLS_DTYPE_TEXT_BYTES_MAX) != 0) {
        return -1;
    }
    if (index >= 0) {
        pls_store_u8(sink, (uint8_t)index);
        return 0;
    }
    PyObject *text = PyObject_GetAttr(dtype, codec->strings[PLS_STRING_STR]);
    Py_ssize_t len = 0;
    const char *utf8 =
        text != NULL && PyUnicode_Check(text) ? PyUnicode_AsUTF8AndSize(text, &len) : NULL;
    int rc = PLS_PUT_FOREIGN;
    if (utf8 == NULL) {
        rc = -1;
    } else if (len <= PLS_DTYPE_TEXT_BYTES_MAX && dtype_text_plain(utf8, (size_t)len)) {
        pls_store_u8(sink, PLS_DTYPE_TEXT);
        pls_store_u8(sink, (uint8_t)len);
        memcpy(sink->at, utf8, (size_t)len);
        sink->at += len;
        rc = 0;
    }
    Py_XDECREF(text);
    return rc;
}

/* Reads a dtype: a new reference, and the bytes of one item. */
static PyObject *take_dtype(pls_codec *codec, pls_source *source, size_t *item_bytes_out)
{
    const uint8_t *head = pls_source_take(source, 1);
    if (head == NULL) {
        return NULL;
    }
    uint8_t index = pls_load_u8(head);
    if (index < DTYPE_COUNT) {
        *item_bytes_out = DTYPE_BYTES[index];
        Py_INCREF(codec->numpy->dtypes[index]);
        return codec->numpy->dtypes[index];
    }
    head = index == PLS_DTYPE_TEXT ? pls_source_take(source, 1) : NULL;
    size_t len = head != NULL ? pls_load_u8(head) : 0;
    const uint8_t *bytes =
        len > 0 && len <= PLS_DTYPE_TEXT_BYTES_MAX ? pls_source_take(source, len) : NULL;
    char text[PLS_DTYPE_TEXT_BYTES_MAX + 1] = "";
    if (bytes != NULL) {
        memcpy(text, bytes, len);
    }
    if (bytes == NULL || !dtype_text_plain(text, len)) {
        if (!PyErr_Occurred()) {
            pls_codec_fail(codec, "an array of an unknown dtype");
        }
        return NULL;
    }
    PyObject *dtype = PyObject_CallFunction(codec->numpy->dtype, "s", text);
    if (dtype == NULL || item_size(codec, dtype, item_bytes_out) != 0) {
        Py_XDECREF(dtype);
        PyErr_Clear();
        pls_codec_fail(codec, "numpy does not know the dtype '%s'", text);
        return NULL;
    }
    return dtype;
}

/* The array's memory when it lies in one piece, else that of a copy that does. */
static int array_view(pls_codec *codec, PyObject *array, Py_buffer *view)
{
    if (PyObject_GetBuffer(array, view, PyBUF_ANY_CONTIGUOUS) == 0) {
        return 0;
    }
    PyErr_Clear();
    PyObject *copy = PyObject_CallOneArg(codec->numpy->contiguous, array);
    if (copy == NULL) {
        return -1;
    }
    int rc = PyObject_GetBuffer(copy, view, PyBUF_ANY_CONTIGUOUS);
    Py_DECREF(copy);
    return rc;
}

static int put_array_body(pls_codec *codec, PyObject *array, pls_sink *sink)
{
    PyObject *dtype = PyObject_GetAttr(array, codec->strings[PLS_STRING_DTYPE]);
    int rc = dtype == NULL ? -1 : put_dtype(codec, dtype, sink);
    Py_XDECREF(dtype);
    Py_buffer view;
    if (rc != 0 || array_view(codec, array, &view) != 0) {
        return rc != 0 ? rc : -1;
    }
    if (view.ndim > ARRAY_DIMENSIONS_MAX || pls_sink_room(sink, 2 + 8 * (size_t)view.ndim) != 0) {
        PyBuffer_Release(&view);
        return -1;
    }
    pls_store_u8(sink, PyBuffer_IsContiguous(&view, 'C') ? 'C' : 'F');
    pls_store_u8(sink, (uint8_t)view.ndim);
    for (int dimension = 0; dimension < view.ndim; dimension++) {
        pls_store_le64(sink, (uint64_t)view.shape[dimension]);
    }
    return pls_put_buffer_view(sink, &view);
}

static int put_array(pls_codec *codec, PyObject *array, pls_sink *sink)
{
    size_t begin = pls_sink_len(sink);
    size_t mark;
    int rc = pls_ext_begin(sink, PLS_EXT_NDARRAY, &mark);
    if (rc == 0) {
        rc = put_array_body(codec, array, sink);
    }
    if (rc == PLS_PUT_FOREIGN) {
        pls_ext_end(sink, mark);
        sink->at = sink->begin + begin;
        return rc;
    }
    return rc != 0 ? rc : pls_ext_end(sink, mark);
}

static int put_scalar_item(pls_codec *codec, PyObject *scalar, PyObject *dtype, pls_sink *sink)
{
    size_t item_bytes;
    int rc = item_size(codec, dtype, &item_bytes);
    if (rc == 0 && item_bytes == 0) {
        return PLS_PUT_FOREIGN; /* numpy gives an empty item one character in memory */
    }
    rc = rc != 0 ? rc : put_dtype(codec, dtype, sink);
    if (rc != 0) {
        return rc;
    }
    PyObject *bytes = PyObject_CallMethodNoArgs(scalar, codec->strings[PLS_STRING_TOBYTES]);
    if (bytes == NULL || !PyBytes_Check(bytes)) {
        Py_XDECREF(bytes);
        return -1;
    }
    rc = pls_put_buffer(sink, bytes, PyBytes_AS_STRING(bytes), (size_t)PyBytes_GET_SIZE(bytes));
    Py_DECREF(bytes);
    return rc;
}

static int put_scalar(pls_codec *codec, PyObject *scalar, pls_sink *sink)
{
    size_t begin = pls_sink_len(sink);
    size_t mark;
    int rc = pls_ext_begin(sink, PLS_EXT_NUMPY_VALUE, &mark);
    if (rc != 0) {
        return rc;
    }
    PyObject *dtype = PyObject_GetAttr(scalar, codec->strings[PLS_STRING_DTYPE]);
    rc = dtype == NULL ? -1 : put_scalar_item(codec, scalar, dtype, sink);
    Py_XDECREF(dtype);
    if (rc == PLS_PUT_FOREIGN) {
        pls_ext_end(sink, mark);
        sink->at = sink->begin + begin;
        return rc;
    }
    return rc != 0 ? rc : pls_ext_end(sink, mark);
}

/* Whether the type is one of numpy's own scalar types; a user's subclass must keep its class. */
static bool scalar_type_plain(const struct pls_codec_numpy *numpy, PyTypeObject *type)
{
    for (int index = 0; index < DTYPE_COUNT; index++) {
        if (numpy->scalars[index] == (PyObject *)type) {
            return true;
        }
    }
    return strncmp(type->tp_name, "numpy.", strlen("numpy.")) == 0 &&
           (type->tp_flags & Py_TPFLAGS_HEAPTYPE) == 0 &&
           PyType_IsSubtype(type, (PyTypeObject *)numpy->generic);
}

int pls_put_numpy(pls_codec *codec, PyObject *object, pls_sink *sink)
{
    if (!numpy_present(codec)) {
        return PLS_PUT_FOREIGN;
    }
    if ((PyObject *)Py_TYPE(object) == codec->numpy->ndarray) {
        return put_array(codec, object, sink);
    }
    if (scalar_type_plain(codec->numpy, Py_TYPE(object))) {
        return put_scalar(codec, object, sink);
    }
    return PLS_PUT_FOREIGN;
}

/* numpy.ndarray(shape, dtype, buffer, offset, strides=None, order) */
static PyObject *array_make(pls_codec *codec, PyObject *shape, PyObject *dtype, PyObject *buffer,
                            size_t offset, char order)
{
    PyObject *offset_object = PyLong_FromSize_t(offset);
    PyObject *order_text = PyUnicode_FromStringAndSize(&order, 1);
    PyObject *array = NULL;
    if (offset_object != NULL && order_text != NULL) {
        PyObject *args[] = {shape, dtype, buffer, offset_object, Py_None, order_text};
        array = PyObject_Vectorcall(codec->numpy->ndarray, args, 6, NULL);
        if (array == NULL && !PyErr_ExceptionMatches(PyExc_MemoryError)) {
            PyErr_Clear();
            pls_codec_fail(codec, "an array's shape and dtype do not fit its bytes");
        }
    }
    Py_XDECREF(offset_object);
    Py_XDECREF(order_text);
    return array;
}

/* A new tuple; checks that `items_out` items is what the shape makes. */
static PyObject *take_shape(pls_codec *codec, pls_source *source, size_t dimensions,
                            size_t *items_out)
{
    const uint8_t *bytes = pls_source_take(source, 8 * dimensions);
    PyObject *shape = bytes != NULL ? PyTuple_New((Py_ssize_t)dimensions) : NULL;
    if (shape == NULL) {
        return NULL;
    }
    uint64_t items = 1;
    bool overflow = false;
    for (size_t dimension = 0; dimension < dimensions; dimension++) {
        uint64_t size = pls_load_le64(bytes + 8 * dimension);
        overflow |= size > PY_SSIZE_T_MAX || __builtin_mul_overflow(items, size, &items);
        PyObject *number = PyLong_FromUnsignedLongLong(size);
        if (number == NULL) {
            Py_DECREF(shape);
            return NULL;
        }
        PyTuple_SET_ITEM(shape, (Py_ssize_t)dimension, number);
    }
    if (overflow) {
        Py_DECREF(shape);
        pls_codec_fail(codec, "an array's shape is impossible");
        return NULL;
    }
    *items_out = (size_t)items;
    return shape;
}

static PyObject *array_over(pls_codec *codec, const pls_found_buffer *found, PyObject *shape,
                            PyObject *dtype, char order)
{
    if (found->object != NULL) {
        return array_make(codec, shape, dtype, found->object, found->offset, order);
    }
    PyObject *bytes = PyBytes_FromStringAndSize((const char *)found->bytes, (Py_ssize_t)found->len);
    if (bytes == NULL) {
        return NULL;
    }
    PyObject *array = array_make(codec, shape, dtype, bytes, 0, order);
    Py_DECREF(bytes);
    return array;
}

static PyObject *take_array(pls_codec *codec, pls_source *source, PyObject *dtype,
                            size_t item_bytes)
{
    const uint8_t *head = pls_source_take(source, 2);
    if (head == NULL) {
        return NULL;
    }
    char order = (char)pls_load_u8(head);
    size_t dimensions = pls_load_u8(head + 1);
    if ((order != 'C' && order != 'F') || dimensions > ARRAY_DIMENSIONS_MAX) {
        pls_codec_fail(codec, "an array's order or number of dimensions is impossible");
        return NULL;
    }
    size_t items;
    PyObject *shape = take_shape(codec, source, dimensions, &items);
    PyObject *array = NULL;
    pls_found_buffer found;
    if (shape == NULL || !pls_take_buffer(codec, source, &found)) {
        goto done;
    }
    size_t expected;
    if (__builtin_mul_overflow(items, item_bytes, &expected) || expected != found.len) {
        pls_codec_fail(codec, "an array's shape and dtype do not fit its %zu bytes", found.len);
        goto done;
    }
    array = array_over(codec, &found, shape, dtype, order);
done:
    Py_XDECREF(shape);
    return array;
}

/* The item of an array without dimensions. */
static PyObject *take_scalar(pls_codec *codec, pls_source *source, PyObject *dtype,
                             size_t item_bytes)
{
    pls_found_buffer found;
    if (!pls_take_buffer(codec, source, &found)) {
        return NULL;
    }
    if (found.len != item_bytes || item_bytes == 0) {
        pls_codec_fail(codec, "a numpy value has the wrong length");
        return NULL;
    }
    PyObject *none = PyTuple_New(0);
    PyObject *array = none != NULL ? array_over(codec, &found, none, dtype, 'C') : NULL;
    PyObject *scalar = array != NULL ? PyObject_GetItem(array, none) : NULL;
    if (array != NULL && scalar == NULL && !PyErr_ExceptionMatches(PyExc_MemoryError)) {
        PyErr_Clear();
        pls_codec_fail(codec, "a numpy value has impossible content");
    }
    Py_XDECREF(array);
    Py_XDECREF(none);
    return scalar;
}

PyObject *pls_take_numpy(pls_codec *codec, pls_source *source, int code)
{
    if (numpy_import(codec) != 0) {
        return NULL;
    }
    size_t item_bytes = 0;
    PyObject *dtype = take_dtype(codec, source, &item_bytes);
    if (dtype == NULL) {
        return NULL;
    }
    PyObject *value = code == PLS_EXT_NDARRAY ? take_array(codec, source, dtype, item_bytes)
                                              : take_scalar(codec, source, dtype, item_bytes);
    Py_DECREF(dtype);
    return value;
}
