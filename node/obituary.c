/* SPDX-License-Identifier: Apache-2.0 */
/* What a dead process leaves: the directory says how it ended, the node has its last output, and
 * its obs memory says what it was doing: the current call of each thread and of each actor. All of
 * that was written by another process, which may have been killed in the middle of it or be
 * hostile: nothing here is followed before it is checked. */
#include "node/pulsing_obituary.h"

#include "node/control.h"
#include "node/runtime_parts.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define OUTPUT_READ_BYTES 16384

typedef struct memory {
    pls_obs_reader reader;
    const uint8_t *strings;
    const uint8_t *methods;
    pls_obs_section_view strings_view;
    pls_obs_section_view methods_view;
} memory;

static uint64_t word(const _Atomic uint64_t *at)
{
    return atomic_load_explicit(at, memory_order_relaxed);
}

static uint64_t used_of(const pls_obs_section_view *view)
{
    return view->used < view->capacity ? view->used : view->capacity;
}

static void method_name(const memory *of, uint64_t index, char *name, size_t capacity)
{
    uint64_t bytes_all = (uint64_t)of->strings_view.stride * of->strings_view.capacity;
    if (of->methods == NULL || of->strings == NULL || index >= used_of(&of->methods_view)) {
        return;
    }
    const pls_obs_method *method = (const void *)(of->methods + index * of->methods_view.stride);
    uint32_t at = atomic_load_explicit(&method->method_name, memory_order_relaxed);
    uint16_t bytes = 0;
    if (at == 0 || at + sizeof bytes > bytes_all) {
        return;
    }
    memcpy(&bytes, of->strings + at, sizeof bytes);
    if (bytes < capacity && at + sizeof bytes + bytes <= bytes_all) {
        snprintf(name, capacity, "%.*s", (int)bytes, (const char *)of->strings + at + sizeof bytes);
    }
}

static pulsing_obituary_run *run_add(pulsing_obituary *obituary, uint64_t actor_id)
{
    if (obituary->run_count == PULSING_OBITUARY_RUNS_MAX) {
        return NULL;
    }
    pulsing_obituary_run *run = &obituary->runs[obituary->run_count++];
    *run = (pulsing_obituary_run){.actor_id = actor_id};
    return run;
}

static void stacks_read(const memory *of, pulsing_obituary *obituary)
{
    pls_obs_section_view view;
    const uint8_t *threads =
        pls_obs_reader_section(&of->reader, PLS_OBS_SECTION_THREADS, sizeof(pls_obs_thread), &view);
    for (uint64_t i = 0; threads != NULL && i < used_of(&view); i++) {
        const pls_obs_thread *thread = (const void *)(threads + i * view.stride);
        uint64_t actor_id = word(&thread->actor);
        pulsing_obituary_run *run = actor_id != 0 ? run_add(obituary, actor_id) : NULL;
        if (run != NULL) {
            run->on_stack = true;
            method_name(of, word(&thread->method), run->method, sizeof run->method);
        }
    }
}

static bool on_stack(const pulsing_obituary *obituary, uint64_t actor_id)
{
    for (uint32_t i = 0; i < obituary->run_count; i++) {
        if (obituary->runs[i].actor_id == actor_id && obituary->runs[i].on_stack) {
            return true;
        }
    }
    return false;
}

static void suspended_read(const memory *of, pulsing_obituary *obituary)
{
    pls_obs_section_view view;
    const uint8_t *actors =
        pls_obs_reader_section(&of->reader, PLS_OBS_SECTION_ACTORS, sizeof(pls_obs_actor), &view);
    for (uint64_t i = 0; actors != NULL && i < used_of(&view); i++) {
        const pls_obs_actor *actor = (const void *)(actors + i * view.stride);
        uint64_t actor_id = word(&actor->id);
        bool runs = actor_id != 0 && word(&actor->current_call) != 0;
        pulsing_obituary_run *run =
            runs && !on_stack(obituary, actor_id) ? run_add(obituary, actor_id) : NULL;
        if (run != NULL) {
            method_name(of, word(&actor->current_method), run->method, sizeof run->method);
        }
    }
}

static void runs_read(pulsing *p, uint32_t slot, uint32_t epoch, pulsing_obituary *obituary)
{
    int fd = -1;
    memory of = {0};
    if (pls_attach_obs_get(p->attach, slot, epoch, &fd) != PLS_OK) {
        return;
    }
    if (pls_obs_reader_attach(fd, &of.reader) == PLS_OK) {
        of.strings =
            pls_obs_reader_section(&of.reader, PLS_OBS_SECTION_STRINGS, 1, &of.strings_view);
        of.methods = pls_obs_reader_section(&of.reader, PLS_OBS_SECTION_METHODS,
                                            sizeof(pls_obs_method), &of.methods_view);
        stacks_read(&of, obituary);
        suspended_read(&of, obituary);
        pls_obs_reader_detach(&of.reader);
    }
    close(fd);
}

static void output_read(pulsing *p, uint32_t slot, uint32_t epoch, pulsing_obituary *obituary)
{
    char text[OUTPUT_READ_BYTES];
    size_t bytes = 0;
    if (pls_attach_output_tail_wait(p->attach, slot, epoch, text, sizeof text, &bytes) != PLS_OK) {
        return;
    }
    const char *from = text;
    while (bytes > sizeof obituary->output) {
        const char *line_end = memchr(from, '\n', bytes);
        size_t line = line_end != NULL ? (size_t)(line_end - from) + 1 : bytes;
        from += line;
        bytes -= line;
    }
    memcpy(obituary->output, from, bytes);
    obituary->output_bytes = (uint32_t)bytes;
}

pls_err pulsing_obituary_get(pulsing *p, uint32_t slot, uint32_t epoch,
                             pulsing_obituary *obituary_out)
{
    pls_err err = pulsing_death_get(p, slot, epoch, &obituary_out->death);
    obituary_out->run_count = 0;
    obituary_out->output_bytes = 0;
    if (err == PLS_OK && obituary_out->death.state == PLS_SLOT_DEAD && p->closed_text == NULL) {
        output_read(p, slot, epoch, obituary_out);
        runs_read(p, slot, epoch, obituary_out);
    }
    return err;
}
