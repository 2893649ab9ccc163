#include "base/json.h"

#include <math.h>
#include <stdio.h>

#include "base/utf8.h"

#define REPLACEMENT_CHARACTER 0xfffd

/* A finite number as its significant digits, d.ddd times ten to the exponent. */
struct decimal {
    char digits[32];
    size_t count;
    long exponent;
};

/* The character `point` as json.dumps escapes it, or itself when it is printable ASCII. */
static void append_point(struct buffer *buffer, unsigned point)
{
    static const char named[] = "\"\\\b\f\n\r\t";
    static const char letters[] = "\"\\bfnrt";
    const char *hit = point > 0 && point < 0x80 ? strchr(named, (int)point) : NULL;
    if (hit) {
        (void)buffer_append_byte(buffer, '\\');
        (void)buffer_append_byte(buffer, letters[hit - named]);
    } else if (point >= 0x20 && point < 0x7f) {
        (void)buffer_append_byte(buffer, (char)point);
    } else if (point >= 0x10000) {
        unsigned rest = point - 0x10000;
        (void)buffer_format(buffer, "\\u%04x\\u%04x", 0xd800 + (rest >> 10),
                            0xdc00 + (rest & 0x3ff));
    } else {
        (void)buffer_format(buffer, "\\u%04x", point);
    }
}

/* How many bytes at the start of `text` go into a JSON string as they are. */
static size_t count_plain(struct bytes text)
{
    size_t count = 0;
    while (count < text.length && text.data[count] >= 0x20 && text.data[count] < 0x7f
           && text.data[count] != '"' && text.data[count] != '\\') {
        count++;
    }
    return count;
}

/* Appends the first character of `text` escaped; returns its length. */
static size_t append_character(struct buffer *buffer, struct bytes text)
{
    unsigned point = REPLACEMENT_CHARACTER;
    size_t length = utf8_decode(text, &point);
    append_point(buffer, point);
    return length > 0 ? length : 1;
}

void json_append_string(struct buffer *buffer, struct bytes text)
{
    (void)buffer_append_byte(buffer, '"');
    while (text.length > 0) {
        size_t plain = count_plain(text);
        (void)buffer_append(buffer, bytes_of(text.data, plain));
        text = bytes_skip(text, plain);
        if (text.length > 0) {
            text = bytes_skip(text, append_character(buffer, text));
        }
    }
    (void)buffer_append_byte(buffer, '"');
}

void json_append_text_member(struct buffer *buffer, const char *key, struct bytes text)
{
    (void)buffer_format(buffer, ", \"%s\": ", key);
    json_append_string(buffer, text);
}

/* Takes apart what "%.*e" gave, without its sign ("1.5e+16"). */
static struct decimal read_scientific(const char *text)
{
    struct decimal decimal = {.digits = {*text++}, .count = 1};
    for (; *text != 'e'; text++) {
        if (*text != '.') {
            decimal.digits[decimal.count++] = *text;
        }
    }
    while (decimal.count > 1 && decimal.digits[decimal.count - 1] == '0') {
        decimal.count--;
    }
    decimal.exponent = strtol(text + 1, NULL, 10);
    return decimal;
}

static void append_zeros(struct buffer *buffer, size_t count)
{
    for (size_t index = 0; index < count; index++) {
        (void)buffer_append_byte(buffer, '0');
    }
}

/* 1e-05, 1.5e+16 */
static void append_scientific(struct buffer *buffer, const struct decimal *decimal)
{
    (void)buffer_append_byte(buffer, decimal->digits[0]);
    if (decimal->count > 1) {
        (void)buffer_append_byte(buffer, '.');
        (void)buffer_append(buffer, bytes_of(decimal->digits + 1, decimal->count - 1));
    }
    (void)buffer_format(buffer, "e%c%02ld", decimal->exponent < 0 ? '-' : '+',
                        labs(decimal->exponent));
}

/* 0.001, 1.5, 100.0 */
static void append_positional(struct buffer *buffer, const struct decimal *decimal)
{
    struct bytes digits = bytes_of(decimal->digits, decimal->count);
    if (decimal->exponent < 0) {
        (void)buffer_append_text(buffer, "0.");
        append_zeros(buffer, (size_t)-decimal->exponent - 1);
        (void)buffer_append(buffer, digits);
        return;
    }
    size_t whole = (size_t)decimal->exponent + 1;
    size_t given = whole < digits.length ? whole : digits.length;
    (void)buffer_append(buffer, bytes_of(digits.data, given));
    append_zeros(buffer, whole - given);
    (void)buffer_append_byte(buffer, '.');
    (void)buffer_append(buffer, given < digits.length ? bytes_skip(digits, given) : BYTES("0"));
}

/* What "%.*e" gave ("-1.5e+16") in the form of Python's repr: positional from 1e-4 to below 1e16. */
static void append_repr(struct buffer *buffer, const char *scientific)
{
    if (*scientific == '-') {
        (void)buffer_append_byte(buffer, *scientific++);
    }
    struct decimal decimal = read_scientific(scientific);
    if (decimal.exponent < -4 || decimal.exponent >= 16) {
        append_scientific(buffer, &decimal);
    } else {
        append_positional(buffer, &decimal);
    }
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
        if (strtod(text, NULL) == number) {
            break;
        }
    }
    append_repr(buffer, text);
}

/* Appends the escape at the start of `text` as json.dumps writes it; returns its length. Half a
 * surrogate pair stays what it is, as in Python. */
static size_t append_unescaped(struct buffer *buffer, struct bytes text)
{
    if (text.data[1] == 'u') {
        char digits[5] = {text.data[2], text.data[3], text.data[4], text.data[5], '\0'};
        append_point(buffer, (unsigned)strtoul(digits, NULL, 16));
        return 6;
    }
    if (text.data[1] == '/') {
        (void)buffer_append_byte(buffer, '/');
    } else {
        (void)buffer_append(buffer, bytes_of(text.data, 2));
    }
    return 2;
}

/* A string as somebody wrote it, which json_parse has checked. */
static void append_rewritten(struct buffer *buffer, struct bytes quoted)
{
    struct bytes text = bytes_of(quoted.data + 1, quoted.length - 2);
    (void)buffer_append_byte(buffer, '"');
    while (text.length > 0) {
        size_t plain = count_plain(text);
        (void)buffer_append(buffer, bytes_of(text.data, plain));
        text = bytes_skip(text, plain);
        if (text.length > 0) {
            text = bytes_skip(text, text.data[0] == '\\' ? append_unescaped(buffer, text)
                                                         : append_character(buffer, text));
        }
    }
    (void)buffer_append_byte(buffer, '"');
}

/* Python reads a number with a point or an exponent as a float, and writes its repr. Integers and
 * the words NaN and Infinity, which have neither, stay what they are. */
static void append_number(struct buffer *buffer, struct bytes text)
{
    bool is_float = false;
    for (size_t index = 0; index < text.length && !is_float; index++) {
        char byte = text.data[index];
        is_float = byte == '.' || byte == 'e' || byte == 'E';
    }
    if (!is_float) {
        (void)buffer_append(buffer, bytes_equal(text, BYTES("-0")) ? BYTES("0") : text);
        return;
    }
    char *number CLEANUP(memory_free_at) = memory_text(text);
    json_append_double(buffer, strtod(number, NULL));
}

static void append_scalar(struct buffer *buffer, struct json value)
{
    if (value.type == JSON_TYPE_STRING) {
        append_rewritten(buffer, value.text);
    } else if (value.type == JSON_TYPE_NUMBER) {
        append_number(buffer, value.text);
    } else {
        (void)buffer_append(buffer, value.text);
    }
}

void json_append_dumps(struct buffer *buffer, struct json value)
{
    if (value.type != JSON_TYPE_ARRAY && value.type != JSON_TYPE_OBJECT) {
        append_scalar(buffer, value);
        return;
    }
    /* Recursion is bounded: json_parse refuses more than JSON_MAX_DEPTH levels. */
    bool is_object = value.type == JSON_TYPE_OBJECT;
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

void json_append_text_after(struct buffer *buffer, const char *before, struct bytes text)
{
    (void)buffer_append_text(buffer, before);
    json_append_string(buffer, text);
}

void json_append_value_after(struct buffer *buffer, const char *before, struct json value)
{
    (void)buffer_append_text(buffer, before);
    if (json_is_unset(value)) {
        (void)buffer_append_text(buffer, "null");
    } else {
        json_append_dumps(buffer, value);
    }
}
