/* SPDX-License-Identifier: Apache-2.0 */
/* Two processes. Busy senders hide a lost wake-up, because the next message rings again; so here is
 * one quiet producer whose consumer really goes to sleep before every burst. */
#include "base/rng.h"
#include "tests/check_run.h"
#include "tests/shm/pair.h"

#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>

/* What the two tell each other beside the memory under test. */
typedef struct score {
    _Atomic uint64_t received;
    _Atomic uint64_t sleeps;
    _Atomic uint64_t rechecks;
    _Atomic uint64_t stop;
} score;

static pair p;
static score *shared;

static void setup(void)
{
    memset(&p, 0, sizeof p);
    ck_assert_int_eq(pls_inbox_create(PAIR_CONSUMER, PAIR_EPOCH, &p.inbox), PLS_OK);
    shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    ck_assert_ptr_ne(shared, MAP_FAILED);
}

static void teardown(void)
{
    pls_inbox_destroy(p.inbox);
    munmap(shared, sizeof *shared);
}

static uint64_t now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

/* Two processes on one processor never meet in the few instructions that matter. */
static void pin(int which)
{
    cpu_set_t allowed;
    ck_assert_int_eq(sched_getaffinity(0, sizeof allowed, &allowed), 0);
    int skip = which % CPU_COUNT(&allowed);
    for (int cpu = 0; cpu < CPU_SETSIZE; cpu++) {
        if (CPU_ISSET(cpu, &allowed) && skip-- == 0) {
            cpu_set_t one;
            CPU_ZERO(&one);
            CPU_SET(cpu, &one);
            ck_assert_int_eq(sched_setaffinity(0, sizeof one, &one), 0);
            return;
        }
    }
}

static bool signalled_sleep(void)
{
    struct pollfd descriptor = {.fd = pls_inbox_eventfd(p.inbox), .events = POLLIN};
    return poll(&descriptor, 1, 1000) > 0;
}

static void owed_pay(void)
{
    pls_bitmap owed;
    if (pls_inbox_take_owed(p.inbox, &owed)) {
        pls_peer *peer = pair_peer(p.inbox, PAIR_CONSUMER, PAIR_EPOCH);
        pls_peer_ring_space(peer, PAIR_CONSUMER);
        pls_peer_release(peer);
    }
}

/* The loop that inbox.h describes, until `stop`. */
static void consume(void)
{
    pls_bitmap taken;
    uint32_t seq = 0;
    while (atomic_load(&shared->stop) == 0) {
        pls_message message;
        pls_err err;
        while ((err = pls_inbox_pop(p.inbox, &message)) == PLS_OK) {
            if (message.seq != seq++ || message.bytes[0] != (uint8_t)message.seq) {
                abort();
            }
            pls_inbox_release(p.inbox);
            atomic_fetch_add(&shared->received, 1);
        }
        ck_assert_int_eq(err, PLS_EEMPTY);
        pls_inbox_take_space(p.inbox, &taken);
        pls_inbox_take_dead(p.inbox, &taken);
        owed_pay();
        if (pls_inbox_arm(p.inbox)) {
            if (signalled_sleep()) {
                pls_inbox_disarm(p.inbox, true);
            } else {
                pls_inbox_disarm_timeout(p.inbox);
            }
            atomic_fetch_add(&shared->sleeps, 1);
        }
        atomic_store(&shared->rechecks, pls_inbox_recheck_found_work(p.inbox));
    }
}

static void spin(uint32_t turns)
{
    for (volatile uint32_t i = 0; i < turns; i++) {
    }
}

/* Bursts of one to three, then wait until they are taken; gaps from nothing to some microseconds.
 */
static void produce(uint64_t duration_ms)
{
    pls_rng rng;
    pls_rng_init(&rng, 5);
    pair_attach(&p, PAIR_PRODUCER, 1, 4096);
    uint64_t end_ms = now_ms() + duration_ms;
    uint64_t sent = 0;
    while (now_ms() < end_ms) {
        for (uint32_t burst = 1 + pls_rng_below(&rng, 3); burst > 0; burst--) {
            ck_assert_int_eq(pair_send(p.outbox, 8, (uint8_t)sent), PLS_OK);
            pls_outbox_wake(p.outbox);
            sent++;
            spin(pls_rng_below(&rng, 400));
        }
        uint64_t limit_ms = now_ms() + 3000;
        while (atomic_load(&shared->received) != sent) {
            ck_assert_uint_lt(now_ms(), limit_ms);
        }
        spin(pls_rng_below(&rng, 3000));
    }
    ck_assert(pls_outbox_check(p.outbox));
}

/* Three seconds, or what the environment asks for: a broken build may need a minute to be caught.
 */
static uint64_t quiet_ms(void)
{
    const char *wanted = getenv("PLS_TEST_QUIET_MS");
    return wanted != NULL ? strtoull(wanted, NULL, 10) : 3000;
}

START_TEST(test_quiet_pair_never_loses_a_wake_up)
{
    pid_t parent = getpid();
    /* The producer is the child: control memory is not inherited, so it attaches its own. */
    pid_t child = fork();
    pin(child == 0 ? 1 : 0);
    if (child == 0) {
        produce(quiet_ms());
        atomic_store(&shared->stop, 1);
        pls_peer_wake(p.peer);
        _exit(getppid() == parent ? 0 : 1);
    }
    consume();
    int status = 0;
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    ck_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    ck_assert_uint_eq(atomic_load(&shared->rechecks), 0);
    /* Thousands on a quiet machine; fewer under a sanitizer on a busy one. */
    uint64_t sleeps = atomic_load(&shared->sleeps);
    ck_assert_uint_gt(sleeps, 100);
}
END_TEST

/* The producer is killed somewhere between its message and its bell; whoever reaps it rings. */
START_TEST(test_message_of_a_killed_producer_is_delivered_at_the_dead_bell)
{
    pls_rng rng;
    pls_rng_init(&rng, 6);
    uint32_t delivered = 0;
    for (uint32_t epoch = 1; epoch <= 300; epoch++) {
        pid_t child = fork();
        if (child == 0) {
            pair_attach(&p, PAIR_PRODUCER, epoch, 4096);
            (void)!pair_send(p.outbox, 8, 1);
            pls_outbox_wake(p.outbox);
            pause();
        }
        bool armed = pls_inbox_arm(p.inbox);
        usleep(100 + pls_rng_below(&rng, 400));
        kill(child, SIGKILL);
        ck_assert_int_eq(waitpid(child, NULL, 0), child);
        pls_peer *self = pair_peer(p.inbox, PAIR_CONSUMER, PAIR_EPOCH);
        pls_peer_ring_dead(self, PAIR_PRODUCER);
        pls_peer_release(self);
        ck_assert(!armed || signalled_sleep());
        pls_inbox_disarm(p.inbox, true);
        pls_bitmap dead;
        pls_message message;
        ck_assert(pls_inbox_take_dead(p.inbox, &dead));
        pls_err err;
        while ((err = pls_inbox_pop(p.inbox, &message)) == PLS_OK) {
            ck_assert_uint_eq(message.from_epoch, epoch);
            ck_assert_uint_eq(message.bytes[7], 1);
            delivered++;
            pls_inbox_release(p.inbox);
        }
        ck_assert_int_eq(err, PLS_EEMPTY);
        ck_assert(pls_inbox_drained(p.inbox, PAIR_PRODUCER));
        ck_assert_int_eq(pls_inbox_close_ring(p.inbox, PAIR_PRODUCER), PLS_OK);
        ck_assert(pls_inbox_check(p.inbox));
    }
    ck_assert_uint_gt(delivered, 0);
    ck_assert_uint_eq(pls_inbox_recheck_found_work(p.inbox), 0);
}
END_TEST

/* Send an inbox's two descriptors to the other process. */
static void descriptors_send(int socket, const pls_inbox *inbox)
{
    int fds[2] = {pls_inbox_memfd(inbox), pls_inbox_eventfd(inbox)};
    _Alignas(struct cmsghdr) char control[CMSG_SPACE(sizeof fds)] = {0};
    char byte = 0;
    struct iovec data = {.iov_base = &byte, .iov_len = 1};
    struct msghdr message = {.msg_iov = &data,
                             .msg_iovlen = 1,
                             .msg_control = control,
                             .msg_controllen = sizeof control};
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof fds);
    memcpy(CMSG_DATA(header), fds, sizeof fds);
    if (sendmsg(socket, &message, 0) != 1) {
        abort();
    }
}

static void descriptors_receive(int socket, int *memfd_out, int *eventfd_out)
{
    int fds[2] = {-1, -1};
    _Alignas(struct cmsghdr) char control[CMSG_SPACE(sizeof fds)];
    char byte = 0;
    struct iovec data = {.iov_base = &byte, .iov_len = 1};
    struct msghdr message = {.msg_iov = &data,
                             .msg_iovlen = 1,
                             .msg_control = control,
                             .msg_controllen = sizeof control};
    ck_assert_int_eq(recvmsg(socket, &message, MSG_CMSG_CLOEXEC), 1);
    ck_assert_ptr_nonnull(CMSG_FIRSTHDR(&message));
    memcpy(fds, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof fds);
    *memfd_out = fds[0];
    *eventfd_out = fds[1];
}

#define SPACE_MESSAGES 20000

/* Sleeps until the consumer says that there is room. Exits with 1 if nobody says so. */
static void sleep_for_space(pls_inbox *own, pls_bitmap *space)
{
    while (!pls_inbox_take_space(own, space)) {
        if (!pls_inbox_arm(own)) {
            continue;
        }
        struct pollfd descriptor = {.fd = pls_inbox_eventfd(own), .events = POLLIN};
        if (poll(&descriptor, 1, 2000) == 0) {
            _exit(1);
        }
        pls_inbox_disarm(own, true);
        atomic_fetch_add(&shared->sleeps, 1);
    }
}

/* The producer's process: sends 1 KiB messages through a 4 KiB ring and sleeps whenever it is full.
 * Exits with 1 if a sleep ever ended by time with room there. */
static void produce_and_sleep(int socket)
{
    pls_inbox *own = NULL;
    if (pls_inbox_create(PAIR_PRODUCER, 1, &own) != PLS_OK) {
        _exit(2);
    }
    descriptors_send(socket, own);
    pair_attach(&p, PAIR_PRODUCER, 1, 4096);
    for (uint32_t sent = 0; sent < SPACE_MESSAGES;) {
        if (pair_send(p.outbox, 1000, (uint8_t)sent) == PLS_OK) {
            pls_outbox_wake(p.outbox);
            sent++;
            continue;
        }
        if (!pls_outbox_want_space(p.outbox, 1000)) {
            continue;
        }
        pls_bitmap space;
        sleep_for_space(own, &space);
        if (space.word[0] != UINT64_C(1) << PAIR_CONSUMER) {
            _exit(3);
        }
    }
    _exit(0);
}

START_TEST(test_producer_that_waits_for_room_is_always_woken)
{
    int sockets[2];
    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, sockets), 0);
    pid_t child = fork();
    if (child == 0) {
        produce_and_sleep(sockets[1]);
    }
    int memfd = -1;
    int eventfd = -1;
    pls_peer *producer = NULL;
    descriptors_receive(sockets[0], &memfd, &eventfd);
    ck_assert_int_eq(pls_peer_attach(memfd, eventfd, PAIR_PRODUCER, 1, &producer), PLS_OK);
    for (uint32_t received = 0; received < SPACE_MESSAGES;) {
        pls_message message;
        pls_bitmap owed;
        pls_err err;
        while ((err = pls_inbox_pop(p.inbox, &message)) == PLS_OK) {
            ck_assert_uint_eq(message.bytes[999], (uint8_t)received);
            pls_inbox_release(p.inbox);
            received++;
        }
        ck_assert_int_eq(err, PLS_EEMPTY);
        if (pls_inbox_take_owed(p.inbox, &owed)) {
            pls_peer_ring_space(producer, PAIR_CONSUMER);
        }
        if (received < SPACE_MESSAGES && pls_inbox_arm(p.inbox)) {
            ck_assert(signalled_sleep());
            pls_inbox_disarm(p.inbox, true);
        }
    }
    int status = 0;
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    ck_assert_msg(WIFEXITED(status) && WEXITSTATUS(status) == 0, "the producer ended with %x",
                  (unsigned)status);
    ck_assert_uint_gt(atomic_load(&shared->sleeps), 100);
    pls_peer_release(producer);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("shm.wake");
    TCase *tcase = tcase_create("wake");
    tcase_set_timeout(tcase, 60 + (double)quiet_ms() / 1000);
    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_add_test(tcase, test_quiet_pair_never_loses_a_wake_up);
    tcase_add_test(tcase, test_message_of_a_killed_producer_is_delivered_at_the_dead_bell);
    tcase_add_test(tcase, test_producer_that_waits_for_room_is_always_woken);
    suite_add_tcase(suite, tcase);
    return check_run(suite);
}
