/* SPDX-License-Identifier: Apache-2.0 */
/* One run of the campaign: a small cluster, its plan of faults, and the invariants. Faults that
 * last are switched on and off by the world's callbacks; what the network does is computed anew
 * from all that are on, so that they may overlap. What a fault draws follows from the plan's seed
 * and the fault itself: taking another fault out of the plan does not change it. */
#include "tests/sim/campaign.h"

#include "base/assert.h"
#include "tests/sim/ledger.h"

#include <string.h>

/* Nodes start within the first seconds; a node that leaves is stopped a while after. */
enum { START_TICKS = 50, LEAVE_TICKS_MAX = 40, SEED_NODES_MAX = 3 };

enum { LATE_PPM = 100000, GARBAGE_BYTES_MAX = 300, META_BYTES_MAX = 40 };

/* All bytes are counted against each other once in so many ticks. */
enum { CONSERVED_TICKS = 500 };

_Static_assert(PLS_SIM_TAP_BYTES <= GARBAGE_BYTES_MAX, "a tapped packet fits");

#define STAY_NS (30 * PLS_SIM_S)

/* When all agree on the members, their names may take so long. */
#define NAMES_NS (10 * PLS_SIM_S)

typedef struct campaign {
    const pls_sim_plan *plan;
    pls_sim_outcome *outcome;
    pls_sim_world *world;
    pls_sim_checker *checker;
    pls_sim_ledger ledger;
    bool on[PLS_SIM_PLAN_FAULTS_MAX];
    uint64_t left_generation[PLS_SIM_PLAN_NODES_MAX];
} campaign;

/* A callback's value: what to do in the upper half, with what in the lower. */
enum { CALL_BEGIN = 0, CALL_END, CALL_START, CALL_STOP };

static uint32_t call_value(uint32_t what, uint32_t with)
{
    return what << 16 | with;
}

static void net_refresh(campaign *c)
{
    pls_sim_net *net = &c->world->net;
    pls_sim_net_heal(net);
    for (uint32_t i = 0; i < c->plan->fault_count; i++) {
        const pls_sim_fault *fault = &c->plan->faults[i];
        if (!c->on[i]) {
            continue;
        }
        for (uint32_t a = 0; a < c->plan->node_count; a++) {
            if (fault->from >> a & 1) {
                net->cut[a] |= fault->to;
            }
            if (fault->kind == PLS_SIM_CUT && (fault->to >> a & 1)) {
                net->cut[a] |= fault->from;
            }
        }
        if (fault->kind == PLS_SIM_LOSS && fault->value > net->loss_ppm) {
            net->loss_ppm = fault->value;
        } else if (fault->kind == PLS_SIM_DUPLICATE && fault->value > net->duplicate_ppm) {
            net->duplicate_ppm = fault->value;
        } else if (fault->kind == PLS_SIM_DELAY) {
            net->delay_ns += fault->value * PLS_SIM_MS;
        } else if (fault->kind == PLS_SIM_LATE) {
            net->late_ppm = LATE_PPM;
            net->late_ns_max = fault->value * PLS_SIM_MS;
        }
    }
}

static void node_stop(campaign *c, uint32_t node, bool host_lives)
{
    pls_sim_world_crash(c->world, node, host_lives);
    pls_sim_ledger_stopped(&c->ledger, node);
}

/* A message of a kind that nobody knows: msgpack bin of two bytes, the kind and one field. */
static const uint8_t unknown_message[] = {0xc4, 2, 0xf0, 0};

/* Nonsense of three sorts: pure noise, the beginning of a real packet, and a real packet with a
 * message behind it that is of no kind known today. */
static void garbage_send(campaign *c, const pls_sim_fault *fault, pls_rng *rng)
{
    uint8_t bytes[GARBAGE_BYTES_MAX + sizeof unknown_message];
    for (uint32_t i = 0; i < fault->value; i++) {
        uint32_t sort = pls_rng_below(rng, 3);
        uint32_t len = pls_rng_below(rng, GARBAGE_BYTES_MAX + 1);
        if (sort == 0) {
            for (uint32_t k = 0; k < len; k++) {
                bytes[k] = (uint8_t)pls_rng_next(rng);
            }
        } else {
            len = sort == 1 ? len % (c->world->tap_len + 1) : c->world->tap_len;
            memcpy(bytes, c->world->tap, len);
        }
        if (sort == 2) {
            memcpy(bytes + len, unknown_message, sizeof unknown_message);
            len += sizeof unknown_message;
        }
        pls_sim_world_forge(c->world, fault->node, bytes, len);
    }
}

static void names_change(campaign *c, const pls_sim_fault *fault, pls_rng *rng)
{
    if (fault->kind == PLS_SIM_UNIQUE) {
        uint32_t name = PLS_SIM_PLAIN_NAMES + fault->value;
        if (pls_rng_chance(rng, 3, 4)) {
            (void)pls_sim_ledger_put(&c->ledger, fault->node, name);
        } else {
            pls_sim_ledger_remove(&c->ledger, fault->node, name);
        }
        return;
    }
    for (uint32_t i = 0; i < fault->value; i++) {
        uint32_t name = pls_rng_below(rng, PLS_SIM_PLAIN_NAMES);
        if (pls_rng_chance(rng, 2, 3)) {
            (void)pls_sim_ledger_put(&c->ledger, fault->node, name);
        } else {
            pls_sim_ledger_remove(&c->ledger, fault->node, name);
        }
    }
}

static void meta_change(campaign *c, const pls_sim_fault *fault, pls_rng *rng)
{
    uint8_t meta[META_BYTES_MAX];
    uint32_t len = pls_rng_below(rng, META_BYTES_MAX + 1);
    for (uint32_t i = 0; i < len; i++) {
        meta[i] = (uint8_t)pls_rng_next(rng);
    }
    pls_err err = pls_gossip_set_meta(c->world->nodes[fault->node].gossip, meta, len,
                                      pls_sim_world_clock(c->world, fault->node));
    (void)err;
    pls_sim_world_settle(c->world, fault->node);
}

static void node_leave(campaign *c, const pls_sim_fault *fault, pls_rng *rng)
{
    pls_sim_world *world = c->world;
    c->left_generation[fault->node] = world->nodes[fault->node].generation;
    pls_sim_world_leave(world, fault->node);
    uint64_t after_ns = (1 + pls_rng_below(rng, LEAVE_TICKS_MAX)) * PLS_SIM_TICK_NS;
    pls_sim_world_call(world, world->now_ns + after_ns, call_value(CALL_STOP, fault->node));
}

/* Faults of one node that are over at once; false when there was nothing to do it to. */
static bool node_fault(campaign *c, const pls_sim_fault *fault)
{
    pls_sim_world *world = c->world;
    pls_rng rng;
    pls_rng_init(&rng, c->plan->seed ^ (uint64_t)fault->at_tick << 16 ^ fault->node);
    bool runs = world->nodes[fault->node].gossip != NULL;
    if (fault->kind == PLS_SIM_START ? runs : !runs && fault->kind != PLS_SIM_MOVE) {
        return false;
    }
    switch (fault->kind) {
    case PLS_SIM_START:
        pls_sim_world_start(world, fault->node);
        break;
    case PLS_SIM_MOVE:
        node_stop(c, fault->node, false);
        pls_sim_world_move(world, fault->node);
        pls_sim_world_start(world, fault->node);
        break;
    case PLS_SIM_CRASH:
    case PLS_SIM_RESTART:
        node_stop(c, fault->node, true);
        if (fault->kind == PLS_SIM_RESTART) {
            pls_sim_world_start(world, fault->node);
        }
        break;
    case PLS_SIM_LEAVE:
        node_leave(c, fault, &rng);
        break;
    case PLS_SIM_CLOCK_JUMP:
        pls_sim_world_clock_jump(world, fault->node, fault->value * PLS_SIM_MS);
        break;
    case PLS_SIM_GARBAGE:
        garbage_send(c, fault, &rng);
        break;
    case PLS_SIM_HINT:
        pls_sim_world_disconnected(world, fault->node,
                                   world->nodes[fault->value % c->plan->node_count].self);
        break;
    case PLS_SIM_RENEW:
        meta_change(c, fault, &rng);
        break;
    default:
        names_change(c, fault, &rng);
        break;
    }
    return true;
}

static void lasting_fault(campaign *c, uint32_t index, bool on)
{
    const pls_sim_fault *fault = &c->plan->faults[index];
    if (c->on[index] == on) {
        return;
    }
    c->on[index] = on;
    switch (fault->kind) {
    case PLS_SIM_PAUSE:
        if (on) {
            pls_sim_world_pause(c->world, fault->node);
        } else {
            pls_sim_world_resume(c->world, fault->node);
        }
        break;
    case PLS_SIM_SLOW:
        pls_sim_world_slow(c->world, fault->node, on ? fault->value * PLS_SIM_MS : 0);
        break;
    case PLS_SIM_CLOCK_STOP:
        if (!on) {
            pls_sim_world_clock_go(c->world, fault->node);
        } else if (c->world->nodes[fault->node].gossip != NULL) {
            pls_sim_world_clock_stop(c->world, fault->node);
        }
        break;
    default:
        net_refresh(c);
        break;
    }
}

static void call(pls_sim_world *world, uint32_t value, void *context)
{
    campaign *c = context;
    uint32_t with = value & 0xffff;
    switch (value >> 16) {
    case CALL_BEGIN:
        if (pls_sim_fault_lasts(c->plan->faults[with].kind)) {
            lasting_fault(c, with, true);
            c->outcome->fault_counts[c->plan->faults[with].kind]++;
        } else if (node_fault(c, &c->plan->faults[with])) {
            c->outcome->fault_counts[c->plan->faults[with].kind]++;
        }
        break;
    case CALL_END:
        lasting_fault(c, with, false);
        break;
    case CALL_START:
        if (world->nodes[with].gossip == NULL) {
            pls_sim_world_start(world, with);
        }
        break;
    default:
        if (world->nodes[with].generation == c->left_generation[with]) {
            node_stop(c, with, true);
        }
        break;
    }
}

static void watch(pls_sim_world *world, uint32_t node, const pls_action *action, void *context)
{
    campaign *c = context;
    pls_sim_ledger_action(&c->ledger, node, action);
}

static void plan_schedule(campaign *c)
{
    pls_rng rng;
    pls_rng_init(&rng, c->plan->seed ^ UINT64_C(0x7374617274));
    for (uint32_t i = 0; i < c->plan->node_count; i++) {
        uint64_t at_ns = i == 0 ? 0 : pls_rng_below(&rng, START_TICKS) * PLS_SIM_TICK_NS;
        pls_sim_world_call(c->world, at_ns, call_value(CALL_START, i));
    }
    for (uint32_t i = 0; i < c->plan->fault_count; i++) {
        const pls_sim_fault *fault = &c->plan->faults[i];
        if (fault->at_tick >= c->plan->tick_count) {
            continue;
        }
        uint64_t at_ns = fault->at_tick * PLS_SIM_TICK_NS;
        pls_sim_world_call(c->world, at_ns, call_value(CALL_BEGIN, i));
        if (pls_sim_fault_lasts(fault->kind)) {
            pls_sim_world_call(c->world, at_ns + fault->tick_count * PLS_SIM_TICK_NS,
                               call_value(CALL_END, i));
        }
    }
}

static pls_sim_world *plan_world(const pls_sim_plan *plan)
{
    pls_sim_setup setup = pls_sim_setup_of(plan->seed, plan->node_count);
    setup.hints = plan->seed % 2 == 0;
    setup.seed_count = plan->node_count < SEED_NODES_MAX ? plan->node_count : SEED_NODES_MAX;
    if (plan->seed % 4 < 2) {
        setup.gossip.tombstone_keep_ns = 20 * PLS_SIM_S;
        setup.gossip.left_keep_ns = 90 * PLS_SIM_S;
    }
    pls_sim_world *world = pls_sim_world_create(&setup);
    for (uint32_t i = 0; i < plan->node_count; i++) {
        world->nodes[i].side = (uint8_t)i;
    }
    return world;
}

static bool holds(const campaign *c)
{
    return pls_sim_checker_violation(c->checker)->invariant == PLS_SIM_HOLDS;
}

static void conserved_check(campaign *c)
{
    if (!pls_sim_world_conserved(c->world)) {
        pls_sim_checker_report(c->checker, PLS_SIM_CONSERVED, PLS_SIM_NOBODY, PLS_MEMBER_NONE,
                               "the books of the world and of the nodes differ");
    }
}

/* Ends what is still on, as in a run that was cut short, and lets the seeds run. */
static void faults_end(campaign *c)
{
    for (uint32_t i = 0; i < c->plan->fault_count; i++) {
        if (pls_sim_fault_lasts(c->plan->faults[i].kind)) {
            lasting_fault(c, i, false);
        }
    }
    net_refresh(c);
    pls_sim_world_run_until(c->world, c->world->now_ns + LEAVE_TICKS_MAX * PLS_SIM_TICK_NS);
    for (uint32_t i = 0; i < c->world->setup.seed_count; i++) {
        if (c->world->nodes[i].gossip == NULL) {
            pls_sim_world_start(c->world, i);
        }
    }
}

/* How long the cluster may take: the longest suspicion, then as many probe periods at the worst
 * score as it takes the living to come upon each of the dead twice, one round of the seeds, and
 * ten seconds of gossip and exchange. */
static uint64_t settle_max(const campaign *c)
{
    const pls_gossip_config *config = &c->world->setup.gossip;
    uint64_t scale_percent = 151; /* log10 of 32 nodes, times 100 */
    uint64_t suspicion_ns = config->suspicion_alpha * config->suspicion_beta *
                            config->probe_interval_ns * scale_percent / 100;
    uint64_t rounds = (c->world->node_count + c->world->running_count - 1) /
                      (c->world->running_count == 0 ? 1 : c->world->running_count);
    return suspicion_ns + 2 * rounds * config->awareness_max * config->probe_interval_ns +
           config->seeds_interval_ns + 10 * PLS_SIM_S;
}

static bool agreed(const campaign *c, char *text_out)
{
    return pls_sim_world_converged(c->world, text_out) &&
           pls_sim_ledger_agrees(&c->ledger, text_out);
}

/* Lets time pass until `holds_now`, for `limit_ns` at most; false when it did not come to that. */
static bool wait_for(campaign *c, bool (*holds_now)(const campaign *c, char *text_out),
                     uint64_t limit_ns, char *text_out)
{
    uint64_t from_ns = c->world->now_ns;
    while (holds(c) && !holds_now(c, text_out)) {
        if (c->world->now_ns - from_ns > limit_ns) {
            return false;
        }
        pls_sim_world_run_until(c->world, c->world->now_ns + PLS_SIM_TICK_NS);
    }
    return true;
}

static bool acquainted(const campaign *c, char *text_out)
{
    return pls_sim_world_members_agree(c->world, text_out);
}

static void settle(campaign *c)
{
    char text[160] = "";
    uint64_t from_ns = c->world->now_ns;
    c->outcome->settle_max_ns = settle_max(c);
    if (!wait_for(c, acquainted, c->outcome->settle_max_ns, text)) {
        pls_sim_checker_report(c->checker, PLS_SIM_CONVERGENCE, PLS_SIM_NOBODY, PLS_MEMBER_NONE,
                               text);
        return;
    }
    c->outcome->settle_ns = c->world->now_ns - from_ns;
    if (!wait_for(c, agreed, NAMES_NS, text)) {
        pls_sim_checker_report(c->checker, PLS_SIM_NAMES_EQUAL, PLS_SIM_NOBODY, PLS_MEMBER_NONE,
                               text);
        return;
    }
    pls_sim_world_run_until(c->world, c->world->now_ns + STAY_NS);
    if (holds(c) && !agreed(c, text)) {
        pls_sim_checker_report(c->checker, PLS_SIM_CONVERGENCE, PLS_SIM_NOBODY, PLS_MEMBER_NONE,
                               text);
    }
}

void pls_sim_plan_run(const pls_sim_plan *plan, pls_sim_outcome *outcome)
{
    campaign c = {.plan = plan, .outcome = outcome};
    memset(outcome, 0, sizeof *outcome);
    c.world = plan_world(plan);
    c.checker = pls_sim_checker_create(c.world);
    pls_sim_ledger_init(&c.ledger, c.world);
    c.world->callback = call;
    c.world->callback_context = &c;
    c.world->watcher = watch;
    c.world->watcher_context = &c;
    plan_schedule(&c);
    for (uint32_t tick = 1; tick <= plan->tick_count && holds(&c); tick++) {
        pls_sim_world_run_until(c.world, tick * PLS_SIM_TICK_NS);
        if (tick % CONSERVED_TICKS == 0) {
            conserved_check(&c);
        }
    }
    faults_end(&c);
    settle(&c);
    conserved_check(&c);
    outcome->violation = *pls_sim_checker_violation(c.checker);
    outcome->trace_hash = c.world->trace_hash;
    outcome->event_count = c.world->event_count;
    outcome->traffic = c.world->traffic;
    outcome->counters = pls_sim_world_counters(c.world);
    pls_sim_ledger_fini(&c.ledger);
    pls_sim_checker_destroy(c.checker);
    pls_sim_world_destroy(c.world);
}
