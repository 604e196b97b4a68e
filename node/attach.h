/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PLS_NODE_ATTACH_H
#define PLS_NODE_ATTACH_H

#include "base/err.h"
#include "node/directory.h"
#include "node/launch.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct pls_inbox;

/* The client's side of the control socket. Two steps, because a process must know its slot before
 * it can make its inbox: pls_attach_open() greets and learns slot, epoch and the directory;
 * pls_attach_join() hands over the inbox and its bell, and makes the process visible to others.
 *
 * Deaths do not come as events here. The node changes the directory line, then sets the slot's dead
 * bit in this process's inbox header and rings its bell. A set dead bit means: read the line of
 * that slot again. It is set once for DYING (fail calls, free nothing) and once for DEAD (drain,
 * free, pls_attach_death_ack()); both may have happened by the time one looks.
 *
 * All calls are for the owner thread. Only those that say so block, 5 s at the most; events that
 * arrive meanwhile are kept for pls_attach_poll(). */

typedef struct pls_attach pls_attach;

#define PLS_ATTACH_TIMEOUT_MS 5000
/* Events kept while a blocking call waits, and packets kept while the node's socket is full. */
#define PLS_ATTACH_QUEUE_MAX 4096

typedef struct pls_attach_info {
    uint32_t slot;
    uint32_t epoch;
    uint32_t node_pid;
    uint32_t attached_count; /* processes attached now: decides the size of a new inbox's rings */
    uint32_t worker_index;   /* PLS_WORKER_INDEX_NONE: not a numbered worker */
    uint32_t workers_max;
    uint64_t memory_budget_bytes;
    uint8_t node_id[PLS_NODE_ID_BYTES];
    pls_directory *directory; /* lent until pls_attach_close() */
    const char *node_name;    /* lent until pls_attach_close() */
} pls_attach_info;

typedef enum pls_attach_event_type {
    PLS_EVENT_REPLY = 1,  /* `request`, `status`, and what the request promises */
    PLS_EVENT_REBUILD,    /* build `actor` here: `data` is the spec, `number` the attempt (from 1),
                             `name` its registered name if any; answer pls_attach_rebuilt() */
    PLS_EVENT_ROUTE,      /* `actor` now lives in (`slot`, `epoch`) */
    PLS_EVENT_ACTOR_LOST, /* `actor` will not be rebuilt; `text` says why */
    PLS_EVENT_MEMBER,     /* `number` (pls_member_event) happened to the node in `data`, an entry */
    PLS_EVENT_SHUTDOWN,   /* drain, close and exit within `number` ms; then comes SIGKILL */
} pls_attach_event_type;

typedef struct pls_attach_event {
    pls_attach_event_type type;
    uint32_t request;
    pls_err status;
    uint32_t slot;
    uint32_t epoch;
    uint32_t flags;
    uint64_t actor;
    uint64_t number;
    const char *name; /* strings are lent until the next call on the object; not terminated */
    size_t name_bytes;
    const char *text;
    size_t text_bytes;
    const uint8_t *data;
    size_t data_bytes;
} pls_attach_event;

typedef struct pls_attach_peer {
    int inbox_fd;
    int bell_fd;
} pls_attach_peer;

/* Connects to a node that already runs: a bare name, or a path with a '/'. The other end must
 * belong to this uid.
 * Errors:  PLS_ENOENT  nobody listens there; PLS_EPERM  another user's socket;
 *          PLS_EPROTO  not a node's socket; PLS_EINVAL, PLS_EFDLIMIT, PLS_ESYS.
 * Owns:    gives the descriptor (close-on-exec, non-blocking). `trouble` as in launch.h.
 * Threads: any thread; never blocks. */
PLS_MUST_USE pls_err pls_attach_connect(const char *name_or_path, int *control_fd_out,
                                        char *trouble);

/* Greets the node over a control socket.
 * Errors:  PLS_EVERSION  another version or memory layout; PLS_EFULL  256 processes are attached;
 *          PLS_ECLOSED  the node is gone; PLS_ETIMEDOUT  it does not answer;
 *          PLS_EUNSUPPORTED  kernel older than 5.10; PLS_EPROTO, PLS_ENOMEM, PLS_EFDLIMIT,
 *          PLS_ESYS.
 * Owns:    takes `control_fd` on success; gives the object.
 * Threads: the caller becomes the owner thread; may block 5 s. */
PLS_MUST_USE pls_err pls_attach_open(int control_fd, pls_role role, pls_attach **attach_out,
                                     char *trouble);

/* Lends what the greeting told, until pls_attach_close(). Threads: owner thread; never blocks. */
const pls_attach_info *pls_attach_info_of(const pls_attach *attach);

/* Hands over the inbox, the eventfd that is its bell and, unless it is -1, the obs memfd; from the
 * return on, others may send to this process. `life` is the inbox header's life line (NULL: none,
 * for tests): the calling thread holds it if it is the main thread, else a small thread made for
 * it, because the end of that thread is how the node hears early of a death.
 * Errors:  PLS_EINVAL  the node refused the memory (seals, size, slot); PLS_ECLOSED, PLS_ETIMEDOUT,
 *          PLS_ENOMEM, PLS_ESYS. pls_attach_trouble() has the text.
 * Owns:    borrows the descriptors; the node keeps copies. Borrows `life` until pls_attach_close().
 * Threads: owner thread; may block 5 s. */
PLS_MUST_USE pls_err pls_attach_join(pls_attach *attach, int inbox_fd, int bell_fd, int obs_fd,
                                     uint8_t *life);

/* Leaves. Unless `abrupt`, tells the node that this process has unmapped what others shared with it
 * and will touch none of it again, so that its slot can be reclaimed while the process lives on;
 * its own inbox is unmapped after this call, which lets go of the life word. NULL is accepted. A
 * forked child calls it with `abrupt`. False: the main thread holds the life word and this is
 * another one; the inbox then goes to pls_attach_inbox_keep() instead of being destroyed.
 * Threads: owner thread; never blocks. */
bool pls_attach_close(pls_attach *attach, bool abrupt);

/* Keeps an inbox that must not be unmapped yet, until the main thread next attaches or leaves, else
 * to the end of the process. Owns: takes `inbox`. Threads: any thread; never blocks. */
void pls_attach_inbox_keep(struct pls_inbox *inbox);

/* The text of the last failure, for people; lent until the next call.
 * Threads: owner thread; never blocks. */
const char *pls_attach_trouble(const pls_attach *attach);

/* The descriptor for the event loop (readable: call pls_attach_poll() until PLS_EEMPTY).
 * Threads: owner thread; never blocks. */
int pls_attach_fd(const pls_attach *attach);

/* True while packets wait for room in the node's socket: the loop then also asks for writability
 * and calls pls_attach_poll(), which sends them.
 * Threads: owner thread; never blocks. */
bool pls_attach_wants_write(const pls_attach *attach);

/* The next event.
 * Errors:  PLS_EEMPTY  none is there; PLS_ECLOSED  the node is gone, and so is this system;
 *          PLS_EPROTO  as PLS_ECLOSED: the node sent nonsense.
 * Owns:    lends the event's strings until the next call.
 * Threads: owner thread; never blocks. */
PLS_MUST_USE pls_err pls_attach_poll(pls_attach *attach, pls_attach_event *event_out);

/* The inbox and the bell of another process; also of a dead one until its death has been
 * acknowledged by all.
 * Errors:  PLS_EDEAD  long gone, or it has not joined yet; PLS_ECLOSED, PLS_ETIMEDOUT,
 *          PLS_EFDLIMIT.
 * Owns:    gives both descriptors.
 * Threads: owner thread; may block 5 s. */
PLS_MUST_USE pls_err pls_attach_peer_get(pls_attach *attach, uint32_t slot, uint32_t epoch,
                                         pls_attach_peer *peer_out);

/* A payload segment of another process, read-only; also of a dead one until its death has been
 * acknowledged by all.
 * Errors:  PLS_ENOENT  its owner has not registered it; PLS_EDEAD  long gone; PLS_ECLOSED,
 *          PLS_ETIMEDOUT, PLS_EFDLIMIT.
 * Owns:    gives the descriptor. Threads: owner thread; may block 5 s. */
PLS_MUST_USE pls_err pls_attach_segment_get(pls_attach *attach, uint32_t slot, uint32_t epoch,
                                            uint32_t segment_id, int *fd_out);

/* The obs memory of another process, for reading; also of the last eight that have died.
 * Errors:  PLS_ENOENT  it gave none, or died too long ago; PLS_ECLOSED, PLS_ETIMEDOUT,
 *          PLS_EFDLIMIT.
 * Owns:    gives the descriptor. Threads: owner thread; may block 5 s. */
PLS_MUST_USE pls_err pls_attach_obs_get(pls_attach *attach, uint32_t slot, uint32_t epoch,
                                        int *fd_out);

/* The last output lines of a worker, as pls_attach_output_tail() of node/requests.h gives them.
 * Errors:  PLS_ENOENT; PLS_ECLOSED, PLS_ETIMEDOUT.
 * Threads: owner thread; may block 5 s. */
PLS_MUST_USE pls_err pls_attach_output_tail_wait(pls_attach *attach, uint32_t slot, uint32_t epoch,
                                                 char *text, size_t capacity, size_t *bytes_out);

/* Registers a segment of this process; when it returns PLS_OK, the descriptor is in the socket, so
 * a message that points into the segment can be resolved even if this process is killed next.
 * Errors:  PLS_ECLOSED, PLS_ETIMEDOUT.
 * Owns:    borrows `fd`, which must be a read-only reopening of the segment.
 * Threads: owner thread; may block 5 s, only while the socket is full. */
PLS_MUST_USE pls_err pls_attach_segment_register(pls_attach *attach, uint32_t segment_id, int fd);

/* Tells the node to drop its descriptor of a segment that no message points into any more.
 * Errors:  PLS_EFULL, PLS_ECLOSED. Threads: owner thread; never blocks. */
PLS_MUST_USE pls_err pls_attach_segment_unregister(pls_attach *attach, uint32_t segment_id);

/* `on_kept` is called when something must be polled for that the socket does not show: an event
 * that arrived during a call that waits, or a packet that waits for room to be sent.
 * Threads: owner thread, which is also where it is called; never blocks. */
void pls_attach_on_kept(pls_attach *attach, void (*on_kept)(void *context), void *context);

/* Whether pls_attach_poll() has an event that the socket does not show.
 * Threads: owner thread; never blocks. */
bool pls_attach_has_kept(const pls_attach *attach);

/* This process has drained what (slot, epoch) had sent and freed all that was lent to it.
 * Errors:  PLS_EFULL  try again later; PLS_ECLOSED. Threads: owner thread; never blocks. */
PLS_MUST_USE pls_err pls_attach_death_ack(pls_attach *attach, uint32_t slot, uint32_t epoch);

#endif
