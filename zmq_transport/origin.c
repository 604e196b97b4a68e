/* SPDX-License-Identifier: Apache-2.0 */
/* A plain list, looked through at greetings and for answers on the control lane: both are rare
 * beside messages, which find their origin by their inlet. A session number makes forgetting safe:
 * a sender that is greeted under another number than before knows that nobody can say what arrived.
 * Called by the inlets. */
#include "zmq_transport/origin.h"

#include "base/assert.h"

#include <stdlib.h>

#define CAPACITY_FIRST 16

pls_origin *pls_origins_find(const pls_origins *origins,
                             const uint8_t node_id[PLS_ZMQ_NODE_ID_BYTES])
{
    for (uint32_t i = 0; i < origins->count; i++) {
        if (memcmp(origins->list[i]->identity.node_id, node_id, PLS_ZMQ_NODE_ID_BYTES) == 0) {
            return origins->list[i];
        }
    }
    return NULL;
}

pls_origin *pls_origins_at(const pls_origins *origins, const char *address, size_t address_bytes)
{
    for (uint32_t i = 0; i < origins->count; i++) {
        pls_origin *origin = origins->list[i];
        if (origin->inlets[PLS_LANE_CONTROL] != NULL &&
            origin->identity.address_bytes == address_bytes &&
            memcmp(origin->address, address, address_bytes) == 0) {
            return origin;
        }
    }
    return NULL;
}

static bool is_connected(const pls_origin *origin)
{
    return origin->inlets[PLS_LANE_CONTROL] != NULL || origin->inlets[PLS_LANE_BULK] != NULL;
}

/* Takes the longest silent one out of the list, to be used anew. NULL: none can go. */
static pls_origin *take_oldest(pls_origins *origins)
{
    uint32_t oldest = UINT32_MAX;
    for (uint32_t i = 0; i < origins->count; i++) {
        if (!is_connected(origins->list[i]) &&
            (oldest == UINT32_MAX || origins->list[i]->used_ns < origins->list[oldest]->used_ns)) {
            oldest = i;
        }
    }
    if (oldest == UINT32_MAX) {
        return NULL;
    }
    pls_origin *origin = origins->list[oldest];
    origins->list[oldest] = origins->list[--origins->count];
    return origin;
}

static pls_err list_grow(pls_origins *origins)
{
    if (origins->count < origins->capacity) {
        return PLS_OK;
    }
    uint32_t capacity = origins->capacity == 0 ? CAPACITY_FIRST : origins->capacity * 2;
    pls_origin **list = realloc(origins->list, capacity * sizeof(void *));
    if (list == NULL) {
        return PLS_ENOMEM;
    }
    origins->list = list;
    origins->capacity = capacity;
    return PLS_OK;
}

static pls_err origin_make(pls_origins *origins, pls_origin **origin_out)
{
    pls_origin *origin = NULL;
    pls_err err = list_grow(origins);
    if (err != PLS_OK) {
        return err;
    }
    if (origins->count >= PLS_ORIGINS_MAX) {
        origin = take_oldest(origins);
        if (origin == NULL) {
            return PLS_EFULL;
        }
        memset(origin, 0, sizeof *origin);
    } else {
        origin = calloc(1, sizeof *origin);
    }
    if (origin == NULL) {
        return PLS_ENOMEM;
    }
    while (origin->session == 0) {
        pls_zmq_key_random(&origin->session, sizeof origin->session);
    }
    origins->list[origins->count++] = origin;
    *origin_out = origin;
    return PLS_OK;
}

pls_err pls_origins_admit(pls_origins *origins, const pls_greeting *greeting,
                          const uint8_t client_key[PLS_ZMQ_KEY_BYTES], uint64_t now_ns,
                          pls_origin **origin_out)
{
    pls_origin *origin = pls_origins_find(origins, greeting->node_id);
    if (origin == NULL) {
        pls_err err = origin_make(origins, &origin);
        if (err != PLS_OK) {
            return err;
        }
        memcpy(origin->client_key, client_key, PLS_ZMQ_KEY_BYTES);
        memcpy(origin->identity.node_id, greeting->node_id, PLS_ZMQ_NODE_ID_BYTES);
        origin->identity.generation = greeting->generation;
    } else if (!pls_zmq_key_equal(origin->client_key, client_key, PLS_ZMQ_KEY_BYTES)) {
        return PLS_EPERM;
    }
    pls_assert(greeting->address_bytes < sizeof origin->address);
    memcpy(origin->name, greeting->name, greeting->name_bytes);
    memcpy(origin->address, greeting->address, greeting->address_bytes);
    origin->identity.name = origin->name;
    origin->identity.name_bytes = greeting->name_bytes;
    origin->identity.address = origin->address;
    origin->identity.address_bytes = greeting->address_bytes;
    origin->used_ns = now_ns;
    *origin_out = origin;
    return PLS_OK;
}

void pls_origins_fini(pls_origins *origins)
{
    for (uint32_t i = 0; i < origins->count; i++) {
        pls_assert(!is_connected(origins->list[i]));
        free(origins->list[i]);
    }
    free(origins->list);
    *origins = (pls_origins){0};
}
