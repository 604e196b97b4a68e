/* SPDX-License-Identifier: Apache-2.0 */
/* Credit that an actor owes to those whose tells it took, by process. Invariant: what it owes to
 * one of them is less than half of that one's window. */
#include "node/runtime_parts.h"

#include <stdlib.h>

void pls_owe(pulsing *p, pulsing_actor *actor, const pls_arrival *from)
{
    pls_owed *owed = NULL;
    for (uint32_t i = 0; i < actor->owed_count; i++) {
        if (actor->owed[i].slot == from->slot && actor->owed[i].epoch == from->epoch) {
            owed = &actor->owed[i];
        }
    }
    if (owed == NULL) {
        pls_owed *grown = realloc(actor->owed, (actor->owed_count + 1) * sizeof *grown);
        if (grown == NULL) {
            return;
        }
        actor->owed = grown;
        owed = &actor->owed[actor->owed_count++];
        *owed = (pls_owed){from->slot, from->epoch, 0};
    }
    owed->count++;
    /* Who found the actor from another node knows a window that may be smaller than the mailbox. */
    bool far = from->slot == PULSING_FAR_SLOT && actor->mailbox_max > PULSING_FAR_WINDOW;
    if (owed->count * 2 >= (far ? PULSING_FAR_WINDOW : actor->mailbox_max)) {
        uint32_t count = owed->count;
        owed->count = 0;
        pls_link_signal(p, from->slot, from->epoch, PLS_WIRE_CREDIT, actor->id, count);
    }
}

void pls_owed_settle(pulsing *p, pulsing_actor *actor)
{
    for (uint32_t i = 0; i < actor->owed_count; i++) {
        const pls_owed *owed = &actor->owed[i];
        if (owed->count > 0) {
            pls_link_signal(p, owed->slot, owed->epoch, PLS_WIRE_CREDIT, actor->id, owed->count);
        }
    }
    actor->owed_count = 0;
}
