/* SPDX-License-Identifier: Apache-2.0 */
/* A producer: sends until it is killed. What it is about to commit and what it has committed is
 * noted, so that the parent knows what must have arrived. */
#include "tests/stress/crowd.h"

#include "base/assert.h"
#include "shm/arena.h"
#include "shm/outbox.h"
#include "tests/stress/letter.h"
#include "tests/stress/wire.h"

#include <poll.h>
#include <string.h>
#include <unistd.h>

#define ENCLOSED_LEN_MAX 60000
#define SPACE_WAIT_MS 2000
#define READ_LIMIT_MS 4000

typedef struct producer {
    const crowd *c;
    crowd_lane *lane;
    pls_rng rng;
    pls_inbox *inbox;
    pls_arena *arena;
    pls_outbox *outbox;
    uint32_t slot;
    uint32_t epoch;
    uint32_t last_id;
} producer;

static pls_err segment_publish(void *context, uint32_t segment, int readonly_fd)
{
    const producer *p = context;
    wire_packet packet = {
        .kind = WIRE_SEGMENT, .slot = p->slot, .epoch = p->epoch, .segment = segment};
    return wire_send(p->c->sockets[1], &packet, &readonly_fd, 1) ? PLS_OK : PLS_ESYS;
}

static void segment_retire(void *context, uint32_t segment)
{
}

static void spin(uint32_t turns)
{
    for (volatile uint32_t i = 0; i < turns; i++) {
    }
}

static void party_make(producer *p)
{
    pls_peer *peer = NULL;
    pls_arena_config config = {.budget_bytes = UINT64_C(16) << 20,
                               .publish = segment_publish,
                               .retire = segment_retire,
                               .context = p};
    pls_assert(pls_inbox_create(p->slot, p->epoch, &p->inbox) == PLS_OK);
    int fds[2] = {pls_inbox_memfd(p->inbox), pls_inbox_eventfd(p->inbox)};
    wire_packet packet = {.kind = WIRE_INBOX, .slot = p->slot, .epoch = p->epoch};
    pls_assert(wire_send(p->c->sockets[1], &packet, fds, 2));
    pls_assert(pls_arena_create(p->inbox, &config, &p->arena) == PLS_OK);
    pls_assert(pls_peer_attach(dup(p->c->fds[0]), dup(p->c->fds[1]), CROWD_CONSUMER_SLOT,
                               CROWD_EPOCH, &peer) == PLS_OK);
    pls_assert(pls_outbox_attach(peer, p->slot, p->epoch, p->c->manner.ring_bytes, &p->outbox) ==
               PLS_OK);
}

/* The ring is full: tell the consumer of it, and sleep until it says that there is room. */
static void room_await(producer *p, uint32_t bytes)
{
    pls_bitmap taken;
    (void)pls_outbox_wake(p->outbox);
    if (!pls_outbox_want_space(p->outbox, bytes)) {
        return;
    }
    (void)pls_arena_collect(p->arena);
    if (pls_inbox_arm(p->inbox)) {
        struct pollfd wait = {.fd = pls_inbox_eventfd(p->inbox), .events = POLLIN};
        /* A lost space wake would leave this producer asleep for ever. */
        pls_assert(poll(&wait, 1, SPACE_WAIT_MS) > 0);
        pls_inbox_disarm(p->inbox, true);
    }
    (void)pls_inbox_take_space(p->inbox, &taken);
}

static uint8_t *room_find(producer *p, uint32_t bytes)
{
    uint8_t *room = NULL;
    pls_err err;
    while ((err = pls_outbox_reserve(p->outbox, bytes, &room)) == PLS_EFULL) {
        room_await(p, bytes);
    }
    pls_assert(err == PLS_OK);
    return room;
}

static void commit(producer *p, uint32_t bytes, uint16_t flags)
{
    p->last_id++;
    atomic_store_explicit(&p->lane->begun, p->last_id, memory_order_relaxed);
    (void)pls_outbox_commit(p->outbox, bytes, LETTER_TYPE, flags, 0);
    atomic_store_explicit(&p->lane->committed, p->last_id, memory_order_relaxed);
}

static void inline_send(producer *p)
{
    uint32_t len = pls_rng_below(&p->rng, p->c->manner.len_max + 1);
    uint8_t *room = room_find(p, LETTER_BYTES + len);
    letter_write(room, p->epoch, p->last_id + 1, len);
    commit(p, LETTER_BYTES + len, 0);
}

/* False if the arena has no room now. */
static bool enclosed_send(producer *p)
{
    pls_block *block = NULL;
    pls_descriptor descriptor;
    uint32_t len = 1 + pls_rng_below(&p->rng, ENCLOSED_LEN_MAX);
    letter head = letter_of(p->epoch, p->last_id + 1, len);
    pls_arena_loan loan = {.len = len, .slot = CROWD_CONSUMER_SLOT, .epoch = CROWD_EPOCH};
    (void)pls_arena_collect(p->arena);
    if (pls_arena_alloc(p->arena, len, &block) != PLS_OK) {
        return false;
    }
    memset(block->base, letter_fill(head.epoch, head.id), len);
    uint8_t *room = room_find(p, (uint32_t)sizeof descriptor + LETTER_BYTES);
    pls_assert(pls_arena_lend(p->arena, block, &loan, &descriptor) == PLS_OK);
    memcpy(room, &descriptor, sizeof descriptor);
    memcpy(room + sizeof descriptor, &head, sizeof head);
    commit(p, (uint32_t)sizeof descriptor + LETTER_BYTES, PLS_FLAG_DESCRIPTOR);
    pls_arena_unhold(p->arena, block);
    return true;
}

/* Until the consumer has read everything it is about to sleep; what comes in that very moment is
 * what a lost wake-up would lose. */
static void quiet_wait(producer *p)
{
    double limit_ms = crowd_now_ms() + READ_LIMIT_MS;
    uint32_t looks = 0;
    while (pls_outbox_backlog_bytes(p->outbox) != 0) {
        if (++looks % 4096 == 0) {
            pls_assert(crowd_now_ms() < limit_ms);
        }
    }
    spin(pls_rng_below(&p->rng, 200));
    if (pls_rng_below(&p->rng, 8) == 0) {
        spin(pls_rng_below(&p->rng, 20000));
    }
}

static void ring(producer *p)
{
    (void)pls_outbox_wake(p->outbox);
    /* Release pairs with the acquire load of a consumer that wonders whether it was woken. */
    atomic_store_explicit(&p->lane->rung, p->last_id, memory_order_release);
}

/* One letter after the other, rung for one by one: the first one sets the bit, and the next ones
 * find it set unless the consumer is about to sleep. */
static void hasty_send(producer *p)
{
    uint8_t *room = NULL;
    uint32_t len = pls_rng_below(&p->rng, p->c->manner.len_max + 1);
    if (pls_outbox_reserve(p->outbox, LETTER_BYTES + len, &room) == PLS_OK) {
        letter_write(room, p->epoch, p->last_id + 1, len);
        commit(p, LETTER_BYTES + len, 0);
        ring(p);
    }
    spin(pls_rng_below(&p->rng, 100));
}

_Noreturn void crowd_produce(const crowd *c, uint32_t lane)
{
    static producer p;
    p.c = c;
    p.lane = &c->score->lanes[lane];
    p.slot = CROWD_PRODUCER_SLOT + lane;
    p.epoch = c->epochs[lane];
    pls_rng_init(&p.rng, c->seed + lane * UINT64_C(1000003) + p.epoch);
    party_make(&p);
    if (c->manner.hasty) {
        crowd_pin(0);
    }
    for (;;) {
        if (c->manner.hasty) {
            hasty_send(&p);
            continue;
        }
        for (uint32_t n = 1 + pls_rng_below(&p.rng, c->manner.burst_max); n > 0; n--) {
            bool enclosed = pls_rng_below(&p.rng, 100) < c->manner.enclose_percent;
            if (!enclosed || !enclosed_send(&p)) {
                inline_send(&p);
            }
            if (c->manner.quiet) {
                ring(&p);
                spin(pls_rng_below(&p.rng, 400));
            }
        }
        ring(&p);
        if (c->manner.quiet) {
            quiet_wait(&p);
        } else if (pls_rng_below(&p.rng, 4) == 0) {
            crowd_pause_us(pls_rng_below(&p.rng, 300));
        }
    }
}
