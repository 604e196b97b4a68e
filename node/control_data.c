/* SPDX-License-Identifier: Apache-2.0 */
/* Encoding and decoding of the structured parts of control packets. Each pair of functions stands
 * side by side, so that one page shows both ends. */
#include "node/control_data.h"

#include "base/assert.h"
#include "node/control.h"

#include <string.h>

pls_err pls_place_encode(const pls_place_options *options, pls_writer *w)
{
    size_t env_bytes = 0;
    uint32_t env_count = 0;
    while (options->env != NULL && options->env[env_count] != NULL) {
        env_bytes += strlen(options->env[env_count]) + 1;
        env_count++;
    }
    if (env_count > PLS_PLACE_ENV_MAX || env_bytes > PLS_CONTROL_INLINE_BYTES_MAX ||
        options->cpu_count > PLS_PLACE_CPUS_MAX) {
        return PLS_ETOOBIG;
    }
    pls_write_u32(w, (uint32_t)env_bytes);
    for (uint32_t i = 0; i < env_count; i++) {
        pls_write_bytes(w, options->env[i], strlen(options->env[i]) + 1);
    }
    uint32_t cpu_count = options->cpus == NULL ? 0 : options->cpu_count;
    pls_write_u32(w, cpu_count);
    for (uint32_t i = 0; i < cpu_count; i++) {
        pls_write_u16(w, options->cpus[i]);
    }
    return w->bad ? PLS_ETOOBIG : PLS_OK;
}

pls_err pls_place_decode(pls_reader *r, pls_place_wire *wire_out)
{
    pls_place_wire wire = {0};
    wire.env_bytes = pls_read_u32(r);
    wire.env = pls_read_bytes(r, wire.env_bytes);
    wire.cpu_count = pls_read_u32(r);
    if (r->bad || wire.cpu_count > PLS_PLACE_CPUS_MAX) {
        return PLS_EPROTO;
    }
    wire.cpus = pls_read_bytes(r, wire.cpu_count * sizeof(uint16_t));
    if (r->bad || pls_reader_left(r) != 0 ||
        (wire.env_bytes > 0 && wire.env[wire.env_bytes - 1] != 0)) {
        return PLS_EPROTO;
    }
    *wire_out = wire;
    return PLS_OK;
}

void pls_restart_encode(const pls_restart_options *options, pls_writer *w)
{
    pls_write_u32(w, (uint32_t)options->policy);
    pls_write_u32(w, options->restarts_max);
    pls_write_u32(w, options->backoff_min_ms);
    pls_write_u32(w, options->backoff_max_ms);
    pls_write_u32(w, (uint32_t)options->place);
    pls_write_u32(w, options->index);
    pls_assert(!w->bad);
}

pls_err pls_restart_decode(pls_reader *r, pls_restart_options *options_out)
{
    uint32_t policy = pls_read_u32(r);
    pls_restart_options options = {
        .restarts_max = pls_read_u32(r),
        .backoff_min_ms = pls_read_u32(r),
        .backoff_max_ms = pls_read_u32(r),
    };
    uint32_t place = pls_read_u32(r);
    options.index = pls_read_u32(r);
    if (r->bad || policy > PLS_RESTART_ALWAYS || place > PLS_PLACE_DEDICATED ||
        options.backoff_min_ms > options.backoff_max_ms) {
        return PLS_EPROTO;
    }
    options.policy = (pls_restart_policy)policy;
    options.place = (pls_place_kind)place;
    *options_out = options;
    return PLS_OK;
}

size_t pls_name_entry_bytes(const pls_name_entry *entry)
{
    return sizeof(uint64_t) + 3 * sizeof(uint32_t) + 2 * sizeof(uint16_t) + sizeof(uint32_t) +
           entry->name_bytes + entry->class_name_bytes + entry->metadata_bytes;
}

void pls_name_entry_encode(const pls_name_entry *entry, pls_writer *w)
{
    pls_write_u64(w, entry->actor);
    pls_write_u32(w, entry->slot);
    pls_write_u32(w, entry->epoch);
    pls_write_u32(w, entry->flags);
    pls_write_u16(w, (uint16_t)entry->name_bytes);
    pls_write_u16(w, (uint16_t)entry->class_name_bytes);
    pls_write_u32(w, (uint32_t)entry->metadata_bytes);
    pls_write_bytes(w, entry->name, entry->name_bytes);
    pls_write_bytes(w, entry->class_name, entry->class_name_bytes);
    pls_write_bytes(w, entry->metadata, entry->metadata_bytes);
}

pls_err pls_name_entry_next(const uint8_t **data, size_t *data_bytes, pls_name_entry *entry_out)
{
    pls_reader r = pls_reader_over(*data, *data_bytes);
    pls_name_entry entry = {0};
    if (*data_bytes == 0) {
        return PLS_EEMPTY;
    }
    entry.actor = pls_read_u64(&r);
    entry.slot = pls_read_u32(&r);
    entry.epoch = pls_read_u32(&r);
    entry.flags = pls_read_u32(&r);
    entry.name_bytes = pls_read_u16(&r);
    entry.class_name_bytes = pls_read_u16(&r);
    entry.metadata_bytes = pls_read_u32(&r);
    entry.name = (const char *)pls_read_bytes(&r, entry.name_bytes);
    entry.class_name = (const char *)pls_read_bytes(&r, entry.class_name_bytes);
    entry.metadata = pls_read_bytes(&r, entry.metadata_bytes);
    if (r.bad) {
        return PLS_EPROTO;
    }
    *data = r.at;
    *data_bytes = pls_reader_left(&r);
    *entry_out = entry;
    return PLS_OK;
}

void pls_node_entry_encode(const pls_node_entry *entry, pls_writer *w)
{
    pls_write_u8(w, (uint8_t)entry->status);
    pls_write_bytes(w, entry->node_id, sizeof entry->node_id);
    pls_write_u64(w, entry->generation);
    pls_write_u16(w, (uint16_t)entry->name_bytes);
    pls_write_u16(w, (uint16_t)entry->address_bytes);
    pls_write_bytes(w, entry->name, entry->name_bytes);
    pls_write_bytes(w, entry->address, entry->address_bytes);
    pls_assert(!w->bad);
}

pls_err pls_node_entry_next(const uint8_t **data, size_t *data_bytes, pls_node_entry *entry_out)
{
    pls_reader r = pls_reader_over(*data, *data_bytes);
    pls_node_entry entry = {0};
    if (*data_bytes == 0) {
        return PLS_EEMPTY;
    }
    uint8_t status = pls_read_u8(&r);
    const uint8_t *node_id = pls_read_bytes(&r, sizeof entry.node_id);
    entry.generation = pls_read_u64(&r);
    entry.name_bytes = pls_read_u16(&r);
    entry.address_bytes = pls_read_u16(&r);
    entry.name = (const char *)pls_read_bytes(&r, entry.name_bytes);
    entry.address = (const char *)pls_read_bytes(&r, entry.address_bytes);
    if (r.bad || status < PLS_NODE_ALIVE || status > PLS_NODE_LEFT) {
        return PLS_EPROTO;
    }
    entry.status = (pls_node_status)status;
    memcpy(entry.node_id, node_id, sizeof entry.node_id);
    *data = r.at;
    *data_bytes = pls_reader_left(&r);
    *entry_out = entry;
    return PLS_OK;
}

void pls_welcome_encode(const pls_welcome_data *welcome, pls_writer *w)
{
    pls_write_u32(w, welcome->attached_count);
    pls_write_u32(w, welcome->worker_index);
    pls_write_u32(w, welcome->workers_max);
    pls_write_u64(w, welcome->memory_budget_bytes);
    pls_assert(!w->bad);
}

pls_err pls_welcome_decode(pls_reader *r, pls_welcome_data *welcome_out)
{
    pls_welcome_data welcome = {
        .attached_count = pls_read_u32(r),
        .worker_index = pls_read_u32(r),
        .workers_max = pls_read_u32(r),
        .memory_budget_bytes = pls_read_u64(r),
    };
    if (r->bad || pls_reader_left(r) != 0) {
        return PLS_EPROTO;
    }
    *welcome_out = welcome;
    return PLS_OK;
}
