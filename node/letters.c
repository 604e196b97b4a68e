/* SPDX-License-Identifier: Apache-2.0 */
/* Messages that reach nobody. What a process refuses it counts itself; what it takes along when it
 * dies, out of its rings and mailboxes, each sender counts: the tells of which nobody has a copy,
 * less those that the dead one has noted in the pair's ring as begun or refused. Invariant: a tell
 * begins, goes again, or is counted here or there, and only one of these. */
#include "node/runtime_parts.h"

void pls_dead_letter(pulsing *p, pulsing_status reason)
{
    pls_dead_letters(p, reason, 1);
}

void pls_dead_letters(pulsing *p, pulsing_status reason, uint64_t count)
{
    if (count == 0) {
        return;
    }
    p->dead_letters[(uint32_t)reason % 16] += count;
    pls_watch_dropped(p, reason, count);
    if (p->on.dead_letter != NULL) {
        p->on.dead_letter(p->on.context, (uint8_t)reason);
    }
}

uint64_t pulsing_dead_letters(const pulsing *p, pulsing_status reason)
{
    return p->dead_letters[(uint32_t)reason % 16];
}

void pls_letters_told(pulsing *p, const pulsing_target *target)
{
    if (!target->restartable) {
        p->links[target->slot].told++;
    }
}

void pls_letters_lost(pulsing *p, const pls_link *link)
{
    uint64_t taken = link->outbox != NULL ? pls_outbox_taken_load(link->outbox) : 0;
    pls_dead_letters(p, PULSING_DIED, link->told > taken ? link->told - taken : 0);
}
