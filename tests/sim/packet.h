/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PLS_SIM_PACKET_H
#define PLS_SIM_PACKET_H

#include <stddef.h>
#include <stdint.h>

#define PLS_SIM_PACKET_NONE UINT32_MAX

/* One packet on its way. A duplicate is a packet of its own. */
typedef struct pls_sim_packet {
    uint8_t *bytes;
    uint32_t len;
    uint32_t from;
    uint32_t to;
    uint32_t next;
    uint8_t size_class;
} pls_sim_packet;

typedef struct pls_sim_packets pls_sim_packets;

/* An empty pool. Packets and their bytes are cut from slabs and reused, never freed one by one.
 * Running out of memory aborts.
 * Owns:    gives the pool; pls_sim_packets_destroy() ends it.
 * Threads: owner thread; allocates. */
pls_sim_packets *pls_sim_packets_create(void);

/* Frees the pool and all packets; accepts NULL. Threads: owner thread; never blocks. */
void pls_sim_packets_destroy(pls_sim_packets *packets);

/* Takes a packet that holds a copy of `bytes`; returns its index.
 * Units:   `len` in bytes, at most PLS_SIM_PACKET_BYTES_MAX.
 * Threads: owner thread; allocates only when the pool grows. */
uint32_t pls_sim_packet_take(pls_sim_packets *packets, const void *bytes, size_t len);

/* Lends the packet of an index, valid until its release.
 * Threads: owner thread; never blocks. */
pls_sim_packet *pls_sim_packet_at(pls_sim_packets *packets, uint32_t index);

/* Gives a packet back. Threads: owner thread; never blocks. */
void pls_sim_packet_release(pls_sim_packets *packets, uint32_t index);

/* Packets that are taken now. Threads: owner thread; never blocks. */
size_t pls_sim_packets_live(const pls_sim_packets *packets);

/* The largest packet that the simulated network carries: a page of a registry exchange and some
 * room for its header. */
#define PLS_SIM_PACKET_BYTES_MAX (128 * 1024)

#endif
