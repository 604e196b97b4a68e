/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PLS_SIM_SAMPLE_H
#define PLS_SIM_SAMPLE_H

#include <stddef.h>

/* Measured values of one kind, kept whole so that percentiles are exact. */
typedef struct pls_sim_sample {
    double *values;
    size_t value_count;
    size_t capacity;
} pls_sim_sample;

/* Adds a value; running out of memory aborts. Threads: owner thread; allocates when it grows. */
void pls_sim_sample_add(pls_sim_sample *sample, double value);

/* The smallest value that at least `share` of all values do not exceed; 0 of an empty sample.
 * Units:   `share` 0..1. Threads: owner thread; never blocks. */
double pls_sim_sample_at(pls_sim_sample *sample, double share);

/* The arithmetic mean; 0 of an empty sample. Threads: owner thread; never blocks. */
double pls_sim_sample_mean(const pls_sim_sample *sample);

/* Frees the values. Threads: owner thread; never blocks. */
void pls_sim_sample_fini(pls_sim_sample *sample);

#endif
