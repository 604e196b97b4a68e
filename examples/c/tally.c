/* SPDX-License-Identifier: Apache-2.0 */
/* A C actor among Python actors. It attaches to a running node by name, hosts an actor that others
 * find as "tally", tells and asks the Python actor "greeter", and serves until it is stopped:
 *
 *     tally NODE
 *
 * Its methods: add(n) -> total, size(data) -> bytes, repeat(byte, n) -> bytes, relay(text) -> what
 * greeter.greet(text) answers, stop(). */
#include "values.h"

#include "node/attach.h"
#include "node/requests.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NAME "tally"
#define PEER "greeter"
#define MAILBOX_MAX 64
#define FIND_WAIT_MS 20000
/* A signal that comes right before the sleep is seen after it. */
#define SERVE_WAIT_MS 1000
#define REPEAT_MAX (64u << 20)

typedef struct tally {
    pulsing *p;
    pulsing_actor *actor;
    pulsing_target *peer;
    int64_t total;
    bool stopping;
} tally;

/* A question to the peer that has not been answered: for ourselves, or for whoever asked us. */
typedef struct question {
    bool relayed;
    pulsing_origin origin;
} question;

static volatile sig_atomic_t interrupted;

static void on_signal(int number)
{
    interrupted = number;
}

static void fail(const char *what, pls_err err)
{
    fprintf(stderr, "tally: %s: %s\n", what, pls_err_text(err));
    exit(1);
}

static void answer_text(tally *t, const pulsing_origin *origin, pulsing_status status,
                        const char *text)
{
    pulsing_send send;
    size_t len = strlen(text);
    if (origin->call_id != 0 && pulsing_reply_begin(t->p, origin, status, &send) == PLS_OK) {
        memcpy(send.at, text, len);
        (void)pulsing_commit(t->p, &send, (uint32_t)len, NULL, false);
    }
}

static void answer(tally *t, const pulsing_origin *origin, const msgpack_sbuffer *packed)
{
    pulsing_send send;
    if (origin->call_id != 0 && pulsing_reply_begin(t->p, origin, PULSING_OK, &send) == PLS_OK) {
        pls_err err = values_send(t->p, &send, packed);
        if (err != PLS_OK && err != PLS_EFULL) {
            answer_text(t, origin, PULSING_BAD_MESSAGE, pls_err_text(err));
        }
    }
}

/* Calls a method of the peer with one text. `question` NULL: a tell. */
static pls_err peer_call(tally *t, const char *method, const char *text, size_t len,
                         question *question)
{
    pulsing_call call = {.method = method,
                         .method_bytes = (uint8_t)strlen(method),
                         .tell = question == NULL,
                         .sender_id = pulsing_actor_id_of(t->actor),
                         .user = question};
    pulsing_send send;
    pls_err err = pulsing_call_begin(t->p, t->peer, &call, &send);
    if (err != PLS_OK) {
        return err;
    }
    msgpack_sbuffer packed;
    msgpack_packer packer;
    msgpack_sbuffer_init(&packed);
    msgpack_packer_init(&packer, &packed, msgpack_sbuffer_write);
    values_call_begin(&packer, 1);
    msgpack_pack_str(&packer, len);
    msgpack_pack_str_body(&packer, text, len);
    err = values_send(t->p, &send, &packed);
    msgpack_sbuffer_destroy(&packed);
    return err == PLS_EFULL ? PLS_OK : err; /* full: it waits its turn and will leave */
}

static pulsing_taken relay(tally *t, const pulsing_message *message, const msgpack_object *text)
{
    question *question = malloc(sizeof *question);
    if (question == NULL) {
        answer_text(t, &message->origin, PULSING_BAD_MESSAGE, "out of memory");
        return PULSING_DONE;
    }
    question->relayed = true;
    question->origin = message->origin;
    pls_err err = peer_call(t, "greet", text->via.str.ptr, text->via.str.size, question);
    if (err != PLS_OK) {
        answer_text(t, &message->origin, PULSING_DIED, pls_err_text(err));
        free(question);
        return PULSING_DONE;
    }
    return PULSING_RUNNING;
}

static bool is(const pulsing_message *message, const char *method)
{
    return message->method_bytes == strlen(method) &&
           memcmp(message->method, method, message->method_bytes) == 0;
}

static bool repeat(msgpack_packer *packer, const msgpack_object_array *args)
{
    if (args->size != 2 || args->ptr[0].type != MSGPACK_OBJECT_POSITIVE_INTEGER ||
        args->ptr[1].type != MSGPACK_OBJECT_POSITIVE_INTEGER || args->ptr[1].via.u64 > REPEAT_MAX) {
        return false;
    }
    size_t len = (size_t)args->ptr[1].via.u64;
    char *bytes = malloc(len + 1);
    if (bytes == NULL) {
        return false;
    }
    memset(bytes, (int)args->ptr[0].via.u64, len);
    msgpack_pack_bin(packer, len);
    msgpack_pack_bin_body(packer, bytes, len);
    free(bytes);
    return true;
}

/* Packs the result of a method; false if the arguments do not suit it. */
static bool method_run(tally *t, const pulsing_message *message, const msgpack_object_array *args,
                       msgpack_packer *packer)
{
    uint64_t len = 0;
    if (is(message, "add")) {
        bool whole = args->size == 1 && (args->ptr[0].type == MSGPACK_OBJECT_POSITIVE_INTEGER ||
                                         args->ptr[0].type == MSGPACK_OBJECT_NEGATIVE_INTEGER);
        if (whole) {
            t->total += args->ptr[0].via.i64;
            msgpack_pack_int64(packer, t->total);
        }
        return whole;
    }
    if (is(message, "size")) {
        bool bytes = args->size == 1 && values_bytes(message, &args->ptr[0], &len) != NULL;
        msgpack_pack_uint64(packer, len);
        return bytes;
    }
    if (is(message, "repeat")) {
        return repeat(packer, args);
    }
    t->stopping = true; /* stop */
    msgpack_pack_nil(packer);
    return args->size == 0;
}

static pulsing_taken on_request(void *context, void *user, const pulsing_message *message)
{
    tally *t = context;
    (void)user;
    static const char *const methods[] = {"add", "size", "repeat", "relay", "stop"};
    bool known = false;
    for (size_t i = 0; i < sizeof methods / sizeof *methods; i++) {
        known = known || is(message, methods[i]);
    }
    if (!known) {
        answer_text(t, &message->origin, PULSING_NO_METHOD,
                    "tally's methods are: add, relay, repeat, size, stop");
        return PULSING_DONE;
    }
    pulsing_taken taken = PULSING_DONE;
    msgpack_object_array args;
    msgpack_zone zone;
    msgpack_sbuffer packed;
    msgpack_packer packer;
    msgpack_zone_init(&zone, MSGPACK_ZONE_CHUNK_SIZE);
    msgpack_sbuffer_init(&packed);
    msgpack_packer_init(&packer, &packed, msgpack_sbuffer_write);
    if (!values_read_call(message, &zone, &args)) {
        answer_text(t, &message->origin, PULSING_BAD_MESSAGE, "tally reads plain arguments only");
    } else if (is(message, "relay") && args.size == 1 && args.ptr[0].type == MSGPACK_OBJECT_STR &&
               t->peer != NULL) {
        taken = relay(t, message, &args.ptr[0]);
    } else if (!is(message, "relay") && method_run(t, message, &args, &packer)) {
        answer(t, &message->origin, &packed);
    } else {
        answer_text(t, &message->origin, PULSING_BAD_MESSAGE, "these arguments do not suit it");
    }
    msgpack_sbuffer_destroy(&packed);
    msgpack_zone_destroy(&zone);
    return taken;
}

/* The peer's answer goes on to whoever asked us, as it is: both speak the same encoding. */
static void relay_back(tally *t, const pulsing_origin *origin, const pulsing_message *message)
{
    msgpack_sbuffer same = {.size = message->payload_bytes, .data = (char *)message->payload};
    pulsing_send send;
    if (message->block != NULL) {
        answer_text(t, origin, PULSING_BAD_MESSAGE, "the answer is too large to be relayed");
    } else if (origin->call_id != 0 &&
               pulsing_reply_begin(t->p, origin, message->status, &send) == PLS_OK) {
        (void)values_send(t->p, &send, &same);
    }
    pulsing_actor_finished(t->p, t->actor, origin);
}

static void on_reply(void *context, void *user, const pulsing_message *message)
{
    tally *t = context;
    question *question = user;
    if (question->relayed) {
        relay_back(t, &question->origin, message);
    } else {
        msgpack_zone zone;
        msgpack_object value;
        msgpack_zone_init(&zone, MSGPACK_ZONE_CHUNK_SIZE);
        if (message->status == PULSING_OK && values_read_one(message, &zone, &value)) {
            printf("greeter answered ");
            msgpack_object_print(stdout, value);
            printf("\n");
        } else {
            printf("greeter did not answer: status %u\n", message->status);
        }
        msgpack_zone_destroy(&zone);
    }
    fflush(stdout);
    free(question);
}

/* Waits for the answer to a request to the node. */
static void node_wait(tally *t, uint32_t request, pls_attach_event *event, const char *what)
{
    for (;;) {
        pls_err err = pulsing_notice(t->p, event);
        if (err == PLS_OK && event->type == PLS_EVENT_REPLY && event->request == request) {
            if (event->status != PLS_OK) {
                fail(what, event->status);
            }
            return;
        }
        if (err != PLS_OK && err != PLS_EEMPTY) {
            fail(what, err);
        }
        if (err == PLS_EEMPTY && pulsing_wait(t->p, -1) == PLS_ESYS) {
            fail(what, PLS_ESYS);
        }
    }
}

/* Makes the actor known: by what stands beside its name, others know how many messages each of them
 * may have under way to it (4 bytes) and that it is not rebuilt after a death (1 byte). */
static void name_register(tally *t)
{
    static const uint8_t metadata[5] = {MAILBOX_MAX, 0, 0, 0, 0};
    uint32_t request = 0;
    pls_attach_event event;
    pls_name_entry entry = {.actor = pulsing_actor_id_of(t->actor),
                            .flags = PLS_NAME_PUBLIC,
                            .name = NAME,
                            .name_bytes = strlen(NAME),
                            .class_name = "Tally",
                            .class_name_bytes = strlen("Tally"),
                            .metadata = metadata,
                            .metadata_bytes = sizeof metadata};
    pls_err err = pls_attach_name_register(pulsing_attach_of(t->p), &entry, &request);
    if (err != PLS_OK) {
        fail("registering the name", err);
    }
    node_wait(t, request, &event, "registering the name " NAME);
}

static void peer_find(tally *t)
{
    uint32_t request = 0;
    pls_attach_event event;
    pls_err err =
        pls_attach_name_find(pulsing_attach_of(t->p), PEER, strlen(PEER), FIND_WAIT_MS, &request);
    if (err != PLS_OK) {
        fail("finding the peer", err);
    }
    node_wait(t, request, &event, "finding " PEER);
    uint32_t window = 0;
    bool restartable = false;
    if (event.data_bytes >= 5) {
        window = event.data[0] | (uint32_t)event.data[1] << 8 | (uint32_t)event.data[2] << 16 |
                 (uint32_t)event.data[3] << 24;
        restartable = event.data[4] != 0;
    }
    err = pulsing_target_get(t->p, event.actor, window, restartable, &t->peer);
    if (err != PLS_OK) {
        fail("finding the peer", err);
    }
    if (restartable) {
        pulsing_target_move(t->p, event.actor, event.slot, event.epoch); /* it may have moved */
    }
}

static void open_all(tally *t, const char *node)
{
    char trouble[PLS_TROUBLE_BYTES_MAX] = "";
    pulsing_options options = {
        .callbacks = {.context = t, .request = on_request, .reply = on_reply}};
    pls_err err = pls_attach_connect(node, &options.control_fd, trouble);
    if (err == PLS_OK) {
        err = pulsing_open(&options, &t->p, trouble);
    }
    if (err != PLS_OK) {
        fail(trouble, err);
    }
    pulsing_actor_options actor = {.mailbox_max = MAILBOX_MAX, .concurrency_max = MAILBOX_MAX};
    err = pulsing_actor_add(t->p, &actor, &t->actor);
    if (err != PLS_OK) {
        fail("hosting the actor", err);
    }
}

static void serve(tally *t)
{
    pls_attach_event event;
    while (!t->stopping && !interrupted) {
        if (pulsing_wait(t->p, SERVE_WAIT_MS) == PLS_ESYS) {
            fail("waiting", PLS_ESYS);
        }
        pls_err err = PLS_OK;
        while ((err = pulsing_notice(t->p, &event)) == PLS_OK) {
            t->stopping = t->stopping || event.type == PLS_EVENT_SHUTDOWN;
        }
        if (err != PLS_EEMPTY) {
            fprintf(stderr, "tally: %s\n", pulsing_closed_text(t->p));
            t->stopping = true;
        }
    }
}

int main(int argc, char **argv)
{
    tally t = {0};
    question *question = calloc(1, sizeof *question);
    struct sigaction action = {.sa_handler = on_signal};
    if (argc != 2 || question == NULL) {
        fprintf(stderr, "usage: tally NODE\n");
        return 2;
    }
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGINT, &action, NULL);
    open_all(&t, argv[1]);
    peer_find(&t);
    pls_err err = peer_call(&t, "note", "a C program is here", strlen("a C program is here"), NULL);
    if (err == PLS_OK) {
        err = peer_call(&t, "greet", "C", 1, question);
    }
    if (err != PLS_OK) {
        fail("calling the peer", err);
    }
    name_register(&t);
    serve(&t);
    pulsing_target_release(t.peer);
    pulsing_close(t.p);
    return 0;
}
