/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PLS_BASE_MUTANT_H
#define PLS_BASE_MUTANT_H

/* Deliberately broken builds, which prove that a test can fail: -DPLS_MUTANT=n breaks exactly the
 * place that names n. In every other build pls_mutant() is the constant 0 and costs nothing. */
enum pls_mutants {
    PLS_MUTANT_NO_FENCE = 1,       /* no store-load fence between publishing and the bell */
    PLS_MUTANT_EARLY_PUBLISH = 2,  /* tail is stored when room is reserved */
    PLS_MUTANT_WINNER_SIGNALS = 3, /* disarm first; only the winner of the CAS signals */
    PLS_MUTANT_NO_BOUNDS = 4,      /* the length of a peer's record is believed */
    PLS_MUTANT_EARLY_REUSE = 5,    /* a lent block is free once its owner lets go of it */
    PLS_MUTANT_NO_RECHECK = 6,     /* the consumer sleeps without looking again */
    PLS_MUTANT_SILENT_REAPER = 7,  /* the node records a death and rings nobody */
    PLS_MUTANT_START_LATE = 8,     /* the start of a message is recorded after its handler */
    PLS_MUTANT_START_EARLY = 9,    /* ... when it enters the mailbox */
};

#ifdef PLS_MUTANT
#define pls_mutant(n) ((n) == PLS_MUTANT)
#else
#define pls_mutant(n) 0
#endif

#endif
