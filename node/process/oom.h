/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PLS_NODE_PROCESS_OOM_H
#define PLS_NODE_PROCESS_OOM_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

/* Whether the kernel has killed a process for want of memory. It counts such kills for each cgroup;
 * where that cannot be read, for the host.
 * Threads: one thread; never blocks; the same for every function of this header. */

#define PLS_OOM_GROUPS_MAX 16
#define PLS_OOM_PATH_BYTES 512

/* One count of the kernel, and how much of it is explained. */
typedef struct pls_oom_group {
    char path[PLS_OOM_PATH_BYTES]; /* of the file that counts; "" for the host */
    bool known; /* `seen` was read: without that nothing is known to have grown */
    uint64_t seen;
    uint32_t unclaimed; /* of the last growth: kills whose victims have not been looked at yet */
    uint64_t unclaimed_until_ns;
} pls_oom_group;

/* Where cgroups of one version are mounted, and which part of them. */
typedef struct pls_oom_mount {
    bool searched;
    bool found;
    char root[PLS_OOM_PATH_BYTES];
    char point[PLS_OOM_PATH_BYTES];
} pls_oom_mount;

/* Group 0 is the host. */
typedef struct pls_oom {
    pls_oom_group groups[PLS_OOM_GROUPS_MAX];
    uint32_t group_count;
    pls_oom_mount mounts[2];
} pls_oom;

/* From now on the host's count is known. */
void pls_oom_init(pls_oom *oom);

/* The group whose count a living process belongs to; 0 where only the host's can be read. */
uint32_t pls_oom_group_of(pls_oom *oom, pid_t pid);

/* Whether a process of this group that has just ended by SIGKILL was killed for want of memory: its
 * group's count has grown, and no other of its dead has claimed that. A hint and no proof: another
 * process of the group may have been the one. */
bool pls_oom_killed(pls_oom *oom, uint32_t group, uint64_t now_ns);

#endif
