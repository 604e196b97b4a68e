/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PULSING_EXAMPLE_VALUES_H
#define PULSING_EXAMPLE_VALUES_H

#include "node/pulsing.h"

#include <msgpack.h>

/* Python's encoding of calls and results, as far as msgpack-c speaks it (docs/c-api.md).
 * Threads: owner thread; never blocks; the same for every function of this header. */

/* Reads the arguments of a method call, or the one value of a message or reply, into an array.
 * Errors:  false  these bytes are something else; `zone` is empty.
 * Owns:    the values lend from `zone` and from the message. */
bool values_read_call(const pulsing_message *message, msgpack_zone *zone,
                      msgpack_object_array *out);
bool values_read_one(const pulsing_message *message, msgpack_zone *zone, msgpack_object *out);

/* The bytes of a bin value, or of the first large buffer of the message; NULL if it is neither. */
const uint8_t *values_bytes(const pulsing_message *message, const msgpack_object *value,
                            uint64_t *len_out);

/* Begins the arguments of a call; the caller packs exactly `count` values after it. */
void values_call_begin(msgpack_packer *packer, uint32_t count);

/* Writes packed bytes as the payload of a begun message and sends it: in the message itself while
 * they fit, else in shared memory.
 * Errors:  as pulsing_room_alloc() and pulsing_commit(); PLS_EFULL is no failure: it will leave. */
pls_err values_send(pulsing *p, pulsing_send *send, const msgpack_sbuffer *packed);

#endif
