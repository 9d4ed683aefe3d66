#define _GNU_SOURCE
#include "check.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { PASSED, FAILED, SKIPPED };

static int passed_count, failed_count, skipped_count;
static jmp_buf end_of_test;
static _Thread_local int is_test_thread;
static int exits_on_failure;
static atomic_int failures;

void run_test(const char *name, test_body body) {
    is_test_thread = 1;
    atomic_store(&failures, 0);
    int outcome = setjmp(end_of_test);
    if (outcome == PASSED) body();
    if (atomic_load(&failures) > 0) outcome = FAILED;
    static const char *const words[] = {"ok     ", "FAILED ", "skipped"};
    printf("%s %s\n", words[outcome], name);
    fflush(stdout);
    if (outcome == PASSED) passed_count++;
    if (outcome == FAILED) failed_count++;
    if (outcome == SKIPPED) skipped_count++;
}

int end_tests(void) {
    if (skipped_count > 0) printf("%d skipped\n", skipped_count);
    printf("%d passed, %d failed\n", passed_count, failed_count);
    return failed_count > 0;
}

void fail_check(const char *file, int line, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    printf("%s:%d: ", file, line);
    vprintf(format, arguments);
    printf("\n");
    va_end(arguments);
    if (exits_on_failure) {
        fflush(stdout);
        _exit(1);
    }
    atomic_fetch_add(&failures, 1);
    if (is_test_thread) longjmp(end_of_test, FAILED);
}

void exit_on_failure(void) { exits_on_failure = 1; }

void skip_test(const char *why) {
    printf("        %s\n", why);
    longjmp(end_of_test, SKIPPED);
}

void check_status(reelkv_status status, reelkv_status expected, const char *text, const char *call, const char *file, int line) {
    const char *message = reelkv_last_error();
    if (status != expected) {
        fail_check(file, line, "%s gave %s, not %s: %s", call, reelkv_status_name(status), reelkv_status_name(expected), message);
    } else if (status != REELKV_OK && (message[0] == 0 || strstr(message, text) == NULL)) {
        fail_check(file, line, "%s failed saying \"%s\", which lacks \"%s\"", call, message, text);
    }
}
