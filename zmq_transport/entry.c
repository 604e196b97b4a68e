/* SPDX-License-Identifier: Apache-2.0 */
/* A greeting becomes an inlet, or is answered with the reason why not. A refused connection is not
 * cut off at once, since that would cut off the answer: who does not leave by itself is shown out
 * by the door when its time to greet is over. Called by the inlets for frames of unknown numbers.
 */
#include "base/assert.h"
#include "zmq_transport/address.h"
#include "zmq_transport/inlet_parts.h"
#include "zmq_transport/report.h"

#include <stdlib.h>

static void refuse(pls_zmq *zmq, const uint8_t route[PLS_ROUTE_BYTES], unsigned reason,
                   pls_guest *guest)
{
    uint8_t bytes[2];
    pls_writer w = pls_writer_into(bytes, sizeof bytes);
    pls_refuse_write(&w, (pls_refuse_reason)reason);
    pls_report_away(zmq, pls_judge_away(reason), pls_guest_from(guest));
    pls_guest_refused(guest);
    if (pls_inlet_route_send(zmq, route, bytes, pls_writer_len(&w)) != PLS_OK) {
        pls_guest_kick(guest);
    }
}

static void welcome(pls_zmq *zmq, pls_inlet *inlet)
{
    uint8_t bytes[sizeof(pls_welcome) + 1];
    pls_welcome w = {.generation = zmq->settings.generation,
                     .window_bytes = zmq->settings.window_bytes,
                     .window_frames = zmq->settings.window_frames};
    memcpy(w.node_id, zmq->settings.node_id, sizeof w.node_id);
    if (inlet->lane == PLS_LANE_CONTROL) {
        w.window_bytes = PLS_CONTROL_WINDOW_BYTES;
        w.window_frames = PLS_CONTROL_WINDOW_FRAMES;
    } else {
        w.session = inlet->origin->session;
        memcpy(w.completed, inlet->origin->completed, sizeof w.completed);
    }
    pls_writer writer = pls_writer_into(bytes, sizeof bytes);
    pls_welcome_write(&writer, &w);
    pls_assert(!writer.bad);
    if (pls_inlet_route_send(zmq, inlet->route, bytes, pls_writer_len(&writer)) != PLS_OK) {
        pls_inlet_free(zmq, inlet);
        return;
    }
    zmq->counters.welcomed++;
}

/* The inlet that was silent longest. */
static pls_inlet *inlet_idlest(pls_inlets *inlets)
{
    pls_inlet *idlest = NULL;
    for (unsigned i = 0; i < PLS_INLET_BUCKETS; i++) {
        for (pls_inlet *inlet = inlets->buckets[i]; inlet != NULL; inlet = inlet->next) {
            if (idlest == NULL || inlet->used_ns < idlest->used_ns) {
                idlest = inlet;
            }
        }
    }
    return idlest;
}

static void inlet_open(pls_zmq *zmq, pls_origin *origin, const pls_greeting *greeting,
                       const uint8_t route[PLS_ROUTE_BYTES], const char *user, pls_guest *guest)
{
    if (origin->inlets[greeting->lane] != NULL) {
        pls_inlet_free(zmq, origin->inlets[greeting->lane]);
    }
    if (zmq->inlets->count >= zmq->inlets->inlets_max) {
        zmq->counters.idle_closes++;
        pls_inlet_free(zmq, inlet_idlest(zmq->inlets));
    }
    pls_inlet *inlet = calloc(1, sizeof *inlet);
    if (inlet == NULL) {
        refuse(zmq, route, PLS_REFUSE_BUSY, guest);
        return;
    }
    inlet->origin = origin;
    inlet->guest = guest;
    inlet->lane = greeting->lane;
    inlet->used_ns = zmq->now_ns;
    memcpy(inlet->route, route, PLS_ROUTE_BYTES);
    memcpy(inlet->user, user, strlen(user) + 1);
    pls_inlet **bucket = pls_inlet_bucket(zmq->inlets, route);
    inlet->next = *bucket;
    *bucket = inlet;
    zmq->inlets->count++;
    origin->inlets[greeting->lane] = inlet;
    pls_guest_serve(guest, inlet, zmq->now_ns);
    pls_zmq_due(zmq, inlet->used_ns + zmq->settings.idle_ns * 2);
    welcome(zmq, inlet);
}

void pls_entry_greeting(pls_zmq *zmq, const uint8_t route[PLS_ROUTE_BYTES],
                        const pls_zmq_part *part)
{
    uint8_t client_key[PLS_ZMQ_KEY_BYTES];
    const void *bytes = pls_zmq_part_bytes(part);
    const char *user = pls_zmq_part_user(part);
    pls_greeting greeting;
    pls_zmq_place place;
    pls_origin *origin = NULL;
    /* The monitor has told of this connection before its first frame came, or of its end. */
    pls_door_serve(zmq);
    pls_guest *guest = pls_door_find(zmq->door, pls_zmq_part_fd(part));
    pls_err err = pls_greeting_read(bytes, pls_zmq_part_len(part), &greeting);
    if (guest == NULL || strlen(user) >= PLS_ZMQ_USER_CAPACITY) {
        return;
    }
    if (err == PLS_EVERSION) {
        refuse(zmq, route, PLS_REFUSE_VERSION, guest);
        return;
    }
    if (err != PLS_OK ||
        pls_zmq_place_parse(greeting.address, greeting.address_bytes, &place) != PLS_OK) {
        pls_report_away(zmq, PLS_ZMQ_away_greeting, pls_guest_from(guest));
        pls_guest_kick(guest);
        return;
    }
    unsigned reason = pls_judge_greeting(zmq, &greeting, bytes, user, client_key);
    if (reason == 0) {
        err = pls_origins_admit(&zmq->inlets->origins, &greeting, client_key, zmq->now_ns, &origin);
        reason = err == PLS_OK ? 0 : (err == PLS_EPERM ? PLS_REFUSE_IDENTITY : PLS_REFUSE_BUSY);
    }
    if (reason != 0) {
        refuse(zmq, route, reason, guest);
        return;
    }
    inlet_open(zmq, origin, &greeting, route, user, guest);
}
