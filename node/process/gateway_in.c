/* SPDX-License-Identifier: Apache-2.0 */
/* From other nodes to the processes of this host. Everything comes from the network: a head is read
 * whole and checked, and a number finds only what belongs to the node that says it. Invariant: a
 * message that was taken has reached a ring or its queue, or whoever waits for it was told. */
#include "node/process/gateway_parts.h"

#include "base/assert.h"

#include <stdio.h>
#include <string.h>

#define SLOT_MASK 0xffu

/* Where the payload of a message is, and its block. */
typedef struct content {
    const uint8_t *payload; /* that goes into the record */
    uint32_t payload_bytes;
    uint16_t flags;
    pls_block *block; /* held once more by whoever made this; NULL: none */
} content;

/* The process for which a message is, and the number by which that process knows it. */
typedef struct place {
    pls_client_key key;
    uint64_t call_id;
} place;

static pls_err block_copy(pls_gateway *gateway, const pls_zmq_arrival *arrival, pls_block **out)
{
    (void)pls_arena_collect(gateway->arena);
    pls_err err = pls_arena_alloc(gateway->arena, arrival->body_bytes, out);
    if (err == PLS_OK) {
        memcpy((*out)->base, arrival->body, arrival->body_bytes);
    }
    return err;
}

/* Errors: as pls_arena_alloc(). Gives one hold of the block. */
static pls_err content_take(pls_gateway *gateway, const pls_gate_head *head,
                            const pls_zmq_arrival *arrival, content *out)
{
    bool block = (head->flags & PLS_GATE_BLOCK) != 0;
    bool in_block = (head->flags & PLS_GATE_PAYLOAD_IN_BLOCK) != 0;
    memset(out, 0, sizeof *out);
    out->flags =
        (uint16_t)((block ? PLS_WIRE_BLOCK : 0) | (in_block ? PLS_WIRE_PAYLOAD_IN_BLOCK : 0));
    out->payload = block ? head->payload : arrival->body;
    out->payload_bytes = in_block ? 0 : head->payload_bytes;
    if (!block) {
        return PLS_OK;
    }
    if (arrival->token != NULL) {
        out->block = arrival->token;
        return PLS_OK;
    }
    return block_copy(gateway, arrival, &out->block);
}

static void content_done(pls_gateway *gateway, const content *what)
{
    if (what->block != NULL) {
        pls_arena_unhold(gateway->arena, what->block);
    }
}

static bool serves(const pls_client *client)
{
    const pls_directory_line *line = &client->node->directory->lines[client->slot];
    return client->stage == PLS_CLIENT_JOINED &&
           atomic_load_explicit(&line->serves, memory_order_relaxed) != 0;
}

/* Who answers for the node as a whole: a process that attached by itself, else a worker. */
static bool somebody_find(const pls_gateway *gateway, pls_client_key *key)
{
    bool found = false;
    for (uint32_t slot = 0; slot < PLS_SLOTS_MAX; slot++) {
        const pls_client *client = gateway->node->slots[slot].client;
        if (client != NULL && serves(client) &&
            (client->role == PLS_ROLE_HOST || (client->role == PLS_ROLE_WORKER && !found))) {
            *key = pls_client_key_of(client);
            found = true;
            if (client->role == PLS_ROLE_HOST) {
                break;
            }
        }
    }
    return found;
}

/* Where an actor of this node lives. */
static bool actor_where(pls_gateway *gateway, uint64_t actor, pls_client_key *key, char *text)
{
    bool rebuilding = false;
    uint32_t slot = pls_actor_id_slot(actor);
    pls_client_key birthplace = {slot, pls_actor_id_epoch(actor)};
    bool lives = slot != PLS_NODE_SLOT &&
                 pls_restarts_where(gateway->node->restarts, actor, key, &rebuilding);
    const pls_client *client = lives ? pls_client_find(gateway->node, *key) : NULL;
    if (client != NULL && client->stage == PLS_CLIENT_JOINED && !rebuilding) {
        return true;
    }
    if (rebuilding) {
        snprintf(text, PLS_GATE_TEXT_BYTES_MAX,
                 "its process died and it is being rebuilt; call it again");
    } else {
        pls_gate_death_words(gateway, lives ? *key : birthplace, text, PLS_GATE_TEXT_BYTES_MAX);
    }
    return false;
}

/* Without a key anybody may be the sender: who manages a process answers him what does no harm. */
static bool may_call(const pls_gateway *gateway, const pls_gate_head *head)
{
    static const char *const harmless[] = {"ping", "watch", "watch_here", "load_here"};
    if (gateway->trusted || (uint32_t)head->actor != 0) {
        return true;
    }
    for (size_t i = 0; i < sizeof harmless / sizeof harmless[0]; i++) {
        if (strlen(harmless[i]) == head->method_bytes &&
            memcmp(harmless[i], head->method, head->method_bytes) == 0) {
            return true;
        }
    }
    return false;
}

/* Whether a request can be passed on; else its caller is told why. */
static bool request_admit(pls_gateway *gateway, pls_gate_peer *peer, const pls_gate_head *head,
                          pls_client_key *key)
{
    char text[PLS_GATE_TEXT_BYTES_MAX];
    if (!may_call(gateway, head)) {
        pls_gate_refuse(peer, head, PULSING_BAD_MESSAGE,
                        "only members of a cluster with a key may manage another node's processes; "
                        "give both nodes the same key");
        return false;
    }
    if (!actor_where(gateway, head->actor, key, text)) {
        pls_gate_refuse(peer, head, PULSING_DIED, text);
        return false;
    }
    return true;
}

static void request_write(pls_gateway *gateway, const pls_gate_head *head, const place *to,
                          const content *what)
{
    pls_wire_request wire = {.actor_id = head->actor,
                             .call_id = to->call_id,
                             .payload_bytes = head->payload_bytes,
                             .method_bytes = head->method_bytes};
    wire.flags = (head->flags & PLS_GATE_WINDOWED) != 0 ? PLS_REQUEST_WINDOWED : 0;
    if (head->left_ns > 0) {
        int64_t now = (int64_t)pls_loop_now_ns();
        wire.deadline_ns = head->left_ns < INT64_MAX - now ? now + head->left_ns : INT64_MAX;
    }
    pls_gate_note note = {.to = to->key,
                          .type = PLS_WIRE_REQUEST,
                          .flags = what->flags,
                          .piece = {&wire, head->method, what->payload},
                          .bytes = {sizeof wire, head->method_bytes, what->payload_bytes},
                          .block = what->block};
    if (pls_gate_note_send(gateway, &note) != PLS_OK) {
        gateway->lost++; /* its death is on its way, and ends the call */
    }
}

/* The books of a request: a call to be answered, or credit to be given back. */
static bool request_enter(pls_gateway *gateway, pls_gate_peer *peer, const pls_gate_head *head,
                          place *to)
{
    to->call_id = 0;
    if (head->id == 0) {
        return (head->flags & PLS_GATE_WINDOWED) == 0 ||
               pls_gate_debt_add(gateway, head->actor, (uint16_t)to->key.slot, peer, head->value) ==
                   PLS_OK;
    }
    pls_gate_entry *serve = pls_gate_find(&gateway->serves, (uintptr_t)peer, head->id) == NULL
                                ? pls_gate_open(&gateway->serves, (uintptr_t)peer, head->id)
                                : NULL;
    if (serve == NULL) {
        return false;
    }
    serve->peer = peer;
    serve->actor_id = head->actor;
    serve->slot = (uint16_t)to->key.slot;
    serve->epoch = to->key.epoch;
    to->call_id = pls_gate_id(&gateway->serves, serve);
    return true;
}

static pls_err request_in(pls_gateway *gateway, pls_gate_peer *peer, pls_gate_head *head,
                          const pls_zmq_arrival *arrival)
{
    place to = {{0, 0}, 0};
    content what;
    if (head->actor == PLS_GATE_ANYBODY && somebody_find(gateway, &to.key)) {
        head->actor = pls_actor_id(to.key.slot, to.key.epoch, 0);
    }
    if (!request_admit(gateway, peer, head, &to.key)) {
        pls_gate_in_abandon(gateway, arrival);
        return PLS_OK;
    }
    if (pls_gate_link_full(gateway, to.key.slot)) {
        peer->held = true;
        return PLS_EFULL;
    }
    pls_err err = content_take(gateway, head, arrival, &what);
    if (err != PLS_OK) {
        pls_gate_refuse(peer, head, PULSING_MAILBOX_FULL, pls_err_text(err));
        return PLS_OK;
    }
    if (request_enter(gateway, peer, head, &to)) {
        request_write(gateway, head, &to, &what);
    } else {
        pls_gate_refuse(peer, head, PULSING_MAILBOX_FULL,
                        "too many calls of other nodes are under way there");
    }
    content_done(gateway, &what);
    return PLS_OK;
}

/* The call of this host that a node answers. */
static pls_gate_entry *ask_of(pls_gateway *gateway, const pls_gate_peer *peer, uint64_t id)
{
    pls_gate_entry *ask = pls_gate_at(&gateway->asks, id);
    return ask != NULL && ask->peer == peer ? ask : NULL;
}

static bool announces(const pls_gate_head *head)
{
    return head->kind == PLS_GATE_REPLY && head->status == PULSING_STREAM;
}

static uint16_t type_of(uint8_t kind)
{
    return kind == PLS_GATE_REPLY  ? PLS_WIRE_REPLY
           : kind == PLS_GATE_ITEM ? PLS_WIRE_STREAM_ITEM
                                   : PLS_WIRE_STREAM_END;
}

static void answer_write(pls_gateway *gateway, const pls_gate_head *head, const place *to,
                         const content *what)
{
    pls_wire_reply wire = {.call_id = to->call_id,
                           .payload_bytes = head->payload_bytes,
                           .status = head->status,
                           .credit = head->credit};
    bool stream = announces(head);
    /* The reader names the stream by its own call; see pls_wire_far_open. */
    uint32_t own = stream ? (uint32_t)sizeof to->call_id : 0;
    pls_gate_note note = {.to = to->key,
                          .type = type_of(head->kind),
                          .flags = what->flags,
                          .piece = {&wire, &to->call_id, what->payload + own},
                          .bytes = {sizeof wire, own, what->payload_bytes - own},
                          .block = what->block};
    if (pls_gate_note_send(gateway, &note) != PLS_OK) {
        gateway->lost++;
    }
}

/* Tells the writer of a stream over there that its reader is gone. */
static void stream_shut(pls_gate_peer *peer, bool stream, uint64_t id)
{
    pls_gate_head head = {.kind = PLS_GATE_CLOSE, .id = id};
    if (stream) {
        pls_gate_say(peer, &head, pls_gate_stream(id, 0), "");
    }
}

/* Whether this kind of answer makes sense now. */
static bool answer_fits(const pls_gate_entry *ask, const pls_gate_head *head)
{
    if (announces(head)) {
        return ask->state == PLS_GATE_OPEN && (head->flags & PLS_GATE_BLOCK) == 0 &&
               head->payload_bytes >= sizeof(uint64_t);
    }
    return ask->state == (head->kind == PLS_GATE_REPLY ? PLS_GATE_OPEN : PLS_GATE_STREAM);
}

static pls_err answer_in(pls_gateway *gateway, pls_gate_peer *peer, const pls_gate_head *head,
                         const pls_zmq_arrival *arrival)
{
    content what;
    pls_gate_entry *ask = ask_of(gateway, peer, head->id);
    if (ask == NULL) {
        /* Late: the call is over. A stream's writer may not know yet that nobody reads it. */
        stream_shut(peer, head->kind == PLS_GATE_ITEM || announces(head), head->id);
        pls_gate_in_abandon(gateway, arrival);
        return PLS_OK;
    }
    if (pls_gate_link_full(gateway, ask->slot)) {
        peer->held = true;
        return PLS_EFULL;
    }
    if (!answer_fits(ask, head)) {
        /* Also the word of a gateway that the answer, or the rest of a stream, was lost. */
        char text[PLS_GATE_TEXT_BYTES_MAX];
        snprintf(text, sizeof text, "%s did not answer in order", peer->label);
        stream_shut(peer, ask->state == PLS_GATE_STREAM, head->id);
        pls_gate_ask_fail(gateway, ask, PULSING_UNREACHABLE, text);
        pls_gate_in_abandon(gateway, arrival);
        return PLS_OK;
    }
    pls_err err = content_take(gateway, head, arrival, &what);
    if (err != PLS_OK) {
        pls_gate_ask_fail(gateway, ask, PULSING_MAILBOX_FULL, pls_err_text(err));
        return PLS_OK;
    }
    place to = {{ask->slot, ask->epoch}, ask->key[1]};
    if (announces(head)) {
        ask->state = PLS_GATE_STREAM;
    } else if (head->kind != PLS_GATE_ITEM) {
        pls_gate_close(&gateway->asks, ask);
    }
    answer_write(gateway, head, &to, &what);
    content_done(gateway, &what);
    return PLS_OK;
}

/* What the caller or the reader over there says to the process that serves it. */
static void caller_in(pls_gateway *gateway, pls_gate_peer *peer, const pls_gate_head *head)
{
    pls_gate_entry *serve = pls_gate_find(&gateway->serves, (uintptr_t)peer, head->id);
    if (serve == NULL) {
        return;
    }
    pls_client_key to = {serve->slot, serve->epoch};
    if (head->kind == PLS_GATE_CANCEL && serve->state == PLS_GATE_OPEN) {
        pls_gate_signal(gateway, to, PLS_WIRE_CANCEL, pls_gate_id(&gateway->serves, serve),
                        serve->actor_id);
    } else if (head->kind == PLS_GATE_ROOM && serve->state == PLS_GATE_STREAM) {
        pls_gate_signal(gateway, to, PLS_WIRE_STREAM_ROOM, serve->writer_id, head->value);
    } else if (head->kind == PLS_GATE_CLOSE && serve->state == PLS_GATE_STREAM) {
        pls_gate_signal(gateway, to, PLS_WIRE_STREAM_CLOSE, serve->writer_id, 0);
        pls_gate_close(&gateway->serves, serve);
    }
}

/* A reader over there for a stream that a process here writes. */
static void read_in(pls_gateway *gateway, pls_gate_peer *peer, const pls_gate_head *head)
{
    place to = {{pls_actor_id_slot(head->actor), pls_actor_id_epoch(head->actor)}, 0};
    pls_gate_head end = *head;
    const pls_client *client = pls_client_find(gateway->node, to.key);
    end.kind = PLS_GATE_END;
    if (head->id == 0) {
        return;
    }
    if (client == NULL || client->stage != PLS_CLIENT_JOINED ||
        !request_enter(gateway, peer, head, &to)) {
        pls_gate_refuse(peer, &end, PULSING_DIED, "the stream's writer is gone");
        return;
    }
    pls_gate_entry *serve = pls_gate_at(&gateway->serves, to.call_id);
    serve->state = PLS_GATE_STREAM;
    serve->writer_id = head->value;
    pls_gate_signal(gateway, to.key, PLS_WIRE_STREAM_OPEN, head->value, to.call_id);
}

static void credit_in(pls_gateway *gateway, const pls_gate_peer *peer, const pls_gate_head *head)
{
    pls_gate_entry *route = pls_gate_at(&gateway->routes, head->id);
    if (route != NULL && memcmp(route->node_id, peer->node_id, sizeof route->node_id) == 0) {
        pls_gate_route_credit(gateway, route, head->value);
    }
}

/* The process of this host that a signal from a node would go to; PLS_SLOTS_MAX: none. */
static uint32_t signal_slot(pls_gateway *gateway, const pls_gate_peer *peer,
                            const pls_gate_head *head)
{
    const pls_gate_entry *entry = head->kind == PLS_GATE_CREDIT
                                      ? pls_gate_at(&gateway->routes, head->id)
                                      : pls_gate_find(&gateway->serves, (uintptr_t)peer, head->id);
    if (head->kind == PLS_GATE_READ) {
        return pls_actor_id_slot(head->actor);
    }
    return entry != NULL && head->kind != PLS_GATE_FORGOT ? entry->slot : PLS_SLOTS_MAX;
}

static pls_err signal_in(pls_gateway *gateway, pls_gate_peer *peer, const pls_gate_head *head,
                         const pls_zmq_arrival *arrival)
{
    uint32_t slot = signal_slot(gateway, peer, head);
    if (slot < PLS_SLOTS_MAX && pls_gate_link_full(gateway, slot)) {
        peer->held = true;
        return PLS_EFULL;
    }
    switch ((pls_gate_kind)head->kind) {
    case PLS_GATE_READ:
        read_in(gateway, peer, head);
        break;
    case PLS_GATE_CREDIT:
        credit_in(gateway, peer, head);
        break;
    case PLS_GATE_FORGOT:
        pls_gate_peer_forgot(peer, "it had taken this node for dead");
        break;
    default:
        caller_in(gateway, peer, head);
        break;
    }
    pls_gate_in_abandon(gateway, arrival);
    return PLS_OK;
}

pls_err pls_gate_in_message(void *owner, pls_net_peer *from, const pls_zmq_arrival *arrival)
{
    pls_gateway *gateway = owner;
    pls_gate_peer *peer = pls_net_peer_kept(from);
    pls_gate_head head;
    if (peer == NULL || pls_gate_head_read(arrival->head, arrival->head_bytes, arrival->body_bytes,
                                           &head) != PLS_OK) {
        pls_gate_in_abandon(gateway, arrival);
        gateway->lost++;
        return PLS_OK;
    }
    if (pls_gate_peer_full(peer)) {
        return PLS_EFULL;
    }
    switch ((pls_gate_kind)head.kind) {
    case PLS_GATE_REQUEST:
        return request_in(gateway, peer, &head, arrival);
    case PLS_GATE_REPLY:
    case PLS_GATE_ITEM:
    case PLS_GATE_END:
        return answer_in(gateway, peer, &head, arrival);
    default:
        return signal_in(gateway, peer, &head, arrival);
    }
}

/* Whom the body is for has to be there, and the memory; else the body is passed over, and whoever
 * waits is told here. */
static pls_err reserve_refuse(pls_gateway *gateway, pls_gate_peer *peer, const pls_gate_head *head,
                              pls_err err)
{
    static const char spent[] =
        "the memory for large payloads of the receiving node is spent: await earlier calls, drop "
        "received arrays, or raise SystemConfig.with_memory(...) there";
    pls_gate_entry *ask = ask_of(gateway, peer, head->id);
    const char *text = err == PLS_EBUDGET ? spent : pls_err_text(err);
    if (head->kind == PLS_GATE_REQUEST) {
        pls_gate_refuse(peer, head, PULSING_MAILBOX_FULL, text);
    } else if (ask != NULL) {
        pls_gate_head close = {.kind = PLS_GATE_CLOSE, .id = head->id};
        if (ask->state == PLS_GATE_STREAM) {
            pls_gate_say(peer, &close, pls_gate_stream(close.id, 0), "");
        }
        pls_gate_ask_fail(gateway, ask, PULSING_MAILBOX_FULL, text);
    }
    return err;
}

pls_err pls_gate_in_reserve(void *owner, pls_net_peer *from, pls_zmq_arrival *arrival)
{
    pls_gateway *gateway = owner;
    pls_gate_peer *peer = pls_net_peer_kept(from);
    pls_gate_head head;
    pls_block *block = NULL;
    if (peer == NULL ||
        pls_gate_head_read(arrival->head, arrival->head_bytes, arrival->body_bytes, &head) !=
            PLS_OK ||
        (head.flags & PLS_GATE_BLOCK) == 0) {
        gateway->lost++;
        return PLS_EPROTO;
    }
    if (pls_gate_peer_full(peer)) {
        return PLS_EFULL;
    }
    (void)pls_arena_collect(gateway->arena);
    pls_err err = pls_arena_alloc(gateway->arena, arrival->body_bytes, &block);
    if (err != PLS_OK) {
        return reserve_refuse(gateway, peer, &head, err);
    }
    arrival->memory = block->base;
    arrival->token = block;
    return PLS_OK;
}

void pls_gate_in_abandon(void *owner, const pls_zmq_arrival *arrival)
{
    pls_gateway *gateway = owner;
    if (arrival->token != NULL) {
        pls_arena_unhold(gateway->arena, arrival->token);
    }
}
