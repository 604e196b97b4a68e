/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PLS_TESTS_ZMQ_TRANSPORT_RIG_H
#define PLS_TESTS_ZMQ_TRANSPORT_RIG_H

#include "base/rng.h"
#include "zmq_transport/state.h"
#include "zmq_transport/transport.h"

#include <check.h>
#include <stdbool.h>
#include <stdlib.h>

/* Transports in one process, each with a record of what its handlers were told, driven together by
 * one thread over real sockets.
 * Threads: owner thread; the same for every function of this header. */

#define RIG_STREAMS PLS_FRAME_STREAMS

typedef struct rig_node {
    pls_zmq *zmq;
    int network; /* namespace that its calls are made in; 0: that of the process */
    pls_zmq_handlers handlers;
    pls_zmq_config config;
    uint64_t packets; /* of the control lane */
    char packet[256]; /* the last one, as text */
    pls_zmq_identity packet_from;
    char packet_address[PLS_ZMQ_ADDRESS_CAPACITY];
    uint64_t messages;
    uint64_t body_bytes;
    uint64_t last[RIG_STREAMS]; /* serial of the last message of each stream */
    uint64_t disorder;          /* messages that did not follow the one before */
    uint64_t damaged;           /* bodies that were not what their serial says */
    uint64_t abandoned;
    uint64_t turned_down; /* times that `message` answered PLS_EFULL */
    uint64_t fates[4];
    uint64_t settled;
    uint64_t rooms;
    uint64_t news[8]; /* by kind */
    char news_text[128];
    char local[64];
    uint64_t away_reports;
    uint64_t away_counts;
    char away_reason[128];
    bool take_nothing;                     /* `message` answers PLS_EFULL */
    bool reserve_full;                     /* `reserve` does */
    bool reserve_refuse;                   /* `reserve` answers PLS_EBUDGET */
    uint8_t sender[PLS_ZMQ_NODE_ID_BYTES]; /* of the last message */
    uint64_t jump; /* holes in a stream's serials are right: what was unknown may be missing */
} rig_node;

uint64_t rig_now_ns(void);

/* The defaults of tests: short waits, a cluster "test", any port of 127.0.0.1. */
pls_zmq_config rig_config(const char *name, const pls_zmq_key *key);
void rig_open(rig_node *node, const pls_zmq_config *config);
void rig_open_named(rig_node *node, const char *name, const pls_zmq_key *key);
/* In another network namespace. */
void rig_open_in(rig_node *node, const pls_zmq_config *config, int network);
void rig_close(rig_node *node);

/* Drive `count` nodes until `*value` is at least `least`; false when `limit_ms` passes before. */
bool rig_until(rig_node *const nodes[], unsigned count, const uint64_t *value, uint64_t least,
               unsigned limit_ms);
/* Drive them for a time. */
void rig_run(rig_node *const nodes[], unsigned count, unsigned ms);

/* Who listens at the other's address, held. */
pls_zmq_peer *rig_reach(rig_node *from, const rig_node *to);
/* A message whose head is `serial` and whose body follows from it. Large ones are on the heap until
 * they are settled. */
pls_err rig_send(rig_node *node, pls_zmq_peer *peer, unsigned stream, uint64_t serial,
                 uint64_t body_bytes);
/* Send and expect that it is taken. */
void rig_sent(rig_node *node, pls_zmq_peer *peer, unsigned stream, uint64_t serial,
              uint64_t body_bytes);
pls_err rig_packet(rig_node *node, const rig_node *to, const char *text);

pls_zmq_key rig_key(uint8_t seed);
unsigned rig_descriptors(void);
unsigned rig_threads(void);
uint64_t rig_resident_bytes(void);

/* Run the tests, each in a process of its own; the exit status. */
int rig_main(const char *name, const TTest *const tests[], unsigned count);

#endif
