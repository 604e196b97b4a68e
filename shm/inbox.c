/* SPDX-License-Identifier: Apache-2.0 */
/* The receiving end. A ring is opened when its bell is first seen; `ready` holds the rings that may
 * have something, `current` is the one being read. The current ring's tail is watched directly, so
 * while one producer keeps this process busy its bell bit stays set and neither side touches the
 * shared bitmap: the bit is taken before another ring is read and before sleep. */
#include "shm/inbox.h"

#include "base/assert.h"
#include "base/mutant.h"
#include "shm/bell.h"
#include "shm/ring.h"
#include "shm/segment.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define VISIT_MESSAGES_MAX 32
#define VISIT_BYTES_MAX (64 * 1024)
#define SILENCE_MS 50
#define NO_SLOT PLS_SLOTS_MAX

struct pls_inbox {
    pls_segment memory;
    pls_bell_owner bell;
    uint32_t slot;
    uint32_t epoch;
    bool watches_returns;
    bool popped;
    bool waiting_unchecked; /* something was released since the last fenced look for a waiter */
    uint32_t current;       /* slot being read, or NO_SLOT */
    uint32_t visit_messages;
    uint32_t visit_bytes;
    uint32_t corrupt_slot;
    pls_bitmap ready;
    pls_bitmap owed;
    pls_bitmap shut;        /* rings that are not read: corrupt ones, and those that are held */
    pls_bitmap current_bit; /* the bit of `current` */
    uint64_t arm_count;
    uint64_t recheck_found_work;
    uint32_t epochs[PLS_SLOTS_MAX]; /* 0: that slot's ring is not open */
    pls_ring_consumer rings[PLS_SLOTS_MAX];
};

static pls_ring_control *control_at(const pls_inbox *inbox, uint32_t slot)
{
    return (pls_ring_control *)(void *)(inbox->memory.base + PLS_INBOX_RINGS_OFFSET +
                                        (uint64_t)slot * PLS_RING_SPAN_BYTES);
}

static void bit_set(pls_bitmap *map, uint32_t slot)
{
    map->word[slot / 64] |= UINT64_C(1) << (slot % 64);
}

static void bit_clear(pls_bitmap *map, uint32_t slot)
{
    map->word[slot / 64] &= ~(UINT64_C(1) << (slot % 64));
}

static bool bits_any(const pls_bitmap *map)
{
    return (map->word[0] | map->word[1] | map->word[2] | map->word[3]) != 0;
}

_Static_assert(PLS_SLOT_WORDS == 4, "bits_any() looks at four words");

/* When this process started, in clock ticks after boot: field 22 of its stat file, counted after
 * the name, which may hold anything. 0 if the file cannot be read. */
static uint64_t start_time_read(void)
{
    char text[1024];
    FILE *file = fopen("/proc/self/stat", "re");
    if (file == NULL) {
        return 0;
    }
    size_t len = fread(text, 1, sizeof text - 1, file);
    fclose(file);
    text[len] = 0;
    const char *at = strrchr(text, ')');
    for (int field = 2; at != NULL && field < 22; field++) {
        at = strchr(at + 1, ' ');
    }
    return at != NULL ? strtoull(at, NULL, 10) : 0;
}

static void header_init(pls_inbox *inbox)
{
    pls_inbox_header *header = pls_inbox_header_of(inbox);
    header->version = PLS_LAYOUT_VERSION;
    header->layout_hash = PLS_LAYOUT_HASH;
    header->slot = inbox->slot;
    header->epoch = inbox->epoch;
    header->pid = (uint32_t)getpid();
    header->start_time = start_time_read();
    header->magic = PLS_LAYOUT_MAGIC;
}

pls_err pls_inbox_create(uint32_t slot, uint32_t epoch, pls_inbox **inbox_out)
{
    pls_assert(slot < PLS_SLOTS_MAX);
    pls_assert(epoch >= 1 && epoch <= PLS_EPOCH_MAX);
    pls_inbox *inbox = calloc(1, sizeof *inbox);
    if (inbox == NULL) {
        return PLS_ENOMEM;
    }
    inbox->memory = PLS_SEGMENT_EMPTY;
    inbox->bell.eventfd = -1;
    inbox->slot = slot;
    inbox->epoch = epoch;
    inbox->current = NO_SLOT;
    inbox->corrupt_slot = NO_SLOT;
    pls_err err = pls_segment_memfd("pulsing-inbox", PLS_INBOX_BYTES, &inbox->memory.fd);
    if (err != PLS_OK) {
        goto fail;
    }
    err = pls_segment_commit(inbox->memory.fd, 0, PLS_PAGE_BYTES);
    if (err != PLS_OK) {
        goto fail;
    }
    err = pls_segment_map(&inbox->memory, inbox->memory.fd, 0, PLS_INBOX_BYTES, PLS_SEGMENT_WRITE);
    if (err != PLS_OK) {
        goto fail;
    }
    err = pls_bell_eventfd(&inbox->bell.eventfd);
    if (err != PLS_OK) {
        goto fail;
    }
    inbox->bell.header = pls_inbox_header_of(inbox);
    header_init(inbox);
    *inbox_out = inbox;
    return PLS_OK;
fail:
    pls_inbox_destroy(inbox);
    return err;
}

void pls_inbox_destroy(pls_inbox *inbox)
{
    if (inbox == NULL) {
        return;
    }
    if (inbox->bell.eventfd >= 0) {
        close(inbox->bell.eventfd);
    }
    pls_segment_detach(&inbox->memory);
    free(inbox);
}

int pls_inbox_memfd(const pls_inbox *inbox)
{
    return inbox->memory.fd;
}

int pls_inbox_eventfd(const pls_inbox *inbox)
{
    return inbox->bell.eventfd;
}

static bool current_has_more(const pls_inbox *inbox)
{
    return inbox->current != NO_SLOT && !inbox->rings[inbox->current].corrupt &&
           pls_ring_has_more(&inbox->rings[inbox->current]);
}

static bool returns_waiting(const pls_inbox *inbox)
{
    return inbox->watches_returns &&
           atomic_load_explicit(&inbox->bell.header->returns, memory_order_relaxed) != 0;
}

unsigned pls_inbox_ready(const pls_inbox *inbox)
{
    pls_inbox_header *header = inbox->bell.header;
    unsigned ready = 0;
    if (current_has_more(inbox) || bits_any(&inbox->ready) ||
        pls_bell_any(header->bell, &inbox->current_bit)) {
        ready |= PLS_READY_MESSAGES;
    }
    if (pls_bell_any(header->space, NULL)) {
        ready |= PLS_READY_SPACE;
    }
    if (pls_bell_any(header->dead, NULL)) {
        ready |= PLS_READY_DEAD;
    }
    if (returns_waiting(inbox)) {
        ready |= PLS_READY_RETURNS;
    }
    if (bits_any(&inbox->owed)) {
        ready |= PLS_READY_OWED;
    }
    return ready;
}

/* Open a slot's ring if its producer has finished making it. */
static bool ring_open(pls_inbox *inbox, uint32_t slot)
{
    if (inbox->epochs[slot] != 0) {
        return true;
    }
    pls_ring_control *control = control_at(inbox, slot);
    /* Acquire pairs with the release of READY in ring_create(). */
    uint32_t state = atomic_load_explicit(&control->state, memory_order_acquire);
    uint32_t capacity = atomic_load_explicit(&control->capacity_bytes, memory_order_relaxed);
    if ((state & 0xff) != PLS_RING_READY || state >> 8 == 0) {
        return false;
    }
    inbox->epochs[slot] = state >> 8;
    bool valid = pls_ring_capacity_valid(capacity);
    pls_ring_consumer_init(&inbox->rings[slot], control, (uint8_t *)control + PLS_PAGE_BYTES,
                           valid ? capacity : PLS_RING_CAPACITY_MIN);
    inbox->rings[slot].corrupt = !valid;
    return true;
}

static void current_set(pls_inbox *inbox, uint32_t slot)
{
    inbox->current = slot;
    inbox->visit_messages = 0;
    inbox->visit_bytes = 0;
    memset(&inbox->current_bit, 0, sizeof inbox->current_bit);
    if (slot != NO_SLOT) {
        bit_set(&inbox->current_bit, slot);
        bit_clear(&inbox->ready, slot);
    }
}

/* The current ring was seen empty: whoever waits for room there must be told now. */
static void waiting_check(pls_inbox *inbox)
{
    if (!inbox->waiting_unchecked) {
        return;
    }
    inbox->waiting_unchecked = false;
    if (pls_ring_take_waiting(&inbox->rings[inbox->current])) {
        bit_set(&inbox->owed, inbox->current);
    }
}

/* The next slot after `from`, going round, with a bit in `map`; NO_SLOT if there is none. */
static uint32_t slot_after(const pls_bitmap *map, uint32_t from)
{
    uint32_t start = from >= PLS_SLOTS_MAX - 1 ? 0 : from + 1;
    for (uint32_t i = 0; i <= PLS_SLOT_WORDS; i++) {
        uint32_t index = (start / 64 + i) % PLS_SLOT_WORDS;
        uint64_t bits = map->word[index];
        if (i == 0) {
            bits &= ~UINT64_C(0) << (start % 64);
        }
        if (bits != 0) {
            return index * 64 + (uint32_t)__builtin_ctzll(bits);
        }
    }
    return NO_SLOT;
}

static bool bit_get(const pls_bitmap *map, uint32_t slot)
{
    return (map->word[slot / 64] >> (slot % 64) & 1) != 0;
}

/* Make the next ring that may have something the current one; it may be the same one again. */
static bool turn_take(pls_inbox *inbox)
{
    (void)pls_bell_take(inbox->bell.header->bell, &inbox->current_bit, &inbox->ready);
    for (;;) {
        uint32_t slot = slot_after(&inbox->ready, inbox->current);
        if (slot == NO_SLOT) {
            return false;
        }
        bit_clear(&inbox->ready, slot);
        if (ring_open(inbox, slot) && !bit_get(&inbox->shut, slot)) {
            current_set(inbox, slot);
            return true;
        }
    }
}

static void current_poison(pls_inbox *inbox)
{
    inbox->corrupt_slot = inbox->current;
    bit_set(&inbox->shut, inbox->current);
    inbox->waiting_unchecked = false;
    current_set(inbox, NO_SLOT);
}

static pls_err current_next(pls_inbox *inbox, pls_message *message_out)
{
    pls_record header;
    const uint8_t *payload = NULL;
    pls_err err = pls_ring_next(&inbox->rings[inbox->current], &header, &payload);
    if (err != PLS_OK) {
        return err;
    }
    *message_out = (pls_message){
        .bytes = payload,
        .len = header.len,
        .type = header.type,
        .flags = header.flags,
        .seq = header.seq,
        .sent = header.sent,
        .from_slot = inbox->current,
        .from_epoch = inbox->epochs[inbox->current],
    };
    inbox->popped = true;
    inbox->visit_messages++;
    inbox->visit_bytes += header.len;
    return PLS_OK;
}

/* The next message of the ring that has its turn. PLS_EEMPTY: its turn is over. */
static pls_err current_visit(pls_inbox *inbox, pls_message *message_out)
{
    if (inbox->visit_messages >= VISIT_MESSAGES_MAX || inbox->visit_bytes >= VISIT_BYTES_MAX) {
        bit_set(&inbox->ready, inbox->current);
        return PLS_EEMPTY;
    }
    pls_err err = current_next(inbox, message_out);
    if (err == PLS_ECORRUPT) {
        current_poison(inbox);
    }
    return err;
}

pls_err pls_inbox_pop(pls_inbox *inbox, pls_message *message_out)
{
    pls_assert(!inbox->popped);
    /* Each turn reads a message, clears a ready bit, or ends the loop; bits come back only with new
     * messages, so the loop ends. */
    for (;;) {
        if (inbox->current != NO_SLOT) {
            pls_err err = current_visit(inbox, message_out);
            if (err != PLS_EEMPTY) {
                return err;
            }
            waiting_check(inbox);
        }
        if (!turn_take(inbox)) {
            return PLS_EEMPTY;
        }
    }
}

void pls_inbox_release(pls_inbox *inbox)
{
    pls_assert(inbox->popped);
    inbox->popped = false;
    inbox->waiting_unchecked = true;
    if (pls_ring_release(&inbox->rings[inbox->current])) {
        bit_set(&inbox->owed, inbox->current);
    }
}

uint32_t pls_inbox_corrupt_slot(const pls_inbox *inbox)
{
    return inbox->corrupt_slot;
}

/* Whether there is work that pop and the take functions would find. */
static bool work_is_there(const pls_inbox *inbox)
{
    pls_inbox_header *header = inbox->bell.header;
    return current_has_more(inbox) || bits_any(&inbox->ready) || bits_any(&inbox->owed) ||
           pls_bell_any(header->bell, NULL) || pls_bell_any(header->space, NULL) ||
           pls_bell_any(header->dead, NULL) || returns_waiting(inbox);
}

bool pls_inbox_arm(pls_inbox *inbox)
{
    pls_assert(!inbox->popped);
    if (inbox->current != NO_SLOT) {
        waiting_check(inbox);
        if (pls_bell_take(inbox->bell.header->bell, NULL, &inbox->ready) &&
            !current_has_more(inbox)) {
            /* Its bit told of messages that were read while it was left set. */
            bit_clear(&inbox->ready, inbox->current);
        }
    }
    if (work_is_there(inbox)) {
        return false;
    }
    pls_bell_arm(&inbox->bell);
    inbox->arm_count++;
    if (!pls_mutant(PLS_MUTANT_NO_RECHECK) && work_is_there(inbox)) {
        (void)pls_bell_disarm(&inbox->bell, false);
        return false;
    }
    return true;
}

void pls_inbox_disarm(pls_inbox *inbox, bool readable)
{
    (void)pls_bell_disarm(&inbox->bell, readable);
}

/* Whether there is work of which somebody must have told, or will when it gets to it. A returned
 * lease is told of only to an owner that waits for memory. */
static bool told_work_is_there(const pls_inbox *inbox)
{
    const pls_inbox_header *header = inbox->bell.header;
    bool wanted = atomic_load_explicit(&header->returns_wanted, memory_order_relaxed) != 0;
    return (pls_inbox_ready(inbox) & ~(wanted ? 0u : (unsigned)PLS_READY_RETURNS)) != 0;
}

void pls_inbox_disarm_timeout(pls_inbox *inbox)
{
    if (inbox->bell.armed && told_work_is_there(inbox) &&
        pls_bell_is_silent(&inbox->bell, SILENCE_MS)) {
        inbox->recheck_found_work++;
    }
    (void)pls_bell_disarm(&inbox->bell, true);
}

uint64_t pls_inbox_recheck_found_work(const pls_inbox *inbox)
{
    return inbox->recheck_found_work;
}

uint64_t pls_inbox_arm_count(const pls_inbox *inbox)
{
    return inbox->arm_count;
}

bool pls_inbox_take_space(pls_inbox *inbox, pls_bitmap *taken_out)
{
    memset(taken_out, 0, sizeof *taken_out);
    return pls_bell_take(inbox->bell.header->space, NULL, taken_out);
}

bool pls_inbox_take_dead(pls_inbox *inbox, pls_bitmap *taken_out)
{
    memset(taken_out, 0, sizeof *taken_out);
    bool any = pls_bell_take(inbox->bell.header->dead, NULL, taken_out);
    for (unsigned i = 0; i < PLS_SLOT_WORDS; i++) {
        /* The dead may have published without having rung. */
        inbox->ready.word[i] |= taken_out->word[i];
    }
    return any;
}

bool pls_inbox_take_owed(pls_inbox *inbox, pls_bitmap *taken_out)
{
    *taken_out = inbox->owed;
    memset(&inbox->owed, 0, sizeof inbox->owed);
    return bits_any(taken_out);
}

void pls_inbox_look(pls_inbox *inbox, uint32_t slot)
{
    pls_assert(slot < PLS_SLOTS_MAX);
    bit_set(&inbox->ready, slot);
}

void pls_inbox_hold(pls_inbox *inbox, uint32_t slot, bool hold)
{
    pls_assert(slot < PLS_SLOTS_MAX);
    pls_assert(!inbox->popped || inbox->current != slot);
    if (!hold) {
        if (inbox->epochs[slot] != 0 && !inbox->rings[slot].corrupt) {
            bit_clear(&inbox->shut, slot);
            bit_set(&inbox->ready, slot);
        }
        return;
    }
    bit_set(&inbox->shut, slot);
    if (slot == inbox->current) {
        waiting_check(inbox);
        current_set(inbox, NO_SLOT);
    }
}

void pls_inbox_started_store(pls_inbox *inbox, uint32_t from_slot, uint32_t index, uint64_t value)
{
    pls_assert(from_slot < PLS_SLOTS_MAX);
    pls_assert(inbox->epochs[from_slot] != 0);
    pls_assert(index < PLS_STARTED_MAX);
    _Atomic uint64_t *word = &control_at(inbox, from_slot)->started[index];
    if (atomic_load_explicit(word, memory_order_relaxed) < value) {
        /* Release pairs with the acquire in pls_outbox_started_load(). */
        atomic_store_explicit(word, value, memory_order_release);
    }
}

void pls_inbox_taken_add(pls_inbox *inbox, uint32_t from_slot)
{
    pls_assert(from_slot < PLS_SLOTS_MAX);
    pls_assert(inbox->epochs[from_slot] != 0);
    _Atomic uint64_t *word = &control_at(inbox, from_slot)->taken;
    uint64_t taken = atomic_load_explicit(word, memory_order_relaxed);
    /* Release pairs with the acquire in pls_outbox_taken_load(). */
    atomic_store_explicit(word, taken + 1, memory_order_release);
}

bool pls_inbox_is_open(const pls_inbox *inbox, uint32_t slot, uint32_t epoch)
{
    pls_assert(slot < PLS_SLOTS_MAX);
    return epoch != 0 && inbox->epochs[slot] == epoch;
}

bool pls_inbox_drained(const pls_inbox *inbox, uint32_t slot)
{
    pls_assert(slot < PLS_SLOTS_MAX);
    if (inbox->epochs[slot] != 0) {
        const pls_ring_consumer *ring = &inbox->rings[slot];
        return ring->corrupt || (ring->lent_bytes == 0 && !pls_ring_has_more(ring));
    }
    const pls_ring_control *control = control_at(inbox, slot);
    /* Acquire pairs with the release of READY in ring_create(). */
    return (atomic_load_explicit(&control->state, memory_order_acquire) & 0xff) != PLS_RING_READY ||
           atomic_load_explicit(&control->tail, memory_order_relaxed) == 0;
}

/* What punching the span does, by hand. */
static void ring_zero(pls_ring_control *control)
{
    atomic_store_explicit(&control->tail, 0, memory_order_relaxed);
    atomic_store_explicit(&control->head, 0, memory_order_relaxed);
    atomic_store_explicit(&control->taken, 0, memory_order_relaxed);
    atomic_store_explicit(&control->producer_waiting, 0, memory_order_relaxed);
    atomic_store_explicit(&control->capacity_bytes, 0, memory_order_relaxed);
    for (unsigned i = 0; i < PLS_STARTED_MAX; i++) {
        atomic_store_explicit(&control->started[i], 0, memory_order_relaxed);
    }
    /* Release pairs with the acquire of the CAS in ring_create(). */
    atomic_store_explicit(&control->state, PLS_RING_FREE, memory_order_release);
}

pls_err pls_inbox_close_ring(pls_inbox *inbox, uint32_t slot)
{
    pls_assert(pls_inbox_drained(inbox, slot));
    pls_assert(!inbox->popped || inbox->current != slot);
    if (slot == inbox->current) {
        inbox->waiting_unchecked = false;
        current_set(inbox, NO_SLOT);
    }
    bit_clear(&inbox->ready, slot);
    bit_clear(&inbox->owed, slot);
    bit_clear(&inbox->shut, slot);
    inbox->epochs[slot] = 0;
    pls_err err = pls_segment_punch(inbox->memory.fd,
                                    PLS_INBOX_RINGS_OFFSET + (uint64_t)slot * PLS_RING_SPAN_BYTES,
                                    PLS_RING_SPAN_BYTES);
    if (err != PLS_OK) {
        ring_zero(control_at(inbox, slot));
    }
    return err;
}

bool pls_inbox_check(const pls_inbox *inbox)
{
    if (!pls_segment_check(&inbox->memory) || inbox->bell.eventfd < 0 ||
        inbox->bell.header->magic != PLS_LAYOUT_MAGIC || inbox->current > NO_SLOT) {
        return false;
    }
    for (uint32_t slot = 0; slot < PLS_SLOTS_MAX; slot++) {
        bool current = slot == inbox->current;
        if (current != bit_get(&inbox->current_bit, slot) ||
            (current && inbox->epochs[slot] == 0)) {
            return false;
        }
        if (inbox->epochs[slot] == 0) {
            continue;
        }
        const pls_ring_consumer *ring = &inbox->rings[slot];
        if (!pls_ring_consumer_check(ring) || inbox->epochs[slot] > PLS_EPOCH_MAX ||
            (ring->lent_bytes != 0) != (current && inbox->popped)) {
            return false;
        }
    }
    return true;
}

pls_inbox_header *pls_inbox_watch_returns(pls_inbox *inbox)
{
    inbox->watches_returns = true;
    return pls_inbox_header_of(inbox);
}

pls_inbox_header *pls_inbox_header_of(pls_inbox *inbox)
{
    return (pls_inbox_header *)(void *)inbox->memory.base;
}

pls_lease_cell *pls_inbox_leases_of(pls_inbox *inbox)
{
    return (pls_lease_cell *)(void *)(inbox->memory.base + PLS_INBOX_LEASES_OFFSET);
}
