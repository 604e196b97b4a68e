/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PLS_SIM_PLAN_H
#define PLS_SIM_PLAN_H

#include "base/err.h"

#include <stdint.h>
#include <stdio.h>

/* A tick of a plan in nanoseconds of virtual time: 100 ms. */
#define PLS_SIM_TICK_NS UINT64_C(100000000)

/* Sets of nodes in a plan are 64-bit masks; the campaign uses up to 32 nodes. */
#define PLS_SIM_PLAN_NODES_MAX 32
#define PLS_SIM_PLAN_FAULTS_MAX 96

/* Every kind of fault: code, word in a trace file, does it last (and end by itself). */
#define PLS_SIM_FAULT_TABLE(X)                                                                     \
    X(PLS_SIM_START, "start", 0)             /* a stopped node starts on its own address */        \
    X(PLS_SIM_MOVE, "move", 0)               /* a node stops and starts on another address */      \
    X(PLS_SIM_CRASH, "crash", 0)             /* a node's process is killed */                      \
    X(PLS_SIM_RESTART, "restart", 0)         /* killed and started again at once */                \
    X(PLS_SIM_LEAVE, "leave", 0)             /* a node leaves and stops a second later */          \
    X(PLS_SIM_PAUSE, "pause", 1)             /* a node stands still and its input waits */         \
    X(PLS_SIM_SLOW, "slow", 1)               /* every input takes `value` ms to handle */          \
    X(PLS_SIM_CLOCK_JUMP, "clock_jump", 0)   /* a node's clock jumps ahead by `value` ms */        \
    X(PLS_SIM_CLOCK_STOP, "clock_stop", 1)   /* a node's clock stands, its input does not */       \
    X(PLS_SIM_CUT, "cut", 1)                 /* nothing gets from `from` to `to`, nor back */      \
    X(PLS_SIM_CUT_ONE_WAY, "cut_one_way", 1) /* nothing gets from `from` to `to` */                \
    X(PLS_SIM_LOSS, "loss", 1)               /* `value` ppm of all packets are lost */             \
    X(PLS_SIM_DUPLICATE, "duplicate", 1)     /* `value` ppm of all packets come twice */           \
    X(PLS_SIM_LATE, "late", 1)       /* a tenth of all packets come up to `value` ms late */       \
    X(PLS_SIM_DELAY, "delay", 1)     /* all packets come `value` ms later */                       \
    X(PLS_SIM_GARBAGE, "garbage", 0) /* a node is sent `value` packets of nonsense */              \
    X(PLS_SIM_HINT, "hint", 0)       /* a false hint: the peer `value` is disconnected */          \
    X(PLS_SIM_NAMES, "names", 0)     /* a node registers and removes `value` names */              \
    X(PLS_SIM_UNIQUE, "unique", 0)   /* a node claims or frees a unique name */                    \
    X(PLS_SIM_RENEW, "renew", 0)     /* a node changes its meta */

typedef enum pls_sim_fault_kind {
#define PLS_SIM_FAULT_ENUM(code, word, lasts) code,
    PLS_SIM_FAULT_TABLE(PLS_SIM_FAULT_ENUM)
#undef PLS_SIM_FAULT_ENUM
        PLS_SIM_FAULT_KINDS
} pls_sim_fault_kind;

typedef struct pls_sim_fault {
    uint32_t at_tick;
    uint32_t tick_count;
    uint8_t kind;
    uint8_t node;
    uint16_t reserved;
    uint32_t value;
    uint64_t from;
    uint64_t to;
} pls_sim_fault;

_Static_assert(sizeof(pls_sim_fault) == 32, "no padding: faults are compared as bytes");

/* A whole run of the campaign: everything that happens follows from this. */
typedef struct pls_sim_plan {
    uint64_t seed;
    uint32_t node_count;
    uint32_t tick_count;
    uint32_t fault_count;
    pls_sim_fault faults[PLS_SIM_PLAN_FAULTS_MAX];
} pls_sim_plan;

/* Draws a plan: nodes, faults, moments and lengths all follow from the seed.
 * Units:   `tick_count` >= 100, in PLS_SIM_TICK_NS.
 * Threads: owner thread; never blocks. */
void pls_sim_plan_draw(pls_sim_plan *plan, uint64_t seed, uint32_t tick_count);

/* The word of a kind; "?" beyond the table. Threads: any thread; never blocks. */
const char *pls_sim_fault_word(uint8_t kind);

/* 1 when a fault of this kind lasts for its tick_count and then ends.
 * Threads: any thread; never blocks. */
int pls_sim_fault_lasts(uint8_t kind);

/* 1 when a fault of this kind happens to its node, 0 when it happens to the network.
 * Threads: any thread; never blocks. */
int pls_sim_fault_has_node(uint8_t kind);

/* Writes a plan as text, one fault a line. Threads: owner thread; may block on the file. */
void pls_sim_plan_write(const pls_sim_plan *plan, FILE *file);

/* Reads what pls_sim_plan_write() wrote.
 * Errors:  PLS_EPROTO  a line is not understood; `plan_out` is untouched.
 *          PLS_ETOOBIG  more nodes or faults than a plan holds.
 * Threads: owner thread; may block on the file. */
PLS_MUST_USE pls_err pls_sim_plan_read(FILE *file, pls_sim_plan *plan_out);

#endif
