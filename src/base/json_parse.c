#include "base/json.h"

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

/* The length of the UTF-8 characters that begin with `first`, which is not ASCII, or 0. */
static size_t utf8_length_by_first(unsigned char first)
{
    if (first < 0xc2 || first > 0xf4) {
        return 0;
    }
    return first < 0xe0 ? 2 : first < 0xf0 ? 3 : 4;
}

/* The length of the well-formed UTF-8 character that starts at `text` and is not ASCII, or 0
 * (Unicode 15, table 3-7). Checks only: utf8_decode halves the speed of the parser. */
static size_t utf8_length(const unsigned char *text, const unsigned char *end)
{
    unsigned char first = *text;
    size_t length = utf8_length_by_first(first);
    if (length == 0 || (size_t)(end - text) < length) {
        return 0;
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

/* Whether a backslash and `byte` are one character by themselves. */
static bool is_escape_letter(unsigned char byte)
{
    switch (byte) {
    case '"':
    case '\\':
    case '/':
    case 'b':
    case 'f':
    case 'n':
    case 'r':
    case 't':
        return true;
    default:
        return false;
    }
}

static bool scan_escape(struct scanner *scanner)
{
    scanner->position++;
    if (scanner->position >= scanner->end) {
        return fail(scanner, "unterminated string");
    }
    if (*scanner->position != 'u') {
        if (!is_escape_letter(*scanner->position)) {
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

bool json_parse(struct bytes text, struct json *ret_value, struct error *reterr)
{
    if (text.length == 0) {
        return error_set(reterr, ERROR_INVALID, "empty text");
    }
    const unsigned char *data = (const unsigned char *)text.data;
    struct scanner scanner = {data, data + text.length, data, reterr};
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
    *ret_value = json_checked(bytes_of((const char *)start, (size_t)(end - start)));
    return true;
}
