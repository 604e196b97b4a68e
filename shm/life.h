/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PLS_SHM_LIFE_H
#define PLS_SHM_LIFE_H

#include "base/err.h"

#include <stdbool.h>
#include <stdint.h>

/* The early notice of a death: a robust futex word in the inbox header that the kernel marks when
 * the thread that holds it ends, before it takes down the memory of a big process. It only tells;
 * nothing may be reclaimed before the pidfd says so, since other threads may run a moment longer.
 */

/* Hold the word for the life of the calling thread, which should be the one that lives longest.
 * Errors:  PLS_EEXIST  held already; PLS_ENOMEM, PLS_EUNSUPPORTED.
 * Owns:    borrows `memory`, PLS_LINE_BYTES of a fresh inbox header, until pls_life_release().
 * Threads: the thread whose life it is; never blocks. */
PLS_MUST_USE pls_err pls_life_hold(uint8_t *memory);

/* Let go, before the memory is unmapped. Threads: the holding thread; never blocks. */
void pls_life_release(uint8_t *memory);

/* Whether the holder has died. False for a word that nobody ever held.
 * Threads: any process; never blocks. */
bool pls_life_ended(const uint8_t *memory);

/* Wait until the holder has died; any word of at most `count` of them ends the wait.
 * Units:   `count` 1..PLS_LIFE_WAIT_MAX; `timeout_ms` -1: no limit.
 * Errors:  PLS_ETIMEDOUT, PLS_EUNSUPPORTED (kernel before 5.16: use the pidfd alone).
 * Threads: any thread; may block `timeout_ms`. */
#define PLS_LIFE_WAIT_MAX 128
PLS_MUST_USE pls_err pls_life_wait(const uint8_t *const *memories, uint32_t count, int timeout_ms,
                                   uint32_t *index_out);

#endif
