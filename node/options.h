/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PLS_NODE_OPTIONS_H
#define PLS_NODE_OPTIONS_H

#include "node/launch.h"

/* A node's options on their way from the launching process to the node: bytes in a memfd, so that
 * lists of any length travel and nothing shows on a command line. */

/* Descriptors with which pulsing-node is started; the last two in embedded mode only. */
#define PLS_NODE_OPTIONS_FD 3
#define PLS_NODE_CONTROL_FD 4
#define PLS_NODE_LAUNCHER_FD 5

#define PLS_OPTIONS_BYTES_MAX (64u << 20)
#define PLS_OPTIONS_LIST_MAX 65536
#define PLS_WORKER_INFO_BYTES_MAX (16u << 20)
#define PLS_NODE_SEEDS_MAX 64

/* Options as the node has them: `options` points into `memory`. */
typedef struct pls_settings {
    pls_node_options options;
    bool embedded;
    void *memory;
} pls_settings;

/* Checks options and writes them into a fresh memfd.
 * Errors:  PLS_EINVAL, with the reason in `trouble`; PLS_ETOOBIG, PLS_ENOMEM, PLS_EFDLIMIT,
 *          PLS_ESYS.
 * Owns:    borrows the options; gives the descriptor (close-on-exec).
 * Threads: any thread; never blocks. */
PLS_MUST_USE pls_err pls_options_store(const pls_node_options *options, bool embedded, int *fd_out,
                                       char *trouble);

/* Reads them back.
 * Errors:  PLS_EPROTO  other bytes; PLS_EVERSION; PLS_ENOMEM, PLS_ESYS.
 * Owns:    borrows `fd`; gives the settings, for pls_settings_fini().
 * Threads: any thread; never blocks. */
PLS_MUST_USE pls_err pls_options_load(int fd, pls_settings *settings_out);

/* Frees what pls_options_load() gave; a zeroed one is accepted.
 * Threads: any thread; never blocks. */
void pls_settings_fini(pls_settings *settings);

#endif
