/* SPDX-License-Identifier: Apache-2.0 */
/* The parts of the gateway that need no other node: tables, heads, and whose credit it is. */
#include "node/process/gateway_parts.h"

#include "base/rng.h"
#include "tests/check_run.h"

#include <check.h>
#include <stdlib.h>
#include <string.h>

#define KEYS 300
#define STEPS 30000
#define HEAD_BYTES_MAX 5000

typedef struct model {
    bool used;
    uint64_t id;
    uint64_t old_id; /* of the entry before this one */
} model;

static void table_step(pls_gate_table *table, model *at, uint64_t first, uint64_t second)
{
    pls_gate_entry *entry = pls_gate_find(table, first, second);
    ck_assert_int_eq(entry != NULL, at->used);
    if (at->used) {
        ck_assert_ptr_eq(pls_gate_at(table, at->id), entry);
        pls_gate_close(table, entry);
        at->old_id = at->id;
        at->used = false;
    } else {
        entry = pls_gate_open(table, first, second);
        ck_assert_ptr_nonnull(entry);
        at->id = pls_gate_id(table, entry);
        at->used = true;
    }
    ck_assert(at->old_id == 0 || pls_gate_at(table, at->old_id) == NULL);
}

START_TEST(test_an_entry_is_found_by_its_keys_and_its_id_until_it_is_closed)
{
    static model models[KEYS];
    pls_gate_table table;
    pls_rng rng;
    uint32_t used = 0;
    memset(models, 0, sizeof models);
    pls_rng_init(&rng, 7);
    pls_gate_table_init(&table, 512);
    for (int step = 0; step < STEPS; step++) {
        uint32_t key = (uint32_t)(pls_rng_next(&rng) % KEYS);
        table_step(&table, &models[key], key % 7, key);
        used += models[key].used ? 1 : (uint32_t)-1;
        ck_assert_uint_eq(table.count, used);
        if (step % 100 == 0) {
            ck_assert(pls_gate_table_check(&table));
        }
    }
    pls_gate_table_fini(&table);
}
END_TEST

START_TEST(test_a_full_table_opens_nothing_more)
{
    pls_gate_table table;
    pls_gate_table_init(&table, 64);
    for (uint64_t i = 0; i < 64; i++) {
        ck_assert_ptr_nonnull(pls_gate_open(&table, 1, i));
    }
    ck_assert_ptr_null(pls_gate_open(&table, 1, 64));
    pls_gate_close(&table, pls_gate_find(&table, 1, 5));
    ck_assert_ptr_nonnull(pls_gate_open(&table, 1, 64));
    ck_assert(pls_gate_table_check(&table));
    pls_gate_table_fini(&table);
}
END_TEST

static size_t head_write(uint8_t *bytes, const pls_gate_head *head)
{
    pls_writer w = pls_writer_into(bytes, HEAD_BYTES_MAX);
    pls_gate_head_write(&w, head);
    ck_assert(!w.bad);
    return pls_writer_len(&w);
}

static const pls_gate_head whole = {.kind = PLS_GATE_REQUEST,
                                    .flags = PLS_GATE_WINDOWED | PLS_GATE_BLOCK,
                                    .status = 3,
                                    .method_bytes = 3,
                                    .credit = 9,
                                    .payload_bytes = 5,
                                    .id = 11,
                                    .value = 12,
                                    .actor = 13,
                                    .left_ns = 14,
                                    .method = "add",
                                    .payload = (const uint8_t *)"hello"};

START_TEST(test_a_head_is_read_as_it_was_written)
{
    uint8_t bytes[HEAD_BYTES_MAX];
    pls_gate_head read;
    size_t len = head_write(bytes, &whole);
    ck_assert_int_eq(pls_gate_head_read(bytes, len, 100, &read), PLS_OK);
    ck_assert_uint_eq(read.kind, whole.kind);
    ck_assert_uint_eq(read.flags, whole.flags);
    ck_assert_uint_eq(read.status, whole.status);
    ck_assert_uint_eq(read.credit, whole.credit);
    ck_assert_uint_eq(read.id, whole.id);
    ck_assert_uint_eq(read.value, whole.value);
    ck_assert_uint_eq(read.actor, whole.actor);
    ck_assert_int_eq(read.left_ns, whole.left_ns);
    ck_assert_mem_eq(read.method, "add", 3);
    ck_assert_mem_eq(read.payload, "hello", 5);
}
END_TEST

START_TEST(test_a_head_that_is_cut_or_too_long_is_refused)
{
    uint8_t bytes[HEAD_BYTES_MAX] = {0};
    pls_gate_head read;
    size_t len = head_write(bytes, &whole);
    for (size_t cut = 0; cut < len; cut++) {
        ck_assert_int_eq(pls_gate_head_read(bytes, cut, 100, &read), PLS_EPROTO);
    }
    ck_assert_int_eq(pls_gate_head_read(bytes, len + 1, 100, &read), PLS_EPROTO);
}
END_TEST

/* What a head says of its payload, and how long the body is. */
static pls_err verdict(uint8_t flags, uint32_t payload_bytes, uint64_t body_bytes)
{
    static const uint8_t payload[PLS_GATE_PAYLOAD_BYTES_MAX + 1];
    uint8_t bytes[HEAD_BYTES_MAX];
    bool behind = (flags & PLS_GATE_BLOCK) != 0 && (flags & PLS_GATE_PAYLOAD_IN_BLOCK) == 0;
    pls_gate_head head = {.kind = PLS_GATE_REPLY,
                          .flags = flags,
                          .payload_bytes = payload_bytes,
                          .payload = behind ? payload : NULL};
    return pls_gate_head_read(bytes, head_write(bytes, &head), body_bytes, &head);
}

START_TEST(test_a_payload_has_to_be_where_the_head_says)
{
    const uint8_t in_block = PLS_GATE_BLOCK | PLS_GATE_PAYLOAD_IN_BLOCK;
    ck_assert_int_eq(verdict(0, 10, 10), PLS_OK);
    ck_assert_int_eq(verdict(0, 10, 11), PLS_EPROTO);
    ck_assert_int_eq(verdict(0, 4097, 4097), PLS_EPROTO);
    ck_assert_int_eq(verdict(in_block, 100000, 100000), PLS_OK);
    ck_assert_int_eq(verdict(in_block, 100001, 100000), PLS_EPROTO);
    ck_assert_int_eq(verdict(in_block, 0, 0), PLS_EPROTO);
    ck_assert_int_eq(verdict(PLS_GATE_PAYLOAD_IN_BLOCK, 10, 10), PLS_EPROTO);
    ck_assert_int_eq(verdict(PLS_GATE_BLOCK, 4096, 50000), PLS_OK);
    ck_assert_int_eq(verdict(PLS_GATE_BLOCK, 4096, 0), PLS_EPROTO);
    ck_assert_int_eq(verdict(8, 10, 10), PLS_EPROTO);
}
END_TEST

START_TEST(test_any_bytes_are_refused_or_read_within_their_length)
{
    pls_rng rng;
    pls_rng_init(&rng, 3);
    for (int round = 0; round < 20000; round++) {
        uint8_t whole_bytes[HEAD_BYTES_MAX];
        size_t len = head_write(whole_bytes, &whole);
        uint8_t *bytes = malloc(len);
        ck_assert_ptr_nonnull(bytes);
        memcpy(bytes, whole_bytes, len);
        for (int i = 0; i < 3; i++) {
            bytes[pls_rng_next(&rng) % len] = (uint8_t)pls_rng_next(&rng);
        }
        pls_gate_head read;
        size_t cut = len - pls_rng_next(&rng) % 4;
        if (pls_gate_head_read(bytes, cut, pls_rng_next(&rng) % 8, &read) == PLS_OK) {
            const uint8_t *end = bytes + cut;
            ck_assert((const uint8_t *)read.method + read.method_bytes <= end);
            ck_assert(read.payload == NULL || read.payload + read.payload_bytes <= end);
        }
        free(bytes);
    }
}
END_TEST

/* What the gateway would have said to a node, by the last word. */
static uint32_t said_count;
static uint64_t said_route;
static uint64_t said_value;

void pls_gate_say(pls_gate_peer *peer, const pls_gate_head *head, uint8_t stream, const char *text)
{
    ck_assert_uint_eq(head->kind, PLS_GATE_CREDIT);
    said_count++;
    said_route = head->id;
    said_value = head->value;
}

uint8_t pls_gate_stream(uint64_t first, uint64_t second)
{
    return 0;
}

static uint32_t pay(pls_gateway *gateway, uint64_t actor, uint32_t count, uint64_t *route_out)
{
    pls_gate_debt debt;
    uint16_t slot = actor == 78 ? 6 : 5;
    ck_assert(!pls_gate_debt_next(gateway, actor, 9, &debt)); /* another process's actor */
    if (!pls_gate_debt_next(gateway, actor, slot, &debt)) {
        return 0;
    }
    uint32_t part = count < debt.count ? count : debt.count;
    *route_out = debt.peer != NULL ? debt.route : 0;
    pls_gate_debt_paid(gateway, actor, part);
    return part;
}

START_TEST(test_credit_goes_to_the_oldest_tells_first)
{
    pls_gateway *gateway = calloc(1, sizeof *gateway);
    pls_gate_peer *one = calloc(1, sizeof *one);
    pls_gate_peer *two = calloc(1, sizeof *two);
    uint64_t route = 0;
    ck_assert(gateway != NULL && one != NULL && two != NULL);
    for (int i = 0; i < 3; i++) {
        ck_assert_int_eq(pls_gate_debt_add(gateway, 77, 5, one, 101), PLS_OK);
    }
    ck_assert_int_eq(pls_gate_debt_add(gateway, 77, 5, two, 202), PLS_OK);
    ck_assert_int_eq(pls_gate_debt_add(gateway, 77, 5, one, 101), PLS_OK);
    ck_assert_int_eq(pls_gate_debt_add(gateway, 78, 6, two, 203), PLS_OK);
    ck_assert_uint_eq(pay(gateway, 77, 2, &route), 2);
    ck_assert_uint_eq(route, 101);
    ck_assert_uint_eq(pay(gateway, 77, 9, &route), 1);
    ck_assert_uint_eq(pay(gateway, 77, 9, &route), 1);
    ck_assert_uint_eq(route, 202);
    pls_gate_debts_forget_peer(gateway, one);
    ck_assert_uint_eq(pay(gateway, 77, 9, &route), 1);
    ck_assert_uint_eq(route, 0);
    ck_assert_uint_eq(pay(gateway, 77, 9, &route), 0);
    ck_assert_uint_eq(said_count, 0);
    pls_gate_debts_forget_slot(gateway, 6);
    ck_assert_uint_eq(pay(gateway, 78, 9, &route), 0);
    ck_assert_uint_eq(gateway->debt_count, 0);
    /* The dead process gives nothing back any more, so it was given for it. */
    ck_assert_uint_eq(said_count, 1);
    ck_assert_uint_eq(said_route, 203);
    ck_assert_uint_eq(said_value, 1);
    free(two);
    free(one);
    free(gateway);
}
END_TEST

START_TEST(test_an_actor_that_moved_owes_from_its_new_process_only)
{
    pls_gateway *gateway = calloc(1, sizeof *gateway);
    pls_gate_peer *one = calloc(1, sizeof *one);
    pls_gate_debt debt;
    ck_assert(gateway != NULL && one != NULL);
    said_count = 0;
    ck_assert_int_eq(pls_gate_debt_add(gateway, 77, 5, one, 101), PLS_OK);
    /* Two more in the same bucket, so that taking one out leaves the others. */
    ck_assert_int_eq(pls_gate_debt_add(gateway, 77 + PLS_GATE_DEBTORS, 5, one, 102), PLS_OK);
    ck_assert_int_eq(pls_gate_debt_add(gateway, 77, 6, one, 101), PLS_OK);
    ck_assert_uint_eq(said_count, 1);
    ck_assert(pls_gate_debt_next(gateway, 77, 6, &debt));
    ck_assert_uint_eq(debt.count, 1);
    ck_assert(pls_gate_debt_next(gateway, 77 + PLS_GATE_DEBTORS, 5, &debt));
    pls_gate_debts_forget_slot(gateway, 5);
    ck_assert(pls_gate_debt_next(gateway, 77, 6, &debt));
    ck_assert_uint_eq(gateway->debt_count, 1);
    pls_gate_debts_forget_slot(gateway, PLS_SLOTS_MAX);
    ck_assert_uint_eq(gateway->debt_count, 0);
    free(one);
    free(gateway);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("node.gateway");
    TCase *tcase = tcase_create("gateway");
    tcase_add_test(tcase, test_an_entry_is_found_by_its_keys_and_its_id_until_it_is_closed);
    tcase_add_test(tcase, test_a_full_table_opens_nothing_more);
    tcase_add_test(tcase, test_a_head_is_read_as_it_was_written);
    tcase_add_test(tcase, test_a_head_that_is_cut_or_too_long_is_refused);
    tcase_add_test(tcase, test_a_payload_has_to_be_where_the_head_says);
    tcase_add_test(tcase, test_any_bytes_are_refused_or_read_within_their_length);
    tcase_add_test(tcase, test_credit_goes_to_the_oldest_tells_first);
    tcase_add_test(tcase, test_an_actor_that_moved_owes_from_its_new_process_only);
    suite_add_tcase(suite, tcase);
    return check_run(suite);
}
