/* SPDX-License-Identifier: Apache-2.0 */
/* What a process does when the node says that another is dying or dead. First its last messages are
 * taken in, those that it committed before the directory said DEAD, then everything that waits for
 * it ends; memory is reused only after the kernel has confirmed the death, which the directory line
 * says. Doing it twice does no harm. */
#include "node/runtime_parts.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

pls_err pulsing_death_get(const pulsing *p, uint32_t slot, uint32_t epoch, pls_death *death_out)
{
    if (slot >= PLS_SLOTS_MAX) {
        return PLS_ENOENT;
    }
    pls_err err = pls_directory_death(p->info->directory, slot, epoch, death_out);
    if (err != PLS_OK && p->ends[slot].epoch == epoch) {
        *death_out = p->ends[slot].death;
        err = PLS_OK;
    }
    return err;
}

static void end_remember(pulsing *p, uint32_t slot, uint32_t epoch)
{
    pls_end *end = &p->ends[slot];
    if (pls_directory_death(p->info->directory, slot, epoch, &end->death) == PLS_OK) {
        end->epoch = epoch;
    }
}

void pulsing_death_words(const pulsing *p, uint32_t slot, uint32_t epoch, char *text,
                         size_t capacity)
{
    pls_death death;
    bool known = pulsing_death_get(p, slot, epoch, &death) == PLS_OK;
    pls_death_words(known ? &death : NULL, text, capacity);
}

static void queue_fail(pulsing *p, pls_link *link, const char *text)
{
    pls_parcel *parcel = NULL;
    while ((parcel = pls_parcels_pop(&link->queue)) != NULL) {
        pls_waiting_sub(p, parcel);
        if (parcel->target != NULL && parcel->target->restartable) {
            pls_parcel_free(p, parcel); /* its target retains it */
        } else {
            pls_send_failed(p, parcel, PULSING_DIED, text);
        }
    }
}

static void link_reap(pulsing *p, uint32_t slot, uint32_t epoch, const char *text)
{
    pls_link *link = &p->links[slot];
    if (link->state != PLS_LINK_NONE && link->epoch == epoch) {
        pls_letters_lost(p, link);
        queue_fail(p, link, text);
        pls_targets_slot_died(p, slot, epoch, text, false);
        pls_calls_slot_died(p, slot, epoch, text);
        pls_outbox_detach(link->outbox);
        pls_peer_release(link->peer);
        free(link->retain);
        memset(link, 0, sizeof *link);
    } else {
        pls_targets_slot_died(p, slot, epoch, text, false);
        pls_calls_slot_died(p, slot, epoch, text);
    }
    if (pls_inbox_drained(p->inbox, slot)) {
        (void)!pls_inbox_close_ring(p->inbox, slot);
    }
    pls_arena_reap(p->arena, slot, epoch);
    pls_views_owner_dead(p->views, slot, epoch);
    (void)!pls_attach_death_ack(p->attach, slot, epoch);
}

static void dying_forget(pulsing *p, uint32_t slot)
{
    if (p->dying_until_ns[slot] != 0) {
        p->dying_until_ns[slot] = 0;
        p->dying_count--;
    }
}

/* Whether another process in that slot is in that state. */
static bool is_other_in(const pulsing *p, uint32_t slot, pls_slot_state state, uint32_t *epoch_out)
{
    return slot != pulsing_slot(p) &&
           pls_directory_peek(p->info->directory, slot, epoch_out) == state;
}

pls_bitmap pls_deaths_over(const pulsing *p, const pls_bitmap *told)
{
    pls_bitmap over = *told;
    for (uint32_t slot = 0; slot < PLS_SLOTS_MAX; slot++) {
        uint32_t epoch = 0;
        if (!is_other_in(p, slot, PLS_SLOT_DEAD, &epoch)) {
            over.word[slot / 64] &= ~(1ull << slot % 64);
        }
    }
    return over;
}

void pls_death_take(pulsing *p, uint32_t slot)
{
    uint32_t epoch = 0;
    char text[PLS_TEXT_BYTES_MAX];
    if (!is_other_in(p, slot, PLS_SLOT_DEAD, &epoch)) {
        return;
    }
    pulsing_death_words(p, slot, epoch, text, sizeof text);
    dying_forget(p, slot);
    pls_watch_peer(p, PLS_OBS_RARE_DEATH, slot, epoch);
    pls_blocks_secure(p, slot, epoch);
    end_remember(p, slot, epoch);
    if (p->on.death != NULL && p->links[slot].state != PLS_LINK_NONE &&
        p->links[slot].epoch == epoch) {
        p->on.death(p->on.context, slot, epoch);
    }
    link_reap(p, slot, epoch, text);
}

static void dying_end(pulsing *p, uint32_t slot, uint32_t epoch)
{
    char text[PLS_TEXT_BYTES_MAX];
    pulsing_death_words(p, slot, epoch, text, sizeof text);
    pls_targets_slot_died(p, slot, epoch, text, true);
}

void pls_dying_seen(pulsing *p, uint32_t slot)
{
    uint32_t epoch = 0;
    if (!is_other_in(p, slot, PLS_SLOT_DYING, &epoch)) {
        return;
    }
    pls_link *link = &p->links[slot];
    if (link->state == PLS_LINK_UP && link->epoch == epoch) {
        link->state = PLS_LINK_DYING;
    }
    /* Most processes are gone within a millisecond, and then their end has a cause: the calls wait
     * for that a little, not for a process of gigabytes. */
    int64_t now = pulsing_now_ns();
    if (p->dying_until_ns[slot] == 0) {
        const pls_directory_line *line = &p->info->directory->lines[slot];
        uint32_t mib = atomic_load_explicit(&line->resident_mib, memory_order_relaxed);
        int64_t grace = mib > PLS_DYING_LARGE_MIB ? PLS_DYING_GRACE_LARGE_NS : PLS_DYING_GRACE_NS;
        p->dying_until_ns[slot] = now + grace;
        p->dying_count++;
        if (p->on.wake_after != NULL) {
            p->on.wake_after(p->on.context, grace);
        }
    } else if (now >= p->dying_until_ns[slot]) {
        dying_end(p, slot, epoch);
    }
}

void pls_dying_check(pulsing *p)
{
    int64_t now = pulsing_now_ns();
    for (uint32_t slot = 0; slot < PLS_SLOTS_MAX; slot++) {
        uint32_t epoch = 0;
        bool due = p->dying_until_ns[slot] != 0 && now >= p->dying_until_ns[slot];
        if (!due || !pls_inbox_drained(p->inbox, slot)) {
            continue; /* what it has answered comes first */
        }
        /* Of one that is dead by now the bell will tell, after its last messages. */
        if (is_other_in(p, slot, PLS_SLOT_DYING, &epoch)) {
            dying_end(p, slot, epoch);
        }
        dying_forget(p, slot);
    }
}
