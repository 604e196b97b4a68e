/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PLS_TESTS_STRESS_LETTER_H
#define PLS_TESTS_STRESS_LETTER_H

#include "shm/inbox.h"

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

/* A message that shows every damage: who wrote it, which one it is, how long it is, and a body of
 * one byte that follows from them. A letter with an enclosure has its body in a block of its
 * sender's arena, and the descriptor before its head. Written with memcpy and memset only, so that
 * it adds few instructions of our own to what is stepped. */
typedef struct letter {
    uint32_t epoch;
    uint32_t id;  /* counts the letters of one sender's epoch to one receiver from 1 */
    uint32_t len; /* of the body */
    uint32_t sum;
} letter;

#define LETTER_TYPE 7
#define LETTER_SUM_FACTOR UINT32_C(2654435761)
#define LETTER_BYTES ((uint32_t)sizeof(letter))

static inline uint8_t letter_fill(uint32_t epoch, uint32_t id)
{
    return (uint8_t)(epoch * 31 + id * 7 + 1);
}

static inline letter letter_of(uint32_t epoch, uint32_t id, uint32_t len)
{
    uint32_t sum = ((epoch * LETTER_SUM_FACTOR ^ id) * LETTER_SUM_FACTOR ^ len) + 1;
    return (letter){.epoch = epoch, .id = id, .len = len, .sum = sum};
}

/* Write a letter with its body at `room`, which holds LETTER_BYTES + len. */
static inline void letter_write(uint8_t *room, uint32_t epoch, uint32_t id, uint32_t len)
{
    letter head = letter_of(epoch, id, len);
    memcpy(room, &head, sizeof head);
    memset(room + sizeof head, letter_fill(epoch, id), len);
}

/* Whether all bytes of a body are what its letter says. */
static inline bool letter_body_holds(const letter *head, const uint8_t *body)
{
    return head->len == 0 || (body[0] == letter_fill(head->epoch, head->id) &&
                              memcmp(body, body + 1, head->len - 1) == 0);
}

/* Whether a received message is a whole letter; gives its head, and its descriptor if it has an
 * enclosure, whose body the caller has to look at. */
static inline bool letter_read(const pls_message *message, letter *head_out,
                               pls_descriptor *descriptor_out)
{
    bool enclosed = (message->flags & PLS_FLAG_DESCRIPTOR) != 0;
    uint32_t prefix = enclosed ? (uint32_t)sizeof *descriptor_out : 0;
    if (message->type != LETTER_TYPE || message->len < prefix + LETTER_BYTES) {
        return false;
    }
    memcpy(descriptor_out, message->bytes, prefix);
    memcpy(head_out, message->bytes + prefix, sizeof *head_out);
    letter expected = letter_of(head_out->epoch, head_out->id, head_out->len);
    if (head_out->sum != expected.sum || head_out->epoch != message->from_epoch) {
        return false;
    }
    if (enclosed) {
        return descriptor_out->len == head_out->len && message->len == prefix + LETTER_BYTES;
    }
    return message->len == LETTER_BYTES + head_out->len &&
           letter_body_holds(head_out, message->bytes + LETTER_BYTES);
}

#endif
