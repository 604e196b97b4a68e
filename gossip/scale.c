/* SPDX-License-Identifier: Apache-2.0 */
/* Logarithms by repeated squaring: the whole part is the highest bit, each further squaring of the
 * mantissa gives one more bit. No table, no libm, the same bits from every compiler. */
#include "gossip/scale.h"

#include "base/assert.h"

/* log2(10) with PLS_SCALE_BITS fraction bits, rounded to nearest. */
#define LOG2_OF_10 UINT64_C(55732705)

/* The mantissa is squared with this many fraction bits: its square then fits 64 bits. */
#define MANTISSA_BITS 31

_Static_assert(LOG2_OF_10 / PLS_SCALE_ONE == 3, "log2(10) is 3.32");

uint64_t pls_scale_log2(uint32_t n)
{
    pls_assert(n >= 1);
    uint32_t whole = 31 - (uint32_t)__builtin_clz(n);
    uint64_t mantissa = (uint64_t)n << (MANTISSA_BITS - whole);
    uint64_t result = whole;
    for (uint32_t bit = 0; bit < PLS_SCALE_BITS; bit++) {
        mantissa = (mantissa * mantissa) >> MANTISSA_BITS;
        uint64_t carry = mantissa >> (MANTISSA_BITS + 1);
        result = (result << 1) | carry;
        mantissa >>= carry;
    }
    return result;
}

uint64_t pls_scale_nodes(uint32_t member_count)
{
    /* Below ten the logarithm is under one. */
    if (member_count <= 10) {
        return PLS_SCALE_ONE;
    }
    return (pls_scale_log2(member_count) << PLS_SCALE_BITS) / LOG2_OF_10;
}

uint32_t pls_scale_digits(uint32_t member_count)
{
    uint32_t digits = 0;
    for (uint64_t power = 1; power < (uint64_t)member_count + 1; power *= 10) {
        digits++;
    }
    return digits;
}

uint32_t pls_scale_retransmits(uint32_t mult, uint32_t member_count)
{
    return mult * pls_scale_digits(member_count);
}

uint64_t pls_scale_suspicion_min(uint32_t alpha, uint32_t member_count, uint64_t interval_ns)
{
    /* Microseconds keep the product within 64 bits: alpha < 2^8, interval < 2^32 us, 2^28. */
    uint64_t scaled_us = (alpha * (interval_ns / 1000) * (pls_scale_nodes(member_count) >> 4)) >>
                         (PLS_SCALE_BITS - 4);
    return scaled_us * 1000;
}

uint64_t pls_scale_suspicion(uint64_t min_ns, uint64_t max_ns, uint32_t count, uint32_t expected)
{
    pls_assert(max_ns >= min_ns);
    pls_assert(count <= expected);
    if (expected == 0) {
        return min_ns;
    }
    uint64_t share = (pls_scale_log2(count + 1) << PLS_SCALE_BITS) / pls_scale_log2(expected + 1);
    uint64_t range_us = (max_ns - min_ns) / 1000;
    uint64_t cut_ns = ((range_us * (share >> 4)) >> (PLS_SCALE_BITS - 4)) * 1000;
    uint64_t total_ns = count == expected ? min_ns : max_ns - cut_ns;
    return total_ns < min_ns ? min_ns : total_ns;
}
