/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PLS_ZMQ_TRANSPORT_KEY_H
#define PLS_ZMQ_TRANSPORT_KEY_H

#include "base/err.h"

#include <stddef.h>
#include <stdint.h>

/* The cluster key and what follows from it. As text it is 64 hexadecimal digits, with white space
 * around them allowed.
 * Threads: any thread; the same for every function of this header; never blocks unless said. */

#define PLS_ZMQ_KEY_BYTES 32
#define PLS_ZMQ_MAC_BYTES 32

typedef struct pls_zmq_key {
    uint8_t bytes[PLS_ZMQ_KEY_BYTES];
} pls_zmq_key;

/* A Curve25519 pair as CURVE uses it. */
typedef struct pls_zmq_pair {
    uint8_t public_key[PLS_ZMQ_KEY_BYTES];
    uint8_t secret_key[PLS_ZMQ_KEY_BYTES];
} pls_zmq_pair;

/* Errors:  PLS_EINVAL  not 64 hexadecimal digits, or all of them zero. */
PLS_MUST_USE pls_err pls_zmq_key_parse(const char *text, size_t len, pls_zmq_key *key_out);

/* Read the key from a file that nobody but its owner may read.
 * Errors:  PLS_ENOENT  no such file.
 *          PLS_EPERM   group or others have a right to it (chmod 600 it), it belongs to another
 *                      user, or it may not be read.
 *          PLS_EINVAL  no regular file, or not a key.
 *          PLS_ESYS.
 * Threads: may block as long as the disk does. */
PLS_MUST_USE pls_err pls_zmq_key_load(const char *path, pls_zmq_key *key_out);

/* Read the key from an environment variable.
 * Errors:  PLS_ENOENT  it is not set.
 *          PLS_EINVAL  it is not a key. */
PLS_MUST_USE pls_err pls_zmq_key_from_environment(const char *variable, pls_zmq_key *key_out);

/* The pair that every listening socket of this cluster has: whoever knows its public half was told
 * the cluster key. */
void pls_zmq_key_server(const pls_zmq_key *key, pls_zmq_pair *pair_out);

/* A new pair of this process's own.
 * Errors:  PLS_EUNSUPPORTED  the cryptography library does not start. */
PLS_MUST_USE pls_err pls_zmq_key_client(pls_zmq_pair *pair_out);

/* Proof of the cluster key for a greeting: over the client's public key and the greeting's bytes.
 */
void pls_zmq_key_mac(const pls_zmq_key *key, const uint8_t client_key[PLS_ZMQ_KEY_BYTES],
                     const void *bytes, size_t len, uint8_t mac_out[PLS_ZMQ_MAC_BYTES]);

/* Whether two secrets or proofs are equal, in a time that does not tell where they differ. */
int pls_zmq_key_equal(const void *a, const void *b, size_t len);

/* Overwrite a secret so that the compiler does not leave it out. */
void pls_zmq_key_wipe(void *secret, size_t len);

/* Unpredictable bytes. */
void pls_zmq_key_random(void *bytes, size_t len);

#endif
