/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PLS_GOSSIP_MUTANT_H
#define PLS_GOSSIP_MUTANT_H

/* Deliberate mistakes, each of which must be caught by an invariant of the simulator. They exist
 * only in a build with PLS_MUTANTS, which the simulator makes beside the real one; there one of
 * them is chosen at run time. X(name, number, what is broken); append only. */
#define PLS_MUTANTS_TABLE(X)                                                                       \
    X(PLS_MUTANT_INCARNATION_FALLS, 1, "a lower incarnation overwrites the stored one")            \
    X(PLS_MUTANT_RESURRECTS, 2, "dead becomes alive at an equal incarnation")                      \
    X(PLS_MUTANT_META_FORKS, 3, "a meta changes without a higher incarnation")                     \
    X(PLS_MUTANT_RAISES_OTHERS, 4, "another than the owner refutes for a suspect")                 \
    X(PLS_MUTANT_SELF_DEATH, 5, "I believe in my own death")                                       \
    X(PLS_MUTANT_FORBIDDEN, 6, "left becomes dead")                                                \
    X(PLS_MUTANT_QUEUE_GROWS, 7, "the queue is not keyed by subject")                              \
    X(PLS_MUTANT_NO_HEAL, 8, "no announces to the dead")                                           \
    X(PLS_MUTANT_UNSEEDED, 9, "a choice depends on an address in memory")                          \
    X(PLS_MUTANT_UNCOUNTED, 10, "every hundredth packet is not counted")                           \
    X(PLS_MUTANT_NAMES_CUT, 11, "a cut delta claims all that it was to carry")                     \
    X(PLS_MUTANT_NAMES_REVIVE, 12, "removals leave no tombstones")                                 \
    X(PLS_MUTANT_NO_STALL, 13, "the idle rule is ignored")                                         \
    X(PLS_MUTANT_NO_BUDDY, 14, "pings do not carry the suspicion")                                 \
    X(PLS_MUTANT_NO_WINNER, 15, "nobody gives up a unique name")                                   \
    X(PLS_MUTANT_DEAD_NAMES, 16, "names of dead owners are found")                                 \
    X(PLS_MUTANT_NO_NACK, 17, "no nacks are sent")

enum {
#define PLS_MUTANT_ENUM(name, number, text) name = number,
    PLS_MUTANTS_TABLE(PLS_MUTANT_ENUM)
#undef PLS_MUTANT_ENUM
};

#ifdef PLS_MUTANTS
extern int pls_mutant_active;
#define pls_mutant(number) (pls_mutant_active == (number))
#else
#define pls_mutant(number) 0
#endif

#endif
