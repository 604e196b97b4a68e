/* SPDX-License-Identifier: Apache-2.0 */
/* Starting pulsing-node from any process, threads and big memory included. Two clones that share
 * memory with the caller (as vfork does) cost the same whatever the caller's size: the one in the
 * middle ends at once, so the node is adopted by init and its end is nobody's SIGCHLD. The middle
 * one also shares the caller's descriptors, so the node's pidfd lands there without a race. Both
 * end by returning, which clone() makes an exit of the child alone. */
#include "node/launch.h"

#include "node/options.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#else
#define ASAN_UNPOISON_MEMORY_REGION(base, bytes) ((void)0)
#endif

/* For a few system calls and execve's copying of arguments. */
#define STACK_BYTES 65536
/* Descriptors are first moved above the numbers that they will get. */
#define FD_PARKED_MIN 16
#define KERNEL_MAJOR_MIN 5
#define KERNEL_MINOR_MIN 10

extern char **environ;

typedef struct birth {
    const char *program;
    char *const *argv;
    int fds[3]; /* to become PLS_NODE_OPTIONS_FD and the two after it */
    char *stacks;
    sigset_t mask;
    volatile int error;
    volatile int pid;
    int pidfd;
} birth;

static pls_err kernel_check(char *trouble)
{
    struct utsname name;
    int major = 0;
    int minor = 0;
    if (uname(&name) == 0 && sscanf(name.release, "%d.%d", &major, &minor) == 2 &&
        (major < KERNEL_MAJOR_MIN || (major == KERNEL_MAJOR_MIN && minor < KERNEL_MINOR_MIN))) {
        snprintf(trouble, PLS_TROUBLE_BYTES_MAX, "Linux %d.%d or newer is needed, this is %s",
                 KERNEL_MAJOR_MIN, KERNEL_MINOR_MIN, name.release);
        return PLS_EUNSUPPORTED;
    }
    return PLS_OK;
}

/* Puts the descriptors where the program expects them and lets nothing else through. Only calls
 * that are safe beside the suspended caller whose memory this uses. */
static int fds_place(const int *fds)
{
    int parked[3];
    for (int i = 0; i < 3; i++) {
        parked[i] = fds[i] < 0 ? -1 : fcntl(fds[i], F_DUPFD, FD_PARKED_MIN);
        if (fds[i] >= 0 && parked[i] < 0) {
            return -1;
        }
    }
    for (int i = 0; i < 3; i++) {
        if (parked[i] >= 0 && dup2(parked[i], PLS_NODE_OPTIONS_FD + i) < 0) {
            return -1;
        }
    }
    syscall(SYS_close_range, fds[1] < 0 ? PLS_NODE_CONTROL_FD : PLS_NODE_LAUNCHER_FD + 1, ~0u, 0);
    return 0;
}

static int node_begin(void *argument)
{
    birth *b = argument;
    /* A session of its own: no signal of the user's terminal and no SIGTTOU for output. */
    /* A process group of its own keeps the terminal's signals away; not a session of its own, since
     * the kernel shares CPUs fairly between sessions, and caller and workers are one program. */
    setpgid(0, 0);
    sigprocmask(SIG_SETMASK, &b->mask, NULL);
    if (fds_place(b->fds) == 0) {
        execve(b->program, b->argv, environ);
    }
    b->error = errno;
    return 127;
}

static int middle_begin(void *argument)
{
    birth *b = argument;
    int pid = clone(node_begin, b->stacks + 2 * STACK_BYTES,
                    CLONE_VM | CLONE_VFORK | CLONE_PIDFD | SIGCHLD, b, &b->pidfd);
    if (pid < 0) {
        b->error = errno;
        return 1;
    }
    b->pid = pid;
    if (b->error != 0) {
        /* Not to be left as a zombie of whoever adopts it. */
        waitpid(pid, NULL, 0);
    }
    return 0;
}

static pls_err birth_give(birth *b)
{
    sigset_t all;
    b->stacks = mmap(NULL, 2 * STACK_BYTES, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK, -1, 0);
    if (b->stacks == MAP_FAILED) {
        return pls_err_from_errno(errno);
    }
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, &b->mask);
    int middle =
        clone(middle_begin, b->stacks + STACK_BYTES, CLONE_VM | CLONE_VFORK | CLONE_FILES, b);
    int clone_errno = errno;
    if (middle > 0) {
        while (waitpid(middle, NULL, __WCLONE) < 0 && errno == EINTR) {
        }
    }
    pthread_sigmask(SIG_SETMASK, &b->mask, NULL);
    /* A clone that became another program has left its frames' marks; the next mapping here would
     * inherit them. */
    ASAN_UNPOISON_MEMORY_REGION(b->stacks, 2 * STACK_BYTES);
    munmap(b->stacks, 2 * STACK_BYTES);
    int error = middle < 0 ? clone_errno : b->error;
    if (error != 0 && b->pidfd >= 0) {
        close(b->pidfd);
    }
    errno = error;
    return error == 0 ? PLS_OK : pls_err_from_errno(error);
}

static void trouble_errno(char *trouble, const char *doing, const char *what)
{
    snprintf(trouble, PLS_TROUBLE_BYTES_MAX, "%s %s: %s", doing, what, strerror(errno));
}

static pls_err launch_with(const pls_node_options *options, int options_fd,
                           pls_node_launched *launched, char *trouble)
{
    int pair[2];
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) != 0) {
        trouble_errno(trouble, "cannot make", "a socket pair");
        return pls_err_from_errno(errno);
    }
    int self = (int)syscall(SYS_pidfd_open, getpid(), 0);
    if (self < 0) {
        trouble_errno(trouble, "cannot open", "a pidfd (a seccomp profile may forbid it)");
        pls_err err = pls_err_from_errno(errno);
        close(pair[0]);
        close(pair[1]);
        return err;
    }
    char *const argv[] = {(char *)(uintptr_t)options->program, NULL};
    birth b = {
        .program = options->program, .argv = argv, .fds = {options_fd, pair[1], self}, .pidfd = -1};
    pls_err err = birth_give(&b);
    if (err != PLS_OK) {
        trouble_errno(trouble, "cannot run", options->program);
        close(pair[0]);
    } else {
        *launched = (pls_node_launched){pair[0], (uint32_t)b.pid, b.pidfd};
    }
    close(pair[1]);
    close(self);
    return err;
}

pls_err pls_node_launch(const pls_node_options *options, pls_node_launched *launched_out,
                        char *trouble)
{
    int options_fd = -1;
    trouble[0] = 0;
    pls_err err = kernel_check(trouble);
    if (err == PLS_OK) {
        err = pls_options_store(options, true, &options_fd, trouble);
    }
    if (err == PLS_OK) {
        err = launch_with(options, options_fd, launched_out, trouble);
        close(options_fd);
    }
    if (err != PLS_OK && trouble[0] == 0) {
        snprintf(trouble, PLS_TROUBLE_BYTES_MAX, "cannot start the node: %s", pls_err_text(err));
    }
    return err;
}

pls_err pls_node_become(const pls_node_options *options, char *trouble)
{
    int options_fd = -1;
    trouble[0] = 0;
    pls_err err = kernel_check(trouble);
    if (err == PLS_OK) {
        err = pls_options_store(options, false, &options_fd, trouble);
    }
    if (err != PLS_OK) {
        return err;
    }
    int parked = fcntl(options_fd, F_DUPFD_CLOEXEC, FD_PARKED_MIN);
    if (parked >= 0 && dup2(parked, PLS_NODE_OPTIONS_FD) >= 0) {
        char *const argv[] = {(char *)(uintptr_t)options->program, NULL};
        execve(options->program, argv, environ);
    }
    trouble_errno(trouble, "cannot run", options->program);
    return pls_err_from_errno(errno);
}

static int64_t now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

pls_err pls_node_wait(pls_node_launched *launched, int timeout_ms)
{
    int64_t until_ms = now_ms() + timeout_ms;
    for (;;) {
        struct pollfd wait = {.fd = launched->pidfd, .events = POLLIN};
        int64_t left_ms = until_ms - now_ms();
        int ready = poll(&wait, 1, left_ms > 0 ? (int)left_ms : 0);
        if (ready > 0) {
            break;
        }
        if (ready == 0 && left_ms <= 0) {
            return PLS_ETIMEDOUT;
        }
    }
    siginfo_t info;
    /* Fails with ECHILD unless this process adopted it, which is as good. */
    (void)waitid(P_PIDFD, (id_t)launched->pidfd, &info, WEXITED | WNOHANG);
    close(launched->pidfd);
    launched->pidfd = -1;
    return PLS_OK;
}
