/* SPDX-License-Identifier: Apache-2.0 */
/* What stands in for the net in programs that are linked without ZeroMQ: pulsing-node, which hands
 * over to pulsing-node-net before it needs one, and tests. Taken from the archive only where net.c
 * is not linked. */
#include "node/process/net.h"

#include "base/assert.h"
#include "node/process/node.h"
#include "node/process/roster.h"
#include "node/requests.h"

#include <stdio.h>
#include <stdlib.h>

bool pls_net_is_linked(void)
{
    return false;
}

pls_err pls_net_create(pls_node *node, pls_net **net_out, char *trouble)
{
    if (node->settings.options.addr != NULL) {
        snprintf(trouble, PLS_TROUBLE_BYTES_MAX,
                 "this program has no network: pulsing-node-net is missing beside it");
        return PLS_EUNSUPPORTED;
    }
    *net_out = NULL;
    return PLS_OK;
}

void pls_net_destroy(pls_net *net)
{
    pls_assert(net == NULL);
}

bool pls_net_leave(pls_net *net)
{
    pls_assert(net == NULL);
    return true;
}

/* Without a net nobody calls these. */
pls_err pls_net_name_put(pls_net *net, const char *name, size_t name_bytes, uint64_t actor,
                         bool unique)
{
    abort();
}

void pls_net_name_remove(pls_net *net, const char *name, size_t name_bytes)
{
    abort();
}

uint32_t pls_net_name_find(pls_net *net, const char *name, size_t name_bytes, pls_net_hit *hits,
                           uint32_t hits_max)
{
    abort();
}

pls_err pls_net_name_watch(pls_net *net, const char *name, size_t name_bytes)
{
    abort();
}

void pls_net_name_unwatch(pls_net *net, const char *name, size_t name_bytes)
{
    abort();
}

void pls_roster_list(pls_client *client, pls_control_packet *packet)
{
    pls_control_packet reply = {
        .type = PLS_CONTROL_REPLY, .request = packet->request, .flags = PLS_MEMBERS_JOINED};
    pls_client_send(client, &reply);
}
