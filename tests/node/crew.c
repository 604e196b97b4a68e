/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/node/crew.h"

#include "node/attach.h"
#include "node/requests.h"

#include <check.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

static void note_fill(crew_note *note, const pulsing_message *message, void *user)
{
    memset(note, 0, sizeof *note);
    uint64_t len = 0;
    if (message->block != NULL) {
        (void)pulsing_block_bytes(message->block, &len);
    }
    note->block_bytes = (uint32_t)len;
    note->payload_bytes = message->payload_bytes;
    note->status = message->status;
    note->origin = message->origin;
    note->user = user;
    if (message->payload_bytes >= sizeof note->number) {
        memcpy(&note->number, message->payload, sizeof note->number);
    }
    uint32_t text = message->payload_bytes;
    text = text < sizeof note->text - 1 ? text : (uint32_t)sizeof note->text - 1;
    if (text > 0) {
        memcpy(note->text, message->payload, text);
    }
}

/* Not by ck_assert, which allocates: some tests make allocations fail here. */
static void room_check(uint32_t count)
{
    if (count >= CREW_NOTES_MAX) {
        abort();
    }
}

static pulsing_taken on_request(void *context, void *user, const pulsing_message *message)
{
    crew_member *m = context;
    room_check(m->request_count);
    crew_note *note = &m->requests[m->request_count++];
    note_fill(note, message, user);
    if (m->keep_running) {
        return PULSING_RUNNING;
    }
    if (message->origin.call_id != 0) {
        crew_answer(m, &message->origin, note->number);
    }
    return PULSING_DONE;
}

static void on_reply(void *context, void *user, const pulsing_message *message)
{
    crew_member *m = context;
    room_check(m->reply_count);
    note_fill(&m->replies[m->reply_count++], message, user);
}

static void on_item(void *context, void *user, const pulsing_message *message)
{
    crew_member *m = context;
    room_check(m->item_count);
    note_fill(&m->items[m->item_count++], message, user);
}

static void on_sent(void *context, void *user, pls_err err)
{
    crew_member *m = context;
    m->sent_count++;
    m->sent_err = err;
}

static void on_cancel(void *context, void *user, const pulsing_origin *origin)
{
    ((crew_member *)context)->cancel_count++;
}

static void on_room(void *context, void *user, uint64_t items)
{
    crew_member *m = context;
    m->room_count++;
    m->room_items = items;
}

static void on_open(void *context, void *user, const pulsing_origin *reader)
{
    crew_member *m = context;
    m->open_count++;
    m->reader = *reader;
}

static void on_drained(void *context, void *user)
{
    ((crew_member *)context)->drained_count++;
}

static void on_notice(void *context)
{
    ((crew_member *)context)->notice_count++;
}

static void member_open(crew_member *m, int control_fd)
{
    char trouble[PLS_TROUBLE_BYTES_MAX] = "";
    pulsing_options options = {.control_fd = control_fd,
                               .memory_bytes = 64u << 20,
                               .callbacks = {.context = m,
                                             .request = on_request,
                                             .reply = on_reply,
                                             .stream_item = on_item,
                                             .sent = on_sent,
                                             .cancel = on_cancel,
                                             .stream_room = on_room,
                                             .stream_open = on_open,
                                             .drained = on_drained,
                                             .notice = on_notice}};
    pls_err err = pulsing_open(&options, &m->p, trouble);
    ck_assert_msg(err == PLS_OK, "%s: %s", pls_err_name(err), trouble);
}

static int connection(const char *name)
{
    char trouble[PLS_TROUBLE_BYTES_MAX] = "";
    int fd = -1;
    double until = world_now_ms() + 5000;
    while (pls_attach_connect(name, &fd, trouble) != PLS_OK) {
        ck_assert_msg(world_now_ms() < until, "%s", trouble);
        world_pause_ms(2);
    }
    return fd;
}

void crew_begin(crew *c)
{
    char trouble[PLS_TROUBLE_BYTES_MAX] = "";
    memset(c, 0, sizeof *c);
    snprintf(c->name, sizeof c->name, "crew-%d", (int)getpid());
    pls_node_options options = world_options(0);
    options.listen = c->name;
    pls_err err = pls_node_launch(&options, &c->node, trouble);
    ck_assert_msg(err == PLS_OK, "%s", trouble);
    member_open(&c->m[0], c->node.control_fd);
    for (uint32_t i = 1; i < CREW_MEMBERS; i++) {
        member_open(&c->m[i], connection(c->name));
    }
}

void crew_end(crew *c)
{
    uint32_t request = 0;
    pls_attach_event event;
    for (uint32_t i = CREW_MEMBERS; i > 1; i--) {
        pulsing_close(c->m[i - 1].p);
    }
    ck_assert_int_eq(pls_attach_shutdown(pulsing_attach_of(c->m[0].p), 1000, &request), PLS_OK);
    double until = world_now_ms() + 5000;
    while (pulsing_notice(c->m[0].p, &event) != PLS_ECLOSED) {
        ck_assert(world_now_ms() < until);
        (void)!pulsing_wait(c->m[0].p, 10);
    }
    pulsing_close(c->m[0].p);
    ck_assert_int_eq(pls_node_wait(&c->node, 3000), PLS_OK);
    ck_assert(world_is_clean());
}

void crew_host(crew_member *m, uint32_t mailbox_max, pulsing_overflow overflow, uint64_t id)
{
    pulsing_actor_options options = {
        .id = id, .mailbox_max = mailbox_max, .concurrency_max = 1, .overflow = overflow};
    ck_assert_int_eq(pulsing_actor_add(m->p, &options, &m->actor), PLS_OK);
    m->actor_id = pulsing_actor_id_of(m->actor);
}

typedef struct peer_state {
    crew_member member;
    uint32_t answers;
} peer_state;

static pulsing_taken peer_request(void *context, void *user, const pulsing_message *message)
{
    peer_state *state = context;
    uint32_t number = 0;
    memcpy(&number, message->payload, sizeof number);
    if (number >= state->answers) {
        return PULSING_RUNNING;
    }
    if (message->origin.call_id != 0) {
        crew_answer(&state->member, &message->origin, number);
    }
    return PULSING_DONE;
}

void crew_peer_main(int argc, char **argv)
{
    static peer_state state;
    char trouble[PLS_TROUBLE_BYTES_MAX] = "";
    if (argc != 6 || strcmp(argv[1], "--peer") != 0) {
        return;
    }
    state.answers = (uint32_t)strtoul(argv[3], NULL, 10);
    pulsing_options options = {.callbacks = {.context = &state, .request = peer_request}};
    if (pls_attach_connect(argv[2], &options.control_fd, trouble) != PLS_OK ||
        pulsing_open(&options, &state.member.p, trouble) != PLS_OK) {
        _exit(1);
    }
    pulsing_actor_options actor = {.mailbox_max = (uint32_t)strtoul(argv[4], NULL, 10),
                                   .concurrency_max = 1,
                                   .overflow = (pulsing_overflow)strtoul(argv[5], NULL, 10)};
    if (pulsing_actor_add(state.member.p, &actor, &state.member.actor) != PLS_OK) {
        _exit(1);
    }
    state.member.actor_id = pulsing_actor_id_of(state.member.actor);
    if (write(STDOUT_FILENO, &state.member.actor_id, sizeof state.member.actor_id) < 0) {
        _exit(1);
    }
    pls_attach_event event;
    pls_err err = PLS_OK;
    while (err == PLS_OK || err == PLS_EEMPTY) {
        if (pulsing_wait(state.member.p, -1) == PLS_ESYS) {
            _exit(1);
        }
        err = pulsing_notice(state.member.p, &event);
    }
    _exit(0);
}

crew_peer crew_peer_start(crew *c, uint32_t answers, uint32_t mailbox_max,
                          pulsing_overflow overflow)
{
    crew_peer peer = {0};
    char program[512];
    char words[3][16];
    int ends[2];
    ssize_t len = readlink("/proc/self/exe", program, sizeof program - 1);
    ck_assert_int_gt(len, 0);
    program[len] = '\0';
    snprintf(words[0], sizeof words[0], "%u", answers);
    snprintf(words[1], sizeof words[1], "%u", mailbox_max);
    snprintf(words[2], sizeof words[2], "%u", (unsigned)overflow);
    char peer_word[] = "--peer";
    char *const argv[] = {program, peer_word, c->name, words[0], words[1], words[2], NULL};
    ck_assert_int_eq(pipe(ends), 0);
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, ends[1], STDOUT_FILENO);
    posix_spawn_file_actions_addclose(&actions, ends[0]);
    ck_assert_int_eq(posix_spawn(&peer.pid, program, &actions, NULL, argv, environ), 0);
    posix_spawn_file_actions_destroy(&actions);
    close(ends[1]);
    ck_assert_int_eq(read(ends[0], &peer.actor_id, sizeof peer.actor_id), 8);
    close(ends[0]);
    return peer;
}

void crew_peer_kill(const crew_peer *peer)
{
    kill(peer->pid, SIGKILL);
    ck_assert_int_eq(waitpid(peer->pid, NULL, 0), peer->pid);
}

pls_err crew_send(crew_member *m, pulsing_target *target, uint32_t number, uint32_t extra,
                  pulsing_call call, uint64_t *call_out)
{
    pulsing_send send;
    pulsing_room *room = NULL;
    pls_err err = pulsing_call_begin(m->p, target, &call, &send);
    if (err != PLS_OK) {
        return err;
    }
    uint32_t len = (uint32_t)sizeof number + extra;
    uint8_t *at = send.at;
    if (len > send.capacity) {
        err = pulsing_room_alloc(m->p, len, &room, &at);
        if (err != PLS_OK) {
            pulsing_abort(m->p, &send);
            return err;
        }
    }
    memset(at, (int)number, len);
    memcpy(at, &number, sizeof number);
    if (call_out != NULL) {
        *call_out = send.call_id;
    }
    return pulsing_commit(m->p, &send, len, room, room != NULL);
}

void crew_answer(crew_member *m, const pulsing_origin *origin, uint32_t number)
{
    pulsing_send send;
    if (pulsing_reply_begin(m->p, origin, PULSING_OK, &send) == PLS_OK) {
        memcpy(send.at, &number, sizeof number);
        (void)pulsing_commit(m->p, &send, sizeof number, NULL, false);
    }
}

void crew_turn(crew *c)
{
    pls_attach_event event;
    for (uint32_t i = 0; i < CREW_MEMBERS; i++) {
        (void)pulsing_poll(c->m[i].p, 64, false);
        while (pulsing_notice(c->m[i].p, &event) == PLS_OK) {
        }
    }
}

void crew_until(crew *c, const uint32_t *count, uint32_t least)
{
    double until = world_now_ms() + 10000;
    while (*count < least) {
        ck_assert_msg(world_now_ms() < until, "%u of %u came", *count, least);
        crew_turn(c);
    }
}

void crew_rest(crew *c, int ms)
{
    double until = world_now_ms() + ms;
    while (world_now_ms() < until) {
        crew_turn(c);
    }
}
