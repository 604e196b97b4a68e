/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PLS_GOSSIP_WATCH_H
#define PLS_GOSSIP_WATCH_H

#include "gossip/registry.h"

/* Threads: owner thread for every function of this header; none blocks. */

/* Who waits for names. A watch is a record of log 0 beside the owners' records of the same name. */

/* A name of a visible log has changed; `was` it there before. */
void pls_watch_changed(pls_gossip *gossip, uint32_t log, const pls_name_content *content, bool was);

/* All names of a log come into view, or go out of it. */
void pls_watch_owner(pls_gossip *gossip, uint32_t log, bool visible);

#endif
