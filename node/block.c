/* SPDX-License-Identifier: Apache-2.0 */
/* Large payloads as their readers hold them: a lease on another process's memory, or a hold on our
 * own when a process sends to itself. Any thread may let go of the last reference: a lease goes
 * back by itself, a hold waits on a list for the owner thread, which alone may touch the arena. */
#include "node/runtime_parts.h"

#include "base/assert.h"

#include <stdlib.h>

static pls_err open_foreign(pulsing *p, const pls_arrival *arrival, pulsing_block *block)
{
    pls_link *link = NULL;
    pls_err err = pls_link_get(p, arrival->slot, arrival->epoch, false, &link);
    if (err != PLS_OK) {
        return err;
    }
    err =
        pls_lease_open(p->views, link->peer, pulsing_slot(p), &arrival->descriptor, &block->lease);
    block->bytes = block->lease.bytes;
    block->len = block->lease.len;
    return err;
}

pls_err pls_block_open(pulsing *p, const pls_arrival *arrival, pulsing_block **block_out)
{
    *block_out = NULL;
    if (arrival->opened != NULL) {
        *block_out = pulsing_block_keep(arrival->opened);
        return PLS_OK;
    }
    if (!arrival->foreign && arrival->own == NULL) {
        return PLS_OK;
    }
    pulsing_block *block = calloc(1, sizeof *block);
    if (block == NULL) {
        return PLS_ENOMEM;
    }
    block->references = 1;
    block->p = p;
    if (arrival->own == NULL) {
        pls_err err = open_foreign(p, arrival, block);
        if (err != PLS_OK) {
            free(block);
            return err;
        }
    } else {
        pls_arena_hold(p->arena, arrival->own);
        atomic_fetch_add_explicit(&p->own_blocks, 1, memory_order_relaxed);
        block->own = arrival->own;
        block->bytes = arrival->own->base;
        block->len = arrival->own->bytes;
    }
    *block_out = block;
    return PLS_OK;
}

static void mailbox_secure(pulsing *p, const pls_parcels *mailbox, uint32_t slot, uint32_t epoch)
{
    for (pls_parcel *parcel = mailbox->first; parcel != NULL; parcel = parcel->next) {
        if (parcel->foreign && parcel->slot == slot && parcel->epoch == epoch) {
            pls_arrival arrival = {.slot = parcel->slot,
                                   .epoch = epoch,
                                   .foreign = true,
                                   .descriptor = parcel->descriptor};
            /* One that cannot be opened now is refused with that when its turn comes. */
            parcel->foreign = pls_block_open(p, &arrival, &parcel->opened) != PLS_OK;
        }
    }
}

void pls_blocks_secure(pulsing *p, uint32_t slot, uint32_t epoch)
{
    for (uint32_t i = 0; i < PLS_BUCKETS; i++) {
        for (pulsing_actor *actor = p->actors[i]; actor != NULL; actor = actor->next) {
            mailbox_secure(p, &actor->mailbox, slot, epoch);
        }
    }
}

void pls_block_decline(pulsing *p, uint32_t slot, uint32_t epoch, const pls_descriptor *descriptor)
{
    pls_link *link = NULL;
    if (pls_link_get(p, slot, epoch, false, &link) == PLS_OK) {
        pls_lease_decline(p->views, link->peer, pulsing_slot(p), descriptor);
    }
}

pulsing_block *pulsing_block_keep(pulsing_block *block)
{
    uint32_t before = atomic_fetch_add_explicit(&block->references, 1, memory_order_relaxed);
    pls_assert(before > 0);
    return block;
}

void pulsing_block_release(pulsing_block *block)
{
    /* acq_rel: the reads of every holder come before the memory is given back by the last. */
    if (block == NULL ||
        atomic_fetch_sub_explicit(&block->references, 1, memory_order_acq_rel) != 1) {
        return;
    }
    if (block->own == NULL) {
        pls_lease_return(&block->lease);
        free(block);
        return;
    }
    pulsing *p = block->p;
    pulsing_block *top = atomic_load_explicit(&p->garbage, memory_order_relaxed);
    do {
        block->next_garbage = top;
        /* release: pairs with the exchange in pls_blocks_sweep(). */
    } while (!atomic_compare_exchange_weak_explicit(&p->garbage, &top, block, memory_order_release,
                                                    memory_order_relaxed));
    /* acq_rel: after the runtime's own count is gone, the last one ends it. */
    if (atomic_fetch_sub_explicit(&p->own_blocks, 1, memory_order_acq_rel) == 1) {
        pls_runtime_free(p);
    }
}

const uint8_t *pulsing_block_bytes(const pulsing_block *block, uint64_t *len_out)
{
    *len_out = block->len;
    return block->bytes;
}

void pls_blocks_sweep(pulsing *p)
{
    if (atomic_load_explicit(&p->garbage, memory_order_relaxed) == NULL) {
        return;
    }
    pulsing_block *block = atomic_exchange_explicit(&p->garbage, NULL, memory_order_acquire);
    while (block != NULL) {
        pulsing_block *next = block->next_garbage;
        if (p->arena != NULL) {
            pls_arena_unhold(p->arena, block->own);
        }
        free(block);
        block = next;
    }
}
