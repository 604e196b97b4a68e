/* SPDX-License-Identifier: Apache-2.0 */
/* The head of a message between gateways: first two bytes are the body's length, the rest is read.
 * What is accepted lies within the bytes, and written again it is the same. */
#include "node/process/gateway_wire.h"

#include "base/assert.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len);

static uint8_t again[64 + UINT8_MAX + PLS_GATE_PAYLOAD_BYTES_MAX];

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
    pls_gate_head head;
    uint16_t body_bytes = 0;
    if (len < sizeof body_bytes) {
        return 0;
    }
    memcpy(&body_bytes, bytes, sizeof body_bytes);
    bytes += sizeof body_bytes;
    len -= sizeof body_bytes;
    if (pls_gate_head_read(bytes, len, body_bytes, &head) != PLS_OK) {
        return 0;
    }
    const uint8_t *end = bytes + len;
    pls_assert((const uint8_t *)head.method + head.method_bytes <= end);
    pls_assert(head.payload == NULL || head.payload + head.payload_bytes == end);
    pls_writer w = pls_writer_into(again, sizeof again);
    pls_gate_head_write(&w, &head);
    pls_assert(!w.bad && pls_writer_len(&w) == len && memcmp(again, bytes, len) == 0);
    return 0;
}
