/* SPDX-License-Identifier: Apache-2.0 */
/* Single steps. Stepping through libc would take millions of steps and test nothing of ours, so a
 * step that leaves our text is completed by running to the return address, where a breakpoint is
 * put into the child's private copy of the page. Programs that use this are linked with -z now,
 * because then the first instruction outside is the callee's and the return address is on top of
 * the stack. */
#include "tests/stress/step.h"

#include "tests/fork_check.h"

#include <check.h>
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

/* The tracer breaks at these by their address: one copy each, never inlined. */
#ifdef __clang__
#define STAYS_WHOLE __attribute__((noinline))
#else
#define STAYS_WHOLE __attribute__((noinline, noclone))
#endif

/* Where the linker put this program's text. */
extern const char __executable_start[];
extern const char etext[];

bool step_waived(void)
{
    const char *value = getenv("PULSING_ALLOW_NO_PTRACE");
    return value != NULL && strcmp(value, "1") == 0;
}

#ifdef __x86_64__

#define BREAKPOINT 0xcc
#define RIP_OFFSET offsetof(struct user_regs_struct, rip)
#define STEP_HIT_COST 4
#define RSP_OFFSET offsetof(struct user_regs_struct, rsp)

STAYS_WHOLE void step_pause(void)
{
    __asm__ volatile("int3" ::: "memory");
}

STAYS_WHOLE void step_end(void)
{
    /* Not the same code as in step_pause(), or the linker could fold the two. */
    __asm__ volatile("int3\n\tint3" ::: "memory");
}

static bool text_is_ours(uint64_t rip)
{
    return rip >= (uint64_t)(uintptr_t)__executable_start && rip < (uint64_t)(uintptr_t)etext;
}

static uint64_t register_get(const step_child *child, size_t offset)
{
    errno = 0;
    long value = ptrace(PTRACE_PEEKUSER, child->pid, (void *)offset, NULL);
    ck_assert_int_eq(errno, 0);
    return (uint64_t)value;
}

uint64_t step_place(const step_child *child)
{
    return register_get(child, RIP_OFFSET);
}

/* Lets the child go on in one way and waits; false if it did not stop by a trap. */
static bool resume(step_child *child, enum __ptrace_request how)
{
    int status = 0;
    ck_assert_int_eq(ptrace(how, child->pid, NULL, NULL), 0);
    ck_assert_int_eq(waitpid(child->pid, &status, 0), child->pid);
    if (WIFSTOPPED(status) && WSTOPSIG(status) == SIGTRAP) {
        return true;
    }
    child->trouble = status;
    return false;
}

/* Runs the child until it returns to `address` in our text. */
static bool run_to(step_child *child, uint64_t address)
{
    ck_assert(text_is_ours(address));
    long word = 0;
    /* Same program, same text: what stands there is what stands here. */
    memcpy(&word, (const void *)(uintptr_t)address, sizeof word);
    long broken = (word & ~0xffL) | BREAKPOINT;
    ck_assert_int_eq(ptrace(PTRACE_POKETEXT, child->pid, (void *)(uintptr_t)address, broken), 0);
    if (!resume(child, PTRACE_CONT)) {
        return false;
    }
    if (register_get(child, RIP_OFFSET) != address + 1) {
        /* A pause or the end inside of a callback: not what callers of this do. */
        child->trouble = SIGTRAP;
        return false;
    }
    ck_assert_int_eq(ptrace(PTRACE_POKETEXT, child->pid, (void *)(uintptr_t)address, word), 0);
    ck_assert_int_eq(ptrace(PTRACE_POKEUSER, child->pid, (void *)RIP_OFFSET, address), 0);
    return true;
}

void step_take(step_child *child, uint64_t units)
{
    uint64_t end = (uint64_t)(uintptr_t)step_end;
    for (uint64_t i = 0; i < units && !child->over; i++) {
        if (!resume(child, PTRACE_SINGLESTEP)) {
            return;
        }
        uint64_t rip = register_get(child, RIP_OFFSET);
        if (!text_is_ours(rip)) {
            errno = 0;
            long back = ptrace(PTRACE_PEEKDATA, child->pid,
                               (void *)(uintptr_t)register_get(child, RSP_OFFSET), NULL);
            ck_assert_int_eq(errno, 0);
            child->foreign++;
            if (!run_to(child, (uint64_t)back)) {
                return;
            }
            rip = (uint64_t)back;
        }
        child->units++;
        child->over = rip == end;
    }
}

static void comings_count(step_trace *trace)
{
    uint64_t start = (uint64_t)(uintptr_t)__executable_start;
    uint32_t *counts = calloc((uint64_t)(uintptr_t)etext - start, sizeof *counts);
    ck_assert_ptr_ne(counts, NULL);
    for (uint64_t i = 0; i <= trace->count; i++) {
        trace->comings[i] = ++counts[trace->places[i] - start];
    }
    free(counts);
}

void step_record(step_child *child, step_trace *trace)
{
    trace->count = 0;
    for (;;) {
        if (trace->count >= trace->capacity) {
            trace->capacity = trace->capacity * 2 + 1024;
            trace->places = realloc(trace->places, trace->capacity * sizeof *trace->places);
            trace->comings = realloc(trace->comings, trace->capacity * sizeof *trace->comings);
            ck_assert_ptr_ne(trace->places, NULL);
            ck_assert_ptr_ne(trace->comings, NULL);
        }
        trace->places[trace->count] = register_get(child, RIP_OFFSET);
        if (child->over || child->trouble != 0) {
            trace->foreign = child->foreign;
            comings_count(trace);
            return;
        }
        step_take(child, 1);
        trace->count++;
    }
}

/* Where to run to before stepping the rest: a breakpoint costs a few steps each time it is hit. */
static uint64_t landmark_before(const step_trace *trace, uint64_t units)
{
    uint64_t best = 0;
    uint64_t best_cost = units;
    for (uint64_t at = units; at > 0 && units - at < best_cost; at--) {
        uint64_t cost = units - at + STEP_HIT_COST * trace->comings[at];
        if (cost < best_cost) {
            best = at;
            best_cost = cost;
        }
    }
    return best;
}

void step_to(step_child *child, const step_trace *trace, uint64_t units)
{
    uint64_t landmark = landmark_before(trace, units);
    uint64_t place = trace->places[landmark];
    uint32_t comings = place == trace->places[0];
    ck_assert_uint_eq(register_get(child, RIP_OFFSET), trace->places[0]);
    while (comings < trace->comings[landmark]) {
        if (register_get(child, RIP_OFFSET) == place) {
            step_take(child, 1);
        }
        if (register_get(child, RIP_OFFSET) != place) {
            ck_assert_msg(run_to(child, place), "it did not get to unit %llu",
                          (unsigned long long)landmark);
        }
        comings++;
    }
    child->units = landmark;
    child->over = landmark == trace->count;
    while (child->units < units && child->trouble == 0) {
        step_take(child, 1);
        ck_assert_uint_eq(register_get(child, RIP_OFFSET), trace->places[child->units]);
    }
}

void step_run(step_child *child)
{
    if (child->over || !resume(child, PTRACE_CONT)) {
        return;
    }
    child->units = 0;
    child->foreign = 0;
    child->over = register_get(child, RIP_OFFSET) == (uint64_t)(uintptr_t)step_end + 1;
}

#else

void step_pause(void)
{
}

void step_end(void)
{
}

uint64_t step_place(const step_child *child)
{
    return 0;
}

void step_take(step_child *child, uint64_t units)
{
}

void step_record(step_child *child, step_trace *trace)
{
}

void step_to(step_child *child, const step_trace *trace, uint64_t units)
{
}

void step_run(step_child *child)
{
}

#endif

uint64_t step_visits(const step_trace *trace, uint64_t units)
{
    return units == 0 ? 1 : trace->comings[units - 1];
}

void step_trace_fini(step_trace *trace)
{
    free(trace->places);
    free(trace->comings);
    memset(trace, 0, sizeof *trace);
}

bool step_possible(void)
{
#ifdef __x86_64__
    pid_t pid = fork();
    fork_check(pid);
    if (pid == 0) {
        if (ptrace(PTRACE_TRACEME, 0, NULL, NULL) != 0) {
            _exit(1);
        }
        raise(SIGSTOP);
        _exit(2);
    }
    int status = 0;
    ck_assert_int_eq(waitpid(pid, &status, 0), pid);
    if (WIFSTOPPED(status)) {
        kill(pid, SIGKILL);
        waitpid(pid, &status, 0);
        return true;
    }
    const char *why = "ptrace is not permitted here (a seccomp profile or a container?)";
#else
    const char *why = "single steps are written for x86-64 only";
#endif
    fprintf(stderr,
            "cannot kill after every instruction: %s; PULSING_ALLOW_NO_PTRACE=1 leaves "
            "these tests out\n",
            why);
    return false;
}

void step_pin(void)
{
    cpu_set_t set;
    int cpu = sched_getcpu();
    CPU_ZERO(&set);
    CPU_SET(cpu >= 0 ? cpu : 0, &set);
    ck_assert_int_eq(sched_setaffinity(0, sizeof set, &set), 0);
}

void step_start(step_child *child, void (*run)(void *context), void *context)
{
    memset(child, 0, sizeof *child);
    child->pid = fork();
    fork_check(child->pid);
    if (child->pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (ptrace(PTRACE_TRACEME, 0, NULL, NULL) != 0) {
            _exit(1);
        }
        run(context);
        step_end();
        _exit(0);
    }
    int status = 0;
    ck_assert_int_eq(waitpid(child->pid, &status, 0), child->pid);
    if (!WIFSTOPPED(status) || WSTOPSIG(status) != SIGTRAP) {
        child->trouble = status;
    }
}

void step_free(step_child *child)
{
    ck_assert_int_eq(ptrace(PTRACE_DETACH, child->pid, NULL, NULL), 0);
}

void step_kill(step_child *child)
{
    int status = 0;
    kill(child->pid, SIGKILL);
    while (waitpid(child->pid, &status, 0) == child->pid && !WIFSIGNALED(status) &&
           !WIFEXITED(status)) {
    }
}
