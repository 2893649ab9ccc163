/* A program that is run for its output (worker/manifest_process.h). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <signal.h>

#include "worker/manifest_process.h"

#define MAX_BYTES 100000

static bool run(const char *script, int64_t deadline_ms, struct buffer *output, int *ret_exit_code,
                struct error *reterr)
{
    char shell[] = "/bin/sh";
    char option[] = "-c";
    char text[256];
    char variable[] = "WORD=from the environment";
    (void)snprintf(text, sizeof(text), "%s", script);
    char *arguments[] = {shell, option, text, NULL};
    char *environment[] = {variable, NULL};
    const struct manifest_process_options options = {
        .program = shell,
        .arguments = arguments,
        .environment = environment,
        .deadline_ms = deadline_ms,
        .is_silent = true,
    };
    buffer_init(output, MAX_BYTES);
    return manifest_process_run(&options, output, ret_exit_code, reterr);
}

static void check_run(const char *script, const char *expected, int expected_code)
{
    struct buffer output;
    struct error error = {0};
    int exit_code = -1;
    if (!run(script, 20000, &output, &exit_code, &error)) {
        fail_msg("%s", error.message);
    }
    assert_int_equal(exit_code, expected_code);
    assert_true(bytes_equal(buffer_view(&output), bytes_from_text(expected)));
    buffer_fini(&output);
}

static void test_output_and_exit_code(void **state)
{
    (void)state;
    check_run("printf '%s' \"$WORD\"", "from the environment", 0);
    check_run("cat; echo lost >&2; exit 3", "", 3);
    check_run("kill -9 $$", "", 128 + SIGKILL);
    check_run("exec >&-; sleep 0.05; exit 4", "", 4);
}

static void check_fails(const char *script, int64_t deadline_ms, enum error_kind kind)
{
    struct buffer output;
    struct error error = {0};
    int exit_code = -1;
    assert_false(run(script, deadline_ms, &output, &exit_code, &error));
    assert_int_equal(error.kind, kind);
    assert_int_equal(exit_code, -1);
    buffer_fini(&output);
}

static void test_limits(void **state)
{
    (void)state;
    check_fails("exec sleep 60", 50, ERROR_TIMEOUT);
    check_fails("exec >&-; exec sleep 60", 50, ERROR_TIMEOUT);
    check_fails("exec cat /dev/zero", 20000, ERROR_TOO_LARGE);
}

static void test_signals_that_end_us(void **state)
{
    (void)state;
    check_fails("kill -TERM $PPID; exec sleep 60", 20000, ERROR_REFUSED);
    check_fails("exec >&-; kill -INT $PPID; exec sleep 60", 20000, ERROR_REFUSED);
    check_run("kill -0 $PPID && kill -TERM $$", "", 128 + SIGTERM);
}

static void test_no_such_program(void **state)
{
    (void)state;
    char program[] = "/nonexistent/python3";
    char *arguments[] = {program, NULL};
    char *environment[] = {NULL};
    const struct manifest_process_options options = {program, arguments, environment, 1000, true};
    struct buffer output;
    struct error error = {0};
    int exit_code = 0;
    buffer_init(&output, MAX_BYTES);
    assert_false(manifest_process_run(&options, &output, &exit_code, &error));
    assert_int_equal(error.kind, ERROR_NOT_FOUND);
    assert_non_null(strstr(error.message, program));
    buffer_fini(&output);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_output_and_exit_code),
        cmocka_unit_test(test_limits),
        cmocka_unit_test(test_signals_that_end_us),
        cmocka_unit_test(test_no_such_program),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
