/* SPDX-License-Identifier: Apache-2.0 */
/* A stream has at most one message under way. It is complete when its bytes are; only then, and
 * when the owner has taken it, does the stream's count move: what the count says is what the owner
 * has. So a message whose connection breaks is begun again from its first byte, in new memory.
 * Called by the inlets, with frames that they have checked to be within the window. */
#include "zmq_transport/assembly.h"

#include "base/assert.h"

#include <stdlib.h>

struct pls_assembly {
    pls_zmq_arrival arrival; /* its head points behind this */
    uint64_t received_bytes;
    bool passed_over; /* the owner does not want it */
    uint8_t head[];
};

static void assembly_abandon(pls_zmq *zmq, struct pls_assembly *assembly)
{
    if (!assembly->passed_over) {
        if (zmq->handlers->reserve == NULL) {
            free(assembly->arrival.memory);
        } else if (zmq->handlers->abandon != NULL) {
            zmq->handlers->abandon(zmq->owner, &assembly->arrival);
        }
    }
    free(assembly);
}

static void stream_complete(pls_zmq *zmq, pls_origin *origin, unsigned stream,
                            pls_assembly_result *result)
{
    origin->completed[stream]++;
    result->changed |= UINT64_C(1) << stream;
}

static pls_err small_deliver(pls_zmq *zmq, pls_origin *origin, const pls_frame_record *record,
                             pls_assembly_result *result)
{
    pls_zmq_arrival arrival = {.head = record->head,
                               .body = record->chunk,
                               .body_bytes = record->body_bytes,
                               .head_bytes = record->head_bytes,
                               .stream = record->stream};
    pls_err err = zmq->handlers->message(zmq->owner, &origin->identity, &arrival);
    if (err == PLS_OK) {
        zmq->counters.received_messages++;
        stream_complete(zmq, origin, record->stream, result);
    }
    return err == PLS_OK ? PLS_OK : PLS_EFULL;
}

static pls_err memory_reserve(pls_zmq *zmq, pls_origin *origin, pls_zmq_arrival *arrival)
{
    if (zmq->handlers->reserve != NULL) {
        return zmq->handlers->reserve(zmq->owner, &origin->identity, arrival);
    }
    arrival->memory = malloc((size_t)arrival->body_bytes);
    return arrival->memory == NULL ? PLS_ENOMEM : PLS_OK;
}

static pls_err large_begin(pls_zmq *zmq, pls_origin *origin, const pls_frame_record *record)
{
    struct pls_assembly *assembly = malloc(sizeof *assembly + record->head_bytes);
    if (assembly == NULL) {
        return PLS_EFULL;
    }
    *assembly = (struct pls_assembly){.arrival = {.head = assembly->head,
                                                  .body_bytes = record->body_bytes,
                                                  .head_bytes = record->head_bytes,
                                                  .stream = record->stream}};
    if (record->head_bytes > 0) {
        memcpy(assembly->head, record->head, record->head_bytes);
    }
    pls_err err = memory_reserve(zmq, origin, &assembly->arrival);
    if (err == PLS_EFULL) {
        free(assembly);
        return PLS_EFULL;
    }
    assembly->passed_over = err != PLS_OK;
    pls_assert(assembly->passed_over || assembly->arrival.memory != NULL);
    assembly->arrival.body = assembly->arrival.memory;
    origin->assemblies[record->stream] = assembly;
    return PLS_OK;
}

static pls_err large_finish(pls_zmq *zmq, pls_origin *origin, unsigned stream,
                            pls_assembly_result *result)
{
    struct pls_assembly *assembly = origin->assemblies[stream];
    if (assembly->passed_over) {
        zmq->counters.skipped_messages++;
    } else if (zmq->handlers->message(zmq->owner, &origin->identity, &assembly->arrival) ==
               PLS_OK) {
        zmq->counters.received_messages++;
    } else {
        return PLS_EFULL;
    }
    free(assembly);
    origin->assemblies[stream] = NULL;
    stream_complete(zmq, origin, stream, result);
    result->large = true;
    return PLS_OK;
}

static pls_err large_continue(pls_zmq *zmq, pls_origin *origin, const pls_frame_record *record,
                              pls_arrived *frame, pls_assembly_result *result)
{
    struct pls_assembly *assembly = origin->assemblies[record->stream];
    if (!frame->copied) {
        uint64_t left = assembly->arrival.body_bytes - assembly->received_bytes;
        if (!frame->has_chunk || pls_zmq_part_len(&frame->chunk) != record->chunk_bytes ||
            record->chunk_bytes > left) {
            return PLS_EPROTO;
        }
        if (!assembly->passed_over) {
            memcpy((uint8_t *)assembly->arrival.memory + assembly->received_bytes,
                   pls_zmq_part_bytes(&frame->chunk), record->chunk_bytes);
        }
        assembly->received_bytes += record->chunk_bytes;
        frame->copied = true;
    }
    if (assembly->received_bytes < assembly->arrival.body_bytes) {
        return PLS_OK;
    }
    return large_finish(zmq, origin, record->stream, result);
}

static pls_err record_work(pls_zmq *zmq, pls_origin *origin, const pls_frame_record *record,
                           pls_arrived *frame, pls_assembly_result *result)
{
    bool outside = (record->flags & PLS_FRAME_RECORD_OUTSIDE) != 0;
    if ((record->flags & PLS_FRAME_RECORD_BEGIN) != 0 && !frame->copied) {
        if (origin->assemblies[record->stream] != NULL ||
            record->sequence != origin->completed[record->stream] + 1) {
            return PLS_EPROTO;
        }
        if (!outside) {
            return small_deliver(zmq, origin, record, result);
        }
        pls_err err = large_begin(zmq, origin, record);
        if (err != PLS_OK) {
            return err;
        }
    }
    if (origin->assemblies[record->stream] == NULL) {
        return PLS_EPROTO;
    }
    return large_continue(zmq, origin, record, frame, result);
}

pls_err pls_assembly_work(pls_zmq *zmq, pls_origin *origin, pls_arrived *frame,
                          pls_assembly_result *result)
{
    const uint8_t *bytes = pls_zmq_part_bytes(&frame->records);
    size_t len = pls_zmq_part_len(&frame->records);
    pls_reader r = pls_reader_over(bytes + frame->done_bytes, len - frame->done_bytes);
    bool chunk_used = false;
    for (;;) {
        pls_frame_record record;
        pls_err err = pls_frame_record_next(&r, &record);
        if (err == PLS_EEMPTY) {
            return frame->has_chunk == chunk_used ? PLS_OK : PLS_EPROTO;
        }
        if (err == PLS_OK) {
            err = record_work(zmq, origin, &record, frame, result);
        }
        if (err != PLS_OK) {
            return err;
        }
        chunk_used = chunk_used || (record.flags & PLS_FRAME_RECORD_OUTSIDE) != 0;
        frame->done_bytes = (size_t)(r.at - bytes);
    }
}

void pls_assembly_discard(pls_zmq *zmq, pls_origin *origin)
{
    for (unsigned stream = 0; stream < PLS_FRAME_STREAMS; stream++) {
        struct pls_assembly *assembly = origin->assemblies[stream];
        if (assembly != NULL) {
            origin->assemblies[stream] = NULL;
            assembly_abandon(zmq, assembly);
        }
    }
}

void pls_arrived_free(pls_arrived *frame)
{
    pls_zmq_part_close(&frame->records);
    if (frame->has_chunk) {
        pls_zmq_part_close(&frame->chunk);
    }
    free(frame);
}
