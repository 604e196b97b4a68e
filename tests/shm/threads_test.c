/* SPDX-License-Identifier: Apache-2.0 */
/* Inbox and outboxes in one process with threads, over one mapping of the memory, so that
 * ThreadSanitizer sees both sides of every word. The linker sends the room's mapping calls here:
 * once the inbox has mapped the whole file, everybody else gets a place inside that mapping. */
#include "shm/segment.h"
#include "tests/check_run.h"
#include "tests/shm/shelf.h"

#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/stat.h>

#define PRODUCERS 3
#define MESSAGES 40000

pls_err __real_pls_segment_map(pls_segment *segment, int fd, uint64_t offset, uint64_t bytes,
                               unsigned mode);
pls_err __wrap_pls_segment_map(pls_segment *segment, int fd, uint64_t offset, uint64_t bytes,
                               unsigned mode);
void __wrap_pls_segment_detach(pls_segment *segment);

/* Files by their inode, and where their owner has mapped them whole. */
#define FILES_MAX 64
static struct {
    ino_t inode;
    uint8_t *base;
    uint64_t bytes;
} files[FILES_MAX];
static pthread_mutex_t files_lock = PTHREAD_MUTEX_INITIALIZER;

pls_err __wrap_pls_segment_map(pls_segment *segment, int fd, uint64_t offset, uint64_t bytes,
                               unsigned mode)
{
    struct stat info;
    pls_err err = PLS_OK;
    if (fstat(fd, &info) != 0) {
        return PLS_ESYS;
    }
    pthread_mutex_lock(&files_lock);
    int at = 0;
    while (files[at].inode != 0 && files[at].inode != info.st_ino) {
        at++;
    }
    if (files[at].inode == 0) {
        err = __real_pls_segment_map(segment, fd, offset, bytes, mode);
        files[at].inode = info.st_ino;
        files[at].base = segment->base;
        files[at].bytes = bytes;
    } else {
        segment->base = files[at].base + offset;
        segment->bytes = bytes;
    }
    pthread_mutex_unlock(&files_lock);
    return err;
}

/* Only the owner's segment has the whole mapping and a descriptor. What it leaves stays mapped
 * until the test ends, since others may still use their part. */
void __wrap_pls_segment_detach(pls_segment *segment)
{
    if (segment->fd >= 0) {
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
        pls_err err;
        while ((err = pls_inbox_pop(inbox, &message)) == PLS_OK) {
            ck_assert_uint_eq(message.seq, next[message.from_slot]);
            ck_assert_uint_eq(message.len, 4 + message.seq % 100);
            ck_assert(pair_filled(message.bytes, message.len, (uint8_t)message.seq));
            next[message.from_slot]++;
            received++;
            pls_inbox_release(inbox);
        }
        ck_assert_int_eq(err, PLS_EEMPTY);
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

#define RECEIVERS 2
#define LOANS 20000

/* A receiver of payloads: its inbox, and the owner of the arena as it sees it. */
typedef struct reader {
    pls_inbox *inbox;
    pls_peer *owner;
    pls_views *views;
    uint32_t slot;
} reader;

static void *read_and_return(void *context)
{
    reader *r = context;
    for (uint32_t received = 0; received < LOANS;) {
        pls_message message;
        while (pls_inbox_pop(r->inbox, &message) == PLS_OK) {
            pls_descriptor descriptor;
            pls_lease lease;
            memcpy(&descriptor, message.bytes, sizeof descriptor);
            uint8_t fill = message.bytes[sizeof descriptor];
            ck_assert_int_eq(pls_lease_open(r->views, r->owner, r->slot, &descriptor, &lease),
                             PLS_OK);
            pls_inbox_release(r->inbox);
            ck_assert(pair_filled(lease.bytes, (uint32_t)lease.len, fill));
            pls_lease_return(&lease);
            received++;
        }
        if (received < LOANS && pls_inbox_arm(r->inbox)) {
            struct pollfd descriptor = {.fd = pls_inbox_eventfd(r->inbox), .events = POLLIN};
            ck_assert_int_eq(poll(&descriptor, 1, 10000), 1);
            pls_inbox_disarm(r->inbox, true);
        }
    }
    return NULL;
}

/* A block for everybody; waits for returns whenever the small budget is spent. */
static pls_block *block_wait(stand *s, uint64_t bytes)
{
    pls_block *block = NULL;
    while (pls_arena_alloc(s->arena, bytes, &block) != PLS_OK) {
        if (pls_arena_want_returns(s->arena)) {
            continue;
        }
        if (pls_inbox_arm(s->inbox)) {
            struct pollfd descriptor = {.fd = pls_inbox_eventfd(s->inbox), .events = POLLIN};
            ck_assert_int_eq(poll(&descriptor, 1, 10000), 1);
            pls_inbox_disarm(s->inbox, true);
        }
    }
    return block;
}

static void loan_send(stand *s, pls_outbox *outbox, pls_block *block, pls_arena_loan loan,
                      uint8_t fill)
{
    uint8_t *room = NULL;
    pls_descriptor descriptor;
    while (pls_arena_lend(s->arena, block, &loan, &descriptor) != PLS_OK) {
        sched_yield();
    }
    while (pls_outbox_reserve(outbox, sizeof descriptor + 1, &room) != PLS_OK) {
        pls_outbox_wake(outbox);
        sched_yield();
    }
    memcpy(room, &descriptor, sizeof descriptor);
    room[sizeof descriptor] = fill;
    pls_outbox_commit(outbox, sizeof descriptor + 1, 1, PLS_FLAG_DESCRIPTOR, 0);
    pls_outbox_wake(outbox);
}

START_TEST(test_payloads_are_written_read_and_reused_without_a_race)
{
    stand s;
    reader readers[RECEIVERS];
    pls_outbox *outboxes[RECEIVERS];
    pthread_t threads[RECEIVERS];
    stand_open(&s, 200 * 1024, 0);
    for (uint32_t i = 0; i < RECEIVERS; i++) {
        reader *r = &readers[i];
        pls_peer *peer = NULL;
        r->slot = 20 + i;
        ck_assert_int_eq(pls_inbox_create(r->slot, 1, &r->inbox), PLS_OK);
        peer = pair_peer(r->inbox, r->slot, 1);
        ck_assert_int_eq(pls_outbox_attach(peer, STAND_OWNER, 1, 4096, &outboxes[i]), PLS_OK);
        pls_peer_release(peer);
        r->owner = pair_peer(s.inbox, STAND_OWNER, 1);
        ck_assert_int_eq(pls_views_create(shelf_resolve, &s.shelf, &r->views), PLS_OK);
        ck_assert_int_eq(pthread_create(&threads[i], NULL, read_and_return, r), 0);
    }
    for (uint32_t n = 0; n < LOANS; n++) {
        uint64_t bytes = 4000 + n % 3 * 4000;
        pls_block *block = block_wait(&s, bytes);
        memset(block->base, (uint8_t)n, bytes);
        for (uint32_t i = 0; i < RECEIVERS; i++) {
            pls_arena_loan loan = {.len = bytes, .slot = 20 + i, .epoch = 1};
            loan_send(&s, outboxes[i], block, loan, (uint8_t)n);
        }
        pls_arena_unhold(s.arena, block);
    }
    for (uint32_t i = 0; i < RECEIVERS; i++) {
        ck_assert_int_eq(pthread_join(threads[i], NULL), 0);
    }
    (void)pls_arena_collect(s.arena);
    pls_arena_stats stats = stand_stats(&s);
    ck_assert_uint_eq(stats.returned_total, RECEIVERS * LOANS);
    ck_assert_uint_eq(stats.blocks_count, 0);
    ck_assert_uint_gt(stats.refused_total, 0);
    for (uint32_t i = 0; i < RECEIVERS; i++) {
        pls_outbox_detach(outboxes[i]);
        pls_views_destroy(readers[i].views);
        pls_peer_release(readers[i].owner);
        pls_inbox_destroy(readers[i].inbox);
    }
    stand_close(&s);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("shm.threads");
    TCase *tcase = tcase_create("threads");
    tcase_set_timeout(tcase, 100);
    tcase_add_test(tcase, test_threads_over_one_mapping_race_nowhere);
    tcase_add_test(tcase, test_payloads_are_written_read_and_reused_without_a_race);
    suite_add_tcase(suite, tcase);
    return check_run(suite);
}
