/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PLS_NODE_PACKET_QUEUE_H
#define PLS_NODE_PACKET_QUEUE_H

#include "base/err.h"
#include "node/control.h"

#include <stddef.h>
#include <stdint.h>

/* Encoded packets that wait, with their descriptors, for room in a socket or for their reader.
 * Invariant: `count` <= `count_max` and `bytes` <= `bytes_max`; every descriptor in it is owned.
 * Threads: the same for every function of this header: owner thread; never blocks. */

typedef struct pls_stored_packet {
    struct pls_stored_packet *next;
    size_t len;
    int fds[PLS_CONTROL_FDS_MAX];
    uint32_t fd_count;
    uint8_t bytes[];
} pls_stored_packet;

typedef struct pls_packet_queue {
    pls_stored_packet *first;
    pls_stored_packet *last;
    uint32_t count;
    uint32_t count_max;
    size_t bytes;
    size_t bytes_max;
} pls_packet_queue;

/* An empty queue with its bounds. */
void pls_packet_queue_init(pls_packet_queue *queue, uint32_t count_max, size_t bytes_max);

/* Drops everything and closes its descriptors. */
void pls_packet_queue_fini(pls_packet_queue *queue);

/* Appends a copy of a packet.
 * Errors:  PLS_EFULL  a bound is reached; PLS_ENOMEM. The descriptors are then still the caller's.
 * Owns:    borrows `bytes`; takes the descriptors.
 * Threads: owner thread; never blocks. */
PLS_MUST_USE pls_err pls_packet_queue_push(pls_packet_queue *queue, const uint8_t *bytes,
                                           size_t len, const int *fds, uint32_t fd_count);

/* Takes the first packet out, or NULL.
 * Owns:    gives it, descriptors included: pls_stored_packet_destroy() closes those not set to -1.
 * Threads: owner thread; never blocks. */
pls_stored_packet *pls_packet_queue_pop(pls_packet_queue *queue);

/* Closes descriptors and frees; NULL is accepted. */
void pls_stored_packet_destroy(pls_stored_packet *packet);

/* Sends from the front until the queue is empty.
 * Errors:  PLS_EFULL  the socket is full, the rest waits; PLS_ECLOSED, PLS_ESYS.
 * Threads: owner thread; never blocks. */
PLS_MUST_USE pls_err pls_packet_queue_flush(pls_packet_queue *queue, int fd);

#endif
