/* SPDX-License-Identifier: Apache-2.0 */
/* Messages of the gateway that wait, first in, first out. Invariant: count and bytes are those of
 * the chain. */
#include "node/process/gateway_parts.h"

#include <stdlib.h>
#include <string.h>

pls_gate_parcel *pls_gate_parcel_new(uint32_t len, uint16_t type, uint16_t flags)
{
    pls_gate_parcel *parcel = malloc(sizeof *parcel + len);
    if (parcel == NULL) {
        return NULL;
    }
    memset(parcel, 0, sizeof *parcel);
    parcel->len = len;
    parcel->type = type;
    parcel->flags = flags;
    return parcel;
}

void pls_gate_queue_push(pls_gate_queue *queue, pls_gate_parcel *parcel)
{
    if (queue->last == NULL) {
        queue->first = parcel;
    } else {
        queue->last->next = parcel;
    }
    queue->last = parcel;
    queue->count++;
    queue->bytes += sizeof *parcel + parcel->len;
}

pls_gate_parcel *pls_gate_queue_pop(pls_gate_queue *queue)
{
    pls_gate_parcel *parcel = queue->first;
    if (parcel == NULL) {
        return NULL;
    }
    queue->first = parcel->next;
    if (queue->first == NULL) {
        queue->last = NULL;
    }
    parcel->next = NULL;
    queue->count--;
    queue->bytes -= sizeof *parcel + parcel->len;
    return parcel;
}
