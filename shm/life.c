/* SPDX-License-Identifier: Apache-2.0 */
/* Life words. A word is the futex of a robust mutex of the C library, because the kernel knows one
 * robust list per thread and the library owns it. The holder sets the waiters bit itself, so that
 * the kernel always wakes whoever watches and watching needs no write. */
#include "shm/life.h"

#include "base/assert.h"
#include "base/limits.h"

#include <errno.h>
#include <linux/futex.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stddef.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

/* Since Linux 5.16, headers may be older. */
#ifndef SYS_futex_waitv
#define SYS_futex_waitv 449
#endif
#define WAITV_32BIT 2

typedef struct waitv {
    uint64_t value;
    uint64_t address;
    uint32_t flags;
    uint32_t spare;
} waitv;

enum life_state { LIFE_FRESH = 0, LIFE_HELD = 1, LIFE_RELEASED = 2, LIFE_LEFT = 3 };

/* How a life word's memory is used. */
typedef struct life_line {
    union {
        pthread_mutex_t mutex;
        _Atomic uint32_t word;
    } lock;
    _Atomic uint32_t state;
} life_line;

_Static_assert(sizeof(life_line) <= PLS_LINE_BYTES, "a life word is one line");
_Static_assert(sizeof(waitv) == 24, "as the kernel has it");
#ifdef __GLIBC__
_Static_assert(offsetof(pthread_mutex_t, __data.__lock) == 0, "the futex is the first word");
#endif

static const life_line *line_of(const uint8_t *memory)
{
    return (const life_line *)(const void *)memory;
}

pls_err pls_life_hold(uint8_t *memory)
{
#ifndef __GLIBC__
    return PLS_EUNSUPPORTED;
#else
    life_line *line = (life_line *)(void *)memory;
    pthread_mutexattr_t attributes;
    if (atomic_load_explicit(&line->state, memory_order_relaxed) != LIFE_FRESH) {
        return PLS_EEXIST;
    }
    if (pthread_mutexattr_init(&attributes) != 0) {
        return PLS_ENOMEM;
    }
    pls_err err = PLS_EUNSUPPORTED;
    if (pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED) == 0 &&
        pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST) == 0 &&
        pthread_mutex_init(&line->lock.mutex, &attributes) == 0 &&
        pthread_mutex_lock(&line->lock.mutex) == 0) {
        atomic_fetch_or_explicit(&line->lock.word, FUTEX_WAITERS, memory_order_relaxed);
        /* Release pairs with the acquire in word_watch(): the lock is there once it is held. */
        atomic_store_explicit(&line->state, LIFE_HELD, memory_order_release);
        err = PLS_OK;
    }
    pthread_mutexattr_destroy(&attributes);
    return err;
#endif
}

void pls_life_release(uint8_t *memory)
{
    life_line *line = (life_line *)(void *)memory;
    uint32_t state = atomic_load_explicit(&line->state, memory_order_relaxed);
    if (state != LIFE_HELD && state != LIFE_LEFT) {
        return;
    }
    /* Before unlocking, so that whoever is woken by it sees the good order. */
    atomic_store_explicit(&line->state, LIFE_RELEASED, memory_order_release);
    pthread_mutex_unlock(&line->lock.mutex);
}

void pls_life_leave(uint8_t *memory)
{
    life_line *line = (life_line *)(void *)memory;
    if (atomic_load_explicit(&line->state, memory_order_relaxed) == LIFE_HELD) {
        atomic_store_explicit(&line->state, LIFE_LEFT, memory_order_release);
        (void)syscall(SYS_futex, &line->lock.word, FUTEX_WAKE, 1, NULL, NULL, 0);
    }
}

bool pls_life_ended(const uint8_t *memory)
{
    const life_line *line = line_of(memory);
    return (atomic_load_explicit(&line->lock.word, memory_order_relaxed) & FUTEX_OWNER_DIED) != 0 &&
           atomic_load_explicit(&line->state, memory_order_relaxed) != LIFE_LEFT;
}

enum word_now { WORD_SKIP, WORD_OVER, WORD_WATCH };

/* Whether a word is over, or what the kernel shall compare it with while we sleep. */
static enum word_now word_watch(const uint8_t *memory, waitv *wait)
{
    const life_line *line = line_of(memory);
    uint32_t state = atomic_load_explicit(&line->state, memory_order_acquire);
    uint32_t word = atomic_load_explicit(&line->lock.word, memory_order_relaxed);
    if (state == LIFE_FRESH) {
        return WORD_SKIP;
    }
    if (state != LIFE_HELD || (word & FUTEX_OWNER_DIED) != 0 || (word & FUTEX_TID_MASK) == 0) {
        return WORD_OVER;
    }
    *wait = (waitv){word, (uint64_t)(uintptr_t)&line->lock.word, WAITV_32BIT, 0};
    return WORD_WATCH;
}

static struct timespec deadline_after(int timeout_ms)
{
    struct timespec at;
    clock_gettime(CLOCK_MONOTONIC, &at);
    at.tv_sec += timeout_ms / 1000;
    at.tv_nsec += timeout_ms % 1000 * 1000000L;
    if (at.tv_nsec >= 1000000000L) {
        at.tv_sec++;
        at.tv_nsec -= 1000000000L;
    }
    return at;
}

/* Sleep on the words; PLS_OK means only that it is worth looking again. */
static pls_err words_sleep(const waitv *waits, uint32_t count, const struct timespec *deadline)
{
    if (count == 0) {
        pls_assert(deadline != NULL);
        (void)clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, deadline, NULL);
        return PLS_ETIMEDOUT;
    }
    long woken = syscall(SYS_futex_waitv, waits, count, 0, deadline, CLOCK_MONOTONIC);
    if (woken >= 0 || errno == EAGAIN || errno == EINTR) {
        return PLS_OK;
    }
    if (errno == ETIMEDOUT) {
        return PLS_ETIMEDOUT;
    }
    return errno == ENOSYS || errno == EPERM ? PLS_EUNSUPPORTED : pls_err_from_errno(errno);
}

pls_err pls_life_wait(const pls_life_watch *watch, int timeout_ms, uint32_t *index_out)
{
    pls_assert(watch->count <= PLS_LIFE_WAIT_MAX);
    waitv waits[PLS_LIFE_WAIT_MAX + 1];
    struct timespec deadline = {0};
    if (timeout_ms >= 0) {
        deadline = deadline_after(timeout_ms);
    }
    for (;;) {
        uint32_t count = 0;
        for (uint32_t i = 0; i < watch->count; i++) {
            enum word_now now = word_watch(watch->memories[i], &waits[count]);
            if (now == WORD_OVER) {
                *index_out = i;
                return PLS_OK;
            }
            count += now == WORD_WATCH;
        }
        if (watch->interrupt != NULL) {
            if (atomic_load_explicit(watch->interrupt, memory_order_acquire) !=
                watch->interrupt_value) {
                return PLS_EEMPTY;
            }
            waits[count++] = (waitv){watch->interrupt_value, (uint64_t)(uintptr_t)watch->interrupt,
                                     WAITV_32BIT, 0};
        }
        pls_err err = words_sleep(waits, count, timeout_ms >= 0 ? &deadline : NULL);
        if (err != PLS_OK) {
            return err;
        }
    }
}

void pls_life_interrupt(_Atomic uint32_t *word)
{
    /* Release pairs with the acquire in pls_life_wait(). */
    atomic_fetch_add_explicit(word, 1, memory_order_release);
    (void)syscall(SYS_futex, word, FUTEX_WAKE, 1, NULL, NULL, 0);
}
