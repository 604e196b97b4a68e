/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PLS_SHM_FENCE_H
#define PLS_SHM_FENCE_H

#include <stdatomic.h>

/* The full fence between a store and a later load of another word, which the doorbell protocol
 * needs on both sides. ThreadSanitizer does not model fences; nothing that it checks relies on one,
 * so gcc's warning about that is off here and only here. */
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wtsan"
#endif
static inline void pls_fence_full(void)
{
    atomic_thread_fence(memory_order_seq_cst);
}

static inline void pls_fence_release(void)
{
    atomic_thread_fence(memory_order_release);
}

static inline void pls_fence_acquire(void)
{
    atomic_thread_fence(memory_order_acquire);
}
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic pop
#endif

#endif
