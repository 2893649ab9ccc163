/* What all executors share (executor/executor.h). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "executor/executor.h"

struct fixture {
    struct arena *arena;
    struct outcome outcome;
};

static int set_up(void **state)
{
    struct arena *arena = arena_new(1024);
    struct fixture *fixture = arena_alloc(arena, sizeof(*fixture));
    fixture->arena = arena;
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

static void check(const struct fixture *fixture, enum outcome_kind kind, const char *module,
                  const char *type, const char *message)
{
    assert_int_equal(fixture->outcome.kind, kind);
    assert_true(bytes_equal_text(fixture->outcome.exc_module, module));
    assert_true(bytes_equal_text(fixture->outcome.exc_type, type));
    assert_string_equal(fixture->outcome.exc_message.data, message);
    assert_int_equal(fixture->outcome.exc_message.length, strlen(message));
}

static void test_failure(void **state)
{
    struct fixture *fixture = *state;
    executor_failure(fixture->arena, "CrashExit", "it said \"no\"", "{\"exit_code\": 3}",
                     &fixture->outcome);
    check(fixture, OUTCOME_FAILURE, "petiole.exceptions", "CrashExit",
          "[\"it said \\\"no\\\"\", {\"exit_code\": 3}]");
    executor_failure(fixture->arena, "Unknown", "why", NULL, &fixture->outcome);
    check(fixture, OUTCOME_FAILURE, "petiole.exceptions", "Unknown",
          "[\"why\", {\"category\": \"Unknown\"}]");
    assert_false(fixture->outcome.timed_out);
}

static void test_timed_out(void **state)
{
    struct fixture *fixture = *state;
    executor_timed_out(fixture->arena, 60.0, &fixture->outcome);
    check(fixture, OUTCOME_FAILURE, "billiard.exceptions", "TimeLimitExceeded", "[60]");
    assert_true(fixture->outcome.timed_out);
    executor_timed_out(fixture->arena, 0.25, &fixture->outcome);
    check(fixture, OUTCOME_FAILURE, "billiard.exceptions", "TimeLimitExceeded", "[0.25]");
}

static void test_others(void **state)
{
    struct fixture *fixture = *state;
    executor_revoked(fixture->arena, "terminated", &fixture->outcome);
    check(fixture, OUTCOME_REVOKED, "celery.exceptions", "TaskRevokedError", "[\"terminated\"]");
    executor_lost(fixture->arena, "gone", &fixture->outcome);
    check(fixture, OUTCOME_LOST, "billiard.exceptions", "WorkerLostError", "[\"gone\"]");
    executor_given_back(&fixture->outcome);
    assert_int_equal(fixture->outcome.kind, OUTCOME_REJECT);
    assert_true(fixture->outcome.requeue);
    executor_not_registered(fixture->arena, BYTES("a.b"), &fixture->outcome);
    check(fixture, OUTCOME_FAILURE, "celery.exceptions", "NotRegistered", "[\"a.b\"]");
}

static void test_limits_of_the_message_win(void **state)
{
    (void)state;
    struct task_type type = {.time_limit_s = 20.0, .soft_time_limit_s = 10.0};
    struct request request = {.type = &type};
    assert_true(executor_hard_limit_s(&request) == 20.0);
    assert_true(executor_soft_limit_s(&request) == 10.0);
    request.message.hard_limit_s = 2.0;
    request.message.soft_limit_s = 1.0;
    assert_true(executor_hard_limit_s(&request) == 2.0);
    assert_true(executor_soft_limit_s(&request) == 1.0);
    request = (struct request){.type = NULL};
    assert_true(executor_hard_limit_s(&request) == 0.0);
    assert_true(executor_soft_limit_s(&request) == 0.0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_failure, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_timed_out, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_others, set_up, tear_down),
        cmocka_unit_test(test_limits_of_the_message_win),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
