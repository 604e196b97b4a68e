/* SPDX-License-Identifier: Apache-2.0 */
/* The reading end of a stream: an async iterator (in the blocking form a plain one). Items are
 * decoded when they arrive; the writer's credit bounds how many wait. Dropping the reader tells the
 * writer. The reader is its own awaitable, so an item that is there costs no allocation. */
#include "python/stream.h"

core_reader *core_reader_new(core_runtime *rt, uint32_t capacity)
{
    PyTypeObject *type = rt->state->reader_type;
    core_reader *reader = (core_reader *)type->tp_alloc(type, 0);
    if (reader == NULL) {
        return NULL;
    }
    reader->rt = (core_runtime *)Py_NewRef((PyObject *)rt);
    reader->capacity = capacity > 0 ? capacity : 1;
    return reader;
}

static int items_grow(core_reader *reader)
{
    uint32_t size = reader->items_size == 0 ? 16 : reader->items_size * 2;
    PyObject **items = PyMem_Calloc(size, sizeof(void *));
    uint16_t *costs = PyMem_Malloc(size * sizeof *costs);
    if (items == NULL || costs == NULL) {
        PyMem_Free(items);
        PyMem_Free(costs);
        PyErr_NoMemory();
        return -1;
    }
    for (uint32_t i = 0; i < reader->items_count; i++) {
        uint32_t at = (reader->items_first + i) % reader->items_size;
        items[i] = reader->items[at];
        costs[i] = reader->costs[at];
    }
    PyMem_Free(reader->items);
    PyMem_Free(reader->costs);
    reader->items = items;
    reader->costs = costs;
    reader->items_size = size;
    reader->items_first = 0;
    return 0;
}

static int items_push(core_reader *reader, PyObject *item, uint16_t cost)
{
    if (reader->items_count == reader->items_size && items_grow(reader) < 0) {
        return -1;
    }
    uint32_t at = (reader->items_first + reader->items_count) % reader->items_size;
    reader->items[at] = Py_NewRef(item);
    reader->costs[at] = cost;
    reader->items_count++;
    return 0;
}

static PyObject *items_pop(core_reader *reader)
{
    PyObject *item = reader->items[reader->items_first];
    reader->taken += reader->costs[reader->items_first];
    reader->items_first = (reader->items_first + 1) % reader->items_size;
    reader->items_count--;
    if (reader->taken * 2 >= reader->capacity && reader->call_id != 0 && reader->rt->p != NULL) {
        (void)!pulsing_stream_signal(reader->rt->p, reader->slot, reader->epoch, reader->writer_id,
                                     reader->taken, false);
        reader->taken = 0;
    }
    return item;
}

static void reader_wake(core_reader *reader)
{
    if (reader->future != NULL) {
        PyObject *none = PyObject_CallMethodOneArg(
            reader->future, reader->rt->state->names[CORE_NAME_SET_RESULT], Py_None);
        if (none == NULL) {
            PyErr_Clear(); /* whoever waited was cancelled */
        }
        Py_XDECREF(none);
        Py_CLEAR(reader->future);
    }
    if (reader->waiter != NULL) {
        core_call_finish(reader->waiter, Py_NewRef(Py_None), NULL);
    }
}

static void reader_stop(core_reader *reader)
{
    uint64_t call_id = reader->call_id;
    reader->call_id = 0;
    if (call_id != 0 && reader->rt->p != NULL && !pulsing_forked(reader->rt->p)) {
        pulsing_call_cancel(reader->rt->p, call_id);
    }
}

void core_on_stream_item(void *context, void *user, const pulsing_message *message)
{
    core_runtime *rt = context;
    if (Py_TYPE((PyObject *)user) != rt->state->reader_type) {
        return;
    }
    core_reader *reader = user;
    pls_source source;
    PyObject *block = NULL;
    PyObject *item = NULL;
    Py_INCREF(reader);
    if (core_source(rt, message, &source, &block) == 0) {
        item = pls_codec_decode(&rt->state->codec, &source);
    }
    Py_XDECREF(block);
    if (item == NULL || items_push(reader, item, message->origin.credit) < 0) {
        reader->end = core_exception_taken();
        reader_stop(reader);
    }
    Py_XDECREF(item);
    reader_wake(reader);
    Py_DECREF(reader);
}

void core_reader_reply(core_runtime *rt, void *user, const pulsing_message *message)
{
    core_reader *reader = user;
    Py_INCREF(reader);
    reader->call_id = 0;
    if (reader->end == NULL) {
        reader->end = message->status == PULSING_OK ? Py_NewRef(Py_None)
                                                    : core_reply_exception(rt, message, NULL, NULL);
        if (reader->end == NULL) {
            reader->end = core_exception_taken();
        }
    }
    reader_wake(reader);
    Py_DECREF(reader);
}

/* The stream behind a call that is iterated directly, once the call has its result. */
static int opening_take(core_reader *reader, PyObject *result)
{
    core_state *state = reader->rt->state;
    PyObject *end = NULL;
    if (Py_TYPE(result) == (PyTypeObject *)state->stream_message_class) {
        end = PyObject_GetAttr(result, state->names[CORE_NAME_END]);
    }
    if (end != NULL && Py_TYPE(end) == state->reader_type) {
        reader->inner = (core_reader *)end;
        Py_CLEAR(reader->opening);
        return 0;
    }
    Py_XDECREF(end);
    if (!PyErr_Occurred()) {
        PyErr_Format(PyExc_TypeError,
                     "the method returned %s, not a stream: await the call instead of iterating it",
                     Py_TYPE(result)->tp_name);
    }
    return -1;
}

static PySendResult ended(core_reader *reader, PyObject *stop_type)
{
    if (reader->end == Py_None) {
        PyErr_SetNone(stop_type);
    } else {
        PyErr_SetObject((PyObject *)Py_TYPE(reader->end), reader->end);
    }
    return PYGEN_ERROR;
}

static PySendResult reader_suspend(core_reader *reader, PyObject **out)
{
    core_runtime *rt = reader->rt;
    PyObject *future = PyObject_CallNoArgs(rt->create_future);
    if (future == NULL) {
        return PYGEN_ERROR;
    }
    if (PyObject_SetAttr(future, rt->state->names[CORE_NAME_BLOCKING], Py_True) < 0) {
        Py_DECREF(future);
        return PYGEN_ERROR;
    }
    Py_XSETREF(reader->future, future);
    *out = Py_NewRef(future);
    return PYGEN_NEXT;
}

static PySendResult reader_send(PyObject *self, PyObject *Py_UNUSED(value), PyObject **out)
{
    core_reader *reader = (core_reader *)self;
    *out = NULL;
    if (reader->opening != NULL) {
        PySendResult sent = PyIter_Send(reader->opening, Py_None, out);
        if (sent != PYGEN_RETURN) {
            return sent;
        }
        int taken = opening_take(reader, *out);
        Py_CLEAR(*out);
        if (taken < 0) {
            return PYGEN_ERROR;
        }
    }
    if (reader->inner != NULL) {
        reader = reader->inner;
    }
    if (core_loop_turn_due(reader->rt)) {
        *out = Py_NewRef(Py_None);
        return PYGEN_NEXT;
    }
    if (reader->items_count == 0 && reader->end == NULL && reader->rt->ready != NULL &&
        reader->rt->p != NULL) {
        core_look(reader->rt);
    }
    if (reader->items_count > 0) {
        *out = items_pop(reader);
        return PYGEN_RETURN;
    }
    if (reader->end != NULL) {
        return ended(reader, PyExc_StopAsyncIteration);
    }
    return reader_suspend(reader, out);
}

/* The blocking form: waits for the next item; NULL without an exception at the end. */
static PyObject *reader_next_blocking(core_reader *reader)
{
    core_runtime *rt = reader->rt;
    while (reader->items_count == 0 && reader->end == NULL) {
        if (core_check_use(rt) < 0) {
            return NULL;
        }
        reader->waiter = core_call_new(rt, NULL, NULL);
        if (reader->waiter == NULL) {
            return NULL;
        }
        PyObject *none = core_call_wait(reader->waiter);
        Py_CLEAR(reader->waiter);
        if (none == NULL) {
            return NULL;
        }
        Py_DECREF(none);
    }
    if (reader->items_count > 0) {
        return items_pop(reader);
    }
    if (reader->end != Py_None) {
        PyErr_SetObject((PyObject *)Py_TYPE(reader->end), reader->end);
    }
    return NULL;
}

static PyObject *reader_iternext(PyObject *self)
{
    PyObject *out = NULL;
    if (((core_reader *)self)->rt->loop == NULL) {
        return reader_next_blocking((core_reader *)self);
    }
    PySendResult sent = reader_send(self, Py_None, &out);
    return core_coroutine_next(sent, out);
}

static PyObject *reader_method_send(PyObject *self, PyObject *Py_UNUSED(value))
{
    return reader_iternext(self);
}

static PyObject *reader_throw(PyObject *self, PyObject *const *args, Py_ssize_t count)
{
    core_reader *reader = (core_reader *)self;
    if (reader->inner != NULL) {
        reader = reader->inner;
    }
    Py_CLEAR(reader->future);
    if (reader->opening != NULL && count > 0) {
        return PyObject_CallMethod(reader->opening, "throw", "O", args[0]);
    }
    return core_coroutine_throw(args, count);
}

static PyObject *reader_cancel(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    core_reader *reader = (core_reader *)self;
    if (reader->inner != NULL) {
        reader = reader->inner;
    }
    reader_stop(reader);
    if (reader->end == NULL) {
        reader->end = Py_NewRef(Py_None);
    }
    reader_wake(reader);
    Py_RETURN_NONE;
}

static PyObject *reader_aclose(PyObject *self, PyObject *ignored)
{
    PyObject *none = reader_cancel(self, ignored);
    Py_XDECREF(none);
    return none == NULL ? NULL : Py_NewRef(((core_reader *)self)->rt->state->done);
}

static PyObject *reader_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    PyObject *call = NULL;
    (void)kwargs;
    core_state *state = core_state_of_type(type);
    if (!PyArg_ParseTuple(args, "O!", state->call_type, &call)) {
        return NULL;
    }
    core_reader *reader = core_reader_new(((core_call *)call)->rt, 1);
    if (reader != NULL) {
        reader->opening = Py_NewRef(call);
    }
    return (PyObject *)reader;
}

static int reader_traverse(PyObject *self, visitproc visit, void *arg)
{
    core_reader *reader = (core_reader *)self;
    Py_VISIT(Py_TYPE(self));
    Py_VISIT((PyObject *)reader->rt);
    Py_VISIT(reader->end);
    Py_VISIT(reader->future);
    Py_VISIT(reader->opening);
    Py_VISIT((PyObject *)reader->inner);
    for (uint32_t i = 0; i < reader->items_count; i++) {
        Py_VISIT(reader->items[(reader->items_first + i) % reader->items_size]);
    }
    return 0;
}

static int reader_clear(PyObject *self)
{
    core_reader *reader = (core_reader *)self;
    Py_CLEAR(reader->end);
    Py_CLEAR(reader->future);
    Py_CLEAR(reader->opening);
    Py_CLEAR(reader->inner);
    while (reader->items_count > 0) {
        PyObject *item = reader->items[reader->items_first];
        reader->items_first = (reader->items_first + 1) % reader->items_size;
        reader->items_count--;
        Py_DECREF(item);
    }
    return 0;
}

static void reader_dealloc(PyObject *self)
{
    core_reader *reader = (core_reader *)self;
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    reader_stop(reader);
    reader_clear(self);
    PyMem_Free(reader->items);
    PyMem_Free(reader->costs);
    Py_DECREF(reader->rt);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyMethodDef reader_methods[] = {
    {"send", reader_method_send, METH_O, "As a coroutine's."},
    {"throw", (PyCFunction)(void (*)(void))reader_throw, METH_FASTCALL, "As a coroutine's."},
    {"close", reader_cancel, METH_NOARGS, "Read no more; the writer is told."},
    {"cancel", reader_cancel, METH_NOARGS, "Read no more; the writer is told."},
    {"aclose", reader_aclose, METH_NOARGS, "Read no more; the writer is told."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot reader_slots[] = {
    {Py_tp_new, reader_new},
    {Py_tp_dealloc, reader_dealloc},
    {Py_tp_traverse, reader_traverse},
    {Py_tp_clear, reader_clear},
    {Py_tp_iter, PyObject_SelfIter},
    {Py_tp_iternext, reader_iternext},
    {Py_tp_methods, reader_methods},
    {Py_am_await, PyObject_SelfIter},
    {Py_am_aiter, PyObject_SelfIter},
    {Py_am_anext, PyObject_SelfIter},
    {Py_am_send, reader_send},
    {Py_tp_doc, "The reading end of a stream."},
    {0, NULL},
};

PyType_Spec core_reader_spec = {
    .name = "pulsing._core.StreamReader",
    .basicsize = sizeof(core_reader),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = reader_slots,
};
