/* SPDX-License-Identifier: Apache-2.0 */
/* An actor hosted in this process, as Python handles it: the object, its endpoints, its context,
 * and a handle on its mailbox. Made by Runtime.host(). */
#include "python/core_parts.h"

static pulsing *cell_runtime(core_cell *cell)
{
    if (cell->rt->p == NULL || cell->actor == NULL) {
        PyErr_SetString(cell->rt->state->errors[CORE_SYSTEM_CLOSED],
                        "the actor or its system has ended");
        return NULL;
    }
    return cell->rt->p;
}

static PyObject *cell_stop(PyObject *self, PyObject *now)
{
    core_cell *cell = (core_cell *)self;
    pulsing *p = cell_runtime(cell);
    if (p == NULL) {
        return NULL;
    }
    pulsing_actor_stop(p, cell->actor, PyObject_IsTrue(now) == 1);
    Py_RETURN_NONE;
}

static PyObject *cell_hold(PyObject *self, PyObject *hold)
{
    core_cell *cell = (core_cell *)self;
    pulsing *p = cell_runtime(cell);
    if (p == NULL) {
        return NULL;
    }
    pulsing_actor_hold(p, cell->actor, PyObject_IsTrue(hold) == 1);
    Py_RETURN_NONE;
}

static PyObject *cell_remove(PyObject *self, PyObject *text)
{
    core_cell *cell = (core_cell *)self;
    const char *utf8 = PyUnicode_AsUTF8(text);
    if (utf8 == NULL) {
        return NULL;
    }
    if (cell->rt->p != NULL && cell->actor != NULL) {
        pulsing_actor *actor = cell->actor;
        cell->actor = NULL;
        core_streams_end(cell, utf8);
        pulsing_actor_remove(cell->rt->p, actor, utf8);
        Py_DECREF(cell); /* the runtime's */
    }
    Py_RETURN_NONE;
}

static PyObject *cell_cancel_running(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    core_cell *cell = (core_cell *)self;
    PyObject *tasks = PyList_New(0);
    for (core_invocation *at = cell->invocations; at != NULL && tasks != NULL; at = at->next) {
        if (at->task != NULL && PyList_Append(tasks, at->task) < 0) {
            core_clear(&tasks);
        }
    }
    return tasks;
}

static PyObject *cell_set_instance(PyObject *self, PyObject *instance)
{
    core_cell *cell = (core_cell *)self;
    PyObject *before = cell->instance;
    cell->instance = Py_NewRef(instance);
    Py_DECREF(before);
    Py_RETURN_NONE;
}

static PyObject *cell_get_queued(PyObject *self, void *Py_UNUSED(closure))
{
    core_cell *cell = (core_cell *)self;
    uint32_t queued =
        cell->actor != NULL && cell->rt->p != NULL ? pulsing_actor_queued(cell->actor) : 0;
    return PyLong_FromUnsignedLong(queued);
}

static PyObject *cell_get_running(PyObject *self, void *Py_UNUSED(closure))
{
    core_cell *cell = (core_cell *)self;
    uint32_t running =
        cell->actor != NULL && cell->rt->p != NULL ? pulsing_actor_running(cell->actor) : 0;
    return PyLong_FromUnsignedLong(running);
}

static PyObject *cell_get_id(PyObject *self, void *Py_UNUSED(closure))
{
    return PyLong_FromUnsignedLongLong(((core_cell *)self)->id);
}

static int cell_traverse(PyObject *self, visitproc visit, void *arg)
{
    core_cell *cell = (core_cell *)self;
    Py_VISIT(Py_TYPE(self));
    Py_VISIT((PyObject *)cell->rt);
    Py_VISIT(cell->instance);
    Py_VISIT(cell->methods);
    Py_VISIT(cell->receive);
    Py_VISIT(cell->context);
    Py_VISIT(cell->writers);
    Py_VISIT(cell->drained);
    Py_VISIT(cell->failed);
    return 0;
}

static int cell_clear(PyObject *self)
{
    core_cell *cell = (core_cell *)self;
    Py_CLEAR(cell->context);
    Py_CLEAR(cell->writers);
    Py_CLEAR(cell->drained);
    Py_CLEAR(cell->failed);
    return 0;
}

static void cell_dealloc(PyObject *self)
{
    core_cell *cell = (core_cell *)self;
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    cell_clear(self);
    Py_XDECREF(cell->instance);
    Py_XDECREF(cell->methods);
    Py_XDECREF(cell->receive);
    Py_XDECREF(cell->name);
    Py_XDECREF(cell->rt);
    PyObject_GC_Del(self);
    Py_DECREF(type);
}

static PyMethodDef cell_methods[] = {
    {"stop", cell_stop, METH_O,
     "stop(now): accept no more messages; `drained` is called at the end."},
    {"hold", cell_hold, METH_O, "hold(bool): whether new messages may start."},
    {"remove", cell_remove, METH_O,
     "remove(text): forget the actor; what waits ends in ActorDied."},
    {"tasks", cell_cancel_running, METH_NOARGS, "The tasks that handle messages now."},
    {"set_instance", cell_set_instance, METH_O, "Replace the object, when the actor is rebuilt."},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef cell_members[] = {
    {"instance", T_OBJECT, offsetof(core_cell, instance), READONLY, "The actor's object."},
    {"name", T_OBJECT, offsetof(core_cell, name), READONLY, "What the actor is called."},
    {"context", T_OBJECT, offsetof(core_cell, context), READONLY, "The actor's context."},
    {"drained", T_OBJECT, offsetof(core_cell, drained), 0, "Called when a stopping actor is done."},
    {"failed", T_OBJECT, offsetof(core_cell, failed), 0,
     "Called with (exception, somebody waits)."},
    {NULL, 0, 0, 0, NULL},
};

static PyGetSetDef cell_getset[] = {
    {"queued", cell_get_queued, NULL, "Messages that wait.", NULL},
    {"running", cell_get_running, NULL, "Messages that are being handled.", NULL},
    {"id", cell_get_id, NULL, "The actor's id.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot cell_slots[] = {
    {Py_tp_dealloc, cell_dealloc},
    {Py_tp_traverse, cell_traverse},
    {Py_tp_clear, cell_clear},
    {Py_tp_methods, cell_methods},
    {Py_tp_members, cell_members},
    {Py_tp_getset, cell_getset},
    {Py_tp_doc, "An actor hosted in this process."},
    {0, NULL},
};

PyType_Spec core_cell_spec = {
    .name = "pulsing._core.Cell",
    .basicsize = sizeof(core_cell),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE |
             Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = cell_slots,
};
