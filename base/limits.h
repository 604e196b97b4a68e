/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PLS_BASE_LIMITS_H
#define PLS_BASE_LIMITS_H

/* Limits that more than one room relies on. A limit that one room alone needs lives in that room.
 */

/* Processes attached to one node, the node itself (slot 0) among them: one bit each in four
 * 64-bit doorbell words. */
#define PLS_SLOTS_MAX 256

/* Bytes of a name (actor, node, class, method) in UTF-8, without a terminating zero. */
#define PLS_NAME_BYTES_MAX 255

/* Cache line distance that keeps two writers apart; 128 because of adjacent-line prefetch. */
#define PLS_LINE_BYTES 128

_Static_assert(PLS_SLOTS_MAX % 64 == 0, "doorbell words are full");

#endif
