/* Settings from file, environment and command line (worker/settings.h), hostile files included. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <unistd.h>

#include "worker/settings.h"

#define NO_NAMESPACE "/nonexistent/namespace"

struct fixture {
    char folder[32];
    char path[64];
    char namespace_path[64];
    struct settings settings;
    struct settings_sources sources;
    struct arena *arena;
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
    (void)snprintf(fixture->namespace_path, sizeof(fixture->namespace_path), "%s/namespace",
                   fixture->folder);
    fixture->sources.namespace_path = NO_NAMESPACE;
    fixture->arena = arena_new(1024);
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *fixture = *state;
    settings_fini(&fixture->settings);
    arena_free(&fixture->arena);
    (void)unlink(fixture->path);
    (void)unlink(fixture->namespace_path);
    (void)rmdir(fixture->folder);
    memory_free(&fixture);
    return 0;
}

static void write_file(const char *path, const char *text)
{
    FILE *file = fopen(path, "we");
    assert_non_null(file);
    assert_true(fputs(text, file) >= 0);
    assert_int_equal(fclose(file), 0);
}

/* `variables` end with NULL. */
static void set_environment(struct fixture *fixture, const char *const *variables)
{
    size_t count = 0;
    while (variables[count]) {
        count++;
    }
    char **copies = arena_alloc(fixture->arena, (count + 1) * sizeof(*copies));
    for (size_t index = 0; index < count; index++) {
        copies[index] = arena_text(fixture->arena, bytes_from_text(variables[index]));
    }
    fixture->sources.environment = copies;
}

static const struct settings *load(struct fixture *fixture)
{
    struct error error = {0};
    settings_fini(&fixture->settings);
    if (!settings_load(&fixture->settings, &fixture->sources, &error)) {
        fail_msg("%s", error.message);
    }
    return &fixture->settings;
}

static const struct settings *load_text(struct fixture *fixture, const char *text)
{
    write_file(fixture->path, text);
    fixture->sources.config_path = fixture->path;
    return load(fixture);
}

static void check_fails(struct fixture *fixture, const char *expected)
{
    struct error error = {0};
    settings_fini(&fixture->settings);
    assert_false(settings_load(&fixture->settings, &fixture->sources, &error));
    assert_int_equal(error.kind, ERROR_INVALID);
    if (!strstr(error.message, expected)) {
        fail_msg("\"%s\" is not in \"%s\"", expected, error.message);
    }
    assert_null(strstr(error.message, "hunter2"));
}

static void check_refused(struct fixture *fixture, const char *text, const char *expected)
{
    write_file(fixture->path, text);
    fixture->sources.config_path = fixture->path;
    check_fails(fixture, expected);
}

static bool has_note(const struct settings *settings, enum log_level level, const char *part)
{
    for (size_t index = 0; index < settings->note_count; index++) {
        assert_null(strstr(settings->notes[index].text, "hunter2"));
        if (settings->notes[index].level == level && strstr(settings->notes[index].text, part)) {
            return true;
        }
    }
    return false;
}

static void test_defaults(void **state)
{
    const struct settings *settings = load(*state);
    assert_int_equal(settings->kubernetes_max_jobs, 1000);
    assert_int_equal(settings->kubernetes_result_ttl, 60);
    assert_int_equal(settings->worker_lookahead, 16);
    assert_string_equal(settings->worker_http_address, "0.0.0.0:9808");
    assert_string_equal(settings->tenant_path, "kwargs.config.metadata.namespace");
    assert_true(settings->result_expires == 86400.0);
    assert_int_equal(settings->broker_connection_max_retries, 100);
    assert_int_equal(settings->broker_connection_retry_on_startup, SETTING_NONE);
    assert_null(settings->result_backend);
    assert_null(settings->broker);
    assert_true(settings->worker_concurrency >= 1);
    assert_int_equal(settings->runtime_bucket_count, 13);
    assert_string_equal(settings->tenant, "tenant-user");
    assert_int_equal(settings->queue_count, 1);
    assert_string_equal(settings->queues[0], "tenant-user");
    assert_int_equal(settings->note_count, 0);
    assert_null(registry_row(settings->registry, 0));
}

static void test_order_of_sources(void **state)
{
    struct fixture *fixture = *state;
    const char *const environment[] = {"PETIOLE_WORKER_LOOKAHEAD=3",
                                       "PETIOLE_KUBERNETES_MAX_JOBS=4",
                                       "CELERY_BROKER_URL=redis://env/0", "PATH=/bin", NULL};
    const struct setting_override overrides[] = {
        {"kubernetes_max_jobs", "5", "option --x"},
        {"kubernetes_max_jobs", "6", "option --x"},
    };
    set_environment(fixture, environment);
    fixture->sources.overrides = overrides;
    fixture->sources.override_count = 2;
    const struct settings *settings =
        load_text(fixture, "worker_lookahead: 1\nkubernetes_max_jobs: 1\nkubernetes_result_ttl: 1\n"
                           "broker_url: redis://file/0\n");
    assert_int_equal(settings->kubernetes_result_ttl, 1);
    assert_int_equal(settings->worker_lookahead, 3);
    assert_int_equal(settings->kubernetes_max_jobs, 6);
    assert_string_equal(settings->broker, "redis://env/0");
    assert_string_equal(settings->origins[SETTING_ID_kubernetes_max_jobs], "option --x");
    assert_false(settings->is_set[SETTING_ID_tenant_path]);
}

static void test_kinds(void **state)
{
    const struct settings *settings = load_text(
        *state, "task_acks_late: YES\nbroker_connection_retry_on_startup: off\nresult_expires: "
                "null\ntask_time_limit: 1.5\naccept_content: [json]\nworker_concurrency: auto\n"
                "timezone: Asia/Taipei\nbroker_connection_max_retries: None\nworker_http_address: "
                "\"\"\nbroker_transport_options: {visibility_timeout: 3600}\n");
    assert_true(settings->task_acks_late);
    assert_int_equal(settings->broker_connection_retry_on_startup, SETTING_FALSE);
    assert_true(settings->result_expires == 0.0);
    assert_true(settings->task_time_limit == 1.5);
    assert_true(settings->worker_concurrency >= 1);
    assert_string_equal(settings->timezone, "Asia/Taipei");
    assert_int_equal(settings->broker_connection_max_retries, -1);
    assert_string_equal(settings->worker_http_address, "");
    assert_string_equal(
        yaml_get(settings->broker_transport_options, "visibility_timeout")->text.data, "3600");
}

static void test_environment_forms(void **state)
{
    struct fixture *fixture = *state;
    const char *const environment[] = {"PETIOLE_TASK_ACKS_LATE=1",
                                       "PETIOLE_ACCEPT_CONTENT=json, application/json,",
                                       "PETIOLE_BROKER_TRANSPORT_OPTIONS={visibility_timeout: 60}",
                                       "PETIOLE_WORKER_HTTP_ADDRESS=",
                                       "PETIOLE_WORKER_LOOKAHEAD=",
                                       "CELERY_BROKER_URL=redis://celery:hunter2@h/0",
                                       "PETIOLE_BROKER_URL=redis://:hunter2#x@h/0",
                                       "PETIOLE_CELERY_WORKER_PORT=tcp://10.0.0.1:9808",
                                       "PETIOLE_CONFIG=x",
                                       "CELERY_PORT=tcp://10.0.0.1:80",
                                       NULL};
    set_environment(fixture, environment);
    const struct settings *settings = load(fixture);
    assert_true(settings->task_acks_late);
    assert_string_equal(settings->accept_content[1], "application/json");
    assert_null(settings->accept_content[2]);
    assert_non_null(yaml_get(settings->broker_transport_options, "visibility_timeout"));
    assert_string_equal(settings->worker_http_address, "");
    assert_int_equal(settings->worker_lookahead, 16);
    assert_string_equal(settings->broker, "redis://:hunter2#x@h/0");
    assert_true(has_note(settings, LOG_DEBUG, "PETIOLE_CELERY_WORKER_PORT"));
    assert_false(has_note(settings, LOG_DEBUG, "PETIOLE_CONFIG"));
}

/* A mistyped variable is told; what may be somebody else's is none of the operator's business. */
static void test_unknown_variables(void **state)
{
    struct fixture *fixture = *state;
    const char *const environment[] = {"PETIOLE_WORKER_CONCURENCY=3",
                                       "PETIOLE_worker_lookahead=1",
                                       "PETIOLE_MANIFST=app.json",
                                       "PETIOLE_SERVICE_HOST=10.0.0.1",
                                       "PETIOLE_PORT_9808_TCP_ADDR=10.0.0.1",
                                       "PETIOLE_WORKER_PORT=tcp://10.0.0.1:9808",
                                       "PETIOLE_=x",
                                       NULL};
    set_environment(fixture, environment);
    const struct settings *settings = load(fixture);
    assert_true(has_note(settings, LOG_WARNING,
                         "Environment variable PETIOLE_WORKER_CONCURENCY is not understood and was "
                         "ignored, did you mean PETIOLE_WORKER_CONCURRENCY"));
    assert_true(has_note(settings, LOG_WARNING, "did you mean PETIOLE_WORKER_LOOKAHEAD?"));
    assert_true(has_note(settings, LOG_WARNING, "did you mean PETIOLE_MANIFEST?"));
    assert_true(has_note(settings, LOG_DEBUG, "PETIOLE_SERVICE_HOST is not understood"));
    assert_true(has_note(settings, LOG_DEBUG, "PETIOLE_PORT_9808_TCP_ADDR is not understood"));
    assert_true(has_note(settings, LOG_DEBUG, "PETIOLE_WORKER_PORT is not understood"));
    assert_true(has_note(settings, LOG_DEBUG, "PETIOLE_ is not understood and was ignored."));
}

static void test_bad_values_name_their_place(void **state)
{
    struct fixture *fixture = *state;
    check_refused(fixture, "\nworker_lookahead: many\n",
                  "petiole.yaml:2: worker_lookahead: a whole number from 0 to 1000000000 is "
                  "allowed, not \"many\"");
    check_refused(fixture, "worker_lookahead: -1\n", "petiole.yaml:1: worker_lookahead");
    check_refused(fixture, "worker_lookahead: [1]\n", "not a sequence");
    check_refused(fixture, "task_acks_late: maybe\n", "true or false is allowed");
    check_refused(fixture, "broker_url: http://:hunter2@example.com\n",
                  "petiole.yaml:1: broker_url: a URL that begins with redis://");
    check_refused(fixture, "broker_url: hunter2\n", "a URL that begins with");
    check_refused(fixture, "task_time_limit: soon\n", "a number of seconds");
    check_refused(fixture, "result_backend: {a: hunter2}\n", "a text is allowed, not a mapping");
    check_refused(fixture, "broker_url: [{a: hunter2}]\n", "a list of texts is allowed");
    check_refused(fixture, "\nworker_http_address: nowhere\n",
                  "petiole.yaml:2: worker_http_address: an address");
    check_refused(fixture, "timezone: Mars/Olympus\n", "petiole.yaml:1: timezone: ");
    check_refused(fixture, "kubernetes_namespace: Bad_Name\n", "lower-case letters");
    check_refused(fixture, "tenant_path: config..x\n", "tenant_path");
    check_refused(fixture, "result_serializer: pickle\n", "json is allowed");
    check_refused(fixture, "kubernetes_quota_reserve: {pods: many}\n", "a whole number");
    check_refused(fixture, "kubernetes_quota_reserve: {cpu: 1}\n", "pods and a whole number");
    check_refused(fixture, "worker_runtime_buckets: [1, 1]\n", "a growing list");
    check_refused(fixture, "task_queues: celery\n", "a list of names or a mapping");
    check_refused(fixture, "task_queues: [{exchange: x}]\n", "each queue needs a name");
    check_refused(fixture, "- a\n", "a mapping from settings to values");
    check_refused(fixture, "a: [\n", "petiole.yaml:2: ");
    fixture->sources.config_path = NULL;
    const char *const environment[] = {"PETIOLE_WORKER_LOOKAHEAD=many", NULL};
    set_environment(fixture, environment);
    check_fails(fixture,
                "environment variable PETIOLE_WORKER_LOOKAHEAD: worker_lookahead: a whole");
}

static void test_unknown_names(void **state)
{
    struct fixture *fixture = *state;
    check_refused(fixture, "\nbrokr_url: redis://:hunter2@x\n",
                  "petiole.yaml:2: there is no setting \"brokr_url\", did you mean broker_url");
    check_refused(fixture, "completely_other: 1\n", "there is no setting \"completely_other\"");
    check_refused(fixture, "BROKER_URL: x\n",
                  "petiole.yaml:1: BROKER_URL is the old name of a setting: write broker_url");
    check_refused(fixture, "CELERYD_CONCURRENCY: 1\n", "write worker_concurrency");
    check_refused(fixture, "CELERY_TASK_RESULT_EXPIRES: 1\n", "write result_expires");
}

static void test_missing_and_large_file(void **state)
{
    struct fixture *fixture = *state;
    fixture->sources.config_path = "/nonexistent/petiole.yaml";
    check_fails(fixture, "/nonexistent/petiole.yaml: cannot be opened");
    char *text = memory_new(1100000);
    memset(text, '#', 1100000 - 1);
    check_refused(fixture, text, "larger than");
    memory_free(&text);
}

static void test_accepted_settings_leave_a_debug_note(void **state)
{
    const struct settings *settings =
        load_text(*state, "beat_schedule: {a: [1, {b: c}]}\nworker_prefetch_multiplier: 1\n"
                          "accept_content: [json, pickle]\nworker_send_task_events: true\n");
    assert_true(has_note(settings, LOG_WARNING, "no task events"));
    assert_true(has_note(settings, LOG_DEBUG, "beat_schedule has no effect"));
    assert_true(has_note(settings, LOG_DEBUG, "worker_prefetch_multiplier has no effect"));
    assert_true(has_note(settings, LOG_DEBUG, "messages in pickle are opened by Python"));
    assert_int_equal(settings->note_count, 4);
}

static void check_pool(struct fixture *fixture, const char *pool, const char *name,
                       const char *part)
{
    char text[160];
    (void)snprintf(text, sizeof(text), "worker_pool: %s\nworker_concurrency: 7\n", pool);
    const struct settings *settings = load_text(fixture, text);
    assert_string_equal(settings->worker_pool, name);
    assert_int_equal(settings->note_count, part ? 1 : 0);
    assert_true(!part || has_note(settings, LOG_WARNING, part));
}

static void test_pools_are_processes(void **state)
{
    check_pool(*state, "null", "prefork", NULL);
    check_pool(*state, "prefork", "prefork", NULL);
    check_pool(*state, "processes", "prefork", NULL);
    check_pool(*state, "celery.concurrency.prefork:TaskPool", "prefork", NULL);
    check_pool(*state, "solo", "solo", "-P solo: tasks of the app run one at a time");
    check_pool(*state, "celery.concurrency.solo.TaskPool", "solo", "-P prefork -c 1");
    check_pool(*state, "threads", "threads",
               "-P threads: tasks of the app run in Python processes");
    check_pool(*state, "celery.concurrency.thread:TaskPool", "threads", "up to 7 are started");
    check_pool(*state, "gevent", "gevent", "-P gevent: tasks of the app run in Python processes");
    check_pool(*state, "eventlet", "eventlet", "as by -P prefork; -c sets how many");
    check_pool(*state, "proj.pools:Mine", "proj.pools:Mine", "-P proj.pools:Mine: a pool class");
}

static void test_broker_urls(void **state)
{
    struct fixture *fixture = *state;
    const struct settings *settings = load_text(
        fixture, "broker_url: 'amqp://u:hunter2@h//; redis://:hunter2@a/0;redis://b/0'\n");
    assert_string_equal(settings->broker, "redis://:hunter2@a/0");
    assert_true(has_note(settings, LOG_WARNING, "URL number 1"));
    assert_true(has_note(settings, LOG_WARNING, "no failover"));
    settings = load_text(fixture, "broker_url: [redis://a/0]\nbroker_read_url: rediss://r/1\n"
                                  "broker_write_url: redis://w/1\n");
    assert_string_equal(settings->broker, "rediss://r/1");
    assert_true(has_note(settings, LOG_WARNING, "broker_write_url is not used"));
    settings = load_text(fixture, "broker_url: amqp://u:hunter2@h//\n");
    assert_string_equal(settings->broker, "amqp://u:hunter2@h//");
    assert_int_equal(settings->note_count, 0);
}

static void test_namespace(void **state)
{
    struct fixture *fixture = *state;
    write_file(fixture->namespace_path, "tenant-a\n");
    fixture->sources.namespace_path = fixture->namespace_path;
    const struct settings *settings = load(fixture);
    assert_string_equal(settings->kubernetes_namespace, "tenant-a");
    assert_string_equal(settings->queues[0], "tenant-a");
    settings = load_text(fixture, "kubernetes_namespace: tenant-b\n");
    assert_string_equal(settings->tenant, "tenant-b");
    settings_set_namespace(&fixture->settings, "tenant-c");
    assert_string_equal(settings->tenant, "tenant-b");

    fixture->sources.namespace_path = NO_NAMESPACE;
    settings = load_text(fixture, "tenant_default: other\nworker_direct: true\n");
    assert_string_equal(settings->queues[0], "other");
    settings_set_namespace(&fixture->settings, "tenant-c");
    assert_string_equal(settings->kubernetes_namespace, "tenant-c");
    assert_string_equal(settings->tenant, "tenant-c");
    assert_string_equal(settings->queues[0], "tenant-c");
    assert_int_equal(settings->queue_count, 1);
}

static void test_table_prints_as_markdown(void **state)
{
    (void)state;
    char *text = NULL;
    size_t length = 0;
    FILE *file = open_memstream(&text, &length);
    assert_non_null(file);
    settings_print_markdown(file);
    assert_int_equal(fclose(file), 0);
    assert_non_null(strstr(text, "| `kubernetes_max_jobs` | `1000` | "));
    assert_non_null(strstr(text, "| `worker_timer` | `null` | "));
    memory_free(&text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_defaults, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_order_of_sources, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_kinds, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_environment_forms, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_unknown_variables, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_bad_values_name_their_place, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_unknown_names, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_missing_and_large_file, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_pools_are_processes, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_accepted_settings_leave_a_debug_note, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(test_broker_urls, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_namespace, set_up, tear_down),
        cmocka_unit_test(test_table_prints_as_markdown),
    };
    return cmocka_run_group_tests_name("settings", tests, NULL, NULL);
}
