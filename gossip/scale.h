/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PLS_GOSSIP_SCALE_H
#define PLS_GOSSIP_SCALE_H

#include <stdint.h>

/* Threads: any thread, on memory of its own, for every function of this header; none blocks. */

/* The formulae that grow with the logarithm of the cluster's size, in integer arithmetic alone, so
 * that every compiler gives the same trace. Fixed point has 24 fraction bits. */
#define PLS_SCALE_BITS 24
#define PLS_SCALE_ONE (UINT32_C(1) << PLS_SCALE_BITS)

/* Base-2 logarithm in fixed point, rounded down. Units: `n` >= 1. */
uint64_t pls_scale_log2(uint32_t n);

/* max(1, log10 n) in fixed point; 1 for n = 0. */
uint64_t pls_scale_nodes(uint32_t member_count);

/* ceil(log10(n + 1)): 0 for 0, 1 for 1 to 9, 2 for 10 to 99. */
uint32_t pls_scale_digits(uint32_t member_count);

/* How often an update is sent. */
uint32_t pls_scale_retransmits(uint32_t mult, uint32_t member_count);

/* alpha * max(1, log10 n) * interval. Units: nanoseconds. */
uint64_t pls_scale_suspicion_min(uint32_t alpha, uint32_t member_count, uint64_t interval_ns);

/* How long a suspicion lasts in all after `count` of `expected` confirmations:
 * max(min, max - (max - min) * ln(count + 1) / ln(expected + 1)); min when none is expected.
 * Units:   nanoseconds; `count` <= `expected`. */
uint64_t pls_scale_suspicion(uint64_t min_ns, uint64_t max_ns, uint32_t count, uint32_t expected);

#endif
