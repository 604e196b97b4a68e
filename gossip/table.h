/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PLS_GOSSIP_TABLE_H
#define PLS_GOSSIP_TABLE_H

#include "gossip/arena.h"
#include "gossip/gossip.h"

/* The records of all names by name. Everything that a look-up answers with stands in the name's own
 * cell, so that it reads one place of cold memory: a million names are looked up in about the time
 * of one cache miss.
 *
 * Threads: owner thread for every function of this header; none blocks. Records and cells move when
 * one is added or removed: a pointer to either counts until then. */

/* One name of one owner. Watches are records too, of owner 0. */
typedef struct pls_record {
    uint64_t version;
    uint64_t value; /* of a watch: how often it was asked for */
    uint64_t stamp;
    uint32_t log;    /* whose, position in the registry's logs */
    pls_place peers; /* the next record of the same name, by the owner's key */
    uint32_t hash;   /* of the name */
    uint8_t name_bytes;
    uint8_t flags; /* of pls_wire_name_flags */
} pls_record;

/* A name with the first of its records. Cells are as long as the names that they are for. */
typedef struct pls_cell {
    pls_record first;
    char text[]; /* of a name longer than PLS_CELL_TEXT_BYTES_MAX its place in the arena */
} pls_cell;

#define PLS_CELL_TEXT_BYTES_MAX 72u

/* The cells of all names whose hashes begin with the same bits. */
typedef struct pls_segment {
    uint8_t *cells;
    uint8_t *tags; /* a byte of each cell's hash, 0: empty; the first eight again at the end */
    void *block;   /* what both are cut from; NULL: no cells yet */
    uint32_t capacity;
    uint32_t count;
    uint32_t depth; /* how many bits */
    uint32_t cell_bytes;
} pls_segment;

/* All zero is an empty table. */
typedef struct pls_table {
    pls_segment *segments;
    uint32_t segments_capacity;
    uint32_t segments_count;
    uint32_t *directory; /* the segment for each beginning of `depth` bits */
    uint32_t depth;
    uint32_t names_count;
    pls_arena arena; /* further records of a name, and the longest names */
} pls_table;

/* A record and the cell of its name; both NULL: there is none. */
typedef struct pls_spot {
    pls_cell *cell;
    pls_record *record;
} pls_spot;

/* The hash of a name, never 0. It begins with the length of the name's cell. */
uint32_t pls_table_hash(const char *name, uint32_t name_bytes);

/* The cell of a name, NULL without one. */
pls_cell *pls_table_cell(const pls_table *table, const char *name, uint32_t name_bytes);

/* The next record of the same name, NULL at the end. */
pls_record *pls_table_peer(const pls_table *table, const pls_record *record);

/* The record of a name in one log; that of a hash in one log at a version. */
pls_spot pls_table_lookup(const pls_table *table, uint32_t log, const char *name,
                          uint32_t name_bytes);
pls_spot pls_table_at(const pls_table *table, uint32_t log, uint32_t hash, uint64_t version);

/* The bytes of a cell's name. Lends until the table changes. */
const char *pls_table_name(const pls_table *table, const pls_cell *cell);

/* Add an empty record of a name in a log that has none.
 * Errors:  PLS_ENOMEM  no record was added. */
PLS_MUST_USE pls_err pls_table_add(pls_gossip *gossip, uint32_t log, const char *name,
                                   uint32_t name_bytes, pls_spot *spot_out);

/* Take a record out. */
void pls_table_remove(pls_table *table, pls_spot spot);

/* Free all memory; the table is empty again. */
void pls_table_fini(pls_table *table, pls_heap *heap);

/* Assert the whole of it, against the number of records that the logs hold; that each is found
 * under its name is the logs' check. */
void pls_table_check(const pls_gossip *gossip, uint32_t records_count);

#endif
