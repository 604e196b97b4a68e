/* SPDX-License-Identifier: Apache-2.0 */
/* One 32-byte secret makes a cluster. Two keys are derived from it by keyed BLAKE2b under two
 * labels, so that neither tells anything of the other: the secret half of the listening pair, and
 * the key of the greeting's proof. Called when a node starts and once per greeting. */
#include "zmq_transport/key.h"

#include "base/assert.h"

#include <errno.h>
#include <fcntl.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define KEY_TEXT_BYTES_MAX 256 /* 64 digits and what an editor adds */

_Static_assert(PLS_ZMQ_KEY_BYTES == crypto_scalarmult_BYTES, "CURVE keys are Curve25519 keys");
_Static_assert(PLS_ZMQ_KEY_BYTES == crypto_generichash_KEYBYTES, "the key of keyed BLAKE2b");

static int digit_of(char c)
{
    if (c >= '0' && c <= '9') {
        return c - '0';
    }
    if (c >= 'a' && c <= 'f') {
        return c - 'a' + 10;
    }
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

static int is_space(char c)
{
    return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

pls_err pls_zmq_key_parse(const char *text, size_t len, pls_zmq_key *key_out)
{
    pls_zmq_key key;
    while (len > 0 && is_space(text[len - 1])) {
        len--;
    }
    while (len > 0 && is_space(text[0])) {
        text++;
        len--;
    }
    if (len != sizeof key.bytes * 2) {
        return PLS_EINVAL;
    }
    for (size_t i = 0; i < sizeof key.bytes; i++) {
        int high = digit_of(text[2 * i]);
        int low = digit_of(text[2 * i + 1]);
        if (high < 0 || low < 0) {
            return PLS_EINVAL;
        }
        key.bytes[i] = (uint8_t)(high << 4 | low);
    }
    if (sodium_is_zero(key.bytes, sizeof key.bytes)) {
        return PLS_EINVAL;
    }
    *key_out = key;
    pls_zmq_key_wipe(&key, sizeof key);
    return PLS_OK;
}

static pls_err file_check(int fd)
{
    struct stat status;
    if (fstat(fd, &status) != 0) {
        return pls_err_from_errno(errno);
    }
    if (!S_ISREG(status.st_mode)) {
        return PLS_EINVAL;
    }
    /* Root's file is accepted: secrets that an orchestrator mounts belong to root. */
    if ((status.st_mode & (S_IRWXG | S_IRWXO)) != 0 ||
        (status.st_uid != geteuid() && status.st_uid != 0)) {
        return PLS_EPERM;
    }
    return PLS_OK;
}

pls_err pls_zmq_key_load(const char *path, pls_zmq_key *key_out)
{
    char text[KEY_TEXT_BYTES_MAX];
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) {
        return errno == ENOENT || errno == ENOTDIR ? PLS_ENOENT : pls_err_from_errno(errno);
    }
    pls_err err = file_check(fd);
    if (err == PLS_OK) {
        ssize_t len = read(fd, text, sizeof text);
        err = len < 0 ? pls_err_from_errno(errno) : pls_zmq_key_parse(text, (size_t)len, key_out);
        pls_zmq_key_wipe(text, sizeof text);
    }
    close(fd);
    return err;
}

pls_err pls_zmq_key_from_environment(const char *variable, pls_zmq_key *key_out)
{
    const char *text = getenv(variable);
    return text == NULL ? PLS_ENOENT : pls_zmq_key_parse(text, strlen(text), key_out);
}

static void derive(const pls_zmq_key *key, const char *label, uint8_t out[PLS_ZMQ_KEY_BYTES])
{
    int rc = crypto_generichash(out, PLS_ZMQ_KEY_BYTES, (const uint8_t *)label, strlen(label),
                                key->bytes, sizeof key->bytes);
    pls_assert(rc == 0);
}

void pls_zmq_key_server(const pls_zmq_key *key, pls_zmq_pair *pair_out)
{
    derive(key, "pulsing cluster server 1", pair_out->secret_key);
    int rc = crypto_scalarmult_base(pair_out->public_key, pair_out->secret_key);
    pls_assert(rc == 0);
}

pls_err pls_zmq_key_client(pls_zmq_pair *pair_out)
{
    if (sodium_init() < 0 || crypto_box_keypair(pair_out->public_key, pair_out->secret_key) != 0) {
        return PLS_EUNSUPPORTED;
    }
    return PLS_OK;
}

void pls_zmq_key_mac(const pls_zmq_key *key, const uint8_t client_key[PLS_ZMQ_KEY_BYTES],
                     const void *bytes, size_t len, uint8_t mac_out[PLS_ZMQ_MAC_BYTES])
{
    uint8_t mac_key[PLS_ZMQ_KEY_BYTES];
    crypto_generichash_state state;
    derive(key, "pulsing cluster greeting 1", mac_key);
    crypto_generichash_init(&state, mac_key, sizeof mac_key, PLS_ZMQ_MAC_BYTES);
    crypto_generichash_update(&state, client_key, PLS_ZMQ_KEY_BYTES);
    crypto_generichash_update(&state, bytes, len);
    crypto_generichash_final(&state, mac_out, PLS_ZMQ_MAC_BYTES);
    pls_zmq_key_wipe(mac_key, sizeof mac_key);
}

int pls_zmq_key_equal(const void *a, const void *b, size_t len)
{
    return sodium_memcmp(a, b, len) == 0;
}

void pls_zmq_key_wipe(void *secret, size_t len)
{
    sodium_memzero(secret, len);
}

void pls_zmq_key_random(void *bytes, size_t len)
{
    randombytes_buf(bytes, len);
}
