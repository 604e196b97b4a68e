/* SPDX-License-Identifier: Apache-2.0 */
/* What every awaitable of ours does alike, so that it is accepted wherever a coroutine is: what
 * `send()` and `throw()` give. The am_send of each type says what a turn gives. */
#include "python/core_parts.h"

PyObject *core_coroutine_next(PySendResult sent, PyObject *out)
{
    if (sent != PYGEN_RETURN) {
        return out;
    }
    PyObject *stop = PyObject_CallOneArg(PyExc_StopIteration, out);
    Py_DECREF(out);
    if (stop != NULL) {
        PyErr_SetObject(PyExc_StopIteration, stop);
        Py_DECREF(stop);
    }
    return NULL;
}

PyObject *core_coroutine_throw(PyObject *const *args, Py_ssize_t count)
{
    PyObject *value = count > 1 && args[1] != Py_None ? args[1] : count > 0 ? args[0] : NULL;
    if (value != NULL && PyExceptionInstance_Check(value)) {
        PyErr_SetObject((PyObject *)Py_TYPE(value), value);
    } else if (count > 0 && PyExceptionClass_Check(args[0])) {
        PyErr_SetObject(args[0], value == args[0] ? NULL : value);
    } else {
        PyErr_SetString(PyExc_TypeError, "throw() needs an exception");
    }
    return NULL;
}
