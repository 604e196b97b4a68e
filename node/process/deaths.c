/* SPDX-License-Identifier: Apache-2.0 */
/* The end of a client. DYING is told as soon as anything says that the process will not run again;
 * DEAD only when the kernel has confirmed it, or the process has promised to touch nothing any
 * more. Order at DEAD: read its socket to the end (it may have registered a segment with its last
 * breath), write how it ended, then the life word, then every dead bit with its bell. Ringing is
 * what heals everything that a killed sender left between its commit and its signal. */
#include "node/process/node.h"

#include "base/assert.h"
#include "base/mutant.h"
#include "node/process/handle.h"
#include "node/process/registry.h"
#include "node/process/workers.h"

#include <signal.h>
#include <string.h>
#include <unistd.h>

static void bells_ring(pls_client *dead)
{
    pls_node *node = dead->node;
    if (pls_mutant(PLS_MUTANT_SILENT_REAPER)) {
        return;
    }
    for (uint32_t slot = 0; slot < PLS_SLOTS_MAX; slot++) {
        pls_client *client = node->slots[slot].client;
        if (client != NULL && client != dead && client->stage == PLS_CLIENT_JOINED) {
            pls_peer_ring_dead(client->peer, dead->slot);
        }
    }
}

void pls_client_dying(pls_client *client)
{
    pls_node *node = client->node;
    if (client->stage == PLS_CLIENT_DYING || client->stage == PLS_CLIENT_DEAD) {
        return;
    }
    pls_client_unlisted(client);
    client->stage = PLS_CLIENT_DYING;
    if (node->launcher == client) {
        /* Tied to its launcher, whether that has died or only let go. */
        node->launcher = NULL;
        pls_leave_now(node);
    }
    if (client->was_joined) {
        node->attached_count--;
        pls_vigil_remove(node->vigil, client->slot);
        pls_directory_life_set(node->directory, client->slot, client->epoch, PLS_SLOT_DYING);
        bells_ring(client);
    }
    if (client->worker != NULL) {
        pls_worker_dying(client->worker);
        /* One that let go of its socket without a word must not live on by itself. */
        if (client->process.fd >= 0 && !client->detached) {
            pls_process_kill(client->process.fd);
        }
    }
    if (client->slot != 0) {
        pls_registry_client_dying(client);
    }
}

static void acks_expect(pls_client *dead)
{
    pls_node *node = dead->node;
    memset(dead->acks_missing, 0, sizeof dead->acks_missing);
    for (uint32_t slot = 0; slot < PLS_SLOTS_MAX; slot++) {
        const pls_client *client = node->slots[slot].client;
        if (client != NULL && client != dead && client->was_joined &&
            client->stage != PLS_CLIENT_DEAD) {
            dead->acks_missing[slot / 64] |= 1ull << (slot % 64);
        }
    }
}

static bool acks_complete(const pls_client *dead)
{
    for (uint32_t word = 0; word < PLS_SLOTS_MAX / 64; word++) {
        if (dead->acks_missing[word] != 0) {
            return false;
        }
    }
    return true;
}

void pls_client_acknowledge(pls_client *dead, uint32_t by_slot)
{
    if (dead->stage != PLS_CLIENT_DEAD) {
        return;
    }
    dead->acks_missing[by_slot / 64] &= ~(1ull << (by_slot % 64));
    if (acks_complete(dead)) {
        pls_client_destroy(dead);
    }
}

/* The dead acknowledge nothing any more. */
static void acks_forgive(pls_client *dead)
{
    pls_node *node = dead->node;
    for (uint32_t slot = 0; slot < PLS_SLOTS_MAX; slot++) {
        pls_client *other = node->slots[slot].client;
        if (other != NULL && other != dead) {
            pls_client_acknowledge(other, dead->slot);
        }
    }
}

static void obs_keep(pls_client *client)
{
    pls_node *node = client->node;
    if (client->obs_fd < 0) {
        return;
    }
    pls_dead_obs *place = &node->dead_obs[node->dead_obs_next];
    if (place->fd >= 0) {
        close(place->fd);
    }
    *place = (pls_dead_obs){.key = pls_client_key_of(client), .fd = client->obs_fd};
    client->obs_fd = -1;
    node->dead_obs_next = (node->dead_obs_next + 1) % PLS_DEAD_OBS_MAX;
}

static pls_process_end end_learn(pls_client *client)
{
    if (client->process.fd < 0 || !pls_process_ended(client->process.fd)) {
        return (pls_process_end){client->detached ? PLS_ENDED_DETACHED : PLS_ENDED_UNKNOWN, 0};
    }
    return pls_process_reap(client->process.fd, client->pid);
}

/* What else may explain an end. */
static uint32_t hints_of(const pls_client *client, const pls_process_end *end)
{
    pls_node *node = client->node;
    if (client->worker != NULL && client->worker->over_memory) {
        return PLS_ENDED_HINT_MEMORY;
    }
    if (client->worker != NULL && client->worker->recycling) {
        return PLS_ENDED_HINT_RECYCLED;
    }
    if (client->worker != NULL && client->worker->stopping) {
        return PLS_ENDED_HINT_STOP;
    }
    if (end->how != PLS_ENDED_SIGNAL || end->code != SIGKILL) {
        return 0;
    }
    bool killed = pls_oom_killed(&node->oom, client->oom_group, pls_loop_now_ns());
    return killed ? PLS_ENDED_HINT_OOM : 0;
}

void pls_client_dead(pls_client *client)
{
    pls_node *node = client->node;
    pls_assert(client->stage != PLS_CLIENT_DEAD);
    pls_client_drain(client);
    if (client->stage == PLS_CLIENT_DEAD) {
        return;
    }
    pls_client_dying(client);
    pls_process_end end = end_learn(client);
    client->stage = PLS_CLIENT_DEAD;
    pls_death death = {.state = PLS_SLOT_DEAD,
                       .pid = (uint32_t)client->pid,
                       .how = end.how,
                       .code = end.code,
                       .hints = hints_of(client, &end)};
    if (client->slot == 0) {
        if (client->worker != NULL) {
            pls_worker_gone(client->worker, &death);
            client->worker = NULL;
        }
        pls_client_destroy(client);
        return;
    }
    pls_directory_end_set(node->directory, client->slot, end.how, end.code, death.hints,
                          pls_loop_now_ns());
    bool in_order = end.how == PLS_ENDED_DETACHED || (end.how == PLS_ENDED_EXIT && end.code == 0);
    if (client->was_joined) {
        pls_directory_life_set(node->directory, client->slot, client->epoch, PLS_SLOT_DEAD);
        bells_ring(client);
    }
    obs_keep(client);
    close(pls_loop_unwatch(node->loop, &client->control));
    close(pls_loop_unwatch(node->loop, &client->process));
    acks_forgive(client);
    if (client->was_joined) {
        acks_expect(client);
    }
    if (client->was_joined && node->gateway != NULL) {
        client->acks_missing[PLS_NODE_SLOT / 64] |= 1ull << (PLS_NODE_SLOT % 64);
        pls_gateway_client_dead(node->gateway, client);
    }
    pls_restarts_client_dead(node->restarts, client, in_order);
    if (client->worker != NULL) {
        pls_worker_gone(client->worker, &death);
        client->worker = NULL;
    }
    if (acks_complete(client)) {
        pls_client_destroy(client);
    }
    pls_leave_check(node);
}
