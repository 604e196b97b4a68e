/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PLS_ZMQ_TRANSPORT_LANE_H
#define PLS_ZMQ_TRANSPORT_LANE_H

#include "zmq_transport/state.h"

/* One connection that this node makes: a DEALER that greets, sends within the peer's window, and is
 * gone when the connection is. The next attempt is another DEALER.
 * Threads: owner thread; never blocks; the same for every function of this header. */

typedef enum pls_lane_state {
    PLS_LANE_CLOSED = 0,
    PLS_LANE_CONNECTING, /* ZeroMQ connects and shakes hands */
    PLS_LANE_KNOCKING,   /* it did not; what does the host say? */
    PLS_LANE_GREETING,   /* connected; not welcomed yet */
    PLS_LANE_OPEN
} pls_lane_state;

typedef struct pls_lane {
    pls_zmq_peer *peer;
    pls_frame_lane kind;
    pls_lane_state state;
    pls_zmq_socket *socket;
    pls_zmq_socket *monitor; /* while connecting and greeting */
    pls_zmq_source knock;
    int knock_fd;
    uint64_t due_ns;   /* CLOSED: no attempt before; OPEN: none; else: given up then */
    uint64_t retry_ns; /* the next pause between attempts */
    uint64_t used_ns;
    uint64_t sent_bytes; /* on this connection */
    uint64_t sent_frames;
    uint64_t acknowledged_bytes;
    uint64_t acknowledged_frames;
    uint32_t window_bytes;
    uint32_t window_frames;
} pls_lane;

/* Closed, with nothing to close. */
void pls_lane_init(pls_lane *lane, pls_zmq_peer *peer, pls_frame_lane kind);

/* Begin an attempt to connect. What fails is tried again later. */
void pls_lane_open(pls_lane *lane);

/* End it. `goodbye`: the peer is told, so that it takes this for no failure. */
void pls_lane_close(pls_lane *lane, bool goodbye);

/* Something waits to be sent: serve it in the next round. */
void pls_lane_nudge(pls_lane *lane);

/* Give up an attempt that takes too long; tell when that will be. */
void pls_lane_tick(pls_lane *lane);

/* Send a control frame, kind in front.
 * Errors:  PLS_EFULL  the window is used up, or the lane is not open. PLS_ENOMEM. */
PLS_MUST_USE pls_err pls_lane_send(pls_lane *lane, const void *bytes, size_t len);

#endif
