/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PLS_ZMQ_TRANSPORT_INLET_H
#define PLS_ZMQ_TRANSPORT_INLET_H

#include "zmq_transport/state.h"

/* The connections that others made to this node and that have greeted: each an inlet, known by the
 * number that the ROUTER gave it, one per sender and lane.
 * Threads: owner thread; never blocks; the same for every function of this header. */
typedef struct pls_inlet pls_inlet;

/* Errors:  PLS_ENOMEM. Owns: gives the inlets. */
PLS_MUST_USE pls_err pls_inlets_create(uint32_t inlets_max, pls_inlets **inlets_out);

/* End all: they are told goodbye, what has not been handed over is given up. */
void pls_inlets_close(pls_zmq *zmq);
/* After close. Owns: takes `inlets`; NULL is allowed. */
void pls_inlets_destroy(pls_inlets *inlets);

/* Receive a bounded number of frames; the inlets' part of pls_zmq_poll(). */
void pls_inlets_serve(pls_zmq *zmq);

/* Acknowledge what waited long enough; forget what is broken; close what is idle. */
void pls_inlets_tick(pls_zmq *zmq);

/* Its connection has gone; what arrived by it before may still be read. */
void pls_inlet_broken(pls_zmq *zmq, pls_inlet *inlet);

/* Send a control packet back by a connection that its node made.
 * Errors:  PLS_ENOENT  there is none from that address. PLS_EFULL. PLS_EDEAD. PLS_ENOMEM. */
PLS_MUST_USE pls_err pls_inlets_control(pls_zmq *zmq, const char *address, size_t address_bytes,
                                        const void *bytes, size_t len);

/* End the connections that come from an address, in the next tick. */
void pls_inlets_reset(pls_zmq *zmq, const char *address, size_t address_bytes);

/* Hand over what was kept for the owner, in the next tick. */
void pls_inlets_resume(pls_zmq *zmq, const uint8_t node_id[PLS_ZMQ_NODE_ID_BYTES]);

/* Connections that have greeted, and senders that are remembered, for tests. */
uint32_t pls_inlets_count(const pls_inlets *inlets);
bool pls_inlets_check(const pls_inlets *inlets);

#endif
