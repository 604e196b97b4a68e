/* SPDX-License-Identifier: Apache-2.0 */
/* Names and paths of control sockets. A path outlives its node, so a start that finds one asks
 * whether somebody answers there, under a lock on the directory: two starts at once cannot both
 * take the place of a dead one, and the lock leaves no file. */
#include "node/address.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#define BACKLOG 128

pls_err pls_address_make(const char *name_or_path, pls_address *address_out)
{
    pls_address address = {.un = {.sun_family = AF_UNIX}};
    size_t room = sizeof address.un.sun_path;
    int len;
    if (name_or_path[0] == 0) {
        return PLS_EINVAL;
    }
    address.is_path = strchr(name_or_path, '/') != NULL;
    if (address.is_path) {
        len = snprintf(address.un.sun_path, room, "%s", name_or_path);
    } else {
        /* The leading zero byte makes it abstract. */
        len = snprintf(address.un.sun_path + 1, room - 1, "pulsing.%u.%s", (unsigned)geteuid(),
                       name_or_path);
    }
    if (len < 0 || (size_t)len + 1 >= room) {
        return PLS_EINVAL;
    }
    address.len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + (size_t)len + 1);
    *address_out = address;
    return PLS_OK;
}

bool pls_address_peer_is_own(int fd)
{
    struct ucred peer;
    socklen_t len = sizeof peer;
    return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) == 0 && len == sizeof peer &&
           peer.uid == geteuid();
}

static pls_err directory_lock(const pls_address *address, int *fd_out)
{
    char path[sizeof address->un.sun_path];
    memcpy(path, address->un.sun_path, sizeof path);
    int fd = open(dirname(path), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) {
        return pls_err_from_errno(errno);
    }
    while (flock(fd, LOCK_EX) != 0) {
        if (errno != EINTR) {
            pls_err err = pls_err_from_errno(errno);
            close(fd);
            return err;
        }
    }
    *fd_out = fd;
    return PLS_OK;
}

/* Removes a socket path at which nobody answers. Anything else than a socket stays. */
static pls_err leftover_remove(const pls_address *address)
{
    struct stat stat;
    if (lstat(address->un.sun_path, &stat) != 0) {
        return errno == ENOENT ? PLS_OK : pls_err_from_errno(errno);
    }
    if (!S_ISSOCK(stat.st_mode)) {
        return PLS_EEXIST;
    }
    int probe = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (probe < 0) {
        return pls_err_from_errno(errno);
    }
    int refused = connect(probe, (const struct sockaddr *)&address->un, address->len) != 0 &&
                  errno == ECONNREFUSED;
    close(probe);
    if (!refused) {
        return PLS_EEXIST;
    }
    return unlink(address->un.sun_path) == 0 || errno == ENOENT ? PLS_OK
                                                                : pls_err_from_errno(errno);
}

static pls_err socket_bind(const pls_address *address, int *fd_out)
{
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) {
        return pls_err_from_errno(errno);
    }
    /* Nobody else may connect to a path, whatever the directory allows. */
    mode_t mask = umask(0177);
    int failed = bind(fd, (const struct sockaddr *)&address->un, address->len) != 0 ||
                 listen(fd, BACKLOG) != 0;
    pls_err err = failed ? pls_err_from_errno(errno) : PLS_OK;
    umask(mask);
    if (err != PLS_OK) {
        close(fd);
        return err;
    }
    *fd_out = fd;
    return PLS_OK;
}

pls_err pls_address_listen(const pls_address *address, int *fd_out)
{
    if (!address->is_path) {
        return socket_bind(address, fd_out);
    }
    int lock = -1;
    pls_err err = directory_lock(address, &lock);
    if (err != PLS_OK) {
        return err;
    }
    err = leftover_remove(address);
    if (err == PLS_OK) {
        err = socket_bind(address, fd_out);
    }
    close(lock);
    return err;
}
