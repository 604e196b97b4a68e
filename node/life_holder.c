/* SPDX-License-Identifier: Apache-2.0 */
/* Who holds this process's life word. The kernel marks the word when the holding thread ends, so
 * that has to be a thread which lives as long as the process: the main thread where that is the one
 * that attaches (a second thread would make every later os.fork() of the program warn), else a
 * thread made for the purpose. */
#include "node/attach_link.h"

#include "node/attach.h"
#include "shm/inbox.h"
#include "shm/life.h"

#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

struct pls_life_holder {
    uint8_t *memory;
    bool threaded;
    pid_t pid;
    pid_t tid; /* of the holder when it is the main thread */
    pthread_t thread;
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    bool decided;
    bool leave;
    pls_err err;
};

/* What the main thread holds of attachments that other threads have closed: the list of a thread's
 * robust mutexes is changed by that thread alone, and goes through the memory of each. */
typedef struct kept {
    struct kept *next;
    pls_inbox *inbox;
    pid_t pid; /* in a forked child nothing is held */
} kept;

static struct {
    pthread_mutex_t mutex;
    kept *first;
} attic = {.mutex = PTHREAD_MUTEX_INITIALIZER};

static pid_t thread_id(void)
{
    return (pid_t)syscall(SYS_gettid);
}

static void *holder_main(void *argument)
{
    pls_life_holder *holder = argument;
    pls_err err = pls_life_hold(holder->memory);
    pthread_mutex_lock(&holder->mutex);
    holder->err = err;
    holder->decided = true;
    pthread_cond_broadcast(&holder->changed);
    while (!holder->leave) {
        pthread_cond_wait(&holder->changed, &holder->mutex);
    }
    pthread_mutex_unlock(&holder->mutex);
    if (err == PLS_OK) {
        pls_life_release(holder->memory);
    }
    return NULL;
}

static pls_err thread_start(pls_life_holder *holder)
{
    pthread_attr_t attributes;
    sigset_t all;
    sigset_t before;
    if (pthread_attr_init(&attributes) != 0) {
        return PLS_ENOMEM;
    }
    (void)pthread_attr_setstacksize(&attributes, PTHREAD_STACK_MIN * 2);
    sigfillset(&all);
    /* The program's handlers run in the program's threads. */
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int failed = pthread_create(&holder->thread, &attributes, holder_main, holder);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attributes);
    if (failed != 0) {
        return PLS_ENOMEM;
    }
    holder->threaded = true;
    pthread_mutex_lock(&holder->mutex);
    while (!holder->decided) {
        pthread_cond_wait(&holder->changed, &holder->mutex);
    }
    pthread_mutex_unlock(&holder->mutex);
    return holder->err;
}

void pls_attach_inbox_keep(pls_inbox *inbox)
{
    kept *one = malloc(sizeof *one);
    if (one == NULL) {
        return; /* it stays to the end of the process */
    }
    pthread_mutex_lock(&attic.mutex);
    *one = (kept){attic.first, inbox, getpid()};
    attic.first = one;
    pthread_mutex_unlock(&attic.mutex);
}

/* Gives back what the main thread holds of attachments that are closed, if this is it. */
static void attic_sweep(void)
{
    if (thread_id() != getpid()) {
        return;
    }
    pthread_mutex_lock(&attic.mutex);
    kept *one = attic.first;
    attic.first = NULL;
    pthread_mutex_unlock(&attic.mutex);
    while (one != NULL) {
        kept *next = one->next;
        if (one->pid == getpid()) {
            pls_life_release(pls_inbox_header_of(one->inbox)->life);
        }
        pls_inbox_destroy(one->inbox);
        free(one);
        one = next;
    }
}

pls_err pls_life_holder_create(uint8_t *memory, pls_life_holder **holder_out)
{
    attic_sweep();
    pls_life_holder *holder = calloc(1, sizeof *holder);
    if (holder == NULL) {
        return PLS_ENOMEM;
    }
    holder->memory = memory;
    holder->pid = getpid();
    pthread_mutex_init(&holder->mutex, NULL);
    pthread_cond_init(&holder->changed, NULL);
    pls_err err;
    if (thread_id() == getpid()) {
        holder->tid = getpid();
        err = pls_life_hold(memory);
        holder->err = err;
    } else {
        err = thread_start(holder);
    }
    if (err != PLS_OK) {
        (void)pls_life_holder_destroy(holder);
        return err;
    }
    *holder_out = holder;
    return PLS_OK;
}

bool pls_life_holder_destroy(pls_life_holder *holder)
{
    attic_sweep();
    if (holder == NULL) {
        return true;
    }
    bool let_go = true;
    /* In a forked child there is neither the thread nor the hold. */
    if (holder->pid == getpid()) {
        if (holder->threaded) {
            pthread_mutex_lock(&holder->mutex);
            holder->leave = true;
            pthread_cond_broadcast(&holder->changed);
            pthread_mutex_unlock(&holder->mutex);
            pthread_join(holder->thread, NULL);
        } else if (holder->err == PLS_OK && holder->tid == thread_id()) {
            pls_life_release(holder->memory);
        } else if (holder->err == PLS_OK) {
            pls_life_leave(holder->memory);
            let_go = false;
        }
        pthread_cond_destroy(&holder->changed);
        pthread_mutex_destroy(&holder->mutex);
    }
    free(holder);
    return let_go;
}
