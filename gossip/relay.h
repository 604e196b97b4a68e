/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PLS_GOSSIP_RELAY_H
#define PLS_GOSSIP_RELAY_H

#include "gossip/outbox.h"

/* Threads: owner thread for every function of this header; none blocks. */

/* Others' indirect pings at one time; the oldest gives way. */
#define PLS_RELAYS_MAX 1024

/* A ping that I sent because another asked me to. */
typedef struct pls_relay {
    uint64_t nack_ns;
    uint64_t expiry_ns;
    pls_member origin;
    uint32_t sequence;        /* mine */
    uint32_t origin_sequence; /* the asker's */
    bool answered;
} pls_relay;

/* The pings that I relay: a ring in order of time. */
typedef struct pls_relays {
    pls_relay *items;
    uint32_t capacity;
    uint32_t first;
    uint32_t count;
    uint32_t nacked; /* the first ones, whose nack is past */
} pls_relays;

/* Free the ring. */
void pls_relays_fini(pls_gossip *gossip);

/* When pls_relays_advance has a nack to send. */
uint64_t pls_relays_next_ns(const pls_relays *relays);
void pls_relays_advance(pls_gossip *gossip);

/* `from` asks me to ping another. */
void pls_relays_ask(pls_gossip *gossip, pls_target from, const pls_message *message);

/* An ack that no probe of mine waits for. */
void pls_relays_ack(pls_gossip *gossip, uint32_t sequence);

/* Nothing is relayed for `member` any more. */
void pls_relays_forget(pls_gossip *gossip, pls_member member);

#endif
