/* A test runner of a few lines. A check that fails ends its test, except on threads, where it is only counted. */
#ifndef CHECK_H
#define CHECK_H

#include <reelkv.h>

typedef void (*test_body)(void);

/* Runs a test and prints one line. */
void run_test(const char *name, test_body body);
/* Prints the closing line. Returns the exit status. */
int end_tests(void);

/* Says what was wrong and ends the test. */
void fail_check(const char *file, int line, const char *format, ...) __attribute__((format(printf, 3, 4)));
/* From now on a check that fails ends the process, with status 1: for forked children. */
void exit_on_failure(void);
/* Ends the test as one that cannot be run here. */
_Noreturn void skip_test(const char *why);

/* Ends the test unless `status` is what is expected and, for a failure, the last error is a sentence that contains `text`. */
void check_status(reelkv_status status, reelkv_status expected, const char *text, const char *call, const char *file, int line);

#define CHECK(condition)                                                      \
    do {                                                                      \
        if (!(condition)) fail_check(__FILE__, __LINE__, "not %s", #condition); \
    } while (0)

#define CHECK_EQUAL(left, right)                                                                                   \
    do {                                                                                                           \
        long long left_ = (long long)(left), right_ = (long long)(right);                                          \
        if (left_ != right_) fail_check(__FILE__, __LINE__, "%s is %lld, %s is %lld", #left, left_, #right, right_); \
    } while (0)

#define OK(call) check_status(call, REELKV_OK, "", #call, __FILE__, __LINE__)
#define FAILS(status, call) check_status(call, status, "", #call, __FILE__, __LINE__)
#define FAILS_SAYING(status, text, call) check_status(call, status, text, #call, __FILE__, __LINE__)

#endif
