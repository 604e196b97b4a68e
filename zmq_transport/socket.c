/* SPDX-License-Identifier: Apache-2.0 */
/* libzmq, not czmq: czmq keeps one context, threads and exit handlers for the whole process, its
 * zauth answers from a thread of its own, and its sockets abort where a descriptor is missing. What
 * is needed here is a dozen calls. Every one is made DONTWAIT, on the owner's thread.
 * Invariant: a dialler has RECONNECT_IVL -1, so it is one connection; IMMEDIATE, so it is writable
 * exactly while that connection stands and nothing is kept for the next one. */
#include "zmq_transport/socket.h"

#include "base/assert.h"
#include "zmq_transport/frame.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zmq.h>

/* Two lanes with a monitor each to 256 peers, and the few that listen. */
#define SOCKETS_MAX 4096
#define BACKLOG 1024
/* An idle connection to a host that is gone ends within 25 s, by the kernels alone. */
#define KEEPALIVE_IDLE_S 10
#define KEEPALIVE_INTERVAL_S 5
#define KEEPALIVE_COUNT 3
#define EVENT_BYTES 6
#define MONITORED                                                                                  \
    (ZMQ_EVENT_ACCEPTED | ZMQ_EVENT_ACCEPT_FAILED | ZMQ_EVENT_CLOSED | ZMQ_EVENT_DISCONNECTED |    \
     ZMQ_EVENT_HANDSHAKE_FAILED_NO_DETAIL | ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL |                  \
     ZMQ_EVENT_HANDSHAKE_FAILED_AUTH)

_Static_assert(sizeof(pls_zmq_part) == sizeof(zmq_msg_t), "a part is a ZeroMQ message");

struct pls_zmq_context {
    void *handle;
    uint64_t monitor_count; /* names of monitors */
};

static zmq_msg_t *msg_of(const pls_zmq_part *part)
{
    return (zmq_msg_t *)(uintptr_t)part;
}

static pls_err err_here(void)
{
    switch (errno) {
    case EADDRINUSE:
        return PLS_EEXIST;
    case EADDRNOTAVAIL:
    case ENODEV:
        return PLS_ENOENT;
    case EPROTONOSUPPORT:
    case ENOCOMPATPROTO:
        return PLS_EINVAL;
    default:
        return pls_err_from_errno(errno);
    }
}

pls_err pls_zmq_context_create(pls_zmq_context **context_out)
{
    pls_zmq_context *context = calloc(1, sizeof *context);
    if (context == NULL) {
        return PLS_ENOMEM;
    }
    context->handle = zmq_ctx_new();
    if (context->handle == NULL) {
        pls_err err = err_here();
        free(context);
        return err;
    }
    zmq_ctx_set(context->handle, ZMQ_MAX_SOCKETS, SOCKETS_MAX);
    /* One: what a monitor tells of a connection then comes before the connection's messages. */
    zmq_ctx_set(context->handle, ZMQ_IO_THREADS, 1);
    *context_out = context;
    return PLS_OK;
}

void pls_zmq_context_destroy(pls_zmq_context *context)
{
    if (context == NULL) {
        return;
    }
    while (zmq_ctx_term(context->handle) != 0 && errno == EINTR) {
    }
    free(context);
}

static bool set_number(void *handle, int option, int value)
{
    return zmq_setsockopt(handle, option, &value, sizeof value) == 0;
}

static bool set_key(void *handle, int option, const uint8_t key[PLS_ZMQ_KEY_BYTES])
{
    return zmq_setsockopt(handle, option, key, PLS_ZMQ_KEY_BYTES) == 0;
}

static pls_err set_security(void *handle, pls_zmq_role role, const pls_zmq_terms *terms)
{
    static const char domain[] = "pulsing";
    if (terms->own == NULL) {
        return PLS_OK;
    }
    bool set = set_key(handle, ZMQ_CURVE_SECRETKEY, terms->own->secret_key) &&
               set_key(handle, ZMQ_CURVE_PUBLICKEY, terms->own->public_key);
    if (role == PLS_ZMQ_LISTENER) {
        /* Without a domain ZeroMQ would not ask the doorman. */
        set = set && set_number(handle, ZMQ_CURVE_SERVER, 1) &&
              zmq_setsockopt(handle, ZMQ_ZAP_DOMAIN, domain, sizeof domain - 1) == 0;
    } else {
        set = set && set_key(handle, ZMQ_CURVE_SERVERKEY, terms->server_key);
    }
    return set ? PLS_OK : PLS_EUNSUPPORTED;
}

static pls_err set_terms(void *handle, pls_zmq_role role, const pls_zmq_terms *terms)
{
    bool set = set_number(handle, ZMQ_IPV6, 1) && set_number(handle, ZMQ_BACKLOG, BACKLOG) &&
               set_number(handle, ZMQ_CONNECT_TIMEOUT, terms->connect_ms) &&
               set_number(handle, ZMQ_HANDSHAKE_IVL, terms->handshake_ms) &&
               set_number(handle, ZMQ_TCP_MAXRT, terms->silence_ms) &&
               set_number(handle, ZMQ_TCP_KEEPALIVE, 1) &&
               set_number(handle, ZMQ_TCP_KEEPALIVE_IDLE, KEEPALIVE_IDLE_S) &&
               set_number(handle, ZMQ_TCP_KEEPALIVE_INTVL, KEEPALIVE_INTERVAL_S) &&
               set_number(handle, ZMQ_TCP_KEEPALIVE_CNT, KEEPALIVE_COUNT) &&
               set_number(handle, ZMQ_SNDHWM, terms->send_max) &&
               set_number(handle, ZMQ_RCVHWM, terms->receive_max);
    int64_t part_bytes_max = PLS_FRAME_PART_BYTES_MAX;
    set =
        set && zmq_setsockopt(handle, ZMQ_MAXMSGSIZE, &part_bytes_max, sizeof part_bytes_max) == 0;
    if (role == PLS_ZMQ_LISTENER) {
        set = set && set_number(handle, ZMQ_ROUTER_MANDATORY, 1);
    } else {
        set = set && set_number(handle, ZMQ_RECONNECT_IVL, -1) &&
              set_number(handle, ZMQ_IMMEDIATE, 1);
    }
    return set ? set_security(handle, role, terms) : PLS_EUNSUPPORTED;
}

static int type_of(pls_zmq_role role)
{
    switch (role) {
    case PLS_ZMQ_LISTENER:
        return ZMQ_ROUTER;
    case PLS_ZMQ_DIALLER:
        return ZMQ_DEALER;
    case PLS_ZMQ_DOORMAN:
        return ZMQ_REP;
    default:
        return ZMQ_PAIR;
    }
}

pls_err pls_zmq_socket_open(pls_zmq_context *context, pls_zmq_role role, const pls_zmq_terms *terms,
                            pls_zmq_socket **socket_out)
{
    pls_zmq_socket *socket = calloc(1, sizeof *socket);
    if (socket == NULL) {
        return PLS_ENOMEM;
    }
    socket->source.fd = -1;
    socket->handle = zmq_socket(context->handle, type_of(role));
    if (socket->handle == NULL) {
        pls_err err = err_here();
        free(socket);
        return err;
    }
    pls_err err = PLS_OK;
    if (!set_number(socket->handle, ZMQ_LINGER, 0) ||
        /* The monitored side sends with a wait when its monitor is full: never let it be. */
        (role == PLS_ZMQ_MONITOR && !set_number(socket->handle, ZMQ_RCVHWM, 0))) {
        err = PLS_EUNSUPPORTED;
    } else if (terms != NULL) {
        err = set_terms(socket->handle, role, terms);
    }
    if (err != PLS_OK) {
        pls_zmq_socket_close(socket, NULL, 0);
        return err;
    }
    *socket_out = socket;
    return PLS_OK;
}

pls_err pls_zmq_socket_watch(pls_zmq_socket *socket, pls_zmq_reactor *reactor,
                             void (*ready)(void *owner), void *owner)
{
    int fd = -1;
    size_t len = sizeof fd;
    if (zmq_getsockopt(socket->handle, ZMQ_FD, &fd, &len) != 0) {
        return err_here();
    }
    socket->source.ready = ready;
    socket->source.owner = owner;
    return pls_zmq_reactor_watch(reactor, &socket->source, fd, false);
}

void pls_zmq_socket_close(pls_zmq_socket *socket, pls_zmq_reactor *reactor, int linger_ms)
{
    if (socket == NULL) {
        return;
    }
    if (reactor != NULL) {
        pls_zmq_reactor_unwatch(reactor, &socket->source);
    }
    pls_assert(socket->source.fd == -1);
    set_number(socket->handle, ZMQ_LINGER, linger_ms);
    int rc = zmq_close(socket->handle);
    pls_assert(rc == 0);
    free(socket);
}

pls_err pls_zmq_socket_bind(pls_zmq_socket *socket, const char *endpoint)
{
    return zmq_bind(socket->handle, endpoint) == 0 ? PLS_OK : err_here();
}

pls_err pls_zmq_socket_connect(pls_zmq_socket *socket, const char *endpoint)
{
    return zmq_connect(socket->handle, endpoint) == 0 ? PLS_OK : err_here();
}

void pls_zmq_socket_unbind(pls_zmq_socket *socket, const char *endpoint)
{
    zmq_unbind(socket->handle, endpoint);
}

pls_err pls_zmq_socket_rekey(pls_zmq_socket *socket, const pls_zmq_pair *own)
{
    pls_zmq_terms terms = {.own = own};
    return set_security(socket->handle, PLS_ZMQ_LISTENER, &terms);
}

pls_err pls_zmq_socket_endpoint(pls_zmq_socket *socket, char *text, size_t capacity)
{
    size_t len = capacity;
    if (zmq_getsockopt(socket->handle, ZMQ_LAST_ENDPOINT, text, &len) != 0) {
        return errno == EINVAL ? PLS_ETOOBIG : err_here();
    }
    return PLS_OK;
}

unsigned pls_zmq_socket_state(pls_zmq_socket *socket)
{
    int events = 0;
    size_t len = sizeof events;
    if (zmq_getsockopt(socket->handle, ZMQ_EVENTS, &events, &len) != 0) {
        return 0;
    }
    return ((events & ZMQ_POLLIN) != 0 ? PLS_ZMQ_READABLE : 0u) |
           ((events & ZMQ_POLLOUT) != 0 ? PLS_ZMQ_WRITABLE : 0u);
}

pls_err pls_zmq_part_copy(pls_zmq_part *part, const void *bytes, size_t len)
{
    if (zmq_msg_init_size(msg_of(part), len) != 0) {
        return PLS_ENOMEM;
    }
    if (len > 0) {
        memcpy(zmq_msg_data(msg_of(part)), bytes, len);
    }
    return PLS_OK;
}

pls_err pls_zmq_part_lend(pls_zmq_part *part, const void *bytes, size_t len,
                          void (*back)(void *bytes, void *hint), void *hint)
{
    /* ZeroMQ only reads what it sends; its interface lacks the word. */
    void *memory = (void *)(uintptr_t)bytes;
    return zmq_msg_init_data(msg_of(part), memory, len, back, hint) == 0 ? PLS_OK : PLS_ENOMEM;
}

void pls_zmq_part_close(pls_zmq_part *part)
{
    zmq_msg_close(msg_of(part));
}

void pls_zmq_part_move(pls_zmq_part *to, pls_zmq_part *from)
{
    zmq_msg_init(msg_of(to));
    zmq_msg_move(msg_of(to), msg_of(from));
    zmq_msg_close(msg_of(from));
}

const void *pls_zmq_part_bytes(const pls_zmq_part *part)
{
    return zmq_msg_data(msg_of(part));
}

size_t pls_zmq_part_len(const pls_zmq_part *part)
{
    return zmq_msg_size(msg_of(part));
}

bool pls_zmq_part_more(const pls_zmq_part *part)
{
    return zmq_msg_more(msg_of(part)) != 0;
}

const char *pls_zmq_part_user(const pls_zmq_part *part)
{
    const char *user = zmq_msg_gets(msg_of(part), "User-Id");
    return user == NULL ? "" : user;
}

int pls_zmq_part_fd(const pls_zmq_part *part)
{
    return zmq_msg_get(msg_of(part), ZMQ_SRCFD);
}

pls_err pls_zmq_socket_send(pls_zmq_socket *socket, pls_zmq_part *part, bool more)
{
    int flags = ZMQ_DONTWAIT | (more ? ZMQ_SNDMORE : 0);
    for (;;) {
        if (zmq_msg_send(msg_of(part), socket->handle, flags) >= 0) {
            return PLS_OK;
        }
        if (errno == EAGAIN) {
            return PLS_EFULL;
        }
        if (errno != EINTR) {
            return PLS_EDEAD;
        }
    }
}

pls_err pls_zmq_socket_receive(pls_zmq_socket *socket, pls_zmq_part *part_out)
{
    zmq_msg_t *msg = msg_of(part_out);
    zmq_msg_init(msg);
    while (zmq_msg_recv(msg, socket->handle, ZMQ_DONTWAIT) < 0) {
        if (errno != EINTR) {
            zmq_msg_close(msg);
            return PLS_EEMPTY;
        }
    }
    return PLS_OK;
}

pls_err pls_zmq_monitor_open(pls_zmq_context *context, pls_zmq_socket *socket,
                             pls_zmq_socket **monitor_out)
{
    char name[64];
    pls_zmq_socket *monitor = NULL;
    snprintf(name, sizeof name, "inproc://pulsing.monitor.%llu",
             (unsigned long long)++context->monitor_count);
    pls_err err = pls_zmq_socket_open(context, PLS_ZMQ_MONITOR, NULL, &monitor);
    if (err != PLS_OK) {
        return err;
    }
    if (zmq_socket_monitor(socket->handle, name, MONITORED) != 0) {
        err = err_here();
    } else {
        err = pls_zmq_socket_connect(monitor, name);
    }
    if (err != PLS_OK) {
        pls_zmq_monitor_stop(socket);
        pls_zmq_socket_close(monitor, NULL, 0);
        return err;
    }
    *monitor_out = monitor;
    return PLS_OK;
}

void pls_zmq_monitor_stop(pls_zmq_socket *socket)
{
    zmq_socket_monitor(socket->handle, NULL, 0);
}

static pls_zmq_event_kind kind_of(uint16_t event)
{
    switch (event) {
    case ZMQ_EVENT_ACCEPTED:
        return PLS_ZMQ_EVENT_ACCEPTED;
    case ZMQ_EVENT_DISCONNECTED:
        return PLS_ZMQ_EVENT_GONE;
    case ZMQ_EVENT_CLOSED:
        return PLS_ZMQ_EVENT_MISSED;
    case ZMQ_EVENT_HANDSHAKE_FAILED_NO_DETAIL:
        return PLS_ZMQ_EVENT_GARBLED;
    case ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL:
    case ZMQ_EVENT_HANDSHAKE_FAILED_AUTH:
        return PLS_ZMQ_EVENT_FORGED;
    case ZMQ_EVENT_ACCEPT_FAILED:
        return PLS_ZMQ_EVENT_EXHAUSTED;
    default:
        return 0;
    }
}

pls_err pls_zmq_monitor_next(pls_zmq_socket *monitor, pls_zmq_event *event_out)
{
    pls_zmq_part part;
    for (;;) {
        uint16_t event = 0;
        uint32_t value = 0;
        if (pls_zmq_socket_receive(monitor, &part) != PLS_OK) {
            return PLS_EEMPTY;
        }
        if (pls_zmq_part_len(&part) == EVENT_BYTES) {
            const uint8_t *bytes = pls_zmq_part_bytes(&part);
            memcpy(&event, bytes, sizeof event);
            memcpy(&value, bytes + sizeof event, sizeof value);
        }
        bool more = pls_zmq_part_more(&part);
        pls_zmq_part_close(&part);
        /* The second part is the endpoint, which says nothing new. */
        if (more && pls_zmq_socket_receive(monitor, &part) == PLS_OK) {
            pls_zmq_part_close(&part);
        }
        pls_zmq_event_kind kind = kind_of(event);
        if (kind != 0) {
            *event_out = (pls_zmq_event){.kind = kind, .fd = (int)value};
            return PLS_OK;
        }
    }
}
