/* SPDX-License-Identifier: Apache-2.0 */
/* The codec alone: whatever is read writes the same meaning again, and every body is walked to its
 * end. */
#include "base/assert.h"
#include "gossip/packet.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len);

static uint64_t bytes_sum(const void *bytes, size_t len)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < len; i++) {
        sum += ((const uint8_t *)bytes)[i];
    }
    return sum;
}

static uint64_t body_walk(const pls_message *m)
{
    if (m->body == NULL) {
        return 0;
    }
    uint64_t sum = bytes_sum(m->body, m->body_bytes);
    pls_reader r = pls_reader_over(m->body, m->body_bytes);
    pls_list_entry listed;
    pls_name_item named;
    while (m->kind == PLS_WIRE_LIST && pls_list_entry_next(&r, &listed) == PLS_OK) {
        sum += listed.incarnation;
    }
    while ((m->kind == PLS_WIRE_NAMES || m->kind == PLS_WIRE_SUFFIX) &&
           pls_name_item_next(&r, &named) == PLS_OK) {
        sum += bytes_sum(named.name, named.name_bytes);
    }
    for (uint32_t i = 0; m->kind == PLS_WIRE_WANT && i < m->body_bytes / sizeof(uint64_t); i++) {
        sum += pls_want_key(m->body, i);
    }
    return sum;
}

/* A message that was read is written and read once more: the same fields come back. */
static void message_again(const pls_message *m)
{
    static uint8_t bytes[PLS_PACKET_BYTES_MAX];
    static uint8_t again[PLS_PACKET_BYTES_MAX];
    pls_packet packet;
    pls_message second;
    pls_writer w = pls_writer_into(bytes, sizeof bytes);
    pls_packet_head_write(&w, 1, 2);
    pls_message_write(&w, m);
    if (w.bad) {
        return;
    }
    pls_assert(pls_packet_open(bytes, pls_writer_len(&w), &packet) == PLS_OK);
    pls_assert(pls_packet_next(&packet, &second) == PLS_OK);
    pls_writer v = pls_writer_into(again, sizeof again);
    pls_packet_head_write(&v, 1, 2);
    pls_message_write(&v, &second);
    pls_assert(pls_writer_len(&v) == pls_writer_len(&w));
    pls_assert(memcmp(bytes, again, pls_writer_len(&w)) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
    pls_packet packet;
    pls_message message;
    uint64_t sum = 0;
    if (len > PLS_PACKET_BYTES_MAX || pls_packet_open(bytes, len, &packet) != PLS_OK) {
        return 0;
    }
    for (;;) {
        pls_err err = pls_packet_next(&packet, &message);
        if (err == PLS_EUNSUPPORTED) {
            continue;
        }
        if (err != PLS_OK) {
            break;
        }
        sum += body_walk(&message) + bytes_sum(message.meta, message.meta_bytes);
        message_again(&message);
    }
    return sum == UINT64_MAX ? -1 : 0;
}
