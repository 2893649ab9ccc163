/* How a process' end is told (executor/local_outcome.h). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <signal.h>

#include "base/json.h"
#include "executor/local_outcome.h"

/* Reports as of python -m petiole.run: {"a": 1} was returned; the digest is right, or wrong. */
#define REPORT_SUCCESS                                                                             \
    "{\"v\":1,\"state\":\"SUCCESS\",\"result\":{\"a\": 1},\"traceback\":null,\"bytes\":8,"         \
    "\"sha256\":\"f9d86028c6e0d64e225186f96acb69338b2c59764df79162107f5c4bb34d1310\"}"
#define REPORT_DAMAGED                                                                             \
    "{\"v\":1,\"state\":\"SUCCESS\",\"result\":{\"a\": 1},\"traceback\":null,\"bytes\":8,"         \
    "\"sha256\":\"0000000000000000000000000000000000000000000000000000000000000000\"}"

struct fixture {
    struct arena *arena;
    struct local_end_state state;
};

static int set_up(void **state)
{
    struct arena *arena = arena_new(1024);
    struct fixture *fixture = arena_alloc(arena, sizeof(*fixture));
    fixture->arena = arena;
    fixture->state = (struct local_end_state){
        .job_name = "train-1",
        .container = "main",
        .has_started = true,
        .output = BYTES("first line\nlast line\n"),
    };
    *state = fixture;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *fixture = *state;
    struct arena *arena = fixture->arena;
    arena_free(&arena);
    return 0;
}

/* Checks the outcome, written as "<kind> <result><type>: <first argument>". */
static struct outcome check(struct fixture *fixture, const char *expected)
{
    struct outcome outcome;
    struct json message = {.text = {NULL, 0}};
    struct bytes sentence = {NULL, 0};
    local_outcome_make(&fixture->state, fixture->arena, &outcome);
    if (json_parse(outcome.exc_message, &message, NULL)) {
        (void)!json_text(json_at(message, 0), fixture->arena, &sentence);
    }
    assert_string_equal(arena_format(fixture->arena, "%d %.*s%.*s: %.*s", (int)outcome.kind,
                                     BYTES_FORMAT(outcome.result), BYTES_FORMAT(outcome.exc_type),
                                     BYTES_FORMAT(sentence)),
                        expected);
    return outcome;
}

/* The value of a key of the details, as JSON text. */
static const char *detail(struct fixture *fixture, const struct outcome *outcome, const char *key)
{
    struct json message;
    assert_true(json_parse(outcome->exc_message, &message, NULL));
    return arena_text(fixture->arena, json_get(json_at(message, 1), key).text);
}

static void test_exit_codes_and_signals(void **state)
{
    struct fixture *fixture = *state;
    fixture->state.exit_code = 3;
    struct outcome outcome = check(fixture, "1 CrashExit: Job train-1: container main ended with "
                                            "exit code 3 and no report");
    assert_string_equal(detail(fixture, &outcome, "exit_code"), "3");
    assert_string_equal(detail(fixture, &outcome, "container"), "\"main\"");
    assert_string_equal(detail(fixture, &outcome, "log"), "\"first line\\nlast line\\n\"");
    fixture->state.exit_code = -1;
    fixture->state.signal_number = SIGSEGV;
    outcome = check(fixture, "1 Signalled: Job train-1: container main was ended by signal 11 "
                             "(SIGSEGV)");
    assert_string_equal(detail(fixture, &outcome, "exit_code"), "139");
}

static void test_silence_is_no_success(void **state)
{
    struct fixture *fixture = *state;
    fixture->state.exit_code = 0;
    (void)check(fixture, "1 ResultLost: Job train-1: it completed, but its result cannot be read");
    fixture->state.report = BYTES("done");
    (void)check(fixture, "1 ResultLost: Job train-1: it completed, but its result cannot be read");
    fixture->state.report = BYTES(REPORT_DAMAGED);
    (void)check(fixture, "1 ResultLost: Job train-1: the payload's SHA-256 is not the report's");
}

static void test_report_counts_whatever_the_code(void **state)
{
    struct fixture *fixture = *state;
    fixture->state.report = BYTES(REPORT_SUCCESS);
    (void)check(fixture, "0 {\"a\": 1}: ");
    fixture->state.exit_code = 1;
    (void)check(fixture, "0 {\"a\": 1}: ");
    fixture->state.end = LOCAL_END_KILLED;
    (void)check(fixture, "0 {\"a\": 1}: ");
    fixture->state.end = LOCAL_END_DEADLINE;
    (void)check(fixture, "0 {\"a\": 1}: ");
    fixture->state.end = LOCAL_END_REVOKED;
    (void)check(fixture, "6 TaskRevokedError: terminated");
}

static void test_reasons_of_the_executor(void **state)
{
    struct fixture *fixture = *state;
    fixture->state.exit_code = 143;
    fixture->state.end = LOCAL_END_DEADLINE;
    struct outcome outcome = check(fixture, "1 DeadlineExceeded: Job train-1: it did not end "
                                            "before its deadline");
    assert_true(outcome.timed_out);
    fixture->state.end = LOCAL_END_LIMIT;
    fixture->state.limit_s = 5.0;
    outcome = check(fixture, "1 TimeLimitExceeded: ");
    assert_true(bytes_equal_text(outcome.exc_message, "[5]"));
    assert_true(outcome.timed_out);
    fixture->state.end = LOCAL_END_KILLED;
    (void)check(fixture, "5 WorkerLostError: Worker shut down before the task ended.");
    fixture->state.has_started = false;
    outcome = check(fixture, "4 : ");
    assert_true(outcome.requeue);
}

static void test_error(void **state)
{
    struct fixture *fixture = *state;
    struct error error = {ERROR_NOT_FOUND, "there is no program x on this machine"};
    struct outcome outcome;
    local_outcome_of_error("train-1", "CreateContainerError", &error, fixture->arena, &outcome);
    assert_int_equal(outcome.kind, OUTCOME_FAILURE);
    assert_string_equal(arena_text(fixture->arena, outcome.exc_message),
                        "[\"Job train-1: there is no program x on this machine\", {\"category\": "
                        "\"CreateContainerError\"}]");
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_exit_codes_and_signals),
        TEST(test_silence_is_no_success),
        TEST(test_report_counts_whatever_the_code),
        TEST(test_reasons_of_the_executor),
        TEST(test_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
