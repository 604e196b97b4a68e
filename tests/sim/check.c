/* SPDX-License-Identifier: Apache-2.0 */
/* The checker: keeps a shadow of what each node has said and stored of each member, and compares
 * it after every event with the node that the event touched. A node whose summary did not change
 * is read in part, a few members an event in turn, so that the whole table is read again and again
 * without a scan per event. The first violation is kept; later ones are its consequences. */
#include "tests/sim/check.h"

#include "base/assert.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Members read after an event that changed nothing in the summary; the whole instance asserts its
 * own invariant once in so many events. */
enum { AUDIT_MEMBERS = 3, SELF_CHECK_EVENTS = 509, METAS_KEPT = 16 };

/* Bounds of sizes. A node knows at most the members of two generations per name at a time (the
 * newer one replaces the older one); a queue holds one update a member and one delta an owner. */
enum { KNOWN_PER_NODE = 2, PROBES_PER_MEMBER = 2, RELAYS_MAX = 1024 };
#define MEMORY_BYTES_BASE (UINT64_C(128) * 1024)
#define MEMORY_BYTES_PER_MEMBER UINT64_C(1024)
#define MEMORY_BYTES_PER_NAME UINT64_C(256)

/* What a node held of a member when last looked at. */
typedef struct shadow_entry {
    uint64_t key;
    uint64_t incarnation;
    uint8_t state;    /* pls_member_state in the table */
    uint8_t reported; /* pls_member_state by its events */
} shadow_entry;

typedef struct shadow {
    shadow_entry *entries; /* by member number */
    uint32_t entry_count;
    pls_member audit_next;
    uint64_t digest;
    uint64_t touch_count;
    uint32_t alive_count;
    uint32_t suspect_count;
    uint32_t dead_count;
    uint32_t left_count;
    bool said_something; /* a member event since the last look */
} shadow;

/* The metas that an owner has had, the latest METAS_KEPT of them. */
typedef struct meta_history {
    uint64_t key;
    uint64_t incarnations[METAS_KEPT];
    uint64_t hashes[METAS_KEPT];
    uint32_t count;
} meta_history;

/* The highest incarnation that a node has had in each of its generations. */
typedef struct issued {
    uint64_t *incarnations; /* by generation */
    uint64_t count;
} issued;

struct pls_sim_checker {
    pls_sim_world *world;
    shadow *shadows; /* by node */
    issued *issueds; /* by node */
    meta_history *metas;
    uint32_t meta_count;
    pls_sim_violation violation;
};

/* The instance's own assertions would stop a mutant before an invariant can show that it does. */
static void self_check(const pls_gossip *gossip)
{
#ifndef PLS_MUTANTS
    pls_gossip_check(gossip);
#endif
}

static const char *const invariant_words[] = {"holds",
#define INVARIANT_WORD(code, word, text) word,
                                              PLS_SIM_INVARIANTS(INVARIANT_WORD)
#undef INVARIANT_WORD
};

const char *pls_sim_invariant_word(pls_sim_invariant invariant)
{
    return invariant < PLS_SIM_INVARIANT_COUNT ? invariant_words[invariant] : "?";
}

pls_sim_checker *pls_sim_checker_create(pls_sim_world *world)
{
    pls_assert(world->running_count == 0);
    pls_sim_checker *checker = calloc(1, sizeof *checker);
    pls_assert(checker != NULL);
    checker->world = world;
    checker->shadows = calloc(world->node_count, sizeof *checker->shadows);
    pls_assert(checker->shadows != NULL);
    checker->issueds = calloc(world->node_count, sizeof *checker->issueds);
    pls_assert(checker->issueds != NULL);
    world->checker = checker;
    return checker;
}

void pls_sim_checker_destroy(pls_sim_checker *checker)
{
    if (checker == NULL) {
        return;
    }
    for (uint32_t i = 0; i < checker->world->node_count; i++) {
        free(checker->shadows[i].entries);
        free(checker->issueds[i].incarnations);
    }
    checker->world->checker = NULL;
    free(checker->issueds);
    free(checker->shadows);
    free(checker->metas);
    free(checker);
}

const pls_sim_violation *pls_sim_checker_violation(const pls_sim_checker *checker)
{
    return &checker->violation;
}

void pls_sim_checker_report(pls_sim_checker *checker, pls_sim_invariant invariant, uint32_t node,
                            pls_member member, const char *text)
{
    pls_sim_violation *violation = &checker->violation;
    if (violation->invariant != PLS_SIM_HOLDS) {
        return;
    }
    violation->invariant = invariant;
    violation->node = node;
    violation->member = member;
    violation->at_ns = checker->world->now_ns;
    snprintf(violation->text, sizeof violation->text, "%s", text);
}

static uint64_t hash_bytes(const void *bytes, size_t len)
{
    const uint8_t *at = bytes;
    uint64_t hash = UINT64_C(0xcbf29ce484222325);
    for (size_t i = 0; i < len; i++) {
        hash = (hash ^ at[i]) * UINT64_C(0x100000001b3);
    }
    return hash;
}

static shadow_entry *entry_of(shadow *s, pls_member member, uint64_t key)
{
    if (member >= s->entry_count) {
        uint32_t count = member + 16;
        shadow_entry *entries = realloc(s->entries, count * sizeof *entries);
        pls_assert(entries != NULL);
        memset(entries + s->entry_count, 0, (count - s->entry_count) * sizeof *entries);
        s->entries = entries;
        s->entry_count = count;
    }
    shadow_entry *entry = &s->entries[member];
    if (entry->key != key) {
        *entry = (shadow_entry){.key = key};
    }
    return entry;
}

static meta_history *history_of(pls_sim_checker *checker, pls_member member, uint64_t key)
{
    if (member >= checker->meta_count) {
        uint32_t count = member + 16;
        meta_history *metas = realloc(checker->metas, count * sizeof *metas);
        pls_assert(metas != NULL);
        memset(metas + checker->meta_count, 0, (count - checker->meta_count) * sizeof *metas);
        checker->metas = metas;
        checker->meta_count = count;
    }
    meta_history *history = &checker->metas[member];
    if (history->key != key) {
        memset(history, 0, sizeof *history);
        history->key = key;
    }
    return history;
}

/* Where the highest incarnation of a generation of a node is kept. */
static uint64_t *issued_of(pls_sim_checker *checker, uint32_t node, uint64_t generation)
{
    issued *of = &checker->issueds[node];
    if (generation >= of->count) {
        uint64_t count = generation + 8;
        uint64_t *incarnations = realloc(of->incarnations, count * sizeof *incarnations);
        pls_assert(incarnations != NULL);
        memset(incarnations + of->count, 0, (count - of->count) * sizeof *incarnations);
        of->incarnations = incarnations;
        of->count = count;
    }
    return &of->incarnations[generation];
}

/* The owner has this meta at this incarnation; false when it had another one at the same. */
static bool meta_noted(meta_history *history, uint64_t incarnation, uint64_t hash)
{
    if (history->count > 0) {
        uint32_t last = (history->count - 1) % METAS_KEPT;
        if (history->incarnations[last] == incarnation) {
            return history->hashes[last] == hash;
        }
    }
    uint32_t at = history->count++ % METAS_KEPT;
    history->incarnations[at] = incarnation;
    history->hashes[at] = hash;
    return true;
}

/* False when the owner is known to have had another meta at this incarnation. */
static bool meta_agrees(const meta_history *history, uint64_t incarnation, uint64_t hash)
{
    uint32_t kept = history->count < METAS_KEPT ? history->count : METAS_KEPT;
    for (uint32_t i = 0; i < kept; i++) {
        if (history->incarnations[i] == incarnation) {
            return history->hashes[i] == hash;
        }
    }
    return true;
}

static bool is_live(uint8_t state)
{
    return state == PLS_MEMBER_ALIVE || state == PLS_MEMBER_SUSPECT;
}

static bool is_gone(uint8_t state)
{
    return state == PLS_MEMBER_DEAD || state == PLS_MEMBER_LEFT;
}

/* What may follow at the same incarnation; a higher one may bring anything. */
static pls_sim_invariant change_verdict(const shadow_entry *was, const pls_member_view *is)
{
    if (was->state == PLS_MEMBER_UNKNOWN) {
        return PLS_SIM_HOLDS;
    }
    if (is->incarnation < was->incarnation) {
        return PLS_SIM_MONOTONE;
    }
    if (is->incarnation > was->incarnation || (uint8_t)is->state == was->state) {
        return PLS_SIM_HOLDS;
    }
    if (is_gone(was->state) && is_live((uint8_t)is->state)) {
        return PLS_SIM_RESURRECTED;
    }
    bool back_to_alive = was->state == PLS_MEMBER_SUSPECT && is->state == PLS_MEMBER_ALIVE;
    bool left_to_dead = was->state == PLS_MEMBER_LEFT && is->state == PLS_MEMBER_DEAD;
    return back_to_alive || left_to_dead ? PLS_SIM_TRANSITION : PLS_SIM_HOLDS;
}

static void report_view(pls_sim_checker *checker, pls_sim_invariant invariant, uint32_t node,
                        const pls_member_view *is, const shadow_entry *was)
{
    char text[160];
    snprintf(text, sizeof text,
             "node %" PRIu32 " holds member %" PRIu32 " (%.*s) in state %d at incarnation %" PRIu64
             ", before in state %d (reported %d) at %" PRIu64,
             node, is->member, (int)is->identity.name_bytes, is->identity.name, (int)is->state,
             is->incarnation, was->state, was->reported, was->incarnation);
    pls_sim_checker_report(checker, invariant, node, is->member, text);
}

static void owner_noted(pls_sim_checker *checker, uint32_t node, const pls_member_view *is,
                        const shadow_entry *was)
{
    uint64_t *highest = issued_of(checker, node, is->identity.generation);
    *highest = is->incarnation > *highest ? is->incarnation : *highest;
    if (!meta_noted(history_of(checker, is->member, is->identity.key), is->incarnation,
                    hash_bytes(is->meta, is->meta_bytes))) {
        report_view(checker, PLS_SIM_META, node, is, was);
    }
    if (is->state != PLS_MEMBER_ALIVE &&
        !pls_gossip_look(checker->world->nodes[node].gossip).leaving) {
        report_view(checker, PLS_SIM_SELF_DEAD, node, is, was);
    }
}

static void member_check(pls_sim_checker *checker, uint32_t node, pls_member member)
{
    pls_member_view is;
    const pls_gossip *gossip = checker->world->nodes[node].gossip;
    if (pls_gossip_member(gossip, member, &is) != PLS_OK) {
        return;
    }
    shadow_entry *was = entry_of(&checker->shadows[node], member, is.identity.key);
    pls_sim_invariant verdict = change_verdict(was, &is);
    if (verdict != PLS_SIM_HOLDS) {
        report_view(checker, verdict, node, &is, was);
    }
    if (member == checker->world->nodes[node].self) {
        owner_noted(checker, node, &is, was);
    } else {
        uint32_t owner = pls_sim_world_owner(checker->world, &is.identity);
        if (owner == PLS_SIM_NOBODY ||
            is.identity.generation > checker->world->nodes[owner].generation ||
            is.incarnation > *issued_of(checker, owner, is.identity.generation)) {
            report_view(checker, PLS_SIM_RAISED, node, &is, was);
        }
        if (is.state == PLS_MEMBER_ALIVE &&
            !meta_agrees(history_of(checker, member, is.identity.key), is.incarnation,
                         hash_bytes(is.meta, is.meta_bytes))) {
            report_view(checker, PLS_SIM_META, node, &is, was);
        }
        bool unreported = is_live((uint8_t)is.state) && was->reported != (uint8_t)is.state;
        bool revived = is_gone((uint8_t)is.state) && is_live(was->reported);
        if (unreported || revived) {
            report_view(checker, PLS_SIM_TRANSITION, node, &is, was);
        }
    }
    was->incarnation = is.incarnation;
    was->state = (uint8_t)is.state;
}

/* Members that the table no longer holds may come again in any state. */
static void forgotten_drop(pls_sim_checker *checker, uint32_t node)
{
    shadow *s = &checker->shadows[node];
    const pls_gossip *gossip = checker->world->nodes[node].gossip;
    for (pls_member member = 0; member < s->entry_count; member++) {
        shadow_entry *entry = &s->entries[member];
        if (entry->state != PLS_MEMBER_UNKNOWN &&
            pls_gossip_member_state(gossip, member) == PLS_MEMBER_UNKNOWN) {
            if (is_live(entry->reported)) {
                pls_sim_checker_report(checker, PLS_SIM_TRANSITION, node, member,
                                       "a live member was forgotten without a word");
            }
            *entry = (shadow_entry){0};
        }
    }
}

static void sizes_check(pls_sim_checker *checker, uint32_t node, const pls_gossip_view *view)
{
    char text[160];
    uint64_t nodes = checker->world->node_count;
    uint64_t known =
        (uint64_t)view->alive_count + view->suspect_count + view->dead_count + view->left_count;
    uint64_t memory_max = MEMORY_BYTES_BASE + MEMORY_BYTES_PER_MEMBER * nodes +
                          MEMORY_BYTES_PER_NAME * view->names_count;
    bool fits = known <= KNOWN_PER_NODE * nodes && view->queue_count <= 2 * known &&
                view->probe_count <= PROBES_PER_MEMBER * known && view->relay_count <= RELAYS_MAX &&
                view->action_count == 0 && view->memory_bytes <= memory_max;
    if (!fits) {
        snprintf(text, sizeof text,
                 "known %" PRIu64 " queue %" PRIu32 " probes %" PRIu32 " relays %" PRIu32
                 " actions %" PRIu32 " memory %" PRIu64 " of %" PRIu64,
                 known, view->queue_count, view->probe_count, view->relay_count, view->action_count,
                 view->memory_bytes, memory_max);
        pls_sim_checker_report(checker, PLS_SIM_SIZE, node, PLS_MEMBER_NONE, text);
    }
}

static bool summary_changed(shadow *s, const pls_gossip_view *view)
{
    bool same = !s->said_something && s->digest == view->digest &&
                s->alive_count == view->alive_count && s->suspect_count == view->suspect_count &&
                s->dead_count == view->dead_count && s->left_count == view->left_count;
    s->said_something = false;
    s->digest = view->digest;
    s->alive_count = view->alive_count;
    s->suspect_count = view->suspect_count;
    s->dead_count = view->dead_count;
    s->left_count = view->left_count;
    return !same;
}

static void node_check_whole(pls_sim_checker *checker, uint32_t node)
{
    const pls_gossip *gossip = checker->world->nodes[node].gossip;
    pls_member member = pls_gossip_member_next(gossip, 0);
    while (member != PLS_MEMBER_NONE) {
        member_check(checker, node, member);
        member = pls_gossip_member_next(gossip, member + 1);
    }
    forgotten_drop(checker, node);
}

static void node_check_some(pls_sim_checker *checker, uint32_t node)
{
    shadow *s = &checker->shadows[node];
    const pls_gossip *gossip = checker->world->nodes[node].gossip;
    for (int i = 0; i < AUDIT_MEMBERS; i++) {
        pls_member member = pls_gossip_member_next(gossip, s->audit_next);
        if (member == PLS_MEMBER_NONE) {
            s->audit_next = 0;
            return;
        }
        member_check(checker, node, member);
        s->audit_next = member + 1;
    }
}

void pls_sim_check_touched(pls_sim_checker *checker, uint32_t node)
{
    shadow *s = &checker->shadows[node];
    const pls_gossip *gossip = checker->world->nodes[node].gossip;
    if (gossip == NULL) {
        return;
    }
    pls_gossip_view view = pls_gossip_look(gossip);
    member_check(checker, node, checker->world->nodes[node].self);
    if (summary_changed(s, &view)) {
        node_check_whole(checker, node);
    } else {
        node_check_some(checker, node);
    }
    sizes_check(checker, node, &view);
    if (++s->touch_count % SELF_CHECK_EVENTS == 0) {
        self_check(gossip);
    }
}

void pls_sim_check_started(pls_sim_checker *checker, uint32_t node)
{
    shadow *s = &checker->shadows[node];
    free(s->entries);
    *s = (shadow){0};
    pls_sim_check_touched(checker, node);
}

void pls_sim_check_stopped(pls_sim_checker *checker, uint32_t node)
{
    self_check(checker->world->nodes[node].gossip);
    node_check_whole(checker, node);
}

/* What a node may say of a member after what it has said before. */
static bool report_follows(uint8_t reported, pls_gossip_event event)
{
    switch (event) {
    case PLS_EVENT_JOINED:
        return reported == PLS_MEMBER_UNKNOWN || is_gone(reported);
    case PLS_EVENT_SUSPECT:
        return reported == PLS_MEMBER_ALIVE;
    case PLS_EVENT_ALIVE:
        return reported == PLS_MEMBER_SUSPECT || is_gone(reported) ||
               reported == PLS_MEMBER_UNKNOWN;
    case PLS_EVENT_DEAD:
        return is_live(reported);
    case PLS_EVENT_LEFT:
        return is_live(reported) || reported == PLS_MEMBER_DEAD;
    default:
        return true;
    }
}

static uint8_t report_state(uint8_t reported, pls_gossip_event event)
{
    switch (event) {
    case PLS_EVENT_JOINED:
    case PLS_EVENT_ALIVE:
        return PLS_MEMBER_ALIVE;
    case PLS_EVENT_SUSPECT:
        return PLS_MEMBER_SUSPECT;
    case PLS_EVENT_DEAD:
        return PLS_MEMBER_DEAD;
    case PLS_EVENT_LEFT:
        return PLS_MEMBER_LEFT;
    default:
        return reported;
    }
}

void pls_sim_check_action(pls_sim_checker *checker, uint32_t node, const pls_action *action)
{
    if (action->kind != PLS_ACTION_MEMBER || action->member == checker->world->nodes[node].self) {
        return;
    }
    char text[160];
    shadow *s = &checker->shadows[node];
    shadow_entry *entry = entry_of(s, action->member, action->identity.key);
    s->said_something = true;
    if (!report_follows(entry->reported, action->event)) {
        snprintf(text, sizeof text,
                 "node %" PRIu32 " reports event %d of member %" PRIu32 " in reported state %d",
                 node, (int)action->event, action->member, entry->reported);
        pls_sim_checker_report(checker, PLS_SIM_TRANSITION, node, action->member, text);
    }
    entry->reported = report_state(entry->reported, action->event);
}
