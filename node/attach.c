/* SPDX-License-Identifier: Apache-2.0 */
/* The client's side of the control socket: greeting, joining, leaving, and the events that come out
 * of it. One thread owns the object. What cannot be sent waits in a bounded queue; what arrives
 * during a waiting call waits in another, so that events keep their order. */
#include "node/attach.h"

#include "base/assert.h"
#include "base/bytes.h"
#include "node/attach_link.h"
#include "node/control_data.h"
#include "node/memory_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

pls_err pls_attach_fail(pls_attach *attach, pls_err err, const char *doing)
{
    snprintf(attach->trouble, sizeof attach->trouble, "%s: %s", doing, pls_err_text(err));
    return err;
}

static pls_attach *attach_empty(void)
{
    pls_attach *attach = calloc(1, sizeof *attach);
    if (attach == NULL) {
        return NULL;
    }
    attach->fd = -1;
    attach->pid = getpid();
    pls_packet_queue_init(&attach->outgoing, PLS_ATTACH_QUEUE_MAX, PLS_ATTACH_OUT_BYTES_MAX);
    pls_packet_queue_init(&attach->incoming, PLS_ATTACH_QUEUE_MAX, PLS_ATTACH_OUT_BYTES_MAX);
    attach->bytes = malloc(PLS_CONTROL_PACKET_BYTES_MAX);
    if (attach->bytes == NULL) {
        free(attach);
        return NULL;
    }
    return attach;
}

static void attach_destroy(pls_attach *attach)
{
    pls_packet_queue_fini(&attach->outgoing);
    pls_packet_queue_fini(&attach->incoming);
    pls_directory_unmap(attach->info.directory);
    free(attach->bytes);
    free(attach->large);
    free(attach);
}

/* Reads what the node tells in its welcome; the node is checked like anybody else. */
static pls_err welcome_read(pls_attach *attach, const pls_control_packet *welcome)
{
    pls_attach_info *info = &attach->info;
    pls_reader r = pls_reader_over(welcome->data, welcome->data_bytes);
    pls_welcome_data data;
    if (pls_welcome_decode(&r, &data) != PLS_OK || welcome->fd_count != 1 ||
        welcome->slot == PLS_NODE_SLOT || welcome->slot >= PLS_SLOTS_MAX || welcome->epoch == 0 ||
        welcome->epoch > PLS_EPOCH_MAX) {
        return PLS_EPROTO;
    }
    info->attached_count = data.attached_count;
    info->worker_index = data.worker_index;
    info->workers_max = data.workers_max;
    info->memory_budget_bytes = data.memory_budget_bytes;
    info->slot = welcome->slot;
    info->epoch = welcome->epoch;
    info->node_pid = welcome->pid;
    memcpy(attach->name, welcome->name, welcome->name_bytes);
    info->node_name = attach->name;
    pls_err err = pls_directory_map(welcome->fds[0], &info->directory);
    if (err == PLS_OK) {
        memcpy(info->node_id, info->directory->header.node_id, sizeof info->node_id);
    }
    return err;
}

static pls_err hello(pls_attach *attach, pls_role role)
{
    int self = (int)syscall(SYS_pidfd_open, getpid(), 0);
    if (self < 0) {
        return pls_attach_fail(attach, pls_err_from_errno(errno),
                               "cannot open a pidfd of this process (Linux 5.10 is needed, and a "
                               "seccomp profile that allows it)");
    }
    pls_control_packet packet = {.type = PLS_CONTROL_HELLO,
                                 .number = pls_control_layout_hash(),
                                 .slot = (uint32_t)role,
                                 .epoch = PLS_CONTROL_VERSION,
                                 .pid = (uint32_t)getpid(),
                                 .fds = {self},
                                 .fd_count = 1};
    pls_control_packet reply;
    pls_err err = pls_attach_call(attach, &packet, PLS_CONTROL_WELCOME, &reply);
    close(self);
    if (err != PLS_OK) {
        return err;
    }
    err = welcome_read(attach, &reply);
    pls_control_packet_drop(&reply);
    return err == PLS_OK ? PLS_OK : pls_attach_fail(attach, err, "the node's greeting is wrong");
}

pls_err pls_attach_open(int control_fd, pls_role role, pls_attach **attach_out, char *trouble)
{
    pls_attach *attach = attach_empty();
    if (attach == NULL) {
        snprintf(trouble, PLS_TROUBLE_BYTES_MAX, "%s", pls_err_text(PLS_ENOMEM));
        return PLS_ENOMEM;
    }
    attach->fd = control_fd;
    pls_err err = hello(attach, role);
    if (err != PLS_OK) {
        snprintf(trouble, PLS_TROUBLE_BYTES_MAX, "%s", attach->trouble);
        attach_destroy(attach);
        return err;
    }
    *attach_out = attach;
    return PLS_OK;
}

const pls_attach_info *pls_attach_info_of(const pls_attach *attach)
{
    return &attach->info;
}

pls_err pls_attach_join(pls_attach *attach, int inbox_fd, int bell_fd, int obs_fd, uint8_t *life)
{
    pls_assert(attach->life == NULL);
    if (life != NULL) {
        pls_err err = pls_life_holder_create(life, &attach->life);
        /* Without the early notice a death is learned from the pidfd, only later. */
        if (err != PLS_OK && err != PLS_EUNSUPPORTED) {
            return pls_attach_fail(attach, err, "cannot hold the life word");
        }
    }
    pls_control_packet packet = {.type = PLS_CONTROL_ATTACH,
                                 .flags = obs_fd >= 0 ? PLS_CONTROL_FLAG_OBS : 0,
                                 .fds = {inbox_fd, bell_fd, obs_fd},
                                 .fd_count = obs_fd >= 0 ? 3 : 2};
    pls_control_packet reply;
    pls_err err = pls_attach_call(attach, &packet, PLS_CONTROL_REPLY, &reply);
    if (err == PLS_OK) {
        pls_control_packet_drop(&reply);
    }
    return err;
}

bool pls_attach_close(pls_attach *attach, bool abrupt)
{
    if (attach == NULL) {
        return true;
    }
    bool let_go = pls_life_holder_destroy(attach->life);
    attach->life = NULL;
    if (!abrupt && !attach->closed && attach->pid == getpid()) {
        pls_control_packet packet = {.type = PLS_CONTROL_DETACH};
        /* If it does not go out, the node waits for the process's end instead. */
        (void)!pls_attach_send(attach, &packet);
        (void)!pls_packet_queue_flush(&attach->outgoing, attach->fd);
    }
    close(attach->fd);
    attach_destroy(attach);
    return let_go;
}

const char *pls_attach_trouble(const pls_attach *attach)
{
    return attach->trouble;
}

int pls_attach_fd(const pls_attach *attach)
{
    return attach->fd;
}

bool pls_attach_wants_write(const pls_attach *attach)
{
    return attach->outgoing.first != NULL;
}

/* Data larger than a packet comes in a memfd; it is copied, so that nobody can change it later. */
static pls_err large_read(pls_attach *attach, int fd, pls_attach_event *event)
{
    uint8_t *large;
    size_t len;
    pls_err err = pls_memory_file_read(fd, PLS_SPEC_BYTES_MAX, &large, &len);
    if (err != PLS_OK) {
        return err == PLS_ENOMEM ? PLS_ENOMEM : PLS_EPROTO;
    }
    attach->large = large;
    event->data = large;
    event->data_bytes = len;
    return PLS_OK;
}

static pls_attach_event_type event_type(uint16_t packet_type)
{
    switch (packet_type) {
    case PLS_CONTROL_REPLY:
        return PLS_EVENT_REPLY;
    case PLS_CONTROL_REBUILD:
        return PLS_EVENT_REBUILD;
    case PLS_CONTROL_ROUTE:
        return PLS_EVENT_ROUTE;
    case PLS_CONTROL_ACTOR_LOST:
        return PLS_EVENT_ACTOR_LOST;
    case PLS_CONTROL_MEMBER:
        return PLS_EVENT_MEMBER;
    case PLS_CONTROL_SHUTDOWN_NOTICE:
        return PLS_EVENT_SHUTDOWN;
    default:
        return 0;
    }
}

static pls_err event_from(pls_attach *attach, pls_control_packet *packet, pls_attach_event *event)
{
    pls_attach_event e = {
        .type = event_type(packet->type),
        .request = packet->request,
        .status = (pls_err)packet->status,
        .slot = packet->slot,
        .epoch = packet->epoch,
        .flags = packet->flags,
        .actor = packet->actor,
        .number = packet->number,
        .name = packet->name,
        .name_bytes = packet->name_bytes,
        .text = packet->text,
        .text_bytes = packet->text_bytes,
        .data = packet->data,
        .data_bytes = packet->data_bytes,
    };
    if (e.type == 0) {
        return PLS_EPROTO;
    }
    if (packet->fd_count > 0) {
        pls_err err = large_read(attach, packet->fds[0], &e);
        if (err != PLS_OK) {
            return err;
        }
    }
    *event = e;
    return PLS_OK;
}

/* The next packet: one that waited, else one from the socket. */
static pls_err packet_next(pls_attach *attach, pls_control_packet *packet)
{
    pls_stored_packet *stored = pls_packet_queue_pop(&attach->incoming);
    if (stored == NULL) {
        return pls_control_receive(attach->fd, PLS_CONTROL_AT_CLIENT, attach->bytes, packet);
    }
    memcpy(attach->bytes, stored->bytes, stored->len);
    pls_err err = pls_control_decode(attach->bytes, stored->len, PLS_CONTROL_AT_CLIENT,
                                     stored->fd_count, packet);
    for (uint32_t i = 0; err == PLS_OK && i < stored->fd_count; i++) {
        packet->fds[i] = stored->fds[i];
        stored->fds[i] = -1;
    }
    pls_stored_packet_destroy(stored);
    return err;
}

pls_err pls_attach_poll(pls_attach *attach, pls_attach_event *event_out)
{
    pls_control_packet packet;
    if (attach->pid != getpid()) {
        return PLS_EFORKED;
    }
    free(attach->large);
    attach->large = NULL;
    if (!attach->closed && attach->outgoing.first != NULL) {
        pls_err sent = pls_packet_queue_flush(&attach->outgoing, attach->fd);
        /* A hang-up is reported when everything that arrived before it has been read. */
        (void)sent;
    }
    pls_err err = packet_next(attach, &packet);
    if (err == PLS_OK) {
        err = event_from(attach, &packet, event_out);
        pls_control_packet_drop(&packet);
    }
    if (err != PLS_OK && err != PLS_EEMPTY && err != PLS_ENOMEM) {
        attach->closed = true;
        return pls_attach_fail(attach, err == PLS_EPROTO ? PLS_EPROTO : PLS_ECLOSED,
                               "the node process is gone");
    }
    return err;
}
