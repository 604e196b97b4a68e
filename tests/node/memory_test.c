/* SPDX-License-Identifier: Apache-2.0 */
/* The n-th allocation fails, for n = 0, 1, 2 ... until all succeed: every ask then either was
 * refused when it was made or is answered, and nothing is leaked. Linked with --wrap. */
#include "tests/check_run.h"
#include "tests/node/crew.h"

#include <check.h>
#include <stdlib.h>

#define ALLOCATIONS_MAX 64

static crew c;
static crew_member *const a = &c.m[0];
static crew_member *const b = &c.m[1];
static bool armed;
static uint32_t countdown;
static bool failed;
static int64_t live;

void *__real_malloc(size_t size);
void *__real_calloc(size_t count, size_t size);
void *__real_realloc(void *memory, size_t size);
void __real_free(void *memory);
void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t count, size_t size);
void *__wrap_realloc(void *memory, size_t size);
void __wrap_free(void *memory);

static bool fails(void)
{
    if (!armed || failed) {
        return false;
    }
    failed = countdown == 0;
    countdown--;
    return failed;
}

void *__wrap_malloc(size_t size)
{
    void *memory = fails() ? NULL : __real_malloc(size);
    live += memory != NULL;
    return memory;
}

void *__wrap_calloc(size_t count, size_t size)
{
    void *memory = fails() ? NULL : __real_calloc(count, size);
    live += memory != NULL;
    return memory;
}

void *__wrap_realloc(void *memory, size_t size)
{
    void *moved = fails() ? NULL : __real_realloc(memory, size);
    live += moved != NULL && memory == NULL;
    return moved;
}

void __wrap_free(void *memory)
{
    live -= memory != NULL;
    __real_free(memory);
}

typedef struct workload {
    uint32_t extra;
    uint32_t window;
    bool restartable;
    bool busy; /* the receiver handles something else meanwhile */
} workload;

static const workload workloads[] = {
    {.extra = 0},
    {.extra = 20000},
    {.extra = 0, .busy = true},
    {.extra = 20000, .busy = true},
    {.extra = 0, .restartable = true},
    {.extra = 20000, .restartable = true, .busy = true},
    {.extra = 0, .window = 1},
};

/* Three asks while the n-th allocation fails; true if none had to. */
static bool round_run(const workload *w, uint32_t nth)
{
    pulsing_target *target = NULL;
    uint32_t made = 0;
    uint32_t refused = 0;
    a->reply_count = 0;
    b->request_count = 0;
    b->keep_running = w->busy;
    ck_assert_int_eq(pulsing_target_get(a->p, b->actor_id, w->window, w->restartable, &target),
                     PLS_OK);
    countdown = nth;
    failed = false;
    armed = true;
    for (uint32_t n = 0; n < 3; n++) {
        pls_err err = crew_send(a, target, n, w->extra, (pulsing_call){0}, NULL);
        made += err == PLS_OK || err == PLS_EFULL;
        refused += err == PLS_ENOMEM;
    }
    for (uint32_t turn = 0; turn < 20; turn++) {
        crew_turn(&c);
    }
    armed = false; /* before the first ck_assert, which allocates */
    ck_assert_uint_eq(made + refused, 3);
    if (w->busy && b->request_count > 0) {
        b->keep_running = false;
        pulsing_origin origin = b->requests[0].origin;
        crew_answer(b, &origin, 0);
        pulsing_actor_finished(b->p, b->actor, &origin);
    }
    crew_until(&c, &a->reply_count, made);
    ck_assert_uint_eq(a->reply_count, made);
    ck_assert_uint_eq(pulsing_call_count(a->p), 0);
    ck_assert(made == 3 || failed);
    pulsing_target_release(target);
    crew_rest(&c, 2);
    return !failed;
}

START_TEST(test_every_ask_ends_whatever_allocation_fails)
{
    const workload *w = &workloads[_i];
    crew_begin(&c);
    crew_host(b, 8, PULSING_WAIT, 0);
    armed = false;
    (void)round_run(w, UINT32_MAX);
    (void)round_run(w, UINT32_MAX);
    int64_t before = live;
    uint32_t nth = 0;
    while (!round_run(w, nth)) {
        ck_assert_uint_lt(nth, ALLOCATIONS_MAX);
        nth++;
    }
    ck_assert_int_le(live, before + 1); /* copies of the last messages may wait to be trimmed */
    crew_end(&c);
}
END_TEST

int main(int argc, char **argv)
{
    crew_peer_main(argc, argv);
    Suite *suite = suite_create("node.memory");
    TCase *tcase = tcase_create("memory");
    tcase_set_timeout(tcase, 60);
    tcase_add_loop_test(tcase, test_every_ask_ends_whatever_allocation_fails, 0,
                        (int)(sizeof workloads / sizeof *workloads));
    suite_add_tcase(suite, tcase);
    return check_run(suite);
}
