/* SPDX-License-Identifier: Apache-2.0 */
/* The writing end of a stream. write() acts when it is called: the item is encoded into the
 * reader's ring, or into the queue when the reader has no room; what it returns is awaited to wait
 * for room. Invariant: items leave in order, the end leaves after them, and a writer that is
 * dropped without an end ends its stream with an error. */
#include "python/stream.h"

#include <string.h>

#define QUEUE_ITEMS_MAX 65536

static int send_bytes(core_writer *writer, PyObject *bytes)
{
    pulsing_send send;
    pulsing *p = writer->rt->p;
    size_t len = (size_t)PyBytes_GET_SIZE(bytes);
    if (pulsing_stream_begin(p, &writer->reader, false, PULSING_OK, &send) != PLS_OK) {
        writer->gone = true;
        return 0;
    }
    if (len <= send.capacity) {
        memcpy(send.at, PyBytes_AS_STRING(bytes), len);
        (void)pulsing_commit(p, &send, (uint32_t)len, NULL, false);
        writer->credit -= send.cost;
        return 0;
    }
    pulsing_room *room = NULL;
    uint8_t *base = NULL;
    pls_err err = pulsing_room_alloc(p, len, &room, &base);
    if (err != PLS_OK) {
        pulsing_abort(p, &send);
        return core_fail(writer->state, err, "a stream's item cannot be sent");
    }
    memcpy(base, PyBytes_AS_STRING(bytes), len);
    (void)pulsing_commit(p, &send, (uint32_t)len, room, true);
    writer->credit -= send.cost;
    return 0;
}

static void end_send(core_writer *writer)
{
    pulsing_send send;
    pulsing *p = writer->rt->p;
    writer->end_sent = true;
    if (p == NULL) {
        return;
    }
    pulsing_status status = writer->error != NULL ? PULSING_RAISED : PULSING_OK;
    if (pulsing_stream_begin(p, &writer->reader, true, status, &send) == PLS_OK) {
        if (writer->error == NULL) {
            (void)pulsing_commit(p, &send, 0, NULL, false);
        } else if (core_send_exception(writer->rt, &send, writer->error) < 0) {
            PyErr_WriteUnraisable(writer->error);
        }
    }
    pulsing_writer_remove(p, writer->writer_id);
    writer->writer_id = 0;
}

static void waiters_wake(core_writer *writer, Py_ssize_t count, PyObject *exception)
{
    while (count > 0 && PyList_GET_SIZE(writer->waiters) > 0) {
        PyObject *future = Py_NewRef(PyList_GET_ITEM(writer->waiters, 0));
        if (PyList_SetSlice(writer->waiters, 0, 1, NULL) < 0) {
            PyErr_Clear();
        }
        PyObject *none = exception != NULL
                             ? PyObject_CallMethod(future, "set_exception", "O", exception)
                             : PyObject_CallMethod(future, "set_result", "O", Py_None);
        if (none == NULL) {
            PyErr_Clear(); /* whoever waited was cancelled */
        }
        Py_XDECREF(none);
        Py_DECREF(future);
        count--;
    }
}

static void keep(core_writer *writer)
{
    if (!writer->kept) {
        writer->kept = true;
        Py_INCREF(writer);
    }
}

static void cell_forget(core_writer *writer)
{
    core_cell *cell = writer->cell;
    writer->cell = NULL;
    if (cell != NULL) {
        if (cell->writers != NULL && PySet_Discard(cell->writers, (PyObject *)writer) < 0) {
            PyErr_WriteUnraisable((PyObject *)writer);
        }
        Py_DECREF(cell);
    }
}

int core_writer_owned(core_writer *writer, core_cell *cell)
{
    if (cell->writers == NULL || writer->gone || writer->end_sent) {
        return 0;
    }
    writer->cell = (core_cell *)Py_NewRef((PyObject *)cell);
    return PySet_Add(cell->writers, (PyObject *)writer);
}

/* Whoever writes may wait for something else than room: he is told that nobody reads. */
static void gone_tell(core_writer *writer)
{
    PyObject *on_gone = writer->on_gone;
    writer->on_gone = NULL;
    if (on_gone != NULL && on_gone != Py_None) {
        PyObject *none = PyObject_CallNoArgs(on_gone);
        if (none == NULL) {
            PyErr_WriteUnraisable(on_gone);
        }
        Py_XDECREF(none);
    }
    Py_XDECREF(on_gone);
}

void core_streams_end(core_cell *cell, const char *text)
{
    PyObject *writers = cell->writers != NULL ? PySequence_List(cell->writers) : NULL;
    for (Py_ssize_t i = 0; writers != NULL && i < PyList_GET_SIZE(writers); i++) {
        core_writer *writer = (core_writer *)PyList_GET_ITEM(writers, i);
        PyObject *error = core_exception(writer->state, CORE_ACTOR_DIED,
                                         "the actor that wrote the stream is gone: %s", text);
        if (error == NULL || core_writer_end(writer, error) < 0) {
            PyErr_WriteUnraisable((PyObject *)writer);
        }
        Py_XDECREF(error);
        if (writer->pump != NULL && core_pump_room(writer) < 0) {
            PyErr_WriteUnraisable(writer->pump);
        }
        gone_tell(writer);
    }
    Py_XDECREF(writers);
    PyErr_Clear();
}

/* Lets the writer go when nothing is left to do; the last statement of whoever calls it. */
static void settle(core_writer *writer)
{
    bool over = writer->gone || writer->end_sent;
    if (over) {
        cell_forget(writer);
    }
    if (writer->gone && writer->writer_id != 0 && writer->rt->p != NULL) {
        pulsing_writer_remove(writer->rt->p, writer->writer_id);
        writer->writer_id = 0;
    }
    if (over && writer->kept) {
        writer->kept = false;
        Py_DECREF(writer);
    }
}

static int flush(core_writer *writer)
{
    Py_ssize_t sent = 0;
    Py_ssize_t count = PyList_GET_SIZE(writer->queue);
    while (sent < count && writer->credit > 0 && !writer->gone) {
        if (send_bytes(writer, PyList_GET_ITEM(writer->queue, sent)) < 0) {
            return -1;
        }
        sent++;
    }
    if (sent > 0 && PyList_SetSlice(writer->queue, 0, sent, NULL) < 0) {
        return -1;
    }
    waiters_wake(writer, sent, NULL);
    if (writer->ended && !writer->end_sent && !writer->gone &&
        PyList_GET_SIZE(writer->queue) == 0) {
        end_send(writer);
    }
    return 0;
}

static int queue_put(core_writer *writer, PyObject *item)
{
    if (PyList_GET_SIZE(writer->queue) >= QUEUE_ITEMS_MAX) {
        PyErr_Format(writer->state->errors[CORE_MAILBOX_FULL],
                     "%d items wait for this stream's reader: await each write()", QUEUE_ITEMS_MAX);
        return -1;
    }
    pls_sink sink;
    unsigned flags =
        writer->bound ? core_codec_flags(writer->rt, writer->reader.slot) : PLS_CODEC_ALLOW_PICKLE;
    pls_sink_init(&sink, NULL, 0, flags | PLS_CODEC_NO_BUFFERS, writer->rt);
    PyObject *bytes = NULL;
    if (pls_codec_encode(&writer->state->codec, item, &sink) == 0) {
        bytes =
            PyBytes_FromStringAndSize((const char *)sink.begin, (Py_ssize_t)pls_sink_len(&sink));
    }
    pls_sink_fini(&sink);
    int result = bytes != NULL ? PyList_Append(writer->queue, bytes) : -1;
    Py_XDECREF(bytes);
    keep(writer);
    return result;
}

int core_writer_put(core_writer *writer, PyObject *item)
{
    if (writer->gone || writer->ended) {
        PyErr_SetString(writer->state->errors[CORE_STREAM_CLOSED],
                        writer->ended ? "the stream has been closed by its writer"
                                      : "the stream's reader is gone");
        return -1;
    }
    if (writer->rt != NULL && core_check_use(writer->rt) < 0) {
        return -1;
    }
    if (writer->bound && writer->credit > 0 && PyList_GET_SIZE(writer->queue) == 0) {
        pulsing_send send;
        if (pulsing_stream_begin(writer->rt->p, &writer->reader, false, PULSING_OK, &send) !=
            PLS_OK) {
            writer->gone = true;
            return core_writer_put(writer, item);
        }
        if (core_send_object(writer->rt, &send, item) < 0) {
            return -1;
        }
        writer->credit -= send.cost;
        return 0;
    }
    if (queue_put(writer, item) < 0) {
        return -1;
    }
    return writer->bound || PyList_GET_SIZE(writer->queue) >= (Py_ssize_t)writer->capacity;
}

int core_writer_end(core_writer *writer, PyObject *error)
{
    if (writer->ended || writer->gone) {
        return 0;
    }
    writer->ended = true;
    writer->error = Py_XNewRef(error);
    keep(writer);
    int result = 0;
    if (writer->bound && writer->rt->p != NULL) {
        result = flush(writer);
    }
    settle(writer);
    return result;
}

int core_writer_register(core_writer *writer, core_runtime *rt)
{
    if (writer->rt == NULL) {
        writer->rt = (core_runtime *)Py_NewRef((PyObject *)rt);
    }
    if (writer->writer_id != 0 || writer->bound) {
        PyErr_SetString(writer->state->errors[CORE_STREAM_CLOSED],
                        "a stream has one reader: this one was sent already");
        return -1;
    }
    writer->writer_id = pulsing_writer_add(rt->p, writer, NULL);
    if (writer->writer_id == 0) {
        PyErr_NoMemory();
        return -1;
    }
    return 0;
}

int core_writer_bind(core_writer *writer, core_runtime *rt, const pulsing_origin *reader)
{
    writer->reader = *reader;
    writer->bound = true;
    writer->credit = writer->capacity;
    pulsing_writer_bind(rt->p, writer->writer_id, reader);
    Py_INCREF(writer);
    int result = flush(writer);
    settle(writer);
    Py_DECREF(writer);
    return result;
}

void core_on_stream_open(void *context, void *user, const pulsing_origin *reader)
{
    core_writer *writer = user;
    if (writer->bound || core_writer_bind(writer, context, reader) < 0) {
        PyErr_WriteUnraisable((PyObject *)writer);
    }
}

void core_on_stream_room(void *context, void *user, uint64_t items)
{
    core_writer *writer = user;
    (void)context;
    Py_INCREF(writer);
    if (items == 0) {
        writer->gone = true;
        PyObject *exception =
            core_exception(writer->state, CORE_STREAM_CLOSED, "the stream's reader is gone");
        waiters_wake(writer, PY_SSIZE_T_MAX, exception);
        Py_XDECREF(exception);
        gone_tell(writer);
    } else if (writer->bound) {
        writer->credit += (int64_t)(items < QUEUE_ITEMS_MAX ? items : QUEUE_ITEMS_MAX);
        if (flush(writer) < 0) {
            PyErr_WriteUnraisable((PyObject *)writer);
        }
    }
    if (writer->pump != NULL && core_pump_room(writer) < 0) {
        PyErr_WriteUnraisable(writer->pump);
    }
    settle(writer);
    Py_DECREF(writer);
}

static PyObject *future_new(core_writer *writer)
{
    if (writer->rt != NULL && writer->rt->create_future != NULL) {
        return PyObject_CallNoArgs(writer->rt->create_future);
    }
    PyObject *asyncio = PyImport_ImportModule("asyncio");
    PyObject *loop =
        asyncio != NULL ? PyObject_CallMethod(asyncio, "get_running_loop", NULL) : NULL;
    PyObject *future =
        loop != NULL
            ? PyObject_CallMethodNoArgs(loop, writer->state->names[CORE_NAME_CREATE_FUTURE])
            : NULL;
    Py_XDECREF(asyncio);
    Py_XDECREF(loop);
    return future;
}

static PyObject *writer_write(PyObject *self, PyObject *item)
{
    core_writer *writer = (core_writer *)self;
    int waits = core_writer_put(writer, item);
    if (waits < 0) {
        return NULL;
    }
    if (waits == 0) {
        return Py_NewRef(writer->state->done);
    }
    PyObject *future = future_new(writer);
    if (future != NULL && PyList_Append(writer->waiters, future) < 0) {
        Py_CLEAR(future);
    }
    return future;
}

static PyObject *writer_write_json(PyObject *self, PyObject *object)
{
    PyObject *compat = PyImport_ImportModule("pulsing._compat");
    PyObject *result =
        compat != NULL ? PyObject_CallMethod(compat, "write_json", "OO", self, object) : NULL;
    Py_XDECREF(compat);
    return result;
}

static PyObject *writer_close(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    core_writer *writer = (core_writer *)self;
    return core_writer_end(writer, NULL) < 0 ? NULL : Py_NewRef(writer->state->done);
}

static PyObject *writer_error(PyObject *self, PyObject *error)
{
    core_writer *writer = (core_writer *)self;
    PyObject *exception = NULL;
    if (PyExceptionInstance_Check(error)) {
        exception = Py_NewRef(error);
    } else {
        exception = core_exception(writer->state, CORE_ACTOR_ERROR, "%S", error);
    }
    int result = exception != NULL ? core_writer_end(writer, exception) : -1;
    Py_XDECREF(exception);
    return result < 0 ? NULL : Py_NewRef(writer->state->done);
}

static PyObject *writer_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    unsigned capacity = 0;
    (void)kwargs;
    if (!PyArg_ParseTuple(args, "I", &capacity)) {
        return NULL;
    }
    core_writer *writer = (core_writer *)type->tp_alloc(type, 0);
    if (writer == NULL) {
        return NULL;
    }
    writer->state = core_state_of_type(type);
    writer->capacity = capacity;
    writer->queue = PyList_New(0);
    writer->waiters = PyList_New(0);
    if (writer->queue == NULL || writer->waiters == NULL) {
        Py_DECREF(writer);
        return NULL;
    }
    return (PyObject *)writer;
}

static int writer_traverse(PyObject *self, visitproc visit, void *arg)
{
    core_writer *writer = (core_writer *)self;
    Py_VISIT(Py_TYPE(self));
    Py_VISIT((PyObject *)writer->rt);
    Py_VISIT(writer->waiters);
    Py_VISIT(writer->error);
    Py_VISIT(writer->pump);
    Py_VISIT(writer->on_gone);
    Py_VISIT((PyObject *)writer->cell);
    return 0;
}

static int writer_clear(PyObject *self)
{
    core_writer *writer = (core_writer *)self;
    Py_CLEAR(writer->error);
    Py_CLEAR(writer->pump);
    Py_CLEAR(writer->on_gone);
    Py_CLEAR(writer->cell);
    return 0;
}

static void writer_dealloc(PyObject *self)
{
    core_writer *writer = (core_writer *)self;
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    bool usable = writer->rt != NULL && writer->rt->p != NULL && !pulsing_forked(writer->rt->p);
    if (usable && writer->writer_id != 0) {
        if (writer->bound && !writer->gone && !writer->end_sent) {
            PyObject *exception = core_exception(writer->state, CORE_STREAM_CLOSED,
                                                 "its writer was dropped without close()");
            Py_XSETREF(writer->error, exception);
            end_send(writer);
        } else {
            pulsing_writer_remove(writer->rt->p, writer->writer_id);
        }
    }
    writer_clear(self);
    Py_XDECREF(writer->queue);
    Py_XDECREF(writer->waiters);
    Py_XDECREF(writer->rt);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyMethodDef writer_methods[] = {
    {"write", writer_write, METH_O,
     "write(obj): send an item; await it to wait while the reader is behind. Raises StreamClosed "
     "when the reader is gone."},
    {"write_json", writer_write_json, METH_O, "write_json(obj): the reader gets the JSON bytes."},
    {"close", writer_close, METH_NOARGS, "close(): no more items."},
    {"error", writer_error, METH_O, "error(exception or text): end the stream with an error."},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef writer_members[] = {
    {"on_gone", T_OBJECT, offsetof(core_writer, on_gone), 0,
     "Called once when the reader, or the writing actor, is gone."},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot writer_slots[] = {
    {Py_tp_new, writer_new},
    {Py_tp_dealloc, writer_dealloc},
    {Py_tp_traverse, writer_traverse},
    {Py_tp_clear, writer_clear},
    {Py_tp_methods, writer_methods},
    {Py_tp_members, writer_members},
    {Py_tp_doc, "The writing end of a stream."},
    {0, NULL},
};

PyType_Spec core_writer_spec = {
    .name = "pulsing._core.StreamWriter",
    .basicsize = sizeof(core_writer),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = writer_slots,
};
