/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PLS_SHM_OBS_BOOKS_H
#define PLS_SHM_OBS_BOOKS_H

#include "shm/obs.h"
#include "shm/segment.h"

/* The private half of an obs memory: where its sections are, how far their pages exist, and which
 * entries are free. Inner to obs*.c. */

typedef struct pls_obs_extent {
    uint64_t offset;
    uint64_t bytes;
    uint64_t committed_bytes;
    uint64_t step_bytes; /* pages come by this much */
} pls_obs_extent;

/* Entries that are free, linked by index; the link's word exists for each entry ever used. */
typedef struct pls_obs_freelist {
    uint32_t *next;
    uint32_t first; /* PLS_OBS_NONE: none */
    uint32_t used;  /* entries ever used */
    uint32_t max;
} pls_obs_freelist;

#define PLS_OBS_METHOD_BUCKETS 2048

typedef struct pls_obs_books {
    pls_segment memory;
    pls_obs_page *page;
    pls_obs_extent extents[PLS_OBS_SECTIONS_MAX]; /* by section id - 1 */
    pls_obs_freelist actors;
    pls_obs_freelist waits;
    uint32_t hot_used;
    uint64_t rare_head;
    uint32_t errors_used;
    uint64_t error_hashes[PLS_OBS_ERRORS_MAX];
    uint32_t methods_used;
    uint16_t method_buckets[PLS_OBS_METHOD_BUCKETS]; /* index + 1 */
    uint32_t strings_bytes;
    uint32_t strings_count;
    uint32_t string_buckets_count; /* a power of two */
    uint32_t *string_buckets;      /* offsets, 0: free */
} pls_obs_books;

/* Lends the memory of a section. Threads: any thread; never blocks. */
static inline uint8_t *pls_obs_section_at(const pls_obs_books *books, enum pls_obs_section id)
{
    return books->memory.base + books->extents[id - 1].offset;
}

static inline pls_obs_directory_entry *pls_obs_entry_at(const pls_obs_books *books,
                                                        enum pls_obs_section id)
{
    return &books->page->directory[id - 1];
}

/* Make the pages of a section exist up to `end` bytes of it; false if that cannot be.
 * Threads: owner thread; may block in the kernel. */
bool pls_obs_extend(pls_obs_books *books, enum pls_obs_section id, uint64_t end);

/* A table was full: counted, and nothing else happens.
 * Threads: owner thread; never blocks. */
void pls_obs_overflow(pls_obs *obs);

/* Names of counters and the first words of the tables. False: no memory.
 * Threads: owner thread; never blocks. */
bool pls_obs_tables_init(pls_obs_books *books);

/* What init allocated. Threads: owner thread; never blocks. */
void pls_obs_tables_fini(pls_obs_books *books);

/* Whether the tables' books agree with their bytes. Threads: owner thread; never blocks. */
bool pls_obs_tables_check(const pls_obs *obs);

#endif
