/* SPDX-License-Identifier: Apache-2.0 */
/* Putting a net together: addresses, then the socket that listens, whose port may be chosen only
 * there, then the membership, which needs the whole address. */
#include "node/process/net_parts.h"

#include "base/assert.h"
#include "node/process/node.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <time.h>

#define NS_PER_S 1000000000ull

static pls_err key_read(const pls_node_options *o, pls_zmq_key *key, bool *has_key, char *trouble)
{
    pls_err err = PLS_OK;
    *has_key = o->cluster_key != NULL || o->cluster_key_file != NULL;
    if (o->cluster_key != NULL) {
        err = pls_zmq_key_parse(o->cluster_key, strlen(o->cluster_key), key);
        if (err != PLS_OK) {
            snprintf(trouble, PLS_TROUBLE_BYTES_MAX,
                     "cluster_key: expected 64 hexadecimal digits; `pulsing keygen FILE` makes "
                     "such a key");
        }
    } else if (o->cluster_key_file != NULL) {
        err = pls_zmq_key_load(o->cluster_key_file, key);
        if (err == PLS_EPERM) {
            snprintf(trouble, PLS_TROUBLE_BYTES_MAX,
                     "cluster_key: '%s' must be a file of this user that nobody else may read: "
                     "chmod 600 it",
                     o->cluster_key_file);
        } else if (err != PLS_OK) {
            snprintf(trouble, PLS_TROUBLE_BYTES_MAX,
                     "cluster_key: no key can be read from '%s': %s; `pulsing keygen FILE` makes "
                     "one",
                     o->cluster_key_file, pls_err_text(err));
        }
    }
    return err;
}

/* The name under which the others know this node: the user's, else its address, so that a process
 * that starts again at the same address takes the place of the one before it. */
static void name_write(const pls_net *net, const pls_reach *own, char *name)
{
    const pls_node *node = net->node;
    char endpoint[PLS_ENDPOINT_CAPACITY];
    if (node->settings.options.name != NULL) {
        snprintf(name, PLS_NAME_BYTES_MAX + 1, "%s", node->settings.options.name);
    } else if (own->port != 0 && pls_reach_endpoint(own, endpoint) == PLS_OK) {
        snprintf(name, PLS_NAME_BYTES_MAX + 1, "%s", pls_endpoint_plain(endpoint));
    } else {
        for (size_t i = 0; i < PLS_NODE_ID_BYTES; i++) {
            snprintf(name + 2 * i, 3, "%02x", node->directory->header.node_id[i]);
        }
    }
}

static void listen_trouble(pls_err err, const char *addr, char *trouble)
{
    const char *what = err == PLS_EEXIST   ? "the port is in use; choose another one, or port 0"
                       : err == PLS_ENOENT ? "this host does not have that address"
                                           : pls_err_text(err);
    snprintf(trouble, PLS_TROUBLE_BYTES_MAX, "cannot listen at '%s': %s", addr, what);
}

static uint64_t generation_now(void)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (uint64_t)now.tv_sec * NS_PER_S + (uint64_t)now.tv_nsec;
}

static pls_err transport_open(pls_net *net, const char *name, pls_reach *own, char *trouble)
{
    const pls_node *node = net->node;
    const pls_node_options *o = &node->settings.options;
    pls_zmq_key key;
    pls_reach bound;
    bool has_key;
    pls_err err = key_read(o, &key, &has_key, trouble);
    if (err != PLS_OK) {
        return err;
    }
    net->has_key = has_key;
    pls_zmq_config config = {.cluster = PLS_NET_CLUSTER,
                             .name = name,
                             .bind = net->seeds.places[PLS_SEED_BIND].endpoints[0],
                             .key = has_key ? &key : NULL,
                             .generation = net->generation};
    memcpy(config.node_id, node->directory->header.node_id, sizeof config.node_id);
    err = pls_zmq_create(&config, &pls_net_handlers, net, pls_loop_now_ns(), &net->zmq);
    pls_zmq_key_wipe(&key, sizeof key);
    if (err != PLS_OK) {
        listen_trouble(err, o->addr, trouble);
        return err;
    }
    pls_assert(pls_reach_parse(pls_zmq_endpoint(net->zmq), &bound) == PLS_OK);
    own->port = own->port == 0 ? bound.port : own->port;
    err = pls_reach_endpoint(own, net->endpoint);
    return err == PLS_OK ? pls_zmq_set_advertise(net->zmq, net->endpoint) : err;
}

static pls_err membership_open(pls_net *net, const char *name)
{
    uint8_t meta[PLS_PEER_META_BYTES];
    pls_gossip_config config;
    pls_gossip_config_defaults(&config);
    pls_peer_meta_write(net->node->directory->header.node_id, meta);
    config.cluster = PLS_NET_CLUSTER;
    config.self = (pls_identity){.generation = net->generation,
                                 .name = name,
                                 .address = net->endpoint,
                                 .name_bytes = (uint32_t)strlen(name),
                                 .address_bytes = (uint32_t)strlen(net->endpoint)};
    config.meta = meta;
    config.meta_bytes = sizeof meta;
    if (getrandom(&config.seed, sizeof config.seed, 0) != (ssize_t)sizeof config.seed) {
        return PLS_ESYS;
    }
    return pls_gossip_create(&config, NULL, pls_loop_now_ns(), &net->gossip);
}

/* Connections and their mailboxes take three descriptors each. */
static void descriptors_raise(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < limit.rlim_max) {
        limit.rlim_cur = limit.rlim_max;
        (void)setrlimit(RLIMIT_NOFILE, &limit);
    }
}

static void openness_note(const pls_net *net)
{
    const char *bound = pls_zmq_endpoint(net->zmq);
    if (net->has_key || pls_endpoint_is_loopback(bound)) {
        return;
    }
    pls_output_note(net->node->output,
                    "pulsing: this node listens at %s without a cluster key: whoever reaches that "
                    "port can join and send messages. Give all nodes one key (`pulsing keygen`, "
                    "with_cluster_key), or listen at 127.0.0.1",
                    pls_endpoint_plain(bound));
}

static pls_err net_open(pls_net *net, char *trouble)
{
    char name[PLS_NAME_BYTES_MAX + 1];
    pls_reach own;
    pls_err err = pls_seeds_open(&net->seeds, net, trouble);
    if (err != PLS_OK) {
        return err;
    }
    pls_seeds_own(&net->seeds, &own);
    name_write(net, &own, name);
    err = transport_open(net, name, &own, trouble);
    if (err == PLS_OK) {
        err = membership_open(net, name);
    }
    if (err == PLS_OK) {
        err = pls_loop_watch(net->node->loop, &net->sockets, pls_zmq_fd(net->zmq), EPOLLIN);
    }
    if (err == PLS_OK) {
        err = pls_seeds_join(&net->seeds);
    }
    if (err == PLS_OK) {
        openness_note(net);
        pls_net_stir(net);
    }
    return err;
}

pls_err pls_net_create(pls_node *node, pls_net **net_out, char *trouble)
{
    if (node->settings.options.addr == NULL) {
        *net_out = NULL;
        return PLS_OK;
    }
    pls_net *net = calloc(1, sizeof *net);
    if (net == NULL) {
        return PLS_ENOMEM;
    }
    net->node = node;
    net->generation = generation_now();
    net->sockets = (pls_watch){.fd = -1, .ready = pls_net_ready, .owner = net};
    net->alarm = (pls_alarm){.ring = pls_net_rang, .owner = net};
    descriptors_raise();
    pls_err err = net_open(net, trouble);
    if (err != PLS_OK) {
        pls_net_destroy(net);
        return err;
    }
    pls_directory_header *header = &node->directory->header;
    snprintf(header->address, sizeof header->address, "%s", pls_net_address(net));
    *net_out = net;
    return PLS_OK;
}

void pls_net_destroy(pls_net *net)
{
    if (net == NULL) {
        return;
    }
    pls_loop_alarm_clear(net->node->loop, &net->alarm);
    pls_loop_alarm_clear(net->node->loop, &net->leave_limit);
    (void)pls_loop_unwatch(net->node->loop, &net->sockets);
    pls_seeds_close(&net->seeds);
    pls_zmq_destroy(net->zmq);
    pls_gossip_destroy(net->gossip);
    pls_peers_free(&net->peers);
    /* Its watches may have events later in the batch that the loop serves. */
    pls_loop_free_later(net->node->loop, net);
}
