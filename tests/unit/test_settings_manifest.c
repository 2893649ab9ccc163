/* The manifest of an app among the settings (worker/settings_manifest.h, settings_tasks.h), hostile
 * ones included. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <unistd.h>

#include "worker/settings.h"

struct fixture {
    char path[64];
    char manifest[8192];
    char *environment[4];
    struct settings settings;
    struct settings_sources sources;
};

static int set_up(void **state)
{
    struct fixture *fixture = memory_new(sizeof(*fixture));
    (void)snprintf(fixture->path, sizeof(fixture->path), "/tmp/petiole-test-%d.yaml",
                   (int)getpid());
    fixture->sources.namespace_path = "/nonexistent/namespace";
    fixture->sources.manifest_origin = "app proj";
    fixture->sources.environment = fixture->environment;
    *state = fixture;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *fixture = *state;
    settings_fini(&fixture->settings);
    (void)unlink(fixture->path);
    memory_free(&fixture);
    return 0;
}

/* `text` is JSON with ' for ". */
static bool load(struct fixture *fixture, const char *text, struct error *reterr)
{
    size_t length = strlen(text);
    assert_true(length < sizeof(fixture->manifest));
    for (size_t index = 0; index < length; index++) {
        fixture->manifest[index] = text[index];
        if (text[index] == '\'') {
            fixture->manifest[index] = '"';
        }
    }
    fixture->sources.manifest = bytes_of(fixture->manifest, length);
    settings_fini(&fixture->settings);
    return settings_load(&fixture->settings, &fixture->sources, reterr);
}

static const struct settings *load_ok(struct fixture *fixture, const char *text)
{
    struct error error = {0};
    if (!load(fixture, text, &error)) {
        fail_msg("%s", error.message);
    }
    return &fixture->settings;
}

static void check_refused(struct fixture *fixture, const char *text, const char *expected)
{
    struct error error = {0};
    assert_false(load(fixture, text, &error));
    assert_int_equal(error.kind, ERROR_INVALID);
    if (!strstr(error.message, expected) || !strstr(error.message, "app proj: ")) {
        fail_msg("\"%s\" is not in \"%s\"", expected, error.message);
    }
    assert_null(strstr(error.message, "hunter2"));
}

static void set_file(struct fixture *fixture, const char *text)
{
    FILE *file = fopen(fixture->path, "we");
    assert_non_null(file);
    assert_true(fputs(text, file) >= 0);
    assert_int_equal(fclose(file), 0);
    fixture->sources.config_path = fixture->path;
}

static const struct task_type *find(const struct settings *settings, const char *name)
{
    const struct task_type *type = registry_find(settings->registry, bytes_from_text(name));
    assert_non_null(type);
    return type;
}

static size_t count_notes(const struct settings *settings, enum log_level level, const char *part)
{
    size_t count = 0;
    for (size_t index = 0; index < settings->note_count; index++) {
        assert_null(strstr(settings->notes[index].text, "hunter2"));
        bool ok = settings->notes[index].level == level;
        count += ok && strstr(settings->notes[index].text, part) ? 1 : 0;
    }
    return count;
}

static void test_settings_of_the_app(void **state)
{
    const struct settings *settings = load_ok(
        *state,
        "{'v': 1, 'app': 'proj', 'settings': {'broker_url': 'redis://:hunter2@h/0',"
        " 'result_expires': 7200.5, 'task_acks_late': true, 'timezone': 'Asia/Taipei',"
        " 'broker_transport_options': {'visibility_timeout': 600}, 'worker_concurrency': 3,"
        " 'task_queues': [{'name': 'feeds', 'exchange': 'f'}, {'name': 'x'}],"
        " 'task_publish_retry': false, 'task_default_queue': '\\ud83d\\ude00'}, 'tasks': {}}");
    assert_string_equal(settings->broker, "redis://:hunter2@h/0");
    assert_true(settings->result_expires == 7200.5);
    assert_true(settings->task_acks_late);
    assert_int_equal(settings->worker_concurrency, 3);
    assert_int_equal(settings->queue_count, 2);
    assert_string_equal(settings->queues[0], "feeds");
    assert_string_equal(settings->manifest_origin, "app proj");
    assert_string_equal(settings->origins[SETTING_ID_task_acks_late], "app proj");
    assert_int_equal(count_notes(settings, LOG_WARNING, ""), 0);
}

static void test_later_sources_win(void **state)
{
    struct fixture *fixture = *state;
    static const struct setting_override override = {"worker_lookahead", "4", "option --x"};
    set_file(fixture, "worker_lookahead: 2\nlocal_max_processes: 2\nnative_threads: 2\n");
    fixture->environment[0] = (char[]){"PETIOLE_WORKER_LOOKAHEAD=3"};
    fixture->environment[1] = (char[]){"PETIOLE_LOCAL_MAX_PROCESSES=3"};
    fixture->sources.overrides = &override;
    fixture->sources.override_count = 1;
    const struct settings *settings =
        load_ok(fixture, "{'v': 1, 'settings': {'worker_lookahead': 1, 'local_max_processes': 1,"
                         " 'native_threads': 1, 'kubernetes_max_jobs': 1}}");
    assert_int_equal(settings->worker_lookahead, 4);
    assert_int_equal(settings->local_max_processes, 3);
    assert_int_equal(settings->native_threads, 2);
    assert_int_equal(settings->kubernetes_max_jobs, 1);
}

static void test_options_of_a_task(void **state)
{
    const struct settings *settings = load_ok(
        *state,
        "{'v': 1, 'tasks': {'proj.full': {'acks_late': true, 'acks_on_failure': false,"
        " 'reject_on_worker_lost': true, 'retry_on_worker_lost': true, 'ignore_result': true,"
        " 'track_started': true, 'time_limit': 10, 'soft_time_limit': 5.5, 'rate_limit': '10/m',"
        " 'max_retries': null, 'retry_backoff': true, 'retry_kwargs': {'countdown': 2, 'queue': 1},"
        " 'autoretry_for': ['builtins.OSError'], 'throws': ['builtins.KeyError', 'proj.Odd'],"
        " 'send_events': false, 'serializer': 'yaml', 'priority': null}, 'proj[x]*': {}}}");
    const struct task_type *type = find(settings, "proj.full");
    assert_int_equal(settings->manifest_task_count, 2);
    assert_int_equal(type->executor, TASK_PROCESS);
    assert_true(type->is_exact && type->acks_late && type->reject_on_worker_lost);
    assert_true(type->retry_on_worker_lost && type->track_started && !type->send_events);
    assert_true(!type->acks_on_failure && type->acks_on_timeout);
    assert_int_equal(type->ignore_result, MESSAGE_YES);
    assert_true(type->time_limit_s == 10 && type->soft_time_limit_s == 5.5);
    assert_string_equal(type->rate_limit, "10/m");
    assert_int_equal(type->max_retries, -1);
    assert_true(type->retry_backoff == 1 && type->default_retry_delay_s == 2);
    assert_string_equal(type->autoretry_for[0], "builtins.OSError");
    assert_string_equal(type->throws[1], "proj.Odd");
    assert_int_equal(find(settings, "proj[x]*")->executor, TASK_PROCESS);
    assert_null(registry_find(settings->registry, BYTES("projx")));
    assert_int_equal(count_notes(settings, LOG_DEBUG, "no effect"), 0);
}

static void test_null_is_not_set(void **state)
{
    const struct settings *settings =
        load_ok(*state, "{'v': 1, 'settings': {'task_reject_on_worker_lost': null},"
                        " 'tasks': {'a': {'reject_on_worker_lost': null, 'acks_on_timeout': null,"
                        " 'time_limit': null, 'rate_limit': null, 'throws': []}}}");
    assert_false(find(settings, "a")->reject_on_worker_lost);
    assert_true(find(settings, "a")->acks_on_timeout);
    assert_null(find(settings, "a")->rate_limit);
    assert_null(find(settings, "a")->throws);
}

/* Celery fills in what a task does not say from the settings; what later sources say of those must
 * hold for it. */
static void test_options_that_come_from_settings(void **state)
{
    struct fixture *fixture = *state;
    set_file(fixture, "task_acks_late: false\ntask_time_limit: 7\n");
    const struct settings *settings =
        load_ok(fixture, "{'v': 1, 'settings': {'task_acks_late': true, 'task_time_limit': 90},"
                         " 'tasks': {'filled': {'acks_late': true, 'time_limit': 90,"
                         " 'track_started': false}, 'own': {'time_limit': 5}}}");
    assert_false(find(settings, "filled")->acks_late);
    assert_true(find(settings, "filled")->time_limit_s == 7);
    assert_true(find(settings, "own")->time_limit_s == 5);
    /* The two forms have the value of acks_on_failure_or_timeout when nothing else is said. */
    set_file(fixture, "task_acks_on_timeout: false\n");
    settings = load_ok(fixture, "{'v': 1, 'tasks': {'filled': {'acks_on_failure': true,"
                                " 'acks_on_timeout': true, 'acks_on_failure_or_timeout': true},"
                                " 'own': {'acks_on_failure': false, 'acks_on_timeout': false,"
                                " 'acks_on_failure_or_timeout': false}}}");
    assert_true(find(settings, "filled")->acks_on_failure);
    assert_false(find(settings, "filled")->acks_on_timeout);
    assert_false(find(settings, "own")->acks_on_failure);
}

static void test_rows_of_the_file_win(void **state)
{
    struct fixture *fixture = *state;
    set_file(fixture, "tasks:\n"
                      "  proj.job: {executor: kubernetes, job_template: /j.yaml, time_limit: 7}\n"
                      "  proj.slow*: {time_limit: 8}\n"
                      "  proj.*: {time_limit: 9, executor: native}\n");
    const struct settings *settings =
        load_ok(fixture, "{'v': 1, 'tasks': {'proj.job': {'time_limit': 1, 'max_retries': 5},"
                         " 'proj.slow': {'time_limit': 1, 'acks_late': true}, 'other': {}}}");
    const struct task_type *job = find(settings, "proj.job");
    assert_int_equal(job->executor, TASK_KUBERNETES);
    assert_string_equal(job->job_template, "/j.yaml");
    assert_true(job->time_limit_s == 7);
    assert_int_equal(job->max_retries, 5);
    const struct task_type *slow = find(settings, "proj.slow");
    assert_int_equal(slow->executor, TASK_PROCESS);
    assert_true(slow->acks_late && slow->time_limit_s == 8);
    assert_int_equal(find(settings, "other")->executor, TASK_PROCESS);
    /* what the app does not have */
    assert_int_equal(find(settings, "proj.new")->executor, TASK_NATIVE);
    assert_int_equal(find(settings, "proj.slower")->executor, TASK_PROCESS);
    assert_null(registry_find(settings->registry, BYTES("unknown")));
}

static void test_errors_of_rows_name_the_row(void **state)
{
    struct fixture *fixture = *state;
    struct error error = {0};
    set_file(fixture, "tasks:\n  'proj.*': {time_limit: soon}\n");
    assert_false(load(fixture, "{'v': 1, 'tasks': {'proj.a': {}}}", &error));
    assert_non_null(strstr(error.message, ":2: tasks: proj.*: time_limit: "));
}

static void test_warnings(void **state)
{
    const struct settings *settings =
        load_ok(*state, "{'v': 1, 'warnings': ['The bootstep x is not run.', 7, 'Two']}");
    assert_int_equal(count_notes(settings, LOG_WARNING, "app proj: The bootstep x is not run."), 1);
    assert_int_equal(count_notes(settings, LOG_WARNING, "app proj: Two"), 1);
}

static void test_default_queue(void **state)
{
    struct fixture *fixture = *state;
    const char *part = "-Q";
    assert_int_equal(count_notes(load_ok(fixture, "{'v': 1}"), LOG_WARNING, part), 1);
    const struct settings *settings =
        load_ok(fixture, "{'v': 1, 'routes': [{'function': 'petiole.routing.by_tenant'}]}");
    assert_string_equal(settings->queues[0], settings->tenant);
    assert_int_equal(count_notes(settings, LOG_WARNING, part), 0);
    assert_int_equal(count_notes(settings, LOG_INFO, part), 1);
    settings = load_ok(fixture, "{'v': 1, 'settings': {'task_default_queue': 'tenant-user'}}");
    assert_int_equal(count_notes(settings, LOG_WARNING, part), 0);
    fixture->sources.queues = "a";
    assert_int_equal(count_notes(load_ok(fixture, "{'v': 1}"), LOG_WARNING, part), 0);
}

static void test_what_a_newer_celery_knows(void **state)
{
    const struct settings *settings =
        load_ok(*state, "{'v': 1, 'new': {}, 'settings': {'task_levitation': 1, 's3_bucket': 'b'},"
                        " 'tasks': {'a': {'levitates': true}, 'b': {'levitates': true}}}");
    assert_int_equal(count_notes(settings, LOG_DEBUG, "setting task_levitation is not known"), 1);
    assert_int_equal(count_notes(settings, LOG_DEBUG, "task option levitates"), 2);
    assert_int_equal(count_notes(settings, LOG_WARNING, "levit"), 0);
}

static void test_refused(void **state)
{
    static const struct {
        const char *text;
        const char *expected;
    } cases[] = {
        {"", "is no manifest"},
        {"{'v': 1", "is no manifest"},
        {"[]", "v: "},
        {"{}", "v: "},
        {"{'v': 'one'}", "v: "},
        {"{'v': 2}", "manifests of version 1, not 2"},
        {"{'v': 1, 'settings': []}", "settings: an object is allowed, not a list"},
        {"{'v': 1, 'tasks': 'x'}", "tasks: an object is allowed, not a single value"},
        {"{'v': 1, 'warnings': {}}", "warnings: a list is allowed, not an object"},
        {"{'v': 1, 'tasks': {'proj.a': []}}", "tasks: proj.a: an object of options"},
        {"{'v': 1, 'tasks': {'a\\u0000': {}}}", "tasks: a"},
        {"{'v': 1, 'settings': {'task_acks_late': 'perhaps'}}", "task_acks_late: true or false"},
        {"{'v': 1, 'settings': {'broker_url': 'http://u:hunter2@h'}}", "broker_url: "},
        {"{'v': 1, 'settings': {'result_serializer': 'pickle'}}", "result_serializer: json"},
        {"{'v': 1, 'settings': {'tenant_header': 'a\\u0000b'}}", "settings: "},
        {"{'v': 1, 'tasks': {}, 'v': 1}", "the key \"v\" is there twice"},
        {"{'v': 1, 'tasks': {'a': {}, 'a': {}}}", "tasks: the key \"a\" is there twice"},
        {"{'v': 1, 'tasks': {'a': {'throws': [], 'throws': []}}}",
         "tasks: a: the key \"throws\" is there twice"},
        {"{'v': 1, 'settings': {'timezone': 'UTC', 'timezone': 'UTC'}}",
         "settings: the key \"timezone\" is there twice"},
        {"{'v': 1, 'tasks': {'a': {'time_limit': 'soon'}}}", "tasks: a: time_limit: "},
        {"{'v': 1, 'tasks': {'a': {'rate_limit': '3/year'}}}", "tasks: a: rate_limit: "},
        {"{'v': 1, 'tasks': {'a': {'throws': {}}}}", "tasks: a: throws: a list"},
    };

    for (size_t index = 0; index < ARRAY_LENGTH(cases); index++) {
        check_refused(*state, cases[index].text, cases[index].expected);
    }
}

static void test_without_a_manifest(void **state)
{
    struct fixture *fixture = *state;
    fixture->sources.manifest_origin = NULL;
    const struct settings *settings = load_ok(fixture, "nonsense");
    assert_null(settings->manifest_origin);
    assert_int_equal(settings->manifest_task_count, 0);
    assert_int_equal(count_notes(settings, LOG_WARNING, ""), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_settings_of_the_app, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_later_sources_win, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_options_of_a_task, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_null_is_not_set, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_options_that_come_from_settings, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_rows_of_the_file_win, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_errors_of_rows_name_the_row, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_warnings, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_default_queue, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_what_a_newer_celery_knows, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_refused, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_without_a_manifest, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
