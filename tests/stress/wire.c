/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/stress/wire.h"

#include <check.h>
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

void wire_open(int sockets_out[2])
{
    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sockets_out), 0);
}

bool wire_send(int socket, const wire_packet *packet, const int *fds, uint32_t fd_count)
{
    _Alignas(struct cmsghdr) char control[CMSG_SPACE(WIRE_FDS_MAX * sizeof(int))];
    memset(control, 0, sizeof control);
    struct iovec data = {.iov_base = (void *)packet, .iov_len = sizeof *packet};
    struct msghdr message = {.msg_iov = &data, .msg_iovlen = 1};
    if (fd_count > 0) {
        message.msg_control = control;
        message.msg_controllen = CMSG_SPACE(fd_count * sizeof(int));
        struct cmsghdr *header = CMSG_FIRSTHDR(&message);
        header->cmsg_level = SOL_SOCKET;
        header->cmsg_type = SCM_RIGHTS;
        header->cmsg_len = CMSG_LEN(fd_count * sizeof(int));
        memcpy(CMSG_DATA(header), fds, fd_count * sizeof(int));
    }
    ssize_t sent;
    do {
        sent = sendmsg(socket, &message, MSG_NOSIGNAL);
    } while (sent < 0 && errno == EINTR);
    return sent == (ssize_t)sizeof *packet;
}

static bool packet_comes(int socket, int timeout_ms)
{
    struct pollfd descriptor = {.fd = socket, .events = POLLIN};
    int ready;
    do {
        ready = poll(&descriptor, 1, timeout_ms);
    } while (ready < 0 && errno == EINTR);
    return ready > 0 && (descriptor.revents & POLLIN) != 0;
}

bool wire_receive(int socket, wire_packet *packet_out, int fds_out[WIRE_FDS_MAX], int timeout_ms)
{
    _Alignas(struct cmsghdr) char control[CMSG_SPACE(WIRE_FDS_MAX * sizeof(int))];
    for (int i = 0; i < WIRE_FDS_MAX; i++) {
        fds_out[i] = -1;
    }
    if (!packet_comes(socket, timeout_ms)) {
        return false;
    }
    struct iovec data = {.iov_base = packet_out, .iov_len = sizeof *packet_out};
    struct msghdr message = {.msg_iov = &data,
                             .msg_iovlen = 1,
                             .msg_control = control,
                             .msg_controllen = sizeof control};
    ssize_t got = recvmsg(socket, &message, MSG_CMSG_CLOEXEC);
    if (got != (ssize_t)sizeof *packet_out) {
        return false;
    }
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    if (header != NULL && header->cmsg_type == SCM_RIGHTS) {
        memcpy(fds_out, CMSG_DATA(header), header->cmsg_len - CMSG_LEN(0));
    }
    return true;
}
