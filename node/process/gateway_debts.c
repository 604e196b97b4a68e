/* SPDX-License-Identifier: Apache-2.0 */
/* Whose tells an actor's credit is for. A process gives credit for what it took from slot 0 as a
 * whole; an actor takes messages in the order in which they came, so the credit belongs to the
 * oldest ones. Invariant: an actor's runs are in the order in which its tells were passed on. */
#include "node/process/gateway_parts.h"

#include <stdlib.h>

static pls_gate_debtor **place_of(pls_gateway *gateway, uint64_t actor_id)
{
    uint32_t at = (uint32_t)((actor_id ^ actor_id >> 32) * 2654435761u) % PLS_GATE_DEBTORS;
    pls_gate_debtor **place = &gateway->debtors[at];
    while (*place != NULL && (*place)->actor_id != actor_id) {
        place = &(*place)->next;
    }
    return place;
}

void pls_gate_credit_give(pls_gate_peer *peer, uint64_t route, uint64_t count)
{
    pls_gate_head head = {.kind = PLS_GATE_CREDIT, .id = route, .value = count};
    pls_gate_say(peer, &head, pls_gate_stream(route, 0), "");
}

static void debts_give(const pls_gate_debtor *debtor)
{
    for (const pls_gate_debt *debt = debtor->first; debt != NULL; debt = debt->next) {
        if (debt->peer != NULL) {
            pls_gate_credit_give(debt->peer, debt->route, debt->count);
        }
    }
}

static void debtor_drop(pls_gateway *gateway, pls_gate_debtor **place)
{
    pls_gate_debtor *debtor = *place;
    while (debtor->first != NULL) {
        pls_gate_debt *debt = debtor->first;
        debtor->first = debt->next;
        gateway->debt_count--;
        free(debt);
    }
    *place = debtor->next;
    free(debtor);
}

pls_err pls_gate_debt_add(pls_gateway *gateway, uint64_t actor_id, uint16_t slot,
                          pls_gate_peer *peer, uint64_t route)
{
    pls_gate_debtor **place = place_of(gateway, actor_id);
    pls_gate_debtor *debtor = *place;
    if (debtor != NULL && debtor->slot != slot) {
        /* It was rebuilt elsewhere before its old process's end has come here. */
        debts_give(debtor);
        debtor_drop(gateway, place);
        debtor = NULL;
    }
    if (debtor != NULL && debtor->last->peer == peer && debtor->last->route == route) {
        debtor->last->count++;
        return PLS_OK;
    }
    if (gateway->debt_count >= PLS_GATE_DEBTS_MAX) {
        return PLS_EFULL;
    }
    pls_gate_debt *debt = calloc(1, sizeof *debt);
    if (debt != NULL && debtor == NULL) {
        debtor = calloc(1, sizeof *debtor);
    }
    if (debt == NULL || debtor == NULL) {
        free(debt);
        return PLS_ENOMEM;
    }
    *debt = (pls_gate_debt){.peer = peer, .route = route, .count = 1};
    debtor->actor_id = actor_id;
    debtor->slot = slot;
    if (debtor->last == NULL) {
        debtor->first = debt;
        debtor->next = *place;
        *place = debtor;
    } else {
        debtor->last->next = debt;
    }
    debtor->last = debt;
    gateway->debt_count++;
    return PLS_OK;
}

bool pls_gate_debt_next(pls_gateway *gateway, uint64_t actor_id, uint16_t slot,
                        pls_gate_debt *debt_out)
{
    const pls_gate_debtor *debtor = *place_of(gateway, actor_id);
    if (debtor == NULL || debtor->slot != slot) {
        return false;
    }
    *debt_out = *debtor->first;
    return true;
}

void pls_gate_debt_paid(pls_gateway *gateway, uint64_t actor_id, uint32_t count)
{
    pls_gate_debtor **place = place_of(gateway, actor_id);
    pls_gate_debtor *debtor = *place;
    if (debtor == NULL) {
        return;
    }
    pls_gate_debt *debt = debtor->first;
    if (count < debt->count) {
        debt->count -= count;
        return;
    }
    if (debt->next == NULL) {
        debtor_drop(gateway, place);
        return;
    }
    debtor->first = debt->next;
    gateway->debt_count--;
    free(debt);
}

void pls_gate_debts_forget_peer(pls_gateway *gateway, const pls_gate_peer *peer)
{
    for (uint32_t i = 0; i < PLS_GATE_DEBTORS; i++) {
        for (pls_gate_debtor *at = gateway->debtors[i]; at != NULL; at = at->next) {
            for (pls_gate_debt *debt = at->first; debt != NULL; debt = debt->next) {
                debt->peer = debt->peer == peer ? NULL : debt->peer;
            }
        }
    }
}

void pls_gate_debts_forget_slot(pls_gateway *gateway, uint32_t slot)
{
    for (uint32_t i = 0; i < PLS_GATE_DEBTORS; i++) {
        for (pls_gate_debtor **place = &gateway->debtors[i]; *place != NULL;) {
            if (slot == PLS_SLOTS_MAX) {
                debtor_drop(gateway, place);
            } else if ((*place)->slot == slot) {
                debts_give(*place);
                debtor_drop(gateway, place);
            } else {
                place = &(*place)->next;
            }
        }
    }
}
