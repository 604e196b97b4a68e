/* SPDX-License-Identifier: Apache-2.0 */
/* A frame of the ROUTER begins with the number of its connection. That number only finds the inlet:
 * who speaks is what the greeting proved, and each later frame must come from the same user as the
 * greeting did. A new greeting of the same sender and lane ends the older connection, so that of
 * two connections only the newer one is ever read.
 *
 * The sender may have no more than the window under way; a frame counts until it was worked
 * through, so what the owner does not take stays at most a window. Acknowledgements follow an
 * eighth of the window, a large message, or a few milliseconds. */
#include "base/assert.h"
#include "zmq_transport/inlet_parts.h"
#include "zmq_transport/report.h"

#include <stdlib.h>

#define FRAMES_MAX 256 /* a round */
#define ACK_DELAY_MS 5 /* small messages: a few hundred acknowledgements a second at most */
#define ACK_SHARE 8
#define BROKEN_KEPT_MS 500 /* what ZeroMQ's thread has not handed over yet arrives in that time */

pls_err pls_inlets_create(uint32_t inlets_max, pls_inlets **inlets_out)
{
    pls_inlets *inlets = calloc(1, sizeof *inlets);
    if (inlets == NULL) {
        return PLS_ENOMEM;
    }
    inlets->inlets_max = inlets_max;
    *inlets_out = inlets;
    return PLS_OK;
}

pls_inlet **pls_inlet_bucket(pls_inlets *inlets, const uint8_t route[PLS_ROUTE_BYTES])
{
    return &inlets
                ->buckets[(route[PLS_ROUTE_BYTES - 1] | (unsigned)route[PLS_ROUTE_BYTES - 2] << 8) %
                          PLS_INLET_BUCKETS];
}

static pls_inlet *inlet_find(pls_inlets *inlets, const uint8_t route[PLS_ROUTE_BYTES])
{
    pls_inlet *inlet = *pls_inlet_bucket(inlets, route);
    while (inlet != NULL && memcmp(inlet->route, route, PLS_ROUTE_BYTES) != 0) {
        inlet = inlet->next;
    }
    return inlet;
}

pls_err pls_inlet_route_send(pls_zmq *zmq, const uint8_t route[PLS_ROUTE_BYTES], const void *bytes,
                             size_t len)
{
    pls_zmq_part part;
    pls_err err = pls_zmq_part_copy(&part, route, PLS_ROUTE_BYTES);
    if (err != PLS_OK) {
        return err;
    }
    pls_zmq_reactor_note(zmq->reactor, &zmq->listener->source);
    err = pls_zmq_socket_send(zmq->listener, &part, true);
    if (err != PLS_OK) {
        pls_zmq_part_close(&part);
        return err;
    }
    err = pls_zmq_part_copy(&part, bytes, len);
    if (err != PLS_OK) {
        /* The first part is on its way: an empty frame, which means nothing, must follow. */
        err = pls_zmq_part_copy(&part, NULL, 0);
        pls_assert(err == PLS_OK);
        len = 0;
    }
    err = pls_zmq_socket_send(zmq->listener, &part, false);
    if (err != PLS_OK) {
        pls_zmq_part_close(&part);
    }
    return err == PLS_OK && len == 0 ? PLS_ENOMEM : err;
}

void pls_inlet_free(pls_zmq *zmq, pls_inlet *inlet)
{
    pls_inlets *inlets = zmq->inlets;
    pls_inlet **place = pls_inlet_bucket(inlets, inlet->route);
    while (*place != inlet) {
        place = &(*place)->next;
    }
    *place = inlet->next;
    inlets->count--;
    pls_assert(inlet->origin->inlets[inlet->lane] == inlet);
    inlet->origin->inlets[inlet->lane] = NULL;
    while (inlet->kept_first != NULL) {
        pls_arrived *frame = inlet->kept_first;
        inlet->kept_first = frame->next;
        pls_arrived_free(frame);
    }
    if (inlet->lane == PLS_LANE_BULK) {
        pls_assembly_discard(zmq, inlet->origin);
    }
    if (inlet->guest != NULL) {
        pls_guest_serve(inlet->guest, NULL, zmq->now_ns);
        pls_guest_kick(inlet->guest);
    }
    free(inlet);
}

void pls_inlet_broken(pls_zmq *zmq, pls_inlet *inlet)
{
    inlet->guest = NULL;
    inlet->broken_ns = zmq->now_ns;
    pls_zmq_due(zmq, pls_zmq_after_ms(zmq, BROKEN_KEPT_MS));
}

static uint64_t bytes_of(const pls_arrived *frame)
{
    return pls_zmq_part_len(&frame->records) +
           (frame->has_chunk ? pls_zmq_part_len(&frame->chunk) : 0);
}

static void ack_send(pls_zmq *zmq, pls_inlet *inlet)
{
    uint8_t bytes[sizeof(pls_ack) + 1];
    pls_writer w = pls_writer_into(bytes, sizeof bytes);
    memcpy(inlet->ack.completed, inlet->origin->completed, sizeof inlet->ack.completed);
    pls_ack_write(&w, &inlet->ack);
    pls_assert(!w.bad);
    if (pls_inlet_route_send(zmq, inlet->route, bytes, pls_writer_len(&w)) == PLS_OK) {
        inlet->ack.changed = 0;
        inlet->ack_due_ns = 0;
        inlet->told_bytes = inlet->ack.bytes;
    } else {
        /* Full, or gone, which the monitor tells: what is said is a sum, so later will do. */
        inlet->ack_due_ns = pls_zmq_after_ms(zmq, ACK_DELAY_MS);
        pls_zmq_due(zmq, inlet->ack_due_ns);
    }
}

/* Works through one frame; PLS_OK: it has been freed. */
static pls_err frame_work(pls_zmq *zmq, pls_inlet *inlet, pls_arrived *frame)
{
    pls_assembly_result result = {0};
    pls_err err = pls_assembly_work(zmq, inlet->origin, frame, &result);
    inlet->ack.changed |= result.changed;
    if (err == PLS_OK) {
        inlet->ack.bytes += bytes_of(frame);
        inlet->ack.frames++;
        pls_arrived_free(frame);
    }
    if (err == PLS_EPROTO) {
        return err;
    }
    uint64_t untold = inlet->ack.bytes - inlet->told_bytes;
    if (result.large || untold >= zmq->settings.window_bytes / ACK_SHARE ||
        inlet->ack.frames % (zmq->settings.window_frames / ACK_SHARE) == 0) {
        ack_send(zmq, inlet);
    } else if (inlet->ack_due_ns == 0) {
        inlet->ack_due_ns = pls_zmq_after_ms(zmq, ACK_DELAY_MS);
        pls_zmq_due(zmq, inlet->ack_due_ns);
    }
    return err == PLS_OK ? PLS_OK : PLS_EFULL;
}

static void inlet_expel(pls_zmq *zmq, pls_inlet *inlet)
{
    pls_report_away(zmq, PLS_ZMQ_away_frame, pls_guest_from(inlet->guest));
    pls_inlet_free(zmq, inlet);
}

static void data_receive(pls_zmq *zmq, pls_inlet *inlet, pls_arrived *frame)
{
    uint64_t bytes = bytes_of(frame);
    if (inlet->lane != PLS_LANE_BULK ||
        pls_zmq_part_len(&frame->records) > PLS_FRAME_RECORDS_BYTES_MAX ||
        inlet->held_bytes + bytes > zmq->settings.window_bytes ||
        inlet->held_frames >= zmq->settings.window_frames) {
        pls_arrived_free(frame);
        inlet_expel(zmq, inlet);
        return;
    }
    frame->done_bytes = 1;
    if (inlet->kept_first == NULL) {
        pls_err err = frame_work(zmq, inlet, frame);
        if (err == PLS_OK) {
            return;
        }
        if (err == PLS_EPROTO) {
            pls_arrived_free(frame);
            inlet_expel(zmq, inlet);
            return;
        }
        inlet->kept_first = frame;
    } else {
        inlet->kept_last->next = frame;
    }
    inlet->kept_last = frame;
    inlet->held_bytes += bytes;
    inlet->held_frames++;
}

static void packet_count(pls_zmq *zmq, pls_inlet *inlet, size_t len)
{
    zmq->counters.received_packets++;
    inlet->ack.bytes += len;
    inlet->ack.frames++;
    if (inlet->ack.bytes - inlet->told_bytes >= PLS_CONTROL_WINDOW_BYTES / ACK_SHARE ||
        inlet->ack.frames % (PLS_CONTROL_WINDOW_FRAMES / ACK_SHARE) == 0) {
        ack_send(zmq, inlet);
    }
}

static void frame_receive(pls_zmq *zmq, pls_inlet *inlet, pls_arrived *frame)
{
    const uint8_t *bytes = pls_zmq_part_bytes(&frame->records);
    size_t len = pls_zmq_part_len(&frame->records);
    bool secure_wrong = zmq->secure && strcmp(pls_zmq_part_user(&frame->records), inlet->user) != 0;
    unsigned kind = len > 0 ? bytes[0] : 0;
    inlet->used_ns = zmq->now_ns;
    inlet->origin->used_ns = zmq->now_ns;
    if (kind == PLS_FRAME_DATA && !secure_wrong) {
        data_receive(zmq, inlet, frame);
        return;
    }
    if (kind == PLS_FRAME_CONTROL && !secure_wrong && !frame->has_chunk &&
        inlet->lane == PLS_LANE_CONTROL && len - 1 <= PLS_FRAME_CONTROL_BYTES_MAX) {
        packet_count(zmq, inlet, len);
        zmq->handlers->control(zmq->owner, &inlet->origin->identity, bytes + 1, len - 1);
    } else if (kind != PLS_FRAME_BYE || secure_wrong) {
        inlet_expel(zmq, inlet);
    }
    pls_arrived_free(frame);
}

/* Reads the parts behind the connection's number. More than two: they are read and dropped. */
static pls_arrived *parts_receive(pls_zmq *zmq, bool *excess_out)
{
    pls_zmq_part part;
    pls_arrived *frame = calloc(1, sizeof *frame);
    unsigned count = 0;
    bool more = true;
    while (more && pls_zmq_socket_receive(zmq->listener, &part) == PLS_OK) {
        more = pls_zmq_part_more(&part);
        count++;
        if (frame == NULL || count > 2) {
            pls_zmq_part_close(&part);
        } else {
            pls_zmq_part_move(count == 1 ? &frame->records : &frame->chunk, &part);
            frame->has_chunk = count == 2;
        }
    }
    *excess_out = count != 1 && count != 2;
    if (frame != NULL && count == 0) {
        free(frame);
        frame = NULL;
    }
    return frame;
}

static void message_receive(pls_zmq *zmq, const uint8_t route[PLS_ROUTE_BYTES], bool numbered)
{
    bool excess = false;
    pls_arrived *frame = parts_receive(zmq, &excess);
    pls_inlet *inlet = numbered ? inlet_find(zmq->inlets, route) : NULL;
    if (inlet != NULL && (excess || frame == NULL)) {
        /* What is lost here would be missing for ever: the sender begins again. */
        inlet_expel(zmq, inlet);
        inlet = NULL;
    }
    if (frame == NULL) {
        return;
    }
    if (inlet != NULL) {
        frame_receive(zmq, inlet, frame);
        return;
    }
    const uint8_t *bytes = pls_zmq_part_bytes(&frame->records);
    bool greets = numbered && !excess && !frame->has_chunk &&
                  pls_zmq_part_len(&frame->records) > 0 && bytes[0] == PLS_FRAME_GREETING;
    if (greets) {
        pls_entry_greeting(zmq, route, &frame->records);
    } else {
        pls_door_serve(zmq);
        pls_guest *guest = pls_door_find(zmq->door, pls_zmq_part_fd(&frame->records));
        /* Of a connection that was shown out, or has gone, this is only what was left. */
        if (guest != NULL && !pls_guest_is_out(guest)) {
            pls_report_away(zmq, PLS_ZMQ_away_greeting, pls_guest_from(guest));
            pls_guest_kick(guest);
        }
    }
    pls_arrived_free(frame);
}

void pls_inlets_serve(pls_zmq *zmq)
{
    for (unsigned count = 0; count < FRAMES_MAX; count++) {
        pls_zmq_part part;
        uint8_t route[PLS_ROUTE_BYTES] = {0};
        if (pls_zmq_socket_receive(zmq->listener, &part) != PLS_OK) {
            return;
        }
        /* Numbers begin with a zero; who chose an id of its own is no node. */
        bool numbered = pls_zmq_part_len(&part) == PLS_ROUTE_BYTES;
        if (numbered) {
            memcpy(route, pls_zmq_part_bytes(&part), PLS_ROUTE_BYTES);
            numbered = route[0] == 0;
        }
        pls_zmq_part_close(&part);
        message_receive(zmq, route, numbered);
    }
    pls_zmq_reactor_note(zmq->reactor, &zmq->listener->source);
}

/* Hands over what was kept, as far as the owner takes it. */
static pls_err kept_work(pls_zmq *zmq, pls_inlet *inlet)
{
    inlet->origin->resumed = false;
    while (inlet->kept_first != NULL) {
        pls_arrived *frame = inlet->kept_first;
        pls_arrived *next = frame->next;
        uint64_t bytes = bytes_of(frame);
        pls_err err = frame_work(zmq, inlet, frame);
        if (err != PLS_OK) {
            return err;
        }
        inlet->kept_first = next;
        inlet->held_bytes -= bytes;
        inlet->held_frames--;
    }
    return PLS_OK;
}

static void inlet_tick(pls_zmq *zmq, pls_inlet *inlet)
{
    if (inlet->origin->reset) {
        pls_inlet_free(zmq, inlet);
        return;
    }
    if (inlet->origin->resumed && inlet->lane == PLS_LANE_BULK &&
        kept_work(zmq, inlet) == PLS_EPROTO) {
        inlet_expel(zmq, inlet);
        return;
    }
    uint64_t idle_at_ns = inlet->used_ns + zmq->settings.idle_ns * 2;
    uint64_t broken_at_ns = inlet->broken_ns + BROKEN_KEPT_MS * PLS_ZMQ_NS_PER_MS;
    /* The connecting side closes what is idle; twice that time means that it does not. */
    if ((inlet->broken_ns != 0 && zmq->now_ns >= broken_at_ns && inlet->kept_first == NULL) ||
        (zmq->now_ns >= idle_at_ns && inlet->kept_first == NULL)) {
        pls_inlet_free(zmq, inlet);
        return;
    }
    if (inlet->ack_due_ns != 0 && zmq->now_ns >= inlet->ack_due_ns && inlet->broken_ns == 0) {
        ack_send(zmq, inlet);
    }
    if (inlet->ack_due_ns != 0 && inlet->broken_ns == 0) {
        pls_zmq_due(zmq, inlet->ack_due_ns);
    }
    if (inlet->kept_first == NULL) {
        pls_zmq_due(zmq, inlet->broken_ns != 0 ? broken_at_ns : idle_at_ns);
    }
}

void pls_inlets_tick(pls_zmq *zmq)
{
    for (unsigned i = 0; i < PLS_INLET_BUCKETS; i++) {
        pls_inlet *next = NULL;
        for (pls_inlet *inlet = zmq->inlets->buckets[i]; inlet != NULL; inlet = next) {
            next = inlet->next;
            inlet_tick(zmq, inlet);
        }
    }
    for (uint32_t i = 0; i < zmq->inlets->origins.count; i++) {
        zmq->inlets->origins.list[i]->reset = false;
    }
}

pls_err pls_inlets_control(pls_zmq *zmq, const char *address, size_t address_bytes,
                           const void *bytes, size_t len)
{
    const pls_origin *origin = pls_origins_at(&zmq->inlets->origins, address, address_bytes);
    if (origin == NULL || origin->inlets[PLS_LANE_CONTROL]->broken_ns != 0) {
        return PLS_ENOENT;
    }
    return pls_inlet_route_send(zmq, origin->inlets[PLS_LANE_CONTROL]->route, bytes, len);
}

void pls_inlets_reset(pls_zmq *zmq, const char *address, size_t address_bytes)
{
    for (uint32_t i = 0; i < zmq->inlets->origins.count; i++) {
        pls_origin *origin = zmq->inlets->origins.list[i];
        if (origin->identity.address_bytes == address_bytes &&
            memcmp(origin->address, address, address_bytes) == 0) {
            origin->reset = true;
            zmq->due_ns = 0;
        }
    }
}

void pls_inlets_resume(pls_zmq *zmq, const uint8_t node_id[PLS_ZMQ_NODE_ID_BYTES])
{
    pls_origin *origin = pls_origins_find(&zmq->inlets->origins, node_id);
    if (origin != NULL) {
        origin->resumed = true;
        zmq->due_ns = 0;
    }
}

void pls_inlets_close(pls_zmq *zmq)
{
    static const uint8_t goodbye = PLS_FRAME_BYE;
    for (unsigned i = 0; i < PLS_INLET_BUCKETS; i++) {
        while (zmq->inlets->buckets[i] != NULL) {
            pls_inlet *inlet = zmq->inlets->buckets[i];
            /* Not kicked: the goodbye would be cut off. The connection ends with the listener. */
            if (inlet->guest != NULL &&
                pls_inlet_route_send(zmq, inlet->route, &goodbye, sizeof goodbye) == PLS_OK) {
                pls_guest_serve(inlet->guest, NULL, zmq->now_ns);
                inlet->guest = NULL;
            }
            pls_inlet_free(zmq, inlet);
        }
    }
    pls_origins_fini(&zmq->inlets->origins);
}

void pls_inlets_destroy(pls_inlets *inlets)
{
    free(inlets);
}

uint32_t pls_inlets_count(const pls_inlets *inlets)
{
    return inlets->count;
}

bool pls_inlets_check(const pls_inlets *inlets)
{
    uint32_t count = 0;
    for (unsigned i = 0; i < PLS_INLET_BUCKETS; i++) {
        for (const pls_inlet *inlet = inlets->buckets[i]; inlet != NULL; inlet = inlet->next) {
            count++;
            uint64_t bytes = 0;
            for (const pls_arrived *frame = inlet->kept_first; frame != NULL; frame = frame->next) {
                bytes += bytes_of(frame);
            }
            if (bytes != inlet->held_bytes || inlet->origin->inlets[inlet->lane] != inlet ||
                (inlet->kept_first == NULL) != (inlet->held_frames == 0)) {
                return false;
            }
        }
    }
    return count == inlets->count;
}
