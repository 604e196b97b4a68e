/* SPDX-License-Identifier: Apache-2.0 */
/* Addresses as users write them, and names that become addresses beside the loop. */
#include "node/process/lookup.h"
#include "node/process/reach.h"
#include "tests/check_run.h"

#include <check.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>

static const struct {
    const char *text;
    const char *host; /* NULL: refused */
    uint16_t port;
    const char *endpoint; /* NULL: the host is a name */
} cases[] = {
    {"127.0.0.1:8000", "127.0.0.1", 8000, "tcp://127.0.0.1:8000"},
    {"tcp://10.0.0.7:0", "10.0.0.7", 0, "tcp://10.0.0.7:0"},
    {"[::1]:65535", "::1", 65535, "tcp://[::1]:65535"},
    {"head-node.svc.local:7100", "head-node.svc.local", 7100, NULL},
    {"::1:80", NULL, 0, NULL},
    {"host", NULL, 0, NULL},
    {":80", NULL, 0, NULL},
    {"[]:80", NULL, 0, NULL},
    {"host:", NULL, 0, NULL},
    {"host:65536", NULL, 0, NULL},
    {"host:-1", NULL, 0, NULL},
    {"host:80x", NULL, 0, NULL},
    {"", NULL, 0, NULL},
};

START_TEST(test_what_users_write_becomes_host_and_port_or_is_refused)
{
    pls_reach reach;
    char endpoint[PLS_ENDPOINT_CAPACITY];
    pls_err err = pls_reach_parse(cases[_i].text, &reach);
    ck_assert_int_eq(err, cases[_i].host == NULL ? PLS_EINVAL : PLS_OK);
    if (err != PLS_OK) {
        return;
    }
    ck_assert_str_eq(reach.host, cases[_i].host);
    ck_assert_uint_eq(reach.port, cases[_i].port);
    err = pls_reach_endpoint(&reach, endpoint);
    ck_assert_int_eq(err, cases[_i].endpoint == NULL ? PLS_ENOENT : PLS_OK);
    if (err == PLS_OK) {
        ck_assert_str_eq(endpoint, cases[_i].endpoint);
        ck_assert_str_eq(pls_endpoint_plain(endpoint), cases[_i].endpoint + strlen("tcp://"));
    }
}
END_TEST

START_TEST(test_a_host_longer_than_any_name_is_refused)
{
    pls_reach reach;
    char text[PLS_HOST_BYTES_MAX + 16];
    memset(text, 'a', sizeof text);
    memcpy(text + PLS_HOST_BYTES_MAX, ":80", sizeof ":80");
    ck_assert_int_eq(pls_reach_parse(text, &reach), PLS_OK);
    memset(text, 'a', sizeof text);
    memcpy(text + PLS_HOST_BYTES_MAX + 1, ":80", sizeof ":80");
    ck_assert_int_eq(pls_reach_parse(text, &reach), PLS_EINVAL);
}
END_TEST

START_TEST(test_wildcard_and_loopback_are_told_apart)
{
    ck_assert(pls_endpoint_is_wildcard("tcp://0.0.0.0:1"));
    ck_assert(pls_endpoint_is_wildcard("tcp://[::]:1"));
    ck_assert(!pls_endpoint_is_wildcard("tcp://127.0.0.1:1"));
    ck_assert(!pls_endpoint_is_wildcard("nonsense"));
    ck_assert(pls_endpoint_is_loopback("tcp://127.9.0.1:1"));
    ck_assert(pls_endpoint_is_loopback("tcp://[::1]:1"));
    ck_assert(!pls_endpoint_is_loopback("tcp://128.0.0.1:1"));
    ck_assert(!pls_endpoint_is_loopback("tcp://0.0.0.0:1"));
    ck_assert(!pls_endpoint_is_loopback(""));
}
END_TEST

START_TEST(test_the_address_towards_the_loopback_is_on_it)
{
    char host[PLS_HOST_BYTES_MAX + 1];
    ck_assert_int_eq(pls_endpoint_local("tcp://127.0.0.1:9", host), PLS_OK);
    ck_assert_str_eq(host, "127.0.0.1");
    ck_assert_int_eq(pls_endpoint_local("localhost:9", host), PLS_EINVAL);
}
END_TEST

#define ANSWER_MS 20000

START_TEST(test_names_are_answered_beside_each_other_and_the_full_table_says_so)
{
    pls_lookup *lookup;
    pls_lookup_answer answer;
    int fd;
    bool good = false;
    bool bad = false;
    pls_reach here = {"localhost", 7100};
    pls_reach nowhere = {"no-such-host.invalid", 7100};
    ck_assert_int_eq(pls_lookup_create(&lookup, &fd), PLS_OK);
    ck_assert_int_eq(pls_lookup_answered(lookup, 0, &answer), PLS_EEMPTY);
    ck_assert_int_eq(pls_lookup_ask(lookup, &nowhere, 1), PLS_OK);
    ck_assert_int_eq(pls_lookup_ask(lookup, &here, 2), PLS_OK);
    struct pollfd wait = {.fd = fd, .events = POLLIN};
    ck_assert_int_eq(poll(&wait, 1, ANSWER_MS), 1);
    for (int i = 0; i < 2; i++) {
        ck_assert_int_eq(pls_lookup_answered(lookup, ANSWER_MS, &answer), PLS_OK);
        bad = bad || (answer.tag == 1 && answer.count == 0 && answer.why[0] != 0);
        good = good || (answer.tag == 2 && answer.count > 0 &&
                        pls_endpoint_is_loopback(answer.endpoints[0]));
    }
    ck_assert(good);
    ck_assert(bad);
    for (uint32_t i = 0; i < PLS_LOOKUPS_MAX; i++) {
        ck_assert_int_eq(pls_lookup_ask(lookup, &here, i), PLS_OK);
    }
    ck_assert_int_eq(pls_lookup_ask(lookup, &here, 0), PLS_EFULL);
    /* With answers not taken and questions under way. */
    pls_lookup_destroy(lookup);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("node.reach");
    TCase *tcase = tcase_create("reach");
    tcase_set_timeout(tcase, 60);
    tcase_add_loop_test(tcase, test_what_users_write_becomes_host_and_port_or_is_refused, 0,
                        (int)(sizeof cases / sizeof cases[0]));
    tcase_add_test(tcase, test_a_host_longer_than_any_name_is_refused);
    tcase_add_test(tcase, test_wildcard_and_loopback_are_told_apart);
    tcase_add_test(tcase, test_the_address_towards_the_loopback_is_on_it);
    tcase_add_test(tcase, test_names_are_answered_beside_each_other_and_the_full_table_says_so);
    suite_add_tcase(suite, tcase);
    return check_run(suite);
}
