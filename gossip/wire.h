/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PLS_GOSSIP_WIRE_H
#define PLS_GOSSIP_WIRE_H

/* The numbers of the gossip wire. They are append-only: a number once given is never given again
 * and never changes its meaning.
 *
 * A packet is a run of msgpack objects, each written in its shortest form:
 *   version  lowest  cluster  sender  then messages until the end of the packet.
 * `version` is the highest protocol version that the sender speaks, `lowest` the lowest; a receiver
 * drops and counts a packet whose range does not meet its own. `cluster` is a 32-bit hash of the
 * cluster's name, `sender` the 64-bit key of the sender's identity (identities.h).
 * A message is msgpack `bin`: its first byte is the kind, the rest are the fields in their order,
 * so a receiver steps over a kind, and over fields at a message's end, that it does not know. */

#define PLS_WIRE_VERSION 1
#define PLS_WIRE_VERSION_LOWEST 1

/* X(name, number, fields). `member` = identity and state in full: name, address, generation,
 * incarnation, meta. `state` is a number of pls_wire_state. */
#define PLS_WIRE_KINDS(X)                                                                          \
    X(PLS_WIRE_PING, 0, "sequence, target key, digest")                                            \
    X(PLS_WIRE_PING_INDIRECT, 1, "sequence, target key")                                           \
    X(PLS_WIRE_ACK, 2, "sequence")                                                                 \
    X(PLS_WIRE_SUSPECT, 3, "subject key, incarnation, accuser key")                                \
    X(PLS_WIRE_ALIVE, 4, "member")                                                                 \
    X(PLS_WIRE_DEAD, 5, "subject key, incarnation, accuser key")                                   \
    X(PLS_WIRE_LEFT, 6, "subject key, incarnation")                                                \
    X(PLS_WIRE_NACK, 7, "sequence")                                                                \
    X(PLS_WIRE_JOIN, 8, "member, digest")                                                          \
    X(PLS_WIRE_ANNOUNCE, 9, "member, digest")                                                      \
    X(PLS_WIRE_DIGEST, 10, "digest")                                                               \
    X(PLS_WIRE_TREE, 11, "bucket count, 32-bit bucket hashes as bin")                              \
    X(PLS_WIRE_LIST, 12, "bucket count, set of buckets as bin, complete, entries as bin")          \
    X(PLS_WIRE_WANT, 13, "member keys as bin")                                                     \
    X(PLS_WIRE_NAMES, 14, "owner key, floor, from, to, entries as bin")                            \
    X(PLS_WIRE_NAMES_PULL, 15, "owner key, floor, from")                                           \
    X(PLS_WIRE_ACCUSE, 16, "subject key, incarnation, accuser key")                                \
    X(PLS_WIRE_RECORD, 17, "member")                                                               \
    X(PLS_WIRE_SUFFIX, 18, "owner key, floor, from, to, complete, entries as bin")

typedef enum pls_wire_kind {
#define PLS_WIRE_ENUM(name, number, fields) name = number,
    PLS_WIRE_KINDS(PLS_WIRE_ENUM)
#undef PLS_WIRE_ENUM
        PLS_WIRE_KIND_COUNT
} pls_wire_kind;

/* An entry of LIST: key as 8 bytes, then msgpack incarnation, state, names version, names floor. */
typedef enum pls_wire_state {
    PLS_WIRE_STATE_LIVE = 1, /* alive or suspect: suspicion travels by gossip alone */
    PLS_WIRE_STATE_DEAD = 3,
    PLS_WIRE_STATE_LEFT = 4
} pls_wire_state;

/* An entry of NAMES: msgpack version counted from the delta's `from`, flags, name; without REMOVED
 * also value; with UNIQUE also stamp. */
typedef enum pls_wire_name_flags {
    PLS_WIRE_NAME_UNIQUE = 1,
    PLS_WIRE_NAME_REMOVED = 2
} pls_wire_name_flags;

/* Buckets that a digest is divided into: a power of two between these. */
#define PLS_BUCKETS_MIN 8
#define PLS_BUCKETS_MAX 256

/* Bytes of one packet: no configuration may ask for more, no decoder looks at more. */
#define PLS_PACKET_BYTES_MAX 65000
#define PLS_PACKET_BYTES_MIN 1400

/* Bytes of a node's address as its driver spells it ("tcp://10.0.0.7:7100"). */
#define PLS_ADDRESS_BYTES_MAX 128

/* Bytes of what a node says of itself beside its identity. */
#define PLS_META_BYTES_MAX 512

/* An arriving incarnation may be this much above the stored one; what is further is not believed.
 * No honest node raises its own by a million between two meetings. */
#define PLS_INCARNATION_JUMP_MAX (UINT64_C(1) << 20)

/* The highest incarnation that is stored: entries keep it in 56 bits. At a million jumps a second
 * this takes more than two thousand years, and a new generation starts again from 1. */
#define PLS_INCARNATION_MAX ((UINT64_C(1) << 56) - 1)

#endif
