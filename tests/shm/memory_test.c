/* SPDX-License-Identifier: Apache-2.0 */
/* Every allocation of the room fails once, the n-th for n = 0, 1, 2 ... until an operation
 * succeeds: it must say so, leave nothing behind, and work when it is called again. calloc and the
 * two calls that make shared memory are routed through here by the linker. */
#include "shm/obs.h"
#include "shm/segment.h"
#include "tests/check_run.h"
#include "tests/shm/shelf.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>

void *__real_calloc(size_t count, size_t bytes);
void *__wrap_calloc(size_t count, size_t bytes);
pls_err __real_pls_segment_commit(int fd, uint64_t offset, uint64_t bytes);
pls_err __wrap_pls_segment_commit(int fd, uint64_t offset, uint64_t bytes);
pls_err __real_pls_segment_populate(const pls_segment *segment, uint64_t offset, uint64_t bytes);
pls_err __wrap_pls_segment_populate(const pls_segment *segment, uint64_t offset, uint64_t bytes);
pls_err __real_pls_segment_map(pls_segment *segment, int fd, uint64_t offset, uint64_t bytes,
                               unsigned mode);
pls_err __wrap_pls_segment_map(pls_segment *segment, int fd, uint64_t offset, uint64_t bytes,
                               unsigned mode);

static int calls_left = -1; /* -1: nothing fails */

static bool fails_now(void)
{
    if (calls_left < 0) {
        return false;
    }
    return calls_left-- == 0;
}

void *__wrap_calloc(size_t count, size_t bytes)
{
    return fails_now() ? NULL : __real_calloc(count, bytes);
}

pls_err __wrap_pls_segment_commit(int fd, uint64_t offset, uint64_t bytes)
{
    return fails_now() ? PLS_ENOMEM : __real_pls_segment_commit(fd, offset, bytes);
}

pls_err __wrap_pls_segment_populate(const pls_segment *segment, uint64_t offset, uint64_t bytes)
{
    return fails_now() ? PLS_ENOMEM : __real_pls_segment_populate(segment, offset, bytes);
}

pls_err __wrap_pls_segment_map(pls_segment *segment, int fd, uint64_t offset, uint64_t bytes,
                               unsigned mode)
{
    return fails_now() ? PLS_ENOMEM : __real_pls_segment_map(segment, fd, offset, bytes, mode);
}

static int descriptors_count(void)
{
    int count = 0;
    DIR *directory = opendir("/proc/self/fd");
    ck_assert_ptr_nonnull(directory);
    while (readdir(directory) != NULL) {
        count++;
    }
    closedir(directory);
    return count;
}

static int mappings_count(void)
{
    char line[512];
    int count = 0;
    FILE *maps = fopen("/proc/self/maps", "re");
    ck_assert_ptr_nonnull(maps);
    while (fgets(line, sizeof line, maps) != NULL) {
        count += strstr(line, "memfd:pulsing") != NULL;
    }
    fclose(maps);
    return count;
}

/* Calls `step` with the n-th allocation failing until it succeeds; returns how many there are. */
static int each_fails_once(pls_err (*step)(void *), void *context)
{
    for (int n = 0; n < 100; n++) {
        int descriptors = descriptors_count();
        int mappings = mappings_count();
        calls_left = n;
        pls_err err = step(context);
        bool reached = calls_left < 0;
        calls_left = -1;
        if (err == PLS_OK && !reached) {
            return n;
        }
        ck_assert_msg(err == PLS_ENOMEM, "allocation %d gave %s", n, pls_err_name(err));
        ck_assert_int_eq(descriptors_count(), descriptors);
        ck_assert_int_eq(mappings_count(), mappings);
    }
    ck_abort_msg("it never succeeds");
    return -1;
}

static stand s;
static pls_inbox *inbox;
static pls_peer *peer;
static pls_outbox *outbox;
static pls_obs *obs;
static pls_block *block;
static pls_descriptor descriptor;
static pls_lease lease;
static int fds[2];

static pls_err step_inbox(void *context)
{
    return pls_inbox_create(PAIR_CONSUMER, 1, &inbox);
}

static pls_err step_peer(void *context)
{
    return pls_peer_attach(fds[0], fds[1], PAIR_CONSUMER, 1, &peer);
}

static pls_err step_outbox(void *context)
{
    return pls_outbox_attach(peer, PAIR_PRODUCER, 1, 4096, &outbox);
}

static pls_err step_obs(void *context)
{
    pls_obs_identity identity = {.slot = 1, .epoch = 1, .level = PLS_OBS_FULL};
    return pls_obs_create(&identity, &obs);
}

static pls_err step_alloc(void *context)
{
    return pls_arena_alloc(s.arena, *(const uint64_t *)context, &block);
}

static pls_err step_lend(void *context)
{
    pls_arena_loan loan = {.len = 10, .slot = STAND_RECEIVER, .epoch = 1};
    return pls_arena_lend(s.arena, block, &loan, &descriptor);
}

static pls_err step_lease(void *context)
{
    return pls_lease_open(s.views, s.peer, STAND_RECEIVER, &descriptor, &lease);
}

START_TEST(test_failed_allocations_of_the_message_path_leave_nothing)
{
    ck_assert_int_ge(each_fails_once(step_inbox, NULL), 3);
    fds[0] = dup(pls_inbox_memfd(inbox));
    fds[1] = dup(pls_inbox_eventfd(inbox));
    ck_assert_int_ge(each_fails_once(step_peer, NULL), 2);
    ck_assert_int_ge(each_fails_once(step_outbox, NULL), 4);
    ck_assert_int_eq(pair_send(outbox, 10, 3), PLS_OK);
    pls_outbox_wake(outbox);
    pls_message message;
    ck_assert_int_eq(pls_inbox_pop(inbox, &message), PLS_OK);
    pls_inbox_release(inbox);
    pls_outbox_detach(outbox);
    pls_peer_release(peer);
    pls_inbox_destroy(inbox);
}
END_TEST

START_TEST(test_failed_allocations_of_the_payload_path_leave_nothing)
{
    uint64_t small = 5000;
    uint64_t large = UINT64_C(8) << 20;
    stand_open(&s, UINT64_C(64) << 20, 0);
    ck_assert_int_ge(each_fails_once(step_alloc, &large), 4);
    pls_arena_unhold(s.arena, block);
    ck_assert_int_ge(each_fails_once(step_alloc, &small), 4);
    ck_assert_int_ge(each_fails_once(step_lend, NULL), 2);
    ck_assert_int_ge(each_fails_once(step_lease, NULL), 2);
    ck_assert(pls_arena_check(s.arena));
    ck_assert(pls_views_check(s.views));
    pls_lease_return(&lease);
    ck_assert_uint_eq(pls_arena_collect(s.arena), 1);
    pls_arena_unhold(s.arena, block);
    pls_arena_trim(s.arena);
    ck_assert_uint_eq(stand_stats(&s).committed_bytes, 0);
    stand_close(&s);
}
END_TEST

START_TEST(test_failed_allocations_of_obs_leave_nothing_and_its_tables_forget)
{
    ck_assert_int_ge(each_fails_once(step_obs, NULL), 8);
    pls_obs_writer writer;
    calls_left = 0;
    ck_assert_uint_eq(pls_obs_actor_open(obs, 1, 0, 0), PLS_OBS_NONE);
    calls_left = 0;
    ck_assert_uint_eq(pls_obs_method_open(obs, 1, 1), PLS_OBS_NONE);
    calls_left = 0;
    ck_assert_int_eq(pls_obs_writer_open(obs, true, &writer), PLS_OK);
    calls_left = -1;
    ck_assert_ptr_null(writer.ring);
    ck_assert_uint_eq(pls_obs_actor_open(obs, 1, 0, 0), 0);
    ck_assert_uint_eq(obs->counters[PLS_OBS_OVERFLOWS], 2);
    ck_assert(pls_obs_check(obs));
    pls_obs_destroy(obs);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("shm.memory");
    TCase *tcase = tcase_create("memory");
    tcase_set_timeout(tcase, 60);
    tcase_add_test(tcase, test_failed_allocations_of_the_message_path_leave_nothing);
    tcase_add_test(tcase, test_failed_allocations_of_the_payload_path_leave_nothing);
    tcase_add_test(tcase, test_failed_allocations_of_obs_leave_nothing_and_its_tables_forget);
    suite_add_tcase(suite, tcase);
    return check_run(suite);
}
