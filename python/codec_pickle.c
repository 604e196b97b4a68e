/* SPDX-License-Identifier: Apache-2.0 */
/* Objects that only their own code can take apart and rebuild: the slow path, through
 * pulsing._pickling, with large buffers kept out of the pickle. Special types inside of pickled
 * objects (an actor ref in a dataclass) come back to the codec through a small callable that is
 * valid during that one call; and so do exceptions, whose parts travel as values so that builtin
 * ones need no pickle. */

#include "python/codec_internal.h"

#define BRIDGE_NAME "pulsing.codec.bridge"

/* A special object whose content is pickled, with special objects in that pickle, and so on: each
 * of these levels can take PLS_CODEC_DEPTH_MAX levels of the C stack, and an object that holds
 * itself would go on. */
#define NESTING_MAX 4

/* What a callable given to Python knows. Python may keep the callable; `codec` is NULL once the
 * call is over. */
typedef struct bridge {
    pls_codec *codec;
    void *context;
    unsigned flags;
    unsigned nesting;
} bridge;

static void bridge_free(PyObject *capsule)
{
    PyMem_Free(PyCapsule_GetPointer(capsule, BRIDGE_NAME));
}

static PyObject *bridge_dump(PyObject *capsule, PyObject *object);
static PyObject *bridge_load(PyObject *capsule, PyObject *bytes);

static PyMethodDef BRIDGE_DUMP = {"dump", bridge_dump, METH_O, NULL};
static PyMethodDef BRIDGE_LOAD = {"load", bridge_load, METH_O, NULL};

/* A callable over a new capsule; gives both. */
static PyObject *bridge_make(bridge content, PyMethodDef *method, PyObject **capsule_out)
{
    bridge *made = PyMem_Malloc(sizeof *made);
    if (made == NULL) {
        return PyErr_NoMemory();
    }
    *made = content;
    PyObject *capsule = PyCapsule_New(made, BRIDGE_NAME, bridge_free);
    if (capsule == NULL) {
        PyMem_Free(made);
        return NULL;
    }
    PyObject *callable = PyCFunction_New(method, capsule);
    if (callable == NULL) {
        Py_DECREF(capsule);
        return NULL;
    }
    *capsule_out = capsule;
    return callable;
}

static void bridge_close(PyObject *capsule, PyObject *callable)
{
    bridge *open = PyCapsule_GetPointer(capsule, BRIDGE_NAME);
    open->codec = NULL;
    Py_DECREF(callable);
    Py_DECREF(capsule);
}

static bridge *bridge_open(PyObject *capsule)
{
    bridge *open = PyCapsule_GetPointer(capsule, BRIDGE_NAME);
    if (open != NULL && open->codec == NULL) {
        PyErr_SetString(PyExc_RuntimeError, "used after the message was done");
        return NULL;
    }
    if (open != NULL && open->nesting >= NESTING_MAX) {
        PyErr_SetString(PyExc_RecursionError, "messages inside of messages are nested too deeply");
        return NULL;
    }
    return open;
}

static PyObject *bridge_dump(PyObject *capsule, PyObject *object)
{
    const bridge *open = bridge_open(capsule);
    if (open == NULL) {
        return NULL;
    }
    pls_sink sink;
    pls_sink_init(&sink, NULL, 0, open->flags | PLS_CODEC_NO_BUFFERS, open->context);
    sink.nesting = open->nesting + 1;
    PyObject *bytes = NULL;
    if (pls_codec_encode(open->codec, object, &sink) == 0) {
        bytes =
            PyBytes_FromStringAndSize((const char *)sink.begin, (Py_ssize_t)pls_sink_len(&sink));
    }
    pls_sink_fini(&sink);
    return bytes;
}

static PyObject *bridge_load(PyObject *capsule, PyObject *bytes)
{
    const bridge *open = bridge_open(capsule);
    if (open == NULL || !PyBytes_Check(bytes)) {
        if (open != NULL) {
            PyErr_SetString(PyExc_TypeError, "bytes are expected");
        }
        return NULL;
    }
    pls_source source = pls_source_over(PyBytes_AS_STRING(bytes), (size_t)PyBytes_GET_SIZE(bytes),
                                        open->flags, open->context);
    source.nesting = open->nesting + 1;
    return pls_codec_decode(open->codec, &source);
}

static int function_import(const char *module_name, const char *name, PyObject **place)
{
    PyObject *module = PyImport_ImportModule(module_name);
    PyObject *function = module != NULL ? PyObject_GetAttrString(module, name) : NULL;
    Py_XDECREF(module);
    if (function == NULL) {
        return -1;
    }
    Py_XSETREF(*place, function);
    return 0;
}

static int pickling_import(pls_codec *codec)
{
    if (codec->dumps != NULL) {
        return 0;
    }
    return function_import("pulsing._pickling", "loads", &codec->loads) == 0
               ? function_import("pulsing._pickling", "dumps", &codec->dumps)
               : -1;
}

static int exceptions_import(pls_codec *codec)
{
    if (codec->exception_pack != NULL) {
        return 0;
    }
    return function_import("pulsing._exceptions", "unpack_exception", &codec->exception_unpack) == 0
               ? function_import("pulsing._exceptions", "pack_exception", &codec->exception_pack)
               : -1;
}

/* The tuple of special types, for the pickler to watch for. */
static PyObject *special_types(const pls_codec *codec)
{
    PyObject *types = PyTuple_New((Py_ssize_t)codec->special_count);
    for (unsigned index = 0; types != NULL && index < codec->special_count; index++) {
        PyObject *type = (PyObject *)codec->specials[index].type;
        Py_INCREF(type);
        PyTuple_SET_ITEM(types, (Py_ssize_t)index, type);
    }
    return types;
}

/* dumps(object, allow_pickle, buffers, special types, callable for them): bytes. */
static PyObject *pickle_make(pls_codec *codec, PyObject *object, const pls_sink *sink,
                             PyObject *buffers)
{
    PyObject *types = special_types(codec);
    PyObject *capsule = NULL;
    bridge content = {codec, sink->context, sink->flags, sink->nesting};
    PyObject *dump = types != NULL ? bridge_make(content, &BRIDGE_DUMP, &capsule) : NULL;
    PyObject *pickle = NULL;
    if (dump != NULL) {
        PyObject *allowed = (sink->flags & PLS_CODEC_ALLOW_PICKLE) != 0 ? Py_True : Py_False;
        PyObject *args[] = {object, allowed, buffers, types, dump};
        pickle = PyObject_Vectorcall(codec->dumps, args, 5, NULL);
        bridge_close(capsule, dump);
    }
    Py_XDECREF(types);
    if (pickle != NULL && !PyBytes_CheckExact(pickle)) {
        PyErr_SetString(PyExc_TypeError, "a pickle is not bytes");
        Py_CLEAR(pickle);
    }
    return pickle;
}

static int put_pickle_parts(PyObject *pickle, PyObject *buffers, pls_sink *sink)
{
    Py_ssize_t count = PyList_GET_SIZE(buffers);
    int rc =
        pls_put_buffer(sink, pickle, PyBytes_AS_STRING(pickle), (size_t)PyBytes_GET_SIZE(pickle));
    if (rc == 0) {
        rc = pls_put_uint(sink, (uint64_t)count);
    }
    for (Py_ssize_t index = 0; rc == 0 && index < count; index++) {
        Py_buffer view;
        rc = PyObject_GetBuffer(PyList_GET_ITEM(buffers, index), &view, PyBUF_ANY_CONTIGUOUS);
        if (rc == 0) {
            rc = pls_put_buffer_view(sink, &view);
        }
    }
    return rc;
}

int pls_put_pickle(pls_codec *codec, PyObject *object, pls_sink *sink)
{
    size_t mark;
    int rc = pls_ext_begin(sink, PLS_EXT_PICKLE, &mark);
    if (rc != 0) {
        return rc;
    }
    PyObject *buffers = pickling_import(codec) == 0 ? PyList_New(0) : NULL;
    PyObject *pickle = buffers != NULL ? pickle_make(codec, object, sink, buffers) : NULL;
    rc = pickle != NULL ? put_pickle_parts(pickle, buffers, sink) : -1;
    Py_XDECREF(pickle);
    Py_XDECREF(buffers);
    return rc != 0 ? rc : pls_ext_end(sink, mark);
}

static PyObject *take_buffers(pls_codec *codec, pls_source *source)
{
    uint64_t count;
    if (!pls_take_uint(codec, source, &count)) {
        return NULL;
    }
    PyObject *buffers = PyList_New(0);
    for (uint64_t index = 0; buffers != NULL && index < count; index++) {
        pls_found_buffer found;
        PyObject *view =
            pls_take_buffer(codec, source, &found) ? pls_found_buffer_view(&found) : NULL;
        bool failed = view == NULL || PyList_Append(buffers, view) != 0;
        Py_XDECREF(view);
        if (failed) {
            Py_DECREF(buffers);
            return NULL;
        }
    }
    return buffers;
}

PyObject *pls_take_pickle(pls_codec *codec, pls_source *source)
{
    if ((source->flags & PLS_CODEC_ALLOW_PICKLE) == 0) {
        pls_codec_fail(codec, "a pickled object arrived from a node without the cluster key; "
                              "give both nodes the same key");
        return NULL;
    }
    pls_found_buffer found;
    if (pickling_import(codec) != 0 || !pls_take_buffer(codec, source, &found)) {
        return NULL;
    }
    PyObject *pickle = pls_found_buffer_view(&found);
    PyObject *buffers = pickle != NULL ? take_buffers(codec, source) : NULL;
    PyObject *capsule = NULL;
    bridge content = {codec, source->context, source->flags, source->nesting};
    PyObject *load = buffers != NULL ? bridge_make(content, &BRIDGE_LOAD, &capsule) : NULL;
    PyObject *object = NULL;
    if (load != NULL) {
        PyObject *args[] = {pickle, buffers, load};
        object = PyObject_Vectorcall(codec->loads, args, 3, NULL);
        bridge_close(capsule, load);
    }
    Py_XDECREF(buffers);
    Py_XDECREF(pickle);
    return object;
}

int pls_codec_encode_exception(pls_codec *codec, PyObject *exception, pls_sink *sink)
{
    if (exceptions_import(codec) != 0) {
        return -1;
    }
    PyObject *packed = PyObject_CallOneArg(codec->exception_pack, exception);
    if (packed == NULL || !PyTuple_Check(packed) || PyTuple_GET_SIZE(packed) != 2) {
        Py_XDECREF(packed);
        return -1;
    }
    /* First what always can travel, then what may turn out not to. */
    sink->codec = codec;
    int rc = pls_codec_put(codec, PyTuple_GET_ITEM(packed, 0), sink);
    if (rc == 0) {
        size_t begin = pls_sink_len(sink);
        uint32_t keep = sink->buffer_count;
        size_t buffers_bytes = sink->buffers_bytes;
        rc = pls_codec_put(codec, PyTuple_GET_ITEM(packed, 1), sink);
        if (rc != 0 && PyErr_ExceptionMatches(PyExc_Exception)) {
            PyErr_Clear();
            sink->at = sink->begin + begin;
            sink->depth = 0;
            pls_sink_drop_buffers(sink, keep, buffers_bytes);
            rc = pls_codec_put(codec, Py_None, sink);
        }
    }
    Py_DECREF(packed);
    return rc;
}

PyObject *pls_codec_decode_exception(pls_codec *codec, pls_source *source)
{
    if (exceptions_import(codec) != 0) {
        return NULL;
    }
    source->codec = codec;
    PyObject *text = pls_take_value(codec, source);
    if (text == NULL) {
        return NULL;
    }
    PyObject *parts = pls_take_value(codec, source);
    if (parts == NULL) {
        /* A class that cannot be imported here, for one: the text still tells what happened. */
        if (!PyErr_ExceptionMatches(PyExc_Exception)) {
            Py_DECREF(text);
            return NULL;
        }
        PyErr_Clear();
        Py_INCREF(Py_None);
        parts = Py_None;
    }
    PyObject *args[] = {text, parts};
    PyObject *exception = PyObject_Vectorcall(codec->exception_unpack, args, 2, NULL);
    Py_DECREF(text);
    Py_DECREF(parts);
    if (exception != NULL && !PyExceptionInstance_Check(exception)) {
        Py_CLEAR(exception);
        pls_codec_fail(codec, "the bytes are not an exception");
    }
    return exception;
}
