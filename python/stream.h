/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PLS_PYTHON_STREAM_H
#define PLS_PYTHON_STREAM_H

#include "python/core_parts.h"

/* The two ends of a stream. A writer has credit for what its reader has room for (an item takes
 * one, and more when it is large); what it may not send yet waits in its queue, already encoded. A
 * reader gives room back in halves. */

typedef struct core_writer {
    PyObject_HEAD core_state *state;
    core_runtime *rt;   /* NULL until it is sent or returned */
    uint64_t writer_id; /* 0: not in the runtime's table */
    pulsing_origin reader;
    PyObject *queue;   /* list of bytes: encoded items */
    PyObject *waiters; /* list of futures of writes that wait, in order */
    PyObject *error;   /* what it ends with; NULL: an orderly end */
    PyObject *pump;    /* to be run when there is room */
    PyObject *on_gone; /* called once, when nothing more is wanted; or NULL */
    core_cell *cell;   /* the actor whose handler writes, while it does */
    int64_t credit;
    uint32_t capacity;
    bool bound; /* its reader is known */
    bool gone;  /* its reader is gone */
    bool ended; /* nothing more will be written */
    bool end_sent;
    bool kept; /* it holds a reference to itself until everything has left */
} core_writer;

typedef struct core_reader {
    PyObject_HEAD core_runtime *rt;
    uint64_t call_id; /* 0: nothing more comes */
    uint64_t writer_id;
    PyObject **items; /* a ring of `items_size` places */
    uint16_t *costs;  /* what each takes of the reader's room */
    uint32_t items_size;
    uint32_t items_first;
    uint32_t items_count;
    uint32_t taken; /* room that is free again and not yet given back */
    uint32_t capacity;
    uint32_t epoch;
    uint16_t slot;
    PyObject *end; /* NULL: open; None: an orderly end; else the exception */
    PyObject *future;
    core_call *waiter; /* blocking form */
    PyObject *opening; /* the call whose result is the stream */
    struct core_reader *inner;
} core_reader;

/* stream_writer.c: sends an item, or queues it: 1 if it must wait for room, -1 with an exception.
 */
int core_writer_put(core_writer *writer, PyObject *item);
/* No more items; `error` NULL or an exception. */
int core_writer_end(core_writer *writer, PyObject *error);
int core_writer_bind(core_writer *writer, core_runtime *rt, const pulsing_origin *reader);
int core_writer_register(core_writer *writer, core_runtime *rt);
/* The writer's stream ends with the actor. */
int core_writer_owned(core_writer *writer, core_cell *cell);

/* stream_reader.c */
core_reader *core_reader_new(core_runtime *rt, uint32_t capacity);

/* stream_pump.c: drives a plain generator into a writer. */
int core_pump_start(core_runtime *rt, const core_frame *frame, PyObject *generator,
                    core_writer *writer);
int core_pump_room(core_writer *writer);

#endif
