/* SPDX-License-Identifier: Apache-2.0 */
/* Whatever a client may write into its control socket: the packet itself, and what stands in the
 * data of the packets that carry more than numbers. The first byte chooses the end that reads. */
#include "node/control.h"
#include "node/control_data.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len);

/* Reads every byte that a string claims, so that the sanitizer sees one that lies. */
static uint64_t bytes_sum(const void *bytes, size_t len)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < len; i++) {
        sum += ((const uint8_t *)bytes)[i];
    }
    return sum;
}

static uint64_t data_read(const pls_control_packet *packet)
{
    pls_reader r = pls_reader_over(packet->data, packet->data_bytes);
    pls_place_wire wire;
    pls_restart_options options;
    pls_welcome_data welcome;
    uint64_t sum = 0;
    if (pls_place_decode(&r, &wire) == PLS_OK) {
        sum += bytes_sum(wire.env, wire.env_bytes) +
               bytes_sum(wire.cpus, wire.cpu_count * sizeof(uint16_t));
    }
    r = pls_reader_over(packet->data, packet->data_bytes);
    if (pls_restart_decode(&r, &options) == PLS_OK) {
        sum += bytes_sum(r.at, pls_reader_left(&r)) + options.index;
    }
    r = pls_reader_over(packet->data, packet->data_bytes);
    if (pls_welcome_decode(&r, &welcome) == PLS_OK) {
        sum += welcome.workers_max;
    }
    const uint8_t *data = packet->data;
    size_t data_bytes = packet->data_bytes;
    pls_name_entry entry;
    while (pls_name_entry_next(&data, &data_bytes, &entry) == PLS_OK) {
        sum += bytes_sum(entry.name, entry.name_bytes) +
               bytes_sum(entry.class_name, entry.class_name_bytes) +
               bytes_sum(entry.metadata, entry.metadata_bytes);
    }
    return sum;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
    pls_control_packet packet;
    if (len == 0) {
        return 0;
    }
    pls_control_end end = (bytes[0] & 1) != 0 ? PLS_CONTROL_AT_CLIENT : PLS_CONTROL_AT_NODE;
    uint32_t fd_count = bytes[0] >> 1 & 7;
    if (pls_control_decode(bytes + 1, len - 1, end, fd_count, &packet) != PLS_OK) {
        return 0;
    }
    uint64_t sum = bytes_sum(packet.name, packet.name_bytes) +
                   bytes_sum(packet.text, packet.text_bytes) +
                   bytes_sum(packet.data, packet.data_bytes) + data_read(&packet);
    __asm__ volatile("" : : "r"(sum)); /* every byte is really read */
    /* What was accepted can be written again, byte for byte. */
    uint8_t *again = malloc(PLS_CONTROL_PACKET_BYTES_MAX);
    if (again != NULL && pls_control_encode(&packet, again) != len - 1) {
        abort();
    }
    free(again);
    return 0;
}
