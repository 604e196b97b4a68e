/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PLS_TESTS_SHM_SHELF_H
#define PLS_TESTS_SHM_SHELF_H

#include "shm/arena.h"
#include "shm/lease.h"
#include "tests/shm/pair.h"

#include <stdatomic.h>
#include <stdlib.h>

/* What the node does for payloads: it keeps the read-only descriptors that arenas publish and gives
 * them to receivers. */
#define SHELF_MAX 512

typedef struct shelf {
    int fds[SHELF_MAX]; /* by segment number; 0: none */
    uint32_t published;
    uint32_t retired;
    _Atomic uint32_t resolved; /* any receiver's thread counts */
    pls_err answer;            /* for the next publish or resolve, if not PLS_OK */
} shelf;

static inline pls_err shelf_publish(void *context, uint32_t segment, int readonly_fd)
{
    shelf *s = context;
    if (s->answer != PLS_OK) {
        return s->answer;
    }
    ck_assert_uint_lt(segment, SHELF_MAX);
    ck_assert_int_eq(s->fds[segment], 0);
    s->fds[segment] = dup(readonly_fd);
    s->published++;
    return PLS_OK;
}

static inline void shelf_retire(void *context, uint32_t segment)
{
    shelf *s = context;
    ck_assert_int_ne(s->fds[segment], 0);
    close(s->fds[segment]);
    s->fds[segment] = 0;
    s->retired++;
}

static inline pls_err shelf_resolve(void *context, uint32_t slot, uint32_t epoch, uint32_t segment,
                                    int *fd_out)
{
    shelf *s = context;
    if (s->answer != PLS_OK) {
        return s->answer;
    }
    if (segment >= SHELF_MAX || s->fds[segment] == 0) {
        return PLS_ENOENT;
    }
    *fd_out = dup(s->fds[segment]);
    atomic_fetch_add_explicit(&s->resolved, 1, memory_order_relaxed);
    return PLS_OK;
}

static inline void shelf_clear(shelf *s)
{
    for (int i = 0; i < SHELF_MAX; i++) {
        if (s->fds[i] != 0) {
            close(s->fds[i]);
        }
    }
}

/* An owner of payloads and one receiver, in one process. */
#define STAND_OWNER 9
#define STAND_RECEIVER 77

typedef struct stand {
    shelf shelf;
    pls_inbox *inbox;
    pls_arena *arena;
    pls_peer *peer; /* the owner as the receiver sees it */
    pls_views *views;
} stand;

static inline void stand_open(stand *s, uint64_t budget_bytes, uint64_t keep_bytes)
{
    memset(s, 0, sizeof *s);
    pls_arena_config config = {.budget_bytes = budget_bytes,
                               .keep_bytes = keep_bytes,
                               .publish = shelf_publish,
                               .retire = shelf_retire,
                               .context = &s->shelf};
    ck_assert_int_eq(pls_inbox_create(STAND_OWNER, 1, &s->inbox), PLS_OK);
    ck_assert_int_eq(pls_arena_create(s->inbox, &config, &s->arena), PLS_OK);
    ck_assert_int_eq(pls_peer_attach(dup(pls_inbox_memfd(s->inbox)),
                                     dup(pls_inbox_eventfd(s->inbox)), STAND_OWNER, 1, &s->peer),
                     PLS_OK);
    ck_assert_int_eq(pls_views_create(shelf_resolve, &s->shelf, &s->views), PLS_OK);
}

static inline void stand_close(stand *s)
{
    pls_views_destroy(s->views);
    pls_peer_release(s->peer);
    pls_arena_destroy(s->arena);
    pls_inbox_destroy(s->inbox);
    shelf_clear(&s->shelf);
}

static inline pls_block *stand_alloc(stand *s, uint64_t bytes, uint8_t fill)
{
    pls_block *block = NULL;
    ck_assert_int_eq(pls_arena_alloc(s->arena, bytes, &block), PLS_OK);
    ck_assert_uint_ge(block->bytes, bytes);
    memset(block->base, fill, bytes);
    return block;
}

static inline pls_descriptor stand_lend(stand *s, pls_block *block, uint64_t len, uint32_t epoch)
{
    pls_descriptor descriptor;
    pls_arena_loan loan = {.len = len, .slot = STAND_RECEIVER, .epoch = epoch};
    ck_assert_int_eq(pls_arena_lend(s->arena, block, &loan, &descriptor), PLS_OK);
    return descriptor;
}

static inline pls_arena_stats stand_stats(const stand *s)
{
    pls_arena_stats stats;
    ck_assert(pls_arena_check(s->arena));
    pls_arena_stats_get(s->arena, &stats);
    return stats;
}

#endif
