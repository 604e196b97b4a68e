/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PLS_PYTHON_CORE_H
#define PLS_PYTHON_CORE_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <structmember.h>

#include "node/pulsing.h"
#include "python/codec.h"

/* What the files of the extension share. Everything runs under the GIL; the runtime's owner thread
 * is whoever holds it, except that only one thread at a time waits (see wait.c). */

/* Exception classes of pulsing._errors, in the order of core_error_names. */
typedef enum core_error {
    CORE_ACTOR_DIED,
    CORE_ACTOR_ERROR,
    CORE_ACTOR_FAILED,
    CORE_ACTOR_NOT_FOUND,
    CORE_ASK_CANCELLED,
    CORE_ASK_TIMEOUT,
    CORE_CODEC_ERROR,
    CORE_DEADLOCK,
    CORE_MAILBOX_FULL,
    CORE_PULSING_ERROR,
    CORE_STREAM_CLOSED,
    CORE_SYSTEM_CLOSED,
    CORE_ERROR_COUNT
} core_error;

typedef enum core_name {
    CORE_NAME_BLOCKING, /* _asyncio_future_blocking */
    CORE_NAME_SET_RESULT,
    CORE_NAME_DONE,
    CORE_NAME_CALL_SOON,
    CORE_NAME_CALL_LATER,
    CORE_NAME_CREATE_FUTURE,
    CORE_NAME_CREATE_TASK,
    CORE_NAME_ADD_DONE_CALLBACK,
    CORE_NAME_RESULT,
    CORE_NAME_CANCEL,
    CORE_NAME_CANCELLED,
    CORE_NAME_EXCEPTION,
    CORE_NAME_READY, /* _ready */
    CORE_NAME_TELL,
    CORE_NAME_OPTIONS,
    CORE_NAME_MSG_TYPE,
    CORE_NAME_PAYLOAD,
    CORE_NAME_STREAM,
    CORE_NAME_END,
    CORE_NAME_COUNT
} core_name;

typedef struct core_state {
    pls_codec codec;
    PyTypeObject *runtime_type;
    PyTypeObject *ref_type;
    PyTypeObject *endpoint_type;
    PyTypeObject *call_type;
    PyTypeObject *done_type;
    PyTypeObject *block_type;
    PyTypeObject *cell_type;
    PyTypeObject *invocation_type;
    PyTypeObject *writer_type;
    PyTypeObject *reader_type;
    PyTypeObject *pump_type;
    PyObject *message_class; /* pulsing._message.Message, StreamMessage */
    PyObject *stream_message_class;
    PyObject *message_restore;
    PyObject *actor_id_class;
    PyObject *ref_extras; /* dict: name -> function(ref, ...), methods written in Python */
    int system_class_count;
    PyObject *done; /* the one completed awaitable whose value is None */
    PyObject *current_var;
    PyObject *cancelled_error; /* asyncio.CancelledError */
    PyObject *errors[CORE_ERROR_COUNT];
    PyObject *names[CORE_NAME_COUNT];
} core_state;

typedef struct core_cell core_cell;
typedef struct core_invocation core_invocation;
typedef struct core_call core_call;

/* What is being handled: on the stack for a plain method, inside an Invocation for a task. */
typedef struct core_frame {
    core_cell *cell;
    pulsing_origin origin;
    uint64_t sender_id;
    int64_t deadline_ns;
    uint8_t *chain; /* PyMem memory, or NULL */
    uint16_t chain_bytes;
} core_frame;

typedef struct core_runtime {
    PyObject_HEAD core_state *state;
    PyObject *module;
    pulsing *p;
    PyObject *loop;  /* NULL: blocking form */
    PyObject *ready; /* the loop's deque of callbacks; NULL where it is hidden */
    PyObject *call_soon;
    PyObject *call_later;
    PyObject *create_future;
    PyObject *create_task;
    PyObject *on_wake; /* bound methods of this object */
    PyObject *on_arm;
    PyObject *host;
    PyObject *system;   /* what a system object in a message becomes here */
    PyObject *requests; /* request id -> core_call */
    PyObject *node_id;  /* bytes */
    core_frame *frame;  /* of the plain method that runs now */
    core_call *waiting; /* blocking form: calls whose threads sleep */
    double ask_timeout; /* seconds; 0: none */
    unsigned long thread;
    pid_t pid;
    int64_t last_turn_ns;
    int64_t wake_by_ns; /* 0: no sleep has to end earlier */
    int64_t look_tokens_ns;
    int64_t look_filled_ns;
    bool armed;
    bool arm_scheduled;
    bool wake_scheduled;
    bool hooked; /* the loop's selector calls before_sleep() */
    bool leader; /* blocking form: some thread waits for all */
    bool closed;
    bool gone; /* the node process has ended */
} core_runtime;

typedef struct core_ref {
    PyObject_HEAD core_runtime *rt;
    pulsing_target *target;
    uint64_t id;
    PyObject *name;       /* str or None: for people */
    PyObject *class_name; /* str */
    PyObject *endpoints;  /* dict: method name -> Endpoint */
} core_ref;

typedef struct core_endpoint {
    PyObject_HEAD vectorcallfunc vectorcall;
    core_ref *ref;
    PyObject *name;   /* str */
    PyObject *teller; /* the same endpoint, telling; NULL until asked for */
    double timeout;   /* seconds; < 0: the system's */
    bool tell;
} core_endpoint;

typedef enum core_call_state {
    CORE_CALL_PENDING,
    CORE_CALL_DONE,
    CORE_CALL_FAILED,
    CORE_CALL_CONSUMED
} core_call_state;

struct core_call {
    PyObject_HEAD core_runtime *rt;
    uint64_t call_id;
    PyObject *result; /* or the exception */
    PyObject *future; /* what the awaiting task sleeps on */
    PyObject *timer;
    PyObject *label; /* str: what was called, for error texts */
    core_ref *ref;
    int64_t deadline_ns;
    double timeout;
    core_call *next_waiting; /* blocking form */
    PyThread_type_lock lock;
    core_call_state state;
    bool tell;
    bool control;
};

/* An actor hosted here. */
struct core_cell {
    PyObject_HEAD core_runtime *rt;
    pulsing_actor *actor;
    uint64_t id;
    PyObject *instance;
    PyObject *methods;            /* dict: name -> function */
    PyObject *receive;            /* function or None */
    PyObject *context;            /* ActorContext */
    PyObject *name;               /* str */
    core_invocation *invocations; /* tasks under way; borrowed: each removes itself */
    PyObject *drained;            /* callable, or None */
    PyObject *failed;             /* callable(exception, wanted): nobody waited, or ActorFailed */
    const char *name_utf8;
    Py_ssize_t name_bytes;
    bool receive_context; /* receive(msg, ctx) */
};

/* A message that a task handles; the task's done-callback. */
struct core_invocation {
    PyObject_HEAD vectorcallfunc vectorcall;
    core_frame frame;
    core_invocation *next;
    core_invocation *previous;
    PyObject *task;
    PyObject *timer;
    bool expired;
    bool listed;
};

/* module.c */
core_state *core_state_of(PyObject *module);
core_state *core_state_of_type(PyTypeObject *type);

extern PyType_Spec core_runtime_spec;
extern PyType_Spec core_ref_spec;
extern PyType_Spec core_endpoint_spec;
extern PyType_Spec core_call_spec;
extern PyType_Spec core_done_spec;
extern PyType_Spec core_block_spec;
extern PyType_Spec core_cell_spec;
extern PyType_Spec core_invocation_spec;
extern PyType_Spec core_writer_spec;
extern PyType_Spec core_reader_spec;
extern PyType_Spec core_pump_spec;

/* errors.c: sets the exception for an error of the runtime. Returns -1. */
int core_fail(core_state *state, pls_err err, const char *what);
int core_fail_target(core_state *state, pls_err err, core_ref *ref);
/* The exception object for a reply that is not PULSING_OK: a new reference, or NULL. */
PyObject *core_reply_exception(core_runtime *rt, const pulsing_message *message, core_ref *ref,
                               PyObject *label);
PyObject *core_exception(core_state *state, core_error error, const char *format, ...);
/* What people call a ref: its class, and its name or id. */
PyObject *core_ref_words(core_ref *ref);

/* encode.c: payloads out. `send` is begun; on an exception it is aborted. */
int core_send_object(core_runtime *rt, pulsing_send *send, PyObject *object);
int core_send_exception(core_runtime *rt, pulsing_send *send, PyObject *exception);
/* Returns 1 if the message waits for its turn, 0 if it has left, -1 with an exception. */
int core_send_call(core_runtime *rt, pulsing_send *send, PyObject *const *args, size_t arg_count,
                   PyObject *kwnames);
int core_reply_object(core_runtime *rt, const pulsing_origin *origin, PyObject *object);
/* Answers with the set exception, and clears it. */
void core_reply_raised(core_runtime *rt, const pulsing_origin *origin);
void core_reply_text(core_runtime *rt, const pulsing_origin *origin, pulsing_status status,
                     const char *text);
/* Payloads in: a source over a message. `block_out` is to be released with Py_XDECREF(). */
int core_source(core_runtime *rt, const pulsing_message *message, pls_source *source,
                PyObject **block_out);

/* type_block.c */
PyObject *core_block_new(core_state *state, pulsing_block *block);

/* type_call.c */
core_call *core_call_new(core_runtime *rt, core_ref *ref, PyObject *label);
void core_call_finish(core_call *call, PyObject *result, PyObject *exception);
PyObject *core_call_take(core_call *call);
bool core_loop_turn_due(core_runtime *rt);

/* wait.c: looking before sleeping, and the blocking form. */
bool core_look(core_runtime *rt);
bool core_look_once(core_runtime *rt, int64_t ns_max);
PyObject *core_call_wait(core_call *call);
void core_call_unpark(core_call *call);

/* type_runtime.c */
int core_check_use(core_runtime *rt);
void core_schedule_wake(core_runtime *rt);

/* dispatch.c: callbacks of the runtime. */
pulsing_taken core_on_request(void *context, void *user, const pulsing_message *message);
void core_on_reply(void *context, void *user, const pulsing_message *message);
void core_on_sent(void *context, void *user, pls_err err);
void core_on_cancel(void *context, void *user, const pulsing_origin *origin);
void core_on_drained(void *context, void *user);
core_frame *core_current_frame(core_runtime *rt);

/* type_stream.c */
void core_on_stream_item(void *context, void *user, const pulsing_message *message);
void core_on_stream_room(void *context, void *user, uint64_t items);
void core_on_stream_open(void *context, void *user, const pulsing_origin *reader);
/* Answers a request with the stream that a handler returned; 0, or -1 with an exception. */
int core_stream_answer(core_runtime *rt, const core_frame *frame, PyObject *result);
bool core_is_stream(core_state *state, PyObject *result);
PyObject *core_stream_received(core_runtime *rt, core_call *call, const pulsing_message *message);
int core_streams_register(core_state *state);
void core_reader_reply(core_runtime *rt, void *user, const pulsing_message *message);

/* type_ref.c */
PyObject *core_ref_new(core_runtime *rt, uint64_t actor_id, uint32_t window, bool restartable,
                       PyObject *name, PyObject *class_name);
int core_refs_register(core_state *state);
PyObject *core_endpoint_new(core_ref *ref, PyObject *name);
double core_timeout_of(PyObject *object);

/* type_endpoint.c */
PyObject *core_endpoint_call(PyObject *self, PyObject *const *args, size_t nargsf,
                             PyObject *kwnames);
PyObject *core_message_send(core_ref *ref, PyObject *message, double timeout, bool tell);

/* control.c: requests to the node and its notices. */
PyObject *core_control_poll(core_runtime *rt);

#endif
