/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PLS_GOSSIP_ISOLATION_H
#define PLS_GOSSIP_ISOLATION_H

#include "gossip/gossip.h"

/* Threads: owner thread for every function of this header; none blocks. */

/* Look again whether I have lost the many, and tell when that has changed. */
void pls_isolation_look(pls_gossip *gossip);

#endif
