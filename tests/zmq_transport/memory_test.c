/* SPDX-License-Identifier: Apache-2.0 */
/* Every allocation of the room fails once, the n-th for n = 0, 1, 2 ...: what needs it says so, or
 * tries again; nothing is left, no message is lost or doubled, and the next attempt works. The
 * linker routes the room's allocations through here; libzmq's own are its own. */
#include "tests/zmq_transport/rig.h"

#include <string.h>

#define LIMIT_MS 10000
#define FAILURES_MAX 400

void *scarce_calloc(size_t count, size_t bytes);
void *scarce_malloc(size_t bytes);
void *scarce_realloc(void *memory, size_t bytes);

static int calls_left = -1; /* -1: nothing fails */

static bool fails_now(void)
{
    return calls_left >= 0 && calls_left-- == 0;
}

void *scarce_calloc(size_t count, size_t bytes)
{
    return fails_now() ? NULL : calloc(count, bytes);
}

void *scarce_malloc(size_t bytes)
{
    return fails_now() ? NULL : malloc(bytes);
}

void *scarce_realloc(void *memory, size_t bytes)
{
    return fails_now() ? NULL : realloc(memory, bytes);
}

static rig_node a;
static rig_node b;
static rig_node *const both[] = {&a, &b};

START_TEST(test_a_failed_creation_leaves_nothing)
{
    pls_zmq_key key = rig_key(1);
    pls_zmq_config config = rig_config("a", &key);
    pls_zmq *zmq = NULL;
    rig_open(&b, &config); /* for its handlers */
    unsigned descriptors = rig_descriptors();
    int n = 0;
    for (; n < FAILURES_MAX; n++) {
        calls_left = n;
        pls_err err = pls_zmq_create(&config, &b.handlers, &b, rig_now_ns(), &zmq);
        bool reached = calls_left < 0;
        calls_left = -1;
        if (err == PLS_OK) {
            pls_zmq_destroy(zmq);
            ck_assert(!reached);
            break;
        }
        ck_assert_msg(err == PLS_ENOMEM, "allocation %d gave %s", n, pls_err_name(err));
        ck_assert_uint_eq(rig_descriptors(), descriptors);
    }
    ck_assert_int_ge(n, 8);
    ck_assert_int_lt(n, FAILURES_MAX);
    rig_close(&b);
}
END_TEST

/* A whole exchange with the n-th allocation failing. Returns whether it came to that. */
static bool exchange(int n)
{
    static const char text[] = "ping";
    pls_zmq_config config = rig_config("a", NULL);
    config.retry_ms = 1;
    config.connect_ms = 100; /* what is lost in a handshake is tried again after both */
    config.handshake_ms = 100;
    rig_open(&a, &config);
    rig_open(&b, &config);
    pls_zmq_peer *peer = NULL;
    const char *address = pls_zmq_endpoint(b.zmq);
    uint64_t sent = 0;
    calls_left = n;
    while (pls_zmq_reach(a.zmq, address, strlen(address), 0, &peer) != PLS_OK) {
    }
    while (sent < 3) {
        uint64_t serial = sent + 1;
        pls_zmq_message message = {
            .head = &serial, .head_bytes = sizeof serial, .copy = true, .stream = 1};
        sent += pls_zmq_send(a.zmq, peer, &message) == PLS_OK;
    }
    while (pls_zmq_control(a.zmq, address, strlen(address), text, strlen(text)) != PLS_OK) {
    }
    ck_assert(rig_until(both, 2, &b.messages, sent, LIMIT_MS));
    const pls_zmq_counters *counters = pls_zmq_counted(a.zmq);
    ck_assert(rig_until(both, 2, &counters->sent_messages, sent, LIMIT_MS));
    /* A packet may be lost; another one is not. */
    for (unsigned i = 0; i < 200 && b.packets == 0; i++) {
        (void)!pls_zmq_control(a.zmq, address, strlen(address), text, strlen(text));
        rig_run(both, 2, 3);
    }
    bool reached = calls_left < 0;
    calls_left = -1;
    ck_assert_uint_ge(b.packets, 1);
    ck_assert_uint_eq(b.messages, sent);
    ck_assert_uint_eq(b.disorder + b.damaged, 0);
    pls_zmq_forget(a.zmq, peer);
    rig_close(&a);
    rig_close(&b);
    return reached;
}

START_TEST(test_an_exchange_survives_each_failed_allocation)
{
    int n = 0;
    unsigned descriptors = rig_descriptors();
    while (n < FAILURES_MAX && exchange(n)) {
        ck_assert_uint_eq(rig_descriptors(), descriptors);
        n++;
    }
    ck_assert_int_ge(n, 15);
    ck_assert_int_lt(n, FAILURES_MAX);
}
END_TEST

int main(void)
{
    const TTest *const tests[] = {
        test_a_failed_creation_leaves_nothing,
        test_an_exchange_survives_each_failed_allocation,
    };
    return rig_main("zmq_transport.memory", tests, sizeof tests / sizeof tests[0]);
}
