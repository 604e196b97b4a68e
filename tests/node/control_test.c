/* SPDX-License-Identifier: Apache-2.0 */
#include "node/control.h"
#include "node/control_data.h"

#include "base/rng.h"
#include "tests/check_run.h"

#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

static uint8_t bytes[PLS_CONTROL_PACKET_BYTES_MAX];

static pls_control_packet full_packet(void)
{
    return (pls_control_packet){.type = PLS_CONTROL_NAME_REGISTER,
                                .request = 7,
                                .status = 3,
                                .slot = 200,
                                .epoch = 5,
                                .flags = 3,
                                .pid = 4711,
                                .actor = 0xfedcba9876543210ull,
                                .number = 1ull << 40,
                                .name = "name",
                                .name_bytes = 4,
                                .text = "a text",
                                .text_bytes = 6,
                                .data = (const uint8_t *)"\0\1\2",
                                .data_bytes = 3};
}

START_TEST(test_packet_survives_the_way)
{
    pls_control_packet sent = full_packet();
    pls_control_packet got;
    size_t len = pls_control_encode(&sent, bytes);
    ck_assert_int_eq(pls_control_decode(bytes, len, PLS_CONTROL_AT_NODE, 0, &got), PLS_OK);
    ck_assert_uint_eq(got.type, sent.type);
    ck_assert_uint_eq(got.request, sent.request);
    ck_assert_uint_eq(got.status, sent.status);
    ck_assert_uint_eq(got.slot, sent.slot);
    ck_assert_uint_eq(got.epoch, sent.epoch);
    ck_assert_uint_eq(got.flags, sent.flags);
    ck_assert_uint_eq(got.pid, sent.pid);
    ck_assert_uint_eq(got.actor, sent.actor);
    ck_assert_uint_eq(got.number, sent.number);
    ck_assert_mem_eq(got.name, "name", 4);
    ck_assert_mem_eq(got.text, "a text", 6);
    ck_assert_mem_eq(got.data, "\0\1\2", 3);
}
END_TEST

START_TEST(test_every_cut_and_every_wrong_length_is_refused)
{
    pls_control_packet sent = full_packet();
    pls_control_packet got;
    size_t len = pls_control_encode(&sent, bytes);
    for (size_t cut = 0; cut < len; cut++) {
        ck_assert_int_eq(pls_control_decode(bytes, cut, PLS_CONTROL_AT_NODE, 0, &got), PLS_EPROTO);
    }
    ck_assert_int_eq(pls_control_decode(bytes, len + 1, PLS_CONTROL_AT_NODE, 0, &got), PLS_EPROTO);
    ck_assert_int_eq(pls_control_decode(bytes, len, PLS_CONTROL_AT_CLIENT, 0, &got), PLS_EPROTO);
    ck_assert_int_eq(pls_control_decode(bytes, len, PLS_CONTROL_AT_NODE, 1, &got), PLS_EPROTO);
}
END_TEST

START_TEST(test_types_that_are_not_in_the_table_are_refused)
{
    pls_control_packet got;
    for (uint32_t type = 0; type < 65536; type++) {
        pls_control_head head = {.magic = PLS_CONTROL_MAGIC, .type = (uint16_t)type};
        memcpy(bytes, &head, sizeof head);
        pls_err at_node = pls_control_decode(bytes, sizeof head, PLS_CONTROL_AT_NODE, 0, &got);
        pls_err at_client = pls_control_decode(bytes, sizeof head, PLS_CONTROL_AT_CLIENT, 0, &got);
        bool from_client = type >= 1 && type < PLS_CONTROL_CLIENT_TYPES_END;
        bool from_node = type >= PLS_CONTROL_WELCOME && type < PLS_CONTROL_NODE_TYPES_END;
        ck_assert(at_node == PLS_EPROTO || from_client);
        ck_assert(at_client == PLS_EPROTO || from_node);
    }
}
END_TEST

START_TEST(test_strings_beyond_the_table_are_refused)
{
    pls_control_packet got;
    pls_control_head head = {.magic = PLS_CONTROL_MAGIC,
                             .type = PLS_CONTROL_NAME_FIND,
                             .name_bytes = PLS_NAME_BYTES_MAX + 1};
    memset(bytes, 'n', sizeof bytes);
    memcpy(bytes, &head, sizeof head);
    ck_assert_int_eq(
        pls_control_decode(bytes, sizeof head + head.name_bytes, PLS_CONTROL_AT_NODE, 0, &got),
        PLS_EPROTO);
    head.name_bytes = PLS_NAME_BYTES_MAX;
    memcpy(bytes, &head, sizeof head);
    ck_assert_int_eq(
        pls_control_decode(bytes, sizeof head + head.name_bytes, PLS_CONTROL_AT_NODE, 0, &got),
        PLS_OK);
    /* Lengths whose sum wraps must not pass for a short packet. */
    head.name_bytes = 0;
    head.data_bytes = UINT32_MAX;
    memcpy(bytes, &head, sizeof head);
    ck_assert_int_eq(pls_control_decode(bytes, sizeof head - 1, PLS_CONTROL_AT_NODE, 0, &got),
                     PLS_EPROTO);
    ck_assert_int_eq(pls_control_decode(bytes, sizeof head, PLS_CONTROL_AT_NODE, 0, &got),
                     PLS_EPROTO);
}
END_TEST

START_TEST(test_encode_of_what_the_table_forbids_aborts)
{
    pls_control_packet packet = {.type = PLS_CONTROL_DETACH, .name = "x", .name_bytes = 1};
    pls_control_encode(&packet, bytes);
}
END_TEST

static int open_descriptors(void)
{
    int count = 0;
    for (int fd = 0; fd < 256; fd++) {
        count += fcntl(fd, F_GETFD) >= 0;
    }
    return count;
}

START_TEST(test_descriptors_travel_and_never_leak)
{
    int pair[2];
    pls_control_packet got;
    int given[PLS_CONTROL_FDS_MAX + 1];
    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK, 0, pair), 0);
    for (int i = 0; i <= PLS_CONTROL_FDS_MAX; i++) {
        given[i] = memfd_create("given", MFD_CLOEXEC);
    }
    pls_control_packet sent = {.type = PLS_CONTROL_ATTACH, .fds = {given[0], given[1], given[2]}};
    sent.fd_count = 3;
    int before = open_descriptors();
    size_t len = pls_control_encode(&sent, bytes);
    ck_assert_int_eq(pls_control_send(pair[0], bytes, len, sent.fds, 3), PLS_OK);
    ck_assert_int_eq(pls_control_receive(pair[1], PLS_CONTROL_AT_NODE, bytes, &got), PLS_OK);
    ck_assert_uint_eq(got.fd_count, 3);
    ck_assert_int_eq(open_descriptors(), before + 3);
    for (int i = 0; i < 3; i++) {
        ck_assert_int_ne(fcntl(got.fds[i], F_GETFD) & FD_CLOEXEC, 0);
    }
    pls_control_packet_drop(&got);
    ck_assert_int_eq(open_descriptors(), before);
    /* Garbage with descriptors, more descriptors than the head says, and far too many. */
    ck_assert_int_eq(pls_control_send(pair[0], (const uint8_t *)"garbage", 7, given, 2), PLS_OK);
    ck_assert_int_eq(pls_control_receive(pair[1], PLS_CONTROL_AT_NODE, bytes, &got), PLS_EPROTO);
    len = pls_control_encode(&sent, bytes);
    ck_assert_int_eq(pls_control_send(pair[0], bytes, len, given, 4), PLS_OK);
    ck_assert_int_eq(pls_control_receive(pair[1], PLS_CONTROL_AT_NODE, bytes, &got), PLS_EPROTO);
    ck_assert_int_eq(open_descriptors(), before);
    char space[CMSG_SPACE(sizeof given)];
    memset(space, 0, sizeof space);
    struct iovec part = {bytes, len};
    struct msghdr message = {
        .msg_iov = &part, .msg_iovlen = 1, .msg_control = space, .msg_controllen = sizeof space};
    struct cmsghdr *cmsg = CMSG_FIRSTHDR(&message);
    *cmsg = (struct cmsghdr){CMSG_LEN(sizeof given), SOL_SOCKET, SCM_RIGHTS};
    memcpy(CMSG_DATA(cmsg), given, sizeof given);
    pls_control_encode(&sent, bytes);
    ck_assert_int_gt(sendmsg(pair[0], &message, 0), 0);
    pls_err err = pls_control_receive(pair[1], PLS_CONTROL_AT_NODE, bytes, &got);
    ck_assert(err == PLS_EPROTO || err == PLS_EFDLIMIT);
    ck_assert_int_eq(open_descriptors(), before);
    close(pair[0]);
    ck_assert_int_eq(pls_control_receive(pair[1], PLS_CONTROL_AT_NODE, bytes, &got), PLS_ECLOSED);
}
END_TEST

START_TEST(test_random_bytes_never_pass_unnoticed)
{
    pls_rng rng;
    pls_control_packet sent = full_packet();
    pls_control_packet got;
    pls_rng_init(&rng, 11);
    for (int i = 0; i < 200000; i++) {
        size_t len = pls_control_encode(&sent, bytes);
        for (uint32_t k = 0; k <= pls_rng_below(&rng, 4); k++) {
            bytes[pls_rng_below(&rng, (uint32_t)len)] = (uint8_t)pls_rng_next(&rng);
        }
        if (pls_control_decode(bytes, len, PLS_CONTROL_AT_NODE, 0, &got) == PLS_OK) {
            const uint8_t *end = bytes + len;
            ck_assert(got.data + got.data_bytes <= end);
            ck_assert_uint_eq(got.name_bytes + got.text_bytes + got.data_bytes,
                              len - sizeof(pls_control_head));
        }
    }
}
END_TEST

START_TEST(test_place_options_survive_and_lies_are_refused)
{
    static const char *env[] = {"A=1", "B", NULL};
    static const uint16_t cpus[] = {0, 300};
    uint8_t data[256];
    pls_place_wire wire;
    pls_place_options options = {.env = env, .cpus = cpus, .cpu_count = 2};
    pls_writer w = pls_writer_into(data, sizeof data);
    ck_assert_int_eq(pls_place_encode(&options, &w), PLS_OK);
    size_t len = pls_writer_len(&w);
    pls_reader r = pls_reader_over(data, len);
    ck_assert_int_eq(pls_place_decode(&r, &wire), PLS_OK);
    ck_assert_uint_eq(wire.env_bytes, 6);
    ck_assert_mem_eq(wire.env, "A=1\0B\0", 6);
    ck_assert_uint_eq(wire.cpu_count, 2);
    for (size_t cut = 0; cut < len; cut++) {
        r = pls_reader_over(data, cut);
        ck_assert_int_eq(pls_place_decode(&r, &wire), PLS_EPROTO);
    }
    /* The last variable must end inside. */
    data[4 + 5] = 'x';
    r = pls_reader_over(data, len);
    ck_assert_int_eq(pls_place_decode(&r, &wire), PLS_EPROTO);
}
END_TEST

START_TEST(test_restart_options_survive_and_lies_are_refused)
{
    uint8_t data[PLS_RESTART_HEAD_BYTES];
    pls_restart_options got;
    pls_restart_options sent = {.policy = PLS_RESTART_ALWAYS,
                                .restarts_max = 3,
                                .backoff_min_ms = 10,
                                .backoff_max_ms = 20,
                                .place = PLS_PLACE_INDEX,
                                .index = 4};
    pls_writer w = pls_writer_into(data, sizeof data);
    pls_restart_encode(&sent, &w);
    ck_assert_uint_eq(pls_writer_len(&w), PLS_RESTART_HEAD_BYTES);
    pls_reader r = pls_reader_over(data, sizeof data);
    ck_assert_int_eq(pls_restart_decode(&r, &got), PLS_OK);
    ck_assert_int_eq(got.policy, sent.policy);
    ck_assert_uint_eq(got.backoff_max_ms, 20);
    ck_assert_int_eq(got.place, PLS_PLACE_INDEX);
    data[0] = 9;
    r = pls_reader_over(data, sizeof data);
    ck_assert_int_eq(pls_restart_decode(&r, &got), PLS_EPROTO);
    data[0] = 0;
    data[8] = 21;
    r = pls_reader_over(data, sizeof data);
    ck_assert_int_eq(pls_restart_decode(&r, &got), PLS_EPROTO);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("node.control");
    TCase *tcase = tcase_create("control");
    tcase_set_timeout(tcase, 60);
    tcase_add_test(tcase, test_packet_survives_the_way);
    tcase_add_test(tcase, test_every_cut_and_every_wrong_length_is_refused);
    tcase_add_test(tcase, test_types_that_are_not_in_the_table_are_refused);
    tcase_add_test(tcase, test_strings_beyond_the_table_are_refused);
    tcase_add_test_raise_signal(tcase, test_encode_of_what_the_table_forbids_aborts, SIGABRT);
    tcase_add_test(tcase, test_descriptors_travel_and_never_leak);
    tcase_add_test(tcase, test_random_bytes_never_pass_unnoticed);
    tcase_add_test(tcase, test_place_options_survive_and_lies_are_refused);
    tcase_add_test(tcase, test_restart_options_survive_and_lies_are_refused);
    suite_add_tcase(suite, tcase);
    return check_run(suite);
}
