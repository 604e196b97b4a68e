/* SPDX-License-Identifier: Apache-2.0 */
/* Encoders write into memory that is large enough by the limits in the header; decoders believe
 * nothing: a length is compared with what is there before it is used, and every limit of the
 * encoders is a limit of the decoders, too. Called by lanes, inlets and the outgoing queue. */
#include "zmq_transport/frame.h"

#include "base/assert.h"

static void text_write(pls_writer *w, const char *text, uint8_t len)
{
    pls_write_u8(w, len);
    pls_write_bytes(w, text, len);
}

static const char *text_read(pls_reader *r, uint8_t *len_out)
{
    *len_out = pls_read_u8(r);
    return (const char *)pls_read_bytes(r, *len_out);
}

void pls_greeting_write(pls_writer *w, const pls_greeting *greeting)
{
    pls_write_u8(w, PLS_FRAME_GREETING);
    pls_write_u32(w, PLS_FRAME_MAGIC);
    pls_write_u16(w, greeting->version);
    pls_write_u16(w, PLS_FRAME_VERSION_LOWEST);
    pls_write_u8(w, (uint8_t)greeting->lane);
    pls_write_bytes(w, greeting->node_id, sizeof greeting->node_id);
    pls_write_u64(w, greeting->generation);
    pls_write_u64(w, greeting->target_generation);
    text_write(w, greeting->cluster, greeting->cluster_bytes);
    text_write(w, greeting->name, greeting->name_bytes);
    text_write(w, greeting->address, greeting->address_bytes);
}

void pls_greeting_prove(pls_writer *w, const uint8_t mac[PLS_ZMQ_MAC_BYTES])
{
    pls_write_bytes(w, mac, PLS_ZMQ_MAC_BYTES);
}

pls_err pls_greeting_read(const void *bytes, size_t len, pls_greeting *greeting_out)
{
    pls_greeting g = {0};
    pls_reader r = pls_reader_over(bytes, len);
    if (len > PLS_FRAME_GREETING_BYTES_MAX || pls_read_u8(&r) != PLS_FRAME_GREETING ||
        pls_read_u32(&r) != PLS_FRAME_MAGIC) {
        return PLS_EPROTO;
    }
    uint16_t highest = pls_read_u16(&r);
    uint16_t lowest = pls_read_u16(&r);
    if (r.bad || lowest > highest) {
        return PLS_EPROTO;
    }
    if (lowest > PLS_FRAME_VERSION || highest < PLS_FRAME_VERSION_LOWEST) {
        return PLS_EVERSION;
    }
    g.version = highest < PLS_FRAME_VERSION ? highest : PLS_FRAME_VERSION;
    uint8_t lane = pls_read_u8(&r);
    const uint8_t *node_id = pls_read_bytes(&r, sizeof g.node_id);
    g.generation = pls_read_u64(&r);
    g.target_generation = pls_read_u64(&r);
    g.cluster = text_read(&r, &g.cluster_bytes);
    g.name = text_read(&r, &g.name_bytes);
    g.address = text_read(&r, &g.address_bytes);
    g.proven_bytes = len - pls_reader_left(&r);
    const uint8_t *mac = pls_read_bytes(&r, sizeof g.mac);
    if (r.bad || pls_reader_left(&r) != 0 || lane >= PLS_LANE_COUNT || g.address_bytes == 0 ||
        g.address_bytes > PLS_FRAME_ADDRESS_BYTES_MAX) {
        return PLS_EPROTO;
    }
    g.lane = (pls_frame_lane)lane;
    memcpy(g.node_id, node_id, sizeof g.node_id);
    memcpy(g.mac, mac, sizeof g.mac);
    *greeting_out = g;
    return PLS_OK;
}

void pls_welcome_write(pls_writer *w, const pls_welcome *welcome)
{
    pls_write_u8(w, PLS_FRAME_WELCOME);
    pls_write_bytes(w, welcome->node_id, sizeof welcome->node_id);
    pls_write_u64(w, welcome->generation);
    pls_write_u64(w, welcome->session);
    pls_write_u32(w, welcome->window_bytes);
    pls_write_u32(w, welcome->window_frames);
    pls_write_bytes(w, welcome->completed, sizeof welcome->completed);
}

pls_err pls_welcome_read(const void *bytes, size_t len, pls_welcome *welcome_out)
{
    pls_welcome welcome;
    pls_reader r = pls_reader_over(bytes, len);
    bool right = pls_read_u8(&r) == PLS_FRAME_WELCOME;
    const uint8_t *node_id = pls_read_bytes(&r, sizeof welcome.node_id);
    welcome.generation = pls_read_u64(&r);
    welcome.session = pls_read_u64(&r);
    welcome.window_bytes = pls_read_u32(&r);
    welcome.window_frames = pls_read_u32(&r);
    const uint8_t *completed = pls_read_bytes(&r, sizeof welcome.completed);
    /* With less than one frame of window nothing would ever move. */
    if (r.bad || !right || pls_reader_left(&r) != 0 || welcome.window_frames == 0 ||
        welcome.window_bytes < PLS_FRAME_CHUNK_BYTES_MAX + PLS_FRAME_RECORDS_BYTES_MAX) {
        return PLS_EPROTO;
    }
    memcpy(welcome.node_id, node_id, sizeof welcome.node_id);
    memcpy(welcome.completed, completed, sizeof welcome.completed);
    *welcome_out = welcome;
    return PLS_OK;
}

void pls_refuse_write(pls_writer *w, pls_refuse_reason reason)
{
    pls_write_u8(w, PLS_FRAME_REFUSE);
    pls_write_u8(w, (uint8_t)reason);
}

pls_err pls_refuse_read(const void *bytes, size_t len, unsigned *reason_out)
{
    pls_reader r = pls_reader_over(bytes, len);
    bool right = pls_read_u8(&r) == PLS_FRAME_REFUSE;
    unsigned reason = pls_read_u8(&r);
    if (r.bad || !right) {
        return PLS_EPROTO;
    }
    *reason_out = reason;
    return PLS_OK;
}

const char *pls_refuse_text(unsigned reason)
{
#define REFUSE_TEXT(name, number, text)                                                            \
    if (reason == (number)) {                                                                      \
        return text;                                                                               \
    }
    PLS_REFUSE_TABLE(REFUSE_TEXT)
#undef REFUSE_TEXT
    return "another reason";
}

void pls_ack_write(pls_writer *w, const pls_ack *ack)
{
    pls_write_u8(w, PLS_FRAME_ACK);
    pls_write_u64(w, ack->bytes);
    pls_write_u64(w, ack->frames);
    pls_write_u64(w, ack->changed);
    for (unsigned stream = 0; stream < PLS_FRAME_STREAMS; stream++) {
        if ((ack->changed >> stream & 1) != 0) {
            pls_write_u64(w, ack->completed[stream]);
        }
    }
}

pls_err pls_ack_read(const void *bytes, size_t len, pls_ack *ack_out)
{
    pls_ack ack = {0};
    pls_reader r = pls_reader_over(bytes, len);
    bool right = pls_read_u8(&r) == PLS_FRAME_ACK;
    ack.bytes = pls_read_u64(&r);
    ack.frames = pls_read_u64(&r);
    ack.changed = pls_read_u64(&r);
    for (unsigned stream = 0; stream < PLS_FRAME_STREAMS; stream++) {
        if ((ack.changed >> stream & 1) != 0) {
            ack.completed[stream] = pls_read_u64(&r);
        }
    }
    if (r.bad || !right || pls_reader_left(&r) != 0) {
        return PLS_EPROTO;
    }
    *ack_out = ack;
    return PLS_OK;
}

void pls_frame_record_write(pls_writer *w, const pls_frame_record *record)
{
    pls_assert(record->head_bytes <= PLS_FRAME_HEAD_BYTES_MAX);
    pls_write_u8(w, record->flags);
    pls_write_u8(w, record->stream);
    pls_write_u32(w, record->chunk_bytes);
    if ((record->flags & PLS_FRAME_RECORD_BEGIN) != 0) {
        pls_write_u64(w, record->sequence);
        pls_write_u64(w, record->body_bytes);
        pls_write_u16(w, record->head_bytes);
        pls_write_bytes(w, record->head, record->head_bytes);
    }
    if ((record->flags & PLS_FRAME_RECORD_OUTSIDE) == 0) {
        pls_write_bytes(w, record->chunk, record->chunk_bytes);
    }
}

pls_err pls_frame_record_next(pls_reader *r, pls_frame_record *record_out)
{
    pls_frame_record record = {0};
    if (!r->bad && pls_reader_left(r) == 0) {
        return PLS_EEMPTY;
    }
    record.flags = pls_read_u8(r);
    record.stream = pls_read_u8(r);
    record.chunk_bytes = pls_read_u32(r);
    bool begins = (record.flags & PLS_FRAME_RECORD_BEGIN) != 0;
    bool outside = (record.flags & PLS_FRAME_RECORD_OUTSIDE) != 0;
    if ((record.flags & ~(PLS_FRAME_RECORD_BEGIN | PLS_FRAME_RECORD_OUTSIDE)) != 0 ||
        record.stream >= PLS_FRAME_STREAMS) {
        return PLS_EPROTO;
    }
    if (begins) {
        record.sequence = pls_read_u64(r);
        record.body_bytes = pls_read_u64(r);
        record.head_bytes = pls_read_u16(r);
        record.head = pls_read_bytes(r, record.head_bytes);
    }
    /* An inline body is whole; a cut one goes outside, in pieces that are not empty. */
    if (record.head_bytes > PLS_FRAME_HEAD_BYTES_MAX ||
        record.body_bytes > PLS_FRAME_BODY_BYTES_MAX ||
        (outside && (record.chunk_bytes == 0 || record.chunk_bytes > PLS_FRAME_CHUNK_BYTES_MAX)) ||
        (outside && begins && record.chunk_bytes > record.body_bytes) ||
        (!outside && (!begins || record.chunk_bytes != record.body_bytes ||
                      record.chunk_bytes > PLS_FRAME_INLINE_BYTES_MAX))) {
        return PLS_EPROTO;
    }
    record.chunk = outside ? NULL : pls_read_bytes(r, record.chunk_bytes);
    if (r->bad || (outside && pls_reader_left(r) != 0)) {
        return PLS_EPROTO;
    }
    *record_out = record;
    return PLS_OK;
}
