/* SPDX-License-Identifier: Apache-2.0 */
/* Scenario 8 and the codec: every kind comes back as it went, and whatever is not a packet for this
 * node is dropped, counted and changes nothing. */
#include "base/limits.h"
#include "base/rng.h"
#include "gossip/pack.h"
#include "tests/check_run.h"
#include "tests/gossip/rig.h"

#include <msgpack.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char name_long[PLS_META_BYTES_MAX + 1];

static pls_message full_message(uint32_t kind, const uint8_t *buckets, const uint8_t *body)
{
    pls_message m = {.kind = kind,
                     .sequence = 77,
                     .key = 0x1122334455667788,
                     .accuser = 0x99,
                     .incarnation = 300,
                     .digest = UINT64_MAX,
                     .floor = 3,
                     .from = 4,
                     .to = 70000,
                     .complete = true,
                     .bucket_count = 16,
                     .buckets = buckets,
                     .meta = (const uint8_t *)"meta",
                     .meta_bytes = 4,
                     .body = body};
    m.identity = (pls_identity){
        .generation = 9, .name = "name", .address = "address", .name_bytes = 4, .address_bytes = 7};
    m.identity.key = pls_identity_key(&m.identity);
    return m;
}

/* A body of the right shape for a kind. */
static uint32_t body_for(uint32_t kind, uint8_t *body)
{
    pls_writer w = pls_writer_into(body, 256);
    if (kind == PLS_WIRE_TREE) {
        for (uint32_t i = 0; i < 16; i++) {
            pls_write_u32(&w, i * 1000);
        }
    } else if (kind == PLS_WIRE_WANT) {
        pls_write_u64(&w, 5);
        pls_write_u64(&w, 6);
    } else if (kind == PLS_WIRE_LIST) {
        pls_list_entry entry = {5, 6, 7, 8, PLS_WIRE_STATE_LEFT};
        pls_list_entry_write(&w, &entry);
    } else {
        pls_name_item entry = {.version = 3,
                               .value = 4,
                               .stamp = 5,
                               .name = "n",
                               .name_bytes = 1,
                               .flags = PLS_WIRE_NAME_UNIQUE};
        pls_name_item_write(&w, &entry);
    }
    return (uint32_t)pls_writer_len(&w);
}

START_TEST(test_every_kind_comes_back_as_it_went)
{
    uint8_t bytes[PLS_PACKET_BYTES_MIN];
    uint8_t again[PLS_PACKET_BYTES_MIN];
    uint8_t body[256] = {0};
    uint8_t buckets[2] = {0x81, 0x10};
    pls_packet packet;
    pls_message out;
    pls_message in = full_message((uint32_t)_i, buckets, body);
    in.body_bytes = body_for((uint32_t)_i, body);
    pls_writer w = pls_writer_into(bytes, sizeof bytes);
    pls_packet_head_write(&w, 12345, 678);
    pls_message_write(&w, &in);
    ck_assert(!w.bad);
    ck_assert_int_eq(pls_packet_open(bytes, pls_writer_len(&w), &packet), PLS_OK);
    ck_assert_uint_eq(packet.cluster, 12345);
    ck_assert_uint_eq(packet.sender, 678);
    ck_assert_int_eq(pls_packet_next(&packet, &out), PLS_OK);
    ck_assert_uint_eq(out.kind, in.kind);
    /* What was read writes the same bytes again: no field was lost or misplaced. */
    pls_writer v = pls_writer_into(again, sizeof again);
    pls_packet_head_write(&v, 12345, 678);
    pls_message_write(&v, &out);
    ck_assert_uint_eq(pls_writer_len(&v), pls_writer_len(&w));
    ck_assert_mem_eq(bytes, again, pls_writer_len(&w));
    ck_assert_int_eq(pls_packet_next(&packet, &out), PLS_EEMPTY);
}
END_TEST

/* Give bytes to msgpack-c, which must read them as whole objects to the last byte and write the
 * same bytes again; the objects' number. `bin_out` becomes the last bin among them. */
static uint32_t objects_of(const uint8_t *bytes, size_t len, msgpack_object_bin *bin_out)
{
    size_t at = 0;
    uint32_t count = 0;
    msgpack_sbuffer again;
    msgpack_packer packer;
    msgpack_unpacked object;
    msgpack_sbuffer_init(&again);
    msgpack_packer_init(&packer, &again, msgpack_sbuffer_write);
    msgpack_unpacked_init(&object);
    while (at < len) {
        msgpack_unpack_return got = msgpack_unpack_next(&object, (const char *)bytes, len, &at);
        ck_assert_int_eq(got, MSGPACK_UNPACK_SUCCESS);
        ck_assert_int_eq(msgpack_pack_object(&packer, object.data), 0);
        if (object.data.type == MSGPACK_OBJECT_BIN) {
            *bin_out = object.data.via.bin;
        }
        count++;
    }
    ck_assert_uint_eq(again.size, len);
    ck_assert_mem_eq(again.data, bytes, len);
    msgpack_unpacked_destroy(&object);
    msgpack_sbuffer_destroy(&again);
    return count;
}

START_TEST(test_msgpack_c_reads_every_kind)
{
    uint8_t bytes[PLS_PACKET_BYTES_MIN];
    uint8_t body[256] = {0};
    uint8_t buckets[2] = {0x81, 0x10};
    pls_message in = full_message((uint32_t)_i, buckets, body);
    in.body_bytes = body_for((uint32_t)_i, body);
    pls_writer w = pls_writer_into(bytes, sizeof bytes);
    pls_packet_head_write(&w, 12345, 678);
    pls_message_write(&w, &in);
    ck_assert(!w.bad);
    msgpack_object_bin message = {0, NULL};
    ck_assert_uint_eq(objects_of(bytes, pls_writer_len(&w), &message), 5);
    ck_assert_uint_gt(message.size, 1);
    ck_assert_uint_eq((uint8_t)message.ptr[0], (uint32_t)_i);
    msgpack_object_bin field = {0, NULL};
    ck_assert_uint_gt(objects_of((const uint8_t *)message.ptr + 1, message.size - 1, &field), 0);
}
END_TEST

START_TEST(test_numbers_take_their_shortest_form)
{
    static const struct {
        uint64_t value;
        uint32_t bytes;
    } rows[] = {{0, 1},     {127, 1},   {128, 2},        {255, 2},        {256, 3},
                {65535, 3}, {65536, 5}, {UINT32_MAX, 5}, {1ull << 32, 9}, {UINT64_MAX, 9}};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        uint8_t bytes[16];
        pls_writer w = pls_writer_into(bytes, sizeof bytes);
        pls_pack_uint(&w, rows[i].value);
        ck_assert_uint_eq(pls_writer_len(&w), rows[i].bytes);
        ck_assert_uint_eq(pls_pack_uint_bytes(rows[i].value), rows[i].bytes);
        pls_reader r = pls_reader_over(bytes, pls_writer_len(&w));
        ck_assert_uint_eq(pls_unpack_uint(&r), rows[i].value);
        ck_assert(!r.bad);
        pls_reader cut = pls_reader_over(bytes, pls_writer_len(&w) - 1);
        pls_unpack_uint(&cut);
        ck_assert(cut.bad);
    }
}
END_TEST

START_TEST(test_strings_and_bins_of_every_length_come_back)
{
    static uint8_t bytes[1024];
    static uint8_t content[600];
    for (uint32_t len = 0; len <= 600; len++) {
        for (int bin = 0; bin < 2; bin++) {
            uint32_t got = 0;
            pls_writer w = pls_writer_into(bytes, sizeof bytes);
            (bin ? pls_pack_bin : pls_pack_str)(&w, content, len);
            pls_reader r = pls_reader_over(bytes, pls_writer_len(&w));
            const void *at = (bin ? pls_unpack_bin : pls_unpack_str)(&r, 600, &got);
            ck_assert_ptr_nonnull(at);
            ck_assert_uint_eq(got, len);
            ck_assert(!r.bad);
            pls_reader tight = pls_reader_over(bytes, pls_writer_len(&w));
            (bin ? pls_unpack_bin : pls_unpack_str)(&tight, len - 1, &got);
            ck_assert(len == 0 || tight.bad);
            /* The one is not taken for the other. */
            pls_reader wrong = pls_reader_over(bytes, pls_writer_len(&w));
            (bin ? pls_unpack_str : pls_unpack_bin)(&wrong, 600, &got);
            ck_assert(wrong.bad);
        }
    }
}
END_TEST

START_TEST(test_message_that_does_not_fit_leaves_the_packet_as_it_was)
{
    uint8_t body[256] = {0};
    uint8_t buckets[2] = {0};
    pls_message m = full_message(PLS_WIRE_ALIVE, buckets, body);
    uint8_t bytes[64];
    pls_writer w = pls_writer_into(bytes, 24);
    pls_packet_head_write(&w, 1, 2);
    size_t before = pls_writer_len(&w);
    pls_message_write(&w, &m);
    ck_assert(w.bad);
    ck_assert_uint_eq(pls_writer_len(&w), before);
}
END_TEST

/* A node that knows one other, and everything countable of it that a dropped packet must not move.
 */
typedef struct before {
    pls_gossip_view view;
    uint32_t events;
    uint32_t packets;
} before;

static rig *pair(void)
{
    rig *r = rig_create();
    rig_warm(r, 2);
    rig_start(r, 2, 1);
    return r;
}

static before look(const rig *r)
{
    return (before){pls_gossip_look(r->nodes[0]), r->event_count, r->packet_count};
}

static void assert_unmoved(const rig *r, const before *b)
{
    pls_gossip_view now = pls_gossip_look(r->nodes[0]);
    ck_assert_uint_eq(now.digest, b->view.digest);
    ck_assert_uint_eq(now.incarnation, b->view.incarnation);
    ck_assert_uint_eq(now.alive_count, b->view.alive_count);
    ck_assert_uint_eq(now.suspect_count, b->view.suspect_count);
    ck_assert_uint_eq(now.dead_count, b->view.dead_count);
    ck_assert_uint_eq(now.left_count, b->view.left_count);
    ck_assert_uint_eq(now.queue_count, b->view.queue_count);
    ck_assert_uint_eq(now.probe_count, b->view.probe_count);
    ck_assert_uint_eq(now.relay_count, b->view.relay_count);
    ck_assert_uint_eq(now.names_count, b->view.names_count);
    ck_assert_uint_eq(now.awareness, b->view.awareness);
    ck_assert_uint_eq(r->event_count, b->events);
    ck_assert_uint_eq(r->packet_count, b->packets);
}

START_TEST(test_08_ping_that_names_another_is_dropped)
{
    rig *r = pair();
    before b = look(r);
    pls_message ping = {.kind = PLS_WIRE_PING, .sequence = 1, .key = rig_key(r, 1)};
    rig_say(r, 1, 0, &ping);
    /* No ack; the sender hears who lives here instead. */
    b.packets++;
    assert_unmoved(r, &b);
    ck_assert_uint_eq(rig_counters(r, 0).dropped_target, 1);
    ck_assert_uint_eq(rig_under_way(r, 1, PLS_WIRE_ACK), 0);
    ck_assert_uint_eq(rig_under_way(r, 1, PLS_WIRE_RECORD), 1);
    rig_destroy(r);
}
END_TEST

static size_t suspect_packet(const rig *r, uint8_t *bytes)
{
    pls_message m = {
        .kind = PLS_WIRE_SUSPECT, .key = rig_key(r, 1), .incarnation = 1, .accuser = 5};
    return rig_pack(r, 2, &m, bytes);
}

START_TEST(test_08_other_cluster_is_dropped)
{
    rig *r = pair();
    before b = look(r);
    uint8_t bytes[PLS_PACKET_BYTES_MIN];
    size_t len = suspect_packet(r, bytes);
    bytes[4] ^= 1;
    ck_assert_int_eq(rig_give(r, 0, 2, bytes, len), PLS_EPERM);
    ck_assert_uint_eq(rig_counters(r, 0).dropped_cluster, 1);
    assert_unmoved(r, &b);
    rig_destroy(r);
}
END_TEST

START_TEST(test_08_other_version_is_dropped_and_a_newer_one_that_reaches_down_is_not)
{
    rig *r = pair();
    before b = look(r);
    uint8_t bytes[PLS_PACKET_BYTES_MIN];
    size_t len = suspect_packet(r, bytes);
    bytes[0] = 9;
    bytes[1] = 8;
    ck_assert_int_eq(rig_give(r, 0, 2, bytes, len), PLS_EVERSION);
    bytes[0] = 0;
    bytes[1] = 0;
    ck_assert_int_eq(rig_give(r, 0, 2, bytes, len), PLS_EVERSION);
    ck_assert_uint_eq(rig_counters(r, 0).dropped_version, 2);
    assert_unmoved(r, &b);
    bytes[0] = 9;
    bytes[1] = 1;
    ck_assert_int_eq(rig_give(r, 0, 2, bytes, len), PLS_OK);
    ck_assert_int_eq(rig_state(r, 0, 1), PLS_MEMBER_SUSPECT);
    rig_destroy(r);
}
END_TEST

START_TEST(test_08_own_packet_that_comes_back_is_dropped)
{
    rig *r = pair();
    before b = look(r);
    uint8_t bytes[PLS_PACKET_BYTES_MIN];
    pls_message ack = {.kind = PLS_WIRE_ACK, .sequence = 1};
    size_t len = rig_pack(r, 0, &ack, bytes);
    ck_assert_int_eq(rig_give(r, 0, 0, bytes, len), PLS_EPROTO);
    ck_assert_uint_eq(rig_counters(r, 0).dropped_self, 1);
    assert_unmoved(r, &b);
    rig_destroy(r);
}
END_TEST

START_TEST(test_08_unknown_kind_is_counted_and_the_rest_is_read)
{
    rig *r = pair();
    uint8_t bytes[PLS_PACKET_BYTES_MIN];
    pls_message m = {
        .kind = PLS_WIRE_SUSPECT, .key = rig_key(r, 1), .incarnation = 1, .accuser = 5};
    size_t len = rig_pack(r, 2, &m, bytes);
    uint8_t more[PLS_PACKET_BYTES_MIN];
    pls_message ack = {.kind = PLS_WIRE_ACK, .sequence = 1};
    size_t head = rig_pack(r, 2, &ack, more) - 4;
    pls_writer w = pls_writer_into(more, sizeof more);
    w.at += head;
    pls_pack_bin(&w, "\xc8 from the future", 17);
    pls_write_bytes(&w, bytes + head, len - head);
    ck_assert_int_eq(rig_give(r, 0, 2, more, pls_writer_len(&w)), PLS_OK);
    ck_assert_uint_eq(rig_counters(r, 0).dropped_kind, 1);
    ck_assert_int_eq(rig_state(r, 0, 1), PLS_MEMBER_SUSPECT);
    rig_destroy(r);
}
END_TEST

START_TEST(test_08_field_that_a_newer_version_appended_is_stepped_over)
{
    rig *r = pair();
    uint8_t bytes[PLS_PACKET_BYTES_MIN];
    size_t len = suspect_packet(r, bytes);
    size_t head = 0;
    pls_packet packet;
    ck_assert_int_eq(pls_packet_open(bytes, len, &packet), PLS_OK);
    head = (size_t)(packet.messages.at - bytes);
    bytes[head + 1] += 2;
    bytes[len] = 0xcc;
    bytes[len + 1] = 0xff;
    ck_assert_int_eq(rig_give(r, 0, 2, bytes, len + 2), PLS_OK);
    ck_assert_int_eq(rig_state(r, 0, 1), PLS_MEMBER_SUSPECT);
    rig_destroy(r);
}
END_TEST

START_TEST(test_08_truncated_packet_is_dropped_at_every_length)
{
    rig *r = pair();
    uint8_t bytes[PLS_PACKET_BYTES_MIN];
    size_t len = suspect_packet(r, bytes);
    pls_packet packet;
    ck_assert_int_eq(pls_packet_open(bytes, len, &packet), PLS_OK);
    size_t head = (size_t)(packet.messages.at - bytes);
    before b = look(r);
    for (size_t cut = 0; cut < len; cut++) {
        /* A head alone is a packet that says nothing. */
        ck_assert_int_eq(rig_give(r, 0, 2, bytes, cut), cut == head ? PLS_OK : PLS_EPROTO);
        assert_unmoved(r, &b);
    }
    ck_assert_uint_eq(rig_counters(r, 0).dropped_malformed, len - 1);
    rig_destroy(r);
}
END_TEST

START_TEST(test_08_trailing_bytes_drop_the_whole_packet)
{
    rig *r = pair();
    uint8_t bytes[PLS_PACKET_BYTES_MIN];
    size_t len = suspect_packet(r, bytes);
    before b = look(r);
    for (uint32_t tail = 0; tail < 256; tail++) {
        bytes[len] = (uint8_t)tail;
        ck_assert_int_eq(rig_give(r, 0, 2, bytes, len + 1), PLS_EPROTO);
        assert_unmoved(r, &b);
    }
    rig_destroy(r);
}
END_TEST

START_TEST(test_08_oversized_packet_is_dropped)
{
    rig *r = pair();
    static uint8_t big[PLS_PACKET_BYTES_MAX + 1];
    before b = look(r);
    ck_assert_int_eq(rig_give(r, 0, 2, big, sizeof big), PLS_ETOOBIG);
    ck_assert_uint_eq(rig_counters(r, 0).dropped_oversized, 1);
    assert_unmoved(r, &b);
    rig_destroy(r);
}
END_TEST

/* One member record whose fields break one limit each. */
START_TEST(test_08_record_beyond_a_limit_is_dropped)
{
    rig *r = pair();
    before b = look(r);
    for (int i = 0; i < 6; i++) {
        pls_message record = rig_record(r, 2, 1);
        pls_identity *id = &record.identity;
        record.meta = (const uint8_t *)name_long;
        record.meta_bytes = i == 0 ? PLS_META_BYTES_MAX + 1 : 0;
        id->name = name_long;
        id->name_bytes = i == 1 ? PLS_NAME_BYTES_MAX + 1 : i == 2 ? 0 : 4;
        id->address_bytes = i == 3 ? PLS_ADDRESS_BYTES_MAX + 1 : i == 4 ? 0 : 4;
        id->address = name_long;
        id->generation = i == 5 ? 0 : 1;
        uint8_t bytes[PLS_PACKET_BYTES_MIN];
        size_t len = rig_pack(r, 2, &record, bytes);
        ck_assert_msg(rig_give(r, 0, 2, bytes, len) == PLS_EPROTO, "limit %d", i);
        assert_unmoved(r, &b);
    }
    rig_destroy(r);
}
END_TEST

START_TEST(test_08_random_bytes_change_nothing)
{
    rig *r = pair();
    pls_rng rng;
    pls_rng_init(&rng, 8);
    before b = look(r);
    for (uint32_t i = 0; i < 20000; i++) {
        uint8_t bytes[128];
        size_t len = pls_rng_below(&rng, sizeof bytes);
        for (size_t k = 0; k < len; k++) {
            bytes[k] = (uint8_t)pls_rng_next(&rng);
        }
        ck_assert_int_ne(rig_give(r, 0, 2, bytes, len), PLS_OK);
    }
    assert_unmoved(r, &b);
    rig_destroy(r);
}
END_TEST

START_TEST(test_packet_before_join_is_dropped)
{
    rig *r = pair();
    pls_message ping = {.kind = PLS_WIRE_PING, .sequence = 1, .key = rig_key(r, 2)};
    rig_say(r, 0, 2, &ping);
    ck_assert_uint_eq(rig_counters(r, 2).dropped_early, 1);
    ck_assert_uint_eq(rig_under_way(r, 0, PLS_WIRE_ACK), 0);
    rig_destroy(r);
}
END_TEST

START_TEST(test_packet_tells_its_sender)
{
    rig *r = pair();
    uint8_t bytes[PLS_PACKET_BYTES_MIN];
    uint64_t key = 0;
    size_t len = suspect_packet(r, bytes);
    ck_assert_int_eq(pls_gossip_packet_sender(bytes, len, &key), PLS_OK);
    ck_assert_uint_eq(key, rig_key(r, 2));
    ck_assert_int_eq(pls_gossip_packet_sender(bytes, 3, &key), PLS_EPROTO);
    rig_destroy(r);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("gossip.packet");
    TCase *tc = tcase_create("packet");
    suite_add_tcase(suite, tc);
    tcase_add_loop_test(tc, test_msgpack_c_reads_every_kind, 0, PLS_WIRE_KIND_COUNT);
    tcase_add_loop_test(tc, test_every_kind_comes_back_as_it_went, 0, PLS_WIRE_KIND_COUNT);
    tcase_add_test(tc, test_numbers_take_their_shortest_form);
    tcase_add_test(tc, test_strings_and_bins_of_every_length_come_back);
    tcase_add_test(tc, test_message_that_does_not_fit_leaves_the_packet_as_it_was);
    tcase_add_test(tc, test_08_ping_that_names_another_is_dropped);
    tcase_add_test(tc, test_08_other_cluster_is_dropped);
    tcase_add_test(tc, test_08_other_version_is_dropped_and_a_newer_one_that_reaches_down_is_not);
    tcase_add_test(tc, test_08_own_packet_that_comes_back_is_dropped);
    tcase_add_test(tc, test_08_unknown_kind_is_counted_and_the_rest_is_read);
    tcase_add_test(tc, test_08_field_that_a_newer_version_appended_is_stepped_over);
    tcase_add_test(tc, test_08_truncated_packet_is_dropped_at_every_length);
    tcase_add_test(tc, test_08_trailing_bytes_drop_the_whole_packet);
    tcase_add_test(tc, test_08_oversized_packet_is_dropped);
    tcase_add_test(tc, test_08_record_beyond_a_limit_is_dropped);
    tcase_add_test(tc, test_08_random_bytes_change_nothing);
    tcase_add_test(tc, test_packet_before_join_is_dropped);
    tcase_add_test(tc, test_packet_tells_its_sender);
    return check_run(suite);
}
