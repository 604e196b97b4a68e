/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PLS_BENCHMARKS_SAMPLE_H
#define PLS_BENCHMARKS_SAMPLE_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

/* Times of single operations, and the one line of JSON that run.py reads from each program. */

static inline int64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static inline void pause_ms(long ms)
{
    if (ms > 0) {
        nanosleep(&(struct timespec){ms / 1000, ms % 1000 * 1000000}, NULL);
    }
}

static inline int sample_compare(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a;
    int64_t y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

/* Sorts `ns` and prints median, 99th percentile and rate. */
static inline void sample_print(int64_t *ns, size_t count)
{
    int64_t total = 0;
    qsort(ns, count, sizeof *ns, sample_compare);
    for (size_t i = 0; i < count; i++) {
        total += ns[i];
    }
    int64_t middle = ns[count / 2];
    int64_t late = ns[count * 99 / 100];
    printf("{\"n\": %zu, \"p50_us\": %.4f, \"p99_us\": %.4f, \"ops_per_s\": %.1f}\n", count,
           (double)middle / 1e3, (double)late / 1e3, (double)count * 1e9 / (double)total);
}

/* Prints the rate of `count` operations that took `ns` together. */
static inline void sample_print_rate(size_t count, int64_t ns)
{
    printf("{\"n\": %zu, \"p50_us\": null, \"p99_us\": null, \"ops_per_s\": %.1f}\n", count,
           (double)count * 1e9 / (double)ns);
}

#endif
