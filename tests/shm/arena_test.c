/* SPDX-License-Identifier: Apache-2.0 */
#include "shm/arena.h"

#include "base/rng.h"
#include "shm/pool.h"
#include "tests/check_run.h"
#include "tests/shm/shelf.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/mman.h>

#define MIB (UINT64_C(1) << 20)

static stand s;

static void setup(void)
{
    stand_open(&s, 256 * MIB, 0);
}

static void teardown(void)
{
    ck_assert(pls_arena_check(s.arena));
    ck_assert(pls_views_check(s.views));
    stand_close(&s);
}

START_TEST(test_size_classes_waste_at_most_a_fifth)
{
    unsigned last = 0;
    for (uint64_t bytes = 1; bytes <= PLS_POOL_SMALL_BYTES_MAX; bytes += 509) {
        unsigned class_index = pls_pool_class(bytes);
        uint64_t class_bytes = pls_pool_class_bytes(class_index);
        ck_assert(class_index >= last && class_bytes >= bytes);
        ck_assert(bytes <= 4096 || (class_bytes - bytes) * 5 <= class_bytes);
        ck_assert(class_index == 0 || pls_pool_class_bytes(class_index - 1) < bytes);
        last = class_index;
    }
    ck_assert_uint_eq(pls_pool_class_bytes(40), PLS_POOL_SMALL_BYTES_MAX);
    ck_assert_uint_eq(pls_pool_class(PLS_POOL_SMALL_BYTES_MAX), 40);
}
END_TEST

START_TEST(test_lent_bytes_are_read_in_place_and_come_back)
{
    pls_block *block = stand_alloc(&s, 100000, 7);
    pls_descriptor descriptor = stand_lend(&s, block, 100000, 1);
    pls_lease lease;
    pls_arena_unhold(s.arena, block);
    ck_assert_uint_eq(stand_stats(&s).lent_count, 1);
    ck_assert_uint_eq(stand_stats(&s).blocks_count, 1);
    ck_assert_int_eq(pls_lease_open(s.views, s.peer, STAND_RECEIVER, &descriptor, &lease), PLS_OK);
    ck_assert_uint_eq(lease.len, 100000);
    ck_assert(!lease.copy_soon);
    ck_assert(pair_filled(lease.bytes, 100000, 7));
    ck_assert_uint_eq(pls_arena_collect(s.arena), 0);
    pls_lease_return(&lease);
    ck_assert_ptr_null(lease.bytes);
    pls_lease_return(&lease);
    ck_assert_uint_eq(pls_inbox_ready(s.inbox), PLS_READY_RETURNS);
    ck_assert_uint_eq(pls_arena_collect(s.arena), 1);
    ck_assert_uint_eq(pls_inbox_ready(s.inbox), 0);
    pls_arena_stats stats = stand_stats(&s);
    ck_assert_uint_eq(stats.lent_count, 0);
    ck_assert_uint_eq(stats.blocks_count, 0);
    ck_assert_uint_eq(stats.lent_bytes, 0);
    ck_assert_uint_eq(stats.returned_total, 1);
    ck_assert_uint_eq(s.shelf.published, 1);
    ck_assert_uint_eq(s.shelf.resolved, 1);
}
END_TEST

START_TEST(test_block_is_used_again_only_after_the_last_claim)
{
    pls_block *block = stand_alloc(&s, 5000, 1);
    uint8_t *base = block->base;
    pls_lease first;
    pls_lease second;
    pls_descriptor a = stand_lend(&s, block, 5000, 1);
    pls_descriptor b = stand_lend(&s, block, 100, 1);
    ck_assert_int_eq(pls_lease_open(s.views, s.peer, STAND_RECEIVER, &a, &first), PLS_OK);
    ck_assert_int_eq(pls_lease_open(s.views, s.peer, STAND_RECEIVER, &b, &second), PLS_OK);
    pls_arena_hold(s.arena, block);
    pls_arena_unhold(s.arena, block);
    pls_arena_unhold(s.arena, block);
    for (int round = 0; round < 2; round++) {
        pls_block *other = stand_alloc(&s, 5000, 2);
        ck_assert_ptr_ne(other->base, base);
        pls_arena_unhold(s.arena, other);
        ck_assert(pair_filled(second.bytes, 100, 1));
        pls_lease_return(&first);
        (void)pls_arena_collect(s.arena);
    }
    pls_lease_return(&second);
    ck_assert_uint_eq(pls_arena_collect(s.arena), 1);
    pls_block *again = stand_alloc(&s, 5000, 3);
    ck_assert_ptr_eq(again->base, base);
    pls_arena_unhold(s.arena, again);
}
END_TEST

/* Pages that a touch would fault in. The process's own count of faults is no measure of them: a
 * sanitizer's runtime has faults of its own. */
static uint64_t pages_unmapped(const uint8_t *base, uint64_t bytes)
{
    uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
    int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
    ck_assert_int_ge(fd, 0);
    uint64_t unmapped = 0;
    for (uint64_t at = 0; at < bytes; at += page) {
        uint64_t entry = 0;
        off_t offset = (off_t)(((uintptr_t)base + at) / page * sizeof(entry));
        ck_assert_int_eq(pread(fd, &entry, sizeof(entry), offset), sizeof(entry));
        unmapped += (entry >> 63) == 0;
    }
    close(fd);
    return unmapped;
}

START_TEST(test_warm_large_block_is_filled_without_page_faults)
{
    pls_block *block = NULL;
    ck_assert_int_eq(pls_arena_alloc(s.arena, 64 * MIB, &block), PLS_OK);
    uint8_t *base = block->base;
    ck_assert_int_eq(madvise(base, 1, MADV_DONTNEED), 0);
    ck_assert_uint_eq(pages_unmapped(base, 64 * MIB), 1);
    memset(base, 1, 64 * MIB);
    pls_arena_unhold(s.arena, block);
    ck_assert_uint_eq(stand_stats(&s).warm_bytes, 64 * MIB);
    ck_assert_int_eq(pls_arena_alloc(s.arena, 60 * MIB, &block), PLS_OK);
    ck_assert_ptr_eq(block->base, base);
    ck_assert_uint_eq(pages_unmapped(base, 60 * MIB), 0);
    ck_assert_uint_eq(s.shelf.published, 1);
    pls_arena_unhold(s.arena, block);
}
END_TEST

START_TEST(test_spent_budget_is_ebudget_and_warm_memory_makes_room)
{
    pls_block *blocks[4];
    pls_block *block = NULL;
    for (int i = 0; i < 4; i++) {
        blocks[i] = stand_alloc(&s, 64 * MIB, 1);
    }
    ck_assert_int_eq(pls_arena_alloc(s.arena, 1, &block), PLS_EBUDGET);
    ck_assert_int_eq(pls_arena_alloc(s.arena, 5 * MIB, &block), PLS_EBUDGET);
    ck_assert_int_eq(pls_arena_alloc(s.arena, 257 * MIB, &block), PLS_ETOOBIG);
    ck_assert_ptr_null(block);
    ck_assert_uint_eq(stand_stats(&s).refused_total, 2);
    ck_assert_uint_eq(stand_stats(&s).committed_bytes, 256 * MIB);
    pls_arena_unhold(s.arena, blocks[0]);
    ck_assert_uint_eq(stand_stats(&s).warm_bytes, 64 * MIB);
    ck_assert_int_eq(pls_arena_alloc(s.arena, 1, &block), PLS_OK);
    ck_assert_uint_eq(s.shelf.retired, 1);
    ck_assert_uint_le(stand_stats(&s).committed_bytes, 193 * MIB);
    pls_arena_unhold(s.arena, block);
    for (int i = 1; i < 4; i++) {
        pls_arena_unhold(s.arena, blocks[i]);
    }
    pls_arena_trim(s.arena);
    ck_assert_uint_eq(stand_stats(&s).committed_bytes, 0);
    ck_assert_uint_eq(stand_stats(&s).segments_count, 0);
    ck_assert_uint_eq(s.shelf.retired, s.shelf.published);
}
END_TEST

START_TEST(test_returned_lease_makes_room_in_a_spent_budget_and_wakes_who_waits)
{
    pls_lease lease;
    pls_block *block = stand_alloc(&s, 200 * MIB, 1);
    pls_descriptor descriptor = stand_lend(&s, block, 10, 1);
    pls_arena_unhold(s.arena, block);
    ck_assert_int_eq(pls_lease_open(s.views, s.peer, STAND_RECEIVER, &descriptor, &lease), PLS_OK);
    ck_assert_int_eq(pls_arena_alloc(s.arena, 200 * MIB, &block), PLS_EBUDGET);
    ck_assert(!pls_arena_want_returns(s.arena));
    ck_assert(pls_inbox_arm(s.inbox));
    pls_lease_return(&lease);
    struct pollfd fd = {.fd = pls_inbox_eventfd(s.inbox), .events = POLLIN};
    ck_assert_int_eq(poll(&fd, 1, 0), 1);
    pls_inbox_disarm(s.inbox, true);
    ck_assert(pls_arena_want_returns(s.arena));
    ck_assert_int_eq(pls_arena_alloc(s.arena, 200 * MIB, &block), PLS_OK);
    pls_arena_unhold(s.arena, block);
}
END_TEST

START_TEST(test_nobody_is_woken_by_a_return_without_a_wish)
{
    pls_lease lease;
    pls_block *block = stand_alloc(&s, 10, 1);
    pls_descriptor descriptor = stand_lend(&s, block, 10, 1);
    ck_assert_int_eq(pls_lease_open(s.views, s.peer, STAND_RECEIVER, &descriptor, &lease), PLS_OK);
    ck_assert(pls_inbox_arm(s.inbox));
    pls_lease_return(&lease);
    struct pollfd fd = {.fd = pls_inbox_eventfd(s.inbox), .events = POLLIN};
    ck_assert_int_eq(poll(&fd, 1, 0), 0);
    pls_inbox_disarm(s.inbox, false);
    ck_assert(!pls_inbox_arm(s.inbox));
    pls_arena_unhold(s.arena, block);
}
END_TEST

START_TEST(test_reap_takes_back_what_a_dead_receiver_held_and_nothing_else)
{
    pls_lease lease;
    pls_block *block = stand_alloc(&s, 10000, 1);
    (void)stand_lend(&s, block, 10000, 1);
    (void)stand_lend(&s, block, 10000, 1);
    pls_descriptor returned = stand_lend(&s, block, 10000, 1);
    (void)stand_lend(&s, block, 10000, 2);
    pls_arena_unhold(s.arena, block);
    ck_assert_int_eq(pls_lease_open(s.views, s.peer, STAND_RECEIVER, &returned, &lease), PLS_OK);
    pls_lease_return(&lease);
    ck_assert_uint_eq(pls_arena_reap(s.arena, STAND_RECEIVER, 1), 2);
    pls_arena_stats stats = stand_stats(&s);
    ck_assert_uint_eq(stats.lent_count, 1);
    ck_assert_uint_eq(stats.returned_total, 1);
    ck_assert_uint_eq(stats.reaped_total, 2);
    ck_assert_uint_eq(stats.blocks_count, 1);
    ck_assert_uint_eq(pls_arena_reap(s.arena, STAND_RECEIVER, 1), 0);
    ck_assert_uint_eq(pls_arena_reap(s.arena, STAND_RECEIVER, 2), 1);
    ck_assert_uint_eq(stand_stats(&s).blocks_count, 0);
}
END_TEST

START_TEST(test_revoked_lease_is_gone_and_its_descriptor_stale)
{
    pls_lease lease;
    pls_block *block = stand_alloc(&s, 10, 1);
    pls_descriptor descriptor = stand_lend(&s, block, 10, 1);
    pls_arena_revoke(s.arena, &descriptor);
    ck_assert_uint_eq(stand_stats(&s).lent_count, 0);
    ck_assert_int_eq(pls_lease_open(s.views, s.peer, STAND_RECEIVER, &descriptor, &lease),
                     PLS_ECORRUPT);
    pls_lease_decline(s.views, s.peer, STAND_RECEIVER, &descriptor);
    ck_assert_uint_eq(pls_arena_collect(s.arena), 0);
    pls_arena_unhold(s.arena, block);
}
END_TEST

START_TEST(test_receiver_over_its_share_is_told_to_copy)
{
    pls_block *block = stand_alloc(&s, 100 * MIB, 1);
    ck_assert_uint_eq(stand_lend(&s, block, 100 * MIB, 1).flags, 0);
    ck_assert_uint_eq(stand_lend(&s, block, 100 * MIB, 1).flags, PLS_DESCRIPTOR_COPY);
    ck_assert_uint_eq(pls_arena_reap(s.arena, STAND_RECEIVER, 1), 2);
    pls_arena_unhold(s.arena, block);
}
END_TEST

START_TEST(test_all_lease_cells_can_be_out_and_one_more_is_efull)
{
    pls_block *block = stand_alloc(&s, 10, 1);
    pls_arena_loan loan = {.len = 10, .slot = STAND_RECEIVER, .epoch = 1};
    pls_descriptor descriptor;
    uint32_t count = 0;
    while (pls_arena_lend(s.arena, block, &loan, &descriptor) == PLS_OK) {
        count++;
    }
    ck_assert_uint_eq(count, PLS_LEASES_MAX);
    ck_assert_int_eq(pls_arena_lend(s.arena, block, &loan, &descriptor), PLS_EFULL);
    pls_lease_decline(s.views, s.peer, STAND_RECEIVER, &descriptor);
    ck_assert_int_eq(pls_arena_lend(s.arena, block, &loan, &descriptor), PLS_OK);
    ck_assert_uint_eq(pls_arena_reap(s.arena, STAND_RECEIVER, 1), PLS_LEASES_MAX);
    pls_arena_unhold(s.arena, block);
}
END_TEST

START_TEST(test_forged_stack_of_returns_is_counted_and_harmless)
{
    static const uint64_t tops[] = {1, 900, 5000, UINT64_MAX, UINT64_C(1) << 40, 3};
    pls_inbox_header *header = pls_inbox_header_of(s.inbox);
    pls_block *block = stand_alloc(&s, 10, 1);
    /* Cells 0, 1 and 2 were made; 0 and 1 are back, 2 is lent and its chain leads to itself. */
    pls_descriptor a = stand_lend(&s, block, 10, 1);
    pls_descriptor b = stand_lend(&s, block, 10, 1);
    pls_descriptor c = stand_lend(&s, block, 10, 1);
    pls_arena_revoke(s.arena, &a);
    pls_arena_revoke(s.arena, &b);
    ck_assert_uint_eq(c.lease, 2);
    atomic_store(&pls_inbox_leases_of(s.inbox)[2].next, 3);
    atomic_store(&header->returns, tops[_i]);
    ck_assert_uint_eq(pls_arena_collect(s.arena), tops[_i] == 3 ? 1 : 0);
    ck_assert_uint_eq(stand_stats(&s).corrupt_total, 1);
    pls_arena_unhold(s.arena, block);
}
END_TEST

START_TEST(test_publish_that_fails_fails_the_allocation)
{
    pls_block *block = NULL;
    s.shelf.answer = PLS_ECLOSED;
    ck_assert_int_eq(pls_arena_alloc(s.arena, 10, &block), PLS_ECLOSED);
    ck_assert_int_eq(pls_arena_alloc(s.arena, 10 * MIB, &block), PLS_ECLOSED);
    ck_assert_uint_eq(stand_stats(&s).committed_bytes, 0);
    ck_assert_uint_eq(stand_stats(&s).segments_count, 0);
    s.shelf.answer = PLS_OK;
}
END_TEST

/* Random sizes, holds and leases against the books, within a budget that is often spent. */
START_TEST(test_random_traffic_keeps_the_books)
{
    enum { HELD = 64 };
    struct {
        pls_block *block;
        uint64_t bytes;
        uint8_t fill;
        pls_lease lease;
    } held[HELD] = {0};
    pls_rng rng;
    pls_rng_init(&rng, 21);
    for (uint32_t turn = 0; turn < 3000; turn++) {
        uint32_t i = pls_rng_below(&rng, HELD);
        if (held[i].bytes == 0) {
            uint64_t bytes = 1 + (pls_rng_next(&rng) >> (64 - 4 - pls_rng_below(&rng, 18)));
            if (pls_arena_alloc(s.arena, bytes, &held[i].block) != PLS_OK) {
                continue;
            }
            held[i].bytes = bytes;
            held[i].fill = (uint8_t)turn;
            memset(held[i].block->base, (uint8_t)turn, bytes);
            pls_descriptor d = stand_lend(&s, held[i].block, bytes, 1);
            ck_assert_int_eq(pls_lease_open(s.views, s.peer, STAND_RECEIVER, &d, &held[i].lease),
                             PLS_OK);
            pls_arena_unhold(s.arena, held[i].block);
        } else {
            ck_assert(pair_filled(held[i].lease.bytes, (uint32_t)held[i].bytes, held[i].fill));
            pls_lease_return(&held[i].lease);
            held[i].bytes = 0;
        }
        if (turn % 50 == 0) {
            (void)pls_arena_collect(s.arena);
            ck_assert(pls_arena_check(s.arena));
        }
    }
    for (uint32_t i = 0; i < HELD; i++) {
        pls_lease_return(&held[i].lease);
    }
    (void)pls_arena_collect(s.arena);
    ck_assert_uint_eq(stand_stats(&s).blocks_count, 0);
    ck_assert_uint_eq(stand_stats(&s).lent_count, 0);
    ck_assert_uint_eq(pls_views_open_count(s.views), 0);
}
END_TEST

START_TEST(test_releasing_too_often_aborts)
{
    pls_block *block = stand_alloc(&s, 10, 1);
    (void)stand_lend(&s, block, 10, 1);
    pls_arena_unhold(s.arena, block);
    pls_arena_unhold(s.arena, block);
}
END_TEST

START_TEST(test_lending_past_the_end_aborts)
{
    pls_descriptor descriptor;
    pls_block *block = stand_alloc(&s, 4096, 1);
    pls_arena_loan loan = {.offset = 4000, .len = 97, .slot = 1, .epoch = 1};
    (void)!pls_arena_lend(s.arena, block, &loan, &descriptor);
}
END_TEST

START_TEST(test_revoking_twice_aborts)
{
    pls_block *block = stand_alloc(&s, 10, 1);
    pls_descriptor descriptor = stand_lend(&s, block, 10, 1);
    pls_arena_revoke(s.arena, &descriptor);
    pls_arena_revoke(s.arena, &descriptor);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("shm.arena");
    TCase *tcase = tcase_create("arena");
    tcase_set_timeout(tcase, 60);
    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_add_test(tcase, test_size_classes_waste_at_most_a_fifth);
    tcase_add_test(tcase, test_lent_bytes_are_read_in_place_and_come_back);
    tcase_add_test(tcase, test_block_is_used_again_only_after_the_last_claim);
    tcase_add_test(tcase, test_warm_large_block_is_filled_without_page_faults);
    tcase_add_test(tcase, test_spent_budget_is_ebudget_and_warm_memory_makes_room);
    tcase_add_test(tcase, test_returned_lease_makes_room_in_a_spent_budget_and_wakes_who_waits);
    tcase_add_test(tcase, test_nobody_is_woken_by_a_return_without_a_wish);
    tcase_add_test(tcase, test_reap_takes_back_what_a_dead_receiver_held_and_nothing_else);
    tcase_add_test(tcase, test_revoked_lease_is_gone_and_its_descriptor_stale);
    tcase_add_test(tcase, test_receiver_over_its_share_is_told_to_copy);
    tcase_add_test(tcase, test_all_lease_cells_can_be_out_and_one_more_is_efull);
    tcase_add_loop_test(tcase, test_forged_stack_of_returns_is_counted_and_harmless, 0, 6);
    tcase_add_test(tcase, test_publish_that_fails_fails_the_allocation);
    tcase_add_test(tcase, test_random_traffic_keeps_the_books);
    tcase_add_test_raise_signal(tcase, test_releasing_too_often_aborts, SIGABRT);
    tcase_add_test_raise_signal(tcase, test_lending_past_the_end_aborts, SIGABRT);
    tcase_add_test_raise_signal(tcase, test_revoking_twice_aborts, SIGABRT);
    suite_add_tcase(suite, tcase);
    return check_run(suite);
}
