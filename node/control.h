/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PLS_NODE_CONTROL_H
#define PLS_NODE_CONTROL_H

#include "base/err.h"
#include "base/limits.h"

#include <stddef.h>
#include <stdint.h>

/* The packets on a control socket (SOCK_SEQPACKET), the same shape for every type: a fixed head,
 * then a name, a text and data, each possibly empty, and up to four descriptors beside it. What a
 * type may carry stands in one table in control.c, and decoding checks a packet against it; types
 * are append-only. Both ends use this file; neither trusts what it decodes beyond that table.
 * Threads: the same for every function of this header: any thread; never blocks. */

#define PLS_CONTROL_MAGIC 0x4c535043u /* "CPSL" */
#define PLS_CONTROL_VERSION 1
#define PLS_CONTROL_PACKET_BYTES_MAX 65536
#define PLS_CONTROL_INLINE_BYTES_MAX 32768 /* more data than this travels in a memfd */
#define PLS_CONTROL_TEXT_BYTES_MAX 16384
#define PLS_CONTROL_FDS_MAX 4

typedef enum pls_control_type {
    /* client to node */
    PLS_CONTROL_HELLO = 1,       /* number: layout hash, slot: role, epoch: version; fds: pidfd */
    PLS_CONTROL_ATTACH = 2,      /* fds: inbox, bell, obs (flag OBS) */
    PLS_CONTROL_DETACH = 3,      /* nothing shared will be touched again */
    PLS_CONTROL_PEER_GET = 4,    /* slot, epoch */
    PLS_CONTROL_SEGMENT_GET = 5, /* slot, epoch, number: segment */
    PLS_CONTROL_SEGMENT_REGISTER = 6, /* number: segment; fds: the segment */
    PLS_CONTROL_SEGMENT_UNREGISTER = 7,
    PLS_CONTROL_DEATH_ACK = 8,
    PLS_CONTROL_PLACE = 9,          /* flags: kind, number: index, data: env and cpus */
    PLS_CONTROL_NAME_REGISTER = 10, /* actor, flags, name, text: class, data: metadata */
    PLS_CONTROL_NAME_UNREGISTER = 11,
    PLS_CONTROL_NAME_FIND = 12, /* name, number: wait in ms */
    PLS_CONTROL_CANCEL = 13,    /* number: the request given up */
    PLS_CONTROL_NAMES_LIST = 14,
    PLS_CONTROL_OUTPUT_TAIL = 15,
    PLS_CONTROL_RESTART_REGISTER = 16, /* actor, data: options and spec, or fds: spec */
    PLS_CONTROL_ACTOR_UNREGISTER = 17,
    PLS_CONTROL_ACTOR_FAILED = 18, /* actor, text */
    PLS_CONTROL_REBUILT = 19,      /* actor, status, text */
    PLS_CONTROL_WORKER_STOP = 20,  /* slot, epoch, number: timeout in ms */
    PLS_CONTROL_SHUTDOWN = 21,     /* number: timeout in ms */
    PLS_CONTROL_OBS_GET = 22,      /* slot, epoch: the obs memfd, also of the last 8 dead */
    PLS_CONTROL_ACTOR_FIND = 23,
    PLS_CONTROL_WORKER_RECYCLE = 24, /* a worker of itself: it will leave for a fresh one */
    PLS_CONTROL_MEMBERS_LIST = 25,   /* flags: PLS_MEMBERS_FOLLOW */
    PLS_CONTROL_CLIENT_TYPES_END,

    /* node to client */
    PLS_CONTROL_WELCOME = 128, /* answers HELLO: slot, epoch, number: node pid, name, data: limits;
                                  fds: directory */
    PLS_CONTROL_REPLY = 129,   /* request, status, and what the request promises */
    PLS_CONTROL_REBUILD = 130, /* actor, number: attempt, data or fds: spec */
    PLS_CONTROL_ROUTE = 131,   /* actor, slot, epoch */
    PLS_CONTROL_ACTOR_LOST = 132,
    PLS_CONTROL_SHUTDOWN_NOTICE = 133, /* number: ms left */
    PLS_CONTROL_MEMBER = 134,          /* number: pls_member_event, data: pls_node_entry */
    PLS_CONTROL_NODE_TYPES_END,
} pls_control_type;

#define PLS_CONTROL_FLAG_OBS 1u /* ATTACH: a third descriptor is the obs memfd */

/* The fixed head as it stands in the packet, little-endian, no padding. */
typedef struct pls_control_head {
    uint32_t magic;
    uint16_t type;
    uint16_t fd_count;
    uint32_t request;
    uint32_t status; /* pls_err */
    uint32_t slot;
    uint32_t epoch;
    uint64_t actor;
    uint64_t number;
    uint32_t flags;
    uint16_t name_bytes;
    uint16_t text_bytes;
    uint32_t data_bytes;
    uint32_t pid;
} pls_control_head;

_Static_assert(sizeof(pls_control_head) == 56, "no padding on the wire");

/* A packet decoded, or to be encoded. Decoded strings lend from the packet's bytes. */
typedef struct pls_control_packet {
    uint16_t type;
    uint32_t request;
    uint32_t status;
    uint32_t slot;
    uint32_t epoch;
    uint32_t flags;
    uint32_t pid;
    uint64_t actor;
    uint64_t number;
    const char *name;
    size_t name_bytes;
    const char *text;
    size_t text_bytes;
    const uint8_t *data;
    size_t data_bytes;
    int fds[PLS_CONTROL_FDS_MAX];
    uint32_t fd_count;
} pls_control_packet;

/* Which end a packet is read at. */
typedef enum pls_control_end {
    PLS_CONTROL_AT_NODE = 0,
    PLS_CONTROL_AT_CLIENT = 1,
} pls_control_end;

/* Writes a packet's bytes. Our own packets fit by construction (asserted).
 * Units:   `bytes` holds PLS_CONTROL_PACKET_BYTES_MAX; the result is the length.
 * Threads: any thread; never blocks. */
size_t pls_control_encode(const pls_control_packet *packet, uint8_t *bytes);

/* Reads a packet and checks it against the table of types.
 * Errors:  PLS_EPROTO  for anything that the other end may not say.
 * Owns:    lends the strings from `bytes`; fds are not touched, only counted against `fd_count`.
 * Threads: any thread; never blocks. */
PLS_MUST_USE pls_err pls_control_decode(const uint8_t *bytes, size_t len, pls_control_end end,
                                        uint32_t fd_count, pls_control_packet *packet_out);

/* Sends one encoded packet with its descriptors.
 * Errors:  PLS_EFULL  the socket is full; PLS_ECLOSED; PLS_ESYS.
 * Owns:    borrows everything. Threads: any thread; never blocks. */
PLS_MUST_USE pls_err pls_control_send(int fd, const uint8_t *bytes, size_t len, const int *fds,
                                      uint32_t fd_count);

/* Receives and decodes one packet.
 * Units:   `bytes` holds PLS_CONTROL_PACKET_BYTES_MAX.
 * Errors:  PLS_EEMPTY  nothing there; PLS_ECLOSED  hung up; PLS_EPROTO  not a packet of ours, or a
 *          cut one; PLS_EFDLIMIT  its descriptors did not fit; PLS_ESYS. Descriptors are closed.
 * Owns:    lends strings from `bytes`; gives the descriptors in packet_out->fds.
 * Threads: any thread; never blocks. */
PLS_MUST_USE pls_err pls_control_receive(int fd, pls_control_end end, uint8_t *bytes,
                                         pls_control_packet *packet_out);

/* Closes the descriptors of a received packet that nobody took (those not -1). */
void pls_control_packet_drop(pls_control_packet *packet);

/* A number that changes whenever the bytes that processes share would be read differently. */
uint64_t pls_control_layout_hash(void);

#endif
