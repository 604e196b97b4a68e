/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PLS_BASE_RNG_H
#define PLS_BASE_RNG_H

#include <stdint.h>

/* A seeded generator (xoshiro256**, Blackman and Vigna 2018; seeded through splitmix64). Same seed,
 * same numbers on every machine. Not for secrets. */
typedef struct pls_rng {
    uint64_t state[4];
} pls_rng;

/* Fills `rng` from a seed; every seed is valid. Threads: owner thread; never blocks. */
void pls_rng_init(pls_rng *rng, uint64_t seed);

/* The next 64 random bits. Threads: owner thread; never blocks. */
uint64_t pls_rng_next(pls_rng *rng);

/* A number in [0, bound), without modulo bias (Lemire 2019).
 * Units: `bound` >= 1. Threads: owner thread; never blocks. */
uint32_t pls_rng_below(pls_rng *rng, uint32_t bound);

/* True with probability numerator/denominator.
 * Units: `denominator` >= 1. Threads: owner thread; never blocks. */
int pls_rng_chance(pls_rng *rng, uint32_t numerator, uint32_t denominator);

#endif
