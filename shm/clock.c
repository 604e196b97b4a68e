/* SPDX-License-Identifier: Apache-2.0 */
/* The clock that messages are stamped with. The processor's counter is taken where it is invariant
 * and cheap; a machine that traps the reading, or whose counter may stop, gets the kernel's clock.
 * The rate is measured once against CLOCK_MONOTONIC and made better with every anchoring, since the
 * distance to the first anchor grows. */
#include "shm/clock.h"

#include <string.h>
#include <time.h>
#if defined(__x86_64__)
#include <cpuid.h>
#endif

#define CALIBRATE_NS UINT64_C(1000000)
#define READ_NS_MAX 50
#define READS 64
#define BATCHES 8
/* 24 bits below the point keep the error of the rate under 1e-7 for counters from 10 MHz to 5 GHz.
 */
#define SHIFT 24
#define SECOND_NS UINT64_C(1000000000)

static uint64_t kernel_ns(clockid_t id)
{
    struct timespec now;
    clock_gettime(id, &now);
    return (uint64_t)now.tv_sec * SECOND_NS + (uint64_t)now.tv_nsec;
}

uint64_t pls_clock_kernel_ns(void)
{
    return kernel_ns(CLOCK_MONOTONIC);
}

static bool counter_is_invariant(void)
{
#if defined(__x86_64__)
    unsigned a = 0;
    unsigned b = 0;
    unsigned c = 0;
    unsigned d = 0;
    return __get_cpuid(0x80000007, &a, &b, &c, &d) != 0 && (d & 1u << 8) != 0;
#elif defined(__aarch64__)
    return true;
#else
    return false;
#endif
}

/* A tick and the kernel's time for it: the reading with the shortest way round of a few. */
static void pair_read(const pls_clock *clock, uint64_t *tick_out, uint64_t *ns_out)
{
    uint64_t best = UINT64_MAX;
    for (int i = 0; i < 8; i++) {
        uint64_t before = pls_clock_tick(clock);
        uint64_t ns = pls_clock_kernel_ns();
        uint64_t after = pls_clock_tick(clock);
        if (after - before < best) {
            best = after - before;
            *tick_out = before + (after - before) / 2;
            *ns_out = ns;
        }
    }
}

/* The cheapest of a few batches: a busy machine interrupts some of them. */
static uint32_t read_cost_ns(const pls_clock *clock)
{
    uint64_t best_ns = UINT64_MAX;
    for (int batch = 0; batch < BATCHES; batch++) {
        uint64_t sum = 0;
        uint64_t begin = pls_clock_kernel_ns();
        for (int i = 0; i < READS; i++) {
            sum += pls_clock_tick(clock);
        }
        /* The sum keeps the readings from being dropped. */
        uint64_t ns = pls_clock_kernel_ns() - begin + (sum == 0);
        best_ns = ns < best_ns ? ns : best_ns;
    }
    return (uint32_t)((best_ns + READS - 1) / READS);
}

static void kernel_use(pls_clock *clock)
{
    clock->source = PLS_CLOCK_KERNEL;
    clock->stamp_shift = 6;
    clock->shift = SHIFT;
    clock->mult = 1u << SHIFT;
    clock->read_ns = read_cost_ns(clock);
}

/* The stamp's unit must be the same in every process of the host, so it depends on what the machine
 * says of itself and not on a measurement. */
static uint32_t counter_stamp_shift(void)
{
#if defined(__aarch64__)
    uint64_t hz;
    __asm__("mrs %0, cntfrq_el0" : "=r"(hz));
    uint32_t shift = 0;
    while ((hz >> (shift + 1)) >= SECOND_NS / 128) {
        shift++;
    }
    return shift;
#else
    return 8;
#endif
}

static void rate_set(pls_clock *clock, uint64_t ticks, uint64_t ns)
{
    clock->mult = (uint32_t)(((__uint128_t)ns << SHIFT) / ticks);
}

void pls_clock_init(pls_clock *clock)
{
    memset(clock, 0, sizeof *clock);
    clock->shift = SHIFT;
#if defined(__aarch64__)
    clock->source = PLS_CLOCK_CNTVCT;
#else
    clock->source = PLS_CLOCK_TSC;
#endif
    clock->read_ns = counter_is_invariant() ? read_cost_ns(clock) : UINT32_MAX;
    if (clock->read_ns > READ_NS_MAX) {
        kernel_use(clock);
    } else {
        clock->stamp_shift = counter_stamp_shift();
        uint64_t tick = 0;
        uint64_t ns = 0;
        pair_read(clock, &clock->origin_tick, &clock->origin_ns);
        do {
            pair_read(clock, &tick, &ns);
        } while (ns - clock->origin_ns < CALIBRATE_NS);
        if (tick <= clock->origin_tick || (tick - clock->origin_tick) >> 32 != 0) {
            kernel_use(clock);
        } else {
            rate_set(clock, tick - clock->origin_tick, ns - clock->origin_ns);
        }
    }
    pls_clock_anchor(clock);
}

void pls_clock_anchor(pls_clock *clock)
{
    uint64_t tick = 0;
    uint64_t ns = 0;
    pair_read(clock, &tick, &ns);
    if (clock->source != PLS_CLOCK_KERNEL && tick > clock->origin_tick &&
        ns - clock->origin_ns > CALIBRATE_NS) {
        rate_set(clock, tick - clock->origin_tick, ns - clock->origin_ns);
    }
    clock->anchor_tick = clock->source == PLS_CLOCK_KERNEL ? ns : tick;
    clock->anchor_monotonic_ns = ns;
    clock->anchor_realtime_ns = kernel_ns(CLOCK_REALTIME);
    clock->version++;
}

uint64_t pls_clock_ticks(const pls_clock *clock, uint64_t ns)
{
    return (uint64_t)(((__uint128_t)ns << clock->shift) / clock->mult);
}

uint64_t pls_clock_stamp_ns(const pls_clock *clock, uint32_t later, uint32_t earlier)
{
    uint64_t ticks = (uint64_t)(later - earlier) << clock->stamp_shift;
    return (uint64_t)(((__uint128_t)ticks * clock->mult) >> clock->shift);
}

bool pls_clock_check(const pls_clock *clock)
{
    uint64_t unit_ns = pls_clock_stamp_ns(clock, 1, 0);
    return clock->source >= PLS_CLOCK_KERNEL && clock->source <= PLS_CLOCK_CNTVCT &&
           clock->mult != 0 && unit_ns >= 30 && unit_ns <= 300;
}
