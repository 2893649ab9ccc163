#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "executor/job_event.h"

#define EVENT(reason, minute, message)                                                             \
    "{\"reason\": \"" reason "\", \"lastTimestamp\": \"2026-01-01T00:" minute                      \
    ":00Z\", \"message\": \"" message "\"}"
#define LIST(events) "{\"items\": [" events "]}"

static int set_up(void **state)
{
    *state = arena_new(1024);
    return 0;
}

static int tear_down(void **state)
{
    struct arena *arena = *state;
    arena_free(&arena);
    return 0;
}

static struct json parsed(const char *text)
{
    struct json value;
    struct error error = {0};
    assert_true(json_parse(bytes_from_text(text), &value, &error));
    return value;
}

static void test_takes_the_latest_event_that_tells(void **state)
{
    struct job_event event;
    static const char text[] = LIST(EVENT("TaintManagerEviction", "05", "late") "," EVENT(
        "Evicted", "02", "early") "," EVENT("Pulled", "09", "ordinary"));
    assert_true(job_event_find(parsed(text), *state, &event));
    assert_true(bytes_equal_text(event.reason, "TaintManagerEviction"));
    assert_true(bytes_equal_text(event.message, "late"));
}

static void test_a_pod_that_got_its_node_is_not_unschedulable(void **state)
{
    struct job_event event;
    static const char scheduled[] =
        LIST(EVENT("Scheduled", "05", "node") "," EVENT("FailedScheduling", "02", "full"));
    static const char waiting[] =
        LIST(EVENT("FailedScheduling", "02", "full") "," EVENT("SuccessfulCreate", "01", ""));
    assert_false(job_event_find(parsed(scheduled), *state, &event));
    assert_true(job_event_find(parsed(waiting), *state, &event));
    assert_false(job_event_find(parsed("{}"), *state, &event));
}

static void test_finds_the_pod_that_was_made_last(void **state)
{
    static const char text[] = LIST(EVENT("SuccessfulCreate", "05", "Created pod: p-2") "," EVENT(
        "SuccessfulCreate", "02", "Created pod: p-1") "," EVENT("SuccessfulCreate", "08", "odd"));
    assert_true(bytes_equal_text(job_event_created_pod(parsed(text), *state), "p-2"));
    assert_int_equal(job_event_created_pod(parsed("{}"), *state).length, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_takes_the_latest_event_that_tells, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_a_pod_that_got_its_node_is_not_unschedulable, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(test_finds_the_pod_that_was_made_last, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
