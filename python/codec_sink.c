/* SPDX-License-Identifier: Apache-2.0 */
/* The writer's side of a message: bytes that begin in the caller's memory and move to a bigger
 * place when they must, the memory that stays out of them, and the path to a value that could not
 * be written. The buffers are packed in the order in which the stream names them, so the reader
 * needs no table. */

#include "python/codec_internal.h"

#include "base/assert.h"

/* The first heap block; smaller ones would be outgrown at once. */
#define SINK_HEAP_BYTES_MIN 1024

static int sink_grow_heap(pls_sink *sink, size_t need)
{
    size_t used = pls_sink_len(sink);
    size_t capacity = (size_t)(sink->end - sink->begin) * 2;
    if (capacity < used + need) {
        capacity = used + need;
    }
    if (capacity < SINK_HEAP_BYTES_MIN) {
        capacity = SINK_HEAP_BYTES_MIN;
    }
    uint8_t *heap = PyMem_Realloc(sink->heap, capacity);
    if (heap == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    if (sink->heap == NULL && used > 0) {
        memcpy(heap, sink->begin, used);
    }
    sink->heap = heap;
    sink->begin = heap;
    sink->at = heap + used;
    sink->end = heap + capacity;
    return 0;
}

void pls_sink_init(pls_sink *sink, void *memory, size_t len, unsigned flags, void *context)
{
    sink->begin = memory;
    sink->at = memory;
    sink->end = len > 0 ? (uint8_t *)memory + len : memory;
    sink->grow = sink_grow_heap;
    sink->grow_context = NULL;
    sink->context = context;
    sink->codec = NULL;
    sink->flags = flags;
    sink->depth = 0;
    sink->nesting = 0;
    sink->buffer_count = 0;
    sink->buffer_capacity = PLS_SINK_BUFFERS_LOCAL;
    sink->buffers_bytes = 0;
    sink->buffers = sink->buffers_local;
    sink->heap = NULL;
    sink->container_count = 0;
    sink->path_at = PLS_SINK_PATH_BYTES;
}

void pls_sink_fini(pls_sink *sink)
{
    if (sink->buffer_count > 0) {
        pls_sink_drop_buffers(sink, 0, 0);
    }
    if (sink->buffers != sink->buffers_local) {
        PyMem_Free(sink->buffers);
        sink->buffers = sink->buffers_local;
        sink->buffer_capacity = PLS_SINK_BUFFERS_LOCAL;
    }
    if (sink->heap != NULL) {
        PyMem_Free(sink->heap);
        sink->heap = NULL;
        sink->begin = sink->at = sink->end = NULL;
    }
}

void pls_sink_drop_buffers(pls_sink *sink, uint32_t keep, size_t buffers_bytes)
{
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    while (sink->buffer_count > keep) {
        pls_sink_buffer *buffer = &sink->buffers[--sink->buffer_count];
        if (buffer->owner != NULL) {
            Py_DECREF(buffer->owner);
        } else {
            PyBuffer_Release(&buffer->view);
        }
    }
    sink->buffers_bytes = buffers_bytes;
    PyErr_Restore(type, value, traceback);
}

int pls_sink_grow(pls_sink *sink, size_t need)
{
    size_t used = pls_sink_len(sink);
    if (need > PLS_STREAM_BYTES_MAX || used > PLS_STREAM_BYTES_MAX - need) {
        return pls_codec_fail(sink->codec,
                              "a message of more than 4 GiB in small values cannot be sent; "
                              "send it in parts, or as numpy arrays or bytes");
    }
    int rc = sink->grow(sink, need);
    pls_assert(rc != 0 || (size_t)(sink->end - sink->at) >= need);
    return rc;
}

int pls_sink_put(pls_sink *sink, const void *bytes, size_t len)
{
    if (pls_sink_room(sink, len) != 0) {
        return -1;
    }
    if (len > 0) {
        memcpy(sink->at, bytes, len);
        sink->at += len;
    }
    return 0;
}

static size_t buffer_align(size_t offset)
{
    return (offset + PLS_CODEC_BUFFER_ALIGN - 1) & ~(size_t)(PLS_CODEC_BUFFER_ALIGN - 1);
}

/* A free entry at the end of the vector, or NULL with an exception. */
static pls_sink_buffer *buffer_push(pls_sink *sink)
{
    if (sink->buffer_count < sink->buffer_capacity) {
        return &sink->buffers[sink->buffer_count++];
    }
    uint32_t capacity = sink->buffer_capacity * 2;
    pls_sink_buffer *grown = PyMem_Malloc(capacity * sizeof *grown);
    if (grown == NULL) {
        PyErr_NoMemory();
        return NULL;
    }
    memcpy(grown, sink->buffers, sink->buffer_count * sizeof *grown);
    if (sink->buffers != sink->buffers_local) {
        PyMem_Free(sink->buffers);
    }
    sink->buffers = grown;
    sink->buffer_capacity = capacity;
    return &sink->buffers[sink->buffer_count++];
}

static int reference_put(pls_sink *sink, int kind, size_t len)
{
    int rc = pls_put_ext(sink, PLS_EXT_REFERENCE, PLS_REFERENCE_BODY_BYTES);
    if (rc != 0 || pls_sink_room(sink, PLS_REFERENCE_BODY_BYTES) != 0) {
        return rc != 0 ? rc : -1;
    }
    pls_store_u8(sink, (uint8_t)kind);
    pls_store_le32(sink, sink->buffer_count);
    pls_store_le64(sink, len);
    return 0;
}

int pls_sink_hold(pls_sink *sink, int kind, PyObject *owner, const void *bytes, size_t len)
{
    int rc = reference_put(sink, kind, len);
    if (rc != 0) {
        return rc;
    }
    pls_sink_buffer *buffer = buffer_push(sink);
    if (buffer == NULL) {
        return -1;
    }
    Py_INCREF(owner);
    buffer->owner = owner;
    buffer->bytes = bytes;
    buffer->len = len;
    sink->buffers_bytes = buffer_align(sink->buffers_bytes) + len;
    return 0;
}

int pls_sink_hold_view(pls_sink *sink, int kind, Py_buffer *view)
{
    int rc = reference_put(sink, kind, (size_t)view->len);
    pls_sink_buffer *buffer = rc == 0 ? buffer_push(sink) : NULL;
    if (buffer == NULL) {
        PyBuffer_Release(view);
        return rc != 0 ? rc : -1;
    }
    buffer->owner = NULL;
    buffer->view = *view;
    buffer->bytes = view->buf;
    buffer->len = (size_t)view->len;
    sink->buffers_bytes = buffer_align(sink->buffers_bytes) + buffer->len;
    return 0;
}

void pls_sink_copy_buffers(const pls_sink *sink, uint8_t *region)
{
    size_t offset = 0;
    for (uint32_t index = 0; index < sink->buffer_count; index++) {
        const pls_sink_buffer *buffer = &sink->buffers[index];
        size_t begin = buffer_align(offset);
        memset(region + offset, 0, begin - offset);
        memcpy(region + begin, buffer->bytes, buffer->len);
        offset = begin + buffer->len;
    }
    pls_assert(offset == sink->buffers_bytes);
}

void pls_sink_path_text(pls_sink *sink, const char *text)
{
    size_t len = strlen(text);
    if (len > sink->path_at) {
        sink->path_at = 0;
        return;
    }
    sink->path_at -= (uint32_t)len;
    memcpy(sink->path + sink->path_at, text, len);
}

void pls_sink_path_index(pls_sink *sink, size_t index)
{
    char text[32];
    PyOS_snprintf(text, sizeof text, "[%zu]", index);
    pls_sink_path_text(sink, text);
}

void pls_sink_path_key(pls_sink *sink, PyObject *key)
{
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    const char *utf8 = PyUnicode_CheckExact(key) ? PyUnicode_AsUTF8(key) : NULL;
    char text[64];
    if (utf8 != NULL) {
        PyOS_snprintf(text, sizeof text, "['%.40s']", utf8);
    } else {
        PyOS_snprintf(text, sizeof text, "[%.40s key]", Py_TYPE(key)->tp_name);
    }
    PyErr_Clear();
    pls_sink_path_text(sink, text);
    PyErr_Restore(type, value, traceback);
}
