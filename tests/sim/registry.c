/* SPDX-License-Identifier: Apache-2.0 */
/* Scenarios 33 and 34, and what names cost: many names under loss and partition, a unique name
 * claimed on both sides of a cut, how fast a change reaches all, and a million of them. */
#include "tests/sim/scenario.h"

#include "base/assert.h"
#include "gossip/names.h"
#include "tests/sim/stage.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* "actor-" and eight digits; longer names go on with dashes. */
enum { NAME_BYTES = 14, NAME_BYTES_MAX = 64, BATCH_NAMES = 500, HIT_COUNT_MAX = 8 };

/* Who owns each name of a run, and with which value; PLS_SIM_NOBODY: it was removed. */
typedef struct ownership {
    uint32_t *owners;
    uint64_t *values;
    uint32_t name_count;
    uint32_t name_bytes;
} ownership;

static uint32_t name_write(uint32_t name, char text[NAME_BYTES_MAX])
{
    return (uint32_t)snprintf(text, NAME_BYTES_MAX, "actor-%08u", name);
}

/* A name as long as those of a run are. */
static uint32_t name_extend(const ownership *o, uint32_t name, char text[NAME_BYTES_MAX])
{
    uint32_t written = name_write(name, text);
    memset(text + written, '-', o->name_bytes - written);
    return o->name_bytes;
}

static void ownership_init(ownership *o, uint32_t name_count, uint32_t name_bytes)
{
    o->name_count = name_count;
    o->name_bytes = name_bytes;
    o->owners = malloc(name_count * sizeof *o->owners);
    o->values = calloc(name_count, sizeof *o->values);
    pls_assert(o->owners != NULL);
    pls_assert(o->values != NULL);
    for (uint32_t i = 0; i < name_count; i++) {
        o->owners[i] = PLS_SIM_NOBODY;
    }
}

static void ownership_fini(ownership *o)
{
    free(o->owners);
    free(o->values);
}

static void name_remove(pls_sim_world *world, ownership *o, uint32_t name)
{
    char text[NAME_BYTES_MAX];
    uint32_t owner = o->owners[name];
    if (owner == PLS_SIM_NOBODY) {
        return;
    }
    pls_err err =
        pls_gossip_name_remove(world->nodes[owner].gossip, text, name_extend(o, name, text),
                               pls_sim_world_clock(world, owner));
    pls_assert(err == PLS_OK);
    pls_sim_world_settle(world, owner);
    o->owners[name] = PLS_SIM_NOBODY;
}

static void name_put(pls_sim_world *world, ownership *o, uint32_t name, uint32_t owner)
{
    char text[NAME_BYTES_MAX];
    if (o->owners[name] != owner) {
        name_remove(world, o, name);
    }
    uint64_t value = ++o->values[name];
    pls_err err = pls_gossip_name_put(world->nodes[owner].gossip, text, name_extend(o, name, text),
                                      value, false, pls_sim_world_clock(world, owner));
    pls_assert(err == PLS_OK);
    pls_sim_world_settle(world, owner);
    o->owners[name] = owner;
}

/* Names that some node answers wrongly. */
static uint64_t wrong_answers(const pls_sim_world *world, const ownership *o)
{
    uint64_t wrong = 0;
    char text[NAME_BYTES_MAX];
    for (uint32_t node = 0; node < world->node_count; node++) {
        for (uint32_t name = 0; name < o->name_count; name++) {
            pls_name_hit hits[HIT_COUNT_MAX];
            uint32_t count = pls_gossip_name_find(world->nodes[node].gossip, text,
                                                  name_extend(o, name, text), hits, HIT_COUNT_MAX);
            if (o->owners[name] == PLS_SIM_NOBODY) {
                wrong += count != 0;
            } else {
                wrong += count != 1 || hits[0].value != o->values[name] ||
                         pls_sim_world_node_of(world, hits[0].owner) != o->owners[name];
            }
        }
    }
    return wrong;
}

/* Registers, moves and removes names in batches; each batch takes 100 ms. */
static void names_stir(pls_sim_stage *stage, ownership *o, uint32_t batch_count)
{
    pls_rng *rng = &stage->world->rng;
    for (uint32_t batch = 0; batch < batch_count; batch++) {
        for (uint32_t i = 0; i < BATCH_NAMES; i++) {
            uint32_t name = pls_rng_below(rng, o->name_count);
            if (o->owners[name] != PLS_SIM_NOBODY && pls_rng_chance(rng, 1, 3)) {
                name_remove(stage->world, o, name);
            } else {
                name_put(stage->world, o, name, pls_rng_below(rng, stage->world->node_count));
            }
        }
        pls_sim_stage_run(stage, 100 * PLS_SIM_MS);
    }
}

/* One run over names: how many nodes and names, how lossy, how long removals are remembered. */
typedef struct names_case {
    uint32_t node_count;
    uint32_t name_count;
    uint32_t loss_ppm;
    uint32_t tombstone_keep_s;
} names_case;

static void names_run(pls_sim_report *report, const names_case *of)
{
    pls_sim_stage stage;
    ownership o;
    uint32_t batch_count = of->name_count / BATCH_NAMES;
    pls_sim_setup setup = pls_sim_setup_of(report->seed, of->node_count);
    setup.gossip.tombstone_keep_ns = of->tombstone_keep_s * PLS_SIM_S;
    pls_sim_stage_open(&stage, &setup, true);
    pls_sim_stage_sides(&stage, of->node_count / 2);
    ownership_init(&o, of->name_count, NAME_BYTES);
    stage.world->net.loss_ppm = of->loss_ppm;
    names_stir(&stage, &o, batch_count);
    pls_sim_net_cut(&stage.world->net, 0, 1);
    pls_sim_net_cut(&stage.world->net, 1, 0);
    names_stir(&stage, &o, batch_count);
    pls_sim_stage_run(&stage, 60 * PLS_SIM_S);
    pls_sim_report_expect(report, wrong_answers(stage.world, &o) > 0,
                          "a cut keeps changes from the other side");
    pls_sim_net_heal(&stage.world->net);
    uint64_t healed_ns = pls_sim_stage_converge(&stage, 120 * PLS_SIM_S);
    uint64_t wrong = wrong_answers(stage.world, &o);
    pls_sim_report_value(report, "s", pls_sim_seconds(healed_ns), "names.%u.heal", of->name_count);
    pls_sim_report_value(report, "", (double)wrong, "names.%u.wrong_answers", of->name_count);
    pls_sim_report_expect(report, healed_ns != PLS_SIM_NEVER && wrong == 0,
                          "after the heal all answers are right, %lu are not",
                          (unsigned long)wrong);
    pls_sim_stage_run(&stage, 60 * PLS_SIM_S);
    pls_sim_report_expect(report, wrong_answers(stage.world, &o) == 0, "and they stay right");
    ownership_fini(&o);
    pls_sim_stage_close(&stage, report);
}

void pls_sim_scenario_names(pls_sim_report *report)
{
    static const names_case cases[] = {
        {8, 5000, 50000, 20},
        {16, 20000, 200000, 3}, /* copies begin anew while removals are being forgotten */
        {16, 100000, 50000, 20},
    };
    uint32_t count = report->whole ? 3 : 2;
    for (uint32_t i = 0; i < count; i++) {
        names_run(report, &cases[i]);
    }
}

static void unique_run(pls_sim_report *report, uint64_t seed)
{
    static const char name[] = "leader";
    enum { NODES = 16, LEADER_BYTES = sizeof name - 1 };
    pls_sim_stage stage;
    pls_sim_setup setup = pls_sim_setup_of(seed, NODES);
    pls_sim_stage_open(&stage, &setup, true);
    pls_sim_stage_sides(&stage, NODES / 2);
    pls_sim_stage_run(&stage, 3 * PLS_SIM_S);
    pls_sim_net_cut(&stage.world->net, 0, 1);
    pls_sim_net_cut(&stage.world->net, 1, 0);
    pls_sim_stage_run(&stage, 5 * PLS_SIM_S);
    for (uint32_t node = 2; node < NODES; node += 8) {
        pls_err err = pls_gossip_name_put(stage.world->nodes[node].gossip, name, LEADER_BYTES, node,
                                          true, pls_sim_world_clock(stage.world, node));
        pls_sim_report_expect(report, err == PLS_OK, "node %u claims the name", node);
        pls_sim_world_settle(stage.world, node);
        pls_sim_stage_run(&stage, 700 * PLS_SIM_MS);
    }
    pls_sim_stage_run(&stage, 60 * PLS_SIM_S);
    pls_sim_net_heal(&stage.world->net);
    uint64_t healed_ns = pls_sim_stage_converge(&stage, 60 * PLS_SIM_S);
    pls_sim_report_value(report, "s", pls_sim_seconds(healed_ns), "names_unique.heal");
    pls_sim_stage_run(&stage, 5 * PLS_SIM_S);
    pls_name_hit first = {0};
    for (uint32_t node = 0; node < NODES; node++) {
        pls_name_hit hits[2];
        uint32_t count =
            pls_gossip_name_find(stage.world->nodes[node].gossip, name, LEADER_BYTES, hits, 2);
        pls_sim_report_expect(report, count == 1, "node %u finds %u winners", node, count);
        first = node == 0 ? hits[0] : first;
        pls_sim_report_expect(report, count == 1 && hits[0].owner == first.owner,
                              "node %u finds the same winner", node);
    }
    pls_sim_report_expect(report, stage.tally.name_lost_count == 1, "one conflict event, %lu came",
                          (unsigned long)stage.tally.name_lost_count);
    pls_sim_stage_close(&stage, report);
}

void pls_sim_scenario_names_unique(pls_sim_report *report)
{
    for (uint64_t i = 0; i < 10; i++) {
        unique_run(report, report->seed + i);
    }
}

/* When each node's watch told of the name. */
typedef struct reach_watch {
    pls_sim_sample seconds;
    uint64_t from_ns;
    pls_gossip_event event;
} reach_watch;

static void reach_event(pls_sim_world *world, uint32_t node, const pls_action *action,
                        void *context)
{
    reach_watch *watch = context;
    if (action->kind == PLS_ACTION_NAME && action->event == watch->event) {
        pls_sim_sample_add(&watch->seconds, pls_sim_seconds(world->now_ns - watch->from_ns));
    }
}

void pls_sim_scenario_names_reach(pls_sim_report *report)
{
    pls_sim_stage stage;
    reach_watch watch = {0};
    uint32_t node_count = report->whole ? 1000 : 128;
    uint32_t change_count = report->whole ? 20 : 10;
    char text[NAME_BYTES_MAX];
    pls_sim_setup setup = pls_sim_setup_of(report->seed, node_count);
    pls_sim_stage_open(&stage, &setup, true);
    stage.world->watcher = reach_event;
    stage.world->watcher_context = &watch;
    pls_sim_stage_run(&stage, 3 * PLS_SIM_S);
    for (uint32_t i = 0; i < change_count; i++) {
        uint32_t text_bytes = name_write(i, text);
        for (uint32_t node = 0; node < node_count; node++) {
            pls_err err = pls_gossip_name_watch(stage.world->nodes[node].gossip, text, text_bytes);
            pls_assert(err == PLS_OK);
        }
        uint32_t owner = pls_rng_below(&stage.world->rng, node_count);
        watch.from_ns = stage.world->now_ns;
        watch.event = PLS_EVENT_NAME_ADDED;
        pls_err err = pls_gossip_name_put(stage.world->nodes[owner].gossip, text, text_bytes, 1,
                                          false, pls_sim_world_clock(stage.world, owner));
        pls_assert(err == PLS_OK);
        pls_sim_world_settle(stage.world, owner);
        pls_sim_stage_run(&stage, 10 * PLS_SIM_S + pls_rng_below(&stage.world->rng, 1000000000));
    }
    size_t expected = (size_t)change_count * (node_count - 1);
    double p99 = pls_sim_sample_at(&watch.seconds, 0.99);
    double max = pls_sim_sample_at(&watch.seconds, 1);
    pls_sim_report_value(report, "s", pls_sim_sample_at(&watch.seconds, 0.5),
                         "names_reach.%u.median", node_count);
    pls_sim_report_value(report, "s", p99, "names_reach.%u.p99", node_count);
    pls_sim_report_value(report, "s", max, "names_reach.%u.max", node_count);
    pls_sim_report_expect(report, watch.seconds.value_count >= expected, "%lu of %lu were told",
                          (unsigned long)watch.seconds.value_count, (unsigned long)expected);
    pls_sim_report_expect(report, p99 <= 2, "99 percent know in %.2f s, limit 2 s", p99);
    for (size_t i = 0; i < watch.seconds.value_count; i += 20) {
        pls_sim_report_point(report, "names",
                             "A new name | seconds after its registration | share of nodes",
                             node_count == 1000 ? "N=1000" : "N=128", watch.seconds.values[i],
                             (double)(i + 1) / (double)watch.seconds.value_count);
    }
    pls_sim_sample_fini(&watch.seconds);
    pls_sim_stage_close(&stage, report);
}

/* Seconds of one core; other processes of a shared machine do not count. */
static double core_seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

enum { LOOKUP_BATCHES = 20, BATCH_LOOKUPS = 100000 };

/* One batch of look-ups in random order: ns of each. In a chain each waits for the answer of the
 * one before, though not for the comparison of a long name's text; otherwise the processor may work
 * on several at once. */
static double lookups_time(const pls_gossip *gossip, char (*texts)[NAME_BYTES_MAX],
                           uint32_t name_bytes, bool chain)
{
    uint32_t found = 0;
    uint64_t at = 0;
    double start = core_seconds();
    for (uint32_t i = 0; i < BATCH_LOOKUPS; i++) {
        pls_name_hit hit;
        found += pls_gossip_name_find(gossip, texts[at], name_bytes, &hit, 1);
        /* Values are small: nothing is added but the wait. */
        at = i + 1 + (chain ? hit.value >> 32 : 0);
    }
    double taken = core_seconds() - start;
    pls_assert(found == BATCH_LOOKUPS);
    return taken * 1e9 / BATCH_LOOKUPS;
}

/* A sample of batches of each kind, since other processes of the machine disturb its caches; each
 * batch asks for other names than the one before, which may be in the cache yet. */
static void lookups_measure(pls_sim_world *world, const ownership *o, pls_sim_sample *sample,
                            pls_sim_sample *chained)
{
    char(*texts)[NAME_BYTES_MAX] = malloc(BATCH_LOOKUPS * sizeof *texts);
    pls_assert(texts != NULL);
    for (uint32_t batch = 0; batch < 2 * LOOKUP_BATCHES; batch++) {
        bool chain = batch % 2 == 1;
        for (uint32_t i = 0; i < BATCH_LOOKUPS; i++) {
            name_extend(o, pls_rng_below(&world->rng, o->name_count), texts[i]);
        }
        pls_sim_sample_add(chain ? chained : sample,
                           lookups_time(world->nodes[1].gossip, texts, o->name_bytes, chain));
    }
    free(texts);
}

/* Nanoseconds of one read of random memory that waits for the one before it, the best of as many
 * batches: what a look-up that misses every cache is made of, on this machine and now. */
static double memory_read_ns(pls_rng *rng, uint64_t bytes)
{
    uint32_t count = (uint32_t)(bytes / sizeof(uint64_t));
    uint64_t *next = malloc(count * sizeof *next);
    pls_assert(next != NULL);
    for (uint32_t i = 0; i < count; i++) {
        next[i] = i;
    }
    for (uint32_t i = count - 1; i > 0; i--) {
        uint32_t other = pls_rng_below(rng, i);
        uint64_t kept = next[i];
        next[i] = next[other];
        next[other] = kept;
    }
    uint64_t at = 0;
    double best = 1;
    for (uint32_t batch = 0; batch < LOOKUP_BATCHES; batch++) {
        double start = core_seconds();
        for (uint32_t i = 0; i < BATCH_LOOKUPS; i++) {
            at = next[at];
        }
        double taken = core_seconds() - start;
        best = taken < best ? taken : best;
    }
    pls_assert(at < count);
    free(next);
    return best * 1e9 / BATCH_LOOKUPS;
}

static void lookups_report(pls_sim_report *report, pls_sim_world *world, const ownership *o,
                           const char *run)
{
    pls_sim_sample sample = {0};
    pls_sim_sample chained = {0};
    lookups_measure(world, o, &sample, &chained);
    double best = pls_sim_sample_at(&sample, 0);
    pls_sim_report_value(report, "ns", best, "names_million.%s.lookup_best", run);
    pls_sim_report_value(report, "ns", pls_sim_sample_at(&sample, 0.5),
                         "names_million.%s.lookup_median", run);
    pls_sim_report_value(report, "ns", pls_sim_sample_at(&chained, 0),
                         "names_million.%s.lookup_chained", run);
    double read = memory_read_ns(&world->rng, pls_gossip_look(world->nodes[1].gossip).memory_bytes);
    pls_sim_report_value(report, "ns", read, "names_million.%s.memory_read", run);
    pls_sim_report_value(report, "", best / read, "names_million.%s.lookup_in_reads", run);
    pls_sim_report_expect(report, o->name_count < 1000000 || best <= 200,
                          "a lookup of a name of %u bytes takes %.0f ns", o->name_bytes, best);
    pls_sim_sample_fini(&sample);
    pls_sim_sample_fini(&chained);
}

/* The longest time of any event until node 0's names are hidden at node 1. */
static double death_seconds(pls_sim_stage *stage, pls_sim_report *report, const ownership *o)
{
    char text[NAME_BYTES_MAX];
    pls_name_hit hit;
    double longest = 0;
    uint32_t text_bytes = name_extend(o, 7, text);
    pls_sim_world_crash(stage->world, 0, false);
    uint64_t until_ns = stage->world->now_ns + 60 * PLS_SIM_S;
    while (pls_gossip_name_find(stage->world->nodes[1].gossip, text, text_bytes, &hit, 1) > 0 &&
           stage->world->now_ns < until_ns) {
        double start = core_seconds();
        (void)pls_sim_world_step(stage->world);
        double taken = core_seconds() - start;
        longest = taken > longest ? taken : longest;
    }
    pls_sim_report_expect(report, stage->world->now_ns < until_ns, "the dead owner's names go");
    return longest;
}

static void names_many(pls_sim_report *report, uint32_t name_count, uint32_t name_bytes)
{
    char run[32];
    pls_sim_stage stage;
    ownership o;
    pls_sim_setup setup = pls_sim_setup_of(report->seed, 2);
    (void)snprintf(run, sizeof run, "%u.%u_bytes", name_count, name_bytes);
    pls_sim_stage_open(&stage, &setup, true);
    pls_sim_checker_destroy(stage.checker);
    stage.checker = NULL;
    pls_sim_stage_run(&stage, 3 * PLS_SIM_S);
    uint64_t before = pls_gossip_look(stage.world->nodes[1].gossip).memory_bytes;
    ownership_init(&o, name_count, name_bytes);
    for (uint32_t i = 0; i < name_count; i++) {
        name_put(stage.world, &o, i, 0);
    }
    uint64_t took_ns = pls_sim_stage_converge(&stage, 600 * PLS_SIM_S);
    pls_sim_report_value(report, "s", pls_sim_seconds(took_ns), "names_million.%s.copied", run);
    pls_sim_report_expect(report, took_ns != PLS_SIM_NEVER, "all names reach the other node");
    uint64_t after = pls_gossip_look(stage.world->nodes[1].gossip).memory_bytes;
    double each = (double)(after - before) / name_count - name_bytes;
    pls_sim_report_value(report, "B", each, "names_million.%s.bytes_each", run);
    pls_sim_report_expect(report, each <= 100, "%.0f B a name beyond its own bytes", each);
    if (took_ns != PLS_SIM_NEVER) {
        lookups_report(report, stage.world, &o, run);
        double seconds = death_seconds(&stage, report, &o);
        pls_sim_report_value(report, "us", seconds * 1e6, "names_million.%s.death", run);
        pls_sim_report_expect(report, seconds < 0.01, "a death takes %.0f us", seconds * 1e6);
    }
    ownership_fini(&o);
    pls_sim_stage_close(&stage, report);
}

void pls_sim_scenario_names_million(pls_sim_report *report)
{
    static const uint32_t lengths[] = {NAME_BYTES, 30, NAME_BYTES_MAX};
    for (size_t i = 0; i < sizeof lengths / sizeof lengths[0]; i++) {
        names_many(report, 50000, lengths[i]);
        if (report->whole) {
            names_many(report, 1000000, lengths[i]);
        }
    }
}
