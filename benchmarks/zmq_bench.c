/* SPDX-License-Identifier: Apache-2.0 */
/* The transport beside a bare DEALER and ROUTER, between two processes over loopback, both driven
 * by one epoll wait. `zmq_bench [REPEATS [WORKLOAD]]` prints a line of JSON per workload:
 * microseconds for a message there and back, MB/s for bodies that are read from one memory and
 * written into another. The two alternate, and the best of REPEATS counts, since the machine may be
 * busy.
 *
 * The bare one: no greeting, no frames, no order, no limit, no acknowledgement but an empty reply.
 */
#include "zmq_transport/transport.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <zmq.h>

#define SMALL_BYTES 64
#define ROUNDS 3000
#define WARM_ROUNDS 300
#define MIB 1048576
#define LARGE_TOTAL (128ull * MIB)
#define ENDPOINT_BYTES 128
#define REPEATS_DEFAULT 5

typedef struct workload {
    const char *name;
    size_t bytes;
    unsigned rounds;
} workload;

static uint64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static void must(int right, const char *what)
{
    if (!right) {
        fprintf(stderr, "zmq_bench: %s: %s\n", what, zmq_strerror(errno));
        exit(EXIT_FAILURE);
    }
}

static int by_value(const void *left, const void *right)
{
    uint64_t a = *(const uint64_t *)left;
    uint64_t b = *(const uint64_t *)right;
    return a < b ? -1 : a > b;
}

/* Two processes and two pipes that carry endpoints. */
typedef struct couple {
    pid_t child;
    int to_child[2];
    int to_parent[2];
} couple;

static bool couple_fork(couple *c)
{
    must(pipe(c->to_child) == 0 && pipe(c->to_parent) == 0, "pipe");
    c->child = fork();
    must(c->child >= 0, "fork");
    if (c->child == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
    }
    return c->child == 0;
}

static void tell(int fd, const char *endpoint)
{
    char text[ENDPOINT_BYTES] = "";
    snprintf(text, sizeof text, "%s", endpoint);
    must(write(fd, text, sizeof text) == sizeof text, "write");
}

static void hear(int fd, char text[ENDPOINT_BYTES])
{
    must(read(fd, text, ENDPOINT_BYTES) == ENDPOINT_BYTES, "read");
}

static void couple_end(couple *c)
{
    kill(c->child, SIGKILL);
    waitpid(c->child, NULL, 0);
    close(c->to_child[0]);
    close(c->to_child[1]);
    close(c->to_parent[0]);
    close(c->to_parent[1]);
}

/* What a run gives: nanoseconds of each round, or of all of them. */
static double verdict(const workload *w, uint64_t *rounds_ns, uint64_t total_ns)
{
    if (w->bytes == SMALL_BYTES) {
        qsort(rounds_ns, w->rounds, sizeof *rounds_ns, by_value);
        unsigned middle = w->rounds / 2;
        return (double)rounds_ns[middle] / 1000;
    }
    return (double)w->bytes * w->rounds / 1e6 / ((double)total_ns / 1e9);
}

/* The bare pair. */

static void bare_secure(void *socket, bool server, const pls_zmq_key *key)
{
    int one = 1;
    pls_zmq_pair pair;
    pls_zmq_pair own;
    if (key == NULL) {
        return;
    }
    pls_zmq_key_server(key, &pair);
    if (server) {
        zmq_setsockopt(socket, ZMQ_CURVE_SERVER, &one, sizeof one);
        zmq_setsockopt(socket, ZMQ_CURVE_SECRETKEY, pair.secret_key, PLS_ZMQ_KEY_BYTES);
        return;
    }
    must(pls_zmq_key_client(&own) == PLS_OK, "keys");
    zmq_setsockopt(socket, ZMQ_CURVE_SERVERKEY, pair.public_key, PLS_ZMQ_KEY_BYTES);
    zmq_setsockopt(socket, ZMQ_CURVE_PUBLICKEY, own.public_key, PLS_ZMQ_KEY_BYTES);
    zmq_setsockopt(socket, ZMQ_CURVE_SECRETKEY, own.secret_key, PLS_ZMQ_KEY_BYTES);
}

/* Waits as a node would: epoll on the socket's descriptor, then its events. */
static void bare_wait(int epoll_fd, void *socket)
{
    struct epoll_event event;
    int events = 0;
    size_t len = sizeof events;
    for (;;) {
        zmq_getsockopt(socket, ZMQ_EVENTS, &events, &len);
        if ((events & ZMQ_POLLIN) != 0) {
            return;
        }
        epoll_wait(epoll_fd, &event, 1, -1);
    }
}

static int bare_epoll(void *socket)
{
    int fd = -1;
    size_t len = sizeof fd;
    struct epoll_event event = {.events = EPOLLIN};
    int epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    zmq_getsockopt(socket, ZMQ_FD, &fd, &len);
    must(epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event) == 0, "epoll");
    return epoll_fd;
}

static void bare_child(const couple *c, const workload *w, const pls_zmq_key *key)
{
    char endpoint[ENDPOINT_BYTES];
    size_t len = sizeof endpoint;
    char *memory = malloc(w->bytes);
    void *socket = zmq_socket(zmq_ctx_new(), ZMQ_ROUTER);
    bare_secure(socket, true, key);
    must(memory != NULL && zmq_bind(socket, "tcp://127.0.0.1:*") == 0, "bind");
    zmq_getsockopt(socket, ZMQ_LAST_ENDPOINT, endpoint, &len);
    tell(c->to_parent[1], endpoint);
    int epoll_fd = bare_epoll(socket);
    for (;;) {
        zmq_msg_t route;
        zmq_msg_t body;
        zmq_msg_init(&route);
        zmq_msg_init(&body);
        bare_wait(epoll_fd, socket);
        must(zmq_msg_recv(&route, socket, 0) >= 0 && zmq_msg_recv(&body, socket, 0) >= 0, "recv");
        memcpy(memory, zmq_msg_data(&body), zmq_msg_size(&body));
        zmq_msg_send(&route, socket, ZMQ_SNDMORE);
        zmq_send(socket, memory, w->bytes == SMALL_BYTES ? w->bytes : 0, 0);
        zmq_msg_close(&body);
    }
}

static void bare_round(void *socket, int epoll_fd, const char *memory, size_t bytes)
{
    zmq_msg_t msg;
    zmq_msg_init_size(&msg, bytes);
    memcpy(zmq_msg_data(&msg), memory, bytes);
    must(zmq_msg_send(&msg, socket, 0) >= 0, "send");
    bare_wait(epoll_fd, socket);
    zmq_msg_init(&msg);
    must(zmq_msg_recv(&msg, socket, 0) >= 0, "recv");
    zmq_msg_close(&msg);
}

static double bare_run(const workload *w, const pls_zmq_key *key)
{
    static uint64_t rounds_ns[ROUNDS];
    couple c;
    char endpoint[ENDPOINT_BYTES];
    int zero = 0;
    if (couple_fork(&c)) {
        bare_child(&c, w, key);
    }
    hear(c.to_parent[0], endpoint);
    char *memory = calloc(1, w->bytes);
    void *context = zmq_ctx_new();
    void *socket = zmq_socket(context, ZMQ_DEALER);
    zmq_setsockopt(socket, ZMQ_LINGER, &zero, sizeof zero);
    bare_secure(socket, false, key);
    must(memory != NULL && zmq_connect(socket, endpoint) == 0, "connect");
    int epoll_fd = bare_epoll(socket);
    for (unsigned i = 0; i < (w->bytes == SMALL_BYTES ? WARM_ROUNDS : 2); i++) {
        bare_round(socket, epoll_fd, memory, w->bytes);
    }
    uint64_t begin_ns = now_ns();
    for (unsigned i = 0; i < w->rounds; i++) {
        uint64_t round_ns = now_ns();
        bare_round(socket, epoll_fd, memory, w->bytes);
        rounds_ns[i] = now_ns() - round_ns;
    }
    double result = verdict(w, rounds_ns, now_ns() - begin_ns);
    zmq_close(socket);
    zmq_ctx_term(context);
    close(epoll_fd);
    free(memory);
    couple_end(&c);
    return result;
}

/* Ours. */

typedef struct side {
    pls_zmq *zmq;
    pls_zmq_peer *peer; /* the other side */
    int epoll_fd;
    bool echoes;
    char *memory; /* bodies are received into it */
    uint64_t received;
    uint64_t settled;
} side;

static void on_control(void *owner, const pls_zmq_identity *from, const void *bytes, size_t len)
{
}

static pls_err side_send(side *s, const void *body, size_t bytes);

static pls_err on_message(void *owner, const pls_zmq_identity *from, const pls_zmq_arrival *arrival)
{
    side *s = owner;
    s->received++;
    return s->echoes && arrival->memory == NULL
               ? side_send(s, arrival->body, (size_t)arrival->body_bytes)
               : PLS_OK;
}

static pls_err on_reserve(void *owner, const pls_zmq_identity *from, pls_zmq_arrival *arrival)
{
    arrival->memory = ((side *)owner)->memory;
    return PLS_OK;
}

static void on_settled(void *owner, void *context, pls_zmq_fate fate)
{
    ((side *)owner)->settled += fate == PLS_ZMQ_DELIVERED;
}

static pls_err side_send(side *s, const void *body, size_t bytes)
{
    pls_zmq_message message = {.head = "head",
                               .head_bytes = 4,
                               .body = body,
                               .body_bytes = bytes,
                               .copy = bytes == SMALL_BYTES,
                               .settled = on_settled};
    return pls_zmq_send(s->zmq, s->peer, &message);
}

static void side_step(side *s)
{
    struct epoll_event event;
    uint64_t deadline_ns = pls_zmq_deadline(s->zmq);
    uint64_t at_ns = now_ns();
    int wait_ms = deadline_ns <= at_ns ? 0 : (int)((deadline_ns - at_ns) / 1000000 + 1);
    epoll_wait(s->epoll_fd, &event, 1, wait_ms);
    pls_zmq_poll(s->zmq, now_ns());
}

static void side_open(side *s, const char *name, const pls_zmq_key *key, size_t bytes)
{
    static const pls_zmq_handlers handlers = {
        .control = on_control, .message = on_message, .reserve = on_reserve};
    pls_zmq_config config = {
        .cluster = "bench", .name = name, .bind = "tcp://127.0.0.1:0", .key = key, .generation = 1};
    struct epoll_event event = {.events = EPOLLIN};
    s->memory = malloc(bytes);
    must(s->memory != NULL && pls_zmq_create(&config, &handlers, s, now_ns(), &s->zmq) == PLS_OK,
         "create");
    s->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    must(epoll_ctl(s->epoll_fd, EPOLL_CTL_ADD, pls_zmq_fd(s->zmq), &event) == 0, "epoll");
}

static void side_meet(side *s, const char *endpoint)
{
    must(pls_zmq_reach(s->zmq, endpoint, strlen(endpoint), 0, &s->peer) == PLS_OK, "reach");
}

static void ours_child(const couple *c, const workload *w, const pls_zmq_key *key)
{
    char endpoint[ENDPOINT_BYTES];
    side s = {.echoes = true};
    side_open(&s, "b", key, w->bytes);
    tell(c->to_parent[1], pls_zmq_endpoint(s.zmq));
    hear(c->to_child[0], endpoint);
    side_meet(&s, endpoint);
    for (;;) {
        side_step(&s);
    }
}

static void ours_round(side *s, const char *memory, size_t bytes)
{
    bool small = bytes == SMALL_BYTES;
    const uint64_t *count = small ? &s->received : &s->settled;
    uint64_t before = *count;
    must(side_send(s, memory, bytes) == PLS_OK, "send");
    pls_zmq_poll(s->zmq, now_ns());
    while (*count == before) {
        side_step(s);
    }
}

static double ours_run(const workload *w, const pls_zmq_key *key)
{
    static uint64_t rounds_ns[ROUNDS];
    couple c;
    char endpoint[ENDPOINT_BYTES];
    side s = {0};
    if (couple_fork(&c)) {
        ours_child(&c, w, key);
    }
    side_open(&s, "a", key, w->bytes);
    char *memory = calloc(1, w->bytes);
    tell(c.to_child[1], pls_zmq_endpoint(s.zmq));
    hear(c.to_parent[0], endpoint);
    side_meet(&s, endpoint);
    must(memory != NULL, "memory");
    for (unsigned i = 0; i < (w->bytes == SMALL_BYTES ? WARM_ROUNDS : 2); i++) {
        ours_round(&s, memory, w->bytes);
    }
    uint64_t begin_ns = now_ns();
    for (unsigned i = 0; i < w->rounds; i++) {
        uint64_t round_ns = now_ns();
        ours_round(&s, memory, w->bytes);
        rounds_ns[i] = now_ns() - round_ns;
    }
    double result = verdict(w, rounds_ns, now_ns() - begin_ns);
    pls_zmq_destroy(s.zmq);
    close(s.epoll_fd);
    free(memory);
    free(s.memory);
    couple_end(&c);
    return result;
}

static void compare(const workload *w, const pls_zmq_key *key, unsigned repeats)
{
    bool small = w->bytes == SMALL_BYTES;
    double bare = 0;
    double ours = 0;
    for (unsigned i = 0; i < repeats; i++) {
        double one = bare_run(w, key);
        double other = ours_run(w, key);
        bare = i == 0 || (small ? one < bare : one > bare) ? one : bare;
        ours = i == 0 || (small ? other < ours : other > ours) ? other : ours;
    }
    printf("{\"workload\": \"%s\", \"curve\": %s, \"unit\": \"%s\", \"bare\": %.1f, "
           "\"transport\": %.1f, \"ratio\": %.2f}\n",
           w->name, key == NULL ? "false" : "true", small ? "us p50" : "MB/s", bare, ours,
           ours / bare);
    fflush(stdout);
}

int main(int argument_count, char **arguments)
{
    static const workload workloads[] = {
        {"64 B there and back", SMALL_BYTES, ROUNDS},
        {"1 MB", MIB, LARGE_TOTAL / MIB},
        {"64 MB", 64 * MIB, LARGE_TOTAL / (64 * MIB)},
    };
    pls_zmq_key key = {{1, 2, 3}};
    unsigned repeats =
        argument_count > 1 ? (unsigned)strtoul(arguments[1], NULL, 10) : REPEATS_DEFAULT;
    for (unsigned i = 0; i < sizeof workloads / sizeof workloads[0]; i++) {
        if (argument_count > 2 && strcmp(arguments[2], workloads[i].name) != 0) {
            continue;
        }
        compare(&workloads[i], NULL, repeats);
        compare(&workloads[i], &key, repeats);
    }
    return EXIT_SUCCESS;
}
