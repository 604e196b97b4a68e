/* SPDX-License-Identifier: Apache-2.0 */
/* xoshiro256** seeded by splitmix64. Whoever needs randomness is given one of these, so that a
 * simulation is a function of its seed. */
#include "base/rng.h"

#include "base/assert.h"

static uint64_t rotate_left(uint64_t x, int bits)
{
    return (x << bits) | (x >> (64 - bits));
}

static uint64_t splitmix64(uint64_t *state)
{
    uint64_t z = (*state += UINT64_C(0x9e3779b97f4a7c15));
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

void pls_rng_init(pls_rng *rng, uint64_t seed)
{
    pls_assert(rng != 0);
    for (int i = 0; i < 4; i++) {
        rng->state[i] = splitmix64(&seed);
    }
}

uint64_t pls_rng_next(pls_rng *rng)
{
    uint64_t *s = rng->state;
    uint64_t result = rotate_left(s[1] * 5, 7) * 9;
    uint64_t t = s[1] << 17;
    s[2] ^= s[0];
    s[3] ^= s[1];
    s[1] ^= s[2];
    s[0] ^= s[3];
    s[2] ^= t;
    s[3] = rotate_left(s[3], 45);
    return result;
}

uint32_t pls_rng_below(pls_rng *rng, uint32_t bound)
{
    pls_assert(bound >= 1);
    uint64_t product = (uint64_t)(uint32_t)(pls_rng_next(rng) >> 32) * bound;
    uint32_t low = (uint32_t)product;
    if (low < bound) {
        uint32_t threshold = (0U - bound) % bound;
        while (low < threshold) {
            product = (uint64_t)(uint32_t)(pls_rng_next(rng) >> 32) * bound;
            low = (uint32_t)product;
        }
    }
    return (uint32_t)(product >> 32);
}

int pls_rng_chance(pls_rng *rng, uint32_t numerator, uint32_t denominator)
{
    return pls_rng_below(rng, denominator) < numerator;
}
