/* SPDX-License-Identifier: Apache-2.0 */
/* Putting the node together and taking it apart. Signals come as packets of a signalfd; a child
 * that nobody here knows (what a dead worker left behind becomes ours) is reaped on SIGCHLD. */
#include "node/process/node.h"

#include "base/assert.h"
#include "node/address.h"
#include "node/process/handle.h"
#include "node/process/registry.h"
#include "node/process/workers.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <unistd.h>

#define OUTPUT_FLUSH_MS 500
#define CHILDREN_KILL_MS 2000
/* Between two notes about the same trouble. */
#define NOTE_PAUSE_NS 1000000000ull
/* Room for 256 inboxes with their bells, and for payload segments. */
#define DESCRIPTORS_WANTED 65536

/* Without a free descriptor a connection cannot even be refused, and would be told for ever. */
static void connection_refuse(pls_node *node)
{
    close(node->spare_fd);
    close(accept4(node->listener.fd, NULL, NULL, SOCK_CLOEXEC));
    node->spare_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    uint64_t now_ns = pls_loop_now_ns();
    if (now_ns - node->refusal_noted_ns < NOTE_PAUSE_NS) {
        return;
    }
    node->refusal_noted_ns = now_ns;
    pls_output_note(node->output,
                    "pulsing: a process could not attach, because the node's descriptor limit is "
                    "reached; raise `ulimit -n`");
}

static void listener_ready(pls_watch *watch, uint32_t events)
{
    pls_node *node = watch->owner;
    pls_client *client;
    int fd = accept4(watch->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd < 0) {
        if (errno == EMFILE || errno == ENFILE) {
            connection_refuse(node);
        }
        return;
    }
    if (!pls_address_peer_is_own(fd)) {
        pls_output_note(node->output, "pulsing: a process of another user was refused");
        close(fd);
    } else if (pls_client_create(node, fd, &client) != PLS_OK) {
        close(fd);
    }
}

/* A child by number: one we know is served, anybody else only reaped. */
static void child_ended(pls_node *node, pid_t pid)
{
    pls_template_drain(node);
    if (pid == node->template.pid) {
        node->template.process.ready(&node->template.process, EPOLLIN);
        return;
    }
    for (uint32_t slot = 0; slot < PLS_SLOTS_MAX; slot++) {
        pls_client *client = node->slots[slot].client;
        if (client != NULL && client->worker != NULL && client->pid == pid &&
            client->process.fd >= 0) {
            client->process.ready(&client->process, EPOLLIN);
            return;
        }
    }
    pls_process_zombie_reap(pid);
}

static void children_reap(pls_node *node)
{
    for (int i = 0; i < PLS_SLOTS_MAX * 4; i++) {
        pid_t pid = pls_process_zombie_peek();
        if (pid == 0) {
            return;
        }
        child_ended(node, pid);
    }
}

static void signals_ready(pls_watch *watch, uint32_t events)
{
    pls_node *node = watch->owner;
    struct signalfd_siginfo info;
    while (read(watch->fd, &info, sizeof info) == (ssize_t)sizeof info) {
        if (info.ssi_signo == SIGCHLD) {
            children_reap(node);
        } else {
            uint32_t given = node->settings.options.drain_timeout_ms;
            pls_leave_begin(node, NULL, 0, given == 0 ? PLS_DRAIN_TIMEOUT_MS : given);
        }
    }
}

static void launcher_ended(pls_watch *watch, uint32_t events)
{
    pls_node *node = watch->owner;
    if (pls_process_ended(watch->fd)) {
        close(pls_loop_unwatch(node->loop, watch));
        pls_leave_now(node);
    }
}

static void life_noticed(pls_watch *watch, uint32_t events)
{
    pls_node *node = watch->owner;
    uint32_t slot;
    while (pls_vigil_next(node->vigil, &slot)) {
        pls_client *client = node->slots[slot].client;
        if (client != NULL && client->stage == PLS_CLIENT_JOINED) {
            pls_client_dying(client);
        }
    }
}

static pls_err signals_open(pls_node *node)
{
    sigset_t set;
    struct sigaction ignore = {.sa_handler = SIG_IGN};
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGCHLD);
    sigaction(SIGPIPE, &ignore, NULL);
    if (node->settings.embedded) {
        /* The terminal's signals are for the user's program. */
        sigaction(SIGHUP, &ignore, NULL);
    } else {
        sigaddset(&set, SIGINT);
        sigaddset(&set, SIGHUP);
    }
    /* Ignored by whatever is started from here: Ctrl-C ends workers through the node alone. */
    sigaction(SIGINT, &ignore, NULL);
    sigaction(SIGTTOU, &ignore, NULL); /* workers' output reaches a terminal from the background */
    sigprocmask(SIG_SETMASK, &set, NULL);
    int fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    if (fd < 0) {
        return pls_err_from_errno(errno);
    }
    node->signals = (pls_watch){.fd = -1, .ready = signals_ready, .owner = node};
    return pls_loop_watch(node->loop, &node->signals, fd, EPOLLIN);
}

static void descriptors_raise(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < DESCRIPTORS_WANTED) {
        limit.rlim_cur = limit.rlim_max < DESCRIPTORS_WANTED ? limit.rlim_max : DESCRIPTORS_WANTED;
        (void)setrlimit(RLIMIT_NOFILE, &limit);
    }
}

static pls_err directory_open(pls_node *node)
{
    const pls_node_options *o = &node->settings.options;
    pls_err err = pls_directory_create(&node->directory, &node->directory_fd);
    if (err != PLS_OK) {
        return err;
    }
    pls_directory_header *header = &node->directory->header;
    header->workers_max = o->workers_max;
    header->node_started_ns = pls_loop_now_ns();
    snprintf(header->name, sizeof header->name, "%s", o->name == NULL ? "pulsing" : o->name);
    if (getrandom(header->node_id, sizeof header->node_id, 0) != (ssize_t)sizeof header->node_id) {
        return PLS_ESYS;
    }
    pls_directory_line *line = &node->directory->lines[PLS_NODE_SLOT];
    atomic_store_explicit(&line->worker_index, PLS_WORKER_INDEX_NONE, memory_order_relaxed);
    atomic_store_explicit(&line->pid, (uint32_t)getpid(), memory_order_relaxed);
    atomic_store_explicit(&line->started_ticks, pls_process_start_ticks(getpid()),
                          memory_order_relaxed);
    node->slots[PLS_NODE_SLOT].epoch = 1;
    pls_directory_life_set(node->directory, PLS_NODE_SLOT, 1, PLS_SLOT_ALIVE);
    return PLS_OK;
}

static pls_err listener_open(pls_node *node, char *trouble)
{
    const char *where = node->settings.options.listen;
    pls_address address;
    int fd;
    if (where == NULL || where[0] == 0) {
        return PLS_OK;
    }
    pls_err err = pls_address_make(where, &address);
    if (err == PLS_OK) {
        err = pls_address_listen(&address, &fd);
    }
    if (err == PLS_EEXIST) {
        snprintf(trouble, PLS_TROUBLE_BYTES_MAX,
                 "'%s' is taken: a node of that name runs already on this host; attach to it, or "
                 "choose another name",
                 where);
    } else if (err != PLS_OK) {
        snprintf(trouble, PLS_TROUBLE_BYTES_MAX, "cannot listen at '%s': %s", where,
                 pls_err_text(err));
    }
    if (err != PLS_OK) {
        return err;
    }
    node->listens_at_path = address.is_path;
    node->listener = (pls_watch){.fd = -1, .ready = listener_ready, .owner = node};
    return pls_loop_watch(node->loop, &node->listener, fd, EPOLLIN);
}

static pls_err launcher_open(pls_node *node)
{
    if (!node->settings.embedded) {
        return PLS_OK;
    }
    node->launcher_end = (pls_watch){.fd = -1, .ready = launcher_ended, .owner = node};
    pls_err err = pls_loop_watch(node->loop, &node->launcher_end, PLS_NODE_LAUNCHER_FD, EPOLLIN);
    if (err == PLS_OK) {
        err = pls_client_create(node, PLS_NODE_CONTROL_FD, &node->launcher);
    }
    return err;
}

static pls_err life_open(pls_node *node)
{
    int notice_fd;
    pls_err err = pls_vigil_create(&node->vigil, &notice_fd);
    if (err != PLS_OK) {
        return err;
    }
    node->life_notice = (pls_watch){.fd = -1, .ready = life_noticed, .owner = node};
    return pls_loop_watch(node->loop, &node->life_notice, notice_fd, EPOLLIN);
}

static pls_err tables_open(pls_node *node)
{
    uint64_t seed;
    if (getrandom(&seed, sizeof seed, 0) != (ssize_t)sizeof seed) {
        return PLS_ESYS;
    }
    pls_err err = pls_names_create(seed, &node->names);
    if (err != PLS_OK) {
        return err;
    }
    pls_registry_open(node);
    return pls_restarts_create(node, &node->restarts);
}

static pls_err parts_open(pls_node *node, char *trouble)
{
    pls_err err = pls_loop_create(&node->loop);
    if (err == PLS_OK) {
        err = signals_open(node);
    }
    if (err == PLS_OK) {
        err = pls_output_create(node->settings.options.output_plain, &node->output);
    }
    if (err == PLS_OK) {
        err = directory_open(node);
    }
    if (err == PLS_OK) {
        err = listener_open(node, trouble);
    }
    if (err == PLS_OK) {
        err = tables_open(node);
    }
    if (err == PLS_OK) {
        err = life_open(node);
    }
    if (err == PLS_OK) {
        err = pls_net_create(node, &node->net, trouble);
    }
    if (err == PLS_OK && node->net != NULL) {
        err = pls_gateway_create(node, &node->gateway);
    }
    if (err == PLS_OK) {
        err = launcher_open(node);
    }
    return err;
}

pls_err pls_node_create(pls_settings *settings, pls_node **node_out, char *trouble)
{
    pls_node *node = calloc(1, sizeof *node);
    if (node == NULL) {
        pls_settings_fini(settings);
        return PLS_ENOMEM;
    }
    node->settings = *settings;
    *settings = (pls_settings){0};
    node->directory_fd = -1;
    node->spare_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    pls_oom_init(&node->oom);
    node->listener.fd = -1;
    node->signals.fd = -1;
    node->launcher_end.fd = -1;
    node->life_notice.fd = -1;
    node->template.node = node;
    node->template.socket.fd = -1;
    node->template.process.fd = -1;
    for (uint32_t i = 0; i < PLS_DEAD_OBS_MAX; i++) {
        node->dead_obs[i].fd = -1;
    }
    descriptors_raise();
    pls_err err = parts_open(node, trouble);
    if (err == PLS_OK && node->settings.options.workers_max > 0) {
        /* A template that cannot be started is told to those who ask for a worker. */
        (void)!pls_template_start(node);
    }
    if (err != PLS_OK) {
        pls_node_destroy(node);
        return err;
    }
    *node_out = node;
    return PLS_OK;
}

static void clients_destroy(pls_node *node)
{
    for (uint32_t slot = 0; slot < PLS_SLOTS_MAX; slot++) {
        pls_client *client = node->slots[slot].client;
        if (client != NULL && client->stage != PLS_CLIENT_DEAD) {
            /* With its last answers sent, as far as its socket takes them. */
            (void)!pls_packet_queue_flush(&client->outgoing, client->control.fd);
            pls_client_unlisted(client);
            client->stage = PLS_CLIENT_DEAD;
        }
        if (client != NULL) {
            pls_client_destroy(client);
        }
    }
    while (node->strangers != NULL) {
        pls_client *client = node->strangers;
        pls_client_unlisted(client);
        client->stage = PLS_CLIENT_DEAD;
        pls_client_destroy(client);
    }
}

static void listener_close(pls_node *node)
{
    int fd = pls_loop_unwatch(node->loop, &node->listener);
    if (fd < 0) {
        return;
    }
    if (node->listens_at_path) {
        /* Before it is closed: as long as it listens, nobody else takes the path. */
        (void)unlink(node->settings.options.listen);
    }
    close(fd);
}

void pls_node_destroy(pls_node *node)
{
    if (node->loop != NULL) {
        listener_close(node);
        pls_net_destroy(node->net);
        node->net = NULL;
        pls_gateway_destroy(node->gateway);
        node->gateway = NULL;
        (void)pls_loop_unwatch(node->loop, &node->life_notice);
        /* Before the clients, whose memory it reads. */
        pls_vigil_destroy(node->vigil);
        if (node->names != NULL) {
            pls_registry_fini(node);
        }
        clients_destroy(node);
        pls_memory_limit_end(node);
        close(pls_loop_unwatch(node->loop, &node->signals));
        close(pls_loop_unwatch(node->loop, &node->launcher_end));
    }
    pls_restarts_destroy(node->restarts);
    pls_names_destroy(node->names);
    pls_output_destroy(node->output, OUTPUT_FLUSH_MS);
    pls_directory_unmap(node->directory);
    close(node->directory_fd);
    close(node->spare_fd);
    for (uint32_t i = 0; i < PLS_DEAD_OBS_MAX; i++) {
        close(node->dead_obs[i].fd);
    }
    for (uint32_t i = 0; i < PLS_DEAD_TAILS_MAX; i++) {
        free(node->dead_tails[i].text);
    }
    pls_loop_destroy(node->loop);
    pls_settings_fini(&node->settings);
    free(node);
}

void pls_node_serve(pls_node *node)
{
    pls_loop_run(node->loop);
    pls_process_children_kill(CHILDREN_KILL_MS);
    pls_node_destroy(node);
}
