/* SPDX-License-Identifier: Apache-2.0 */
/* Reads the kernel's counts of kills for want of memory. A worker usually has its node's cgroup,
 * that of the container or service, so its count says more than the host's, on which everybody's
 * containers die; memory.events.local leaves out what is below. The victim's cgroup counts, also
 * when the limit of one above was met. */
#include "node/process/oom.h"

#include "node/process/loop.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define LINE_BYTES 1024
/* Victims of one want of memory end within this time. */
#define CLAIM_NS (2000 * PLS_NS_PER_MS)

static const char *const HOST_COUNT = "/proc/vmstat";

/* False: there is no such count. */
static bool count_read(const char *path, uint64_t *count_out)
{
    char line[LINE_BYTES];
    unsigned long long count = 0;
    bool found = false;
    FILE *file = fopen(path, "re");
    while (file != NULL && !found && fgets(line, sizeof line, file) != NULL) {
        found = sscanf(line, "oom_kill %llu", &count) == 1;
    }
    if (file != NULL) {
        fclose(file);
    }
    *count_out = count;
    return found;
}

/* Whether a comma-separated list has the word. */
static bool has_word(const char *list, const char *word)
{
    size_t len = strlen(word);
    for (const char *at = list; at != NULL; at = strchr(at, ',')) {
        at += *at == ',' ? 1 : 0;
        if (strncmp(at, word, len) == 0 && (at[len] == 0 || at[len] == ',' || at[len] == '\n')) {
            return true;
        }
    }
    return false;
}

/* The process's path in the hierarchy that limits memory: version 1 if that one does. */
static bool cgroup_read(pid_t pid, char *path, size_t capacity, bool *first_version_out)
{
    char line[LINE_BYTES];
    bool found = false;
    snprintf(line, sizeof line, "/proc/%d/cgroup", (int)pid);
    FILE *file = fopen(line, "re");
    *first_version_out = false;
    while (file != NULL && !*first_version_out && fgets(line, sizeof line, file) != NULL) {
        char *controllers = strchr(line, ':');
        char *at = controllers != NULL ? strchr(controllers + 1, ':') : NULL;
        if (at == NULL) {
            continue;
        }
        *at = 0;
        controllers++;
        at[1 + strcspn(at + 1, "\n")] = 0;
        *first_version_out = has_word(controllers, "memory");
        if (*controllers == 0 || *first_version_out) {
            found = snprintf(path, capacity, "%s", at + 1) < (int)capacity;
        }
    }
    if (file != NULL) {
        fclose(file);
    }
    return found;
}

static bool mount_find(bool first_version, pls_oom_mount *mount)
{
    char line[LINE_BYTES];
    bool found = false;
    FILE *file = fopen("/proc/self/mountinfo", "re");
    while (file != NULL && !found && fgets(line, sizeof line, file) != NULL) {
        char *tail = strstr(line, " - ");
        char kind[32] = "";
        char options[LINE_BYTES] = "";
        if (tail == NULL || sscanf(tail, " - %31s %*s %1023s", kind, options) != 2 ||
            sscanf(line, "%*s %*s %*s %511s %511s", mount->root, mount->point) != 2) {
            continue;
        }
        found = first_version ? strcmp(kind, "cgroup") == 0 && has_word(options, "memory")
                              : strcmp(kind, "cgroup2") == 0;
    }
    if (file != NULL) {
        fclose(file);
        mount->searched = true;
    }
    return found;
}

/* Searched once: some hosts have thousands of mounts. */
static const pls_oom_mount *mount_of(pls_oom *oom, bool first_version)
{
    pls_oom_mount *mount = &oom->mounts[first_version ? 0 : 1];
    if (!mount->searched) {
        mount->found = mount_find(first_version, mount);
    }
    return mount->found ? mount : NULL;
}

/* The file with the count of a process's cgroup. False: there is none that can be read. */
static bool count_find(pls_oom *oom, pid_t pid, char *path, size_t capacity)
{
    char group[PLS_OOM_PATH_BYTES];
    bool first_version = false;
    uint64_t count = 0;
    if (!cgroup_read(pid, group, sizeof group, &first_version)) {
        return false;
    }
    const pls_oom_mount *mount = mount_of(oom, first_version);
    if (mount == NULL) {
        return false;
    }
    size_t root_bytes = strcmp(mount->root, "/") == 0 ? 0 : strlen(mount->root);
    const char *inside = group + root_bytes;
    if (strncmp(group, mount->root, root_bytes) != 0 || (*inside != 0 && *inside != '/')) {
        return false; /* the part that is mounted does not have it */
    }
    const char *files[] = {"memory.oom_control", "memory.events.local", "memory.events"};
    for (int i = first_version ? 0 : 1; i < (first_version ? 1 : 3); i++) {
        const char *slash = inside[0] == 0 || strcmp(inside, "/") == 0 ? "" : inside;
        if (snprintf(path, capacity, "%s%s/%s", mount->point, slash, files[i]) < (int)capacity &&
            count_read(path, &count)) {
            return true;
        }
    }
    return false;
}

void pls_oom_init(pls_oom *oom)
{
    memset(oom, 0, sizeof *oom);
    oom->group_count = 1;
    oom->groups[0].known = count_read(HOST_COUNT, &oom->groups[0].seen);
}

uint32_t pls_oom_group_of(pls_oom *oom, pid_t pid)
{
    char path[PLS_OOM_PATH_BYTES];
    if (pid <= 0 || !count_find(oom, pid, path, sizeof path)) {
        return 0;
    }
    for (uint32_t i = 1; i < oom->group_count; i++) {
        if (strcmp(oom->groups[i].path, path) == 0) {
            return i;
        }
    }
    if (oom->group_count == PLS_OOM_GROUPS_MAX) {
        return 0;
    }
    pls_oom_group *group = &oom->groups[oom->group_count];
    memcpy(group->path, path, sizeof path);
    group->known = count_read(path, &group->seen);
    return oom->group_count++;
}

bool pls_oom_killed(pls_oom *oom, uint32_t index, uint64_t now_ns)
{
    pls_oom_group *group = &oom->groups[index];
    uint64_t count = 0;
    if (count_read(index == 0 ? HOST_COUNT : group->path, &count)) {
        if (group->known && count > group->seen) {
            group->unclaimed = (uint32_t)(count - group->seen);
            group->unclaimed_until_ns = now_ns + CLAIM_NS;
        }
        group->known = true;
        group->seen = count;
    }
    if (group->unclaimed == 0 || now_ns > group->unclaimed_until_ns) {
        return false;
    }
    group->unclaimed--;
    return true;
}
