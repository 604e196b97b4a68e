/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PLS_GOSSIP_GOSSIP_H
#define PLS_GOSSIP_GOSSIP_H

#include "base/err.h"
#include "gossip/action.h"
#include "gossip/config.h"
#include "gossip/counters.h"
#include "gossip/identities.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* SWIM membership with Lifeguard and the replicated names (names.h) as a pure state machine: time
 * comes in as `now_ns`, bytes through pls_gossip_receive, randomness from the seed; everything that
 * shall happen outside comes out of pls_gossip_next_action.
 *
 * The caller's loop: give the packets that have come, the hints and the changes; when the deadline
 * has passed, call pls_gossip_advance; drain the actions; wait for the next input or the deadline.
 * Only pls_gossip_advance does what is due, so a caller that comes late gives what waited for it
 * first and blames nobody for it. `now_ns` is any monotonic nanosecond clock; a call with an
 * earlier time than before counts as the later one.
 *
 * Every input may return PLS_ENOMEM: the instance stays valid, what could not be stored is counted
 * as dropped, and the protocol repairs it later as it repairs a lost packet.
 *
 * The wire is msgpack, written and read by a small bounded codec of our own: msgpack-c's packer and
 * unpacker take heap memory per packet, and the steady state of this machine takes none. */
typedef struct pls_gossip pls_gossip;

/* Make an instance: one member, myself, alive with incarnation 1. Nothing is sent before join.
 * Units:   `config->seed` any; `now_ns` starts the clock.
 * Errors:  PLS_EINVAL  the configuration is outside its limits.
 *          PLS_ENOMEM, PLS_EEXIST as pls_identities_acquire.
 * Owns:    borrows `config` for the call, and `pool` until destroy; gives the instance.
 *          `pool` NULL: the instance makes its own.
 * Threads: owner thread; never blocks; the same for every function of this header. */
PLS_MUST_USE pls_err pls_gossip_create(const pls_gossip_config *config, pls_identities *pool,
                                       uint64_t now_ns, pls_gossip **gossip_out);

/* Free the instance without a word to anybody.
 * Owns:    takes `gossip`; NULL is allowed. */
void pls_gossip_destroy(pls_gossip *gossip);

/* One packet has arrived.
 * Units:   `len` in bytes; longer than PLS_PACKET_BYTES_MAX is dropped. `from` is the sender's
 *          address, where an answer to a stranger goes; 0 bytes when unknown.
 * Errors:  PLS_EPROTO  the packet, or its rest from some message on, was dropped and counted.
 *          PLS_EVERSION, PLS_EPERM  dropped: no common version, or another cluster.
 *          PLS_ETOOBIG  dropped: longer than the limit.
 *          PLS_ENOMEM.
 * Owns:    borrows `bytes` and `from` for the call. */
pls_err pls_gossip_receive(pls_gossip *gossip, const void *bytes, size_t len, const char *from,
                           uint32_t from_bytes, uint64_t now_ns);

/* The key of the identity that a packet claims to come from, for a driver that compares it with
 * what the connection has proved.
 * Errors:  PLS_EPROTO  no packet of this protocol; `key_out` untouched. */
PLS_MUST_USE pls_err pls_gossip_packet_sender(const void *bytes, size_t len, uint64_t *key_out);

/* Do what is due. Errors:  PLS_ENOMEM. */
pls_err pls_gossip_advance(pls_gossip *gossip, uint64_t now_ns);

/* When pls_gossip_advance wants to be called next; UINT64_MAX: never without another input. */
uint64_t pls_gossip_deadline(const pls_gossip *gossip);

/* Take the next action off the list.
 * Errors:  PLS_EEMPTY  there is none.
 * Owns:    lends what `action_out` points to until the next call on this instance other than this
 *          one. */
PLS_MUST_USE pls_err pls_gossip_next_action(pls_gossip *gossip, pls_action *action_out);

/* An address of a node that may be in the cluster. */
typedef struct pls_seed {
    const char *address;
    uint32_t address_bytes; /* 1..PLS_ADDRESS_BYTES_MAX */
} pls_seed;

#define PLS_SEEDS_MAX 64

/* Start, and look for others through seeds, all at once; my own address among them is skipped.
 * While I know nobody I try again each second, after that a seed that is no live member is tried
 * every `seeds_interval_ns`. A second call adds seeds. 0 seeds: start alone.
 * Units:   `seed_count` 0..PLS_SEEDS_MAX in all calls together.
 * Errors:  PLS_EINVAL, PLS_EFULL, PLS_ENOMEM; nothing changed.
 *          PLS_ECLOSED after leave.
 * Owns:    borrows `seeds` for the call. */
PLS_MUST_USE pls_err pls_gossip_join(pls_gossip *gossip, const pls_seed *seeds, uint32_t seed_count,
                                     uint64_t now_ns);

/* Take a member as alive without asking it, from a list that the caller kept or vouches for. Not
 * gossiped; no effect on a member or a name that is known already.
 * Units:   `incarnation` 1..PLS_INCARNATION_MAX; `identity->key` is not read.
 * Errors:  PLS_EINVAL, PLS_EFULL, PLS_EEXIST, PLS_ENOMEM. */
PLS_MUST_USE pls_err pls_gossip_learn(pls_gossip *gossip, const pls_identity *identity,
                                      uint64_t incarnation, uint64_t now_ns);

/* Leave: says so to some members at once and gossips it until it has been spread, then gives
 * PLS_EVENT_LEFT for myself. Probes stop; accusations are not refuted any more. Twice is once. */
pls_err pls_gossip_leave(pls_gossip *gossip, uint64_t now_ns);

/* The connection to `member` broke: it is probed now. No harm when it is nobody. */
pls_err pls_gossip_disconnected(pls_gossip *gossip, pls_member member, uint64_t now_ns);

/* The host of `member` refused a connection: counts as a failed probe and as a confirmation from
 * me, and its suspicion lasts `refused_suspicion_ns` at most. No death by itself. */
pls_err pls_gossip_refused(pls_gossip *gossip, pls_member member, uint64_t now_ns);

/* Declare a member dead. If it lives it will hear of it, refute and be alive again. */
pls_err pls_gossip_evict(pls_gossip *gossip, pls_member member, uint64_t now_ns);

/* Say something new of myself; raises my incarnation.
 * Units:   `len` 0..PLS_META_BYTES_MAX.
 * Errors:  PLS_ETOOBIG, PLS_ECLOSED after leave, PLS_ENOMEM; nothing changed. */
PLS_MUST_USE pls_err pls_gossip_set_meta(pls_gossip *gossip, const void *meta, uint32_t len,
                                         uint64_t now_ns);

typedef enum pls_member_state {
    PLS_MEMBER_UNKNOWN = 0,
    PLS_MEMBER_ALIVE,
    PLS_MEMBER_SUSPECT,
    PLS_MEMBER_DEAD,
    PLS_MEMBER_LEFT
} pls_member_state;

/* What I hold of one member. Bytes are lent until the next input. */
typedef struct pls_member_view {
    pls_member member;
    pls_member_state state;
    uint64_t incarnation;
    pls_identity identity;
    const void *meta;
    uint32_t meta_bytes;
    uint32_t confirmations;         /* of a suspect, beside the first accuser */
    uint64_t suspicion_deadline_ns; /* of a suspect, else 0 */
    uint64_t names_version;         /* how far I know its names */
    uint64_t names_floor;           /* tombstones up to here are gone */
    uint32_t names_count;           /* names that I hold of it, tombstones not counted */
} pls_member_view;

/* Errors:  PLS_ENOENT  nothing is known of this member; `view_out` untouched. */
PLS_MUST_USE pls_err pls_gossip_member(const pls_gossip *gossip, pls_member member,
                                       pls_member_view *view_out);

/* Iterate: the first known member (dead and left too) with a number >= `from`, PLS_MEMBER_NONE at
 * the end. `for (m = next(g, 0); m != PLS_MEMBER_NONE; m = next(g, m + 1))`. */
pls_member pls_gossip_member_next(const pls_gossip *gossip, pls_member from);

/* The state alone, cheaply. */
pls_member_state pls_gossip_member_state(const pls_gossip *gossip, pls_member member);

/* The known member of this name, PLS_MEMBER_NONE without one. */
pls_member pls_gossip_member_named(const pls_gossip *gossip, const char *name, uint32_t name_bytes);

/* The instance as a whole. */
typedef struct pls_gossip_view {
    pls_member self;
    uint32_t alive_count; /* myself included */
    uint32_t suspect_count;
    uint32_t dead_count;
    uint32_t left_count;
    uint32_t queue_count;  /* subjects in the gossip queue */
    uint32_t action_count; /* not yet drained */
    uint32_t probe_count;  /* under way, the scheduled one included */
    uint32_t relay_count;  /* others' indirect pings under way */
    uint32_t names_count;  /* of all owners, tombstones and hidden ones included */
    uint32_t awareness;    /* Lifeguard's local health, 0 is best */
    bool joined;           /* join was called */
    bool leaving;          /* leave was called */
    bool isolated;
    uint64_t incarnation;  /* mine */
    uint64_t digest;       /* equal on nodes whose live members and names are equal */
    uint64_t memory_bytes; /* held through the allocator, without a shared pool's */
} pls_gossip_view;

/* The instance as a whole, now. */
pls_gossip_view pls_gossip_look(const pls_gossip *gossip);

/* Lent until destroy; only grows. */
const pls_gossip_counters *pls_gossip_count(const pls_gossip *gossip);

/* Assert the whole invariant of the instance: tables, queue, timers, digest, names against one
 * another. Slow; for tests, the simulator and debug builds. */
void pls_gossip_check(const pls_gossip *gossip);

#endif
