#include "codec/python_repr.h"

void python_repr_append_text(struct buffer *buffer, struct bytes text)
{
    bool has_single = bytes_find(text, '\'') != text.length;
    bool has_double = bytes_find(text, '"') != text.length;
    char quote = has_single && !has_double ? '"' : '\'';
    (void)buffer_append_byte(buffer, quote);
    for (size_t index = 0; index < text.length; index++) {
        unsigned char byte = (unsigned char)text.data[index];
        if (byte == '\n' || byte == '\r' || byte == '\t') {
            (void)buffer_format(buffer, "\\%c", byte == '\n' ? 'n' : byte == '\r' ? 'r' : 't');
        } else if (byte == (unsigned char)quote || byte == '\\') {
            (void)buffer_format(buffer, "\\%c", byte);
        } else if (byte < 0x20 || byte == 0x7f) {
            (void)buffer_format(buffer, "\\x%02x", byte);
        } else {
            (void)buffer_append_byte(buffer, (char)byte);
        }
    }
    (void)buffer_append_byte(buffer, quote);
}

static void append_string(struct buffer *buffer, struct json value)
{
    struct arena *arena = arena_new(value.text.length + 1);
    struct bytes text = {NULL, 0};
    (void)!json_text(value, arena, &text);
    python_repr_append_text(buffer, text);
    arena_free(&arena);
}

static void append_scalar(struct buffer *buffer, struct json value)
{
    switch (value.type) {
    case JSON_TYPE_STRING:
        append_string(buffer, value);
        break;
    case JSON_TYPE_TRUE:
        (void)buffer_append_text(buffer, "True");
        break;
    case JSON_TYPE_FALSE:
        (void)buffer_append_text(buffer, "False");
        break;
    case JSON_TYPE_NUMBER:
        (void)buffer_append(buffer, value.text);
        break;
    case JSON_TYPE_ABSENT:
    case JSON_TYPE_NULL:
    case JSON_TYPE_ARRAY:
    case JSON_TYPE_OBJECT:
    default:
        (void)buffer_append_text(buffer, "None");
        break;
    }
}

/* Depth is bounded by json_parse; the length by the buffer, which overflows and is cut. */
static void append_value(struct buffer *buffer, struct json value)
{
    if (buffer->overflowed || (value.type != JSON_TYPE_ARRAY && value.type != JSON_TYPE_OBJECT)) {
        append_scalar(buffer, value);
        return;
    }
    bool is_object = value.type == JSON_TYPE_OBJECT;
    (void)buffer_append_byte(buffer, is_object ? '{' : '[');
    struct json_walk walk = json_walk(value);
    struct json item;
    for (size_t index = 0; !buffer->overflowed && json_next_element(&walk, &item); index++) {
        if (index > 0) {
            (void)buffer_append_text(buffer, is_object && index % 2 == 1 ? ": " : ", ");
        }
        append_value(buffer, item);
    }
    (void)buffer_append_byte(buffer, is_object ? '}' : ']');
}

void python_repr_append(struct buffer *buffer, struct json value, size_t max_bytes)
{
    struct buffer text;
    buffer_init(&text, max_bytes);
    append_value(&text, value);
    (void)buffer_append(buffer, buffer_view(&text));
    if (text.overflowed) {
        (void)buffer_append_text(buffer, "...");
    }
    buffer_fini(&text);
}
