/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PLS_ZMQ_TRANSPORT_REPORT_H
#define PLS_ZMQ_TRANSPORT_REPORT_H

#include "zmq_transport/state.h"

/* Who was turned away: counted each time, told to the owner once per interval and reason.
 * Threads: owner thread; never blocks; the same for every function of this header. */

/* Errors:  PLS_ENOMEM. Owns: gives the report. */
PLS_MUST_USE pls_err pls_report_create(pls_report **report_out);
/* Owns: takes `report`; NULL is allowed. */
void pls_report_destroy(pls_report *report);

/* Count one; `from` is where it came from, "?" when nobody knows. */
void pls_report_away(pls_zmq *zmq, pls_zmq_away reason, const char *from);

/* Tell what has gathered, where the interval is over. */
void pls_report_tick(pls_zmq *zmq);

#endif
