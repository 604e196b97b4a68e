/* SPDX-License-Identifier: Apache-2.0 */
/* Names and restarts as clients see them, at a real node. */
#include "tests/check_run.h"
#include "tests/node/world.h"

#include <check.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static pls_name_entry entry_of(const char *name, uint64_t actor)
{
    return (pls_name_entry){.actor = actor,
                            .flags = PLS_NAME_PUBLIC,
                            .name = name,
                            .name_bytes = strlen(name),
                            .class_name = "Counter",
                            .class_name_bytes = 7,
                            .metadata = (const uint8_t *)"meta",
                            .metadata_bytes = 4};
}

static pls_err register_name(world *w, const char *name, uint64_t actor, pls_attach_event *event)
{
    uint32_t request;
    pls_name_entry entry = entry_of(name, actor);
    ck_assert_int_eq(pls_attach_name_register(w->attach, &entry, &request), PLS_OK);
    world_reply(w, request, event, 2000);
    return event->status;
}

static pls_err find_name(world *w, const char *name, uint32_t wait_ms, pls_attach_event *event)
{
    uint32_t request;
    ck_assert_int_eq(pls_attach_name_find(w->attach, name, strlen(name), wait_ms, &request),
                     PLS_OK);
    world_reply(w, request, event, (int)wait_ms + 2000);
    return event->status;
}

static uint64_t own_actor(world *w, uint32_t number)
{
    const pls_attach_info *info = pls_attach_info_of(w->attach);
    return world_actor(info->slot, info->epoch, number);
}

START_TEST(test_name_is_unique_found_and_unregistered)
{
    world w;
    pls_attach_event event;
    uint32_t request;
    pls_node_options options = world_options(0);
    world_begin(&w, &options);
    ck_assert_int_eq(find_name(&w, "counter", 0, &event), PLS_ENOENT);
    ck_assert_int_eq(register_name(&w, "counter", own_actor(&w, 1), &event), PLS_OK);
    ck_assert_int_eq(register_name(&w, "counter", own_actor(&w, 2), &event), PLS_EEXIST);
    ck_assert_uint_eq(event.actor, own_actor(&w, 1));
    ck_assert_mem_eq(event.text, "Counter", 7);
    ck_assert_int_eq(find_name(&w, "counter", 0, &event), PLS_OK);
    ck_assert_uint_eq(event.actor, own_actor(&w, 1));
    ck_assert_uint_eq(event.slot, pls_attach_info_of(w.attach)->slot);
    ck_assert_uint_eq(event.flags, PLS_NAME_PUBLIC);
    ck_assert_uint_eq(event.data_bytes, 4);
    ck_assert_int_eq(pls_attach_name_unregister(w.attach, "counter", 7, own_actor(&w, 2), &request),
                     PLS_OK);
    world_reply(&w, request, &event, 1000);
    ck_assert_int_eq(event.status, PLS_ENOENT);
    ck_assert_int_eq(pls_attach_name_unregister(w.attach, "counter", 7, 0, &request), PLS_OK);
    world_reply(&w, request, &event, 1000);
    ck_assert_int_eq(event.status, PLS_OK);
    ck_assert_int_eq(find_name(&w, "counter", 0, &event), PLS_ENOENT);
    ck_assert_int_eq(register_name(&w, "ghost", world_actor(200, 3, 1), &event), PLS_EDEAD);
    world_end(&w);
}
END_TEST

START_TEST(test_wait_is_woken_by_the_registration_or_by_its_time)
{
    world w;
    pls_attach_event event;
    uint32_t wait_request;
    uint32_t register_request;
    pls_node_options options = world_options(0);
    world_begin(&w, &options);
    double before = world_now_ms();
    ck_assert_int_eq(find_name(&w, "late", 120, &event), PLS_ENOENT);
    ck_assert_double_ge(world_now_ms() - before, 115);
    ck_assert_double_lt(world_now_ms() - before, 500);
    ck_assert_int_eq(pls_attach_name_find(w.attach, "late", 4, PLS_WAIT_FOREVER, &wait_request),
                     PLS_OK);
    pls_name_entry entry = entry_of("late", own_actor(&w, 9));
    ck_assert_int_eq(pls_attach_name_register(w.attach, &entry, &register_request), PLS_OK);
    world_reply(&w, register_request, &event, 1000);
    world_reply(&w, wait_request, &event, 1000);
    ck_assert_int_eq(event.status, PLS_OK);
    ck_assert_uint_eq(event.actor, own_actor(&w, 9));
    /* A wait that was given up is not answered. */
    ck_assert_int_eq(pls_attach_name_find(w.attach, "later", 5, 100, &wait_request), PLS_OK);
    ck_assert_int_eq(pls_attach_cancel(w.attach, wait_request), PLS_OK);
    ck_assert(!world_event(&w, &event, 250));
    world_end(&w);
}
END_TEST

START_TEST(test_names_go_with_their_process)
{
    world w;
    pls_attach_event event;
    pls_node_options options = world_options(1);
    world_begin(&w, &options);
    ck_assert_int_eq(world_place(&w, PLS_PLACE_INDEX, 0, &event), PLS_OK);
    uint32_t slot = event.slot;
    uint32_t epoch = event.epoch;
    ck_assert_int_eq(register_name(&w, "of-worker", world_actor(slot, epoch, 1), &event), PLS_OK);
    ck_assert_int_eq(register_name(&w, "of-host", own_actor(&w, 1), &event), PLS_OK);
    kill((pid_t)world_pid_of(&w, slot), SIGKILL);
    ck_assert(world_dead_wait(&w, slot, 1000));
    ck_assert_int_eq(find_name(&w, "of-worker", 0, &event), PLS_ENOENT);
    ck_assert_int_eq(find_name(&w, "of-host", 0, &event), PLS_OK);
    ck_assert_int_eq(register_name(&w, "of-worker", world_actor(slot, epoch, 1), &event),
                     PLS_EDEAD);
    world_end(&w);
}
END_TEST

#define MANY 3000

START_TEST(test_long_lists_come_whole)
{
    world w;
    pls_attach_event event;
    uint32_t request;
    char name[200];
    static bool seen[MANY];
    pls_node_options options = world_options(0);
    world_begin(&w, &options);
    for (int i = 0; i < MANY; i++) {
        snprintf(name, sizeof name, "%0150d", i);
        ck_assert_int_eq(register_name(&w, name, own_actor(&w, (uint32_t)i + 1), &event), PLS_OK);
    }
    ck_assert_int_eq(pls_attach_names_list(w.attach, &request), PLS_OK);
    world_reply(&w, request, &event, 2000);
    const uint8_t *data = event.data;
    size_t bytes = event.data_bytes;
    pls_name_entry entry;
    int count = 0;
    pls_err err;
    while ((err = pls_name_entry_next(&data, &bytes, &entry)) == PLS_OK) {
        int number = (int)strtol(entry.name, NULL, 10);
        ck_assert_uint_eq(entry.name_bytes, 150);
        ck_assert(!seen[number]);
        seen[number] = true;
        count++;
    }
    ck_assert_int_eq(err, PLS_EEMPTY);
    ck_assert_int_eq(count, MANY);
    world_end(&w);
}
END_TEST

static void register_restart(world *w, uint64_t actor, pls_restart_options options)
{
    uint32_t request;
    pls_attach_event event;
    ck_assert_int_eq(pls_attach_restart_register(w->attach, actor, &options, &request), PLS_OK);
    world_reply(w, request, &event, 2000);
    ck_assert_int_eq(event.status, PLS_OK);
}

static bool event_of(world *w, pls_attach_event_type type, pls_attach_event *event, int ms)
{
    double until = world_now_ms() + ms;
    while (world_now_ms() < until && world_event(w, event, (int)(until - world_now_ms()) + 1)) {
        if (event->type == type) {
            return true;
        }
    }
    return false;
}

static void restart_with_spec(size_t spec_bytes)
{
    world w;
    pls_attach_event event;
    uint32_t request;
    char *spec = calloc(1, spec_bytes + 1);
    memset(spec, 's', spec_bytes);
    pls_node_options options = world_options(2);
    world_begin(&w, &options);
    ck_assert_int_eq(world_place(&w, PLS_PLACE_INDEX, 0, &event), PLS_OK);
    uint32_t slot = event.slot;
    uint32_t epoch = event.epoch;
    uint64_t actor = world_actor(slot, epoch, 77);
    ck_assert_int_eq(register_name(&w, "phoenix", actor, &event), PLS_OK);
    register_restart(&w, actor,
                     (pls_restart_options){.policy = PLS_RESTART_ON_FAILURE,
                                           .restarts_max = 3,
                                           .backoff_min_ms = 1,
                                           .backoff_max_ms = 10,
                                           .spec = spec,
                                           .spec_bytes = spec_bytes});
    kill((pid_t)world_pid_of(&w, slot), SIGKILL);
    ck_assert(event_of(&w, PLS_EVENT_ROUTE, &event, 5000));
    ck_assert_uint_eq(event.actor, actor);
    ck_assert(event.slot != slot || event.epoch != epoch);
    uint32_t new_slot = event.slot;
    uint32_t new_epoch = event.epoch;
    ck_assert_int_eq(find_name(&w, "phoenix", 0, &event), PLS_OK);
    ck_assert_uint_eq(event.actor, actor);
    ck_assert_uint_eq(event.slot, new_slot);
    ck_assert_uint_eq(event.flags & PLS_NAME_REBUILDING, 0);
    ck_assert_int_eq(pls_attach_actor_find(w.attach, actor, &request), PLS_OK);
    world_reply(&w, request, &event, 1000);
    ck_assert_int_eq(event.status, PLS_OK);
    ck_assert_uint_eq(event.slot, new_slot);
    ck_assert_uint_eq(event.epoch, new_epoch);
    ck_assert_int_eq(pls_attach_output_tail(w.attach, new_slot, new_epoch, &request), PLS_OK);
    world_reply(&w, request, &event, 1000);
    char expected[64];
    snprintf(expected, sizeof expected, "rebuild attempt 1 with %zu bytes", spec_bytes);
    ck_assert_ptr_nonnull(memmem(event.text, event.text_bytes, expected, strlen(expected)));
    ck_assert_int_eq(pls_attach_actor_unregister(w.attach, actor, &request), PLS_OK);
    world_reply(&w, request, &event, 1000);
    ck_assert_int_eq(event.status, PLS_OK);
    ck_assert_int_eq(find_name(&w, "phoenix", 0, &event), PLS_ENOENT);
    world_end(&w);
    free(spec);
}

START_TEST(test_actor_is_rebuilt_elsewhere_after_a_kill)
{
    restart_with_spec(100);
}
END_TEST

START_TEST(test_large_spec_travels_in_a_memfd)
{
    restart_with_spec(3u << 20);
}
END_TEST

START_TEST(test_actor_whose_rebuild_fails_is_lost_after_its_attempts)
{
    static const struct {
        const char *spec;
        const char *text;
    } cases[] = {{"refuse", "refused"}, {"crash", "SIGABRT"}};
    world w;
    pls_attach_event event;
    pls_node_options options = world_options(2);
    world_begin(&w, &options);
    ck_assert_int_eq(world_place(&w, PLS_PLACE_INDEX, 0, &event), PLS_OK);
    uint32_t slot = event.slot;
    uint64_t actor = world_actor(slot, event.epoch, 5);
    ck_assert_int_eq(register_name(&w, "doomed", actor, &event), PLS_OK);
    register_restart(&w, actor,
                     (pls_restart_options){.policy = PLS_RESTART_ALWAYS,
                                           .restarts_max = 3,
                                           .backoff_min_ms = 10,
                                           .backoff_max_ms = 40,
                                           .spec = cases[_i].spec,
                                           .spec_bytes = strlen(cases[_i].spec)});
    double before = world_now_ms();
    kill((pid_t)world_pid_of(&w, slot), SIGKILL);
    ck_assert(event_of(&w, PLS_EVENT_ACTOR_LOST, &event, 10000));
    ck_assert_uint_eq(event.actor, actor);
    ck_assert_msg(memmem(event.text, event.text_bytes, cases[_i].text, strlen(cases[_i].text)) !=
                      NULL,
                  "%.*s", (int)event.text_bytes, event.text);
    /* Three attempts, after 10, 20 and 40 ms. */
    ck_assert_double_ge(world_now_ms() - before, 70);
    ck_assert_int_eq(find_name(&w, "doomed", 0, &event), PLS_ENOENT);
    world_end(&w);
}
END_TEST

START_TEST(test_actor_that_failed_inside_a_living_process_is_rebuilt_there)
{
    world w;
    pls_attach_event event;
    pls_node_options options = world_options(1);
    world_begin(&w, &options);
    uint64_t actor = own_actor(&w, 3);
    register_restart(&w, actor,
                     (pls_restart_options){.policy = PLS_RESTART_ON_FAILURE,
                                           .restarts_max = 1,
                                           .backoff_min_ms = 5,
                                           .backoff_max_ms = 5,
                                           .spec = "spec",
                                           .spec_bytes = 4});
    ck_assert_int_eq(pls_attach_actor_failed(w.attach, actor, "it raised", 9), PLS_OK);
    ck_assert(event_of(&w, PLS_EVENT_REBUILD, &event, 2000));
    ck_assert_uint_eq(event.actor, actor);
    ck_assert_uint_eq(event.number, 1);
    ck_assert_mem_eq(event.data, "spec", 4);
    ck_assert_int_eq(pls_attach_rebuilt(w.attach, actor, true, NULL, 0), PLS_OK);
    ck_assert(event_of(&w, PLS_EVENT_ROUTE, &event, 2000));
    ck_assert_uint_eq(event.slot, pls_attach_info_of(w.attach)->slot);
    /* Its one restart is used up. */
    ck_assert_int_eq(pls_attach_actor_failed(w.attach, actor, "it raised again", 15), PLS_OK);
    ck_assert(event_of(&w, PLS_EVENT_ACTOR_LOST, &event, 2000));
    ck_assert_mem_eq(event.text, "it raised again", 15);
    world_end(&w);
}
END_TEST

START_TEST(test_policy_on_failure_does_not_follow_an_orderly_end)
{
    world w;
    pls_attach_event event;
    uint32_t request;
    pls_node_options options = world_options(2);
    world_begin(&w, &options);
    ck_assert_int_eq(world_place(&w, PLS_PLACE_INDEX, 0, &event), PLS_OK);
    uint32_t slot = event.slot;
    uint32_t epoch = event.epoch;
    uint64_t actor = world_actor(slot, epoch, 5);
    register_restart(
        &w, actor,
        (pls_restart_options){
            .policy = PLS_RESTART_ON_FAILURE, .restarts_max = 3, .spec = "spec", .spec_bytes = 4});
    ck_assert_int_eq(pls_attach_worker_stop(w.attach, slot, epoch, 2000, &request), PLS_OK);
    ck_assert(event_of(&w, PLS_EVENT_ACTOR_LOST, &event, 3000));
    ck_assert_uint_eq(event.actor, actor);
    world_end(&w);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("node.registry");
    TCase *tcase = tcase_create("registry");
    tcase_set_timeout(tcase, 60);
    tcase_add_test(tcase, test_name_is_unique_found_and_unregistered);
    tcase_add_test(tcase, test_wait_is_woken_by_the_registration_or_by_its_time);
    tcase_add_test(tcase, test_names_go_with_their_process);
    tcase_add_test(tcase, test_long_lists_come_whole);
    tcase_add_test(tcase, test_actor_is_rebuilt_elsewhere_after_a_kill);
    tcase_add_test(tcase, test_large_spec_travels_in_a_memfd);
    tcase_add_loop_test(tcase, test_actor_whose_rebuild_fails_is_lost_after_its_attempts, 0, 2);
    tcase_add_test(tcase, test_actor_that_failed_inside_a_living_process_is_rebuilt_there);
    tcase_add_test(tcase, test_policy_on_failure_does_not_follow_an_orderly_end);
    suite_add_tcase(suite, tcase);
    return check_run(suite);
}
