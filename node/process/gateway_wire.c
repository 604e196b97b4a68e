/* SPDX-License-Identifier: Apache-2.0 */
/* The head of a message between gateways. It comes from the network: every length is checked
 * against what is there before anything else looks at it. */
#include "node/process/gateway_wire.h"

void pls_gate_head_write(pls_writer *w, const pls_gate_head *head)
{
    pls_write_u8(w, PLS_GATE_VERSION);
    pls_write_u8(w, head->kind);
    pls_write_u8(w, head->flags);
    pls_write_u8(w, head->status);
    pls_write_u8(w, head->method_bytes);
    pls_write_u16(w, head->credit);
    pls_write_u32(w, head->payload_bytes);
    pls_write_u64(w, head->id);
    pls_write_u64(w, head->value);
    pls_write_u64(w, head->actor);
    pls_write_i64(w, head->left_ns);
    pls_write_bytes(w, head->method, head->method_bytes);
    if (head->payload != NULL) {
        pls_write_bytes(w, head->payload, head->payload_bytes);
    }
}

/* Whether a payload of that size is where the flags say. */
static bool payload_fits(pls_reader *r, uint64_t body_bytes, pls_gate_head *head)
{
    bool block = (head->flags & PLS_GATE_BLOCK) != 0;
    if ((head->flags & PLS_GATE_PAYLOAD_IN_BLOCK) != 0) {
        return block && body_bytes >= head->payload_bytes && body_bytes > 0;
    }
    if (head->payload_bytes > PLS_GATE_PAYLOAD_BYTES_MAX) {
        return false;
    }
    if (!block) {
        return body_bytes == head->payload_bytes;
    }
    head->payload = pls_read_bytes(r, head->payload_bytes);
    return body_bytes > 0;
}

pls_err pls_gate_head_read(const void *bytes, size_t len, uint64_t body_bytes,
                           pls_gate_head *head_out)
{
    pls_reader r = pls_reader_over(bytes, len);
    pls_gate_head head = {0};
    if (pls_read_u8(&r) != PLS_GATE_VERSION) {
        return PLS_EPROTO;
    }
    head.kind = pls_read_u8(&r);
    head.flags = pls_read_u8(&r);
    head.status = pls_read_u8(&r);
    head.method_bytes = pls_read_u8(&r);
    head.credit = pls_read_u16(&r);
    head.payload_bytes = pls_read_u32(&r);
    head.id = pls_read_u64(&r);
    head.value = pls_read_u64(&r);
    head.actor = pls_read_u64(&r);
    head.left_ns = pls_read_i64(&r);
    head.method = (const char *)pls_read_bytes(&r, head.method_bytes);
    bool known = head.kind >= PLS_GATE_REQUEST && head.kind < PLS_GATE_KINDS_END &&
                 (head.flags & ~PLS_GATE_FLAGS_KNOWN) == 0 && head.left_ns >= 0;
    if (!known || !payload_fits(&r, body_bytes, &head) || r.bad || pls_reader_left(&r) != 0) {
        return PLS_EPROTO;
    }
    *head_out = head;
    return PLS_OK;
}
