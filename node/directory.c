/* SPDX-License-Identifier: Apache-2.0 */
/* The directory of slots. The node writes facts and, last, the life word; everybody else reads the
 * life word first. A reader that finds another epoch after he has read a line throws away what he
 * read. */
#include "node/directory.h"

#include "base/assert.h"
#include "node/control.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define LIFE_STATE_MASK 0xffu
#define LIFE_EPOCH_SHIFT 8
#define ENDED_HINTS_SHIFT 8
#define ENDED_CODE_SHIFT 32
#define SEALS (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL)

pls_err pls_directory_create(pls_directory **directory_out, int *fd_out)
{
    int fd = memfd_create("pulsing-directory", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0) {
        return pls_err_from_errno(errno);
    }
    pls_err err = PLS_OK;
    void *base = MAP_FAILED;
    if (ftruncate(fd, sizeof(pls_directory)) != 0 ||
        fallocate(fd, 0, 0, sizeof(pls_directory)) != 0 || fcntl(fd, F_ADD_SEALS, SEALS) != 0) {
        err = pls_err_from_errno(errno);
    } else {
        base = mmap(NULL, sizeof(pls_directory), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        err = base == MAP_FAILED ? pls_err_from_errno(errno) : PLS_OK;
    }
    if (err != PLS_OK) {
        close(fd);
        return err;
    }
    pls_directory *directory = base;
    directory->header.magic = PLS_DIRECTORY_MAGIC;
    directory->header.version = PLS_DIRECTORY_VERSION;
    directory->header.line_bytes = sizeof(pls_directory_line);
    directory->header.line_count = PLS_SLOTS_MAX;
    directory->header.layout_hash = pls_control_layout_hash();
    *directory_out = directory;
    *fd_out = fd;
    return PLS_OK;
}

static pls_err header_check(const pls_directory_header *header)
{
    if (header->magic != PLS_DIRECTORY_MAGIC) {
        return PLS_ECORRUPT;
    }
    if (header->version != PLS_DIRECTORY_VERSION ||
        header->line_bytes != sizeof(pls_directory_line) || header->line_count != PLS_SLOTS_MAX ||
        header->layout_hash != pls_control_layout_hash()) {
        return PLS_EVERSION;
    }
    return PLS_OK;
}

pls_err pls_directory_map(int fd, pls_directory **directory_out)
{
    struct stat stat;
    int seals = fcntl(fd, F_GET_SEALS);
    if (seals < 0 || (seals & SEALS) != SEALS || fstat(fd, &stat) != 0 ||
        stat.st_size != (off_t)sizeof(pls_directory)) {
        return PLS_ECORRUPT;
    }
    void *base = mmap(NULL, sizeof(pls_directory), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (base == MAP_FAILED) {
        return pls_err_from_errno(errno);
    }
    pls_err err = header_check(base);
    if (err != PLS_OK) {
        munmap(base, sizeof(pls_directory));
        return err;
    }
    *directory_out = base;
    return PLS_OK;
}

void pls_directory_unmap(pls_directory *directory)
{
    if (directory != NULL) {
        munmap(directory, sizeof *directory);
    }
}

pls_slot_state pls_directory_peek(const pls_directory *directory, uint32_t slot,
                                  uint32_t *epoch_out)
{
    pls_assert(slot < PLS_SLOTS_MAX);
    /* Acquire: pairs with the release in pls_directory_life_set(), so that the rest of the line is
     * what the node wrote before. */
    uint32_t life = atomic_load_explicit(&directory->lines[slot].life, memory_order_acquire);
    uint32_t state = life & LIFE_STATE_MASK;
    *epoch_out = life >> LIFE_EPOCH_SHIFT;
    return state <= PLS_SLOT_DEAD ? (pls_slot_state)state : PLS_SLOT_FREE;
}

pls_slot_state pls_directory_state(const pls_directory *directory, uint32_t slot, uint32_t epoch)
{
    uint32_t found;
    pls_slot_state state = pls_directory_peek(directory, slot, &found);
    return found == epoch ? state : PLS_SLOT_FREE;
}

pls_err pls_directory_death(const pls_directory *directory, uint32_t slot, uint32_t epoch,
                            pls_death *death_out)
{
    pls_slot_state state = pls_directory_state(directory, slot, epoch);
    if (state != PLS_SLOT_DYING && state != PLS_SLOT_DEAD) {
        return PLS_ENOENT;
    }
    const pls_directory_line *line = &directory->lines[slot];
    uint64_t ended = atomic_load_explicit(&line->ended, memory_order_relaxed);
    pls_death death = {
        .state = state,
        .role = (pls_role)atomic_load_explicit(&line->role, memory_order_relaxed),
        .worker_index = atomic_load_explicit(&line->worker_index, memory_order_relaxed),
        .pid = atomic_load_explicit(&line->pid, memory_order_relaxed),
        .how = (pls_ended_how)(ended & 0xff),
        .code = (uint32_t)(ended >> ENDED_CODE_SHIFT),
        .hints = (uint32_t)(ended >> ENDED_HINTS_SHIFT) & 0xff,
        .ended_ns = atomic_load_explicit(&line->ended_ns, memory_order_relaxed),
    };
    /* Acquire: keeps the second look at the epoch behind the loads above. */
    atomic_thread_fence(memory_order_acquire);
    if (pls_directory_state(directory, slot, epoch) == PLS_SLOT_FREE) {
        return PLS_ENOENT;
    }
    *death_out = death;
    return PLS_OK;
}

void pls_death_text(const pls_death *death, char *text, size_t capacity)
{
    const char *oom = (death->hints & PLS_ENDED_HINT_MEMORY) != 0 ? ", over its memory limit"
                      : (death->hints & PLS_ENDED_HINT_OOM) != 0  ? " (out of memory?)"
                                                                  : "";
    const char *name = death->how == PLS_ENDED_SIGNAL ? sigabbrev_np((int)death->code) : NULL;
    if (death->state == PLS_SLOT_DYING || death->how == PLS_ENDED_NOT) {
        snprintf(text, capacity, "pid %u, dying%s", death->pid, oom);
    } else if ((death->hints & PLS_ENDED_HINT_RECYCLED) != 0 && death->code == 0) {
        snprintf(text, capacity, "pid %u, recycled", death->pid);
    } else if (death->how == PLS_ENDED_EXIT) {
        snprintf(text, capacity, "pid %u, exit code %u", death->pid, death->code);
    } else if (name != NULL) {
        snprintf(text, capacity, "pid %u, SIG%s%s", death->pid, name, oom);
    } else if (death->how == PLS_ENDED_SIGNAL) {
        snprintf(text, capacity, "pid %u, signal %u%s", death->pid, death->code, oom);
    } else if (death->how == PLS_ENDED_DETACHED) {
        snprintf(text, capacity, "pid %u, left the system", death->pid);
    } else {
        snprintf(text, capacity, "pid %u, ended", death->pid);
    }
}

void pls_death_words(const pls_death *death, char *text, size_t capacity)
{
    char how[128];
    if (death == NULL) {
        snprintf(text, capacity, "its process is gone");
        return;
    }
    pls_death_text(death, how, sizeof how);
    if (death->role == PLS_ROLE_WORKER && death->worker_index != PLS_WORKER_INDEX_NONE) {
        snprintf(text, capacity, "worker %u died (%s)", death->worker_index, how);
    } else {
        snprintf(text, capacity, "%s died (%s)",
                 death->role == PLS_ROLE_WORKER ? "its dedicated worker" : "its process", how);
    }
}

void pls_directory_life_set(pls_directory *directory, uint32_t slot, uint32_t epoch,
                            pls_slot_state state)
{
    pls_assert(slot < PLS_SLOTS_MAX);
    pls_assert(epoch <= PLS_EPOCH_MAX);
    /* Release: pairs with the acquire in pls_directory_peek(). */
    atomic_store_explicit(&directory->lines[slot].life, epoch << LIFE_EPOCH_SHIFT | (uint32_t)state,
                          memory_order_release);
}

void pls_directory_line_clear(pls_directory *directory, uint32_t slot)
{
    pls_assert(slot < PLS_SLOTS_MAX);
    pls_directory_line *line = &directory->lines[slot];
    uint32_t life = atomic_load_explicit(&line->life, memory_order_relaxed);
    memset(line, 0, sizeof *line);
    atomic_store_explicit(&line->life, life, memory_order_relaxed);
    atomic_store_explicit(&line->worker_index, PLS_WORKER_INDEX_NONE, memory_order_relaxed);
}

void pls_directory_end_set(pls_directory *directory, uint32_t slot, pls_ended_how how,
                           uint32_t code, uint32_t hints, uint64_t now_ns)
{
    pls_assert(slot < PLS_SLOTS_MAX);
    pls_directory_line *line = &directory->lines[slot];
    uint64_t ended =
        (uint64_t)how | (uint64_t)hints << ENDED_HINTS_SHIFT | (uint64_t)code << ENDED_CODE_SHIFT;
    atomic_store_explicit(&line->ended_ns, now_ns, memory_order_relaxed);
    atomic_store_explicit(&line->ended, ended, memory_order_relaxed);
}
