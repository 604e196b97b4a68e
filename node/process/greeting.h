/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PLS_NODE_PROCESS_GREETING_H
#define PLS_NODE_PROCESS_GREETING_H

#include "node/process/client.h"

/* Serving HELLO and ATTACH. Threads: owner thread; never blocks, for both. */

void pls_greeting_hello(pls_client *client, pls_control_packet *packet);
void pls_greeting_attach(pls_client *client, pls_control_packet *packet);

#endif
