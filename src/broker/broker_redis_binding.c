#include "broker/broker_redis_binding.h"

#include <ctype.h>

/* Cuts `*rest` at the first `separator`; false when there is none. */
static bool next_part(struct bytes *rest, struct bytes separator, struct bytes *ret_part)
{
    for (size_t index = 0; index + separator.length <= rest->length; index++) {
        if (bytes_starts_with(bytes_skip(*rest, index), separator)) {
            *ret_part = bytes_of(rest->data, index);
            *rest = bytes_skip(*rest, index + separator.length);
            return true;
        }
    }
    return false;
}

static size_t word_length(struct bytes text)
{
    return bytes_find(text, '.');
}

/* Kombu makes a regular expression of a topic key: the word * becomes [^\.]+ and the word #
 * becomes .*?, which also passes dots; all is anchored. What follows a # is tried from each
 * place on; only the latest # needs another try. */
static bool topic_matches(struct bytes key, struct bytes text)
{
    struct bytes retry_key = {NULL, 0};
    struct bytes retry_text = {NULL, 0};
    bool has_retry = false;
    bool at_word = true;
    while (key.length > 0 || text.length > 0) {
        size_t length = word_length(key);
        bool is_single = at_word && length == 1;
        if (is_single && key.data[0] == '#') {
            key = bytes_skip(key, 1);
            retry_key = key;
            retry_text = text;
            has_retry = true;
            at_word = false;
        } else if (is_single && key.data[0] == '*' && word_length(text) > 0) {
            key = bytes_skip(key, 1);
            text = bytes_skip(text, word_length(text));
            at_word = false;
        } else if (!(is_single && key.data[0] == '*') && key.length > 0 && text.length > 0
                   && key.data[0] == text.data[0]) {
            at_word = key.data[0] == '.';
            key = bytes_skip(key, 1);
            text = bytes_skip(text, 1);
        } else if (has_retry && retry_text.length > 0) {
            retry_text = bytes_skip(retry_text, 1);
            key = retry_key;
            text = retry_text;
            at_word = false;
        } else {
            return false;
        }
    }
    return true;
}

/* All but ASCII letters and digits is escaped, and so no expression (kombu/utils/text.py:
 * escape_regex). */
static void append_escaped(struct buffer *buffer, struct bytes word)
{
    for (size_t index = 0; index < word.length; index++) {
        unsigned char byte = (unsigned char)word.data[index];
        if (byte < 0x80 && !isalnum(byte) && byte != '#' && byte != '*') {
            (void)buffer_append_byte(buffer, '\\');
        }
        (void)buffer_append_byte(buffer, word.data[index]);
    }
}

static void append_pattern(struct buffer *buffer, struct bytes key)
{
    (void)buffer_append_byte(buffer, '^');
    for (;;) {
        struct bytes word = bytes_of(key.data, word_length(key));
        if (bytes_equal(word, BYTES("*"))) {
            (void)buffer_append_text(buffer, "[^\\.]+");
        } else if (bytes_equal(word, BYTES("#"))) {
            (void)buffer_append_text(buffer, ".*?");
        } else {
            append_escaped(buffer, word);
        }
        if (word.length == key.length) {
            break;
        }
        (void)buffer_append_text(buffer, "\\.");
        key = bytes_skip(key, word.length + 1);
    }
    (void)buffer_append_byte(buffer, '$');
}

void broker_redis_binding_append(struct buffer *buffer, struct bytes separator,
                                 const struct broker_redis_binding *binding)
{
    (void)buffer_append_text(buffer, binding->routing_key);
    (void)buffer_append(buffer, separator);
    if (binding->is_topic) {
        append_pattern(buffer, bytes_from_text(binding->routing_key));
    }
    (void)buffer_append(buffer, separator);
    (void)buffer_append_text(buffer, binding->queue);
}

bool broker_redis_binding_leads(struct bytes member, struct bytes separator,
                                struct bytes routing_key, struct bytes *ret_queue)
{
    struct bytes key = {NULL, 0};
    struct bytes pattern = {NULL, 0};
    struct bytes queue = member;
    if (!next_part(&queue, separator, &key) || !next_part(&queue, separator, &pattern)
        || queue.length == 0) {
        return false;
    }
    bool leads =
        pattern.length > 0 ? topic_matches(key, routing_key) : bytes_equal(key, routing_key);
    if (leads) {
        *ret_queue = queue;
    }
    return leads;
}
