/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PLS_TESTS_GATE_WORLD_H
#define PLS_TESTS_GATE_WORLD_H

#include "node/process/gateway_parts.h"
#include "shm/inbox.h"

/* A whole gateway between a net with two nodes, which the test plays, and one process of this host,
 * whose inbox the test reads.
 * Threads: the same for every function of this header: owner thread; never blocks. */

#define GATE_SENT_MAX 64
#define GATE_SLOT 5u
#define GATE_EPOCH 3u

/* A message that the gateway handed to the net, until the net is done with it. */
typedef struct sent {
    pls_gate_head head;
    pls_net_peer *to;
    uint8_t stream;
    void (*settled)(void *owner, void *context, pls_zmq_fate fate);
    void *context;
    char text[PLS_GATE_TEXT_BYTES_MAX];
} sent;

struct pls_net_peer {
    pls_net_peer_info info;
    void *kept;
    bool alive;
    uint32_t resumed;
};

extern pls_net_peer gate_nodes[2];
extern pls_gateway *gate_gateway;
extern pls_inbox *gate_inbox; /* of the process */
extern sent gate_out[GATE_SENT_MAX];
extern uint32_t gate_out_count;
extern bool gate_full;    /* the queue to every node */
extern pls_err gate_fate; /* of what is sent, if not PLS_OK */

/* An actor of the process. */
static const uint64_t gate_actor = (uint64_t)GATE_SLOT << 56 | (uint64_t)GATE_EPOCH << 32 | 2;

void gate_setup(void);
void gate_teardown(void);
void gate_node_up(int i);
void gate_node_gone(int i);
/* The net has done with a message. */
void gate_settle(sent *it, pls_zmq_fate what);
/* The youngest message that was handed to it. */
sent *gate_last(void);
/* A node says something, with zeros for a payload. Errors: as the gateway's handler. */
pls_err gate_said(int from, const pls_gate_head *head);
/* There is room again in the queue to a node. */
void gate_room(int i);

/* The process writes to the gateway. Errors: as pls_gate_out(). */
pls_err gate_wrote(uint16_t type, const void *bytes, uint32_t len);
void gate_signalled(uint16_t type, uint64_t id, uint64_t value);
/* It knows an actor of node `to` by this number, and asks it; no call: tells it. */
void gate_routed(uint64_t id, int to);
pls_err gate_asked(uint64_t id, uint64_t call_id, int64_t deadline_ns);

/* What came into its inbox next, the first `len` bytes; false: nothing. */
bool gate_came(uint16_t type, void *bytes, uint32_t len);
bool gate_silent(void);
/* A node begins a call; gives the number by which the process knows it. */
uint64_t gate_served(int from, uint64_t id, int64_t left_ns, int64_t *deadline_out);

#endif
