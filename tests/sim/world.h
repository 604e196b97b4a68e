/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PLS_SIM_WORLD_H
#define PLS_SIM_WORLD_H

#include "gossip/gossip.h"
#include "tests/sim/heap.h"
#include "tests/sim/net.h"
#include "tests/sim/packet.h"

#include <stdbool.h>
#include <stdint.h>

#define PLS_SIM_MS UINT64_C(1000000)
#define PLS_SIM_S UINT64_C(1000000000)
#define PLS_SIM_NEVER UINT64_MAX
#define PLS_SIM_NOBODY UINT32_MAX
#define PLS_SIM_TAP_BYTES 256

/* One node: a gossip instance, its clock, its input queue and what ails it. */
typedef struct pls_sim_node {
    pls_gossip *gossip; /* NULL: not running */
    pls_member self;    /* held while it runs */
    uint64_t generation;
    uint64_t clock_offset_ns;  /* its clock is the world's plus this */
    uint64_t clock_stopped_ns; /* where its clock stands; 0: it runs */
    uint64_t wake_ns;          /* the one wake event that counts; PLS_SIM_NEVER: none */
    uint64_t busy_until_ns;
    uint64_t service_ns; /* mean time to handle one input; 0: none */
    uint32_t input_head;
    uint32_t input_tail;
    uint32_t input_count;
    uint32_t turn_count; /* packets that its loop reads before it does what is due */
    uint32_t held_head;  /* packets that wait for the end of a stall to be sent */
    uint32_t held_tail;
    uint32_t held_count;
    uint64_t burst_sent_ns; /* when it sent last, */
    uint64_t burst_come_ns; /* when that arrives, */
    uint32_t burst_to;      /* and to whom */
    uint32_t address;
    uint32_t pause_count; /* pauses that hold it now */
    uint8_t side;
    bool host_lives; /* while it does not run: its host refuses connections */
    bool stuck;      /* it stands still and has come to its deadline */
    bool odd;        /* marked by a measurement: a slow node, a victim */
} pls_sim_node;

/* Every packet and byte is in exactly one of these; a duplicate counts as sent by the network. */
typedef struct pls_sim_traffic {
    uint64_t packets_sent;
    uint64_t bytes_sent;
    uint64_t packets_duplicated;
    uint64_t bytes_duplicated;
    uint64_t packets_delivered;
    uint64_t bytes_delivered;
    uint64_t packets_lost; /* by the network */
    uint64_t bytes_lost;
    uint64_t packets_unheard; /* nobody at the address, or its queue is full */
    uint64_t bytes_unheard;
    uint64_t packets_forged; /* nonsense that a fault sent */
    uint64_t bytes_forged;
} pls_sim_traffic;

/* What stands still in a paused node. */
typedef enum pls_sim_stall {
    PLS_SIM_STALL_WHOLE = 0, /* everything */
    PLS_SIM_STALL_IN_SEND,   /* everything, from the sends of its next deadline on */
    PLS_SIM_STALL_NETWORK    /* its packets, both ways; its timers run */
} pls_sim_stall;

typedef struct pls_sim_setup {
    uint64_t seed;
    uint32_t node_count;
    uint32_t seed_count;   /* the first so many nodes are everybody's seeds */
    bool acquainted_seeds; /* nodes that know all others from the start have seeds too */
    pls_sim_stall stall;   /* what a pause is */
    bool hints;            /* broken and refused connections are told, up to 256 nodes */
    pls_gossip_config gossip;
} pls_sim_setup;

typedef struct pls_sim_world pls_sim_world;
typedef struct pls_sim_checker pls_sim_checker;

/* Called for each action other than a send, before the instance gets another input. */
typedef void (*pls_sim_watcher)(pls_sim_world *world, uint32_t node, const pls_action *action,
                                void *context);

/* Called at the moment that pls_sim_world_call() asked for. */
typedef void (*pls_sim_callback)(pls_sim_world *world, uint32_t value, void *context);

struct pls_sim_world {
    pls_sim_setup setup;
    uint64_t now_ns;
    uint64_t event_count;
    uint64_t crowd_count; /* events in a row at one moment */
    uint64_t trace_hash;
    pls_sim_heap heap;
    pls_sim_net net;
    pls_sim_packets *packets;
    pls_identities *pool;
    pls_rng rng;
    pls_sim_node *nodes;
    uint32_t node_count;
    uint32_t running_count;
    uint32_t *address_node; /* who listens there, PLS_SIM_NOBODY without one */
    uint32_t *address_host; /* whose address it is or was */
    uint32_t address_count;
    uint32_t *member_node; /* by member number: who ran as that last */
    uint32_t member_count;
    uint8_t *connected;             /* node x node, with hints alone */
    uint8_t tap[PLS_SIM_TAP_BYTES]; /* the last small packet that anybody sent */
    uint32_t tap_len;
    pls_sim_traffic traffic;
    pls_gossip_counters retired; /* of the instances that are gone */
    pls_sim_watcher watcher;
    void *watcher_context;
    pls_sim_callback callback;
    void *callback_context;
    pls_sim_checker *checker; /* NULL: nothing is checked after events */
};

/* A setup with the protocol's defaults, one seed node and no hints.
 * Threads: any thread; never blocks. */
pls_sim_setup pls_sim_setup_of(uint64_t seed, uint32_t node_count);

/* A world at time 0 in which no node runs. Running out of memory aborts, here and below.
 * Owns:    gives the world; pls_sim_world_destroy() ends it.
 * Threads: owner thread for this and all functions below. */
pls_sim_world *pls_sim_world_create(const pls_sim_setup *setup);

/* Frees the world and all its nodes; accepts NULL. */
void pls_sim_world_destroy(pls_sim_world *world);

/* Starts a stopped node as a new generation; it joins through the seeds. */
void pls_sim_world_start(pls_sim_world *world, uint32_t node);

/* Starts all nodes at once, each of which knows all others already. */
void pls_sim_world_start_acquainted(pls_sim_world *world);

/* Stops a node without a word. `host_lives`: with hints on, its peers' kernels notice.
 * A node that does not run is left alone. */
void pls_sim_world_crash(pls_sim_world *world, uint32_t node, bool host_lives);

/* Gives a stopped node another address, which nobody has had. */
void pls_sim_world_move(pls_sim_world *world, uint32_t node);

/* Lets a running node say that it leaves; it goes on until it is stopped. */
void pls_sim_world_leave(pls_sim_world *world, uint32_t node);

/* From now on a node stands still: its input waits in its queue. Pauses add up. If it stalls in a
 * send it first comes to its next deadline, and what it sends then waits too; if its network
 * stalls it comes to all its deadlines. */
void pls_sim_world_pause(pls_sim_world *world, uint32_t node);

/* Ends one pause. The node first sends what had waited, reads its queue, and does what its clock
 * says is due; one that stalled in a send does what is due before it reads. */
void pls_sim_world_resume(pls_sim_world *world, uint32_t node);

/* Every input of the node takes this long to handle on average; 0 ends it. */
void pls_sim_world_slow(pls_sim_world *world, uint32_t node, uint64_t service_ns);

/* The node's clock jumps ahead. */
void pls_sim_world_clock_jump(pls_sim_world *world, uint32_t node, uint64_t jump_ns);

/* The node's clock stands, or goes on from where it stood. */
void pls_sim_world_clock_stop(pls_sim_world *world, uint32_t node);
void pls_sim_world_clock_go(pls_sim_world *world, uint32_t node);

/* Sends bytes of no node to a running node at once. */
void pls_sim_world_forge(pls_sim_world *world, uint32_t node, const void *bytes, size_t len);

/* Tells a node that its connection to a member broke, whether true or not. */
void pls_sim_world_disconnected(pls_sim_world *world, uint32_t node, pls_member member);

/* To be called after any call on a node's gossip instance outside of the world's own: takes its
 * actions, sets its alarm and has it checked. */
void pls_sim_world_settle(pls_sim_world *world, uint32_t node);

/* A node's own clock now. */
uint64_t pls_sim_world_clock(const pls_sim_world *world, uint32_t node);

/* Calls the world's callback with `value` at a moment. */
void pls_sim_world_call(pls_sim_world *world, uint64_t at_ns, uint32_t value);

/* Handles the next event; false when there is none. */
bool pls_sim_world_step(pls_sim_world *world);

/* Handles everything up to and including a moment, which it is then. */
void pls_sim_world_run_until(pls_sim_world *world, uint64_t at_ns);

/* The node that runs as `member`, PLS_SIM_NOBODY when nobody does (any more). */
uint32_t pls_sim_world_node_of(const pls_sim_world *world, pls_member member);

/* The node whose identity this is, of whatever generation; PLS_SIM_NOBODY when it is none of ours.
 */
uint32_t pls_sim_world_owner(const pls_sim_world *world, const pls_identity *identity);

/* All counters of all instances, gone ones too, added up. */
pls_gossip_counters pls_sim_world_counters(const pls_sim_world *world);

#endif
