/* SPDX-License-Identifier: Apache-2.0 */
#include "shm/segment.h"

#include "shm/layout.h"
#include "tests/check_run.h"

#include <check.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define BYTES (16 * PLS_PAGE_BYTES)

static uint64_t allocated_bytes(int fd)
{
    struct stat info;
    ck_assert_int_eq(fstat(fd, &info), 0);
    return (uint64_t)info.st_blocks * 512;
}

START_TEST(test_size_and_seals_cannot_change)
{
    int fd = -1;
    uint64_t bytes = 0;
    ck_assert_int_eq(pls_segment_memfd("t", BYTES, &fd), PLS_OK);
    ck_assert_int_eq(pls_segment_measure(fd, &bytes), PLS_OK);
    ck_assert_uint_eq(bytes, BYTES);
    ck_assert_int_ne(ftruncate(fd, 0), 0);
    ck_assert_int_ne(ftruncate(fd, 2 * BYTES), 0);
    ck_assert_int_ne(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE), 0);
    ck_assert_uint_eq(allocated_bytes(fd), 0);
    close(fd);
}
END_TEST

START_TEST(test_commit_allocates_and_punch_gives_back_zeros)
{
    pls_segment segment = PLS_SEGMENT_EMPTY;
    ck_assert_int_eq(pls_segment_memfd("t", BYTES, &segment.fd), PLS_OK);
    ck_assert_int_eq(pls_segment_map(&segment, segment.fd, 0, BYTES, PLS_SEGMENT_WRITE), PLS_OK);
    ck_assert(pls_segment_check(&segment));
    ck_assert_int_eq(pls_segment_commit(segment.fd, PLS_PAGE_BYTES, PLS_PAGE_BYTES), PLS_OK);
    ck_assert_uint_eq(allocated_bytes(segment.fd), PLS_PAGE_BYTES);
    segment.base[PLS_PAGE_BYTES] = 9;
    ck_assert_int_eq(pls_segment_punch(segment.fd, PLS_PAGE_BYTES, PLS_PAGE_BYTES), PLS_OK);
    ck_assert_uint_eq(allocated_bytes(segment.fd), 0);
    ck_assert_uint_eq(segment.base[PLS_PAGE_BYTES], 0);
    pls_segment_detach(&segment);
    ck_assert(pls_segment_check(&segment));
    ck_assert_int_eq(segment.fd, -1);
}
END_TEST

START_TEST(test_populated_memory_is_filled_without_page_faults)
{
    enum { PAGES = 4096 };
    pls_segment segment = PLS_SEGMENT_EMPTY;
    uint64_t bytes = PAGES * (uint64_t)PLS_PAGE_BYTES;
    struct rusage before;
    struct rusage after;
    ck_assert_int_eq(pls_segment_memfd("t", bytes, &segment.fd), PLS_OK);
    ck_assert_int_eq(
        pls_segment_map(&segment, segment.fd, 0, bytes, PLS_SEGMENT_WRITE | PLS_SEGMENT_HUGE),
        PLS_OK);
    ck_assert_int_eq(pls_segment_populate(&segment, 0, bytes), PLS_OK);
    int zeros = open("/dev/zero", O_RDONLY);
    ck_assert_int_eq(getrusage(RUSAGE_SELF, &before), 0);
    /* Filled by the kernel, so that a sanitizer's shadow of this memory takes no faults. */
    ck_assert_int_eq(syscall(SYS_read, zeros, segment.base, bytes), (long)bytes);
    ck_assert_int_eq(getrusage(RUSAGE_SELF, &after), 0);
    ck_assert_int_lt(after.ru_minflt - before.ru_minflt, 64);
    close(zeros);
    pls_segment_detach(&segment);
}
END_TEST

START_TEST(test_readonly_reopening_cannot_write)
{
    int fd = -1;
    int readonly = -1;
    pls_segment segment = PLS_SEGMENT_EMPTY;
    ck_assert_int_eq(pls_segment_memfd("t", BYTES, &fd), PLS_OK);
    ck_assert_int_eq(pls_segment_reopen_readonly(fd, &readonly), PLS_OK);
    ck_assert_int_eq(pls_segment_map(&segment, readonly, 0, BYTES, PLS_SEGMENT_WRITE), PLS_EPERM);
    ck_assert_int_eq(pls_segment_map(&segment, readonly, 0, BYTES, 0), PLS_OK);
    ck_assert_int_ne(mprotect(segment.base, BYTES, PROT_READ | PROT_WRITE), 0);
    ck_assert_int_ne(pls_segment_commit(readonly, 0, BYTES), PLS_OK);
    ck_assert_int_ne(pls_segment_punch(readonly, 0, BYTES), PLS_OK);
    pls_segment_detach(&segment);
    close(readonly);
    close(fd);
}
END_TEST

START_TEST(test_private_writer_is_the_only_writer)
{
    pls_segment segment = PLS_SEGMENT_EMPTY;
    ck_assert_int_eq(pls_segment_memfd_private_writer("t", &segment, BYTES), PLS_OK);
    ck_assert_int_eq(pls_segment_commit(segment.fd, 0, PLS_PAGE_BYTES), PLS_OK);
    segment.base[0] = 5;
    ck_assert_ptr_eq(mmap(NULL, BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, segment.fd, 0),
                     MAP_FAILED);
    uint8_t *view = mmap(NULL, BYTES, PROT_READ, MAP_SHARED, segment.fd, 0);
    ck_assert_ptr_ne(view, MAP_FAILED);
    ck_assert_int_ne(mprotect(view, BYTES, PROT_READ | PROT_WRITE), 0);
    ck_assert_int_lt(write(segment.fd, "x", 1), 0);
    ck_assert_uint_eq(view[0], 5);
    segment.base[0] = 6;
    ck_assert_uint_eq(view[0], 6);
    munmap(view, BYTES);
    pls_segment_detach(&segment);
}
END_TEST

START_TEST(test_fork_mark_reads_zero_in_a_child)
{
    pls_segment mark = PLS_SEGMENT_EMPTY;
    int status = 0;
    ck_assert_int_eq(pls_segment_forkmark(&mark), PLS_OK);
    pid_t child = fork();
    if (child == 0) {
        _exit(mark.base[0]);
    }
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    ck_assert(WIFEXITED(status));
    ck_assert_int_eq(WEXITSTATUS(status), 0);
    ck_assert_uint_eq(mark.base[0], 1);
    pls_segment_detach(&mark);
}
END_TEST

START_TEST(test_descriptor_limit_is_efdlimit)
{
    struct rlimit limit;
    int fd = -1;
    ck_assert_int_eq(getrlimit(RLIMIT_NOFILE, &limit), 0);
    limit.rlim_cur = 3;
    ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &limit), 0);
    ck_assert_int_eq(pls_segment_memfd("t", BYTES, &fd), PLS_EFDLIMIT);
    ck_assert_int_eq(fd, -1);
    limit.rlim_cur = limit.rlim_max;
    ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &limit), 0);
}
END_TEST

START_TEST(test_mapping_twice_aborts)
{
    pls_segment segment = PLS_SEGMENT_EMPTY;
    (void)!pls_segment_memfd("t", BYTES, &segment.fd);
    (void)!pls_segment_map(&segment, segment.fd, 0, BYTES, PLS_SEGMENT_WRITE);
    (void)!pls_segment_map(&segment, segment.fd, 0, BYTES, PLS_SEGMENT_WRITE);
}
END_TEST

START_TEST(test_part_of_a_page_aborts)
{
    int fd = -1;
    (void)!pls_segment_memfd("t", 100, &fd);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("shm.segment");
    TCase *tcase = tcase_create("segment");
    tcase_set_timeout(tcase, 60);
    tcase_add_test(tcase, test_size_and_seals_cannot_change);
    tcase_add_test(tcase, test_commit_allocates_and_punch_gives_back_zeros);
    tcase_add_test(tcase, test_populated_memory_is_filled_without_page_faults);
    tcase_add_test(tcase, test_readonly_reopening_cannot_write);
    tcase_add_test(tcase, test_private_writer_is_the_only_writer);
    tcase_add_test(tcase, test_fork_mark_reads_zero_in_a_child);
    tcase_add_test(tcase, test_descriptor_limit_is_efdlimit);
    tcase_add_test_raise_signal(tcase, test_mapping_twice_aborts, SIGABRT);
    tcase_add_test_raise_signal(tcase, test_part_of_a_page_aborts, SIGABRT);
    suite_add_tcase(suite, tcase);
    return check_run(suite);
}
