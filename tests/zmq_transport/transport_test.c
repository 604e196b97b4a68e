/* SPDX-License-Identifier: Apache-2.0 */
/* Two or three transports over loopback, with and without a key. */
#include "tests/zmq_transport/rig.h"

#include <stdio.h>
#include <string.h>

#define LIMIT_MS 10000
#define MIB UINT64_C(1048576)

static rig_node a;
static rig_node b;
static rig_node c;
static rig_node *const both[] = {&a, &b};
static rig_node *const three[] = {&a, &b, &c};

static void pair_open(const pls_zmq_key *key)
{
    rig_open_named(&a, "a", key);
    rig_open_named(&b, "b", key);
}

static void pair_close(void)
{
    rig_close(&a);
    rig_close(&b);
}

static void packets_both_ways(const pls_zmq_key *key)
{
    pair_open(key);
    ck_assert_int_eq(rig_packet(&a, &b, "ping"), PLS_OK);
    ck_assert(rig_until(both, 2, &b.packets, 1, LIMIT_MS));
    ck_assert_str_eq(b.packet, "ping");
    ck_assert_str_eq(b.packet_address, pls_zmq_endpoint(a.zmq));
    ck_assert_int_eq(memcmp(b.packet_from.node_id, pls_zmq_node_id(a.zmq), PLS_ZMQ_NODE_ID_BYTES),
                     0);
    /* The answer goes back over the connection that the packet came by. */
    ck_assert_int_eq(rig_packet(&b, &a, "pong"), PLS_OK);
    ck_assert(rig_until(both, 2, &a.packets, 1, LIMIT_MS));
    ck_assert_str_eq(a.packet, "pong");
    ck_assert_int_eq(memcmp(a.packet_from.node_id, pls_zmq_node_id(b.zmq), PLS_ZMQ_NODE_ID_BYTES),
                     0);
    ck_assert_uint_eq(pls_zmq_counted(a.zmq)->accepted, 0);
    ck_assert_str_eq(a.local, "127.0.0.1");
    pair_close();
}

START_TEST(test_a_packet_and_its_answer_share_a_connection)
{
    packets_both_ways(NULL);
}
END_TEST

START_TEST(test_a_packet_and_its_answer_share_a_connection_with_a_key)
{
    pls_zmq_key key = rig_key(1);
    packets_both_ways(&key);
}
END_TEST

static void messages_of_all_sizes(const pls_zmq_key *key)
{
    static const uint64_t sizes[] = {0, 1, 64, 8191, 8192, 8193, 262144, 262145, 3 * MIB + 5};
    unsigned count = sizeof sizes / sizeof sizes[0];
    pair_open(key);
    pls_zmq_peer *peer = rig_reach(&a, &b);
    for (unsigned i = 0; i < count; i++) {
        rig_sent(&a, peer, 5, i + 1, sizes[i]);
    }
    ck_assert(rig_until(both, 2, &a.settled, count, LIMIT_MS));
    ck_assert_uint_eq(a.fates[PLS_ZMQ_DELIVERED], count);
    ck_assert_uint_eq(b.messages, count);
    ck_assert_uint_eq(b.disorder + b.damaged + b.abandoned, 0);
    pls_zmq_forget(a.zmq, peer);
    pair_close();
}

START_TEST(test_messages_of_all_sizes_arrive_whole_and_in_order)
{
    messages_of_all_sizes(NULL);
}
END_TEST

START_TEST(test_messages_of_all_sizes_arrive_whole_and_in_order_with_a_key)
{
    pls_zmq_key key = rig_key(1);
    messages_of_all_sizes(&key);
}
END_TEST

START_TEST(test_a_small_message_overtakes_a_large_one_of_another_stream)
{
    pair_open(NULL);
    pls_zmq_peer *peer = rig_reach(&a, &b);
    rig_sent(&a, peer, 0, 1, 20 * MIB);
    rig_sent(&a, peer, 1, 1, 64);
    ck_assert(rig_until(both, 2, &b.messages, 1, LIMIT_MS));
    ck_assert_uint_eq(b.body_bytes, 64);
    ck_assert(rig_until(both, 2, &a.settled, 2, LIMIT_MS));
    ck_assert_uint_eq(b.body_bytes, 20 * MIB + 64);
    ck_assert_uint_eq(b.disorder + b.damaged, 0);
    pls_zmq_forget(a.zmq, peer);
    pair_close();
}
END_TEST

/* How much bulk arrives between a packet and its sending says, on a machine however slow, whether
 * it waits for any: at most what was on its way already, which is a window. */
START_TEST(test_a_packet_waits_for_no_bulk)
{
    uint64_t serial = 0;
    uint64_t most_bytes = 0;
    uint64_t slowest_ns = 0;
    pair_open(NULL);
    pls_zmq_peer *peer = rig_reach(&a, &b);
    for (unsigned i = 1; i <= 8; i++) {
        while (pls_zmq_waiting(a.zmq) < 24) {
            serial++;
            rig_sent(&a, peer, 0, serial, MIB);
        }
        uint64_t begin_ns = rig_now_ns();
        uint64_t begin_bytes = b.body_bytes;
        ck_assert_int_eq(rig_packet(&a, &b, "ping"), PLS_OK);
        ck_assert(rig_until(both, 2, &b.packets, i, LIMIT_MS));
        uint64_t taken_ns = rig_now_ns() - begin_ns;
        uint64_t bytes = b.body_bytes - begin_bytes;
        /* The first one makes the connection. */
        slowest_ns = i > 1 && taken_ns > slowest_ns ? taken_ns : slowest_ns;
        most_bytes = i > 1 && bytes > most_bytes ? bytes : most_bytes;
    }
    ck_assert(rig_until(both, 2, &a.settled, serial, LIMIT_MS));
    printf("packets beside %llu MiB of bulk: at most %llu us and %llu MiB of it in between\n",
           (unsigned long long)serial, (unsigned long long)slowest_ns / 1000,
           (unsigned long long)(most_bytes / MIB));
    ck_assert_uint_le(most_bytes, 12 * MIB);
    pls_zmq_forget(a.zmq, peer);
    pair_close();
}
END_TEST

START_TEST(test_a_full_queue_turns_down_and_tells_when_there_is_room)
{
    pls_zmq_config config = rig_config("a", NULL);
    config.queue_messages = 8;
    rig_open(&a, &config);
    rig_open_named(&b, "b", NULL);
    pls_zmq_peer *peer = rig_reach(&a, &b);
    for (unsigned i = 0; i < 8; i++) {
        rig_sent(&a, peer, 0, i + 1, 10);
    }
    ck_assert_int_eq(rig_send(&a, peer, 0, 9, 10), PLS_EFULL);
    ck_assert(rig_until(both, 2, &a.rooms, 1, LIMIT_MS));
    rig_sent(&a, peer, 0, 9, 10);
    ck_assert(rig_until(both, 2, &a.settled, 9, LIMIT_MS));
    ck_assert_uint_eq(b.disorder, 0);
    pls_zmq_forget(a.zmq, peer);
    pair_close();
}
END_TEST

START_TEST(test_an_owner_that_takes_nothing_holds_up_the_sender_within_the_window)
{
    pls_zmq_config config = rig_config("a", NULL);
    config.queue_bytes = 64 * MIB;
    rig_open(&a, &config);
    config = rig_config("b", NULL);
    config.window_bytes = 1 * MIB;
    rig_open(&b, &config);
    b.take_nothing = true;
    pls_zmq_peer *peer = rig_reach(&a, &b);
    for (unsigned i = 0; i < 64; i++) {
        rig_sent(&a, peer, i % 4, i / 4 + 1, 256 * 1024);
    }
    rig_run(both, 2, 300);
    ck_assert_uint_eq(b.messages, 0);
    ck_assert_uint_eq(a.settled, 0);
    b.take_nothing = false;
    pls_zmq_resume(b.zmq, b.sender);
    ck_assert(rig_until(both, 2, &a.settled, 64, LIMIT_MS));
    ck_assert_uint_eq(b.messages, 64);
    ck_assert_uint_eq(b.disorder + b.damaged + b.abandoned, 0);
    pls_zmq_forget(a.zmq, peer);
    pair_close();
}
END_TEST

START_TEST(test_a_reservation_can_wait_and_can_be_refused)
{
    pair_open(NULL);
    pls_zmq_peer *peer = rig_reach(&a, &b);
    b.reserve_full = true;
    rig_sent(&a, peer, 0, 1, MIB);
    rig_sent(&a, peer, 0, 2, 5);
    rig_run(both, 2, 200);
    ck_assert_uint_eq(b.messages, 0);
    b.reserve_full = false;
    pls_zmq_resume(b.zmq, b.sender);
    ck_assert(rig_until(both, 2, &a.settled, 2, LIMIT_MS));
    b.reserve_refuse = true;
    b.jump = 1;
    rig_sent(&a, peer, 0, 3, MIB);
    rig_sent(&a, peer, 0, 4, 5);
    ck_assert(rig_until(both, 2, &a.settled, 4, LIMIT_MS));
    ck_assert_uint_eq(b.messages, 3);
    ck_assert_uint_eq(b.last[0], 4);
    ck_assert_uint_eq(pls_zmq_counted(b.zmq)->skipped_messages, 1);
    ck_assert_uint_eq(b.disorder + b.damaged, 0);
    pls_zmq_forget(a.zmq, peer);
    pair_close();
}
END_TEST

START_TEST(test_what_was_never_sent_is_settled_so)
{
    rig_open_named(&a, "a", NULL);
    pls_zmq_peer *peer = NULL;
    static const char nowhere[] = "tcp://127.0.0.1:1";
    ck_assert_int_eq(pls_zmq_reach(a.zmq, nowhere, strlen(nowhere), 0, &peer), PLS_OK);
    rig_sent(&a, peer, 0, 1, 10);
    rig_sent(&a, peer, 0, 2, MIB);
    rig_node *const alone[] = {&a};
    ck_assert(rig_until(alone, 1, &a.news[PLS_ZMQ_REFUSED], 2, LIMIT_MS));
    pls_zmq_forget(a.zmq, peer);
    ck_assert(rig_until(alone, 1, &a.settled, 2, LIMIT_MS));
    ck_assert_uint_eq(a.fates[PLS_ZMQ_UNSENT], 2);
    rig_close(&a);
}
END_TEST

START_TEST(test_what_was_sent_to_a_dead_process_is_settled_as_unknown)
{
    pair_open(NULL);
    pls_zmq_peer *peer = rig_reach(&a, &b);
    rig_sent(&a, peer, 0, 1, 10);
    ck_assert(rig_until(both, 2, &a.settled, 1, LIMIT_MS));
    b.take_nothing = true;
    rig_sent(&a, peer, 0, 2, 10);
    rig_sent(&a, peer, 1, 1, MIB);
    ck_assert(rig_until(both, 2, &b.turned_down, 1, LIMIT_MS));
    rig_run(both, 2, 50);
    rig_close(&b);
    rig_node *const alone[] = {&a};
    rig_run(alone, 1, 100);
    pls_zmq_forget(a.zmq, peer);
    ck_assert(rig_until(alone, 1, &a.settled, 3, LIMIT_MS));
    ck_assert_uint_eq(a.fates[PLS_ZMQ_UNKNOWN], 2);
    rig_close(&a);
}
END_TEST

START_TEST(test_a_refused_greeting_says_why_on_both_sides)
{
    pls_zmq_config config = rig_config("a", NULL);
    config.cluster = "other";
    rig_open(&a, &config);
    rig_open_named(&b, "b", NULL);
    pls_zmq_peer *peer = rig_reach(&a, &b);
    rig_sent(&a, peer, 0, 1, 10);
    ck_assert(rig_until(both, 2, &a.news[PLS_ZMQ_REJECTED], 1, LIMIT_MS));
    ck_assert_str_eq(a.news_text, "another cluster's name");
    ck_assert(rig_until(both, 2, &a.settled, 1, LIMIT_MS));
    ck_assert_uint_eq(a.fates[PLS_ZMQ_UNSENT], 1);
    ck_assert_uint_eq(pls_zmq_counted(b.zmq)->away_cluster, 1);
    ck_assert_uint_eq(b.away_reports, 1);
    pls_zmq_forget(a.zmq, peer);
    pair_close();
}
END_TEST

START_TEST(test_a_generation_that_is_meant_is_the_only_one_served)
{
    pair_open(NULL);
    pls_zmq_peer *peer = NULL;
    const char *address = pls_zmq_endpoint(b.zmq);
    ck_assert_int_eq(pls_zmq_reach(a.zmq, address, strlen(address), 7, &peer), PLS_OK);
    rig_sent(&a, peer, 0, 1, 10);
    ck_assert(rig_until(both, 2, &a.settled, 1, LIMIT_MS));
    ck_assert_uint_eq(a.fates[PLS_ZMQ_UNSENT], 1);
    ck_assert_uint_eq(b.messages, 0);
    pls_zmq_forget(a.zmq, peer);
    pair_close();
}
END_TEST

START_TEST(test_a_process_that_takes_the_address_over_is_noticed)
{
    pair_open(NULL);
    pls_zmq_config config = rig_config("b", NULL);
    char address[PLS_ZMQ_ADDRESS_CAPACITY];
    snprintf(address, sizeof address, "%s", pls_zmq_endpoint(b.zmq));
    config.bind = address;
    config.generation = 2;
    pls_zmq_peer *peer = rig_reach(&a, &b);
    rig_sent(&a, peer, 0, 1, 10);
    ck_assert(rig_until(both, 2, &a.settled, 1, LIMIT_MS));
    rig_close(&b);
    /* What is sent before a notices would be unknown, and not go to another process. */
    rig_node *const alone[] = {&a};
    rig_run(alone, 1, 100);
    rig_open(&b, &config);
    rig_sent(&a, peer, 0, 1, 10);
    ck_assert(rig_until(both, 2, &a.news[PLS_ZMQ_REPLACED], 1, LIMIT_MS));
    ck_assert(rig_until(both, 2, &b.messages, 1, LIMIT_MS));
    ck_assert_uint_eq(b.disorder, 0);
    pls_zmq_forget(a.zmq, peer);
    pair_close();
}
END_TEST

START_TEST(test_an_idle_connection_is_closed_and_comes_again)
{
    pls_zmq_config config = rig_config("a", NULL);
    config.idle_ms = 100;
    rig_open(&a, &config);
    rig_open_named(&b, "b", NULL);
    pls_zmq_peer *peer = rig_reach(&a, &b);
    rig_sent(&a, peer, 0, 1, 10);
    const pls_zmq_counters *counters = pls_zmq_counted(a.zmq);
    ck_assert(rig_until(both, 2, &counters->idle_closes, 1, LIMIT_MS));
    rig_sent(&a, peer, 0, 2, 10);
    ck_assert(rig_until(both, 2, &b.messages, 2, LIMIT_MS));
    ck_assert_uint_eq(counters->connects, 2);
    ck_assert_uint_eq(a.news[PLS_ZMQ_DISCONNECTED], 0);
    ck_assert_uint_eq(b.disorder, 0);
    pls_zmq_forget(a.zmq, peer);
    pair_close();
}
END_TEST

START_TEST(test_an_open_lane_costs_two_descriptors_at_each_end_and_gives_them_back)
{
    pair_open(NULL);
    rig_run(both, 2, 20);
    unsigned descriptors = rig_descriptors();
    pls_zmq_peer *peer = rig_reach(&a, &b);
    rig_sent(&a, peer, 0, 1, 10);
    ck_assert(rig_until(both, 2, &a.settled, 1, LIMIT_MS));
    unsigned open = rig_descriptors();
    for (unsigned i = 0; i < 100 && open != descriptors + 4; i++) {
        rig_run(both, 2, 10); /* ZeroMQ's thread closes a monitor when it gets to it */
        open = rig_descriptors();
    }
    ck_assert_uint_eq(open, descriptors + 4);
    pls_zmq_forget(a.zmq, peer);
    for (unsigned i = 0; i < 100 && open != descriptors; i++) {
        rig_run(both, 2, 10);
        open = rig_descriptors();
    }
    ck_assert_uint_eq(open, descriptors);
    pair_close();
}
END_TEST

START_TEST(test_more_peers_than_the_limit_share_the_connections)
{
    pls_zmq_config config = rig_config("a", NULL);
    config.peers_max = 1;
    rig_open(&a, &config);
    rig_open_named(&b, "b", NULL);
    rig_open_named(&c, "c", NULL);
    pls_zmq_peer *to_b = rig_reach(&a, &b);
    pls_zmq_peer *to_c = rig_reach(&a, &c);
    for (unsigned i = 1; i <= 3; i++) {
        rig_sent(&a, to_b, 0, i, 10);
        rig_sent(&a, to_c, 0, i, 10);
        ck_assert(rig_until(three, 3, &a.settled, i * 2, LIMIT_MS));
    }
    ck_assert_uint_eq(b.messages + c.messages, 6);
    ck_assert_uint_ge(pls_zmq_counted(a.zmq)->idle_closes, 3);
    pls_zmq_forget(a.zmq, to_b);
    pls_zmq_forget(a.zmq, to_c);
    pair_close();
    rig_close(&c);
}
END_TEST

START_TEST(test_who_leaves_delivers_what_waits_and_takes_no_more)
{
    pair_open(NULL);
    pls_zmq_peer *peer = rig_reach(&a, &b);
    for (unsigned i = 1; i <= 10; i++) {
        rig_sent(&a, peer, 0, i, MIB);
    }
    pls_zmq_leave(a.zmq);
    ck_assert_int_eq(rig_send(&a, peer, 0, 11, 1), PLS_ECLOSED);
    ck_assert(rig_until(both, 2, &a.settled, 10, LIMIT_MS));
    ck_assert_uint_eq(pls_zmq_waiting(a.zmq), 0);
    ck_assert_uint_eq(a.fates[PLS_ZMQ_DELIVERED], 10);
    pls_zmq_forget(a.zmq, peer);
    pair_close();
}
END_TEST

START_TEST(test_destroy_settles_everything_and_gives_memory_back)
{
    pair_open(NULL);
    pls_zmq_peer *peer = rig_reach(&a, &b);
    for (unsigned i = 1; i <= 20; i++) {
        rig_sent(&a, peer, i % 3, i / 3 + 1, 3 * MIB);
    }
    rig_run(both, 2, 10);
    rig_close(&a);
    ck_assert_uint_eq(a.settled, 20);
    rig_close(&b);
}
END_TEST

START_TEST(test_bad_arguments_are_turned_down)
{
    static const char *const bad[] = {"tcp://host:1",        "tcp://1.2.3.4", "ipc://x",
                                      "tcp://1.2.3.4:70000", "tcp://[::1:5",  "tcp://1.2.3.4:0"};
    pls_zmq_peer *peer = NULL;
    pls_zmq_config config = rig_config("a", NULL);
    rig_open(&a, &config);
    for (unsigned i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        ck_assert_int_eq(pls_zmq_reach(a.zmq, bad[i], strlen(bad[i]), 0, &peer), PLS_EINVAL);
    }
    ck_assert_int_eq(pls_zmq_set_advertise(a.zmq, "tcp://0.0.0.0:5"), PLS_EINVAL);
    ck_assert_int_eq(pls_zmq_set_advertise(a.zmq, "tcp://10.0.0.1:5"), PLS_OK);
    pls_zmq *second = NULL;
    config.bind = "tcp://203.0.113.9:7100";
    ck_assert_int_eq(pls_zmq_create(&config, &a.handlers, &a, 1, &second), PLS_ENOENT);
    config.generation = 0;
    ck_assert_int_eq(pls_zmq_create(&config, &a.handlers, &a, 1, &second), PLS_EINVAL);
    rig_close(&a);
}
END_TEST

START_TEST(test_a_taken_port_is_told)
{
    rig_open_named(&a, "a", NULL);
    pls_zmq_config config = rig_config("b", NULL);
    config.bind = pls_zmq_endpoint(a.zmq);
    pls_zmq *second = NULL;
    ck_assert_int_eq(pls_zmq_create(&config, &a.handlers, &a, 1, &second), PLS_EEXIST);
    rig_close(&a);
}
END_TEST

int main(void)
{
    const TTest *const tests[] = {
        test_a_packet_and_its_answer_share_a_connection,
        test_a_packet_and_its_answer_share_a_connection_with_a_key,
        test_messages_of_all_sizes_arrive_whole_and_in_order,
        test_messages_of_all_sizes_arrive_whole_and_in_order_with_a_key,
        test_a_small_message_overtakes_a_large_one_of_another_stream,
        test_a_packet_waits_for_no_bulk,
        test_a_full_queue_turns_down_and_tells_when_there_is_room,
        test_an_owner_that_takes_nothing_holds_up_the_sender_within_the_window,
        test_a_reservation_can_wait_and_can_be_refused,
        test_what_was_never_sent_is_settled_so,
        test_what_was_sent_to_a_dead_process_is_settled_as_unknown,
        test_a_refused_greeting_says_why_on_both_sides,
        test_a_generation_that_is_meant_is_the_only_one_served,
        test_a_process_that_takes_the_address_over_is_noticed,
        test_an_idle_connection_is_closed_and_comes_again,
        test_an_open_lane_costs_two_descriptors_at_each_end_and_gives_them_back,
        test_more_peers_than_the_limit_share_the_connections,
        test_who_leaves_delivers_what_waits_and_takes_no_more,
        test_destroy_settles_everything_and_gives_memory_back,
        test_bad_arguments_are_turned_down,
        test_a_taken_port_is_told,
    };
    return rig_main("zmq_transport.transport", tests, sizeof tests / sizeof tests[0]);
}
