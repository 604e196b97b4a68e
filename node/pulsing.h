/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PULSING_H
#define PULSING_H

#include "node/pulsing_actor.h"
#include "node/pulsing_obituary.h"
#include "node/pulsing_send.h"
#include "node/pulsing_types.h"

/* The C face of Pulsing: a process attaches to the node of its host, hosts actors, asks and tells.
 * One thread at a time uses an attachment (the owner thread).
 * Payloads are bytes to this library; Python actors read and write its codec (msgpack).
 * Threads: owner thread, the same for every function of this header that does not say otherwise. */

struct pls_attach;
struct pls_attach_event;

struct pls_attach_event;

typedef struct pulsing_options {
    int control_fd; /* of pls_node_launch(), pls_attach_connect(), or inherited by a worker */
    bool worker;    /* this process was forked by the node's template */
    bool serves;    /* it has a loop, and answers other nodes for actors of this one */
    uint64_t memory_bytes; /* budget for large payloads; 0: the node's, else a quarter of memory */
    pulsing_callbacks callbacks;
} pulsing_options;

/* Attaches this process.
 * Errors:  as pls_attach_open() and pls_attach_join(); `trouble` (1024 bytes) gets a text.
 * Owns:    takes `control_fd`, also on failure; gives the attachment.
 * Threads: the caller becomes the owner thread; may block 5 s. */
PLS_MUST_USE pls_err pulsing_open(const pulsing_options *options, pulsing **pulsing_out,
                                  char *trouble);

/* Fails every call with PULSING_CLOSED and leaves. Blocks still held stay readable until released.
 * NULL is accepted. Threads: owner thread; may block in the kernel. */
void pulsing_close(pulsing *p);

/* Ends every call with PULSING_CLOSED and this text, and refuses later ones; the attachment stays
 * until pulsing_close(). Threads: owner thread; never blocks. */
void pulsing_fail(pulsing *p, const char *text);

/* Why nothing can be sent any more, or NULL. Lent until close. */
const char *pulsing_closed_text(const pulsing *p);

/* The eventfd of the inbox, readable when armed and something came. Lent until close. */
int pulsing_event_fd(const pulsing *p);

/* The control socket's client, for node/requests.h. Lent until close. */
struct pls_attach *pulsing_attach_of(pulsing *p);

/* Whether this is a forked child of the process that attached; a load, no system call. */
bool pulsing_forked(const pulsing *p);

/* This process's place on its node. */
uint32_t pulsing_slot(const pulsing *p);
uint32_t pulsing_epoch(const pulsing *p);

/* Handles what has come, at most `messages_max` messages; returns how many, 0 for nothing.
 * `defer`: requests are queued, not started (for use inside a task); pulsing_poll() without it
 * starts them. Not reentrant: a nested call returns 0.
 * Threads: owner thread; never blocks. */
uint32_t pulsing_poll(pulsing *p, uint32_t messages_max, bool defer);

/* Takes in what has come while a handler runs, which is inside of pulsing_poll(): cancellations and
 * answers take effect, requests are queued. Call it after pulsing_message_release(). */
void pulsing_poll_inside(pulsing *p);

/* Whether a poll might find something: a few loads. Threads: owner thread; never blocks. */
bool pulsing_ready(const pulsing *p);

/* Looks at the inbox until something comes or `ns` have passed; true if something came. Enters no
 * callback, so a Python caller may drop the GIL around it.
 * Threads: owner thread; busy for at most `ns`. */
bool pulsing_look(const pulsing *p, int64_t ns);

/* Before and after sleeping on the eventfd, see pls_inbox_arm(). Threads: owner thread. */
PLS_MUST_USE bool pulsing_arm(pulsing *p);
void pulsing_disarm(pulsing *p, bool readable);

/* Whether looking is fair now: processes awake do not outnumber the usable cores. */
bool pulsing_may_look(pulsing *p);

/* For programs without an event loop of their own: handles what has come; if nothing had, sleeps
 * until a message or a notice of the node comes, and handles that.
 * Units:   `timeout_ms`; -1: no limit.
 * Errors:  PLS_ETIMEDOUT  nothing came; PLS_ESYS. Notices are for pulsing_notice(), call it after.
 * Threads: owner thread; may block `timeout_ms`. */
PLS_MUST_USE pls_err pulsing_wait(pulsing *p, int timeout_ms);

/* The next notice of the node, as pls_attach_poll() of node/attach.h gives it. Moves and losses of
 * actors have been applied by then, and the end of the node has ended every call.
 * Errors:  PLS_EEMPTY  none is there; PLS_ECLOSED  the node has ended.
 * Owns:    lends the strings until the next call. Threads: owner thread; never blocks. */
PLS_MUST_USE pls_err pulsing_notice(pulsing *p, struct pls_attach_event *event_out);

/* CLOCK_MONOTONIC. Threads: any thread; never blocks. */
int64_t pulsing_now_ns(void);

/* The payload was read: gives the ring's room back before the callback returns. */
void pulsing_message_release(pulsing *p);
/* Keeps a block beyond the callback. Threads: owner thread; never blocks. */
pulsing_block *pulsing_block_keep(pulsing_block *block);
/* Lets go of a kept block. Threads: any thread, also after pulsing_close(); never blocks. */
void pulsing_block_release(pulsing_block *block);
const uint8_t *pulsing_block_bytes(const pulsing_block *block, uint64_t *len_out);

/* Messages that reached nobody, by reason (index of pulsing_status). PULSING_DIED: what was told
 * from here to processes that are dead, and not begun by them; asks end with a reply instead. */
uint64_t pulsing_dead_letters(const pulsing *p, pulsing_status reason);

#endif
