/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PLS_NODE_PROCESS_MEMORY_LIMIT_H
#define PLS_NODE_PROCESS_MEMORY_LIMIT_H

#include "base/err.h"
#include "node/process/client.h"
#include "node/process/loop.h"

/* Kills workers that have more memory than they may. The node looks from outside: a limit of the
 * address space (RLIMIT_AS) would count what is only reserved, and libraries reserve many times
 * what they use; a cgroup of its own for each worker needs rights that a user's program seldom has.
 * Invariant: the alarm is set only while there is a limit and a worker, so that a node without
 * either sleeps.
 * Threads: the same for every function of this header: owner thread; never blocks. */

/* How often the node looks; a worker may be over its limit for this long. */
#define PLS_MEMORY_LOOK_MS 50

typedef struct pls_memory_limit {
    pls_alarm alarm;
} pls_memory_limit;

/* A worker has begun: from now on the node looks, if it has a limit. */
void pls_memory_limit_begin(pls_node *node);

/* The node ends. */
void pls_memory_limit_end(pls_node *node);

#endif
