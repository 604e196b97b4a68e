/* SPDX-License-Identifier: Apache-2.0 */
/* An epoll set, and a ring of sources to serve. A round first notes what epoll names, without
 * calling anybody, and then serves the ring as it was: a source that is unwatched meanwhile leaves
 * the ring and is never called, one that is noted meanwhile comes in the next round.
 * Invariant: a source is in the ring exactly when it is noted. */
#include "zmq_transport/reactor.h"

#include "base/assert.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define EVENTS_MAX 64 /* a round; more come in the next */

struct pls_zmq_reactor {
    int epoll_fd;
    int wake_fd;
    pls_zmq_source ring;   /* its head */
    pls_zmq_source marker; /* where the round ends that is being served */
    pls_zmq_source wake;
    void (*woken)(void *owner);
    void *woken_owner;
};

static void ring_remove(pls_zmq_source *source)
{
    source->previous->next = source->next;
    source->next->previous = source->previous;
    source->next = source;
    source->previous = source;
    source->noted = false;
}

static void ring_append(pls_zmq_source *ring, pls_zmq_source *source)
{
    source->previous = ring->previous;
    source->next = ring;
    ring->previous->next = source;
    ring->previous = source;
    source->noted = true;
}

static void wake_ready(void *owner)
{
    pls_zmq_reactor *reactor = owner;
    eventfd_t count;
    if (eventfd_read(reactor->wake_fd, &count) == 0 && reactor->woken != NULL) {
        reactor->woken(reactor->woken_owner);
    }
}

pls_err pls_zmq_reactor_create(pls_zmq_reactor **reactor_out)
{
    pls_err err = PLS_ENOMEM;
    pls_zmq_reactor *reactor = calloc(1, sizeof *reactor);
    if (reactor == NULL) {
        return err;
    }
    reactor->ring.next = &reactor->ring;
    reactor->ring.previous = &reactor->ring;
    reactor->wake = (pls_zmq_source){.fd = -1, .ready = wake_ready, .owner = reactor};
    reactor->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    reactor->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (reactor->epoll_fd < 0 || reactor->wake_fd < 0) {
        err = pls_err_from_errno(errno);
        goto fail;
    }
    err = pls_zmq_reactor_watch(reactor, &reactor->wake, reactor->wake_fd, false);
    if (err != PLS_OK) {
        goto fail;
    }
    *reactor_out = reactor;
    return PLS_OK;
fail:
    pls_zmq_reactor_destroy(reactor);
    return err;
}

void pls_zmq_reactor_destroy(pls_zmq_reactor *reactor)
{
    if (reactor == NULL) {
        return;
    }
    if (reactor->wake_fd >= 0) {
        close(reactor->wake_fd);
    }
    if (reactor->epoll_fd >= 0) {
        close(reactor->epoll_fd);
    }
    free(reactor);
}

int pls_zmq_reactor_fd(const pls_zmq_reactor *reactor)
{
    return reactor->epoll_fd;
}

pls_err pls_zmq_reactor_watch(pls_zmq_reactor *reactor, pls_zmq_source *source, int fd,
                              bool for_writing)
{
    struct epoll_event event = {.events = for_writing ? EPOLLOUT : EPOLLIN, .data.ptr = source};
    pls_assert(source->fd == -1);
    if (epoll_ctl(reactor->epoll_fd, EPOLL_CTL_ADD, fd, &event) != 0) {
        return pls_err_from_errno(errno);
    }
    source->fd = fd;
    source->next = source;
    source->previous = source;
    source->noted = false;
    ring_append(&reactor->ring, source);
    return PLS_OK;
}

void pls_zmq_reactor_unwatch(pls_zmq_reactor *reactor, pls_zmq_source *source)
{
    if (source->fd < 0) {
        return;
    }
    epoll_ctl(reactor->epoll_fd, EPOLL_CTL_DEL, source->fd, NULL);
    source->fd = -1;
    if (source->noted) {
        ring_remove(source);
    }
}

void pls_zmq_reactor_note(pls_zmq_reactor *reactor, pls_zmq_source *source)
{
    if (!source->noted && source->fd >= 0) {
        ring_append(&reactor->ring, source);
    }
}

bool pls_zmq_reactor_pending(const pls_zmq_reactor *reactor)
{
    return reactor->ring.next != &reactor->ring;
}

void pls_zmq_reactor_round(pls_zmq_reactor *reactor)
{
    struct epoll_event events[EVENTS_MAX];
    int count = epoll_wait(reactor->epoll_fd, events, EVENTS_MAX, 0);
    for (int i = 0; i < count; i++) {
        pls_zmq_reactor_note(reactor, events[i].data.ptr);
    }
    /* The marker ends this round: what is noted from now on stands behind it. */
    pls_assert(!reactor->marker.noted);
    ring_append(&reactor->ring, &reactor->marker);
    while (reactor->ring.next != &reactor->marker) {
        pls_zmq_source *source = reactor->ring.next;
        ring_remove(source);
        source->ready(source->owner);
    }
    ring_remove(&reactor->marker);
}

void pls_zmq_reactor_wake(pls_zmq_reactor *reactor)
{
    eventfd_write(reactor->wake_fd, 1);
}

void pls_zmq_reactor_on_wake(pls_zmq_reactor *reactor, void (*ready)(void *owner), void *owner)
{
    reactor->woken = ready;
    reactor->woken_owner = owner;
}
