/* The section `tasks` of the settings (worker/settings_tasks.h). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <unistd.h>

#include "worker/settings.h"

struct fixture {
    char folder[32];
    char path[64];
    struct settings settings;
};

static int set_up(void **state)
{
    struct fixture *fixture = memory_new(sizeof(*fixture));
    (void)snprintf(fixture->folder, sizeof(fixture->folder), "/tmp/petiole-test-XXXXXX");
    *state = fixture;
    if (!mkdtemp(fixture->folder)) {
        return -1;
    }
    (void)snprintf(fixture->path, sizeof(fixture->path), "%s/petiole.yaml", fixture->folder);
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *fixture = *state;
    settings_fini(&fixture->settings);
    (void)unlink(fixture->path);
    (void)rmdir(fixture->folder);
    memory_free(&fixture);
    return 0;
}

static bool load(struct fixture *fixture, const char *text, struct error *reterr)
{
    FILE *file = fopen(fixture->path, "we");
    assert_non_null(file);
    assert_true(fputs(text, file) >= 0);
    assert_int_equal(fclose(file), 0);
    const struct settings_sources sources = {.config_path = fixture->path,
                                             .namespace_path = "/nonexistent/namespace"};
    settings_fini(&fixture->settings);
    return settings_load(&fixture->settings, &sources, reterr);
}

static const struct task_type *load_row(struct fixture *fixture, const char *text, const char *task)
{
    struct error error = {0};
    if (!load(fixture, text, &error)) {
        fail_msg("%s", error.message);
    }
    const struct task_type *type = registry_find(fixture->settings.registry, bytes_from_text(task));
    assert_non_null(type);
    return type;
}

static void check_refused(struct fixture *fixture, const char *text, const char *expected)
{
    struct error error = {0};
    assert_false(load(fixture, text, &error));
    assert_int_equal(error.kind, ERROR_INVALID);
    if (!strstr(error.message, expected)) {
        fail_msg("\"%s\" is not in \"%s\"", expected, error.message);
    }
}

static void test_retry_on_worker_lost(void **state)
{
    struct fixture *fixture = *state;
    const char *setting = "task_retry_on_worker_lost: true\ntasks:\n  a: {executor: process}\n"
                          "  b: {executor: process, retry_on_worker_lost: false}\n";
    assert_true(load_row(fixture, setting, "a")->retry_on_worker_lost);
    assert_false(load_row(fixture, setting, "b")->retry_on_worker_lost);
}

static void test_every_option(void **state)
{
    const struct task_type *type =
        load_row(*state,
                 "tasks:\n"
                 "  'app.*':\n"
                 "    executor: local\n    job_template: /t/job.yaml\n"
                 "    override: [/spec/a, /spec/b]\n    acks_late: true\n"
                 "    acks_on_failure: false\n    acks_on_timeout: true\n"
                 "    reject_on_worker_lost: true\n    ignore_result: true\n"
                 "    store_errors_even_if_ignored: true\n    track_started: true\n"
                 "    time_limit: 10\n    soft_time_limit: 5.5\n"
                 "    autoretry_for: [OSError, my.Error]\n    dont_autoretry_for: KeyError\n"
                 "    max_retries: null\n    default_retry_delay: 7\n    retry_backoff: true\n"
                 "    retry_backoff_max: 60\n    retry_jitter: false\n    rate_limit: 10/m\n",
                 "app.train");
    assert_int_equal(type->executor, TASK_LOCAL);
    assert_string_equal(type->job_template, "/t/job.yaml");
    assert_string_equal(type->overrides[1], "/spec/b");
    assert_null(type->overrides[2]);
    assert_true(type->acks_late);
    assert_false(type->acks_on_failure);
    assert_true(type->acks_on_timeout);
    assert_true(type->reject_on_worker_lost);
    assert_int_equal(type->ignore_result, MESSAGE_YES);
    assert_true(type->store_errors_even_if_ignored);
    assert_true(type->track_started);
    assert_true(type->time_limit_s == 10.0);
    assert_true(type->soft_time_limit_s == 5.5);
    assert_string_equal(type->autoretry_for[1], "my.Error");
    assert_string_equal(type->dont_autoretry_for[0], "KeyError");
    assert_int_equal(type->max_retries, -1);
    assert_true(type->default_retry_delay_s == 7.0);
    assert_true(type->retry_backoff == 1.0);
    assert_true(type->retry_backoff_max_s == 60.0);
    assert_false(type->retry_jitter);
}

static void test_defaults_are_the_task_settings(void **state)
{
    const struct task_type *type =
        load_row(*state,
                 "task_acks_late: true\ntask_time_limit: 9\ntask_acks_on_failure_or_timeout: "
                 "false\ntask_acks_on_timeout: true\ntask_track_started: true\n"
                 "tasks: {a: {executor: native}}\n",
                 "a");
    assert_int_equal(type->executor, TASK_NATIVE);
    assert_true(type->acks_late);
    assert_true(type->time_limit_s == 9.0);
    assert_false(type->acks_on_failure);
    assert_true(type->acks_on_timeout);
    assert_true(type->track_started);
    assert_int_equal(type->max_retries, 3);
    assert_true(type->retry_jitter);
    assert_int_equal(type->ignore_result, MESSAGE_NO);
}

static void test_templates_are_beside_the_file(void **state)
{
    struct fixture *fixture = *state;
    char expected[96];
    (void)snprintf(expected, sizeof(expected), "%s/train.yaml", fixture->folder);
    const struct task_type *type =
        load_row(fixture, "tasks: {a: {job_template: train.yaml}}\n", "a");
    assert_int_equal(type->executor, TASK_KUBERNETES);
    assert_string_equal(type->job_template, expected);
}

static void test_first_match_wins(void **state)
{
    const struct task_type *type = load_row(
        *state, "tasks:\n  a.b: {executor: native, max_retries: 1}\n  a.*: {executor: native}\n",
        "a.b");
    assert_int_equal(type->max_retries, 1);
}

static void test_retry_kwargs(void **state)
{
    const struct task_type *type = load_row(
        *state, "tasks: {a: {executor: native, retry_kwargs: {max_retries: 9, countdown: 2}}}\n",
        "a");
    assert_int_equal(type->max_retries, 9);
    assert_true(type->default_retry_delay_s == 2.0);
    check_refused(*state, "tasks: {a: {executor: native, retry_kwargs: {eta: 1}}}\n",
                  "max_retries and countdown are allowed");
}

static void test_refused(void **state)
{
    check_refused(*state, "tasks: [a]\n", "petiole.yaml:1: tasks: a mapping from task names");
    check_refused(*state, "tasks:\n  a: kubernetes\n", "petiole.yaml:2: tasks: a: a mapping of");
    check_refused(*state, "tasks:\n  a:\n", "a mapping of options is allowed, not nothing");
    check_refused(
        *state, "tasks:\n  a:\n    executr: x\n",
        "petiole.yaml:3: tasks: a: executr: is no option of a task, did you mean executor");
    check_refused(*state, "tasks: {a: {executor: docker}}\n",
                  "kubernetes, local, process or native is allowed, not \"docker\"");
    check_refused(*state, "tasks: {a: {}}\n", "job_template: is needed");
    check_refused(*state, "tasks: {a: {executor: native, acks_late: late}}\n",
                  "acks_late: true or");
    check_refused(*state, "tasks: {a: {executor: native, time_limit: -1}}\n",
                  "time_limit: a number");
    check_refused(*state, "tasks: {a: {executor: native, max_retries: 1.5}}\n",
                  "max_retries: a whole");
    check_refused(*state, "tasks: {a: {job_template: x, override: [spec]}}\n", "JSON pointers");
    check_refused(*state, "tasks: {a: {job_template: [x]}}\n", "the path of a file");
    check_refused(*state, "tasks: {a: {job_template: x, autoretry_for: {a: b}}}\n",
                  "a list of texts");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_retry_on_worker_lost, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_every_option, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_defaults_are_the_task_settings, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_templates_are_beside_the_file, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_first_match_wins, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_retry_kwargs, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_refused, set_up, tear_down),
    };
    return cmocka_run_group_tests_name("settings_tasks", tests, NULL, NULL);
}
