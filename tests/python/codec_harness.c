/* SPDX-License-Identifier: Apache-2.0 */
/* A test-only extension that owns one codec and nothing else: messages to bytes and back without a
 * node, timings of the bare codec, and a seeded mutator for sanitizer builds. Streams and regions
 * are copied to heap memory of exactly their size before they are read, so that a sanitizer sees
 * every byte too many. */

#include "python/codec.h"

#include "base/rng.h"

#include <time.h>

#define SPECIAL_CODE PLS_CODEC_SPECIAL_FIRST
#define RING_BYTES 4096

typedef struct harness {
    pls_codec codec;
    PyTypeObject *block_type;
} harness;

static harness *harness_of(PyObject *module)
{
    return PyModule_GetState(module);
}

/* Block: read-only memory that counts how many of its kind are alive. */

typedef struct block {
    PyObject_HEAD uint8_t *bytes;
    size_t len;
} block;

static int block_getbuffer(PyObject *self, Py_buffer *view, int flags)
{
    block *own = (block *)self;
    return PyBuffer_FillInfo(view, self, own->bytes, (Py_ssize_t)own->len, 1, flags);
}

static void block_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    free(((block *)self)->bytes);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyType_Slot block_slots[] = {
    {Py_tp_dealloc, block_dealloc},
    {Py_bf_getbuffer, block_getbuffer},
    {0, NULL},
};

static PyType_Spec block_spec = {"codec_harness.Block", sizeof(block), 0, Py_TPFLAGS_DEFAULT,
                                 block_slots};

/* `extra` bytes in front of the region, to see that offsets are honoured. */
static block *block_new(harness *own, const void *bytes, size_t len, size_t extra)
{
    block *made = (block *)own->block_type->tp_alloc(own->block_type, 0);
    if (made == NULL) {
        return NULL;
    }
    made->len = len + extra;
    if (posix_memalign((void **)&made->bytes, PLS_CODEC_BUFFER_ALIGN, len + extra) != 0) {
        Py_DECREF(made);
        return (block *)PyErr_NoMemory();
    }
    memset(made->bytes, 0xee, extra);
    memcpy(made->bytes + extra, bytes, len);
    return made;
}

/* Special types: an object whose only content is its attribute `state`. */

static int special_encode(pls_codec *codec, PyObject *object, pls_sink *sink)
{
    PyObject *state = PyObject_GetAttrString(object, "state");
    if (state == NULL) {
        return -1;
    }
    uint64_t mark = (uintptr_t)sink->context;
    int rc = pls_sink_put(sink, &mark, sizeof mark);
    rc = rc != 0 ? rc : pls_codec_put(codec, state, sink);
    Py_DECREF(state);
    return rc;
}

static PyObject *special_decode(pls_codec *codec, pls_source *source)
{
    uint64_t mark;
    const uint8_t *bytes = pls_source_take(source, sizeof mark);
    if (bytes == NULL) {
        return NULL;
    }
    memcpy(&mark, bytes, sizeof mark);
    PyObject *state = pls_codec_take(codec, source);
    if (state == NULL) {
        return NULL;
    }
    PyObject *made = PyObject_CallFunction((PyObject *)codec->specials[0].type, "NKK", state, mark,
                                           (unsigned long long)(uintptr_t)source->context);
    return made;
}

static PyObject *register_special(PyObject *module, PyObject *type)
{
    if (pls_codec_register(&harness_of(module)->codec, (PyTypeObject *)type, SPECIAL_CODE,
                           special_encode, special_decode) != 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

#define SEND_CONTEXT ((void *)(uintptr_t)11)
#define RECEIVE_CONTEXT ((void *)(uintptr_t)22)

/* (stream, region) */
static PyObject *sink_result(pls_sink *sink)
{
    PyObject *stream =
        PyBytes_FromStringAndSize((const char *)sink->begin, (Py_ssize_t)pls_sink_len(sink));
    PyObject *region = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)sink->buffers_bytes);
    if (stream != NULL && region != NULL) {
        pls_sink_copy_buffers(sink, (uint8_t *)PyBytes_AS_STRING(region));
    }
    pls_sink_fini(sink);
    if (region == NULL || stream == NULL) {
        Py_XDECREF(stream);
        Py_XDECREF(region);
        return NULL;
    }
    return Py_BuildValue("NN", stream, region);
}

static PyObject *encode(PyObject *module, PyObject *args)
{
    PyObject *object;
    unsigned flags = PLS_CODEC_ALLOW_PICKLE;
    Py_ssize_t start = RING_BYTES;
    if (!PyArg_ParseTuple(args, "O|In", &object, &flags, &start)) {
        return NULL;
    }
    uint8_t ring[RING_BYTES];
    pls_sink sink;
    pls_sink_init(&sink, ring, (size_t)start, flags, SEND_CONTEXT);
    if (pls_codec_encode(&harness_of(module)->codec, object, &sink) != 0) {
        pls_sink_fini(&sink);
        return NULL;
    }
    return sink_result(&sink);
}

static PyObject *encode_call(PyObject *module, PyObject *const *args, Py_ssize_t count,
                             PyObject *kwnames)
{
    uint8_t ring[RING_BYTES];
    pls_sink sink;
    pls_sink_init(&sink, ring, sizeof ring, PLS_CODEC_ALLOW_PICKLE, SEND_CONTEXT);
    if (pls_codec_encode_call(&harness_of(module)->codec, args, (size_t)count, kwnames, &sink) !=
        0) {
        pls_sink_fini(&sink);
        return NULL;
    }
    return sink_result(&sink);
}

static PyObject *encode_exception(PyObject *module, PyObject *args)
{
    PyObject *exception;
    unsigned flags = PLS_CODEC_ALLOW_PICKLE;
    if (!PyArg_ParseTuple(args, "O|I", &exception, &flags)) {
        return NULL;
    }
    pls_sink sink;
    pls_sink_init(&sink, NULL, 0, flags, SEND_CONTEXT);
    if (pls_codec_encode_exception(&harness_of(module)->codec, exception, &sink) != 0) {
        pls_sink_fini(&sink);
        return NULL;
    }
    return sink_result(&sink);
}

/* What is read: exact copies, and the block that views will keep. */
typedef struct reading {
    uint8_t *stream;
    block *region;
    pls_source source;
} reading;

static int reading_open(harness *own, reading *open, Py_buffer *stream, Py_buffer *region,
                        unsigned flags, int with_block)
{
    const size_t extra = with_block ? 2 * PLS_CODEC_BUFFER_ALIGN : 0;
    open->stream = malloc((size_t)stream->len);
    open->region = block_new(own, region->buf, (size_t)region->len, extra);
    if (open->stream == NULL || open->region == NULL) {
        free(open->stream);
        Py_XDECREF(open->region);
        PyErr_NoMemory();
        return -1;
    }
    memcpy(open->stream, stream->buf, (size_t)stream->len);
    open->source = pls_source_over(open->stream, (size_t)stream->len, flags, RECEIVE_CONTEXT);
    if (region->len > 0) {
        pls_source_attach_region(&open->source, open->region->bytes + extra, (size_t)region->len,
                                 with_block ? (PyObject *)open->region : NULL, extra);
    }
    return 0;
}

static void reading_close(reading *open)
{
    free(open->stream);
    Py_DECREF(open->region);
}

typedef PyObject *(*read_function)(harness *own, pls_source *source);

static PyObject *read_value(harness *own, pls_source *source)
{
    return pls_codec_decode(&own->codec, source);
}

static PyObject *read_exception(harness *own, pls_source *source)
{
    return pls_codec_decode_exception(&own->codec, source);
}

/* (args, kwargs) */
static PyObject *read_call(harness *own, pls_source *source)
{
    pls_call call;
    if (pls_codec_decode_call(&own->codec, source, &call) != 0) {
        return NULL;
    }
    PyObject *args = PyTuple_New((Py_ssize_t)call.arg_count);
    PyObject *kwargs = PyDict_New();
    for (size_t index = 0; args != NULL && index < call.arg_count; index++) {
        Py_INCREF(call.stack[1 + index]);
        PyTuple_SET_ITEM(args, (Py_ssize_t)index, call.stack[1 + index]);
    }
    for (size_t index = 0; kwargs != NULL && index < call.kw_count; index++) {
        PyObject *name = PyTuple_GET_ITEM(call.kwnames, (Py_ssize_t)index);
        if (PyDict_SetItem(kwargs, name, call.stack[1 + call.arg_count + index]) != 0) {
            Py_CLEAR(kwargs);
        }
    }
    pls_call_clear(&call);
    return args != NULL && kwargs != NULL ? Py_BuildValue("NN", args, kwargs) : NULL;
}

static PyObject *read_bytes(PyObject *module, PyObject *args, read_function function)
{
    Py_buffer stream, region;
    unsigned flags = PLS_CODEC_ALLOW_PICKLE;
    int with_block = 1;
    if (!PyArg_ParseTuple(args, "y*y*|Ip", &stream, &region, &flags, &with_block)) {
        return NULL;
    }
    harness *own = harness_of(module);
    reading open;
    PyObject *result = NULL;
    if (reading_open(own, &open, &stream, &region, flags, with_block) == 0) {
        result = function(own, &open.source);
        reading_close(&open);
    }
    PyBuffer_Release(&stream);
    PyBuffer_Release(&region);
    return result;
}

static PyObject *decode(PyObject *module, PyObject *args)
{
    return read_bytes(module, args, read_value);
}

static PyObject *decode_call(PyObject *module, PyObject *args)
{
    return read_bytes(module, args, read_call);
}

static PyObject *decode_exception(PyObject *module, PyObject *args)
{
    return read_bytes(module, args, read_exception);
}

static size_t mutate(pls_rng *rng, uint8_t *bytes, size_t len)
{
    static const uint8_t heads[] = {0x80, 0x8f, 0x90, 0x9f, 0xa0, 0xbf, 0xc1, 0xc4, 0xc6, 0xc7,
                                    0xc9, 0xd4, 0xd8, 0xdb, 0xdc, 0xdd, 0xde, 0xdf, 0xff, 0x00};
    uint32_t changes = 1 + pls_rng_below(rng, 4);
    for (uint32_t change = 0; change < changes && len > 0; change++) {
        size_t at = pls_rng_below(rng, (uint32_t)len);
        switch (pls_rng_below(rng, 5)) {
        case 0:
            bytes[at] ^= (uint8_t)(1u << pls_rng_below(rng, 8));
            break;
        case 1:
            bytes[at] = (uint8_t)pls_rng_next(rng);
            break;
        case 2:
            bytes[at] = heads[pls_rng_below(rng, sizeof heads)];
            break;
        case 3:
            bytes[at] = (uint8_t)pls_rng_below(rng, 32);
            break;
        default:
            len = at;
            break;
        }
    }
    return len;
}

/* fuzz(corpus, seed, rounds, flags): how many mutants were refused. `corpus` is a list of (stream,
 * region). Any exception but CodecError, MemoryError aside, is handed to the caller. */
static PyObject *fuzz(PyObject *module, PyObject *args)
{
    PyObject *corpus;
    unsigned long long seed;
    unsigned rounds, flags;
    if (!PyArg_ParseTuple(args, "O!KII", &PyList_Type, &corpus, &seed, &rounds, &flags)) {
        return NULL;
    }
    harness *own = harness_of(module);
    const read_function functions[] = {read_value, read_call, read_exception};
    pls_rng rng;
    pls_rng_init(&rng, seed);
    unsigned refused = 0;
    for (unsigned round = 0; round < rounds; round++) {
        PyObject *pair = PyList_GetItem(
            corpus, (Py_ssize_t)pls_rng_below(&rng, (uint32_t)PyList_GET_SIZE(corpus)));
        Py_buffer stream, region;
        if (pair == NULL || !PyArg_ParseTuple(pair, "y*y*", &stream, &region)) {
            return NULL;
        }
        reading open;
        int rc = reading_open(own, &open, &stream, &region, flags, (int)pls_rng_below(&rng, 2));
        PyBuffer_Release(&stream);
        PyBuffer_Release(&region);
        if (rc != 0) {
            return NULL;
        }
        size_t len = mutate(&rng, open.stream, (size_t)(open.source.end - open.source.at));
        uint8_t *exact = malloc(len);
        if (len > 0) {
            memcpy(exact, open.stream, len);
        }
        open.source.at = exact;
        open.source.end = exact + len;
        PyObject *value = functions[pls_rng_below(&rng, 3)](own, &open.source);
        Py_XDECREF(value);
        free(exact);
        reading_close(&open);
        if (value == NULL) {
            if (!PyErr_ExceptionMatches(PyExc_MemoryError) &&
                (own->codec.error == NULL || !PyErr_ExceptionMatches(own->codec.error))) {
                return NULL;
            }
            PyErr_Clear();
            refused++;
        }
    }
    return PyLong_FromUnsignedLong(refused);
}

static double now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec * 1e9 + (double)now.tv_nsec;
}

static PyObject *time_encode(PyObject *module, PyObject *args)
{
    PyObject *object;
    unsigned rounds;
    if (!PyArg_ParseTuple(args, "OI", &object, &rounds)) {
        return NULL;
    }
    uint8_t ring[RING_BYTES];
    PyObject *const call_args[] = {object};
    double begin = now_ns();
    for (unsigned round = 0; round < rounds; round++) {
        pls_sink sink;
        pls_sink_init(&sink, ring, sizeof ring, PLS_CODEC_ALLOW_PICKLE, NULL);
        int rc = pls_codec_encode_call(&harness_of(module)->codec, call_args, 1, NULL, &sink);
        pls_sink_fini(&sink);
        if (rc != 0) {
            return NULL;
        }
    }
    return PyFloat_FromDouble((now_ns() - begin) / rounds);
}

static PyObject *time_decode(PyObject *module, PyObject *args)
{
    Py_buffer stream, region;
    unsigned rounds;
    if (!PyArg_ParseTuple(args, "y*y*I", &stream, &region, &rounds)) {
        return NULL;
    }
    harness *own = harness_of(module);
    block *memory = block_new(own, region.buf, (size_t)region.len, 0);
    if (memory == NULL) {
        return NULL;
    }
    int rc = 0;
    double begin = now_ns();
    for (unsigned round = 0; rc == 0 && round < rounds; round++) {
        pls_source source =
            pls_source_over(stream.buf, (size_t)stream.len, PLS_CODEC_ALLOW_PICKLE, NULL);
        if (region.len > 0) {
            pls_source_attach_region(&source, memory->bytes, memory->len, (PyObject *)memory, 0);
        }
        pls_call call;
        rc = pls_codec_decode_call(&own->codec, &source, &call);
        if (rc == 0) {
            pls_call_clear(&call);
        }
    }
    double each = (now_ns() - begin) / rounds;
    Py_DECREF(memory);
    PyBuffer_Release(&stream);
    PyBuffer_Release(&region);
    return rc == 0 ? PyFloat_FromDouble(each) : NULL;
}

static PyMethodDef methods[] = {
    {"register_special", register_special, METH_O, NULL},
    {"encode", encode, METH_VARARGS, NULL},
    {"decode", decode, METH_VARARGS, NULL},
    {"encode_call", (PyCFunction)(void (*)(void))encode_call, METH_FASTCALL | METH_KEYWORDS, NULL},
    {"decode_call", decode_call, METH_VARARGS, NULL},
    {"encode_exception", encode_exception, METH_VARARGS, NULL},
    {"decode_exception", decode_exception, METH_VARARGS, NULL},
    {"fuzz", fuzz, METH_VARARGS, NULL},
    {"time_encode", time_encode, METH_VARARGS, NULL},
    {"time_decode", time_decode, METH_VARARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static int module_exec(PyObject *module)
{
    harness *own = harness_of(module);
    if (pls_codec_init(&own->codec) != 0) {
        return -1;
    }
    own->block_type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &block_spec, NULL);
    return own->block_type == NULL
               ? -1
               : PyModule_AddObjectRef(module, "Block", (PyObject *)own->block_type);
}

static int module_traverse(PyObject *module, visitproc visit, void *arg)
{
    harness *own = harness_of(module);
    Py_VISIT(own->block_type);
    return pls_codec_traverse(&own->codec, visit, arg);
}

static int module_clear(PyObject *module)
{
    harness *own = harness_of(module);
    Py_CLEAR(own->block_type);
    pls_codec_clear(&own->codec);
    return 0;
}

static void module_free(void *module)
{
    module_clear(module);
    pls_codec_fini(&harness_of(module)->codec);
}

static PyModuleDef_Slot module_slots[] = {
    {Py_mod_exec, module_exec},
    {0, NULL},
};

static struct PyModuleDef module_def = {
    PyModuleDef_HEAD_INIT, "codec_harness", NULL,         sizeof(harness), methods,
    module_slots,          module_traverse, module_clear, module_free,
};

PyMODINIT_FUNC PyInit_codec_harness(void);

PyMODINIT_FUNC PyInit_codec_harness(void)
{
    return PyModuleDef_Init(&module_def);
}
