/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PLS_SHM_OBS_H
#define PLS_SHM_OBS_H

#include "base/err.h"
#include "shm/clock.h"
#include "shm/obs_layout.h"
#include "shm/obs_tables.h"
#include "shm/obs_trail.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The writing side of this process's obs memory: what an inspector can read at any moment, also
 * while the process hangs and after it was killed. Tables that are full count an overflow and
 * forget; nothing here ever fails a message. The functions of the hot path are in obs_hot.h.
 * Invariant: one writer per word; committed pages are used again, never given back. */

enum pls_obs_level { PLS_OBS_OFF = 0, PLS_OBS_COUNTERS_ONLY = 1, PLS_OBS_FULL = 2 };

/* Fields are for obs_hot.h and obs.c; everybody else uses the functions. */
typedef struct pls_obs {
    unsigned level;
    int fd;
    uint8_t *base;
    pls_obs_process *process;
    _Atomic uint64_t *counters;
    pls_obs_peer *peers;
    pls_obs_thread *threads;
    pls_obs_actor *actors;
    pls_obs_method *methods;
    pls_obs_wait *waits;
    pls_clock clock;
    struct pls_obs_books *books;
} pls_obs;

/* The part of one thread: its current call and its hot ring. Owner: that thread. */
typedef struct pls_obs_writer {
    pls_obs *obs;
    pls_obs_thread *thread;
    pls_obs_hot_ring *ring; /* NULL: this thread records nothing */
    uint64_t head;
} pls_obs_writer;

typedef struct pls_obs_identity {
    uint32_t slot;
    uint32_t epoch;
    uint32_t role;
    unsigned level; /* pls_obs_level wanted; lowered to counters if the clock is slow */
    const char *version;
} pls_obs_identity;

/* Make the obs memory of this process, sealed against any writer but this mapping. Calibrates the
 * clock.
 * Errors:  PLS_ENOMEM, PLS_EFDLIMIT, PLS_EUNSUPPORTED, PLS_ESYS.
 * Owns:    borrows `identity`; gives `obs_out`.
 * Threads: owner thread; may block 10 ms. */
PLS_MUST_USE pls_err pls_obs_create(const pls_obs_identity *identity, pls_obs **obs_out);

/* Unmap and close. NULL is allowed. Threads: owner thread; may block in the kernel. */
void pls_obs_destroy(pls_obs *obs);

/* Lend the descriptor for the node and for inspectors, until destroy; it can only be mapped for
 * reading. Threads: owner thread; never blocks. */
int pls_obs_fd(const pls_obs *obs);

/* Anchor the clock again and publish it; about once a second.
 * Threads: owner thread; never blocks. */
void pls_obs_anchor(pls_obs *obs);

/* What the process does, of enum pls_obs_state. Threads: any thread; never blocks. */
void pls_obs_state_set(pls_obs *obs, uint32_t state);

/* Give the calling thread a current-call record, and a hot ring if `hot` and one is left.
 * Errors:  PLS_EFULL  all are taken; `writer_out` is valid and records nothing. PLS_ENOMEM.
 * Threads: any thread, one call at a time by the caller's care; may block in the kernel. */
PLS_MUST_USE pls_err pls_obs_writer_open(pls_obs *obs, bool hot, pls_obs_writer *writer_out);

/* Give the thread's records back for another thread. Threads: the writer's thread; never blocks. */
void pls_obs_writer_close(pls_obs_writer *writer);

/* Store a text for inspectors and get its offset; equal texts are stored once. 0 if there is no
 * room or the text is empty.
 * Units:   `len` in bytes, cut at PLS_NAME_BYTES_MAX.
 * Threads: owner thread; may block in the kernel. */
uint32_t pls_obs_string(pls_obs *obs, const char *text, size_t len);

/* Take an actor record; fill it through pls_obs.actors[index]; close makes it reusable.
 * Returns PLS_OBS_NONE when full. Threads: owner thread; may block in the kernel. */
#define PLS_OBS_NONE UINT32_MAX
uint32_t pls_obs_actor_open(pls_obs *obs, uint64_t id, uint32_t class_name, uint32_t name);
void pls_obs_actor_close(pls_obs *obs, uint32_t index);

/* The record of a method, made on first use; PLS_OBS_NONE when full.
 * Units:   both names as offsets of pls_obs_string(). Threads: owner thread; may block. */
uint32_t pls_obs_method_open(pls_obs *obs, uint32_t class_name, uint32_t method_name);

/* The engine's pending table. Open returns a handle that is never 0 and names this use of the entry
 * only, or 0 when the table is full; index = low 16 bits. Works at every level.
 * Threads: owner thread; may block in the kernel. */
typedef struct pls_obs_wait_start {
    uint16_t kind; /* pls_obs_wait_kind */
    uint16_t method;
    uint32_t target_slot;
    uint64_t waiter;
    uint64_t target_node;
    uint64_t target;
    uint64_t start_tick;
    uint64_t deadline_tick;
} pls_obs_wait_start;
uint64_t pls_obs_wait_open(pls_obs *obs, const pls_obs_wait_start *start);

/* Whether the handle's use is still open. Threads: owner thread; never blocks. */
bool pls_obs_wait_is_open(const pls_obs *obs, uint64_t handle);

/* End of waiting; a handle that is no longer open, or 0, is left alone.
 * Threads: owner thread; never blocks. */
void pls_obs_wait_close(pls_obs *obs, uint64_t handle);

/* One record in the rare ring; `text` may be 0. Threads: owner thread; never blocks. */
void pls_obs_event(pls_obs *obs, uint32_t kind, uint64_t actor, uint32_t text, uint64_t a,
                   uint64_t b, uint64_t c);

/* Count an error; its text and head of traceback are kept once.
 * Threads: owner thread; never blocks. */
void pls_obs_error_add(pls_obs *obs, const char *text, size_t len);

/* Whether the directory and the private books agree. Threads: owner thread; never blocks. */
bool pls_obs_check(const pls_obs *obs);

/* The reading side: a read-only mapping whose directory has been checked against its size. */
typedef struct pls_obs_reader {
    const uint8_t *base;
    uint64_t bytes;
} pls_obs_reader;

/* Errors:  PLS_EVERSION, PLS_ECORRUPT, PLS_EPROTO, PLS_ENOMEM.
 * Owns:    borrows `fd`. Threads: any thread; may block in the kernel. */
PLS_MUST_USE pls_err pls_obs_reader_attach(int fd, pls_obs_reader *reader_out);
void pls_obs_reader_detach(pls_obs_reader *reader);

/* Lends a section and its size, or NULL if it has none of this id with at least this stride.
 * Threads: any thread; never blocks. */
const void *pls_obs_reader_section(const pls_obs_reader *reader, uint32_t id, uint32_t stride_min,
                                   const pls_obs_directory_entry **entry_out);

#endif
