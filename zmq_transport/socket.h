/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PLS_ZMQ_TRANSPORT_SOCKET_H
#define PLS_ZMQ_TRANSPORT_SOCKET_H

#include "base/err.h"
#include "zmq_transport/key.h"
#include "zmq_transport/reactor.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* All of libzmq that the transport uses; nothing else includes zmq.h. No call waits: sends and
 * receives are DONTWAIT, LINGER is 0 but where said.
 * Threads: owner thread; never blocks unless said; the same for every function of this header. */

/* ZeroMQ's context: its threads. */
typedef struct pls_zmq_context pls_zmq_context;

/* Errors:  PLS_ENOMEM, PLS_EFDLIMIT. Owns: gives the context. */
PLS_MUST_USE pls_err pls_zmq_context_create(pls_zmq_context **context_out);

/* Every socket must have been closed. Messages that were lent have been given back when this
 * returns. Owns: takes `context`; NULL is allowed. Threads: may block while its threads end. */
void pls_zmq_context_destroy(pls_zmq_context *context);

typedef enum pls_zmq_role {
    PLS_ZMQ_LISTENER, /* ROUTER: bound, answers on the connection that a message came by */
    PLS_ZMQ_DIALLER,  /* DEALER: one connection, which it makes once and never again */
    PLS_ZMQ_DOORMAN,  /* REP: answers ZeroMQ's questions whether a key may enter */
    PLS_ZMQ_MONITOR   /* PAIR: what happens to the connections of another socket */
} pls_zmq_role;

/* What a tcp socket is made with. */
typedef struct pls_zmq_terms {
    const pls_zmq_pair *own;   /* CURVE pair; NULL: no security */
    const uint8_t *server_key; /* DIALLER with `own`: the listener's public key */
    int connect_ms;
    int handshake_ms;
    int silence_ms; /* data that nobody acknowledges for so long ends the connection */
    int send_max;   /* messages that ZeroMQ keeps for a connection; 0: no limit of its own */
    int receive_max;
} pls_zmq_terms;

typedef struct pls_zmq_socket {
    void *handle;
    pls_zmq_source source;
} pls_zmq_socket;

/* Errors:  PLS_ENOMEM, PLS_EFDLIMIT, PLS_EUNSUPPORTED this libzmq has no CURVE.
 * Owns:    gives the socket, which is not watched yet; borrows `terms` (NULL but for LISTENER and
 *          DIALLER). */
PLS_MUST_USE pls_err pls_zmq_socket_open(pls_zmq_context *context, pls_zmq_role role,
                                         const pls_zmq_terms *terms, pls_zmq_socket **socket_out);

/* Watch it: `ready` is called with `owner` whenever it may have something to say.
 * Errors:  as pls_zmq_reactor_watch(). */
PLS_MUST_USE pls_err pls_zmq_socket_watch(pls_zmq_socket *socket, pls_zmq_reactor *reactor,
                                          void (*ready)(void *owner), void *owner);

/* Owns:    takes `socket`; NULL is allowed. What was sent may still leave for `linger_ms`. */
void pls_zmq_socket_close(pls_zmq_socket *socket, pls_zmq_reactor *reactor, int linger_ms);

/* Errors:  PLS_EINVAL  not an address that can be bound or connected to.
 *          PLS_EEXIST  somebody else listens there.
 *          PLS_ENOENT  no interface of this host has that address.
 *          PLS_ESYS. */
PLS_MUST_USE pls_err pls_zmq_socket_bind(pls_zmq_socket *socket, const char *endpoint);
PLS_MUST_USE pls_err pls_zmq_socket_connect(pls_zmq_socket *socket, const char *endpoint);
void pls_zmq_socket_unbind(pls_zmq_socket *socket, const char *endpoint);

/* A listener's keys for what it binds from now on; what is bound keeps its own.
 * Errors:  PLS_EUNSUPPORTED. */
PLS_MUST_USE pls_err pls_zmq_socket_rekey(pls_zmq_socket *socket, const pls_zmq_pair *own);

/* The endpoint last bound, with the port that was chosen.
 * Errors:  PLS_ETOOBIG, PLS_ESYS. */
PLS_MUST_USE pls_err pls_zmq_socket_endpoint(pls_zmq_socket *socket, char *text, size_t capacity);

#define PLS_ZMQ_READABLE 1u
#define PLS_ZMQ_WRITABLE 2u /* DIALLER without send_max: exactly while it is connected */
/* What can be done now. Empties the mailbox: afterwards the descriptor says nothing about it. */
unsigned pls_zmq_socket_state(pls_zmq_socket *socket);

/* One part of a message; a ZeroMQ message in memory of the caller's. */
typedef struct pls_zmq_part {
    uint64_t space[8];
} pls_zmq_part;

/* Errors:  PLS_ENOMEM. Owns: borrows `bytes`; gives a part that must be sent or closed. */
PLS_MUST_USE pls_err pls_zmq_part_copy(pls_zmq_part *part, const void *bytes, size_t len);

/* A part that is the caller's memory: `back` is called once, by whatever thread, when nobody reads
 * it any more.
 * Errors:  PLS_ENOMEM  `back` will not be called. */
PLS_MUST_USE pls_err pls_zmq_part_lend(pls_zmq_part *part, const void *bytes, size_t len,
                                       void (*back)(void *bytes, void *hint), void *hint);

/* Owns:    takes what `part` is. */
void pls_zmq_part_close(pls_zmq_part *part);
/* Owns:    takes what `from` is; `from` is closed. */
void pls_zmq_part_move(pls_zmq_part *to, pls_zmq_part *from);
const void *pls_zmq_part_bytes(const pls_zmq_part *part);
size_t pls_zmq_part_len(const pls_zmq_part *part);
/* Whether another part of the same message follows. */
bool pls_zmq_part_more(const pls_zmq_part *part);
/* What the doorman said of the sender, "" without security; lent as long as the part. */
const char *pls_zmq_part_user(const pls_zmq_part *part);
/* The number that the connection's descriptor had when this came by it; -1: unknown. */
int pls_zmq_part_fd(const pls_zmq_part *part);

/* Errors:  PLS_EFULL   the connection takes no more now, or a DIALLER has none.
 *          PLS_EDEAD   the connection that a LISTENER's first part names is gone.
 * Owns:    takes `part` on PLS_OK; else it is still to be closed. */
PLS_MUST_USE pls_err pls_zmq_socket_send(pls_zmq_socket *socket, pls_zmq_part *part, bool more);

/* Errors:  PLS_EEMPTY. Owns: gives `part_out`. */
PLS_MUST_USE pls_err pls_zmq_socket_receive(pls_zmq_socket *socket, pls_zmq_part *part_out);

typedef enum pls_zmq_event_kind {
    PLS_ZMQ_EVENT_ACCEPTED = 1,
    PLS_ZMQ_EVENT_GONE,      /* connected once, not any more */
    PLS_ZMQ_EVENT_MISSED,    /* no connection came about */
    PLS_ZMQ_EVENT_GARBLED,   /* it did not speak ZeroMQ's protocol, or not in time */
    PLS_ZMQ_EVENT_FORGED,    /* its keys or its cryptography were wrong */
    PLS_ZMQ_EVENT_EXHAUSTED, /* it could not be accepted: no descriptors or memory are left */
} pls_zmq_event_kind;

typedef struct pls_zmq_event {
    pls_zmq_event_kind kind;
    int fd; /* ACCEPTED, GONE: the descriptor's number; else what ZeroMQ says */
} pls_zmq_event;

/* A MONITOR of `socket`. Errors:  as pls_zmq_socket_open(). Owns: gives the monitor. */
PLS_MUST_USE pls_err pls_zmq_monitor_open(pls_zmq_context *context, pls_zmq_socket *socket,
                                          pls_zmq_socket **monitor_out);
/* To be called before its MONITOR is closed. */
void pls_zmq_monitor_stop(pls_zmq_socket *socket);
/* Errors:  PLS_EEMPTY. */
PLS_MUST_USE pls_err pls_zmq_monitor_next(pls_zmq_socket *monitor, pls_zmq_event *event_out);

#endif
