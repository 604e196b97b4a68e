/* SPDX-License-Identifier: Apache-2.0 */
/* A peer's header page and lease table, mapped once and shared by everything that this process does
 * to the peer: ringing its bells, returning its leases. The ring itself is the outbox's own
 * mapping, so that a stray pointer elsewhere cannot reach it through here. */
#include "shm/peer.h"

#include "base/assert.h"
#include "shm/bell.h"
#include "shm/segment.h"

#include <stdlib.h>
#include <unistd.h>

struct pls_peer {
    pls_segment memory; /* fd: the inbox, until the outbox has it */
    int eventfd;
    uint32_t slot;
    uint32_t epoch;
    _Atomic uint32_t references;
};

static pls_err constants_verify(const pls_inbox_header *header, uint32_t slot, uint32_t epoch)
{
    if (header->magic != PLS_LAYOUT_MAGIC) {
        return PLS_EPROTO;
    }
    if (header->version != PLS_LAYOUT_VERSION || header->layout_hash != PLS_LAYOUT_HASH) {
        return PLS_EVERSION;
    }
    return header->slot == slot && header->epoch == epoch ? PLS_OK : PLS_EPROTO;
}

pls_err pls_peer_attach(int memfd, int eventfd, uint32_t slot, uint32_t epoch, pls_peer **peer_out)
{
    pls_assert(slot < PLS_SLOTS_MAX);
    pls_assert(epoch >= 1 && epoch <= PLS_EPOCH_MAX);
    uint64_t bytes = 0;
    pls_err err = pls_segment_measure(memfd, &bytes);
    if (err != PLS_OK) {
        return err;
    }
    if (bytes != PLS_INBOX_BYTES) {
        return PLS_EVERSION;
    }
    pls_peer *peer = calloc(1, sizeof *peer);
    if (peer == NULL) {
        return PLS_ENOMEM;
    }
    peer->memory = PLS_SEGMENT_EMPTY;
    err = pls_segment_map(&peer->memory, memfd, 0, PLS_INBOX_RINGS_OFFSET, PLS_SEGMENT_WRITE);
    if (err == PLS_OK) {
        err = constants_verify(pls_peer_header(peer), slot, epoch);
    }
    if (err != PLS_OK) {
        pls_segment_detach(&peer->memory);
        free(peer);
        return err;
    }
    peer->memory.fd = memfd;
    peer->eventfd = eventfd;
    peer->slot = slot;
    peer->epoch = epoch;
    atomic_init(&peer->references, 1);
    *peer_out = peer;
    return PLS_OK;
}

pls_peer *pls_peer_acquire(pls_peer *peer)
{
    uint32_t before = atomic_fetch_add_explicit(&peer->references, 1, memory_order_relaxed);
    pls_assert(before > 0);
    return peer;
}

void pls_peer_release(pls_peer *peer)
{
    if (peer == NULL) {
        return;
    }
    /* Release and acquire: every use of the peer is over before it is taken down. */
    uint32_t before = atomic_fetch_sub_explicit(&peer->references, 1, memory_order_acq_rel);
    pls_assert(before > 0);
    if (before == 1) {
        pls_segment_detach(&peer->memory);
        close(peer->eventfd);
        free(peer);
    }
}

uint32_t pls_peer_slot(const pls_peer *peer)
{
    return peer->slot;
}

uint32_t pls_peer_epoch(const pls_peer *peer)
{
    return peer->epoch;
}

const uint8_t *pls_peer_life(const pls_peer *peer)
{
    return pls_peer_header(peer)->life;
}

void pls_peer_ring_space(pls_peer *peer, uint32_t my_slot)
{
    pls_inbox_header *header = pls_peer_header(peer);
    (void)pls_bell_ring(header, header->space, my_slot, peer->eventfd);
}

void pls_peer_ring_dead(pls_peer *peer, uint32_t dead_slot)
{
    pls_inbox_header *header = pls_peer_header(peer);
    (void)pls_bell_ring(header, header->dead, dead_slot, peer->eventfd);
}

void pls_peer_wake(const pls_peer *peer)
{
    (void)pls_bell_signal(pls_peer_header(peer), peer->eventfd);
}

int pls_peer_memfd(const pls_peer *peer)
{
    return peer->memory.fd;
}

void pls_peer_memfd_close(pls_peer *peer)
{
    if (peer->memory.fd >= 0) {
        close(peer->memory.fd);
        peer->memory.fd = -1;
    }
}

bool pls_peer_ring_bell(pls_peer *peer, uint32_t my_slot)
{
    pls_inbox_header *header = pls_peer_header(peer);
    return pls_bell_ring(header, header->bell, my_slot, peer->eventfd);
}

pls_inbox_header *pls_peer_header(const pls_peer *peer)
{
    return (pls_inbox_header *)(void *)peer->memory.base;
}

pls_lease_cell *pls_peer_leases(const pls_peer *peer)
{
    return (pls_lease_cell *)(void *)(peer->memory.base + PLS_INBOX_LEASES_OFFSET);
}

bool pls_peer_check(const pls_peer *peer)
{
    return peer->references > 0 && pls_segment_check(&peer->memory) && peer->eventfd >= 0 &&
           constants_verify(pls_peer_header(peer), peer->slot, peer->epoch) == PLS_OK;
}
