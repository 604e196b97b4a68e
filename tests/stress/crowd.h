/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PLS_TESTS_STRESS_CROWD_H
#define PLS_TESTS_STRESS_CROWD_H

#include "base/rng.h"
#include "shm/peer.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

/* Real processes: one consumer that sleeps on its eventfd, and producers that this process, which
 * is their parent and plays the node, kills, confirms dead, rings for and replaces. */

#define CROWD_PRODUCERS_MAX 8
#define CROWD_CONSUMER_SLOT 3
#define CROWD_PRODUCER_SLOT 60 /* of the first; the next ones follow, over a border of words */
#define CROWD_EPOCH 9
#define CROWD_SLEEP_MS 100

/* How producers go about it. */
typedef struct crowd_manner {
    uint32_t ring_bytes;
    uint32_t len_max;         /* of an inline letter's body */
    uint32_t enclose_percent; /* letters whose body is in a block */
    uint32_t burst_max;       /* letters before one bell */
    bool quiet; /* wait until all is read, then a short gap, now and then a long one */
    bool hasty; /* no pauses, and a consumer that goes to sleep as often as it can */
} crowd_manner;

typedef struct crowd_lane {
    _Atomic uint32_t begun;     /* letters the producer was about to commit */
    _Atomic uint32_t committed; /* letters it has committed */
    _Atomic uint32_t rung;      /* letters it has rung for */
    _Atomic uint32_t delivered; /* letters of this epoch the consumer has read */
    _Atomic uint32_t cleared;   /* epoch of the last death that the consumer has dealt with */
    _Atomic uint32_t ready;     /* epoch of the producer that has introduced itself */
} crowd_lane;

typedef struct crowd_score {
    crowd_lane lanes[CROWD_PRODUCERS_MAX];
    _Atomic uint64_t delivered;
    _Atomic uint64_t enclosed;
    _Atomic uint64_t sleeps;
    _Atomic uint64_t found_work; /* rechecks that found work nobody had signalled */
    _Atomic uint32_t broken;     /* letters out of order, doubled, damaged; impossible rings */
    _Atomic uint32_t stop;
    _Atomic uint32_t left_open; /* leases and mappings the consumer still had at the end */
} crowd_score;

typedef struct crowd {
    crowd_manner manner;
    crowd_score *score;
    uint32_t producers;
    uint64_t seed;
    int sockets[2]; /* producers write to 1, the consumer reads from 0 */
    int fds[2];     /* the consumer's inbox and bell */
    pid_t consumer;
    pid_t pids[CROWD_PRODUCERS_MAX];
    uint32_t epochs[CROWD_PRODUCERS_MAX];
    pls_peer *bell; /* the consumer as the node sees it */
    uint64_t kills;
    uint64_t undelivered; /* committed letters that never came */
    uint64_t late;        /* deaths that were not dealt with in time */
    double clear_sum_ms;  /* from the kill to the end of the clearing */
    double clear_max_ms;
} crowd;

void crowd_open(crowd *c, const crowd_manner *manner, uint32_t producers, uint64_t seed);

/* Kills one producer, confirms it, rings, waits until the consumer has cleared up, compares what
 * was committed with what was read, and starts the next in its place. */
void crowd_kill(crowd *c, uint32_t lane);

/* Stops a producer or the consumer for a while and lets it go on. */
void crowd_freeze(crowd *c, pid_t pid, uint32_t us);

/* Ends everybody; afterwards the score is final. */
void crowd_close(crowd *c);

/* Whether nothing was broken, late, undelivered or left; says on standard output what there was. */
bool crowd_is_sound(const crowd *c, const char *name);

double crowd_now_ms(void);
void crowd_pause_us(uint32_t us);

/* Keeps the calling process on the `index`-th CPU it may use, if it may use several: two processes
 * on one CPU never see each other's stores late. */
void crowd_pin(uint32_t index);

/* The other two parts, in processes of their own. */
_Noreturn void crowd_consume(const crowd *c, int introduce);
_Noreturn void crowd_produce(const crowd *c, uint32_t lane);

#endif
