/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PLS_ZMQ_TRANSPORT_DOOR_H
#define PLS_ZMQ_TRANSPORT_DOOR_H

#include "zmq_transport/state.h"

/* Connections that were accepted: each a guest, which has to greet in time and can be shown out.
 * Threads: owner thread; never blocks; the same for every function of this header. */
typedef struct pls_guest pls_guest;
struct pls_inlet;

/* Errors:  PLS_ENOMEM. Owns: gives the door. */
PLS_MUST_USE pls_err pls_door_create(uint32_t guests_max, pls_door **door_out);
/* Owns: takes `door`; NULL is allowed. */
void pls_door_destroy(pls_door *door);

/* Read what the listener's monitor tells; the door's part of pls_zmq_poll(). */
void pls_door_serve(pls_zmq *zmq);

/* Show out who has not greeted in time. */
void pls_door_tick(pls_zmq *zmq);

/* The guest whose connection has this descriptor number, NULL if there is none.
 * Owns:    lends it until its connection has gone, which its inlet is told. */
pls_guest *pls_door_find(pls_door *door, int fd);

/* It has greeted and is served by `inlet`; NULL: it is to greet again. */
void pls_guest_serve(pls_guest *guest, struct pls_inlet *inlet, uint64_t now_ns);

/* It was refused, with an answer, and is expected to go. */
void pls_guest_refused(pls_guest *guest);

/* Whether it was shown out and has not gone yet. */
bool pls_guest_is_out(const pls_guest *guest);

/* End the connection. NULL is allowed. */
void pls_guest_kick(pls_guest *guest);

/* Where it comes from; "?" for NULL. */
const char *pls_guest_from(const pls_guest *guest);

/* Guests there are, for tests. */
uint32_t pls_door_count(const pls_door *door);

#endif
