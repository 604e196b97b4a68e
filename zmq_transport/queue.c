/* SPDX-License-Identifier: Apache-2.0 */
/* A line holds the letters of one stream from the oldest that the peer has not acknowledged to the
 * newest; `next` is the first that is not wholly sent. Sequences are given when a letter is first
 * begun, so those of a line rise by one without a gap up to `next`, and are 0 behind it.
 * Called by the peer: append from the owner's sends, compose when its connection takes more,
 * complete and rewind from what the peer says. */
#include "zmq_transport/queue.h"

#include "base/assert.h"

#include <stdlib.h>

/* A frame of small messages is sent when it has this much: more gains nothing, and delays. */
#define BATCH_BYTES 8192

typedef struct line {
    pls_letter *first;
    pls_letter *last;
    pls_letter *next;  /* to send; NULL: nothing */
    uint64_t sequence; /* last one given */
    struct line *turn; /* the next in the ring of those that have something to send */
    bool queued;       /* in that ring */
} line;

struct pls_queue {
    pls_tray *tray;
    pls_zmq_counters *counters;
    line lines[PLS_FRAME_STREAMS];
    line *turn_first;
    line *turn_last;
    uint64_t count;
    uint64_t bytes;
};

pls_err pls_queue_create(pls_tray *tray, pls_zmq_counters *counters, pls_queue **queue_out)
{
    pls_queue *queue = calloc(1, sizeof *queue);
    if (queue == NULL) {
        return PLS_ENOMEM;
    }
    queue->tray = tray;
    queue->counters = counters;
    *queue_out = queue;
    return PLS_OK;
}

void pls_queue_destroy(pls_queue *queue)
{
    if (queue != NULL) {
        pls_queue_abandon(queue);
        free(queue);
    }
}

static void turn_append(pls_queue *queue, line *l)
{
    if (l->queued || l->next == NULL) {
        return;
    }
    l->queued = true;
    l->turn = NULL;
    if (queue->turn_last == NULL) {
        queue->turn_first = l;
    } else {
        queue->turn_last->turn = l;
    }
    queue->turn_last = l;
}

static line *turn_take(pls_queue *queue)
{
    line *l = queue->turn_first;
    queue->turn_first = l->turn;
    if (queue->turn_first == NULL) {
        queue->turn_last = NULL;
    }
    l->queued = false;
    return l;
}

pls_err pls_queue_append(pls_queue *queue, const pls_zmq_message *message)
{
    pls_letter *letter = NULL;
    pls_err err = pls_letter_create(queue->tray, message, &letter);
    if (err != PLS_OK) {
        return err;
    }
    line *l = &queue->lines[message->stream];
    if (l->last == NULL) {
        l->first = letter;
    } else {
        l->last->next = letter;
    }
    l->last = letter;
    if (l->next == NULL) {
        l->next = letter;
    }
    queue->count++;
    queue->bytes += letter->body_bytes;
    turn_append(queue, l);
    return PLS_OK;
}

uint64_t pls_queue_count(const pls_queue *queue)
{
    return queue->count;
}

uint64_t pls_queue_bytes(const pls_queue *queue)
{
    return queue->bytes;
}

bool pls_queue_ready(const pls_queue *queue)
{
    return queue->turn_first != NULL;
}

/* Takes the oldest letter out of its line. */
static void settle_first(pls_queue *queue, line *l, pls_zmq_fate fate)
{
    pls_letter *letter = l->first;
    l->first = letter->next;
    if (l->first == NULL) {
        l->last = NULL;
    }
    if (l->next == letter) {
        l->next = letter->next;
    }
    queue->count--;
    queue->bytes -= letter->body_bytes;
    queue->counters->sent_messages += fate == PLS_ZMQ_DELIVERED;
    queue->counters->unsent_messages += fate == PLS_ZMQ_UNSENT;
    queue->counters->unknown_messages += fate == PLS_ZMQ_UNKNOWN;
    letter->fate = fate;
    pls_letter_release(letter);
}

static bool is_small(const pls_letter *letter)
{
    return letter->body_bytes <= PLS_FRAME_INLINE_BYTES_MAX;
}

/* Writes the next record of a line, and moves on in it. */
static void record_compose(pls_queue *queue, line *l, pls_writer *w, pls_queue_frame *frame)
{
    pls_letter *letter = l->next;
    uint64_t left = letter->body_bytes - letter->sent_bytes;
    uint32_t most = is_small(letter) ? PLS_FRAME_INLINE_BYTES_MAX : PLS_FRAME_CHUNK_BYTES_MAX;
    pls_record record = {.chunk = letter->body == NULL ? NULL : letter->body + letter->sent_bytes,
                         .chunk_bytes = (uint32_t)(left < most ? left : most),
                         .stream = (uint8_t)(l - queue->lines)};
    if (!letter->begun) {
        queue->counters->resent_messages += letter->sequence != 0;
        if (letter->sequence == 0) {
            letter->sequence = ++l->sequence;
        }
        letter->begun = true;
        record.flags = PLS_RECORD_BEGIN;
        record.sequence = letter->sequence;
        record.body_bytes = letter->body_bytes;
        record.head = letter->bytes;
        record.head_bytes = letter->head_bytes;
    }
    if (!is_small(letter)) {
        record.flags |= PLS_RECORD_OUTSIDE;
        pls_letter_hold(letter);
        frame->letter = letter;
        frame->chunk = record.chunk;
        frame->chunk_bytes = record.chunk_bytes;
    }
    pls_record_write(w, &record);
    letter->sent_bytes += record.chunk_bytes;
    if (letter->sent_bytes == letter->body_bytes) {
        l->next = letter->next;
    }
}

pls_err pls_queue_compose(pls_queue *queue, pls_queue_frame *frame)
{
    if (queue->turn_first == NULL) {
        return PLS_EEMPTY;
    }
    pls_writer w = pls_writer_into(frame->records, sizeof frame->records);
    pls_write_u8(&w, PLS_FRAME_DATA);
    frame->letter = NULL;
    frame->chunk_bytes = 0;
    while (queue->turn_first != NULL && frame->letter == NULL) {
        const pls_letter *letter = queue->turn_first->next;
        size_t room = sizeof frame->records - pls_writer_len(&w);
        size_t need = PLS_RECORD_OVERHEAD_BYTES + letter->head_bytes +
                      (is_small(letter) ? (size_t)letter->body_bytes : 0);
        if (need > room || pls_writer_len(&w) >= BATCH_BYTES) {
            break;
        }
        line *l = turn_take(queue);
        record_compose(queue, l, &w, frame);
        turn_append(queue, l);
    }
    pls_assert(!w.bad);
    frame->records_bytes = pls_writer_len(&w);
    return PLS_OK;
}

pls_err pls_queue_complete(pls_queue *queue, unsigned stream, uint64_t sequence)
{
    line *l = &queue->lines[stream];
    while (l->first != NULL && l->first->sequence != 0 && l->first->sequence <= sequence) {
        /* On this connection it cannot be whole before all of it was sent. */
        if (l->first->sent_bytes != l->first->body_bytes || !l->first->begun) {
            return PLS_EPROTO;
        }
        settle_first(queue, l, PLS_ZMQ_DELIVERED);
    }
    return sequence <= l->sequence ? PLS_OK : PLS_EPROTO;
}

static void line_rewind(pls_queue *queue, line *l, bool remembered, uint64_t completed)
{
    while (l->first != NULL && l->first->sequence != 0 &&
           (!remembered || l->first->sequence <= completed)) {
        settle_first(queue, l, remembered ? PLS_ZMQ_DELIVERED : PLS_ZMQ_UNKNOWN);
    }
    if (!remembered) {
        l->sequence = completed;
    }
    for (pls_letter *letter = l->first; letter != NULL && letter->begun; letter = letter->next) {
        letter->begun = false;
        letter->sent_bytes = 0;
    }
    l->next = l->first;
    l->queued = false;
    turn_append(queue, l);
}

pls_err pls_queue_rewind(pls_queue *queue, bool remembered,
                         const uint64_t completed[PLS_FRAME_STREAMS])
{
    for (unsigned stream = 0; stream < PLS_FRAME_STREAMS; stream++) {
        const line *l = &queue->lines[stream];
        bool waits = l->first != NULL && l->first->sequence != 0;
        uint64_t acknowledged = waits ? l->first->sequence - 1 : l->sequence;
        if (remembered && (completed[stream] > l->sequence || completed[stream] < acknowledged)) {
            return PLS_EPROTO;
        }
    }
    queue->turn_first = NULL;
    queue->turn_last = NULL;
    for (unsigned stream = 0; stream < PLS_FRAME_STREAMS; stream++) {
        line_rewind(queue, &queue->lines[stream], remembered, completed[stream]);
    }
    return PLS_OK;
}

void pls_queue_abandon(pls_queue *queue)
{
    for (unsigned stream = 0; stream < PLS_FRAME_STREAMS; stream++) {
        line *l = &queue->lines[stream];
        while (l->first != NULL) {
            settle_first(queue, l, l->first->sequence == 0 ? PLS_ZMQ_UNSENT : PLS_ZMQ_UNKNOWN);
        }
        l->queued = false;
        l->sequence = 0;
    }
    queue->turn_first = NULL;
    queue->turn_last = NULL;
    pls_assert(queue->count == 0 && queue->bytes == 0);
}

bool pls_queue_check(const pls_queue *queue)
{
    uint64_t count = 0;
    uint64_t bytes = 0;
    for (unsigned stream = 0; stream < PLS_FRAME_STREAMS; stream++) {
        const line *l = &queue->lines[stream];
        bool behind = false;
        uint64_t before = 0;
        for (const pls_letter *letter = l->first; letter != NULL; letter = letter->next) {
            behind = behind || letter == l->next;
            bool risen = letter->sequence == 0 || before == 0 || letter->sequence == before + 1;
            if (!risen || (!behind && letter->sent_bytes != letter->body_bytes) ||
                letter->sequence > l->sequence) {
                return false;
            }
            before = letter->sequence;
            count++;
            bytes += letter->body_bytes;
        }
        if (behind != l->queued || (l->next != NULL) != behind) {
            return false;
        }
    }
    return count == queue->count && bytes == queue->bytes;
}
