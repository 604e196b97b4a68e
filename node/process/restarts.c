/* SPDX-License-Identifier: Apache-2.0 */
#include "node/process/restarts.h"
#include "node/process/node.h"
#include <stdlib.h>

struct pls_restarts {
    pls_node *node;
};
pls_err pls_restarts_create(pls_node *node, pls_restarts **restarts_out)
{
    *restarts_out = calloc(1, sizeof(pls_restarts));
    (*restarts_out)->node = node;
    return PLS_OK;
}
void pls_restarts_destroy(pls_restarts *restarts)
{
    free(restarts);
}
bool pls_restarts_where(pls_restarts *restarts, uint64_t actor, pls_client_key *key_out,
                        bool *rebuilding_out)
{
    pls_client_key key = {(uint32_t)(actor >> 56), (uint32_t)(actor >> 32) & PLS_EPOCH_MAX};
    pls_client *c = pls_client_find(restarts->node, key);
    *key_out = key;
    *rebuilding_out = false;
    return c != NULL && c->stage == PLS_CLIENT_JOINED;
}
bool pls_restarts_forget(pls_restarts *restarts, uint64_t actor)
{
    return false;
}
bool pls_restarts_has(pls_restarts *restarts, uint64_t actor)
{
    return false;
}
void pls_restarts_client_dead(pls_restarts *restarts, pls_client *client, bool in_order)
{
}
void pls_restarts_failed(pls_restarts *restarts, uint64_t actor, pls_client *at, const char *text,
                         size_t text_bytes)
{
}
void pls_restarts_rebuilt(pls_restarts *restarts, uint64_t actor, pls_client *by, bool ok,
                          const char *text, size_t text_bytes)
{
}
void pls_restarts_serve_register(pls_client *client, pls_control_packet *packet)
{
}
