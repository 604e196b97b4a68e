/* SPDX-License-Identifier: Apache-2.0 */
/* Control sockets at the node's end: accepting bytes, sending with a bounded queue, and the slots
 * that clients live in. A client is cut off by shutting its socket down; everything else about its
 * end then takes the one usual way, through the hang-up. */
#include "node/process/node.h"
#include "node/process/workers.h"

#include "base/assert.h"
#include "node/memory_file.h"
#include "node/process/handle.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

/* Packets served in a row from one client before others have their turn. */
#define PACKETS_IN_A_ROW_MAX 64
/* More than a socket of the largest usual size can hold: all that stood in it at the beginning. */
#define PACKETS_IN_A_DRAIN_MAX 65536

static void stranger_link(pls_client *client)
{
    pls_node *node = client->node;
    client->stranger_previous = NULL;
    client->stranger_next = node->strangers;
    if (node->strangers != NULL) {
        node->strangers->stranger_previous = client;
    }
    node->strangers = client;
    node->stranger_count++;
}

static void stranger_unlink(pls_client *client)
{
    pls_node *node = client->node;
    if (client->stranger_previous != NULL) {
        client->stranger_previous->stranger_next = client->stranger_next;
    } else {
        node->strangers = client->stranger_next;
    }
    if (client->stranger_next != NULL) {
        client->stranger_next->stranger_previous = client->stranger_previous;
    }
    client->stranger_next = NULL;
    client->stranger_previous = NULL;
    node->stranger_count--;
}

static void hang_up(pls_client *client)
{
    client->cut_off = true;
    if (client->control.fd >= 0) {
        (void)shutdown(client->control.fd, SHUT_RDWR);
    }
}

/* The socket is at its end; what that means depends on what the process is. */
static void hung_up(pls_client *client)
{
    close(pls_loop_unwatch(client->node->loop, &client->control));
    pls_packet_queue_fini(&client->outgoing);
    if (client->worker != NULL && client->process.fd < 0) {
        const pls_template *template = &client->node->template;
        /* Its process may have been reported while this was on its way. */
        pls_template_drain(client->node);
        bool ending = template->stage != PLS_TEMPLATE_OFF &&
                      (template->hung_up || pls_process_exiting(template->pid));
        if (client->process.fd < 0 && ending) {
            /* The template takes it along, and closes this socket before or after its own: its end
             * decides what becomes of the worker. */
            return;
        }
    }
    bool nothing_shared = !client->was_joined || client->detached;
    if (client->worker == NULL ? nothing_shared : client->process.fd < 0) {
        pls_client_dead(client);
    } else {
        pls_client_dying(client);
    }
}

static pls_err packet_receive(pls_client *client)
{
    pls_control_packet packet;
    pls_node *node = client->node;
    pls_err err =
        pls_control_receive(client->control.fd, PLS_CONTROL_AT_NODE, node->packet, &packet);
    if (err == PLS_OK) {
        pls_client_serve(client, &packet);
        pls_control_packet_drop(&packet);
        return PLS_OK;
    }
    if (err == PLS_EPROTO) {
        pls_output_note(node->output,
                        "pulsing: pid %d sent what is no packet of ours and is cut off",
                        (int)client->pid);
    } else if (err == PLS_EFDLIMIT) {
        pls_output_note(node->output,
                        "pulsing: the node's descriptor limit is reached; raise `ulimit -n`");
    }
    return err;
}

void pls_client_drain(pls_client *client)
{
    for (int i = 0; i < PACKETS_IN_A_DRAIN_MAX && client->control.fd >= 0; i++) {
        if (packet_receive(client) != PLS_OK) {
            break;
        }
    }
}

static void outgoing_flush(pls_client *client)
{
    pls_err err = pls_packet_queue_flush(&client->outgoing, client->control.fd);
    if (err == PLS_OK) {
        pls_loop_rewatch(client->node->loop, &client->control, EPOLLIN);
    } else if (err != PLS_EFULL) {
        hang_up(client);
    }
}

static void control_ready(pls_watch *watch, uint32_t events)
{
    pls_client *client = watch->owner;
    if ((events & EPOLLOUT) != 0) {
        outgoing_flush(client);
    }
    for (int i = 0; i < PACKETS_IN_A_ROW_MAX && client->control.fd >= 0; i++) {
        pls_err err = packet_receive(client);
        if (err == PLS_EEMPTY) {
            break;
        }
        if (err != PLS_OK) {
            hung_up(client);
            break;
        }
    }
    pls_segment_questions_serve(client->node);
}

pls_err pls_client_create(pls_node *node, int fd, pls_client **client_out)
{
    pls_client *client = calloc(1, sizeof *client);
    if (client == NULL) {
        return PLS_ENOMEM;
    }
    client->node = node;
    client->control = (pls_watch){.fd = -1, .ready = control_ready, .owner = client};
    client->process = (pls_watch){.fd = -1};
    client->inbox_fd = -1;
    client->bell_fd = -1;
    client->obs_fd = -1;
    pls_packet_queue_init(&client->outgoing, PLS_CLIENT_OUT_COUNT_MAX, PLS_CLIENT_OUT_BYTES_MAX);
    pls_err err = pls_loop_watch(node->loop, &client->control, fd, EPOLLIN);
    if (err != PLS_OK) {
        free(client);
        return err;
    }
    stranger_link(client);
    if (node->stranger_count > PLS_STRANGERS_MAX) {
        pls_client *oldest = node->strangers;
        for (pls_client *c = oldest; c != NULL; c = c->stranger_next) {
            /* Workers and the launcher have been invited; the rest makes room. */
            oldest = c->worker == NULL && c != node->launcher ? c : oldest;
        }
        if (oldest != client && oldest->worker == NULL && oldest != node->launcher) {
            hang_up(oldest);
        }
    }
    *client_out = client;
    return PLS_OK;
}

pls_err pls_client_slot_take(pls_client *client, pls_role role)
{
    pls_node *node = client->node;
    for (uint32_t slot = PLS_NODE_SLOT + 1; slot < PLS_SLOTS_MAX; slot++) {
        pls_slot *s = &node->slots[slot];
        /* A slot whose epochs are used up is not used again. */
        if (s->client != NULL || s->epoch == PLS_EPOCH_MAX) {
            continue;
        }
        s->client = client;
        s->epoch++;
        client->slot = slot;
        client->epoch = s->epoch;
        client->role = role;
        pls_directory_line_clear(node->directory, slot);
        pls_directory_line *line = &node->directory->lines[slot];
        uint32_t index = client->worker == NULL ? PLS_WORKER_INDEX_NONE : client->worker->index;
        atomic_store_explicit(&line->role, (uint32_t)role, memory_order_relaxed);
        atomic_store_explicit(&line->worker_index, index, memory_order_relaxed);
        pls_directory_life_set(node->directory, slot, s->epoch, PLS_SLOT_STARTING);
        return PLS_OK;
    }
    return PLS_EFULL;
}

void pls_client_greeted(pls_client *client)
{
    pls_assert(client->stage == PLS_CLIENT_STRANGER);
    stranger_unlink(client);
    client->stage = PLS_CLIENT_GREETED;
}

void pls_client_unlisted(pls_client *client)
{
    if (client->stage == PLS_CLIENT_STRANGER) {
        stranger_unlink(client);
    }
}

pls_client *pls_client_find(pls_node *node, pls_client_key key)
{
    if (key.slot >= PLS_SLOTS_MAX) {
        return NULL;
    }
    pls_client *client = node->slots[key.slot].client;
    return client != NULL && client->epoch == key.epoch ? client : NULL;
}

pls_client_key pls_client_key_of(const pls_client *client)
{
    return (pls_client_key){client->slot, client->epoch};
}

static pls_err packet_queue(pls_client *client, const pls_control_packet *packet,
                            const uint8_t *bytes, size_t len)
{
    int copies[PLS_CONTROL_FDS_MAX];
    for (uint32_t i = 0; i < packet->fd_count; i++) {
        copies[i] = dup(packet->fds[i]);
        if (copies[i] < 0) {
            while (i > 0) {
                close(copies[--i]);
            }
            return PLS_EFDLIMIT;
        }
    }
    pls_err err = pls_packet_queue_push(&client->outgoing, bytes, len, copies, packet->fd_count);
    for (uint32_t i = 0; err != PLS_OK && i < packet->fd_count; i++) {
        close(copies[i]);
    }
    return err;
}

void pls_client_send(pls_client *client, const pls_control_packet *packet)
{
    uint8_t bytes[PLS_CONTROL_PACKET_BYTES_MAX];
    if (client->control.fd < 0 || client->cut_off) {
        return;
    }
    size_t len = pls_control_encode(packet, bytes);
    pls_err err = PLS_EFULL;
    if (client->outgoing.first == NULL) {
        err = pls_control_send(client->control.fd, bytes, len, packet->fds, packet->fd_count);
    }
    if (err == PLS_EFULL) {
        err = packet_queue(client, packet, bytes, len);
        if (err == PLS_OK) {
            pls_loop_rewatch(client->node->loop, &client->control, EPOLLIN | EPOLLOUT);
        }
    }
    if (err == PLS_EFULL || err == PLS_ENOMEM || err == PLS_EFDLIMIT) {
        pls_output_note(client->node->output,
                        "pulsing: pid %d does not read its control socket and is cut off",
                        (int)client->pid);
    }
    if (err != PLS_OK) {
        hang_up(client);
    }
}

void pls_client_reply(pls_client *client, uint32_t request, pls_err status)
{
    pls_client_reply_text(client, request, status, NULL, 0);
}

void pls_client_reply_text(pls_client *client, uint32_t request, pls_err status, const char *text,
                           size_t text_bytes)
{
    pls_control_packet reply = {.type = PLS_CONTROL_REPLY,
                                .request = request,
                                .status = status,
                                .text = text,
                                .text_bytes = text_bytes};
    pls_client_send(client, &reply);
}

void pls_client_reply_list(pls_client *client, pls_control_packet *reply, const char *name,
                           const uint8_t *bytes, size_t len)
{
    reply->type = PLS_CONTROL_REPLY;
    if (len > PLS_CONTROL_INLINE_BYTES_MAX) {
        reply->status = pls_memory_file_make(name, bytes, len, &reply->fds[0]);
        reply->fd_count = reply->status == PLS_OK ? 1 : 0;
    } else {
        reply->data = bytes;
        reply->data_bytes = len;
    }
    pls_client_send(client, reply);
    if (reply->fd_count > 0) {
        close(reply->fds[0]);
    }
}

void pls_client_reply_to(pls_node *node, pls_request_key key, pls_err status)
{
    pls_client *client = pls_client_find(node, key.client);
    if (client != NULL) {
        pls_client_reply(client, key.request, status);
    }
}

void pls_clients_tell(pls_node *node, const pls_control_packet *packet)
{
    for (uint32_t slot = 0; slot < PLS_SLOTS_MAX; slot++) {
        pls_client *client = node->slots[slot].client;
        if (client != NULL && client->stage == PLS_CLIENT_JOINED) {
            pls_client_send(client, packet);
        }
    }
}

static void process_ready(pls_watch *watch, uint32_t events)
{
    pls_client *client = watch->owner;
    if (pls_process_ended(watch->fd)) {
        pls_client_dead(client);
        pls_segment_questions_serve(client->node);
    }
}

pls_err pls_client_process_watch(pls_client *client, int pidfd, pid_t pid)
{
    pls_assert(client->process.fd < 0);
    client->process = (pls_watch){.fd = -1, .ready = process_ready, .owner = client};
    pls_err err = pls_loop_watch(client->node->loop, &client->process, pidfd, EPOLLIN);
    if (err != PLS_OK) {
        close(pidfd);
        return err;
    }
    client->pid = pid;
    client->oom_group = pls_oom_group_of(&client->node->oom, pid);
    if (client->slot != 0) {
        pls_directory_line *line = &client->node->directory->lines[client->slot];
        atomic_store_explicit(&line->pid, (uint32_t)pid, memory_order_relaxed);
        atomic_store_explicit(&line->started_ticks, pls_process_start_ticks(pid),
                              memory_order_relaxed);
    }
    return PLS_OK;
}

static void descriptor_close(int *fd)
{
    if (*fd >= 0) {
        close(*fd);
        *fd = -1;
    }
}

void pls_client_destroy(pls_client *client)
{
    pls_node *node = client->node;
    pls_assert(client->stage == PLS_CLIENT_DEAD);
    int control = pls_loop_unwatch(node->loop, &client->control);
    int process = pls_loop_unwatch(node->loop, &client->process);
    descriptor_close(&control);
    descriptor_close(&process);
    pls_packet_queue_fini(&client->outgoing);
    pls_segments_fini(&client->segments);
    pls_peer_release(client->peer);
    descriptor_close(&client->inbox_fd);
    descriptor_close(&client->bell_fd);
    descriptor_close(&client->obs_fd);
    if (client->slot != 0) {
        node->slots[client->slot].client = NULL;
        pls_directory_life_set(node->directory, client->slot, client->epoch, PLS_SLOT_FREE);
    }
    pls_loop_free_later(node->loop, client);
}
