/* SPDX-License-Identifier: Apache-2.0 */
/* One method of a ref. Calling it sends the request at once, so that calls keep the order in which
 * they are made, and gives a Call; its `tell` sends without wanting an answer. */
#include "python/core_parts.h"

/* What a message carries of the handler that sends it: identity, chain, the time that is left. */
static void call_describe(core_runtime *rt, pulsing_call *call, double timeout)
{
    core_frame *frame = core_current_frame(rt);
    double seconds = timeout >= 0 ? timeout : rt->ask_timeout;
    if (seconds > 0 || timeout == 0) {
        call->deadline_ns = pulsing_now_ns() + (int64_t)(seconds * 1e9);
    }
    if (frame == NULL) {
        return;
    }
    call->sender_id = frame->cell->id;
    if (call->tell) {
        return;
    }
    call->sender_name = frame->cell->name_utf8;
    call->sender_name_bytes = (uint8_t)frame->cell->name_bytes;
    call->chain = frame->chain;
    call->chain_bytes = frame->chain_bytes;
    if (frame->deadline_ns != 0 &&
        (call->deadline_ns == 0 || frame->deadline_ns < call->deadline_ns)) {
        call->deadline_ns = frame->deadline_ns;
    }
}

/* A tell that left is over; one that waits gives an awaitable for its turn. */
static PyObject *tell_result(core_ref *ref, PyObject *label, int waits)
{
    core_runtime *rt = ref->rt;
    if (waits < 0) {
        return NULL;
    }
    if (waits == 0) {
        if (rt->loop == NULL) {
            Py_RETURN_NONE;
        }
        return Py_NewRef(rt->state->done);
    }
    core_call *call = core_call_new(rt, ref, label);
    if (call == NULL) {
        return NULL;
    }
    call->tell = true;
    pulsing_sent_notify(rt->p, call);
    Py_INCREF(call); /* the runtime's, until on_sent */
    if (rt->loop != NULL) {
        return (PyObject *)call;
    }
    PyObject *result = core_call_wait(call);
    Py_DECREF(call);
    return result;
}

/* An ask that was sent: an awaitable, or in the blocking form its result. */
static PyObject *ask_result(core_call *call)
{
    if (call->rt->loop != NULL) {
        return (PyObject *)call;
    }
    PyObject *result = core_call_wait(call);
    Py_DECREF(call);
    return result;
}

typedef struct outgoing {
    PyObject *const *args;
    size_t arg_count;
    PyObject *kwnames;
    PyObject *object;            /* instead of arguments: a message for receive() */
    const core_payload *payload; /* instead of arguments: they were encoded before */
} outgoing;

static PyObject *request_send(core_ref *ref, PyObject *name, double timeout, bool tell,
                              const outgoing *out)
{
    core_runtime *rt = ref->rt;
    pulsing_send send;
    pulsing_call info = {.tell = tell};
    Py_ssize_t name_bytes = 0;
    if (core_check_use(rt) < 0) {
        return NULL;
    }
    info.method = name != NULL ? PyUnicode_AsUTF8AndSize(name, &name_bytes) : "";
    if (info.method == NULL || name_bytes > 255) {
        PyErr_Format(PyExc_AttributeError, "a method's name has at most 255 bytes");
        return NULL;
    }
    info.method_bytes = (uint8_t)name_bytes;
    core_call *call = NULL;
    call_describe(rt, &info, timeout);
    if (!tell) {
        call = core_call_new(rt, ref, name);
        if (call == NULL) {
            return NULL;
        }
        info.user = call;
    }
    pls_err err = pulsing_call_begin(rt->p, ref->target, &info, &send);
    if (err != PLS_OK) {
        Py_XDECREF(call);
        core_fail_target(rt->state, err, ref);
        return NULL;
    }
    if (call != NULL) {
        call->call_id = send.call_id;
        call->deadline_ns = info.deadline_ns;
        call->timeout = timeout >= 0 ? timeout : rt->ask_timeout;
        Py_INCREF(call); /* the table's, until on_reply */
    }
    int waits = out->payload != NULL ? core_send_payload(rt, &send, out->payload)
                : out->object != NULL
                    ? core_send_message(rt, &send, out->object)
                    : core_send_call(rt, &send, out->args, out->arg_count, out->kwnames);
    if (tell) {
        return tell_result(ref, name, waits);
    }
    if (waits < 0) {
        call->call_id = 0;
        Py_DECREF(call);
        Py_DECREF(call);
        return NULL;
    }
    return ask_result(call);
}

PyObject *core_endpoint_call(PyObject *self, PyObject *const *args, size_t nargsf,
                             PyObject *kwnames)
{
    core_endpoint *endpoint = (core_endpoint *)self;
    outgoing out = {args, (size_t)PyVectorcall_NARGS(nargsf), kwnames, NULL, NULL};
    return request_send(endpoint->ref, endpoint->name, endpoint->timeout, endpoint->tell, &out);
}

PyObject *core_message_send(core_ref *ref, PyObject *message, double timeout, bool tell)
{
    outgoing out = {NULL, 0, NULL, message, NULL};
    return request_send(ref, NULL, timeout, tell, &out);
}

/* One awaitable per ref; a ref that is dead gives its exception in the awaitable's place. */
static PyObject *broadcast_each(PyObject *refs, PyObject *name, bool tell,
                                const core_payload *payload)
{
    PyObject *calls = PyList_New(0);
    outgoing out = {NULL, 0, NULL, NULL, payload};
    for (Py_ssize_t i = 0; calls != NULL && i < PyList_GET_SIZE(refs); i++) {
        core_ref *ref = (core_ref *)PyList_GET_ITEM(refs, i);
        PyObject *call = request_send(ref, name, -1, tell, &out);
        if (call == NULL) {
            call = core_exception_taken();
        }
        if (call == NULL || PyList_Append(calls, call) < 0) {
            core_clear(&calls);
        }
        Py_XDECREF(call);
    }
    return calls;
}

PyObject *core_broadcast(PyObject *module, PyObject *const *args, Py_ssize_t count,
                         PyObject *kwnames)
{
    core_state *state = core_state_of(module);
    if (count < 3 || !PyList_Check(args[0]) || !PyUnicode_Check(args[1])) {
        PyErr_SetString(PyExc_TypeError, "broadcast(refs, method, tell, *args, **kwargs)");
        return NULL;
    }
    PyObject *refs = args[0];
    core_runtime *rt = NULL;
    unsigned flags = PLS_CODEC_ALLOW_PICKLE;
    unsigned leaves = 0;
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(refs); i++) {
        core_ref *ref = (core_ref *)PyList_GET_ITEM(refs, i);
        if (Py_TYPE((PyObject *)ref) != state->ref_type || (rt != NULL && ref->rt != rt)) {
            PyErr_SetString(PyExc_TypeError, "broadcast() takes refs of one system");
            return NULL;
        }
        rt = ref->rt;
        uint32_t slot = pulsing_target_slot(ref->target);
        flags &= core_codec_flags(rt, slot);
        leaves |= slot == PULSING_FAR_SLOT ? CORE_LEAVES_HOST : 0;
    }
    if (rt == NULL) {
        return PyList_New(0);
    }
    core_payload *payload = PyMem_Malloc(sizeof *payload);
    PyObject *calls = NULL;
    if (payload == NULL) {
        return PyErr_NoMemory();
    }
    if (core_check_use(rt) == 0 && core_payload_encode(rt, args + 3, (size_t)count - 3, kwnames,
                                                       flags | leaves, payload) == 0) {
        calls = broadcast_each(refs, args[1], PyObject_IsTrue(args[2]) == 1, payload);
        core_payload_free(rt, payload);
    }
    PyMem_Free(payload);
    return calls;
}

static core_endpoint *endpoint_like(core_endpoint *endpoint)
{
    core_endpoint *copy = (core_endpoint *)core_endpoint_new(endpoint->ref, endpoint->name);
    if (copy != NULL) {
        copy->timeout = endpoint->timeout;
        copy->tell = endpoint->tell;
    }
    return copy;
}

static PyObject *endpoint_get_tell(PyObject *self, void *Py_UNUSED(closure))
{
    core_endpoint *endpoint = (core_endpoint *)self;
    if (endpoint->teller == NULL) {
        core_endpoint *teller = endpoint_like(endpoint);
        if (teller == NULL) {
            return NULL;
        }
        teller->tell = true;
        endpoint->teller = (PyObject *)teller;
    }
    return Py_NewRef(endpoint->teller);
}

static PyObject *endpoint_options(PyObject *self, PyObject *args, PyObject *kwargs)
{
    static char *keywords[] = {"timeout", NULL};
    PyObject *timeout = NULL;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|$O:options", keywords, &timeout)) {
        return NULL;
    }
    double seconds = core_timeout_of(timeout);
    if (seconds == -2) {
        return NULL;
    }
    core_endpoint *copy = endpoint_like((core_endpoint *)self);
    if (copy != NULL) {
        copy->timeout = seconds;
    }
    return (PyObject *)copy;
}

static PyObject *endpoint_repr(PyObject *self)
{
    core_endpoint *endpoint = (core_endpoint *)self;
    return PyUnicode_FromFormat("<%s%U of %R>", endpoint->tell ? "tell " : "", endpoint->name,
                                endpoint->ref);
}

static int endpoint_traverse(PyObject *self, visitproc visit, void *arg)
{
    core_endpoint *endpoint = (core_endpoint *)self;
    Py_VISIT(Py_TYPE(self));
    Py_VISIT((PyObject *)endpoint->ref);
    Py_VISIT(endpoint->teller);
    return 0;
}

static int endpoint_clear(PyObject *self)
{
    Py_CLEAR(((core_endpoint *)self)->teller);
    return 0;
}

static void endpoint_dealloc(PyObject *self)
{
    core_endpoint *endpoint = (core_endpoint *)self;
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    Py_XDECREF(endpoint->teller);
    Py_DECREF(endpoint->name);
    Py_DECREF(endpoint->ref);
    PyObject_GC_Del(self);
    Py_DECREF(type);
}

static PyMethodDef endpoint_methods[] = {
    {"options", (PyCFunction)(void (*)(void))endpoint_options, METH_VARARGS | METH_KEYWORDS,
     "options(timeout=None): the same method with other options."},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef endpoint_members[] = {
    {"__vectorcalloffset__", T_PYSSIZET, offsetof(core_endpoint, vectorcall), READONLY, NULL},
    {"__name__", T_OBJECT, offsetof(core_endpoint, name), READONLY, NULL},
    {"ref", T_OBJECT, offsetof(core_endpoint, ref), READONLY, "The ref it belongs to."},
    {NULL, 0, 0, 0, NULL},
};

static PyGetSetDef endpoint_getset[] = {
    {"tell", endpoint_get_tell, NULL, "The same method, called without wanting an answer.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot endpoint_slots[] = {
    {Py_tp_dealloc, endpoint_dealloc},
    {Py_tp_traverse, endpoint_traverse},
    {Py_tp_clear, endpoint_clear},
    {Py_tp_call, PyVectorcall_Call},
    {Py_tp_repr, endpoint_repr},
    {Py_tp_methods, endpoint_methods},
    {Py_tp_members, endpoint_members},
    {Py_tp_getset, endpoint_getset},
    {Py_tp_doc, "A method of an actor: call it for an awaitable result."},
    {0, NULL},
};

PyType_Spec core_endpoint_spec = {
    .name = "pulsing._core.Endpoint",
    .basicsize = sizeof(core_endpoint),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_HAVE_VECTORCALL |
             Py_TPFLAGS_IMMUTABLETYPE | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = endpoint_slots,
};
