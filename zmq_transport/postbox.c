/* SPDX-License-Identifier: Apache-2.0 */
/* A line holds the letters of one stream from the oldest that the peer has not acknowledged to the
 * newest; `next` is the first that is not wholly sent. Sequences are given when a letter is first
 * begun, so those of a line rise by one without a gap up to `next`, and are 0 behind it.
 * Called by the peer: append from the owner's sends, compose when its connection takes more,
 * complete and rewind from what the peer says. */
#include "zmq_transport/postbox.h"

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

struct pls_postbox {
    pls_tray *tray;
    pls_zmq_counters *counters;
    line lines[PLS_FRAME_STREAMS];
    line *turn_first;
    line *turn_last;
    uint64_t count;
    uint64_t bytes;
};

pls_err pls_postbox_create(pls_tray *tray, pls_zmq_counters *counters, pls_postbox **box_out)
{
    pls_postbox *box = calloc(1, sizeof *box);
    if (box == NULL) {
        return PLS_ENOMEM;
    }
    box->tray = tray;
    box->counters = counters;
    *box_out = box;
    return PLS_OK;
}

void pls_postbox_destroy(pls_postbox *box)
{
    if (box != NULL) {
        pls_postbox_abandon(box);
        free(box);
    }
}

static void turn_append(pls_postbox *box, line *l)
{
    if (l->queued || l->next == NULL) {
        return;
    }
    l->queued = true;
    l->turn = NULL;
    if (box->turn_last == NULL) {
        box->turn_first = l;
    } else {
        box->turn_last->turn = l;
    }
    box->turn_last = l;
}

static line *turn_take(pls_postbox *box)
{
    line *l = box->turn_first;
    box->turn_first = l->turn;
    if (box->turn_first == NULL) {
        box->turn_last = NULL;
    }
    l->queued = false;
    return l;
}

pls_err pls_postbox_append(pls_postbox *box, const pls_zmq_message *message)
{
    pls_letter *letter = NULL;
    pls_err err = pls_letter_create(box->tray, message, &letter);
    if (err != PLS_OK) {
        return err;
    }
    line *l = &box->lines[message->stream];
    if (l->last == NULL) {
        l->first = letter;
    } else {
        l->last->next = letter;
    }
    l->last = letter;
    if (l->next == NULL) {
        l->next = letter;
    }
    box->count++;
    box->bytes += letter->body_bytes;
    turn_append(box, l);
    return PLS_OK;
}

uint64_t pls_postbox_count(const pls_postbox *box)
{
    return box->count;
}

uint64_t pls_postbox_bytes(const pls_postbox *box)
{
    return box->bytes;
}

bool pls_postbox_ready(const pls_postbox *box)
{
    return box->turn_first != NULL;
}

/* Takes the oldest letter out of its line. */
static void settle_first(pls_postbox *box, line *l, pls_zmq_fate fate)
{
    pls_letter *letter = l->first;
    l->first = letter->next;
    if (l->first == NULL) {
        l->last = NULL;
    }
    if (l->next == letter) {
        l->next = letter->next;
    }
    box->count--;
    box->bytes -= letter->body_bytes;
    box->counters->sent_messages += fate == PLS_ZMQ_DELIVERED;
    box->counters->unsent_messages += fate == PLS_ZMQ_UNSENT;
    box->counters->unknown_messages += fate == PLS_ZMQ_UNKNOWN;
    letter->fate = fate;
    pls_letter_release(letter);
}

static bool is_small(const pls_letter *letter)
{
    return letter->body_bytes <= PLS_FRAME_INLINE_BYTES_MAX;
}

/* Writes the next record of a line, and moves on in it. */
static void record_compose(pls_postbox *box, line *l, pls_writer *w, pls_postbox_frame *frame)
{
    pls_letter *letter = l->next;
    uint64_t left = letter->body_bytes - letter->sent_bytes;
    uint32_t most = is_small(letter) ? PLS_FRAME_INLINE_BYTES_MAX : PLS_FRAME_CHUNK_BYTES_MAX;
    pls_frame_record record = {.chunk =
                                   letter->body == NULL ? NULL : letter->body + letter->sent_bytes,
                               .chunk_bytes = (uint32_t)(left < most ? left : most),
                               .stream = (uint8_t)(l - box->lines)};
    if (!letter->begun) {
        box->counters->resent_messages += letter->sequence != 0;
        if (letter->sequence == 0) {
            letter->sequence = ++l->sequence;
        }
        letter->begun = true;
        record.flags = PLS_FRAME_RECORD_BEGIN;
        record.sequence = letter->sequence;
        record.body_bytes = letter->body_bytes;
        record.head = letter->bytes;
        record.head_bytes = letter->head_bytes;
    }
    if (!is_small(letter)) {
        record.flags |= PLS_FRAME_RECORD_OUTSIDE;
        pls_letter_hold(letter);
        frame->letter = letter;
        frame->chunk = record.chunk;
        frame->chunk_bytes = record.chunk_bytes;
    }
    pls_frame_record_write(w, &record);
    letter->sent_bytes += record.chunk_bytes;
    if (letter->sent_bytes == letter->body_bytes) {
        l->next = letter->next;
    }
}

pls_err pls_postbox_compose(pls_postbox *box, pls_postbox_frame *frame)
{
    if (box->turn_first == NULL) {
        return PLS_EEMPTY;
    }
    pls_writer w = pls_writer_into(frame->records, sizeof frame->records);
    pls_write_u8(&w, PLS_FRAME_DATA);
    frame->letter = NULL;
    frame->chunk_bytes = 0;
    while (box->turn_first != NULL && frame->letter == NULL) {
        const pls_letter *letter = box->turn_first->next;
        size_t room = sizeof frame->records - pls_writer_len(&w);
        size_t need = PLS_FRAME_RECORD_OVERHEAD_BYTES + letter->head_bytes +
                      (is_small(letter) ? (size_t)letter->body_bytes : 0);
        if (need > room || pls_writer_len(&w) >= BATCH_BYTES) {
            break;
        }
        line *l = turn_take(box);
        record_compose(box, l, &w, frame);
        turn_append(box, l);
    }
    pls_assert(!w.bad);
    frame->records_bytes = pls_writer_len(&w);
    return PLS_OK;
}

pls_err pls_postbox_complete(pls_postbox *box, unsigned stream, uint64_t sequence)
{
    line *l = &box->lines[stream];
    while (l->first != NULL && l->first->sequence != 0 && l->first->sequence <= sequence) {
        /* On this connection it cannot be whole before all of it was sent. */
        if (l->first->sent_bytes != l->first->body_bytes || !l->first->begun) {
            return PLS_EPROTO;
        }
        settle_first(box, l, PLS_ZMQ_DELIVERED);
    }
    return sequence <= l->sequence ? PLS_OK : PLS_EPROTO;
}

static void line_rewind(pls_postbox *box, line *l, bool remembered, uint64_t completed)
{
    while (l->first != NULL && l->first->sequence != 0 &&
           (!remembered || l->first->sequence <= completed)) {
        settle_first(box, l, remembered ? PLS_ZMQ_DELIVERED : PLS_ZMQ_UNKNOWN);
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
    turn_append(box, l);
}

pls_err pls_postbox_rewind(pls_postbox *box, bool remembered,
                           const uint64_t completed[PLS_FRAME_STREAMS])
{
    for (unsigned stream = 0; stream < PLS_FRAME_STREAMS; stream++) {
        const line *l = &box->lines[stream];
        bool waits = l->first != NULL && l->first->sequence != 0;
        uint64_t acknowledged = waits ? l->first->sequence - 1 : l->sequence;
        if (remembered && (completed[stream] > l->sequence || completed[stream] < acknowledged)) {
            return PLS_EPROTO;
        }
    }
    box->turn_first = NULL;
    box->turn_last = NULL;
    for (unsigned stream = 0; stream < PLS_FRAME_STREAMS; stream++) {
        line_rewind(box, &box->lines[stream], remembered, completed[stream]);
    }
    return PLS_OK;
}

void pls_postbox_abandon(pls_postbox *box)
{
    for (unsigned stream = 0; stream < PLS_FRAME_STREAMS; stream++) {
        line *l = &box->lines[stream];
        while (l->first != NULL) {
            settle_first(box, l, l->first->sequence == 0 ? PLS_ZMQ_UNSENT : PLS_ZMQ_UNKNOWN);
        }
        l->queued = false;
        l->sequence = 0;
    }
    box->turn_first = NULL;
    box->turn_last = NULL;
    pls_assert(box->count == 0 && box->bytes == 0);
}

bool pls_postbox_check(const pls_postbox *box)
{
    uint64_t count = 0;
    uint64_t bytes = 0;
    for (unsigned stream = 0; stream < PLS_FRAME_STREAMS; stream++) {
        const line *l = &box->lines[stream];
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
    return count == box->count && bytes == box->bytes;
}
