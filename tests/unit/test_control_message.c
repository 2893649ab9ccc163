#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "codec/control_message.h"

static struct delivery delivery_of(struct arena *arena, const char *body)
{
    struct delivery delivery = {
        .arena = arena,
        .content_type = BYTES("application/json"),
        .body = bytes_from_text(body),
    };
    assert_true(json_parse(BYTES("{\"clock\": 7, \"expires\": 0}"), &delivery.headers, NULL));
    return delivery;
}

static struct control_message read_text(struct arena *arena, const char *body)
{
    struct delivery delivery = delivery_of(arena, body);
    struct control_message message;
    struct error error = {0};
    assert_true(control_message_read(&delivery, &message, &error));
    return message;
}

static void test_reads_what_a_client_broadcasts(void **state)
{
    (void)state;
    struct arena *arena = arena_new(0);
    struct control_message message = read_text(
        arena, "{\"method\": \"revoke\", \"arguments\": {\"task_id\": \"t1\"}, \"destination\": "
               "null, \"pattern\": null, \"matcher\": null, \"ticket\": \"tick\", \"reply_to\": "
               "{\"exchange\": \"reply.celery.pidbox\", \"routing_key\": \"oid\"}}");
    assert_true(bytes_equal_text(message.method, "revoke"));
    assert_true(bytes_equal_text(json_get(message.arguments, "task_id").text, "\"t1\""));
    assert_true(bytes_equal_text(message.ticket, "tick"));
    assert_true(bytes_equal_text(message.reply_to, "reply.celery.pidbox"));
    assert_true(bytes_equal_text(message.reply_key, "oid"));
    assert_int_equal(message.clock, 7);
    message = read_text(arena, "{\"method\": \"ping\"}");
    assert_int_equal(message.reply_to.length, 0);
    arena_free(&arena);
}

static void test_refuses_what_is_no_command(void **state)
{
    (void)state;
    static const char *const bodies[] = {"", "nonsense", "[]", "{}", "{\"method\": 5}", "7"};
    struct arena *arena = arena_new(0);
    struct control_message message;
    struct error error = {0};
    for (size_t index = 0; index < ARRAY_LENGTH(bodies); index++) {
        struct delivery delivery = delivery_of(arena, bodies[index]);
        assert_false(control_message_read(&delivery, &message, &error));
    }
    struct delivery pickled = delivery_of(arena, "{\"method\": \"ping\"}");
    pickled.content_type = BYTES("application/x-python-serialize");
    assert_false(control_message_read(&pickled, &message, &error));
    arena_free(&arena);
}

static void test_is_for_whom_it_names(void **state)
{
    (void)state;

    static const struct {
        const char *members;
        bool is_for;
    } cases[] = {
        {"\"destination\": null", true},
        {"\"destination\": [\"w1@test\"]", true},
        {"\"destination\": [\"w2@test\", \"w1@test\"]", true},
        {"\"destination\": [\"w2@test\"]", false},
        {"\"destination\": []", false},
        {"\"destination\": \"w1@test\"", false},
        {"\"pattern\": \"w?@*\", \"matcher\": \"glob\"", true},
        {"\"pattern\": \"W*\", \"matcher\": \"glob\"", false},
        {"\"pattern\": \"w[0-9]+@t\", \"matcher\": \"pcre\"", true},
        {"\"pattern\": \"test\", \"matcher\": \"pcre\"", false},
        {"\"pattern\": \"(\", \"matcher\": \"pcre\"", false},
        {"\"pattern\": \"x\", \"matcher\": null", true},
        {"\"destination\": [\"w1@test\"], \"pattern\": \"x\", \"matcher\": \"glob\"", true},
        {"\"destination\": [\"w2@test\"], \"pattern\": \"w*\", \"matcher\": \"glob\"", true},
    };

    for (size_t index = 0; index < ARRAY_LENGTH(cases); index++) {
        struct arena *arena = arena_new(0);
        struct control_message message = read_text(
            arena, arena_format(arena, "{\"method\": \"ping\", %s}", cases[index].members));
        if (control_message_is_for(&message, "w1@test") != cases[index].is_for) {
            fail_msg("%s", cases[index].members);
        }
        arena_free(&arena);
    }
}

static void test_writes_answers(void **state)
{
    (void)state;
    struct control_message message = {.ticket = BYTES("t\"1")};
    struct buffer buffer;
    buffer_init(&buffer, 1024);
    control_message_append_reply(&buffer, "w1@test", BYTES("{\"ok\": \"pong\"}"));
    (void)buffer_append_byte(&buffer, ' ');
    control_message_append_headers(&buffer, &message, 8);
    assert_true(bytes_equal_text(buffer_view(&buffer),
                                 "{\"w1@test\": {\"ok\": \"pong\"}} {\"ticket\": \"t\\\"1\", "
                                 "\"clock\": 8}"));
    buffer_fini(&buffer);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reads_what_a_client_broadcasts),
        cmocka_unit_test(test_refuses_what_is_no_command),
        cmocka_unit_test(test_is_for_whom_it_names),
        cmocka_unit_test(test_writes_answers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
