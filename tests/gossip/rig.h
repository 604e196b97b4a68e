/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PLS_TESTS_GOSSIP_RIG_H
#define PLS_TESTS_GOSSIP_RIG_H

#include "gossip/gossip.h"
#include "gossip/names.h"
#include "gossip/packet.h"

#include <check.h>

/* A few instances and the packets between them, in virtual time, for tests that look at single
 * steps. Names are "n0", "n1" and so on, addresses "a0" and so on. Everything is asserted with
 * Check's own macros; every input is followed by pls_gossip_check. */

#define RIG_NODES_MAX 40
#define RIG_PACKETS_MAX 65536
#define RIG_EVENTS_MAX 8192
#define RIG_MS UINT64_C(1000000)
#define RIG_SECOND UINT64_C(1000000000)

typedef struct rig_packet {
    uint64_t at_ns;
    uint32_t from;
    uint32_t to;
    uint32_t len;
    uint8_t bytes[PLS_PACKET_BYTES_MIN];
} rig_packet;

/* What one node was told. */
typedef struct rig_event {
    uint64_t at_ns;
    uint32_t node;
    pls_action_kind kind;
    pls_gossip_event event;
    pls_member member;
    pls_member other;
    uint64_t incarnation;
    uint64_t value;
    char name[32];
} rig_event;

typedef struct rig {
    pls_identities *pool;
    pls_gossip *nodes[RIG_NODES_MAX]; /* NULL: not running */
    pls_member members[RIG_NODES_MAX];
    uint32_t node_count;
    uint64_t now_ns;
    uint64_t latency_ns;
    pls_gossip_config config;                                        /* of nodes to come */
    bool (*lets)(const struct rig *rig, uint32_t from, uint32_t to); /* NULL: everything passes */
    uint32_t cut;        /* for `lets` functions of the tests */
    rig_packet *packets; /* by time */
    uint32_t packet_count;
    rig_event *events;
    uint32_t event_count;
    uint64_t packets_sent;
} rig;

rig *rig_create(void);
void rig_destroy(rig *r);

/* Start a node of a generation at address "a<place>", under the name "n<place>". */
void rig_start(rig *r, uint32_t node, uint64_t generation);
void rig_stop(rig *r, uint32_t node);

/* Start `count` nodes that know each other, or that join through node 0. */
void rig_warm(rig *r, uint32_t count);
void rig_join(rig *r, uint32_t count);

/* Let time pass. */
void rig_run(rig *r, uint64_t for_ns);

/* Take the actions of one node: packets on their way, events into the list. */
void rig_drain(rig *r, uint32_t node);

/* Give bytes to a node as if they came from another's address, now. */
pls_err rig_give(rig *r, uint32_t to, uint32_t from, const void *bytes, size_t len);

/* Give one message, or two in one packet, from a node to another. */
void rig_say(rig *r, uint32_t from, uint32_t to, const pls_message *message);
size_t rig_pack(const rig *r, uint32_t from, const pls_message *message, uint8_t *bytes);

/* A full record of a node as another would gossip it. */
pls_message rig_record(const rig *r, uint32_t node, uint64_t incarnation);

pls_member_state rig_state(const rig *r, uint32_t node, uint32_t of);
uint64_t rig_incarnation(const rig *r, uint32_t node, uint32_t of);
uint64_t rig_key(const rig *r, uint32_t node);

/* Events of a kind that `node` was told of `of` (its present member number). */
uint32_t rig_events(const rig *r, uint32_t node, pls_gossip_event event, uint32_t of);
uint32_t rig_events_all(const rig *r, pls_gossip_event event);
void rig_forget_events(rig *r);

/* Whether every running node holds every running node as alive and has the same digest. */
bool rig_agrees(const rig *r);

/* Packets on their way to a node whose messages include `kind`. */
uint32_t rig_under_way(const rig *r, uint32_t to, uint32_t kind);

pls_gossip_counters rig_counters(const rig *r, uint32_t node);

/* Names: register, remove (drained), look up one hit, events of a name. */
pls_err rig_put(rig *r, uint32_t node, const char *name, uint64_t value, bool unique);
pls_err rig_remove(rig *r, uint32_t node, const char *name);
uint32_t rig_find(const rig *r, uint32_t node, const char *name, pls_name_hit *hit);
uint32_t rig_told(const rig *r, uint32_t node, pls_gossip_event event, const char *name);

/* A filter for `lets` that cuts off the node `cut`. */
bool rig_lets_all_but_one(const rig *r, uint32_t from, uint32_t to);

#endif
