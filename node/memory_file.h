/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PLS_NODE_MEMORY_FILE_H
#define PLS_NODE_MEMORY_FILE_H

#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Data that is too long for a packet, on its way in a memfd: written once, then sealed, so that
 * whoever gets the descriptor may rely on its bytes. */

/* Errors:  PLS_ENOMEM, PLS_EFDLIMIT, PLS_ESYS.
 * Owns:    borrows the bytes; gives the descriptor (close-on-exec).
 * Threads: any thread; never blocks. */
PLS_MUST_USE pls_err pls_memory_file_make(const char *name, const void *bytes, size_t len,
                                          int *fd_out);

/* Whether a descriptor from elsewhere is such a file of at most `len_max` bytes.
 * Errors:  PLS_EPROTO  it is something else; PLS_ETOOBIG.
 * Threads: any thread; never blocks. */
PLS_MUST_USE pls_err pls_memory_file_measure(int fd, size_t len_max, size_t *len_out);

/* Reads all of one.
 * Errors:  as pls_memory_file_measure(); PLS_ENOMEM.
 * Owns:    borrows `fd`; gives the bytes, for free(). Threads: any thread; never blocks. */
PLS_MUST_USE pls_err pls_memory_file_read(int fd, size_t len_max, uint8_t **bytes_out,
                                          size_t *len_out);

/* Says in `trouble` that shared memory cannot be had, or (`bell`) an eventfd for its inbox, and
 * what to do where the kernel refuses it. Threads: any thread; never blocks. */
void pls_memory_trouble(pls_err err, bool bell, char *trouble);

#endif
