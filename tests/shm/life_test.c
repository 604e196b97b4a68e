/* SPDX-License-Identifier: Apache-2.0 */
#include "shm/life.h"

#include "base/limits.h"
#include "shm/clock.h"
#include "tests/check_run.h"

#include <check.h>
#include <linux/futex.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define WORDS 3

/* Lines that two processes share, and a word by which a child says how far it is. */
typedef struct shared {
    _Alignas(PLS_LINE_BYTES) uint8_t lines[WORDS][PLS_LINE_BYTES];
    _Atomic uint32_t stage;
} shared;

static shared *s;
static const uint8_t *memories[WORDS];

static void setup(void)
{
    s = mmap(NULL, sizeof *s, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    ck_assert_ptr_ne(s, MAP_FAILED);
    for (int i = 0; i < WORDS; i++) {
        memories[i] = s->lines[i];
    }
}

static void teardown(void)
{
    munmap(s, sizeof *s);
}

static pls_err wait_all(int timeout_ms, uint32_t *index)
{
    pls_life_watch watch = {.memories = memories, .count = WORDS};
    return pls_life_wait(&watch, timeout_ms, index);
}

/* A child that holds words 0 and 2 and then does what it is told by `stage`. */
static pid_t holder_start(void)
{
    pid_t child = fork();
    if (child == 0) {
        if (pls_life_hold(s->lines[0]) != PLS_OK || pls_life_hold(s->lines[2]) != PLS_OK) {
            _exit(1);
        }
        atomic_store(&s->stage, 1);
        while (atomic_load(&s->stage) == 1) {
            usleep(100);
        }
        pls_life_release(s->lines[2]);
        pls_life_release(s->lines[0]);
        _exit(0);
    }
    while (atomic_load(&s->stage) == 0) {
        usleep(100);
    }
    return child;
}

START_TEST(test_killed_holder_ends_the_wait_and_is_told_from_one_that_let_go)
{
    uint32_t index = 9;
    pid_t child = holder_start();
    ck_assert(!pls_life_ended(s->lines[0]));
    ck_assert_int_eq(wait_all(20, &index), PLS_ETIMEDOUT);
    ck_assert_uint_eq(index, 9);
    kill(child, SIGKILL);
    ck_assert_int_eq(wait_all(5000, &index), PLS_OK);
    ck_assert(index == 0 || index == 2);
    ck_assert(pls_life_ended(s->lines[index]));
    ck_assert_int_eq(waitpid(child, NULL, 0), child);
    ck_assert(pls_life_ended(s->lines[0]));
    ck_assert(pls_life_ended(s->lines[2]));
    ck_assert(!pls_life_ended(s->lines[1]));
}
END_TEST

START_TEST(test_released_word_ends_the_wait_and_is_no_death)
{
    uint32_t index = 9;
    pid_t child = holder_start();
    atomic_store(&s->stage, 2);
    ck_assert_int_eq(wait_all(5000, &index), PLS_OK);
    ck_assert(index == 0 || index == 2);
    ck_assert_int_eq(waitpid(child, NULL, 0), child);
    ck_assert(!pls_life_ended(s->lines[0]));
    ck_assert(!pls_life_ended(s->lines[2]));
}
END_TEST

static void *leave(void *memory)
{
    pls_life_leave(memory);
    return NULL;
}

START_TEST(test_who_left_is_not_dead_whatever_becomes_of_the_holder)
{
    uint32_t index = 9;
    pid_t child = fork();
    if (child == 0) {
        pthread_t other;
        bool held = pls_life_hold(s->lines[0]) == PLS_OK;
        atomic_store(&s->stage, 1);
        while (atomic_load(&s->stage) == 1) {
            usleep(100);
        }
        held = held && pthread_create(&other, NULL, leave, s->lines[0]) == 0 &&
               pthread_join(other, NULL) == 0;
        atomic_store(&s->stage, 3);
        if (!held) {
            _exit(1);
        }
        for (;;) {
            pause();
        }
    }
    while (atomic_load(&s->stage) == 0) {
        usleep(100);
    }
    ck_assert_int_eq(wait_all(20, &index), PLS_ETIMEDOUT);
    atomic_store(&s->stage, 2);
    ck_assert_int_eq(wait_all(5000, &index), PLS_OK);
    ck_assert_uint_eq(index, 0);
    ck_assert(!pls_life_ended(s->lines[0]));
    kill(child, SIGKILL);
    ck_assert_int_eq(waitpid(child, NULL, 0), child);
    ck_assert(!pls_life_ended(s->lines[0]));
}
END_TEST

START_TEST(test_a_word_that_was_left_is_released_by_its_holder)
{
    pthread_t other;
    ck_assert_int_eq(pls_life_hold(s->lines[0]), PLS_OK);
    ck_assert_int_eq(pthread_create(&other, NULL, leave, s->lines[0]), 0);
    ck_assert_int_eq(pthread_join(other, NULL), 0);
    pls_life_release(s->lines[0]);
    ck_assert_uint_eq(*(const uint32_t *)(const void *)s->lines[0] & FUTEX_TID_MASK, 0);
}
END_TEST

START_TEST(test_exit_without_release_is_a_death)
{
    pid_t child = fork();
    if (child == 0) {
        _exit(pls_life_hold(s->lines[1]) == PLS_OK ? 0 : 1);
    }
    int status = 0;
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    ck_assert_int_eq(WEXITSTATUS(status), 0);
    ck_assert(pls_life_ended(s->lines[1]));
}
END_TEST

static void *interrupt_soon(void *word)
{
    usleep(20000);
    pls_life_interrupt(word);
    return NULL;
}

START_TEST(test_interrupt_ends_the_wait)
{
    _Atomic uint32_t word = 5;
    uint32_t index = 9;
    pthread_t thread;
    pid_t child = holder_start();
    pls_life_watch watch = {memories, WORDS, &word, 4};
    ck_assert_int_eq(pls_life_wait(&watch, -1, &index), PLS_EEMPTY);
    watch.interrupt_value = 5;
    ck_assert_int_eq(pthread_create(&thread, NULL, interrupt_soon, &word), 0);
    ck_assert_int_eq(pls_life_wait(&watch, -1, &index), PLS_EEMPTY);
    pthread_join(thread, NULL);
    ck_assert_uint_eq(index, 9);
    atomic_store(&s->stage, 2);
    ck_assert_int_eq(waitpid(child, NULL, 0), child);
}
END_TEST

START_TEST(test_word_is_held_once)
{
    ck_assert_int_eq(pls_life_hold(s->lines[0]), PLS_OK);
    ck_assert_int_eq(pls_life_hold(s->lines[0]), PLS_EEXIST);
    pls_life_release(s->lines[0]);
    ck_assert_int_eq(pls_life_hold(s->lines[0]), PLS_EEXIST);
    pls_life_release(s->lines[1]);
}
END_TEST

/* The reason for the word: memory of a big process is taken down before its pidfd says a word. */
START_TEST(test_notice_comes_before_the_memory_of_the_dead_is_gone)
{
    enum { MEBIBYTES = 256 };
    uint32_t index = 9;
    pid_t child = fork();
    if (child == 0) {
        size_t bytes = (size_t)MEBIBYTES << 20;
        uint8_t *memory =
            mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        for (size_t i = 0; memory != MAP_FAILED && i < bytes; i += 4096) {
            memory[i] = 1;
        }
        (void)!pls_life_hold(s->lines[0]);
        atomic_store(&s->stage, 1);
        pause();
    }
    while (atomic_load(&s->stage) == 0) {
        usleep(1000);
    }
    uint64_t start = pls_clock_kernel_ns();
    kill(child, SIGKILL);
    ck_assert_int_eq(wait_all(5000, &index), PLS_OK);
    uint64_t noticed = pls_clock_kernel_ns() - start;
    ck_assert_int_eq(waitpid(child, NULL, 0), child);
    uint64_t reaped = pls_clock_kernel_ns() - start;
    ck_assert_uint_lt(noticed, reaped);
}
END_TEST

START_TEST(test_too_many_words_abort)
{
    uint32_t index;
    pls_life_watch watch = {.memories = memories, .count = PLS_LIFE_WAIT_MAX + 1};
    (void)!pls_life_wait(&watch, 1, &index);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("shm.life");
    TCase *tcase = tcase_create("life");
    tcase_set_timeout(tcase, 30);
    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_add_test(tcase, test_killed_holder_ends_the_wait_and_is_told_from_one_that_let_go);
    tcase_add_test(tcase, test_released_word_ends_the_wait_and_is_no_death);
    tcase_add_test(tcase, test_who_left_is_not_dead_whatever_becomes_of_the_holder);
    tcase_add_test(tcase, test_a_word_that_was_left_is_released_by_its_holder);
    tcase_add_test(tcase, test_exit_without_release_is_a_death);
    tcase_add_test(tcase, test_interrupt_ends_the_wait);
    tcase_add_test(tcase, test_word_is_held_once);
    tcase_add_test(tcase, test_notice_comes_before_the_memory_of_the_dead_is_gone);
    tcase_add_test_raise_signal(tcase, test_too_many_words_abort, SIGABRT);
    suite_add_tcase(suite, tcase);
    return check_run(suite);
}
