/* SPDX-License-Identifier: Apache-2.0 */
/* Requests about names. A find that has to wait stands in one list and is answered by the register
 * that brings the name, by its alarm, or not at all when its process goes. */
#include "node/process/registry.h"

#include "node/process/node.h"

#include <stdlib.h>
#include <string.h>

struct pls_name_waiter {
    pls_node *node;
    pls_name_waiter *next;
    pls_name_waiter *previous;
    pls_request_key key;
    pls_alarm alarm;
    size_t name_bytes;
    char name[PLS_NAME_BYTES_MAX];
};

static void waiter_remove(pls_name_waiter *waiter)
{
    pls_node *node = waiter->node;
    pls_loop_alarm_clear(node->loop, &waiter->alarm);
    if (waiter->previous != NULL) {
        waiter->previous->next = waiter->next;
    } else {
        node->name_waiters = waiter->next;
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

static void waiters_serve(pls_node *node, const pls_name *name)
{
    pls_name_waiter *next;
    for (pls_name_waiter *waiter = node->name_waiters; waiter != NULL; waiter = next) {
        next = waiter->next;
        if (waiter->name_bytes != name->entry.name_bytes ||
            memcmp(waiter->name, name->entry.name, waiter->name_bytes) != 0) {
            continue;
        }
        pls_client *client = pls_client_find(node, waiter->key.client);
        if (client != NULL) {
            found_send(client, waiter->key.request, name);
        }
        waiter_remove(waiter);
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
    pls_client_reply(client, packet->request, err);
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
    waiter->name_bytes = packet->name_bytes;
    memcpy(waiter->name, packet->name, packet->name_bytes);
    if (packet->number < PLS_WAIT_FOREVER) {
        pls_err err = pls_loop_alarm(node->loop, &waiter->alarm,
                                     pls_loop_now_ns() + packet->number * PLS_NS_PER_MS);
        if (err != PLS_OK) {
            free(waiter);
            return err;
        }
    }
    waiter->next = node->name_waiters;
    if (waiter->next != NULL) {
        waiter->next->previous = waiter;
    }
    node->name_waiters = waiter;
    node->name_waiter_count++;
    client->name_waits++;
    return PLS_OK;
}

void pls_registry_find(pls_client *client, pls_control_packet *packet)
{
    pls_node *node = client->node;
    if (!name_is_good(packet)) {
        pls_client_reply(client, packet->request, PLS_EINVAL);
        return;
    }
    const pls_name *name = pls_names_find(node->names, packet->name, packet->name_bytes);
    if (name != NULL) {
        found_send(client, packet->request, name);
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

void pls_registry_cancel(pls_node *node, pls_request_key key)
{
    for (pls_name_waiter *waiter = node->name_waiters; waiter != NULL; waiter = waiter->next) {
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
    for (pls_name_waiter *w = client->name_waits > 0 ? node->name_waiters : NULL; w != NULL;
         w = next) {
        next = w->next;
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
    while (node->name_waiters != NULL) {
        waiter_remove(node->name_waiters);
    }
}
