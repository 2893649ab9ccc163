#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <openssl/evp.h>

#include "base/base64.h"
#include "executor/job_frame.h"
#include "executor/job_result.h"

struct fixture {
    struct arena *arena;
    struct job_result result;
    struct outcome outcome;
    struct error error;
};

static int set_up(void **state)
{
    struct fixture *fixture = memory_new(sizeof(*fixture));
    fixture->arena = arena_new(1024);
    *state = fixture;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *fixture = *state;
    arena_free(&fixture->arena);
    memory_free(&fixture);
    return 0;
}

/* A report of `state` with `payload` in place ("\"result\": 4"), whose digest is of `value`. */
static struct bytes report(struct fixture *fixture, const char *state, const char *payload,
                           const char *value)
{
    unsigned char digest[32];
    char hex[65];
    unsigned int length = 0;
    assert_int_equal(EVP_Digest(value, strlen(value), digest, &length, EVP_sha256(), NULL), 1);
    for (size_t index = 0; index < sizeof(digest); index++) {
        (void)snprintf(hex + 2 * index, 3, "%02x", digest[index]);
    }
    return bytes_from_text(arena_format(
        fixture->arena,
        "{\"v\": 1, \"state\": \"%s\"%s%s, \"traceback\": null, \"bytes\": %zu, \"sha256\": \"%s\"}",
        state, payload[0] ? ", " : "", payload, strlen(value), hex));
}

static void assert_text(struct bytes actual, const char *expected)
{
    assert_int_equal(actual.length, strlen(expected));
    assert_memory_equal(actual.data, expected, actual.length);
}

static void test_reads_a_result(void **state)
{
    struct fixture *fixture = *state;
    struct bytes text = report(fixture, "SUCCESS", "\"result\": {\"a\": [1]}", "{\"a\": [1]}");
    assert_true(job_result_read(text, fixture->arena, &fixture->result, &fixture->error));
    assert_false(fixture->result.is_moved);
    assert_true(
        job_result_outcome(&fixture->result, fixture->arena, &fixture->outcome, &fixture->error));
    assert_int_equal(fixture->outcome.kind, OUTCOME_SUCCESS);
    assert_text(fixture->outcome.result, "{\"a\": [1]}");
}

static void test_reads_an_exception(void **state)
{
    struct fixture *fixture = *state;
    const char *exception =
        "{\"exc_type\": \"ValueError\", \"exc_message\": [\"x\"], \"exc_module\": \"builtins\"}";
    const char *payload = arena_format(fixture->arena, "\"exception\": %s", exception);
    assert_true(job_result_read(report(fixture, "FAILURE", payload, exception), fixture->arena,
                                &fixture->result, &fixture->error));
    assert_true(
        job_result_outcome(&fixture->result, fixture->arena, &fixture->outcome, &fixture->error));
    assert_int_equal(fixture->outcome.kind, OUTCOME_FAILURE);
    assert_text(fixture->outcome.exc_type, "ValueError");
    assert_text(fixture->outcome.exc_message, "[\"x\"]");
    assert_false(fixture->outcome.timed_out);
}

static void test_reads_a_hard_time_limit(void **state)
{
    struct fixture *fixture = *state;
    const char *exception = "{\"exc_type\": \"TimeLimitExceeded\", \"exc_message\": [1], "
                            "\"exc_module\": \"billiard.exceptions\"}";
    const char *payload = arena_format(fixture->arena, "\"exception\": %s", exception);
    assert_true(job_result_read(report(fixture, "FAILURE", payload, exception), fixture->arena,
                                &fixture->result, &fixture->error));
    assert_true(
        job_result_outcome(&fixture->result, fixture->arena, &fixture->outcome, &fixture->error));
    assert_true(fixture->outcome.timed_out);
}

static void test_reads_a_retry_with_its_countdown(void **state)
{
    struct fixture *fixture = *state;
    struct bytes text = report(fixture, "RETRY", "\"exception\": null, \"countdown\": 2.5", "null");
    assert_true(job_result_read(text, fixture->arena, &fixture->result, &fixture->error));
    assert_true(
        job_result_outcome(&fixture->result, fixture->arena, &fixture->outcome, &fixture->error));
    assert_int_equal(fixture->outcome.kind, OUTCOME_RETRY);
    assert_true(fixture->outcome.retry_countdown_s > 2.49);
}

static void test_bounds_the_countdown_of_a_retry(void **state)
{
    struct fixture *fixture = *state;

    static const struct {
        const char *countdown;
        double seconds; /* below -1: refused */
    } rows[] = {
        {"", -1},
        {", \"countdown\": null", -1},
        {", \"countdown\": 0", 0},
        {", \"countdown\": -5", 0},
        {", \"countdown\": 1000000000", 1e9},
        {", \"countdown\": 1000000001", -2},
        {", \"countdown\": 1e300", -2},
        {", \"countdown\": NaN", -2},
        {", \"countdown\": Infinity", -2},
        {", \"countdown\": \"soon\"", -2},
    };

    for (size_t index = 0; index < ARRAY_LENGTH(rows); index++) {
        char payload[128];
        (void)snprintf(payload, sizeof(payload), "\"exception\": null%s", rows[index].countdown);
        assert_true(job_result_read(report(fixture, "RETRY", payload, "null"), fixture->arena,
                                    &fixture->result, &fixture->error));
        bool is_right = job_result_outcome(&fixture->result, fixture->arena, &fixture->outcome,
                                           &fixture->error);
        assert_int_equal(is_right, rows[index].seconds > -2);
        if (is_right) {
            assert_true(fixture->outcome.retry_countdown_s == rows[index].seconds);
        } else {
            assert_int_equal(fixture->error.kind, ERROR_INVALID);
            assert_non_null(strstr(fixture->error.message, "countdown"));
        }
    }
}

static void test_reads_what_is_left_to_do(void **state)
{
    struct fixture *fixture = *state;
    const char *payload = "\"result\": 4, \"children\": [[[\"c\", null], null]], \"frames\": "
                          "[{\"join_chord\": {\"task_id\": \"t\", \"state\": \"SUCCESS\"}}]";
    assert_true(job_result_read(report(fixture, "SUCCESS", payload, "4"), fixture->arena,
                                &fixture->result, &fixture->error));
    assert_true(
        job_result_outcome(&fixture->result, fixture->arena, &fixture->outcome, &fixture->error));
    assert_int_equal(json_count(fixture->outcome.frames), 1);
    assert_text(fixture->outcome.children.text, "[[[\"c\", null], null]]");
}

static void test_tells_no_frames_from_none_told(void **state)
{
    struct fixture *fixture = *state;

    static const struct {
        const char *payload;
        enum json_type type;
    } rows[] = {
        {"\"result\": 4, \"frames\": []", JSON_TYPE_ARRAY},
        {"\"result\": 4", JSON_TYPE_ABSENT},
        {"\"result\": 4, \"frames\": {}", JSON_TYPE_ABSENT},
    };

    for (size_t index = 0; index < ARRAY_LENGTH(rows); index++) {
        assert_true(job_result_read(report(fixture, "SUCCESS", rows[index].payload, "4"),
                                    fixture->arena, &fixture->result, &fixture->error));
        assert_true(job_result_outcome(&fixture->result, fixture->arena, &fixture->outcome,
                                       &fixture->error));
        assert_int_equal(fixture->outcome.frames.type, rows[index].type);
    }
}

static void test_refuses_a_frame_that_nobody_can_do(void **state)
{
    struct fixture *fixture = *state;
    assert_true(job_result_read(report(fixture, "SUCCESS", "\"result\": 4, \"frames\": [{}]", "4"),
                                fixture->arena, &fixture->result, &fixture->error));
    assert_false(
        job_result_outcome(&fixture->result, fixture->arena, &fixture->outcome, &fixture->error));
    assert_int_equal(fixture->error.kind, ERROR_INVALID);
}

static void test_bounds_the_number_of_frames(void **state)
{
    struct fixture *fixture = *state;
    for (size_t count = JOB_FRAME_MAX_COUNT; count <= JOB_FRAME_MAX_COUNT + 1; count++) {
        struct buffer frames;
        buffer_init(&frames, JOB_RESULT_MAX_PAYLOAD_BYTES);
        for (size_t index = 0; index < count; index++) {
            (void)buffer_format(&frames,
                                "%s{\"join_chord\": {\"task_id\": \"t\", \"state\": \"FAILURE\"}}",
                                index > 0 ? ", " : "{\"result\": 4, \"frames\": [");
        }
        (void)buffer_append_text(&frames, "]}");
        fixture->result.state = BYTES("SUCCESS");
        fixture->result.payload = json_checked(buffer_view(&frames));
        assert_int_equal(job_result_outcome(&fixture->result, fixture->arena, &fixture->outcome,
                                            &fixture->error),
                         count <= JOB_FRAME_MAX_COUNT);
        buffer_fini(&frames);
    }
    assert_int_equal(fixture->error.kind, ERROR_INVALID);
    assert_non_null(strstr(fixture->error.message, "4001 frames"));
}

static void test_tells_silence_from_a_broken_report(void **state)
{
    struct fixture *fixture = *state;
    static const char *const silent[] = {"", "Traceback (most recent call last):", "{}", "[1]",
                                         "{\"v\": 2, \"state\": \"SUCCESS\"}"};
    for (size_t index = 0; index < ARRAY_LENGTH(silent); index++) {
        assert_false(job_result_read(bytes_from_text(silent[index]), fixture->arena,
                                     &fixture->result, &fixture->error));
        assert_int_equal(fixture->error.kind, ERROR_NOT_FOUND);
    }
    assert_false(job_result_read(report(fixture, "SUCCESS", "\"result\": 4", "5"), fixture->arena,
                                 &fixture->result, &fixture->error));
    assert_int_equal(fixture->error.kind, ERROR_INVALID);
    assert_false(job_result_read(bytes_from_text("{\"v\": 1, \"state\": 7}"), fixture->arena,
                                 &fixture->result, &fixture->error));
    assert_int_equal(fixture->error.kind, ERROR_INVALID);
}

/* Appends `payload` as lines of at most `size` raw bytes each. */
static void append_lines(struct buffer *log, const char *payload, size_t size)
{
    size_t length = strlen(payload);
    size_t total = (length + size - 1) / size;
    for (size_t index = 0; index < total; index++) {
        size_t rest = length - index * size;
        (void)buffer_format(log, "::petiole-result %zu/%zu ", index + 1, total);
        base64_append(log, bytes_of(payload + index * size, rest < size ? rest : size));
        (void)buffer_append_byte(log, '\n');
    }
}

static void test_puts_a_moved_result_together(void **state)
{
    struct fixture *fixture = *state;
    const char *payload = "{\"result\": \"0123456789012345678901234567890123456789\"}";
    struct buffer log;
    buffer_init(&log, 4096);
    (void)buffer_append_text(&log, "some output\n");
    append_lines(&log, "{\"result\": \"of another run\"}", 7);
    (void)buffer_append_text(&log, "more\n\n");
    append_lines(&log, payload, 9);
    (void)buffer_append_text(&log, "an exit handler speaks\n");
    assert_true(job_result_read(report(fixture, "SUCCESS", "", payload), fixture->arena,
                                &fixture->result, &fixture->error));
    assert_true(fixture->result.is_moved);
    assert_true(job_result_read_moved(buffer_view(&log), fixture->arena, &fixture->result,
                                      &fixture->error));
    assert_true(
        job_result_outcome(&fixture->result, fixture->arena, &fixture->outcome, &fixture->error));
    assert_text(fixture->outcome.result, "\"0123456789012345678901234567890123456789\"");
    buffer_fini(&log);
}

static void test_refuses_a_moved_result_with_a_hole(void **state)
{
    struct fixture *fixture = *state;
    const char *payload = "{\"result\": \"0123456789\"}";
    struct bytes text = report(fixture, "SUCCESS", "", payload);
    static const char *const logs[] = {
        "",
        "::petiole-result 2/2 fQ==\n",
        "::petiole-result 1/2 eyJyZXN1bHQiOiAx\n",
        "::petiole-result 1/1 eyJyZXN1bHQiOiAxfQ==\n",
        "::petiole-result 1/1 !!!\n",
        "::petiole-result 1/99999999999 eyJ9\n",
        "::petiole-result x\n",
    };
    assert_true(job_result_read(text, fixture->arena, &fixture->result, &fixture->error));
    for (size_t index = 0; index < ARRAY_LENGTH(logs); index++) {
        assert_false(job_result_read_moved(bytes_from_text(logs[index]), fixture->arena,
                                           &fixture->result, &fixture->error));
        assert_int_equal(fixture->error.kind, ERROR_INVALID);
    }
}

static void test_reads_why_a_task_rejected_its_message(void **state)
{
    struct fixture *fixture = *state;
    const char *exception = "{\"exc_type\": \"Reject\", \"exc_message\": [\"late\", false], "
                            "\"exc_module\": \"celery.exceptions\"}";
    const char *payload =
        arena_format(fixture->arena, "\"exception\": %s, \"requeue\": true", exception);
    assert_true(job_result_read(report(fixture, "REJECTED", payload, exception), fixture->arena,
                                &fixture->result, &fixture->error));
    assert_true(
        job_result_outcome(&fixture->result, fixture->arena, &fixture->outcome, &fixture->error));
    assert_int_equal(fixture->outcome.kind, OUTCOME_REJECT);
    assert_true(fixture->outcome.requeue);
    assert_text(fixture->outcome.exc_type, "Reject");
    assert_text(fixture->outcome.exc_message, "[\"late\", false]");
}

static void test_reads_what_an_ignored_task_told(void **state)
{
    struct fixture *fixture = *state;
    static const char exception[] = "\"exception\": {}";

    static const struct {
        const char *told;
        const char *state; /* NULL: refused */
    } rows[] = {
        {"", ""},
        {", \"told\": null", ""},
        {", \"told\": {\"state\": \"FAILURE\", \"meta\": [1]}", "FAILURE"},
        {", \"told\": {\"state\": \"\", \"meta\": [1]}", NULL},
        {", \"told\": {\"meta\": [1]}", NULL},
        {", \"told\": 7", NULL},
    };

    for (size_t index = 0; index < ARRAY_LENGTH(rows); index++) {
        char payload[128];
        (void)snprintf(payload, sizeof(payload), "%s%s", exception, rows[index].told);
        assert_true(job_result_read(report(fixture, "IGNORED", payload, "{}"), fixture->arena,
                                    &fixture->result, &fixture->error));
        bool is_right = job_result_outcome(&fixture->result, fixture->arena, &fixture->outcome,
                                           &fixture->error);
        assert_int_equal(is_right, rows[index].state != NULL);
        if (is_right) {
            assert_int_equal(fixture->outcome.kind, OUTCOME_IGNORE);
            assert_text(fixture->outcome.told.state, rows[index].state);
        }
    }
}

static void test_refuses_a_state_without_its_payload(void **state)
{
    struct fixture *fixture = *state;
    static const char *const states[] = {"FAILURE", "PENDING"};
    for (size_t index = 0; index < ARRAY_LENGTH(states); index++) {
        assert_true(job_result_read(report(fixture, states[index], "\"result\": 4", "4"),
                                    fixture->arena, &fixture->result, &fixture->error));
        assert_false(job_result_outcome(&fixture->result, fixture->arena, &fixture->outcome,
                                        &fixture->error));
        assert_int_equal(fixture->error.kind, ERROR_INVALID);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_reads_a_result, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_reads_an_exception, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_reads_why_a_task_rejected_its_message, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(test_reads_a_hard_time_limit, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_reads_a_retry_with_its_countdown, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_bounds_the_countdown_of_a_retry, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_reads_what_is_left_to_do, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_tells_no_frames_from_none_told, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_refuses_a_frame_that_nobody_can_do, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_bounds_the_number_of_frames, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_tells_silence_from_a_broken_report, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_puts_a_moved_result_together, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_refuses_a_moved_result_with_a_hole, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_reads_what_an_ignored_task_told, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_refuses_a_state_without_its_payload, set_up,
                                        tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
