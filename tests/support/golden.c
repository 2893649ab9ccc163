#include "support/golden.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "base/base64.h"

#define MAX_FILE_BYTES ((size_t)8 << 20)

struct json golden_read(const char *name, struct arena *arena)
{
    char path[256];
    struct buffer content;
    struct json value = {JSON_TYPE_ABSENT, {NULL, 0}};
    struct error error = {0};
    (void)snprintf(path, sizeof(path), "tests/data/%s", name);
    FILE *file = fopen(path, "re");
    if (!file) {
        fail_msg("%s cannot be read: tests run from the top folder", path);
        return value;
    }
    buffer_init(&content, MAX_FILE_BYTES);
    size_t count = 1;
    while (count > 0) {
        char *place = buffer_reserve(&content, 65536);
        assert_non_null(place);
        count = fread(place, 1, 65536, file);
        buffer_grew(&content, count);
    }
    (void)fclose(file);
    struct bytes text = arena_copy(arena, buffer_view(&content));
    buffer_fini(&content);
    if (!json_parse(text, &value, &error)) {
        fail_msg("%s: %s", path, error.message);
    }
    return value;
}

struct bytes golden_text(struct json object, const char *key, struct arena *arena)
{
    struct bytes text = {NULL, 0};
    if (!json_text(json_get(object, key), arena, &text)) {
        fail_msg("no text %s in %.*s", key, BYTES_FORMAT(object.text));
    }
    return text;
}

static struct bytes text_or_empty(struct json object, const char *key, struct arena *arena)
{
    struct bytes text = {NULL, 0};
    (void)!json_text(json_get(object, key), arena, &text);
    return text;
}

static struct json object_or_none(struct json value)
{
    return value.type == JSON_TYPE_OBJECT ? value : (struct json){JSON_TYPE_ABSENT, {NULL, 0}};
}

static struct delivery *new_delivery(void)
{
    struct arena *arena = arena_new(4096);
    struct delivery *delivery = arena_alloc(arena, sizeof(*delivery));
    delivery->arena = arena;
    return delivery;
}

struct delivery *golden_delivery(struct bytes envelope)
{
    struct delivery *delivery = new_delivery();
    struct arena *arena = delivery->arena;
    struct json value;
    struct error error = {0};
    if (!json_parse(arena_copy(arena, envelope), &value, &error)) {
        fail_msg("%s: %.*s", error.message, BYTES_FORMAT(envelope));
    }
    struct json info = json_get(json_get(value, "properties"), "delivery_info");
    delivery->headers = object_or_none(json_get(value, "headers"));
    delivery->properties = object_or_none(json_get(value, "properties"));
    delivery->content_type = text_or_empty(value, "content-type", arena);
    delivery->content_encoding = text_or_empty(value, "content-encoding", arena);
    delivery->exchange = text_or_empty(info, "exchange", arena);
    delivery->routing_key = text_or_empty(info, "routing_key", arena);
    delivery->tag = text_or_empty(delivery->properties, "delivery_tag", arena);
    delivery->queue = delivery->routing_key;
    (void)!json_int64(json_get(delivery->properties, "priority"), &delivery->priority);
    delivery->redelivered = json_get(delivery->headers, "redelivered").type == JSON_TYPE_TRUE;
    assert_true(base64_decode(text_or_empty(value, "body", arena), arena, &delivery->body));
    return delivery;
}

struct delivery *golden_delivery_of(const char *headers, const char *content_type,
                                    struct bytes body, const char *queue)
{
    struct delivery *delivery = new_delivery();
    struct bytes text = arena_copy(delivery->arena, bytes_from_text(headers));
    if (text.length > 0 && !json_parse(text, &delivery->headers, NULL)) {
        fail_msg("no JSON: %s", headers);
    }
    delivery->headers = object_or_none(delivery->headers);
    delivery->content_type = bytes_from_text(content_type);
    delivery->content_encoding = BYTES("utf-8");
    delivery->body = arena_copy(delivery->arena, body);
    delivery->queue = bytes_from_text(queue);
    return delivery;
}

void golden_delivery_free(struct delivery **delivery)
{
    (*delivery)->is_settled = true;
    delivery_free(delivery);
}

void golden_assert(struct bytes actual, struct bytes expected, const char *what)
{
    if (!bytes_equal(actual, expected)) {
        fail_msg("%s\nis       %.*s\nnot      %.*s", what, BYTES_FORMAT(actual),
                 BYTES_FORMAT(expected));
    }
}
