/* SPDX-License-Identifier: Apache-2.0 */
/* The net that the tests of the gateway play, and the process whose inbox they read. */
#include "gate_world.h"

#include "node/process/restarts.h"
#include "shm/peer.h"

#include <check.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

pls_net_peer gate_nodes[2];
pls_gateway *gate_gateway;
pls_inbox *gate_inbox;
sent gate_out[GATE_SENT_MAX];
uint32_t gate_out_count;
bool gate_full;
pls_err gate_fate;
static const pls_net_gate *gate;
static pls_node *node;
static pls_client *client;

void pls_net_gate_set(pls_net *net, const pls_net_gate *its, void *owner)
{
    gate = its;
}

pls_net_peer *pls_net_peer_find(pls_net *net, const uint8_t node_id[PLS_ZMQ_NODE_ID_BYTES])
{
    for (int i = 0; i < 2; i++) {
        if (gate_nodes[i].alive &&
            memcmp(gate_nodes[i].info.node_id, node_id, PLS_NODE_ID_BYTES) == 0) {
            return &gate_nodes[i];
        }
    }
    return NULL;
}

const pls_net_peer_info *pls_net_peer_info_of(const pls_net_peer *peer)
{
    return &peer->info;
}

void pls_net_peer_keep(pls_net_peer *peer, void *context)
{
    peer->kept = context;
}

void *pls_net_peer_kept(const pls_net_peer *peer)
{
    return peer->kept;
}

pls_err pls_net_send(pls_net *net, pls_net_peer *peer, const pls_zmq_message *message)
{
    ck_assert(peer->alive);
    if (gate_full || gate_fate != PLS_OK) {
        return gate_full ? PLS_EFULL : gate_fate;
    }
    sent *it = &gate_out[gate_out_count++ % GATE_SENT_MAX];
    ck_assert_int_eq(
        pls_gate_head_read(message->head, message->head_bytes, message->body_bytes, &it->head),
        PLS_OK);
    it->head.method = NULL;
    it->head.payload = NULL;
    it->to = peer;
    it->stream = message->stream;
    it->settled = message->settled;
    it->context = message->context;
    size_t len = message->body_bytes < sizeof it->text ? message->body_bytes : sizeof it->text - 1;
    if (len > 0) {
        memcpy(it->text, message->body, len);
    }
    it->text[len] = 0;
    return PLS_OK;
}

void gate_settle(sent *it, pls_zmq_fate what)
{
    if (it->settled != NULL) {
        it->settled(NULL, it->context, what);
        it->settled = NULL;
    }
}

void pls_net_settle(pls_net *net)
{
}

void pls_net_resume(pls_net *net, pls_net_peer *peer)
{
    peer->resumed++;
}

void gate_node_up(int i)
{
    memset(&gate_nodes[i], 0, sizeof gate_nodes[i]);
    memset(gate_nodes[i].info.node_id, 0xa0 + i, PLS_NODE_ID_BYTES);
    gate_nodes[i].info.name = "other";
    gate_nodes[i].info.address = "10.0.0.7:7100";
    gate_nodes[i].alive = true;
    gate->peer_up(gate_gateway, &gate_nodes[i]);
}

void gate_node_gone(int i)
{
    gate_nodes[i].alive = false;
    gate->peer_gone(gate_gateway, &gate_nodes[i], "it has died");
}

void gate_setup(void)
{
    node = calloc(1, sizeof *node);
    client = calloc(1, sizeof *client);
    ck_assert(node != NULL && client != NULL);
    gate_out_count = 0;
    gate_full = false;
    gate_fate = PLS_OK;
    node->net = (pls_net *)gate_nodes; /* never looked into */
    node->directory = calloc(1, sizeof *node->directory);
    ck_assert_ptr_nonnull(node->directory);
    ck_assert_int_eq(pls_loop_create(&node->loop), PLS_OK);
    ck_assert_int_eq(pls_restarts_create(node, &node->restarts), PLS_OK);
    ck_assert_int_eq(pls_inbox_create(GATE_SLOT, GATE_EPOCH, &gate_inbox), PLS_OK);
    *client = (pls_client){
        .node = node, .slot = GATE_SLOT, .epoch = GATE_EPOCH, .stage = PLS_CLIENT_JOINED};
    ck_assert_int_eq(pls_peer_attach(dup(pls_inbox_memfd(gate_inbox)),
                                     dup(pls_inbox_eventfd(gate_inbox)), GATE_SLOT, GATE_EPOCH,
                                     &client->peer),
                     PLS_OK);
    node->slots[GATE_SLOT].client = client;
    ck_assert_int_eq(pls_gateway_create(node, &gate_gateway), PLS_OK);
    gate_node_up(0);
    gate_node_up(1);
}

void gate_teardown(void)
{
    for (uint32_t i = 0; i < GATE_SENT_MAX; i++) {
        gate_settle(&gate_out[i], PLS_ZMQ_UNSENT);
    }
    pls_gateway_destroy(gate_gateway);
    pls_peer_release(client->peer);
    pls_inbox_destroy(gate_inbox);
    pls_restarts_destroy(node->restarts);
    pls_loop_destroy(node->loop);
    free(node->directory);
    free(client);
    free(node);
}

pls_err gate_said(int from, const pls_gate_head *head)
{
    static const char zeros[PLS_GATE_PAYLOAD_BYTES_MAX];
    uint8_t bytes[PLS_FRAME_HEAD_BYTES_MAX];
    pls_writer w = pls_writer_into(bytes, sizeof bytes);
    pls_gate_head_write(&w, head);
    pls_zmq_arrival arrival = {.head = bytes,
                               .head_bytes = (uint16_t)pls_writer_len(&w),
                               .body = zeros,
                               .body_bytes = head->payload_bytes};
    return gate->message(gate_gateway, &gate_nodes[from], &arrival);
}

pls_err gate_wrote(uint16_t type, const void *bytes, uint32_t len)
{
    pls_gate_peer *peer = NULL;
    pls_gate_record record = {
        .bytes = bytes, .len = len, .epoch = GATE_EPOCH, .slot = GATE_SLOT, .type = type};
    return pls_gate_out(gate_gateway, &record, &peer);
}

void gate_signalled(uint16_t type, uint64_t id, uint64_t value)
{
    pls_wire_signal signal = {id, value};
    ck_assert_int_eq(gate_wrote(type, &signal, sizeof signal), PLS_OK);
}

/* What came into the process's gate_inbox next; false: nothing. */
bool gate_came(uint16_t type, void *bytes, uint32_t len)
{
    pls_message message;
    if (pls_inbox_pop(gate_inbox, &message) != PLS_OK) {
        return false;
    }
    ck_assert_uint_eq(message.type, type);
    ck_assert_uint_ge(message.len, sizeof(pls_wire_signal));
    memcpy(bytes, message.bytes, message.len < len ? message.len : len);
    pls_inbox_release(gate_inbox);
    return true;
}

bool gate_silent(void)
{
    pls_message message;
    return pls_inbox_pop(gate_inbox, &message) == PLS_EEMPTY;
}

void gate_routed(uint64_t id, int to)
{
    pls_wire_route route = {.id = id, .actor_id = pls_actor_id(7, 1, 9)};
    memcpy(route.node_id, gate_nodes[to].info.node_id, sizeof route.node_id);
    ck_assert_int_eq(gate_wrote(PLS_WIRE_ROUTE, &route, sizeof route), PLS_OK);
}

pls_err gate_asked(uint64_t id, uint64_t call_id, int64_t deadline_ns)
{
    pls_wire_request wire = {.actor_id = id,
                             .call_id = call_id,
                             .deadline_ns = deadline_ns,
                             .flags = PLS_REQUEST_WINDOWED};
    return gate_wrote(PLS_WIRE_REQUEST, &wire, sizeof wire);
}

sent *gate_last(void)
{
    ck_assert_uint_gt(gate_out_count, 0);
    return &gate_out[(gate_out_count - 1) % GATE_SENT_MAX];
}

uint64_t gate_served(int from, uint64_t id, int64_t left_ns, int64_t *deadline_out)
{
    pls_wire_request wire;
    pls_gate_head head = {
        .kind = PLS_GATE_REQUEST, .id = id, .actor = gate_actor, .left_ns = left_ns};
    ck_assert_int_eq(gate_said(from, &head), PLS_OK);
    ck_assert(gate_came(PLS_WIRE_REQUEST, &wire, sizeof wire));
    *deadline_out = wire.deadline_ns;
    return wire.call_id;
}

void gate_room(int i)
{
    gate->room(gate_gateway, &gate_nodes[i]);
}
