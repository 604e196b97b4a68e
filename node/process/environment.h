/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PLS_NODE_PROCESS_ENVIRONMENT_H
#define PLS_NODE_PROCESS_ENVIRONMENT_H

#include "base/err.h"

#include <stdint.h>

/* Processors that this process may use: its affinity, cut by the cgroup's cpu.max; at least 1.
 * Threads: any thread; never blocks. */
uint32_t pls_cpus_usable(void);

/* The environment for the template: this process's, with `overrides` ("NAME=value" sets, "NAME"
 * removes), and with the thread counts of numeric libraries where nobody has set them.
 * Units:   `threads` for those libraries.
 * Errors:  PLS_ENOMEM.
 * Owns:    gives the array (one free()), which lends its strings. Threads: owner thread. */
PLS_MUST_USE pls_err pls_environment_make(const char *const *overrides, uint32_t threads,
                                          char ***environment_out);

#endif
