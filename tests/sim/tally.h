/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PLS_SIM_TALLY_H
#define PLS_SIM_TALLY_H

#include "tests/sim/sample.h"
#include "tests/sim/world.h"

/* What became known of one node's death. */
typedef struct pls_sim_victim {
    uint64_t killed_ns; /* 0: it was not killed */
    uint64_t first_ns;  /* when the first other node declared it dead */
    uint64_t last_ns;   /* when the last one so far did */
    uint32_t known_count;
} pls_sim_victim;

/* Counts the events of a world. A death is false when its subject runs; at a healthy node when
 * neither subject nor observer is odd. Deaths of odd nodes are none of these. */
typedef struct pls_sim_tally {
    pls_sim_world *world;
    pls_sim_victim *victims; /* by node */
    uint64_t joined_count;
    uint64_t suspect_count;
    uint64_t dead_count;
    uint64_t left_count;
    uint64_t isolated_count;
    uint64_t conflict_count;
    uint64_t name_lost_count;
    uint64_t false_dead_count;
    uint64_t false_dead_healthy_count;
    uint64_t *suspects_by; /* by observer */
    uint64_t *isolated_by;
} pls_sim_tally;

/* Becomes the world's watcher. Running out of memory aborts.
 * Owns:    borrows the world until fini.
 * Threads: owner thread for this and all functions below. */
void pls_sim_tally_init(pls_sim_tally *tally, pls_sim_world *world);
void pls_sim_tally_fini(pls_sim_tally *tally);

/* Forgets the counts so far, not the victims. */
void pls_sim_tally_reset(pls_sim_tally *tally);

/* Kills a node and follows who learns of it. */
void pls_sim_tally_kill(pls_sim_tally *tally, uint32_t node);

/* True when every running node has declared every victim dead. */
bool pls_sim_tally_all_known(const pls_sim_tally *tally);

#endif
