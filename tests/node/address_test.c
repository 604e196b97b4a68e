/* SPDX-License-Identifier: Apache-2.0 */
/* Where a node listens: names, paths left over, strangers and garbage at the door. */
#include "tests/check_run.h"
#include "tests/node/world.h"

#include "base/rng.h"
#include "node/address.h"
#include "node/control.h"

#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static char directory[64];
static char path[96];

static void place_make(void)
{
    snprintf(directory, sizeof directory, "/tmp/pulsing-test-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(directory));
    snprintf(path, sizeof path, "%s/node.sock", directory);
}

static void place_remove(void)
{
    struct stat stat;
    ck_assert_int_ne(lstat(path, &stat), 0);
    ck_assert_int_eq(rmdir(directory), 0);
}

/* A second launch at the same place; returns its error, with `trouble` of the greeting. */
static pls_err second_launch(const char *listen, char *trouble)
{
    pls_node_options options = world_options(0);
    pls_node_launched node;
    pls_attach *attach;
    options.listen = listen;
    ck_assert_int_eq(pls_node_launch(&options, &node, trouble), PLS_OK);
    pls_err err = pls_attach_open(node.control_fd, PLS_ROLE_HOST, &attach, trouble);
    if (err == PLS_OK) {
        pls_attach_close(attach, false);
    } else {
        close(node.control_fd);
    }
    ck_assert_int_eq(pls_node_wait(&node, 3000), PLS_OK);
    return err;
}

START_TEST(test_second_node_of_the_same_name_is_refused_with_the_remedy)
{
    world w;
    char name[64];
    char trouble[PLS_TROUBLE_BYTES_MAX];
    pls_node_options options = world_options(0);
    place_make();
    snprintf(name, sizeof name, "twice-%d", (int)getpid());
    options.listen = _i == 0 ? name : path;
    world_begin(&w, &options);
    ck_assert_int_eq(second_launch(options.listen, trouble), PLS_EEXIST);
    ck_assert_ptr_nonnull(strstr(trouble, "choose another name"));
    world_end(&w);
    /* Free again at once. */
    ck_assert_int_eq(second_launch(options.listen, trouble), PLS_OK);
    place_remove();
}
END_TEST

START_TEST(test_path_left_by_a_killed_node_does_not_block_the_next)
{
    char trouble[PLS_TROUBLE_BYTES_MAX];
    struct stat stat;
    place_make();
    pls_node_options options = world_options(0);
    pls_node_launched node;
    options.listen = path;
    ck_assert_int_eq(pls_node_launch(&options, &node, trouble), PLS_OK);
    for (int i = 0; i < 1000 && lstat(path, &stat) != 0; i++) {
        world_pause_ms(2);
    }
    ck_assert_int_eq(lstat(path, &stat), 0);
    ck_assert_uint_eq(stat.st_mode & 077, 0);
    kill((pid_t)node.pid, SIGKILL);
    ck_assert_int_eq(pls_node_wait(&node, 3000), PLS_OK);
    close(node.control_fd);
    ck_assert_int_eq(lstat(path, &stat), 0);
    int fd;
    ck_assert_int_eq(pls_attach_connect(path, &fd, trouble), PLS_ENOENT);
    ck_assert_int_eq(second_launch(path, trouble), PLS_OK);
    place_remove();
}
END_TEST

START_TEST(test_file_that_is_no_socket_is_not_removed)
{
    char trouble[PLS_TROUBLE_BYTES_MAX];
    struct stat stat;
    place_make();
    FILE *file = fopen(path, "w");
    fputs("precious", file);
    fclose(file);
    ck_assert_int_eq(second_launch(path, trouble), PLS_EEXIST);
    ck_assert_int_eq(lstat(path, &stat), 0);
    ck_assert_int_eq(stat.st_size, 8);
    unlink(path);
    place_remove();
}
END_TEST

START_TEST(test_attach_to_nothing_and_to_another_programs_socket)
{
    char trouble[PLS_TROUBLE_BYTES_MAX];
    int fd;
    pls_attach *attach;
    pls_address address;
    place_make();
    ck_assert_int_eq(pls_attach_connect("no-such-node", &fd, trouble), PLS_ENOENT);
    ck_assert_ptr_nonnull(strstr(trouble, "no-such-node"));
    ck_assert_int_eq(pls_attach_connect("", &fd, trouble), PLS_EINVAL);
    ck_assert_int_eq(pls_attach_connect(path, &fd, trouble), PLS_ENOENT);
    /* A stream socket. */
    ck_assert_int_eq(pls_address_make(path, &address), PLS_OK);
    int other = socket(AF_UNIX, SOCK_STREAM, 0);
    ck_assert_int_eq(bind(other, (struct sockaddr *)&address.un, address.len), 0);
    ck_assert_int_eq(listen(other, 1), 0);
    ck_assert_int_eq(pls_attach_connect(path, &fd, trouble), PLS_EPROTO);
    close(other);
    unlink(path);
    /* A packet socket that answers with something else. */
    other = socket(AF_UNIX, SOCK_SEQPACKET, 0);
    ck_assert_int_eq(bind(other, (struct sockaddr *)&address.un, address.len), 0);
    ck_assert_int_eq(listen(other, 1), 0);
    ck_assert_int_eq(pls_attach_connect(path, &fd, trouble), PLS_OK);
    int accepted = accept(other, NULL, NULL);
    ck_assert_int_eq(write(accepted, "hello, who are you?", 19), 19);
    ck_assert_int_eq(pls_attach_open(fd, PLS_ROLE_HOST, &attach, trouble), PLS_EPROTO);
    close(fd);
    close(accepted);
    close(other);
    unlink(path);
    place_remove();
}
END_TEST

START_TEST(test_process_of_another_user_is_refused_at_both_ends)
{
    world w;
    int status;
    if (geteuid() != 0) {
        /* Only root can become somebody else here; the check itself is the kernel's credentials. */
        return;
    }
    pls_node_options options = world_options(0);
    place_make();
    options.listen = path;
    world_begin(&w, &options);
    chmod(directory, 0755);
    chmod(path, 0777);
    pid_t stranger = fork();
    if (stranger == 0) {
        char trouble[PLS_TROUBLE_BYTES_MAX];
        int fd;
        struct sockaddr_un un = {.sun_family = AF_UNIX};
        pls_control_packet packet;
        static uint8_t bytes[PLS_CONTROL_PACKET_BYTES_MAX];
        if (setuid(12345) != 0 || pls_attach_connect(path, &fd, trouble) != PLS_EPERM) {
            _exit(1);
        }
        /* Our own client refuses; one that does not is refused by the node. */
        snprintf(un.sun_path, sizeof un.sun_path, "%s", path);
        fd = socket(AF_UNIX, SOCK_SEQPACKET, 0);
        if (connect(fd, (struct sockaddr *)&un, sizeof un) != 0) {
            _exit(2);
        }
        struct pollfd wait = {.fd = fd, .events = POLLIN};
        poll(&wait, 1, 2000);
        _exit(pls_control_receive(fd, PLS_CONTROL_AT_CLIENT, bytes, &packet) == PLS_ECLOSED ? 0
                                                                                            : 3);
    }
    waitpid(stranger, &status, 0);
    ck_assert(WIFEXITED(status));
    ck_assert_int_eq(WEXITSTATUS(status), 0);
    world_end(&w);
    place_remove();
}
END_TEST

static bool node_answers(world *w)
{
    uint32_t request;
    pls_attach_event event;
    ck_assert_int_eq(pls_attach_names_list(w->attach, &request), PLS_OK);
    world_reply(w, request, &event, 2000);
    return event.status == PLS_OK;
}

START_TEST(test_garbage_at_the_door_costs_only_its_sender)
{
    world w;
    char name[64];
    char trouble[PLS_TROUBLE_BYTES_MAX];
    static uint8_t bytes[PLS_CONTROL_PACKET_BYTES_MAX];
    pls_control_packet got;
    pls_rng rng;
    pls_node_options options = world_options(0);
    snprintf(name, sizeof name, "garbage-%d", (int)getpid());
    options.listen = name;
    world_begin(&w, &options);
    pls_rng_init(&rng, 5);
    for (int i = 0; i < 200; i++) {
        int fd;
        ck_assert_int_eq(pls_attach_connect(name, &fd, trouble), PLS_OK);
        size_t len = 1 + pls_rng_below(&rng, 300);
        for (size_t k = 0; k < len; k++) {
            bytes[k] = (uint8_t)pls_rng_next(&rng);
        }
        int pair[2] = {STDIN_FILENO, STDOUT_FILENO};
        ck_assert_int_eq(pls_control_send(fd, bytes, len, pair, pls_rng_below(&rng, 3)), PLS_OK);
        struct pollfd wait = {.fd = fd, .events = POLLIN};
        ck_assert_int_eq(poll(&wait, 1, 2000), 1);
        ck_assert_int_eq(pls_control_receive(fd, PLS_CONTROL_AT_CLIENT, bytes, &got), PLS_ECLOSED);
        close(fd);
    }
    ck_assert(node_answers(&w));
    world_end(&w);
}
END_TEST

/* Well-formed packets of every type with random numbers, from a process that has greeted. */
START_TEST(test_nonsense_requests_are_answered_and_harm_nobody)
{
    world w;
    char name[64];
    char trouble[PLS_TROUBLE_BYTES_MAX];
    static uint8_t bytes[PLS_CONTROL_PACKET_BYTES_MAX];
    pls_rng rng;
    pls_attach *attach = NULL;
    pls_node_options options = world_options(1);
    snprintf(name, sizeof name, "nonsense-%d", (int)getpid());
    options.listen = name;
    world_begin(&w, &options);
    pls_rng_init(&rng, 6);
    int null = open("/dev/null", O_RDWR);
    for (int i = 0; i < 20000; i++) {
        if (attach == NULL) {
            int fd;
            ck_assert_int_eq(pls_attach_connect(name, &fd, trouble), PLS_OK);
            ck_assert_int_eq(pls_attach_open(fd, PLS_ROLE_HOST, &attach, trouble), PLS_OK);
        }
        uint16_t type = (uint16_t)(1 + pls_rng_below(&rng, PLS_CONTROL_CLIENT_TYPES_END - 1));
        if (type == PLS_CONTROL_SHUTDOWN || type == PLS_CONTROL_PLACE) {
            continue;
        }
        uint8_t head_bytes[PLS_CONTROL_PACKET_BYTES_MAX];
        pls_control_head head = {.magic = PLS_CONTROL_MAGIC,
                                 .type = type,
                                 .fd_count = (uint16_t)pls_rng_below(&rng, 4),
                                 .request = (uint32_t)i,
                                 .slot = pls_rng_below(&rng, 300),
                                 .epoch = pls_rng_below(&rng, 3),
                                 .actor = pls_rng_next(&rng),
                                 .number = pls_rng_below(&rng, 3) == 0 ? pls_rng_next(&rng)
                                                                       : pls_rng_below(&rng, 4),
                                 .flags = pls_rng_below(&rng, 8),
                                 .name_bytes = (uint16_t)pls_rng_below(&rng, 20),
                                 .data_bytes = pls_rng_below(&rng, 64)};
        memcpy(head_bytes, &head, sizeof head);
        size_t strings = head.name_bytes + head.data_bytes;
        for (size_t k = 0; k < strings; k++) {
            head_bytes[sizeof head + k] = (uint8_t)pls_rng_below(&rng, 4);
        }
        int fds[4] = {null, null, null, null};
        pls_err err = pls_control_send(pls_attach_fd(attach), head_bytes, sizeof head + strings,
                                       fds, head.fd_count);
        pls_control_packet got;
        while (err == PLS_OK && pls_control_receive(pls_attach_fd(attach), PLS_CONTROL_AT_CLIENT,
                                                    bytes, &got) == PLS_OK) {
            pls_control_packet_drop(&got);
        }
        if (err == PLS_ECLOSED) {
            pls_attach_close(attach, true);
            attach = NULL;
        }
    }
    ck_assert(node_answers(&w));
    world_end(&w);
    pls_attach_close(attach, true);
}
END_TEST

START_TEST(test_other_version_or_layout_is_refused_with_the_reason)
{
    world w;
    char name[64];
    char trouble[PLS_TROUBLE_BYTES_MAX];
    static uint8_t bytes[PLS_CONTROL_PACKET_BYTES_MAX];
    int fd;
    int self = memfd_create("self", 0);
    pls_node_options options = world_options(0);
    snprintf(name, sizeof name, "version-%d", (int)getpid());
    options.listen = name;
    world_begin(&w, &options);
    ck_assert_int_eq(pls_attach_connect(name, &fd, trouble), PLS_OK);
    pls_control_packet hello = {.type = PLS_CONTROL_HELLO,
                                .request = 1,
                                .slot = PLS_ROLE_HOST,
                                .epoch = _i == 0 ? PLS_CONTROL_VERSION + 1 : PLS_CONTROL_VERSION,
                                .number = _i == 1 ? pls_control_layout_hash() + 1
                                                  : pls_control_layout_hash(),
                                .fds = {self},
                                .fd_count = 1};
    size_t len = pls_control_encode(&hello, bytes);
    ck_assert_int_eq(pls_control_send(fd, bytes, len, hello.fds, 1), PLS_OK);
    struct pollfd wait = {.fd = fd, .events = POLLIN};
    poll(&wait, 1, 2000);
    pls_control_packet got;
    ck_assert_int_eq(pls_control_receive(fd, PLS_CONTROL_AT_CLIENT, bytes, &got), PLS_OK);
    if (_i < 2) {
        ck_assert_uint_eq(got.status, PLS_EVERSION);
        ck_assert_ptr_nonnull(memmem(got.text, got.text_bytes, "install one version", 19));
    } else {
        /* The right version, but what came with it is no pidfd. */
        ck_assert_uint_eq(got.status, PLS_EPROTO);
    }
    pls_control_packet_drop(&got);
    close(fd);
    world_end(&w);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("node.address");
    TCase *tcase = tcase_create("address");
    tcase_set_timeout(tcase, 60);
    tcase_add_loop_test(tcase, test_second_node_of_the_same_name_is_refused_with_the_remedy, 0, 2);
    tcase_add_test(tcase, test_path_left_by_a_killed_node_does_not_block_the_next);
    tcase_add_test(tcase, test_file_that_is_no_socket_is_not_removed);
    tcase_add_test(tcase, test_attach_to_nothing_and_to_another_programs_socket);
    tcase_add_test(tcase, test_process_of_another_user_is_refused_at_both_ends);
    tcase_add_test(tcase, test_garbage_at_the_door_costs_only_its_sender);
    tcase_add_test(tcase, test_nonsense_requests_are_answered_and_harm_nobody);
    tcase_add_loop_test(tcase, test_other_version_or_layout_is_refused_with_the_reason, 0, 3);
    suite_add_tcase(suite, tcase);
    return check_run(suite);
}
