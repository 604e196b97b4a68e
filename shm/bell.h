/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PLS_SHM_BELL_H
#define PLS_SHM_BELL_H

#include "base/err.h"
#include "shm/layout.h"

#include <stdbool.h>
#include <stdint.h>

/* The doorbell of an inbox: bitmaps that say what there is, and the wake word with its eventfd for
 * an owner that sleeps. Inner to this room.
 * Invariant: whoever publishes something, then sets its bit, then signals if the wake word is
 * armed, and an owner that arms, then looks at every bit, then sleeps, never miss each other. */

/* The owner's private half of the wake word. */
typedef struct pls_bell_owner {
    pls_inbox_header *header;
    int eventfd;
    uint64_t epoch; /* the last armed value, odd; or the value before the first, even */
    bool armed;
} pls_bell_owner;

/* Make the eventfd.
 * Errors:  PLS_EFDLIMIT, PLS_ENOMEM, PLS_ESYS. Owns: gives `eventfd_out`, non-blocking,
 * close-on-exec. Threads: any thread; never blocks. */
PLS_MUST_USE pls_err pls_bell_eventfd(int *eventfd_out);

/* After a full fence or a store that needs none: wake the owner if it is armed. Returns true if it
 * was. Threads: any process; never blocks. */
bool pls_bell_signal(pls_inbox_header *header, int eventfd);

/* Everything stored before is seen by the owner once it sees the bit: fence, set the bit of `slot`
 * in `words`, signal. Returns true if the owner was signalled.
 * Threads: any process; never blocks. */
bool pls_bell_ring(pls_inbox_header *header, pls_line *words, uint32_t slot, int eventfd);

/* Move the bits of `words` into `into`, leaving a word alone that holds nothing but bits of `leave`
 * (may be NULL). True if any word was taken; then what was stored before those bits can be seen.
 * Threads: owner thread; never blocks. */
bool pls_bell_take(pls_line *words, const pls_bitmap *leave, pls_bitmap *into);

/* Whether any bit is set, or any but those of `leave`. Threads: owner thread; never blocks. */
bool pls_bell_any(const pls_line *words, const pls_bitmap *leave);

/* Say that the owner is about to sleep; everything must be looked at after this.
 * Threads: owner thread; never blocks. */
void pls_bell_arm(pls_bell_owner *owner);

/* The owner is awake. Empties the eventfd if `readable` or if somebody has signalled since arming.
 * Returns true if it was emptied of something. Threads: owner thread; never blocks. */
bool pls_bell_disarm(pls_bell_owner *owner, bool readable);

/* Whether nobody has finished a signal since arming, even after waiting for one.
 * Threads: owner thread; may block `timeout_ms`. */
bool pls_bell_is_silent(const pls_bell_owner *owner, int timeout_ms);

#endif
