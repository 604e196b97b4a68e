/* SPDX-License-Identifier: Apache-2.0 */
/* The members of the cluster as attached processes see them: a list on demand, and a notice for
 * each change to those who asked to follow. */
#include "node/process/roster.h"

#include "base/bytes.h"
#include "node/control_data.h"
#include "node/process/net_parts.h"
#include "node/process/node.h"

#include <stdlib.h>
#include <string.h>

/* The largest entry: see pls_node_entry_encode(). */
#define ENTRY_BYTES_MAX (64 + PLS_NAME_BYTES_MAX + PLS_ENDPOINT_CAPACITY)
#define TROUBLE_BYTES_MAX 4096

static pls_node_status status_of(pls_member_state state)
{
    switch (state) {
    case PLS_MEMBER_SUSPECT:
        return PLS_NODE_SUSPECT;
    case PLS_MEMBER_DEAD:
        return PLS_NODE_DEAD;
    case PLS_MEMBER_LEFT:
        return PLS_NODE_LEFT;
    default:
        return PLS_NODE_ALIVE;
    }
}

/* Where `scheme` stands in front of an address, it is not for users. */
static void address_set(pls_node_entry *entry, const pls_identity *identity)
{
    static const char scheme[] = "tcp://";
    size_t skipped = identity->address_bytes > sizeof scheme - 1 &&
                             memcmp(identity->address, scheme, sizeof scheme - 1) == 0
                         ? sizeof scheme - 1
                         : 0;
    entry->address = identity->address + skipped;
    entry->address_bytes = identity->address_bytes - skipped;
}

static void entry_make(pls_net *net, const pls_identity *identity, pls_member member,
                       pls_node_entry *entry)
{
    pls_member_view view;
    *entry = (pls_node_entry){.generation = identity->generation,
                              .name = identity->name,
                              .name_bytes = identity->name_bytes};
    address_set(entry, identity);
    const pls_net_peer *peer = pls_peers_of_member(&net->peers, member);
    if (peer != NULL) {
        memcpy(entry->node_id, peer->info.node_id, sizeof entry->node_id);
    } else if (pls_gossip_member(net->gossip, member, &view) == PLS_OK) {
        /* One that says nothing of itself has a node id of zeros. */
        (void)!pls_peer_meta_read(view.meta, view.meta_bytes, entry->node_id);
    }
}

static size_t members_write(pls_net *net, uint8_t *bytes, size_t capacity)
{
    pls_writer w = pls_writer_into(bytes, capacity);
    pls_member member = pls_gossip_member_next(net->gossip, 0);
    while (member != PLS_MEMBER_NONE) {
        pls_member_view view;
        pls_node_entry entry;
        if (pls_gossip_member(net->gossip, member, &view) == PLS_OK) {
            entry_make(net, &view.identity, member, &entry);
            entry.status = status_of(view.state);
            pls_node_entry_encode(&entry, &w);
        }
        member = pls_gossip_member_next(net->gossip, member + 1);
    }
    return pls_writer_len(&w);
}

static uint32_t flags_of(const pls_net *net)
{
    pls_gossip_view view = pls_gossip_look(net->gossip);
    bool joined = view.alive_count + view.suspect_count > 1 || !pls_seeds_are_others(&net->seeds);
    return (joined ? PLS_MEMBERS_JOINED : 0) | (view.isolated ? PLS_MEMBERS_ISOLATED : 0);
}

static void list_send(pls_client *client, uint32_t request)
{
    pls_net *net = client->node->net;
    pls_gossip_view view = pls_gossip_look(net->gossip);
    size_t capacity =
        (size_t)(view.alive_count + view.suspect_count + view.dead_count + view.left_count + 1) *
        ENTRY_BYTES_MAX;
    char trouble[TROUBLE_BYTES_MAX];
    uint8_t *bytes = malloc(capacity);
    if (bytes == NULL) {
        pls_client_reply(client, request, PLS_ENOMEM);
        return;
    }
    size_t len = members_write(net, bytes, capacity);
    pls_control_packet reply = {.request = request,
                                .flags = flags_of(net),
                                .text = trouble,
                                .text_bytes =
                                    pls_seeds_describe(&net->seeds, trouble, sizeof trouble)};
    pls_client_reply_list(client, &reply, "pulsing-members", bytes, len);
    free(bytes);
}

void pls_roster_list(pls_client *client, pls_control_packet *packet)
{
    client->follows_members = client->follows_members || (packet->flags & PLS_MEMBERS_FOLLOW) != 0;
    if (client->node->net != NULL) {
        list_send(client, packet->request);
        return;
    }
    pls_control_packet reply = {
        .type = PLS_CONTROL_REPLY, .request = packet->request, .flags = PLS_MEMBERS_JOINED};
    pls_client_send(client, &reply);
}

static pls_member_event event_of(pls_gossip_event event)
{
    switch (event) {
    case PLS_EVENT_JOINED:
        return PLS_NODE_JOINED;
    case PLS_EVENT_SUSPECT:
        return PLS_NODE_SUSPECTED;
    case PLS_EVENT_ALIVE:
        return PLS_NODE_BACK;
    case PLS_EVENT_DEAD:
        return PLS_NODE_DIED;
    case PLS_EVENT_LEFT:
        return PLS_NODE_GONE;
    case PLS_EVENT_ISOLATED:
        return PLS_NODE_ISOLATED;
    case PLS_EVENT_REGAINED:
        return PLS_NODE_REGAINED;
    case PLS_EVENT_CONFLICT:
        return PLS_NODE_CONFLICT;
    default:
        return PLS_NODE_UNCHANGED;
    }
}

static void followers_tell(pls_node *node, const pls_control_packet *notice)
{
    for (uint32_t slot = 0; slot < PLS_SLOTS_MAX; slot++) {
        pls_client *client = node->slots[slot].client;
        if (client != NULL && client->follows_members && client->stage == PLS_CLIENT_JOINED) {
            pls_client_send(client, notice);
        }
    }
}

void pls_roster_tell(pls_net *net, const pls_action *action)
{
    uint8_t bytes[ENTRY_BYTES_MAX];
    pls_node_entry entry;
    pls_writer w = pls_writer_into(bytes, sizeof bytes);
    pls_control_packet notice = {.type = PLS_CONTROL_MEMBER, .number = event_of(action->event)};
    if (notice.number == PLS_NODE_UNCHANGED) {
        return;
    }
    entry_make(net, &action->identity, action->member, &entry);
    entry.status = status_of(pls_gossip_member_state(net->gossip, action->member));
    pls_node_entry_encode(&entry, &w);
    notice.data = bytes;
    notice.data_bytes = pls_writer_len(&w);
    followers_tell(net->node, &notice);
}

void pls_roster_name_lost(pls_net *net, const char *name, size_t name_bytes, pls_member winner)
{
    uint8_t bytes[ENTRY_BYTES_MAX];
    pls_node_entry entry = {0};
    pls_member_view view;
    pls_writer w = pls_writer_into(bytes, sizeof bytes);
    if (pls_gossip_member(net->gossip, winner, &view) == PLS_OK) {
        entry_make(net, &view.identity, winner, &entry);
    }
    entry.status = PLS_NODE_ALIVE;
    pls_node_entry_encode(&entry, &w);
    pls_control_packet notice = {.type = PLS_CONTROL_MEMBER,
                                 .number = PLS_NODE_NAME_LOST,
                                 .name = name,
                                 .name_bytes = name_bytes,
                                 .data = bytes,
                                 .data_bytes = pls_writer_len(&w)};
    followers_tell(net->node, &notice);
}
