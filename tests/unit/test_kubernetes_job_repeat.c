#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "codec/message_record.h"
#include "executor/kubernetes_job_repeat.h"
#include "support/job_fixture.h"

/* The Job as the API server shows it some time after its POST. */
static struct json stored_job(struct job_fixture *fixture, struct kubernetes_job *ret_job)
{
    struct json object;
    assert_true(kubernetes_job_complete(fixture->job, &fixture->request, &job_fixture_marks,
                                        &fixture->error));
    json_t *spec = json_object_get(fixture->job, "spec");
    json_t *metadata = json_object_get(fixture->job, "metadata");
    json_t *pod = json_object_get(json_object_get(spec, "template"), "metadata");
    (void)json_object_set_new(metadata, "uid", json_string("u"));
    (void)json_object_set_new(metadata, "resourceVersion", json_string("7"));
    (void)json_object_set_new(spec, "selector", json_pack("{s:{s:s}}", "matchLabels", "x", "u"));
    (void)json_object_set_new(json_object_get(pod, "labels"), "batch.kubernetes.io/controller-uid",
                              json_string("u"));
    (void)json_object_set_new(json_object_get(pod, "labels"), "job-name", json_string("add-1-0"));
    char *text = json_dumps(fixture->job, JSON_COMPACT);
    struct bytes copy = arena_copy(fixture->arena, bytes_from_text(text));
    free(text);
    assert_true(json_parse(copy, &object, NULL));
    kubernetes_job_read(object, fixture->arena, ret_job);
    return object;
}

static struct json repeated(struct job_fixture *fixture, struct json object,
                            const struct kubernetes_job *job, const char *owner,
                            struct kubernetes_job_repetition *ret_repetition)
{
    struct json next;
    assert_true(
        kubernetes_job_repeat(object, job, owner, fixture->arena, ret_repetition, &fixture->error));
    struct bytes text = arena_copy(fixture->arena, bytes_from_text(ret_repetition->body));
    free(ret_repetition->body);
    assert_true(json_parse(text, &next, NULL));
    return next;
}

static void test_is_the_same_job_under_the_next_name(void **state)
{
    struct job_fixture *fixture = *state;
    struct kubernetes_job old;
    struct kubernetes_job job;
    struct kubernetes_job_repetition repetition;
    struct json object = stored_job(fixture, &old);
    struct json next = repeated(fixture, object, &old, "fedcba9876543210", &repetition);
    kubernetes_job_read(next, fixture->arena, &job);
    assert_string_equal(repetition.name, "add-11111111-2222-3333-4444-555555555555-0-a1");
    assert_true(bytes_equal_text(job.name, repetition.name));
    assert_true(bytes_equal(job.follows, old.name));
    assert_true(bytes_equal_text(job.owner, "fedcba9876543210"));
    assert_true(bytes_equal(job.task_id, old.task_id) && bytes_equal(job.digest, old.digest));
    assert_true(bytes_equal(job.tag, old.tag) && bytes_equal(job.record, old.record));
    assert_int_equal(job.attempt, 1);
    assert_false(job.is_finished);
    struct json again = repeated(fixture, next, &job, "fedcba9876543210", &repetition);
    kubernetes_job_read(again, fixture->arena, &job);
    assert_int_equal(job.attempt, 2);
    assert_string_equal(repetition.name, "add-11111111-2222-3333-4444-555555555555-0-a2");
}

static void test_leaves_out_what_is_the_controllers(void **state)
{
    struct job_fixture *fixture = *state;
    struct kubernetes_job old;
    struct kubernetes_job_repetition repetition;
    struct json object = stored_job(fixture, &old);
    struct json next = repeated(fixture, object, &old, "x", &repetition);
    struct json spec = json_get(next, "spec");
    struct json labels = json_get(json_get(json_get(spec, "template"), "metadata"), "labels");
    assert_int_equal(json_get(json_get(next, "metadata"), "uid").type, JSON_TYPE_ABSENT);
    assert_int_equal(json_get(json_get(next, "metadata"), "resourceVersion").type,
                     JSON_TYPE_ABSENT);
    assert_int_equal(json_get(spec, "selector").type, JSON_TYPE_ABSENT);
    assert_int_equal(json_get(labels, "job-name").type, JSON_TYPE_ABSENT);
    assert_int_equal(json_get(labels, "batch.kubernetes.io/controller-uid").type, JSON_TYPE_ABSENT);
    assert_int_equal(json_get(labels, "petiole.dev/task-id").type, JSON_TYPE_STRING);
}

static void test_needs_the_message(void **state)
{
    struct job_fixture *fixture = *state;
    struct kubernetes_job old;
    struct kubernetes_job_repetition repetition;
    struct json object = stored_job(fixture, &old);
    old.record = BYTES("no record");
    assert_false(
        kubernetes_job_repeat(object, &old, "x", fixture->arena, &repetition, &fixture->error));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_is_the_same_job_under_the_next_name,
                                        job_fixture_set_up, job_fixture_tear_down),
        cmocka_unit_test_setup_teardown(test_leaves_out_what_is_the_controllers, job_fixture_set_up,
                                        job_fixture_tear_down),
        cmocka_unit_test_setup_teardown(test_needs_the_message, job_fixture_set_up,
                                        job_fixture_tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
