/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PLS_NODE_PROCESS_ROSTER_H
#define PLS_NODE_PROCESS_ROSTER_H

#include "gossip/gossip.h"
#include "node/process/client.h"
#include "node/process/net.h"

/* Telling attached processes who belongs to the cluster.
 * Threads: the same for every function of this header: owner thread; never blocks. */

/* Serves the request of its name. */
void pls_roster_list(pls_client *client, pls_control_packet *packet);

/* Tells everybody who follows that something happened to a member. */
void pls_roster_tell(pls_net *net, const pls_action *action);

/* Likewise, that a unique name of this node is the winner's now. */
void pls_roster_name_lost(pls_net *net, const char *name, size_t name_bytes, pls_member winner);

#endif
