/* Templates as processes, behind the executor's interface (executor/executor_local.h). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <fcntl.h>
#include <unistd.h>

#include "executor/executor_local.h"
#include "executor/local_folder.h"
#include "support/executor_fixture.h"
#include "support/scratch_folder.h"

#define PROCESS_COUNT 2

/* Reports the word that a message passes. */
static const char report_template[] =
    "apiVersion: batch/v1\n"
    "kind: Job\n"
    "metadata: {}\n"
    "spec:\n"
    "  template:\n"
    "    spec:\n"
    "      restartPolicy: Never\n"
    "      containers:\n"
    "      - name: main\n"
    "        image: none\n"
    "        command: [sh, -c]\n"
    "        args:\n"
    "        - >-\n"
    "          echo task of $0;\n"
    "          sum=`printf '\"%s\"' \"$WORD\" | sha256sum | cut -c1-64`;\n"
    "          printf '{\"v\":1,\"state\":\"SUCCESS\",\"result\":\"%s\",\"traceback\":null,"
    "\"bytes\":%d,\"sha256\":\"%s\"}' \"$WORD\" `expr $${#WORD} + 2` $sum\n"
    "          > \"$PETIOLE_RESULT_FILE\"\n"
    "        env:\n"
    "        - name: WORD\n"
    "          value: \"${kwargs.word:str}\"\n";

static const char sleep_template[] = "apiVersion: batch/v1\n"
                                     "kind: Job\n"
                                     "metadata: {}\n"
                                     "spec:\n"
                                     "  template:\n"
                                     "    spec:\n"
                                     "      restartPolicy: Never\n"
                                     "      containers:\n"
                                     "      - name: main\n"
                                     "        image: none\n"
                                     "        command: [sleep, \"1000\"]\n";

static char *const environment[] = {
    (char[]){"PATH=/usr/bin:/bin"},
    NULL,
};

struct fixture {
    struct executor_fixture common;
    struct arena *arena;
    const char *folder;
    struct registry *registry;
    struct executor_local_options options;
};

static void write_file(struct fixture *fixture, const char *name, const char *text)
{
    const char *path = arena_format(fixture->arena, "%s/%s", fixture->folder, name);
    int descriptor = open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
    assert_true(descriptor >= 0);
    assert_int_equal(write(descriptor, text, strlen(text)), (ssize_t)strlen(text));
    (void)close(descriptor);
}

static void add_type(struct fixture *fixture, const char *pattern, const char *template_name)
{
    struct task_type type = registry_defaults;
    type.pattern = pattern;
    type.executor = TASK_LOCAL;
    if (template_name) {
        type.job_template = arena_format(fixture->arena, "%s/%s", fixture->folder, template_name);
    }
    (void)registry_add(fixture->registry, &type);
}

static int set_up(void **state)
{
    struct arena *arena = arena_new(1024);
    struct fixture *fixture = arena_alloc(arena, sizeof(*fixture));
    executor_fixture_init(&fixture->common);
    fixture->arena = arena;
    fixture->folder = scratch_folder_make(arena);
    fixture->registry = registry_new();
    write_file(fixture, "report.yaml", report_template);
    write_file(fixture, "sleep.yaml", sleep_template);
    fixture->options = (struct executor_local_options){
        .registry = fixture->registry,
        .namespace_name = "tenant-user",
        .max_processes = PROCESS_COUNT,
        .log_folder = arena_format(arena, "%s/logs", fixture->folder),
        .work_folder = arena_format(arena, "%s/work", fixture->folder),
        .claims_folder = arena_format(arena, "%s/claims", fixture->folder),
        .environment = environment,
    };
    *state = fixture;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *fixture = *state;
    struct arena *arena = fixture->arena;
    executor_fixture_fini(&fixture->common);
    registry_free(&fixture->registry);
    scratch_folder_remove(fixture->folder);
    arena_free(&arena);
    return 0;
}

static void start(struct fixture *fixture)
{
    struct error error = {.message = ""};
    add_type(fixture, "test.report", "report.yaml");
    add_type(fixture, "test.sleep", "sleep.yaml");
    fixture->common.executor = executor_local_new(fixture->common.loop, &fixture->options,
                                                  fixture->common.events, &fixture->common, &error);
    assert_string_equal(error.message, "");
    assert_non_null(fixture->common.executor);
    executor_fixture_start(&fixture->common);
}

static struct executor_record *record_of(struct fixture *fixture, const char *task,
                                         const char *kwargs)
{
    struct executor_record *record = executor_fixture_record(&fixture->common, task, "[]", kwargs);
    record->request.type = registry_find(fixture->registry, bytes_from_text(task));
    assert_non_null(record->request.type);
    return record;
}

static void test_a_task_runs(void **state)
{
    struct fixture *fixture = *state;
    start(fixture);
    const struct executor_ops *ops = fixture->common.executor->ops;
    struct executor_record *record = record_of(fixture, "test.report", "{\"word\": \"hello\"}");
    assert_int_equal(ops->free_slots(fixture->common.executor), PROCESS_COUNT);
    executor_fixture_submit(record);
    assert_int_equal(ops->free_slots(fixture->common.executor), PROCESS_COUNT - 1);
    assert_int_equal(ops->running_count(fixture->common.executor), 1);
    executor_fixture_wait_finished(record);
    executor_fixture_assert_result(record, "\"hello\"");
    assert_int_equal(record->started_count, 1);
    assert_true(record->started_order < record->finished_order);
    assert_int_equal(fixture->common.free_slots_count, 1);
    assert_int_equal(ops->running_count(fixture->common.executor), 0);
    const char *log_path =
        arena_format(fixture->arena, "%s/report-4ba6c1f0-3d7e-4a52-9b1c-0f2a7c9d8e11-0.log",
                     fixture->options.log_folder);
    struct bytes log = local_folder_read_end(log_path, 100, fixture->arena);
    assert_string_equal(arena_text(fixture->arena, log), "task of sh\n");
    executor_fixture_free_record(&record);
}

static void test_a_bad_value_fails_without_a_process(void **state)
{
    struct fixture *fixture = *state;
    start(fixture);
    struct executor_record *record = record_of(fixture, "test.report", "{\"word\": [1]}");
    executor_fixture_run(record);
    executor_fixture_assert_exception(record, OUTCOME_FAILURE, "petiole.exceptions",
                                      "TemplateError", NULL);
    assert_non_null(strstr(record->outcome.exc_message.data, "kwargs.word"));
    assert_int_equal(record->started_count, 0);
    executor_fixture_free_record(&record);
}

static void test_cancel(void **state)
{
    struct fixture *fixture = *state;
    start(fixture);
    struct executor_record *record = record_of(fixture, "test.sleep", "{}");
    executor_fixture_submit(record);
    executor_fixture_wait_started(record);
    executor_fixture_cancel(record);
    executor_fixture_wait_finished(record);
    executor_fixture_cancel(record);
    executor_fixture_assert_exception(record, OUTCOME_REVOKED, "celery.exceptions",
                                      "TaskRevokedError", "[\"terminated\"]");
    executor_fixture_free_record(&record);
}

static void test_time_limit_of_the_message(void **state)
{
    struct fixture *fixture = *state;
    start(fixture);
    struct executor_record *record = record_of(fixture, "test.sleep", "{}");
    record->request.message.hard_limit_s = 0.05;
    executor_fixture_run(record);
    executor_fixture_assert_exception(record, OUTCOME_FAILURE, "billiard.exceptions",
                                      "TimeLimitExceeded", "[0.05]");
    assert_true(record->outcome.timed_out);
    executor_fixture_free_record(&record);
}

static void test_close_waits_and_kill_ends(void **state)
{
    struct fixture *fixture = *state;
    start(fixture);
    const struct executor_ops *ops = fixture->common.executor->ops;
    struct executor_record *running = record_of(fixture, "test.sleep", "{}");
    struct executor_record *ending = record_of(fixture, "test.report", "{\"word\": \"end\"}");
    executor_fixture_submit(running);
    executor_fixture_submit(ending);
    executor_fixture_wait_started(running);
    executor_fixture_begin_close(&fixture->common, false);
    assert_int_equal(ops->free_slots(fixture->common.executor), 0);
    executor_fixture_wait_finished(ending);
    executor_fixture_assert_result(ending, "\"end\"");
    executor_fixture_close(&fixture->common, true);
    executor_fixture_assert_exception(running, OUTCOME_LOST, "billiard.exceptions",
                                      "WorkerLostError", NULL);
    assert_int_equal(fixture->common.free_slots_count, 0);
    executor_fixture_free_record(&running);
    executor_fixture_free_record(&ending);
}

static void test_kill_gives_back_what_has_not_begun(void **state)
{
    struct fixture *fixture = *state;
    start(fixture);
    struct executor_record *record = record_of(fixture, "test.sleep", "{}");
    executor_fixture_submit(record);
    executor_fixture_close(&fixture->common, true);
    executor_fixture_assert_exception(record, OUTCOME_REJECT, "", "", NULL);
    assert_true(record->outcome.requeue);
    assert_int_equal(record->started_count, 0);
    executor_fixture_free_record(&record);
}

static void check_refused(struct fixture *fixture, const char *message)
{
    struct error error = {.message = ""};
    assert_null(executor_local_new(fixture->common.loop, &fixture->options, fixture->common.events,
                                   &fixture->common, &error));
    assert_string_equal(error.message, message);
}

static void test_credentials_are_never_passed(void **state)
{
    struct fixture *fixture = *state;
    static const char *const names[] = {"PATH", "CELERY_BROKER_URL", NULL};
    static const char *const own_names[] = {"PETIOLE_RESULT_BACKEND", NULL};
    fixture->options.passed_names = names;
    check_refused(fixture, "CELERY_BROKER_URL is the worker's own and is never passed to a task");
    fixture->options.passed_names = own_names;
    check_refused(fixture,
                  "PETIOLE_RESULT_BACKEND is the worker's own and is never passed to a task");
}

static void test_a_task_needs_a_template(void **state)
{
    struct fixture *fixture = *state;
    add_type(fixture, "test.report", "report.yaml");
    add_type(fixture, "test.none", NULL);
    check_refused(fixture, "tasks, \"test.none\": the executor local needs a job_template");
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_a_task_runs),
        TEST(test_a_bad_value_fails_without_a_process),
        TEST(test_cancel),
        TEST(test_time_limit_of_the_message),
        TEST(test_close_waits_and_kill_ends),
        TEST(test_kill_gives_back_what_has_not_begun),
        TEST(test_credentials_are_never_passed),
        TEST(test_a_task_needs_a_template),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
