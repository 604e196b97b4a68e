/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PLS_SHM_SEGMENT_H
#define PLS_SHM_SEGMENT_H

#include "base/err.h"

#include <stdbool.h>
#include <stdint.h>

/* A sealed memfd and at most one mapping of a part of it. Nothing has a name in a file system, and
 * no page is touched that was not allocated first, so that lack of memory is an error and never a
 * signal. Memory shared for control is not inherited by a forked child; payload is. */
typedef struct pls_segment {
    int fd; /* -1: none, or given away */
    uint8_t *base;
    uint64_t bytes; /* of the mapping */
} pls_segment;

enum pls_segment_mode {
    PLS_SEGMENT_WRITE = 1,   /* map for writing; else read-only */
    PLS_SEGMENT_INHERIT = 2, /* a forked child keeps the mapping */
    PLS_SEGMENT_HUGE = 4,    /* ask for huge pages */
};

/* A segment that owns nothing, to begin with. */
#define PLS_SEGMENT_EMPTY ((pls_segment){-1, NULL, 0})

/* Make a memfd of fixed size, sealed against any change of size and of seals; no page is allocated.
 * Units:   `bytes` >= 1, rounded up to whole pages by the caller.
 * Errors:  PLS_EFDLIMIT, PLS_ENOMEM, PLS_EUNSUPPORTED, PLS_ESYS.
 * Owns:    gives `fd_out`, close-on-exec; borrows `name`, which shows in /proc only.
 * Threads: any thread; may block in the kernel. */
PLS_MUST_USE pls_err pls_segment_memfd(const char *name, uint64_t bytes, int *fd_out);

/* Make a memfd of fixed size that only the one mapping made here can write: every other mapping,
 * and every other way of writing, is refused. Its pages can be committed but never given back.
 * Units:   `bytes` in whole pages.
 * Errors:  PLS_EFDLIMIT, PLS_ENOMEM, PLS_EUNSUPPORTED, PLS_ESYS.
 * Owns:    gives the descriptor and the mapping in the empty `segment`.
 * Threads: owner thread; may block in the kernel. */
PLS_MUST_USE pls_err pls_segment_memfd_private_writer(const char *name, pls_segment *segment,
                                                      uint64_t bytes);

/* Open the same memory again as a descriptor that can only read.
 * Errors:  PLS_EFDLIMIT, PLS_EUNSUPPORTED (no /proc), PLS_EPERM, PLS_ESYS.
 * Owns:    borrows `fd`; gives `fd_out`, close-on-exec.
 * Threads: any thread; may block in the kernel. */
PLS_MUST_USE pls_err pls_segment_reopen_readonly(int fd, int *fd_out);

/* Check that a descriptor from elsewhere is memory that cannot shrink, and learn its size.
 * Errors:  PLS_EPROTO  not sealed against shrinking, or not memory.
 * Owns:    borrows `fd`.
 * Threads: any thread; may block in the kernel. */
PLS_MUST_USE pls_err pls_segment_measure(int fd, uint64_t *bytes_out);

/* Map `bytes` from `offset` of `fd` into an empty segment.
 * Units:   `offset` and `bytes` in whole pages; `mode` of pls_segment_mode.
 * Errors:  PLS_ENOMEM, PLS_EPERM (write mode on a read-only descriptor), PLS_ESYS.
 * Owns:    borrows `fd`: the segment's own fd stays what it was.
 * Threads: owner thread; may block in the kernel. */
PLS_MUST_USE pls_err pls_segment_map(pls_segment *segment, int fd, uint64_t offset, uint64_t bytes,
                                     unsigned mode);

/* Map one private page into an empty segment whose first byte is 1 here and reads 0 in every forked
 * child, without a system call and however the child was made.
 * Errors:  PLS_ENOMEM, PLS_EUNSUPPORTED, PLS_EINVAL (kernel before 4.14).
 * Threads: owner thread; may block in the kernel. */
PLS_MUST_USE pls_err pls_segment_forkmark(pls_segment *segment);

/* Allocate the pages of a range, so that touching them cannot fail.
 * Errors:  PLS_ENOMEM  pages of the range may have been allocated all the same.
 * Owns:    borrows `fd`.
 * Threads: any thread; may block in the kernel. */
PLS_MUST_USE pls_err pls_segment_commit(int fd, uint64_t offset, uint64_t bytes);

/* Allocate and enter the pages of a mapped range, so that filling it takes no page fault; huge
 * pages where the mapping asked for them and the kernel has them.
 * Errors:  PLS_ENOMEM  pages of the range may have been allocated all the same.
 * Threads: any thread; may block in the kernel. */
PLS_MUST_USE pls_err pls_segment_populate(const pls_segment *segment, uint64_t offset,
                                          uint64_t bytes);

/* Give the pages of a range back; it reads as zeros afterwards, in every process.
 * Errors:  PLS_ESYS, PLS_EPERM; the pages stay.
 * Owns:    borrows `fd`, which must be open for writing.
 * Threads: any thread; may block in the kernel. */
PLS_MUST_USE pls_err pls_segment_punch(int fd, uint64_t offset, uint64_t bytes);

/* Unmap and close whatever the segment has; it is empty afterwards.
 * Threads: owner thread; may block in the kernel. */
void pls_segment_detach(pls_segment *segment);

/* Whether the segment's fields agree. Threads: owner thread; never blocks. */
bool pls_segment_check(const pls_segment *segment);

#endif
