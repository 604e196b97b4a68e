/* SPDX-License-Identifier: Apache-2.0 */
/* The head of a message between gateways: first two bytes are the body's length, the rest is read.
 */
#include "node/process/gateway_wire.h"

#include "base/assert.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len);

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
    pls_gate_head head;
    uint16_t body_bytes = 0;
    if (len < sizeof body_bytes) {
        return 0;
    }
    memcpy(&body_bytes, bytes, sizeof body_bytes);
    const uint8_t *end = bytes + len;
    if (pls_gate_head_read(bytes + 2, len - 2, body_bytes, &head) == PLS_OK) {
        pls_assert((const uint8_t *)head.method + head.method_bytes <= end);
        pls_assert(head.payload == NULL || head.payload + head.payload_bytes <= end);
    }
    return 0;
}
