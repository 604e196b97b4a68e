/* SPDX-License-Identifier: Apache-2.0 */
/* Sending to the node, and the few calls that wait for its answer: 5 s at the most, after which the
 * node counts as hung. Other packets that arrive meanwhile are kept in order for pls_attach_poll().
 */
#include "node/attach_link.h"

#include "base/assert.h"
#include "node/address.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static int64_t now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static pls_err socket_wait(int fd, short events, int64_t until_ms)
{
    for (;;) {
        struct pollfd wait = {.fd = fd, .events = events};
        int64_t left_ms = until_ms - now_ms();
        int ready = poll(&wait, 1, left_ms > 0 ? (int)left_ms : 0);
        if (ready > 0) {
            return PLS_OK;
        }
        if (ready == 0 && left_ms <= 0) {
            return PLS_ETIMEDOUT;
        }
        if (ready < 0 && errno != EINTR) {
            return PLS_ESYS;
        }
    }
}

static void kept_tell(pls_attach *attach)
{
    if (attach->on_kept != NULL) {
        attach->on_kept(attach->on_kept_context);
    }
}

void pls_attach_on_kept(pls_attach *attach, void (*on_kept)(void *context), void *context)
{
    attach->on_kept = on_kept;
    attach->on_kept_context = context;
}

bool pls_attach_has_kept(const pls_attach *attach)
{
    return attach->incoming.first != NULL;
}

pls_err pls_attach_send(pls_attach *attach, const pls_control_packet *packet)
{
    uint8_t bytes[PLS_CONTROL_PACKET_BYTES_MAX];
    int copies[PLS_CONTROL_FDS_MAX];
    if (attach->pid != getpid()) {
        return PLS_EFORKED;
    }
    if (attach->closed) {
        return pls_attach_fail(attach, PLS_ECLOSED, "the node process is gone");
    }
    size_t len = pls_control_encode(packet, bytes);
    pls_err flushed = pls_packet_queue_flush(&attach->outgoing, attach->fd);
    if (flushed != PLS_OK && flushed != PLS_EFULL) {
        return pls_attach_fail(attach, flushed, "sending to the node");
    }
    if (attach->outgoing.first == NULL) {
        pls_err err = pls_control_send(attach->fd, bytes, len, packet->fds, packet->fd_count);
        if (err != PLS_EFULL) {
            return err == PLS_OK ? PLS_OK : pls_attach_fail(attach, err, "sending to the node");
        }
    }
    for (uint32_t i = 0; i < packet->fd_count; i++) {
        copies[i] = dup(packet->fds[i]);
        if (copies[i] < 0) {
            pls_err err = pls_err_from_errno(errno);
            while (i > 0) {
                close(copies[--i]);
            }
            return pls_attach_fail(attach, err, "queueing for the node");
        }
    }
    pls_err err = pls_packet_queue_push(&attach->outgoing, bytes, len, copies, packet->fd_count);
    for (uint32_t i = 0; err != PLS_OK && i < packet->fd_count; i++) {
        close(copies[i]);
    }
    if (err == PLS_OK) {
        kept_tell(attach);
    }
    return err == PLS_OK ? PLS_OK : pls_attach_fail(attach, err, "queueing for the node");
}

pls_err pls_attach_request(pls_attach *attach, pls_control_packet *packet, uint32_t *request_out)
{
    /* 0 is never a request, so that it can mean "none". */
    uint32_t request = attach->request_last + 1 == 0 ? 1 : attach->request_last + 1;
    packet->request = request;
    pls_err err = pls_attach_send(attach, packet);
    if (err == PLS_OK) {
        attach->request_last = request;
        *request_out = request;
    }
    return err;
}

static pls_err send_by(pls_attach *attach, const pls_control_packet *packet, int64_t until_ms)
{
    uint8_t bytes[PLS_CONTROL_PACKET_BYTES_MAX];
    size_t len = pls_control_encode(packet, bytes);
    for (;;) {
        pls_err err = pls_packet_queue_flush(&attach->outgoing, attach->fd);
        if (err == PLS_OK) {
            err = pls_control_send(attach->fd, bytes, len, packet->fds, packet->fd_count);
        }
        if (err != PLS_EFULL) {
            return err;
        }
        err = socket_wait(attach->fd, POLLOUT, until_ms);
        if (err != PLS_OK) {
            return err;
        }
    }
}

pls_err pls_attach_send_waiting(pls_attach *attach, const pls_control_packet *packet)
{
    if (attach->pid != getpid()) {
        return PLS_EFORKED;
    }
    pls_err err =
        attach->closed ? PLS_ECLOSED : send_by(attach, packet, now_ms() + PLS_ATTACH_TIMEOUT_MS);
    return err == PLS_OK ? PLS_OK : pls_attach_fail(attach, err, "sending to the node");
}

static pls_err incoming_keep(pls_attach *attach, pls_control_packet *packet)
{
    uint8_t bytes[PLS_CONTROL_PACKET_BYTES_MAX];
    size_t len = pls_control_encode(packet, bytes);
    pls_err err =
        pls_packet_queue_push(&attach->incoming, bytes, len, packet->fds, packet->fd_count);
    if (err != PLS_OK) {
        pls_control_packet_drop(packet);
        return err;
    }
    kept_tell(attach);
    return PLS_OK;
}

static pls_err reply_wait(pls_attach *attach, uint32_t request, uint16_t type, int64_t until_ms,
                          pls_control_packet *reply)
{
    for (;;) {
        pls_err err = pls_control_receive(attach->fd, PLS_CONTROL_AT_CLIENT, attach->bytes, reply);
        if (err == PLS_EEMPTY) {
            err = socket_wait(attach->fd, POLLIN, until_ms);
            if (err != PLS_OK) {
                return err;
            }
            continue;
        }
        if (err != PLS_OK) {
            return err;
        }
        if (reply->request == request && reply->type == type) {
            return PLS_OK;
        }
        err = incoming_keep(attach, reply);
        if (err != PLS_OK) {
            return err;
        }
    }
}

pls_err pls_attach_call(pls_attach *attach, pls_control_packet *packet, uint16_t reply_type,
                        pls_control_packet *reply_out)
{
    int64_t until_ms = now_ms() + PLS_ATTACH_TIMEOUT_MS;
    pls_control_packet reply;
    if (attach->pid != getpid()) {
        return PLS_EFORKED;
    }
    if (attach->closed) {
        return pls_attach_fail(attach, PLS_ECLOSED, "the node process is gone");
    }
    packet->request = ++attach->request_last == 0 ? ++attach->request_last : attach->request_last;
    pls_err err = send_by(attach, packet, until_ms);
    if (err == PLS_OK) {
        err = reply_wait(attach, packet->request, reply_type, until_ms, &reply);
    }
    if (err != PLS_OK) {
        /* The socket's own end is an event, for pls_attach_poll() to report in its turn. */
        return pls_attach_fail(attach, err, "asking the node");
    }
    if (reply.status != PLS_OK) {
        err = (pls_err)reply.status;
        if (reply.text_bytes > 0) {
            snprintf(attach->trouble, sizeof attach->trouble, "%.*s", (int)reply.text_bytes,
                     reply.text);
        } else {
            err = pls_attach_fail(attach, err, "the node answers");
        }
        pls_control_packet_drop(&reply);
        return err;
    }
    *reply_out = reply;
    return PLS_OK;
}

pls_err pls_attach_connect(const char *name_or_path, int *control_fd_out, char *trouble)
{
    pls_address address;
    pls_err err = pls_address_make(name_or_path, &address);
    if (err != PLS_OK) {
        snprintf(trouble, PLS_TROUBLE_BYTES_MAX, "not a name or path of a node: '%s'",
                 name_or_path);
        return err;
    }
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) {
        snprintf(trouble, PLS_TROUBLE_BYTES_MAX, "cannot make a socket: %s", strerror(errno));
        return pls_err_from_errno(errno);
    }
    if (connect(fd, (const struct sockaddr *)&address.un, address.len) != 0) {
        err = errno == EPROTOTYPE ? PLS_EPROTO : pls_err_from_errno(errno);
        snprintf(trouble, PLS_TROUBLE_BYTES_MAX, "no node to attach to at '%s': %s", name_or_path,
                 errno == EPROTOTYPE ? "it is another program's socket" : strerror(errno));
    } else if (!pls_address_peer_is_own(fd)) {
        err = PLS_EPERM;
        snprintf(trouble, PLS_TROUBLE_BYTES_MAX, "the node at '%s' belongs to another user",
                 name_or_path);
    }
    if (err != PLS_OK) {
        close(fd);
        return err;
    }
    *control_fd_out = fd;
    return PLS_OK;
}

pls_err pls_attach_peer_get(pls_attach *attach, uint32_t slot, uint32_t epoch,
                            pls_attach_peer *peer_out)
{
    pls_control_packet packet = {.type = PLS_CONTROL_PEER_GET, .slot = slot, .epoch = epoch};
    pls_control_packet reply;
    pls_err err = pls_attach_call(attach, &packet, PLS_CONTROL_REPLY, &reply);
    if (err != PLS_OK) {
        return err;
    }
    if (reply.fd_count != 2) {
        pls_control_packet_drop(&reply);
        return pls_attach_fail(attach, PLS_EPROTO, "asking for a peer");
    }
    *peer_out = (pls_attach_peer){.inbox_fd = reply.fds[0], .bell_fd = reply.fds[1]};
    return PLS_OK;
}

/* A question that one descriptor answers. */
static pls_err descriptor_get(pls_attach *attach, pls_control_packet *packet, const char *doing,
                              int *fd_out)
{
    pls_control_packet reply;
    pls_err err = pls_attach_call(attach, packet, PLS_CONTROL_REPLY, &reply);
    if (err != PLS_OK) {
        return err;
    }
    if (reply.fd_count != 1) {
        pls_control_packet_drop(&reply);
        return pls_attach_fail(attach, PLS_EPROTO, doing);
    }
    *fd_out = reply.fds[0];
    return PLS_OK;
}

pls_err pls_attach_segment_get(pls_attach *attach, uint32_t slot, uint32_t epoch,
                               uint32_t segment_id, int *fd_out)
{
    pls_control_packet packet = {
        .type = PLS_CONTROL_SEGMENT_GET, .slot = slot, .epoch = epoch, .number = segment_id};
    return descriptor_get(attach, &packet, "asking for a segment", fd_out);
}

pls_err pls_attach_obs_get(pls_attach *attach, uint32_t slot, uint32_t epoch, int *fd_out)
{
    pls_control_packet packet = {.type = PLS_CONTROL_OBS_GET, .slot = slot, .epoch = epoch};
    return descriptor_get(attach, &packet, "asking for an obs memory", fd_out);
}

pls_err pls_attach_output_tail_wait(pls_attach *attach, uint32_t slot, uint32_t epoch, char *text,
                                    size_t capacity, size_t *bytes_out)
{
    pls_control_packet packet = {.type = PLS_CONTROL_OUTPUT_TAIL, .slot = slot, .epoch = epoch};
    pls_control_packet reply;
    pls_err err = pls_attach_call(attach, &packet, PLS_CONTROL_REPLY, &reply);
    if (err != PLS_OK) {
        return err;
    }
    /* Whole lines: what does not fit goes from the front. */
    size_t skipped = reply.text_bytes > capacity ? reply.text_bytes - capacity : 0;
    *bytes_out = reply.text_bytes - skipped;
    if (*bytes_out > 0) {
        memcpy(text, reply.text + skipped, *bytes_out);
    }
    pls_control_packet_drop(&reply);
    return PLS_OK;
}

pls_err pls_attach_segment_register(pls_attach *attach, uint32_t segment_id, int fd)
{
    pls_control_packet packet = {
        .type = PLS_CONTROL_SEGMENT_REGISTER, .number = segment_id, .fds = {fd}, .fd_count = 1};
    return pls_attach_send_waiting(attach, &packet);
}

pls_err pls_attach_segment_unregister(pls_attach *attach, uint32_t segment_id)
{
    pls_control_packet packet = {.type = PLS_CONTROL_SEGMENT_UNREGISTER, .number = segment_id};
    return pls_attach_send(attach, &packet);
}

pls_err pls_attach_death_ack(pls_attach *attach, uint32_t slot, uint32_t epoch)
{
    pls_control_packet packet = {.type = PLS_CONTROL_DEATH_ACK, .slot = slot, .epoch = epoch};
    return pls_attach_send(attach, &packet);
}
