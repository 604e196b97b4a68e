/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PLS_SIM_LEDGER_H
#define PLS_SIM_LEDGER_H

#include "tests/sim/world.h"

/* Names of the two kinds that a ledger knows; the unique ones come last. */
#define PLS_SIM_PLAIN_NAMES 10
#define PLS_SIM_UNIQUE_NAMES 2
#define PLS_SIM_NAMES (PLS_SIM_PLAIN_NAMES + PLS_SIM_UNIQUE_NAMES)

/* What each node has registered, kept beside the world so that the replicas can be compared with
 * the truth rather than with each other. */
typedef struct pls_sim_ledger {
    pls_sim_world *world;
    uint64_t (*values)[PLS_SIM_NAMES]; /* by node; 0: not registered */
    uint64_t last_value;
} pls_sim_ledger;

/* An empty ledger. Running out of memory aborts.
 * Owns:    borrows the world until fini.
 * Threads: owner thread for this and all functions below. */
void pls_sim_ledger_init(pls_sim_ledger *ledger, pls_sim_world *world);
void pls_sim_ledger_fini(pls_sim_ledger *ledger);

/* A running node registers a name (0..PLS_SIM_NAMES-1) with a new value; false when it may not. */
bool pls_sim_ledger_put(pls_sim_ledger *ledger, uint32_t node, uint32_t name);

/* A running node removes a name, if it has it. */
void pls_sim_ledger_remove(pls_sim_ledger *ledger, uint32_t node, uint32_t name);

/* Takes note of an action: a node that lost a unique name does not have it any more. */
void pls_sim_ledger_action(pls_sim_ledger *ledger, uint32_t node, const pls_action *action);

/* A node stopped: its names go with it. */
void pls_sim_ledger_stopped(pls_sim_ledger *ledger, uint32_t node);

/* True when every running node finds exactly what the running nodes have registered.
 * `text_out` (160 bytes) says what differs. */
bool pls_sim_ledger_agrees(const pls_sim_ledger *ledger, char *text_out);

#endif
