/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PLS_GOSSIP_STATE_H
#define PLS_GOSSIP_STATE_H

#include "base/rng.h"
#include "gossip/gossip.h"
#include "gossip/heap.h"
#include "gossip/members.h"
#include "gossip/outbox.h"
#include "gossip/probe.h"
#include "gossip/queue.h"
#include "gossip/registry.h"
#include "gossip/relay.h"
#include "gossip/suspicion.h"
#include "gossip/sync.h"

/* Threads: owner thread for every function of this header; none blocks. */

/* The whole instance: each part is one noun of this room, in its own file. */
struct pls_gossip {
    pls_heap heap;
    pls_identities *pool;
    bool pool_is_mine;
    pls_gossip_config config; /* its pointers are NULL after create */
    uint32_t cluster;
    pls_member self;
    uint64_t self_key;
    pls_rng rng;
    uint64_t now_ns;
    uint64_t deadline_ns;
    uint64_t late_ns;      /* that what is due has waited, as far as no stall was made of it */
    uint64_t gossip_ns;    /* when the queue is told to others next; UINT64_MAX when empty */
    uint64_t gossip_phase; /* of the gossip interval's grid */
    bool joined;
    bool leaving;
    bool left_told;
    bool isolated;
    bool conflict_told;
    bool accused_before; /* the packet in hand accuses me of what I have refuted already */
    uint64_t sender;     /* key of the packet in hand, 0 outside of one */
    pls_err err;         /* the first failure of the input in hand */
    pls_members members;
    pls_suspicions suspicions;
    pls_queue queue;
    pls_probes probes;
    pls_relays relays;
    pls_walk gossip_walk;    /* whom I gossip to */
    uint32_t isolation_live; /* live members when I became isolated */
    pls_sync sync;
    pls_registry registry;
    pls_outbox outbox;
    pls_gossip_counters counters;
};

static inline uint64_t pls_gossip_key_of(const pls_gossip *gossip, pls_member member)
{
    return pls_identities_key(gossip->pool, member);
}

/* Every input begins and ends with these: the clock, the outbox, the deadline.
 * Errors:  the given one, else the first of the input's own failures. */
void pls_gossip_input_begin(pls_gossip *gossip, uint64_t now_ns);
pls_err pls_gossip_input_end(pls_gossip *gossip, pls_err err);

/* Something waits in a queue: gossip at the next point of the grid. */
void pls_gossip_wake(pls_gossip *gossip);

#endif
