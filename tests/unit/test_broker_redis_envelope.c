#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "broker/broker_redis_envelope.h"

/* What a Celery 5.7 client put into Redis for add.delay(2, 2), shortened. */
#define ENVELOPE                                                                                   \
    "{\"body\": \"W1syLCAyXSwge30sIG51bGxd\", \"content-encoding\": \"utf-8\", \"content-type\": " \
    "\"application/json\", \"headers\": {\"lang\": \"py\", \"task\": \"cap.add\", \"id\": "        \
    "\"f56b\"}, \"properties\": {\"correlation_id\": \"f56b\", \"reply_to\": \"c560\", "           \
    "\"delivery_mode\": 2, \"delivery_info\": {\"exchange\": \"\", \"routing_key\": "              \
    "\"celery\"}, \"priority\": 3, \"body_encoding\": \"base64\", \"delivery_tag\": \"6c36\"}}"

struct fixture {
    struct arena *arena;
    struct delivery delivery;
    const char *fault;
    struct error error;
    struct buffer out;
};

static int set_up(void **state)
{
    struct fixture *fixture = memory_new(sizeof(*fixture));
    fixture->arena = arena_new(0);
    buffer_init(&fixture->out, SIZE_MAX);
    *state = fixture;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *fixture = *state;
    arena_free(&fixture->arena);
    buffer_fini(&fixture->out);
    memory_free(&fixture);
    return 0;
}

static bool read_text(struct fixture *fixture, const char *text)
{
    fixture->delivery = (struct delivery){.arena = fixture->arena};
    fixture->fault = NULL;
    return broker_redis_envelope_read(bytes_from_text(text), &fixture->delivery, &fixture->fault,
                                      &fixture->error);
}

static void expect_text(struct bytes view, const char *text)
{
    assert_int_equal(view.length, strlen(text));
    assert_memory_equal(view.data ? view.data : "", text, view.length);
}

static void test_reads_what_celery_sends(void **state)
{
    struct fixture *fixture = *state;
    assert_true(read_text(fixture, ENVELOPE));
    assert_null(fixture->fault);
    expect_text(fixture->delivery.body, "[[2, 2], {}, null]");
    expect_text(fixture->delivery.content_type, "application/json");
    expect_text(fixture->delivery.content_encoding, "utf-8");
    expect_text(fixture->delivery.exchange, "");
    expect_text(fixture->delivery.routing_key, "celery");
    assert_int_equal(fixture->delivery.priority, 3);
    assert_int_equal(fixture->delivery.headers.type, JSON_TYPE_OBJECT);
    assert_int_equal(fixture->delivery.properties.type, JSON_TYPE_OBJECT);
    assert_false(fixture->delivery.redelivered);
}

static void test_reads_plain_bodies(void **state)
{
    struct fixture *fixture = *state;
    assert_true(read_text(fixture, "{\"body\": \"[\\u00e9]\", \"properties\": "
                                   "{\"body_encoding\": \"UTF-8\"}}"));
    assert_null(fixture->fault);
    expect_text(fixture->delivery.body, "[\xc3\xa9]");
    assert_true(read_text(fixture, "{\"body\": \"\"}"));
    assert_null(fixture->fault);
    expect_text(fixture->delivery.body, "");
}

static void test_decodes_base64_as_python_does(void **state)
{
    struct fixture *fixture = *state;
    assert_true(read_text(fixture, "{\"body\": \"aGVs\\nbG8=\", \"properties\": "
                                   "{\"body_encoding\": \"base64\"}}"));
    assert_null(fixture->fault);
    expect_text(fixture->delivery.body, "hello");
}

static void test_hands_up_what_is_malformed(void **state)
{
    struct fixture *fixture = *state;
    static const char *const envelopes[] = {
        "{}",
        "{\"body\": 1}",
        "{\"body\": \"x\", \"properties\": {\"body_encoding\": \"base64\"}}",
        "{\"body\": \"x\", \"properties\": {\"body_encoding\": \"rot13\"}}",
        "{\"body\": \"x\", \"properties\": {\"body_encoding\": 7}}",
    };
    for (size_t index = 0; index < ARRAY_LENGTH(envelopes); index++) {
        assert_true(read_text(fixture, envelopes[index]));
        assert_non_null(fixture->fault);
        expect_text(fixture->delivery.body, "");
    }
    assert_true(read_text(fixture, "{\"body\": \"x\", \"headers\": [], \"properties\": null, "
                                   "\"content-type\": null}"));
    assert_null(fixture->fault);
    assert_int_equal(fixture->delivery.headers.type, JSON_TYPE_ABSENT);
    assert_int_equal(fixture->delivery.properties.type, JSON_TYPE_ABSENT);
    expect_text(fixture->delivery.content_type, "");
    assert_true(read_text(fixture, "{\"body\": \"\", \"properties\": {\"delivery_info\": 5, "
                                   "\"priority\": \"high\"}}"));
    assert_int_equal(fixture->delivery.priority, 0);
}

static void test_refuses_what_is_no_object(void **state)
{
    struct fixture *fixture = *state;
    assert_false(read_text(fixture, "[1]"));
    assert_false(read_text(fixture, "{\"a\": 01}"));
    assert_false(read_text(fixture, "{\"a\": \"\x01\"}"));
    assert_false(read_text(fixture, ""));
    assert_int_equal(fixture->error.kind, ERROR_INVALID);
}

static void expect_marked(struct fixture *fixture, const char *envelope, const char *marked)
{
    buffer_clear(&fixture->out);
    broker_redis_envelope_mark(&fixture->out, bytes_from_text(envelope));
    expect_text(buffer_view(&fixture->out), marked);
}

static void test_marks_without_touching_the_rest(void **state)
{
    struct fixture *fixture = *state;
    expect_marked(fixture,
                  "{\"properties\": {\"delivery_info\": {\"exchange\": \"\"}, \"n\": "
                  "12345678901234567890.10}, \"headers\": {}}",
                  "{\"properties\": {\"delivery_info\": {\"exchange\": \"\", \"redelivered\": "
                  "true}, \"n\": 12345678901234567890.10}, \"headers\": {\"redelivered\": true}}");
    expect_marked(
        fixture,
        "{\"headers\":{\"redelivered\":false,\"x\":[]},\"properties\":{\"delivery_info\":{"
        "\"redelivered\":null}}}",
        "{\"headers\":{\"redelivered\":true,\"x\":[]},\"properties\":{\"delivery_info\":{"
        "\"redelivered\":true}}}");
    expect_marked(fixture, "{\"body\": \"\"}", "{\"body\": \"\"}");
    expect_marked(fixture, "{\"headers\": null, \"properties\": {}}",
                  "{\"headers\": null, \"properties\": {}}");
    buffer_clear(&fixture->out);
    broker_redis_envelope_mark(&fixture->out, bytes_from_text(ENVELOPE));
    char *marked = memory_text(buffer_view(&fixture->out));
    assert_true(read_text(fixture, marked));
    assert_true(fixture->delivery.redelivered);
    assert_int_equal(json_get(fixture->delivery.headers, "redelivered").type, JSON_TYPE_TRUE);
    memory_free(&marked);
}

static void test_unwraps_what_unacked_holds(void **state)
{
    struct fixture *fixture = *state;
    struct broker_redis_held held;
    (void)buffer_append_text(&fixture->out, "[" ENVELOPE);
    broker_redis_envelope_append_tail(&fixture->out, BYTES("q\"1\xc3\xa9"));
    assert_true(broker_redis_envelope_unwrap(buffer_view(&fixture->out), fixture->arena, &held));
    expect_text(held.envelope, ENVELOPE);
    expect_text(held.exchange, "");
    expect_text(held.routing_key, "q\"1\xc3\xa9");
    assert_int_equal(held.priority, 3);
    static const char *const others[] = {
        "",
        "{}",
        "[{}, \"\"]",
        "[{}, \"\", \"q\", 1]",
        "[[], \"\", \"q\"]",
        "[{}, null, \"q\"]",
        "[{}, \"\", 5]",
        "[{\"a\": }, \"\", \"q\"]",
    };
    for (size_t index = 0; index < ARRAY_LENGTH(others); index++) {
        assert_false(
            broker_redis_envelope_unwrap(bytes_from_text(others[index]), fixture->arena, &held));
    }
}

static void test_writes_envelopes_as_kombu_does(void **state)
{
    struct fixture *fixture = *state;
    struct publication publication = {
        .exchange = BYTES(""),
        .routing_key = BYTES("celery"),
        .headers = BYTES("{\"lang\": \"py\", \"task\": \"cap.add\", \"id\": \"f56b\"}"),
        .correlation_id = BYTES("f56b"),
        .reply_to = BYTES("c560"),
        .content_type = BYTES("application/json"),
        .content_encoding = BYTES("utf-8"),
        .body = BYTES("[[2, 2], {}, null]"),
        .delivery_tag = BYTES("6c36"),
        .priority = 3,
    };
    broker_redis_envelope_append(&fixture->out, &publication);
    expect_text(buffer_view(&fixture->out), ENVELOPE);
}

static void test_writes_further_properties(void **state)
{
    struct fixture *fixture = *state;
    struct publication publication = {
        .routing_key = BYTES("celery"),
        .headers = BYTES("{}"),
        .properties = json_checked(BYTES("{\"app_id\": \"a\", \"delivery_tag\": \"theirs\", "
                                         "\"expiration\": \"500\", \"priority\": 9}")),
        .delivery_tag = BYTES("ours"),
        .priority = 3,
    };
    broker_redis_envelope_append(&fixture->out, &publication);
    struct json envelope;
    assert_true(json_parse(buffer_view(&fixture->out), &envelope, NULL));
    struct json properties = json_get(envelope, "properties");
    expect_text(json_get(properties, "app_id").text, "\"a\"");
    expect_text(json_get(properties, "expiration").text, "\"500\"");
    expect_text(json_get(properties, "delivery_tag").text, "\"ours\"");
    expect_text(json_get(properties, "priority").text, "3");
    assert_int_equal(json_count(properties), 9);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_reads_what_celery_sends, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_reads_plain_bodies, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_decodes_base64_as_python_does, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_hands_up_what_is_malformed, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_refuses_what_is_no_object, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_marks_without_touching_the_rest, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_unwraps_what_unacked_holds, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_writes_envelopes_as_kombu_does, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_writes_further_properties, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
