/* SPDX-License-Identifier: Apache-2.0 */
/* A packet of the membership counts only if the connection has proved who sent it: two real nodes,
 * and a third transport that was let in under its own name and speaks under another's. */
#include "tests/check_run.h"
#include "tests/node/world.h"

#include "gossip/gossip.h"
#include "gossip/wire.h"
#include "zmq_transport/transport.h"

#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define KEY_TEXT "5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a"
#define BOUND_MS 20000
#define SETTLE_MS 300
#define STEP_MS 5
#define CLUSTER "pulsing"

/* What a node says of another one. */
typedef struct sight {
    pls_node_status status; /* 0: it knows no such node */
    uint64_t generation;
    char endpoint[PLS_ADDRESS_BYTES_MAX];
} sight;

static uint64_t now_ns(void)
{
    return (uint64_t)(world_now_ms() * 1e6);
}

static sight look(world *w, const char *name)
{
    sight seen = {0};
    uint32_t request;
    pls_attach_event event;
    pls_node_entry entry;
    ck_assert_int_eq(pls_attach_members_list(w->attach, false, &request), PLS_OK);
    world_reply(w, request, &event, BOUND_MS);
    const uint8_t *data = event.data;
    size_t left = event.data_bytes;
    while (pls_node_entry_next(&data, &left, &entry) == PLS_OK) {
        if (entry.name_bytes == strlen(name) && memcmp(entry.name, name, entry.name_bytes) == 0) {
            seen.status = entry.status;
            seen.generation = entry.generation;
            snprintf(seen.endpoint, sizeof seen.endpoint, "tcp://%.*s", (int)entry.address_bytes,
                     entry.address);
        }
    }
    return seen;
}

static sight look_until(world *w, const char *name, pls_node_status status)
{
    double until = world_now_ms() + BOUND_MS;
    sight seen = look(w, name);
    while (seen.status != status) {
        ck_assert_msg(world_now_ms() < until, "%s has status %d", name, (int)seen.status);
        world_pause_ms(STEP_MS);
        seen = look(w, name);
    }
    return seen;
}

/* From now on the node tells of what happens to others. */
static void follow(world *w)
{
    uint32_t request;
    pls_attach_event event;
    ck_assert_int_eq(pls_attach_members_list(w->attach, true, &request), PLS_OK);
    world_reply(w, request, &event, BOUND_MS);
}

/* Whether it has told that somebody left: who did not will say so, and be a member again. */
static bool left_seen(world *w)
{
    pls_attach_event event;
    while (pls_attach_poll(w->attach, &event) == PLS_OK) {
        if (event.type == PLS_EVENT_MEMBER && event.number == PLS_NODE_GONE) {
            return true;
        }
    }
    return false;
}

static void node_begin(world *w, const char *name, const char *seed, const char *key)
{
    const char *seeds[] = {seed, NULL};
    pls_node_options options = world_options(0);
    options.name = name;
    options.addr = "127.0.0.1:0";
    options.seeds = seed == NULL ? NULL : seeds;
    options.cluster_key = key;
    world_begin(w, &options);
}

static void control_nothing(void *owner, const pls_zmq_identity *from, const void *bytes,
                            size_t len)
{
    ++*(unsigned *)owner;
}

static pls_err message_nothing(void *owner, const pls_zmq_identity *from,
                               const pls_zmq_arrival *arrival)
{
    return PLS_OK;
}

static pls_zmq *impostor_open(const char *key_text, unsigned *heard)
{
    static const pls_zmq_handlers handlers = {.control = control_nothing,
                                              .message = message_nothing};
    pls_zmq *zmq;
    pls_zmq_key key;
    pls_zmq_config config = {
        .cluster = CLUSTER, .name = "impostor", .bind = "tcp://127.0.0.1:0", .generation = 1};
    if (key_text != NULL) {
        ck_assert_int_eq(pls_zmq_key_parse(key_text, strlen(key_text), &key), PLS_OK);
        config.key = &key;
    }
    ck_assert_int_eq(pls_zmq_create(&config, &handlers, heard, now_ns(), &zmq), PLS_OK);
    return zmq;
}

static void impostor_drive(pls_zmq *zmq, int ms)
{
    double until = world_now_ms() + ms;
    while (world_now_ms() < until) {
        struct pollfd wait = {.fd = pls_zmq_fd(zmq), .events = POLLIN};
        poll(&wait, 1, STEP_MS);
        pls_zmq_poll(zmq, now_ns());
    }
}

/* The membership of somebody with this identity, which knows `other` and says goodbye to it: what
 * it wants to send goes out by the impostor's connections. Returns how many packets. */
static unsigned goodbye_send(pls_zmq *zmq, const char *name, const sight *self, const char *other,
                             const sight *to)
{
    unsigned sent = 0;
    pls_action action;
    pls_gossip *gossip;
    pls_gossip_config config;
    pls_gossip_config_defaults(&config);
    config.cluster = CLUSTER;
    config.seed = 1;
    config.self = (pls_identity){.generation = self->generation,
                                 .name = name,
                                 .address = self->endpoint,
                                 .name_bytes = (uint32_t)strlen(name),
                                 .address_bytes = (uint32_t)strlen(self->endpoint)};
    pls_identity known = {.generation = to->generation,
                          .name = other,
                          .address = to->endpoint,
                          .name_bytes = (uint32_t)strlen(other),
                          .address_bytes = (uint32_t)strlen(to->endpoint)};
    ck_assert_int_eq(pls_gossip_create(&config, NULL, now_ns(), &gossip), PLS_OK);
    ck_assert_int_eq(pls_gossip_join(gossip, NULL, 0, now_ns()), PLS_OK);
    ck_assert_int_eq(pls_gossip_learn(gossip, &known, 1, now_ns()), PLS_OK);
    ck_assert_int_eq(pls_gossip_leave(gossip, now_ns()), PLS_OK);
    while (pls_gossip_next_action(gossip, &action) == PLS_OK) {
        if (action.kind == PLS_ACTION_SEND) {
            ck_assert_int_eq(pls_zmq_control(zmq, action.address, action.address_bytes,
                                             action.bytes, action.len),
                             PLS_OK);
            sent++;
        }
    }
    pls_gossip_destroy(gossip);
    return sent;
}

/* How a node says who that was. */
static void note_write(char *note, size_t bytes, const pls_zmq *zmq)
{
    const uint8_t *id = pls_zmq_node_id(zmq);
    int len = snprintf(note, bytes, "the node with id ");
    for (int i = 0; i < PLS_ZMQ_NODE_ID_BYTES; i++) {
        len += snprintf(note + len, bytes - (size_t)len, "%02x", id[i]);
    }
}

/* Whether the file holds a text by the end of a time, in which the impostor is driven. */
static bool noted_within(int file, const char *text, pls_zmq *zmq, int ms)
{
    static char noted[1 << 16];
    double until = world_now_ms() + ms;
    do {
        impostor_drive(zmq, STEP_MS);
        ssize_t n = pread(file, noted, sizeof noted - 1, 0);
        noted[n < 0 ? 0 : n] = 0;
        if (strstr(noted, text) != NULL) {
            return true;
        }
    } while (world_now_ms() < until);
    return false;
}

/* Waits until the node has called the impostor, which was given to it as a seed. */
static void call_await(pls_zmq *zmq, const unsigned *heard)
{
    double until = world_now_ms() + BOUND_MS;
    while (*heard == 0) {
        ck_assert(world_now_ms() < until);
        impostor_drive(zmq, STEP_MS);
    }
}

START_TEST(test_who_speaks_as_another_member_is_not_believed)
{
    const char *key = _i % 2 == 0 ? NULL : KEY_TEXT;
    bool called = _i / 2 == 1; /* by the node, instead of calling it */
    unsigned heard = 0;
    char note[128];
    world one;
    world two;
    pls_zmq *impostor = impostor_open(key, &heard);
    int notes = memfd_create("notes", MFD_CLOEXEC);
    int kept = dup(STDERR_FILENO);
    ck_assert_int_ge(dup2(notes, STDERR_FILENO), 0);
    node_begin(&one, "one", called ? pls_zmq_endpoint(impostor) + strlen("tcp://") : NULL, key);
    ck_assert_int_ge(dup2(kept, STDERR_FILENO), 0);
    node_begin(&two, "two", pls_attach_info_of(one.attach)->directory->header.address, key);
    sight sight_two = look_until(&one, "two", PLS_NODE_ALIVE);
    sight sight_one = look_until(&two, "one", PLS_NODE_ALIVE);
    if (called) {
        call_await(impostor, &heard);
    }
    follow(&one);

    uint64_t before = pls_zmq_counted(impostor)->sent_packets;
    ck_assert_uint_ge(goodbye_send(impostor, "two", &sight_two, "one", &sight_one), 1);
    note_write(note, sizeof note, impostor);
    /* Who calls has said who it is, and so is told of. */
    ck_assert_int_eq(noted_within(notes, note, impostor, called ? SETTLE_MS : BOUND_MS), !called);
    impostor_drive(impostor, SETTLE_MS);
    ck_assert_uint_gt(pls_zmq_counted(impostor)->sent_packets, before);
    ck_assert(!left_seen(&one));
    ck_assert_int_eq(look(&one, "two").status, PLS_NODE_ALIVE);
    pls_zmq_destroy(impostor);

    /* From its own node the same words count. */
    pls_attach_event event;
    uint32_t request;
    ck_assert_int_eq(pls_attach_shutdown(two.attach, 3000, &request), PLS_OK);
    world_reply(&two, request, &event, BOUND_MS);
    (void)look_until(&one, "two", PLS_NODE_LEFT);
    pls_attach_close(two.attach, false);
    pls_inbox_destroy(two.inbox);
    ck_assert_int_eq(pls_node_wait(&two.node, 3000), PLS_OK);
    world_end(&one);
    close(notes);
    close(kept);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("node.impostor");
    TCase *tcase = tcase_create("impostor");
    tcase_set_timeout(tcase, 120);
    tcase_add_loop_test(tcase, test_who_speaks_as_another_member_is_not_believed, 0, 4);
    suite_add_tcase(suite, tcase);
    return check_run(suite);
}
