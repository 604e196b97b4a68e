/* SPDX-License-Identifier: Apache-2.0 */
/* The defaults and the limits of what an instance can be told. Every tunable has its bounds here,
 * so that no other file asks whether one is zero or absurd. */
#include "gossip/config.h"

#include "base/limits.h"
#include "gossip/queue.h"
#include "gossip/suspicion.h"
#include "gossip/validate.h"
#include "gossip/wire.h"

#include <string.h>

#define MS UINT64_C(1000000)
#define SECOND (1000 * MS)
#define MINUTE (60 * SECOND)
#define HOUR (60 * MINUTE)

#define INTERVAL_NS_MAX HOUR
#define ALPHA_MAX (PLS_CONFIRMATIONS_MAX + 2)
#define BETA_MAX 100
#define AWARENESS_LIMIT 64
#define FANOUT_MAX 16
#define RETRANSMIT_MULT_MAX 8
#define MEMBERS_LIMIT (1u << 22)
#define NAMES_LIMIT (1u << 26)

_Static_assert(RETRANSMIT_MULT_MAX * 7 < PLS_TRANSMITS_MAX, "seven digits count every member");

void pls_gossip_config_defaults(pls_gossip_config *config)
{
    *config = (pls_gossip_config){
        .cluster = "",
        .probe_interval_ns = SECOND,
        .probe_timeout_ns = 500 * MS,
        .indirect_count = 3,
        .suspicion_alpha = 4,
        .suspicion_beta = 6,
        .awareness_max = 8,
        .refused_suspicion_ns = SECOND,
        .lha_probe = true,
        .lha_suspicion = true,
        .buddy = true,
        .idle_rule = true,
        .gossip_interval_ns = 200 * MS,
        .gossip_fanout = 3,
        .retransmit_mult = 4,
        .gossip_to_dead_ns = 30 * SECOND,
        .packet_bytes = PLS_PACKET_BYTES_MIN,
        .digest_interval_ns = SECOND,
        .announce_interval_ns = SECOND,
        .dead_keep_ns = 24 * HOUR,
        .left_keep_ns = HOUR,
        .seeds_interval_ns = MINUTE,
        .isolated_probes = 3,
        .tombstone_keep_ns = HOUR,
        .dead_names_keep_ns = MINUTE,
        .members_max = 1u << 14,
        .dead_max = 1u << 14,
        .names_max = 1u << 22,
        .watches_max = 1u << 16,
        .actions_max = 1u << 16,
    };
}

static bool within(uint64_t value, uint64_t low, uint64_t high)
{
    return value >= low && value <= high;
}

static bool times_are_valid(const pls_gossip_config *c)
{
    return within(c->probe_interval_ns, MS, INTERVAL_NS_MAX) &&
           within(c->probe_timeout_ns, MS, c->probe_interval_ns) &&
           within(c->refused_suspicion_ns, 0, INTERVAL_NS_MAX) &&
           within(c->gossip_interval_ns, MS, INTERVAL_NS_MAX) &&
           within(c->digest_interval_ns, 0, INTERVAL_NS_MAX) &&
           within(c->announce_interval_ns, 0, INTERVAL_NS_MAX) &&
           (c->digest_interval_ns == 0 || c->digest_interval_ns >= MS) &&
           (c->announce_interval_ns == 0 || c->announce_interval_ns >= MS) &&
           within(c->seeds_interval_ns, MS, 24 * HOUR) &&
           within(c->dead_keep_ns, MS, 365 * 24 * HOUR) &&
           within(c->left_keep_ns, MS, 365 * 24 * HOUR) &&
           within(c->tombstone_keep_ns, MS, 365 * 24 * HOUR) &&
           within(c->dead_names_keep_ns, 0, 365 * 24 * HOUR);
}

static bool counts_are_valid(const pls_gossip_config *c)
{
    return within(c->indirect_count, 0, PLS_INDIRECT_MAX) &&
           within(c->suspicion_alpha, 1, ALPHA_MAX) && within(c->suspicion_beta, 1, BETA_MAX) &&
           within(c->awareness_max, 1, AWARENESS_LIMIT) &&
           within(c->gossip_fanout, 1, FANOUT_MAX) &&
           within(c->retransmit_mult, 1, RETRANSMIT_MULT_MAX) &&
           within(c->packet_bytes, PLS_PACKET_BYTES_MIN, PLS_PACKET_BYTES_MAX) &&
           within(c->isolated_probes, 1, UINT32_MAX) && within(c->members_max, 1, MEMBERS_LIMIT) &&
           within(c->dead_max, 1, MEMBERS_LIMIT) && within(c->names_max, 1, NAMES_LIMIT) &&
           within(c->watches_max, 0, NAMES_LIMIT) && within(c->actions_max, 1, MEMBERS_LIMIT);
}

bool pls_gossip_config_is_valid(const pls_gossip_config *c)
{
    return c->cluster != NULL && strlen(c->cluster) <= PLS_NAME_BYTES_MAX &&
           c->meta_bytes <= PLS_META_BYTES_MAX && (c->meta_bytes == 0 || c->meta != NULL) &&
           times_are_valid(c) && counts_are_valid(c);
}
