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

/* Eight bytes of a text as a word of this machine. */
static inline uint64_t pls_hash_word(const char *bytes)
{
    uint64_t word = 0;
    memcpy(&word, bytes, sizeof word);
    return word;
}

/* A word that depends on all bits of two. */
static inline uint64_t pls_hash_fold(uint64_t a, uint64_t b)
{
    __uint128_t product = (__uint128_t)a * b;
    return (uint64_t)product ^ (uint64_t)(product >> 64);
}

/* For a table of one process, on the way of every look-up, so no better than that needs: one
 * multiplication for two words, of which the last reach back into those before. */
static inline uint32_t pls_hash_quick(const char *bytes, uint32_t len)
{
    enum { WORD = sizeof(uint64_t) };
    const uint64_t factor = UINT64_C(0xd6e8feb86659fd93);
    uint64_t hash = len;
    uint64_t first = 0;
    uint64_t last = 0;
    for (uint32_t at = 0; at + 2 * WORD < len; at += 2 * WORD) {
        hash = pls_hash_fold(hash ^ pls_hash_word(bytes + at),
                             factor ^ pls_hash_word(bytes + at + WORD));
    }
    if (len >= WORD) {
        first = pls_hash_word(len >= 2 * WORD ? bytes + len - 2 * WORD : bytes);
        last = pls_hash_word(bytes + len - WORD);
    } else {
        for (uint32_t i = 0; i < len; i++) {
            first |= (uint64_t)(uint8_t)bytes[i] << (8 * i);
        }
    }
    return (uint32_t)(pls_hash_fold(hash ^ first, factor ^ last) * factor >> 32);
}

#endif
