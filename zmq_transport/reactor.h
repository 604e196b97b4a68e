/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PLS_ZMQ_TRANSPORT_REACTOR_H
#define PLS_ZMQ_TRANSPORT_REACTOR_H

#include "base/err.h"

#include <stdbool.h>
#include <stdint.h>

/* The descriptors of a transport behind one descriptor: an epoll set of its own, which the owner
 * watches as a whole.
 *
 * A ZeroMQ descriptor tells only that something was put into the socket's mailbox, and any call on
 * the socket empties it. So a source that was touched is noted, and served before the owner sleeps,
 * whether its descriptor speaks or not.
 * Threads: owner thread, unless said; never blocks; the same for every function of this header. */

typedef struct pls_zmq_source {
    int fd;                     /* -1: not watched */
    void (*ready)(void *owner); /* serve it; note it again if something is left */
    void *owner;
    struct pls_zmq_source *next;     /* in the list of the noted */
    struct pls_zmq_source *previous; /* itself while it is not in the list */
    bool noted;
} pls_zmq_source;

typedef struct pls_zmq_reactor pls_zmq_reactor;

/* Errors:  PLS_ENOMEM, PLS_EFDLIMIT, PLS_ESYS. Owns: gives the reactor. */
PLS_MUST_USE pls_err pls_zmq_reactor_create(pls_zmq_reactor **reactor_out);

/* Owns:    takes `reactor`; NULL is allowed; no source is watched any more. */
void pls_zmq_reactor_destroy(pls_zmq_reactor *reactor);

/* Readable when something waits to be served. */
int pls_zmq_reactor_fd(const pls_zmq_reactor *reactor);

/* Watch `fd` for reading, or for writing. The source is noted at once.
 * Errors:  PLS_ENOMEM, PLS_ESYS; it is not watched then.
 * Owns:    borrows `source` until pls_zmq_reactor_unwatch(); never closes `fd`. */
PLS_MUST_USE pls_err pls_zmq_reactor_watch(pls_zmq_reactor *reactor, pls_zmq_source *source, int fd,
                                           bool for_writing);

/* No call comes for it any more, not even from the batch being served. One that is not watched is
 * accepted. To be called before its descriptor is closed. */
void pls_zmq_reactor_unwatch(pls_zmq_reactor *reactor, pls_zmq_source *source);

/* Serve the source in this or the next round. */
void pls_zmq_reactor_note(pls_zmq_reactor *reactor, pls_zmq_source *source);

/* Whether a source waits that no descriptor will speak for. */
bool pls_zmq_reactor_pending(const pls_zmq_reactor *reactor);

/* Serve, once each, the sources whose descriptors speak and those that were noted. */
void pls_zmq_reactor_round(pls_zmq_reactor *reactor);

/* Make the descriptor readable, and `ready` of the wake source be called in the next round.
 * Threads: any thread. */
void pls_zmq_reactor_wake(pls_zmq_reactor *reactor);

/* What is called, on the owner thread, after pls_zmq_reactor_wake(). */
void pls_zmq_reactor_on_wake(pls_zmq_reactor *reactor, void (*ready)(void *owner), void *owner);

#endif
