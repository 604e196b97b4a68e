/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PLS_ZMQ_TRANSPORT_ADDRESS_H
#define PLS_ZMQ_TRANSPORT_ADDRESS_H

#include "base/err.h"

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

/* Addresses as nodes spell them, "tcp://10.0.0.7:7100", and as the kernel has them.
 * Threads: any thread; never blocks; the same for every function of this header. */

typedef struct pls_zmq_place {
    struct sockaddr_storage address;
    socklen_t len;
    in_port_t port;
    bool wildcard; /* every interface */
} pls_zmq_place;

/* Read a numeric address; a port of 0 is accepted.
 * Errors:  PLS_EINVAL  anything else. */
PLS_MUST_USE pls_err pls_zmq_place_parse(const char *text, size_t len, pls_zmq_place *place_out);

/* The other end of a socket, "10.0.0.7:40404", for people; "?" when there is none. */
void pls_zmq_place_peer(int fd, char *text, size_t capacity);

/* This end's address without the port, "" when there is none. */
void pls_zmq_place_local(int fd, char *text, size_t capacity);

/* Whether `fd` is a tcp socket, connected, with this end's port among `ports`. */
bool pls_zmq_place_is_ours(int fd, const in_port_t *ports, size_t port_count);

/* Begin to connect, without a wait, to find out what the host answers.
 * Errors:  PLS_EFDLIMIT, PLS_ESYS; PLS_EDEAD it answered at once that nobody listens.
 * Owns:    gives `fd_out`, to be closed; writable when the answer is there. */
PLS_MUST_USE pls_err pls_zmq_knock(const pls_zmq_place *place, int *fd_out);

/* The answer to a knock.
 * Errors:  PLS_EDEAD  nobody listens there. PLS_EEMPTY  none yet. PLS_ESYS  anything else. */
PLS_MUST_USE pls_err pls_zmq_knock_answer(int fd);

#endif
