/* SPDX-License-Identifier: Apache-2.0 */
#include "shm/lease.h"

#include "tests/check_run.h"
#include "tests/shm/shelf.h"

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/wait.h>

static stand s;

static void setup(void)
{
    stand_open(&s, UINT64_C(64) << 20, 0);
}

static void teardown(void)
{
    ck_assert(pls_arena_check(s.arena));
    ck_assert(pls_views_check(s.views));
    stand_close(&s);
}

static pls_err open_lease(const pls_descriptor *descriptor, pls_lease *lease)
{
    return pls_lease_open(s.views, s.peer, STAND_RECEIVER, descriptor, lease);
}

typedef struct forgery {
    const char *what;
    uint32_t lease;
    uint32_t gen;
    uint32_t flags;
    uint64_t offset;
    uint64_t len;
} forgery;

/* Added to a correct descriptor of lease 0, length 5000 at offset 0 in a segment of 2 MiB. */
static const forgery forgeries[] = {
    {"cell beyond the table", PLS_LEASES_MAX, 0, 0, 0, 0},
    {"cell that overflows", UINT32_MAX, 0, 0, 0, 0},
    {"cell never made", 5, 0, 0, 0, 0},
    {"cell in a hole", 60000, 0, 0, 0, 0},
    {"another generation", 0, 1, 0, 0, 0},
    {"an unknown flag", 0, 0, 0x80000000, 0, 0},
    {"offset beyond the segment", 0, 0, 0, UINT64_C(1) << 21, 0},
    {"offset that overflows", 0, 0, 0, UINT64_MAX, 0},
    {"length beyond the segment", 0, 0, 0, 0, UINT64_C(1) << 21},
    {"length that overflows", 0, 0, 0, 8192, UINT64_MAX - 5000},
    {"no length", 0, 0, 0, 0, (uint64_t)-5000},
};

START_TEST(test_forged_descriptor_is_ecorrupt)
{
    const forgery *f = &forgeries[_i];
    pls_lease lease = {0};
    pls_block *block = stand_alloc(&s, 5000, 1);
    pls_descriptor descriptor = stand_lend(&s, block, 5000, 1);
    pls_descriptor forged = descriptor;
    forged.lease += f->lease;
    forged.gen += f->gen;
    forged.flags += f->flags;
    forged.offset += f->offset;
    forged.len += f->len;
    pls_err err = open_lease(&forged, &lease);
    ck_assert_msg(err == PLS_ECORRUPT, "%s gave %s", f->what, pls_err_name(err));
    ck_assert_ptr_null(lease.bytes);
    ck_assert_uint_eq(pls_views_open_count(s.views), 0);
    ck_assert_int_eq(open_lease(&descriptor, &lease), PLS_OK);
    pls_lease_return(&lease);
    pls_arena_unhold(s.arena, block);
}
END_TEST

START_TEST(test_lease_of_another_receiver_is_ecorrupt)
{
    pls_lease lease;
    pls_block *block = stand_alloc(&s, 5000, 1);
    pls_descriptor descriptor = stand_lend(&s, block, 5000, 1);
    ck_assert_int_eq(pls_lease_open(s.views, s.peer, STAND_RECEIVER + 1, &descriptor, &lease),
                     PLS_ECORRUPT);
    pls_lease_decline(s.views, s.peer, STAND_RECEIVER + 1, &descriptor);
    ck_assert_uint_eq(pls_arena_collect(s.arena), 0);
    pls_arena_unhold(s.arena, block);
}
END_TEST

START_TEST(test_unknown_segment_gives_the_resolver_s_error)
{
    pls_lease lease;
    pls_block *block = stand_alloc(&s, 5000, 1);
    pls_descriptor descriptor = stand_lend(&s, block, 5000, 1);
    s.shelf.answer = PLS_EFULL;
    ck_assert_int_eq(open_lease(&descriptor, &lease), PLS_EFULL);
    s.shelf.answer = PLS_OK;
    pls_descriptor elsewhere = descriptor;
    elsewhere.segment = 99;
    ck_assert_int_eq(open_lease(&elsewhere, &lease), PLS_ENOENT);
    ck_assert_uint_eq(pls_views_mapped_count(s.views), 0);
    ck_assert_int_eq(open_lease(&descriptor, &lease), PLS_OK);
    pls_lease_return(&lease);
    pls_arena_unhold(s.arena, block);
}
END_TEST

START_TEST(test_segment_that_could_shrink_is_refused)
{
    pls_lease lease;
    pls_block *block = stand_alloc(&s, 5000, 1);
    pls_descriptor descriptor = stand_lend(&s, block, 5000, 1);
    close(s.shelf.fds[descriptor.segment]);
    s.shelf.fds[descriptor.segment] = memfd_create("t", MFD_ALLOW_SEALING);
    ck_assert_int_eq(ftruncate(s.shelf.fds[descriptor.segment], 1 << 21), 0);
    ck_assert_int_eq(open_lease(&descriptor, &lease), PLS_EPROTO);
    pls_arena_unhold(s.arena, block);
}
END_TEST

START_TEST(test_view_of_a_dead_owner_stays_until_its_last_lease_is_gone)
{
    pls_lease lease;
    pls_block *block = stand_alloc(&s, 5000, 42);
    pls_descriptor descriptor = stand_lend(&s, block, 5000, 1);
    ck_assert_int_eq(open_lease(&descriptor, &lease), PLS_OK);
    /* What is left when the owner is dead: the receiver's own mappings. */
    pls_peer_release(s.peer);
    s.peer = NULL;
    pls_arena_destroy(s.arena);
    pls_inbox_destroy(s.inbox);
    shelf_clear(&s.shelf);
    memset(&s.shelf, 0, sizeof s.shelf);
    pls_views_owner_dead(s.views, STAND_OWNER, 1);
    pls_views_sweep(s.views);
    ck_assert_uint_eq(pls_views_mapped_count(s.views), 1);
    ck_assert(pair_filled(lease.bytes, 5000, 42));
    pls_lease_return(&lease);
    pls_views_sweep(s.views);
    ck_assert_uint_eq(pls_views_mapped_count(s.views), 0);
    pls_views_destroy(s.views);
    stand_open(&s, UINT64_C(64) << 20, 0);
}
END_TEST

static int entries_count(const char *path, const char *needle)
{
    char line[512];
    int count = 0;
    FILE *file = fopen(path, "re");
    ck_assert_ptr_nonnull(file);
    while (fgets(line, sizeof line, file) != NULL) {
        count += strstr(line, needle) != NULL;
    }
    fclose(file);
    return count;
}

static int descriptors_count(void)
{
    int count = 0;
    for (int fd = 0; fd < 1024; fd++) {
        count += fcntl(fd, F_GETFD) >= 0;
    }
    return count;
}

static void *return_one(void *lease)
{
    pls_lease_return(lease);
    return NULL;
}

/* What a program does that makes systems in a loop and keeps arrays over their shutdown. */
START_TEST(test_last_return_after_destroy_frees_what_only_leases_kept)
{
    pls_lease leases[2];
    pthread_t thread;
    pls_block *block = stand_alloc(&s, 5000, 42);
    int descriptors = descriptors_count();
    int arena_maps = entries_count("/proc/self/maps", "memfd:pulsing-arena");
    int inbox_maps = entries_count("/proc/self/maps", "memfd:pulsing-inbox");
    pls_peer *peer = pair_peer(s.inbox, STAND_OWNER, 1);
    pls_views *views = NULL;
    ck_assert_int_eq(pls_views_create(shelf_resolve, &s.shelf, &views), PLS_OK);
    for (int i = 0; i < 2; i++) {
        pls_descriptor descriptor = stand_lend(&s, block, 5000, 1);
        ck_assert_int_eq(pls_lease_open(views, peer, STAND_RECEIVER, &descriptor, &leases[i]),
                         PLS_OK);
    }
    pls_views_destroy(views);
    pls_peer_release(peer);
    ck_assert(pair_filled(leases[0].bytes, 5000, 42));
    pls_lease_return(&leases[0]);
    ck_assert(pair_filled(leases[1].bytes, 5000, 42));
    ck_assert_int_eq(pthread_create(&thread, NULL, return_one, &leases[1]), 0);
    ck_assert_int_eq(pthread_join(thread, NULL), 0);
    ck_assert_uint_eq(pls_arena_collect(s.arena), 2);
    ck_assert_int_eq(entries_count("/proc/self/maps", "memfd:pulsing-arena"), arena_maps);
    ck_assert_int_eq(entries_count("/proc/self/maps", "memfd:pulsing-inbox"), inbox_maps);
    ck_assert_int_eq(descriptors_count(), descriptors);
    pls_arena_unhold(s.arena, block);
}
END_TEST

START_TEST(test_forked_child_reads_a_view_and_returns_nothing)
{
    pls_lease lease;
    int status = 0;
    pls_block *block = stand_alloc(&s, 5000, 42);
    pls_descriptor descriptor = stand_lend(&s, block, 5000, 1);
    ck_assert_int_eq(open_lease(&descriptor, &lease), PLS_OK);
    pid_t child = fork();
    if (child == 0) {
        bool right = pair_filled(lease.bytes, 5000, 42);
        pls_lease_return(&lease);
        pls_lease_decline(s.views, NULL, STAND_RECEIVER, &descriptor);
        _exit(right ? 0 : 1);
    }
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    ck_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    ck_assert_uint_eq(pls_arena_collect(s.arena), 0);
    pls_lease_return(&lease);
    ck_assert_uint_eq(pls_arena_collect(s.arena), 1);
    pls_arena_unhold(s.arena, block);
}
END_TEST

START_TEST(test_retired_segment_gives_its_memory_back_although_it_is_mapped)
{
    pls_lease lease;
    uint64_t bytes = UINT64_C(8) << 20;
    pls_block *block = stand_alloc(&s, bytes, 42);
    pls_descriptor descriptor = stand_lend(&s, block, bytes, 1);
    ck_assert_int_eq(open_lease(&descriptor, &lease), PLS_OK);
    const uint8_t *view = lease.bytes;
    ck_assert_uint_eq(view[bytes - 1], 42);
    pls_lease_return(&lease);
    pls_arena_unhold(s.arena, block);
    (void)pls_arena_collect(s.arena);
    pls_arena_trim(s.arena);
    ck_assert_uint_eq(pls_views_mapped_count(s.views), 1);
    ck_assert_uint_eq(view[bytes - 1], 0);
}
END_TEST

#define RETURNERS 4
#define RETURNS 5000

typedef struct returner {
    pls_lease *leases;
    uint32_t count;
} returner;

static void *return_all(void *context)
{
    returner *r = context;
    for (uint32_t i = 0; i < r->count; i++) {
        pls_lease_return(&r->leases[i]);
    }
    return NULL;
}

START_TEST(test_leases_come_back_from_any_thread)
{
    static pls_lease leases[RETURNERS][RETURNS];
    pthread_t threads[RETURNERS];
    returner returners[RETURNERS];
    pls_block *block = stand_alloc(&s, 5000, 42);
    for (uint32_t i = 0; i < RETURNERS * RETURNS; i++) {
        pls_descriptor descriptor = stand_lend(&s, block, 5000, 1);
        ck_assert_int_eq(open_lease(&descriptor, &leases[i % RETURNERS][i / RETURNERS]), PLS_OK);
    }
    pls_arena_unhold(s.arena, block);
    for (uint32_t i = 0; i < RETURNERS; i++) {
        returners[i] = (returner){leases[i], RETURNS};
        ck_assert_int_eq(pthread_create(&threads[i], NULL, return_all, &returners[i]), 0);
    }
    uint32_t collected = 0;
    while (collected < RETURNERS * RETURNS) {
        collected += pls_arena_collect(s.arena);
    }
    for (uint32_t i = 0; i < RETURNERS; i++) {
        ck_assert_int_eq(pthread_join(threads[i], NULL), 0);
    }
    ck_assert_uint_eq(stand_stats(&s).blocks_count, 0);
    ck_assert_uint_eq(stand_stats(&s).corrupt_total, 0);
    ck_assert_uint_eq(pls_views_open_count(s.views), 0);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("shm.lease");
    TCase *tcase = tcase_create("lease");
    tcase_set_timeout(tcase, 60);
    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_add_loop_test(tcase, test_forged_descriptor_is_ecorrupt, 0,
                        (int)(sizeof forgeries / sizeof forgeries[0]));
    tcase_add_test(tcase, test_lease_of_another_receiver_is_ecorrupt);
    tcase_add_test(tcase, test_unknown_segment_gives_the_resolver_s_error);
    tcase_add_test(tcase, test_segment_that_could_shrink_is_refused);
    tcase_add_test(tcase, test_view_of_a_dead_owner_stays_until_its_last_lease_is_gone);
    tcase_add_test(tcase, test_last_return_after_destroy_frees_what_only_leases_kept);
    tcase_add_test(tcase, test_forked_child_reads_a_view_and_returns_nothing);
    tcase_add_test(tcase, test_retired_segment_gives_its_memory_back_although_it_is_mapped);
    tcase_add_test(tcase, test_leases_come_back_from_any_thread);
    suite_add_tcase(suite, tcase);
    return check_run(suite);
}
