/* SPDX-License-Identifier: Apache-2.0 */
/* The worker of the node's tests: joins with a real inbox, counts its actors in the directory and
 * does what the node asks. PULSING_STUB says what else it does. */
#include "node/requests.h"
#include "shm/inbox.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

static bool told(const char *mode)
{
    const char *given = getenv("PULSING_STUB");
    return given != NULL && strcmp(given, mode) == 0;
}

/* What a test wants to see of a worker's surroundings. */
static void surroundings_print(char **argv)
{
    int signal_at_death = 0;
    struct sigaction interrupt;
    prctl(PR_GET_PDEATHSIG, &signal_at_death);
    sigaction(SIGINT, NULL, &interrupt);
    int highest = 0;
    for (int fd = 0; fd < 256; fd++) {
        highest = fcntl(fd, F_GETFD) >= 0 ? fd : highest;
    }
    printf("parent=%d pdeath=%d sigint_ignored=%d index=%s name=%s setup=%s highest_fd=%d env=%s\n",
           (int)getppid(), signal_at_death, interrupt.sa_handler == SIG_IGN, argv[2], argv[3],
           argv[4], highest, getenv("PULSING_STUB_ENV") == NULL ? "-" : getenv("PULSING_STUB_ENV"));
    fflush(stdout);
}

static void rebuild(pls_attach *attach, const pls_attach_event *event)
{
    bool refuse = event->data_bytes >= 6 && memcmp(event->data, "refuse", 6) == 0;
    bool crash = event->data_bytes >= 5 && memcmp(event->data, "crash", 5) == 0;
    printf("rebuild attempt %u with %zu bytes\n", (unsigned)event->number, event->data_bytes);
    fflush(stdout);
    if (crash) {
        abort();
    }
    (void)!pls_attach_rebuilt(attach, event->actor, !refuse, "refused", refuse ? 7 : 0);
}

static void loop(pls_attach *attach)
{
    for (;;) {
        pls_attach_event event;
        struct pollfd wait = {.fd = pls_attach_fd(attach), .events = POLLIN};
        poll(&wait, 1, -1);
        for (;;) {
            pls_err err = pls_attach_poll(attach, &event);
            if (err == PLS_EEMPTY) {
                break;
            }
            if (err != PLS_OK) {
                exit(0);
            }
            if (event.type == PLS_EVENT_SHUTDOWN && !told("stays")) {
                pls_attach_close(attach, false);
                exit(0);
            }
            if (event.type == PLS_EVENT_REBUILD) {
                rebuild(attach, &event);
            }
        }
    }
}

int main(int argc, char **argv)
{
    char trouble[PLS_TROUBLE_BYTES_MAX];
    pls_attach *attach;
    pls_inbox *inbox;
    if (argc < 5) {
        return 2;
    }
    if (told("crash-before-hello")) {
        fprintf(stderr, "the stub crashes before its greeting\n");
        abort();
    }
    if (pls_attach_open((int)strtol(argv[1], NULL, 10), PLS_ROLE_WORKER, &attach, trouble) !=
        PLS_OK) {
        fprintf(stderr, "stub: %s\n", trouble);
        return 3;
    }
    if (told("crash-after-hello")) {
        abort();
    }
    const pls_attach_info *info = pls_attach_info_of(attach);
    const char *actors = getenv("PULSING_STUB_ACTORS");
    atomic_store(&info->directory->lines[info->slot].actor_count,
                 actors == NULL ? 0 : (uint32_t)strtoul(actors, NULL, 10));
    if (pls_inbox_create(info->slot, info->epoch, &inbox) != PLS_OK ||
        pls_attach_join(attach, pls_inbox_memfd(inbox), pls_inbox_eventfd(inbox), -1,
                        pls_inbox_header_of(inbox)->life) != PLS_OK) {
        fprintf(stderr, "stub: %s\n", pls_attach_trouble(attach));
        return 4;
    }
    surroundings_print(argv);
    if (told("leaves-a-child") && fork() == 0) {
        prctl(PR_SET_PDEATHSIG, 0);
        pause();
    }
    loop(attach);
}
