/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PLS_TESTS_ZMQ_TRANSPORT_STRANGER_H
#define PLS_TESTS_ZMQ_TRANSPORT_STRANGER_H

#include "zmq_transport/frame.h"

/* Somebody who speaks to a node without being one: over a bare tcp connection, or with libzmq.
 * Threads: owner thread; the same for every function of this header. */

int stranger_connect(const char *endpoint);
/* Whether the other end has closed: reads what is there. */
bool stranger_is_out(int fd);

typedef struct stranger {
    void *context;
    void *socket; /* DEALER */
    pls_zmq_pair pair;
} stranger;

/* `key` of the cluster whose public key is used, NULL: no security. `routing_id` NULL: none. */
void stranger_open(stranger *s, const char *endpoint, const pls_zmq_key *key,
                   const char *routing_id);
void stranger_close(stranger *s);
void stranger_send(stranger *s, const void *bytes, size_t len, bool more);
/* The next frame's first byte, and for a refusal its reason; -1: nothing came. */
int stranger_hear(stranger *s, int limit_ms);

/* A greeting that is right in every way, to be spoilt. `proof_key`: NULL no proof; `proven_for`:
 * the client key that the proof is about. */
size_t stranger_greeting(uint8_t bytes[PLS_FRAME_GREETING_BYTES_MAX], const uint8_t *node_id,
                         pls_frame_lane lane, const pls_zmq_key *proof_key,
                         const uint8_t *proven_for);

#endif
