/* SPDX-License-Identifier: Apache-2.0 */
/* Whatever a connection may bring: greetings, answers, acknowledgements and records. What is
 * accepted can be written again and is read as the same. */
#include "base/assert.h"
#include "zmq_transport/frame.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len);

static uint8_t again[2 * PLS_FRAME_RECORDS_BYTES_MAX];

static uint64_t bytes_sum(const void *bytes, size_t len)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < len; i++) {
        sum += ((const uint8_t *)bytes)[i];
    }
    return sum;
}

static void greeting_try(const uint8_t *bytes, size_t len)
{
    pls_greeting greeting;
    if (pls_greeting_read(bytes, len, &greeting) != PLS_OK) {
        return;
    }
    uint64_t sum = bytes_sum(greeting.cluster, greeting.cluster_bytes) +
                   bytes_sum(greeting.name, greeting.name_bytes) +
                   bytes_sum(greeting.address, greeting.address_bytes);
    __asm__ volatile("" : : "r"(sum)); /* every byte is really read */
    pls_assert(greeting.proven_bytes == len - PLS_ZMQ_MAC_BYTES);
    pls_writer w = pls_writer_into(again, sizeof again);
    pls_greeting_write(&w, &greeting);
    pls_greeting_prove(&w, greeting.mac);
    /* The versions may differ, the rest may not. */
    pls_assert(pls_writer_len(&w) == len && memcmp(again + 9, bytes + 9, len - 9) == 0);
}

static void answers_try(const uint8_t *bytes, size_t len)
{
    pls_welcome welcome;
    pls_ack ack;
    unsigned reason = 0;
    pls_writer w = pls_writer_into(again, sizeof again);
    if (pls_welcome_read(bytes, len, &welcome) == PLS_OK) {
        pls_welcome_write(&w, &welcome);
        pls_assert(pls_writer_len(&w) == len && memcmp(again, bytes, len) == 0);
    }
    w = pls_writer_into(again, sizeof again);
    if (pls_ack_read(bytes, len, &ack) == PLS_OK) {
        pls_ack_write(&w, &ack);
        pls_assert(pls_writer_len(&w) == len && memcmp(again, bytes, len) == 0);
    }
    if (pls_refuse_read(bytes, len, &reason) == PLS_OK) {
        pls_assert(pls_refuse_text(reason) != NULL);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
    if (len == 0 || len > PLS_FRAME_RECORDS_BYTES_MAX) {
        return 0;
    }
    greeting_try(bytes, len);
    answers_try(bytes, len);
    pls_reader r = pls_reader_over(bytes + 1, len - 1);
    pls_writer w = pls_writer_into(again, sizeof again);
    pls_frame_record record;
    while (pls_frame_record_next(&r, &record) == PLS_OK) {
        uint64_t sum = bytes_sum(record.head, record.head_bytes) +
                       (record.chunk == NULL ? 0 : bytes_sum(record.chunk, record.chunk_bytes));
        __asm__ volatile("" : : "r"(sum));
        pls_frame_record_write(&w, &record);
        size_t written = pls_writer_len(&w);
        pls_assert(!w.bad && memcmp(again, bytes + 1, written) == 0);
    }
    return 0;
}
