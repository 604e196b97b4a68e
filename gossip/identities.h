/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PLS_GOSSIP_IDENTITIES_H
#define PLS_GOSSIP_IDENTITIES_H

#include "base/err.h"

#include <stddef.h>
#include <stdint.h>

/* Memory comes through here and from nowhere else. */
typedef struct pls_allocator {
    /* Like realloc, with the old size told: `new_bytes` 0 frees and gives NULL; NULL with
     * `new_bytes` > 0 means that there is no memory and the old block stays valid. */
    void *(*resize)(void *context, void *memory, size_t old_bytes, size_t new_bytes);
    void *context;
} pls_allocator;

/* The allocator over the C library's heap. Threads: any thread. */
pls_allocator pls_allocator_libc(void);

/* A member is known by the small number of its identity within one pool; equal numbers mean equal
 * name, address and generation. Numbers are reused when nobody holds them any more. */
typedef uint32_t pls_member;
#define PLS_MEMBER_NONE UINT32_MAX

/* The pool of identities: each name + address + generation (and the metas that its owner gave it)
 * is stored once. Several gossip instances that one thread drives may share one pool, which is
 * what lets ten thousand nodes be simulated in one process; a node process has one instance and
 * its own pool. The pool holds no state of any member. */
typedef struct pls_identities pls_identities;

/* What a pool knows of one member. Bytes are lent until the next call that may release it. */
typedef struct pls_identity {
    uint64_t
        key; /* hash of cluster-independent name, address and generation; the wire's short form */
    uint64_t generation;
    const char *name; /* not zero-terminated */
    const char *address;
    uint32_t name_bytes;
    uint32_t address_bytes;
} pls_identity;

/* Make an empty pool.
 * Units:   `allocator` NULL means the C library's.
 * Errors:  PLS_ENOMEM.
 * Owns:    gives the pool; it must outlive every instance that shares it.
 * Threads: owner thread, together with all its instances. */
PLS_MUST_USE pls_err pls_identities_create(const pls_allocator *allocator,
                                           pls_identities **pool_out);

/* Free the pool. Every instance that shared it must have been destroyed (asserted).
 * Owns:    takes `pool`; NULL is allowed.
 * Threads: owner thread. */
void pls_identities_destroy(pls_identities *pool);

/* Find or store an identity and hold it until pls_identities_release.
 * Units:   `name_bytes` 1..PLS_NAME_BYTES_MAX, `address_bytes` 1..PLS_ADDRESS_BYTES_MAX,
 *          `generation` >= 1.
 * Errors:  PLS_EINVAL  a length or the generation is outside its limits.
 *          PLS_ENOMEM.
 *          PLS_EEXIST  another identity has the same 64-bit key.
 * Owns:    borrows the bytes, keeps copies; gives one reference.
 * Threads: owner thread. */
PLS_MUST_USE pls_err pls_identities_acquire(pls_identities *pool, const pls_identity *identity,
                                            pls_member *member_out);

/* Take one more reference on a held member. Threads: owner thread. */
void pls_identities_hold(pls_identities *pool, pls_member member);

/* Give one reference back. Threads: owner thread. */
void pls_identities_release(pls_identities *pool, pls_member member);

/* The member with this key, PLS_MEMBER_NONE when there is none. Threads: owner thread. */
pls_member pls_identities_find(const pls_identities *pool, uint64_t key);

/* What a held member is. Owns: lends bytes until the last release. Threads: owner thread. */
pls_identity pls_identities_get(const pls_identities *pool, pls_member member);

/* The key alone. Threads: owner thread. */
uint64_t pls_identities_key(const pls_identities *pool, pls_member member);

/* Iterate over the held members of one name in no particular order: the one after `after`, the
 * first when that is PLS_MEMBER_NONE. Threads: owner thread. */
pls_member pls_identities_named(const pls_identities *pool, const char *name, uint32_t name_bytes,
                                pls_member after);

/* Remember what a member said of itself from `incarnation` on.
 * Units:   `len` 0..PLS_META_BYTES_MAX.
 * Errors:  PLS_EEXIST  it said something else in the same incarnation; nothing changed.
 *          PLS_ENOMEM.
 * Owns:    borrows `meta`, keeps a copy. Threads: owner thread. */
PLS_MUST_USE pls_err pls_identities_set_meta(pls_identities *pool, pls_member member,
                                             uint64_t incarnation, const void *meta, uint32_t len);

/* What it said at `incarnation`. Owns: lends until the next set_meta or the last release.
 * Threads: owner thread. */
const void *pls_identities_meta(const pls_identities *pool, pls_member member, uint64_t incarnation,
                                uint32_t *len_out);

/* One more than the highest number given out so far. Threads: owner thread. */
uint32_t pls_identities_limit(const pls_identities *pool);

/* The key of an identity. Threads: any thread. */
uint64_t pls_identity_key(const pls_identity *identity);

#endif
