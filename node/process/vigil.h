/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PLS_NODE_PROCESS_VIGIL_H
#define PLS_NODE_PROCESS_VIGIL_H

#include "base/err.h"

#include <stdbool.h>
#include <stdint.h>

/* Threads that sleep on the life words of all attached processes, and tell the loop through an
 * eventfd which of them say that their process is ending, long before the pidfd can for a big one.
 * On a kernel before 5.16 nobody is watched, and the pidfd alone counts.
 * Threads: the same for every function of this header: owner thread; never blocks, but for the
 * moment in which a watching thread takes notice of a change. */

typedef struct pls_vigil pls_vigil;

/* Errors:  PLS_ENOMEM, PLS_EFDLIMIT, PLS_ESYS.
 * Owns:    gives the vigil; lends *notice_fd_out: readable when pls_vigil_next() has news. */
PLS_MUST_USE pls_err pls_vigil_create(pls_vigil **vigil_out, int *notice_fd_out);

/* Ends the threads and frees. NULL is accepted. */
void pls_vigil_destroy(pls_vigil *vigil);

/* Watches the process in a slot; without memory for a thread it is not watched.
 * Owns: borrows `life` until pls_vigil_remove(). */
void pls_vigil_add(pls_vigil *vigil, uint32_t slot, const uint8_t *life);

/* Watches it no more; `life` is not read after the return. */
void pls_vigil_remove(pls_vigil *vigil, uint32_t slot);

/* The next slot whose process is ending; false when there is none. */
bool pls_vigil_next(pls_vigil *vigil, uint32_t *slot_out);

#endif
