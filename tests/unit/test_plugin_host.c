/* What a native task sees of the worker (executor/plugin_host.h). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>

#include "executor/plugin_host.h"

/* The runner's side, seen by the tests. */
struct runner {
    enum petiole_cancel cancel;
    double waited_s;
    char log[64];
};

static enum petiole_cancel is_cancelled(void *context)
{
    struct runner *runner = context;
    return runner->cancel;
}

static enum petiole_cancel wait_for(void *context, double seconds)
{
    struct runner *runner = context;
    runner->waited_s = seconds;
    return runner->cancel;
}

static void log_line(void *context, enum petiole_log_level level, struct bytes text)
{
    struct runner *runner = context;
    (void)snprintf(runner->log, sizeof(runner->log), "%d %.20s %zu", (int)level, text.data,
                   text.length);
}

static const struct plugin_host_runner runner_functions = {is_cancelled, wait_for, log_line};

static struct petiole_json json_of(enum petiole_json_type type, const char *text)
{
    return (struct petiole_json){type, {text, strlen(text)}};
}

/* Runs `function` with `args` and checks the outcome written as "kind result type module
 * message", and of a retry " in seconds". */
static void check_run_by(struct runner *runner, petiole_task_function *function, const char *args,
                         const char *expected)
{
    struct plugin_host_call call = {
        .call = {.task_name = {"test.task", 9},
                 .args = json_of(PETIOLE_JSON_ARRAY, args),
                 .kwargs = json_of(PETIOLE_JSON_OBJECT, "{}")},
    };
    struct outcome outcome;
    char text[1024];
    plugin_host_init(&call, &runner_functions, runner);
    plugin_host_run(&call, function, &outcome);
    (void)snprintf(text, sizeof(text), "%d %.*s %.*s %.*s %.*s", (int)outcome.kind,
                   BYTES_FORMAT(outcome.result), BYTES_FORMAT(outcome.exc_type),
                   BYTES_FORMAT(outcome.exc_module), BYTES_FORMAT(outcome.exc_message));
    if (outcome.kind == OUTCOME_RETRY) {
        size_t length = strlen(text);
        (void)snprintf(text + length, sizeof(text) - length, " in %g", outcome.retry_countdown_s);
    }
    plugin_host_fini(&call);
    assert_string_equal(text, expected);
}

static void check_run(petiole_task_function *function, const char *args, const char *expected)
{
    struct runner runner = {.cancel = PETIOLE_GO_ON};
    check_run_by(&runner, function, args, expected);
}

static void reply_nothing(const struct petiole_task_call *call, struct petiole_reply *reply)
{
    (void)reply;
    assert_true(call->size == sizeof(*call));
    assert_true(call->host->size == sizeof(*call->host));
}

static void reply_last_counts(const struct petiole_task_call *call, struct petiole_reply *reply)
{
    call->host->reply_error(reply, "ValueError", "first");
    call->host->reply_json(reply, "{\"a\": [1]}", 10);
    call->host->reply_integer(reply, INT64_MIN);
}

static void reply_number(const struct petiole_task_call *call, struct petiole_reply *reply)
{
    double number = 0.0;
    assert_true(call->host->json_number(call->host->json_item(call->args, 0), &number));
    call->host->reply_number(reply, number);
}

static void reply_string(const struct petiole_task_call *call, struct petiole_reply *reply)
{
    struct petiole_text text;
    assert_true(call->host->json_string(call, call->host->json_item(call->args, 0), &text));
    assert_false(call->host->json_string(call, call->args, &text));
    call->host->reply_string(reply, text.data, text.length);
}

static void test_results(void **state)
{
    (void)state;
    check_run(reply_nothing, "[]", "0 null   ");
    check_run(reply_last_counts, "[]", "0 -9223372036854775808   ");
    check_run(reply_number, "[1.5]", "0 1.5   ");
    check_run(reply_number, "[3]", "0 3.0   ");
    check_run(reply_number, "[NaN]", "0 NaN   ");
    check_run(reply_number, "[-Infinity]", "0 -Infinity   ");
    check_run(reply_number, "[1e999]", "0 Infinity   ");
    check_run(reply_string, "[\"a\\n\\u00e9\"]", "0 \"a\\n\\u00e9\"   ");
}

static void reply_args_as_json(const struct petiole_task_call *call, struct petiole_reply *reply)
{
    struct petiole_text text;
    assert_true(call->host->json_string(call, call->host->json_item(call->args, 0), &text));
    call->host->reply_json(reply, text.data, text.length);
}

static void reply_args_as_exception(const struct petiole_task_call *call,
                                    struct petiole_reply *reply)
{
    struct petiole_text text;
    assert_true(call->host->json_string(call, call->host->json_item(call->args, 0), &text));
    call->host->reply_exception(reply, "KeyError", "builtins", text.data, text.length);
}

static void reply_nameless(const struct petiole_task_call *call, struct petiole_reply *reply)
{
    call->host->reply_error(reply, "", "no name");
}

static void reply_too_much(const struct petiole_task_call *call, struct petiole_reply *reply)
{
    size_t length = (size_t)PLUGIN_HOST_MAX_RESULT_BYTES + 1;
    char *text = memory_new(length);
    memset(text, '1', length);
    call->host->reply_json(reply, text, length);
    memory_free(&text);
}

static void test_bad_replies_are_failures(void **state)
{
    (void)state;
    struct error error;
    struct json value;
    char expected[1024];
    assert_false(json_parse(BYTES("{\"a\""), &value, &error));
    (void)snprintf(expected, sizeof(expected),
                   "1  EncodeError kombu.exceptions [\"native task test.task replied a result that "
                   "is no JSON: %s\"]",
                   error.message);
    check_run(reply_args_as_json, "[\"{\\\"a\\\"\"]", expected);
    check_run(reply_too_much, "[]",
              "1  EncodeError kombu.exceptions [\"native task test.task replied a result: it is "
              "over the limit of 64 MiB\"]");
    check_run(reply_args_as_exception, "[\"{}\"]",
              "1  EncodeError kombu.exceptions [\"native task test.task replied an exception whose "
              "arguments are no JSON array: it is no array\"]");
    check_run(reply_nameless, "[]",
              "1  EncodeError kombu.exceptions [\"native task test.task replied an exception: its "
              "names must have 1 to 1024 bytes\"]");
}

static void reply_retry(const struct petiole_task_call *call, struct petiole_reply *reply)
{
    if (call->host->json_count(call->args) > 0) {
        call->host->reply_error(reply, "OSError", "busy");
    }
    call->host->reply_retry(reply, 2.5);
}

static void reply_late_retry(const struct petiole_task_call *call, struct petiole_reply *reply)
{
    double countdown_s = 0;
    assert_true(call->host->json_number(call->host->json_item(call->args, 0), &countdown_s));
    call->host->reply_retry(reply, countdown_s);
}

static void reply_cancelled(const struct petiole_task_call *call, struct petiole_reply *reply)
{
    if (call->host->is_cancelled(call) == PETIOLE_SOFT_TIME_LIMIT) {
        call->host->reply_cancelled(reply);
    }
}

static void test_exceptions(void **state)
{
    (void)state;
    struct runner runner = {.cancel = PETIOLE_SOFT_TIME_LIMIT};
    check_run(reply_args_as_exception, "[\"[1, \\\"x\\\"]\"]", "1  KeyError builtins [1, \"x\"]");
    check_run(reply_retry, "[]", "2     in 2.5");
    check_run(reply_retry, "[1]", "2  OSError builtins [\"busy\"] in 2.5");
    check_run(reply_late_retry, "[1e300]", "2     in 1e+09");
    check_run(reply_late_retry, "[-3]", "2     in -3");
    check_run(reply_late_retry, "[NaN]", "2     in -1");
    check_run_by(&runner, reply_cancelled, "[]", "1  SoftTimeLimitExceeded billiard.exceptions []");
}

static void bind_two(const struct petiole_task_call *call, struct petiole_reply *reply)
{
    static const char *const names[] = {"x", "y"};
    struct petiole_json values[2];
    if (call->host->bind(call, reply, names, 2, 2, values)) {
        call->host->reply_json(reply, values[1].text.data, values[1].text.length);
    }
}

static void test_bind(void **state)
{
    (void)state;
    check_run(bind_two, "[1, [true]]", "0 [true]   ");
    check_run(bind_two, "[1]",
              "1  TypeError builtins [\"task() missing 1 required positional argument: 'y'\"]");
}

static void walk(const struct petiole_task_call *call, struct petiole_reply *reply)
{
    const struct petiole_host *host = call->host;
    struct petiole_json object = host->json_item(call->args, 0);
    struct petiole_walk members = host->json_walk(object);
    struct petiole_text key;
    struct petiole_json value;
    int64_t sum = 0;
    int64_t number = 0;
    while (host->json_next(&members, &key, &value)) {
        assert_int_equal(key.length, 1);
        sum += host->json_integer(value, &number) ? number : 100;
    }
    struct petiole_walk elements = host->json_walk(host->json_member(object, "c"));
    while (host->json_next(&elements, NULL, &value)) {
        assert_true(host->json_integer(value, &number));
        sum += number;
    }
    assert_int_equal(host->json_member(object, "d").type, PETIOLE_JSON_ABSENT);
    assert_int_equal(host->json_item(call->args, 7).type, PETIOLE_JSON_ABSENT);
    struct petiole_json nonsense = {(enum petiole_json_type)99, {NULL, 0}};
    assert_int_equal(host->json_count(nonsense), 0);
    host->reply_integer(reply, sum);
}

static void test_walks(void **state)
{
    (void)state;
    check_run(walk, "[{\"a\": 1, \"b\": 2, \"c\": [10, 20]}]", "0 133   ");
}

static void wait_and_log(const struct petiole_task_call *call, struct petiole_reply *reply)
{
    char long_text[5000];
    memset(long_text, 'x', sizeof(long_text) - 1);
    long_text[sizeof(long_text) - 1] = '\0';
    call->host->log(call, PETIOLE_LOG_WARNING, long_text);
    call->host->reply_integer(reply, (int64_t)call->host->wait(call, 1.5));
}

static void test_runner_is_asked(void **state)
{
    (void)state;
    struct runner runner = {.cancel = PETIOLE_TERMINATED};
    check_run_by(&runner, wait_and_log, "[]", "0 2   ");
    assert_true(runner.waited_s == 1.5);
    assert_string_equal(runner.log, "2 xxxxxxxxxxxxxxxxxxxx 4096");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_results),    cmocka_unit_test(test_bad_replies_are_failures),
        cmocka_unit_test(test_exceptions), cmocka_unit_test(test_bind),
        cmocka_unit_test(test_walks),      cmocka_unit_test(test_runner_is_asked),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
