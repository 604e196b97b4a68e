/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PLS_NODE_PROCESS_SEGMENTS_H
#define PLS_NODE_PROCESS_SEGMENTS_H

#include "base/err.h"

#include <stdint.h>

/* The payload segments that one process has registered: id to descriptor, in the order of ids.
 * Threads: the same for every function of this header: owner thread; never blocks. */

/* Per process; with the descriptor limit of the node they are also bounded together. */
#define PLS_SEGMENTS_MAX 65536

typedef struct pls_segment_entry {
    uint32_t id;
    int fd;
} pls_segment_entry;

typedef struct pls_segments {
    pls_segment_entry *entries;
    uint32_t count;
    uint32_t room;
} pls_segments;

/* Keeps a segment; one with the same id is replaced.
 * Errors:  PLS_EFULL, PLS_ENOMEM; the descriptor is then still the caller's.
 * Owns:    takes `fd`. Threads: owner thread; never blocks. */
PLS_MUST_USE pls_err pls_segments_put(pls_segments *segments, uint32_t id, int fd);

/* The descriptor, or -1. Owns: lends it until the entry goes. Threads: owner thread. */
int pls_segments_get(const pls_segments *segments, uint32_t id);

/* Closes and forgets one; an unknown id is accepted. Threads: owner thread; never blocks. */
void pls_segments_remove(pls_segments *segments, uint32_t id);

/* Closes and forgets all. Threads: owner thread; never blocks. */
void pls_segments_fini(pls_segments *segments);

#endif
