/* SPDX-License-Identifier: Apache-2.0 */
/* getaddrinfo() in detached threads. What they share with the owner is counted: whoever comes last,
 * the owner or a thread that hangs in a name server, frees it. */
#include "node/process/lookup.h"

#include "base/assert.h"

#include <errno.h>
#include <netdb.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

/* getaddrinfo keeps whole answers of name servers there. */
#define STACK_BYTES (256u << 10)
#define NS_PER_S 1000000000ll
#define NS_PER_MS 1000000ll

struct pls_lookup {
    pthread_mutex_t lock;
    pthread_cond_t answered;
    int notice_fd;
    bool given_up;
    uint32_t running;
    uint32_t answer_count;
    pls_lookup_answer answers[PLS_LOOKUPS_MAX];
};

typedef struct question {
    pls_lookup *lookup;
    pls_reach reach;
    uint32_t tag;
} question;

static void lookup_free(pls_lookup *lookup)
{
    close(lookup->notice_fd);
    pthread_cond_destroy(&lookup->answered);
    pthread_mutex_destroy(&lookup->lock);
    free(lookup);
}

pls_err pls_lookup_create(pls_lookup **lookup_out, int *notice_fd_out)
{
    pthread_condattr_t monotonic;
    pls_lookup *lookup = calloc(1, sizeof *lookup);
    if (lookup == NULL) {
        return PLS_ENOMEM;
    }
    lookup->notice_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (lookup->notice_fd < 0) {
        pls_err err = pls_err_from_errno(errno);
        free(lookup);
        return err;
    }
    pthread_mutex_init(&lookup->lock, NULL);
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&lookup->answered, &monotonic);
    pthread_condattr_destroy(&monotonic);
    *lookup_out = lookup;
    *notice_fd_out = lookup->notice_fd;
    return PLS_OK;
}

void pls_lookup_destroy(pls_lookup *lookup)
{
    if (lookup == NULL) {
        return;
    }
    pthread_mutex_lock(&lookup->lock);
    lookup->given_up = true;
    bool last = lookup->running == 0;
    pthread_mutex_unlock(&lookup->lock);
    if (last) {
        lookup_free(lookup);
    }
}

static bool endpoint_write(const struct addrinfo *info, char endpoint[])
{
    pls_reach reach;
    char port[8];
    if (getnameinfo(info->ai_addr, info->ai_addrlen, reach.host, sizeof reach.host, port,
                    sizeof port, NI_NUMERICHOST | NI_NUMERICSERV) != 0) {
        return false;
    }
    reach.port = (uint16_t)strtoul(port, NULL, 10);
    return pls_reach_endpoint(&reach, endpoint) == PLS_OK;
}

static void answer_find(const question *q, pls_lookup_answer *answer)
{
    char port[8];
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_ADDRCONFIG};
    struct addrinfo *found = NULL;
    snprintf(port, sizeof port, "%u", q->reach.port);
    int status = getaddrinfo(q->reach.host, port, &hints, &found);
    answer->tag = q->tag;
    answer->why = status == 0 ? "it has no usable address" : gai_strerror(status);
    for (const struct addrinfo *i = found; i != NULL && answer->count < PLS_LOOKUP_ENDPOINTS_MAX;
         i = i->ai_next) {
        answer->count += endpoint_write(i, answer->endpoints[answer->count]);
    }
    if (found != NULL) {
        freeaddrinfo(found);
    }
}

static void *question_run(void *argument)
{
    question *q = argument;
    pls_lookup *lookup = q->lookup;
    pls_lookup_answer answer = {0};
    answer_find(q, &answer);
    free(q);
    pthread_mutex_lock(&lookup->lock);
    lookup->running--;
    /* Room for it was kept when it was asked. */
    lookup->answers[lookup->answer_count++] = answer;
    pthread_cond_signal(&lookup->answered);
    (void)!eventfd_write(lookup->notice_fd, 1);
    bool last = lookup->given_up && lookup->running == 0;
    pthread_mutex_unlock(&lookup->lock);
    if (last) {
        lookup_free(lookup);
    }
    return NULL;
}

static int question_start(question *q)
{
    pthread_attr_t attributes;
    pthread_t thread;
    sigset_t all;
    sigset_t before;
    sigfillset(&all);
    pthread_attr_init(&attributes);
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    pthread_attr_setstacksize(&attributes, STACK_BYTES);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int failed = pthread_create(&thread, &attributes, question_run, q);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attributes);
    return failed;
}

pls_err pls_lookup_ask(pls_lookup *lookup, const pls_reach *reach, uint32_t tag)
{
    pthread_mutex_lock(&lookup->lock);
    bool full = lookup->running + lookup->answer_count == PLS_LOOKUPS_MAX;
    lookup->running += !full;
    pthread_mutex_unlock(&lookup->lock);
    question *q = full ? NULL : malloc(sizeof *q);
    if (q != NULL) {
        *q = (question){lookup, *reach, tag};
        if (question_start(q) == 0) {
            return PLS_OK;
        }
        free(q);
    }
    if (full) {
        return PLS_EFULL;
    }
    pthread_mutex_lock(&lookup->lock);
    lookup->running--;
    pthread_mutex_unlock(&lookup->lock);
    return PLS_ENOMEM;
}

static struct timespec time_after(int timeout_ms)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    long long ns = until.tv_nsec + timeout_ms * NS_PER_MS;
    until.tv_sec += ns / NS_PER_S;
    until.tv_nsec = ns % NS_PER_S;
    return until;
}

pls_err pls_lookup_answered(pls_lookup *lookup, int timeout_ms, pls_lookup_answer *answer_out)
{
    struct timespec until = time_after(timeout_ms);
    eventfd_t seen;
    (void)!eventfd_read(lookup->notice_fd, &seen);
    pls_err err = PLS_OK;
    pthread_mutex_lock(&lookup->lock);
    while (lookup->answer_count == 0 && lookup->running > 0 && err == PLS_OK) {
        bool late = timeout_ms <= 0 ||
                    pthread_cond_timedwait(&lookup->answered, &lookup->lock, &until) == ETIMEDOUT;
        err = late ? PLS_ETIMEDOUT : PLS_OK;
    }
    if (lookup->answer_count > 0) {
        err = PLS_OK;
        *answer_out = lookup->answers[--lookup->answer_count];
    } else if (err == PLS_OK) {
        err = PLS_EEMPTY;
    }
    pthread_mutex_unlock(&lookup->lock);
    return err;
}
