/* SPDX-License-Identifier: Apache-2.0 */
/* What the node says to a process that is waiting for another answer of it, and what a process says
 * to a node whose socket is full: both are kept, the socket does not show them, and the program's
 * loop has to be told. */
#include "tests/check_run.h"
#include "tests/node/crew.h"

#include <check.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define WAIT_MS 5000
#define NAME "late"

static crew c;
static crew_member *const a = &c.m[0];
static crew_member *const b = &c.m[1];

/* `a` waits for a name that `b` then registers: the answer is in a's socket on return. */
static uint32_t answer_arrives(void)
{
    uint32_t found = 0;
    uint32_t request = 0;
    pls_attach_event event = {.type = PLS_EVENT_ROUTE};
    pls_attach *attach = pulsing_attach_of(a->p);
    pls_name_entry entry = {
        .actor = b->actor_id, .name = NAME, .name_bytes = strlen(NAME), .class_name = ""};
    double until = world_now_ms() + WAIT_MS;
    ck_assert_int_eq(pls_attach_name_find(attach, NAME, strlen(NAME), PLS_WAIT_FOREVER, &found),
                     PLS_OK);
    ck_assert_int_eq(pls_attach_name_register(pulsing_attach_of(b->p), &entry, &request), PLS_OK);
    while (pulsing_notice(b->p, &event) != PLS_OK || event.request != request) {
        ck_assert(world_now_ms() < until);
        (void)!pulsing_wait(b->p, 10);
    }
    ck_assert_int_eq(event.status, PLS_OK);
    struct pollfd socket = {.fd = pls_attach_fd(attach), .events = POLLIN};
    ck_assert_int_eq(poll(&socket, 1, WAIT_MS), 1);
    return found;
}

/* A call of `a` that waits for its own answer. */
static void peer_ask(void)
{
    pls_attach_peer peer = {.inbox_fd = -1, .bell_fd = -1};
    ck_assert_int_eq(pls_attach_peer_get(pulsing_attach_of(a->p), pulsing_slot(b->p),
                                         pulsing_epoch(b->p), &peer),
                     PLS_OK);
    close(peer.inbox_fd);
    close(peer.bell_fd);
}

static void kept_begin(uint32_t *found)
{
    crew_begin(&c);
    crew_host(b, 8, PULSING_WAIT, 0);
    crew_turn(&c);
    *found = answer_arrives();
    ck_assert(!pls_attach_has_kept(pulsing_attach_of(a->p)));
    ck_assert_uint_eq(a->notice_count, 0);
    peer_ask();
}

static void found_check(uint32_t found)
{
    pls_attach_event event = {.type = PLS_EVENT_ROUTE};
    ck_assert_int_eq(pulsing_notice(a->p, &event), PLS_OK);
    ck_assert_int_eq(event.type, PLS_EVENT_REPLY);
    ck_assert_uint_eq(event.request, found);
    ck_assert_int_eq(event.status, PLS_OK);
    ck_assert_uint_eq(event.actor, b->actor_id);
    ck_assert(!pls_attach_has_kept(pulsing_attach_of(a->p)));
    ck_assert_int_eq(pulsing_notice(a->p, &event), PLS_EEMPTY);
}

START_TEST(test_an_answer_that_comes_during_another_call_is_told_of)
{
    uint32_t found = 0;
    kept_begin(&found);
    ck_assert(pls_attach_has_kept(pulsing_attach_of(a->p)));
    ck_assert_uint_eq(a->notice_count, 1);
    struct pollfd socket = {.fd = pls_attach_fd(pulsing_attach_of(a->p)), .events = POLLIN};
    ck_assert_int_eq(poll(&socket, 1, 0), 0);
    found_check(found);
    crew_end(&c);
}
END_TEST

START_TEST(test_a_wait_does_not_sleep_over_a_kept_answer)
{
    uint32_t found = 0;
    kept_begin(&found);
    ck_assert_int_eq(pulsing_wait(a->p, WAIT_MS), PLS_OK);
    found_check(found);
    crew_end(&c);
}
END_TEST

/* How many questions `a` asks until one waits for room. Nothing is asserted here: a test that ends
 * would leave the node stopped. */
static uint32_t socket_fill(bool *early)
{
    uint32_t sent = 0;
    uint32_t request = 0;
    pls_attach *attach = pulsing_attach_of(a->p);
    kill((pid_t)c.node.pid, SIGSTOP);
    while (!pls_attach_wants_write(attach) && sent < PLS_ATTACH_QUEUE_MAX) {
        *early = *early || a->notice_count != 0;
        (void)!pls_attach_name_find(attach, NAME, strlen(NAME), 0, &request);
        sent++;
    }
    kill((pid_t)c.node.pid, SIGCONT);
    return sent;
}

START_TEST(test_a_packet_that_waits_for_room_is_told_of_and_goes_out_later)
{
    bool early = false;
    uint32_t answered = 0;
    pls_attach_event event;
    crew_begin(&c);
    crew_turn(&c);
    uint32_t sent = socket_fill(&early);
    ck_assert(pls_attach_wants_write(pulsing_attach_of(a->p)));
    ck_assert(!early);
    ck_assert_uint_eq(a->notice_count, 1);
    for (double until = world_now_ms() + WAIT_MS; answered < sent;) {
        ck_assert_msg(world_now_ms() < until, "%u of %u were answered", answered, sent);
        (void)!pulsing_wait(a->p, WAIT_MS);
        while (pulsing_notice(a->p, &event) == PLS_OK) {
            answered += event.type == PLS_EVENT_REPLY && event.status == PLS_ENOENT;
        }
    }
    ck_assert(!pls_attach_wants_write(pulsing_attach_of(a->p)));
    crew_end(&c);
}
END_TEST

int main(int argc, char **argv)
{
    crew_peer_main(argc, argv);
    Suite *suite = suite_create("node.kept");
    TCase *tests = tcase_create("kept");
    tcase_set_timeout(tests, 30);
    tcase_add_test(tests, test_an_answer_that_comes_during_another_call_is_told_of);
    tcase_add_test(tests, test_a_wait_does_not_sleep_over_a_kept_answer);
    tcase_add_test(tests, test_a_packet_that_waits_for_room_is_told_of_and_goes_out_later);
    suite_add_tcase(suite, tests);
    return check_run(suite);
}
