/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PLS_SHM_LIFE_H
#define PLS_SHM_LIFE_H

#include "base/err.h"

#include <stdbool.h>
#include <stdint.h>

/* The early notice of a death: a robust futex word in the inbox header that the kernel marks when
 * the thread that holds it ends, before it takes down the memory of a big process. It only tells;
 * nothing may be reclaimed before the pidfd says so, since other threads may run a moment longer.
 * `memory` is always the PLS_LINE_BYTES of pls_inbox_header.life, of the own inbox or of a peer's.
 * The kernel wakes one waiter of a word: the node process. */

/* Hold a fresh word for the life of the calling thread, which should be the one that lives longest.
 * A thread may hold any number.
 * Errors:  PLS_EEXIST  held or used before; PLS_ENOMEM; PLS_EUNSUPPORTED.
 * Owns:    borrows `memory` until pls_life_release().
 * Threads: the thread whose life it is; never blocks. */
PLS_MUST_USE pls_err pls_life_hold(uint8_t *memory);

/* Let go in good order, which must happen before the memory is unmapped. A word that is not held is
 * left alone. Threads: the holding thread; never blocks. */
void pls_life_release(uint8_t *memory);

/* What another thread of the holder's process does where pls_life_release() would be due: says that
 * the process has left in good order. The word stays held and `memory` mapped until the holding
 * thread releases it. Threads: any thread; never blocks. */
void pls_life_leave(uint8_t *memory);

/* Whether the holder ended without having let go or left. Threads: any process; never blocks. */
bool pls_life_ended(const uint8_t *memory);

#define PLS_LIFE_WAIT_MAX 127

/* What to wait for: any of the words that are held, and the caller's own interrupt. */
typedef struct pls_life_watch {
    const uint8_t *const *memories;
    uint32_t count;
    const _Atomic uint32_t *interrupt; /* NULL: none */
    uint32_t interrupt_value;          /* the wait ends when the word is no longer this */
} pls_life_watch;

/* Wait until a holder has ended or let go: pls_life_ended() tells which. Words that nobody holds
 * yet are not waited for. Units:   `watch->count` 0..PLS_LIFE_WAIT_MAX; `timeout_ms` -1: no limit.
 * Errors:  PLS_ETIMEDOUT; PLS_EEMPTY  interrupted; PLS_EUNSUPPORTED  kernel before 5.16 or a system
 *          call filter: use the pidfd alone.
 * Owns:    borrows `watch`. Threads: any thread; may block `timeout_ms`. */
PLS_MUST_USE pls_err pls_life_wait(const pls_life_watch *watch, int timeout_ms,
                                   uint32_t *index_out);

/* Change an interrupt word and end the wait that watches it. Threads: any thread; never blocks. */
void pls_life_interrupt(_Atomic uint32_t *word);

#endif
