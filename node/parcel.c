/* SPDX-License-Identifier: Apache-2.0 */
/* Messages that wait outside of a ring, and queues of them. A parcel owns its bytes, one hold on
 * its block, and one reference to its target; whoever takes it off a queue owns it. */
#include "node/runtime_parts.h"

#include "base/assert.h"

#include <stdlib.h>
#include <string.h>

pls_parcel *pls_parcel_new(const uint8_t *bytes, uint32_t len, uint16_t type, uint16_t flags)
{
    pls_parcel *parcel = malloc(sizeof *parcel + len);
    if (parcel == NULL) {
        return NULL;
    }
    memset(parcel, 0, sizeof *parcel);
    memcpy(parcel->bytes, bytes, len);
    parcel->len = len;
    parcel->type = type;
    parcel->flags = flags;
    return parcel;
}

void pls_parcel_free(pulsing *p, pls_parcel *parcel)
{
    if (parcel == NULL) {
        return;
    }
    if (p->last_queued == parcel) {
        p->last_queued = NULL;
    }
    if (parcel->block != NULL) {
        pls_arena_unhold(p->arena, parcel->block);
    }
    pulsing_block_release(parcel->opened);
    if (parcel->foreign) {
        pls_block_decline(p, parcel->slot, parcel->epoch, &parcel->descriptor);
    }
    if (parcel->target != NULL) {
        pulsing_target_release(parcel->target);
    }
    free(parcel);
}

void pls_parcels_push(pls_parcels *list, pls_parcel *parcel)
{
    pls_assert(parcel->next == NULL);
    if (list->last == NULL) {
        list->first = parcel;
    } else {
        list->last->next = parcel;
    }
    list->last = parcel;
    list->count++;
}

void pls_parcels_push_front(pls_parcels *list, pls_parcel *parcel)
{
    parcel->next = list->first;
    list->first = parcel;
    if (list->last == NULL) {
        list->last = parcel;
    }
    list->count++;
}

pls_parcel *pls_parcels_pop(pls_parcels *list)
{
    pls_parcel *parcel = list->first;
    if (parcel == NULL) {
        return NULL;
    }
    list->first = parcel->next;
    if (list->first == NULL) {
        list->last = NULL;
    }
    parcel->next = NULL;
    list->count--;
    return parcel;
}

void pls_waiting_add(pulsing *p, const pls_parcel *parcel)
{
    p->waiting_count++;
    p->waiting_bytes += sizeof *parcel + parcel->len;
}

void pls_waiting_sub(pulsing *p, const pls_parcel *parcel)
{
    pls_assert(p->waiting_count > 0);
    p->waiting_count--;
    p->waiting_bytes -= sizeof *parcel + parcel->len;
}
