/* SPDX-License-Identifier: Apache-2.0 */
/* A bounded list of encoded packets; both ends of a control socket use it for what does not fit
 * into the socket, and the client also for what arrives while it waits for something else. */
#include "node/packet_queue.h"

#include "base/assert.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

void pls_packet_queue_init(pls_packet_queue *queue, uint32_t count_max, size_t bytes_max)
{
    *queue = (pls_packet_queue){.count_max = count_max, .bytes_max = bytes_max};
}

void pls_packet_queue_fini(pls_packet_queue *queue)
{
    for (;;) {
        pls_stored_packet *packet = pls_packet_queue_pop(queue);
        if (packet == NULL) {
            return;
        }
        pls_stored_packet_destroy(packet);
    }
}

pls_err pls_packet_queue_push(pls_packet_queue *queue, const uint8_t *bytes, size_t len,
                              const int *fds, uint32_t fd_count)
{
    pls_assert(fd_count <= PLS_CONTROL_FDS_MAX);
    if (queue->count >= queue->count_max || queue->bytes + len > queue->bytes_max) {
        return PLS_EFULL;
    }
    pls_stored_packet *packet = malloc(sizeof *packet + len);
    if (packet == NULL) {
        return PLS_ENOMEM;
    }
    *packet = (pls_stored_packet){.len = len, .fds = {-1, -1, -1, -1}, .fd_count = fd_count};
    if (fd_count > 0) {
        memcpy(packet->fds, fds, fd_count * sizeof *fds);
    }
    memcpy(packet->bytes, bytes, len);
    if (queue->last == NULL) {
        queue->first = packet;
    } else {
        queue->last->next = packet;
    }
    queue->last = packet;
    queue->count++;
    queue->bytes += len;
    return PLS_OK;
}

pls_stored_packet *pls_packet_queue_pop(pls_packet_queue *queue)
{
    pls_stored_packet *packet = queue->first;
    if (packet == NULL) {
        return NULL;
    }
    queue->first = packet->next;
    if (queue->first == NULL) {
        queue->last = NULL;
    }
    packet->next = NULL;
    queue->count--;
    queue->bytes -= packet->len;
    return packet;
}

void pls_stored_packet_destroy(pls_stored_packet *packet)
{
    if (packet == NULL) {
        return;
    }
    for (uint32_t i = 0; i < packet->fd_count; i++) {
        if (packet->fds[i] >= 0) {
            close(packet->fds[i]);
        }
    }
    free(packet);
}

pls_err pls_packet_queue_flush(pls_packet_queue *queue, int fd)
{
    while (queue->first != NULL) {
        const pls_stored_packet *packet = queue->first;
        pls_err err =
            pls_control_send(fd, packet->bytes, packet->len, packet->fds, packet->fd_count);
        if (err != PLS_OK) {
            return err;
        }
        pls_stored_packet_destroy(pls_packet_queue_pop(queue));
    }
    return PLS_OK;
}
