/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PLS_NODE_PROCESS_HANDLE_H
#define PLS_NODE_PROCESS_HANDLE_H

#include "base/err.h"
#include "node/directory.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

/* Processes as the node handles them: by pidfd, never by a bare number that may have been reused.
 */

typedef struct pls_process_end {
    pls_ended_how how;
    uint32_t code;
} pls_process_end;

/* A pidfd for a child that has not been reaped, so that the number still means it.
 * Errors:  PLS_EDEAD  no such process; PLS_EFDLIMIT, PLS_ESYS.
 * Owns:    gives the descriptor. Threads: any thread; never blocks. */
PLS_MUST_USE pls_err pls_process_open(pid_t pid, int *pidfd_out);

/* Checks that a descriptor from a client is a pidfd, and tells its process's number as seen from
 * here: 0 when it lives in a namespace that this one cannot see.
 * Errors:  PLS_EPROTO  something else. Threads: any thread; never blocks. */
PLS_MUST_USE pls_err pls_process_number(int pidfd, pid_t *pid_out);

/* Whether a descriptor from a client is an eventfd. Threads: any thread; never blocks. */
bool pls_process_is_bell(int fd);

/* SIGKILL; a process that is gone already is accepted. Threads: any thread; never blocks. */
void pls_process_kill(int pidfd);

/* Whether the process has ended. Threads: any thread; never blocks. */
bool pls_process_ended(int pidfd);

/* Whether a child without threads is on its way out: its descriptors may be closed already, and its
 * pidfd not yet readable. Threads: any thread; never blocks. */
bool pls_process_exiting(pid_t pid);

/* How an ended process ended; a child is reaped by this. `pid` helps where the process is no child
 * (0: not known).
 * Threads: any thread; never blocks. */
pls_process_end pls_process_reap(int pidfd, pid_t pid);

/* Memory of a process that is its own and resident: what it shares with files and with other
 * processes through memfds does not count; 0 when it cannot be read.
 * Units:   bytes. Threads: any thread; never blocks. */
uint64_t pls_process_anonymous_bytes(pid_t pid);

/* Start time in clock ticks after boot, 0 when it cannot be read. Threads: any thread. */
uint64_t pls_process_start_ticks(pid_t pid);

/* The next ended child, left unreaped; 0 when there is none. Threads: any thread; never blocks. */
pid_t pls_process_zombie_peek(void);

/* Reaps a child by number. Threads: any thread; never blocks. */
void pls_process_zombie_reap(pid_t pid);

/* SIGKILL to every child of this process, until there is none: those that its dead workers left
 * behind are among them.
 * Units:   `timeout_ms` bounds the wait for those that the kernel takes long to end.
 * Threads: the last one; may block `timeout_ms`. */
void pls_process_children_kill(int timeout_ms);

#endif
