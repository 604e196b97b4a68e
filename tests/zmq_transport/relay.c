/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/zmq_transport/relay.h"

#include <arpa/inet.h>
#include <check.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define LINKS_MAX 32
#define PIECE_BYTES 16384

typedef struct link_pair {
    int fds[2]; /* -1: free */
} link_pair;

static link_pair links[LINKS_MAX];

static struct sockaddr_in loopback(uint16_t port)
{
    return (struct sockaddr_in){
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
}

static void link_close(link_pair *link)
{
    static const struct linger at_once = {.l_onoff = 1, .l_linger = 0};
    for (unsigned side = 0; side < 2; side++) {
        setsockopt(link->fds[side], SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
        close(link->fds[side]);
        link->fds[side] = -1;
    }
}

static void link_accept(int listener, uint16_t port)
{
    int accepted = accept(listener, NULL, NULL);
    int onward = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in address = loopback(port);
    unsigned i = 0;
    while (i < LINKS_MAX && links[i].fds[0] >= 0) {
        i++;
    }
    if (port == 0 || i == LINKS_MAX ||
        connect(onward, (struct sockaddr *)&address, sizeof address) != 0) {
        close(accepted);
        close(onward);
        return;
    }
    links[i] = (link_pair){{accepted, onward}};
}

static int pass(int from, int to)
{
    static char bytes[PIECE_BYTES];
    ssize_t len = recv(from, bytes, sizeof bytes, 0);
    for (ssize_t done = 0; done < len;) {
        ssize_t sent = send(to, bytes + done, (size_t)(len - done), MSG_NOSIGNAL);
        if (sent <= 0) {
            return -1;
        }
        done += sent;
    }
    return len > 0 ? 0 : -1;
}

static void links_serve(const struct pollfd *fds)
{
    for (unsigned i = 0; i < LINKS_MAX; i++) {
        for (unsigned side = 0; side < 2 && links[i].fds[0] >= 0; side++) {
            const struct pollfd *fd = &fds[2 + 2 * i + side];
            if (fd->fd == links[i].fds[side] && fd->revents != 0 &&
                pass(links[i].fds[side], links[i].fds[1 - side]) != 0) {
                link_close(&links[i]);
            }
        }
    }
}

/* Zero cuts everything, another number is the port to pass on to. */
static void obey(int control, uint16_t *port)
{
    uint16_t order = 0;
    if (read(control, &order, sizeof order) != sizeof order) {
        _exit(0);
    }
    *port = order != 0 ? order : *port;
    for (unsigned i = 0; order == 0 && i < LINKS_MAX; i++) {
        if (links[i].fds[0] >= 0) {
            link_close(&links[i]);
        }
    }
}

static void serve(int listener, int control)
{
    uint16_t port = 0;
    for (unsigned i = 0; i < LINKS_MAX; i++) {
        links[i] = (link_pair){{-1, -1}};
    }
    for (;;) {
        struct pollfd fds[2 + 2 * LINKS_MAX] = {{listener, POLLIN, 0}, {control, POLLIN, 0}};
        for (unsigned i = 0; i < LINKS_MAX; i++) {
            fds[2 + 2 * i] = (struct pollfd){links[i].fds[0], POLLIN, 0};
            fds[3 + 2 * i] = (struct pollfd){links[i].fds[1], POLLIN, 0};
        }
        poll(fds, 2 + 2 * LINKS_MAX, -1);
        if (fds[1].revents != 0) {
            obey(control, &port);
            continue;
        }
        links_serve(fds);
        if (fds[0].revents != 0) {
            link_accept(listener, port);
        }
    }
}

void relay_start(relay *r)
{
    int control[2];
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in address = loopback(0);
    socklen_t len = sizeof address;
    ck_assert_int_eq(bind(listener, (struct sockaddr *)&address, len), 0);
    ck_assert_int_eq(listen(listener, 128), 0);
    ck_assert_int_eq(getsockname(listener, (struct sockaddr *)&address, &len), 0);
    snprintf(r->address, sizeof r->address, "tcp://127.0.0.1:%u", ntohs(address.sin_port));
    ck_assert_int_eq(pipe2(control, O_CLOEXEC), 0);
    r->pid = fork();
    ck_assert_int_ge(r->pid, 0);
    if (r->pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        close(control[1]);
        serve(listener, control[0]);
    }
    close(control[0]);
    close(listener);
    r->control = control[1];
}

static void order(relay *r, uint16_t what)
{
    ck_assert_int_eq(write(r->control, &what, sizeof what), sizeof what);
}

void relay_target(relay *r, const char *endpoint)
{
    order(r, (uint16_t)strtoul(strrchr(endpoint, ':') + 1, NULL, 10));
}

void relay_cut(relay *r)
{
    order(r, 0);
}

void relay_stop(relay *r)
{
    close(r->control);
    waitpid(r->pid, NULL, 0);
}
