/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PLS_TESTS_STRESS_WIRE_H
#define PLS_TESTS_STRESS_WIRE_H

#include <stdbool.h>
#include <stdint.h>

/* What processes of a test tell each other beside the memory under test: small packets with
 * descriptors, over a SOCK_SEQPACKET pair, as they would over the node's control socket. */
enum wire_kind { WIRE_INBOX = 1, WIRE_SEGMENT = 2 };

typedef struct wire_packet {
    uint32_t kind;
    uint32_t slot;
    uint32_t epoch;
    uint32_t segment;
} wire_packet;

#define WIRE_FDS_MAX 2

/* Makes a pair of connected sockets that block on sending only. */
void wire_open(int sockets_out[2]);

/* Sends one packet with `fd_count` descriptors; false if the other end is gone. */
bool wire_send(int socket, const wire_packet *packet, const int *fds, uint32_t fd_count);

/* Receives one packet within `timeout_ms`, which may be 0; false if none came. Missing descriptors
 * are -1. */
bool wire_receive(int socket, wire_packet *packet_out, int fds_out[WIRE_FDS_MAX], int timeout_ms);

#endif
