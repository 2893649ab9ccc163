#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "codec/message_record.h"
#include "executor/kubernetes_job.h"
#include "support/job_fixture.h"

/* Completes the Job and reads it back as the API server would show it. */
static struct kubernetes_job round_trip(struct job_fixture *fixture)
{
    struct kubernetes_job job;
    struct json object;
    if (!kubernetes_job_complete(fixture->job, &fixture->request, &job_fixture_marks,
                                 &fixture->error)) {
        fail_msg("%s", fixture->error.message);
    }
    char *text = json_dumps(fixture->job, JSON_COMPACT);
    struct bytes copy = arena_copy(fixture->arena, bytes_from_text(text));
    free(text);
    assert_true(json_parse(copy, &object, NULL));
    kubernetes_job_read(object, fixture->arena, &job);
    return job;
}

static void assert_text(struct bytes actual, const char *expected)
{
    assert_int_equal(actual.length, strlen(expected));
    assert_memory_equal(actual.data, expected, actual.length);
}

static void test_a_completed_job_says_what_it_is(void **state)
{
    struct job_fixture *fixture = *state;
    struct kubernetes_job job = round_trip(fixture);
    char digest[65];
    message_digest(&fixture->request.message, digest);
    assert_true(job.is_managed);
    assert_text(job.name, "add-1-0");
    assert_text(job.owner, "0123456789abcdef");
    assert_text(job.task_id, "11111111-2222-3333-4444-555555555555");
    assert_text(job.tag, "instance:7");
    assert_text(job.digest, digest);
    assert_false(job.is_finished || job.is_reported || job.is_active || job.is_deleted);
    struct message again;
    assert_true(message_record_read(job.record, fixture->arena, &again, &fixture->error));
    assert_text(again.task, "my.app/tasks.add\xc3\xa9");
    assert_int_equal(json_count(again.args), 2);
}

static void test_each_change_makes_another_generation(void **state)
{
    (void)state;
    static const char *const expected[] = {"{\"spec\":{\"ttlSecondsAfterFinished\":86401}}",
                                           "{\"spec\":{\"ttlSecondsAfterFinished\":86402}}"};
    for (unsigned number = 1; number <= ARRAY_LENGTH(expected); number++) {
        struct buffer patch;
        buffer_init(&patch, 128);
        kubernetes_job_append_changed(&patch, number);
        assert_true(bytes_equal_text(buffer_view(&patch), expected[number - 1]));
        buffer_fini(&patch);
    }
}

static void test_labels_are_valid_whatever_the_names(void **state)
{
    struct job_fixture *fixture = *state;
    (void)round_trip(fixture);
    json_t *labels = json_object_get(json_object_get(fixture->job, "metadata"), "labels");
    assert_string_equal(json_string_value(json_object_get(labels, "petiole.dev/task-name")),
                        "my.app-tasks.add");
    assert_string_equal(json_string_value(json_object_get(labels, "app.kubernetes.io/managed-by")),
                        "petiole");
    assert_null(json_object_get(json_object_get(fixture->job, "metadata"), "generateName"));
}

static void test_the_template_keeps_its_own_values(void **state)
{
    struct job_fixture *fixture = *state;
    (void)round_trip(fixture);
    json_t *spec = json_object_get(fixture->job, "spec");
    json_t *pod_spec = json_object_get(json_object_get(spec, "template"), "spec");
    assert_int_equal(json_integer_value(json_object_get(spec, "backoffLimit")), 2);
    assert_int_equal(json_integer_value(json_object_get(spec, "ttlSecondsAfterFinished")), 86400);
    assert_string_equal(json_string_value(json_object_get(pod_spec, "restartPolicy")), "Never");
    json_t *container = json_array_get(json_object_get(pod_spec, "containers"), 0);
    json_t *env = json_array_get(json_object_get(container, "env"), 0);
    assert_string_equal(json_string_value(json_object_get(env, "name")), "PETIOLE_TASK_FILE");
    assert_null(json_object_get(pod_spec, "activeDeadlineSeconds"));
}

static void test_the_hard_limit_becomes_the_pods_deadline(void **state)
{
    struct job_fixture *fixture = *state;
    fixture->request.message.hard_limit_s = 60;
    (void)round_trip(fixture);
    json_t *spec = json_object_get(fixture->job, "spec");
    json_t *pod_spec = json_object_get(json_object_get(spec, "template"), "spec");
    json_int_t pod_s = json_integer_value(json_object_get(pod_spec, "activeDeadlineSeconds"));
    json_int_t job_s = json_integer_value(json_object_get(spec, "activeDeadlineSeconds"));
    assert_true(pod_s > 60 && pod_s < 120);
    assert_true(job_s > pod_s);
}

static void test_the_runner_is_told_the_limits(void **state)
{
    struct job_fixture *fixture = *state;
    fixture->request.message.hard_limit_s = 60;
    fixture->request.message.soft_limit_s = 2.5;
    (void)round_trip(fixture);
    kubernetes_job_tell_runner(fixture->job, &fixture->request);
    json_t *pod_spec =
        json_object_get(json_object_get(json_object_get(fixture->job, "spec"), "template"), "spec");
    json_t *env =
        json_object_get(json_array_get(json_object_get(pod_spec, "containers"), 0), "env");
    char *text = json_dumps(env, JSON_COMPACT);
    assert_non_null(strstr(text, "{\"name\":\"PETIOLE_TIME_LIMIT\",\"value\":\"60.0\"}"));
    char *soft = strstr(text, "{\"name\":\"PETIOLE_SOFT_TIME_LIMIT\",\"value\":\"2.5\"}");
    assert_non_null(soft);
    assert_null(strstr(soft + 30, "PETIOLE_SOFT_TIME_LIMIT"));
    free(text);
}

static void test_the_trace_reaches_the_environment(void **state)
{
    struct job_fixture *fixture = *state;
    fixture->request.message.headers = job_fixture_parsed(
        "{\"traceparent\": \"00-aa-bb-01\", \"tracestate\": \"a=$(SECRET)\", \"sentry-trace\": "
        "\"aa-bb-1\", \"baggage\": \"two\\nlines\"}");
    kubernetes_job_tell_runner(fixture->job, &fixture->request);
    kubernetes_job_tell_runner(fixture->job, &fixture->request);
    json_t *pod_spec =
        json_object_get(json_object_get(json_object_get(fixture->job, "spec"), "template"), "spec");
    json_t *env =
        json_object_get(json_array_get(json_object_get(pod_spec, "containers"), 0), "env");
    char *text = json_dumps(env, JSON_COMPACT);
    char *first = strstr(text, "{\"name\":\"TRACEPARENT\",\"value\":\"00-aa-bb-01\"}");
    assert_non_null(first);
    assert_null(strstr(first + 20, "TRACEPARENT"));
    assert_non_null(strstr(text, "{\"name\":\"TRACESTATE\",\"value\":\"a=$$(SECRET)\"}"));
    assert_non_null(strstr(text, "{\"name\":\"SENTRY_TRACE\",\"value\":\"aa-bb-1\"}"));
    assert_null(strstr(text, "BAGGAGE"));
    free(text);
}

static void test_refuses_a_message_that_does_not_fit(void **state)
{
    struct job_fixture *fixture = *state;
    char *body = arena_alloc(fixture->arena, KUBERNETES_JOB_MAX_RECORD);
    memset(body, ' ', KUBERNETES_JOB_MAX_RECORD);
    fixture->request.message.body = bytes_of(body, KUBERNETES_JOB_MAX_RECORD);
    assert_false(kubernetes_job_complete(fixture->job, &fixture->request, &job_fixture_marks,
                                         &fixture->error));
    assert_int_equal(fixture->error.kind, ERROR_TOO_LARGE);
}

static void test_refuses_a_template_without_containers(void **state)
{
    struct job_fixture *fixture = *state;
    json_decref(fixture->job);
    fixture->job = json_loads("{\"spec\": {\"template\": {\"spec\": {}}}}", 0, NULL);
    assert_false(kubernetes_job_complete(fixture->job, &fixture->request, &job_fixture_marks,
                                         &fixture->error));
    assert_int_equal(fixture->error.kind, ERROR_INVALID);
}

static void test_reads_conditions(void **state)
{
    struct job_fixture *fixture = *state;
    struct json object;
    struct kubernetes_job job;
    assert_true(json_parse(
        BYTES(
            "{\"metadata\": {\"name\": \"n\", \"deletionTimestamp\": \"2026-01-01T00:00:00Z\", "
            "\"annotations\": {\"petiole.dev/reported\": \"true\"}}, \"status\": {\"active\": 1, "
            "\"conditions\": [{\"type\": \"SuccessCriteriaMet\", \"status\": \"True\"}, {\"type\": "
            "\"Complete\", \"status\": \"True\"}]}}"),
        &object, NULL));
    kubernetes_job_read(object, fixture->arena, &job);
    assert_true(job.is_finished && job.is_complete && job.is_reported && job.is_active
                && job.is_deleted);
    assert_false(job.is_managed);
    assert_true(
        json_parse(BYTES("{\"status\": {\"conditions\": [{\"type\": \"Failed\", \"status\": "
                         "\"False\"}]}}"),
                   &object, NULL));
    kubernetes_job_read(object, fixture->arena, &job);
    assert_false(job.is_finished);
}

/* A later Kubernetes may say more; what it says of old things holds. */
static void test_ignores_what_it_does_not_know(void **state)
{
    struct job_fixture *fixture = *state;
    struct json object;
    struct kubernetes_job job;
    assert_true(json_parse(
        BYTES("{\"metadata\": {\"name\": \"n\", \"shard\": {\"name\": \"other\"}}, \"status\": "
              "{\"phase\": [1, null], \"active\": 1, \"conditions\": [{\"type\": \"Checkpointed\", "
              "\"status\": \"True\", \"severity\": {\"level\": 3}}, {\"kind\": \"Complete\"}, "
              "\"Failed\", {\"type\": \"Complete\", \"status\": \"Perhaps\"}]}, \"epilogue\": {}}"),
        &object, NULL));
    kubernetes_job_read(object, fixture->arena, &job);
    assert_text(job.name, "n");
    assert_true(job.is_active);
    assert_false(job.is_finished || job.is_complete || job.is_managed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_a_completed_job_says_what_it_is, job_fixture_set_up,
                                        job_fixture_tear_down),
        cmocka_unit_test(test_each_change_makes_another_generation),
        cmocka_unit_test_setup_teardown(test_labels_are_valid_whatever_the_names,
                                        job_fixture_set_up, job_fixture_tear_down),
        cmocka_unit_test_setup_teardown(test_the_template_keeps_its_own_values, job_fixture_set_up,
                                        job_fixture_tear_down),
        cmocka_unit_test_setup_teardown(test_the_hard_limit_becomes_the_pods_deadline,
                                        job_fixture_set_up, job_fixture_tear_down),
        cmocka_unit_test_setup_teardown(test_the_trace_reaches_the_environment, job_fixture_set_up,
                                        job_fixture_tear_down),
        cmocka_unit_test_setup_teardown(test_the_runner_is_told_the_limits, job_fixture_set_up,
                                        job_fixture_tear_down),
        cmocka_unit_test_setup_teardown(test_refuses_a_message_that_does_not_fit,
                                        job_fixture_set_up, job_fixture_tear_down),
        cmocka_unit_test_setup_teardown(test_refuses_a_template_without_containers,
                                        job_fixture_set_up, job_fixture_tear_down),
        cmocka_unit_test_setup_teardown(test_reads_conditions, job_fixture_set_up,
                                        job_fixture_tear_down),
        cmocka_unit_test_setup_teardown(test_ignores_what_it_does_not_know, job_fixture_set_up,
                                        job_fixture_tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
