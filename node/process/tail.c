/* SPDX-License-Identifier: Apache-2.0 */
/* A ring of lines; the oldest makes room. */
#include "node/process/tail.h"

#include <stdlib.h>
#include <string.h>

void pls_tail_add(pls_tail *tail, const char *line, size_t len)
{
    if (len > PLS_OUTPUT_LINE_BYTES_MAX) {
        len = PLS_OUTPUT_LINE_BYTES_MAX;
    }
    char *copy = malloc(len + 1);
    if (copy == NULL) {
        return;
    }
    memcpy(copy, line, len);
    if (tail->count == PLS_OUTPUT_TAIL_LINES_MAX) {
        free(tail->lines[tail->first]);
        tail->first = (tail->first + 1) % PLS_OUTPUT_TAIL_LINES_MAX;
        tail->count--;
    }
    uint32_t place = (tail->first + tail->count) % PLS_OUTPUT_TAIL_LINES_MAX;
    tail->lines[place] = copy;
    tail->bytes[place] = (uint16_t)len;
    tail->count++;
}

size_t pls_tail_text(const pls_tail *tail, char *text, size_t capacity)
{
    size_t bytes = 0;
    uint32_t skipped = tail->count;
    while (skipped > 0) {
        uint32_t place = (tail->first + skipped - 1) % PLS_OUTPUT_TAIL_LINES_MAX;
        if (bytes + tail->bytes[place] + 1u > capacity) {
            break;
        }
        bytes += tail->bytes[place] + 1u;
        skipped--;
    }
    char *at = text;
    for (uint32_t i = skipped; i < tail->count; i++) {
        uint32_t place = (tail->first + i) % PLS_OUTPUT_TAIL_LINES_MAX;
        memcpy(at, tail->lines[place], tail->bytes[place]);
        at += tail->bytes[place];
        *at++ = '\n';
    }
    return (size_t)(at - text);
}

void pls_tail_fini(pls_tail *tail)
{
    for (uint32_t i = 0; i < tail->count; i++) {
        free(tail->lines[(tail->first + i) % PLS_OUTPUT_TAIL_LINES_MAX]);
    }
    *tail = (pls_tail){0};
}
