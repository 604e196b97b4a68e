/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PLS_NODE_REQUESTS_H
#define PLS_NODE_REQUESTS_H

#include "node/attach.h"

/* What a process asks of the node without waiting. Each call numbers its request and sends it; the
 * answer comes out of pls_attach_poll() as PLS_EVENT_REPLY with that number.
 * Errors:  of all: PLS_EFULL  too much waits for the node's socket, nothing was sent; PLS_ECLOSED
 *          the node is gone; PLS_EINVAL, PLS_ETOOBIG  an argument breaks a limit; PLS_ENOMEM.
 * Owns:    borrows every argument for the call.
 * Threads: the same for every function of this header: owner thread; never blocks. */

#define PLS_METADATA_BYTES_MAX 16384
#define PLS_SPEC_BYTES_MAX (256u << 20)
#define PLS_WAIT_FOREVER UINT32_MAX

typedef enum pls_place_kind {
    PLS_PLACE_LEAST_LOADED = 0, /* fewest actors; one not yet started counts as empty */
    PLS_PLACE_INDEX = 1,        /* the numbered worker `index`, started if need be */
    PLS_PLACE_DEDICATED = 2,    /* a fresh process beyond the limit; it exits by itself when its
                                   last actor has gone */
} pls_place_kind;

typedef struct pls_place_options {
    pls_place_kind kind;
    uint32_t index;
    /* For a worker that this request starts; a numbered worker keeps what it started with. */
    const char *const *env; /* "NAME=value" or "NAME", NULL-terminated; NULL: none */
    const uint16_t *cpus;   /* affinity; NULL: all */
    uint32_t cpu_count;
} pls_place_options;

/* Finds or starts a worker. REPLY: `slot`, `epoch`, `number` its worker index; the line in the
 * directory says ALIVE by then. Failure: PLS_EDEAD with the worker's or the template's last output
 * lines (its traceback) in `text`; PLS_EFULL at 256 processes; PLS_EUNSUPPORTED without a template;
 * PLS_EINVAL for an index that is not there. */
PLS_MUST_USE pls_err pls_attach_place(pls_attach *attach, const pls_place_options *options,
                                      uint32_t *request_out);

#define PLS_NAME_PUBLIC 1u     /* other nodes may see it */
#define PLS_NAME_UNIQUE 2u     /* one winner in the cluster */
#define PLS_NAME_REBUILDING 4u /* answers only: its actor lives nowhere just now, but will */
#define PLS_NAME_FAR 8u        /* answers only: its actor lives on another node */

typedef struct pls_name_entry {
    uint64_t actor;
    uint32_t slot; /* where it lives now, which need not be its birthplace */
    uint32_t epoch;
    uint32_t flags;
    const char *name;
    size_t name_bytes;
    const char *class_name;
    size_t class_name_bytes;
    const uint8_t *metadata;
    size_t metadata_bytes;
} pls_name_entry;

/* Registers entry->name for entry->actor (`slot` and `epoch` are ignored: the node knows where an
 * actor lives, by its id or its last route). The process where it lives must be attached. The name
 * goes when the actor is unregistered or its process dies, but stays while a restart is possible.
 * REPLY: PLS_OK; PLS_EEXIST with the holder in `actor`, `slot`, `epoch` and its class in `text`, or
 * with `flags` PLS_NAME_FAR if it is another node's and unique; PLS_EDEAD; PLS_EFULL at 2^20
 * names. */
PLS_MUST_USE pls_err pls_attach_name_register(pls_attach *attach, const pls_name_entry *entry,
                                              uint32_t *request_out);

/* REPLY: PLS_OK; PLS_ENOENT when nobody has the name, or another actor has it. `actor` 0: whoever.
 */
PLS_MUST_USE pls_err pls_attach_name_unregister(pls_attach *attach, const char *name,
                                                size_t name_bytes, uint64_t actor,
                                                uint32_t *request_out);

#define PLS_FIND_LOCAL 1u  /* of this node alone */
#define PLS_FIND_PUBLIC 2u /* not the private ones of this node */
#define PLS_FIND_FAR 4u    /* all of other nodes, and no waiting */

typedef struct pls_find_options {
    uint32_t flags;
    uint32_t wait_ms; /* 0: not at all, PLS_WAIT_FOREVER */
} pls_find_options;

#define PLS_FAR_ENTRY_BYTES 24 /* the actor, u64, and the node id */

/* Looks a name up, first on this node, then on others.
 * REPLY: PLS_OK with `actor`, `slot`, `epoch`, `flags`, `text` = class name, `data` = metadata; or
 * with `actor`, `flags` PLS_NAME_FAR, `data` = node id. With PLS_FIND_FAR: `data` = an entry of
 * PLS_FAR_ENTRY_BYTES each, at most 1024. PLS_ENOENT when the time is over. */
PLS_MUST_USE pls_err pls_attach_name_search(pls_attach *attach, const char *name, size_t name_bytes,
                                            const pls_find_options *options, uint32_t *request_out);

/* As pls_attach_name_search() on this node alone (PLS_FIND_LOCAL). */
PLS_MUST_USE pls_err pls_attach_name_find(pls_attach *attach, const char *name, size_t name_bytes,
                                          uint32_t wait_ms, uint32_t *request_out);

#define PLS_ACTOR_REBUILDING 1u

/* Where an actor lives now: its birthplace, or where it was rebuilt. A process asks this for an id
 * whose birthplace is dead, since it hears of ROUTEs only from its own ATTACH on. REPLY: `slot`,
 * `epoch`, `flags` PLS_ACTOR_REBUILDING while it lives nowhere but will (ROUTE or ACTOR_LOST
 * follows); PLS_EDEAD when its process is gone for good. */
PLS_MUST_USE pls_err pls_attach_actor_find(pls_attach *attach, uint64_t actor,
                                           uint32_t *request_out);

/* Gives up a find, place or shutdown that has not been answered; no REPLY will come for it. A
 * worker that is being started goes on starting. */
PLS_MUST_USE pls_err pls_attach_cancel(pls_attach *attach, uint32_t request);

/* All names of this node. REPLY: `data` for pls_name_entry_next(). */
PLS_MUST_USE pls_err pls_attach_names_list(pls_attach *attach, uint32_t *request_out);

/* Takes the next entry off the bytes of a list; the entry lends from them.
 * Errors:  PLS_EEMPTY at the end; PLS_EPROTO.
 * Owns:    moves *data and *data_bytes on. Threads: any thread; never blocks. */
PLS_MUST_USE pls_err pls_name_entry_next(const uint8_t **data, size_t *data_bytes,
                                         pls_name_entry *entry_out);

/* Nodes of the cluster, as this one knows them. */
typedef enum pls_node_status {
    PLS_NODE_ALIVE = 1,
    PLS_NODE_SUSPECT = 2, /* it does not answer; it may still be alive */
    PLS_NODE_DEAD = 3,
    PLS_NODE_LEFT = 4,
} pls_node_status;

typedef enum pls_member_event {
    PLS_NODE_UNCHANGED = 0,
    PLS_NODE_JOINED = 1,
    PLS_NODE_SUSPECTED = 2,
    PLS_NODE_BACK = 3, /* a suspect has answered, or one that counted as dead is there again */
    PLS_NODE_DIED = 4,
    PLS_NODE_GONE = 5,     /* it left in peace */
    PLS_NODE_ISOLATED = 6, /* this node itself has lost the many */
    PLS_NODE_REGAINED = 7,
    PLS_NODE_CONFLICT = 8,  /* another live node runs under the same name */
    PLS_NODE_NAME_LOST = 9, /* a unique name of this node is the other's now: `name` */
} pls_member_event;

typedef struct pls_node_entry {
    pls_node_status status;
    uint8_t node_id[PLS_NODE_ID_BYTES];
    uint64_t generation;
    const char *name;
    size_t name_bytes;
    const char *address; /* "10.0.0.7:7100" */
    size_t address_bytes;
} pls_node_entry;

#define PLS_MEMBERS_FOLLOW 1u   /* asked: PLS_EVENT_MEMBER for each change from now on */
#define PLS_MEMBERS_JOINED 1u   /* answered: another node is known, or none is looked for */
#define PLS_MEMBERS_ISOLATED 2u /* answered: this node has lost the many */

/* The members of the cluster, dead ones that are still remembered among them; none at all from a
 * node without an address. REPLY: `data` for pls_node_entry_next(), `flags`, and in `text` what the
 * seeds have answered, for people. */
PLS_MUST_USE pls_err pls_attach_members_list(pls_attach *attach, bool follow,
                                             uint32_t *request_out);

/* Takes the next entry off the bytes of a list; the entry lends from them.
 * Errors:  PLS_EEMPTY at the end; PLS_EPROTO.
 * Owns:    moves *data and *data_bytes on. Threads: any thread; never blocks. */
PLS_MUST_USE pls_err pls_node_entry_next(const uint8_t **data, size_t *data_bytes,
                                         pls_node_entry *entry_out);

/* The last output lines (40 at the most) of a worker, alive or dead and not yet forgotten: it is
 * kept for the last 64 dead. REPLY: `text`; PLS_ENOENT. Workers themselves are listed from the
 * directory: role, index, pid and counts are there. */
PLS_MUST_USE pls_err pls_attach_output_tail(pls_attach *attach, uint32_t slot, uint32_t epoch,
                                            uint32_t *request_out);

typedef enum pls_restart_policy {
    PLS_RESTART_NEVER = 0,
    PLS_RESTART_ON_FAILURE = 1, /* not when its worker ended with exit code 0 after a stop */
    PLS_RESTART_ALWAYS = 2,
} pls_restart_policy;

#define PLS_RESTARTS_UNLIMITED UINT32_MAX

typedef struct pls_restart_options {
    pls_restart_policy policy;
    uint32_t restarts_max;
    uint32_t backoff_min_ms; /* doubles from here with each attempt in a row */
    uint32_t backoff_max_ms;
    pls_place_kind place; /* where to rebuild: least loaded, the worker `index`, or dedicated */
    uint32_t index;
    const void *spec; /* what PLS_EVENT_REBUILD gives back */
    size_t spec_bytes;
} pls_restart_options;

/* From now on the node rebuilds `actor` when its process dies or pls_attach_actor_failed() says so:
 * after the backoff it chooses (starts) a worker, sends it PLS_EVENT_REBUILD and, when that answers
 * ok, PLS_EVENT_ROUTE to everybody; when attempts run out, PLS_EVENT_ACTOR_LOST to everybody, and
 * its names go. Attempts count from the registration and start again at zero when the actor has
 * lived 10 x backoff_max_ms (at least 10 s) since the last one. Registering again replaces the
 * options. REPLY: PLS_OK; PLS_EDEAD when its process is already gone. */
PLS_MUST_USE pls_err pls_attach_restart_register(pls_attach *attach, uint64_t actor,
                                                 const pls_restart_options *options,
                                                 uint32_t *request_out);

/* The actor was stopped: forget its policy, its route and its names. REPLY: PLS_OK; PLS_ENOENT. */
PLS_MUST_USE pls_err pls_attach_actor_unregister(pls_attach *attach, uint64_t actor,
                                                 uint32_t *request_out);

/* The actor failed inside a living process (on_start raised, ActorFailed) and wants its policy
 * applied; the rebuild prefers this process. No REPLY: REBUILD or ACTOR_LOST follows. */
PLS_MUST_USE pls_err pls_attach_actor_failed(pls_attach *attach, uint64_t actor, const char *text,
                                             size_t text_bytes);

/* Answers PLS_EVENT_REBUILD. `ok` false: `text` says why, and the next attempt follows. No REPLY.
 */
PLS_MUST_USE pls_err pls_attach_rebuilt(pls_attach *attach, uint64_t actor, bool ok,
                                        const char *text, size_t text_bytes);

/* Ends one worker: PLS_EVENT_SHUTDOWN to it, SIGKILL after `timeout_ms` (0: at once). REPLY: PLS_OK
 * when it is gone; PLS_ENOENT; PLS_EPERM for a process that is no worker. */
PLS_MUST_USE pls_err pls_attach_worker_stop(pls_attach *attach, uint32_t slot, uint32_t epoch,
                                            uint32_t timeout_ms, uint32_t *request_out);

/* Says that this worker will leave for a fresh one, which is started at once: no more actors are
 * placed here, and those that it has are rebuilt elsewhere when it ends with exit code 0, whatever
 * their restart policy. Nothing for a process that is no worker. No REPLY. */
PLS_MUST_USE pls_err pls_attach_worker_recycle(pls_attach *attach);

/* Ends the whole system: PLS_EVENT_SHUTDOWN to everybody else, SIGKILL for workers still there
 * after `timeout_ms`. REPLY: PLS_OK when all workers and the template are gone; the node then
 * exits, and the control socket hangs up. */
PLS_MUST_USE pls_err pls_attach_shutdown(pls_attach *attach, uint32_t timeout_ms,
                                         uint32_t *request_out);

#endif
