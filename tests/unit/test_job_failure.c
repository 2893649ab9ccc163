#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "executor/job_failure.h"

static int set_up(void **state)
{
    *state = arena_new(4096);
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
    if (!json_parse(bytes_from_text(text), &value, &error)) {
        fail_msg("%s: %s", text, error.message);
    }
    return value;
}

#define POD(phase, status)                                                                         \
    "{\"metadata\": {\"name\": \"p\"}, \"spec\": {\"containers\": [{\"name\": \"main\"}]}, "       \
    "\"status\": {\"phase\": \"" phase "\", " status "}}"
#define STATE(state) "\"containerStatuses\": [{\"name\": \"main\", \"state\": {" state "}}]"
#define JOB(reason)                                                                                \
    "{\"metadata\": {\"name\": \"train-1-0\"}, \"status\": {\"conditions\": [{\"type\": "          \
    "\"Failed\", \"status\": \"True\", \"reason\": \"" reason "\"}]}}"
#define COMPLETE                                                                                   \
    "{\"metadata\": {\"name\": \"train-1-0\"}, \"status\": {\"conditions\": [{\"type\": "          \
    "\"Complete\", \"status\": \"True\"}]}}"

/* The category that `job` with `pod` (NULL: none) ends in. */
static void assert_category(struct arena *arena, const char *job, const char *pod_text,
                            const char *expected)
{
    struct job_pod pod;
    struct outcome outcome;
    if (pod_text) {
        job_failure_read_pod(parsed(pod_text), arena, &pod);
    }
    job_failure_explain(parsed(job), pod_text ? &pod : NULL, bytes_of(NULL, 0), arena, &outcome);
    assert_int_equal(outcome.kind, OUTCOME_FAILURE);
    if (!bytes_equal_text(outcome.exc_type, expected)) {
        fail_msg("%.*s instead of %s", BYTES_FORMAT(outcome.exc_type), expected);
    }
    struct json message = parsed(arena_text(arena, outcome.exc_message));
    assert_int_equal(json_count(message), 2);
    struct bytes category = {NULL, 0};
    assert_true(json_text(json_get(json_at(message, 1), "category"), arena, &category));
    assert_true(bytes_equal_text(category, expected));
}

static void test_names_the_cause(void **state)
{
    static const struct {
        const char *job;
        const char *pod;
        const char *category;
    } cases[] = {
        {JOB("BackoffLimitExceeded"),
         POD("Failed", STATE("\"terminated\": {\"exitCode\": 3, \"reason\": \"Error\"}")),
         "CrashExit"},
        {JOB("BackoffLimitExceeded"),
         POD("Failed", STATE("\"terminated\": {\"exitCode\": 137, \"reason\": \"OOMKilled\"}")),
         "OOMKilled"},
        {COMPLETE,
         POD("Succeeded", STATE("\"terminated\": {\"exitCode\": 0, \"reason\": \"OOMKilled\"}")),
         "OOMKilled"},
        {JOB("BackoffLimitExceeded"),
         POD("Failed", STATE("\"terminated\": {\"exitCode\": 143, \"reason\": \"Error\"}")),
         "Signalled"},
        {JOB("BackoffLimitExceeded"),
         POD("Failed", "\"reason\": \"DeadlineExceeded\", " STATE(
                           "\"terminated\": {\"exitCode\": 137, \"reason\": \"Error\"}")),
         "DeadlineExceeded"},
        {JOB("DeadlineExceeded"), NULL, "DeadlineExceeded"},
        {JOB("DeadlineExceeded"),
         POD("Failed", STATE("\"terminated\": {\"exitCode\": 143, \"reason\": \"Error\"}")),
         "DeadlineExceeded"},
        {JOB("BackoffLimitExceeded"), POD("Failed", "\"reason\": \"Evicted\""), "Evicted"},
        {JOB("BackoffLimitExceeded"), NULL, "Unknown"},
        {COMPLETE, NULL, "ResultLost"},
        {COMPLETE,
         POD("Succeeded", STATE("\"terminated\": {\"exitCode\": 0, \"reason\": \"Completed\"}")),
         "ResultLost"},
        {"{}", POD("Pending", STATE("\"waiting\": {\"reason\": \"ImagePullBackOff\"}")),
         "ImagePullError"},
        {"{}", POD("Pending", STATE("\"waiting\": {\"reason\": \"InvalidImageName\"}")),
         "InvalidImage"},
        {"{}", POD("Pending", STATE("\"waiting\": {\"reason\": \"CreateContainerConfigError\"}")),
         "ContainerConfigError"},
    };

    for (size_t index = 0; index < ARRAY_LENGTH(cases); index++) {
        assert_category(*state, cases[index].job, cases[index].pod, cases[index].category);
    }
}

static void test_the_named_container_decides(void **state)
{
    struct job_pod pod;
    job_failure_read_pod(
        parsed(
            "{\"metadata\": {\"name\": \"p\", \"annotations\": "
            "{\"kubectl.kubernetes.io/default-container\": \"main\"}}, \"spec\": {\"containers\": "
            "[{\"name\": \"sidecar\"}, {\"name\": \"main\"}]}, \"status\": {\"phase\": "
            "\"Running\", \"containerStatuses\": [{\"name\": \"sidecar\", \"state\": "
            "{\"running\": {}}}, {\"name\": \"main\", \"state\": {\"terminated\": {\"exitCode\": "
            "0, \"message\": \"m\", \"startedAt\": \"2026-01-01T00:00:00Z\", \"finishedAt\": "
            "\"2026-01-01T00:00:05Z\"}}}]}}"),
        *state, &pod);
    assert_int_equal(pod.state, JOB_POD_ENDED);
    assert_true(bytes_equal_text(pod.container, "main"));
    assert_true(bytes_equal_text(pod.message, "m"));
    assert_true(pod.runtime_s > 4.9 && pod.runtime_s < 5.1);
}

static void test_knows_what_will_not_come_by_itself(void **state)
{
    struct job_pod pod;
    job_failure_read_pod(
        parsed(POD("Pending", STATE("\"waiting\": {\"reason\": \"ErrImagePull\"}"))), *state, &pod);
    assert_true(job_failure_is_stuck(&pod));
    job_failure_read_pod(
        parsed(POD("Pending", STATE("\"waiting\": {\"reason\": \"ContainerCreating\"}"))), *state,
        &pod);
    assert_false(job_failure_is_stuck(&pod));
    job_failure_read_pod(parsed("{}"), *state, &pod);
    assert_false(job_failure_is_stuck(&pod));
    assert_int_equal(pod.state, JOB_POD_WAITING);
}

static void test_tells_which_pod_ended_as_its_job_did(void **state)
{
    struct job_pod pod;
    job_failure_read_pod(parsed(POD("Succeeded", STATE("\"terminated\": {\"exitCode\": 0}"))),
                         *state, &pod);
    assert_true(job_failure_fits(&pod, true));
    assert_false(job_failure_fits(&pod, false));
    job_failure_read_pod(parsed(POD("Failed", STATE("\"terminated\": {\"exitCode\": 1}"))), *state,
                         &pod);
    assert_false(job_failure_fits(&pod, true));
    assert_true(job_failure_fits(&pod, false));
    job_failure_read_pod(parsed(POD("Running", STATE("\"running\": {}"))), *state, &pod);
    assert_false(job_failure_fits(&pod, true));
    assert_false(job_failure_fits(&pod, false));
}

static void test_shows_the_end_of_the_log(void **state)
{
    char log[5000];
    struct outcome outcome;
    memset(log, 'x', sizeof(log));
    memcpy(log + sizeof(log) - 12, "\nlast line\n", 11);
    log[sizeof(log) - 1] = '\0';
    job_failure_explain(parsed(JOB("BackoffLimitExceeded")), NULL, bytes_from_text(log), *state,
                        &outcome);
    struct json message = parsed(arena_text(*state, outcome.exc_message));
    struct bytes shown = {NULL, 0};
    assert_true(json_text(json_get(json_at(message, 1), "log"), *state, &shown));
    assert_true(bytes_equal_text(shown, "last line\n"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_names_the_cause, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_the_named_container_decides, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_knows_what_will_not_come_by_itself, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_tells_which_pod_ended_as_its_job_did, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(test_shows_the_end_of_the_log, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
