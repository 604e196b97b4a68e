/* SPDX-License-Identifier: Apache-2.0 */
/* The transport and the membership in the node's loop. One turn does what both want until neither
 * wants more: the transport hands packets in, the membership hands actions out, which go into the
 * transport again. Between turns one alarm stands at the nearer of their deadlines; whoever puts
 * something in from outside moves it to now. */
#include "node/process/net.h"

#include "node/process/net_parts.h"
#include "node/process/node.h"
#include "node/process/roster.h"

#include <stdio.h>
#include <string.h>

/* Rounds of a turn, after which the other descriptors of the loop are served first. */
#define ROUNDS_MAX 16
#define LEAVE_MS 1500
#define NOTE_PAUSE_NS (10ull * 1000 * PLS_NS_PER_MS)

bool pls_net_is_linked(void)
{
    return true;
}

void pls_net_stir(pls_net *net)
{
    if (!net->in_turn && (net->alarm.place == 0 || net->alarm.due_ns != 0)) {
        /* Without memory for an alarm the transport's descriptor still wakes the loop. */
        (void)!pls_loop_alarm(net->node->loop, &net->alarm, 0);
    }
}

static void member_happened(pls_net *net, const pls_action *action)
{
    pls_member self = pls_gossip_look(net->gossip).self;
    /* It tells what the action lends, so it comes before anything that may change it. */
    pls_roster_tell(net, action);
    if (action->member == self) {
        net->left = net->left || action->event == PLS_EVENT_LEFT;
        return;
    }
    switch (action->event) {
    case PLS_EVENT_JOINED:
    case PLS_EVENT_ALIVE:
    case PLS_EVENT_UPDATED:
        (void)pls_peers_add(net, action->member, NULL);
        break;
    case PLS_EVENT_DEAD:
        pls_peers_remove(net, action->member, "it has died, or cannot be reached any more");
        break;
    case PLS_EVENT_LEFT:
        pls_peers_remove(net, action->member, "it has left the cluster");
        break;
    default:
        break;
    }
}

static void action_do(pls_net *net, const pls_action *action)
{
    switch (action->kind) {
    case PLS_ACTION_SEND:
        /* A lost packet is what the membership expects of a network. */
        (void)!pls_zmq_control(net->zmq, action->address, action->address_bytes, action->bytes,
                               action->len);
        break;
    case PLS_ACTION_CONNECT:
        /* The packet that follows makes the connection. */
        break;
    case PLS_ACTION_DROP:
        pls_zmq_reset(net->zmq, action->address, action->address_bytes);
        break;
    case PLS_ACTION_MEMBER:
        member_happened(net, action);
        break;
    case PLS_ACTION_NAME:
        pls_net_name_happened(net, action);
        break;
    }
}

static void actions_do(pls_net *net)
{
    pls_action action;
    while (pls_gossip_next_action(net->gossip, &action) == PLS_OK) {
        action_do(net, &action);
    }
}

static void turn(pls_net *net)
{
    uint64_t due_ns = 0;
    bool left = net->left;
    net->in_turn = true;
    for (int round = 0; round < ROUNDS_MAX; round++) {
        uint64_t now_ns = pls_loop_now_ns();
        pls_zmq_poll(net->zmq, now_ns);
        if (pls_gossip_deadline(net->gossip) <= now_ns) {
            (void)pls_gossip_advance(net->gossip, now_ns);
        }
        actions_do(net);
        due_ns = pls_zmq_deadline(net->zmq);
        if (due_ns != 0) {
            break;
        }
    }
    net->in_turn = false;
    uint64_t gossip_ns = pls_gossip_deadline(net->gossip);
    due_ns = gossip_ns < due_ns ? gossip_ns : due_ns;
    if (due_ns == 0) {
        /* In the loop's next turn: now, but not before the alarms of this one are through. */
        due_ns = pls_loop_now_ns();
    }
    pls_loop_alarm_clear(net->node->loop, &net->alarm);
    if (due_ns != UINT64_MAX) {
        (void)!pls_loop_alarm(net->node->loop, &net->alarm, due_ns);
    }
    if (net->left && !left) {
        /* The node may end the net in this call. */
        pls_leave_check(net->node);
    }
}

/* Whether no other node is known under a key. */
static bool key_is_free(pls_net *net, uint64_t key)
{
    pls_member member = pls_gossip_member_next(net->gossip, 0);
    while (member != PLS_MEMBER_NONE) {
        pls_member_view view;
        if (pls_gossip_member(net->gossip, member, &view) == PLS_OK && view.identity.key == key) {
            return pls_peers_of_member(&net->peers, member) == NULL;
        }
        member = pls_gossip_member_next(net->gossip, member + 1);
    }
    return true;
}

/* What a packet says of its sender is believed only if the connection has proved it. Who greeted
 * has proved name, address and generation. Who was called has proved its node id: it has to be the
 * member that is known by it, or a newcomer, such as a seed that answers the first time. */
static bool sender_is_proved(pls_net *net, const pls_zmq_identity *from, uint64_t key)
{
    if (from->name_bytes > 0) {
        pls_identity proved = {.generation = from->generation,
                               .name = from->name,
                               .address = from->address,
                               .name_bytes = from->name_bytes,
                               .address_bytes = from->address_bytes};
        return key == pls_identity_key(&proved);
    }
    const pls_net_peer *peer = pls_net_peer_find(net, from->node_id);
    return peer != NULL ? key == peer->key : key_is_free(net, key);
}

/* Only for who greeted: of who was called it is known later than its first packets who it is. */
static void forgery_note(pls_net *net, const pls_zmq_identity *from)
{
    char id[2 * PLS_ZMQ_NODE_ID_BYTES + 1];
    uint64_t now_ns = pls_loop_now_ns();
    if (from->name_bytes == 0 ||
        (net->forged_noted_ns != 0 && now_ns - net->forged_noted_ns < NOTE_PAUSE_NS)) {
        return;
    }
    net->forged_noted_ns = now_ns;
    /* Its name could be any bytes. */
    for (size_t i = 0; i < PLS_ZMQ_NODE_ID_BYTES; i++) {
        snprintf(id + 2 * i, 3, "%02x", from->node_id[i]);
    }
    pls_output_note(net->node->output,
                    "pulsing: the node with id %s speaks in the name of another one; what it says "
                    "so is dropped (%llu times by now)",
                    id, (unsigned long long)net->forged_count);
}

static void control_came(void *owner, const pls_zmq_identity *from, const void *bytes, size_t len)
{
    pls_net *net = owner;
    uint64_t key;
    if (pls_gossip_packet_sender(bytes, len, &key) != PLS_OK || !sender_is_proved(net, from, key)) {
        net->forged_count++;
        forgery_note(net, from);
        return;
    }
    (void)pls_gossip_receive(net->gossip, bytes, len, from->address, from->address_bytes,
                             pls_loop_now_ns());
}

/* The peer that a message is from. One that the membership does not know yet is vouched for by its
 * greeting; what it sends waits until the membership agrees. */
static pls_net_peer *sender_of(pls_net *net, const pls_zmq_identity *from)
{
    pls_net_peer *peer = pls_net_peer_find(net, from->node_id);
    if (peer != NULL) {
        return peer;
    }
    pls_identity said = {.generation = from->generation,
                         .name = from->name,
                         .address = from->address,
                         .name_bytes = from->name_bytes,
                         .address_bytes = from->address_bytes};
    if (pls_gossip_learn(net->gossip, &said, 1, pls_loop_now_ns()) == PLS_OK) {
        pls_member member = pls_gossip_member_named(net->gossip, from->name, from->name_bytes);
        if (member != PLS_MEMBER_NONE &&
            pls_gossip_member_state(net->gossip, member) == PLS_MEMBER_ALIVE) {
            (void)pls_peers_add(net, member, from->node_id);
        }
    }
    return pls_net_peer_find(net, from->node_id);
}

static pls_err message_came(void *owner, const pls_zmq_identity *from,
                            const pls_zmq_arrival *arrival)
{
    pls_net *net = owner;
    if (net->gate == NULL) {
        return PLS_OK;
    }
    pls_net_peer *peer = sender_of(net, from);
    return peer == NULL ? PLS_EFULL : net->gate->message(net->gate_owner, peer, arrival);
}

static pls_err memory_wanted(void *owner, const pls_zmq_identity *from, pls_zmq_arrival *arrival)
{
    pls_net *net = owner;
    if (net->gate == NULL || net->gate->reserve == NULL) {
        return PLS_EPERM;
    }
    pls_net_peer *peer = sender_of(net, from);
    return peer == NULL ? PLS_EFULL : net->gate->reserve(net->gate_owner, peer, arrival);
}

static void memory_abandoned(void *owner, const pls_zmq_arrival *arrival)
{
    pls_net *net = owner;
    if (net->gate != NULL && net->gate->abandon != NULL) {
        net->gate->abandon(net->gate_owner, arrival);
    }
}

static void room_again(void *owner, pls_zmq_peer *link)
{
    pls_net *net = owner;
    pls_net_peer *peer = pls_peers_of_link(&net->peers, link);
    if (peer != NULL && net->gate != NULL && net->gate->room != NULL) {
        net->gate->room(net->gate_owner, peer);
    }
}

/* The live member that listens at an endpoint, PLS_MEMBER_NONE without one. */
static pls_member member_at(pls_net *net, const char *endpoint)
{
    size_t len = strlen(endpoint);
    pls_member member = pls_gossip_member_next(net->gossip, 0);
    while (member != PLS_MEMBER_NONE) {
        pls_member_view view;
        pls_member_state state = pls_gossip_member_state(net->gossip, member);
        if ((state == PLS_MEMBER_ALIVE || state == PLS_MEMBER_SUSPECT) &&
            pls_gossip_member(net->gossip, member, &view) == PLS_OK &&
            view.identity.address_bytes == len &&
            memcmp(view.identity.address, endpoint, len) == 0) {
            break;
        }
        member = pls_gossip_member_next(net->gossip, member + 1);
    }
    return member;
}

static void rejection_note(pls_net *net, const pls_zmq_news *news)
{
    uint64_t now_ns = pls_loop_now_ns();
    if (net->noted_ns == 0 || now_ns - net->noted_ns >= NOTE_PAUSE_NS) {
        net->noted_ns = now_ns;
        pls_output_note(net->node->output, "pulsing: the node at %s refuses this one: %s",
                        pls_endpoint_plain(news->address), news->text);
    }
}

static void news_came(void *owner, const pls_zmq_news *news)
{
    pls_net *net = owner;
    uint64_t now_ns = pls_loop_now_ns();
    pls_member member = member_at(net, news->address);
    if (news->kind != PLS_ZMQ_UP && news->text != NULL) {
        pls_seeds_trouble(&net->seeds, news->address, news->text);
    }
    switch (news->kind) {
    case PLS_ZMQ_DISCONNECTED:
        (void)pls_gossip_disconnected(net->gossip, member, now_ns);
        break;
    case PLS_ZMQ_REFUSED:
        (void)pls_gossip_refused(net->gossip, member, now_ns);
        break;
    case PLS_ZMQ_REJECTED:
        if (member == PLS_MEMBER_NONE) {
            /* A member has the key; it died in the middle of a handshake. */
            rejection_note(net, news);
        }
        break;
    default:
        break;
    }
}

static void stranger_turned_away(void *owner, const char *reason, const char *from, uint64_t count)
{
    pls_net *net = owner;
    if (net->leaving) {
        return; /* who is cut off now is no stranger */
    }
    pls_output_note(net->node->output, "pulsing: %s at %s was turned away (%llu times): %s", from,
                    pls_endpoint_plain(net->endpoint), (unsigned long long)count, reason);
}

const pls_zmq_handlers pls_net_handlers = {.control = control_came,
                                           .message = message_came,
                                           .reserve = memory_wanted,
                                           .abandon = memory_abandoned,
                                           .news = news_came,
                                           .room = room_again,
                                           .turned_away = stranger_turned_away};

void pls_net_ready(pls_watch *watch, uint32_t events)
{
    turn(watch->owner);
}

void pls_net_rang(pls_alarm *alarm)
{
    turn(alarm->owner);
}

static void leave_late(pls_alarm *alarm)
{
    pls_net *net = alarm->owner;
    if (!net->left) {
        net->left = true;
        pls_leave_check(net->node);
    }
}

bool pls_net_leave(pls_net *net)
{
    if (net == NULL || net->left) {
        return true;
    }
    if (net->leaving) {
        return false;
    }
    net->leaving = true;
    net->leave_limit = (pls_alarm){.ring = leave_late, .owner = net};
    pls_gossip_view view = pls_gossip_look(net->gossip);
    uint64_t now_ns = pls_loop_now_ns();
    bool alone = view.alive_count + view.suspect_count <= 1;
    if (alone || pls_gossip_leave(net->gossip, now_ns) != PLS_OK ||
        pls_loop_alarm(net->node->loop, &net->leave_limit, now_ns + LEAVE_MS * PLS_NS_PER_MS) !=
            PLS_OK) {
        net->left = true;
        return true;
    }
    pls_net_stir(net);
    return false;
}

const char *pls_net_address(const pls_net *net)
{
    return pls_endpoint_plain(net->endpoint);
}

static void peer_introduce(void *context, pls_net_peer *peer)
{
    pls_net *net = context;
    net->gate->peer_up(net->gate_owner, peer);
}

void pls_net_gate_set(pls_net *net, const pls_net_gate *gate, void *owner)
{
    net->gate = gate;
    net->gate_owner = owner;
    if (gate->peer_up != NULL) {
        pls_peers_each(net, peer_introduce, net);
    }
}

pls_err pls_net_send(pls_net *net, pls_net_peer *peer, const pls_zmq_message *message)
{
    if (peer->link == NULL) {
        pls_err err = pls_zmq_reach(net->zmq, peer->endpoint, strlen(peer->endpoint),
                                    peer->info.generation, &peer->link);
        if (err != PLS_OK) {
            return err;
        }
    }
    pls_err err = pls_zmq_send(net->zmq, peer->link, message);
    if (err == PLS_OK) {
        pls_net_stir(net);
    }
    return err;
}

void pls_net_settle(pls_net *net)
{
    pls_zmq_settle(net->zmq);
}

void pls_net_resume(pls_net *net, pls_net_peer *peer)
{
    pls_zmq_resume(net->zmq, peer->info.node_id);
    pls_net_stir(net);
}
