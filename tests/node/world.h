/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PLS_TESTS_NODE_WORLD_H
#define PLS_TESTS_NODE_WORLD_H

#include "node/attach.h"
#include "node/launch.h"
#include "node/requests.h"
#include "shm/inbox.h"

#include <stdbool.h>
#include <sys/types.h>

/* A system for one test: a real node with a real template, this process attached with a real inbox.
 * Every process of it carries a marker in its environment, by which leftovers are found. */

typedef struct world {
    pls_node_launched node;
    pls_attach *attach;
    pls_inbox *inbox;
} world;

/* Options with the stub package, for `workers` workers. Lends static memory. */
pls_node_options world_options(uint32_t workers);

/* Launches and joins; fails the test otherwise. */
void world_begin(world *w, const pls_node_options *options);

/* Joins a second time, over a socket, as another process would. */
void world_attach(world *w, int control_fd, pls_role role);

/* Asks for the end, waits for it and checks that nothing is left. */
void world_end(world *w);

/* The next event, waiting up to `ms`; false when none came. */
bool world_event(world *w, pls_attach_event *event, int ms);

/* The reply to a request, waiting up to `ms`; other events are dropped. Fails the test without. */
void world_reply(world *w, uint32_t request, pls_attach_event *event, int ms);

/* Places and waits; returns the status. */
pls_err world_place(world *w, pls_place_kind kind, uint32_t index, pls_attach_event *event);

/* Waits until (slot, epoch) has a state; false after `ms`. */
bool world_state_wait(world *w, uint32_t slot, uint32_t epoch, pls_slot_state state, int ms);

/* Waits until the slot's dead bit is in this process's inbox; false after `ms`. */
bool world_dead_wait(world *w, uint32_t slot, int ms);

uint32_t world_pid_of(world *w, uint32_t slot);

/* Processes with this test's marker, this one not counted. */
int world_leftovers(pid_t *pids, int pids_max);

/* Waits up to 2 s until there are none; prints those that are left. */
bool world_is_clean(void);

/* The template of this world's node, 0 when it has none. */
pid_t world_template(world *w);

double world_now_ms(void);
void world_pause_ms(int ms);

/* The actor with this number, born in the slot. */
uint64_t world_actor(uint32_t slot, uint32_t epoch, uint32_t number);

#endif
