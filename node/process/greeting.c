/* SPDX-License-Identifier: Apache-2.0 */
/* How a process becomes one of the system: HELLO tells who it is and gives it a slot, ATTACH brings
 * its inbox. Everything it hands over is checked here, since the node will touch it later. */
#include "node/process/greeting.h"

#include "node/control_data.h"
#include "node/process/handle.h"
#include "node/process/node.h"
#include "node/process/workers.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

static void welcome_refuse(pls_client *client, uint32_t request, pls_err status, const char *why)
{
    pls_control_packet packet = {.type = PLS_CONTROL_WELCOME,
                                 .request = request,
                                 .status = status,
                                 .text = why,
                                 .text_bytes = strlen(why)};
    pls_client_send(client, &packet);
}

static void welcome_send(pls_client *client, uint32_t request)
{
    pls_node *node = client->node;
    uint8_t bytes[PLS_NAME_BYTES_MAX];
    pls_writer w = pls_writer_into(bytes, sizeof bytes);
    pls_welcome_data data = {
        .attached_count = node->attached_count,
        .worker_index = client->worker == NULL ? PLS_WORKER_INDEX_NONE : client->worker->index,
        .workers_max = node->settings.options.workers_max,
        .memory_budget_bytes = node->settings.options.memory_budget_bytes,
    };
    pls_welcome_encode(&data, &w);
    pls_control_packet packet = {.type = PLS_CONTROL_WELCOME,
                                 .request = request,
                                 .slot = client->slot,
                                 .epoch = client->epoch,
                                 .pid = (uint32_t)getpid(),
                                 .name = node->directory->header.name,
                                 .name_bytes = strlen(node->directory->header.name),
                                 .data = bytes,
                                 .data_bytes = pls_writer_len(&w),
                                 .fds = {node->directory_fd},
                                 .fd_count = 1};
    pls_client_send(client, &packet);
}

static bool role_fits(const pls_client *client, uint32_t role)
{
    if (client->worker != NULL) {
        return role == PLS_ROLE_WORKER;
    }
    return role == PLS_ROLE_HOST || role == PLS_ROLE_INSPECTOR;
}

/* Watches the process that greets, by the pidfd it sent. A worker is usually watched already. */
static pls_err process_know(pls_client *client, pls_control_packet *packet)
{
    pid_t pid;
    pls_err err = pls_process_number(packet->fds[0], &pid);
    if (err != PLS_OK || pid == getpid()) {
        return PLS_EPROTO;
    }
    if (client->process.fd >= 0) {
        return client->pid == pid ? PLS_OK : PLS_EPROTO;
    }
    int pidfd = packet->fds[0];
    packet->fds[0] = -1;
    return pls_client_process_watch(client, pidfd, pid);
}

void pls_greeting_hello(pls_client *client, pls_control_packet *packet)
{
    char why[256];
    if (client->stage != PLS_CLIENT_STRANGER) {
        welcome_refuse(client, packet->request, PLS_EPROTO, "greeted twice");
        return;
    }
    if (packet->epoch != PLS_CONTROL_VERSION || packet->number != pls_control_layout_hash()) {
        snprintf(why, sizeof why,
                 "this process and the node (pid %d) come from different builds of Pulsing "
                 "(protocol %u and %u): install one version for both",
                 (int)getpid(), packet->epoch, PLS_CONTROL_VERSION);
        pls_output_note(client->node->output, "pulsing: pid %u was refused: %s", packet->pid, why);
        welcome_refuse(client, packet->request, PLS_EVERSION, why);
        return;
    }
    if (!role_fits(client, packet->slot)) {
        welcome_refuse(client, packet->request, PLS_EINVAL, "no such role for this process");
        return;
    }
    if (client->node->leave.stage != PLS_LEAVE_NOT) {
        welcome_refuse(client, packet->request, PLS_ECLOSED, "the system is shutting down");
        return;
    }
    if (client->slot == 0 && pls_client_slot_take(client, (pls_role)packet->slot) != PLS_OK) {
        welcome_refuse(client, packet->request, PLS_EFULL,
                       "256 processes are attached to this node, and more do not fit: attach "
                       "fewer, or start a second node");
        return;
    }
    pls_err err = process_know(client, packet);
    if (err != PLS_OK) {
        welcome_refuse(client, packet->request, err, "the pidfd that came with the greeting");
        return;
    }
    pls_client_greeted(client);
    welcome_send(client, packet->request);
}

static pls_err memory_take(pls_client *client, pls_control_packet *packet)
{
    if (!pls_process_is_bell(packet->fds[1])) {
        return PLS_EINVAL;
    }
    int inbox = dup(packet->fds[0]);
    int bell = dup(packet->fds[1]);
    if (inbox < 0 || bell < 0) {
        close(inbox);
        close(bell);
        return PLS_EFDLIMIT;
    }
    pls_err err = pls_peer_attach(inbox, bell, client->slot, client->epoch, &client->peer);
    if (err != PLS_OK) {
        close(inbox);
        close(bell);
        return err == PLS_EPROTO ? PLS_EINVAL : err;
    }
    client->inbox_fd = packet->fds[0];
    client->bell_fd = packet->fds[1];
    client->obs_fd = packet->fd_count == 3 ? packet->fds[2] : -1;
    packet->fds[0] = -1;
    packet->fds[1] = -1;
    packet->fds[2] = -1;
    return PLS_OK;
}

void pls_greeting_attach(pls_client *client, pls_control_packet *packet)
{
    static const char refused[] = "the inbox or its bell is not what this node takes: a sealed "
                                  "inbox of this slot and epoch, and an eventfd";
    if (client->stage != PLS_CLIENT_GREETED) {
        pls_client_reply(client, packet->request, PLS_EPROTO);
        return;
    }
    pls_err err = memory_take(client, packet);
    if (err != PLS_OK) {
        pls_client_reply_text(client, packet->request, err, refused, sizeof refused - 1);
        return;
    }
    /* What runs before an attachment may have moved the process into a cgroup of its own. */
    client->oom_group = pls_oom_group_of(&client->node->oom, client->pid);
    client->stage = PLS_CLIENT_JOINED;
    client->was_joined = true;
    client->node->attached_count++;
    pls_directory_life_set(client->node->directory, client->slot, client->epoch, PLS_SLOT_ALIVE);
    pls_vigil_add(client->node->vigil, client->slot, pls_peer_life(client->peer));
    pls_client_reply(client, packet->request, PLS_OK);
    if (client->worker != NULL) {
        pls_worker_joined(client->worker);
    }
}
