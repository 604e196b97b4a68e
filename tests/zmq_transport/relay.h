/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PLS_TESTS_ZMQ_TRANSPORT_RELAY_H
#define PLS_TESTS_ZMQ_TRANSPORT_RELAY_H

#include <sys/types.h>

/* A process that passes tcp connections on to a port of this host, and breaks them when told to.
 * Threads: owner thread; the same for every function of this header. */
typedef struct relay {
    pid_t pid;
    int control;      /* a byte is an order */
    char address[64]; /* where it listens, as a transport spells it */
} relay;

/* To be called before the process has threads. The target is told later. */
void relay_start(relay *r);
void relay_target(relay *r, const char *endpoint);
/* Break every connection, in the middle of whatever it carries. */
void relay_cut(relay *r);
void relay_stop(relay *r);

#endif
