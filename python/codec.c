/* SPDX-License-Identifier: Apache-2.0 */
/* The codec's state and its entries: a whole object, a call's arguments, one value. What the
 * entries add to the values of codec_encode.c and codec_decode.c is the fallback to one pickle, the
 * text that leads to a value that cannot be sent, and the form of a call. */

#include "python/codec.h"
#include "python/codec_internal.h"

#include "base/assert.h"

static const char *const STRING_TEXTS[] = {
    "to_bytes", "from_bytes", "bit_length", "tobytes", "cast", "dtype", "str",    "itemsize",
    "kind",     "little",     "signed",     "start",   "stop", "step",  "append", "raw"};
_Static_assert(sizeof STRING_TEXTS / sizeof *STRING_TEXTS == PLS_STRING_COUNT, "one text each");
_Static_assert(PLS_STRING_COUNT <= sizeof((pls_codec *)0)->strings / sizeof(PyObject *),
               "the state has room for every string");

int pls_codec_init(pls_codec *codec)
{
    memset(codec, 0, sizeof *codec);
    for (int index = 0; index < PLS_STRING_COUNT; index++) {
        codec->strings[index] = PyUnicode_InternFromString(STRING_TEXTS[index]);
        if (codec->strings[index] == NULL) {
            pls_codec_fini(codec);
            return -1;
        }
    }
    return 0;
}

int pls_codec_traverse(pls_codec *codec, visitproc visit, void *arg)
{
    for (unsigned index = 0; index < codec->special_count; index++) {
        Py_VISIT(codec->specials[index].type);
    }
    Py_VISIT(codec->error);
    Py_VISIT(codec->dumps);
    Py_VISIT(codec->loads);
    Py_VISIT(codec->exception_pack);
    Py_VISIT(codec->exception_unpack);
    return pls_codec_numpy_traverse(codec, visit, arg);
}

void pls_codec_clear(pls_codec *codec)
{
    while (codec->special_count > 0) {
        codec->special_count--;
        Py_CLEAR(codec->specials[codec->special_count].type);
    }
    Py_CLEAR(codec->error);
    Py_CLEAR(codec->dumps);
    Py_CLEAR(codec->loads);
    Py_CLEAR(codec->exception_pack);
    Py_CLEAR(codec->exception_unpack);
    pls_codec_numpy_clear(codec);
}

void pls_codec_fini(pls_codec *codec)
{
    pls_codec_clear(codec);
    pls_codec_names_clear(codec);
    codec->datetime = NULL;
    for (int index = 0; index < PLS_STRING_COUNT; index++) {
        Py_CLEAR(codec->strings[index]);
    }
}

int pls_codec_register(pls_codec *codec, PyTypeObject *type, int code, pls_special_encode encode,
                       pls_special_decode decode)
{
    pls_assert(code >= PLS_CODEC_SPECIAL_FIRST && code <= PLS_CODEC_SPECIAL_LAST);
    for (unsigned index = 0; index < codec->special_count; index++) {
        if (codec->specials[index].code == code || codec->specials[index].type == type) {
            PyErr_SetString(PyExc_ValueError, "this extension code or type is registered");
            return -1;
        }
    }
    if (codec->special_count == PLS_CODEC_SPECIALS_MAX) {
        PyErr_SetString(PyExc_ValueError, "too many special types");
        return -1;
    }
    Py_INCREF(type);
    codec->specials[codec->special_count++] = (pls_special){type, encode, decode, code};
    return 0;
}

PyObject *pls_take_special(pls_codec *codec, pls_source *source, int code)
{
    for (unsigned index = 0; index < codec->special_count; index++) {
        if (codec->specials[index].code == code) {
            return codec->specials[index].decode(codec, source);
        }
    }
    pls_codec_fail(codec, "extension code %d is unknown", code);
    return NULL;
}

PyObject *pls_module_loaded(const char *name, const char *attribute)
{
    PyObject *module = PyDict_GetItemString(PyImport_GetModuleDict(), name);
    if (module == NULL) {
        return NULL;
    }
    Py_INCREF(module);
    PyObject *value = PyObject_GetAttrString(module, attribute);
    Py_DECREF(module);
    if (value == NULL) {
        PyErr_Clear();
    }
    return value;
}

int pls_codec_fail(pls_codec *codec, const char *format, ...)
{
    if (codec->error == NULL) {
        PyObject *module = PyImport_ImportModule("pulsing._errors");
        PyObject *error = module != NULL ? PyObject_GetAttrString(module, "CodecError") : NULL;
        Py_XDECREF(module);
        if (error == NULL) {
            return -1;
        }
        Py_XSETREF(codec->error, error);
    }
    va_list arguments;
    va_start(arguments, format);
    PyErr_FormatV(codec->error, format, arguments);
    va_end(arguments);
    return -1;
}

/* Puts the path in front of a CodecError's text. */
static void path_apply(pls_codec *codec, pls_sink *sink)
{
    if (sink->path_at == PLS_SINK_PATH_BYTES || codec->error == NULL ||
        !PyErr_ExceptionMatches(codec->error)) {
        return;
    }
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    PyErr_NormalizeException(&type, &value, &traceback);
    PyObject *path = PyUnicode_DecodeUTF8(sink->path + sink->path_at,
                                          PLS_SINK_PATH_BYTES - sink->path_at, "replace");
    PyObject *text = path != NULL ? PyUnicode_FromFormat("%U: %S", path, value) : NULL;
    PyObject *args = text != NULL ? PyTuple_Pack(1, text) : NULL;
    if (args == NULL || PyObject_SetAttrString(value, "args", args) != 0) {
        PyErr_Clear();
    }
    Py_XDECREF(args);
    Py_XDECREF(text);
    Py_XDECREF(path);
    sink->path_at = PLS_SINK_PATH_BYTES;
    PyErr_Restore(type, value, traceback);
}

/* Where a put began, to come back to. */
typedef struct sink_place {
    size_t len;
    size_t buffers_bytes;
    uint32_t buffer_count;
    unsigned depth;
} sink_place;

static sink_place place_of(const pls_sink *sink)
{
    return (sink_place){pls_sink_len(sink), sink->buffers_bytes, sink->buffer_count, sink->depth};
}

static void place_return(pls_sink *sink, sink_place place)
{
    sink->at = sink->begin + place.len;
    sink->depth = place.depth;
    pls_sink_drop_buffers(sink, place.buffer_count, place.buffers_bytes);
}

/* The whole object as one pickle, in place of what was written of it. */
static int put_whole(pls_codec *codec, PyObject *object, pls_sink *sink, sink_place place)
{
    place_return(sink, place);
    if ((sink->flags & PLS_CODEC_ALLOW_PICKLE) == 0) {
        return pls_codec_fail(codec,
                              "a value that is nested deeper than %d, or that contains itself, "
                              "cannot be sent without a cluster key",
                              PLS_CODEC_DEPTH_MAX);
    }
    sink->container_count = 0;
    int rc = pls_put_pickle(codec, object, sink);
    if (rc == PLS_PUT_FALLBACK) {
        return pls_codec_fail(codec, "values are nested deeper than %d", PLS_CODEC_DEPTH_MAX);
    }
    return rc;
}

int pls_codec_put(pls_codec *codec, PyObject *object, pls_sink *sink)
{
    sink_place place = place_of(sink);
    int rc = pls_put_value(codec, object, sink);
    return rc == PLS_PUT_FALLBACK ? put_whole(codec, object, sink, place) : rc;
}

int pls_codec_encode(pls_codec *codec, PyObject *object, pls_sink *sink)
{
    sink->codec = codec;
    int rc = pls_codec_put(codec, object, sink);
    if (rc != 0) {
        path_apply(codec, sink);
    }
    return rc;
}

PyObject *pls_codec_take(pls_codec *codec, pls_source *source)
{
    return pls_take_value(codec, source);
}

PyObject *pls_codec_decode(pls_codec *codec, pls_source *source)
{
    source->codec = codec;
    PyObject *object = pls_take_value(codec, source);
    if (object != NULL && source->at != source->end) {
        Py_DECREF(object);
        pls_codec_fail(codec, "%zu bytes follow the value", (size_t)(source->end - source->at));
        return NULL;
    }
    return object;
}

/* uint byte length of the names, which is not known yet, and the names. */
static int put_names(pls_codec *codec, PyObject *kwnames, pls_sink *sink)
{
    if (pls_sink_room(sink, 1 + sizeof(uint32_t)) != 0) {
        return -1;
    }
    pls_store_u8(sink, PLS_PACK_UINT32);
    pls_store_be32(sink, 0);
    size_t begin = pls_sink_len(sink);
    for (Py_ssize_t index = 0; index < PyTuple_GET_SIZE(kwnames); index++) {
        PyObject *name = PyTuple_GET_ITEM(kwnames, index);
        Py_ssize_t len = 0;
        const char *utf8 = PyUnicode_AsUTF8AndSize(name, &len);
        if (utf8 == NULL || len > PLS_CODEC_INLINE_BYTES_MAX) {
            PyErr_Clear();
            return pls_codec_fail(codec,
                                  "the name of a keyword argument cannot be sent: it is "
                                  "longer than %d bytes or not Unicode text",
                                  PLS_CODEC_INLINE_BYTES_MAX);
        }
        if (pls_put_str(sink, utf8, (size_t)len) != 0) {
            return -1;
        }
    }
    uint32_t swapped = __builtin_bswap32((uint32_t)(pls_sink_len(sink) - begin));
    memcpy(sink->begin + begin - sizeof swapped, &swapped, sizeof swapped);
    return 0;
}

static void path_argument(pls_sink *sink, size_t index, size_t arg_count, PyObject *kwnames)
{
    char text[64];
    if (index < arg_count) {
        PyOS_snprintf(text, sizeof text, "argument %zu", index + 1);
    } else {
        PyObject *type, *value, *traceback;
        PyErr_Fetch(&type, &value, &traceback);
        const char *name =
            PyUnicode_AsUTF8(PyTuple_GET_ITEM(kwnames, (Py_ssize_t)(index - arg_count)));
        PyOS_snprintf(text, sizeof text, "argument '%.40s'", name != NULL ? name : "?");
        PyErr_Clear();
        PyErr_Restore(type, value, traceback);
    }
    pls_sink_path_text(sink, text);
}

int pls_codec_encode_call(pls_codec *codec, PyObject *const *args, size_t arg_count,
                          PyObject *kwnames, pls_sink *sink)
{
    sink->codec = codec;
    size_t kw_count = kwnames != NULL ? (size_t)PyTuple_GET_SIZE(kwnames) : 0;
    if (pls_put_uint(sink, arg_count) != 0 || pls_put_uint(sink, kw_count) != 0 ||
        (kw_count > 0 && put_names(codec, kwnames, sink) != 0)) {
        return -1;
    }
    for (size_t index = 0; index < arg_count + kw_count; index++) {
        if (pls_codec_put(codec, args[index], sink) != 0) {
            path_argument(sink, index, arg_count, kwnames);
            path_apply(codec, sink);
            return -1;
        }
    }
    return 0;
}

/* Counts and names, and a stack that fits. */
static int call_begin(pls_codec *codec, pls_source *source, pls_call *call)
{
    uint64_t arg_count, kw_count;
    if (!pls_take_uint(codec, source, &arg_count) || !pls_take_uint(codec, source, &kw_count)) {
        return -1;
    }
    if (arg_count > UINT32_MAX || kw_count > UINT32_MAX) {
        return pls_codec_fail(codec, "a call claims an impossible number of arguments");
    }
    if (kw_count > 0) {
        uint64_t len;
        const uint8_t *names =
            pls_take_uint(codec, source, &len) ? pls_source_take(source, (size_t)len) : NULL;
        if (names != NULL && kw_count > len) {
            return pls_codec_fail(codec, "a call claims more keywords than it names");
        }
        call->kwnames = names != NULL ? pls_name_tuple(codec, names, len, kw_count) : NULL;
        if (call->kwnames == NULL) {
            return -1;
        }
    }
    if (!pls_source_owe(codec, source, arg_count + kw_count)) {
        return -1;
    }
    if (1 + arg_count + kw_count > PLS_CALL_LOCAL) {
        call->stack = PyMem_Malloc((1 + arg_count + kw_count) * sizeof(void *));
        if (call->stack == NULL) {
            call->stack = call->local;
            PyErr_NoMemory();
            return -1;
        }
    }
    call->arg_count = arg_count;
    call->kw_count = kw_count;
    return 0;
}

int pls_codec_decode_call(pls_codec *codec, pls_source *source, pls_call *call)
{
    source->codec = codec;
    call->stack = call->local;
    call->arg_count = 0;
    call->kw_count = 0;
    call->kwnames = NULL;
    size_t done = 0;
    if (call_begin(codec, source, call) != 0) {
        goto fail;
    }
    call->stack[0] = NULL;
    size_t count = call->arg_count + call->kw_count;
    for (; done < count; done++) {
        source->owed--;
        call->stack[1 + done] = pls_take_value(codec, source);
        if (call->stack[1 + done] == NULL) {
            goto fail;
        }
    }
    if (source->at != source->end) {
        pls_codec_fail(codec, "%zu bytes follow the arguments", (size_t)(source->end - source->at));
        goto fail;
    }
    return 0;
fail:
    call->arg_count = done;
    call->kw_count = 0;
    pls_call_clear(call);
    return -1;
}

void pls_call_clear(pls_call *call)
{
    size_t count = call->arg_count + call->kw_count;
    for (size_t index = 0; index < count; index++) {
        Py_DECREF(call->stack[1 + index]);
    }
    Py_CLEAR(call->kwnames);
    if (call->stack != call->local) {
        PyMem_Free(call->stack);
        call->stack = call->local;
    }
    call->arg_count = 0;
    call->kw_count = 0;
}
