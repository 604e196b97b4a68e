/* SPDX-License-Identifier: Apache-2.0 */
/* Starting the template and asking it for workers. Requests and answers are packets of fields, each
 * ended by a zero byte, which Python takes apart without importing anything:
 *     node to template   fork | slot | epoch | index or "" | cpu,cpu,... | NAME=value | ...
 *     template to node   ready            or      forked | slot | epoch | pid
 * A forked worker becomes the node's child when the process between it and the template ends, and
 * that process has sent "forked" before: so when such a child ends, its number has been told. */
#include "node/process/template.h"

#include "base/assert.h"
#include "node/memory_file.h"
#include "node/process/environment.h"
#include "node/process/handle.h"
#include "node/process/node.h"
#include "node/process/workers.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#define FD_PARKED_MIN 16
#define FORK_BYTES_MAX (PLS_CONTROL_INLINE_BYTES_MAX + 32768)
#define ANSWER_BYTES_MAX 256
#define FORKS_WAITING_MAX 512
/* One that lived less after it was ready is not started again before somebody needs it. */
#define LIVED_WELL_NS 1000000000ull

typedef struct template_start {
    int fds[6]; /* to become 0..5 */
    char *const *argv;
    char **environment;
    const char *cwd;
    pid_t node_pid;
    int failure_fd; /* errno goes there if exec fails */
} template_start;

/* After fork: only calls that are safe while other threads' locks are copied in any state. */
static void child_run(const template_start *start)
{
    sigset_t none;
    int parked[6];
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != start->node_pid) {
        _exit(0);
    }
    int failure_fd = fcntl(start->failure_fd, F_DUPFD_CLOEXEC, FD_PARKED_MIN);
    for (int i = 0; i < 6; i++) {
        parked[i] = fcntl(start->fds[i], F_DUPFD, FD_PARKED_MIN);
    }
    for (int i = 0; i < 6; i++) {
        if (parked[i] < 0 || dup2(parked[i], i) < 0) {
            _exit(126);
        }
        close(parked[i]);
    }
    /* Everything else is close-on-exec. SIGINT stays ignored: it is the user's program's. */
    signal(SIGPIPE, SIG_DFL);
    signal(SIGHUP, SIG_DFL);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    if (start->cwd == NULL || chdir(start->cwd) == 0) {
        execvpe(start->argv[0], start->argv, start->environment);
    }
    int error = errno;
    (void)!write(failure_fd, &error, sizeof error);
    _exit(127);
}

/* Forks and waits for exec, which takes a millisecond or two. */
static pls_err process_start(template_start *start, pid_t *pid_out)
{
    int failure[2];
    int error = 0;
    if (pipe2(failure, O_CLOEXEC) != 0) {
        return pls_err_from_errno(errno);
    }
    start->failure_fd = failure[1];
    start->node_pid = getpid();
    pid_t pid = fork();
    if (pid == 0) {
        child_run(start);
    }
    int fork_errno = errno;
    close(failure[1]);
    if (pid < 0) {
        close(failure[0]);
        return pls_err_from_errno(fork_errno);
    }
    ssize_t n;
    do {
        n = read(failure[0], &error, sizeof error);
    } while (n < 0 && errno == EINTR);
    close(failure[0]);
    if (n > 0) {
        int pidfd;
        if (pls_process_open(pid, &pidfd) == PLS_OK) {
            pls_process_kill(pidfd);
            close(pidfd);
        }
        return pls_err_from_errno(error);
    }
    *pid_out = pid;
    return PLS_OK;
}

/* What every worker has to know, as fields. */
static pls_err settings_memfd(const pls_node *node, int *fd_out)
{
    const pls_node_options *o = &node->settings.options;
    size_t bytes = PLS_NAME_BYTES_MAX + 128;
    for (size_t i = 0; o->python_path != NULL && o->python_path[i] != NULL; i++) {
        bytes += strlen(o->python_path[i]) + sizeof "path=";
    }
    char *fields = malloc(bytes);
    if (fields == NULL) {
        return PLS_ENOMEM;
    }
    size_t len = (size_t)snprintf(fields, bytes, "name=%s%cnode=%d%c", node->directory->header.name,
                                  0, (int)getpid(), 0);
    for (size_t i = 0; o->python_path != NULL && o->python_path[i] != NULL; i++) {
        len += (size_t)snprintf(fields + len, bytes - len, "path=%s%c", o->python_path[i], 0);
    }
    pls_err err = pls_memory_file_make("pulsing-template", fields, len, fd_out);
    free(fields);
    return err;
}

/* Descriptors of a template being started: what it gets, and what the node keeps. */
typedef struct template_ends {
    int given[6];
    int socket;
    int out;
    int err;
} template_ends;

static void ends_close(template_ends *ends)
{
    for (int i = 0; i < 6; i++) {
        close(ends->given[i]);
    }
    close(ends->socket);
    close(ends->out);
    close(ends->err);
}

static pls_err ends_open(const pls_node *node, template_ends *ends)
{
    int socket[2] = {-1, -1};
    int out[2] = {-1, -1};
    int err_pipe[2] = {-1, -1};
    const pls_node_options *o = &node->settings.options;
    *ends = (template_ends){{-1, -1, -1, -1, -1, -1}, -1, -1, -1};
    ends->given[0] = open("/dev/null", O_RDONLY | O_CLOEXEC);
    if (ends->given[0] < 0 || socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, socket) != 0 ||
        pipe2(out, O_CLOEXEC) != 0 || pipe2(err_pipe, O_CLOEXEC) != 0) {
        pls_err err = pls_err_from_errno(errno);
        close(socket[0]);
        close(socket[1]);
        close(out[0]);
        close(out[1]);
        ends_close(ends);
        return err;
    }
    ends->socket = socket[0];
    ends->given[PLS_TEMPLATE_SOCKET_FD] = socket[1];
    ends->out = out[0];
    ends->given[1] = out[1];
    ends->err = err_pipe[0];
    ends->given[2] = err_pipe[1];
    fcntl(ends->socket, F_SETFL, O_NONBLOCK);
    fcntl(ends->out, F_SETFL, O_NONBLOCK);
    fcntl(ends->err, F_SETFL, O_NONBLOCK);
    pls_err err = settings_memfd(node, &ends->given[PLS_TEMPLATE_SETTINGS_FD]);
    if (err == PLS_OK) {
        err = pls_memory_file_make("pulsing-info", o->worker_info, o->worker_info_bytes,
                                   &ends->given[PLS_TEMPLATE_INFO_FD]);
    }
    if (err != PLS_OK) {
        ends_close(ends);
    }
    return err;
}

static void template_gone(pls_node *node)
{
    pls_template *template = &node->template;
    bool was_ready = template->stage == PLS_TEMPLATE_READY;
    bool lived_well = was_ready && pls_loop_now_ns() - template->ready_ns > LIVED_WELL_NS;
    close(pls_loop_unwatch(node->loop, &template->socket));
    int pidfd = pls_loop_unwatch(node->loop, &template->process);
    pls_process_end end = pls_process_reap(pidfd, template->pid);
    close(pidfd);
    template->last_words_bytes = 0;
    if (template->has_source) {
        template->last_words_bytes = pls_output_tail(
            node->output, template->source, template->last_words, sizeof template->last_words);
        pls_output_remove(node->output, template->source);
        template->has_source = false;
    }
    template->pid = 0;
    template->stage = PLS_TEMPLATE_OFF;
    pls_packet_queue_fini(&template->outgoing);
    pls_workers_template_gone(node, end.how == PLS_ENDED_SIGNAL);
    if (lived_well && node->leave.stage == PLS_LEAVE_NOT) {
        pls_err err = pls_template_start(node);
        if (err != PLS_OK) {
            pls_output_note(node->output, "pulsing: the worker template cannot be restarted: %s",
                            pls_err_text(err));
        }
    }
    pls_leave_check(node);
}

static void process_ready(pls_watch *watch, uint32_t events)
{
    pls_node *node = ((pls_template *)watch->owner)->node;
    if (pls_process_ended(watch->fd)) {
        pls_template_drain(node);
        template_gone(node);
    }
}

/* The next field of an answer as a number; 0 when there is none. */
static uint32_t number_next(const char **at, const char *end)
{
    const char *zero = *at < end ? memchr(*at, 0, (size_t)(end - *at)) : NULL;
    if (zero == NULL) {
        *at = end;
        return 0;
    }
    unsigned long value = strtoul(*at, NULL, 10);
    *at = zero + 1;
    return value > UINT32_MAX ? 0 : (uint32_t)value;
}

static void forked_take(pls_node *node, const char *at, const char *end)
{
    pls_client_key key = {.slot = number_next(&at, end)};
    key.epoch = number_next(&at, end);
    pid_t pid = (pid_t)number_next(&at, end);
    int pidfd;
    if (pid <= 1 || pls_process_open(pid, &pidfd) != PLS_OK) {
        return;
    }
    pls_client *client = pls_client_find(node, key);
    if (client == NULL || client->worker == NULL || client->stage >= PLS_CLIENT_DYING) {
        /* Given up meanwhile. */
        pls_process_kill(pidfd);
        close(pidfd);
    } else if (client->process.fd >= 0) {
        close(pidfd);
    } else if (pls_client_process_watch(client, pidfd, pid) != PLS_OK) {
        (void)shutdown(client->control.fd, SHUT_RDWR);
    }
}

static bool answer_take(pls_node *node)
{
    char answer[ANSWER_BYTES_MAX];
    pls_template *template = &node->template;
    ssize_t n = recv(template->socket.fd, answer, sizeof answer, MSG_DONTWAIT);
    if (n < 0) {
        return errno == EINTR;
    }
    if (n == 0) {
        template->hung_up = true;
        return false;
    }
    static const char ready[] = "ready";
    static const char forked[] = "forked";
    if ((size_t)n == sizeof ready && memcmp(answer, ready, sizeof ready) == 0) {
        template->stage = PLS_TEMPLATE_READY;
        template->ready_ns = pls_loop_now_ns();
    } else if ((size_t)n > sizeof forked && memcmp(answer, forked, sizeof forked) == 0) {
        forked_take(node, answer + sizeof forked, answer + n);
    }
    return true;
}

void pls_template_drain(pls_node *node)
{
    while (node->template.socket.fd >= 0 && answer_take(node)) {
    }
}

static void socket_ready(pls_watch *watch, uint32_t events)
{
    pls_template *template = watch->owner;
    pls_node *node = template->node;
    if ((events & EPOLLOUT) != 0 &&
        pls_packet_queue_flush(&template->outgoing, watch->fd) == PLS_OK) {
        pls_loop_rewatch(node->loop, watch, EPOLLIN);
    }
    pls_template_drain(node);
    if ((events & EPOLLHUP) != 0 && watch->fd >= 0) {
        /* A template without its socket is of no use, and a hang-up would be told for ever. */
        pls_process_kill(template->process.fd);
        close(pls_loop_unwatch(node->loop, watch));
        template->hung_up = true;
    }
}

static pls_err template_adopt(pls_node *node, pid_t pid, template_ends *ends)
{
    pls_template *template = &node->template;
    int pidfd;
    pls_err err = pls_process_open(pid, &pidfd);
    if (err != PLS_OK) {
        return err;
    }
    template->pid = pid;
    template->hung_up = false;
    err = pls_loop_watch(node->loop, &template->process, pidfd, EPOLLIN);
    if (err == PLS_OK) {
        err = pls_loop_watch(node->loop, &template->socket, ends->socket, EPOLLIN);
    }
    if (err != PLS_OK) {
        (void)pls_loop_unwatch(node->loop, &template->process);
        pls_process_kill(pidfd);
        close(pidfd);
        return err;
    }
    ends->socket = -1;
    template->stage = PLS_TEMPLATE_WARMING;
    err = pls_output_add(node->output, ends->out, ends->err, "[template] ", &template->source);
    template->has_source = err == PLS_OK;
    if (err == PLS_OK) {
        ends->out = -1;
        ends->err = -1;
    }
    return PLS_OK;
}

pls_err pls_template_start(pls_node *node)
{
    pls_template *template = &node->template;
    const pls_node_options *o = &node->settings.options;
    template_ends ends;
    pid_t pid = 0;
    char **environment = NULL;
    if (template->stage != PLS_TEMPLATE_OFF) {
        return PLS_OK;
    }
    if (o->template_argv == NULL) {
        return PLS_EUNSUPPORTED;
    }
    template->node = node;
    template->socket = (pls_watch){.fd = -1, .ready = socket_ready, .owner = template};
    template->process = (pls_watch){.fd = -1, .ready = process_ready, .owner = template};
    pls_packet_queue_init(&template->outgoing, FORKS_WAITING_MAX,
                          (size_t)FORKS_WAITING_MAX * FORK_BYTES_MAX);
    uint32_t threads = pls_cpus_usable() / (o->workers_max == 0 ? 1 : o->workers_max);
    pls_err err = pls_environment_make(o->env, threads == 0 ? 1 : threads, &environment);
    if (err != PLS_OK) {
        return err;
    }
    err = ends_open(node, &ends);
    if (err == PLS_OK) {
        template_start start = {.argv = (char *const *)(uintptr_t)o->template_argv,
                                .environment = environment,
                                .cwd = o->cwd};
        memcpy(start.fds, ends.given, sizeof start.fds);
        err = process_start(&start, &pid);
        if (err == PLS_OK) {
            err = template_adopt(node, pid, &ends);
        }
        ends_close(&ends);
    }
    free(environment);
    return err;
}

static size_t fork_write(const pls_client *worker, uint32_t index, const pls_place_wire *wire,
                         char *bytes)
{
    int len =
        snprintf(bytes, FORK_BYTES_MAX, "fork%c%u%c%u%c", 0, worker->slot, 0, worker->epoch, 0);
    if (index != PLS_WORKER_INDEX_NONE) {
        len += snprintf(bytes + len, FORK_BYTES_MAX - (size_t)len, "%u", index);
    }
    bytes[len++] = 0;
    for (uint32_t i = 0; i < wire->cpu_count; i++) {
        uint16_t cpu;
        memcpy(&cpu, wire->cpus + i * sizeof cpu, sizeof cpu);
        len += snprintf(bytes + len, FORK_BYTES_MAX - (size_t)len, i == 0 ? "%u" : ",%u", cpu);
    }
    bytes[len++] = 0;
    pls_assert((size_t)len + wire->env_bytes <= FORK_BYTES_MAX);
    if (wire->env_bytes > 0) {
        memcpy(bytes + len, wire->env, wire->env_bytes);
    }
    return (size_t)len + wire->env_bytes;
}

pls_err pls_template_fork(pls_node *node, const pls_client *worker, const pls_place_wire *wire,
                          int fds[3])
{
    char bytes[FORK_BYTES_MAX];
    pls_template *template = &node->template;
    pls_err err = pls_template_start(node);
    if (err != PLS_OK) {
        return err;
    }
    size_t len = fork_write(worker, worker->worker->index, wire, bytes);
    err = pls_packet_queue_push(&template->outgoing, (const uint8_t *)bytes, len, fds, 3);
    if (err != PLS_OK) {
        return err;
    }
    fds[0] = -1;
    fds[1] = -1;
    fds[2] = -1;
    if (pls_packet_queue_flush(&template->outgoing, template->socket.fd) == PLS_EFULL) {
        pls_loop_rewatch(node->loop, &template->socket, EPOLLIN | EPOLLOUT);
    }
    return PLS_OK;
}

void pls_template_kill(pls_node *node)
{
    if (node->template.stage != PLS_TEMPLATE_OFF) {
        pls_process_kill(node->template.process.fd);
    }
}

size_t pls_template_tail(pls_node *node, char *text, size_t capacity)
{
    pls_template *template = &node->template;
    if (template->has_source) {
        return pls_output_tail(node->output, template->source, text, capacity);
    }
    size_t bytes = template->last_words_bytes < capacity ? template->last_words_bytes : capacity;
    memcpy(text, template->last_words, bytes);
    return bytes;
}
