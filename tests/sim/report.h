/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PLS_SIM_REPORT_H
#define PLS_SIM_REPORT_H

#include <stdbool.h>
#include <stdint.h>

/* What a scenario or a measurement is asked for, and where its results go: values as lines
 * "value NAME NUMBER UNIT" on standard output, points of curves into CSV files of `curve_folder`,
 * which draw.py turns into pictures. */
typedef struct pls_sim_report {
    uint64_t seed;
    bool whole;               /* the whole measurement, not the quick share of the tests */
    const char *curve_folder; /* NULL: no curves */
    uint32_t failed_count;
} pls_sim_report;

/* A measured value. Threads: owner thread; may block on the output; so do the others. */
void pls_sim_report_value(const pls_sim_report *report, const char *unit, double value,
                          const char *name_format, ...) __attribute__((format(printf, 4, 5)));

/* What must hold: prints and counts it when it does not. Returns `holds`. */
bool pls_sim_report_expect(pls_sim_report *report, bool holds, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* One point of a curve in the CSV file `file` ("join" for join.csv), made with the title and the
 * names of its axes ("title | x | y") when it does not exist. */
void pls_sim_report_point(const pls_sim_report *report, const char *file, const char *title,
                          const char *curve, double x, double y);

#endif
