/* SPDX-License-Identifier: Apache-2.0 */
/* One attachment from beginning to end: greeting, inbox, arena, the poll that takes in everything
 * that has come, and the end. Everything else of the runtime hangs off the struct made here. */
#include "node/runtime_parts.h"
#include "node/watch_hot.h"

#include "base/assert.h"
#include "node/memory_file.h"
#include "shm/bell.h"

#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define MEMORY_BYTES_MIN (UINT64_C(64) << 20)

int64_t pulsing_now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static uint64_t memory_default(void)
{
    uint64_t bytes = (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE) / 4;
    return bytes < MEMORY_BYTES_MIN ? MEMORY_BYTES_MIN : bytes;
}

static pls_err segment_publish(void *context, uint32_t segment, int readonly_fd)
{
    pulsing *p = context;
    return pls_attach_segment_register(p->attach, segment, readonly_fd);
}

static void segment_retire(void *context, uint32_t segment)
{
    pulsing *p = context;
    (void)!pls_attach_segment_unregister(p->attach, segment);
}

static pls_err segment_resolve(void *context, uint32_t slot, uint32_t epoch, uint32_t segment,
                               int *fd_out)
{
    pulsing *p = context;
    return pls_attach_segment_get(p->attach, slot, epoch, segment, fd_out);
}

static pls_err memory_create(pulsing *p, uint64_t memory_bytes)
{
    pls_err err = pls_inbox_create(p->info->slot, p->info->epoch, &p->inbox);
    if (err != PLS_OK) {
        return err;
    }
    if (memory_bytes == 0) {
        memory_bytes = p->info->memory_budget_bytes;
    }
    pls_arena_config config = {.budget_bytes = memory_bytes > 0 ? memory_bytes : memory_default(),
                               .publish = segment_publish,
                               .retire = segment_retire,
                               .context = p};
    err = pls_arena_create(p->inbox, &config, &p->arena);
    if (err != PLS_OK) {
        return err;
    }
    return pls_views_create(segment_resolve, p, &p->views);
}

static volatile char *fork_guard(void)
{
    char *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (page == MAP_FAILED) {
        return NULL;
    }
    if (madvise(page, 4096, MADV_WIPEONFORK) != 0) {
        munmap(page, 4096);
        return NULL;
    }
    page[0] = 1;
    return page;
}

static void guard_free(pulsing *p)
{
    if (p->unforked != NULL) {
        munmap((void *)(uintptr_t)p->unforked, 4096);
    }
}

bool pulsing_forked(const pulsing *p)
{
    return p->unforked[0] == 0;
}

static void reply_ignore(void *context, void *user, const pulsing_message *message)
{
}

static void sent_ignore(void *context, void *user, pls_err err)
{
}

static void origin_ignore(void *context, void *user, const pulsing_origin *origin)
{
}

static void room_ignore(void *context, void *user, uint64_t items)
{
}

static void drained_ignore(void *context, void *user)
{
}

static void slow_ignore(void *context, void *user, int64_t ns)
{
}

/* A program gives the callbacks that it has a use for. */
static void callbacks_fill(pulsing_callbacks *on)
{
    on->reply = on->reply != NULL ? on->reply : reply_ignore;
    on->stream_item = on->stream_item != NULL ? on->stream_item : reply_ignore;
    on->sent = on->sent != NULL ? on->sent : sent_ignore;
    on->cancel = on->cancel != NULL ? on->cancel : origin_ignore;
    on->stream_room = on->stream_room != NULL ? on->stream_room : room_ignore;
    on->stream_open = on->stream_open != NULL ? on->stream_open : origin_ignore;
    on->slow = on->slow != NULL ? on->slow : slow_ignore;
    on->drained = on->drained != NULL ? on->drained : drained_ignore;
}

/* Which of the two things that an inbox is made of cannot be had. */
static bool bell_refused(void)
{
    int fd = -1;
    if (pls_bell_eventfd(&fd) != PLS_OK) {
        return true;
    }
    close(fd);
    return false;
}

pls_err pulsing_open(const pulsing_options *options, pulsing **pulsing_out, char *trouble)
{
    snprintf(trouble, PLS_TROUBLE_BYTES_MAX, "%s", pls_err_text(PLS_ENOMEM));
    pulsing *p = calloc(1, sizeof *p);
    if (p == NULL) {
        close(options->control_fd);
        return PLS_ENOMEM;
    }
    p->on = options->callbacks;
    callbacks_fill(&p->on);
    p->own_blocks = 1; /* the runtime itself */
    p->scratch = malloc(8192);
    p->unforked = fork_guard();
    p->statm_fd = open("/proc/self/statm", O_RDONLY | O_CLOEXEC);
    cpu_set_t cpus;
    p->cores = sched_getaffinity(0, sizeof cpus, &cpus) == 0 ? (uint32_t)CPU_COUNT(&cpus) : 1;
    pls_err err = p->scratch != NULL && p->unforked != NULL ? PLS_OK : PLS_ENOMEM;
    if (err == PLS_OK) {
        err =
            pls_attach_open(options->control_fd, options->worker ? PLS_ROLE_WORKER : PLS_ROLE_HOST,
                            &p->attach, trouble);
    }
    if (err != PLS_OK) {
        close(options->control_fd);
        close(p->statm_fd);
        guard_free(p);
        free(p->scratch);
        free(p);
        return err;
    }
    p->info = pls_attach_info_of(p->attach);
    pls_attach_on_kept(p->attach, p->on.notice, p->on.context);
    err = memory_create(p, options->memory_bytes);
    if (err != PLS_OK) {
        pls_memory_trouble(err, bell_refused(), trouble);
    } else {
        pls_watch_open(p, options->worker);
        err = pls_attach_join(p->attach, pls_inbox_memfd(p->inbox), pls_inbox_eventfd(p->inbox),
                              pls_watch_fd(p), pls_inbox_header_of(p->inbox)->life);
        snprintf(trouble, PLS_TROUBLE_BYTES_MAX, "%s", pls_attach_trouble(p->attach));
    }
    if (err != PLS_OK) {
        pulsing_close(p);
        return err;
    }
    atomic_store_explicit(&p->info->directory->lines[pulsing_slot(p)].serves, options->serves,
                          memory_order_relaxed);
    *pulsing_out = p;
    return PLS_OK;
}

void pulsing_fail(pulsing *p, const char *text)
{
    if (p->closed_text == NULL) {
        p->closed_text = strdup(text);
    }
    pls_calls_end_all(p, PULSING_CLOSED, text);
}

void pulsing_close(pulsing *p)
{
    if (p == NULL) {
        return;
    }
    bool forked = pulsing_forked(p);
    if (!forked) {
        pulsing_fail(p, "the system has been shut down");
    }
    pls_blocks_sweep(p);
    pls_actors_free(p);
    pls_targets_free(p);
    pls_parcel *parcel = NULL;
    while ((parcel = pls_parcels_pop(&p->self)) != NULL) {
        pls_parcel_free(p, parcel);
    }
    pls_links_close(p);
    pls_watch_close(p);
    p->inbox_stays = !pls_attach_close(p->attach, forked);
    pls_views_destroy(p->views);
    /* Whoever still reads what this process sent to itself keeps the memory, and ends it. */
    if (atomic_fetch_sub_explicit(&p->own_blocks, 1, memory_order_acq_rel) == 1) {
        pls_runtime_free(p);
    }
}

void pls_runtime_free(pulsing *p)
{
    pls_blocks_sweep(p);
    pls_arena_destroy(p->arena);
    if (p->inbox_stays) {
        pls_attach_inbox_keep(p->inbox);
    } else {
        pls_inbox_destroy(p->inbox);
    }
    close(p->statm_fd);
    guard_free(p);
    free(p->calls);
    free(p->scratch);
    free(p->closed_text);
    free(p);
}

const char *pulsing_closed_text(const pulsing *p)
{
    return p->closed_text;
}

int pulsing_event_fd(const pulsing *p)
{
    return pls_inbox_eventfd(p->inbox);
}

struct pls_attach *pulsing_attach_of(pulsing *p)
{
    return p->attach;
}

uint32_t pulsing_slot(const pulsing *p)
{
    return p->info->slot;
}

uint32_t pulsing_epoch(const pulsing *p)
{
    return p->info->epoch;
}

static void arrival_handle(pulsing *p, const pls_arrival *arrival, bool defer)
{
    pls_wire_signal signal = {0, 0};
    switch (arrival->type) {
    case PLS_WIRE_REQUEST:
        pls_actor_request(p, arrival, defer);
        return;
    case PLS_WIRE_REPLY:
    case PLS_WIRE_STREAM_ITEM:
    case PLS_WIRE_STREAM_END:
        pls_call_reply(p, arrival);
        return;
    case PLS_WIRE_PROBE:
        pls_cycle_probe(p, arrival);
        return;
    default:
        break;
    }
    if (arrival->len != sizeof signal) {
        pls_dead_letter(p, PULSING_BAD_MESSAGE);
        return;
    }
    memcpy(&signal, arrival->bytes, sizeof signal);
    if (arrival->type == PLS_WIRE_CREDIT) {
        pulsing_target *target = pls_target_find(p, signal.id);
        if (target != NULL && target->slot == arrival->slot && target->epoch == arrival->epoch) {
            pls_target_credit(p, target, (uint32_t)signal.value);
        }
    } else if (arrival->type == PLS_WIRE_CANCEL) {
        pls_actor_cancel(p, arrival, &signal);
    } else if (arrival->type <= PLS_WIRE_STREAM_OPEN) {
        pls_call_stream_signal(p, arrival, &signal);
    } else {
        pls_dead_letter(p, PULSING_BAD_MESSAGE);
    }
}

void pulsing_message_release(pulsing *p)
{
    if (p->popped) {
        p->popped = false;
        pls_inbox_release(p->inbox);
    }
}

static void record_handle(pulsing *p, const pls_message *record, bool defer)
{
    pls_arrival arrival = {.bytes = record->bytes,
                           .len = record->len,
                           .epoch = record->from_epoch,
                           .seq = record->seq,
                           .sent = record->sent,
                           .slot = (uint16_t)record->from_slot,
                           .type = record->type,
                           .flags = record->flags};
    uint32_t record_bytes = record->len;
    p->popped = true;
    pls_watch_received(p, record);
    if ((record->flags & PLS_WIRE_BLOCK) != 0 && record->len >= sizeof arrival.descriptor) {
        arrival.len -= (uint32_t)sizeof arrival.descriptor;
        memcpy(&arrival.descriptor, record->bytes + arrival.len, sizeof arrival.descriptor);
        arrival.foreign = true;
    }
    arrival_handle(p, &arrival, defer);
    pulsing_message_release(p);
    pls_watch_counted(p, arrival.slot, record_bytes);
}

static uint32_t self_poll(pulsing *p, bool defer)
{
    uint32_t count = 0;
    p->self_woken = false;
    while (p->self.count > 0 && count < PLS_SELF_BURST_MAX) {
        pls_parcel *parcel = pls_parcels_pop(&p->self);
        pls_arrival arrival = {.bytes = parcel->bytes,
                               .len = parcel->len,
                               .epoch = pulsing_epoch(p),
                               .sent = parcel->sent,
                               .slot = (uint16_t)pulsing_slot(p),
                               .type = parcel->type,
                               .flags = parcel->flags,
                               .own = parcel->block};
        arrival_handle(p, &arrival, defer);
        pls_parcel_free(p, parcel);
        count++;
    }
    return count;
}

static uint32_t inbox_poll(pulsing *p, uint32_t messages_max, bool defer)
{
    uint32_t count = 0;
    while (count < messages_max) {
        pls_message record;
        pls_err err = pls_inbox_pop(p->inbox, &record);
        if (err == PLS_EEMPTY) {
            break;
        }
        if (err == PLS_OK) {
            record_handle(p, &record, defer);
        } else {
            pls_dead_letter(p, PULSING_BAD_MESSAGE);
        }
        count++;
    }
    return count;
}

static void bits_each(pulsing *p, const pls_bitmap *bits, void (*act)(pulsing *p, uint32_t slot))
{
    for (uint32_t i = 0; i < PLS_SLOT_WORDS; i++) {
        for (uint64_t word = bits->word[i]; word != 0; word &= word - 1) {
            act(p, i * 64 + (uint32_t)__builtin_ctzll(word));
        }
    }
}

/* Space, deaths and debts. A death counts only once the dead one's last messages are taken in. */
static void bells_poll(pulsing *p, bool defer)
{
    pls_bitmap bits;
    if (pls_inbox_take_owed(p->inbox, &bits)) {
        bits_each(p, &bits, pls_link_owed);
    }
    if (pls_inbox_take_space(p->inbox, &bits)) {
        bits_each(p, &bits, pls_link_flush);
    }
    if (pls_inbox_take_dead(p->inbox, &bits)) {
        pls_bitmap over = pls_deaths_over(p, &bits);
        while (inbox_poll(p, UINT32_MAX, defer) > 0) {
        }
        bits_each(p, &bits, pls_dying_seen);
        bits_each(p, &over, pls_death_take);
        if (pls_inbox_take_owed(p->inbox, &bits)) {
            bits_each(p, &bits, pls_link_owed);
        }
    }
}

uint32_t pulsing_poll(pulsing *p, uint32_t messages_max, bool defer)
{
    if (p->polling || p->ring_taken) {
        return 0;
    }
    p->polling = true;
    p->watch.tick_fresh = false;
    uint32_t count = self_poll(p, defer);
    count += inbox_poll(p, messages_max, defer);
    unsigned ready = pls_inbox_ready(p->inbox);
    if ((ready & (PLS_READY_SPACE | PLS_READY_DEAD | PLS_READY_OWED)) != 0) {
        bells_poll(p, defer);
        count++;
    }
    if ((ready & PLS_READY_RETURNS) != 0) {
        pls_arena_collect(p->arena);
    }
    pls_blocks_sweep(p);
    if (p->dying_count > 0) {
        pls_dying_check(p);
    }
    if (p->starved_first != NULL) {
        pls_retain_starved(p);
    }
    if (!defer && p->runnable_first != NULL) {
        pls_actors_run(p);
        count++;
    }
    if (p->self.count > 0) {
        count += self_poll(p, defer); /* answers to ourselves need no further turn */
    }
    if (count > 0) {
        pls_watch_turn(p);
    }
    p->polling = false;
    bool more = p->self.count > 0 || p->runnable_first != NULL;
    if (more && !p->self_woken && p->on.wake != NULL) {
        p->self_woken = true;
        p->on.wake(p->on.context);
    }
    return count;
}

void pulsing_poll_inside(pulsing *p)
{
    if (!p->popped && !p->ring_taken) {
        (void)inbox_poll(p, PLS_SELF_BURST_MAX, true);
    }
}

bool pulsing_ready(const pulsing *p)
{
    return p->self.count > 0 || pls_inbox_ready(p->inbox) != 0;
}

/* The kernel may have put the peer, when it was woken, on the very CPU that looks: after a few
 * microseconds of looking it is let run, now and then. */
bool pulsing_look(const pulsing *p, int64_t ns)
{
    uint64_t ticks = 0; /* known once the first glance was in vain: dividing costs more than it */
    uint64_t pause = 0;
    uint64_t begin = pls_clock_tick(&p->clock);
    uint64_t yield_at = 0;
    uint64_t now = begin;
    for (;;) {
        for (int i = 0; i < 16; i++) {
            if (pls_inbox_ready(p->inbox) != 0) {
                pls_watch_looked(p, now - begin, true);
                return true;
            }
            __builtin_ia32_pause();
        }
        now = pls_clock_tick(&p->clock);
        if (pause == 0) {
            ticks = ns > 0 ? pls_clock_ticks(&p->clock, (uint64_t)ns) : 0;
            pause = pls_clock_ticks(&p->clock, PLS_LOOK_YIELD_NS);
            yield_at = begin + pause;
        }
        if (now - begin >= ticks) {
            pls_watch_looked(p, now - begin, false);
            return false;
        }
        if (now >= yield_at) {
            sched_yield();
            yield_at = pls_clock_tick(&p->clock) + pause;
        }
    }
}

static void resident_publish(pulsing *p)
{
    int64_t now = pulsing_now_ns();
    if (p->statm_fd < 0 || now - p->resident_read_ns < PLS_RESIDENT_EVERY_NS) {
        return;
    }
    char text[128];
    p->resident_read_ns = now;
    ssize_t len = pread(p->statm_fd, text, sizeof text - 1, 0);
    if (len > 0) {
        text[len] = '\0';
        unsigned long total = 0;
        unsigned long pages = 0;
        if (sscanf(text, "%lu %lu", &total, &pages) == 2) {
            uint32_t mib = (uint32_t)(pages * (unsigned long)sysconf(_SC_PAGESIZE) >> 20);
            atomic_store_explicit(&p->info->directory->lines[pulsing_slot(p)].resident_mib, mib,
                                  memory_order_relaxed);
        }
    }
}

uint64_t pulsing_handled_count(const pulsing *p)
{
    return p->handled_count;
}

static void awake_set(pulsing *p, uint32_t awake)
{
    atomic_store_explicit(&p->info->directory->lines[pulsing_slot(p)].awake, awake,
                          memory_order_relaxed);
}

bool pulsing_arm(pulsing *p)
{
    if (p->self.count > 0 || !pls_inbox_arm(p->inbox)) {
        return false;
    }
    awake_set(p, 0);
    pls_watch_sleep(p);
    resident_publish(p);
    return true;
}

void pulsing_disarm(pulsing *p, bool readable)
{
    pls_inbox_disarm(p->inbox, readable);
    awake_set(p, 1);
    pls_watch_wake(p, readable);
}

/* Processes that run now, this one too, counted anew at most once a millisecond. */
static uint32_t awake_count(pulsing *p, int64_t now)
{
    if (now - p->awake_counted_ns < 1000000) {
        return p->awake_processes;
    }
    p->awake_counted_ns = now;
    uint32_t count = 0;
    for (uint32_t slot = 1; slot < PLS_SLOTS_MAX; slot++) {
        uint32_t epoch = 0;
        const pls_directory_line *line = &p->info->directory->lines[slot];
        if (pls_directory_peek(p->info->directory, slot, &epoch) == PLS_SLOT_ALIVE) {
            count += atomic_load_explicit(&line->awake, memory_order_relaxed);
        }
    }
    p->awake_processes = count;
    return count;
}

bool pulsing_may_look(pulsing *p)
{
    return p->cores > 1 && awake_count(p, pulsing_now_ns()) <= p->cores;
}
