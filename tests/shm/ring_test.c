/* SPDX-License-Identifier: Apache-2.0 */
#include "shm/ring.h"

#include "base/rng.h"
#include "tests/check_run.h"

#include <check.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#define CAPACITY 4096

typedef struct fixture {
    pls_ring_control control;
    _Alignas(16) uint8_t data[CAPACITY];
    pls_ring_producer producer;
    pls_ring_consumer consumer;
} fixture;

static fixture *ring;

static void setup(void)
{
    ring = aligned_alloc(PLS_LINE_BYTES, (sizeof *ring + 127) / 128 * 128);
    memset(ring, 0, sizeof *ring);
    pls_ring_producer_init(&ring->producer, &ring->control, ring->data, CAPACITY);
    pls_ring_consumer_init(&ring->consumer, &ring->control, ring->data, CAPACITY);
}

static void teardown(void)
{
    free(ring);
}

static pls_err send(uint32_t len, uint8_t fill)
{
    uint8_t *room = NULL;
    pls_err err = pls_ring_reserve(&ring->producer, len, &room);
    if (err == PLS_OK) {
        memset(room, fill, len);
        pls_record header = {.len = len, .type = 1};
        pls_ring_commit(&ring->producer, &header);
    }
    return err;
}

static pls_err receive(pls_record *header, uint8_t *fill)
{
    const uint8_t *payload = NULL;
    pls_err err = pls_ring_next(&ring->consumer, header, &payload);
    if (err == PLS_OK) {
        *fill = header->len > 0 ? payload[0] : 0;
        bool whole = true;
        for (uint32_t i = 0; i < header->len; i++) {
            whole = whole && payload[i] == *fill;
        }
        ck_assert(whole);
        (void)!pls_ring_release(&ring->consumer);
    }
    return err;
}

START_TEST(test_messages_of_all_sizes_arrive_in_order_and_whole)
{
    pls_rng rng;
    pls_rng_init(&rng, 11);
    uint32_t sent = 0;
    uint32_t received = 0;
    uint32_t lens[64];
    while (received < 20000) {
        uint32_t len = pls_rng_below(&rng, pls_ring_payload_max(CAPACITY) + 1);
        if (pls_rng_chance(&rng, 3, 4)) {
            len = pls_rng_below(&rng, 80);
        }
        if (sent - received < 64 && send(len, (uint8_t)(sent + 1)) == PLS_OK) {
            lens[sent++ % 64] = len;
        }
        pls_record header;
        uint8_t fill = 0;
        while (pls_rng_chance(&rng, 1, 2) && receive(&header, &fill) == PLS_OK) {
            ck_assert_uint_eq(header.seq, received);
            ck_assert_uint_eq(header.len, lens[received % 64]);
            received++;
            ck_assert(header.len == 0 || fill == (uint8_t)received);
        }
        ck_assert(pls_ring_producer_check(&ring->producer));
        ck_assert(pls_ring_consumer_check(&ring->consumer));
    }
}
END_TEST

START_TEST(test_push_on_full_returns_efull_and_changes_nothing)
{
    uint32_t count = 0;
    while (send(48, (uint8_t)count) == PLS_OK) {
        count++;
    }
    ck_assert_uint_eq(count, CAPACITY / 64);
    ck_assert_uint_eq(pls_ring_backlog_bytes(&ring->producer), CAPACITY);
    ck_assert_int_eq(send(0, 0), PLS_EFULL);
    pls_record header;
    uint8_t fill = 0;
    for (uint32_t i = 0; i < count; i++) {
        ck_assert_int_eq(receive(&header, &fill), PLS_OK);
        ck_assert_uint_eq(fill, i);
    }
    ck_assert_int_eq(receive(&header, &fill), PLS_EEMPTY);
}
END_TEST

START_TEST(test_longest_payload_always_fits_an_empty_ring)
{
    uint32_t max = pls_ring_payload_max(CAPACITY);
    pls_record header;
    uint8_t fill = 0;
    for (uint32_t i = 0; i < CAPACITY / 16; i++) {
        ck_assert_int_eq(send(0, 0), PLS_OK);
        ck_assert_int_eq(receive(&header, &fill), PLS_OK);
        ck_assert_int_eq(send(max, 9), PLS_OK);
        ck_assert_int_eq(receive(&header, &fill), PLS_OK);
        ck_assert_uint_eq(header.len, max);
    }
}
END_TEST

START_TEST(test_uncommitted_reservation_is_never_seen)
{
    uint8_t *room = NULL;
    pls_record header;
    uint8_t fill = 0;
    ck_assert_int_eq(pls_ring_reserve(&ring->producer, 100, &room), PLS_OK);
    memset(room, 0xee, 100);
    ck_assert_int_eq(receive(&header, &fill), PLS_EEMPTY);
    ck_assert_int_eq(send(10, 5), PLS_OK);
    ck_assert_int_eq(receive(&header, &fill), PLS_OK);
    ck_assert_uint_eq(header.len, 10);
    ck_assert_uint_eq(fill, 5);
}
END_TEST

START_TEST(test_commit_may_be_shorter_than_reserved)
{
    uint8_t *room = NULL;
    pls_record header = {.len = 3, .type = 2, .flags = 0x0100, .sent = 77};
    ck_assert_int_eq(pls_ring_reserve(&ring->producer, 1000, &room), PLS_OK);
    memset(room, 1, 3);
    pls_ring_commit(&ring->producer, &header);
    ck_assert_uint_eq(ring->control.tail, 32);
    uint8_t fill = 0;
    ck_assert_int_eq(receive(&header, &fill), PLS_OK);
    ck_assert_uint_eq(header.len, 3);
    ck_assert_uint_eq(header.type, 2);
    ck_assert_uint_eq(header.flags, 0x0100);
    ck_assert_uint_eq(header.sent, 77);
}
END_TEST

START_TEST(test_waiting_producer_is_taken_over_once_half_is_free)
{
    while (send(240, 1) == PLS_OK) {
    }
    ck_assert(pls_ring_want_space(&ring->producer, 240));
    const uint8_t *payload = NULL;
    pls_record header;
    for (uint32_t i = 1; i <= CAPACITY / 256; i++) {
        ck_assert_int_eq(pls_ring_next(&ring->consumer, &header, &payload), PLS_OK);
        bool told = pls_ring_release(&ring->consumer);
        ck_assert_int_eq(told, i == CAPACITY / 256 / 2);
    }
    ck_assert(!pls_ring_take_waiting(&ring->consumer));
    ck_assert(!pls_ring_want_space(&ring->producer, 240));
    ck_assert_uint_eq(ring->control.producer_waiting, 0);
}
END_TEST

typedef struct forgery {
    const char *what;
    uint32_t len;
    uint16_t type;
    uint16_t flags;
    uint32_t seq;
    uint64_t tail;
} forgery;

/* A correct record here is {16, 1, 0, 0} with tail 32. */
static const forgery forgeries[] = {
    {"length beyond tail", 17, 1, 0, 0, 32},
    {"length beyond the ring", CAPACITY + 1, 1, 0, 0, 32},
    {"length that overflows", 0xffffffff, 1, 0, 0, 32},
    {"length that overflows when aligned", 0xfffffff0, 1, 0, 0, 32},
    {"type 0", 16, 0, 0, 0, 32},
    {"unknown flag of this room", 16, 1, 0x0080, 0, 32},
    {"trace announced but too short", 16, 1, PLS_FLAG_TRACE, 0, 32},
    {"descriptor announced but too short", 16, 1, PLS_FLAG_DESCRIPTOR, 0, 32},
    {"sequence number skipped", 16, 1, 0, 1, 32},
    {"tail not aligned", 16, 1, 0, 0, 33},
    {"tail beyond capacity", 16, 1, 0, 0, CAPACITY + 16},
    {"tail behind head", 16, 1, 0, 0, (uint64_t)-16},
    {"pad that does not reach the end", 16, PLS_RECORD_PAD, 0, 0, 64},
    {"pad with nothing after it", CAPACITY - 16, PLS_RECORD_PAD, 0, 0, CAPACITY},
    {"pad with flags", CAPACITY - 16, PLS_RECORD_PAD, 0x0100, 0, CAPACITY},
};

START_TEST(test_forged_field_is_ecorrupt)
{
    const forgery *f = &forgeries[_i];
    pls_record header = {.len = f->len, .type = f->type, .flags = f->flags, .seq = f->seq};
    const uint8_t *payload = NULL;
    memcpy(ring->data, &header, sizeof header);
    atomic_store(&ring->control.tail, f->tail);
    pls_err err = pls_ring_next(&ring->consumer, &header, &payload);
    ck_assert_msg(err == PLS_ECORRUPT, "%s gave %s", f->what, pls_err_name(err));
    /* It stays so, even if the bytes become right. */
    atomic_store(&ring->control.tail, 0);
    ck_assert_int_eq(pls_ring_next(&ring->consumer, &header, &payload), PLS_ECORRUPT);
    ck_assert(pls_ring_consumer_check(&ring->consumer));
}
END_TEST

START_TEST(test_record_that_wraps_is_ecorrupt)
{
    pls_record header;
    uint8_t fill = 0;
    for (int i = 0; i < 3; i++) {
        ck_assert_int_eq(send(CAPACITY / 4 - 16, 1), PLS_OK);
        ck_assert_int_eq(receive(&header, &fill), PLS_OK);
    }
    /* Position 3/4; a record of half the ring crosses the end. */
    pls_record forged = {.len = CAPACITY / 2 - 16, .type = 1, .seq = 3};
    const uint8_t *payload = NULL;
    memcpy(ring->data + CAPACITY / 4 * 3, &forged, sizeof forged);
    atomic_store(&ring->control.tail, CAPACITY / 4 * 5);
    ck_assert_int_eq(pls_ring_next(&ring->consumer, &header, &payload), PLS_ECORRUPT);
}
END_TEST

START_TEST(test_second_pad_is_ecorrupt)
{
    pls_record header;
    uint8_t fill = 0;
    for (int i = 0; i < 3; i++) {
        ck_assert_int_eq(send(CAPACITY / 4 - 16, 1), PLS_OK);
        ck_assert_int_eq(receive(&header, &fill), PLS_OK);
    }
    pls_record pad = {.len = CAPACITY / 4 - 16, .type = PLS_RECORD_PAD};
    memcpy(ring->data + CAPACITY / 4 * 3, &pad, sizeof pad);
    pls_record again = {.len = CAPACITY - 16, .type = PLS_RECORD_PAD};
    memcpy(ring->data, &again, sizeof again);
    atomic_store(&ring->control.tail, CAPACITY / 4 * 7);
    const uint8_t *payload = NULL;
    ck_assert_int_eq(pls_ring_next(&ring->consumer, &header, &payload), PLS_ECORRUPT);
}
END_TEST

START_TEST(test_forged_head_is_ecorrupt_for_the_producer)
{
    static const uint64_t heads[] = {CAPACITY + 16, (uint64_t)-16, 8};
    while (send(48, 1) == PLS_OK) {
    }
    atomic_store(&ring->control.head, heads[_i]);
    ck_assert_int_eq(send(48, 1), PLS_ECORRUPT);
    atomic_store(&ring->control.head, CAPACITY);
    ck_assert_int_eq(send(48, 1), PLS_ECORRUPT);
}
END_TEST

#define THREADED_MESSAGES 50000

static void *produce(void *context)
{
    for (uint32_t i = 0; i < THREADED_MESSAGES;) {
        if (send(i % 200, (uint8_t)i) == PLS_OK) {
            i++;
        } else {
            sched_yield();
        }
    }
    return NULL;
}

/* One mapping and threads, so that ThreadSanitizer sees both sides. */
START_TEST(test_threads_see_only_whole_messages)
{
    pthread_t thread;
    ck_assert_int_eq(pthread_create(&thread, NULL, produce, NULL), 0);
    for (uint32_t i = 0; i < THREADED_MESSAGES;) {
        pls_record header;
        uint8_t fill = 0;
        pls_err err = receive(&header, &fill);
        ck_assert(err == PLS_OK || err == PLS_EEMPTY);
        if (err == PLS_OK) {
            ck_assert_uint_eq(header.seq, i);
            ck_assert_uint_eq(header.len, i % 200);
            ck_assert(header.len == 0 || fill == (uint8_t)i);
            i++;
        } else {
            sched_yield();
        }
    }
    pthread_join(thread, NULL);
}
END_TEST

START_TEST(test_reserving_too_much_aborts)
{
    uint8_t *room = NULL;
    (void)!pls_ring_reserve(&ring->producer, pls_ring_payload_max(CAPACITY) + 1, &room);
}
END_TEST

START_TEST(test_commit_without_reserve_aborts)
{
    pls_record header = {.len = 0, .type = 1};
    pls_ring_commit(&ring->producer, &header);
}
END_TEST

START_TEST(test_commit_of_more_than_reserved_aborts)
{
    uint8_t *room = NULL;
    pls_record header = {.len = 11, .type = 1};
    (void)!pls_ring_reserve(&ring->producer, 10, &room);
    pls_ring_commit(&ring->producer, &header);
}
END_TEST

START_TEST(test_next_before_release_aborts)
{
    pls_record header;
    const uint8_t *payload = NULL;
    (void)!send(1, 1);
    (void)!pls_ring_next(&ring->consumer, &header, &payload);
    (void)!pls_ring_next(&ring->consumer, &header, &payload);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("shm.ring");
    TCase *tcase = tcase_create("ring");
    tcase_set_timeout(tcase, 60);
    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_add_test(tcase, test_messages_of_all_sizes_arrive_in_order_and_whole);
    tcase_add_test(tcase, test_push_on_full_returns_efull_and_changes_nothing);
    tcase_add_test(tcase, test_longest_payload_always_fits_an_empty_ring);
    tcase_add_test(tcase, test_uncommitted_reservation_is_never_seen);
    tcase_add_test(tcase, test_commit_may_be_shorter_than_reserved);
    tcase_add_test(tcase, test_waiting_producer_is_taken_over_once_half_is_free);
    tcase_add_loop_test(tcase, test_forged_field_is_ecorrupt, 0,
                        (int)(sizeof forgeries / sizeof forgeries[0]));
    tcase_add_test(tcase, test_record_that_wraps_is_ecorrupt);
    tcase_add_test(tcase, test_second_pad_is_ecorrupt);
    tcase_add_loop_test(tcase, test_forged_head_is_ecorrupt_for_the_producer, 0, 3);
    tcase_add_test(tcase, test_threads_see_only_whole_messages);
    tcase_add_test_raise_signal(tcase, test_reserving_too_much_aborts, SIGABRT);
    tcase_add_test_raise_signal(tcase, test_commit_without_reserve_aborts, SIGABRT);
    tcase_add_test_raise_signal(tcase, test_commit_of_more_than_reserved_aborts, SIGABRT);
    tcase_add_test_raise_signal(tcase, test_next_before_release_aborts, SIGABRT);
    suite_add_tcase(suite, tcase);
    return check_run(suite);
}
