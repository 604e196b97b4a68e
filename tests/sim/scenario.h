/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PLS_SIM_SCENARIO_H
#define PLS_SIM_SCENARIO_H

#include "tests/sim/report.h"

/* Every scenario and measurement: X(name, text). A scenario expects what must hold and prints what
 * it measured; `report->whole` asks for the sizes of the benchmark instead of the tests' share. */
#define PLS_SIM_SCENARIOS(X)                                                                       \
    X(join_leave, "two nodes meet and part in peace")                                              \
    X(detection_published, "N=128, alpha 5: first detection as published")                         \
    X(detection, "alpha 4: first and full detection of one death")                                 \
    X(detection_refused, "a crash on a living host, N <= 16, with refused connections")            \
    X(idle, "packets and bytes of a cluster at rest")                                              \
    X(mass_kill, "1, 10, 30 and 50 percent die at once")                                           \
    X(loss, "lost packets kill nobody")                                                            \
    X(overload, "overloaded nodes harm nobody else")                                               \
    X(grids, "Lifeguard's Threshold and Interval experiments as shares of plain SWIM")             \
    X(grids_network, "the same with stalls of the network alone")                                  \
    X(grids_parts, "the same with parts of Lifeguard and other alphas and betas")                  \
    X(one_way, "one-way partitions and one broken pair")                                           \
    X(split, "a cut cluster becomes one again by itself")                                          \
    X(split_day, "a cut of 24 h at N=1,000; long, so only when asked for by name")                 \
    X(split_repeated, "twenty partitions leave nothing behind")                                    \
    X(restart, "a node restarts under its name and address")                                       \
    X(restart_moved, "a node restarts under its name at another address")                          \
    X(restart_all, "all nodes restart at once")                                                    \
    X(mass_join, "all join at once through one seed")                                              \
    X(dead_seeds, "joins through dead seeds")                                                      \
    X(leave_early, "leaves right after the join, under suspicion and under loss")                  \
    X(evict, "a living node is declared dead by force")                                            \
    X(pause, "a node that stood still accuses nobody")                                             \
    X(clock, "clocks that jump or stand")                                                          \
    X(disorder, "doubled, reordered and late packets")                                             \
    X(garbage, "nonsense and strangers only count")                                                \
    X(churn, "one percent come and go each second")                                                \
    X(names, "names under loss and partition")                                                     \
    X(names_unique, "one unique name on both sides of a partition")                                \
    X(names_reach, "how fast a change of a name reaches all")                                      \
    X(names_million, "a million names: bytes and lookups")                                         \
    X(speed, "how fast the simulator runs")

#define PLS_SIM_SCENARIO_DECLARE(name, text) void pls_sim_scenario_##name(pls_sim_report *report);
PLS_SIM_SCENARIOS(PLS_SIM_SCENARIO_DECLARE)
#undef PLS_SIM_SCENARIO_DECLARE

#endif
