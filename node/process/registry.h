/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PLS_NODE_PROCESS_REGISTRY_H
#define PLS_NODE_PROCESS_REGISTRY_H

#include "node/process/client.h"

/* Serving the requests about names, and the waits for them.
 * Threads: the same for every function of this header: owner thread; never blocks. */

/* Waits for names at one node, and of one client. */
#define PLS_NAME_WAITERS_MAX 65536
#define PLS_NAME_WAITERS_PER_CLIENT_MAX 16384

/* Begins to keep the cluster told of public names. */
void pls_registry_open(pls_node *node);

/* An actor of another node has a name that somebody may wait for. */
void pls_registry_heard(pls_node *node, const char *name, size_t name_bytes);

/* A unique name of this node is another node's now: here it becomes a private one. */
void pls_registry_lost(pls_node *node, const char *name, size_t name_bytes);

/* Each serves the request of its name. */
void pls_registry_register(pls_client *client, pls_control_packet *packet);
void pls_registry_unregister(pls_client *client, pls_control_packet *packet);
void pls_registry_find(pls_client *client, pls_control_packet *packet);
void pls_registry_list(pls_client *client, pls_control_packet *packet);

/* Gives up one wait; an unknown one is accepted. */
void pls_registry_cancel(pls_node *node, pls_request_key key);

/* A client will not run again: its waits end, and so do the names of its actors that have no
 * restart policy. */
void pls_registry_client_dying(pls_client *client);

/* Frees all waits. */
void pls_registry_fini(pls_node *node);

#endif
