/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PLS_SIM_DRIVE_H
#define PLS_SIM_DRIVE_H

#include "tests/sim/world.h"

/* What an event of the world's heap is. */
typedef enum pls_sim_event_code {
    PLS_SIM_EVENT_ARRIVE = 1, /* packet `value` reaches the node */
    PLS_SIM_EVENT_WAKE,       /* the node's next deadline */
    PLS_SIM_EVENT_READY,      /* a slow node has handled its last input */
    PLS_SIM_EVENT_BROKEN,     /* hint: the connection to member `value` broke */
    PLS_SIM_EVENT_REFUSED,    /* hint: the host of member `value` refused a connection */
    PLS_SIM_EVENT_CALL        /* the world's callback */
} pls_sim_event_code;

/* Sets the node's alarm to its next deadline. Threads: owner thread. */
void pls_sim_drive_arm(pls_sim_world *world, uint32_t node);

/* Lets a node that is neither paused nor busy do what is due and read its queue.
 * Threads: owner thread. */
void pls_sim_drive_catch_up(pls_sim_world *world, uint32_t node);

/* Sends what a stall has held back. Threads: owner thread. */
void pls_sim_drive_send_held(pls_sim_world *world, uint32_t node);

/* Throws a node's queued input and output away. Threads: owner thread. */
void pls_sim_drive_forget_packets(pls_sim_world *world, uint32_t node);

/* Mixes one number into the trace hash. Threads: owner thread. */
void pls_sim_drive_trace(pls_sim_world *world, uint64_t number);

/* The number behind an address; PLS_SIM_NOBODY when it is none of ours. Threads: any thread. */
uint32_t pls_sim_address_number(const char *address, uint32_t address_bytes);

#define PLS_SIM_ADDRESS_PREFIX "sim://"

#endif
