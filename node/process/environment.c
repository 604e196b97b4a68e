/* SPDX-License-Identifier: Apache-2.0 */
/* What workers find in their environment. Several of them with a thread pool of all processors each
 * would take turns at the same processors, so the pools of BLAS and OpenMP share them by default.
 */
#include "node/process/environment.h"

#include "base/assert.h"

#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

extern char **environ;

static const char *const thread_names[] = {"OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS",
                                           "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS",
                                           "VECLIB_MAXIMUM_THREADS"};
#define THREAD_NAMES (sizeof thread_names / sizeof thread_names[0])
#define THREAD_TEXT_BYTES 48

static uint32_t cgroup_cpus(void)
{
    char path[256];
    char line[256];
    long quota = 0;
    long period = 0;
    FILE *own = fopen("/proc/self/cgroup", "re");
    if (own == NULL) {
        return UINT32_MAX;
    }
    path[0] = 0;
    while (fgets(line, sizeof line, own) != NULL) {
        if (strncmp(line, "0::", 3) == 0) {
            line[strcspn(line, "\n")] = 0;
            snprintf(path, sizeof path, "/sys/fs/cgroup%.200s/cpu.max", line + 3);
        }
    }
    fclose(own);
    FILE *max = path[0] == 0 ? NULL : fopen(path, "re");
    if (max == NULL) {
        return UINT32_MAX;
    }
    int fields = fscanf(max, "%ld %ld", &quota, &period);
    fclose(max);
    if (fields != 2 || quota <= 0 || period <= 0) {
        return UINT32_MAX;
    }
    return (uint32_t)((quota + period - 1) / period);
}

uint32_t pls_cpus_usable(void)
{
    cpu_set_t set;
    uint32_t count = sched_getaffinity(0, sizeof set, &set) == 0 ? (uint32_t)CPU_COUNT(&set) : 1;
    uint32_t quota = cgroup_cpus();
    count = quota < count ? quota : count;
    return count == 0 ? 1 : count;
}

/* Bytes of the name in "NAME=value" or "NAME". */
static size_t name_bytes(const char *entry)
{
    return strcspn(entry, "=");
}

static bool same_name(const char *a, const char *b)
{
    size_t bytes = name_bytes(a);
    return bytes == name_bytes(b) && memcmp(a, b, bytes) == 0;
}

static bool is_in(const char *const *list, const char *entry)
{
    for (size_t i = 0; list != NULL && list[i] != NULL; i++) {
        if (same_name(list[i], entry)) {
            return true;
        }
    }
    return false;
}

static size_t list_count(const char *const *list)
{
    size_t count = 0;
    while (list != NULL && list[count] != NULL) {
        count++;
    }
    return count;
}

pls_err pls_environment_make(const char *const *overrides, uint32_t threads,
                             char ***environment_out)
{
    static char thread_texts[THREAD_NAMES][THREAD_TEXT_BYTES];
    const char *const *own = (const char *const *)environ;
    size_t room = list_count(own) + list_count(overrides) + THREAD_NAMES + 1;
    char **environment = calloc(room, sizeof(char *));
    size_t count = 0;
    if (environment == NULL) {
        return PLS_ENOMEM;
    }
    for (size_t i = 0; own[i] != NULL; i++) {
        if (!is_in(overrides, own[i])) {
            environment[count++] = (char *)(uintptr_t)own[i];
        }
    }
    for (size_t i = 0; overrides != NULL && overrides[i] != NULL; i++) {
        if (strchr(overrides[i], '=') != NULL) {
            environment[count++] = (char *)(uintptr_t)overrides[i];
        }
    }
    for (size_t i = 0; i < THREAD_NAMES; i++) {
        if (!is_in(own, thread_names[i]) && !is_in(overrides, thread_names[i])) {
            snprintf(thread_texts[i], THREAD_TEXT_BYTES, "%s=%u", thread_names[i], threads);
            environment[count++] = thread_texts[i];
        }
    }
    pls_assert(count < room);
    *environment_out = environment;
    return PLS_OK;
}
