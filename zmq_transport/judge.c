/* SPDX-License-Identifier: Apache-2.0 */
/* CURVE lets in whoever knows the cluster's public key, and makes sure that a client key belongs to
 * who shows it; the doorman only names the connection after that key. The greeting then proves the
 * cluster key over that very client key and the node id, so a proof that was overheard or passed on
 * is worth nothing on another connection.
 * Called by the transport's poll, by inlets, and by lanes for their own greetings. */
#include "zmq_transport/judge.h"

#include "base/assert.h"

#define ZAP_VERSION "1.0"
#define REQUEST_PART_BYTES_MAX 256

enum {
    ZAP_PART_VERSION,
    ZAP_PART_ID,
    ZAP_PART_DOMAIN,
    ZAP_PART_ADDRESS,
    ZAP_PART_ROUTING,
    ZAP_PART_MECHANISM,
    ZAP_PART_KEY,
    ZAP_PARTS
};

typedef struct question {
    uint8_t parts[ZAP_PARTS][REQUEST_PART_BYTES_MAX];
    size_t lens[ZAP_PARTS];
    size_t count;
    bool whole;
} question;

static void hex_write(const uint8_t key[PLS_ZMQ_KEY_BYTES], char text[PLS_ZMQ_USER_CAPACITY])
{
    static const char digits[] = "0123456789abcdef";
    for (unsigned i = 0; i < PLS_ZMQ_KEY_BYTES; i++) {
        text[2 * i] = digits[key[i] >> 4];
        text[2 * i + 1] = digits[key[i] & 15];
    }
    text[PLS_ZMQ_USER_CAPACITY - 1] = 0;
}

static pls_err question_receive(pls_zmq_socket *doorman, question *q)
{
    pls_zmq_part part;
    bool more = true;
    q->count = 0;
    q->whole = true;
    while (more) {
        if (pls_zmq_socket_receive(doorman, &part) != PLS_OK) {
            return PLS_EEMPTY;
        }
        size_t len = pls_zmq_part_len(&part);
        if (q->count < ZAP_PARTS && len <= REQUEST_PART_BYTES_MAX) {
            memcpy(q->parts[q->count], pls_zmq_part_bytes(&part), len);
            q->lens[q->count] = len;
        } else {
            q->whole = false;
        }
        q->count++;
        more = pls_zmq_part_more(&part);
        pls_zmq_part_close(&part);
    }
    q->whole = q->whole && q->count == ZAP_PARTS;
    return PLS_OK;
}

static bool part_is(const question *q, unsigned index, const char *text)
{
    return q->lens[index] == strlen(text) && memcmp(q->parts[index], text, q->lens[index]) == 0;
}

static void answer_send(pls_zmq_socket *doorman, const question *q, bool enters, const char *user)
{
    struct {
        const void *bytes;
        size_t len;
    } parts[] = {{ZAP_VERSION, sizeof ZAP_VERSION - 1},
                 {q->parts[ZAP_PART_ID], q->count > ZAP_PART_ID ? q->lens[ZAP_PART_ID] : 0},
                 {enters ? "200" : "400", 3},
                 {"", 0},
                 {user, strlen(user)},
                 {"", 0}};
    unsigned last = sizeof parts / sizeof parts[0] - 1;
    for (unsigned i = 0; i <= last; i++) {
        pls_zmq_part part;
        if (pls_zmq_part_copy(&part, parts[i].bytes, parts[i].len) != PLS_OK) {
            return; /* the connection waits in vain, and its handshake takes too long */
        }
        if (pls_zmq_socket_send(doorman, &part, i < last) != PLS_OK) {
            pls_zmq_part_close(&part);
            return;
        }
    }
}

void pls_doorman_serve(pls_zmq *zmq)
{
    question q = {0};
    while (question_receive(zmq->doorman, &q) == PLS_OK) {
        char user[PLS_ZMQ_USER_CAPACITY] = "";
        bool enters = q.whole && part_is(&q, ZAP_PART_VERSION, ZAP_VERSION) &&
                      part_is(&q, ZAP_PART_MECHANISM, "CURVE") &&
                      q.lens[ZAP_PART_KEY] == PLS_ZMQ_KEY_BYTES;
        if (enters) {
            hex_write(q.parts[ZAP_PART_KEY], user);
        }
        answer_send(zmq->doorman, &q, enters, user);
    }
}

static int digit_of(char c)
{
    return c >= 'a' ? c - 'a' + 10 : c - '0';
}

static bool proves(const pls_zmq *zmq, const pls_greeting *greeting, const void *bytes,
                   const uint8_t client_key[PLS_ZMQ_KEY_BYTES])
{
    for (unsigned i = 0; i < PLS_ZMQ_KEYS_MAX; i++) {
        uint8_t mac[PLS_ZMQ_MAC_BYTES];
        if (zmq->entrances[i].endpoint[0] == 0) {
            continue;
        }
        pls_zmq_key_mac(&zmq->entrances[i].key, client_key, bytes, greeting->proven_bytes, mac);
        if (pls_zmq_key_equal(mac, greeting->mac, sizeof mac)) {
            return true;
        }
    }
    return false;
}

static bool same_cluster(const pls_zmq *zmq, const pls_greeting *greeting)
{
    return strlen(zmq->settings.cluster) == greeting->cluster_bytes &&
           memcmp(zmq->settings.cluster, greeting->cluster, greeting->cluster_bytes) == 0;
}

unsigned pls_judge_greeting(const pls_zmq *zmq, const pls_greeting *greeting, const void *bytes,
                            const char *user, uint8_t client_key_out[PLS_ZMQ_KEY_BYTES])
{
    uint8_t client_key[PLS_ZMQ_KEY_BYTES] = {0};
    if (!same_cluster(zmq, greeting)) {
        return PLS_REFUSE_CLUSTER;
    }
    if (zmq->secure) {
        if (strlen(user) != PLS_ZMQ_USER_CAPACITY - 1) {
            return PLS_REFUSE_KEY;
        }
        for (unsigned i = 0; i < PLS_ZMQ_KEY_BYTES; i++) {
            client_key[i] = (uint8_t)(digit_of(user[2 * i]) << 4 | digit_of(user[2 * i + 1]));
        }
        if (!proves(zmq, greeting, bytes, client_key)) {
            return PLS_REFUSE_KEY;
        }
    }
    if (memcmp(greeting->node_id, zmq->settings.node_id, PLS_ZMQ_NODE_ID_BYTES) == 0) {
        return PLS_REFUSE_SELF;
    }
    if (greeting->target_generation != 0 &&
        greeting->target_generation != zmq->settings.generation) {
        return PLS_REFUSE_TARGET;
    }
    if (zmq->leaving) {
        return PLS_REFUSE_LEAVING;
    }
    memcpy(client_key_out, client_key, sizeof client_key);
    return 0;
}

pls_zmq_away pls_judge_away(unsigned reason)
{
    switch (reason) {
    case PLS_REFUSE_VERSION:
        return PLS_ZMQ_away_version;
    case PLS_REFUSE_CLUSTER:
        return PLS_ZMQ_away_cluster;
    case PLS_REFUSE_KEY:
        return PLS_ZMQ_away_unproven;
    case PLS_REFUSE_IDENTITY:
        return PLS_ZMQ_away_identity;
    case PLS_REFUSE_BUSY:
    case PLS_REFUSE_LEAVING:
        return PLS_ZMQ_away_busy;
    default:
        return PLS_ZMQ_away_target;
    }
}

size_t pls_judge_introduce(const pls_zmq *zmq, pls_frame_lane lane, uint64_t target_generation,
                           uint8_t bytes[PLS_FRAME_GREETING_BYTES_MAX])
{
    const pls_zmq_settings *settings = &zmq->settings;
    pls_greeting greeting = {.version = PLS_FRAME_VERSION,
                             .lane = lane,
                             .generation = settings->generation,
                             .target_generation = target_generation,
                             .cluster = settings->cluster,
                             .cluster_bytes = (uint8_t)strlen(settings->cluster),
                             .name = settings->name,
                             .name_bytes = (uint8_t)strlen(settings->name),
                             .address = settings->advertise,
                             .address_bytes = (uint8_t)strlen(settings->advertise)};
    uint8_t mac[PLS_ZMQ_MAC_BYTES] = {0};
    pls_writer w = pls_writer_into(bytes, PLS_FRAME_GREETING_BYTES_MAX);
    memcpy(greeting.node_id, settings->node_id, sizeof greeting.node_id);
    pls_greeting_write(&w, &greeting);
    if (zmq->secure) {
        pls_zmq_key_mac(&zmq->dial_key, zmq->pair.public_key, bytes, pls_writer_len(&w), mac);
    }
    pls_greeting_prove(&w, mac);
    pls_assert(!w.bad);
    return pls_writer_len(&w);
}
