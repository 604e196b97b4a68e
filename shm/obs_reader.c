/* SPDX-License-Identifier: Apache-2.0 */
/* Reading another process's obs memory. The writer may be alive, stopped, dead or hostile: the
 * directory is copied word by word and every section is checked to lie inside the mapping. */
#include "shm/layout.h"
#include "shm/obs.h"
#include "shm/segment.h"

pls_err pls_obs_reader_attach(int fd, pls_obs_reader *reader_out)
{
    uint64_t bytes = 0;
    pls_segment memory = PLS_SEGMENT_EMPTY;
    pls_err err = pls_segment_measure(fd, &bytes);
    if (err != PLS_OK) {
        return err;
    }
    if (bytes < PLS_PAGE_BYTES || bytes % PLS_PAGE_BYTES != 0) {
        return PLS_ECORRUPT;
    }
    err = pls_segment_map(&memory, fd, 0, bytes, PLS_SEGMENT_INHERIT);
    if (err != PLS_OK) {
        return err;
    }
    const pls_obs_page *page = (const void *)memory.base;
    if (page->magic != PLS_OBS_MAGIC) {
        err = PLS_ECORRUPT;
    } else if (page->major != PLS_OBS_MAJOR) {
        err = PLS_EVERSION;
    }
    if (err != PLS_OK) {
        pls_segment_detach(&memory);
        return err;
    }
    *reader_out = (pls_obs_reader){memory.base, memory.bytes};
    return PLS_OK;
}

void pls_obs_reader_detach(pls_obs_reader *reader)
{
    pls_segment memory = {-1, (uint8_t *)(uintptr_t)reader->base, reader->bytes};
    pls_segment_detach(&memory);
    *reader = (pls_obs_reader){NULL, 0};
}

const void *pls_obs_reader_section(const pls_obs_reader *reader, uint32_t id, uint32_t stride_min,
                                   pls_obs_section_view *view_out)
{
    const pls_obs_page *page = (const void *)reader->base;
    for (unsigned i = 0; i < PLS_OBS_SECTIONS_MAX; i++) {
        const volatile pls_obs_directory_entry *entry = &page->directory[i];
        if (entry->id != id) {
            continue;
        }
        pls_obs_section_view view = {
            .stride = entry->stride,
            .capacity = entry->capacity,
            /* Acquire pairs with the release stores of `used`: what it counts can be read. */
            .used = atomic_load_explicit(&page->directory[i].used, memory_order_acquire),
        };
        uint64_t offset = entry->offset;
        uint64_t bytes = (uint64_t)view.stride * view.capacity;
        if (view.stride < stride_min || view.stride == 0 || offset > reader->bytes ||
            bytes > reader->bytes - offset || offset % sizeof(uint64_t) != 0) {
            return NULL;
        }
        *view_out = view;
        return reader->base + offset;
    }
    return NULL;
}
