/* SPDX-License-Identifier: Apache-2.0 */
/* The event loop of the world: takes the earliest event, gives it to the node it is for, and does
 * what the node's instance asks for. One input is one call on an instance; after each the actions
 * are drained, the alarm is set again and the checker looks at the node that was touched. Nothing
 * here depends on anything but the events, so a run is a function of its seed. */
#include "tests/sim/drive.h"

#include "base/assert.h"
#include "tests/sim/check.h"

#include <string.h>

/* A node's kernel buffers hold so many packets; what comes beyond is lost and counted. */
enum { INPUT_PACKETS_MAX = 65536 };

/* So many wakes of one node at one moment mean that its deadline does not move. */
enum { WAKES_AT_ONCE_MAX = 100000 };

#define BROKEN_AFTER_NS (1 * PLS_SIM_MS)
#define REFUSED_AFTER_NS (185 * PLS_SIM_MS)

void pls_sim_drive_trace(pls_sim_world *world, uint64_t number)
{
    uint64_t hash = (world->trace_hash ^ number) * UINT64_C(0x9e3779b97f4a7c15);
    world->trace_hash = hash ^ hash >> 29;
}

static void trace_bytes(pls_sim_world *world, const uint8_t *bytes, size_t len)
{
    while (len > 0) {
        uint64_t word = 0;
        size_t taken = len < sizeof word ? len : sizeof word;
        memcpy(&word, bytes, taken);
        pls_sim_drive_trace(world, word);
        bytes += taken;
        len -= taken;
    }
}

uint32_t pls_sim_address_number(const char *address, uint32_t address_bytes)
{
    const uint32_t prefix_bytes = sizeof PLS_SIM_ADDRESS_PREFIX - 1;
    uint32_t number = 0;
    if (address_bytes <= prefix_bytes ||
        memcmp(address, PLS_SIM_ADDRESS_PREFIX, prefix_bytes) != 0) {
        return PLS_SIM_NOBODY;
    }
    for (uint32_t i = prefix_bytes; i < address_bytes; i++) {
        uint32_t digit = (uint32_t)address[i] - '0';
        if (digit > 9) {
            return PLS_SIM_NOBODY;
        }
        number = number * 10 + digit;
    }
    return number;
}

uint64_t pls_sim_world_clock(const pls_sim_world *world, uint32_t node)
{
    const pls_sim_node *n = &world->nodes[node];
    return n->clock_stopped_ns > 0 ? n->clock_stopped_ns : world->now_ns + n->clock_offset_ns;
}

uint32_t pls_sim_world_node_of(const pls_sim_world *world, pls_member member)
{
    uint32_t node = member < world->member_count ? world->member_node[member] : PLS_SIM_NOBODY;
    if (node == PLS_SIM_NOBODY || world->nodes[node].gossip == NULL ||
        world->nodes[node].self != member) {
        return PLS_SIM_NOBODY;
    }
    return node;
}

uint32_t pls_sim_world_owner(const pls_sim_world *world, const pls_identity *identity)
{
    uint32_t node = 0;
    if (identity->name_bytes < 2 || identity->name[0] != 'n') {
        return PLS_SIM_NOBODY;
    }
    for (uint32_t i = 1; i < identity->name_bytes; i++) {
        node = node * 10 + (uint32_t)(identity->name[i] - '0');
    }
    return node < world->node_count ? node : PLS_SIM_NOBODY;
}

/* Whether a node comes to no deadline at all. */
static bool stands_still(const pls_sim_world *world, uint32_t node)
{
    const pls_sim_node *n = &world->nodes[node];
    return n->pause_count > 0 && (n->stuck || world->setup.stall == PLS_SIM_STALL_WHOLE);
}

void pls_sim_drive_arm(pls_sim_world *world, uint32_t node)
{
    pls_sim_node *n = &world->nodes[node];
    if (n->gossip == NULL || stands_still(world, node) || n->clock_stopped_ns > 0 ||
        n->busy_until_ns > world->now_ns) {
        return;
    }
    uint64_t deadline_ns = pls_gossip_deadline(n->gossip);
    if (deadline_ns == PLS_SIM_NEVER) {
        return;
    }
    uint64_t at_ns = world->now_ns;
    if (deadline_ns > world->now_ns + n->clock_offset_ns) {
        at_ns = deadline_ns - n->clock_offset_ns;
    }
    if (at_ns < n->wake_ns) {
        n->wake_ns = at_ns;
        pls_sim_heap_push(&world->heap, at_ns, PLS_SIM_EVENT_WAKE, node, 0);
    }
}

static void connection_note(pls_sim_world *world, uint32_t from, uint32_t to, bool open)
{
    if (world->connected != NULL && to != PLS_SIM_NOBODY) {
        world->connected[(size_t)from * world->node_count + to] = open;
    }
}

/* A living host where nobody listens refuses the connection that a packet needs. */
static void refusal(pls_sim_world *world, uint32_t from, uint32_t address, pls_member member)
{
    if (world->connected == NULL || member == PLS_MEMBER_NONE || address >= world->address_count) {
        return;
    }
    const pls_sim_node *host = &world->nodes[world->address_host[address]];
    uint8_t here = world->nodes[from].side;
    bool cut = (world->net.cut[here] >> host->side & 1) != 0 ||
               (world->net.cut[host->side] >> here & 1) != 0;
    if (host->host_lives && !cut) {
        pls_sim_heap_push(&world->heap, world->now_ns + BROKEN_AFTER_NS, PLS_SIM_EVENT_REFUSED,
                          from, member);
    }
}

/* Packets that a node sends to one other at one moment keep their order, as on one connection,
 * unless packets come late by a fault. */
static uint64_t arrival_ns(pls_sim_world *world, uint32_t from, uint32_t to, uint64_t delay_ns)
{
    pls_sim_node *n = &world->nodes[from];
    uint64_t at_ns = world->now_ns + delay_ns;
    bool burst = n->burst_sent_ns == world->now_ns && n->burst_to == to;
    if (burst && world->net.late_ppm == 0 && at_ns < n->burst_come_ns) {
        at_ns = n->burst_come_ns;
    }
    n->burst_sent_ns = world->now_ns;
    n->burst_come_ns = at_ns;
    n->burst_to = to;
    return at_ns;
}

/* Gives a packet to the network, which loses, delays or doubles it. */
static void transmit(pls_sim_world *world, uint32_t from, uint32_t to, uint32_t index)
{
    pls_sim_traffic *traffic = &world->traffic;
    const pls_sim_packet *packet = pls_sim_packet_at(world->packets, index);
    pls_sim_fate fate =
        pls_sim_net_fate(&world->net, world->nodes[from].side, world->nodes[to].side);
    if (fate.copy_count == 0) {
        traffic->packets_lost++;
        traffic->bytes_lost += packet->len;
        pls_sim_packet_release(world->packets, index);
        return;
    }
    if (fate.copy_count > 1) {
        uint32_t copy = pls_sim_packet_take(world->packets, packet->bytes, packet->len);
        pls_sim_packet_at(world->packets, copy)->from = packet->from;
        pls_sim_packet_at(world->packets, copy)->to = packet->to;
        pls_sim_heap_push(&world->heap, world->now_ns + fate.delay_ns[1], PLS_SIM_EVENT_ARRIVE, to,
                          copy);
        traffic->packets_duplicated++;
        traffic->bytes_duplicated += packet->len;
    }
    pls_sim_heap_push(&world->heap, arrival_ns(world, from, to, fate.delay_ns[0]),
                      PLS_SIM_EVENT_ARRIVE, to, index);
}

static uint32_t listener_at(const pls_sim_world *world, uint32_t address)
{
    return address < world->address_count ? world->address_node[address] : PLS_SIM_NOBODY;
}

static void held_push(pls_sim_world *world, uint32_t node, uint32_t index)
{
    pls_sim_node *n = &world->nodes[node];
    if (n->held_count == 0) {
        n->held_head = index;
    } else {
        pls_sim_packet_at(world->packets, n->held_tail)->next = index;
    }
    n->held_tail = index;
    n->held_count++;
}

static uint32_t held_pop(pls_sim_world *world, uint32_t node)
{
    pls_sim_node *n = &world->nodes[node];
    uint32_t index = n->held_head;
    n->held_head = pls_sim_packet_at(world->packets, index)->next;
    n->held_count--;
    return index;
}

static void packet_unheard(pls_sim_world *world, uint32_t index)
{
    world->traffic.packets_unheard++;
    world->traffic.bytes_unheard += pls_sim_packet_at(world->packets, index)->len;
    pls_sim_packet_release(world->packets, index);
}

void pls_sim_drive_send_held(pls_sim_world *world, uint32_t node)
{
    while (world->nodes[node].held_count > 0) {
        uint32_t index = held_pop(world, node);
        uint32_t to = listener_at(world, pls_sim_packet_at(world->packets, index)->to);
        if (to == PLS_SIM_NOBODY) {
            packet_unheard(world, index);
        } else {
            transmit(world, node, to, index);
        }
    }
}

static void send(pls_sim_world *world, uint32_t from, const pls_action *action)
{
    uint32_t address = pls_sim_address_number(action->address, action->address_bytes);
    world->traffic.packets_sent++;
    world->traffic.bytes_sent += action->len;
    pls_sim_drive_trace(world, (uint64_t)from << 32 | address);
    trace_bytes(world, action->bytes, action->len);
    if (action->len <= PLS_SIM_TAP_BYTES) {
        memcpy(world->tap, action->bytes, action->len);
        world->tap_len = action->len;
    }
    uint32_t to = listener_at(world, address);
    if (to == PLS_SIM_NOBODY) {
        refusal(world, from, address, action->member);
        world->traffic.packets_unheard++;
        world->traffic.bytes_unheard += action->len;
        return;
    }
    connection_note(world, from, to, true);
    uint32_t index = pls_sim_packet_take(world->packets, action->bytes, action->len);
    pls_sim_packet *packet = pls_sim_packet_at(world->packets, index);
    packet->from = world->nodes[from].address;
    packet->to = address;
    if (world->nodes[from].pause_count > 0) {
        held_push(world, from, index);
    } else {
        transmit(world, from, to, index);
    }
}

static void action_done(pls_sim_world *world, uint32_t node, const pls_action *action)
{
    if (action->kind == PLS_ACTION_SEND) {
        send(world, node, action);
        return;
    }
    uint32_t address = pls_sim_address_number(action->address, action->address_bytes);
    pls_sim_drive_trace(world, (uint64_t)action->kind << 40 | (uint64_t)action->event << 32 |
                                   action->member);
    pls_sim_drive_trace(world, action->incarnation ^ action->value);
    if (action->kind == PLS_ACTION_DROP && address < world->address_count) {
        connection_note(world, node, world->address_node[address], false);
    }
    if (world->checker != NULL) {
        pls_sim_check_action(world->checker, node, action);
    }
    if (world->watcher != NULL) {
        world->watcher(world, node, action, world->watcher_context);
    }
}

void pls_sim_world_settle(pls_sim_world *world, uint32_t node)
{
    pls_sim_node *n = &world->nodes[node];
    pls_action action;
    while (n->gossip != NULL && pls_gossip_next_action(n->gossip, &action) == PLS_OK) {
        action_done(world, node, &action);
    }
    pls_sim_drive_arm(world, node);
    if (world->checker != NULL) {
        pls_sim_check_touched(world->checker, node);
    }
}

static bool node_is_free(const pls_sim_world *world, uint32_t node)
{
    const pls_sim_node *n = &world->nodes[node];
    return n->pause_count == 0 && n->busy_until_ns <= world->now_ns;
}

/* A slow node is busy for a while after each input. */
static void become_busy(pls_sim_world *world, uint32_t node)
{
    pls_sim_node *n = &world->nodes[node];
    if (n->service_ns == 0 || n->gossip == NULL) {
        return;
    }
    n->busy_until_ns = world->now_ns + 1 + pls_rng_next(&world->rng) % (2 * n->service_ns);
    pls_sim_heap_push(&world->heap, n->busy_until_ns, PLS_SIM_EVENT_READY, node, 0);
}

static uint32_t address_write(uint32_t number, char text[32])
{
    char digits[12];
    uint32_t digit_count = 0;
    uint32_t len = sizeof PLS_SIM_ADDRESS_PREFIX - 1;
    memcpy(text, PLS_SIM_ADDRESS_PREFIX, len);
    do {
        digits[digit_count++] = (char)('0' + number % 10);
        number /= 10;
    } while (number > 0);
    while (digit_count > 0) {
        text[len++] = digits[--digit_count];
    }
    return len;
}

static void deliver(pls_sim_world *world, uint32_t node, uint32_t index)
{
    pls_sim_node *n = &world->nodes[node];
    pls_sim_packet *packet = pls_sim_packet_at(world->packets, index);
    char from[32];
    uint32_t from_bytes = address_write(packet->from, from);
    world->traffic.packets_delivered++;
    world->traffic.bytes_delivered += packet->len;
    (void)pls_gossip_receive(n->gossip, packet->bytes, packet->len, from, from_bytes,
                             pls_sim_world_clock(world, node));
    pls_sim_packet_release(world->packets, index);
    pls_sim_world_settle(world, node);
    become_busy(world, node);
}

static void input_push(pls_sim_world *world, uint32_t node, uint32_t index)
{
    pls_sim_node *n = &world->nodes[node];
    if (n->input_count == INPUT_PACKETS_MAX) {
        packet_unheard(world, index);
        return;
    }
    if (n->input_count == 0) {
        n->input_head = index;
    } else {
        pls_sim_packet_at(world->packets, n->input_tail)->next = index;
    }
    n->input_tail = index;
    n->input_count++;
}

static uint32_t input_pop(pls_sim_world *world, uint32_t node)
{
    pls_sim_node *n = &world->nodes[node];
    pls_assert(n->input_count > 0);
    uint32_t index = n->input_head;
    n->input_head = pls_sim_packet_at(world->packets, index)->next;
    n->input_count--;
    return index;
}

void pls_sim_drive_forget_packets(pls_sim_world *world, uint32_t node)
{
    while (world->nodes[node].held_count > 0) {
        packet_unheard(world, held_pop(world, node));
    }
    while (world->nodes[node].input_count > 0) {
        packet_unheard(world, input_pop(world, node));
    }
}

static void arrive(pls_sim_world *world, uint32_t node, uint32_t index)
{
    const pls_sim_node *n = &world->nodes[node];
    if (n->gossip == NULL || pls_sim_packet_at(world->packets, index)->to != n->address) {
        packet_unheard(world, index);
    } else if (!node_is_free(world, node) || n->input_count > 0) {
        input_push(world, node, index);
    } else {
        deliver(world, node, index);
    }
}

static void advance(pls_sim_world *world, uint32_t node)
{
    (void)pls_gossip_advance(world->nodes[node].gossip, pls_sim_world_clock(world, node));
    pls_sim_world_settle(world, node);
    become_busy(world, node);
}

/* One turn of a node's loop: the packets that had come when it began, then what is due. A node that
 * is busy after an input goes on with the same turn when it is free again. */
void pls_sim_drive_catch_up(pls_sim_world *world, uint32_t node)
{
    pls_sim_node *n = &world->nodes[node];
    while (n->gossip != NULL && node_is_free(world, node)) {
        if (n->turn_count > 0 && n->input_count > 0) {
            n->turn_count--;
            deliver(world, node, input_pop(world, node));
            continue;
        }
        bool due = n->clock_stopped_ns == 0 &&
                   pls_gossip_deadline(n->gossip) <= pls_sim_world_clock(world, node);
        n->turn_count = n->input_count;
        if (due) {
            advance(world, node);
        } else if (n->input_count == 0) {
            break;
        }
    }
    pls_sim_drive_arm(world, node);
}

static void wake(pls_sim_world *world, uint32_t node, uint64_t at_ns)
{
    pls_sim_node *n = &world->nodes[node];
    if (n->gossip == NULL || n->wake_ns != at_ns) {
        return;
    }
    n->wake_ns = PLS_SIM_NEVER;
    bool unheard = n->pause_count > 0 && !stands_still(world, node);
    if ((!node_is_free(world, node) && !unheard) || n->clock_stopped_ns > 0) {
        return;
    }
    if (pls_gossip_deadline(n->gossip) > pls_sim_world_clock(world, node)) {
        pls_sim_drive_arm(world, node);
        return;
    }
    if (unheard) {
        n->stuck = world->setup.stall == PLS_SIM_STALL_IN_SEND;
        advance(world, node);
        return;
    }
    pls_sim_drive_catch_up(world, node);
}

static void hint(pls_sim_world *world, uint32_t node, pls_member member, bool refused)
{
    pls_sim_node *n = &world->nodes[node];
    if (n->gossip == NULL || n->pause_count > 0) {
        return;
    }
    uint64_t clock_ns = pls_sim_world_clock(world, node);
    if (!refused) {
        (void)pls_gossip_disconnected(n->gossip, member, clock_ns);
        pls_sim_world_settle(world, node);
        pls_sim_heap_push(&world->heap, world->now_ns + REFUSED_AFTER_NS, PLS_SIM_EVENT_REFUSED,
                          node, member);
    } else if (pls_sim_world_node_of(world, member) == PLS_SIM_NOBODY) {
        (void)pls_gossip_refused(n->gossip, member, clock_ns);
        pls_sim_world_settle(world, node);
    }
}

void pls_sim_world_disconnected(pls_sim_world *world, uint32_t node, pls_member member)
{
    pls_sim_heap_push(&world->heap, world->now_ns + BROKEN_AFTER_NS, PLS_SIM_EVENT_BROKEN, node,
                      member);
}

void pls_sim_world_call(pls_sim_world *world, uint64_t at_ns, uint32_t value)
{
    pls_sim_heap_push(&world->heap, at_ns, PLS_SIM_EVENT_CALL, PLS_SIM_NOBODY, value);
}

bool pls_sim_world_step(pls_sim_world *world)
{
    pls_sim_event event;
    if (!pls_sim_heap_pop(&world->heap, &event)) {
        return false;
    }
    pls_assert(event.at_ns >= world->now_ns);
    world->crowd_count = event.at_ns == world->now_ns ? world->crowd_count + 1 : 0;
    pls_assert(world->crowd_count < WAKES_AT_ONCE_MAX + world->node_count);
    world->now_ns = event.at_ns;
    world->event_count++;
    switch (pls_sim_event_kind(&event)) {
    case PLS_SIM_EVENT_ARRIVE:
        pls_sim_drive_trace(world, event.at_ns);
        arrive(world, event.node, event.value);
        break;
    case PLS_SIM_EVENT_WAKE:
        wake(world, event.node, event.at_ns);
        break;
    case PLS_SIM_EVENT_READY:
        if (world->nodes[event.node].busy_until_ns == event.at_ns) {
            pls_sim_drive_catch_up(world, event.node);
        }
        break;
    case PLS_SIM_EVENT_BROKEN:
    case PLS_SIM_EVENT_REFUSED:
        hint(world, event.node, event.value, pls_sim_event_kind(&event) == PLS_SIM_EVENT_REFUSED);
        break;
    default:
        world->callback(world, event.value, world->callback_context);
        break;
    }
    return true;
}

void pls_sim_world_run_until(pls_sim_world *world, uint64_t at_ns)
{
    while (world->heap.event_count > 0 && world->heap.events[0].at_ns <= at_ns) {
        (void)pls_sim_world_step(world);
    }
    pls_assert(world->now_ns <= at_ns);
    world->now_ns = at_ns;
}
