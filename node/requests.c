/* SPDX-License-Identifier: Apache-2.0 */
/* The asynchronous requests: each checks its limits, fills a packet and sends it. Answers come out
 * of pls_attach_poll(), matched by number. */
#include "node/requests.h"

#include "node/attach_link.h"
#include "node/control_data.h"
#include "node/memory_file.h"

#include <string.h>
#include <unistd.h>

static pls_err name_check(const char *name, size_t name_bytes)
{
    if (name_bytes == 0 || memchr(name, 0, name_bytes) != NULL) {
        return PLS_EINVAL;
    }
    return name_bytes > PLS_NAME_BYTES_MAX ? PLS_ETOOBIG : PLS_OK;
}

/* Texts are for people: one that is too long is cut. */
static size_t text_cut(size_t text_bytes)
{
    return text_bytes > PLS_CONTROL_TEXT_BYTES_MAX ? PLS_CONTROL_TEXT_BYTES_MAX : text_bytes;
}

pls_err pls_attach_place(pls_attach *attach, const pls_place_options *options,
                         uint32_t *request_out)
{
    uint8_t data[PLS_CONTROL_INLINE_BYTES_MAX];
    pls_writer w = pls_writer_into(data, sizeof data);
    pls_err err = pls_place_encode(options, &w);
    if (err != PLS_OK) {
        return pls_attach_fail(attach, err, "a worker's environment or CPU list");
    }
    pls_control_packet packet = {.type = PLS_CONTROL_PLACE,
                                 .flags = (uint32_t)options->kind,
                                 .number = options->index,
                                 .data = data,
                                 .data_bytes = pls_writer_len(&w)};
    return pls_attach_request(attach, &packet, request_out);
}

pls_err pls_attach_name_register(pls_attach *attach, const pls_name_entry *entry,
                                 uint32_t *request_out)
{
    pls_err err = name_check(entry->name, entry->name_bytes);
    if (err != PLS_OK) {
        return pls_attach_fail(attach, err, "a name has 1 to 255 bytes and no zero byte");
    }
    if (entry->class_name_bytes > PLS_NAME_BYTES_MAX ||
        entry->metadata_bytes > PLS_METADATA_BYTES_MAX) {
        return pls_attach_fail(attach, PLS_ETOOBIG, "class name or metadata of a name");
    }
    pls_control_packet packet = {.type = PLS_CONTROL_NAME_REGISTER,
                                 .actor = entry->actor,
                                 .flags = entry->flags,
                                 .name = entry->name,
                                 .name_bytes = entry->name_bytes,
                                 .text = entry->class_name,
                                 .text_bytes = entry->class_name_bytes,
                                 .data = entry->metadata,
                                 .data_bytes = entry->metadata_bytes};
    return pls_attach_request(attach, &packet, request_out);
}

pls_err pls_attach_name_unregister(pls_attach *attach, const char *name, size_t name_bytes,
                                   uint64_t actor, uint32_t *request_out)
{
    pls_err err = name_check(name, name_bytes);
    if (err != PLS_OK) {
        return pls_attach_fail(attach, err, "a name has 1 to 255 bytes and no zero byte");
    }
    pls_control_packet packet = {.type = PLS_CONTROL_NAME_UNREGISTER,
                                 .actor = actor,
                                 .name = name,
                                 .name_bytes = name_bytes};
    return pls_attach_request(attach, &packet, request_out);
}

pls_err pls_attach_name_search(pls_attach *attach, const char *name, size_t name_bytes,
                               const pls_find_options *options, uint32_t *request_out)
{
    pls_err err = name_check(name, name_bytes);
    if (err != PLS_OK) {
        return pls_attach_fail(attach, err, "a name has 1 to 255 bytes and no zero byte");
    }
    pls_control_packet packet = {.type = PLS_CONTROL_NAME_FIND,
                                 .flags = options->flags,
                                 .number = options->wait_ms,
                                 .name = name,
                                 .name_bytes = name_bytes};
    return pls_attach_request(attach, &packet, request_out);
}

pls_err pls_attach_name_find(pls_attach *attach, const char *name, size_t name_bytes,
                             uint32_t wait_ms, uint32_t *request_out)
{
    const pls_find_options options = {.flags = PLS_FIND_LOCAL, .wait_ms = wait_ms};
    return pls_attach_name_search(attach, name, name_bytes, &options, request_out);
}

pls_err pls_attach_actor_find(pls_attach *attach, uint64_t actor, uint32_t *request_out)
{
    pls_control_packet packet = {.type = PLS_CONTROL_ACTOR_FIND, .actor = actor};
    return pls_attach_request(attach, &packet, request_out);
}

pls_err pls_attach_cancel(pls_attach *attach, uint32_t request)
{
    pls_control_packet packet = {.type = PLS_CONTROL_CANCEL, .number = request};
    return pls_attach_send(attach, &packet);
}

pls_err pls_attach_names_list(pls_attach *attach, uint32_t *request_out)
{
    pls_control_packet packet = {.type = PLS_CONTROL_NAMES_LIST};
    return pls_attach_request(attach, &packet, request_out);
}

pls_err pls_attach_members_list(pls_attach *attach, bool follow, uint32_t *request_out)
{
    pls_control_packet packet = {.type = PLS_CONTROL_MEMBERS_LIST,
                                 .flags = follow ? PLS_MEMBERS_FOLLOW : 0};
    return pls_attach_request(attach, &packet, request_out);
}

pls_err pls_attach_output_tail(pls_attach *attach, uint32_t slot, uint32_t epoch,
                               uint32_t *request_out)
{
    pls_control_packet packet = {.type = PLS_CONTROL_OUTPUT_TAIL, .slot = slot, .epoch = epoch};
    return pls_attach_request(attach, &packet, request_out);
}

pls_err pls_attach_restart_register(pls_attach *attach, uint64_t actor,
                                    const pls_restart_options *options, uint32_t *request_out)
{
    uint8_t data[PLS_CONTROL_INLINE_BYTES_MAX];
    pls_writer w = pls_writer_into(data, sizeof data);
    if (options->backoff_min_ms > options->backoff_max_ms) {
        return pls_attach_fail(attach, PLS_EINVAL, "the least backoff is above the largest");
    }
    if (options->spec_bytes > PLS_SPEC_BYTES_MAX) {
        return pls_attach_fail(attach, PLS_ETOOBIG, "what an actor is rebuilt from");
    }
    pls_restart_encode(options, &w);
    pls_control_packet packet = {.type = PLS_CONTROL_RESTART_REGISTER, .actor = actor};
    bool large = options->spec_bytes > sizeof data - PLS_RESTART_HEAD_BYTES;
    if (large) {
        pls_err err = pls_memory_file_make("pulsing-spec", options->spec, options->spec_bytes,
                                           &packet.fds[0]);
        if (err != PLS_OK) {
            return pls_attach_fail(attach, err, "what an actor is rebuilt from");
        }
        packet.fd_count = 1;
    } else {
        pls_write_bytes(&w, options->spec, options->spec_bytes);
    }
    packet.data = data;
    packet.data_bytes = pls_writer_len(&w);
    pls_err err = pls_attach_request(attach, &packet, request_out);
    if (large) {
        close(packet.fds[0]);
    }
    return err;
}

pls_err pls_attach_actor_unregister(pls_attach *attach, uint64_t actor, uint32_t *request_out)
{
    pls_control_packet packet = {.type = PLS_CONTROL_ACTOR_UNREGISTER, .actor = actor};
    return pls_attach_request(attach, &packet, request_out);
}

pls_err pls_attach_actor_failed(pls_attach *attach, uint64_t actor, const char *text,
                                size_t text_bytes)
{
    pls_control_packet packet = {.type = PLS_CONTROL_ACTOR_FAILED,
                                 .actor = actor,
                                 .text = text,
                                 .text_bytes = text_cut(text_bytes)};
    return pls_attach_send(attach, &packet);
}

pls_err pls_attach_rebuilt(pls_attach *attach, uint64_t actor, bool ok, const char *text,
                           size_t text_bytes)
{
    pls_control_packet packet = {.type = PLS_CONTROL_REBUILT,
                                 .actor = actor,
                                 .status = ok ? PLS_OK : PLS_EDEAD,
                                 .text = text,
                                 .text_bytes = text_cut(text_bytes)};
    return pls_attach_send(attach, &packet);
}

pls_err pls_attach_worker_recycle(pls_attach *attach)
{
    pls_control_packet packet = {.type = PLS_CONTROL_WORKER_RECYCLE};
    return pls_attach_send(attach, &packet);
}

pls_err pls_attach_worker_stop(pls_attach *attach, uint32_t slot, uint32_t epoch,
                               uint32_t timeout_ms, uint32_t *request_out)
{
    pls_control_packet packet = {
        .type = PLS_CONTROL_WORKER_STOP, .slot = slot, .epoch = epoch, .number = timeout_ms};
    return pls_attach_request(attach, &packet, request_out);
}

pls_err pls_attach_shutdown(pls_attach *attach, uint32_t timeout_ms, uint32_t *request_out)
{
    pls_control_packet packet = {.type = PLS_CONTROL_SHUTDOWN, .number = timeout_ms};
    return pls_attach_request(attach, &packet, request_out);
}
