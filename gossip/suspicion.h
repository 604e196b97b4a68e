/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PLS_GOSSIP_SUSPICION_H
#define PLS_GOSSIP_SUSPICION_H

#include "gossip/gossip.h"
#include "gossip/index.h"

/* Threads: owner thread for every function of this header; none blocks. */

/* Independent confirmations that can be waited for, beside the first accuser. */
#define PLS_CONFIRMATIONS_MAX 8

/* One suspect: who accuses it and until when it may refute. */
typedef struct pls_suspicion {
    uint64_t start_ns;
    uint64_t min_ns;
    uint64_t max_ns;
    uint64_t deadline_ns;
    uint64_t asked_ns;                            /* when the suspect last heard of it from me */
    uint64_t accusers[PLS_CONFIRMATIONS_MAX + 1]; /* keys; the first did not confirm */
    pls_member member;
    uint32_t heap_at;
    uint8_t expected;
    uint8_t count; /* confirmations */
} pls_suspicion;

/* All suspects, by member and by deadline. */
typedef struct pls_suspicions {
    pls_suspicion *items;
    uint32_t *heap; /* positions of items, earliest deadline first */
    uint32_t items_capacity;
    uint32_t heap_capacity;
    uint32_t count;
    pls_index by_member;
} pls_suspicions;

/* NULL when `member` is no suspect. Lends until the next start or cancel. */
pls_suspicion *pls_suspicions_find(const pls_suspicions *suspicions, pls_member member);

/* Errors:  PLS_ENOMEM  the next start would not succeed. */
PLS_MUST_USE pls_err pls_suspicions_reserve(pls_gossip *gossip);

/* Start one; needs a reserve before it. */
void pls_suspicions_start(pls_gossip *gossip, pls_member member, uint64_t accuser);

/* True when `accuser` is a new one and is still needed: the deadline has moved nearer. */
bool pls_suspicions_confirm(pls_gossip *gossip, pls_suspicion *suspicion, uint64_t accuser);

/* Whether `accuser` is one of those who are remembered. */
bool pls_suspicions_accused_by(const pls_suspicion *suspicion, uint64_t accuser);

/* The suspicion ends then, whatever was confirmed so far. */
void pls_suspicions_move(pls_gossip *gossip, pls_suspicion *suspicion, uint64_t deadline_ns);

/* The suspect was heard: its time begins anew, with the confirmations that there are. */
void pls_suspicions_restart(pls_gossip *gossip, pls_suspicion *suspicion);

/* Forget it; nothing happens when `member` is no suspect. */
void pls_suspicions_cancel(pls_gossip *gossip, pls_member member);

/* Move all deadlines by `by_ns`. */
void pls_suspicions_shift(pls_suspicions *suspicions, uint64_t by_ns);

/* The earliest deadline, UINT64_MAX without a suspect; and whose it is. */
uint64_t pls_suspicions_next_ns(const pls_suspicions *suspicions);
pls_member pls_suspicions_next(const pls_suspicions *suspicions);

/* Free the suspicions; assert index, heap and table against one another. */
void pls_suspicions_fini(pls_gossip *gossip);
void pls_suspicions_check(const pls_gossip *gossip);

#endif
