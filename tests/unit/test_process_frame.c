/* Frames of the Python processes (executor/process_frame.h), with what is no frame. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/log.h"
#include "executor/process_frame.h"

/* "abc" as a text of a frame, and the like. */
#define TEXT_ABC   "\3\0\0\0abc"
#define TEXT_EMPTY "\0\0\0\0"
#define HALF       "\0\0\0\0\0\0\xe0\x3f" /* 0.5 */
#define NOT_FINITE "\0\0\0\0\0\0\xf0\x7f"

static void test_takes_one_frame_after_the_other(void **state)
{
    (void)state;
    struct bytes input = BYTES("\0\0\0\0\2"
                               "\4\0\0\0\1\x2a\0\0\0"
                               "\1\0\0\0");
    struct process_frame frame;
    int pid = 0;
    assert_int_equal(process_frame_take(&input, &frame), PROCESS_FRAME_COMPLETE);
    assert_int_equal(frame.kind, PROCESS_FRAME_ACCEPTED);
    assert_int_equal(frame.payload.length, 0);
    assert_int_equal(process_frame_take(&input, &frame), PROCESS_FRAME_COMPLETE);
    assert_int_equal(frame.kind, PROCESS_FRAME_READY);
    assert_true(process_frame_read_ready(frame.payload, &pid));
    assert_int_equal(pid, 42);
    assert_int_equal(process_frame_take(&input, &frame), PROCESS_FRAME_INCOMPLETE);
    assert_int_equal(input.length, 4);
}

static void test_reads_ended(void **state)
{
    (void)state;
    struct bytes text;
    assert_true(process_frame_read_ended(BYTES(TEXT_ABC), &text));
    assert_true(bytes_equal(text, BYTES("abc")));
    assert_false(process_frame_read_ended(BYTES(TEXT_ABC "x"), &text));
    assert_false(process_frame_read_ended(BYTES("\3\0\0\0ab"), &text));
}

static void test_a_length_beyond_all_is_broken(void **state)
{
    (void)state;
    struct bytes input = BYTES("\xff\xff\xff\xff\4rest");
    struct process_frame frame;
    assert_int_equal(process_frame_take(&input, &frame), PROCESS_FRAME_BROKEN);
}

static void test_reads_done(void **state)
{
    (void)state;
    struct process_frame_done done;
    struct bytes payload =
        BYTES("\2\1\1" HALF "\0\4\0\0" TEXT_ABC TEXT_ABC TEXT_EMPTY TEXT_EMPTY TEXT_EMPTY TEXT_ABC);
    assert_true(process_frame_read_done(payload, &done));
    assert_int_equal(done.outcome, PROCESS_FRAME_RETRY);
    assert_true(done.requeue);
    assert_true(done.is_told);
    assert_true(done.runtime_s == 0.5);
    assert_int_equal(done.rss_kib, 1024);
    assert_true(bytes_equal(done.document, BYTES("abc")));
    assert_true(bytes_equal(done.traceback, BYTES("abc")));
    for (size_t length = 0; length < payload.length; length++) {
        assert_false(process_frame_read_done(bytes_of(payload.data, length), &done));
    }
}

static void test_refuses_what_is_no_done(void **state)
{
    (void)state;
    struct process_frame_done done;
    static const char texts[] = TEXT_EMPTY TEXT_EMPTY TEXT_EMPTY TEXT_EMPTY TEXT_EMPTY TEXT_EMPTY;

    static const struct {
        const char *head;
        size_t length;
    } heads[] = {
        {"\6\0\0" HALF "\0\0\0\0", 15},       /* no such outcome */
        {"\0\2\0" HALF "\0\0\0\0", 15},       /* neither true nor false */
        {"\0\0\0" NOT_FINITE "\0\0\0\0", 15}, /* a runtime without an end */
    };

    for (size_t index = 0; index < ARRAY_LENGTH(heads); index++) {
        struct buffer payload;
        buffer_init(&payload, 256);
        (void)buffer_append(&payload, bytes_of(heads[index].head, heads[index].length));
        (void)buffer_append(&payload, bytes_of(texts, sizeof(texts) - 1));
        assert_false(process_frame_read_done(buffer_view(&payload), &done));
        buffer_fini(&payload);
    }
}

static void test_reads_states_and_lines(void **state)
{
    (void)state;
    struct process_frame_state told;
    struct bytes text;
    int level = 0;
    assert_true(process_frame_read_state(BYTES(TEXT_ABC TEXT_EMPTY TEXT_ABC), &told));
    assert_true(bytes_equal(told.task_id, BYTES("abc")));
    assert_false(process_frame_read_state(BYTES(TEXT_ABC TEXT_EMPTY), &told));
    assert_false(process_frame_read_state(BYTES(TEXT_ABC TEXT_EMPTY TEXT_ABC "x"), &told));
    assert_false(process_frame_read_state(BYTES("\xff\xff\xff\x7f"
                                                "abc"),
                                          &told));
    assert_true(process_frame_read_log(BYTES("\3" TEXT_ABC), &level, &text));
    assert_int_equal(level, LOG_ERROR);
    assert_false(process_frame_read_log(BYTES("\5" TEXT_ABC), &level, &text));
}

static void test_refuses_an_id_that_no_process_of_ours_has(void **state)
{
    (void)state;
    int pid = 0;
    assert_false(process_frame_read_ready(BYTES("\0\0\0\0"), &pid));
    assert_false(process_frame_read_ready(BYTES("\1\0\0\0"), &pid));
    assert_false(process_frame_read_ready(BYTES("\xff\xff\xff\xff"), &pid));
    assert_false(process_frame_read_ready(BYTES("\2\0\0"), &pid));
}

static void test_writes_a_task(void **state)
{
    (void)state;
    struct buffer out;
    const struct process_frame_task task = {
        .id = BYTES("abc"), .name = BYTES("n"), .request = BYTES("{}"), .body = BYTES("b")};
    static const char expected[] = "\x1f\0\0\0\1" TEXT_ABC "\1\0\0\0n"
                                   "\2\0\0\0{}" TEXT_EMPTY TEXT_EMPTY "\1\0\0\0b";
    buffer_init(&out, 4096);
    process_frame_append_task(&out, &task);
    assert_int_equal(out.length, sizeof(expected) - 1);
    assert_memory_equal(out.data, expected, out.length);
    static const char ended[] = "\x25\0\0\0\2" TEXT_ABC "\1\0\0\0n"
                                "\2\0\0\0{}" TEXT_EMPTY TEXT_EMPTY "\1\0\0\0b"
                                "\2\0\0\0{}";
    buffer_clear(&out);
    process_frame_append_ending(&out, &task, BYTES("{}"));
    assert_int_equal(out.length, sizeof(ended) - 1);
    assert_memory_equal(out.data, ended, out.length);
    buffer_fini(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_takes_one_frame_after_the_other),
        cmocka_unit_test(test_a_length_beyond_all_is_broken),
        cmocka_unit_test(test_reads_ended),
        cmocka_unit_test(test_reads_done),
        cmocka_unit_test(test_refuses_what_is_no_done),
        cmocka_unit_test(test_reads_states_and_lines),
        cmocka_unit_test(test_refuses_an_id_that_no_process_of_ours_has),
        cmocka_unit_test(test_writes_a_task),
    };
    return cmocka_run_group_tests_name("process_frame", tests, NULL, NULL);
}
