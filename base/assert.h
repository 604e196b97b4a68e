/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PLS_BASE_ASSERT_H
#define PLS_BASE_ASSERT_H

/* For our own mistakes only: preconditions and invariants, on in release builds too, one condition
 * each. Bytes from a peer, another process, Python or a file are input and never asserted. */
#define pls_assert(condition)                                                                      \
    ((condition) ? (void)0 : pls_assert_failed(#condition, __FILE__, __LINE__))

/* Writes the condition and the place to standard error and aborts.
 * Threads: any thread; does not return. */
__attribute__((noreturn, cold)) void pls_assert_failed(const char *condition, const char *file,
                                                       int line);

#endif
