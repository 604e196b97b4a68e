/* SPDX-License-Identifier: Apache-2.0 */
/* The program pulsing-node. It is started by pls_node_launch() or pls_node_become() with its
 * options in a memfd, and not by hand. What keeps it from starting is told to its launcher in
 * answer to the greeting, so that the user sees it as an error of his own call. */
#include "node/control.h"
#include "node/options.h"
#include "node/process/node.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#define GREETING_TIMEOUT_MS 5000

extern char **environ;

/* Standard input is nobody's here; descriptors 0 to 2 exist whatever the launcher had. */
static void stdio_prepare(void)
{
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    if (null < 0) {
        return;
    }
    (void)dup2(null, STDIN_FILENO);
    for (int fd = STDOUT_FILENO; fd <= STDERR_FILENO; fd++) {
        if (fcntl(fd, F_GETFD) < 0) {
            (void)dup2(null, fd);
        }
    }
    close(null);
}

static void descriptors_close_on_exec(bool embedded)
{
    int last = embedded ? PLS_NODE_LAUNCHER_FD : PLS_NODE_OPTIONS_FD;
    for (int fd = PLS_NODE_OPTIONS_FD; fd <= last; fd++) {
        (void)fcntl(fd, F_SETFD, FD_CLOEXEC);
    }
    (void)syscall(SYS_close_range, (unsigned)last + 1, ~0u, 0);
}

/* Tells the launcher, in answer to its greeting, why there will be no node. */
static void launcher_tell(pls_err err, const char *trouble)
{
    uint8_t *bytes = malloc(PLS_CONTROL_PACKET_BYTES_MAX);
    struct pollfd wait = {.fd = PLS_NODE_CONTROL_FD, .events = POLLIN};
    pls_control_packet packet;
    if (bytes == NULL || poll(&wait, 1, GREETING_TIMEOUT_MS) <= 0 ||
        pls_control_receive(PLS_NODE_CONTROL_FD, PLS_CONTROL_AT_NODE, bytes, &packet) != PLS_OK) {
        free(bytes);
        return;
    }
    pls_control_packet answer = {.type = PLS_CONTROL_WELCOME,
                                 .request = packet.request,
                                 .status = err,
                                 .text = trouble,
                                 .text_bytes = strlen(trouble)};
    pls_control_packet_drop(&packet);
    size_t len = pls_control_encode(&answer, bytes);
    (void)!pls_control_send(PLS_NODE_CONTROL_FD, bytes, len, NULL, 0);
    free(bytes);
}

/* A node with an address needs the program that has a network, which lies beside this one. Returns
 * when there is none; then the node says so. */
static void network_program_become(void)
{
    static const char suffix[] = "-net";
    char path[PATH_MAX];
    ssize_t len = readlink("/proc/self/exe", path, sizeof path - sizeof suffix);
    if (len <= 0 || (size_t)len >= sizeof path - sizeof suffix) {
        return;
    }
    memcpy(path + len, suffix, sizeof suffix);
    char *const argv[] = {path, NULL};
    execve(path, argv, environ);
}

int main(void)
{
    char trouble[PLS_TROUBLE_BYTES_MAX] = "";
    pls_settings settings;
    pls_node *node = NULL;
    if (fcntl(PLS_NODE_OPTIONS_FD, F_GETFD) < 0 ||
        pls_options_load(PLS_NODE_OPTIONS_FD, &settings) != PLS_OK) {
        fprintf(stderr, "pulsing-node is started by Pulsing itself; to run a node by hand, use "
                        "`pulsing node`\n");
        return 2;
    }
    if (settings.options.addr != NULL && !pls_net_is_linked()) {
        network_program_become();
    }
    bool embedded = settings.embedded;
    stdio_prepare();
    descriptors_close_on_exec(embedded);
    close(PLS_NODE_OPTIONS_FD);
    (void)prctl(PR_SET_CHILD_SUBREAPER, 1);
    pls_err err = pls_node_create(&settings, &node, trouble);
    if (err != PLS_OK) {
        if (trouble[0] == 0) {
            snprintf(trouble, sizeof trouble, "the node cannot start: %s", pls_err_text(err));
        }
        if (embedded) {
            launcher_tell(err, trouble);
        } else {
            fprintf(stderr, "pulsing: %s\n", trouble);
        }
        return 1;
    }
    pls_node_serve(node);
    return 0;
}
