/* SPDX-License-Identifier: Apache-2.0 */
/* Memory of the arena. A small block's segment serves one size class and grows by steps of
 * committed pages; a large block has its segment to itself. Segments are numbered for ever and
 * never used again under the same number, so a receiver's mapping can be old but not wrong. Giving
 * a segment back punches it first: receivers may have it mapped for long after. */
#include "shm/pool.h"

#include "base/assert.h"
#include "shm/layout.h"
#include "shm/segment.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define CLASS_BYTES_MIN_LOG2 12
#define CLASSES 41
#define CLASS_LARGE CLASSES
#define SEGMENT_BYTES_MIN (UINT64_C(2) << 20)
#define SEGMENT_BYTES_MAX (UINT64_C(64) << 20)
/* Pages are committed by at least this much, so that small blocks do not cost a system call each.
 */
#define COMMIT_BYTES_MIN (UINT64_C(256) << 10)
#define LARGE_ALIGN (UINT64_C(256) << 10)
#define HUGE_PAGE_BYTES (UINT64_C(2) << 20)

typedef struct pls_pool_segment {
    pls_segment memory;
    uint32_t id;
    unsigned class_index;
    uint64_t committed_bytes;
    uint32_t blocks_max;
    uint32_t blocks_made;
    uint32_t live;
    pls_pool_block *free;
    pls_pool_block *blocks;
    struct pls_pool_segment *next; /* all of its class */
    struct pls_pool_segment *warm_older;
    struct pls_pool_segment *warm_newer;
} pls_pool_segment;

struct pls_pool {
    uint64_t budget_bytes;
    uint64_t keep_bytes;
    pls_err (*publish)(void *context, uint32_t segment, int readonly_fd);
    void (*retire)(void *context, uint32_t segment);
    void *context;
    uint32_t next_id;
    pls_pool_segment *classes[CLASSES + 1];
    pls_pool_segment *warm_oldest;
    pls_pool_segment *warm_newest;
    pls_pool_figures figures;
};

_Static_assert((UINT64_C(1) << CLASS_BYTES_MIN_LOG2) == PLS_PAGE_BYTES, "blocks are whole pages");

uint64_t pls_pool_class_bytes(unsigned class_index)
{
    uint64_t octave = UINT64_C(1) << (CLASS_BYTES_MIN_LOG2 + class_index / 4);
    return octave + octave / 4 * (class_index % 4);
}

unsigned pls_pool_class(uint64_t bytes)
{
    pls_assert(bytes >= 1);
    pls_assert(bytes <= PLS_POOL_SMALL_BYTES_MAX);
    if (bytes <= PLS_PAGE_BYTES) {
        return 0;
    }
    unsigned log2 = 63 - (unsigned)__builtin_clzll(bytes);
    uint64_t quarter = UINT64_C(1) << (log2 - 2);
    uint64_t quarters = (bytes - (UINT64_C(1) << log2) + quarter - 1) / quarter;
    return (log2 - CLASS_BYTES_MIN_LOG2) * 4 + (unsigned)quarters;
}

pls_err pls_pool_create(const pls_arena_config *config, pls_pool **pool_out)
{
    pls_assert(config->budget_bytes > 0);
    pls_assert(config->publish != NULL);
    pls_pool *pool = calloc(1, sizeof *pool);
    if (pool == NULL) {
        return PLS_ENOMEM;
    }
    pool->budget_bytes = config->budget_bytes;
    pool->keep_bytes = config->keep_bytes != 0 ? config->keep_bytes : PLS_ARENA_KEEP_BYTES;
    pool->publish = config->publish;
    pool->retire = config->retire;
    pool->context = config->context;
    pool->next_id = 1;
    *pool_out = pool;
    return PLS_OK;
}

static void warm_insert(pls_pool *pool, pls_pool_segment *segment)
{
    segment->warm_older = pool->warm_newest;
    segment->warm_newer = NULL;
    if (pool->warm_newest != NULL) {
        pool->warm_newest->warm_newer = segment;
    } else {
        pool->warm_oldest = segment;
    }
    pool->warm_newest = segment;
    pool->figures.warm_bytes += segment->committed_bytes;
}

static void warm_remove(pls_pool *pool, pls_pool_segment *segment)
{
    if (segment->warm_older != NULL) {
        segment->warm_older->warm_newer = segment->warm_newer;
    } else {
        pool->warm_oldest = segment->warm_newer;
    }
    if (segment->warm_newer != NULL) {
        segment->warm_newer->warm_older = segment->warm_older;
    } else {
        pool->warm_newest = segment->warm_older;
    }
    segment->warm_older = NULL;
    segment->warm_newer = NULL;
    pool->figures.warm_bytes -= segment->committed_bytes;
}

static void segment_free(pls_pool_segment *segment)
{
    pls_segment_detach(&segment->memory);
    free(segment->blocks);
    free(segment);
}

/* A segment that has nothing in use and is in no warm list goes back to the system. */
static void segment_retire(pls_pool *pool, pls_pool_segment *segment)
{
    pls_assert(segment->live == 0);
    pls_pool_segment **link = &pool->classes[segment->class_index];
    while (*link != segment) {
        link = &(*link)->next;
    }
    *link = segment->next;
    pool->figures.committed_bytes -= segment->committed_bytes;
    pool->figures.segments_count--;
    /* If this fails the pages live on until the last receiver unmaps them. */
    (void)!pls_segment_punch(segment->memory.fd, 0, segment->memory.bytes);
    if (pool->retire != NULL) {
        pool->retire(pool->context, segment->id);
    }
    segment_free(segment);
}

void pls_pool_trim(pls_pool *pool, uint64_t keep_bytes)
{
    while (pool->figures.warm_bytes > keep_bytes) {
        pls_pool_segment *segment = pool->warm_oldest;
        warm_remove(pool, segment);
        segment_retire(pool, segment);
    }
}

void pls_pool_destroy(pls_pool *pool)
{
    if (pool == NULL) {
        return;
    }
    for (unsigned i = 0; i <= CLASSES; i++) {
        while (pool->classes[i] != NULL) {
            pls_pool_segment *segment = pool->classes[i];
            pool->classes[i] = segment->next;
            segment_free(segment);
        }
    }
    free(pool);
}

/* Make room for `bytes` more in the budget, at the cost of warm memory. */
static pls_err budget_take(pls_pool *pool, uint64_t bytes)
{
    while (pool->budget_bytes - pool->figures.committed_bytes < bytes) {
        pls_pool_segment *segment = pool->warm_oldest;
        if (segment == NULL) {
            return PLS_EBUDGET;
        }
        warm_remove(pool, segment);
        segment_retire(pool, segment);
    }
    return PLS_OK;
}

static pls_err segment_publish(pls_pool *pool, pls_pool_segment *segment)
{
    int readonly = -1;
    pls_err err = pls_segment_reopen_readonly(segment->memory.fd, &readonly);
    if (err != PLS_OK) {
        return err;
    }
    err = pool->publish(pool->context, segment->id, readonly);
    close(readonly);
    return err;
}

/* A mapped and published segment without committed pages, in its class's list but not warm. */
static pls_err segment_make(pls_pool *pool, unsigned class_index, uint64_t bytes,
                            uint32_t blocks_max, pls_pool_segment **segment_out)
{
    pls_pool_segment *segment = calloc(1, sizeof *segment);
    if (segment == NULL) {
        return PLS_ENOMEM;
    }
    pls_err err = PLS_ENOMEM;
    unsigned mode = PLS_SEGMENT_WRITE | (bytes >= HUGE_PAGE_BYTES ? PLS_SEGMENT_HUGE : 0u);
    segment->memory = PLS_SEGMENT_EMPTY;
    segment->class_index = class_index;
    segment->blocks_max = blocks_max;
    segment->blocks = calloc(blocks_max, sizeof *segment->blocks);
    if (segment->blocks == NULL) {
        goto fail;
    }
    err = pls_segment_memfd("pulsing-arena", bytes, &segment->memory.fd);
    if (err != PLS_OK) {
        goto fail;
    }
    err = pls_segment_map(&segment->memory, segment->memory.fd, 0, bytes, mode);
    if (err != PLS_OK) {
        goto fail;
    }
    segment->id = pool->next_id++;
    err = segment_publish(pool, segment);
    if (err != PLS_OK) {
        goto fail;
    }
    segment->next = pool->classes[class_index];
    pool->classes[class_index] = segment;
    pool->figures.segments_count++;
    *segment_out = segment;
    return PLS_OK;
fail:
    segment_free(segment);
    return err;
}

/* Commit pages until `end` bytes of the segment have them. */
static pls_err segment_extend(pls_pool *pool, pls_pool_segment *segment, uint64_t end)
{
    if (end <= segment->committed_bytes) {
        return PLS_OK;
    }
    uint64_t need = end - segment->committed_bytes;
    uint64_t left = segment->memory.bytes - segment->committed_bytes;
    uint64_t step = need < COMMIT_BYTES_MIN ? COMMIT_BYTES_MIN : need;
    step = step < left ? step : left;
    if (pool->budget_bytes - pool->figures.committed_bytes < step) {
        step = need;
    }
    pls_err err = budget_take(pool, step);
    if (err != PLS_OK) {
        return err;
    }
    err = pls_segment_populate(&segment->memory, segment->committed_bytes, step);
    if (err != PLS_OK) {
        return err;
    }
    segment->committed_bytes += step;
    pool->figures.committed_bytes += step;
    return PLS_OK;
}

/* The next block that was never used before. */
static pls_err block_make(pls_pool *pool, pls_pool_segment *segment, uint64_t bytes)
{
    pls_assert(segment->blocks_made < segment->blocks_max);
    uint64_t offset = segment->blocks_made * bytes;
    pls_err err = segment_extend(pool, segment, offset + bytes);
    if (err != PLS_OK) {
        return err;
    }
    pls_pool_block *block = &segment->blocks[segment->blocks_made];
    segment->blocks_made++;
    block->face.base = segment->memory.base + offset;
    block->face.bytes = bytes;
    block->segment = segment;
    block->offset = offset;
    block->next_free = segment->free;
    segment->free = block;
    return PLS_OK;
}

static pls_pool_block *block_use(pls_pool *pool, pls_pool_segment *segment)
{
    pls_pool_block *block = segment->free;
    segment->free = block->next_free;
    block->next_free = NULL;
    segment->live++;
    pool->figures.used_bytes += block->face.bytes;
    pool->figures.blocks_count++;
    return block;
}

/* Take the first segment of a class that can give a block: one with a free block if there is any,
 * else one with room for another. */
static pls_pool_segment *segment_find(const pls_pool *pool, unsigned class_index)
{
    pls_pool_segment *with_room = NULL;
    for (pls_pool_segment *s = pool->classes[class_index]; s != NULL; s = s->next) {
        if (s->free != NULL) {
            return s;
        }
        if (s->blocks_made < s->blocks_max && with_room == NULL) {
            with_room = s;
        }
    }
    return with_room;
}

static pls_err small_alloc(pls_pool *pool, uint64_t bytes, pls_pool_block **block_out)
{
    unsigned class_index = pls_pool_class(bytes);
    uint64_t block_bytes = pls_pool_class_bytes(class_index);
    pls_pool_segment *segment = segment_find(pool, class_index);
    bool fresh = segment == NULL;
    pls_err err = PLS_OK;
    if (fresh) {
        uint64_t segment_bytes = SEGMENT_BYTES_MIN;
        for (pls_pool_segment *s = pool->classes[class_index]; s != NULL; s = s->next) {
            segment_bytes = segment_bytes < SEGMENT_BYTES_MAX ? segment_bytes * 2 : segment_bytes;
        }
        while (segment_bytes < 2 * block_bytes) {
            segment_bytes *= 2;
        }
        err = budget_take(pool, block_bytes);
        if (err != PLS_OK) {
            return err;
        }
        err = segment_make(pool, class_index, segment_bytes,
                           (uint32_t)(segment_bytes / block_bytes), &segment);
        if (err != PLS_OK) {
            return err;
        }
    }
    /* In use for the moment, so that making room in the budget does not take it away. */
    bool was_warm = segment->live == 0 && !fresh;
    if (was_warm) {
        warm_remove(pool, segment);
    }
    if (segment->free == NULL) {
        err = block_make(pool, segment, block_bytes);
    }
    if (err != PLS_OK) {
        if (fresh) {
            segment_retire(pool, segment);
        } else if (was_warm) {
            warm_insert(pool, segment);
        }
        return err;
    }
    *block_out = block_use(pool, segment);
    return PLS_OK;
}

/* The smallest warm large segment that fits without wasting more than a quarter. */
static pls_pool_segment *large_find_warm(const pls_pool *pool, uint64_t bytes)
{
    pls_pool_segment *best = NULL;
    for (pls_pool_segment *s = pool->warm_oldest; s != NULL; s = s->warm_newer) {
        if (s->class_index == CLASS_LARGE && s->memory.bytes >= bytes &&
            s->memory.bytes - bytes <= bytes / 4 &&
            (best == NULL || s->memory.bytes < best->memory.bytes)) {
            best = s;
        }
    }
    return best;
}

static pls_err large_alloc(pls_pool *pool, uint64_t bytes, pls_pool_block **block_out)
{
    uint64_t align = bytes >= 8 * HUGE_PAGE_BYTES ? HUGE_PAGE_BYTES : LARGE_ALIGN;
    bytes = (bytes + align - 1) & ~(align - 1);
    if (bytes > pool->budget_bytes) {
        return PLS_ETOOBIG;
    }
    pls_pool_segment *segment = large_find_warm(pool, bytes);
    if (segment != NULL) {
        warm_remove(pool, segment);
        *block_out = block_use(pool, segment);
        return PLS_OK;
    }
    pls_err err = budget_take(pool, bytes);
    if (err != PLS_OK) {
        return err;
    }
    err = segment_make(pool, CLASS_LARGE, bytes, 1, &segment);
    if (err != PLS_OK) {
        return err;
    }
    err = block_make(pool, segment, bytes);
    if (err != PLS_OK) {
        segment_retire(pool, segment);
        return err;
    }
    *block_out = block_use(pool, segment);
    return PLS_OK;
}

pls_err pls_pool_alloc(pls_pool *pool, uint64_t bytes, pls_pool_block **block_out)
{
    pls_assert(bytes >= 1);
    if (bytes > pool->budget_bytes) {
        return PLS_ETOOBIG;
    }
    return bytes <= PLS_POOL_SMALL_BYTES_MAX ? small_alloc(pool, bytes, block_out)
                                             : large_alloc(pool, bytes, block_out);
}

void pls_pool_free(pls_pool *pool, pls_pool_block *block)
{
    pls_pool_segment *segment = block->segment;
    pls_assert(segment->live > 0);
    block->holds = 0;
    block->leases = 0;
    block->next_free = segment->free;
    segment->free = block;
    segment->live--;
    pool->figures.used_bytes -= block->face.bytes;
    pool->figures.blocks_count--;
    if (segment->live > 0) {
        return;
    }
    if (segment->committed_bytes > pool->keep_bytes) {
        segment_retire(pool, segment);
        return;
    }
    warm_insert(pool, segment);
    pls_pool_trim(pool, pool->keep_bytes);
}

uint32_t pls_pool_segment_id(const pls_pool_block *block)
{
    return block->segment->id;
}

void pls_pool_figures_get(const pls_pool *pool, pls_pool_figures *figures_out)
{
    *figures_out = pool->figures;
}

static bool segment_check(const pls_pool_segment *segment, unsigned class_index)
{
    uint32_t free_count = 0;
    for (const pls_pool_block *b = segment->free; b != NULL; b = b->next_free) {
        free_count++;
        if (b->segment != segment || free_count > segment->blocks_made) {
            return false;
        }
    }
    return segment->class_index == class_index && pls_segment_check(&segment->memory) &&
           segment->committed_bytes <= segment->memory.bytes &&
           segment->blocks_made <= segment->blocks_max &&
           free_count + segment->live == segment->blocks_made;
}

bool pls_pool_check(const pls_pool *pool)
{
    pls_pool_figures sum = {0};
    for (unsigned i = 0; i <= CLASSES; i++) {
        for (const pls_pool_segment *s = pool->classes[i]; s != NULL; s = s->next) {
            if (!segment_check(s, i)) {
                return false;
            }
            sum.segments_count++;
            sum.committed_bytes += s->committed_bytes;
            sum.warm_bytes += s->live == 0 ? s->committed_bytes : 0;
            sum.blocks_count += s->live;
            sum.used_bytes +=
                s->live * (i == CLASS_LARGE ? s->memory.bytes : pls_pool_class_bytes(i));
        }
    }
    uint64_t warm_bytes = 0;
    for (const pls_pool_segment *s = pool->warm_oldest; s != NULL; s = s->warm_newer) {
        warm_bytes += s->committed_bytes;
        if (s->live != 0 || (s->warm_newer == NULL) != (s == pool->warm_newest)) {
            return false;
        }
    }
    return memcmp(&sum, &pool->figures, sizeof sum) == 0 && warm_bytes == sum.warm_bytes &&
           sum.committed_bytes <= pool->budget_bytes;
}
