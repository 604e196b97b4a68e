/* SPDX-License-Identifier: Apache-2.0 */
/* What is known of processes that died, for ActorDied and its readers: learned once, when the death
 * is final and before the calls that waited for it end, and kept for a while, since a later process
 * takes the slot. */
#include "python/core_parts.h"

#define DEATHS_MAX 256
#define LETTERS_PAUSE_S 0.1

static PyObject *runs_list(const pulsing_obituary *obituary)
{
    PyObject *list = PyList_New(0);
    for (uint32_t i = 0; i < obituary->run_count && list != NULL; i++) {
        const pulsing_obituary_run *run = &obituary->runs[i];
        PyObject *method =
            PyUnicode_DecodeUTF8(run->method, (Py_ssize_t)strlen(run->method), "replace");
        PyObject *entry = method != NULL ? Py_BuildValue("(KNN)", (unsigned long long)run->actor_id,
                                                         PyBool_FromLong(run->on_stack), method)
                                         : NULL;
        if (entry == NULL || PyList_Append(list, entry) < 0) {
            core_clear(&list);
        }
        Py_XDECREF(entry);
    }
    return list;
}

static PyObject *facts_tuple(const pulsing_obituary *obituary)
{
    char words[128];
    const pls_death *death = &obituary->death;
    pls_death_text(death, words, sizeof words);
    PyObject *runs = runs_list(obituary);
    PyObject *output =
        PyUnicode_DecodeUTF8(obituary->output, (Py_ssize_t)obituary->output_bytes, "replace");
    if (runs == NULL || output == NULL) {
        Py_XDECREF(runs);
        Py_XDECREF(output);
        return NULL;
    }
    return Py_BuildValue("(sIIIINN)", words, (unsigned)death->pid, (unsigned)death->how,
                         (unsigned)death->code, (unsigned)death->hints, runs, output);
}

static int deaths_keep(core_runtime *rt, uint32_t slot, uint32_t epoch, PyObject *facts)
{
    Py_ssize_t at = 0;
    PyObject *oldest = NULL;
    PyObject *value = NULL;
    if (PyDict_GET_SIZE(rt->deaths) >= DEATHS_MAX &&
        PyDict_Next(rt->deaths, &at, &oldest, &value)) {
        Py_INCREF(oldest);
        int gone = PyDict_DelItem(rt->deaths, oldest);
        Py_DECREF(oldest);
        if (gone < 0) {
            return -1;
        }
    }
    PyObject *key = Py_BuildValue("(II)", (unsigned)slot, (unsigned)epoch);
    int kept = key != NULL ? PyDict_SetItem(rt->deaths, key, facts) : -1;
    Py_XDECREF(key);
    return kept;
}

void core_on_death(void *context, uint32_t slot, uint32_t epoch)
{
    core_runtime *rt = context;
    pulsing_obituary *obituary = PyMem_Malloc(sizeof *obituary);
    if (obituary == NULL || rt->p == NULL ||
        pulsing_obituary_get(rt->p, slot, epoch, obituary) != PLS_OK) {
        PyMem_Free(obituary);
        return;
    }
    PyObject *facts = facts_tuple(obituary);
    PyMem_Free(obituary);
    if (facts == NULL || deaths_keep(rt, slot, epoch, facts) < 0) {
        PyErr_WriteUnraisable((PyObject *)rt);
    }
    Py_XDECREF(facts);
}

/* death(slot, epoch): asked for when no message had been exchanged with the process before it died,
 * in which case on_death did not come. */
PyObject *core_death(PyObject *self, PyObject *args)
{
    core_runtime *rt = (core_runtime *)self;
    unsigned slot = 0;
    unsigned epoch = 0;
    pls_death death;
    if (!PyArg_ParseTuple(args, "II", &slot, &epoch)) {
        return NULL;
    }
    PyObject *key = Py_BuildValue("(II)", slot, epoch);
    PyObject *facts = key != NULL ? PyDict_GetItemWithError(rt->deaths, key) : NULL;
    /* Texts of errors are read by any thread; only the owner may ask the node. */
    bool owner = rt->p != NULL && rt->thread == PyThread_get_thread_ident();
    if (key != NULL && facts == NULL && !PyErr_Occurred() && owner && !pulsing_forked(rt->p) &&
        pulsing_death_get(rt->p, slot, epoch, &death) == PLS_OK && death.state == PLS_SLOT_DEAD) {
        core_on_death(rt, slot, epoch);
        facts = PyDict_GetItemWithError(rt->deaths, key);
    }
    Py_XDECREF(key);
    if (facts == NULL && PyErr_Occurred()) {
        return NULL;
    }
    return Py_NewRef(facts != NULL ? facts : Py_None);
}

/* The host is told at most ten times a second, however many there are. */
void core_on_dead_letter(void *context, uint8_t Py_UNUSED(reason))
{
    core_runtime *rt = context;
    if (rt->letters_due || rt->loop == NULL || rt->closed) {
        return;
    }
    PyObject *callback = PyObject_GetAttrString((PyObject *)rt, "on_letters");
    PyObject *handle = callback != NULL
                           ? PyObject_CallFunction(rt->call_later, "dO", LETTERS_PAUSE_S, callback)
                           : NULL;
    rt->letters_due = handle != NULL;
    if (handle == NULL) {
        PyErr_Clear(); /* the loop is closed */
    }
    int64_t by_ns = pulsing_now_ns() + (int64_t)(LETTERS_PAUSE_S * 1e9);
    if (rt->wake_by_ns == 0 || by_ns < rt->wake_by_ns) {
        rt->wake_by_ns = by_ns; /* a worker takes messages in when its loop knows its next timer */
    }
    Py_XDECREF(handle);
    Py_XDECREF(callback);
}

PyObject *core_letters_tell(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    core_runtime *rt = (core_runtime *)self;
    rt->letters_due = false;
    if (rt->p == NULL || rt->host == NULL) {
        Py_RETURN_NONE;
    }
    return PyObject_CallMethod(rt->host, "on_dead_letters", NULL);
}

void core_death_tell(core_ref *ref, PyObject *exception, uint32_t slot, uint32_t epoch)
{
    PyObject *module = PyImport_ImportModule("pulsing._errors");
    PyObject *actor = module != NULL ? PyObject_GetAttrString((PyObject *)ref, "actor_id") : NULL;
    PyObject *none = actor != NULL
                         ? PyObject_CallMethod(module, "tell_death", "OOOII", exception, ref->rt,
                                               actor, (unsigned)slot, (unsigned)epoch)
                         : NULL;
    if (none == NULL) {
        PyErr_WriteUnraisable(exception); /* the text alone has to do */
    }
    Py_XDECREF(none);
    Py_XDECREF(actor);
    Py_XDECREF(module);
}
