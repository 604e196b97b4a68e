/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PLS_NODE_PROCESS_OUTPUT_H
#define PLS_NODE_PROCESS_OUTPUT_H

#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* What workers print: read from their pipes and written, whole lines with a prefix, to the node's
 * own standard output and error. A thread does it, because that output may block for as long as
 * its reader likes; then workers that print too much wait, and the node's loop does not.
 * Invariant: the thread never holds the lock while it writes. */

#define PLS_OUTPUT_TAIL_LINES_MAX 40
#define PLS_OUTPUT_LINE_BYTES_MAX 8192
#define PLS_OUTPUT_TAIL_BYTES_MAX 16384
#define PLS_OUTPUT_SOURCES_MAX 1024
#define PLS_OUTPUT_LABEL_BYTES_MAX 64

typedef struct pls_output pls_output;

/* Starts the thread. `plain`: no prefix.
 * Errors:  PLS_ENOMEM, PLS_EFDLIMIT, PLS_ESYS.
 * Owns:    gives the output. Threads: owner thread; never blocks. */
PLS_MUST_USE pls_err pls_output_create(bool plain, pls_output **output_out);

/* Forwards what is still in the pipes, for `timeout_ms` at the most, and ends the thread; if the
 * reader of our output blocks longer, the thread is left to the end of the process.
 * Threads: owner thread; may block `timeout_ms`. */
void pls_output_destroy(pls_output *output, int timeout_ms);

/* Begins to read a process's standard output and error.
 * Errors:  PLS_EFULL, PLS_ENOMEM, PLS_ESYS; the descriptors are then still the caller's.
 * Owns:    takes the descriptors (non-blocking read ends); gives a source by its number.
 * Threads: any thread; never blocks. */
PLS_MUST_USE pls_err pls_output_add(pls_output *output, int out_fd, int err_fd, const char *label,
                                    uint32_t *source_out);

/* The last lines of a source, after taking in what its pipes hold now.
 * Units:   `capacity` in bytes; the result is the length, the oldest lines left out.
 * Threads: any thread; never blocks. */
size_t pls_output_tail(pls_output *output, uint32_t source, char *text, size_t capacity);

/* Forgets a source. What its pipes still hold is forwarded first; what children of the process hold
 * open is read no more.
 * Threads: any thread; never blocks. */
void pls_output_remove(pls_output *output, uint32_t source);

/* A line of the node's own, to standard error. Threads: any thread; never blocks. */
void pls_output_note(pls_output *output, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

#endif
