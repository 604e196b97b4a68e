/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PLS_NODE_PROCESS_WORKERS_H
#define PLS_NODE_PROCESS_WORKERS_H

#include "node/control_data.h"
#include "node/process/client.h"
#include "node/process/loop.h"

#include <stdbool.h>
#include <stdint.h>

/* Workers: which one takes the next actor, starting them, and ending them.
 * Threads: the same for every function of this header: owner thread; never blocks. */

/* How a placement ends. */
typedef struct pls_placed {
    pls_err status;
    pls_client *worker; /* PLS_OK: it has joined */
    const char *text;   /* else why, for people */
    size_t text_bytes;
} pls_placed;

/* Who waits for a worker: a client's request, or the rebuilding of an actor. */
typedef struct pls_place_waiter {
    void (*done)(pls_node *node, const struct pls_place_waiter *waiter, const pls_placed *placed);
    pls_request_key asker;
    uint64_t actor;
} pls_place_waiter;

/* Templates that are tried for one worker, when each of them is killed before it forks. */
#define PLS_WORKER_STARTS_MAX 3

/* From the notice to SIGKILL, where nobody says otherwise. */
#define PLS_DRAIN_TIMEOUT_MS 5000

#define PLS_PLACE_WAITERS_MAX 65536

struct pls_worker {
    pls_client *client;
    uint32_t index; /* PLS_WORKER_INDEX_NONE: dedicated */
    bool ready;
    bool stopping;
    bool recycling;   /* will leave for a fresh one */
    bool over_memory; /* killed for its memory */
    uint32_t source;  /* of its output */
    bool has_source;
    uint32_t starts;     /* templates that have been asked for it */
    pls_place_wire wire; /* what it starts with, for another try; in `wire_memory` */
    uint8_t *wire_memory;
    pls_place_waiter *waiters;
    uint32_t waiter_count;
    uint32_t waiter_room;
    /* Placed here and not yet visible in the directory's count. */
    uint32_t placed_count;
    uint32_t counted_actors;
    uint64_t placed_ns;
    pls_alarm start_alarm;
    pls_alarm stop_alarm;
    pls_request_key stop_asker;
    bool stop_asked;
};

/* Finds or starts a worker; `done` is called once, perhaps before this returns. `wire` counts for a
 * worker that is started for it. */
void pls_workers_place(pls_node *node, pls_place_kind kind, uint32_t index,
                       const pls_place_wire *wire, const pls_place_waiter *waiter);

/* Forgets the waiters of one request. */
void pls_workers_cancel(pls_node *node, pls_request_key asker);

/* A worker has joined: answers those who waited. */
void pls_worker_joined(pls_worker *worker);

/* A worker will not run again: its index is free for another. */
void pls_worker_dying(pls_worker *worker);

/* A worker is gone, in the way that `death` says: fails those who waited, keeps its last lines,
 * frees. */
void pls_worker_gone(pls_worker *worker, const pls_death *death);

/* One will leave for a fresh one: gives its index to that, which is started now. */
void pls_worker_recycle(pls_worker *worker);

/* Asks one to leave, and kills it after `timeout_ms` (0: at once). */
void pls_worker_stop(pls_worker *worker, uint32_t timeout_ms);

/* The template is gone: whom it had not yet forked is asked for again if a signal ended it
 * (somebody killed it), and fails if it gave up by itself (an import failed, which would only
 * happen again). */
void pls_workers_template_gone(pls_node *node, bool by_signal);

/* SIGKILL to all. */
void pls_workers_kill(pls_node *node);

#endif
