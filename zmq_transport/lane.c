/* SPDX-License-Identifier: Apache-2.0 */
/* ZeroMQ's own reconnecting is off. With it, what was queued for one connection would leave on the
 * next without a greeting, and nobody could say what had left before. So: one DEALER, one
 * connection. It is writable exactly while the connection stands (nothing limits ZeroMQ's queue;
 * the peer's window does), which tells of a break within a millisecond, without a monitor. Only
 * while it connects is it monitored, because silence has many reasons then.
 *
 * Every ZeroMQ call may empty the mailbox, so serving ends with a receive that found nothing. */
#include "zmq_transport/lane.h"

#include "base/assert.h"
#include "zmq_transport/judge.h"
#include "zmq_transport/peer.h"

#include <unistd.h>

#define GOODBYE_MS 200 /* how long a goodbye may take to leave */
#define TURNS_MAX 16   /* of receiving and sending, a round */
#define FRAMES_A_TURN 16
#define RETRY_FACTOR_MAX 8
#define KNOCK_MS 300
#define LOCAL_CAPACITY 64

#define HANDSHAKE_FAILED "the handshake failed: another cluster key, or no Pulsing node"

static pls_zmq *zmq_of(const pls_lane *lane)
{
    return lane->peer->zmq;
}

void pls_lane_init(pls_lane *lane, pls_zmq_peer *peer, pls_frame_lane kind)
{
    *lane = (pls_lane){.peer = peer, .kind = kind, .knock_fd = -1, .knock = {.fd = -1}};
    lane->retry_ns = peer->zmq->settings.retry_ns;
}

static void tell(pls_lane *lane, pls_zmq_news_kind kind, uint64_t generation, const char *text,
                 const char *local)
{
    const pls_zmq *zmq = zmq_of(lane);
    pls_zmq_news news = {.kind = kind,
                         .lane = lane->kind,
                         .address = lane->peer->address,
                         .generation = generation,
                         .text = text,
                         .local = local};
    if (zmq->handlers->news != NULL) {
        zmq->handlers->news(zmq->owner, &news);
    }
}

static void monitor_close(pls_lane *lane)
{
    if (lane->monitor != NULL) {
        pls_zmq_monitor_stop(lane->socket);
        pls_zmq_socket_close(lane->monitor, zmq_of(lane)->reactor, 0);
        lane->monitor = NULL;
    }
}

void pls_lane_close(pls_lane *lane, bool goodbye)
{
    static const uint8_t frame = PLS_FRAME_BYE;
    pls_zmq *zmq = zmq_of(lane);
    pls_zmq_part part;
    if (lane->state == PLS_LANE_CLOSED) {
        return;
    }
    goodbye = goodbye && lane->state == PLS_LANE_OPEN;
    if (goodbye && pls_zmq_part_copy(&part, &frame, sizeof frame) == PLS_OK &&
        pls_zmq_socket_send(lane->socket, &part, false) != PLS_OK) {
        pls_zmq_part_close(&part);
    }
    monitor_close(lane);
    pls_zmq_socket_close(lane->socket, zmq->reactor, goodbye ? GOODBYE_MS : 0);
    lane->socket = NULL;
    pls_zmq_reactor_unwatch(zmq->reactor, &lane->knock);
    if (lane->knock_fd >= 0) {
        close(lane->knock_fd);
        lane->knock_fd = -1;
    }
    lane->state = PLS_LANE_CLOSED;
    lane->due_ns = zmq->now_ns;
    zmq->due_ns = 0;
}

/* Ends an attempt that led to nothing; the next one comes later each time. */
static void attempt_fail(pls_lane *lane, pls_zmq_news_kind kind, const char *text)
{
    pls_zmq *zmq = zmq_of(lane);
    zmq->counters.failed_connects += kind != PLS_ZMQ_REFUSED;
    zmq->counters.refused_connects += kind == PLS_ZMQ_REFUSED;
    pls_lane_close(lane, false);
    if (lane->kind == PLS_LANE_CONTROL) {
        /* They were about this moment. */
        pls_peer_packets_drop(lane->peer);
    }
    lane->due_ns = zmq->now_ns + lane->retry_ns;
    if (lane->retry_ns < zmq->settings.retry_ns * RETRY_FACTOR_MAX) {
        lane->retry_ns *= 2;
    }
    tell(lane, kind, 0, text, "");
}

static void lane_lost(pls_lane *lane)
{
    pls_zmq *zmq = zmq_of(lane);
    if (lane->state != PLS_LANE_OPEN) {
        attempt_fail(lane, PLS_ZMQ_UNREACHABLE, "the connection broke before it was welcomed");
        return;
    }
    zmq->counters.disconnects++;
    pls_lane_close(lane, false);
    tell(lane, PLS_ZMQ_DISCONNECTED, 0, "the connection broke", "");
}

/* Whoever could not queue more is told once half of the queue is free, however that came. */
static void room_check(pls_zmq *zmq, pls_zmq_peer *peer)
{
    if (peer->full && pls_postbox_count(peer->queue) <= zmq->settings.queue_messages / 2 &&
        pls_postbox_bytes(peer->queue) <= zmq->settings.queue_bytes / 2) {
        peer->full = false;
        if (zmq->handlers->room != NULL) {
            zmq->handlers->room(zmq->owner, peer);
        }
    }
}

static void rejected(pls_lane *lane, const uint8_t *bytes, size_t len)
{
    unsigned reason = 0;
    if (pls_refuse_read(bytes, len, &reason) != PLS_OK) {
        reason = 0;
    }
    /* Who is leaving or busy may be reached later; everything else stays as it is. */
    if (reason != PLS_REFUSE_BUSY && reason != PLS_REFUSE_LEAVING && lane->peer->queue != NULL) {
        pls_postbox_abandon(lane->peer->queue);
        lane->peer->session = 0;
    }
    attempt_fail(lane, PLS_ZMQ_REJECTED, pls_refuse_text(reason));
    room_check(zmq_of(lane), lane->peer);
}

static void session_adopt(pls_lane *lane, const pls_welcome *welcome)
{
    pls_zmq_peer *peer = lane->peer;
    bool remembered = peer->session == welcome->session;
    if (peer->queue != NULL &&
        pls_postbox_rewind(peer->queue, remembered, welcome->completed) != PLS_OK) {
        /* It says what cannot be. Nobody knows then; begin as with a stranger. */
        pls_err err = pls_postbox_rewind(peer->queue, false, welcome->completed);
        pls_assert(err == PLS_OK);
    }
    peer->session = welcome->session;
}

static void welcomed(pls_lane *lane, const pls_zmq_part *part)
{
    pls_zmq *zmq = zmq_of(lane);
    pls_zmq_peer *peer = lane->peer;
    pls_welcome welcome;
    char local[LOCAL_CAPACITY];
    if (pls_welcome_read(pls_zmq_part_bytes(part), pls_zmq_part_len(part), &welcome) != PLS_OK) {
        attempt_fail(lane, PLS_ZMQ_REJECTED, "the answer to the greeting is none");
        return;
    }
    bool replaced =
        peer->known && memcmp(peer->node_id, welcome.node_id, sizeof peer->node_id) != 0;
    memcpy(peer->node_id, welcome.node_id, sizeof peer->node_id);
    peer->known = true;
    peer->answering = welcome.generation;
    lane->state = PLS_LANE_OPEN;
    lane->retry_ns = zmq->settings.retry_ns;
    lane->window_bytes = welcome.window_bytes;
    lane->window_frames = welcome.window_frames;
    monitor_close(lane);
    pls_zmq_place_local(pls_zmq_part_fd(part), local, sizeof local);
    if (lane->kind == PLS_LANE_BULK) {
        session_adopt(lane, &welcome);
    }
    zmq->counters.connects++;
    pls_zmq_due(zmq, zmq->now_ns + zmq->settings.idle_ns);
    if (replaced) {
        tell(lane, PLS_ZMQ_REPLACED, welcome.generation, "another process answers", "");
    }
    tell(lane, PLS_ZMQ_UP, welcome.generation, "", local);
    if (lane->kind == PLS_LANE_BULK) {
        /* What had arrived before the connection broke is acknowledged by the welcome alone. */
        room_check(zmq, peer);
    }
}

/* False: it says what cannot be. */
static bool acknowledged(pls_lane *lane, const pls_zmq_part *part)
{
    pls_zmq *zmq = zmq_of(lane);
    pls_zmq_peer *peer = lane->peer;
    pls_ack ack;
    if (pls_ack_read(pls_zmq_part_bytes(part), pls_zmq_part_len(part), &ack) != PLS_OK ||
        ack.bytes > lane->sent_bytes || ack.frames > lane->sent_frames ||
        ack.bytes < lane->acknowledged_bytes || ack.frames < lane->acknowledged_frames) {
        return false;
    }
    lane->acknowledged_bytes = ack.bytes;
    lane->acknowledged_frames = ack.frames;
    if (lane->kind != PLS_LANE_BULK || peer->queue == NULL) {
        return ack.changed == 0;
    }
    for (unsigned stream = 0; stream < PLS_FRAME_STREAMS; stream++) {
        if ((ack.changed >> stream & 1) != 0 &&
            pls_postbox_complete(peer->queue, stream, ack.completed[stream]) != PLS_OK) {
            return false;
        }
    }
    room_check(zmq, peer);
    return true;
}

static void packet_receive(pls_lane *lane, const uint8_t *bytes, size_t len)
{
    pls_zmq *zmq = zmq_of(lane);
    pls_zmq_peer *peer = lane->peer;
    pls_zmq_identity from = {.generation = peer->answering,
                             .name = "",
                             .address = peer->address,
                             .address_bytes = (uint8_t)strlen(peer->address)};
    memcpy(from.node_id, peer->node_id, sizeof from.node_id);
    zmq->counters.received_packets++;
    zmq->handlers->control(zmq->owner, &from, bytes, len);
}

/* What the peer says on an open lane. False: it breaks the rules. */
static bool frame_receive(pls_lane *lane, const pls_zmq_part *part)
{
    const uint8_t *bytes = pls_zmq_part_bytes(part);
    size_t len = pls_zmq_part_len(part);
    switch (len > 0 ? bytes[0] : 0) {
    case PLS_FRAME_ACK:
        return acknowledged(lane, part);
    case PLS_FRAME_CONTROL:
        if (lane->kind != PLS_LANE_CONTROL || len - 1 > PLS_FRAME_CONTROL_BYTES_MAX) {
            return false;
        }
        lane->used_ns = zmq_of(lane)->now_ns;
        packet_receive(lane, bytes + 1, len - 1);
        return true;
    case PLS_FRAME_BYE:
        pls_lane_close(lane, false);
        lane->due_ns = zmq_of(lane)->now_ns + lane->retry_ns;
        return true;
    default:
        return len == 0; /* a frame that its sender had no memory to fill */
    }
}

static void part_receive(pls_lane *lane, const pls_zmq_part *part)
{
    const uint8_t *bytes = pls_zmq_part_bytes(part);
    size_t len = pls_zmq_part_len(part);
    bool right = !pls_zmq_part_more(part);
    if (right && lane->state == PLS_LANE_GREETING) {
        unsigned kind = len > 0 ? bytes[0] : 0;
        if (kind == PLS_FRAME_REFUSE) {
            rejected(lane, bytes, len);
        } else if (kind == PLS_FRAME_WELCOME) {
            welcomed(lane, part);
        } else {
            attempt_fail(lane, PLS_ZMQ_REJECTED, "the answer to the greeting is none");
        }
        return;
    }
    if (right && lane->state == PLS_LANE_OPEN) {
        right = frame_receive(lane, part);
    }
    if (!right && lane->state != PLS_LANE_CLOSED) {
        lane_lost(lane);
    }
}

static void receive_all(pls_lane *lane)
{
    pls_zmq_part part;
    while (lane->socket != NULL && pls_zmq_socket_receive(lane->socket, &part) == PLS_OK) {
        part_receive(lane, &part);
        pls_zmq_part_close(&part);
    }
}

static bool window_takes(const pls_lane *lane, size_t bytes)
{
    return lane->sent_bytes - lane->acknowledged_bytes + bytes <= lane->window_bytes &&
           lane->sent_frames - lane->acknowledged_frames < lane->window_frames;
}

static void sent(pls_lane *lane, size_t bytes)
{
    lane->sent_bytes += bytes;
    lane->sent_frames++;
    lane->used_ns = zmq_of(lane)->now_ns;
}

pls_err pls_lane_send(pls_lane *lane, const void *bytes, size_t len)
{
    pls_zmq_part part;
    if (lane->state != PLS_LANE_OPEN || !window_takes(lane, len)) {
        return PLS_EFULL;
    }
    pls_err err = pls_zmq_part_copy(&part, bytes, len);
    if (err != PLS_OK) {
        return err;
    }
    pls_lane_nudge(lane);
    err = pls_zmq_socket_send(lane->socket, &part, false);
    if (err != PLS_OK) {
        pls_zmq_part_close(&part);
        return PLS_EFULL;
    }
    sent(lane, len);
    zmq_of(lane)->counters.sent_packets++;
    return PLS_OK;
}

static pls_err frame_send(pls_lane *lane, pls_postbox_frame *frame)
{
    pls_zmq_part records;
    pls_zmq_part chunk;
    pls_err err = pls_zmq_part_copy(&records, frame->records, frame->records_bytes);
    if (err != PLS_OK) {
        goto fail_records;
    }
    if (frame->letter != NULL) {
        err = pls_zmq_part_lend(&chunk, frame->chunk, frame->chunk_bytes, pls_letter_read,
                                frame->letter);
        if (err != PLS_OK) {
            goto fail_chunk;
        }
    }
    err = pls_zmq_socket_send(lane->socket, &records, frame->letter != NULL);
    if (err != PLS_OK) {
        pls_zmq_part_close(&records);
    }
    if (frame->letter != NULL &&
        (err != PLS_OK || (err = pls_zmq_socket_send(lane->socket, &chunk, false)) != PLS_OK)) {
        pls_zmq_part_close(&chunk);
    }
    if (err == PLS_OK) {
        sent(lane, frame->records_bytes + frame->chunk_bytes);
    }
    return err;
fail_chunk:
    pls_zmq_part_close(&records);
fail_records:
    if (frame->letter != NULL) {
        pls_letter_release(frame->letter);
    }
    return err;
}

/* Sends what may be sent; returns whether it sent anything. */
static bool send_some(pls_lane *lane)
{
    pls_zmq_peer *peer = lane->peer;
    pls_postbox_frame frame;
    unsigned count = 0;
    if (lane->kind == PLS_LANE_CONTROL) {
        while (peer->packet_first != NULL && lane->state == PLS_LANE_OPEN &&
               pls_lane_send(lane, peer->packet_first->bytes, peer->packet_first->len) == PLS_OK) {
            pls_peer_packet_take(peer);
            count++;
        }
        return count > 0;
    }
    while (count < FRAMES_A_TURN && peer->queue != NULL && pls_postbox_ready(peer->queue) &&
           window_takes(lane, PLS_FRAME_RECORDS_BYTES_MAX + PLS_FRAME_CHUNK_BYTES_MAX)) {
        pls_err err = pls_postbox_compose(peer->queue, &frame);
        pls_assert(err == PLS_OK);
        if (frame_send(lane, &frame) != PLS_OK) {
            /* The queue counts the frame as sent: only a new connection can put that right. */
            lane_lost(lane);
            return false;
        }
        count++;
    }
    return count > 0;
}

static void greet(pls_lane *lane)
{
    pls_zmq *zmq = zmq_of(lane);
    uint8_t bytes[PLS_FRAME_GREETING_BYTES_MAX];
    pls_zmq_part part;
    size_t len = pls_judge_introduce(zmq, lane->kind, lane->peer->generation, bytes);
    if (pls_zmq_part_copy(&part, bytes, len) != PLS_OK) {
        attempt_fail(lane, PLS_ZMQ_UNREACHABLE, "out of memory");
        return;
    }
    if (pls_zmq_socket_send(lane->socket, &part, false) != PLS_OK) {
        pls_zmq_part_close(&part);
        lane_lost(lane);
        return;
    }
    lane->state = PLS_LANE_GREETING;
}

static void lane_ready(void *owner)
{
    pls_lane *lane = owner;
    pls_zmq_reactor *reactor = zmq_of(lane)->reactor;
    for (unsigned turn = 0; turn < TURNS_MAX; turn++) {
        receive_all(lane);
        if (lane->state == PLS_LANE_CLOSED || lane->state == PLS_LANE_KNOCKING) {
            return;
        }
        unsigned state = pls_zmq_socket_state(lane->socket);
        bool connected = (state & PLS_ZMQ_WRITABLE) != 0;
        if (lane->state == PLS_LANE_CONNECTING) {
            if (!connected) {
                return;
            }
            greet(lane);
            continue;
        }
        if (!connected) {
            lane_lost(lane);
            return;
        }
        bool open = lane->state == PLS_LANE_OPEN && !lane->peer->reset;
        /* To look at the state empties the mailbox: what came since receive_all() shows here only.
         */
        if (!(open && send_some(lane)) &&
            (lane->state == PLS_LANE_CLOSED || (state & PLS_ZMQ_READABLE) == 0)) {
            return;
        }
    }
    pls_zmq_reactor_note(reactor, &lane->socket->source);
}

static void knock_ready(void *owner)
{
    pls_lane *lane = owner;
    pls_err err = pls_zmq_knock_answer(lane->knock_fd);
    if (err == PLS_EDEAD) {
        attempt_fail(lane, PLS_ZMQ_REFUSED, "the host refuses: nobody listens there");
    } else if (err != PLS_EEMPTY) {
        attempt_fail(lane, PLS_ZMQ_UNREACHABLE, "no connection came about");
    }
}

/* ZeroMQ's attempt failed, and it does not say how. */
static void knock(pls_lane *lane)
{
    pls_zmq *zmq = zmq_of(lane);
    pls_err err = pls_zmq_knock(&lane->peer->place, &lane->knock_fd);
    lane->knock.ready = knock_ready;
    lane->knock.owner = lane;
    if (err == PLS_OK) {
        err = pls_zmq_reactor_watch(zmq->reactor, &lane->knock, lane->knock_fd, true);
    }
    if (err != PLS_OK) {
        attempt_fail(lane, err == PLS_EDEAD ? PLS_ZMQ_REFUSED : PLS_ZMQ_UNREACHABLE,
                     err == PLS_EDEAD ? "the host refuses: nobody listens there"
                                      : "no connection came about");
        return;
    }
    lane->state = PLS_LANE_KNOCKING;
    lane->due_ns = pls_zmq_after_ms(zmq, KNOCK_MS);
    pls_zmq_due(zmq, lane->due_ns);
}

static void monitor_ready(void *owner)
{
    pls_lane *lane = owner;
    pls_zmq_event event;
    while (lane->monitor != NULL && lane->state == PLS_LANE_CONNECTING &&
           pls_zmq_monitor_next(lane->monitor, &event) == PLS_OK) {
        if (event.kind == PLS_ZMQ_EVENT_MISSED) {
            knock(lane);
        } else if (event.kind == PLS_ZMQ_EVENT_GARBLED || event.kind == PLS_ZMQ_EVENT_FORGED) {
            attempt_fail(lane, PLS_ZMQ_REJECTED, HANDSHAKE_FAILED);
        } else if (event.kind == PLS_ZMQ_EVENT_GONE) {
            attempt_fail(lane, PLS_ZMQ_UNREACHABLE, "the connection broke at once");
        }
    }
}

static pls_err lane_connect(pls_lane *lane)
{
    pls_zmq *zmq = zmq_of(lane);
    pls_zmq_terms terms = {.own = zmq->secure ? &zmq->pair : NULL,
                           .server_key = zmq->dial_server_key,
                           .connect_ms = (int)zmq->settings.connect_ms,
                           .handshake_ms = (int)zmq->settings.handshake_ms,
                           .silence_ms = (int)zmq->settings.silence_ms};
    pls_err err = pls_zmq_socket_open(zmq->context, PLS_ZMQ_DIALLER, &terms, &lane->socket);
    if (err == PLS_OK) {
        err = pls_zmq_monitor_open(zmq->context, lane->socket, &lane->monitor);
    }
    if (err == PLS_OK) {
        err = pls_zmq_socket_watch(lane->monitor, zmq->reactor, monitor_ready, lane);
    }
    if (err == PLS_OK) {
        err = pls_zmq_socket_watch(lane->socket, zmq->reactor, lane_ready, lane);
    }
    return err == PLS_OK ? pls_zmq_socket_connect(lane->socket, lane->peer->address) : err;
}

void pls_lane_open(pls_lane *lane)
{
    pls_zmq *zmq = zmq_of(lane);
    pls_assert(lane->state == PLS_LANE_CLOSED);
    lane->state = PLS_LANE_CONNECTING;
    lane->sent_bytes = 0;
    lane->sent_frames = 0;
    lane->acknowledged_bytes = 0;
    lane->acknowledged_frames = 0;
    lane->used_ns = zmq->now_ns;
    lane->due_ns = pls_zmq_after_ms(zmq, zmq->settings.connect_ms + zmq->settings.handshake_ms);
    pls_zmq_due(zmq, lane->due_ns);
    if (lane_connect(lane) != PLS_OK) {
        attempt_fail(lane, PLS_ZMQ_UNREACHABLE, "no descriptors or memory for a connection");
    }
}

void pls_lane_nudge(pls_lane *lane)
{
    if (lane->socket != NULL) {
        pls_zmq_reactor_note(zmq_of(lane)->reactor, &lane->socket->source);
    }
}

void pls_lane_tick(pls_lane *lane)
{
    pls_zmq *zmq = zmq_of(lane);
    if (lane->state == PLS_LANE_CLOSED || lane->state == PLS_LANE_OPEN) {
        return;
    }
    if (zmq->now_ns >= lane->due_ns) {
        attempt_fail(lane, PLS_ZMQ_UNREACHABLE, "no answer in time");
        return;
    }
    pls_zmq_due(zmq, lane->due_ns);
}
