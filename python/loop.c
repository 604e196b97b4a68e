/* SPDX-License-Identifier: Apache-2.0 */
/* How an event loop drives the runtime. A program's own loop is told by an eventfd, which is armed
 * whenever the loop may sleep. A worker's loop has a selector of ours, which takes messages in, and
 * looks for more, before it sleeps, so that a busy worker makes no system calls. */
#include "python/core_parts.h"

#define POLL_BURST_MAX 256
#define HOOK_SLICE_NS 1000000 /* the loop's own timers and tasks get a turn this often */

void core_schedule_wake(core_runtime *rt)
{
    if (rt->hooked || rt->loop == NULL || rt->wake_scheduled) {
        return;
    }
    PyObject *handle = PyObject_CallOneArg(rt->call_soon, rt->on_wake);
    if (handle == NULL) {
        PyErr_Clear(); /* the loop is closed; nobody waits any more */
        return;
    }
    Py_DECREF(handle);
    rt->wake_scheduled = true;
}

void core_loop_wake(void *context)
{
    core_schedule_wake(context);
}

void core_loop_wake_after(void *context, int64_t ns)
{
    core_runtime *rt = context;
    rt->wake_by_ns = pulsing_now_ns() + ns;
    if (rt->loop == NULL || rt->hooked) {
        return; /* whoever sleeps bounds its sleep by wake_by_ns */
    }
    PyObject *handle = PyObject_CallFunction(rt->call_later, "dO", (double)ns / 1e9, rt->on_wake);
    if (handle == NULL) {
        PyErr_Clear(); /* the loop is closed; nobody waits any more */
    }
    Py_XDECREF(handle);
}

void core_loop_notice(void *context)
{
    core_runtime *rt = context;
    if (rt->loop == NULL || rt->on_notice == NULL) {
        return; /* whoever sleeps asks pls_attach_has_kept() before */
    }
    PyObject *handle = PyObject_CallOneArg(rt->call_soon, rt->on_notice);
    if (handle == NULL) {
        PyErr_Clear(); /* the loop is closed; nobody waits any more */
    }
    Py_XDECREF(handle);
}

void core_loop_arm(core_runtime *rt)
{
    if (rt->hooked || rt->p == NULL || rt->armed) {
        return;
    }
    if (pulsing_arm(rt->p)) {
        rt->armed = true;
    } else {
        core_schedule_wake(rt);
    }
}

static PyObject *turn(core_runtime *rt, bool readable)
{
    if (rt->p == NULL || pulsing_forked(rt->p)) {
        Py_RETURN_NONE;
    }
    rt->last_turn_ns = pulsing_now_ns();
    if (readable) {
        core_look_answered(rt);
    }
    if (rt->armed || readable) {
        pulsing_disarm(rt->p, readable);
        rt->armed = false;
    }
    pulsing_poll(rt->p, POLL_BURST_MAX, false);
    core_loop_arm(rt);
    Py_RETURN_NONE;
}

PyObject *core_loop_on_event(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    return turn((core_runtime *)self, true);
}

PyObject *core_loop_on_wake(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    ((core_runtime *)self)->wake_scheduled = false;
    return turn((core_runtime *)self, false);
}

PyObject *core_loop_on_arm(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    ((core_runtime *)self)->arm_scheduled = false;
    return turn((core_runtime *)self, false);
}

/* The loop's next timer, to be compared and not to be used; NULL: there is none. */
static const void *timer_first(core_runtime *rt)
{
    PyObject *timers = PyObject_GetAttr(rt->loop, rt->state->names[CORE_NAME_SCHEDULED]);
    const void *first = NULL;
    if (timers == NULL) {
        PyErr_Clear();
    } else if (PyList_Check(timers) && PyList_GET_SIZE(timers) > 0) {
        first = PyList_GET_ITEM(timers, 0);
    }
    Py_XDECREF(timers);
    return first;
}

/* A worker's selector calls this before it sleeps: handles messages, looks for more, and returns
 * how long the loop may sleep: 0 when it has something to do. */
PyObject *core_loop_before_sleep(PyObject *self, PyObject *timeout)
{
    core_runtime *rt = (core_runtime *)self;
    if (rt->p == NULL || pulsing_forked(rt->p)) {
        return Py_NewRef(timeout);
    }
    double seconds = timeout == Py_None ? 1 : PyFloat_AsDouble(timeout);
    if (seconds == -1 && PyErr_Occurred()) {
        return NULL;
    }
    const void *timer = timer_first(rt);
    int64_t begin = pulsing_now_ns();
    int64_t end =
        begin + (seconds * 1e9 < HOOK_SLICE_NS ? (int64_t)(seconds * 1e9) : HOOK_SLICE_NS);
    pulsing_disarm(rt->p, false);
    for (;;) {
        pulsing_poll(rt->p, POLL_BURST_MAX, false);
        Py_ssize_t ready = PyObject_Size(rt->ready);
        int64_t now = pulsing_now_ns();
        if (ready != 0 || now >= end) {
            if (ready == 0 && seconds > 0 && !pulsing_ready(rt->p) && pulsing_arm(rt->p)) {
                break;
            }
            return ready < 0 ? NULL : PyLong_FromLong(0);
        }
        if (pulsing_ready(rt->p) || core_look_once(rt, end - now)) {
            continue;
        }
        if (pulsing_arm(rt->p)) {
            break;
        }
    }
    if (timer_first(rt) != timer) {
        return PyLong_FromLong(0); /* a method set one, which `timeout` does not know */
    }
    if (timeout == Py_None && rt->wake_by_ns == 0) {
        Py_RETURN_NONE;
    }
    double left = seconds - (double)(pulsing_now_ns() - begin) / 1e9;
    if (rt->wake_by_ns != 0) {
        double wake = (double)(rt->wake_by_ns - pulsing_now_ns()) / 1e9;
        rt->wake_by_ns = 0;
        left = wake < left ? wake : left;
    }
    return PyFloat_FromDouble(left > 0 ? left : 0);
}

/* A worker's eventfd is readable: its messages are handled before the loop does anything else. */
PyObject *core_loop_after_sleep(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    core_runtime *rt = (core_runtime *)self;
    if (rt->p != NULL && !pulsing_forked(rt->p)) {
        pulsing_disarm(rt->p, true);
        core_look_answered(rt);
        pulsing_poll(rt->p, POLL_BURST_MAX, false);
    }
    Py_RETURN_NONE;
}
