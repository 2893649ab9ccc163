#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "codec/iso8601.h"
#include "codec/message_retry.h"
#include "support/golden.h"

static const char *const accept_json[] = {"json", NULL};
static const struct message_rules rules = {accept_json, (size_t)1 << 20};

/* The first try of a golden row, and the headers of the next one as we write them. */
struct next_try {
    struct arena *arena;
    struct delivery *delivery;
    struct message message;
    struct json headers;
};

static struct next_try next_of(struct delivery *delivery, double eta_wall_s)
{
    struct next_try next = {.arena = arena_new(4096), .delivery = delivery};
    struct buffer buffer;
    struct error error = {0};
    buffer_init(&buffer, 65536);
    if (message_read(delivery, &rules, &next.message, &error) != MESSAGE_FINE
        || message_open_body(delivery, &rules, &next.message, &error) != MESSAGE_FINE) {
        fail_msg("%s", error.message);
    }
    message_retry_append_headers(&buffer, &next.message, eta_wall_s, "petiole_tenant",
                                 "tenant-user");
    if (!json_parse(arena_copy(next.arena, buffer_view(&buffer)), &next.headers, &error)) {
        fail_msg("%s: %.*s", error.message, BYTES_FORMAT(buffer_view(&buffer)));
    }
    buffer_fini(&buffer);
    return next;
}

static void done(struct next_try *next)
{
    golden_delivery_free(&next->delivery);
    arena_free(&next->arena);
}

static double time_of(struct json value, struct arena *arena)
{
    struct bytes text;
    double wall_s = 0;
    assert_true(json_text(value, arena, &text));
    assert_true(iso8601_parse(text, &wall_s));
    return wall_s;
}

/* Celery writes the effective ignore_result where the first try had null: the type says the same
 * again. Times are compared as times. All else is the same. */
static void check_member(struct next_try *next, struct bytes key, struct json expected)
{
    char *name = arena_text(next->arena, key);
    struct json actual = json_get(next->headers, name);
    if (strcmp(name, "eta") == 0) {
        assert_true(time_of(actual, next->arena) == time_of(expected, next->arena));
    } else if (strcmp(name, "ignore_result") != 0) {
        golden_assert(actual.text, expected.text, name);
    }
}

static void check_row(struct json row, struct arena *arena)
{
    struct json published;
    struct json first;
    struct bytes key;
    struct json value;
    assert_true(json_parse(golden_text(row, "next", arena), &published, NULL));
    assert_true(json_parse(golden_text(row, "first", arena), &first, NULL));
    struct json expected = json_get(published, "headers");
    double eta_wall_s = time_of(json_get(expected, "eta"), arena);
    struct next_try next = next_of(golden_delivery(golden_text(row, "first", arena)), eta_wall_s);
    struct json_walk walk = json_walk(expected);
    while (json_next_member(&walk, &key, &value)) {
        check_member(&next, key, value);
    }
    size_t added = json_is_unset(json_get(expected, "petiole_tenant")) ? 1 : 0;
    assert_int_equal(json_count(next.headers), json_count(expected) + added);
    struct delivery *theirs = golden_delivery(golden_text(row, "next", arena));
    golden_assert(next.message.body, theirs->body, "body");
    assert_int_equal(next.message.priority, theirs->priority);
    golden_assert(next.message.queue, theirs->routing_key, "routing key");
    golden_delivery_free(&theirs);
    done(&next);
}

static void test_the_next_try_is_what_celery_publishes(void **state)
{
    (void)state;
    struct arena *arena = arena_new(4096);
    struct json rows = json_get(golden_read("retries.json", arena), "cases");
    struct json_walk walk = json_walk(rows);
    struct json row;
    assert_true(json_count(rows) >= 7);
    while (json_next_element(&walk, &row)) {
        check_row(row, arena);
    }
    arena_free(&arena);
}

#define JSON_CONTENT "application/json"
#define BODY         BYTES("[[], {}, null]")

static struct next_try next_with(const char *headers, double eta_wall_s)
{
    return next_of(golden_delivery_of(headers, JSON_CONTENT, BODY, "q"), eta_wall_s);
}

static void test_without_a_delay_there_is_no_eta(void **state)
{
    (void)state;
    struct next_try next =
        next_with("{\"task\": \"t\", \"id\": \"i\", \"eta\": \"2030-01-02T03:04:05\"}", 0);
    assert_int_equal(json_get(next.headers, "eta").type, JSON_TYPE_NULL);
    done(&next);
}

static void test_a_parent_is_kept_and_else_it_is_the_task_itself(void **state)
{
    (void)state;
    struct next_try next =
        next_with("{\"task\": \"t\", \"id\": \"i\", \"parent_id\": \"p\", \"root_id\": \"r\"}", 0);
    golden_assert(json_get(next.headers, "parent_id").text, BYTES("\"p\""), "parent_id");
    golden_assert(json_get(next.headers, "root_id").text, BYTES("\"r\""), "root_id");
    done(&next);
    next = next_with("{\"task\": \"t\", \"id\": \"\xc3\xa9\"}", 0);
    golden_assert(json_get(next.headers, "parent_id").text, BYTES("\"\\u00e9\""), "parent_id");
    golden_assert(json_get(next.headers, "root_id").text, BYTES("\"\\u00e9\""), "root_id");
    done(&next);
}

static void test_what_belongs_to_one_delivery_stays_behind(void **state)
{
    (void)state;
    struct next_try next =
        next_with("{\"task\": \"t\", \"id\": \"i\", \"redelivered\": true, \"x-death\": [{}], "
                  "\"x-first-death-queue\": \"q\", \"x-last-death-reason\": \"r\", \"mine\": 1}",
                  0);
    assert_int_equal(json_count(next.headers), 8);
    golden_assert(json_get(next.headers, "mine").text, BYTES("1"), "a header of the user");
    done(&next);
}

static void test_a_body_says_how_it_is_compressed(void **state)
{
    (void)state;
    struct next_try packed =
        next_with("{\"task\": \"t\", \"id\": \"i\", \"compression\": \"application/x-bz2\"}", 0);
    golden_assert(json_get(packed.headers, "compression").text, BYTES("\"application/x-bz2\""),
                  "compression");
    golden_assert(packed.message.body, BODY, "body");
    done(&packed);
    /* zlib.compress(b"[[], {}, null]") */
    static const char zlib[] =
        "\x78\x9c\x8b\x8e\x8e\xd5\x51\xa8\xae\xd5\x51\xc8\x2b\xcd\xc9\x89\x05\x00\x21\xc9\x04\xbc";
    struct next_try opened =
        next_of(golden_delivery_of("{\"task\": \"t\", \"id\": \"i\", \"compression\": \"gzip\"}",
                                   JSON_CONTENT, bytes_of(zlib, sizeof(zlib) - 1), "q"),
                0);
    assert_int_equal(json_get(opened.headers, "compression").type, JSON_TYPE_ABSENT);
    golden_assert(opened.message.body, BODY, "body");
    done(&opened);
}

static void test_a_next_try_says_whose_it_is(void **state)
{
    (void)state;
    static const char *const headers[] = {
        "{\"task\": \"t\", \"id\": \"i\"}",
        "{\"task\": \"t\", \"id\": \"i\", \"petiole_tenant\": null}",
        "{\"task\": \"t\", \"id\": \"i\", \"petiole_ten\\u0061nt\": \"tenant-admin\"}",
    };
    for (size_t index = 0; index < ARRAY_LENGTH(headers); index++) {
        struct next_try next = next_with(headers[index], 0);
        golden_assert(json_get(next.headers, "petiole_tenant").text, BYTES("\"tenant-user\""),
                      "tenant");
        done(&next);
    }
}

static void test_a_forged_key_does_not_keep_the_count_of_retries(void **state)
{
    (void)state;
    struct next_try next = next_with(
        "{\"task\": \"t\", \"id\": \"i\", \"\\u0072etries\": 2, \"parent_i\\u0064\": \"p\"}", 0);
    assert_int_equal(next.message.retries, 2);
    golden_assert(json_get(next.headers, "retries").text, BYTES("3"), "retries");
    done(&next);
}

static void test_follow_up_ids_are_the_same_when_asked_for_again(void **state)
{
    (void)state;
    struct message message = {.id = BYTES("i"), .retries = 1};
    struct message others[] = {message, message, message};
    char first[37];
    char again[37];
    message_retry_follow_up_id(&message, 0, first);
    message_retry_follow_up_id(&message, 0, again);
    assert_string_equal(first, again);
    assert_int_equal(strlen(first), 36);
    assert_int_equal(first[14], '5'); /* version */
    message_retry_follow_up_id(&message, 1, again);
    assert_string_not_equal(first, again);
    others[0].id = BYTES("j");
    others[1].retries = 2;
    others[2].replaced_task_nesting = 1;
    for (size_t index = 0; index < ARRAY_LENGTH(others); index++) {
        message_retry_follow_up_id(&others[index], 0, again);
        assert_string_not_equal(first, again);
    }
}

static void test_follow_up_ids_never_change(void **state)
{
    (void)state;
    /* uuid.uuid5(uuid.UUID("6d0c5b52-5e0a-4b8f-9a5e-1f0b7c4e2d91"), "i\n1\n0\n0") */
    struct message message = {.id = BYTES("i"), .retries = 1};
    char id[37];
    message_retry_follow_up_id(&message, 0, id);
    assert_string_equal(id, "53ca0475-5c7e-598c-91f7-9d9028dfbb0b");
}

static void test_a_message_that_a_task_sends_is_its_tenants(void **state)
{
    (void)state;
    struct arena *arena = arena_new(1024);
    static const char *const headers[] = {
        "{\"task\": \"t\", \"retries\": 2, \"mine\": [1]}",
        "{\"task\": \"t\", \"retries\": 2, \"mine\": [1], \"petiole_tenant\": \"tenant-admin\"}",
        "{\"task\": \"t\", \"retries\": 2, \"mine\": [1], \"petiole_ten\\u0061nt\": \"tenant-admin\"}",
    };
    for (size_t index = 0; index < ARRAY_LENGTH(headers); index++) {
        struct buffer buffer;
        struct json sent;
        buffer_init(&buffer, 65536);
        message_retry_append_sent_headers(&buffer, json_checked(bytes_from_text(headers[index])),
                                          "petiole_tenant", "tenant-user");
        assert_true(json_parse(arena_copy(arena, buffer_view(&buffer)), &sent, NULL));
        golden_assert(json_get(sent, "petiole_tenant").text, BYTES("\"tenant-user\""), "tenant");
        golden_assert(json_get(sent, "retries").text, BYTES("2"), "retries");
        golden_assert(json_get(sent, "mine").text, BYTES("[1]"), "mine");
        buffer_fini(&buffer);
    }
    arena_free(&arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_next_try_is_what_celery_publishes),
        cmocka_unit_test(test_without_a_delay_there_is_no_eta),
        cmocka_unit_test(test_a_parent_is_kept_and_else_it_is_the_task_itself),
        cmocka_unit_test(test_what_belongs_to_one_delivery_stays_behind),
        cmocka_unit_test(test_a_forged_key_does_not_keep_the_count_of_retries),
        cmocka_unit_test(test_a_body_says_how_it_is_compressed),
        cmocka_unit_test(test_a_next_try_says_whose_it_is),
        cmocka_unit_test(test_a_message_that_a_task_sends_is_its_tenants),
        cmocka_unit_test(test_follow_up_ids_are_the_same_when_asked_for_again),
        cmocka_unit_test(test_follow_up_ids_never_change),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
