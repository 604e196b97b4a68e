/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PLS_SIM_HEAP_H
#define PLS_SIM_HEAP_H

#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* One thing that will happen. `order` holds a running number in its upper 56 bits and the kind in
 * the lower 8: events of one moment happen in the order in which they were pushed. */
typedef struct pls_sim_event {
    uint64_t at_ns;
    uint64_t order;
    uint32_t node;
    uint32_t value;
} pls_sim_event;

_Static_assert(sizeof(pls_sim_event) == 24, "events are moved a lot: keep them small");

typedef struct pls_sim_heap {
    pls_sim_event *events;
    size_t event_count;
    size_t capacity;
    uint64_t pushed_count;
} pls_sim_heap;

static inline uint8_t pls_sim_event_kind(const pls_sim_event *event)
{
    return (uint8_t)event->order;
}

/* Makes an empty heap that owns nothing yet. Threads: owner thread; never blocks. */
void pls_sim_heap_init(pls_sim_heap *heap);

/* Frees what the heap owns. Threads: owner thread; never blocks. */
void pls_sim_heap_fini(pls_sim_heap *heap);

/* Adds an event behind all earlier ones of the same moment. Running out of memory aborts: a
 * simulation without its events means nothing.
 * Units:   `at_ns` in nanoseconds of virtual time.
 * Threads: owner thread; allocates when it grows. */
void pls_sim_heap_push(pls_sim_heap *heap, uint64_t at_ns, uint8_t kind, uint32_t node,
                       uint32_t value);

/* Takes the earliest event; false when there is none. Threads: owner thread; never blocks. */
bool pls_sim_heap_pop(pls_sim_heap *heap, pls_sim_event *event_out);

/* True when every parent comes before its children. Threads: owner thread; never blocks. */
bool pls_sim_heap_check(const pls_sim_heap *heap);

#endif
