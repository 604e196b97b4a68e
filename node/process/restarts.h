/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PLS_NODE_PROCESS_RESTARTS_H
#define PLS_NODE_PROCESS_RESTARTS_H

#include "node/control_data.h"
#include "node/process/client.h"
#include "node/process/loop.h"

#include <stdbool.h>
#include <stdint.h>

/* Actors with a restart policy: where each lives, what it is rebuilt from, and how far its
 * rebuilding has come. Everything else lives at its birthplace for ever.
 * Threads: the same for every function of this header: owner thread; never blocks. */

#define PLS_RESTARTS_MAX (1u << 20)

typedef struct pls_restarts pls_restarts;

/* Errors:  PLS_ENOMEM. Owns: gives the table. */
PLS_MUST_USE pls_err pls_restarts_create(pls_node *node, pls_restarts **restarts_out);
void pls_restarts_destroy(pls_restarts *restarts);

/* Where an actor lives: its birthplace, or where it was rebuilt. `*rebuilding_out`: nowhere just
 * now, but it will. False: its process is gone for good, or never was. */
bool pls_restarts_where(pls_restarts *restarts, uint64_t actor, pls_client_key *key_out,
                        bool *rebuilding_out);

/* Serves RESTART_REGISTER. */
void pls_restarts_serve_register(pls_client *client, pls_control_packet *packet);

/* Forgets an actor; false: it was not there. */
bool pls_restarts_forget(pls_restarts *restarts, uint64_t actor);

/* Whether an actor may come back after its process's death. */
bool pls_restarts_has(pls_restarts *restarts, uint64_t actor);

/* A client is gone: its actors are rebuilt elsewhere, or lost. */
void pls_restarts_client_dead(pls_restarts *restarts, pls_client *client, bool in_order);

/* An actor failed inside a living process. */
void pls_restarts_failed(pls_restarts *restarts, uint64_t actor, pls_client *at, const char *text,
                         size_t text_bytes);

/* A worker has answered a rebuild. */
void pls_restarts_rebuilt(pls_restarts *restarts, uint64_t actor, pls_client *by, bool ok,
                          const char *text, size_t text_bytes);

#endif
