#include "base/json.h"

#include <math.h>
#include <stdio.h>

static enum json_type type_of(unsigned char first)
{
    switch (first) {
    case '{':
        return JSON_TYPE_OBJECT;
    case '[':
        return JSON_TYPE_ARRAY;
    case '"':
        return JSON_TYPE_STRING;
    case 't':
        return JSON_TYPE_TRUE;
    case 'f':
        return JSON_TYPE_FALSE;
    case 'n':
        return JSON_TYPE_NULL;
    default:
        return JSON_TYPE_NUMBER;
    }
}

struct json json_checked(struct bytes text)
{
    return (struct json){type_of((unsigned char)text.data[0]), text};
}

static struct json value_between(const unsigned char *start, const unsigned char *end)
{
    return json_checked(bytes_of((const char *)start, (size_t)(end - start)));
}

/* What ends a number or a word, and what stands between values: looked up, since this is the inner
 * loop of everything that reads a message. */
static const unsigned char separators[256] = {
    [','] = 1, [':'] = 1, [' '] = 1, ['\n'] = 1, ['\r'] = 1, ['\t'] = 1,
};
static const unsigned char word_ends[256] = {
    [','] = 1, [':'] = 1, [' '] = 1, ['\n'] = 1, ['\r'] = 1, ['\t'] = 1, [']'] = 1, ['}'] = 1,
};

/* The end of the string that starts at `position`. */
static const unsigned char *skip_string(const unsigned char *position, const unsigned char *end)
{
    const unsigned char *begin = position + 1;
    const unsigned char *quote = position;
    while ((quote = memchr(quote + 1, '"', (size_t)(end - quote - 1))) != NULL) {
        const unsigned char *escapes = quote;
        while (escapes > begin && escapes[-1] == '\\') {
            escapes--;
        }
        if ((quote - escapes) % 2 == 0) {
            return quote + 1;
        }
    }
    return end;
}

/* The end of the container that starts at `position`. */
static const unsigned char *skip_container(const unsigned char *position, const unsigned char *end)
{
    size_t depth = 0;
    while (position < end) {
        unsigned char byte = *position;
        if (byte == '"') {
            position = skip_string(position, end);
            continue;
        }
        position++;
        if (byte == '{' || byte == '[') {
            depth++;
        } else if ((byte == '}' || byte == ']') && --depth == 0) {
            break;
        }
    }
    return position;
}

/* The end of the value that starts at `position`. */
static const unsigned char *skip_value(const unsigned char *position, const unsigned char *end)
{
    if (*position == '"') {
        return skip_string(position, end);
    }
    if (*position == '{' || *position == '[') {
        return skip_container(position, end);
    }
    while (position < end && !word_ends[*position]) {
        position++;
    }
    return position;
}

struct json_walk json_walk(struct json container)
{
    if (container.type != JSON_TYPE_ARRAY && container.type != JSON_TYPE_OBJECT) {
        return (struct json_walk){NULL, NULL};
    }
    return (struct json_walk){container.text.data + 1,
                              container.text.data + container.text.length - 1};
}

/* Moves to the next thing that is no separator. */
static const unsigned char *skip_separators(const unsigned char *position, const unsigned char *end)
{
    while (position < end && separators[*position]) {
        position++;
    }
    return position;
}

bool json_next_element(struct json_walk *walk, struct json *ret_value)
{
    const unsigned char *end = (const unsigned char *)walk->end;
    const unsigned char *start = skip_separators((const unsigned char *)walk->position, end);
    if (start >= end) {
        return false;
    }
    const unsigned char *after = skip_value(start, end);
    walk->position = (const char *)after;
    *ret_value = value_between(start, after);
    return true;
}

bool json_next_member(struct json_walk *walk, struct bytes *ret_key, struct json *ret_value)
{
    struct json key;
    if (!json_next_element(walk, &key)) {
        return false;
    }
    *ret_key = bytes_of(key.text.data + 1, key.text.length - 2);
    return json_next_element(walk, ret_value);
}

/* Whether the raw key (escapes and all) spells `name`. An escape only ever makes a key longer. */
static bool key_is(struct bytes key, struct bytes name)
{
    if (key.length == name.length) {
        return bytes_equal(key, name);
    }
    if (key.length < name.length || bytes_find(key, '\\') == key.length) {
        return false;
    }
    struct arena *arena = arena_new(key.length + 2);
    struct json quoted = {JSON_TYPE_STRING, bytes_of(key.data - 1, key.length + 2)};
    struct bytes plain = {NULL, 0};
    bool is_same = json_text(quoted, arena, &plain) && bytes_equal(plain, name);
    arena_free(&arena);
    return is_same;
}

/* Several members at once: one walk over the object instead of one for each. */
void json_pick(struct json object, const char *const *keys, size_t count, struct json *ret_values)
{
    struct json_walk walk = json_walk(object);
    struct bytes member_key;
    struct json member;
    memset(ret_values, 0, count * sizeof(*ret_values));
    while (object.type == JSON_TYPE_OBJECT && json_next_member(&walk, &member_key, &member)) {
        for (size_t index = 0; index < count; index++) {
            if (key_is(member_key, bytes_from_text(keys[index]))) {
                ret_values[index] = member;
                break;
            }
        }
    }
}

struct json json_get(struct json object, const char *key)
{
    struct json found = {JSON_TYPE_ABSENT, {NULL, 0}};
    if (object.type != JSON_TYPE_OBJECT) {
        return found;
    }
    struct bytes name = bytes_from_text(key);
    struct json_walk walk = json_walk(object);
    struct bytes member_key;
    struct json member;
    while (json_next_member(&walk, &member_key, &member)) {
        if (key_is(member_key, name)) {
            found = member;
        }
    }
    return found;
}

struct json json_at(struct json array, size_t index)
{
    struct json_walk walk = json_walk(array);
    struct json element;
    while (array.type == JSON_TYPE_ARRAY && json_next_element(&walk, &element)) {
        if (index-- == 0) {
            return element;
        }
    }
    return (struct json){JSON_TYPE_ABSENT, {NULL, 0}};
}

size_t json_count(struct json container)
{
    struct json_walk walk = json_walk(container);
    struct json value;
    size_t count = 0;
    while (json_next_element(&walk, &value)) {
        count++;
    }
    return container.type == JSON_TYPE_OBJECT ? count / 2 : count;
}

static unsigned read_hex4(const unsigned char *digits)
{
    unsigned number = 0;
    for (int index = 0; index < 4; index++) {
        unsigned digit = digits[index];
        number = number * 16 + (digit <= '9' ? digit - '0' : (digit | 0x20) - 'a' + 10);
    }
    return number;
}

static size_t write_utf8(char *out, unsigned point)
{
    if (point < 0x80) {
        out[0] = (char)point;
        return 1;
    }
    if (point < 0x800) {
        out[0] = (char)(0xc0 | (point >> 6));
        out[1] = (char)(0x80 | (point & 0x3f));
        return 2;
    }
    if (point < 0x10000) {
        out[0] = (char)(0xe0 | (point >> 12));
        out[1] = (char)(0x80 | ((point >> 6) & 0x3f));
        out[2] = (char)(0x80 | (point & 0x3f));
        return 3;
    }
    out[0] = (char)(0xf0 | (point >> 18));
    out[1] = (char)(0x80 | ((point >> 12) & 0x3f));
    out[2] = (char)(0x80 | ((point >> 6) & 0x3f));
    out[3] = (char)(0x80 | (point & 0x3f));
    return 4;
}

/* Reads one escape at `*position` (behind the backslash) and moves past it. */
static unsigned read_escape(const unsigned char **position, const unsigned char *end)
{
    unsigned char letter = *(*position)++;
    if (letter != 'u') {
        static const char letters[] = "\"\\/bfnrt";
        static const char meanings[] = "\"\\/\b\f\n\r\t";
        const char *hit = strchr(letters, letter);
        return hit ? (unsigned char)meanings[hit - letters] : letter;
    }
    unsigned unit = read_hex4(*position);
    *position += 4;
    if (unit < 0xd800 || unit > 0xdfff) {
        return unit;
    }
    if (unit < 0xdc00 && end - *position >= 6 && (*position)[0] == '\\' && (*position)[1] == 'u') {
        unsigned low = read_hex4(*position + 2);
        if (low >= 0xdc00 && low <= 0xdfff) {
            *position += 6;
            return 0x10000 + ((unit - 0xd800) << 10) + (low - 0xdc00);
        }
    }
    return 0xfffd;
}

bool json_text(struct json value, struct arena *arena, struct bytes *ret_text)
{
    if (value.type != JSON_TYPE_STRING) {
        return false;
    }
    struct bytes raw = bytes_of(value.text.data + 1, value.text.length - 2);
    if (bytes_find(raw, '\\') == raw.length) {
        *ret_text = raw;
        return true;
    }
    char *plain = arena_alloc(arena, raw.length + 1);
    size_t length = 0;
    const unsigned char *position = (const unsigned char *)raw.data;
    const unsigned char *end = position + raw.length;
    while (position < end) {
        if (*position != '\\') {
            plain[length++] = (char)*position++;
            continue;
        }
        position++;
        length += write_utf8(plain + length, read_escape(&position, end));
    }
    *ret_text = bytes_of(plain, length);
    return true;
}

bool json_int64(struct json value, int64_t *ret_number)
{
    if (value.type != JSON_TYPE_NUMBER) {
        return false;
    }
    bool is_negative = value.text.data[0] == '-';
    int64_t number = 0;
    for (size_t index = is_negative ? 1 : 0; index < value.text.length; index++) {
        char digit = value.text.data[index];
        if (digit < '0' || digit > '9' || __builtin_mul_overflow(number, 10, &number)
            || __builtin_sub_overflow(number, digit - '0', &number)) {
            return false;
        }
    }
    if (!is_negative && __builtin_mul_overflow(number, -1, &number)) {
        return false;
    }
    *ret_number = number;
    return true;
}

bool json_double(struct json value, double *ret_number)
{
    char text[400];
    if (value.type != JSON_TYPE_NUMBER || value.text.length >= sizeof(text)) {
        return false;
    }
    memcpy(text, value.text.data, value.text.length);
    text[value.text.length] = '\0';
    double number = strtod(text, NULL);
    if (!isfinite(number)) {
        return false;
    }
    *ret_number = number;
    return true;
}
