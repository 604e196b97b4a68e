/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PLS_GOSSIP_DELTA_H
#define PLS_GOSSIP_DELTA_H

#include "gossip/outbox.h"
#include "gossip/registry.h"

/* Threads: owner thread for every function of this header; none blocks. */

/* How names travel: ranges of logs by gossip, suffixes by pull. */

/* Write the range (from, *to] of an owner's log as one message; `*to` becomes what it reaches. What
 * the copy does not hold, since it began anew meanwhile, counts as written.
 * False: nothing fits, and nothing was written. */
bool pls_delta_write(pls_gossip *gossip, pls_writer *packet, pls_member owner, uint64_t from,
                     uint64_t *to);

/* Messages of these kinds have come from `from`. */
void pls_delta_apply(pls_gossip *gossip, pls_target from, const pls_message *message);
void pls_delta_serve(pls_gossip *gossip, pls_target from, const pls_message *message);

/* `from` has names of `owner` up to `version` and a floor: ask for what is missing here, and
 * send what is missing there. */
void pls_delta_compare(pls_gossip *gossip, pls_target from, pls_member owner, uint64_t version,
                       uint64_t floor);

/* A live owner's names are looked up again; a dead one's are not. */
void pls_delta_owner_state(pls_gossip *gossip, pls_member owner, bool live);

/* Look after tombstones and dead owners' names. */
void pls_delta_tidy(pls_gossip *gossip);
uint64_t pls_delta_next_ns(const pls_gossip *gossip);

/* The next version of a log: store it, tell who watches, settle who owns a unique name, and gossip
 * it when it is mine. Errors:  PLS_ENOMEM, PLS_EFULL  nothing changed. */
PLS_MUST_USE pls_err pls_delta_commit(pls_gossip *gossip, uint32_t log,
                                      const pls_name_content *content);

/* A name of mine was removed at my log's version. */
void pls_delta_removed(pls_gossip *gossip);

/* Whether `a` rather than `b` holds a name that one of them registered as unique. */
bool pls_delta_wins(const pls_gossip *gossip, const pls_record *a, const pls_record *b);

/* Withdraw those of my names that another live owner wins. */
void pls_delta_conflicts(pls_gossip *gossip, pls_member other);

#endif
