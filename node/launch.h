/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PLS_NODE_LAUNCH_H
#define PLS_NODE_LAUNCH_H

#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Starting the node process. An embedded node is tied to the process that launched it: it holds
 * that process's pidfd and one end of a socket pair, and ends, with every worker and the template,
 * as soon as either says that the launcher is gone. */

/* Bytes of the text that a failed launch or attach gives back, for people. */
#define PLS_TROUBLE_BYTES_MAX 1024

typedef struct pls_node_options {
    const char *program; /* path of pulsing-node */
    const char *name;    /* of the system, for messages and lists; NULL: "pulsing" */
    /* Where other processes attach: NULL or "" nowhere, a bare name (an abstract socket of this
     * uid in this network namespace), or a path (with a '/'). A left-over path is replaced. */
    const char *listen;
    uint32_t workers_max; /* numbered workers; 0: no template is started */
    /* The interpreter and its arguments, NULL-terminated, run as it stands:
     * {sys.executable, flags..., path of pulsing/_template.py}. Needed when workers_max > 0. */
    const char *const *template_argv;
    const char *const *python_path; /* sys.path of the workers, NULL-terminated; NULL: unchanged */
    const char *cwd;                /* of template and workers; NULL: this process's */
    /* "NAME=value" sets, "NAME" alone removes, in the template's and the workers' environment;
     * NULL-terminated. OMP_NUM_THREADS and its like are set to cpus/workers_max where neither this
     * nor the environment has them. */
    const char *const *env;
    const void *worker_info; /* opaque, handed to every worker in info["setup"]; <= 16 MiB */
    size_t worker_info_bytes;
    uint64_t memory_budget_bytes; /* told to every attached process; 0: no limit */
    uint32_t start_timeout_ms;    /* from a worker's fork to its ATTACH; 0: 60 s */
    uint32_t drain_timeout_ms;    /* from the shutdown notice to SIGKILL; 0: 5 s */
    uint64_t worker_memory_bytes; /* resident, beyond which a worker is killed; 0: no limit */
    bool output_plain;            /* forward workers' lines without a prefix */
    /* Other nodes, "host:port" each; a host with colons stands in brackets. NULL: as written. */
    const char *addr;             /* where to listen, port 0: any; NULL: a node of one host */
    const char *advertise;        /* what peers are told; NULL: found out */
    const char *const *seeds;     /* nodes to join, NULL-terminated; NULL: none */
    const char *cluster_key;      /* 64 hexadecimal digits; NULL: none, or in the file */
    const char *cluster_key_file; /* of mode 0600; NULL: none */
} pls_node_options;

typedef struct pls_node_launched {
    int control_fd; /* this process's end, for pls_attach_open() */
    uint32_t pid;
    int pidfd; /* readable when the node has ended */
} pls_node_launched;

/* Starts a node tied to this process and returns at once; the template starts in parallel. The
 * node is no child of this process, so that neither SIGCHLD nor a wait() for any child sees it.
 * Errors:  PLS_EINVAL  an option is wrong; PLS_ENOENT, PLS_EPERM  the program cannot be run;
 *          PLS_EUNSUPPORTED  the kernel is older than 5.10; PLS_EFDLIMIT, PLS_ENOMEM, PLS_ESYS.
 *          On each, `trouble` (PLS_TROUBLE_BYTES_MAX bytes) says what and what to do.
 * Owns:    borrows the options; gives both descriptors (close-on-exec).
 * Threads: any thread; may block a few ms. */
PLS_MUST_USE pls_err pls_node_launch(const pls_node_options *options,
                                     pls_node_launched *launched_out, char *trouble);

/* Becomes a node in the foreground, tied to nobody (`pulsing node`): replaces this process by the
 * program, so it returns only on failure. `listen` is required. SIGTERM drains and leaves.
 * Errors:  as pls_node_launch().
 * Threads: any thread; the only one that matters. */
PLS_MUST_USE pls_err pls_node_become(const pls_node_options *options, char *trouble);

/* Waits until the node has ended, reaps it if it became a child of this process (as it does in a
 * container where this process is pid 1), and closes the pidfd.
 * Units:   `timeout_ms`, >= 0.
 * Errors:  PLS_ETIMEDOUT  it runs on; nothing was closed.
 * Threads: any thread; may block `timeout_ms`. */
PLS_MUST_USE pls_err pls_node_wait(pls_node_launched *launched, int timeout_ms);

#endif
