/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PLS_NODE_PROCESS_LOOP_H
#define PLS_NODE_PROCESS_LOOP_H

#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The node's one event loop: descriptors and alarms. With no alarm set it sleeps without limit, so
 * that an idle node costs nothing. All calls are for the owner thread.
 * Invariant: every watched descriptor is open; alarms form a heap ordered by `due_ns`.
 * Threads: the same for every function of this header: owner thread; never blocks,
 * unless said. */

typedef struct pls_watch {
    int fd; /* -1: not watched */
    void (*ready)(struct pls_watch *watch, uint32_t events);
    void *owner;
} pls_watch;

typedef struct pls_alarm {
    uint64_t due_ns;
    size_t place; /* in the heap, from 1; 0: not set */
    void (*ring)(struct pls_alarm *alarm);
    void *owner;
} pls_alarm;

typedef struct pls_loop pls_loop;

/* Errors:  PLS_ENOMEM, PLS_EFDLIMIT, PLS_ESYS. Owns: gives the loop. */
PLS_MUST_USE pls_err pls_loop_create(pls_loop **loop_out);

/* Frees it; nothing is watched any more. NULL is accepted. */
void pls_loop_destroy(pls_loop *loop);

/* Watches `fd` for `events` (EPOLLIN, EPOLLOUT; a hang-up is always told).
 * Errors:  PLS_ENOMEM, PLS_ESYS; nothing is watched then.
 * Owns:    borrows both until pls_loop_unwatch(). Threads: owner thread; never blocks. */
PLS_MUST_USE pls_err pls_loop_watch(pls_loop *loop, pls_watch *watch, int fd, uint32_t events);

/* Changes what is watched for. Threads: owner thread; never blocks. */
void pls_loop_rewatch(pls_loop *loop, pls_watch *watch, uint32_t events);

/* Stops watching and gives the descriptor back (-1 if none); no call comes any more, not even from
 * the batch being served. Threads: owner thread; never blocks. */
int pls_loop_unwatch(pls_loop *loop, pls_watch *watch);

/* Sets an alarm, or sets it anew; it rings once.
 * Errors:  PLS_ENOMEM  it is not set. Threads: owner thread; never blocks. */
PLS_MUST_USE pls_err pls_loop_alarm(pls_loop *loop, pls_alarm *alarm, uint64_t due_ns);

/* Takes an alarm back; one that is not set is accepted. Threads: owner thread; never blocks. */
void pls_loop_alarm_clear(pls_loop *loop, pls_alarm *alarm);

/* Frees memory that holds watches, when the batch being served is over.
 * Owns: takes `memory`. Threads: owner thread; never blocks. */
void pls_loop_free_later(pls_loop *loop, void *memory);

/* Serves until pls_loop_stop(). Threads: owner thread; may block without limit. */
void pls_loop_run(pls_loop *loop);
void pls_loop_stop(pls_loop *loop);

/* CLOCK_MONOTONIC. Threads: any thread; never blocks. */
uint64_t pls_loop_now_ns(void);

#define PLS_NS_PER_MS 1000000ull

#endif
