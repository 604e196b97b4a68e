/* SPDX-License-Identifier: Apache-2.0 */
/* Proves that these tests can fail: each deliberate mistake of base/mutant.h, and the test that
 * must see it. The program of that test, built with the mistake, has to fail for the reason given
 * here, and to succeed as it is. */
#include "base/mutant.h"
#include "tests/check_run.h"

#include <check.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

#define TIMEOUT_S 300

typedef struct control {
    int mutant;
    const char *noun;    /* the test, stress.NOUN */
    const char *setting; /* of its environment: which part of it */
    const char *reason;  /* what its failure says */
    const char *longer;  /* of the environment of the mistaken one, which ends when it is seen */
} control;

static const control controls[] = {
    {PLS_MUTANT_NO_FENCE, "buffer", "", "wake-ups lost", ""},
    /* Two CPUs have to be at the same few instructions: on a busy machine that takes a while. */
    {PLS_MUTANT_NO_FENCE, "fence", "", "was not told of a letter", "STRESS_MEETINGS=1000000"},
    {PLS_MUTANT_EARLY_PUBLISH, "send", "STRESS_ONLY='send'", "err == PLS_OK", ""},
    {PLS_MUTANT_WINNER_SIGNALS, "send", "STRESS_ONLY='send'", "stage_signalled", ""},
    {PLS_MUTANT_NO_BOUNDS, "forged", "", "a forged length was believed", ""},
    {PLS_MUTANT_EARLY_REUSE, "receive", "STRESS_ONLY='return leases'", "other->base != lent", ""},
    {PLS_MUTANT_NO_RECHECK, "receive", "STRESS_ONLY='arm and wake'", "stage_victim_signalled", ""},
    {PLS_MUTANT_SILENT_REAPER, "restart", "", "nobody told the caller of a death", ""},
    {PLS_MUTANT_START_LATE, "restart", "", "was handled 2 times", ""},
    {PLS_MUTANT_START_EARLY, "restart", "", "and was never handled", ""},
};

/* Runs a program of this folder; its exit status, -1 for a signal, and the end of what it printed.
 */
static int program_run(const control *c, bool mistaken, char *text, size_t text_bytes)
{
    char command[1024];
    char kind[32] = "test";
    if (mistaken) {
        snprintf(kind, sizeof kind, "mutant_%d", c->mutant);
    }
    snprintf(command, sizeof command, "%s %s %s/stress_%s_%s 2>&1", c->setting,
             mistaken ? c->longer : "", PLS_STRESS_PROGRAMS, c->noun, kind);
    FILE *pipe = popen(command, "r");
    ck_assert_ptr_ne(pipe, NULL);
    size_t used = 0;
    char line[1024];
    while (fgets(line, sizeof line, pipe) != NULL) {
        size_t bytes = strlen(line);
        if (used + bytes < text_bytes) {
            memcpy(text + used, line, bytes);
            used += bytes;
        }
    }
    text[used] = 0;
    int status = pclose(pipe);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

START_TEST(test_every_mistake_is_seen_by_its_test)
{
    static char text[1 << 16];
    const control *c = &controls[_i];
    int status = program_run(c, false, text, sizeof text);
    ck_assert_msg(status == EXIT_SUCCESS, "stress.%s without a mistake ended with %d: %s", c->noun,
                  status, text);
    status = program_run(c, true, text, sizeof text);
    ck_assert_msg(status == EXIT_FAILURE, "nobody saw mistake %d: stress.%s ended with %d: %s",
                  c->mutant, c->noun, status, text);
    ck_assert_msg(strstr(text, c->reason) != NULL, "mistake %d was seen for another reason: %s",
                  c->mutant, text);
    printf("mistake %d is seen by stress.%s (%s)\n", c->mutant, c->noun, c->reason);
    fflush(stdout);
}
END_TEST

int main(void)
{
    int count = (int)(sizeof controls / sizeof *controls);
    Suite *suite = suite_create("stress.mutants");
    TCase *tests = tcase_create("mistakes");
    tcase_set_timeout(tests, TIMEOUT_S);
    tcase_add_loop_test(tests, test_every_mistake_is_seen_by_its_test, 0, count);
    suite_add_tcase(suite, tests);
    return check_run(suite);
}
