/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PLS_NODE_PROCESS_LIFE_WATCH_H
#define PLS_NODE_PROCESS_LIFE_WATCH_H

#include "base/err.h"
#include "shm/peer.h"

#include <stdbool.h>
#include <stdint.h>

/* A thread that sleeps on the life words of all attached processes, and tells the loop through an
 * eventfd which of them say that their process is ending, long before the pidfd can for a big one.
 * On a kernel before 5.16 nobody is watched, and the pidfd alone counts.
 * Threads: the same for every function of this header: owner thread; never blocks, or a moment. */

typedef struct pls_life_watch pls_life_watch;

/* Errors:  PLS_ENOMEM, PLS_EFDLIMIT, PLS_ESYS.
 * Owns:    gives the watch; *notice_fd_out is lent: readable when pls_life_watch_next() has news.
 */
PLS_MUST_USE pls_err pls_life_watch_create(pls_life_watch **watch_out, int *notice_fd_out);
void pls_life_watch_destroy(pls_life_watch *watch);

/* Watches a slot's process. Owns: takes a reference on `peer`. Threads: owner thread. */
void pls_life_watch_add(pls_life_watch *watch, uint32_t slot, pls_peer *peer);

/* Watches it no more. Threads: owner thread; may block a moment. */
void pls_life_watch_remove(pls_life_watch *watch, uint32_t slot);

/* The next slot whose process is ending; false when there is none. Threads: owner thread. */
bool pls_life_watch_next(pls_life_watch *watch, uint32_t *slot_out);

#endif
