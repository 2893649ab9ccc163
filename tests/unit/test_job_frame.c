#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "executor/job_frame.h"
#include "support/job_fixture.h"

/* What Kombu 5.7 puts into a queue for add.delay(1, 2), shortened. */
#define MESSAGE                                                                                    \
    "{\"body\": \"W1sxLCAyXSwge30sIG51bGxd\", \"content-encoding\": \"utf-8\", "                   \
    "\"content-type\": \"application/json\", \"headers\": {\"task\": \"app.add\", \"id\": "        \
    "\"child\"}, \"properties\": {\"correlation_id\": \"child\", \"reply_to\": \"me\", "           \
    "\"priority\": 3, \"body_encoding\": \"base64\"}}"
#define DOCUMENT "{\\\"status\\\": \\\"FAILURE\\\", \\\"task_id\\\": \\\"next\\\"}"

static struct job_frame read_frame(struct arena *arena, const char *text)
{
    struct job_frame frame = {0};
    struct error error = {0};
    if (!job_frame_read(job_fixture_parsed(text), arena, &frame, &error)) {
        fail_msg("%s", error.message);
    }
    return frame;
}

static void assert_text(struct bytes actual, const char *expected)
{
    assert_int_equal(actual.length, strlen(expected));
    assert_memory_equal(actual.data, expected, actual.length);
}

static void test_reads_a_message_to_send(void **state)
{
    struct job_frame frame =
        read_frame(*state, "{\"publish\": {\"queue\": \"q\", \"message\": " MESSAGE "}}");
    assert_int_equal(frame.kind, JOB_FRAME_PUBLISH);
    assert_false(frame.is_after_failure);
    assert_text(frame.queue, "q");
    assert_text(frame.task, "app.add");
    assert_text(frame.task_id, "child");
    assert_text(frame.correlation_id, "child");
    assert_text(frame.reply_to, "me");
    assert_text(frame.content_type, "application/json");
    assert_text(frame.content_encoding, "utf-8");
    assert_text(frame.body, "[[1, 2], {}, null]");
    assert_int_equal(frame.priority, 3);
    assert_int_equal(json_count(frame.headers), 2);
}

static void test_reads_a_document_to_store(void **state)
{
    struct job_frame frame =
        read_frame(*state, "{\"store\": {\"task_id\": \"next\", \"state\": \"FAILURE\", "
                           "\"document\": \"" DOCUMENT "\"}, \"after_failure\": true}");
    assert_int_equal(frame.kind, JOB_FRAME_STORE);
    assert_true(frame.is_after_failure);
    assert_text(frame.task_id, "next");
    assert_text(frame.state, "FAILURE");
    assert_text(frame.document, "{\"status\": \"FAILURE\", \"task_id\": \"next\"}");
}

static void test_reads_a_member_of_a_chord(void **state)
{
    struct job_frame frame =
        read_frame(*state, "{\"join_chord\": {\"task_id\": \"t\", \"group\": \"g\", \"state\": "
                           "\"FAILURE\"}}");
    assert_int_equal(frame.kind, JOB_FRAME_JOIN_CHORD);
    assert_text(frame.group, "g");
    frame = read_frame(*state, "{\"join_chord\": {\"task_id\": \"t\", \"group\": null, \"state\": "
                               "\"FAILURE\"}}");
    assert_int_equal(frame.group.length, 0);
}

static void test_refuses_what_is_none(void **state)
{
    static const char *const frames[] = {
        "1",
        "[]",
        "{}",
        "{\"publish\": 1}",
        "{\"publish\": {}}",
        "{\"publish\": {\"queue\": \"\", \"message\": " MESSAGE "}}",
        "{\"publish\": {\"queue\": 7, \"message\": " MESSAGE "}}",
        "{\"publish\": {\"queue\": \"q\\u0006\\u00163\", \"message\": " MESSAGE "}}",
        "{\"publish\": {\"queue\": \"q\"}}",
        "{\"publish\": {\"queue\": \"q\", \"message\": {\"headers\": {}, \"properties\": []}}}",
        "{\"publish\": {\"queue\": \"q\", \"message\": {\"headers\": {}, \"properties\": {}, "
        "\"body\": \"e30=\"}}}",
        "{\"publish\": {\"queue\": \"q\", \"message\": {\"headers\": {}, \"properties\": "
        "{\"body_encoding\": \"base64\"}, \"body\": \"*\"}}}",
        "{\"store\": {\"task_id\": \"next\", \"state\": \"FAILURE\"}}",
        "{\"store\": {\"task_id\": \"next\", \"state\": \"FAILURE\", \"document\": \"{\"}}",
        "{\"store\": {\"task_id\": \"other\", \"state\": \"FAILURE\", \"document\": \"" DOCUMENT
        "\"}}",
        "{\"store\": {\"task_id\": \"next\", \"state\": \"SUCCESS\", \"document\": \"" DOCUMENT
        "\"}}",
        "{\"join_chord\": {\"state\": \"FAILURE\"}}",
        "{\"join_chord\": {\"task_id\": \"t\", \"state\": \"FAILURE\", \"group\": \"g\\nh\"}}",
    };
    for (size_t index = 0; index < ARRAY_LENGTH(frames); index++) {
        struct job_frame frame = {.priority = 7};
        struct error error = {0};
        assert_false(job_frame_read(job_fixture_parsed(frames[index]), *state, &frame, &error));
        assert_int_equal(error.kind, ERROR_INVALID);
        assert_non_null(strstr(error.message, "frame"));
        assert_int_equal(frame.priority, 7);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reads_a_message_to_send),
        cmocka_unit_test(test_reads_a_document_to_store),
        cmocka_unit_test(test_reads_a_member_of_a_chord),
        cmocka_unit_test(test_refuses_what_is_none),
    };
    return cmocka_run_group_tests(tests, job_fixture_set_up_arena, job_fixture_tear_down_arena);
}
