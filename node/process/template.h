/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PLS_NODE_PROCESS_TEMPLATE_H
#define PLS_NODE_PROCESS_TEMPLATE_H

#include "base/err.h"
#include "node/control_data.h"
#include "node/packet_queue.h"
#include "node/process/client.h"
#include "node/process/loop.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

/* The warm Python process from which workers are forked. It is a child of the node and dies with
 * it; its own death ends no worker, because those are adopted by the node.
 * Threads: the same for every function of this header: owner thread; never blocks,
 * but for the millisecond of a fork. */

typedef enum pls_template_stage {
    PLS_TEMPLATE_OFF = 0,     /* none wanted, or it failed and is tried again when needed */
    PLS_TEMPLATE_WARMING = 1, /* imports */
    PLS_TEMPLATE_READY = 2,
} pls_template_stage;

/* Descriptors with which it is started. */
#define PLS_TEMPLATE_SOCKET_FD 3
#define PLS_TEMPLATE_SETTINGS_FD 4 /* memfd: fields, each ended by a zero byte */
#define PLS_TEMPLATE_INFO_FD 5     /* memfd: worker_info */

typedef struct pls_template {
    pls_node *node;
    pls_template_stage stage;
    pls_watch socket;
    pls_watch process;
    pid_t pid;
    bool hung_up;    /* its socket has ended, its process not yet */
    uint32_t source; /* of its output */
    bool has_source;
    uint64_t ready_ns;
    pls_packet_queue outgoing;
    char last_words[PLS_CONTROL_TEXT_BYTES_MAX]; /* of one that failed to start */
    size_t last_words_bytes;
} pls_template;

/* Starts the template unless it runs.
 * Errors:  PLS_EUNSUPPORTED  the node has no interpreter; PLS_ENOENT, PLS_EPERM  it cannot be run;
 *          PLS_ENOMEM, PLS_EFDLIMIT, PLS_ESYS. */
PLS_MUST_USE pls_err pls_template_start(pls_node *node);

/* Tells it to fork a worker for (slot, epoch); a template still warming does it when it is ready.
 * Units:   `fds`: control socket, standard output, standard error.
 * Errors:  as pls_template_start(); PLS_EFULL. The descriptors are then still the caller's.
 * Owns:    takes the descriptors. */
PLS_MUST_USE pls_err pls_template_fork(pls_node *node, const pls_client *worker,
                                       const pls_place_wire *wire, int fds[3]);

/* Kills it. It is gone when stage is PLS_TEMPLATE_OFF. */
void pls_template_kill(pls_node *node);

/* Takes in what it has said so far: which processes it has forked. */
void pls_template_drain(pls_node *node);

/* Its last output lines; the length. */
size_t pls_template_tail(pls_node *node, char *text, size_t capacity);

#endif
