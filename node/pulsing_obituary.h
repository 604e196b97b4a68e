/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PULSING_OBITUARY_H
#define PULSING_OBITUARY_H

#include "node/directory.h"
#include "node/pulsing_types.h"

/* What can be known of another process after its death: how it ended, what it was doing, and what
 * it printed last. */

#define PULSING_OBITUARY_RUNS_MAX 64
#define PULSING_OBITUARY_NAME_BYTES 128
#define PULSING_OBITUARY_OUTPUT_BYTES 4096

/* A method that had been started and not ended. */
typedef struct pulsing_obituary_run {
    uint64_t actor_id;
    bool on_stack; /* it had the thread; else it was suspended */
    char method[PULSING_OBITUARY_NAME_BYTES];
} pulsing_obituary_run;

typedef struct pulsing_obituary {
    pls_death death;
    uint32_t run_count;
    uint32_t output_bytes;
    pulsing_obituary_run runs[PULSING_OBITUARY_RUNS_MAX];
    char output[PULSING_OBITUARY_OUTPUT_BYTES]; /* whole lines, the last ones */
} pulsing_obituary;

/* How a process ended, or that it is ending (`state` PLS_SLOT_DYING): what the directory says, and
 * what it said when this process learned of the death, until the slot's next one.
 * Errors:  PLS_ENOENT  it lives, or nothing is known (any more).
 * Threads: owner thread; never blocks. */
PLS_MUST_USE pls_err pulsing_death_get(const pulsing *p, uint32_t slot, uint32_t epoch,
                                       pls_death *death_out);

/* The same for people: "worker 2 died (pid 4711, SIGKILL)".
 * Threads: owner thread; never blocks. */
void pulsing_death_words(const pulsing *p, uint32_t slot, uint32_t epoch, char *text,
                         size_t capacity);

/* Learns it from the node, which keeps the last 64 outputs and the last 8 obs memories of the dead.
 * What is not to be had stays empty.
 * Errors:  as pulsing_death_get().
 * Threads: owner thread; may block 5 s if the node hangs. */
PLS_MUST_USE pls_err pulsing_obituary_get(pulsing *p, uint32_t slot, uint32_t epoch,
                                          pulsing_obituary *obituary_out);

#endif
