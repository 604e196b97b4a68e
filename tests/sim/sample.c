/* SPDX-License-Identifier: Apache-2.0 */
/* Measured values and their percentiles by rank. The measurements use it; nothing that is hashed or
 * decides a simulation does, since it computes in floating point. */
#include "tests/sim/sample.h"

#include "base/assert.h"

#include <stdlib.h>

enum { SAMPLE_VALUES_FIRST = 64 };

void pls_sim_sample_add(pls_sim_sample *sample, double value)
{
    if (sample->value_count == sample->capacity) {
        size_t capacity = sample->capacity == 0 ? SAMPLE_VALUES_FIRST : sample->capacity * 2;
        double *values = realloc(sample->values, capacity * sizeof *values);
        pls_assert(values != NULL);
        sample->values = values;
        sample->capacity = capacity;
    }
    sample->values[sample->value_count++] = value;
}

static int compare_values(const void *a, const void *b)
{
    double x = *(const double *)a;
    double y = *(const double *)b;
    return (x > y) - (x < y);
}

double pls_sim_sample_at(pls_sim_sample *sample, double share)
{
    if (sample->value_count == 0) {
        return 0;
    }
    qsort(sample->values, sample->value_count, sizeof *sample->values, compare_values);
    double rank = share * (double)sample->value_count;
    size_t index = (size_t)rank;
    if ((double)index == rank && index > 0) {
        index--;
    }
    if (index >= sample->value_count) {
        index = sample->value_count - 1;
    }
    return sample->values[index];
}

double pls_sim_sample_mean(const pls_sim_sample *sample)
{
    double sum = 0;
    for (size_t i = 0; i < sample->value_count; i++) {
        sum += sample->values[i];
    }
    return sample->value_count == 0 ? 0 : sum / (double)sample->value_count;
}

void pls_sim_sample_fini(pls_sim_sample *sample)
{
    free(sample->values);
    *sample = (pls_sim_sample){0};
}
