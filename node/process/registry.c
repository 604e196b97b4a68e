/* SPDX-License-Identifier: Apache-2.0 */
/* Requests about names. A find that has to wait stands in the list of its name's hash, and is
 * answered by the register that brings the name, by the cluster's news of another node's, by its
 * alarm, or not at all when its process goes. */
#include "node/process/registry.h"

#include "base/bytes.h"
#include "node/process/net.h"
#include "node/process/node.h"

#include <stdlib.h>
#include <string.h>

/* Replicas of one name that are listed; their bytes fit into one packet. */
#define FAR_MAX 1024
_Static_assert(FAR_MAX *PLS_FAR_ENTRY_BYTES <= PLS_CONTROL_INLINE_BYTES_MAX, "a list fits");

struct pls_name_waiter {
    pls_node *node;
    pls_name_waiter *next;
    pls_name_waiter *previous;
    pls_request_key key;
    pls_alarm alarm;
    uint32_t flags; /* PLS_FIND_LOCAL, PLS_FIND_PUBLIC */
    uint32_t bucket;
    bool watches; /* the cluster's news of the name */
    size_t name_bytes;
    char name[PLS_NAME_BYTES_MAX];
};

static uint32_t bucket_of(const char *name, size_t name_bytes)
{
    uint32_t hash = 0;
    for (size_t i = 0; i < name_bytes; i++) {
        hash = hash * 31 + (uint8_t)name[i];
    }
    return hash % PLS_NAME_WAITER_BUCKETS;
}

static void waiter_remove(pls_name_waiter *waiter)
{
    pls_node *node = waiter->node;
    pls_loop_alarm_clear(node->loop, &waiter->alarm);
    if (waiter->watches && node->net != NULL) {
        pls_net_name_unwatch(node->net, waiter->name, waiter->name_bytes);
    }
    if (waiter->previous != NULL) {
        waiter->previous->next = waiter->next;
    } else {
        node->name_waiters[waiter->bucket] = waiter->next;
    }
    if (waiter->next != NULL) {
        waiter->next->previous = waiter->previous;
    }
    node->name_waiter_count--;
    pls_client *client = pls_client_find(node, waiter->key.client);
    if (client != NULL) {
        client->name_waits--;
    }
    free(waiter);
}

static void waiter_expired(pls_alarm *alarm)
{
    pls_name_waiter *waiter = alarm->owner;
    pls_client_reply_to(waiter->node, waiter->key, PLS_ENOENT);
    waiter_remove(waiter);
}

static void found_send(pls_client *client, uint32_t request, const pls_name *name)
{
    pls_client_key key;
    bool rebuilding = false;
    bool lives = pls_restarts_where(client->node->restarts, name->entry.actor, &key, &rebuilding);
    uint32_t flags = name->entry.flags | (!lives || rebuilding ? PLS_NAME_REBUILDING : 0);
    pls_control_packet reply = {.type = PLS_CONTROL_REPLY,
                                .request = request,
                                .actor = name->entry.actor,
                                .slot = name->entry.slot,
                                .epoch = name->entry.epoch,
                                .flags = flags,
                                .text = name->entry.class_name,
                                .text_bytes = name->entry.class_name_bytes,
                                .data = name->entry.metadata,
                                .data_bytes = name->entry.metadata_bytes};
    pls_client_send(client, &reply);
}

static void far_send(pls_client *client, uint32_t request, const pls_net_hit *hit)
{
    pls_control_packet reply = {.type = PLS_CONTROL_REPLY,
                                .request = request,
                                .actor = hit->actor,
                                .flags = PLS_NAME_PUBLIC | PLS_NAME_FAR,
                                .data = hit->node_id,
                                .data_bytes = sizeof hit->node_id};
    pls_client_send(client, &reply);
}

static bool is_sought(uint32_t flags, const pls_name *name)
{
    return (flags & PLS_FIND_PUBLIC) == 0 || (name->entry.flags & PLS_NAME_PUBLIC) != 0;
}

/* Who waits for a name, from `waiter` on in its bucket. */
static pls_name_waiter *waiter_for(pls_name_waiter *waiter, const char *name, size_t name_bytes)
{
    while (waiter != NULL &&
           (waiter->name_bytes != name_bytes || memcmp(waiter->name, name, name_bytes) != 0)) {
        waiter = waiter->next;
    }
    return waiter;
}

static void waiters_serve(pls_node *node, const pls_name *name)
{
    const char *text = name->entry.name;
    size_t bytes = name->entry.name_bytes;
    pls_name_waiter *next = node->name_waiters[bucket_of(text, bytes)];
    for (;;) {
        pls_name_waiter *waiter = waiter_for(next, text, bytes);
        if (waiter == NULL) {
            return;
        }
        next = waiter->next;
        if (!is_sought(waiter->flags, name)) {
            continue;
        }
        pls_client *client = pls_client_find(node, waiter->key.client);
        if (client != NULL) {
            found_send(client, waiter->key.request, name);
        }
        waiter_remove(waiter);
    }
}

void pls_registry_heard(pls_node *node, const char *name, size_t name_bytes)
{
    pls_net_hit hit;
    pls_name_waiter *next = node->name_waiters[bucket_of(name, name_bytes)];
    for (;;) {
        pls_name_waiter *waiter = waiter_for(next, name, name_bytes);
        if (waiter == NULL || pls_net_name_find(node->net, name, name_bytes, &hit, 1) == 0) {
            return;
        }
        next = waiter->next;
        if (!waiter->watches) {
            continue;
        }
        pls_client *client = pls_client_find(node, waiter->key.client);
        if (client != NULL) {
            far_send(client, waiter->key.request, &hit);
        }
        waiter_remove(waiter);
    }
}

void pls_registry_lost(pls_node *node, const char *name, size_t name_bytes)
{
    pls_name *lost = pls_names_find(node->names, name, name_bytes);
    if (lost != NULL) {
        lost->entry.flags &= ~(PLS_NAME_PUBLIC | PLS_NAME_UNIQUE);
    }
}

static bool name_is_good(const pls_control_packet *packet)
{
    return packet->name_bytes > 0 && memchr(packet->name, 0, packet->name_bytes) == NULL;
}

static void holder_send(pls_client *client, uint32_t request, const pls_name *holder)
{
    pls_control_packet reply = {.type = PLS_CONTROL_REPLY,
                                .request = request,
                                .status = PLS_EEXIST,
                                .actor = holder->entry.actor,
                                .slot = holder->entry.slot,
                                .epoch = holder->entry.epoch,
                                .text = holder->entry.class_name,
                                .text_bytes = holder->entry.class_name_bytes};
    pls_client_send(client, &reply);
}

/* Makes a public name known to the cluster. */
static pls_err name_publish(pls_node *node, pls_name *name)
{
    const pls_name_entry *entry = &name->entry;
    if (node->net == NULL || (entry->flags & PLS_NAME_PUBLIC) == 0) {
        return PLS_OK;
    }
    pls_err err = pls_net_name_put(node->net, entry->name, entry->name_bytes, entry->actor,
                                   (entry->flags & PLS_NAME_UNIQUE) != 0);
    if (err != PLS_OK) {
        pls_names_remove(node->names, name);
    }
    return err;
}

static void name_gone(void *owner, const pls_name *name)
{
    pls_node *node = owner;
    if (node->net != NULL && (name->entry.flags & PLS_NAME_PUBLIC) != 0) {
        pls_net_name_remove(node->net, name->entry.name, name->entry.name_bytes);
    }
}

void pls_registry_open(pls_node *node)
{
    pls_names_on_gone(node->names, name_gone, node);
}

void pls_registry_register(pls_client *client, pls_control_packet *packet)
{
    pls_node *node = client->node;
    pls_client_key key;
    bool rebuilding = false;
    if (!name_is_good(packet) || packet->data_bytes > PLS_METADATA_BYTES_MAX) {
        pls_client_reply(client, packet->request, PLS_EINVAL);
        return;
    }
    if (!pls_restarts_where(node->restarts, packet->actor, &key, &rebuilding)) {
        pls_client_reply(client, packet->request, PLS_EDEAD);
        return;
    }
    pls_name_entry entry = {
        .actor = packet->actor,
        .slot = key.slot,
        .epoch = key.epoch,
        .flags = packet->flags & (PLS_NAME_PUBLIC | PLS_NAME_UNIQUE),
        .name = packet->name,
        .name_bytes = packet->name_bytes,
        .class_name = packet->text,
        .class_name_bytes = packet->text_bytes,
        .metadata = packet->data,
        .metadata_bytes = packet->data_bytes,
    };
    pls_name *name = NULL;
    pls_err err = pls_names_add(node->names, &entry, &name);
    if (err == PLS_EEXIST) {
        holder_send(client, packet->request, name);
        return;
    }
    if (err == PLS_OK) {
        err = name_publish(node, name);
    }
    pls_control_packet reply = {.type = PLS_CONTROL_REPLY,
                                .request = packet->request,
                                .status = err,
                                .flags = err == PLS_EEXIST ? PLS_NAME_FAR : 0};
    pls_client_send(client, &reply);
    if (err == PLS_OK) {
        waiters_serve(node, name);
    }
}

void pls_registry_unregister(pls_client *client, pls_control_packet *packet)
{
    pls_node *node = client->node;
    pls_name *name = pls_names_find(node->names, packet->name, packet->name_bytes);
    if (name == NULL || (packet->actor != 0 && name->entry.actor != packet->actor)) {
        pls_client_reply(client, packet->request, PLS_ENOENT);
        return;
    }
    pls_names_remove(node->names, name);
    pls_client_reply(client, packet->request, PLS_OK);
}

static pls_err wait_begin(pls_client *client, const pls_control_packet *packet)
{
    pls_node *node = client->node;
    if (node->name_waiter_count >= PLS_NAME_WAITERS_MAX ||
        client->name_waits >= PLS_NAME_WAITERS_PER_CLIENT_MAX) {
        return PLS_EFULL;
    }
    pls_name_waiter *waiter = calloc(1, sizeof *waiter);
    if (waiter == NULL) {
        return PLS_ENOMEM;
    }
    waiter->node = node;
    waiter->key = (pls_request_key){pls_client_key_of(client), packet->request};
    waiter->alarm = (pls_alarm){.ring = waiter_expired, .owner = waiter};
    waiter->flags = packet->flags;
    waiter->bucket = bucket_of(packet->name, packet->name_bytes);
    waiter->name_bytes = packet->name_bytes;
    memcpy(waiter->name, packet->name, packet->name_bytes);
    if (node->net != NULL && (packet->flags & PLS_FIND_LOCAL) == 0) {
        pls_err err = pls_net_name_watch(node->net, waiter->name, waiter->name_bytes);
        if (err != PLS_OK) {
            free(waiter);
            return err;
        }
        waiter->watches = true;
    }
    if (packet->number < PLS_WAIT_FOREVER) {
        pls_err err = pls_loop_alarm(node->loop, &waiter->alarm,
                                     pls_loop_now_ns() + packet->number * PLS_NS_PER_MS);
        if (err != PLS_OK) {
            if (waiter->watches) {
                pls_net_name_unwatch(node->net, waiter->name, waiter->name_bytes);
            }
            free(waiter);
            return err;
        }
    }
    pls_name_waiter **first = &node->name_waiters[waiter->bucket];
    waiter->next = *first;
    if (waiter->next != NULL) {
        waiter->next->previous = waiter;
    }
    *first = waiter;
    node->name_waiter_count++;
    client->name_waits++;
    return PLS_OK;
}

static void far_list(pls_client *client, const pls_control_packet *packet)
{
    pls_net_hit hits[FAR_MAX];
    uint8_t bytes[FAR_MAX * PLS_FAR_ENTRY_BYTES];
    pls_writer w = pls_writer_into(bytes, sizeof bytes);
    pls_net *net = client->node->net;
    uint32_t count =
        net == NULL ? 0 : pls_net_name_find(net, packet->name, packet->name_bytes, hits, FAR_MAX);
    for (uint32_t i = 0; i < count; i++) {
        pls_write_u64(&w, hits[i].actor);
        pls_write_bytes(&w, hits[i].node_id, sizeof hits[i].node_id);
    }
    pls_control_packet reply = {.type = PLS_CONTROL_REPLY,
                                .request = packet->request,
                                .data = bytes,
                                .data_bytes = pls_writer_len(&w)};
    pls_client_send(client, &reply);
}

void pls_registry_find(pls_client *client, pls_control_packet *packet)
{
    pls_node *node = client->node;
    if (!name_is_good(packet)) {
        pls_client_reply(client, packet->request, PLS_EINVAL);
        return;
    }
    if ((packet->flags & PLS_FIND_FAR) != 0) {
        far_list(client, packet);
        return;
    }
    const pls_name *name = pls_names_find(node->names, packet->name, packet->name_bytes);
    if (name != NULL && is_sought(packet->flags, name)) {
        found_send(client, packet->request, name);
        return;
    }
    pls_net_hit hit;
    if (node->net != NULL && (packet->flags & PLS_FIND_LOCAL) == 0 &&
        pls_net_name_find(node->net, packet->name, packet->name_bytes, &hit, 1) > 0) {
        far_send(client, packet->request, &hit);
        return;
    }
    pls_err err = packet->number == 0 ? PLS_ENOENT : wait_begin(client, packet);
    if (err != PLS_OK) {
        pls_client_reply(client, packet->request, err);
    }
}

void pls_registry_list(pls_client *client, pls_control_packet *packet)
{
    const pls_names *names = client->node->names;
    size_t len = pls_names_encoded_bytes(names);
    uint8_t *bytes = malloc(len + 1);
    if (bytes == NULL) {
        pls_client_reply(client, packet->request, PLS_ENOMEM);
        return;
    }
    pls_names_encode(names, bytes);
    pls_control_packet reply = {.request = packet->request};
    pls_client_reply_list(client, &reply, "pulsing-names", bytes, len);
    free(bytes);
}

/* The first waiter at all, or the one after `waiter`; NULL at the end. */
static pls_name_waiter *waiter_next(pls_node *node, const pls_name_waiter *waiter)
{
    uint32_t bucket = 0;
    if (waiter != NULL) {
        if (waiter->next != NULL) {
            return waiter->next;
        }
        bucket = waiter->bucket + 1;
    }
    while (bucket < PLS_NAME_WAITER_BUCKETS && node->name_waiters[bucket] == NULL) {
        bucket++;
    }
    return bucket < PLS_NAME_WAITER_BUCKETS ? node->name_waiters[bucket] : NULL;
}

void pls_registry_cancel(pls_node *node, pls_request_key key)
{
    pls_name_waiter *waiter = node->name_waiter_count > 0 ? waiter_next(node, NULL) : NULL;
    for (; waiter != NULL; waiter = waiter_next(node, waiter)) {
        if (waiter->key.client.slot == key.client.slot &&
            waiter->key.client.epoch == key.client.epoch && waiter->key.request == key.request) {
            waiter_remove(waiter);
            return;
        }
    }
}

void pls_registry_client_dying(pls_client *client)
{
    pls_node *node = client->node;
    pls_name_waiter *next;
    for (pls_name_waiter *w = client->name_waits > 0 ? waiter_next(node, NULL) : NULL; w != NULL;
         w = next) {
        next = waiter_next(node, w);
        if (w->key.client.slot == client->slot && w->key.client.epoch == client->epoch) {
            waiter_remove(w);
        }
    }
    pls_name *following;
    for (pls_name *name = pls_names_at_slot(node->names, client->slot); name != NULL;
         name = following) {
        following = name->slot_next;
        if (!pls_restarts_has(node->restarts, name->entry.actor)) {
            pls_names_remove(node->names, name);
        }
    }
}

void pls_registry_fini(pls_node *node)
{
    while (node->name_waiter_count > 0) {
        waiter_remove(waiter_next(node, NULL));
    }
}
