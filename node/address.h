/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PLS_NODE_ADDRESS_H
#define PLS_NODE_ADDRESS_H

#include "base/err.h"

#include <stdbool.h>
#include <sys/socket.h>
#include <sys/un.h>

/* Where a node listens for processes of its host: a bare name is an abstract socket that carries
 * the uid, so that nothing is left behind by any ending; a name with a '/' is a path. */
typedef struct pls_address {
    struct sockaddr_un un;
    socklen_t len;
    bool is_path;
} pls_address;

/* Errors:  PLS_EINVAL  empty or too long.
 * Threads: any thread; never blocks. */
PLS_MUST_USE pls_err pls_address_make(const char *name_or_path, pls_address *address_out);

/* Whether the process at the other end of a connected socket runs under this process's uid.
 * Threads: any thread; never blocks. */
bool pls_address_peer_is_own(int fd);

/* Opens a listening socket. A path left over by a dead node is replaced; one where a node answers
 * is not.
 * Errors:  PLS_EEXIST  a node of that name runs; PLS_EINVAL; PLS_ENOENT, PLS_EPERM  the directory;
 *          PLS_EFDLIMIT, PLS_ESYS.
 * Owns:    gives the descriptor (close-on-exec, non-blocking).
 * Threads: any thread; may block while another node is at the same directory. */
PLS_MUST_USE pls_err pls_address_listen(const pls_address *address, int *fd_out);

#endif
