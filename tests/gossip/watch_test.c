/* SPDX-License-Identifier: Apache-2.0 */
/* Waiting on names, and names that are to have one owner. */
#include "gossip/names.h"

#include "tests/check_run.h"
#include "tests/gossip/rig.h"

#include <stdlib.h>

START_TEST(test_watch_is_woken_by_the_delta)
{
    rig *r = rig_create();
    rig_warm(r, 3);
    ck_assert_int_eq(pls_gossip_name_watch(r->nodes[2], "later", 5), PLS_OK);
    ck_assert_int_eq(rig_put(r, 0, "later", 1, false), PLS_OK);
    ck_assert_int_eq(rig_put(r, 0, "other", 1, false), PLS_OK);
    rig_run(r, RIG_SECOND);
    ck_assert_uint_eq(rig_told(r, 2, PLS_EVENT_NAME_ADDED, "later"), 1);
    ck_assert_uint_eq(rig_told(r, 2, PLS_EVENT_NAME_ADDED, "other"), 0);
    ck_assert_uint_eq(rig_told(r, 1, PLS_EVENT_NAME_ADDED, "later"), 0);
    ck_assert_int_eq(rig_put(r, 0, "later", 2, false), PLS_OK);
    rig_run(r, RIG_SECOND);
    ck_assert_uint_eq(rig_told(r, 2, PLS_EVENT_NAME_CHANGED, "later"), 1);
    ck_assert_int_eq(rig_remove(r, 0, "later"), PLS_OK);
    rig_run(r, RIG_SECOND);
    ck_assert_uint_eq(rig_told(r, 2, PLS_EVENT_NAME_REMOVED, "later"), 1);
    rig_destroy(r);
}
END_TEST

START_TEST(test_watch_sees_the_owner_die_and_come_back)
{
    rig *r = rig_create();
    rig_warm(r, 3);
    ck_assert_int_eq(pls_gossip_name_watch(r->nodes[0], "a", 1), PLS_OK);
    ck_assert_int_eq(rig_put(r, 1, "a", 1, false), PLS_OK);
    rig_run(r, RIG_SECOND);
    ck_assert_int_eq(pls_gossip_evict(r->nodes[0], r->members[1], r->now_ns), PLS_OK);
    rig_drain(r, 0);
    ck_assert_uint_eq(rig_told(r, 0, PLS_EVENT_NAME_REMOVED, "a"), 1);
    rig_run(r, 5 * RIG_SECOND);
    ck_assert_uint_eq(rig_told(r, 0, PLS_EVENT_NAME_ADDED, "a"), 2);
    rig_destroy(r);
}
END_TEST

START_TEST(test_watches_are_counted_and_bounded)
{
    rig *r = rig_create();
    r->config.watches_max = 2;
    rig_warm(r, 2);
    pls_gossip *g = r->nodes[0];
    ck_assert_int_eq(pls_gossip_name_watch(g, "", 0), PLS_EINVAL);
    ck_assert_int_eq(pls_gossip_name_watch(g, "a", 1), PLS_OK);
    ck_assert_int_eq(pls_gossip_name_watch(g, "a", 1), PLS_OK);
    ck_assert_int_eq(pls_gossip_name_watch(g, "b", 1), PLS_OK);
    ck_assert_int_eq(pls_gossip_name_watch(g, "c", 1), PLS_EFULL);
    pls_gossip_name_unwatch(g, "a", 1);
    pls_gossip_check(g);
    ck_assert_int_eq(pls_gossip_name_watch(g, "c", 1), PLS_EFULL);
    pls_gossip_name_unwatch(g, "a", 1);
    pls_gossip_name_unwatch(g, "a", 1);
    ck_assert_int_eq(pls_gossip_name_watch(g, "c", 1), PLS_OK);
    pls_gossip_check(g);
    /* A watch is no registration. */
    pls_name_hit hit;
    ck_assert_uint_eq(rig_find(r, 0, "b", &hit), 0);
    rig_destroy(r);
}
END_TEST

START_TEST(test_unique_name_is_taken_once_known)
{
    rig *r = rig_create();
    rig_warm(r, 3);
    ck_assert_int_eq(rig_put(r, 0, "leader", 1, true), PLS_OK);
    rig_run(r, 2 * RIG_SECOND);
    ck_assert_int_eq(rig_put(r, 1, "leader", 2, true), PLS_EEXIST);
    ck_assert_int_eq(rig_put(r, 1, "leader", 2, false), PLS_EEXIST);
    ck_assert_int_eq(rig_put(r, 1, "pool", 1, false), PLS_OK);
    rig_run(r, 2 * RIG_SECOND);
    ck_assert_int_eq(rig_put(r, 2, "pool", 1, true), PLS_EEXIST);
    ck_assert_int_eq(rig_put(r, 2, "pool", 1, false), PLS_OK);
    rig_destroy(r);
}
END_TEST

START_TEST(test_unique_name_has_one_winner_and_one_conflict_event)
{
    rig *r = rig_create();
    pls_name_hit hit;
    rig_warm(r, 4);
    ck_assert_int_eq(rig_put(r, 0, "leader", 1, true), PLS_OK);
    ck_assert_int_eq(rig_put(r, 1, "leader", 2, true), PLS_OK);
    ck_assert_int_eq(rig_put(r, 2, "leader", 3, false), PLS_OK);
    rig_run(r, 4 * RIG_SECOND);
    ck_assert(rig_agrees(r));
    ck_assert_uint_eq(rig_find(r, 3, "leader", &hit), 1);
    pls_member winner = hit.owner;
    for (uint32_t i = 0; i < 4; i++) {
        ck_assert_uint_eq(rig_find(r, i, "leader", &hit), 1);
        ck_assert_uint_eq(hit.owner, winner);
        ck_assert(hit.unique);
        bool loses = i < 3 && r->members[i] != winner;
        ck_assert_uint_eq(rig_told(r, i, PLS_EVENT_NAME_LOST, "leader"), loses);
        ck_assert_uint_eq(rig_counters(r, i).names_conflicts, loses);
    }
    rig_destroy(r);
}
END_TEST

START_TEST(test_unique_name_is_settled_when_a_dead_owner_comes_back)
{
    rig *r = rig_create();
    pls_name_hit hit;
    rig_warm(r, 4);
    ck_assert_int_eq(rig_put(r, 1, "leader", 1, true), PLS_OK);
    rig_run(r, 2 * RIG_SECOND);
    r->cut = 1;
    r->lets = rig_lets_all_but_one;
    rig_run(r, 30 * RIG_SECOND);
    ck_assert_int_eq(rig_state(r, 0, 1), PLS_MEMBER_DEAD);
    ck_assert_int_eq(rig_put(r, 0, "leader", 2, true), PLS_OK);
    rig_run(r, 2 * RIG_SECOND);
    ck_assert_uint_eq(rig_find(r, 3, "leader", &hit), 1);
    ck_assert_uint_eq(hit.owner, r->members[0]);
    r->lets = NULL;
    rig_run(r, 10 * RIG_SECOND);
    ck_assert(rig_agrees(r));
    for (uint32_t i = 0; i < 4; i++) {
        ck_assert_uint_eq(rig_find(r, i, "leader", &hit), 1);
        ck_assert_uint_eq(hit.owner, r->members[1]);
    }
    ck_assert_uint_eq(rig_told(r, 0, PLS_EVENT_NAME_LOST, "leader"), 1);
    ck_assert_uint_eq(rig_told(r, 1, PLS_EVENT_NAME_LOST, "leader"), 0);
    rig_destroy(r);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("gossip.watch");
    TCase *tc = tcase_create("watch");
    suite_add_tcase(suite, tc);
    tcase_add_test(tc, test_watch_is_woken_by_the_delta);
    tcase_add_test(tc, test_watch_sees_the_owner_die_and_come_back);
    tcase_add_test(tc, test_watches_are_counted_and_bounded);
    tcase_add_test(tc, test_unique_name_is_taken_once_known);
    tcase_add_test(tc, test_unique_name_has_one_winner_and_one_conflict_event);
    tcase_add_test(tc, test_unique_name_is_settled_when_a_dead_owner_comes_back);
    return check_run(suite);
}
