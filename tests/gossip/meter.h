/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PLS_TESTS_GOSSIP_METER_H
#define PLS_TESTS_GOSSIP_METER_H

#include <stddef.h>
#include <stdint.h>

/* An allocator that fails from the n-th call on, for a number of calls, and moves
 * whatever it resizes, so that no stale pointer survives by luck. */
typedef struct meter {
    uint64_t calls;
    uint64_t fail_from;
    uint64_t fail_count;
    uint64_t failed;
    uint64_t held_bytes;
} meter;

/* The `resize` of a pls_allocator whose context is a meter. */
void *meter_resize(void *context, void *memory, size_t old_bytes, size_t new_bytes);

#endif
