/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PLS_NODE_PROCESS_SEEDS_H
#define PLS_NODE_PROCESS_SEEDS_H

#include "gossip/gossip.h"
#include "node/process/lookup.h"
#include "node/process/loop.h"
#include "node/process/net.h"
#include "node/process/reach.h"

/* The addresses that the user gave: where to listen, what to advertise, and the seeds. Names are
 * looked up again as long as no other node is known, so that a seed may appear later, or elsewhere.
 * Threads: the same for every function of this header: owner thread; never blocks, unless said. */

typedef struct pls_seed_place {
    const char *text; /* as the user wrote it; lent by the options */
    pls_reach reach;
    bool is_name;
    bool asked; /* a lookup is under way */
    uint32_t count;
    char endpoints[PLS_LOOKUP_ENDPOINTS_MAX][PLS_ENDPOINT_CAPACITY];
    char trouble[128]; /* why it has not answered, for people */
} pls_seed_place;

typedef struct pls_seeds {
    pls_net *net;
    pls_seed_place *places; /* the bind address, the advertised one, then the seeds */
    uint32_t count;
    uint32_t joined_count; /* endpoints that the membership has been given */
    char joined[PLS_SEEDS_MAX][PLS_ENDPOINT_CAPACITY];
    pls_lookup *lookup; /* NULL: every address is a number */
    pls_watch notice;
    pls_alarm again;
} pls_seeds;

#define PLS_SEED_BIND 0u
#define PLS_SEED_ADVERTISE 1u
#define PLS_SEED_FIRST 2u

/* Reads the addresses of the options, and waits for those that are needed to listen.
 * Errors:  PLS_EINVAL, PLS_ENOENT, PLS_ETIMEDOUT with `trouble`; PLS_ENOMEM, PLS_EFDLIMIT.
 * Threads: may block 3 s. */
PLS_MUST_USE pls_err pls_seeds_open(pls_seeds *seeds, pls_net *net, char *trouble);

/* Frees it; a zeroed one is accepted. */
void pls_seeds_close(pls_seeds *seeds);

/* The address that peers shall be told, with port 0 if that is still to be chosen: what the user
 * said, else where the node listens, else (it listens everywhere) the address from which it speaks
 * to a seed, else to the default route. */
void pls_seeds_own(const pls_seeds *seeds, pls_reach *own_out);

/* Gives the seeds to the membership, and keeps looking up those that are names. */
pls_err pls_seeds_join(pls_seeds *seeds);

/* An attempt to reach an endpoint came to this. */
void pls_seeds_trouble(pls_seeds *seeds, const char *endpoint, const char *text);

/* One line on the seeds that have not answered, for people.
 * Units:   the result is the length; always terminated. */
size_t pls_seeds_describe(const pls_seeds *seeds, char *text, size_t capacity);

/* Whether there is a seed other than this node itself. */
bool pls_seeds_are_others(const pls_seeds *seeds);

#endif
