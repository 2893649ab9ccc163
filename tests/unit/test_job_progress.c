#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "executor/job_progress.h"

static enum job_progress_line take(struct job_progress *progress, const char *line)
{
    struct error error = {0};
    enum job_progress_line kind = job_progress_take(progress, bytes_from_text(line), &error);
    assert_int_equal(kind == JOB_PROGRESS_BAD, error.kind == ERROR_INVALID);
    return kind;
}

static void expect(struct job_progress *progress, const char *state, const char *meta)
{
    assert_true(job_progress_is_new(progress));
    struct progress told = job_progress_give(progress);
    assert_true(bytes_equal_text(told.state, state));
    assert_true(bytes_equal_text(told.meta.text, meta));
    assert_false(job_progress_is_new(progress));
}

static void test_keeps_the_newest(void **state)
{
    (void)state;
    struct job_progress progress = {.seq = 0};
    assert_false(job_progress_is_new(&progress));
    assert_int_equal(take(&progress, "::petiole {\"seq\":1,\"state\":\"A\",\"meta\":{\"n\":1}}"),
                     JOB_PROGRESS_NEW);
    expect(&progress, "A", "{\"n\":1}");
    assert_int_equal(take(&progress, "::petiole {\"seq\":2,\"state\":\"B\"}"), JOB_PROGRESS_NEW);
    assert_int_equal(take(&progress, "::petiole { \"state\": \"C\\u00e9\", \"meta\": NaN, \"seq\":"
                                     " 1795489997999999999 }\r"),
                     JOB_PROGRESS_NEW);
    expect(&progress, "C\xc3\xa9", "NaN");
    job_progress_fini(&progress);
}

static void test_does_not_tell_again_what_comes_again(void **state)
{
    (void)state;
    struct job_progress progress = {.seq = 0};
    assert_int_equal(take(&progress, "::petiole {\"seq\":5,\"state\":\"A\"}"), JOB_PROGRESS_NEW);
    expect(&progress, "A", "");
    assert_int_equal(take(&progress, "::petiole {\"seq\":4,\"state\":\"B\"}"), JOB_PROGRESS_OLD);
    assert_int_equal(take(&progress, "::petiole {\"seq\":5,\"state\":\"A\"}"), JOB_PROGRESS_OLD);
    assert_false(job_progress_is_new(&progress));
    job_progress_fini(&progress);
    assert_int_equal(take(&progress, "::petiole {\"seq\":4,\"state\":\"B\"}"), JOB_PROGRESS_NEW);
    job_progress_fini(&progress);
}

static void test_leaves_the_tasks_own_text_alone(void **state)
{
    (void)state;
    static const char *const lines[] = {
        "",          "step 1",        " ::petiole {\"seq\":1,\"state\":\"A\"}",
        "::petiole", "::petioles {}", "::petiole-result 1/1 e30=",
    };
    struct job_progress progress = {.seq = 0};
    for (size_t index = 0; index < ARRAY_LENGTH(lines); index++) {
        assert_int_equal(take(&progress, lines[index]), JOB_PROGRESS_OTHER);
    }
    assert_false(job_progress_is_new(&progress));
}

static void test_refuses_what_it_does_not_understand(void **state)
{
    (void)state;
    static const char *const lines[] = {
        "::petiole ",
        "::petiole {",
        "::petiole 7",
        "::petiole {\"state\":\"A\"}",
        "::petiole {\"seq\":0,\"state\":\"A\"}",
        "::petiole {\"seq\":-1,\"state\":\"A\"}",
        "::petiole {\"seq\":1.5,\"state\":\"A\"}",
        "::petiole {\"seq\":99999999999999999999,\"state\":\"A\"}",
        "::petiole {\"seq\":1}",
        "::petiole {\"seq\":1,\"state\":\"\"}",
        "::petiole {\"seq\":1,\"state\":7}",
        "::petiole {\"seq\":1,\"state\":\"A\"} x",
        "::petiole {\"seq\":1,\"state\":\"A\xff\"}",
        "::petiole {\"seq\":1,\"state\":\"SUCCESS\"}",
        "::petiole {\"seq\":1,\"state\":\"FAILURE\"}",
        "::petiole {\"seq\":1,\"state\":\"REVOKE\\u0044\"}",
    };
    struct job_progress progress = {.seq = 0};
    assert_int_equal(take(&progress, "::petiole {\"seq\":1,\"state\":\"KEPT\"}"), JOB_PROGRESS_NEW);
    for (size_t index = 0; index < ARRAY_LENGTH(lines); index++) {
        assert_int_equal(take(&progress, lines[index]), JOB_PROGRESS_BAD);
    }
    expect(&progress, "KEPT", "");
    job_progress_fini(&progress);
}

/* A line of `length` bytes whose meta is a text. */
static enum job_progress_line take_long(struct job_progress *progress, size_t length)
{
    char line[JOB_PROGRESS_MAX_LINE_BYTES + 2];
    static const char head[] = "::petiole {\"seq\":1,\"state\":\"A\",\"meta\":\"";
    memset(line, 'x', length);
    memcpy(line, head, sizeof(head) - 1);
    memcpy(line + length - 2, "\"}", 2);
    return job_progress_take(progress, bytes_of(line, length), NULL);
}

static void test_takes_lines_up_to_their_limit(void **state)
{
    (void)state;
    struct job_progress progress = {.seq = 0};
    assert_int_equal(take_long(&progress, JOB_PROGRESS_MAX_LINE_BYTES + 1), JOB_PROGRESS_BAD);
    assert_int_equal(take_long(&progress, JOB_PROGRESS_MAX_LINE_BYTES), JOB_PROGRESS_NEW);
    job_progress_fini(&progress);
}

static void test_takes_states_up_to_their_limit(void **state)
{
    (void)state;
    struct job_progress progress = {.seq = 0};
    char line[128];
    for (int length = JOB_PROGRESS_MAX_STATE_BYTES; length <= JOB_PROGRESS_MAX_STATE_BYTES + 1;
         length++) {
        (void)snprintf(line, sizeof(line), "::petiole {\"seq\":1,\"state\":\"%0*d\"}", length, 7);
        assert_int_equal(take(&progress, line), length == JOB_PROGRESS_MAX_STATE_BYTES
                                                    ? JOB_PROGRESS_NEW
                                                    : JOB_PROGRESS_BAD);
    }
    job_progress_fini(&progress);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_keeps_the_newest),
        cmocka_unit_test(test_does_not_tell_again_what_comes_again),
        cmocka_unit_test(test_leaves_the_tasks_own_text_alone),
        cmocka_unit_test(test_refuses_what_it_does_not_understand),
        cmocka_unit_test(test_takes_lines_up_to_their_limit),
        cmocka_unit_test(test_takes_states_up_to_their_limit),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
