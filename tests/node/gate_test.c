/* SPDX-License-Identifier: Apache-2.0 */
/* What other nodes and processes may say to the gateway, and what must never come of it. */
#include "gate_world.h"
#include "tests/check_run.h"

#include <check.h>
#include <string.h>

START_TEST(test_an_answer_of_another_node_ends_no_call)
{
    pls_wire_reply reply;
    gate_routed(1, 0);
    ck_assert_int_eq(gate_asked(1, 77, 0), PLS_OK);
    pls_gate_head head = {.kind = PLS_GATE_REPLY, .id = gate_last()->head.id, .credit = 1};
    ck_assert_int_eq(gate_said(1, &head), PLS_OK);
    ck_assert(gate_silent());
    ck_assert_int_eq(gate_said(0, &head), PLS_OK);
    ck_assert(gate_came(PLS_WIRE_REPLY, &reply, sizeof reply));
    ck_assert_uint_eq(reply.call_id, 77);
    ck_assert_uint_eq(reply.credit, 1);
    /* Once is all. */
    ck_assert_int_eq(gate_said(0, &head), PLS_OK);
    ck_assert(gate_silent());
}
END_TEST

START_TEST(test_an_old_number_finds_no_later_call)
{
    pls_wire_reply reply;
    gate_routed(1, 0);
    ck_assert_int_eq(gate_asked(1, 77, 0), PLS_OK);
    pls_gate_head head = {.kind = PLS_GATE_REPLY, .id = gate_last()->head.id};
    ck_assert_int_eq(gate_said(0, &head), PLS_OK);
    ck_assert(gate_came(PLS_WIRE_REPLY, &reply, sizeof reply));
    ck_assert_int_eq(gate_asked(1, 78, 0), PLS_OK);
    ck_assert_uint_ne(gate_last()->head.id, head.id);
    ck_assert_int_eq(gate_said(0, &head), PLS_OK);
    ck_assert(gate_silent());
}
END_TEST

START_TEST(test_a_deadline_travels_both_ways_as_the_time_that_is_left)
{
    int64_t deadline_ns = 0;
    int64_t now = (int64_t)pls_loop_now_ns();
    gate_routed(1, 0);
    ck_assert_int_eq(gate_asked(1, 77, now + 5000000000), PLS_OK);
    ck_assert_int_le(gate_last()->head.left_ns, 5000000000);
    ck_assert_int_gt(gate_last()->head.left_ns, 4000000000);
    ck_assert_int_eq(gate_asked(1, 78, now - 1), PLS_OK);
    ck_assert_int_eq(gate_last()->head.left_ns, 1);
    gate_served(0, 1, 5000000000, &deadline_ns);
    ck_assert_int_ge(deadline_ns, now + 5000000000);
    gate_served(0, 2, INT64_MAX, &deadline_ns);
    ck_assert_int_eq(deadline_ns, INT64_MAX);
}
END_TEST

START_TEST(test_a_cancelled_call_is_cancelled_there_and_ended_here)
{
    pls_wire_reply reply;
    pls_wire_signal cancel;
    int64_t deadline_ns = 0;
    gate_routed(1, 0);
    ck_assert_int_eq(gate_asked(1, 77, 0), PLS_OK);
    uint64_t id = gate_last()->head.id;
    uint8_t stream = gate_last()->stream;
    gate_signalled(PLS_WIRE_CANCEL, 77, 1);
    ck_assert_uint_eq(gate_last()->head.kind, PLS_GATE_CANCEL);
    ck_assert_uint_eq(gate_last()->head.id, id);
    ck_assert_uint_eq(gate_last()->stream, stream);
    ck_assert(gate_came(PLS_WIRE_REPLY, &reply, sizeof reply));
    ck_assert_uint_eq(reply.status, PULSING_EXPIRED);
    ck_assert_uint_eq(reply.credit, 1);
    /* And from the other side. Another node's word counts for nothing. */
    uint64_t call_id = gate_served(0, 5, 0, &deadline_ns);
    pls_gate_head head = {.kind = PLS_GATE_CANCEL, .id = 5};
    ck_assert_int_eq(gate_said(1, &head), PLS_OK);
    ck_assert(gate_silent());
    ck_assert_int_eq(gate_said(0, &head), PLS_OK);
    ck_assert(gate_came(PLS_WIRE_CANCEL, &cancel, sizeof cancel));
    ck_assert_uint_eq(cancel.id, call_id);
    ck_assert_uint_eq(cancel.value, gate_actor);
}
END_TEST

/* One process's messages to one actor share a stream with its cancellations, whatever the actor. */
START_TEST(test_one_senders_messages_to_one_actor_take_one_stream)
{
    pls_wire_route route = {.id = 2, .actor_id = pls_actor_id(7, 1, 10)};
    memcpy(route.node_id, gate_nodes[0].info.node_id, sizeof route.node_id);
    gate_routed(1, 0);
    ck_assert_int_eq(gate_wrote(PLS_WIRE_ROUTE, &route, sizeof route), PLS_OK);
    bool other = false;
    ck_assert_int_eq(gate_asked(1, 0, 0), PLS_OK);
    uint8_t stream = gate_last()->stream;
    for (uint64_t i = 1; i < 20; i++) {
        ck_assert_int_eq(gate_asked(1, i, 0), PLS_OK);
        ck_assert_uint_eq(gate_last()->stream, stream);
        ck_assert_int_eq(gate_asked(2, 100 + i, 0), PLS_OK);
        other = other || gate_last()->stream != stream;
    }
    ck_assert(other);
}
END_TEST

START_TEST(test_credit_comes_back_once_and_never_more_than_is_out)
{
    pls_wire_signal credit;
    gate_routed(1, 0);
    for (int i = 0; i < 3; i++) {
        ck_assert_int_eq(gate_asked(1, 0, 0), PLS_OK);
    }
    pls_gate_head head = {.kind = PLS_GATE_CREDIT, .id = gate_last()->head.value, .value = 2};
    ck_assert_int_eq(gate_said(1, &head), PLS_OK);
    ck_assert(gate_silent());
    ck_assert_int_eq(gate_said(0, &head), PLS_OK);
    ck_assert(gate_came(PLS_WIRE_CREDIT, &credit, sizeof credit));
    ck_assert_uint_eq(credit.id, 1);
    ck_assert_uint_eq(credit.value, 2);
    head.value = UINT64_MAX;
    ck_assert_int_eq(gate_said(0, &head), PLS_OK);
    ck_assert(gate_came(PLS_WIRE_CREDIT, &credit, sizeof credit));
    ck_assert_uint_eq(credit.value, 1);
    ck_assert_int_eq(gate_said(0, &head), PLS_OK);
    ck_assert(gate_silent());
}
END_TEST

START_TEST(test_a_tell_that_is_lost_on_the_way_gives_its_credit_back)
{
    pls_wire_signal credit;
    gate_routed(1, 0);
    gate_routed(2, 0);
    /* The transport lost it; the node is still there. */
    ck_assert_int_eq(gate_asked(1, 0, 0), PLS_OK);
    gate_settle(gate_last(), PLS_ZMQ_UNKNOWN);
    ck_assert(gate_came(PLS_WIRE_CREDIT, &credit, sizeof credit));
    ck_assert_uint_eq(credit.value, 1);
    /* It could not be sent at all. */
    gate_fate = PLS_ETOOBIG;
    ck_assert_int_eq(gate_asked(1, 0, 0), PLS_OK);
    gate_fate = PLS_OK;
    ck_assert(gate_came(PLS_WIRE_CREDIT, &credit, sizeof credit));
    /* The node died with it; what was delivered is settled before. */
    ck_assert_int_eq(gate_asked(1, 0, 0), PLS_OK);
    gate_settle(gate_last(), PLS_ZMQ_DELIVERED);
    ck_assert_int_eq(gate_asked(1, 0, 0), PLS_OK);
    ck_assert(gate_silent());
    gate_node_gone(0);
    ck_assert(gate_came(PLS_WIRE_CREDIT, &credit, sizeof credit));
    ck_assert_uint_eq(credit.id, 1);
    ck_assert_uint_eq(credit.value, 2);
    /* The last word on it comes late, and changes nothing. */
    gate_settle(gate_last(), PLS_ZMQ_UNKNOWN);
    ck_assert(gate_silent());
    /* And to a dead node nothing is sent. */
    ck_assert_int_eq(gate_asked(2, 0, 0), PLS_OK);
    ck_assert(gate_came(PLS_WIRE_CREDIT, &credit, sizeof credit));
    ck_assert_uint_eq(credit.id, 2);
    ck_assert(gate_silent());
}
END_TEST

START_TEST(test_a_tell_that_nobody_takes_gives_its_credit_back_there)
{
    pls_gate_head head = {.kind = PLS_GATE_REQUEST,
                          .flags = PLS_GATE_WINDOWED,
                          .value = 4711,
                          .actor = pls_actor_id(9, 1, 2)};
    ck_assert_int_eq(gate_said(0, &head), PLS_OK);
    ck_assert_uint_eq(gate_out_count, 1);
    ck_assert_uint_eq(gate_last()->head.kind, PLS_GATE_CREDIT);
    ck_assert_uint_eq(gate_last()->head.id, 4711);
    ck_assert_uint_eq(gate_last()->head.value, 1);
    /* One that is taken gives it when the process says so, and only then. */
    pls_wire_request wire;
    head.actor = gate_actor;
    ck_assert_int_eq(gate_said(0, &head), PLS_OK);
    ck_assert(gate_came(PLS_WIRE_REQUEST, &wire, sizeof wire));
    ck_assert_uint_eq(wire.flags, PLS_REQUEST_WINDOWED);
    ck_assert_uint_eq(gate_out_count, 1);
    gate_signalled(PLS_WIRE_CREDIT, gate_actor, 5);
    ck_assert_uint_eq(gate_out_count, 2);
    ck_assert_uint_eq(gate_last()->head.value, 1);
    gate_signalled(PLS_WIRE_CREDIT, gate_actor, 5);
    ck_assert_uint_eq(gate_out_count, 2);
}
END_TEST

START_TEST(test_an_answer_that_is_under_way_when_its_node_is_lost_does_no_harm)
{
    int64_t deadline_ns = 0;
    uint64_t call_id = gate_served(0, 5, 0, &deadline_ns);
    pls_wire_reply reply = {.call_id = call_id};
    ck_assert_int_eq(gate_wrote(PLS_WIRE_REPLY, &reply, sizeof reply), PLS_OK);
    ck_assert_uint_eq(gate_last()->head.kind, PLS_GATE_REPLY);
    ck_assert_uint_eq(gate_last()->head.id, 5);
    gate_node_gone(0);
    gate_node_up(0);
    uint32_t before = gate_out_count;
    gate_settle(&gate_out[(before - 2) % GATE_SENT_MAX], PLS_ZMQ_UNKNOWN);
    ck_assert_uint_eq(gate_out_count, before);
    /* While the node lives, its caller is told that the answer is lost. */
    reply.call_id = gate_served(1, 6, 0, &deadline_ns);
    ck_assert_int_eq(gate_wrote(PLS_WIRE_REPLY, &reply, sizeof reply), PLS_OK);
    gate_settle(gate_last(), PLS_ZMQ_UNKNOWN);
    ck_assert_uint_eq(gate_last()->head.id, 6);
    ck_assert_uint_eq(gate_last()->head.status, PULSING_UNREACHABLE);
}
END_TEST

START_TEST(test_the_loss_of_a_node_says_what_was_sent)
{
    char text[sizeof(pls_wire_reply) + PLS_GATE_TEXT_BYTES_MAX] = {0};
    gate_routed(1, 0);
    ck_assert_int_eq(gate_asked(1, 77, 0), PLS_OK);
    gate_settle(gate_last(), PLS_ZMQ_DELIVERED);
    ck_assert(gate_silent());
    ck_assert_int_eq(gate_asked(1, 78, 0), PLS_OK);
    gate_settle(gate_last(), PLS_ZMQ_UNSENT);
    ck_assert(gate_came(PLS_WIRE_REPLY, text, sizeof text - 1));
    ck_assert_ptr_nonnull(strstr(text + sizeof(pls_wire_reply), "not sent"));
    gate_node_gone(0);
    ck_assert(gate_came(PLS_WIRE_REPLY, text, sizeof text - 1));
    ck_assert_uint_eq(((const pls_wire_reply *)(const void *)text)->call_id, 77);
    ck_assert_ptr_nonnull(strstr(text + sizeof(pls_wire_reply), "sent and is unanswered"));
    ck_assert(gate_silent());
}
END_TEST

START_TEST(test_a_node_that_comes_back_is_told_that_all_is_over)
{
    pls_wire_reply reply;
    pls_wire_signal cancel;
    int64_t deadline_ns = 0;
    ck_assert_uint_eq(gate_out_count, 0);
    gate_node_gone(0);
    gate_node_up(0);
    ck_assert_uint_eq(gate_out_count, 1);
    ck_assert_uint_eq(gate_last()->head.kind, PLS_GATE_FORGOT);
    ck_assert_uint_eq(gate_last()->stream, 0);
    /* And the other way round: it ends what is between that node and this one, nothing else. */
    gate_routed(1, 0);
    gate_routed(2, 1);
    ck_assert_int_eq(gate_asked(1, 77, 0), PLS_OK);
    ck_assert_int_eq(gate_asked(1, 0, 0), PLS_OK);
    ck_assert_int_eq(gate_asked(2, 78, 0), PLS_OK);
    uint64_t call_id = gate_served(0, 5, 0, &deadline_ns);
    uint64_t other_id = gate_served(1, 5, 0, &deadline_ns);
    pls_gate_head head = {.kind = PLS_GATE_FORGOT};
    ck_assert_int_eq(gate_said(0, &head), PLS_OK);
    ck_assert(gate_came(PLS_WIRE_REPLY, &reply, sizeof reply));
    ck_assert_uint_eq(reply.call_id, 77);
    ck_assert_uint_eq(reply.status, PULSING_UNREACHABLE);
    ck_assert(gate_came(PLS_WIRE_CREDIT, &cancel, sizeof cancel));
    ck_assert(gate_came(PLS_WIRE_CANCEL, &cancel, sizeof cancel));
    ck_assert_uint_eq(cancel.id, call_id);
    ck_assert(gate_silent());
    reply = (pls_wire_reply){.call_id = other_id};
    ck_assert_int_eq(gate_wrote(PLS_WIRE_REPLY, &reply, sizeof reply), PLS_OK);
    ck_assert_ptr_eq(gate_last()->to, &gate_nodes[1]);
}
END_TEST

START_TEST(test_a_writer_learns_that_nobody_reads)
{
    pls_wire_signal close;
    int64_t deadline_ns = 0;
    uint64_t writer_id = 4242;
    struct {
        pls_wire_reply reply;
        uint64_t writer_id;
    } opened = {.writer_id = writer_id};
    opened.reply.call_id = gate_served(0, 5, 0, &deadline_ns);
    opened.reply.status = PULSING_STREAM;
    opened.reply.payload_bytes = sizeof writer_id;
    ck_assert_int_eq(gate_wrote(PLS_WIRE_REPLY, &opened, sizeof opened), PLS_OK);
    /* An item that cannot be sent ends the stream at both ends. */
    gate_fate = PLS_ETOOBIG;
    pls_wire_reply item = {.call_id = opened.reply.call_id};
    ck_assert_int_eq(gate_wrote(PLS_WIRE_STREAM_ITEM, &item, sizeof item), PLS_OK);
    gate_fate = PLS_OK;
    ck_assert(gate_came(PLS_WIRE_STREAM_CLOSE, &close, sizeof close));
    ck_assert_uint_eq(close.id, writer_id);
    /* A stream that is announced, or goes on, after its reader went is closed there. */
    for (int i = 0; i < 2; i++) {
        pls_gate_head head = {.kind = i == 0 ? PLS_GATE_REPLY : PLS_GATE_ITEM,
                              .status = PULSING_STREAM,
                              .payload_bytes = sizeof writer_id,
                              .id = 99};
        uint32_t before = gate_out_count;
        ck_assert_int_eq(gate_said(0, &head), PLS_OK);
        ck_assert_uint_eq(gate_out_count, before + 1);
        ck_assert_uint_eq(gate_last()->head.kind, PLS_GATE_CLOSE);
        ck_assert_uint_eq(gate_last()->head.id, 99);
    }
}
END_TEST

START_TEST(test_a_node_that_takes_no_answers_is_held_up)
{
    pls_gate_head head = {.kind = PLS_GATE_REQUEST, .id = 1, .actor = pls_actor_id(9, 1, 2)};
    pls_gate_peer *peer = gate_nodes[0].kept;
    gate_full = true;
    while (gate_said(0, &head) == PLS_OK) {
        head.id++;
        ck_assert_uint_le(peer->pending.count, PLS_GATE_PENDING_COUNT_MAX);
        ck_assert_uint_le(peer->pending.bytes, PLS_GATE_PENDING_BYTES_MAX + 1024);
    }
    ck_assert_uint_gt(head.id, 1000);
    /* The other one is not. */
    ck_assert_int_eq(gate_said(1, &head), PLS_OK);
    ck_assert_uint_eq(gate_nodes[0].resumed, 0);
    gate_full = false;
    gate_room(0);
    ck_assert_uint_eq(gate_nodes[0].resumed, 1);
    ck_assert_uint_eq(peer->pending.count, 0);
    ck_assert_int_eq(gate_said(0, &head), PLS_OK);
}
END_TEST

START_TEST(test_no_word_of_a_node_is_taken_for_a_process_that_reads_nothing)
{
    int64_t deadline_ns = 0;
    static const uint8_t kinds[] = {PLS_GATE_CANCEL, PLS_GATE_READ};
    gate_served(0, 5, 0, &deadline_ns);
    for (size_t i = 0; i < sizeof kinds; i++) {
        pls_gate_head head = {
            .kind = kinds[i], .id = kinds[i] == PLS_GATE_READ ? 100 : 5, .actor = gate_actor};
        uint32_t count = 0;
        gate_nodes[0].resumed = 0;
        while (gate_said(0, &head) == PLS_OK) {
            head.id += kinds[i] == PLS_GATE_READ ? 1 : 0;
            ck_assert_uint_le(++count, 200000);
        }
        ck_assert_uint_gt(count, 1000);
        pls_message message;
        while (gate_nodes[0].resumed == 0) {
            ck_assert_int_eq(pls_inbox_pop(gate_inbox, &message), PLS_OK);
            pls_inbox_release(gate_inbox);
            pls_gate_link_flush(gate_gateway, GATE_SLOT);
        }
        ck_assert_int_eq(gate_said(0, &head), PLS_OK);
        while (pls_inbox_pop(gate_inbox, &message) == PLS_OK) {
            pls_inbox_release(gate_inbox);
            pls_gate_link_flush(gate_gateway, GATE_SLOT);
        }
    }
}
END_TEST

START_TEST(test_a_process_answers_only_the_calls_that_it_was_given)
{
    int64_t deadline_ns = 0;
    pls_gate_peer *peer = NULL;
    pls_wire_reply reply = {.call_id = gate_served(0, 5, 0, &deadline_ns)};
    pls_gate_record record = {.bytes = (const uint8_t *)&reply,
                              .len = sizeof reply,
                              .slot = GATE_SLOT + 1,
                              .epoch = GATE_EPOCH,
                              .type = PLS_WIRE_REPLY};
    ck_assert_int_eq(pls_gate_out(gate_gateway, &record, &peer), PLS_OK);
    record.slot = GATE_SLOT;
    record.epoch = GATE_EPOCH + 1;
    ck_assert_int_eq(pls_gate_out(gate_gateway, &record, &peer), PLS_OK);
    ck_assert_uint_eq(gate_out_count, 0);
    ck_assert_int_eq(gate_wrote(PLS_WIRE_REPLY, &reply, sizeof reply), PLS_OK);
    ck_assert_uint_eq(gate_out_count, 1);
}
END_TEST

START_TEST(test_a_stranger_manages_no_process)
{
    pls_wire_request wire;
    pls_gate_head head = {.kind = PLS_GATE_REQUEST,
                          .id = 1,
                          .actor = gate_actor & ~(uint64_t)UINT32_MAX,
                          .method = "build",
                          .method_bytes = 5};
    ck_assert_int_eq(gate_said(0, &head), PLS_OK);
    ck_assert(gate_silent());
    ck_assert_uint_eq(gate_last()->head.status, PULSING_BAD_MESSAGE);
    head.method = "ping";
    head.method_bytes = 4;
    ck_assert_int_eq(gate_said(0, &head), PLS_OK);
    ck_assert(gate_came(PLS_WIRE_REQUEST, &wire, sizeof wire));
}
END_TEST

START_TEST(test_the_end_of_a_process_ends_its_calls_in_both_directions)
{
    int64_t deadline_ns = 0;
    gate_routed(1, 0);
    ck_assert_int_eq(gate_asked(1, 77, 0), PLS_OK);
    uint64_t id = gate_last()->head.id;
    gate_served(1, 5, 0, &deadline_ns);
    pls_gate_head tell = {
        .kind = PLS_GATE_REQUEST, .flags = PLS_GATE_WINDOWED, .value = 4711, .actor = gate_actor};
    ck_assert_int_eq(gate_said(0, &tell), PLS_OK);
    pls_gate_slot_died(gate_gateway, (pls_client_key){GATE_SLOT, GATE_EPOCH}, "it died");
    ck_assert_uint_eq(gate_out_count, 4);
    ck_assert_uint_eq(gate_out[1].head.kind, PLS_GATE_CANCEL);
    ck_assert_uint_eq(gate_out[1].head.id, id);
    ck_assert_ptr_eq(gate_out[1].to, &gate_nodes[0]);
    ck_assert_uint_eq(gate_out[2].head.kind, PLS_GATE_REPLY);
    ck_assert_uint_eq(gate_out[2].head.status, PULSING_DIED);
    ck_assert_ptr_eq(gate_out[2].to, &gate_nodes[1]);
    /* What it took no more is given back for it. */
    ck_assert_uint_eq(gate_out[3].head.kind, PLS_GATE_CREDIT);
    ck_assert_uint_eq(gate_out[3].head.id, 4711);
}
END_TEST

static uint64_t used_bytes(void)
{
    pls_arena_stats stats;
    pls_arena_stats_get(gate_gateway->arena, &stats);
    return stats.used_bytes;
}

START_TEST(test_blocks_that_nobody_gets_are_free_again)
{
    /* The second call has the number of the first, so it is refused after its block was made. */
    pls_gate_head head = {.kind = PLS_GATE_REQUEST,
                          .flags = PLS_GATE_BLOCK | PLS_GATE_PAYLOAD_IN_BLOCK,
                          .payload_bytes = PLS_GATE_PAYLOAD_BYTES_MAX,
                          .id = 5,
                          .actor = gate_actor};
    ck_assert_uint_eq(used_bytes(), 0);
    ck_assert_int_eq(gate_said(0, &head), PLS_OK);
    uint64_t lent = used_bytes();
    ck_assert_uint_gt(lent, 0);
    ck_assert_int_eq(gate_said(0, &head), PLS_OK);
    ck_assert_uint_eq(gate_last()->head.status, PULSING_MAILBOX_FULL);
    ck_assert_uint_eq(used_bytes(), lent);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("node.gate");
    TCase *tcase = tcase_create("gate");
    tcase_add_checked_fixture(tcase, gate_setup, gate_teardown);
    tcase_set_timeout(tcase, 60);
    tcase_add_test(tcase, test_an_answer_of_another_node_ends_no_call);
    tcase_add_test(tcase, test_an_old_number_finds_no_later_call);
    tcase_add_test(tcase, test_a_deadline_travels_both_ways_as_the_time_that_is_left);
    tcase_add_test(tcase, test_a_cancelled_call_is_cancelled_there_and_ended_here);
    tcase_add_test(tcase, test_one_senders_messages_to_one_actor_take_one_stream);
    tcase_add_test(tcase, test_credit_comes_back_once_and_never_more_than_is_out);
    tcase_add_test(tcase, test_a_tell_that_is_lost_on_the_way_gives_its_credit_back);
    tcase_add_test(tcase, test_a_tell_that_nobody_takes_gives_its_credit_back_there);
    tcase_add_test(tcase, test_an_answer_that_is_under_way_when_its_node_is_lost_does_no_harm);
    tcase_add_test(tcase, test_the_loss_of_a_node_says_what_was_sent);
    tcase_add_test(tcase, test_a_node_that_comes_back_is_told_that_all_is_over);
    tcase_add_test(tcase, test_a_writer_learns_that_nobody_reads);
    tcase_add_test(tcase, test_a_node_that_takes_no_answers_is_held_up);
    tcase_add_test(tcase, test_no_word_of_a_node_is_taken_for_a_process_that_reads_nothing);
    tcase_add_test(tcase, test_a_process_answers_only_the_calls_that_it_was_given);
    tcase_add_test(tcase, test_a_stranger_manages_no_process);
    tcase_add_test(tcase, test_the_end_of_a_process_ends_its_calls_in_both_directions);
    tcase_add_test(tcase, test_blocks_that_nobody_gets_are_free_again);
    suite_add_tcase(suite, tcase);
    return check_run(suite);
}
