/* SPDX-License-Identifier: Apache-2.0 */
/* One wait takes only so many words, so slots are split into groups with a thread each, which
 * starts with the group's first process. A thread takes the set of words anew after each change; a
 * removal waits until it has, because the memory may be unmapped afterwards. */
#include "node/process/vigil.h"

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

#define GROUPS ((PLS_SLOTS_MAX + PLS_LIFE_WAIT_MAX - 1) / PLS_LIFE_WAIT_MAX)

typedef struct group {
    pls_vigil *vigil;
    uint32_t number;
    pthread_t thread;
    bool runs; /* its thread is there and looks at the words */
    bool started;
    _Atomic uint32_t interrupt;
    uint64_t wanted; /* counts changes of the set */
    uint64_t taken;  /* the change up to which the thread has the set */
} group;

struct pls_vigil {
    int notice_fd;
    pthread_mutex_t lock;
    pthread_cond_t taken;
    bool leave;
    const uint8_t *words[PLS_SLOTS_MAX]; /* NULL: not watched, or told already */
    bool ended[PLS_SLOTS_MAX];
    group groups[GROUPS];
};

/* The words of a group, with their slots. */
typedef struct word_set {
    const uint8_t *words[PLS_LIFE_WAIT_MAX];
    uint32_t slots[PLS_LIFE_WAIT_MAX];
    uint32_t count;
} word_set;

static void set_take_lock_held(group *g, word_set *set)
{
    uint32_t first = g->number * PLS_LIFE_WAIT_MAX;
    set->count = 0;
    for (uint32_t i = 0; i < PLS_LIFE_WAIT_MAX && first + i < PLS_SLOTS_MAX; i++) {
        if (g->vigil->words[first + i] != NULL) {
            set->words[set->count] = g->vigil->words[first + i];
            set->slots[set->count] = first + i;
            set->count++;
        }
    }
    g->taken = g->wanted;
    pthread_cond_broadcast(&g->vigil->taken);
}

/* A word has ended or was let go; in both cases there is nothing more to wait for. */
static void word_done_lock_held(pls_vigil *vigil, uint32_t slot, const uint8_t *word)
{
    uint64_t one = 1;
    if (vigil->words[slot] != word) {
        return;
    }
    vigil->words[slot] = NULL;
    if (pls_life_ended(word)) {
        vigil->ended[slot] = true;
        (void)!write(vigil->notice_fd, &one, sizeof one);
    }
}

static void *group_main(void *argument)
{
    group *g = argument;
    pls_vigil *vigil = g->vigil;
    word_set set;
    pthread_mutex_lock(&vigil->lock);
    while (!vigil->leave && g->runs) {
        uint32_t index = 0;
        pls_life_watch watch = {.memories = set.words, .interrupt = &g->interrupt};
        watch.interrupt_value = atomic_load(&g->interrupt);
        set_take_lock_held(g, &set);
        watch.count = set.count;
        pthread_mutex_unlock(&vigil->lock);
        pls_err err = pls_life_wait(&watch, -1, &index);
        pthread_mutex_lock(&vigil->lock);
        if (err == PLS_OK && index < set.count) {
            word_done_lock_held(vigil, set.slots[index], set.words[index]);
        } else if (err != PLS_EEMPTY) {
            g->runs = false;
        }
    }
    g->runs = false;
    pthread_cond_broadcast(&vigil->taken);
    pthread_mutex_unlock(&vigil->lock);
    return NULL;
}

static void group_start_lock_held(group *g)
{
    sigset_t all;
    sigset_t before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    g->runs = true;
    g->started = pthread_create(&g->thread, NULL, group_main, g) == 0;
    g->runs = g->started;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
}

pls_err pls_vigil_create(pls_vigil **vigil_out, int *notice_fd_out)
{
    pls_vigil *vigil = calloc(1, sizeof *vigil);
    if (vigil == NULL) {
        return PLS_ENOMEM;
    }
    vigil->notice_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (vigil->notice_fd < 0) {
        free(vigil);
        return pls_err_from_errno(errno);
    }
    pthread_mutex_init(&vigil->lock, NULL);
    pthread_cond_init(&vigil->taken, NULL);
    for (uint32_t i = 0; i < GROUPS; i++) {
        vigil->groups[i].vigil = vigil;
        vigil->groups[i].number = i;
    }
    *vigil_out = vigil;
    *notice_fd_out = vigil->notice_fd;
    return PLS_OK;
}

void pls_vigil_destroy(pls_vigil *vigil)
{
    if (vigil == NULL) {
        return;
    }
    pthread_mutex_lock(&vigil->lock);
    vigil->leave = true;
    pthread_mutex_unlock(&vigil->lock);
    for (uint32_t i = 0; i < GROUPS; i++) {
        if (vigil->groups[i].started) {
            pls_life_interrupt(&vigil->groups[i].interrupt);
            pthread_join(vigil->groups[i].thread, NULL);
        }
    }
    pthread_cond_destroy(&vigil->taken);
    pthread_mutex_destroy(&vigil->lock);
    close(vigil->notice_fd);
    free(vigil);
}

void pls_vigil_add(pls_vigil *vigil, uint32_t slot, const uint8_t *life)
{
    pls_assert(slot < PLS_SLOTS_MAX);
    group *g = &vigil->groups[slot / PLS_LIFE_WAIT_MAX];
    pthread_mutex_lock(&vigil->lock);
    vigil->words[slot] = life;
    vigil->ended[slot] = false;
    g->wanted++;
    if (!g->started) {
        group_start_lock_held(g);
    }
    pthread_mutex_unlock(&vigil->lock);
    pls_life_interrupt(&g->interrupt);
}

void pls_vigil_remove(pls_vigil *vigil, uint32_t slot)
{
    pls_assert(slot < PLS_SLOTS_MAX);
    group *g = &vigil->groups[slot / PLS_LIFE_WAIT_MAX];
    pthread_mutex_lock(&vigil->lock);
    vigil->words[slot] = NULL;
    vigil->ended[slot] = false;
    uint64_t change = ++g->wanted;
    pls_life_interrupt(&g->interrupt);
    while (g->runs && g->taken < change) {
        pthread_cond_wait(&vigil->taken, &vigil->lock);
    }
    pthread_mutex_unlock(&vigil->lock);
}

bool pls_vigil_next(pls_vigil *vigil, uint32_t *slot_out)
{
    uint64_t count;
    bool found = false;
    (void)!read(vigil->notice_fd, &count, sizeof count);
    pthread_mutex_lock(&vigil->lock);
    for (uint32_t slot = 0; slot < PLS_SLOTS_MAX && !found; slot++) {
        if (vigil->ended[slot]) {
            vigil->ended[slot] = false;
            *slot_out = slot;
            found = true;
        }
    }
    pthread_mutex_unlock(&vigil->lock);
    return found;
}
