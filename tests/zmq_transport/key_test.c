/* SPDX-License-Identifier: Apache-2.0 */
/* Keys: their text, who may read their file, and what is derived from them. */
#include "tests/zmq_transport/rig.h"
#include "zmq_transport/key.h"

#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const char text[] = "000102030405060708090a0b0c0d0e0f101112131415161718191A1B1C1D1E1F";

static void file_write(char path[64], const char *content, mode_t mode)
{
    snprintf(path, 64, "/tmp/pulsing-key-XXXXXX");
    int fd = mkstemp(path);
    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(write(fd, content, strlen(content)), (ssize_t)strlen(content));
    ck_assert_int_eq(fchmod(fd, mode), 0);
    close(fd);
}

START_TEST(test_a_key_is_64_hexadecimal_digits)
{
    pls_zmq_key key;
    char spaced[80];
    ck_assert_int_eq(pls_zmq_key_parse(text, 64, &key), PLS_OK);
    ck_assert_uint_eq(key.bytes[31], 0x1f);
    snprintf(spaced, sizeof spaced, " \n%s\r\n", text);
    ck_assert_int_eq(pls_zmq_key_parse(spaced, strlen(spaced), &key), PLS_OK);
    ck_assert_int_eq(pls_zmq_key_parse(text, 63, &key), PLS_EINVAL);
    ck_assert_int_eq(pls_zmq_key_parse(text, 0, &key), PLS_EINVAL);
    spaced[10] = 'g';
    ck_assert_int_eq(pls_zmq_key_parse(spaced, strlen(spaced), &key), PLS_EINVAL);
    memset(spaced, '0', 64);
    ck_assert_int_eq(pls_zmq_key_parse(spaced, 64, &key), PLS_EINVAL);
}
END_TEST

START_TEST(test_a_file_that_others_may_read_is_refused)
{
    static const mode_t modes[] = {0644, 0640, 0604, 0620, 0660, 0601};
    pls_zmq_key key;
    char path[64];
    for (unsigned i = 0; i < sizeof modes / sizeof modes[0]; i++) {
        file_write(path, text, modes[i]);
        ck_assert_int_eq(pls_zmq_key_load(path, &key), PLS_EPERM);
        unlink(path);
    }
    file_write(path, text, 0600);
    ck_assert_int_eq(pls_zmq_key_load(path, &key), PLS_OK);
    ck_assert_uint_eq(key.bytes[1], 1);
    unlink(path);
    file_write(path, text, 0400);
    ck_assert_int_eq(pls_zmq_key_load(path, &key), PLS_OK);
    unlink(path);
    ck_assert_int_eq(pls_zmq_key_load(path, &key), PLS_ENOENT);
    ck_assert_int_eq(pls_zmq_key_load("/dev/null", &key), PLS_EINVAL);
    file_write(path, "too short", 0600);
    ck_assert_int_eq(pls_zmq_key_load(path, &key), PLS_EINVAL);
    unlink(path);
}
END_TEST

START_TEST(test_another_users_file_is_refused)
{
    pls_zmq_key key;
    char path[64];
    if (geteuid() != 0) {
        /* Only root can make a file that belongs to somebody else. */
        return;
    }
    file_write(path, text, 0600);
    ck_assert_int_eq(chown(path, 12345, 12345), 0);
    ck_assert_int_eq(pls_zmq_key_load(path, &key), PLS_EPERM);
    unlink(path);
}
END_TEST

START_TEST(test_a_key_comes_from_the_environment)
{
    pls_zmq_key key;
    unsetenv("PULSING_TEST_KEY");
    ck_assert_int_eq(pls_zmq_key_from_environment("PULSING_TEST_KEY", &key), PLS_ENOENT);
    setenv("PULSING_TEST_KEY", text, 1);
    ck_assert_int_eq(pls_zmq_key_from_environment("PULSING_TEST_KEY", &key), PLS_OK);
    setenv("PULSING_TEST_KEY", "x", 1);
    ck_assert_int_eq(pls_zmq_key_from_environment("PULSING_TEST_KEY", &key), PLS_EINVAL);
}
END_TEST

START_TEST(test_what_is_derived_follows_from_the_key_alone)
{
    pls_zmq_key one = rig_key(1);
    pls_zmq_key two = rig_key(2);
    pls_zmq_pair first;
    pls_zmq_pair again;
    pls_zmq_pair other;
    uint8_t mac[3][PLS_ZMQ_MAC_BYTES];
    pls_zmq_key_server(&one, &first);
    pls_zmq_key_server(&one, &again);
    pls_zmq_key_server(&two, &other);
    ck_assert(pls_zmq_key_equal(&first, &again, sizeof first));
    ck_assert(!pls_zmq_key_equal(first.public_key, other.public_key, sizeof first.public_key));
    ck_assert(!pls_zmq_key_equal(first.secret_key, one.bytes, sizeof one.bytes));
    pls_zmq_key_mac(&one, first.public_key, "abc", 3, mac[0]);
    pls_zmq_key_mac(&two, first.public_key, "abc", 3, mac[1]);
    pls_zmq_key_mac(&one, other.public_key, "abc", 3, mac[2]);
    ck_assert(!pls_zmq_key_equal(mac[0], mac[1], sizeof mac[0]));
    ck_assert(!pls_zmq_key_equal(mac[0], mac[2], sizeof mac[0]));
}
END_TEST

int main(void)
{
    const TTest *const tests[] = {
        test_a_key_is_64_hexadecimal_digits,
        test_a_file_that_others_may_read_is_refused,
        test_another_users_file_is_refused,
        test_a_key_comes_from_the_environment,
        test_what_is_derived_follows_from_the_key_alone,
    };
    return rig_main("zmq_transport.key", tests, sizeof tests / sizeof tests[0]);
}
