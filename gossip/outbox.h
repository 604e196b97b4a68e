/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PLS_GOSSIP_OUTBOX_H
#define PLS_GOSSIP_OUTBOX_H

#include "base/bytes.h"
#include "gossip/gossip.h"
#include "gossip/packet.h"

/* Threads: owner thread for every function of this header; none blocks. */

/* An action as it waits; its bytes are in the outbox's buffer. */
typedef struct pls_outbox_item {
    pls_member member;
    pls_member other;
    uint32_t bytes_at;
    uint32_t len;
    uint32_t address_at;
    uint32_t address_bytes; /* 0: the member's own */
    uint64_t incarnation;
    uint64_t value;
    uint8_t kind;
    uint8_t event;
    bool unique;
} pls_outbox_item;

typedef struct pls_outbox {
    pls_outbox_item *items;
    uint8_t *bytes;
    uint32_t items_capacity;
    uint32_t bytes_capacity;
    uint32_t count;
    uint32_t taken; /* items below have been handed out */
    uint32_t bytes_used;
    uint32_t head_bytes; /* of the open packet */
    pls_writer packet;   /* the open one */
} pls_outbox;

/* Where a packet goes: to a member, or to an address of somebody unknown. */
typedef struct pls_target {
    pls_member member; /* PLS_MEMBER_NONE: see address */
    const char *address;
    uint32_t address_bytes;
} pls_target;

static inline pls_target pls_target_member(pls_member member)
{
    return (pls_target){member, NULL, 0};
}

/* Open a packet. False, and counted, when there is no room for it; else write messages to
 * `outbox.packet` and close it. One is open at a time. */
PLS_MUST_USE bool pls_outbox_open(pls_gossip *gossip, uint32_t packet_bytes);

/* Fill the rest of the open packet with gossip and hand it out; an empty one is taken back.
 * Returns whether it goes out. */
bool pls_outbox_close(pls_gossip *gossip, pls_target to, bool gossip_too);

/* Open, write one message, close. */
void pls_outbox_send(pls_gossip *gossip, pls_target to, const pls_message *message,
                     bool gossip_too);

/* Put one action of each kind in, or count it as dropped. */
void pls_outbox_connect(pls_gossip *gossip, pls_target to);
void pls_outbox_drop(pls_gossip *gossip, pls_member member);
void pls_outbox_member(pls_gossip *gossip, pls_gossip_event event, pls_member member,
                       pls_member other);
void pls_outbox_name(pls_gossip *gossip, const pls_action *event);

/* Forget what was handed out. */
void pls_outbox_recycle(pls_gossip *gossip);
void pls_outbox_fini(pls_gossip *gossip);

#endif
