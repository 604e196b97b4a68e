/* SPDX-License-Identifier: Apache-2.0 */
/* From a message to a method and back: a plain method is called where its message lies in the ring
 * and answered at once; a coroutine becomes a task whose end answers; a generator becomes a stream.
 * These are the runtime's callbacks; none of them lets a Python exception out. */
#include "python/context.h"
#include "python/codec_internal.h"

#include <string.h>

core_frame *core_current_frame(core_runtime *rt)
{
    /* An actor's own thread may run while the loop's thread is in a plain method. */
    if (rt->frame != NULL && PyThread_get_thread_ident() == rt->thread) {
        return rt->frame;
    }
    PyObject *value = NULL;
    if (PyContextVar_Get(rt->state->current_var, NULL, &value) < 0) {
        PyErr_Clear();
        return NULL;
    }
    if (value == NULL) {
        return NULL;
    }
    core_frame *frame = NULL;
    if (Py_TYPE(value) == rt->state->invocation_type) {
        core_invocation *invocation = (core_invocation *)value;
        bool ours = invocation->frame.cell != NULL && invocation->frame.cell->rt == rt;
        frame = ours && invocation->listed ? &invocation->frame : NULL;
    }
    Py_DECREF(value);
    return frame;
}

static void frame_open(core_frame *frame, core_cell *cell, const pulsing_message *message)
{
    frame->cell = cell;
    frame->origin = message->origin;
    frame->sender_id = message->sender_id;
    frame->deadline_ns = message->deadline_ns;
    frame->cancelled = false;
    frame->chain_bytes = 0;
    frame->chain = NULL;
    if (message->chain_bytes > 0) {
        frame->chain = PyMem_Malloc(message->chain_bytes);
        if (frame->chain != NULL) {
            memcpy(frame->chain, message->chain, message->chain_bytes);
            frame->chain_bytes = message->chain_bytes;
        }
    }
}

static void frame_close(core_frame *frame)
{
    PyMem_Free(frame->chain);
    frame->chain = NULL;
}

/* A handler raised: the one who waits gets it; if nobody does, or the actor says that it failed,
 * its host is told. */
static void handler_raised(core_runtime *rt, const core_frame *frame)
{
    core_cell *cell = frame->cell;
    bool failed = PyErr_ExceptionMatches(rt->state->errors[CORE_ACTOR_FAILED]);
    bool waited = frame->origin.call_id != 0 && !frame->cancelled;
    if ((failed || !waited) && cell->failed != NULL && cell->failed != Py_None) {
        PyObject *value = core_exception_taken();
        PyObject *none =
            PyObject_CallFunction(cell->failed, "OO", value, waited ? Py_True : Py_False);
        if (none == NULL) {
            PyErr_WriteUnraisable(cell->failed);
        }
        Py_XDECREF(none);
        PyErr_SetObject((PyObject *)Py_TYPE(value), value);
        Py_DECREF(value);
    }
    core_reply_raised(rt, &frame->origin);
}

static void answer(core_runtime *rt, const core_frame *frame, PyObject *result)
{
    int sent = 0;
    if (result == NULL) {
        handler_raised(rt, frame);
        return;
    }
    if (core_is_stream(rt->state, result)) {
        sent = core_stream_answer(rt, frame, result);
    } else if (frame->origin.call_id != 0) {
        sent = core_reply_object(rt, &frame->origin, result);
    }
    if (sent < 0) {
        core_reply_raised(rt, &frame->origin);
    }
}

static PyObject *handler_call(core_runtime *rt, core_cell *cell, const pulsing_message *message,
                              core_frame *frame, PyObject *function)
{
    pls_source source;
    pls_call call;
    PyObject *block = NULL;
    if (core_source(rt, message, &source, &block) < 0) {
        return NULL;
    }
    int decoded = pls_codec_decode_call(&rt->state->codec, &source, &call);
    Py_XDECREF(block);
    if (decoded < 0) {
        return NULL;
    }
    pulsing_message_release(rt->p);
    core_frame *before = rt->frame;
    rt->frame = frame;
    call.stack[0] = cell->instance;
    PyObject *result = PyObject_Vectorcall(function, call.stack, call.arg_count + 1, call.kwnames);
    rt->frame = before;
    pls_call_clear(&call);
    return result;
}

static PyObject *handler_receive(core_runtime *rt, core_cell *cell, const pulsing_message *message,
                                 core_frame *frame)
{
    pls_source source;
    PyObject *block = NULL;
    if (core_source(rt, message, &source, &block) < 0) {
        return NULL;
    }
    PyObject *object = pls_codec_decode(&rt->state->codec, &source);
    Py_XDECREF(block);
    if (object == NULL) {
        return NULL;
    }
    pulsing_message_release(rt->p);
    core_frame *before = rt->frame;
    rt->frame = frame;
    PyObject *args[] = {cell->instance, object, cell->context};
    PyObject *result =
        PyObject_Vectorcall(cell->receive, args, cell->receive_context ? 3 : 2, NULL);
    rt->frame = before;
    Py_DECREF(object);
    return result;
}

static void no_method(core_runtime *rt, core_cell *cell, const pulsing_message *message)
{
    PyObject *names = PyMapping_Keys(cell->methods);
    PyObject *joined = NULL;
    if (names != NULL && PyList_Sort(names) == 0) {
        PyObject *comma = PyUnicode_FromString(", ");
        joined = comma != NULL ? PyUnicode_Join(comma, names) : NULL;
        Py_XDECREF(comma);
    }
    PyObject *method = PyUnicode_DecodeUTF8(message->method, message->method_bytes, "replace");
    PyObject *text = NULL;
    if (joined != NULL && method != NULL) {
        const char *class_name = Py_TYPE(cell->instance)->tp_name;
        text = message->method_bytes == 0
                   ? PyUnicode_FromFormat("%s has no receive(): call one of its methods: %U",
                                          class_name, joined)
                   : PyUnicode_FromFormat("%s has no method '%U'; its methods are: %U", class_name,
                                          method, joined);
    }
    Py_XDECREF(method);
    const char *utf8 = text != NULL ? PyUnicode_AsUTF8(text) : NULL;
    core_reply_text(rt, &message->origin, PULSING_NO_METHOD,
                    utf8 != NULL ? utf8 : "no such method");
    PyErr_Clear();
    Py_XDECREF(text);
    Py_XDECREF(joined);
    Py_XDECREF(names);
}

/* The function for a message; borrowed. NULL without an exception: there is none. */
static PyObject *handler_find(core_runtime *rt, core_cell *cell, const pulsing_message *message)
{
    if (message->method_bytes == 0) {
        return cell->receive == Py_None ? NULL : cell->receive;
    }
    PyObject *name =
        pls_name_key(&rt->state->codec, (const uint8_t *)message->method, message->method_bytes);
    if (name == NULL) {
        return NULL;
    }
    PyObject *function = PyDict_GetItemWithError(cell->methods, name);
    Py_DECREF(name);
    return function;
}

static void invocation_link(core_invocation *invocation)
{
    core_cell *cell = invocation->frame.cell;
    invocation->next = cell->invocations;
    invocation->previous = NULL;
    if (cell->invocations != NULL) {
        cell->invocations->previous = invocation;
    }
    cell->invocations = invocation;
    invocation->listed = true;
}

static void invocation_unlink(core_invocation *invocation)
{
    core_cell *cell = invocation->frame.cell;
    if (!invocation->listed) {
        return;
    }
    if (invocation->next != NULL) {
        invocation->next->previous = invocation->previous;
    }
    if (invocation->previous != NULL) {
        invocation->previous->next = invocation->next;
    } else {
        cell->invocations = invocation->next;
    }
    invocation->listed = false;
}

/* Reads a finished task: its result, or NULL with its exception set. */
static PyObject *task_result(core_state *state, PyObject *task)
{
    return PyObject_CallMethodNoArgs(task, state->names[CORE_NAME_RESULT]);
}

/* The task's done-callback. */
static PyObject *invocation_done(PyObject *self, PyObject *const *args, size_t Py_UNUSED(count),
                                 PyObject *Py_UNUSED(kwnames))
{
    core_invocation *invocation = (core_invocation *)self;
    core_cell *cell = invocation->frame.cell;
    core_runtime *rt = cell->rt;
    invocation_unlink(invocation);
    if (invocation->timer != NULL) {
        PyObject *none =
            PyObject_CallMethodNoArgs(invocation->timer, rt->state->names[CORE_NAME_CANCEL]);
        Py_XDECREF(none);
        Py_CLEAR(invocation->timer);
    }
    PyObject *result = task_result(rt->state, args[0]);
    if (rt->p == NULL || cell->actor == NULL) {
        PyErr_Clear();
        Py_XDECREF(result);
        Py_CLEAR(invocation->task);
        Py_RETURN_NONE;
    }
    if (result == NULL && PyErr_ExceptionMatches(rt->state->cancelled_error)) {
        PyErr_Clear();
        core_reply_text(rt, &invocation->frame.origin,
                        invocation->expired ? PULSING_EXPIRED : PULSING_CANCELLED,
                        invocation->expired ? "its deadline passed while it was running"
                                            : "its handler was cancelled");
    } else {
        answer(rt, &invocation->frame, result);
    }
    Py_XDECREF(result);
    Py_CLEAR(invocation->task);
    pulsing_actor_finished(rt->p, cell->actor, &invocation->frame.origin);
    Py_RETURN_NONE;
}

static int deadline_start(core_runtime *rt, core_invocation *invocation)
{
    if (invocation->frame.deadline_ns == 0) {
        return 0;
    }
    double left = (double)(invocation->frame.deadline_ns - pulsing_now_ns()) / 1e9;
    PyObject *delay = PyFloat_FromDouble(left > 0 ? left : 0);
    PyObject *callback = PyObject_GetAttrString((PyObject *)invocation, "_expire");
    if (delay != NULL && callback != NULL) {
        PyObject *args[] = {delay, callback};
        invocation->timer = PyObject_Vectorcall(rt->call_later, args, 2, NULL);
    }
    Py_XDECREF(delay);
    Py_XDECREF(callback);
    return invocation->timer != NULL ? 0 : -1;
}

static PyObject *invocation_expire(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    core_invocation *invocation = (core_invocation *)self;
    invocation->expired = true;
    if (invocation->task == NULL) {
        Py_RETURN_NONE;
    }
    return PyObject_CallMethodNoArgs(invocation->task,
                                     invocation->frame.cell->rt->state->names[CORE_NAME_CANCEL]);
}

/* Takes the frame's chain. */
static core_invocation *invocation_new(core_runtime *rt, core_frame *frame)
{
    core_invocation *invocation = PyObject_GC_New(core_invocation, rt->state->invocation_type);
    if (invocation == NULL) {
        return NULL;
    }
    invocation->vectorcall = invocation_done;
    invocation->frame = *frame;
    frame->chain = NULL;
    Py_INCREF(invocation->frame.cell);
    invocation->task = NULL;
    invocation->timer = NULL;
    invocation->expired = false;
    invocation->listed = false;
    PyObject_GC_Track(invocation);
    return invocation;
}

/* The answer is what the invocation's task, or future, ends with; takes the invocation. */
static int invocation_begin(core_runtime *rt, core_invocation *invocation)
{
    PyObject *none = NULL;
    if (invocation->task != NULL) {
        none = PyObject_CallMethodOneArg(invocation->task,
                                         rt->state->names[CORE_NAME_ADD_DONE_CALLBACK],
                                         (PyObject *)invocation);
    }
    int begun = none != NULL ? deadline_start(rt, invocation) : -1;
    if (begun == 0) {
        invocation_link(invocation);
    }
    Py_XDECREF(none);
    Py_DECREF(invocation); /* the task's callback keeps it */
    return begun;
}

/* Starts the task with the invocation as the current one of its context. */
static int task_start(core_runtime *rt, core_frame *frame, PyObject *coroutine)
{
    core_state *state = rt->state;
    core_invocation *invocation = invocation_new(rt, frame);
    if (invocation == NULL) {
        return -1;
    }
    PyObject *token = PyContextVar_Set(state->current_var, (PyObject *)invocation);
    if (token != NULL) {
        invocation->task = PyObject_CallOneArg(rt->create_task, coroutine);
        if (PyContextVar_Reset(state->current_var, token) < 0) {
            PyErr_Clear();
        }
        Py_DECREF(token);
    }
    return invocation_begin(rt, invocation);
}

/* A method gave a future: no task is needed to wait for it. */
static int future_start(core_runtime *rt, core_frame *frame, PyObject *future)
{
    core_invocation *invocation = invocation_new(rt, frame);
    if (invocation == NULL) {
        return -1;
    }
    invocation->task = Py_NewRef(future);
    return invocation_begin(rt, invocation);
}

pulsing_taken core_on_request(void *context, void *user, const pulsing_message *message)
{
    core_runtime *rt = context;
    core_cell *cell = user;
    PyObject *function = handler_find(rt, cell, message);
    if (function == NULL) {
        PyErr_Clear();
        no_method(rt, cell, message);
        return PULSING_DONE;
    }
    core_frame frame;
    frame_open(&frame, cell, message);
    Py_INCREF(cell);
    Py_INCREF(function);
    PyObject *variables = core_context_enter(rt, message);
    PyObject *result = variables == NULL ? NULL
                       : message->method_bytes == 0
                           ? handler_receive(rt, cell, message, &frame)
                           : handler_call(rt, cell, message, &frame, function);
    Py_DECREF(function);
    pulsing_taken taken = PULSING_DONE;
    bool coroutine = result != NULL && PyCoro_CheckExact(result);
    if (coroutine ||
        (result != NULL && PyObject_TypeCheck(result, (PyTypeObject *)rt->state->future_class))) {
        int started = coroutine ? task_start(rt, &frame, result) : future_start(rt, &frame, result);
        if (started == 0) {
            taken = PULSING_RUNNING;
        } else {
            handler_raised(rt, &frame);
        }
    } else {
        answer(rt, &frame, result);
    }
    Py_XDECREF(result);
    if (variables != NULL) {
        core_context_leave(rt, variables);
    }
    frame_close(&frame);
    Py_DECREF(cell);
    return taken;
}

void core_on_cancel(void *context, void *user, const pulsing_origin *origin)
{
    core_runtime *rt = context;
    core_cell *cell = user;
    core_invocation *invocation = cell->invocations;
    if (rt->frame != NULL && rt->frame->cell == cell &&
        rt->frame->origin.call_id == origin->call_id && rt->frame->origin.slot == origin->slot &&
        rt->frame->origin.epoch == origin->epoch) {
        rt->frame->cancelled = true;
    }
    while (invocation != NULL) {
        const pulsing_origin *his = &invocation->frame.origin;
        if (his->call_id == origin->call_id && his->slot == origin->slot &&
            his->epoch == origin->epoch) {
            break;
        }
        invocation = invocation->next;
    }
    if (invocation != NULL && invocation->task != NULL) {
        invocation->frame.cancelled = true;
        PyObject *done =
            PyObject_CallMethodNoArgs(invocation->task, rt->state->names[CORE_NAME_CANCEL]);
        if (done == NULL) {
            PyErr_WriteUnraisable(invocation->task);
        }
        Py_XDECREF(done);
    }
}

void core_on_drained(void *context, void *user)
{
    (void)context;
    core_cell *cell = user;
    if (cell->drained == NULL || cell->drained == Py_None) {
        return;
    }
    PyObject *none = PyObject_CallNoArgs(cell->drained);
    if (none == NULL) {
        PyErr_WriteUnraisable(cell->drained);
    }
    Py_XDECREF(none);
}

void core_on_sent(void *context, void *user, pls_err err)
{
    core_runtime *rt = context;
    core_call *call = user;
    PyObject *exception = NULL;
    if (err != PLS_OK) {
        const char *death = call->ref != NULL ? pulsing_target_death(call->ref->target) : NULL;
        exception = core_exception(rt->state, CORE_ACTOR_DIED, "the message was not sent: %s",
                                   death != NULL ? death : pls_err_text(err));
        PyErr_Clear();
        if (exception != NULL && death != NULL) {
            core_death_tell(call->ref, exception, pulsing_target_slot(call->ref->target),
                            pulsing_target_epoch(call->ref->target));
        }
    }
    core_call_finish(call, exception == NULL ? Py_NewRef(Py_None) : NULL, exception);
    Py_DECREF(call);
}

static PyObject *reply_result(core_runtime *rt, const pulsing_message *message)
{
    pls_source source;
    PyObject *block = NULL;
    if (core_source(rt, message, &source, &block) < 0) {
        return NULL;
    }
    PyObject *result = pls_codec_decode(&rt->state->codec, &source);
    Py_XDECREF(block);
    return result;
}

void core_on_reply(void *context, void *user, const pulsing_message *message)
{
    core_runtime *rt = context;
    if (Py_TYPE((PyObject *)user) == rt->state->reader_type) {
        core_reader_reply(rt, user, message);
        return;
    }
    core_call *call = user;
    PyObject *result = NULL;
    PyObject *exception = NULL;
    if (core_call_expired(call, message)) {
        if (message->status == PULSING_STREAM) {
            pulsing_call_cancel(rt->p, message->origin.call_id);
        }
        call->call_id = 0;
        Py_DECREF(call); /* the table's */
        return;
    }
    if (message->status == PULSING_OK) {
        result = reply_result(rt, message);
    } else if (message->status == PULSING_STREAM) {
        result = core_stream_received(rt, call, message);
    } else {
        exception = core_reply_exception(rt, message, call->ref, call->label);
    }
    if (result == NULL && exception == NULL) {
        exception = core_exception_taken();
    }
    call->call_id = 0;
    core_call_finish(call, result, exception);
    Py_DECREF(call); /* the table's */
}

static int invocation_traverse(PyObject *self, visitproc visit, void *arg)
{
    core_invocation *invocation = (core_invocation *)self;
    Py_VISIT(Py_TYPE(self));
    Py_VISIT((PyObject *)invocation->frame.cell);
    Py_VISIT(invocation->task);
    Py_VISIT(invocation->timer);
    return 0;
}

static int invocation_clear(PyObject *self)
{
    core_invocation *invocation = (core_invocation *)self;
    Py_CLEAR(invocation->task);
    Py_CLEAR(invocation->timer);
    return 0;
}

static void invocation_dealloc(PyObject *self)
{
    core_invocation *invocation = (core_invocation *)self;
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    invocation_unlink(invocation);
    invocation_clear(self);
    frame_close(&invocation->frame);
    Py_DECREF(invocation->frame.cell);
    PyObject_GC_Del(self);
    Py_DECREF(type);
}

static PyObject *invocation_get_context(PyObject *self, void *Py_UNUSED(closure))
{
    return Py_NewRef(((core_invocation *)self)->frame.cell->context);
}

static PyMethodDef invocation_methods[] = {
    {"_expire", invocation_expire, METH_NOARGS, "The deadline has passed."},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef invocation_members[] = {
    {"__vectorcalloffset__", T_PYSSIZET, offsetof(core_invocation, vectorcall), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyGetSetDef invocation_getset[] = {
    {"context", invocation_get_context, NULL, "The actor's context.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot invocation_slots[] = {
    {Py_tp_dealloc, invocation_dealloc},
    {Py_tp_traverse, invocation_traverse},
    {Py_tp_clear, invocation_clear},
    {Py_tp_call, PyVectorcall_Call},
    {Py_tp_members, invocation_members},
    {Py_tp_methods, invocation_methods},
    {Py_tp_getset, invocation_getset},
    {Py_tp_doc, "A message that a task handles."},
    {0, NULL},
};

PyType_Spec core_invocation_spec = {
    .name = "pulsing._core.Invocation",
    .basicsize = sizeof(core_invocation),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_HAVE_VECTORCALL |
             Py_TPFLAGS_IMMUTABLETYPE | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = invocation_slots,
};
