/* SPDX-License-Identifier: Apache-2.0 */
/* How a node ends: everybody is told, workers drain for a while, the rest is killed, and the node
 * goes last, when the kernel has confirmed the end of every worker and of the template. */
#include "node/process/handle.h"
#include "node/process/node.h"
#include "node/process/workers.h"

static void askers_answer(pls_node *node)
{
    for (uint32_t i = 0; i < node->leave.asker_count; i++) {
        pls_client_reply_to(node, node->leave.askers[i], PLS_OK);
    }
    node->leave.asker_count = 0;
}

void pls_leave_check(pls_node *node)
{
    if (node->leave.stage == PLS_LEAVE_NOT || node->worker_count > 0 ||
        node->template.stage != PLS_TEMPLATE_OFF) {
        return;
    }
    if (!pls_net_leave(node->net)) {
        return;
    }
    /* Whoever asked for the end may use the port again when it is answered. */
    pls_net_destroy(node->net);
    node->net = NULL;
    askers_answer(node);
    pls_loop_stop(node->loop);
}

void pls_leave_now(pls_node *node)
{
    node->leave.stage = PLS_LEAVE_KILLING;
    pls_loop_alarm_clear(node->loop, &node->leave.deadline);
    pls_template_kill(node);
    pls_workers_kill(node);
    pls_leave_check(node);
}

static void deadline_rang(pls_alarm *alarm)
{
    pls_leave_now(alarm->owner);
}

/* Workers that are only starting have nothing to drain. */
static void starting_kill(pls_node *node)
{
    for (uint32_t slot = 0; slot < PLS_SLOTS_MAX; slot++) {
        pls_client *client = node->slots[slot].client;
        if (client != NULL && client->worker != NULL && client->stage < PLS_CLIENT_JOINED) {
            pls_worker_stop(client->worker, 0);
        }
    }
}

static void others_tell(pls_node *node, const pls_client *asker, uint32_t timeout_ms)
{
    pls_control_packet notice = {.type = PLS_CONTROL_SHUTDOWN_NOTICE, .number = timeout_ms};
    for (uint32_t slot = 0; slot < PLS_SLOTS_MAX; slot++) {
        pls_client *client = node->slots[slot].client;
        if (client != NULL && client != asker && client->stage == PLS_CLIENT_JOINED) {
            pls_client_send(client, &notice);
        }
    }
}

void pls_leave_begin(pls_node *node, pls_client *asker, uint32_t request, uint32_t timeout_ms)
{
    pls_leave *leave = &node->leave;
    uint64_t due_ns = pls_loop_now_ns() + timeout_ms * PLS_NS_PER_MS;
    if (asker != NULL && leave->asker_count < PLS_LEAVE_ASKERS_MAX) {
        leave->askers[leave->asker_count++] = (pls_request_key){pls_client_key_of(asker), request};
    } else if (asker != NULL) {
        pls_client_reply(asker, request, PLS_EFULL);
    }
    if (leave->stage == PLS_LEAVE_KILLING) {
        return;
    }
    bool first = leave->stage == PLS_LEAVE_NOT;
    leave->stage = PLS_LEAVE_DRAINING;
    if (first) {
        pls_template_kill(node);
        starting_kill(node);
        others_tell(node, asker, timeout_ms);
    }
    leave->deadline.ring = deadline_rang;
    leave->deadline.owner = node;
    bool sooner = leave->deadline.place == 0 || due_ns < leave->deadline.due_ns;
    if (sooner && pls_loop_alarm(node->loop, &leave->deadline, due_ns) != PLS_OK) {
        pls_leave_now(node);
        return;
    }
    pls_leave_check(node);
}
