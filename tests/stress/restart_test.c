/* SPDX-License-Identifier: Apache-2.0 */
/* A real node and real processes that are killed. Two of them host the same restartable actor, one
 * after the other; the handler notes in shared memory what it has handled, so that a message that
 * is handled twice, or ends as if it had been handled and was not, is seen. And one caller waits,
 * asleep, for a process that dies. */
#include "base/rng.h"
#include "node/attach.h"
#include "node/launch.h"
#include "node/pulsing.h"
#include "tests/check_run.h"
#include "tests/fork_check.h"

#include <check.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define HOSTS 2
#define MESSAGES 24
#define LATE 3 /* of them, sent while the host is dying */
#define ROUNDS 12
#define TIMEOUT_S 120
#define LIMIT_MS 6000
#define NOTICE_MS 1000
#define TURN_MS 20
#define NOT_ENDED 255

/* What the first host does with the message at which it is to die; that its sender hears of the
 * actor's new place before it has looked at the death; and that the sender goes on sending while
 * the host is known to be dying, and its end is not confirmed. */
enum manner { DIES_IN_HANDLER, KEEPS_RUNNING, MOVES_UNSEEN, SENT_WHILE_DYING, MANNERS };

typedef struct scoreboard {
    _Atomic uint32_t handled[MESSAGES];
    _Atomic uint64_t actor_id;
    _Atomic uint32_t slots[HOSTS];
    _Atomic uint32_t epochs[HOSTS]; /* 0: not there yet */
    _Atomic uint32_t queued;        /* in the first host's mailbox */
    _Atomic uint32_t fatal;         /* the message at which the first host dies */
    _Atomic uint32_t manner;
    _Atomic uint32_t hang_up; /* the first host is to let go of its node, and to stand still */
} scoreboard;

typedef struct side {
    pulsing *p;
    pulsing_actor *actor;
    scoreboard *score;
    uint32_t host;           /* which one this process is */
    uint8_t ended[MESSAGES]; /* status of each message, or NOT_ENDED */
    uint32_t ended_count;
} side;

static pls_node_launched node;
static char node_name[64];
static scoreboard *score;
static side sender;
static pid_t hosts[HOSTS];

static double now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec * 1e3 + (double)now.tv_nsec / 1e6;
}

/* Handles what comes within `ms`. */
static void turn(int ms)
{
    pls_err err = pulsing_wait(sender.p, ms);
    ck_assert(err == PLS_OK || err == PLS_ETIMEDOUT);
}

static pulsing_taken on_request(void *context, void *user, const pulsing_message *message)
{
    side *s = context;
    uint32_t number = 0;
    memcpy(&number, message->payload, sizeof number);
    bool fatal = s->host == 0 && number == atomic_load(&s->score->fatal);
    atomic_fetch_add(&s->score->handled[number], 1);
    if (fatal && atomic_load(&s->score->manner) == DIES_IN_HANDLER) {
        kill(getpid(), SIGKILL);
    }
    if (fatal) {
        return PULSING_RUNNING;
    }
    pulsing_send send;
    if (pulsing_reply_begin(s->p, &message->origin, PULSING_OK, &send) == PLS_OK) {
        (void)pulsing_commit(s->p, &send, 0, NULL, false);
    }
    return PULSING_DONE;
}

/* The sender's: where the actor is, the test tells it by itself. */
static void on_locate(void *context, uint64_t actor_id)
{
}

static void on_reply(void *context, void *user, const pulsing_message *message)
{
    side *s = context;
    uint32_t number = (uint32_t)(uintptr_t)user;
    ck_assert_uint_lt(number, MESSAGES);
    ck_assert_msg(s->ended[number] == NOT_ENDED, "message %u ended twice", number);
    s->ended[number] = message->status;
    s->ended_count++;
}

/* Hosts the actor until the end of the parent, in a process of its own. */
static void host_run(uint32_t host)
{
    char trouble[PLS_TROUBLE_BYTES_MAX] = "";
    static side s;
    s.score = score;
    s.host = host;
    pulsing_options options = {
        .callbacks = {.context = &s, .request = on_request, .reply = on_reply}};
    if (pls_attach_connect(node_name, &options.control_fd, trouble) != PLS_OK ||
        pulsing_open(&options, &s.p, trouble) != PLS_OK) {
        fprintf(stderr, "%s\n", trouble);
        _exit(1);
    }
    pulsing_actor_options actor = {
        .id = atomic_load(&score->actor_id), .mailbox_max = MESSAGES * 2, .concurrency_max = 1};
    if (pulsing_actor_add(s.p, &actor, &s.actor) != PLS_OK) {
        _exit(1);
    }
    atomic_store(&score->actor_id, pulsing_actor_id_of(s.actor));
    atomic_store(&score->slots[host], pulsing_slot(s.p));
    atomic_store(&score->epochs[host], pulsing_epoch(s.p));
    for (;;) {
        if (pulsing_wait(s.p, TURN_MS) == PLS_ESYS) {
            _exit(1);
        }
        if (host == 0) {
            atomic_store(&score->queued, pulsing_actor_queued(s.actor));
        }
        if (host == 0 && atomic_load(&score->hang_up) != 0) {
            shutdown(pls_attach_fd(pulsing_attach_of(s.p)), SHUT_RDWR);
            pause();
        }
    }
}

static void host_start(uint32_t host)
{
    pid_t parent = getpid();
    hosts[host] = fork();
    fork_check(hosts[host]);
    if (hosts[host] == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        /* Nothing of the parent's attachment may be kept open by this process. */
        if (getppid() != parent || close_range(3, ~0u, 0) != 0) {
            _exit(1);
        }
        host_run(host);
    }
    double limit_ms = now_ms() + LIMIT_MS;
    while (atomic_load(&score->epochs[host]) == 0) {
        ck_assert_msg(now_ms() < limit_ms, "host %u did not come", host);
        turn(1);
    }
}

static void host_end(uint32_t host)
{
    kill(hosts[host], SIGKILL);
    ck_assert_int_eq(waitpid(hosts[host], NULL, 0), hosts[host]);
    hosts[host] = 0;
}

static void setup(void)
{
    char trouble[PLS_TROUBLE_BYTES_MAX] = "";
    const char *program = getenv("STRESS_NODE");
    snprintf(node_name, sizeof node_name, "stress-restart-%d", (int)getpid());
    pls_node_options options = {.program = program != NULL ? program : PLS_STRESS_NODE,
                                .name = node_name,
                                .listen = node_name};
    score = mmap(NULL, sizeof *score, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    ck_assert_ptr_ne(score, MAP_FAILED);
    ck_assert_msg(pls_node_launch(&options, &node, trouble) == PLS_OK, "%s", trouble);
    pulsing_options open = {
        .control_fd = node.control_fd,
        .callbacks = {
            .context = &sender, .request = on_request, .reply = on_reply, .locate = on_locate}};
    ck_assert_msg(pulsing_open(&open, &sender.p, trouble) == PLS_OK, "%s", trouble);
}

static void teardown(void)
{
    pulsing_close(sender.p);
    ck_assert_int_eq(pls_node_wait(&node, LIMIT_MS), PLS_OK);
}

static void round_begin(enum manner manner, uint32_t fatal)
{
    memset(score, 0, sizeof *score);
    memset(sender.ended, NOT_ENDED, sizeof sender.ended);
    sender.ended_count = 0;
    atomic_store(&score->manner, (uint32_t)manner);
    atomic_store(&score->fatal, fatal);
    host_start(0);
    host_start(1);
}

static void ask(pulsing_target *target, uint32_t number)
{
    pulsing_send send;
    pulsing_call call = {.method = "m", .method_bytes = 1, .user = (void *)(uintptr_t)number};
    ck_assert_int_eq(pulsing_call_begin(sender.p, target, &call, &send), PLS_OK);
    memcpy(send.at, &number, sizeof number);
    pls_err err = pulsing_commit(sender.p, &send, sizeof number, NULL, false);
    ck_assert(err == PLS_OK || err == PLS_EFULL);
}

static void first_host_is_dying(void)
{
    const pls_directory *directory = pls_attach_info_of(pulsing_attach_of(sender.p))->directory;
    uint32_t slot = atomic_load(&score->slots[0]);
    uint32_t epoch = atomic_load(&score->epochs[0]);
    double limit_ms = now_ms() + LIMIT_MS;
    atomic_store(&score->hang_up, 1);
    while (pls_directory_state(directory, slot, epoch) == PLS_SLOT_ALIVE) {
        ck_assert_msg(now_ms() < limit_ms, "the node did not notice that a process let go");
        turn(1);
    }
    for (int i = 0; i < 5; i++) {
        turn(1);
    }
}

/* Until the node has confirmed the death; and, if `seen`, until the sender has dealt with it. */
static void first_host_is_dead(bool seen)
{
    const pls_directory *directory = pls_attach_info_of(pulsing_attach_of(sender.p))->directory;
    uint32_t slot = atomic_load(&score->slots[0]);
    uint32_t epoch = atomic_load(&score->epochs[0]);
    struct timespec pause = {.tv_nsec = 100000};
    double limit_ms = now_ms() + LIMIT_MS;
    while (pls_directory_state(directory, slot, epoch) == PLS_SLOT_ALIVE ||
           pls_directory_state(directory, slot, epoch) == PLS_SLOT_DYING) {
        ck_assert_msg(now_ms() < limit_ms, "the node did not notice a death");
        nanosleep(&pause, NULL);
    }
    for (int i = 0; seen && i < 5; i++) {
        turn(1);
    }
}

static void everything_ends(void)
{
    double limit_ms = now_ms() + LIMIT_MS;
    while (sender.ended_count < MESSAGES) {
        ck_assert_msg(now_ms() < limit_ms, "only %u of %d messages ended", sender.ended_count,
                      MESSAGES);
        turn(TURN_MS);
    }
}

/* The message during which the host died ends in PULSING_DIED; all others are handled, once. */
static void each_was_handled_once(uint32_t fatal)
{
    for (uint32_t i = 0; i < MESSAGES; i++) {
        uint32_t handled = atomic_load(&score->handled[i]);
        ck_assert_msg(handled <= 1, "message %u was handled %u times", i, handled);
        ck_assert_msg(handled == 1, "message %u ended with status %u and was never handled", i,
                      sender.ended[i]);
        ck_assert_uint_eq(sender.ended[i], i == fatal ? PULSING_DIED : PULSING_OK);
    }
}

/* Until the first host is where it is to be killed. */
static void fatal_place_is_reached(enum manner manner, uint32_t sent, uint32_t fatal)
{
    double limit_ms = now_ms() + LIMIT_MS;
    while (manner == DIES_IN_HANDLER ? atomic_load(&score->handled[fatal]) == 0
                                     : atomic_load(&score->queued) < sent - 1 - fatal) {
        ck_assert_msg(now_ms() < limit_ms, "%u queued, message %u handled %u times",
                      atomic_load(&score->queued), fatal, atomic_load(&score->handled[fatal]));
        turn(1);
    }
}

START_TEST(test_a_restartable_actor_whose_process_is_killed_handles_nothing_twice)
{
    pls_rng rng;
    const char *given = getenv("STRESS_SEED");
    uint64_t seed = given != NULL ? strtoull(given, NULL, 0) : 1;
    enum manner manner = (enum manner)_i;
    uint32_t early = manner == SENT_WHILE_DYING ? MESSAGES - LATE : MESSAGES;
    pls_rng_init(&rng, seed);
    printf("restart: seed %llu, manner %d\n", (unsigned long long)seed, _i);
    for (int round = 0; round < ROUNDS; round++) {
        pulsing_target *target = NULL;
        uint32_t fatal = pls_rng_below(&rng, MESSAGES - 2 * LATE);
        round_begin(manner, fatal);
        uint64_t actor_id = atomic_load(&score->actor_id);
        ck_assert_int_eq(pulsing_target_get(sender.p, actor_id, 0, true, &target), PLS_OK);
        for (uint32_t i = 0; i < early; i++) {
            ask(target, i);
        }
        fatal_place_is_reached(manner, early, fatal);
        if (manner == SENT_WHILE_DYING) {
            first_host_is_dying();
            for (uint32_t i = early; i < MESSAGES; i++) {
                ask(target, i);
            }
        }
        host_end(0);
        first_host_is_dead(manner != MOVES_UNSEEN);
        pulsing_target_move(sender.p, actor_id, atomic_load(&score->slots[1]),
                            atomic_load(&score->epochs[1]));
        everything_ends();
        each_was_handled_once(fatal);
        pulsing_target_release(target);
        host_end(1);
    }
}
END_TEST

START_TEST(test_a_sleeping_caller_learns_of_a_death_at_once)
{
    for (int round = 0; round < ROUNDS; round++) {
        pulsing_target *target = NULL;
        round_begin(KEEPS_RUNNING, 0);
        ck_assert_int_eq(
            pulsing_target_get(sender.p, atomic_load(&score->actor_id), 0, false, &target), PLS_OK);
        ask(target, 0);
        while (atomic_load(&score->handled[0]) == 0) {
            turn(1);
        }
        host_end(0);
        double limit_ms = now_ms() + NOTICE_MS;
        while (sender.ended_count == 0 && now_ms() < limit_ms) {
            turn(NOTICE_MS);
        }
        ck_assert_msg(sender.ended_count == 1, "nobody told the caller of a death");
        ck_assert_uint_eq(sender.ended[0], PULSING_DIED);
        pulsing_target_release(target);
        host_end(1);
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("stress.restart");
    TCase *tests = tcase_create("restart");
    tcase_set_timeout(tests, TIMEOUT_S);
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_add_loop_test(tests,
                        test_a_restartable_actor_whose_process_is_killed_handles_nothing_twice,
                        DIES_IN_HANDLER, MANNERS);
    tcase_add_test(tests, test_a_sleeping_caller_learns_of_a_death_at_once);
    suite_add_tcase(suite, tests);
    return check_run(suite);
}
