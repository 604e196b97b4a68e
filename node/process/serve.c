/* SPDX-License-Identifier: Apache-2.0 */
/* Which packet is whose work, and the short requests themselves. A packet that is well formed but
 * makes no sense is answered with an error; only what breaks the protocol itself costs a client its
 * socket (client.c). */
#include "node/process/greeting.h"
#include "node/process/node.h"
#include "node/process/registry.h"
#include "node/process/roster.h"
#include "node/process/workers.h"

#include "base/assert.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static pls_client_key key_in(const pls_control_packet *packet)
{
    return (pls_client_key){packet->slot, packet->epoch};
}

static void serve_detach(pls_client *client, pls_control_packet *packet)
{
    client->detached = true;
}

static void gateway_send(pls_client *client, uint32_t request)
{
    const pls_gateway *gateway = client->node->gateway;
    pls_control_packet reply = {
        .type = PLS_CONTROL_REPLY,
        .request = request,
        .slot = PLS_NODE_SLOT,
        .epoch = client->node->slots[PLS_NODE_SLOT].epoch,
        .fds = {pls_gateway_inbox_fd(gateway), pls_gateway_bell_fd(gateway)},
        .fd_count = 2};
    pls_client_send(client, &reply);
}

static void serve_peer_get(pls_client *client, pls_control_packet *packet)
{
    if (packet->slot == PLS_NODE_SLOT && client->node->gateway != NULL) {
        gateway_send(client, packet->request);
        return;
    }
    const pls_client *peer = pls_client_find(client->node, key_in(packet));
    /* Also a dead one until all have acknowledged: what it sent last may carry a lease, which is
     * returned through its inbox. */
    if (peer == NULL || !peer->was_joined) {
        pls_client_reply(client, packet->request, PLS_EDEAD);
        return;
    }
    pls_control_packet reply = {.type = PLS_CONTROL_REPLY,
                                .request = packet->request,
                                .slot = peer->slot,
                                .epoch = peer->epoch,
                                .fds = {peer->inbox_fd, peer->bell_fd},
                                .fd_count = 2};
    pls_client_send(client, &reply);
}

static void descriptor_send(pls_client *client, uint32_t request, int fd)
{
    pls_control_packet reply = {
        .type = PLS_CONTROL_REPLY, .request = request, .fds = {fd}, .fd_count = 1};
    pls_client_send(client, &reply);
}

static void serve_segment_get(pls_client *client, pls_control_packet *packet)
{
    pls_node *node = client->node;
    const pls_client *owner = pls_client_find(node, key_in(packet));
    if (packet->slot == PLS_NODE_SLOT && node->gateway != NULL && packet->number <= UINT32_MAX) {
        int own = pls_gateway_segment(node->gateway, (uint32_t)packet->number);
        if (own >= 0) {
            descriptor_send(client, packet->request, own);
        } else {
            pls_client_reply(client, packet->request, PLS_ENOENT);
        }
        return;
    }
    if (owner == NULL) {
        pls_client_reply(client, packet->request, PLS_EDEAD);
        return;
    }
    int fd = packet->number > UINT32_MAX
                 ? -1
                 : pls_segments_get(&owner->segments, (uint32_t)packet->number);
    if (fd >= 0) {
        descriptor_send(client, packet->request, fd);
        return;
    }
    if (node->question_count == PLS_SEGMENT_QUESTIONS_MAX || packet->number > UINT32_MAX) {
        pls_client_reply(client, packet->request, PLS_ENOENT);
        return;
    }
    /* Its registration may stand unread in the owner's socket. */
    uint32_t place = (node->question_first + node->question_count) % PLS_SEGMENT_QUESTIONS_MAX;
    node->questions[place] = (pls_segment_question){.asker = pls_client_key_of(client),
                                                    .request = packet->request,
                                                    .owner = key_in(packet),
                                                    .segment = (uint32_t)packet->number};
    node->question_count++;
}

void pls_segment_questions_serve(pls_node *node)
{
    while (node->question_count > 0) {
        pls_segment_question question = node->questions[node->question_first];
        node->question_first = (node->question_first + 1) % PLS_SEGMENT_QUESTIONS_MAX;
        node->question_count--;
        pls_client *owner = pls_client_find(node, question.owner);
        if (owner != NULL) {
            pls_client_drain(owner);
        }
        pls_client *asker = pls_client_find(node, question.asker);
        if (asker == NULL) {
            continue;
        }
        int fd = owner == NULL ? -1 : pls_segments_get(&owner->segments, question.segment);
        if (fd >= 0) {
            descriptor_send(asker, question.request, fd);
        } else {
            pls_client_reply(asker, question.request, owner == NULL ? PLS_EDEAD : PLS_ENOENT);
        }
    }
}

static void serve_segment_register(pls_client *client, pls_control_packet *packet)
{
    if (packet->number > UINT32_MAX || client->slot == 0) {
        return;
    }
    if (pls_segments_put(&client->segments, (uint32_t)packet->number, packet->fds[0]) == PLS_OK) {
        packet->fds[0] = -1;
    }
}

static void serve_segment_unregister(pls_client *client, pls_control_packet *packet)
{
    if (packet->number <= UINT32_MAX) {
        pls_segments_remove(&client->segments, (uint32_t)packet->number);
    }
}

static void serve_death_ack(pls_client *client, pls_control_packet *packet)
{
    pls_client *dead = pls_client_find(client->node, key_in(packet));
    if (dead != NULL && dead != client) {
        pls_client_acknowledge(dead, client->slot);
    }
}

static void placed_answer(pls_node *node, const pls_place_waiter *waiter, const pls_placed *placed)
{
    pls_client *client = pls_client_find(node, waiter->asker.client);
    if (client == NULL) {
        return;
    }
    pls_control_packet reply = {.type = PLS_CONTROL_REPLY,
                                .request = waiter->asker.request,
                                .status = placed->status,
                                .text = placed->text,
                                .text_bytes = placed->text_bytes};
    if (placed->status == PLS_OK) {
        reply.slot = placed->worker->slot;
        reply.epoch = placed->worker->epoch;
        reply.number = placed->worker->worker->index;
    }
    pls_client_send(client, &reply);
}

static void serve_place(pls_client *client, pls_control_packet *packet)
{
    pls_reader r = pls_reader_over(packet->data, packet->data_bytes);
    pls_place_wire wire;
    if (packet->flags > PLS_PLACE_DEDICATED || packet->number > UINT32_MAX ||
        pls_place_decode(&r, &wire) != PLS_OK) {
        pls_client_reply(client, packet->request, PLS_EINVAL);
        return;
    }
    pls_place_waiter waiter = {.done = placed_answer,
                               .asker = {pls_client_key_of(client), packet->request}};
    pls_workers_place(client->node, (pls_place_kind)packet->flags, (uint32_t)packet->number, &wire,
                      &waiter);
}

static void serve_actor_find(pls_client *client, pls_control_packet *packet)
{
    pls_client_key key;
    bool rebuilding = false;
    if (!pls_restarts_where(client->node->restarts, packet->actor, &key, &rebuilding)) {
        pls_client_reply(client, packet->request, PLS_EDEAD);
        return;
    }
    pls_control_packet reply = {.type = PLS_CONTROL_REPLY,
                                .request = packet->request,
                                .actor = packet->actor,
                                .slot = key.slot,
                                .epoch = key.epoch,
                                .flags = rebuilding ? PLS_ACTOR_REBUILDING : 0};
    pls_client_send(client, &reply);
}

static void serve_cancel(pls_client *client, pls_control_packet *packet)
{
    pls_request_key key = {pls_client_key_of(client), (uint32_t)packet->number};
    pls_registry_cancel(client->node, key);
    pls_workers_cancel(client->node, key);
    pls_leave *leave = &client->node->leave;
    for (uint32_t i = 0; i < leave->asker_count; i++) {
        if (memcmp(&leave->askers[i], &key, sizeof key) == 0) {
            leave->askers[i] = leave->askers[--leave->asker_count];
        }
    }
}

static void serve_output_tail(pls_client *client, pls_control_packet *packet)
{
    char text[PLS_OUTPUT_TAIL_BYTES_MAX];
    pls_node *node = client->node;
    const pls_client *of = pls_client_find(node, key_in(packet));
    if (of != NULL && of->worker != NULL && of->worker->has_source) {
        size_t len = pls_output_tail(node->output, of->worker->source, text, sizeof text);
        pls_client_reply_text(client, packet->request, PLS_OK, text, len);
        return;
    }
    for (uint32_t i = 0; i < PLS_DEAD_TAILS_MAX; i++) {
        const pls_dead_tail *tail = &node->dead_tails[i];
        if (tail->text != NULL && tail->key.slot == packet->slot &&
            tail->key.epoch == packet->epoch) {
            pls_client_reply_text(client, packet->request, PLS_OK, tail->text, tail->bytes);
            return;
        }
    }
    pls_client_reply(client, packet->request, PLS_ENOENT);
}

static void serve_obs_get(pls_client *client, pls_control_packet *packet)
{
    pls_node *node = client->node;
    const pls_client *of = pls_client_find(node, key_in(packet));
    if (of != NULL && of->obs_fd >= 0) {
        descriptor_send(client, packet->request, of->obs_fd);
        return;
    }
    for (uint32_t i = 0; i < PLS_DEAD_OBS_MAX; i++) {
        const pls_dead_obs *obs = &node->dead_obs[i];
        if (obs->fd >= 0 && obs->key.slot == packet->slot && obs->key.epoch == packet->epoch) {
            descriptor_send(client, packet->request, obs->fd);
            return;
        }
    }
    pls_client_reply(client, packet->request, PLS_ENOENT);
}

static void serve_actor_unregister(pls_client *client, pls_control_packet *packet)
{
    pls_node *node = client->node;
    bool named = pls_names_of_actor(node->names, packet->actor) != NULL;
    bool known = pls_restarts_forget(node->restarts, packet->actor);
    pls_names_remove_actor(node->names, packet->actor);
    pls_client_reply(client, packet->request, named || known ? PLS_OK : PLS_ENOENT);
}

static void serve_actor_failed(pls_client *client, pls_control_packet *packet)
{
    pls_restarts_failed(client->node->restarts, packet->actor, client, packet->text,
                        packet->text_bytes);
}

static void serve_rebuilt(pls_client *client, pls_control_packet *packet)
{
    pls_restarts_rebuilt(client->node->restarts, packet->actor, client, packet->status == PLS_OK,
                         packet->text, packet->text_bytes);
}

static void serve_worker_stop(pls_client *client, pls_control_packet *packet)
{
    pls_client *worker = pls_client_find(client->node, key_in(packet));
    if (worker == NULL || worker->stage == PLS_CLIENT_DEAD) {
        pls_client_reply(client, packet->request, PLS_ENOENT);
        return;
    }
    if (worker->worker == NULL) {
        pls_client_reply(client, packet->request, PLS_EPERM);
        return;
    }
    worker->worker->stop_asker = (pls_request_key){pls_client_key_of(client), packet->request};
    worker->worker->stop_asked = true;
    uint64_t timeout_ms = packet->number > UINT32_MAX ? UINT32_MAX : packet->number;
    pls_worker_stop(worker->worker, (uint32_t)timeout_ms);
}

static void serve_worker_recycle(pls_client *client, pls_control_packet *packet)
{
    (void)packet;
    /* Its exit may be seen before this is read. */
    if (client->worker != NULL && client->was_joined) {
        pls_worker_recycle(client->worker);
    }
}

static void serve_shutdown(pls_client *client, pls_control_packet *packet)
{
    uint64_t timeout_ms = packet->number > UINT32_MAX ? UINT32_MAX : packet->number;
    pls_leave_begin(client->node, client, packet->request, (uint32_t)timeout_ms);
}

typedef void serve_function(pls_client *client, pls_control_packet *packet);

static serve_function *const serve_by_type[PLS_CONTROL_CLIENT_TYPES_END] = {
    [PLS_CONTROL_HELLO] = pls_greeting_hello,
    [PLS_CONTROL_ATTACH] = pls_greeting_attach,
    [PLS_CONTROL_DETACH] = serve_detach,
    [PLS_CONTROL_PEER_GET] = serve_peer_get,
    [PLS_CONTROL_SEGMENT_GET] = serve_segment_get,
    [PLS_CONTROL_SEGMENT_REGISTER] = serve_segment_register,
    [PLS_CONTROL_SEGMENT_UNREGISTER] = serve_segment_unregister,
    [PLS_CONTROL_DEATH_ACK] = serve_death_ack,
    [PLS_CONTROL_PLACE] = serve_place,
    [PLS_CONTROL_NAME_REGISTER] = pls_registry_register,
    [PLS_CONTROL_NAME_UNREGISTER] = pls_registry_unregister,
    [PLS_CONTROL_NAME_FIND] = pls_registry_find,
    [PLS_CONTROL_CANCEL] = serve_cancel,
    [PLS_CONTROL_NAMES_LIST] = pls_registry_list,
    [PLS_CONTROL_OUTPUT_TAIL] = serve_output_tail,
    [PLS_CONTROL_RESTART_REGISTER] = pls_restarts_serve_register,
    [PLS_CONTROL_ACTOR_UNREGISTER] = serve_actor_unregister,
    [PLS_CONTROL_ACTOR_FAILED] = serve_actor_failed,
    [PLS_CONTROL_REBUILT] = serve_rebuilt,
    [PLS_CONTROL_WORKER_STOP] = serve_worker_stop,
    [PLS_CONTROL_SHUTDOWN] = serve_shutdown,
    [PLS_CONTROL_OBS_GET] = serve_obs_get,
    [PLS_CONTROL_ACTOR_FIND] = serve_actor_find,
    [PLS_CONTROL_WORKER_RECYCLE] = serve_worker_recycle,
    [PLS_CONTROL_MEMBERS_LIST] = pls_roster_list,
};

void pls_client_serve(pls_client *client, pls_control_packet *packet)
{
    pls_assert(packet->type < PLS_CONTROL_CLIENT_TYPES_END);
    serve_function *serve = serve_by_type[packet->type];
    pls_assert(serve != NULL);
    /* Before its greeting a process can only greet or go. */
    if (client->slot == 0 && packet->type != PLS_CONTROL_HELLO &&
        packet->type != PLS_CONTROL_DETACH) {
        pls_client_reply(client, packet->request, PLS_EPROTO);
        return;
    }
    serve(client, packet);
}
