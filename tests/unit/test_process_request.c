/* What becomes task.request in a Python process (executor/process_request.h). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "executor/process_request.h"

static void assert_request(const struct message *message, const char *expected)
{
    struct buffer text;
    struct json value;
    buffer_init(&text, 4096);
    process_request_append(&text, message, "celery@host");
    (void)buffer_append_byte(&text, '\0');
    assert_string_equal(text.data, expected);
    assert_true(json_parse(bytes_of(text.data, text.length - 1), &value, NULL));
    buffer_fini(&text);
}

static void test_adds_what_celerys_worker_adds(void **state)
{
    (void)state;
    struct message message = {.exchange = BYTES("x"), .queue = BYTES("q"), .redelivered = true};
    assert_true(json_parse(BYTES("{\"task\": \"t\", \"id\": \"i\", \"own\": [1]}"),
                           &message.headers, NULL));
    assert_true(
        json_parse(BYTES("{\"reply_to\": \"r\", \"correlation_id\": \"c\", \"priority\": 3}"),
                   &message.properties, NULL));
    assert_request(
        &message,
        "{\"task\": \"t\", \"id\": \"i\", \"own\": [1], \"properties\": "
        "{\"reply_to\": \"r\", \"correlation_id\": \"c\", \"priority\": 3}, "
        "\"reply_to\": \"r\", \"correlation_id\": \"c\", \"hostname\": \"celery@host\", "
        "\"delivery_info\": {\"exchange\": \"x\", \"routing_key\": \"q\", \"priority\": 3, "
        "\"redelivered\": true}}");
}

static void test_what_is_missing_is_null(void **state)
{
    (void)state;
    struct message message = {.queue = BYTES("q")};
    assert_true(json_parse(BYTES("{\"id\": \"i\"}"), &message.headers, NULL));
    assert_request(
        &message,
        "{\"id\": \"i\", \"properties\": {}, \"reply_to\": null, \"correlation_id\": null, "
        "\"hostname\": \"celery@host\", \"delivery_info\": {\"exchange\": \"\", "
        "\"routing_key\": \"q\", \"priority\": null, \"redelivered\": false}}");
}

static void test_compression_that_python_is_to_undo(void **state)
{
    (void)state;
    struct message message = {.queue = BYTES("q"), .compression = BYTES("application/x-bz2")};
    assert_true(json_parse(BYTES("{\"id\": \"i\"}"), &message.headers, NULL));
    assert_request(
        &message,
        "{\"id\": \"i\", \"properties\": {}, \"reply_to\": null, \"correlation_id\": null, "
        "\"hostname\": \"celery@host\", \"delivery_info\": {\"exchange\": \"\", "
        "\"routing_key\": \"q\", \"priority\": null, \"redelivered\": false}, "
        "\"petiole_compression\": \"application/x-bz2\"}");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_adds_what_celerys_worker_adds),
        cmocka_unit_test(test_what_is_missing_is_null),
        cmocka_unit_test(test_compression_that_python_is_to_undo),
    };
    return cmocka_run_group_tests_name("process_request", tests, NULL, NULL);
}
