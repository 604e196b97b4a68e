/* SPDX-License-Identifier: Apache-2.0 */
/* Only numeric addresses are read: a name would be looked up by ZeroMQ's one thread, and hold up
 * every connection meanwhile. A knock is a bare connection attempt: libzmq tells that an attempt
 * failed, and not how, but a refusal means that the host lives and the process does not.
 * Called when peers and endpoints become known, by lanes and by the door. */
#include "zmq_transport/address.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define HOST_BYTES_MAX 64
#define PORT_DIGITS_MAX 5

static bool port_read(const char *text, size_t len, in_port_t *port_out)
{
    unsigned port = 0;
    if (len == 0 || len > PORT_DIGITS_MAX) {
        return false;
    }
    for (size_t i = 0; i < len; i++) {
        if (text[i] < '0' || text[i] > '9') {
            return false;
        }
        port = port * 10 + (unsigned)(text[i] - '0');
    }
    *port_out = (in_port_t)port;
    return port <= UINT16_MAX;
}

static bool host_read(const char *host, bool bracketed, pls_zmq_place *place)
{
    struct sockaddr_in *v4 = (struct sockaddr_in *)&place->address;
    struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)&place->address;
    if (bracketed) {
        v6->sin6_family = AF_INET6;
        v6->sin6_port = htons(place->port);
        place->len = sizeof *v6;
        place->wildcard = strcmp(host, "::") == 0;
        return inet_pton(AF_INET6, host, &v6->sin6_addr) == 1;
    }
    v4->sin_family = AF_INET;
    v4->sin_port = htons(place->port);
    place->len = sizeof *v4;
    place->wildcard = strcmp(host, "0.0.0.0") == 0;
    return inet_pton(AF_INET, host, &v4->sin_addr) == 1;
}

pls_err pls_zmq_place_parse(const char *text, size_t len, pls_zmq_place *place_out)
{
    static const char scheme[] = "tcp://";
    pls_zmq_place place = {0};
    char host[HOST_BYTES_MAX];
    const char *end = text + len;
    if (len < sizeof scheme || memcmp(text, scheme, sizeof scheme - 1) != 0) {
        return PLS_EINVAL;
    }
    text += sizeof scheme - 1;
    const char *colon = memrchr(text, ':', (size_t)(end - text));
    if (colon == NULL || !port_read(colon + 1, (size_t)(end - colon - 1), &place.port)) {
        return PLS_EINVAL;
    }
    bool bracketed = colon - text > 2 && text[0] == '[' && colon[-1] == ']';
    const char *first = bracketed ? text + 1 : text;
    size_t host_bytes = (size_t)(colon - text) - (bracketed ? 2 : 0);
    if (host_bytes == 0 || host_bytes >= sizeof host) {
        return PLS_EINVAL;
    }
    memcpy(host, first, host_bytes);
    host[host_bytes] = 0;
    if (strlen(host) != host_bytes || !host_read(host, bracketed, &place)) {
        return PLS_EINVAL;
    }
    *place_out = place;
    return PLS_OK;
}

static bool name_of(const struct sockaddr_storage *address, socklen_t len,
                    char host[HOST_BYTES_MAX], char port[PORT_DIGITS_MAX + 1])
{
    return getnameinfo((const struct sockaddr *)address, len, host, HOST_BYTES_MAX, port,
                       PORT_DIGITS_MAX + 1, NI_NUMERICHOST | NI_NUMERICSERV) == 0;
}

void pls_zmq_place_peer(int fd, char *text, size_t capacity)
{
    struct sockaddr_storage address;
    socklen_t len = sizeof address;
    char host[HOST_BYTES_MAX];
    char port[PORT_DIGITS_MAX + 1];
    snprintf(text, capacity, "?");
    if (getpeername(fd, (struct sockaddr *)&address, &len) == 0 &&
        name_of(&address, len, host, port)) {
        snprintf(text, capacity, "%s:%s", host, port);
    }
}

void pls_zmq_place_local(int fd, char *text, size_t capacity)
{
    struct sockaddr_storage address;
    socklen_t len = sizeof address;
    char host[HOST_BYTES_MAX];
    char port[PORT_DIGITS_MAX + 1];
    text[0] = 0;
    if (fd >= 0 && getsockname(fd, (struct sockaddr *)&address, &len) == 0 &&
        name_of(&address, len, host, port)) {
        /* A socket for both families shows an IPv4 address inside an IPv6 one. */
        static const char mapped[] = "::ffff:";
        bool is_mapped = strncmp(host, mapped, sizeof mapped - 1) == 0 && strchr(host, '.') != NULL;
        snprintf(text, capacity, "%s", is_mapped ? host + sizeof mapped - 1 : host);
    }
}

bool pls_zmq_place_is_ours(int fd, const in_port_t *ports, size_t port_count)
{
    struct sockaddr_storage address;
    socklen_t len = sizeof address;
    if (getsockname(fd, (struct sockaddr *)&address, &len) != 0) {
        return false;
    }
    in_port_t port = 0;
    if (address.ss_family == AF_INET) {
        port = ntohs(((struct sockaddr_in *)&address)->sin_port);
    } else if (address.ss_family == AF_INET6) {
        port = ntohs(((struct sockaddr_in6 *)&address)->sin6_port);
    }
    for (size_t i = 0; i < port_count; i++) {
        if (port != 0 && ports[i] == port) {
            return true;
        }
    }
    return false;
}

pls_err pls_zmq_knock(const pls_zmq_place *place, int *fd_out)
{
    int fd = socket(place->address.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        return pls_err_from_errno(errno);
    }
    if (connect(fd, (const struct sockaddr *)&place->address, place->len) != 0 &&
        errno != EINPROGRESS) {
        pls_err err = errno == ECONNREFUSED ? PLS_EDEAD : PLS_ESYS;
        close(fd);
        return err;
    }
    *fd_out = fd;
    return PLS_OK;
}

pls_err pls_zmq_knock_answer(int fd)
{
    int error = 0;
    socklen_t len = sizeof error;
    struct sockaddr_storage address;
    socklen_t address_len = sizeof address;
    if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &len) != 0) {
        return PLS_ESYS;
    }
    if (error != 0) {
        return error == ECONNREFUSED ? PLS_EDEAD : PLS_ESYS;
    }
    return getpeername(fd, (struct sockaddr *)&address, &address_len) == 0 ? PLS_OK : PLS_EEMPTY;
}
