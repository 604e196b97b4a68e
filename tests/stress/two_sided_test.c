/* SPDX-License-Identifier: Apache-2.0 */
/* A sender and a receiver, both stepped, in slices that take turns, to two points drawn from a
 * seed; then one of them is killed, or both, or none, and whoever is left runs on freely and really
 * sleeps. STRESS_SEED picks the first seed, STRESS_PAIRS how many pairs of points. */
#include "base/rng.h"
#include "tests/check_run.h"
#include "tests/stress/stage.h"
#include "tests/stress/wire.h"

#include "base/assert.h"

#include <poll.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define DEFAULT_PAIRS 400
#define TIMEOUT_S 3600
#define SLICE_MAX 60
#define BEFORE 2
#define ACT 3
#define SLEEP_MS 1000
#define WAIT_MS 700
#define JOIN_MS 5000

enum ending { KILL_SENDER, KILL_RECEIVER, KILL_BOTH, KILL_NOBODY, ENDINGS };

typedef struct pair_score {
    _Atomic uint32_t received;
    _Atomic uint32_t broken;
    _Atomic uint32_t cleared;
    _Atomic uint32_t found_work;
    _Atomic uint32_t free; /* from now on the receiver may sleep */
    _Atomic uint32_t stop;
} pair_score;

typedef struct two {
    pair_score *score;
    int sockets[2];
    int fds[2];
    pls_rng rng;
    step_child sender;
    step_child receiver;
    uint32_t ended[ENDINGS];
} two;

static void letters_read(pls_inbox *inbox, pair_score *score)
{
    letter head;
    pls_descriptor descriptor;
    pls_message message;
    pls_err err;
    while ((err = pls_inbox_pop(inbox, &message)) != PLS_EEMPTY) {
        if (err != PLS_OK || !letter_read(&message, &head, &descriptor) ||
            head.id != atomic_load(&score->received) + 1) {
            atomic_fetch_add(&score->broken, 1);
        }
        if (err == PLS_OK) {
            pls_inbox_release(inbox);
        }
        atomic_fetch_add(&score->received, 1);
    }
}

static void death_clear(pls_inbox *inbox, pair_score *score)
{
    pls_bitmap dead;
    if (pls_inbox_take_dead(inbox, &dead)) {
        letters_read(inbox, score);
        pls_assert(pls_inbox_drained(inbox, STAGE_VICTIM));
        pls_assert(pls_inbox_close_ring(inbox, STAGE_VICTIM) == PLS_OK);
        atomic_store(&score->cleared, 1);
    }
}

static void receiver_loop(pls_inbox *inbox, pair_score *score)
{
    while (atomic_load(&score->stop) == 0) {
        letters_read(inbox, score);
        death_clear(inbox, score);
        if (pls_inbox_arm(inbox)) {
            struct pollfd wait = {.fd = pls_inbox_eventfd(inbox), .events = POLLIN};
            if (poll(&wait, 1, atomic_load(&score->free) != 0 ? SLEEP_MS : 0) > 0) {
                pls_inbox_disarm(inbox, true);
            } else if (atomic_load(&score->free) != 0) {
                pls_inbox_disarm_timeout(inbox);
            } else {
                pls_inbox_disarm(inbox, false);
            }
        }
        atomic_store(&score->found_work, (uint32_t)pls_inbox_recheck_found_work(inbox));
    }
}

static void receiver_run(void *context)
{
    const two *t = context;
    pls_inbox *inbox = NULL;
    pls_assert(pls_inbox_create(STAGE_SURVIVOR, STAGE_EPOCH, &inbox) == PLS_OK);
    int fds[2] = {pls_inbox_memfd(inbox), pls_inbox_eventfd(inbox)};
    wire_packet packet = {.kind = WIRE_INBOX};
    pls_assert(wire_send(t->sockets[1], &packet, fds, 2));
    step_pause();
    letters_read(inbox, t->score);
    step_pause();
    receiver_loop(inbox, t->score);
    pls_assert(pls_inbox_check(inbox));
    _exit(0);
}

static void letters_send(pls_outbox *outbox, uint32_t first, uint32_t count)
{
    for (uint32_t id = first; id < first + count; id++) {
        uint8_t *room = NULL;
        pls_assert(pls_outbox_reserve(outbox, LETTER_BYTES + 24, &room) == PLS_OK);
        letter_write(room, 1, id, 24);
        (void)pls_outbox_commit(outbox, LETTER_BYTES + 24, LETTER_TYPE, 0, 0);
        (void)pls_outbox_wake(outbox);
    }
}

static void sender_run(void *context)
{
    const two *t = context;
    pls_peer *peer = NULL;
    pls_outbox *outbox = NULL;
    pls_assert(pls_peer_attach(dup(t->fds[0]), dup(t->fds[1]), STAGE_SURVIVOR, STAGE_EPOCH,
                               &peer) == PLS_OK);
    pls_assert(pls_outbox_attach(peer, STAGE_VICTIM, 1, STAGE_RING_BYTES, &outbox) == PLS_OK);
    letters_send(outbox, 1, BEFORE);
    step_pause();
    letters_send(outbox, BEFORE + 1, ACT);
    pls_assert(pls_outbox_check(outbox));
    _exit(0);
}

static void pair_begin(two *t)
{
    wire_packet packet;
    memset(t->score, 0, sizeof *t->score);
    step_start(&t->receiver, receiver_run, t);
    ck_assert_int_eq(t->receiver.trouble, 0);
    ck_assert(wire_receive(t->sockets[0], &packet, t->fds, JOIN_MS));
    step_start(&t->sender, sender_run, t);
    ck_assert_int_eq(t->sender.trouble, 0);
    step_run(&t->receiver);
    ck_assert_int_eq(t->receiver.trouble, 0);
    ck_assert_uint_eq(atomic_load(&t->score->received), BEFORE);
}

/* Steps both to their points, a few units of one, a few of the other. */
static void pair_step(two *t, uint64_t sender_units, uint64_t receiver_units)
{
    while (t->sender.units < sender_units || t->receiver.units < receiver_units) {
        bool one = pls_rng_below(&t->rng, 2) == 0;
        step_child *child = one ? &t->sender : &t->receiver;
        uint64_t goal = one ? sender_units : receiver_units;
        uint64_t slice = 1 + pls_rng_below(&t->rng, SLICE_MAX);
        uint64_t left = child->units < goal ? goal - child->units : 0;
        step_take(child, slice < left ? slice : left);
        if (child->trouble != 0) {
            /* The sender has sent everything and is gone. */
            ck_assert(child == &t->sender && WIFEXITED(child->trouble) &&
                      WEXITSTATUS(child->trouble) == 0);
            child->units = sender_units;
            child->over = true;
        }
    }
}

static double now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec * 1e3 + (double)now.tv_nsec / 1e6;
}

static bool becomes(_Atomic uint32_t *word, uint32_t value)
{
    double limit_ms = now_ms() + WAIT_MS;
    struct timespec pause = {.tv_nsec = 30000};
    while (atomic_load(word) != value && now_ms() < limit_ms) {
        nanosleep(&pause, NULL);
    }
    return atomic_load(word) == value;
}

static void exits_well(step_child *child)
{
    int status = 0;
    if (child->trouble != 0) {
        return;
    }
    ck_assert_int_eq(waitpid(child->pid, &status, 0), child->pid);
    ck_assert_msg(WIFEXITED(status) && WEXITSTATUS(status) == 0, "status %d", status);
}

/* The receiver is left: with a dead sender it has to clear up, else to read everything. */
static void receiver_finishes(two *t, bool sender_killed)
{
    pls_peer *peer = NULL;
    ck_assert_int_eq(
        pls_peer_attach(dup(t->fds[0]), dup(t->fds[1]), STAGE_SURVIVOR, STAGE_EPOCH, &peer),
        PLS_OK);
    step_free(&t->receiver);
    if (sender_killed) {
        pls_peer_ring_dead(peer, STAGE_VICTIM);
        ck_assert_msg(becomes(&t->score->cleared, 1), "the receiver slept over a death");
        ck_assert_uint_le(atomic_load(&t->score->received), BEFORE + ACT);
    } else {
        ck_assert_msg(becomes(&t->score->received, BEFORE + ACT),
                      "the receiver slept over a letter");
    }
    atomic_store(&t->score->stop, 1);
    pls_peer_wake(peer);
    exits_well(&t->receiver);
    pls_peer_release(peer);
    ck_assert_uint_ge(atomic_load(&t->score->received), BEFORE);
    ck_assert_uint_eq(atomic_load(&t->score->found_work), 0);
}

static void pair_end(two *t, enum ending ending)
{
    bool sender_ended = t->sender.trouble != 0;
    bool kill_sender = (ending == KILL_SENDER || ending == KILL_BOTH) && !sender_ended;
    bool kill_receiver = ending == KILL_RECEIVER || ending == KILL_BOTH;
    atomic_store(&t->score->free, 1);
    if (kill_sender) {
        step_kill(&t->sender);
    }
    if (kill_receiver) {
        step_kill(&t->receiver);
    }
    if (!kill_sender && !sender_ended) {
        step_free(&t->sender);
    }
    if (!kill_receiver) {
        receiver_finishes(t, kill_sender);
    }
    if (!kill_sender && !sender_ended) {
        exits_well(&t->sender);
    }
    ck_assert_uint_eq(atomic_load(&t->score->broken), 0);
    close(t->fds[0]);
    close(t->fds[1]);
    t->ended[ending]++;
}

static uint64_t number(const char *name, uint64_t otherwise)
{
    const char *given = getenv(name);
    return given != NULL ? strtoull(given, NULL, 0) : otherwise;
}

START_TEST(test_pairs_of_points_in_two_processes_harm_nobody)
{
    static two t;
    if (!step_possible()) {
        ck_assert_msg(step_waived(), "not tested");
        return;
    }
    uint64_t seed = number("STRESS_SEED", 1);
    uint64_t pairs = number("STRESS_PAIRS", DEFAULT_PAIRS);
    uint64_t units = 0;
    double begin_ms = now_ms();
    step_pin();
    wire_open(t.sockets);
    t.score =
        mmap(NULL, sizeof *t.score, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    ck_assert_ptr_ne(t.score, MAP_FAILED);
    for (uint64_t i = 0; i < pairs; i++) {
        pls_rng_init(&t.rng, seed + i);
        pair_begin(&t);
        enum ending ending = (enum ending)pls_rng_below(&t.rng, ENDINGS);
        pair_step(&t, pls_rng_below(&t.rng, 500), pls_rng_below(&t.rng, 700));
        units += t.sender.units + t.receiver.units;
        pair_end(&t, ending);
    }
    printf("two-sided: seeds %llu..%llu, %llu pairs of points (%llu units), sender killed %u, "
           "receiver %u, both %u, none %u, nothing harmed, %.1f s\n",
           (unsigned long long)seed, (unsigned long long)(seed + pairs - 1),
           (unsigned long long)pairs, (unsigned long long)units, t.ended[KILL_SENDER],
           t.ended[KILL_RECEIVER], t.ended[KILL_BOTH], t.ended[KILL_NOBODY],
           (now_ms() - begin_ms) / 1e3);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("stress.two_sided");
    TCase *tests = tcase_create("pairs");
    tcase_set_timeout(tests, TIMEOUT_S);
    tcase_add_test(tests, test_pairs_of_points_in_two_processes_harm_nobody);
    suite_add_tcase(suite, tests);
    return check_run(suite);
}
