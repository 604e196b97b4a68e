/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PLS_NODE_CONTROL_DATA_H
#define PLS_NODE_CONTROL_DATA_H

#include "base/bytes.h"
#include "node/requests.h"

/* What stands in the data of control packets: the parts that are more than one number. Every decode
 * checks lengths and ranges; strings are lent from the packet.
 * Threads: the same for every function of this header: any thread; never blocks. */

#define PLS_PLACE_ENV_MAX 256
#define PLS_PLACE_CPUS_MAX 4096

/* What a new worker starts with, as bytes that go on to the template as they are. */
typedef struct pls_place_wire {
    const uint8_t *env; /* entries one after the other, each with a terminating zero */
    size_t env_bytes;
    const uint8_t *cpus; /* u16 each */
    uint32_t cpu_count;
} pls_place_wire;

/* Errors:  PLS_ETOOBIG. */
PLS_MUST_USE pls_err pls_place_encode(const pls_place_options *options, pls_writer *w);

/* Errors:  PLS_EPROTO. Owns: lends from the reader's bytes. */
PLS_MUST_USE pls_err pls_place_decode(pls_reader *r, pls_place_wire *wire_out);

#define PLS_RESTART_HEAD_BYTES 24

/* The options without the spec, which follows in the packet or comes in a memfd. */
void pls_restart_encode(const pls_restart_options *options, pls_writer *w);

/* Errors:  PLS_EPROTO  an unknown policy or place. */
PLS_MUST_USE pls_err pls_restart_decode(pls_reader *r, pls_restart_options *options_out);

/* One entry of a list of names. */
void pls_name_entry_encode(const pls_name_entry *entry, pls_writer *w);

/* Bytes that pls_name_entry_encode() writes. */
size_t pls_name_entry_bytes(const pls_name_entry *entry);

/* One entry of a list of nodes. */
void pls_node_entry_encode(const pls_node_entry *entry, pls_writer *w);

/* What a greeting tells about the node. */
typedef struct pls_welcome_data {
    uint32_t attached_count;
    uint32_t worker_index;
    uint32_t workers_max;
    uint64_t memory_budget_bytes;
} pls_welcome_data;

/* Writes it. */
void pls_welcome_encode(const pls_welcome_data *welcome, pls_writer *w);

/* Errors:  PLS_EPROTO. */
PLS_MUST_USE pls_err pls_welcome_decode(pls_reader *r, pls_welcome_data *welcome_out);

#endif
