/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PLS_NODE_PROCESS_TAIL_H
#define PLS_NODE_PROCESS_TAIL_H

#include "node/process/output.h"

/* The last lines of one process, bounded in lines and in bytes. Pure bookkeeping.
 * Threads: whoever holds the lock around it; never blocks, for every function of this header. */

typedef struct pls_tail {
    char *lines[PLS_OUTPUT_TAIL_LINES_MAX]; /* from the heap; a ring */
    uint16_t bytes[PLS_OUTPUT_TAIL_LINES_MAX];
    uint32_t first;
    uint32_t count;
} pls_tail;

/* Keeps a copy of a line (without its end); longer than PLS_OUTPUT_LINE_BYTES_MAX is cut, and
 * without memory it is left out. */
void pls_tail_add(pls_tail *tail, const char *line, size_t len);

/* Joins the last lines that fit; the result is the length. */
size_t pls_tail_text(const pls_tail *tail, char *text, size_t capacity);

/* Frees all lines; it is empty then. */
void pls_tail_fini(pls_tail *tail);

#endif
