/* SPDX-License-Identifier: Apache-2.0 */
/* The binary event heap: the earliest (time, running number) is at the root. The running number
 * makes the order total, so that two builds pop the same events in the same order. The world alone
 * uses it. */
#include "tests/sim/heap.h"

#include "base/assert.h"

#include <stdlib.h>

enum { HEAP_EVENTS_FIRST = 1024 };

static bool comes_before(const pls_sim_event *a, const pls_sim_event *b)
{
    return a->at_ns < b->at_ns || (a->at_ns == b->at_ns && a->order < b->order);
}

static void heap_grow(pls_sim_heap *heap)
{
    size_t capacity = heap->capacity == 0 ? HEAP_EVENTS_FIRST : heap->capacity * 2;
    pls_sim_event *events = realloc(heap->events, capacity * sizeof *events);
    pls_assert(events != NULL);
    heap->events = events;
    heap->capacity = capacity;
}

void pls_sim_heap_init(pls_sim_heap *heap)
{
    *heap = (pls_sim_heap){0};
}

void pls_sim_heap_fini(pls_sim_heap *heap)
{
    free(heap->events);
    *heap = (pls_sim_heap){0};
}

void pls_sim_heap_push(pls_sim_heap *heap, uint64_t at_ns, uint8_t kind, uint32_t node,
                       uint32_t value)
{
    if (heap->event_count == heap->capacity) {
        heap_grow(heap);
    }
    pls_sim_event event = {at_ns, heap->pushed_count++ << 8 | kind, node, value};
    size_t at = heap->event_count++;
    while (at > 0) {
        size_t parent = (at - 1) / 2;
        if (comes_before(&heap->events[parent], &event)) {
            break;
        }
        heap->events[at] = heap->events[parent];
        at = parent;
    }
    heap->events[at] = event;
}

bool pls_sim_heap_pop(pls_sim_heap *heap, pls_sim_event *event_out)
{
    if (heap->event_count == 0) {
        return false;
    }
    *event_out = heap->events[0];
    pls_sim_event last = heap->events[--heap->event_count];
    size_t count = heap->event_count;
    size_t at = 0;
    for (;;) {
        size_t child = 2 * at + 1;
        if (child >= count) {
            break;
        }
        if (child + 1 < count && comes_before(&heap->events[child + 1], &heap->events[child])) {
            child++;
        }
        if (comes_before(&last, &heap->events[child])) {
            break;
        }
        heap->events[at] = heap->events[child];
        at = child;
    }
    if (count > 0) {
        heap->events[at] = last;
    }
    return true;
}

bool pls_sim_heap_check(const pls_sim_heap *heap)
{
    for (size_t i = 1; i < heap->event_count; i++) {
        if (!comes_before(&heap->events[(i - 1) / 2], &heap->events[i])) {
            return false;
        }
    }
    return true;
}
