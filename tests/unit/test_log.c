#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"
#include "support/golden.h"

/* A log file of the test's own, and what was written to it. */
struct fixture {
    char folder[64];
    char path[96];
    char text[2000000];
};

static int set_up(void **state)
{
    struct fixture *fixture = calloc(1, sizeof(*fixture));
    assert_non_null(fixture);
    (void)snprintf(fixture->folder, sizeof(fixture->folder), "/tmp/petiole-log-XXXXXX");
    assert_non_null(mkdtemp(fixture->folder));
    (void)snprintf(fixture->path, sizeof(fixture->path), "%s/log", fixture->folder);
    *state = fixture;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *fixture = *state;
    struct error error;
    assert_true(log_open(NULL, LOG_WARNING, LOG_FORM_TEXT, false, &error));
    (void)unlink(fixture->path);
    (void)rmdir(fixture->folder);
    free(fixture);
    return 0;
}

static void open_log(struct fixture *fixture, enum log_level level, enum log_form form, bool color)
{
    struct error error = {0};
    if (!log_open(fixture->path, level, form, color, &error)) {
        fail_msg("%s", error.message);
    }
}

/* What stands in the file, NUL-terminated. */
static const char *written(struct fixture *fixture)
{
    FILE *file = fopen(fixture->path, "re");
    assert_non_null(file);
    size_t length = fread(fixture->text, 1, sizeof(fixture->text) - 1, file);
    (void)fclose(file);
    fixture->text[length] = '\0';
    return fixture->text;
}

/* Whether the line begins as "[2026-11-23 17:39:12,950: INFO/MainProcess] "; gives what follows. */
static const char *after_stamp(const char *line, const char *level)
{
    static const char shape[] = "[dddd-dd-dd dd:dd:dd,ddd: ";
    for (size_t index = 0; index < sizeof(shape) - 1; index++) {
        bool fits = shape[index] == 'd' ? line[index] >= '0' && line[index] <= '9'
                                        : line[index] == shape[index];
        if (!fits) {
            fail_msg("no time stamp: %s", line);
        }
    }
    line += sizeof(shape) - 1;
    assert_memory_equal(line, level, strlen(level));
    line += strlen(level);
    assert_memory_equal(line, "/MainProcess] ", 14);
    return line + 14;
}

static void test_a_text_line_is_celerys(void **state)
{
    struct fixture *fixture = *state;
    open_log(fixture, LOG_INFO, LOG_FORM_TEXT, false);
    log_write(LOG_INFO, "%s ready.", "celery@host");
    assert_string_equal(after_stamp(written(fixture), "INFO"), "celery@host ready.\n");
}

static void test_a_line_of_another_process_has_its_name(void **state)
{
    struct fixture *fixture = *state;
    open_log(fixture, LOG_INFO, LOG_FORM_TEXT, false);
    log_process(LOG_DEBUG, "ForkPoolWorker-3", BYTES("t"), BYTES("i"), BYTES("no"), BYTES(""));
    log_process(LOG_INFO, "ForkPoolWorker-3", BYTES("t"), BYTES("i"), BYTES("said\n"), BYTES("b"));
    assert_string_equal(strchr(written(fixture), '/'), "/ForkPoolWorker-3] said\\n\nb\n");
}

static void test_lines_below_the_level_are_not_written(void **state)
{
    struct fixture *fixture = *state;
    open_log(fixture, LOG_WARNING, LOG_FORM_TEXT, false);
    log_write(LOG_INFO, "no");
    log_task(LOG_DEBUG, BYTES("t"), BYTES("i"), "no");
    log_task_block(LOG_INFO, BYTES("t"), BYTES("i"), BYTES("b"), "no");
    assert_false(log_enabled(LOG_INFO));
    assert_true(log_enabled(LOG_WARNING) && log_enabled(LOG_CRITICAL));
    log_write(LOG_ERROR, "yes");
    assert_string_equal(after_stamp(written(fixture), "ERROR"), "yes\n");
}

static void test_a_peers_text_cannot_forge_a_line(void **state)
{
    struct fixture *fixture = *state;
    open_log(fixture, LOG_INFO, LOG_FORM_TEXT, false);
    log_write(LOG_INFO, "%s", "a\n[2026] b\r\x1b[31m\x7f\tc");
    assert_string_equal(after_stamp(written(fixture), "INFO"),
                        "a\\n[2026] b\\x0d\\x1b[31m\\x7f\tc\n");
}

static void test_a_block_keeps_its_lines_but_not_control_characters(void **state)
{
    struct fixture *fixture = *state;
    open_log(fixture, LOG_INFO, LOG_FORM_TEXT, false);
    log_task_block(LOG_ERROR, BYTES("t"), BYTES("i"), BYTES("Traceback:\n\tx\x1b[2J\r"), "raised");
    assert_string_equal(after_stamp(written(fixture), "ERROR"),
                        "raised\nTraceback:\n\tx\\x1b[2J\\x0d\n");
}

static void test_a_json_line_is_one_object(void **state)
{
    struct fixture *fixture = *state;
    open_log(fixture, LOG_INFO, LOG_FORM_JSON, true);
    log_task_block(LOG_ERROR, BYTES("app.\"t\""), BYTES("i"), BYTES("a\nb"), "raised \xc3\xa9\n");
    struct json line;
    const char *text = written(fixture);
    assert_true(json_parse(bytes_of(text, strlen(text) - 1), &line, NULL));
    assert_int_equal(text[strlen(text) - 1], '\n');
    assert_null(memchr(text, '\n', strlen(text) - 1));
    golden_assert(json_get(line, "level").text, BYTES("\"ERROR\""), "level");
    golden_assert(json_get(line, "message").text, BYTES("\"raised \\u00e9\\n\""), "message");
    golden_assert(json_get(line, "task_name").text, BYTES("\"app.\\\"t\\\"\""), "task_name");
    golden_assert(json_get(line, "task_id").text, BYTES("\"i\""), "task_id");
    golden_assert(json_get(line, "traceback").text, BYTES("\"a\\nb\""), "traceback");
    assert_int_equal(json_get(line, "time").text.length, strlen("\"2026-11-23T17:39:12.950Z\""));
}

static void test_a_json_line_without_a_task_has_none(void **state)
{
    struct fixture *fixture = *state;
    open_log(fixture, LOG_INFO, LOG_FORM_JSON, false);
    log_write(LOG_INFO, "x");
    struct json line;
    const char *text = written(fixture);
    assert_true(json_parse(bytes_from_text(text), &line, NULL));
    assert_int_equal(json_count(line), 3);
}

static void test_a_long_line_is_written_whole_or_cut_with_its_end(void **state)
{
    struct fixture *fixture = *state;
    static const size_t lengths[] = {900, 1023, 1024, 1025, 5000, 300000};
    for (size_t index = 0; index < ARRAY_LENGTH(lengths); index++) {
        (void)unlink(fixture->path);
        open_log(fixture, LOG_INFO, LOG_FORM_TEXT, false);
        log_write(LOG_INFO, "%0*d", (int)lengths[index], 0);
        size_t length = strlen(after_stamp(written(fixture), "INFO"));
        assert_true(length == lengths[index] + 1 || lengths[index] > 200000);
        assert_true(length > 1000 || lengths[index] < 1000);
        assert_int_equal(fixture->text[strlen(fixture->text) - 1], '\n');
    }
}

static void test_a_long_json_line_stays_json(void **state)
{
    struct fixture *fixture = *state;
    struct json line;
    open_log(fixture, LOG_INFO, LOG_FORM_JSON, false);
    log_write(LOG_INFO, "%0200000d", 0);
    log_task_block(LOG_INFO, BYTES("t"), BYTES("i"), bytes_of(fixture->text, 290000), "zeros");
    const char *text = written(fixture);
    while (*text) {
        size_t length = strcspn(text, "\n");
        assert_int_equal(text[length], '\n');
        assert_true(json_parse(bytes_of(text, length), &line, NULL));
        text += length + 1;
    }
}

static void test_colors_are_for_text_only(void **state)
{
    struct fixture *fixture = *state;
    open_log(fixture, LOG_INFO, LOG_FORM_TEXT, true);
    log_write(LOG_ERROR, "red");
    assert_string_equal(after_stamp(written(fixture), "ERROR"), "\033[1;31mred\033[0m\n");
}

static void test_a_moved_file_is_opened_again(void **state)
{
    struct fixture *fixture = *state;
    char moved[128];
    (void)snprintf(moved, sizeof(moved), "%s.1", fixture->path);
    open_log(fixture, LOG_INFO, LOG_FORM_TEXT, false);
    log_write(LOG_INFO, "old");
    log_reopen();
    log_write(LOG_INFO, "still old");
    assert_non_null(strstr(written(fixture), "still old"));
    assert_int_equal(rename(fixture->path, moved), 0);
    log_write(LOG_INFO, "to the moved one");
    log_reopen();
    log_write(LOG_INFO, "new");
    assert_string_equal(after_stamp(written(fixture), "INFO"), "new\n");
    assert_int_equal(unlink(moved), 0);
}

static void test_a_file_that_cannot_be_opened_is_an_error(void **state)
{
    struct fixture *fixture = *state;
    struct error error = {0};
    char path[2000];
    (void)snprintf(path, sizeof(path), "%s/missing/log", fixture->folder);
    assert_false(log_open(path, LOG_INFO, LOG_FORM_TEXT, false, &error));
    assert_int_equal(error.kind, ERROR_INVALID);
    (void)snprintf(path, sizeof(path), "/%01500d", 0);
    assert_false(log_open(path, LOG_INFO, LOG_FORM_TEXT, false, &error));
    assert_int_equal(error.kind, ERROR_TOO_LARGE);
    open_log(fixture, LOG_INFO, LOG_FORM_TEXT, false);
}

static void test_levels_are_read_as_celery_reads_them(void **state)
{
    (void)state;
    enum log_level level = LOG_DEBUG;
    assert_true(log_level_parse("info", &level) && level == LOG_INFO);
    assert_true(log_level_parse("CRITICAL", &level) && level == LOG_CRITICAL);
    assert_true(log_level_parse("Fatal", &level) && level == LOG_CRITICAL);
    assert_true(log_level_parse("debug", &level) && level == LOG_DEBUG);
    level = LOG_ERROR;
    assert_false(log_level_parse("", &level));
    assert_false(log_level_parse("INFOS", &level));
    assert_false(log_level_parse("10", &level));
    assert_int_equal(level, LOG_ERROR);
    assert_string_equal(log_level_name(LOG_WARNING), "WARNING");
}

#define log_test(function) cmocka_unit_test_setup_teardown(function, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        log_test(test_a_text_line_is_celerys),
        log_test(test_a_line_of_another_process_has_its_name),
        log_test(test_lines_below_the_level_are_not_written),
        log_test(test_a_peers_text_cannot_forge_a_line),
        log_test(test_a_block_keeps_its_lines_but_not_control_characters),
        log_test(test_a_json_line_is_one_object),
        log_test(test_a_json_line_without_a_task_has_none),
        log_test(test_a_long_line_is_written_whole_or_cut_with_its_end),
        log_test(test_a_long_json_line_stays_json),
        log_test(test_colors_are_for_text_only),
        log_test(test_a_moved_file_is_opened_again),
        log_test(test_a_file_that_cannot_be_opened_is_an_error),
        cmocka_unit_test(test_levels_are_read_as_celery_reads_them),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
