/* SPDX-License-Identifier: Apache-2.0 */
/* The attachment of one system, as the Python package drives it: it gives the loop two descriptors
 * and the functions to call when they are readable. In the blocking form there is no loop, and
 * whoever waits drives it (wait.c). */
#include "python/control.h"

#include "node/launch.h"
#include "node/requests.h"

#include <unistd.h>

int core_check_use(core_runtime *rt)
{
    if (rt->p == NULL || rt->closed) {
        PyErr_SetString(rt->state->errors[CORE_SYSTEM_CLOSED], "the system has been shut down");
        return -1;
    }
    if (pulsing_forked(rt->p)) {
        PyErr_SetString(rt->state->errors[CORE_SYSTEM_CLOSED],
                        "this process was forked from the one that created the system: create or "
                        "attach to a system of its own here");
        return -1;
    }
    if (rt->loop != NULL && PyThread_get_thread_ident() != rt->thread) {
        PyErr_SetString(PyExc_RuntimeError,
                        "the system belongs to another thread's event loop: use "
                        "asyncio.run_coroutine_threadsafe(ref.method(...), loop), or "
                        "pulsing.connect() for code without a loop");
        return -1;
    }
    return 0;
}

static PyObject *runtime_on_control(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    return core_control_poll((core_runtime *)self);
}

static int bind_loop(core_runtime *rt, PyObject *loop)
{
    rt->loop = Py_NewRef(loop);
    rt->call_soon = PyObject_GetAttr(loop, rt->state->names[CORE_NAME_CALL_SOON]);
    rt->call_later = PyObject_GetAttr(loop, rt->state->names[CORE_NAME_CALL_LATER]);
    rt->create_future = PyObject_GetAttr(loop, rt->state->names[CORE_NAME_CREATE_FUTURE]);
    rt->create_task = PyObject_GetAttr(loop, rt->state->names[CORE_NAME_CREATE_TASK]);
    rt->on_wake = PyObject_GetAttrString((PyObject *)rt, "on_wake");
    rt->on_arm = PyObject_GetAttrString((PyObject *)rt, "on_arm");
    if (rt->call_soon == NULL || rt->call_later == NULL || rt->create_future == NULL ||
        rt->create_task == NULL || rt->on_wake == NULL || rt->on_arm == NULL) {
        return -1;
    }
    /* asyncio's own loops show their queue of ready callbacks; uvloop hides it. */
    rt->ready = PyObject_GetAttr(loop, rt->state->names[CORE_NAME_READY]);
    if (rt->ready == NULL) {
        PyErr_Clear();
    }
    return 0;
}

static int attach(core_runtime *rt, int control_fd, int worker, unsigned long long memory_bytes)
{
    char trouble[PLS_TROUBLE_BYTES_MAX] = "";
    pulsing_options options = {
        .control_fd = control_fd,
        .worker = worker != 0,
        .serves = rt->loop != NULL,
        .memory_bytes = memory_bytes,
        .callbacks = {.context = rt,
                      .request = core_on_request,
                      .reply = core_on_reply,
                      .stream_item = core_on_stream_item,
                      .sent = core_on_sent,
                      .cancel = core_on_cancel,
                      .waits = core_on_waits,
                      .slow = core_on_slow,
                      .death = core_on_death,
                      .dead_letter = core_on_dead_letter,
                      .stream_room = core_on_stream_room,
                      .stream_open = core_on_stream_open,
                      .drained = core_on_drained,
                      .locate = core_control_locate,
                      .wake = core_loop_wake,
                      .wake_after = core_loop_wake_after,
                      .notice = core_loop_notice},
    };
    pls_err err = PLS_OK;
    Py_BEGIN_ALLOW_THREADS
    err = pulsing_open(&options, &rt->p, trouble);
    Py_END_ALLOW_THREADS
    if (err != PLS_OK) {
        PyErr_Format(
            rt->state->errors[err == PLS_ECLOSED ? CORE_SYSTEM_CLOSED : CORE_PULSING_ERROR],
            "the node cannot be used: %s", trouble[0] != '\0' ? trouble : pls_err_text(err));
        return -1;
    }
    const pls_attach_info *info = pls_attach_info_of(pulsing_attach_of(rt->p));
    const pls_directory_header *header = &info->directory->header;
    rt->networked = header->address[0] != '\0';
    rt->codec_flags[0] = PLS_CODEC_ALLOW_PICKLE;
    rt->codec_flags[1] = header->has_key != 0 ? PLS_CODEC_ALLOW_PICKLE : 0;
    rt->node_id = PyBytes_FromStringAndSize((const char *)info->node_id, PLS_NODE_ID_BYTES);
    rt->address = rt->networked ? PyUnicode_FromString(header->address) : Py_NewRef(Py_None);
    return rt->node_id != NULL && rt->address != NULL ? 0 : -1;
}

static PyObject *runtime_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *keywords[] = {"control_fd", "worker", "memory_bytes", "loop", "hooked", NULL};
    int control_fd = -1;
    int worker = 0;
    int hooked = 0;
    unsigned long long memory_bytes = 0;
    PyObject *loop = Py_None;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "i|pKOp", keywords, &control_fd, &worker,
                                     &memory_bytes, &loop, &hooked)) {
        return NULL;
    }
    core_runtime *rt = (core_runtime *)type->tp_alloc(type, 0);
    if (rt == NULL) {
        return NULL;
    }
    rt->state = core_state_of_type(type);
    rt->module = Py_XNewRef(PyType_GetModule(type));
    rt->requests = PyDict_New();
    rt->deaths = PyDict_New();
    rt->pid = getpid();
    rt->hooked = hooked != 0;
    rt->thread = PyThread_get_thread_ident();
    rt->last_turn_ns = pulsing_now_ns();
    rt->look_filled_ns = rt->last_turn_ns;
    rt->look_tokens_ns = 1000000;
    if (rt->requests == NULL || rt->deaths == NULL ||
        (loop != Py_None && bind_loop(rt, loop) < 0) ||
        attach(rt, control_fd, worker, memory_bytes) < 0) {
        Py_DECREF(rt);
        return NULL;
    }
    return (PyObject *)rt;
}

static PyObject *runtime_start(PyObject *self, PyObject *args)
{
    core_runtime *rt = (core_runtime *)self;
    PyObject *host = NULL;
    PyObject *system = NULL;
    PyObject *on_notice = NULL;
    if (!PyArg_ParseTuple(args, "OO|O", &host, &system, &on_notice)) {
        return NULL;
    }
    Py_XSETREF(rt->host, Py_NewRef(host));
    Py_XSETREF(rt->system, Py_NewRef(system));
    Py_XSETREF(rt->on_notice, Py_XNewRef(on_notice));
    if (rt->loop != NULL) {
        core_loop_arm(rt);
    }
    Py_RETURN_NONE;
}

/* Calls the actor by its name, else by class and id. */
static int cell_name(core_runtime *rt, core_cell *cell, PyObject *name, PyObject *class_name)
{
    char id[32];
    Py_ssize_t class_bytes = 0;
    const char *class_utf8 = PyUnicode_AsUTF8AndSize(class_name, &class_bytes);
    PyOS_snprintf(id, sizeof id, "%llx", (unsigned long long)cell->id);
    cell->name = name == Py_None ? PyUnicode_FromFormat("%U %s", class_name, id) : Py_NewRef(name);
    if (class_utf8 == NULL || cell->name == NULL) {
        return -1;
    }
    cell->name_utf8 = PyUnicode_AsUTF8AndSize(cell->name, &cell->name_bytes);
    if (cell->name_utf8 == NULL) {
        return -1;
    }
    if (cell->name_bytes > 255) {
        cell->name_bytes = 255;
    }
    pulsing_actor_name(cell->actor, cell->name_utf8, (uint8_t)cell->name_bytes);
    pulsing_actor_describe(rt->p, cell->actor,
                           &(pulsing_actor_names){.name = cell->name_utf8,
                                                  .class_name = class_utf8,
                                                  .name_bytes = (size_t)cell->name_bytes,
                                                  .class_bytes = (size_t)class_bytes});
    return 0;
}

static PyObject *runtime_host(PyObject *self, PyObject *args, PyObject *kwargs)
{
    static char *keywords[] = {"instance", "methods",      "receive", "receive_context", "context",
                               "name",     "class_name",   "mailbox", "concurrency",     "overflow",
                               "actor_id", "system_actor", NULL};
    core_runtime *rt = (core_runtime *)self;
    PyObject *instance = NULL;
    PyObject *methods = NULL;
    PyObject *receive = NULL;
    PyObject *actor_context = NULL;
    PyObject *name = NULL;
    PyObject *class_name = NULL;
    int receive_context = 0;
    int system_actor = 0;
    unsigned overflow = 0;
    unsigned long long id = 0;
    pulsing_actor_options options = {0};
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OO!OpOOUIII|Kp", keywords, &instance,
                                     &PyDict_Type, &methods, &receive, &receive_context,
                                     &actor_context, &name, &class_name, &options.mailbox_max,
                                     &options.concurrency_max, &overflow, &id, &system_actor) ||
        core_check_use(rt) < 0) {
        return NULL;
    }
    core_cell *cell = PyObject_GC_New(core_cell, rt->state->cell_type);
    if (cell == NULL) {
        return NULL;
    }
    cell->rt = (core_runtime *)Py_NewRef(self);
    cell->actor = NULL;
    cell->instance = Py_NewRef(instance);
    cell->methods = Py_NewRef(methods);
    cell->receive = Py_NewRef(receive);
    cell->context = Py_NewRef(actor_context);
    cell->name = NULL;
    cell->invocations = NULL;
    cell->writers = PySet_New(NULL);
    cell->drained = NULL;
    cell->failed = NULL;
    cell->receive_context = receive_context != 0;
    PyObject_GC_Track(cell);
    options.id = id;
    if (system_actor != 0) {
        options.id = (uint64_t)pulsing_slot(rt->p) << 56 | (uint64_t)pulsing_epoch(rt->p) << 32;
    }
    options.overflow = (pulsing_overflow)overflow;
    options.user = cell;
    pls_err err =
        cell->writers != NULL ? pulsing_actor_add(rt->p, &options, &cell->actor) : PLS_ENOMEM;
    if (err != PLS_OK) {
        Py_DECREF(cell);
        core_fail(rt->state, err, "the actor cannot be hosted");
        return NULL;
    }
    cell->id = pulsing_actor_id_of(cell->actor);
    if (cell_name(rt, cell, name, class_name) < 0) {
        pulsing_actor_remove(rt->p, cell->actor, "it could not be hosted");
        cell->actor = NULL;
        Py_DECREF(cell);
        return NULL;
    }
    return Py_NewRef((PyObject *)cell); /* one for the runtime's table */
}

static PyObject *runtime_ref(PyObject *self, PyObject *args)
{
    unsigned long long id = 0;
    unsigned window = 0;
    int restartable = 0;
    PyObject *name = NULL;
    PyObject *class_name = NULL;
    PyObject *node_id = Py_None;
    core_runtime *rt = (core_runtime *)self;
    if (!PyArg_ParseTuple(args, "KIpOU|O", &id, &window, &restartable, &name, &class_name,
                          &node_id)) {
        return NULL;
    }
    return node_id != Py_None ? core_ref_far_new(rt, node_id, id, window, name, class_name)
                              : core_ref_new(rt, id, window, restartable != 0, name, class_name);
}

/* route(id, slot, epoch): an actor that was rebuilt lives there. */
static PyObject *runtime_route(PyObject *self, PyObject *args)
{
    core_runtime *rt = (core_runtime *)self;
    unsigned long long id = 0;
    unsigned slot = 0;
    unsigned epoch = 0;
    if (!PyArg_ParseTuple(args, "KII", &id, &slot, &epoch) || core_check_use(rt) < 0) {
        return NULL;
    }
    if (slot >= PLS_SLOTS_MAX) {
        PyErr_SetString(PyExc_ValueError, "slot out of range");
        return NULL;
    }
    pulsing_target_move(rt->p, id, slot, epoch);
    Py_RETURN_NONE;
}

static PyObject *runtime_fail(PyObject *self, PyObject *text)
{
    core_runtime *rt = (core_runtime *)self;
    const char *utf8 = PyUnicode_AsUTF8(text);
    if (utf8 == NULL) {
        return NULL;
    }
    if (rt->p != NULL && !pulsing_forked(rt->p)) {
        pulsing_fail(rt->p, utf8);
    }
    Py_RETURN_NONE;
}

static PyObject *runtime_close(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    core_runtime *rt = (core_runtime *)self;
    pulsing *p = rt->p;
    rt->closed = true;
    core_patrol_stop(rt);
    if (p == NULL) {
        Py_RETURN_NONE;
    }
    if (!pulsing_forked(p)) {
        pulsing_fail(p, "the system has been shut down");
    }
    rt->p = NULL;
    pulsing_close(p);
    Py_RETURN_NONE;
}

/* Seconds for which a handler has kept the thread of a slot's process. */
static double held_seconds(const pls_directory *directory, uint32_t slot)
{
    uint64_t since_ns =
        atomic_load_explicit(&directory->lines[slot].held_since_ns, memory_order_relaxed);
    uint64_t now_ns = (uint64_t)pulsing_now_ns();
    return since_ns != 0 && now_ns > since_ns ? (double)(now_ns - since_ns) / 1e9 : 0;
}

static PyObject *runtime_held(PyObject *self, PyObject *slot)
{
    core_runtime *rt = (core_runtime *)self;
    unsigned long number = PyLong_AsUnsignedLong(slot);
    if (number == (unsigned long)-1 && PyErr_Occurred()) {
        return NULL;
    }
    if (rt->p == NULL || number >= PLS_SLOTS_MAX) {
        return PyFloat_FromDouble(0);
    }
    const pls_directory *directory = pls_attach_info_of(pulsing_attach_of(rt->p))->directory;
    return PyFloat_FromDouble(held_seconds(directory, (uint32_t)number));
}

static PyObject *line_tuple(const pls_directory *directory, uint32_t slot)
{
    uint32_t epoch = 0;
    pls_slot_state state = pls_directory_peek(directory, slot, &epoch);
    const pls_directory_line *line = &directory->lines[slot];
    uint32_t index = atomic_load_explicit(&line->worker_index, memory_order_relaxed);
    return Py_BuildValue("(IIIIIiIId)", (unsigned)slot, (unsigned)epoch, (unsigned)state,
                         (unsigned)atomic_load_explicit(&line->role, memory_order_relaxed),
                         (unsigned)atomic_load_explicit(&line->pid, memory_order_relaxed),
                         index == PLS_WORKER_INDEX_NONE ? -1 : (int)index,
                         (unsigned)atomic_load_explicit(&line->actor_count, memory_order_relaxed),
                         (unsigned)atomic_load_explicit(&line->queued_count, memory_order_relaxed),
                         held_seconds(directory, slot));
}

static PyObject *runtime_directory(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    core_runtime *rt = (core_runtime *)self;
    if (rt->p == NULL) {
        return PyList_New(0);
    }
    const pls_directory *directory = pls_attach_info_of(pulsing_attach_of(rt->p))->directory;
    PyObject *list = PyList_New(0);
    for (uint32_t slot = 0; slot < PLS_SLOTS_MAX && list != NULL; slot++) {
        uint32_t epoch = 0;
        if (pls_directory_peek(directory, slot, &epoch) == PLS_SLOT_FREE) {
            continue;
        }
        PyObject *line = line_tuple(directory, slot);
        if (line == NULL || PyList_Append(list, line) < 0) {
            core_clear(&list);
        }
        Py_XDECREF(line);
    }
    return list;
}

static PyObject *runtime_dead_letters(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    core_runtime *rt = (core_runtime *)self;
    PyObject *dict = PyDict_New();
    static const struct {
        pulsing_status status;
        const char *name;
    } reasons[] = {{PULSING_NO_ACTOR, "no_actor"}, {PULSING_MAILBOX_FULL, "mailbox_full"},
                   {PULSING_EXPIRED, "expired"},   {PULSING_CANCELLED, "cancelled"},
                   {PULSING_DIED, "died"},         {PULSING_BAD_MESSAGE, "bad_message"},
                   {PULSING_CLOSED, "closed"}};
    for (size_t i = 0; i < sizeof reasons / sizeof *reasons && dict != NULL; i++) {
        uint64_t count = rt->p != NULL ? pulsing_dead_letters(rt->p, reasons[i].status) : 0;
        PyObject *value = PyLong_FromUnsignedLongLong(count);
        if (value == NULL || PyDict_SetItemString(dict, reasons[i].name, value) < 0) {
            core_clear(&dict);
        }
        Py_XDECREF(value);
    }
    return dict;
}

static PyObject *runtime_current_context(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    core_frame *frame = core_current_frame((core_runtime *)self);
    if (frame == NULL) {
        Py_RETURN_NONE;
    }
    return Py_NewRef(frame->cell->context);
}

/* Whether the caller of the running plain method waits no more; looks at what has come for that. */
static PyObject *runtime_is_cancelled(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    core_runtime *rt = (core_runtime *)self;
    if (rt->p == NULL || rt->frame == NULL) {
        Py_RETURN_FALSE;
    }
    pulsing_poll_inside(rt->p);
    return PyBool_FromLong(rt->frame->cancelled);
}

/* (deadline in seconds of the monotonic clock or None, sender's actor id) of the message that is
 * being handled, or None. */
static PyObject *runtime_current_message(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    core_frame *frame = core_current_frame((core_runtime *)self);
    if (frame == NULL) {
        Py_RETURN_NONE;
    }
    if (frame->deadline_ns == 0) {
        return Py_BuildValue("(OK)", Py_None, (unsigned long long)frame->sender_id);
    }
    return Py_BuildValue("(dK)", (double)frame->deadline_ns / 1e9,
                         (unsigned long long)frame->sender_id);
}

static PyObject *get_number(PyObject *self, void *closure)
{
    core_runtime *rt = (core_runtime *)self;
    if (rt->p == NULL) {
        return PyLong_FromLong(-1);
    }
    const pls_attach_info *info = pls_attach_info_of(pulsing_attach_of(rt->p));
    switch ((intptr_t)closure) {
    case 0:
        return PyLong_FromUnsignedLong(info->slot);
    case 1:
        return PyLong_FromUnsignedLong(info->epoch);
    case 2:
        return PyLong_FromUnsignedLong(info->node_pid);
    case 3:
        return PyLong_FromLong(
            info->worker_index == PLS_WORKER_INDEX_NONE ? -1 : (long)info->worker_index);
    case 4:
        return PyLong_FromUnsignedLong(info->workers_max);
    case 5:
        return PyLong_FromLong(pulsing_event_fd(rt->p));
    case 6:
        return PyLong_FromLong(pls_attach_fd(pulsing_attach_of(rt->p)));
    case 7:
        return PyLong_FromUnsignedLong(pulsing_actor_count(rt->p));
    case 9:
        return PyLong_FromUnsignedLongLong(pulsing_handled_count(rt->p));
    case 10:
        return PyLong_FromUnsignedLong(pulsing_unfinished_count(rt->p));
    default:
        return PyLong_FromUnsignedLong(pulsing_call_count(rt->p));
    }
}

static int runtime_traverse(PyObject *self, visitproc visit, void *arg)
{
    core_runtime *rt = (core_runtime *)self;
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(rt->loop);
    Py_VISIT(rt->ready);
    Py_VISIT(rt->call_soon);
    Py_VISIT(rt->call_later);
    Py_VISIT(rt->create_future);
    Py_VISIT(rt->create_task);
    Py_VISIT(rt->on_wake);
    Py_VISIT(rt->on_notice);
    Py_VISIT(rt->on_arm);
    Py_VISIT(rt->host);
    Py_VISIT(rt->system);
    Py_VISIT(rt->requests);
    Py_VISIT(rt->deaths);
    Py_VISIT(rt->patrol);
    Py_VISIT(rt->context);
    return 0;
}

static int runtime_clear(PyObject *self)
{
    core_runtime *rt = (core_runtime *)self;
    Py_CLEAR(rt->on_wake);
    Py_CLEAR(rt->on_notice);
    Py_CLEAR(rt->on_arm);
    Py_CLEAR(rt->host);
    Py_CLEAR(rt->system);
    Py_CLEAR(rt->requests);
    Py_CLEAR(rt->deaths);
    Py_CLEAR(rt->patrol);
    Py_CLEAR(rt->context);
    Py_CLEAR(rt->ready);
    Py_CLEAR(rt->call_soon);
    Py_CLEAR(rt->call_later);
    Py_CLEAR(rt->create_future);
    Py_CLEAR(rt->create_task);
    Py_CLEAR(rt->loop);
    return 0;
}

static void runtime_dealloc(PyObject *self)
{
    core_runtime *rt = (core_runtime *)self;
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    pulsing *p = rt->p;
    rt->p = NULL;
    if (p != NULL) {
        pulsing_close(p);
    }
    runtime_clear(self);
    Py_XDECREF(rt->node_id);
    Py_XDECREF(rt->address);
    Py_XDECREF(rt->module);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyMethodDef runtime_methods[] = {
    {"start", runtime_start, METH_VARARGS, "start(host, system): begin to take in messages."},
    {"on_event", core_loop_on_event, METH_NOARGS, "The eventfd is readable."},
    {"death", core_death, METH_VARARGS,
     "death(slot, epoch): what is known of a process that has ended, as pulsing._errors reads it, "
     "or None."},
    {"on_wake", core_loop_on_wake, METH_NOARGS, "Something for this process itself is queued."},
    {"on_arm", core_loop_on_arm, METH_NOARGS, "The loop has turned."},
    {"on_patrol", core_patrol_on_timer, METH_NOARGS, "Look at the calls that wait."},
    {"on_letters", core_letters_tell, METH_NOARGS, "Tell the host of dead letters."},
    {"on_control", runtime_on_control, METH_NOARGS,
     "The control socket is ready; true: also ask for writability."},
    {"before_sleep", core_loop_before_sleep, METH_O, "For a selector: seconds that it may sleep."},
    {"host", (PyCFunction)(void (*)(void))runtime_host, METH_VARARGS | METH_KEYWORDS,
     "Host an actor; gives its Cell."},
    {"ref", runtime_ref, METH_VARARGS, "ref(id, window, restartable, name, class_name)"},
    {"route", runtime_route, METH_VARARGS, "route(id, slot, epoch): where an actor lives now."},
    {"after_sleep", core_loop_after_sleep, METH_NOARGS, "A worker's eventfd is readable."},
    {"fail", runtime_fail, METH_O, "End all calls with SystemClosed and this text."},
    {"close", runtime_close, METH_NOARGS, "Detach."},
    {"held", runtime_held, METH_O, "held(slot): seconds for which a handler has kept its thread"},
    {"directory", runtime_directory, METH_NOARGS,
     "[(slot, epoch, state, role, pid, worker index, actors, queued, 0)]"},
    {"dead_letters", runtime_dead_letters, METH_NOARGS, "Messages that reached nobody, by reason."},
    {"current_context", runtime_current_context, METH_NOARGS,
     "The context of the running handler."},
    {"is_cancelled", runtime_is_cancelled, METH_NOARGS, "Whether the running method is unwanted."},
    {"current_message", runtime_current_message, METH_NOARGS, "(deadline, sender) of the message."},
    CORE_CONTROL_METHODS{NULL, NULL, 0, NULL},
};

static PyMemberDef runtime_members[] = {
    {"node_id", T_OBJECT, offsetof(core_runtime, node_id), READONLY, "16 bytes."},
    {"address", T_OBJECT, offsetof(core_runtime, address), READONLY, "Where the node listens."},
    {"system", T_OBJECT, offsetof(core_runtime, system), READONLY, "The system it belongs to."},
    {"ask_timeout", T_DOUBLE, offsetof(core_runtime, ask_timeout), 0, "Seconds; 0: none."},
    {"slow_ask", T_DOUBLE, offsetof(core_runtime, slow_ask), 0,
     "Seconds after which a call that waits is logged; 0: never."},
    {NULL, 0, 0, 0, NULL},
};

static PyGetSetDef runtime_getset[] = {
    {"slot", get_number, NULL, NULL, (void *)0},
    {"epoch", get_number, NULL, NULL, (void *)1},
    {"node_pid", get_number, NULL, NULL, (void *)2},
    {"worker_index", get_number, NULL, NULL, (void *)3},
    {"workers_max", get_number, NULL, NULL, (void *)4},
    {"event_fd", get_number, NULL, NULL, (void *)5},
    {"control_fd", get_number, NULL, NULL, (void *)6},
    {"actor_count", get_number, NULL, NULL, (void *)7},
    {"call_count", get_number, NULL, NULL, (void *)8},
    {"handled_count", get_number, NULL, NULL, (void *)9},
    {"unfinished_count", get_number, NULL, NULL, (void *)10},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot runtime_slots[] = {
    {Py_tp_new, runtime_new},
    {Py_tp_dealloc, runtime_dealloc},
    {Py_tp_traverse, runtime_traverse},
    {Py_tp_clear, runtime_clear},
    {Py_tp_members, runtime_members},
    {Py_tp_getset, runtime_getset},
    {Py_tp_methods, runtime_methods},
    {Py_tp_doc, "One system's attachment to its node."},
    {0, NULL},
};

PyType_Spec core_runtime_spec = {
    .name = "pulsing._core.Runtime",
    .basicsize = sizeof(core_runtime),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = runtime_slots,
};
