/* SPDX-License-Identifier: Apache-2.0 */
/* The party that is killed. Its checks abort, which the parent sees as trouble: a victim that finds
 * something wrong by itself must not pass as one that was killed in time. */
#include "tests/stress/stage.h"

#include "base/assert.h"
#include "tests/stress/wire.h"

#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

/* A segment is with the node before the first descriptor that points into it. */
static pls_err segment_publish(void *context, uint32_t segment, int readonly_fd)
{
    const victim *v = context;
    wire_packet packet = {.kind = WIRE_SEGMENT, .epoch = v->epoch, .segment = segment};
    return wire_send(v->socket, &packet, &readonly_fd, 1) ? PLS_OK : PLS_ESYS;
}

static void segment_retire(void *context, uint32_t segment)
{
}

/* The survivor's segments are opened through its own descriptors. */
static pls_err segment_resolve(void *context, uint32_t slot, uint32_t epoch, uint32_t segment,
                               int *fd_out)
{
    const victim *v = context;
    char path[64];
    if (slot != STAGE_SURVIVOR || segment >= STAGE_SEGMENTS_MAX) {
        return PLS_ENOENT;
    }
    snprintf(path, sizeof path, "/proc/%d/fd/%d", (int)v->parent, v->score->segment_fds[segment]);
    *fd_out = open(path, O_RDONLY | O_CLOEXEC);
    return *fd_out >= 0 ? PLS_OK : PLS_ENOENT;
}

static void party_make(victim *v)
{
    pls_arena_config config = {.budget_bytes = UINT64_C(64) << 20,
                               .publish = segment_publish,
                               .retire = segment_retire,
                               .context = v};
    pls_assert(pls_inbox_create(STAGE_VICTIM, v->epoch, &v->inbox) == PLS_OK);
    pls_assert(pls_arena_create(v->inbox, &config, &v->arena) == PLS_OK);
    pls_assert(pls_views_create(segment_resolve, v, &v->views) == PLS_OK);
    int fds[2] = {pls_inbox_memfd(v->inbox), pls_inbox_eventfd(v->inbox)};
    wire_packet packet = {.kind = WIRE_INBOX, .epoch = v->epoch};
    pls_assert(wire_send(v->socket, &packet, fds, 2));
}

void victim_attach(victim *v)
{
    pls_assert(pls_outbox_attach(v->survivor, STAGE_VICTIM, v->epoch, STAGE_RING_BYTES,
                                 &v->outbox) == PLS_OK);
}

pls_err victim_send(victim *v, uint32_t len)
{
    uint8_t *room = NULL;
    pls_err err = pls_outbox_reserve(v->outbox, LETTER_BYTES + len, &room);
    if (err == PLS_OK) {
        letter_write(room, v->epoch, v->last_id + 1, len);
        v->last_id++;
        (void)pls_outbox_commit(v->outbox, LETTER_BYTES + len, LETTER_TYPE, 0, 0);
    }
    return err;
}

void victim_send_enclosed(victim *v, uint32_t len)
{
    pls_block *block = NULL;
    uint8_t *room = NULL;
    uint32_t bytes = (uint32_t)sizeof(pls_descriptor) + LETTER_BYTES;
    pls_descriptor descriptor;
    pls_arena_loan loan = {.len = len, .slot = STAGE_SURVIVOR, .epoch = STAGE_EPOCH};
    letter head = letter_of(v->epoch, ++v->last_id, len);
    pls_assert(pls_arena_alloc(v->arena, len, &block) == PLS_OK);
    memset(block->base, letter_fill(head.epoch, head.id), len);
    pls_assert(pls_arena_lend(v->arena, block, &loan, &descriptor) == PLS_OK);
    pls_assert(pls_outbox_reserve(v->outbox, bytes, &room) == PLS_OK);
    memcpy(room, &descriptor, sizeof descriptor);
    memcpy(room + sizeof descriptor, &head, sizeof head);
    (void)pls_outbox_commit(v->outbox, bytes, LETTER_TYPE, PLS_FLAG_DESCRIPTOR, 0);
    pls_arena_unhold(v->arena, block);
}

bool victim_pop(victim *v, bool open)
{
    letter head;
    pls_err err = pls_inbox_pop(v->inbox, &v->message);
    if (err == PLS_EEMPTY) {
        return false;
    }
    pls_assert(err == PLS_OK);
    pls_assert(letter_read(&v->message, &head, &v->descriptor));
    if ((v->message.flags & PLS_FLAG_DESCRIPTOR) != 0 && open) {
        pls_lease *lease = &v->leases[v->lease_count++];
        pls_assert(pls_lease_open(v->views, v->survivor, STAGE_VICTIM, &v->descriptor, lease) ==
                   PLS_OK);
        pls_assert(lease->bytes[0] == letter_fill(head.epoch, head.id));
        pls_assert(lease->bytes[lease->len - 1] == lease->bytes[0]);
    }
    return true;
}

void victim_main(void *context)
{
    const stage *s = context;
    static victim v;
    v.score = s->score;
    v.socket = s->sockets[1];
    v.parent = getppid();
    v.epoch = s->epoch;
    party_make(&v);
    pls_assert(pls_peer_attach(dup(pls_inbox_memfd(s->inbox)), dup(pls_inbox_eventfd(s->inbox)),
                               STAGE_SURVIVOR, STAGE_EPOCH, &v.survivor) == PLS_OK);
    step_pause();
    if (s->op->prepare != NULL) {
        s->op->prepare(&v);
    }
    step_pause();
    s->op->act(&v);
}
