/* SPDX-License-Identifier: Apache-2.0 */
/* Results of scenarios and measurements in a form that people and the benchmark's script read. */
#include "tests/sim/report.h"

#include <stdarg.h>
#include <stdio.h>

void pls_sim_report_value(const pls_sim_report *report, const char *unit, double value,
                          const char *name_format, ...)
{
    char name[128];
    va_list arguments;
    va_start(arguments, name_format);
    vsnprintf(name, sizeof name, name_format, arguments);
    va_end(arguments);
    printf("value %-44s %14.4f %s\n", name, value, unit);
    fflush(stdout);
}

bool pls_sim_report_expect(pls_sim_report *report, bool holds, const char *format, ...)
{
    if (!holds) {
        char text[400];
        va_list arguments;
        va_start(arguments, format);
        vsnprintf(text, sizeof text, format, arguments);
        va_end(arguments);
        printf("FAILED: %s\n", text);
        fflush(stdout);
        report->failed_count++;
    }
    return holds;
}

void pls_sim_report_point(const pls_sim_report *report, const char *file, const char *title,
                          const char *curve, double x, double y)
{
    char path[1024];
    if (report->curve_folder == NULL) {
        return;
    }
    snprintf(path, sizeof path, "%s/%s.csv", report->curve_folder, file);
    FILE *csv = fopen(path, "a");
    if (csv == NULL) {
        printf("FAILED: cannot write %s\n", path);
        return;
    }
    if (ftell(csv) == 0) {
        fprintf(csv, "# %s\ncurve,seconds,share\n", title);
    }
    fprintf(csv, "%s,%.4f,%.6f\n", curve, x, y);
    fclose(csv);
}
