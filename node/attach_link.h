/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PLS_NODE_ATTACH_LINK_H
#define PLS_NODE_ATTACH_LINK_H

#include "node/attach.h"
#include "node/control.h"
#include "node/packet_queue.h"

#include <sys/types.h>

/* The inside of pls_attach that attach.c (life cycle and events) shares with attach_calls.c (calls
 * that wait) and requests.c (requests that do not).
 * Threads: the same for every function of this header: owner thread; never blocks, unless said. */

/* Copies of asynchronous packets that wait for the node's socket: a burst of spawns fits, a node
 * that hangs does not make its clients grow. */
#define PLS_ATTACH_OUT_BYTES_MAX (64u << 20)

typedef struct pls_life_holder pls_life_holder;

struct pls_attach {
    int fd;
    pid_t pid; /* that attached; a forked child has another */
    bool closed;
    uint32_t request_last;
    pls_attach_info info;
    char name[PLS_NAME_BYTES_MAX + 1];
    char trouble[PLS_TROUBLE_BYTES_MAX];
    pls_packet_queue outgoing;
    pls_packet_queue incoming; /* events that arrived during a call that waits */
    uint8_t *bytes;            /* one received packet, whose strings are lent */
    uint8_t *large;            /* data of the last event that came in a memfd */
    pls_life_holder *life;
    void (*on_kept)(void *context);
    void *on_kept_context;
};

/* Sends now or queues; what is queued goes before what is sent later.
 * Errors:  PLS_EFULL, PLS_ENOMEM, PLS_ECLOSED, PLS_EFORKED. The descriptors stay the caller's.
 * Threads: owner thread; never blocks. */
PLS_MUST_USE pls_err pls_attach_send(pls_attach *attach, const pls_control_packet *packet);

/* Numbers a request, sends or queues it. Errors and threads as pls_attach_send(). */
PLS_MUST_USE pls_err pls_attach_request(pls_attach *attach, pls_control_packet *packet,
                                        uint32_t *request_out);

/* Sends a request and waits for its reply; other packets go to `incoming`.
 * Errors:  the reply's own; PLS_ETIMEDOUT, PLS_ECLOSED, PLS_EPROTO, PLS_EFORKED. Text in `trouble`.
 * Owns:    the reply lends its strings from `attach->bytes`; gives its descriptors.
 * Threads: owner thread; may block 5 s. */
PLS_MUST_USE pls_err pls_attach_call(pls_attach *attach, pls_control_packet *packet,
                                     uint16_t reply_type, pls_control_packet *reply_out);

/* Sends and returns only when the packet is in the socket. Errors and threads as pls_attach_call().
 */
PLS_MUST_USE pls_err pls_attach_send_waiting(pls_attach *attach, const pls_control_packet *packet);

/* Says why, for people, and passes the error on. */
pls_err pls_attach_fail(pls_attach *attach, pls_err err, const char *doing);

/* The thread whose end tells the node of this process's end. The main thread holds the word itself.
 * Errors:  PLS_ENOMEM, PLS_EUNSUPPORTED and what pls_life_hold() returns.
 * Owns:    borrows `memory` until destroy. Threads: owner thread; may block a moment. */
PLS_MUST_USE pls_err pls_life_holder_create(uint8_t *memory, pls_life_holder **holder_out);

/* Lets go; false: that is the main thread's to do, and this is another one. What is held then stays
 * so, and its inbox has to go to pls_attach_inbox_keep(). NULL is accepted.
 * Threads: any thread, where nobody else has the holder; may block a moment. */
bool pls_life_holder_destroy(pls_life_holder *holder);

#endif
