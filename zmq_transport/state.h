/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PLS_ZMQ_TRANSPORT_STATE_H
#define PLS_ZMQ_TRANSPORT_STATE_H

#include "zmq_transport/letter.h"
#include "zmq_transport/reactor.h"
#include "zmq_transport/socket.h"
#include "zmq_transport/transport.h"

/* What the parts of a transport share: the configuration with its defaults filled in, the sockets
 * that listen, and time. Parts know each other by the headers door.h, inlet.h, peer.h and report.h.
 * Threads: owner thread; never blocks; the same for every function of this header. */

#define PLS_ZMQ_NS_PER_MS UINT64_C(1000000)
/* A peer's address with its zero. */
#define PLS_ZMQ_ADDRESS_CAPACITY (PLS_FRAME_ADDRESS_BYTES_MAX + 1)
#define PLS_ZMQ_NAME_CAPACITY (PLS_NAME_BYTES_MAX + 1)

typedef struct pls_door pls_door;
typedef struct pls_inlets pls_inlets;
typedef struct pls_peers pls_peers;
typedef struct pls_report pls_report;

typedef struct pls_zmq_settings {
    char cluster[PLS_ZMQ_NAME_CAPACITY];
    char name[PLS_ZMQ_NAME_CAPACITY];
    char advertise[PLS_ZMQ_ADDRESS_CAPACITY];
    uint8_t node_id[PLS_ZMQ_NODE_ID_BYTES];
    uint64_t generation;
    uint32_t peers_max;
    uint32_t window_bytes;
    uint32_t window_frames;
    uint32_t queue_messages;
    uint64_t queue_bytes;
    uint32_t connect_ms;
    uint32_t handshake_ms;
    uint32_t silence_ms;
    uint64_t retry_ns;
    uint64_t idle_ns;
    uint64_t report_ns;
} pls_zmq_settings;

/* An endpoint that is bound, and the key that opens it. */
typedef struct pls_zmq_entrance {
    char endpoint[PLS_ZMQ_ADDRESS_CAPACITY]; /* "" : not in use */
    pls_zmq_key key;
} pls_zmq_entrance;

struct pls_zmq {
    pls_zmq_settings settings;
    const pls_zmq_handlers *handlers;
    void *owner;
    uint64_t now_ns;
    uint64_t due_ns; /* not after the earliest time at which something is to be done */
    pls_zmq_counters counters;
    pls_tray tray;
    pls_zmq_reactor *reactor;
    pls_zmq_context *context;
    pls_zmq_socket *listener;
    pls_zmq_socket *monitor; /* of the listener */
    pls_zmq_socket *doorman; /* NULL without a key */
    pls_zmq_entrance entrances[PLS_ZMQ_KEYS_MAX];
    pls_zmq_key dial_key;
    pls_zmq_pair pair;                          /* our own as a client */
    uint8_t dial_server_key[PLS_ZMQ_KEY_BYTES]; /* of those we connect to */
    pls_door *door;
    pls_inlets *inlets;
    pls_peers *peers;
    pls_report *report;
    bool secure;
    bool leaving;
};

/* Something is to be done at `at_ns`. */
static inline void pls_zmq_due(pls_zmq *zmq, uint64_t at_ns)
{
    if (at_ns < zmq->due_ns) {
        zmq->due_ns = at_ns;
    }
}

static inline uint64_t pls_zmq_after_ms(const pls_zmq *zmq, uint64_t ms)
{
    return zmq->now_ns + ms * PLS_ZMQ_NS_PER_MS;
}

#endif
