/* SPDX-License-Identifier: Apache-2.0 */
/* The first of a kind is told at once, the next ones with their number when the interval is over,
 * so that a flood is one line per interval and nothing is lost from the count.
 * Called by the door, the doorman and the inlets. */
#include "zmq_transport/report.h"

#include <stdio.h>
#include <stdlib.h>

#define FROM_CAPACITY 80

typedef struct reason_state {
    uint64_t quiet_until_ns;
    uint64_t count; /* not told yet */
    char from[FROM_CAPACITY];
} reason_state;

struct pls_report {
    reason_state reasons[PLS_ZMQ_AWAY_COUNT];
};

static const char *const texts[PLS_ZMQ_AWAY_COUNT] = {
#define REPORT_TEXT(name, text) [PLS_ZMQ_##name] = text,
    PLS_ZMQ_TURNED_AWAY(REPORT_TEXT)
#undef REPORT_TEXT
};

pls_err pls_report_create(pls_report **report_out)
{
    pls_report *report = calloc(1, sizeof *report);
    if (report == NULL) {
        return PLS_ENOMEM;
    }
    *report_out = report;
    return PLS_OK;
}

void pls_report_destroy(pls_report *report)
{
    free(report);
}

static void tell(pls_zmq *zmq, pls_zmq_away reason)
{
    reason_state *state = &zmq->report->reasons[reason];
    uint64_t count = state->count;
    state->count = 0;
    state->quiet_until_ns = zmq->now_ns + zmq->settings.report_ns;
    if (zmq->handlers->turned_away != NULL) {
        zmq->handlers->turned_away(zmq->owner, texts[reason], state->from, count);
    }
}

void pls_report_away(pls_zmq *zmq, pls_zmq_away reason, const char *from)
{
    reason_state *state = &zmq->report->reasons[reason];
    uint64_t *counters[PLS_ZMQ_AWAY_COUNT] = {
#define REPORT_COUNTER(name, text) [PLS_ZMQ_##name] = &zmq->counters.name,
        PLS_ZMQ_TURNED_AWAY(REPORT_COUNTER)
#undef REPORT_COUNTER
    };
    ++*counters[reason];
    state->count++;
    snprintf(state->from, sizeof state->from, "%s", from);
    if (zmq->now_ns >= state->quiet_until_ns) {
        tell(zmq, reason);
    } else {
        pls_zmq_due(zmq, state->quiet_until_ns);
    }
}

void pls_report_tick(pls_zmq *zmq)
{
    for (unsigned i = 0; i < PLS_ZMQ_AWAY_COUNT; i++) {
        reason_state *state = &zmq->report->reasons[i];
        if (state->count > 0 && zmq->now_ns >= state->quiet_until_ns) {
            tell(zmq, (pls_zmq_away)i);
        } else if (state->count > 0) {
            pls_zmq_due(zmq, state->quiet_until_ns);
        }
    }
}
