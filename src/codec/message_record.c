#include "codec/message_record.h"

#include "base/base64.h"
#include "codec/message_body.h"

#define RECORD_VERSION 1

static void append_object(struct buffer *buffer, const char *key, struct json object)
{
    (void)buffer_format(buffer, ", \"%s\": ", key);
    (void)buffer_append(buffer, object.type == JSON_TYPE_OBJECT ? object.text : BYTES("{}"));
}

void message_record_append(struct buffer *buffer, const struct message *message)
{
    (void)buffer_format(buffer, "{\"v\": %d", RECORD_VERSION);
    append_object(buffer, "headers", message->headers);
    append_object(buffer, "properties", message->properties);
    json_append_text_member(buffer, "content-type", message->content_type);
    json_append_text_member(buffer, "content-encoding", message->content_encoding);
    (void)buffer_append_text(buffer, ", \"body\": \"");
    base64_append(buffer, message->body);
    (void)buffer_append_text(buffer, "\", \"body_encoding\": \"base64\"");
    json_append_text_member(buffer, "queue", message->queue);
    if (!bytes_equal(message->taken_from, message->queue)) {
        json_append_text_member(buffer, "taken_from", message->taken_from);
    }
    json_append_text_member(buffer, "exchange", message->exchange);
    (void)buffer_format(buffer, ", \"priority\": %lld, \"redelivered\": %s}",
                        (long long)message->priority, message->redelivered ? "true" : "false");
}

/* The members that are no part of the headers; missing ones are empty. */
static bool read_envelope(struct json record, struct arena *arena, struct message *message,
                          struct bytes *ret_body)
{
    const struct {
        const char *key;
        struct bytes *target;
    } texts[] = {
        {"content-type", &message->content_type},
        {"content-encoding", &message->content_encoding},
        {"queue", &message->queue},
        {"exchange", &message->exchange},
    };

    for (size_t index = 0; index < ARRAY_LENGTH(texts); index++) {
        if (!json_text(json_get(record, texts[index].key), arena, texts[index].target)) {
            return false;
        }
    }
    if (!json_text(json_get(record, "taken_from"), arena, &message->taken_from)) {
        message->taken_from = message->queue;
    }
    message->headers = json_get(record, "headers");
    message->properties = json_get(record, "properties");
    (void)!json_text(json_get(message->properties, "reply_to"), arena, &message->reply_to);
    (void)!json_text(json_get(message->properties, "correlation_id"), arena,
                     &message->correlation_id);
    (void)!json_int64(json_get(record, "priority"), &message->priority);
    message->redelivered = json_get(record, "redelivered").type == JSON_TYPE_TRUE;
    struct bytes encoded;
    return json_text(json_get(record, "body"), arena, &encoded)
           && base64_decode(encoded, arena, ret_body);
}

bool message_record_read(struct bytes record, struct arena *arena, struct message *ret_message,
                         struct error *reterr)
{
    struct json value;
    struct message message = {.protocol = 2};
    struct bytes body;
    int64_t version = 0;
    if (!json_parse(record, &value, reterr)) {
        return error_wrap(reterr, "the message that the Job carries");
    }
    if (!json_int64(json_get(value, "v"), &version) || version != RECORD_VERSION) {
        return error_set(reterr, ERROR_UNSUPPORTED,
                         "the message that the Job carries is not of version %d", RECORD_VERSION);
    }
    if (!read_envelope(value, arena, &message, &body)) {
        return error_set(reterr, ERROR_INVALID, "the message that the Job carries is incomplete");
    }
    if (message_read_headers(arena, &message, reterr) != MESSAGE_FINE
        || message_body_parse(body, &message, reterr) != MESSAGE_FINE) {
        return error_wrap(reterr, "the message that the Job carries");
    }
    *ret_message = message;
    return true;
}
