/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PLS_SHM_CLOCK_H
#define PLS_SHM_CLOCK_H

#include <stdbool.h>
#include <stdint.h>

/* The cheapest clock of this machine. Ticks come from the processor's counter where it runs at a
 * constant rate and can be read quickly, else from the kernel; they are comparable between the
 * processes of a host, and are turned into nanoseconds of CLOCK_MONOTONIC by one multiplication. */
enum pls_clock_source { PLS_CLOCK_KERNEL = 1, PLS_CLOCK_TSC = 2, PLS_CLOCK_CNTVCT = 3 };

typedef struct pls_clock {
    uint32_t source;
    uint32_t stamp_shift; /* a stamp is tick >> this: 50 to 130 ns; the same in every process */
    uint32_t mult;        /* ns = ((tick - anchor_tick) * mult >> shift) + anchor_monotonic_ns */
    uint32_t shift;
    uint64_t origin_tick; /* where the measuring of the rate began */
    uint64_t origin_ns;
    uint64_t anchor_tick;
    uint64_t anchor_monotonic_ns;
    uint64_t anchor_realtime_ns;
    uint32_t read_ns; /* measured cost of one reading, rounded up */
    uint32_t version; /* counts anchorings */
} pls_clock;

/* Choose the source and calibrate it; takes about a millisecond.
 * Threads: any thread; may block 5 ms. */
void pls_clock_init(pls_clock *clock);

/* Anchor again, which bounds the error of the conversion; about once a second.
 * Threads: owner thread; never blocks. */
void pls_clock_anchor(pls_clock *clock);

/* Nanoseconds of CLOCK_MONOTONIC for a tick, also for one some way before the anchor.
 * Threads: any thread that may read `clock`; never blocks. */
static inline uint64_t pls_clock_ns(const pls_clock *clock, uint64_t tick)
{
    int64_t ticks = (int64_t)(tick - clock->anchor_tick);
    int64_t ns = (int64_t)(((__int128_t)ticks * clock->mult) >> clock->shift);
    return clock->anchor_monotonic_ns + (uint64_t)ns;
}

/* Ticks that make up a span of nanoseconds. Threads: as above; never blocks. */
uint64_t pls_clock_ticks(const pls_clock *clock, uint64_t ns);

/* Nanoseconds that a span of ticks takes. Threads: as above; never blocks. */
static inline uint64_t pls_clock_span_ns(const pls_clock *clock, uint64_t ticks)
{
    return (uint64_t)(((__uint128_t)ticks * clock->mult) >> clock->shift);
}

/* Nanoseconds between two stamps, the later one given first; spans of more than the stamp's range
 * come out too short. Threads: as above; never blocks. */
uint64_t pls_clock_stamp_ns(const pls_clock *clock, uint32_t later, uint32_t earlier);

/* Kernel time, for machines without a usable counter. Threads: any thread; never blocks. */
uint64_t pls_clock_kernel_ns(void);

/* The time now in ticks of this clock. Threads: as above; never blocks. */
static inline uint64_t pls_clock_tick(const pls_clock *clock)
{
#if defined(__x86_64__)
    if (clock->source == PLS_CLOCK_TSC) {
        return __builtin_ia32_rdtsc();
    }
#elif defined(__aarch64__)
    if (clock->source == PLS_CLOCK_CNTVCT) {
        uint64_t tick;
        __asm__ volatile("mrs %0, cntvct_el0" : "=r"(tick));
        return tick;
    }
#endif
    return pls_clock_kernel_ns();
}

/* What goes into a record's `sent`. Threads: any thread; never blocks. */
static inline uint32_t pls_clock_stamp(const pls_clock *clock, uint64_t tick)
{
    return (uint32_t)(tick >> clock->stamp_shift);
}

/* Whether the conversion makes sense. Threads: any thread; never blocks. */
bool pls_clock_check(const pls_clock *clock);

#endif
