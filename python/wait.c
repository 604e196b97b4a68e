/* SPDX-License-Identifier: Apache-2.0 */
/* Waiting. Before a caller sleeps it looks at its ring for a moment, if nothing else in the loop is
 * ready, if the processes awake do not outnumber the cores, and if its budget of fruitless looking
 * (a share of elapsed time) allows. In the blocking form one thread waits for all of them, and
 * hands that over when its own answer has come. */
#include "python/core_parts.h"

#include <errno.h>
#include <poll.h>

#include "node/attach.h"

/* A few times what it costs to be woken on an idle machine: the budget, not this, bounds what
 * looking costs. */
#define LOOK_NS 200000
#define LOOK_NS_MIN 10000
#define EXPECT_NS_MAX 2000000
#define LOOK_SHARE_PERCENT 5 /* of elapsed time that may be spent looking in vain */
#define LOOK_SAVED_NS_MAX 3000000
#define POLL_BURST_MAX 256
#define SLEEP_MS_MAX 1000

static bool tokens_take(core_runtime *rt, int64_t now)
{
    int64_t earned = (now - rt->look_filled_ns) * LOOK_SHARE_PERCENT / 100;
    rt->look_filled_ns = now;
    rt->look_tokens_ns += earned;
    if (rt->look_tokens_ns > LOOK_SAVED_NS_MAX) {
        rt->look_tokens_ns = LOOK_SAVED_NS_MAX;
    }
    return rt->look_tokens_ns >= LOOK_NS;
}

/* How long something took to come is the best guess of how long the next will take: a quickly
 * moving average, kept below a bound so that one long pause is soon forgotten. */
static void learn(core_runtime *rt, int64_t took_ns)
{
    took_ns = took_ns < EXPECT_NS_MAX ? took_ns : EXPECT_NS_MAX;
    rt->expect_ns += (took_ns - rt->expect_ns) / 8;
}

void core_look_answered(core_runtime *rt)
{
    if (rt->looked_from_ns != 0) {
        learn(rt, pulsing_now_ns() - rt->looked_from_ns);
        rt->looked_from_ns = 0;
    }
}

/* Twice what is expected; hardly at all when what is expected takes longer than being woken. */
static int64_t look_ns(const core_runtime *rt)
{
    if (rt->expect_ns > 2 * LOOK_NS) {
        return LOOK_NS_MIN;
    }
    int64_t ns = 2 * rt->expect_ns + LOOK_NS_MIN;
    return ns < LOOK_NS ? ns : LOOK_NS;
}

/* Looks without the GIL; true if something came. Only time spent in vain is charged. */
bool core_look_once(core_runtime *rt, int64_t ns_max)
{
    bool found = pulsing_look(rt->p, 0);
    if (found) {
        learn(rt, 0);
        return true;
    }
    int64_t before = pulsing_now_ns();
    rt->looked_from_ns = before;
    if (!tokens_take(rt, before) || !pulsing_may_look(rt->p)) {
        return false;
    }
    int64_t ns = look_ns(rt);
    ns = ns_max < ns ? ns_max : ns;
    Py_BEGIN_ALLOW_THREADS
    found = pulsing_look(rt->p, ns);
    Py_END_ALLOW_THREADS
    if (found) {
        core_look_answered(rt);
    } else {
        rt->look_tokens_ns -= pulsing_now_ns() - before;
    }
    return found;
}

static bool others_ready(core_runtime *rt)
{
    Py_ssize_t ready = PyObject_Size(rt->ready);
    if (ready < 0) {
        PyErr_Clear();
        return true;
    }
    return ready > (rt->arm_scheduled ? 1 : 0) + (rt->wake_scheduled ? 1 : 0);
}

/* Nobody sleeps until the loop has run on_arm(), so the signal is not needed meanwhile. */
static void disarm_until_turn(core_runtime *rt)
{
    if (rt->hooked) {
        return; /* the selector arms */
    }
    if (!rt->arm_scheduled) {
        PyObject *handle = PyObject_CallOneArg(rt->call_soon, rt->on_arm);
        if (handle == NULL) {
            PyErr_Clear();
            return;
        }
        Py_DECREF(handle);
        rt->arm_scheduled = true;
    }
    if (rt->armed) {
        pulsing_disarm(rt->p, false);
        rt->armed = false;
    }
}

bool core_look(core_runtime *rt)
{
    if (others_ready(rt)) {
        return false;
    }
    disarm_until_turn(rt);
    if (!core_look_once(rt, INT64_MAX)) {
        return false;
    }
    /* Inside of a task: handlers start in the loop, not in here. */
    return pulsing_poll(rt->p, POLL_BURST_MAX, true) > 0;
}

void core_call_unpark(core_call *call)
{
    PyThread_release_lock(call->lock);
}

static void leader_pass(core_runtime *rt)
{
    rt->leader = false;
    if (rt->waiting != NULL) {
        core_call_unpark(rt->waiting);
    }
}

static void waiting_add(core_runtime *rt, core_call *call)
{
    call->next_waiting = rt->waiting;
    rt->waiting = call;
}

static void waiting_remove(core_runtime *rt, core_call *call)
{
    core_call **at = &rt->waiting;
    while (*at != NULL && *at != call) {
        at = &(*at)->next_waiting;
    }
    if (*at == call) {
        *at = call->next_waiting;
    }
    call->next_waiting = NULL;
}

/* Sleeps until the leader has our answer, or passes the lead on. */
static int follow(core_runtime *rt, core_call *call)
{
    if (call->lock == NULL) {
        call->lock = PyThread_allocate_lock();
        if (call->lock == NULL) {
            PyErr_NoMemory();
            return -1;
        }
        PyThread_acquire_lock(call->lock, NOWAIT_LOCK);
    }
    waiting_add(rt, call);
    Py_BEGIN_ALLOW_THREADS
    PyThread_acquire_lock_timed(call->lock, SLEEP_MS_MAX * 1000, 0);
    Py_END_ALLOW_THREADS
    waiting_remove(rt, call);
    return PyErr_CheckSignals();
}

static int sleep_ms(const core_call *call)
{
    if (call->deadline_ns == 0) {
        return SLEEP_MS_MAX;
    }
    int64_t left = (call->deadline_ns - pulsing_now_ns()) / 1000000 + 1;
    return left < 0 ? 0 : left < SLEEP_MS_MAX ? (int)left : SLEEP_MS_MAX;
}

/* At most `ms`, and not beyond a time that is set. */
static int sleep_until(int64_t by_ns, int ms)
{
    int64_t left = by_ns != 0 ? (by_ns - pulsing_now_ns()) / 1000000 + 1 : ms;
    return left < 0 ? 0 : left < ms ? (int)left : ms;
}

static int control_take(core_runtime *rt)
{
    PyObject *none = core_control_poll(rt);
    Py_XDECREF(none);
    return none != NULL ? 0 : -1;
}

/* Sleeps on the eventfd and the control socket. */
static int lead_sleep(core_runtime *rt, const core_call *call)
{
    struct pls_attach *attach = pulsing_attach_of(rt->p);
    struct pollfd fds[2] = {
        {.fd = pulsing_event_fd(rt->p), .events = POLLIN},
        {.fd = pls_attach_fd(attach),
         .events = (short)(POLLIN | (pls_attach_wants_write(attach) ? POLLOUT : 0))}};
    if (pls_attach_has_kept(attach)) {
        return control_take(rt);
    }
    if (!pulsing_arm(rt->p)) {
        return 0;
    }
    int ms = sleep_until(rt->wake_by_ns, sleep_until(rt->patrol_by_ns, sleep_ms(call)));
    rt->wake_by_ns = 0;
    int ready = 0;
    Py_BEGIN_ALLOW_THREADS
    ready = poll(fds, 2, ms);
    Py_END_ALLOW_THREADS
    pulsing_disarm(rt->p, ready > 0 && (fds[0].revents & POLLIN) != 0);
    core_look_answered(rt);
    if (ready > 0 && fds[1].revents != 0 && control_take(rt) < 0) {
        return -1;
    }
    return PyErr_CheckSignals();
}

static int lead(core_runtime *rt, core_call *call)
{
    while (call->state == CORE_CALL_PENDING) {
        if (pulsing_poll(rt->p, POLL_BURST_MAX, false) > 0) {
            continue;
        }
        if (!call->control && core_look_once(rt, INT64_MAX)) {
            continue;
        }
        if (lead_sleep(rt, call) < 0) {
            return -1;
        }
        core_patrol_due(rt);
        if (call->deadline_ns != 0 && call->deadline_ns <= pulsing_now_ns()) {
            return 0;
        }
    }
    return 0;
}

static int wait_for(core_runtime *rt, core_call *call)
{
    if (!rt->patrol_soon && core_patrol_start(rt) < 0) {
        return -1;
    }
    while (call->state == CORE_CALL_PENDING) {
        if (rt->leader) {
            if (follow(rt, call) < 0) {
                return -1;
            }
        } else {
            rt->leader = true;
            int result = lead(rt, call);
            leader_pass(rt);
            if (result < 0) {
                return -1;
            }
        }
        if (call->state == CORE_CALL_PENDING && call->deadline_ns != 0 &&
            call->deadline_ns <= pulsing_now_ns()) {
            PyObject *none = PyObject_CallMethod((PyObject *)call, "_on_timeout", NULL);
            Py_XDECREF(none);
            if (none == NULL) {
                return -1;
            }
        }
    }
    return 0;
}

PyObject *core_call_wait(core_call *call)
{
    core_runtime *rt = call->rt;
    if (wait_for(rt, call) < 0) {
        PyObject *type = NULL;
        PyObject *value = NULL;
        PyObject *traceback = NULL;
        PyErr_Fetch(&type, &value, &traceback);
        PyObject *none =
            PyObject_CallMethod((PyObject *)call, "throw", "O", value != NULL ? value : type);
        Py_XDECREF(none);
        PyErr_Clear();
        PyErr_Restore(type, value, traceback);
        return NULL;
    }
    return core_call_take(call);
}
