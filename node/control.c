/* SPDX-License-Identifier: Apache-2.0 */
/* The packets of the control socket. One table says for every type which strings, how much data and
 * how many descriptors it may carry and who may send it; a packet that breaks the table is refused
 * before anybody looks at its values. Called by both ends. */
#include "node/control.h"

#include "base/assert.h"
#include "node/directory.h"
#include "shm/layout.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

typedef struct packet_rule {
    bool known;
    uint8_t fds_min;
    uint8_t fds_max;
    uint16_t name_bytes_max;
    uint16_t text_bytes_max;
    uint32_t data_bytes_max;
} packet_rule;

#define NAME PLS_NAME_BYTES_MAX
#define TEXT PLS_CONTROL_TEXT_BYTES_MAX
#define DATA PLS_CONTROL_INLINE_BYTES_MAX

/* Descriptors least and most, bytes of name, text and data at the most. */
static const packet_rule client_rules[PLS_CONTROL_CLIENT_TYPES_END] = {
    [PLS_CONTROL_HELLO] = {true, 1, 1, 0, 0, 0},
    [PLS_CONTROL_ATTACH] = {true, 2, 3, 0, 0, 0},
    [PLS_CONTROL_DETACH] = {true, 0, 0, 0, 0, 0},
    [PLS_CONTROL_PEER_GET] = {true, 0, 0, 0, 0, 0},
    [PLS_CONTROL_SEGMENT_GET] = {true, 0, 0, 0, 0, 0},
    [PLS_CONTROL_SEGMENT_REGISTER] = {true, 1, 1, 0, 0, 0},
    [PLS_CONTROL_SEGMENT_UNREGISTER] = {true, 0, 0, 0, 0, 0},
    [PLS_CONTROL_DEATH_ACK] = {true, 0, 0, 0, 0, 0},
    [PLS_CONTROL_PLACE] = {true, 0, 0, 0, 0, DATA},
    [PLS_CONTROL_NAME_REGISTER] = {true, 0, 0, NAME, NAME, DATA},
    [PLS_CONTROL_NAME_UNREGISTER] = {true, 0, 0, NAME, 0, 0},
    [PLS_CONTROL_NAME_FIND] = {true, 0, 0, NAME, 0, 0},
    [PLS_CONTROL_CANCEL] = {true, 0, 0, 0, 0, 0},
    [PLS_CONTROL_NAMES_LIST] = {true, 0, 0, 0, 0, 0},
    [PLS_CONTROL_OUTPUT_TAIL] = {true, 0, 0, 0, 0, 0},
    [PLS_CONTROL_RESTART_REGISTER] = {true, 0, 1, 0, 0, DATA},
    [PLS_CONTROL_ACTOR_UNREGISTER] = {true, 0, 0, 0, 0, 0},
    [PLS_CONTROL_ACTOR_FAILED] = {true, 0, 0, 0, TEXT, 0},
    [PLS_CONTROL_REBUILT] = {true, 0, 0, 0, TEXT, 0},
    [PLS_CONTROL_WORKER_STOP] = {true, 0, 0, 0, 0, 0},
    [PLS_CONTROL_SHUTDOWN] = {true, 0, 0, 0, 0, 0},
    [PLS_CONTROL_OBS_GET] = {true, 0, 0, 0, 0, 0},
    [PLS_CONTROL_ACTOR_FIND] = {true, 0, 0, 0, 0, 0},
    [PLS_CONTROL_WORKER_RECYCLE] = {true, 0, 0, 0, 0, 0},
    [PLS_CONTROL_MEMBERS_LIST] = {true, 0, 0, 0, 0, 0},
};

static const packet_rule node_rules[PLS_CONTROL_NODE_TYPES_END - PLS_CONTROL_WELCOME] = {
    [PLS_CONTROL_WELCOME - PLS_CONTROL_WELCOME] = {true, 0, 1, NAME, TEXT, DATA},
    [PLS_CONTROL_REPLY - PLS_CONTROL_WELCOME] = {true, 0, 2, NAME, TEXT, DATA},
    [PLS_CONTROL_REBUILD - PLS_CONTROL_WELCOME] = {true, 0, 1, NAME, 0, DATA},
    [PLS_CONTROL_ROUTE - PLS_CONTROL_WELCOME] = {true, 0, 0, 0, 0, 0},
    [PLS_CONTROL_ACTOR_LOST - PLS_CONTROL_WELCOME] = {true, 0, 0, 0, TEXT, 0},
    [PLS_CONTROL_SHUTDOWN_NOTICE - PLS_CONTROL_WELCOME] = {true, 0, 0, 0, 0, 0},
    [PLS_CONTROL_MEMBER - PLS_CONTROL_WELCOME] = {true, 0, 0, NAME, 0, DATA},
};

_Static_assert(sizeof(pls_control_head) + NAME + TEXT + DATA <= PLS_CONTROL_PACKET_BYTES_MAX,
               "the largest packet that the table allows fits");

static const packet_rule *rule_of(uint16_t type)
{
    if (type < PLS_CONTROL_CLIENT_TYPES_END && client_rules[type].known) {
        return &client_rules[type];
    }
    if (type >= PLS_CONTROL_WELCOME && type < PLS_CONTROL_NODE_TYPES_END) {
        return &node_rules[type - PLS_CONTROL_WELCOME];
    }
    return NULL;
}

static bool rule_allows(const packet_rule *rule, const pls_control_packet *packet)
{
    return packet->fd_count >= rule->fds_min && packet->fd_count <= rule->fds_max &&
           packet->name_bytes <= rule->name_bytes_max &&
           packet->text_bytes <= rule->text_bytes_max && packet->data_bytes <= rule->data_bytes_max;
}

size_t pls_control_encode(const pls_control_packet *packet, uint8_t *bytes)
{
    const packet_rule *rule = rule_of(packet->type);
    pls_assert(rule != NULL);
    pls_assert(rule_allows(rule, packet));
    pls_control_head head = {
        .magic = PLS_CONTROL_MAGIC,
        .type = packet->type,
        .fd_count = (uint16_t)packet->fd_count,
        .request = packet->request,
        .status = packet->status,
        .slot = packet->slot,
        .epoch = packet->epoch,
        .actor = packet->actor,
        .number = packet->number,
        .flags = packet->flags,
        .name_bytes = (uint16_t)packet->name_bytes,
        .text_bytes = (uint16_t)packet->text_bytes,
        .data_bytes = (uint32_t)packet->data_bytes,
        .pid = packet->pid,
    };
    uint8_t *at = bytes;
    memcpy(at, &head, sizeof head);
    at += sizeof head;
    if (packet->name_bytes > 0) {
        memcpy(at, packet->name, packet->name_bytes);
        at += packet->name_bytes;
    }
    if (packet->text_bytes > 0) {
        memcpy(at, packet->text, packet->text_bytes);
        at += packet->text_bytes;
    }
    if (packet->data_bytes > 0) {
        memcpy(at, packet->data, packet->data_bytes);
        at += packet->data_bytes;
    }
    return (size_t)(at - bytes);
}

pls_err pls_control_decode(const uint8_t *bytes, size_t len, pls_control_end end, uint32_t fd_count,
                           pls_control_packet *packet_out)
{
    pls_control_head head;
    if (len < sizeof head || len > PLS_CONTROL_PACKET_BYTES_MAX) {
        return PLS_EPROTO;
    }
    memcpy(&head, bytes, sizeof head);
    if (head.magic != PLS_CONTROL_MAGIC || head.fd_count != fd_count) {
        return PLS_EPROTO;
    }
    bool from_client = head.type < PLS_CONTROL_WELCOME;
    const packet_rule *rule = rule_of(head.type);
    if (rule == NULL || from_client != (end == PLS_CONTROL_AT_NODE)) {
        return PLS_EPROTO;
    }
    size_t strings = (size_t)head.name_bytes + head.text_bytes + head.data_bytes;
    if (strings != len - sizeof head) {
        return PLS_EPROTO;
    }
    const uint8_t *name = bytes + sizeof head;
    const uint8_t *text = name + head.name_bytes;
    pls_control_packet packet = {
        .type = head.type,
        .request = head.request,
        .status = head.status,
        .slot = head.slot,
        .epoch = head.epoch,
        .flags = head.flags,
        .pid = head.pid,
        .actor = head.actor,
        .number = head.number,
        .name = (const char *)name,
        .name_bytes = head.name_bytes,
        .text = (const char *)text,
        .text_bytes = head.text_bytes,
        .data = text + head.text_bytes,
        .data_bytes = head.data_bytes,
        .fds = {-1, -1, -1, -1},
        .fd_count = fd_count,
    };
    if (!rule_allows(rule, &packet)) {
        return PLS_EPROTO;
    }
    *packet_out = packet;
    return PLS_OK;
}

pls_err pls_control_send(int fd, const uint8_t *bytes, size_t len, const int *fds,
                         uint32_t fd_count)
{
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(sizeof(int) * PLS_CONTROL_FDS_MAX)];
    } ancillary;
    struct iovec part = {.iov_base = (void *)(uintptr_t)bytes, .iov_len = len};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
    pls_assert(fd_count <= PLS_CONTROL_FDS_MAX);
    if (fd_count > 0) {
        memset(&ancillary, 0, sizeof ancillary);
        message.msg_control = ancillary.bytes;
        message.msg_controllen = CMSG_SPACE(sizeof(int) * fd_count);
        struct cmsghdr *cmsg = CMSG_FIRSTHDR(&message);
        cmsg->cmsg_level = SOL_SOCKET;
        cmsg->cmsg_type = SCM_RIGHTS;
        cmsg->cmsg_len = CMSG_LEN(sizeof(int) * fd_count);
        memcpy(CMSG_DATA(cmsg), fds, sizeof(int) * fd_count);
    }
    for (;;) {
        if (sendmsg(fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT) >= 0) {
            return PLS_OK;
        }
        if (errno == EINTR) {
            continue;
        }
        /* A socket whose in-flight descriptors exceed the limit drains like a full one. */
        if (errno == EWOULDBLOCK || errno == ENOBUFS || errno == ETOOMANYREFS) {
            return PLS_EFULL;
        }
        return pls_err_from_errno(errno);
    }
}

/* Takes the descriptors out of a received message; more of them than we have room for are closed.
 */
static uint32_t fds_take(struct msghdr *message, int fds[PLS_CONTROL_FDS_MAX], bool *excess)
{
    uint32_t count = 0;
    for (struct cmsghdr *c = CMSG_FIRSTHDR(message); c != NULL; c = CMSG_NXTHDR(message, c)) {
        if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS) {
            continue;
        }
        size_t held = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (size_t i = 0; i < held; i++) {
            int fd;
            memcpy(&fd, CMSG_DATA(c) + i * sizeof fd, sizeof fd);
            if (count < PLS_CONTROL_FDS_MAX) {
                fds[count++] = fd;
            } else {
                close(fd);
                *excess = true;
            }
        }
    }
    return count;
}

pls_err pls_control_receive(int fd, pls_control_end end, uint8_t *bytes,
                            pls_control_packet *packet_out)
{
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(sizeof(int) * PLS_CONTROL_FDS_MAX)];
    } ancillary;
    struct iovec part = {.iov_base = bytes, .iov_len = PLS_CONTROL_PACKET_BYTES_MAX};
    struct msghdr message = {.msg_iov = &part,
                             .msg_iovlen = 1,
                             .msg_control = ancillary.bytes,
                             .msg_controllen = sizeof ancillary.bytes};
    ssize_t len;
    do {
        len = recvmsg(fd, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    } while (len < 0 && errno == EINTR);
    if (len < 0) {
        return errno == EWOULDBLOCK ? PLS_EEMPTY : pls_err_from_errno(errno);
    }
    int fds[PLS_CONTROL_FDS_MAX] = {-1, -1, -1, -1};
    bool excess = false;
    uint32_t fd_count = fds_take(&message, fds, &excess);
    pls_err err = PLS_OK;
    if (len == 0 && fd_count == 0) {
        return PLS_ECLOSED;
    }
    if ((message.msg_flags & MSG_CTRUNC) != 0 && !excess && fd_count < PLS_CONTROL_FDS_MAX) {
        err = PLS_EFDLIMIT;
    } else if (excess || (message.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) != 0) {
        err = PLS_EPROTO;
    } else {
        err = pls_control_decode(bytes, (size_t)len, end, fd_count, packet_out);
    }
    for (uint32_t i = 0; i < fd_count; i++) {
        if (err != PLS_OK) {
            close(fds[i]);
        } else {
            packet_out->fds[i] = fds[i];
        }
    }
    return err;
}

void pls_control_packet_drop(pls_control_packet *packet)
{
    for (uint32_t i = 0; i < PLS_CONTROL_FDS_MAX; i++) {
        if (packet->fds[i] >= 0) {
            close(packet->fds[i]);
            packet->fds[i] = -1;
        }
    }
    packet->fd_count = 0;
}

uint64_t pls_control_layout_hash(void)
{
    uint64_t hash = PLS_LAYOUT_HASH;
    const uint64_t parts[] = {PLS_CONTROL_VERSION, PLS_DIRECTORY_VERSION, sizeof(pls_directory),
                              sizeof(pls_control_head), PLS_LINE_BYTES};
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
        hash = (hash ^ parts[i]) * 0x100000001b3ull;
    }
    return hash;
}
