/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PLS_GOSSIP_VALIDATE_H
#define PLS_GOSSIP_VALIDATE_H

#include "gossip/config.h"

/* Threads: any thread, on memory of its own, for every function of this header; none blocks. */

/* Whether every tunable is within its limits; the identity is checked where it is stored. */
bool pls_gossip_config_is_valid(const pls_gossip_config *config);

#endif
