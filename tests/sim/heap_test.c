/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/check_run.h"
#include "tests/sim/heap.h"

#include "base/rng.h"

#include <check.h>
#include <stdlib.h>

START_TEST(test_events_of_one_moment_come_in_the_order_of_pushing)
{
    pls_sim_heap heap;
    pls_sim_event event;
    pls_sim_heap_init(&heap);
    for (uint32_t i = 0; i < 100; i++) {
        pls_sim_heap_push(&heap, 7, (uint8_t)(200 - i), i, 0);
    }
    for (uint32_t i = 0; i < 100; i++) {
        ck_assert(pls_sim_heap_pop(&heap, &event));
        ck_assert_uint_eq(event.node, i);
        ck_assert_uint_eq(pls_sim_event_kind(&event), 200 - i);
    }
    ck_assert(!pls_sim_heap_pop(&heap, &event));
    pls_sim_heap_fini(&heap);
}
END_TEST

START_TEST(test_pushes_and_pops_in_any_mix_come_out_in_time_order)
{
    pls_sim_heap heap;
    pls_sim_event event;
    pls_rng rng;
    uint64_t now_ns = 0;
    pls_sim_heap_init(&heap);
    pls_rng_init(&rng, 3);
    for (int i = 0; i < 20000; i++) {
        pls_sim_heap_push(&heap, now_ns + pls_rng_below(&rng, 50), 1, (uint32_t)i, 0);
        if (pls_rng_chance(&rng, 45, 100)) {
            ck_assert(pls_sim_heap_pop(&heap, &event));
            ck_assert_uint_ge(event.at_ns, now_ns);
            now_ns = event.at_ns;
        }
    }
    ck_assert(pls_sim_heap_check(&heap));
    while (pls_sim_heap_pop(&heap, &event)) {
        ck_assert_uint_ge(event.at_ns, now_ns);
        now_ns = event.at_ns;
    }
    pls_sim_heap_fini(&heap);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("sim.heap");
    TCase *tcase = tcase_create("heap");
    tcase_add_test(tcase, test_events_of_one_moment_come_in_the_order_of_pushing);
    tcase_add_test(tcase, test_pushes_and_pops_in_any_mix_come_out_in_time_order);
    suite_add_tcase(suite, tcase);
    return check_run(suite);
}
