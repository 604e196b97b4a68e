/* SPDX-License-Identifier: Apache-2.0 */
/* A producer whose memory has gone wrong writes nonsense into its own ring. The consumer takes
 * nothing for a message that is not within what was published, goes on with everybody else, and the
 * slot can be used again. STRESS_SEED picks the nonsense. */
#include "base/rng.h"
#include "tests/check_run.h"
#include "tests/stress/stage.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#define FORGERIES 4000
#define TIMEOUT_S 60

typedef struct forger {
    pls_ring_control *control;
    uint8_t *data;
    uint64_t tail; /* published */
    pls_rng rng;
} forger;

/* The victim's slot as its producer maps it, by the layout alone. */
static void forger_open(forger *f, const stage *s)
{
    off_t offset = (off_t)(PLS_INBOX_RINGS_OFFSET + STAGE_VICTIM * (uint64_t)PLS_RING_SPAN_BYTES);
    f->control = mmap(NULL, PLS_RING_SPAN_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED,
                      pls_inbox_memfd(s->inbox), offset);
    ck_assert_ptr_ne(f->control, MAP_FAILED);
    f->data = (uint8_t *)f->control + PLS_PAGE_BYTES;
}

/* Some records, most of them right but for one field, and a tail that may be anything. */
static void forge(forger *f, uint32_t epoch)
{
    uint64_t at = 0;
    uint32_t count = 1 + pls_rng_below(&f->rng, 4);
    for (uint32_t i = 0; i < count; i++) {
        pls_record record = {.len = pls_rng_below(&f->rng, 300), .type = LETTER_TYPE, .seq = i};
        uint32_t room = (PLS_RECORD_BYTES + record.len + 15) & ~15u;
        switch (pls_rng_below(&f->rng, 8)) {
        case 0:
            record.len += 1 + pls_rng_below(&f->rng, STAGE_RING_BYTES);
            break;
        case 1:
            record.len = (uint32_t)pls_rng_next(&f->rng);
            break;
        case 2:
            record.type = PLS_RECORD_PAD;
            break;
        case 3:
            record.flags = (uint16_t)pls_rng_next(&f->rng);
            break;
        default:
            break;
        }
        memcpy(f->data + at, &record, sizeof record);
        at += room;
    }
    f->tail = pls_rng_below(&f->rng, 16) == 0 ? pls_rng_next(&f->rng) : at;
    atomic_store(&f->control->capacity_bytes, STAGE_RING_BYTES);
    atomic_store(&f->control->tail, f->tail);
    atomic_store(&f->control->state, PLS_RING_READY | epoch << 8);
}

/* Everything that is read lies within what was published and within the ring. */
static void forgery_read(stage *s, const forger *f, uint32_t *messages, uint32_t *refused)
{
    uint64_t read = 0;
    pls_message message;
    for (;;) {
        pls_err err = pls_inbox_pop(s->inbox, &message);
        if (err == PLS_EEMPTY) {
            return;
        }
        if (err == PLS_ECORRUPT) {
            ck_assert_uint_eq(pls_inbox_corrupt_slot(s->inbox), STAGE_VICTIM);
            (*refused)++;
            continue;
        }
        ck_assert_int_eq(err, PLS_OK);
        if (message.from_slot == STAGE_VICTIM) {
            read += (PLS_RECORD_BYTES + message.len + 15) & ~UINT64_C(15);
            ck_assert_msg(read <= f->tail && read <= STAGE_RING_BYTES,
                          "a forged length was believed: %u", message.len);
            (*messages)++;
        }
        ck_assert(pls_inbox_check(s->inbox));
        pls_inbox_release(s->inbox);
    }
}

START_TEST(test_forged_records_are_refused_and_the_others_go_on)
{
    static stage s;
    static forger f;
    uint32_t messages = 0;
    uint32_t refused = 0;
    const char *given = getenv("STRESS_SEED");
    uint64_t seed = given != NULL ? strtoull(given, NULL, 0) : 1;
    stage_open(&s);
    pls_rng_init(&f.rng, seed);
    for (uint32_t epoch = 1; epoch <= FORGERIES; epoch++) {
        forger_open(&f, &s);
        forge(&f, epoch);
        pls_peer_ring_bell(s.self, STAGE_VICTIM);
        forgery_read(&s, &f, &messages, &refused);
        munmap(f.control, PLS_RING_SPAN_BYTES);
        ck_assert_int_eq(pls_inbox_close_ring(s.inbox, STAGE_VICTIM), PLS_OK);
    }
    printf("forged: seed %llu, %d rings of nonsense, %u refused, %u of their messages taken\n",
           (unsigned long long)seed, FORGERIES, refused, messages);
    ck_assert_uint_gt(refused, FORGERIES / 4);
    ck_assert_uint_gt(messages, FORGERIES / 4);
    stage_close(&s);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("stress.forged");
    TCase *tests = tcase_create("nonsense");
    tcase_set_timeout(tests, TIMEOUT_S);
    tcase_add_test(tests, test_forged_records_are_refused_and_the_others_go_on);
    suite_add_tcase(suite, tests);
    return check_run(suite);
}
