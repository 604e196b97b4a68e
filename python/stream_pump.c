/* SPDX-License-Identifier: Apache-2.0 */
/* Streams as handlers make them: a plain generator is driven from the loop, as far as the reader
 * has room and a bounded number of items a turn, so that other messages run between items; an async
 * generator is driven by a task (pulsing._streams); a StreamMessage brings its own writer. Also how
 * streams and messages travel. */
#include "python/stream.h"

#include <string.h>

#define PUMP_ITEMS_MAX 64      /* a turn */
#define GENERATOR_CAPACITY 128 /* items that a generator may be ahead of its reader */
#define CODE_MESSAGE (PLS_CODEC_SPECIAL_FIRST + 1)
#define CODE_STREAM (PLS_CODEC_SPECIAL_FIRST + 2)

typedef struct core_pump {
    PyObject_HEAD vectorcallfunc vectorcall;
    core_runtime *rt;
    core_cell *cell;
    PyObject *generator;
    core_writer *writer;
    PyObject *context; /* in which the generator runs: that of the call */
    bool scheduled;
    bool over;
} core_pump;

static int pump_schedule(core_pump *pump)
{
    if (pump->scheduled || pump->over) {
        return 0;
    }
    PyObject *handle = PyObject_CallOneArg(pump->rt->call_soon, (PyObject *)pump);
    if (handle == NULL) {
        return -1;
    }
    pump->scheduled = true;
    Py_DECREF(handle);
    return 0;
}

int core_pump_room(core_writer *writer)
{
    return pump_schedule((core_pump *)writer->pump);
}

static void pump_end(core_pump *pump, PyObject *error)
{
    pump->over = true;
    if (core_writer_end(pump->writer, error) < 0) {
        PyErr_WriteUnraisable((PyObject *)pump);
    }
    Py_CLEAR(pump->writer->pump);
}

/* The reader is gone: the generator's `finally` blocks run. */
static void pump_close(core_pump *pump)
{
    PyObject *none = PyObject_CallMethod(pump->generator, "close", NULL);
    if (none == NULL) {
        PyErr_WriteUnraisable(pump->generator);
    }
    Py_XDECREF(none);
    pump_end(pump, NULL);
}

/* One item on. False when there is nothing more to do now. */
static bool pump_step(core_pump *pump)
{
    if (pump->writer->gone || pump->writer->ended) {
        pump_close(pump);
        return false;
    }
    if (pump->writer->credit <= 0) {
        return false; /* core_on_stream_room() goes on */
    }
    PyObject *item = PyIter_Next(pump->generator);
    int put = item != NULL ? core_writer_put(pump->writer, item) : -1;
    Py_XDECREF(item);
    if (put >= 0) {
        return true;
    }
    PyObject *error = PyErr_Occurred() ? core_exception_taken() : NULL;
    if (item != NULL && pump->writer->gone) {
        pump_close(pump);
    } else {
        pump_end(pump, error);
    }
    Py_XDECREF(error);
    return false;
}

static PyObject *pump_turn(PyObject *self, PyObject *const *Py_UNUSED(args),
                           size_t Py_UNUSED(count), PyObject *Py_UNUSED(kwnames))
{
    core_pump *pump = (core_pump *)self;
    pump->scheduled = false;
    if (pump->rt->p == NULL || pump->over) {
        Py_RETURN_NONE;
    }
    if (PyContext_Enter(pump->context) < 0) {
        return NULL;
    }
    core_frame frame = {.cell = pump->cell};
    core_frame *before = pump->rt->frame;
    int left = PUMP_ITEMS_MAX;
    Py_INCREF(pump);
    pump->rt->frame = &frame;
    while (left > 0 && pump_step(pump)) {
        left--;
    }
    pump->rt->frame = before;
    int scheduled = PyContext_Exit(pump->context);
    if (scheduled == 0 && left == 0) {
        scheduled = pump_schedule(pump);
    }
    Py_DECREF(pump);
    if (scheduled < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

int core_pump_start(core_runtime *rt, const core_frame *frame, PyObject *generator,
                    core_writer *writer)
{
    PyObject *context = PyContext_CopyCurrent();
    core_pump *pump = context != NULL ? PyObject_GC_New(core_pump, rt->state->pump_type) : NULL;
    if (pump == NULL) {
        Py_XDECREF(context);
        return -1;
    }
    pump->vectorcall = pump_turn;
    pump->rt = (core_runtime *)Py_NewRef((PyObject *)rt);
    pump->cell = (core_cell *)Py_NewRef((PyObject *)frame->cell);
    pump->generator = Py_NewRef(generator);
    pump->writer = (core_writer *)Py_NewRef((PyObject *)writer);
    pump->context = context;
    pump->scheduled = false;
    pump->over = false;
    PyObject_GC_Track(pump);
    Py_XSETREF(writer->pump, Py_NewRef((PyObject *)pump));
    int result = pump_schedule(pump);
    Py_DECREF(pump);
    return result;
}

bool core_is_stream(core_state *state, PyObject *result)
{
    return PyGen_CheckExact(result) || PyAsyncGen_CheckExact(result) ||
           Py_TYPE(result) == (PyTypeObject *)state->stream_message_class;
}

static int announce(core_runtime *rt, const core_frame *frame, core_writer *writer,
                    PyObject *msg_type)
{
    pulsing_send send;
    Py_ssize_t type_bytes = 0;
    const char *type = PyUnicode_AsUTF8AndSize(msg_type, &type_bytes);
    if (type == NULL || core_writer_register(writer, rt) < 0) {
        return -1;
    }
    if (type_bytes > 1024) {
        PyErr_SetString(PyExc_ValueError, "a stream's type has at most 1024 bytes");
        return -1;
    }
    if (pulsing_reply_begin(rt->p, &frame->origin, PULSING_STREAM, &send) != PLS_OK) {
        writer->gone = true;
        return 0;
    }
    memcpy(send.at, &writer->writer_id, 8);
    memcpy(send.at + 8, &writer->capacity, 4);
    memcpy(send.at + 12, type, (size_t)type_bytes);
    (void)pulsing_commit(rt->p, &send, (uint32_t)(12 + type_bytes), NULL, false);
    if (core_writer_owned(writer, frame->cell) < 0) {
        return -1;
    }
    return core_writer_bind(writer, rt, &frame->origin);
}

static int generator_answer(core_runtime *rt, const core_frame *frame, PyObject *generator)
{
    PyObject *empty = PyUnicode_FromString("");
    core_writer *writer = (core_writer *)PyObject_CallFunction((PyObject *)rt->state->writer_type,
                                                               "i", GENERATOR_CAPACITY);
    int result = -1;
    if (writer != NULL && empty != NULL && announce(rt, frame, writer, empty) == 0) {
        if (PyGen_CheckExact(generator)) {
            result = core_pump_start(rt, frame, generator, writer);
        } else {
            PyObject *streams = PyImport_ImportModule("pulsing._streams");
            PyObject *coroutine =
                streams != NULL ? PyObject_CallMethod(streams, "pump", "OO", generator, writer)
                                : NULL;
            PyObject *task = coroutine != NULL
                                 ? PyObject_CallMethod(streams, "keep", "OO", rt->loop, coroutine)
                                 : NULL;
            result = task != NULL ? 0 : -1;
            Py_XDECREF(task);
            Py_XDECREF(coroutine);
            Py_XDECREF(streams);
        }
    }
    Py_XDECREF(empty);
    Py_XDECREF(writer);
    return result;
}

int core_stream_answer(core_runtime *rt, const core_frame *frame, PyObject *result)
{
    core_state *state = rt->state;
    bool message = Py_TYPE(result) == (PyTypeObject *)state->stream_message_class;
    if (frame->origin.call_id == 0) {
        return 0; /* a tell: nobody reads, the generator is dropped unstarted */
    }
    if (!message) {
        return generator_answer(rt, frame, result);
    }
    PyObject *end = PyObject_GetAttr(result, state->names[CORE_NAME_END]);
    PyObject *type = PyObject_GetAttr(result, state->names[CORE_NAME_MSG_TYPE]);
    int answered = -1;
    if (end != NULL && type != NULL) {
        if (Py_TYPE(end) == state->writer_type) {
            answered = announce(rt, frame, (core_writer *)end, type);
        } else {
            PyErr_SetString(state->errors[CORE_CODEC_ERROR],
                            "a received stream cannot be passed on: read it and yield its items");
        }
    }
    Py_XDECREF(end);
    Py_XDECREF(type);
    return answered;
}

PyObject *core_stream_received(core_runtime *rt, core_call *call, const pulsing_message *message)
{
    (void)call;
    uint32_t capacity = 0;
    if (message->payload_bytes < 12) {
        PyErr_SetString(rt->state->errors[CORE_CODEC_ERROR],
                        "a stream's announcement is malformed");
        return NULL;
    }
    memcpy(&capacity, message->payload + 8, 4);
    core_reader *reader = core_reader_new(rt, capacity);
    PyObject *type = PyUnicode_DecodeUTF8((const char *)message->payload + 12,
                                          (Py_ssize_t)message->payload_bytes - 12, "replace");
    PyObject *result = NULL;
    if (reader != NULL && type != NULL) {
        reader->call_id = message->origin.call_id;
        reader->slot = message->origin.slot;
        reader->epoch = message->origin.epoch;
        memcpy(&reader->writer_id, message->payload, 8);
        pulsing_call_user_set(rt->p, reader->call_id, reader);
        result = PyObject_CallFunctionObjArgs(rt->state->stream_message_class, type,
                                              (PyObject *)reader, NULL);
    }
    Py_XDECREF(type);
    Py_XDECREF(reader);
    return result;
}

typedef struct stream_wire {
    pulsing_far_writer writer;
    uint32_t capacity;
    uint32_t unused;
} stream_wire;

/* A StreamMessage inside of a message: where its writer is; the reader subscribes on arrival. */
static int stream_encode(pls_codec *codec, PyObject *object, pls_sink *sink)
{
    core_runtime *rt = sink->context;
    if (rt == NULL || rt->p == NULL) {
        PyErr_SetString(PyExc_TypeError, "a stream cannot be sent inside of a stream's item");
        return -1;
    }
    core_state *state = rt->state;
    PyObject *end = PyObject_GetAttr(object, state->names[CORE_NAME_END]);
    PyObject *type = PyObject_GetAttr(object, state->names[CORE_NAME_MSG_TYPE]);
    int result = -1;
    if (end != NULL && type != NULL && Py_TYPE(end) != state->writer_type) {
        PyErr_SetString(state->errors[CORE_CODEC_ERROR],
                        "a received stream cannot be passed on: read it and write its items");
    } else if (end != NULL && type != NULL && core_writer_register((core_writer *)end, rt) == 0) {
        core_writer *writer = (core_writer *)end;
        stream_wire wire = {{.writer_id = writer->writer_id,
                             .slot = pulsing_slot(rt->p),
                             .epoch = pulsing_epoch(rt->p)},
                            writer->capacity,
                            0};
        memcpy(wire.writer.node_id, PyBytes_AS_STRING(rt->node_id), sizeof wire.writer.node_id);
        result = pls_sink_put(sink, &wire, sizeof wire) < 0 ? -1 : pls_codec_put(codec, type, sink);
    }
    Py_XDECREF(end);
    Py_XDECREF(type);
    return result;
}

static PyObject *stream_decode(pls_codec *codec, pls_source *source)
{
    core_runtime *rt = source->context;
    stream_wire wire;
    const uint8_t *bytes = pls_source_take(source, sizeof wire);
    if (bytes == NULL) {
        return NULL;
    }
    memcpy(&wire, bytes, sizeof wire);
    PyObject *type = pls_codec_take(codec, source);
    core_reader *reader = type != NULL ? core_reader_new(rt, wire.capacity) : NULL;
    PyObject *result = NULL;
    if (reader != NULL && wire.writer.slot < PLS_SLOTS_MAX) {
        bool near = memcmp(wire.writer.node_id, PyBytes_AS_STRING(rt->node_id),
                           sizeof wire.writer.node_id) == 0;
        pls_err err = pulsing_stream_far_subscribe(rt->p, &wire.writer, reader, &reader->call_id);
        reader->slot = (uint16_t)(near ? wire.writer.slot : PULSING_FAR_SLOT);
        reader->epoch = near ? wire.writer.epoch : 1;
        /* The gateway knows a stream that is read here by its reader. */
        reader->writer_id = near ? wire.writer.writer_id : reader->call_id;
        if (err == PLS_OK) {
            result = PyObject_CallFunctionObjArgs(rt->state->stream_message_class, type,
                                                  (PyObject *)reader, NULL);
        } else {
            core_fail(rt->state, err, "the stream's writer cannot be reached");
        }
    }
    Py_XDECREF(type);
    Py_XDECREF(reader);
    return result;
}

static int message_encode(pls_codec *codec, PyObject *object, pls_sink *sink)
{
    static const char *const fields[] = {"_msg_type", "_payload", "_stream"};
    for (int i = 0; i < 3; i++) {
        PyObject *value = PyObject_GetAttrString(object, fields[i]);
        int put = value != NULL ? pls_codec_put(codec, value, sink) : -1;
        Py_XDECREF(value);
        if (put < 0) {
            return -1;
        }
    }
    return 0;
}

static PyObject *message_decode(pls_codec *codec, pls_source *source)
{
    core_runtime *rt = source->context;
    PyObject *values[3] = {NULL, NULL, NULL};
    PyObject *result = NULL;
    int count = 0;
    while (count < 3 && (values[count] = pls_codec_take(codec, source)) != NULL) {
        count++;
    }
    if (count == 3) {
        result = PyObject_Vectorcall(rt->state->message_restore, values, 3, NULL);
    }
    for (int i = 0; i < count; i++) {
        Py_DECREF(values[i]);
    }
    return result;
}

int core_streams_register(core_state *state)
{
    if (pls_codec_register(&state->codec, (PyTypeObject *)state->message_class, CODE_MESSAGE,
                           message_encode, message_decode) < 0) {
        return -1;
    }
    return pls_codec_register(&state->codec, (PyTypeObject *)state->stream_message_class,
                              CODE_STREAM, stream_encode, stream_decode);
}

static int pump_traverse(PyObject *self, visitproc visit, void *arg)
{
    core_pump *pump = (core_pump *)self;
    Py_VISIT(Py_TYPE(self));
    Py_VISIT((PyObject *)pump->rt);
    Py_VISIT((PyObject *)pump->cell);
    Py_VISIT(pump->generator);
    Py_VISIT(pump->context);
    Py_VISIT((PyObject *)pump->writer);
    return 0;
}

static int pump_clear(PyObject *self)
{
    Py_CLEAR(((core_pump *)self)->generator);
    return 0;
}

static void pump_dealloc(PyObject *self)
{
    core_pump *pump = (core_pump *)self;
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    Py_XDECREF(pump->generator);
    Py_DECREF(pump->writer);
    Py_DECREF(pump->context);
    Py_DECREF(pump->cell);
    Py_DECREF(pump->rt);
    PyObject_GC_Del(self);
    Py_DECREF(type);
}

static PyMemberDef pump_members[] = {
    {"__vectorcalloffset__", T_PYSSIZET, offsetof(core_pump, vectorcall), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot pump_slots[] = {
    {Py_tp_dealloc, pump_dealloc},
    {Py_tp_traverse, pump_traverse},
    {Py_tp_clear, pump_clear},
    {Py_tp_call, PyVectorcall_Call},
    {Py_tp_members, pump_members},
    {Py_tp_doc, "Drives a generator into a stream."},
    {0, NULL},
};

PyType_Spec core_pump_spec = {
    .name = "pulsing._core.Pump",
    .basicsize = sizeof(core_pump),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_HAVE_VECTORCALL |
             Py_TPFLAGS_IMMUTABLETYPE | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = pump_slots,
};
