/* SPDX-License-Identifier: Apache-2.0 */
/* The consumer: reads, checks every letter, holds some blocks for a while, clears up after deaths,
 * and sleeps whenever there is nothing. */
#include "tests/stress/crowd.h"

#include "shm/inbox.h"
#include "shm/lease.h"
#include "tests/stress/letter.h"
#include "tests/stress/wire.h"

#include <poll.h>
#include <string.h>
#include <unistd.h>

#define HELD_MAX 5
#define SEGMENTS_MAX 256
#define INTRODUCE_MS 1000

typedef struct held {
    pls_lease lease;
    letter head;
} held;

typedef struct consumer {
    crowd_score *score;
    pls_inbox *inbox;
    pls_views *views;
    int socket;
    pls_peer *peers[CROWD_PRODUCERS_MAX];
    int segments[CROWD_PRODUCERS_MAX][SEGMENTS_MAX]; /* descriptor + 1 */
    uint32_t last_id[CROWD_PRODUCERS_MAX];
    uint32_t epochs[CROWD_PRODUCERS_MAX];
    uint32_t held_next;
    held held[HELD_MAX];
} consumer;

static void broken(consumer *r, bool wrong)
{
    if (wrong) {
        atomic_fetch_add(&r->score->broken, 1);
    }
}

/* Takes in one introduction or segment; false if none came. */
static bool packet_take(consumer *r, int timeout_ms)
{
    wire_packet packet;
    int fds[WIRE_FDS_MAX];
    if (!wire_receive(r->socket, &packet, fds, timeout_ms)) {
        return false;
    }
    uint32_t lane = packet.slot - CROWD_PRODUCER_SLOT;
    if (packet.kind == WIRE_INBOX) {
        broken(r, r->peers[lane] != NULL ||
                      pls_peer_attach(fds[0], fds[1], packet.slot, packet.epoch, &r->peers[lane]) !=
                          PLS_OK);
        r->epochs[lane] = packet.epoch;
        r->last_id[lane] = 0;
        atomic_store(&r->score->lanes[lane].ready, packet.epoch);
    } else if (packet.segment < SEGMENTS_MAX) {
        r->segments[lane][packet.segment] = fds[0] + 1;
    }
    return true;
}

static pls_err segment_resolve(void *context, uint32_t slot, uint32_t epoch, uint32_t segment,
                               int *fd_out)
{
    consumer *r = context;
    uint32_t lane = slot - CROWD_PRODUCER_SLOT;
    while (packet_take(r, 0)) {
    }
    if (segment >= SEGMENTS_MAX || r->segments[lane][segment] == 0) {
        return PLS_ENOENT;
    }
    *fd_out = dup(r->segments[lane][segment] - 1);
    return PLS_OK;
}

/* Give one held block back, after a last look at it. */
static void held_return(consumer *r, held *place)
{
    if (place->lease.bytes != NULL) {
        broken(r, !letter_body_holds(&place->head, place->lease.bytes));
        pls_lease_return(&place->lease);
    }
}

static void enclosure_take(consumer *r, uint32_t lane, const letter *head,
                           const pls_descriptor *descriptor)
{
    held *place = &r->held[r->held_next++ % HELD_MAX];
    held_return(r, place);
    if (pls_lease_open(r->views, r->peers[lane], CROWD_CONSUMER_SLOT, descriptor, &place->lease) !=
        PLS_OK) {
        place->lease.bytes = NULL;
        broken(r, true);
        return;
    }
    place->head = *head;
    broken(r, !letter_body_holds(head, place->lease.bytes));
    atomic_fetch_add_explicit(&r->score->enclosed, 1, memory_order_relaxed);
}

static void letter_take(consumer *r, const pls_message *message)
{
    letter head;
    pls_descriptor descriptor;
    uint32_t lane = message->from_slot - CROWD_PRODUCER_SLOT;
    if (lane >= CROWD_PRODUCERS_MAX || !letter_read(message, &head, &descriptor)) {
        broken(r, true);
        return;
    }
    while (r->peers[lane] == NULL && packet_take(r, INTRODUCE_MS)) {
    }
    r->last_id[lane]++;
    broken(r, head.epoch != r->epochs[lane] || head.id != r->last_id[lane]);
    if ((message->flags & PLS_FLAG_DESCRIPTOR) != 0) {
        enclosure_take(r, lane, &head, &descriptor);
    }
    atomic_store_explicit(&r->score->lanes[lane].delivered, r->last_id[lane], memory_order_relaxed);
    atomic_fetch_add_explicit(&r->score->delivered, 1, memory_order_relaxed);
}

static void letters_take(consumer *r)
{
    pls_message message;
    pls_bitmap owed;
    for (;;) {
        pls_err err = pls_inbox_pop(r->inbox, &message);
        if (err == PLS_EEMPTY) {
            break;
        }
        if (err != PLS_OK) {
            broken(r, true);
            continue;
        }
        letter_take(r, &message);
        pls_inbox_release(r->inbox);
    }
    if (pls_inbox_take_owed(r->inbox, &owed)) {
        for (uint32_t lane = 0; lane < CROWD_PRODUCERS_MAX; lane++) {
            uint32_t slot = CROWD_PRODUCER_SLOT + lane;
            if ((owed.word[slot / 64] >> (slot % 64) & 1) != 0 && r->peers[lane] != NULL) {
                pls_peer_ring_space(r->peers[lane], CROWD_CONSUMER_SLOT);
            }
        }
    }
}

static void death_clear(consumer *r, uint32_t lane)
{
    uint32_t slot = CROWD_PRODUCER_SLOT + lane;
    uint32_t epoch = atomic_load(&r->score->lanes[lane].cleared) + 1;
    while (packet_take(r, 0)) {
    }
    letters_take(r);
    broken(r, !pls_inbox_drained(r->inbox, slot));
    for (uint32_t i = 0; i < HELD_MAX; i++) {
        held_return(r, &r->held[i]);
    }
    pls_views_owner_dead(r->views, slot, epoch);
    pls_views_sweep(r->views);
    for (uint32_t i = 0; i < SEGMENTS_MAX; i++) {
        if (r->segments[lane][i] != 0) {
            close(r->segments[lane][i] - 1);
            r->segments[lane][i] = 0;
        }
    }
    pls_peer_release(r->peers[lane]);
    r->peers[lane] = NULL;
    broken(r, pls_inbox_close_ring(r->inbox, slot) != PLS_OK);
    broken(r, !pls_inbox_check(r->inbox) || !pls_views_check(r->views));
    atomic_store(&r->score->lanes[lane].cleared, epoch);
}

static void deaths_clear(consumer *r)
{
    pls_bitmap dead;
    if (!pls_inbox_take_dead(r->inbox, &dead)) {
        return;
    }
    for (uint32_t lane = 0; lane < CROWD_PRODUCERS_MAX; lane++) {
        uint32_t slot = CROWD_PRODUCER_SLOT + lane;
        if ((dead.word[slot / 64] >> (slot % 64) & 1) != 0) {
            death_clear(r, lane);
        }
    }
}

static void consumer_sleeps(consumer *r)
{
    if (!pls_inbox_arm(r->inbox)) {
        return;
    }
    struct pollfd wait = {.fd = pls_inbox_eventfd(r->inbox), .events = POLLIN};
    int ready = poll(&wait, 1, CROWD_SLEEP_MS);
    if (ready > 0) {
        pls_inbox_disarm(r->inbox, true);
    } else {
        pls_inbox_disarm_timeout(r->inbox);
        atomic_store(&r->score->found_work, pls_inbox_recheck_found_work(r->inbox));
    }
    atomic_fetch_add_explicit(&r->score->sleeps, 1, memory_order_relaxed);
}

#define LOOKS 100

/* A sleep that is over as soon as a letter can be seen, or soon. A letter that is there, whose
 * sender has finished ringing, and of which the eventfd says nothing, is a lost wake-up: a real
 * sleeper would have slept on. */
static void consumer_dozes(consumer *r)
{
    if (!pls_inbox_arm(r->inbox)) {
        return;
    }
    struct pollfd wait = {.fd = pls_inbox_eventfd(r->inbox), .events = POLLIN};
    uint32_t looks = 0;
    while ((pls_inbox_ready(r->inbox) & PLS_READY_MESSAGES) == 0 && looks < LOOKS) {
        looks++;
    }
    const crowd_lane *lane = &r->score->lanes[0];
    uint32_t rung = atomic_load_explicit(&lane->rung, memory_order_acquire);
    const pls_inbox_header *header = pls_inbox_header_of(r->inbox);
    bool armed = (atomic_load_explicit(&header->wake.word, memory_order_relaxed) & 1) != 0;
    if (looks < LOOKS && armed && rung > r->last_id[0] && poll(&wait, 1, 0) == 0) {
        atomic_fetch_add(&r->score->found_work, 1);
    }
    pls_inbox_disarm(r->inbox, false);
    atomic_fetch_add_explicit(&r->score->sleeps, 1, memory_order_relaxed);
}

_Noreturn void crowd_consume(const crowd *c, int introduce)
{
    static consumer r;
    r.score = c->score;
    r.socket = c->sockets[0];
    close(c->sockets[1]);
    if (c->manner.hasty) {
        crowd_pin(1);
    }
    if (pls_inbox_create(CROWD_CONSUMER_SLOT, CROWD_EPOCH, &r.inbox) != PLS_OK ||
        pls_views_create(segment_resolve, &r, &r.views) != PLS_OK) {
        _exit(2);
    }
    int fds[2] = {pls_inbox_memfd(r.inbox), pls_inbox_eventfd(r.inbox)};
    wire_packet packet = {.kind = WIRE_INBOX, .slot = CROWD_CONSUMER_SLOT, .epoch = CROWD_EPOCH};
    (void)wire_send(introduce, &packet, fds, 2);
    close(introduce);
    while (atomic_load_explicit(&r.score->stop, memory_order_relaxed) == 0) {
        pls_bitmap space;
        letters_take(&r);
        (void)pls_inbox_take_space(r.inbox, &space);
        deaths_clear(&r);
        if (c->manner.hasty) {
            consumer_dozes(&r);
        } else {
            consumer_sleeps(&r);
        }
    }
    atomic_store(&r.score->left_open,
                 (uint32_t)(pls_views_open_count(r.views) + pls_views_mapped_count(r.views)));
    _exit(0);
}
