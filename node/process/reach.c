/* SPDX-License-Identifier: Apache-2.0 */
/* Reading and writing addresses. Which of its own addresses this host uses towards another is the
 * kernel's decision: a datagram socket that is connected makes it without a packet. */
#include "node/process/reach.h"

#include "base/assert.h"
#include "zmq_transport/address.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define SCHEME "tcp://"
#define SCHEME_BYTES (sizeof SCHEME - 1)
#define PORT_DIGITS_MAX 5

static bool port_read(const char *text, uint16_t *port_out)
{
    size_t digits = strspn(text, "0123456789");
    if (digits == 0 || digits > PORT_DIGITS_MAX || text[digits] != 0) {
        return false;
    }
    unsigned long port = strtoul(text, NULL, 10);
    *port_out = (uint16_t)port;
    return port <= UINT16_MAX;
}

pls_err pls_reach_parse(const char *text, pls_reach *reach_out)
{
    pls_reach reach = {.port = 0};
    text = pls_endpoint_plain(text);
    const char *colon = strrchr(text, ':');
    if (colon == NULL || !port_read(colon + 1, &reach.port)) {
        return PLS_EINVAL;
    }
    size_t len = (size_t)(colon - text);
    bool bracketed = len > 2 && text[0] == '[' && colon[-1] == ']';
    const char *host = bracketed ? text + 1 : text;
    len -= bracketed ? 2 : 0;
    if (len == 0 || len > PLS_HOST_BYTES_MAX) {
        return PLS_EINVAL;
    }
    memcpy(reach.host, host, len);
    if (!bracketed && strpbrk(reach.host, "[]:") != NULL) {
        return PLS_EINVAL;
    }
    *reach_out = reach;
    return PLS_OK;
}

pls_err pls_reach_endpoint(const pls_reach *reach, char endpoint[])
{
    struct in6_addr address;
    if (inet_pton(AF_INET, reach->host, &address) == 1) {
        snprintf(endpoint, PLS_ENDPOINT_CAPACITY, SCHEME "%.64s:%u", reach->host, reach->port);
    } else if (inet_pton(AF_INET6, reach->host, &address) == 1) {
        snprintf(endpoint, PLS_ENDPOINT_CAPACITY, SCHEME "[%.64s]:%u", reach->host, reach->port);
    } else {
        return PLS_ENOENT;
    }
    return PLS_OK;
}

bool pls_endpoint_is_wildcard(const char *endpoint)
{
    pls_zmq_place place;
    return pls_zmq_place_parse(endpoint, strlen(endpoint), &place) == PLS_OK && place.wildcard;
}

bool pls_endpoint_is_loopback(const char *endpoint)
{
    pls_zmq_place place;
    if (pls_zmq_place_parse(endpoint, strlen(endpoint), &place) != PLS_OK) {
        return false;
    }
    if (place.address.ss_family == AF_INET6) {
        const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)&place.address;
        return IN6_IS_ADDR_LOOPBACK(&v6->sin6_addr);
    }
    const struct sockaddr_in *v4 = (const struct sockaddr_in *)&place.address;
    return ntohl(v4->sin_addr.s_addr) >> IN_CLASSA_NSHIFT == IN_LOOPBACKNET;
}

const char *pls_endpoint_plain(const char *endpoint)
{
    return strncmp(endpoint, SCHEME, SCHEME_BYTES) == 0 ? endpoint + SCHEME_BYTES : endpoint;
}

static pls_err local_write(const struct sockaddr_storage *local, char *host_out)
{
    char endpoint[PLS_ENDPOINT_CAPACITY];
    pls_reach reach = {.port = 1};
    bool six = local->ss_family == AF_INET6;
    const void *address = six ? (const void *)&((const struct sockaddr_in6 *)local)->sin6_addr
                              : (const void *)&((const struct sockaddr_in *)local)->sin_addr;
    pls_assert(inet_ntop(local->ss_family, address, reach.host, sizeof reach.host) != NULL);
    if (pls_reach_endpoint(&reach, endpoint) != PLS_OK || pls_endpoint_is_wildcard(endpoint)) {
        return PLS_EDEAD;
    }
    memcpy(host_out, reach.host, sizeof reach.host);
    return PLS_OK;
}

pls_err pls_endpoint_local(const char *towards, char *host_out)
{
    pls_zmq_place place;
    struct sockaddr_storage local;
    socklen_t len = sizeof local;
    pls_err err = pls_zmq_place_parse(towards, strlen(towards), &place);
    if (err != PLS_OK) {
        return err;
    }
    int fd = socket(place.address.ss_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        return errno == EAFNOSUPPORT ? PLS_EDEAD : pls_err_from_errno(errno);
    }
    if (connect(fd, (const struct sockaddr *)&place.address, place.len) != 0) {
        err = PLS_EDEAD;
    } else if (getsockname(fd, (struct sockaddr *)&local, &len) != 0) {
        err = pls_err_from_errno(errno);
    } else {
        err = local_write(&local, host_out);
    }
    close(fd);
    return err;
}
