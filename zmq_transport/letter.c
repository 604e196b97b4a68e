/* SPDX-License-Identifier: Apache-2.0 */
/* Holds are an atomic count; the tray is a stack that many threads push and the owner takes whole,
 * so no letter is ever compared with one that was freed meanwhile. Called by the queue, and by
 * ZeroMQ's thread through pls_letter_read(). */
#include "zmq_transport/letter.h"

#include "base/assert.h"

#include <stdlib.h>

pls_err pls_letter_create(pls_tray *tray, const pls_zmq_message *message, pls_letter **letter_out)
{
    size_t copied_bytes = message->copy ? (size_t)message->body_bytes : 0;
    pls_letter *letter = malloc(sizeof *letter + message->head_bytes + copied_bytes);
    if (letter == NULL) {
        return PLS_ENOMEM;
    }
    /* Not by one assignment: `holds` is only ever touched atomically, since another thread's first
     * touch of the letter is of it. */
    letter->next = NULL;
    letter->tray = tray;
    letter->settled = message->settled;
    letter->context = message->context;
    letter->body = message->body;
    letter->body_bytes = message->body_bytes;
    letter->sent_bytes = 0;
    letter->sequence = 0;
    letter->fate = PLS_ZMQ_UNSENT;
    letter->head_bytes = message->head_bytes;
    letter->begun = false;
    atomic_store_explicit(&letter->holds, 1, memory_order_relaxed);
    if (message->head_bytes > 0) {
        memcpy(letter->bytes, message->head, message->head_bytes);
    }
    if (copied_bytes > 0) {
        letter->body = letter->bytes + message->head_bytes;
        memcpy(letter->bytes + message->head_bytes, message->body, copied_bytes);
    }
    *letter_out = letter;
    return PLS_OK;
}

void pls_letter_hold(pls_letter *letter)
{
    /* Release: pairs with the acquire in pls_letter_release() by the thread that gets this hold; so
     * nothing rests on how ZeroMQ hands a message over. */
    unsigned before = atomic_fetch_add_explicit(&letter->holds, 1, memory_order_release);
    pls_assert(before > 0);
}

void pls_letter_release(pls_letter *letter)
{
    /* Pairs with itself: what every other holder did to the letter is seen by the last one. */
    if (atomic_fetch_sub_explicit(&letter->holds, 1, memory_order_acq_rel) != 1) {
        return;
    }
    pls_tray *tray = letter->tray;
    pls_letter *top = atomic_load_explicit(&tray->top, memory_order_relaxed);
    do {
        letter->next = top;
        /* Release: pairs with the owner's acquire when it takes the stack. */
    } while (!atomic_compare_exchange_weak_explicit(&tray->top, &top, letter, memory_order_release,
                                                    memory_order_relaxed));
    if (top == NULL) {
        pls_zmq_reactor_wake(tray->reactor);
    }
}

void pls_letter_read(void *bytes, void *hint)
{
    pls_letter_release(hint);
}

void pls_tray_empty(pls_tray *tray, void *owner)
{
    /* Acquire: pairs with the release of whoever pushed. */
    pls_letter *letter = atomic_exchange_explicit(&tray->top, NULL, memory_order_acquire);
    pls_letter *oldest = NULL;
    while (letter != NULL) {
        pls_letter *next = letter->next;
        letter->next = oldest;
        oldest = letter;
        letter = next;
    }
    while (oldest != NULL) {
        pls_letter *next = oldest->next;
        if (oldest->settled != NULL) {
            oldest->settled(owner, oldest->context, oldest->fate);
        }
        free(oldest);
        oldest = next;
    }
}
