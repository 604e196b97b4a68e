/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PLS_NODE_PROCESS_NODE_H
#define PLS_NODE_PROCESS_NODE_H

#include "base/limits.h"
#include "node/control.h"
#include "node/directory.h"
#include "node/options.h"
#include "node/process/client.h"
#include "node/process/gateway.h"
#include "node/process/loop.h"
#include "node/process/memory_limit.h"
#include "node/process/names.h"
#include "node/process/net.h"
#include "node/process/oom.h"
#include "node/process/output.h"
#include "node/process/restarts.h"
#include "node/process/template.h"
#include "node/process/vigil.h"

/* The state of the node process, all of it owned by its one thread.
 * Threads: the same for every function of this header: owner thread; never blocks,
 * unless said. */

/* A slot keeps its client until the client's death has been acknowledged by all. */
typedef struct pls_slot {
    uint32_t epoch; /* of the present or last use */
    pls_client *client;
} pls_slot;

/* A question for a segment whose owner's socket has to be read first. */
typedef struct pls_segment_question {
    pls_client_key asker;
    uint32_t request;
    pls_client_key owner;
    uint32_t segment;
} pls_segment_question;

#define PLS_SEGMENT_QUESTIONS_MAX 1024

/* Dead processes of which something is still kept for a reader. */
#define PLS_DEAD_OBS_MAX 8
#define PLS_DEAD_TAILS_MAX 64

typedef struct pls_dead_obs {
    pls_client_key key;
    int fd;
} pls_dead_obs;

typedef struct pls_dead_tail {
    pls_client_key key;
    char *text;
    size_t bytes;
} pls_dead_tail;

/* Somebody who waits for a name; by the name's hash. */
typedef struct pls_name_waiter pls_name_waiter;
#define PLS_NAME_WAITER_BUCKETS 1024

typedef enum pls_leave_stage {
    PLS_LEAVE_NOT = 0,
    PLS_LEAVE_DRAINING = 1,
    PLS_LEAVE_KILLING = 2,
} pls_leave_stage;

#define PLS_LEAVE_ASKERS_MAX 16

typedef struct pls_leave {
    pls_leave_stage stage;
    pls_alarm deadline;
    pls_request_key askers[PLS_LEAVE_ASKERS_MAX];
    uint32_t asker_count;
} pls_leave;

struct pls_node {
    pls_settings settings;
    pls_loop *loop;
    pls_output *output;
    pls_directory *directory;
    int directory_fd;
    bool listens_at_path;
    uint64_t refusal_noted_ns;
    int spare_fd; /* given up for a moment when the descriptor limit is reached */
    pls_oom oom;
    pls_watch listener;
    pls_watch signals;
    pls_watch launcher_end; /* pidfd of the process that this node is tied to */
    pls_watch life_notice;
    pls_vigil *vigil;
    pls_slot slots[PLS_SLOTS_MAX];
    uint32_t attached_count;
    pls_client *strangers; /* connected, not yet greeted; oldest last */
    uint32_t stranger_count;
    pls_client *launcher;
    pls_template template;
    pls_worker *workers[PLS_SLOTS_MAX]; /* by index; NULL: not started */
    uint32_t worker_count;              /* processes that are or will be workers, dedicated too */
    pls_names *names;
    pls_name_waiter *name_waiters[PLS_NAME_WAITER_BUCKETS];
    uint32_t name_waiter_count;
    pls_restarts *restarts;
    pls_net *net;         /* NULL: this node has no address */
    pls_gateway *gateway; /* NULL: likewise */
    pls_leave leave;
    pls_memory_limit memory_limit;
    pls_segment_question questions[PLS_SEGMENT_QUESTIONS_MAX];
    uint32_t question_first;
    uint32_t question_count;
    pls_dead_obs dead_obs[PLS_DEAD_OBS_MAX];
    uint32_t dead_obs_next;
    pls_dead_tail dead_tails[PLS_DEAD_TAILS_MAX];
    uint32_t dead_tails_next;
    uint8_t packet[PLS_CONTROL_PACKET_BYTES_MAX]; /* the one being received */
};

/* Starts everything; `settings` are taken also on failure.
 * Errors:  PLS_EEXIST  another node has the name; what the parts return. `trouble` as in launch.h.
 * Owns:    gives the node. */
PLS_MUST_USE pls_err pls_node_create(pls_settings *settings, pls_node **node_out, char *trouble);

/* Frees everything; also one that was only half made. */
void pls_node_destroy(pls_node *node);

/* Serves until the node has left, ends every process that is left, and frees. May block. */
void pls_node_serve(pls_node *node);

/* Begins to leave: tells everybody but `asker` (NULL: nobody asked), and after `timeout_ms` kills
 * the workers that are still there. The asker is answered when all are gone. Again: a shorter time
 * counts. */
void pls_leave_begin(pls_node *node, pls_client *asker, uint32_t request, uint32_t timeout_ms);

/* Kills workers and template at once and leaves. */
void pls_leave_now(pls_node *node);

/* Called whenever a process of ours has gone: leaves if it was the last one waited for. */
void pls_leave_check(pls_node *node);

#endif
