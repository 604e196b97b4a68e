/* SPDX-License-Identifier: Apache-2.0 */
/* Choosing, starting and ending workers. A worker gets its slot, its control socket and its output
 * pipes before it exists, so that whatever goes wrong on its way shows as the end of that socket,
 * and those who wait get its last lines. */
#include "node/process/workers.h"

#include "base/assert.h"
#include "node/process/handle.h"
#include "node/process/node.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define START_TIMEOUT_MS 60000
#define WAITERS_FIRST 4
#define DEATH_TEXT_BYTES 128
/* A handler that has run for this long counts as one that keeps its worker. */
#define HELD_NS 1000000ull
#define HELD_LOAD (1ull << 32) /* more than a worker has actors */
/* An actor placed on a worker shows in its count well before this, or will not. */
#define PLACED_VISIBLE_NS 1000000000ull

static void fail(pls_node *node, const pls_place_waiter *waiter, pls_err status, const char *text)
{
    pls_placed placed = {.status = status, .text = text, .text_bytes = strlen(text)};
    waiter->done(node, waiter, &placed);
}

static bool waiter_add(pls_worker *worker, const pls_place_waiter *waiter)
{
    if (worker->waiter_count == worker->waiter_room) {
        uint32_t room = worker->waiter_room == 0 ? WAITERS_FIRST : worker->waiter_room * 2;
        pls_place_waiter *grown =
            room > PLS_PLACE_WAITERS_MAX ? NULL : realloc(worker->waiters, room * sizeof *grown);
        if (grown == NULL) {
            return false;
        }
        worker->waiters = grown;
        worker->waiter_room = room;
    }
    worker->waiters[worker->waiter_count++] = *waiter;
    return true;
}

static void placed_note(pls_worker *worker)
{
    worker->placed_count++;
    worker->placed_ns = pls_loop_now_ns();
}

/* Actors that the directory shows, and those placed so lately that it cannot yet. */
static uint64_t load_of(pls_worker *worker)
{
    const pls_directory *directory = worker->client->node->directory;
    uint32_t actors = atomic_load_explicit(&directory->lines[worker->client->slot].actor_count,
                                           memory_order_relaxed);
    if (actors > worker->counted_actors) {
        uint32_t arrived = actors - worker->counted_actors;
        worker->placed_count -= arrived < worker->placed_count ? arrived : worker->placed_count;
    }
    worker->counted_actors = actors;
    if (pls_loop_now_ns() - worker->placed_ns > PLACED_VISIBLE_NS && worker->ready) {
        worker->placed_count = 0;
    }
    return (uint64_t)actors + worker->placed_count;
}

static void start_expired(pls_alarm *alarm)
{
    pls_worker *worker = alarm->owner;
    pls_output_note(worker->client->node->output,
                    "pulsing: a worker did not start in time and is killed");
    pls_worker_stop(worker, 0);
}

static void stop_expired(pls_alarm *alarm)
{
    pls_worker *worker = alarm->owner;
    pls_worker_stop(worker, 0);
}

/* The ends of the three channels between a worker and the node. */
typedef struct channels {
    int node_ends[3];
    int worker_ends[3];
} channels;

static void channels_close(int fds[3])
{
    for (int i = 0; i < 3; i++) {
        if (fds[i] >= 0) {
            close(fds[i]);
            fds[i] = -1;
        }
    }
}

static pls_err channels_open(channels *c)
{
    int pairs[3][2] = {{-1, -1}, {-1, -1}, {-1, -1}};
    int failed = socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pairs[0]);
    for (int i = 1; i < 3 && failed == 0; i++) {
        failed = pipe2(pairs[i], O_CLOEXEC);
        /* Only the reading end: a worker that prints too much waits. */
        failed = failed != 0 ? failed : fcntl(pairs[i][0], F_SETFL, O_NONBLOCK);
    }
    pls_err err = failed == 0 ? PLS_OK : pls_err_from_errno(errno);
    for (int i = 0; i < 3; i++) {
        c->node_ends[i] = pairs[i][0];
        c->worker_ends[i] = pairs[i][1];
    }
    if (err != PLS_OK) {
        channels_close(c->node_ends);
        channels_close(c->worker_ends);
    }
    return err;
}

static pls_worker *worker_create(uint32_t index, const pls_place_wire *wire)
{
    size_t cpu_bytes = wire->cpu_count * sizeof(uint16_t);
    pls_worker *worker = calloc(1, sizeof *worker);
    uint8_t *memory = malloc(wire->env_bytes + cpu_bytes + 1);
    if (worker == NULL || memory == NULL) {
        free(worker);
        free(memory);
        return NULL;
    }
    if (wire->env_bytes > 0) {
        memcpy(memory, wire->env, wire->env_bytes);
    }
    if (cpu_bytes > 0) {
        memcpy(memory + wire->env_bytes, wire->cpus, cpu_bytes);
    }
    worker->wire_memory = memory;
    worker->wire =
        (pls_place_wire){memory, wire->env_bytes, memory + wire->env_bytes, wire->cpu_count};
    worker->starts = 1;
    worker->index = index;
    worker->start_alarm = (pls_alarm){.ring = start_expired, .owner = worker};
    worker->stop_alarm = (pls_alarm){.ring = stop_expired, .owner = worker};
    return worker;
}

static void worker_free(pls_node *node, pls_worker *worker)
{
    free(worker->waiters);
    free(worker->wire_memory);
    pls_loop_free_later(node->loop, worker);
}

static pls_err output_open(pls_node *node, pls_worker *worker, channels *c)
{
    char label[PLS_OUTPUT_LABEL_BYTES_MAX];
    if (worker->index == PLS_WORKER_INDEX_NONE) {
        snprintf(label, sizeof label, "[dedicated %u] ", worker->client->slot);
    } else {
        snprintf(label, sizeof label, "[worker %u] ", worker->index);
    }
    pls_err err =
        pls_output_add(node->output, c->node_ends[1], c->node_ends[2], label, &worker->source);
    if (err == PLS_OK) {
        worker->has_source = true;
        c->node_ends[1] = -1;
        c->node_ends[2] = -1;
    }
    return err;
}

/* A client for the worker's socket, with its slot. */
static pls_err client_open(pls_node *node, pls_worker *worker, channels *c)
{
    pls_client *client = NULL;
    pls_err err = pls_client_create(node, c->node_ends[0], &client);
    if (err != PLS_OK) {
        return err;
    }
    c->node_ends[0] = -1;
    client->worker = worker;
    worker->client = client;
    node->worker_count++;
    return pls_client_slot_take(client, PLS_ROLE_WORKER);
}

static pls_err start_with(pls_node *node, pls_worker *worker, channels *c)
{
    uint32_t timeout_ms = node->settings.options.start_timeout_ms;
    pls_err err = client_open(node, worker, c);
    if (err == PLS_OK) {
        err = output_open(node, worker, c);
    }
    if (err == PLS_OK) {
        err = pls_template_fork(node, worker->client, &worker->wire, c->worker_ends);
    }
    if (err == PLS_OK) {
        err = pls_loop_alarm(node->loop, &worker->start_alarm,
                             pls_loop_now_ns() +
                                 (timeout_ms == 0 ? START_TIMEOUT_MS : timeout_ms) * PLS_NS_PER_MS);
    }
    return err;
}

static pls_err worker_start(pls_node *node, uint32_t index, const pls_place_wire *wire,
                            pls_worker **worker_out)
{
    channels c;
    if (node->settings.options.template_argv == NULL) {
        return PLS_EUNSUPPORTED;
    }
    pls_worker *worker = worker_create(index, wire);
    if (worker == NULL) {
        return PLS_ENOMEM;
    }
    pls_err err = channels_open(&c);
    if (err != PLS_OK) {
        worker_free(node, worker);
        return err;
    }
    err = start_with(node, worker, &c);
    channels_close(c.node_ends);
    if (err != PLS_OK) {
        channels_close(c.worker_ends);
        if (worker->client != NULL) {
            /* Takes the worker with it. */
            pls_client_dead(worker->client);
        } else {
            worker_free(node, worker);
        }
        return err;
    }
    if (index != PLS_WORKER_INDEX_NONE) {
        node->workers[index] = worker;
    }
    pls_memory_limit_begin(node);
    *worker_out = worker;
    return PLS_OK;
}

/* Milliseconds for which a handler has kept the worker from everything else. */
static uint64_t held_ms(const pls_worker *worker)
{
    const pls_directory *directory = worker->client->node->directory;
    uint64_t since_ns = atomic_load_explicit(&directory->lines[worker->client->slot].held_since_ns,
                                             memory_order_relaxed);
    uint64_t now_ns = pls_loop_now_ns();
    return since_ns != 0 && now_ns > since_ns + HELD_NS ? (now_ns - since_ns) / PLS_NS_PER_MS : 0;
}

/* The index to use next: one not yet started, else the one with the fewest actors among those that
 * no handler keeps. */
static uint32_t index_choose(pls_node *node)
{
    uint32_t best = 0;
    uint64_t best_load = UINT64_MAX;
    for (uint32_t i = 0; i < node->settings.options.workers_max; i++) {
        if (node->workers[i] == NULL) {
            return i;
        }
        uint64_t load = load_of(node->workers[i]) + held_ms(node->workers[i]) * HELD_LOAD;
        if (load < best_load) {
            best = i;
            best_load = load;
        }
    }
    return best;
}

static const char *start_error_text(pls_err err)
{
    switch (err) {
    case PLS_EUNSUPPORTED:
        return "this system has no worker processes (it was started with 0 workers)";
    case PLS_EFULL:
        return "256 processes are attached to this node, and more do not fit: use fewer workers, "
               "or a second node";
    case PLS_EFDLIMIT:
        return "the node's descriptor limit is reached: raise `ulimit -n`";
    case PLS_ENOENT:
    case PLS_EPERM:
        return "the Python interpreter for the workers cannot be run";
    default:
        return pls_err_text(err);
    }
}

static void place_on(pls_node *node, pls_worker *worker, const pls_place_waiter *waiter)
{
    placed_note(worker);
    if (worker->ready) {
        pls_placed placed = {.status = PLS_OK, .worker = worker->client};
        waiter->done(node, waiter, &placed);
    } else if (!waiter_add(worker, waiter)) {
        fail(node, waiter, PLS_ENOMEM, "too many placements wait for one worker");
    }
}

void pls_workers_place(pls_node *node, pls_place_kind kind, uint32_t index,
                       const pls_place_wire *wire, const pls_place_waiter *waiter)
{
    uint32_t workers_max = node->settings.options.workers_max;
    if (node->leave.stage != PLS_LEAVE_NOT) {
        fail(node, waiter, PLS_ECLOSED, "the system is shutting down");
        return;
    }
    if (kind == PLS_PLACE_INDEX && index >= workers_max) {
        fail(node, waiter, PLS_EINVAL, "no worker has this index");
        return;
    }
    if (kind == PLS_PLACE_LEAST_LOADED && workers_max == 0) {
        fail(node, waiter, PLS_EUNSUPPORTED, start_error_text(PLS_EUNSUPPORTED));
        return;
    }
    uint32_t at = kind == PLS_PLACE_INDEX       ? index
                  : kind == PLS_PLACE_DEDICATED ? PLS_WORKER_INDEX_NONE
                                                : index_choose(node);
    pls_worker *worker = at == PLS_WORKER_INDEX_NONE ? NULL : node->workers[at];
    pls_err err = worker == NULL ? worker_start(node, at, wire, &worker) : PLS_OK;
    if (err != PLS_OK) {
        fail(node, waiter, err, start_error_text(err));
        return;
    }
    place_on(node, worker, waiter);
}

static bool same_request(const pls_request_key *a, const pls_request_key *b)
{
    return a->client.slot == b->client.slot && a->client.epoch == b->client.epoch &&
           a->request == b->request;
}

void pls_workers_cancel(pls_node *node, pls_request_key asker)
{
    for (uint32_t slot = 0; slot < PLS_SLOTS_MAX; slot++) {
        const pls_client *client = node->slots[slot].client;
        pls_worker *worker = client == NULL ? NULL : client->worker;
        for (uint32_t i = 0; worker != NULL && i < worker->waiter_count;) {
            if (same_request(&worker->waiters[i].asker, &asker)) {
                worker->waiters[i] = worker->waiters[--worker->waiter_count];
            } else {
                i++;
            }
        }
    }
}

void pls_worker_joined(pls_worker *worker)
{
    pls_node *node = worker->client->node;
    pls_loop_alarm_clear(node->loop, &worker->start_alarm);
    worker->ready = true;
    pls_place_waiter *waiters = worker->waiters;
    uint32_t count = worker->waiter_count;
    worker->waiters = NULL;
    worker->waiter_count = 0;
    worker->waiter_room = 0;
    for (uint32_t i = 0; i < count; i++) {
        pls_placed placed = {.status = PLS_OK, .worker = worker->client};
        waiters[i].done(node, &waiters[i], &placed);
    }
    free(waiters);
}

static uint32_t drain_timeout_ms(const pls_node *node)
{
    uint32_t given = node->settings.options.drain_timeout_ms;
    return given == 0 ? PLS_DRAIN_TIMEOUT_MS : given;
}

void pls_worker_dying(pls_worker *worker)
{
    pls_node *node = worker->client->node;
    worker->ready = false;
    if (worker->index != PLS_WORKER_INDEX_NONE && node->workers[worker->index] == worker) {
        node->workers[worker->index] = NULL;
    }
    if (worker->client->detached && worker->stop_alarm.place == 0 && node->loop != NULL) {
        /* It has left in order and should exit by itself. */
        (void)!pls_loop_alarm(node->loop, &worker->stop_alarm,
                              pls_loop_now_ns() + drain_timeout_ms(node) * PLS_NS_PER_MS);
    }
}

static void tail_keep(pls_worker *worker, const char *text, size_t bytes)
{
    pls_node *node = worker->client->node;
    pls_dead_tail *place = &node->dead_tails[node->dead_tails_next];
    char *copy = malloc(bytes + 1);
    if (copy == NULL) {
        return;
    }
    memcpy(copy, text, bytes);
    free(place->text);
    *place =
        (pls_dead_tail){.key = pls_client_key_of(worker->client), .text = copy, .bytes = bytes};
    node->dead_tails_next = (node->dead_tails_next + 1) % PLS_DEAD_TAILS_MAX;
}

/* `lines`: what it printed last, with room for an opening before them. */
static void waiters_fail(pls_worker *worker, const pls_death *death, const char *lines,
                         size_t bytes)
{
    char how[DEATH_TEXT_BYTES];
    char text[PLS_CONTROL_TEXT_BYTES_MAX];
    pls_node *node = worker->client->node;
    pls_death_text(death, how, sizeof how);
    int len = snprintf(text, sizeof text, "the worker ended while it started (%s)%s",
                       death->pid == 0 ? "before it ran" : how,
                       bytes == 0 ? ", and printed nothing" : "; its last lines:\n");
    size_t used = (size_t)len;
    size_t kept = bytes < sizeof text - used ? bytes : sizeof text - used;
    /* The end of a traceback says more than its beginning. */
    memcpy(text + used, lines + (bytes - kept), kept);
    pls_placed placed = {.status = node->leave.stage == PLS_LEAVE_NOT ? PLS_EDEAD : PLS_ECLOSED,
                         .text = text,
                         .text_bytes = used + kept};
    for (uint32_t i = 0; i < worker->waiter_count; i++) {
        worker->waiters[i].done(node, &worker->waiters[i], &placed);
    }
    worker->waiter_count = 0;
}

void pls_worker_gone(pls_worker *worker, const pls_death *death)
{
    char text[PLS_OUTPUT_TAIL_BYTES_MAX];
    size_t bytes = 0;
    pls_node *node = worker->client->node;
    pls_loop_alarm_clear(node->loop, &worker->start_alarm);
    pls_loop_alarm_clear(node->loop, &worker->stop_alarm);
    if (worker->has_source) {
        bytes = pls_output_tail(node->output, worker->source, text, sizeof text);
        pls_output_remove(node->output, worker->source);
        tail_keep(worker, text, bytes);
    }
    if (worker->waiter_count > 0) {
        if (bytes == 0) {
            bytes = pls_template_tail(node, text, sizeof text);
        }
        waiters_fail(worker, death, text, bytes);
    }
    if (worker->stop_asked) {
        pls_client_reply_to(node, worker->stop_asker, PLS_OK);
    }
    node->worker_count--;
    worker_free(node, worker);
}

static void recycled_started(pls_node *node, const pls_place_waiter *waiter,
                             const pls_placed *placed)
{
    (void)waiter;
    if (placed->status != PLS_OK && placed->status != PLS_ECLOSED) {
        pls_output_note(node->output, "pulsing: a fresh worker could not be started: %.*s",
                        (int)placed->text_bytes, placed->text);
    }
}

void pls_worker_recycle(pls_worker *worker)
{
    static const pls_place_wire nothing;
    pls_node *node = worker->client->node;
    uint32_t index = worker->index;
    worker->recycling = true;
    atomic_store_explicit(&node->directory->lines[worker->client->slot].worker_index,
                          PLS_WORKER_INDEX_NONE, memory_order_relaxed);
    if (index == PLS_WORKER_INDEX_NONE || node->workers[index] != worker) {
        return;
    }
    node->workers[index] = NULL;
    pls_place_waiter waiter = {.done = recycled_started};
    pls_workers_place(node, PLS_PLACE_INDEX, index, &nothing, &waiter);
}

/* Asks another template for a worker that the last one had not forked. */
static void start_again(pls_worker *worker)
{
    pls_node *node = worker->client->node;
    pls_place_waiter *waiters = worker->waiters;
    uint32_t count = worker->waiter_count;
    uint32_t starts = worker->starts;
    uint32_t index = worker->index;
    pls_place_wire wire = worker->wire;
    uint8_t *wire_memory = worker->wire_memory;
    pls_place_kind kind = index == PLS_WORKER_INDEX_NONE ? PLS_PLACE_DEDICATED : PLS_PLACE_INDEX;
    worker->waiters = NULL;
    worker->waiter_count = 0;
    worker->waiter_room = 0;
    worker->wire_memory = NULL;
    pls_client_dead(worker->client);
    for (uint32_t i = 0; i < count; i++) {
        pls_workers_place(node, kind, index, &wire, &waiters[i]);
        if (index != PLS_WORKER_INDEX_NONE && node->workers[index] != NULL) {
            node->workers[index]->starts = starts + 1;
        }
    }
    free(waiters);
    free(wire_memory);
}

void pls_workers_template_gone(pls_node *node, bool by_signal)
{
    for (uint32_t slot = 0; slot < PLS_SLOTS_MAX; slot++) {
        pls_client *client = node->slots[slot].client;
        pls_worker *worker = client == NULL ? NULL : client->worker;
        if (worker == NULL || client->stage != PLS_CLIENT_STRANGER || client->process.fd >= 0) {
            continue;
        }
        if (by_signal && worker->starts < PLS_WORKER_STARTS_MAX && !worker->stopping &&
            node->leave.stage == PLS_LEAVE_NOT) {
            start_again(worker);
        } else {
            pls_client_dead(client);
        }
    }
}

static void worker_kill(pls_worker *worker)
{
    pls_client *client = worker->client;
    if (client->process.fd >= 0) {
        pls_process_kill(client->process.fd);
    } else if (client->control.fd >= 0) {
        /* Nobody knows its process yet; if there is one, it is killed when it is reported. */
        (void)shutdown(client->control.fd, SHUT_RDWR);
    }
}

void pls_worker_stop(pls_worker *worker, uint32_t timeout_ms)
{
    pls_client *client = worker->client;
    pls_node *node = client->node;
    worker->stopping = true;
    if (timeout_ms == 0 || client->stage != PLS_CLIENT_JOINED ||
        pls_loop_alarm(node->loop, &worker->stop_alarm,
                       pls_loop_now_ns() + timeout_ms * PLS_NS_PER_MS) != PLS_OK) {
        worker_kill(worker);
        return;
    }
    pls_control_packet notice = {.type = PLS_CONTROL_SHUTDOWN_NOTICE, .number = timeout_ms};
    pls_client_send(client, &notice);
}

void pls_workers_kill(pls_node *node)
{
    for (uint32_t slot = 0; slot < PLS_SLOTS_MAX; slot++) {
        pls_client *client = node->slots[slot].client;
        if (client != NULL && client->worker != NULL) {
            client->worker->stopping = true;
            worker_kill(client->worker);
        }
    }
}
