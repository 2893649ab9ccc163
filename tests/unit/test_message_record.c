#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "codec/message_record.h"
#include "support/golden.h"

static const char *const accept_json[] = {"json", NULL};
static const struct message_rules rules = {accept_json, (size_t)1 << 20};

static void open_whole(struct delivery *delivery, struct message *message)
{
    struct error error = {0};
    if (message_read(delivery, &rules, message, &error) != MESSAGE_FINE
        || message_open_body(delivery, &rules, message, &error) != MESSAGE_FINE) {
        fail_msg("%s", error.message);
    }
}

/* The record of `message`, in `arena`. */
static struct bytes record_of(const struct message *message, struct arena *arena)
{
    struct buffer buffer;
    buffer_init(&buffer, (size_t)1 << 20);
    message_record_append(&buffer, message);
    assert_false(buffer.overflowed);
    struct bytes record = arena_copy(arena, buffer_view(&buffer));
    buffer_fini(&buffer);
    return record;
}

static void assert_same(const struct message *one, const struct message *other)
{
    const struct bytes pairs[][2] = {
        {one->task, other->task},
        {one->id, other->id},
        {one->shadow, other->shadow},
        {one->root_id, other->root_id},
        {one->parent_id, other->parent_id},
        {one->group, other->group},
        {one->eta, other->eta},
        {one->expires, other->expires},
        {one->reply_to, other->reply_to},
        {one->correlation_id, other->correlation_id},
        {one->queue, other->queue},
        {one->taken_from, other->taken_from},
        {one->exchange, other->exchange},
        {one->content_type, other->content_type},
        {one->content_encoding, other->content_encoding},
        {one->body, other->body},
        {one->args.text, other->args.text},
        {one->kwargs.text, other->kwargs.text},
        {one->headers.text, other->headers.text},
        {one->stamps.text, other->stamps.text},
    };
    for (size_t index = 0; index < ARRAY_LENGTH(pairs); index++) {
        golden_assert(pairs[index][1], pairs[index][0], "a member after the way to the Job");
    }
    char before[65];
    char after[65];
    message_digest(one, before);
    message_digest(other, after);
    assert_string_equal(before, after);
    assert_int_equal(one->retries, other->retries);
    assert_int_equal(one->priority, other->priority);
    assert_int_equal(one->redelivered, other->redelivered);
    assert_int_equal(one->ignore_result, other->ignore_result);
    assert_true(one->hard_limit_s == other->hard_limit_s);
    assert_true(one->expires_wall_s == other->expires_wall_s);
}

static void test_every_real_message_comes_back_as_it_was(void **state)
{
    (void)state;
    struct arena *arena = arena_new(4096);
    struct json rows = golden_read("messages.json", arena);
    struct json_walk walk = json_walk(rows);
    struct json row;
    size_t count = 0;
    while (json_next_element(&walk, &row)) {
        struct message message;
        struct message back;
        if (!bytes_equal(golden_text(json_get(row, "expected"), "fault", arena), BYTES("fine"))) {
            continue;
        }
        struct delivery *delivery = golden_delivery(golden_text(row, "envelope", arena));
        delivery->redelivered = count % 2 == 0;
        open_whole(delivery, &message);
        struct bytes record = record_of(&message, arena);
        assert_true(message_record_read(record, arena, &back, NULL));
        assert_same(&message, &back);
        golden_delivery_free(&delivery);
        count++;
    }
    assert_true(count > 140);
    arena_free(&arena);
}

static void test_a_compressed_body_is_carried_decompressed(void **state)
{
    (void)state;
    struct arena *arena = arena_new(4096);
    struct json rows = golden_read("messages.json", arena);
    struct json_walk walk = json_walk(rows);
    struct json row;
    size_t count = 0;
    while (json_next_element(&walk, &row)) {
        struct message message;
        struct bytes envelope = golden_text(row, "envelope", arena);
        if (!bytes_equal(golden_text(row, "name", arena), BYTES("5.7.0 compress_gzip 0"))) {
            continue;
        }
        struct delivery *delivery = golden_delivery(envelope);
        open_whole(delivery, &message);
        assert_true(message.body.length > delivery->body.length);
        golden_delivery_free(&delivery);
        count++;
    }
    assert_int_equal(count, 1);
    arena_free(&arena);
}

static void test_a_record_that_is_not_ours_is_refused(void **state)
{
    (void)state;

    static const struct {
        const char *record;
        enum error_kind kind;
    } rows[] = {
        {"", ERROR_INVALID},
        {"[]", ERROR_UNSUPPORTED},
        {"{\"v\": 2}", ERROR_UNSUPPORTED},
        {"{\"v\": \"1\"}", ERROR_UNSUPPORTED},
        {"{\"v\": 1}", ERROR_INVALID},
        {"{\"v\": 1, \"headers\": {}, \"properties\": {}, \"content-type\": \"application/json\", "
         "\"content-encoding\": \"utf-8\", \"body\": \"!\", \"queue\": \"q\", \"exchange\": \"\"}",
         ERROR_INVALID},
        {"{\"v\": 1, \"headers\": {}, \"properties\": {}, \"content-type\": \"application/json\", "
         "\"content-encoding\": \"utf-8\", \"body\": \"W10=\", \"queue\": \"q\", \"exchange\": \"\"}",
         ERROR_INVALID},
        {"{\"v\": 1, \"headers\": {\"task\": \"t\", \"id\": \"i\"}, \"content-type\": \"a\", "
         "\"content-encoding\": \"utf-8\", \"body\": \"W10=\", \"queue\": \"q\", \"exchange\": \"\"}",
         ERROR_INVALID},
    };

    for (size_t index = 0; index < ARRAY_LENGTH(rows); index++) {
        struct arena *arena = arena_new(256);
        struct message message = {.retries = 77};
        struct error error = {0};
        assert_false(
            message_record_read(bytes_from_text(rows[index].record), arena, &message, &error));
        assert_int_equal(error.kind, rows[index].kind);
        assert_int_equal(message.retries, 77); /* untouched */
        arena_free(&arena);
    }
}

static struct delivery *plain_delivery(void)
{
    return golden_delivery_of("{\"task\": \"t\", \"id\": \"i\"}", "application/json",
                              BYTES("[[], {}, {}]"), "q");
}

static void test_properties_that_are_none_become_an_empty_object(void **state)
{
    (void)state;
    struct arena *arena = arena_new(256);
    struct message message;
    struct message back;
    struct delivery *delivery = plain_delivery();
    open_whole(delivery, &message);
    assert_true(message_record_read(record_of(&message, arena), arena, &back, NULL));
    golden_assert(back.properties.text, BYTES("{}"), "properties");
    golden_delivery_free(&delivery);
    arena_free(&arena);
}

static void test_a_queue_with_another_routing_key_is_told(void **state)
{
    (void)state;
    struct arena *arena = arena_new(256);
    struct message message;
    struct message back;
    struct delivery *delivery = plain_delivery();
    open_whole(delivery, &message);
    struct bytes record = record_of(&message, arena);
    assert_int_equal(json_get(json_checked(record), "taken_from").type, JSON_TYPE_ABSENT);
    assert_true(message_record_read(record, arena, &back, NULL));
    golden_assert(back.taken_from, BYTES("q"), "the queue of a record that names one");
    delivery->routing_key = BYTES("k");
    open_whole(delivery, &message);
    assert_true(message_record_read(record_of(&message, arena), arena, &back, NULL));
    golden_assert(back.queue, BYTES("k"), "routing key");
    golden_assert(back.taken_from, BYTES("q"), "queue");
    golden_delivery_free(&delivery);
    arena_free(&arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_real_message_comes_back_as_it_was),
        cmocka_unit_test(test_a_compressed_body_is_carried_decompressed),
        cmocka_unit_test(test_a_record_that_is_not_ours_is_refused),
        cmocka_unit_test(test_properties_that_are_none_become_an_empty_object),
        cmocka_unit_test(test_a_queue_with_another_routing_key_is_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
