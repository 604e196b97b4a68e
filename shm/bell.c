/* SPDX-License-Identifier: Apache-2.0 */
/* Doorbells. The order is what makes them safe against a kill: the bit is set before the wake word
 * is looked at, the eventfd is written before the word is disarmed (the next one to ring signals
 * again if a producer dies in between), and the word carries the epoch of its arming so that a slow
 * producer cannot disarm a later one. Only this file touches an eventfd. */
#include "shm/bell.h"

#include "base/assert.h"
#include "base/mutant.h"
#include "shm/fence.h"

#include <errno.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

pls_err pls_bell_eventfd(int *eventfd_out)
{
    int fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (fd < 0) {
        return pls_err_from_errno(errno);
    }
    *eventfd_out = fd;
    return PLS_OK;
}

/* EAGAIN means that the counter is full, so the descriptor is readable anyhow. */
static void signal_eventfd(int fd)
{
    uint64_t one = 1;
    ssize_t written;
    do {
        written = write(fd, &one, sizeof one);
    } while (written < 0 && errno == EINTR);
}

static bool empty_eventfd(int fd)
{
    uint64_t count = 0;
    ssize_t got;
    do {
        got = read(fd, &count, sizeof count);
    } while (got < 0 && errno == EINTR);
    return got == (ssize_t)sizeof count;
}

bool pls_bell_signal(pls_inbox_header *header, int fd)
{
    /* seq_cst: ordered after the setting of the bit; pairs with the fence in pls_bell_arm(). */
    uint64_t wake = atomic_load_explicit(&header->wake.word, memory_order_seq_cst);
    if ((wake & 1) == 0) {
        return false;
    }
    if (pls_mutant(PLS_MUTANT_WINNER_SIGNALS)) {
        if (atomic_compare_exchange_strong(&header->wake.word, &wake, wake + 1)) {
            signal_eventfd(fd);
        }
        return true;
    }
    signal_eventfd(fd);
    /* Relaxed: the word carries no data; the exact epoch is what keeps a late disarm harmless. */
    atomic_compare_exchange_strong_explicit(&header->wake.word, &wake, wake + 1,
                                            memory_order_relaxed, memory_order_relaxed);
    return true;
}

bool pls_bell_ring(pls_inbox_header *header, pls_line *words, uint32_t slot, int fd)
{
    pls_assert(slot < PLS_SLOTS_MAX);
    _Atomic uint64_t *word = &words[slot / 64].word;
    uint64_t bit = UINT64_C(1) << (slot % 64);
    /* Orders the publishing store before the load of the bit: if the bit is still set from earlier,
     * the owner has yet to take it and its fence in pls_bell_take() then shows it our store. */
    if (pls_mutant(PLS_MUTANT_NO_FENCE)) {
        atomic_signal_fence(memory_order_seq_cst);
    } else {
        pls_fence_full();
    }
    if ((atomic_load_explicit(word, memory_order_relaxed) & bit) == 0) {
        /* seq_cst: before the load of the wake word in pls_bell_signal(). */
        atomic_fetch_or_explicit(word, bit, memory_order_seq_cst);
    }
    return pls_bell_signal(header, fd);
}

bool pls_bell_take(pls_line *words, const pls_bitmap *leave, pls_bitmap *into)
{
    bool taken = false;
    for (unsigned i = 0; i < PLS_SLOT_WORDS; i++) {
        uint64_t bits = atomic_load_explicit(&words[i].word, memory_order_relaxed);
        if (leave != NULL) {
            bits &= ~leave->word[i];
        }
        if (bits != 0) {
            into->word[i] |= atomic_exchange_explicit(&words[i].word, 0, memory_order_seq_cst);
            taken = true;
        }
    }
    if (taken) {
        /* Between clearing the bits and looking at what they stand for; pairs with the fence in
         * pls_bell_ring() of a producer that found its bit still set. */
        pls_fence_full();
    }
    return taken;
}

bool pls_bell_any(const pls_line *words, const pls_bitmap *leave)
{
    uint64_t any = 0;
    for (unsigned i = 0; i < PLS_SLOT_WORDS; i++) {
        uint64_t bits = atomic_load_explicit(&words[i].word, memory_order_relaxed);
        any |= leave != NULL ? bits & ~leave->word[i] : bits;
    }
    return any != 0;
}

void pls_bell_arm(pls_bell_owner *owner)
{
    pls_assert(!owner->armed);
    owner->epoch = (owner->epoch + 1) | 1;
    owner->armed = true;
    atomic_store_explicit(&owner->header->wake.word, owner->epoch, memory_order_relaxed);
    /* Between arming and the last look; pairs with the seq_cst load in pls_bell_signal(). */
    pls_fence_full();
}

bool pls_bell_disarm(pls_bell_owner *owner, bool readable)
{
    if (owner->armed) {
        owner->armed = false;
        /* Relaxed: says only whether somebody has signalled this arming. */
        uint64_t was = atomic_exchange_explicit(&owner->header->wake.word, owner->epoch + 1,
                                                memory_order_relaxed);
        readable = readable || was != owner->epoch;
    }
    return readable && empty_eventfd(owner->eventfd);
}

bool pls_bell_is_silent(const pls_bell_owner *owner, int timeout_ms)
{
    if (!owner->armed ||
        atomic_load_explicit(&owner->header->wake.word, memory_order_relaxed) != owner->epoch) {
        return false;
    }
    struct pollfd descriptor = {.fd = owner->eventfd, .events = POLLIN};
    int ready;
    do {
        ready = poll(&descriptor, 1, timeout_ms);
    } while (ready < 0 && errno == EINTR);
    return ready == 0;
}
