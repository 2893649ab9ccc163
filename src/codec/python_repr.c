#include "codec/python_repr.h"

#include <stdio.h>

#include "base/utf8.h"

/* Whether repr() escapes a character above ASCII: str.isprintable() is false for other, separators
 * and private use (the blocks where they are common). */
static bool is_escaped(unsigned point)
{
    static const unsigned ranges[][2] = {
        {0x7f, 0xa0},     {0xad, 0xad},     {0x600, 0x605},      {0x2000, 0x200f},
        {0x2028, 0x202f}, {0x205f, 0x206f}, {0x3000, 0x3000},    {0xe000, 0xf8ff},
        {0xfeff, 0xfeff}, {0xfff0, 0xfffb}, {0xe0000, 0x10ffff},
    };
    for (size_t index = 0; index < ARRAY_LENGTH(ranges); index++) {
        if (point >= ranges[index][0] && point <= ranges[index][1]) {
            return true;
        }
    }
    return false;
}

/* Appends a piece that must not be cut; nothing once something did not fit. */
static void append_whole(struct buffer *buffer, struct bytes piece)
{
    if (!buffer->overflowed) {
        (void)buffer_append(buffer, piece);
    }
}

static void append_escape(struct buffer *buffer, unsigned point)
{
    char escape[16];
    int length = point <= 0xff     ? snprintf(escape, sizeof(escape), "\\x%02x", point)
                 : point <= 0xffff ? snprintf(escape, sizeof(escape), "\\u%04x", point)
                                   : snprintf(escape, sizeof(escape), "\\U%08x", point);
    append_whole(buffer, bytes_of(escape, (size_t)length));
}

/* Appends the first character of `text` as it stands between quotes in repr(); returns its
 * length. */
static size_t append_character(struct buffer *buffer, struct bytes text, char quote)
{
    unsigned point = (unsigned char)text.data[0]; /* of bad UTF-8, the byte */
    size_t length = utf8_decode(text, &point);
    if (length == 0) {
        append_escape(buffer, point);
        return 1;
    }
    if (point == '\n' || point == '\r' || point == '\t') {
        append_whole(buffer, point == '\n'   ? BYTES("\\n")
                             : point == '\r' ? BYTES("\\r")
                                             : BYTES("\\t"));
    } else if (point == (unsigned)quote || point == '\\') {
        append_whole(buffer, bytes_of((char[]){'\\', (char)point}, 2));
    } else if (point < 0x20 || is_escaped(point)) {
        append_escape(buffer, point);
    } else {
        append_whole(buffer, bytes_of(text.data, length));
    }
    return length;
}

void python_repr_append_text(struct buffer *buffer, struct bytes text)
{
    bool has_single = bytes_find(text, '\'') != text.length;
    bool has_double = bytes_find(text, '"') != text.length;
    char quote = has_single && !has_double ? '"' : '\'';
    append_whole(buffer, bytes_of(&quote, 1));
    while (text.length > 0 && !buffer->overflowed) {
        text = bytes_skip(text, append_character(buffer, text, quote));
    }
    append_whole(buffer, bytes_of(&quote, 1));
}

static void append_string(struct buffer *buffer, struct json value)
{
    struct arena *arena = arena_new(value.text.length + 1);
    struct bytes text = {NULL, 0};
    (void)!json_text(value, arena, &text);
    python_repr_append_text(buffer, text);
    arena_free(&arena);
}

/* A number as Python's repr of what it reads. */
static void append_number(struct buffer *buffer, struct json value)
{
    struct buffer number;
    buffer_init(&number, value.text.length + 64);
    json_append_dumps(&number, value);
    struct bytes text = buffer_view(&number);
    append_whole(buffer, bytes_equal(text, BYTES("NaN"))         ? BYTES("nan")
                         : bytes_equal(text, BYTES("Infinity"))  ? BYTES("inf")
                         : bytes_equal(text, BYTES("-Infinity")) ? BYTES("-inf")
                                                                 : text);
    buffer_fini(&number);
}

static void append_scalar(struct buffer *buffer, struct json value)
{
    switch (value.type) {
    case JSON_TYPE_STRING:
        append_string(buffer, value);
        break;
    case JSON_TYPE_TRUE:
        append_whole(buffer, BYTES("True"));
        break;
    case JSON_TYPE_FALSE:
        append_whole(buffer, BYTES("False"));
        break;
    case JSON_TYPE_NUMBER:
        append_number(buffer, value);
        break;
    case JSON_TYPE_ABSENT:
    case JSON_TYPE_NULL:
    case JSON_TYPE_ARRAY:
    case JSON_TYPE_OBJECT:
    default:
        append_whole(buffer, BYTES("None"));
        break;
    }
}

/* Depth is bounded by json_parse; the length by the buffer, which overflows and is cut. */
static void append_value(struct buffer *buffer, struct json value)
{
    if (value.type != JSON_TYPE_ARRAY && value.type != JSON_TYPE_OBJECT) {
        append_scalar(buffer, value);
        return;
    }
    bool is_object = value.type == JSON_TYPE_OBJECT;
    append_whole(buffer, is_object ? BYTES("{") : BYTES("["));
    struct json_walk walk = json_walk(value);
    struct json item;
    for (size_t index = 0; !buffer->overflowed && json_next_element(&walk, &item); index++) {
        if (index > 0) {
            append_whole(buffer, is_object && index % 2 == 1 ? BYTES(": ") : BYTES(", "));
        }
        append_value(buffer, item);
    }
    append_whole(buffer, is_object ? BYTES("}") : BYTES("]"));
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
