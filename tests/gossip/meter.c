/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/gossip/meter.h"

#include <check.h>
#include <stdlib.h>
#include <string.h>

void *meter_resize(void *context, void *memory, size_t old_bytes, size_t new_bytes)
{
    meter *m = context;
    if (new_bytes == 0) {
        m->held_bytes -= old_bytes;
        free(memory);
        return NULL;
    }
    uint64_t call = m->calls++;
    if (call >= m->fail_from && call - m->fail_from < m->fail_count) {
        m->failed++;
        return NULL;
    }
    uint8_t *moved = malloc(new_bytes);
    ck_assert_ptr_nonnull(moved);
    memset(moved, 0xa5, new_bytes);
    if (memory != NULL) {
        memcpy(moved, memory, old_bytes < new_bytes ? old_bytes : new_bytes);
        free(memory);
    }
    m->held_bytes += new_bytes - old_bytes;
    return moved;
}
