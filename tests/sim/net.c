/* SPDX-License-Identifier: Apache-2.0 */
/* The simulated network: loss, delay, duplication, reordering and cuts, all drawn from one seeded
 * generator. A healthy network draws once a packet, so that a long idle run stays cheap. The world
 * asks it for the fate of each packet. */
#include "tests/sim/net.h"

#include "base/assert.h"

#include <string.h>

enum { PPM = 1000000, BASE_NS = 200000, JITTER_NS = 300000 };

void pls_sim_net_init(pls_sim_net *net, uint64_t seed)
{
    memset(net, 0, sizeof *net);
    pls_rng_init(&net->rng, seed);
    net->base_ns = BASE_NS;
    net->jitter_ns = JITTER_NS;
}

static uint64_t copy_delay(pls_sim_net *net)
{
    uint64_t delay = net->base_ns + net->delay_ns;
    if (net->jitter_ns > 0) {
        delay += pls_rng_below(&net->rng, (uint32_t)net->jitter_ns);
    }
    if (net->late_ppm > 0 && pls_rng_below(&net->rng, PPM) < net->late_ppm) {
        delay += pls_rng_next(&net->rng) % (net->late_ns_max + 1);
    }
    return delay;
}

pls_sim_fate pls_sim_net_fate(pls_sim_net *net, uint8_t from_side, uint8_t to_side)
{
    pls_assert(from_side < PLS_SIM_SIDES_MAX);
    pls_assert(to_side < PLS_SIM_SIDES_MAX);
    pls_sim_fate fate = {0};
    if (net->cut[from_side] >> to_side & 1) {
        return fate;
    }
    if (net->loss_ppm > 0 && pls_rng_below(&net->rng, PPM) < net->loss_ppm) {
        return fate;
    }
    fate.copy_count = 1;
    fate.delay_ns[0] = copy_delay(net);
    if (net->duplicate_ppm > 0 && pls_rng_below(&net->rng, PPM) < net->duplicate_ppm) {
        fate.copy_count = 2;
        fate.delay_ns[1] = copy_delay(net);
    }
    return fate;
}

void pls_sim_net_cut(pls_sim_net *net, uint8_t from_side, uint8_t to_side)
{
    pls_assert(from_side < PLS_SIM_SIDES_MAX);
    pls_assert(to_side < PLS_SIM_SIDES_MAX);
    net->cut[from_side] |= UINT64_C(1) << to_side;
}

void pls_sim_net_heal(pls_sim_net *net)
{
    memset(net->cut, 0, sizeof net->cut);
    net->loss_ppm = 0;
    net->duplicate_ppm = 0;
    net->late_ppm = 0;
    net->late_ns_max = 0;
    net->delay_ns = 0;
}
