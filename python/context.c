/* SPDX-License-Identifier: Apache-2.0 */
/* Context variables follow a call. What is set where a call is made travels behind the call's
 * arguments, and the handler runs in a context that has just that: so handlers see nothing of each
 * other's, and a call from where nothing is set costs a look at an empty context. pulsing._context
 * knows which variables are the same ones in two processes. */
#include "python/context.h"

#include "python/codec_internal.h"

/* One call's variables: they are for identities and settings, not for data. */
#define CONTEXT_BYTES_MAX 65536

/* All that is kept of what was registered. */
enum { KEPT = 6 };

static void places_of(core_variables *variables, PyObject **places[KEPT])
{
    places[0] = &variables->keys;
    places[1] = &variables->known;
    places[2] = &variables->key_of;
    places[3] = &variables->find;
    places[4] = &variables->refuse;
    places[5] = &variables->unreadable;
}

int core_context_traverse(core_variables *variables, visitproc visit, void *arg)
{
    PyObject **places[KEPT];
    places_of(variables, places);
    for (int i = 0; i < KEPT; i++) {
        Py_VISIT(*places[i]);
    }
    return 0;
}

void core_context_clear(core_variables *variables)
{
    PyObject **places[KEPT];
    places_of(variables, places);
    for (int i = 0; i < KEPT; i++) {
        Py_CLEAR(*places[i]);
    }
}

PyObject *core_register_context(PyObject *module, PyObject *args)
{
    core_state *state = core_state_of(module);
    PyObject *objects[KEPT];
    PyObject **places[KEPT];
    if (!PyArg_ParseTuple(args, "O!O!OOOO", &PyDict_Type, &objects[0], &PyDict_Type, &objects[1],
                          &objects[2], &objects[3], &objects[4], &objects[5])) {
        return NULL;
    }
    places_of(&state->variables, places);
    for (int i = 0; i < KEPT; i++) {
        Py_XSETREF(*places[i], Py_NewRef(objects[i]));
    }
    if (PyDict_SetItem(state->variables.keys, state->current_var, Py_None) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

/* What `cache` has for `name`, else what `find` says: a new reference. */
static PyObject *looked_up(PyObject *cache, PyObject *name, PyObject *find)
{
    PyObject *found = PyDict_GetItemWithError(cache, name);
    if (found != NULL) {
        return Py_NewRef(found);
    }
    return PyErr_Occurred() ? NULL : PyObject_CallOneArg(find, name);
}

/* The value cannot be sent, for the reason that is set: 0 if the variable stays behind, which is
 * for those of libraries, else -1 with an exception that names it. */
static int value_refused(const core_variables *variables, PyObject *variable)
{
    PyObject *error = core_exception_taken();
    PyObject *none = error != NULL
                         ? PyObject_CallFunctionObjArgs(variables->refuse, variable, error, NULL)
                         : NULL;
    Py_XDECREF(error);
    Py_XDECREF(none);
    return none != NULL ? 0 : -1;
}

/* str key, uint length, the encoded value */
static int entry_put(core_runtime *rt, PyObject *key, PyObject *value, size_t begin, pls_sink *sink)
{
    pls_sink own;
    Py_ssize_t key_bytes = 0;
    const char *key_utf8 = PyUnicode_AsUTF8AndSize(key, &key_bytes);
    if (key_utf8 == NULL) {
        return -1;
    }
    pls_sink_init(&own, NULL, 0, sink->flags | PLS_CODEC_NO_BUFFERS, rt);
    int result = pls_codec_encode(&rt->state->codec, value, &own);
    size_t bytes = result == 0 ? pls_sink_len(&own) : 0;
    if (bytes > CONTEXT_BYTES_MAX || pls_sink_len(sink) - begin > CONTEXT_BYTES_MAX - bytes) {
        result = pls_codec_fail(&rt->state->codec,
                                "with it the variables of the call take more than %d bytes",
                                CONTEXT_BYTES_MAX);
    }
    if (result == 0) {
        result = pls_put_str(sink, key_utf8, (size_t)key_bytes) != 0 ||
                         pls_put_uint(sink, bytes) != 0 || pls_sink_put(sink, own.begin, bytes) != 0
                     ? -1
                     : 0;
    }
    pls_sink_fini(&own);
    return result;
}

static int variable_put(core_runtime *rt, PyObject *context, PyObject *variable, bool near,
                        size_t begin, pls_sink *sink)
{
    const core_variables *variables = &rt->state->variables;
    PyObject *key = looked_up(variables->keys, variable, variables->key_of);
    if (key == NULL) {
        return -1;
    }
    int result = 0;
    /* '~': a variable that only this process can know. */
    if (PyUnicode_Check(key) && PyUnicode_GET_LENGTH(key) > 0 &&
        (near || PyUnicode_READ_CHAR(key, 0) != '~')) {
        PyObject *value = PyObject_GetItem(context, variable);
        size_t at = pls_sink_len(sink);
        result = value != NULL ? entry_put(rt, key, value, begin, sink) : -1;
        Py_XDECREF(value);
        if (result < 0) {
            sink->at = sink->begin + at;
            result = value_refused(variables, variable);
        }
    }
    Py_DECREF(key);
    return result;
}

static int variables_put(core_runtime *rt, PyObject *context, bool near, pls_sink *sink)
{
    PyObject *iterator = PyObject_GetIter(context);
    PyObject *variable = NULL;
    size_t begin = pls_sink_len(sink);
    int result = iterator != NULL ? 0 : -1;
    while (result == 0 && (variable = PyIter_Next(iterator)) != NULL) {
        result = variable_put(rt, context, variable, near, begin, sink);
        Py_DECREF(variable);
    }
    Py_XDECREF(iterator);
    return result == 0 && !PyErr_Occurred() ? 0 : -1;
}

/* Whether anything is set beside the message that is being handled. */
static bool is_plain(core_runtime *rt, PyObject *context)
{
    Py_ssize_t count = PyObject_Length(context);
    PyObject *value = NULL;
    if (count == 1 && PyContextVar_Get(rt->state->current_var, NULL, &value) == 0) {
        count = value != NULL ? 0 : 1;
        Py_XDECREF(value);
    }
    return count == 0;
}

int core_context_put(core_runtime *rt, bool near, pls_sink *sink, uint32_t *bytes_out)
{
    *bytes_out = 0;
    PyObject *context = PyContext_CopyCurrent();
    if (context == NULL) {
        return -1;
    }
    int result = 0;
    if (!is_plain(rt, context) && rt->state->variables.keys != NULL) {
        size_t begin = pls_sink_len(sink);
        result = variables_put(rt, context, near, sink);
        *bytes_out = result == 0 ? (uint32_t)(pls_sink_len(sink) - begin) : 0;
    }
    Py_DECREF(context);
    return result;
}

/* Sets a variable in the context that was entered; one that is unknown here stays unset. */
static int variable_set(core_runtime *rt, PyObject *key, const uint8_t *bytes, size_t len,
                        unsigned flags)
{
    const core_variables *variables = &rt->state->variables;
    PyObject *variable = looked_up(variables->known, key, variables->find);
    if (variable == NULL || variable == Py_None) {
        Py_XDECREF(variable);
        return variable != NULL ? 0 : -1;
    }
    pls_source source = pls_source_over(bytes, len, flags, rt);
    PyObject *value = pls_codec_decode(&rt->state->codec, &source);
    PyObject *token = NULL;
    if (value == NULL) {
        PyObject *error = core_exception_taken();
        PyObject *none = error != NULL ? PyObject_CallFunctionObjArgs(variables->unreadable,
                                                                      variable, error, NULL)
                                       : NULL;
        Py_XDECREF(error);
        Py_XDECREF(none);
    } else {
        token = PyContextVar_Set(variable, value);
        Py_DECREF(value);
    }
    Py_DECREF(variable);
    Py_XDECREF(token);
    return token != NULL ? 0 : -1;
}

static int variables_set(core_runtime *rt, const pulsing_message *message)
{
    pls_codec *codec = &rt->state->codec;
    unsigned flags = core_codec_flags(rt, message->origin.slot);
    pls_source source = pls_source_over(message->payload + message->payload_bytes,
                                        message->context_bytes, flags, rt);
    source.codec = codec;
    while (source.at != source.end) {
        uint64_t len = 0;
        PyObject *key = pls_take_value(codec, &source);
        const uint8_t *bytes = key != NULL && pls_take_uint(codec, &source, &len)
                                   ? pls_source_take(&source, (size_t)len)
                                   : NULL;
        int set = -1;
        if (bytes != NULL && !PyUnicode_CheckExact(key)) {
            pls_codec_fail(codec, "a context variable's key is not text");
        } else if (bytes != NULL) {
            set = variable_set(rt, key, bytes, (size_t)len, flags);
        }
        Py_XDECREF(key);
        if (set < 0) {
            return -1;
        }
    }
    return 0;
}

PyObject *core_context_enter(core_runtime *rt, const pulsing_message *message)
{
    PyObject *context = rt->context;
    rt->context = NULL;
    if (context == NULL) {
        context = PyContext_New();
    }
    if (context == NULL || PyContext_Enter(context) < 0) {
        Py_XDECREF(context);
        return NULL;
    }
    if (message->context_bytes > 0 && rt->state->variables.known != NULL &&
        variables_set(rt, message) < 0) {
        (void)PyContext_Exit(context);
        Py_DECREF(context);
        return NULL;
    }
    return context;
}

void core_context_leave(core_runtime *rt, PyObject *context)
{
    if (PyContext_Exit(context) < 0) {
        PyErr_WriteUnraisable(context);
    }
    if (rt->context == NULL && PyObject_Length(context) == 0) {
        rt->context = context;
    } else {
        Py_DECREF(context);
    }
}

PyObject *core_context_fresh(PyObject *module, PyObject *current)
{
    core_state *state = core_state_of(module);
    PyObject *context = PyContext_New();
    PyObject *token = NULL;
    if (context != NULL && PyContext_Enter(context) == 0) {
        token = PyContextVar_Set(state->current_var, current);
        (void)PyContext_Exit(context);
    }
    if (token == NULL) {
        core_clear(&context);
    }
    Py_XDECREF(token);
    return context;
}
