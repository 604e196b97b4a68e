/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PLS_NODE_PROCESS_NAMES_H
#define PLS_NODE_PROCESS_NAMES_H

#include "base/err.h"
#include "node/requests.h"

#include <stddef.h>
#include <stdint.h>

/* The names of this node's actors: by name, by actor, and by the slot where the actor lives. Pure
 * bookkeeping, no I/O.
 * Invariant: every entry is in all three indexes; a name occurs once.
 * Threads: the same for every function of this header: owner thread; never blocks. */

#define PLS_NAMES_MAX (1u << 20)

typedef struct pls_names pls_names;

/* One name. `entry` may be read; it lends until the name goes. */
typedef struct pls_name {
    pls_name_entry entry;
    struct pls_name *same_hash;
    struct pls_name *same_actor_hash;
    struct pls_name *slot_next;
    struct pls_name *slot_previous;
    uint32_t hash;
    char bytes[];
} pls_name;

/* Makes an empty registry.
 * Units:   `seed` makes the hash unguessable.
 * Errors:  PLS_ENOMEM.
 * Owns:    gives the names. */
PLS_MUST_USE pls_err pls_names_create(uint64_t seed, pls_names **names_out);

/* `gone` is called for each name just before it is removed; not by pls_names_destroy(). */
void pls_names_on_gone(pls_names *names, void (*gone)(void *owner, const pls_name *name),
                       void *owner);

/* Frees it with all entries. NULL is accepted. */
void pls_names_destroy(pls_names *names);

/* Adds entry->name for entry->actor at (entry->slot, entry->epoch).
 * Errors:  PLS_EEXIST  *name_out is the holder; PLS_EFULL, PLS_ENOMEM.
 * Owns:    copies the strings; lends *name_out. */
PLS_MUST_USE pls_err pls_names_add(pls_names *names, const pls_name_entry *entry,
                                   pls_name **name_out);

/* The entry of a name, or NULL. */
pls_name *pls_names_find(pls_names *names, const char *name, size_t name_bytes);

/* A name of an actor, or NULL. */
pls_name *pls_names_of_actor(pls_names *names, uint64_t actor);

/* The first name at a slot, or NULL; further ones by `slot_next`. */
pls_name *pls_names_at_slot(pls_names *names, uint32_t slot);

/* Removes and frees one. */
void pls_names_remove(pls_names *names, pls_name *name);

/* Removes all names of an actor. */
void pls_names_remove_actor(pls_names *names, uint64_t actor);

/* All names of an actor now live elsewhere. */
void pls_names_move_actor(pls_names *names, uint64_t actor, uint32_t slot, uint32_t epoch);

/* How many names there are. */
uint32_t pls_names_count(const pls_names *names);

/* Bytes of all entries as pls_names_encode() writes them. */
size_t pls_names_encoded_bytes(const pls_names *names);

/* Writes every entry, for pls_name_entry_next(). `bytes` holds pls_names_encoded_bytes(). */
void pls_names_encode(const pls_names *names, uint8_t *bytes);

/* The whole invariant; for tests and debug builds. */
bool pls_names_check(const pls_names *names);

#endif
