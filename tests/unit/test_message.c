#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "codec/message.h"
#include "codec/message_body.h"
#include "support/golden.h"

static const char *const accept_json[] = {"json", NULL};
static const struct message_rules rules = {accept_json, (size_t)1 << 20};

/* One message of the golden file: read it, open it, and look at every member. */
struct golden_case {
    struct arena *arena;
    struct json expected;
    const char *name;
    struct message message;
};

static void check_text(struct golden_case *row, const char *key, struct bytes actual)
{
    golden_assert(actual, golden_text(row->expected, key, row->arena), key);
}

static void check_number(struct golden_case *row, const char *key, double actual)
{
    double expected = 0;
    struct json value = json_get(row->expected, key);
    if (!json_is_unset(value) && !json_double(value, &expected)) {
        fail_msg("%s: %s is no number", row->name, key);
    }
    if (actual - expected > 1e-6 || expected - actual > 1e-6) {
        fail_msg("%s: %s is %f, not %f", row->name, key, actual, expected);
    }
}

/* The part of the body, in the form of json.dumps; an expected null is not compared. */
static void check_part(struct golden_case *row, const char *key, struct json actual)
{
    struct buffer dumped;
    if (json_is_unset(json_get(row->expected, key))) {
        return;
    }
    buffer_init(&dumped, (size_t)1 << 20);
    if (json_is_unset(actual)) {
        (void)buffer_append_text(&dumped, "null");
    } else {
        json_append_dumps(&dumped, actual);
    }
    check_text(row, key, buffer_view(&dumped));
    buffer_fini(&dumped);
}

static void check_texts(struct golden_case *row)
{
    const struct message *message = &row->message;
    check_text(row, "task", message->task);
    check_text(row, "id", message->id);
    check_text(row, "shadow", message->shadow);
    check_text(row, "root_id", message->root_id);
    check_text(row, "parent_id", message->parent_id);
    check_text(row, "group", message->group);
    check_text(row, "reply_to", message->reply_to);
    check_text(row, "correlation_id", message->correlation_id);
    check_text(row, "routing_key", message->queue);
    check_text(row, "exchange", message->exchange);
    check_text(row, "argsrepr", message->argsrepr);
}

static void check_numbers(struct golden_case *row)
{
    const struct message *message = &row->message;
    check_number(row, "protocol", message->protocol);
    check_number(row, "retries", (double)message->retries);
    check_number(row, "replaced_task_nesting", (double)message->replaced_task_nesting);
    check_number(row, "hard_limit", message->hard_limit_s);
    check_number(row, "soft_limit", message->soft_limit_s);
    check_number(row, "eta", message->eta_wall_s);
    check_number(row, "expires", message->expires_wall_s);
    check_number(row, "priority", (double)message->priority);
    struct json ignore = json_get(row->expected, "ignore_result");
    assert_int_equal(message->ignore_result, ignore.type == JSON_TYPE_TRUE    ? MESSAGE_YES
                                             : ignore.type == JSON_TYPE_FALSE ? MESSAGE_NO
                                                                              : MESSAGE_UNSET);
}

static void check_parts(struct golden_case *row)
{
    const struct message *message = &row->message;
    check_part(row, "args", message->args);
    check_part(row, "kwargs", message->kwargs);
    check_part(row, "callbacks", message->callbacks);
    check_part(row, "errbacks", message->errbacks);
    check_part(row, "chain", message->chain);
    check_part(row, "chord", message->chord);
    struct json_walk walk = json_walk(json_get(row->expected, "headers"));
    struct bytes key;
    struct json value;
    while (json_next_member(&walk, &key, &value)) {
        char *name = arena_text(row->arena, key);
        golden_assert(json_get(message->headers, name).text, value.text, name);
    }
    struct json stamps = json_get(row->expected, "stamps");
    if (!json_is_unset(stamps)) {
        golden_assert(message->stamps.text, stamps.text, "stamps");
    }
}

static enum message_fault read_whole(struct delivery *delivery, struct message *message,
                                     struct error *error)
{
    enum message_fault fault = message_read(delivery, &rules, message, error);
    return fault == MESSAGE_FINE ? message_open_body(delivery, &rules, message, error) : fault;
}

static enum message_fault fault_of(struct bytes name)
{
    return bytes_equal(name, BYTES("fine"))      ? MESSAGE_FINE
           : bytes_equal(name, BYTES("invalid")) ? MESSAGE_INVALID
                                                 : MESSAGE_UNDECODABLE;
}

static void check_case(struct arena *arena, struct json value)
{
    struct golden_case row = {.arena = arena, .expected = json_get(value, "expected")};
    struct error error = {0};
    row.name = arena_text(arena, golden_text(value, "name", arena));
    struct delivery *delivery = golden_delivery(golden_text(value, "envelope", arena));
    enum message_fault fault = read_whole(delivery, &row.message, &error);
    if (bytes_equal(golden_text(row.expected, "fault", arena), BYTES("left"))) {
        assert_int_equal(fault, MESSAGE_FINE);
        assert_true(row.message.compression.length > 0 && !message_is_open(&row.message));
        golden_delivery_free(&delivery);
        return;
    }
    if (fault != fault_of(golden_text(row.expected, "fault", arena))) {
        fail_msg("%s: fault %d: %s", row.name, fault, error.message);
    }
    if (fault == MESSAGE_FINE) {
        check_texts(&row);
        check_numbers(&row);
        check_parts(&row);
    } else {
        assert_true(error.message[0] != '\0');
        check_parts(&row);
    }
    golden_delivery_free(&delivery);
}

static void test_messages_of_three_celerys_are_read_as_celery_reads_them(void **state)
{
    (void)state;
    struct arena *arena = arena_new(4096);
    struct json rows = golden_read("messages.json", arena);
    struct json_walk walk = json_walk(rows);
    struct json row;
    assert_true(json_count(rows) > 150);
    while (json_next_element(&walk, &row)) {
        check_case(arena, row);
    }
    arena_free(&arena);
}

/* The malformed ones: what each is, and that it ends as it does in Celery */

static enum message_fault fault_with(const char *headers, const char *content_type,
                                     const char *body)
{
    struct message message;
    struct error error = {0};
    struct delivery *delivery =
        golden_delivery_of(headers, content_type, bytes_from_text(body), "celery");
    enum message_fault fault = read_whole(delivery, &message, &error);
    assert_true(fault == MESSAGE_FINE || error.message[0] != '\0');
    golden_delivery_free(&delivery);
    return fault;
}

#define JSON_TYPE    "application/json"
#define GOOD_BODY    "[[1], {}, null]"
#define GOOD_HEADERS "{\"task\": \"t\", \"id\": \"i\"}"

static void test_task_and_id_are_all_that_is_needed(void **state)
{
    (void)state;
    assert_int_equal(fault_with(GOOD_HEADERS, JSON_TYPE, GOOD_BODY), MESSAGE_FINE);
}

static void test_a_message_that_names_no_task_is_unknown(void **state)
{
    (void)state;
    static const char *const bodies[] = {"{}",      "[1, 2]",           "\"task\"",
                                         "null",    "{\"task\": null}", "{\"task\": 1}",
                                         GOOD_BODY, "{\"id\": \"i\"}",  "{\"task\": \"\"}"};
    for (size_t index = 0; index < ARRAY_LENGTH(bodies); index++) {
        assert_int_equal(fault_with("{}", JSON_TYPE, bodies[index]), MESSAGE_UNKNOWN);
    }
    assert_int_equal(fault_with("[1]", JSON_TYPE, GOOD_BODY), MESSAGE_UNKNOWN);
    assert_int_equal(fault_with("{\"task\": null}", JSON_TYPE, GOOD_BODY), MESSAGE_UNKNOWN);
    assert_int_equal(fault_with("{\"task\": {}}", JSON_TYPE, GOOD_BODY), MESSAGE_UNKNOWN);
}

static void test_a_body_that_is_no_json_is_undecodable(void **state)
{
    (void)state;
    static const char *const bodies[] = {"{", "[[1], {}, null", "\xff", "[[\"\xc3\"], {}, null]",
                                         "[[1], {}, null] x"};
    for (size_t index = 0; index < ARRAY_LENGTH(bodies); index++) {
        assert_int_equal(fault_with(GOOD_HEADERS, JSON_TYPE, bodies[index]), MESSAGE_UNDECODABLE);
        assert_int_equal(fault_with("{}", JSON_TYPE, bodies[index]), MESSAGE_UNDECODABLE);
    }
}

static void test_a_content_type_that_is_not_accepted_is_invalid(void **state)
{
    (void)state;
    static const char *const types[] = {"application/x-python-serialize",
                                        "application/x-yaml",
                                        "made/up",
                                        "application/data",
                                        "application/text",
                                        "text/plain",
                                        "application/JSON",
                                        ""};
    for (size_t index = 0; index < ARRAY_LENGTH(types); index++) {
        assert_int_equal(fault_with(GOOD_HEADERS, types[index], GOOD_BODY), MESSAGE_INVALID);
    }
}

static void test_protocol_1_with_such_a_type_is_undecodable(void **state)
{
    (void)state;
    const char *body = "{\"task\": \"t\", \"id\": \"i\"}";
    assert_int_equal(fault_with("{}", "application/x-yaml", body), MESSAGE_UNDECODABLE);
    assert_int_equal(fault_with("{}", "", body), MESSAGE_INVALID);
}

static void test_times_that_cannot_be_read_are_invalid(void **state)
{
    (void)state;
    static const char *const values[] = {"\"soon\"",
                                         "\"\"",
                                         "1893553445",
                                         "true",
                                         "{}",
                                         "\"9999-12-31T24:00\"",
                                         "\"2030-02-30T00:00\""};
    for (size_t index = 0; index < ARRAY_LENGTH(values); index++) {
        static const char *const keys[] = {"eta", "expires"};
        for (size_t key = 0; key < ARRAY_LENGTH(keys); key++) {
            char headers[200];
            (void)snprintf(headers, sizeof(headers), "{\"task\": \"t\", \"id\": \"i\", \"%s\": %s}",
                           keys[key], values[index]);
            assert_int_equal(fault_with(headers, JSON_TYPE, GOOD_BODY), MESSAGE_INVALID);
        }
    }
}

static void test_other_headers_of_the_wrong_kind_are_invalid(void **state)
{
    (void)state;
    static const char *const members[] = {
        "\"id\": null",
        "\"id\": \"\"",
        "\"id\": 5",
        "\"timelimit\": 5",
        "\"timelimit\": [-1]",
        "\"timelimit\": [\"5\", null]",
        "\"timelimit\": [NaN, 1]",
        "\"retries\": -1",
        "\"retries\": \"1\"",
        "\"retries\": 1.5",
        "\"retries\": 9e99",
        "\"retries\": 9223372036854775807",
        "\"replaced_task_nesting\": []",
    };
    for (size_t index = 0; index < ARRAY_LENGTH(members); index++) {
        char headers[200];
        (void)snprintf(headers, sizeof(headers), "{\"id\": \"i\", \"task\": \"t\", %s}",
                       members[index]);
        assert_int_equal(fault_with(headers, JSON_TYPE, GOOD_BODY), MESSAGE_INVALID);
    }
    assert_int_equal(fault_with("{\"task\": \"t\"}", JSON_TYPE, GOOD_BODY), MESSAGE_INVALID);
}

static void test_a_name_or_id_without_end_is_refused(void **state)
{
    (void)state;
    char headers[4096];
    (void)snprintf(headers, sizeof(headers), "{\"task\": \"t\", \"id\": \"%0*d\"}", 513, 0);
    assert_int_equal(fault_with(headers, JSON_TYPE, GOOD_BODY), MESSAGE_INVALID);
    (void)snprintf(headers, sizeof(headers), "{\"task\": \"t\", \"id\": \"%0*d\"}", 512, 0);
    assert_int_equal(fault_with(headers, JSON_TYPE, GOOD_BODY), MESSAGE_FINE);
    (void)snprintf(headers, sizeof(headers), "{\"task\": \"%0*d\", \"id\": \"i\"}", 1025, 0);
    assert_int_equal(fault_with(headers, JSON_TYPE, GOOD_BODY), MESSAGE_UNKNOWN);
}

static void test_the_display_name_is_the_shadow_if_there_is_one(void **state)
{
    (void)state;
    struct message message = {.task = BYTES("t")};
    golden_assert(message_display_name(&message), BYTES("t"), "task");
    message.shadow = BYTES("s");
    golden_assert(message_display_name(&message), BYTES("s"), "shadow");
}

static void test_copies_have_one_digest_and_others_another(void **state)
{
    (void)state;
    struct message message = {
        .task = BYTES("t"), .id = BYTES("i"), .body = BYTES(GOOD_BODY), .retries = 1};
    struct message other = message;
    char first[65];
    char second[65];
    other.redelivered = true;
    message_digest(&message, first);
    message_digest(&other, second);
    assert_string_equal(first, second);
    assert_int_equal(strlen(first), 64);
    assert_int_equal(strspn(first, "0123456789abcdef"), 64);
    struct message different[4] = {message, message, message, message};
    different[0].task = BYTES("u");
    different[1].retries = 2;
    different[2].body = BYTES("[[2], {}, null]");
    different[3].replaced_task_nesting = 1;
    for (size_t index = 0; index < ARRAY_LENGTH(different); index++) {
        message_digest(&different[index], second);
        assert_string_not_equal(first, second);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_messages_of_three_celerys_are_read_as_celery_reads_them),
        cmocka_unit_test(test_task_and_id_are_all_that_is_needed),
        cmocka_unit_test(test_a_message_that_names_no_task_is_unknown),
        cmocka_unit_test(test_a_body_that_is_no_json_is_undecodable),
        cmocka_unit_test(test_a_content_type_that_is_not_accepted_is_invalid),
        cmocka_unit_test(test_protocol_1_with_such_a_type_is_undecodable),
        cmocka_unit_test(test_times_that_cannot_be_read_are_invalid),
        cmocka_unit_test(test_other_headers_of_the_wrong_kind_are_invalid),
        cmocka_unit_test(test_a_name_or_id_without_end_is_refused),
        cmocka_unit_test(test_the_display_name_is_the_shadow_if_there_is_one),
        cmocka_unit_test(test_copies_have_one_digest_and_others_another),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
