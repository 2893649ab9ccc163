/* The log of a running process, look by look (executor/local_output.h). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <sys/stat.h>
#include <unistd.h>

#include "executor/local_output.h"
#include "support/scratch_folder.h"

#define STEP(number) "::petiole {\"seq\":" #number ",\"state\":\"S" #number "\"}\n"

struct fixture {
    struct arena *arena;
    const char *folder;
    const char *path;
    struct local_output output;
};

static int set_up(void **state)
{
    struct arena *arena = arena_new(1024);
    struct fixture *fixture = arena_alloc(arena, sizeof(*fixture));
    fixture->arena = arena;
    fixture->folder = scratch_folder_make(arena);
    fixture->path = arena_format(arena, "%s/log", fixture->folder);
    *state = fixture;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *fixture = *state;
    struct arena *arena = fixture->arena;
    local_output_fini(&fixture->output);
    scratch_folder_remove(fixture->folder);
    arena_free(&arena);
    return 0;
}

/* Writes `text`, `count` times, at the end of the log. */
static void append(const struct fixture *fixture, const char *text, int count)
{
    FILE *log = fopen(fixture->path, "ae");
    assert_non_null(log);
    for (int index = 0; index < count; index++) {
        assert_true(fputs(text, log) >= 0);
    }
    assert_int_equal(fclose(log), 0);
}

/* Looks, and expects `state`; NULL: nothing new. */
static void look(struct fixture *fixture, const char *expected)
{
    local_output_look(&fixture->output, fixture->path);
    assert_int_equal(job_progress_is_new(&fixture->output.progress), expected != NULL);
    if (expected) {
        struct progress progress = job_progress_give(&fixture->output.progress);
        assert_true(bytes_equal_text(progress.state, expected));
    }
}

static void test_reads_on_where_it_was(void **state)
{
    struct fixture *fixture = *state;
    append(fixture, STEP(9), 1); /* of an earlier run */
    local_output_begin(&fixture->output, fixture->path);
    look(fixture, NULL);
    append(fixture, "text\n" STEP(1) STEP(2), 1);
    look(fixture, "S2");
    look(fixture, NULL);
    append(fixture, "::petiole {\"seq\":3,", 1);
    look(fixture, NULL);
    append(fixture, "\"state\":\"S3\"}\nmore", 1);
    look(fixture, "S3");
    append(fixture, STEP(4), 1); /* behind text without a line's end */
    look(fixture, NULL);
}

static void test_passes_over_long_lines(void **state)
{
    struct fixture *fixture = *state;
    local_output_begin(&fixture->output, fixture->path);
    append(fixture, "x", 100000);
    look(fixture, NULL);
    append(fixture, "x", 100000);
    append(fixture, "\n" STEP(1), 1);
    look(fixture, "S1");
}

static void test_of_very_much_reads_the_end(void **state)
{
    struct fixture *fixture = *state;
    local_output_begin(&fixture->output, fixture->path);
    append(fixture, STEP(8), 1);
    append(fixture, "0123456789abcde\n", 100000);
    append(fixture, STEP(7), 1);
    look(fixture, "S7");
    /* The last look's end would begin within this line, at what looks like one. */
    append(fixture, "y", (int)LOCAL_OUTPUT_MAX_LOOK_BYTES);
    append(fixture, STEP(9), 1);
    look(fixture, NULL);
}

static void test_survives_what_a_task_does_to_its_log(void **state)
{
    struct fixture *fixture = *state;
    append(fixture, "text of before\n", 1);
    local_output_begin(&fixture->output, fixture->path);
    assert_int_equal(truncate(fixture->path, 0), 0);
    look(fixture, NULL);
    append(fixture, "\n" STEP(1), 1);
    look(fixture, "S1");
    assert_int_equal(unlink(fixture->path), 0);
    look(fixture, NULL);
    assert_int_equal(mkfifo(fixture->path, 0600), 0);
    look(fixture, NULL);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_reads_on_where_it_was),
        TEST(test_passes_over_long_lines),
        TEST(test_of_very_much_reads_the_end),
        TEST(test_survives_what_a_task_does_to_its_log),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
