/* SPDX-License-Identifier: Apache-2.0 */
/* A whole instance hears packets of a stranger and of a member it knows, with time passing between
 * them; after each its whole invariant holds. The input is a run of records: one byte of time, two
 * of length, then a packet. So that random bytes get past the head, a packet whose first byte is 0
 * gets a good head, with the sender that its second byte chooses. */
#include "base/assert.h"
#include "gossip/gossip.h"
#include "gossip/names.h"
#include "gossip/packet.h"

#include <stdlib.h>

#define SECOND UINT64_C(1000000000)
#define MEMBERS 3
#define RECORDS_MAX 64

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len);

static pls_identity identity_of(uint32_t number)
{
    static const char *const names[] = {"me", "one", "two"};
    static const char *const addresses[] = {"a0", "a1", "a2"};
    pls_identity identity = {.generation = 7, .name = names[number], .address = addresses[number]};
    identity.name_bytes = (uint32_t)strlen(identity.name);
    identity.address_bytes = 2;
    identity.key = pls_identity_key(&identity);
    return identity;
}

static void drain(pls_gossip *gossip)
{
    pls_action action;
    pls_gossip_check(gossip);
    while (pls_gossip_next_action(gossip, &action) == PLS_OK) {
        pls_assert(action.len <= PLS_PACKET_BYTES_MAX);
    }
}

static pls_gossip *instance(void)
{
    pls_gossip *gossip = NULL;
    pls_gossip_config config;
    pls_gossip_config_defaults(&config);
    config.cluster = "fuzz";
    config.self = identity_of(0);
    config.members_max = 64;
    config.dead_max = 16;
    config.names_max = 128;
    pls_assert(pls_gossip_create(&config, NULL, SECOND, &gossip) == PLS_OK);
    pls_assert(pls_gossip_join(gossip, NULL, 0, SECOND) == PLS_OK);
    for (uint32_t i = 1; i < MEMBERS; i++) {
        pls_identity identity = identity_of(i);
        pls_assert(pls_gossip_learn(gossip, &identity, 3, SECOND) == PLS_OK);
    }
    pls_assert(pls_gossip_name_put(gossip, "mine", 4, 1, true, SECOND) == PLS_OK);
    pls_assert(pls_gossip_name_watch(gossip, "a", 1) == PLS_OK);
    drain(gossip);
    return gossip;
}

/* The cluster's tag as the instance itself writes it. */
static uint32_t tag_of(const char *cluster)
{
    uint32_t hash = 2166136261u;
    for (const char *c = cluster; *c != '\0'; c++) {
        hash = (hash ^ (uint8_t)*c) * 16777619u;
    }
    return hash;
}

static void hear(pls_gossip *gossip, const uint8_t *bytes, uint32_t len, uint64_t now_ns)
{
    static uint8_t packet[PLS_PACKET_BYTES_MAX + 64];
    if (len < 2 || bytes[0] != 0) {
        (void)pls_gossip_receive(gossip, bytes, len, "a9", 2, now_ns);
        return;
    }
    uint64_t sender = bytes[1] % 4 == 0 ? 4711 : identity_of(1 + bytes[1] % 2).key;
    pls_writer w = pls_writer_into(packet, sizeof packet);
    pls_packet_head_write(&w, tag_of("fuzz"), sender);
    pls_write_bytes(&w, bytes + 2, len - 2);
    (void)pls_gossip_receive(gossip, packet, pls_writer_len(&w), "a9", 2, now_ns);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
    pls_reader r = pls_reader_over(bytes, len);
    pls_gossip *gossip = instance();
    uint64_t now_ns = SECOND;
    for (uint32_t i = 0; i < RECORDS_MAX && pls_reader_left(&r) > 3; i++) {
        now_ns += pls_read_u8(&r) * (SECOND / 16);
        uint32_t most = pls_read_u16(&r);
        uint32_t left = (uint32_t)pls_reader_left(&r);
        uint32_t packet_len = most < left ? most : left;
        const uint8_t *packet = pls_read_bytes(&r, packet_len);
        hear(gossip, packet, packet_len, now_ns);
        drain(gossip);
        if (now_ns >= pls_gossip_deadline(gossip)) {
            (void)pls_gossip_advance(gossip, now_ns);
            drain(gossip);
        }
    }
    pls_gossip_destroy(gossip);
    return 0;
}
