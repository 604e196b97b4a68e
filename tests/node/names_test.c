/* SPDX-License-Identifier: Apache-2.0 */
/* The pure parts of the node process: names, segments, tails, alarms. */
#include "node/process/loop.h"
#include "node/process/names.h"
#include "node/process/segments.h"
#include "node/process/tail.h"

#include "base/rng.h"
#include "tests/check_run.h"

#include <check.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define NAMES 400
#define STEPS 20000

/* The same operations on the registry and on a plain array. */
typedef struct plain_names {
    pls_names *names;
    uint32_t count;
    uint32_t gone; /* how many removals were told, and how many there were */
    uint32_t gone_expected;
    struct {
        bool used;
        uint64_t actor;
        uint32_t slot;
    } model[NAMES];
} plain_names;

static pls_name *plain_find(plain_names *p, uint32_t i)
{
    char text[32];
    int len = snprintf(text, sizeof text, "name-%u", i);
    return pls_names_find(p->names, text, (size_t)len);
}

static void plain_add(plain_names *p, uint32_t i, uint64_t actor, uint32_t slot)
{
    char text[32];
    pls_name *name = NULL;
    int len = snprintf(text, sizeof text, "name-%u", i);
    pls_name_entry entry = {.actor = actor, .slot = slot, .name = text, .name_bytes = (size_t)len};
    pls_err err = pls_names_add(p->names, &entry, &name);
    ck_assert_int_eq(err, p->model[i].used ? PLS_EEXIST : PLS_OK);
    ck_assert_uint_eq(name->entry.actor, p->model[i].used ? p->model[i].actor : actor);
    if (err == PLS_OK) {
        p->model[i].used = true;
        p->model[i].actor = actor;
        p->model[i].slot = slot;
        p->count++;
    }
}

static void gone_note(void *owner, const pls_name *name)
{
    plain_names *p = owner;
    ck_assert_ptr_eq(pls_names_find(p->names, name->entry.name, name->entry.name_bytes), name);
    p->gone++;
}

static void plain_remove(plain_names *p, uint32_t i)
{
    pls_name *name = plain_find(p, i);
    ck_assert(p->model[i].used == (name != NULL));
    if (name != NULL) {
        pls_names_remove(p->names, name);
        p->model[i].used = false;
        p->count--;
        p->gone_expected++;
    }
}

static void plain_move_actor(plain_names *p, uint64_t actor, uint32_t slot)
{
    pls_names_move_actor(p->names, actor, slot, 1);
    for (int i = 0; i < NAMES; i++) {
        p->model[i].slot = p->model[i].actor == actor ? slot : p->model[i].slot;
    }
}

static void plain_remove_actor(plain_names *p, uint64_t actor)
{
    pls_names_remove_actor(p->names, actor);
    for (int i = 0; i < NAMES; i++) {
        if (p->model[i].used && p->model[i].actor == actor) {
            p->model[i].used = false;
            p->count--;
            p->gone_expected++;
        }
    }
}

START_TEST(test_names_agree_with_a_plain_array)
{
    static plain_names p;
    pls_rng rng;
    pls_rng_init(&rng, 3);
    ck_assert_int_eq(pls_names_create(99, &p.names), PLS_OK);
    pls_names_on_gone(p.names, gone_note, &p);
    for (int step = 0; step < STEPS; step++) {
        uint32_t i = pls_rng_below(&rng, NAMES);
        uint64_t actor = pls_rng_below(&rng, 50) + 1;
        uint32_t slot = pls_rng_below(&rng, 8);
        uint32_t what = pls_rng_below(&rng, 40);
        if (what < 13) {
            plain_add(&p, i, actor, slot);
        } else if (what < 26) {
            plain_remove(&p, i);
        } else if (what < 39) {
            plain_move_actor(&p, actor, slot);
        } else {
            plain_remove_actor(&p, actor);
        }
        ck_assert_uint_eq(pls_names_count(p.names), p.count);
        if (step % 500 == 0) {
            ck_assert(pls_names_check(p.names));
        }
    }
    ck_assert_uint_gt(p.gone, 0);
    ck_assert_uint_eq(p.gone, p.gone_expected);
    for (uint32_t i = 0; i < NAMES; i++) {
        const pls_name *name = plain_find(&p, i);
        ck_assert(p.model[i].used == (name != NULL));
        ck_assert(name == NULL || name->entry.slot == p.model[i].slot);
    }
    pls_names_destroy(p.names);
}
END_TEST

START_TEST(test_segments_are_found_replaced_and_closed)
{
    pls_segments segments = {0};
    for (uint32_t id = 0; id < 300; id++) {
        int fd = open("/dev/null", O_RDONLY);
        ck_assert_int_eq(pls_segments_put(&segments, (id * 7919) % 1009, fd), PLS_OK);
    }
    int first = pls_segments_get(&segments, 0);
    ck_assert_int_ge(first, 0);
    int other = open("/dev/null", O_RDONLY);
    ck_assert_int_eq(pls_segments_put(&segments, 0, other), PLS_OK);
    ck_assert_int_eq(pls_segments_get(&segments, 0), other);
    ck_assert_int_lt(fcntl(first, F_GETFD), 0);
    pls_segments_remove(&segments, 0);
    pls_segments_remove(&segments, 0);
    ck_assert_int_eq(pls_segments_get(&segments, 0), -1);
    ck_assert_int_lt(fcntl(other, F_GETFD), 0);
    int last = pls_segments_get(&segments, 7919 % 1009);
    pls_segments_fini(&segments);
    ck_assert_int_lt(fcntl(last, F_GETFD), 0);
}
END_TEST

START_TEST(test_tail_keeps_the_last_lines_that_fit)
{
    pls_tail tail = {0};
    char line[16];
    char text[64];
    for (int i = 0; i < 100; i++) {
        int len = snprintf(line, sizeof line, "line %d", i);
        pls_tail_add(&tail, line, (size_t)len);
    }
    ck_assert_uint_eq(tail.count, PLS_OUTPUT_TAIL_LINES_MAX);
    size_t len = pls_tail_text(&tail, text, 16);
    ck_assert_uint_eq(len, 16);
    ck_assert_mem_eq(text, "line 98\nline 99\n", 16);
    ck_assert_uint_eq(pls_tail_text(&tail, text, 7), 0);
    pls_tail_fini(&tail);
}
END_TEST

static int rung[8];
static int rung_count;
static pls_loop *rung_loop;

static void ring(pls_alarm *alarm)
{
    rung[rung_count++] = (int)(intptr_t)alarm->owner;
    if (alarm->owner == (void *)5) {
        pls_loop_stop(rung_loop);
    }
}

START_TEST(test_alarms_ring_in_order_and_not_when_cleared)
{
    pls_alarm alarms[6];
    ck_assert_int_eq(pls_loop_create(&rung_loop), PLS_OK);
    uint64_t now_ns = pls_loop_now_ns();
    for (int i = 5; i >= 0; i--) {
        alarms[i] = (pls_alarm){.ring = ring, .owner = (void *)(intptr_t)i};
        ck_assert_int_eq(pls_loop_alarm(rung_loop, &alarms[i], now_ns + (uint64_t)i * 3000000),
                         PLS_OK);
    }
    pls_loop_alarm_clear(rung_loop, &alarms[2]);
    pls_loop_alarm_clear(rung_loop, &alarms[2]);
    pls_loop_run(rung_loop);
    static const int expected[] = {0, 1, 3, 4, 5};
    ck_assert_int_eq(rung_count, 5);
    ck_assert_mem_eq(rung, expected, sizeof expected);
    ck_assert_uint_ge(pls_loop_now_ns() - now_ns, 15000000);
    pls_loop_destroy(rung_loop);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("node.names");
    TCase *tcase = tcase_create("names");
    tcase_set_timeout(tcase, 60);
    tcase_add_test(tcase, test_names_agree_with_a_plain_array);
    tcase_add_test(tcase, test_segments_are_found_replaced_and_closed);
    tcase_add_test(tcase, test_tail_keeps_the_last_lines_that_fit);
    tcase_add_test(tcase, test_alarms_ring_in_order_and_not_when_cleared);
    suite_add_tcase(suite, tcase);
    return check_run(suite);
}
