/* SPDX-License-Identifier: Apache-2.0 */
/* The tables of an obs memory that are not a line per message: strings, actors, methods, waits, the
 * rare ring and the distinct errors. Which entry is free is private; an entry's first word says to
 * readers whether it is in use, and is stored after the others when it becomes so. */
#include "base/assert.h"
#include "shm/obs.h"
#include "shm/obs_books.h"
#include "shm/obs_hot.h"

#include <stdlib.h>
#include <string.h>

#define STRING_BUCKETS_MIN 1024
/* Before each text: its length. The first text begins after a word that makes 0 mean none. */
#define STRING_HEAD_BYTES 2
#define STRINGS_BEGIN 4

_Static_assert(PLS_NAME_BYTES_MAX <= UINT16_MAX, "a text's length fits its head");
_Static_assert(PLS_OBS_METHODS_MAX * 2 <= PLS_OBS_METHOD_BUCKETS, "a free bucket ends a search");

static bool freelist_init(pls_obs_freelist *list, uint32_t max)
{
    list->next = calloc(max, sizeof *list->next);
    list->first = PLS_OBS_NONE;
    list->max = max;
    return list->next != NULL;
}

/* A free entry, whose page exists; PLS_OBS_NONE if there is none. */
static uint32_t freelist_take(pls_obs *obs, pls_obs_freelist *list, enum pls_obs_section id,
                              size_t stride)
{
    uint32_t index = list->first;
    if (index != PLS_OBS_NONE) {
        list->first = list->next[index];
        return index;
    }
    if (list->used == list->max ||
        !pls_obs_extend(obs->books, id, (list->used + UINT64_C(1)) * stride)) {
        pls_obs_overflow(obs);
        return PLS_OBS_NONE;
    }
    index = list->used++;
    pls_obs_word_set(&pls_obs_entry_at(obs->books, id)->used, list->used);
    return index;
}

static void freelist_give(pls_obs_freelist *list, uint32_t index)
{
    list->next[index] = list->first;
    list->first = index;
}

bool pls_obs_tables_init(pls_obs_books *books)
{
    books->string_buckets_count = STRING_BUCKETS_MIN;
    books->string_buckets = calloc(STRING_BUCKETS_MIN, sizeof *books->string_buckets);
    books->strings_bytes = STRINGS_BEGIN;
    return freelist_init(&books->actors, PLS_OBS_ACTORS_MAX) &&
           freelist_init(&books->waits, PLS_OBS_WAITS_MAX) && books->string_buckets != NULL;
}

void pls_obs_tables_fini(pls_obs_books *books)
{
    free(books->actors.next);
    free(books->waits.next);
    free(books->string_buckets);
}

/* FNV-1a. */
static uint64_t hash_of(const void *bytes, size_t len)
{
    const uint8_t *at = bytes;
    uint64_t hash = UINT64_C(0xcbf29ce484222325);
    for (size_t i = 0; i < len; i++) {
        hash = (hash ^ at[i]) * UINT64_C(0x100000001b3);
    }
    return hash;
}

static const uint8_t *string_at(const pls_obs_books *books, uint32_t offset, uint16_t *len_out)
{
    const uint8_t *at = pls_obs_section_at(books, PLS_OBS_SECTION_STRINGS) + offset;
    memcpy(len_out, at, sizeof *len_out);
    return at + STRING_HEAD_BYTES;
}

/* The bucket that holds the text, or the free one where it would go. */
static uint32_t *string_bucket(const pls_obs_books *books, const void *text, size_t len)
{
    uint32_t mask = books->string_buckets_count - 1;
    uint32_t at = (uint32_t)hash_of(text, len) & mask;
    for (;;) {
        uint32_t *bucket = &books->string_buckets[at];
        uint16_t other_len = 0;
        if (*bucket == 0) {
            return bucket;
        }
        const uint8_t *other = string_at(books, *bucket, &other_len);
        if (other_len == len && memcmp(other, text, len) == 0) {
            return bucket;
        }
        at = (at + 1) & mask;
    }
}

/* Keep at least half of the buckets free; without memory for that, accept no more texts. */
static bool string_buckets_grow(pls_obs_books *books)
{
    if (books->strings_count * 2 < books->string_buckets_count) {
        return true;
    }
    pls_obs_books bigger = *books;
    bigger.string_buckets_count *= 2;
    bigger.string_buckets = calloc(bigger.string_buckets_count, sizeof *bigger.string_buckets);
    if (bigger.string_buckets == NULL) {
        return false;
    }
    for (uint32_t i = 0; i < books->string_buckets_count; i++) {
        if (books->string_buckets[i] != 0) {
            uint16_t len = 0;
            const uint8_t *text = string_at(books, books->string_buckets[i], &len);
            *string_bucket(&bigger, text, len) = books->string_buckets[i];
        }
    }
    free(books->string_buckets);
    books->string_buckets = bigger.string_buckets;
    books->string_buckets_count = bigger.string_buckets_count;
    return true;
}

uint32_t pls_obs_string(pls_obs *obs, const char *text, size_t len)
{
    pls_obs_books *books = obs->books;
    len = len < PLS_NAME_BYTES_MAX ? len : PLS_NAME_BYTES_MAX;
    if (len == 0 || obs->level == PLS_OBS_OFF) {
        return 0;
    }
    if (!string_buckets_grow(books)) {
        pls_obs_overflow(obs);
        return 0;
    }
    uint32_t *bucket = string_bucket(books, text, len);
    if (*bucket != 0) {
        return *bucket;
    }
    uint32_t offset = books->strings_bytes;
    uint64_t end = offset + STRING_HEAD_BYTES + len;
    if (end > PLS_OBS_STRINGS_BYTES || !pls_obs_extend(books, PLS_OBS_SECTION_STRINGS, end)) {
        pls_obs_overflow(obs);
        return 0;
    }
    uint8_t *at = pls_obs_section_at(books, PLS_OBS_SECTION_STRINGS) + offset;
    uint16_t head = (uint16_t)len;
    memcpy(at, &head, sizeof head);
    memcpy(at + STRING_HEAD_BYTES, text, len);
    books->strings_bytes = (uint32_t)end;
    books->strings_count++;
    *bucket = offset;
    /* Release: whoever sees the length sees the text. */
    atomic_store_explicit(&pls_obs_entry_at(books, PLS_OBS_SECTION_STRINGS)->used, end,
                          memory_order_release);
    return offset;
}

uint32_t pls_obs_actor_open(pls_obs *obs, uint64_t id, uint32_t class_name, uint32_t name)
{
    pls_assert(id != 0);
    if (obs->level == PLS_OBS_OFF) {
        return PLS_OBS_NONE;
    }
    uint32_t index =
        freelist_take(obs, &obs->books->actors, PLS_OBS_SECTION_ACTORS, sizeof(pls_obs_actor));
    if (index == PLS_OBS_NONE) {
        return PLS_OBS_NONE;
    }
    pls_obs_actor *actor = &obs->actors[index];
    atomic_store_explicit(&actor->class_name, class_name, memory_order_relaxed);
    atomic_store_explicit(&actor->name, name, memory_order_relaxed);
    atomic_store_explicit(&actor->state, 0, memory_order_relaxed);
    atomic_store_explicit(&actor->generation, 0, memory_order_relaxed);
    atomic_store_explicit(&actor->mailbox_capacity, 0, memory_order_relaxed);
    atomic_store_explicit(&actor->policy, 0, memory_order_relaxed);
    atomic_store_explicit(&actor->restarts, 0, memory_order_relaxed);
    atomic_store_explicit(&actor->owner_slot, obs->process->slot, memory_order_relaxed);
    pls_obs_word_set(&actor->enqueued, 0);
    pls_obs_word_set(&actor->taken, 0);
    pls_obs_word_set(&actor->errors, 0);
    pls_obs_word_set(&actor->dropped, 0);
    pls_obs_word_set(&actor->busy_ns, 0);
    pls_obs_word_set(&actor->oldest_tick, 0);
    pls_obs_word_set(&actor->current_call, 0);
    pls_obs_word_set(&actor->waiting_on, 0);
    /* Release: an id is seen only with a cleared record. */
    atomic_store_explicit(&actor->id, id, memory_order_release);
    return index;
}

void pls_obs_actor_close(pls_obs *obs, uint32_t index)
{
    if (index == PLS_OBS_NONE) {
        return;
    }
    pls_assert(index < obs->books->actors.used);
    pls_assert(atomic_load_explicit(&obs->actors[index].id, memory_order_relaxed) != 0);
    pls_obs_word_set(&obs->actors[index].id, 0);
    freelist_give(&obs->books->actors, index);
}

uint32_t pls_obs_method_open(pls_obs *obs, uint32_t class_name, uint32_t method_name)
{
    pls_obs_books *books = obs->books;
    if (obs->level == PLS_OBS_OFF || method_name == 0) {
        return PLS_OBS_NONE;
    }
    uint32_t key[2] = {class_name, method_name};
    uint32_t at = (uint32_t)hash_of(key, sizeof key) & (PLS_OBS_METHOD_BUCKETS - 1);
    for (; books->method_buckets[at] != 0; at = (at + 1) & (PLS_OBS_METHOD_BUCKETS - 1)) {
        uint32_t index = books->method_buckets[at] - 1u;
        if (obs->methods[index].class_name == class_name &&
            obs->methods[index].method_name == method_name) {
            return index;
        }
    }
    uint32_t index = books->methods_used;
    if (index == PLS_OBS_METHODS_MAX ||
        !pls_obs_extend(books, PLS_OBS_SECTION_METHODS,
                        (index + UINT64_C(1)) * sizeof(pls_obs_method))) {
        pls_obs_overflow(obs);
        return PLS_OBS_NONE;
    }
    books->methods_used++;
    books->method_buckets[at] = (uint16_t)(index + 1);
    atomic_store_explicit(&obs->methods[index].class_name, class_name, memory_order_relaxed);
    /* Release: the name says that the entry is in use. */
    atomic_store_explicit(&obs->methods[index].method_name, method_name, memory_order_release);
    pls_obs_word_set(&pls_obs_entry_at(books, PLS_OBS_SECTION_METHODS)->used, books->methods_used);
    return index;
}

uint64_t pls_obs_wait_open(pls_obs *obs, const pls_obs_wait_start *start)
{
    uint32_t index =
        freelist_take(obs, &obs->books->waits, PLS_OBS_SECTION_WAITS, sizeof(pls_obs_wait));
    if (index == PLS_OBS_NONE) {
        return 0;
    }
    pls_obs_wait *wait = &obs->waits[index];
    uint32_t generation = atomic_load_explicit(&wait->generation, memory_order_relaxed) + 1;
    pls_assert(generation % 2 == 1);
    atomic_store_explicit(&wait->kind, start->kind, memory_order_relaxed);
    atomic_store_explicit(&wait->method, start->method, memory_order_relaxed);
    atomic_store_explicit(&wait->target_slot, start->target_slot, memory_order_relaxed);
    atomic_store_explicit(&wait->state, 0, memory_order_relaxed);
    pls_obs_word_set(&wait->waiter, start->waiter);
    pls_obs_word_set(&wait->target_node, start->target_node);
    pls_obs_word_set(&wait->target, start->target);
    pls_obs_word_set(&wait->start_tick, start->start_tick);
    pls_obs_word_set(&wait->deadline_tick, start->deadline_tick);
    /* Release: the odd generation is seen with the fields of this use. */
    atomic_store_explicit(&wait->generation, generation, memory_order_release);
    return (uint64_t)generation << 32 | index;
}

bool pls_obs_wait_is_open(const pls_obs *obs, uint64_t handle)
{
    uint32_t index = (uint32_t)handle;
    return handle != 0 && index < obs->books->waits.used &&
           atomic_load_explicit(&obs->waits[index].generation, memory_order_relaxed) ==
               handle >> 32;
}

void pls_obs_wait_close(pls_obs *obs, uint64_t handle)
{
    if (!pls_obs_wait_is_open(obs, handle)) {
        return;
    }
    uint32_t index = (uint32_t)handle;
    /* Relaxed: a reader compares the generation before and after. */
    atomic_store_explicit(&obs->waits[index].generation, (uint32_t)(handle >> 32) + 1,
                          memory_order_relaxed);
    freelist_give(&obs->books->waits, index);
}

void pls_obs_event(pls_obs *obs, const pls_obs_event_entry *entry)
{
    pls_obs_books *books = obs->books;
    if (obs->level == PLS_OBS_OFF) {
        return;
    }
    uint64_t place = books->rare_head % PLS_OBS_RARE_MAX;
    if (!pls_obs_extend(books, PLS_OBS_SECTION_RARE, (place + 1) * sizeof(pls_obs_rare))) {
        pls_obs_overflow(obs);
        return;
    }
    pls_obs_rare *rare = (pls_obs_rare *)(void *)pls_obs_section_at(books, PLS_OBS_SECTION_RARE);
    rare += place;
    pls_obs_word_set(&rare->tick, pls_clock_tick(&obs->clock));
    atomic_store_explicit(&rare->kind, entry->kind, memory_order_relaxed);
    atomic_store_explicit(&rare->text, entry->text, memory_order_relaxed);
    pls_obs_word_set(&rare->actor, entry->actor);
    pls_obs_word_set(&rare->a, entry->a);
    pls_obs_word_set(&rare->b, entry->b);
    pls_obs_word_set(&rare->c, entry->c);
    books->rare_head++;
    /* Release: a reader that sees the head sees the record. */
    atomic_store_explicit(&pls_obs_entry_at(books, PLS_OBS_SECTION_RARE)->used, books->rare_head,
                          memory_order_release);
}

void pls_obs_error_add(pls_obs *obs, const char *text, size_t len)
{
    pls_obs_books *books = obs->books;
    if (obs->level == PLS_OBS_OFF) {
        return;
    }
    len = len < PLS_OBS_ERROR_TEXT_BYTES ? len : PLS_OBS_ERROR_TEXT_BYTES;
    uint64_t hash = hash_of(text, len) | 1;
    uint64_t tick = pls_clock_tick(&obs->clock);
    pls_obs_error *errors =
        (pls_obs_error *)(void *)pls_obs_section_at(books, PLS_OBS_SECTION_ERRORS);
    for (uint32_t i = 0; i < books->errors_used; i++) {
        if (books->error_hashes[i] == hash) {
            pls_obs_word_add(&errors[i].count, 1);
            pls_obs_word_set(&errors[i].last_tick, tick);
            return;
        }
    }
    uint32_t index = books->errors_used;
    if (index == PLS_OBS_ERRORS_MAX ||
        !pls_obs_extend(books, PLS_OBS_SECTION_ERRORS, (index + UINT64_C(1)) * sizeof *errors)) {
        pls_obs_overflow(obs);
        return;
    }
    books->error_hashes[index] = hash;
    books->errors_used++;
    memcpy(errors[index].text, text, len);
    pls_obs_word_set(&errors[index].hash, hash);
    pls_obs_word_set(&errors[index].count, 1);
    pls_obs_word_set(&errors[index].first_tick, tick);
    pls_obs_word_set(&errors[index].last_tick, tick);
    /* Release: the length is seen with the text. */
    atomic_store_explicit(&errors[index].text_bytes, len, memory_order_release);
    pls_obs_word_set(&pls_obs_entry_at(books, PLS_OBS_SECTION_ERRORS)->used, books->errors_used);
}

static bool freelist_check(const pls_obs_freelist *list, uint32_t *free_count_out)
{
    uint32_t count = 0;
    for (uint32_t i = list->first; i != PLS_OBS_NONE; i = list->next[i]) {
        if (i >= list->used || ++count > list->used) {
            return false;
        }
    }
    *free_count_out = count;
    return list->used <= list->max;
}

bool pls_obs_tables_check(const pls_obs *obs)
{
    const pls_obs_books *books = obs->books;
    uint32_t actors_free = 0;
    uint32_t waits_free = 0;
    if (!freelist_check(&books->actors, &actors_free) ||
        !freelist_check(&books->waits, &waits_free)) {
        return false;
    }
    for (uint32_t i = 0; i < books->actors.used; i++) {
        actors_free -= obs->actors[i].id == 0;
    }
    for (uint32_t i = 0; i < books->waits.used; i++) {
        waits_free -= obs->waits[i].generation % 2 == 0;
    }
    return actors_free == 0 && waits_free == 0 && books->errors_used <= PLS_OBS_ERRORS_MAX &&
           books->methods_used <= PLS_OBS_METHODS_MAX &&
           books->strings_bytes <= PLS_OBS_STRINGS_BYTES;
}
