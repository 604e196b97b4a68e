/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PLS_NODE_WATCH_H
#define PLS_NODE_WATCH_H

#include "node/pulsing_types.h"
#include "shm/obs.h"

#include <stdbool.h>
#include <stdint.h>

/* What the runtime writes into the obs memory of its process, so that others see what it does and,
 * after a kill, did. Every function is a no-op if there is no such memory (PULSING_OBS=off, or it
 * could not be had), and in a forked child, which has lost the mapping.
 * Threads: owner thread; blocks only in the kernel while a table gets its pages; the same for every
 * function of this header. */

struct pls_arrival;
struct pls_call;

/* A handler that takes longer than this is told in the rare ring. */
#define PLS_SLOW_NS UINT64_C(100000000)
/* Without rings, this many tells may start in a row before the clock is read again, if those before
 * took less than the second figure each: a current call may seem older by what they took. */
#define PLS_WATCH_UNREAD_MAX 16
#define PLS_WATCH_QUICK_NS 5000
#define PLS_WATCH_NAMES_LOG2 8
#define PLS_WATCH_NAMES (1u << PLS_WATCH_NAMES_LOG2)
#define PLS_WATCH_NAME_BYTES_MAX 52
#define PLS_WATCH_TICKS_SHIFT 32
/* Handlers of one actor that are timed at once; with more, the oldest are not. */
#define PLS_WATCH_RUNS_MAX 64

enum pls_watch_lifecycle { PLS_WATCH_STARTED = 1, PLS_WATCH_STOPPED = 2 };

/* The record of a method that was looked up lately. */
typedef struct pls_watch_name {
    uint64_t ends[2]; /* its first and last bytes: with `bytes`, all of a text of up to 16 */
    uint32_t class_name;
    uint32_t index;
    uint32_t bytes; /* 0: free */
    char text[PLS_WATCH_NAME_BYTES_MAX];
} pls_watch_name;

/* One message that is being handled. */
typedef struct pls_watch_run {
    uint64_t start_tick;
    uint64_t call_id;
    uint64_t caller; /* slot << 56 | epoch << 32 | seq */
    uint32_t method; /* its record, or PLS_OBS_NONE */
    uint32_t waited; /* in stamps */
    bool failed;
    uint64_t held_before; /* `held_since_ns` of the handler that this one nests in */
} pls_watch_run;

typedef struct pls_watch_actor {
    uint32_t index; /* its record, or PLS_OBS_NONE */
    uint32_t class_name;
    uint32_t name;
    uint32_t runs_count;
    uint32_t runs_max;
    pls_watch_run *runs; /* suspended handlers, oldest first */
} pls_watch_actor;

typedef struct pls_watch {
    pls_obs *obs; /* NULL: nothing is recorded */
    pls_obs_writer writer;
    pls_watch_run *current; /* the handler that is on the stack */
    uint64_t last_tick;     /* of the last thing that was recorded */
    bool tick_fresh;        /* it is the end of the message before this one */
    uint32_t unread;        /* starts since last_tick was read from the clock */
    uint32_t unread_max;
    _Atomic uint64_t *held; /* since when a handler keeps this process, in the directory */
    uint64_t anchored_tick;
    uint64_t slow_ticks;
    uint64_t quick_ticks;
    double ticks_per_ns;
    uint64_t ticks_mult;     /* the same, times 1 << PLS_WATCH_TICKS_SHIFT */
    pls_watch_name *asked;   /* of `names`: the method that was called last */
    pls_watch_name *handled; /* and the one that was started last */
    pls_watch_name names[PLS_WATCH_NAMES];
} pls_watch;

/* A message that was committed into a ring. */
typedef struct pls_watch_departure {
    uint64_t tick;
    uint64_t actor;
    uint32_t slot;
    uint32_t seq;
    uint32_t bytes;
    bool reply;
    bool woke;
} pls_watch_departure;

/* Makes the memory at the level of PULSING_OBS; without it the process works all the same. */
void pls_watch_open(pulsing *p, bool worker);
void pls_watch_close(pulsing *p);
/* For the node; -1: there is none. */
int pls_watch_fd(const pulsing *p);

/* Messages; what every one of them pays is in watch_hot.h. */
void pls_watch_full(pulsing *p, uint32_t slot);
void pls_watch_dropped(pulsing *p, pulsing_status reason, uint64_t count);

/* The loop: before a sleep, and after it. */
void pls_watch_sleep(pulsing *p);
void pls_watch_wake(pulsing *p, bool readable);

/* Actors and their handlers. A run begins, and ends or is kept until it is resumed. */
void pls_watch_actor_open(pulsing *p, pulsing_actor *actor);
void pls_watch_actor_close(pulsing *p, pulsing_actor *actor);
void pls_watch_queued(pulsing *p, pulsing_actor *actor);
void pls_watch_begin(pulsing *p, pulsing_actor *actor, const struct pls_arrival *arrival,
                     const pulsing_message *message, pls_watch_run *run);
void pls_watch_finished(pulsing *p, pulsing_actor *actor, const pulsing_origin *origin);
/* A request that reached the actor was not started. */
void pls_watch_refused(pulsing *p, pulsing_actor *actor);
/* The handler of this request raised; `actor` may be NULL. */
void pls_watch_raised(pulsing *p, pulsing_actor *actor, const pulsing_origin *origin);
/* The text of an error, kept once however often it comes. */
void pls_watch_error(pulsing *p, const char *text, size_t len);

/* The pending table. An ask is entered once it is on its way, when nobody waits for this process
 * any more; `request` are its bytes, NULL for a stream that is read. */
void pls_watch_wait_open(pulsing *p, struct pls_call *call, const uint8_t *request);
void pls_watch_wait_kind(pulsing *p, const struct pls_call *call, enum pls_obs_wait_kind kind);
void pls_watch_wait_close(pulsing *p, struct pls_call *call);

/* Another process: connected, or dead. */
void pls_watch_peer(pulsing *p, enum pls_obs_rare_kind kind, uint32_t slot, uint32_t epoch);

#endif
