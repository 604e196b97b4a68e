/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PLS_GOSSIP_SYNC_H
#define PLS_GOSSIP_SYNC_H

#include "gossip/outbox.h"

/* Threads: owner thread for every function of this header; none blocks. */

/* Seeds, announces and the exchange that closes differences. */
typedef struct pls_sync {
    uint64_t digest_ns;   /* when a digest must go out beside a ping */
    uint64_t announce_ns; /* when the dice are thrown next */
    uint64_t seeds_ns;    /* when seeds are tried next */
    struct pls_sync_seed *seeds;
    uint32_t seeds_capacity;
    uint32_t seeds_count;
    uint32_t rounds; /* of joins while I knew nobody */
    struct pls_sync_told *forwards;
} pls_sync;

/* Draw the phases; free the seeds; when pls_sync_advance has something to do, and do it. */
void pls_sync_start(pls_gossip *gossip);
void pls_sync_fini(pls_gossip *gossip);
uint64_t pls_sync_next_ns(const pls_gossip *gossip);
void pls_sync_advance(pls_gossip *gossip);

/* Errors:  as pls_gossip_join. */
PLS_MUST_USE pls_err pls_sync_add_seeds(pls_gossip *gossip, const pls_seed *seeds,
                                        uint32_t seed_count);

/* A digest went out with a ping. */
void pls_sync_digest_sent(pls_gossip *gossip);

/* The digest of everything that I hold. */
uint64_t pls_sync_digest(const pls_gossip *gossip);

/* Tell `member` that `accuser` calls it dead or suspect at `incarnation`, once in a while. */
void pls_sync_forward(pls_gossip *gossip, pls_member member, uint64_t incarnation,
                      uint64_t accuser);

/* Tell `to` what I hold of `member`. */
void pls_sync_serve(pls_gossip *gossip, pls_target to, pls_member member);

/* Messages of these kinds have come from `from`. */
void pls_sync_compare(pls_gossip *gossip, pls_target from, uint64_t digest);
void pls_sync_greeted(pls_gossip *gossip, pls_target from, const pls_message *message);
void pls_sync_tree(pls_gossip *gossip, pls_target from, const pls_message *message);
void pls_sync_list(pls_gossip *gossip, pls_target from, const pls_message *message);
void pls_sync_want(pls_gossip *gossip, pls_target from, const pls_message *message);

#endif
