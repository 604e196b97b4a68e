/* SPDX-License-Identifier: Apache-2.0 */
/* Requests to the node process, and what it says by itself. Every request gives a Call whose result
 * is the tuple (status, slot, epoch, actor, number, flags, text, data), status 0 for success. */
#include "python/control.h"

#include "node/requests.h"

static PyObject *event_tuple(const pls_attach_event *event)
{
    return Py_BuildValue(
        "(iIIKKIs#y#)", (int)event->status, (unsigned)event->slot, (unsigned)event->epoch,
        (unsigned long long)event->actor, (unsigned long long)event->number, (unsigned)event->flags,
        event->text_bytes > 0 ? event->text : "", (Py_ssize_t)event->text_bytes,
        event->data_bytes > 0 ? (const char *)event->data : "", (Py_ssize_t)event->data_bytes);
}

/* Where an actor lives that is not at its birthplace any more. */
static int locate_handle(core_runtime *rt, const pls_attach_event *event, uint64_t actor)
{
    if (event->status != PLS_OK) {
        pulsing_target_kill(rt->p, actor, PULSING_DIED, "its process died and it was not rebuilt");
    } else if ((event->flags & PLS_ACTOR_REBUILDING) == 0) {
        pulsing_target_move(rt->p, actor, event->slot, event->epoch);
    }
    return 0; /* while it is being rebuilt, ROUTE or ACTOR_LOST follows */
}

void core_control_locate(void *context, uint64_t actor)
{
    core_runtime *rt = context;
    uint32_t request = 0;
    if (pls_attach_actor_find(pulsing_attach_of(rt->p), actor, &request) != PLS_OK) {
        return; /* the node is gone, and every call ends with it */
    }
    PyObject *key = PyLong_FromUnsignedLong(request);
    PyObject *value = PyLong_FromUnsignedLongLong(actor);
    if (key == NULL || value == NULL || PyDict_SetItem(rt->requests, key, value) < 0) {
        PyErr_WriteUnraisable((PyObject *)rt);
    }
    Py_XDECREF(key);
    Py_XDECREF(value);
}

static int reply_handle(core_runtime *rt, const pls_attach_event *event)
{
    PyObject *key = PyLong_FromUnsignedLong(event->request);
    if (key == NULL) {
        return -1;
    }
    PyObject *found = PyDict_GetItemWithError(rt->requests, key);
    core_call *call = found != NULL && !PyLong_Check(found) ? (core_call *)found : NULL;
    int result = 0;
    if (found != NULL && call == NULL) {
        uint64_t actor = PyLong_AsUnsignedLongLong(found);
        result = PyDict_DelItem(rt->requests, key);
        result |= locate_handle(rt, event, actor);
    }
    if (call != NULL) {
        Py_INCREF(call);
        result = PyDict_DelItem(rt->requests, key);
        PyObject *tuple = event_tuple(event);
        if (tuple != NULL) {
            core_call_finish(call, tuple, NULL);
        } else {
            result = -1;
        }
        Py_DECREF(call);
    }
    Py_DECREF(key);
    return result;
}

static int target_lost(core_runtime *rt, const pls_attach_event *event)
{
    PyObject *text = PyUnicode_DecodeUTF8(event->text, (Py_ssize_t)event->text_bytes, "replace");
    const char *utf8 = text != NULL ? PyUnicode_AsUTF8(text) : NULL;
    if (utf8 != NULL) {
        pulsing_target_kill(rt->p, event->actor, PULSING_DIED, utf8);
    }
    Py_XDECREF(text);
    return utf8 != NULL ? 0 : -1;
}

static int notice(core_runtime *rt, const char *method, PyObject *args)
{
    if (args == NULL || rt->host == NULL) {
        Py_XDECREF(args);
        return PyErr_Occurred() ? -1 : 0;
    }
    PyObject *bound = PyObject_GetAttrString(rt->host, method);
    PyObject *none = bound != NULL ? PyObject_CallObject(bound, args) : NULL;
    Py_XDECREF(bound);
    Py_DECREF(args);
    Py_XDECREF(none);
    return none != NULL ? 0 : -1;
}

static int event_handle(core_runtime *rt, const pls_attach_event *event)
{
    switch (event->type) {
    case PLS_EVENT_REPLY:
        return reply_handle(rt, event);
    case PLS_EVENT_ROUTE:
        pulsing_target_move(rt->p, event->actor, event->slot, event->epoch);
        return 0;
    case PLS_EVENT_ACTOR_LOST:
        return target_lost(rt, event);
    case PLS_EVENT_REBUILD:
        return notice(rt, "on_rebuild",
                      Py_BuildValue("(KKs#y#)", (unsigned long long)event->actor,
                                    (unsigned long long)event->number,
                                    event->name_bytes > 0 ? event->name : "",
                                    (Py_ssize_t)event->name_bytes,
                                    event->data_bytes > 0 ? (const char *)event->data : "",
                                    (Py_ssize_t)event->data_bytes));
    case PLS_EVENT_MEMBER:
        return notice(rt, "on_member",
                      Py_BuildValue("(Ky#y#)", (unsigned long long)event->number,
                                    event->data_bytes > 0 ? (const char *)event->data : "",
                                    (Py_ssize_t)event->data_bytes,
                                    event->name_bytes > 0 ? event->name : "",
                                    (Py_ssize_t)event->name_bytes));
    case PLS_EVENT_SHUTDOWN:
        return notice(rt, "on_shutdown", Py_BuildValue("(K)", (unsigned long long)event->number));
    }
    return 0;
}

static int node_gone(core_runtime *rt)
{
    char text[160];
    if (rt->gone) {
        return 0;
    }
    rt->gone = true;
    const pls_attach_info *info = pls_attach_info_of(pulsing_attach_of(rt->p));
    PyOS_snprintf(text, sizeof text, "the system is closed: its node process (pid %u) has ended",
                  info->node_pid);
    pulsing_fail(rt->p, text);
    PyObject *calls = PyDict_Values(rt->requests);
    if (calls == NULL) {
        return -1;
    }
    PyDict_Clear(rt->requests);
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(calls); i++) {
        if (Py_TYPE(PyList_GET_ITEM(calls, i)) == rt->state->call_type) {
            PyObject *exception = core_exception(rt->state, CORE_SYSTEM_CLOSED, "%s", text);
            core_call_finish((core_call *)PyList_GET_ITEM(calls, i), NULL, exception);
        }
    }
    Py_DECREF(calls);
    return notice(rt, "on_node_gone", Py_BuildValue("(s)", text));
}

PyObject *core_control_poll(core_runtime *rt)
{
    if (rt->p == NULL) {
        Py_RETURN_FALSE;
    }
    struct pls_attach *attach = pulsing_attach_of(rt->p);
    for (;;) {
        pls_attach_event event;
        pls_err err = pls_attach_poll(attach, &event);
        if (err == PLS_EEMPTY) {
            break;
        }
        if (err != PLS_OK) {
            if (node_gone(rt) < 0) {
                return NULL;
            }
            Py_RETURN_FALSE;
        }
        if (event_handle(rt, &event) < 0) {
            return NULL;
        }
        if (rt->p == NULL) {
            Py_RETURN_FALSE;
        }
    }
    return PyBool_FromLong(pls_attach_wants_write(attach));
}

/* The Call for a request that was sent, or its failure. */
static PyObject *request_sent(core_runtime *rt, pls_err err, uint32_t request, const char *what)
{
    if (err != PLS_OK) {
        core_fail(rt->state, err, what);
        return NULL;
    }
    PyObject *label = PyUnicode_FromString(what);
    core_call *call = label != NULL ? core_call_new(rt, NULL, label) : NULL;
    PyObject *key = PyLong_FromUnsignedLong(request);
    Py_XDECREF(label);
    if (call == NULL || key == NULL || PyDict_SetItem(rt->requests, key, (PyObject *)call) < 0) {
        Py_XDECREF(call);
        Py_XDECREF(key);
        return NULL;
    }
    Py_DECREF(key);
    call->control = true;
    if (rt->loop != NULL) {
        return (PyObject *)call;
    }
    PyObject *result = core_call_wait(call);
    Py_DECREF(call);
    return result;
}

static struct pls_attach *control_of(PyObject *self)
{
    core_runtime *rt = (core_runtime *)self;
    return core_check_use(rt) < 0 ? NULL : pulsing_attach_of(rt->p);
}

#define CONTROL_MAX_CPUS 1024
#define CONTROL_MAX_ENV 1024

/* The strings of a list, borrowed and NULL-terminated. */
static int place_env(PyObject *env, const char **env_out)
{
    Py_ssize_t count = PyList_Size(env);
    if (count < 0 || count >= CONTROL_MAX_ENV) {
        PyErr_SetString(PyExc_ValueError, "env: expected a list of at most 1023 'NAME=value'");
        return -1;
    }
    for (Py_ssize_t i = 0; i < count; i++) {
        env_out[i] = PyUnicode_AsUTF8(PyList_GET_ITEM(env, i));
        if (env_out[i] == NULL) {
            return -1;
        }
    }
    env_out[count] = NULL;
    return 0;
}

static int place_cpus(PyObject *cpus, uint16_t *cpus_out, uint32_t *count_out)
{
    Py_ssize_t count = PyList_Size(cpus);
    if (count < 0 || count > CONTROL_MAX_CPUS) {
        PyErr_SetString(PyExc_ValueError, "cpus: expected a list of at most 1024 numbers");
        return -1;
    }
    for (Py_ssize_t i = 0; i < count; i++) {
        long cpu = PyLong_AsLong(PyList_GET_ITEM(cpus, i));
        if (cpu < 0 || cpu > UINT16_MAX) {
            PyErr_Format(PyExc_ValueError, "cpus: expected CPU numbers, got %R",
                         PyList_GET_ITEM(cpus, i));
            return -1;
        }
        cpus_out[i] = (uint16_t)cpu;
    }
    *count_out = (uint32_t)count;
    return 0;
}

PyObject *core_control_place(PyObject *self, PyObject *args)
{
    unsigned kind = 0;
    unsigned index = 0;
    PyObject *env = NULL;
    PyObject *cpus = NULL;
    const char *env_list[CONTROL_MAX_ENV];
    uint16_t cpu_list[CONTROL_MAX_CPUS];
    struct pls_attach *attach = control_of(self);
    if (attach == NULL || !PyArg_ParseTuple(args, "IIOO", &kind, &index, &env, &cpus)) {
        return NULL;
    }
    pls_place_options options = {.kind = (pls_place_kind)kind, .index = index};
    if (env != Py_None) {
        options.env = env_list;
    }
    if (cpus != Py_None) {
        options.cpus = cpu_list;
    }
    if ((env != Py_None && place_env(env, env_list) < 0) ||
        (cpus != Py_None && place_cpus(cpus, cpu_list, &options.cpu_count) < 0)) {
        return NULL;
    }
    uint32_t request = 0;
    pls_err err = pls_attach_place(attach, &options, &request);
    return request_sent((core_runtime *)self, err, request, "placing an actor");
}

PyObject *core_control_name_register(PyObject *self, PyObject *args)
{
    pls_name_entry entry = {0};
    unsigned long long actor = 0;
    unsigned flags = 0;
    Py_ssize_t name_bytes = 0;
    Py_ssize_t class_bytes = 0;
    Py_ssize_t metadata_bytes = 0;
    struct pls_attach *attach = control_of(self);
    if (attach == NULL || !PyArg_ParseTuple(args, "s#KIs#y#", &entry.name, &name_bytes, &actor,
                                            &flags, &entry.class_name, &class_bytes,
                                            (const char **)&entry.metadata, &metadata_bytes)) {
        return NULL;
    }
    entry.actor = actor;
    entry.flags = flags;
    entry.name_bytes = (size_t)name_bytes;
    entry.class_name_bytes = (size_t)class_bytes;
    entry.metadata_bytes = (size_t)metadata_bytes;
    uint32_t request = 0;
    pls_err err = pls_attach_name_register(attach, &entry, &request);
    return request_sent((core_runtime *)self, err, request, "registering a name");
}

PyObject *core_control_name_unregister(PyObject *self, PyObject *args)
{
    const char *name = NULL;
    Py_ssize_t name_bytes = 0;
    unsigned long long actor = 0;
    uint32_t request = 0;
    struct pls_attach *attach = control_of(self);
    if (attach == NULL || !PyArg_ParseTuple(args, "s#K", &name, &name_bytes, &actor)) {
        return NULL;
    }
    pls_err err = pls_attach_name_unregister(attach, name, (size_t)name_bytes, actor, &request);
    return request_sent((core_runtime *)self, err, request, "unregistering a name");
}

PyObject *core_control_name_find(PyObject *self, PyObject *args)
{
    const char *name = NULL;
    Py_ssize_t name_bytes = 0;
    pls_find_options options = {.flags = PLS_FIND_LOCAL};
    uint32_t request = 0;
    struct pls_attach *attach = control_of(self);
    if (attach == NULL ||
        !PyArg_ParseTuple(args, "s#I|I", &name, &name_bytes, &options.wait_ms, &options.flags)) {
        return NULL;
    }
    pls_err err = pls_attach_name_search(attach, name, (size_t)name_bytes, &options, &request);
    return request_sent((core_runtime *)self, err, request, "finding a name");
}

PyObject *core_control_names_list(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    uint32_t request = 0;
    struct pls_attach *attach = control_of(self);
    if (attach == NULL) {
        return NULL;
    }
    pls_err err = pls_attach_names_list(attach, &request);
    return request_sent((core_runtime *)self, err, request, "listing names");
}

PyObject *core_control_members_list(PyObject *self, PyObject *follow)
{
    uint32_t request = 0;
    struct pls_attach *attach = control_of(self);
    if (attach == NULL) {
        return NULL;
    }
    pls_err err = pls_attach_members_list(attach, PyObject_IsTrue(follow) > 0, &request);
    return request_sent((core_runtime *)self, err, request, "listing the cluster");
}

/* The entries in the data of members_list() and of a notice: [(status, node_id, generation, name,
 * address)]. */
PyObject *core_control_members_parse(PyObject *Py_UNUSED(self), PyObject *bytes)
{
    const uint8_t *data = (const uint8_t *)PyBytes_AsString(bytes);
    if (data == NULL) {
        return NULL;
    }
    size_t left = (size_t)PyBytes_GET_SIZE(bytes);
    PyObject *list = PyList_New(0);
    pls_node_entry entry;
    while (list != NULL && pls_node_entry_next(&data, &left, &entry) == PLS_OK) {
        PyObject *name = PyUnicode_DecodeUTF8(entry.name, (Py_ssize_t)entry.name_bytes, "replace");
        PyObject *address =
            PyUnicode_DecodeUTF8(entry.address, (Py_ssize_t)entry.address_bytes, "replace");
        PyObject *item = name == NULL || address == NULL
                             ? NULL
                             : Py_BuildValue("(iy#KOO)", (int)entry.status, entry.node_id,
                                             (Py_ssize_t)sizeof entry.node_id,
                                             (unsigned long long)entry.generation, name, address);
        if (item == NULL || PyList_Append(list, item) < 0) {
            core_clear(&list);
        }
        Py_XDECREF(name);
        Py_XDECREF(address);
        Py_XDECREF(item);
    }
    return list;
}

/* The entries in the data of names_list(): [(name, actor, slot, epoch, flags, class, metadata)]. */
PyObject *core_control_names_parse(PyObject *Py_UNUSED(self), PyObject *bytes)
{
    const uint8_t *data = (const uint8_t *)PyBytes_AsString(bytes);
    if (data == NULL) {
        return NULL;
    }
    size_t left = (size_t)PyBytes_GET_SIZE(bytes);
    PyObject *list = PyList_New(0);
    pls_name_entry entry;
    while (list != NULL && pls_name_entry_next(&data, &left, &entry) == PLS_OK) {
        PyObject *item = Py_BuildValue(
            "(s#KIIIs#y#)", entry.name, (Py_ssize_t)entry.name_bytes,
            (unsigned long long)entry.actor, (unsigned)entry.slot, (unsigned)entry.epoch,
            (unsigned)entry.flags, entry.class_name, (Py_ssize_t)entry.class_name_bytes,
            (const char *)entry.metadata, (Py_ssize_t)entry.metadata_bytes);
        if (item == NULL || PyList_Append(list, item) < 0) {
            core_clear(&list);
        }
        Py_XDECREF(item);
    }
    return list;
}

PyObject *core_control_restart_register(PyObject *self, PyObject *args)
{
    unsigned long long actor = 0;
    unsigned policy = 0;
    unsigned place = 0;
    pls_restart_options options = {0};
    Py_ssize_t spec_bytes = 0;
    uint32_t request = 0;
    struct pls_attach *attach = control_of(self);
    if (attach == NULL ||
        !PyArg_ParseTuple(args, "KIIIIIIy#", &actor, &policy, &options.restarts_max,
                          &options.backoff_min_ms, &options.backoff_max_ms, &place, &options.index,
                          (const char **)&options.spec, &spec_bytes)) {
        return NULL;
    }
    options.policy = (pls_restart_policy)policy;
    options.place = (pls_place_kind)place;
    options.spec_bytes = (size_t)spec_bytes;
    pls_err err = pls_attach_restart_register(attach, actor, &options, &request);
    return request_sent((core_runtime *)self, err, request, "registering a restart policy");
}

PyObject *core_control_actor_unregister(PyObject *self, PyObject *actor)
{
    uint32_t request = 0;
    uint64_t id = PyLong_AsUnsignedLongLong(actor);
    struct pls_attach *attach = PyErr_Occurred() ? NULL : control_of(self);
    if (attach == NULL) {
        return NULL;
    }
    pls_err err = pls_attach_actor_unregister(attach, id, &request);
    return request_sent((core_runtime *)self, err, request, "unregistering an actor");
}

PyObject *core_control_actor_failed(PyObject *self, PyObject *args)
{
    unsigned long long actor = 0;
    const char *text = NULL;
    Py_ssize_t text_bytes = 0;
    struct pls_attach *attach = control_of(self);
    if (attach == NULL || !PyArg_ParseTuple(args, "Ks#", &actor, &text, &text_bytes)) {
        return NULL;
    }
    pls_err err = pls_attach_actor_failed(attach, actor, text, (size_t)text_bytes);
    if (err != PLS_OK) {
        core_fail(((core_runtime *)self)->state, err, "reporting a failed actor");
        return NULL;
    }
    Py_RETURN_NONE;
}

PyObject *core_control_recycle(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    struct pls_attach *attach = control_of(self);
    if (attach == NULL) {
        return NULL;
    }
    pls_err err = pls_attach_worker_recycle(attach);
    if (err != PLS_OK) {
        core_fail(((core_runtime *)self)->state, err, "leaving for a fresh worker");
        return NULL;
    }
    Py_RETURN_NONE;
}

PyObject *core_control_rebuilt(PyObject *self, PyObject *args)
{
    unsigned long long actor = 0;
    int ok = 0;
    const char *text = NULL;
    Py_ssize_t text_bytes = 0;
    struct pls_attach *attach = control_of(self);
    if (attach == NULL || !PyArg_ParseTuple(args, "Kps#", &actor, &ok, &text, &text_bytes)) {
        return NULL;
    }
    pls_err err = pls_attach_rebuilt(attach, actor, ok != 0, text, (size_t)text_bytes);
    if (err != PLS_OK) {
        core_fail(((core_runtime *)self)->state, err, "reporting a rebuilt actor");
        return NULL;
    }
    Py_RETURN_NONE;
}

PyObject *core_control_output_tail(PyObject *self, PyObject *args)
{
    unsigned slot = 0;
    unsigned epoch = 0;
    uint32_t request = 0;
    struct pls_attach *attach = control_of(self);
    if (attach == NULL || !PyArg_ParseTuple(args, "II", &slot, &epoch)) {
        return NULL;
    }
    pls_err err = pls_attach_output_tail(attach, slot, epoch, &request);
    return request_sent((core_runtime *)self, err, request, "reading a worker's output");
}

PyObject *core_control_worker_stop(PyObject *self, PyObject *args)
{
    unsigned slot = 0;
    unsigned epoch = 0;
    unsigned timeout_ms = 0;
    uint32_t request = 0;
    struct pls_attach *attach = control_of(self);
    if (attach == NULL || !PyArg_ParseTuple(args, "III", &slot, &epoch, &timeout_ms)) {
        return NULL;
    }
    pls_err err = pls_attach_worker_stop(attach, slot, epoch, timeout_ms, &request);
    return request_sent((core_runtime *)self, err, request, "stopping a worker");
}

PyObject *core_control_shutdown(PyObject *self, PyObject *args)
{
    unsigned timeout_ms = 0;
    uint32_t request = 0;
    struct pls_attach *attach = control_of(self);
    if (attach == NULL || !PyArg_ParseTuple(args, "I", &timeout_ms)) {
        return NULL;
    }
    pls_err err = pls_attach_shutdown(attach, timeout_ms, &request);
    return request_sent((core_runtime *)self, err, request, "shutting down");
}

PyObject *core_control_actor_find(PyObject *self, PyObject *actor)
{
    uint32_t request = 0;
    uint64_t id = PyLong_AsUnsignedLongLong(actor);
    struct pls_attach *attach = PyErr_Occurred() ? NULL : control_of(self);
    if (attach == NULL) {
        return NULL;
    }
    pls_err err = pls_attach_actor_find(attach, id, &request);
    return request_sent((core_runtime *)self, err, request, "finding an actor");
}
