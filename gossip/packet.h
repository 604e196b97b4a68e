/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PLS_GOSSIP_PACKET_H
#define PLS_GOSSIP_PACKET_H

#include "base/bytes.h"
#include "gossip/identities.h"
#include "gossip/wire.h"

#include <stdbool.h>

/* Threads: any thread, on memory of its own, for every function of this header; none blocks. */

/* The head of a packet and a reader over its messages. */
typedef struct pls_packet {
    uint64_t version;
    uint64_t lowest;
    uint64_t cluster;
    uint64_t sender;
    pls_reader messages;
} pls_packet;

/* One decoded message; which fields count is said by the kind (wire.h). Pointers are lent from the
 * packet. Lengths, ranges of counts and bodies' shapes have been checked, meanings have not. */
typedef struct pls_message {
    uint32_t kind;
    uint32_t sequence;
    uint64_t key; /* target, subject, owner */
    uint64_t accuser;
    uint64_t incarnation;
    uint64_t digest;
    uint64_t floor;
    uint64_t from;
    uint64_t to;
    pls_identity identity; /* its key computed from the rest */
    const uint8_t *meta;
    const uint8_t *buckets; /* LIST: one bit each */
    const uint8_t *body;
    uint32_t meta_bytes;
    uint32_t bucket_count;
    uint32_t body_bytes;
    bool complete;
} pls_message;

/* Errors:  PLS_EPROTO  no packet. Version and cluster are the caller's to judge. */
PLS_MUST_USE pls_err pls_packet_open(const void *bytes, size_t len, pls_packet *packet_out);

/* The next message.
 * Errors:  PLS_EEMPTY  the packet ends here.
 *          PLS_EUNSUPPORTED  a kind that this version does not know; go on with the next.
 *          PLS_EPROTO  the rest is not readable. */
PLS_MUST_USE pls_err pls_packet_next(pls_packet *packet, pls_message *message_out);

/* One line of a LIST body. */
typedef struct pls_list_entry {
    uint64_t key;
    uint64_t incarnation;
    uint64_t names_version;
    uint64_t names_floor;
    uint32_t state; /* of pls_wire_state */
} pls_list_entry;

/* Errors:  PLS_EEMPTY  the end; PLS_EPROTO  not readable. */
PLS_MUST_USE pls_err pls_list_entry_next(pls_reader *body, pls_list_entry *entry_out);
void pls_list_entry_write(pls_writer *w, const pls_list_entry *entry);

/* One line of a NAMES body. */
typedef struct pls_name_item {
    uint64_t version; /* counted from the delta's `from` */
    uint64_t value;
    uint64_t stamp;
    const char *name;
    uint32_t name_bytes;
    uint32_t flags;
} pls_name_item;

/* Errors:  as pls_list_entry_next. */
PLS_MUST_USE pls_err pls_name_item_next(pls_reader *body, pls_name_item *entry_out);
void pls_name_item_write(pls_writer *w, const pls_name_item *entry);

/* The 64-bit key at `position` of a WANT body. Units: `position` < len / 8. */
uint64_t pls_want_key(const uint8_t *body, uint32_t position);

/* Writers set `bad` when there is no room and leave the rest of the packet as it was. */
void pls_packet_head_write(pls_writer *w, uint32_t cluster, uint64_t sender);
void pls_message_write(pls_writer *w, const pls_message *message);

#endif
