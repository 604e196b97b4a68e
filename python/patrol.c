/* SPDX-License-Identifier: Apache-2.0 */
/* Calls that wait for long. A timer looks at them now and then, as long as there are any: it runs
 * the runtime's patrol, which finds asks that wait for each other and logs those that wait for very
 * long. A call that ends sooner than the timer's pause costs nothing but the look at one flag. */
#include "python/core_parts.h"

#define PAUSE_NS 300000000 /* the shortest */

static int timer_set(core_runtime *rt, int64_t ns)
{
    core_patrol_stop(rt);
    rt->patrol_soon = ns <= PAUSE_NS;
    if (rt->loop == NULL) {
        rt->patrol_by_ns = pulsing_now_ns() + ns;
        return 0;
    }
    PyObject *callback = PyObject_GetAttrString((PyObject *)rt, "on_patrol");
    if (callback != NULL) {
        rt->patrol = PyObject_CallFunction(rt->call_later, "dO", (double)ns / 1e9, callback);
        Py_DECREF(callback);
    }
    return rt->patrol != NULL ? 0 : -1;
}

int core_patrol_start(core_runtime *rt)
{
    return timer_set(rt, PAUSE_NS);
}

void core_patrol_stop(core_runtime *rt)
{
    PyObject *timer = rt->patrol;
    rt->patrol = NULL;
    rt->patrol_soon = false;
    rt->patrol_by_ns = 0;
    if (timer != NULL) {
        PyObject *none = PyObject_CallMethodNoArgs(timer, rt->state->names[CORE_NAME_CANCEL]);
        if (none == NULL) {
            PyErr_Clear();
        }
        Py_XDECREF(none);
        Py_DECREF(timer);
    }
}

static int patrol(core_runtime *rt)
{
    core_clear(&rt->patrol);
    rt->patrol_soon = false;
    rt->patrol_by_ns = 0;
    if (rt->p == NULL || pulsing_forked(rt->p)) {
        return 0;
    }
    int64_t again_ns = pulsing_patrol(rt->p, (int64_t)(rt->slow_ask * 1e9));
    /* What the patrol ended may have made new calls, which have set the timer anew. */
    return again_ns > 0 && !rt->patrol_soon && rt->p != NULL ? timer_set(rt, again_ns) : 0;
}

PyObject *core_patrol_on_timer(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    core_runtime *rt = (core_runtime *)self;
    if (patrol(rt) < 0) {
        return NULL;
    }
    core_loop_arm(rt);
    Py_RETURN_NONE;
}

void core_patrol_due(core_runtime *rt)
{
    if (rt->patrol_by_ns != 0 && pulsing_now_ns() >= rt->patrol_by_ns) {
        (void)!patrol(rt);
    }
}

static PyObject *tasks_of(const core_cell *cell)
{
    PyObject *tasks = PyList_New(0);
    for (core_invocation *at = cell->invocations; at != NULL && tasks != NULL; at = at->next) {
        if (at->task != NULL && PyList_Append(tasks, at->task) < 0) {
            core_clear(&tasks);
        }
    }
    return tasks;
}

/* A report of pulsing._waits, which must not fail: what it raises is shown, and counts as None. */
static PyObject *waits_call(const char *function, const char *format, ...)
{
    va_list list;
    PyObject *result = NULL;
    va_start(list, format);
    PyObject *args = Py_VaBuildValue(format, list);
    va_end(list);
    PyObject *module = args != NULL ? PyImport_ImportModule("pulsing._waits") : NULL;
    PyObject *callable = module != NULL ? PyObject_GetAttrString(module, function) : NULL;
    if (callable != NULL) {
        result = PyObject_CallObject(callable, args);
    }
    if (result == NULL) {
        PyErr_WriteUnraisable(callable);
    }
    Py_XDECREF(callable);
    Py_XDECREF(module);
    Py_XDECREF(args);
    return result;
}

bool core_on_waits(void *context, void *actor, void *user)
{
    core_runtime *rt = context;
    const core_call *call = user;
    if (Py_TYPE((PyObject *)user) != rt->state->call_type ||
        (call->future == NULL && !call->looking && !call->yielded)) {
        return false;
    }
    PyObject *tasks = tasks_of(actor);
    PyObject *future = call->future != NULL ? call->future : call->looking ? Py_None : Py_False;
    PyObject *found = tasks != NULL && PyList_GET_SIZE(tasks) > 0
                          ? waits_call("wakes_any", "(OO)", future, tasks)
                          : NULL;
    bool waits = found == Py_True;
    if (tasks == NULL) {
        PyErr_Clear();
    }
    Py_XDECREF(found);
    Py_XDECREF(tasks);
    return waits;
}

void core_call_unread(core_call *call)
{
    core_runtime *rt = call->rt;
    if (call->ref == NULL || call->tell || rt->p == NULL || rt->closed ||
        (uint32_t)call->ref->id == 0) {
        return;
    }
    PyObject *type = NULL;
    PyObject *value = NULL;
    PyObject *traceback = NULL;
    PyErr_Fetch(&type, &value, &traceback);
    PyObject *words = core_ref_words(call->ref);
    PyObject *label = call->label != NULL ? call->label : Py_None;
    if (words != NULL) {
        Py_XDECREF(waits_call("report_unread", "(OOO)", label, words, call->result));
        Py_DECREF(words);
    } else {
        PyErr_Clear();
    }
    PyErr_Restore(type, value, traceback);
}

void core_on_slow(void *context, void *user, int64_t ns)
{
    core_runtime *rt = context;
    core_call *call = user;
    if (Py_TYPE((PyObject *)user) != rt->state->call_type || call->ref == NULL) {
        return;
    }
    Py_INCREF(call);
    bool host = (uint32_t)call->ref->id == 0;
    PyObject *words = host ? PyUnicode_FromString("the system") : core_ref_words(call->ref);
    PyObject *label = call->label != NULL ? call->label : Py_None;
    if (words != NULL) {
        Py_XDECREF(waits_call("report", "(OOOdII)", rt, label, words, (double)ns / 1e9,
                              (unsigned)pulsing_target_slot(call->ref->target),
                              (unsigned)pulsing_target_epoch(call->ref->target)));
        Py_DECREF(words);
    } else {
        PyErr_Clear();
    }
    Py_DECREF(call);
}
