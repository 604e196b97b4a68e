/* SPDX-License-Identifier: Apache-2.0 */
/* What a welcomed sender may write: a run of DATA frames, some with a second part, to an owner that
 * takes, refuses and holds back. No message is handed over twice or incomplete; no memory is lost.
 */
#include "base/assert.h"
#include "zmq_transport/assembly.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len);

#define RESERVED_MAX 1000000

static unsigned mood; /* of the owner; changes with each question */
static uint64_t held; /* memory that was given out */

static pls_err on_message(void *owner, const pls_zmq_identity *from, const pls_zmq_arrival *arrival)
{
    uint64_t sum = 0;
    if (++mood % 7 == 0) {
        return PLS_EFULL;
    }
    for (uint64_t i = 0; i < arrival->body_bytes; i++) {
        sum += ((const uint8_t *)arrival->body)[i];
    }
    __asm__ volatile("" : : "r"(sum));
    held -= arrival->memory != NULL;
    free(arrival->memory);
    return PLS_OK;
}

static pls_err on_reserve(void *owner, const pls_zmq_identity *from, pls_zmq_arrival *arrival)
{
    if (++mood % 5 == 0) {
        return PLS_EFULL;
    }
    if (mood % 11 == 0 || arrival->body_bytes > RESERVED_MAX) {
        return PLS_EBUDGET;
    }
    arrival->memory = calloc(1, (size_t)arrival->body_bytes);
    pls_assert(arrival->memory != NULL);
    held++;
    return PLS_OK;
}

static void on_abandon(void *owner, const pls_zmq_arrival *arrival)
{
    held--;
    free(arrival->memory);
}

static size_t piece(pls_reader *r)
{
    size_t len = pls_read_u16(r);
    return len < pls_reader_left(r) ? len : pls_reader_left(r);
}

static pls_arrived *frame_take(pls_reader *r)
{
    size_t len = piece(r);
    if (r->bad || len == 0) {
        return NULL;
    }
    pls_arrived *frame = calloc(1, sizeof *frame);
    pls_assert(frame != NULL);
    pls_assert(pls_zmq_part_copy(&frame->records, pls_read_bytes(r, len), len) == PLS_OK);
    frame->done_bytes = 1;
    len = piece(r);
    if (!r->bad && len > 0) {
        pls_assert(pls_zmq_part_copy(&frame->chunk, pls_read_bytes(r, len), len) == PLS_OK);
        frame->has_chunk = true;
    }
    return frame;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
    static const pls_zmq_handlers handlers = {
        .message = on_message, .reserve = on_reserve, .abandon = on_abandon};
    pls_zmq zmq = {.handlers = &handlers};
    pls_origin origin = {0};
    pls_reader r = pls_reader_over(bytes, len);
    pls_err err = PLS_OK;
    mood = 0;
    while (err != PLS_EPROTO) {
        pls_assembly_result result = {0};
        pls_arrived *frame = frame_take(&r);
        if (frame == NULL) {
            break;
        }
        do {
            err = pls_assembly_work(&zmq, &origin, frame, &result);
        } while (err == PLS_EFULL);
        pls_arrived_free(frame);
    }
    pls_assembly_discard(&zmq, &origin);
    pls_assert(held == 0);
    return 0;
}
