/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PULSING_SEND_H
#define PULSING_SEND_H

#include "node/pulsing_types.h"

/* Sending: targets (actors as their senders see them), messages written in place, calls under way,
 * and the two ends of streams.
 * Threads: owner thread, the same for every function of this header; never blocks unless it says.
 */

/* The target for an actor id; the same object for the same id, with one more reference.
 * Units:   `window`: messages that may be under way to it at a time; 0: no limit (the receiver
 *          rejects). `restartable`: messages are kept until they are started.
 * Errors:  PLS_ENOMEM. Owns: gives a reference. Threads: owner thread; never blocks. */
PLS_MUST_USE pls_err pulsing_target_get(pulsing *p, uint64_t actor_id, uint32_t window,
                                        bool restartable, pulsing_target **target_out);
/* The same for an actor of another node; of this node, it is as above. The target has an id of its
 * own, which counts in this process alone.
 * Errors:  PLS_EUNSUPPORTED  this node has no network; else as pulsing_call_begin(). */
PLS_MUST_USE pls_err pulsing_target_far_get(pulsing *p,
                                            const uint8_t node_id[PULSING_NODE_ID_BYTES],
                                            uint64_t actor_id, uint32_t window,
                                            pulsing_target **target_out);
void pulsing_target_release(pulsing_target *target);
uint64_t pulsing_target_id(const pulsing_target *target);
uint32_t pulsing_target_slot(const pulsing_target *target);
uint32_t pulsing_target_epoch(const pulsing_target *target);
uint32_t pulsing_target_window(const pulsing_target *target);
bool pulsing_target_restartable(const pulsing_target *target);

/* Why the target is dead, or NULL while it is not. Lent until released. */
const char *pulsing_target_death(const pulsing_target *target);

/* The actor stopped or was lost: calls under way end with `status` and `text`, later ones fail.
 * Threads: owner thread; never blocks. */
void pulsing_target_kill(pulsing *p, uint64_t actor_id, pulsing_status status, const char *text);

/* The actor now lives in (slot, epoch): kept messages go there, in order.
 * Threads: owner thread; may block in the kernel. */
void pulsing_target_move(pulsing *p, uint64_t actor_id, uint32_t slot, uint32_t epoch);

/* Begins an ask or a tell; write the payload at send->at, then commit or abort. If more than
 * `capacity` is needed, put it into a pulsing_room.
 * Errors:  PLS_EDEAD  see pulsing_target_death(); PLS_EFULL  too many messages wait in this
 *          process; PLS_ECLOSED; PLS_EFORKED; PLS_ENOMEM; PLS_EFDLIMIT, PLS_ESYS.
 * Threads: owner thread; may block 5 s on the first message to a process. */
PLS_MUST_USE pls_err pulsing_call_begin(pulsing *p, pulsing_target *target,
                                        const pulsing_call *call, pulsing_send *send);

/* Begins an answer to a request, or an item or the end of a stream (`type` of pls_wire_type).
 * Errors:  PLS_EDEAD  nobody is there to read it; PLS_EINVAL for a tell; else as above. */
PLS_MUST_USE pls_err pulsing_reply_begin(pulsing *p, const pulsing_origin *origin,
                                         pulsing_status status, pulsing_send *send);
PLS_MUST_USE pls_err pulsing_stream_begin(pulsing *p, const pulsing_origin *reader, bool end,
                                          pulsing_status status, pulsing_send *send);

/* Sends what was begun. `room` NULL: the payload is the first `payload_bytes` at send->at.
 * Otherwise the room's last `payload_bytes` are it if `payload_in_room`, and its rest the buffers.
 * Takes `room`. Returns PLS_EFULL when the message waits for its turn (`sent` follows if asked
 * for), PLS_OK when it has left; other errors: it is lost, the call is forgotten.
 * Threads: owner thread; never blocks. */
pls_err pulsing_commit(pulsing *p, pulsing_send *send, uint32_t payload_bytes, pulsing_room *room,
                       bool payload_in_room);
void pulsing_abort(pulsing *p, pulsing_send *send);
/* Right after a commit that gave PLS_EFULL: `sent` is to be called with `user`. */
void pulsing_sent_notify(pulsing *p, void *user);

/* Shared memory for a large payload.
 * Errors:  PLS_EBUDGET, PLS_ETOOBIG, PLS_ENOMEM, PLS_EFDLIMIT.
 * Owns:    gives the room; `*base_out` is written by the caller. */
PLS_MUST_USE pls_err pulsing_room_alloc(pulsing *p, uint64_t bytes, pulsing_room **room_out,
                                        uint8_t **base_out);
/* The same memory once more, for another receiver of the same payload.
 * Errors:  PLS_ENOMEM. Owns: gives the room. */
PLS_MUST_USE pls_err pulsing_room_share(pulsing *p, const pulsing_room *room,
                                        pulsing_room **room_out);
void pulsing_room_free(pulsing *p, pulsing_room *room);

/* A one-word message: what a reader tells the writer of its stream. Errors as above. */
PLS_MUST_USE pls_err pulsing_stream_signal(pulsing *p, uint32_t slot, uint32_t epoch,
                                           uint64_t writer_id, uint64_t items, bool close);
/* Asks the writer (slot, epoch, id) to send its stream here as `user`; gives the reader's call. */
PLS_MUST_USE pls_err pulsing_stream_subscribe(pulsing *p, uint32_t slot, uint32_t epoch,
                                              uint64_t writer_id, void *user, uint64_t *call_out);

/* The same for a writer of another node. */
PLS_MUST_USE pls_err pulsing_stream_far_subscribe(pulsing *p, const pulsing_far_writer *writer,
                                                  void *user, uint64_t *call_out);

/* Nobody waits for this call any more: no callback follows, and the handler is told. */
void pulsing_call_cancel(pulsing *p, uint64_t call_id);
/* The time of this call is over: its handler is told, and the answer says how far it had come.
 * False if the message had not been sent; then the call is forgotten, without a callback. */
bool pulsing_call_expire(pulsing *p, uint64_t call_id);
/* The handler that asked is suspended on this call (or no more): what makes a cycle a deadlock. */
void pulsing_call_awaited(pulsing *p, uint64_t call_id, bool awaited);
/* Looks at calls that wait: asks that wait for each other in a circle are found within two patrols,
 * and the youngest of them ends in PULSING_DEADLOCK; calls older than `slow_ns` are told to `slow`
 * (0: none). Returns in how many ns to come again, at least 0.3 s; 0: when a call waits again. */
int64_t pulsing_patrol(pulsing *p, int64_t slow_ns);
uint32_t pulsing_call_count(const pulsing *p);
/* Further callbacks about this call are for `user`. */
void pulsing_call_user_set(pulsing *p, uint64_t call_id, void *user);
/* The writer id under which `user` gets stream_room and stream_open; 0: no memory. */
uint64_t pulsing_writer_add(pulsing *p, void *user, const pulsing_origin *reader);
void pulsing_writer_bind(pulsing *p, uint64_t writer_id, const pulsing_origin *reader);
void pulsing_writer_remove(pulsing *p, uint64_t writer_id);
/* What would be lost if this process left now: streams that it writes, messages that have not left,
 * and messages that may have to be sent again. */
uint32_t pulsing_unfinished_count(pulsing *p);

#endif
