/* SPDX-License-Identifier: Apache-2.0 */
/* Fills the obs memory of this process as the runtime goes along. Nothing here decides anything:
 * a table that is full, or memory that cannot be had, leaves the messages as they are. Reading the
 * clock is the dearest part: at the level of counters it is read for a message that leaves, whose
 * stamp needs it, and else for one start in several. */
#include "node/watch.h"

#include "node/runtime_parts.h"
#include "node/watch_hot.h"

#include <stdlib.h>
#include <string.h>

#define ANCHOR_EVERY_NS UINT64_C(1000000000)
#define NAME_SPREAD UINT64_C(0x9e3779b97f4a7c15)

/* Rings and histograms read the clock twice more for each message, which costs a quick call more
 * than the 3 % that watching may cost: they are there for whoever asks. */
static unsigned level_wanted(void)
{
    const char *text = getenv("PULSING_OBS");
    if (text == NULL) {
        return PLS_OBS_COUNTERS_ONLY;
    }
    if (strcmp(text, "full") == 0) {
        return PLS_OBS_FULL;
    }
    return strcmp(text, "off") == 0 ? PLS_OBS_OFF : PLS_OBS_COUNTERS_ONLY;
}

void pls_watch_open(pulsing *p, bool worker)
{
    pls_watch *watch = &p->watch;
    watch->asked = &watch->names[0];
    watch->handled = &watch->names[0];
    watch->held = &p->info->directory->lines[p->info->slot].held_since_ns;
    pls_obs_identity identity = {.slot = pulsing_slot(p),
                                 .epoch = pulsing_epoch(p),
                                 .role = worker ? PLS_ROLE_WORKER : PLS_ROLE_HOST,
                                 .start_time = pls_inbox_header_of(p->inbox)->start_time,
                                 .level = level_wanted()};
    if (identity.level == PLS_OBS_OFF || pls_obs_create(&identity, &watch->obs) != PLS_OK) {
        pls_clock_init(&p->clock);
        return;
    }
    p->clock = watch->obs->clock;
    watch->ticks_per_ns = (double)pls_clock_ticks(&p->clock, 1000000000) / 1e9;
    watch->ticks_mult = (uint64_t)(watch->ticks_per_ns * (1ULL << PLS_WATCH_TICKS_SHIFT));
    watch->slow_ticks = pls_clock_ticks(&p->clock, PLS_SLOW_NS);
    watch->quick_ticks = pls_clock_ticks(&p->clock, PLS_WATCH_QUICK_NS);
    watch->anchored_tick = p->clock.anchor_tick;
    /* The first writer of a memory always gets its records. */
    (void)!pls_obs_writer_open(watch->obs, true, &watch->writer);
    pls_obs_state_set(watch->obs, PLS_OBS_WORKING);
}

void pls_watch_close(pulsing *p)
{
    /* A forked child has no mapping to write to; its books die with it. */
    if (p->watch.obs != NULL && !pulsing_forked(p)) {
        pls_obs_writer_close(&p->watch.writer);
        pls_obs_destroy(p->watch.obs);
    }
    p->watch.obs = NULL;
}

int pls_watch_fd(const pulsing *p)
{
    return p->watch.obs != NULL ? pls_obs_fd(p->watch.obs) : -1;
}

static uint64_t tick_now(pulsing *p)
{
    p->watch.last_tick = pls_clock_tick(&p->clock);
    return p->watch.last_tick;
}

static uint64_t deadline_tick(const pulsing *p, int64_t deadline_ns)
{
    if (deadline_ns == 0) {
        return 0;
    }
    int64_t ns = deadline_ns - (int64_t)p->clock.anchor_monotonic_ns;
    __int128_t ticks = (__int128_t)ns * (int64_t)p->watch.ticks_mult >> PLS_WATCH_TICKS_SHIFT;
    return p->clock.anchor_tick + (uint64_t)(int64_t)ticks;
}

/* The first and the last bytes of a text, in registers: names are short, and a call to memcmp()
 * costs more than they do. */
static inline void text_ends(const char *text, uint32_t bytes, uint64_t ends[2])
{
    if (bytes >= sizeof(uint64_t)) {
        memcpy(&ends[0], text, sizeof ends[0]);
        memcpy(&ends[1], text + bytes - sizeof ends[1], sizeof ends[1]);
    } else if (bytes >= sizeof(uint32_t)) {
        uint32_t half[2];
        memcpy(&half[0], text, sizeof half[0]);
        memcpy(&half[1], text + bytes - sizeof half[1], sizeof half[1]);
        ends[0] = half[0];
        ends[1] = half[1];
    } else {
        ends[0] = (uint8_t)text[0] | (uint64_t)(uint8_t)text[bytes / 2] << 8;
        ends[1] = (uint8_t)text[bytes - 1];
    }
}

static inline bool name_is(const pls_watch_name *name, const pls_watch_name *key, const char *text)
{
    return name->bytes == key->bytes && name->class_name == key->class_name &&
           name->ends[0] == key->ends[0] && name->ends[1] == key->ends[1] &&
           (key->bytes <= sizeof key->ends || memcmp(name->text, text, key->bytes) == 0);
}

/* Looks a method up among those of late, or makes its record. */
static __attribute__((noinline)) uint32_t method_search(pulsing *p, const pls_watch_name *key,
                                                        const char *text, pls_watch_name **last)
{
    pls_watch *watch = &p->watch;
    uint64_t mixed = key->ends[0] + key->ends[1] * 31 + (uint64_t)key->class_name * 7 + key->bytes;
    pls_watch_name *name = &watch->names[mixed * NAME_SPREAD >> (64 - PLS_WATCH_NAMES_LOG2)];
    if (name_is(name, key, text)) {
        *last = name;
        return name->index;
    }
    uint32_t index = pls_obs_method_open(watch->obs, key->class_name,
                                         pls_obs_string(watch->obs, text, key->bytes));
    if (key->bytes <= sizeof name->text) {
        memcpy(name->ends, key->ends, sizeof name->ends);
        name->class_name = key->class_name;
        name->bytes = key->bytes;
        name->index = index;
        memcpy(name->text, text, key->bytes);
        *last = name;
    }
    return index;
}

/* The record of a method; messages without one are counted under the name of what handles them.
 * `last` is the one that was asked for last here, which often is this one again. */
static inline uint32_t method_find(pulsing *p, uint32_t class_name, const char *text,
                                   uint32_t bytes, pls_watch_name **last)
{
    if (bytes == 0) {
        text = "receive";
        bytes = sizeof "receive" - 1;
    }
    pls_watch_name key;
    key.class_name = class_name;
    key.bytes = bytes;
    text_ends(text, bytes, key.ends);
    return name_is(*last, &key, text) ? (*last)->index : method_search(p, &key, text, last);
}

void pls_watch_sent_tell(pulsing *p, const pls_watch_departure *departure)
{
    pls_watch *watch = &p->watch;
    pls_obs_count(watch->obs, PLS_OBS_WAKES_SENT, departure->woke);
    pls_obs_hot_entry entry = {.peer = departure->slot,
                               .seq = departure->seq,
                               .actor = (uint32_t)departure->actor,
                               .bytes = departure->bytes};
    if (watch->current != NULL) {
        entry.parent = (uint32_t)watch->current->caller;
        entry.method = watch->current->method;
    }
    pls_obs_record(&watch->writer, departure->reply ? PLS_OBS_HOT_REPLY : PLS_OBS_HOT_SEND,
                   departure->tick, entry);
}

void pls_watch_received_tell(pulsing *p, const pls_message *record)
{
    pls_obs_hot_entry entry = {.peer = record->from_slot, .seq = record->seq, .bytes = record->len};
    pls_obs_record(&p->watch.writer, PLS_OBS_HOT_RECEIVE, tick_now(p), entry);
}

void pls_watch_full(pulsing *p, uint32_t slot)
{
    if (p->watch.obs != NULL) {
        pls_obs_count(p->watch.obs, PLS_OBS_RING_FULL_WAITS, 1);
        pls_obs_word_add(&p->watch.obs->peers[slot].full_waits, 1);
    }
}

void pls_watch_dropped(pulsing *p, pulsing_status reason, uint64_t count)
{
    static const uint8_t counters[16] = {
        [PULSING_NO_ACTOR] = PLS_OBS_DEAD_LETTERS_STOPPED,
        [PULSING_MAILBOX_FULL] = PLS_OBS_DEAD_LETTERS_FULL,
        [PULSING_EXPIRED] = PLS_OBS_DEAD_LETTERS_EXPIRED,
        [PULSING_DIED] = PLS_OBS_DEAD_LETTERS_DEAD,
        [PULSING_BAD_MESSAGE] = PLS_OBS_DEAD_LETTERS_CORRUPT,
    };
    if (p->watch.obs != NULL) {
        unsigned counter = counters[(uint32_t)reason % 16];
        counter = counter != 0 ? counter : PLS_OBS_DEAD_LETTERS_UNKNOWN;
        pls_obs_count(p->watch.obs, (enum pls_obs_counter)counter, count);
        pls_obs_event(
            p->watch.obs,
            &(pls_obs_event_entry){.kind = PLS_OBS_RARE_DROP, .a = (uint64_t)reason, .b = count});
    }
}

static void figures_copy(pulsing *p)
{
    pls_arena_stats stats;
    pls_obs *obs = p->watch.obs;
    pls_arena_stats_get(p->arena, &stats);
    pls_obs_count_set(obs, PLS_OBS_ARENA_LENT, stats.lent_total);
    pls_obs_count_set(obs, PLS_OBS_ARENA_RETURNED, stats.returned_total);
    pls_obs_count_set(obs, PLS_OBS_ARENA_LENT_BYTES, stats.lent_bytes);
    pls_obs_count_set(obs, PLS_OBS_ARENA_COMMITTED_BYTES, stats.committed_bytes);
    pls_obs_count_set(obs, PLS_OBS_RECHECK_FOUND_WORK, pls_inbox_recheck_found_work(p->inbox));
}

void pls_watch_sleep(pulsing *p)
{
    pls_watch *watch = &p->watch;
    if (watch->obs == NULL) {
        return;
    }
    uint64_t tick = tick_now(p);
    pls_obs_turn(watch->obs, tick, false);
    pls_obs_publish(watch->obs);
    figures_copy(p);
    pls_obs_state_set(watch->obs, PLS_OBS_IDLE);
    if ((double)(tick - watch->anchored_tick) > (double)ANCHOR_EVERY_NS * watch->ticks_per_ns) {
        watch->anchored_tick = tick;
        pls_obs_anchor(watch->obs);
    }
}

void pls_watch_wake(pulsing *p, bool readable)
{
    if (p->watch.obs != NULL) {
        (void)tick_now(p);
        p->watch.unread = 0;
        pls_obs_count(p->watch.obs, PLS_OBS_WAKES_TAKEN, readable);
        pls_obs_state_set(p->watch.obs, PLS_OBS_WORKING);
    }
}

static void lifecycle(pulsing *p, const pulsing_actor *actor, enum pls_watch_lifecycle what)
{
    pls_obs_event(p->watch.obs, &(pls_obs_event_entry){.kind = PLS_OBS_RARE_LIFECYCLE,
                                                       .text = actor->watch.name,
                                                       .actor = actor->id,
                                                       .a = what});
}

void pls_watch_actor_open(pulsing *p, pulsing_actor *actor)
{
    pls_obs *obs = p->watch.obs;
    actor->watch.index = PLS_OBS_NONE;
    if (obs == NULL) {
        return;
    }
    actor->watch.index = pls_obs_actor_open(obs, actor->id, 0, 0);
    if (actor->watch.index != PLS_OBS_NONE) {
        pls_obs_actor *record = &obs->actors[actor->watch.index];
        atomic_store_explicit(&record->mailbox_capacity, actor->mailbox_max, memory_order_relaxed);
        atomic_store_explicit(&record->policy, (uint32_t)actor->overflow, memory_order_relaxed);
    }
    pls_obs_count(obs, PLS_OBS_ACTORS_STARTED, 1);
    lifecycle(p, actor, PLS_WATCH_STARTED);
}

void pulsing_actor_describe(pulsing *p, pulsing_actor *actor, const pulsing_actor_names *names)
{
    pls_obs *obs = p->watch.obs;
    if (obs == NULL || actor->watch.index == PLS_OBS_NONE) {
        return;
    }
    pls_obs_actor *record = &obs->actors[actor->watch.index];
    actor->watch.name = pls_obs_string(obs, names->name, names->name_bytes);
    actor->watch.class_name = pls_obs_string(obs, names->class_name, names->class_bytes);
    atomic_store_explicit(&record->name, actor->watch.name, memory_order_relaxed);
    atomic_store_explicit(&record->class_name, actor->watch.class_name, memory_order_relaxed);
}

void pls_watch_actor_close(pulsing *p, pulsing_actor *actor)
{
    if (p->watch.obs != NULL && !pulsing_forked(p)) {
        pls_obs_count(p->watch.obs, PLS_OBS_ACTORS_STOPPED, 1);
        lifecycle(p, actor, PLS_WATCH_STOPPED);
        pls_obs_actor_close(p->watch.obs, actor->watch.index);
    }
    actor->watch.index = PLS_OBS_NONE;
}

static pls_obs_actor *record_of(const pulsing *p, const pulsing_actor *actor)
{
    bool has = p->watch.obs != NULL && actor->watch.index != PLS_OBS_NONE;
    return has ? &p->watch.obs->actors[actor->watch.index] : NULL;
}

/* What has arrived is what was taken, what was refused, and what waits. */
static void arrived_set(pls_obs_actor *record, const pulsing_actor *actor)
{
    pls_obs_word_set(&record->enqueued,
                     atomic_load_explicit(&record->taken, memory_order_relaxed) +
                         atomic_load_explicit(&record->dropped, memory_order_relaxed) +
                         actor->mailbox.count);
}

void pls_watch_refused(pulsing *p, pulsing_actor *actor)
{
    pls_obs_actor *record = record_of(p, actor);
    if (record != NULL) {
        pls_obs_word_add(&record->dropped, 1);
        arrived_set(record, actor);
    }
}

/* The mailbox has one more, or one less. A stamp gives the time of its oldest message. */
void pls_watch_queued(pulsing *p, pulsing_actor *actor)
{
    pls_obs_actor *record = record_of(p, actor);
    if (record == NULL) {
        return;
    }
    uint64_t tick = 0;
    if (actor->mailbox.first != NULL) {
        uint32_t now = pls_clock_stamp(&p->clock, p->watch.last_tick);
        uint64_t age = (uint64_t)(now - actor->mailbox.first->sent) << p->clock.stamp_shift;
        tick = p->watch.last_tick - age;
    }
    pls_obs_word_set(&record->oldest_tick, tick);
    arrived_set(record, actor);
}

static uint64_t caller_of(uint32_t slot, uint32_t epoch, uint32_t seq)
{
    return (uint64_t)slot << 56 | (uint64_t)(epoch & 0xffffffu) << 32 | seq;
}

/* When a message is started. A message that came while this process had nothing to do starts when
 * it was sent, one that waited starts when the one before it was answered; both are known without
 * the clock. Tells are not answered, so the clock is read again after a few, and after each if they
 * are not quick. */
static uint64_t start_tick(pulsing *p, uint32_t sent)
{
    pls_watch *watch = &p->watch;
    if (watch->obs->level == PLS_OBS_FULL) {
        uint64_t tick = watch->tick_fresh ? watch->last_tick : tick_now(p);
        watch->tick_fresh = false;
        return tick;
    }
    if (watch->unread == 0 || watch->unread < watch->unread_max) {
        int32_t later = (int32_t)(sent - pls_clock_stamp(&p->clock, watch->last_tick));
        watch->unread++;
        if (later > 0) {
            watch->last_tick += (uint64_t)later << p->clock.stamp_shift;
        }
        return watch->last_tick;
    }
    uint64_t before = watch->last_tick;
    uint64_t tick = tick_now(p);
    watch->unread_max =
        tick - before < watch->quick_ticks * watch->unread ? PLS_WATCH_UNREAD_MAX : 0;
    watch->unread = 1;
    return tick;
}

void pls_watch_begin(pulsing *p, pulsing_actor *actor, const pls_arrival *arrival,
                     const pulsing_message *message, pls_watch_run *run)
{
    pls_watch *watch = &p->watch;
    if (watch->obs == NULL) {
        return;
    }
    uint64_t tick = start_tick(p, arrival->sent);
    /* Counters of two CPUs may differ by a little. */
    int32_t between = (int32_t)(pls_clock_stamp(&p->clock, tick) - arrival->sent);
    *run = (pls_watch_run){.start_tick = tick,
                           .waited = between > 0 ? (uint32_t)between : 0,
                           .call_id = message->origin.call_id,
                           .caller = caller_of(arrival->slot, arrival->epoch, arrival->seq),
                           .method = method_find(p, actor->watch.class_name, message->method,
                                                 message->method_bytes, &watch->handled)};
    watch->current = run;
    run->held_before = atomic_load_explicit(watch->held, memory_order_relaxed);
    atomic_store_explicit(watch->held, pls_clock_ns(&p->clock, tick), memory_order_relaxed);
    pls_obs_call_begin(&watch->writer, actor->id, run->method, run->caller, tick,
                       deadline_tick(p, message->deadline_ns));
    pls_obs_actor *record = record_of(p, actor);
    if (record != NULL) {
        pls_obs_word_add(&record->taken, 1);
        arrived_set(record, actor);
    }
    if (watch->writer.ring != NULL) {
        pls_obs_hot_entry entry = {.peer = arrival->slot,
                                   .seq = arrival->seq,
                                   .actor = (uint32_t)actor->id,
                                   .parent = run->waited,
                                   .method = run->method,
                                   .bytes = arrival->len};
        pls_obs_record(&watch->writer, PLS_OBS_HOT_START, tick, entry);
    }
}

static void run_end(pulsing *p, pulsing_actor *actor, const pls_watch_run *run)
{
    pls_watch *watch = &p->watch;
    if (watch->obs->level != PLS_OBS_FULL) {
        return;
    }
    pls_obs_actor *record = record_of(p, actor);
    uint64_t tick = tick_now(p);
    uint64_t took = tick - run->start_tick;
    uint64_t took_ns = pls_clock_span_ns(&p->clock, took);
    uint64_t wait_ns = pls_clock_stamp_ns(&p->clock, run->waited, 0);
    pls_obs_handled(watch->obs, run->method, wait_ns, took_ns, run->failed);
    if (record != NULL) {
        pls_obs_word_add(&record->busy_ns, took_ns);
    }
    pls_obs_hot_entry entry = {.peer = (uint32_t)(run->caller >> 56),
                               .seq = (uint32_t)run->caller,
                               .actor = (uint32_t)actor->id,
                               .parent = pls_clock_stamp(&p->clock, took),
                               .method = run->method};
    pls_obs_record(&watch->writer, PLS_OBS_HOT_END, tick, entry);
    if (took > watch->slow_ticks) {
        pls_obs_event(watch->obs, &(pls_obs_event_entry){.kind = PLS_OBS_RARE_SLOW,
                                                         .text = actor->watch.name,
                                                         .actor = actor->id,
                                                         .a = took_ns,
                                                         .b = run->caller,
                                                         .c = run->method});
    }
}

static void run_keep(const pulsing *p, pulsing_actor *actor, const pls_watch_run *run)
{
    pls_watch_actor *of = &actor->watch;
    pls_obs_actor *record = record_of(p, actor);
    if (record != NULL && actor->running > 0) {
        pls_obs_word_set(&record->current_method, run->method);
        pls_obs_word_set(&record->current_call, run->caller);
    }
    if (of->runs_count == PLS_WATCH_RUNS_MAX || of->runs_count >= actor->running) {
        if (of->runs_count == 0) {
            return; /* it has ended inside of its own start */
        }
        memmove(of->runs, of->runs + 1, --of->runs_count * sizeof *of->runs);
    }
    if (of->runs_count == of->runs_max) {
        uint32_t runs_max = of->runs_max == 0 ? 1 : of->runs_max * 2;
        pls_watch_run *runs = realloc(of->runs, runs_max * sizeof *runs);
        if (runs == NULL) {
            return;
        }
        of->runs = runs;
        of->runs_max = runs_max;
    }
    of->runs[of->runs_count++] = *run;
}

void pls_watch_left_tell(pulsing *p, pulsing_actor *actor, pls_watch_run *run, bool done)
{
    if (!done) {
        run_keep(p, actor, run);
        return;
    }
    run_end(p, actor, run);
    p->watch.tick_fresh = p->polling && p->watch.obs->level == PLS_OBS_FULL;
}

static pls_watch_run *run_find(const pulsing_actor *actor, const pulsing_origin *origin)
{
    for (uint32_t i = 0; i < actor->watch.runs_count; i++) {
        pls_watch_run *run = &actor->watch.runs[i];
        if (run->call_id == origin->call_id &&
            run->caller >> 32 == caller_of(origin->slot, origin->epoch, 0) >> 32) {
            return run;
        }
    }
    return NULL;
}

void pls_watch_finished(pulsing *p, pulsing_actor *actor, const pulsing_origin *origin)
{
    p->watch.tick_fresh = false;
    pls_watch_run *run = p->watch.obs != NULL ? run_find(actor, origin) : NULL;
    pls_obs_actor *record = record_of(p, actor);
    if (record != NULL && actor->running == 0) {
        pls_obs_word_set(&record->current_call, 0);
    }
    if (run != NULL) {
        pls_watch_actor *of = &actor->watch;
        run_end(p, actor, run);
        of->runs_count--;
        memmove(run, run + 1, (size_t)(of->runs + of->runs_count - run) * sizeof *run);
    }
}

void pls_watch_raised(pulsing *p, pulsing_actor *actor, const pulsing_origin *origin)
{
    pls_watch *watch = &p->watch;
    if (watch->obs == NULL) {
        return;
    }
    pls_watch_run *run = actor != NULL ? run_find(actor, origin) : NULL;
    if (run == NULL && watch->current != NULL && watch->current->call_id == origin->call_id) {
        run = watch->current;
    }
    pls_obs_actor *record = actor != NULL ? record_of(p, actor) : NULL;
    if (record != NULL) {
        pls_obs_word_add(&record->errors, 1);
    }
    pls_obs_count(watch->obs, PLS_OBS_ERRORS, 1);
    pls_obs_event_entry entry = {.kind = PLS_OBS_RARE_ERROR, .actor = origin->actor_id};
    if (run != NULL) {
        run->failed = true;
        entry.b = run->caller;
        entry.c = run->method;
    }
    pls_obs_event(watch->obs, &entry);
}

void pls_watch_error(pulsing *p, const char *text, size_t len)
{
    if (p->watch.obs != NULL) {
        pls_obs_error_add(p->watch.obs, text, len);
    }
}

static void ask_describe(pulsing *p, const pls_call *call, const uint8_t *request,
                         pls_obs_wait_start *start)
{
    pls_wire_request head;
    memcpy(&head, request, sizeof head);
    const char *method = (const char *)request + sizeof head + head.chain_bytes;
    start->kind = PLS_OBS_WAIT_ASK;
    start->method = (uint16_t)method_find(p, 0, method, head.method_bytes, &p->watch.asked);
    start->waiter = call->sender_id;
    start->target = head.actor_id;
    start->deadline_tick = deadline_tick(p, head.deadline_ns);
}

void pls_watch_wait_open(pulsing *p, pls_call *call, const uint8_t *request)
{
    if (p->watch.obs == NULL) {
        return;
    }
    pls_obs_wait_start start = {.kind = PLS_OBS_WAIT_STREAM_READ,
                                .method = UINT16_MAX,
                                .target_slot = call->slot,
                                .start_tick = p->watch.last_tick};
    if (request != NULL) {
        ask_describe(p, call, request, &start);
    }
    call->wait = pls_obs_wait_open(p->watch.obs, &start);
}

void pls_watch_wait_kind(pulsing *p, const pls_call *call, enum pls_obs_wait_kind kind)
{
    if (p->watch.obs != NULL && pls_obs_wait_is_open(p->watch.obs, call->wait)) {
        atomic_store_explicit(&p->watch.obs->waits[(uint32_t)call->wait].kind, (uint16_t)kind,
                              memory_order_relaxed);
    }
}

void pls_watch_wait_close(pulsing *p, pls_call *call)
{
    if (call->wait != 0 && p->watch.obs != NULL && !pulsing_forked(p)) {
        pls_obs_wait_close(p->watch.obs, call->wait);
    }
    call->wait = 0;
}

void pls_watch_peer(pulsing *p, enum pls_obs_rare_kind kind, uint32_t slot, uint32_t epoch)
{
    if (p->watch.obs != NULL) {
        pls_obs_event(p->watch.obs,
                      &(pls_obs_event_entry){.kind = (uint32_t)kind, .a = slot, .b = epoch});
    }
}
