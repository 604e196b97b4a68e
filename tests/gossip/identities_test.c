/* SPDX-License-Identifier: Apache-2.0 */
/* The pool of identities and the small index, against plain models of them. */
#include "gossip/identities.h"

#include "base/limits.h"
#include "base/rng.h"
#include "gossip/index.h"
#include "gossip/wire.h"
#include "tests/check_run.h"

#include <check.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MODEL_NAMES 64
#define MODEL_GENERATIONS 4
#define INDEX_KEYS 512

static pls_identity identity_of(char *name, uint32_t number, uint64_t generation)
{
    pls_identity identity = {.generation = generation, .name = name, .address = "address"};
    identity.name_bytes = (uint32_t)snprintf(name, 32, "node-%u", number);
    identity.address_bytes = 7;
    return identity;
}

START_TEST(test_pool_agrees_with_a_model)
{
    pls_identities *pool = NULL;
    pls_rng rng;
    char name[32];
    static uint32_t refs[MODEL_NAMES][MODEL_GENERATIONS];
    static pls_member members[MODEL_NAMES][MODEL_GENERATIONS];
    pls_rng_init(&rng, 1);
    memset(refs, 0, sizeof refs);
    ck_assert_int_eq(pls_identities_create(NULL, &pool), PLS_OK);
    for (uint32_t step = 0; step < 20000; step++) {
        uint32_t n = pls_rng_below(&rng, MODEL_NAMES);
        uint32_t g = pls_rng_below(&rng, MODEL_GENERATIONS);
        pls_identity identity = identity_of(name, n, g + 1);
        uint64_t key = pls_identity_key(&identity);
        if (refs[n][g] > 0 && pls_rng_below(&rng, 2) == 0) {
            pls_identities_release(pool, members[n][g]);
            refs[n][g]--;
        } else {
            pls_member member = PLS_MEMBER_NONE;
            ck_assert_int_eq(pls_identities_acquire(pool, &identity, &member), PLS_OK);
            ck_assert(refs[n][g] == 0 || member == members[n][g]);
            members[n][g] = member;
            refs[n][g]++;
        }
        ck_assert_uint_eq(pls_identities_find(pool, key),
                          refs[n][g] > 0 ? members[n][g] : PLS_MEMBER_NONE);
        uint32_t held = 0;
        uint32_t found = 0;
        for (uint32_t i = 0; i < MODEL_GENERATIONS; i++) {
            held += refs[n][i] > 0;
        }
        for (pls_member m = pls_identities_named(pool, name, identity.name_bytes, PLS_MEMBER_NONE);
             m != PLS_MEMBER_NONE; m = pls_identities_named(pool, name, identity.name_bytes, m)) {
            pls_identity got = pls_identities_get(pool, m);
            ck_assert_uint_eq(got.name_bytes, identity.name_bytes);
            ck_assert_mem_eq(got.name, name, got.name_bytes);
            found++;
        }
        ck_assert_uint_eq(found, held);
    }
    ck_assert_uint_le(pls_identities_limit(pool), MODEL_NAMES * MODEL_GENERATIONS);
    for (uint32_t n = 0; n < MODEL_NAMES; n++) {
        for (uint32_t g = 0; g < MODEL_GENERATIONS; g++) {
            while (refs[n][g]-- > 0) {
                pls_identities_release(pool, members[n][g]);
            }
        }
    }
    pls_identities_destroy(pool);
}
END_TEST

START_TEST(test_identity_limits_are_checked)
{
    static char big[PLS_NAME_BYTES_MAX + 1];
    pls_identities *pool = NULL;
    pls_member member = 0;
    char name[32];
    ck_assert_int_eq(pls_identities_create(NULL, &pool), PLS_OK);
    pls_identity id = identity_of(name, 1, 0);
    ck_assert_int_eq(pls_identities_acquire(pool, &id, &member), PLS_EINVAL);
    id.generation = 1;
    id.name_bytes = 0;
    ck_assert_int_eq(pls_identities_acquire(pool, &id, &member), PLS_EINVAL);
    id.name = big;
    id.name_bytes = sizeof big;
    ck_assert_int_eq(pls_identities_acquire(pool, &id, &member), PLS_EINVAL);
    id.name_bytes = 4;
    id.address = big;
    id.address_bytes = PLS_ADDRESS_BYTES_MAX + 1;
    ck_assert_int_eq(pls_identities_acquire(pool, &id, &member), PLS_EINVAL);
    id.address_bytes = 0;
    ck_assert_int_eq(pls_identities_acquire(pool, &id, &member), PLS_EINVAL);
    pls_identities_destroy(pool);
}
END_TEST

START_TEST(test_every_part_of_an_identity_is_in_its_key)
{
    char name[32];
    pls_identity id = identity_of(name, 1, 1);
    uint64_t key = pls_identity_key(&id);
    id.generation = 2;
    ck_assert_uint_ne(pls_identity_key(&id), key);
    id.generation = 1;
    id.address = "addresS";
    ck_assert_uint_ne(pls_identity_key(&id), key);
    id.address = "address";
    /* "node-1" + "address" is not "node-" + "1address". */
    pls_identity moved = {.generation = 1, .name = "node-", .address = "1address"};
    moved.name_bytes = 5;
    moved.address_bytes = 8;
    ck_assert_uint_ne(pls_identity_key(&moved), key);
    ck_assert_uint_eq(pls_identity_key(&id), key);
}
END_TEST

static void assert_meta(const pls_identities *pool, pls_member member, uint64_t incarnation,
                        const char *expected)
{
    uint32_t len = 0;
    const void *meta = pls_identities_meta(pool, member, incarnation, &len);
    ck_assert_uint_eq(len, strlen(expected));
    ck_assert(len == 0 || memcmp(meta, expected, len) == 0);
}

START_TEST(test_metas_are_kept_by_incarnation)
{
    pls_identities *pool = NULL;
    pls_member m = 0;
    char name[32];
    ck_assert_int_eq(pls_identities_create(NULL, &pool), PLS_OK);
    pls_identity id = identity_of(name, 1, 1);
    ck_assert_int_eq(pls_identities_acquire(pool, &id, &m), PLS_OK);
    assert_meta(pool, m, 1, "");
    ck_assert_int_eq(pls_identities_set_meta(pool, m, 1, "", 0), PLS_OK);
    ck_assert_int_eq(pls_identities_set_meta(pool, m, 5, "five", 4), PLS_OK);
    ck_assert_int_eq(pls_identities_set_meta(pool, m, 5, "else", 4), PLS_EEXIST);
    ck_assert_int_eq(pls_identities_set_meta(pool, m, 9, "nine", 4), PLS_OK);
    ck_assert_int_eq(pls_identities_set_meta(pool, m, 7, "seven", 5), PLS_OK);
    assert_meta(pool, m, 4, "");
    assert_meta(pool, m, 5, "five");
    assert_meta(pool, m, 6, "five");
    assert_meta(pool, m, 8, "seven");
    assert_meta(pool, m, 1000, "nine");
    /* Only the last few are kept. */
    for (uint64_t i = 10; i < 30; i++) {
        char meta[8];
        uint32_t len = (uint32_t)snprintf(meta, sizeof meta, "%lu", (unsigned long)i);
        ck_assert_int_eq(pls_identities_set_meta(pool, m, i, meta, len), PLS_OK);
    }
    assert_meta(pool, m, 5, "");
    assert_meta(pool, m, 29, "29");
    pls_identities_release(pool, m);
    pls_identities_destroy(pool);
}
END_TEST

START_TEST(test_pool_that_is_held_cannot_be_destroyed)
{
    pls_identities *pool = NULL;
    pls_member m = 0;
    char name[32];
    ck_assert_int_eq(pls_identities_create(NULL, &pool), PLS_OK);
    pls_identity id = identity_of(name, 1, 1);
    ck_assert_int_eq(pls_identities_acquire(pool, &id, &m), PLS_OK);
    pls_identities_destroy(pool);
}
END_TEST

START_TEST(test_index_agrees_with_a_model)
{
    pls_index index = {0};
    pls_heap heap = pls_heap_over(NULL);
    pls_rng rng;
    static uint32_t model[INDEX_KEYS];
    uint32_t count = 0;
    pls_rng_init(&rng, 2);
    memset(model, 0xff, sizeof model);
    for (uint32_t step = 0; step < 50000; step++) {
        uint32_t slot = pls_rng_below(&rng, INDEX_KEYS);
        uint32_t key = slot * 8192;
        if (pls_rng_below(&rng, 5) < 2) {
            count -= model[slot] != PLS_INDEX_NONE;
            model[slot] = PLS_INDEX_NONE;
            pls_index_remove(&index, key);
        } else {
            count += model[slot] == PLS_INDEX_NONE;
            model[slot] = step;
            ck_assert_int_eq(pls_index_reserve(&index, &heap), PLS_OK);
            pls_index_set(&index, key, step);
        }
        uint32_t probe = pls_rng_below(&rng, INDEX_KEYS);
        ck_assert_uint_eq(pls_index_get(&index, probe * 8192), model[probe]);
        ck_assert_uint_eq(index.count, count);
    }
    pls_index_fini(&index, &heap);
    ck_assert_uint_eq(heap.bytes, 0);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("gossip.identities");
    TCase *tc = tcase_create("identities");
    suite_add_tcase(suite, tc);
    tcase_add_test(tc, test_pool_agrees_with_a_model);
    tcase_add_test(tc, test_identity_limits_are_checked);
    tcase_add_test(tc, test_every_part_of_an_identity_is_in_its_key);
    tcase_add_test(tc, test_metas_are_kept_by_incarnation);
    tcase_add_test_raise_signal(tc, test_pool_that_is_held_cannot_be_destroyed, SIGABRT);
    tcase_add_test(tc, test_index_agrees_with_a_model);
    return check_run(suite);
}
