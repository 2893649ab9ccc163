/* From a rendered Job to what is run (executor/local_plan.h). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "executor/local_plan.h"

static char *const worker_environment[] = {
    (char[]){"PATH=/bin"},
    (char[]){"PETIOLE_PYTHON=/opt/python"},
    (char[]){"CELERY_BROKER_URL=redis://:secret@host"},
    (char[]){"LANG=C"},
    NULL,
};

static const char *const passed_names[] = {"PATH", "LANG", "HOME", NULL};

struct fixture {
    struct arena *arena;
    json_t *job;
    struct local_plan plan;
    struct error error;
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
    json_decref(fixture->job);
    arena_free(&arena);
    return 0;
}

static bool make(struct fixture *fixture, const char *pod_annotations, const char *pod_spec,
                 const char *job_spec)
{
    const char *text = arena_format(fixture->arena,
                                    "{'spec': {%s 'template': {'metadata': {'annotations': {%s}, "
                                    "'labels': {'app': 'train'}}, 'spec': {%s}}}}",
                                    job_spec, pod_annotations, pod_spec);
    char *json = arena_text(fixture->arena, bytes_from_text(text));
    for (char *quote = json; (quote = strchr(quote, '\'')) != NULL; quote++) {
        *quote = '"';
    }
    for (char *quote = json; (quote = strchr(quote, '`')) != NULL; quote++) {
        *quote = '\'';
    }
    json_decref(fixture->job);
    fixture->job = json_loads(json, 0, NULL);
    assert_non_null(fixture->job);
    struct local_plan_site site = {
        .job_name = "train-1",
        .namespace_name = "tenant-user",
        .record = "{\"v\": 1}",
        .folder = "/run/x",
        .claims_folder = "/run/claims",
        .environment = worker_environment,
        .passed_names = passed_names,
    };
    fixture->error = (struct error){.message = ""};
    return local_plan_make(fixture->job, &site, fixture->arena, &fixture->plan, &fixture->error);
}

static void check_made(struct fixture *fixture, const char *pod_spec)
{
    bool is_made = make(fixture, "'a': 'b'", pod_spec, "");
    assert_string_equal(fixture->error.message, "");
    assert_true(is_made);
}

static void check_refused(struct fixture *fixture, const char *pod_spec, const char *message)
{
    assert_false(make(fixture, "'a': 'b'", pod_spec, ""));
    assert_string_equal(fixture->error.message, message);
}

static const char *joined(struct fixture *fixture, char *const *words)
{
    const char *text = "";
    for (; *words; words++) {
        text = arena_format(fixture->arena, "%s[%s]", text, *words);
    }
    return text;
}

static const char *variable(struct fixture *fixture, const char *name)
{
    return local_plan_variable(fixture->plan.environment, name);
}

static void test_arguments(void **state)
{
    struct fixture *fixture = *state;
    check_made(fixture, "'containers': [{'name': 'c', 'command': ['sh', '-c'], 'args': ['$(A)', "
                        "'$$(A)', '$(PATH)'], 'env': [{'name': 'A', 'value': '1'}]}]");
    assert_string_equal(joined(fixture, fixture->plan.arguments), "[sh][-c][1][$(A)][$(PATH)]");
    assert_string_equal(fixture->plan.container, "c");
    assert_null(fixture->plan.working_folder);
    check_made(fixture, "'containers': [{'name': 'c', 'command': ['python', '-m', 'x']}]");
    assert_string_equal(joined(fixture, fixture->plan.arguments), "[/opt/python][-m][x]");
    check_made(fixture, "'containers': [{'name': 'c', 'command': ['python3.11', 'python']}]");
    assert_string_equal(joined(fixture, fixture->plan.arguments), "[python3.11][python]");
}

static void test_main_container(void **state)
{
    struct fixture *fixture = *state;
    const char *two = "'containers': [{'name': 'a', 'command': ['x']}, {'name': 'b', 'command': "
                      "['y']}]";
    check_made(fixture, two);
    assert_string_equal(fixture->plan.container, "a");
    assert_true(make(fixture, "'kubectl.kubernetes.io/default-container': 'b'", two, ""));
    assert_string_equal(fixture->plan.container, "b");
    assert_false(make(fixture, "'kubectl.kubernetes.io/default-container': 'z'", two, ""));
    assert_string_equal(fixture->error.message, "the Job has no container called z");
}

static void test_environment(void **state)
{
    struct fixture *fixture = *state;
    check_made(fixture,
               "'containers': [{'name': 'c', 'command': ['x'], 'env': ["
               "{'name': 'A', 'value': '1'}, {'name': 'B', 'value': '$(A)$(C)'}, {'name': 'C'},"
               "{'name': 'LANG', 'value': 'de'},"
               "{'name': 'NAME', 'valueFrom': {'fieldRef': {'fieldPath': 'metadata.name'}}},"
               "{'name': 'SPACE', 'valueFrom': {'fieldRef': {'fieldPath': "
               "'metadata.namespace'}}},"
               "{'name': 'NOTE', 'valueFrom': {'fieldRef': {'fieldPath': "
               "'metadata.annotations[`a`]'}}},"
               "{'name': 'LABEL', 'valueFrom': {'fieldRef': {'fieldPath': "
               "'metadata.labels[`app`]'}}},"
               "{'name': 'MISSING', 'valueFrom': {'fieldRef': {'fieldPath': "
               "'metadata.labels[`no`]'}}},"
               "{'name': 'OPTIONAL', 'valueFrom': {'secretKeyRef': {'name': 's', 'key': 'k', "
               "'optional': true}}}]}]");
    assert_string_equal(variable(fixture, "B"), "1$(C)");
    assert_string_equal(variable(fixture, "C"), "");
    assert_string_equal(variable(fixture, "PATH"), "/bin");
    assert_string_equal(variable(fixture, "LANG"), "de");
    assert_string_equal(variable(fixture, "NAME"), "train-1");
    assert_string_equal(variable(fixture, "SPACE"), "tenant-user");
    assert_string_equal(variable(fixture, "NOTE"), "b");
    assert_string_equal(variable(fixture, "LABEL"), "train");
    assert_string_equal(variable(fixture, "MISSING"), "");
    assert_null(variable(fixture, "OPTIONAL"));
    assert_null(variable(fixture, "HOME"));
    assert_null(variable(fixture, "CELERY_BROKER_URL"));
    assert_null(variable(fixture, "PETIOLE_PYTHON"));
}

static void test_task_and_result_file(void **state)
{
    struct fixture *fixture = *state;
    check_made(fixture, "'containers': [{'name': 'c', 'command': ['x'], 'env': ["
                        "{'name': 'PETIOLE_RESULT_FILE', 'value': '/dev/termination-log'}]}]");
    assert_string_equal(variable(fixture, "PETIOLE_TASK_FILE"), "/run/x/task.json");
    assert_string_equal(variable(fixture, "PETIOLE_RESULT_FILE"), "/run/x/result.json");
    assert_string_equal(fixture->plan.result_file, "/run/x/result.json");
    assert_int_equal(fixture->plan.file_count, 1);
    assert_string_equal(fixture->plan.files[0].path, "/run/x/task.json");
    assert_true(bytes_equal_text(fixture->plan.files[0].content, "{\"v\": 1}"));
}

#define VOLUMES                                                                                    \
    "'volumes': [{'name': 'tmp', 'emptyDir': {}}, {'name': 'out', 'persistentVolumeClaim': "       \
    "{'claimName': 'results-pvc'}}, {'name': 'task', 'downwardAPI': {'items': [{'path': "          \
    "'in/message', 'fieldRef': {'fieldPath': 'metadata.annotations[`petiole.dev/message`]'}}]}}]"

static void test_volumes(void **state)
{
    struct fixture *fixture = *state;
    check_made(fixture,
               "'containers': [{'name': 'c', 'workingDir': '/tmp/w', 'command': ['cat', "
               "'/task/in/message', '/results/a', '$(OUT)/b', '/tmpx'], 'env': "
               "[{'name': 'OUT', 'value': '/results'}], 'volumeMounts': ["
               "{'name': 'tmp', 'mountPath': '/tmp/'}, {'name': 'task', 'mountPath': "
               "'/task'}, {'name': 'out', 'mountPath': '/results', 'subPath': 'id'}]}], " VOLUMES);
    assert_string_equal(joined(fixture, fixture->plan.arguments),
                        "[cat][/run/x/volumes/task/in/message][/run/claims/results-pvc/id/a]"
                        "[/run/claims/results-pvc/id/b][/tmpx]");
    assert_string_equal(variable(fixture, "OUT"), "/run/claims/results-pvc/id");
    assert_string_equal(fixture->plan.working_folder, "/run/x/volumes/tmp/w");
    static const char *const folders[] = {
        "/run/x/volumes/tmp",
        "/run/x/volumes/task/in",
        "/run/x/volumes/task",
        "/run/claims/results-pvc/id",
    };

    for (size_t i = 0; i < ARRAY_LENGTH(folders); i++) {
        assert_string_equal(fixture->plan.folders[i], folders[i]);
    }
    assert_null(fixture->plan.folders[ARRAY_LENGTH(folders)]);
    assert_int_equal(fixture->plan.file_count, 2);
    assert_string_equal(fixture->plan.files[0].path, "/run/x/volumes/task/in/message");
    assert_true(bytes_equal_text(fixture->plan.files[0].content, "{\"v\": 1}"));
}

static void test_paths_lead_downwards(void **state)
{
    struct fixture *fixture = *state;
    static const char *const sub_paths[] = {"..", "a/../../b", "/etc", ""};

    for (size_t i = 0; i < ARRAY_LENGTH(sub_paths); i++) {
        const char *spec = arena_format(
            fixture->arena,
            "'containers': [{'name': 'c', 'command': ['x'], 'volumeMounts': [{'name': 'out', "
            "'mountPath': '/o', 'subPath': '%s'}]}], " VOLUMES,
            sub_paths[i]);
        check_refused(fixture, spec,
                      "volumeMount out needs a subPath that leads downwards, or none");
    }
    check_refused(fixture,
                  "'containers': [{'name': 'c', 'command': ['x'], 'volumeMounts': [{'name': 'v', "
                  "'mountPath': '/o'}]}], 'volumes': [{'name': 'v', 'persistentVolumeClaim': "
                  "{'claimName': '../x'}}]",
                  "volume v: bad claimName");
    check_refused(fixture,
                  "'containers': [{'name': 'c', 'command': ['x'], 'volumeMounts': [{'name': 'v', "
                  "'mountPath': '/o'}]}], 'volumes': [{'name': 'v', 'downwardAPI': {'items': "
                  "[{'path': '../x', 'fieldRef': {'fieldPath': 'metadata.name'}}]}}]",
                  "volume v, item 0: its path must lead downwards");
}

static void test_what_only_a_cluster_has_is_refused(void **state)
{
    struct fixture *fixture = *state;
    check_refused(fixture, "'containers': [{'name': 'c', 'args': ['x']}]",
                  "container c has no command, and its image's own is not known without a cluster");
    check_refused(fixture,
                  "'containers': [{'name': 'c', 'command': ['x'], 'envFrom': [{'secretRef': "
                  "{'name': 's'}}]}]",
                  "envFrom, entry 0: its values are only known to a cluster");
    check_refused(fixture,
                  "'containers': [{'name': 'c', 'command': ['x'], 'env': [{'name': 'A', "
                  "'valueFrom': {'configMapKeyRef': {'name': 'm', 'key': 'k'}}}]}]",
                  "env A: its value is only known to a cluster");
    check_refused(fixture,
                  "'containers': [{'name': 'c', 'command': ['x'], 'env': [{'name': 'A', "
                  "'valueFrom': {'fieldRef': {'fieldPath': 'status.podIP'}}}]}]",
                  "env A: fieldPath status.podIP is not known without a cluster");
    check_refused(fixture,
                  "'containers': [{'name': 'c', 'command': ['x'], 'volumeMounts': [{'name': 'v', "
                  "'mountPath': '/o'}]}], 'volumes': [{'name': 'v', 'hostPath': {'path': '/'}}]",
                  "volume v is of a kind that only a cluster has (emptyDir, downwardAPI and "
                  "persistentVolumeClaim work without one)");
}

static void test_bad_templates_are_refused(void **state)
{
    struct fixture *fixture = *state;
    check_refused(fixture, "'containers': []", "the Job has no container");
    check_refused(fixture, "'containers': [{'name': 'c', 'command': [1]}]",
                  "command, word 0 must be a string");
    check_refused(fixture,
                  "'containers': [{'name': 'c', 'command': ['x'], 'env': [{'name': 'A', 'value': "
                  "1}]}]",
                  "env A must be a string");
    check_refused(fixture,
                  "'containers': [{'name': 'c', 'command': ['x'], 'env': [{'name': 'A=B'}]}]",
                  "env, entry 0 has no good name");
    check_refused(fixture,
                  "'containers': [{'name': 'c', 'command': ['x'], 'volumeMounts': [{'name': 'v', "
                  "'mountPath': '/o'}]}]",
                  "volumeMount v needs a volume and an absolute mountPath");
}

static void check_limits(struct fixture *fixture, const char *pod_spec, const char *job_spec,
                         double deadline_s, double grace_s)
{
    const char *spec = arena_format(fixture->arena,
                                    "%s 'containers': [{'name': 'c', 'command': ['x']}]", pod_spec);
    assert_true(make(fixture, "", spec, job_spec));
    assert_true(fixture->plan.deadline_s == deadline_s);
    assert_true(fixture->plan.grace_s == grace_s);
}

static void test_limits(void **state)
{
    struct fixture *fixture = *state;
    check_limits(fixture, "", "", 0.0, 30.0);
    check_limits(fixture, "'activeDeadlineSeconds': 5,", "", 5.0, 30.0);
    check_limits(fixture, "", "'activeDeadlineSeconds': 7,", 7.0, 30.0);
    check_limits(fixture, "'activeDeadlineSeconds': 5,", "'activeDeadlineSeconds': 7,", 5.0, 30.0);
    check_limits(fixture, "'activeDeadlineSeconds': 9,", "'activeDeadlineSeconds': 7,", 7.0, 30.0);
    check_limits(fixture, "'terminationGracePeriodSeconds': 1,", "", 0.0, 1.0);
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_arguments),
        TEST(test_main_container),
        TEST(test_environment),
        TEST(test_task_and_result_file),
        TEST(test_volumes),
        TEST(test_paths_lead_downwards),
        TEST(test_what_only_a_cluster_has_is_refused),
        TEST(test_bad_templates_are_refused),
        TEST(test_limits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
