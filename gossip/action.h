/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PLS_GOSSIP_ACTION_H
#define PLS_GOSSIP_ACTION_H

#include "gossip/identities.h"

#include <stdbool.h>
#include <stdint.h>

/* What the caller is asked to do, or told. */
typedef enum pls_action_kind {
    PLS_ACTION_SEND = 1, /* send bytes to address; losing them is allowed, blocking is not */
    PLS_ACTION_CONNECT,  /* make a connection to address, in the background */
    PLS_ACTION_DROP,     /* close the connection to address: it may be stuck in its back-off */
    PLS_ACTION_MEMBER,   /* `event` happened to `member` */
    PLS_ACTION_NAME      /* `event` happened to a name that is watched, or to a name of mine */
} pls_action_kind;

typedef enum pls_gossip_event {
    PLS_EVENT_JOINED = 1, /* a member became known, alive */
    PLS_EVENT_SUSPECT,    /* an alive member is suspected */
    PLS_EVENT_ALIVE,      /* a suspect refuted, or a dead or left member came back */
    PLS_EVENT_DEAD,       /* declared dead, or replaced by a newer generation of its name */
    PLS_EVENT_LEFT,       /* left in peace; for myself: my leave has been spread, I may stop */
    PLS_EVENT_UPDATED,    /* an alive member changed its meta */
    PLS_EVENT_ISOLATED,   /* `member` is myself: I have lost the many */
    PLS_EVENT_REGAINED,   /* `member` is myself: the many are back */
    PLS_EVENT_CONFLICT,   /* `member` runs under the same name as `other`, which wins */
    PLS_EVENT_NAME_ADDED, /* `member` owns a watched name now */
    PLS_EVENT_NAME_CHANGED,
    PLS_EVENT_NAME_REMOVED, /* by its owner, or with its owner's death */
    PLS_EVENT_NAME_LOST     /* my unique name is `other`'s; my registration has been withdrawn */
} pls_gossip_event;

/* One action. Pointers are lent until the next call on the same instance other than
 * pls_gossip_next_action. */
typedef struct pls_action {
    pls_action_kind kind;
    pls_gossip_event event; /* MEMBER, NAME */
    pls_member member;      /* whom it is about, or for SEND, CONNECT, DROP to whom;
                               PLS_MEMBER_NONE when only the address is known */
    pls_member other;       /* CONFLICT, NAME_LOST: the winner; else PLS_MEMBER_NONE */
    pls_identity identity;  /* of `member`, zero without one */
    const char *address;    /* SEND, CONNECT, DROP */
    const void *bytes;      /* SEND: the packet; NAME: the name */
    uint32_t address_bytes;
    uint32_t len;         /* of `bytes` */
    uint64_t incarnation; /* MEMBER */
    uint64_t value;       /* NAME: what the owner registered */
    bool unique;          /* NAME */
} pls_action;

#endif
