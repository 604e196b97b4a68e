/* SPDX-License-Identifier: Apache-2.0 */
/* A sorted array: a process has few segments, they are looked up rarely, and ids mostly grow. */
#include "node/process/segments.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define ROOM_FIRST 16

/* Where `id` is, or where it would be. */
static uint32_t place_of(const pls_segments *segments, uint32_t id)
{
    uint32_t low = 0;
    uint32_t high = segments->count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (segments->entries[middle].id < id) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

pls_err pls_segments_put(pls_segments *segments, uint32_t id, int fd)
{
    uint32_t place = place_of(segments, id);
    if (place < segments->count && segments->entries[place].id == id) {
        close(segments->entries[place].fd);
        segments->entries[place].fd = fd;
        return PLS_OK;
    }
    if (segments->count == PLS_SEGMENTS_MAX) {
        return PLS_EFULL;
    }
    if (segments->count == segments->room) {
        uint32_t room = segments->room == 0 ? ROOM_FIRST : segments->room * 2;
        pls_segment_entry *entries = realloc(segments->entries, room * sizeof *entries);
        if (entries == NULL) {
            return PLS_ENOMEM;
        }
        segments->entries = entries;
        segments->room = room;
    }
    memmove(&segments->entries[place + 1], &segments->entries[place],
            (segments->count - place) * sizeof *segments->entries);
    segments->entries[place] = (pls_segment_entry){id, fd};
    segments->count++;
    return PLS_OK;
}

int pls_segments_get(const pls_segments *segments, uint32_t id)
{
    uint32_t place = place_of(segments, id);
    bool found = place < segments->count && segments->entries[place].id == id;
    return found ? segments->entries[place].fd : -1;
}

void pls_segments_remove(pls_segments *segments, uint32_t id)
{
    uint32_t place = place_of(segments, id);
    if (place >= segments->count || segments->entries[place].id != id) {
        return;
    }
    close(segments->entries[place].fd);
    memmove(&segments->entries[place], &segments->entries[place + 1],
            (segments->count - place - 1) * sizeof *segments->entries);
    segments->count--;
}

void pls_segments_fini(pls_segments *segments)
{
    for (uint32_t i = 0; i < segments->count; i++) {
        close(segments->entries[i].fd);
    }
    free(segments->entries);
    *segments = (pls_segments){0};
}
