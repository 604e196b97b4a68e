/* SPDX-License-Identifier: Apache-2.0 */
/* pidfds, wait calls and what /proc tells about processes. */
#include "node/process/handle.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

/* Since Linux 6.15 the kernel tells anybody who holds a pidfd how the process ended. */
typedef struct pidfd_info_words {
    uint64_t mask;
    uint64_t cgroup_id;
    uint32_t pid, tgid, ppid;
    uint32_t ids[8];
    int32_t exit_code;
    uint8_t later[32];
} pidfd_info_words;
#define PIDFD_INFO_WANT_EXIT (1ull << 3)
#define PIDFD_INFO_BYTES_FIRST 64
#define PIDFD_INFO_REQUEST _IOC(_IOC_READ | _IOC_WRITE, 0xFF, 11, PIDFD_INFO_BYTES_FIRST)

#define PROC_TEXT_BYTES 1024
#define CHILD_POLL_US 1000

pls_err pls_process_open(pid_t pid, int *pidfd_out)
{
    int fd = (int)syscall(SYS_pidfd_open, pid, 0);
    if (fd < 0) {
        return pls_err_from_errno(errno);
    }
    *pidfd_out = fd;
    return PLS_OK;
}

static bool file_read(const char *path, char *text, size_t capacity)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return false;
    }
    ssize_t n = read(fd, text, capacity - 1);
    close(fd);
    if (n < 0) {
        return false;
    }
    text[n] = 0;
    return true;
}

static bool fdinfo_read(int fd, char *text, size_t capacity)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/self/fdinfo/%d", fd);
    return file_read(path, text, capacity);
}

pls_err pls_process_number(int pidfd, pid_t *pid_out)
{
    char text[PROC_TEXT_BYTES];
    if (!fdinfo_read(pidfd, text, sizeof text)) {
        return PLS_EPROTO;
    }
    const char *line = strstr(text, "\nPid:");
    if (line == NULL) {
        return PLS_EPROTO;
    }
    long pid = strtol(line + strlen("\nPid:"), NULL, 10);
    *pid_out = pid > 0 ? (pid_t)pid : 0;
    return PLS_OK;
}

bool pls_process_is_bell(int fd)
{
    char text[PROC_TEXT_BYTES];
    return fdinfo_read(fd, text, sizeof text) && strstr(text, "eventfd-count:") != NULL;
}

void pls_process_kill(int pidfd)
{
    (void)syscall(SYS_pidfd_send_signal, pidfd, SIGKILL, NULL, 0);
}

bool pls_process_ended(int pidfd)
{
    struct pollfd wait = {.fd = pidfd, .events = POLLIN};
    return poll(&wait, 1, 0) > 0;
}

static pls_process_end end_from_status(int status)
{
    if (WIFSIGNALED(status)) {
        return (pls_process_end){PLS_ENDED_SIGNAL, (uint32_t)WTERMSIG(status)};
    }
    return (pls_process_end){PLS_ENDED_EXIT, (uint32_t)WEXITSTATUS(status)};
}

/* Text of the stat file of a process from its third field on, or NULL. The command before may hold
 * spaces and brackets, so fields are counted after its last bracket. */
static const char *stat_read(pid_t pid, char *text, size_t capacity)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    const char *at = file_read(path, text, capacity) ? strrchr(text, ')') : NULL;
    return at == NULL ? NULL : at + 1;
}

/* Field `number` (from 3), as the manual page counts. */
static uint64_t stat_field(const char *at, int number)
{
    for (int field = 3; at != NULL && field < number; field++) {
        at = strchr(at + 1, ' ');
    }
    return at == NULL ? 0 : strtoull(at + 1, NULL, 10);
}

#define STAT_PARENT 4
#define STAT_FLAGS 9
#define FLAG_EXITING 0x4
#define STAT_START 22
#define STAT_EXIT_CODE 52

bool pls_process_exiting(pid_t pid)
{
    char text[PROC_TEXT_BYTES];
    const char *stat = stat_read(pid, text, sizeof text);
    return stat == NULL || (stat_field(stat, STAT_FLAGS) & FLAG_EXITING) != 0;
}

pls_process_end pls_process_reap(int pidfd, pid_t pid)
{
    char text[PROC_TEXT_BYTES];
    siginfo_t info = {0};
    if (waitid(P_PIDFD, (id_t)pidfd, &info, WEXITED | WNOHANG) == 0 && info.si_pid != 0) {
        bool by_signal = info.si_code == CLD_KILLED || info.si_code == CLD_DUMPED;
        return (pls_process_end){by_signal ? PLS_ENDED_SIGNAL : PLS_ENDED_EXIT,
                                 (uint32_t)info.si_status};
    }
    /* Not our child: its zombie tells, until its parent has reaped it; then the pidfd does. */
    const char *stat = pid > 0 ? stat_read(pid, text, sizeof text) : NULL;
    if (stat != NULL && stat[0] == ' ' && stat[1] == 'Z') {
        return end_from_status((int)stat_field(stat, STAT_EXIT_CODE));
    }
    pidfd_info_words words = {.mask = PIDFD_INFO_WANT_EXIT};
    if (ioctl(pidfd, PIDFD_INFO_REQUEST, &words) == 0 && (words.mask & PIDFD_INFO_WANT_EXIT) != 0) {
        return end_from_status(words.exit_code);
    }
    return (pls_process_end){PLS_ENDED_UNKNOWN, 0};
}

uint64_t pls_process_anonymous_bytes(pid_t pid)
{
    char path[64];
    char text[PROC_TEXT_BYTES];
    unsigned long long total = 0;
    unsigned long long resident = 0;
    unsigned long long shared = 0;
    snprintf(path, sizeof path, "/proc/%d/statm", (int)pid);
    if (!file_read(path, text, sizeof text) ||
        sscanf(text, "%llu %llu %llu", &total, &resident, &shared) != 3 || resident < shared) {
        return 0;
    }
    return (resident - shared) * (uint64_t)sysconf(_SC_PAGESIZE);
}

uint64_t pls_process_start_ticks(pid_t pid)
{
    char text[PROC_TEXT_BYTES];
    const char *stat = stat_read(pid, text, sizeof text);
    return stat == NULL ? 0 : stat_field(stat, STAT_START);
}

pid_t pls_process_zombie_peek(void)
{
    siginfo_t info = {0};
    if (waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT) != 0) {
        return 0;
    }
    return info.si_pid;
}

void pls_process_zombie_reap(pid_t pid)
{
    while (waitpid(pid, NULL, WNOHANG) < 0 && errno == EINTR) {
    }
}

static pid_t parent_of(pid_t pid)
{
    char text[PROC_TEXT_BYTES];
    const char *stat = stat_read(pid, text, sizeof text);
    if (stat == NULL || (stat[0] == ' ' && stat[1] == 'Z')) {
        return 0;
    }
    return (pid_t)stat_field(stat, STAT_PARENT);
}

static void children_signal(void)
{
    DIR *proc = opendir("/proc");
    if (proc == NULL) {
        return;
    }
    for (;;) {
        const struct dirent *entry = readdir(proc);
        if (entry == NULL) {
            break;
        }
        if (!isdigit((unsigned char)entry->d_name[0])) {
            continue;
        }
        pid_t pid = (pid_t)strtol(entry->d_name, NULL, 10);
        /* A child that has not been reaped keeps its number, so the number is safe to use. */
        if (parent_of(pid) == getpid()) {
            kill(pid, SIGKILL);
        }
    }
    closedir(proc);
}

void pls_process_children_kill(int timeout_ms)
{
    for (int64_t waited_us = 0; waited_us <= (int64_t)timeout_ms * 1000;
         waited_us += CHILD_POLL_US) {
        siginfo_t info;
        for (;;) {
            info = (siginfo_t){0};
            if (waitid(P_ALL, 0, &info, WEXITED | WNOHANG) != 0) {
                /* ECHILD: there is no child left. */
                return;
            }
            if (info.si_pid == 0) {
                break;
            }
        }
        children_signal();
        usleep(CHILD_POLL_US);
    }
}
