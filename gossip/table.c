/* SPDX-License-Identifier: Apache-2.0 */
/* A hash table that grows in small steps. The first bits of a hash choose a segment through the
 * directory, the next ones a cell in it, from where free cells are taken one after another. The
 * very first bits tell how long a name is, in steps of eight bytes, so that a segment's cells are
 * as long as its names need and each name but the longest stands beside what is known of it. A byte
 * of each cell's hash stands in a dense array of tags beside the cells: it stays in the cache, so
 * that only the cell that is meant is read from memory. A full segment grows by an eighth, and one
 * that has reached its limit is split in two; no input moves more than one segment, and no less
 * than three quarters of the cells are in use when there are many. Removal shifts the followers
 * back. Nothing refers to a cell's place, and nobody iterates over cells, so that their order can
 * have no effect on any trace. */
#include "gossip/table.h"

#include "base/assert.h"
#include "base/limits.h"
#include "gossip/hash.h"
#include "gossip/state.h"

#include <stddef.h>
#include <string.h>

#define SEGMENT_CELLS_MIN 8u
#define SEGMENT_CELLS_MAX 4096u
/* A segment that hashes do not divide any more grows on. */
#define DEPTH_MAX 19u
/* Names up to so many bytes share the shortest cells, which are cache lines. */
#define TEXT_BYTES_MIN 24u
#define TEXT_STEP_BYTES 8u
#define CLASS_BITS 3u
#define CLASS_COUNT (1u << CLASS_BITS)
#define CLASS_LONGEST (CLASS_COUNT - 1)
#define TAG_USED 0x80u
#define TAG_BITS UINT64_C(0x8080808080808080)
#define TAG_ONES UINT64_C(0x0101010101010101)
#define TAGS_AT_ONCE 8u
#define CELL_NONE UINT32_MAX
#define LINE_BYTES 64u
#define RECORD_UNITS (sizeof(pls_record) / PLS_ARENA_UNIT_BYTES)

_Static_assert(sizeof(pls_record) % PLS_ARENA_UNIT_BYTES == 0, "a record fills its units");
_Static_assert(PLS_NAME_BYTES_MAX <= PLS_ARENA_UNITS_MAX * PLS_ARENA_UNIT_BYTES,
               "a long name is one piece of the arena");
_Static_assert(PLS_CELL_TEXT_BYTES_MAX == TEXT_BYTES_MIN + (CLASS_LONGEST - 1) * TEXT_STEP_BYTES,
               "each length of cells but the arena's has its class");
_Static_assert(offsetof(pls_cell, text) + TEXT_BYTES_MIN == LINE_BYTES,
               "a short name fills a line");
_Static_assert(SEGMENT_CELLS_MIN >= TAGS_AT_ONCE, "tags are repeated once at most");

/* Which names have cells of one length: the last class has those whose text is in the arena. */
static inline uint32_t class_of(uint32_t name_bytes)
{
    if (name_bytes <= TEXT_BYTES_MIN) {
        return 0;
    }
    uint32_t steps = (name_bytes - TEXT_BYTES_MIN + TEXT_STEP_BYTES - 1) / TEXT_STEP_BYTES;
    return steps < CLASS_LONGEST ? steps : CLASS_LONGEST;
}

static uint32_t cell_bytes_of(uint32_t class)
{
    uint32_t text_bytes =
        class < CLASS_LONGEST ? TEXT_BYTES_MIN + class * TEXT_STEP_BYTES : TEXT_STEP_BYTES;
    return (uint32_t)offsetof(pls_cell, text) + text_bytes;
}

uint32_t pls_table_hash(const char *name, uint32_t name_bytes)
{
    uint32_t class = class_of(name_bytes) << (32 - CLASS_BITS);
    uint32_t hash = class | pls_hash_quick(name, name_bytes) >> CLASS_BITS;
    return hash != 0 ? hash : 1;
}

static pls_segment *segment_of(const pls_table *table, uint32_t hash)
{
    /* By two shifts, since none shifts by all bits. */
    uint32_t beginning = hash >> 1 >> (31 - table->depth);
    return &table->segments[table->directory[beginning]];
}

static inline pls_cell *cell_at(const pls_segment *segment, uint32_t at)
{
    return (pls_cell *)(void *)(segment->cells + (size_t)at * segment->cell_bytes);
}

static uint32_t home_of(const pls_segment *segment, uint32_t hash)
{
    uint32_t rest = hash << segment->depth;
    return (uint32_t)((uint64_t)rest * segment->capacity >> 32);
}

static uint8_t tag_of(uint32_t hash)
{
    return (uint8_t)(TAG_USED | hash);
}

static void tag_set(pls_segment *segment, uint32_t at, uint8_t tag)
{
    segment->tags[at] = tag;
    if (at < TAGS_AT_ONCE) {
        segment->tags[segment->capacity + at] = tag;
    }
}

static uint32_t next_of(const pls_segment *segment, uint32_t at)
{
    return at + 1 < segment->capacity ? at + 1 : 0;
}

/* The first cell from `at` on whose tag is the hash's, CELL_NONE when an empty one comes before. */
static inline uint32_t seek(const pls_segment *segment, uint32_t at, uint32_t hash)
{
    uint64_t wanted = TAG_ONES * tag_of(hash);
    for (;;) {
        uint64_t word = 0;
        memcpy(&word, segment->tags + at, TAGS_AT_ONCE);
        uint64_t differ = word ^ wanted;
        /* The top bit of each byte that is zero; above a true one there may be false ones, which
         * the cells' own hashes sort out. */
        uint64_t same = (differ - TAG_ONES) & ~differ & TAG_BITS;
        uint64_t empty = ~word & TAG_BITS;
        same &= (empty & (0 - empty)) - 1;
        if (same == 0 && empty != 0) {
            return CELL_NONE;
        }
        uint32_t step = same != 0 ? (uint32_t)__builtin_ctzll(same) / 8 : TAGS_AT_ONCE;
        at = at + step < segment->capacity ? at + step : at + step - segment->capacity;
        if (same != 0) {
            return at;
        }
    }
}

const char *pls_table_name(const pls_table *table, const pls_cell *cell)
{
    if (cell->first.name_bytes <= PLS_CELL_TEXT_BYTES_MAX) {
        return cell->text;
    }
    pls_place place = 0;
    memcpy(&place, cell->text, sizeof place);
    return pls_arena_at(&table->arena, place);
}

/* Comparing a few words takes less than a call; the last one reaches back. */
static bool is_same(const char *a, const char *b, uint32_t bytes)
{
    enum { WORD = sizeof(uint64_t) };
    if (bytes < WORD || bytes > 4 * WORD) {
        return memcmp(a, b, bytes) == 0;
    }
    for (uint32_t at = 0; at + WORD < bytes; at += WORD) {
        if (pls_hash_word(a + at) != pls_hash_word(b + at)) {
            return false;
        }
    }
    return pls_hash_word(a + bytes - WORD) == pls_hash_word(b + bytes - WORD);
}

static inline pls_cell *cell_of(const pls_table *table, uint32_t hash, const char *name,
                                uint32_t name_bytes)
{
    if (table->names_count == 0) {
        return NULL;
    }
    const pls_segment *segment = segment_of(table, hash);
    if (segment->count == 0) {
        return NULL;
    }
    uint32_t at = home_of(segment, hash);
    /* Most likely it is near: its page is looked up while the tags are read. */
    __builtin_prefetch(cell_at(segment, at));
    for (at = seek(segment, at, hash); at != CELL_NONE;
         at = seek(segment, next_of(segment, at), hash)) {
        pls_cell *cell = cell_at(segment, at);
        if (cell->first.hash == hash && cell->first.name_bytes == name_bytes &&
            is_same(pls_table_name(table, cell), name, name_bytes)) {
            return cell;
        }
    }
    return NULL;
}

pls_cell *pls_table_cell(const pls_table *table, const char *name, uint32_t name_bytes)
{
    return cell_of(table, pls_table_hash(name, name_bytes), name, name_bytes);
}

pls_record *pls_table_peer(const pls_table *table, const pls_record *record)
{
    return record->peers != 0 ? pls_arena_at(&table->arena, record->peers) : NULL;
}

pls_spot pls_table_lookup(const pls_table *table, uint32_t log, const char *name,
                          uint32_t name_bytes)
{
    pls_cell *cell = pls_table_cell(table, name, name_bytes);
    pls_record *record = cell != NULL ? &cell->first : NULL;
    while (record != NULL && record->log != log) {
        record = pls_table_peer(table, record);
    }
    return (pls_spot){record != NULL ? cell : NULL, record};
}

pls_spot pls_table_at(const pls_table *table, uint32_t log, uint32_t hash, uint64_t version)
{
    const pls_segment *segment = segment_of(table, hash);
    for (uint32_t at = seek(segment, home_of(segment, hash), hash); at != CELL_NONE;
         at = seek(segment, next_of(segment, at), hash)) {
        pls_cell *cell = cell_at(segment, at);
        if (cell->first.hash != hash) {
            continue;
        }
        for (pls_record *r = &cell->first; r != NULL; r = pls_table_peer(table, r)) {
            if (r->log == log && r->version == version) {
                return (pls_spot){cell, r};
            }
        }
    }
    return (pls_spot){NULL, NULL};
}

static size_t block_bytes(uint32_t capacity, uint32_t cell_bytes)
{
    return capacity == 0 ? 0 : LINE_BYTES + (size_t)capacity * (cell_bytes + 1) + TAGS_AT_ONCE;
}

/* A segment for the same names as another, or for the half of them that one more bit tells. */
static pls_err segment_make(const pls_segment *like, pls_heap *heap, uint32_t capacity,
                            uint32_t depth, pls_segment *out)
{
    uint8_t *block = pls_heap_resize(heap, NULL, 0, block_bytes(capacity, like->cell_bytes));
    if (block == NULL) {
        return PLS_ENOMEM;
    }
    uint8_t *cells = block + (LINE_BYTES - (uintptr_t)block % LINE_BYTES);
    *out = (pls_segment){.cells = cells,
                         .tags = cells + (size_t)capacity * like->cell_bytes,
                         .block = block,
                         .capacity = capacity,
                         .depth = depth,
                         .cell_bytes = like->cell_bytes};
    memset(out->tags, 0, capacity + TAGS_AT_ONCE);
    return PLS_OK;
}

static void segment_fini(pls_segment *segment, pls_heap *heap)
{
    pls_heap_resize(heap, segment->block, block_bytes(segment->capacity, segment->cell_bytes), 0);
}

/* An unused cell for a hash; the segment must not be full. */
static pls_cell *cell_take(pls_segment *segment, uint32_t hash)
{
    uint32_t at = home_of(segment, hash);
    pls_assert(segment->count < segment->capacity);
    while (segment->tags[at] != 0) {
        at = next_of(segment, at);
    }
    tag_set(segment, at, tag_of(hash));
    segment->count++;
    return cell_at(segment, at);
}

/* Move a cell of one segment to a free one of another. */
static void cell_move(const pls_segment *from, uint32_t at, pls_segment *to)
{
    const pls_cell *cell = cell_at(from, at);
    memcpy(cell_take(to, cell->first.hash), cell, from->cell_bytes);
}

static bool is_full(uint32_t count, uint32_t capacity)
{
    return count + 1 > capacity - capacity / 8;
}

static pls_err segment_grow(pls_segment *segment, pls_heap *heap)
{
    pls_segment grown;
    uint32_t more = segment->capacity / 8;
    more = more < SEGMENT_CELLS_MIN ? SEGMENT_CELLS_MIN : more;
    pls_err err = segment_make(segment, heap, segment->capacity + more, segment->depth, &grown);
    if (err != PLS_OK) {
        return err;
    }
    for (uint32_t i = 0; i < segment->capacity; i++) {
        if (segment->tags[i] != 0) {
            cell_move(segment, i, &grown);
        }
    }
    segment_fini(segment, heap);
    *segment = grown;
    return PLS_OK;
}

/* Whether the bit after those that a segment's hashes share is set. */
static bool is_upper(uint32_t hash, uint32_t depth)
{
    return (hash << depth & UINT32_C(0x80000000)) != 0;
}

/* Room for one more segment, and a directory that can tell it from the one that it comes from. */
static pls_err directory_reserve(pls_table *table, pls_heap *heap, uint32_t depth)
{
    void *segments = table->segments;
    pls_err err = pls_heap_reserve(heap, &segments, &table->segments_capacity,
                                   table->segments_count + 1, sizeof(pls_segment));
    table->segments = segments;
    if (err != PLS_OK || depth <= table->depth) {
        return err;
    }
    uint32_t *directory = pls_heap_resize(heap, table->directory, sizeof(uint32_t) << table->depth,
                                          sizeof(uint32_t) << depth);
    if (directory == NULL) {
        return PLS_ENOMEM;
    }
    for (uint32_t i = UINT32_C(1) << depth; i-- > 0;) {
        directory[i] = directory[i / 2];
    }
    table->directory = directory;
    table->depth = depth;
    return PLS_OK;
}

static uint32_t capacity_for(uint32_t count)
{
    uint32_t capacity = count + count / 4;
    return capacity < SEGMENT_CELLS_MIN ? SEGMENT_CELLS_MIN : capacity;
}

static pls_err segment_split(pls_table *table, pls_heap *heap, uint32_t index)
{
    pls_segment halves[2];
    uint32_t depth = table->segments[index].depth;
    pls_err err = directory_reserve(table, heap, depth + 1);
    if (err != PLS_OK) {
        return err;
    }
    pls_segment *old = &table->segments[index];
    uint32_t upper_count = 0;
    for (uint32_t i = 0; i < old->capacity; i++) {
        upper_count += old->tags[i] != 0 && is_upper(cell_at(old, i)->first.hash, depth);
    }
    err = segment_make(old, heap, capacity_for(old->count - upper_count), depth + 1, &halves[0]);
    if (err != PLS_OK) {
        return err;
    }
    err = segment_make(old, heap, capacity_for(upper_count), depth + 1, &halves[1]);
    if (err != PLS_OK) {
        segment_fini(&halves[0], heap);
        return err;
    }
    for (uint32_t i = 0; i < old->capacity; i++) {
        if (old->tags[i] != 0) {
            cell_move(old, i, &halves[is_upper(cell_at(old, i)->first.hash, depth)]);
        }
    }
    segment_fini(old, heap);
    *old = halves[0];
    table->segments[table->segments_count] = halves[1];
    for (uint32_t i = 0; i >> table->depth == 0; i++) {
        if (table->directory[i] == index && (i >> (table->depth - depth - 1) & 1) != 0) {
            table->directory[i] = table->segments_count;
        }
    }
    table->segments_count++;
    return PLS_OK;
}

/* A segment without cells for each class of names. */
static pls_err table_begin(pls_table *table, pls_heap *heap)
{
    void *segments = table->segments;
    pls_err err = pls_heap_reserve(heap, &segments, &table->segments_capacity, CLASS_COUNT,
                                   sizeof(pls_segment));
    table->segments = segments;
    if (err != PLS_OK) {
        return err;
    }
    table->directory = pls_heap_resize(heap, NULL, 0, sizeof(uint32_t) << CLASS_BITS);
    if (table->directory == NULL) {
        return PLS_ENOMEM;
    }
    for (uint32_t class = 0; class < CLASS_COUNT; class ++) {
        table->segments[class] =
            (pls_segment){.depth = CLASS_BITS, .cell_bytes = cell_bytes_of(class)};
        table->directory[class] = class;
    }
    table->segments_count = CLASS_COUNT;
    table->depth = CLASS_BITS;
    return PLS_OK;
}

/* Room for one more name of this hash. */
static pls_err table_reserve(pls_table *table, pls_heap *heap, uint32_t hash)
{
    pls_err err = table->segments_count == 0 ? table_begin(table, heap) : PLS_OK;
    while (err == PLS_OK) {
        pls_segment *segment = segment_of(table, hash);
        if (!is_full(segment->count, segment->capacity)) {
            return PLS_OK;
        }
        bool grows = segment->capacity < SEGMENT_CELLS_MAX || segment->depth == DEPTH_MAX;
        err = grows ? segment_grow(segment, heap)
                    : segment_split(table, heap, (uint32_t)(segment - table->segments));
    }
    return err;
}

static pls_err add_name(pls_table *table, pls_heap *heap, const pls_record *record,
                        const char *name, pls_spot *spot_out)
{
    pls_place place = 0;
    bool is_long = record->name_bytes > PLS_CELL_TEXT_BYTES_MAX;
    pls_err err = table_reserve(table, heap, record->hash);
    if (err == PLS_OK && is_long) {
        err = pls_arena_make(&table->arena, heap, pls_arena_units(record->name_bytes), &place);
    }
    if (err != PLS_OK) {
        return err;
    }
    pls_cell *cell = cell_take(segment_of(table, record->hash), record->hash);
    cell->first = *record;
    if (is_long) {
        memcpy(cell->text, &place, sizeof place);
        memcpy(pls_arena_at(&table->arena, place), name, record->name_bytes);
    } else {
        memcpy(cell->text, name, record->name_bytes);
    }
    table->names_count++;
    *spot_out = (pls_spot){cell, &cell->first};
    return PLS_OK;
}

static uint64_t order_of(const pls_gossip *gossip, uint32_t log)
{
    return log == PLS_LOG_WATCHES ? 0 : pls_gossip_key_of(gossip, gossip->registry.logs[log].owner);
}

/* A record in a chain that there is already, before the first of a higher key. */
static pls_record *add_peer(pls_gossip *gossip, pls_cell *cell, pls_place place,
                            const pls_record *record)
{
    pls_table *table = &gossip->registry.table;
    pls_record *made = pls_arena_at(&table->arena, place);
    uint64_t order = order_of(gossip, record->log);
    pls_record *before = &cell->first;
    if (order_of(gossip, before->log) >= order) {
        *made = cell->first;
        cell->first = *record;
        cell->first.peers = place;
        return &cell->first;
    }
    pls_record *after = pls_table_peer(table, before);
    while (after != NULL && order_of(gossip, after->log) < order) {
        before = after;
        after = pls_table_peer(table, before);
    }
    *made = *record;
    made->peers = before->peers;
    before->peers = place;
    return made;
}

pls_err pls_table_add(pls_gossip *gossip, uint32_t log, const char *name, uint32_t name_bytes,
                      pls_spot *spot_out)
{
    pls_table *table = &gossip->registry.table;
    pls_record record = {
        .log = log, .hash = pls_table_hash(name, name_bytes), .name_bytes = (uint8_t)name_bytes};
    pls_cell *cell = cell_of(table, record.hash, name, name_bytes);
    if (cell == NULL) {
        return add_name(table, &gossip->heap, &record, name, spot_out);
    }
    pls_place place = 0;
    pls_err err = pls_arena_make(&table->arena, &gossip->heap, RECORD_UNITS, &place);
    if (err == PLS_OK) {
        *spot_out = (pls_spot){cell, add_peer(gossip, cell, place, &record)};
    }
    return err;
}

static void cell_free(pls_table *table, pls_cell *cell)
{
    pls_segment *segment = segment_of(table, cell->first.hash);
    uint32_t hole = (uint32_t)((size_t)((uint8_t *)cell - segment->cells) / segment->cell_bytes);
    if (cell->first.name_bytes > PLS_CELL_TEXT_BYTES_MAX) {
        pls_place place = 0;
        memcpy(&place, cell->text, sizeof place);
        pls_arena_free(&table->arena, place, pls_arena_units(cell->first.name_bytes));
    }
    for (uint32_t at = next_of(segment, hole); segment->tags[at] != 0; at = next_of(segment, at)) {
        uint32_t home = home_of(segment, cell_at(segment, at)->first.hash);
        uint32_t from_home = at >= home ? at - home : at + segment->capacity - home;
        uint32_t from_hole = at >= hole ? at - hole : at + segment->capacity - hole;
        if (from_home >= from_hole) {
            memcpy(cell_at(segment, hole), cell_at(segment, at), segment->cell_bytes);
            tag_set(segment, hole, segment->tags[at]);
            hole = at;
        }
    }
    tag_set(segment, hole, 0);
    segment->count--;
    table->names_count--;
}

void pls_table_remove(pls_table *table, pls_spot spot)
{
    pls_record *first = &spot.cell->first;
    pls_place place = first->peers;
    if (spot.record == first && place == 0) {
        cell_free(table, spot.cell);
        return;
    }
    if (spot.record == first) {
        *first = *(pls_record *)pls_arena_at(&table->arena, place);
    } else {
        pls_record *before = first;
        while (pls_table_peer(table, before) != spot.record) {
            before = pls_table_peer(table, before);
        }
        place = before->peers;
        before->peers = spot.record->peers;
    }
    pls_arena_free(&table->arena, place, RECORD_UNITS);
}

void pls_table_fini(pls_table *table, pls_heap *heap)
{
    for (uint32_t i = 0; i < table->segments_count; i++) {
        segment_fini(&table->segments[i], heap);
    }
    pls_heap_resize(heap, table->segments, table->segments_capacity * sizeof(pls_segment), 0);
    if (table->directory != NULL) {
        pls_heap_resize(heap, table->directory, sizeof(uint32_t) << table->depth, 0);
    }
    pls_arena_fini(&table->arena, heap);
    *table = (pls_table){0};
}

static uint32_t check_cell(const pls_gossip *gossip, const pls_cell *cell)
{
    const pls_table *table = &gossip->registry.table;
    uint32_t count = 0;
    uint64_t order = 0;
    for (const pls_record *r = &cell->first; r != NULL; r = pls_table_peer(table, r)) {
        pls_assert(r->hash == cell->first.hash);
        pls_assert(r->name_bytes == cell->first.name_bytes);
        pls_assert(count == 0 || order_of(gossip, r->log) > order);
        order = order_of(gossip, r->log);
        count++;
    }
    return count;
}

void pls_table_check(const pls_gossip *gossip, uint32_t records_count)
{
    const pls_table *table = &gossip->registry.table;
    uint32_t names = 0;
    uint32_t records = 0;
    for (uint32_t i = 0; i < table->segments_count; i++) {
        const pls_segment *segment = &table->segments[i];
        uint32_t count = 0;
        for (uint32_t at = 0; at < segment->capacity; at++) {
            pls_assert(at >= TAGS_AT_ONCE ||
                       segment->tags[at] == segment->tags[segment->capacity + at]);
            if (segment->tags[at] != 0) {
                const pls_cell *cell = cell_at(segment, at);
                pls_assert(segment_of(table, cell->first.hash) == segment);
                pls_assert(segment->cell_bytes == cell_bytes_of(class_of(cell->first.name_bytes)));
                records += check_cell(gossip, cell);
                count++;
            }
        }
        pls_assert(count == segment->count);
        pls_assert(count < segment->capacity || segment->capacity == 0);
        names += count;
    }
    pls_assert(names == table->names_count);
    pls_assert(records == records_count);
}
