/* SPDX-License-Identifier: Apache-2.0 */
/* A body's bytes follow from its serial, and a head is its serial, so that whoever receives can
 * tell what is missing, doubled, out of order or damaged. */
#include "tests/check_run.h"
#include "tests/zmq_transport/rig.h"

#include <dirent.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#ifdef __SANITIZE_THREAD__
#define RIG_TSAN 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define RIG_TSAN 1
#endif
#endif

#ifdef RIG_TSAN
const char *__tsan_default_options(void);
/* libzmq is not instrumented: what its thread does under its own locks and queues looks like a
 * race. What our code does in that thread is still checked. */
__attribute__((visibility("default"))) const char *__tsan_default_options(void)
{
    return "ignore_noninstrumented_modules=1";
}
#endif

#define STEP_MS_MAX 50

uint64_t rig_now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static uint64_t word_of(uint64_t serial, uint64_t index)
{
    return (serial + 1) * UINT64_C(0x9e3779b97f4a7c15) + index;
}

static void body_fill(uint8_t *body, uint64_t serial, uint64_t bytes)
{
    for (uint64_t i = 0; i < bytes; i += sizeof(uint64_t)) {
        uint64_t word = word_of(serial, i);
        memcpy(body + i, &word, bytes - i < sizeof word ? bytes - i : sizeof word);
    }
}

static bool body_is(const uint8_t *body, uint64_t serial, uint64_t bytes)
{
    for (uint64_t i = 0; i < bytes; i += sizeof(uint64_t)) {
        uint64_t word = word_of(serial, i);
        if (memcmp(body + i, &word, bytes - i < sizeof word ? bytes - i : sizeof word) != 0) {
            return false;
        }
    }
    return true;
}

static void on_control(void *owner, const pls_zmq_identity *from, const void *bytes, size_t len)
{
    rig_node *node = owner;
    node->packets++;
    snprintf(node->packet, sizeof node->packet, "%.*s", (int)len, (const char *)bytes);
    node->packet_from = *from;
    snprintf(node->packet_address, sizeof node->packet_address, "%.*s", (int)from->address_bytes,
             from->address);
}

static pls_err on_message(void *owner, const pls_zmq_identity *from, const pls_zmq_arrival *arrival)
{
    rig_node *node = owner;
    uint64_t serial = 0;
    memcpy(node->sender, from->node_id, sizeof node->sender);
    if (node->take_nothing) {
        node->turned_down++;
        return PLS_EFULL;
    }
    ck_assert_uint_eq(arrival->head_bytes, sizeof serial);
    memcpy(&serial, arrival->head, sizeof serial);
    uint64_t last = node->last[arrival->stream];
    node->disorder += node->jump ? serial <= last : serial != last + 1;
    node->last[arrival->stream] = serial;
    node->damaged += !body_is(arrival->body, serial, arrival->body_bytes);
    node->messages++;
    node->body_bytes += arrival->body_bytes;
    free(arrival->memory);
    return PLS_OK;
}

static pls_err on_reserve(void *owner, const pls_zmq_identity *from, pls_zmq_arrival *arrival)
{
    rig_node *node = owner;
    memcpy(node->sender, from->node_id, sizeof node->sender);
    if (node->reserve_full) {
        return PLS_EFULL;
    }
    if (node->reserve_refuse) {
        return PLS_EBUDGET;
    }
    arrival->memory = malloc((size_t)arrival->body_bytes);
    arrival->token = node;
    ck_assert_ptr_nonnull(arrival->memory);
    return PLS_OK;
}

static void on_abandon(void *owner, const pls_zmq_arrival *arrival)
{
    rig_node *node = owner;
    node->abandoned++;
    free(arrival->memory);
}

static void on_news(void *owner, const pls_zmq_news *news)
{
    rig_node *node = owner;
    node->news[news->kind]++;
    if (news->kind == PLS_ZMQ_UP) {
        snprintf(node->local, sizeof node->local, "%s", news->local);
    } else {
        snprintf(node->news_text, sizeof node->news_text, "%s", news->text);
    }
}

static void on_room(void *owner, pls_zmq_peer *peer)
{
    ((rig_node *)owner)->rooms++;
}

static void on_away(void *owner, const char *reason, const char *from, uint64_t count)
{
    rig_node *node = owner;
    node->away_reports++;
    node->away_counts += count;
    if (getenv("RIG_TELL") != NULL) {
        printf("turned away: %s, from %s, %llu\n", reason, from, (unsigned long long)count);
    }
    snprintf(node->away_reason, sizeof node->away_reason, "%s", reason);
}

pls_zmq_config rig_config(const char *name, const pls_zmq_key *key)
{
    return (pls_zmq_config){.cluster = "test",
                            .name = name,
                            .bind = "tcp://127.0.0.1:0",
                            .key = key,
                            .generation = 1,
                            .retry_ms = 20,
                            .handshake_ms = 1000};
}

static void network_enter(const rig_node *node)
{
    if (node->network != 0) {
        ck_assert_int_eq(setns(node->network, CLONE_NEWNET), 0);
    }
}

void rig_open(rig_node *node, const pls_zmq_config *config)
{
    rig_open_in(node, config, 0);
}

void rig_open_in(rig_node *node, const pls_zmq_config *config, int network)
{
    memset(node, 0, sizeof *node);
    node->network = network;
    network_enter(node);
    node->handlers = (pls_zmq_handlers){.control = on_control,
                                        .message = on_message,
                                        .reserve = on_reserve,
                                        .abandon = on_abandon,
                                        .news = on_news,
                                        .room = on_room,
                                        .turned_away = on_away};
    node->config = *config;
    pls_err err = pls_zmq_create(config, &node->handlers, node, rig_now_ns(), &node->zmq);
    ck_assert_msg(err == PLS_OK, "%s", pls_err_name(err));
}

void rig_open_named(rig_node *node, const char *name, const pls_zmq_key *key)
{
    pls_zmq_config config = rig_config(name, key);
    rig_open(node, &config);
}

void rig_close(rig_node *node)
{
    pls_zmq_destroy(node->zmq);
    node->zmq = NULL;
}

static void drive(rig_node *const nodes[], unsigned count, uint64_t until_ns)
{
    struct pollfd fds[16];
    uint64_t now_ns = rig_now_ns();
    uint64_t due_ns = until_ns;
    for (unsigned i = 0; i < count; i++) {
        fds[i] = (struct pollfd){.fd = pls_zmq_fd(nodes[i]->zmq), .events = POLLIN};
        uint64_t deadline_ns = pls_zmq_deadline(nodes[i]->zmq);
        due_ns = deadline_ns < due_ns ? deadline_ns : due_ns;
    }
    uint64_t left_ms = due_ns <= now_ns ? 0 : (due_ns - now_ns) / 1000000 + 1;
    poll(fds, count, (int)(left_ms < STEP_MS_MAX ? left_ms : STEP_MS_MAX));
    for (unsigned i = 0; i < count; i++) {
        /* Only what the contract names wakes a transport, so that a lost wake-up shows. */
        now_ns = rig_now_ns();
        if ((fds[i].revents & POLLIN) != 0 || pls_zmq_deadline(nodes[i]->zmq) <= now_ns) {
            network_enter(nodes[i]);
            pls_zmq_poll(nodes[i]->zmq, now_ns);
            ck_assert(pls_zmq_check(nodes[i]->zmq));
        }
    }
}

bool rig_until(rig_node *const nodes[], unsigned count, const uint64_t *value, uint64_t least,
               unsigned limit_ms)
{
    uint64_t until_ns = rig_now_ns() + (uint64_t)limit_ms * 1000000;
    while (*value < least) {
        if (rig_now_ns() >= until_ns) {
            return false;
        }
        drive(nodes, count, until_ns);
    }
    return true;
}

void rig_run(rig_node *const nodes[], unsigned count, unsigned ms)
{
    uint64_t never = 0;
    bool reached = rig_until(nodes, count, &never, 1, ms);
    ck_assert(!reached);
}

pls_zmq_peer *rig_reach(rig_node *from, const rig_node *to)
{
    pls_zmq_peer *peer = NULL;
    const char *address = pls_zmq_endpoint(to->zmq);
    ck_assert_int_eq(pls_zmq_reach(from->zmq, address, strlen(address), 0, &peer), PLS_OK);
    return peer;
}

static void on_settled(void *owner, void *context, pls_zmq_fate fate)
{
    rig_node *node = owner;
    node->fates[fate]++;
    node->settled++;
    free(context);
}

pls_err rig_send(rig_node *node, pls_zmq_peer *peer, unsigned stream, uint64_t serial,
                 uint64_t body_bytes)
{
    uint8_t small[256];
    bool copy = body_bytes <= sizeof small;
    uint8_t *body = copy ? small : malloc((size_t)body_bytes);
    ck_assert_ptr_nonnull(body);
    body_fill(body, serial, body_bytes);
    pls_zmq_message message = {.head = &serial,
                               .head_bytes = sizeof serial,
                               .body = body,
                               .body_bytes = body_bytes,
                               .stream = (uint8_t)stream,
                               .copy = copy,
                               .settled = on_settled,
                               .context = copy ? NULL : body};
    pls_err err = pls_zmq_send(node->zmq, peer, &message);
    if (err != PLS_OK && !copy) {
        free(body);
    }
    return err;
}

void rig_sent(rig_node *node, pls_zmq_peer *peer, unsigned stream, uint64_t serial,
              uint64_t body_bytes)
{
    pls_err err = rig_send(node, peer, stream, serial, body_bytes);
    ck_assert_msg(err == PLS_OK, "%s", pls_err_name(err));
}

pls_err rig_packet(rig_node *node, const rig_node *to, const char *text)
{
    const char *address = pls_zmq_endpoint(to->zmq);
    return pls_zmq_control(node->zmq, address, strlen(address), text, strlen(text));
}

pls_zmq_key rig_key(uint8_t seed)
{
    pls_zmq_key key;
    for (unsigned i = 0; i < sizeof key.bytes; i++) {
        key.bytes[i] = (uint8_t)(seed + i);
    }
    return key;
}

static unsigned entries_count(const char *path)
{
    unsigned count = 0;
    DIR *directory = opendir(path);
    ck_assert_ptr_nonnull(directory);
    for (const struct dirent *entry = readdir(directory); entry != NULL;
         entry = readdir(directory)) {
        count += entry->d_name[0] != '.';
    }
    closedir(directory);
    return count;
}

unsigned rig_descriptors(void)
{
    return entries_count("/proc/self/fd");
}

unsigned rig_threads(void)
{
    return entries_count("/proc/self/task");
}

uint64_t rig_resident_bytes(void)
{
    unsigned long total = 0;
    unsigned long resident = 0;
    FILE *file = fopen("/proc/self/statm", "re");
    ck_assert_ptr_nonnull(file);
    int read = fscanf(file, "%lu %lu", &total, &resident);
    fclose(file);
    ck_assert_int_eq(read, 2);
    return (uint64_t)resident * (uint64_t)sysconf(_SC_PAGESIZE);
}

int rig_main(const char *name, const TTest *const tests[], unsigned count)
{
    Suite *suite = suite_create(name);
    TCase *tcase = tcase_create(name);
    const char *limit = getenv("RIG_TEST_SECONDS");
    tcase_set_timeout(tcase, limit == NULL ? 60 : strtod(limit, NULL));
    for (unsigned i = 0; i < count; i++) {
        tcase_add_test(tcase, tests[i]);
    }
    suite_add_tcase(suite, tcase);
    return check_run(suite);
}
