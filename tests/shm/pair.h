/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PLS_TESTS_SHM_PAIR_H
#define PLS_TESTS_SHM_PAIR_H

#include "shm/inbox.h"
#include "shm/outbox.h"
#include "shm/peer.h"

#include <check.h>
#include <string.h>
#include <unistd.h>

/* A consumer's inbox and a producer's end of it, in one process or divided over a fork. */
#define PAIR_CONSUMER 7
#define PAIR_PRODUCER 66
#define PAIR_EPOCH 3

typedef struct pair {
    pls_inbox *inbox;
    pls_peer *peer;
    pls_outbox *outbox;
} pair;

static inline pls_peer *pair_peer(const pls_inbox *inbox, uint32_t slot, uint32_t epoch)
{
    pls_peer *peer = NULL;
    int memfd = dup(pls_inbox_memfd(inbox));
    int eventfd = dup(pls_inbox_eventfd(inbox));
    ck_assert_int_eq(pls_peer_attach(memfd, eventfd, slot, epoch, &peer), PLS_OK);
    return peer;
}

static inline void pair_attach(pair *p, uint32_t producer, uint32_t epoch, uint32_t capacity_bytes)
{
    p->peer = pair_peer(p->inbox, PAIR_CONSUMER, PAIR_EPOCH);
    ck_assert_int_eq(pls_outbox_attach(p->peer, producer, epoch, capacity_bytes, &p->outbox),
                     PLS_OK);
}

static inline void pair_detach(pair *p)
{
    pls_outbox_detach(p->outbox);
    pls_peer_release(p->peer);
    p->outbox = NULL;
    p->peer = NULL;
}

static inline void pair_open(pair *p, uint32_t capacity_bytes)
{
    memset(p, 0, sizeof *p);
    ck_assert_int_eq(pls_inbox_create(PAIR_CONSUMER, PAIR_EPOCH, &p->inbox), PLS_OK);
    pair_attach(p, PAIR_PRODUCER, 1, capacity_bytes);
}

static inline void pair_close(pair *p)
{
    pair_detach(p);
    pls_inbox_destroy(p->inbox);
}

/* Commit `len` bytes of `fill` as a message of type 1; the caller wakes. */
static inline pls_err pair_send(pls_outbox *outbox, uint32_t len, uint8_t fill)
{
    uint8_t *room = NULL;
    pls_err err = pls_outbox_reserve(outbox, len, &room);
    if (err == PLS_OK) {
        memset(room, fill, len);
        pls_outbox_commit(outbox, len, 1, 0, 0);
    }
    return err;
}

/* Whether all bytes are `fill`; one assertion a byte would take minutes. */
static inline bool pair_filled(const uint8_t *bytes, uint32_t len, uint8_t fill)
{
    for (uint32_t i = 0; i < len; i++) {
        if (bytes[i] != fill) {
            return false;
        }
    }
    return true;
}

#endif
