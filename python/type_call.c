/* SPDX-License-Identifier: Apache-2.0 */
/* One ask under way: awaitable, and accepted wherever a coroutine is. Its message is sent when it
 * is made. Awaiting it first looks at the ring for a moment, and only then sleeps on a future of
 * the loop. Invariant: a pending call is known to the runtime's table, which owns one reference;
 * when the answer comes, or the death of whom it waits for, core_call_finish() is called once. */
#include "python/core_parts.h"

#include <string.h>

#define TURN_NS 1000000 /* a task whose awaits never suspend gives the loop a turn this often */

core_call *core_call_new(core_runtime *rt, core_ref *ref, PyObject *label)
{
    core_call *call = PyObject_GC_New(core_call, rt->state->call_type);
    if (call == NULL) {
        return NULL;
    }
    call->rt = (core_runtime *)Py_NewRef((PyObject *)rt);
    call->ref = (core_ref *)Py_XNewRef((PyObject *)ref);
    call->label = Py_XNewRef(label);
    call->call_id = 0;
    call->result = NULL;
    call->future = NULL;
    call->timer = NULL;
    call->deadline_ns = 0;
    call->timeout = 0;
    call->next_waiting = NULL;
    call->lock = NULL;
    call->state = CORE_CALL_PENDING;
    call->tell = false;
    call->control = false;
    call->expired = false;
    call->looking = false;
    call->yielded = false;
    call->taken = false;
    PyObject_GC_Track(call);
    return call;
}

static void timer_cancel(core_call *call)
{
    if (call->timer != NULL) {
        PyObject *timer = call->timer;
        call->timer = NULL;
        PyObject *none = PyObject_CallMethodNoArgs(timer, call->rt->state->names[CORE_NAME_CANCEL]);
        Py_XDECREF(none);
        Py_DECREF(timer);
    }
}

/* Ends a call whose time is over. `words` says how far the request had come. */
static int expire(core_call *call, const char *words)
{
    char limit[64] = "before the deadline of the message that asked";
    if (call->timeout > 0) {
        PyOS_snprintf(limit, sizeof limit, "within %g s", call->timeout);
    }
    PyObject *exception = core_exception(call->rt->state, CORE_ASK_TIMEOUT, "%V: no answer %s; %s",
                                         call->label, "ask", limit, words);
    if (exception == NULL) {
        return -1;
    }
    core_call_finish(call, NULL, exception);
    return 0;
}

bool core_call_expired(core_call *call, const pulsing_message *message)
{
    bool refused = message->status == PULSING_EXPIRED || message->status == PULSING_CANCELLED;
    bool answered = message->status == PULSING_OK || message->status == PULSING_RAISED ||
                    message->status == PULSING_STREAM;
    if (!(call->expired && (refused || answered)) && message->status != PULSING_EXPIRED) {
        return false;
    }
    bool running = answered; /* an answer that comes too late is none */
    for (uint32_t i = 0; refused && i + 7 <= message->payload_bytes; i++) {
        running = running || memcmp(message->payload + i, "running", 7) == 0 ||
                  memcmp(message->payload + i, "handler", 7) == 0;
    }
    return expire(call, running ? "the request was running" : "the request was waiting") == 0;
}

void core_call_finish(core_call *call, PyObject *result, PyObject *exception)
{
    if (call->state != CORE_CALL_PENDING) {
        Py_XDECREF(result);
        Py_XDECREF(exception);
        return;
    }
    call->state = exception != NULL ? CORE_CALL_FAILED : CORE_CALL_DONE;
    call->result = exception != NULL ? exception : result;
    if (call->timer != NULL) {
        timer_cancel(call);
    }
    if (call->future != NULL) {
        /* It may have been cancelled meanwhile; then nobody wants the result. */
        PyObject *none = PyObject_CallMethodOneArg(
            call->future, call->rt->state->names[CORE_NAME_SET_RESULT], Py_None);
        if (none == NULL) {
            PyErr_Clear();
        }
        Py_XDECREF(none);
        Py_CLEAR(call->future);
    }
    if (call->lock != NULL) {
        core_call_unpark(call);
    }
}

PyObject *core_call_take(core_call *call)
{
    if (call->state == CORE_CALL_DONE) {
        return Py_NewRef(call->result);
    }
    PyObject *exception = call->result;
    call->taken = true;
    PyErr_SetObject((PyObject *)Py_TYPE(exception), exception);
    return NULL;
}

bool core_loop_turn_due(core_runtime *rt)
{
    int64_t now = pulsing_now_ns();
    if (now - rt->last_turn_ns < TURN_NS) {
        return false;
    }
    rt->last_turn_ns = now;
    return true;
}

static void call_forget(core_call *call)
{
    core_runtime *rt = call->rt;
    uint64_t call_id = call->call_id;
    call->call_id = 0;
    if (call->state == CORE_CALL_PENDING && call_id != 0 && rt->p != NULL) {
        pulsing_call_cancel(rt->p, call_id);
        Py_DECREF(call); /* the table's */
    }
}

#define EXPIRY_ANSWER_NS 40000000 /* how long the receiver may take to say how far it had come */

static int timer_start(core_call *call);

/* The deadline has passed at the caller: the handler is told, and asked how far it had come; if it
 * does not say so at once, the caller waits no longer. */
static PyObject *call_on_timeout(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    core_call *call = (core_call *)self;
    int result = 0;
    Py_CLEAR(call->timer);
    if (call->state != CORE_CALL_PENDING || call->rt->p == NULL) {
        Py_RETURN_NONE;
    }
    Py_INCREF(call);
    if (call->expired) {
        call_forget(call);
        result = expire(call, "the request had been sent, and its process is busy");
    } else if (pulsing_call_expire(call->rt->p, call->call_id)) {
        call->expired = true;
        call->deadline_ns = pulsing_now_ns() + EXPIRY_ANSWER_NS;
        result = call->rt->loop != NULL ? timer_start(call) : 0;
    } else {
        call->call_id = 0;
        result = expire(call, "the request was not sent: the actor's mailbox was full");
        Py_DECREF(call); /* the table's */
    }
    Py_DECREF(call);
    if (result < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

static int timer_start(core_call *call)
{
    core_runtime *rt = call->rt;
    double left = (double)(call->deadline_ns - pulsing_now_ns()) / 1e9;
    PyObject *delay = PyFloat_FromDouble(left > 0 ? left : 0);
    PyObject *callback = PyObject_GetAttrString((PyObject *)call, "_on_timeout");
    if (delay != NULL && callback != NULL) {
        PyObject *args[] = {delay, callback};
        call->timer = PyObject_Vectorcall(rt->call_later, args, 2, NULL);
    }
    Py_XDECREF(delay);
    Py_XDECREF(callback);
    return call->timer != NULL ? 0 : -1;
}

/* Whether the task that waits here is the one that handles the message which made the call. */
static void mark_awaited(core_call *call)
{
    core_frame *frame = core_current_frame(call->rt);
    if (frame != NULL && call->call_id != 0) {
        pulsing_call_awaited(call->rt->p, call->call_id, true);
    }
}

static bool is_here(const core_call *call)
{
    return call->ref != NULL && pulsing_target_slot(call->ref->target) == pulsing_slot(call->rt->p);
}

/* Whether the loop takes in messages of this process before it comes back to a task that steps
 * aside now: a plain method of an actor here has then answered, and no future is needed. */
static bool is_next(const core_call *call)
{
    const core_runtime *rt = call->rt;
    return !call->yielded && !call->control && (rt->hooked || rt->wake_scheduled) && is_here(call);
}

static PySendResult call_suspend(core_call *call, PyObject **out)
{
    core_runtime *rt = call->rt;
    PyObject *future = PyObject_CallNoArgs(rt->create_future);
    if (future == NULL) {
        return PYGEN_ERROR;
    }
    call->future = future;
    if (PyObject_SetAttr(future, rt->state->names[CORE_NAME_BLOCKING], Py_True) < 0 ||
        (call->deadline_ns != 0 && call->timer == NULL && timer_start(call) < 0) ||
        (!rt->patrol_soon && core_patrol_start(rt) < 0)) {
        return PYGEN_ERROR;
    }
    *out = Py_NewRef(future);
    return PYGEN_NEXT;
}

static PySendResult call_take(core_call *call, PyObject **out)
{
    *out = core_call_take(call);
    return *out != NULL ? PYGEN_RETURN : PYGEN_ERROR;
}

static PySendResult call_send(PyObject *self, PyObject *Py_UNUSED(value), PyObject **out)
{
    core_call *call = (core_call *)self;
    core_runtime *rt = call->rt;
    *out = NULL;
    if (call->state != CORE_CALL_PENDING) {
        return call_take(call, out);
    }
    if (rt->loop == NULL) {
        PyErr_SetString(PyExc_RuntimeError, "a call of a blocking system is not awaited");
        return PYGEN_ERROR;
    }
    if (call->future != NULL) {
        PyErr_SetString(PyExc_RuntimeError, "this call is being awaited already");
        return PYGEN_ERROR;
    }
    mark_awaited(call);
    if (is_next(call)) {
        call->yielded = true;
        *out = Py_NewRef(Py_None);
        return PYGEN_NEXT;
    }
    if (rt->ready != NULL && !call->control && !is_here(call)) {
        if (core_loop_turn_due(rt)) {
            call->yielded = true;
            *out = Py_NewRef(Py_None);
            return PYGEN_NEXT;
        }
        call->looking = true;
        core_look(rt);
        call->looking = false;
        if (call->state != CORE_CALL_PENDING) {
            return call_take(call, out);
        }
    }
    return call_suspend(call, out);
}

static PyObject *call_iternext(PyObject *self)
{
    PyObject *out = NULL;
    PySendResult sent = call_send(self, Py_None, &out);
    return core_coroutine_next(sent, out);
}

static PyObject *call_method_send(PyObject *self, PyObject *Py_UNUSED(value))
{
    return call_iternext(self);
}

/* A coroutine's throw: raises in the one who waits, who is then no more interested. */
static PyObject *call_throw(PyObject *self, PyObject *const *args, Py_ssize_t count)
{
    core_call *call = (core_call *)self;
    Py_INCREF(call);
    Py_CLEAR(call->future);
    timer_cancel(call);
    call_forget(call);
    Py_DECREF(call);
    return core_coroutine_throw(args, count);
}

static PyObject *call_close(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    core_call *call = (core_call *)self;
    Py_CLEAR(call->future);
    Py_RETURN_NONE;
}

static PyObject *call_aiter(PyObject *self)
{
    core_call *call = (core_call *)self;
    return PyObject_CallOneArg((PyObject *)call->rt->state->reader_type, self);
}

static int call_traverse(PyObject *self, visitproc visit, void *arg)
{
    core_call *call = (core_call *)self;
    Py_VISIT(Py_TYPE(self));
    Py_VISIT((PyObject *)call->rt);
    Py_VISIT((PyObject *)call->ref);
    Py_VISIT(call->result);
    Py_VISIT(call->future);
    Py_VISIT(call->timer);
    return 0;
}

static int call_clear(PyObject *self)
{
    core_call *call = (core_call *)self;
    Py_CLEAR(call->result);
    Py_CLEAR(call->future);
    Py_CLEAR(call->timer);
    Py_CLEAR(call->ref);
    Py_CLEAR(call->label);
    return 0;
}

static void call_dealloc(PyObject *self)
{
    core_call *call = (core_call *)self;
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    if (call->state == CORE_CALL_FAILED && !call->taken) {
        core_call_unread(call);
    }
    call_clear(self);
    if (call->lock != NULL) {
        PyThread_free_lock(call->lock);
    }
    Py_DECREF(call->rt);
    PyObject_GC_Del(self);
    Py_DECREF(type);
}

static PyObject *call_repr(PyObject *self)
{
    core_call *call = (core_call *)self;
    static const char *const words[] = {"pending", "done", "failed", "consumed"};
    return PyUnicode_FromFormat("<pulsing call %V, %s>", call->label, "ask", words[call->state]);
}

static PyMethodDef call_methods[] = {
    {"send", call_method_send, METH_O, "As a coroutine's."},
    {"throw", (PyCFunction)(void (*)(void))call_throw, METH_FASTCALL, "As a coroutine's."},
    {"close", call_close, METH_NOARGS, "As a coroutine's."},
    {"_on_timeout", call_on_timeout, METH_NOARGS, "The deadline has passed."},
    {"__class_getitem__", Py_GenericAlias, METH_O | METH_CLASS, "Call[int], for annotations."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot call_slots[] = {
    {Py_tp_dealloc, call_dealloc},
    {Py_tp_traverse, call_traverse},
    {Py_tp_clear, call_clear},
    {Py_tp_repr, call_repr},
    {Py_tp_iternext, call_iternext},
    {Py_tp_methods, call_methods},
    {Py_am_await, PyObject_SelfIter},
    {Py_am_aiter, call_aiter},
    {Py_am_send, call_send},
    {Py_tp_doc, "A call under way; await it for its result."},
    {0, NULL},
};

PyType_Spec core_call_spec = {
    .name = "pulsing._core.Call",
    .basicsize = sizeof(core_call),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE |
             Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = call_slots,
};

/* What a tell gives when it has left at once: completed, with the value None. */
static PySendResult done_send(PyObject *Py_UNUSED(self), PyObject *Py_UNUSED(value), PyObject **out)
{
    *out = Py_NewRef(Py_None);
    return PYGEN_RETURN;
}

static PyObject *done_iternext(PyObject *Py_UNUSED(self))
{
    return NULL; /* StopIteration, without a value */
}

static PyObject *done_method_send(PyObject *Py_UNUSED(self), PyObject *Py_UNUSED(value))
{
    PyErr_SetNone(PyExc_StopIteration);
    return NULL;
}

static PyObject *done_throw(PyObject *self, PyObject *const *args, Py_ssize_t count)
{
    (void)self;
    return core_coroutine_throw(args, count);
}

static PyObject *done_close(PyObject *Py_UNUSED(self), PyObject *Py_UNUSED(ignored))
{
    Py_RETURN_NONE;
}

static void done_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_Free(self);
    Py_DECREF(type);
}

static PyMethodDef done_methods[] = {
    {"send", done_method_send, METH_O, "As a coroutine's."},
    {"throw", (PyCFunction)(void (*)(void))done_throw, METH_FASTCALL, "As a coroutine's."},
    {"close", done_close, METH_NOARGS, "As a coroutine's."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot done_slots[] = {
    {Py_tp_dealloc, done_dealloc},
    {Py_tp_iternext, done_iternext},
    {Py_tp_methods, done_methods},
    {Py_am_await, PyObject_SelfIter},
    {Py_am_send, done_send},
    {Py_tp_doc, "An awaitable that has completed."},
    {0, NULL},
};

PyType_Spec core_done_spec = {
    .name = "pulsing._core.Done",
    .basicsize = sizeof(PyObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = done_slots,
};
