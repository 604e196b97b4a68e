/* SPDX-License-Identifier: Apache-2.0 */
/* Two nodes in network namespaces with a router between them that stops forwarding, without a word:
 * a black hole. After it, the nodes must talk again within 2 s, and nothing may be lost or doubled.
 * With a number as argument: a hole of that many seconds, and the waits that nodes have by default;
 * else a short one with shorter waits. Needs root, and iproute2's `ip`. */
#include "tests/zmq_transport/rig.h"

#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define HEAL_MS_MAX 2000
#define LIMIT_MS 20000

static unsigned hole_ms = 1500;
static bool defaults;
static char spaces[3][32];
static rig_node a;
static rig_node b;
static rig_node *const both[] = {&a, &b};

__attribute__((format(printf, 1, 2))) static int shell(const char *format, ...)
{
    char command[512];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(command, sizeof command, format, arguments);
    va_end(arguments);
    return system(command);
}

/* a - router - b, each in a namespace of its own. */
static bool network_make(void)
{
    static const char quiet[] = ">/dev/null 2>&1";
    int bad = 0;
    for (unsigned i = 0; i < 3; i++) {
        snprintf(spaces[i], sizeof spaces[i], "plsheal%d%c", (int)getpid(), "arb"[i]);
        bad |= shell("ip netns add %s %s", spaces[i], quiet);
    }
    for (unsigned i = 0; i < 3 && bad == 0; i += 2) {
        const char *router = spaces[1];
        bad |= shell("ip -n %s link add e0 type veth peer name r%u netns %s %s", spaces[i], i,
                     router, quiet);
        bad |= shell("ip -n %s addr add 10.77.%u.2/24 dev e0 %s", spaces[i], i, quiet);
        bad |= shell("ip -n %s addr add 10.77.%u.1/24 dev r%u %s", router, i, i, quiet);
        bad |= shell("ip -n %s link set e0 up %s", spaces[i], quiet);
        bad |= shell("ip -n %s link set r%u up %s", router, i, quiet);
        bad |= shell("ip -n %s route add default via 10.77.%u.1 %s", spaces[i], i, quiet);
    }
    return bad == 0;
}

static void network_drop(void)
{
    for (unsigned i = 0; i < 3; i++) {
        (void)!shell("ip netns del %s >/dev/null 2>&1", spaces[i]);
    }
}

static void forward(bool on)
{
    ck_assert_int_eq(
        shell("ip netns exec %s sysctl -qw net.ipv4.ip_forward=%d >/dev/null", spaces[1], on), 0);
}

static int space_open(unsigned index)
{
    char path[64];
    snprintf(path, sizeof path, "/run/netns/%s", spaces[index]);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ck_assert_int_ge(fd, 0);
    return fd;
}

static void node_open(rig_node *node, const char *name, unsigned index, const pls_zmq_key *key)
{
    char bind[32];
    snprintf(bind, sizeof bind, "tcp://10.77.%u.2:7100", index);
    pls_zmq_config config = {
        .cluster = "test", .name = name, .bind = bind, .key = key, .generation = 1};
    config.silence_ms = defaults ? 0 : 700;
    rig_open_in(node, &config, space_open(index));
}

static void hole_and_heal(const pls_zmq_key *key)
{
    uint64_t serial = 0;
    forward(true);
    node_open(&a, "a", 0, key);
    node_open(&b, "b", 2, key);
    pls_zmq_peer *peer = rig_reach(&a, &b);
    rig_sent(&a, peer, 0, ++serial, 100);
    ck_assert(rig_until(both, 2, &a.settled, 1, LIMIT_MS));
    ck_assert_int_eq(rig_packet(&a, &b, "ping"), PLS_OK);
    ck_assert(rig_until(both, 2, &b.packets, 1, LIMIT_MS));
    forward(false);
    for (uint64_t until_ns = rig_now_ns() + hole_ms * UINT64_C(1000000); rig_now_ns() < until_ns;) {
        serial++;
        rig_sent(&a, peer, 0, serial, serial % 4 == 0 ? 200000 : 100);
        /* A probe a second would do; what is dropped while nothing connects is no matter. */
        (void)!rig_packet(&a, &b, "ping");
        rig_run(both, 2, 250);
    }
    ck_assert_uint_eq(b.messages, 1);
    uint64_t packets = b.packets;
    uint64_t healed_ns = rig_now_ns();
    forward(true);
    ck_assert(rig_until(both, 2, &b.messages, 2, LIMIT_MS));
    uint64_t bulk_ms = (rig_now_ns() - healed_ns) / 1000000;
    while (b.packets == packets && rig_now_ns() - healed_ns < LIMIT_MS * UINT64_C(1000000)) {
        (void)!rig_packet(&a, &b, "ping");
        rig_run(both, 2, 50);
    }
    uint64_t control_ms = (rig_now_ns() - healed_ns) / 1000000;
    printf("hole of %u ms: messages again after %u ms, packets after %u ms\n", hole_ms,
           (unsigned)bulk_ms, (unsigned)control_ms);
    ck_assert_uint_le(bulk_ms, HEAL_MS_MAX);
    ck_assert_uint_le(control_ms, HEAL_MS_MAX);
    ck_assert(rig_until(both, 2, &a.settled, serial, LIMIT_MS));
    ck_assert_uint_eq(a.fates[PLS_ZMQ_DELIVERED], serial);
    ck_assert_uint_eq(b.messages, serial);
    ck_assert_uint_eq(b.disorder + b.damaged, 0);
    pls_zmq_forget(a.zmq, peer);
    rig_close(&a);
    rig_close(&b);
}

START_TEST(test_a_healed_black_hole_is_used_again_within_two_seconds)
{
    hole_and_heal(NULL);
}
END_TEST

START_TEST(test_a_healed_black_hole_is_used_again_within_two_seconds_with_a_key)
{
    pls_zmq_key key = rig_key(3);
    hole_and_heal(&key);
}
END_TEST

int main(int argument_count, char **arguments)
{
    const TTest *const tests[] = {
        test_a_healed_black_hole_is_used_again_within_two_seconds,
        test_a_healed_black_hole_is_used_again_within_two_seconds_with_a_key,
    };
    if (argument_count > 1) {
        hole_ms = (unsigned)strtoul(arguments[1], NULL, 10) * 1000;
        defaults = true;
        setenv("RIG_TEST_SECONDS", "600", 1);
    }
    bool made = geteuid() == 0 && network_make();
    if (!made) {
        printf("skipped: network namespaces need root and iproute2\n");
    }
    int status =
        made ? rig_main("zmq_transport.heal", tests, sizeof tests / sizeof tests[0]) : EXIT_SUCCESS;
    network_drop();
    return status;
}
