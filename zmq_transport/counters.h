/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PLS_ZMQ_TRANSPORT_COUNTERS_H
#define PLS_ZMQ_TRANSPORT_COUNTERS_H

#include <stdint.h>

/* What a transport counts; X(name, text). The last group are those turned away, each reported. */
#define PLS_ZMQ_COUNTERS(X)                                                                        \
    X(sent_messages, "messages delivered to a peer")                                               \
    X(received_messages, "messages handed to the owner")                                           \
    X(skipped_messages, "messages that the owner did not want")                                    \
    X(unsent_messages, "messages settled as not sent")                                             \
    X(unknown_messages, "messages settled as sent, outcome unknown")                               \
    X(resent_messages, "messages begun again on a new connection")                                 \
    X(sent_packets, "packets sent on the control lane")                                            \
    X(received_packets, "packets received on the control lane")                                    \
    X(dropped_packets, "packets dropped: no connection in time, or no room")                       \
    X(connects, "connections made and welcomed")                                                   \
    X(disconnects, "connections that broke")                                                       \
    X(refused_connects, "attempts that a host refused")                                            \
    X(failed_connects, "attempts without an answer")                                               \
    X(idle_closes, "connections closed after long idleness, or for another one")                   \
    X(accepted, "connections accepted")                                                            \
    X(welcomed, "greetings welcomed")

#define PLS_ZMQ_TURNED_AWAY(X)                                                                     \
    X(away_garbled, "no ZeroMQ peer, or its handshake took too long")                              \
    X(away_forged, "wrong keys or none")                                                           \
    X(away_silent, "connected and did not greet")                                                  \
    X(away_greeting, "no greeting where one was due")                                              \
    X(away_version, "no common protocol version")                                                  \
    X(away_cluster, "another cluster's name")                                                      \
    X(away_unproven, "the greeting does not prove the cluster key")                                \
    X(away_target, "meant another process than this one")                                          \
    X(away_identity, "a node id that is in use with another key")                                  \
    X(away_busy, "too many connections")                                                           \
    X(away_frame, "a frame that does not follow the protocol")                                     \
    X(away_exhausted, "no descriptors or memory for a connection")

typedef struct pls_zmq_counters {
#define PLS_ZMQ_COUNTER(name, text) uint64_t name;
    PLS_ZMQ_COUNTERS(PLS_ZMQ_COUNTER)
    PLS_ZMQ_TURNED_AWAY(PLS_ZMQ_COUNTER)
#undef PLS_ZMQ_COUNTER
} pls_zmq_counters;

typedef enum pls_zmq_away {
#define PLS_ZMQ_AWAY_ENUM(name, text) PLS_ZMQ_##name,
    PLS_ZMQ_TURNED_AWAY(PLS_ZMQ_AWAY_ENUM)
#undef PLS_ZMQ_AWAY_ENUM
        PLS_ZMQ_AWAY_COUNT
} pls_zmq_away;

#endif
