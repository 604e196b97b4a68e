/* SPDX-License-Identifier: Apache-2.0 */
/* The world: nodes, who listens at which address, which identity is whose, and everything that can
 * be done to a node. All nodes share one pool of identities, so that a member's number means the
 * same on all of them and ten thousand tables fit into a gigabyte. The scenarios and the campaign
 * call these functions; drive.c handles the events in between. */
#include "tests/sim/world.h"

#include "base/assert.h"
#include "tests/sim/check.h"
#include "tests/sim/drive.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Nodes with hints on know of each pair whether it is connected: a byte a pair. */
enum { HINT_NODES_MAX = 256 };

/* Members learned between two looks at the actions: what they announce stays small. */
enum { DRAIN_MEMBERS = 16 };

/* The clocks of any two nodes differ by hours, as those of two hosts do. */
#define CLOCK_OFFSET_NS_MAX (UINT64_C(100000) * PLS_SIM_S)

static void *zeroed(size_t count, size_t size)
{
    void *memory = calloc(count == 0 ? 1 : count, size);
    pls_assert(memory != NULL);
    return memory;
}

pls_sim_setup pls_sim_setup_of(uint64_t seed, uint32_t node_count)
{
    pls_sim_setup setup = {.seed = seed, .node_count = node_count, .seed_count = 1};
    pls_gossip_config_defaults(&setup.gossip);
    setup.gossip.cluster = "sim";
    return setup;
}

pls_sim_world *pls_sim_world_create(const pls_sim_setup *setup)
{
    pls_assert(setup->node_count >= 1);
    pls_assert(setup->seed_count <= setup->node_count);
    pls_sim_world *world = zeroed(1, sizeof *world);
    world->setup = *setup;
    world->node_count = setup->node_count;
    world->trace_hash = setup->seed;
    pls_sim_heap_init(&world->heap);
    pls_sim_net_init(&world->net, setup->seed ^ UINT64_C(0x6e6574));
    pls_rng_init(&world->rng, setup->seed ^ UINT64_C(0x776f726c64));
    world->packets = pls_sim_packets_create();
    pls_err err = pls_identities_create(NULL, &world->pool);
    pls_assert(err == PLS_OK);
    world->nodes = zeroed(world->node_count, sizeof *world->nodes);
    world->address_count = world->node_count;
    world->address_node = zeroed(world->address_count, sizeof *world->address_node);
    world->address_host = zeroed(world->address_count, sizeof *world->address_host);
    for (uint32_t i = 0; i < world->node_count; i++) {
        world->nodes[i].address = i;
        world->nodes[i].self = PLS_MEMBER_NONE;
        world->address_node[i] = PLS_SIM_NOBODY;
        world->address_host[i] = i;
    }
    if (setup->hints) {
        pls_assert(world->node_count <= HINT_NODES_MAX);
        world->connected = zeroed((size_t)world->node_count * world->node_count, 1);
    }
    return world;
}

static void counters_add(pls_gossip_counters *sum, const pls_gossip_counters *more)
{
#define COUNTER_ADD(name, text) sum->name += more->name;
    PLS_GOSSIP_COUNTERS(COUNTER_ADD)
#undef COUNTER_ADD
}

pls_gossip_counters pls_sim_world_counters(const pls_sim_world *world)
{
    pls_gossip_counters sum = world->retired;
    for (uint32_t i = 0; i < world->node_count; i++) {
        if (world->nodes[i].gossip != NULL) {
            counters_add(&sum, pls_gossip_count(world->nodes[i].gossip));
        }
    }
    return sum;
}

static void member_set(pls_sim_world *world, pls_member member, uint32_t node)
{
    if (member >= world->member_count) {
        uint32_t count = pls_identities_limit(world->pool);
        pls_assert(member < count);
        uint32_t *member_node = realloc(world->member_node, count * sizeof *member_node);
        pls_assert(member_node != NULL);
        for (uint32_t i = world->member_count; i < count; i++) {
            member_node[i] = PLS_SIM_NOBODY;
        }
        world->member_node = member_node;
        world->member_count = count;
    }
    world->member_node[member] = node;
}

/* The texts of a node's identity; `name` and `address` are the caller's memory. */
static pls_identity identity_of(const pls_sim_world *world, uint32_t node, char name[32],
                                char address[32])
{
    const pls_sim_node *n = &world->nodes[node];
    pls_identity identity = {.generation = n->generation, .name = name, .address = address};
    identity.name_bytes = (uint32_t)snprintf(name, 32, "n%u", node);
    identity.address_bytes =
        (uint32_t)snprintf(address, 32, PLS_SIM_ADDRESS_PREFIX "%u", n->address);
    return identity;
}

/* Gives a stopped node its next generation. */
static void node_acquire(pls_sim_world *world, uint32_t node)
{
    pls_sim_node *n = &world->nodes[node];
    pls_assert(n->gossip == NULL);
    char name[32];
    char address[32];
    n->generation++;
    pls_identity identity = identity_of(world, node, name, address);
    pls_err err = pls_identities_acquire(world->pool, &identity, &n->self);
    pls_assert(err == PLS_OK);
    member_set(world, n->self, node);
}

/* Makes the instance of a node that has acquired its generation; it has not joined yet. */
static void node_create(pls_sim_world *world, uint32_t node)
{
    pls_sim_node *n = &world->nodes[node];
    char name[32];
    char address[32];
    n->clock_offset_ns = pls_rng_next(&world->rng) % CLOCK_OFFSET_NS_MAX;
    n->clock_stopped_ns = 0;
    n->wake_ns = PLS_SIM_NEVER;
    n->busy_until_ns = 0;
    n->turn_count = 0;
    pls_gossip_config config = world->setup.gossip;
    config.self = identity_of(world, node, name, address);
    config.seed = pls_rng_next(&world->rng);
    pls_err err =
        pls_gossip_create(&config, world->pool, pls_sim_world_clock(world, node), &n->gossip);
    pls_assert(err == PLS_OK);
    world->address_node[n->address] = node;
    world->running_count++;
    if (world->checker != NULL) {
        pls_sim_check_started(world->checker, node);
    }
}

static void node_join(pls_sim_world *world, uint32_t node, uint32_t seed_count)
{
    char texts[PLS_SEEDS_MAX][32];
    pls_seed seeds[PLS_SEEDS_MAX];
    pls_assert(seed_count <= PLS_SEEDS_MAX);
    for (uint32_t i = 0; i < seed_count; i++) {
        seeds[i].address_bytes = (uint32_t)snprintf(
            texts[i], sizeof texts[i], PLS_SIM_ADDRESS_PREFIX "%u", world->nodes[i].address);
        seeds[i].address = texts[i];
    }
    pls_err err = pls_gossip_join(world->nodes[node].gossip, seeds, seed_count,
                                  pls_sim_world_clock(world, node));
    pls_assert(err == PLS_OK);
}

void pls_sim_world_start(pls_sim_world *world, uint32_t node)
{
    node_acquire(world, node);
    node_create(world, node);
    node_join(world, node, world->setup.seed_count);
    pls_sim_world_settle(world, node);
}

static void node_learn_all(pls_sim_world *world, uint32_t node)
{
    pls_sim_node *n = &world->nodes[node];
    for (uint32_t i = 0; i < world->node_count; i++) {
        if (i != node) {
            pls_identity identity = pls_identities_get(world->pool, world->nodes[i].self);
            pls_err err =
                pls_gossip_learn(n->gossip, &identity, 1, pls_sim_world_clock(world, node));
            pls_assert(err == PLS_OK);
        }
        if (i % DRAIN_MEMBERS == 0) {
            pls_sim_world_settle(world, node);
        }
    }
}

void pls_sim_world_start_acquainted(pls_sim_world *world)
{
    for (uint32_t i = 0; i < world->node_count; i++) {
        node_acquire(world, i);
    }
    for (uint32_t i = 0; i < world->node_count; i++) {
        node_create(world, i);
    }
    for (uint32_t i = 0; i < world->node_count; i++) {
        node_join(world, i, world->setup.acquainted_seeds ? world->setup.seed_count : 0);
        node_learn_all(world, i);
        pls_sim_world_settle(world, i);
    }
}

/* With hints on, the kernels of all that were connected to the node tell them. */
static void peers_notice(pls_sim_world *world, uint32_t node)
{
    for (uint32_t i = 0; i < world->node_count; i++) {
        size_t from_peer = (size_t)i * world->node_count + node;
        size_t to_peer = (size_t)node * world->node_count + i;
        bool connected = world->connected[from_peer] || world->connected[to_peer];
        world->connected[from_peer] = 0;
        world->connected[to_peer] = 0;
        if (connected && i != node) {
            pls_sim_world_disconnected(world, i, world->nodes[node].self);
        }
    }
}

void pls_sim_world_crash(pls_sim_world *world, uint32_t node, bool host_lives)
{
    pls_sim_node *n = &world->nodes[node];
    if (n->gossip == NULL) {
        return;
    }
    if (world->connected != NULL) {
        n->host_lives = host_lives;
        if (host_lives) {
            peers_notice(world, node);
        }
    }
    if (world->checker != NULL) {
        pls_sim_check_stopped(world->checker, node);
    }
    counters_add(&world->retired, pls_gossip_count(n->gossip));
    pls_gossip_destroy(n->gossip);
    n->gossip = NULL;
    pls_identities_release(world->pool, n->self);
    n->self = PLS_MEMBER_NONE;
    pls_sim_drive_forget_packets(world, node);
    world->address_node[n->address] = PLS_SIM_NOBODY;
    world->running_count--;
}

void pls_sim_world_destroy(pls_sim_world *world)
{
    if (world == NULL) {
        return;
    }
    world->checker = NULL;
    for (uint32_t i = 0; i < world->node_count; i++) {
        pls_sim_world_crash(world, i, false);
    }
    pls_identities_destroy(world->pool);
    pls_sim_packets_destroy(world->packets);
    pls_sim_heap_fini(&world->heap);
    free(world->connected);
    free(world->member_node);
    free(world->address_host);
    free(world->address_node);
    free(world->nodes);
    free(world);
}

static uint32_t *numbers_longer(uint32_t *numbers, uint32_t count, uint32_t last)
{
    uint32_t *longer = realloc(numbers, (count + 1) * sizeof *longer);
    pls_assert(longer != NULL);
    longer[count] = last;
    return longer;
}

void pls_sim_world_move(pls_sim_world *world, uint32_t node)
{
    pls_assert(world->nodes[node].gossip == NULL);
    uint32_t count = world->address_count++;
    world->address_node = numbers_longer(world->address_node, count, PLS_SIM_NOBODY);
    world->address_host = numbers_longer(world->address_host, count, node);
    world->nodes[node].address = count;
}

void pls_sim_world_leave(pls_sim_world *world, uint32_t node)
{
    pls_sim_node *n = &world->nodes[node];
    if (n->gossip != NULL) {
        (void)pls_gossip_leave(n->gossip, pls_sim_world_clock(world, node));
        pls_sim_world_settle(world, node);
    }
}

void pls_sim_world_pause(pls_sim_world *world, uint32_t node)
{
    world->nodes[node].pause_count++;
}

void pls_sim_world_resume(pls_sim_world *world, uint32_t node)
{
    pls_sim_node *n = &world->nodes[node];
    pls_assert(n->pause_count > 0);
    if (--n->pause_count > 0) {
        return;
    }
    n->stuck = false;
    n->turn_count = world->setup.stall == PLS_SIM_STALL_IN_SEND ? 0 : n->input_count;
    pls_sim_drive_send_held(world, node);
    pls_sim_drive_catch_up(world, node);
}

void pls_sim_world_slow(pls_sim_world *world, uint32_t node, uint64_t service_ns)
{
    world->nodes[node].service_ns = service_ns;
}

void pls_sim_world_clock_jump(pls_sim_world *world, uint32_t node, uint64_t jump_ns)
{
    pls_sim_node *n = &world->nodes[node];
    if (n->clock_stopped_ns > 0) {
        n->clock_stopped_ns += jump_ns;
        return;
    }
    n->clock_offset_ns += jump_ns;
    pls_sim_drive_catch_up(world, node);
}

void pls_sim_world_clock_stop(pls_sim_world *world, uint32_t node)
{
    pls_sim_node *n = &world->nodes[node];
    if (n->clock_stopped_ns == 0) {
        n->clock_stopped_ns = world->now_ns + n->clock_offset_ns + 1;
    }
}

void pls_sim_world_clock_go(pls_sim_world *world, uint32_t node)
{
    pls_sim_node *n = &world->nodes[node];
    if (n->clock_stopped_ns > 0) {
        n->clock_offset_ns = n->clock_stopped_ns - world->now_ns;
        n->clock_stopped_ns = 0;
        pls_sim_drive_catch_up(world, node);
    }
}

void pls_sim_world_forge(pls_sim_world *world, uint32_t node, const void *bytes, size_t len)
{
    pls_sim_node *n = &world->nodes[node];
    if (n->gossip == NULL || n->pause_count > 0) {
        return;
    }
    world->traffic.packets_forged++;
    world->traffic.bytes_forged += len;
    world->traffic.packets_delivered++;
    world->traffic.bytes_delivered += len;
    (void)pls_gossip_receive(n->gossip, bytes, len, "", 0, pls_sim_world_clock(world, node));
    pls_sim_world_settle(world, node);
}
