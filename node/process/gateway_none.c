/* SPDX-License-Identifier: Apache-2.0 */
/* What stands in for the gateway in programs that are linked without ZeroMQ: there node->net is
 * always NULL, so none of this is reached. Taken from the archive only where gateway.c is not
 * linked. */
#include "node/process/gateway.h"

#include "base/assert.h"

#include <stddef.h>

pls_err pls_gateway_create(pls_node *node, pls_gateway **gateway_out)
{
    return PLS_EUNSUPPORTED;
}

void pls_gateway_destroy(pls_gateway *gateway)
{
    pls_assert(gateway == NULL);
}

int pls_gateway_inbox_fd(const pls_gateway *gateway)
{
    return -1;
}

int pls_gateway_bell_fd(const pls_gateway *gateway)
{
    return -1;
}

int pls_gateway_segment(const pls_gateway *gateway, uint32_t segment)
{
    return -1;
}

void pls_gateway_client_dead(pls_gateway *gateway, const pls_client *client)
{
    pls_assert(gateway == NULL);
}
