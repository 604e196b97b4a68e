/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PLS_NODE_PROCESS_GATEWAY_TABLE_H
#define PLS_NODE_PROCESS_GATEWAY_TABLE_H

#include "base/err.h"
#include "node/directory.h"

#include <stdbool.h>
#include <stdint.h>

/* What the gateway keeps: routes, asks and serves, three tables of one make. An entry is found by
 * the two numbers that it was opened with, or by its id, which is generation and index: an id of an
 * entry that is closed finds nothing.
 * Threads: owner thread; never blocks; the same for every function of this header. */

typedef struct pls_gate_peer pls_gate_peer;

typedef enum pls_gate_state {
    PLS_GATE_FREE = 0,
    PLS_GATE_OPEN = 1,   /* routes; asks and serves that wait for their answer */
    PLS_GATE_STREAM = 2, /* answered, and items follow */
} pls_gate_state;

typedef struct pls_gate_entry {
    uint64_t key[2];
    uint64_t actor_id;   /* routes, asks: as its own node calls it; serves: of this node */
    uint64_t writer_id;  /* serves that are streams */
    pls_gate_peer *peer; /* asks, serves */
    uint32_t gen;
    uint32_t next; /* in its hash bucket, or free: index + 1 */
    uint32_t epoch;
    uint16_t slot; /* with `epoch`: the process of this host */
    uint8_t state; /* pls_gate_state */
    bool delivered;
    uint32_t owed;                      /* routes: tells whose credit has not come back */
    uint8_t node_id[PLS_NODE_ID_BYTES]; /* routes */
} pls_gate_entry;

typedef struct pls_gate_table {
    pls_gate_entry *entries;
    uint32_t *heads; /* index + 1 */
    uint32_t capacity;
    uint32_t count;
    uint32_t free; /* index + 1 */
    uint32_t max;
} pls_gate_table;

/* Units:   `max` entries, a power of two. */
void pls_gate_table_init(pls_gate_table *table, uint32_t max);
void pls_gate_table_fini(pls_gate_table *table);

/* A new entry, all else zero; NULL: full, or no memory. Entries that were lent before may have
 * moved. Owns: lends the entry until the next open or its close. */
pls_gate_entry *pls_gate_open(pls_gate_table *table, uint64_t first, uint64_t second);

/* The entry that was opened so, or NULL. */
pls_gate_entry *pls_gate_find(const pls_gate_table *table, uint64_t first, uint64_t second);

/* Its id, and the entry with an id, or NULL. */
uint64_t pls_gate_id(const pls_gate_table *table, const pls_gate_entry *entry);
pls_gate_entry *pls_gate_at(const pls_gate_table *table, uint64_t id);

/* Forgets it; its id finds nothing from now on. */
void pls_gate_close(pls_gate_table *table, pls_gate_entry *entry);

/* Whether every entry is where it has to be, for tests. */
bool pls_gate_table_check(const pls_gate_table *table);

#endif
