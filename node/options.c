/* SPDX-License-Identifier: Apache-2.0 */
/* Encoding of a node's options. Strings are stored with their terminating zero, so that the loaded
 * form can point straight into the bytes. */
#include "node/options.h"

#include "base/bytes.h"
#include "base/limits.h"
#include "node/control.h"
#include "node/memory_file.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>

#define OPTIONS_MAGIC 0x314f5350u /* "PSO1" */
#define NO_STRING UINT32_MAX

static size_t list_count(const char *const *list)
{
    size_t count = 0;
    while (list != NULL && list[count] != NULL) {
        count++;
    }
    return count;
}

static size_t string_bytes(const char *string)
{
    return sizeof(uint32_t) + (string == NULL ? 0 : strlen(string) + 1);
}

static size_t list_bytes(const char *const *list)
{
    size_t bytes = sizeof(uint32_t);
    for (size_t i = 0; i < list_count(list); i++) {
        bytes += string_bytes(list[i]);
    }
    return bytes;
}

static void string_write(pls_writer *w, const char *string)
{
    if (string == NULL) {
        pls_write_u32(w, NO_STRING);
        return;
    }
    size_t len = strlen(string) + 1;
    pls_write_u32(w, (uint32_t)len);
    pls_write_bytes(w, string, len);
}

static void list_write(pls_writer *w, const char *const *list)
{
    if (list == NULL) {
        pls_write_u32(w, NO_STRING);
        return;
    }
    size_t count = list_count(list);
    pls_write_u32(w, (uint32_t)count);
    for (size_t i = 0; i < count; i++) {
        string_write(w, list[i]);
    }
}

static pls_err refuse(char *trouble, const char *why)
{
    snprintf(trouble, PLS_TROUBLE_BYTES_MAX, "%s", why);
    return PLS_EINVAL;
}

static pls_err options_check(const pls_node_options *o, bool embedded, char *trouble)
{
    struct sockaddr_un address;
    if (o->program == NULL || o->program[0] == 0) {
        return refuse(trouble, "no path of the pulsing-node program was given");
    }
    if (o->name != NULL && strlen(o->name) > PLS_NAME_BYTES_MAX) {
        return refuse(trouble, "the system's name is longer than 255 bytes");
    }
    if (o->listen != NULL && strlen(o->listen) >= sizeof address.sun_path - 24) {
        return refuse(trouble, "the name or path to listen on is longer than 80 bytes");
    }
    if (!embedded && (o->listen == NULL || o->listen[0] == 0)) {
        return refuse(trouble, "a node in the foreground needs a name or path to listen on");
    }
    if (o->workers_max > 0 && (o->template_argv == NULL || o->template_argv[0] == NULL)) {
        return refuse(trouble, "workers need an interpreter (template_argv)");
    }
    if (o->workers_max >= PLS_SLOTS_MAX - 1) {
        return refuse(trouble, "a node holds 256 processes, itself and its user among them: "
                               "ask for at most 254 workers");
    }
    if (o->addr == NULL && (o->advertise != NULL || list_count(o->seeds) > 0)) {
        return refuse(trouble, "seeds and an address to advertise are for a node that listens: "
                               "give it an address (with_addr)");
    }
    if (list_count(o->seeds) > PLS_NODE_SEEDS_MAX) {
        return refuse(trouble, "more than 64 seeds were given; a few are enough");
    }
    if (o->worker_info_bytes > PLS_WORKER_INFO_BYTES_MAX) {
        return refuse(trouble, "what every worker receives is larger than 16 MiB");
    }
    return PLS_OK;
}

static void options_write(pls_writer *w, const pls_node_options *o, bool embedded)
{
    pls_write_u32(w, OPTIONS_MAGIC);
    pls_write_u32(w, PLS_CONTROL_VERSION);
    pls_write_u32(w, embedded);
    pls_write_u32(w, o->workers_max);
    pls_write_u32(w, o->start_timeout_ms);
    pls_write_u32(w, o->drain_timeout_ms);
    pls_write_u32(w, o->output_plain);
    pls_write_u64(w, o->memory_budget_bytes);
    pls_write_u64(w, o->worker_memory_bytes);
    string_write(w, o->name);
    string_write(w, o->listen);
    string_write(w, o->cwd);
    list_write(w, o->template_argv);
    list_write(w, o->python_path);
    list_write(w, o->env);
    string_write(w, o->addr);
    string_write(w, o->advertise);
    list_write(w, o->seeds);
    string_write(w, o->cluster_key);
    string_write(w, o->cluster_key_file);
    pls_write_u32(w, (uint32_t)o->worker_info_bytes);
    pls_write_bytes(w, o->worker_info, o->worker_info_bytes);
}

pls_err pls_options_store(const pls_node_options *options, bool embedded, int *fd_out,
                          char *trouble)
{
    pls_err err = options_check(options, embedded, trouble);
    if (err != PLS_OK) {
        return err;
    }
    /* 64 covers the fixed fields. */
    size_t bytes = 64 + string_bytes(options->name) + string_bytes(options->listen) +
                   string_bytes(options->cwd) + list_bytes(options->template_argv) +
                   list_bytes(options->python_path) + list_bytes(options->env) +
                   string_bytes(options->addr) + string_bytes(options->advertise) +
                   list_bytes(options->seeds) + string_bytes(options->cluster_key) +
                   string_bytes(options->cluster_key_file) + options->worker_info_bytes;
    if (bytes > PLS_OPTIONS_BYTES_MAX) {
        snprintf(trouble, PLS_TROUBLE_BYTES_MAX, "the options are larger than 64 MiB");
        return PLS_ETOOBIG;
    }
    uint8_t *memory = malloc(bytes);
    if (memory == NULL) {
        return PLS_ENOMEM;
    }
    pls_writer w = pls_writer_into(memory, bytes);
    options_write(&w, options, embedded);
    err = w.bad ? PLS_ETOOBIG
                : pls_memory_file_make("pulsing-options", memory, pls_writer_len(&w), fd_out);
    free(memory);
    if (err != PLS_OK && err != PLS_ETOOBIG) {
        pls_memory_trouble(err, false, trouble);
    }
    return err;
}

static const char *string_read(pls_reader *r)
{
    uint32_t len = pls_read_u32(r);
    if (r->bad || len == NO_STRING) {
        return NULL;
    }
    const char *string = (const char *)pls_read_bytes(r, len);
    if (string == NULL || len == 0 || memchr(string, 0, len) != string + len - 1) {
        r->bad = true;
        return NULL;
    }
    return string;
}

/* A list is read into fresh memory, since its pointers do not lie in the bytes. */
static const char *const *list_read(pls_reader *r)
{
    uint32_t count = pls_read_u32(r);
    if (r->bad || count == NO_STRING) {
        return NULL;
    }
    if (count > PLS_OPTIONS_LIST_MAX || count > pls_reader_left(r)) {
        r->bad = true;
        return NULL;
    }
    const char **list = calloc((size_t)count + 1, sizeof *list);
    for (uint32_t i = 0; list != NULL && i < count; i++) {
        list[i] = string_read(r);
        r->bad = r->bad || list[i] == NULL;
    }
    r->bad = r->bad || list == NULL;
    return list;
}

static void options_read(pls_reader *r, pls_settings *settings)
{
    pls_node_options *o = &settings->options;
    settings->embedded = pls_read_u32(r) != 0;
    o->workers_max = pls_read_u32(r);
    o->start_timeout_ms = pls_read_u32(r);
    o->drain_timeout_ms = pls_read_u32(r);
    o->output_plain = pls_read_u32(r) != 0;
    o->memory_budget_bytes = pls_read_u64(r);
    o->worker_memory_bytes = pls_read_u64(r);
    o->name = string_read(r);
    o->listen = string_read(r);
    o->cwd = string_read(r);
    o->template_argv = list_read(r);
    o->python_path = list_read(r);
    o->env = list_read(r);
    o->addr = string_read(r);
    o->advertise = string_read(r);
    o->seeds = list_read(r);
    o->cluster_key = string_read(r);
    o->cluster_key_file = string_read(r);
    o->worker_info_bytes = pls_read_u32(r);
    o->worker_info = pls_read_bytes(r, o->worker_info_bytes);
    /* The program's path is not sent: whoever reads this runs it already. */
    o->program = "pulsing-node";
}

static pls_err settings_check(const pls_settings *settings, const pls_reader *r)
{
    char trouble[PLS_TROUBLE_BYTES_MAX];
    if (r->bad || pls_reader_left(r) != 0) {
        return PLS_EPROTO;
    }
    return options_check(&settings->options, settings->embedded, trouble) == PLS_OK ? PLS_OK
                                                                                    : PLS_EPROTO;
}

pls_err pls_options_load(int fd, pls_settings *settings_out)
{
    uint8_t *memory;
    size_t len;
    pls_err err = pls_memory_file_read(fd, PLS_OPTIONS_BYTES_MAX, &memory, &len);
    if (err != PLS_OK) {
        return err == PLS_ETOOBIG ? PLS_EPROTO : err;
    }
    pls_settings settings = {.memory = memory};
    pls_reader r = pls_reader_over(memory, len);
    err = pls_read_u32(&r) == OPTIONS_MAGIC ? PLS_OK : PLS_EPROTO;
    if (err == PLS_OK && pls_read_u32(&r) != PLS_CONTROL_VERSION) {
        err = PLS_EVERSION;
    }
    if (err == PLS_OK) {
        options_read(&r, &settings);
        err = settings_check(&settings, &r);
    }
    if (err != PLS_OK) {
        pls_settings_fini(&settings);
        return err;
    }
    *settings_out = settings;
    return PLS_OK;
}

void pls_settings_fini(pls_settings *settings)
{
    free((void *)(uintptr_t)settings->options.template_argv);
    free((void *)(uintptr_t)settings->options.python_path);
    free((void *)(uintptr_t)settings->options.env);
    free((void *)(uintptr_t)settings->options.seeds);
    free(settings->memory);
    *settings = (pls_settings){0};
}
