/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PLS_PYTHON_CONTROL_H
#define PLS_PYTHON_CONTROL_H

#include "python/core_parts.h"

/* Requests to the node, as methods of Runtime; the table is spliced into the type's own. */
PyObject *core_control_place(PyObject *self, PyObject *args);
PyObject *core_control_name_register(PyObject *self, PyObject *args);
PyObject *core_control_name_unregister(PyObject *self, PyObject *args);
PyObject *core_control_name_find(PyObject *self, PyObject *args);
PyObject *core_control_names_list(PyObject *self, PyObject *args);
PyObject *core_control_members_list(PyObject *self, PyObject *follow);
PyObject *core_control_members_parse(PyObject *self, PyObject *bytes);
PyObject *core_control_names_parse(PyObject *self, PyObject *args);
PyObject *core_control_restart_register(PyObject *self, PyObject *args);
PyObject *core_control_actor_unregister(PyObject *self, PyObject *args);
PyObject *core_control_actor_failed(PyObject *self, PyObject *args);
PyObject *core_control_recycle(PyObject *self, PyObject *ignored);
PyObject *core_control_actor_find(PyObject *self, PyObject *args);
PyObject *core_control_rebuilt(PyObject *self, PyObject *args);
PyObject *core_control_output_tail(PyObject *self, PyObject *args);
PyObject *core_control_worker_stop(PyObject *self, PyObject *args);
PyObject *core_control_shutdown(PyObject *self, PyObject *args);

#define CORE_CONTROL_METHODS                                                                       \
    {"place", core_control_place, METH_VARARGS,                                                    \
     "place(kind, index, env, cpus): find or start a worker."},                                    \
        {"name_register", core_control_name_register, METH_VARARGS,                                \
         "name_register(name, actor, flags, class_name, metadata)"},                               \
        {"name_unregister", core_control_name_unregister, METH_VARARGS,                            \
         "name_unregister(name, actor)"},                                                          \
        {"name_find", core_control_name_find, METH_VARARGS, "name_find(name, wait_ms, flags=1)"},  \
        {"names_list", core_control_names_list, METH_NOARGS, "All names of this node."},           \
        {"names_parse", core_control_names_parse, METH_O,                                          \
         "The entries in what names_list() gave."},                                                \
        {"members_list", core_control_members_list, METH_O,                                        \
         "members_list(follow): the nodes of the cluster."},                                       \
        {"members_parse", core_control_members_parse, METH_O,                                      \
         "The entries in what members_list() gave."},                                              \
        {"restart_register", core_control_restart_register, METH_VARARGS,                          \
         "restart_register(actor, policy, max, min_ms, max_ms, place, index, spec)"},              \
        {"actor_unregister", core_control_actor_unregister, METH_O, "actor_unregister(actor)"},    \
        {"actor_failed", core_control_actor_failed, METH_VARARGS, "actor_failed(actor, text)"},    \
        {"recycle", core_control_recycle, METH_NOARGS, "This worker leaves for a fresh one."},     \
        {"actor_find", core_control_actor_find, METH_O, "actor_find(actor): where it lives now."}, \
        {"rebuilt", core_control_rebuilt, METH_VARARGS, "rebuilt(actor, ok, text)"},               \
        {"output_tail", core_control_output_tail, METH_VARARGS, "output_tail(slot, epoch)"},       \
        {"worker_stop", core_control_worker_stop, METH_VARARGS,                                    \
         "worker_stop(slot, epoch, timeout_ms)"},                                                  \
        {"shutdown_node", core_control_shutdown, METH_VARARGS, "shutdown_node(timeout_ms)"},

#endif
