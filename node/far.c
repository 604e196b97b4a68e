/* SPDX-License-Identifier: Apache-2.0 */
/* Actors of other nodes, as this process sees them. Each gets a target with a number of this
 * process's own in the slot of the node process; the gateway there is told once, in the ring that
 * the messages take, what the number means. Everything else about it is as for any target.
 * Invariant: a far is in its bucket exactly as long as its target exists. */
#include "node/runtime_parts.h"

#include <stdlib.h>
#include <string.h>

#define NODE_EPOCH 1

_Static_assert(PULSING_FAR_SLOT == PLS_NODE_SLOT, "the gateway is in the node process");
_Static_assert(PULSING_NODE_ID_BYTES == PLS_NODE_ID_BYTES, "one size of node ids");
_Static_assert(PULSING_NODE_ID_BYTES == PLS_WIRE_NODE_ID_BYTES, "one size of node ids");

static uint32_t bucket(const uint8_t *node_id, uint64_t actor_id)
{
    uint64_t word = 0;
    memcpy(&word, node_id, sizeof word);
    word = (word ^ actor_id) * UINT64_C(0x9e3779b97f4a7c15);
    return (uint32_t)(word >> 32) % PLS_BUCKETS;
}

static pls_far *far_find(const pulsing *p, const uint8_t *node_id, uint64_t actor_id)
{
    pls_far *far = p->fars[bucket(node_id, actor_id)];
    while (far != NULL &&
           (far->actor_id != actor_id || memcmp(far->node_id, node_id, sizeof far->node_id) != 0)) {
        far = far->next;
    }
    return far;
}

/* Sends something to the gateway that is not for an actor. PLS_EUNSUPPORTED: there is none. */
static pls_err gateway_tell(pulsing *p, pls_wire_type type, const void *bytes, uint32_t len)
{
    pls_link *link = NULL;
    pls_err err = pls_link_get(p, PULSING_FAR_SLOT, NODE_EPOCH, true, &link);
    if (err != PLS_OK) {
        return err == PLS_EDEAD ? PLS_EUNSUPPORTED : err;
    }
    pls_parcel *parcel = pls_parcel_new(bytes, len, (uint16_t)type, 0);
    if (parcel == NULL) {
        return PLS_ENOMEM;
    }
    parcel->slot = PULSING_FAR_SLOT;
    parcel->epoch = NODE_EPOCH;
    (void)pls_link_send(p, link, parcel);
    return PLS_OK;
}

static pls_err far_make(pulsing *p, const uint8_t *node_id, uint64_t actor_id, uint32_t window,
                        pulsing_target **target_out)
{
    pls_wire_route route = {.id = pls_actor_id(PULSING_FAR_SLOT, NODE_EPOCH, ++p->far_counter),
                            .actor_id = actor_id};
    memcpy(route.node_id, node_id, sizeof route.node_id);
    pls_far *far = calloc(1, sizeof *far);
    if (far == NULL) {
        return PLS_ENOMEM;
    }
    pls_err err = gateway_tell(p, PLS_WIRE_ROUTE, &route, sizeof route);
    if (err == PLS_OK) {
        err = pulsing_target_get(p, route.id, window, false, &far->target);
    }
    if (err != PLS_OK) {
        free(far);
        return err;
    }
    far->actor_id = actor_id;
    memcpy(far->node_id, node_id, sizeof far->node_id);
    far->target->far = far;
    uint32_t at = bucket(node_id, actor_id);
    far->next = p->fars[at];
    p->fars[at] = far;
    *target_out = far->target;
    return PLS_OK;
}

pls_err pulsing_target_far_get(pulsing *p, const uint8_t node_id[PULSING_NODE_ID_BYTES],
                               uint64_t actor_id, uint32_t window, pulsing_target **target_out)
{
    if (memcmp(node_id, p->info->node_id, PULSING_NODE_ID_BYTES) == 0) {
        return pulsing_target_get(p, actor_id, window, false, target_out);
    }
    const pls_far *far = far_find(p, node_id, actor_id);
    if (far == NULL) {
        return far_make(p, node_id, actor_id, window, target_out);
    }
    far->target->references++;
    *target_out = far->target;
    return PLS_OK;
}

void pls_far_forget(pulsing *p, pls_far *far)
{
    pls_far **at = &p->fars[bucket(far->node_id, far->actor_id)];
    while (*at != far) {
        at = &(*at)->next;
    }
    *at = far->next;
    if (p->closed_text == NULL && !pulsing_forked(p)) {
        pls_wire_signal gone = {far->target->id, 0};
        (void)gateway_tell(p, PLS_WIRE_UNROUTE, &gone, sizeof gone);
    }
    free(far);
}

pls_err pulsing_stream_far_subscribe(pulsing *p, const pulsing_far_writer *writer, void *user,
                                     uint64_t *call_out)
{
    if (memcmp(writer->node_id, p->info->node_id, PULSING_NODE_ID_BYTES) == 0) {
        return pulsing_stream_subscribe(p, writer->slot, writer->epoch, writer->writer_id, user,
                                        call_out);
    }
    uint64_t call_id = pls_call_open(p, NULL, user, PULSING_FAR_SLOT, NODE_EPOCH, PLS_CALL_STREAM);
    if (call_id == 0) {
        return PLS_ENOMEM;
    }
    pls_call *call = pls_call_find(p, call_id);
    /* The gateway knows a stream that is read here by its reader. */
    call->peer_id = call_id;
    pls_watch_wait_open(p, call, NULL);
    pls_wire_far_open open = {.call_id = call_id,
                              .writer_id = writer->writer_id,
                              .epoch = writer->epoch,
                              .slot = writer->slot};
    memcpy(open.node_id, writer->node_id, sizeof open.node_id);
    pls_err err = gateway_tell(p, PLS_WIRE_FAR_OPEN, &open, sizeof open);
    if (err != PLS_OK) {
        pls_call_close(p, call_id);
        return err;
    }
    *call_out = call_id;
    return PLS_OK;
}
