/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PLS_PYTHON_CORE_PARTS_H
#define PLS_PYTHON_CORE_PARTS_H

#include "python/core.h"

/* What the extension's files call of each other.
 * Threads: whoever holds the GIL; never blocks but where it says; the same for every function of
 * this header. */

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

/* Lets go of an object and forgets it; Py_CLEAR() without its nesting. */
static inline void core_clear(PyObject **at)
{
    PyObject *object = *at;
    *at = NULL;
    Py_XDECREF(object);
}

/* errors.c: sets the exception for an error of the runtime. Returns -1. */
int core_fail(core_state *state, pls_err err, const char *what);
int core_fail_target(core_state *state, pls_err err, core_ref *ref);
/* The exception object for a reply that is not PULSING_OK: a new reference, or NULL. */
PyObject *core_reply_exception(core_runtime *rt, const pulsing_message *message, core_ref *ref,
                               PyObject *label);
/* The set exception as an object with its traceback: a new reference. It is set no more. */
PyObject *core_exception_taken(void);
/* "Type: text" of an exception, 200 characters of it, and, a line each, where it was raised: the
 * innermost frames of its traceback, the raising one first. NULL with an exception set if that
 * cannot be told. */
PyObject *core_exception_words(PyObject *exception);
PyObject *core_exception(core_state *state, core_error error, const char *format, ...);
/* What people call a ref: its class, and its name or id. */
PyObject *core_ref_words(core_ref *ref);

/* encode.c: payloads out. `send` is begun; on an exception it is aborted. */
int core_send_object(core_runtime *rt, pulsing_send *send, PyObject *object);
/* The same for a request: the context's variables go along. */
int core_send_message(core_runtime *rt, pulsing_send *send, PyObject *object);
int core_send_exception(core_runtime *rt, pulsing_send *send, PyObject *exception);
/* Returns 1 if the message waits for its turn, 0 if it has left, -1 with an exception. */
int core_send_call(core_runtime *rt, pulsing_send *send, PyObject *const *args, size_t arg_count,
                   PyObject *kwnames);
/* Arguments that were encoded once, to be sent to several. */
typedef struct core_payload {
    pulsing_room *room;
    uint32_t payload_bytes;
    uint32_t context_bytes;
    bool in_room;
    uint8_t inline_bytes[PULSING_INLINE_BYTES_MAX];
} core_payload;
/* A flag beside those of the codec: some receiver is on another node. */
#define CORE_LEAVES_HOST 0x80000000u
int core_payload_encode(core_runtime *rt, PyObject *const *args, size_t arg_count,
                        PyObject *kwnames, unsigned flags, core_payload *payload);
int core_send_payload(core_runtime *rt, pulsing_send *send, const core_payload *payload);
void core_payload_free(core_runtime *rt, core_payload *payload);
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

/* coroutine.c: what `send()` gives for what am_send gave; takes `out`. */
PyObject *core_coroutine_next(PySendResult sent, PyObject *out);
/* Raises the arguments of `throw()`; always NULL. */
PyObject *core_coroutine_throw(PyObject *const *args, Py_ssize_t count);

/* type_call.c */
core_call *core_call_new(core_runtime *rt, core_ref *ref, PyObject *label);
void core_call_finish(core_call *call, PyObject *result, PyObject *exception);
PyObject *core_call_take(core_call *call);
/* Ends an ask whose time is over by what the receiver says of it; false if that is no answer. */
bool core_call_expired(core_call *call, const pulsing_message *message);
bool core_loop_turn_due(core_runtime *rt);

/* loop.c: the loop's callbacks. */
PyObject *core_loop_on_event(PyObject *self, PyObject *ignored);
PyObject *core_loop_on_wake(PyObject *self, PyObject *ignored);
PyObject *core_loop_on_arm(PyObject *self, PyObject *ignored);
PyObject *core_loop_before_sleep(PyObject *self, PyObject *timeout);
PyObject *core_loop_after_sleep(PyObject *self, PyObject *ignored);
void core_loop_wake(void *context);
void core_loop_wake_after(void *context, int64_t ns);
void core_loop_notice(void *context);
void core_loop_arm(core_runtime *rt);

/* obituary.c: the runtime's callbacks. */
void core_on_dead_letter(void *context, uint8_t reason);
PyObject *core_letters_tell(PyObject *self, PyObject *ignored);
void core_on_death(void *context, uint32_t slot, uint32_t epoch);
PyObject *core_death(PyObject *self, PyObject *args);
/* Fills an ActorDied in with what is known of the process (slot, epoch), now or when it is read. */
void core_death_tell(core_ref *ref, PyObject *exception, uint32_t slot, uint32_t epoch);

/* patrol.c: callbacks of the runtime, and the timer behind them. */
bool core_on_waits(void *context, void *actor, void *user);
void core_on_slow(void *context, void *user, int64_t ns);
/* A call is forgotten whose exception nobody has got: that is said once. */
void core_call_unread(core_call *call);
/* A call begins to wait: it is looked at within the shortest pause. 0, or -1 with an exception. */
int core_patrol_start(core_runtime *rt);
void core_patrol_stop(core_runtime *rt);
/* Blocking form: after a sleep. */
void core_patrol_due(core_runtime *rt);
PyObject *core_patrol_on_timer(PyObject *self, PyObject *ignored);

/* wait.c: looking before sleeping, and the blocking form. */
bool core_look(core_runtime *rt);
bool core_look_once(core_runtime *rt, int64_t ns_max);
/* Something came after all, by being woken. */
void core_look_answered(core_runtime *rt);
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
/* The actor is gone: its streams end with ActorDied and this text. */
void core_streams_end(core_cell *cell, const char *text);
PyObject *core_stream_received(core_runtime *rt, core_call *call, const pulsing_message *message);
int core_streams_register(core_state *state);
void core_reader_reply(core_runtime *rt, void *user, const pulsing_message *message);

/* type_ref.c */
PyObject *core_ref_new(core_runtime *rt, uint64_t actor_id, uint32_t window, bool restartable,
                       PyObject *name, PyObject *class_name);
/* The same for an actor of the node with this id (bytes), be it this one. */
PyObject *core_ref_far_new(core_runtime *rt, PyObject *node_id, uint64_t actor_id, uint32_t window,
                           PyObject *name, PyObject *class_name);
/* What may be pickled in a message to a slot, or unpickled from there. */
static inline unsigned core_codec_flags(const core_runtime *rt, uint32_t slot)
{
    return rt->codec_flags[slot == PULSING_FAR_SLOT];
}
int core_refs_register(core_state *state);
PyObject *core_endpoint_new(core_ref *ref, PyObject *name);
double core_timeout_of(PyObject *object);

/* type_endpoint.c */
PyObject *core_endpoint_call(PyObject *self, PyObject *const *args, size_t nargsf,
                             PyObject *kwnames);
PyObject *core_message_send(core_ref *ref, PyObject *message, double timeout, bool tell);
/* broadcast(refs, method, tell, args...): the same call to each ref; a list of awaitables. */
PyObject *core_broadcast(PyObject *module, PyObject *const *args, Py_ssize_t count,
                         PyObject *kwnames);

/* control.c: requests to the node and its notices. */
PyObject *core_control_poll(core_runtime *rt);
void core_control_locate(void *context, uint64_t actor);

#endif
