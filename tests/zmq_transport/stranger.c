/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/zmq_transport/stranger.h"

#include <arpa/inet.h>
#include <check.h>
#include <netinet/in.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <zmq.h>

int stranger_connect(const char *endpoint)
{
    struct sockaddr_in address = {
        .sin_family = AF_INET,
        .sin_port = htons((uint16_t)strtoul(strrchr(endpoint, ':') + 1, NULL, 10)),
        .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(connect(fd, (struct sockaddr *)&address, sizeof address), 0);
    return fd;
}

bool stranger_is_out(int fd)
{
    char bytes[512];
    ssize_t len = 0;
    do {
        len = recv(fd, bytes, sizeof bytes, MSG_DONTWAIT);
    } while (len > 0);
    return len == 0 || (errno != EAGAIN && errno != EWOULDBLOCK);
}

void stranger_open(stranger *s, const char *endpoint, const pls_zmq_key *key,
                   const char *routing_id)
{
    int zero = 0;
    int never = -1;
    s->context = zmq_ctx_new();
    s->socket = zmq_socket(s->context, ZMQ_DEALER);
    ck_assert_int_eq(zmq_setsockopt(s->socket, ZMQ_LINGER, &zero, sizeof zero), 0);
    /* Who is shown out stays out. */
    ck_assert_int_eq(zmq_setsockopt(s->socket, ZMQ_RECONNECT_IVL, &never, sizeof never), 0);
    if (routing_id != NULL) {
        ck_assert_int_eq(zmq_setsockopt(s->socket, ZMQ_ROUTING_ID, routing_id, strlen(routing_id)),
                         0);
    }
    if (key != NULL) {
        pls_zmq_pair server;
        pls_zmq_key_server(key, &server);
        ck_assert_int_eq(pls_zmq_key_client(&s->pair), PLS_OK);
        zmq_setsockopt(s->socket, ZMQ_CURVE_SERVERKEY, server.public_key, 32);
        zmq_setsockopt(s->socket, ZMQ_CURVE_PUBLICKEY, s->pair.public_key, 32);
        zmq_setsockopt(s->socket, ZMQ_CURVE_SECRETKEY, s->pair.secret_key, 32);
    }
    ck_assert_int_eq(zmq_connect(s->socket, endpoint), 0);
}

void stranger_close(stranger *s)
{
    zmq_close(s->socket);
    zmq_ctx_term(s->context);
}

void stranger_send(stranger *s, const void *bytes, size_t len, bool more)
{
    ck_assert_int_eq(zmq_send(s->socket, bytes, len, more ? ZMQ_SNDMORE : 0), (int)len);
}

int stranger_hear(stranger *s, int limit_ms)
{
    uint8_t bytes[1024];
    zmq_setsockopt(s->socket, ZMQ_RCVTIMEO, &limit_ms, sizeof limit_ms);
    int len = zmq_recv(s->socket, bytes, sizeof bytes, 0);
    if (len <= 0) {
        return -1;
    }
    return bytes[0] == PLS_FRAME_REFUSE && len > 1 ? PLS_FRAME_REFUSE << 8 | bytes[1] : bytes[0];
}

size_t stranger_greeting(uint8_t bytes[PLS_FRAME_GREETING_BYTES_MAX], const uint8_t *node_id,
                         pls_frame_lane lane, const pls_zmq_key *proof_key,
                         const uint8_t *proven_for)
{
    static const char address[] = "tcp://127.0.0.1:9";
    uint8_t mac[PLS_ZMQ_MAC_BYTES] = {0};
    pls_greeting greeting = {.version = PLS_FRAME_VERSION,
                             .lane = lane,
                             .generation = 1,
                             .cluster = "test",
                             .cluster_bytes = 4,
                             .name = "x",
                             .name_bytes = 1,
                             .address = address,
                             .address_bytes = sizeof address - 1};
    memcpy(greeting.node_id, node_id, sizeof greeting.node_id);
    pls_writer w = pls_writer_into(bytes, PLS_FRAME_GREETING_BYTES_MAX);
    pls_greeting_write(&w, &greeting);
    if (proof_key != NULL) {
        pls_zmq_key_mac(proof_key, proven_for, bytes, pls_writer_len(&w), mac);
    }
    pls_greeting_prove(&w, mac);
    return pls_writer_len(&w);
}
