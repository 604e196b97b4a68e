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
 * Totals of messages are summed up in private memory and published in bundles: see
 * PLS_OBS_BEHIND_MAX. Invariant: one writer per word; committed pages are used again, never given
 * back. */

enum pls_obs_level { PLS_OBS_OFF = 0, PLS_OBS_COUNTERS_ONLY = 1, PLS_OBS_FULL = 2 };

/* What passed between this process and one other and is not in the memory yet. */
typedef struct pls_obs_tally {
    uint32_t peer;
    uint32_t count; /* messages, both ways */
    uint64_t sent;
    uint64_t sent_bytes;
    uint64_t received;
    uint64_t received_bytes;
    uint64_t last_send_tick;
    uint64_t spins_won;
    uint64_t spins_lost;
    uint64_t spin_ticks;
} pls_obs_tally;

/* Fields are for obs_hot.h and obs.c; everybody else uses the functions. */
typedef struct pls_obs {
    unsigned level;
    pls_obs_process *process;
    _Atomic uint64_t *counters;
    pls_obs_peer *peers;
    pls_obs_thread *threads;
    pls_obs_actor *actors;
    pls_obs_method *methods;
    pls_obs_wait *waits;
    pls_obs_tally tally;
    pls_clock clock;
    struct pls_obs_books *books;
} pls_obs;

/* The part of one thread: its current call and its hot ring. Owner: that thread. */
typedef struct pls_obs_writer {
    pls_obs *obs;
    pls_obs_thread *thread; /* NULL: this thread has no record */
    pls_obs_hot_ring *ring; /* NULL: this thread records nothing */
    uint64_t head;
    uint64_t head_limit; /* first record whose page is not there yet */
} pls_obs_writer;

typedef struct pls_obs_identity {
    uint32_t slot;
    uint32_t epoch;
    uint32_t role;
    uint64_t start_time; /* of the process, in clock ticks after boot */
    unsigned level;      /* pls_obs_level wanted; lowered to counters if the clock is slow */
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

/* Put what was summed up since the last time into the memory: before a sleep, and by obs_hot.h
 * every PLS_OBS_BEHIND_MAX messages. Threads: owner thread; never blocks. */
void pls_obs_publish(pls_obs *obs);

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

/* No index: a table was full, or the level records nothing. */
#define PLS_OBS_NONE UINT32_MAX

/* Take an actor record, cleared but for the id and the names, which are offsets of
 * pls_obs_string(). The caller fills the rest through pls_obs.actors[index]. PLS_OBS_NONE if there
 * is none. Threads: owner thread; may block in the kernel. */
uint32_t pls_obs_actor_open(pls_obs *obs, uint64_t id, uint32_t class_name, uint32_t name);

/* Let the record be used again. PLS_OBS_NONE is allowed. Threads: owner thread; never blocks. */
void pls_obs_actor_close(pls_obs *obs, uint32_t index);

/* The record of a method, made on first use; PLS_OBS_NONE if there is none.
 * Units:   both names as offsets of pls_obs_string().
 * Threads: owner thread; may block in the kernel. */
uint32_t pls_obs_method_open(pls_obs *obs, uint32_t class_name, uint32_t method_name);

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

/* Enter a wait into the engine's own pending table, at every level. The handle is never 0 and names
 * this use of the entry only; its low 16 bits are the index. 0 if the table is full.
 * Owns:    borrows `start`. Threads: owner thread; may block in the kernel. */
uint64_t pls_obs_wait_open(pls_obs *obs, const pls_obs_wait_start *start);

/* Whether the handle's use is still open. Threads: owner thread; never blocks. */
bool pls_obs_wait_is_open(const pls_obs *obs, uint64_t handle);

/* End of waiting; a handle that is no longer open, or 0, is left alone.
 * Threads: owner thread; never blocks. */
void pls_obs_wait_close(pls_obs *obs, uint64_t handle);

/* What the rare ring says beside the time: meanings of a and b by kind; `text` may be 0. */
typedef struct pls_obs_event_entry {
    uint32_t kind; /* pls_obs_rare_kind */
    uint32_t text; /* offset of pls_obs_string() */
    uint64_t actor;
    uint64_t a;
    uint64_t b;
    uint64_t c;
} pls_obs_event_entry;

/* One record in the rare ring. Owns: borrows `entry`.
 * Threads: owner thread; may block in the kernel. */
void pls_obs_event(pls_obs *obs, const pls_obs_event_entry *entry);

/* Keep the text of an error, with the head of its traceback, once, and how often it came.
 * Units:   `len` in bytes, cut at PLS_OBS_ERROR_TEXT_BYTES.
 * Owns:    borrows `text`. Threads: owner thread; may block in the kernel. */
void pls_obs_error_add(pls_obs *obs, const char *text, size_t len);

/* Whether the directory and the private books agree. Threads: owner thread; never blocks. */
bool pls_obs_check(const pls_obs *obs);

/* For obs_hot.h: make the page of the writer's next record there; false if that cannot be.
 * Threads: the writer's thread; may block in the kernel. */
bool pls_obs_writer_extend(pls_obs_writer *writer);

/* The reading side: a read-only mapping with a correct first page. Everything else is checked when
 * it is asked for, since the owner may still be writing it. */
typedef struct pls_obs_reader {
    const uint8_t *base;
    uint64_t bytes;
} pls_obs_reader;

typedef struct pls_obs_section_view {
    uint32_t stride;
    uint32_t capacity;
    uint64_t used; /* not bounded by capacity: a ring's head runs free */
} pls_obs_section_view;

/* Map another process's obs memory, alive or dead.
 * Errors:  PLS_EVERSION, PLS_ECORRUPT, PLS_EPROTO, PLS_ENOMEM.
 * Owns:    borrows `fd`. Threads: any thread; may block in the kernel. */
PLS_MUST_USE pls_err pls_obs_reader_attach(int fd, pls_obs_reader *reader_out);

/* Unmap it. Threads: any thread; may block in the kernel. */
void pls_obs_reader_detach(pls_obs_reader *reader);

/* A section, checked to lie inside the mapping; NULL if there is none of this id with at least this
 * stride. `view_out` says its shape and how much is used; entries must be read at its stride.
 * Owns:    lends it until detach. Threads: any thread; never blocks. */
const void *pls_obs_reader_section(const pls_obs_reader *reader, uint32_t id, uint32_t stride_min,
                                   pls_obs_section_view *view_out);

#endif
