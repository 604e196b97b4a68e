/* SPDX-License-Identifier: Apache-2.0 */
/* A ref: an actor's address bound to this process's runtime. Its methods are Endpoints, made once
 * per ref and name; calling one encodes the arguments into the receiver's ring and gives a Call. */
#include "python/core_parts.h"

#include <string.h>
#include <unistd.h>

/* Takes the reference to `target`. */
static core_ref *ref_over(core_runtime *rt, pulsing_target *target, PyObject *node_id,
                          PyObject *name, PyObject *class_name)
{
    core_ref *ref = PyObject_GC_New(core_ref, rt->state->ref_type);
    if (ref == NULL) {
        pulsing_target_release(target);
        return NULL;
    }
    ref->rt = (core_runtime *)Py_NewRef((PyObject *)rt);
    ref->target = target;
    ref->node_id = Py_NewRef(node_id);
    ref->id = 0;
    ref->restartable = false;
    ref->name = Py_NewRef(name);
    ref->class_name = Py_NewRef(class_name);
    ref->endpoints = PyDict_New();
    PyObject_GC_Track(ref);
    if (ref->endpoints == NULL) {
        Py_CLEAR(ref);
    }
    return ref;
}

PyObject *core_ref_new(core_runtime *rt, uint64_t actor_id, uint32_t window, bool restartable,
                       PyObject *name, PyObject *class_name)
{
    pulsing_target *target = NULL;
    if (core_check_use(rt) < 0) {
        return NULL;
    }
    pls_err err = pulsing_target_get(rt->p, actor_id, window, restartable, &target);
    if (err != PLS_OK) {
        core_fail(rt->state, err, "no ref can be made");
        return NULL;
    }
    core_ref *ref = ref_over(rt, target, rt->node_id, name, class_name);
    if (ref != NULL) {
        ref->id = actor_id;
        ref->restartable = restartable;
    }
    return (PyObject *)ref;
}

PyObject *core_ref_far_new(core_runtime *rt, PyObject *node_id, uint64_t actor_id, uint32_t window,
                           PyObject *name, PyObject *class_name)
{
    pulsing_target *target = NULL;
    const uint8_t *bytes = (const uint8_t *)PyBytes_AsString(node_id);
    if (bytes == NULL || core_check_use(rt) < 0) {
        return NULL;
    }
    pls_err err = PyBytes_GET_SIZE(node_id) != PULSING_NODE_ID_BYTES
                      ? PLS_EINVAL
                      : pulsing_target_far_get(rt->p, bytes, actor_id, window, &target);
    if (err == PLS_EUNSUPPORTED) {
        PyErr_Format(rt->state->errors[CORE_NODE_UNREACHABLE],
                     "actor %llx lives on another node, and this one has no network: give it an "
                     "address with SystemConfig.with_addr(...)",
                     (unsigned long long)actor_id);
        return NULL;
    }
    if (err != PLS_OK) {
        core_fail(rt->state, err, "no ref can be made");
        return NULL;
    }
    core_ref *ref = ref_over(rt, target, node_id, name, class_name);
    if (ref != NULL) {
        ref->id = actor_id;
    }
    return (PyObject *)ref;
}

PyObject *core_endpoint_new(core_ref *ref, PyObject *name)
{
    core_endpoint *endpoint = PyObject_GC_New(core_endpoint, ref->rt->state->endpoint_type);
    if (endpoint == NULL) {
        return NULL;
    }
    endpoint->vectorcall = core_endpoint_call;
    endpoint->ref = (core_ref *)Py_NewRef((PyObject *)ref);
    endpoint->name = Py_NewRef(name);
    endpoint->teller = NULL;
    endpoint->timeout = -1;
    endpoint->tell = false;
    PyObject_GC_Track(endpoint);
    return (PyObject *)endpoint;
}

static PyObject *ref_getattro(PyObject *self, PyObject *name)
{
    core_ref *ref = (core_ref *)self;
    PyObject *endpoint = PyDict_GetItemWithError(ref->endpoints, name);
    if (endpoint != NULL || PyErr_Occurred()) {
        return Py_XNewRef(endpoint);
    }
    PyObject *attribute = PyObject_GenericGetAttr(self, name);
    if (attribute != NULL || !PyErr_ExceptionMatches(PyExc_AttributeError)) {
        return attribute;
    }
    if (PyUnicode_READ_CHAR(name, 0) == '_') {
        if (PyUnicode_GET_LENGTH(name) < 2 || PyUnicode_READ_CHAR(name, 1) != '_') {
            PyErr_Format(PyExc_AttributeError,
                         "'%U' is private to the actor: names with a leading underscore are never "
                         "endpoints",
                         name);
        }
        return NULL;
    }
    PyErr_Clear();
    PyObject *extra = PyDict_GetItemWithError(ref->rt->state->ref_extras, name);
    if (extra != NULL) {
        return PyMethod_New(extra, self);
    }
    endpoint = core_endpoint_new(ref, name);
    if (endpoint != NULL && PyDict_SetItem(ref->endpoints, name, endpoint) < 0) {
        Py_CLEAR(endpoint);
    }
    return endpoint;
}

/* Seconds of a `timeout` argument: NULL or None is the system's; -2 with an exception. */
double core_timeout_of(PyObject *object)
{
    if (object == NULL || object == Py_None) {
        return -1;
    }
    double seconds = PyFloat_AsDouble(object);
    if (seconds == -1 && PyErr_Occurred()) {
        PyErr_Format(PyExc_TypeError, "timeout: expected seconds or None, got %R", object);
        return -2;
    }
    if (!(seconds >= 0)) {
        PyErr_Format(PyExc_ValueError, "timeout: expected seconds, got %R", object);
        return -2;
    }
    return seconds;
}

static PyObject *ref_ask(PyObject *self, PyObject *args, PyObject *kwargs)
{
    static char *keywords[] = {"msg", "timeout", NULL};
    PyObject *message = NULL;
    PyObject *timeout = NULL;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O|O:ask", keywords, &message, &timeout)) {
        return NULL;
    }
    double seconds = core_timeout_of(timeout);
    return seconds == -2 ? NULL : core_message_send((core_ref *)self, message, seconds, false);
}

static PyObject *ref_tell(PyObject *self, PyObject *message)
{
    return core_message_send((core_ref *)self, message, -1, true);
}

static PyObject *ref_is_local(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    core_ref *ref = (core_ref *)self;
    return PyBool_FromLong(ref->rt->p != NULL &&
                           pulsing_target_slot(ref->target) == pulsing_slot(ref->rt->p));
}

static PyObject *ref_get_actor_id(PyObject *self, void *Py_UNUSED(closure))
{
    core_ref *ref = (core_ref *)self;
    return PyObject_CallFunction(ref->rt->state->actor_id_class, "OKO", ref->node_id,
                                 (unsigned long long)ref->id, ref->name);
}

static PyObject *ref_get_id(PyObject *self, void *Py_UNUSED(closure))
{
    return PyLong_FromUnsignedLongLong(((core_ref *)self)->id);
}

static PyObject *ref_get_place(PyObject *self, void *Py_UNUSED(closure))
{
    const pulsing_target *target = ((core_ref *)self)->target;
    return Py_BuildValue("(II)", (unsigned)pulsing_target_slot(target),
                         (unsigned)pulsing_target_epoch(target));
}

static PyObject *ref_get_far(PyObject *self, void *Py_UNUSED(closure))
{
    core_ref *ref = (core_ref *)self;
    int same = PyObject_RichCompareBool(ref->rt->node_id, ref->node_id, Py_EQ);
    return same < 0 ? NULL : Py_NewRef(same ? Py_None : ref->node_id);
}

static PyObject *ref_repr(PyObject *self)
{
    core_ref *ref = (core_ref *)self;
    PyObject *words = core_ref_words(ref);
    PyObject *text = words != NULL ? PyUnicode_FromFormat("<ref to %U>", words) : NULL;
    Py_XDECREF(words);
    return text;
}

static Py_hash_t ref_hash(PyObject *self)
{
    core_ref *ref = (core_ref *)self;
    Py_hash_t hash = PyObject_Hash(ref->node_id);
    hash = (Py_hash_t)((uint64_t)hash ^ (ref->id * 0x9e3779b97f4a7c15ull));
    return hash == -1 ? -2 : hash;
}

static PyObject *ref_compare(PyObject *self, PyObject *other, int op)
{
    if (Py_TYPE(self) != Py_TYPE(other) || (op != Py_EQ && op != Py_NE)) {
        Py_RETURN_NOTIMPLEMENTED;
    }
    core_ref *a = (core_ref *)self;
    core_ref *b = (core_ref *)other;
    int same = a->id == b->id;
    if (same) {
        same = PyObject_RichCompareBool(a->node_id, b->node_id, Py_EQ);
    }
    return same < 0 ? NULL : PyBool_FromLong(op == Py_EQ ? same : !same);
}

static PyObject *ref_reduce(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    PyErr_SetString(PyExc_TypeError,
                    "a ref travels in Pulsing messages only; to keep one elsewhere, "
                    "keep the actor's name and find() it");
    (void)self;
    return NULL;
}

static int ref_traverse(PyObject *self, visitproc visit, void *arg)
{
    core_ref *ref = (core_ref *)self;
    Py_VISIT(Py_TYPE(self));
    Py_VISIT((PyObject *)ref->rt);
    Py_VISIT(ref->endpoints);
    return 0;
}

static int ref_clear(PyObject *self)
{
    Py_CLEAR(((core_ref *)self)->endpoints);
    return 0;
}

static void ref_dealloc(PyObject *self)
{
    core_ref *ref = (core_ref *)self;
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    Py_XDECREF(ref->endpoints);
    if (ref->rt->p != NULL && ref->rt->pid == getpid()) {
        pulsing_target_release(ref->target);
    }
    Py_DECREF(ref->node_id);
    Py_XDECREF(ref->name);
    Py_XDECREF(ref->class_name);
    Py_DECREF(ref->rt);
    PyObject_GC_Del(self);
    Py_DECREF(type);
}

/* How refs travel: actor id, window, flags, node id, and what they are called; bound again on
 * arrival. */
typedef struct ref_wire {
    uint64_t id;
    uint32_t window;
    uint8_t restartable;
    uint8_t node_id[PULSING_NODE_ID_BYTES];
} __attribute__((packed)) ref_wire;

static int ref_encode(pls_codec *codec, PyObject *object, pls_sink *sink)
{
    core_ref *ref = (core_ref *)object;
    core_runtime *rt = sink->context;
    ref_wire wire = {.id = ref->id, .restartable = ref->restartable};
    wire.window = ref->rt->p != NULL ? pulsing_target_window(ref->target) : 0;
    memcpy(wire.node_id, PyBytes_AS_STRING(ref->node_id), sizeof wire.node_id);
    if (rt != NULL && rt != ref->rt && !rt->networked) {
        int same = PyObject_RichCompareBool(rt->node_id, ref->node_id, Py_EQ);
        if (same == 0) {
            PyErr_Format(rt->state->errors[CORE_CODEC_ERROR],
                         "%R belongs to another system, which this one is not connected to",
                         object);
        }
        if (same != 1) {
            return -1;
        }
    }
    if (pls_sink_put(sink, &wire, sizeof wire) < 0 || pls_codec_put(codec, ref->name, sink) < 0) {
        return -1;
    }
    return pls_codec_put(codec, ref->class_name, sink);
}

/* A ref to an actor of this node, as nearly all are, or of another one. */
static PyObject *ref_bind(core_runtime *rt, const ref_wire *wire, PyObject *name,
                          PyObject *class_name)
{
    if (memcmp(wire->node_id, PyBytes_AS_STRING(rt->node_id), sizeof wire->node_id) == 0) {
        return core_ref_new(rt, wire->id, wire->window, wire->restartable != 0, name, class_name);
    }
    PyObject *node_id =
        PyBytes_FromStringAndSize((const char *)wire->node_id, sizeof wire->node_id);
    PyObject *ref = node_id != NULL
                        ? core_ref_far_new(rt, node_id, wire->id, wire->window, name, class_name)
                        : NULL;
    Py_XDECREF(node_id);
    if (ref != NULL) {
        ((core_ref *)ref)->restartable = wire->restartable != 0;
    }
    return ref;
}

static PyObject *ref_decode(pls_codec *codec, pls_source *source)
{
    core_runtime *rt = source->context;
    ref_wire wire;
    const uint8_t *bytes = pls_source_take(source, sizeof wire);
    if (bytes == NULL) {
        return NULL;
    }
    memcpy(&wire, bytes, sizeof wire);
    PyObject *name = pls_codec_take(codec, source);
    PyObject *class_name = name != NULL ? pls_codec_take(codec, source) : NULL;
    PyObject *ref = NULL;
    if (class_name != NULL && PyUnicode_Check(class_name) &&
        (name == Py_None || PyUnicode_Check(name))) {
        ref = ref_bind(rt, &wire, name, class_name);
    } else if (!PyErr_Occurred()) {
        PyErr_SetString(rt->state->errors[CORE_CODEC_ERROR], "a ref in a message is malformed");
    }
    Py_XDECREF(name);
    Py_XDECREF(class_name);
    return ref;
}

int core_refs_register(core_state *state)
{
    return pls_codec_register(&state->codec, state->ref_type, PLS_CODEC_SPECIAL_FIRST, ref_encode,
                              ref_decode);
}

static PyMethodDef ref_methods[] = {
    {"ask", (PyCFunction)(void (*)(void))ref_ask, METH_VARARGS | METH_KEYWORDS,
     "ask(msg, timeout=None): send a message to receive() and await its answer."},
    {"tell", ref_tell, METH_O, "tell(msg): send a message to receive(); no answer is wanted."},
    {"is_local", ref_is_local, METH_NOARGS, "Whether the actor lives in this process."},
    {"__reduce__", ref_reduce, METH_NOARGS, NULL},
    {"__class_getitem__", Py_GenericAlias, METH_O | METH_CLASS, "Ref[Actor], for annotations."},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef ref_members[] = {
    {"name", T_OBJECT, offsetof(core_ref, name), READONLY, "The actor's name, or None."},
    {"_class_name", T_OBJECT, offsetof(core_ref, class_name), READONLY, "The actor's class."},
    {NULL, 0, 0, 0, NULL},
};

static PyGetSetDef ref_getset[] = {
    {"actor_id", ref_get_actor_id, NULL, "The actor's id.", NULL},
    {"_id", ref_get_id, NULL, "The actor's id on its node, a number.", NULL},
    {"_far", ref_get_far, NULL, "The id of its node, or None: it is this one.", NULL},
    {"_place", ref_get_place, NULL, "The process where it lives: slot and epoch.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot ref_slots[] = {
    {Py_tp_dealloc, ref_dealloc},
    {Py_tp_traverse, ref_traverse},
    {Py_tp_clear, ref_clear},
    {Py_tp_getattro, ref_getattro},
    {Py_tp_repr, ref_repr},
    {Py_tp_hash, ref_hash},
    {Py_tp_richcompare, ref_compare},
    {Py_tp_methods, ref_methods},
    {Py_tp_members, ref_members},
    {Py_tp_getset, ref_getset},
    {Py_tp_doc, "An actor's address: call its methods with await."},
    {0, NULL},
};

PyType_Spec core_ref_spec = {
    .name = "pulsing._core.Ref",
    .basicsize = sizeof(core_ref),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE |
             Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = ref_slots,
};
