/* SPDX-License-Identifier: Apache-2.0 */
/* Two processes of one node: this one calls, the other hosts an actor. What the other's obs memory
 * says is read while it is stopped, and again, from the node, after it was killed. */
#include "node/watch.h"

#include "node/pulsing.h"
#include "shm/layout.h"
#include "tests/check_run.h"
#include "tests/fork_check.h"
#include "tests/node/world.h"

#include <check.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define CALLS 20
#define WAIT_MS 5000

/* Of the caller. */
static uint32_t answers;
static pulsing *here;
static pls_node_launched node;

/* Of the host. */
static pulsing *host;

static void answer_seen(void *context, void *user, const pulsing_message *message)
{
    (void)context;
    (void)user;
    (void)message;
    answers++;
}

static _Noreturn void stand_still(void)
{
    for (;;) {
        pause();
    }
}

/* "add" is answered at once, "raise" with an exception; "stick" never ends, which is what one wants
 * to see from outside; "linger" does not end after its answer; "suspend" goes on elsewhere, and is
 * answered by "help", which never ends. */
static pulsing_taken request_handle(void *context, void *user, const pulsing_message *message)
{
    static pulsing_origin suspended;
    (void)context;
    (void)user;
    bool raises = message->method_bytes == 5 && memcmp(message->method, "raise", 5) == 0;
    pulsing_send send;
    if (message->method_bytes == 5 && memcmp(message->method, "stick", 5) == 0) {
        stand_still();
    }
    if (message->method_bytes == 7) {
        suspended = message->origin;
        return PULSING_RUNNING;
    }
    if (message->method_bytes == 4) {
        if (pulsing_reply_begin(host, &suspended, PULSING_OK, &send) == PLS_OK) {
            (void)pulsing_commit(host, &send, 0, NULL, false);
        }
        stand_still();
    }
    if (raises) {
        pulsing_handler_raised(host, &message->origin, "ValueError: no", strlen("ValueError: no"));
    }
    if (message->origin.call_id != 0 &&
        pulsing_reply_begin(host, &message->origin, raises ? PULSING_RAISED : PULSING_OK, &send) ==
            PLS_OK) {
        (void)pulsing_commit(host, &send, 0, NULL, false);
    }
    if (message->method_bytes == 6) {
        stand_still();
    }
    return PULSING_DONE;
}

static void nothing(void *context, void *user)
{
    (void)context;
    (void)user;
}

/* The other process: tells its actor's id, then serves until it is killed. */
static _Noreturn void host_run(const char *address, int out)
{
    char trouble[PLS_TROUBLE_BYTES_MAX] = "";
    pulsing_options options = {
        .callbacks = {.request = request_handle, .reply = answer_seen, .drained = nothing}};
    if (pls_attach_connect(address, &options.control_fd, trouble) != PLS_OK ||
        pulsing_open(&options, &host, trouble) != PLS_OK) {
        fprintf(stderr, "host: %s\n", trouble);
        _exit(2);
    }
    pulsing_actor *actor = NULL;
    pulsing_actor *gone = NULL;
    pulsing_actor_options of = {.mailbox_max = 8, .concurrency_max = 4};
    pulsing_actor_names names = {.name = "adder-1",
                                 .class_name = "Adder",
                                 .name_bytes = strlen("adder-1"),
                                 .class_bytes = strlen("Adder")};
    if (pulsing_actor_add(host, &of, &actor) != PLS_OK ||
        pulsing_actor_add(host, &of, &gone) != PLS_OK) {
        _exit(3);
    }
    pulsing_actor_describe(host, actor, &names);
    pulsing_actor_remove(host, gone, "stopped");
    uint64_t id = pulsing_actor_id_of(actor);
    if (write(out, &id, sizeof id) != sizeof id) {
        _exit(4);
    }
    for (;;) {
        (void)pulsing_poll(host, 64, false);
        if (pulsing_arm(host)) {
            struct pollfd wait = {.fd = pulsing_event_fd(host), .events = POLLIN};
            int ready = poll(&wait, 1, 1000);
            pulsing_disarm(host, ready > 0);
        }
    }
}

typedef struct pair {
    pid_t pid;
    uint64_t actor;
    uint32_t slot;
    uint32_t epoch;
    pulsing_target *target;
} pair;

static void call_send(const pair *of, const char *method, int64_t deadline_ns)
{
    pulsing_send send;
    pulsing_call call = {.method = method,
                         .method_bytes = (uint8_t)strlen(method),
                         .deadline_ns = deadline_ns,
                         .sender_id = 77};
    ck_assert_int_eq(pulsing_call_begin(here, of->target, &call, &send), PLS_OK);
    memset(send.at, 1, 10);
    ck_assert_int_eq(pulsing_commit(here, &send, 10, NULL, false), PLS_OK);
}

/* One that nobody waits for. */
static void tell_send(const pair *of, const char *method)
{
    pulsing_send send;
    pulsing_call call = {
        .method = method, .method_bytes = (uint8_t)strlen(method), .tell = true, .sender_id = 77};
    ck_assert_int_eq(pulsing_call_begin(here, of->target, &call, &send), PLS_OK);
    ck_assert_int_eq(pulsing_commit(here, &send, 0, NULL, false), PLS_OK);
}

static void answers_wait(uint32_t count)
{
    double until = world_now_ms() + WAIT_MS;
    while (answers < count) {
        ck_assert_double_lt(world_now_ms(), until);
        (void)pulsing_poll(here, 64, false);
    }
}

static void pair_begin(pair *of, const char *level)
{
    char name[64];
    char trouble[PLS_TROUBLE_BYTES_MAX] = "";
    int fds[2];
    snprintf(name, sizeof name, "watch-%d", (int)getpid());
    setenv("PULSING_OBS", level, 1);
    pls_node_options options = world_options(0);
    options.name = name;
    options.listen = name;
    pulsing_options attach = {.callbacks = {.reply = answer_seen, .drained = nothing}};
    ck_assert_int_eq(pls_node_launch(&options, &node, trouble), PLS_OK);
    attach.control_fd = node.control_fd;
    ck_assert_msg(pulsing_open(&attach, &here, trouble) == PLS_OK, "%s", trouble);
    ck_assert_int_eq(pipe(fds), 0);
    of->pid = fork();
    fork_check(of->pid);
    if (of->pid == 0) {
        host_run(name, fds[1]);
    }
    close(fds[1]);
    ck_assert_int_eq(read(fds[0], &of->actor, sizeof of->actor), sizeof of->actor);
    close(fds[0]);
    of->slot = (uint32_t)(of->actor >> 56);
    of->epoch = (uint32_t)(of->actor >> 32) & 0xffffffu;
    answers = 0;
    ck_assert_int_eq(pulsing_target_get(here, of->actor, 0, false, &of->target), PLS_OK);
}

static void pair_end(pair *of)
{
    pulsing_target_release(of->target);
    pulsing_close(here);
    ck_assert_int_eq(pls_node_wait(&node, WAIT_MS), PLS_OK);
    ck_assert(world_is_clean());
}

static pls_obs_reader reader_of(uint32_t slot, uint32_t epoch)
{
    int fd = -1;
    pls_obs_reader reader;
    pls_err err = pls_attach_obs_get(pulsing_attach_of(here), slot, epoch, &fd);
    ck_assert_msg(err == PLS_OK, "%s", pls_err_name(err));
    ck_assert_int_eq(pls_obs_reader_attach(fd, &reader), PLS_OK);
    close(fd);
    return reader;
}

static const void *section(const pls_obs_reader *reader, uint32_t id, uint64_t *used_out)
{
    pls_obs_section_view view;
    const void *at = pls_obs_reader_section(reader, id, 1, &view);
    ck_assert_ptr_nonnull(at);
    *used_out = view.used;
    return at;
}

static uint64_t counter(const pls_obs_reader *reader, enum pls_obs_counter which)
{
    uint64_t used = 0;
    const _Atomic uint64_t *counters = section(reader, PLS_OBS_SECTION_COUNTERS, &used);
    ck_assert_uint_gt(used, which);
    return counters[which];
}

static void text_is(const pls_obs_reader *reader, uint32_t offset, const char *text)
{
    uint64_t used = 0;
    uint16_t len = 0;
    const uint8_t *strings = section(reader, PLS_OBS_SECTION_STRINGS, &used);
    ck_assert_uint_gt(offset, 0);
    ck_assert_uint_lt(offset, used);
    memcpy(&len, strings + offset, sizeof len);
    ck_assert_uint_eq(len, strlen(text));
    ck_assert_mem_eq(strings + offset + sizeof len, text, len);
}

static uint64_t sum(const _Atomic uint64_t *buckets)
{
    uint64_t total = 0;
    for (uint32_t i = 0; i < PLS_OBS_BUCKETS_ALL; i++) {
        total += buckets[i];
    }
    return total;
}

static const pls_obs_method *method_at(const pls_obs_reader *reader, uint64_t index,
                                       const char *name)
{
    uint64_t used = 0;
    const pls_obs_method *methods = section(reader, PLS_OBS_SECTION_METHODS, &used);
    ck_assert_uint_lt(index, used);
    text_is(reader, methods[index].method_name, name);
    return &methods[index];
}

static const pls_obs_method *method_named(const pls_obs_reader *reader, const char *name)
{
    uint64_t used = 0;
    uint64_t strings_used = 0;
    const pls_obs_method *methods = section(reader, PLS_OBS_SECTION_METHODS, &used);
    const uint8_t *strings = section(reader, PLS_OBS_SECTION_STRINGS, &strings_used);
    for (uint64_t i = 0; i < used; i++) {
        uint16_t len = 0;
        memcpy(&len, strings + methods[i].method_name, sizeof len);
        if (len == strlen(name) && memcmp(strings + methods[i].method_name + 2, name, len) == 0) {
            return &methods[i];
        }
    }
    ck_abort_msg("no method %s", name);
    return NULL;
}

static uint64_t rare_count(const pls_obs_reader *reader, uint32_t kind, uint64_t a)
{
    uint64_t used = 0;
    uint64_t count = 0;
    const pls_obs_rare *rare = section(reader, PLS_OBS_SECTION_RARE, &used);
    for (uint64_t i = 0; i < used && i < PLS_OBS_RARE_MAX; i++) {
        count += rare[i].kind == kind && (a == 0 || rare[i].a == a);
    }
    return count;
}

static uint64_t hot_count(const pls_obs_reader *reader, enum pls_obs_hot_kind kind)
{
    uint64_t used = 0;
    uint64_t count = 0;
    const pls_obs_hot_ring *rings = section(reader, PLS_OBS_SECTION_HOT, &used);
    ck_assert_uint_eq(used, 1);
    for (uint64_t i = 0; i < rings[0].head && i < PLS_OBS_HOT_MAX; i++) {
        count += (rings[0].records[i].message >> 48 & 0xff) == kind;
    }
    return count;
}

static void process_check(const pls_obs_reader *reader, const pair *of)
{
    uint64_t used = 0;
    const pls_obs_process *process = section(reader, PLS_OBS_SECTION_PROCESS, &used);
    ck_assert_uint_eq(process->pid, (uint32_t)of->pid);
    ck_assert_uint_eq(process->slot, of->slot);
    ck_assert_uint_eq(process->epoch, of->epoch);
    ck_assert_uint_eq(process->role, PLS_ROLE_HOST);
    ck_assert_uint_gt(process->start_time, 0);
    ck_assert_uint_eq(process->state, PLS_OBS_WORKING);
    ck_assert_uint_gt(process->loop_turns, 0);
    ck_assert_uint_gt(process->bell_tick, process->clock_anchor_tick - (UINT64_C(1) << 40));
}

/* The handler that never ends: for whom, what and since when. */
static void current_check(const pls_obs_reader *reader, const pair *of)
{
    uint64_t used = 0;
    const pls_obs_thread *thread = section(reader, PLS_OBS_SECTION_THREADS, &used);
    ck_assert_uint_eq(used, 1);
    ck_assert_uint_eq(thread->tid, (uint32_t)of->pid);
    ck_assert_uint_eq(thread->version % 2, 0);
    ck_assert_uint_eq(thread->actor, of->actor);
    ck_assert_uint_eq(thread->caller >> 56, pulsing_slot(here));
    ck_assert_uint_eq(thread->caller >> 32 & 0xffffffu, pulsing_epoch(here));
    ck_assert_uint_gt(thread->deadline_tick, thread->start_tick);
    ck_assert_uint_eq(thread->calls, CALLS + 3);
    (void)method_at(reader, thread->method, "stick");
}

static void actors_check(const pls_obs_reader *reader, const pair *of, bool full)
{
    uint64_t used = 0;
    const pls_obs_actor *actor = section(reader, PLS_OBS_SECTION_ACTORS, &used);
    ck_assert_uint_eq(used, 2);
    ck_assert_uint_eq(actor[0].id, of->actor);
    ck_assert_uint_eq(actor[1].id, 0); /* it was stopped */
    text_is(reader, actor[0].name, "adder-1");
    text_is(reader, actor[0].class_name, "Adder");
    ck_assert_uint_eq(actor[0].mailbox_capacity, 8);
    ck_assert_uint_eq(actor[0].taken, CALLS + 3);
    ck_assert_uint_eq(actor[0].enqueued, CALLS + 3);
    ck_assert_uint_eq(actor[0].errors, 1);
    ck_assert(!full || actor[0].busy_ns > 0);
    ck_assert_uint_eq(actor[0].current_call >> 56, pulsing_slot(here));
}

static void trail_check(const pls_obs_reader *reader)
{
    const pls_obs_method *add = method_named(reader, "add");
    text_is(reader, add->class_name, "Adder");
    ck_assert_uint_eq(add->calls, CALLS);
    ck_assert_uint_eq(add->errors, 0);
    ck_assert_uint_eq(sum(add->wait), CALLS);
    ck_assert_uint_eq(sum(add->handling), CALLS);
    ck_assert_uint_eq(method_named(reader, "raise")->errors, 1);
    ck_assert_uint_eq(method_named(reader, "suspend")->calls, 0);
    ck_assert_uint_eq(hot_count(reader, PLS_OBS_HOT_START), CALLS + 3);
    ck_assert_uint_eq(hot_count(reader, PLS_OBS_HOT_END), CALLS + 1);
    ck_assert_uint_eq(hot_count(reader, PLS_OBS_HOT_REPLY), CALLS + 1);
    ck_assert_uint_eq(rare_count(reader, PLS_OBS_RARE_LIFECYCLE, PLS_WATCH_STARTED), 2);
    ck_assert_uint_eq(rare_count(reader, PLS_OBS_RARE_LIFECYCLE, PLS_WATCH_STOPPED), 1);
    ck_assert_uint_eq(rare_count(reader, PLS_OBS_RARE_ERROR, 0), 1);
}

static void host_check(const pair *of, bool full)
{
    pls_obs_reader reader = reader_of(of->slot, of->epoch);
    process_check(&reader, of);
    /* Exact when it last slept; what came since, "suspend" and "stick", may not be there yet. */
    ck_assert_uint_ge(counter(&reader, PLS_OBS_RECEIVED), CALLS + 1);
    ck_assert_uint_le(counter(&reader, PLS_OBS_RECEIVED), CALLS + 3);
    ck_assert_uint_gt(counter(&reader, PLS_OBS_RECEIVED_BYTES), (CALLS + 1) * UINT64_C(10));
    ck_assert_uint_eq(counter(&reader, PLS_OBS_SENT), CALLS + 1);
    ck_assert_uint_eq(counter(&reader, PLS_OBS_ACTORS_STARTED), 2);
    ck_assert_uint_eq(counter(&reader, PLS_OBS_ACTORS_STOPPED), 1);
    ck_assert_uint_eq(counter(&reader, PLS_OBS_RECHECK_FOUND_WORK), 0);
    ck_assert_uint_eq(counter(&reader, PLS_OBS_OVERFLOWS), 0);
    current_check(&reader, of);
    actors_check(&reader, of, full);
    if (full) {
        trail_check(&reader);
    }
    pls_obs_reader_detach(&reader);
}

/* Calls that were answered leave no wait; "suspend" and "stick" are still waited for. */
static void waits_check(const pair *of)
{
    uint64_t used = 0;
    uint32_t open = 0;
    pls_obs_reader reader = reader_of(pulsing_slot(here), pulsing_epoch(here));
    const pls_obs_wait *waits = section(&reader, PLS_OBS_SECTION_WAITS, &used);
    for (uint64_t i = 0; i < used; i++) {
        if (waits[i].generation % 2 == 0) {
            continue;
        }
        bool stick = open == 1;
        ck_assert_uint_eq(waits[i].kind, PLS_OBS_WAIT_ASK);
        ck_assert_uint_eq(waits[i].target, of->actor);
        ck_assert_uint_eq(waits[i].target_slot, of->slot);
        ck_assert_uint_eq(waits[i].waiter, 77);
        ck_assert_uint_gt(waits[i].start_tick, 0);
        ck_assert(stick == (waits[i].deadline_tick > waits[i].start_tick));
        (void)method_at(&reader, waits[i].method, stick ? "stick" : "suspend");
        open++;
    }
    ck_assert_uint_eq(open, 2);
    ck_assert_uint_le(counter(&reader, PLS_OBS_SENT), CALLS + 3);
    ck_assert_uint_ge(counter(&reader, PLS_OBS_SENT) + PLS_OBS_BEHIND_MAX, CALLS + 3);
    ck_assert_uint_eq(rare_count(&reader, PLS_OBS_RARE_CONNECT, of->slot), 1);
    pls_obs_reader_detach(&reader);
}

/* Until the host sleeps: then its totals are exact. */
static void idle_wait(const pair *of)
{
    uint64_t used = 0;
    double until = world_now_ms() + WAIT_MS;
    pls_obs_reader reader = reader_of(of->slot, of->epoch);
    const pls_obs_process *process = section(&reader, PLS_OBS_SECTION_PROCESS, &used);
    while (process->state != PLS_OBS_IDLE || counter(&reader, PLS_OBS_SENT) < CALLS + 1) {
        ck_assert_double_lt(world_now_ms(), until);
        world_pause_ms(1);
    }
    ck_assert_uint_eq(counter(&reader, PLS_OBS_RECEIVED), CALLS + 1);
    pls_obs_reader_detach(&reader);
}

static void host_stick(const pair *of)
{
    for (uint32_t i = 0; i < CALLS; i++) {
        call_send(of, "add", 0);
        answers_wait(i + 1);
    }
    call_send(of, "raise", 0);
    answers_wait(CALLS + 1);
    idle_wait(of);
    call_send(of, "suspend", 0);
    call_send(of, "stick", pulsing_now_ns() + INT64_C(60000000000));
}

/* Until the host is in the handler that never ends: its thread record says so. */
static void stuck_wait(const pair *of)
{
    uint64_t used = 0;
    double until = world_now_ms() + WAIT_MS;
    pls_obs_reader reader = reader_of(of->slot, of->epoch);
    const pls_obs_thread *thread = section(&reader, PLS_OBS_SECTION_THREADS, &used);
    while (thread->calls != CALLS + 3 || thread->version % 2 != 0) {
        ck_assert_double_lt(world_now_ms(), until);
        world_pause_ms(1);
    }
    pls_obs_reader_detach(&reader);
    world_pause_ms(1); /* the handler itself is entered */
}

static void stop_and_kill(const char *level, bool full)
{
    pair of = {0};
    int status = 0;
    pair_begin(&of, level);
    host_stick(&of);
    stuck_wait(&of);
    ck_assert_int_eq(kill(of.pid, SIGSTOP), 0);
    ck_assert_int_eq(waitpid(of.pid, &status, WUNTRACED), of.pid);
    ck_assert(WIFSTOPPED(status));
    host_check(&of, full);
    waits_check(&of);
    ck_assert_int_eq(kill(of.pid, SIGKILL), 0);
    ck_assert_int_eq(waitpid(of.pid, &status, 0), of.pid);
    ck_assert(WIFSIGNALED(status));
    answers_wait(CALLS + 3); /* both end in the death */
    host_check(&of, full);
    pls_obs_reader reader = reader_of(pulsing_slot(here), pulsing_epoch(here));
    ck_assert_uint_ge(rare_count(&reader, PLS_OBS_RARE_DEATH, of.slot), 1);
    pls_obs_reader_detach(&reader);
    pair_end(&of);
}

START_TEST(test_a_stopped_and_a_killed_process_are_read)
{
    stop_and_kill("full", true);
}
END_TEST

START_TEST(test_counters_only_leaves_rings_and_histograms_out)
{
    stop_and_kill("counters", false);
}
END_TEST

/* Asks and tells alike: counted once each, and their text kept once. */
START_TEST(test_what_handlers_raise_is_counted_and_its_text_kept)
{
    pair of = {0};
    int status = 0;
    uint64_t used = 0;
    pair_begin(&of, "counters");
    call_send(&of, "raise", 0);
    tell_send(&of, "raise");
    tell_send(&of, "raise");
    call_send(&of, "add", 0);
    answers_wait(2);
    ck_assert_int_eq(kill(of.pid, SIGKILL), 0);
    ck_assert_int_eq(waitpid(of.pid, &status, 0), of.pid);
    pls_obs_reader reader = reader_of(of.slot, of.epoch);
    ck_assert_uint_eq(counter(&reader, PLS_OBS_ERRORS), 3);
    const pls_obs_actor *actor = section(&reader, PLS_OBS_SECTION_ACTORS, &used);
    ck_assert_uint_eq(actor[0].errors, 3);
    ck_assert_uint_eq(rare_count(&reader, PLS_OBS_RARE_ERROR, 0), 3);
    const pls_obs_error *error = section(&reader, PLS_OBS_SECTION_ERRORS, &used);
    ck_assert_uint_eq(used, 1);
    ck_assert_uint_eq(error->count, 3);
    ck_assert_uint_eq(error->text_bytes, strlen("ValueError: no"));
    ck_assert_mem_eq(error->text, "ValueError: no", strlen("ValueError: no"));
    pls_obs_reader_detach(&reader);
    pair_end(&of);
}
END_TEST

START_TEST(test_off_gives_nothing_and_works)
{
    pair of = {0};
    int fd = -1;
    int status = 0;
    pair_begin(&of, "off");
    call_send(&of, "add", 0);
    answers_wait(1);
    ck_assert_int_eq(pls_attach_obs_get(pulsing_attach_of(here), of.slot, of.epoch, &fd),
                     PLS_ENOENT);
    ck_assert_int_eq(kill(of.pid, SIGKILL), 0);
    ck_assert_int_eq(waitpid(of.pid, &status, 0), of.pid);
    pair_end(&of);
}
END_TEST

static void kill_and_end(pair *of)
{
    int status = 0;
    ck_assert_int_eq(kill(of->pid, SIGKILL), 0);
    ck_assert_int_eq(waitpid(of->pid, &status, 0), of->pid);
    pair_end(of);
}

static uint64_t held_since(const pair *of)
{
    const pls_directory *directory = pls_attach_info_of(pulsing_attach_of(here))->directory;
    return atomic_load(&directory->lines[of->slot].held_since_ns);
}

START_TEST(test_an_answer_to_another_call_leaves_its_handler_seen)
{
    pair of;
    pair_begin(&of, "counters");
    call_send(&of, "suspend", 0);
    call_send(&of, "help", 0);
    answers_wait(1);
    ck_assert_uint_ne(held_since(&of), 0);
    kill_and_end(&of);
}
END_TEST

START_TEST(test_who_has_the_answer_does_not_see_its_handler_hold_the_process)
{
    pair of;
    pair_begin(&of, "counters");
    call_send(&of, "linger", 0);
    answers_wait(1);
    ck_assert_uint_eq(held_since(&of), 0);
    kill_and_end(&of);
    pair_begin(&of, "counters");
    call_send(&of, "stick", 0);
    double until = world_now_ms() + WAIT_MS;
    while (held_since(&of) == 0) {
        ck_assert_double_lt(world_now_ms(), until);
    }
    kill_and_end(&of);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("node.watch");
    TCase *tcase = tcase_create("watch");
    tcase_set_timeout(tcase, 60);
    tcase_add_test(tcase, test_a_stopped_and_a_killed_process_are_read);
    tcase_add_test(tcase, test_counters_only_leaves_rings_and_histograms_out);
    tcase_add_test(tcase, test_what_handlers_raise_is_counted_and_its_text_kept);
    tcase_add_test(tcase, test_who_has_the_answer_does_not_see_its_handler_hold_the_process);
    tcase_add_test(tcase, test_an_answer_to_another_call_leaves_its_handler_seen);
    tcase_add_test(tcase, test_off_gives_nothing_and_works);
    suite_add_tcase(suite, tcase);
    return check_run(suite);
}
