/* SPDX-License-Identifier: Apache-2.0 */
/* The event loop of a program that has none: one sleep on the two descriptors of an attachment.
 * Notices of the node that concern targets are applied here, so that such a program need not. */
#include "node/runtime_parts.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>

#define WAIT_BURST_MAX 256

/* A death that has begun is looked at again after its grace, and started words after a moment,
 * though nothing rings then. */
static int sleep_limit(const pulsing *p, int timeout_ms)
{
    if (p->dying_count == 0 && p->starved_first == NULL) {
        return timeout_ms;
    }
    int limit_ms = p->starved_first != NULL ? 1 : PLS_DYING_GRACE_NS / 1000000 + 1;
    return timeout_ms >= 0 && timeout_ms < limit_ms ? timeout_ms : limit_ms;
}

static pls_err sleep_once(pulsing *p, int timeout_ms)
{
    struct pollfd fds[2] = {{.fd = pulsing_event_fd(p), .events = POLLIN},
                            {.fd = pls_attach_fd(p->attach), .events = POLLIN}};
    if (pls_attach_wants_write(p->attach)) {
        fds[1].events |= POLLOUT;
    }
    if (pls_attach_has_kept(p->attach) || !pulsing_arm(p)) {
        return PLS_OK; /* something came meanwhile */
    }
    int limit_ms = sleep_limit(p, timeout_ms);
    int ready = poll(fds, 2, limit_ms);
    int error = errno;
    pulsing_disarm(p, ready > 0 && (fds[0].revents & POLLIN) != 0);
    if (ready < 0 && error != EINTR) {
        return PLS_ESYS;
    }
    return ready == 0 && limit_ms == timeout_ms ? PLS_ETIMEDOUT : PLS_OK;
}

pls_err pulsing_wait(pulsing *p, int timeout_ms)
{
    if (pulsing_poll(p, WAIT_BURST_MAX, false) > 0) {
        return PLS_OK;
    }
    pls_err err = sleep_once(p, timeout_ms);
    (void)pulsing_poll(p, WAIT_BURST_MAX, false);
    return err;
}

static void text_copy(const pls_attach_event *event, char *text, size_t capacity)
{
    snprintf(text, capacity, "%.*s", (int)event->text_bytes,
             event->text_bytes > 0 ? event->text : "");
}

pls_err pulsing_notice(pulsing *p, struct pls_attach_event *event_out)
{
    char text[PLS_TEXT_BYTES_MAX];
    pls_err err = pls_attach_poll(p->attach, event_out);
    if (err == PLS_EEMPTY) {
        return err;
    }
    if (err != PLS_OK) {
        snprintf(text, sizeof text, "the system is closed: its node process (pid %u) has ended",
                 p->info->node_pid);
        pulsing_fail(p, text);
        return PLS_ECLOSED;
    }
    if (event_out->type == PLS_EVENT_ROUTE) {
        pulsing_target_move(p, event_out->actor, event_out->slot, event_out->epoch);
    } else if (event_out->type == PLS_EVENT_ACTOR_LOST) {
        text_copy(event_out, text, sizeof text);
        pulsing_target_kill(p, event_out->actor, PULSING_DIED, text);
    }
    return PLS_OK;
}
