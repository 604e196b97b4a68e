/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PLS_TESTS_STRESS_STEP_H
#define PLS_TESTS_STRESS_STEP_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

/* A child that this process drives instruction by instruction under ptrace. One unit is one
 * instruction of this program's own text; a call that leaves it (libc, the kernel) is one unit too,
 * however long. The child marks places with step_pause() and the end with step_end(). */
typedef struct step_child {
    pid_t pid;
    uint64_t units;   /* taken since the last pause */
    uint64_t foreign; /* of them, calls that left our text */
    bool over;        /* it has reached step_end() */
    int trouble;      /* it ended or got a signal by itself: its wait status; 0: no */
} step_child;

/* Whether ptrace works here. If not, says so on standard error and returns false; the caller fails
 * unless step_waived(). Threads: any thread; may block in the kernel. */
bool step_possible(void);

/* Whether the environment allows leaving the stepped tests out. */
bool step_waived(void);

/* Keeps this process and the children it forks from now on on one CPU: a step is then a switch
 * between two tasks and not a message between two CPUs. */
void step_pin(void);

/* Forks a child that runs `run(context)` up to its first step_pause(). */
void step_start(step_child *child, void (*run)(void *context), void *context);

/* In the child: stop until the parent goes on. */
void step_pause(void);

/* In the child: the end of what is stepped. Its address is what the parent looks for. */
void step_end(void);

/* Runs the child to its next step_pause(), or to step_end(), where `over` is set. */
void step_run(step_child *child);

/* Takes up to `units` units; fewer if step_end() comes first, where `over` is set. */
void step_take(step_child *child, uint64_t units);

/* Where the child's next instruction is: an address of this program's text, as it stands. */
uint64_t step_place(const step_child *child);

/* The places that a child went through: where its next instruction was after 0, 1, 2 ... units. It
 * is the same for every child that does the same thing, so a later one can be run straight to the
 * n-th coming of an address and be stepped from there. */
typedef struct step_trace {
    uint64_t *places;
    uint32_t *comings; /* how often that place had come by then, this time included */
    uint64_t count;    /* of units; places has one more */
    uint64_t foreign;
    uint64_t capacity;
} step_trace;

/* Steps the child to step_end() and notes its way; `trace` is empty or is used again. */
void step_record(step_child *child, step_trace *trace);

/* Takes the child, which is where the recorded one began, to the state after `units` units. Fails
 * the test if it does not go the recorded way. */
void step_to(step_child *child, const step_trace *trace, uint64_t units);

/* How often the instruction before this point had been executed by then, this time included. */
uint64_t step_visits(const step_trace *trace, uint64_t units);

void step_trace_fini(step_trace *trace);

/* Lets the child run freely, without being traced any more. */
void step_free(step_child *child);

/* SIGKILL, and waits until the kernel says that it is gone. */
void step_kill(step_child *child);

#endif
