/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PLS_NODE_PROCESS_GREETING_H
#define PLS_NODE_PROCESS_GREETING_H

#include "node/process/client.h"

/* How a process becomes one of the system.
 * Threads: the same for every function of this header: owner thread; never blocks. */

/* Serves HELLO: who it is, and its slot. */
void pls_greeting_hello(pls_client *client, pls_control_packet *packet);

/* Serves ATTACH: its inbox; from then on it is one of the system. */
void pls_greeting_attach(pls_client *client, pls_control_packet *packet);

#endif
