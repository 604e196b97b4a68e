/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PLS_GOSSIP_NAMES_H
#define PLS_GOSSIP_NAMES_H

#include "gossip/gossip.h"

/* The replicated names: every node holds every name. Each owner has a log of its own names, written
 * by the owner alone, ordered by version; others copy it by gossiped deltas and fill holes by
 * digest and suffix. Several owners of one name are replicas of one service. A unique name has one
 * winner everywhere: the earlier stamp of the registry's logical clock, then the lower key; a
 * unique registration wins over plain ones. Names of dead and left owners are hidden, not searched.
 *
 * Threads: owner thread for every function of this header; none blocks. */

/* Register a name of mine, or change its value.
 * Units:   `name_bytes` 1..PLS_NAME_BYTES_MAX; `value` is the caller's.
 * Errors:  PLS_EINVAL  a length outside its limits.
 *          PLS_EEXIST  another live owner holds it and either registration is unique.
 *          PLS_EFULL  names_max is reached.
 *          PLS_ECLOSED  after leave.
 *          PLS_ENOMEM.  Nothing changed in all of them.
 * Owns:    borrows `name`, keeps a copy. */
PLS_MUST_USE pls_err pls_gossip_name_put(pls_gossip *gossip, const char *name, uint32_t name_bytes,
                                         uint64_t value, bool unique, uint64_t now_ns);

/* Remove a name of mine.
 * Errors:  PLS_ENOENT  it is not mine. PLS_ENOMEM  nothing changed. */
PLS_MUST_USE pls_err pls_gossip_name_remove(pls_gossip *gossip, const char *name,
                                            uint32_t name_bytes, uint64_t now_ns);

/* One owner of a name. */
typedef struct pls_name_hit {
    pls_member owner;
    bool unique;
    uint64_t value;
    uint64_t version; /* in the owner's log */
} pls_name_hit;

/* The live owners of a name, by their keys' order; a unique name's winner alone.
 * Units:   returns how many there are, of which the first `hits_max` are stored. */
uint32_t pls_gossip_name_find(const pls_gossip *gossip, const char *name, uint32_t name_bytes,
                              pls_name_hit *hits, uint32_t hits_max);

/* Ask for events (action.h) of a name, which need not exist yet. Watches are counted: as many
 * unwatch calls end it. One look with pls_gossip_name_find after this call misses nothing.
 * Errors:  PLS_EINVAL, PLS_EFULL, PLS_ENOMEM. */
PLS_MUST_USE pls_err pls_gossip_name_watch(pls_gossip *gossip, const char *name,
                                           uint32_t name_bytes);
void pls_gossip_name_unwatch(pls_gossip *gossip, const char *name, uint32_t name_bytes);

/* One entry of an owner's log as I hold it. Lends `name` until the next input. */
typedef struct pls_name_view {
    const char *name;
    uint32_t name_bytes;
    bool unique;
    bool removed; /* a tombstone */
    uint64_t value;
    uint64_t version;
    uint64_t stamp;
} pls_name_view;

/* Iterate over an owner's log, hidden or not, in the order of versions: the first entry whose
 * version is above `after`.
 * Errors:  PLS_ENOENT  no more; `view_out` untouched. */
PLS_MUST_USE pls_err pls_gossip_name_next(const pls_gossip *gossip, pls_member owner,
                                          uint64_t after, pls_name_view *view_out);

#endif
