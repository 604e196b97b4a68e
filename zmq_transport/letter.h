/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PLS_ZMQ_TRANSPORT_LETTER_H
#define PLS_ZMQ_TRANSPORT_LETTER_H

#include "zmq_transport/reactor.h"
#include "zmq_transport/transport.h"

#include <stdatomic.h>

/* One outgoing message, and the tray where those lie that are over.
 *
 * Its body may be read by ZeroMQ's thread long after the queue has done with it, so it is held once
 * by the queue and once by each chunk under way. Whoever lets go last lays it into the tray, and
 * the owner thread, woken, tells the owner: never another thread. Threads: owner thread, unless
 * said; never blocks; the same for every function of this header. */
typedef struct pls_letter pls_letter;

typedef struct pls_tray {
    _Atomic(pls_letter *) top;
    pls_zmq_reactor *reactor;
} pls_tray;

struct pls_letter {
    pls_letter *next; /* in its stream, then in the tray */
    pls_tray *tray;
    void (*settled)(void *owner, void *context, pls_zmq_fate fate);
    void *context;
    const uint8_t *body;
    uint64_t body_bytes;
    uint64_t sent_bytes; /* on this connection */
    uint64_t sequence;   /* 0: not begun on any connection */
    atomic_uint holds;
    pls_zmq_fate fate;
    uint16_t head_bytes;
    bool begun;      /* on this connection */
    uint8_t bytes[]; /* the head, and a body that was copied */
};

/* Errors:  PLS_ENOMEM. Owns: borrows as pls_zmq_send(); gives a letter, held once. */
PLS_MUST_USE pls_err pls_letter_create(pls_tray *tray, const pls_zmq_message *message,
                                       pls_letter **letter_out);

/* One more reader of the body. */
void pls_letter_hold(pls_letter *letter);

/* Owns: takes one hold. Threads: any thread. */
void pls_letter_release(pls_letter *letter);

/* What a part that was lent calls; `hint` is the letter. Threads: any thread. */
void pls_letter_read(void *bytes, void *hint);

/* Tell the owner of every letter in the tray, and free it. */
void pls_tray_empty(pls_tray *tray, void *owner);

#endif
