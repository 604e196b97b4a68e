/* SPDX-License-Identifier: Apache-2.0 */
/* Scenarios 2 to 5 and 7: what an arriving statement does to what is stored. Node 0 is under test;
 * node 1 is whom the statements are about, node 2 brings them. */
#include "gossip/wire.h"
#include "tests/check_run.h"
#include "tests/gossip/rig.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ME = 0, SUBJECT = 1, TELLER = 2, OTHER = 3 };

#define STORED 5

static pls_message about(const rig *r, uint32_t kind, uint32_t subject, uint64_t incarnation)
{
    if (kind == PLS_WIRE_ALIVE) {
        return rig_record(r, subject, incarnation);
    }
    return (pls_message){.kind = kind,
                         .key = rig_key(r, subject),
                         .incarnation = incarnation,
                         .accuser = rig_key(r, TELLER)};
}

static void tell(rig *r, uint32_t kind, uint32_t subject, uint64_t incarnation)
{
    pls_message message = about(r, kind, subject, incarnation);
    rig_say(r, TELLER, ME, &message);
}

/* Node 0 holds the subject in a state at incarnation STORED. */
static rig *stored_as(pls_member_state state)
{
    rig *r = rig_create();
    rig_start(r, ME, 1);
    rig_start(r, SUBJECT, 1);
    rig_start(r, TELLER, 1);
    rig_start(r, OTHER, 1);
    ck_assert_int_eq(pls_gossip_join(r->nodes[ME], NULL, 0, r->now_ns), PLS_OK);
    if (state != PLS_MEMBER_UNKNOWN) {
        tell(r, PLS_WIRE_ALIVE, SUBJECT, STORED);
    }
    if (state == PLS_MEMBER_SUSPECT) {
        tell(r, PLS_WIRE_SUSPECT, SUBJECT, STORED);
    } else if (state == PLS_MEMBER_DEAD) {
        tell(r, PLS_WIRE_DEAD, SUBJECT, STORED);
    } else if (state == PLS_MEMBER_LEFT) {
        tell(r, PLS_WIRE_LEFT, SUBJECT, STORED);
    }
    ck_assert_int_eq(rig_state(r, ME, SUBJECT), state);
    rig_forget_events(r);
    return r;
}

/* One cell of table a5: what becomes of a stored state, and of the stored incarnation. */
typedef struct cell {
    pls_member_state stored;
    uint32_t kind;
    int64_t above; /* the arriving incarnation, counted from STORED */
    pls_member_state state;
    uint64_t incarnation;
} cell;

#define UNKNOWN PLS_MEMBER_UNKNOWN
#define ALIVE PLS_MEMBER_ALIVE
#define SUSPECT PLS_MEMBER_SUSPECT
#define DEAD PLS_MEMBER_DEAD
#define LEFT PLS_MEMBER_LEFT

static const cell cells[] = {
    {UNKNOWN, PLS_WIRE_ALIVE, 0, ALIVE, 5},     {UNKNOWN, PLS_WIRE_SUSPECT, 0, UNKNOWN, 0},
    {UNKNOWN, PLS_WIRE_DEAD, 0, UNKNOWN, 0},    {UNKNOWN, PLS_WIRE_LEFT, 0, UNKNOWN, 0},
    {ALIVE, PLS_WIRE_ALIVE, -1, ALIVE, 5},      {ALIVE, PLS_WIRE_ALIVE, 0, ALIVE, 5},
    {ALIVE, PLS_WIRE_ALIVE, 1, ALIVE, 6},       {ALIVE, PLS_WIRE_SUSPECT, -1, ALIVE, 5},
    {ALIVE, PLS_WIRE_SUSPECT, 0, SUSPECT, 5},   {ALIVE, PLS_WIRE_SUSPECT, 1, SUSPECT, 6},
    {ALIVE, PLS_WIRE_DEAD, -1, ALIVE, 5},       {ALIVE, PLS_WIRE_DEAD, 0, DEAD, 5},
    {ALIVE, PLS_WIRE_DEAD, 1, DEAD, 6},         {ALIVE, PLS_WIRE_LEFT, -1, ALIVE, 5},
    {ALIVE, PLS_WIRE_LEFT, 0, LEFT, 5},         {ALIVE, PLS_WIRE_LEFT, 1, LEFT, 6},
    {SUSPECT, PLS_WIRE_ALIVE, -1, SUSPECT, 5},  {SUSPECT, PLS_WIRE_ALIVE, 0, SUSPECT, 5},
    {SUSPECT, PLS_WIRE_ALIVE, 1, ALIVE, 6},     {SUSPECT, PLS_WIRE_SUSPECT, -1, SUSPECT, 5},
    {SUSPECT, PLS_WIRE_SUSPECT, 0, SUSPECT, 5}, {SUSPECT, PLS_WIRE_SUSPECT, 1, SUSPECT, 6},
    {SUSPECT, PLS_WIRE_DEAD, -1, SUSPECT, 5},   {SUSPECT, PLS_WIRE_DEAD, 0, DEAD, 5},
    {SUSPECT, PLS_WIRE_DEAD, 1, DEAD, 6},       {SUSPECT, PLS_WIRE_LEFT, -1, SUSPECT, 5},
    {SUSPECT, PLS_WIRE_LEFT, 0, LEFT, 5},       {SUSPECT, PLS_WIRE_LEFT, 1, LEFT, 6},
    {DEAD, PLS_WIRE_ALIVE, -1, DEAD, 5},        {DEAD, PLS_WIRE_ALIVE, 0, DEAD, 5},
    {DEAD, PLS_WIRE_ALIVE, 1, ALIVE, 6},        {DEAD, PLS_WIRE_SUSPECT, -1, DEAD, 5},
    {DEAD, PLS_WIRE_SUSPECT, 0, DEAD, 5},       {DEAD, PLS_WIRE_SUSPECT, 1, DEAD, 6},
    {DEAD, PLS_WIRE_DEAD, -1, DEAD, 5},         {DEAD, PLS_WIRE_DEAD, 0, DEAD, 5},
    {DEAD, PLS_WIRE_DEAD, 1, DEAD, 6},          {DEAD, PLS_WIRE_LEFT, -1, DEAD, 5},
    {DEAD, PLS_WIRE_LEFT, 0, DEAD, 5},          {DEAD, PLS_WIRE_LEFT, 1, DEAD, 6},
    {LEFT, PLS_WIRE_ALIVE, -1, LEFT, 5},        {LEFT, PLS_WIRE_ALIVE, 0, LEFT, 5},
    {LEFT, PLS_WIRE_ALIVE, 1, ALIVE, 6},        {LEFT, PLS_WIRE_SUSPECT, -1, LEFT, 5},
    {LEFT, PLS_WIRE_SUSPECT, 0, LEFT, 5},       {LEFT, PLS_WIRE_SUSPECT, 1, LEFT, 6},
    {LEFT, PLS_WIRE_DEAD, -1, LEFT, 5},         {LEFT, PLS_WIRE_DEAD, 0, LEFT, 5},
    {LEFT, PLS_WIRE_DEAD, 1, LEFT, 6},          {LEFT, PLS_WIRE_LEFT, -1, LEFT, 5},
    {LEFT, PLS_WIRE_LEFT, 0, LEFT, 5},          {LEFT, PLS_WIRE_LEFT, 1, LEFT, 6},
};

START_TEST(test_02_every_cell_of_the_table)
{
    const cell *c = &cells[_i];
    rig *r = stored_as(c->stored);
    tell(r, c->kind, SUBJECT, (uint64_t)(STORED + c->above));
    ck_assert_msg(rig_state(r, ME, SUBJECT) == c->state, "cell %d: state %d", _i,
                  rig_state(r, ME, SUBJECT));
    ck_assert_msg(rig_incarnation(r, ME, SUBJECT) == c->incarnation, "cell %d: incarnation %lu", _i,
                  (unsigned long)rig_incarnation(r, ME, SUBJECT));
    uint32_t changes = c->stored != c->state;
    uint32_t told =
        rig_events(r, ME, PLS_EVENT_JOINED, SUBJECT) + rig_events(r, ME, PLS_EVENT_ALIVE, SUBJECT) +
        rig_events(r, ME, PLS_EVENT_SUSPECT, SUBJECT) + rig_events(r, ME, PLS_EVENT_DEAD, SUBJECT) +
        rig_events(r, ME, PLS_EVENT_LEFT, SUBJECT);
    ck_assert_uint_eq(told, changes);
    rig_destroy(r);
}
END_TEST

START_TEST(test_02_table_is_whole)
{
    /* Every stored state meets every kind at a lower, an equal and a higher incarnation. */
    ck_assert_uint_eq(sizeof cells / sizeof cells[0], 4 + 4 * 4 * 3);
    for (size_t i = 0; i < sizeof cells / sizeof cells[0]; i++) {
        for (size_t j = 0; j < i; j++) {
            ck_assert(cells[i].stored != cells[j].stored || cells[i].kind != cells[j].kind ||
                      cells[i].above != cells[j].above);
        }
    }
}
END_TEST

START_TEST(test_02_suspicion_ends_with_the_state)
{
    static const uint32_t kinds[] = {PLS_WIRE_ALIVE, PLS_WIRE_DEAD, PLS_WIRE_LEFT};
    for (size_t i = 0; i < 3; i++) {
        rig *r = stored_as(PLS_MEMBER_SUSPECT);
        pls_member_view view;
        ck_assert_int_eq(pls_gossip_member(r->nodes[ME], r->members[SUBJECT], &view), PLS_OK);
        ck_assert_uint_gt(view.suspicion_deadline_ns, r->now_ns);
        tell(r, kinds[i], SUBJECT, STORED + 1);
        ck_assert_int_eq(pls_gossip_member(r->nodes[ME], r->members[SUBJECT], &view), PLS_OK);
        ck_assert_uint_eq(view.suspicion_deadline_ns, 0);
        ck_assert_uint_eq(pls_gossip_look(r->nodes[ME]).suspect_count, 0);
        rig_destroy(r);
    }
}
END_TEST

START_TEST(test_03_accused_refutes_above_the_accusation)
{
    static const uint32_t kinds[] = {PLS_WIRE_SUSPECT, PLS_WIRE_DEAD, PLS_WIRE_LEFT};
    for (size_t i = 0; i < 3; i++) {
        rig *r = stored_as(PLS_MEMBER_ALIVE);
        tell(r, kinds[i], ME, 9);
        pls_gossip_view view = pls_gossip_look(r->nodes[ME]);
        ck_assert_uint_eq(view.incarnation, 10);
        ck_assert_uint_eq(view.awareness, 1);
        ck_assert_uint_eq(rig_counters(r, ME).refutes, 1);
        ck_assert_int_eq(rig_state(r, ME, ME), PLS_MEMBER_ALIVE);
        ck_assert_uint_ge(view.queue_count, 1);
        /* What is older than the refutation changes nothing. */
        tell(r, kinds[i], ME, 9);
        ck_assert_uint_eq(pls_gossip_look(r->nodes[ME]).incarnation, 10);
        ck_assert_uint_eq(pls_gossip_look(r->nodes[ME]).awareness, 1);
        rig_destroy(r);
    }
}
END_TEST

START_TEST(test_03_record_about_me_that_is_not_mine_is_refuted)
{
    rig *r = stored_as(PLS_MEMBER_ALIVE);
    pls_message record = rig_record(r, ME, 1);
    rig_say(r, TELLER, ME, &record);
    ck_assert_uint_eq(pls_gossip_look(r->nodes[ME]).incarnation, 1);
    record.meta = (const uint8_t *)"other";
    record.meta_bytes = 5;
    rig_say(r, TELLER, ME, &record);
    ck_assert_uint_eq(pls_gossip_look(r->nodes[ME]).incarnation, 2);
    record = rig_record(r, ME, 7);
    rig_say(r, TELLER, ME, &record);
    ck_assert_uint_eq(pls_gossip_look(r->nodes[ME]).incarnation, 8);
    rig_destroy(r);
}
END_TEST

START_TEST(test_03_leaving_node_does_not_refute)
{
    rig *r = stored_as(PLS_MEMBER_ALIVE);
    ck_assert_int_eq(pls_gossip_leave(r->nodes[ME], r->now_ns), PLS_OK);
    rig_drain(r, ME);
    uint64_t before = pls_gossip_look(r->nodes[ME]).incarnation;
    tell(r, PLS_WIRE_DEAD, ME, before);
    tell(r, PLS_WIRE_SUSPECT, ME, before + 3);
    ck_assert_uint_eq(pls_gossip_look(r->nodes[ME]).incarnation, before);
    ck_assert_uint_eq(rig_counters(r, ME).refutes, 0);
    rig_destroy(r);
}
END_TEST

START_TEST(test_04_dead_keeps_the_highest_incarnation)
{
    rig *r = stored_as(PLS_MEMBER_UNKNOWN);
    tell(r, PLS_WIRE_ALIVE, SUBJECT, 1);
    tell(r, PLS_WIRE_DEAD, SUBJECT, 1);
    tell(r, PLS_WIRE_DEAD, SUBJECT, 10);
    tell(r, PLS_WIRE_ALIVE, SUBJECT, 2);
    ck_assert_int_eq(rig_state(r, ME, SUBJECT), PLS_MEMBER_DEAD);
    tell(r, PLS_WIRE_ALIVE, SUBJECT, 10);
    ck_assert_int_eq(rig_state(r, ME, SUBJECT), PLS_MEMBER_DEAD);
    tell(r, PLS_WIRE_ALIVE, SUBJECT, 11);
    ck_assert_int_eq(rig_state(r, ME, SUBJECT), PLS_MEMBER_ALIVE);
    rig_destroy(r);
}
END_TEST

START_TEST(test_05_incarnation_that_jumps_is_not_believed)
{
    static const uint64_t far[] = {STORED + PLS_INCARNATION_JUMP_MAX + 1, PLS_INCARNATION_MAX,
                                   PLS_INCARNATION_MAX + 1, UINT64_MAX};
    static const uint32_t kinds[] = {PLS_WIRE_ALIVE, PLS_WIRE_SUSPECT, PLS_WIRE_DEAD,
                                     PLS_WIRE_LEFT};
    for (size_t k = 0; k < 4; k++) {
        for (size_t i = 0; i < 4; i++) {
            rig *r = stored_as(PLS_MEMBER_ALIVE);
            tell(r, kinds[k], SUBJECT, far[i]);
            ck_assert_int_eq(rig_state(r, ME, SUBJECT), PLS_MEMBER_ALIVE);
            ck_assert_uint_eq(rig_incarnation(r, ME, SUBJECT), STORED);
            ck_assert_uint_eq(rig_counters(r, ME).dropped_jump, 1);
            tell(r, kinds[k], ME, far[i]);
            ck_assert_uint_eq(pls_gossip_look(r->nodes[ME]).incarnation, 1);
            tell(r, PLS_WIRE_ALIVE, SUBJECT, STORED + 1);
            ck_assert_uint_eq(rig_incarnation(r, ME, SUBJECT), STORED + 1);
            rig_destroy(r);
        }
    }
}
END_TEST

START_TEST(test_05_incarnation_at_the_bound_of_a_jump_is_taken)
{
    rig *r = stored_as(PLS_MEMBER_ALIVE);
    tell(r, PLS_WIRE_ALIVE, SUBJECT, STORED + PLS_INCARNATION_JUMP_MAX);
    ck_assert_uint_eq(rig_incarnation(r, ME, SUBJECT), STORED + PLS_INCARNATION_JUMP_MAX);
    tell(r, PLS_WIRE_SUSPECT, ME, 1 + PLS_INCARNATION_JUMP_MAX);
    ck_assert_uint_eq(pls_gossip_look(r->nodes[ME]).incarnation, 2 + PLS_INCARNATION_JUMP_MAX);
    rig_destroy(r);
}
END_TEST

START_TEST(test_05_unknown_member_with_an_impossible_incarnation_is_not_added)
{
    rig *r = stored_as(PLS_MEMBER_UNKNOWN);
    tell(r, PLS_WIRE_ALIVE, SUBJECT, 0);
    tell(r, PLS_WIRE_ALIVE, SUBJECT, UINT64_MAX);
    ck_assert_int_eq(rig_state(r, ME, SUBJECT), PLS_MEMBER_UNKNOWN);
    ck_assert_uint_eq(rig_counters(r, ME).dropped_jump, 2);
    rig_destroy(r);
}
END_TEST

/* A record of "n1" with another generation and address. */
static pls_message namesake(const rig *r, const char *address, uint64_t generation)
{
    pls_message record = rig_record(r, SUBJECT, 1);
    record.identity.address = address;
    record.identity.address_bytes = (uint32_t)strlen(address);
    record.identity.generation = generation;
    record.identity.key = pls_identity_key(&record.identity);
    return record;
}

static pls_member held_as_n1(const rig *r)
{
    return pls_gossip_member_named(r->nodes[ME], "n1", 2);
}

START_TEST(test_07_newer_generation_replaces_the_older_in_every_state)
{
    static const pls_member_state states[] = {PLS_MEMBER_ALIVE, PLS_MEMBER_SUSPECT, PLS_MEMBER_DEAD,
                                              PLS_MEMBER_LEFT};
    for (size_t i = 0; i < 4; i++) {
        rig *r = stored_as(states[i]);
        pls_message newer = namesake(r, "elsewhere", 2);
        rig_say(r, TELLER, ME, &newer);
        ck_assert_int_eq(rig_state(r, ME, SUBJECT), PLS_MEMBER_UNKNOWN);
        pls_member_view view;
        ck_assert_int_eq(pls_gossip_member(r->nodes[ME], held_as_n1(r), &view), PLS_OK);
        ck_assert_uint_eq(view.identity.generation, 2);
        ck_assert_int_eq(view.state, PLS_MEMBER_ALIVE);
        bool was_live = states[i] == PLS_MEMBER_ALIVE || states[i] == PLS_MEMBER_SUSPECT;
        ck_assert_uint_eq(rig_events(r, ME, PLS_EVENT_DEAD, SUBJECT), was_live);
        ck_assert_uint_eq(rig_events_all(r, PLS_EVENT_JOINED), 1);
        ck_assert_uint_eq(rig_events_all(r, PLS_EVENT_CONFLICT), 0);
        ck_assert_uint_eq(rig_counters(r, ME).replaced, 1);
        /* The older one does not come back, whatever incarnation is claimed for it. */
        tell(r, PLS_WIRE_ALIVE, SUBJECT, STORED + 9);
        tell(r, PLS_WIRE_DEAD, SUBJECT, STORED + 9);
        ck_assert_int_eq(rig_state(r, ME, SUBJECT), PLS_MEMBER_UNKNOWN);
        rig_destroy(r);
    }
}
END_TEST

START_TEST(test_07_left_name_is_taken_at_once_at_a_new_address)
{
    rig *r = stored_as(PLS_MEMBER_LEFT);
    pls_message moved = namesake(r, "elsewhere", 1);
    rig_say(r, TELLER, ME, &moved);
    ck_assert_int_eq(rig_state(r, ME, SUBJECT), PLS_MEMBER_UNKNOWN);
    ck_assert_uint_ne(held_as_n1(r), PLS_MEMBER_NONE);
    rig_destroy(r);
}
END_TEST

START_TEST(test_07_older_generation_is_refused_and_its_greeting_is_a_conflict)
{
    rig *r = rig_create();
    rig_start(r, ME, 1);
    rig_start(r, SUBJECT, 7);
    rig_start(r, TELLER, 1);
    ck_assert_int_eq(pls_gossip_join(r->nodes[ME], NULL, 0, r->now_ns), PLS_OK);
    tell(r, PLS_WIRE_ALIVE, SUBJECT, 1);
    pls_message older = namesake(r, "elsewhere", 6);
    rig_say(r, TELLER, ME, &older);
    ck_assert_uint_eq(rig_counters(r, ME).dropped_generation, 1);
    ck_assert_uint_eq(rig_events_all(r, PLS_EVENT_CONFLICT), 0);
    ck_assert_uint_eq(held_as_n1(r), r->members[SUBJECT]);

    /* It speaks for itself: two live nodes have one name. */
    uint8_t bytes[PLS_PACKET_BYTES_MIN];
    pls_packet head;
    ck_assert_int_eq(pls_packet_open(bytes, rig_pack(r, TELLER, &older, bytes), &head), PLS_OK);
    pls_writer w = pls_writer_into(bytes, sizeof bytes);
    older.kind = PLS_WIRE_JOIN;
    pls_packet_head_write(&w, (uint32_t)head.cluster, older.identity.key);
    pls_message_write(&w, &older);
    ck_assert_int_eq(rig_give(r, ME, 9, bytes, pls_writer_len(&w)), PLS_OK);
    ck_assert_uint_eq(rig_events_all(r, PLS_EVENT_CONFLICT), 1);
    ck_assert_uint_eq(rig_counters(r, ME).conflicts, 1);
    ck_assert_uint_eq(held_as_n1(r), r->members[SUBJECT]);
    /* And it is told who has the name. */
    ck_assert_uint_eq(rig_under_way(r, 9, PLS_WIRE_RECORD), 1);
    rig_destroy(r);
}
END_TEST

START_TEST(test_07_equal_generations_are_decided_alike_by_everybody)
{
    uint64_t winners[2];
    for (int order = 0; order < 2; order++) {
        rig *r = stored_as(PLS_MEMBER_UNKNOWN);
        pls_message a = namesake(r, "here", 1);
        pls_message b = namesake(r, "there", 1);
        rig_say(r, TELLER, ME, order == 0 ? &a : &b);
        rig_say(r, TELLER, ME, order == 0 ? &b : &a);
        winners[order] = pls_identities_get(r->pool, held_as_n1(r)).key;
        rig_destroy(r);
    }
    ck_assert_uint_eq(winners[0], winners[1]);
}
END_TEST

START_TEST(test_07_node_whose_name_is_taken_is_told_once)
{
    rig *r = stored_as(PLS_MEMBER_ALIVE);
    pls_message record = rig_record(r, ME, 1);
    record.identity.generation = 2;
    record.identity.key = pls_identity_key(&record.identity);
    rig_say(r, TELLER, ME, &record);
    rig_say(r, TELLER, ME, &record);
    ck_assert_uint_eq(rig_events(r, ME, PLS_EVENT_CONFLICT, ME), 1);
    ck_assert_int_eq(rig_state(r, ME, ME), PLS_MEMBER_ALIVE);
    rig_destroy(r);
}
END_TEST

START_TEST(test_meta_is_constant_in_one_incarnation_and_a_change_is_told)
{
    rig *r = stored_as(PLS_MEMBER_ALIVE);
    pls_member_view view;
    pls_message record = rig_record(r, SUBJECT, STORED + 1);
    record.meta = (const uint8_t *)"gpu=4";
    record.meta_bytes = 5;
    rig_say(r, TELLER, ME, &record);
    ck_assert_uint_eq(rig_events(r, ME, PLS_EVENT_UPDATED, SUBJECT), 1);
    record.meta = (const uint8_t *)"gpu=8";
    rig_say(r, TELLER, ME, &record);
    ck_assert_int_eq(pls_gossip_member(r->nodes[ME], r->members[SUBJECT], &view), PLS_OK);
    ck_assert_uint_eq(view.meta_bytes, 5);
    ck_assert_mem_eq(view.meta, "gpu=4", 5);
    record.incarnation = STORED + 2;
    record.meta_bytes = 0;
    rig_say(r, TELLER, ME, &record);
    ck_assert_uint_eq(rig_events(r, ME, PLS_EVENT_UPDATED, SUBJECT), 2);
    ck_assert_int_eq(pls_gossip_member(r->nodes[ME], r->members[SUBJECT], &view), PLS_OK);
    ck_assert_uint_eq(view.meta_bytes, 0);
    rig_destroy(r);
}
END_TEST

START_TEST(test_set_meta_raises_my_incarnation)
{
    rig *r = stored_as(PLS_MEMBER_ALIVE);
    char big[PLS_META_BYTES_MAX + 1] = {0};
    pls_member_view view;
    ck_assert_int_eq(pls_gossip_set_meta(r->nodes[ME], "x", 1, r->now_ns), PLS_OK);
    ck_assert_int_eq(pls_gossip_member(r->nodes[ME], r->members[ME], &view), PLS_OK);
    ck_assert_uint_eq(view.incarnation, 2);
    ck_assert_mem_eq(view.meta, "x", 1);
    ck_assert_int_eq(pls_gossip_set_meta(r->nodes[ME], big, sizeof big, r->now_ns), PLS_ETOOBIG);
    ck_assert_int_eq(pls_gossip_leave(r->nodes[ME], r->now_ns), PLS_OK);
    ck_assert_int_eq(pls_gossip_set_meta(r->nodes[ME], "y", 1, r->now_ns), PLS_ECLOSED);
    rig_destroy(r);
}
END_TEST

START_TEST(test_dead_and_left_are_forgotten_in_their_time)
{
    rig *r = stored_as(PLS_MEMBER_LEFT);
    r->config.dead_max = 1;
    rig_run(r, r->config.left_keep_ns - RIG_SECOND);
    ck_assert_int_eq(rig_state(r, ME, SUBJECT), PLS_MEMBER_LEFT);
    rig_run(r, 2 * RIG_SECOND);
    ck_assert_int_eq(rig_state(r, ME, SUBJECT), PLS_MEMBER_UNKNOWN);
    ck_assert_uint_eq(rig_counters(r, ME).forgotten, 1);
    rig_destroy(r);
}
END_TEST

START_TEST(test_members_max_bounds_the_table)
{
    rig *r = rig_create();
    r->config.members_max = 3;
    for (uint32_t i = 0; i < 5; i++) {
        rig_start(r, i, 1);
    }
    ck_assert_int_eq(pls_gossip_join(r->nodes[ME], NULL, 0, r->now_ns), PLS_OK);
    tell(r, PLS_WIRE_ALIVE, 1, 1);
    tell(r, PLS_WIRE_ALIVE, 2, 1);
    tell(r, PLS_WIRE_ALIVE, 3, 1);
    tell(r, PLS_WIRE_ALIVE, 4, 1);
    ck_assert_uint_eq(pls_gossip_look(r->nodes[ME]).alive_count, 3);
    ck_assert_uint_eq(rig_counters(r, ME).dropped_full, 2);
    rig_destroy(r);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("gossip.rules");
    TCase *tc = tcase_create("rules");
    suite_add_tcase(suite, tc);
    tcase_add_loop_test(tc, test_02_every_cell_of_the_table, 0,
                        (int)(sizeof cells / sizeof cells[0]));
    tcase_add_test(tc, test_02_table_is_whole);
    tcase_add_test(tc, test_02_suspicion_ends_with_the_state);
    tcase_add_test(tc, test_03_accused_refutes_above_the_accusation);
    tcase_add_test(tc, test_03_record_about_me_that_is_not_mine_is_refuted);
    tcase_add_test(tc, test_03_leaving_node_does_not_refute);
    tcase_add_test(tc, test_04_dead_keeps_the_highest_incarnation);
    tcase_add_test(tc, test_05_incarnation_that_jumps_is_not_believed);
    tcase_add_test(tc, test_05_incarnation_at_the_bound_of_a_jump_is_taken);
    tcase_add_test(tc, test_05_unknown_member_with_an_impossible_incarnation_is_not_added);
    tcase_add_test(tc, test_07_newer_generation_replaces_the_older_in_every_state);
    tcase_add_test(tc, test_07_left_name_is_taken_at_once_at_a_new_address);
    tcase_add_test(tc, test_07_older_generation_is_refused_and_its_greeting_is_a_conflict);
    tcase_add_test(tc, test_07_equal_generations_are_decided_alike_by_everybody);
    tcase_add_test(tc, test_07_node_whose_name_is_taken_is_told_once);
    tcase_add_test(tc, test_meta_is_constant_in_one_incarnation_and_a_change_is_told);
    tcase_add_test(tc, test_set_meta_raises_my_incarnation);
    tcase_add_test(tc, test_dead_and_left_are_forgotten_in_their_time);
    tcase_add_test(tc, test_members_max_bounds_the_table);
    return check_run(suite);
}
