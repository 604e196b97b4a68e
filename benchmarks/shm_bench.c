/* SPDX-License-Identifier: Apache-2.0 */
/* What the shared-memory room costs, from C to C between two processes, beside the floor of the
 * machine measured in the same run: a bare word in a shared page, a raw eventfd, a bare memcpy.
 *
 *     shm_bench [ROUNDS]      one JSON line per workload and round
 *
 * Floors and ours alternate round by round, so that a busy machine disturbs both alike. Latencies
 * are half a round trip between two pinned processes; `wake` lets both sides sleep before every
 * message. */
#include "shm/arena.h"
#include "shm/inbox.h"
#include "shm/lease.h"
#include "shm/outbox.h"
#include "shm/peer.h"

#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define PAYLOAD 64
#define AWAKE_TRIPS 100000
#define WAKE_TRIPS 3000
#define STREAM_MESSAGES 4000000
#define ARRAY_BYTES (UINT64_C(64) << 20)
#define ARRAY_ROUNDS 20
#define CAPACITY (256 * 1024)
#define SLOT_PARENT 1
#define SLOT_CHILD 2

/* One process's two ends: what it receives by and how it reaches the other. */
typedef struct side {
    pls_inbox *inbox;
    pls_peer *peer;
    pls_outbox *outbox;
    bool sleeps; /* waits on the eventfd at once instead of looking */
} side;

typedef struct page {
    _Alignas(128) _Atomic uint64_t ping;
    _Alignas(128) _Atomic uint64_t pong;
    _Alignas(128) _Atomic uint64_t count;
} page;

static page *words;
static cpu_set_t allowed; /* before anything was pinned */

static void require(bool condition, const char *what)
{
    if (!condition) {
        fprintf(stderr, "shm_bench: %s failed (errno %d)\n", what, errno);
        exit(EXIT_FAILURE);
    }
}

static double now_s(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

static void relax(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static void pin(int which)
{
    cpu_set_t one;
    int skip = which % CPU_COUNT(&allowed);
    for (int cpu = 0; cpu < CPU_SETSIZE; cpu++) {
        if (CPU_ISSET(cpu, &allowed) && skip-- == 0) {
            CPU_ZERO(&one);
            CPU_SET(cpu, &one);
            sched_setaffinity(0, sizeof one, &one);
            return;
        }
    }
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a;
    double y = *(const double *)b;
    return (x > y) - (x < y);
}

/* One line in the format of the peers' benchmarks. `seconds` are per operation, or NULL. */
static void row(const char *system, const char *workload, const char *payload, long n,
                double *seconds, double elapsed_s)
{
    printf("{\"system\": \"%s\", \"workload\": \"%s\", \"payload\": \"%s\", \"n\": %ld", system,
           workload, payload, n);
    if (seconds != NULL) {
        qsort(seconds, (size_t)n, sizeof *seconds, ascending);
        printf(", \"p50_us\": %.4f, \"p99_us\": %.4f", seconds[n / 2] * 1e6,
               seconds[n * 99 / 100] * 1e6);
    } else {
        printf(", \"p50_us\": null, \"p99_us\": null");
    }
    if (strcmp(payload, "64MB") == 0) {
        printf(", \"ops_per_s\": %.1f, \"gbps\": %.3f}\n", (double)n / elapsed_s,
               (double)ARRAY_BYTES * (double)n / elapsed_s / 1e9);
    } else {
        printf(", \"ops_per_s\": %.1f, \"gbps\": null}\n", (double)n / elapsed_s);
    }
    fflush(stdout);
}

static void descriptors_exchange(int socket, const int mine[2], int theirs[2])
{
    _Alignas(struct cmsghdr) char control[CMSG_SPACE(2 * sizeof(int))] = {0};
    char byte = 0;
    struct iovec data = {.iov_base = &byte, .iov_len = 1};
    struct msghdr message = {.msg_iov = &data,
                             .msg_iovlen = 1,
                             .msg_control = control,
                             .msg_controllen = sizeof control};
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(2 * sizeof(int));
    memcpy(CMSG_DATA(header), mine, 2 * sizeof(int));
    require(sendmsg(socket, &message, 0) == 1, "sendmsg");
    require(recvmsg(socket, &message, MSG_CMSG_CLOEXEC) == 1, "recvmsg");
    memcpy(theirs, CMSG_DATA(CMSG_FIRSTHDR(&message)), 2 * sizeof(int));
}

static void side_open(side *s, int socket, bool parent)
{
    uint32_t mine = parent ? SLOT_PARENT : SLOT_CHILD;
    uint32_t theirs = parent ? SLOT_CHILD : SLOT_PARENT;
    memset(s, 0, sizeof *s);
    require(pls_inbox_create(mine, 1, &s->inbox) == PLS_OK, "pls_inbox_create");
    int own[2] = {pls_inbox_memfd(s->inbox), pls_inbox_eventfd(s->inbox)};
    int other[2] = {-1, -1};
    descriptors_exchange(socket, own, other);
    require(pls_peer_attach(other[0], other[1], theirs, 1, &s->peer) == PLS_OK, "pls_peer_attach");
    require(pls_outbox_attach(s->peer, mine, 1, CAPACITY, &s->outbox) == PLS_OK,
            "pls_outbox_attach");
}

static void side_close(side *s)
{
    pls_outbox_detach(s->outbox);
    pls_peer_release(s->peer);
    pls_inbox_destroy(s->inbox);
}

static bool commit_one(side *s, const void *bytes, uint32_t len, uint16_t flags)
{
    uint8_t *room = NULL;
    if (pls_outbox_reserve(s->outbox, len, &room) != PLS_OK) {
        return false;
    }
    memcpy(room, bytes, len);
    pls_outbox_commit(s->outbox, len, 1, flags, 0);
    return true;
}

static void send_one(side *s, const void *bytes)
{
    while (!commit_one(s, bytes, PAYLOAD, 0)) {
        relax();
    }
    pls_outbox_wake(s->outbox);
}

/* Waits for one message, the way the side waits, and copies it out. */
static void receive_one(side *s, uint8_t *into)
{
    pls_message message;
    while (pls_inbox_pop(s->inbox, &message) != PLS_OK) {
        if (!s->sleeps) {
            relax();
        } else if (pls_inbox_arm(s->inbox)) {
            struct pollfd fd = {.fd = pls_inbox_eventfd(s->inbox), .events = POLLIN};
            bool readable = poll(&fd, 1, 1000) == 1;
            pls_inbox_disarm(s->inbox, readable);
        }
    }
    memcpy(into, message.bytes, message.len <= PAYLOAD ? message.len : PAYLOAD);
    pls_inbox_release(s->inbox);
}

/* Run `child` in another process with its own end, `parent` here. */
static void with_pair(void (*parent)(side *), void (*child)(side *), bool sleeps)
{
    int sockets[2];
    side s;
    require(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, sockets) == 0, "socketpair");
    pid_t pid = fork();
    require(pid >= 0, "fork");
    side_open(&s, sockets[pid == 0], pid != 0);
    s.sleeps = sleeps;
    pin(pid == 0 ? 1 : 0);
    if (pid == 0) {
        child(&s);
        _exit(0);
    }
    parent(&s);
    waitpid(pid, NULL, 0);
    side_close(&s);
    close(sockets[0]);
    close(sockets[1]);
}

static double trips[AWAKE_TRIPS];

static long trip_count(const side *s)
{
    return s->sleeps ? WAKE_TRIPS : AWAKE_TRIPS;
}

static void echo(side *s)
{
    uint8_t bytes[PAYLOAD];
    for (long i = 0; i < trip_count(s) + 100; i++) {
        receive_one(s, bytes);
        send_one(s, bytes);
    }
}

static void ask(side *s)
{
    uint8_t bytes[PAYLOAD] = {0};
    double begin = now_s();
    for (long i = -100; i < trip_count(s); i++) {
        double start = now_s();
        send_one(s, bytes);
        receive_one(s, bytes);
        if (i >= 0) {
            trips[i] = (now_s() - start) / 2;
        }
    }
    row("pulsing", s->sleeps ? "wake_one_way" : "awake_one_way", "64B", trip_count(s), trips,
        now_s() - begin);
}

/* The floor of `awake`: two words. */
static void floor_words(void)
{
    uint64_t base = atomic_load(&words->ping);
    pid_t pid = fork();
    pin(pid == 0 ? 1 : 0);
    double begin = now_s();
    for (long i = 0; i < AWAKE_TRIPS; i++) {
        uint64_t turn = base + (uint64_t)i + 1;
        double start = now_s();
        if (pid != 0) {
            atomic_store_explicit(&words->ping, turn, memory_order_release);
        }
        while (atomic_load_explicit(pid != 0 ? &words->pong : &words->ping, memory_order_acquire) <
               turn) {
            relax();
        }
        if (pid == 0) {
            atomic_store_explicit(&words->pong, turn, memory_order_release);
        }
        trips[i] = (now_s() - start) / 2;
    }
    if (pid == 0) {
        _exit(0);
    }
    waitpid(pid, NULL, 0);
    row("floor:word", "awake_one_way", "64B", AWAKE_TRIPS, trips, now_s() - begin);
}

/* The floor of `wake`: poll, read, write on two raw eventfds. */
static void floor_eventfd(void)
{
    int ping = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    int pong = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    uint64_t value = 1;
    pid_t pid = fork();
    pin(pid == 0 ? 1 : 0);
    int out = pid != 0 ? ping : pong;
    struct pollfd in = {.fd = pid != 0 ? pong : ping, .events = POLLIN};
    double begin = now_s();
    for (long i = 0; i < WAKE_TRIPS; i++) {
        double start = now_s();
        if (pid != 0) {
            value = 1;
            require(write(out, &value, sizeof value) == sizeof value, "write");
        }
        require(poll(&in, 1, 5000) == 1, "poll");
        require(read(in.fd, &value, sizeof value) == sizeof value, "read");
        if (pid == 0) {
            value = 1;
            require(write(out, &value, sizeof value) == sizeof value, "write");
        }
        trips[i] = (now_s() - start) / 2;
    }
    if (pid == 0) {
        _exit(0);
    }
    waitpid(pid, NULL, 0);
    row("floor:eventfd", "wake_one_way", "64B", WAKE_TRIPS, trips, now_s() - begin);
    close(ping);
    close(pong);
}

static void drain(side *s)
{
    pls_message message;
    for (long received = 0; received < STREAM_MESSAGES;) {
        if (pls_inbox_pop(s->inbox, &message) == PLS_OK) {
            received += message.bytes[0] == 7;
            pls_inbox_release(s->inbox);
        } else {
            relax();
        }
    }
    atomic_store(&words->count, 1);
}

static long stream_batch;

static void stream(side *s)
{
    uint8_t bytes[PAYLOAD];
    memset(bytes, 7, sizeof bytes);
    atomic_store(&words->count, 0);
    double begin = now_s();
    for (long sent = 0; sent < STREAM_MESSAGES;) {
        long batch = 0;
        while (batch < stream_batch && sent < STREAM_MESSAGES && commit_one(s, bytes, PAYLOAD, 0)) {
            batch++;
            sent++;
        }
        pls_outbox_wake(s->outbox);
        /* A producer without room is told when half of the ring is free. */
        while (batch == 0 && pls_outbox_backlog_bytes(s->outbox) > CAPACITY / 2) {
            relax();
        }
    }
    while (atomic_load(&words->count) == 0) {
        relax();
    }
    row("pulsing", stream_batch == 1 ? "stream_unbatched" : "stream_batch32", "64B",
        STREAM_MESSAGES, NULL, now_s() - begin);
}

/* What one send costs its caller while the consumer is awake and keeps up: bursts that fit the
 * ring, with a wait for the consumer between them that is not counted. */
static void produce(side *s)
{
    enum { BURST = 1000 };
    uint8_t bytes[PAYLOAD];
    memset(bytes, 7, sizeof bytes);
    long bursts = 0;
    for (long sent = 0; sent < STREAM_MESSAGES; bursts++) {
        double start = now_s();
        for (long i = 0; i < BURST; i++) {
            send_one(s, bytes);
        }
        trips[bursts] = (now_s() - start) / BURST;
        sent += BURST;
        while (pls_outbox_backlog_bytes(s->outbox) != 0) {
            relax();
        }
    }
    double sum = 0;
    for (long i = 0; i < bursts; i++) {
        sum += trips[i];
    }
    row("pulsing", "send_cost", "64B", bursts, trips, sum);
}

/* The 64 MiB array: its arena, its receiver's view, and the node's shelf are in one process, since
 * nothing of the hand-over but the message itself depends on the other one. */
static int shelf[64];

static pls_err shelf_publish(void *context, uint32_t segment, int readonly_fd)
{
    shelf[segment % 64] = dup(readonly_fd);
    return PLS_OK;
}

static pls_err shelf_resolve(void *context, uint32_t slot, uint32_t epoch, uint32_t segment,
                             int *fd_out)
{
    *fd_out = dup(shelf[segment % 64]);
    return PLS_OK;
}

static double memcpy_floor(uint8_t *into, const uint8_t *from)
{
    double start = now_s();
    memcpy(into, from, ARRAY_BYTES);
    __asm__ volatile("" ::"r"(into) : "memory");
    return now_s() - start;
}

static double hand_over(pls_arena *arena, pls_views *views, pls_peer *owner, const uint8_t *from)
{
    pls_block *block = NULL;
    pls_descriptor descriptor;
    pls_lease lease;
    pls_arena_loan loan = {.len = ARRAY_BYTES, .slot = SLOT_CHILD, .epoch = 1};
    double start = now_s();
    require(pls_arena_alloc(arena, ARRAY_BYTES, &block) == PLS_OK, "pls_arena_alloc");
    memcpy(block->base, from, ARRAY_BYTES);
    require(pls_arena_lend(arena, block, &loan, &descriptor) == PLS_OK, "pls_arena_lend");
    pls_arena_unhold(arena, block);
    require(pls_lease_open(views, owner, SLOT_CHILD, &descriptor, &lease) == PLS_OK,
            "pls_lease_open");
    require(lease.bytes[0] == 1 && lease.bytes[ARRAY_BYTES - 1] == 1, "reading");
    pls_lease_return(&lease);
    require(pls_arena_collect(arena) == 1, "pls_arena_collect");
    return now_s() - start;
}

static void arrays(void)
{
    static double floors[ARRAY_ROUNDS];
    static double ours[ARRAY_ROUNDS];
    pls_inbox *inbox = NULL;
    pls_arena *arena = NULL;
    pls_peer *owner = NULL;
    pls_views *views = NULL;
    pls_arena_config config = {.budget_bytes = 4 * ARRAY_BYTES, .publish = shelf_publish};
    require(pls_inbox_create(SLOT_PARENT, 1, &inbox) == PLS_OK, "pls_inbox_create");
    require(pls_arena_create(inbox, &config, &arena) == PLS_OK, "pls_arena_create");
    require(pls_peer_attach(dup(pls_inbox_memfd(inbox)), dup(pls_inbox_eventfd(inbox)), SLOT_PARENT,
                            1, &owner) == PLS_OK,
            "pls_peer_attach");
    require(pls_views_create(shelf_resolve, NULL, &views) == PLS_OK, "pls_views_create");
    uint8_t *from = malloc(ARRAY_BYTES);
    uint8_t *into = mmap(NULL, ARRAY_BYTES, PROT_READ | PROT_WRITE,
                         MAP_SHARED | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    require(from != NULL && into != MAP_FAILED, "memory");
    memset(from, 1, ARRAY_BYTES);
    memset(into, 1, ARRAY_BYTES);
    (void)hand_over(arena, views, owner, from);
    double floor_s = 0;
    double ours_s = 0;
    for (int i = 0; i < ARRAY_ROUNDS; i++) {
        floors[i] = memcpy_floor(into, from);
        ours[i] = hand_over(arena, views, owner, from);
        floor_s += floors[i];
        ours_s += ours[i];
    }
    row("floor:memcpy", "hand_over_warm", "64MB", ARRAY_ROUNDS, floors, floor_s);
    row("pulsing", "hand_over_warm", "64MB", ARRAY_ROUNDS, ours, ours_s);
    free(from);
    munmap(into, ARRAY_BYTES);
    pls_views_destroy(views);
    pls_peer_release(owner);
    pls_arena_destroy(arena);
    pls_inbox_destroy(inbox);
    for (int i = 0; i < 64; i++) {
        if (shelf[i] != 0) {
            close(shelf[i]);
            shelf[i] = 0;
        }
    }
}

int main(int argc, char **argv)
{
    long rounds = argc > 1 ? strtol(argv[1], NULL, 10) : 5;
    words = mmap(NULL, sizeof *words, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    require(words != MAP_FAILED, "mmap");
    require(sched_getaffinity(0, sizeof allowed, &allowed) == 0, "sched_getaffinity");
    for (long round = 0; round < rounds; round++) {
        floor_words();
        with_pair(ask, echo, false);
        floor_eventfd();
        with_pair(ask, echo, true);
        with_pair(produce, drain, false);
        stream_batch = 1;
        with_pair(stream, drain, false);
        stream_batch = 32;
        with_pair(stream, drain, false);
        arrays();
    }
    return EXIT_SUCCESS;
}
