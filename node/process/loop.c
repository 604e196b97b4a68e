/* SPDX-License-Identifier: Apache-2.0 */
/* epoll and a heap of alarms. A handler may unwatch or free anything, also what has an event later
 * in the same batch: events carry the watch, which stays in memory until the batch is over, and one
 * whose descriptor is -1 is skipped. */
#include "node/process/loop.h"

#include "base/assert.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <time.h>
#include <unistd.h>

#define BATCH_MAX 64
#define HEAP_FIRST 64

struct pls_loop {
    int epoll_fd;
    bool stopped;
    pls_alarm **heap; /* from index 1 */
    size_t heap_count;
    size_t heap_room;
    void **graves;
    size_t grave_count;
    size_t grave_room;
};

uint64_t pls_loop_now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000ull + (uint64_t)now.tv_nsec;
}

pls_err pls_loop_create(pls_loop **loop_out)
{
    pls_loop *loop = calloc(1, sizeof *loop);
    if (loop == NULL) {
        return PLS_ENOMEM;
    }
    loop->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (loop->epoll_fd < 0) {
        free(loop);
        return pls_err_from_errno(errno);
    }
    *loop_out = loop;
    return PLS_OK;
}

static void graves_empty(pls_loop *loop)
{
    while (loop->grave_count > 0) {
        free(loop->graves[--loop->grave_count]);
    }
}

void pls_loop_destroy(pls_loop *loop)
{
    if (loop == NULL) {
        return;
    }
    graves_empty(loop);
    close(loop->epoll_fd);
    free(loop->heap);
    free(loop->graves);
    free(loop);
}

pls_err pls_loop_watch(pls_loop *loop, pls_watch *watch, int fd, uint32_t events)
{
    struct epoll_event event = {.events = events, .data.ptr = watch};
    pls_assert(watch->ready != NULL);
    if (epoll_ctl(loop->epoll_fd, EPOLL_CTL_ADD, fd, &event) != 0) {
        return pls_err_from_errno(errno);
    }
    watch->fd = fd;
    return PLS_OK;
}

void pls_loop_rewatch(pls_loop *loop, pls_watch *watch, uint32_t events)
{
    struct epoll_event event = {.events = events, .data.ptr = watch};
    if (watch->fd >= 0) {
        pls_assert(epoll_ctl(loop->epoll_fd, EPOLL_CTL_MOD, watch->fd, &event) == 0);
    }
}

int pls_loop_unwatch(pls_loop *loop, pls_watch *watch)
{
    int fd = watch->fd;
    if (fd >= 0) {
        (void)epoll_ctl(loop->epoll_fd, EPOLL_CTL_DEL, fd, NULL);
        watch->fd = -1;
    }
    return fd;
}

static void heap_place(pls_loop *loop, size_t place, pls_alarm *alarm)
{
    loop->heap[place] = alarm;
    alarm->place = place;
}

static void heap_up(pls_loop *loop, pls_alarm *alarm)
{
    size_t place = alarm->place;
    while (place > 1 && loop->heap[place / 2]->due_ns > alarm->due_ns) {
        heap_place(loop, place, loop->heap[place / 2]);
        place /= 2;
    }
    heap_place(loop, place, alarm);
}

static void heap_down(pls_loop *loop, pls_alarm *alarm)
{
    size_t place = alarm->place;
    for (;;) {
        size_t child = place * 2;
        if (child > loop->heap_count) {
            break;
        }
        if (child < loop->heap_count && loop->heap[child + 1]->due_ns < loop->heap[child]->due_ns) {
            child++;
        }
        if (loop->heap[child]->due_ns >= alarm->due_ns) {
            break;
        }
        heap_place(loop, place, loop->heap[child]);
        place = child;
    }
    heap_place(loop, place, alarm);
}

pls_err pls_loop_alarm(pls_loop *loop, pls_alarm *alarm, uint64_t due_ns)
{
    pls_assert(alarm->ring != NULL);
    pls_loop_alarm_clear(loop, alarm);
    if (loop->heap_count + 1 >= loop->heap_room) {
        size_t room = loop->heap_room == 0 ? HEAP_FIRST : loop->heap_room * 2;
        pls_alarm **heap = realloc(loop->heap, room * sizeof(pls_alarm *));
        if (heap == NULL) {
            return PLS_ENOMEM;
        }
        loop->heap = heap;
        loop->heap_room = room;
    }
    alarm->due_ns = due_ns;
    heap_place(loop, ++loop->heap_count, alarm);
    heap_up(loop, alarm);
    return PLS_OK;
}

void pls_loop_alarm_clear(pls_loop *loop, pls_alarm *alarm)
{
    size_t place = alarm->place;
    if (place == 0) {
        return;
    }
    pls_assert(place <= loop->heap_count);
    pls_assert(loop->heap[place] == alarm);
    pls_alarm *last = loop->heap[loop->heap_count--];
    alarm->place = 0;
    if (last != alarm) {
        heap_place(loop, place, last);
        heap_up(loop, last);
        heap_down(loop, last);
    }
}

void pls_loop_free_later(pls_loop *loop, void *memory)
{
    if (loop->grave_count == loop->grave_room) {
        size_t room = loop->grave_room == 0 ? BATCH_MAX : loop->grave_room * 2;
        void **graves = realloc(loop->graves, room * sizeof(void *));
        /* Without room for a pointer the memory stays lost: the lesser evil, once. */
        if (graves == NULL) {
            return;
        }
        loop->graves = graves;
        loop->grave_room = room;
    }
    loop->graves[loop->grave_count++] = memory;
}

static int sleep_ms(const pls_loop *loop)
{
    if (loop->heap_count == 0) {
        return -1;
    }
    uint64_t now_ns = pls_loop_now_ns();
    uint64_t due_ns = loop->heap[1]->due_ns;
    if (due_ns <= now_ns) {
        return 0;
    }
    uint64_t ms = (due_ns - now_ns + PLS_NS_PER_MS - 1) / PLS_NS_PER_MS;
    return ms > INT_MAX ? INT_MAX : (int)ms;
}

static void alarms_ring(pls_loop *loop)
{
    uint64_t now_ns = pls_loop_now_ns();
    while (!loop->stopped && loop->heap_count > 0 && loop->heap[1]->due_ns <= now_ns) {
        pls_alarm *alarm = loop->heap[1];
        pls_loop_alarm_clear(loop, alarm);
        alarm->ring(alarm);
    }
}

void pls_loop_run(pls_loop *loop)
{
    struct epoll_event events[BATCH_MAX];
    while (!loop->stopped) {
        int count = epoll_wait(loop->epoll_fd, events, BATCH_MAX, sleep_ms(loop));
        pls_assert(count >= 0 || errno == EINTR);
        for (int i = 0; i < count && !loop->stopped; i++) {
            pls_watch *watch = events[i].data.ptr;
            if (watch->fd >= 0) {
                watch->ready(watch, events[i].events);
            }
        }
        alarms_ring(loop);
        graves_empty(loop);
    }
}

void pls_loop_stop(pls_loop *loop)
{
    loop->stopped = true;
}
