/* SPDX-License-Identifier: Apache-2.0 */
/* One thread reads the pipes and writes the node's output. Whoever needs the last lines at once (a
 * failed start is answered with them) reads the pipe himself under the lock; the text then waits in
 * `ready` for the thread. Pipes are named in epoll by source, stream and generation, so that an
 * event that outlives its source finds nothing. */
#include "node/process/output.h"

#include "base/assert.h"
#include "node/process/tail.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#define STREAMS 2
#define READ_BYTES 16384
/* What one look at a pipe takes at the most: a full pipe of the usual size. */
#define READS_MAX 8
#define EVENTS_MAX 32
#define WAKE_KEY UINT64_MAX

typedef struct stream {
    int fd;
    char *line; /* begun and not ended */
    size_t line_bytes;
} stream;

typedef struct source {
    bool used;
    uint32_t generation;
    stream streams[STREAMS];
    char label[PLS_OUTPUT_LABEL_BYTES_MAX];
    pls_tail tail;
} source;

typedef struct text {
    char *bytes;
    size_t len;
    size_t room;
} text;

struct pls_output {
    pthread_mutex_t lock;
    pthread_t thread;
    int epoll_fd;
    int wake_fd;
    bool plain;
    bool leave;
    text ready[STREAMS];
    source sources[PLS_OUTPUT_SOURCES_MAX];
};

static void text_add(text *t, const char *bytes, size_t len)
{
    if (t->len + len > t->room) {
        size_t room = (t->len + len) * 2;
        char *grown = realloc(t->bytes, room);
        if (grown == NULL) {
            return;
        }
        t->bytes = grown;
        t->room = room;
    }
    memcpy(t->bytes + t->len, bytes, len);
    t->len += len;
}

static void line_end_lock_held(pls_output *output, source *s, int which)
{
    stream *from = &s->streams[which];
    if (!output->plain) {
        text_add(&output->ready[which], s->label, strlen(s->label));
    }
    text_add(&output->ready[which], from->line, from->line_bytes);
    text_add(&output->ready[which], "\n", 1);
    pls_tail_add(&s->tail, from->line, from->line_bytes);
    from->line_bytes = 0;
}

static void bytes_take_lock_held(pls_output *output, source *s, int which, const char *bytes,
                                 size_t len)
{
    stream *from = &s->streams[which];
    for (size_t i = 0; i < len; i++) {
        if (bytes[i] == '\n' || from->line_bytes == PLS_OUTPUT_LINE_BYTES_MAX) {
            line_end_lock_held(output, s, which);
        }
        if (bytes[i] != '\n') {
            from->line[from->line_bytes++] = bytes[i];
        }
    }
}

static void stream_close_lock_held(pls_output *output, source *s, int which)
{
    stream *from = &s->streams[which];
    if (from->fd < 0) {
        return;
    }
    if (from->line_bytes > 0) {
        line_end_lock_held(output, s, which);
    }
    (void)epoll_ctl(output->epoll_fd, EPOLL_CTL_DEL, from->fd, NULL);
    close(from->fd);
    from->fd = -1;
}

/* Takes in what a pipe holds now. */
static void stream_read_lock_held(pls_output *output, source *s, int which)
{
    char bytes[READ_BYTES];
    stream *from = &s->streams[which];
    for (int i = 0; i < READS_MAX && from->fd >= 0; i++) {
        ssize_t n = read(from->fd, bytes, sizeof bytes);
        if (n > 0) {
            bytes_take_lock_held(output, s, which, bytes, (size_t)n);
        } else if (n == 0 || (errno != EAGAIN && errno != EINTR)) {
            stream_close_lock_held(output, s, which);
        } else if (errno == EAGAIN) {
            return;
        }
    }
}

static void write_all(int fd, const char *bytes, size_t len)
{
    while (len > 0) {
        ssize_t n = write(fd, bytes, len);
        if (n > 0) {
            bytes += n;
            len -= (size_t)n;
        } else if (errno == EAGAIN) {
            struct timespec pause = {.tv_nsec = 1000000};
            nanosleep(&pause, NULL);
        } else if (errno != EINTR) {
            /* Nobody reads our output any more. */
            return;
        }
    }
}

static void ready_write(pls_output *output)
{
    for (int which = 0; which < STREAMS; which++) {
        pthread_mutex_lock(&output->lock);
        text mine = output->ready[which];
        output->ready[which] = (text){0};
        pthread_mutex_unlock(&output->lock);
        write_all(which == 0 ? STDOUT_FILENO : STDERR_FILENO, mine.bytes, mine.len);
        free(mine.bytes);
    }
}

static uint64_t key_of(uint32_t index, uint32_t generation, int which)
{
    return (uint64_t)generation << 32 | (uint64_t)index << 1 | (uint64_t)which;
}

static void event_take_lock_held(pls_output *output, uint64_t key)
{
    uint32_t index = (uint32_t)key >> 1;
    if (key == WAKE_KEY) {
        uint64_t count;
        (void)!read(output->wake_fd, &count, sizeof count);
    } else if (output->sources[index].used &&
               output->sources[index].generation == (uint32_t)(key >> 32)) {
        stream_read_lock_held(output, &output->sources[index], (int)(key & 1));
    }
}

static void *output_main(void *argument)
{
    pls_output *output = argument;
    struct epoll_event events[EVENTS_MAX];
    bool leave = false;
    while (!leave) {
        int count = epoll_wait(output->epoll_fd, events, EVENTS_MAX, -1);
        pthread_mutex_lock(&output->lock);
        for (int i = 0; i < count; i++) {
            event_take_lock_held(output, events[i].data.u64);
        }
        leave = output->leave;
        pthread_mutex_unlock(&output->lock);
        ready_write(output);
    }
    return NULL;
}

static void thread_wake(pls_output *output)
{
    uint64_t one = 1;
    (void)!write(output->wake_fd, &one, sizeof one);
}

static int thread_start(pls_output *output)
{
    sigset_t all;
    sigset_t before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int failed = pthread_create(&output->thread, NULL, output_main, output);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return failed;
}

pls_err pls_output_create(bool plain, pls_output **output_out)
{
    pls_output *output = calloc(1, sizeof *output);
    struct epoll_event wake = {.events = EPOLLIN, .data.u64 = WAKE_KEY};
    if (output == NULL) {
        return PLS_ENOMEM;
    }
    output->plain = plain;
    pthread_mutex_init(&output->lock, NULL);
    output->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    output->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (output->epoll_fd < 0 || output->wake_fd < 0 ||
        epoll_ctl(output->epoll_fd, EPOLL_CTL_ADD, output->wake_fd, &wake) != 0 ||
        thread_start(output) != 0) {
        pls_err err = errno == 0 ? PLS_ENOMEM : pls_err_from_errno(errno);
        close(output->epoll_fd);
        close(output->wake_fd);
        free(output);
        return err;
    }
    *output_out = output;
    return PLS_OK;
}

void pls_output_destroy(pls_output *output, int timeout_ms)
{
    struct timespec until;
    if (output == NULL) {
        return;
    }
    for (uint32_t i = 0; i < PLS_OUTPUT_SOURCES_MAX; i++) {
        if (output->sources[i].used) {
            pls_output_remove(output, i);
        }
    }
    pthread_mutex_lock(&output->lock);
    output->leave = true;
    pthread_mutex_unlock(&output->lock);
    thread_wake(output);
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += timeout_ms / 1000;
    until.tv_nsec += (long)(timeout_ms % 1000) * 1000000;
    if (until.tv_nsec >= 1000000000) {
        until.tv_sec++;
        until.tv_nsec -= 1000000000;
    }
    if (pthread_timedjoin_np(output->thread, NULL, &until) != 0) {
        return;
    }
    close(output->epoll_fd);
    close(output->wake_fd);
    pthread_mutex_destroy(&output->lock);
    free(output);
}

static pls_err source_open_lock_held(pls_output *output, uint32_t index, const int fds[STREAMS])
{
    source *s = &output->sources[index];
    for (int which = 0; which < STREAMS; which++) {
        struct epoll_event event = {.events = EPOLLIN,
                                    .data.u64 = key_of(index, s->generation, which)};
        s->streams[which] = (stream){.fd = -1, .line = malloc(PLS_OUTPUT_LINE_BYTES_MAX)};
        if (s->streams[which].line == NULL) {
            return PLS_ENOMEM;
        }
        if (epoll_ctl(output->epoll_fd, EPOLL_CTL_ADD, fds[which], &event) != 0) {
            return pls_err_from_errno(errno);
        }
        s->streams[which].fd = fds[which];
    }
    return PLS_OK;
}

static void source_free_lock_held(source *s)
{
    for (int which = 0; which < STREAMS; which++) {
        free(s->streams[which].line);
        s->streams[which] = (stream){.fd = -1};
    }
    pls_tail_fini(&s->tail);
    s->used = false;
    s->generation++;
}

pls_err pls_output_add(pls_output *output, int out_fd, int err_fd, const char *label,
                       uint32_t *source_out)
{
    const int fds[STREAMS] = {out_fd, err_fd};
    pls_err err = PLS_EFULL;
    pthread_mutex_lock(&output->lock);
    for (uint32_t i = 0; i < PLS_OUTPUT_SOURCES_MAX; i++) {
        source *s = &output->sources[i];
        if (s->used) {
            continue;
        }
        s->used = true;
        snprintf(s->label, sizeof s->label, "%s", label);
        err = source_open_lock_held(output, i, fds);
        if (err == PLS_OK) {
            *source_out = i;
        } else {
            for (int which = 0; which < STREAMS; which++) {
                (void)epoll_ctl(output->epoll_fd, EPOLL_CTL_DEL, fds[which], NULL);
            }
            source_free_lock_held(s);
        }
        break;
    }
    pthread_mutex_unlock(&output->lock);
    return err;
}

size_t pls_output_tail(pls_output *output, uint32_t index, char *bytes, size_t capacity)
{
    pls_assert(index < PLS_OUTPUT_SOURCES_MAX);
    pthread_mutex_lock(&output->lock);
    source *s = &output->sources[index];
    pls_assert(s->used);
    for (int which = 0; which < STREAMS; which++) {
        stream_read_lock_held(output, s, which);
    }
    size_t len = pls_tail_text(&s->tail, bytes, capacity);
    pthread_mutex_unlock(&output->lock);
    thread_wake(output);
    return len;
}

void pls_output_remove(pls_output *output, uint32_t index)
{
    pls_assert(index < PLS_OUTPUT_SOURCES_MAX);
    pthread_mutex_lock(&output->lock);
    source *s = &output->sources[index];
    pls_assert(s->used);
    for (int which = 0; which < STREAMS; which++) {
        stream_read_lock_held(output, s, which);
        stream_close_lock_held(output, s, which);
    }
    source_free_lock_held(s);
    pthread_mutex_unlock(&output->lock);
    thread_wake(output);
}

void pls_output_note(pls_output *output, const char *format, ...)
{
    char line[1024];
    va_list arguments;
    va_start(arguments, format);
    int len = vsnprintf(line, sizeof line - 1, format, arguments);
    va_end(arguments);
    if (len < 0) {
        return;
    }
    if ((size_t)len > sizeof line - 2) {
        len = (int)sizeof line - 2;
    }
    line[len++] = '\n';
    pthread_mutex_lock(&output->lock);
    text_add(&output->ready[1], line, (size_t)len);
    pthread_mutex_unlock(&output->lock);
    thread_wake(output);
}
