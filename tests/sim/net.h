/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PLS_SIM_NET_H
#define PLS_SIM_NET_H

#include "base/rng.h"

#include <stdint.h>

/* Every node stands on one side; a cut separates sides, in one direction each. */
#define PLS_SIM_SIDES_MAX 64
#define PLS_SIM_COPIES_MAX 2

/* What the network does to packets now. A healthy one delays by base + [0, jitter). */
typedef struct pls_sim_net {
    pls_rng rng;
    uint64_t base_ns;
    uint64_t jitter_ns;
    uint64_t delay_ns;
    uint64_t late_ns_max;
    uint32_t loss_ppm;
    uint32_t duplicate_ppm;
    uint32_t late_ppm;
    uint64_t cut[PLS_SIM_SIDES_MAX];
} pls_sim_net;

/* What becomes of one packet: `copy_count` 0 is a loss. */
typedef struct pls_sim_fate {
    uint32_t copy_count;
    uint64_t delay_ns[PLS_SIM_COPIES_MAX];
} pls_sim_fate;

/* A healthy network. Threads: owner thread; never blocks. */
void pls_sim_net_init(pls_sim_net *net, uint64_t seed);

/* Decides what becomes of one packet between two sides.
 * Units:   sides below PLS_SIM_SIDES_MAX.
 * Threads: owner thread; never blocks. */
pls_sim_fate pls_sim_net_fate(pls_sim_net *net, uint8_t from_side, uint8_t to_side);

/* Nothing gets from one side to another any more. Threads: owner thread; never blocks. */
void pls_sim_net_cut(pls_sim_net *net, uint8_t from_side, uint8_t to_side);

/* Every packet gets through again, at once and whole. Threads: owner thread; never blocks. */
void pls_sim_net_heal(pls_sim_net *net);

#endif
