/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PLS_NODE_PROCESS_CLIENT_H
#define PLS_NODE_PROCESS_CLIENT_H

#include "base/limits.h"
#include "node/control.h"
#include "node/directory.h"
#include "node/packet_queue.h"
#include "node/process/loop.h"
#include "node/process/segments.h"
#include "shm/peer.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

/* One process at the other end of a control socket, from its connection to the last acknowledgement
 * of its death.
 * Threads: the same for every function of this header: owner thread; never blocks. */

typedef struct pls_node pls_node;
typedef struct pls_worker pls_worker;
typedef struct pls_client pls_client;

typedef enum pls_client_stage {
    PLS_CLIENT_STRANGER = 0, /* no greeting yet; a worker has its slot already */
    PLS_CLIENT_GREETED = 1,
    PLS_CLIENT_JOINED = 2, /* others may know it */
    PLS_CLIENT_DYING = 3,
    PLS_CLIENT_DEAD = 4, /* waits for acknowledgements */
} pls_client_stage;

typedef struct pls_client_key {
    uint32_t slot;
    uint32_t epoch;
} pls_client_key;

typedef struct pls_request_key {
    pls_client_key client;
    uint32_t request;
} pls_request_key;

struct pls_client {
    pls_node *node;
    pls_watch control;
    pls_watch process; /* its pidfd */
    pls_packet_queue outgoing;
    pls_client_stage stage;
    uint32_t slot; /* 0: none yet */
    uint32_t epoch;
    pls_role role;
    pid_t pid;          /* as seen here; 0: not visible */
    uint32_t oom_group; /* whose count of kills for want of memory concerns it */
    bool was_joined;
    bool cut_off;  /* its socket was shut down by the node; the hang-up follows */
    bool detached; /* said that it touches nothing shared any more */
    int inbox_fd;
    int bell_fd;
    int obs_fd;
    pls_peer *peer; /* its inbox as the node sees it: to set dead bits and ring */
    pls_segments segments;
    uint64_t acks_missing[PLS_SLOTS_MAX / 64]; /* slots that have not yet acknowledged this death */
    pls_worker *worker;                        /* NULL: it is none */
    pls_client *stranger_next;
    pls_client *stranger_previous;
    uint32_t name_waits; /* finds of this client that wait */
    bool follows_members;
};

/* Packets that may wait for a client's socket; one that lets more pile up is cut off. */
#define PLS_CLIENT_OUT_COUNT_MAX 16384
#define PLS_CLIENT_OUT_BYTES_MAX (32u << 20)
/* Connected processes that have not yet greeted; the oldest makes room. */
#define PLS_STRANGERS_MAX 64

/* Takes a connected control socket.
 * Errors:  PLS_ENOMEM, PLS_ESYS; the descriptor is then still the caller's.
 * Owns:    takes `fd`; gives the client to the node. */
PLS_MUST_USE pls_err pls_client_create(pls_node *node, int fd, pls_client **client_out);

/* Gives a client the lowest free slot, with its next epoch, and clears its directory line.
 * Errors:  PLS_EFULL  all 255 are in use. */
PLS_MUST_USE pls_err pls_client_slot_take(pls_client *client, pls_role role);

/* It has said who it is, and is no stranger any more. */
void pls_client_greeted(pls_client *client);

/* It will not say anything any more. For deaths.c. */
void pls_client_unlisted(pls_client *client);

/* The client in (slot, epoch), or NULL. */
pls_client *pls_client_find(pls_node *node, pls_client_key key);

/* The key under which pls_client_find() finds it. */
pls_client_key pls_client_key_of(const pls_client *client);

/* Sends or queues; a client that reads nothing for too long is cut off. Errors end in its death, so
 * none is returned.
 * Owns:    borrows the packet, descriptors included. */
void pls_client_send(pls_client *client, const pls_control_packet *packet);

/* Answers a request with a status and nothing else. */
void pls_client_reply(pls_client *client, uint32_t request, pls_err status);

/* Answers with a status and a text for people. */
void pls_client_reply_text(pls_client *client, uint32_t request, pls_err status, const char *text,
                           size_t text_bytes);

/* Answers with a list, in memory of that name where it is too long for a packet.
 * Units:   `reply` has the request, and what stands beside the list; the rest is filled in.
 * Owns:    borrows everything. */
void pls_client_reply_list(pls_client *client, pls_control_packet *reply, const char *name,
                           const uint8_t *bytes, size_t len);

/* Answers a request of a client that may be gone by now: then it does nothing. */
void pls_client_reply_to(pls_node *node, pls_request_key key, pls_err status);

/* Sends to everybody who has joined and lives. */
void pls_clients_tell(pls_node *node, const pls_control_packet *packet);

/* Receives and serves what is in the socket now. */
void pls_client_drain(pls_client *client);

/* Watches the process's end. Owns: takes `pidfd` (on failure closes it).
 * Errors:  PLS_ENOMEM, PLS_ESYS. */
PLS_MUST_USE pls_err pls_client_process_watch(pls_client *client, int pidfd, pid_t pid);

/* Closes everything, frees the slot and forgets the client. */
void pls_client_destroy(pls_client *client);

/* Serves one packet; descriptors that the handler wants are taken out of it. */
void pls_client_serve(pls_client *client, pls_control_packet *packet);

/* Answers the questions for segments that had to wait until their owners were read. */
void pls_segment_questions_serve(pls_node *node);

/* The end of a client, in its two steps: it will not run again (fail calls, free nothing), and the
 * kernel has confirmed it (drain, free, acknowledge). */
void pls_client_dying(pls_client *client);
void pls_client_dead(pls_client *client);

/* Another client has acknowledged this one's death. */
void pls_client_acknowledge(pls_client *dead, uint32_t by_slot);

#endif
