/* SPDX-License-Identifier: Apache-2.0 */
/* pulsing._core: the extension module. Everything that lives as long as the module is in its state:
 * types, the codec, exception classes, interned names. */
#include "python/context.h"

#include "node/launch.h"
#include "node/attach.h"

#include <string.h>

static const char *const core_error_names[CORE_ERROR_COUNT] = {
    "ActorDied",    "ActorError",   "ActorFailed",   "ActorNotFound", "AskCancelled",
    "AskTimeout",   "CodecError",   "DeadlockError", "MailboxFull",   "NodeUnreachable",
    "PulsingError", "StreamClosed", "SystemClosed",
};

static const char *const core_names[CORE_NAME_COUNT] = {
    "_asyncio_future_blocking",
    "set_result",
    "done",
    "call_soon",
    "call_later",
    "create_future",
    "create_task",
    "add_done_callback",
    "result",
    "cancel",
    "cancelled",
    "exception",
    "_ready",
    "_scheduled",
    "tell",
    "options",
    "msg_type",
    "payload",
    "_stream",
    "_end",
};

#define CORE_TYPE_COUNT 11

core_state *core_state_of(PyObject *module)
{
    return PyModule_GetState(module);
}

core_state *core_state_of_type(PyTypeObject *type)
{
    PyObject *module = PyType_GetModule(type);
    return module != NULL ? core_state_of(module) : NULL;
}

/* Strings of a Python list, borrowed, NULL-terminated; PyMem memory. NULL for None. */
static int strings_of(PyObject *list, const char ***strings_out)
{
    *strings_out = NULL;
    if (list == Py_None) {
        return 0;
    }
    Py_ssize_t count = PyList_Check(list) ? PyList_GET_SIZE(list) : -1;
    const char **strings = count >= 0 ? PyMem_Calloc((size_t)count + 1, sizeof *strings) : NULL;
    if (strings == NULL) {
        PyErr_SetString(PyExc_TypeError, "expected a list of strings");
        return -1;
    }
    for (Py_ssize_t i = 0; i < count; i++) {
        strings[i] = PyUnicode_AsUTF8(PyList_GET_ITEM(list, i));
        if (strings[i] == NULL) {
            PyMem_Free(strings);
            return -1;
        }
    }
    *strings_out = strings;
    return 0;
}

static PyObject *trouble_raise(PyObject *module, pls_err err, const char *trouble)
{
    PyErr_Format(core_state_of(module)->errors[CORE_PULSING_ERROR], "%s (%s)",
                 trouble[0] != '\0' ? trouble : "the node cannot be reached", pls_err_text(err));
    return NULL;
}

/* The options of a node as launch() and node_become() take them: (program, workers, template_argv,
 * sys_path, env, info, name, listen, memory, plain, worker_memory, addr, advertise, seeds, key,
 * key_file). The strings are borrowed from `args`. */
#define LISTS 4

typedef struct node_arguments {
    pls_node_options options;
    const char **strings[LISTS];
} node_arguments;

static void arguments_free(node_arguments *arguments)
{
    for (int i = 0; i < LISTS; i++) {
        PyMem_Free(arguments->strings[i]);
    }
}

static int arguments_read(PyObject *args, node_arguments *arguments)
{
    pls_node_options *options = &arguments->options;
    PyObject *lists[LISTS] = {NULL, NULL, NULL, Py_None};
    Py_ssize_t info_bytes = 0;
    unsigned long long memory = 0;
    unsigned long long worker_memory = 0;
    int plain = 0;
    memset(arguments, 0, sizeof *arguments);
    if (!PyArg_ParseTuple(args, "sIOOOy#zzKp|KzzOzz", &options->program, &options->workers_max,
                          &lists[0], &lists[1], &lists[2], (const char **)&options->worker_info,
                          &info_bytes, &options->name, &options->listen, &memory, &plain,
                          &worker_memory, &options->addr, &options->advertise, &lists[3],
                          &options->cluster_key, &options->cluster_key_file)) {
        return -1;
    }
    for (int i = 0; i < LISTS; i++) {
        if (strings_of(lists[i], &arguments->strings[i]) < 0) {
            arguments_free(arguments);
            return -1;
        }
    }
    options->template_argv = arguments->strings[0];
    options->python_path = arguments->strings[1];
    options->env = arguments->strings[2];
    options->seeds = arguments->strings[3];
    options->worker_info_bytes = (size_t)info_bytes;
    options->memory_budget_bytes = memory;
    options->output_plain = plain != 0;
    options->worker_memory_bytes = worker_memory;
    return 0;
}

/* launch(...) -> (control_fd, pid, pidfd) */
static PyObject *core_launch(PyObject *module, PyObject *args)
{
    node_arguments arguments;
    char trouble[PLS_TROUBLE_BYTES_MAX] = "";
    pls_node_launched launched = {-1, 0, -1};
    if (arguments_read(args, &arguments) < 0) {
        return NULL;
    }
    pls_err err = PLS_OK;
    Py_BEGIN_ALLOW_THREADS
    err = pls_node_launch(&arguments.options, &launched, trouble);
    Py_END_ALLOW_THREADS
    arguments_free(&arguments);
    if (err != PLS_OK) {
        return trouble_raise(module, err, trouble);
    }
    return Py_BuildValue("(iIi)", launched.control_fd, (unsigned)launched.pid, launched.pidfd);
}

/* node_become(...): this process becomes the node; returns only by an exception. */
static PyObject *core_node_become(PyObject *module, PyObject *args)
{
    node_arguments arguments;
    char trouble[PLS_TROUBLE_BYTES_MAX] = "";
    if (arguments_read(args, &arguments) < 0) {
        return NULL;
    }
    pls_err err = pls_node_become(&arguments.options, trouble);
    arguments_free(&arguments);
    return trouble_raise(module, err, trouble);
}

/* node_wait(pid, pidfd, timeout_ms) -> whether it has ended; then the pidfd is closed. */
static PyObject *core_node_wait(PyObject *Py_UNUSED(module), PyObject *args)
{
    pls_node_launched launched = {-1, 0, -1};
    unsigned pid = 0;
    int timeout_ms = 0;
    if (!PyArg_ParseTuple(args, "Iii", &pid, &launched.pidfd, &timeout_ms)) {
        return NULL;
    }
    launched.pid = pid;
    pls_err err = PLS_OK;
    Py_BEGIN_ALLOW_THREADS
    err = pls_node_wait(&launched, timeout_ms);
    Py_END_ALLOW_THREADS
    return PyBool_FromLong(err == PLS_OK);
}

/* connect(name or path) -> control_fd */
static PyObject *core_connect(PyObject *module, PyObject *name)
{
    char trouble[PLS_TROUBLE_BYTES_MAX] = "";
    int fd = -1;
    const char *utf8 = PyUnicode_AsUTF8(name);
    if (utf8 == NULL) {
        return NULL;
    }
    pls_err err = pls_attach_connect(utf8, &fd, trouble);
    return err != PLS_OK ? trouble_raise(module, err, trouble) : PyLong_FromLong(fd);
}

static PyObject *core_current(PyObject *module, PyObject *Py_UNUSED(ignored))
{
    PyObject *value = NULL;
    core_state *state = core_state_of(module);
    if (PyContextVar_Get(state->current_var, NULL, &value) < 0) {
        return NULL;
    }
    if (value == NULL) {
        Py_RETURN_NONE;
    }
    return value;
}

/* Systems travel as nothing: each becomes the receiver's own. Classes of systems are registered in
 * the same order in every process. */
static int system_encode(pls_codec *Py_UNUSED(codec), PyObject *Py_UNUSED(object),
                         pls_sink *Py_UNUSED(sink))
{
    return 0;
}

static PyObject *system_decode(pls_codec *codec, pls_source *source)
{
    core_runtime *rt = source->context;
    if (rt == NULL || rt->system == NULL) {
        PyErr_SetString(codec->error, "a system in a message needs a system that receives it");
        return NULL;
    }
    return Py_NewRef(rt->system);
}

static PyObject *core_register_system(PyObject *module, PyObject *type)
{
    core_state *state = core_state_of(module);
    if (!PyType_Check(type)) {
        PyErr_SetString(PyExc_TypeError, "expected a class");
        return NULL;
    }
    int code = PLS_CODEC_SPECIAL_FIRST + 3 + state->system_class_count;
    if (pls_codec_register(&state->codec, (PyTypeObject *)type, code, system_encode,
                           system_decode) < 0) {
        return NULL;
    }
    state->system_class_count++;
    Py_RETURN_NONE;
}

/* register_python(message, stream_message, restore, actor_id, ref_extras): classes that are
 * written in Python, and methods of refs. */
static PyObject *core_register_python(PyObject *module, PyObject *args)
{
    core_state *state = core_state_of(module);
    PyObject *objects[5];
    if (!PyArg_ParseTuple(args, "O!O!OOO!", &PyType_Type, &objects[0], &PyType_Type, &objects[1],
                          &objects[2], &objects[3], &PyDict_Type, &objects[4])) {
        return NULL;
    }
    PyObject **places[] = {&state->message_class, &state->stream_message_class,
                           &state->message_restore, &state->actor_id_class, &state->ref_extras};
    for (int i = 0; i < 5; i++) {
        Py_XSETREF(*places[i], Py_NewRef(objects[i]));
    }
    if (core_streams_register(state) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

/* encode(obj, allow_pickle=True) -> bytes and decode(bytes, runtime=None) -> object, for what is
 * kept or sent outside of messages: class payloads, restart specs. */
static PyObject *core_encode(PyObject *module, PyObject *args)
{
    PyObject *object = NULL;
    PyObject *runtime = Py_None;
    core_state *state = core_state_of(module);
    if (!PyArg_ParseTuple(args, "O|O", &object, &runtime)) {
        return NULL;
    }
    pls_sink sink;
    pls_sink_init(&sink, NULL, 0, PLS_CODEC_ALLOW_PICKLE | PLS_CODEC_NO_BUFFERS,
                  runtime == Py_None ? NULL : runtime);
    PyObject *bytes = NULL;
    if (pls_codec_encode(&state->codec, object, &sink) == 0) {
        bytes =
            PyBytes_FromStringAndSize((const char *)sink.begin, (Py_ssize_t)pls_sink_len(&sink));
    }
    pls_sink_fini(&sink);
    return bytes;
}

static PyObject *core_decode(PyObject *module, PyObject *args)
{
    Py_buffer view;
    PyObject *runtime = Py_None;
    core_state *state = core_state_of(module);
    if (!PyArg_ParseTuple(args, "y*|O", &view, &runtime)) {
        return NULL;
    }
    pls_source source = pls_source_over(view.buf, (size_t)view.len, PLS_CODEC_ALLOW_PICKLE,
                                        runtime == Py_None ? NULL : runtime);
    PyObject *object = pls_codec_decode(&state->codec, &source);
    PyBuffer_Release(&view);
    return object;
}

static PyMethodDef module_methods[] = {
    {"launch", core_launch, METH_VARARGS, "Start an embedded node; (control_fd, pid, pidfd)."},
    {"node_become", core_node_become, METH_VARARGS, "Become a node in the foreground."},
    {"node_wait", core_node_wait, METH_VARARGS, "node_wait(pid, pidfd, timeout_ms)"},
    {"connect", core_connect, METH_O, "connect(name or path): a control socket of a running node."},
    {"current", core_current, METH_NOARGS, "The message that the running task handles, or None."},
    {"register_system", core_register_system, METH_O, "The class of systems."},
    {"register_python", core_register_python, METH_VARARGS, "Classes that are written in Python."},
    {"broadcast", (PyCFunction)(void (*)(void))core_broadcast, METH_FASTCALL | METH_KEYWORDS,
     "broadcast(refs, method, tell, *args, **kwargs): the same call to each, encoded once."},
    {"register_context", core_register_context, METH_VARARGS, "What context variables are called."},
    {"fresh_context", core_context_fresh, METH_O,
     "A context in which current() gives this, and nothing else is set."},
    {"encode", core_encode, METH_VARARGS, "encode(obj, runtime=None) -> bytes"},
    {"decode", core_decode, METH_VARARGS, "decode(bytes, runtime=None) -> object"},
    {NULL, NULL, 0, NULL},
};

static int types_create(PyObject *module, core_state *state)
{
    struct {
        PyTypeObject **place;
        PyType_Spec *spec;
        const char *name;
    } types[] = {
        {&state->runtime_type, &core_runtime_spec, "Runtime"},
        {&state->ref_type, &core_ref_spec, "Ref"},
        {&state->endpoint_type, &core_endpoint_spec, "Endpoint"},
        {&state->call_type, &core_call_spec, "Call"},
        {&state->done_type, &core_done_spec, "Done"},
        {&state->block_type, &core_block_spec, "Block"},
        {&state->cell_type, &core_cell_spec, "Cell"},
        {&state->invocation_type, &core_invocation_spec, "Invocation"},
        {&state->writer_type, &core_writer_spec, "StreamWriter"},
        {&state->reader_type, &core_reader_spec, "StreamReader"},
        {&state->pump_type, &core_pump_spec, "Pump"},
    };
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        *types[i].place = (PyTypeObject *)PyType_FromModuleAndSpec(module, types[i].spec, NULL);
        if (*types[i].place == NULL ||
            PyModule_AddObjectRef(module, types[i].name, (PyObject *)*types[i].place) < 0) {
            return -1;
        }
    }
    return 0;
}

static int classes_import(core_state *state)
{
    PyObject *errors = PyImport_ImportModule("pulsing._errors");
    if (errors == NULL) {
        return -1;
    }
    for (int i = 0; i < CORE_ERROR_COUNT; i++) {
        state->errors[i] = PyObject_GetAttrString(errors, core_error_names[i]);
        if (state->errors[i] == NULL) {
            Py_DECREF(errors);
            return -1;
        }
    }
    Py_DECREF(errors);
    PyObject *exceptions = PyImport_ImportModule("asyncio.exceptions");
    if (exceptions == NULL) {
        return -1;
    }
    state->cancelled_error = PyObject_GetAttrString(exceptions, "CancelledError");
    Py_DECREF(exceptions);
    PyObject *futures = PyImport_ImportModule("asyncio.futures");
    if (futures == NULL) {
        return -1;
    }
    state->future_class = PyObject_GetAttrString(futures, "Future");
    Py_DECREF(futures);
    return state->cancelled_error != NULL && state->future_class != NULL ? 0 : -1;
}

static int stranger_refuse(void)
{
    PyObject *stranger = PyImport_ImportModule("pulsing._stranger");
    PyObject *none = stranger != NULL ? PyObject_CallMethod(stranger, "refuse", NULL) : NULL;
    Py_XDECREF(stranger);
    Py_XDECREF(none);
    return none != NULL ? 0 : -1;
}

static int module_exec(PyObject *module)
{
    core_state *state = core_state_of(module);
    if (stranger_refuse() < 0 || pls_codec_init(&state->codec) < 0 || classes_import(state) < 0) {
        return -1;
    }
    for (int i = 0; i < CORE_NAME_COUNT; i++) {
        state->names[i] = PyUnicode_InternFromString(core_names[i]);
        if (state->names[i] == NULL) {
            return -1;
        }
    }
    state->current_var = PyContextVar_New("pulsing_message", NULL);
    if (state->current_var == NULL || types_create(module, state) < 0 ||
        core_refs_register(state) < 0) {
        return -1;
    }
    state->done = (PyObject *)PyObject_New(PyObject, state->done_type);
    if (state->done == NULL) {
        return -1;
    }
    return PyModule_AddStringConstant(module, "__version__", PLS_VERSION);
}

static int module_traverse(PyObject *module, visitproc visit, void *arg)
{
    core_state *state = core_state_of(module);
    PyTypeObject *types[CORE_TYPE_COUNT] = {
        state->runtime_type, state->ref_type,        state->endpoint_type, state->call_type,
        state->done_type,    state->block_type,      state->cell_type,     state->writer_type,
        state->reader_type,  state->invocation_type, state->pump_type};
    for (size_t i = 0; i < CORE_TYPE_COUNT; i++) {
        Py_VISIT((PyObject *)types[i]);
    }
    for (int i = 0; i < CORE_ERROR_COUNT; i++) {
        Py_VISIT(state->errors[i]);
    }
    Py_VISIT(state->message_class);
    Py_VISIT(state->stream_message_class);
    Py_VISIT(state->message_restore);
    Py_VISIT(state->actor_id_class);
    Py_VISIT(state->ref_extras);
    Py_VISIT(state->current_var);
    Py_VISIT(state->cancelled_error);
    Py_VISIT(state->future_class);
    int visited = core_context_traverse(&state->variables, visit, arg);
    if (visited != 0) {
        return visited;
    }
    return pls_codec_traverse(&state->codec, visit, arg);
}

static int module_clear(PyObject *module)
{
    core_state *state = core_state_of(module);
    PyTypeObject **types[CORE_TYPE_COUNT] = {
        &state->runtime_type, &state->ref_type,        &state->endpoint_type, &state->call_type,
        &state->done_type,    &state->block_type,      &state->cell_type,     &state->writer_type,
        &state->reader_type,  &state->invocation_type, &state->pump_type};
    Py_CLEAR(state->done);
    for (size_t i = 0; i < CORE_TYPE_COUNT; i++) {
        Py_CLEAR(*types[i]);
    }
    for (int i = 0; i < CORE_ERROR_COUNT; i++) {
        Py_CLEAR(state->errors[i]);
    }
    for (int i = 0; i < CORE_NAME_COUNT; i++) {
        Py_CLEAR(state->names[i]);
    }
    Py_CLEAR(state->current_var);
    Py_CLEAR(state->cancelled_error);
    Py_CLEAR(state->future_class);
    Py_CLEAR(state->message_class);
    Py_CLEAR(state->stream_message_class);
    Py_CLEAR(state->message_restore);
    Py_CLEAR(state->actor_id_class);
    Py_CLEAR(state->ref_extras);
    core_context_clear(&state->variables);
    pls_codec_clear(&state->codec);
    return 0;
}

static void module_free(void *module)
{
    module_clear(module);
    pls_codec_fini(&core_state_of(module)->codec);
}

static PyModuleDef_Slot module_slots[] = {
    {Py_mod_exec, module_exec},
#if PY_VERSION_HEX >= 0x030c0000
    {Py_mod_multiple_interpreters, Py_MOD_MULTIPLE_INTERPRETERS_NOT_SUPPORTED},
#endif
#if PY_VERSION_HEX >= 0x030d0000
    {Py_mod_gil, Py_MOD_GIL_USED},
#endif
    {0, NULL},
};

static struct PyModuleDef module_def = {
    PyModuleDef_HEAD_INIT,
    .m_name = "pulsing._core",
    .m_doc = "The engine of pulsing; use the package's public names.",
    .m_size = sizeof(core_state),
    .m_methods = module_methods,
    .m_slots = module_slots,
    .m_traverse = module_traverse,
    .m_clear = module_clear,
    .m_free = module_free,
};

PyMODINIT_FUNC PyInit__core(void);

PyMODINIT_FUNC PyInit__core(void)
{
    return PyModuleDef_Init(&module_def);
}
