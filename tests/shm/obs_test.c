/* SPDX-License-Identifier: Apache-2.0 */
#include "shm/obs.h"

#include "shm/obs_books.h"
#include "shm/obs_hot.h"
#include "tests/check_run.h"

#include <check.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static pls_obs *obs;

static pls_obs *make(unsigned level)
{
    pls_obs *made = NULL;
    pls_obs_identity identity = {
        .slot = 4, .epoch = 5, .role = 2, .start_time = 99, .level = level, .version = "1.2.3"};
    ck_assert_int_eq(pls_obs_create(&identity, &made), PLS_OK);
    return made;
}

static void setup(void)
{
    obs = make(PLS_OBS_FULL);
}

static void teardown(void)
{
    ck_assert(pls_obs_check(obs));
    pls_obs_destroy(obs);
}

static uint64_t allocated_bytes(void)
{
    struct stat info;
    ck_assert_int_eq(fstat(pls_obs_fd(obs), &info), 0);
    return (uint64_t)info.st_blocks * 512;
}

static const void *section(const pls_obs_reader *reader, uint32_t id, uint32_t stride,
                           uint64_t used)
{
    pls_obs_section_view view;
    const void *at = pls_obs_reader_section(reader, id, stride, &view);
    ck_assert_ptr_nonnull(at);
    ck_assert_uint_eq(view.stride, stride);
    ck_assert_uint_eq(view.used, used);
    return at;
}

START_TEST(test_a_quarter_mebibyte_at_the_start_and_more_as_it_is_used)
{
    ck_assert_uint_le(allocated_bytes(), 256 * 1024);
    uint64_t before = allocated_bytes();
    for (uint64_t i = 0; i < 10000; i++) {
        ck_assert_uint_eq(pls_obs_actor_open(obs, i + 1, 0, 0), i);
    }
    uint64_t grown = allocated_bytes() - before;
    ck_assert_uint_ge(grown, 10000 * 128);
    ck_assert_uint_le(grown, 10000 * 128 + 64 * 1024);
}
END_TEST

START_TEST(test_nobody_else_can_write_it)
{
    int fd = pls_obs_fd(obs);
    ck_assert_ptr_eq(mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0), MAP_FAILED);
    ck_assert_int_lt(pwrite(fd, "x", 1, 0), 0);
    ck_assert_int_ne(ftruncate(fd, 0), 0);
}
END_TEST

/* What the process itself says: identity, state, clock, totals, peers. */
static void process_verify(const pls_obs_reader *reader)
{
    const pls_obs_process *process = section(reader, PLS_OBS_SECTION_PROCESS, sizeof *process, 1);
    ck_assert_uint_eq(process->pid, (uint32_t)getpid());
    ck_assert_uint_eq(process->slot, 4);
    ck_assert_uint_eq(process->epoch, 5);
    ck_assert_uint_eq(process->start_time, 99);
    ck_assert_str_eq((const char *)process->version, "1.2.3");
    ck_assert_uint_eq(process->state, PLS_OBS_WORKING);
    ck_assert_uint_eq(process->loop_turns, 1);
    ck_assert_uint_eq(process->bell_tick, 77);
    ck_assert_uint_eq(process->clock_version % 2, 0);
    ck_assert_uint_eq(process->clock_mult, obs->clock.mult);
    const uint64_t *counters = section(reader, PLS_OBS_SECTION_COUNTERS, 8, PLS_OBS_COUNTERS_KNOWN);
    const char(*names)[32] =
        section(reader, PLS_OBS_SECTION_COUNTER_NAMES, 32, PLS_OBS_COUNTERS_KNOWN);
    ck_assert_uint_eq(counters[PLS_OBS_SENT_BYTES], 200);
    ck_assert_str_eq(names[PLS_OBS_SENT_BYTES], "sent_bytes");
    ck_assert_uint_eq(counters[PLS_OBS_RECEIVED], 1);
    ck_assert_uint_eq(counters[PLS_OBS_OVERFLOWS], 0);
    const pls_obs_peer *peers = section(reader, PLS_OBS_SECTION_PEERS, 64, PLS_SLOTS_MAX);
    ck_assert_uint_eq(peers[9].messages, 2);
    ck_assert_uint_eq(peers[9].last_send_tick, 1001);
    ck_assert_uint_eq(peers[8].received, 1);
}

START_TEST(test_a_reader_finds_everything_through_the_directory)
{
    pls_obs_reader reader;
    pls_obs_writer writer;
    ck_assert_int_eq(pls_obs_writer_open(obs, true, &writer), PLS_OK);
    pls_obs_state_set(obs, PLS_OBS_WORKING);
    pls_obs_turn(obs, 77, true);
    pls_obs_sent(obs, 9, 100, 1000);
    pls_obs_sent(obs, 9, 100, 1001);
    pls_obs_received(obs, 8, 50);
    pls_obs_publish(obs);
    pls_obs_call_begin(&writer, 11, 12, 13, 14, 15);
    pls_obs_record(&writer, PLS_OBS_HOT_SEND, 5, (pls_obs_hot_entry){.peer = 3, .seq = 4});
    uint32_t class_name = pls_obs_string(obs, "Embedder", 8);
    uint32_t name = pls_obs_string(obs, "embed", 5);
    uint32_t method = pls_obs_method_open(obs, class_name, name);
    pls_obs_handled(obs, method, 1000, 2000000, true);
    uint32_t actor = pls_obs_actor_open(obs, 4711, class_name, 0);
    pls_obs_error_add(obs, "ValueError: no", 14);
    pls_obs_error_add(obs, "ValueError: no", 14);
    pls_obs_event(obs, &(pls_obs_event_entry){.kind = PLS_OBS_RARE_DEATH, .a = 6});

    ck_assert_int_eq(pls_obs_reader_attach(pls_obs_fd(obs), &reader), PLS_OK);
    process_verify(&reader);
    const pls_obs_thread *threads = section(&reader, PLS_OBS_SECTION_THREADS, 128, 1);
    ck_assert_uint_eq(threads[0].tid, (uint32_t)getpid());
    ck_assert_uint_eq(threads[0].actor, 11);
    ck_assert_uint_eq(threads[0].deadline_tick, 15);
    ck_assert_uint_eq(threads[0].version, 2);
    const pls_obs_hot_ring *hot = section(&reader, PLS_OBS_SECTION_HOT, sizeof *hot, 1);
    ck_assert_uint_eq(hot->head, 1);
    ck_assert_uint_eq(hot->records[0].message,
                      4 | UINT64_C(3) << 32 | (uint64_t)PLS_OBS_HOT_SEND << 48);
    const uint8_t *strings = section(&reader, PLS_OBS_SECTION_STRINGS, 1, 4 + 2 + 8 + 2 + 5);
    ck_assert_mem_eq(strings + class_name, "\x08\0Embedder", 10);
    const pls_obs_method *methods = section(&reader, PLS_OBS_SECTION_METHODS, 4096, 1);
    ck_assert_uint_eq(methods[0].method_name, name);
    ck_assert_uint_eq(methods[0].errors, 1);
    ck_assert_uint_eq(methods[0].handling[pls_obs_bucket(2000000)], 1);
    const pls_obs_actor *actors = section(&reader, PLS_OBS_SECTION_ACTORS, 128, 1);
    ck_assert_uint_eq(actors[actor].id, 4711);
    const pls_obs_error *errors = section(&reader, PLS_OBS_SECTION_ERRORS, 512, 1);
    ck_assert_uint_eq(errors[0].count, 2);
    ck_assert_uint_eq(errors[0].text_bytes, 14);
    ck_assert_mem_eq(errors[0].text, "ValueError: no", 14);
    const pls_obs_rare *rare = section(&reader, PLS_OBS_SECTION_RARE, 64, 1);
    ck_assert_uint_eq(rare[0].kind, PLS_OBS_RARE_DEATH);
    ck_assert_uint_eq(rare[0].a, 6);
    pls_obs_reader_detach(&reader);
    pls_obs_writer_close(&writer);
}
END_TEST

/* The owner is a child that sends us its descriptor, works, and is then stopped or killed. */
static pid_t worker_start(int *fd_out)
{
    int sockets[2];
    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, sockets), 0);
    pid_t child = fork();
    if (child == 0) {
        _Alignas(struct cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {0};
        char byte = 0;
        struct iovec data = {.iov_base = &byte, .iov_len = 1};
        struct msghdr message = {.msg_iov = &data,
                                 .msg_iovlen = 1,
                                 .msg_control = control,
                                 .msg_controllen = sizeof control};
        struct cmsghdr *header = CMSG_FIRSTHDR(&message);
        pls_obs *own = make(PLS_OBS_FULL);
        int fd = pls_obs_fd(own);
        header->cmsg_level = SOL_SOCKET;
        header->cmsg_type = SCM_RIGHTS;
        header->cmsg_len = CMSG_LEN(sizeof fd);
        memcpy(CMSG_DATA(header), &fd, sizeof fd);
        pls_obs_writer writer;
        (void)!pls_obs_writer_open(own, true, &writer);
        pls_obs_call_begin(&writer, 1234, 5, 6, 7, 8);
        (void)!sendmsg(sockets[1], &message, 0);
        for (uint32_t i = 0;; i++) {
            pls_obs_sent(own, 3, 64, i);
            pls_obs_record(&writer, PLS_OBS_HOT_SEND, i, (pls_obs_hot_entry){.seq = i});
        }
    }
    _Alignas(struct cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {0};
    char byte = 0;
    struct iovec data = {.iov_base = &byte, .iov_len = 1};
    struct msghdr message = {.msg_iov = &data,
                             .msg_iovlen = 1,
                             .msg_control = control,
                             .msg_controllen = sizeof control};
    ck_assert_int_eq(recvmsg(sockets[0], &message, 0), 1);
    memcpy(fd_out, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof *fd_out);
    close(sockets[0]);
    close(sockets[1]);
    return child;
}

/* The last thousand records of a hot ring, as a reader must take them: copy, then see from the head
 * what may have been overwritten meanwhile. */
static void last_records_verify(const pls_obs_reader *reader)
{
    const pls_obs_thread *threads = section(reader, PLS_OBS_SECTION_THREADS, 128, 1);
    ck_assert_uint_eq(threads[0].actor, 1234);
    const pls_obs_hot_ring *hot = section(reader, PLS_OBS_SECTION_HOT, sizeof *hot, 1);
    uint64_t head = atomic_load(&hot->head);
    ck_assert_uint_gt(head, 1000);
    for (uint64_t i = head - 1000; i < head; i++) {
        const pls_obs_hot *record = &hot->records[i % PLS_OBS_HOT_MAX];
        uint64_t tick = atomic_load(&record->tick);
        uint64_t message = atomic_load(&record->message);
        bool overwritten = atomic_load(&hot->head) + 1 >= i + PLS_OBS_HOT_MAX;
        ck_assert(overwritten || (tick == i && (uint32_t)message == i));
    }
}

START_TEST(test_a_running_a_stopped_and_a_killed_process_can_be_read)
{
    int fd = -1;
    pls_obs_reader reader;
    pid_t child = worker_start(&fd);
    ck_assert_int_eq(pls_obs_reader_attach(fd, &reader), PLS_OK);
    pls_obs_section_view view;
    const pls_obs_hot_ring *hot =
        pls_obs_reader_section(&reader, PLS_OBS_SECTION_HOT, sizeof *hot, &view);
    while (atomic_load(&hot->head) < 100000) {
        usleep(1000);
    }
    last_records_verify(&reader);
    kill(child, SIGSTOP);
    ck_assert_int_eq(waitpid(child, NULL, WUNTRACED), child);
    last_records_verify(&reader);
    kill(child, SIGCONT);
    kill(child, SIGKILL);
    ck_assert_int_eq(waitpid(child, NULL, 0), child);
    last_records_verify(&reader);
    pls_obs_reader_detach(&reader);
    close(fd);
}
END_TEST

START_TEST(test_waits_are_named_by_use_and_not_by_place)
{
    pls_obs_wait_start start = {.kind = PLS_OBS_WAIT_ASK, .waiter = 1, .target = 2};
    uint64_t first = pls_obs_wait_open(obs, &start);
    ck_assert_uint_ne(first, 0);
    ck_assert(pls_obs_wait_is_open(obs, first));
    pls_obs_wait_close(obs, first);
    ck_assert(!pls_obs_wait_is_open(obs, first));
    uint64_t second = pls_obs_wait_open(obs, &start);
    ck_assert_uint_eq((uint16_t)second, (uint16_t)first);
    ck_assert_uint_ne(second, first);
    pls_obs_wait_close(obs, first);
    ck_assert(pls_obs_wait_is_open(obs, second));
    pls_obs_wait_close(obs, second);
    ck_assert(!pls_obs_wait_is_open(obs, 0));
    ck_assert(!pls_obs_wait_is_open(obs, UINT64_MAX));
}
END_TEST

START_TEST(test_full_tables_count_and_forget)
{
    pls_obs_wait_start start = {.kind = PLS_OBS_WAIT_ASK};
    for (uint32_t i = 0; i < PLS_OBS_WAITS_MAX; i++) {
        ck_assert(pls_obs_wait_open(obs, &start) != 0);
    }
    ck_assert_uint_eq(pls_obs_wait_open(obs, &start), 0);
    for (uint32_t i = 0; i < PLS_OBS_METHODS_MAX; i++) {
        ck_assert(pls_obs_method_open(obs, 1, i + 1) == i);
        ck_assert(pls_obs_method_open(obs, 1, i + 1) == i);
    }
    ck_assert_uint_eq(pls_obs_method_open(obs, 2, 1), PLS_OBS_NONE);
    pls_obs_handled(obs, PLS_OBS_NONE, 1, 1, false);
    char text[32];
    for (int i = 0; i < PLS_OBS_ERRORS_MAX + 1; i++) {
        int len = snprintf(text, sizeof text, "error %d", i);
        pls_obs_error_add(obs, text, (size_t)len);
    }
    ck_assert_uint_eq(obs->counters[PLS_OBS_OVERFLOWS], 3);
}
END_TEST

START_TEST(test_equal_strings_are_stored_once)
{
    char text[32];
    uint32_t offsets[5000];
    for (int round = 0; round < 2; round++) {
        for (int i = 0; i < 5000; i++) {
            int len = snprintf(text, sizeof text, "actor-%d", i);
            uint32_t offset = pls_obs_string(obs, text, (size_t)len);
            ck_assert(offset != 0 && (round == 0 || offset == offsets[i]));
            offsets[i] = offset;
        }
    }
    ck_assert_uint_eq(pls_obs_string(obs, "", 0), 0);
    char big[1000];
    memset(big, 'x', sizeof big);
    ck_assert_uint_eq(pls_obs_string(obs, big, sizeof big), pls_obs_string(obs, big, 255));
}
END_TEST

START_TEST(test_buckets_err_by_at_most_a_sixteenth)
{
    ck_assert_uint_eq(pls_obs_bucket(0), PLS_OBS_BUCKET_UNDER);
    ck_assert_uint_eq(pls_obs_bucket(63), PLS_OBS_BUCKET_UNDER);
    ck_assert_uint_eq(pls_obs_bucket(64), 0);
    ck_assert_uint_eq(pls_obs_bucket(UINT64_MAX), PLS_OBS_BUCKET_OVER);
    unsigned last = 0;
    for (uint64_t ns = 64; ns < UINT64_C(68000000000); ns += ns / 64 + 1) {
        unsigned bucket = pls_obs_bucket(ns);
        ck_assert(bucket == last || bucket == last + 1);
        last = bucket;
        uint64_t octave = UINT64_C(64) << (bucket / 8);
        uint64_t low = octave + octave / 8 * (bucket % 8);
        uint64_t middle = low + octave / 16;
        uint64_t off = ns > middle ? ns - middle : middle - ns;
        ck_assert(ns >= low && off * 16 <= ns);
    }
    ck_assert_uint_eq(last, PLS_OBS_BUCKETS - 1);
}
END_TEST

START_TEST(test_threads_get_records_and_give_them_back)
{
    pls_obs_writer writers[PLS_OBS_THREADS_MAX + 1];
    for (int i = 0; i < PLS_OBS_THREADS_MAX; i++) {
        ck_assert_int_eq(pls_obs_writer_open(obs, true, &writers[i]), PLS_OK);
        ck_assert_int_eq(writers[i].ring != NULL, i < PLS_OBS_HOT_THREADS_MAX);
    }
    ck_assert_int_eq(pls_obs_writer_open(obs, true, &writers[PLS_OBS_THREADS_MAX]), PLS_EFULL);
    pls_obs_call_begin(&writers[PLS_OBS_THREADS_MAX], 1, 2, 3, 4, 5);
    pls_obs_call_end(&writers[PLS_OBS_THREADS_MAX]);
    for (uint64_t i = 0; i < PLS_OBS_HOT_MAX + 5; i++) {
        pls_obs_record(&writers[3], PLS_OBS_HOT_END, i, (pls_obs_hot_entry){.seq = 1});
    }
    ck_assert_ptr_nonnull(writers[3].ring);
    pls_obs_hot_ring *ring = writers[3].ring;
    pls_obs_writer_close(&writers[3]);
    ck_assert_int_eq(pls_obs_writer_open(obs, true, &writers[3]), PLS_OK);
    ck_assert_ptr_eq(writers[3].ring, ring);
    ck_assert_uint_eq(writers[3].head, PLS_OBS_HOT_MAX + 5);
    pls_obs_record(&writers[3], PLS_OBS_HOT_END, 1, (pls_obs_hot_entry){.seq = 1});
}
END_TEST

START_TEST(test_lower_levels_record_less)
{
    pls_obs_writer writer;
    pls_obs *off = make(PLS_OBS_OFF);
    ck_assert_int_eq(pls_obs_writer_open(off, true, &writer), PLS_OK);
    ck_assert_ptr_null(writer.thread);
    pls_obs_sent(off, 1, 1, 1);
    ck_assert_uint_eq(off->counters[PLS_OBS_SENT], 0);
    ck_assert_uint_eq(pls_obs_actor_open(off, 1, 0, 0), PLS_OBS_NONE);
    ck_assert_uint_ne(pls_obs_wait_open(off, &(pls_obs_wait_start){.kind = 1}), 0);
    pls_obs_destroy(off);
    pls_obs *counters = make(PLS_OBS_COUNTERS_ONLY);
    ck_assert_int_eq(pls_obs_writer_open(counters, true, &writer), PLS_OK);
    ck_assert_ptr_nonnull(writer.thread);
    ck_assert_ptr_null(writer.ring);
    pls_obs_sent(counters, 1, 1, 1);
    pls_obs_publish(counters);
    ck_assert_uint_eq(counters->counters[PLS_OBS_SENT], 1);
    pls_obs_destroy(counters);
}
END_TEST

/* Both ways with one peer, then with another: what a reader may not see yet. */
START_TEST(test_totals_are_never_further_behind_than_the_layout_says)
{
    uint64_t passed = 0;
    for (uint32_t i = 0; i < 10 * PLS_OBS_BEHIND_MAX; i++) {
        uint32_t peer = i < 7 * PLS_OBS_BEHIND_MAX ? 3 : 4 + i % 2;
        pls_obs_sent(obs, peer, 10, i);
        pls_obs_received(obs, peer, 20);
        passed += 2;
        uint64_t seen = obs->counters[PLS_OBS_SENT] + obs->counters[PLS_OBS_RECEIVED];
        ck_assert_uint_le(seen, passed);
        ck_assert_uint_le(passed - seen, PLS_OBS_BEHIND_MAX);
    }
    pls_obs_publish(obs);
    ck_assert_uint_eq(obs->counters[PLS_OBS_SENT], passed / 2);
    ck_assert_uint_eq(obs->counters[PLS_OBS_SENT_BYTES], passed / 2 * 10);
    ck_assert_uint_eq(obs->counters[PLS_OBS_RECEIVED_BYTES], passed / 2 * 20);
    ck_assert_uint_eq(obs->peers[3].messages, 7 * PLS_OBS_BEHIND_MAX);
    ck_assert_uint_eq(obs->peers[3].received, 7 * PLS_OBS_BEHIND_MAX);
    ck_assert_uint_eq(obs->peers[4].messages + obs->peers[5].messages, 3 * PLS_OBS_BEHIND_MAX);
}
END_TEST

START_TEST(test_forged_directory_shows_nothing_outside)
{
    pls_obs_reader reader;
    pls_obs_section_view view;
    pls_obs_directory_entry *entry = &obs->books->page->directory[PLS_OBS_SECTION_PEERS - 1];
    pls_obs_directory_entry right;
    memcpy(&right, entry, sizeof right);
    ck_assert_int_eq(pls_obs_reader_attach(pls_obs_fd(obs), &reader), PLS_OK);
    entry->offset = PLS_OBS_BYTES + 4096;
    ck_assert_ptr_null(pls_obs_reader_section(&reader, PLS_OBS_SECTION_PEERS, 64, &view));
    entry->offset = UINT64_MAX - 7;
    ck_assert_ptr_null(pls_obs_reader_section(&reader, PLS_OBS_SECTION_PEERS, 64, &view));
    entry->offset = right.offset + 4;
    ck_assert_ptr_null(pls_obs_reader_section(&reader, PLS_OBS_SECTION_PEERS, 64, &view));
    entry->offset = right.offset;
    entry->capacity = UINT32_MAX;
    ck_assert_ptr_null(pls_obs_reader_section(&reader, PLS_OBS_SECTION_PEERS, 64, &view));
    entry->capacity = right.capacity;
    entry->stride = 0;
    ck_assert_ptr_null(pls_obs_reader_section(&reader, PLS_OBS_SECTION_PEERS, 0, &view));
    entry->stride = 32;
    ck_assert_ptr_null(pls_obs_reader_section(&reader, PLS_OBS_SECTION_PEERS, 64, &view));
    entry->stride = right.stride;
    ck_assert_ptr_nonnull(pls_obs_reader_section(&reader, PLS_OBS_SECTION_PEERS, 64, &view));
    ck_assert_ptr_null(pls_obs_reader_section(&reader, 39, 1, &view));
    pls_obs_reader_detach(&reader);
}
END_TEST

START_TEST(test_actor_without_an_id_aborts)
{
    pls_obs_actor_open(obs, 0, 0, 0);
}
END_TEST

START_TEST(test_closing_an_actor_twice_aborts)
{
    uint32_t index = pls_obs_actor_open(obs, 1, 0, 0);
    pls_obs_actor_close(obs, index);
    pls_obs_actor_close(obs, index);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("shm.obs");
    TCase *tcase = tcase_create("obs");
    tcase_set_timeout(tcase, 60);
    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_add_test(tcase, test_a_quarter_mebibyte_at_the_start_and_more_as_it_is_used);
    tcase_add_test(tcase, test_nobody_else_can_write_it);
    tcase_add_test(tcase, test_a_reader_finds_everything_through_the_directory);
    tcase_add_test(tcase, test_a_running_a_stopped_and_a_killed_process_can_be_read);
    tcase_add_test(tcase, test_waits_are_named_by_use_and_not_by_place);
    tcase_add_test(tcase, test_full_tables_count_and_forget);
    tcase_add_test(tcase, test_equal_strings_are_stored_once);
    tcase_add_test(tcase, test_buckets_err_by_at_most_a_sixteenth);
    tcase_add_test(tcase, test_threads_get_records_and_give_them_back);
    tcase_add_test(tcase, test_lower_levels_record_less);
    tcase_add_test(tcase, test_totals_are_never_further_behind_than_the_layout_says);
    tcase_add_test(tcase, test_forged_directory_shows_nothing_outside);
    tcase_add_test_raise_signal(tcase, test_actor_without_an_id_aborts, SIGABRT);
    tcase_add_test_raise_signal(tcase, test_closing_an_actor_twice_aborts, SIGABRT);
    suite_add_tcase(suite, tcase);
    return check_run(suite);
}
