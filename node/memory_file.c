/* SPDX-License-Identifier: Apache-2.0 */
/* Sealed memfds with plain bytes. */
#include "node/memory_file.h"

#include "node/launch.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define SEALS (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL)

pls_err pls_memory_file_make(const char *name, const void *bytes, size_t len, int *fd_out)
{
    int fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0) {
        return pls_err_from_errno(errno);
    }
    pls_err err = PLS_OK;
    for (size_t done = 0; done < len && err == PLS_OK;) {
        ssize_t n = write(fd, (const char *)bytes + done, len - done);
        if (n > 0) {
            done += (size_t)n;
        } else if (errno != EINTR) {
            err = pls_err_from_errno(errno);
        }
    }
    if (err == PLS_OK && fcntl(fd, F_ADD_SEALS, SEALS) != 0) {
        err = pls_err_from_errno(errno);
    }
    if (err != PLS_OK) {
        close(fd);
        return err;
    }
    *fd_out = fd;
    return PLS_OK;
}

pls_err pls_memory_file_measure(int fd, size_t len_max, size_t *len_out)
{
    struct stat stat;
    int seals = fcntl(fd, F_GET_SEALS);
    if (seals < 0 || (seals & SEALS) != SEALS || fstat(fd, &stat) != 0 || stat.st_size < 0) {
        return PLS_EPROTO;
    }
    if ((uint64_t)stat.st_size > len_max) {
        return PLS_ETOOBIG;
    }
    *len_out = (size_t)stat.st_size;
    return PLS_OK;
}

pls_err pls_memory_file_read(int fd, size_t len_max, uint8_t **bytes_out, size_t *len_out)
{
    size_t len;
    pls_err err = pls_memory_file_measure(fd, len_max, &len);
    if (err != PLS_OK) {
        return err;
    }
    uint8_t *bytes = malloc(len + 1);
    if (bytes == NULL) {
        return PLS_ENOMEM;
    }
    for (size_t done = 0; done < len;) {
        ssize_t n = pread(fd, bytes + done, len - done, (off_t)done);
        if (n <= 0) {
            free(bytes);
            return PLS_EPROTO;
        }
        done += (size_t)n;
    }
    *bytes_out = bytes;
    *len_out = len;
    return PLS_OK;
}

void pls_memory_trouble(pls_err err, bool bell, char *trouble)
{
    const char *call = bell ? "eventfd2" : "memfd_create";
    int len = snprintf(trouble, PLS_TROUBLE_BYTES_MAX, "cannot make %s: %s",
                       bell ? "what wakes this process (an eventfd)" : "shared memory (a memfd)",
                       pls_err_text(err));
    if (err == PLS_EPERM || err == PLS_EUNSUPPORTED) {
        snprintf(trouble + len, PLS_TROUBLE_BYTES_MAX - (size_t)len,
                 "; the container or its seccomp profile must allow %s", call);
    }
}
