/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PLS_GOSSIP_RULES_H
#define PLS_GOSSIP_RULES_H

#include "gossip/gossip.h"
#include "gossip/packet.h"

/* Threads: owner thread for every function of this header; none blocks. */

/* How a record came: news is gossiped on, what closes a difference is told less often. */
typedef enum pls_rules_source {
    PLS_RULES_GOSSIP = 0,
    PLS_RULES_SYNC,
    PLS_RULES_VOUCHED
} pls_rules_source;

/* The table of states and incarnations (swim.md a5), one function for each arriving kind. */

/* Gives the member in `member_out`, PLS_MEMBER_NONE when the record was refused.
 * Errors:  PLS_ENOMEM, PLS_EFULL, PLS_EEXIST; counted, nothing changed. */
pls_err pls_rules_alive(pls_gossip *gossip, const pls_message *record, pls_rules_source source,
                        pls_member *member_out);
void pls_rules_suspect(pls_gossip *gossip, uint64_t key, uint64_t incarnation, uint64_t accuser);
void pls_rules_dead(pls_gossip *gossip, uint64_t key, uint64_t incarnation, uint64_t accuser);
void pls_rules_left(pls_gossip *gossip, uint64_t key, uint64_t incarnation);

/* Somebody accuses me of `incarnation`. True when I refuted it now. */
bool pls_rules_accused(pls_gossip *gossip, uint64_t incarnation);

/* Raise my incarnation above `above` and tell everybody. */
void pls_rules_assert_self(pls_gossip *gossip, uint64_t above);

/* The earliest suspicion has run out. */
void pls_rules_expire_suspicion(pls_gossip *gossip);

/* Nothing of `member` is left in the instance. */
void pls_rules_forget(pls_gossip *gossip, pls_member member);

/* Whether `incarnation` is too far above what is stored of `member`; counted. */
bool pls_rules_jump(pls_gossip *gossip, pls_member member, uint64_t incarnation);

/* A message that says in full what I hold of `member` (lent until the next input). */
pls_message pls_rules_record(const pls_gossip *gossip, pls_member member);

#endif
