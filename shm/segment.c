/* SPDX-License-Identifier: Apache-2.0 */
/* Memory files. The only file of this room that makes, seals, maps and allocates shared memory, so
 * that the rule "allocated before touched, sealed before handed out" can be read in one place. */
#include "shm/segment.h"

#include "base/assert.h"
#include "shm/layout.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* Linux 5.14; older kernels answer EINVAL and are served by touching. */
#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif

pls_err pls_segment_memfd(const char *name, uint64_t bytes, int *fd_out)
{
    pls_assert(bytes > 0);
    pls_assert(bytes % PLS_PAGE_BYTES == 0);
    int fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0) {
        return pls_err_from_errno(errno);
    }
    if (ftruncate(fd, (off_t)bytes) != 0 ||
        fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0) {
        pls_err err = pls_err_from_errno(errno);
        close(fd);
        return err;
    }
    *fd_out = fd;
    return PLS_OK;
}

pls_err pls_segment_memfd_private_writer(const char *name, pls_segment *segment, uint64_t bytes)
{
    pls_assert(segment->base == NULL);
    pls_assert(bytes % PLS_PAGE_BYTES == 0);
    pls_err err = PLS_OK;
    int fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0) {
        return pls_err_from_errno(errno);
    }
    if (ftruncate(fd, (off_t)bytes) != 0) {
        err = pls_err_from_errno(errno);
        goto fail;
    }
    err = pls_segment_map(segment, fd, 0, bytes, PLS_SEGMENT_WRITE);
    if (err != PLS_OK) {
        goto fail;
    }
    /* After mapping: this mapping goes on writing and no other can begin to. */
    if (fcntl(fd, F_ADD_SEALS, F_SEAL_FUTURE_WRITE | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) !=
        0) {
        err = pls_err_from_errno(errno);
        goto fail;
    }
    segment->fd = fd;
    return PLS_OK;
fail:
    pls_segment_detach(segment);
    close(fd);
    return err;
}

pls_err pls_segment_reopen_readonly(int fd, int *fd_out)
{
    char path[32];
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    int readonly = open(path, O_RDONLY | O_CLOEXEC);
    if (readonly < 0) {
        return errno == ENOENT ? PLS_EUNSUPPORTED : pls_err_from_errno(errno);
    }
    *fd_out = readonly;
    return PLS_OK;
}

pls_err pls_segment_measure(int fd, uint64_t *bytes_out)
{
    struct stat info;
    int seals = fcntl(fd, F_GET_SEALS);
    if (seals < 0 || (seals & F_SEAL_SHRINK) == 0) {
        return PLS_EPROTO;
    }
    if (fstat(fd, &info) != 0 || info.st_size <= 0) {
        return PLS_EPROTO;
    }
    *bytes_out = (uint64_t)info.st_size;
    return PLS_OK;
}

pls_err pls_segment_map(pls_segment *segment, int fd, uint64_t offset, uint64_t bytes,
                        unsigned mode)
{
    pls_assert(segment->base == NULL);
    pls_assert(offset % PLS_PAGE_BYTES == 0);
    pls_assert(bytes > 0);
    int protection = (mode & PLS_SEGMENT_WRITE) != 0 ? PROT_READ | PROT_WRITE : PROT_READ;
    void *base = mmap(NULL, bytes, protection, MAP_SHARED, fd, (off_t)offset);
    if (base == MAP_FAILED) {
        return pls_err_from_errno(errno);
    }
    if ((mode & PLS_SEGMENT_INHERIT) == 0 && madvise(base, bytes, MADV_DONTFORK) != 0) {
        pls_err err = pls_err_from_errno(errno);
        munmap(base, bytes);
        return err;
    }
    /* Advice only: without huge pages, or in a core dump, nothing breaks. */
    (void)madvise(base, bytes, (mode & PLS_SEGMENT_HUGE) != 0 ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
    (void)madvise(base, bytes, MADV_DONTDUMP);
    segment->base = base;
    segment->bytes = bytes;
    return PLS_OK;
}

pls_err pls_segment_forkmark(pls_segment *segment)
{
    pls_assert(segment->base == NULL);
    void *base =
        mmap(NULL, PLS_PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (base == MAP_FAILED) {
        return pls_err_from_errno(errno);
    }
    if (madvise(base, PLS_PAGE_BYTES, MADV_WIPEONFORK) != 0) {
        pls_err err = pls_err_from_errno(errno);
        munmap(base, PLS_PAGE_BYTES);
        return err;
    }
    segment->base = base;
    segment->bytes = PLS_PAGE_BYTES;
    segment->base[0] = 1;
    return PLS_OK;
}

pls_err pls_segment_commit(int fd, uint64_t offset, uint64_t bytes)
{
    int status;
    do {
        status = fallocate(fd, 0, (off_t)offset, (off_t)bytes);
    } while (status != 0 && errno == EINTR);
    return status == 0 ? PLS_OK : pls_err_from_errno(errno);
}

pls_err pls_segment_populate(const pls_segment *segment, uint64_t offset, uint64_t bytes)
{
    pls_assert(offset <= segment->bytes);
    pls_assert(bytes <= segment->bytes - offset);
    int status;
    do {
        status = madvise(segment->base + offset, bytes, MADV_POPULATE_WRITE);
    } while (status != 0 && (errno == EINTR || errno == EAGAIN));
    if (status == 0) {
        return PLS_OK;
    }
    if (errno == EFAULT || errno == ENOMEM) {
        return PLS_ENOMEM;
    }
    if (errno != EINVAL) {
        return pls_err_from_errno(errno);
    }
    pls_assert(segment->fd >= 0);
    pls_err err = pls_segment_commit(segment->fd, offset, bytes);
    if (err != PLS_OK) {
        return err;
    }
    for (uint64_t at = 0; at < bytes; at += PLS_PAGE_BYTES) {
        *(volatile uint8_t *)(segment->base + offset + at) = 0;
    }
    return PLS_OK;
}

pls_err pls_segment_punch(int fd, uint64_t offset, uint64_t bytes)
{
    int status;
    do {
        status =
            fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)offset, (off_t)bytes);
    } while (status != 0 && errno == EINTR);
    return status == 0 ? PLS_OK : pls_err_from_errno(errno);
}

void pls_segment_detach(pls_segment *segment)
{
    if (segment->base != NULL) {
        munmap(segment->base, segment->bytes);
    }
    if (segment->fd >= 0) {
        close(segment->fd);
    }
    *segment = PLS_SEGMENT_EMPTY;
}

bool pls_segment_check(const pls_segment *segment)
{
    return (segment->base == NULL) == (segment->bytes == 0) && segment->fd >= -1;
}
