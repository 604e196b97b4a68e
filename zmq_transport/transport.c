/* SPDX-License-Identifier: Apache-2.0 */
/* Everything runs on the owner's thread: sockets, handlers, timers. ZeroMQ's one thread moves bytes
 * beside it. A transport thread of our own would add a wake-up to every message in each direction,
 * which on a machine with few cores is what a message costs; docs/transport.md has the figures.
 *
 * A poll is rounds of the reactor, then, when the earliest due time has passed, a tick of every
 * part, which says anew when it is due, then the tray of settled messages. */
#include "base/assert.h"
#include "zmq_transport/address.h"
#include "zmq_transport/door.h"
#include "zmq_transport/inlet.h"
#include "zmq_transport/judge.h"
#include "zmq_transport/peer.h"
#include "zmq_transport/report.h"
#include "zmq_transport/state.h"

#include <stdlib.h>

#define ROUNDS_MAX                                                                                 \
    8 /* a poll; what is left comes in the next one, after the owner's other work                  \
       */
/* What ZeroMQ keeps for one connection that does not read, or that nobody reads. */
#define LISTENER_SEND_MAX 1024
#define LISTENER_RECEIVE_MARGIN 64

#define PEERS_MAX_DEFAULT 256
#define WINDOW_BYTES_DEFAULT 4194304
#define WINDOW_BYTES_MIN (2 * (PLS_FRAME_CHUNK_BYTES_MAX + PLS_FRAME_RECORDS_BYTES_MAX))
#define WINDOW_BYTES_MAX 1073741824
#define WINDOW_FRAMES 1024
#define QUEUE_MESSAGES_DEFAULT 4096
#define QUEUE_BYTES_DEFAULT 67108864
#define CONNECT_MS_DEFAULT 500
#define HANDSHAKE_MS_DEFAULT 2000
#define SILENCE_MS_DEFAULT 3000
#define RETRY_MS_DEFAULT 100
#define IDLE_MS_DEFAULT 300000
#define REPORT_MS_DEFAULT 10000
#define MS_MAX 86400000 /* a day */
#define PEERS_MAX_MAX 1024
#define SPARE_GUESTS 64
#define GOODBYE_MS 200 /* how long a goodbye may take to leave */

static pls_err text_copy(char *to, size_t capacity, const char *from)
{
    size_t len = strlen(from);
    if (len >= capacity) {
        return PLS_EINVAL;
    }
    memcpy(to, from, len + 1);
    return PLS_OK;
}

static uint32_t or_default(uint32_t value, uint32_t standard)
{
    return value == 0 ? standard : value;
}

static pls_err identity_settle(const pls_zmq_config *config, pls_zmq_settings *settings)
{
    static const uint8_t zero[PLS_ZMQ_NODE_ID_BYTES];
    if (config->cluster == NULL || config->name == NULL || config->bind == NULL ||
        config->generation == 0 ||
        text_copy(settings->cluster, sizeof settings->cluster, config->cluster) != PLS_OK ||
        text_copy(settings->name, sizeof settings->name, config->name) != PLS_OK) {
        return PLS_EINVAL;
    }
    settings->generation = config->generation;
    memcpy(settings->node_id, config->node_id, sizeof settings->node_id);
    if (memcmp(settings->node_id, zero, sizeof zero) == 0) {
        pls_zmq_key_random(settings->node_id, sizeof settings->node_id);
    }
    return PLS_OK;
}

static pls_err settings_settle(const pls_zmq_config *config, pls_zmq_settings *settings)
{
    uint32_t retry_ms = or_default(config->retry_ms, RETRY_MS_DEFAULT);
    uint32_t idle_ms = or_default(config->idle_ms, IDLE_MS_DEFAULT);
    uint32_t report_ms = or_default(config->report_ms, REPORT_MS_DEFAULT);
    settings->peers_max = or_default(config->peers_max, PEERS_MAX_DEFAULT);
    settings->window_bytes = or_default(config->window_bytes, WINDOW_BYTES_DEFAULT);
    settings->window_frames = WINDOW_FRAMES;
    settings->queue_messages = or_default(config->queue_messages, QUEUE_MESSAGES_DEFAULT);
    settings->queue_bytes = config->queue_bytes == 0 ? QUEUE_BYTES_DEFAULT : config->queue_bytes;
    settings->connect_ms = or_default(config->connect_ms, CONNECT_MS_DEFAULT);
    settings->handshake_ms = or_default(config->handshake_ms, HANDSHAKE_MS_DEFAULT);
    settings->silence_ms = or_default(config->silence_ms, SILENCE_MS_DEFAULT);
    settings->retry_ns = retry_ms * PLS_ZMQ_NS_PER_MS;
    settings->idle_ns = idle_ms * PLS_ZMQ_NS_PER_MS;
    settings->report_ns = report_ms * PLS_ZMQ_NS_PER_MS;
    bool right = settings->peers_max <= PEERS_MAX_MAX &&
                 settings->window_bytes >= WINDOW_BYTES_MIN &&
                 settings->window_bytes <= WINDOW_BYTES_MAX && settings->connect_ms <= MS_MAX &&
                 settings->handshake_ms <= MS_MAX && settings->silence_ms <= MS_MAX &&
                 retry_ms <= MS_MAX && idle_ms <= MS_MAX && report_ms <= MS_MAX;
    return right ? identity_settle(config, settings) : PLS_EINVAL;
}

static void listener_ready(void *owner)
{
    pls_inlets_serve(owner);
}

static void monitor_ready(void *owner)
{
    pls_door_serve(owner);
}

static void doorman_ready(void *owner)
{
    pls_doorman_serve(owner);
}

static void woken(void *owner)
{
    /* The tray is emptied at the end of the poll; being called is all that is needed. */
}

static pls_err security_open(pls_zmq *zmq, const pls_zmq_key *key)
{
    pls_err err = pls_zmq_key_client(&zmq->pair);
    if (key == NULL || err != PLS_OK) {
        return err;
    }
    zmq->secure = true;
    err = pls_zmq_dial_with(zmq, key);
    if (err == PLS_OK) {
        err = pls_zmq_socket_open(zmq->context, PLS_ZMQ_DOORMAN, NULL, &zmq->doorman);
    }
    if (err == PLS_OK) {
        err = pls_zmq_socket_bind(zmq->doorman, "inproc://zeromq.zap.01");
    }
    return err == PLS_OK ? pls_zmq_socket_watch(zmq->doorman, zmq->reactor, doorman_ready, zmq)
                         : err;
}

static pls_err listener_open(pls_zmq *zmq, const pls_zmq_key *key)
{
    pls_zmq_pair server = {0};
    pls_zmq_terms terms = {.own = zmq->secure ? &server : NULL,
                           .connect_ms = (int)zmq->settings.connect_ms,
                           .handshake_ms = (int)zmq->settings.handshake_ms,
                           .silence_ms = (int)zmq->settings.silence_ms,
                           .send_max = LISTENER_SEND_MAX,
                           .receive_max = WINDOW_FRAMES + LISTENER_RECEIVE_MARGIN};
    if (zmq->secure) {
        pls_zmq_key_server(key, &server);
    }
    pls_err err = pls_zmq_socket_open(zmq->context, PLS_ZMQ_LISTENER, &terms, &zmq->listener);
    pls_zmq_key_wipe(&server, sizeof server);
    if (err == PLS_OK) {
        err = pls_zmq_monitor_open(zmq->context, zmq->listener, &zmq->monitor);
    }
    if (err == PLS_OK) {
        err = pls_zmq_socket_watch(zmq->monitor, zmq->reactor, monitor_ready, zmq);
    }
    return err == PLS_OK ? pls_zmq_socket_watch(zmq->listener, zmq->reactor, listener_ready, zmq)
                         : err;
}

static pls_err parts_create(pls_zmq *zmq)
{
    uint32_t inlets_max = zmq->settings.peers_max * PLS_LANE_COUNT;
    pls_err err = pls_report_create(&zmq->report);
    if (err == PLS_OK) {
        err = pls_door_create(inlets_max * 2 + SPARE_GUESTS, &zmq->door);
    }
    if (err == PLS_OK) {
        err = pls_inlets_create(inlets_max, &zmq->inlets);
    }
    if (err == PLS_OK) {
        err = pls_peers_create(&zmq->peers);
    }
    if (err == PLS_OK) {
        err = pls_zmq_reactor_create(&zmq->reactor);
    }
    return err == PLS_OK ? pls_zmq_context_create(&zmq->context) : err;
}

pls_err pls_zmq_create(const pls_zmq_config *config, const pls_zmq_handlers *handlers, void *owner,
                       uint64_t now_ns, pls_zmq **zmq_out)
{
    const char *endpoint = NULL;
    pls_zmq *zmq = calloc(1, sizeof *zmq);
    if (zmq == NULL) {
        return PLS_ENOMEM;
    }
    pls_assert(handlers->control != NULL && handlers->message != NULL);
    zmq->handlers = handlers;
    zmq->owner = owner;
    zmq->now_ns = now_ns;
    zmq->due_ns = UINT64_MAX;
    pls_err err = settings_settle(config, &zmq->settings);
    if (err == PLS_OK) {
        err = parts_create(zmq);
    }
    if (err != PLS_OK) {
        goto fail;
    }
    atomic_init(&zmq->tray.top, NULL);
    zmq->tray.reactor = zmq->reactor;
    pls_zmq_reactor_on_wake(zmq->reactor, woken, zmq);
    err = security_open(zmq, config->key);
    if (err == PLS_OK) {
        err = listener_open(zmq, config->key);
    }
    if (err == PLS_OK) {
        err = pls_zmq_listen(zmq, config->key, config->bind, &endpoint);
    }
    if (err == PLS_OK && config->advertise != NULL) {
        err = pls_zmq_set_advertise(zmq, config->advertise);
    } else if (err == PLS_OK) {
        err = text_copy(zmq->settings.advertise, sizeof zmq->settings.advertise, endpoint);
    }
    if (err != PLS_OK) {
        goto fail;
    }
    *zmq_out = zmq;
    return PLS_OK;
fail:
    pls_zmq_destroy(zmq);
    return err;
}

void pls_zmq_destroy(pls_zmq *zmq)
{
    if (zmq == NULL) {
        return;
    }
    zmq->leaving = true;
    if (zmq->peers != NULL) {
        pls_peers_close(zmq);
    }
    if (zmq->inlets != NULL) {
        pls_inlets_close(zmq);
    }
    if (zmq->monitor != NULL) {
        pls_zmq_monitor_stop(zmq->listener);
    }
    pls_zmq_socket_close(zmq->monitor, zmq->reactor, 0);
    pls_zmq_socket_close(zmq->listener, zmq->reactor, GOODBYE_MS);
    pls_zmq_socket_close(zmq->doorman, zmq->reactor, 0);
    pls_door_destroy(zmq->door);
    /* When the context has gone, ZeroMQ reads nobody's memory any more. */
    pls_zmq_context_destroy(zmq->context);
    pls_tray_empty(&zmq->tray, zmq->owner);
    pls_inlets_destroy(zmq->inlets);
    pls_peers_destroy(zmq->peers);
    pls_report_destroy(zmq->report);
    pls_zmq_reactor_destroy(zmq->reactor);
    pls_zmq_key_wipe(zmq->entrances, sizeof zmq->entrances);
    pls_zmq_key_wipe(&zmq->dial_key, sizeof zmq->dial_key);
    pls_zmq_key_wipe(&zmq->pair, sizeof zmq->pair);
    free(zmq);
}

int pls_zmq_fd(const pls_zmq *zmq)
{
    return pls_zmq_reactor_fd(zmq->reactor);
}

void pls_zmq_poll(pls_zmq *zmq, uint64_t now_ns)
{
    zmq->now_ns = now_ns > zmq->now_ns ? now_ns : zmq->now_ns;
    for (unsigned round = 0; round < ROUNDS_MAX; round++) {
        pls_zmq_reactor_round(zmq->reactor);
        if (zmq->now_ns >= zmq->due_ns) {
            zmq->due_ns = UINT64_MAX;
            pls_peers_tick(zmq);
            pls_inlets_tick(zmq);
            pls_door_tick(zmq);
            pls_report_tick(zmq);
        }
        pls_tray_empty(&zmq->tray, zmq->owner);
        if (!pls_zmq_reactor_pending(zmq->reactor) && zmq->now_ns < zmq->due_ns) {
            return;
        }
    }
}

void pls_zmq_settle(pls_zmq *zmq)
{
    pls_tray_empty(&zmq->tray, zmq->owner);
}

uint64_t pls_zmq_deadline(const pls_zmq *zmq)
{
    return pls_zmq_reactor_pending(zmq->reactor) ? 0 : zmq->due_ns;
}

const char *pls_zmq_endpoint(const pls_zmq *zmq)
{
    return zmq->settings.advertise;
}

pls_err pls_zmq_set_advertise(pls_zmq *zmq, const char *address)
{
    pls_zmq_place place;
    if (pls_zmq_place_parse(address, strlen(address), &place) != PLS_OK || place.port == 0 ||
        place.wildcard) {
        return PLS_EINVAL;
    }
    return text_copy(zmq->settings.advertise, sizeof zmq->settings.advertise, address);
}

pls_err pls_zmq_listen(pls_zmq *zmq, const pls_zmq_key *key, const char *bind,
                       const char **endpoint_out)
{
    pls_zmq_place place;
    pls_zmq_entrance *entrance = NULL;
    if ((key != NULL) != zmq->secure || pls_zmq_place_parse(bind, strlen(bind), &place) != PLS_OK) {
        return PLS_EINVAL;
    }
    for (unsigned i = 0; i < PLS_ZMQ_KEYS_MAX && entrance == NULL; i++) {
        entrance = zmq->entrances[i].endpoint[0] == 0 ? &zmq->entrances[i] : NULL;
    }
    if (entrance == NULL) {
        return PLS_EFULL;
    }
    if (zmq->secure) {
        pls_zmq_pair server;
        pls_zmq_key_server(key, &server);
        pls_err err = pls_zmq_socket_rekey(zmq->listener, &server);
        pls_zmq_key_wipe(&server, sizeof server);
        if (err != PLS_OK) {
            return err;
        }
        entrance->key = *key;
    }
    pls_err err = pls_zmq_socket_bind(zmq->listener, bind);
    if (err == PLS_OK) {
        err = pls_zmq_socket_endpoint(zmq->listener, entrance->endpoint, sizeof entrance->endpoint);
    }
    if (err != PLS_OK) {
        pls_zmq_key_wipe(entrance, sizeof *entrance);
        return err;
    }
    pls_zmq_reactor_note(zmq->reactor, &zmq->listener->source);
    *endpoint_out = entrance->endpoint;
    return PLS_OK;
}

pls_err pls_zmq_unlisten(pls_zmq *zmq, const char *endpoint)
{
    for (unsigned i = 0; i < PLS_ZMQ_KEYS_MAX; i++) {
        pls_zmq_entrance *entrance = &zmq->entrances[i];
        if (entrance->endpoint[0] != 0 && strcmp(entrance->endpoint, endpoint) == 0) {
            pls_zmq_socket_unbind(zmq->listener, entrance->endpoint);
            pls_zmq_key_wipe(entrance, sizeof *entrance);
            pls_zmq_reactor_note(zmq->reactor, &zmq->listener->source);
            return PLS_OK;
        }
    }
    return PLS_ENOENT;
}

pls_err pls_zmq_dial_with(pls_zmq *zmq, const pls_zmq_key *key)
{
    pls_zmq_pair server;
    if (!zmq->secure || key == NULL) {
        return PLS_EINVAL;
    }
    pls_zmq_key_server(key, &server);
    memcpy(zmq->dial_server_key, server.public_key, sizeof zmq->dial_server_key);
    pls_zmq_key_wipe(&server, sizeof server);
    zmq->dial_key = *key;
    return PLS_OK;
}

void pls_zmq_resume(pls_zmq *zmq, const uint8_t node_id[PLS_ZMQ_NODE_ID_BYTES])
{
    pls_inlets_resume(zmq, node_id);
}

uint64_t pls_zmq_waiting(const pls_zmq *zmq)
{
    return pls_peers_waiting(zmq->peers);
}

void pls_zmq_leave(pls_zmq *zmq)
{
    zmq->leaving = true;
}

const pls_zmq_counters *pls_zmq_counted(const pls_zmq *zmq)
{
    return &zmq->counters;
}

const uint8_t *pls_zmq_node_id(const pls_zmq *zmq)
{
    return zmq->settings.node_id;
}

bool pls_zmq_check(const pls_zmq *zmq)
{
    return pls_peers_check(zmq->peers) && pls_inlets_check(zmq->inlets);
}
