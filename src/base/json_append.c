#include "base/json.h"

#include <math.h>
#include <stdio.h>

#define REPLACEMENT_CHARACTER 0xfffd

/* Decodes the character at `text`; bad bytes give U+FFFD and a length of 1. */
static unsigned decode_utf8(const unsigned char *text, size_t available, size_t *ret_length)
{
    static const unsigned least[] = {0, 0, 0x80, 0x800, 0x10000};
    unsigned char first = text[0];
    size_t length = first < 0x80 ? 1 : first < 0xc2 ? 0 : first < 0xe0 ? 2 : first < 0xf0 ? 3 : 4;
    *ret_length = 1;
    if (length == 1) {
        return first;
    }
    if (length == 0 || length > available) {
        return REPLACEMENT_CHARACTER;
    }
    unsigned point = first & (0xffU >> (length + 1));
    for (size_t index = 1; index < length; index++) {
        if ((text[index] & 0xc0) != 0x80) {
            return REPLACEMENT_CHARACTER;
        }
        point = (point << 6) | (text[index] & 0x3f);
    }
    if (point < least[length] || point > 0x10ffff || (point >= 0xd800 && point <= 0xdfff)) {
        return REPLACEMENT_CHARACTER;
    }
    *ret_length = length;
    return point;
}

static void append_escape(struct buffer *buffer, unsigned point)
{
    static const char named[] = "\"\\\b\f\n\r\t";
    static const char letters[] = "\"\\bfnrt";
    const char *hit = point > 0 && point < 0x80 ? strchr(named, (int)point) : NULL;
    if (hit) {
        (void)buffer_append_byte(buffer, '\\');
        (void)buffer_append_byte(buffer, letters[hit - named]);
    } else if (point >= 0x10000) {
        unsigned rest = point - 0x10000;
        (void)buffer_format(buffer, "\\u%04x\\u%04x", 0xd800 + (rest >> 10),
                            0xdc00 + (rest & 0x3ff));
    } else {
        (void)buffer_format(buffer, "\\u%04x", point);
    }
}

void json_append_string(struct buffer *buffer, struct bytes text)
{
    (void)buffer_append_byte(buffer, '"');
    size_t plain_start = 0;
    size_t index = 0;
    while (index < text.length) {
        unsigned char byte = (unsigned char)text.data[index];
        if (byte >= 0x20 && byte < 0x7f && byte != '"' && byte != '\\') {
            index++;
            continue;
        }
        (void)buffer_append(buffer, bytes_of(text.data + plain_start, index - plain_start));
        size_t length = 1;
        unsigned point =
            decode_utf8((const unsigned char *)text.data + index, text.length - index, &length);
        if (point == 0x7f) {
            (void)buffer_append_byte(buffer, 0x7f); /* json.dumps leaves DEL as it is */
        } else {
            append_escape(buffer, point);
        }
        index += length;
        plain_start = index;
    }
    if (text.length > plain_start) {
        (void)buffer_append(buffer, bytes_of(text.data + plain_start, text.length - plain_start));
    }
    (void)buffer_append_byte(buffer, '"');
}

/* Rewrites what "%.*e" gave ("-1.5e+16") in the form of Python's repr: positional from 1e-4 to
 * below 1e16. */
static void append_repr(struct buffer *buffer, const char *scientific)
{
    char digits[32];
    size_t count = 0;
    const char *position = scientific;
    if (*position == '-') {
        (void)buffer_append_byte(buffer, *position++);
    }
    for (; *position != 'e'; position++) {
        if (*position != '.') {
            digits[count++] = *position;
        }
    }
    while (count > 1 && digits[count - 1] == '0') {
        count--;
    }
    long exponent = strtol(position + 1, NULL, 10);
    struct bytes all = bytes_of(digits, count);
    if (exponent < -4 || exponent >= 16) {
        (void)buffer_append_byte(buffer, digits[0]);
        if (count > 1) {
            (void)buffer_append_byte(buffer, '.');
            (void)buffer_append(buffer, bytes_skip(all, 1));
        }
        (void)buffer_format(buffer, "e%c%02ld", exponent < 0 ? '-' : '+', labs(exponent));
        return;
    }
    if (exponent < 0) {
        (void)buffer_append_text(buffer, "0.");
        for (long zero = -1; zero > exponent; zero--) {
            (void)buffer_append_byte(buffer, '0');
        }
        (void)buffer_append(buffer, all);
        return;
    }
    size_t whole = (size_t)exponent + 1;
    for (size_t index = 0; index < whole; index++) {
        (void)buffer_append_byte(buffer, index < count ? digits[index] : '0');
    }
    (void)buffer_append_byte(buffer, '.');
    (void)buffer_append(buffer, whole < count ? bytes_skip(all, whole) : BYTES("0"));
}

void json_append_double(struct buffer *buffer, double number)
{
    if (isnan(number)) {
        (void)buffer_append_text(buffer, "NaN");
        return;
    }
    if (isinf(number)) {
        (void)buffer_append_text(buffer, number < 0 ? "-Infinity" : "Infinity");
        return;
    }
    char text[40];
    for (int precision = 0; precision <= 16; precision++) {
        (void)snprintf(text, sizeof(text), "%.*e", precision, number);
        double same = strtod(text, NULL);
        if (memcmp(&same, &number, sizeof(same)) == 0) {
            break;
        }
    }
    append_repr(buffer, text);
}

static void append_scalar(struct buffer *buffer, struct json value)
{
    if (value.type != JSON_STRING) {
        (void)buffer_append(buffer, value.text);
        return;
    }
    struct arena *arena = NULL;
    struct bytes plain = bytes_of(value.text.data + 1, value.text.length - 2);
    if (bytes_find(plain, '\\') != plain.length) {
        arena = arena_new(plain.length + 1);
        (void)!json_string(value, arena, &plain);
    }
    json_append_string(buffer, plain);
    arena_free(&arena);
}

void json_append_dumps(struct buffer *buffer, struct json value)
{
    if (value.type != JSON_ARRAY && value.type != JSON_OBJECT) {
        append_scalar(buffer, value);
        return;
    }
    /* Recursion is bounded: json_parse refuses more than JSON_MAX_DEPTH levels. */
    bool is_object = value.type == JSON_OBJECT;
    (void)buffer_append_byte(buffer, is_object ? '{' : '[');
    struct json_walk walk = json_walk(value);
    struct json item;
    for (size_t index = 0; json_next_element(&walk, &item); index++) {
        if (index > 0) {
            (void)buffer_append_text(buffer, is_object && index % 2 == 1 ? ": " : ", ");
        }
        json_append_dumps(buffer, item);
    }
    (void)buffer_append_byte(buffer, is_object ? '}' : ']');
}
