/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PLS_GOSSIP_PROBE_H
#define PLS_GOSSIP_PROBE_H

#include "gossip/gossip.h"
#include "gossip/outbox.h"
#include "gossip/walk.h"

/* Threads: owner thread for every function of this header; none blocks. */

/* Probes at one time: the scheduled one and those that hints and accusations ask for. */
#define PLS_PROBES_MAX 16

/* A ping under way. */
typedef struct pls_probe {
    uint64_t sent_ns;     /* the last ping */
    uint64_t timeout_ns;  /* then others are asked; UINT64_MAX: they have been */
    uint64_t deadline_ns; /* then it has failed */
    uint64_t incarnation; /* of the target when it was started */
    uint64_t accuser;     /* who called it dead, 0 for nobody */
    pls_member target;
    uint32_t sequence;
    uint8_t nacks_expected;
    uint8_t nacks_received;
    bool scheduled;
} pls_probe;

/* Failed probes that are remembered, for answers that come after all. */
#define PLS_PROBES_FAILED_MAX 16

typedef struct pls_probe_failed {
    pls_member target; /* PLS_MEMBER_NONE: nothing here */
    uint32_t sequence;
} pls_probe_failed;

typedef struct pls_probes {
    pls_probe items[PLS_PROBES_MAX];
    uint32_t count;
    uint32_t sequence;
    uint64_t tick_ns;   /* when the next scheduled probe is due */
    uint64_t verify_ns; /* until then suspects are asked again */
    bool tick_missed;   /* it was due while the last one was still under way */
    pls_walk walk;      /* of the schedule */
    pls_probe_failed failed[PLS_PROBES_FAILED_MAX]; /* a ring */
    uint32_t failed_at;
    uint32_t awareness;
    uint32_t failed_in_a_row;
} pls_probes;

/* Draw the phase of the schedule. */
void pls_probes_start(pls_gossip *gossip);

/* When pls_probes_advance has something to do. */
uint64_t pls_probes_next_ns(const pls_gossip *gossip);
void pls_probes_advance(pls_gossip *gossip);

/* Probe `member` now, outside of the schedule. `accuser` is who called it dead at `incarnation`,
 * and the ping says so; 0 for nobody. */
void pls_probes_extra(pls_gossip *gossip, pls_member member, uint64_t incarnation,
                      uint64_t accuser);

/* One that I held suspect or dead lives: ask my other suspects too, before their time runs out. */
void pls_probes_verify(pls_gossip *gossip);

/* A probe of `target` that starts now, with the next sequence number; and its ping. */
pls_probe pls_probes_make(pls_gossip *gossip, pls_member target);
void pls_probes_send(pls_gossip *gossip, const pls_probe *probe);

/* Nobody waits for `member` any more, and nothing is relayed for it. */
void pls_probes_forget(pls_gossip *gossip, pls_member member);

/* The host of `member` refused a connection. */
void pls_probes_refused(pls_gossip *gossip, pls_member member);

/* Messages of these kinds have come from `from`. */
void pls_probes_ping(pls_gossip *gossip, pls_target from, const pls_message *message);
void pls_probes_ack(pls_gossip *gossip, const pls_message *message);
void pls_probes_nack(pls_gossip *gossip, const pls_message *message);

/* Move what waits by `by_ns`. */
void pls_probes_shift(pls_probes *probes, uint64_t by_ns);

/* The local health score goes up or down, within its bounds. */
void pls_probes_aware(pls_gossip *gossip, int32_t delta);

/* Assert that the probes are of live members and within their bounds. */
void pls_probes_check(const pls_gossip *gossip);

#endif
