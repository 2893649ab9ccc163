#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "executor/job_frame.h"
#include "result/canvas.h"
#include "support/job_fixture.h"

#define NOW_S 1893553445.0
#define SIGNATURE(task, args, options)                                                             \
    "{\"task\": \"" task "\", \"args\": " args ", \"kwargs\": {}, \"options\": {" options          \
    "}, \"subtask_type\": null, \"immutable\": false}"

static struct request request_with(struct arena *arena, const char *chain, const char *errbacks)
{
    struct request request = {.arena = arena, .type = &registry_defaults};
    request.message.id = BYTES("failed");
    request.message.root_id = BYTES("root");
    request.message.taken_from = BYTES("tenant-a");
    request.message.chain = job_fixture_parsed(chain);
    request.message.errbacks = job_fixture_parsed(errbacks);
    request.message.callbacks = job_fixture_parsed("null");
    request.message.chord = job_fixture_parsed("null");
    request.message.ignore_result = MESSAGE_UNSET;
    return request;
}

static const struct outcome out_of_memory = {
    .kind = OUTCOME_FAILURE,
    .exc_type = {"OOMKilled", 9},
    .exc_module = {"petiole.exceptions", 18},
    .exc_message = {"[\"no memory\"]", 13},
};

/* The frames after `outcome` that have room in `max_bytes`, as the pipeline reads them. */
static size_t frames_after(const struct request *request, const struct outcome *outcome,
                           size_t max_bytes, bool is_extended, struct job_frame *ret_frames,
                           size_t most, size_t *ret_left_out)
{
    struct timezone_table zone;
    struct error error = {0};
    assert_true(timezone_load("UTC", (int64_t)NOW_S, &zone, &error));
    struct result_document_options options = {.node_name = "celery@h", .timezone = &zone};
    options.is_extended = is_extended;
    struct buffer buffer;
    buffer_init(&buffer, max_bytes);
    canvas_append_end(&buffer, request, outcome, &options, NOW_S, ret_left_out);
    struct json list = {.type = JSON_TYPE_ABSENT};
    if (!json_parse(arena_copy(request->arena, buffer_view(&buffer)), &list, &error)) {
        fail_msg("%s", error.message);
    }
    buffer_fini(&buffer);
    struct json_walk walk = json_walk(list);
    struct json element;
    size_t count = 0;
    while (count < most && json_next_element(&walk, &element)) {
        if (!job_frame_read(element, request->arena, &ret_frames[count++], &error)) {
            fail_msg("%s", error.message);
        }
    }
    return count;
}

static size_t frames_within(const struct request *request, size_t max_bytes, bool is_extended,
                            struct job_frame *ret_frames, size_t most, size_t *ret_left_out)
{
    return frames_after(request, &out_of_memory, max_bytes, is_extended, ret_frames, most,
                        ret_left_out);
}

static size_t frames_shown(const struct request *request, bool is_extended,
                           struct job_frame *ret_frames, size_t most, size_t *ret_left_out)
{
    return frames_within(request, 65536, is_extended, ret_frames, most, ret_left_out);
}

static size_t frames_of(const struct request *request, struct job_frame *ret_frames, size_t most,
                        size_t *ret_left_out)
{
    return frames_shown(request, false, ret_frames, most, ret_left_out);
}

static void assert_text(struct bytes actual, const char *expected)
{
    if (!bytes_equal_text(actual, expected)) {
        fail_msg("%.*s is not %s", BYTES_FORMAT(actual), expected);
    }
}

static void test_tells_which_ends_somebody_waits_for(void **state)
{
    struct request none = request_with(*state, "null", "[]");
    struct request linked = request_with(*state, "[{}]", "[]");
    struct request watched = request_with(*state, "[]", "[{}]");
    assert_false(canvas_follows_end(&none, OUTCOME_FAILURE));
    assert_false(canvas_follows_success(&none));
    assert_true(canvas_follows_end(&linked, OUTCOME_FAILURE));
    assert_true(canvas_follows_success(&linked));
    assert_true(canvas_follows_end(&watched, OUTCOME_FAILURE));
    assert_false(canvas_follows_success(&watched));
    none.message.callbacks = job_fixture_parsed("[{}]");
    assert_true(canvas_follows_success(&none));
}

static void test_ends_the_chain(void **state)
{
    static const char chain[] = "[" SIGNATURE(
        "t", "[]", "\"task_id\": \"last\", \"group_id\": \"g\"") ", " SIGNATURE("t", "[]", "") "]";
    struct request request = request_with(*state, chain, "null");
    struct job_frame frames[4];
    size_t left_out = 0;
    assert_int_equal(frames_of(&request, frames, ARRAY_LENGTH(frames), &left_out), 1);
    assert_text(frames[0].task_id, "last");
    assert_text(frames[0].state, "FAILURE");
    assert_true(frames[0].is_after_failure);
    assert_text(frames[0].document,
                "{\"status\": \"FAILURE\", \"result\": {\"exc_type\": \"OOMKilled\", "
                "\"exc_message\": [\"no memory\"], \"exc_module\": \"petiole.exceptions\"}, "
                "\"traceback\": null, \"children\": [], \"date_done\": "
                "\"2030-01-02T03:04:05+00:00\", \"group_id\": \"g\", \"task_id\": \"last\"}");
}

static void test_ends_the_body_of_its_own_chord(void **state)
{
    struct request request = request_with(*state, "null", "null");
    struct job_frame frames[2];
    size_t left_out = 0;
    request.message.chord = job_fixture_parsed(SIGNATURE("t", "[]", "\"task_id\": \"the body\""));
    assert_true(canvas_follows_end(&request, OUTCOME_FAILURE));
    assert_int_equal(frames_of(&request, frames, ARRAY_LENGTH(frames), &left_out), 1);
    assert_text(frames[0].task_id, "the body");
    assert_text(frames[0].document,
                "{\"status\": \"FAILURE\", \"result\": {\"exc_type\": \"ChordError\", "
                "\"exc_message\": [\"Dependency failed raised OOMKilled('no memory')\"], "
                "\"exc_module\": \"celery.exceptions\"}, \"traceback\": null, \"children\": [], "
                "\"date_done\": \"2030-01-02T03:04:05+00:00\", \"task_id\": \"the body\"}");
    request.message.chord = job_fixture_parsed(SIGNATURE("t", "[]", ""));
    assert_int_equal(frames_of(&request, frames, ARRAY_LENGTH(frames), &left_out), 0);
}

static void test_ends_nothing_but_the_chord_after_a_revoked_member(void **state)
{
    static const char one[] = "[" SIGNATURE("t", "[]", "\"task_id\": \"other\"") "]";
    struct request request = request_with(*state, one, one);
    struct outcome revoked;
    struct job_frame frames[3];
    size_t left_out = 0;
    executor_revoked(*state, "expired", &revoked);
    assert_false(canvas_follows_end(&request, OUTCOME_REVOKED));
    request.message.chord = job_fixture_parsed(SIGNATURE("t", "[]", "\"task_id\": \"the body\""));
    assert_true(canvas_follows_end(&request, OUTCOME_REVOKED));
    assert_int_equal(
        frames_after(&request, &revoked, 65536, false, frames, ARRAY_LENGTH(frames), &left_out), 1);
    assert_text(frames[0].task_id, "the body");
    struct json document = job_fixture_parsed(arena_text(*state, frames[0].document));
    assert_text(json_get(json_get(document, "result"), "exc_message").text,
                "[\"Dependency failed raised TaskRevokedError('expired')\"]");
}

static void test_ends_the_body_of_a_chord_when_the_cause_has_no_arguments(void **state)
{
    struct request request = request_with(*state, "null", "null");
    const struct outcome bare = {.kind = OUTCOME_FAILURE, .exc_type = {"CrashExit", 9}};
    struct job_frame frame;
    size_t left_out = 0;
    request.message.chord = job_fixture_parsed(SIGNATURE("t", "[]", "\"task_id\": \"the body\""));
    assert_int_equal(frames_after(&request, &bare, 65536, false, &frame, 1, &left_out), 1);
    struct json document = job_fixture_parsed(arena_text(*state, frame.document));
    assert_text(json_get(json_get(document, "result"), "exc_message").text,
                "[\"Dependency failed raised CrashExit()\"]");
}

static void test_ends_a_chord_and_its_body(void **state)
{
    static const char inner[] =
        "{\"task\": \"celery.chord\", \"subtask_type\": \"chord\", \"options\": {}, \"kwargs\": "
        "{\"body\": " SIGNATURE("t", "[]", "\"task_id\": \"body\"") "}}";
    char chain[1024];
    (void)snprintf(chain, sizeof(chain),
                   "[{\"task\": \"celery.chord\", \"subtask_type\": \"chord\", \"options\": "
                   "{\"task_id\": \"chord\"}, \"kwargs\": {\"body\": %s}}]",
                   inner);
    struct request request = request_with(*state, chain, "null");
    struct job_frame frames[4];
    size_t left_out = 0;
    assert_int_equal(frames_of(&request, frames, ARRAY_LENGTH(frames), &left_out), 2);
    assert_text(frames[0].task_id, "chord");
    assert_text(frames[1].task_id, "body");
}

static void test_leaves_the_arguments_of_a_link_alone(void **state)
{
    static const char chain[] =
        "[{\"task\": \"app.notify\", \"subtask_type\": null, \"options\": {\"task_id\": \"last\"}, "
        "\"kwargs\": {\"body\": {\"task\": \"t\", \"options\": {\"task_id\": \"no\"}}}}]";
    struct request request = request_with(*state, chain, "null");
    struct job_frame frames[4];
    size_t left_out = 0;
    assert_int_equal(frames_of(&request, frames, ARRAY_LENGTH(frames), &left_out), 1);
    assert_text(frames[0].task_id, "last");
}

static void test_stores_no_ends_when_the_failed_task_stores_none(void **state)
{
    static const char chain[] = "[" SIGNATURE("t", "[]", "\"task_id\": \"next\"") ", " SIGNATURE(
        "t", "[]", "\"task_id\": \"last\", \"group_id\": \"g\", \"chord\": {}") "]";
    struct task_type type = registry_defaults;
    struct request request = request_with(*state, chain, "null");
    struct job_frame frames[4];
    size_t left_out = 0;
    request.type = &type;
    request.message.ignore_result = MESSAGE_YES;
    assert_int_equal(frames_of(&request, frames, ARRAY_LENGTH(frames), &left_out), 1);
    assert_int_equal(frames[0].kind, JOB_FRAME_JOIN_CHORD);
    assert_text(frames[0].task_id, "last");
    type.store_errors_even_if_ignored = true;
    assert_int_equal(frames_of(&request, frames, ARRAY_LENGTH(frames), &left_out), 3);
}

static void test_ends_a_chain_that_has_reached_no_worker(void **state)
{
    static const char chain[] = "[" SIGNATURE("t", "[]", "\"task_id\": \"last\"") "]";
    struct request request = request_with(*state, chain, "null");
    struct job_frame frames[2];
    size_t left_out = 0;
    assert_int_equal(frames_shown(&request, true, frames, ARRAY_LENGTH(frames), &left_out), 1);
    struct json document = job_fixture_parsed(arena_text(*state, frames[0].document));
    assert_int_equal(json_get(document, "worker").type, JSON_TYPE_NULL);
    assert_int_equal(json_get(document, "queue").type, JSON_TYPE_NULL);
}

static void test_calls_errbacks(void **state)
{
    static const char errbacks[] = "[" SIGNATURE(
        "app.alert", "[1]",
        "\"task_id\": \"e\", \"queue\": \"q\", \"priority\": 5") ", {\"task\": \"app.still\", \"args\": [2], \"kwargs\": {\"a\": 1}, \"options\": {}, "
                                                                 "\"immutable\": true}]";
    struct request request = request_with(*state, "[]", errbacks);
    struct job_frame frames[4];
    size_t left_out = 0;
    assert_int_equal(frames_of(&request, frames, ARRAY_LENGTH(frames), &left_out), 2);
    assert_int_equal(frames[0].kind, JOB_FRAME_PUBLISH);
    assert_text(frames[0].queue, "q");
    assert_text(frames[0].task, "app.alert");
    assert_text(frames[0].task_id, "e");
    assert_text(frames[0].correlation_id, "e");
    assert_int_equal(frames[0].priority, 5);
    assert_text(frames[0].body, "[[\"failed\", 1], {}, {\"callbacks\": null, \"errbacks\": null, "
                                "\"chain\": null, \"chord\": null}]");
    assert_text(json_get(frames[0].headers, "argsrepr").text, "\"['failed', 1]\"");
    assert_text(json_get(frames[0].headers, "root_id").text, "\"root\"");
    assert_text(json_get(frames[0].headers, "parent_id").text, "\"failed\"");
    assert_text(frames[1].queue, "tenant-a");
    assert_text(frames[1].body, "[[2], {\"a\": 1}, {\"callbacks\": null, \"errbacks\": null, "
                                "\"chain\": null, \"chord\": null}]");
    assert_int_equal(frames[1].task_id.length, 36);
    assert_int_equal(left_out, 0);
}

static void test_calls_errbacks_with_their_options(void **state)
{
    static const struct {
        const char *options;
        const char *header;
        const char *expected;
    } rows[] = {
        {"", "eta", "null"},
        {"\"countdown\": 60", "eta", "\"2030-01-02T03:05:05+00:00\""},
        {"\"countdown\": -1", "eta", "\"2030-01-02T03:04:05+00:00\""},
        {"\"countdown\": 1e300", "eta", "\"2061-09-10T04:50:45+00:00\""},
        {"\"countdown\": null, \"eta\": \"2031-01-01T00:00:00\"", "eta", "\"2031-01-01T00:00:00\""},
        {"\"eta\": [1]", "eta", "null"},
        {"\"eta\": {\"__type__\": \"datetime\", \"__value__\": \"2031-01-01T00:00:00+00:00\"}",
         "eta", "\"2031-01-01T00:00:00+00:00\""},
        {"\"expires\": {\"__type__\": \"datetime\", \"__value__\": \"2031-01-01T03:04:05.000006\"}",
         "expires", "\"2031-01-01T03:04:05.000006\""},
        {"\"eta\": {\"__type__\": \"datetime\", \"__value__\": 1}", "eta", "null"},
        {"\"expires\": 3600", "expires", "\"2030-01-02T04:04:05+00:00\""},
        {"\"expires\": \"2031-01-01T00:00:00\"", "expires", "\"2031-01-01T00:00:00\""},
        {"\"time_limit\": 9", "timelimit", "[9, null]"},
        {"\"soft_time_limit\": 3.5", "timelimit", "[null, 3.5]"},
        {"\"shadow\": \"s\"", "shadow", "\"s\""},
        {"\"headers\": {\"mine\": {\"a\":1}, \"lang\": \"c\"}", "mine", "{\"a\": 1}"},
        {"\"headers\": {\"mine\": {\"a\":1}, \"lang\": \"c\"}", "lang", "\"c\""},
        {"\"headers\": [1]", "lang", "\"py\""},
    };

    for (size_t index = 0; index < ARRAY_LENGTH(rows); index++) {
        char errbacks[512];
        (void)snprintf(errbacks, sizeof(errbacks), "[" SIGNATURE("e", "[]", "%s") "]",
                       rows[index].options);
        struct request request = request_with(*state, "[]", errbacks);
        struct job_frame frame;
        size_t left_out = 0;
        assert_int_equal(frames_of(&request, &frame, 1, &left_out), 1);
        assert_text(json_get(frame.headers, rows[index].header).text, rows[index].expected);
    }
}

static void test_leaves_out_what_it_cannot_send(void **state)
{
    static const char errbacks[] = "[{\"task\": \"celery.group\", \"subtask_type\": \"group\"}, 7]";
    struct request request = request_with(*state, "[]", errbacks);
    struct job_frame frames[4];
    size_t left_out = 0;
    assert_int_equal(frames_of(&request, frames, ARRAY_LENGTH(frames), &left_out), 0);
    assert_int_equal(left_out, 2);
}

/* Whatever the room is, what is there is whole, and the rest is counted. */
static void test_leaves_out_what_has_no_room(void **state)
{
    static const char chain[] = "[" SIGNATURE("t", "[]", "\"task_id\": \"a\", \"chord\": {}") "]";
    static const char errbacks[] =
        "[" SIGNATURE("app.alert", "[\"long long long\"]", "") ", " SIGNATURE("e", "[]", "") "]";
    struct request request = request_with(*state, chain, errbacks);
    struct job_frame frames[8];
    size_t most = 0;
    size_t left_out = 0;
    for (size_t room = 2; room < 4096; room += 3) {
        size_t count =
            frames_within(&request, room, false, frames, ARRAY_LENGTH(frames), &left_out);
        most = count > most ? count : most;
        assert_true(count + left_out >= 3 && count + left_out <= 4);
    }
    assert_int_equal(most, 4);
    assert_int_equal(left_out, 0);
}

static void test_sends_large_arguments_whole(void **state)
{
    size_t length = (size_t)17 << 20;
    char *argument = memory_new(length + 1);
    memset(argument, 'x', length);
    char *errbacks = arena_format(*state, "[" SIGNATURE("e", "[\"%s\"]", "") "]", argument);
    memory_free(&argument);
    struct request request = request_with(*state, "null", errbacks);
    struct job_frame frame;
    size_t left_out = 0;
    assert_int_equal(frames_within(&request, (size_t)64 << 20, false, &frame, 1, &left_out), 1);
    assert_true(frame.body.length > length);
    assert_int_equal(frame.body.data[frame.body.length - 1], ']');
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tells_which_ends_somebody_waits_for),
        cmocka_unit_test(test_ends_the_chain),
        cmocka_unit_test(test_ends_the_body_of_its_own_chord),
        cmocka_unit_test(test_ends_nothing_but_the_chord_after_a_revoked_member),
        cmocka_unit_test(test_ends_the_body_of_a_chord_when_the_cause_has_no_arguments),
        cmocka_unit_test(test_ends_a_chord_and_its_body),
        cmocka_unit_test(test_leaves_the_arguments_of_a_link_alone),
        cmocka_unit_test(test_stores_no_ends_when_the_failed_task_stores_none),
        cmocka_unit_test(test_ends_a_chain_that_has_reached_no_worker),
        cmocka_unit_test(test_calls_errbacks),
        cmocka_unit_test(test_calls_errbacks_with_their_options),
        cmocka_unit_test(test_leaves_out_what_it_cannot_send),
        cmocka_unit_test(test_leaves_out_what_has_no_room),
        cmocka_unit_test(test_sends_large_arguments_whole),
    };
    return cmocka_run_group_tests(tests, job_fixture_set_up_arena, job_fixture_tear_down_arena);
}
