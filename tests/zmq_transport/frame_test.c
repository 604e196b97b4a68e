/* SPDX-License-Identifier: Apache-2.0 */
/* What encoders write decoders read; what lies about a length, a number or a limit is refused. */
#include "tests/zmq_transport/rig.h"
#include "zmq_transport/frame.h"

#include <string.h>

static pls_greeting greeting_make(void)
{
    pls_greeting greeting = {.version = PLS_FRAME_VERSION,
                             .lane = PLS_LANE_BULK,
                             .generation = 7,
                             .target_generation = 9,
                             .cluster = "red",
                             .cluster_bytes = 3,
                             .name = "n1",
                             .name_bytes = 2,
                             .address = "tcp://10.0.0.1:7100",
                             .address_bytes = 19};
    memset(greeting.node_id, 0xab, sizeof greeting.node_id);
    return greeting;
}

static size_t greeting_bytes(const pls_greeting *greeting, uint8_t *bytes, size_t capacity)
{
    uint8_t mac[PLS_ZMQ_MAC_BYTES];
    memset(mac, 0xcd, sizeof mac);
    pls_writer w = pls_writer_into(bytes, capacity);
    pls_greeting_write(&w, greeting);
    pls_greeting_prove(&w, mac);
    ck_assert(!w.bad);
    return pls_writer_len(&w);
}

START_TEST(test_a_greeting_is_read_as_it_was_written)
{
    uint8_t bytes[PLS_FRAME_GREETING_BYTES_MAX];
    pls_greeting read;
    pls_greeting written = greeting_make();
    size_t len = greeting_bytes(&written, bytes, sizeof bytes);
    ck_assert_int_eq(pls_greeting_read(bytes, len, &read), PLS_OK);
    ck_assert_uint_eq(read.generation, 7);
    ck_assert_uint_eq(read.target_generation, 9);
    ck_assert_int_eq(read.lane, PLS_LANE_BULK);
    ck_assert_uint_eq(read.proven_bytes, len - PLS_ZMQ_MAC_BYTES);
    ck_assert_mem_eq(read.cluster, "red", 3);
    ck_assert_mem_eq(read.node_id, written.node_id, sizeof read.node_id);
    ck_assert_uint_eq(read.mac[31], 0xcd);
}
END_TEST

START_TEST(test_a_greeting_that_is_cut_or_too_long_is_refused)
{
    uint8_t bytes[PLS_FRAME_GREETING_BYTES_MAX];
    pls_greeting read;
    pls_greeting written = greeting_make();
    size_t len = greeting_bytes(&written, bytes, sizeof bytes);
    for (size_t cut = 0; cut < len; cut++) {
        ck_assert_int_eq(pls_greeting_read(bytes, cut, &read), PLS_EPROTO);
    }
    bytes[len] = 0;
    ck_assert_int_eq(pls_greeting_read(bytes, len + 1, &read), PLS_EPROTO);
}
END_TEST

START_TEST(test_a_greeting_of_another_version_says_so)
{
    uint8_t bytes[PLS_FRAME_GREETING_BYTES_MAX];
    pls_greeting read;
    pls_greeting written = greeting_make();
    size_t len = greeting_bytes(&written, bytes, sizeof bytes);
    uint16_t later = PLS_FRAME_VERSION + 5;
    memcpy(bytes + 5, &later, sizeof later);
    ck_assert_int_eq(pls_greeting_read(bytes, len, &read), PLS_OK);
    ck_assert_uint_eq(read.version, PLS_FRAME_VERSION);
    memcpy(bytes + 7, &later, sizeof later);
    ck_assert_int_eq(pls_greeting_read(bytes, len, &read), PLS_EVERSION);
}
END_TEST

START_TEST(test_a_welcome_and_an_ack_are_read_as_they_were_written)
{
    uint8_t bytes[1024];
    pls_welcome welcome = {.generation = 3,
                           .session = 4,
                           .window_bytes = 1048576,
                           .window_frames = 8,
                           .completed = {[63] = 77}};
    pls_welcome read;
    pls_writer w = pls_writer_into(bytes, sizeof bytes);
    pls_welcome_write(&w, &welcome);
    ck_assert_int_eq(pls_welcome_read(bytes, pls_writer_len(&w), &read), PLS_OK);
    ck_assert_uint_eq(read.completed[63], 77);
    ck_assert_int_eq(pls_welcome_read(bytes, pls_writer_len(&w) - 1, &read), PLS_EPROTO);
    welcome.window_bytes = 1000;
    w = pls_writer_into(bytes, sizeof bytes);
    pls_welcome_write(&w, &welcome);
    ck_assert_int_eq(pls_welcome_read(bytes, pls_writer_len(&w), &read), PLS_EPROTO);

    pls_ack ack = {.bytes = 5, .frames = 6, .changed = 1 | 4, .completed = {1, 2, 3}};
    pls_ack ack_read;
    w = pls_writer_into(bytes, sizeof bytes);
    pls_ack_write(&w, &ack);
    ck_assert_int_eq(pls_ack_read(bytes, pls_writer_len(&w), &ack_read), PLS_OK);
    ck_assert_uint_eq(ack_read.completed[0], 1);
    ck_assert_uint_eq(ack_read.completed[1], 0);
    ck_assert_uint_eq(ack_read.completed[2], 3);
    ck_assert_int_eq(pls_ack_read(bytes, pls_writer_len(&w) + 1, &ack_read), PLS_EPROTO);
}
END_TEST

static pls_err record_read(const pls_frame_record *record, pls_frame_record *read)
{
    static uint8_t bytes[PLS_FRAME_RECORDS_BYTES_MAX * 2];
    pls_writer w = pls_writer_into(bytes, sizeof bytes);
    pls_frame_record_write(&w, record);
    ck_assert(!w.bad);
    pls_reader r = pls_reader_over(bytes, pls_writer_len(&w));
    return pls_frame_record_next(&r, read);
}

START_TEST(test_a_record_that_breaks_a_limit_is_refused)
{
    static uint8_t body[PLS_FRAME_INLINE_BYTES_MAX + 1];
    pls_frame_record read;
    pls_frame_record good = {.flags = PLS_FRAME_RECORD_BEGIN,
                             .stream = 63,
                             .sequence = 1,
                             .head = body,
                             .head_bytes = 4096,
                             .chunk = body,
                             .chunk_bytes = 8192,
                             .body_bytes = 8192};
    ck_assert_int_eq(record_read(&good, &read), PLS_OK);
    pls_frame_record bad = good;
    bad.stream = 64;
    ck_assert_int_eq(record_read(&bad, &read), PLS_EPROTO);
    bad = good;
    bad.flags = 4;
    ck_assert_int_eq(record_read(&bad, &read), PLS_EPROTO);
    bad = good;
    bad.flags = 0;
    ck_assert_int_eq(record_read(&bad, &read), PLS_EPROTO);
    bad = good;
    bad.body_bytes = 9000;
    ck_assert_int_eq(record_read(&bad, &read), PLS_EPROTO);
    bad = good;
    bad.chunk_bytes = 8193;
    bad.body_bytes = 8193;
    ck_assert_int_eq(record_read(&bad, &read), PLS_EPROTO);
    bad = good;
    bad.flags = PLS_FRAME_RECORD_BEGIN | PLS_FRAME_RECORD_OUTSIDE;
    ck_assert_int_eq(record_read(&bad, &read), PLS_OK);
    bad.chunk_bytes = 0;
    ck_assert_int_eq(record_read(&bad, &read), PLS_EPROTO);
    bad.chunk_bytes = PLS_FRAME_CHUNK_BYTES_MAX + 1;
    bad.body_bytes = UINT64_C(1) << 30;
    ck_assert_int_eq(record_read(&bad, &read), PLS_EPROTO);
    bad.chunk_bytes = 5;
    bad.body_bytes = PLS_FRAME_BODY_BYTES_MAX + 1;
    ck_assert_int_eq(record_read(&bad, &read), PLS_EPROTO);
}
END_TEST

START_TEST(test_a_reason_of_a_later_version_has_a_text)
{
    ck_assert_str_eq(pls_refuse_text(PLS_REFUSE_KEY),
                     "the greeting does not prove the cluster key");
    ck_assert_str_eq(pls_refuse_text(200), "another reason");
}
END_TEST

int main(void)
{
    const TTest *const tests[] = {
        test_a_greeting_is_read_as_it_was_written,
        test_a_greeting_that_is_cut_or_too_long_is_refused,
        test_a_greeting_of_another_version_says_so,
        test_a_welcome_and_an_ack_are_read_as_they_were_written,
        test_a_record_that_breaks_a_limit_is_refused,
        test_a_reason_of_a_later_version_has_a_text,
    };
    return rig_main("zmq_transport.frame", tests, sizeof tests / sizeof tests[0]);
}
