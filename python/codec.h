/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PLS_PYTHON_CODEC_H
#define PLS_PYTHON_CODEC_H

#include <Python.h>

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Python objects to message bytes and back.
 *
 * The bytes ("the stream") are msgpack with extension types for what msgpack would lose;
 * python/codec_wire.h lists them. Reader and writer are our own: msgpack-c builds a tree of its own
 * objects per message, and a call has to go from Python objects into the ring, and out of it, in
 * one step.
 *
 * Values above PLS_CODEC_INLINE_BYTES_MAX that are plain memory (bytes, bytearray, str, memoryview,
 * numpy arrays, pickles and their buffers) stay out of the stream. The sink keeps hold of them, the
 * stream names them by index and length, and the caller copies them once, packed in order, each at
 * a multiple of PLS_CODEC_BUFFER_ALIGN, into one region of memory. The reader computes the same
 * offsets.
 *
 * Everything here needs the GIL. "Errors: exception" means: -1 or NULL is returned with a Python
 * exception set; what does not follow the format, or may not be sent, is a pulsing CodecError. */

#define PLS_CODEC_INLINE_BYTES_MAX 2048
#define PLS_CODEC_BUFFER_ALIGN 64
/* Deeper structures travel as one pickle. */
#define PLS_CODEC_DEPTH_MAX 512
/* Types with hooks of their own: actor ref, system, Message. */
#define PLS_CODEC_SPECIALS_MAX 8
/* Extension codes that specials may use: first and last. */
#define PLS_CODEC_SPECIAL_FIRST 64
#define PLS_CODEC_SPECIAL_LAST 79

/* Flags of a sink and of a source. */
#define PLS_CODEC_ALLOW_PICKLE 1u /* without it nothing is pickled or unpickled */
#define PLS_CODEC_NO_BUFFERS 2u   /* sink: everything stays in the stream, whatever its size */

typedef struct pls_codec pls_codec;
typedef struct pls_sink pls_sink;
typedef struct pls_source pls_source;

/* Memory that the stream does not hold. `owner` or `view` keeps it alive until pls_sink_fini(). */
typedef struct pls_sink_buffer {
    const uint8_t *bytes;
    size_t len;
    PyObject *owner;
    Py_buffer view;
} pls_sink_buffer;

#define PLS_SINK_BUFFERS_LOCAL 2
#define PLS_SINK_PATH_BYTES 160

/* Bounded by `end`; grow() makes room. The caller reads begin..at and the buffers. */
struct pls_sink {
    uint8_t *begin;
    uint8_t *at;
    uint8_t *end;
    /* Makes end - at >= need: moves begin..at elsewhere and sets all three pointers. -1 with an
     * exception. */
    int (*grow)(pls_sink *sink, size_t need);
    void *grow_context;
    void *context;    /* handed to the hooks of special types: the runtime that sends */
    pls_codec *codec; /* set by the encode calls */
    unsigned flags;
    unsigned depth;
    unsigned nesting; /* streams inside of pickles inside of streams ... */
    uint32_t buffer_count;
    uint32_t buffer_capacity;
    size_t buffers_bytes; /* of the packed region so far */
    pls_sink_buffer *buffers;
    uint8_t *heap; /* what the default grow() allocated */
    uint32_t container_count;
    uint32_t path_at; /* where the text of the failing place begins in `path` */
    pls_sink_buffer buffers_local[PLS_SINK_BUFFERS_LOCAL];
    char path[PLS_SINK_PATH_BYTES];
};

/* An empty writer over the caller's memory, whose grow() is the default one: heap memory that
 * pls_sink_fini() frees. Set `grow` and `grow_context` afterwards for another.
 * Units:   `len` in bytes, 0 allowed.
 * Owns:    `memory` is the caller's and must outlive the sink or the first grow(). */
void pls_sink_init(pls_sink *sink, void *memory, size_t len, unsigned flags, void *context);

/* Lets go of every buffer and of the default grow()'s memory; safe to call twice, keeps any set
 * exception. */
void pls_sink_fini(pls_sink *sink);

static inline size_t pls_sink_len(const pls_sink *sink)
{
    return (size_t)(sink->at - sink->begin);
}

/* Copies the out-of-band buffers, packed and padded, to `region`, which is aligned to
 * PLS_CODEC_BUFFER_ALIGN and holds sink->buffers_bytes. Calls no Python: the GIL may be released
 * around it, the buffers are pinned. */
void pls_sink_copy_buffers(const pls_sink *sink, uint8_t *region);

/* Raw bytes into the stream: for the bodies of special types.
 * Errors:  exception. */
int pls_sink_put(pls_sink *sink, const void *bytes, size_t len);

struct pls_source {
    const uint8_t *at;
    const uint8_t *end;
    const uint8_t *region; /* the packed buffers; NULL when there are none */
    size_t region_len;
    PyObject *block;     /* exports memory that contains the region; NULL: buffers are copied */
    size_t block_offset; /* of the region inside what `block` exports */
    void *context;       /* handed to the hooks of special types: the runtime that receives */
    pls_codec *codec;    /* set by the decode calls */
    unsigned flags;
    unsigned depth;
    unsigned nesting;
    uint32_t buffer_index; /* of the next out-of-band buffer, and where it begins in the region */
    size_t buffer_offset;
    size_t
        owed; /* values that enclosing containers still expect before `end`, a byte each at least */
};

/* A reader over a stream that lies in memory the caller keeps in place during the decode. A process
 * that can still write there (the sender) can at worst make the decode fail or give other values:
 * every byte is fetched once before it is judged. */
pls_source pls_source_over(const void *stream, size_t len, unsigned flags, void *context);

/* Where the out-of-band buffers are.
 * Units:   `region_len` in bytes; `block_offset` + `region_len` <= length that `block` exports.
 * Owns:    borrows `block`; arrays and views that the decode makes keep references to it. `block`
 * exports read-only contiguous memory and the region lies at `block_offset` of it. With `block`
 * NULL the memory is only read during the decode. */
void pls_source_attach_region(pls_source *source, const uint8_t *region, size_t region_len,
                              PyObject *block, size_t block_offset);

/* Lends `len` raw bytes of a special's body, valid while the stream is.
 * Errors:  exception (CodecError) when fewer are left. */
const uint8_t *pls_source_take(pls_source *source, size_t len);

/* Writes the body of a special object (bytes by pls_sink_put(), values by pls_codec_put()).
 * Errors:  exception. */
typedef int (*pls_special_encode)(pls_codec *codec, PyObject *object, pls_sink *sink);

/* Makes the object from its body; `source` ends where the body ends and must be read to its end.
 * Errors:  exception. Owns: gives a new reference. */
typedef PyObject *(*pls_special_decode)(pls_codec *codec, pls_source *source);

typedef struct pls_special {
    PyTypeObject *type;
    pls_special_encode encode;
    pls_special_decode decode;
    int code;
} pls_special;

/* Sits in the module state; zeroed memory is a valid empty codec. Fields belong to codec*.c. */
struct pls_codec {
    pls_special specials[PLS_CODEC_SPECIALS_MAX];
    unsigned special_count;
    struct pls_codec_numpy *numpy;
    struct pls_codec_names *names;
    void *datetime;  /* the datetime module's C interface */
    PyObject *error; /* pulsing._errors.CodecError */
    PyObject *dumps; /* pulsing._pickling.dumps ... */
    PyObject *loads;
    PyObject *exception_pack;
    PyObject *exception_unpack;
    PyObject *strings[16]; /* interned attribute names */
};

/* Prepares an empty codec; imports nothing.
 * Errors:  exception. */
int pls_codec_init(pls_codec *codec);

/* For the module's m_traverse and m_clear: clear lets go of what can be part of a cycle. Objects
 * that outlive it at shutdown can still use the codec, without its special types. */
int pls_codec_traverse(pls_codec *codec, visitproc visit, void *arg);
void pls_codec_clear(pls_codec *codec);

/* For the module's m_free: everything that init and use made. Safe to call twice. */
void pls_codec_fini(pls_codec *codec);

/* Objects whose type is exactly `type` travel by the two hooks, alone or inside of anything else,
 * pickled objects included. Units:   `code` in PLS_CODEC_SPECIAL_FIRST..LAST, one per type. Errors:
 * exception when the table is full or the code is taken. Owns: keeps a reference to `type`. */
int pls_codec_register(pls_codec *codec, PyTypeObject *type, int code, pls_special_encode encode,
                       pls_special_decode decode);

/* One object into an empty sink.
 * Errors:  exception; CodecError says which part of the object cannot be sent and what to do. After
 * an error the sink's content is undefined; pls_sink_fini() it. */
int pls_codec_encode(pls_codec *codec, PyObject *object, pls_sink *sink);

/* One object out of a source, which must end with it.
 * Errors:  exception; CodecError names what was wrong with the bytes. Owns: gives a new reference.
 */
PyObject *pls_codec_decode(pls_codec *codec, pls_source *source);

/* A call's arguments into an empty sink, as the vectorcall protocol gives them.
 * Units:   `args` holds `arg_count` positional values, then one value for each of `kwnames` (a
 * tuple of str, or NULL). PY_VECTORCALL_ARGUMENTS_OFFSET must have been removed from `arg_count`.
 * Errors:  exception; the text of a CodecError begins with the argument's number or name. */
int pls_codec_encode_call(pls_codec *codec, PyObject *const *args, size_t arg_count,
                          PyObject *kwnames, pls_sink *sink);

#define PLS_CALL_LOCAL 10

/* Decoded arguments. `stack[0]` is the caller's (self, or scratch for
 * PY_VECTORCALL_ARGUMENTS_OFFSET): PyObject_Vectorcall(function, call.stack + 1, call.arg_count |
 * PY_VECTORCALL_ARGUMENTS_OFFSET, call.kwnames) call.stack[0] = self; PyObject_Vectorcall(unbound,
 * call.stack, call.arg_count + 1, call.kwnames) */
typedef struct pls_call {
    PyObject **stack;
    size_t arg_count;
    size_t kw_count;
    PyObject *kwnames; /* tuple of interned str, or NULL when there are no keyword arguments */
    PyObject *local[PLS_CALL_LOCAL];
} pls_call;

/* The inverse of pls_codec_encode_call().
 * Errors:  exception; `call` is empty then and need not be cleared.
 * Owns:    gives the values and the names, to be let go by pls_call_clear(). `call` must not move.
 */
int pls_codec_decode_call(pls_codec *codec, pls_source *source, pls_call *call);

/* Lets go of the arguments; stack[0] is not touched. Keeps any set exception. */
void pls_call_clear(pls_call *call);

/* One value at the current place of a stream: for the bodies of special types.
 * Errors:  exception. */
int pls_codec_put(pls_codec *codec, PyObject *object, pls_sink *sink);
PyObject *pls_codec_take(pls_codec *codec, pls_source *source);

/* An exception object into an empty sink: its class, arguments, attributes and notes, and the text
 * of its traceback as this process sees it. Never refuses: what cannot travel is left out. Errors:
 * exception (memory). */
int pls_codec_encode_exception(pls_codec *codec, PyObject *exception, pls_sink *sink);

/* The exception that pls_codec_encode_exception() wrote: an instance of its own class, or an
 * ActorError with the class's name and text; its __cause__ is a RemoteTraceback with the remote
 * text. Errors:  exception; CodecError for bytes that are not an exception. Owns: gives a new
 * reference. */
PyObject *pls_codec_decode_exception(pls_codec *codec, pls_source *source);

#endif
