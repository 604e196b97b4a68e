/* SPDX-License-Identifier: Apache-2.0 */
#include "shm/outbox.h"

#include "tests/check_run.h"
#include "tests/shm/pair.h"

#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>

static pair p;

static void setup(void)
{
    memset(&p, 0, sizeof p);
    ck_assert_int_eq(pls_inbox_create(PAIR_CONSUMER, PAIR_EPOCH, &p.inbox), PLS_OK);
}

static void teardown(void)
{
    pair_close(&p);
}

static uint64_t allocated_bytes(void)
{
    struct stat info;
    ck_assert_int_eq(fstat(pls_inbox_memfd(p.inbox), &info), 0);
    return (uint64_t)info.st_blocks * 512;
}

START_TEST(test_a_silent_pair_costs_no_memory_and_a_ring_its_capacity)
{
    ck_assert_uint_eq(allocated_bytes(), PLS_PAGE_BYTES);
    p.peer = pair_peer(p.inbox, PAIR_CONSUMER, PAIR_EPOCH);
    ck_assert_uint_eq(allocated_bytes(), PLS_PAGE_BYTES);
    ck_assert_int_eq(pls_outbox_attach(p.peer, 5, 1, 16384, &p.outbox), PLS_OK);
    ck_assert_uint_eq(allocated_bytes(), 2 * PLS_PAGE_BYTES + 16384);
    ck_assert(pls_outbox_check(p.outbox));
    ck_assert_uint_eq(pls_outbox_payload_max(p.outbox), 8192 - 16);
    pair_detach(&p);
    ck_assert_int_eq(pls_inbox_close_ring(p.inbox, 5), PLS_OK);
    ck_assert_uint_le(allocated_bytes(), 2 * PLS_PAGE_BYTES);
}
END_TEST

START_TEST(test_second_outbox_of_a_peer_object_is_eexist)
{
    pair_attach(&p, 5, 1, 4096);
    pls_outbox *second = NULL;
    ck_assert_int_eq(pls_outbox_attach(p.peer, 6, 1, 4096, &second), PLS_EEXIST);
    ck_assert_ptr_null(second);
}
END_TEST

START_TEST(test_ring_left_in_creation_by_a_dead_is_reset_by_its_consumer)
{
    uint8_t *base = (uint8_t *)pls_inbox_header_of(p.inbox) + PLS_INBOX_RINGS_OFFSET +
                    5 * (size_t)PLS_RING_SPAN_BYTES;
    pls_ring_control *control = (pls_ring_control *)(void *)base;
    atomic_store(&control->state, PLS_RING_CREATING | 1 << 8);
    pls_inbox_look(p.inbox, 5);
    pls_message message;
    ck_assert_int_eq(pls_inbox_pop(p.inbox, &message), PLS_EEMPTY);
    ck_assert(pls_inbox_drained(p.inbox, 5));
    ck_assert_int_eq(pls_inbox_close_ring(p.inbox, 5), PLS_OK);
    pair_attach(&p, 5, 2, 4096);
}
END_TEST

START_TEST(test_foreign_memory_is_refused)
{
    pls_peer *peer = NULL;
    int eventfd = pls_inbox_eventfd(p.inbox);
    int unsealed = memfd_create("t", MFD_ALLOW_SEALING);
    ck_assert_int_eq(ftruncate(unsealed, PLS_INBOX_BYTES), 0);
    ck_assert_int_eq(pls_peer_attach(unsealed, eventfd, 7, 3, &peer), PLS_EPROTO);
    ck_assert_int_eq(fcntl(unsealed, F_ADD_SEALS, F_SEAL_SHRINK), 0);
    ck_assert_int_eq(pls_peer_attach(unsealed, eventfd, 7, 3, &peer), PLS_EPROTO);
    close(unsealed);
    int small = memfd_create("t", MFD_ALLOW_SEALING);
    ck_assert_int_eq(ftruncate(small, PLS_PAGE_BYTES), 0);
    ck_assert_int_eq(fcntl(small, F_ADD_SEALS, F_SEAL_SHRINK), 0);
    ck_assert_int_eq(pls_peer_attach(small, eventfd, 7, 3, &peer), PLS_EVERSION);
    close(small);
    int null = open("/dev/null", O_RDWR);
    ck_assert_int_eq(pls_peer_attach(null, eventfd, 7, 3, &peer), PLS_EPROTO);
    close(null);
    int memfd = pls_inbox_memfd(p.inbox);
    ck_assert_int_eq(pls_peer_attach(memfd, eventfd, 8, 3, &peer), PLS_EPROTO);
    ck_assert_int_eq(pls_peer_attach(memfd, eventfd, 7, 4, &peer), PLS_EPROTO);
    pls_inbox_header_of(p.inbox)->layout_hash++;
    ck_assert_int_eq(pls_peer_attach(memfd, eventfd, 7, 3, &peer), PLS_EVERSION);
    ck_assert_ptr_null(peer);
}
END_TEST

START_TEST(test_peer_lives_until_its_last_reference)
{
    pair_attach(&p, 5, 1, 4096);
    pls_peer *peer = pls_outbox_peer(p.outbox);
    ck_assert_uint_eq(pls_peer_slot(peer), PAIR_CONSUMER);
    ck_assert_uint_eq(pls_peer_epoch(peer), PAIR_EPOCH);
    pls_peer_release(p.peer);
    p.peer = NULL;
    ck_assert(pls_peer_check(peer));
    ck_assert_int_eq(pair_send(p.outbox, 3, 3), PLS_OK);
    ck_assert(!pls_outbox_wake(p.outbox));
}
END_TEST

/* A forked child does not see control memory at all, so it cannot write what its parent owns. */
START_TEST(test_forked_child_has_no_control_memory)
{
    pair_attach(&p, 5, 1, 4096);
    pid_t child = fork();
    if (child == 0) {
        /* A sanitizer would report what is meant to happen. */
        signal(SIGSEGV, SIG_DFL);
        (void)!pair_send(p.outbox, 3, 3);
        _exit(0);
    }
    int status = 0;
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    ck_assert(!WIFEXITED(status) || WEXITSTATUS(status) != 0);
    ck_assert_int_eq(pair_send(p.outbox, 3, 3), PLS_OK);
}
END_TEST

START_TEST(test_committing_the_pad_type_aborts)
{
    uint8_t *room = NULL;
    pair_attach(&p, 5, 1, 4096);
    (void)!pls_outbox_reserve(p.outbox, 1, &room);
    pls_outbox_commit(p.outbox, 1, PLS_RECORD_PAD, 0, 0);
}
END_TEST

START_TEST(test_unknown_flag_aborts)
{
    uint8_t *room = NULL;
    pair_attach(&p, 5, 1, 4096);
    (void)!pls_outbox_reserve(p.outbox, 1, &room);
    pls_outbox_commit(p.outbox, 1, 1, 0x0080, 0);
}
END_TEST

START_TEST(test_odd_capacity_aborts)
{
    p.peer = pair_peer(p.inbox, PAIR_CONSUMER, PAIR_EPOCH);
    (void)!pls_outbox_attach(p.peer, 5, 1, 5000, &p.outbox);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("shm.outbox");
    TCase *tcase = tcase_create("outbox");
    tcase_set_timeout(tcase, 60);
    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_add_test(tcase, test_a_silent_pair_costs_no_memory_and_a_ring_its_capacity);
    tcase_add_test(tcase, test_second_outbox_of_a_peer_object_is_eexist);
    tcase_add_test(tcase, test_ring_left_in_creation_by_a_dead_is_reset_by_its_consumer);
    tcase_add_test(tcase, test_foreign_memory_is_refused);
    tcase_add_test(tcase, test_peer_lives_until_its_last_reference);
    tcase_add_test(tcase, test_forked_child_has_no_control_memory);
    tcase_add_test_raise_signal(tcase, test_committing_the_pad_type_aborts, SIGABRT);
    tcase_add_test_raise_signal(tcase, test_unknown_flag_aborts, SIGABRT);
    tcase_add_test_raise_signal(tcase, test_odd_capacity_aborts, SIGABRT);
    suite_add_tcase(suite, tcase);
    return check_run(suite);
}
