#include "broker/broker_redis_envelope.h"

#include "base/base64.h"

/* A text of `object`, or the empty view. */
static struct bytes text_of(struct json value, struct arena *arena)
{
    struct bytes text = {NULL, 0};
    return json_text(value, arena, &text) ? text : (struct bytes){NULL, 0};
}

static struct json object_or_absent(struct json value)
{
    return value.type == JSON_TYPE_OBJECT ? value : (struct json){JSON_TYPE_ABSENT, {NULL, 0}};
}

/* Python's base64 passes over what is not in the alphabet (binascii.a2b_base64), so line breaks
 * do not matter. */
static bool decode_leniently(struct bytes text, struct arena *arena, struct bytes *ret_plain)
{
    char *clean = arena_alloc(arena, text.length + 1);
    size_t length = 0;
    for (size_t index = 0; index < text.length; index++) {
        char byte = text.data[index];
        bool is_in_alphabet = (byte >= 'A' && byte <= 'Z') || (byte >= 'a' && byte <= 'z')
                              || (byte >= '0' && byte <= '9') || byte == '+' || byte == '/'
                              || byte == '=';
        if (is_in_alphabet) {
            clean[length++] = byte;
        }
    }
    return base64_decode(bytes_of(clean, length), arena, ret_plain);
}

/* kombu/transport/virtual/base.py: Channel.decode_body. Returns why it cannot be done, or NULL. */
static const char *read_body(struct json body, struct json encoding, struct delivery *delivery)
{
    if (body.type != JSON_TYPE_STRING) {
        return "its body is no text";
    }
    struct bytes text = text_of(body, delivery->arena);
    struct bytes codec = text_of(encoding, delivery->arena);
    bool is_plain =
        json_is_unset(encoding) || (codec.length == 5 && strncasecmp(codec.data, "utf-8", 5) == 0);
    if (is_plain) {
        delivery->body = text;
        return NULL;
    }
    if (!bytes_equal_text(codec, "base64")) {
        return "its body_encoding is unknown";
    }
    if (!base64_decode(text, delivery->arena, &delivery->body)
        && !decode_leniently(text, delivery->arena, &delivery->body)) {
        return "its body is no base64";
    }
    return NULL;
}

struct parts {
    struct json body;
    struct json body_encoding;
    struct json delivery_info;
};

static void read_properties(struct delivery *delivery, struct parts *parts)
{
    struct json_walk walk = json_walk(delivery->properties);
    struct bytes key;
    struct json value;
    while (json_next_member(&walk, &key, &value)) {
        if (bytes_equal_text(key, "delivery_info")) {
            parts->delivery_info = value;
        } else if (bytes_equal_text(key, "body_encoding")) {
            parts->body_encoding = value;
        } else if (bytes_equal_text(key, "priority") && !json_int64(value, &delivery->priority)) {
            delivery->priority = 0;
        }
    }
    delivery->exchange = text_of(json_get(parts->delivery_info, "exchange"), delivery->arena);
    delivery->routing_key = text_of(json_get(parts->delivery_info, "routing_key"), delivery->arena);
    delivery->redelivered = json_get(parts->delivery_info, "redelivered").type == JSON_TYPE_TRUE;
}

bool broker_redis_envelope_read(struct bytes envelope, struct delivery *delivery,
                                const char **ret_fault, struct error *reterr)
{
    struct json object;
    if (!json_parse(envelope, &object, reterr)) {
        return false;
    }
    if (object.type != JSON_TYPE_OBJECT) {
        return error_set(reterr, ERROR_INVALID, "it is no JSON object");
    }
    struct parts parts = {0};
    struct json_walk walk = json_walk(object);
    struct bytes key;
    struct json value;
    while (json_next_member(&walk, &key, &value)) {
        if (bytes_equal_text(key, "body")) {
            parts.body = value;
        } else if (bytes_equal_text(key, "headers")) {
            delivery->headers = object_or_absent(value);
        } else if (bytes_equal_text(key, "properties")) {
            delivery->properties = object_or_absent(value);
        } else if (bytes_equal_text(key, "content-type")) {
            delivery->content_type = text_of(value, delivery->arena);
        } else if (bytes_equal_text(key, "content-encoding")) {
            delivery->content_encoding = text_of(value, delivery->arena);
        }
    }
    read_properties(delivery, &parts);
    *ret_fault = read_body(parts.body, parts.body_encoding, delivery);
    return true;
}

/* One change of a text: at `position`, `removed` bytes become `inserted`. */
struct edit {
    const char *position;
    size_t removed;
    const char *inserted;
};

/* How "redelivered": true gets into `object`. */
static struct edit mark_in(struct json object)
{
    struct json old = json_get(object, "redelivered");
    if (old.type != JSON_TYPE_ABSENT) {
        return (struct edit){old.text.data, old.text.length, "true"};
    }
    const char *brace = object.text.data + object.text.length - 1;
    bool is_empty = json_count(object) == 0;
    return (struct edit){brace, 0, is_empty ? "\"redelivered\": true" : ", \"redelivered\": true"};
}

void broker_redis_envelope_mark(struct buffer *buffer, struct bytes envelope)
{
    struct json object = {JSON_TYPE_ABSENT, {NULL, 0}};
    struct edit edits[2];
    size_t count = 0;
    if (json_parse(envelope, &object, NULL)) {
        struct json headers = json_get(object, "headers");
        struct json info = json_get(json_get(object, "properties"), "delivery_info");
        if (headers.type == JSON_TYPE_OBJECT) {
            edits[count++] = mark_in(headers);
        }
        if (info.type == JSON_TYPE_OBJECT) {
            edits[count++] = mark_in(info);
        }
    }
    if (count == 2 && edits[1].position < edits[0].position) {
        struct edit first = edits[1];
        edits[1] = edits[0];
        edits[0] = first;
    }
    const char *from = envelope.data;
    for (size_t index = 0; index < count; index++) {
        (void)buffer_append(buffer, bytes_of(from, (size_t)(edits[index].position - from)));
        (void)buffer_append_text(buffer, edits[index].inserted);
        from = edits[index].position + edits[index].removed;
    }
    (void)buffer_append(buffer, bytes_of(from, (size_t)(envelope.data + envelope.length - from)));
}

bool broker_redis_envelope_unwrap(struct bytes value, struct arena *arena,
                                  struct broker_redis_held *ret_held)
{
    struct json triple;
    if (!json_parse(value, &triple, NULL) || triple.type != JSON_TYPE_ARRAY
        || json_count(triple) != 3) {
        return false;
    }
    struct json envelope = json_at(triple, 0);
    struct broker_redis_held held = {.envelope = envelope.text};
    if (envelope.type != JSON_TYPE_OBJECT || !json_text(json_at(triple, 1), arena, &held.exchange)
        || !json_text(json_at(triple, 2), arena, &held.routing_key)) {
        return false;
    }
    struct json priority = json_get(json_get(envelope, "properties"), "priority");
    if (!json_int64(priority, &held.priority)) {
        held.priority = 0;
    }
    *ret_held = held;
    return true;
}

void broker_redis_envelope_append_tail(struct buffer *buffer, struct bytes queue)
{
    (void)buffer_append_text(buffer, ", \"\", ");
    json_append_string(buffer, queue);
    (void)buffer_append_text(buffer, "]");
}

static void append_member(struct buffer *buffer, const char *name, struct bytes text)
{
    (void)buffer_append_text(buffer, name);
    json_append_string(buffer, text);
}

/* The properties that the sender set besides those which every message has. */
static void append_further(struct buffer *buffer, struct json properties)
{
    static const char *const own[] = {"correlation_id", "reply_to", "delivery_mode",
                                      "delivery_info",  "priority", "body_encoding",
                                      "delivery_tag"};
    struct json_walk walk = json_walk(properties);
    struct bytes key;
    struct json value;
    while (json_next_member(&walk, &key, &value)) {
        bool is_own = false;
        for (size_t index = 0; index < ARRAY_LENGTH(own); index++) {
            is_own = is_own || bytes_equal_text(key, own[index]);
        }
        if (!is_own) {
            (void)buffer_append_text(buffer, "\"");
            (void)buffer_append(buffer, key);
            (void)buffer_append_text(buffer, "\": ");
            (void)buffer_append(buffer, value.text);
            (void)buffer_append_text(buffer, ", ");
        }
    }
}

void broker_redis_envelope_append(struct buffer *buffer, const struct publication *publication)
{
    (void)buffer_append_text(buffer, "{\"body\": \"");
    base64_append(buffer, publication->body);
    append_member(buffer, "\", \"content-encoding\": ", publication->content_encoding);
    append_member(buffer, ", \"content-type\": ", publication->content_type);
    (void)buffer_append_text(buffer, ", \"headers\": ");
    (void)buffer_append(buffer, publication->headers);
    (void)buffer_append_text(buffer, ", \"properties\": {");
    append_further(buffer, publication->properties);
    append_member(buffer, "\"correlation_id\": ", publication->correlation_id);
    append_member(buffer, ", \"reply_to\": ", publication->reply_to);
    append_member(buffer, ", \"delivery_mode\": 2, \"delivery_info\": {\"exchange\": ",
                  publication->exchange);
    append_member(buffer, ", \"routing_key\": ", publication->routing_key);
    (void)buffer_format(buffer, "}, \"priority\": %lld, \"body_encoding\": \"base64\"",
                        (long long)publication->priority);
    append_member(buffer, ", \"delivery_tag\": ", publication->delivery_tag);
    (void)buffer_append_text(buffer, "}}");
}
