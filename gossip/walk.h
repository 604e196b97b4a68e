/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PLS_GOSSIP_WALK_H
#define PLS_GOSSIP_WALK_H

#include "gossip/gossip.h"

/* Threads: owner thread for every function of this header; none blocks. */

/* A walk over all member numbers, pass after pass, each in another random order. All zero is a walk
 * that has not begun. */
typedef struct pls_walk {
    uint32_t bits; /* a pass is over 2^bits numbers */
    uint32_t at;
    uint64_t key;
} pls_walk;

/* The next member that is one of `who` (PLS_PICK_*) and not myself, PLS_MEMBER_NONE when there is
 * none. Each such member is met once in a pass; a new one in this pass or in the next. */
pls_member pls_walk_next(pls_gossip *gossip, pls_walk *walk, uint32_t who);

#endif
