/* SPDX-License-Identifier: Apache-2.0 */
/* Rebuilding actors. A record goes LIVING -> WAITING (its backoff) -> PLACING (for a worker) ->
 * BUILDING (the worker has the spec) -> LIVING, and back to WAITING from any of these; when its
 * attempts are used up it is lost, which everybody is told. A record hangs in the list of the slot
 * on whose process it depends now, so that a death finds what it concerns. */
#include "node/process/restarts.h"

#include "base/assert.h"
#include "node/memory_file.h"
#include "node/process/node.h"
#include "node/process/workers.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define BUCKETS_FIRST 256
/* An actor that has lived this many times its largest backoff, and this long, starts afresh. */
#define LIVED_BACKOFFS 10
#define LIVED_MIN_MS 10000

typedef enum restart_stage {
    LIVING = 0,
    WAITING = 1,
    PLACING = 2,
    BUILDING = 3,
} restart_stage;

typedef struct restart {
    struct restart *same_hash;
    struct restart *slot_next;
    struct restart *slot_previous;
    pls_restarts *table;
    uint64_t actor;
    restart_stage stage;
    pls_restart_options options; /* spec is `spec`, or in `spec_fd` */
    uint8_t *spec;
    int spec_fd;
    pls_client_key host;   /* where it lives, or has lived last */
    pls_client_key at;     /* the process it depends on now; slot 0: none */
    pls_client_key prefer; /* where it failed inside a living process */
    uint32_t attempts;
    uint64_t living_since_ns;
    pls_alarm alarm;
} restart;

struct pls_restarts {
    pls_node *node;
    uint32_t count;
    uint32_t bucket_mask;
    restart **buckets;
    restart *slots[PLS_SLOTS_MAX];
};

static void schedule(restart *r, const char *text, size_t text_bytes);

static uint32_t bucket_of(const pls_restarts *restarts, uint64_t actor)
{
    uint64_t hash = (actor ^ actor >> 31) * 0x9e3779b97f4a7c15ull;
    return (uint32_t)(hash >> 32) & restarts->bucket_mask;
}

static restart *find(pls_restarts *restarts, uint64_t actor)
{
    restart *r = restarts->buckets[bucket_of(restarts, actor)];
    while (r != NULL && r->actor != actor) {
        r = r->same_hash;
    }
    return r;
}

static void depend_on(restart *r, pls_client_key key)
{
    restart **slots = r->table->slots;
    if (r->slot_previous != NULL) {
        r->slot_previous->slot_next = r->slot_next;
    } else if (slots[r->at.slot] == r) {
        slots[r->at.slot] = r->slot_next;
    }
    if (r->slot_next != NULL) {
        r->slot_next->slot_previous = r->slot_previous;
    }
    pls_assert(key.slot < PLS_SLOTS_MAX);
    r->at = key;
    r->slot_previous = NULL;
    r->slot_next = slots[key.slot];
    if (r->slot_next != NULL) {
        r->slot_next->slot_previous = r;
    }
    slots[key.slot] = r;
}

static void spec_drop(restart *r)
{
    free(r->spec);
    r->spec = NULL;
    if (r->spec_fd >= 0) {
        close(r->spec_fd);
        r->spec_fd = -1;
    }
}

static void record_free(restart *r)
{
    pls_restarts *restarts = r->table;
    restart **link = &restarts->buckets[bucket_of(restarts, r->actor)];
    while (*link != r) {
        link = &(*link)->same_hash;
    }
    *link = r->same_hash;
    depend_on(r, (pls_client_key){0, 0});
    restarts->slots[0] = r->slot_next;
    if (r->slot_next != NULL) {
        r->slot_next->slot_previous = NULL;
    }
    pls_loop_alarm_clear(restarts->node->loop, &r->alarm);
    spec_drop(r);
    restarts->count--;
    free(r);
}

pls_err pls_restarts_create(pls_node *node, pls_restarts **restarts_out)
{
    pls_restarts *restarts = calloc(1, sizeof *restarts);
    if (restarts == NULL) {
        return PLS_ENOMEM;
    }
    restarts->node = node;
    restarts->bucket_mask = BUCKETS_FIRST - 1;
    restarts->buckets = calloc(BUCKETS_FIRST, sizeof(restart *));
    if (restarts->buckets == NULL) {
        free(restarts);
        return PLS_ENOMEM;
    }
    *restarts_out = restarts;
    return PLS_OK;
}

void pls_restarts_destroy(pls_restarts *restarts)
{
    if (restarts == NULL) {
        return;
    }
    for (uint32_t slot = 0; slot < PLS_SLOTS_MAX; slot++) {
        while (restarts->slots[slot] != NULL) {
            record_free(restarts->slots[slot]);
        }
    }
    free(restarts->buckets);
    free(restarts);
}

static void table_grow(pls_restarts *restarts)
{
    uint32_t mask = (restarts->bucket_mask + 1) * 2 - 1;
    restart **buckets = calloc((size_t)mask + 1, sizeof(restart *));
    if (buckets == NULL) {
        return;
    }
    free(restarts->buckets);
    restarts->buckets = buckets;
    restarts->bucket_mask = mask;
    for (uint32_t slot = 0; slot < PLS_SLOTS_MAX; slot++) {
        for (restart *r = restarts->slots[slot]; r != NULL; r = r->slot_next) {
            restart **bucket = &buckets[bucket_of(restarts, r->actor)];
            r->same_hash = *bucket;
            *bucket = r;
        }
    }
}

static bool lives(pls_node *node, pls_client_key key)
{
    const pls_client *client = pls_client_find(node, key);
    return client != NULL && client->stage == PLS_CLIENT_JOINED;
}

bool pls_restarts_where(pls_restarts *restarts, uint64_t actor, pls_client_key *key_out,
                        bool *rebuilding_out)
{
    const restart *r = find(restarts, actor);
    pls_client_key birthplace = {(uint32_t)(actor >> 56), (uint32_t)(actor >> 32) & PLS_EPOCH_MAX};
    *key_out = r == NULL ? birthplace : r->host;
    bool alive = lives(restarts->node, *key_out);
    *rebuilding_out = r != NULL && (r->stage != LIVING || !alive);
    return r != NULL || alive;
}

bool pls_restarts_has(pls_restarts *restarts, uint64_t actor)
{
    return find(restarts, actor) != NULL;
}

bool pls_restarts_forget(pls_restarts *restarts, uint64_t actor)
{
    restart *r = find(restarts, actor);
    if (r != NULL) {
        record_free(r);
    }
    return r != NULL;
}

static void lose(restart *r, const char *text, size_t text_bytes)
{
    pls_node *node = r->table->node;
    pls_control_packet packet = {
        .type = PLS_CONTROL_ACTOR_LOST, .actor = r->actor, .text = text, .text_bytes = text_bytes};
    pls_names_remove_actor(node->names, r->actor);
    record_free(r);
    pls_clients_tell(node, &packet);
}

static void rebuild_send(restart *r, pls_client *builder)
{
    pls_node *node = r->table->node;
    const pls_name *name = pls_names_of_actor(node->names, r->actor);
    pls_control_packet packet = {.type = PLS_CONTROL_REBUILD,
                                 .actor = r->actor,
                                 .number = r->attempts,
                                 .name = name == NULL ? NULL : name->entry.name,
                                 .name_bytes = name == NULL ? 0 : name->entry.name_bytes};
    if (r->spec_fd >= 0) {
        packet.fds[0] = r->spec_fd;
        packet.fd_count = 1;
    } else {
        packet.data = r->spec;
        packet.data_bytes = r->options.spec_bytes;
    }
    r->stage = BUILDING;
    depend_on(r, pls_client_key_of(builder));
    pls_client_send(builder, &packet);
}

static void placed(pls_node *node, const pls_place_waiter *waiter, const pls_placed *result)
{
    restart *r = find(node->restarts, waiter->actor);
    if (r == NULL || r->stage != PLACING) {
        return;
    }
    if (result->status == PLS_OK) {
        rebuild_send(r, result->worker);
    } else if (result->status != PLS_ECLOSED) {
        schedule(r, result->text, result->text_bytes);
    }
}

static void attempt(restart *r)
{
    static const pls_place_wire nothing;
    pls_node *node = r->table->node;
    pls_client *prefer = pls_client_find(node, r->prefer);
    r->prefer = (pls_client_key){0, 0};
    r->stage = PLACING;
    if (prefer != NULL && prefer->stage == PLS_CLIENT_JOINED) {
        rebuild_send(r, prefer);
        return;
    }
    pls_place_waiter waiter = {.done = placed, .actor = r->actor};
    pls_workers_place(node, r->options.place, r->options.index, &nothing, &waiter);
}

static void backoff_over(pls_alarm *alarm)
{
    attempt(alarm->owner);
}

static uint64_t backoff_ms(const restart *r)
{
    uint64_t ms = r->options.backoff_min_ms;
    for (uint32_t i = 0; i < r->attempts && ms < r->options.backoff_max_ms; i++) {
        ms *= 2;
    }
    return ms < r->options.backoff_max_ms ? ms : r->options.backoff_max_ms;
}

/* Plans the next attempt, or gives up. */
static void schedule(restart *r, const char *text, size_t text_bytes)
{
    pls_node *node = r->table->node;
    uint64_t now_ns = pls_loop_now_ns();
    uint64_t enough_ms = (uint64_t)r->options.backoff_max_ms * LIVED_BACKOFFS;
    enough_ms = enough_ms < LIVED_MIN_MS ? LIVED_MIN_MS : enough_ms;
    if (r->stage == LIVING && now_ns - r->living_since_ns > enough_ms * PLS_NS_PER_MS) {
        r->attempts = 0;
    }
    if (r->attempts >= r->options.restarts_max) {
        lose(r, text, text_bytes);
        return;
    }
    uint64_t wait_ms = backoff_ms(r);
    r->attempts++;
    r->stage = WAITING;
    depend_on(r, (pls_client_key){0, 0});
    if (pls_loop_alarm(node->loop, &r->alarm, now_ns + wait_ms * PLS_NS_PER_MS) != PLS_OK) {
        attempt(r);
    }
}

static restart *record_create(pls_restarts *restarts, uint64_t actor, pls_client_key host)
{
    if (restarts->count == PLS_RESTARTS_MAX) {
        return NULL;
    }
    restart *r = calloc(1, sizeof *r);
    if (r == NULL) {
        return NULL;
    }
    if (restarts->count > restarts->bucket_mask) {
        table_grow(restarts);
    }
    r->table = restarts;
    r->actor = actor;
    r->spec_fd = -1;
    r->host = host;
    r->living_since_ns = pls_loop_now_ns();
    r->alarm = (pls_alarm){.ring = backoff_over, .owner = r};
    restart **bucket = &restarts->buckets[bucket_of(restarts, actor)];
    r->same_hash = *bucket;
    *bucket = r;
    depend_on(r, host);
    restarts->count++;
    return r;
}

void pls_restarts_serve_register(pls_client *client, pls_control_packet *packet)
{
    pls_node *node = client->node;
    pls_reader reader = pls_reader_over(packet->data, packet->data_bytes);
    pls_restart_options options;
    pls_client_key host;
    bool rebuilding = false;
    size_t large;
    /* A spec that came as a descriptor goes on as one, so it must be what readers rely on. */
    if (pls_restart_decode(&reader, &options) != PLS_OK ||
        (packet->fd_count > 0 &&
         pls_memory_file_measure(packet->fds[0], PLS_SPEC_BYTES_MAX, &large) != PLS_OK)) {
        pls_client_reply(client, packet->request, PLS_EINVAL);
        return;
    }
    if (!pls_restarts_where(node->restarts, packet->actor, &host, &rebuilding)) {
        pls_client_reply(client, packet->request, PLS_EDEAD);
        return;
    }
    options.spec_bytes = pls_reader_left(&reader);
    uint8_t *spec = malloc(options.spec_bytes + 1);
    restart *r = spec == NULL ? NULL : find(node->restarts, packet->actor);
    if (spec != NULL && r == NULL) {
        r = record_create(node->restarts, packet->actor, host);
    }
    if (r == NULL) {
        free(spec);
        pls_client_reply(client, packet->request, spec == NULL ? PLS_ENOMEM : PLS_EFULL);
        return;
    }
    spec_drop(r);
    if (options.spec_bytes > 0) {
        memcpy(spec, reader.at, options.spec_bytes);
    }
    r->options = options;
    r->spec = spec;
    if (packet->fd_count > 0) {
        r->spec_fd = packet->fds[0];
        packet->fds[0] = -1;
    }
    pls_client_reply(client, packet->request, PLS_OK);
}

/* A worker that leaves for a fresh one is no failure: no backoff, and no attempt used up. */
static void host_recycled(restart *r)
{
    depend_on(r, (pls_client_key){0, 0});
    attempt(r);
}

static void host_died(restart *r, bool in_order, const char *text, size_t text_bytes)
{
    bool wanted = r->options.policy == PLS_RESTART_ALWAYS ||
                  (r->options.policy == PLS_RESTART_ON_FAILURE && !in_order);
    if (r->stage == LIVING && !wanted) {
        lose(r, text, text_bytes);
    } else {
        schedule(r, text, text_bytes);
    }
}

void pls_restarts_client_dead(pls_restarts *restarts, pls_client *client, bool in_order)
{
    char text[256];
    pls_death death = {.state = PLS_SLOT_DEAD, .pid = (uint32_t)client->pid};
    pls_node *node = restarts->node;
    if (node->leave.stage != PLS_LEAVE_NOT || restarts->slots[client->slot] == NULL) {
        return;
    }
    if (pls_directory_death(node->directory, client->slot, client->epoch, &death) == PLS_OK) {
        pls_death_text(&death, text, sizeof text);
    } else {
        snprintf(text, sizeof text, "pid %d, ended", (int)client->pid);
    }
    /* What is planned anew leaves this list; what is built here meanwhile cannot be. */
    bool recycled = in_order && client->worker != NULL && client->worker->recycling;
    while (restarts->slots[client->slot] != NULL) {
        if (recycled && restarts->slots[client->slot]->stage == LIVING) {
            host_recycled(restarts->slots[client->slot]);
            continue;
        }
        host_died(restarts->slots[client->slot], in_order, text, strlen(text));
    }
}

void pls_restarts_failed(pls_restarts *restarts, uint64_t actor, pls_client *at, const char *text,
                         size_t text_bytes)
{
    restart *r = find(restarts, actor);
    if (r == NULL || r->stage != LIVING || r->host.slot != at->slot || r->host.epoch != at->epoch) {
        return;
    }
    if (r->options.policy == PLS_RESTART_NEVER) {
        lose(r, text, text_bytes);
        return;
    }
    r->prefer = pls_client_key_of(at);
    schedule(r, text, text_bytes);
}

void pls_restarts_rebuilt(pls_restarts *restarts, uint64_t actor, pls_client *by, bool ok,
                          const char *text, size_t text_bytes)
{
    restart *r = find(restarts, actor);
    if (r == NULL || r->stage != BUILDING || r->at.slot != by->slot || r->at.epoch != by->epoch) {
        return;
    }
    if (!ok) {
        schedule(r, text, text_bytes);
        return;
    }
    r->stage = LIVING;
    r->host = r->at;
    r->living_since_ns = pls_loop_now_ns();
    pls_names_move_actor(restarts->node->names, actor, r->host.slot, r->host.epoch);
    pls_control_packet route = {
        .type = PLS_CONTROL_ROUTE, .actor = actor, .slot = r->host.slot, .epoch = r->host.epoch};
    pls_clients_tell(restarts->node, &route);
}
