/* SPDX-License-Identifier: Apache-2.0 */
/* The obs memory of a process: made, sealed, described by its directory, and extended page by page
 * as tables are used. Whatever happens to this process, the last state stays readable through the
 * descriptor that others hold; so nothing is ever in a state that a reader cannot tell. */
#include "shm/obs.h"

#include "base/assert.h"
#include "shm/fence.h"
#include "shm/layout.h"
#include "shm/obs_books.h"
#include "shm/obs_hot.h"
#include "shm/segment.h"

#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

#define COUNTER_NAME_BYTES 32
#define CLOCK_READ_NS_FULL_MAX 50

typedef struct section_shape {
    enum pls_obs_section id;
    uint32_t stride;
    uint32_t capacity;
    uint32_t step_bytes;
    uint32_t first_bytes; /* committed from the beginning */
} section_shape;

#define KIB 1024

static const section_shape shapes[] = {
    {PLS_OBS_SECTION_PROCESS, sizeof(pls_obs_process), 1, 4 * KIB, 4 * KIB},
    {PLS_OBS_SECTION_THREADS, sizeof(pls_obs_thread), PLS_OBS_THREADS_MAX, 4 * KIB, 4 * KIB},
    {PLS_OBS_SECTION_COUNTERS, 8, PLS_OBS_COUNTERS_MAX, 4 * KIB, 4 * KIB},
    {PLS_OBS_SECTION_COUNTER_NAMES, COUNTER_NAME_BYTES, PLS_OBS_COUNTERS_MAX, 4 * KIB, 4 * KIB},
    {PLS_OBS_SECTION_PEERS, sizeof(pls_obs_peer), PLS_SLOTS_MAX, 16 * KIB, 16 * KIB},
    {PLS_OBS_SECTION_ACTORS, sizeof(pls_obs_actor), PLS_OBS_ACTORS_MAX, 64 * KIB, 0},
    {PLS_OBS_SECTION_METHODS, sizeof(pls_obs_method), PLS_OBS_METHODS_MAX, 16 * KIB, 0},
    {PLS_OBS_SECTION_WAITS, sizeof(pls_obs_wait), PLS_OBS_WAITS_MAX, 64 * KIB, 4 * KIB},
    {PLS_OBS_SECTION_HOT, sizeof(pls_obs_hot_ring), PLS_OBS_HOT_THREADS_MAX, 64 * KIB, 0},
    {PLS_OBS_SECTION_RARE, sizeof(pls_obs_rare), PLS_OBS_RARE_MAX, 16 * KIB, 0},
    {PLS_OBS_SECTION_ERRORS, sizeof(pls_obs_error), PLS_OBS_ERRORS_MAX, 8 * KIB, 0},
    {PLS_OBS_SECTION_METRICS, sizeof(pls_obs_metric), PLS_OBS_METRICS_MAX, 16 * KIB, 0},
    {PLS_OBS_SECTION_STRINGS, 1, PLS_OBS_STRINGS_BYTES, 16 * KIB, 16 * KIB},
};

#define SHAPES (sizeof shapes / sizeof shapes[0])

_Static_assert(SHAPES <= PLS_OBS_SECTIONS_MAX, "every section has a directory entry");

static uint64_t page_round(uint64_t bytes)
{
    return (bytes + PLS_PAGE_BYTES - 1) & ~(uint64_t)(PLS_PAGE_BYTES - 1);
}

bool pls_obs_extend(pls_obs_books *books, enum pls_obs_section id, uint64_t end)
{
    pls_obs_extent *extent = &books->extents[id - 1];
    pls_assert(end <= extent->bytes);
    if (end <= extent->committed_bytes) {
        return true;
    }
    uint64_t to = (end + extent->step_bytes - 1) / extent->step_bytes * extent->step_bytes;
    to = to < extent->bytes ? to : extent->bytes;
    if (pls_segment_commit(books->memory.fd, extent->offset + extent->committed_bytes,
                           to - extent->committed_bytes) != PLS_OK) {
        return false;
    }
    extent->committed_bytes = to;
    return true;
}

void pls_obs_overflow(pls_obs *obs)
{
    _Atomic uint64_t *word = &obs->counters[PLS_OBS_OVERFLOWS];
    atomic_store_explicit(word, atomic_load_explicit(word, memory_order_relaxed) + 1,
                          memory_order_relaxed);
}

/* Lay the sections out one after the other, on whole pages, and write the directory. */
static pls_err directory_init(pls_obs_books *books)
{
    uint64_t offset = PLS_PAGE_BYTES;
    pls_err err = pls_segment_commit(books->memory.fd, 0, PLS_PAGE_BYTES);
    if (err != PLS_OK) {
        return err;
    }
    for (size_t i = 0; i < SHAPES; i++) {
        const section_shape *shape = &shapes[i];
        pls_assert(shape->id == i + 1);
        uint64_t bytes = page_round((uint64_t)shape->stride * shape->capacity);
        books->extents[i] = (pls_obs_extent){offset, bytes, 0, shape->step_bytes};
        pls_obs_directory_entry *entry = &books->page->directory[i];
        entry->id = shape->id;
        entry->version = 1;
        entry->offset = offset;
        entry->stride = shape->stride;
        entry->capacity = shape->capacity;
        offset += bytes;
        pls_assert(offset <= PLS_OBS_BYTES);
        if (!pls_obs_extend(books, shape->id, shape->first_bytes)) {
            return PLS_ENOMEM;
        }
    }
    books->page->major = PLS_OBS_MAJOR;
    books->page->minor = PLS_OBS_MINOR;
    books->page->page_bytes = PLS_PAGE_BYTES;
    books->page->total_bytes = PLS_OBS_BYTES;
    books->page->sections_count = SHAPES;
    return PLS_OK;
}

static void counter_names_init(pls_obs_books *books)
{
    static const char *const names[] = {
#define PLS_OBS_COUNTER_NAME(name, text) text,
        PLS_OBS_COUNTER_TABLE(PLS_OBS_COUNTER_NAME)
#undef PLS_OBS_COUNTER_NAME
    };
    uint8_t *at = pls_obs_section_at(books, PLS_OBS_SECTION_COUNTER_NAMES);
    for (unsigned i = 0; i < PLS_OBS_COUNTERS_KNOWN; i++) {
        size_t len = strlen(names[i]);
        pls_assert(len < COUNTER_NAME_BYTES);
        memcpy(at + (size_t)i * COUNTER_NAME_BYTES, names[i], len);
    }
    pls_obs_entry_at(books, PLS_OBS_SECTION_COUNTERS)->used = PLS_OBS_COUNTERS_KNOWN;
    pls_obs_entry_at(books, PLS_OBS_SECTION_COUNTER_NAMES)->used = PLS_OBS_COUNTERS_KNOWN;
}

/* The clock's words, under an odd version while they change. */
static void clock_publish(pls_obs *obs)
{
    pls_obs_process *process = obs->process;
    uint32_t version = atomic_load_explicit(&process->clock_version, memory_order_relaxed);
    atomic_store_explicit(&process->clock_version, version + 1, memory_order_relaxed);
    pls_fence_release();
    atomic_store_explicit(&process->clock_mult, obs->clock.mult, memory_order_relaxed);
    atomic_store_explicit(&process->clock_shift, obs->clock.shift, memory_order_relaxed);
    atomic_store_explicit(&process->clock_anchor_tick, obs->clock.anchor_tick,
                          memory_order_relaxed);
    atomic_store_explicit(&process->clock_anchor_monotonic_ns, obs->clock.anchor_monotonic_ns,
                          memory_order_relaxed);
    atomic_store_explicit(&process->clock_anchor_realtime_ns, obs->clock.anchor_realtime_ns,
                          memory_order_relaxed);
    /* Release: the even version is seen after the words. */
    atomic_store_explicit(&process->clock_version, version + 2, memory_order_release);
}

static void process_init(pls_obs *obs, const pls_obs_identity *identity)
{
    pls_obs_process *process = obs->process;
    process->pid = (uint32_t)getpid();
    process->slot = identity->slot;
    process->epoch = identity->epoch;
    process->role = identity->role;
    process->start_time = identity->start_time;
    process->level = obs->level;
    if (identity->version != NULL) {
        size_t len = strlen(identity->version);
        memcpy(process->version, identity->version,
               len < sizeof process->version ? len : sizeof process->version - 1);
    }
    process->clock_source = obs->clock.source;
    process->clock_stamp_shift = obs->clock.stamp_shift;
    pls_obs_entry_at(obs->books, PLS_OBS_SECTION_PROCESS)->used = 1;
    pls_obs_entry_at(obs->books, PLS_OBS_SECTION_PEERS)->used = PLS_SLOTS_MAX;
    clock_publish(obs);
}

static void sections_find(pls_obs *obs)
{
    pls_obs_books *books = obs->books;
    obs->process = (void *)pls_obs_section_at(books, PLS_OBS_SECTION_PROCESS);
    obs->threads = (void *)pls_obs_section_at(books, PLS_OBS_SECTION_THREADS);
    obs->counters = (void *)pls_obs_section_at(books, PLS_OBS_SECTION_COUNTERS);
    obs->peers = (void *)pls_obs_section_at(books, PLS_OBS_SECTION_PEERS);
    obs->actors = (void *)pls_obs_section_at(books, PLS_OBS_SECTION_ACTORS);
    obs->methods = (void *)pls_obs_section_at(books, PLS_OBS_SECTION_METHODS);
    obs->waits = (void *)pls_obs_section_at(books, PLS_OBS_SECTION_WAITS);
}

pls_err pls_obs_create(const pls_obs_identity *identity, pls_obs **obs_out)
{
    pls_assert(identity->slot < PLS_SLOTS_MAX);
    pls_assert(identity->level <= PLS_OBS_FULL);
    pls_obs *obs = calloc(1, sizeof *obs);
    if (obs == NULL) {
        return PLS_ENOMEM;
    }
    pls_err err = PLS_ENOMEM;
    obs->books = calloc(1, sizeof *obs->books);
    if (obs->books == NULL) {
        goto fail;
    }
    obs->books->memory = PLS_SEGMENT_EMPTY;
    if (!pls_obs_tables_init(obs->books)) {
        goto fail;
    }
    err = pls_segment_memfd_private_writer("pulsing-obs", &obs->books->memory, PLS_OBS_BYTES);
    if (err != PLS_OK) {
        goto fail;
    }
    obs->books->page = (void *)obs->books->memory.base;
    err = directory_init(obs->books);
    if (err != PLS_OK) {
        goto fail;
    }
    counter_names_init(obs->books);
    sections_find(obs);
    pls_clock_init(&obs->clock);
    obs->level = identity->level;
    if (obs->level == PLS_OBS_FULL && obs->clock.read_ns > CLOCK_READ_NS_FULL_MAX) {
        obs->level = PLS_OBS_COUNTERS_ONLY;
    }
    process_init(obs, identity);
    /* Last, so that a reader of a half-made memory finds none. */
    obs->books->page->magic = PLS_OBS_MAGIC;
    *obs_out = obs;
    return PLS_OK;
fail:
    pls_obs_destroy(obs);
    return err;
}

void pls_obs_destroy(pls_obs *obs)
{
    if (obs == NULL) {
        return;
    }
    if (obs->books != NULL) {
        pls_obs_tables_fini(obs->books);
        pls_segment_detach(&obs->books->memory);
        free(obs->books);
    }
    free(obs);
}

int pls_obs_fd(const pls_obs *obs)
{
    return obs->books->memory.fd;
}

void pls_obs_publish(pls_obs *obs)
{
    pls_obs_tally *tally = &obs->tally;
    pls_obs_peer *peer = &obs->peers[tally->peer];
    if (tally->sent > 0) {
        pls_obs_count(obs, PLS_OBS_SENT, tally->sent);
        pls_obs_count(obs, PLS_OBS_SENT_BYTES, tally->sent_bytes);
        pls_obs_word_add(&peer->messages, tally->sent);
        pls_obs_word_add(&peer->bytes, tally->sent_bytes);
        pls_obs_word_set(&peer->last_send_tick, tally->last_send_tick);
    }
    if (tally->received > 0) {
        pls_obs_count(obs, PLS_OBS_RECEIVED, tally->received);
        pls_obs_count(obs, PLS_OBS_RECEIVED_BYTES, tally->received_bytes);
        pls_obs_word_add(&peer->received, tally->received);
    }
    if (tally->spin_ticks > 0) {
        pls_obs_count(obs, PLS_OBS_SPINS_WON, tally->spins_won);
        pls_obs_count(obs, PLS_OBS_SPINS_LOST, tally->spins_lost);
        pls_obs_count(obs, PLS_OBS_SPIN_NS, pls_clock_span_ns(&obs->clock, tally->spin_ticks));
    }
    *tally = (pls_obs_tally){.peer = tally->peer};
}

void pls_obs_anchor(pls_obs *obs)
{
    pls_clock_anchor(&obs->clock);
    clock_publish(obs);
}

void pls_obs_state_set(pls_obs *obs, uint32_t state)
{
    atomic_store_explicit(&obs->process->state, state, memory_order_relaxed);
}

static pls_obs_hot_ring *hot_ring_at(const pls_obs *obs, uint32_t index)
{
    return (pls_obs_hot_ring *)(void *)(pls_obs_section_at(obs->books, PLS_OBS_SECTION_HOT) +
                                        (size_t)index * sizeof(pls_obs_hot_ring));
}

/* Hot rings are beside each other in one section; each gets its own pages as it fills. */
static bool hot_commit(const pls_obs *obs, const void *at, uint64_t bytes)
{
    const pls_obs_books *books = obs->books;
    uint64_t offset = (uint64_t)((const uint8_t *)at - books->memory.base);
    uint64_t begin = offset & ~(uint64_t)(PLS_PAGE_BYTES - 1);
    return pls_segment_commit(books->memory.fd, begin, page_round(offset + bytes) - begin) ==
           PLS_OK;
}

#define HOT_STEP_RECORDS 2048

_Static_assert(PLS_OBS_HOT_MAX % HOT_STEP_RECORDS == 0, "whole steps");

bool pls_obs_writer_extend(pls_obs_writer *writer)
{
    const void *at = &writer->ring->records[writer->head_limit];
    if (!hot_commit(writer->obs, at, HOT_STEP_RECORDS * sizeof(pls_obs_hot))) {
        pls_obs_overflow(writer->obs);
        writer->ring = NULL;
        return false;
    }
    writer->head_limit += HOT_STEP_RECORDS;
    if (writer->head_limit == PLS_OBS_HOT_MAX) {
        writer->head_limit = UINT64_MAX;
    }
    return true;
}

static void hot_ring_take(pls_obs_writer *writer)
{
    pls_obs *obs = writer->obs;
    pls_obs_books *books = obs->books;
    if (books->hot_used == PLS_OBS_HOT_THREADS_MAX) {
        return;
    }
    pls_obs_hot_ring *ring = hot_ring_at(obs, books->hot_used);
    if (!hot_commit(obs, ring, sizeof *ring - sizeof ring->records)) {
        return;
    }
    books->hot_used++;
    writer->ring = ring;
    writer->head_limit = 0;
    atomic_store_explicit(&ring->tid, (uint64_t)gettid(), memory_order_relaxed);
    atomic_store_explicit(&writer->thread->hot_ring, books->hot_used, memory_order_relaxed);
    atomic_store_explicit(&pls_obs_entry_at(books, PLS_OBS_SECTION_HOT)->used, books->hot_used,
                          memory_order_release);
}

/* A thread's record keeps its hot ring, with pages and all, for the next thread that gets it. */
static void hot_ring_resume(pls_obs_writer *writer)
{
    uint64_t number = atomic_load_explicit(&writer->thread->hot_ring, memory_order_relaxed);
    writer->ring = hot_ring_at(writer->obs, (uint32_t)number - 1);
    writer->head = atomic_load_explicit(&writer->ring->head, memory_order_relaxed);
    uint64_t committed =
        (writer->head + HOT_STEP_RECORDS - 1) / HOT_STEP_RECORDS * HOT_STEP_RECORDS;
    writer->head_limit = committed >= PLS_OBS_HOT_MAX ? UINT64_MAX : committed;
    atomic_store_explicit(&writer->ring->tid, (uint64_t)gettid(), memory_order_relaxed);
}

pls_err pls_obs_writer_open(pls_obs *obs, bool hot, pls_obs_writer *writer_out)
{
    *writer_out = (pls_obs_writer){.obs = obs};
    if (obs->level == PLS_OBS_OFF) {
        return PLS_OK;
    }
    for (uint32_t i = 0; i < PLS_OBS_THREADS_MAX; i++) {
        pls_obs_thread *thread = &obs->threads[i];
        if (atomic_load_explicit(&thread->tid, memory_order_relaxed) != 0) {
            continue;
        }
        atomic_store_explicit(&thread->tid, (uint32_t)gettid(), memory_order_relaxed);
        writer_out->thread = thread;
        pls_obs_directory_entry *entry = pls_obs_entry_at(obs->books, PLS_OBS_SECTION_THREADS);
        if (i + 1 > atomic_load_explicit(&entry->used, memory_order_relaxed)) {
            atomic_store_explicit(&entry->used, i + 1, memory_order_release);
        }
        if (hot && obs->level == PLS_OBS_FULL) {
            if (atomic_load_explicit(&thread->hot_ring, memory_order_relaxed) != 0) {
                hot_ring_resume(writer_out);
            } else {
                hot_ring_take(writer_out);
            }
        }
        return PLS_OK;
    }
    pls_obs_overflow(obs);
    return PLS_EFULL;
}

void pls_obs_writer_close(pls_obs_writer *writer)
{
    if (writer->thread != NULL) {
        atomic_store_explicit(&writer->thread->actor, 0, memory_order_relaxed);
        atomic_store_explicit(&writer->thread->tid, 0, memory_order_relaxed);
    }
    writer->thread = NULL;
    writer->ring = NULL;
}

bool pls_obs_check(const pls_obs *obs)
{
    const pls_obs_books *books = obs->books;
    if (!pls_segment_check(&books->memory) || books->page->magic != PLS_OBS_MAGIC ||
        !pls_clock_check(&obs->clock) || books->hot_used > PLS_OBS_HOT_THREADS_MAX) {
        return false;
    }
    for (size_t i = 0; i < SHAPES; i++) {
        const pls_obs_directory_entry *entry = &books->page->directory[i];
        const pls_obs_extent *extent = &books->extents[i];
        /* The rare ring's head runs free. */
        bool used_right = entry->used <= entry->capacity || entry->id == PLS_OBS_SECTION_RARE;
        if (entry->id != i + 1 || entry->offset != extent->offset || !used_right ||
            extent->committed_bytes > extent->bytes) {
            return false;
        }
    }
    return pls_obs_tables_check(obs);
}
