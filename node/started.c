/* SPDX-License-Identifier: Apache-2.0 */
/* The receiver's side of retain.c: which message of a restartable actor starts, told to its sender
 * by one word of the pair's ring, before anything else is done with it. Of all other tells the ring
 * has the number that were dealt with, so that their sender knows how many this process has taken
 * along when it dies. Invariant: the word never passes a message that was not started, and reaches
 * every message that was dealt with; each tell is counted once, before its handler runs. */
#include "node/runtime_parts.h"

#include <string.h>

static bool kept_head(const pls_arrival *arrival, pls_wire_request *head)
{
    if (arrival->len < sizeof *head) {
        return false;
    }
    memcpy(head, arrival->bytes, sizeof *head);
    return (head->flags & PLS_REQUEST_RETAINED) != 0 && head->retain_index < PLS_STARTED_MAX;
}

/* Whether its sender still looks: the ring of a dead one is gone, and maybe another's by now. */
static bool is_read(const pulsing *p, const pls_arrival *arrival)
{
    return arrival->slot != pulsing_slot(p) &&
           pls_inbox_is_open(p->inbox, arrival->slot, arrival->epoch);
}

static uint64_t higher(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

void pls_started_record(pulsing *p, const pls_arrival *arrival)
{
    pls_wire_request head;
    if (is_read(p, arrival) && kept_head(arrival, &head)) {
        pls_inbox_started_store(p->inbox, arrival->slot, head.retain_index,
                                higher(head.retain_seq, arrival->refused_seq));
    }
}

void pls_started_taken(pulsing *p, const pls_arrival *arrival)
{
    pls_wire_request head;
    if (is_read(p, arrival) && !kept_head(arrival, &head)) {
        pls_inbox_taken_add(p->inbox, arrival->slot);
    }
}

void pls_started_refused(pulsing *p, const pls_parcels *before, const pls_arrival *arrival)
{
    pls_wire_request head;
    pls_parcel *last = NULL;
    if (!kept_head(arrival, &head)) {
        return;
    }
    for (pls_parcel *at = before->first; at != NULL; at = at->next) {
        last = at->slot == arrival->slot && at->epoch == arrival->epoch ? at : last;
    }
    if (last == NULL) {
        pls_started_record(p, arrival);
    } else {
        last->retain_seq = higher(last->retain_seq, higher(head.retain_seq, arrival->refused_seq));
    }
}
