/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PLS_GOSSIP_HASH_H
#define PLS_GOSSIP_HASH_H

#include <stdint.h>
#include <string.h>

/* A hash that every node computes alike; not against an attacker, who would need a cluster key to
 * be heard at all. */
static inline uint64_t pls_hash_mix(uint64_t x)
{
    x ^= x >> 32;
    x *= UINT64_C(0xd6e8feb86659fd93);
    x ^= x >> 32;
    x *= UINT64_C(0xd6e8feb86659fd93);
    x ^= x >> 32;
    return x;
}

static inline uint64_t pls_hash_bytes(uint64_t seed, const char *bytes, uint32_t len)
{
    uint64_t hash = pls_hash_mix(seed + len);
    while (len >= 8) {
        uint64_t word = 0;
        memcpy(&word, bytes, 8);
        hash = pls_hash_mix(hash ^ word) + UINT64_C(0x9e3779b97f4a7c15);
        bytes += 8;
        len -= 8;
    }
    uint64_t tail = 0;
    for (uint32_t i = 0; i < len; i++) {
        tail |= (uint64_t)(uint8_t)bytes[i] << (8 * i);
    }
    return pls_hash_mix(hash ^ tail);
}

#endif
