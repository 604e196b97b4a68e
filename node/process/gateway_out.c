/* SPDX-License-Identifier: Apache-2.0 */
/* From the rings of this host to other nodes. What a process says is checked like any input: it can
 * name only its own calls, its own routes, and the calls that it was given. Invariant: a record is
 * either dealt with as a whole, or PLS_EFULL has changed nothing but that its lease may be open. */
#include "node/process/gateway_parts.h"

#include "base/assert.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What is to be known when the transport has done with a message. */
typedef struct sent {
    pls_gateway *gateway;
    pls_gate_peer *peer;
    uint64_t id;    /* the ask here, or with `kind` that there; 0: a tell */
    uint64_t route; /* of a tell that counts against its window; 0: none */
    uint8_t kind;
    pls_lease lease;
} sent;

void pls_gate_record_drop(pls_gateway *gateway, pls_gate_record *record)
{
    const pls_client *client =
        pls_client_find(gateway->node, (pls_client_key){record->slot, record->epoch});
    if (record->opened) {
        pls_lease_return(&record->lease);
        record->opened = false;
    } else if (record->foreign && client != NULL && client->peer != NULL) {
        pls_lease_decline(gateway->views, client->peer, PLS_NODE_SLOT, &record->descriptor);
    }
    record->foreign = false;
}

static void stream_end(pls_gateway *gateway, pls_client_key to, uint64_t call_id,
                       pulsing_status status, const char *text)
{
    pls_wire_reply head = {
        .call_id = call_id, .payload_bytes = (uint32_t)strlen(text), .status = (uint8_t)status};
    pls_gate_note note = {.to = to,
                          .type = PLS_WIRE_STREAM_END,
                          .piece = {&head, text},
                          .bytes = {sizeof head, head.payload_bytes}};
    (void)!pls_gate_note_send(gateway, &note);
}

void pls_gate_ask_fail(pls_gateway *gateway, pls_gate_entry *ask, pulsing_status status,
                       const char *text)
{
    pls_client_key to = {ask->slot, ask->epoch};
    uint64_t call_id = ask->key[1];
    bool stream = ask->state == PLS_GATE_STREAM;
    pls_gate_close(&gateway->asks, ask);
    if (!stream) {
        pls_gate_answer(gateway, to, call_id, status, text);
        return;
    }
    stream_end(gateway, to, call_id, status, text);
}

static void ask_settled(const sent *what, pls_zmq_fate fate)
{
    pls_gateway *gateway = what->gateway;
    pls_gate_entry *ask = pls_gate_at(&gateway->asks, what->id);
    if (ask == NULL) {
        return;
    }
    if (fate == PLS_ZMQ_DELIVERED) {
        ask->delivered = true;
        return;
    }
    char text[PLS_GATE_TEXT_BYTES_MAX];
    snprintf(text, sizeof text, "%s is lost; the message was %s", what->peer->label,
             fate == PLS_ZMQ_UNSENT ? "not sent" : "sent and is unanswered");
    pls_gate_ask_fail(gateway, ask, PULSING_UNREACHABLE, text);
}

/* Nobody over there will give credit for a tell that was lost, nor end the call of an answer. */
static void lost_settled(const sent *what)
{
    pls_gateway *gateway = what->gateway;
    pls_gate_entry *route = what->route != 0 ? pls_gate_at(&gateway->routes, what->route) : NULL;
    gateway->lost++;
    if (route != NULL) {
        pls_gate_route_credit(gateway, route, 1);
    }
    if (what->kind != PLS_GATE_REQUEST && !what->peer->going) {
        /* The node lives, so its caller would wait for ever. */
        pls_gate_head head = {.id = what->id};
        pls_gate_refuse(what->peer, &head, PULSING_UNREACHABLE,
                        "its answer was lost between the nodes");
    }
}

static void settled(void *net, void *context, pls_zmq_fate fate)
{
    sent *what = context;
    (void)net;
    pls_lease_return(&what->lease);
    if (what->kind == PLS_GATE_REQUEST && what->id != 0) {
        ask_settled(what, fate);
    } else if (fate != PLS_ZMQ_DELIVERED) {
        lost_settled(what);
    }
    pls_gate_peer_settled(what->peer);
    free(what);
}

static pls_err segment_find(pls_gateway *gateway, pls_gate_record *record)
{
    pls_client *client =
        pls_client_find(gateway->node, (pls_client_key){record->slot, record->epoch});
    if (client == NULL || client->peer == NULL) {
        return PLS_EDEAD;
    }
    return pls_lease_open(gateway->views, client->peer, PLS_NODE_SLOT, &record->descriptor,
                          &record->lease);
}

static pls_err lease_open(pls_gateway *gateway, pls_gate_record *record)
{
    if (!record->foreign || record->opened) {
        return PLS_OK;
    }
    pls_err err = segment_find(gateway, record);
    record->opened = err == PLS_OK;
    return err;
}

/* Queues a message whose head is `head`, its payload that of the record. PLS_EFULL: nothing but
 * that the lease is open. */
static pls_err message_send(pls_gateway *gateway, pls_gate_peer *peer, pls_gate_head *head,
                            pls_gate_record *record, const uint8_t *payload)
{
    uint8_t bytes[PLS_FRAME_HEAD_BYTES_MAX];
    bool block = record->foreign;
    bool in_block = (record->flags & PLS_WIRE_PAYLOAD_IN_BLOCK) != 0;
    pls_err err = lease_open(gateway, record);
    if (err != PLS_OK) {
        return err;
    }
    head->flags |=
        (uint8_t)((block ? PLS_GATE_BLOCK : 0) | (in_block ? PLS_GATE_PAYLOAD_IN_BLOCK : 0));
    head->payload = block && !in_block ? payload : NULL;
    pls_writer w = pls_writer_into(bytes, sizeof bytes);
    pls_gate_head_write(&w, head);
    pls_assert(!w.bad);
    sent *what = calloc(1, sizeof *what);
    if (what == NULL) {
        return PLS_ENOMEM;
    }
    *what = (sent){.gateway = gateway, .peer = peer, .id = head->id, .kind = head->kind};
    bool sender = head->kind == PLS_GATE_REQUEST;
    if (sender && head->id == 0 && (head->flags & PLS_GATE_WINDOWED) != 0) {
        what->route = head->value;
    }
    pls_zmq_message message = {
        .head = bytes,
        .head_bytes = (uint16_t)pls_writer_len(&w),
        .body = block ? record->lease.bytes : payload,
        .body_bytes = block ? record->lease.len : head->payload_bytes,
        .copy = !block,
        .stream = sender ? pls_gate_stream((uint64_t)record->slot, head->actor)
                         : pls_gate_stream(head->id, 0),
        .settled = settled,
        .context = what,
    };
    what->lease = record->lease;
    err = pls_net_send(gateway->node->net, peer->net, &message);
    if (err != PLS_OK) {
        free(what);
        return err;
    }
    peer->unsettled++;
    if (block) {
        record->opened = false; /* it goes back when the transport has done with it */
        record->foreign = false;
    }
    return PLS_OK;
}

/* A request that cannot leave. A tell gives its credit back, or its sender's window would shrink.
 */
static void request_fail(pls_gateway *gateway, const pls_gate_record *record,
                         const pls_wire_request *wire, pulsing_status status, const char *text)
{
    pls_client_key from = {record->slot, record->epoch};
    if (wire->call_id != 0) {
        pls_gate_answer(gateway, from, wire->call_id, status, text);
        return;
    }
    gateway->lost++;
    if ((wire->flags & PLS_REQUEST_WINDOWED) != 0) {
        pls_gate_signal(gateway, from, PLS_WIRE_CREDIT, wire->actor_id, 1);
    }
}

static pls_gate_peer *peer_of(pls_gateway *gateway, const uint8_t *node_id)
{
    pls_net_peer *net = pls_net_peer_find(gateway->node->net, node_id);
    return net != NULL ? pls_net_peer_kept(net) : NULL;
}

static void node_words(const uint8_t *node_id, char *text, size_t capacity)
{
    snprintf(text, capacity,
             "node %02x%02x%02x%02x is not alive, or no member of this cluster; the message was "
             "not sent",
             node_id[0], node_id[1], node_id[2], node_id[3]);
}

/* PLS_EPROTO: the record is not a request. */
static pls_err request_read(const pls_gate_record *record, pls_wire_request *head)
{
    if (record->len < sizeof *head) {
        return PLS_EPROTO;
    }
    memcpy(head, record->bytes, sizeof *head);
    uint64_t fixed = sizeof *head + head->chain_bytes + head->method_bytes;
    bool in_block = (record->flags & PLS_WIRE_PAYLOAD_IN_BLOCK) != 0;
    uint64_t payload = in_block ? 0 : head->payload_bytes;
    bool fits = payload <= PLS_GATE_PAYLOAD_BYTES_MAX && record->len == fixed + payload;
    bool plain = head->context_bytes == 0; /* what code carries along stays on its host */
    return fits && plain && (record->foreign || !in_block) ? PLS_OK : PLS_EPROTO;
}

static void deadline_write(pls_gate_head *head, int64_t deadline_ns)
{
    if (deadline_ns != 0) {
        int64_t left = deadline_ns - (int64_t)pls_loop_now_ns();
        head->left_ns = left > 0 ? left : 1;
    }
}

static pls_gate_entry *ask_open(pls_gateway *gateway, const pls_gate_record *record,
                                pls_gate_peer *peer, uint64_t call_id)
{
    if (pls_gate_find(&gateway->asks, record->slot, call_id) != NULL) {
        return NULL;
    }
    pls_gate_entry *ask = pls_gate_open(&gateway->asks, record->slot, call_id);
    if (ask != NULL) {
        ask->slot = record->slot;
        ask->epoch = record->epoch;
        ask->peer = peer;
    }
    return ask;
}

/* A request on its route; what fails is told to the caller. */
static pls_err request_out(pls_gateway *gateway, pls_gate_record *record, pls_gate_peer **peer_out)
{
    pls_wire_request wire;
    char text[PLS_GATE_TEXT_BYTES_MAX];
    pls_err err = request_read(record, &wire);
    if (err != PLS_OK) {
        return err;
    }
    pls_gate_entry *route = pls_gate_find(&gateway->routes, record->slot, wire.actor_id);
    if (route == NULL) {
        request_fail(gateway, record, &wire, PULSING_MAILBOX_FULL,
                     "the table of remote actors of this node is full");
        return PLS_OK;
    }
    pls_gate_peer *peer = peer_of(gateway, route->node_id);
    if (peer == NULL) {
        node_words(route->node_id, text, sizeof text);
        request_fail(gateway, record, &wire, PULSING_UNREACHABLE, text);
        return PLS_OK;
    }
    *peer_out = peer;
    pls_gate_head head = {.kind = PLS_GATE_REQUEST,
                          .method_bytes = wire.method_bytes,
                          .payload_bytes = wire.payload_bytes,
                          .value = pls_gate_id(&gateway->routes, route),
                          .actor = route->actor_id};
    head.flags = (wire.flags & PLS_REQUEST_WINDOWED) != 0 ? PLS_GATE_WINDOWED : 0;
    head.method = (const char *)record->bytes + sizeof wire + wire.chain_bytes;
    deadline_write(&head, wire.deadline_ns);
    pls_gate_entry *ask = NULL;
    if (wire.call_id != 0) {
        ask = ask_open(gateway, record, peer, wire.call_id);
        if (ask == NULL) {
            request_fail(gateway, record, &wire, PULSING_MAILBOX_FULL,
                         "too many calls to other nodes are under way; await earlier ones");
            return PLS_OK;
        }
        ask->actor_id = route->actor_id;
        head.id = pls_gate_id(&gateway->asks, ask);
    }
    const uint8_t *payload = (const uint8_t *)head.method + wire.method_bytes;
    err = message_send(gateway, peer, &head, record, payload);
    if (err != PLS_OK && ask != NULL) {
        pls_gate_close(&gateway->asks, ask);
    }
    if (err != PLS_OK && err != PLS_EFULL) {
        request_fail(gateway, record, &wire, PULSING_BAD_MESSAGE, pls_err_text(err));
        return PLS_OK;
    }
    if (err == PLS_OK && ask == NULL && (head.flags & PLS_GATE_WINDOWED) != 0) {
        route->owed++;
    }
    return err;
}

static pls_err answer_read(const pls_gate_record *record, pls_wire_reply *head)
{
    if (record->len < sizeof *head) {
        return PLS_EPROTO;
    }
    memcpy(head, record->bytes, sizeof *head);
    bool in_block = (record->flags & PLS_WIRE_PAYLOAD_IN_BLOCK) != 0;
    uint64_t payload = in_block ? 0 : head->payload_bytes;
    bool fits = payload <= PLS_GATE_PAYLOAD_BYTES_MAX && record->len == sizeof *head + payload;
    return fits && (record->foreign || !in_block) ? PLS_OK : PLS_EPROTO;
}

/* The call of another node that a process here answers: it must have been given to it. */
static pls_gate_entry *serve_of(pls_gateway *gateway, const pls_gate_record *record,
                                uint64_t call_id)
{
    pls_gate_entry *serve = pls_gate_at(&gateway->serves, call_id);
    return serve != NULL && serve->slot == record->slot && serve->epoch == record->epoch ? serve
                                                                                         : NULL;
}

static uint8_t kind_of(uint16_t type)
{
    return type == PLS_WIRE_REPLY         ? PLS_GATE_REPLY
           : type == PLS_WIRE_STREAM_ITEM ? PLS_GATE_ITEM
                                          : PLS_GATE_END;
}

/* An answer, an item of a stream, or its end. */
static pls_err answer_out(pls_gateway *gateway, pls_gate_record *record, pls_gate_peer **peer_out)
{
    pls_wire_reply wire;
    pls_err err = answer_read(record, &wire);
    pls_gate_entry *serve = err == PLS_OK ? serve_of(gateway, record, wire.call_id) : NULL;
    if (serve == NULL) {
        return err;
    }
    const uint8_t *payload = record->bytes + sizeof wire;
    bool stream = record->type == PLS_WIRE_REPLY && wire.status == PULSING_STREAM;
    if (stream && (record->foreign || wire.payload_bytes < sizeof serve->writer_id)) {
        return PLS_EPROTO;
    }
    *peer_out = serve->peer;
    pls_gate_head head = {.kind = kind_of(record->type),
                          .status = wire.status,
                          .credit = wire.credit,
                          .payload_bytes = wire.payload_bytes,
                          .id = serve->key[1]};
    err = message_send(gateway, serve->peer, &head, record, payload);
    if (err == PLS_EFULL) {
        return err;
    }
    if (err != PLS_OK) {
        pls_gate_refuse(serve->peer, &head, PULSING_BAD_MESSAGE, pls_err_text(err));
    }
    if (err != PLS_OK && record->type == PLS_WIRE_STREAM_ITEM) {
        pls_gate_signal(gateway, (pls_client_key){record->slot, record->epoch},
                        PLS_WIRE_STREAM_CLOSE, serve->writer_id, 0);
    }
    if (err == PLS_OK && stream) {
        serve->state = PLS_GATE_STREAM;
        memcpy(&serve->writer_id, payload, sizeof serve->writer_id);
    } else if (err != PLS_OK || record->type != PLS_WIRE_STREAM_ITEM) {
        pls_gate_close(&gateway->serves, serve);
    }
    return PLS_OK;
}

/* A message of a head alone. */
static pls_err head_send(pls_gateway *gateway, pls_gate_peer *peer, const pls_gate_head *head,
                         uint8_t stream)
{
    uint8_t bytes[64];
    pls_writer w = pls_writer_into(bytes, sizeof bytes);
    pls_gate_head_write(&w, head);
    pls_assert(!w.bad);
    pls_zmq_message message = {
        .head = bytes, .head_bytes = (uint16_t)pls_writer_len(&w), .copy = true, .stream = stream};
    return pls_net_send(gateway->node->net, peer->net, &message);
}

static pls_err cancel_out(pls_gateway *gateway, const pls_gate_record *record,
                          const pls_wire_signal *signal, pls_gate_peer **peer_out)
{
    pls_gate_entry *ask = pls_gate_find(&gateway->asks, record->slot, signal->id);
    if (ask == NULL || ask->state != PLS_GATE_OPEN) {
        return PLS_OK; /* a stream that nobody wants is closed by its reader */
    }
    *peer_out = ask->peer;
    pls_gate_head head = {.kind = PLS_GATE_CANCEL, .id = pls_gate_id(&gateway->asks, ask)};
    pls_err err = head_send(gateway, ask->peer, &head,
                            pls_gate_stream((uint64_t)record->slot, ask->actor_id));
    if (err == PLS_EFULL) {
        return err;
    }
    char text[PLS_GATE_TEXT_BYTES_MAX];
    snprintf(text, sizeof text, "its time was over before %s had answered", ask->peer->label);
    pls_gate_ask_fail(gateway, ask, PULSING_EXPIRED, text);
    return PLS_OK;
}

/* Credit of an actor here goes to those whose tells it took. */
static void credit_out(pls_gateway *gateway, const pls_gate_record *record,
                       const pls_wire_signal *signal)
{
    uint64_t left = signal->value;
    pls_gate_debt debt;
    while (left > 0 && pls_gate_debt_next(gateway, signal->id, record->slot, &debt)) {
        uint32_t count = left < debt.count ? (uint32_t)left : debt.count;
        if (debt.peer != NULL) {
            pls_gate_credit_give(debt.peer, debt.route, count);
        }
        pls_gate_debt_paid(gateway, signal->id, count);
        left -= count;
    }
}

/* What the reader of a stream tells its writer. */
static pls_err reader_out(pls_gateway *gateway, const pls_gate_record *record,
                          const pls_wire_signal *signal, pls_gate_peer **peer_out)
{
    pls_gate_entry *ask = pls_gate_find(&gateway->asks, record->slot, signal->id);
    if (ask == NULL || ask->state != PLS_GATE_STREAM) {
        return PLS_OK;
    }
    bool close = record->type == PLS_WIRE_STREAM_CLOSE;
    *peer_out = ask->peer;
    pls_gate_head head = {.kind = close ? PLS_GATE_CLOSE : PLS_GATE_ROOM,
                          .id = pls_gate_id(&gateway->asks, ask),
                          .value = signal->value};
    pls_err err = head_send(gateway, ask->peer, &head, pls_gate_stream(head.id, 0));
    if (err != PLS_EFULL && close) {
        pls_gate_close(&gateway->asks, ask);
    }
    return err == PLS_EFULL ? err : PLS_OK;
}

static pls_err read_out(pls_gateway *gateway, const pls_gate_record *record,
                        pls_gate_peer **peer_out)
{
    pls_wire_far_open wire;
    char text[PLS_GATE_TEXT_BYTES_MAX] = "too many calls to other nodes are under way";
    if (record->len != sizeof wire) {
        return PLS_EPROTO;
    }
    memcpy(&wire, record->bytes, sizeof wire);
    pls_gate_peer *peer = peer_of(gateway, wire.node_id);
    pls_gate_entry *ask = peer != NULL ? ask_open(gateway, record, peer, wire.call_id) : NULL;
    if (ask == NULL) {
        if (peer == NULL) {
            node_words(wire.node_id, text, sizeof text);
        }
        stream_end(gateway, (pls_client_key){record->slot, record->epoch}, wire.call_id,
                   PULSING_UNREACHABLE, text);
        return PLS_OK;
    }
    *peer_out = peer;
    ask->state = PLS_GATE_STREAM;
    pls_gate_head head = {.kind = PLS_GATE_READ,
                          .id = pls_gate_id(&gateway->asks, ask),
                          .value = wire.writer_id,
                          .actor = pls_actor_id(wire.slot, wire.epoch, 0)};
    pls_err err = head_send(gateway, peer, &head, pls_gate_stream(head.id, 0));
    if (err == PLS_EFULL) {
        pls_gate_close(&gateway->asks, ask);
    } else if (err != PLS_OK) {
        pls_gate_ask_fail(gateway, ask, PULSING_UNREACHABLE, pls_err_text(err));
    }
    return err == PLS_EFULL ? err : PLS_OK;
}

static pls_err route_keep(pls_gateway *gateway, const pls_gate_record *record)
{
    pls_wire_route wire;
    if (record->len != sizeof wire) {
        return PLS_EPROTO;
    }
    memcpy(&wire, record->bytes, sizeof wire);
    if (pls_gate_find(&gateway->routes, record->slot, wire.id) != NULL) {
        return PLS_EPROTO;
    }
    pls_gate_entry *route = pls_gate_open(&gateway->routes, record->slot, wire.id);
    if (route != NULL) {
        route->slot = record->slot;
        route->epoch = record->epoch;
        route->actor_id = wire.actor_id;
        memcpy(route->node_id, wire.node_id, sizeof route->node_id);
    }
    return PLS_OK; /* without one, its requests are answered so */
}

static pls_err signal_out(pls_gateway *gateway, pls_gate_record *record, pls_gate_peer **peer_out)
{
    pls_wire_signal signal;
    if (record->len != sizeof signal) {
        return PLS_EPROTO;
    }
    memcpy(&signal, record->bytes, sizeof signal);
    pls_gate_entry *route = NULL;
    switch (record->type) {
    case PLS_WIRE_CANCEL:
        return cancel_out(gateway, record, &signal, peer_out);
    case PLS_WIRE_CREDIT:
        credit_out(gateway, record, &signal);
        return PLS_OK;
    case PLS_WIRE_STREAM_ROOM:
    case PLS_WIRE_STREAM_CLOSE:
        return reader_out(gateway, record, &signal, peer_out);
    case PLS_WIRE_UNROUTE:
        route = pls_gate_find(&gateway->routes, record->slot, signal.id);
        if (route != NULL) {
            pls_gate_close(&gateway->routes, route);
        }
        return PLS_OK;
    default:
        return PLS_EPROTO;
    }
}

pls_err pls_gate_out(pls_gateway *gateway, pls_gate_record *record, pls_gate_peer **peer_out)
{
    pls_err err = PLS_OK;
    switch (record->type) {
    case PLS_WIRE_REQUEST:
        err = request_out(gateway, record, peer_out);
        break;
    case PLS_WIRE_REPLY:
    case PLS_WIRE_STREAM_ITEM:
    case PLS_WIRE_STREAM_END:
        err = answer_out(gateway, record, peer_out);
        break;
    case PLS_WIRE_ROUTE:
        err = route_keep(gateway, record);
        break;
    case PLS_WIRE_FAR_OPEN:
        err = read_out(gateway, record, peer_out);
        break;
    case PLS_WIRE_PROBE:
        break; /* circles of asks are looked for on one host */
    default:
        err = signal_out(gateway, record, peer_out);
        break;
    }
    if (err != PLS_EFULL) {
        gateway->lost += err != PLS_OK;
        pls_gate_record_drop(gateway, record);
    }
    return err == PLS_EFULL ? PLS_EFULL : PLS_OK;
}
