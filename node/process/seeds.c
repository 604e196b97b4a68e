/* SPDX-License-Identifier: Apache-2.0 */
/* Addresses from the options. Those that are numbers are taken as they are; names are asked for at
 * the beginning and, while this node knows no other, every few seconds again. The membership itself
 * tries again each second whatever it was given. */
#include "node/process/seeds.h"

#include "base/assert.h"
#include "node/process/net_parts.h"
#include "node/process/node.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#define LOOKUP_WAIT_MS 3000
#define LOOKUP_AGAIN_MS 5000
/* Addresses for documentation, to which every default route leads; nothing is sent there. */
#define FAR_AWAY_V4 "tcp://192.0.2.1:9"
#define FAR_AWAY_V6 "tcp://[2001:db8::1]:9"

static pls_err place_read(pls_seed_place *place, const char *text, const char *field, char *trouble)
{
    place->text = text;
    if (pls_reach_parse(text, &place->reach) != PLS_OK) {
        snprintf(trouble, PLS_TROUBLE_BYTES_MAX,
                 "%s: expected 'host:port', got '%s' (an IPv6 address stands in brackets)", field,
                 text);
        return PLS_EINVAL;
    }
    place->is_name = pls_reach_endpoint(&place->reach, place->endpoints[0]) != PLS_OK;
    place->count = place->is_name ? 0 : 1;
    return PLS_OK;
}

static pls_err places_read(pls_seeds *seeds, char *trouble)
{
    const pls_node_options *o = &seeds->net->node->settings.options;
    uint32_t given = 0;
    while (o->seeds != NULL && o->seeds[given] != NULL) {
        given++;
    }
    seeds->count = PLS_SEED_FIRST + given;
    seeds->places = calloc(seeds->count, sizeof *seeds->places);
    if (seeds->places == NULL) {
        return PLS_ENOMEM;
    }
    pls_err err = place_read(&seeds->places[PLS_SEED_BIND], o->addr, "addr", trouble);
    if (err == PLS_OK && o->advertise != NULL) {
        err = place_read(&seeds->places[PLS_SEED_ADVERTISE], o->advertise, "advertise", trouble);
    }
    for (uint32_t i = 0; err == PLS_OK && i < given; i++) {
        err = place_read(&seeds->places[PLS_SEED_FIRST + i], o->seeds[i], "seeds", trouble);
    }
    return err;
}

static void answer_take(pls_seeds *seeds, const pls_lookup_answer *answer)
{
    pls_seed_place *place = &seeds->places[answer->tag];
    place->asked = false;
    if (answer->count == 0) {
        snprintf(place->trouble, sizeof place->trouble, "%s", answer->why);
        return;
    }
    place->count = answer->count;
    memcpy(place->endpoints, answer->endpoints, sizeof place->endpoints);
    place->trouble[0] = 0;
}

static void names_ask(pls_seeds *seeds, uint32_t first)
{
    for (uint32_t i = first; i < seeds->count; i++) {
        pls_seed_place *place = &seeds->places[i];
        if (place->is_name && !place->asked) {
            pls_err err = pls_lookup_ask(seeds->lookup, &place->reach, i);
            place->asked = err == PLS_OK;
            if (!place->asked) {
                snprintf(place->trouble, sizeof place->trouble, "it cannot be looked up: %s",
                         pls_err_text(err));
            }
        }
    }
}

/* How many of the first `count` places are still being looked up. */
static bool is_waited_for(const pls_seeds *seeds, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        if (seeds->places[i].asked) {
            return true;
        }
    }
    return false;
}

/* Waits for what is needed to listen; for the seeds only where they decide on the address. */
static pls_err names_wait(pls_seeds *seeds, char *trouble)
{
    const pls_seed_place *bind = &seeds->places[PLS_SEED_BIND];
    bool by_seeds = !bind->is_name && pls_endpoint_is_wildcard(bind->endpoints[0]) &&
                    seeds->places[PLS_SEED_ADVERTISE].text == NULL;
    uint32_t needed = by_seeds ? seeds->count : PLS_SEED_FIRST;
    uint64_t until_ns = pls_loop_now_ns() + LOOKUP_WAIT_MS * PLS_NS_PER_MS;
    while (is_waited_for(seeds, needed)) {
        pls_lookup_answer answer;
        uint64_t now_ns = pls_loop_now_ns();
        int left_ms = now_ns >= until_ns ? 0 : (int)((until_ns - now_ns) / PLS_NS_PER_MS) + 1;
        if (pls_lookup_answered(seeds->lookup, left_ms, &answer) != PLS_OK) {
            break;
        }
        answer_take(seeds, &answer);
    }
    for (uint32_t i = 0; i < PLS_SEED_FIRST; i++) {
        const pls_seed_place *place = &seeds->places[i];
        if (place->text != NULL && place->count == 0) {
            snprintf(trouble, PLS_TROUBLE_BYTES_MAX, "%s: the host of '%s' is not found: %s",
                     i == PLS_SEED_BIND ? "addr" : "advertise", place->text,
                     place->asked ? "no name server answered within 3 s" : place->trouble);
            return place->asked ? PLS_ETIMEDOUT : PLS_ENOENT;
        }
    }
    return PLS_OK;
}

static void names_answered(pls_watch *watch, uint32_t events)
{
    pls_seeds *seeds = watch->owner;
    pls_lookup_answer answer;
    while (pls_lookup_answered(seeds->lookup, 0, &answer) == PLS_OK) {
        answer_take(seeds, &answer);
    }
    (void)pls_seeds_join(seeds);
    pls_net_stir(seeds->net);
}

static void names_again(pls_alarm *alarm)
{
    pls_seeds *seeds = alarm->owner;
    pls_gossip_view view = pls_gossip_look(seeds->net->gossip);
    if (view.alive_count + view.suspect_count <= 1 && !view.leaving) {
        names_ask(seeds, PLS_SEED_FIRST);
    }
    (void)!pls_loop_alarm(seeds->net->node->loop, alarm,
                          pls_loop_now_ns() + LOOKUP_AGAIN_MS * PLS_NS_PER_MS);
}

pls_err pls_seeds_open(pls_seeds *seeds, pls_net *net, char *trouble)
{
    int fd;
    bool names = false;
    seeds->net = net;
    seeds->notice = (pls_watch){.fd = -1, .ready = names_answered, .owner = seeds};
    seeds->again = (pls_alarm){.ring = names_again, .owner = seeds};
    pls_err err = places_read(seeds, trouble);
    for (uint32_t i = 0; err == PLS_OK && i < seeds->count; i++) {
        names = names || seeds->places[i].is_name;
    }
    if (err != PLS_OK || !names) {
        return err;
    }
    err = pls_lookup_create(&seeds->lookup, &fd);
    if (err != PLS_OK) {
        return err;
    }
    names_ask(seeds, 0);
    err = names_wait(seeds, trouble);
    return err == PLS_OK ? pls_loop_watch(net->node->loop, &seeds->notice, fd, EPOLLIN) : err;
}

void pls_seeds_close(pls_seeds *seeds)
{
    if (seeds->net != NULL) {
        (void)pls_loop_unwatch(seeds->net->node->loop, &seeds->notice);
        pls_loop_alarm_clear(seeds->net->node->loop, &seeds->again);
    }
    pls_lookup_destroy(seeds->lookup);
    free(seeds->places);
}

/* The address from which this host speaks to a seed: one that others can reach, if there is one. */
static bool own_by_seeds(const pls_seeds *seeds, pls_reach *own)
{
    bool found = false;
    for (uint32_t i = PLS_SEED_FIRST; i < seeds->count; i++) {
        const pls_seed_place *place = &seeds->places[i];
        for (uint32_t k = 0; k < place->count; k++) {
            pls_reach local = {.port = own->port};
            char endpoint[PLS_ENDPOINT_CAPACITY];
            if (pls_endpoint_local(place->endpoints[k], local.host) != PLS_OK ||
                pls_reach_endpoint(&local, endpoint) != PLS_OK) {
                continue;
            }
            bool far = !pls_endpoint_is_loopback(endpoint);
            if (far || !found) {
                *own = local;
                found = true;
            }
            if (far) {
                return true;
            }
        }
    }
    return found;
}

void pls_seeds_own(const pls_seeds *seeds, pls_reach *own_out)
{
    const pls_seed_place *bind = &seeds->places[PLS_SEED_BIND];
    const pls_seed_place *advertise = &seeds->places[PLS_SEED_ADVERTISE];
    const pls_seed_place *said = advertise->text != NULL ? advertise : bind;
    pls_reach own = {.port = said->reach.port == 0 ? bind->reach.port : said->reach.port};
    if (!pls_endpoint_is_wildcard(said->endpoints[0])) {
        pls_reach numeric;
        pls_assert(pls_reach_parse(said->endpoints[0], &numeric) == PLS_OK);
        memcpy(own.host, numeric.host, sizeof own.host);
    } else if (!own_by_seeds(seeds, &own) && pls_endpoint_local(FAR_AWAY_V4, own.host) != PLS_OK &&
               pls_endpoint_local(FAR_AWAY_V6, own.host) != PLS_OK) {
        snprintf(own.host, sizeof own.host, "127.0.0.1");
    }
    *own_out = own;
}

/* The membership keeps what it is given, so each endpoint goes there once. */
static bool is_new(pls_seeds *seeds, const char *endpoint)
{
    for (uint32_t i = 0; i < seeds->joined_count; i++) {
        if (strcmp(seeds->joined[i], endpoint) == 0) {
            return false;
        }
    }
    if (seeds->joined_count == PLS_SEEDS_MAX) {
        return false;
    }
    memcpy(seeds->joined[seeds->joined_count++], endpoint, PLS_ENDPOINT_CAPACITY);
    return true;
}

pls_err pls_seeds_join(pls_seeds *seeds)
{
    pls_seed list[PLS_SEEDS_MAX];
    uint32_t count = 0;
    for (uint32_t i = PLS_SEED_FIRST; i < seeds->count; i++) {
        const pls_seed_place *place = &seeds->places[i];
        for (uint32_t k = 0; k < place->count; k++) {
            const char *endpoint = place->endpoints[k];
            if (is_new(seeds, endpoint)) {
                list[count++] = (pls_seed){endpoint, (uint32_t)strlen(endpoint)};
            }
        }
    }
    pls_err err = pls_gossip_join(seeds->net->gossip, list, count, pls_loop_now_ns());
    if (seeds->lookup != NULL && seeds->again.place == 0) {
        names_again(&seeds->again);
    }
    return err;
}

void pls_seeds_trouble(pls_seeds *seeds, const char *endpoint, const char *text)
{
    for (uint32_t i = PLS_SEED_FIRST; i < seeds->count; i++) {
        pls_seed_place *place = &seeds->places[i];
        for (uint32_t k = 0; k < place->count; k++) {
            if (strcmp(place->endpoints[k], endpoint) == 0) {
                snprintf(place->trouble, sizeof place->trouble, "%s", text);
            }
        }
    }
}

size_t pls_seeds_describe(const pls_seeds *seeds, char *text, size_t capacity)
{
    size_t len = 0;
    text[0] = 0;
    for (uint32_t i = PLS_SEED_FIRST; i < seeds->count && len < capacity - 1; i++) {
        const pls_seed_place *place = &seeds->places[i];
        int wrote =
            snprintf(text + len, capacity - len, "%s%s: %s", len == 0 ? "" : "; ", place->text,
                     place->trouble[0] != 0 ? place->trouble : "no answer yet");
        len += wrote > 0 ? (size_t)wrote : 0;
    }
    return len < capacity ? len : capacity - 1;
}

bool pls_seeds_are_others(const pls_seeds *seeds)
{
    for (uint32_t i = PLS_SEED_FIRST; i < seeds->count; i++) {
        const pls_seed_place *place = &seeds->places[i];
        if (place->count != 1 || strcmp(place->endpoints[0], seeds->net->endpoint) != 0) {
            return true;
        }
    }
    return false;
}
