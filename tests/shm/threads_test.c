/* SPDX-License-Identifier: Apache-2.0 */
/* Inbox and outboxes in one process with threads, over one mapping of the memory, so that
 * ThreadSanitizer sees both sides of every word. The linker sends the room's mapping calls here:
 * once the inbox has mapped the whole file, everybody else gets a place inside that mapping. */
#include "shm/segment.h"
#include "tests/shm/pair.h"

#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>

#define PRODUCERS 3
#define MESSAGES 40000

pls_err __real_pls_segment_map(pls_segment *segment, int fd, uint64_t offset, uint64_t bytes,
                               unsigned mode);
pls_err __wrap_pls_segment_map(pls_segment *segment, int fd, uint64_t offset, uint64_t bytes,
                               unsigned mode);
void __real_pls_segment_detach(pls_segment *segment);
void __wrap_pls_segment_detach(pls_segment *segment);

static uint8_t *whole;

pls_err __wrap_pls_segment_map(pls_segment *segment, int fd, uint64_t offset, uint64_t bytes,
                               unsigned mode)
{
    if (whole == NULL) {
        pls_err err = __real_pls_segment_map(segment, fd, offset, bytes, mode);
        whole = segment->base;
        return err;
    }
    segment->base = whole + offset;
    segment->bytes = bytes;
    return PLS_OK;
}

void __wrap_pls_segment_detach(pls_segment *segment)
{
    if (segment->base == whole && segment->bytes == PLS_INBOX_BYTES) {
        __real_pls_segment_detach(segment);
        whole = NULL;
    } else if (segment->fd >= 0) {
        close(segment->fd);
    }
    *segment = PLS_SEGMENT_EMPTY;
}

static pls_inbox *inbox;

static void *produce(void *context)
{
    uint32_t slot = *(const uint32_t *)context;
    pair p = {.inbox = inbox};
    pair_attach(&p, slot, 1, 4096);
    for (uint32_t i = 0; i < MESSAGES;) {
        if (pair_send(p.outbox, 4 + i % 100, (uint8_t)i) == PLS_OK) {
            i++;
            if (i % 4 == 0) {
                pls_outbox_wake(p.outbox);
            }
        } else {
            pls_outbox_wake(p.outbox);
            sched_yield();
        }
    }
    pls_outbox_wake(p.outbox);
    pair_detach(&p);
    return NULL;
}

START_TEST(test_threads_over_one_mapping_race_nowhere)
{
    pthread_t threads[PRODUCERS];
    uint32_t slots[PRODUCERS] = {0, 100, 255};
    uint32_t next[PLS_SLOTS_MAX] = {0};
    ck_assert_int_eq(pls_inbox_create(PAIR_CONSUMER, PAIR_EPOCH, &inbox), PLS_OK);
    for (int i = 0; i < PRODUCERS; i++) {
        ck_assert_int_eq(pthread_create(&threads[i], NULL, produce, &slots[i]), 0);
    }
    for (uint32_t received = 0; received < PRODUCERS * MESSAGES;) {
        pls_message message;
        while (pls_inbox_pop(inbox, &message) == PLS_OK) {
            ck_assert_uint_eq(message.seq, next[message.from_slot]);
            ck_assert_uint_eq(message.len, 4 + message.seq % 100);
            ck_assert(pair_filled(message.bytes, message.len, (uint8_t)message.seq));
            next[message.from_slot]++;
            received++;
            pls_inbox_release(inbox);
        }
        if (received < PRODUCERS * MESSAGES && pls_inbox_arm(inbox)) {
            struct pollfd descriptor = {.fd = pls_inbox_eventfd(inbox), .events = POLLIN};
            ck_assert_int_eq(poll(&descriptor, 1, 10000), 1);
            pls_inbox_disarm(inbox, true);
        }
    }
    for (int i = 0; i < PRODUCERS; i++) {
        ck_assert_int_eq(pthread_join(threads[i], NULL), 0);
    }
    ck_assert(pls_inbox_check(inbox));
    pls_inbox_destroy(inbox);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("shm.threads");
    TCase *tcase = tcase_create("threads");
    tcase_set_timeout(tcase, 100);
    tcase_add_test(tcase, test_threads_over_one_mapping_race_nowhere);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
