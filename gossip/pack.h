/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PLS_GOSSIP_PACK_H
#define PLS_GOSSIP_PACK_H

#include "base/bytes.h"

/* Threads: any thread, on memory of its own, for every function of this header; none blocks. */

/* The part of msgpack that the gossip wire uses: unsigned integers, str and bin, each in its
 * shortest form. Readers take any form of the right type and never allocate; a wrong type, like a
 * read past the end, sets `bad`. */

/* Write one object. Units: `len` up to 65,535. */
void pls_pack_uint(pls_writer *w, uint64_t value);
void pls_pack_str(pls_writer *w, const void *bytes, uint32_t len);
void pls_pack_bin(pls_writer *w, const void *bytes, uint32_t len);

/* How many bytes pls_pack_uint writes. */
uint32_t pls_pack_uint_bytes(uint64_t value);

/* A bin whose length is not known yet: open, write the content, close with what open gave.
 * Units:   the content is at most 65,535 bytes. */
uint8_t *pls_pack_open(pls_writer *w);
void pls_pack_close(pls_writer *w, uint8_t *opened);

/* Read an unsigned integer; 0 and `bad` for anything else. */
uint64_t pls_unpack_uint(pls_reader *r);

/* Lends the bytes of a str or bin of at most `len_max`; NULL and `bad` otherwise. */
const void *pls_unpack_str(pls_reader *r, uint32_t len_max, uint32_t *len_out);
const void *pls_unpack_bin(pls_reader *r, uint32_t len_max, uint32_t *len_out);

#endif
