/* SPDX-License-Identifier: Apache-2.0 */
/* Assertions in processes that a test forks. Check notes every assertion in a file that the test
 * shares with all of its children, so a child's notes, whole or cut off by a kill, stand among the
 * test's own and are taken for them. Here a child notes nothing, and a failure ends it: the text on
 * standard error, 1 as its status. Linked before Check, whose two functions it wraps. */
#include <check.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define TEXT_BYTES 4096

void __real__mark_point(const char *file, int line);
void __wrap__mark_point(const char *file, int line);
void __real__ck_assert_failed(const char *file, int line, const char *expression,
                              const char *format, ...);
void __wrap__ck_assert_failed(const char *file, int line, const char *expression,
                              const char *format, ...) __attribute__((format(printf, 4, 5)));

static int depth;      /* of forks below the program */
static int test_depth; /* of a test: Check's own child, unless it was told not to fork */

static void forked(void)
{
    depth++;
}

__attribute__((constructor)) static void forks_count(void)
{
    const char *mode = getenv("CK_FORK");
    test_depth = mode == NULL || strcmp(mode, "no") != 0 ? 1 : 0;
    (void)pthread_atfork(NULL, NULL, forked);
}

static bool in_child_of_test(void)
{
    return depth > test_depth;
}

void __wrap__mark_point(const char *file, int line)
{
    if (!in_child_of_test()) {
        __real__mark_point(file, line);
    }
}

void __wrap__ck_assert_failed(const char *file, int line, const char *expression,
                              const char *format, ...)
{
    char text[TEXT_BYTES] = "";
    if (format != NULL) {
        va_list arguments;
        va_start(arguments, format);
        vsnprintf(text, sizeof text, format, arguments);
        va_end(arguments);
    }
    if (in_child_of_test()) {
        fprintf(stderr, "%s:%d: in a child: %s %s\n", file, line, expression, text);
        _exit(EXIT_FAILURE);
    }
    __real__ck_assert_failed(file, line, expression, format != NULL ? "%s" : NULL, text);
}
