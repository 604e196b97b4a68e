/* SPDX-License-Identifier: Apache-2.0 */
/* From Python objects into messages and back: the codec writes straight into the receiver's ring;
 * what is too large for that is copied once into a block of shared memory. */
#include "python/context.h"

#include <string.h>

#define ALIGN_UP(n) (((n) + PLS_CODEC_BUFFER_ALIGN - 1) & ~(size_t)(PLS_CODEC_BUFFER_ALIGN - 1))
/* From here on the copy takes longer than giving the GIL away and back. */
#define COPY_WITHOUT_GIL_BYTES (1u << 20)

static void region_copy(const pls_sink *sink, uint8_t *base, size_t payload, bool in_room)
{
    if (in_room) {
        memcpy(base, sink->begin, payload);
    }
    pls_sink_copy_buffers(sink, base + (in_room ? ALIGN_UP(payload) : 0));
}

/* Copies what does not go inline into a block. */
static pls_err room_fill(core_runtime *rt, const pls_sink *sink, bool in_room,
                         pulsing_room **room_out)
{
    size_t payload = pls_sink_len(sink);
    size_t total = (in_room ? ALIGN_UP(payload) : 0) + sink->buffers_bytes;
    uint8_t *base = NULL;
    pls_err err = pulsing_room_alloc(rt->p, total, room_out, &base);
    if (err != PLS_OK) {
        return err;
    }
    if (total >= COPY_WITHOUT_GIL_BYTES) {
        Py_BEGIN_ALLOW_THREADS
        region_copy(sink, base, payload, in_room);
        Py_END_ALLOW_THREADS
    } else {
        region_copy(sink, base, payload, in_room);
    }
    return PLS_OK;
}

/* Sends what the codec wrote, or aborts if `written` says that it failed. */
static int sink_send(core_runtime *rt, pulsing_send *send, pls_sink *sink, int written)
{
    pls_err err = PLS_OK;
    if (written < 0) {
        pulsing_abort(rt->p, send);
        pls_sink_fini(sink);
        return -1;
    }
    size_t payload = pls_sink_len(sink);
    bool in_room = sink->begin != send->at;
    pulsing_room *room = NULL;
    if (payload > UINT32_MAX) {
        err = PLS_ETOOBIG;
    } else if (in_room || sink->buffer_count > 0) {
        err = room_fill(rt, sink, in_room, &room);
    }
    pls_sink_fini(sink);
    if (err != PLS_OK) {
        pulsing_abort(rt->p, send);
        return core_fail(rt->state, err, "a large payload cannot be sent");
    }
    err = pulsing_commit(rt->p, send, (uint32_t)payload, room, in_room);
    if (err == PLS_OK || err == PLS_EFULL) {
        return err == PLS_EFULL;
    }
    return core_fail(rt->state, err, "the message was not sent");
}

static void sink_open(core_runtime *rt, pulsing_send *send, pls_sink *sink)
{
    pls_sink_init(sink, send->at, send->capacity, core_codec_flags(rt, send->slot), rt);
}

int core_send_object(core_runtime *rt, pulsing_send *send, PyObject *object)
{
    pls_sink sink;
    sink_open(rt, send, &sink);
    return sink_send(rt, send, &sink, pls_codec_encode(&rt->state->codec, object, &sink));
}

/* The node's own actors have no use for the variables of those who ask them; and variables stay on
 * their host. */
static int context_put(core_runtime *rt, pulsing_send *send, pls_sink *sink)
{
    if ((uint32_t)pulsing_target_id(send->target) == 0 || send->slot == PULSING_FAR_SLOT) {
        return 0;
    }
    bool near = pulsing_target_slot(send->target) == pulsing_slot(rt->p);
    return core_context_put(rt, near, sink, &send->context_bytes);
}

int core_send_message(core_runtime *rt, pulsing_send *send, PyObject *object)
{
    pls_sink sink;
    sink_open(rt, send, &sink);
    int written = pls_codec_encode(&rt->state->codec, object, &sink);
    if (written == 0) {
        written = context_put(rt, send, &sink);
    }
    return sink_send(rt, send, &sink, written);
}

int core_send_exception(core_runtime *rt, pulsing_send *send, PyObject *exception)
{
    pls_sink sink;
    sink_open(rt, send, &sink);
    int written = pls_codec_encode_exception(&rt->state->codec, exception, &sink);
    return sink_send(rt, send, &sink, written);
}

int core_send_call(core_runtime *rt, pulsing_send *send, PyObject *const *args, size_t arg_count,
                   PyObject *kwnames)
{
    pls_sink sink;
    sink_open(rt, send, &sink);
    int written = pls_codec_encode_call(&rt->state->codec, args, arg_count, kwnames, &sink);
    if (written == 0) {
        written = context_put(rt, send, &sink);
    }
    return sink_send(rt, send, &sink, written);
}

/* Sends the same payload as the one that was encoded before: a copy of what goes inline, the same
 * block for the rest. */
int core_send_payload(core_runtime *rt, pulsing_send *send, const core_payload *payload)
{
    pulsing_room *room = NULL;
    pls_err err = payload->room != NULL ? pulsing_room_share(rt->p, payload->room, &room) : PLS_OK;
    if (err != PLS_OK) {
        pulsing_abort(rt->p, send);
        return core_fail(rt->state, err, "the message was not sent");
    }
    if (!payload->in_room) {
        memcpy(send->at, payload->inline_bytes, payload->payload_bytes);
    }
    send->context_bytes = payload->context_bytes;
    err = pulsing_commit(rt->p, send, payload->payload_bytes, room, payload->in_room);
    if (err == PLS_OK || err == PLS_EFULL) {
        return err == PLS_EFULL;
    }
    return core_fail(rt->state, err, "the message was not sent");
}

int core_payload_encode(core_runtime *rt, PyObject *const *args, size_t arg_count,
                        PyObject *kwnames, unsigned flags, core_payload *payload)
{
    pls_sink sink;
    memset(payload, 0, offsetof(core_payload, inline_bytes));
    pls_sink_init(&sink, payload->inline_bytes, sizeof payload->inline_bytes,
                  flags & ~CORE_LEAVES_HOST, rt);
    if (pls_codec_encode_call(&rt->state->codec, args, arg_count, kwnames, &sink) < 0 ||
        ((flags & CORE_LEAVES_HOST) == 0 &&
         core_context_put(rt, false, &sink, &payload->context_bytes) < 0)) {
        pls_sink_fini(&sink);
        return -1;
    }
    payload->in_room = sink.begin != payload->inline_bytes;
    payload->payload_bytes = (uint32_t)pls_sink_len(&sink);
    pls_err err = pls_sink_len(&sink) > UINT32_MAX ? PLS_ETOOBIG : PLS_OK;
    if (err == PLS_OK && (payload->in_room || sink.buffer_count > 0)) {
        err = room_fill(rt, &sink, payload->in_room, &payload->room);
    }
    pls_sink_fini(&sink);
    return err == PLS_OK ? 0 : core_fail(rt->state, err, "a large payload cannot be sent");
}

void core_payload_free(core_runtime *rt, core_payload *payload)
{
    if (rt->p != NULL) {
        pulsing_room_free(rt->p, payload->room);
    }
    payload->room = NULL;
}

int core_reply_object(core_runtime *rt, const pulsing_origin *origin, PyObject *object)
{
    pulsing_send send;
    pls_err err = pulsing_reply_begin(rt->p, origin, PULSING_OK, &send);
    if (err != PLS_OK) {
        return 0; /* nobody is there to read it */
    }
    return core_send_object(rt, &send, object) < 0 ? -1 : 0;
}

void core_reply_text(core_runtime *rt, const pulsing_origin *origin, pulsing_status status,
                     const char *text)
{
    pulsing_send send;
    if (origin->call_id == 0 || pulsing_reply_begin(rt->p, origin, status, &send) != PLS_OK) {
        return;
    }
    size_t len = strnlen(text, send.capacity);
    memcpy(send.at, text, len);
    (void)pulsing_commit(rt->p, &send, (uint32_t)len, NULL, false);
}

/* What was raised, for inspectors: its type, its text, and where. */
static void raised_tell(core_runtime *rt, const pulsing_origin *origin, PyObject *value)
{
    PyObject *text = value != NULL ? core_exception_words(value) : NULL;
    Py_ssize_t len = 0;
    const char *bytes = text != NULL ? PyUnicode_AsUTF8AndSize(text, &len) : NULL;
    if (bytes != NULL && rt->p != NULL) {
        pulsing_handler_raised(rt->p, origin, bytes, (size_t)len);
    }
    PyErr_Clear(); /* a text that cannot be made is not told */
    Py_XDECREF(text);
}

void core_reply_raised(core_runtime *rt, const pulsing_origin *origin)
{
    PyObject *value = core_exception_taken();
    raised_tell(rt, origin, value);
    pulsing_send send;
    if (origin->call_id != 0 &&
        pulsing_reply_begin(rt->p, origin, PULSING_RAISED, &send) == PLS_OK &&
        core_send_exception(rt, &send, value) < 0) {
        PyErr_Clear();
        core_reply_text(rt, origin, PULSING_BAD_MESSAGE, "its exception could not be sent");
    }
    Py_XDECREF(value);
}

int core_source(core_runtime *rt, const pulsing_message *message, pls_source *source,
                PyObject **block_out)
{
    *block_out = NULL;
    *source = pls_source_over(message->payload, message->payload_bytes,
                              core_codec_flags(rt, message->origin.slot), rt);
    if (message->block == NULL) {
        return 0;
    }
    uint64_t len = 0;
    size_t written = (size_t)message->payload_bytes + message->context_bytes;
    const uint8_t *bytes = pulsing_block_bytes(message->block, &len);
    bool in_block = message->payload == bytes;
    uint64_t offset = in_block ? ALIGN_UP(written) : 0;
    if (offset >= len) {
        return 0;
    }
    *block_out = core_block_new(rt->state, message->block);
    if (*block_out == NULL) {
        return -1;
    }
    pls_source_attach_region(source, bytes + offset, len - offset, *block_out, offset);
    return 0;
}
