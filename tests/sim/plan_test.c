/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/check_run.h"
#include "tests/sim/plan.h"

#include "tests/sim/net.h"
#include "tests/sim/packet.h"

#include <check.h>
#include <stdlib.h>
#include <string.h>

START_TEST(test_a_written_plan_reads_back_the_same)
{
    pls_sim_plan plan;
    pls_sim_plan back;
    for (uint64_t seed = 0; seed < 50; seed++) {
        pls_sim_plan_draw(&plan, seed, 5000);
        FILE *file = tmpfile();
        ck_assert_ptr_nonnull(file);
        pls_sim_plan_write(&plan, file);
        rewind(file);
        memset(&back, 0xff, sizeof back);
        ck_assert_int_eq(pls_sim_plan_read(file, &back), PLS_OK);
        fclose(file);
        ck_assert_uint_eq(plan.seed, back.seed);
        ck_assert_uint_eq(plan.node_count, back.node_count);
        ck_assert_uint_eq(plan.tick_count, back.tick_count);
        ck_assert_uint_eq(plan.fault_count, back.fault_count);
        ck_assert_mem_eq(plan.faults, back.faults, plan.fault_count * sizeof plan.faults[0]);
    }
}
END_TEST

START_TEST(test_a_broken_plan_is_refused)
{
    static const char *const texts[] = {
        "",
        "plan seed=1 nodes=2\nend\n",
        "plan seed=1 nodes=0 ticks=100\nend\n",
        "plan seed=1 nodes=2 ticks=100\n",
        "plan seed=1 nodes=2 ticks=100\nat 1 crash node=2 ticks=0 value=0 from=0 to=0\nend\n",
        "plan seed=1 nodes=2 ticks=100\nat 1 crush node=1 ticks=0 value=0 from=0 to=0\nend\n",
    };
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        pls_sim_plan plan;
        FILE *file = tmpfile();
        ck_assert_ptr_nonnull(file);
        fputs(texts[i], file);
        rewind(file);
        ck_assert_int_eq(pls_sim_plan_read(file, &plan), PLS_EPROTO);
        fclose(file);
    }
}
END_TEST

START_TEST(test_seeds_draw_every_kind_of_fault_and_every_number_of_nodes)
{
    uint32_t kinds[PLS_SIM_FAULT_KINDS] = {0};
    uint32_t sizes[PLS_SIM_PLAN_NODES_MAX + 1] = {0};
    pls_sim_plan plan;
    for (uint64_t seed = 0; seed < 400; seed++) {
        pls_sim_plan_draw(&plan, seed, 5000);
        sizes[plan.node_count]++;
        for (uint32_t i = 0; i < plan.fault_count; i++) {
            kinds[plan.faults[i].kind]++;
            ck_assert_uint_le(plan.faults[i].at_tick + plan.faults[i].tick_count, 5000);
        }
    }
    for (int i = 0; i < PLS_SIM_FAULT_KINDS; i++) {
        ck_assert_uint_gt(kinds[i], 100);
    }
    for (int i = 2; i <= PLS_SIM_PLAN_NODES_MAX; i++) {
        ck_assert_uint_gt(sizes[i], 0);
    }
}
END_TEST

START_TEST(test_the_network_loses_and_doubles_as_often_as_it_says)
{
    pls_sim_net net;
    uint32_t lost = 0;
    uint32_t doubled = 0;
    pls_sim_net_init(&net, 11);
    net.loss_ppm = 100000;
    net.duplicate_ppm = 50000;
    for (int i = 0; i < 100000; i++) {
        pls_sim_fate fate = pls_sim_net_fate(&net, 0, 1);
        lost += fate.copy_count == 0;
        doubled += fate.copy_count == 2;
    }
    ck_assert_uint_gt(lost, 9600);
    ck_assert_uint_lt(lost, 10400);
    ck_assert_uint_gt(doubled, 4200);
    ck_assert_uint_lt(doubled, 4800);
}
END_TEST

START_TEST(test_a_cut_holds_in_its_own_direction_only)
{
    pls_sim_net net;
    pls_sim_net_init(&net, 12);
    pls_sim_net_cut(&net, 3, 63);
    ck_assert_uint_eq(pls_sim_net_fate(&net, 3, 63).copy_count, 0);
    ck_assert_uint_eq(pls_sim_net_fate(&net, 63, 3).copy_count, 1);
    pls_sim_net_heal(&net);
    ck_assert_uint_eq(pls_sim_net_fate(&net, 3, 63).copy_count, 1);
}
END_TEST

START_TEST(test_packets_keep_their_bytes_until_released_and_are_reused)
{
    static uint8_t bytes[PLS_SIM_PACKET_BYTES_MAX];
    static const size_t lens[] = {0, 1, 128, 129, 1536, 16384, PLS_SIM_PACKET_BYTES_MAX};
    pls_sim_packets *packets = pls_sim_packets_create();
    uint32_t highest = 0;
    for (int round = 0; round < 3; round++) {
        uint32_t taken[7 * 50];
        for (int i = 0; i < 7 * 50; i++) {
            memset(bytes, i & 0xff, sizeof bytes);
            taken[i] = pls_sim_packet_take(packets, bytes, lens[i % 7]);
            ck_assert(round == 0 || taken[i] <= highest);
            highest = taken[i] > highest ? taken[i] : highest;
        }
        ck_assert_uint_eq(pls_sim_packets_live(packets), 7 * 50);
        for (int i = 0; i < 7 * 50; i++) {
            const pls_sim_packet *packet = pls_sim_packet_at(packets, taken[i]);
            ck_assert_uint_eq(packet->len, lens[i % 7]);
            memset(bytes, i & 0xff, packet->len);
            ck_assert_int_eq(memcmp(bytes, packet->bytes, packet->len), 0);
            pls_sim_packet_release(packets, taken[i]);
        }
    }
    ck_assert_uint_eq(pls_sim_packets_live(packets), 0);
    pls_sim_packets_destroy(packets);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("sim.plan");
    TCase *tcase = tcase_create("plan");
    tcase_add_test(tcase, test_a_written_plan_reads_back_the_same);
    tcase_add_test(tcase, test_a_broken_plan_is_refused);
    tcase_add_test(tcase, test_seeds_draw_every_kind_of_fault_and_every_number_of_nodes);
    tcase_add_test(tcase, test_the_network_loses_and_doubles_as_often_as_it_says);
    tcase_add_test(tcase, test_a_cut_holds_in_its_own_direction_only);
    tcase_add_test(tcase, test_packets_keep_their_bytes_until_released_and_are_reused);
    suite_add_tcase(suite, tcase);
    return check_run(suite);
}
