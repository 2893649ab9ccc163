#include "codec/control_message.h"

#include <fnmatch.h>
#include <inttypes.h>
#include <regex.h>

#define MAX_PATTERN_BYTES 512

/* A text member; missing, null and anything else is the empty view. */
static struct bytes text_of(struct json object, const char *key, struct arena *arena)
{
    struct bytes text = {NULL, 0};
    (void)!json_text(json_get(object, key), arena, &text);
    return text;
}

bool control_message_read(const struct delivery *delivery, struct control_message *ret_message,
                          struct error *reterr)
{
    struct json body;
    struct arena *arena = delivery->arena;
    if (!bytes_equal(delivery->content_type, BYTES("application/json"))) {
        return error_set(reterr, ERROR_INVALID, "content of type %.*s is not read",
                         BYTES_FORMAT(delivery->content_type));
    }
    if (!json_parse(delivery->body, &body, reterr)) {
        return false;
    }
    struct json reply_to = json_get(body, "reply_to");
    struct control_message message = {
        .method = text_of(body, "method", arena),
        .arguments = json_get(body, "arguments"),
        .destination = json_get(body, "destination"),
        .pattern = text_of(body, "pattern", arena),
        .matcher = text_of(body, "matcher", arena),
        .ticket = text_of(body, "ticket", arena),
        .reply_to = text_of(reply_to, "exchange", arena),
        .reply_key = text_of(reply_to, "routing_key", arena),
    };
    if (message.method.length == 0) {
        return error_set(reterr, ERROR_INVALID, "it names no method");
    }
    (void)!json_int64(json_get(delivery->headers, "clock"), &message.clock);
    *ret_message = message;
    return true;
}

static bool is_destination(struct json destination, const char *node_name)
{
    struct json_walk walk = json_walk(destination);
    struct json element;
    bool is_found = false;
    struct arena *arena = arena_new(256);
    while (destination.type == JSON_TYPE_ARRAY && !is_found && json_next_element(&walk, &element)) {
        struct bytes name;
        is_found = json_text(element, arena, &name) && bytes_equal_text(name, node_name);
    }
    arena_free(&arena);
    return is_found;
}

static bool matches_expression(const char *pattern, const char *node_name)
{
    regex_t compiled;
    regmatch_t match;
    if (regcomp(&compiled, pattern, REG_EXTENDED) != 0) {
        return false;
    }
    bool is_found = regexec(&compiled, node_name, 1, &match, 0) == 0 && match.rm_so == 0;
    regfree(&compiled);
    return is_found;
}

static bool matches(const struct control_message *message, const char *node_name)
{
    char pattern[MAX_PATTERN_BYTES];
    if (message->pattern.length >= sizeof(pattern)) {
        return false;
    }
    memcpy(pattern, message->pattern.data, message->pattern.length);
    pattern[message->pattern.length] = '\0';
    if (bytes_equal(message->matcher, BYTES("pcre"))) {
        return matches_expression(pattern, node_name);
    }
    return fnmatch(pattern, node_name, FNM_NOESCAPE) == 0;
}

/* kombu/pidbox.py: Node.handle_message takes a message for all, for this node, or with a pattern
 * that fits. */
bool control_message_is_for(const struct control_message *message, const char *node_name)
{
    bool has_destination = !json_is_unset(message->destination);
    bool has_pattern = message->pattern.length > 0 && message->matcher.length > 0;
    if (has_destination && is_destination(message->destination, node_name)) {
        return true;
    }
    if (has_pattern) {
        return matches(message, node_name);
    }
    return !has_destination;
}

void control_message_append_reply(struct buffer *body, const char *node_name, struct bytes value)
{
    (void)buffer_append_byte(body, '{');
    json_append_string(body, bytes_from_text(node_name));
    (void)buffer_append_text(body, ": ");
    (void)buffer_append(body, value);
    (void)buffer_append_byte(body, '}');
}

void control_message_append_headers(struct buffer *headers, const struct control_message *message,
                                    int64_t clock)
{
    (void)buffer_append_text(headers, "{\"ticket\": ");
    json_append_string(headers, message->ticket);
    (void)buffer_format(headers, ", \"clock\": %" PRId64 "}", clock);
}
