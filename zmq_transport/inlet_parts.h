/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PLS_ZMQ_TRANSPORT_INLET_PARTS_H
#define PLS_ZMQ_TRANSPORT_INLET_PARTS_H

#include "zmq_transport/assembly.h"
#include "zmq_transport/door.h"
#include "zmq_transport/inlet.h"
#include "zmq_transport/judge.h"

/* What inlet.c and entry.c, where greetings become inlets, share.
 * Threads: owner thread; never blocks; the same for every function of this header. */

#define PLS_ROUTE_BYTES 5 /* a number that ZeroMQ gave: a zero and 32 bits */
#define PLS_INLET_BUCKETS 512
/* Control packets under way to one node; they are acknowledged by the share alone, without a timer,
 * so that a probe is two frames and no more. */
#define PLS_CONTROL_WINDOW_BYTES 1048576
#define PLS_CONTROL_WINDOW_FRAMES 256

struct pls_inlet {
    pls_inlet *next; /* in its bucket */
    pls_origin *origin;
    pls_guest *guest; /* NULL: the connection has gone */
    pls_frame_lane lane;
    uint8_t route[PLS_ROUTE_BYTES];
    char user[PLS_ZMQ_USER_CAPACITY];
    uint64_t used_ns;
    uint64_t broken_ns;  /* 0: not broken */
    uint64_t ack_due_ns; /* 0: nothing to acknowledge */
    uint64_t held_bytes; /* of the frames in `kept` */
    uint64_t held_frames;
    uint64_t told_bytes;
    pls_ack ack;
    pls_arrived *kept_first; /* frames that the owner did not take */
    pls_arrived *kept_last;
};

struct pls_inlets {
    pls_inlet *buckets[PLS_INLET_BUCKETS];
    pls_origins origins;
    uint32_t count;
    uint32_t inlets_max;
};

/* Where the inlet with this number is, or would be. */
pls_inlet **pls_inlet_bucket(pls_inlets *inlets, const uint8_t route[PLS_ROUTE_BYTES]);

/* Send a frame back by a connection.
 * Errors:  PLS_EFULL, PLS_EDEAD as pls_zmq_socket_send(). PLS_ENOMEM. */
PLS_MUST_USE pls_err pls_inlet_route_send(pls_zmq *zmq, const uint8_t route[PLS_ROUTE_BYTES],
                                          const void *bytes, size_t len);

/* End its connection and free it; what was not handed over is given up. */
void pls_inlet_free(pls_zmq *zmq, pls_inlet *inlet);

/* A GREETING has come by a connection that has no inlet. */
void pls_entry_greeting(pls_zmq *zmq, const uint8_t route[PLS_ROUTE_BYTES],
                        const pls_zmq_part *part);

#endif
