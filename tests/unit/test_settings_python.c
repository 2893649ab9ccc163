/* What of the settings is told to Python processes (worker/settings_python.h). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/memory.h"
#include "support/scratch_folder.h"
#include "worker/settings_python.h"

static void check(const char *file, const char *expected)
{
    struct arena *arena = arena_new(512);
    const char *folder = scratch_folder_make(arena);
    const char *path = arena_format(arena, "%s/p.yaml", folder);
    FILE *stream = fopen(path, "we");
    assert_non_null(stream);
    (void)fputs(file, stream);
    (void)fclose(stream);
    struct settings settings;
    struct error error = {0};
    struct buffer text;
    char *environment[] = {NULL};
    const struct settings_sources sources = {
        .manifest = BYTES("{\"v\": 1, \"settings\": {\"result_extended\": true}}"),
        .manifest_origin = "app proj",
        .config_path = path,
        .environment = environment,
    };
    if (!settings_load(&settings, &sources, &error)) {
        fail_msg("%s", error.message);
    }
    buffer_init(&text, 4096);
    settings_python_append(&text, &settings);
    (void)buffer_append_byte(&text, '\0');
    assert_string_equal(text.data, expected);
    buffer_fini(&text);
    settings_fini(&settings);
    scratch_folder_remove(folder);
    arena_free(&arena);
}

static void test_what_the_app_says_is_known_there(void **state)
{
    (void)state;
    check("broker_url: 'redis://:hunter2@h'\n", "{\"settings\": {}, \"tasks\": []}");
}

static void test_settings_above_the_app(void **state)
{
    (void)state;
    check("result_extended: false\ntask_track_started: true\ntimezone: Asia/Taipei\n"
          "task_acks_late: true\ntask_reject_on_worker_lost: null\n"
          "task_retry_on_worker_lost: true\n",
          "{\"settings\": {\"result_extended\": false, \"task_acks_late\": true, "
          "\"task_reject_on_worker_lost\": false, \"task_retry_on_worker_lost\": true, "
          "\"task_track_started\": true, \"timezone\": \"Asia/Taipei\"}, \"tasks\": []}");
}

static void test_rows_of_tasks(void **state)
{
    (void)state;
    check("tasks:\n  a: {time_limit: 1}\n  'b*': {ignore_result: 1, max_retries: null}\n"
          "  c: {default_retry_delay: 2.5, track_started: false, max_retries: 3}\n"
          "  d: {acks_late: true, reject_on_worker_lost: true, retry_on_worker_lost: false}\n"
          "  e: {time_limit: 1}\n",
          "{\"settings\": {}, \"tasks\": [[\"a\", {}], "
          "[\"b*\", {\"ignore_result\": true, \"max_retries\": null}], "
          "[\"c\", {\"default_retry_delay\": 2.5, \"max_retries\": 3, "
          "\"track_started\": false}], "
          "[\"d\", {\"acks_late\": true, \"reject_on_worker_lost\": true, "
          "\"retry_on_worker_lost\": false}]]}");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_the_app_says_is_known_there),
        cmocka_unit_test(test_settings_above_the_app),
        cmocka_unit_test(test_rows_of_tasks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
