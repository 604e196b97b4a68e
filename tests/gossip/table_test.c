/* SPDX-License-Identifier: Apache-2.0 */
/* The table of names against a plain list of what must be in it: through growth, splits and
 * removals, with names of every length and several owners of one name. */
#include "gossip/table.h"

#include "base/limits.h"
#include "gossip/state.h"
#include "tests/check_run.h"
#include "tests/gossip/meter.h"
#include "tests/gossip/rig.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { OWNERS = 3, NAMES_MAX = 20000, STEPS = 60000, NAMES = 6000 };

/* Every name has a length of its own, and a number that tells it from the others. */
static uint32_t name_write(uint32_t number, char name[PLS_NAME_BYTES_MAX + 1])
{
    uint32_t digits = (uint32_t)snprintf(name, PLS_NAME_BYTES_MAX + 1, "%u", number);
    uint32_t bytes = digits + number * 7 % (PLS_NAME_BYTES_MAX - digits + 1);
    bytes = number % 5 == 0 ? bytes : digits + number % 30;
    memset(name + digits, '-', bytes - digits);
    return bytes;
}

typedef struct fixture {
    meter memory;
    rig *r;
    pls_gossip *gossip;
    uint32_t logs[OWNERS];
    uint32_t name_count;
    uint64_t
        held[NAMES_MAX]; /* by name: the value of each owner's record, 0 without one; 16 bits */
    uint32_t record_count;
} fixture;

static fixture *fixture_open(uint32_t name_count)
{
    fixture *f = calloc(1, sizeof *f);
    ck_assert_ptr_nonnull(f);
    f->name_count = name_count;
    f->memory.fail_from = UINT64_MAX;
    pls_allocator allocator = {meter_resize, &f->memory};
    f->r = rig_create();
    f->r->config.allocator = &allocator;
    rig_warm(f->r, OWNERS);
    f->r->config.allocator = NULL;
    f->gossip = f->r->nodes[0];
    for (uint32_t i = 0; i < OWNERS; i++) {
        ck_assert_int_eq(pls_registry_log_make(f->gossip, f->r->members[i], &f->logs[i]), PLS_OK);
    }
    return f;
}

static void fixture_close(fixture *f)
{
    rig_destroy(f->r);
    ck_assert_uint_eq(f->memory.held_bytes, 0);
    free(f);
}

static uint64_t held(const fixture *f, uint32_t name, uint32_t owner)
{
    return f->held[name] >> (16 * owner) & 0xffff;
}

static pls_err try_add(fixture *f, uint32_t name, uint32_t owner, uint64_t value)
{
    char text[PLS_NAME_BYTES_MAX + 1];
    uint32_t bytes = name_write(name, text);
    pls_spot spot;
    pls_err err = pls_table_add(f->gossip, f->logs[owner], text, bytes, &spot);
    if (err != PLS_OK) {
        return err;
    }
    spot.record->value = value;
    spot.record->version = value;
    f->held[name] |= value << (16 * owner);
    f->record_count++;
    return PLS_OK;
}

static void add(fixture *f, uint32_t name, uint32_t owner, uint64_t value)
{
    ck_assert_int_eq(try_add(f, name, owner, value), PLS_OK);
}

static void take_out(fixture *f, uint32_t name, uint32_t owner)
{
    char text[PLS_NAME_BYTES_MAX + 1];
    uint32_t bytes = name_write(name, text);
    pls_table *table = &f->gossip->registry.table;
    pls_table_remove(table, pls_table_lookup(table, f->logs[owner], text, bytes));
    f->held[name] &= ~(UINT64_C(0xffff) << (16 * owner));
    f->record_count--;
}

static void compare_name(const fixture *f, uint32_t name)
{
    const pls_table *table = &f->gossip->registry.table;
    char text[PLS_NAME_BYTES_MAX + 1];
    uint32_t bytes = name_write(name, text);
    uint32_t hash = pls_table_hash(text, bytes);
    ck_assert((pls_table_cell(table, text, bytes) != NULL) == (f->held[name] != 0));
    for (uint32_t owner = 0; owner < OWNERS; owner++) {
        uint64_t value = held(f, name, owner);
        pls_spot spot = pls_table_lookup(table, f->logs[owner], text, bytes);
        ck_assert((spot.record != NULL) == (value != 0));
        if (value != 0) {
            ck_assert_uint_eq(spot.record->value, value);
            ck_assert_ptr_eq(pls_table_at(table, f->logs[owner], hash, value).record, spot.record);
            ck_assert(memcmp(pls_table_name(table, spot.cell), text, bytes) == 0);
        }
    }
}

/* Every record that must be there is, under its name and under its hash; no other is. */
static void compare(const fixture *f)
{
    for (uint32_t name = 0; name < f->name_count; name++) {
        compare_name(f, name);
    }
    pls_table_check(f->gossip, f->record_count);
}

/* The logs know nothing of these records, so the table must be empty when they are checked. */
static void empty(fixture *f)
{
    for (uint32_t name = 0; name < f->name_count; name++) {
        for (uint32_t owner = 0; owner < OWNERS; owner++) {
            if (held(f, name, owner) != 0) {
                take_out(f, name, owner);
            }
        }
    }
    pls_table_check(f->gossip, 0);
    ck_assert_uint_eq(f->gossip->registry.table.names_count, 0);
}

START_TEST(test_table_holds_what_was_added_and_not_removed)
{
    fixture *f = fixture_open(NAMES_MAX);
    pls_rng rng;
    pls_rng_init(&rng, 11);
    for (uint32_t i = 1; i <= STEPS; i++) {
        uint32_t name = pls_rng_below(&rng, NAMES_MAX);
        uint32_t owner = pls_rng_below(&rng, OWNERS);
        if (held(f, name, owner) == 0) {
            add(f, name, owner, i % 0xffff + 1);
        } else if (pls_rng_below(&rng, 2) == 0) {
            take_out(f, name, owner);
        }
        if (i % (STEPS / 4) == 0) {
            compare(f);
        }
    }
    const pls_table *table = &f->gossip->registry.table;
    /* It began with three bits, the names' lengths. */
    ck_assert_uint_gt(table->depth, 3);
    ck_assert_uint_gt(table->arena.chunks_count, 1);
    empty(f);
    compare(f);
    fixture_close(f);
}
END_TEST

/* The longest run of cells in use: a look-up reads no further than a run's end. */
static uint32_t longest_run(const pls_segment *segment)
{
    uint32_t longest = 0;
    uint32_t run = 0;
    for (uint32_t at = 0; at < segment->capacity; at++) {
        run = segment->tags[at] != 0 ? run + 1 : 0;
        longest = run > longest ? run : longest;
    }
    return longest;
}

START_TEST(test_table_is_three_quarters_full_and_grows_by_steps)
{
    fixture *f = fixture_open(NAMES);
    pls_table *table = &f->gossip->registry.table;
    uint64_t moved_max = 0;
    for (uint32_t name = 0; name < NAMES; name++) {
        uint64_t before = f->gossip->heap.bytes;
        add(f, name, 0, 1);
        uint64_t after = f->gossip->heap.bytes;
        moved_max = after - before > moved_max ? after - before : moved_max;
    }
    uint64_t cells = 0;
    for (uint32_t i = 0; i < table->segments_count; i++) {
        cells += table->segments[i].capacity;
        ck_assert_uint_le(longest_run(&table->segments[i]), 400);
    }
    ck_assert_uint_ge(NAMES * UINT64_C(4), cells * 3);
    /* One step adds an eighth of a segment, or the spare cells of a split, or a chunk. */
    ck_assert_uint_le(moved_max, 128 * 1024);
    empty(f);
    fixture_close(f);
}
END_TEST

/* Names of one length, of which a number at the end tells each from the others. */
static void names_add(fixture *f, uint32_t count, uint32_t bytes)
{
    char text[PLS_NAME_BYTES_MAX + 1];
    pls_spot spot;
    memset(text, '-', sizeof text);
    for (uint32_t i = 0; i < count; i++) {
        char digits[16];
        (void)snprintf(digits, sizeof digits, "%06u", i);
        memcpy(text + bytes - 6, digits, 6);
        ck_assert_int_eq(pls_table_add(f->gossip, f->logs[0], text, bytes, &spot), PLS_OK);
        ck_assert_mem_eq(pls_table_name(&f->gossip->registry.table, spot.cell), text, bytes);
    }
}

START_TEST(test_name_stands_in_its_cell_unless_it_is_among_the_longest)
{
    fixture *f = fixture_open(0);
    pls_table *table = &f->gossip->registry.table;
    char text[PLS_NAME_BYTES_MAX + 1];
    pls_spot spot;
    memset(text, 'x', sizeof text);
    for (uint32_t bytes = 1; bytes <= PLS_NAME_BYTES_MAX; bytes++) {
        ck_assert_int_eq(pls_table_add(f->gossip, f->logs[0], text, bytes, &spot), PLS_OK);
        const char *name = pls_table_name(table, spot.cell);
        ck_assert((name == spot.cell->text) == (bytes <= PLS_CELL_TEXT_BYTES_MAX));
        ck_assert((table->arena.chunks_count == 0) == (bytes <= PLS_CELL_TEXT_BYTES_MAX));
        /* Aligned to a word, since a record is in each. */
        ck_assert_uint_eq((uintptr_t)spot.cell % sizeof(uint64_t), 0);
    }
    pls_table_check(f->gossip, PLS_NAME_BYTES_MAX);
    for (uint32_t bytes = 1; bytes <= PLS_NAME_BYTES_MAX; bytes++) {
        spot = pls_table_lookup(table, f->logs[0], text, bytes);
        ck_assert_ptr_nonnull(spot.cell);
        ck_assert_mem_eq(pls_table_name(table, spot.cell), text, bytes);
        pls_table_remove(table, spot);
    }
    fixture_close(f);
}
END_TEST

START_TEST(test_text_of_a_removed_name_is_used_again)
{
    fixture *f = fixture_open(0);
    pls_table *table = &f->gossip->registry.table;
    const uint32_t bytes = PLS_CELL_TEXT_BYTES_MAX + 1;
    char text[PLS_NAME_BYTES_MAX + 1];
    uint64_t first = 0;
    memset(text, 'x', sizeof text);
    /* More texts than a chunk of the arena holds. */
    for (uint32_t i = 0; i < PLS_ARENA_CHUNK_UNITS; i++) {
        pls_spot spot;
        ck_assert_int_eq(pls_table_add(f->gossip, f->logs[0], text, bytes, &spot), PLS_OK);
        first = i == 0 ? f->gossip->heap.bytes : first;
        ck_assert_uint_eq(f->gossip->heap.bytes, first);
        pls_table_remove(table, spot);
    }
    fixture_close(f);
}
END_TEST

static const uint32_t lengths[] = {6, 14, 24, 25, 32, 33, 64, 65, 72, 73, 81, 255};

enum { LENGTHS = sizeof lengths / sizeof lengths[0] };

/* A log adds a slot of eight bytes and half of that to spare: 100 bytes a name in all. */
START_TEST(test_name_of_any_length_takes_at_most_88_bytes_beyond_its_own)
{
    fixture *f = fixture_open(0);
    uint64_t before = f->gossip->heap.bytes;
    names_add(f, NAMES_MAX, lengths[_i]);
    uint64_t each = (f->gossip->heap.bytes - before) / NAMES_MAX;
    ck_assert_uint_le(each, lengths[_i] + 88);
    const pls_table *table = &f->gossip->registry.table;
    for (uint32_t i = 0; i < table->segments_count; i++) {
        ck_assert_uint_le(longest_run(&table->segments[i]), 1000);
    }
    /* The logs know nothing of these records. */
    pls_table_fini(&f->gossip->registry.table, &f->gossip->heap);
    fixture_close(f);
}
END_TEST

START_TEST(test_records_of_one_name_stand_in_the_order_of_keys)
{
    fixture *f = fixture_open(6);
    const pls_table *table = &f->gossip->registry.table;
    char text[PLS_NAME_BYTES_MAX + 1];
    /* Every order of adding, every record removed first once. */
    static const uint8_t orders[6][OWNERS] = {
        {0, 1, 2}, {0, 2, 1}, {1, 0, 2}, {1, 2, 0}, {2, 0, 1}, {2, 1, 0},
    };
    for (uint32_t i = 0; i < 6; i++) {
        for (uint32_t k = 0; k < OWNERS; k++) {
            add(f, i, orders[i][k], k + 1);
            pls_table_check(f->gossip, f->record_count);
        }
        uint32_t bytes = name_write(i, text);
        const pls_record *record = &pls_table_cell(table, text, bytes)->first;
        uint64_t last = 0;
        for (uint32_t k = 0; k < OWNERS; k++) {
            uint64_t key =
                pls_gossip_key_of(f->gossip, f->gossip->registry.logs[record->log].owner);
            ck_assert_uint_gt(key, last);
            last = key;
            record = pls_table_peer(table, record);
        }
        ck_assert_ptr_null(record);
    }
    for (uint32_t i = 0; i < 6; i++) {
        take_out(f, i, orders[i][0]);
        compare(f);
    }
    empty(f);
    fixture_close(f);
}
END_TEST

START_TEST(test_name_that_finds_no_memory_leaves_the_table_as_it_was)
{
    fixture *f = fixture_open(2 * NAMES);
    for (uint32_t name = 0; name < f->name_count; name++) {
        /* Every allocation of each step fails, each twice: what an attempt got stays for the next.
         */
        pls_err err = PLS_ENOMEM;
        for (uint32_t attempt = 0; err != PLS_OK; attempt++) {
            f->memory.fail_from = f->memory.calls + attempt / 2;
            f->memory.fail_count = 1;
            err = try_add(f, name, 0, 1);
            ck_assert(err == PLS_OK || err == PLS_ENOMEM);
            ck_assert_uint_eq(f->gossip->registry.table.names_count, name + (err == PLS_OK));
        }
    }
    f->memory.fail_from = UINT64_MAX;
    ck_assert_uint_gt(f->gossip->registry.table.segments_count, 8);
    ck_assert_uint_gt(f->memory.failed, 30);
    compare(f);
    empty(f);
    fixture_close(f);
}
END_TEST

START_TEST(test_arena_ends_where_its_places_do)
{
    pls_heap heap = pls_heap_over(NULL);
    pls_arena arena = {.chunks_count = PLS_ARENA_CHUNKS_MAX, .chunk_used = PLS_ARENA_CHUNK_UNITS};
    pls_place place = 0;
    ck_assert_int_eq(pls_arena_make(&arena, &heap, 1, &place), PLS_ENOMEM);
    ck_assert_uint_eq(place, 0);
    ck_assert_uint_eq(heap.bytes, 0);
}
END_TEST

START_TEST(test_death_of_an_owner_touches_none_of_its_names)
{
    fixture *f = fixture_open(0);
    pls_name_hit hit;
    ck_assert_int_eq(rig_put(f->r, 1, "a", 1, false), PLS_OK);
    rig_run(f->r, 2 * RIG_SECOND);
    ck_assert_uint_eq(rig_find(f->r, 0, "a", &hit), 1);
    pls_registry *registry = &f->gossip->registry;
    /* Neither the names nor the list of them are there while the owner dies. */
    pls_table table = registry->table;
    pls_log_slot *slots = registry->logs[f->logs[1]].slots;
    registry->table = (pls_table){0};
    registry->logs[f->logs[1]].slots = NULL;
    ck_assert_int_eq(pls_gossip_evict(f->gossip, f->r->members[1], f->r->now_ns), PLS_OK);
    registry->table = table;
    registry->logs[f->logs[1]].slots = slots;
    rig_drain(f->r, 0);
    ck_assert_uint_eq(rig_find(f->r, 0, "a", &hit), 0);
    fixture_close(f);
}
END_TEST

/* Two names of one hash, by their numbers: among so many there are some. */
typedef struct hashed {
    uint32_t hash;
    uint32_t number;
} hashed;

enum { HASHED = 200000 };

static int by_hash(const void *a, const void *b)
{
    uint32_t left = ((const hashed *)a)->hash;
    uint32_t right = ((const hashed *)b)->hash;
    return (left > right) - (left < right);
}

/* Names that differ in few bytes: short ones, longer ones in their first or last word, and long
 * ones in the middle. */
enum { TWIN_SHAPES = 4, TWIN_BYTES_MAX = 64 };

static uint32_t twin_write(int shape, uint32_t number, char text[TWIN_BYTES_MAX])
{
    static const char *const before[] = {"", "", "sixteen-of-them-", "a-long-name-that-ends-in-"};
    static const char *const after[] = {"", "-is-the-front", "", "-much-alike-each-time"};
    return (uint32_t)snprintf(text, TWIN_BYTES_MAX, "%s%06u%s", before[shape], number,
                              after[shape]);
}

static bool twins_find(int shape, uint32_t twins[2])
{
    char text[TWIN_BYTES_MAX];
    bool found = false;
    hashed *all = calloc(HASHED, sizeof *all);
    ck_assert_ptr_nonnull(all);
    for (uint32_t i = 0; i < HASHED; i++) {
        uint32_t bytes = twin_write(shape, i, text);
        all[i] = (hashed){pls_table_hash(text, bytes), i};
    }
    qsort(all, HASHED, sizeof *all, by_hash);
    for (uint32_t i = 1; i < HASHED && !found; i++) {
        found = all[i].hash == all[i - 1].hash;
        twins[0] = all[i - 1].number;
        twins[1] = all[i].number;
    }
    free(all);
    return found;
}

START_TEST(test_names_of_one_hash_are_told_apart)
{
    fixture *f = fixture_open(0);
    pls_table *table = &f->gossip->registry.table;
    uint32_t twins[2];
    uint32_t bytes[2];
    char texts[2][TWIN_BYTES_MAX];
    ck_assert(twins_find(_i, twins));
    for (uint32_t i = 0; i < 2; i++) {
        pls_spot spot;
        bytes[i] = twin_write(_i, twins[i], texts[i]);
        ck_assert_int_eq(pls_table_add(f->gossip, f->logs[0], texts[i], bytes[i], &spot), PLS_OK);
        spot.record->version = 10 + i;
    }
    for (uint32_t i = 0; i < 2; i++) {
        uint32_t hash = pls_table_hash(texts[i], bytes[i]);
        pls_spot spot = pls_table_at(table, f->logs[0], hash, 10 + i);
        ck_assert_mem_eq(pls_table_name(table, spot.cell), texts[i], bytes[i]);
        ck_assert_ptr_eq(pls_table_cell(table, texts[i], bytes[i]), spot.cell);
    }
    pls_table_check(f->gossip, 2);
    for (uint32_t i = 0; i < 2; i++) {
        pls_table_remove(table, pls_table_lookup(table, f->logs[0], texts[i], bytes[i]));
    }
    fixture_close(f);
}
END_TEST

START_TEST(test_what_was_removed_is_used_again)
{
    fixture *f = fixture_open(NAMES / 4);
    uint64_t first = 0;
    for (uint32_t round = 0; round < 5; round++) {
        for (uint32_t name = 0; name < f->name_count; name++) {
            add(f, name, round % OWNERS, 1);
            add(f, name, (round + 1) % OWNERS, 1);
        }
        first = round == 0 ? f->gossip->heap.bytes : first;
        ck_assert_uint_eq(f->gossip->heap.bytes, first);
        empty(f);
    }
    fixture_close(f);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("gossip.table");
    TCase *tc = tcase_create("table");
    suite_add_tcase(suite, tc);
    tcase_set_timeout(tc, 60);
    tcase_add_test(tc, test_table_holds_what_was_added_and_not_removed);
    tcase_add_test(tc, test_table_is_three_quarters_full_and_grows_by_steps);
    tcase_add_test(tc, test_name_stands_in_its_cell_unless_it_is_among_the_longest);
    tcase_add_test(tc, test_text_of_a_removed_name_is_used_again);
    tcase_add_loop_test(tc, test_name_of_any_length_takes_at_most_88_bytes_beyond_its_own, 0,
                        LENGTHS);
    tcase_add_test(tc, test_records_of_one_name_stand_in_the_order_of_keys);
    tcase_add_test(tc, test_name_that_finds_no_memory_leaves_the_table_as_it_was);
    tcase_add_test(tc, test_arena_ends_where_its_places_do);
    tcase_add_test(tc, test_death_of_an_owner_touches_none_of_its_names);
    tcase_add_loop_test(tc, test_names_of_one_hash_are_told_apart, 0, TWIN_SHAPES);
    tcase_add_test(tc, test_what_was_removed_is_used_again);
    return check_run(suite);
}
