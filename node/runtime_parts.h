/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PLS_NODE_RUNTIME_PARTS_H
#define PLS_NODE_RUNTIME_PARTS_H

#include "node/runtime.h"

/* An actor of another node, by which its target is found again. */
typedef struct pls_far {
    struct pls_far *next; /* in its hash bucket */
    pulsing_target *target;
    uint64_t actor_id;
    uint8_t node_id[PULSING_NODE_ID_BYTES];
} pls_far;

/* What the runtime's files call of each other.
 * Threads: owner thread; never blocks; the same for every function of this header. */

/* parcel.c */
pls_parcel *pls_parcel_new(const uint8_t *bytes, uint32_t len, uint16_t type, uint16_t flags);
void pls_parcel_free(pulsing *p, pls_parcel *parcel);
void pls_parcels_push(pls_parcels *list, pls_parcel *parcel);
void pls_parcels_push_front(pls_parcels *list, pls_parcel *parcel);
pls_parcel *pls_parcels_pop(pls_parcels *list);
/* Counts a parcel that waits for credit, room or a restart, against the limits of this process. */
void pls_waiting_add(pulsing *p, const pls_parcel *parcel);
void pls_waiting_sub(pulsing *p, const pls_parcel *parcel);

/* link.c: the link to (slot, epoch), made if need be; may block 5 s the first time. */
PLS_MUST_USE pls_err pls_link_get(pulsing *p, uint32_t slot, uint32_t epoch, bool to_send,
                                  pls_link **link_out);
/* Puts a parcel into the ring, or at the end of the link's queue. Takes it. PLS_EFULL: queued. */
pls_err pls_link_send(pulsing *p, pls_link *link, pls_parcel *parcel);
/* Publishes `len` bytes that were reserved in the ring to `slot`, for an actor or (0) none. */
void pls_link_publish(pulsing *p, uint32_t slot, uint32_t len, uint16_t type, uint16_t flags,
                      uint64_t actor_id);
void pls_link_flush(pulsing *p, uint32_t slot);
void pls_link_signal(pulsing *p, uint32_t slot, uint32_t epoch, pls_wire_type type, uint64_t id,
                     uint64_t value);
void pls_link_owed(pulsing *p, uint32_t slot);
void pls_links_close(pulsing *p);
/* death.c */
/* Of those whose end was told, the dead: the others may still write. */
pls_bitmap pls_deaths_over(const pulsing *p, const pls_bitmap *told);
/* Gives up what is shared with a process, if it is dead: after its last message was taken in. */
void pls_death_take(pulsing *p, uint32_t slot);
/* Notes that a process is dying, if it is; a second time, after the grace, ends what waits for it.
 */
void pls_dying_seen(pulsing *p, uint32_t slot);
/* Ends what waits for processes that have been dying for longer than the grace. */
void pls_dying_check(pulsing *p);

/* call.c */
uint64_t pls_call_open(pulsing *p, pulsing_target *target, void *user, uint32_t slot,
                       uint32_t epoch, pls_call_state state);
pls_call *pls_call_find(pulsing *p, uint64_t call_id);
void pls_call_close(pulsing *p, uint64_t call_id);
/* Ends a call of ours with a status and a text; nothing if it is unknown. */
void pls_call_end(pulsing *p, uint64_t call_id, pulsing_status status, const char *text);
void pls_calls_end_all(pulsing *p, pulsing_status status, const char *text);
void pls_calls_slot_died(pulsing *p, uint32_t slot, uint32_t epoch, const char *text);
/* Ends a request under way with a status and a text: its handler is told that nobody waits. */
void pls_call_give_up(pulsing *p, uint64_t call_id, pulsing_status status, const char *text);
void pls_call_reply(pulsing *p, const pls_arrival *arrival);
void pls_call_stream_signal(pulsing *p, const pls_arrival *arrival, const pls_wire_signal *signal);
/* Payload and block of an arrival whose fixed part is `fixed_bytes` long.
 * Errors: PLS_EPROTO, and what pls_block_open() gives. */
PLS_MUST_USE pls_err pls_message_payload(pulsing *p, const pls_arrival *arrival,
                                         uint32_t fixed_bytes, uint32_t payload_bytes,
                                         pulsing_message *message);

/* target.c */
void pls_target_credit(pulsing *p, pulsing_target *target, uint32_t count);
/* Whether the next request may leave now, if none waits before it. */
bool pls_target_may_leave(pulsing *p, pulsing_target *target);
/* Sends what waits and may leave. */
void pls_target_flush(pulsing *p, pulsing_target *target);
/* Takes a request that waits out of its queue; false if it has left. */
bool pls_target_unqueue(pulsing *p, pulsing_target *target, uint64_t call_id);
/* Whether a request still waits in its queue. */
bool pls_target_holds(const pulsing_target *target, uint64_t call_id);
/* A restartable actor is not where it was: messages wait until the node has said where it is.
 * False for other actors, which are simply dead. */
bool pls_target_lost_sight(pulsing *p, pulsing_target *target);
void pls_targets_slot_died(pulsing *p, uint32_t slot, uint32_t epoch, const char *text, bool dying);
void pls_targets_free(pulsing *p);
pulsing_target *pls_target_find(pulsing *p, uint64_t actor_id);
/* far.c: the last ref to an actor of another node is gone. */
void pls_far_forget(pulsing *p, pls_far *far);

/* started.c */
/* A request starts: recorded if its sender keeps a copy. */
void pls_started_record(pulsing *p, const pls_arrival *arrival);
/* A tell starts or is refused: counted if its sender keeps no copy. */
void pls_started_taken(pulsing *p, const pls_arrival *arrival);
/* It is refused instead: recorded with the last one of its sender that waits `before` it. */
void pls_started_refused(pulsing *p, const pls_parcels *before, const pls_arrival *arrival);

/* retain.c */
/* Gives a restartable target the number of a started word, if it has none. False: all are needed;
 * the target is flushed when one is free. */
bool pls_retain_ready(pulsing *p, pulsing_target *target);
/* Keeps a copy of a request that leaves for a restartable actor, and numbers it in its head. */
PLS_MUST_USE pls_err pls_retain_add(pulsing *p, pulsing_target *target, const pls_leaving *leaving);
/* Drops the copies of what is known to be started; true if none is left. */
bool pls_retain_idle(pulsing *p, pulsing_target *target);
/* Gives the number back, and in the second form drops the copies, too. */
void pls_retain_leave(pulsing *p, pulsing_target *target);
void pls_retain_forget(pulsing *p, pulsing_target *target);
/* Flushes those that wait for a number. */
void pls_retain_starved(pulsing *p);
/* Messages that have left and are not known to be started. */
uint32_t pls_retain_count(pulsing *p);

/* send.c */
void pls_send_text(pulsing *p, const pulsing_origin *origin, pulsing_status status,
                   const char *text);
/* Puts a request on its way to its target's process. Takes it. */
pls_err pls_send_request(pulsing *p, pls_parcel *parcel);
void pls_send_self(pulsing *p, pls_parcel *parcel);
/* A parcel that will never arrive: its call ends, its sender is told. Takes it. */
void pls_send_failed(pulsing *p, pls_parcel *parcel, pulsing_status status, const char *text);

/* actor.c */
pulsing_actor *pls_actor_find(const pulsing *p, uint64_t id);
/* Whether this request of (slot, epoch) waits in the mailbox, or is the one that is suspended. */
bool pls_actor_has(const pulsing *p, const pulsing_actor *actor, uint32_t slot, uint32_t epoch,
                   uint64_t call_id);
void pls_actor_request(pulsing *p, const pls_arrival *arrival, bool defer);
void pls_actors_run(pulsing *p);
void pls_actor_cancel(pulsing *p, const pls_arrival *arrival, const pls_wire_signal *signal);
void pls_actors_free(pulsing *p);
/* owed.c: a tell of a windowed sender was taken, whose credit goes back in bundles of half a
 * window; of an actor that ends, at once. */
void pls_owe(pulsing *p, pulsing_actor *actor, const pls_arrival *from);
void pls_owed_settle(pulsing *p, pulsing_actor *actor);
/* A handler has raised: noted at its actor. */
void pls_actor_raised(pulsing *p, const pulsing_origin *origin);

/* letters.c */
void pls_dead_letter(pulsing *p, pulsing_status reason);
void pls_dead_letters(pulsing *p, pulsing_status reason, uint64_t count);
/* A tell has entered the ring to its target's process. */
void pls_letters_told(pulsing *p, const pulsing_target *target);
/* The process at the other end is dead: counts what it had not dealt with. */
void pls_letters_lost(pulsing *p, const pls_link *link);

/* cycle.c: whether a request for this actor, which is at its limit, closes a circle of asks that
 * wait for it; writes the names. */
bool pls_cycle_of_chain(pulsing *p, uint64_t actor_id, const pulsing_message *message, char *text,
                        size_t capacity);
void pls_cycle_probe(pulsing *p, const pls_arrival *arrival);

/* runtime.c: after pulsing_close() and the last block of our own. */
void pls_runtime_free(pulsing *p);

/* block.c: the block that an arrival announces; NULL and PLS_OK if none. */
PLS_MUST_USE pls_err pls_block_open(pulsing *p, const pls_arrival *arrival,
                                    pulsing_block **block_out);
/* Opens the blocks of a dead process in messages that wait in mailboxes: later nobody names it. */
void pls_blocks_secure(pulsing *p, uint32_t slot, uint32_t epoch);
void pls_block_decline(pulsing *p, uint32_t slot, uint32_t epoch, const pls_descriptor *descriptor);
void pls_blocks_sweep(pulsing *p);

#endif
