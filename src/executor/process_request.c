#include "executor/process_request.h"

/* A text of the properties as it stands there; null when it is missing. */
static void append_property(struct buffer *buffer, const struct message *message, const char *key)
{
    struct json value = json_get(message->properties, key);
    (void)buffer_format(buffer, ", \"%s\": ", key);
    (void)buffer_append(buffer, value.type == JSON_TYPE_ABSENT ? BYTES("null") : value.text);
}

/* Of two members with one name Python takes the last one: ours. */
void process_request_append(struct buffer *buffer, const struct message *message,
                            const char *hostname)
{
    struct bytes headers = message->headers.text;
    (void)buffer_append(buffer, bytes_of(headers.data, headers.length - 1));
    (void)buffer_append_text(buffer, ", \"properties\": ");
    (void)buffer_append(buffer, message->properties.type == JSON_TYPE_OBJECT
                                    ? message->properties.text
                                    : BYTES("{}"));
    append_property(buffer, message, "reply_to");
    append_property(buffer, message, "correlation_id");
    json_append_text_member(buffer, "hostname", bytes_from_text(hostname));
    (void)buffer_append_text(buffer, ", \"delivery_info\": {\"exchange\": ");
    json_append_string(buffer, message->exchange);
    json_append_text_member(buffer, "routing_key", message->queue);
    append_property(buffer, message, "priority");
    (void)buffer_format(buffer, ", \"redelivered\": %s}", message->redelivered ? "true" : "false");
    if (message->compression.length > 0) {
        json_append_text_member(buffer, PROCESS_REQUEST_COMPRESSION, message->compression);
    }
    (void)buffer_append_byte(buffer, '}');
}
