#include "base/json.h"

#include <math.h>
#include <stdio.h>

struct scanner {
    const unsigned char *position;
    const unsigned char *end;
    const unsigned char *start;
    struct error *reterr;
};

/* Scanning: `checked` text is known to be right, and only skipped */

static bool fail(struct scanner *scanner, const char *what)
{
    return error_set(scanner->reterr, ERROR_INVALID, "%s at byte %zu", what,
                     (size_t)(scanner->position - scanner->start));
}

static const unsigned char *skip_space(const unsigned char *position, const unsigned char *end)
{
    while (position < end
           && (*position == ' ' || *position == '\n' || *position == '\r' || *position == '\t')) {
        position++;
    }
    return position;
}

/* The length of the well-formed UTF-8 character that starts at `text`, or 0 (Unicode 15, table
 * 3-7). */
static size_t utf8_length(const unsigned char *text, const unsigned char *end)
{
    unsigned char first = *text;
    size_t length = first < 0x80 ? 1 : first < 0xc2 ? 0 : first < 0xe0 ? 2 : first < 0xf0 ? 3 : 4;
    if (length == 0 || first > 0xf4 || (size_t)(end - text) < length) {
        return 0;
    }
    if (length == 1) {
        return 1;
    }
    unsigned char least = first == 0xe0 ? 0xa0 : first == 0xf0 ? 0x90 : 0x80;
    unsigned char most = first == 0xed ? 0x9f : first == 0xf4 ? 0x8f : 0xbf;
    if (text[1] < least || text[1] > most) {
        return 0;
    }
    for (size_t index = 2; index < length; index++) {
        if ((text[index] & 0xc0) != 0x80) {
            return 0;
        }
    }
    return length;
}

static int hex_digit(unsigned char byte)
{
    if (byte >= '0' && byte <= '9') {
        return byte - '0';
    }
    unsigned char lower = byte | 0x20;
    return lower >= 'a' && lower <= 'f' ? lower - 'a' + 10 : -1;
}

static bool scan_escape(struct scanner *scanner)
{
    scanner->position++;
    if (scanner->position >= scanner->end) {
        return fail(scanner, "unterminated string");
    }
    if (*scanner->position != 'u') {
        if (!memchr("\"\\/bfnrt", *scanner->position, 8)) {
            return fail(scanner, "bad escape in a string");
        }
        scanner->position++;
        return true;
    }
    for (int digit = 1; digit <= 4; digit++) {
        if (scanner->position + digit >= scanner->end || hex_digit(scanner->position[digit]) < 0) {
            return fail(scanner, "bad \\u escape in a string");
        }
    }
    scanner->position += 5;
    return true;
}

static bool scan_string(struct scanner *scanner)
{
    scanner->position++;
    while (scanner->position < scanner->end) {
        unsigned char byte = *scanner->position;
        if (byte == '"') {
            scanner->position++;
            return true;
        }
        if (byte == '\\') {
            if (!scan_escape(scanner)) {
                return false;
            }
        } else if (byte < 0x20) {
            return fail(scanner, "control character in a string");
        } else if (byte < 0x80) {
            scanner->position++;
        } else {
            size_t length = utf8_length(scanner->position, scanner->end);
            if (length == 0) {
                return fail(scanner, "invalid UTF-8");
            }
            scanner->position += length;
        }
    }
    return fail(scanner, "unterminated string");
}

static size_t scan_digits(struct scanner *scanner)
{
    const unsigned char *first = scanner->position;
    while (scanner->position < scanner->end && *scanner->position >= '0'
           && *scanner->position <= '9') {
        scanner->position++;
    }
    return (size_t)(scanner->position - first);
}

static bool scan_word(struct scanner *scanner, const char *word)
{
    size_t length = strlen(word);
    if ((size_t)(scanner->end - scanner->position) < length
        || memcmp(scanner->position, word, length) != 0) {
        return fail(scanner, "unexpected character");
    }
    scanner->position += length;
    return true;
}

static bool scan_number(struct scanner *scanner)
{
    if (*scanner->position == '-') {
        scanner->position++;
        if (scanner->position < scanner->end && *scanner->position == 'I') {
            return scan_word(scanner, "Infinity");
        }
    }
    const unsigned char *first = scanner->position;
    size_t digits = scan_digits(scanner);
    if (digits == 0 || (*first == '0' && digits > 1)) {
        return fail(scanner, "bad number");
    }
    if (scanner->position < scanner->end && *scanner->position == '.') {
        scanner->position++;
        if (scan_digits(scanner) == 0) {
            return fail(scanner, "bad number");
        }
    }
    if (scanner->position < scanner->end && (*scanner->position | 0x20) == 'e') {
        scanner->position++;
        if (scanner->position < scanner->end
            && (*scanner->position == '+' || *scanner->position == '-')) {
            scanner->position++;
        }
        if (scan_digits(scanner) == 0) {
            return fail(scanner, "bad number");
        }
    }
    return true;
}

static bool scan_scalar(struct scanner *scanner)
{
    switch (*scanner->position) {
    case '"':
        return scan_string(scanner);
    case 't':
        return scan_word(scanner, "true");
    case 'f':
        return scan_word(scanner, "false");
    case 'n':
        return scan_word(scanner, "null");
    case 'N':
        return scan_word(scanner, "NaN");
    case 'I':
        return scan_word(scanner, "Infinity");
    default:
        return scan_number(scanner);
    }
}

/* Reads `"key" :` of an object. */
static bool scan_key(struct scanner *scanner)
{
    scanner->position = skip_space(scanner->position, scanner->end);
    if (scanner->position >= scanner->end || *scanner->position != '"') {
        return fail(scanner, "expected a member name in quotes");
    }
    if (!scan_string(scanner)) {
        return false;
    }
    scanner->position = skip_space(scanner->position, scanner->end);
    if (scanner->position >= scanner->end || *scanner->position != ':') {
        return fail(scanner, "expected a colon");
    }
    scanner->position++;
    return true;
}

/* After a value: closes containers that end here. True in `ret_more` when another value follows. */
static bool scan_after_value(struct scanner *scanner, const bool *is_object, size_t *depth,
                             bool *ret_more)
{
    while (*depth > 0) {
        scanner->position = skip_space(scanner->position, scanner->end);
        if (scanner->position >= scanner->end) {
            return fail(scanner, "unexpected end");
        }
        bool in_object = is_object[*depth - 1];
        if (*scanner->position == ',') {
            scanner->position++;
            *ret_more = true;
            return !in_object || scan_key(scanner);
        }
        if (*scanner->position != (in_object ? '}' : ']')) {
            return fail(scanner, in_object ? "expected , or }" : "expected , or ]");
        }
        scanner->position++;
        (*depth)--;
    }
    *ret_more = false;
    return true;
}

/* Opens the container at the position; `ret_empty` when it closes at once. */
static bool scan_open(struct scanner *scanner, bool *is_object, size_t *depth, bool *ret_empty)
{
    if (*depth == JSON_MAX_DEPTH) {
        return fail(scanner, "nested too deeply");
    }
    bool opens_object = *scanner->position == '{';
    scanner->position = skip_space(scanner->position + 1, scanner->end);
    *ret_empty =
        scanner->position < scanner->end && *scanner->position == (opens_object ? '}' : ']');
    if (*ret_empty) {
        scanner->position++;
        return true;
    }
    is_object[(*depth)++] = opens_object;
    return !opens_object || scan_key(scanner);
}

static bool scan_value(struct scanner *scanner)
{
    bool is_object[JSON_MAX_DEPTH];
    size_t depth = 0;
    bool more = true;
    while (more) {
        scanner->position = skip_space(scanner->position, scanner->end);
        if (scanner->position >= scanner->end) {
            return fail(scanner, "unexpected end");
        }
        if (*scanner->position == '{' || *scanner->position == '[') {
            bool is_empty = false;
            if (!scan_open(scanner, is_object, &depth, &is_empty)) {
                return false;
            }
            if (!is_empty) {
                continue;
            }
        } else if (!scan_scalar(scanner)) {
            return false;
        }
        if (!scan_after_value(scanner, is_object, &depth, &more)) {
            return false;
        }
    }
    return true;
}

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

static struct json value_between(const unsigned char *start, const unsigned char *end)
{
    return (struct json){type_of(*start), bytes_of((const char *)start, (size_t)(end - start))};
}

bool json_parse(struct bytes text, struct json *ret_value, struct error *reterr)
{
    const unsigned char *data = (const unsigned char *)text.data;
    struct scanner scanner = {data, data + text.length, data, reterr};
    if (text.length == 0) {
        return error_set(reterr, ERROR_INVALID, "empty text");
    }
    scanner.position = skip_space(scanner.position, scanner.end);
    const unsigned char *start = scanner.position;
    if (!scan_value(&scanner)) {
        return false;
    }
    const unsigned char *end = scanner.position;
    scanner.position = skip_space(scanner.position, scanner.end);
    if (scanner.position != scanner.end) {
        return fail(&scanner, "extra data");
    }
    *ret_value = value_between(start, end);
    return true;
}

/* Reading checked text */

/* The end of the string that starts at `position`. */
static const unsigned char *skip_string(const unsigned char *position, const unsigned char *end)
{
    for (position++; position < end; position++) {
        const unsigned char *quote = memchr(position, '"', (size_t)(end - position));
        if (!quote) {
            return end;
        }
        const unsigned char *before = quote;
        while (before > position && before[-1] == '\\') {
            before--;
        }
        position = quote;
        if ((quote - before) % 2 == 0) {
            return quote + 1;
        }
    }
    return end;
}

/* The end of the value that starts at `position`. */
static const unsigned char *skip_value(const unsigned char *position, const unsigned char *end)
{
    size_t depth = 0;
    while (position < end) {
        switch (*position) {
        case '"':
            position = skip_string(position, end);
            break;
        case '{':
        case '[':
            depth++;
            position++;
            continue;
        case '}':
        case ']':
            depth--;
            position++;
            break;
        case ',':
        case ':':
        case ' ':
        case '\n':
        case '\r':
        case '\t':
            position++;
            continue;
        default:
            while (position < end && !memchr(",:]} \n\r\t", *position, 8)) {
                position++;
            }
            break;
        }
        if (depth == 0) {
            break;
        }
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
    while (position < end && memchr(", \n\r\t:", *position, 6)) {
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

/* Whether the raw key (escapes and all) spells `name`. */
static bool key_is(struct bytes key, struct bytes name)
{
    if (bytes_find(key, '\\') == key.length) {
        return bytes_equal(key, name);
    }
    struct arena *arena = arena_new(key.length + 2);
    struct json quoted = {JSON_TYPE_STRING, bytes_of(key.data - 1, key.length + 2)};
    struct bytes plain = {NULL, 0};
    bool is_same = json_text(quoted, arena, &plain) && bytes_equal(plain, name);
    arena_free(&arena);
    return is_same;
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
        number = number * 16 + (unsigned)hex_digit(digits[index]);
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
