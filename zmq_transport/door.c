/* SPDX-License-Identifier: Apache-2.0 */
/* ZeroMQ has no call that ends one connection of a ROUTER. So the door keeps a duplicate of every
 * accepted descriptor: shutting that down ends exactly this connection, whatever ZeroMQ's thread
 * has closed and opened under the same number meanwhile. The duplicate is closed as soon as the
 * monitor tells that the connection has gone.
 * Invariant: at most one guest per descriptor number, since the monitor tells GONE before the
 * number is ACCEPTED again. */
#include "zmq_transport/door.h"

#include "base/assert.h"
#include "zmq_transport/address.h"
#include "zmq_transport/inlet.h"
#include "zmq_transport/report.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#define FROM_CAPACITY 80
/* Guests that have not greeted: more than a cluster that starts at once, less than a flood. */
#define SILENT_MAX 256
#define EVENTS_MAX 512 /* a round */

struct pls_guest {
    int fd;          /* the number that ZeroMQ's descriptor has */
    int duplicate;   /* -1: shown out */
    uint64_t due_ns; /* to greet; UINT64_MAX: has greeted */
    bool refused;    /* or shown out, and counted for it */
    struct pls_inlet *inlet;
    char from[FROM_CAPACITY];
};

struct pls_door {
    uint32_t guests_max;
    uint32_t count;
    pls_zmq_away failing; /* why the connection fails that the next GONE is about */
    bool fails;
    pls_guest *guests[]; /* guests_max */
};

pls_err pls_door_create(uint32_t guests_max, pls_door **door_out)
{
    pls_door *door = calloc(1, sizeof *door + guests_max * sizeof(void *));
    if (door == NULL) {
        return PLS_ENOMEM;
    }
    door->guests_max = guests_max;
    *door_out = door;
    return PLS_OK;
}

static void guest_free(pls_guest *guest)
{
    if (guest->duplicate >= 0) {
        close(guest->duplicate);
    }
    free(guest);
}

void pls_door_destroy(pls_door *door)
{
    if (door == NULL) {
        return;
    }
    for (uint32_t i = 0; i < door->count; i++) {
        guest_free(door->guests[i]);
    }
    free(door);
}

pls_guest *pls_door_find(pls_door *door, int fd)
{
    for (uint32_t i = 0; i < door->count; i++) {
        if (door->guests[i]->fd == fd) {
            return door->guests[i];
        }
    }
    return NULL;
}

void pls_guest_serve(pls_guest *guest, struct pls_inlet *inlet, uint64_t now_ns)
{
    guest->inlet = inlet;
    guest->due_ns = inlet != NULL ? UINT64_MAX : now_ns;
}

void pls_guest_refused(pls_guest *guest)
{
    guest->refused = true;
}

bool pls_guest_is_out(const pls_guest *guest)
{
    return guest->duplicate < 0;
}

void pls_guest_kick(pls_guest *guest)
{
    if (guest != NULL && guest->duplicate >= 0) {
        guest->refused = true;
        shutdown(guest->duplicate, SHUT_RDWR);
        close(guest->duplicate);
        guest->duplicate = -1;
    }
}

const char *pls_guest_from(const pls_guest *guest)
{
    return guest == NULL ? "?" : guest->from;
}

uint32_t pls_door_count(const pls_door *door)
{
    return door->count;
}

static void guest_gone(pls_zmq *zmq, int fd)
{
    pls_door *door = zmq->door;
    for (uint32_t i = 0; i < door->count; i++) {
        pls_guest *guest = door->guests[i];
        if (guest->fd != fd) {
            continue;
        }
        if (door->fails) {
            pls_report_away(zmq, door->failing, guest->from);
        } else if (guest->due_ns != UINT64_MAX && !guest->refused) {
            /* Also who speaks an old protocol of ZeroMQ's, which has no handshake to fail. */
            pls_report_away(zmq, PLS_ZMQ_away_silent, guest->from);
        }
        door->guests[i] = door->guests[--door->count];
        if (guest->inlet != NULL) {
            pls_inlet_broken(zmq, guest->inlet);
        }
        guest_free(guest);
        return;
    }
    if (door->fails) {
        pls_report_away(zmq, door->failing, "?");
    }
}

/* The guest that has waited longest for its turn to greet. */
static pls_guest *silent_oldest(pls_door *door, uint32_t *count_out)
{
    pls_guest *oldest = NULL;
    *count_out = 0;
    for (uint32_t i = 0; i < door->count; i++) {
        pls_guest *guest = door->guests[i];
        if (guest->due_ns == UINT64_MAX || guest->duplicate < 0) {
            continue;
        }
        ++*count_out;
        if (oldest == NULL || guest->due_ns < oldest->due_ns) {
            oldest = guest;
        }
    }
    return oldest;
}

static size_t ports_of(const pls_zmq *zmq, in_port_t ports[PLS_ZMQ_KEYS_MAX])
{
    size_t count = 0;
    for (unsigned i = 0; i < PLS_ZMQ_KEYS_MAX; i++) {
        const char *endpoint = zmq->entrances[i].endpoint;
        pls_zmq_place place;
        if (endpoint[0] != 0 && pls_zmq_place_parse(endpoint, strlen(endpoint), &place) == PLS_OK) {
            ports[count++] = place.port;
        }
    }
    return count;
}

/* A duplicate of ZeroMQ's descriptor; -1 if it has gone already and the number may be anybody's. */
static int duplicate_of(pls_zmq *zmq, int fd)
{
    in_port_t ports[PLS_ZMQ_KEYS_MAX];
    int duplicate = fcntl(fd, F_DUPFD_CLOEXEC, 0);
    if (duplicate >= 0 && !pls_zmq_place_is_ours(duplicate, ports, ports_of(zmq, ports))) {
        close(duplicate);
        return -1;
    }
    if (duplicate < 0 && errno != EBADF) {
        pls_report_away(zmq, PLS_ZMQ_away_exhausted, "?");
    }
    return duplicate;
}

static void guest_accept(pls_zmq *zmq, int fd)
{
    pls_door *door = zmq->door;
    int duplicate = duplicate_of(zmq, fd);
    pls_guest *guest = door->count < door->guests_max ? calloc(1, sizeof *guest) : NULL;
    zmq->counters.accepted++;
    if (guest == NULL) {
        pls_report_away(zmq, PLS_ZMQ_away_busy, "?");
        if (duplicate >= 0) {
            shutdown(duplicate, SHUT_RDWR);
            close(duplicate);
        }
        return;
    }
    guest->fd = fd;
    guest->duplicate = duplicate;
    guest->due_ns = pls_zmq_after_ms(zmq, zmq->settings.handshake_ms);
    pls_zmq_due(zmq, guest->due_ns);
    pls_zmq_place_peer(duplicate, guest->from, sizeof guest->from);
    door->guests[door->count++] = guest;
    uint32_t silent_count = 0;
    pls_guest *oldest = silent_oldest(door, &silent_count);
    if (silent_count > SILENT_MAX) {
        pls_report_away(zmq, PLS_ZMQ_away_busy, oldest->from);
        pls_guest_kick(oldest);
    }
}

void pls_door_serve(pls_zmq *zmq)
{
    pls_door *door = zmq->door;
    pls_zmq_event event;
    unsigned count = 0;
    while (count < EVENTS_MAX && pls_zmq_monitor_next(zmq->monitor, &event) == PLS_OK) {
        count++;
        switch (event.kind) {
        case PLS_ZMQ_EVENT_ACCEPTED:
            guest_accept(zmq, event.fd);
            break;
        case PLS_ZMQ_EVENT_GARBLED:
            door->fails = true;
            door->failing = PLS_ZMQ_away_garbled;
            break;
        case PLS_ZMQ_EVENT_FORGED:
            door->fails = true;
            door->failing = PLS_ZMQ_away_forged;
            break;
        case PLS_ZMQ_EVENT_GONE:
            guest_gone(zmq, event.fd);
            door->fails = false;
            break;
        case PLS_ZMQ_EVENT_EXHAUSTED:
            pls_report_away(zmq, PLS_ZMQ_away_exhausted, "?");
            break;
        default:
            break;
        }
    }
    if (count == EVENTS_MAX) {
        pls_zmq_reactor_note(zmq->reactor, &zmq->monitor->source);
    }
}

void pls_door_tick(pls_zmq *zmq)
{
    pls_door *door = zmq->door;
    for (uint32_t i = 0; i < door->count; i++) {
        pls_guest *guest = door->guests[i];
        if (guest->due_ns == UINT64_MAX || guest->duplicate < 0) {
            continue;
        }
        if (zmq->now_ns >= guest->due_ns) {
            if (!guest->refused) {
                pls_report_away(zmq, PLS_ZMQ_away_silent, guest->from);
            }
            pls_guest_kick(guest);
        } else {
            pls_zmq_due(zmq, guest->due_ns);
        }
    }
}
