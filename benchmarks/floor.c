/* SPDX-License-Identifier: Apache-2.0 */
/* What this machine and its kernel allow two processes, written with nothing in between: the floor
 * beside which run.py puts everything else.
 *
 *     floor ask COUNT               64 bytes there and back through shared memory, both sides awake
 *     floor pipe COUNT              the same through two pipes
 *     floor wake COUNT PAUSE_MS     the same by eventfd and poll, both sides asleep before
 *     floor copy COUNT BYTES        memcpy into warm shared memory */
#include "benchmarks/sample.h"

#include <poll.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

enum { MESSAGE_BYTES = 64, WARM_UP = 200 };

typedef struct cell {
    _Alignas(128) _Atomic uint32_t turn;
    _Alignas(128) char bytes[MESSAGE_BYTES];
} cell;

typedef struct pair {
    cell there;
    cell back;
    int there_fds[2]; /* read, write */
    int back_fds[2];
} pair;

typedef void exchange(pair *p, uint32_t turn, char *bytes);

static void fail(const char *what)
{
    perror(what);
    exit(1);
}

static void spin_put(cell *c, uint32_t turn, const char *bytes)
{
    memcpy(c->bytes, bytes, MESSAGE_BYTES);
    atomic_store_explicit(&c->turn, turn, memory_order_release);
}

static void spin_get(cell *c, uint32_t turn, char *bytes)
{
    while (atomic_load_explicit(&c->turn, memory_order_acquire) != turn) {
    }
    memcpy(bytes, c->bytes, MESSAGE_BYTES);
}

static void spin_ask(pair *p, uint32_t turn, char *bytes)
{
    spin_put(&p->there, turn, bytes);
    spin_get(&p->back, turn, bytes);
}

static void spin_answer(pair *p, uint32_t turn, char *bytes)
{
    spin_get(&p->there, turn, bytes);
    spin_put(&p->back, turn, bytes);
}

static void pipe_move(ssize_t moved)
{
    if (moved != MESSAGE_BYTES) {
        fail("pipe");
    }
}

static void pipe_ask(pair *p, uint32_t turn, char *bytes)
{
    (void)turn;
    pipe_move(write(p->there_fds[1], bytes, MESSAGE_BYTES));
    pipe_move(read(p->back_fds[0], bytes, MESSAGE_BYTES));
}

static void pipe_answer(pair *p, uint32_t turn, char *bytes)
{
    (void)turn;
    pipe_move(read(p->there_fds[0], bytes, MESSAGE_BYTES));
    pipe_move(write(p->back_fds[1], bytes, MESSAGE_BYTES));
}

static void event_send(int fd, cell *c, uint32_t turn, const char *bytes)
{
    spin_put(c, turn, bytes);
    if (eventfd_write(fd, 1) != 0) {
        fail("eventfd");
    }
}

static void event_wait(int fd, cell *c, uint32_t turn, char *bytes)
{
    eventfd_t value;
    if (poll(&(struct pollfd){.fd = fd, .events = POLLIN}, 1, -1) != 1 ||
        eventfd_read(fd, &value) != 0) {
        fail("poll");
    }
    spin_get(c, turn, bytes);
}

static void event_ask(pair *p, uint32_t turn, char *bytes)
{
    event_send(p->there_fds[0], &p->there, turn, bytes);
    event_wait(p->back_fds[0], &p->back, turn, bytes);
}

static void event_answer(pair *p, uint32_t turn, char *bytes)
{
    event_wait(p->there_fds[0], &p->there, turn, bytes);
    event_send(p->back_fds[0], &p->back, turn, bytes);
}

static void run_pair(pair *p, exchange *ask, exchange *answer, uint32_t count, long between_ms)
{
    char bytes[MESSAGE_BYTES] = {0};
    uint32_t warm_up = between_ms > 0 ? 2 : WARM_UP;
    uint32_t turns = count + warm_up;
    int64_t *ns = calloc(count, sizeof *ns);
    pid_t child = ns == NULL ? -1 : fork();
    if (child < 0) {
        fail("fork");
    }
    if (child == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        for (uint32_t turn = 1; turn <= turns; turn++) {
            answer(p, turn, bytes);
        }
        _exit(0);
    }
    for (uint32_t turn = 1; turn <= turns; turn++) {
        pause_ms(between_ms);
        int64_t begin = now_ns();
        ask(p, turn, bytes);
        if (turn > warm_up) {
            ns[turn - warm_up - 1] = now_ns() - begin;
        }
    }
    waitpid(child, NULL, 0);
    sample_print(ns, count);
    free(ns);
}

static void run_copy(uint32_t count, size_t bytes)
{
    char *from = malloc(bytes);
    char *to =
        mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    int64_t *ns = calloc(count, sizeof *ns);
    if (from == NULL || to == MAP_FAILED || ns == NULL) {
        fail("memory");
    }
    memset(from, 1, bytes);
    memcpy(to, from, bytes);
    for (uint32_t i = 0; i < count; i++) {
        int64_t begin = now_ns();
        memcpy(to, from, bytes);
        __asm__ volatile("" ::"r"(to) : "memory");
        ns[i] = now_ns() - begin;
    }
    sample_print(ns, count);
    free(ns);
    free(from);
    munmap(to, bytes);
}

static pair *pair_make(int event)
{
    pair *p = mmap(NULL, sizeof *p, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED) {
        fail("mmap");
    }
    if (event) {
        p->there_fds[0] = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        p->back_fds[0] = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    } else if (pipe(p->there_fds) != 0 || pipe(p->back_fds) != 0) {
        fail("pipe");
    }
    return p;
}

int main(int argc, char **argv)
{
    const char *what = argc > 2 ? argv[1] : "";
    uint32_t count = argc > 2 ? (uint32_t)strtoul(argv[2], NULL, 10) : 0;
    long third = argc > 3 ? strtol(argv[3], NULL, 10) : 0;
    signal(SIGPIPE, SIG_IGN);
    if (count == 0) {
        fprintf(stderr, "usage: floor ask|pipe|wake|copy COUNT [PAUSE_MS|BYTES]\n");
        return 2;
    }
    if (strcmp(what, "ask") == 0) {
        run_pair(pair_make(0), spin_ask, spin_answer, count, 0);
    } else if (strcmp(what, "pipe") == 0) {
        run_pair(pair_make(0), pipe_ask, pipe_answer, count, 0);
    } else if (strcmp(what, "wake") == 0) {
        run_pair(pair_make(1), event_ask, event_answer, count, third);
    } else if (strcmp(what, "copy") == 0 && third > 0) {
        run_copy(count, (size_t)third);
    } else {
        return 2;
    }
    return 0;
}
