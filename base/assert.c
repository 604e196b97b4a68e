/* SPDX-License-Identifier: Apache-2.0 */
/* The end of a process whose own invariant does not hold: one line, then SIGABRT, so that whoever
 * watches it learns of a crash and not of a silent exit. */
#include "base/assert.h"

#include <stdio.h>
#include <stdlib.h>

void pls_assert_failed(const char *condition, const char *file, int line)
{
    fprintf(stderr, "pulsing: internal error: %s does not hold at %s:%d\n", condition, file, line);
    abort();
}
