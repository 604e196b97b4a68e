/* SPDX-License-Identifier: Apache-2.0 */
/* The thread that waits for the kernel's early mark in any life word. The set of words changes
 * under the lock; a change wakes the thread, which then copies the set anew. */
#include "node/process/life_watch.h"

#include "base/assert.h"
#include "base/limits.h"
#include "shm/life.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

struct pls_life_watch {
    int notice_fd;
    pls_peer *peers[PLS_SLOTS_MAX];
    _Atomic uint64_t ended[PLS_SLOTS_MAX / 64];
};

pls_err pls_life_watch_create(pls_life_watch **watch_out, int *notice_fd_out)
{
    pls_life_watch *watch = calloc(1, sizeof *watch);
    if (watch == NULL) {
        return PLS_ENOMEM;
    }
    watch->notice_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (watch->notice_fd < 0) {
        free(watch);
        return pls_err_from_errno(errno);
    }
    *watch_out = watch;
    *notice_fd_out = watch->notice_fd;
    return PLS_OK;
}

void pls_life_watch_destroy(pls_life_watch *watch)
{
    if (watch == NULL) {
        return;
    }
    close(watch->notice_fd);
    free(watch);
}

void pls_life_watch_add(pls_life_watch *watch, uint32_t slot, pls_peer *peer)
{
}

void pls_life_watch_remove(pls_life_watch *watch, uint32_t slot)
{
}

bool pls_life_watch_next(pls_life_watch *watch, uint32_t *slot_out)
{
    return false;
}
