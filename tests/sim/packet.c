/* SPDX-License-Identifier: Apache-2.0 */
/* The pool of packets on their way: headers live in chunks that never move, bytes in slabs of four
 * sizes, and freed packets wait in one list per size. The world takes one packet per send and
 * releases it after the delivery, so that a long run allocates only while it still grows. */
#include "tests/sim/packet.h"

#include "base/assert.h"

#include <stdlib.h>
#include <string.h>

enum { CHUNK_PACKETS = 1024, CLASS_COUNT = 4 };

static const uint32_t class_bytes[CLASS_COUNT] = {128, 1536, 16384, PLS_SIM_PACKET_BYTES_MAX};
static const uint32_t class_slab_count[CLASS_COUNT] = {256, 64, 4, 1};

struct pls_sim_packets {
    pls_sim_packet **chunks;
    size_t chunk_count;
    uint32_t packet_count;
    size_t live_count;
    uint32_t free_head[CLASS_COUNT];
};

pls_sim_packets *pls_sim_packets_create(void)
{
    pls_sim_packets *packets = calloc(1, sizeof *packets);
    pls_assert(packets != NULL);
    for (int i = 0; i < CLASS_COUNT; i++) {
        packets->free_head[i] = PLS_SIM_PACKET_NONE;
    }
    return packets;
}

void pls_sim_packets_destroy(pls_sim_packets *packets)
{
    if (packets == NULL) {
        return;
    }
    uint32_t index = 0;
    while (index < packets->packet_count) {
        pls_sim_packet *first = pls_sim_packet_at(packets, index);
        uint32_t slab_count = class_slab_count[first->size_class];
        free(first->bytes);
        index += slab_count;
    }
    for (size_t i = 0; i < packets->chunk_count; i++) {
        free(packets->chunks[i]);
    }
    free(packets->chunks);
    free(packets);
}

static uint32_t header_add(pls_sim_packets *packets)
{
    if (packets->packet_count == packets->chunk_count * CHUNK_PACKETS) {
        size_t bytes = (packets->chunk_count + 1) * sizeof(void *);
        pls_sim_packet **chunks = realloc(packets->chunks, bytes);
        pls_assert(chunks != NULL);
        packets->chunks = chunks;
        chunks[packets->chunk_count] = calloc(CHUNK_PACKETS, sizeof **chunks);
        pls_assert(chunks[packets->chunk_count] != NULL);
        packets->chunk_count++;
    }
    return packets->packet_count++;
}

/* The first packet of a slab owns the slab's memory; the others of it follow by index. */
static void slab_add(pls_sim_packets *packets, uint8_t size_class)
{
    uint32_t slab_count = class_slab_count[size_class];
    uint8_t *bytes = malloc((size_t)slab_count * class_bytes[size_class]);
    pls_assert(bytes != NULL);
    for (uint32_t i = 0; i < slab_count; i++) {
        uint32_t index = header_add(packets);
        pls_sim_packet *packet = pls_sim_packet_at(packets, index);
        packet->bytes = bytes + (size_t)i * class_bytes[size_class];
        packet->size_class = size_class;
        packet->next = packets->free_head[size_class];
        packets->free_head[size_class] = index;
    }
}

uint32_t pls_sim_packet_take(pls_sim_packets *packets, const void *bytes, size_t len)
{
    uint8_t size_class = 0;
    while (size_class < CLASS_COUNT && class_bytes[size_class] < len) {
        size_class++;
    }
    pls_assert(size_class < CLASS_COUNT);
    if (packets->free_head[size_class] == PLS_SIM_PACKET_NONE) {
        slab_add(packets, size_class);
    }
    uint32_t index = packets->free_head[size_class];
    pls_sim_packet *packet = pls_sim_packet_at(packets, index);
    packets->free_head[size_class] = packet->next;
    packet->next = PLS_SIM_PACKET_NONE;
    packet->len = (uint32_t)len;
    memcpy(packet->bytes, bytes, len);
    packets->live_count++;
    return index;
}

pls_sim_packet *pls_sim_packet_at(pls_sim_packets *packets, uint32_t index)
{
    pls_assert(index < packets->packet_count);
    return &packets->chunks[index / CHUNK_PACKETS][index % CHUNK_PACKETS];
}

void pls_sim_packet_release(pls_sim_packets *packets, uint32_t index)
{
    pls_sim_packet *packet = pls_sim_packet_at(packets, index);
    pls_assert(packets->live_count > 0);
    packet->next = packets->free_head[packet->size_class];
    packets->free_head[packet->size_class] = index;
    packets->live_count--;
}

size_t pls_sim_packets_live(const pls_sim_packets *packets)
{
    return packets->live_count;
}
