/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PLS_NODE_PROCESS_GATEWAY_H
#define PLS_NODE_PROCESS_GATEWAY_H

#include "base/err.h"

#include <stdint.h>

/* Messages between processes of this host and other nodes, see docs/gateway.md. To the processes
 * here it is the process in slot 0; it exists only where node->net does.
 * Threads: the same for every function of this header: owner thread; never blocks, unless said. */

typedef struct pls_node pls_node;
typedef struct pls_client pls_client;
typedef struct pls_gateway pls_gateway;

/* Makes inbox and arena, and takes over the net's messages.
 * Errors:  as pls_inbox_create(), pls_arena_create(), pls_views_create(), pls_loop_watch().
 * Owns:    gives the gateway, which borrows `node` until destroy. */
PLS_MUST_USE pls_err pls_gateway_create(pls_node *node, pls_gateway **gateway_out);

/* Frees everything. The net goes first, since it reads what processes have lent. NULL is accepted.
 */
void pls_gateway_destroy(pls_gateway *gateway);

/* What processes need to write to it and to read what it lends; lent until destroy.
 * `pls_gateway_segment` is -1 for a segment that does not exist. */
int pls_gateway_inbox_fd(const pls_gateway *gateway);
int pls_gateway_bell_fd(const pls_gateway *gateway);
int pls_gateway_segment(const pls_gateway *gateway, uint32_t segment);

/* The kernel has confirmed this client's death: the gateway takes in what it wrote last, ends what
 * it had to do with it, and acknowledges, soon. */
void pls_gateway_client_dead(pls_gateway *gateway, const pls_client *client);

#endif
