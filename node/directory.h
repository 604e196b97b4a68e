/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PLS_NODE_DIRECTORY_H
#define PLS_NODE_DIRECTORY_H

#include "base/err.h"
#include "base/limits.h"
#include "shm/layout.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* One line per slot in a sealed memfd that every attached process maps read-write: facts that the
 * node alone writes, and hints that the process in the slot writes about itself.
 *
 * Invariant: the node stores everything else in a line, `ended` included, before it stores `life`
 * (release); whoever loads `life` (acquire) and finds the epoch that he asked for may read the
 * rest. A slot keeps its epoch through ALIVE, DYING and DEAD until every process that was attached
 * at the death has acknowledged it; only then does the epoch grow. What another process wrote here
 * is a hint: the node keeps its own books and believes nothing that it reads back.
 * Threads: the same for every function of this header: any thread; never blocks. */

#define PLS_DIRECTORY_MAGIC 0x31524944534c5550ull /* "PULSDIR1" */
#define PLS_DIRECTORY_VERSION 3
#define PLS_DIRECTORY_HEADER_BYTES 4096
#define PLS_NODE_ID_BYTES 16
#define PLS_NODE_SLOT 0

typedef enum pls_slot_state {
    PLS_SLOT_FREE = 0,
    PLS_SLOT_STARTING = 1, /* greeted, but its inbox is not there yet */
    PLS_SLOT_ALIVE = 2,
    PLS_SLOT_DYING = 3, /* will not run again, but its memory may still be written: fail calls now,
                           free nothing */
    PLS_SLOT_DEAD = 4,  /* confirmed by the kernel: drain, free, acknowledge */
} pls_slot_state;

typedef enum pls_role {
    PLS_ROLE_NODE = 0,
    PLS_ROLE_HOST = 1,   /* the user's program, or any process that attached by itself */
    PLS_ROLE_WORKER = 2, /* forked from the template */
    PLS_ROLE_INSPECTOR = 3,
} pls_role;

typedef enum pls_ended_how {
    PLS_ENDED_NOT = 0,
    PLS_ENDED_EXIT = 1,     /* `code` is the exit code */
    PLS_ENDED_SIGNAL = 2,   /* `code` is the signal */
    PLS_ENDED_DETACHED = 3, /* left in order and lives on */
    PLS_ENDED_UNKNOWN = 4,  /* gone, but not our child: the kernel told no code */
} pls_ended_how;

#define PLS_ENDED_HINT_OOM 1u      /* the kernel counted an OOM kill on this host meanwhile */
#define PLS_ENDED_HINT_STOP 2u     /* the node itself asked for this end */
#define PLS_ENDED_HINT_MEMORY 4u   /* it went over its memory limit, and the node killed it */
#define PLS_ENDED_HINT_RECYCLED 8u /* a worker that made room for a fresh one */

/* A worker's index when it is not one of the numbered workers. */
#define PLS_WORKER_INDEX_NONE 0xffffffffu

typedef struct pls_directory_line {
    _Atomic uint32_t life;          /* state in bits 0..7, epoch in bits 8..31 */
    _Atomic uint32_t role;          /* pls_role */
    _Atomic uint32_t worker_index;  /* PLS_WORKER_INDEX_NONE: dedicated, or not a worker */
    _Atomic uint32_t pid;           /* as the node sees it */
    _Atomic uint64_t started_ticks; /* start time of /proc/PID/stat; 0: not known */
    _Atomic uint64_t ended;         /* how in bits 0..7, hints in bits 8..15, code in bits 32..63 */
    _Atomic uint64_t ended_ns;      /* CLOCK_MONOTONIC when the node saw the end */
    uint64_t node_reserved[2];
    _Atomic uint32_t actor_count; /* from here on the process itself is the one writer */
    _Atomic uint32_t queued_count;
    _Atomic uint64_t arena_bytes;
    _Atomic uint32_t awake; /* 1 while it runs and may answer soon, 0 once it goes to sleep */
    _Atomic uint32_t resident_mib; /* memory of the process, now and then: how long its end takes */
    _Atomic uint64_t held_since_ns; /* CLOCK_MONOTONIC since when a handler keeps its thread; 0 */
    _Atomic uint32_t serves;        /* 1: it answers other nodes for actors of this one */
    uint32_t owner_padding;
    uint64_t owner_reserved[4];
} pls_directory_line;

#define PLS_DIRECTORY_ADDRESS_BYTES 128

typedef struct pls_directory_header {
    uint64_t magic;
    uint32_t version;
    uint32_t line_bytes;
    uint32_t line_count;
    uint32_t workers_max; /* numbered workers, not counting dedicated ones */
    uint64_t layout_hash;
    uint8_t node_id[PLS_NODE_ID_BYTES];
    uint64_t node_started_ns;
    char name[PLS_NAME_BYTES_MAX + 1];
    char address[PLS_DIRECTORY_ADDRESS_BYTES]; /* where the node listens; "": it does not */
    uint32_t has_key; /* what comes from other nodes comes from members of the cluster */
} pls_directory_header;

typedef struct pls_directory {
    pls_directory_header header;
    uint8_t header_padding[PLS_DIRECTORY_HEADER_BYTES - sizeof(pls_directory_header)];
    pls_directory_line lines[PLS_SLOTS_MAX];
} pls_directory;

_Static_assert(sizeof(pls_directory_line) == PLS_LINE_BYTES, "one cache line pair per slot");
_Static_assert(offsetof(pls_directory, lines) == PLS_DIRECTORY_HEADER_BYTES, "lines start a page");
_Static_assert(ATOMIC_LLONG_LOCK_FREE == 2, "64-bit atomics work between processes");

/* How a process ended. */
typedef struct pls_death {
    pls_slot_state state;
    pls_role role;
    uint32_t worker_index;
    uint32_t pid;
    pls_ended_how how;
    uint32_t code;
    uint32_t hints;
    uint64_t ended_ns;
} pls_death;

/* Makes the memfd, zeroed and sealed against shrinking and growing, and maps it.
 * Errors:  PLS_ENOMEM, PLS_EFDLIMIT, PLS_ESYS.
 * Owns:    gives the mapping and the descriptor. */
PLS_MUST_USE pls_err pls_directory_create(pls_directory **directory_out, int *fd_out);

/* Maps a directory that came over the control socket, after checking its seals, size and header.
 * Errors:  PLS_ECORRUPT, PLS_EVERSION, PLS_ENOMEM, PLS_ESYS.
 * Owns:    borrows `fd`; gives the mapping. */
PLS_MUST_USE pls_err pls_directory_map(int fd, pls_directory **directory_out);

/* Unmaps; NULL is accepted. */
void pls_directory_unmap(pls_directory *directory);

/* State of (slot, epoch); PLS_SLOT_FREE when the slot now has another epoch, which means that the
 * asked-for process has been dead and acknowledged for long.
 * Threads: any thread; never blocks. */
pls_slot_state pls_directory_state(const pls_directory *directory, uint32_t slot, uint32_t epoch);

/* The slot's present epoch and state, from one load. Threads: any thread; never blocks. */
pls_slot_state pls_directory_peek(const pls_directory *directory, uint32_t slot,
                                  uint32_t *epoch_out);

/* What is known about the end of (slot, epoch); `how` is PLS_ENDED_NOT while it is DYING.
 * Errors:  PLS_ENOENT  the slot has another epoch now, or the process is alive.
 * Threads: any thread; never blocks. */
PLS_MUST_USE pls_err pls_directory_death(const pls_directory *directory, uint32_t slot,
                                         uint32_t epoch, pls_death *death_out);

/* "pid 4711, SIGKILL", "pid 4711, exit code 3", "pid 4711, dying", ...
 * Units:   `capacity` in bytes; always terminated, cut when too small.
 * Threads: any thread; never blocks. */
void pls_death_text(const pls_death *death, char *text, size_t capacity);

/* The same after whose death it was: "worker 3 died (pid 4711, SIGKILL)"; NULL: nothing is known.
 * Units and threads as above. */
void pls_death_words(const pls_death *death, char *text, size_t capacity);

/* Node only: stores a new life word. Everything else in the line is written before. */
void pls_directory_life_set(pls_directory *directory, uint32_t slot, uint32_t epoch,
                            pls_slot_state state);

/* Node only: empties the line's facts and hints for the next use of the slot. */
void pls_directory_line_clear(pls_directory *directory, uint32_t slot);

/* Node only: records the end, before the life word says DEAD. */
void pls_directory_end_set(pls_directory *directory, uint32_t slot, pls_ended_how how,
                           uint32_t code, uint32_t hints, uint64_t now_ns);

#endif
