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
    CORE_NODE_UNREACHABLE,
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
    CORE_NAME_READY,     /* _ready */
    CORE_NAME_SCHEDULED, /* _scheduled */
    CORE_NAME_TELL,
    CORE_NAME_OPTIONS,
    CORE_NAME_MSG_TYPE,
    CORE_NAME_PAYLOAD,
    CORE_NAME_STREAM,
    CORE_NAME_END,
    CORE_NAME_COUNT
} core_name;

/* What pulsing._context knows of context variables; NULL until it is imported. */
typedef struct core_variables {
    PyObject *keys;   /* dict: variable -> key, or None for one that stays */
    PyObject *known;  /* dict: key -> variable, or None for one that is not here */
    PyObject *key_of; /* what the dicts lack */
    PyObject *find;
    PyObject *refuse;     /* callable(variable, exception) when a value cannot be sent */
    PyObject *unreadable; /* ... or cannot be read */
} core_variables;

typedef struct core_state {
    pls_codec codec;
    core_variables variables;
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
    PyObject *future_class;    /* asyncio.Future */
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
    bool cancelled; /* whoever waited for the answer does so no more */
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
    PyObject *on_wake;   /* bound methods of this object */
    PyObject *on_notice; /* the system's, or NULL: takes in what the node says */
    PyObject *on_arm;
    PyObject *host;
    PyObject *system;   /* what a system object in a message becomes here */
    PyObject *requests; /* request id -> core_call */
    PyObject *deaths;   /* (slot, epoch) -> what is known of a process that ended */
    PyObject *node_id;  /* bytes */
    PyObject *address;  /* str; None for a node of one host */
    core_frame *frame;  /* of the plain method that runs now */
    PyObject *context;  /* an empty one, for the next message; or NULL */
    core_call *waiting; /* blocking form: calls whose threads sleep */
    PyObject *patrol;   /* the timer that looks at calls that wait; NULL: none */
    double ask_timeout; /* seconds; 0: none */
    double slow_ask;    /* seconds after which a call that waits is logged; 0: never */
    unsigned long thread;
    pid_t pid;
    int64_t last_turn_ns;
    int64_t wake_by_ns; /* 0: no sleep has to end earlier */
    int64_t look_tokens_ns;
    int64_t expect_ns;      /* how long the next message is expected to take */
    int64_t looked_from_ns; /* since when one is awaited; 0: none came late */
    int64_t look_filled_ns;
    int64_t patrol_by_ns; /* blocking form: when to look at calls that wait; 0: not */
    bool letters_due;     /* dead letters wait to be told */
    bool patrol_soon;     /* the timer comes within the shortest pause */
    bool armed;
    bool arm_scheduled;
    bool wake_scheduled;
    bool hooked; /* the loop's selector calls before_sleep() */
    bool leader; /* blocking form: some thread waits for all */
    bool closed;
    bool gone; /* the node process has ended */
    /* The node can have others; and what may be pickled in a message that stays on this host, and
     * in one that leaves it. */
    bool networked;
    unsigned codec_flags[2];
} core_runtime;

typedef struct core_ref {
    PyObject_HEAD core_runtime *rt;
    pulsing_target *target;
    PyObject *node_id; /* bytes: of its own node */
    uint64_t id;       /* on that node */
    bool restartable;
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
    bool tell : 1;
    bool control : 1;
    bool expired : 1; /* its time is over; the receiver was asked how far it had come */
    bool looking : 1; /* the task that runs now looks at the ring for it */
    bool taken : 1;   /* somebody got its exception */
    bool yielded : 1; /* its task has stepped aside once, so that an actor here can answer */
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
    PyObject *writers;            /* set: streams that its handlers write */
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

#endif
