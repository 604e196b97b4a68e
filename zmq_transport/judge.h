/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PLS_ZMQ_TRANSPORT_JUDGE_H
#define PLS_ZMQ_TRANSPORT_JUDGE_H

#include "zmq_transport/state.h"

/* Who may enter.
 * Threads: owner thread; never blocks; the same for every function of this header. */

/* What a connection's user id is: its client key in hexadecimal digits, and a zero. */
#define PLS_ZMQ_USER_CAPACITY (2 * PLS_ZMQ_KEY_BYTES + 1)

/* Answer ZeroMQ's questions; the doorman's part of pls_zmq_poll(). */
void pls_doorman_serve(pls_zmq *zmq);

/* Whether a greeting is welcome, and the client key that its connection has shown.
 * Units:   `bytes` the frame that `greeting` was read from; `user` as the doorman named it.
 * Errors:  0 welcome; else why not. */
PLS_MUST_USE unsigned pls_judge_greeting(const pls_zmq *zmq, const pls_greeting *greeting,
                                         const void *bytes, const char *user,
                                         uint8_t client_key_out[PLS_ZMQ_KEY_BYTES]);

/* The count for a reason to refuse. */
pls_zmq_away pls_judge_away(unsigned reason);

/* The greeting of this node, with its proof. Returns its length. */
size_t pls_judge_introduce(const pls_zmq *zmq, pls_frame_lane lane, uint64_t target_generation,
                           uint8_t bytes[PLS_FRAME_GREETING_BYTES_MAX]);

#endif
