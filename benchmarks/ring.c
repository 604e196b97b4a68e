/* SPDX-License-Identifier: Apache-2.0 */
/* Two processes that talk through this project's rings and doorbells, without the runtime above.
 *
 *     ring ask COUNT              64 bytes there and back, both sides awake
 *     ring batch COUNT            64 bytes one way, as fast as they go, a bell per batch
 *     ring wake COUNT PAUSE_MS    there and back, both sides asleep before */
#include "benchmarks/sample.h"
#include "shm/inbox.h"
#include "shm/outbox.h"
#include "shm/peer.h"

#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

enum { MESSAGE_BYTES = 64, WARM_UP = 200, BATCH = 32, SLOT_ASKS = 1, SLOT_ANSWERS = 2, EPOCH = 1 };

/* One side: where it receives, and its ring in the other's inbox. */
typedef struct side {
    pls_inbox *inbox;
    pls_peer *peer;
    pls_outbox *outbox;
    uint32_t slot;
} side;

static void must(pls_err err, const char *what)
{
    if (err != PLS_OK) {
        fprintf(stderr, "%s: %s\n", what, pls_err_text(err));
        exit(1);
    }
}

/* Control memory is not seen by forked children, so each side makes its own and sends the two
 * descriptors to the other. */
static void fds_send(int socket, const int fds[2])
{
    char byte = 0;
    union {
        struct cmsghdr head;
        char bytes[CMSG_SPACE(2 * sizeof(int))];
    } control = {.head = {.cmsg_len = CMSG_LEN(2 * sizeof(int)),
                          .cmsg_level = SOL_SOCKET,
                          .cmsg_type = SCM_RIGHTS}};
    memcpy(CMSG_DATA(&control.head), fds, 2 * sizeof(int));
    struct msghdr message = {.msg_iov = &(struct iovec){&byte, 1},
                             .msg_iovlen = 1,
                             .msg_control = control.bytes,
                             .msg_controllen = sizeof control.bytes};
    must(sendmsg(socket, &message, 0) == 1 ? PLS_OK : PLS_ESYS, "sendmsg");
}

static void fds_receive(int socket, int fds_out[2])
{
    char byte;
    union {
        struct cmsghdr head;
        char bytes[CMSG_SPACE(2 * sizeof(int))];
    } control;
    struct msghdr message = {.msg_iov = &(struct iovec){&byte, 1},
                             .msg_iovlen = 1,
                             .msg_control = control.bytes,
                             .msg_controllen = sizeof control.bytes};
    must(recvmsg(socket, &message, 0) == 1 ? PLS_OK : PLS_ESYS, "recvmsg");
    memcpy(fds_out, CMSG_DATA(CMSG_FIRSTHDR(&message)), 2 * sizeof(int));
}

static void side_open(side *me, uint32_t my_slot, uint32_t other_slot, int socket)
{
    int fds[2];
    me->slot = my_slot;
    must(pls_inbox_create(my_slot, EPOCH, &me->inbox), "inbox");
    fds_send(socket, (int[2]){pls_inbox_memfd(me->inbox), pls_inbox_eventfd(me->inbox)});
    fds_receive(socket, fds);
    must(pls_peer_attach(fds[0], fds[1], other_slot, EPOCH, &me->peer), "attach");
    must(pls_outbox_attach(me->peer, my_slot, EPOCH, PLS_RING_CAPACITY_MAX, &me->outbox), "ring");
}

static void wait_for_space(side *me)
{
    pls_bitmap taken;
    if (pls_outbox_want_space(me->outbox, MESSAGE_BYTES)) {
        while (!pls_inbox_take_space(me->inbox, &taken)) {
        }
    }
}

static void push(side *me, const char *bytes)
{
    uint8_t *room;
    pls_err err = pls_outbox_reserve(me->outbox, MESSAGE_BYTES, &room);
    while (err == PLS_EFULL) {
        (void)pls_outbox_wake(me->outbox);
        wait_for_space(me);
        err = pls_outbox_reserve(me->outbox, MESSAGE_BYTES, &room);
    }
    must(err, "reserve");
    memcpy(room, bytes, MESSAGE_BYTES);
    (void)pls_outbox_commit(me->outbox, MESSAGE_BYTES, 1, 0, 0);
}

static void give_space(side *me)
{
    pls_bitmap owed;
    if (pls_inbox_take_owed(me->inbox, &owed)) {
        pls_peer_ring_space(me->peer, me->slot);
    }
}

static void sleep_until_ready(side *me)
{
    if (pls_inbox_arm(me->inbox)) {
        struct pollfd event = {.fd = pls_inbox_eventfd(me->inbox), .events = POLLIN};
        int readable = poll(&event, 1, 1000);
        pls_inbox_disarm(me->inbox, readable > 0);
    }
}

static void pop(side *me, char *bytes, int asleep)
{
    pls_message message;
    pls_err err = pls_inbox_pop(me->inbox, &message);
    while (err == PLS_EEMPTY) {
        if (asleep) {
            sleep_until_ready(me);
        } else {
            while (pls_inbox_ready(me->inbox) == 0) {
            }
        }
        give_space(me);
        err = pls_inbox_pop(me->inbox, &message);
    }
    must(err, "pop");
    memcpy(bytes, message.bytes, MESSAGE_BYTES);
    pls_inbox_release(me->inbox);
}

static void answer_all(side *me, uint32_t turns, int asleep)
{
    char bytes[MESSAGE_BYTES];
    for (uint32_t turn = 0; turn < turns; turn++) {
        pop(me, bytes, asleep);
        push(me, bytes);
        (void)pls_outbox_wake(me->outbox);
    }
}

static void ask_all(side *me, uint32_t count, uint32_t warm_up, long between_ms)
{
    char bytes[MESSAGE_BYTES] = {0};
    int64_t *ns = calloc(count, sizeof *ns);
    if (ns == NULL) {
        exit(1);
    }
    for (uint32_t turn = 0; turn < count + warm_up; turn++) {
        pause_ms(between_ms);
        int64_t begin = now_ns();
        push(me, bytes);
        (void)pls_outbox_wake(me->outbox);
        pop(me, bytes, between_ms > 0);
        if (turn >= warm_up) {
            ns[turn - warm_up] = now_ns() - begin;
        }
    }
    sample_print(ns, count);
    free(ns);
}

static void take_all(side *me, uint32_t count)
{
    char bytes[MESSAGE_BYTES];
    for (uint32_t i = 0; i < count; i++) {
        pop(me, bytes, 0);
        give_space(me);
    }
    push(me, bytes);
    (void)pls_outbox_wake(me->outbox);
}

static void send_all(side *me, uint32_t count)
{
    char bytes[MESSAGE_BYTES] = {0};
    int64_t begin = now_ns();
    for (uint32_t i = 0; i < count; i++) {
        push(me, bytes);
        if (i % BATCH == BATCH - 1) {
            (void)pls_outbox_wake(me->outbox);
        }
    }
    (void)pls_outbox_wake(me->outbox);
    pop(me, bytes, 0);
    sample_print_rate(count, now_ns() - begin);
}

int main(int argc, char **argv)
{
    const char *what = argc > 2 ? argv[1] : "";
    uint32_t count = argc > 2 ? (uint32_t)strtoul(argv[2], NULL, 10) : 0;
    long between_ms = argc > 3 ? strtol(argv[3], NULL, 10) : 0;
    int batch = strcmp(what, "batch") == 0;
    uint32_t warm_up = between_ms > 0 ? 2 : WARM_UP;
    if (count == 0 || !(batch || strcmp(what, "ask") == 0 || strcmp(what, "wake") == 0)) {
        fprintf(stderr, "usage: ring ask|batch|wake COUNT [PAUSE_MS]\n");
        return 2;
    }
    int sockets[2];
    must(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, sockets) == 0 ? PLS_OK : PLS_ESYS, "socketpair");
    side me = {0};
    pid_t child = fork();
    if (child == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        side_open(&me, SLOT_ANSWERS, SLOT_ASKS, sockets[1]);
        batch ? take_all(&me, count) : answer_all(&me, count + warm_up, between_ms > 0);
        _exit(0);
    }
    side_open(&me, SLOT_ASKS, SLOT_ANSWERS, sockets[0]);
    batch ? send_all(&me, count) : ask_all(&me, count, warm_up, between_ms);
    waitpid(child, NULL, 0);
    return 0;
}
