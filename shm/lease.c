/* SPDX-License-Identifier: Apache-2.0 */
/* The receiver's side of leases. A view is one foreign segment mapped read-only; it counts its open
 * leases in an atomic word, because they are returned from any thread. Mapping and unmapping happen
 * in the owner thread only, until the table is destroyed: then the last return takes down what only
 * leases kept. */
#include "shm/lease.h"

#include "base/assert.h"
#include "shm/segment.h"

#include <stdlib.h>
#include <unistd.h>

#define BUCKETS 1024
/* Mapped segments without an open lease that stay for the next one; each costs address space and
 * a kernel mapping, of which a process has some 65,000. */
#define VIEWS_IDLE_MAX 1024

struct pls_view {
    const uint8_t *here; /* the fork mark: 0 in a forked child */
    pls_views *views;
    pls_peer *owner;
    uint32_t segment;
    bool dead;
    pls_segment memory;
    _Atomic uint32_t open;
    pls_view *next; /* in the bucket */
};

struct pls_views {
    pls_views_resolve resolve;
    void *context;
    pls_segment mark;
    _Atomic uint64_t claims; /* open leases, and one of whoever made the table until destroy */
    uint64_t mapped_count;
    bool sweep_wanted;
    pls_view *buckets[BUCKETS];
};

pls_err pls_views_create(pls_views_resolve resolve, void *context, pls_views **views_out)
{
    pls_assert(resolve != NULL);
    pls_views *views = calloc(1, sizeof *views);
    if (views == NULL) {
        return PLS_ENOMEM;
    }
    views->mark = PLS_SEGMENT_EMPTY;
    pls_err err = pls_segment_forkmark(&views->mark);
    if (err != PLS_OK) {
        free(views);
        return err;
    }
    atomic_init(&views->claims, 1);
    views->resolve = resolve;
    views->context = context;
    *views_out = views;
    return PLS_OK;
}

static pls_view **bucket_of(pls_views *views, const pls_peer *owner, uint32_t segment)
{
    uint32_t hash = (pls_peer_slot(owner) << 24 ^ pls_peer_epoch(owner)) * UINT32_C(2654435761);
    hash = (hash ^ segment) * UINT32_C(2246822519);
    return &views->buckets[hash >> 16 & (BUCKETS - 1)];
}

static bool same_owner(const pls_peer *a, const pls_peer *b)
{
    return pls_peer_slot(a) == pls_peer_slot(b) && pls_peer_epoch(a) == pls_peer_epoch(b);
}

static void view_unmap(pls_views *views, pls_view **link)
{
    pls_view *view = *link;
    *link = view->next;
    pls_segment_detach(&view->memory);
    pls_peer_release(view->owner);
    free(view);
    views->mapped_count--;
}

/* Unmap the idle views that are dead, or all of them. */
static void idle_unmap(pls_views *views, bool all)
{
    for (unsigned i = 0; i < BUCKETS; i++) {
        pls_view **link = &views->buckets[i];
        while (*link != NULL) {
            /* Acquire pairs with the release in pls_lease_return(): nobody reads it any more. */
            bool idle = atomic_load_explicit(&(*link)->open, memory_order_acquire) == 0;
            if (idle && (all || (*link)->dead)) {
                view_unmap(views, link);
            } else {
                link = &(*link)->next;
            }
        }
    }
}

/* One claim on the table less; the last one takes everything with it. */
static void claim_drop(pls_views *views)
{
    /* Release and acquire: whatever others did with the table is over before it goes. */
    if (atomic_fetch_sub_explicit(&views->claims, 1, memory_order_acq_rel) != 1) {
        return;
    }
    idle_unmap(views, true);
    pls_assert(views->mapped_count == 0);
    pls_segment_detach(&views->mark);
    free(views);
}

void pls_views_destroy(pls_views *views)
{
    if (views == NULL) {
        return;
    }
    idle_unmap(views, true);
    claim_drop(views);
}

/* Map a segment that is not mapped yet. */
static pls_err view_map(pls_views *views, pls_peer *owner, uint32_t segment, pls_view **view_out)
{
    int fd = -1;
    uint64_t bytes = 0;
    pls_view *view = calloc(1, sizeof *view);
    if (view == NULL) {
        return PLS_ENOMEM;
    }
    view->memory = PLS_SEGMENT_EMPTY;
    pls_err err =
        views->resolve(views->context, pls_peer_slot(owner), pls_peer_epoch(owner), segment, &fd);
    if (err != PLS_OK) {
        goto fail;
    }
    err = pls_segment_measure(fd, &bytes);
    if (err == PLS_OK) {
        err = pls_segment_map(&view->memory, fd, 0, bytes, PLS_SEGMENT_INHERIT | PLS_SEGMENT_HUGE);
    }
    close(fd);
    if (err != PLS_OK) {
        goto fail;
    }
    pls_view **bucket = bucket_of(views, owner, segment);
    view->here = views->mark.base;
    view->views = views;
    view->owner = pls_peer_acquire(owner);
    view->segment = segment;
    view->next = *bucket;
    *bucket = view;
    views->mapped_count++;
    *view_out = view;
    return PLS_OK;
fail:
    free(view);
    return err;
}

static pls_err view_find(pls_views *views, pls_peer *owner, uint32_t segment, pls_view **view_out)
{
    for (pls_view *view = *bucket_of(views, owner, segment); view != NULL; view = view->next) {
        if (view->segment == segment && same_owner(view->owner, owner)) {
            *view_out = view;
            return PLS_OK;
        }
    }
    if (views->mapped_count >= VIEWS_IDLE_MAX) {
        idle_unmap(views, true);
    }
    return view_map(views, owner, segment, view_out);
}

/* Whether the descriptor names a lease that is ours now. */
static bool lease_is_ours(const pls_peer *owner, uint32_t my_slot, const pls_descriptor *descriptor)
{
    if (descriptor->lease >= PLS_LEASES_MAX) {
        return false;
    }
    const pls_lease_cell *cell = &pls_peer_leases(owner)[descriptor->lease];
    /* Relaxed: stored before the message that brought the descriptor was committed. */
    return atomic_load_explicit(&cell->gen, memory_order_relaxed) == descriptor->gen &&
           *(const volatile uint16_t *)&cell->receiver == my_slot;
}

pls_err pls_lease_open(pls_views *views, pls_peer *owner, uint32_t my_slot,
                       const pls_descriptor *descriptor, pls_lease *lease_out)
{
    pls_assert(my_slot < PLS_SLOTS_MAX);
    pls_descriptor copy = *descriptor;
    pls_view *view = NULL;
    if (copy.len == 0 || (copy.flags & ~(uint32_t)PLS_DESCRIPTOR_FLAGS_KNOWN) != 0 ||
        !lease_is_ours(owner, my_slot, &copy)) {
        return PLS_ECORRUPT;
    }
    pls_err err = view_find(views, owner, copy.segment, &view);
    if (err != PLS_OK) {
        return err;
    }
    if (copy.offset > view->memory.bytes || copy.len > view->memory.bytes - copy.offset) {
        return PLS_ECORRUPT;
    }
    atomic_fetch_add_explicit(&view->open, 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&views->claims, 1, memory_order_relaxed);
    *lease_out = (pls_lease){
        .bytes = view->memory.base + copy.offset,
        .len = copy.len,
        .copy_soon = (copy.flags & PLS_DESCRIPTOR_COPY) != 0,
        .cell = copy.lease,
        .gen = copy.gen,
        .view = view,
    };
    return PLS_OK;
}

/* Push a cell on its owner's stack. Killed before the CAS, the lease is still on the owner's books;
 * after it, the lease is returned. */
static void return_push(const pls_peer *owner, uint32_t index)
{
    pls_inbox_header *header = pls_peer_header(owner);
    pls_lease_cell *cell = &pls_peer_leases(owner)[index];
    uint64_t top = atomic_load_explicit(&header->returns, memory_order_relaxed);
    do {
        atomic_store_explicit(&cell->next, (uint32_t)top, memory_order_relaxed);
        /* seq_cst: releases our reading to pls_arena_collect(), and comes before the look at the
         * wish, which pairs with the fence in pls_arena_want_returns(). */
    } while (!atomic_compare_exchange_weak_explicit(&header->returns, &top, index + UINT64_C(1),
                                                    memory_order_seq_cst, memory_order_relaxed));
    if (atomic_load_explicit(&header->returns_wanted, memory_order_seq_cst) != 0) {
        pls_peer_wake(owner);
    }
}

void pls_lease_return(pls_lease *lease)
{
    if (lease->bytes == NULL) {
        return;
    }
    pls_view *view = lease->view;
    lease->bytes = NULL;
    if (*view->here == 0) {
        return;
    }
    pls_views *views = view->views;
    return_push(view->owner, lease->cell);
    /* Release pairs with the acquire in idle_unmap(); the view may be gone after it. */
    atomic_fetch_sub_explicit(&view->open, 1, memory_order_release);
    claim_drop(views);
}

void pls_lease_decline(pls_views *views, pls_peer *owner, uint32_t my_slot,
                       const pls_descriptor *descriptor)
{
    pls_descriptor copy = *descriptor;
    if (views->mark.base[0] != 0 && lease_is_ours(owner, my_slot, &copy)) {
        return_push(owner, copy.lease);
    }
}

void pls_views_owner_dead(pls_views *views, uint32_t slot, uint32_t epoch)
{
    for (unsigned i = 0; i < BUCKETS; i++) {
        for (pls_view *view = views->buckets[i]; view != NULL; view = view->next) {
            if (pls_peer_slot(view->owner) == slot && pls_peer_epoch(view->owner) == epoch) {
                view->dead = true;
            }
        }
    }
    idle_unmap(views, false);
    views->sweep_wanted = true;
}

void pls_views_sweep(pls_views *views)
{
    if (!views->sweep_wanted) {
        return;
    }
    idle_unmap(views, false);
    views->sweep_wanted = false;
    for (unsigned i = 0; i < BUCKETS; i++) {
        for (pls_view *view = views->buckets[i]; view != NULL; view = view->next) {
            views->sweep_wanted = views->sweep_wanted || view->dead;
        }
    }
}

uint64_t pls_views_open_count(const pls_views *views)
{
    uint64_t count = 0;
    for (unsigned i = 0; i < BUCKETS; i++) {
        for (pls_view *view = views->buckets[i]; view != NULL; view = view->next) {
            count += atomic_load_explicit(&view->open, memory_order_relaxed);
        }
    }
    return count;
}

uint64_t pls_views_mapped_count(const pls_views *views)
{
    return views->mapped_count;
}

bool pls_views_check(const pls_views *views)
{
    uint64_t count = 0;
    for (unsigned i = 0; i < BUCKETS; i++) {
        for (pls_view *view = views->buckets[i]; view != NULL; view = view->next) {
            count++;
            if (view->memory.base == NULL || view->memory.fd != -1 || view->owner == NULL ||
                bucket_of((pls_views *)views, view->owner, view->segment) !=
                    (pls_view **)&views->buckets[i]) {
                return false;
            }
        }
    }
    return count == views->mapped_count && views->mark.base != NULL;
}
