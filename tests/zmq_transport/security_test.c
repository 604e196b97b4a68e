/* SPDX-License-Identifier: Apache-2.0 */
/* Who must not come in: turned away, counted, reported, and nothing of them is left. A good peer is
 * served before, beside and after. */
#include "tests/zmq_transport/rig.h"
#include "tests/zmq_transport/stranger.h"
#include "zmq_transport/door.h"
#include "zmq_transport/inlet.h"

#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define LIMIT_MS 10000
#define CROWD 400
#define CROWD_MAX 256
#define CROWD_PATIENCE_MS 800
#define STRANGER_DESCRIPTORS 12 /* that one of libzmq's contexts has */

static rig_node a;
static rig_node b;
static rig_node c;
static rig_node *const alone[] = {&b};
static rig_node *const both[] = {&a, &b};
static rig_node *const three[] = {&a, &b, &c};
static const uint8_t some_id[PLS_ZMQ_NODE_ID_BYTES] = {1, 2, 3};

static const pls_zmq_counters *counted(void)
{
    return pls_zmq_counted(b.zmq);
}

static void b_open_patient(const pls_zmq_key *key, unsigned handshake_ms)
{
    pls_zmq_config config = rig_config("b", key);
    config.handshake_ms = handshake_ms;
    rig_open(&b, &config);
}

static void b_open(const pls_zmq_key *key)
{
    b_open_patient(key, 300);
}

/* A peer with the right key is served; then its connections are closed again. */
static void good_peer_is_served(const pls_zmq_key *key)
{
    rig_open_named(&a, "a", key);
    pls_zmq_peer *peer = rig_reach(&a, &b);
    uint64_t before = b.messages;
    b.last[0] = 0;
    rig_sent(&a, peer, 0, 1, 100000);
    ck_assert(rig_until(both, 2, &b.messages, before + 1, LIMIT_MS));
    pls_zmq_forget(a.zmq, peer);
    rig_close(&a);
}

static void nothing_is_left(unsigned descriptors)
{
    /* Inlets of broken connections are kept for a moment. */
    for (unsigned i = 0;
         i < 500 && (pls_door_count(b.zmq->door) > 0 || pls_inlets_count(b.zmq->inlets) > 0); i++) {
        rig_run(alone, 1, 10);
    }
    ck_assert_uint_eq(pls_door_count(b.zmq->door), 0);
    ck_assert_uint_eq(pls_inlets_count(b.zmq->inlets), 0);
    ck_assert_uint_le(rig_descriptors(), descriptors + 4);
}

static void keys_differ(const pls_zmq_key *one, const pls_zmq_key *two)
{
    b_open(two);
    unsigned descriptors = rig_descriptors();
    rig_open_named(&a, "a", one);
    pls_zmq_peer *peer = rig_reach(&a, &b);
    rig_sent(&a, peer, 0, 1, 10);
    ck_assert(rig_until(both, 2, &a.news[PLS_ZMQ_REJECTED], 2, LIMIT_MS));
    ck_assert(rig_until(both, 2, &counted()->away_forged, 2, LIMIT_MS));
    /* A line per reason, however often it is tried: a handshake may also break off first. */
    ck_assert_uint_le(b.away_reports, 3);
    ck_assert_uint_eq(b.messages, 0);
    ck_assert_uint_eq(counted()->welcomed, 0);
    pls_zmq_forget(a.zmq, peer);
    ck_assert(rig_until(both, 2, &a.settled, 1, LIMIT_MS));
    ck_assert_uint_eq(a.fates[PLS_ZMQ_UNSENT], 1);
    rig_close(&a);
    good_peer_is_served(two);
    nothing_is_left(descriptors);
    rig_close(&b);
}

START_TEST(test_another_key_is_turned_away)
{
    pls_zmq_key one = rig_key(1);
    pls_zmq_key two = rig_key(2);
    keys_differ(&one, &two);
}
END_TEST

START_TEST(test_no_key_is_turned_away_by_a_node_with_one)
{
    pls_zmq_key two = rig_key(2);
    keys_differ(NULL, &two);
}
END_TEST

START_TEST(test_a_key_is_turned_away_by_a_node_without)
{
    pls_zmq_key one = rig_key(1);
    keys_differ(&one, NULL);
}
END_TEST

/* Sends a greeting and returns what the node answers. */
static int answer_to(stranger *s, const uint8_t *bytes, size_t len)
{
    int heard = -1;
    stranger_send(s, bytes, len, false);
    for (unsigned i = 0; i < 100 && heard < 0; i++) {
        rig_run(alone, 1, 10);
        heard = stranger_hear(s, 1);
    }
    return heard;
}

START_TEST(test_who_knows_only_the_public_key_does_not_prove_the_cluster_key)
{
    uint8_t greeting[PLS_FRAME_GREETING_BYTES_MAX];
    pls_zmq_key key = rig_key(1);
    pls_zmq_key other = rig_key(9);
    stranger s;
    b_open(&key);
    unsigned descriptors = rig_descriptors();
    stranger_open(&s, pls_zmq_endpoint(b.zmq), &key, NULL);
    size_t len = stranger_greeting(greeting, some_id, PLS_LANE_BULK, NULL, NULL);
    ck_assert_int_eq(answer_to(&s, greeting, len), PLS_FRAME_REFUSE << 8 | PLS_REFUSE_KEY);
    stranger_close(&s);
    stranger_open(&s, pls_zmq_endpoint(b.zmq), &key, NULL);
    len = stranger_greeting(greeting, some_id, PLS_LANE_BULK, &other, s.pair.public_key);
    ck_assert_int_eq(answer_to(&s, greeting, len), PLS_FRAME_REFUSE << 8 | PLS_REFUSE_KEY);
    stranger_close(&s);
    ck_assert_uint_eq(counted()->away_unproven, 2);
    nothing_is_left(descriptors);
    rig_close(&b);
}
END_TEST

START_TEST(test_a_greeting_of_somebody_else_is_worth_nothing)
{
    uint8_t greeting[PLS_FRAME_GREETING_BYTES_MAX];
    pls_zmq_key key = rig_key(1);
    stranger victim;
    stranger thief;
    b_open(&key);
    stranger_open(&victim, pls_zmq_endpoint(b.zmq), &key, NULL);
    stranger_open(&thief, pls_zmq_endpoint(b.zmq), &key, NULL);
    size_t len = stranger_greeting(greeting, some_id, PLS_LANE_BULK, &key, victim.pair.public_key);
    ck_assert_int_eq(answer_to(&victim, greeting, len), PLS_FRAME_WELCOME);
    ck_assert_int_eq(answer_to(&thief, greeting, len), PLS_FRAME_REFUSE << 8 | PLS_REFUSE_KEY);
    /* Nor can a member take another one's node id. */
    len = stranger_greeting(greeting, some_id, PLS_LANE_BULK, &key, thief.pair.public_key);
    ck_assert_int_eq(answer_to(&thief, greeting, len), PLS_FRAME_REFUSE << 8 | PLS_REFUSE_IDENTITY);
    ck_assert_uint_eq(counted()->away_identity, 1);
    stranger_close(&victim);
    stranger_close(&thief);
    rig_close(&b);
}
END_TEST

START_TEST(test_a_routing_id_of_ones_own_is_turned_away)
{
    uint8_t greeting[PLS_FRAME_GREETING_BYTES_MAX];
    stranger s;
    b_open(NULL);
    unsigned descriptors = rig_descriptors();
    stranger_open(&s, pls_zmq_endpoint(b.zmq), NULL, "node1");
    size_t len = stranger_greeting(greeting, some_id, PLS_LANE_BULK, NULL, NULL);
    stranger_send(&s, greeting, len, false);
    ck_assert(rig_until(alone, 1, &counted()->away_greeting, 1, LIMIT_MS));
    ck_assert_uint_eq(counted()->welcomed, 0);
    nothing_is_left(descriptors + STRANGER_DESCRIPTORS);
    stranger_close(&s);
    nothing_is_left(descriptors);
    rig_close(&b);
}
END_TEST

START_TEST(test_data_before_a_greeting_ends_the_connection)
{
    static const uint8_t data[] = {PLS_FRAME_DATA, 1, 0, 0, 0, 0, 0};
    stranger s;
    b_open(NULL);
    unsigned descriptors = rig_descriptors();
    stranger_open(&s, pls_zmq_endpoint(b.zmq), NULL, NULL);
    stranger_send(&s, data, sizeof data, false);
    ck_assert(rig_until(alone, 1, &counted()->away_greeting, 1, LIMIT_MS));
    nothing_is_left(descriptors + STRANGER_DESCRIPTORS);
    stranger_close(&s);
    nothing_is_left(descriptors);
    rig_close(&b);
}
END_TEST

/* After a welcome, each of these ends the connection. */
static void misbehave(unsigned kind, stranger *s)
{
    static uint8_t bytes[PLS_FRAME_PART_BYTES_MAX + 4096];
    memset(bytes, 0xff, sizeof bytes);
    bytes[0] = PLS_FRAME_DATA;
    pls_frame_record record = {.flags = PLS_FRAME_RECORD_BEGIN | PLS_FRAME_RECORD_OUTSIDE,
                               .sequence = 1,
                               .body_bytes = 1000,
                               .chunk_bytes = 100};
    pls_writer w = pls_writer_into(bytes + 1, sizeof bytes - 1);
    switch (kind) {
    case 0: /* no records */
        stranger_send(s, bytes, 100, false);
        break;
    case 1: /* a part that is too large for ZeroMQ's own limit */
        stranger_send(s, bytes, sizeof bytes, false);
        break;
    case 2: /* an unknown kind */
        stranger_send(s, "\xf0", 1, false);
        break;
    case 3: /* a sequence that is not the next */
        record.sequence = 2;
        pls_frame_record_write(&w, &record);
        stranger_send(s, bytes, 1 + pls_writer_len(&w), true);
        stranger_send(s, bytes, 100, false);
        break;
    case 4: /* the second part is of another length than was said */
        pls_frame_record_write(&w, &record);
        stranger_send(s, bytes, 1 + pls_writer_len(&w), true);
        stranger_send(s, bytes, 101, false);
        break;
    case 5: /* three parts */
        stranger_send(s, bytes, 1, true);
        stranger_send(s, bytes, 1, true);
        stranger_send(s, bytes, 1, false);
        break;
    case 6: /* a second part that nothing speaks of */
        stranger_send(s, bytes, 1, true);
        stranger_send(s, bytes, 100, false);
        break;
    default: /* nothing at all */
        stranger_send(s, bytes, 0, false);
        break;
    }
}

START_TEST(test_frames_that_break_the_rules_end_the_connection)
{
    uint8_t greeting[PLS_FRAME_GREETING_BYTES_MAX];
    b_open(NULL);
    unsigned descriptors = rig_descriptors();
    for (unsigned kind = 0; kind < 8; kind++) {
        stranger s;
        uint8_t id[PLS_ZMQ_NODE_ID_BYTES] = {(uint8_t)(kind + 1)};
        stranger_open(&s, pls_zmq_endpoint(b.zmq), NULL, NULL);
        size_t len = stranger_greeting(greeting, id, PLS_LANE_BULK, NULL, NULL);
        ck_assert_int_eq(answer_to(&s, greeting, len), PLS_FRAME_WELCOME);
        uint64_t turned_away = counted()->away_frame;
        misbehave(kind, &s);
        if (kind != 1) {
            ck_assert_msg(rig_until(alone, 1, &counted()->away_frame, turned_away + 1, LIMIT_MS),
                          "kind %u", kind);
        }
        for (unsigned i = 0; i < 200 && pls_inlets_count(b.zmq->inlets) > 0; i++) {
            rig_run(alone, 1, 10);
        }
        ck_assert_uint_eq(pls_inlets_count(b.zmq->inlets), 0);
        stranger_close(&s);
    }
    ck_assert_uint_eq(b.messages, 0);
    good_peer_is_served(NULL);
    nothing_is_left(descriptors);
    rig_close(&b);
}
END_TEST

START_TEST(test_more_than_the_window_ends_the_connection)
{
    uint8_t greeting[PLS_FRAME_GREETING_BYTES_MAX];
    uint8_t bytes[64];
    static uint8_t chunk[200000];
    stranger s;
    b_open(NULL);
    b.reserve_full = true;
    stranger_open(&s, pls_zmq_endpoint(b.zmq), NULL, NULL);
    size_t len = stranger_greeting(greeting, some_id, PLS_LANE_BULK, NULL, NULL);
    ck_assert_int_eq(answer_to(&s, greeting, len), PLS_FRAME_WELCOME);
    for (unsigned i = 0; i < 40; i++) {
        pls_frame_record record = {.flags = PLS_FRAME_RECORD_BEGIN | PLS_FRAME_RECORD_OUTSIDE,
                                   .stream = (uint8_t)i,
                                   .sequence = 1,
                                   .body_bytes = 1000000,
                                   .chunk_bytes = sizeof chunk};
        pls_writer w = pls_writer_into(bytes, sizeof bytes);
        pls_write_u8(&w, PLS_FRAME_DATA);
        pls_frame_record_write(&w, &record);
        stranger_send(&s, bytes, pls_writer_len(&w), true);
        stranger_send(&s, chunk, sizeof chunk, false);
    }
    ck_assert(rig_until(alone, 1, &counted()->away_frame, 1, LIMIT_MS));
    ck_assert_uint_eq(pls_inlets_count(b.zmq->inlets), 0);
    stranger_close(&s);
    rig_close(&b);
}
END_TEST

START_TEST(test_garbage_is_turned_away)
{
    char bytes[4096];
    pls_rng rng;
    b_open(NULL);
    unsigned descriptors = rig_descriptors();
    pls_rng_init(&rng, 5);
    for (unsigned i = 0; i < 50; i++) {
        for (unsigned j = 0; j < sizeof bytes; j++) {
            bytes[j] = (char)pls_rng_next(&rng);
        }
        int fd = stranger_connect(pls_zmq_endpoint(b.zmq));
        (void)!send(fd, bytes, pls_rng_below(&rng, sizeof bytes) + 1, MSG_NOSIGNAL);
        rig_run(alone, 1, 2);
        close(fd);
    }
    ck_assert(rig_until(alone, 1, &counted()->accepted, 50, LIMIT_MS));
    nothing_is_left(descriptors);
    ck_assert_uint_ge(counted()->away_garbled + counted()->away_forged + counted()->away_silent,
                      50);
    good_peer_is_served(NULL);
    rig_close(&b);
}
END_TEST

START_TEST(test_a_slow_loris_is_shown_out)
{
    static const uint8_t start[] = {0xff, 0, 0, 0, 0, 0, 0, 0, 1, 0x7f, 3, 0, 'N', 'U', 'L', 'L'};
    b_open(NULL);
    unsigned descriptors = rig_descriptors();
    int fd = stranger_connect(pls_zmq_endpoint(b.zmq));
    bool out = false;
    for (unsigned i = 0; i < 40 && !out; i++) {
        (void)!send(fd, start + i % sizeof start, 1, MSG_NOSIGNAL);
        rig_run(alone, 1, 50);
        out = stranger_is_out(fd);
    }
    ck_assert(out);
    close(fd);
    nothing_is_left(descriptors);
    ck_assert_uint_eq(counted()->away_garbled, 1);
    rig_close(&b);
}
END_TEST

START_TEST(test_a_crowd_of_half_open_connections_is_bounded_and_goes)
{
    static int fds[CROWD];
    b_open_patient(NULL, CROWD_PATIENCE_MS);
    uint64_t begin_ns = rig_now_ns();
    unsigned descriptors = rig_descriptors();
    for (unsigned i = 0; i < CROWD; i++) {
        fds[i] = stranger_connect(pls_zmq_endpoint(b.zmq));
        if (i % 50 == 0) {
            rig_run(alone, 1, 1);
        }
    }
    ck_assert(rig_until(alone, 1, &counted()->accepted, CROWD, LIMIT_MS));
    bool at_once = rig_now_ns() - begin_ns < CROWD_PATIENCE_MS * UINT64_C(1000000);
    good_peer_is_served(NULL);
    nothing_is_left(descriptors + CROWD);
    /* On a machine so slow that the first ones had to go before the last came, they were no crowd.
     */
    ck_assert(!at_once || counted()->away_busy >= CROWD - CROWD_MAX);
    ck_assert_uint_ge(counted()->away_busy + counted()->away_garbled + counted()->away_silent,
                      CROWD);
    /* A line for each reason, not for each connection. */
    ck_assert_uint_le(b.away_reports, 3);
    for (unsigned i = 0; i < CROWD; i++) {
        ck_assert(stranger_is_out(fds[i]));
        close(fds[i]);
    }
    rig_close(&b);
}
END_TEST

START_TEST(test_who_shakes_hands_and_never_greets_is_shown_out)
{
    stranger s;
    b_open(NULL);
    unsigned descriptors = rig_descriptors();
    stranger_open(&s, pls_zmq_endpoint(b.zmq), NULL, NULL);
    ck_assert(rig_until(alone, 1, &counted()->away_silent, 1, LIMIT_MS));
    nothing_is_left(descriptors + STRANGER_DESCRIPTORS);
    stranger_close(&s);
    nothing_is_left(descriptors);
    rig_close(&b);
}
END_TEST

START_TEST(test_keys_are_rotated_without_a_stop)
{
    pls_zmq_key old = rig_key(1);
    pls_zmq_key fresh = rig_key(2);
    const char *endpoint = NULL;
    char first[PLS_ZMQ_ADDRESS_CAPACITY];
    pls_zmq_peer *by_new = NULL;
    rig_open_named(&a, "a", &old);
    rig_open_named(&b, "b", &old);
    rig_open_named(&c, "c", &fresh);
    snprintf(first, sizeof first, "%s", pls_zmq_endpoint(b.zmq));
    pls_zmq_peer *by_old = rig_reach(&a, &b);
    rig_sent(&a, by_old, 0, 1, 10);
    ck_assert(rig_until(both, 2, &b.messages, 1, LIMIT_MS));
    /* b accepts both keys, each at an endpoint of its own. */
    ck_assert_int_eq(pls_zmq_listen(b.zmq, &fresh, "tcp://127.0.0.1:0", &endpoint), PLS_OK);
    ck_assert_int_eq(pls_zmq_reach(c.zmq, endpoint, strlen(endpoint), 0, &by_new), PLS_OK);
    rig_sent(&c, by_new, 1, 1, 10);
    rig_sent(&a, by_old, 0, 2, 10);
    ck_assert(rig_until(three, 3, &b.messages, 3, LIMIT_MS));
    /* a goes over to the new one, and loses nothing though the old endpoint closes at once. */
    for (unsigned i = 3; i < 20; i++) {
        rig_sent(&a, by_old, 0, i, 100000);
    }
    ck_assert_int_eq(pls_zmq_dial_with(a.zmq, &fresh), PLS_OK);
    rig_run(three, 3, 1);
    pls_zmq_forget(c.zmq, by_new);
    ck_assert_int_eq(pls_zmq_redirect(a.zmq, by_old, endpoint, strlen(endpoint)), PLS_OK);
    ck_assert_int_eq(pls_zmq_unlisten(b.zmq, first), PLS_OK);
    ck_assert(rig_until(three, 3, &b.messages, 20, LIMIT_MS));
    ck_assert(rig_until(three, 3, &a.settled, 19, LIMIT_MS));
    ck_assert_uint_eq(a.fates[PLS_ZMQ_DELIVERED], 19);
    /* The old key opens nothing any more. */
    ck_assert_int_eq(pls_zmq_dial_with(a.zmq, &old), PLS_OK);
    pls_zmq_reset(a.zmq, endpoint, strlen(endpoint));
    rig_sent(&a, by_old, 0, 20, 10);
    ck_assert(rig_until(three, 3, &a.news[PLS_ZMQ_REJECTED], 1, LIMIT_MS));
    ck_assert_uint_eq(b.messages, 20);
    ck_assert_uint_eq(b.disorder, 0);
    pls_zmq_forget(a.zmq, by_old);
    rig_close(&a);
    rig_close(&b);
    rig_close(&c);
}
END_TEST

START_TEST(test_endpoints_are_bounded)
{
    pls_zmq_key key = rig_key(1);
    const char *endpoint = NULL;
    b_open(&key);
    for (unsigned i = 1; i < PLS_ZMQ_KEYS_MAX; i++) {
        ck_assert_int_eq(pls_zmq_listen(b.zmq, &key, "tcp://127.0.0.1:0", &endpoint), PLS_OK);
    }
    ck_assert_int_eq(pls_zmq_listen(b.zmq, &key, "tcp://127.0.0.1:0", &endpoint), PLS_EFULL);
    ck_assert_int_eq(pls_zmq_listen(b.zmq, NULL, "tcp://127.0.0.1:0", &endpoint), PLS_EINVAL);
    ck_assert_int_eq(pls_zmq_unlisten(b.zmq, "tcp://127.0.0.1:1"), PLS_ENOENT);
    rig_close(&b);
}
END_TEST

int main(void)
{
    const TTest *const tests[] = {
        test_another_key_is_turned_away,
        test_no_key_is_turned_away_by_a_node_with_one,
        test_a_key_is_turned_away_by_a_node_without,
        test_who_knows_only_the_public_key_does_not_prove_the_cluster_key,
        test_a_greeting_of_somebody_else_is_worth_nothing,
        test_a_routing_id_of_ones_own_is_turned_away,
        test_data_before_a_greeting_ends_the_connection,
        test_frames_that_break_the_rules_end_the_connection,
        test_more_than_the_window_ends_the_connection,
        test_garbage_is_turned_away,
        test_a_slow_loris_is_shown_out,
        test_a_crowd_of_half_open_connections_is_bounded_and_goes,
        test_who_shakes_hands_and_never_greets_is_shown_out,
        test_keys_are_rotated_without_a_stop,
        test_endpoints_are_bounded,
    };
    return rig_main("zmq_transport.security", tests, sizeof tests / sizeof tests[0]);
}
