/* SPDX-License-Identifier: Apache-2.0 */
/* One round: a fresh victim is stepped to its place and killed; then what the survivors do after a
 * death is done, and everything that the kill must not have harmed is looked at. The survivor goes
 * on with the same inbox and arena, so that its books must balance after every round. */
#include "tests/stress/stage.h"

#include "tests/stress/wire.h"

#include <dirent.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define PACKET_WAIT_MS 5000
#define ARM_TRIES_MAX 4
/* More than 1 where sanitizers multiply the instructions: every n-th point is left. */
#ifndef STAGE_STRIDE
#define STAGE_STRIDE 1
#endif

static bool bit_get(const pls_bitmap *map, uint32_t slot)
{
    return (map->word[slot / 64] >> (slot % 64) & 1) != 0;
}

static void bits_add(pls_bitmap *map, const pls_bitmap *more)
{
    for (unsigned i = 0; i < PLS_SLOT_WORDS; i++) {
        map->word[i] |= more->word[i];
    }
}

static pls_err segment_publish(void *context, uint32_t segment, int readonly_fd)
{
    stage *s = context;
    ck_assert_uint_lt(segment, STAGE_SEGMENTS_MAX);
    s->score->segment_fds[segment] = dup(readonly_fd);
    return PLS_OK;
}

static void segment_retire(void *context, uint32_t segment)
{
    stage *s = context;
    close(s->score->segment_fds[segment]);
    s->score->segment_fds[segment] = -1;
}

/* As the node: take in the segments that the victim has published, then give out a copy. */
static pls_err segment_resolve(void *context, uint32_t slot, uint32_t epoch, uint32_t segment,
                               int *fd_out)
{
    stage *s = context;
    wire_packet packet;
    int fds[WIRE_FDS_MAX];
    while (wire_receive(s->sockets[0], &packet, fds, 0)) {
        ck_assert_uint_eq(packet.kind, WIRE_SEGMENT);
        ck_assert_uint_lt(packet.segment, STAGE_SEGMENTS_MAX);
        s->segments[packet.segment] = fds[0];
    }
    if (slot != STAGE_VICTIM || epoch != s->epoch || segment >= STAGE_SEGMENTS_MAX ||
        s->segments[segment] < 0) {
        return PLS_ENOENT;
    }
    *fd_out = dup(s->segments[segment]);
    return PLS_OK;
}

static pls_peer *self_attach(const stage *s)
{
    pls_peer *peer = NULL;
    ck_assert_int_eq(pls_peer_attach(dup(pls_inbox_memfd(s->inbox)),
                                     dup(pls_inbox_eventfd(s->inbox)), STAGE_SURVIVOR, STAGE_EPOCH,
                                     &peer),
                     PLS_OK);
    return peer;
}

static pls_outbox *other_attach(const stage *s, uint32_t slot, uint32_t epoch)
{
    pls_outbox *outbox = NULL;
    pls_peer *peer = self_attach(s);
    ck_assert_int_eq(pls_outbox_attach(peer, slot, epoch, STAGE_RING_BYTES, &outbox), PLS_OK);
    pls_peer_release(peer);
    return outbox;
}

static void letter_commit(pls_outbox *outbox, uint32_t epoch, uint32_t id)
{
    uint8_t *room = NULL;
    ck_assert_int_eq(pls_outbox_reserve(outbox, LETTER_BYTES + 40, &room), PLS_OK);
    letter_write(room, epoch, id, 40);
    (void)pls_outbox_commit(outbox, LETTER_BYTES + 40, LETTER_TYPE, 0, 0);
}

void stage_open(stage *s)
{
    memset(s, 0, sizeof *s);
    s->score =
        mmap(NULL, sizeof *s->score, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    ck_assert_ptr_ne(s->score, MAP_FAILED);
    memset(s->segments, 0xff, sizeof s->segments);
    wire_open(s->sockets);
    pls_arena_config config = {.budget_bytes = UINT64_C(64) << 20,
                               .publish = segment_publish,
                               .retire = segment_retire,
                               .context = s};
    ck_assert_int_eq(pls_inbox_create(STAGE_SURVIVOR, STAGE_EPOCH, &s->inbox), PLS_OK);
    ck_assert_int_eq(pls_arena_create(s->inbox, &config, &s->arena), PLS_OK);
    ck_assert_int_eq(pls_views_create(segment_resolve, s, &s->views), PLS_OK);
    s->self = self_attach(s);
    s->bystander = other_attach(s, STAGE_BYSTANDER, STAGE_EPOCH);
}

void stage_close(stage *s)
{
    pls_peer_release(s->self);
    pls_outbox_detach(s->bystander);
    pls_views_destroy(s->views);
    pls_arena_destroy(s->arena);
    pls_inbox_destroy(s->inbox);
    close(s->sockets[0]);
    close(s->sockets[1]);
    for (int i = 0; i < STAGE_SEGMENTS_MAX; i++) {
        if (s->score->segment_fds[i] > 0) {
            close(s->score->segment_fds[i]);
        }
    }
    munmap(s->score, sizeof *s->score);
}

static bool eventfd_readable(int fd)
{
    struct pollfd descriptor = {.fd = fd, .events = POLLIN};
    return poll(&descriptor, 1, 0) > 0;
}

bool stage_signalled(const stage *s)
{
    return eventfd_readable(pls_inbox_eventfd(s->inbox));
}

bool stage_victim_signalled(const stage *s)
{
    return eventfd_readable(s->victim_eventfd);
}

void stage_send_open(stage *s)
{
    ck_assert_int_eq(
        pls_outbox_attach(s->victim, STAGE_SURVIVOR, STAGE_EPOCH, STAGE_RING_BYTES, &s->to_victim),
        PLS_OK);
}

pls_err stage_send(stage *s, uint32_t len, bool enclosed)
{
    uint8_t *room = NULL;
    pls_descriptor descriptor;
    uint32_t prefix = enclosed ? (uint32_t)sizeof descriptor : 0;
    uint32_t bytes = prefix + LETTER_BYTES + (enclosed ? 0 : len);
    letter head = letter_of(STAGE_EPOCH, s->to_victim_sent + 1, len);
    pls_err err = pls_outbox_reserve(s->to_victim, bytes, &room);
    if (err != PLS_OK) {
        return err;
    }
    if (enclosed) {
        pls_arena_loan loan = {.len = len, .slot = STAGE_VICTIM, .epoch = s->epoch};
        if (s->held == NULL) {
            ck_assert_int_eq(pls_arena_alloc(s->arena, len, &s->held), PLS_OK);
            memset(s->held->base, letter_fill(head.epoch, head.id), len);
        }
        ck_assert_int_eq(pls_arena_lend(s->arena, s->held, &loan, &descriptor), PLS_OK);
        memcpy(room, &descriptor, sizeof descriptor);
        memcpy(room + prefix, &head, sizeof head);
    } else {
        letter_write(room, head.epoch, head.id, len);
    }
    s->to_victim_sent++;
    (void)pls_outbox_commit(s->to_victim, bytes, LETTER_TYPE, enclosed ? PLS_FLAG_DESCRIPTOR : 0,
                            0);
    (void)pls_outbox_wake(s->to_victim);
    return PLS_OK;
}

void stage_dead_commits(stage *s)
{
    s->dead = other_attach(s, STAGE_DEAD, s->epoch);
    s->dead_received = 0;
    letter_commit(s->dead, s->epoch, 1);
}

static void enclosure_open(stage *s, const letter *head, const pls_descriptor *descriptor)
{
    stage_check(s, s->lease_count < STAGE_LEASES_MAX);
    pls_lease *lease = &s->leases[s->lease_count];
    pls_err err = pls_lease_open(s->views, s->victim, STAGE_SURVIVOR, descriptor, lease);
    stage_check(s, err == PLS_OK);
    stage_check(s, letter_body_holds(head, lease->bytes));
    s->enclosed[s->lease_count] = *head;
    s->lease_count++;
}

static void letter_take(stage *s, const pls_message *message)
{
    letter head;
    pls_descriptor descriptor;
    stage_check(s, letter_read(message, &head, &descriptor));
    switch (message->from_slot) {
    case STAGE_VICTIM:
        stage_check(s, head.epoch == s->epoch);
        s->victim_received++;
        stage_check(s, head.id == s->victim_received);
        if ((message->flags & PLS_FLAG_DESCRIPTOR) != 0) {
            enclosure_open(s, &head, &descriptor);
        }
        break;
    case STAGE_BYSTANDER:
        s->bystander_received++;
        stage_check(s, head.id == s->bystander_received);
        break;
    case STAGE_DEAD:
        s->dead_received++;
        stage_check(s, head.epoch == s->epoch && head.id == s->dead_received);
        break;
    default:
        stage_check(s, !"a letter from a slot that nobody has");
    }
}

static void letters_take(stage *s)
{
    pls_message message;
    for (;;) {
        pls_err err = pls_inbox_pop(s->inbox, &message);
        if (err == PLS_EEMPTY) {
            return;
        }
        stage_check(s, err == PLS_OK);
        letter_take(s, &message);
        stage_check(s, pls_inbox_check(s->inbox));
        pls_inbox_release(s->inbox);
    }
}

void stage_drain(stage *s)
{
    pls_bitmap taken;
    bool more = true;
    while (more) {
        letters_take(s);
        more = pls_inbox_take_space(s->inbox, &taken);
        bits_add(&s->space, &taken);
        more = pls_inbox_take_dead(s->inbox, &taken) || more;
        bits_add(&s->gone, &taken);
        if (pls_inbox_take_owed(s->inbox, &taken) && bit_get(&taken, STAGE_VICTIM)) {
            pls_peer_ring_space(s->victim, STAGE_SURVIVOR);
        }
        s->collected += pls_arena_collect(s->arena);
    }
}

/* Go to sleep, as far as one can see from outside. Nobody but the victim is running, and it is
 * stopped, so what it left to be done is done after a few tries. */
static void survivor_sleeps(stage *s)
{
    bool armed = false;
    for (int i = 0; i < ARM_TRIES_MAX && !armed; i++) {
        stage_drain(s);
        armed = pls_inbox_arm(s->inbox);
    }
    stage_check(s, armed);
    stage_check(s, !stage_signalled(s));
}

static void bystander_sends(stage *s)
{
    s->bystander_sent++;
    letter_commit(s->bystander, STAGE_EPOCH, s->bystander_sent);
    (void)pls_outbox_wake(s->bystander);
}

static void victim_begins(stage *s)
{
    wire_packet packet;
    int fds[WIRE_FDS_MAX];
    memset(s->score->handled, 0, sizeof s->score->handled);
    s->score->wants_space = 0;
    s->score->armed = 0;
    s->victim_received = 0;
    s->to_victim_sent = 0;
    s->collected = 0;
    s->complete = false;
    memset(&s->space, 0, sizeof s->space);
    memset(&s->gone, 0, sizeof s->gone);
    step_start(&s->child, victim_main, s);
    stage_check(s, s->child.trouble == 0);
    stage_check(s, wire_receive(s->sockets[0], &packet, fds, PACKET_WAIT_MS));
    stage_check(s, packet.kind == WIRE_INBOX);
    stage_check(s, pls_peer_attach(fds[0], fds[1], STAGE_VICTIM, s->epoch, &s->victim) == PLS_OK);
    s->victim_memfd = dup(fds[0]);
    s->victim_eventfd = fds[1];
    if (s->op->set != NULL) {
        s->op->set(s);
    }
    step_run(&s->child);
    stage_check(s, s->child.trouble == 0 && !s->child.over);
    if (s->op->settle != NULL) {
        s->op->settle(s);
    }
}

/* The victim stands still somewhere in its act, alive: nothing of it may be reclaimed, nobody has
 * to wait for it, and once it goes on its act ends as if nothing had been. */
static void victim_pauses(stage *s)
{
    if (!s->op->busy) {
        bystander_sends(s);
        stage_check(s, stage_signalled(s));
        pls_inbox_disarm(s->inbox, true);
    }
    if (s->op->meanwhile != NULL) {
        s->op->meanwhile(s);
    }
    survivor_sleeps(s);
    stage_check(s, s->bystander_received == s->bystander_sent);
    step_run(&s->child);
    stage_check(s, s->child.trouble == 0 && s->child.over);
    s->complete = true;
    /* Returned leases that nobody waits for are found when they are needed. */
    unsigned ready = pls_inbox_ready(s->inbox) & ~(unsigned)PLS_READY_RETURNS;
    stage_check(s, ready == 0 || stage_signalled(s));
}

/* What must wake a survivor that sleeps, whatever the victim has left undone. */
static void survivor_wakes(stage *s)
{
    if (s->complete && s->op->notifies && s->mode != STAGE_PAUSED) {
        stage_check(s, stage_signalled(s));
    }
    if (s->mode == STAGE_NEXT_SEND) {
        bystander_sends(s);
        stage_check(s, stage_signalled(s));
        pls_inbox_disarm(s->inbox, true);
        survivor_sleeps(s);
    }
}

static void enclosures_return(stage *s)
{
    for (uint32_t i = 0; i < s->lease_count; i++) {
        stage_check(s, letter_body_holds(&s->enclosed[i], s->leases[i].bytes));
        pls_lease_return(&s->leases[i]);
    }
    s->lease_count = 0;
    pls_views_sweep(s->views);
    stage_check(s, pls_views_open_count(s->views) == 0);
    stage_check(s, pls_views_mapped_count(s->views) == 0);
    stage_check(s, pls_views_check(s->views));
}

static void arena_balances(stage *s)
{
    pls_arena_stats stats;
    (void)pls_arena_reap(s->arena, STAGE_VICTIM, s->epoch);
    if (s->held != NULL) {
        pls_arena_unhold(s->arena, s->held);
        s->held = NULL;
    }
    pls_arena_stats_get(s->arena, &stats);
    stage_check(s, stats.lent_count == 0 && stats.lent_bytes == 0);
    stage_check(s, stats.blocks_count == 0 && stats.used_bytes == 0);
    stage_check(s, stats.corrupt_total == 0);
    stage_check(s, stats.returned_total + stats.reaped_total == stats.lent_total);
    stage_check(s, pls_arena_check(s->arena));
}

/* Another process gets the slot and can be heard. */
static void slot_is_reused(stage *s)
{
    s->epoch++;
    s->victim_received = 0;
    pls_outbox *next = other_attach(s, STAGE_VICTIM, s->epoch);
    letter_commit(next, s->epoch, 1);
    (void)pls_outbox_wake(next);
    letters_take(s);
    stage_check(s, s->victim_received == 1);
    stage_check(s, pls_outbox_check(next));
    pls_outbox_detach(next);
    stage_check(s, pls_inbox_close_ring(s->inbox, STAGE_VICTIM) == PLS_OK);
    s->epoch++;
}

static void dead_are_reaped(stage *s)
{
    if (s->dead != NULL) {
        stage_check(s, bit_get(&s->gone, STAGE_DEAD) && s->dead_received == 1);
        stage_check(s, pls_inbox_drained(s->inbox, STAGE_DEAD));
        stage_check(s, pls_inbox_close_ring(s->inbox, STAGE_DEAD) == PLS_OK);
        pls_outbox_detach(s->dead);
        s->dead = NULL;
    }
    stage_check(s, bit_get(&s->gone, STAGE_VICTIM));
    stage_check(s, pls_inbox_drained(s->inbox, STAGE_VICTIM));
    uint32_t letters_max = s->op->letters_before + s->op->letters_act;
    stage_check(s, s->victim_received >= s->op->letters_before);
    stage_check(s, s->victim_received <= letters_max);
    stage_check(s, !s->complete || s->victim_received == letters_max);
    stage_check(s, s->bystander_received == s->bystander_sent);
}

static void victim_is_forgotten(stage *s)
{
    pls_views_owner_dead(s->views, STAGE_VICTIM, s->epoch);
    enclosures_return(s);
    arena_balances(s);
    stage_check(s, pls_inbox_close_ring(s->inbox, STAGE_VICTIM) == PLS_OK);
    stage_check(s, pls_inbox_check(s->inbox));
    if (s->to_victim != NULL) {
        stage_check(s, pls_outbox_check(s->to_victim));
        pls_outbox_detach(s->to_victim);
        s->to_victim = NULL;
    }
    pls_peer_release(s->victim);
    close(s->victim_memfd);
    for (int i = 0; i < STAGE_SEGMENTS_MAX; i++) {
        if (s->segments[i] >= 0) {
            close(s->segments[i]);
            s->segments[i] = -1;
        }
    }
    slot_is_reused(s);
}

static void round_play(stage *s)
{
    victim_begins(s);
    if (!s->op->busy) {
        survivor_sleeps(s);
    }
    if (s->trace.places == NULL) {
        step_record(&s->child, &s->trace);
    } else {
        step_to(&s->child, &s->trace, s->point);
    }
    stage_check(s, s->child.trouble == 0);
    s->complete = s->child.over;
    if (s->mode == STAGE_PAUSED) {
        victim_pauses(s);
    }
    step_kill(&s->child);
    if (!s->op->busy) {
        survivor_wakes(s);
    }
    /* The node has seen the pidfd. */
    pls_peer_ring_dead(s->self, STAGE_VICTIM);
    if (s->dead != NULL) {
        pls_peer_ring_dead(s->self, STAGE_DEAD);
    }
    if (!s->op->busy) {
        stage_check(s, stage_signalled(s));
    }
    pls_inbox_disarm(s->inbox, true);
    stage_drain(s);
    if (s->op->judge != NULL) {
        s->op->judge(s);
    }
    dead_are_reaped(s);
    /* Segments that were published and that no message has told of are the node's to close. */
    int none = -1;
    (void)segment_resolve(s, STAGE_VICTIM, s->epoch, STAGE_SEGMENTS_MAX, &none);
    victim_is_forgotten(s);
}

static int descriptors_count(void)
{
    int count = 0;
    DIR *folder = opendir("/proc/self/fd");
    ck_assert_ptr_ne(folder, NULL);
    while (readdir(folder) != NULL) {
        count++;
    }
    closedir(folder);
    return count;
}

static double now_s(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

/* Kills at every point in one mode; gives the number of kills. */
static uint64_t mode_exhaust(stage *s, stage_mode mode)
{
    uint64_t kills = 0;
    s->mode = mode;
    for (s->point = 0; s->point <= s->trace.count; s->point++) {
        if (s->point % STAGE_STRIDE != 0 && s->point != s->trace.count) {
            continue;
        }
        if (s->point == 0 || s->point == s->trace.count ||
            step_visits(&s->trace, s->point) <= STAGE_VISITS_MAX) {
            round_play(s);
            kills++;
        }
    }
    return kills;
}

void stage_exhaust(const stage_op *op)
{
    static stage s;
    double begin_s = now_s();
    int descriptors = descriptors_count();
    step_pin();
    stage_open(&s);
    s.op = op;
    s.epoch = 1;
    /* The first round is stepped whole and tells the way. */
    s.mode = STAGE_DEAD_BELL;
    round_play(&s);
    uint64_t kills = 1;
    for (int mode = 0; mode < STAGE_MODES; mode++) {
        kills += mode_exhaust(&s, (stage_mode)mode);
    }
    uint64_t points = s.trace.count + 1;
    ck_assert_msg(kills / STAGE_MODES >= op->points_min / STAGE_STRIDE,
                  "%s: only %llu kill points, not %u", op->name,
                  (unsigned long long)(kills / STAGE_MODES), op->points_min);
    ck_assert_uint_eq(pls_inbox_recheck_found_work(s.inbox), 0);
    printf("%-16s %6llu kills at %llu of %llu points in 3 modes (%llu calls out of our text), "
           "nothing harmed, %.1f s\n",
           op->name, (unsigned long long)kills, (unsigned long long)(kills / STAGE_MODES),
           (unsigned long long)points, (unsigned long long)s.trace.foreign, now_s() - begin_s);
    fflush(stdout);
    step_trace_fini(&s.trace);
    stage_close(&s);
    ck_assert_int_eq(descriptors_count(), descriptors);
}
