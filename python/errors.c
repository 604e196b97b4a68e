/* SPDX-License-Identifier: Apache-2.0 */
/* The only place where an error of the engine becomes a Python exception. */
#include "python/core_parts.h"

#include <string.h>

#define FRAMES_MAX 3

PyObject *core_exception(core_state *state, core_error error, const char *format, ...)
{
    va_list list;
    va_start(list, format);
    PyObject *text = PyUnicode_FromFormatV(format, list);
    va_end(list);
    if (text == NULL) {
        return NULL;
    }
    PyObject *exception = PyObject_CallOneArg(state->errors[error], text);
    Py_DECREF(text);
    return exception;
}

PyObject *core_exception_taken(void)
{
    PyObject *type = NULL;
    PyObject *value = NULL;
    PyObject *traceback = NULL;
    PyErr_Fetch(&type, &value, &traceback);
    PyErr_NormalizeException(&type, &value, &traceback);
    if (traceback != NULL) {
        PyException_SetTraceback(value, traceback);
    }
    Py_XDECREF(type);
    Py_XDECREF(traceback);
    return value;
}

/* "\n  FILE:LINE, in FUNCTION" for one entry of a traceback. */
static PyObject *frame_words(PyObject *entry)
{
    PyObject *line = PyObject_GetAttrString(entry, "tb_lineno");
    PyObject *frame = PyObject_GetAttrString(entry, "tb_frame");
    PyObject *code = frame != NULL ? PyObject_GetAttrString(frame, "f_code") : NULL;
    PyObject *file = code != NULL ? PyObject_GetAttrString(code, "co_filename") : NULL;
    PyObject *function = file != NULL ? PyObject_GetAttrString(code, "co_name") : NULL;
    PyObject *words = NULL;
    if (line != NULL && function != NULL) {
        words = PyUnicode_FromFormat("\n  %S:%S, in %S", file, line, function);
    }
    Py_XDECREF(function);
    Py_XDECREF(file);
    Py_XDECREF(code);
    Py_XDECREF(frame);
    Py_XDECREF(line);
    return words;
}

/* The innermost entries of a traceback, which begins with the outermost; borrowed from it. */
static int frames_find(PyObject *traceback, PyObject *frames_out[FRAMES_MAX])
{
    int count = 0;
    for (PyObject *entry = traceback; entry != NULL && entry != Py_None;) {
        if (count == FRAMES_MAX) {
            memmove(frames_out, frames_out + 1, (FRAMES_MAX - 1) * sizeof *frames_out);
            count--;
        }
        frames_out[count++] = entry;
        PyObject *next = PyObject_GetAttrString(entry, "tb_next");
        if (next == NULL) {
            return -1;
        }
        Py_DECREF(next); /* the entry before has it */
        entry = next;
    }
    return count;
}

PyObject *core_exception_words(PyObject *exception)
{
    PyObject *frames[FRAMES_MAX];
    PyObject *words = PyUnicode_FromFormat("%s: %.200S", Py_TYPE(exception)->tp_name, exception);
    PyObject *traceback = PyException_GetTraceback(exception);
    int count = words != NULL ? frames_find(traceback, frames) : -1;
    for (int i = count - 1; i >= 0 && words != NULL; i--) {
        PyObject *frame = frame_words(frames[i]);
        PyObject *longer = frame != NULL ? PyUnicode_Concat(words, frame) : NULL;
        Py_XDECREF(frame);
        Py_SETREF(words, longer);
    }
    Py_XDECREF(traceback);
    if (count < 0) {
        Py_CLEAR(words);
    }
    return words;
}

static core_error error_class(pls_err err)
{
    switch (err) {
    case PLS_EFULL:
    case PLS_EBUDGET:
        return CORE_MAILBOX_FULL;
    case PLS_EDEAD:
        return CORE_ACTOR_DIED;
    case PLS_ECLOSED:
    case PLS_EFORKED:
        return CORE_SYSTEM_CLOSED;
    case PLS_ENOENT:
        return CORE_ACTOR_NOT_FOUND;
    case PLS_ETOOBIG:
    case PLS_EPROTO:
    case PLS_ECORRUPT:
        return CORE_CODEC_ERROR;
    case PLS_ETIMEDOUT:
        return CORE_ASK_TIMEOUT;
    default:
        return CORE_PULSING_ERROR;
    }
}

static const char *remedy(pls_err err)
{
    switch (err) {
    case PLS_EBUDGET:
        return "; large payloads in flight use all of it: await earlier calls, drop received "
               "arrays, or raise SystemConfig.with_memory(...)";
    case PLS_ETOOBIG:
        return "; send it in pieces, or raise SystemConfig.with_memory(...)";
    case PLS_EFDLIMIT:
        return "; raise the limit of open files (ulimit -n)";
    case PLS_EFULL:
        return "; await earlier calls before making more";
    default:
        return "";
    }
}

int core_fail(core_state *state, pls_err err, const char *what)
{
    if (err == PLS_ENOMEM) {
        PyErr_NoMemory();
        return -1;
    }
    PyErr_Format(state->errors[error_class(err)], "%s: %s%s", what, pls_err_text(err), remedy(err));
    return -1;
}

/* "Counter 'c1'", or "Counter 100000100000007". */
PyObject *core_ref_words(core_ref *ref)
{
    char id[32];
    if (ref->name != Py_None) {
        return PyUnicode_FromFormat("%U '%U'", ref->class_name, ref->name);
    }
    PyOS_snprintf(id, sizeof id, "%llx", (unsigned long long)ref->id);
    return PyUnicode_FromFormat("%U %s", ref->class_name, id);
}

int core_fail_target(core_state *state, pls_err err, core_ref *ref)
{
    const char *death = pulsing_target_death(ref->target);
    if (err == PLS_ECLOSED && pulsing_closed_text(ref->rt->p) != NULL) {
        PyErr_SetString(state->errors[CORE_SYSTEM_CLOSED], pulsing_closed_text(ref->rt->p));
        return -1;
    }
    char words_of_death[160];
    if (err != PLS_EDEAD) {
        return core_fail(state, err, "the message was not sent");
    }
    if (death == NULL) {
        /* It had died before this process ever had to do with it. */
        pulsing_death_words(ref->rt->p, pulsing_target_slot(ref->target),
                            pulsing_target_epoch(ref->target), words_of_death,
                            sizeof words_of_death);
        death = words_of_death;
    }
    PyObject *words = core_ref_words(ref);
    if (words != NULL) {
        PyObject *exception =
            core_exception(state, CORE_ACTOR_DIED, "actor %U is gone: %s", words, death);
        if (exception != NULL) {
            core_death_tell(ref, exception, pulsing_target_slot(ref->target),
                            pulsing_target_epoch(ref->target));
            PyErr_SetObject((PyObject *)Py_TYPE(exception), exception);
            Py_DECREF(exception);
        }
        Py_DECREF(words);
    }
    return -1;
}

static core_error status_class(uint8_t status)
{
    switch (status) {
    case PULSING_NO_ACTOR:
    case PULSING_DIED:
        return CORE_ACTOR_DIED;
    case PULSING_MAILBOX_FULL:
        return CORE_MAILBOX_FULL;
    case PULSING_EXPIRED:
        return CORE_ASK_TIMEOUT;
    case PULSING_CANCELLED:
        return CORE_ASK_CANCELLED;
    case PULSING_DEADLOCK:
        return CORE_DEADLOCK;
    case PULSING_CLOSED:
        return CORE_SYSTEM_CLOSED;
    case PULSING_UNREACHABLE:
        return CORE_NODE_UNREACHABLE;
    default:
        return CORE_CODEC_ERROR;
    }
}

static PyObject *raised(core_runtime *rt, const pulsing_message *message)
{
    pls_source source;
    PyObject *block = NULL;
    if (core_source(rt, message, &source, &block) < 0) {
        return NULL;
    }
    PyObject *exception = pls_codec_decode_exception(&rt->state->codec, &source);
    Py_XDECREF(block);
    return exception;
}

PyObject *core_reply_exception(core_runtime *rt, const pulsing_message *message, core_ref *ref,
                               PyObject *label)
{
    core_state *state = rt->state;
    if (message->status == PULSING_RAISED) {
        return raised(rt, message);
    }
    PyObject *text = PyUnicode_DecodeUTF8((const char *)message->payload,
                                          (Py_ssize_t)message->payload_bytes, "replace");
    if (text == NULL) {
        return NULL;
    }
    PyObject *exception = NULL;
    PyObject *words = ref != NULL ? core_ref_words(ref) : NULL;
    if (message->status == PULSING_NO_METHOD) {
        exception = PyObject_CallOneArg(PyExc_AttributeError, text);
    } else if (message->status == PULSING_CLOSED) {
        exception = core_exception(state, CORE_SYSTEM_CLOSED, "%U", text);
    } else if (message->status == PULSING_UNABLE) {
        exception = core_exception(state, CORE_PULSING_ERROR, "%U", text);
    } else if (words != NULL && label != NULL) {
        /* Of a ref that was made from a name or an id the class is not known. */
        bool known = PyUnicode_CompareWithASCIIString(ref->class_name, "actor") != 0;
        exception = core_exception(state, status_class(message->status), "%U of %s%U: %U", label,
                                   known ? "actor " : "", words, text);
    } else if (!PyErr_Occurred()) {
        exception = core_exception(state, status_class(message->status), "%U", text);
    }
    bool died = message->status == PULSING_DIED || message->status == PULSING_NO_ACTOR;
    if (exception != NULL && died && ref != NULL && message->origin.slot != PULSING_FAR_SLOT) {
        core_death_tell(ref, exception, message->origin.slot, message->origin.epoch);
    }
    Py_XDECREF(words);
    Py_DECREF(text);
    return exception;
}
