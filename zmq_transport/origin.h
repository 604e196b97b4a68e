/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PLS_ZMQ_TRANSPORT_ORIGIN_H
#define PLS_ZMQ_TRANSPORT_ORIGIN_H

#include "zmq_transport/state.h"

/* What the listening side remembers of a sender's process, beyond its connections: who it is, and
 * how far each of its streams has come.
 * Threads: owner thread; never blocks; the same for every function of this header. */

struct pls_inlet;
struct pls_assembly;

typedef struct pls_origin {
    pls_zmq_identity identity; /* points into this */
    char name[PLS_ZMQ_NAME_CAPACITY];
    char address[PLS_ZMQ_ADDRESS_CAPACITY];
    uint8_t client_key[PLS_ZMQ_KEY_BYTES]; /* that it first came with; zero without security */
    uint64_t session;                      /* random: another one if this was forgotten */
    uint64_t used_ns;
    bool resumed; /* the owner takes messages again */
    bool reset;   /* its connections are to be ended */
    uint64_t completed[PLS_FRAME_STREAMS];
    struct pls_inlet *inlets[PLS_LANE_COUNT];           /* its connections; NULL: none */
    struct pls_assembly *assemblies[PLS_FRAME_STREAMS]; /* messages that have begun */
} pls_origin;

/* The most that are remembered; who has no connection and was silent longest is forgotten first. */
#define PLS_ORIGINS_MAX 4096

typedef struct pls_origins {
    pls_origin **list;
    uint32_t count;
    uint32_t capacity;
} pls_origins;

/* NULL: unknown. */
pls_origin *pls_origins_find(const pls_origins *origins,
                             const uint8_t node_id[PLS_ZMQ_NODE_ID_BYTES]);
/* One with a connection on the control lane. NULL: there is none. */
pls_origin *pls_origins_at(const pls_origins *origins, const char *address, size_t address_bytes);

/* Remember who greets; a known one keeps its streams, and takes the new name and address.
 * Errors:  PLS_ENOMEM.
 *          PLS_EPERM  the node id is another key's.
 *          PLS_EFULL  all are in use. */
PLS_MUST_USE pls_err pls_origins_admit(pls_origins *origins, const pls_greeting *greeting,
                                       const uint8_t client_key[PLS_ZMQ_KEY_BYTES], uint64_t now_ns,
                                       pls_origin **origin_out);

/* Free all. None may have an inlet or a message that has begun. */
void pls_origins_fini(pls_origins *origins);

#endif
