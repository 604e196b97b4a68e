/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PLS_GOSSIP_REGISTRY_H
#define PLS_GOSSIP_REGISTRY_H

#include "gossip/index.h"
#include "gossip/names.h"
#include "gossip/outbox.h"
#include "gossip/queue.h"
#include "gossip/table.h"

/* Threads: owner thread for every function of this header; none blocks. */

/* A step of a log: versions are kept relative to the log's base. */
typedef struct pls_log_slot {
    uint32_t version;
    uint32_t hash; /* of the name; 0: the name has a later version */
} pls_log_slot;

/* The names of one owner in the order of their versions. */
typedef struct pls_log {
    pls_log_slot *slots;
    uint32_t slots_capacity;
    uint32_t slots_count;
    uint32_t holes;
    uint32_t live_count;
    uint32_t unique_count;
    pls_member owner; /* PLS_MEMBER_NONE: this log is free, `live_count` is the next free one */
    bool visible;     /* the owner is live */
    bool dropping;    /* its records are being freed */
    uint64_t base;
    uint64_t version; /* everything up to here is known */
    uint64_t floor;   /* tombstones up to here are gone */
    uint64_t heard;   /* somebody has this version */
    uint64_t pulled_ns;
} pls_log;

#define PLS_CHECKPOINTS_MAX 20

typedef struct pls_checkpoint {
    uint64_t version;
    uint64_t at_ns;
} pls_checkpoint;

typedef struct pls_registry {
    pls_table table;
    uint32_t records_count;
    pls_log *logs; /* 0: watches */
    uint32_t logs_capacity;
    uint32_t logs_count;
    uint32_t logs_free;
    pls_index log_of; /* member to log */
    uint64_t clock;   /* Lamport's, for stamps */
    pls_queue queue;  /* ranges to gossip */
    pls_checkpoint checkpoints[PLS_CHECKPOINTS_MAX];
    uint32_t checkpoints_count;
    uint32_t dropping_count;
    uint64_t tidy_ns; /* when tombstones and dead owners are looked at next */
} pls_registry;

/* Ranges of names that wait to be gossiped; digests repair what a storm pushes out. */
#define PLS_RANGES_MAX 4096

#define PLS_LOG_WATCHES 0u

/* An empty registry, and its end. */
void pls_registry_init(pls_registry *registry);
void pls_registry_destroy(pls_gossip *gossip);

/* The first record of a name, NULL without one; follow pls_registry_peer. */
static inline pls_record *pls_registry_first(const pls_registry *registry, const char *name,
                                             uint32_t name_bytes)
{
    pls_cell *cell = pls_table_cell(&registry->table, name, name_bytes);
    return cell != NULL ? &cell->first : NULL;
}

static inline pls_record *pls_registry_peer(const pls_registry *registry, const pls_record *record)
{
    return pls_table_peer(&registry->table, record);
}

/* The record of a name in one log, NULL without one. */
static inline pls_record *pls_registry_lookup(const pls_registry *registry, uint32_t log,
                                              const char *name, uint32_t name_bytes)
{
    return pls_table_lookup(&registry->table, log, name, name_bytes).record;
}

/* The record that a log has in one of its slots, and its name; NULL: the slot is a hole.
 * Owns: lends both until the registry changes. */
pls_record *pls_registry_at(const pls_registry *registry, uint32_t log, uint32_t slot,
                            const char **name_out);

/* The log of a member, PLS_INDEX_NONE without one; and one made when there is none.
 * Errors:  PLS_ENOMEM. */
uint32_t pls_registry_log(const pls_registry *registry, pls_member owner);
PLS_MUST_USE pls_err pls_registry_log_make(pls_gossip *gossip, pls_member owner, uint32_t *log_out);

/* What is registered under a name; `content` of pls_registry_set. */
typedef struct pls_name_content {
    const char *name;
    uint32_t name_bytes;
    uint32_t flags; /* of pls_wire_name_flags */
    uint64_t version;
    uint64_t value;
    uint64_t stamp;
} pls_name_content;

/* Set a name in a log at a new highest version, in place of its older record.
 * Errors:  PLS_ENOMEM, PLS_EFULL  nothing changed. */
PLS_MUST_USE pls_err pls_registry_set(pls_gossip *gossip, uint32_t log,
                                      const pls_name_content *content);

/* Take a name out of a log that has it. */
void pls_registry_erase(pls_gossip *gossip, uint32_t log, const char *name, uint32_t name_bytes);

/* The position of the first slot with a version above `after`. */
uint32_t pls_log_seek(const pls_log *log, uint64_t after);

/* Free all records of a log. */
void pls_registry_clear(pls_gossip *gossip, uint32_t log);

/* Free tombstones of a log up to its floor. */
void pls_registry_sweep(pls_gossip *gossip, uint32_t log);

/* Free up to `count_max` records of a log from its end, and forget how far it went. */
void pls_registry_shrink(pls_gossip *gossip, uint32_t log, uint32_t count_max);

/* The log is gone with all its records. */
void pls_registry_log_free(pls_gossip *gossip, uint32_t log);

/* Assert logs, records and table against one another. */
void pls_registry_check(const pls_gossip *gossip);

#endif
