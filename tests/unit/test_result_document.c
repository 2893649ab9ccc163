#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "codec/iso8601.h"
#include "result/result_document.h"
#include "support/golden.h"

static const char *const accept_json[] = {"json", NULL};
static const struct message_rules rules = {accept_json, (size_t)1 << 20};

/* What results.json says of one task, and what we write of it. */
struct golden_case {
    struct arena *arena;
    const char *name;
    struct result_document_options options;
    struct timezone_table timezone;
    struct delivery *delivery;
    struct request request;
};

static bool ignores(const char *name)
{
    return strstr(name, "ignored") && !strstr(name, "not registered");
}

static void open_case(struct golden_case *row, struct json value, struct arena *arena)
{
    struct json configuration = json_get(value, "configuration");
    struct error error = {0};
    *row = (struct golden_case){.arena = arena};
    row->name = arena_text(arena, golden_text(value, "name", arena));
    char *zone = arena_text(arena, golden_text(configuration, "timezone", arena));
    assert_true(timezone_load(zone, 1893553445, &row->timezone, &error));
    row->options = (struct result_document_options){
        .is_extended = json_get(configuration, "result_extended").type == JSON_TYPE_TRUE,
        .node_name = "celery@golden",
        .timezone = &row->timezone,
    };
    row->delivery = golden_delivery(golden_text(value, "envelope", arena));
    row->request = (struct request){.arena = row->delivery->arena, .delivery = row->delivery};
    if (!strstr(row->name, "not registered")) {
        row->request.type = &registry_defaults;
    }
    if (message_read(row->delivery, &rules, &row->request.message, &error) != MESSAGE_FINE
        || message_open_body(row->delivery, &rules, &row->request.message, &error)
               != MESSAGE_FINE) {
        fail_msg("%s: %s", row->name, error.message);
    }
}

static enum outcome_kind kind_of(struct bytes status)
{
    return bytes_equal(status, BYTES("SUCCESS"))   ? OUTCOME_SUCCESS
           : bytes_equal(status, BYTES("FAILURE")) ? OUTCOME_FAILURE
           : bytes_equal(status, BYTES("RETRY"))   ? OUTCOME_RETRY
                                                   : OUTCOME_REVOKED;
}

/* `value` without the blanks of json.dumps, as another encoder might write it: the test shows that
 * they are put back. Good for texts without ", " or ": " inside strings. */
static struct bytes squeezed(struct bytes text, struct arena *arena)
{
    char *out = arena_alloc(arena, text.length + 1);
    size_t length = 0;
    for (size_t index = 0; index < text.length; index++) {
        bool is_blank = index > 0 && text.data[index] == ' '
                        && (text.data[index - 1] == ',' || text.data[index - 1] == ':');
        if (!is_blank) {
            out[length++] = text.data[index];
        }
    }
    return bytes_of(out, length);
}

/* The outcome that a document tells of. */
static struct outcome outcome_of(struct json document, struct arena *arena)
{
    struct json result = json_get(document, "result");
    struct outcome outcome = {.kind = kind_of(golden_text(document, "status", arena))};
    if (outcome.kind == OUTCOME_SUCCESS) {
        outcome.result = squeezed(result.text, arena);
    } else if (result.type == JSON_TYPE_OBJECT) {
        outcome.exc_type = golden_text(result, "exc_type", arena);
        outcome.exc_module = golden_text(result, "exc_module", arena);
        outcome.exc_message = squeezed(json_get(result, "exc_message").text, arena);
    }
    (void)!json_text(json_get(document, "traceback"), arena, &outcome.traceback);
    return outcome;
}

static double time_of(struct json document, struct arena *arena)
{
    struct bytes text;
    double wall_s = 0;
    if (json_text(json_get(document, "date_done"), arena, &text)) {
        assert_true(iso8601_parse(text, &wall_s));
    }
    return wall_s;
}

static void check_document(struct golden_case *row, struct bytes expected)
{
    struct json document;
    struct buffer written;
    buffer_init(&written, (size_t)1 << 20);
    assert_true(json_parse(expected, &document, NULL));
    if (bytes_equal(golden_text(document, "status", row->arena), BYTES("STARTED"))) {
        int64_t pid = 0;
        assert_true(json_int64(json_get(json_get(document, "result"), "pid"), &pid));
        result_document_append_started(&written, &row->request, (int)pid, &row->options);
    } else {
        struct outcome outcome = outcome_of(document, row->arena);
        result_document_append(&written, &row->request, &outcome, &row->options,
                               time_of(document, row->arena));
    }
    golden_assert(buffer_view(&written), expected, row->name);
    buffer_fini(&written);
}

static void test_documents_are_byte_for_byte_celerys(void **state)
{
    (void)state;
    struct arena *arena = arena_new(4096);
    struct json rows = json_get(golden_read("results.json", arena), "cases");
    struct json_walk walk = json_walk(rows);
    struct json value;
    size_t count = 0;
    while (json_next_element(&walk, &value)) {
        struct golden_case row;
        struct json_walk documents = json_walk(json_get(value, "documents"));
        struct json document;
        open_case(&row, value, arena);
        while (json_next_element(&documents, &document)) {
            struct bytes text;
            assert_true(json_text(document, arena, &text));
            check_document(&row, text);
            count++;
        }
        golden_delivery_free(&row.delivery);
    }
    assert_true(count > 60);
    arena_free(&arena);
}

/* Which of them are stored at all: what request_stores_* say must agree with what Celery did. */
static void test_what_celery_did_not_store_is_not_stored(void **state)
{
    (void)state;
    struct arena *arena = arena_new(4096);
    struct json rows = json_get(golden_read("results.json", arena), "cases");
    struct json_walk walk = json_walk(rows);
    struct json value;
    size_t unstored = 0;
    while (json_next_element(&walk, &value)) {
        struct golden_case row;
        open_case(&row, value, arena);
        struct task_type type = registry_defaults;
        bool is_ignoring_type = strstr(row.name, "by the task") || strstr(row.name, "kept")
                                || strstr(row.name, "failure ignored")
                                || strstr(row.name, "and ignored");
        type.ignore_result = is_ignoring_type ? MESSAGE_YES : MESSAGE_UNSET;
        type.store_errors_even_if_ignored = strstr(row.name, "although") != NULL;
        row.request.type = row.request.type ? &type : NULL;
        bool is_error = strstr(row.name, "failure") || strstr(row.name, "expired");
        bool stored =
            is_error ? request_stores_errors(&row.request) : request_stores_result(&row.request);
        bool was_stored = json_count(json_get(value, "documents")) > 0;
        if (row.request.type && !strstr(row.name, "said to be") && stored != was_stored) {
            fail_msg("%s: %s", row.name, stored ? "stored" : "not stored");
        }
        unstored += ignores(row.name) && !was_stored ? 1 : 0;
        golden_delivery_free(&row.delivery);
    }
    assert_true(unstored >= 8);
    arena_free(&arena);
}

static void test_states_that_are_never_stored_have_no_name(void **state)
{
    (void)state;
    assert_null(result_document_state(OUTCOME_IGNORE));
    assert_null(result_document_state(OUTCOME_REJECT));
    assert_null(result_document_state(OUTCOME_LOST));
    assert_string_equal(result_document_state(OUTCOME_REVOKED), "REVOKED");
}

/* The document of outcome `outcome` for a bare message, at the Epoch. */
static void assert_document(const struct outcome *outcome, const char *expected)
{
    struct timezone_table utc = {.changes = {{INT64_MIN, 0}}, .count = 1};
    struct result_document_options options = {.node_name = "n", .timezone = &utc};
    struct request request = {.arena = arena_new(256), .type = &registry_defaults};
    struct buffer written;
    request.message.id = BYTES("i");
    buffer_init(&written, 4096);
    result_document_append(&written, &request, outcome, &options, 0);
    golden_assert(buffer_view(&written), bytes_from_text(expected), "document");
    buffer_fini(&written);
    arena_free(&request.arena);
}

static void test_a_result_that_is_no_json_is_null(void **state)
{
    (void)state;
    struct outcome outcome = {.kind = OUTCOME_SUCCESS, .result = BYTES("{")};
    const char *expected = "{\"status\": \"SUCCESS\", \"result\": null, \"traceback\": null, "
                           "\"children\": [], \"date_done\": \"1970-01-01T00:00:00+00:00\", "
                           "\"task_id\": \"i\"}";
    assert_document(&outcome, expected);
    outcome.result = (struct bytes){NULL, 0};
    assert_document(&outcome, expected);
}

static void test_arguments_of_an_exception_that_are_no_json_are_none(void **state)
{
    (void)state;
    struct outcome outcome = {.kind = OUTCOME_FAILURE,
                              .exc_type = BYTES("E"),
                              .exc_module = BYTES("m"),
                              .exc_message = BYTES("[\"x\"], \"status\": \"SUCCESS\"")};
    assert_document(&outcome,
                    "{\"status\": \"FAILURE\", \"result\": {\"exc_type\": \"E\", \"exc_message\": "
                    "[], \"exc_module\": \"m\"}, \"traceback\": null, \"children\": [], "
                    "\"date_done\": \"1970-01-01T00:00:00+00:00\", \"task_id\": \"i\"}");
}

static void test_a_retry_that_nobody_published_has_no_child(void **state)
{
    (void)state;
    struct outcome outcome = {.kind = OUTCOME_RETRY, .retry_countdown_s = -1};
    assert_document(&outcome, "{\"status\": \"RETRY\", \"result\": null, \"traceback\": null, "
                              "\"children\": [], \"date_done\": null, \"task_id\": \"i\"}");
}

static void test_an_ignored_task_leaves_what_it_told(void **state)
{
    (void)state;
    struct outcome outcome = {.kind = OUTCOME_IGNORE,
                              .told = {BYTES("CUSTOM"), json_checked(BYTES("[1]"))}};
    assert_document(&outcome, "{\"status\": \"CUSTOM\", \"result\": [1], \"traceback\": null, "
                              "\"children\": [], \"date_done\": null, \"task_id\": \"i\"}");
    outcome.told.state = BYTES("FAILURE");
    assert_document(&outcome, "{\"status\": \"FAILURE\", \"result\": [1], \"traceback\": null, "
                              "\"children\": [], \"date_done\": \"1970-01-01T00:00:00+00:00\", "
                              "\"task_id\": \"i\"}");
}

static void test_a_task_that_waits_says_why(void **state)
{
    (void)state;
    struct task_type type = registry_defaults;
    struct request request = {.message.id = BYTES("an-id"), .type = &type};
    struct result_document_options options = {.node_name = "celery@host"};
    struct buffer written;
    buffer_init(&written, 1024);
    result_document_append_waiting(&written, &request, "no \"room\"", &options);
    golden_assert(buffer_view(&written),
                  BYTES("{\"status\": \"WAITING_QUOTA\", \"result\": {\"reason\": "
                        "\"no \\\"room\\\"\", \"hostname\": \"celery@host\"}, "
                        "\"traceback\": null, \"children\": [], \"date_done\": null, "
                        "\"task_id\": \"an-id\"}"),
                  "waiting");
    buffer_fini(&written);
}

static void test_a_task_that_runs_says_how_far_it_is(void **state)
{
    (void)state;
    struct request request = {.message.id = BYTES("an-id"), .type = &registry_defaults};
    struct result_document_options options = {.node_name = "celery@host"};
    struct progress progress = {BYTES("HALF \xc3\xa9"), json_checked(BYTES("{\"n\":[1,null]}"))};
    struct buffer written;
    buffer_init(&written, 1024);
    result_document_append_progress(&written, &request, &progress, &options, 0);
    golden_assert(buffer_view(&written),
                  BYTES("{\"status\": \"HALF \\u00e9\", \"result\": {\"n\": [1, null]}, "
                        "\"traceback\": null, \"children\": [], \"date_done\": null, "
                        "\"task_id\": \"an-id\"}"),
                  "progress");
    buffer_clear(&written);
    progress.meta = (struct json){JSON_TYPE_ABSENT, {NULL, 0}};
    result_document_append_progress(&written, &request, &progress, &options, 0);
    assert_non_null(strstr(written.data, "\"result\": null, "));
    buffer_fini(&written);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_documents_are_byte_for_byte_celerys),
        cmocka_unit_test(test_what_celery_did_not_store_is_not_stored),
        cmocka_unit_test(test_an_ignored_task_leaves_what_it_told),
        cmocka_unit_test(test_a_task_that_waits_says_why),
        cmocka_unit_test(test_a_task_that_runs_says_how_far_it_is),
        cmocka_unit_test(test_states_that_are_never_stored_have_no_name),
        cmocka_unit_test(test_a_result_that_is_no_json_is_null),
        cmocka_unit_test(test_arguments_of_an_exception_that_are_no_json_are_none),
        cmocka_unit_test(test_a_retry_that_nobody_published_has_no_child),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
