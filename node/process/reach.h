/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PLS_NODE_PROCESS_REACH_H
#define PLS_NODE_PROCESS_REACH_H

#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Addresses as users write them ("host:port", "[fd00::7]:8000", with or without "tcp://"), and as
 * the transport needs them: endpoints, "tcp://10.0.0.7:7100", numeric.
 * Threads: any thread; never blocks; the same for every function of this header. */

#define PLS_HOST_BYTES_MAX 253
#define PLS_ENDPOINT_CAPACITY 128

typedef struct pls_reach {
    char host[PLS_HOST_BYTES_MAX + 1]; /* a name or a number, without brackets */
    uint16_t port;
} pls_reach;

/* Errors:  PLS_EINVAL  not of that form. */
PLS_MUST_USE pls_err pls_reach_parse(const char *text, pls_reach *reach_out);

/* The endpoint of a numeric host. Errors:  PLS_ENOENT  the host is a name. */
PLS_MUST_USE pls_err pls_reach_endpoint(const pls_reach *reach, char endpoint[]);

/* What an endpoint's address is; of no endpoint: neither. */
bool pls_endpoint_is_wildcard(const char *endpoint);
bool pls_endpoint_is_loopback(const char *endpoint);

/* The endpoint without "tcp://": what users see. Lends from `endpoint`. */
const char *pls_endpoint_plain(const char *endpoint);

/* The address of this host from which it would speak to the endpoint `towards`; nothing is sent.
 * Units:   `host_out` holds PLS_HOST_BYTES_MAX + 1.
 * Errors:  PLS_EDEAD  there is no route; PLS_EINVAL, PLS_EFDLIMIT, PLS_ESYS. */
PLS_MUST_USE pls_err pls_endpoint_local(const char *towards, char *host_out);

#endif
