/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PLS_PYTHON_CONTEXT_H
#define PLS_PYTHON_CONTEXT_H

#include "python/core_parts.h"

/* Context variables on their way with a call.
 * Threads: whoever holds the GIL; never blocks; the same for every function of this header. */

/* Appends the variables that are set here to a call's encoding.
 * Units:   `bytes_out`: how many bytes they take, 0 for none.
 * Errors:  -1 with an exception that names the variable whose value cannot be sent.
 * `near`: the receiver is this process, which knows all variables. */
int core_context_put(core_runtime *rt, bool near, pls_sink *sink, uint32_t *bytes_out);

/* Enters a context with the variables of the message and nothing else; its payload must not have
 * been released. Owns: gives the context, for core_context_leave(). NULL with an exception. */
PyObject *core_context_enter(core_runtime *rt, const pulsing_message *message);

/* Takes the context. */
void core_context_leave(core_runtime *rt, PyObject *context);

/* register_context(keys, known, key_of, find, refuse, unreadable): what pulsing._context knows. */
PyObject *core_register_context(PyObject *module, PyObject *args);

/* The garbage collector's way through what was registered, and its end. */
int core_context_traverse(core_variables *variables, visitproc visit, void *arg);
void core_context_clear(core_variables *variables);

/* fresh_context(current): a context in which current() gives this, and nothing else is set. */
PyObject *core_context_fresh(PyObject *module, PyObject *current);

#endif
