/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PLS_SIM_CHECK_H
#define PLS_SIM_CHECK_H

#include "tests/sim/world.h"

/* The invariants: code, word, what must hold. */
#define PLS_SIM_INVARIANTS(X)                                                                      \
    X(PLS_SIM_MONOTONE, "monotone", "a stored incarnation never falls within a generation")        \
    X(PLS_SIM_RESURRECTED, "resurrected", "dead and left members return by a higher incarnation")  \
    X(PLS_SIM_META, "meta", "one incarnation has one meta")                                        \
    X(PLS_SIM_RAISED, "raised", "nobody but the owner raises an incarnation")                      \
    X(PLS_SIM_SELF_DEAD, "self_dead", "I am alive in my own table unless I leave")                 \
    X(PLS_SIM_TRANSITION, "transition", "only the protocol's changes of state happen")             \
    X(PLS_SIM_SIZE, "size", "tables, queues and memory are bounded by constants times N")          \
    X(PLS_SIM_CONVERGENCE, "convergence", "all agree in bounded time after the faults stop")       \
    X(PLS_SIM_HASH, "hash", "one seed has one trace")                                              \
    X(PLS_SIM_CONSERVED, "conserved", "each byte sent is delivered, lost or under way")            \
    X(PLS_SIM_NAMES_EQUAL, "names", "all hold the names that their owners registered")

typedef enum pls_sim_invariant {
    PLS_SIM_HOLDS = 0,
#define PLS_SIM_INVARIANT_ENUM(code, word, text) code,
    PLS_SIM_INVARIANTS(PLS_SIM_INVARIANT_ENUM)
#undef PLS_SIM_INVARIANT_ENUM
        PLS_SIM_INVARIANT_COUNT
} pls_sim_invariant;

/* The first thing that did not hold; `invariant` PLS_SIM_HOLDS: nothing. */
typedef struct pls_sim_violation {
    pls_sim_invariant invariant;
    uint32_t node;
    pls_member member;
    uint64_t at_ns;
    char text[160];
} pls_sim_violation;

/* Attaches a checker to a world in which no node runs yet.
 * Owns:    gives the checker; pls_sim_checker_destroy() detaches and ends it, before the world.
 * Threads: owner thread for this and all functions below. */
pls_sim_checker *pls_sim_checker_create(pls_sim_world *world);
void pls_sim_checker_destroy(pls_sim_checker *checker);

/* The first violation so far; lent until destroy. */
const pls_sim_violation *pls_sim_checker_violation(const pls_sim_checker *checker);

/* Records a violation that somebody else found, unless there is one already. */
void pls_sim_checker_report(pls_sim_checker *checker, pls_sim_invariant invariant, uint32_t node,
                            pls_member member, const char *text);

/* The word of an invariant; "holds" for PLS_SIM_HOLDS. Threads: any thread. */
const char *pls_sim_invariant_word(pls_sim_invariant invariant);

/* The world's calls: a node started, is about to stop, reported an action, got an input. */
void pls_sim_check_started(pls_sim_checker *checker, uint32_t node);
void pls_sim_check_stopped(pls_sim_checker *checker, uint32_t node);
void pls_sim_check_action(pls_sim_checker *checker, uint32_t node, const pls_action *action);
void pls_sim_check_touched(pls_sim_checker *checker, uint32_t node);

/* True when each byte is accounted for, by the world's books and by the instances' own. */
bool pls_sim_world_conserved(const pls_sim_world *world);

/* True when all running nodes hold each other alive, whatever else they hold. */
bool pls_sim_world_acquainted(const pls_sim_world *world);

/* True when all running nodes hold each other alive and nobody else.
 * Otherwise `text_out` (160 bytes, may be NULL) says what differs. */
bool pls_sim_world_members_agree(const pls_sim_world *world, char *text_out);

/* True when moreover their digests, and with them their names, are equal. */
bool pls_sim_world_converged(const pls_sim_world *world, char *text_out);

#endif
