/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PLS_GOSSIP_CONFIG_H
#define PLS_GOSSIP_CONFIG_H

#include "gossip/identities.h"

#include <stdbool.h>
#include <stdint.h>

/* Everything that one gossip instance is told at its start. Fill it with
 * pls_gossip_config_defaults(), then set identity, seed and what else differs. Defaults are
 * memberlist's for a local network unless the comment says why not. */
typedef struct pls_gossip_config {
    /* Who I am. Borrowed during pls_gossip_create only. */
    const char *cluster; /* zero-terminated; other clusters' packets are dropped */
    pls_identity self;   /* `key` is not read */
    const void *meta;
    uint32_t meta_bytes; /* 0..PLS_META_BYTES_MAX */

    /* The seed of all randomness; the same seed and inputs give the same actions. */
    uint64_t seed;
    const pls_allocator *allocator; /* NULL: the C library's */

    /* Probing. Longer intervals: less traffic, later detection. */
    uint64_t probe_interval_ns; /* 1 s */
    uint64_t probe_timeout_ns;  /* 500 ms; must stay above TCP's 200 ms retransmission step */
    uint32_t indirect_count;    /* 3, 0..PLS_INDIRECT_MAX */

    /* Suspicion: min = alpha * max(1, log10 n) * probe interval, max = beta * min. More alpha:
     * fewer false deaths, later true ones. Beta only pays before confirmations arrive. */
    uint32_t suspicion_alpha; /* 4 */
    uint32_t suspicion_beta;  /* 6 */
    uint32_t awareness_max;   /* 8: scores are 0..7 */

    /* A peer whose host refused the connection is suspected for this long at most: the kernel
     * itself answered. 1 s, one probe interval. */
    uint64_t refused_suspicion_ns;

    /* Parts of Lifeguard, each on by default; off gives plain SWIM. */
    bool lha_probe;     /* score scales interval and timeout; nacks */
    bool lha_suspicion; /* suspicion starts at max and shrinks with confirmations */
    bool buddy;         /* a ping to a suspect tells it so first */
    /* After a stall of my own all deadlines move by its length and nobody is accused. On. */
    bool idle_rule;

    /* Gossip. */
    uint64_t gossip_interval_ns; /* 200 ms */
    uint32_t gossip_fanout;      /* 3 */
    uint32_t retransmit_mult;    /* 4: an update is sent 4 * ceil(log10(n + 1)) times */
    uint64_t gossip_to_dead_ns;  /* 30 s */
    uint32_t packet_bytes;       /* 1400, PLS_PACKET_BYTES_MIN..PLS_PACKET_BYTES_MAX */

    /* Anti-entropy; 0 turns it off. Every ping carries the digest, so that this costs no packet
     * while probes run at full speed. */
    uint64_t digest_interval_ns; /* 1 s */

    /* Healing. Each side of a cut sends about one announce in this time to a random dead member;
     * 0 turns it off. */
    uint64_t announce_interval_ns; /* 1 s */
    uint64_t dead_keep_ns;         /* 24 h */
    uint64_t left_keep_ns;         /* 1 h: longer than any straggler holds it alive */
    uint64_t seeds_interval_ns; /* 60 s: how often a seed that is no live member is tried again */
    uint32_t isolated_probes;   /* 3: failed probes in a row that mean "I am cut off" */

    /* Names. */
    uint64_t tombstone_keep_ns;  /* 1 h: longer than the slowest exchange */
    uint64_t dead_names_keep_ns; /* 60 s: a dead owner's hidden names are freed after this */

    /* Bounds. */
    uint32_t members_max; /* 16,384 live members */
    uint32_t dead_max;    /* 16,384 dead and left members kept; the oldest go first */
    uint32_t names_max;   /* 4 Mi names of all owners together */
    uint32_t watches_max; /* 65,536 */
    uint32_t actions_max; /* 65,536 undrained actions; what is beyond is dropped and counted */
} pls_gossip_config;

#define PLS_INDIRECT_MAX 8

/* Fill `config` with the defaults above; the identity stays empty. Threads: any thread. */
void pls_gossip_config_defaults(pls_gossip_config *config);

#endif
