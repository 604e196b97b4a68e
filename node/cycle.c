/* SPDX-License-Identifier: Apache-2.0 */
/* Asks that wait for each other in a circle, over actors that handle one message at a time. One
 * chain of asks that closes on itself is seen when its last request arrives, by the chain that it
 * carries. Asks that cross are found by probes: an ask that has waited for a while sends one along
 * "this actor waits for that one", from process to process. A probe that comes back to the actor
 * which sent it has found a circle.
 * Invariants: every edge is looked at where both its ends are known (the asker's side when the
 * probe leaves, the asked one's when it arrives), so a probe comes back only if all edges hold at
 * once; of the asks of a circle only the one that waits for the shortest time fails, since others'
 * probes end at it. */
#include "node/runtime_parts.h"

#include <stdio.h>
#include <string.h>

/* How often calls that wait are looked at: twice this is within a second. Old ones less often: a
 * circle is closed by its youngest ask. */
#define PLS_PATROL_NS 300000000
#define PLS_PATROL_NS_MAX 4800000000
#define PLS_PROBES_MAX 64 /* that one patrol sends */
#define PLS_PROBE_HOPS_MAX 32
#define PLS_PROBE_VISITS_MAX 256 /* of actors of one process, by one probe */

typedef struct probe {
    pls_wire_probe head;
    uint32_t path_bytes;
    uint32_t hops;
    uint32_t visits; /* in this process */
    uint32_t from_epoch;
    uint16_t from_slot;
    uint8_t path[PLS_CHAIN_BYTES_MAX]; /* pls_wire_link of each ask that was followed */
} probe;

/* Reads the link at `*at`, and moves behind it; false at the end, or if it is cut off. */
static bool link_next(const uint8_t **at, const uint8_t *end, pls_wire_link *link)
{
    if ((size_t)(end - *at) < sizeof *link) {
        return false;
    }
    memcpy(link, *at, sizeof *link);
    if ((size_t)(end - *at) < sizeof *link + link->name_bytes) {
        return false;
    }
    *at += sizeof *link + link->name_bytes;
    return true;
}

/* "a -> b -> a", of the links from `at` on. */
static void circle_text(const uint8_t *at, const uint8_t *end, char *text, size_t capacity)
{
    pls_wire_link link;
    const uint8_t *first = at;
    size_t used = strlen(text);
    while (used < capacity && link_next(&at, end, &link)) {
        used += (size_t)snprintf(text + used, capacity - used, "%.*s -> ", (int)link.name_bytes,
                                 (const char *)at - link.name_bytes);
    }
    if (used < capacity && link_next(&first, end, &link)) {
        snprintf(text + used, capacity - used, "%.*s", (int)link.name_bytes,
                 (const char *)first - link.name_bytes);
    }
}

/* Whether the handler of this actor that made the call is suspended on it. Asks the host, which may
 * end calls and actors meanwhile: whoever calls this looks both up again. */
static bool waits(pulsing *p, uint64_t actor_id, uint64_t call_id)
{
    const pls_call *call = pls_call_find(p, call_id);
    const pulsing_actor *actor = pls_actor_find(p, actor_id);
    if (call == NULL || actor == NULL || call->state != PLS_CALL_PENDING ||
        call->sender_id != actor_id) {
        return false;
    }
    return p->on.waits != NULL ? p->on.waits(p->on.context, actor->user, call->user)
                               : call->awaited;
}

bool pls_cycle_of_chain(pulsing *p, uint64_t actor_id, const pulsing_message *message, char *text,
                        size_t capacity)
{
    const pulsing_actor *actor = pls_actor_find(p, actor_id);
    const uint32_t places = actor != NULL ? actor->concurrency_max : 1;
    const uint8_t *at = message->chain;
    const uint8_t *end = at + message->chain_bytes;
    const uint8_t *from = NULL;
    uint32_t taken = 0;
    pls_wire_link link;
    for (const uint8_t *here = at; link_next(&at, end, &link); here = at) {
        if (link.actor_id == actor_id && waits(p, actor_id, link.call_id)) {
            from = here;
            taken++;
        }
    }
    /* With one place left to others, one of them may still make room. */
    if (taken < places) {
        return false;
    }
    snprintf(text, capacity, "an ask would wait for itself: ");
    circle_text(from, end, text, capacity);
    return true;
}

/* Actors that handle one message at a time, while that one is suspended. */
static bool stuck(const pulsing_actor *actor)
{
    return actor != NULL && actor->concurrency_max == 1 && actor->running == 1 && !actor->removed;
}

static bool visited(const probe *of, uint64_t actor_id)
{
    const uint8_t *at = of->path;
    pls_wire_link link;
    while (link_next(&at, of->path + of->path_bytes, &link)) {
        if (link.actor_id == actor_id) {
            return true;
        }
    }
    return false;
}

/* Whether this ask has waited for a shorter time than the probe's own: then it is the one that ends
 * a circle of both. The numbers decide between asks of the same age. */
static bool younger(const pulsing *p, const pls_call *call, uint64_t call_id, const probe *than)
{
    const pls_wire_probe *head = &than->head;
    if (call->seen_ns == 0 || call->seen_ns != head->since_ns) {
        return call->seen_ns == 0 || call->seen_ns > head->since_ns;
    }
    if (pulsing_slot(p) != head->slot) {
        return pulsing_slot(p) > head->slot;
    }
    return call_id > head->call_id;
}

static bool path_push(probe *of, const pulsing_actor *actor, uint64_t call_id)
{
    pls_wire_link link = {actor->id, call_id, actor->name_bytes};
    if (of->hops == PLS_PROBE_HOPS_MAX ||
        of->path_bytes + sizeof link + actor->name_bytes > sizeof of->path) {
        return false;
    }
    memcpy(of->path + of->path_bytes, &link, sizeof link);
    of->path_bytes += (uint32_t)sizeof link;
    if (actor->name_bytes > 0) {
        memcpy(of->path + of->path_bytes, actor->name, actor->name_bytes);
    }
    of->path_bytes += actor->name_bytes;
    of->hops++;
    return true;
}

static void probe_send(pulsing *p, const probe *of, uint32_t slot, uint32_t epoch)
{
    uint8_t bytes[sizeof of->head + sizeof of->path];
    uint32_t len = (uint32_t)sizeof of->head + of->path_bytes;
    memcpy(bytes, &of->head, sizeof of->head);
    memcpy(bytes + sizeof of->head, of->path, of->path_bytes);
    pls_link *link = NULL;
    if (pls_link_get(p, slot, epoch, true, &link) != PLS_OK) {
        return; /* it is dead: the ask ends with that */
    }
    pls_parcel *parcel = pls_parcel_new(bytes, len, PLS_WIRE_PROBE, 0);
    if (parcel != NULL) {
        parcel->slot = (uint16_t)slot;
        parcel->epoch = epoch;
        (void)pls_link_send(p, link, parcel);
    }
}

static void visit(pulsing *p, probe *of);

/* Follows one ask of the actor that is being visited. */
static void follow(pulsing *p, probe *of, uint64_t actor_id, uint64_t call_id)
{
    const pls_call *call = pls_call_find(p, call_id);
    const pulsing_actor *actor = pls_actor_find(p, actor_id);
    if (call == NULL || actor == NULL || call->target == NULL ||
        call->target->state != PLS_TARGET_UP) {
        return;
    }
    const pls_wire_probe head = of->head;
    const uint32_t path_bytes = of->path_bytes;
    const uint32_t hops = of->hops;
    uint32_t slot = call->slot;
    uint32_t epoch = call->epoch;
    if (!path_push(of, actor, call_id)) {
        return;
    }
    of->head.actor_id = call->target->id;
    of->head.flags = pls_target_holds(call->target, call_id) ? PLS_PROBE_UNSENT : 0;
    if (slot == pulsing_slot(p)) {
        of->from_slot = (uint16_t)slot;
        of->from_epoch = epoch;
        visit(p, of);
    } else {
        probe_send(p, of, slot, epoch);
    }
    of->head = head;
    of->path_bytes = path_bytes;
    of->hops = hops;
}

/* The probe is back at its actor: its ask fails, if it still waits. */
static void circle_end(pulsing *p, const probe *of, uint64_t actor_id)
{
    char text[PLS_TEXT_BYTES_MAX] = "asks wait for each other: ";
    if (waits(p, actor_id, of->head.call_id)) {
        circle_text(of->path, of->path + of->path_bytes, text, sizeof text);
        pls_call_give_up(p, of->head.call_id, PULSING_DEADLOCK, text);
    }
}

static bool from_here(const pulsing *p, const probe *of)
{
    return of->head.slot == pulsing_slot(p) && of->head.epoch == pulsing_epoch(p);
}

/* The actor that the last link of the path waits for: is that so, and for whom does it wait? */
static void visit(pulsing *p, probe *of)
{
    const uint64_t actor_id = of->head.actor_id;
    const pulsing_actor *actor = pls_actor_find(p, actor_id);
    const uint8_t *at = of->path;
    pls_wire_link first = {0};
    pls_wire_link last = {0};
    (void)link_next(&at, of->path + of->path_bytes, &first);
    last = first;
    while (link_next(&at, of->path + of->path_bytes, &last)) {
    }
    bool asked =
        (of->head.flags & PLS_PROBE_UNSENT) != 0 ||
        (actor != NULL && pls_actor_has(p, actor, of->from_slot, of->from_epoch, last.call_id));
    if (!stuck(actor) || !asked || ++of->visits > PLS_PROBE_VISITS_MAX) {
        return;
    }
    if (from_here(p, of) && first.actor_id == actor_id) {
        circle_end(p, of, actor_id);
        return;
    }
    if (visited(of, actor_id)) {
        return; /* a circle to which the prober does not belong: its members see it */
    }
    for (uint32_t i = 0; i < p->calls_capacity; i++) {
        const pls_call *call = &p->calls[i];
        uint64_t call_id = (uint64_t)call->gen << 32 | i;
        if (call->state == PLS_CALL_PENDING && call->sender_id == actor_id &&
            !younger(p, call, call_id, of) && waits(p, actor_id, call_id)) {
            follow(p, of, actor_id, call_id);
        }
    }
}

void pls_cycle_probe(pulsing *p, const pls_arrival *arrival)
{
    probe of = {.from_slot = arrival->slot, .from_epoch = arrival->epoch};
    if (arrival->len < sizeof of.head || arrival->len > sizeof of.head + sizeof of.path) {
        pls_dead_letter(p, PULSING_BAD_MESSAGE);
        return;
    }
    memcpy(&of.head, arrival->bytes, sizeof of.head);
    of.path_bytes = arrival->len - (uint32_t)sizeof of.head;
    memcpy(of.path, arrival->bytes + sizeof of.head, of.path_bytes);
    const uint8_t *at = of.path;
    pls_wire_link link;
    while (link_next(&at, of.path + of.path_bytes, &link)) {
        of.hops++;
    }
    if (of.hops == 0 || of.hops > PLS_PROBE_HOPS_MAX || at != of.path + of.path_bytes) {
        pls_dead_letter(p, PULSING_BAD_MESSAGE);
        return;
    }
    visit(p, &of);
}

static void probe_begin(pulsing *p, uint64_t call_id)
{
    const pls_call *call = pls_call_find(p, call_id);
    uint64_t actor_id = call->sender_id;
    if (!stuck(pls_actor_find(p, actor_id)) || !waits(p, actor_id, call_id)) {
        return;
    }
    call = pls_call_find(p, call_id);
    if (call != NULL) {
        probe of = {.head = {.since_ns = call->seen_ns,
                             .call_id = call_id,
                             .epoch = pulsing_epoch(p),
                             .slot = (uint16_t)pulsing_slot(p)}};
        follow(p, &of, actor_id, call_id);
    }
}

static int64_t sooner(int64_t left_ns, int64_t right_ns)
{
    return left_ns == 0 || (right_ns != 0 && right_ns < left_ns) ? right_ns : left_ns;
}

/* Looks at one call that waits; gives when it wants to be looked at again. */
static int64_t call_patrol(pulsing *p, uint64_t call_id, int64_t slow_ns, uint32_t *probes)
{
    pls_call *call = pls_call_find(p, call_id);
    int64_t now = pulsing_now_ns();
    if (call->seen_ns == 0) {
        call->seen_ns = now;
        return PLS_PATROL_NS;
    }
    int64_t age_ns = now - call->seen_ns;
    int64_t again_ns = 0;
    bool asked_by_actor = (uint32_t)call->sender_id != 0;
    if (slow_ns > 0 && !call->told && age_ns >= slow_ns) {
        call->told = true;
        p->on.slow(p->on.context, call->user, age_ns);
        call = pls_call_find(p, call_id);
    } else if (slow_ns > 0 && !call->told) {
        again_ns = slow_ns - age_ns;
    }
    if (call != NULL && asked_by_actor) {
        if (*probes < PLS_PROBES_MAX) {
            (*probes)++;
            p->patrol_from = (uint32_t)call_id + 1;
            probe_begin(p, call_id);
        }
        int64_t pause_ns = age_ns / 4 > PLS_PATROL_NS ? age_ns / 4 : PLS_PATROL_NS;
        again_ns = sooner(again_ns, pause_ns < PLS_PATROL_NS_MAX ? pause_ns : PLS_PATROL_NS_MAX);
    }
    return again_ns;
}

int64_t pulsing_patrol(pulsing *p, int64_t slow_ns)
{
    int64_t again_ns = 0;
    uint32_t probes = 0;
    uint32_t capacity = p->calls_capacity;
    uint32_t from = p->patrol_from < capacity ? p->patrol_from : 0;
    p->patrol_from = 0;
    for (uint32_t n = 0; n < capacity; n++) {
        uint32_t i = from + n < capacity ? from + n : from + n - capacity;
        if (p->calls[i].state == PLS_CALL_PENDING) {
            uint64_t call_id = (uint64_t)p->calls[i].gen << 32 | i;
            again_ns = sooner(again_ns, call_patrol(p, call_id, slow_ns, &probes));
        }
    }
    return again_ns;
}
