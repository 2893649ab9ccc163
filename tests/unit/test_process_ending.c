/* How the end of a task is told to a Python process (executor/process_ending.h). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/memory.h"
#include "executor/process_ending.h"

static void check(const struct outcome *outcome, bool stores, bool has_begun, const char *expected)
{
    struct buffer text;
    struct json value;
    buffer_init(&text, 4096);
    process_ending_append(&text, outcome, stores, has_begun);
    assert_true(json_parse(buffer_view(&text), &value, NULL));
    assert_int_equal(value.type, JSON_TYPE_OBJECT);
    assert_true(bytes_equal_text(buffer_view(&text), expected));
    buffer_fini(&text);
}

static void test_time_limit(void **state)
{
    (void)state;
    struct arena *arena = arena_new(512);
    struct outcome outcome;
    executor_timed_out(arena, 1.5, &outcome);
    check(&outcome, true, true,
          "{\"state\": \"FAILURE\", \"exc_type\": \"TimeLimitExceeded\", \"exc_module\": "
          "\"billiard.exceptions\", \"exc_message\": [1.5], \"stores\": true, "
          "\"has_begun\": true}");
    arena_free(&arena);
}

static void test_lost_and_rejected_are_failures(void **state)
{
    (void)state;
    struct arena *arena = arena_new(512);
    struct outcome outcome;
    executor_lost(arena, "a \"quoted\" reason", &outcome);
    check(&outcome, false, true,
          "{\"state\": \"FAILURE\", \"exc_type\": \"WorkerLostError\", \"exc_module\": "
          "\"billiard.exceptions\", \"exc_message\": [\"a \\\"quoted\\\" reason\"], \"stores\": "
          "false, \"has_begun\": true}");
    outcome.kind = OUTCOME_RETRY;
    check(&outcome, true, true,
          "{\"state\": \"RETRY\", \"exc_type\": \"WorkerLostError\", \"exc_module\": "
          "\"billiard.exceptions\", \"exc_message\": [\"a \\\"quoted\\\" reason\"], \"stores\": "
          "true, \"has_begun\": true}");
    const struct outcome bare = {.kind = OUTCOME_REJECT, .exc_type = BYTES("Reject")};
    check(&bare, true, false,
          "{\"state\": \"FAILURE\", \"exc_type\": \"Reject\", \"exc_module\": \"\", "
          "\"exc_message\": [], \"stores\": true, \"has_begun\": false}");
    arena_free(&arena);
}

static void test_revoked(void **state)
{
    (void)state;
    struct arena *arena = arena_new(512);
    struct outcome outcome;
    executor_revoked(arena, "expired", &outcome);
    check(&outcome, true, false,
          "{\"state\": \"REVOKED\", \"exc_type\": \"TaskRevokedError\", \"exc_module\": "
          "\"celery.exceptions\", \"exc_message\": [\"expired\"], \"stores\": true, \"has_begun\": "
          "false}");
    arena_free(&arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_time_limit),
        cmocka_unit_test(test_lost_and_rejected_are_failures),
        cmocka_unit_test(test_revoked),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
