/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PLS_GOSSIP_COUNTERS_H
#define PLS_GOSSIP_COUNTERS_H

#include <stdint.h>

/* X(name, what one count means). Nothing is dropped without a count here. Order may change. */
#define PLS_GOSSIP_COUNTERS(X)                                                                     \
    X(packets_sent, "packets handed out as actions")                                               \
    X(bytes_sent, "their bytes")                                                                   \
    X(packets_received, "packets given to pls_gossip_receive")                                     \
    X(bytes_received, "their bytes")                                                               \
    X(dropped_version, "packets of a version range that does not meet ours")                       \
    X(dropped_cluster, "packets of another cluster")                                               \
    X(dropped_malformed, "packets or messages that do not follow the protocol")                    \
    X(dropped_oversized, "packets longer than the limit")                                          \
    X(dropped_self, "packets that claim to come from me")                                          \
    X(dropped_early, "packets that came before join")                                              \
    X(dropped_kind, "messages of an unknown kind")                                                 \
    X(dropped_target, "pings that name another node")                                              \
    X(dropped_unknown, "accusations of members that I do not know")                                \
    X(dropped_jump, "incarnations too far above the stored one")                                   \
    X(dropped_generation, "records of an older generation of a known name")                        \
    X(dropped_full, "records beyond members_max, dead_max or names_max")                           \
    X(dropped_memory, "records or messages for which there was no memory")                         \
    X(dropped_actions, "actions beyond actions_max")                                               \
    X(dropped_meta, "metas that contradict an earlier one of the same incarnation")                \
    X(dropped_key, "identities whose key another identity has")                                    \
    X(probes, "probes started")                                                                    \
    X(probes_acked, "probes answered in time")                                                     \
    X(probes_failed, "probes not answered, directly or through others")                            \
    X(acks_late, "answers to probes that had failed")                                              \
    X(probes_extra, "probes outside of the schedule, from hints and accusations")                  \
    X(indirects_sent, "indirect pings asked of others")                                            \
    X(nacks_sent, "nacks sent for others' indirect pings")                                         \
    X(nacks_received, "nacks received in time")                                                    \
    X(buddies, "pings that carried the suspicion to the suspect")                                  \
    X(stalls, "stalls of my own that moved the deadlines")                                         \
    X(clock_backwards, "calls whose time was before an earlier call's")                            \
    X(suspicions, "suspicions started")                                                            \
    X(confirmations, "independent confirmations counted")                                          \
    X(suspicions_expired, "suspicions that ended in my declaring death")                           \
    X(suspicions_refuted, "suspicions that the suspect refuted")                                   \
    X(refused_hints, "hints that a peer's host refused the connection")                            \
    X(disconnected_hints, "hints that a connection broke")                                         \
    X(refutes, "times that I refuted an accusation of myself")                                     \
    X(accusations_forwarded, "accusations sent on to the accused")                                 \
    X(joins, "members that became known")                                                          \
    X(deaths, "members that became dead in my table")                                              \
    X(leaves, "members that became left in my table")                                              \
    X(revivals, "dead or left members that became alive again")                                    \
    X(replaced, "members replaced by a newer generation of their name")                            \
    X(forgotten, "dead and left members forgotten after their time")                               \
    X(conflicts, "two live nodes under one name")                                                  \
    X(announces, "announces sent to dead members")                                                 \
    X(seed_retries, "joins sent to seeds beyond the first round")                                  \
    X(digests_equal, "digests that matched mine")                                                  \
    X(digests_different, "digests that did not")                                                   \
    X(trees_sent, "bucket hashes sent")                                                            \
    X(lists_sent, "bucket listings sent")                                                          \
    X(records_pulled, "records asked for by key")                                                  \
    X(records_served, "records sent to close a difference")                                        \
    X(updates_queued, "updates put into the gossip queue")                                         \
    X(updates_replaced, "queued updates replaced by newer ones of the subject")                    \
    X(updates_heard, "queued updates dropped in a storm since others tell them, too")              \
    X(updates_sent, "updates piggy-backed")                                                        \
    X(isolations, "times that I became isolated")                                                  \
    X(names_put, "names registered or changed by me")                                              \
    X(names_removed, "names removed by me")                                                        \
    X(names_applied, "name entries of others applied")                                             \
    X(names_stale, "name deltas that held nothing new")                                            \
    X(names_gaps, "name deltas that started above what I have")                                    \
    X(names_pulled, "suffixes asked for")                                                          \
    X(names_served, "suffixes sent")                                                               \
    X(names_resets, "copies cleared because their tombstones are gone elsewhere")                  \
    X(names_conflicts, "unique names that I lost to another owner")                                \
    X(names_dropped, "dead owners' names freed")                                                   \
    X(tombstones_freed, "tombstones freed")

typedef struct pls_gossip_counters {
#define PLS_GOSSIP_COUNTER_FIELD(name, text) uint64_t name;
    PLS_GOSSIP_COUNTERS(PLS_GOSSIP_COUNTER_FIELD)
#undef PLS_GOSSIP_COUNTER_FIELD
} pls_gossip_counters;

#endif
