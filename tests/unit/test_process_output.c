/* The output of a Python process and the marks in it (executor/process_output.h). */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/memory.h"
#include "executor/process_output.h"
#include "support/loop_until.h"

#define MARK       "\0\x1d\n"
#define LINE       "123456789abcdef\n"
#define LINE_COUNT 4096 /* 64 KiB, as much as a pipe has room for */

struct stage {
    struct loop *loop;
    struct process_output *output;
    int writer;
    struct buffer told; /* lines, each with a comma; an M for a mark that was passed */
    size_t length;      /* of `told`, waited for */
    int passes;         /* marks that may be passed */
};

static void on_line(void *context, struct bytes line)
{
    struct stage *stage = context;
    assert_true(buffer_append(&stage->told, line));
    assert_true(buffer_append_byte(&stage->told, ','));
}

static bool on_mark(void *context)
{
    struct stage *stage = context;
    if (stage->passes == 0) {
        return false;
    }
    stage->passes--;
    assert_true(buffer_append_byte(&stage->told, 'M'));
    return true;
}

static int set_up(void **state)
{
    struct stage *stage = memory_new(sizeof(*stage));
    int ends[2];
    assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
    stage->loop = loop_new(LOOP_CLOCK_REAL);
    stage->writer = ends[1];
    buffer_init(&stage->told, (size_t)1 << 20);
    stage->output = process_output_new(stage->loop, ends[0], on_line, on_mark, stage);
    *state = stage;
    return 0;
}

static int tear_down(void **state)
{
    struct stage *stage = *state;
    process_output_free(&stage->output);
    loop_free(&stage->loop);
    (void)close(stage->writer);
    buffer_fini(&stage->told);
    memory_free(&stage);
    return 0;
}

static void write_all(const struct stage *stage, const char *data, size_t length)
{
    assert_int_equal(write(stage->writer, data, length), length);
}

#define WRITE(stage, literal) write_all(stage, literal, sizeof(literal) - 1)

static bool is_told(void *context)
{
    const struct stage *stage = context;
    return stage->told.length >= stage->length;
}

static void expect(struct stage *stage, const char *told)
{
    stage->length = strlen(told);
    loop_until(stage->loop, is_told, stage);
    assert_int_equal(stage->told.length, stage->length);
    assert_memory_equal(buffer_view(&stage->told).data, told, stage->length);
}

static void test_a_mark_ends_a_line(void **state)
{
    struct stage *stage = *state;
    stage->passes = 3;
    WRITE(stage, "one\ntw" MARK MARK "o\n" MARK "three\n");
    expect(stage, "one,tw,MMo,Mthree,");
}

static void pass_mark(struct stage *stage)
{
    stage->passes = 1;
    process_output_resume(stage->output);
}

static void test_a_mark_holds_what_follows(void **state)
{
    struct stage *stage = *state;
    WRITE(stage, "one\n" MARK "two\n" MARK "three\n");
    expect(stage, "one,");
    process_output_resume(stage->output);
    expect(stage, "one,");
    pass_mark(stage);
    expect(stage, "one,Mtwo,");
    pass_mark(stage);
    expect(stage, "one,Mtwo,Mthree,");
}

static bool is_read(void *context)
{
    const struct stage *stage = context;
    int length = 0;
    assert_int_equal(ioctl(stage->writer, FIONREAD, &length), 0);
    return length == 0;
}

static void test_a_flush_holds_nothing(void **state)
{
    struct stage *stage = *state;
    WRITE(stage, MARK "one\n");
    loop_until(stage->loop, is_read, stage);
    WRITE(stage, MARK "two");
    process_output_flush(stage->output);
    expect(stage, "one,two,");
    stage->passes = 1;
    WRITE(stage, MARK "three\n" MARK "four\n");
    expect(stage, "one,two,Mthree,");
}

/* A task that writes marks itself neither stops its output nor fills the worker's memory. */
static void test_a_mark_does_not_hold_for_ever(void **state)
{
    struct stage *stage = *state;
    WRITE(stage, MARK);
    for (size_t count = 0; count < 2; count++) {
        for (size_t line = 0; line < LINE_COUNT / 2; line++) {
            WRITE(stage, LINE);
        }
        loop_until(stage->loop, is_read, stage);
        expect(stage, "");
    }
    WRITE(stage, "last\n");
    stage->length = (size_t)LINE_COUNT * (sizeof(LINE) - 1) + strlen("last,");
    loop_until(stage->loop, is_told, stage);
    assert_int_equal(stage->told.length, stage->length);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_a_mark_ends_a_line),
        TEST(test_a_mark_holds_what_follows),
        TEST(test_a_flush_holds_nothing),
        TEST(test_a_mark_does_not_hold_for_ever),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
